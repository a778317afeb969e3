//! The worker against real WebRTC clients over loopback: SDP, ICE, DTLS, SRTP and RTCP as they come.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use super::*;
use crate::rtp::{TapReader, Tapped, tap};

/// First packet of a VP8 keyframe of 16 × 16 with a 15-bit picture id, and a packet of an inter-frame.
const KEYFRAME: [u8; 14] = [0x90, 0x80, 0x80, 0x07, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00];
const INTERFRAME: [u8; 8] = [0x90, 0x80, 0x80, 0x08, 0x11, 0x02, 0x00, 0x00];

/// A WebRTC client that sends voice and camera and has slots for two others.
struct Client {
    rtc: Box<Rtc>,
    socket: UdpSocket,
    address: SocketAddr,
    sends: Vec<Mid>,
    pending: Option<str0m::change::SdpPendingOffer>,
    connected: bool,
    closed: bool,
    sequence: u64,
    received: Vec<(String, u16, Vec<u8>)>,
    keyframes_asked: usize,
}

impl Client {
    fn new() -> (Self, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let mut rtc = RtcConfig::new()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .build(Instant::now());
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let mut api = rtc.sdp_api();
        let mut add = |kind, direction| api.add_media(kind, direction, None, None, None);
        let sends = vec![add(MediaKind::Audio, Direction::SendOnly), add(MediaKind::Video, Direction::SendOnly)];
        for kind in [MediaKind::Audio, MediaKind::Video, MediaKind::Audio, MediaKind::Video] {
            add(kind, Direction::RecvOnly);
        }
        let (offer, pending) = api.apply().unwrap();
        let client = Self {
            rtc: Box::new(rtc),
            socket,
            address,
            sends,
            pending: Some(pending),
            connected: false,
            closed: false,
            sequence: 100,
            received: Vec::new(),
            keyframes_asked: 0,
        };
        (client, offer.to_sdp_string())
    }

    fn accept(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
    }

    /// Sends one voice packet and one packet of a frame.
    fn send(&mut self, keyframe: bool) {
        self.sequence += 1;
        let ticks = u32::try_from(self.sequence).unwrap();
        let video = if keyframe { &KEYFRAME[..] } else { &INTERFRAME[..] };
        for (mid, payload, rate, marker) in
            [(self.sends[0], &b"voice"[..], 960, false), (self.sends[1], video, 3_000, true)]
        {
            let wanted = if rate == 960 { str0m::format::Codec::Opus } else { str0m::format::Codec::Vp8 };
            let pt = self.rtc.codec_config().find(|params| params.spec().codec == wanted).unwrap().pt();
            let write = RtpWrite::new(pt, self.sequence.into(), ticks * rate, Instant::now(), payload).marker(marker);
            self.rtc.direct_api().stream_tx_by_mid(mid, None).unwrap().write_rtp(write);
        }
        self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        self.run();
    }

    fn ask_for_keyframes(&mut self, mid: &str) {
        self.rtc.direct_api().stream_rx_by_mid(mid.into(), None).unwrap().request_keyframe(KeyframeRequestKind::Pli);
        self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        self.run();
    }

    /// Takes in what waits and sends what is due.
    fn run(&mut self) {
        let mut bytes = [0; 2_000];
        loop {
            while self.rtc.is_alive() {
                match self.rtc.poll_output().unwrap() {
                    Output::Timeout(at) if at <= Instant::now() => {
                        self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
                    }
                    Output::Timeout(_) => break,
                    Output::Transmit(out) => {
                        let _ = self.socket.send_to(&out.contents, out.destination);
                    }
                    Output::Event(Event::Connected) => self.connected = true,
                    Output::Event(Event::Closed) => self.closed = true,
                    Output::Event(Event::KeyframeRequest(_)) => self.keyframes_asked += 1,
                    Output::Event(Event::RtpPacket(packet)) => {
                        let mid = self.rtc.direct_api().stream_rx(&packet.header.ssrc).unwrap().mid();
                        self.received.push((mid.to_string(), packet.header.sequence_number, packet.payload.to_vec()));
                    }
                    Output::Event(_) => {}
                }
            }
            let Ok((length, source)) = self.socket.recv_from(&mut bytes) else { return };
            let Ok(contents) = bytes[..length].try_into() else { continue };
            let receive = Receive { proto: Protocol::Udp, source, destination: self.address, contents };
            self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
        }
    }

    fn video(&self) -> Vec<&(String, u16, Vec<u8>)> {
        self.received.iter().filter(|(.., payload)| payload != b"voice").collect()
    }
}

/// A server with one room, its recorder played by the test.
struct Server {
    sfu: Sfu,
    clock: Clock,
    room: RoomId,
    tap: TapReader,
    facts: mpsc::Receiver<Fact>,
    seen: Vec<Fact>,
    tapped: HashMap<(ConnectionId, Source), usize>,
    ended: Vec<ConnectionId>,
}

impl Server {
    async fn start() -> Self {
        let clock = Clock::new();
        let ip = IpAddr::from([127, 0, 0, 1]);
        let longest_silence = Duration::from_secs(2);
        let config =
            SfuConfig { workers: 1, bind: ip, pinned: false, first_port: 0, announce: vec![ip], longest_silence };
        let sfu = Sfu::start(&config, clock).unwrap();
        let room = RoomId::new(Timestamp::now());
        let (tap, reader) = tap();
        let (sender, facts) = mpsc::channel(64);
        sfu.open_room(room, tap, sender).await.unwrap();
        Self { sfu, clock, room, tap: reader, facts, seen: Vec::new(), tapped: HashMap::new(), ended: Vec::new() }
    }

    async fn join(&self, participant: ParticipantId) -> (Client, ConnectionId) {
        let (mut client, offer) = Client::new();
        let connection = ConnectionId::new(Timestamp::now());
        let answer = self.sfu.connect(self.room, Join { connection, participant, offer }).await.unwrap();
        client.accept(&answer);
        (client, connection)
    }

    /// Keeps the recorder's part: takes everything, and acknowledges if told to.
    fn record(&mut self, acknowledge: bool) {
        let now = self.clock.mono();
        while let Ok(Some(item)) = self.tap.take() {
            match item {
                Tapped::Packet { connection, source, .. } => *self.tapped.entry((connection, source)).or_default() += 1,
                Tapped::Report { .. } => {}
                Tapped::End { connection, .. } => self.ended.push(connection),
            }
        }
        if acknowledge {
            self.tap.acknowledge(now);
        }
        while let Ok(fact) = self.facts.try_recv() {
            self.seen.push(fact);
        }
    }

    async fn recording_started(&self, connection: ConnectionId) {
        for source in [Source::Microphone, Source::Camera] {
            self.sfu.recording_started(self.room, connection, source).await;
        }
    }

    fn slots_of(&self, connection: ConnectionId) -> Vec<Slot> {
        let slots = |fact: &Fact| match fact {
            Fact::Slots { connection: of, slots } if *of == connection => Some(slots.clone()),
            _ => None,
        };
        self.seen.iter().rev().find_map(slots).unwrap_or_default()
    }
}

fn participant() -> ParticipantId {
    ParticipantId::new(Timestamp::now())
}

/// Turns the world until `done`; fails after ten seconds.
async fn until(
    server: &mut Server,
    clients: &mut [&mut Client],
    what: &str,
    mut done: impl FnMut(&mut Server, &mut [&mut Client]) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        for client in &mut *clients {
            client.run();
        }
        server.record(true);
        if done(server, clients) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within ten seconds: {what}");
}

async fn two_connected() -> (Server, Client, ConnectionId, Client, ConnectionId) {
    let mut server = Server::start().await;
    let (mut a, a_id) = server.join(participant()).await;
    let (mut b, b_id) = server.join(participant()).await;
    until(&mut server, &mut [&mut a, &mut b], "both connect", |_, clients| clients.iter().all(|c| c.connected)).await;
    (server, a, a_id, b, b_id)
}

/// Lets the room's media flow, and waits until one sees the other.
async fn flowing(server: &mut Server, sender: &mut Client, sender_id: ConnectionId, receiver: &mut Client) {
    server.sfu.set_flow(server.room, true).await;
    server.recording_started(sender_id).await;
    until(server, &mut [sender, receiver], "media flows", |_, clients| {
        clients[0].send(true);
        clients[1].video().len() > 3
    })
    .await;
}

#[tokio::test]
async fn media_flows_only_when_the_room_may_flow_and_the_senders_recording_has_begun() {
    let (mut server, mut a, a_id, mut b, b_id) = two_connected().await;
    // Recorded from the first packet on, forwarded to nobody.
    for _ in 0..5 {
        a.send(true);
    }
    until(&mut server, &mut [&mut a, &mut b], "the packets are tapped", |server, _| {
        server.tapped.get(&(a_id, Source::Camera)) == Some(&5)
            && server.tapped.get(&(a_id, Source::Microphone)) == Some(&5)
    })
    .await;
    assert!(b.received.is_empty());
    server.sfu.set_flow(server.room, true).await;
    a.send(true);
    until(&mut server, &mut [&mut a, &mut b], "the next is tapped", |server, _| {
        server.tapped[&(a_id, Source::Camera)] == 6
    })
    .await;
    assert!(b.received.is_empty(), "its own recording has not begun");

    server.recording_started(a_id).await;
    // An inter-frame does not start a slot; the server asks for a keyframe.
    until(&mut server, &mut [&mut a, &mut b], "a keyframe is asked for", |_, clients| {
        clients[0].send(false);
        clients[0].keyframes_asked > 0
    })
    .await;
    assert!(b.video().is_empty(), "video starts at a keyframe");
    a.send(true);
    until(&mut server, &mut [&mut a, &mut b], "voice and picture arrive", |_, clients| {
        clients[0].send(false);
        clients[1].video().len() > 3
    })
    .await;
    assert_eq!(b.video()[0].2[6..], KEYFRAME[6..], "the frame itself is untouched");
    assert!(b.received.iter().any(|(.., payload)| payload == b"voice"));
    let sequences: Vec<u16> = b.video().iter().map(|(_, sequence, _)| *sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
    // And the receiver is told what its slots carry.
    let slots = server.slots_of(b_id);
    assert_eq!(slots.len(), 2);
    assert!(slots.iter().any(|slot| slot.source == Source::Camera && slot.mid == b.video()[0].0));
    assert!(a.received.is_empty(), "nobody hears themselves");
}

#[tokio::test]
async fn a_session_in_which_nobody_sends_stays_open() {
    let (mut server, mut a, a_id, mut b, _) = two_connected().await;
    // Longer than `str0m` keeps a way without checks.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(17) {
        server.record(true);
        a.run();
        b.run();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!a.closed && !b.closed);
    assert!(!server.seen.iter().any(|fact| matches!(fact, Fact::Disconnected { .. })), "{:?}", server.seen);
    flowing(&mut server, &mut a, a_id, &mut b).await;
}

#[tokio::test]
async fn media_stops_by_itself_when_the_recorder_falls_silent() {
    let (mut server, mut a, a_id, mut b, _) = two_connected().await;
    flowing(&mut server, &mut a, a_id, &mut b).await;
    // The recorder still takes everything and acknowledges nothing.
    let silent = Instant::now();
    while silent.elapsed() < Duration::from_millis(2_300) {
        server.record(false);
        a.send(true);
        b.run();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    b.received.clear();
    for _ in 0..20 {
        server.record(false);
        a.send(true);
        tokio::time::sleep(Duration::from_millis(10)).await;
        b.run();
    }
    assert!(b.received.is_empty(), "{} packets flowed without a recording", b.received.len());
    until(&mut server, &mut [&mut a, &mut b], "media flows again", |_, clients| {
        clients[0].send(true);
        !clients[1].video().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_source_that_falls_silent_and_one_that_leaves_are_told_with_the_time_of_their_last_packet() {
    let (mut server, mut a, a_id, mut b, b_id) = two_connected().await;
    server.sfu.set_flow(server.room, true).await;
    server.recording_started(a_id).await;
    until(&mut server, &mut [&mut a, &mut b], "media flows", |server, clients| {
        clients[0].send(true);
        server.slots_of(b_id).len() == 2
    })
    .await;
    // What is still on its way arrives.
    let sent = Instant::now();
    until(&mut server, &mut [&mut a, &mut b], "the last packets arrive", |_, _| {
        sent.elapsed() > Duration::from_millis(500)
    })
    .await;
    let last = server.clock.mono();
    let stopped = |server: &Server, wanted: Source| {
        server.seen.iter().find_map(|fact| match fact {
            Fact::SourceChanged { connection, source, active: false, since }
                if *connection == a_id && *source == wanted =>
            {
                Some(*since)
            }
            _ => None,
        })
    };
    until(&mut server, &mut [&mut a, &mut b], "both sources are silent", |server, _| {
        stopped(server, Source::Microphone).is_some() && stopped(server, Source::Camera).is_some()
    })
    .await;
    assert!(stopped(&server, Source::Camera).unwrap() <= last);

    server.sfu.disconnect(server.room, a_id).await;
    until(&mut server, &mut [&mut a, &mut b], "the connection ends", |server, clients| {
        server.ended.contains(&a_id)
            && server
                .seen
                .iter()
                .any(|fact| matches!(fact, Fact::Disconnected { connection, .. } if *connection == a_id))
            && clients[0].closed
    })
    .await;
    assert!(server.slots_of(b_id).is_empty(), "its slots are free");
}

#[tokio::test]
async fn a_second_connection_of_a_person_replaces_the_first() {
    let mut server = Server::start().await;
    let person = participant();
    let (mut first, first_id) = server.join(person).await;
    until(&mut server, &mut [&mut first], "the first connects", |_, clients| clients[0].connected).await;
    let (mut second, _) = server.join(person).await;
    until(&mut server, &mut [&mut first, &mut second], "the second connects, the first ends", |server, clients| {
        clients[1].connected
            && server
                .seen
                .iter()
                .any(|fact| matches!(fact, Fact::Disconnected { connection, .. } if *connection == first_id))
    })
    .await;
}

#[tokio::test]
async fn keyframe_requests_reach_the_sender_at_most_twice_a_second() {
    let (mut server, mut a, a_id, mut b, b_id) = two_connected().await;
    flowing(&mut server, &mut a, a_id, &mut b).await;
    let mid = server.slots_of(b_id).into_iter().find(|slot| slot.source == Source::Camera).unwrap().mid;
    a.keyframes_asked = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        b.ask_for_keyframes(&mid);
        a.send(false);
        server.record(true);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((2..=5).contains(&a.keyframes_asked), "{} requests in two seconds", a.keyframes_asked);
}

#[tokio::test]
async fn strangers_and_garbage_get_silence_and_harm_nobody() {
    let (mut server, mut a, a_id, mut b, _) = two_connected().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], server.sfu.ports()[0]));
    let mut seed = 0x9e37_79b9_u32;
    for length in 0..400 {
        let garbage: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        stranger.send_to(&garbage, to).unwrap();
    }
    // A binding request with a name that nobody has (RFC 8489).
    let mut request = vec![0x00, 0x01, 0x00, 0x10, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    request.extend([0x00, 0x06, 0x00, 0x09]);
    request.extend(b"aaaa:bbbb\0\0\0");
    stranger.send_to(&request, to).unwrap();
    server.sfu.set_flow(server.room, true).await;
    server.recording_started(a_id).await;
    until(&mut server, &mut [&mut a, &mut b], "media still flows", |_, clients| {
        clients[0].send(true);
        clients[1].video().len() > 3
    })
    .await;
    assert!(stranger.recv_from(&mut [0; 100]).is_err(), "no answer to strangers");
}

#[tokio::test]
async fn whoever_asks_where_they_are_seen_from_is_told() {
    let (server, ..) = two_connected().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let question = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    stranger.send_to(&question, server.sfu.reflectors()[0]).unwrap();
    let mut answer = [0; 100];
    let (length, _) = stranger.recv_from(&mut answer).unwrap();
    let [high, low] = (stranger.local_addr().unwrap().port() ^ 0x2112).to_be_bytes();
    assert_eq!((length, &answer[..2], &answer[26..28]), (32, &[1, 1][..], &[high, low][..]));
}

#[tokio::test]
async fn an_offer_that_cannot_be_answered_is_refused_with_a_reason() {
    let server = Server::start().await;
    let join = |offer: &str| Join {
        connection: ConnectionId::new(Timestamp::now()),
        participant: participant(),
        offer: offer.into(),
    };
    let h264 = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n\
                a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=setup:actpass\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\n\
                a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
                a=rtpmap:96 H264/90000\r\n";
    for offer in ["", "hello", "v=0\r\n", "v=0\r\nm=audio", h264] {
        let result = server.sfu.connect(server.room, join(offer)).await;
        assert!(
            matches!(result, Err(ConnectError::BadOffer(_) | ConnectError::NothingToAnswer)),
            "{offer:?}: {result:?}"
        );
    }
    let (_, good) = Client::new();
    let elsewhere = RoomId::new(Timestamp::now());
    assert_eq!(server.sfu.connect(elsewhere, join(&good)).await, Err(ConnectError::Unknown));
    // Every prefix of a good offer is answered or refused, and never breaks anything.
    for cut in (0..good.len()).step_by(97) {
        let _ = server.sfu.connect(server.room, join(&good[..cut])).await;
    }
}

#[tokio::test]
async fn a_restart_of_ice_keeps_the_session_and_changes_the_credentials() {
    let (mut server, mut a, a_id, mut b, _) = two_connected().await;
    assert_eq!(
        server.sfu.restart_ice(server.room, a_id, "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n".into()).await,
        Ok(None)
    );
    let fragment = "a=ice-ufrag:wxyz1234\r\na=ice-pwd:bbbbbbbbbbbbbbbbbbbbbbbb\r\n";
    let answer = server.sfu.restart_ice(server.room, a_id, fragment.into()).await.unwrap().unwrap();
    assert!(
        answer.contains("a=ice-ufrag:") && answer.contains("a=ice-pwd:") && answer.contains("a=candidate:"),
        "{answer}"
    );
    assert!(!answer.contains("wxyz1234"), "its own credentials, not the client's");
    until(&mut server, &mut [&mut a, &mut b], "the world turns", |_, _| true).await;
}
