//! A view of an original in which players can jump: the same clusters to the byte, behind a front that says how long the
//! film is and where its keyframes are. An original itself is only ever appended to, so it has neither.
//!
//! Pure but for the reading of the original.

use std::io::{self, Read};

use super::read::{self, Malformed, Pieces, TrackContent};

/// A segment's head with a size of eight bytes follows this id (RFC 8794 §4).
const SEGMENT_ID: [u8; 4] = [0x18, 0x53, 0x80, 0x67];
const INFO_ID: [u8; 4] = [0x15, 0x49, 0xa9, 0x66];
const TRACKS_ID: [u8; 4] = [0x16, 0x54, 0xae, 0x6b];
const CUES_ID: [u8; 4] = [0x1c, 0x53, 0xbb, 0x6b];
const DURATION_ID: [u8; 2] = [0x44, 0x89];

/// A cue with its times and places as numbers of eight bytes: so the front's length depends on their number alone.
const CUE_BYTES: u64 = 27;

/// Points to which one can jump in a film without pictures: finer helps nobody.
const SOUND_CUES_EVERY_MS: u64 = 1_000;

/// Most cues of a view. A camera's keyframes come seconds apart, so a day has fewer; more would only cost memory.
const MOST_CUES: usize = 65_536;

/// How long the last block lasts.
const LAST_BLOCK_MS: u64 = 20;

/// What stands in the view instead of the original's own header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// EBML header, segment of a known size, Info with a duration, Tracks, Cues.
    pub bytes: Vec<u8>,
    /// So many bytes of the original stand for that there.
    pub replaces: u64,
}

impl Front {
    /// Its length, bytes.
    pub fn length(&self) -> u64 {
        length_of(&self.bytes)
    }
}

#[derive(Clone, Copy, Debug)]
struct Cue {
    ms: u64,
    /// Bytes from the first cluster.
    cluster: u64,
}

/// Reads a plain original to its end, and makes the front of its view. What comes after the last whole cluster is not
/// part of it.
///
/// # Errors
/// It cannot be read, or is no original (`InvalidData`).
pub fn front(original: impl Read) -> io::Result<Front> {
    let invalid = |Malformed(what)| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut pieces = Pieces::new(original);
    let head = pieces.next().transpose()?.unwrap_or_default();
    let tracks = read::header(&head).map_err(invalid)?.tracks;
    let video = tracks.iter().find(|track| matches!(track.content, TrackContent::Video(_)));
    let lead = video.or(tracks.first()).map_or(1, |track| track.number);
    let (mut cues, mut end_ms, mut clusters): (Vec<Cue>, u64, u64) = (Vec::new(), 0, 0);
    for piece in pieces {
        let piece = piece?;
        // A crash may have left half a cluster behind.
        let Ok(cluster) = read::cluster(&piece) else { break };
        let mut keyframe = None;
        for block in cluster.blocks() {
            let block = block.map_err(invalid)?;
            end_ms = end_ms.max(block.ms + LAST_BLOCK_MS);
            if keyframe.is_none() && block.keyframe && block.track == lead {
                keyframe = Some(block.ms);
            }
        }
        let due = |ms: u64| video.is_some() || cues.last().is_none_or(|last| ms >= last.ms + SOUND_CUES_EVERY_MS);
        if cues.is_empty() {
            // Whoever jumps to before the first picture hears what was said until then.
            cues.push(Cue { ms: 0, cluster: 0 });
        } else if let Some(ms) = keyframe.filter(|ms| due(*ms) && cues.len() < MOST_CUES) {
            cues.push(Cue { ms, cluster: clusters });
        }
        clusters += length_of(&piece);
    }
    Ok(Front {
        bytes: lay(&head, lead, end_ms, &cues, clusters).ok_or(invalid(Malformed("no header")))?,
        replaces: length_of(&head),
    })
}

fn lay(head: &[u8], lead: u8, end_ms: u64, cues: &[Cue], clusters: u64) -> Option<Vec<u8>> {
    let (ebml, segment) = split(head, SEGMENT_ID)?;
    let (_, info) = split(segment, INFO_ID)?;
    let (info, tracks) = split(info, TRACKS_ID)?;
    // The Info's own size takes one byte or more: its length is read by its first bit (RFC 8794 §4).
    let size = usize::try_from(info.get(4)?.leading_zeros()).ok()? + 1;
    let mut told = info.get(4 + size..)?.to_vec();
    told.extend(DURATION_ID);
    told.push(0x88);
    #[expect(clippy::cast_precision_loss, reason = "exact up to 285,000 years")]
    told.extend((end_ms as f64).to_be_bytes());

    let mut front = element(&INFO_ID, &told);
    front.extend(tracks);
    let listed = CUE_BYTES.checked_mul(u64::try_from(cues.len()).ok()?)?;
    let before_clusters = length_of(&front) + 12 + listed;
    let mut points = Vec::new();
    for cue in cues {
        points.extend([0xbb, 0x99, 0xb3, 0x88]);
        points.extend(cue.ms.to_be_bytes());
        points.extend([0xb7, 0x8d, 0xf7, 0x81, lead, 0xf1, 0x88]);
        points.extend((before_clusters + cue.cluster).to_be_bytes());
    }
    front.extend(element(&CUES_ID, &points));

    let mut bytes = ebml.to_vec();
    bytes.extend(SEGMENT_ID);
    bytes.extend(sized(length_of(&front) + clusters));
    bytes.extend(front);
    Some(bytes)
}

/// An element with a size of eight bytes.
fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_vec();
    bytes.extend(sized(length_of(body)));
    bytes.extend(body);
    bytes
}

/// A size of eight bytes: seven of them say it.
fn sized(length: u64) -> [u8; 8] {
    (length | 1 << 56).to_be_bytes()
}

/// What stands before this id, and from it on.
fn split(bytes: &[u8], id: [u8; 4]) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(bytes.windows(4).position(|window| window == id)?)
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::webm::{self, SimpleBlock, Track, TrackKind};
    use super::*;
    use crate::rtp::vp8::Resolution;

    /// A film of so many seconds: sound from the beginning, pictures half a second later, a keyframe each three seconds.
    fn original(seconds: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
        let size = Resolution { width: 320, height: 240 };
        let tracks = [
            Track { kind: TrackKind::Video(size), uid: 1, name: "camera" },
            Track { kind: TrackKind::Audio, uid: 2, name: "microphone" },
        ];
        let head = webm::header(&tracks, Timestamp::UNIX_EPOCH).unwrap();
        let clusters = (0..2 * seconds).map(|n| {
            let picture = SimpleBlock { track: 1, offset: 0, keyframe: (n + 5) % 6 == 0, data: b"picture" };
            let sound = SimpleBlock { track: 2, offset: 0, keyframe: true, data: b"sound" };
            let blocks = [picture, sound];
            webm::cluster(500 * n, if n == 0 { blocks.get(1..).unwrap() } else { &blocks }).unwrap()
        });
        let clusters = clusters.collect();
        (head, clusters)
    }

    fn walk(bytes: &[u8]) -> (u64, Vec<(u64, u64)>) {
        let at = bytes.windows(4).position(|window| window == CUES_ID).unwrap();
        let data = bytes.windows(4).position(|window| window == SEGMENT_ID).unwrap() + 12;
        let number = |from: usize| u64::from_be_bytes(bytes[from..from + 8].try_into().unwrap());
        let count = (number(at + 4) & !(1 << 56)) / CUE_BYTES;
        let cues = (0..usize::try_from(count).unwrap()).map(|n| at + 12 + n * 27);
        (u64::try_from(data).unwrap(), cues.map(|cue| (number(cue + 4), number(cue + 19))).collect())
    }

    #[test]
    fn every_cue_of_the_view_points_at_a_cluster_with_a_keyframe_and_the_clusters_are_the_originals() {
        let (head, clusters) = original(20);
        let film = [head.clone(), clusters.concat()].concat();
        let front = front(film.as_slice()).unwrap();
        assert_eq!(front.replaces, length_of(&head));
        let view = [front.bytes.as_slice(), &film[head.len()..]].concat();
        let (data, cues) = walk(&view);
        assert_eq!(cues.len(), 1 + 7);
        assert_eq!(cues[0].0, 0);
        for (ms, place) in cues {
            let cluster = &view[usize::try_from(data + place).unwrap()..];
            let n = usize::try_from(ms / 500).unwrap();
            assert!(cluster.starts_with(&clusters[n]), "{ms} ms");
        }
    }

    #[test]
    fn half_a_cluster_at_the_end_is_not_counted_and_what_is_no_original_is_refused() {
        let (head, clusters) = original(4);
        let whole = [head.clone(), clusters.concat()].concat();
        let torn = [whole.as_slice(), &clusters[0][..9]].concat();
        assert_eq!(front(torn.as_slice()).unwrap(), front(whole.as_slice()).unwrap());
        for other in [&b""[..], b"no film", &head[..20]] {
            assert_eq!(front(other).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
