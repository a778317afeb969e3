//! The bytes of a live WebM: a header once, then clusters, each whole in memory.
//!
//! Pure. The segment has an unknown size and is never closed, so that a file is valid at every cluster's end.

use std::time::Duration;

use jiff::Timestamp;
use webm_iterable::errors::TagWriterError;
use webm_iterable::matroska_spec::{Master, MatroskaSpec as Tag};
use webm_iterable::{WebmWriter, WriteOptions};

use crate::rtp::vp8::Resolution;

/// What Opus encoders look ahead at 48 kHz: 312 samples (RFC 7845 §5.1, pre-skip). Players drop them and set the
/// sound 6.5 ms earlier, which is when it was made.
const OPUS_PRE_SKIP: u16 = 312;

/// The pre-skip as time.
const OPUS_DELAY: Duration = Duration::from_micros(6_500);

/// How much Opus a player decodes before a seek point until it sounds right (WebM guidelines, `SeekPreRoll`).
const OPUS_PRE_ROLL: Duration = Duration::from_millis(80);

/// Shortest time between two frames that readers should tell apart. A camera's frames do not come evenly, and
/// Matroska has no word for that: without a `DefaultDuration` ffmpeg guesses a frame rate from the first frames, and
/// then drops or complains of any that come closer together.
const SHORTEST_FRAME: Duration = Duration::from_millis(2);

/// Length of an element head with a four-byte id and an unknown size of eight bytes.
const OPEN_SEGMENT: usize = 12;

/// Seconds from the Unix epoch to 2001-01-01, where Matroska counts from (RFC 9559 §5.1.2.11).
const MATROSKA_EPOCH: i64 = 978_307_200;

/// What a track holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrackKind {
    /// VP8 of this size.
    Video(Resolution),
    /// Opus.
    Audio,
}

/// A track as the header declares it; its number is its place in the list, from 1.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) kind: TrackKind,
    /// Unique among all files, and not 0.
    pub(super) uid: u64,
    pub(super) name: &'static str,
}

/// A block as a cluster holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimpleBlock<'a> {
    /// Track number, from 1 to 126.
    pub(super) track: u8,
    /// Milliseconds after the cluster's time.
    pub(super) offset: i16,
    /// Can be decoded without anything before it.
    pub(super) keyframe: bool,
    pub(super) data: &'a [u8],
}

/// EBML header, open segment, Info and Tracks.
pub(super) fn header(tracks: &[Track], wall: Timestamp) -> Result<Vec<u8>, TagWriterError> {
    let mut bytes = Vec::with_capacity(512);
    let mut writer = WebmWriter::new(&mut bytes);
    writer.write(&Tag::Ebml(Master::Full(vec![
        Tag::EbmlVersion(1),
        Tag::EbmlReadVersion(1),
        Tag::EbmlMaxIdLength(4),
        Tag::EbmlMaxSizeLength(8),
        Tag::DocType("webm".into()),
        Tag::DocTypeVersion(4),
        Tag::DocTypeReadVersion(2),
    ])))?;
    open_segment(&mut writer)?;
    let application = concat!("sportello ", env!("CARGO_PKG_VERSION"));
    writer.write(&Tag::Info(Master::Full(vec![
        Tag::TimestampScale(1_000_000),
        Tag::DateUTC(matroska_date(wall)),
        Tag::MuxingApp(application.into()),
        Tag::WritingApp(application.into()),
    ])))?;
    writer
        .write(&Tag::Tracks(Master::Full((1..).zip(tracks).map(|(number, track)| entry(number, track)).collect())))?;
    drop(writer);
    Ok(bytes)
}

/// One whole cluster.
pub(super) fn cluster(timestamp_ms: u64, blocks: &[SimpleBlock<'_>]) -> Result<Vec<u8>, TagWriterError> {
    let size: usize = blocks.iter().map(|block| block.data.len() + 16).sum();
    let mut bytes = Vec::with_capacity(OPEN_SEGMENT + 32 + size);
    let mut writer = WebmWriter::new(&mut bytes);
    // The writer takes a cluster only inside a segment: one is opened here and its head taken off again.
    open_segment(&mut writer)?;
    let mut children = Vec::with_capacity(blocks.len() + 1);
    children.push(Tag::Timestamp(timestamp_ms));
    children.extend(blocks.iter().map(|block| Tag::SimpleBlock(simple_block(block))));
    writer.write(&Tag::Cluster(Master::Full(children)))?;
    drop(writer);
    bytes.drain(..OPEN_SEGMENT.min(bytes.len()));
    Ok(bytes)
}

fn open_segment(writer: &mut WebmWriter<&mut Vec<u8>>) -> Result<(), TagWriterError> {
    writer.write_advanced(&Tag::Segment(Master::Start), WriteOptions::is_unknown_sized_element())
}

fn entry(number: u64, track: &Track) -> Tag {
    let mut children = vec![
        Tag::TrackNumber(number),
        Tag::TrackUID(track.uid.max(1)),
        Tag::FlagLacing(0),
        Tag::Language("und".into()),
        Tag::Name(track.name.into()),
    ];
    match track.kind {
        TrackKind::Video(Resolution { width, height }) => children.extend([
            Tag::TrackType(1),
            Tag::CodecID("V_VP8".into()),
            Tag::DefaultDuration(whole_nanos(SHORTEST_FRAME)),
            Tag::Video(Master::Full(vec![Tag::PixelWidth(width.into()), Tag::PixelHeight(height.into())])),
        ]),
        TrackKind::Audio => children.extend([
            Tag::TrackType(2),
            Tag::CodecID("A_OPUS".into()),
            Tag::CodecPrivate(opus_head()),
            Tag::CodecDelay(whole_nanos(OPUS_DELAY)),
            Tag::SeekPreRoll(whole_nanos(OPUS_PRE_ROLL)),
            Tag::Audio(Master::Full(vec![Tag::SamplingFrequency(48_000.0), Tag::Channels(2)])),
        ]),
    }
    Tag::TrackEntry(Master::Full(children))
}

/// The identification header that Opus decoders start from (RFC 7845 §5.1): stereo, as RTP always says (RFC 7587 §7).
fn opus_head() -> Vec<u8> {
    let mut head = b"OpusHead".to_vec();
    head.extend([1, 2]);
    head.extend(OPUS_PRE_SKIP.to_le_bytes());
    head.extend(48_000_u32.to_le_bytes());
    head.extend([0, 0, 0]);
    head
}

/// Track number as a one-byte EBML number, offset, flags, data (RFC 9559 §10.2).
fn simple_block(block: &SimpleBlock<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + block.data.len());
    bytes.push(0x80 | block.track);
    bytes.extend(block.offset.to_be_bytes());
    bytes.push(if block.keyframe { 0x80 } else { 0 });
    bytes.extend_from_slice(block.data);
    bytes
}

fn matroska_date(wall: Timestamp) -> i64 {
    (wall.as_second() - MATROSKA_EPOCH).saturating_mul(1_000_000_000).saturating_add(wall.subsec_nanosecond().into())
}

fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
