//! RTCP: compound packets read and built (RFC 3550 §6, RFC 4585 §6, RFC 5104 §4.3.1).
//!
//! Reading goes item by item over the bytes and never panics; what is not understood is skipped.

use super::Ssrc;

/// Packet types (RFC 3550 §12.1, RFC 4585 §6.1).
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// Feedback formats: generic NACK (RFC 4585 §6.2.1), transport-wide feedback (draft-holmer-rmcat-…-01 §3.1), PLI
/// (RFC 4585 §6.3.1), FIR (RFC 5104 §4.3.1).
const NACK: u8 = 1;
const TRANSPORT_WIDE: u8 = 15;
const PLI: u8 = 1;
const FIR: u8 = 4;

/// Report blocks in one report: its count has five bits.
pub const MOST_BLOCKS: usize = 31;

/// How one stream was received (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The stream; `Ssrc` has no default, so the number.
    pub ssrc: u32,
    /// Share of packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all; duplicates may make it negative. 24 bits on the wire.
    pub lost: i32,
    /// Highest extended sequence number.
    pub highest: u32,
    /// Interarrival jitter in ticks.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report.
    pub last_report: u32,
    /// Time since that came, in 1/65536 s.
    pub since_last_report: u32,
}

/// What a sender says of itself (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// The stream.
    pub ssrc: Ssrc,
    /// Its clock.
    pub ntp: u64,
    /// The same moment on the RTP clock.
    pub rtp_timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
}

/// One item of a compound packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// SR, without its blocks.
    SenderReport(SenderInfo),
    /// A block of an SR or RR.
    Block(Block),
    /// BYE of one stream.
    Goodbye(Ssrc),
    /// A packet that is missing from a stream.
    Nack {
        /// The stream.
        media: Ssrc,
        /// The sequence number.
        sequence: u16,
    },
    /// A picture was lost.
    Pli(Ssrc),
    /// A full picture is asked for.
    Fir(Ssrc),
    /// Transport-wide feedback, from its base sequence number on.
    TransportFeedback(&'a [u8]),
}

/// Calls `each` with every item of a compound packet, in order.
pub fn read<'a>(mut compound: &'a [u8], mut each: impl FnMut(Item<'a>)) {
    while let Some((&[flags, kind, l0, l1], rest)) = compound.split_first_chunk::<4>() {
        let length = 4 * usize::from(u16::from_be_bytes([l0, l1]));
        let Some((body, next)) = rest.split_at_checked(length) else { return };
        if flags >> 6 != 2 {
            return;
        }
        compound = next;
        // RFC 3550 §6.4.1: padding is part of the packet's length.
        let body = if flags & 0x20 != 0 {
            let padding = body.last().map(|&padding| usize::from(padding)).unwrap_or_default();
            body.len().checked_sub(padding).and_then(|end| body.get(..end)).unwrap_or_default()
        } else {
            body
        };
        read_one(flags & 0x1f, kind, body, &mut each);
    }
}

fn read_one<'a>(count: u8, kind: u8, body: &'a [u8], each: &mut impl FnMut(Item<'a>)) {
    match kind {
        SENDER_REPORT => {
            let Some((head, blocks)) = body.split_first_chunk::<24>() else { return };
            let [ssrc, ntp_high, ntp_low, rtp_timestamp, packets, octets] = words::<6>(head);
            let ntp = (u64::from(ntp_high) << 32) | u64::from(ntp_low);
            each(Item::SenderReport(SenderInfo { ssrc: Ssrc(ssrc), ntp, rtp_timestamp, packets, octets }));
            read_blocks(count, blocks, each);
        }
        RECEIVER_REPORT => read_blocks(count, body.get(4..).unwrap_or_default(), each),
        GOODBYE => {
            for source in body.chunks_exact(4).take(usize::from(count)) {
                let [ssrc] = words::<1>(source);
                each(Item::Goodbye(Ssrc(ssrc)));
            }
        }
        TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK => {
            let Some((head, rest)) = body.split_first_chunk::<8>() else { return };
            let [_, media] = words::<2>(head);
            match (kind, count) {
                (TRANSPORT_FEEDBACK, NACK) => {
                    for pair in rest.chunks_exact(4) {
                        let &[p0, p1, b0, b1] = pair else { continue };
                        let (first, others) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([b0, b1]));
                        each(Item::Nack { media: Ssrc(media), sequence: first });
                        for bit in (0..16).filter(|bit| others & (1 << bit) != 0) {
                            each(Item::Nack { media: Ssrc(media), sequence: first.wrapping_add(bit + 1) });
                        }
                    }
                }
                (TRANSPORT_FEEDBACK, TRANSPORT_WIDE) => each(Item::TransportFeedback(rest)),
                (PAYLOAD_FEEDBACK, PLI) => each(Item::Pli(Ssrc(media))),
                (PAYLOAD_FEEDBACK, FIR) => {
                    for entry in rest.chunks_exact(8) {
                        let [ssrc, _] = words::<2>(entry);
                        each(Item::Fir(Ssrc(ssrc)));
                    }
                }
                _ => {}
            }
        }
        _ => {}
    }
}

fn read_blocks<'a>(count: u8, bytes: &'a [u8], each: &mut impl FnMut(Item<'a>)) {
    for block in bytes.chunks_exact(24).take(usize::from(count)) {
        let [ssrc, loss, highest, jitter, last_report, since_last_report] = words::<6>(block);
        let [fraction_lost, ..] = loss.to_be_bytes();
        // The lower 24 bits are signed.
        let lost = (loss << 8).cast_signed() >> 8;
        each(Item::Block(Block { ssrc, fraction_lost, lost, highest, jitter, last_report, since_last_report }));
    }
}

/// The first `N` big-endian words; zero where there are none.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut out = [0; N];
    for (out, word) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *out = word.try_into().map(u32::from_be_bytes).unwrap_or_default();
    }
    out
}

/// Builds a compound packet at the end of a buffer.
#[derive(Debug)]
pub struct Compound<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Compound<'a> {
    /// Begins a compound.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Bytes so far.
    pub fn length(&self) -> usize {
        self.out.len()
    }

    /// SR without blocks; those follow in an RR.
    pub fn sender_report(&mut self, info: &SenderInfo) {
        let [high, low] = [info.ntp >> 32, info.ntp & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or_default());
        self.packet(0, SENDER_REPORT, |out| {
            for word in [info.ssrc.0, high, low, info.rtp_timestamp, info.packets, info.octets] {
                out.extend_from_slice(&word.to_be_bytes());
            }
        });
    }

    /// RR with at most [`MOST_BLOCKS`] blocks.
    pub fn receiver_report(&mut self, sender: Ssrc, blocks: &[Block]) {
        let blocks = blocks.get(..MOST_BLOCKS).unwrap_or(blocks);
        self.packet(u8::try_from(blocks.len()).unwrap_or_default(), RECEIVER_REPORT, |out| {
            out.extend_from_slice(&sender.0.to_be_bytes());
            for block in blocks {
                // RFC 3550 §6.4.1: the count is clamped to 24 bits.
                let [_, l0, l1, l2] = block.lost.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes();
                out.extend_from_slice(&block.ssrc.to_be_bytes());
                out.extend_from_slice(&[block.fraction_lost, l0, l1, l2]);
                for word in [block.highest, block.jitter, block.last_report, block.since_last_report] {
                    out.extend_from_slice(&word.to_be_bytes());
                }
            }
        });
    }

    /// SDES with one stream's canonical name (RFC 3550 §6.5.1), at most 255 bytes of it.
    pub fn canonical_name(&mut self, ssrc: Ssrc, name: &[u8]) {
        let name = name.get(..255).unwrap_or(name);
        self.packet(1, SOURCE_DESCRIPTION, |out| {
            out.extend_from_slice(&ssrc.0.to_be_bytes());
            out.extend_from_slice(&[1, u8::try_from(name.len()).unwrap_or_default()]);
            out.extend_from_slice(name);
            // At least one zero ends the chunk, up to the next word.
            let used = 2 + name.len();
            out.resize(out.len() + 4 - used % 4, 0);
        });
    }

    /// BYE of streams; beyond 31 they need another.
    pub fn goodbye(&mut self, streams: &[Ssrc]) {
        let streams = streams.get(..MOST_BLOCKS).unwrap_or(streams);
        self.packet(u8::try_from(streams.len()).unwrap_or_default(), GOODBYE, |out| {
            for ssrc in streams {
                out.extend_from_slice(&ssrc.0.to_be_bytes());
            }
        });
    }

    /// NACK of sequence numbers that rise.
    pub fn nack(&mut self, sender: Ssrc, media: Ssrc, sequences: &[u16]) {
        self.feedback(TRANSPORT_FEEDBACK, NACK, sender, media, |out| {
            let mut rest = sequences;
            while let Some((&first, mut following)) = rest.split_first() {
                let mut others = 0_u16;
                while let Some((&next, tail)) = following.split_first() {
                    let ahead = next.wrapping_sub(first);
                    if !(1..=16).contains(&ahead) {
                        break;
                    }
                    others |= 1 << (ahead - 1);
                    following = tail;
                }
                out.extend_from_slice(&first.to_be_bytes());
                out.extend_from_slice(&others.to_be_bytes());
                rest = following;
            }
        });
    }

    /// PLI.
    pub fn pli(&mut self, sender: Ssrc, media: Ssrc) {
        self.feedback(PAYLOAD_FEEDBACK, PLI, sender, media, |_| {});
    }

    /// Transport-wide feedback; `fill` writes it from the base sequence number on, and it is padded to a whole word.
    pub fn transport_feedback(&mut self, sender: Ssrc, media: Ssrc, fill: impl FnOnce(&mut Vec<u8>)) {
        self.feedback(TRANSPORT_FEEDBACK, TRANSPORT_WIDE, sender, media, |out| {
            let begin = out.len();
            fill(out);
            out.resize(begin + (out.len() - begin).next_multiple_of(4), 0);
        });
    }

    fn feedback(&mut self, kind: u8, format: u8, sender: Ssrc, media: Ssrc, fill: impl FnOnce(&mut Vec<u8>)) {
        self.packet(format, kind, |out| {
            out.extend_from_slice(&sender.0.to_be_bytes());
            out.extend_from_slice(&media.0.to_be_bytes());
            fill(out);
        });
    }

    fn packet(&mut self, count: u8, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        let begin = self.out.len();
        self.out.extend_from_slice(&[0x80 | count, kind, 0, 0]);
        fill(self.out);
        let words = u16::try_from((self.out.len() - begin) / 4 - 1).unwrap_or_default();
        if let Some(length) = self.out.get_mut(begin + 2..begin + 4) {
            length.copy_from_slice(&words.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(compound: &[u8]) -> Vec<Item<'_>> {
        let mut items = Vec::new();
        read(compound, |item| items.push(item));
        items
    }

    #[test]
    fn a_compound_of_everything_is_read_as_it_was_built() {
        let info = SenderInfo { ssrc: Ssrc(1), ntp: 0x0123_4567_89ab_cdef, rtp_timestamp: 5, packets: 6, octets: 7 };
        let block = Block {
            ssrc: 9,
            fraction_lost: 128,
            lost: -3,
            highest: 70_000,
            jitter: 4,
            last_report: 5,
            since_last_report: 6,
        };
        let mut out = Vec::new();
        let mut compound = Compound::new(&mut out);
        compound.sender_report(&info);
        compound.receiver_report(Ssrc(1), &[block]);
        compound.canonical_name(Ssrc(1), b"name");
        compound.nack(Ssrc(1), Ssrc(9), &[65_534, 65_535, 3, 30]);
        compound.pli(Ssrc(1), Ssrc(9));
        compound.transport_feedback(Ssrc(1), Ssrc(9), |out| out.extend([1, 2, 3, 4, 5]));
        compound.goodbye(&[Ssrc(1), Ssrc(2)]);
        assert_eq!(out.len() % 4, 0);
        let nack = |sequence| Item::Nack { media: Ssrc(9), sequence };
        let expected = [
            Item::SenderReport(info),
            Item::Block(block),
            nack(65_534),
            nack(65_535),
            nack(3),
            nack(30),
            Item::Pli(Ssrc(9)),
            Item::TransportFeedback(&[1, 2, 3, 4, 5, 0, 0, 0]),
            Item::Goodbye(Ssrc(1)),
            Item::Goodbye(Ssrc(2)),
        ];
        assert_eq!(items(&out), expected);
    }

    #[test]
    fn names_of_every_length_end_in_a_zero_on_a_whole_word() {
        for length in 0..300 {
            let mut out = Vec::new();
            Compound::new(&mut out).canonical_name(Ssrc(1), &vec![b'n'; length]);
            assert_eq!(out.len() % 4, 0);
            assert_eq!(out.last(), Some(&0));
            assert_eq!(usize::from(u16::from_be_bytes([out[2], out[3]])) * 4 + 4, out.len());
        }
    }

    #[test]
    fn a_full_intra_request_names_its_streams() {
        let fir = [0x84, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0];
        assert_eq!(items(&fir), [Item::Fir(Ssrc(9)), Item::Fir(Ssrc(8))]);
    }

    proptest! {
        #[test]
        fn garbage_is_read_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 200_u8..208) {
            read(&bytes, |_| {});
            if bytes.len() >= 4 {
                bytes[0] = 0x80 | (bytes[0] & 0x3f);
                bytes[1] = kind;
                bytes[2] = 0;
                let mut count = 0;
                read(&bytes, |_| count += 1);
                // Seventeen from each four bytes at most.
                prop_assert!(count <= bytes.len() * 17 / 4);
            }
        }

        #[test]
        fn every_list_of_missing_numbers_is_asked_for_as_it_is(start: u16, steps in prop::collection::vec(1_u16..40, 1..60)) {
            let mut sequence = start;
            let sequences: Vec<u16> = steps.iter().map(|step| { sequence = sequence.wrapping_add(*step); sequence }).collect();
            let mut out = Vec::new();
            Compound::new(&mut out).nack(Ssrc(1), Ssrc(2), &sequences);
            let asked: Vec<u16> = items(&out).iter().map(|item| match item {
                Item::Nack { sequence, .. } => *sequence,
                other => panic!("{other:?}"),
            }).collect();
            prop_assert_eq!(asked, sequences);
        }
    }
}
