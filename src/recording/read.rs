//! Reads originals back: the pieces of one (header, then clusters, as the chain names them) to tracks and blocks.
//!
//! Pure, and strict: an original has the one structure that this recorder writes. Whatever the bytes are, reading them
//! ends in blocks or in a word about what is wrong, and takes no more memory than the piece itself. What checks a file
//! and what plays it use this one parser.

use std::io::{self, Read};

use jiff::{SignedDuration, Timestamp};

use super::webm::MATROSKA_EPOCH;
use crate::rtp::vp8::Resolution;

/// A piece longer than this is not ours: a cluster holds less than a second.
pub(super) const LARGEST_PIECE: u64 = 256 << 20;

/// A block later than this is not ours: no room is open for a day.
const LATEST_MS: u64 = 24 * 3_600 * 1_000;

/// Tracks that an original can have: a camera or a screen, and a microphone.
const MOST_TRACKS: usize = 8;

/// What is wrong with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) &'static str);

/// An original's first piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The tracks, in the order of the file.
    pub tracks: Vec<TrackHeader>,
    /// Wall time of the file's zero.
    pub wall: Option<Timestamp>,
}

/// A track as the header declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackHeader {
    /// Its number in blocks.
    pub number: u8,
    /// What it holds.
    pub content: TrackContent,
}

/// What a track holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackContent {
    /// VP8; the size is that of the first keyframe, or a guess if none had come.
    Video(Resolution),
    /// Opus. A decoder's first so many samples at 48 kHz come from before the first block's time.
    Audio {
        /// Samples at 48 kHz.
        pre_skip: u16,
    },
}

/// A cluster whose frame is sound; its blocks are read one by one.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// Milliseconds from the file's zero.
    pub ms: u64,
    blocks: &'a [u8],
}

/// A block of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Number of its track.
    pub track: u8,
    /// Milliseconds from the file's zero.
    pub ms: u64,
    /// Can be decoded without anything before it.
    pub keyframe: bool,
    /// The frame or packet.
    pub data: &'a [u8],
}

/// Reads an original's first piece.
///
/// # Errors
/// If it is not the head of an original, whole and with nothing after it.
pub fn header(piece: &[u8]) -> Result<Header, Malformed> {
    let (id, ebml, rest) = whole_element(piece)?;
    if id != EBML {
        return Err(Malformed("no EBML header at its start"));
    }
    if child(ebml, DOC_TYPE)? != Some(b"webm") {
        return Err(Malformed("another document type than webm"));
    }
    let (id, size, rest) = element_head(rest)?;
    if id != SEGMENT || size.is_some() {
        return Err(Malformed("no segment of unknown size after the EBML header"));
    }
    let (info_id, info, rest) = whole_element(rest)?;
    let (tracks_id, tracks, rest) = whole_element(rest)?;
    if (info_id, tracks_id) != (INFO, TRACKS) || !rest.is_empty() {
        return Err(Malformed("the segment does not begin with Info and Tracks alone"));
    }
    if child(info, TIMESTAMP_SCALE)?.map(unsigned).transpose()? != Some(1_000_000) {
        return Err(Malformed("times that are not in milliseconds"));
    }
    let wall = child(info, DATE_UTC)?.and_then(date);
    let mut header = Header { tracks: Vec::new(), wall };
    for element in Elements(tracks) {
        let (id, entry) = element?;
        if id != TRACK_ENTRY {
            return Err(Malformed("something other than a track among the tracks"));
        }
        let track = track_header(entry)?;
        if header.tracks.len() == MOST_TRACKS || header.tracks.iter().any(|other| other.number == track.number) {
            return Err(Malformed("a track too many, or a number given twice"));
        }
        header.tracks.push(track);
    }
    Ok(header)
}

/// Reads the frame of any later piece.
///
/// # Errors
/// If it is not one whole cluster that begins with its time.
pub fn cluster(piece: &[u8]) -> Result<Cluster<'_>, Malformed> {
    let (id, body, rest) = whole_element(piece)?;
    if id != CLUSTER || !rest.is_empty() {
        return Err(Malformed("not one whole cluster"));
    }
    let (id, time, blocks) = whole_element(body)?;
    if id != TIMESTAMP {
        return Err(Malformed("the cluster does not begin with its time"));
    }
    let ms = unsigned(time)?;
    if ms > LATEST_MS {
        return Err(Malformed("a time later than a day"));
    }
    Ok(Cluster { ms, blocks })
}

impl<'a> Cluster<'a> {
    /// Its blocks in the order of the file. After an error nothing more comes.
    pub fn blocks(&self) -> impl Iterator<Item = Result<Block<'a>, Malformed>> + use<'a> {
        let ms = self.ms;
        Elements(self.blocks).map(move |element| {
            let (id, body) = element?;
            if id == SIMPLE_BLOCK { simple_block(ms, body) } else { Err(Malformed("no block in the cluster")) }
        })
    }
}

/// Splits the bytes of a plain original into its pieces: the header, then clusters.
///
/// A file that ends within a piece gives what there is of it as the last one; reading that then says what is wrong.
#[derive(Debug)]
pub struct Pieces<R> {
    bytes: R,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Clusters,
    Ended,
}

impl<R: Read> Pieces<R> {
    /// The pieces of the original that `bytes` begins.
    pub fn new(bytes: R) -> Self {
        Self { bytes, stage: Stage::Header }
    }

    fn piece(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        // EBML header, segment, Info and Tracks; or one cluster.
        let elements = if self.stage == Stage::Header { 4 } else { 1 };
        self.stage = Stage::Clusters;
        for _ in 0..elements {
            if !self.element(&mut piece)? {
                self.stage = Stage::Ended;
                break;
            }
        }
        Ok(piece)
    }

    /// Reads one element, of a segment the head alone. `false` if the bytes ended before the element did.
    fn element(&mut self, piece: &mut Vec<u8>) -> io::Result<bool> {
        let begin = piece.len();
        let invalid = |Malformed(what)| io::Error::new(io::ErrorKind::InvalidData, what);
        for length in 1..=LONGEST_HEAD {
            let mut byte = [0];
            if self.bytes.read(&mut byte)? == 0 {
                return Ok(false);
            }
            piece.extend(byte);
            match element_head(piece.get(begin..).unwrap_or_default()) {
                Ok((SEGMENT, ..)) => return Ok(true),
                Ok((_, Some(size), _)) if size <= LARGEST_PIECE => {
                    let read = self.bytes.by_ref().take(size).read_to_end(piece)?;
                    return Ok(u64::try_from(read).is_ok_and(|read| read == size));
                }
                Ok(_) => return Err(invalid(Malformed("an element of unknown or absurd size"))),
                Err(CUT_HEAD) if length < LONGEST_HEAD => {}
                Err(malformed) => return Err(invalid(malformed)),
            }
        }
        Ok(false)
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stage == Stage::Ended {
            return None;
        }
        match self.piece() {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => Some(Ok(piece)),
            Err(error) => {
                self.stage = Stage::Ended;
                Some(Err(error))
            }
        }
    }
}

// Element ids (RFC 9559 §5, RFC 8794 §11.2).
const EBML: u32 = 0x1a45_dfa3;
const DOC_TYPE: u32 = 0x4282;
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x002a_d7b1;
const DATE_UTC: u32 = 0x4461;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63a2;
const VIDEO: u32 = 0xe0;
const PIXEL_WIDTH: u32 = 0xb0;
const PIXEL_HEIGHT: u32 = 0xba;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;

/// An element's head is at most so long: four bytes of id, eight of size.
const LONGEST_HEAD: usize = 12;

const CUT_HEAD: Malformed = Malformed("an element's head is cut short");

fn track_header(entry: &[u8]) -> Result<TrackHeader, Malformed> {
    let number = child(entry, TRACK_NUMBER)?.map(unsigned).transpose()?;
    let number = number.and_then(|number| u8::try_from(number).ok()).filter(|number| (1..=126).contains(number));
    let number = number.ok_or(Malformed("a track without a usable number"))?;
    let content = match child(entry, CODEC_ID)? {
        Some(b"V_VP8") => {
            let video = child(entry, VIDEO)?.ok_or(Malformed("a video track without a size"))?;
            let side = |id| {
                let pixels = child(video, id)?.map(unsigned).transpose()?;
                pixels.and_then(|pixels| u16::try_from(pixels).ok()).ok_or(Malformed("a video track without a size"))
            };
            TrackContent::Video(Resolution { width: side(PIXEL_WIDTH)?, height: side(PIXEL_HEIGHT)? })
        }
        Some(b"A_OPUS") => match child(entry, CODEC_PRIVATE)? {
            // RFC 7845 §5.1: magic, version, channels, pre-skip.
            Some([b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', _, _, low, high, ..]) => {
                TrackContent::Audio { pre_skip: u16::from_le_bytes([*low, *high]) }
            }
            _ => return Err(Malformed("an Opus track without its OpusHead")),
        },
        _ => return Err(Malformed("a codec that originals never hold")),
    };
    Ok(TrackHeader { number, content })
}

/// Track number as a one-byte EBML number, offset, flags, data (RFC 9559 §10.2).
fn simple_block(cluster_ms: u64, body: &[u8]) -> Result<Block<'_>, Malformed> {
    let &[number, high, low, flags, ref data @ ..] = body else {
        return Err(Malformed("a block that is cut short"));
    };
    if number & 0x80 == 0 || number == 0xff || number == 0x80 {
        return Err(Malformed("a block without a usable track number"));
    }
    if flags & 0x7f != 0 {
        return Err(Malformed("a block with other flags than keyframe"));
    }
    let ms = cluster_ms.checked_add_signed(i16::from_be_bytes([high, low]).into());
    let ms = ms.ok_or(Malformed("a block before the file's zero"))?;
    Ok(Block { track: number & 0x7f, ms, keyframe: flags & 0x80 != 0, data })
}

/// The elements of a body, one after the other. After an error nothing more comes.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Result<(u32, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let element = whole_element(self.0);
        self.0 = element.map_or(&[], |(.., rest)| rest);
        Some(element.map(|(id, body, _)| (id, body)))
    }
}

/// The body of the first child with this id. All children before it are whole.
fn child(body: &[u8], wanted: u32) -> Result<Option<&[u8]>, Malformed> {
    for element in Elements(body) {
        let (id, body) = element?;
        if id == wanted {
            return Ok(Some(body));
        }
    }
    Ok(None)
}

/// An unsigned integer of 0 to 8 bytes (RFC 8794 §7.2).
fn unsigned(body: &[u8]) -> Result<u64, Malformed> {
    if body.len() > 8 {
        return Err(Malformed("a number of more than eight bytes"));
    }
    Ok(body.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
}

/// Nanoseconds since 2001 (RFC 8794 §7.6).
fn date(body: &[u8]) -> Option<Timestamp> {
    let nanos = i64::from_be_bytes(body.try_into().ok()?);
    Timestamp::from_second(MATROSKA_EPOCH).ok()?.checked_add(SignedDuration::from_nanos(nanos)).ok()
}

/// The element at the head of `bytes`: its id, its body, and what follows it.
fn whole_element(bytes: &[u8]) -> Result<(u32, &[u8], &[u8]), Malformed> {
    let (id, size, rest) = element_head(bytes)?;
    let size = size.and_then(|size| usize::try_from(size).ok()).ok_or(Malformed("an element of unknown size"))?;
    let (body, after) = rest.split_at_checked(size).ok_or(Malformed("an element longer than what holds it"))?;
    Ok((id, body, after))
}

/// Id and size (RFC 8794 §4, §5); the size is `None` if it is unknown.
fn element_head(bytes: &[u8]) -> Result<(u32, Option<u64>, &[u8]), Malformed> {
    let id_length = usize::try_from(bytes.first().ok_or(CUT_HEAD)?.leading_zeros()).unwrap_or(8) + 1;
    if id_length > 4 {
        return Err(Malformed("an element id that is none"));
    }
    let (id, rest) = bytes.split_at_checked(id_length).ok_or(CUT_HEAD)?;
    let id = id.iter().fold(0, |id, byte| (id << 8) | u32::from(*byte));
    let size_length = usize::try_from(rest.first().ok_or(CUT_HEAD)?.leading_zeros()).unwrap_or(8) + 1;
    if size_length > 8 {
        return Err(Malformed("an element size that is none"));
    }
    let (size, rest) = rest.split_at_checked(size_length).ok_or(CUT_HEAD)?;
    let mask = (1_u64 << (7 * size_length)) - 1;
    let size = size.iter().fold(0, |size, byte| (size << 8) | u64::from(*byte)) & mask;
    Ok((id, (size != mask).then_some(size), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::webm::{self, SimpleBlock, Track, TrackKind};
    use super::*;

    const SIZE: Resolution = Resolution { width: 640, height: 360 };

    fn sample() -> (Vec<u8>, Vec<u8>) {
        let tracks = [
            Track { kind: TrackKind::Video(SIZE), uid: 7, name: "camera" },
            Track { kind: TrackKind::Audio, uid: 8, name: "microphone" },
        ];
        let wall = Timestamp::from_millisecond(1_790_000_000_123).unwrap();
        let blocks = [
            SimpleBlock { track: 1, offset: 0, keyframe: true, data: b"key" },
            SimpleBlock { track: 2, offset: -7, keyframe: true, data: b"sound" },
            SimpleBlock { track: 1, offset: 40, keyframe: false, data: b"inter" },
        ];
        (webm::header(&tracks, wall).unwrap(), webm::cluster(70_000, &blocks).unwrap())
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (first, second) = sample();
        let head = header(&first).unwrap();
        assert_eq!(head.wall.unwrap().as_millisecond(), 1_790_000_000_123);
        let (video, audio) = (TrackContent::Video(SIZE), TrackContent::Audio { pre_skip: 312 });
        assert_eq!(head.tracks, [TrackHeader { number: 1, content: video }, TrackHeader { number: 2, content: audio }]);
        let cluster = cluster(&second).unwrap();
        let blocks: Vec<_> = cluster.blocks().map(Result::unwrap).collect();
        assert_eq!(cluster.ms, 70_000);
        assert_eq!(
            blocks,
            [
                Block { track: 1, ms: 70_000, keyframe: true, data: b"key" },
                Block { track: 2, ms: 69_993, keyframe: true, data: b"sound" },
                Block { track: 1, ms: 70_040, keyframe: false, data: b"inter" },
            ]
        );
    }

    #[test]
    fn a_plain_file_falls_into_the_pieces_it_was_made_of() {
        let (first, second) = sample();
        let whole = [&first[..], &second, &second].concat();
        let pieces: Vec<Vec<u8>> = Pieces::new(&whole[..]).map(Result::unwrap).collect();
        assert_eq!(pieces, [first.clone(), second.clone(), second.clone()]);
        for cut in 1..whole.len() {
            let pieces: Vec<Vec<u8>> = Pieces::new(&whole[..cut]).map(Result::unwrap).collect();
            assert_eq!(pieces.concat(), whole[..cut], "nothing is swallowed");
        }
        let lying = [&first[..], &[0x1f, 0x43, 0xb6, 0x75, 0x08, 0xff, 0xff, 0xff, 0xff]].concat();
        let last = Pieces::new(&lying[..]).last().unwrap();
        assert_eq!(last.unwrap_err().kind(), io::ErrorKind::InvalidData, "no gigabyte is waited for");
    }

    #[test]
    fn what_originals_never_hold_is_refused_by_name() {
        let (first, second) = sample();
        let refused = |at: &[u8], change: &[u8], piece: &[u8]| {
            let position = piece.windows(at.len()).position(|window| window == at).unwrap();
            let mut piece = piece.to_vec();
            piece[position..position + change.len()].copy_from_slice(change);
            let blocks = |cluster: Cluster<'_>| cluster.blocks().find_map(Result::err);
            header(&piece).err().filter(|_| piece.len() == first.len()).or_else(|| match cluster(&piece) {
                Ok(cluster) => blocks(cluster),
                Err(error) => Some(error),
            })
        };
        let said = |what| Some(Malformed(what));
        assert_eq!(refused(b"V_VP8", b"V_VP9", &first), said("a codec that originals never hold"));
        assert_eq!(refused(b"OpusHead", b"OpusHaed", &first), said("an Opus track without its OpusHead"));
        assert_eq!(refused(b"webm", b"wobm", &first), said("another document type than webm"));
        assert_eq!(refused(&[0x82, 0xff, 0xf9], &[0xff], &second), said("a block without a usable track number"));
        assert_eq!(refused(&[0x82, 0xff, 0xf9, 0x80], &[0x82, 0, 0, 0x82], &second), {
            said("a block with other flags than keyframe")
        });
        assert_eq!(header(&first[..first.len() - 1]), Err(Malformed("an element longer than what holds it")));
        assert!(cluster(&[&second[..], &[0]].concat()).is_err(), "nothing follows a cluster in its piece");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// Any bytes, and any change of good ones, are read to an end.
        #[test]
        fn no_bytes_bring_the_reader_down(
            noise in prop::collection::vec(any::<u8>(), 0..200),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let (mut first, mut second) = sample();
            for (at, byte) in flips {
                let length = first.len();
                first[at.index(length)] = byte;
                let length = second.len();
                second[at.index(length)] = byte;
            }
            for piece in [&noise, &first, &second] {
                let _ = header(piece);
                if let Ok(cluster) = cluster(piece) {
                    prop_assert!(cluster.blocks().count() <= piece.len());
                }
            }
            prop_assert!(Pieces::new(&[first, second, noise].concat()[..]).count() <= 700);
        }
    }
}
