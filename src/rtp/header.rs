//! The RTP header (RFC 3550 §5.1) and its extensions in one-byte and two-byte form (RFC 8285).
//!
//! Reading is bounded and never panics: the header is plain text that anyone can write.

use super::{Extensions, Ssrc};

/// Length of the header without CSRCs and extensions.
const FIXED: usize = 12;

/// Most bytes that [`Outgoing`] writes: the fixed header, the extensions' head, and `mid`, level and orientation at
/// their longest.
pub const LONGEST: usize = FIXED + 4 + 2 + 16 + 2 * 3 + 3;

/// In the header's first byte: the last bytes of the payload are padding, the very last says how many (RFC 3550 §5.1).
pub const PADDED: u8 = 0x20;

/// What identifies the form of the extensions (RFC 8285 §4.2, §4.3).
const ONE_BYTE: u16 = 0xbede;
const TWO_BYTE: u16 = 0x1000;

/// The header of a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last bytes of the payload are padding.
    pub padding: bool,
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number as written.
    pub sequence: u16,
    /// Timestamp as written.
    pub timestamp: u32,
    /// Stream.
    pub ssrc: Ssrc,
    /// Where the payload begins.
    pub length: usize,
    /// The extensions' form and where they begin; they end where the payload begins.
    extensions: Option<(u16, usize)>,
}

impl Header {
    /// Reads a header. `None`: it is not RTP, or is cut short.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (&fixed, rest) = packet.split_first_chunk::<FIXED>()?;
        let [flags, second, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = fixed;
        if flags >> 6 != 2 {
            return None;
        }
        let mut length = FIXED + 4 * usize::from(flags & 0x0f);
        let mut extensions = None;
        if flags & 0x10 != 0 {
            let &[p0, p1, l0, l1] = rest.get(length - FIXED..)?.first_chunk::<4>()?;
            extensions = Some((u16::from_be_bytes([p0, p1]), length + 4));
            length += 4 + 4 * usize::from(u16::from_be_bytes([l0, l1]));
        }
        if packet.len() < length {
            return None;
        }
        Some(Self {
            padding: flags & PADDED != 0,
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: Ssrc(u32::from_be_bytes([i0, i1, i2, i3])),
            length,
            extensions,
        })
    }

    /// The extension elements of the packet that this is the header of.
    pub fn elements<'a>(&self, packet: &'a [u8]) -> Elements<'a> {
        let (profile, begin) = self.extensions.unwrap_or((ONE_BYTE, self.length));
        let two_byte = profile & 0xfff0 == TWO_BYTE;
        let known = two_byte || profile == ONE_BYTE;
        let rest = packet.get(begin..self.length).filter(|_| known).unwrap_or_default();
        Elements { rest, two_byte }
    }
}

/// The bytes of a payload before its padding (RFC 3550 §5.1). `None`: the padding is longer than the payload.
pub fn without_padding(payload: &[u8]) -> Option<&[u8]> {
    let padding = usize::from(*payload.last()?);
    if padding == 0 { None } else { payload.get(..payload.len().checked_sub(padding)?) }
}

/// Extension elements: id and data. Ends at the first that is cut short.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            self.rest = rest;
            let (id, length) = if first == 0 {
                // Padding between elements.
                continue;
            } else if self.two_byte {
                let (&length, rest) = self.rest.split_first()?;
                self.rest = rest;
                (first, usize::from(length))
            } else if first >> 4 == 15 {
                // RFC 8285 §4.2: processing stops at id 15.
                self.rest = &[];
                return None;
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1)
            };
            let Some((data, rest)) = self.rest.split_at_checked(length) else {
                self.rest = &[];
                return None;
            };
            self.rest = rest;
            return Some((id, data));
        }
    }
}

/// Under which ids a session's extensions go; 0: not agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// Loudness (RFC 6464).
    pub audio_level: u8,
    /// Orientation of the picture (3GPP TS 26.114).
    pub rotation: u8,
    /// The m-line (RFC 9143 §15).
    pub mid: u8,
    /// The encoding of simulcast (RFC 8852 §4.1).
    pub rid: u8,
    /// The encoding that a repair is for (RFC 8852 §4.2).
    pub repaired_rid: u8,
    /// The number over all streams of the transport (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    pub transport_sequence: u8,
}

/// What a packet's extensions say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values<'a> {
    /// Those that are forwarded.
    pub forwarded: Extensions,
    /// The m-line.
    pub mid: Option<&'a [u8]>,
    /// The encoding.
    pub rid: Option<&'a [u8]>,
    /// The encoding that this repairs.
    pub repaired_rid: Option<&'a [u8]>,
    /// The transport's number.
    pub transport_sequence: Option<u16>,
}

impl<'a> Values<'a> {
    /// Reads the extensions of a packet.
    pub fn read(header: &Header, packet: &'a [u8], ids: &ExtensionIds) -> Self {
        let mut values = Self::default();
        for (id, data) in header.elements(packet) {
            match (id, data) {
                (0, _) => {}
                (id, &[level]) if id == ids.audio_level => {
                    values.forwarded.audio_level = Some(level & 0x7f);
                    values.forwarded.voice_activity = Some(level & 0x80 != 0);
                }
                (id, &[orientation]) if id == ids.rotation => values.forwarded.rotation = Some(orientation & 3),
                (id, &[high, low, ..]) if id == ids.transport_sequence => {
                    values.transport_sequence = Some(u16::from_be_bytes([high, low]));
                }
                (id, text) if id == ids.mid => values.mid = Some(text),
                (id, text) if id == ids.rid => values.rid = Some(text),
                (id, text) if id == ids.repaired_rid => values.repaired_rid = Some(text),
                _ => {}
            }
        }
        values
    }
}

/// A header to be written.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Stream.
    pub ssrc: Ssrc,
    /// Under which ids the receiver expects its extensions.
    pub ids: ExtensionIds,
    /// The m-line; at most 16 bytes are written.
    pub mid: &'a [u8],
    /// What is forwarded with the packet.
    pub extensions: Extensions,
}

impl Outgoing<'_> {
    /// Writes the header to the front of `out`; returns its length.
    pub fn write(&self, out: &mut [u8; LONGEST]) -> usize {
        let level = self.extensions.audio_level.map(|level| {
            let voice = if self.extensions.voice_activity == Some(true) { 0x80 } else { 0 };
            [voice | level.min(127)]
        });
        let rotation = self.extensions.rotation.map(|turns| [turns & 3]);
        let mid = self.mid.get(..16).unwrap_or(self.mid);
        let elements = [
            (self.ids.mid, Some(mid).filter(|mid| !mid.is_empty())),
            (self.ids.audio_level, level.as_ref().map(|level| &level[..])),
            (self.ids.rotation, rotation.as_ref().map(|rotation| &rotation[..])),
        ];
        let present = || elements.iter().filter_map(|&(id, data)| Some((id, data?))).filter(|&(id, _)| id != 0);
        let two_byte = present().any(|(id, _)| id > 14);
        let mut writer = Writer { out, at: 0 };
        let has_extensions = present().next().is_some();
        writer.put(&[
            if has_extensions { 0x90 } else { 0x80 },
            (if self.marker { 0x80 } else { 0 }) | (self.payload_type & 0x7f),
        ]);
        writer.put(&self.sequence.to_be_bytes());
        writer.put(&self.timestamp.to_be_bytes());
        writer.put(&self.ssrc.0.to_be_bytes());
        if has_extensions {
            writer.put(&(if two_byte { TWO_BYTE } else { ONE_BYTE }).to_be_bytes());
            writer.put(&[0, 0]);
            for (id, data) in present() {
                let length = u8::try_from(data.len()).unwrap_or_default();
                if two_byte {
                    writer.put(&[id, length]);
                } else {
                    writer.put(&[(id << 4) | length.saturating_sub(1)]);
                }
                writer.put(data);
            }
            while !(writer.at - FIXED).is_multiple_of(4) {
                writer.put(&[0]);
            }
            let words = u8::try_from((writer.at - FIXED - 4) / 4).unwrap_or_default();
            if let Some(length) = writer.out.get_mut(FIXED + 3) {
                *length = words;
            }
        }
        writer.at
    }
}

struct Writer<'a> {
    out: &'a mut [u8; LONGEST],
    at: usize,
}

impl Writer<'_> {
    /// What does not fit is not written; [`LONGEST`] has room for everything.
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.out.get_mut(self.at..self.at + bytes.len()) {
            room.copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDS: ExtensionIds =
        ExtensionIds { audio_level: 1, rotation: 13, mid: 4, rid: 10, repaired_rid: 11, transport_sequence: 3 };

    fn outgoing(ids: ExtensionIds, mid: &[u8], extensions: Extensions) -> Outgoing<'_> {
        Outgoing {
            marker: true,
            payload_type: 111,
            sequence: 0xabcd,
            timestamp: 0x1234_5678,
            ssrc: Ssrc(7),
            ids,
            mid,
            extensions,
        }
    }

    #[test]
    fn a_packet_of_a_browser_is_read_whole() {
        // Chromium: level, transport number and mid in one-byte form, two bytes of padding.
        let packet = [
            &[0x90, 0xef, 0x00, 0x07, 0, 0, 3, 0xc0, 0xde, 0xad, 0xbe, 0xef, 0xbe, 0xde, 0x00, 0x03][..],
            &[0x10, 0x8f, 0x31, 0x01, 0x02, 0x40, b'0', 0x00, 0xd0, 0x02, 0x00, 0x00],
            b"opus",
        ]
        .concat();
        let header = Header::parse(&packet).unwrap();
        assert_eq!((header.payload_type, header.sequence, header.timestamp), (111, 7, 960));
        assert!(header.marker && !header.padding);
        assert_eq!(&packet[header.length..], b"opus");
        let values = Values::read(&header, &packet, &IDS);
        assert_eq!(values.forwarded.audio_level, Some(15));
        assert_eq!(values.forwarded.voice_activity, Some(true));
        assert_eq!(values.forwarded.rotation, Some(2));
        assert_eq!((values.mid, values.transport_sequence), (Some(&b"0"[..]), Some(0x0102)));
    }

    #[test]
    fn two_byte_elements_may_be_long_or_empty() {
        let packet = [
            &[0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0x00, 0x00, 0x02][..],
            &[20, 0, 4, 3, b'm', b'i', b'd', 0],
        ]
        .concat();
        let header = Header::parse(&packet).unwrap();
        let elements: Vec<_> = header.elements(&packet).collect();
        assert_eq!(elements, [(20, &b""[..]), (4, b"mid")]);
    }

    #[test]
    fn what_was_not_agreed_on_is_neither_read_nor_written() {
        let full = Extensions { audio_level: Some(3), voice_activity: Some(false), rotation: Some(1) };
        let mut out = [0; LONGEST];
        assert_eq!(outgoing(ExtensionIds::default(), b"0", full).write(&mut out), FIXED);
        let length = outgoing(IDS, b"0", full).write(&mut out);
        let header = Header::parse(&out[..length]).unwrap();
        assert_eq!(Values::read(&header, &out[..length], &ExtensionIds::default()), Values::default());
    }

    #[test]
    fn padding_is_taken_off_and_padding_that_cannot_be_is_refused() {
        assert_eq!(without_padding(&[1, 2, 0, 2]), Some(&[1, 2][..]));
        assert_eq!(without_padding(&[0, 0, 3]), Some(&[][..]));
        assert_eq!(without_padding(&[0, 4]), None);
        assert_eq!(without_padding(&[0, 0]), None);
        assert_eq!(without_padding(&[]), None);
    }

    proptest! {
        #[test]
        fn garbage_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), first in 0x80_u8..0xc0) {
            for bytes in [bytes.clone(), [&[first][..], &bytes].concat()] {
                if let Some(header) = Header::parse(&bytes) {
                    prop_assert!(header.length <= bytes.len());
                    prop_assert!(header.elements(&bytes).count() <= bytes.len());
                    Values::read(&header, &bytes, &IDS);
                }
                without_padding(&bytes);
            }
        }

        #[test]
        fn what_is_written_is_read_again(
            level in prop::option::of(0_u8..128), voice: bool, rotation in prop::option::of(0_u8..4),
            mid in "[a-z0-9]{1,16}", high_ids: bool, sequence: u16, timestamp: u32, marker: bool,
        ) {
            let ids = if high_ids { ExtensionIds { audio_level: 200, rotation: 15, mid: 255, ..IDS } } else { IDS };
            let extensions =
                Extensions { audio_level: level, voice_activity: level.map(|_| voice), rotation };
            let mut out = [0; LONGEST];
            let written = Outgoing { marker, sequence, timestamp, ..outgoing(ids, mid.as_bytes(), extensions) };
            let length = written.write(&mut out);
            let header = Header::parse(&out[..length]).unwrap();
            prop_assert_eq!(header.length, length);
            prop_assert_eq!((header.sequence, header.timestamp, header.marker), (sequence, timestamp, marker));
            let values = Values::read(&header, &out[..length], &ids);
            prop_assert_eq!(values.forwarded, extensions);
            prop_assert_eq!(values.mid, Some(mid.as_bytes()));
        }
    }
}
