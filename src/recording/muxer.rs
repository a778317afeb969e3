//! Decides what stands in which cluster: gathers the blocks of one file's sources, declares its tracks when it knows
//! enough, and cuts clusters in the order of time.
//!
//! Pure: bytes come out, the caller writes them.

use std::time::Duration;

use webm_iterable::errors::TagWriterError;

use super::intake::{Block, BlockKind};
use super::webm::{self, SimpleBlock, Track, TrackKind};
use crate::clock::{MonoTime, Now};
use crate::media::Source;
use crate::rtp::vp8::Resolution;

/// Age of the oldest block at which a cluster is cut. With [`SETTLE`], the recorder's tick and a sync it keeps what a
/// crash can cost under 1 s. Lower costs more syncs; higher loses more.
const CUT_AFTER: Duration = Duration::from_millis(700);

/// What came in so lately is not cut yet: audio and video of one moment do not arrive together. Lower puts more
/// blocks a little out of order into the next cluster; higher delays the first acknowledgement, and so the meeting.
const SETTLE: Duration = Duration::from_millis(120);

/// A block that waited so long is cut whatever else is missing, so that a silent source never stops acknowledgement.
const CUT_ANYWAY: Duration = Duration::from_millis(1_300);

/// A keyframe is here: how long after the first packet audio may still appear. Longer delays the start of cameras
/// without a microphone; shorter splits more originals in two.
const WAIT_FOR_AUDIO: Duration = Duration::from_millis(500);

/// How long after the first packet a keyframe, or a camera that needs longer to start than the microphone, may still
/// come. Longer delays the start of those who only speak; together with a sync it must stay under the 2 s without
/// acknowledgement that suspend a room.
const WAIT_FOR_KEYFRAME: Duration = Duration::from_millis(1_500);

/// Stands in the header if no keyframe came. Players go by the keyframes.
const PROVISIONAL: Resolution = Resolution { width: 640, height: 480 };

/// A cluster spans less than this. Far below the 32 s that a block's signed 16-bit offset can say (RFC 9559 §10.1).
const CLUSTER_SPAN_MS: u64 = 1_000;

/// The last frame of a file is taken to last as long as the one before it, but no longer than this.
const LAST_FRAME_MS: u64 = 100;

/// What is to be appended, in this order, and then synced.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The header, once per file.
    pub(super) header: Option<Vec<u8>>,
    /// Whole clusters.
    pub(super) clusters: Vec<Cluster>,
}

/// A cluster to be appended.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) bytes: Vec<u8>,
    /// Where the file's last block then ends, milliseconds from its zero.
    pub(super) end_ms: u64,
}

/// The blocks of one file.
#[derive(Debug)]
pub(super) struct Muxer {
    uid: u64,
    /// Not cut yet, by media time.
    pending: Vec<Block>,
    /// Sources whose first block that stands alone has come: video begins with a keyframe.
    begun: Vec<Source>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is declared yet.
    Gathering(Gathering),
    /// The tracks stand.
    Rolling(Rolling),
}

#[derive(Debug, Default)]
struct Gathering {
    first: Option<MonoTime>,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Rolling {
    tracks: Vec<Laid>,
    /// Media time of the file's zero.
    start: MonoTime,
    header_written: bool,
    cluster_ms: u64,
    end_ms: u64,
}

/// A declared track and what was laid into it.
#[derive(Debug)]
struct Laid {
    source: Source,
    last_ms: Option<u64>,
    sound: bool,
}

impl Muxer {
    /// A muxer whose track uids are made from `uid`.
    pub(super) fn new(uid: u64) -> Self {
        Self { uid, pending: Vec::new(), begun: Vec::new(), stage: Stage::Gathering(Gathering::default()) }
    }

    /// Says that a packet of `source` came. `false` if the file cannot hold it any more: its tracks are declared.
    pub(super) fn admit(&mut self, source: Source, arrival: MonoTime) -> bool {
        match &mut self.stage {
            Stage::Gathering(gathering) => {
                gathering.first.get_or_insert(arrival);
                if !gathering.sources.contains(&source) {
                    gathering.sources.push(source);
                }
                true
            }
            Stage::Rolling(rolling) => rolling.tracks.iter().any(|track| track.source == source),
        }
    }

    /// Takes a block of an admitted source. Inter-frames before a file's first keyframe are dropped.
    pub(super) fn push(&mut self, block: Block) {
        if !self.begun.contains(&block.source) {
            if block.kind == BlockKind::InterFrame {
                return;
            }
            self.begun.push(block.source);
        }
        let at = self.pending.partition_point(|other| other.at <= block.at);
        self.pending.insert(at, block);
    }

    /// Whether a source's inter-frames are dropped: its first keyframe in this file has not come.
    pub(super) fn awaits_keyframe(&self, source: Source) -> bool {
        !self.begun.contains(&source)
    }

    /// Arrival of the oldest block that was not cut yet.
    pub(super) fn waiting_since(&self) -> Option<MonoTime> {
        self.pending.iter().map(|block| block.arrival).min()
    }

    /// The sources that are, or would now be, declared as tracks.
    pub(super) fn sources(&self) -> Vec<Source> {
        let mut sources = match &self.stage {
            Stage::Gathering(gathering) => gathering.sources.clone(),
            Stage::Rolling(rolling) => rolling.tracks.iter().map(|track| track.source).collect(),
        };
        sources.sort_unstable();
        sources
    }

    /// The tracks in the file's order, once they stand.
    pub(super) fn tracks(&self) -> impl Iterator<Item = Source> {
        let tracks = match &self.stage {
            Stage::Gathering(_) => &[],
            Stage::Rolling(rolling) => rolling.tracks.as_slice(),
        };
        tracks.iter().map(|track| track.source)
    }

    /// Media time at the file's zero, once the tracks stand.
    pub(super) fn start(&self) -> Option<MonoTime> {
        match &self.stage {
            Stage::Gathering(_) => None,
            Stage::Rolling(rolling) => Some(rolling.start),
        }
    }

    /// Milliseconds from the first block to the end of the last.
    pub(super) fn duration_ms(&self) -> u64 {
        match &self.stage {
            Stage::Gathering(_) => 0,
            Stage::Rolling(rolling) => rolling.end_ms,
        }
    }

    /// Cuts what is due at `now`. `waiting` is the arrival of the oldest packet that is not in a block yet.
    pub(super) fn cut(&mut self, now: Now, waiting: Option<MonoTime>) -> Result<Option<Cut>, TagWriterError> {
        if !self.declare(now.mono, false) {
            return Ok(None);
        }
        let Some(oldest) = self.waiting_since() else {
            return Ok(None);
        };
        let age = now.mono.since(oldest);
        let first = matches!(&self.stage, Stage::Rolling(rolling) if !rolling.header_written);
        let settled = waiting.map_or(now.mono, |waiting| waiting.min(now.mono)) - SETTLE;
        let due = if age >= if first { WAIT_FOR_KEYFRAME + SETTLE } else { CUT_ANYWAY } {
            self.pending.len()
        } else if age >= CUT_AFTER || first {
            self.pending.partition_point(|block| block.at <= settled)
        } else {
            0
        };
        // The file is to begin with the keyframe that declared it, if there is one.
        let keyframe = self.pending.iter().position(|block| matches!(block.kind, BlockKind::Keyframe(_)));
        let ripe = !first || keyframe.is_none_or(|position| position < due);
        if due == 0 || !(ripe || age >= WAIT_FOR_KEYFRAME) {
            return Ok(None);
        }
        self.lay(due, now).map(Some)
    }

    /// Cuts all that is left: nothing more comes.
    pub(super) fn finish(&mut self, now: Now) -> Result<Option<Cut>, TagWriterError> {
        if !self.declare(now.mono, true) || self.pending.is_empty() {
            return Ok(None);
        }
        self.lay(self.pending.len(), now).map(Some)
    }

    /// Settles the tracks if enough is known, and says whether they stand.
    fn declare(&mut self, now: MonoTime, finishing: bool) -> bool {
        let Stage::Gathering(gathering) = &self.stage else {
            return true;
        };
        let (Some(first), Some(start)) = (gathering.first, self.pending.first().map(|block| block.at)) else {
            return false;
        };
        let has = |wanted: fn(&Source) -> bool| gathering.sources.iter().any(wanted);
        let keyframe = self.pending.iter().find_map(|block| match block.kind {
            BlockKind::Keyframe(resolution) => Some(resolution),
            BlockKind::Audio(_) | BlockKind::InterFrame => None,
        });
        let complete = has(|source| source.is_audio()) || has(|source| *source == Source::Screen);
        let waited = now.since(first);
        let ready = (keyframe.is_some() && (complete || waited >= WAIT_FOR_AUDIO)) || waited >= WAIT_FOR_KEYFRAME;
        if !ready && !finishing {
            return false;
        }
        let mut sources = gathering.sources.clone();
        // Video first, as players expect it.
        sources.sort_unstable_by_key(|source| (source.is_audio(), *source));
        let tracks =
            sources.into_iter().map(|source| Laid { source, last_ms: None, sound: source.is_audio() }).collect();
        self.stage = Stage::Rolling(Rolling { tracks, start, header_written: false, cluster_ms: 0, end_ms: 0 });
        true
    }

    fn lay(&mut self, count: usize, now: Now) -> Result<Cut, TagWriterError> {
        let Stage::Rolling(rolling) = &mut self.stage else {
            return Ok(Cut::default());
        };
        let blocks: Vec<Block> = self.pending.drain(..count.min(self.pending.len())).collect();
        let mut cut = Cut::default();
        if !rolling.header_written {
            let resolution = blocks.iter().find_map(|block| match block.kind {
                BlockKind::Keyframe(resolution) => Some(resolution),
                BlockKind::Audio(_) | BlockKind::InterFrame => None,
            });
            let tracks: Vec<Track> = (0..)
                .zip(&rolling.tracks)
                .map(|(n, track)| Track {
                    kind: if track.sound {
                        TrackKind::Audio
                    } else {
                        TrackKind::Video(resolution.unwrap_or(PROVISIONAL))
                    },
                    uid: self.uid.wrapping_add(n),
                    name: match track.source {
                        Source::Microphone => "microphone",
                        Source::Camera => "camera",
                        Source::Screen => "screen",
                    },
                })
                .collect();
            let zero = now.wall.checked_sub(now.mono.since(rolling.start)).unwrap_or(now.wall);
            cut.header = Some(webm::header(&tracks, zero)?);
            rolling.header_written = true;
        }
        let mut open: Vec<SimpleBlock<'_>> = Vec::new();
        for block in &blocks {
            let end_ms = rolling.end_ms;
            let Some(placed) = rolling.place(block) else {
                continue;
            };
            let splits = placed.keyframe && !placed.sound;
            if !open.is_empty() && (splits || placed.ms >= rolling.cluster_ms + CLUSTER_SPAN_MS) {
                cut.clusters.push(Cluster { bytes: webm::cluster(rolling.cluster_ms, &open)?, end_ms });
                open.clear();
            }
            if open.is_empty() {
                // A straggler never sets a cluster before the last one: it gets a negative offset.
                rolling.cluster_ms = rolling.cluster_ms.max(placed.ms);
            }
            open.push(SimpleBlock {
                track: placed.track,
                offset: offset(placed.ms, rolling.cluster_ms),
                keyframe: placed.keyframe,
                data: &block.data,
            });
        }
        if !open.is_empty() {
            cut.clusters.push(Cluster { bytes: webm::cluster(rolling.cluster_ms, &open)?, end_ms: rolling.end_ms });
        }
        Ok(cut)
    }
}

struct Place {
    track: u8,
    ms: u64,
    keyframe: bool,
    sound: bool,
}

impl Rolling {
    /// Where a block goes, or `None` if its source is not in this file.
    fn place(&mut self, block: &Block) -> Option<Place> {
        let (number, track) = (1..).zip(&mut self.tracks).find(|(_, track)| track.source == block.source)?;
        let keyframe = block.kind != BlockKind::InterFrame;
        let since_start = block.at.since(self.start);
        let mut ms = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        // Two frames of one track at one time would make players drop one.
        if let Some(last) = track.last_ms {
            ms = ms.max(last + 1);
        }
        let length = match block.kind {
            BlockKind::Audio(length) => u64::try_from(length.as_millis()).unwrap_or(0),
            BlockKind::Keyframe(_) | BlockKind::InterFrame => {
                track.last_ms.map_or(0, |last| (ms - last).min(LAST_FRAME_MS))
            }
        };
        track.last_ms = Some(ms);
        self.end_ms = self.end_ms.max(ms + length);
        Some(Place { track: number, ms, keyframe, sound: track.sound })
    }
}

fn offset(ms: u64, cluster_ms: u64) -> i16 {
    let offset = i64::try_from(ms).unwrap_or(0) - i64::try_from(cluster_ms).unwrap_or(0);
    i16::try_from(offset).unwrap_or(if offset < 0 { i16::MIN } else { i16::MAX })
}
