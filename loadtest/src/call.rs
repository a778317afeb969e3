//! What a client sends and counts: the tracks with their sequence numbers, and the streams that arrive.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use str0m::format::{Codec, PayloadParams};
use str0m::media::{Mid, Pt};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite, Ssrc};
use str0m::{Event, Output, Rtc};
use tokio::sync::watch;

use crate::client::{ClientError, Habits};
use crate::device::DeviceClock;
use crate::events::Slot;
use crate::line::Wire;
use crate::media::{Film, VOICE_STEP, Voice, packetize};
use crate::numbered::{Kind, Mark, Record, Sent, digest};
use crate::report::ClientReport;
use crate::sdp::Lines;

/// What has arrived so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Whether the connection stands.
    pub connected: bool,
    /// Media packets by `mid`.
    pub packets: HashMap<String, u64>,
    /// The server's word on which m-line shows somebody, by `mid`.
    pub slots: HashMap<String, Slot>,
}

/// A stream that is being sent.
struct Track {
    mid: Mid,
    sequence: u64,
    /// Ticks of the RTP clock in a second.
    rate: u32,
    /// The timestamp at `epoch`.
    timestamp: u32,
    /// A moment of the device's clock.
    epoch: Instant,
    /// Which frame or packet of the loop comes next.
    next: usize,
    picture_id: u16,
}

impl Track {
    /// RFC 3550, section 5.1: sequence and timestamp begin at random. The first rollover must lie ahead.
    fn new(mid: Mid, rate: u32, epoch: Instant) -> Self {
        let dice = RandomState::new().build_hasher().finish();
        let [timestamp @ .., sequence_high, sequence_low, picture_high, picture_low] = dice.to_be_bytes();
        Self {
            mid,
            sequence: u64::from(u16::from_be_bytes([sequence_high, sequence_low]) >> 1),
            rate,
            timestamp: u32::from_be_bytes(timestamp),
            epoch,
            next: 0,
            picture_id: u16::from_be_bytes([picture_high, picture_low]) & 0x7fff,
        }
    }

    /// The RTP timestamp of a moment of the device's clock, which runs on while nothing is sent.
    fn timestamp(&self, captured: Instant) -> u32 {
        const SECOND: u128 = 1_000_000_000;
        let passed = captured.saturating_duration_since(self.epoch).as_nanos();
        let ticks = (passed * u128::from(self.rate) + SECOND / 2) / SECOND;
        // The clock wraps around (RFC 3550, section 5.1).
        self.timestamp.wrapping_add(u32::try_from(ticks & u128::from(u32::MAX)).unwrap_or_default())
    }
}

/// A stream that is being received.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Its m-line.
    pub mid: String,
    /// Voice, or picture.
    pub voice: bool,
    /// When its first packet came.
    pub first: Instant,
    /// Whether somebody had gone, or come back, before it began.
    pub after_change: bool,
    /// How long it should have flowed without a break, less what timers may be late, up to `since`.
    flowed: Duration,
    /// Since when it should flow; `None`: it need not.
    since: Option<Instant>,
    quiet: bool,
    lowest: u64,
    highest: u64,
}

/// Whether the others have stayed since a connection began: while somebody is away, streams may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    Stayed,
    Away,
    CameBack,
}

impl Others {
    /// What it is when it was told that somebody is away, or that nobody is.
    pub(crate) fn after(self, away: bool) -> Self {
        match (self, away) {
            (_, true) => Self::Away,
            (Self::Stayed, false) => Self::Stayed,
            (Self::Away | Self::CameBack, false) => Self::CameBack,
        }
    }
}

/// Allowed for each unbroken flow, for what the timers of a busy machine do.
const LATE: Duration = Duration::from_millis(100);

impl Heard {
    /// A stream that begins with this packet.
    pub(crate) fn new(mid: String, voice: bool, sequence: u64, others: Others) -> Self {
        let (first, flowed) = (Instant::now(), Duration::ZERO);
        let (lowest, highest) = (sequence, sequence);
        let after_change = others != Others::Stayed;
        Self { mid, voice, first, after_change, flowed, since: None, quiet: false, lowest, highest }
    }

    /// The largest number that a packet had.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// A packet with this number has come. Gives how many more packets there should be by now.
    pub(crate) fn note(&mut self, sequence: u64, others: Others) -> u64 {
        if self.since.is_none() && others != Others::Away && !self.quiet {
            self.since = Some(Instant::now());
        }
        let highest = self.highest;
        self.lowest = self.lowest.min(sequence);
        self.highest = self.highest.max(sequence);
        self.highest - highest
    }

    /// It may stand still until a packet comes.
    pub(crate) fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            self.flowed += since.elapsed().saturating_sub(LATE);
        }
    }

    /// From here on nobody sends: voices are not expected any more.
    pub(crate) fn quiet(&mut self) {
        self.pause();
        self.quiet = true;
    }

    /// Packets that should have come.
    fn expected(&self) -> u64 {
        let by_sequence = self.highest - self.lowest + 1;
        // A server that drops before it numbers leaves no gap: a voice is also held against the clock.
        let by_clock = self.flowed.as_millis() / VOICE_STEP.as_millis();
        let by_clock = if self.voice { u64::try_from(by_clock).unwrap_or(u64::MAX) } else { 0 };
        by_sequence.max(by_clock)
    }
}

/// Adds to a report what should have come of these streams, and how many sources of others they are.
pub(crate) fn sum_up<'a>(
    report: &mut ClientReport,
    heard: impl Iterator<Item = &'a Heard>,
    slots: &HashMap<String, Slot>,
) {
    let mut sources = HashSet::new();
    for heard in heard {
        report.expected += heard.expected();
        let slot = slots.get(&heard.mid).filter(|slot| (slot.source == "microphone") == heard.voice);
        sources.extend(slot.filter(|slot| !slot.participant_id.is_empty()).map(|slot| &slot.mid));
    }
    report.sources = sources.len();
}

/// One side of a connection, from the offer to the report.
pub(crate) struct Call {
    report: ClientReport,
    clock: DeviceClock,
    habits: Habits,
    /// The connection's number in the person's record.
    number: u32,
    microphone: Track,
    camera: Track,
    heard: BTreeMap<Ssrc, Heard>,
    seen: watch::Sender<Seen>,
    posted: Instant,
    /// Whether ICE and DTLS are done.
    pub connected: bool,
    wants_keyframe: bool,
    others: Others,
}

impl Call {
    pub(crate) fn new(
        report: ClientReport,
        lines: &Lines,
        posted: Instant,
        seen: watch::Sender<Seen>,
        clock: DeviceClock,
        habits: Habits,
    ) -> Self {
        let epoch = clock.now();
        Self {
            report,
            clock,
            number: habits.record.as_deref().map_or(0, Record::connect),
            habits,
            microphone: Track::new(lines.microphone, 48_000, epoch),
            camera: Track::new(lines.camera, 90_000, epoch),
            heard: BTreeMap::new(),
            seen,
            posted,
            connected: false,
            wants_keyframe: false,
            others: Others::Stayed,
        }
    }

    /// Sends what wants to be sent and hears what was said; returns when str0m must be woken, on the device's clock.
    pub(crate) async fn drain(&mut self, rtc: &mut Rtc, wire: &mut Wire) -> Result<Instant, ClientError> {
        loop {
            match rtc.poll_output()? {
                Output::Timeout(deadline) => return Ok(deadline),
                Output::Transmit(transmit) => wire.send(&transmit.contents, transmit.destination).await,
                Output::Event(event) => match event {
                    Event::Connected => {
                        self.connected = true;
                        wire.connected();
                        self.report.join_ms = Some(millis(self.posted.elapsed()));
                        self.seen.send_modify(|seen| seen.connected = true);
                    }
                    Event::KeyframeRequest(_) => {
                        self.report.keyframe_requests += 1;
                        self.wants_keyframe = true;
                    }
                    Event::RtpPacket(packet) => {
                        let mid = rtc.direct_api().stream_rx(&packet.header.ssrc).map(|stream| stream.mid());
                        let audio = mid.and_then(|mid| rtc.media(mid)).map(|media| media.kind().is_audio());
                        if let (Some(mid), Some(audio)) = (mid, audio) {
                            self.hear(mid, audio, &packet);
                        }
                    }
                    _ => {}
                },
            }
        }
    }

    fn hear(&mut self, mid: Mid, voice: bool, packet: &RtpPacket) {
        // Bandwidth probes come as packets without payload; they carry nobody's media.
        if packet.payload.is_empty() {
            return;
        }
        self.count(packet.header.ssrc, mid, voice, *packet.seq_no);
        if voice
            && let Some(delays) = &self.habits.delays
            && let Some(mark) = Mark::read(&packet.payload)
        {
            delays.arrived(mark.number);
        }
        // A frame's mark stands at the end of its last packet.
        if let Some(record) = &self.habits.record
            && (voice || packet.header.marker)
        {
            record.hear(if voice { Kind::Voice } else { Kind::Picture }, &packet.payload);
        }
        self.seen.send_modify(|seen| *seen.packets.entry(mid.to_string()).or_default() += 1);
    }

    fn count(&mut self, ssrc: Ssrc, mid: Mid, voice: bool, sequence: u64) {
        let mut expected = 0;
        let heard = self.heard.entry(ssrc).or_insert_with(|| {
            if self.others == Others::Stayed {
                let since = self.report.first_media_ms.get_or_insert(0);
                *since = (*since).max(millis(self.posted.elapsed()));
            }
            expected = 1;
            Heard::new(mid.to_string(), voice, sequence, self.others)
        });
        expected += heard.note(sequence, self.others);
        self.report.received += 1;
        self.habits.meters.came(1, expected);
    }

    /// Somebody goes, so that streams may stand still; or is back.
    pub(crate) fn excuse(&mut self, excused: bool) {
        if excused && self.others != Others::Away {
            self.heard.values_mut().for_each(Heard::pause);
        }
        self.others = self.others.after(excused);
    }

    /// The server's complete word on who is in which m-line.
    pub(crate) fn show_in(&self, slots: HashMap<String, Slot>) {
        self.seen.send_modify(|seen| seen.slots = slots);
    }

    /// The next Opus packet, captured at this time of the device's clock.
    pub(crate) fn speak(&mut self, rtc: &mut Rtc, voice: &Voice, captured: Instant) {
        let track = &mut self.microphone;
        let record = self.habits.record.as_ref();
        let plain = voice.packet(track.next);
        let stamp = || self.habits.delays.as_ref().map(|delays| Mark { sender: 0, number: delays.stamp() });
        let mark = record.map(|record| record.next(Kind::Voice)).or_else(stamp);
        let payload = mark.map_or_else(|| plain.to_vec(), |mark| mark.on_voice(plain));
        let marked = record.zip(mark).map(|(record, mark)| (record, mark, digest(&payload)));
        let ext = ExtensionValues { audio_level: Some(-20), voice_activity: Some(true), ..ExtensionValues::default() };
        let piece = Piece { codec: Codec::Opus, payload, marker: false, ext };
        let sequence = track.sequence;
        if let Some(ssrc) = write(rtc, track, captured, piece) {
            self.report.sent += 1;
            self.habits.meters.went(1);
            if let Some((record, mark, digest)) = marked {
                let what = What { mark, digest, keyframe: false };
                record.add(Kind::Voice, sent(&what, self.number, track, (ssrc, sequence, captured)));
            }
        }
        track.next += 1;
    }

    /// The next frame, captured at this time of the device's clock.
    pub(crate) fn show(&mut self, rtc: &mut Rtc, film: &Film, captured: Instant) {
        let track = &mut self.camera;
        let asked = std::mem::take(&mut self.wants_keyframe);
        if asked && !self.habits.never_a_keyframe {
            track.next = 0;
        }
        let n = if self.habits.never_a_keyframe { film.other_than_keyframe(track.next) } else { track.next };
        let plain = film.frame(n);
        let record = self.habits.record.as_ref();
        let marked = record.map(|record| {
            let mark = record.next(Kind::Picture);
            (record, mark, mark.on_frame(plain))
        });
        let frame = marked.as_ref().map_or(plain, |(_, _, frame)| frame.as_slice());
        let payloads = packetize(frame, track.picture_id);
        let last = payloads.len().saturating_sub(1);
        let (sequence, mut ssrc) = (track.sequence, None);
        for (n, payload) in payloads.into_iter().enumerate() {
            let piece = Piece { codec: Codec::Vp8, payload, marker: n == last, ext: ExtensionValues::default() };
            let written = write(rtc, track, captured, piece);
            self.report.sent += u64::from(written.is_some());
            self.habits.meters.went(u64::from(written.is_some()));
            ssrc = ssrc.or(written);
        }
        if let (Some((record, mark, frame)), Some(ssrc)) = (&marked, ssrc) {
            let what = What { mark: *mark, digest: digest(frame), keyframe: film.is_keyframe(n) };
            record.add(Kind::Picture, sent(&what, self.number, track, (ssrc, sequence, captured)));
        }
        track.next += 1;
        track.picture_id = track.picture_id.wrapping_add(1) & 0x7fff;
    }

    /// The camera was switched on: the first frame can be decoded by itself.
    pub(crate) fn begin_with_keyframe(&mut self) {
        self.wants_keyframe = true;
    }

    /// Both streams go on under new SSRCs, as a browser's do when it replaces its encoders. Sequence numbers and
    /// timestamps begin at random again.
    pub(crate) fn change_ssrc(&mut self, rtc: &mut Rtc) {
        let epoch = self.clock.now();
        for track in [&mut self.microphone, &mut self.camera] {
            let mut direct = rtc.direct_api();
            let (ssrc, again) = (direct.new_ssrc(), direct.new_ssrc());
            let repeats = direct.stream_tx_by_mid(track.mid, None).is_some_and(|stream| stream.rtx().is_some());
            direct.reset_stream_tx(track.mid, None, ssrc, repeats.then_some(again));
            *track = Track { next: track.next, ..Track::new(track.mid, track.rate, epoch) };
        }
        self.wants_keyframe = true;
    }

    /// From here on nobody sends: voices are not expected any more.
    pub(crate) fn quiet(&mut self) {
        for heard in self.heard.values_mut() {
            heard.quiet();
        }
    }

    /// The whole count.
    pub(crate) fn finish(mut self, lost_on_purpose: u64) -> ClientReport {
        self.quiet();
        self.report.lost_on_purpose = lost_on_purpose;
        sum_up(&mut self.report, self.heard.values(), &self.seen.borrow().slots);
        self.report
    }
}

/// What one RTP packet carries.
struct Piece {
    codec: Codec,
    payload: Vec<u8>,
    marker: bool,
    ext: ExtensionValues,
}

/// Hands a packet to str0m; gives the SSRC that it goes out under.
fn write(rtc: &mut Rtc, track: &mut Track, captured: Instant, piece: Piece) -> Option<u32> {
    let Piece { codec, payload, marker, ext } = piece;
    let pt = payload_type(rtc, track.mid, codec)?;
    let timestamp = track.timestamp(captured);
    let mut direct = rtc.direct_api();
    let stream = direct.stream_tx_by_mid(track.mid, None)?;
    // Sender reports speak of the time of capture (RFC 3550, section 6.4.1).
    stream.write_rtp(
        RtpWrite::new(pt, track.sequence.into(), timestamp, captured, payload)
            .marker(marker)
            .ext_vals(ext)
            .nackable(true),
    );
    track.sequence += 1;
    Some(*stream.ssrc())
}

/// What is known of a frame or packet before it is written.
struct What {
    mark: Mark,
    digest: u64,
    keyframe: bool,
}

/// What is remembered of it when it has just been written.
fn sent(what: &What, connection: u32, track: &Track, (ssrc, sequence, captured): (u32, u64, Instant)) -> Sent {
    let What { mark, digest, keyframe } = *what;
    let wire = |sequence: u64| u16::try_from(sequence & u64::from(u16::MAX)).unwrap_or_default();
    Sent {
        number: mark.number,
        connection,
        ssrc,
        sequence: wire(sequence),
        packets: wire(track.sequence - sequence),
        rtp: track.timestamp(captured),
        keyframe,
        digest,
        captured,
        sent: Instant::now(),
    }
}

fn payload_type(rtc: &Rtc, mid: Mid, codec: Codec) -> Option<Pt> {
    let remote = rtc.media(mid)?.remote_pts();
    rtc.codec_config()
        .iter()
        .find(|params| params.spec().codec == codec && remote.contains(&params.pt()))
        .map(PayloadParams::pt)
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
