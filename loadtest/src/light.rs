//! Packets looked at from outside: what an RTP header shows without its keys (RFC 3550, section 5.1; RFC 3711 leaves
//! it in the clear).

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Packets after which a stream's fastest is taken for known.
const SETTLED: u32 = 25;

/// How to read an answer's headers, and what was seen so far.
#[derive(Debug)]
pub(crate) struct Plain {
    voice: Vec<u8>,
    picture: Vec<u8>,
    mid: u8,
    streams: HashMap<u32, Stream>,
}

#[derive(Debug)]
struct Stream {
    highest: u64,
    seen: u32,
    began: Instant,
    timestamp: u32,
    /// Least time, in nanoseconds, that a packet took more than the first.
    fastest: i64,
}

/// What a header shows.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) ssrc: u32,
    pub(crate) mid: String,
    pub(crate) voice: bool,
    /// Without its wraps.
    pub(crate) sequence: u64,
    /// How much longer than the stream's fastest; of voice only.
    pub(crate) delay: Option<Duration>,
}

/// RFC 7983, section 7, and RFC 5761, section 4.
pub(crate) fn is_media(datagram: &[u8]) -> bool {
    matches!(*datagram, [128..=191, second, ..] if !(192..=223).contains(&second))
}

impl Plain {
    /// Payload types and the number of the `mid` extension, from the answer.
    pub(crate) fn read(answer: &str) -> Self {
        let types = |codec: &str| {
            let of = |line: &str| {
                let (number, name) = line.trim_end().strip_prefix("a=rtpmap:")?.split_once(' ')?;
                name.starts_with(codec).then(|| number.parse().ok())?
            };
            answer.lines().filter_map(of).collect()
        };
        let mid = answer.lines().find_map(|line| {
            let (number, name) = line.trim_end().strip_prefix("a=extmap:")?.split_once(' ')?;
            (name == "urn:ietf:params:rtp-hdrext:sdes:mid").then(|| number.parse().ok())?
        });
        Self { voice: types("opus/"), picture: types("VP8/"), mid: mid.unwrap_or(0), streams: HashMap::new() }
    }

    /// Looks at a datagram. `None`: it is no media: a repair, a probe.
    pub(crate) fn take(&mut self, datagram: &[u8], now: Instant) -> Option<Head> {
        let (&[first, second, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3], rest) = datagram.split_first_chunk::<12>()?;
        let payload_type = second & 0x7f;
        let voice = self.voice.contains(&payload_type);
        if !voice && !self.picture.contains(&payload_type) {
            return None;
        }
        let (sequence, timestamp) = (u16::from_be_bytes([s0, s1]), u32::from_be_bytes([t0, t1, t2, t3]));
        let ssrc = u32::from_be_bytes([r0, r1, r2, r3]);
        let extension = rest.get(usize::from(first & 0x0f) * 4..).filter(|_| first & 0x10 != 0)?;
        let mid = String::from_utf8_lossy(element(extension, self.mid)?).into_owned();
        let stream = self.streams.entry(ssrc).or_insert_with(|| Stream {
            highest: u64::from(sequence),
            seen: 0,
            began: now,
            timestamp,
            fastest: 0,
        });
        let [.., h0, h1] = stream.highest.to_be_bytes();
        let ahead = sequence.wrapping_sub(u16::from_be_bytes([h0, h1])).cast_signed();
        let sequence = stream.highest.saturating_add_signed(ahead.into());
        stream.highest = stream.highest.max(sequence);
        stream.seen = stream.seen.saturating_add(1);
        let passed = i64::try_from(now.saturating_duration_since(stream.began).as_nanos()).unwrap_or(i64::MAX);
        let meant = i64::from(timestamp.wrapping_sub(stream.timestamp).cast_signed()) * 1_000_000 / 48;
        stream.fastest = stream.fastest.min(passed.saturating_sub(meant));
        let late = passed.saturating_sub(meant).saturating_sub(stream.fastest);
        let delay = (voice && stream.seen > SETTLED).then(|| Duration::from_nanos(u64::try_from(late).unwrap_or(0)));
        Some(Head { ssrc, mid, voice, sequence, delay })
    }
}

/// An element of a header extension in its one-byte form (RFC 8285, section 4.2).
fn element(extension: &[u8], wanted: u8) -> Option<&[u8]> {
    let (&[0xbe, 0xde, l0, l1], rest) = extension.split_first_chunk::<4>()? else { return None };
    let mut rest = rest.get(..usize::from(u16::from_be_bytes([l0, l1])) * 4)?;
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
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
                          a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

    fn packet(payload_type: u8, sequence: u16, timestamp: u32) -> Vec<u8> {
        let mut packet = vec![0x90, payload_type];
        packet.extend(sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0, 0, 0, 9, 0xbe, 0xde, 0, 2, 0x10, 0x55, 0x41, b'1', b'0', 0, 0, 0, 1, 2, 3]);
        packet
    }

    #[test]
    fn a_header_shows_stream_line_and_number_over_its_wrap() {
        let (mut plain, now) = (Plain::read(ANSWER), Instant::now());
        let first = plain.take(&packet(96, 65_535, 0), now).unwrap();
        assert_eq!(first, Head { ssrc: 9, mid: "10".into(), voice: false, sequence: 65_535, delay: None });
        assert_eq!(plain.take(&packet(0xe0, 1, 0), now).unwrap().sequence, 65_537);
        assert_eq!(plain.take(&packet(96, 0, 0), now).unwrap().sequence, 65_536);
        assert_eq!(plain.take(&packet(97, 2, 0), now), None, "a repair");
        for cut in 0..packet(96, 1, 1).len() - 3 {
            plain.take(&packet(96, 1, 1)[..cut], now);
        }
    }

    #[test]
    fn what_a_voice_took_longer_than_its_fastest_is_its_delay() {
        let (mut plain, began) = (Plain::read(ANSWER), Instant::now());
        let mut at = |n: u32, late: u64| {
            let now = began + Duration::from_millis(u64::from(n) * 20 + late);
            plain.take(&packet(111, u16::try_from(n).unwrap(), n.wrapping_mul(960).wrapping_sub(5_000)), now).unwrap()
        };
        // The first was slow itself.
        at(0, 7);
        for n in 1..40 {
            at(n, 2);
        }
        assert_eq!(at(40, 5).delay, Some(Duration::from_millis(3)));
        assert_eq!(at(41, 2).delay, Some(Duration::ZERO));
    }

    #[test]
    fn media_is_told_from_stun_dtls_and_reports() {
        assert!(is_media(&[0x90, 111]) && is_media(&[0x80, 0xe0]));
        assert!(!is_media(&[0x80, 200]) && !is_media(&[0, 1]) && !is_media(&[22, 254]) && !is_media(&[]));
    }
}
