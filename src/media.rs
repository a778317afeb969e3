//! Words about media that every part of the house shares: what a participant sends, and how a recording breaks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a participant sends: at most one stream of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "camera")]
pub enum Source {
    /// The voice: the first audio m-line that the client sends.
    Microphone,
    /// The face: the first video m-line that the client sends.
    Camera,
    /// A shared screen: the second video m-line that the client sends.
    Screen,
}

impl Source {
    /// Whether this source carries audio.
    pub const fn is_audio(self) -> bool {
        matches!(self, Self::Microphone)
    }
}

/// Why a room is not recorded whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "disk_full")]
pub enum RecordingFault {
    /// The recordings folder cannot be written.
    NotWritable,
    /// The disk is full.
    DiskFull,
    /// A write or a sync failed.
    WriteFailed,
    /// No acknowledgement for too long.
    Stalled,
    /// The recorder fell so far behind that the tap overflowed.
    Overflow,
}
