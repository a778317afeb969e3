//! What goes out to one client: each packet gets the slot's numbers and extensions, is sealed straight into the send
//! batch, and is kept for a while in case it is asked for again.

use bytes::Bytes;

use super::forward::Rewrite;
use super::negotiated::Negotiated;
use super::socket::{Lane, Route, Socket};
use crate::clock::MonoTime;
use crate::rtp::header::{ExtensionIds, LONGEST, Outgoing};
use crate::rtp::nack::Ring;
use crate::rtp::report::Transmission;
use crate::rtp::rtcp::Compound;
use crate::rtp::sequence::Window;
use crate::rtp::srtp::Sealer;
use crate::rtp::{Codec, Extensions, Packet, Ssrc};

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
        if !write(&slot.mid, slot.ids, &head, &rewrite, &packet.payload, &mut slot.sealed, way) {
            return false;
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

    /// Sends a packet again that a receiver misses, on the stream of repairs.
    pub(super) fn repair(&mut self, now: MonoTime, media: Ssrc, sequence: u16, way: Way<'_>) -> bool {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.ssrc == media) else { return false };
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
        write(&slot.mid, slot.ids, &head, &sent.rewrite, &sent.payload, &mut repairs.sealed, way)
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

/// Writes and seals one packet into the send batch.
fn write(
    mid: &str,
    ids: ExtensionIds,
    head: &Head,
    rewrite: &Rewrite,
    payload: &[u8],
    sealed: &mut Window,
    way: Way<'_>,
) -> bool {
    // What was sealed once must not be sealed again.
    if !sealed.is_new(head.index) {
        return false;
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
    let Some(room) = socket.room_for(lane, route, body + payload.len() + sealer.overhead()) else { return false };
    // Header, number and payload fill the room but for the tag; `copy` does nothing where the lengths do not fit.
    copy(room.get_mut(..header_length), header.get(..header_length));
    copy(room.get_mut(header_length..body), Some(original));
    copy(room.get_mut(body..body + payload.len()), Some(payload));
    if let Some(payload) = room.get_mut(body..) {
        rewrite.apply(payload);
    }
    sealer.seal(sealed, head.ssrc, head.index, room, header_length).is_ok()
}

fn copy(into: Option<&mut [u8]>, from: Option<&[u8]>) {
    if let (Some(into), Some(from)) = (into, from)
        && into.len() == from.len()
    {
        into.copy_from_slice(from);
    }
}
