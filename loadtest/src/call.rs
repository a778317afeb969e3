//! What a client sends and counts: the tracks with their sequence numbers, and the streams that arrive.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use str0m::format::{Codec, PayloadParams};
use str0m::media::{Mid, Pt};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite, Ssrc};
use str0m::{Event, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::client::ClientError;
use crate::events::Slot;
use crate::media::{Film, VOICE_STEP, VOICE_TICKS, Voice, packetize};
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
    timestamp: u32,
    /// Ticks of the RTP clock in a second.
    clock: u32,
    /// When the last frame or packet was sent.
    last: Option<Instant>,
    /// Which frame or packet of the loop comes next.
    next: usize,
    picture_id: u16,
}

impl Track {
    /// RFC 3550, section 5.1: sequence and timestamp begin at random. The first rollover must lie ahead.
    fn new(mid: Mid, clock: u32) -> Self {
        let dice = RandomState::new().build_hasher().finish();
        let [timestamp @ .., sequence_high, sequence_low, picture_high, picture_low] = dice.to_be_bytes();
        Self {
            mid,
            sequence: u64::from(u16::from_be_bytes([sequence_high, sequence_low]) >> 1),
            timestamp: u32::from_be_bytes(timestamp),
            clock,
            last: None,
            next: 0,
            picture_id: u16::from_be_bytes([picture_high, picture_low]) & 0x7fff,
        }
    }

    /// The clock of a device runs on while it is switched off.
    fn skip_pause(&mut self) {
        let pause = self.last.take().map_or(Duration::ZERO, |last| last.elapsed());
        let ticks = pause.as_millis() * u128::from(self.clock) / 1_000;
        self.timestamp = self.timestamp.wrapping_add(u32::try_from(ticks).unwrap_or_default());
    }
}

/// A stream that is being received.
#[derive(Debug)]
struct Heard {
    mid: Mid,
    voice: bool,
    first: Instant,
    last_expected: Option<Instant>,
    lowest: u64,
    highest: u64,
}

/// One side of a connection, from the offer to the report.
pub(crate) struct Call {
    report: ClientReport,
    microphone: Track,
    camera: Track,
    heard: BTreeMap<Ssrc, Heard>,
    seen: watch::Sender<Seen>,
    posted: Instant,
    /// Whether ICE and DTLS are done.
    pub connected: bool,
    wants_keyframe: bool,
}

impl Call {
    pub(crate) fn new(report: ClientReport, lines: &Lines, posted: Instant, seen: watch::Sender<Seen>) -> Self {
        Self {
            report,
            microphone: Track::new(lines.microphone, 48_000),
            camera: Track::new(lines.camera, 90_000),
            heard: BTreeMap::new(),
            seen,
            posted,
            connected: false,
            wants_keyframe: false,
        }
    }

    /// Sends what wants to be sent and hears what was said; returns when str0m must be woken.
    pub(crate) async fn drain(&mut self, rtc: &mut Rtc, socket: &UdpSocket) -> Result<Instant, ClientError> {
        loop {
            match rtc.poll_output()? {
                Output::Timeout(deadline) => return Ok(deadline),
                Output::Transmit(transmit) => {
                    // A full send buffer loses the packet, as a network would; the receiver's count shows it.
                    let _ = socket.send_to(&transmit.contents, transmit.destination).await;
                }
                Output::Event(event) => match event {
                    Event::Connected => {
                        self.connected = true;
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
        let sequence = *packet.seq_no;
        let heard = self.heard.entry(packet.header.ssrc).or_insert_with(|| {
            let since = self.report.first_media_ms.get_or_insert(0);
            *since = (*since).max(millis(self.posted.elapsed()));
            Heard { mid, voice, first: Instant::now(), last_expected: None, lowest: sequence, highest: sequence }
        });
        heard.lowest = heard.lowest.min(sequence);
        heard.highest = heard.highest.max(sequence);
        self.report.received += 1;
        self.seen.send_modify(|seen| *seen.packets.entry(mid.to_string()).or_default() += 1);
    }

    /// The server's complete word on who is in which m-line.
    pub(crate) fn show_in(&self, slots: HashMap<String, Slot>) {
        self.seen.send_modify(|seen| seen.slots = slots);
    }

    pub(crate) fn speak(&mut self, rtc: &mut Rtc, voice: &Voice) {
        let track = &mut self.microphone;
        let payload = voice.packet(track.next);
        let ext = ExtensionValues { audio_level: Some(-20), voice_activity: Some(true), ..ExtensionValues::default() };
        if write(rtc, track, Codec::Opus, payload.to_vec(), false, ext) {
            self.report.sent += 1;
        }
        track.next += 1;
        track.timestamp = track.timestamp.wrapping_add(VOICE_TICKS);
    }

    pub(crate) fn show(&mut self, rtc: &mut Rtc, film: &Film) {
        let track = &mut self.camera;
        if std::mem::take(&mut self.wants_keyframe) {
            track.next = 0;
        }
        let payloads = packetize(film.frame(track.next), track.picture_id);
        let last = payloads.len().saturating_sub(1);
        for (n, payload) in payloads.into_iter().enumerate() {
            if write(rtc, track, Codec::Vp8, payload, n == last, ExtensionValues::default()) {
                self.report.sent += 1;
            }
        }
        track.next += 1;
        track.picture_id = track.picture_id.wrapping_add(1) & 0x7fff;
        track.timestamp = track.timestamp.wrapping_add(film.ticks);
    }

    /// The camera was switched on: the first frame can be decoded by itself, at the time that it is.
    pub(crate) fn begin_with_keyframe(&mut self) {
        self.camera.skip_pause();
        self.wants_keyframe = true;
    }

    /// The microphone was switched on.
    pub(crate) fn begin_to_speak(&mut self) {
        self.microphone.skip_pause();
    }

    /// From here on nobody sends: voices are not expected any more.
    pub(crate) fn quiet(&mut self) {
        for heard in self.heard.values_mut() {
            heard.last_expected.get_or_insert_with(Instant::now);
        }
    }

    /// The whole count.
    pub(crate) fn finish(mut self) -> ClientReport {
        self.quiet();
        for heard in self.heard.values() {
            let by_sequence = heard.highest - heard.lowest + 1;
            // A server that drops before it numbers leaves no gap: a voice is also held against the clock. A tenth
            // of a second is allowed for what the timers of a busy machine do.
            let flowed = heard.last_expected.map_or(Duration::ZERO, |last| last - heard.first);
            let by_clock = flowed.saturating_sub(Duration::from_millis(100)).as_millis() / VOICE_STEP.as_millis();
            let by_clock = if heard.voice { u64::try_from(by_clock).unwrap_or(u64::MAX) } else { 0 };
            self.report.expected += by_sequence.max(by_clock);
        }
        let seen = self.seen.borrow();
        let named = |heard: &&Heard| {
            let slot = seen.slots.get(&heard.mid.to_string());
            slot.is_some_and(|slot| (slot.source == "microphone") == heard.voice && !slot.participant_id.is_empty())
        };
        self.report.sources = self.heard.values().filter(named).count();
        drop(seen);
        self.report
    }
}

fn write(rtc: &mut Rtc, track: &mut Track, codec: Codec, payload: Vec<u8>, marker: bool, ext: ExtensionValues) -> bool {
    let now = Instant::now();
    let Some(pt) = payload_type(rtc, track.mid, codec) else { return false };
    let mut direct = rtc.direct_api();
    let Some(stream) = direct.stream_tx_by_mid(track.mid, None) else { return false };
    let nackable = codec == Codec::Vp8;
    stream.write_rtp(
        RtpWrite::new(pt, track.sequence.into(), track.timestamp, now, payload)
            .marker(marker)
            .ext_vals(ext)
            .nackable(nackable),
    );
    track.sequence += 1;
    track.last = Some(now);
    true
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
