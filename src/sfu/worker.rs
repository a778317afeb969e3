//! A media worker: one thread, one socket, the rooms that were placed on it.
//!
//! The loop has no fixed tick: it sleeps until the socket is readable, a command comes or a timer is due, and then
//! takes its phases in order: commands, receive (demultiplex, feed, tap, forward), timers, flush.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use tokio::sync::{mpsc, oneshot};

use super::demux::{Demux, KeyMap, Kind, PeerKey, RoomMap};
use super::forward::Rewrite;
use super::ingress::Payloads;
use super::keys::Keys;
use super::load::LoadMeter;
use super::meters::Meters;
use super::peer::{Peer, PeerEvent};
use super::reflect;
use super::room::{Member, Room};
use super::socket::{Inbox, Route, Socket};
use super::{ConnectError, Fact};
use crate::clock::{Clock, MonoTime};
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;
use crate::rtp::{Packet, Tap};

/// How often activity, keyframe requests and waiting facts are looked after. Shorter costs idle rooms CPU; longer
/// delays the news that someone fell silent.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// The same while nobody sends and nothing waits: only connections that died are left to be noticed.
const QUIET_HOUSEKEEPING: Duration = Duration::from_secs(1);

/// A session from which nothing came for so long has ended: a browser checks every 2.5 s (RFC 7675 §5.1). It covers
/// those that never came about, too. Shorter ends sessions that a network change interrupts; longer keeps dead ones.
const LONGEST_WITHOUT_DATAGRAM: Duration = Duration::from_secs(30);

/// Batches taken in before timers and commands have their turn again.
const MOST_BATCHES: usize = 8;

/// While media comes in, a turn of the loop lasts at least so long: what comes meanwhile is received in one batch, and
/// leaves in one. Longer saves wake-ups and system calls; a packet waits half of it on average.
pub(super) const SHORTEST_TURN: Duration = Duration::from_micros(500);

/// While nobody sends, a turn in which only checks of standing connections came lasts so long: nobody waits for their answers,
/// and one wake-up serves those of many rooms. The first packet of who begins to send waits half of it on average.
const TURN_OF_CHECKS: Duration = Duration::from_millis(20);

/// Nobody sends if no media came for so long: more than the pauses of Opus in DTX (400 ms).
const NOBODY_SENDS: Duration = Duration::from_secs(1);

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// What `control` asks of a worker.
#[derive(Debug)]
pub(super) enum Command {
    OpenRoom {
        room: RoomId,
        tap: Tap,
        facts: mpsc::Sender<Fact>,
        done: oneshot::Sender<()>,
    },
    Connect {
        room: RoomId,
        connection: ConnectionId,
        participant: ParticipantId,
        peer: Box<Peer>,
        done: oneshot::Sender<Result<(), ConnectError>>,
    },
    RestartIce {
        room: RoomId,
        connection: ConnectionId,
        fragment: String,
        done: oneshot::Sender<Result<Option<String>, ConnectError>>,
    },
    SetFlow {
        room: RoomId,
        flow: bool,
    },
    SetTap {
        room: RoomId,
        tap: Option<Tap>,
    },
    RecordingStarted {
        room: RoomId,
        connection: ConnectionId,
        source: Source,
    },
    AskForKeyframe {
        room: RoomId,
        connection: ConnectionId,
        source: Source,
    },
    Disconnect {
        room: RoomId,
        connection: ConnectionId,
    },
    CloseRoom {
        room: RoomId,
        done: oneshot::Sender<()>,
    },
}

/// A worker before its thread runs.
pub(super) struct Worker {
    clock: Clock,
    poll: Poll,
    socket: Socket,
    inbox: Inbox,
    commands: mpsc::Receiver<Command>,
    rooms: RoomMap<Room>,
    peers: KeyMap<Seat>,
    demux: Demux,
    timers: Timers,
    payloads: Payloads,
    next_key: u64,
    housekeeping_due: MonoTime,
    /// When media came in last.
    media_at: MonoTime,
    meters: Meters,
    load: LoadMeter,
    longest_silence: Duration,
}

/// What a turn found in the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing that the next turn need be waited for.
    Nothing,
    /// All that was there. The turn is to last at least so long: more will come.
    All(Duration),
    /// There may be more.
    More,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// It was a check that keeps a connection open, and is answered.
    Check,
    /// Anything else.
    Other,
}

/// When sessions want to be advanced, the next first. Entries that were overtaken are void.
type Timers = BinaryHeap<Reverse<(MonoTime, PeerKey)>>;

/// Where a peer sits: its session here, its part in the room there.
struct Seat {
    room: RoomId,
    connection: ConnectionId,
    peer: Peer,
    /// The earliest timer that is set for it.
    armed: Option<MonoTime>,
}

impl Worker {
    /// Makes a worker and the waker that announces commands to it.
    pub(super) fn new(
        clock: Clock,
        mut socket: Socket,
        commands: mpsc::Receiver<Command>,
        meters: Meters,
        load: LoadMeter,
        longest_silence: Duration,
    ) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        poll.registry().register(socket.source(), SOCKET, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let inbox = socket.inbox();
        let worker = Self {
            clock,
            poll,
            inbox,
            socket,
            commands,
            rooms: RoomMap::default(),
            peers: KeyMap::default(),
            payloads: Payloads::default(),
            demux: Demux::default(),
            timers: BinaryHeap::new(),
            next_key: 0,
            housekeeping_due: MonoTime::ZERO,
            media_at: MonoTime::ZERO,
            meters,
            load,
            longest_silence,
        };
        Ok((worker, waker))
    }

    /// Runs until every handle is gone.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(16);
        loop {
            if let Err(error) = self.poll.poll(&mut events, Some(self.time_to_wait()))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the media worker's poll failed");
                return;
            }
            let mut readable = events.iter().any(|event| event.token() == SOCKET);
            // As long as something comes, there is no need to ask whether it does.
            loop {
                let began = self.clock.mono();
                let Some(found) = self.turn(readable) else { return };
                let now = self.clock.mono();
                let took = now.since(began);
                self.load.add(took, now);
                match found {
                    Found::Nothing => break,
                    Found::All(turn) => thread::sleep(turn.saturating_sub(took)),
                    Found::More => {}
                }
                readable = true;
            }
        }
    }

    /// One turn of the loop; says what was in the socket. `None`: every handle is gone.
    pub(super) fn turn(&mut self, readable: bool) -> Option<Found> {
        if !self.take_commands() {
            return None;
        }
        let found = if readable { self.receive() } else { Found::Nothing };
        self.run_timers();
        self.flush();
        Some(found)
    }

    fn time_to_wait(&self) -> Duration {
        let housekeeping = (!self.rooms.is_empty()).then_some(self.housekeeping_due);
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let due = housekeeping.into_iter().chain(timer).min();
        // With nothing to do the waker ends the sleep.
        due.map_or(Duration::from_secs(1), |due| due.since(self.clock.mono()))
    }

    // ---- commands ----------------------------------------------------------------------------------------------

    /// `false`: every handle is gone.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.carry_out(command),
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        let now = self.clock.mono();
        self.housekeeping_due = self.housekeeping_due.min(now + HOUSEKEEPING);
        match command {
            Command::OpenRoom { room, tap, facts, done } => {
                self.rooms.insert(room, Room::new(tap, facts, self.longest_silence));
                self.meters.rooms.set(count(self.rooms.len()));
                let _ = done.send(());
            }
            Command::Connect { room, connection, participant, peer, done } => {
                let result = self.connect(now, room, connection, participant, *peer);
                let _ = done.send(result);
            }
            Command::RestartIce { room, connection, fragment, done } => {
                let _ = done.send(self.restart_ice(now, room, connection, &fragment));
            }
            Command::SetFlow { room, flow } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.set_flow(flow);
                }
            }
            Command::SetTap { room, tap } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.set_tap(now, tap);
                }
                self.request_keyframes(now, room);
            }
            Command::AskForKeyframe { room, connection, source } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.ask_for_keyframe(connection, source);
                }
                self.request_keyframes(now, room);
            }
            Command::RecordingStarted { room, connection, source } => {
                if let Some(member) = self.rooms.get_mut(&room).and_then(|room| room.member_mut(connection)) {
                    member.recorded.push(source);
                }
            }
            Command::Disconnect { room, connection } => {
                if let Some(key) = self.rooms.get(&room).and_then(|room| room.key_of(connection)) {
                    self.remove(now, key);
                }
            }
            Command::CloseRoom { room, done } => {
                let keys: Vec<_> = self.rooms.get(&room).map(|room| room.keys().collect()).unwrap_or_default();
                for key in keys {
                    self.remove(now, key);
                }
                self.rooms.remove(&room);
                self.meters.rooms.set(count(self.rooms.len()));
                let _ = done.send(());
            }
        }
    }

    fn connect(
        &mut self,
        now: MonoTime,
        room_id: RoomId,
        connection: ConnectionId,
        participant: ParticipantId,
        mut peer: Peer,
    ) -> Result<(), ConnectError> {
        let room = self.rooms.get_mut(&room_id).ok_or(ConnectError::Unknown)?;
        let earlier = room.key_of_participant(participant);
        let key = PeerKey(self.next_key);
        self.next_key += 1;
        room.join(key, Member::new(connection, participant, now));
        self.demux.insert(key, peer.ufrag());
        self.peers.insert(key, Seat { room: room_id, connection, peer, armed: None });
        self.meters.peers.set(count(self.peers.len()));
        if let Some(earlier) = earlier {
            self.remove(now, earlier);
        }
        self.advance(now, key);
        Ok(())
    }

    /// Gives a session keys and a way as if its handshake were done, for benches.
    pub(super) fn supply(&mut self, room_id: RoomId, connection: ConnectionId, keys: &Keys, route: Route) {
        let now = self.clock.mono();
        let Some(key) = self.rooms.get(&room_id).and_then(|room| room.key_of(connection)) else { return };
        self.demux.bind(route.remote, key);
        let mut events = VecDeque::new();
        if let Some(seat) = self.peers.get_mut(&key) {
            seat.peer.supply(now, keys, route, &mut events);
        }
        self.act(now, room_id, connection, events);
    }

    fn restart_ice(
        &mut self,
        now: MonoTime,
        room: RoomId,
        connection: ConnectionId,
        fragment: &str,
    ) -> Result<Option<String>, ConnectError> {
        let key = self.rooms.get(&room).and_then(|room| room.key_of(connection)).ok_or(ConnectError::Unknown)?;
        let seat = self.peers.get_mut(&key).ok_or(ConnectError::Unknown)?;
        let answer = isolate(&self.meters, || seat.peer.restart_ice(fragment))
            .unwrap_or_else(|| Err(ConnectError::BadOffer("it could not be processed".into())))?;
        self.demux.insert(key, seat.peer.ufrag());
        self.advance(now, key);
        Ok(answer)
    }

    // ---- receive -----------------------------------------------------------------------------------------------

    /// Takes in what waits.
    fn receive(&mut self) -> Found {
        let mut inbox = std::mem::replace(&mut self.inbox, Inbox::empty());
        let mut found = Found::Nothing;
        for _ in 0..MOST_BATCHES {
            match self.socket.receive(&mut inbox) {
                Ok(true) => {
                    let now = self.clock.mono();
                    let mut only_checks = now.since(self.media_at) > NOBODY_SENDS;
                    for (route, datagram) in inbox.datagrams() {
                        if Kind::of(datagram) == Kind::Rtp {
                            self.media_at = now;
                            self.housekeeping_due = self.housekeeping_due.min(now + HOUSEKEEPING);
                        }
                        only_checks &= self.feed(now, route, datagram) == Fed::Check;
                    }
                    found = if inbox.is_full() || inbox.is_empty() {
                        // An empty one took the error of an earlier send, and nothing of what waits.
                        Found::More
                    } else if self.media_at == now {
                        Found::All(SHORTEST_TURN)
                    } else if only_checks {
                        Found::All(TURN_OF_CHECKS)
                    } else {
                        // A handshake or a report is no sign of more to come.
                        Found::Nothing
                    };
                }
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "the media socket failed to receive");
                    found = Found::Nothing;
                }
            }
            if found != Found::More {
                break;
            }
        }
        self.inbox = inbox;
        found
    }

    fn feed(&mut self, now: MonoTime, route: Route, datagram: &mut [u8]) -> Fed {
        self.meters.received.add(1);
        let kind = Kind::of(datagram);
        // Before sessions are looked for: browsers ask over a session's own way, too.
        if kind == Kind::Control
            && let Some(answer) = reflect::answer(datagram, route.remote)
        {
            self.socket.send(route, &answer);
            return Fed::Other;
        }
        if kind == Kind::Control && self.answer_check(now, route, datagram) {
            return Fed::Check;
        }
        let key = match kind {
            // Only an address that proved itself by a check may send media.
            Kind::Rtp | Kind::Rtcp => self.demux.by_address(route.remote),
            Kind::Control => self.find_peer(now, route, datagram),
        };
        let Some(key) = key else {
            self.meters.strangers.increment(1);
            return Fed::Other;
        };
        let Some(seat) = self.peers.get_mut(&key) else { return Fed::Other };
        if let Some(member) = self.rooms.get_mut(&seat.room).and_then(|room| room.member_mut(seat.connection)) {
            member.last_seen = now;
        }
        match kind {
            Kind::Rtp => self.feed_rtp(now, key, datagram),
            Kind::Rtcp => self.feed_rtcp(now, key, datagram),
            Kind::Control => {
                let sound = isolate(&self.meters, || seat.peer.receive(now, route, datagram)).is_some();
                if sound { self.drain(now, key) } else { self.remove(now, key) }
            }
        }
        Fed::Other
    }

    /// Answers a check that only keeps a session's way open.
    fn answer_check(&mut self, now: MonoTime, route: Route, datagram: &[u8]) -> bool {
        let Self { demux, peers, rooms, socket, meters, .. } = self;
        let Some(seat) = demux.by_address(route.remote).and_then(|key| peers.get_mut(&key)) else { return false };
        // What panics here is met again on the way through the session, and ends it there.
        if isolate(meters, || seat.peer.answer_check(now, route, datagram, socket)) != Some(true) {
            return false;
        }
        if let Some(member) = rooms.get_mut(&seat.room).and_then(|room| room.member_mut(seat.connection)) {
            member.last_seen = now;
        }
        true
    }

    fn feed_rtp(&mut self, now: MonoTime, key: PeerKey, datagram: &mut [u8]) {
        let Some(seat) = self.peers.get_mut(&key) else { return };
        let payloads = &mut self.payloads;
        let Some(received) = isolate(&self.meters, || seat.peer.receive_rtp(now, datagram, payloads)) else {
            return self.remove(now, key);
        };
        arm(&mut self.timers, key, seat);
        if let Some((source, packet)) = received {
            let (room, connection) = (seat.room, seat.connection);
            self.forward(now, room, connection, source, &packet);
        }
    }

    fn feed_rtcp(&mut self, now: MonoTime, key: PeerKey, datagram: &mut [u8]) {
        let Some(seat) = self.peers.get_mut(&key) else { return };
        let mut events = VecDeque::new();
        let socket = &mut self.socket;
        if isolate(&self.meters, || seat.peer.receive_rtcp(now, datagram, socket, &mut events)).is_none() {
            return self.remove(now, key);
        }
        arm(&mut self.timers, key, seat);
        let (room, connection) = (seat.room, seat.connection);
        self.act(now, room, connection, events);
    }

    /// Records a packet and sends it on.
    fn forward(&mut self, now: MonoTime, room_id: RoomId, connection: ConnectionId, source: Source, packet: &Packet) {
        self.meters.packets_in.add(1);
        let Self { rooms, peers, timers, socket, meters, .. } = self;
        let Some(room) = rooms.get_mut(&room_id) else { return };
        let mut sent = 0;
        room.take_packet(now, connection, source, packet, |receiver, slot, packet, rewrite: Rewrite| {
            let Some(seat) = peers.get_mut(&receiver) else { return };
            // What one person sends must not break another's session, nor the worker.
            if isolate(meters, || seat.peer.send(now, slot, packet, rewrite, socket)) == Some(true) {
                arm(timers, receiver, seat);
                sent += 1;
            }
        });
        meters.packets_out.add(sent);
        room.tell_slots(|receiver, slot| peers.get(&receiver).and_then(|seat| seat.peer.slot_mid(slot)));
        self.request_keyframes(now, room_id);
    }

    fn find_peer(&mut self, now: MonoTime, route: Route, datagram: &[u8]) -> Option<PeerKey> {
        // A session's checks may come from an address that another one used before, so they go by their name.
        let demux = &self.demux;
        if let Some(key) = isolate(&self.meters, || demux.by_name(datagram)).flatten() {
            if self.demux.by_address(route.remote) == Some(key) {
                return Some(key);
            }
            let peer = &self.peers.get(&key)?.peer;
            if !isolate(&self.meters, || peer.accepts(now, route, datagram)).unwrap_or(false) {
                return None;
            }
            self.demux.bind(route.remote, key);
            return Some(key);
        }
        self.demux.by_address(route.remote)
    }

    fn advance(&mut self, now: MonoTime, key: PeerKey) {
        let Some(seat) = self.peers.get_mut(&key) else { return };
        let socket = &mut self.socket;
        match isolate(&self.meters, || seat.peer.advance(now, socket)) {
            Some(true) => self.drain(now, key),
            Some(false) => arm(&mut self.timers, key, seat),
            None => self.remove(now, key),
        }
    }

    /// Takes out what a peer has to say, and acts on it.
    fn drain(&mut self, now: MonoTime, key: PeerKey) {
        let Some(seat) = self.peers.get_mut(&key) else { return };
        let mut events = VecDeque::new();
        let socket = &mut self.socket;
        let lives = isolate(&self.meters, || seat.peer.drain(now, socket, &mut events)).unwrap_or(false);
        arm(&mut self.timers, key, seat);
        let (room, connection) = (seat.room, seat.connection);
        self.act(now, room, connection, events);
        if !lives {
            self.remove(now, key);
        }
    }

    fn act(&mut self, now: MonoTime, room_id: RoomId, connection: ConnectionId, events: VecDeque<PeerEvent>) {
        let Some(room) = self.rooms.get_mut(&room_id) else { return };
        for event in events {
            match event {
                PeerEvent::Report(source, report, local) => {
                    room.take_report(connection, source, report);
                    let peers = &mut self.peers;
                    room.map_report(connection, source, &report, |receiver, slot, timestamp| {
                        if let Some(seat) = peers.get_mut(&receiver) {
                            seat.peer.set_anchor(slot, timestamp, local);
                        }
                    });
                }
                PeerEvent::KeyframeWanted(slot) => room.want_keyframe(connection, slot),
                PeerEvent::SlotAdded(audio) => room.add_slot(connection, audio),
                PeerEvent::Connected => room.tell(Fact::Connected { connection }),
                PeerEvent::Closed => {}
            }
        }
        room.tell_slots(|receiver, slot| self.peers.get(&receiver).and_then(|seat| seat.peer.slot_mid(slot)));
        self.request_keyframes(now, room_id);
    }

    /// Passes on the keyframe requests that are due; they leave with this turn's timers.
    fn request_keyframes(&mut self, now: MonoTime, room: RoomId) {
        let Some(room) = self.rooms.get_mut(&room) else { return };
        while let Some((key, source)) = room.next_keyframe_request(now) {
            if let Some(seat) = self.peers.get_mut(&key) {
                seat.peer.request_keyframe(source);
                arm(&mut self.timers, key, seat);
                self.meters.keyframe_requests.increment(1);
            }
        }
    }

    fn remove(&mut self, now: MonoTime, key: PeerKey) {
        let Some(mut seat) = self.peers.remove(&key) else { return };
        self.demux.remove(key);
        let socket = &mut self.socket;
        isolate(&self.meters, || {
            seat.peer.close(now, socket);
            seat.peer.drain(now, socket, &mut VecDeque::new());
        });
        if let Some(room) = self.rooms.get_mut(&seat.room) {
            let slot_mid =
                |receiver: PeerKey, slot| self.peers.get(&receiver).and_then(|seat| seat.peer.slot_mid(slot));
            room.leave(now, key, slot_mid);
        }
        self.meters.peers.set(count(self.peers.len()));
    }

    // ---- timers ------------------------------------------------------------------------------------------------

    fn run_timers(&mut self) {
        let now = self.clock.mono();
        if self.housekeeping_due <= now {
            let quiet = self.keep_house(now);
            self.housekeeping_due = now + if quiet { QUIET_HOUSEKEEPING } else { HOUSEKEEPING };
        }
        while let Some(&Reverse((at, key))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(seat) = self.peers.get_mut(&key) else { continue };
            // A timer that was overtaken by an earlier one is void.
            if seat.armed == Some(at) {
                seat.armed = None;
                self.advance(now, key);
            }
        }
    }

    /// True: there was nothing to do in any room.
    fn keep_house(&mut self, now: MonoTime) -> bool {
        let silent = |room: &Room| room.silent(now, LONGEST_WITHOUT_DATAGRAM);
        let silent: Vec<PeerKey> = self.rooms.values().filter_map(silent).collect();
        for key in silent {
            self.remove(now, key);
        }
        let busy = self.rooms.iter().filter_map(|(id, room)| room.needs_keeping().then_some(*id));
        let busy: Vec<RoomId> = busy.collect();
        for &id in &busy {
            self.request_keyframes(now, id);
            if let Some(room) = self.rooms.get_mut(&id) {
                let peers = &self.peers;
                room.keep_house(now, |receiver, slot| peers.get(&receiver).and_then(|seat| seat.peer.slot_mid(slot)));
            }
        }
        busy.is_empty()
    }

    fn flush(&mut self) {
        self.meters.publish();
        let lost = self.socket.flush();
        if lost > 0 {
            self.meters.unsent.increment(count_u64(lost));
        }
    }
}

/// Sets a timer for when a session wants to be advanced, if none that is as early is set.
fn arm(timers: &mut Timers, key: PeerKey, seat: &mut Seat) {
    let due = seat.peer.due();
    if seat.armed.is_none_or(|armed| due < armed) {
        seat.armed = Some(due);
        timers.push(Reverse((due, key)));
    }
}

/// Runs a piece of work on hostile input; a panic in it ends this peer, not the worker with all its rooms.
fn isolate<T>(meters: &Meters, work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).inspect_err(|_| meters.panics.increment(1)).ok()
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn count(n: usize) -> f64 {
    n as f64
}

fn count_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
