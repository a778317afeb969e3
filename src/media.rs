//! Words about media that every part of the house shares: what a participant sends and hands in, and how a recording
//! breaks.

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

/// What a document is, by its content (DOMAIN.md, step 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "pdf")]
pub enum DocumentKind {
    /// Portable Document Format.
    Pdf,
    /// A signed file: CMS (RFC 5652) with what was signed in it.
    P7m,
    /// A JPEG picture.
    Jpeg,
    /// A PNG picture.
    Png,
}

impl DocumentKind {
    /// The media type that it is served with.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::P7m => "application/pkcs7-mime",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
        }
    }

    /// The usual ending of its files' names, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Pdf => "pdf",
            Self::P7m => "p7m",
            Self::Jpeg => "jpg",
            Self::Png => "png",
        }
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
