//! One room's recording: drains its tap, keeps its originals going, acknowledges, and tells the room what happened.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Fact;
use super::connection::Connection;
use super::file::{Disk, prove_writable};
use super::original::{Desk, Failure};
use super::pictures::Pictures;
use super::space::{Purse, Reserved};
use crate::clock::{Clock, MonoTime, Now};
use crate::id::{ConnectionId, RoomId};
use crate::media::RecordingFault;
use crate::rtp::{TAP_ITEMS, TapReader, Tapped};
use crate::vault::SessionKey;

/// Items taken from one tap per tick: a full tap. Lower lets a burst wait; higher lets one room delay the others.
const ITEMS_PER_TICK: usize = TAP_ITEMS;

/// How long a closed room's tap is still emptied, so that the worker's last packets do not look like a failure.
const AFTER_CLOSING: Duration = Duration::from_secs(10);

/// How long a room in which nothing comes in is only acknowledged. Longer notices later that its worker let go of it, or that
/// the wall clock was set; shorter looks through idle rooms more often.
const REST: Duration = Duration::from_secs(1);

/// The wall clock was set if it moved by so much more or less than the monotonic one between two ticks. Smaller steps are
/// those of a clock that is kept right, or of a thread that was held up between reading the two.
const CLOCK_SET_MS: u64 = 250;

/// A room while the recorder has it.
#[derive(Debug)]
pub(super) struct RoomRecording {
    room: RoomId,
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    key: Option<Arc<SessionKey>>,
    tap: TapReader,
    facts: Facts,
    state: State,
    numbers: HashMap<String, u32>,
    connections: BTreeMap<ConnectionId, Connection>,
    pictures: Pictures,
    /// An item of a connection that was not announced when it was taken.
    early: Option<Tapped>,
    /// Both clocks at the last tick.
    clocks: Option<Now>,
    /// How far the tap was emptied in the round whose second half is still to come, and when that began.
    taken: Option<(Now, Drained)>,
    /// Until then there is nothing to do, unless something is tapped.
    rests_until: MonoTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Recording,
    /// Nothing more is written; the tap is emptied all the same.
    Lost,
    /// Everything is on disk and said.
    Closed {
        at: MonoTime,
    },
}

/// What a room's recording begins with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) room: RoomId,
    pub(super) folder: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    /// The bytes that the room holds, and how many it must hold to begin.
    pub(super) space: Option<(Purse, u64)>,
    /// What everything is encrypted under; `None`: it is not.
    pub(super) key: Option<Arc<SessionKey>>,
    pub(super) tap: TapReader,
    pub(super) facts: mpsc::Sender<Fact>,
}

impl RoomRecording {
    pub(super) fn open(opening: Opening, now: MonoTime) -> Self {
        let Opening { room, folder, disk, space, key, tap, facts } = opening;
        // Taken before anything is written: the probe, too, draws on it.
        let held = space.as_ref().map(|(purse, ahead)| purse.hold_at_least(*ahead, 0));
        let disk = match space {
            Some((purse, _)) => Arc::new(Reserved { disk, purse }),
            None => disk,
        };
        let mut recording = Self {
            room,
            folder,
            disk,
            key,
            tap,
            facts: Facts { sender: facts, unsent: VecDeque::new() },
            state: State::Recording,
            numbers: HashMap::new(),
            connections: BTreeMap::new(),
            pictures: Pictures::default(),
            early: None,
            clocks: None,
            taken: None,
            rests_until: MonoTime::ZERO,
        };
        let proved = prove_writable(recording.disk.as_ref(), &recording.folder);
        match (proved, held) {
            (Err(error), _) => recording.lose(error.fault(), &error),
            (Ok(()), Some(Err(error))) => recording.lose(error.fault(), &error),
            (Ok(()), _) => {
                recording.tap.acknowledge(now);
                recording.facts.unsent.push_back(Fact::Ready);
            }
        }
        recording.facts.send();
        recording
    }

    pub(super) fn announce(&mut self, connection: ConnectionId, label: &str) {
        self.connections.entry(connection).or_insert_with(|| Connection::new(connection, label));
    }

    /// Forgets a connection that was announced and never came, and ends one that did.
    pub(super) fn forget(&mut self, connection: ConnectionId, now: Now, clock: &Clock) {
        self.finish(connection, now, clock);
    }

    /// Whether this round can be left out: everything is on disk, and nothing came in. Acknowledges that.
    pub(super) fn acknowledge_rest(&self, now: MonoTime) -> bool {
        let rests = now < self.rests_until && self.tap.is_empty();
        if rests {
            self.tap.acknowledge(now);
        }
        rests
    }

    /// Whether the second half of a round is still to come.
    pub(super) fn is_half_done(&self) -> bool {
        self.taken.is_some()
    }

    /// The first half of a round: takes what was tapped and appends what is due. All rooms of a thread have theirs before
    /// the first is synced, so that the disk works on all of them at once.
    pub(super) fn take(&mut self, now: Now, clock: &Clock) {
        self.watch_clocks(now);
        let drained = self.drain(now, clock);
        self.write_each(now, clock, |connection, desk, _| connection.write(desk));
        self.taken = Some((now, drained));
    }

    /// The second half: makes it durable, acknowledges, and tells. `false` when the room is done with.
    pub(super) fn settle(&mut self, clock: &Clock) -> bool {
        let Some((now, drained)) = self.taken.take() else { return true };
        self.write_each(now, clock, |connection, desk, facts| connection.settle(desk, facts));
        if self.state == State::Recording {
            self.acknowledge(now.mono, drained);
            self.pictures.look(&self.connections, now.mono, &mut self.facts.unsent);
            if matches!(drained, Drained::Until(_)) && self.early.is_none() && self.facts.unsent.is_empty() {
                let done = self.connections.values().all(|connection| connection.is_done(now.mono));
                self.rests_until = if done { now.mono + REST } else { MonoTime::ZERO };
            }
        }
        if drained == Drained::Ended {
            self.close(now, clock);
        }
        self.facts.send();
        match self.state {
            State::Closed { at } => {
                let over = drained == Drained::Ended || now.mono.since(at) >= AFTER_CLOSING;
                !(over && self.facts.unsent.is_empty())
            }
            State::Recording | State::Lost => true,
        }
    }

    /// Finishes every original.
    pub(super) fn close(&mut self, now: Now, clock: &Clock) {
        if matches!(self.state, State::Closed { .. }) {
            return;
        }
        // What was tapped before the room was closed belongs to it. The second round takes what stood behind an item
        // of a connection that was not known yet.
        while self.drain(now, clock) == Drained::More {}
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.finish(connection, now, clock);
        }
        self.facts.unsent.push_back(Fact::Closed);
        self.state = State::Closed { at: now.mono };
        self.rests_until = MonoTime::ZERO;
        self.facts.send();
    }

    /// Compares the two clocks: media goes by the one that cannot be set, so that a step of the other is only told.
    fn watch_clocks(&mut self, now: Now) {
        let Some(last) = self.clocks.replace(now) else { return };
        let passed = i128::try_from(now.mono.since(last.mono).as_millis()).unwrap_or(0);
        let shown = i128::from(now.wall.as_millisecond()) - i128::from(last.wall.as_millisecond());
        let by_ms = i64::try_from(shown - passed).unwrap_or(0);
        if by_ms.unsigned_abs() >= CLOCK_SET_MS && self.state == State::Recording {
            metrics::counter!("sportello_recording_clock_set_total").increment(1);
            for connection in self.connections.values_mut() {
                connection.note_clock_set(now, by_ms);
            }
        }
    }

    fn drain(&mut self, now: Now, clock: &Clock) -> Drained {
        if let Some(item) = self.early.take() {
            // Announcements are read before taps: who is unknown by now was never announced.
            let connection = connection_of(&item);
            if self.state == State::Recording && !self.connections.contains_key(&connection) {
                tracing::warn!(room = %self.room, %connection, "media of a connection that nobody announced");
                self.announce(connection, "unannounced");
            }
            self.take_in(item, now, clock);
        }
        for _ in 0..ITEMS_PER_TICK {
            match self.tap.take() {
                Ok(Some(_)) if self.state != State::Recording => {}
                Ok(Some(item)) if self.connections.contains_key(&connection_of(&item)) => {
                    self.take_in(item, now, clock);
                }
                Ok(Some(item)) => {
                    self.early = Some(item);
                    return Drained::More;
                }
                Ok(None) => return Drained::Until(now.mono),
                Err(_) => return Drained::Ended,
            }
        }
        Drained::More
    }

    fn take_in(&mut self, item: Tapped, now: Now, clock: &Clock) {
        if self.state != State::Recording {
            return;
        }
        let mut desk = Desk {
            disk: self.disk.as_ref(),
            folder: &self.folder,
            now,
            clock,
            key: self.key.as_deref(),
            numbers: &mut self.numbers,
        };
        let connections = &mut self.connections;
        let outcome = match item {
            Tapped::Packet { connection, source, packet } => connections
                .get_mut(&connection)
                .map_or(Ok(()), |entry| entry.take_packet(source, packet, &mut desk, &mut self.facts.unsent)),
            Tapped::Report { connection, source, report } => {
                if let Some(entry) = connections.get_mut(&connection) {
                    entry.take_report(source, &report);
                }
                Ok(())
            }
            Tapped::End { connection, .. } => {
                self.finish(connection, now, clock);
                return;
            }
        };
        if let Err(failure) = outcome {
            self.lose(failure.fault(), &failure);
        }
    }

    fn write_each(
        &mut self,
        now: Now,
        clock: &Clock,
        mut write: impl FnMut(&mut Connection, &mut Desk<'_>, &mut VecDeque<Fact>) -> Result<(), Failure>,
    ) {
        if self.state != State::Recording {
            return;
        }
        let mut desk = Desk {
            disk: self.disk.as_ref(),
            folder: &self.folder,
            now,
            clock,
            key: self.key.as_deref(),
            numbers: &mut self.numbers,
        };
        let unsent = &mut self.facts.unsent;
        let failed = self.connections.values_mut().find_map(|entry| write(entry, &mut desk, unsent).err());
        if let Some(failure) = failed {
            self.lose(failure.fault(), &failure);
        }
    }

    /// Everything is on disk that came in before the oldest thing that is not.
    fn acknowledge(&self, now: MonoTime, drained: Drained) {
        let waiting = self.connections.values().filter_map(|entry| entry.waiting_since(now)).min();
        let until = match (drained, waiting) {
            (Drained::Until(until), Some(waiting)) => until.min(waiting),
            (Drained::Until(until), None) => until,
            // What still stands in the tap is as old as nobody knows: it is taken in the next round.
            (Drained::More | Drained::Ended, _) => return,
        };
        self.tap.acknowledge(until);
    }

    fn finish(&mut self, connection: ConnectionId, now: Now, clock: &Clock) {
        if self.state != State::Recording {
            return;
        }
        let Some(mut entry) = self.connections.remove(&connection) else {
            return;
        };
        let mut desk = Desk {
            disk: self.disk.as_ref(),
            folder: &self.folder,
            now,
            clock,
            key: self.key.as_deref(),
            numbers: &mut self.numbers,
        };
        if let Err(failure) = entry.finish(&mut desk, &mut self.facts.unsent) {
            self.lose(failure.fault(), &failure);
        }
    }

    /// Gives the room's files up as they are, and says so.
    fn lose(&mut self, fault: RecordingFault, why: &dyn std::error::Error) {
        tracing::error!(room = %self.room, ?fault, error = %why, "the room is not recorded any more");
        metrics::counter!("sportello_recording_lost_total").increment(1);
        // The worker stops at its next packet, however long the news takes to the room's actor.
        self.tap.give_up();
        for (connection, entry) in std::mem::take(&mut self.connections) {
            let originals = entry.give_up();
            self.facts.unsent.extend(originals.map(|original| Fact::GivenUp { connection, original }));
        }
        self.state = State::Lost;
        self.rests_until = MonoTime::ZERO;
        self.facts.unsent.push_back(Fact::Lost { fault });
    }
}

/// How far a tap was emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drained {
    /// Everything that was tapped before this time was taken.
    Until(MonoTime),
    /// Something is left.
    More,
    /// Everything was taken, and the worker let go of its end.
    Ended,
}

fn connection_of(item: &Tapped) -> ConnectionId {
    match item {
        Tapped::Packet { connection, .. } | Tapped::Report { connection, .. } | Tapped::End { connection, .. } => {
            *connection
        }
    }
}

/// Facts on their way to the room's actor. They are few, and none but a head is lost:
/// what its queue does not take waits here.
#[derive(Debug)]
struct Facts {
    sender: mpsc::Sender<Fact>,
    unsent: VecDeque<Fact>,
}

impl Facts {
    fn send(&mut self) {
        while let Some(fact) = self.unsent.pop_front() {
            // A head is told anew in a few seconds: it never takes the place of what is told once.
            let is_head = matches!(fact, Fact::Head { .. });
            if is_head && self.sender.capacity() <= self.sender.max_capacity() / 2 {
                continue;
            }
            match self.sender.try_send(fact) {
                Ok(()) => {}
                Err(TrySendError::Full(fact)) => {
                    self.unsent.push_front(fact);
                    return;
                }
                // Nobody is left to be told.
                Err(TrySendError::Closed(_)) => self.unsent.clear(),
            }
        }
    }
}
