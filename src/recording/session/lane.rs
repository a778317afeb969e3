//! One video track of the session copy: a person's cameras one after the other, or their screens.

use super::feed::Queued;
use super::{PauseReport, TrackReport};
use crate::rtp::vp8::{Resolution, keyframe_resolution};

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    /// Its number in the file.
    pub(super) number: u8,
    /// As the header says, then of the first keyframe.
    pub(super) size: Resolution,
    operator: bool,
    screen: bool,
    /// The connection whose frames stand in it, and the time of the last.
    holder: Option<(usize, i64)>,
    begin_ms: i64,
    frames: u64,
    keyframes: u64,
    superseded: u64,
    unusable: u64,
    pauses: Vec<PauseReport>,
}

/// A camera that shows nothing for so long was off.
const PAUSE_MS: i64 = 2_000;

/// Enough for everyone who means to show what they record.
const MOST_PAUSES: usize = 1_000;

impl Lane {
    pub(super) fn new(name: String, operator: bool, screen: bool, size: Resolution) -> Self {
        Self {
            name,
            number: 0,
            size,
            operator,
            screen,
            holder: None,
            begin_ms: 0,
            frames: 0,
            keyframes: 0,
            superseded: 0,
            unusable: 0,
            pauses: Vec::new(),
        }
    }

    /// Place among the tracks.
    pub(super) fn rank(&self) -> (bool, bool) {
        (self.screen, !self.operator)
    }

    /// Nothing stands in it.
    pub(super) fn is_empty(&self) -> bool {
        self.holder.is_none()
    }

    /// Whether this frame of connection `feed` goes into the track; a later connection takes over with a keyframe.
    pub(super) fn admit(&mut self, feed: usize, frame: &Queued) -> bool {
        let follows = match self.holder {
            Some((holder, _)) if feed < holder => {
                self.superseded += 1;
                return false;
            }
            Some((holder, last)) => frame.ms > last && (feed == holder || frame.keyframe),
            None => frame.keyframe,
        };
        if !follows {
            self.unusable += 1;
            return false;
        }
        match self.holder {
            None => {
                self.begin_ms = frame.ms;
                self.size = keyframe_resolution(&frame.data).unwrap_or(self.size);
            }
            Some((_, last)) if frame.ms - last >= PAUSE_MS && self.pauses.len() < MOST_PAUSES => {
                self.pauses.push(PauseReport { from_ms: time(last), to_ms: time(frame.ms) });
            }
            Some(_) => {}
        }
        self.holder = Some((feed, frame.ms));
        self.frames += 1;
        self.keyframes += u64::from(frame.keyframe);
        true
    }

    /// `None` for a track that never got a frame, and is not in the file.
    pub(super) fn report(&self) -> Option<TrackReport> {
        let (_, last) = self.holder?;
        Some(TrackReport {
            number: self.number,
            name: self.name.clone(),
            begin_ms: time(self.begin_ms),
            end_ms: time(last),
            frames: self.frames,
            keyframes: self.keyframes,
            superseded: self.superseded,
            unusable: self.unusable,
            pauses: self.pauses.clone(),
        })
    }
}

fn time(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}
