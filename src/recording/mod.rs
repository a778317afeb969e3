//! The recorder: one original per participant connection, appended whole, synced and acknowledged each second.
//!
//! A room's packets come out of its [`TapReader`] and go, per source, through `reorder` (order and gaps), `frames`
//! (VP8) and `timeline` (media time); per original through `muxer` (which cluster) and `webm` (its bytes); then through
//! `chain` and `file` onto the disk, which alone is not pure. `room` and `connection` hold these together, and this
//! file the threads. [`verify`] reads it all back.
//!
//! Recordings may lie on several disks, each with threads of its own: one that fails or hangs stops only the rooms on
//! it. `places` knows which room lies where, `space` takes the bytes that a room will need before it opens. What breaks
//! is told ([`Fact::Lost`]) and given up as it is; whoever wants to go on opens the room anew, with a new tap, and gets
//! new files.
//!
//! An original has a track for each source that has sent by the time its header is written: players wait for tracks
//! that stay empty. A source that begins later closes the original and begins the next one of the same connection, so
//! several [`Fact::Finished`] may come for one connection.
//!
//! After the meeting [`read`] gives the originals' blocks back, and [`session`] makes one file of them all that plays
//! anywhere: `mix` decodes, places and mixes the voices, [`voice`] measures them.

pub mod canonical;
mod chain;
mod connection;
mod file;
mod frames;
mod intake;
pub mod lines;
pub mod manifest;
#[doc(hidden)]
pub mod measure;
mod mix;
mod muxer;
mod original;
mod original_check;
pub mod package;
mod pictures;
mod places;
pub mod quality;
pub mod read;
pub mod recover;
mod reorder;
mod room;
pub mod seekable;
pub mod session;
pub mod sign;
mod space;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod timestamp;
mod verify;
pub mod voice;
mod webm;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use self::chain::{ChainEntry, StoredPiece};
pub use self::original_check::Difference;
pub use self::places::folder_of;
pub use self::space::{Need, SpaceConfig};
pub use self::verify::{FileReport, Report, VerifyError, verify, verify_original};

use self::file::{Disk, LocalDisk};
use self::places::{Places, Thread, Work};
use self::room::{Opening, RoomRecording};
use self::space::{Purse, Reservation, ReserveError, Volume};
use crate::clock::{Clock, MonoTime};
use crate::id::{ConnectionId, RoomId};
use crate::media::{RecordingFault, Source};
use crate::rtp::TapReader;
use crate::vault::SessionKey;

/// How often a recorder thread empties its taps. Lower spends more on looking; higher delays the first acknowledgement,
/// for which a room's media waits, and every later one.
const TICK: Duration = Duration::from_millis(50);

/// How much a recorder thread gives way to media workers on the same core (setpriority(2)): a packet that waits is late, a
/// write that waits is not. More lets taps fill up under load.
const NICE: i32 = 5;

/// How often it is looked how much is free on each disk. Rarer places rooms by older figures.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a disk may take to reserve a room's bytes. A file system does it in milliseconds; longer keeps the operator
/// waiting on a disk that does not answer.
const RESERVE_WITHIN: Duration = Duration::from_secs(3);

/// Where originals are written.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// The folders of recordings, best on a disk each; a room gets a folder of its own in one of them.
    pub folders: Vec<PathBuf>,
    /// Recorder threads per folder.
    pub threads: usize,
    /// What is reserved for rooms.
    pub space: SpaceConfig,
}

/// Handle on the recorder's threads. Clones speak to the same ones.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    places: Places,
    /// What each open room was said to need.
    needs: DashMap<RoomId, Need>,
    space: SpaceConfig,
    clock: Clock,
}

/// No disk has the bytes that a room needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is not enough space for the room's recording")]
pub struct NoSpace;

/// What the recorder did, told to the room's actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The room's files can be written: what is tapped is recorded. Once, first of all, unless it is lost at once.
    Ready,
    /// The first write that holds a source of a connection is on disk. Once per source.
    Started {
        /// Which connection.
        connection: ConnectionId,
        /// Which of its sources.
        source: Source,
    },
    /// A picture can be recorded only from its next keyframe on, which is to be asked for. At most once a second per
    /// source, until it comes.
    KeyframeWanted {
        /// Which connection.
        connection: ConnectionId,
        /// Which of its sources.
        source: Source,
    },
    /// A picture arrives, nothing of it can be recorded, and no keyframe comes however often it is asked for.
    PictureMissing {
        /// Which connection.
        connection: ConnectionId,
        /// Which of its sources.
        source: Source,
        /// Since when.
        since: MonoTime,
    },
    /// It is recorded again, or does not arrive any more.
    PictureBack {
        /// Which connection.
        connection: ConnectionId,
        /// Which of its sources.
        source: Source,
    },
    /// The room is not recorded any more. Its originals stay as they are: each is told of before, if anything of it
    /// is on disk.
    Lost {
        /// Why.
        fault: RecordingFault,
    },
    /// An original was given up; what is said of it is what is on disk for sure.
    GivenUp {
        /// Which connection.
        connection: ConnectionId,
        /// What is in it.
        original: Original,
    },
    /// How far an original that grows is on disk for sure, every few seconds.
    Head {
        /// Which connection.
        connection: ConnectionId,
        /// What is in it so far.
        original: Original,
    },
    /// An original is whole and closed.
    Finished {
        /// Which connection.
        connection: ConnectionId,
        /// What is in it.
        original: Original,
    },
    /// The room's last original is closed; nothing more comes.
    Closed,
}

/// One finished original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// File name in the room's folder, e.g. `delegato-1.webm`.
    pub file: String,
    /// Camera and microphone, or the screen.
    pub sources: Vec<Source>,
    /// Length of the WebM in bytes. Encrypted, the file is a little longer.
    pub bytes: u64,
    /// Number of clusters.
    pub clusters: u64,
    /// Media time from the first block to the end of the last, milliseconds.
    pub duration_ms: u64,
    /// SHA-256 of the last chain entry, in hex.
    pub chain_head: String,
}

impl Recorder {
    /// Starts the threads. They end when every handle is gone and every room is closed. Finds the rooms that lie in the
    /// folders, and gives back what an earlier run had reserved for them.
    ///
    /// # Errors
    /// If the system gives no thread. What is wrong with a folder is told by each room's facts.
    pub fn start(config: RecorderConfig, clock: Clock) -> std::io::Result<Self> {
        let disks = config.folders.iter().map(|_| Arc::new(LocalDisk) as Arc<dyn Disk>).collect();
        Self::start_on(disks, config, clock)
    }

    /// The same on other disks, one per folder.
    fn start_on(disks: Vec<Arc<dyn Disk>>, config: RecorderConfig, clock: Clock) -> std::io::Result<Self> {
        let RecorderConfig { folders, threads, space } = config;
        let volumes: Vec<_> =
            folders.into_iter().zip(disks).map(|(folder, disk)| Arc::new(Volume::new(folder, disk))).collect();
        let mut places = Vec::new();
        for (index, volume) in volumes.iter().enumerate() {
            if let Err(error) = volume.disk().make_folder(&volume.folder) {
                tracing::error!(folder = %volume.folder.display(), %error, "a folder of recordings cannot be made");
            }
            volume.look();
            for n in 0..threads.max(1) {
                let (sender, commands) = channel();
                let work = Arc::new(Work::default());
                let (volume, floor, told) = (Arc::clone(volume), space.floor, Arc::clone(&work));
                let worker =
                    Worker { volume, floor, clock, commands, work: told, rooms: HashMap::new(), held: HashMap::new() };
                thread::Builder::new().name(format!("recorder-{index}-{n}")).spawn(move || worker.run())?;
                places.push(Thread { commands: sender, volume: index, work });
            }
        }
        let shared = Arc::new(Shared { places: Places::new(volumes, places), needs: DashMap::new(), space, clock });
        shared.places.find_rooms();
        for (index, volume) in shared.places.volumes.iter().enumerate() {
            // One per disk: a disk that hangs keeps only its own waiting.
            let (handles, volume) = (Arc::downgrade(&shared), Arc::clone(volume));
            thread::Builder::new().name(format!("disk-{index}")).spawn(move || {
                while handles.strong_count() > 0 {
                    thread::sleep(LOOK_EVERY);
                    volume.look();
                }
            })?;
        }
        Ok(Self { shared })
    }

    /// Takes the bytes that a room will need, on the disk where it lies or else on the one with most space. Asked again,
    /// it sees to it that as many are held. A disk that fails or does not answer is no reason to say no: that is told
    /// when the room is opened, and why.
    ///
    /// # Errors
    /// They are not there, or taking them would leave less than the floor.
    pub async fn reserve(&self, room: RoomId, need: Need) -> Result<(), NoSpace> {
        let Shared { places, needs, space, clock } = &*self.shared;
        needs.insert(room, need);
        let bytes = space.bytes(need);
        let placed = places.of(room);
        let mut full = false;
        for index in placed.map_or_else(|| places.candidates(clock.mono()), |index| vec![index]) {
            let (reply, answer) = oneshot::channel();
            self.send_to(index, Command::Reserve { room, bytes, reply });
            match timeout(RESERVE_WITHIN, answer).await {
                Ok(Ok(Ok(()))) => {
                    places.put(room, index);
                    return Ok(());
                }
                Ok(Ok(Err(error @ ReserveError::Full { .. }))) => {
                    tracing::warn!(%room, %error, "no space for a room's recording");
                    full = true;
                }
                Ok(Ok(Err(error))) => tracing::error!(%room, %error, "a room's bytes could not be reserved"),
                Ok(Err(_)) => tracing::error!(%room, "a recorder thread is gone"),
                Err(_) => {
                    tracing::error!(%room, "a disk does not answer");
                    self.send_to(index, Command::Release { room });
                }
            }
        }
        if full { Err(NoSpace) } else { Ok(()) }
    }

    /// Gives a room's bytes back: it is not opened after all.
    pub fn release(&self, room: RoomId) {
        self.shared.needs.remove(&room);
        self.send(room, Command::Release { room });
    }

    /// Whether any disk has more than its floor left.
    pub fn has_space(&self) -> bool {
        self.shared.places.volumes.iter().any(|volume| volume.unreserved() > self.shared.space.floor)
    }

    /// Begins a room's recording: makes its folder and proves that it can be written, then acknowledges for the first
    /// time and says [`Fact::Ready`]. What went wrong comes as [`Fact::Lost`]. With a key, everything of the room is
    /// encrypted under it. A room that is recorded already is finished first, as far as it can be, and begins anew in
    /// new files.
    pub fn open_room(&self, room: RoomId, key: Option<Arc<SessionKey>>, tap: TapReader, facts: mpsc::Sender<Fact>) {
        let ahead = self.shared.needs.get(&room).map_or(0, |need| self.shared.space.ahead(*need));
        self.send(room, Command::OpenRoom { room, ahead, key, tap, facts });
    }

    /// Announces a connection before its first packet: its file is named `<label>-<n>.webm`, n counting from 1 per label.
    pub fn open_original(&self, room: RoomId, connection: ConnectionId, label: String) {
        self.send(room, Command::OpenOriginal { room, connection, label });
    }

    /// Takes an announcement back: the connection does not come about.
    pub fn drop_original(&self, room: RoomId, connection: ConnectionId) {
        self.send(room, Command::DropOriginal { room, connection });
    }

    /// Finishes every original of the room and gives its bytes back; [`Fact::Closed`] follows.
    pub fn close_room(&self, room: RoomId) {
        self.shared.needs.remove(&room);
        self.send(room, Command::CloseRoom { room });
    }

    fn send(&self, room: RoomId, command: Command) {
        self.send_to(self.shared.places.place(room, self.shared.clock.mono()), command);
    }

    fn send_to(&self, index: usize, command: Command) {
        // A thread that is gone has let go of its taps: their rooms stop, and new ones find their tap closed.
        if self.shared.places.thread(index).is_none_or(|thread| thread.commands.send(command).is_err()) {
            tracing::error!(index, "a recorder thread is gone");
        }
    }
}

#[derive(Debug)]
enum Command {
    Reserve { room: RoomId, bytes: u64, reply: oneshot::Sender<Result<(), ReserveError>> },
    Release { room: RoomId },
    OpenRoom { room: RoomId, ahead: u64, key: Option<Arc<SessionKey>>, tap: TapReader, facts: mpsc::Sender<Fact> },
    OpenOriginal { room: RoomId, connection: ConnectionId, label: String },
    DropOriginal { room: RoomId, connection: ConnectionId },
    CloseRoom { room: RoomId },
}

/// One recorder thread and the rooms that it serves.
#[derive(Debug)]
struct Worker {
    volume: Arc<Volume>,
    /// Bytes of the disk that no reservation takes.
    floor: u64,
    clock: Clock,
    commands: Receiver<Command>,
    work: Arc<Work>,
    rooms: HashMap<RoomId, RoomRecording>,
    /// What rooms hold of the disk.
    held: HashMap<RoomId, Purse>,
}

impl Worker {
    fn run(mut self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "a recorder thread works at the priority of all others");
        }
        let mut next_tick = MonoTime::ZERO;
        let mut handles_left = true;
        while handles_left || !self.rooms.is_empty() {
            handles_left &= self.obey_until(next_tick);
            let now = self.clock.mono();
            if now >= next_tick && !self.rooms.is_empty() {
                self.tick();
                next_tick = self.clock.mono() + TICK;
            }
        }
    }

    fn tick(&mut self) {
        let clock = self.clock;
        let round = clock.mono();
        self.each_room(
            |room| !room.acknowledge_rest(round),
            |room| {
                room.take(clock.now(), &clock);
                true
            },
        );
        self.each_room(RoomRecording::is_half_done, |room| room.settle(&clock));
        let work = &self.work;
        work.rooms.store(self.rooms.len(), Ordering::Relaxed);
    }

    /// Works on each room that is `due`, in turn; those for which `false` comes back are done with.
    fn each_room(&mut self, due: impl Fn(&RoomRecording) -> bool, mut work_on: impl FnMut(&mut RoomRecording) -> bool) {
        let (clock, work) = (self.clock, &self.work);
        self.rooms.retain(|id, room| {
            if !due(room) {
                return true;
            }
            work.begin(clock.mono());
            // What one room's media does to us must not stop the others; a room that is gone falls silent, and is lost.
            let stays = catch_unwind(AssertUnwindSafe(|| work_on(room)));
            work.end();
            stays.unwrap_or_else(|_| {
                tracing::error!(room = %id, "a room's recording panicked");
                false
            })
        });
    }

    /// Carries out commands until the next tick is due, or, without rooms, until one came. `false` once no more can come.
    fn obey_until(&mut self, next_tick: MonoTime) -> bool {
        loop {
            let received = if self.rooms.is_empty() {
                self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.commands.recv_timeout(next_tick.since(self.clock.mono()))
            };
            match received {
                Ok(command) => {
                    self.work.begin(self.clock.mono());
                    self.obey(command);
                    self.work.end();
                    self.work.rooms.store(self.rooms.len(), Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(next_tick.since(self.clock.mono()));
                    return false;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reserve { room, bytes, reply } => {
                let reserved = self.purse(room).hold_at_least(bytes, self.floor);
                if reserved.is_err() {
                    self.give_back(room);
                }
                // Whoever asked has given up: they have said so with the next command.
                let _ = reply.send(reserved);
            }
            Command::Release { room } => self.give_back(room),
            Command::OpenRoom { room, ahead, key, tap, facts } => {
                // A room may be opened anew while its old tap is still being emptied.
                if let Some(mut replaced) = self.rooms.remove(&room) {
                    replaced.close(self.clock.now(), &self.clock);
                }
                let space = Some((self.purse(room), ahead));
                let (folder, disk) = (self.volume.folder.join(room.to_string()), Arc::clone(self.volume.disk()));
                let opening = Opening { room, folder, disk, space, key, tap, facts };
                self.rooms.insert(room, RoomRecording::open(opening, self.clock.mono()));
            }
            Command::OpenOriginal { room, connection, label } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.announce(connection, &label);
                }
            }
            Command::DropOriginal { room, connection } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.forget(connection, self.clock.now(), &self.clock);
                }
            }
            Command::CloseRoom { room } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.close(self.clock.now(), &self.clock);
                }
                if let Some(purse) = self.held.remove(&room) {
                    purse.give_back();
                }
            }
        }
    }

    /// Gives back what a room holds that is not open.
    fn give_back(&mut self, room: RoomId) {
        if !self.rooms.contains_key(&room) {
            self.held.remove(&room);
        }
    }

    fn purse(&mut self, room: RoomId) -> Purse {
        let held = self.held.entry(room).or_insert_with(|| {
            let folder = self.volume.folder.join(room.to_string());
            Purse::new(Reservation::empty(Arc::clone(&self.volume), &folder))
        });
        held.clone()
    }
}
