//! A crowd for benches: everyone's devices behind one socket, which send the media of the standard room, sealed under
//! keys that the server's side knows, and count what comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use super::demux::Kind;
use super::laps::Spent;
use super::socket::{Inbox, Route, Socket};
use crate::clock::Clock;
use crate::rtp::header::{ExtensionIds, LONGEST, Outgoing};
use crate::rtp::sequence::Window;
use crate::rtp::srtp::{Profile, Sealer, contexts};
use crate::rtp::{Extensions, Ssrc};

/// People in a room.
pub(super) const PEOPLE: usize = 3;

/// After so long everyone's media repeats: three frames of seven packets in all, five packets of voice. It is the standard
/// room: 30 frames and 50 packets of voice a second, about 600 kbit/s.
const CYCLE_US: u64 = 100_000;

/// Cycles from one keyframe to the next.
const KEYFRAME_EVERY: u64 = 100;

/// A packet of video, and one of voice, without header and tag.
const PICTURE: usize = 1_070;
const VOICE: usize = 80;

/// How a frame's first packet begins: descriptor with a picture id (RFC 7741 §4.2), then a keyframe's header or another's.
const KEYFRAME: [u8; 14] = [0x90, 0x80, 0x80, 0x07, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00];
const INTER_FRAME: [u8; 14] = [0x90, 0x80, 0x80, 0x07, 0x11, 0x02, 0x00, 0, 0, 0, 0, 0, 0, 0];
/// And its others.
const CONTINUED: [u8; 14] = [0x80, 0x80, 0x80, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A packet of Opus: one frame of 20 ms (RFC 6716 §3.1).
const SPOKEN: [u8; 1] = [0x78];

/// Everyone's devices behind one socket: each person has an address of their own on the loopback.
pub(super) struct Crowd {
    clock: Clock,
    socket: Socket,
    inbox: Inbox,
    server: SocketAddr,
    port: u16,
    people: Vec<Person>,
    cycles: u64,
}

struct Person {
    sealer: Sealer,
    voice: Stream,
    picture: Stream,
}

#[derive(Default)]
struct Stream {
    sealed: Window,
    packets: u64,
    timestamp: u32,
}

/// What one person sends at a moment, in microseconds from the cycle's beginning.
#[derive(Clone, Copy)]
struct Due {
    at: u64,
    person: usize,
    media: Media,
}

#[derive(Clone, Copy)]
enum Media {
    Voice,
    /// A frame of so many packets.
    Picture(usize),
}

impl Crowd {
    /// So many rooms' people before the server at this port. `None`: the machine has no socket to give.
    pub(super) fn new(rooms: usize, server: u16, clock: Clock) -> Option<Self> {
        let socket = Socket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).ok()?;
        let person = |person| {
            let (_, sealer) = contexts(Profile::Aes256Gcm, &material(person), true).ok()?;
            Some(Person { sealer, voice: Stream::default(), picture: Stream::default() })
        };
        let people: Vec<Person> = (0..rooms * PEOPLE).map(person).collect::<Option<_>>()?;
        let server = SocketAddr::from(([127, 0, 0, 1], server));
        let (inbox, port) = (socket.inbox(), socket.port().ok()?);
        Some(Self { clock, socket, inbox, server, port, people, cycles: 0 })
    }

    pub(super) fn address(&self, person: usize) -> Option<SocketAddr> {
        self.people.get(person).map(|_| SocketAddr::new(address_of(person).into(), self.port))
    }

    /// One cycle as fast as the machine goes. What falls into one millisecond is in the server's socket before `serve`,
    /// which alone is timed.
    pub(super) fn run(&mut self, mut serve: impl FnMut()) -> Spent {
        let mut spent = Spent::default();
        let dues = dues(self.people.len());
        for turn in dues.chunk_by(|one, other| one.at / 1_000 == other.at / 1_000) {
            for due in turn {
                self.send(*due);
            }
            let begin = self.clock.mono();
            serve();
            spent.time += self.clock.mono().since(begin);
            spent.arrived += self.hear();
        }
        self.cycles += 1;
        spent
    }

    /// Cycle after cycle at the pace of a meeting, for so long; gives how many datagrams of media arrived.
    pub(super) fn pace(&mut self, time: Duration) -> u64 {
        /// What is due within so much time is sent at once.
        const STEP: u64 = 100;
        let (mut arrived, begin, dues) = (0, self.clock.mono(), dues(self.people.len()));
        for cycle in 0.. {
            let start = begin + Duration::from_micros(cycle * CYCLE_US);
            if start.since(begin) >= time {
                break;
            }
            for step in dues.chunk_by(|one, other| one.at / STEP == other.at / STEP) {
                let at = step.first().map_or(0, |due| due.at / STEP * STEP);
                thread::sleep((start + Duration::from_micros(at)).since(self.clock.mono()));
                for due in step {
                    self.send(*due);
                }
                arrived += self.hear();
            }
            self.cycles += 1;
        }
        // The last of it.
        thread::sleep(Duration::from_millis(20));
        arrived + self.hear()
    }

    /// As browsers do, each packet goes out by itself.
    fn send(&mut self, due: Due) {
        let route = Route { remote: self.server, local: Some(address_of(due.person).into()) };
        let turn = self.cycles == 0 || (self.cycles + due.person as u64).is_multiple_of(KEYFRAME_EVERY);
        let keyframe = turn && due.at < CYCLE_US / 3;
        let Some(person) = self.people.get_mut(due.person) else { return };
        match due.media {
            Media::Voice => self.socket.send(route, &person.speak()),
            Media::Picture(packets) => {
                person.picture.timestamp = person.picture.timestamp.wrapping_add(3_000);
                let first = if keyframe { &KEYFRAME } else { &INTER_FRAME };
                for n in 1..=packets {
                    self.socket.send(route, &person.show(if n == 1 { first } else { &CONTINUED }, n == packets));
                }
            }
        }
        self.socket.flush();
    }

    /// Takes in what came back.
    fn hear(&mut self) -> u64 {
        let mut arrived = 0;
        while let Ok(true) = self.socket.receive(&mut self.inbox) {
            let media = self.inbox.datagrams().filter(|(_, bytes)| Kind::of(bytes) == Kind::Rtp);
            arrived += media.map(|_| 1).sum::<u64>();
        }
        arrived
    }
}

impl Person {
    fn speak(&mut self) -> Vec<u8> {
        self.voice.timestamp = self.voice.timestamp.wrapping_add(960);
        seal(&self.sealer, &mut self.voice, (111, b"0", false), (&SPOKEN, VOICE))
    }

    fn show(&mut self, begin: &[u8], marker: bool) -> Vec<u8> {
        seal(&self.sealer, &mut self.picture, (96, b"1", marker), (begin, PICTURE))
    }
}

/// The next datagram of a stream.
fn seal(sealer: &Sealer, stream: &mut Stream, head: (u8, &[u8], bool), (begin, length): (&[u8], usize)) -> Vec<u8> {
    let (payload_type, mid, marker) = head;
    stream.packets += 1;
    #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower bits")]
    let (sequence, timestamp) = (stream.packets as u16, stream.timestamp);
    let ids = ExtensionIds { mid: 4, ..ExtensionIds::default() };
    let (ssrc, extensions) = (Ssrc(u32::from(payload_type)), Extensions::default());
    let mut header = [0; LONGEST];
    let header_length =
        Outgoing { marker, payload_type, sequence, timestamp, ssrc, ids, mid, extensions }.write(&mut header);
    let mut datagram: Vec<u8> = header.iter().take(header_length).copied().collect();
    datagram.extend_from_slice(begin);
    datagram.resize(header_length + length + sealer.overhead(), 7);
    if sealer.seal(&mut stream.sealed, ssrc, stream.packets, &mut datagram, header_length).is_err() {
        datagram.clear();
    }
    datagram
}

/// When who sends what: everyone's frames and packets of voice at even distances, each person at another moment.
fn dues(people: usize) -> Vec<Due> {
    let mut dues: Vec<Due> = Vec::new();
    for person in 0..people {
        let phase = person as u64 * 61_803 % CYCLE_US;
        let mut add = |after: u64, media| dues.push(Due { at: (phase + after) % CYCLE_US, person, media });
        for (n, packets) in [(0, 2), (1, 2), (2, 3)] {
            add(n * CYCLE_US / 3, Media::Picture(packets));
        }
        for n in 0..5 {
            add(7_000 + n * CYCLE_US / 5, Media::Voice);
        }
    }
    dues.sort_by_key(|due| (due.at, due.person));
    dues
}

/// Each session's keys are others.
pub(super) fn material(person: usize) -> Vec<u8> {
    let mut material: Vec<u8> = (0..88).collect();
    for (byte, of) in material.iter_mut().zip(person.to_be_bytes()) {
        *byte ^= of;
    }
    material
}

/// 127.16.0.0 and up.
pub(super) fn address_of(person: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f10_0000 + u32::try_from(person).unwrap_or(0))
}

pub(super) fn person_at(ip: Ipv4Addr) -> usize {
    usize::try_from(ip.to_bits().wrapping_sub(0x7f10_0000)).unwrap_or(usize::MAX)
}
