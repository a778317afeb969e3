//! The media of one light client: what it sends and when, and what comes.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::header::{Head, Kind, Medium, Outgoing, Terms};
use super::rtcp::{SenderReport, keyframes_wanted};
use super::socket::{Port, Run};
use super::srtp::{Keys, TAG};
use crate::call::{Heard, Others};
use crate::client::Devices;
use crate::delay::Delays;
use crate::live::Meters;
use crate::media::{Film, VOICE_STEP, Voice, descriptor, pieces};
use crate::numbered::{self, Mark, Record, Sent, digest};

/// Time between two sender reports of a stream, as browsers have it for video.
const REPORT_STEP: Duration = Duration::from_secs(1);

/// What a client's device has and knows before its keys are there.
pub(super) struct Kit {
    pub(super) port: Arc<Port>,
    pub(super) local: SocketAddr,
    pub(super) terms: Terms,
    pub(super) film: Arc<Film>,
    pub(super) voice: Voice,
    pub(super) delays: Option<Arc<Delays>>,
    /// What is sent is numbered and put down here.
    pub(super) record: Option<Arc<Record>>,
    /// The connection's number in the record.
    pub(super) connection: u32,
    pub(super) meters: Arc<Meters>,
    /// STUN and DTLS for the client's task; what does not fit is lost, and comes again.
    pub(super) task: mpsc::Sender<(SocketAddr, Vec<u8>)>,
}

/// What a client counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) keyframe_requests: u64,
    /// Packets of voice that the keys did not open.
    pub(super) unopened: u64,
    pub(super) heard: Vec<Heard>,
}

/// What is to be sent at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Voice,
    Picture,
    Reports,
}

pub(super) struct Person {
    kit: Kit,
    keys: Option<(Keys, Out)>,
    microphone: Track,
    camera: Track,
    reports_due: Option<Instant>,
    streams: Vec<(u32, Heard)>,
    tally: Tally,
    others: Others,
}

impl Person {
    pub(super) fn new(kit: Kit, [microphone, camera]: [String; 2], now: Instant) -> Self {
        let film_step = kit.film.step;
        Self {
            kit,
            keys: None,
            microphone: Track::new(Medium::Voice, microphone, VOICE_STEP, now),
            camera: Track::new(Medium::Picture, camera, film_step, now),
            reports_due: None,
            streams: Vec::new(),
            tally: Tally::default(),
            others: Others::Stayed,
        }
    }

    pub(super) fn port(&self) -> &Arc<Port> {
        &self.kit.port
    }

    /// The handshake is done: from here on media may flow.
    pub(super) fn begin(&mut self, (receive, send): (Keys, Keys), server: SocketAddr, now: Instant) {
        let out = Out { keys: send, server, epoch: now, sequence: 0, reports: 0, packet: Vec::new() };
        self.keys = Some((receive, out));
        self.reports_due = Some(now + within(REPORT_STEP));
        // What could not be sent until now is not caught up on.
        for track in [&mut self.microphone, &mut self.camera] {
            track.due = track.due.map(|_| now + within(track.step));
        }
    }

    /// What the person has switched on now.
    pub(super) fn order(&mut self, devices: Devices, now: Instant) {
        if !devices.microphone {
            self.streams.iter_mut().for_each(|(_, heard)| heard.quiet());
        }
        // The camera's first frame can be decoded by itself.
        if self.camera.due.is_none() {
            self.camera.next = 0;
        }
        for (track, on) in [(&mut self.microphone, devices.microphone), (&mut self.camera, devices.camera)] {
            // Everyone speaks and moves at a time of their own.
            track.due = on.then(|| track.due.unwrap_or_else(|| now + within(track.step)));
        }
    }

    /// Somebody goes, so that streams may stand still; or is back.
    pub(super) fn excuse(&mut self, excused: bool) {
        if excused {
            self.streams.iter_mut().for_each(|(_, heard)| heard.pause());
        }
        self.others = self.others.after(excused);
    }

    /// Both streams go on under new SSRCs. Sequence numbers and timestamps begin at random again.
    pub(super) fn change_ssrc(&mut self, now: Instant) {
        for track in [&mut self.microphone, &mut self.camera] {
            let (next, due) = (track.next, track.due);
            *track = Track { due, next, ..Track::new(track.medium, track.mid.clone(), track.step, now) };
        }
        self.camera.next = 0;
    }

    /// What is due next, once the keys are there.
    pub(super) fn due(&self) -> impl Iterator<Item = (Instant, What)> {
        let all =
            [(self.microphone.due, What::Voice), (self.camera.due, What::Picture), (self.reports_due, What::Reports)];
        let begun = self.keys.is_some();
        all.into_iter().filter_map(move |(due, what)| due.filter(|_| begun).map(|due| (due, what)))
    }

    /// Sends what was due then. Gives when the same is due again; `None`: it was not due, or is not any more.
    pub(super) fn send(&mut self, what: What, due: Instant) -> Option<Instant> {
        let Self { kit, keys: Some((_, out)), microphone, camera, reports_due, tally, .. } = self else { return None };
        let (place, step) = match what {
            What::Voice => (&mut microphone.due, microphone.step),
            What::Picture => (&mut camera.due, camera.step),
            What::Reports => (reports_due, REPORT_STEP),
        };
        if *place != Some(due) {
            return None;
        }
        // Steps that were missed are caught up on, since a microphone does not skip.
        *place = Some(due + step);
        let before = tally.sent;
        match what {
            What::Voice => {
                let plain = kit.voice.packet(microphone.next);
                let stamp = || kit.delays.as_ref().map(|delays| Mark { sender: 0, number: delays.stamp() });
                let mark = kit.record.as_ref().map(|record| record.next(numbered::Kind::Voice)).or_else(stamp);
                let payload = mark.map_or_else(|| plain.to_vec(), |mark| mark.on_voice(plain));
                let sequence = microphone.sequence;
                tally.sent += u64::from(out.media(kit, microphone, due, false, [&payload, &[]]));
                if let (Some(record), Some(mark)) = (&kit.record, mark) {
                    let sent = microphone.sent(kit.connection, mark, sequence, due, &payload);
                    record.add(numbered::Kind::Voice, sent);
                }
                microphone.next += 1;
            }
            What::Picture => {
                let plain = kit.film.frame(camera.next);
                let mark = kit.record.as_ref().map(|record| record.next(numbered::Kind::Picture));
                let marked = mark.map(|mark| mark.on_frame(plain));
                let frame = marked.as_deref().unwrap_or(plain);
                let mut parts = pieces(frame).enumerate().peekable();
                let sequence = camera.sequence;
                while let Some((n, part)) = parts.next() {
                    let begin = descriptor(n == 0, camera.picture_id);
                    let last = parts.peek().is_none();
                    tally.sent += u64::from(out.media(kit, camera, due, last, [&begin, part]));
                }
                if let (Some(record), Some(mark)) = (&kit.record, mark) {
                    let keyframe = kit.film.is_keyframe(camera.next);
                    let sent = Sent { keyframe, ..camera.sent(kit.connection, mark, sequence, due, frame) };
                    record.add(numbered::Kind::Picture, sent);
                }
                camera.next += 1;
                camera.picture_id = camera.picture_id.wrapping_add(1) & 0x7fff;
            }
            What::Reports => {
                for track in [microphone, camera] {
                    out.report(kit, track);
                }
            }
        }
        kit.meters.went(tally.sent - before);
        Some(due + step)
    }

    /// Packets of media so far.
    pub(super) fn sent(&self) -> u64 {
        self.tally.sent
    }

    /// Takes in what has come; gives how many packets of media it was.
    pub(super) fn hear(&mut self, run: Run<'_>) -> u64 {
        let Run { from, at, stride, bytes, .. } = run;
        let before = self.tally.received;
        for datagram in bytes.chunks_mut(stride) {
            match (Kind::of(datagram), &self.keys) {
                (Kind::Rtp, _) => {
                    self.hear_media(datagram, at);
                }
                (Kind::Rtcp, Some((receive, _))) => {
                    let wanted =
                        receive.open_rtcp(datagram).map_or(0, |plain| keyframes_wanted(plain, self.camera.ssrc));
                    self.tally.keyframe_requests += wanted;
                    if wanted > 0 {
                        self.camera.next = 0;
                    }
                }
                (Kind::Rtcp, None) => {}
                (Kind::Other, _) => {
                    let _ = self.kit.task.try_send((from, datagram.to_vec()));
                }
            }
        }
        self.tally.received - before
    }

    /// Pictures are counted by their header; a voice is opened, for it carries when it was sent.
    fn hear_media(&mut self, datagram: &mut [u8], at: Instant) -> Option<()> {
        let head = Head::read(datagram)?;
        let medium = self.kit.terms.medium(head.payload_type)?;
        let mut expected = 0;
        if !self.streams.iter().any(|(ssrc, _)| *ssrc == head.ssrc) {
            let mid = head.mid(datagram, &self.kit.terms)?;
            let heard = Heard::new(mid, medium == Medium::Voice, head.sequence.into(), self.others);
            self.streams.push((head.ssrc, heard));
            expected = 1;
        }
        let (_, heard) = self.streams.iter_mut().find(|(ssrc, _)| *ssrc == head.ssrc)?;
        let sequence = extended(heard.highest(), head.sequence);
        expected += heard.note(sequence, self.others);
        self.tally.received += 1;
        self.kit.meters.came(1, expected);
        if medium == Medium::Voice
            && let (Some((receive, _)), Some(delays)) = (&self.keys, &self.kit.delays)
        {
            match receive.open(datagram, head.length, head.ssrc, sequence) {
                Some(payload) => delays.took(Mark::read(payload)?.number, at),
                None => self.tally.unopened += 1,
            }
        }
        Some(())
    }

    /// The whole count.
    pub(super) fn finish(self) -> Tally {
        let mut tally = self.tally;
        tally.heard = self.streams.into_iter().map(|(_, heard)| heard).collect();
        tally.heard.iter_mut().for_each(Heard::quiet);
        tally
    }
}

/// A stream that is being sent.
struct Track {
    medium: Medium,
    mid: String,
    ssrc: u32,
    /// From one frame to the next.
    step: Duration,
    /// When the next is due; `None`: it is switched off.
    due: Option<Instant>,
    /// Which frame or packet of the loop that is.
    next: usize,
    sequence: u64,
    picture_id: u16,
    /// The RTP clock at `epoch`.
    timestamp: u32,
    epoch: Instant,
    packets: u32,
    octets: u32,
}

impl Track {
    /// RFC 3550, section 5.1: SSRC, sequence and timestamp begin at random. The first rollover must lie ahead.
    fn new(medium: Medium, mid: String, step: Duration, epoch: Instant) -> Self {
        let [s0, s1, s2, s3, t0, t1, q0, q1] = dice().to_be_bytes();
        Self {
            medium,
            mid,
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            step,
            due: None,
            next: 0,
            sequence: u64::from(u16::from_be_bytes([q0, q1]) >> 1),
            picture_id: u16::from_be_bytes([q1, q0]) & 0x7fff,
            timestamp: u32::from_be_bytes([t0, t1, s3, s2]),
            epoch,
            packets: 0,
            octets: 0,
        }
    }

    /// What is remembered of a frame or packet that was sent from this sequence number on.
    fn sent(&self, connection: u32, mark: Mark, sequence: u64, captured: Instant, media: &[u8]) -> Sent {
        let wire = |sequence: u64| u16::try_from(sequence & u64::from(u16::MAX)).unwrap_or_default();
        Sent {
            number: mark.number,
            connection,
            ssrc: self.ssrc,
            sequence: wire(sequence),
            packets: wire(self.sequence - sequence),
            rtp: self.clock(captured),
            keyframe: false,
            digest: digest(media),
            captured,
            sent: Instant::now(),
        }
    }

    /// The RTP clock at this time. It runs on while nothing is sent, and wraps around (RFC 3550, section 5.1).
    fn clock(&self, at: Instant) -> u32 {
        const SECOND: u128 = 1_000_000_000;
        let rate = if self.medium == Medium::Voice { 48_000 } else { 90_000 };
        let ticks = (at.saturating_duration_since(self.epoch).as_nanos() * rate + SECOND / 2) / SECOND;
        self.timestamp.wrapping_add(u32::try_from(ticks & u128::from(u32::MAX)).unwrap_or_default())
    }
}

/// A client's way to the server.
struct Out {
    keys: Keys,
    server: SocketAddr,
    epoch: Instant,
    /// Transport-wide number of the next packet.
    sequence: u16,
    /// SRTCP packets so far.
    reports: u32,
    /// The packet that is being made.
    packet: Vec<u8>,
}

impl Out {
    /// Sends a packet of media, captured then. True: the kernel took it.
    fn media(&mut self, kit: &Kit, track: &mut Track, captured: Instant, marker: bool, payload: [&[u8]; 2]) -> bool {
        let index = track.sequence;
        let header = Outgoing {
            medium: track.medium,
            marker,
            sequence: u16::try_from(index & u64::from(u16::MAX)).unwrap_or_default(),
            timestamp: track.clock(captured),
            ssrc: track.ssrc,
            mid: &track.mid,
            transport_sequence: self.sequence,
            send_time: send_time(self.epoch.elapsed()),
        };
        let header = header.write(&kit.terms, &mut self.packet);
        for part in payload {
            self.packet.extend_from_slice(part);
        }
        track.sequence += 1;
        self.sequence = self.sequence.wrapping_add(1);
        if self.keys.seal(&mut self.packet, header, track.ssrc, index).is_none() {
            return false;
        }
        let octets = u32::try_from(self.packet.len() - header - TAG).unwrap_or_default();
        (track.packets, track.octets) = (track.packets.wrapping_add(1), track.octets.wrapping_add(octets));
        kit.port.send(kit.local.ip(), self.server, &self.packet)
    }

    /// Reports on a stream that has begun.
    fn report(&mut self, kit: &Kit, track: &Track) {
        if track.packets == 0 {
            return;
        }
        let (ssrc, packets, octets) = (track.ssrc, track.packets, track.octets);
        let (at, timestamp) = (SystemTime::now(), track.clock(Instant::now()));
        SenderReport { ssrc, at, timestamp, packets, octets }.write(&mut self.packet);
        self.reports += 1;
        if self.keys.seal_rtcp(&mut self.packet, self.reports).is_some() {
            kit.port.send(kit.local.ip(), self.server, &self.packet);
        }
    }
}

/// The number of which only the lower bits stood on the wire: the one that is nearest to the highest so far.
fn extended(highest: u64, sequence: u16) -> u64 {
    let [.., h0, h1] = highest.to_be_bytes();
    let ahead = sequence.wrapping_sub(u16::from_be_bytes([h0, h1])).cast_signed();
    highest.saturating_add_signed(ahead.into())
}

/// Seconds in 6 bits and as many parts in 18 (abs-send-time).
fn send_time(since: Duration) -> u32 {
    let parts = (u64::from(since.subsec_nanos()) << 18) / 1_000_000_000;
    u32::try_from((since.as_secs() & 63) << 18 | parts).unwrap_or_default()
}

fn dice() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Some time that is shorter than this.
fn within(step: Duration) -> Duration {
    step * u32::from(dice().to_be_bytes()[0]) / 256
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use str0m::crypto::dtls::{KeyingMaterial, SrtpProfile};

    use super::super::header::tests::ANSWER;
    use super::super::keys::Agreed;
    use super::super::srtp::both_ways;
    use super::*;

    fn keys(we_are_client: bool) -> (Keys, Keys) {
        let material = KeyingMaterial::new(&[7; 88]);
        both_ways(&Agreed { profile: SrtpProfile::AEAD_AES_256_GCM, material, we_are_client }).unwrap()
    }

    fn run(from: SocketAddr, bytes: &mut [u8]) -> Run<'_> {
        Run { from, to: from, at: Instant::now(), stride: bytes.len(), bytes }
    }

    fn person(delays: &Arc<Delays>) -> Person {
        let port = Arc::new(Port::bind("127.0.0.1:0".parse().unwrap()).unwrap());
        let kit = Kit {
            local: port.bound(),
            port,
            terms: Terms::read(ANSWER),
            film: Arc::new(Film::built_in().unwrap()),
            voice: Voice::tone(500).unwrap(),
            delays: Some(Arc::clone(delays)),
            record: None,
            connection: 0,
            meters: Arc::default(),
            task: mpsc::channel(1).0,
        };
        Person::new(kit, ["0", "1"].map(String::from), Instant::now())
    }

    #[test]
    fn a_server_opens_what_is_sent_and_what_comes_back_is_counted() {
        let delays = Arc::<Delays>::default();
        let (mut person, now) = (person(&delays), Instant::now());
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        person.order(Devices::ON, now);
        assert_eq!(person.due().count(), 0, "there are no keys yet");
        person.begin(keys(true), server.local_addr().unwrap(), now);
        let dues: Vec<(Instant, What)> = person.due().collect();
        assert_eq!(dues.len(), 3);
        for (due, what) in dues.into_iter().filter(|(_, what)| *what != What::Reports) {
            assert!(person.send(what, due).is_some_and(|again| again > due));
            assert_eq!(person.send(what, due), None, "once");
        }
        let (receive, send) = keys(false);
        let (mut datagram, mut voices, mut picture) = ([0; 1_500], Vec::new(), Vec::new());
        for _ in 0..person.sent() {
            let (length, from) = server.recv_from(&mut datagram).unwrap();
            let datagram = &mut datagram[..length];
            let head = Head::read(datagram).unwrap();
            let plain = receive.open(datagram, head.length, head.ssrc, head.sequence.into()).unwrap().to_vec();
            let Head { ssrc, length, sequence, .. } = head;
            if head.payload_type == 111 {
                let mut echo = [&datagram[..length], &plain].concat();
                send.seal(&mut echo, length, ssrc, sequence.into()).unwrap();
                voices.push((from, echo));
            } else {
                picture.extend_from_slice(&plain[4..]);
            }
        }
        assert_eq!(picture, person.kit.film.frame(0));
        let (from, mut echo) = voices.pop().unwrap();
        assert_eq!(person.hear(run(from, &mut echo)), 1);
        assert_eq!(delays.figures().count, 1);
        assert_eq!(person.hear(run(from, &mut echo)), 1, "opened in place before: it is counted, but opens nothing");
        let tally = person.finish();
        assert_eq!((tally.received, tally.unopened, tally.heard.len()), (2, 1, 1));
        assert_eq!((tally.heard[0].mid.as_str(), tally.heard[0].voice), ("0", true));
    }

    #[test]
    fn a_wish_for_a_keyframe_begins_the_film_anew() {
        let mut person = person(&Arc::default());
        let server: SocketAddr = "127.0.0.1:9".parse().unwrap();
        person.begin(keys(true), server, Instant::now());
        person.camera.next = 5;
        let mut wish = [&[0x81, 206, 0, 2, 0, 0, 0, 1][..], &person.camera.ssrc.to_be_bytes()].concat();
        keys(false).1.seal_rtcp(&mut wish, 1).unwrap();
        person.hear(run(server, &mut wish));
        assert_eq!((person.camera.next, person.tally.keyframe_requests), (0, 1));
    }

    #[test]
    fn numbers_go_on_over_their_wrap() {
        assert_eq!([extended(65_535, 1), extended(65_537, 65_535), extended(3, 2)], [65_537, 65_535, 2]);
    }
}
