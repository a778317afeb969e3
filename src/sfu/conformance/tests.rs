//! Our RTP path against `str0m`'s own, in memory and on virtual time: every kind of packet both ways, on a network that
//! may lose what a test tells it to, with each SRTP profile.
//!
//! Two clients and the two sessions that serve them; what the first sends is put into the slots of the second.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::DtlsCert;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial, ProtocolVersion, SrtpProfile,
};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{ExtensionValues, RawPacket, RtpPacket, RtpWrite, VideoOrientation};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use super::demux::Kind;
use super::forward::{FrameIds, Origin, Slots, Verdict};
use super::ingress::Payloads;
use super::peer::{Peer, PeerEvent, Site};
use super::socket::{Route, Socket};
use super::{certificate, keys, since_1900};
use crate::clock::{Clock, MonoTime};
use crate::id::{ConnectionId, ParticipantId};
use crate::media::Source;
use crate::rtp::{Codec, Packet};

/// Step of the virtual time.
const STEP: Duration = Duration::from_millis(5);

/// Length of a frame of video and of a packet of voice.
const FRAME: u32 = 20;

// ---- profiles --------------------------------------------------------------------------------------------------------

/// Both ends choose AES-256; this makes them use less of the same material, as if they had chosen otherwise.
#[derive(Debug)]
struct Weaker(SrtpProfile);

#[derive(Debug)]
struct WeakerInstance(Box<dyn DtlsInstance>, SrtpProfile);

impl DtlsProvider for Weaker {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = str0m::crypto::from_feature_flags().dtls_provider.new_dtls(cert, now, version, mtu)?;
        Ok(Box::new(WeakerInstance(inner, self.0)))
    }
}

impl DtlsInstance for WeakerInstance {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }
    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }
    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        match self.0.poll_output(buf) {
            DtlsOutput::KeyingMaterial(material, _) => {
                let length = self.1.keying_material_len();
                DtlsOutput::KeyingMaterial(KeyingMaterial::new(&material[..length]), self.1)
            }
            other => other,
        }
    }
    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }
    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }
    fn is_active(&self) -> bool {
        self.0.is_active()
    }
    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }
    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AEAD_AES_256_GCM, SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AES128_CM_SHA1_80];

// ---- world -----------------------------------------------------------------------------------------------------------

struct Client {
    rtc: Rtc,
    peer: Peer,
    address: SocketAddr,
    voice: Mid,
    camera: Mid,
    slots: Slots,
    connected: bool,
    closed: bool,
    sequence: u64,
    timestamp: u32,
    frames: u32,
    keyframes_asked: usize,
    received: Vec<RtpPacket>,
    reports: Vec<Rtcp>,
    outgoing: Vec<Vec<u8>>,
}

/// Whether a datagram is lost: from the server, and its bytes.
type Loss = dyn FnMut(bool, &[u8]) -> bool;

struct World {
    clock: Clock,
    now: MonoTime,
    server: SocketAddr,
    socket: Socket,
    payloads: Payloads,
    sender: Client,
    receiver: Client,
    origin: (ConnectionId, ParticipantId),
    /// What the server took in of the sender.
    taken: Vec<(Source, Packet)>,
    asked: Vec<usize>,
    lose: Box<Loss>,
}

impl World {
    fn new(profile: SrtpProfile) -> Self {
        Self::starting(profile, 1_000, 5_000)
    }

    /// With the sender's first sequence number and timestamp.
    fn starting(profile: SrtpProfile, sequence: u64, timestamp: u32) -> Self {
        let clock = Clock::new();
        let server: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        let weaker: &'static Weaker = Box::leak(Box::new(Weaker(profile)));
        let site = Site {
            clock,
            announced: Arc::from([IpAddr::from([127, 0, 0, 1])]),
            port: server.port(),
            certificate: certificate().unwrap(),
            crypto: Arc::new(keys::tapping(weaker)),
            epoch: since_1900(clock),
        };
        let client = |port: u16| {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let (rtc, offer, pending, voice, camera) = client_rtc(address, weaker);
            let (peer, answer) = Peer::accept(&site, &offer).unwrap();
            let mut client = Client {
                rtc,
                peer,
                address,
                voice,
                camera,
                slots: Slots::default(),
                connected: false,
                closed: false,
                sequence,
                timestamp,
                frames: 0,
                keyframes_asked: 0,
                received: Vec::new(),
                reports: Vec::new(),
                outgoing: Vec::new(),
            };
            client.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
            client
        };
        let epoch = jiff::Timestamp::UNIX_EPOCH;
        let (sender, receiver) = (client(1_001), client(1_002));
        let mut world = Self {
            clock,
            // Virtual from here on.
            now: clock.mono(),
            server,
            socket: Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            payloads: Payloads::default(),
            sender,
            receiver,
            origin: (ConnectionId::new(epoch), ParticipantId::new(epoch)),
            taken: Vec::new(),
            asked: Vec::new(),
            lose: Box::new(|_, _| false),
        };
        for _ in 0..200 {
            world.turn();
            if world.sender.connected && world.receiver.connected {
                break;
            }
        }
        assert!(world.sender.connected && world.receiver.connected, "both connect");
        world.turn();
        world
    }

    /// Lets a step of time pass, and everything arrive that is sent in it.
    fn turn(&mut self) {
        self.now = self.now + STEP;
        for of_sender in [true, false] {
            self.client(of_sender).rtc_input_time();
        }
        loop {
            let mut quiet = true;
            for of_sender in [true, false] {
                quiet &= !self.serve(of_sender);
            }
            for (route, datagram) in self.socket.take_outgoing() {
                quiet = false;
                if (self.lose)(true, &datagram) {
                    continue;
                }
                let (server, at) = (self.server, self.clock.instant(self.now));
                let of_sender = route.remote == self.sender.address;
                let client = self.client(of_sender).inner;
                let Ok(contents) = (&datagram[..]).try_into() else { panic!("not WebRTC: {datagram:?}") };
                let receive = Receive { proto: Protocol::Udp, source: server, destination: client.address, contents };
                client.rtc.handle_input(Input::Receive(at, receive)).unwrap();
                // It holds one packet at a time.
                client.drain(at);
            }
            if quiet {
                return;
            }
        }
    }

    fn client(&mut self, sender: bool) -> At<'_> {
        let at = self.clock.instant(self.now);
        At { inner: if sender { &mut self.sender } else { &mut self.receiver }, at }
    }

    /// Takes out what a client says, and lets its session answer. True: something was said.
    fn serve(&mut self, of_sender: bool) -> bool {
        let mut said = false;
        let at = self.clock.instant(self.now);
        let client = self.client(of_sender).inner;
        client.drain(at);
        let datagrams = std::mem::take(&mut client.outgoing);
        for mut datagram in datagrams {
            said = true;
            if !(self.lose)(false, &datagram) {
                self.deliver(of_sender, &mut datagram);
            }
        }
        let client = if of_sender { &mut self.sender } else { &mut self.receiver };
        if client.peer.due() <= self.now && client.peer.advance(self.now, &mut self.socket) {
            let mut events = VecDeque::new();
            client.peer.drain(self.now, &mut self.socket, &mut events);
            self.act(of_sender, events);
        }
        said
    }

    /// What the worker does with a datagram.
    fn deliver(&mut self, of_sender: bool, datagram: &mut [u8]) {
        let now = self.now;
        let mut events = VecDeque::new();
        let client = if of_sender { &mut self.sender } else { &mut self.receiver };
        let route = Route { remote: client.address, local: None };
        match Kind::of(datagram) {
            Kind::Rtp => {
                if let Some((source, packet)) = client.peer.receive_rtp(now, datagram, &mut self.payloads) {
                    assert!(of_sender, "the receiver sends nothing");
                    self.forward(source, &packet);
                    self.taken.push((source, packet));
                }
            }
            Kind::Rtcp => client.peer.receive_rtcp(now, datagram, &mut self.socket, &mut events),
            Kind::Control => {
                client.peer.receive(now, route, datagram);
                client.peer.drain(now, &mut self.socket, &mut events);
            }
        }
        self.act(of_sender, events);
    }

    fn forward(&mut self, source: Source, packet: &Packet) {
        let (connection, participant) = self.origin;
        let frame = (packet.codec == Codec::Vp8).then(|| FrameIds::of(&packet.payload));
        let Some((slot, _)) = self.receiver.slots.assign(Origin { connection, participant, source }) else { return };
        if let Verdict::Forward(slot, rewrite) = self.receiver.slots.forward(slot, packet, frame) {
            assert!(self.receiver.peer.send(self.now, slot, packet, rewrite, &mut self.socket));
        }
    }

    fn act(&mut self, of_sender: bool, events: VecDeque<PeerEvent>) {
        for event in events {
            match event {
                PeerEvent::SlotAdded(audio) => {
                    let client = if of_sender { &mut self.sender } else { &mut self.receiver };
                    client.slots.add(audio);
                }
                PeerEvent::Report(source, report, local) => {
                    let (connection, participant) = self.origin;
                    let slot = self.receiver.slots.slot_of(Origin { connection, participant, source });
                    let slots = &self.receiver.slots;
                    if let Some(slot) = slot
                        && let Some(timestamp) = slots.timestamp(slot, report.ssrc, report.rtp_timestamp)
                    {
                        self.receiver.peer.set_anchor(slot, timestamp, local);
                    }
                }
                PeerEvent::KeyframeWanted(slot) => self.asked.push(slot),
                PeerEvent::Connected | PeerEvent::Closed => {}
            }
        }
    }

    /// The sender says something and shows a frame of three packets; time passes.
    fn film(&mut self, frames: u32) {
        for _ in 0..frames {
            let at = self.clock.instant(self.now);
            self.sender.film(at);
            for _ in 0..FRAME / 5 {
                self.turn();
            }
        }
    }

    fn pictures(&self) -> Vec<&RtpPacket> {
        self.receiver
            .received
            .iter()
            .filter(|packet| packet.payload.first() == Some(&0x90) || packet.payload.first() == Some(&0x80))
            .collect()
    }

    /// The numbers of the pictures' packets that came.
    fn numbers(&self) -> BTreeSet<u64> {
        self.pictures().iter().map(|packet| *packet.seq_no).collect()
    }
}

/// A client at a time.
struct At<'a> {
    inner: &'a mut Client,
    at: Instant,
}

impl At<'_> {
    fn rtc_input_time(self) {
        self.inner.rtc.handle_input(Input::Timeout(self.at)).unwrap();
    }
}

fn client_rtc(address: SocketAddr, dtls: &'static dyn DtlsProvider) -> (Rtc, String, SdpPendingOffer, Mid, Mid) {
    let crypto = str0m::config::CryptoProvider { dtls_provider: dtls, ..str0m::crypto::from_feature_flags() };
    let mut rtc = RtcConfig::new()
        .set_crypto_provider(Arc::new(crypto))
        .set_rtp_mode(true)
        .enable_raw_packets(true)
        .clear_codecs()
        .enable_opus(true, false)
        .enable_vp8(true)
        .build(Instant::now());
    rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
    let mut api = rtc.sdp_api();
    let mut add = |kind, direction| api.add_media(kind, direction, None, None, None);
    let voice = add(MediaKind::Audio, Direction::SendOnly);
    let camera = add(MediaKind::Video, Direction::SendOnly);
    add(MediaKind::Audio, Direction::RecvOnly);
    add(MediaKind::Video, Direction::RecvOnly);
    let (offer, pending) = api.apply().unwrap();
    (rtc, offer.to_sdp_string(), pending, voice, camera)
}

impl Client {
    fn drain(&mut self, now: Instant) {
        while self.rtc.is_alive() {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) if at <= now => self.rtc.handle_input(Input::Timeout(now)).unwrap(),
                Output::Timeout(_) => break,
                Output::Transmit(transmit) => self.outgoing.push(transmit.contents.to_vec()),
                Output::Event(event) => self.note(event),
            }
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected = true,
            Event::Closed => self.closed = true,
            Event::KeyframeRequest(_) => self.keyframes_asked += 1,
            Event::RtpPacket(packet) => self.received.push(packet),
            Event::RawPacket(raw) => {
                if let RawPacket::RtcpRx(report) = *raw {
                    self.reports.push(report);
                }
            }
            _ => {}
        }
    }

    fn film(&mut self, at: Instant) {
        let keyframe = self.frames == 0 || self.keyframes_asked > 0;
        self.keyframes_asked = 0;
        let [high, low] = u16::try_from(self.frames & 0x7fff).unwrap().to_be_bytes();
        let head = [0x90, 0x80, 0x80 | high, low, u8::from(!keyframe), 2, 0, 0x9d, 1, 0x2a, 16, 0, 16, 0];
        let rest = [0x80, 0x80, 0x80 | high, low];
        let pictures =
            [&head[..], &[&rest[..], &[7; 1_000]].concat(), &[&rest[..], &[8; 400]].concat()].map(<[u8]>::to_vec);
        let voice =
            ExtensionValues { audio_level: Some(-30), voice_activity: Some(true), ..ExtensionValues::default() };
        let (sequence, timestamp) = (self.sequence, self.timestamp);
        self.write(self.voice, |pt| {
            RtpWrite::new(pt, sequence.into(), timestamp, at, b"voice".to_vec()).ext_vals(voice)
        });
        for (n, picture) in (0_u64..).zip(pictures) {
            let orientation = ExtensionValues {
                video_orientation: (n == 2).then_some(VideoOrientation::Deg90),
                ..ExtensionValues::default()
            };
            self.write(self.camera, |pt| {
                RtpWrite::new(pt, (sequence * 3 + n).into(), timestamp, at, picture)
                    .marker(n == 2)
                    .ext_vals(orientation)
                    .nackable(true)
            });
        }
        self.sequence += 1;
        self.timestamp = self.timestamp.wrapping_add(90 * FRAME);
        self.frames += 1;
        self.rtc.handle_input(Input::Timeout(at)).unwrap();
    }

    fn write(&mut self, mid: Mid, packet: impl FnOnce(Pt) -> RtpWrite) {
        let wanted = if mid == self.voice { str0m::format::Codec::Opus } else { str0m::format::Codec::Vp8 };
        let pt = self.rtc.codec_config().find(|params| params.spec().codec == wanted).unwrap().pt();
        self.rtc.direct_api().stream_tx_by_mid(mid, None).unwrap().write_rtp(packet(pt));
    }
}

// ---- rules -----------------------------------------------------------------------------------------------------------

#[test]
fn voice_and_picture_arrive_whole_with_every_profile() {
    for profile in PROFILES {
        let mut world = World::new(profile);
        world.film(100);
        assert_eq!(world.taken.len(), 400, "{profile:?}");
        let voice: Vec<_> = world.receiver.received.iter().filter(|packet| &packet.payload[..] == b"voice").collect();
        assert_eq!(voice.len(), 100, "{profile:?}");
        assert!(voice.windows(2).all(|pair| *pair[1].seq_no == *pair[0].seq_no + 1));
        let values = &voice[5].header.ext_vals;
        assert_eq!((values.audio_level, values.voice_activity), (Some(-30), Some(true)));
        let pictures = world.pictures();
        assert_eq!(pictures.len(), 300, "{profile:?}");
        assert!(pictures.windows(2).all(|pair| *pair[1].seq_no == *pair[0].seq_no + 1));
        assert_eq!(pictures[1].payload[4..], [7; 1_000]);
        assert_eq!(pictures[2].header.ext_vals.video_orientation, Some(VideoOrientation::Deg90));
        assert!(pictures[2].header.marker && !pictures[1].header.marker);
        let steps = pictures.windows(4).step_by(3);
        assert!(
            steps.into_iter().all(|frames| frames[3].time.numer() - frames[0].time.numer() == u64::from(90 * FRAME))
        );
    }
}

#[test]
fn reports_go_both_ways_and_feedback_to_the_sender() {
    let mut world = World::new(SrtpProfile::AEAD_AES_256_GCM);
    world.film(200);
    let of_sender = &world.sender.reports;
    let blocks: Vec<_> = of_sender
        .iter()
        .filter_map(|report| match report {
            Rtcp::ReceiverReport(report) => Some(report.reports.iter().copied()),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(blocks.len() >= 6, "{blocks:?}");
    assert!(blocks.iter().all(|block| block.packets_lost == 0 && block.fraction_lost == 0));
    assert!(blocks.iter().any(|block| block.last_sr_time != 0), "round trips can be told");
    let feedback = of_sender.iter().filter(|report| matches!(report, Rtcp::Twcc(_))).count();
    assert!((30..=45).contains(&feedback), "{feedback} in four seconds");
    let infos: Vec<_> = world
        .receiver
        .reports
        .iter()
        .filter_map(|report| match report {
            Rtcp::SenderReport(report) => Some(report.sender_info),
            _ => None,
        })
        .collect();
    assert!(infos.len() >= 6, "{infos:?}");
    let names = world.receiver.reports.iter().filter(|report| matches!(report, Rtcp::SourceDescription(_))).count();
    assert_eq!(names, infos.len());
    // A second of the report's clock is a second of the stream's.
    let pictures: Vec<_> = infos.iter().filter(|info| info.sender_packet_count > 200).collect();
    for pair in pictures.windows(2).filter(|pair| pair[0].ssrc == pair[1].ssrc) {
        let seconds = pair[1].ntp_time.duration_since(pair[0].ntp_time).unwrap().as_secs_f64();
        #[expect(clippy::cast_precision_loss)]
        let ticks = (pair[1].rtp_time.numer() - pair[0].rtp_time.numer()) as f64;
        assert!((ticks - seconds * 90_000.0).abs() < 900.0, "{ticks} in {seconds}");
    }
}

#[test]
fn what_is_lost_on_the_way_in_is_asked_for_and_comes_again() {
    for profile in PROFILES {
        let mut world = World::new(profile);
        world.film(5);
        let mut count = 0;
        world.lose = Box::new(move |from_server, datagram| {
            // Pictures only: voices are not repaired. A repair may be lost, too.
            let picture = !from_server && Kind::of(datagram) == Kind::Rtp && datagram.len() > 300;
            count += usize::from(picture);
            picture && count % 7 == 0
        });
        world.film(200);
        world.lose = Box::new(|_, _| false);
        world.film(10);
        let numbers = world.numbers();
        let (first, last) = (numbers.first().unwrap(), numbers.last().unwrap());
        assert_eq!(last - first + 1, 215 * 3, "{profile:?}");
        assert_eq!(numbers.len(), 215 * 3, "{profile:?}: holes");
        assert_eq!(world.pictures().len(), 215 * 3, "nothing came twice");
        assert!(world.sender.reports.iter().any(|report| matches!(report, Rtcp::Nack(_))));
    }
}

#[test]
fn what_is_lost_on_the_way_out_is_sent_again() {
    for profile in PROFILES {
        let mut world = World::new(profile);
        world.film(5);
        let mut count = 0;
        world.lose = Box::new(move |from_server, datagram| {
            let picture = from_server && Kind::of(datagram) == Kind::Rtp && datagram.len() > 300;
            count += usize::from(picture);
            picture && count % 7 == 0
        });
        world.film(200);
        world.lose = Box::new(|_, _| false);
        world.film(30);
        let numbers = world.numbers();
        assert_eq!(numbers.last().unwrap() - numbers.first().unwrap() + 1, 235 * 3);
        assert_eq!(numbers.len(), 235 * 3, "{profile:?}: holes");
    }
}

#[test]
fn keyframes_are_asked_for_both_ways() {
    let mut world = World::new(SrtpProfile::AEAD_AES_256_GCM);
    world.film(20);
    for kind in [KeyframeRequestKind::Pli, KeyframeRequestKind::Fir] {
        world.asked.clear();
        let mid = world.receiver.peer.slot_mid(1).unwrap();
        let mut api = world.receiver.rtc.direct_api();
        api.stream_rx_by_mid((&*mid).into(), None).unwrap().request_keyframe(kind);
        world.film(3);
        assert_eq!(world.asked, [1], "{kind:?}");
    }
    assert_eq!(world.sender.keyframes_asked, 0);
    world.sender.peer.request_keyframe(Source::Camera);
    world.turn();
    assert_eq!(world.sender.keyframes_asked, 1);
    assert!(world.sender.reports.iter().any(|report| matches!(report, Rtcp::Pli(_))));
}

#[test]
fn a_stream_that_changes_its_ssrc_goes_on_for_the_receiver() {
    let mut world = World::new(SrtpProfile::AEAD_AES_256_GCM);
    world.film(20);
    let before = world.taken.last().unwrap().1.ssrc;
    let camera = world.sender.camera;
    world.sender.rtc.direct_api().reset_stream_tx(camera, None, 77.into(), Some(78.into())).unwrap();
    world.sender.sequence = 7;
    // The first frame of the new stream is a keyframe.
    world.sender.keyframes_asked = 1;
    world.film(20);
    assert_ne!(world.taken.last().unwrap().1.ssrc, before);
    let numbers = world.numbers();
    assert_eq!(numbers.len(), 40 * 3);
    assert_eq!(numbers.last().unwrap() - numbers.first().unwrap() + 1, 40 * 3);
}

#[test]
fn numbers_and_timestamps_go_over_their_ends() {
    for profile in PROFILES {
        // Three packets a frame: the sequence wraps after some frames, and again; the timestamp once.
        let mut world = World::starting(profile, 21_800, u32::MAX - 90_000);
        world.film(300);
        let taken: Vec<_> = world.taken.iter().filter(|(source, _)| *source == Source::Camera).collect();
        assert_eq!(taken.len(), 900);
        assert!(taken.windows(2).all(|pair| pair[1].1.sequence == pair[0].1.sequence + 1));
        assert!(taken.windows(2).all(|pair| pair[1].1.timestamp >= pair[0].1.timestamp));
        assert_eq!(world.numbers().len(), 900, "{profile:?}");
    }
}

#[test]
fn our_own_numbers_go_over_their_end() {
    let mut world = World::new(SrtpProfile::AES128_CM_SHA1_80);
    // From 1,000 on, three a frame: the receiver's stream wraps after 21,500 frames; losses around it are repaired.
    let lines = 21_600;
    world.sender.rtc.handle_input(Input::Timeout(world.clock.instant(world.now))).unwrap();
    for n in 0..lines {
        let at = world.clock.instant(world.now);
        world.sender.film(at);
        world.turn();
        if n == 21_480 {
            let mut count = 0;
            world.lose = Box::new(move |from_server, datagram| {
                let picture = from_server && Kind::of(datagram) == Kind::Rtp && datagram.len() > 300;
                count += usize::from(picture);
                picture && count % 5 == 0
            });
        }
    }
    world.lose = Box::new(|_, _| false);
    world.film(30);
    let numbers = world.numbers();
    assert_eq!(numbers.len(), usize::try_from(numbers.last().unwrap() - numbers.first().unwrap()).unwrap() + 1);
    assert!(*numbers.last().unwrap() > 65_536);
}

#[test]
fn a_session_that_ends_says_goodbye() {
    let mut world = World::new(SrtpProfile::AEAD_AES_256_GCM);
    world.film(10);
    world.receiver.peer.close(world.now, &mut world.socket);
    world.receiver.peer.drain(world.now, &mut world.socket, &mut VecDeque::new());
    world.turn();
    let goodbyes: Vec<_> = world
        .receiver
        .reports
        .iter()
        .filter_map(|report| match report {
            Rtcp::Goodbye(goodbye) => Some(goodbye.reports.len()),
            _ => None,
        })
        .collect();
    assert_eq!(goodbyes, [2], "voice and picture");
    assert!(world.receiver.closed);
}

#[test]
fn replayed_and_changed_datagrams_are_not_taken() {
    let mut world = World::new(SrtpProfile::AEAD_AES_256_GCM);
    let at = world.clock.instant(world.now);
    world.sender.film(at);
    world.sender.drain(at);
    let mut datagrams = std::mem::take(&mut world.sender.outgoing);
    datagrams.retain(|datagram| Kind::of(datagram) == Kind::Rtp);
    assert_eq!(datagrams.len(), 4);
    for datagram in &datagrams {
        for at in 0..datagram.len().min(60) {
            let mut changed = datagram.clone();
            changed[at] ^= 0x10;
            world.deliver(true, &mut changed);
        }
        for cut in 0..datagram.len().min(60) {
            world.deliver(true, &mut datagram.clone()[..cut]);
        }
    }
    assert!(world.taken.is_empty());
    for datagram in &datagrams {
        world.deliver(true, &mut datagram.clone());
        world.deliver(true, &mut datagram.clone());
    }
    assert_eq!(world.taken.len(), 4);
}

#[test]
fn an_idle_session_wants_nothing_of_its_own() {
    let mut world = World::new(SrtpProfile::AEAD_AES_256_GCM);
    world.film(20);
    for _ in 0..1_000 {
        world.turn();
    }
    // Five seconds after the last packet only the checks of ICE are left.
    let due = world.sender.peer.due().since(world.now);
    assert!(due >= Duration::from_millis(500), "{due:?}");
}
