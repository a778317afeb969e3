//! One person in one room: an SDP offer like the pages', a full ICE agent, a microphone and a camera that send, and
//! a careful count of what comes back.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::Deserialize;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::{Codec, PayloadParams};
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::api::{Api, ApiError};
use crate::media::{Film, VOICE_STEP, VOICE_TICKS, Voice, packetize};
use crate::report::ClientReport;

/// Slots of each kind that the offer has, as the pages offer them.
const SLOTS: usize = 4;
/// Voices and pictures of the two others.
const SOURCES_EXPECTED: usize = 4;
/// Datagrams are at most this long on any path that we know.
const DATAGRAM: usize = 2_000;

/// What a room's clients do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// They send.
    Playing,
    /// They only listen, so that what is under way may still arrive.
    Quiet,
    /// They hang up.
    Leaving,
}

/// Why a client could not take part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The REST API refused or was away.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The answer, or the server's packets, were not what WebRTC allows.
    #[error("webrtc: {0}")]
    Rtc(#[from] str0m::RtcError),
    /// The answer is not SDP.
    #[error("the answer is not SDP: {0}")]
    Answer(String),
    /// The answer has no address that this machine can send to.
    #[error("the answer has no usable UDP candidate")]
    NoCandidate,
    /// The socket broke.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The events were refused.
    #[error("events: {0}")]
    Events(Box<tokio_tungstenite::tungstenite::Error>),
    /// The tone could not be encoded.
    #[error("opus: {0}")]
    Opus(#[from] opus::Error),
    /// The task ended early.
    #[error("a client's task ended early: {0}")]
    Task(String),
}

impl From<tokio_tungstenite::tungstenite::Error> for ClientError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::Events(Box::new(error))
    }
}

/// One person's part in a call.
pub(crate) struct Part {
    /// The server.
    pub api: Api,
    /// The person's session token.
    pub session: String,
    /// The person's role, for the report.
    pub role: String,
    /// What the camera sees.
    pub film: Arc<Film>,
    /// What the microphone hears.
    pub voice: Voice,
    /// What the room does.
    pub stages: watch::Receiver<Stage>,
    /// Told once, when the connection stands.
    pub connected: mpsc::Sender<()>,
    /// Start of the room, which the report's times count from.
    pub began: Instant,
}

/// Takes part until the room's stage is [`Stage::Leaving`].
pub(crate) async fn hold(part: Part) -> Result<ClientReport, ClientError> {
    let mut events = listen(&part.api, &part.session).await?;
    let (mut rtc, offer, pending, lines) = offer();
    let posted = Instant::now();
    let (answer, location) = part.api.offer(&part.session, offer).await?;
    let (socket, local) = answered(&mut rtc, &answer, pending).await?;

    let mut call = Call {
        report: ClientReport {
            role: part.role.clone(),
            sources_expected: SOURCES_EXPECTED,
            posted_ms: millis(posted - part.began),
            ..ClientReport::default()
        },
        microphone: Track::new(lines.microphone),
        camera: Track::new(lines.camera),
        heard: BTreeMap::new(),
        slots: HashMap::new(),
        posted,
        connected: false,
        wants_keyframe: false,
    };
    let mut stages = part.stages;
    let mut announce = Some(part.connected);
    let mut voice = Pace::new(VOICE_STEP);
    let mut film = Pace::new(part.film.step);
    let mut datagram = vec![0; DATAGRAM];

    loop {
        let deadline = call.drain(&mut rtc, &socket).await?;
        if call.connected
            && let Some(announce) = announce.take()
        {
            voice.restart();
            film.restart();
            let _ = announce.send(()).await;
        }
        let playing = call.connected && *stages.borrow() == Stage::Playing;
        tokio::select! {
            received = socket.recv_from(&mut datagram) => {
                let (length, source) = received?;
                let bytes = datagram.get(..length).unwrap_or_default();
                if let Ok(receive) = Receive::new(Protocol::Udp, source, local, bytes) {
                    rtc.handle_input(Input::Receive(Instant::now(), receive))?;
                }
            }
            () = tokio::time::sleep_until(deadline.into()) => rtc.handle_input(Input::Timeout(Instant::now()))?,
            () = voice.next(), if playing => call.speak(&mut rtc, &part.voice),
            () = film.next(), if playing => call.show(&mut rtc, &part.film),
            Some(slots) = events.recv() => call.slots = slots,
            changed = stages.changed() => {
                if changed.is_err() || *stages.borrow() == Stage::Leaving {
                    break;
                }
                call.quiet();
            }
        }
    }
    part.api.hang_up(&part.session, &location).await?;
    Ok(call.finish())
}

/// The m-lines that send.
struct Lines {
    microphone: Mid,
    camera: Mid,
}

/// An offer with the pages' m-lines: microphone, camera, a screen that stays dark, and the slots.
fn offer() -> (Rtc, String, SdpPendingOffer, Lines) {
    let mut rtc = RtcConfig::new()
        .set_rtp_mode(true)
        .clear_codecs()
        .enable_opus(true, false)
        .enable_vp8(true)
        .build(Instant::now());
    let mut changes = rtc.sdp_api();
    let mut add = |kind, direction| changes.add_media(kind, direction, None, None, None);
    let microphone = add(MediaKind::Audio, Direction::SendOnly);
    let camera = add(MediaKind::Video, Direction::SendOnly);
    add(MediaKind::Video, Direction::SendOnly);
    for kind in [MediaKind::Audio, MediaKind::Video] {
        for _ in 0..SLOTS {
            add(kind, Direction::RecvOnly);
        }
    }
    #[expect(clippy::expect_used, reason = "m-lines were added just above, so there is something to offer")]
    let (offer, pending) = changes.apply().expect("an offer");
    (rtc, offer.to_sdp_string(), pending, Lines { microphone, camera })
}

/// Takes the answer, and opens a socket on the interface that faces the server.
async fn answered(
    rtc: &mut Rtc,
    answer: &str,
    pending: SdpPendingOffer,
) -> Result<(UdpSocket, SocketAddr), ClientError> {
    let answer_sdp = SdpAnswer::from_sdp_string(answer).map_err(|error| ClientError::Answer(error.to_string()))?;
    rtc.sdp_api().accept_answer(pending, answer_sdp)?;
    for server in candidates(answer) {
        let Some(ip) = facing(server).await else { continue };
        let Ok(socket) = UdpSocket::bind((ip, 0)).await else { continue };
        let local = socket.local_addr()?;
        let host = Candidate::host(local, "udp").map_err(|error| ClientError::Answer(error.to_string()))?;
        rtc.add_local_candidate(host);
        return Ok((socket, local));
    }
    Err(ClientError::NoCandidate)
}

/// The UDP addresses of `a=candidate` lines (RFC 8839, section 5.1), in the order given.
fn candidates(sdp: &str) -> Vec<SocketAddr> {
    sdp.lines()
        .filter_map(|line| line.trim_end().strip_prefix("a=candidate:"))
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                [_, "1", transport, _, address, port, ..] if transport.eq_ignore_ascii_case("udp") => {
                    Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, port.parse().ok()?))
                }
                _ => None,
            }
        })
        .collect()
}

/// The local address that the system would send from to reach `server`.
async fn facing(server: SocketAddr) -> Option<IpAddr> {
    let unspecified: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let probe = UdpSocket::bind((unspecified, 0)).await.ok()?;
    probe.connect(server).await.ok()?;
    Some(probe.local_addr().ok()?.ip())
}

/// A stream that is being sent.
struct Track {
    mid: Mid,
    sequence: u64,
    timestamp: u32,
    /// Which frame or packet of the loop comes next.
    next: usize,
    picture_id: u16,
}

impl Track {
    /// RFC 3550, section 5.1: sequence and timestamp begin at random. The first rollover must lie ahead.
    fn new(mid: Mid) -> Self {
        let dice = RandomState::new().build_hasher().finish();
        let [timestamp @ .., sequence_high, sequence_low, picture_high, picture_low] = dice.to_be_bytes();
        Self {
            mid,
            sequence: u64::from(u16::from_be_bytes([sequence_high, sequence_low]) >> 1),
            timestamp: u32::from_be_bytes(timestamp),
            next: 0,
            picture_id: u16::from_be_bytes([picture_high, picture_low]) & 0x7fff,
        }
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
    packets: u64,
}

struct Call {
    report: ClientReport,
    microphone: Track,
    camera: Track,
    heard: BTreeMap<Ssrc, Heard>,
    /// The server's word on which m-line shows somebody.
    slots: HashMap<String, Slot>,
    posted: Instant,
    connected: bool,
    wants_keyframe: bool,
}

impl Call {
    /// Sends what wants to be sent and hears what was said; returns when str0m must be woken.
    async fn drain(&mut self, rtc: &mut Rtc, socket: &UdpSocket) -> Result<Instant, ClientError> {
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
            Heard {
                mid,
                voice,
                first: Instant::now(),
                last_expected: None,
                lowest: sequence,
                highest: sequence,
                packets: 0,
            }
        });
        heard.lowest = heard.lowest.min(sequence);
        heard.highest = heard.highest.max(sequence);
        heard.packets += 1;
        self.report.received += 1;
    }

    fn speak(&mut self, rtc: &mut Rtc, voice: &Voice) {
        let track = &mut self.microphone;
        let payload = voice.packet(track.next);
        let ext = ExtensionValues { audio_level: Some(-20), voice_activity: Some(true), ..ExtensionValues::default() };
        if write(rtc, track, Codec::Opus, payload.to_vec(), false, ext) {
            self.report.sent += 1;
        }
        track.next += 1;
        track.timestamp = track.timestamp.wrapping_add(VOICE_TICKS);
    }

    fn show(&mut self, rtc: &mut Rtc, film: &Film) {
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

    /// From here on nobody sends: voices are not expected any more.
    fn quiet(&mut self) {
        for heard in self.heard.values_mut() {
            heard.last_expected.get_or_insert_with(Instant::now);
        }
    }

    fn finish(mut self) -> ClientReport {
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
        let named = |heard: &&Heard| {
            let slot = self.slots.get(&heard.mid.to_string());
            slot.is_some_and(|slot| (slot.source == "microphone") == heard.voice && !slot.participant_id.is_empty())
        };
        self.report.sources = self.heard.values().filter(named).count();
        self.report
    }
}

fn write(rtc: &mut Rtc, track: &mut Track, codec: Codec, payload: Vec<u8>, marker: bool, ext: ExtensionValues) -> bool {
    let Some(pt) = payload_type(rtc, track.mid, codec) else { return false };
    let mut direct = rtc.direct_api();
    let Some(stream) = direct.stream_tx_by_mid(track.mid, None) else { return false };
    let nackable = codec == Codec::Vp8;
    stream.write_rtp(
        RtpWrite::new(pt, track.sequence.into(), track.timestamp, Instant::now(), payload)
            .marker(marker)
            .ext_vals(ext)
            .nackable(nackable),
    );
    track.sequence += 1;
    true
}

fn payload_type(rtc: &Rtc, mid: Mid, codec: Codec) -> Option<Pt> {
    let remote = rtc.media(mid)?.remote_pts();
    rtc.codec_config()
        .iter()
        .find(|params| params.spec().codec == codec && remote.contains(&params.pt()))
        .map(PayloadParams::pt)
}

/// One m-line that shows somebody.
#[derive(Clone, Debug, Deserialize)]
struct Slot {
    mid: String,
    participant_id: String,
    source: String,
}

/// Opens the event WebSocket; gives each complete list of slots, by `mid`.
async fn listen(api: &Api, session: &str) -> Result<mpsc::Receiver<HashMap<String, Slot>>, ClientError> {
    #[derive(Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Message {
        Slots {
            slots: Vec<Slot>,
        },
        #[serde(other)]
        Other,
    }
    let mut request = api.address("/v1/session/events").replacen("http", "ws", 1).into_client_request()?;
    let bearer = HeaderValue::from_str(&format!("Bearer {session}"))
        .map_err(|_| ApiError::Answer("the session token is not fit for a header"))?;
    request.headers_mut().insert("authorization", bearer);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else { continue };
            if let Ok(Message::Slots { slots }) = serde_json::from_str(text) {
                let by_mid = slots.into_iter().map(|slot| (slot.mid.clone(), slot)).collect();
                if sender.send(by_mid).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

/// Even steps of time. Steps that were missed are caught up on, since a microphone does not skip.
struct Pace {
    step: Duration,
    next: Instant,
}

impl Pace {
    fn new(step: Duration) -> Self {
        Self { step, next: Instant::now() }
    }

    fn restart(&mut self) {
        self.next = Instant::now();
    }

    /// Waits for the next step. Safe to drop and call again: the step is taken only when it is reached.
    async fn next(&mut self) {
        tokio::time::sleep_until(self.next.into()).await;
        self.next += self.step;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_has_the_pages_lines_and_codecs_only() {
        let (_, sdp, _, _) = offer();
        let count = |what: &str| sdp.lines().filter(|line| line.trim_end() == what).count();
        assert_eq!(count("a=sendonly"), 3);
        assert_eq!(count("a=recvonly"), 2 * SLOTS);
        assert!(!sdp.contains("H264"));
        assert!(sdp.contains("VP8/90000") && sdp.contains("opus/48000/2"));
    }

    #[test]
    fn only_udp_candidates_of_the_media_component_are_used() {
        let sdp = "v=0\r\na=candidate:1 1 UDP 2130706431 192.0.2.7 10000 typ host\r\n\
                   a=candidate:2 1 tcp 1 192.0.2.7 10000 typ host tcptype passive\r\n\
                   a=candidate:3 1 udp 1 2001:db8::7 10000 typ host\r\n";
        let expected: [SocketAddr; 2] = ["192.0.2.7:10000".parse().unwrap(), "[2001:db8::7]:10000".parse().unwrap()];
        assert_eq!(candidates(sdp), expected);
    }
}
