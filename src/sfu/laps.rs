//! A worker's loop for benches to measure, with real sockets on the loopback and rooms of three that are all recorded;
//! and the floor below it: the same datagrams received, opened, sealed twice and sent, with no logic at all.
//!
//! Only the server's part is timed. Nobody takes part in a handshake: the sessions are given their keys.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mio::Waker;
use str0m::config::KeyingMaterial;
use tokio::sync::{mpsc, oneshot};

use super::demux::Kind;
use super::keys::Keys;
use super::meters::Meters;
use super::peer::{Peer, Site};
use super::socket::{Inbox, Lane, Route, Socket};
use super::worker::{Command, Worker};
use super::{Fact, certificate, keys};
use crate::clock::Clock;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;
use crate::rtp::header::{ExtensionIds, Header, LONGEST, Outgoing};
use crate::rtp::sequence::Window;
use crate::rtp::srtp::{Opener, Profile, Sealer, contexts};
use crate::rtp::{Extensions, Ssrc, TapReader, tap};

/// People in a room.
const PEOPLE: usize = 3;

/// After so long everyone's media repeats: three frames of seven packets, five packets of voice. It is the standard room:
/// 30 frames and 50 packets of voice a second, about 600 kbit/s.
const CYCLE_US: u64 = 100_000;

/// What comes in within so much time is one turn of the loop.
const TURN_US: u64 = 1_000;

/// A packet of video, and one of voice, without header and tag.
const PICTURE: usize = 1_070;
const VOICE: usize = 80;

/// A frame of VP8 with a picture id, as a keyframe begins.
const KEYFRAME: [u8; 14] = [0x90, 0x80, 0x80, 0x07, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00];

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
    _waker: Waker,
    _commands: mpsc::Sender<Command>,
    _facts: Vec<mpsc::Receiver<Fact>>,
    taps: Vec<TapReader>,
    crowd: Crowd,
}

/// The same datagrams without any logic.
pub struct Floor {
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
    pub fn new(rooms: usize) -> Option<Self> {
        let clock = Clock::new();
        let socket = Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).ok()?;
        let port = socket.port().ok()?;
        let crowd = Crowd::new(rooms, port)?;
        let (commands, receiver) = mpsc::channel(16);
        let hours = Duration::from_hours(24);
        let (mut worker, waker) = Worker::new(clock, socket, receiver, Meters::new(0), hours).ok()?;
        let site = Site {
            clock,
            announced: [IpAddr::from([127, 0, 0, 1])].into(),
            port,
            certificate: certificate()?,
            crypto: keys::provider().into(),
            epoch: Duration::ZERO,
        };
        let (mut taps, mut facts) = (Vec::new(), Vec::new());
        let at = Timestamp::UNIX_EPOCH;
        for number in 0..rooms {
            let room = RoomId::new(at);
            let (tap, reader) = tap();
            // Nothing flows before the recorder's first word.
            reader.acknowledge(clock.mono());
            let (tell, told) = mpsc::channel(1_024);
            let (done, _) = oneshot::channel();
            commands.try_send(Command::OpenRoom { room, tap, facts: tell, done }).ok()?;
            commands.try_send(Command::SetFlow { room, flow: true }).ok()?;
            for seat in 0..PEOPLE {
                let person = number * PEOPLE + seat;
                let connection = ConnectionId::new(at);
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
            taps.push(reader);
            facts.push(told);
        }
        Some(Self { clock, worker, _waker: waker, _commands: commands, _facts: facts, taps, crowd })
    }

    /// Everyone sends for a tenth of a second of media, as fast as the machine goes.
    pub fn run(&mut self) -> Spent {
        let Self { worker, taps, crowd, .. } = self;
        let spent = crowd.run(|| {
            let mut readable = true;
            while readable {
                let Some(more) = worker.turn(true) else { return };
                readable = more;
            }
        });
        // The recorder's part.
        for tap in taps {
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
    pub fn new(rooms: usize) -> Option<Self> {
        let socket = Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).ok()?;
        let crowd = Crowd::new(rooms, socket.port().ok()?)?;
        let session = |person| {
            let (opener, sealer) = contexts(Profile::Aes256Gcm, &material(person), false).ok()?;
            Some(Session { opener, sealer, windows: [Window::default(), Window::default()], lane: Lane::default() })
        };
        let sessions = (0..rooms * PEOPLE).map(session).collect::<Option<_>>()?;
        Some(Self { inbox: socket.inbox(), socket, sessions, crowd })
    }

    /// Everyone sends for a tenth of a second of media, as fast as the machine goes.
    pub fn run(&mut self) -> Spent {
        let Self { socket, inbox, sessions, crowd } = self;
        crowd.run(|| {
            while let Ok(true) = socket.receive(inbox) {
                for (route, datagram) in inbox.datagrams() {
                    pass_on(socket, sessions, route, datagram);
                }
            }
            socket.flush();
        })
    }
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

/// Everyone's devices behind one socket: each person has an address of their own on the loopback.
struct Crowd {
    socket: Socket,
    inbox: Inbox,
    server: SocketAddr,
    port: u16,
    people: Vec<Person>,
    /// Who sends what, turn by turn, within a cycle.
    turns: Vec<Vec<(usize, Media)>>,
}

struct Person {
    sealer: Sealer,
    windows: [Window; 2],
    next: [u64; 2],
}

#[derive(Clone, Copy)]
enum Media {
    Voice,
    /// A frame of so many packets.
    Picture(usize),
}

impl Crowd {
    fn new(rooms: usize, server: u16) -> Option<Self> {
        let socket = Socket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).ok()?;
        let person = |person| {
            let (_, sealer) = contexts(Profile::Aes256Gcm, &material(person), true).ok()?;
            Some(Person { sealer, windows: [Window::default(), Window::default()], next: [1; 2] })
        };
        let people: Vec<Person> = (0..rooms * PEOPLE).map(person).collect::<Option<_>>()?;
        let server = SocketAddr::from(([127, 0, 0, 1], server));
        let (inbox, port, turns) = (socket.inbox(), socket.port().ok()?, turns(people.len()));
        Some(Self { socket, inbox, server, port, people, turns })
    }

    fn address(&self, person: usize) -> Option<SocketAddr> {
        self.people.get(person).map(|_| SocketAddr::new(address_of(person).into(), self.port))
    }

    /// One cycle, `serve` being timed after each turn's datagrams are in the server's socket.
    fn run(&mut self, mut serve: impl FnMut()) -> Spent {
        let mut spent = Spent::default();
        for turn in &self.turns {
            for &(at, media) in turn {
                let Some(person) = self.people.get_mut(at) else { continue };
                let route = Route { remote: self.server, local: Some(address_of(at).into()) };
                let packets = match media {
                    Media::Voice => 1,
                    Media::Picture(packets) => packets,
                };
                for n in 1..=packets {
                    self.socket.send(route, &person.datagram(media, n == packets));
                }
            }
            self.socket.flush();
            let begin = Instant::now();
            serve();
            spent.time += begin.elapsed();
            while let Ok(true) = self.socket.receive(&mut self.inbox) {
                let media = self.inbox.datagrams().filter(|(_, bytes)| Kind::of(bytes) == Kind::Rtp);
                spent.arrived += media.map(|_| 1).sum::<u64>();
            }
        }
        spent
    }
}

impl Person {
    /// The next datagram, sealed.
    fn datagram(&mut self, media: Media, marker: bool) -> Vec<u8> {
        let (kind, payload_type, mid, length) = match media {
            Media::Voice => (0, 111, b"0", VOICE),
            Media::Picture(_) => (1, 96, b"1", PICTURE),
        };
        let (Some(next), Some(window)) = (self.next.get_mut(kind), self.windows.get_mut(kind)) else {
            return Vec::new();
        };
        let index = *next;
        *next += 1;
        let mut header = [0; LONGEST];
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower bits")]
        let (sequence, timestamp) = (index as u16, index as u32 * 960);
        let ids = ExtensionIds { mid: 4, ..ExtensionIds::default() };
        let (ssrc, extensions) = (Ssrc(u32::from(payload_type)), Extensions::default());
        let header_length =
            Outgoing { marker, payload_type, sequence, timestamp, ssrc, ids, mid, extensions }.write(&mut header);
        let mut datagram: Vec<u8> = header.iter().take(header_length).copied().collect();
        datagram.extend_from_slice(&KEYFRAME);
        datagram.resize(header_length + length + self.sealer.overhead(), 7);
        if self.sealer.seal(window, ssrc, index, &mut datagram, header_length).is_err() {
            datagram.clear();
        }
        datagram
    }
}

/// When who sends what: everyone's frames and packets of voice at even distances, each person at another moment.
fn turns(people: usize) -> Vec<Vec<(usize, Media)>> {
    let mut due: Vec<(u64, usize, Media)> = Vec::new();
    for (phase, person) in (0..people).scan(0_u64, |phase, person| {
        *phase = (*phase + 61_803) % CYCLE_US;
        Some((*phase, person))
    }) {
        let mut add = |after: u64, media| due.push(((phase + after) % CYCLE_US, person, media));
        for (n, packets) in [(0, 2), (1, 2), (2, 3)] {
            add(n * CYCLE_US / 3, Media::Picture(packets));
        }
        for n in 0..5 {
            add(7_000 + n * CYCLE_US / 5, Media::Voice);
        }
    }
    due.sort_by_key(|(at, person, _)| (*at, *person));
    let same_turn = |a: &(u64, usize, Media), b: &(u64, usize, Media)| a.0 / TURN_US == b.0 / TURN_US;
    due.chunk_by(same_turn).map(|turn| turn.iter().map(|(_, person, media)| (*person, *media)).collect()).collect()
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

/// Each session's keys are others.
fn material(person: usize) -> Vec<u8> {
    let mut material: Vec<u8> = (0..88).collect();
    for (byte, of) in material.iter_mut().zip(person.to_be_bytes()) {
        *byte ^= of;
    }
    material
}

/// 127.16.0.0 and up.
fn address_of(person: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f10_0000 + u32::try_from(person).unwrap_or(0))
}

fn person_at(ip: Ipv4Addr) -> usize {
    usize::try_from(ip.to_bits().wrapping_sub(0x7f10_0000)).unwrap_or(usize::MAX)
}
