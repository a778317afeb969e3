//! One source on its way into a file: packets in, blocks on the room's clock out.

use std::time::Duration;

use bytes::Bytes;

use super::frames::{Frame, FrameCounts, Frames};
use super::reorder::{Released, Reorder, ReorderCounts};
use super::timeline::{SenderClock, StreamClock};
use crate::clock::MonoTime;
use crate::media::Source;
use crate::rtp::vp8::Resolution;
use crate::rtp::{Codec, Packet, SenderReport, Ssrc};

/// How long a missing packet is waited for: several rounds of NACK over a slow network. Longer delays the
/// acknowledgement of everything behind it; shorter drops what would still have come.
const PATIENCE: Duration = Duration::from_millis(400);

/// A frame whose rest does not come for so long holds up no acknowledgement any more; it is still waited for.
const HALF_FRAME: Duration = Duration::from_millis(500);

/// Nothing to record for so long is worth a line. Opus that sends nothing while nobody speaks (DTX) still sends every
/// 400 ms.
const SILENCE: Duration = Duration::from_secs(1);

/// What goes into a file as one block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Media time.
    pub(super) at: MonoTime,
    /// When its first packet came in.
    pub(super) arrival: MonoTime,
    /// Which track.
    pub(super) source: Source,
    /// What it holds.
    pub(super) kind: BlockKind,
    /// The frame as the decoder takes it.
    pub(super) data: Bytes,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// An Opus packet of this length.
    Audio(Duration),
    /// A VP8 keyframe of this size.
    Keyframe(Resolution),
    /// Any other VP8 frame.
    InterFrame,
}

/// Something about a source worth a line beside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Packets did not come: their stream, the first one's sequence number, and how many.
    Gap(Ssrc, u64, u64),
    /// Its timestamps or sequence numbers did not follow from the earlier ones.
    Jump,
    /// The picture has this size from here on.
    Resolution(Resolution),
    /// The picture is to be turned clockwise by so many quarters from here on.
    Rotation(u8),
    /// A keyframe.
    Keyframe,
    /// From here on frames are left out, up to the next keyframe.
    Damaged,
    /// That keyframe came; so many frames, whole or not, were left out.
    Mended(u64),
    /// Nothing was sent from this media time to that one.
    Silence(MonoTime, MonoTime),
}

/// Counters of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct IntakeCounts {
    pub(super) frames: FrameCounts,
    pub(super) order: ReorderCounts,
    /// Packets passed on in order.
    pub(super) packets: u64,
    /// Packets that never came.
    pub(super) missing: u64,
    /// Runs of such packets.
    pub(super) gaps: u64,
}

impl IntakeCounts {
    /// What was counted after `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let ReorderCounts { recovered, late, duplicates } = self.order;
        let FrameCounts { frames, keyframes, damaged, orphaned } = self.frames;
        Self {
            frames: FrameCounts {
                frames: frames.saturating_sub(before.frames.frames),
                keyframes: keyframes.saturating_sub(before.frames.keyframes),
                damaged: damaged.saturating_sub(before.frames.damaged),
                orphaned: orphaned.saturating_sub(before.frames.orphaned),
            },
            order: ReorderCounts {
                recovered: recovered.saturating_sub(before.order.recovered),
                late: late.saturating_sub(before.order.late),
                duplicates: duplicates.saturating_sub(before.order.duplicates),
            },
            packets: self.packets.saturating_sub(before.packets),
            missing: self.missing.saturating_sub(before.missing),
            gaps: self.gaps.saturating_sub(before.gaps),
        }
    }
}

/// The way of one source.
#[derive(Debug)]
pub(super) struct Intake {
    source: Source,
    codec: Codec,
    ssrc: Option<Ssrc>,
    reorder: Reorder,
    frames: Frames,
    clock: StreamClock,
    resolution: Option<Resolution>,
    rotation: Option<u8>,
    packets: u64,
    missing: u64,
    gaps: u64,
    /// Frames left out by the time of the newest whole one.
    left_out: u64,
    /// When the damage began, and the same then; `None`: there is none.
    damage: Option<(MonoTime, u64)>,
    /// Media time of the newest keyframe.
    keyframe: Option<MonoTime>,
    /// Media time at which the newest block ends.
    end: Option<MonoTime>,
    /// Something was lost since that block: what is missing after it is no silence.
    lost: bool,
    /// Arrival of the newest packet that was not padding.
    newest: MonoTime,
}

/// Where an intake puts what it made.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    /// Blocks in the order of their media time.
    pub(super) blocks: Vec<Block>,
    /// Events with their time of arrival.
    pub(super) events: Vec<(MonoTime, Event)>,
}

impl Intake {
    pub(super) fn new(source: Source, codec: Codec) -> Self {
        Self {
            source,
            codec,
            ssrc: None,
            reorder: Reorder::new(PATIENCE),
            frames: Frames::new(),
            clock: StreamClock::new(codec.clock_rate()),
            resolution: None,
            rotation: None,
            packets: 0,
            missing: 0,
            gaps: 0,
            left_out: 0,
            damage: None,
            keyframe: None,
            end: None,
            lost: false,
            newest: MonoTime::ZERO,
        }
    }

    pub(super) fn counts(&self) -> IntakeCounts {
        IntakeCounts {
            frames: self.frames.counts(),
            order: self.reorder.counts(),
            packets: self.packets,
            missing: self.missing,
            gaps: self.gaps,
        }
    }

    /// Arrival of the newest packet that was not padding.
    pub(super) fn newest(&self) -> MonoTime {
        self.newest
    }

    /// Takes a packet as it came.
    pub(super) fn push(&mut self, packet: Packet, outlet: &mut Outlet) {
        let mut released = Vec::new();
        if self.ssrc != Some(packet.ssrc) {
            self.reorder.give_up_waiting(&mut released);
            self.work(&mut released, packet.arrival, outlet);
            self.reorder.begin_anew();
            self.frames.restart();
            self.ssrc = Some(packet.ssrc);
            self.watch_damage(packet.arrival, outlet);
        }
        let arrival = packet.arrival;
        if !packet.payload.is_empty() {
            self.newest = self.newest.max(arrival);
        }
        let before = self.reorder.counts().recovered;
        self.reorder.push(packet, &mut released);
        let recovered = self.reorder.counts().recovered - before;
        if recovered > 0 {
            metrics::counter!("sportello_recording_recovered_packets_total").increment(recovered);
        }
        self.work(&mut released, arrival, outlet);
    }

    /// Gives up what has been missing for too long.
    pub(super) fn expire(&mut self, now: MonoTime, outlet: &mut Outlet) {
        let mut released = Vec::new();
        self.reorder.expire(now, &mut released);
        self.work(&mut released, now, outlet);
    }

    /// Gives up everything that is missing: nothing more comes.
    pub(super) fn finish(&mut self, now: MonoTime, outlet: &mut Outlet) {
        let mut released = Vec::new();
        self.reorder.give_up_waiting(&mut released);
        self.work(&mut released, now, outlet);
    }

    /// Learns from a report where the stream stands on the sender's clock. Gives where it stood here until now.
    pub(super) fn report(&mut self, report: &SenderReport, sender: &mut SenderClock) -> Option<MonoTime> {
        let placed = self.clock.locate(report.ssrc, report.rtp_timestamp);
        if let Some(moment) = sender.observe(report) {
            self.clock.correct(report.ssrc, report.rtp_timestamp, moment);
        }
        placed
    }

    /// Whether this is a picture of which nothing can be decoded before a keyframe.
    pub(super) fn awaits_keyframe(&self) -> bool {
        self.codec == Codec::Vp8 && self.frames.awaits_keyframe()
    }

    /// Arrival of the oldest packet that is not in a block yet.
    pub(super) fn waiting_since(&self, now: MonoTime) -> Option<MonoTime> {
        let half = self.frames.waiting_since().filter(|since| now.since(*since) < HALF_FRAME);
        [self.reorder.waiting_since(), half].into_iter().flatten().min()
    }

    fn work(&mut self, released: &mut Vec<Released>, now: MonoTime, outlet: &mut Outlet) {
        for item in released.drain(..) {
            match item {
                Released::Packet(packet) => {
                    self.packets += 1;
                    self.accept(&packet, outlet);
                }
                Released::Gap { first, count, at } => {
                    self.missing = self.missing.saturating_add(count);
                    self.gaps += 1;
                    self.lost = true;
                    metrics::counter!("sportello_recording_missing_packets_total").increment(count);
                    outlet.events.extend(self.ssrc.map(|ssrc| (at, Event::Gap(ssrc, first, count))));
                    self.frames.gap();
                    self.watch_damage(at, outlet);
                }
                Released::Restart => {
                    outlet.events.push((now, Event::Jump));
                    self.frames.restart();
                    self.watch_damage(now, outlet);
                }
            }
        }
    }

    /// Says when frames begin to be left out. Before a source's first keyframe there is nothing to be damaged.
    fn watch_damage(&mut self, at: MonoTime, outlet: &mut Outlet) {
        if self.codec != Codec::Vp8 || self.frames.counts().keyframes == 0 {
            return;
        }
        if !self.frames.awaits_keyframe() {
            self.left_out = self.frames.counts().left_out();
        } else if self.damage.is_none() {
            self.damage = Some((at, self.left_out));
            self.lost = true;
            outlet.events.push((at, Event::Damaged));
        }
    }

    fn accept(&mut self, packet: &Packet, outlet: &mut Outlet) {
        match self.codec {
            Codec::Opus => {
                let Some(length) = opus_duration(&packet.payload) else {
                    return;
                };
                let (at, arrival) = (self.place(packet.ssrc, packet.timestamp, packet.arrival, outlet), packet.arrival);
                self.watch_silence(at, length, outlet);
                let kind = BlockKind::Audio(length);
                outlet.blocks.push(Block { at, arrival, source: self.source, kind, data: packet.payload.clone() });
            }
            Codec::Vp8 => {
                if packet.extensions.rotation.is_some() && packet.extensions.rotation != self.rotation {
                    self.rotation = packet.extensions.rotation;
                    outlet.events.extend(self.rotation.map(|turn| (packet.arrival, Event::Rotation(turn))));
                }
                let mut frames = Vec::new();
                let before = self.frames.counts();
                self.frames.push(packet, &mut frames);
                let after = self.frames.counts();
                metrics::counter!("sportello_recording_damaged_frames_total").increment(after.damaged - before.damaged);
                for frame in frames {
                    self.accept_frame(frame, outlet);
                }
                self.watch_damage(packet.arrival, outlet);
            }
        }
    }

    fn accept_frame(&mut self, frame: Frame, outlet: &mut Outlet) {
        let at = self.place(frame.ssrc, frame.timestamp, frame.arrival, outlet);
        self.watch_silence(at, Duration::ZERO, outlet);
        if frame.keyframe.is_some() {
            if let Some((since, before)) = self.damage.take() {
                let damaged = frame.arrival.since(since).as_secs_f64();
                metrics::histogram!("sportello_recording_damage_seconds").record(damaged);
                let left_out = self.frames.counts().left_out().saturating_sub(before);
                outlet.events.push((frame.arrival, Event::Mended(left_out)));
            }
            if let Some(last) = self.keyframe.replace(at) {
                metrics::histogram!("sportello_recording_keyframe_gap_seconds").record(at.since(last).as_secs_f64());
            }
            outlet.events.push((at, Event::Keyframe));
        }
        if frame.keyframe.is_some() && frame.keyframe != self.resolution {
            self.resolution = frame.keyframe;
            outlet.events.extend(self.resolution.map(|size| (frame.arrival, Event::Resolution(size))));
        }
        let kind = frame.keyframe.map_or(BlockKind::InterFrame, BlockKind::Keyframe);
        let data = Bytes::from(frame.data);
        outlet.blocks.push(Block { at, arrival: frame.arrival, source: self.source, kind, data });
    }

    /// Says when nothing was sent before the block at `at`.
    fn watch_silence(&mut self, at: MonoTime, length: Duration, outlet: &mut Outlet) {
        let lost = std::mem::take(&mut self.lost);
        if let Some(end) = self.end
            && !lost
            && at.since(end) > SILENCE
        {
            outlet.events.push((at, Event::Silence(end, at)));
        }
        self.end = Some(at + length);
    }

    fn place(&mut self, ssrc: Ssrc, timestamp: u64, arrival: MonoTime, outlet: &mut Outlet) -> MonoTime {
        let placed = self.clock.place(ssrc, timestamp, arrival);
        if placed.jumped {
            outlet.events.push((arrival, Event::Jump));
        }
        placed.at
    }
}

/// How long an Opus packet sounds (RFC 6716 §3.1); `None` for what is no Opus packet.
fn opus_duration(payload: &[u8]) -> Option<Duration> {
    let toc = *payload.first()?;
    let micros = match toc >> 3 {
        config @ 0..=11 => match config & 3 {
            0 => 10_000,
            1 => 20_000,
            2 => 40_000,
            _ => 60_000,
        },
        config @ 12..=15 => {
            if config & 1 == 0 {
                10_000
            } else {
                20_000
            }
        }
        config => 2_500 << (config & 3),
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(payload.get(1)? & 0x3f),
    };
    // No packet is longer than 120 ms (RFC 6716 §3.2.5).
    (1..=120_000).contains(&(micros * frames)).then(|| Duration::from_micros(micros * frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus_packets_tell_their_length() {
        let millis = |payload: &[u8]| opus_duration(payload).map(|length| length.as_micros());
        assert_eq!(millis(&[0xf8, 0xff, 0xfe]), Some(20_000), "CELT fullband");
        assert_eq!(millis(&[0x78]), Some(20_000), "hybrid");
        assert_eq!(millis(&[0x18, 1]), Some(60_000), "SILK");
        assert_eq!(millis(&[0xe1, 1]), Some(5_000), "two frames of 2.5 ms");
        assert_eq!(millis(&[0xfb, 0x03]), Some(60_000), "three frames of 20 ms");
        assert_eq!(millis(&[0xfb, 0x3f]), None, "more than 120 ms");
        assert_eq!(millis(&[]), None);
    }
}
