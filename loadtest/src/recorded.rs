//! What recordings hold of what was sent: originals are read with a reader that is not the server's, and each numbered
//! frame and packet is found, or in a gap that the recording itself lists, or missing.

use std::collections::{BTreeSet, HashMap};
use std::io::Cursor;
use std::ops::AddAssign;
use std::time::Duration;

use matroska_demuxer::{DemuxError, Frame, MatroskaFile};
use serde::{Deserialize, Serialize};

use crate::numbered::{Kind, Mark, Sent, digest};

/// One block of a WebM file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) kind: Kind,
    pub(crate) mark: Option<Mark>,
    pub(crate) digest: u64,
}

/// Every block of a WebM file, in order.
pub(crate) fn blocks(webm: Vec<u8>) -> Result<Vec<Block>, DemuxError> {
    let mut file = MatroskaFile::open(Cursor::new(webm))?;
    let voices: BTreeSet<u64> = file
        .tracks()
        .iter()
        .filter(|track| track.codec_id() == "A_OPUS")
        .map(|track| track.track_number().get())
        .collect();
    let (mut blocks, mut frame) = (Vec::new(), Frame::default());
    while file.next_frame(&mut frame)? {
        let kind = if voices.contains(&frame.track) { Kind::Voice } else { Kind::Picture };
        blocks.push(Block { kind, mark: Mark::read(&frame.data), digest: digest(&frame.data) });
    }
    Ok(blocks)
}

/// Packets that the lines beside originals say never came, by stream: the first sequence number, without rollovers, and
/// how many.
#[derive(Debug, Default)]
pub(crate) struct Gaps(HashMap<u32, Vec<(u64, u64)>>);

impl Gaps {
    /// Takes in the lines beside an original; those that are not about gaps say nothing here.
    pub(crate) fn read(&mut self, lines: &str) {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Line {
            Gap {
                ssrc: u32,
                first: u64,
                packets: u64,
            },
            #[serde(other)]
            Other,
        }
        for line in lines.lines() {
            if let Ok(Line::Gap { ssrc, first, packets }) = serde_json::from_str(line) {
                self.0.entry(ssrc).or_default().push((first, packets));
            }
        }
    }

    /// Whether any of these packets is in one.
    fn hold(&self, ssrc: u32, sequence: u64, packets: u16) -> bool {
        let overlaps = |&(first, count): &(u64, u64)| {
            first < sequence + u64::from(packets) && sequence < first.saturating_add(count)
        };
        self.0.get(&ssrc).is_some_and(|gaps| gaps.iter().any(overlaps))
    }
}

/// What became of what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Frames or packets that were sent.
    pub sent: u64,
    /// Of these, in the recording as they were sent.
    pub found: u64,
    /// Not there, and the recording lists a gap that explains it: one of its packets is in it, or it is a picture that
    /// refers to one that is.
    pub in_gaps: u64,
    /// Not there: the last moments of a connection whose network was bad or gone. They may never have come.
    pub at_the_end: u64,
    /// Not there, and nothing explains it.
    pub missing: u64,
    /// There, but not as they were sent.
    pub altered: u64,
    /// There more than once.
    pub repeated: u64,
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.found += other.found;
        self.in_gaps += other.in_gaps;
        self.at_the_end += other.at_the_end;
        self.missing += other.missing;
        self.altered += other.altered;
        self.repeated += other.repeated;
    }
}

impl Verdict {
    /// Whether all that was sent is there, or the recording itself explains why not.
    pub(crate) fn is_whole(&self) -> bool {
        self.missing == 0 && self.altered == 0 && self.repeated == 0
    }
}

/// Nothing that was sent longer than this before a bad connection's end is excused by that end. Longer than what waits to
/// be sent again; longer still, and a recorder that stopped early would go unseen.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// Holds what one person sent of one kind, by number, against the digests of their blocks. `unsure`: connections whose
/// last packets may never have come.
pub(crate) fn judge(sent: &[Sent], blocks: &HashMap<u64, Vec<u64>>, gaps: &Gaps, unsure: &BTreeSet<u32>) -> Verdict {
    let mut found = Verdict::default();
    let last_found = last_of_connections(sent.iter().filter(|sent| blocks.contains_key(&sent.number)));
    let last_sent = last_of_connections(sent.iter());
    let mut sequences = Sequences::default();
    // Pictures after a missing one cannot be decoded until a keyframe comes; voices can, and are keyframes all.
    let mut broken = false;
    for sent in sent {
        found.sent += 1;
        let sequence = sequences.of(sent);
        let in_gap = gaps.hold(sent.ssrc, sequence, sent.packets);
        match blocks.get(&sent.number).map(Vec::as_slice) {
            Some([digest]) if *digest == sent.digest => found.found += 1,
            Some([_]) => found.altered += 1,
            Some([..]) => found.repeated += 1,
            None if in_gap || broken && !sent.keyframe => {
                found.in_gaps += 1;
                broken = true;
                continue;
            }
            None => {
                let after_all = last_found.get(&sent.connection).is_none_or(|last| last.number < sent.number);
                let end = last_sent.get(&sent.connection).map(|last| last.sent);
                let at_the_end = end.is_some_and(|end| end.saturating_duration_since(sent.sent) <= LAST_MOMENTS);
                if unsure.contains(&sent.connection) && after_all && at_the_end {
                    found.at_the_end += 1;
                } else {
                    found.missing += 1;
                }
            }
        }
        broken = false;
    }
    found
}

fn last_of_connections<'a>(sent: impl Iterator<Item = &'a Sent>) -> HashMap<u32, &'a Sent> {
    sent.map(|sent| (sent.connection, sent)).collect()
}

/// Sequence numbers without rollovers, of what was sent in order.
#[derive(Default)]
struct Sequences(HashMap<u32, u64>);

impl Sequences {
    fn of(&mut self, sent: &Sent) -> u64 {
        let at = self.0.entry(sent.ssrc).or_insert_with(|| sent.sequence.into());
        let [.., h0, h1] = at.to_be_bytes();
        *at += u64::from(sent.sequence.wrapping_sub(u16::from_be_bytes([h0, h1])));
        *at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn sent(number: u64, keyframe: bool) -> Sent {
        let now = Instant::now();
        Sent {
            number,
            connection: 1,
            ssrc: 9,
            // Three packets each; they wrap around.
            sequence: u16::try_from((65_530 + 3 * number) & 0xffff).unwrap(),
            packets: 3,
            rtp: 0,
            keyframe,
            digest: number,
            captured: now,
            sent: now + Duration::from_millis(41) * u32::try_from(number).unwrap(),
        }
    }

    fn blocks(numbers: impl IntoIterator<Item = u64>) -> HashMap<u64, Vec<u64>> {
        numbers.into_iter().map(|number| (number, vec![number])).collect()
    }

    fn ten() -> Vec<Sent> {
        (0..10).map(|number| sent(number, number == 0 || number == 7)).collect()
    }

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_missing() {
        let (none, sure) = (Gaps::default(), BTreeSet::new());
        let whole = judge(&ten(), &blocks(0..10), &none, &sure);
        assert_eq!(whole, Verdict { sent: 10, found: 10, ..Verdict::default() });
        let holed = judge(&ten(), &blocks((0..10).filter(|n| *n != 4)), &none, &sure);
        assert_eq!(holed, Verdict { sent: 10, found: 9, missing: 1, ..Verdict::default() });
        let mut changed = blocks(0..10);
        changed.insert(3, vec![77]);
        changed.insert(5, vec![5, 5]);
        let changed = judge(&ten(), &changed, &none, &sure);
        assert_eq!((changed.altered, changed.repeated, changed.found), (1, 1, 8));
        assert!(whole.is_whole() && !holed.is_whole() && !changed.is_whole());
    }

    #[test]
    fn a_listed_gap_explains_its_frame_and_those_that_refer_to_it_up_to_the_next_keyframe() {
        let mut gaps = Gaps::default();
        // The second packet of the third frame: 65,530 + 6 + 1 without rollovers.
        gaps.read("{\"type\":\"gap\",\"source\":\"camera\",\"ssrc\":9,\"first\":65537,\"packets\":1,\"at_ns\":1}\n");
        gaps.read("{\"type\":\"silence\",\"source\":\"camera\",\"from_ns\":1,\"to_ns\":2}\nnot even JSON\n");
        let judged = judge(&ten(), &blocks([0, 1, 7, 8, 9]), &gaps, &BTreeSet::new());
        assert_eq!(judged, Verdict { sent: 10, found: 5, in_gaps: 5, ..Verdict::default() });
        // The keyframe after it is not explained by it.
        let judged = judge(&ten(), &blocks([0, 1, 8, 9]), &gaps, &BTreeSet::new());
        assert_eq!((judged.missing, judged.in_gaps), (1, 5));
        // Another stream's gap explains nothing.
        let mut other = Gaps::default();
        other.read("{\"type\":\"gap\",\"ssrc\":8,\"first\":65537,\"packets\":1}");
        assert_eq!(judge(&ten(), &blocks([0, 1, 7, 8, 9]), &other, &BTreeSet::new()).missing, 5);
    }

    #[test]
    fn only_the_last_moments_of_a_bad_connection_are_excused() {
        let (none, bad) = (Gaps::default(), BTreeSet::from([1]));
        let cut = judge(&ten(), &blocks(0..8), &none, &bad);
        assert_eq!(cut, Verdict { sent: 10, found: 8, at_the_end: 2, ..Verdict::default() });
        assert_eq!(judge(&ten(), &blocks(0..8), &none, &BTreeSet::new()).missing, 2);
        let hundred: Vec<Sent> = (0..100).map(|number| sent(number, true)).collect();
        let early = judge(&hundred, &blocks(0..50), &none, &bad);
        assert_eq!((early.missing, early.at_the_end), (25, 25), "the last second alone");
    }

    #[test]
    fn a_file_that_is_no_webm_is_an_error() {
        for bytes in [&b""[..], b"RIFF", &[0x1a, 0x45, 0xdf, 0xa3], &[0xff; 300]] {
            assert!(super::blocks(bytes.to_vec()).is_err());
        }
    }
}
