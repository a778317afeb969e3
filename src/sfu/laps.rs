//! A worker's loop for benches to measure, with real sockets on the loopback and rooms of three that are all recorded;
//! and the floor below it: the same datagrams received, opened, sealed twice and sent, with no logic at all. Both either
//! as fast as the machine goes, only the server's part being timed, or at the pace of a meeting, on threads of their own.
//!
//! Nobody takes part in a handshake: the sessions are given their keys.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use mio::{Events, Interest, Poll, Token, Waker};
use str0m::config::KeyingMaterial;
use tokio::sync::{mpsc, oneshot};

use super::crowd::{Crowd, PEOPLE, address_of, material, person_at};
use super::keys::Keys;
use super::load::{Load, LoadMeter};
use super::meters::Meters;
use super::peer::{Peer, Site};
use super::socket::{Inbox, Lane, Route, Socket};
use super::worker::{Command, Found, SHORTEST_TURN, Worker};
use super::{Fact, certificate, keys};
use crate::clock::Clock;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;
use crate::rtp::header::Header;
use crate::rtp::sequence::Window;
use crate::rtp::srtp::{Opener, Profile, Sealer, contexts};
use crate::rtp::{TapReader, tap};

/// What a person offers besides the lines of each m-line.
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2 3 4 5\r\n\
    a=ice-ufrag:abcdefgh\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\na=fingerprint:sha-256 \
    00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n";
const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    a=rtcp-fb:111 transport-cc\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";
const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
    a=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";

/// What was sent on in a stretch, and the time that the server's part of it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Datagrams of media that arrived at receivers.
    pub arrived: u64,
    /// Time of the server's part.
    pub time: Duration,
}

/// A worker and its rooms.
pub struct Laps {
    clock: Clock,
    worker: Worker,
    handles: Handles,
    recorded: Vec<RecordedRoom>,
    crowd: Crowd,
}

/// What must live as long as the worker.
struct Handles {
    _waker: Waker,
    _commands: mpsc::Sender<Command>,
    _facts: Vec<mpsc::Receiver<Fact>>,
}

/// What a recorder needs of a room.
#[derive(Debug)]
pub struct RecordedRoom {
    /// The room.
    pub room: RoomId,
    /// Its people's connections.
    pub connections: Vec<ConnectionId>,
    /// Their media.
    pub tap: TapReader,
}

/// A crowd before a server on a thread of its own, which ends with the process.
pub struct Paced {
    crowd: Crowd,
    _handles: Option<Handles>,
}

impl Paced {
    /// Lets everyone send for so long; gives how many datagrams of media arrived.
    pub fn run(&mut self, time: Duration) -> u64 {
        self.crowd.pace(time)
    }
}

impl std::fmt::Debug for Paced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paced").finish_non_exhaustive()
    }
}

/// The same datagrams without any logic.
pub struct Floor {
    clock: Clock,
    socket: Socket,
    inbox: Inbox,
    sessions: Vec<Session>,
    crowd: Crowd,
}

impl std::fmt::Debug for Laps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Laps").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Floor").finish_non_exhaustive()
    }
}

impl Laps {
    /// So many rooms on one worker. `None`: the machine has no socket to give.
    pub fn new(rooms: usize, clock: Clock) -> Option<Self> {
        let socket = Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).ok()?;
        let port = socket.port().ok()?;
        let crowd = Crowd::new(rooms, port, clock)?;
        let (commands, receiver) = mpsc::channel(16);
        let hours = Duration::from_hours(24);
        let meters = Meters::new(0);
        let load = LoadMeter::new(Load::default(), meters.load.clone(), clock.mono());
        let (mut worker, waker) = Worker::new(clock, socket, receiver, meters, load, hours).ok()?;
        let site = Site {
            clock,
            announced: [IpAddr::from([127, 0, 0, 1])].into(),
            port,
            certificate: certificate()?,
            crypto: keys::provider().into(),
            epoch: Duration::ZERO,
        };
        let (mut recorded, mut facts) = (Vec::new(), Vec::new());
        let at = Timestamp::UNIX_EPOCH;
        for number in 0..rooms {
            let room = RoomId::new(at);
            let (tap, reader) = tap();
            let mut connections = Vec::new();
            // Nothing flows before the recorder's first word.
            reader.acknowledge(clock.mono());
            let (tell, told) = mpsc::channel(1_024);
            let (done, _) = oneshot::channel();
            commands.try_send(Command::OpenRoom { room, tap, facts: tell, done }).ok()?;
            commands.try_send(Command::SetFlow { room, flow: true }).ok()?;
            for seat in 0..PEOPLE {
                let person = number * PEOPLE + seat;
                let connection = ConnectionId::new(at);
                connections.push(connection);
                let (peer, _) = Peer::accept(&site, &offer(person)).ok()?;
                let (done, _) = oneshot::channel();
                let participant = ParticipantId::new(at);
                let peer = Box::new(peer);
                commands.try_send(Command::Connect { room, connection, participant, peer, done }).ok()?;
                for source in [Source::Microphone, Source::Camera] {
                    commands.try_send(Command::RecordingStarted { room, connection, source }).ok()?;
                }
                worker.turn(false)?;
                let material = KeyingMaterial::new(&material(person));
                let keys = Keys { profile: Profile::Aes256Gcm, material, we_are_client: false };
                worker.supply(room, connection, &keys, Route { remote: crowd.address(person)?, local: None });
            }
            recorded.push(RecordedRoom { room, connections, tap: reader });
            facts.push(told);
        }
        let handles = Handles { _waker: waker, _commands: commands, _facts: facts };
        Some(Self { clock, worker, handles, recorded, crowd })
    }

    /// The same at the pace of a meeting; what was recorded by nobody so far is for the caller to record.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn paced(self) -> io::Result<(Paced, Vec<RecordedRoom>)> {
        let Self { worker, handles, recorded, crowd, .. } = self;
        thread::Builder::new().spawn(move || worker.run())?;
        Ok((Paced { crowd, _handles: Some(handles) }, recorded))
    }

    /// Everyone sends for a tenth of a second of media, as fast as the machine goes.
    pub fn run(&mut self) -> Spent {
        let Self { worker, recorded, crowd, .. } = self;
        let spent = crowd.run(|| while matches!(worker.turn(true), Some(Found::More)) {});
        // The recorder's part.
        for RecordedRoom { tap, .. } in recorded {
            while let Ok(Some(_)) = tap.take() {}
            tap.acknowledge(self.clock.mono());
        }
        spent
    }
}

/// A session of the floor: keys, and nothing else.
struct Session {
    opener: Opener,
    sealer: Sealer,
    windows: [Window; 2],
    lane: Lane,
}

impl Floor {
    /// The same crowd. `None`: the machine has no socket to give.
    pub fn new(rooms: usize, clock: Clock) -> Option<Self> {
        let socket = Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).ok()?;
        let crowd = Crowd::new(rooms, socket.port().ok()?, clock)?;
        let session = |person| {
            let (opener, sealer) = contexts(Profile::Aes256Gcm, &material(person), false).ok()?;
            Some(Session { opener, sealer, windows: [Window::default(), Window::default()], lane: Lane::default() })
        };
        let sessions = (0..rooms * PEOPLE).map(session).collect::<Option<_>>()?;
        Some(Self { clock, inbox: socket.inbox(), socket, sessions, crowd })
    }

    /// Everyone sends for a tenth of a second of media, as fast as the machine goes.
    pub fn run(&mut self) -> Spent {
        let Self { socket, inbox, sessions, crowd, .. } = self;
        crowd.run(|| while floor_turn(socket, inbox, sessions) == Found::More {})
    }

    /// The same at the pace of a meeting, with a loop like the worker's.
    ///
    /// # Errors
    /// The system gives no thread, or no way to wait for a socket.
    pub fn paced(self) -> io::Result<Paced> {
        let Self { clock, mut socket, mut inbox, mut sessions, crowd } = self;
        let mut poll = Poll::new()?;
        poll.registry().register(socket.source(), Token(0), Interest::READABLE)?;
        thread::Builder::new().spawn(move || {
            let mut events = Events::with_capacity(16);
            while poll.poll(&mut events, None).is_ok() {
                loop {
                    let began = clock.mono();
                    match floor_turn(&mut socket, &mut inbox, &mut sessions) {
                        Found::Nothing => break,
                        Found::All(turn) => thread::sleep(turn.saturating_sub(clock.mono().since(began))),
                        Found::More => {}
                    }
                }
            }
        })?;
        Ok(Paced { crowd, _handles: None })
    }
}

/// A batch in, and what it makes out.
fn floor_turn(socket: &mut Socket, inbox: &mut Inbox, sessions: &mut [Session]) -> Found {
    let mut found = Found::Nothing;
    while let Ok(true) = socket.receive(inbox) {
        for (route, datagram) in inbox.datagrams() {
            pass_on(socket, sessions, route, datagram);
        }
        found = Found::All(SHORTEST_TURN);
        if !inbox.is_full() {
            break;
        }
    }
    socket.flush();
    found
}

/// Opens a datagram and seals it for the two others.
fn pass_on(socket: &mut Socket, sessions: &mut [Session], route: Route, datagram: &mut [u8]) -> Option<()> {
    let IpAddr::V4(ip) = route.remote.ip() else { return None };
    let person = person_at(ip);
    let header = Header::parse(datagram)?;
    let session = sessions.get_mut(person)?;
    let window = session.windows.get_mut(usize::from(header.payload_type == 96))?;
    let opened = session.opener.open(window, header.ssrc, header.sequence, datagram, header.length).ok()?;
    let (index, length) = (opened.index, header.length + opened.payload.len());
    let plain = datagram.get(..length)?;
    let first = person - person % PEOPLE;
    for receiver in (first..first + PEOPLE).filter(|receiver| *receiver != person) {
        let remote = SocketAddr::new(address_of(receiver).into(), route.remote.port());
        let session = sessions.get_mut(receiver)?;
        let way = Route { remote, local: None };
        let room = socket.room_for(&mut session.lane, way, length + session.sealer.overhead())?;
        room.get_mut(..length)?.copy_from_slice(plain);
        session.sealer.seal(&mut Window::default(), header.ssrc, index, room, header.length).ok()?;
    }
    Some(())
}

fn offer(person: usize) -> String {
    let lines = [(AUDIO, "sendonly"), (VIDEO, "sendonly")];
    let slots = [(AUDIO, "recvonly"), (AUDIO, "recvonly"), (VIDEO, "recvonly"), (VIDEO, "recvonly")];
    let mut offer = OFFER.replace("abcdefgh\r", &format!("u{person:07}\r"));
    for (mid, (line, direction)) in lines.iter().chain(&slots).enumerate() {
        offer.push_str(line);
        let _ = write!(offer, "a=mid:{mid}\r\na={direction}\r\n");
    }
    offer
}
