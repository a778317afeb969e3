//! What goes out to one client: each packet gets the slot's numbers and extensions, is sealed straight into the send
//! batch, and is kept for a while in case it is asked for again.

use bytes::Bytes;

use super::forward::Rewrite;
use super::negotiated::Negotiated;
use super::socket::{Lane, Route, Socket};
use crate::clock::MonoTime;
use crate::rtp::header::{ExtensionIds, LONGEST, Outgoing, PADDED};
use crate::rtp::nack::{Copies, Ring};
use crate::rtp::report::Transmission;
use crate::rtp::rtcp::Compound;
use crate::rtp::sequence::Window;
use crate::rtp::srtp::Sealer;
use crate::rtp::{Codec, Extensions, Packet, Ssrc};

/// Packets of a picture are padded to a multiple of so many bytes. A sender cuts a frame into equal pieces, but for a byte, and
/// the kernel takes them in one send only if none is longer than the one before. More costs bandwidth, fewer makes more sends.
const PADDED_TO: usize = 16;

/// Shorter payloads are not padded: they are all of their frame, or voices.
const SHORTEST_PADDED: usize = 500;

/// An m-line that the client receives on.
#[derive(Debug)]
struct SlotLine {
    mid: String,
    codec: Codec,
    ids: ExtensionIds,
    payload_type: u8,
    ssrc: Ssrc,
    canonical_name: String,
    sealed: Window,
    transmission: Transmission,
    repairs: Option<Repairs>,
    /// A voice's last packets, if the client asks for what it misses.
    copies: Option<Copies>,
}

/// The stream of repairs beside a slot's own (RFC 4588 §4).
#[derive(Debug)]
struct Repairs {
    payload_type: u8,
    ssrc: Ssrc,
    next: u64,
    sealed: Window,
    sent: Ring<Sent>,
}

/// What is needed to send a packet again.
#[derive(Debug)]
struct Sent {
    marker: bool,
    extensions: Extensions,
    rewrite: Rewrite,
    payload: Bytes,
}

/// How to reach the client.
pub(super) struct Way<'a> {
    pub(super) sealer: &'a Sealer,
    pub(super) route: Route,
    pub(super) lane: &'a mut Lane,
    pub(super) socket: &'a mut Socket,
}

/// Everything that one client receives.
#[derive(Debug, Default)]
pub(super) struct Egress {
    slots: Vec<SlotLine>,
}

impl Egress {
    pub(super) fn new(negotiated: &Negotiated) -> Self {
        let slot = |line: &super::negotiated::Line| {
            let (ssrc, repairs_ssrc) = line.ours.filter(|_| line.sends)?;
            let repairs = line.repair_type.zip(repairs_ssrc).filter(|_| line.codec == Codec::Vp8);
            let copies = (line.resends && line.codec == Codec::Opus).then(Copies::default);
            Some(SlotLine {
                mid: line.mid.clone(),
                codec: line.codec,
                ids: line.ids,
                payload_type: line.payload_type,
                ssrc,
                canonical_name: line.canonical_name.clone(),
                sealed: Window::default(),
                transmission: Transmission::default(),
                repairs: repairs.map(|(payload_type, ssrc)| Repairs {
                    payload_type,
                    ssrc,
                    next: 1,
                    sealed: Window::default(),
                    sent: Ring::default(),
                }),
                copies,
            })
        };
        Self { slots: negotiated.lines.iter().filter_map(slot).collect() }
    }

    /// Whether each slot is for audio, in order.
    pub(super) fn slots(&self) -> impl Iterator<Item = bool> {
        self.slots.iter().map(|slot| slot.codec == Codec::Opus)
    }

    /// The slot's m-line.
    pub(super) fn mid(&self, slot: usize) -> Option<&str> {
        self.slots.get(slot).map(|slot| &*slot.mid)
    }

    /// The slot of one of our streams.
    pub(super) fn slot_of(&self, ssrc: Ssrc) -> Option<usize> {
        self.slots.iter().position(|slot| slot.ssrc == ssrc)
    }

    /// Our first stream: what feedback is sent in the name of.
    pub(super) fn first_stream(&self) -> Option<Ssrc> {
        self.slots.first().map(|slot| slot.ssrc)
    }

    /// Writes a packet into the send batch. False: there is no such slot, or its number was sent already.
    pub(super) fn send(&mut self, slot: usize, packet: &Packet, rewrite: Rewrite, way: Way<'_>) -> bool {
        let Some(slot) = self.slots.get_mut(slot) else { return false };
        let head = Head {
            marker: packet.marker,
            extensions: packet.extensions,
            payload_type: slot.payload_type,
            ssrc: slot.ssrc,
            index: rewrite.sequence,
            original: None,
        };
        let written = write(&slot.mid, slot.ids, &head, &rewrite, &packet.payload, &mut slot.sealed, way);
        let Some(datagram) = written else { return false };
        if let Some(copies) = &mut slot.copies {
            copies.keep(rewrite.sequence, packet.arrival, datagram);
        }
        if rewrite.begins {
            slot.transmission.clear_anchor();
        }
        slot.transmission.note(rewrite.timestamp, packet.payload.len(), packet.arrival);
        if let Some(repairs) = &mut slot.repairs {
            let (marker, extensions, payload) = (packet.marker, packet.extensions, packet.payload.clone());
            repairs.sent.keep(rewrite.sequence, packet.arrival, Sent { marker, extensions, rewrite, payload });
        }
        true
    }

    /// Sends a packet again that a receiver misses: a picture's on the stream of repairs, a voice's as it was.
    pub(super) fn repair(&mut self, now: MonoTime, media: Ssrc, sequence: u16, way: Way<'_>) -> bool {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.ssrc == media) else { return false };
        if let Some(datagram) = slot.copies.as_mut().and_then(|copies| copies.repair(sequence, now)) {
            let Some(room) = way.socket.room_for(way.lane, way.route, datagram.len()) else { return false };
            room.copy_from_slice(datagram);
            return true;
        }
        let Some(repairs) = &mut slot.repairs else { return false };
        let Some((_, sent)) = repairs.sent.repair(sequence, now) else { return false };
        let head = Head {
            marker: sent.marker,
            extensions: sent.extensions,
            payload_type: repairs.payload_type,
            ssrc: repairs.ssrc,
            index: repairs.next,
            original: Some(sequence),
        };
        repairs.next += 1;
        write(&slot.mid, slot.ids, &head, &sent.rewrite, &sent.payload, &mut repairs.sealed, way).is_some()
    }

    /// What the slot carries was at `timestamp` at this time of our clock.
    pub(super) fn set_anchor(&mut self, slot: usize, timestamp: u32, at: MonoTime) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.transmission.set_anchor(timestamp, at);
        }
    }

    /// Reports what was sent since the last time, and lets go of what nobody will ask for any more. `full` is asked to
    /// send what was written after each stream. True: something is still kept.
    pub(super) fn write_reports(
        &mut self,
        now: MonoTime,
        ntp: u64,
        out: &mut Vec<u8>,
        mut full: impl FnMut(&mut Vec<u8>),
    ) -> bool {
        let mut kept = false;
        for slot in &mut self.slots {
            if let Some(info) = slot.transmission.report(slot.ssrc, slot.codec.clock_rate(), now, ntp) {
                let mut compound = Compound::new(out);
                compound.sender_report(&info);
                compound.canonical_name(slot.ssrc, slot.canonical_name.as_bytes());
                full(out);
            }
            if let Some(repairs) = &mut slot.repairs {
                repairs.sent.forget_old(now);
                kept |= !repairs.sent.is_empty();
            }
            if let Some(copies) = &mut slot.copies {
                copies.forget_old(now);
                kept |= !copies.is_empty();
            }
        }
        kept
    }

    /// Says goodbye in the name of every stream that was sent on.
    pub(super) fn write_goodbye(&self, compound: &mut Compound<'_>) {
        let used: Vec<Ssrc> =
            self.slots.iter().filter(|slot| slot.sealed.highest().is_some()).map(|slot| slot.ssrc).collect();
        for streams in used.chunks(crate::rtp::rtcp::MOST_BLOCKS) {
            compound.goodbye(streams);
        }
    }
}

/// What stands in a header besides the slot's own.
struct Head {
    marker: bool,
    extensions: Extensions,
    payload_type: u8,
    ssrc: Ssrc,
    index: u64,
    /// Of a repair: the number of the packet that it repairs.
    original: Option<u16>,
}

/// Writes and seals one packet into the send batch; gives it as it is there.
fn write<'a>(
    mid: &str,
    ids: ExtensionIds,
    head: &Head,
    rewrite: &Rewrite,
    payload: &[u8],
    sealed: &mut Window,
    way: Way<'a>,
) -> Option<&'a [u8]> {
    // What was sealed once must not be sealed again.
    if !sealed.is_new(head.index) {
        return None;
    }
    let mut header = [0; LONGEST];
    #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower 16 bits")]
    let sequence = head.index as u16;
    let header_length = Outgoing {
        marker: head.marker,
        payload_type: head.payload_type,
        sequence,
        timestamp: rewrite.timestamp,
        ssrc: head.ssrc,
        ids,
        mid: mid.as_bytes(),
        extensions: head.extensions,
    }
    .write(&mut header);
    let original = head.original.map(u16::to_be_bytes);
    let original = original.as_ref().map(|bytes| &bytes[..]).unwrap_or_default();
    let body = header_length + original.len();
    let Way { sealer, route, lane, socket } = way;
    let end = body + payload.len();
    let padding = padding(payload.len(), end + sealer.overhead());
    if padding > 0 {
        header[0] |= PADDED;
    }
    let room = socket.room_for(lane, route, end + usize::from(padding) + sealer.overhead())?;
    // Header, number, payload and padding fill the room but for the tag; `copy` does nothing where the lengths do not fit.
    copy(room.get_mut(..header_length), header.get(..header_length));
    copy(room.get_mut(header_length..body), Some(original));
    copy(room.get_mut(body..end), Some(payload));
    if let Some([zeros @ .., count]) = room.get_mut(end..end + usize::from(padding)) {
        zeros.fill(0);
        *count = padding;
    }
    if let Some(payload) = room.get_mut(body..) {
        rewrite.apply(payload);
    }
    sealer.seal(sealed, head.ssrc, head.index, room, header_length).ok()?;
    Some(room)
}

/// Bytes of padding for a packet of `length` bytes.
fn padding(payload: usize, length: usize) -> u8 {
    let padding = if payload < SHORTEST_PADDED { 0 } else { length.next_multiple_of(PADDED_TO) - length };
    u8::try_from(padding).unwrap_or_default()
}

fn copy(into: Option<&mut [u8]>, from: Option<&[u8]>) {
    if let (Some(into), Some(from)) = (into, from)
        && into.len() == from.len()
    {
        into.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::rtp::srtp::{Profile, contexts};

    const OFFER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n";

    fn answer(feedback: &str) -> String {
        format!(
            "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\na=rtpmap:111 opus/48000/2\r\n\
             {feedback}a=ssrc:21 cname:s\r\n"
        )
    }

    /// What a client is sent of two voice packets, the first of which it asks for again, and whether that was answered.
    fn asked_again(feedback: &str) -> (Vec<Vec<u8>>, bool) {
        let (_, sealer) = contexts(Profile::Aes128Gcm, &[7; 56], false).unwrap();
        let mut socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut lane = Lane::default();
        let route = Route { remote: SocketAddr::from(([127, 0, 0, 1], 9)), local: None };
        let mut egress = Egress::new(&Negotiated::read(OFFER, &answer(feedback)));
        for (sequence, payload) in [(70_000, &b"one"[..]), (70_001, b"two")] {
            let packet = Packet {
                ssrc: Ssrc(1),
                codec: Codec::Opus,
                sequence,
                timestamp: 960,
                marker: false,
                arrival: MonoTime::from_millis(20),
                extensions: Extensions::default(),
                payload: Bytes::from_static(payload),
            };
            let rewrite = Rewrite { sequence, timestamp: 960, picture_id: None, tl0_pic_idx: None, begins: false };
            let way = Way { sealer: &sealer, route, lane: &mut lane, socket: &mut socket };
            assert!(egress.send(0, &packet, rewrite, way));
        }
        #[expect(clippy::cast_possible_truncation, reason = "as on the wire")]
        let first = 70_000_u64 as u16;
        let way = Way { sealer: &sealer, route, lane: &mut lane, socket: &mut socket };
        let answered = egress.repair(MonoTime::from_millis(60), Ssrc(21), first, way);
        (socket.take_outgoing().into_iter().map(|(_, datagram)| datagram).collect(), answered)
    }

    #[test]
    fn a_voice_packet_that_is_asked_for_leaves_once_more_as_it_was() {
        let (sent, answered) = asked_again("a=rtcp-fb:111 nack\r\n");
        assert!(answered);
        assert_eq!(sent.len(), 3);
        assert_eq!(sent[2], sent[0], "sealed once");
        assert_ne!(sent[2], sent[1]);
    }

    #[test]
    fn the_pieces_of_a_frame_are_padded_to_one_length_and_voices_stay_as_they_are() {
        let padded = |payload: usize| payload + 36 + usize::from(padding(payload, payload + 36));
        // What Chromium makes of a frame of 2,500 bytes, and of one whose lengths lie around a multiple.
        assert_eq!([833, 833, 834].map(padded), [880; 3]);
        assert_eq!([844, 845].map(padded), [880, 896]);
        assert_eq!([80, 499].map(padded), [116, 535]);
    }

    #[test]
    fn a_client_that_does_not_ask_has_nothing_kept_for_it() {
        let (sent, answered) = asked_again("");
        assert_eq!((sent.len(), answered), (2, false));
    }
}
