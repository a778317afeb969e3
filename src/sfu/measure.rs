//! The way of a packet for benches to measure: one sender, its receivers, and everything between two datagrams, without
//! a network and without `str0m`.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use str0m::config::KeyingMaterial;
use tokio::sync::mpsc;

use super::Fact;
use super::demux::PeerKey;
use super::ingress::Payloads;
use super::keys::Keys;
use super::media::Media;
use super::negotiated::Negotiated;
use super::peer::PeerEvent;
use super::room::{Member, Room};
use super::socket::{Route, Socket};
use crate::clock::MonoTime;
use crate::id::{ConnectionId, ParticipantId};
use crate::media::Source;
use crate::rtp::header::{ExtensionIds, LONGEST, Outgoing};
use crate::rtp::sequence::Window;
use crate::rtp::srtp::{Profile, Sealer, contexts};
use crate::rtp::{Extensions, Ssrc, TapReader, tap};

/// What both sides agreed on: a camera of theirs, and a slot of ours for one.
const OFFER: &str = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:0\r\na=ssrc-group:FID 11 12\r\na=ssrc:11 cname:c\r\n\
    a=ssrc:12 cname:c\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\n";
const ANSWER: &str = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:0\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n\
    a=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
    a=fmtp:97 apt=96\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=ssrc-group:FID 21 22\r\na=ssrc:21 cname:s\r\n\
    a=ssrc:22 cname:s\r\n";

/// A packet of a frame of VP8 with a picture id; the first byte after the descriptor makes it a keyframe's first.
const PAYLOAD: [u8; 14] = [0x90, 0x80, 0x80, 0x07, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00];

/// Packets that are in one turn of the loop.
const TURN: usize = 16;

/// Time between two packets.
const STEP: Duration = Duration::from_millis(10);

/// One camera and those who watch it.
pub struct Forwarding {
    now: MonoTime,
    room: Room,
    tap: TapReader,
    sender: (ConnectionId, Media),
    receivers: Vec<(PeerKey, Media)>,
    socket: Socket,
    payloads: Payloads,
    client: Sealer,
    sealed: Window,
    next: u64,
    in_turn: usize,
    _facts: mpsc::Receiver<Fact>,
}

impl std::fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarding").finish_non_exhaustive()
    }
}

impl Forwarding {
    /// A camera that is recorded and goes to so many receivers. `None`: no socket to be had.
    pub fn new(profile: Profile, receivers: u16) -> Option<Self> {
        let material: Vec<u8> = (0..match profile {
            Profile::Aes128CmSha1 => 60,
            Profile::Aes128Gcm => 56,
            Profile::Aes256Gcm => 88,
        })
            .collect();
        let (_, client) = contexts(profile, &material, true).ok()?;
        let keys = Keys { profile, material: KeyingMaterial::new(&material), we_are_client: false };
        let (tap, reader) = tap();
        let (facts, kept) = mpsc::channel(64);
        let now = MonoTime::from_millis(1_000);
        let mut room = Room::new(tap, facts, Duration::from_secs(2));
        room.set_flow(true);
        // Nothing flows before the recorder's first word.
        reader.acknowledge(now);
        let mut join = |number: u16| {
            let at = Timestamp::UNIX_EPOCH;
            let connection = ConnectionId::new(at);
            let key = PeerKey(u64::from(number));
            let mut media = Media::new(Negotiated::read(OFFER, ANSWER), Ssrc(1), Duration::ZERO);
            let mut events = std::collections::VecDeque::new();
            media.start(&keys, &mut events);
            media.path().suppose(now, Route { remote: SocketAddr::from(([127, 0, 0, 1], 9)), local: None });
            room.join(key, Member::new(connection, ParticipantId::new(at), now));
            for event in events {
                if let PeerEvent::SlotAdded(audio) = event {
                    room.add_slot(connection, audio);
                }
            }
            (key, connection, media)
        };
        let (_, connection, media) = join(0);
        let receivers = (1..=receivers).map(&mut join).map(|(key, _, media)| (key, media)).collect();
        room.member_mut(connection)?.recorded.push(Source::Camera);
        Some(Self {
            now,
            room,
            tap: reader,
            sender: (connection, media),
            receivers,
            socket: Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).ok()?,
            payloads: Payloads::default(),
            client,
            sealed: Window::default(),
            next: 1,
            in_turn: 0,
            _facts: kept,
        })
    }

    /// The camera's next datagram, with a payload of `length` bytes.
    pub fn datagram(&mut self, length: usize) -> Vec<u8> {
        let mut header = [0; LONGEST];
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower bits")]
        let (sequence, timestamp) = (self.next as u16, self.next as u32 * 900);
        let ids = ExtensionIds { mid: 4, ..ExtensionIds::default() };
        let extensions = Extensions::default();
        let (marker, payload_type, ssrc) = (true, 96, Ssrc(11));
        let header_length =
            Outgoing { marker, payload_type, sequence, timestamp, ssrc, ids, mid: b"0", extensions }.write(&mut header);
        let mut datagram: Vec<u8> = header.iter().take(header_length).copied().collect();
        datagram.extend_from_slice(&PAYLOAD);
        datagram.resize(header_length + length.max(PAYLOAD.len()) + self.client.overhead(), 7);
        if self.client.seal(&mut self.sealed, ssrc, self.next, &mut datagram, header_length).is_err() {
            datagram.clear();
        }
        self.next += 1;
        datagram
    }

    /// Takes a datagram in, records it and puts it into the send batch for every receiver. Returns for how many.
    pub fn forward(&mut self, datagram: &mut [u8]) -> usize {
        let Self { now, room, sender: (connection, sender), receivers, socket, payloads, .. } = self;
        *now = *now + STEP;
        let mut sent = 0;
        if let Some((source, packet)) = sender.receive(*now, datagram, payloads) {
            room.take_packet(*now, *connection, source, &packet, |receiver, slot, packet, rewrite| {
                let media = receivers.iter_mut().find(|(key, _)| *key == receiver);
                sent += usize::from(media.is_some_and(|(_, media)| media.send(*now, slot, packet, rewrite, socket)));
            });
        }
        self.in_turn += 1;
        if self.in_turn == TURN {
            self.end_turn();
        }
        sent
    }

    /// Drops the batch instead of sending it, and plays the recorder.
    fn end_turn(&mut self) {
        self.in_turn = 0;
        self.socket.discard();
        while let Ok(Some(_)) = self.tap.take() {}
        self.tap.acknowledge(self.now);
    }
}
