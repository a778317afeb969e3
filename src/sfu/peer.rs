//! One participant's WebRTC session. The only file that names [`Rtc`]: SDP, ICE, DTLS, SRTP and RTCP are its work,
//! what flows between peers is not.
//!
//! Contract of `str0m`: change one thing, drain [`Rtc::poll_output`] up to its timeout, change the next.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use str0m::change::SdpOffer;
use str0m::config::DtlsCert;
use str0m::format::{Codec as RtcCodec, PayloadParams};
use str0m::media::{Direction, KeyframeRequestKind, MediaAdded, MediaKind, Mid, Pt, Rid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite, VideoOrientation, Vp8Descriptor};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig};

use super::ConnectError;
use super::forward::Rewrite;
use super::sdp;
use super::socket::{Route, Socket};
use crate::clock::{Clock, MonoTime};
use crate::media::Source;
use crate::rtp::{Codec, Extensions, Packet, SenderReport, Ssrc};

/// From the NTP epoch (1900) to the Unix epoch, seconds (RFC 5905 §6).
const NTP_UNIX_OFFSET: u64 = 2_208_988_800;

/// What all peers of one worker share.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) clock: Clock,
    /// Addresses announced as candidates; never empty.
    pub(super) announced: Arc<[IpAddr]>,
    /// The worker's UDP port.
    pub(super) port: u16,
    /// One certificate for the worker's life: making one costs more than a whole handshake.
    pub(super) certificate: DtlsCert,
}

/// What a peer has to say after it was fed.
#[derive(Debug)]
pub(super) enum PeerEvent {
    /// ICE and DTLS are done.
    Connected,
    /// The far end closed, or ICE gave up.
    Closed,
    /// The client receives on one more m-line, of audio if true.
    SlotAdded(bool),
    /// Media came in.
    Packet(Source, Packet),
    /// A sender report came in.
    Report(Source, SenderReport),
    /// The receiver cannot decode what is in this slot until a keyframe comes.
    KeyframeWanted(usize),
}

/// An m-line that the client sends on.
#[derive(Debug)]
struct SourceLine {
    source: Source,
    mid: Mid,
    encoding: Encoding,
}

/// Which encoding of a source is taken: the first that comes; of simulcast the others are left while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Any,
    Only { rid: Option<Rid>, last: MonoTime },
}

/// A client that sends several encodings may stop the one that was taken: after so long another is. Shorter than what
/// makes the room take the camera for stopped.
const ENCODING_SILENCE: Duration = Duration::from_millis(1_200);

impl Encoding {
    /// Takes this encoding if none was taken before, or if that one has stopped.
    fn takes(&mut self, rid: Option<Rid>, now: MonoTime) -> bool {
        match *self {
            Self::Only { rid: taken, last } if taken != rid && now.since(last) <= ENCODING_SILENCE => false,
            _ => {
                *self = Self::Only { rid, last: now };
                true
            }
        }
    }

    fn rid(self) -> Option<Rid> {
        match self {
            Self::Any => None,
            Self::Only { rid, .. } => rid,
        }
    }
}

/// An m-line that the client receives on.
#[derive(Debug)]
struct SlotLine {
    mid: Mid,
    payload_type: Pt,
}

/// One participant's WebRTC session.
#[derive(Debug)]
pub(super) struct Peer {
    rtc: Rtc,
    site: Site,
    offer: String,
    sources: Vec<SourceLine>,
    slots: Vec<SlotLine>,
    /// Behind NAT: the announced address, and the machine's own that stands for it.
    alias: Option<(IpAddr, IpAddr)>,
}

impl Peer {
    /// Answers an offer; returns the peer and the answer, which is final.
    pub(super) fn accept(site: &Site, offer: String) -> Result<(Self, String), ConnectError> {
        sdp::check_offer(&offer)?;
        let mut rtc = RtcConfig::new()
            .set_rtp_mode(true)
            .set_ice_lite(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .set_dtls_cert(site.certificate.clone())
            .build(site.clock.instant(site.clock.mono()));
        for &ip in site.announced.iter() {
            let candidate = Candidate::host(SocketAddr::new(ip, site.port), "udp")
                .map_err(|error| ConnectError::BadOffer(error.to_string()))?;
            rtc.add_local_candidate(candidate);
        }
        let mut peer =
            Self { rtc, site: site.clone(), offer: String::new(), sources: Vec::new(), slots: Vec::new(), alias: None };
        let answer = peer.answer(offer)?;
        sdp::check_answer(&answer)?;
        Ok((peer, answer))
    }

    /// Our ICE user name fragment: the first half of the name in the client's checks (RFC 8445 §7.2.2).
    pub(super) fn ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Restarts ICE with the client's new credentials; returns the fragment with ours (RFC 9725 §4.3.3).
    pub(super) fn restart_ice(&mut self, fragment: &str) -> Result<Option<String>, ConnectError> {
        let Some(offer) = sdp::with_credentials(&self.offer, fragment)? else { return Ok(None) };
        let answer = self.answer(offer)?;
        Ok(Some(sdp::fragment_of(&answer)))
    }

    fn answer(&mut self, offer: String) -> Result<String, ConnectError> {
        let parsed = SdpOffer::from_sdp_string(&offer).map_err(|error| ConnectError::BadOffer(error.to_string()))?;
        let answer =
            self.rtc.sdp_api().accept_offer(parsed).map_err(|error| ConnectError::BadOffer(error.to_string()))?;
        self.offer = offer;
        Ok(sdp::with_candidates_everywhere(&answer.to_sdp_string()))
    }

    /// Whether a datagram from an unknown address is meant for this peer and proves it.
    pub(super) fn accepts(&self, now: MonoTime, route: Route, contents: &[u8]) -> bool {
        let Ok(contents) = contents.try_into() else { return false };
        let receive = Receive { proto: Protocol::Udp, source: route.remote, destination: self.local(route), contents };
        self.rtc.accepts(&Input::Receive(self.site.clock.instant(now), receive))
    }

    /// Feeds one datagram; [`Peer::drain`] must follow.
    pub(super) fn receive(&mut self, now: MonoTime, route: Route, contents: &[u8]) {
        let destination = self.local(route);
        if let Some(own) = route.local
            && own != destination.ip()
        {
            self.alias = Some((destination.ip(), own));
        }
        // What is not STUN, DTLS, RTP or RTCP is no one's business.
        let Ok(contents) = contents.try_into() else { return };
        let receive = Receive { proto: Protocol::Udp, source: route.remote, destination, contents };
        let input = Input::Receive(self.site.clock.instant(now), receive);
        if let Err(error) = self.rtc.handle_input(input) {
            // The far end's fault: a datagram that does not decrypt or parse is as good as none.
            tracing::debug!(%error, "a datagram was refused");
        }
    }

    /// Lets time pass; [`Peer::drain`] must follow.
    pub(super) fn advance(&mut self, now: MonoTime) {
        if let Err(error) = self.rtc.handle_input(Input::Timeout(self.site.clock.instant(now))) {
            tracing::debug!(%error, "a session failed");
            self.rtc.disconnect();
        }
    }

    /// Takes out everything that waits: datagrams to the socket, the rest to `events`. Returns when the peer wants
    /// to be advanced next; `None`: it has ended.
    pub(super) fn drain(&mut self, socket: &mut Socket, events: &mut VecDeque<PeerEvent>) -> Option<MonoTime> {
        while self.rtc.is_alive() {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => return Some(self.site.clock.mono_of(at)),
                Ok(Output::Transmit(transmit)) => {
                    let local = match self.alias {
                        Some((announced, own)) if announced == transmit.source.ip() => own,
                        _ => transmit.source.ip(),
                    };
                    socket.send(Route { remote: transmit.destination, local: Some(local) }, &transmit.contents);
                }
                Ok(Output::Event(event)) => self.handle_event(event, events),
                Err(error) => {
                    tracing::debug!(%error, "a session failed");
                    self.rtc.disconnect();
                }
            }
        }
        events.push_back(PeerEvent::Closed);
        None
    }

    /// Asks the client for a keyframe of this source.
    pub(super) fn request_keyframe(&mut self, source: Source) {
        let Some(line) = self.sources.iter().find(|line| line.source == source) else { return };
        let (mid, rid) = (line.mid, line.encoding.rid());
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, rid) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    /// Queues a packet for a slot; [`Peer::advance`] sends it.
    pub(super) fn send(&mut self, slot: usize, packet: &Packet, rewrite: Rewrite) {
        let Some(line) = self.slots.get(slot) else { return };
        let sequence = rewrite.sequence.into();
        let arrival = self.site.clock.instant(packet.arrival);
        let mut write = RtpWrite::new(line.payload_type, sequence, rewrite.timestamp, arrival, &*packet.payload)
            .marker(packet.marker)
            .ext_vals(extension_values(packet.extensions))
            .nackable(packet.codec == Codec::Vp8);
        if packet.codec == Codec::Vp8
            && let Ok(descriptor) = Vp8Descriptor::parse(&packet.payload)
        {
            let mut patch = descriptor.patch();
            if let Some(id) = rewrite.picture_id {
                patch = patch.picture_id(id);
            }
            if let Some(index) = rewrite.tl0_pic_idx {
                patch = patch.tl0_pic_idx(index);
            }
            if let Ok(patch) = patch.build() {
                write = write.vp8_patch(patch);
            }
        }
        let mid = line.mid;
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
            stream.write_rtp(write);
        }
    }

    /// The slot's m-line in the client's SDP.
    pub(super) fn slot_mid(&self, slot: usize) -> Option<String> {
        self.slots.get(slot).map(|line| line.mid.to_string())
    }

    /// Says goodbye (RTCP BYE, DTLS `close_notify`); [`Peer::drain`] sends it.
    pub(super) fn close(&mut self) {
        if let Err(error) = self.rtc.close() {
            tracing::debug!(%error, "a session did not close cleanly");
        }
    }

    /// The local candidate that a datagram came to. Behind NAT it shows the machine's own address, which stands for
    /// the first announced one.
    fn local(&self, route: Route) -> SocketAddr {
        let announced = &self.site.announced;
        let ip = route.local.filter(|ip| announced.contains(ip)).or(announced.first().copied());
        SocketAddr::new(ip.unwrap_or(IpAddr::from([127, 0, 0, 1])), self.site.port)
    }

    fn handle_event(&mut self, event: Event, events: &mut VecDeque<PeerEvent>) {
        match event {
            Event::Connected => events.push_back(PeerEvent::Connected),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => self.rtc.disconnect(),
            Event::MediaAdded(added) => self.add_media(&added, events),
            Event::RtpPacket(packet) => {
                if let Some((source, packet)) = self.take_packet(packet) {
                    events.push_back(PeerEvent::Packet(source, packet));
                }
            }
            Event::SenderFeedback(feedback) => {
                let Some(line) = self.sources.iter().find(|line| line.mid == feedback.mid) else { return };
                if line.encoding == Encoding::Any || line.encoding.rid() != feedback.rid {
                    return;
                }
                let info = feedback.sender_info;
                #[expect(clippy::cast_possible_truncation, reason = "the report carries the lower 32 bits")]
                let rtp_timestamp = info.rtp_time.numer() as u32;
                let report = SenderReport {
                    ssrc: Ssrc(*info.ssrc),
                    ntp: ntp_of(info.ntp_time),
                    rtp_timestamp,
                    arrival: self.site.clock.mono_of(feedback.received_at),
                };
                events.push_back(PeerEvent::Report(line.source, report));
            }
            Event::KeyframeRequest(request) => {
                if let Some(slot) = self.slots.iter().position(|line| line.mid == request.mid) {
                    events.push_back(PeerEvent::KeyframeWanted(slot));
                }
            }
            _ => {}
        }
    }

    fn add_media(&mut self, added: &MediaAdded, events: &mut VecDeque<PeerEvent>) {
        let audio = added.kind == MediaKind::Audio;
        let sends = |source| self.sources.iter().any(|line| line.source == source);
        if matches!(added.direction, Direction::RecvOnly | Direction::SendRecv) {
            let source = match (audio, sends(Source::Microphone), sends(Source::Camera), sends(Source::Screen)) {
                (true, false, ..) => Some(Source::Microphone),
                (false, _, false, _) => Some(Source::Camera),
                (false, _, true, false) => Some(Source::Screen),
                _ => None,
            };
            if let Some(source) = source {
                self.sources.push(SourceLine { source, mid: added.mid, encoding: Encoding::Any });
            } else {
                tracing::debug!(mid = %added.mid, "an m-line too many is not received");
            }
        }
        if matches!(added.direction, Direction::SendOnly | Direction::SendRecv)
            && let Some(payload_type) = self.payload_type(added.mid, audio)
        {
            self.slots.push(SlotLine { mid: added.mid, payload_type });
            events.push_back(PeerEvent::SlotAdded(audio));
        }
    }

    /// The payload type that the client expects Opus or VP8 under on this m-line.
    fn payload_type(&self, mid: Mid, audio: bool) -> Option<Pt> {
        let wanted = if audio { RtcCodec::Opus } else { RtcCodec::Vp8 };
        let offered = self.rtc.media(mid)?.remote_pts();
        let config = self.rtc.codec_config();
        config.find(|params| params.spec().codec == wanted && offered.contains(&params.pt())).map(PayloadParams::pt)
    }

    fn take_packet(&mut self, packet: RtpPacket) -> Option<(Source, Packet)> {
        let arrival = self.site.clock.mono_of(packet.timestamp);
        let stream = self.rtc.direct_api();
        let (mid, rid) = stream_of(stream, &packet)?;
        let line = self.sources.iter_mut().find(|line| line.mid == mid)?;
        if !line.encoding.takes(rid, arrival) {
            return None;
        }
        let source = line.source;
        let codec = if source.is_audio() { Codec::Opus } else { Codec::Vp8 };
        let values = &packet.header.ext_vals;
        let taken = Packet {
            ssrc: Ssrc(*packet.header.ssrc),
            codec,
            sequence: *packet.seq_no,
            timestamp: packet.time.numer(),
            marker: packet.header.marker,
            arrival,
            extensions: Extensions {
                audio_level: values.audio_level.map(i8::unsigned_abs),
                voice_activity: values.voice_activity,
                rotation: values.video_orientation.map(|orientation| match orientation {
                    VideoOrientation::Deg0 => 0,
                    VideoOrientation::Deg90 => 1,
                    VideoOrientation::Deg180 => 2,
                    VideoOrientation::Deg270 => 3,
                }),
            },
            payload: Bytes::from_owner(packet.payload),
        };
        Some((source, taken))
    }
}

fn stream_of(mut api: str0m::change::DirectApi<'_>, packet: &RtpPacket) -> Option<(Mid, Option<Rid>)> {
    let stream = api.stream_rx(&packet.header.ssrc)?;
    Some((stream.mid(), stream.rid()))
}

fn extension_values(extensions: Extensions) -> ExtensionValues {
    ExtensionValues {
        audio_level: extensions.audio_level.map(|level| -i8::try_from(level.min(127)).unwrap_or(127)),
        voice_activity: extensions.voice_activity,
        video_orientation: extensions.rotation.map(|turns| match turns {
            1 => VideoOrientation::Deg90,
            2 => VideoOrientation::Deg180,
            3 => VideoOrientation::Deg270,
            _ => VideoOrientation::Deg0,
        }),
        ..ExtensionValues::default()
    }
}

fn ntp_of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().wrapping_add(NTP_UNIX_OFFSET) << 32;
    seconds | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000)
}
