//! The recorder: one original per participant connection, appended whole, synced and acknowledged each second
//! (EVIDENCE.md, «The originals»).

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::id::{ConnectionId, RoomId};
use crate::media::{RecordingFault, Source};
use crate::rtp::TapReader;

/// Where originals are written.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// The recordings folder; each room gets a folder of its own in it.
    pub folder: PathBuf,
    /// Recorder threads.
    pub threads: usize,
}

/// Handle on the recorder's threads. Clones speak to the same ones.
#[derive(Clone, Debug)]
pub struct Recorder {}

/// What the recorder did, told to the room's actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The first write of a connection's original is on disk.
    Started {
        /// Which connection.
        connection: ConnectionId,
    },
    /// The room is not recorded whole any more.
    Lost {
        /// Why.
        fault: RecordingFault,
    },
    /// An original is whole and closed.
    Finished {
        /// Which connection.
        connection: ConnectionId,
        /// What is in it.
        original: Original,
    },
    /// The room's last original is closed; nothing more comes.
    Closed,
}

/// One finished original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// File name in the room's folder, e.g. `delegato-1.webm`.
    pub file: String,
    /// Camera and microphone, or the screen.
    pub sources: Vec<Source>,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Number of clusters.
    pub clusters: u64,
    /// Media time from the first block to the end of the last, milliseconds.
    pub duration_ms: u64,
    /// SHA-256 of the last chain entry, in hex.
    pub chain_head: String,
}

#[expect(clippy::todo, unused_variables, reason = "being written")]
impl Recorder {
    /// Starts the threads.
    pub fn start(config: RecorderConfig, clock: Clock) -> std::io::Result<Self> {
        todo!()
    }

    /// Begins a room's recording: makes its folder and proves that it can be written. What went wrong comes as
    /// [`Fact::Lost`].
    pub fn open_room(&self, room: RoomId, tap: TapReader, facts: mpsc::Sender<Fact>) {
        todo!()
    }

    /// Announces a connection before its first packet: its file is named `<label>-<n>.webm`, n counting from 1 per label.
    pub fn open_original(&self, room: RoomId, connection: ConnectionId, label: String) {
        todo!()
    }

    /// Finishes every original of the room; [`Fact::Closed`] follows. Also happens when the tap is closed.
    pub fn close_room(&self, room: RoomId) {
        todo!()
    }
}
