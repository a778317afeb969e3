//! The bytes of a WebM: a header once, then clusters, each whole in memory.
//!
//! Pure. A live file's segment has an unknown size and is never closed, so that the file is valid at every cluster's
//! end. A session copy has a front instead of a header, of a length that does not change when it is told how the file
//! ended, and cues.

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

/// A segment's head: its id, and an unknown size of eight bytes.
const OPEN_SEGMENT: [u8; 12] = [0x18, 0x53, 0x80, 0x67, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

/// Room for a `SeekHead` of three entries, whatever their positions, and a filler of two bytes at least.
const SEEK_HEAD: usize = 96;

/// A front may grow by so much when the end is known: a duration of 11 bytes, and a filler of two at least.
const FRONT_SLACK: usize = 32;

/// And per track: a picture's real size may take more bytes than the one first declared.
const TRACK_SLACK: usize = 4;

// Element ids that a `SeekHead` names (RFC 9559 §5).
const INFO_ID: [u8; 4] = [0x15, 0x49, 0xa9, 0x66];
const TRACKS_ID: [u8; 4] = [0x16, 0x54, 0xae, 0x6b];
const CUES_ID: [u8; 4] = [0x1c, 0x53, 0xbb, 0x6b];

/// Seconds from the Unix epoch to 2001-01-01, where Matroska counts from (RFC 9559 §5.1.2.11).
pub(super) const MATROSKA_EPOCH: i64 = 978_307_200;

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
pub(super) struct Track<'a> {
    pub(super) kind: TrackKind,
    /// Unique among all files, and not 0.
    pub(super) uid: u64,
    pub(super) name: &'a str,
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

/// What stands before a session copy's clusters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front<'a> {
    /// Number in blocks, the track, and whether players are to choose it.
    pub(super) tracks: &'a [(u8, Track<'a>, bool)],
    /// Wall time of the file's zero.
    pub(super) wall: Option<Timestamp>,
    /// `None` while clusters are still to come.
    pub(super) end: Option<End>,
}

/// How a session copy ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) duration_ms: u64,
    /// Bytes of all clusters.
    pub(super) clusters: u64,
    /// Bytes of the cues behind them.
    pub(super) cues: u64,
}

/// A point to which players may jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cue {
    pub(super) ms: u64,
    pub(super) track: u8,
    /// Bytes from the first cluster to the one that it points at.
    pub(super) cluster: u64,
}

/// EBML header, open segment, Info and Tracks.
pub(super) fn header(tracks: &[Track<'_>], wall: Timestamp) -> Result<Vec<u8>, TagWriterError> {
    let mut bytes = ebml_header()?;
    bytes.extend(OPEN_SEGMENT);
    bytes.extend(info(Some(wall), None)?);
    let entries = (1..).zip(tracks).map(|(number, track)| entry(number, track, None)).collect();
    bytes.extend(element(&Tag::Tracks(Master::Full(entries)))?);
    Ok(bytes)
}

/// EBML header, segment, `SeekHead`, Info, Tracks, and nothing up to a length that holds for whatever the end says:
/// `length` if that is given, or one that is enough.
pub(super) fn front(front: &Front<'_>, length: Option<usize>) -> Result<Vec<u8>, TagWriterError> {
    let ebml = ebml_header()?;
    let info = info(front.wall, front.end.map(|end| end.duration_ms))?;
    let entries = front.tracks.iter().map(|(number, track, chosen)| entry((*number).into(), track, Some(*chosen)));
    let tracks = element(&Tag::Tracks(Master::Full(entries.collect())))?;
    let head = ebml.len() + OPEN_SEGMENT.len();
    let least = head + SEEK_HEAD + info.len() + tracks.len();
    let length = length.unwrap_or(least + FRONT_SLACK + TRACK_SLACK * front.tracks.len());

    let mut bytes = ebml;
    let data = byte_count(length - head.min(length));
    bytes.extend(front.end.map_or(OPEN_SEGMENT, |end| closed_segment(data + end.clusters + end.cues)));
    // Positions count from the end of the segment's head (RFC 9559 §5.1.1.1.2).
    let mut seeks = vec![(INFO_ID, byte_count(SEEK_HEAD)), (TRACKS_ID, byte_count(SEEK_HEAD + info.len()))];
    seeks.extend(front.end.map(|end| (CUES_ID, data + end.clusters)));
    let seek = |(id, position): ([u8; 4], u64)| {
        Tag::Seek(Master::Full(vec![Tag::SeekID(id.to_vec()), Tag::SeekPosition(position)]))
    };
    let seek_head = element(&Tag::SeekHead(Master::Full(seeks.into_iter().map(seek).collect())))?;
    let filler = SEEK_HEAD.saturating_sub(seek_head.len());
    bytes.extend(seek_head);
    bytes.extend(void(filler));
    bytes.extend(info);
    bytes.extend(tracks);
    bytes.extend(void(length.saturating_sub(bytes.len())));
    Ok(bytes)
}

/// The list of points to jump to, in the order of time. `front` is the length of the file's front.
pub(super) fn cues(cues: &[Cue], front: usize) -> Result<Vec<u8>, TagWriterError> {
    let before = byte_count(front - (ebml_header()?.len() + OPEN_SEGMENT.len()).min(front));
    let point = |cue: &Cue| {
        Tag::CuePoint(Master::Full(vec![
            Tag::CueTime(cue.ms),
            Tag::CueTrackPositions(Master::Full(vec![
                Tag::CueTrack(cue.track.into()),
                Tag::CueClusterPosition(before + cue.cluster),
            ])),
        ]))
    };
    element(&Tag::Cues(Master::Full(cues.iter().map(point).collect())))
}

/// One whole cluster.
pub(super) fn cluster(timestamp_ms: u64, blocks: &[SimpleBlock<'_>]) -> Result<Vec<u8>, TagWriterError> {
    let mut children = Vec::with_capacity(blocks.len() + 1);
    children.push(Tag::Timestamp(timestamp_ms));
    children.extend(blocks.iter().map(|block| Tag::SimpleBlock(simple_block(block))));
    element(&Tag::Cluster(Master::Full(children)))
}

fn ebml_header() -> Result<Vec<u8>, TagWriterError> {
    let mut bytes = Vec::with_capacity(512);
    WebmWriter::new(&mut bytes).write(&Tag::Ebml(Master::Full(vec![
        Tag::EbmlVersion(1),
        Tag::EbmlReadVersion(1),
        Tag::EbmlMaxIdLength(4),
        Tag::EbmlMaxSizeLength(8),
        Tag::DocType("webm".into()),
        Tag::DocTypeVersion(4),
        Tag::DocTypeReadVersion(2),
    ])))?;
    Ok(bytes)
}

fn info(wall: Option<Timestamp>, duration_ms: Option<u64>) -> Result<Vec<u8>, TagWriterError> {
    let application = concat!("sportello ", env!("CARGO_PKG_VERSION"));
    let mut children = vec![Tag::TimestampScale(1_000_000)];
    #[expect(clippy::cast_precision_loss, reason = "exact up to 285,000 years")]
    children.extend(duration_ms.map(|ms| Tag::Duration(ms as f64)));
    children.extend(wall.map(|wall| Tag::DateUTC(matroska_date(wall))));
    children.extend([Tag::MuxingApp(application.into()), Tag::WritingApp(application.into())]);
    element(&Tag::Info(Master::Full(children)))
}

/// One whole element of a segment's own.
fn element(tag: &Tag) -> Result<Vec<u8>, TagWriterError> {
    let mut bytes = Vec::new();
    let mut writer = WebmWriter::new(&mut bytes);
    // The writer takes such elements only inside a segment: one is opened here and its head taken off again.
    writer.write_advanced(&Tag::Segment(Master::Start), WriteOptions::is_unknown_sized_element())?;
    writer.write(tag)?;
    drop(writer);
    bytes.drain(..OPEN_SEGMENT.len().min(bytes.len()));
    Ok(bytes)
}

/// A segment's head with a size (RFC 8794 §4): eight bytes, so that the front keeps its length.
fn closed_segment(size: u64) -> [u8; 12] {
    let mut head = OPEN_SEGMENT;
    if let Some(place) = head.last_chunk_mut() {
        *place = ((1_u64 << 56) | size).to_be_bytes();
    }
    head
}

/// An element that readers skip (RFC 8794 §11.3.2), of exactly this length; one byte cannot be filled, and none need not.
fn void(length: usize) -> Vec<u8> {
    let Some(short) = length.checked_sub(2) else {
        return Vec::new();
    };
    let mut bytes = vec![0xec];
    match length.checked_sub(9) {
        None => bytes.push(0x80 | u8::try_from(short).unwrap_or(0)),
        Some(long) => {
            let [_, size @ ..] = byte_count(long).to_be_bytes();
            bytes.push(0x01);
            bytes.extend(size);
        }
    }
    bytes.resize(length, 0);
    bytes
}

fn byte_count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// `chosen` says whether players are to choose it among those of its kind; without a word they may choose any.
fn entry(number: u64, track: &Track<'_>, chosen: Option<bool>) -> Tag {
    let mut children = vec![
        Tag::TrackNumber(number),
        Tag::TrackUID(track.uid.max(1)),
        Tag::FlagLacing(0),
        Tag::Language("und".into()),
        Tag::Name(track.name.into()),
    ];
    children.extend(chosen.map(|chosen| Tag::FlagDefault(chosen.into())));
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
