//! The bytes of the session copy: which cluster a block goes into, what the cues point at, what the front says.

use bytes::Bytes;
use jiff::Timestamp;

use super::feed::Queued;
use super::lane::Lane;
use super::{SessionError, SessionSink};
use crate::recording::webm::{self, Cue, Front, SimpleBlock, Track, TrackKind};

/// The mixed sound.
const SOUND: u8 = 1;

/// A cluster ends before a keyframe of the first picture once it is this long, ms. Shorter makes the file larger,
/// longer makes players read more before they can show where they were sent.
const ENOUGH_MS: i64 = 1_000;

/// Before a keyframe of any picture when it is this long,
const PLENTY_MS: i64 = 3_000;

/// and wherever it is then.
const LONGEST_MS: i64 = 5_000;

/// Or when it is this large: a cluster is held in memory until it is whole.
const LARGEST_BYTES: usize = 8 << 20;

/// A track's keyframes are listed once a second at most.
const CUE_EVERY_MS: i64 = 1_000;

/// The front stays within what a sink can patch.
const LARGEST_FRONT: usize = 64 << 10;

pub(super) struct Layout {
    front: usize,
    wall: Option<Timestamp>,
    /// Bytes of clusters written.
    written: u64,
    clusters: u64,
    open: Vec<Open>,
    open_bytes: usize,
    open_ms: i64,
    /// The first picture's track.
    lead: Option<u8>,
    cues: Vec<Cue>,
    sound_cues: Vec<Cue>,
}

/// A block of the cluster that is being filled.
struct Open {
    track: u8,
    ms: i64,
    keyframe: bool,
    data: Bytes,
}

impl Layout {
    /// Writes a front that already plays, should nothing else ever be patched.
    pub(super) fn begin(
        lanes: &[Lane],
        wall: Option<Timestamp>,
        out: &mut dyn SessionSink,
    ) -> Result<Self, SessionError> {
        let tracks = tracks(lanes.iter(), wall);
        let front = webm::front(&Front { tracks: &tracks, wall, end: None }, None)?;
        if front.len() > LARGEST_FRONT {
            return Err(SessionError::TooManyTracks);
        }
        out.append(&front)?;
        Ok(Self {
            front: front.len(),
            wall,
            written: 0,
            clusters: 0,
            open: Vec::new(),
            open_bytes: 0,
            open_ms: 0,
            lead: lanes.first().map(|lane| lane.number),
            cues: Vec::new(),
            sound_cues: Vec::new(),
        })
    }

    /// Lays 20 ms of the mix.
    pub(super) fn lay_packet(&mut self, ms: i64, packet: &[u8], out: &mut dyn SessionSink) -> Result<(), SessionError> {
        let data = Bytes::copy_from_slice(packet);
        self.lay(Open { track: SOUND, ms, keyframe: true, data }, out)
    }

    /// Lays a frame of this lane.
    pub(super) fn lay_frame(
        &mut self,
        lane: &Lane,
        frame: Queued,
        out: &mut dyn SessionSink,
    ) -> Result<(), SessionError> {
        let Queued { ms, keyframe, data } = frame;
        self.lay(Open { track: lane.number, ms, keyframe, data }, out)
    }

    /// Writes what is left and the cues, and patches the front. Gives the file's length and its number of clusters.
    pub(super) fn finish(
        mut self,
        lanes: &[Lane],
        duration_ms: u64,
        out: &mut dyn SessionSink,
    ) -> Result<(u64, u64), SessionError> {
        self.close_cluster(out)?;
        let cues = webm::cues(if self.cues.is_empty() { &self.sound_cues } else { &self.cues }, self.front)?;
        out.append(&cues)?;
        let tracks = tracks(lanes.iter().filter(|lane| !lane.is_empty()), self.wall);
        let cues_length = u64::try_from(cues.len()).unwrap_or(0);
        let end = webm::End { duration_ms, clusters: self.written, cues: cues_length };
        let front = webm::front(&Front { tracks: &tracks, wall: self.wall, end: Some(end) }, Some(self.front))?;
        if front.len() != self.front {
            return Err(SessionError::TooManyTracks);
        }
        out.patch(0, &front)?;
        Ok((u64::try_from(self.front).unwrap_or(0) + self.written + cues_length, self.clusters))
    }

    fn lay(&mut self, block: Open, out: &mut dyn SessionSink) -> Result<(), SessionError> {
        let length = block.ms - self.open_ms;
        let leads = block.keyframe && Some(block.track) == self.lead;
        let picture = block.keyframe && block.track != SOUND;
        let full = (leads && length >= ENOUGH_MS)
            || (picture && length >= PLENTY_MS)
            || length >= LONGEST_MS
            || self.open_bytes >= LARGEST_BYTES;
        if full {
            self.close_cluster(out)?;
        }
        if self.open.is_empty() {
            // A straggler never sets a cluster before the last one: it gets a negative offset.
            self.open_ms = self.open_ms.max(block.ms);
        }
        if block.keyframe {
            self.cue(&block);
        }
        self.open_bytes += block.data.len();
        self.open.push(block);
        Ok(())
    }

    fn cue(&mut self, block: &Open) {
        let cue = Cue { ms: time(block.ms), track: block.track, cluster: self.written };
        let cues = if block.track == SOUND { &mut self.sound_cues } else { &mut self.cues };
        let due = cues
            .iter()
            .rev()
            .take(usize::from(u8::MAX))
            .find(|other| other.track == cue.track)
            .is_none_or(|last| cue.ms >= last.ms + time(CUE_EVERY_MS));
        // Sound is entered at the beginning of any cluster.
        if due && (block.track != SOUND || self.open.is_empty()) {
            cues.push(cue);
        }
    }

    fn close_cluster(&mut self, out: &mut dyn SessionSink) -> Result<(), SessionError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let mut blocks = Vec::with_capacity(self.open.len());
        for block in &self.open {
            // Only a straggler of half a minute would not fit, and nothing waits that long.
            if let Ok(offset) = i16::try_from(block.ms - self.open_ms) {
                let Open { track, keyframe, data, .. } = block;
                blocks.push(SimpleBlock { track: *track, offset, keyframe: *keyframe, data });
            }
        }
        let cluster = webm::cluster(time(self.open_ms), &blocks)?;
        out.append(&cluster)?;
        self.written += u64::try_from(cluster.len()).unwrap_or(0);
        self.clusters += 1;
        self.open.clear();
        self.open_bytes = 0;
        Ok(())
    }
}

/// Track 1 and these lanes, the first of which players are to show.
fn tracks<'a>(lanes: impl Iterator<Item = &'a Lane>, wall: Option<Timestamp>) -> Vec<(u8, Track<'a>, bool)> {
    // Two sessions rarely begin in the same millisecond.
    let origin = wall.map_or(0, |wall| time(wall.as_millisecond())) << 8;
    let sound = Track { kind: TrackKind::Audio, uid: origin | u64::from(SOUND), name: "mix" };
    let mut tracks = vec![(SOUND, sound, true)];
    for (n, lane) in lanes.enumerate() {
        let uid = origin | u64::from(lane.number);
        tracks.push((lane.number, Track { kind: TrackKind::Video(lane.size), uid, name: &lane.name }, n == 0));
    }
    tracks
}

fn time(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}
