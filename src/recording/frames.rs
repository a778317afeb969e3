//! VP8 frames from packets, and what loss does to them: a frame with a hole is dropped, and everything that could
//! refer to it, up to the next keyframe.

use crate::clock::MonoTime;
use crate::rtp::vp8::{Descriptor, PictureId, Resolution, keyframe_resolution};
use crate::rtp::{Packet, Ssrc};

/// A frame that grows beyond this is not one. Lower cuts off large screen keyframes; higher lets one sender hold
/// more memory.
const LARGEST_FRAME: usize = 4 << 20;

/// A whole frame.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The stream that it came in.
    pub(super) ssrc: Ssrc,
    /// Its RTP timestamp.
    pub(super) timestamp: u64,
    /// Arrival of the first packet of it that came.
    pub(super) arrival: MonoTime,
    /// Its size if it is a keyframe.
    pub(super) keyframe: Option<Resolution>,
    /// Its bytes without payload descriptors.
    pub(super) data: Vec<u8>,
}

/// What happened to the frames of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameCounts {
    /// Whole frames passed on.
    pub(super) frames: u64,
    /// Of these, keyframes.
    pub(super) keyframes: u64,
    /// Frames, or runs of frames, that lost a packet.
    pub(super) damaged: u64,
    /// Whole frames dropped because they refer to a damaged one.
    pub(super) orphaned: u64,
}

impl FrameCounts {
    /// Frames that came, whole or not, and were not passed on.
    pub(super) fn left_out(&self) -> u64 {
        self.damaged + self.orphaned
    }
}

/// Assembles the frames of one source.
#[derive(Debug)]
pub(super) struct Frames {
    partial: Option<Partial>,
    /// Nothing that comes can be decoded before a keyframe.
    broken: bool,
    /// Packets were missing right before the one that comes next.
    gap: bool,
    last_picture: Option<PictureId>,
    counts: FrameCounts,
}

#[derive(Debug)]
struct Partial {
    frame: Frame,
    picture: Option<PictureId>,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { partial: None, broken: true, gap: false, last_picture: None, counts: FrameCounts::default() }
    }

    /// What happened so far.
    pub(super) fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// Whether nothing that comes can be decoded before a keyframe.
    pub(super) fn awaits_keyframe(&self) -> bool {
        self.broken
    }

    /// Arrival of the first packet of the frame that is not whole yet.
    pub(super) fn waiting_since(&self) -> Option<MonoTime> {
        self.partial.as_ref().map(|partial| partial.frame.arrival)
    }

    /// Takes the next packet in order.
    pub(super) fn push(&mut self, packet: &Packet, out: &mut Vec<Frame>) {
        // Padding carries no payload: it only fills sequence numbers.
        if packet.payload.is_empty() {
            return;
        }
        let Ok(descriptor) = Descriptor::parse(&packet.payload) else {
            self.damage();
            return;
        };
        let same_frame = self.partial.as_ref().is_some_and(|partial| partial.frame.timestamp == packet.timestamp);
        if !same_frame || descriptor.starts_frame() {
            // A frame without its marker is whole nonetheless if no packet is missing between it and the next.
            self.complete(out);
        }
        if std::mem::take(&mut self.gap) && !self.broken && !self.follows_last_picture(&descriptor) {
            self.damage();
        }
        if self.partial.is_none() {
            if !descriptor.starts_frame() {
                self.broken = true;
                return;
            }
            let frame = Frame {
                ssrc: packet.ssrc,
                timestamp: packet.timestamp,
                arrival: packet.arrival,
                keyframe: None,
                data: Vec::new(),
            };
            self.partial = Some(Partial { frame, picture: descriptor.picture_id });
        }
        if let Some(partial) = &mut self.partial {
            partial.frame.arrival = partial.frame.arrival.min(packet.arrival);
            partial.frame.data.extend_from_slice(descriptor.body(&packet.payload));
            if partial.frame.data.len() > LARGEST_FRAME {
                self.damage();
            } else if packet.marker {
                self.complete(out);
            }
        }
    }

    /// Packets are missing before the next one.
    pub(super) fn gap(&mut self) {
        if self.partial.is_some() {
            self.damage();
        }
        self.gap = true;
    }

    /// The stream begins anew: a new SSRC, or new sequence numbers.
    pub(super) fn restart(&mut self) {
        self.partial = None;
        self.broken = true;
        self.gap = false;
        self.last_picture = None;
    }

    /// The missing packets held no frame (padding, say) if a frame begins here and the picture ids follow on.
    fn follows_last_picture(&self, descriptor: &Descriptor) -> bool {
        descriptor.starts_frame()
            && match (self.last_picture, descriptor.picture_id) {
                (Some(last), Some(this)) => last.long == this.long && last.next() == this.value,
                _ => false,
            }
    }

    fn damage(&mut self) {
        self.partial = None;
        self.counts.damaged += 1;
        self.broken = true;
    }

    fn complete(&mut self, out: &mut Vec<Frame>) {
        let Some(Partial { mut frame, picture }) = self.partial.take() else {
            return;
        };
        self.last_picture = picture;
        frame.keyframe = keyframe_resolution(&frame.data);
        if frame.keyframe.is_some() {
            self.broken = false;
            self.counts.keyframes += 1;
        }
        if self.broken {
            self.counts.orphaned += 1;
        } else {
            self.counts.frames += 1;
            out.push(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::rtp::{Codec, Extensions};

    const KEY: [u8; 11] = [0x50, 0x01, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01, 0x07];
    const INTER: [u8; 4] = [0x51, 0x01, 0x00, 0x42];

    fn packet(sequence: u64, picture: u8, start: bool, marker: bool, body: &[u8]) -> Packet {
        let mut payload = vec![0x80 | if start { 0x10 } else { 0 }, 0x80, picture];
        payload.extend_from_slice(body);
        Packet {
            ssrc: Ssrc(1),
            codec: Codec::Vp8,
            sequence,
            timestamp: u64::from(picture) * 3_000,
            marker,
            arrival: MonoTime::from_millis(sequence),
            extensions: Extensions::default(),
            payload: Bytes::from(payload),
        }
    }

    #[test]
    fn a_frame_is_put_together_from_start_to_marker() {
        let (mut frames, mut out) = (Frames::new(), Vec::new());
        frames.push(&packet(1, 1, true, false, &KEY), &mut out);
        assert_eq!(frames.waiting_since(), Some(MonoTime::from_millis(1)));
        frames.push(&packet(2, 1, false, true, &[9, 9]), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].keyframe, Some(Resolution { width: 640, height: 480 }));
        assert_eq!(out[0].data.len(), KEY.len() + 2);
        frames.push(&packet(3, 2, true, false, &INTER), &mut out);
        frames.push(&packet(4, 3, true, true, &INTER), &mut out);
        assert_eq!(out.len(), 3, "no packet is missing: the marker may be");
    }

    #[test]
    fn nothing_is_passed_on_before_the_first_keyframe() {
        let (mut frames, mut out) = (Frames::new(), Vec::new());
        frames.push(&packet(1, 1, false, true, &INTER), &mut out);
        frames.push(&packet(2, 2, true, true, &INTER), &mut out);
        assert!(out.is_empty());
        assert_eq!(frames.counts(), FrameCounts { orphaned: 1, ..FrameCounts::default() });
    }

    #[test]
    fn after_a_lost_packet_frames_wait_for_a_keyframe() {
        let (mut frames, mut out) = (Frames::new(), Vec::new());
        frames.push(&packet(1, 1, true, true, &KEY), &mut out);
        frames.push(&packet(2, 2, true, false, &INTER), &mut out);
        frames.gap();
        frames.push(&packet(4, 3, true, true, &INTER), &mut out);
        frames.push(&packet(5, 4, true, true, &INTER), &mut out);
        frames.push(&packet(6, 5, true, true, &KEY), &mut out);
        assert_eq!(out.iter().map(|frame| frame.keyframe.is_some()).collect::<Vec<_>>(), [true, true]);
        let counts = frames.counts();
        assert_eq!(counts, FrameCounts { frames: 2, keyframes: 2, damaged: 1, orphaned: 2 });
    }

    #[test]
    fn a_keyframe_that_lost_its_head_is_no_keyframe() {
        let (mut frames, mut out) = (Frames::new(), Vec::new());
        frames.push(&packet(1, 1, true, true, &KEY), &mut out);
        frames.gap();
        frames.push(&packet(3, 2, false, true, &KEY), &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn missing_numbers_between_two_pictures_that_follow_on_were_padding() {
        let (mut frames, mut out) = (Frames::new(), Vec::new());
        frames.push(&packet(1, 126, true, true, &KEY), &mut out);
        frames.push(&packet(2, 127, true, true, &INTER), &mut out);
        frames.gap();
        frames.push(&packet(9, 0, true, true, &INTER), &mut out);
        assert_eq!(out.len(), 3);
        assert_eq!(frames.counts().damaged, 0);
    }
}
