//! One participant's WebRTC session. The only file that names [`Rtc`]: SDP, ICE and DTLS are its work; RTP is
//! [`Media`]'s, which gets its keys from the handshake. What flows between peers is neither's.
//!
//! Contract of `str0m`: change one thing, drain [`Rtc::poll_output`] up to its timeout, change the next.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use str0m::change::SdpOffer;
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::{Codec, CodecConfig, CodecSpec, FormatParams, PayloadParams};
use str0m::media::Frequency;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Reason, Rtc, RtcConfig};

use super::ConnectError;
use super::forward::Rewrite;
use super::ingress::Payloads;
use super::keepalive::KeepAlive;
use super::keys::{self, Keys, Mailbox};
use super::media::Media;
use super::negotiated::{Negotiated, without_streams};
use super::path::{Check, is_success};
use super::sdp;
use super::socket::{Route, Socket};
use crate::clock::{Clock, MonoTime};
use crate::media::Source;
use crate::rtp::{Packet, SenderReport, Ssrc};

/// Payload types of Opus and of its repairs, where the client names none.
const OPUS: u8 = 111;
const OPUS_REPAIRS: u8 = 112;

/// `str0m` sends no reports, so that its timers for them need not wake anyone.
const NEVER: Duration = Duration::from_hours(24);

/// How often ICE looks whether checks still come once they do, in place of every 3 s. Longer keeps sessions that ended longer,
/// shorter costs idle ones CPU.
const LOOK_EVERY: Duration = Duration::from_secs(10);

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
    /// Cryptography for `str0m`, with a way out for the keys.
    pub(super) crypto: Arc<CryptoProvider>,
    /// Time since 1900 at the zero of the node's clock (RFC 5905 §6).
    pub(super) epoch: Duration,
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
    /// A sender report came in; its moment was at this time of our clock.
    Report(Source, SenderReport, MonoTime),
    /// The receiver cannot decode what is in this slot until a keyframe comes.
    KeyframeWanted(usize),
}

/// One participant's WebRTC session.
#[derive(Debug)]
pub(super) struct Peer {
    rtc: Rtc,
    mailbox: Mailbox,
    media: Media,
    site: Site,
    offer: String,
    /// Behind NAT: the announced address, and the machine's own that stands for it.
    alias: Option<(IpAddr, IpAddr)>,
    /// The client's check that is being answered, and what follows from it if that is with success.
    check: Option<(Route, Check, Option<KeepAlive>)>,
    /// ICE and DTLS are done.
    connected: bool,
    /// The way in use, whose checks then need no `str0m`.
    keep_alive: Option<KeepAlive>,
    /// When `str0m` wants to be told the time.
    rtc_due: MonoTime,
}

impl Peer {
    /// Answers an offer; returns the peer and the answer, which is final.
    pub(super) fn accept(site: &Site, offer: &str) -> Result<(Self, String), ConnectError> {
        sdp::check_offer(offer)?;
        let now = site.clock.instant(site.clock.mono());
        let mut config = RtcConfig::new()
            .set_crypto_provider(Arc::clone(&site.crypto))
            .set_rtp_mode(true)
            .set_ice_lite(true)
            .set_rtcp_report_interval_audio(NEVER)
            .set_rtcp_report_interval_video(NEVER)
            .set_dtls_cert(site.certificate.clone());
        *config.codec_config() = CodecConfig::new_from_payload_params(vec![opus()]);
        let config = config.enable_vp8(true);
        let (mut rtc, mailbox) = keys::with_mailbox(|| config.build(now));
        for &ip in site.announced.iter() {
            let candidate = Candidate::host(SocketAddr::new(ip, site.port), "udp")
                .map_err(|error| ConnectError::BadOffer(error.to_string()))?;
            rtc.add_local_candidate(candidate);
        }
        // Streams are ours to receive: the offer that `str0m` knows names none.
        let unnamed = without_streams(offer);
        let answer = answer(&mut rtc, &unnamed)?;
        sdp::check_answer(&answer)?;
        let spare = Ssrc(*rtc.direct_api().new_ssrc());
        let media = Media::new(Negotiated::read(offer, &answer), spare, site.epoch);
        let rtc_due = MonoTime::ZERO;
        let peer = Self {
            rtc,
            mailbox,
            media,
            site: site.clone(),
            offer: unnamed,
            alias: None,
            check: None,
            connected: false,
            keep_alive: None,
            rtc_due,
        };
        Ok((peer, answer))
    }

    /// Our ICE user name fragment: the first half of the name in the client's checks (RFC 8445 §7.2.2).
    pub(super) fn ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Restarts ICE with the client's new credentials; returns the fragment with ours (RFC 9725 §4.3.3).
    pub(super) fn restart_ice(&mut self, fragment: &str) -> Result<Option<String>, ConnectError> {
        let Some(offer) = sdp::with_credentials(&self.offer, fragment)? else { return Ok(None) };
        let answer = answer(&mut self.rtc, &offer)?;
        self.offer = offer;
        self.keep_alive = None;
        self.media.path().restart();
        Ok(Some(sdp::fragment_of(&answer)))
    }

    /// Whether a datagram from an unknown address is meant for this peer and proves it.
    pub(super) fn accepts(&self, now: MonoTime, route: Route, contents: &[u8]) -> bool {
        let Ok(contents) = contents.try_into() else { return false };
        let receive = Receive { proto: Protocol::Udp, source: route.remote, destination: self.local(route), contents };
        self.rtc.accepts(&Input::Receive(self.site.clock.instant(now), receive))
    }

    /// Answers a check that only keeps the way open. False: it is something else, for [`Peer::receive`].
    pub(super) fn answer_check(&mut self, now: MonoTime, route: Route, datagram: &[u8], socket: &mut Socket) -> bool {
        let Some(answer) = self.keep_alive.as_ref().and_then(|keep_alive| keep_alive.answer(now, route, datagram))
        else {
            return false;
        };
        self.media.path().note(now, route, answer.check);
        socket.send(route, answer.bytes());
        true
    }

    /// Feeds a datagram of STUN or DTLS; [`Peer::drain`] must follow.
    pub(super) fn receive(&mut self, now: MonoTime, route: Route, contents: &[u8]) {
        let destination = self.local(route);
        if let Some(own) = route.local
            && own != destination.ip()
        {
            self.alias = Some((destination.ip(), own));
        }
        self.check = Check::read(contents).map(|check| {
            let password = self.rtc.direct_api().local_ice_credentials().pass;
            (route, check, KeepAlive::after(now, route, contents, &password))
        });
        // What is neither STUN nor DTLS is no one's business.
        let Ok(contents) = contents.try_into() else { return };
        let receive = Receive { proto: Protocol::Udp, source: route.remote, destination, contents };
        let input = Input::Receive(self.site.clock.instant(now), receive);
        if let Err(error) = self.rtc.handle_input(input) {
            // The far end's fault: a datagram that does not parse is as good as none.
            tracing::debug!(%error, "a datagram was refused");
        }
    }

    /// Takes a datagram of RTP; gives the packet, if it is one that is wanted.
    pub(super) fn receive_rtp(
        &mut self,
        now: MonoTime,
        datagram: &mut [u8],
        payloads: &mut Payloads,
    ) -> Option<(Source, Packet)> {
        self.media.receive(now, datagram, payloads)
    }

    /// Takes a datagram of RTCP.
    pub(super) fn receive_rtcp(
        &mut self,
        now: MonoTime,
        datagram: &mut [u8],
        socket: &mut Socket,
        events: &mut VecDeque<PeerEvent>,
    ) {
        self.media.receive_rtcp(now, datagram, socket, events);
    }

    /// Lets time pass; true: [`Peer::drain`] must follow.
    pub(super) fn advance(&mut self, now: MonoTime, socket: &mut Socket) -> bool {
        self.media.advance(now, socket);
        if self.rtc_due > now {
            return false;
        }
        if let Err(error) = self.rtc.handle_input(Input::Timeout(self.site.clock.instant(now))) {
            tracing::debug!(%error, "a session failed");
            self.rtc.disconnect();
        }
        true
    }

    /// When [`Peer::advance`] is wanted.
    pub(super) fn due(&self) -> MonoTime {
        self.media.due().map_or(self.rtc_due, |due| due.min(self.rtc_due))
    }

    /// Takes out everything that waits: datagrams to the socket, the rest to `events`. False: the session has ended.
    pub(super) fn drain(&mut self, now: MonoTime, socket: &mut Socket, events: &mut VecDeque<PeerEvent>) -> bool {
        while self.rtc.is_alive() {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.rtc_due = self.site.clock.mono_of(at);
                    if self.keep_alive.is_some() && self.rtc.last_timeout_reason() == Reason::Ice {
                        self.rtc_due = self.rtc_due.max(now + LOOK_EVERY);
                    }
                    let Some(keys) = self.mailbox.take() else { return true };
                    self.media.start(&keys, events);
                    // The keys took the place of what DTLS has to say next.
                    if let Err(error) = self.rtc.handle_input(Input::Timeout(self.site.clock.instant(now))) {
                        tracing::debug!(%error, "a session failed");
                        self.rtc.disconnect();
                    }
                }
                Ok(Output::Transmit(transmit)) => {
                    let local = match self.alias {
                        Some((announced, own)) if announced == transmit.source.ip() => own,
                        _ => transmit.source.ip(),
                    };
                    let route = Route { remote: transmit.destination, local: Some(local) };
                    match &mut self.check {
                        Some((from, check, keep_alive))
                            if from.remote == route.remote && is_success(&transmit.contents) =>
                        {
                            self.media.path().note(now, *from, *check);
                            // During the handshake the session's time goes on with every check.
                            if self.connected && self.media.path().route() == Some(*from) {
                                self.keep_alive = keep_alive.take();
                            }
                        }
                        // DTLS goes where `str0m` sends; STUN answers go where the question came from.
                        _ if !is_stun(&transmit.contents) => self.media.path().suppose(now, route),
                        _ => {}
                    }
                    socket.send(route, &transmit.contents);
                }
                Ok(Output::Event(event)) => self.handle_event(&event, events),
                Err(error) => {
                    tracing::debug!(%error, "a session failed");
                    self.rtc.disconnect();
                }
            }
        }
        events.push_back(PeerEvent::Closed);
        false
    }

    /// Asks the client for a keyframe of this source; [`Peer::advance`] sends it.
    pub(super) fn request_keyframe(&mut self, source: Source) {
        self.media.request_keyframe(source);
    }

    /// Sends a packet in a slot. False: it was not sent.
    pub(super) fn send(
        &mut self,
        now: MonoTime,
        slot: usize,
        packet: &Packet,
        rewrite: Rewrite,
        socket: &mut Socket,
    ) -> bool {
        self.media.send(now, slot, packet, rewrite, socket)
    }

    /// What the slot carries was at `timestamp` at this time of our clock.
    pub(super) fn set_anchor(&mut self, slot: usize, timestamp: u32, at: MonoTime) {
        self.media.set_anchor(slot, timestamp, at);
    }

    /// The slot's m-line in the client's SDP.
    pub(super) fn slot_mid(&self, slot: usize) -> Option<String> {
        self.media.slot_mid(slot).map(str::to_owned)
    }

    /// Takes keys and a way as if the handshake were done, for benches.
    pub(super) fn supply(&mut self, now: MonoTime, keys: &Keys, route: Route, events: &mut VecDeque<PeerEvent>) {
        self.media.start(keys, events);
        self.media.path().suppose(now, route);
    }

    /// Says goodbye (RTCP BYE, DTLS `close_notify`); [`Peer::drain`] sends the latter.
    pub(super) fn close(&mut self, now: MonoTime, socket: &mut Socket) {
        self.media.close(socket);
        if let Err(error) = self.rtc.close() {
            tracing::debug!(%error, "a session did not close cleanly");
        }
        if let Err(error) = self.rtc.handle_input(Input::Timeout(self.site.clock.instant(now))) {
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

    fn handle_event(&mut self, event: &Event, events: &mut VecDeque<PeerEvent>) {
        match event {
            Event::Connected => {
                self.connected = true;
                events.push_back(PeerEvent::Connected);
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => self.rtc.disconnect(),
            _ => {}
        }
    }
}

fn answer(rtc: &mut Rtc, offer: &str) -> Result<String, ConnectError> {
    let parsed = SdpOffer::from_sdp_string(offer).map_err(|error| ConnectError::BadOffer(error.to_string()))?;
    let answer = rtc.sdp_api().accept_offer(parsed).map_err(|error| ConnectError::BadOffer(error.to_string()))?;
    let answer = sdp::with_offered_feedback(&answer.to_sdp_string(), offer);
    Ok(sdp::with_candidates_everywhere(&answer))
}

/// Opus whose lost packets are asked for again, if the client offers that: a recording misses no word that could still
/// come. Repairs come in a stream of their own (RFC 4588), or as the same packet once more, as browsers send them.
fn opus() -> PayloadParams {
    let format = FormatParams { min_p_time: Some(10), use_inband_fec: Some(true), ..FormatParams::default() };
    let (codec, clock_rate) = (Codec::Opus, Frequency::FORTY_EIGHT_KHZ);
    let spec = CodecSpec { codec, clock_rate, channels: Some(2), format };
    let mut opus = PayloadParams::new(OPUS.into(), Some(OPUS_REPAIRS.into()), spec);
    opus.set_fb_nack(true);
    opus
}

/// RFC 7983 §7: STUN begins with 0 to 3.
fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|&first| first <= 3)
}
