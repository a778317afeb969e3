//! RTP headers, as they stand in the clear (RFC 3550, section 5.1; RFC 3711 leaves them so): written for what we send,
//! read from what comes.

/// What the answer says of headers. Bundled m-lines share one meaning (RFC 9143, section 9). An extension whose number is
/// zero was not agreed on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Terms {
    voice: Vec<u8>,
    picture: Vec<u8>,
    mid: u8,
    audio_level: u8,
    send_time: u8,
    transport_sequence: u8,
}

/// Voice, or picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Voice,
    Picture,
}

/// RFC 7983, section 7, and RFC 5761, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rtp,
    Rtcp,
    /// STUN, DTLS, and what nobody knows.
    Other,
}

impl Kind {
    pub(super) fn of(datagram: &[u8]) -> Self {
        match *datagram {
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] => Self::Rtp,
            _ => Self::Other,
        }
    }
}

impl Terms {
    pub(super) fn read(answer: &str) -> Self {
        let types = |codec: &str| {
            let of = |line: &str| {
                let (number, name) = line.trim_end().strip_prefix("a=rtpmap:")?.split_once(' ')?;
                name.starts_with(codec).then(|| number.parse().ok())?
            };
            answer.lines().filter_map(of).collect()
        };
        let extension = |wanted: &str| {
            let of = |line: &str| {
                let (number, name) = line.trim_end().strip_prefix("a=extmap:")?.split_once(' ')?;
                // A direction may follow the number (RFC 8285, section 5); elements of one byte have numbers below 15.
                let number: u8 = number.split('/').next()?.parse().ok()?;
                (name.starts_with(wanted) && number < 15).then_some(number)
            };
            answer.lines().find_map(of).unwrap_or(0)
        };
        Self {
            voice: types("opus/"),
            picture: types("VP8/"),
            mid: extension("urn:ietf:params:rtp-hdrext:sdes:mid"),
            audio_level: extension("urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
            send_time: extension("http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
            transport_sequence: extension("http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"),
        }
    }

    /// What a packet of this type carries. `None`: a repair, or something unknown.
    pub(super) fn medium(&self, payload_type: u8) -> Option<Medium> {
        if self.voice.contains(&payload_type) {
            Some(Medium::Voice)
        } else {
            self.picture.contains(&payload_type).then_some(Medium::Picture)
        }
    }

    fn payload_type(&self, medium: Medium) -> u8 {
        let types = if medium == Medium::Voice { &self.voice } else { &self.picture };
        types.first().copied().unwrap_or(0)
    }
}

/// A header that is to be written.
pub(super) struct Outgoing<'a> {
    pub(super) medium: Medium,
    pub(super) marker: bool,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
    pub(super) mid: &'a str,
    /// Number of the packet among all that its sender sends.
    pub(super) transport_sequence: u16,
    /// Seconds, modulo 64, in 2^-18.
    pub(super) send_time: u32,
}

impl Outgoing<'_> {
    /// Writes the header at the beginning of `packet`; what was in there is gone. Gives its length.
    pub(super) fn write(&self, terms: &Terms, packet: &mut Vec<u8>) -> usize {
        packet.clear();
        packet.extend([0x90, terms.payload_type(self.medium) | if self.marker { 0x80 } else { 0 }]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend([0xbe, 0xde, 0, 0]);
        let begin = packet.len();
        let [_, t0, t1, t2] = self.send_time.to_be_bytes();
        // Speech (the first bit) of -20 dBov (RFC 6464, section 3).
        let level = if self.medium == Medium::Voice { terms.audio_level } else { 0 };
        push(packet, level, &[0x80 | 0x14]);
        push(packet, terms.send_time, &[t0, t1, t2]);
        push(packet, terms.transport_sequence, &self.transport_sequence.to_be_bytes());
        push(packet, terms.mid, self.mid.as_bytes());
        while !packet.len().is_multiple_of(4) {
            packet.push(0);
        }
        let words = u8::try_from((packet.len() - begin) / 4).unwrap_or_default();
        if let Some(place) = packet.get_mut(begin - 1) {
            *place = words;
        }
        packet.len()
    }
}

/// An element in its one-byte form (RFC 8285, section 4.2).
fn push(packet: &mut Vec<u8>, id: u8, value: &[u8]) {
    let length = u8::try_from(value.len()).unwrap_or_default();
    if id > 0 && (1..=16).contains(&length) {
        packet.push(id << 4 | (length - 1));
        packet.extend_from_slice(value);
    }
}

/// What a header shows.
#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub(super) payload_type: u8,
    pub(super) sequence: u16,
    pub(super) ssrc: u32,
    /// Of the whole header.
    pub(super) length: usize,
}

impl Head {
    pub(super) fn read(datagram: &[u8]) -> Option<Self> {
        let (&[first, second, s0, s1, _, _, _, _, r0, r1, r2, r3], rest) = datagram.split_first_chunk::<12>()?;
        let mut length = 12 + usize::from(first & 0x0f) * 4;
        if first & 0x10 != 0 {
            let (&[_, _, l0, l1], _) = rest.get(length - 12..)?.split_first_chunk::<4>()?;
            length += 4 + usize::from(u16::from_be_bytes([l0, l1])) * 4;
        }
        (length <= datagram.len()).then_some(Self {
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            ssrc: u32::from_be_bytes([r0, r1, r2, r3]),
            length,
        })
    }

    /// The name of the m-line that the datagram belongs to.
    pub(super) fn mid(&self, datagram: &[u8], terms: &Terms) -> Option<String> {
        let first = *datagram.first()?;
        let extension = datagram.get(12 + usize::from(first & 0x0f) * 4..self.length).filter(|_| first & 0x10 != 0)?;
        Some(String::from_utf8_lossy(element(extension, terms.mid)?).into_owned())
    }
}

/// An element of a header extension in its one-byte form (RFC 8285, section 4.2).
fn element(extension: &[u8], wanted: u8) -> Option<&[u8]> {
    let (&[0xbe, 0xde, _, _], mut rest) = extension.split_first_chunk::<4>()? else { return None };
    while let Some((&head, after)) = rest.split_first() {
        if head == 0 {
            rest = after;
            continue;
        }
        let (value, next) = after.split_at_checked(usize::from(head & 0x0f) + 1)?;
        if head >> 4 == wanted {
            return Some(value);
        }
        rest = next;
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::light) const ANSWER: &str = "v=0\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:96 VP8/90000\r\n\
         a=rtpmap:97 rtx/90000\r\na=extmap:1/recvonly urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
         a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
         a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let terms = Terms::read(ANSWER);
        let (mut packet, ssrc) = (vec![1, 2, 3], 0x0102_0304);
        let outgoing = Outgoing {
            medium: Medium::Voice,
            marker: true,
            sequence: 0xfffe,
            timestamp: 7,
            ssrc,
            mid: "12",
            transport_sequence: 0x0506,
            send_time: 0x0007_0809,
        };
        let length = outgoing.write(&terms, &mut packet);
        packet.extend(*b"payload");
        let head = Head::read(&packet).unwrap();
        assert_eq!(head, Head { payload_type: 111, sequence: 0xfffe, ssrc, length });
        assert_eq!(head.mid(&packet, &terms).as_deref(), Some("12"));
        let extension = &packet[12..length];
        assert_eq!(element(extension, 1), Some(&[0x94][..]));
        assert_eq!(element(extension, 2), Some(&[7, 8, 9][..]));
        assert_eq!(element(extension, 3), Some(&[5, 6][..]));
        assert_eq!(element(extension, 5), None);
        assert_eq!((terms.medium(111), terms.medium(97)), (Some(Medium::Voice), None), "97 are repairs");
        for cut in 0..packet.len() {
            let cut = &packet[..cut];
            Head::read(cut).map(|head| head.mid(cut, &terms));
        }
    }

    #[test]
    fn media_is_told_from_stun_dtls_and_reports() {
        assert_eq!([Kind::of(&[0x90, 111]), Kind::of(&[0x80, 0xe0])], [Kind::Rtp; 2]);
        assert_eq!(Kind::of(&[0x80, 200]), Kind::Rtcp);
        assert_eq!([Kind::of(&[0, 1]), Kind::of(&[22, 254]), Kind::of(&[])], [Kind::Other; 3]);
    }
}
