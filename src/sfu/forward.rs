//! Forwarding decisions: which source a receiver's slot carries, and what a packet's counters become there.
//!
//! Pure. A receiver must see each slot as one unbroken stream whoever speaks in it, so sequence number, timestamp,
//! VP8 picture id and TL0PICIDX are rebased at every switch (RFC 7741 §4.2, RFC 3550 §5.1).

use crate::clock::MonoTime;
use crate::id::{ConnectionId, ParticipantId};
use crate::media::Source;
use crate::rtp::vp8::{Descriptor, PictureId};
use crate::rtp::{Packet, Ssrc};

/// Sequence number at which every outgoing stream begins: below 65,536, because a receiver starts to count rollovers
/// at zero (RFC 3711 §3.3.1), and above zero, so that a packet from just before the first has a number too.
const FIRST_SEQUENCE: u64 = 1_000;

/// Which frame a VP8 packet belongs to, as its payload descriptor says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameIds {
    /// The packet is the first of a keyframe.
    pub(super) starts_keyframe: bool,
    /// Picture id, if the descriptor carries one.
    pub(super) picture_id: Option<PictureId>,
    /// Running index of temporal base layer frames, if the descriptor carries one, and its offset in the payload.
    pub(super) tl0_pic_idx: Option<(u8, u8)>,
}

impl FrameIds {
    /// Reads them from a VP8 payload; one that cannot be read belongs to no frame that could be shown.
    pub(super) fn of(payload: &[u8]) -> Self {
        Descriptor::parse(payload).map_or_else(
            |_| Self::default(),
            |descriptor| Self {
                starts_keyframe: descriptor.starts_keyframe(payload),
                picture_id: descriptor.picture_id,
                tl0_pic_idx: descriptor.tl0_pic_idx,
            },
        )
    }
}

/// A packet's counters on their way out; everything else stays as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rewrite {
    /// Extended sequence number.
    pub(super) sequence: u64,
    /// RTP timestamp.
    pub(super) timestamp: u32,
    /// Picture id, where the packet has one.
    pub(super) picture_id: Option<PictureId>,
    /// TL0PICIDX and its offset, where the packet has one.
    pub(super) tl0_pic_idx: Option<(u8, u8)>,
    /// The stream goes on with other counters from here: another source, or the same after a stop.
    pub(super) begins: bool,
}

impl Rewrite {
    /// Writes picture id and TL0PICIDX into a payload (RFC 7741 §4.2), where it has them.
    pub(super) fn apply(&self, payload: &mut [u8]) {
        if let Some(id) = self.picture_id {
            let [high, low] = id.value.to_be_bytes();
            match payload.get_mut(usize::from(id.offset)..) {
                Some([first, second, ..]) if id.long => (*first, *second) = (0x80 | high, low),
                Some([first, ..]) if !id.long => *first = low & 0x7f,
                _ => {}
            }
        }
        if let Some((index, offset)) = self.tl0_pic_idx
            && let Some(byte) = payload.get_mut(usize::from(offset))
        {
            *byte = index;
        }
    }
}

/// A source as a receiver knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) connection: ConnectionId,
    pub(super) participant: ParticipantId,
    pub(super) source: Source,
}

/// What became of a packet that was offered to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it in this slot with these counters.
    Forward(usize, Rewrite),
    /// The slot waits for a keyframe.
    AwaitKeyframe,
    /// The receiver has no slot for it, or the packet is older than the switch.
    Drop,
}

/// A receiver's slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    audio: bool,
    carries: Option<Origin>,
    stream: Stream,
}

impl Slots {
    /// Adds a slot for audio or video; slots are numbered in the order in which they are added.
    pub(super) fn add(&mut self, audio: bool) {
        self.slots.push(Slot { audio, carries: None, stream: Stream::default() });
    }

    /// The slot that carries this source.
    pub(super) fn slot_of(&self, origin: Origin) -> Option<usize> {
        let carries = |slot: &Slot| {
            slot.carries.is_some_and(|held| held.connection == origin.connection && held.source == origin.source)
        };
        self.slots.iter().position(carries)
    }

    /// The slot that carries this source; if none does yet, a free one of its kind takes it (`true`: just now).
    pub(super) fn assign(&mut self, origin: Origin) -> Option<(usize, bool)> {
        if let Some(index) = self.slot_of(origin) {
            return Some((index, false));
        }
        let index =
            self.slots.iter().position(|slot| slot.carries.is_none() && slot.audio == origin.source.is_audio())?;
        let slot = self.slots.get_mut(index)?;
        slot.carries = Some(origin);
        slot.stream.switch();
        Some((index, true))
    }

    /// Frees the slots that carry a connection's source (`None`: all its sources). Returns whether any did.
    pub(super) fn release(&mut self, connection: ConnectionId, source: Option<Source>) -> bool {
        let mut released = false;
        for slot in &mut self.slots {
            if slot.carries.is_some_and(|held| held.connection == connection && source.is_none_or(|s| s == held.source))
            {
                slot.carries = None;
                released = true;
            }
        }
        released
    }

    /// What each used slot carries.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, Origin)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| slot.carries.map(|origin| (index, origin)))
    }

    /// What a slot carries.
    pub(super) fn origin(&self, index: usize) -> Option<Origin> {
        self.slots.get(index)?.carries
    }

    /// Media stopped for everyone: every stream goes on with a keyframe.
    pub(super) fn pause(&mut self) {
        for slot in &mut self.slots {
            slot.stream.switch();
        }
    }

    /// What a timestamp of this stream of the source is in the slot. `None`: the slot does not carry it.
    pub(super) fn timestamp(&self, index: usize, ssrc: Ssrc, timestamp: u32) -> Option<u32> {
        let mapping = self.slots.get(index)?.stream.mapping.filter(|mapping| mapping.ssrc == ssrc)?;
        #[expect(clippy::cast_possible_truncation, reason = "RTP time wraps at 32 bits")]
        let (source, stream) = (mapping.source.timestamp as u32, mapping.stream.timestamp as u32);
        Some(stream.wrapping_add(timestamp.wrapping_sub(source)))
    }

    /// Decides on a packet for the slot that carries it.
    pub(super) fn forward(&mut self, index: usize, packet: &Packet, frame: Option<FrameIds>) -> Verdict {
        let Some(slot) = self.slots.get_mut(index) else { return Verdict::Drop };
        slot.stream.forward(index, packet, frame)
    }
}

/// One outgoing stream: what was sent last, and how the present source's counters map onto it.
#[derive(Debug, Default)]
struct Stream {
    sent: Option<Sent>,
    mapping: Option<Mapping>,
}

/// The furthest point of what was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u64,
    timestamp: u64,
    arrival: MonoTime,
    picture_id: u16,
    tl0_pic_idx: u8,
}

/// From the counters of one source to those of the stream: both sides at the switch.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    ssrc: Ssrc,
    source: Counters,
    stream: Counters,
}

#[derive(Clone, Copy, Debug)]
struct Counters {
    sequence: u64,
    timestamp: u64,
    picture_id: u16,
    tl0_pic_idx: u8,
}

impl Stream {
    fn switch(&mut self) {
        self.mapping = None;
    }

    fn forward(&mut self, index: usize, packet: &Packet, frame: Option<FrameIds>) -> Verdict {
        let (mapping, begins) = match self.mapping {
            Some(mapping) if mapping.ssrc == packet.ssrc => (mapping, false),
            _ if frame.is_none_or(|frame| frame.starts_keyframe) => {
                (self.start(packet, frame.unwrap_or_default()), true)
            }
            _ => return Verdict::AwaitKeyframe,
        };
        let Some(offset) = packet.sequence.checked_sub(mapping.source.sequence) else { return Verdict::Drop };
        let sequence = mapping.stream.sequence + offset;
        let timestamp = mapping.stream.timestamp.wrapping_add(packet.timestamp.wrapping_sub(mapping.source.timestamp));
        let picture_id = frame.and_then(|frame| frame.picture_id).map(|id| {
            let since = id.value.wrapping_sub(mapping.source.picture_id);
            let mask = if id.long { 0x7fff } else { 0x7f };
            PictureId { value: mapping.stream.picture_id.wrapping_add(since) & mask, ..id }
        });
        let tl0_pic_idx = frame.and_then(|frame| frame.tl0_pic_idx).map(|(index, offset)| {
            (mapping.stream.tl0_pic_idx.wrapping_add(index.wrapping_sub(mapping.source.tl0_pic_idx)), offset)
        });
        if self.sent.is_none_or(|sent| sequence > sent.sequence) {
            let before = self.sent;
            self.sent = Some(Sent {
                sequence,
                timestamp,
                arrival: packet.arrival,
                picture_id: picture_id.map(|id| id.value).or(before.map(|sent| sent.picture_id)).unwrap_or_default(),
                tl0_pic_idx: tl0_pic_idx
                    .map(|(index, _)| index)
                    .or(before.map(|sent| sent.tl0_pic_idx))
                    .unwrap_or_default(),
            });
        }
        #[expect(clippy::cast_possible_truncation, reason = "the wire carries the lower 32 bits")]
        let timestamp = timestamp as u32;
        Verdict::Forward(index, Rewrite { sequence, timestamp, picture_id, tl0_pic_idx, begins })
    }

    /// Begins a new mapping at this packet, right behind what was sent.
    fn start(&mut self, packet: &Packet, frame: FrameIds) -> Mapping {
        let stream = match self.sent {
            None => Counters { sequence: FIRST_SEQUENCE, timestamp: 0, picture_id: 0, tl0_pic_idx: 0 },
            Some(sent) => {
                let silence = packet.arrival.since(sent.arrival).as_nanos();
                let ticks = silence * u128::from(packet.codec.clock_rate()) / 1_000_000_000;
                Counters {
                    sequence: sent.sequence + 1,
                    // At least one tick: two frames must not share a timestamp.
                    timestamp: sent.timestamp.wrapping_add(u64::try_from(ticks).unwrap_or(u64::MAX).max(1)),
                    picture_id: sent.picture_id.wrapping_add(1),
                    tl0_pic_idx: sent.tl0_pic_idx.wrapping_add(1),
                }
            }
        };
        let source = Counters {
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            picture_id: frame.picture_id.map(|id| id.value).unwrap_or_default(),
            tl0_pic_idx: frame.tl0_pic_idx.map(|(index, _)| index).unwrap_or_default(),
        };
        let mapping = Mapping { ssrc: packet.ssrc, source, stream };
        self.mapping = Some(mapping);
        mapping
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::rtp::{Codec, Extensions};

    fn origin(source: Source) -> Origin {
        let at = Timestamp::UNIX_EPOCH;
        Origin { connection: ConnectionId::new(at), participant: ParticipantId::new(at), source }
    }

    fn packet(codec: Codec, ssrc: u32, sequence: u64, timestamp: u64, at_ms: u64) -> Packet {
        Packet {
            ssrc: Ssrc(ssrc),
            codec,
            sequence,
            timestamp,
            marker: false,
            arrival: MonoTime::from_millis(at_ms),
            extensions: Extensions::default(),
            payload: Bytes::from_static(b"x"),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as packets bring it: video has one, audio has none")]
    fn frame(starts_keyframe: bool, picture_id: u16, tl0: u8) -> Option<FrameIds> {
        Some(FrameIds {
            starts_keyframe,
            picture_id: Some(PictureId { value: picture_id, long: true, offset: 2 }),
            tl0_pic_idx: Some((tl0, 4)),
        })
    }

    fn forwarded(verdict: Verdict) -> Rewrite {
        match verdict {
            Verdict::Forward(_, rewrite) => rewrite,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    fn video_slots() -> Slots {
        let mut slots = Slots::default();
        slots.add(false);
        slots
    }

    #[test]
    fn a_source_takes_a_free_slot_of_its_kind_and_keeps_it() {
        let mut slots = Slots::default();
        slots.add(true);
        slots.add(false);
        let camera = origin(Source::Camera);
        assert_eq!(slots.assign(camera), Some((1, true)));
        assert_eq!(slots.assign(camera), Some((1, false)));
        assert_eq!(slots.assign(origin(Source::Camera)), None, "no second video slot");
        assert!(slots.release(camera.connection, None));
        assert_eq!(slots.assign(origin(Source::Screen)), Some((1, true)));
    }

    #[test]
    fn a_new_source_in_a_slot_starts_at_a_keyframe() {
        let mut slots = video_slots();
        slots.assign(origin(Source::Camera));
        let late = packet(Codec::Vp8, 1, 10, 0, 0);
        assert_eq!(slots.forward(0, &late, frame(false, 5, 5)), Verdict::AwaitKeyframe);
        let key = packet(Codec::Vp8, 1, 11, 3_000, 33);
        assert_eq!(forwarded(slots.forward(0, &key, frame(true, 6, 6))).sequence, FIRST_SEQUENCE);
    }

    #[test]
    fn a_switch_of_source_is_one_unbroken_stream_to_the_receiver() {
        let mut slots = video_slots();
        let first = origin(Source::Camera);
        slots.assign(first);
        slots.forward(0, &packet(Codec::Vp8, 1, 60_000, 900_000, 0), frame(true, 32_767, 255));
        let last = forwarded(slots.forward(0, &packet(Codec::Vp8, 1, 60_001, 903_000, 33), frame(false, 0, 0)));
        slots.release(first.connection, None);
        slots.assign(origin(Source::Camera));
        let next = forwarded(slots.forward(0, &packet(Codec::Vp8, 2, 7, 50, 133), frame(true, 99, 7)));
        assert_eq!(next.sequence, last.sequence + 1);
        assert_eq!(next.timestamp - last.timestamp, 9_000, "100 ms of a 90 kHz clock");
        assert_eq!(next.picture_id.unwrap().value, last.picture_id.unwrap().value + 1);
        assert_eq!(next.tl0_pic_idx.unwrap().0, last.tl0_pic_idx.unwrap().0 + 1);
    }

    #[test]
    fn reordered_packets_keep_their_place_and_those_before_the_switch_are_dropped() {
        let mut slots = video_slots();
        slots.assign(origin(Source::Camera));
        slots.forward(0, &packet(Codec::Vp8, 1, 100, 0, 0), frame(true, 0, 0));
        let third = forwarded(slots.forward(0, &packet(Codec::Vp8, 1, 102, 0, 1), frame(false, 0, 0)));
        let second = forwarded(slots.forward(0, &packet(Codec::Vp8, 1, 101, 0, 2), frame(false, 0, 0)));
        assert_eq!(second.sequence + 1, third.sequence);
        assert_eq!(slots.forward(0, &packet(Codec::Vp8, 1, 99, 0, 3), frame(false, 0, 0)), Verdict::Drop);
    }

    #[test]
    fn a_changed_ssrc_goes_on_at_the_next_keyframe() {
        let mut slots = video_slots();
        slots.assign(origin(Source::Camera));
        let before = forwarded(slots.forward(0, &packet(Codec::Vp8, 1, 100, 0, 0), frame(true, 3, 0)));
        assert_eq!(slots.forward(0, &packet(Codec::Vp8, 9, 5, 0, 40), frame(false, 70, 0)), Verdict::AwaitKeyframe);
        let after = forwarded(slots.forward(0, &packet(Codec::Vp8, 9, 6, 0, 80), frame(true, 71, 0)));
        assert_eq!(after.sequence, before.sequence + 1);
        assert_eq!(after.picture_id.unwrap().value, before.picture_id.unwrap().value + 1);
    }

    #[test]
    fn a_sources_report_speaks_of_the_streams_own_time() {
        let mut slots = video_slots();
        slots.assign(origin(Source::Camera));
        assert_eq!(slots.timestamp(0, Ssrc(1), 900_000), None, "nothing was forwarded yet");
        let first = forwarded(slots.forward(0, &packet(Codec::Vp8, 1, 5, (7 << 32) + 900_000, 0), frame(true, 0, 0)));
        assert!(first.begins);
        assert_eq!(slots.timestamp(0, Ssrc(1), 909_000), Some(first.timestamp + 9_000));
        assert_eq!(slots.timestamp(0, Ssrc(1), 891_000), Some(first.timestamp.wrapping_sub(9_000)));
        assert_eq!(slots.timestamp(0, Ssrc(2), 909_000), None, "another stream's");
    }

    #[test]
    fn counters_are_written_where_they_stand() {
        let mut payload = [0x90, 0xe0, 0x81, 0x02, 0x07, 0x10];
        let rewrite = Rewrite {
            sequence: 1,
            timestamp: 1,
            picture_id: Some(PictureId { value: 0x7abc, long: true, offset: 2 }),
            tl0_pic_idx: Some((9, 4)),
            begins: false,
        };
        rewrite.apply(&mut payload);
        assert_eq!(payload, [0x90, 0xe0, 0xfa, 0xbc, 9, 0x10]);
        for cut in 0..payload.len() {
            rewrite.apply(&mut payload[..cut]);
        }
    }

    #[test]
    fn sound_starts_at_once_and_a_pause_is_bridged() {
        let mut slots = Slots::default();
        slots.add(true);
        slots.assign(origin(Source::Microphone));
        let first = forwarded(slots.forward(0, &packet(Codec::Opus, 1, 5, 960, 20), None));
        slots.pause();
        let second = forwarded(slots.forward(0, &packet(Codec::Opus, 1, 500, 480_960, 10_020), None));
        assert_eq!(second.sequence, first.sequence + 1);
        assert_eq!(second.timestamp - first.timestamp, 480_000, "10 s of a 48 kHz clock");
    }
}
