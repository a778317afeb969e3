//! The little of RTCP that a light client needs: sender reports out, wishes for keyframes in (RFC 3550, RFC 4585).

use std::time::SystemTime;

/// Seconds from 1900, which NTP counts from, to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;

/// What a sender says of a stream (RFC 3550, section 6.4.1).
pub(super) struct SenderReport {
    pub(super) ssrc: u32,
    pub(super) at: SystemTime,
    /// The stream's RTP clock at that time.
    pub(super) timestamp: u32,
    pub(super) packets: u32,
    pub(super) octets: u32,
}

impl SenderReport {
    /// Writes the report and, since every compound has one, the sender's name; what was in `packet` is gone.
    pub(super) fn write(&self, packet: &mut Vec<u8>) {
        packet.clear();
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = u32::try_from((since.as_secs() + NTP_EPOCH) & u64::from(u32::MAX)).unwrap_or_default();
        let fraction = u32::try_from((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000).unwrap_or(u32::MAX);
        packet.extend([0x80, 200, 0, 6]);
        for word in [self.ssrc, seconds, fraction, self.timestamp, self.packets, self.octets] {
            packet.extend(word.to_be_bytes());
        }
        // One chunk: CNAME (1) of five octets, and zeros to the word's end.
        packet.extend([0x81, 202, 0, 3]);
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(*b"\x01\x05light\0");
    }
}

/// How many keyframes a compound asks of this stream for: PLI (RFC 4585, section 6.3.1) or FIR (RFC 5104, section 4.3.1).
pub(super) fn keyframes_wanted(mut compound: &[u8], ssrc: u32) -> u64 {
    let mut wanted = 0;
    while let Some((&[first, kind, l0, l1], _)) = compound.split_first_chunk::<4>() {
        let length = 4 + usize::from(u16::from_be_bytes([l0, l1])) * 4;
        let Some((packet, rest)) = compound.split_at_checked(length) else { break };
        let names = |at: usize| packet.get(at..at + 4) == Some(&ssrc.to_be_bytes()[..]);
        wanted += u64::from(match (kind, first & 0x1f) {
            (206, 1) => names(8),
            (206, 4) => (12..packet.len()).step_by(8).any(names),
            _ => false,
        });
        compound = rest;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_report_has_the_length_that_it_says() {
        let mut packet = vec![9];
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        SenderReport { ssrc: 5, at, timestamp: 6, packets: 7, octets: 8 }.write(&mut packet);
        assert_eq!(packet.len(), 28 + 16);
        assert_eq!(&packet[8..16], &[0x83, 0xaa, 0x7e, 0x81, 0x80, 0, 0, 0], "1970 and a second and a half");
        assert_eq!(keyframes_wanted(&packet, 5), 0);
    }

    #[test]
    fn a_wish_for_a_keyframe_is_found_behind_a_report() {
        let mut compound = vec![0x80, 201, 0, 1, 0, 0, 0, 1];
        compound.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9]);
        compound.extend([0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 3, 0, 0, 0]);
        assert_eq!((keyframes_wanted(&compound, 9), keyframes_wanted(&compound, 8)), (2, 0));
        for cut in 0..compound.len() {
            keyframes_wanted(&compound[..cut], 9);
        }
    }
}
