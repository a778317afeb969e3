//! VP8 payload descriptor (RFC 7741 §4.2) and what the head of a frame says (RFC 6386 §9.1).
//!
//! Everything here reads bytes that a stranger sent: every step is bounds-checked, nothing panics.

use std::fmt;

/// The picture id of a VP8 packet, and where it stands so that it can be replaced in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    /// Its value: 7 or 15 bits.
    pub value: u16,
    /// Whether it is written in two bytes (15 bits) or in one (7 bits).
    pub long: bool,
    /// Offset of its first byte in the payload.
    pub offset: u8,
}

impl PictureId {
    /// The id of the frame after this one, in the same width.
    pub const fn next(self) -> u16 {
        let mask = if self.long { 0x7fff } else { 0x7f };
        self.value.wrapping_add(1) & mask
    }
}

/// The temporal layer of a VP8 packet (RFC 7741 §4.2, TID and Y).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemporalLayer {
    /// Layer number, 0 to 3.
    pub id: u8,
    /// The frame depends on the base layer only, so that a receiver may switch up here.
    pub sync: bool,
}

/// The payload descriptor in front of every VP8 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The packet begins a partition (S).
    pub starts_partition: bool,
    /// Which partition (PID), 0 to 7.
    pub partition: u8,
    /// No other frame refers to this one (N): it may be dropped without harm.
    pub droppable: bool,
    /// Picture id (I, M).
    pub picture_id: Option<PictureId>,
    /// Running number of base-layer frames (L), with its offset in the payload.
    pub tl0_pic_idx: Option<(u8, u8)>,
    /// Temporal layer (T).
    pub temporal_layer: Option<TemporalLayer>,
    /// Temporal key frame index (K), 0 to 31.
    pub key_index: Option<u8>,
    /// Length of the descriptor: the frame's bytes begin here.
    pub length: usize,
}

/// Why a VP8 payload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the VP8 payload descriptor is cut short")
    }
}

impl std::error::Error for Truncated {}

impl Descriptor {
    /// Reads the descriptor at the head of an RTP payload.
    ///
    /// # Errors
    /// [`Truncated`] if the payload ends inside the descriptor.
    pub fn parse(payload: &[u8]) -> Result<Self, Truncated> {
        let mut at: u8 = 0;
        let mut next = || {
            let byte = payload.get(usize::from(at)).copied().ok_or(Truncated);
            at += 1;
            byte.map(|byte| (byte, at - 1))
        };
        let (head, _) = next()?;
        let extension = if head & 0x80 != 0 { next()?.0 } else { 0 };
        let picture_id = if extension & 0x80 != 0 {
            let (first, offset) = next()?;
            if first & 0x80 != 0 {
                let (second, _) = next()?;
                Some(PictureId { value: u16::from_be_bytes([first & 0x7f, second]), long: true, offset })
            } else {
                Some(PictureId { value: u16::from(first), long: false, offset })
            }
        } else {
            None
        };
        let tl0_pic_idx = if extension & 0x40 != 0 { Some(next()?) } else { None };
        // One byte carries TID, Y and KEYIDX: it is there if T or K is set (RFC 7741 §4.2).
        let layers = if extension & 0x30 != 0 { next()?.0 } else { 0 };
        let temporal_layer =
            (extension & 0x20 != 0).then_some(TemporalLayer { id: layers >> 6, sync: layers & 0x20 != 0 });
        let key_index = (extension & 0x10 != 0).then_some(layers & 0x1f);
        Ok(Self {
            starts_partition: head & 0x10 != 0,
            partition: head & 0x07,
            droppable: head & 0x20 != 0,
            picture_id,
            tl0_pic_idx,
            temporal_layer,
            key_index,
            length: usize::from(at),
        })
    }

    /// Whether the packet holds the first byte of a frame (RFC 7741 §4.3: S is set and PID is 0).
    pub const fn starts_frame(&self) -> bool {
        self.starts_partition && self.partition == 0
    }

    /// The frame's bytes in `payload`, from which this descriptor was read.
    pub fn body<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(self.length..).unwrap_or_default()
    }

    /// Whether `payload`, from which this descriptor was read, begins a keyframe.
    pub fn starts_keyframe(&self, payload: &[u8]) -> bool {
        self.starts_frame() && keyframe_resolution(self.body(payload)).is_some()
    }
}

/// Width and height of a keyframe, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resolution {
    /// Pixels from left to right.
    pub width: u16,
    /// Pixels from top to bottom.
    pub height: u16,
}

/// The resolution that the head of a frame declares if it is a keyframe; `None` for an inter-frame, and for
/// anything that has not the whole head of a keyframe (RFC 6386 §9.1): a damaged frame is never called a keyframe.
pub fn keyframe_resolution(frame: &[u8]) -> Option<Resolution> {
    let &[tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] = frame else {
        return None;
    };
    // Bit 0 of the frame tag is zero in keyframes; the upper two bits of each size are a scaling hint.
    let width = u16::from_le_bytes([w0, w1]) & 0x3fff;
    let height = u16::from_le_bytes([h0, h1]) & 0x3fff;
    (tag & 1 == 0 && width > 0 && height > 0).then_some(Resolution { width, height })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_descriptor_without_extensions_is_one_byte() {
        let descriptor = Descriptor::parse(&[0x10, 0xaa]).unwrap();
        assert!(descriptor.starts_frame());
        assert!(!descriptor.droppable);
        assert_eq!(descriptor.length, 1);
        assert_eq!(descriptor.picture_id, None);
        assert_eq!(descriptor.body(&[0x10, 0xaa]), [0xaa]);
    }

    #[test]
    fn every_optional_field_is_read_where_it_stands() {
        let payload = [0xb3, 0xf0, 0x92, 0x34, 0x07, 0x65, 0xff];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert!(descriptor.starts_partition && descriptor.droppable && !descriptor.starts_frame());
        assert_eq!(descriptor.partition, 3);
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x1234, long: true, offset: 2 }));
        assert_eq!(descriptor.tl0_pic_idx, Some((7, 4)));
        assert_eq!(descriptor.temporal_layer, Some(TemporalLayer { id: 1, sync: true }));
        assert_eq!(descriptor.key_index, Some(5));
        assert_eq!(descriptor.length, 6);
    }

    #[test]
    fn the_short_picture_id_wraps_at_seven_bits_and_the_long_one_at_fifteen() {
        let short = Descriptor::parse(&[0x90, 0x80, 0x7f, 0]).unwrap();
        assert_eq!(short.picture_id, Some(PictureId { value: 0x7f, long: false, offset: 2 }));
        assert_eq!(short.picture_id.unwrap().next(), 0);
        let long = Descriptor::parse(&[0x90, 0x80, 0xff, 0xff, 0]).unwrap();
        assert_eq!(long.picture_id.unwrap().next(), 0);
        assert_eq!(long.length, 4);
    }

    #[test]
    fn every_cut_descriptor_is_refused() {
        let payload = [0xb3, 0xf0, 0x92, 0x34, 0x07, 0x65];
        for length in 0..payload.len() {
            assert_eq!(Descriptor::parse(&payload[..length]), Err(Truncated), "{length} bytes");
        }
    }

    #[test]
    fn a_keyframe_tells_its_size_and_an_inter_frame_none() {
        let mut frame = [0x50, 0x01, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0xe0, 0x01, 0x00];
        assert_eq!(keyframe_resolution(&frame), Some(Resolution { width: 640, height: 480 }));
        frame[0] |= 1;
        assert_eq!(keyframe_resolution(&frame), None);
        frame[0] &= !1;
        frame[3] = 0;
        assert_eq!(keyframe_resolution(&frame), None, "without its start code it is damaged");
        assert_eq!(keyframe_resolution(&[0x50, 0x01, 0x00, 0x9d, 0x01, 0x2a, 0x80]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(descriptor) = Descriptor::parse(&payload) {
                prop_assert!(descriptor.length <= payload.len());
                let _ = descriptor.starts_keyframe(&payload);
                if let Some(picture) = descriptor.picture_id {
                    prop_assert!(usize::from(picture.offset) < descriptor.length);
                    prop_assert!(picture.next() <= 0x7fff);
                }
            }
            let _ = keyframe_resolution(&payload);
        }
    }
}
