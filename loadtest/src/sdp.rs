//! The offer, as the pages make it, what is done with the answer, and answers to others' offers.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::{Codec, CodecConfig, CodecSpec, FormatParams, PayloadParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid};
use str0m::{Candidate, Rtc, RtcConfig};
use tokio::net::UdpSocket;

use crate::client::ClientError;

/// Slots of each kind that the offer has, as the pages offer them.
const SLOTS: usize = 4;

/// The m-lines that send.
pub(crate) struct Lines {
    pub microphone: Mid,
    pub camera: Mid,
}

/// An offer with the pages' m-lines: microphone, camera, a screen that stays dark, and the slots.
pub(crate) fn offer(config: RtcConfig, now: Instant) -> (Rtc, String, SdpPendingOffer, Lines) {
    let slots = [MediaKind::Audio, MediaKind::Video].into_iter().flat_map(|kind| [(kind, Direction::RecvOnly); SLOTS]);
    let screen = (MediaKind::Video, Direction::SendOnly);
    offer_beside(config, now, std::iter::once(screen).chain(slots))
}

/// An offer of microphone and camera alone.
pub(crate) fn publish(config: RtcConfig, now: Instant) -> (Rtc, String, SdpPendingOffer, Lines) {
    offer_beside(config, now, std::iter::empty())
}

/// Microphone, camera, and these m-lines.
fn offer_beside(
    config: RtcConfig,
    now: Instant,
    others: impl Iterator<Item = (MediaKind, Direction)>,
) -> (Rtc, String, SdpPendingOffer, Lines) {
    let mut rtc = receiver(config, now);
    let mut changes = rtc.sdp_api();
    let mut add = |kind, direction| changes.add_media(kind, direction, None, None, None);
    let microphone = add(MediaKind::Audio, Direction::SendOnly);
    let camera = add(MediaKind::Video, Direction::SendOnly);
    for (kind, direction) in others {
        add(kind, direction);
    }
    #[expect(clippy::expect_used, reason = "m-lines were added just above, so there is something to offer")]
    let (offer, pending) = changes.apply().expect("an offer");
    (rtc, offer.to_sdp_string(), pending, Lines { microphone, camera })
}

/// Nothing but the pages' codecs: a side that waits for an offer.
pub(crate) fn receiver(config: RtcConfig, now: Instant) -> Rtc {
    let mut config = config.set_rtp_mode(true);
    *config.codec_config() = CodecConfig::new_from_payload_params(vec![opus()]);
    config.enable_vp8(true).build(now)
}

/// Opus whose lost packets are sent again, as the pages offer it; here in a stream of repairs.
fn opus() -> PayloadParams {
    let (codec, clock_rate, channels) = (Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2));
    let format = FormatParams { min_p_time: Some(10), use_inband_fec: Some(true), ..FormatParams::default() };
    let mut opus = PayloadParams::new(111.into(), Some(112.into()), CodecSpec { codec, clock_rate, channels, format });
    opus.set_fb_nack(true);
    opus
}

/// Takes the answer, and opens a socket on the interface that faces the server.
pub(crate) async fn answered(
    rtc: &mut Rtc,
    answer: &str,
    pending: SdpPendingOffer,
    microphone: Mid,
) -> Result<(UdpSocket, SocketAddr), ClientError> {
    accept(rtc, answer, pending)?;
    repair_voice(rtc, microphone);
    for server in candidates(answer) {
        let Some(ip) = facing(server).await else { continue };
        let Ok(socket) = UdpSocket::bind((ip, 0)).await else { continue };
        let local = socket.local_addr()?;
        add_host(rtc, local)?;
        return Ok((socket, local));
    }
    Err(ClientError::NoCandidate)
}

/// Takes the answer.
pub(crate) fn accept(rtc: &mut Rtc, answer: &str, pending: SdpPendingOffer) -> Result<(), ClientError> {
    let answer = SdpAnswer::from_sdp_string(answer).map_err(|error| ClientError::Answer(error.to_string()))?;
    Ok(rtc.sdp_api().accept_answer(pending, answer)?)
}

/// Answers an offer; our addresses must be known before.
pub(crate) fn answer(rtc: &mut Rtc, offer: &str) -> Result<String, ClientError> {
    let offer = SdpOffer::from_sdp_string(offer).map_err(|error| ClientError::Answer(error.to_string()))?;
    Ok(rtc.sdp_api().accept_offer(offer)?.to_sdp_string())
}

/// Media may come to and from this address of ours.
pub(crate) fn add_host(rtc: &mut Rtc, local: SocketAddr) -> Result<(), ClientError> {
    rtc.add_local_candidate(host(local)?);
    Ok(())
}

/// An address of ours.
pub(crate) fn host(local: SocketAddr) -> Result<Candidate, ClientError> {
    Candidate::host(local, "udp").map_err(|error| ClientError::Answer(error.to_string()))
}

/// Gives the voice a stream of repairs: `str0m` makes none for audio of its own accord, and has no other way to send a
/// packet again.
fn repair_voice(rtc: &mut Rtc, microphone: Mid) {
    let mut streams = rtc.direct_api();
    let Some(ssrc) = streams.stream_tx_by_mid(microphone, None).map(|stream| stream.ssrc()) else { return };
    let repairs = streams.new_ssrc();
    streams.remove_stream_tx(ssrc);
    streams.declare_stream_tx(ssrc, Some(repairs), microphone, None);
}

/// The UDP addresses of `a=candidate` lines (RFC 8839, section 5.1), in the order given.
pub(crate) fn candidates(sdp: &str) -> Vec<SocketAddr> {
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
pub(crate) async fn facing(server: SocketAddr) -> Option<IpAddr> {
    let unspecified: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let probe = UdpSocket::bind((unspecified, 0)).await.ok()?;
    probe.connect(server).await.ok()?;
    Some(probe.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_has_the_pages_lines_and_codecs_only() {
        let (_, sdp, _, _) = offer(RtcConfig::new(), Instant::now());
        let count = |what: &str| sdp.lines().filter(|line| line.trim_end() == what).count();
        assert_eq!(count("a=sendonly"), 3);
        assert_eq!(count("a=recvonly"), 2 * SLOTS);
        assert!(!sdp.contains("H264"));
        assert!(sdp.contains("VP8/90000") && sdp.contains("opus/48000/2"));
    }

    #[test]
    fn who_publishes_offers_two_lines_that_send() {
        let (_, sdp, _, _) = publish(RtcConfig::new(), Instant::now());
        let lines = |what: &str| sdp.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!([lines("m="), lines("a=sendonly"), lines("a=recvonly")], [2, 2, 0]);
    }

    #[test]
    fn an_offer_of_what_others_send_is_answered_with_our_address_and_nothing_of_our_own() {
        const EXTENSIONS: &str = "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef012345\r\na=ice-options:trickle\r\na=setup:actpass\r\n\
             a=rtcp-mux\r\na=sendonly\r\na=candidate:1 1 udp 2015363327 127.0.0.1 20000 typ host\r\na=end-of-candidates\r\n";
        let fingerprint = ["AB"; 32].join(":");
        let offer = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 127.0.0.1\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n{EXTENSIONS}\
             m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 127.0.0.1\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n{EXTENSIONS}"
        );
        let mut rtc = receiver(RtcConfig::new(), Instant::now());
        add_host(&mut rtc, "127.16.0.1:4000".parse().unwrap()).unwrap();
        let answer = answer(&mut rtc, &offer).unwrap();
        let count = |what: &str| answer.lines().filter(|line| line.trim_end() == what).count();
        assert_eq!([count("a=recvonly"), count("a=sendonly"), count("a=sendrecv")], [2, 0, 0], "{answer}");
        assert_eq!(candidates(&answer).first(), Some(&"127.16.0.1:4000".parse().unwrap()));
        assert!(answer.contains("111 opus/48000/2") && answer.contains("96 VP8/90000") && answer.contains("sdes:mid"));
        for hostile in ["", "v=0", "m=audio", &offer.replace("actpass", "sideways"), &offer.replace("111", "999")] {
            let _ = super::answer(&mut receiver(RtcConfig::new(), Instant::now()), hostile);
        }
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
