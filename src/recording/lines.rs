//! The lines beside each original: all that is known of it besides its media. One JSON object a line, in the order in
//! which it became known; no personal data, and readable without the recording's key.
//!
//! Times ending in `_ns` are nanoseconds on the node's monotonic clock, the file's zero being the first line's `zero_ns`;
//! those ending in `_ms` are milliseconds from the file's zero.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::ConnectionId;
use crate::media::Source;
use crate::rtp::Codec;

/// One line of `<file>.rtcp.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each field is the subject of its line and named after its unit")]
pub enum Line {
    /// First: whose original this is, and what the file's time 0 is.
    Original {
        file: String,
        connection: ConnectionId,
        encrypted: bool,
        tracks: Vec<TrackLine>,
        zero_ns: u64,
        wall: Timestamp,
    },
    /// A source's first packet under this SSRC.
    Stream { source: Source, ssrc: u32, codec: Codec, sequence: u64, at_ns: u64 },
    /// A sender report as it came in; `placed_ns`: where the file would then put its moment, less what is still to be
    /// worked in.
    Report {
        source: Source,
        ssrc: u32,
        ntp_seconds: u64,
        ntp_fraction: u64,
        rtp: u32,
        arrival_ns: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        placed_ns: Option<u64>,
    },
    /// Packets that never came, or too late: the first one's sequence number without rollovers, and how many.
    Gap { source: Source, ssrc: u32, first: u64, packets: u64, at_ns: u64 },
    /// Timestamps or sequence numbers that did not follow on.
    Jump { source: Source, at_ns: u64 },
    /// The picture's size from here on.
    Resolution { source: Source, width: u16, height: u16, at_ns: u64 },
    /// Clockwise quarter turns from here on.
    Rotation { source: Source, quarters: u8, at_ns: u64 },
    /// A keyframe in the file.
    Keyframe { source: Source, at_ns: u64 },
    /// Nothing of this source stands in the file from the one time to the other, and nothing was lost: it was muted, or
    /// sent nothing.
    Silence { source: Source, from_ns: u64, to_ns: u64 },
    /// A frame lost a packet, and what follows it is left out up to the next keyframe.
    Damaged { source: Source, at_ns: u64 },
    /// That keyframe; `frames`: how many were left out.
    Mended { source: Source, at_ns: u64, frames: u64 },
    /// The wall clock was set; media time did not move.
    ClockSet { at_ns: u64, by_ms: i64, wall: Timestamp },
    /// What was counted so far in this original; the last such line of a source holds.
    Total {
        source: Source,
        /// Packets in order that went on to the file.
        packets: u64,
        /// Packets that never came, or too late.
        missing_packets: u64,
        /// Runs of such packets.
        gaps: u64,
        /// Packets that came out of order, or again after they were asked for, and filled a hole.
        recovered: u64,
        /// Packets that came when they had been given up.
        late: u64,
        /// Packets that came a second time.
        duplicates: u64,
        /// Whole frames in the file.
        frames: u64,
        /// Of these, keyframes.
        keyframes: u64,
        /// Frames, or runs of frames, that lost a packet.
        damaged: u64,
        /// Whole frames left out because they refer to a damaged one.
        orphaned: u64,
        /// When the newest packet came in.
        last_ns: u64,
    },
    /// Clusters follow in the file from number `first` on, one for each of `end_ms`: the end of the last block so far.
    /// Written before them; `write_us` and `sync_us` are how long the disk took for the ones before.
    Clusters {
        first: u64,
        end_ms: Vec<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        write_us: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync_us: Option<u64>,
    },
    /// Last, at a regular end.
    Closed {
        clusters: u64,
        bytes: u64,
        duration_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        write_us: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sync_us: Option<u64>,
    },
    /// Last, if there was no regular end: the file was cut to its last whole cluster, and the rest, of so many stored
    /// bytes, was put beside it.
    Recovered { clusters: u64, bytes: u64, duration_ms: u64, tail_bytes: u64 },
}

/// A track of the file, in the file's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackLine {
    /// What is in it.
    pub source: Source,
    /// How it is coded.
    pub codec: Codec,
}

impl Line {
    /// Appends the line, with its line feed.
    pub(super) fn write_to(&self, bytes: &mut Vec<u8>) {
        let before = bytes.len();
        if serde_json::to_writer(&mut *bytes, self).is_ok() {
            bytes.push(b'\n');
        } else {
            // Plain data into memory: there is nothing that could fail.
            bytes.truncate(before);
        }
    }
}

/// The lines of a side file. What is no whole line of ours is left out: after a crash the last one may be half.
pub fn read_lines(text: &[u8]) -> impl Iterator<Item = Line> {
    let whole = text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    whole.filter_map(|line| serde_json::from_slice(line).ok())
}
