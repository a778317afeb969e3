//! The recorder: one original per participant connection, appended whole, synced and acknowledged each second.
//!
//! A room's packets come out of its [`TapReader`] and go, per source, through `reorder` (order and gaps), `frames`
//! (VP8) and `timeline` (media time); per original through `muxer` (which cluster) and `webm` (its bytes); then through
//! `chain` and `file` onto the disk, which alone is not pure. `room` and `connection` hold these together, and this
//! file the threads. [`verify`] reads it all back.
//!
//! An original has a track for each source that has sent by the time its header is written: players wait for tracks
//! that stay empty. A source that begins later closes the original and begins the next one of the same connection, so
//! several [`Fact::Finished`] may come for one connection.

pub mod canonical;
mod chain;
mod connection;
mod file;
mod frames;
mod intake;
pub mod lines;
pub mod manifest;
mod mix;
mod muxer;
mod original;
mod original_check;
pub mod package;
pub mod read;
mod reorder;
mod room;
pub mod session;
pub mod sign;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod timestamp;
mod verify;
pub mod voice;
mod webm;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

pub use self::chain::{ChainEntry, StoredPiece};
pub use self::original_check::Difference;
pub use self::verify::{FileReport, Report, VerifyError, verify, verify_original};

use self::file::{Disk, LocalDisk};
use self::room::RoomRecording;
use crate::clock::{Clock, MonoTime};
use crate::id::{ConnectionId, RoomId};
use crate::media::{RecordingFault, Source};
use crate::rtp::TapReader;
use crate::vault::SessionKey;

/// How often a recorder thread empties its taps. Lower spends more on looking; higher delays the first acknowledgement,
/// for which a room's media waits, and every later one.
const TICK: Duration = Duration::from_millis(50);

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
pub struct Recorder {
    threads: Arc<[Sender<Command>]>,
}

/// What the recorder did, told to the room's actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The first write that holds a source of a connection is on disk. Once per source.
    Started {
        /// Which connection.
        connection: ConnectionId,
        /// Which of its sources.
        source: Source,
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
    /// Length of the WebM in bytes. Encrypted, the file is a little longer.
    pub bytes: u64,
    /// Number of clusters.
    pub clusters: u64,
    /// Media time from the first block to the end of the last, milliseconds.
    pub duration_ms: u64,
    /// SHA-256 of the last chain entry, in hex.
    pub chain_head: String,
}

impl Recorder {
    /// Starts the threads. They end when every handle is gone and every room is closed.
    ///
    /// # Errors
    /// If the system gives no thread. What is wrong with the folder is told by each room's facts.
    pub fn start(config: RecorderConfig, clock: Clock) -> std::io::Result<Self> {
        let RecorderConfig { folder, threads } = config;
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
        let threads = (0..threads.max(1))
            .map(|n| {
                let (sender, commands) = channel();
                let (folder, disk) = (folder.clone(), Arc::clone(&disk));
                let worker = Worker { folder, disk, clock, commands, rooms: HashMap::new() };
                thread::Builder::new().name(format!("recorder-{n}")).spawn(move || worker.run())?;
                Ok(sender)
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self { threads })
    }

    /// Begins a room's recording: makes its folder and proves that it can be written, then acknowledges for the first
    /// time. What went wrong comes as [`Fact::Lost`]. With a key, everything of the room is encrypted under it.
    pub fn open_room(&self, room: RoomId, key: Option<Arc<SessionKey>>, tap: TapReader, facts: mpsc::Sender<Fact>) {
        self.send(room, Command::OpenRoom { room, key, tap, facts });
    }

    /// Announces a connection before its first packet: its file is named `<label>-<n>.webm`, n counting from 1 per label.
    pub fn open_original(&self, room: RoomId, connection: ConnectionId, label: String) {
        self.send(room, Command::OpenOriginal { room, connection, label });
    }

    /// Takes an announcement back: the connection does not come about.
    pub fn drop_original(&self, room: RoomId, connection: ConnectionId) {
        self.send(room, Command::DropOriginal { room, connection });
    }

    /// Finishes every original of the room; [`Fact::Closed`] follows. Also happens when the tap is closed.
    pub fn close_room(&self, room: RoomId) {
        self.send(room, Command::CloseRoom { room });
    }

    fn send(&self, room: RoomId, command: Command) {
        // A version 7 UUID ends in random bits: they spread the rooms.
        let spread = room.as_bytes().last().copied().map_or(0, usize::from);
        if let Some(thread) = spread.checked_rem(self.threads.len()).and_then(|n| self.threads.get(n)) {
            // A thread that is gone has let go of its taps: their rooms stop, and new ones find their tap closed.
            if thread.send(command).is_err() {
                tracing::error!(%room, "a recorder thread is gone");
            }
        }
    }
}

#[derive(Debug)]
enum Command {
    OpenRoom { room: RoomId, key: Option<Arc<SessionKey>>, tap: TapReader, facts: mpsc::Sender<Fact> },
    OpenOriginal { room: RoomId, connection: ConnectionId, label: String },
    DropOriginal { room: RoomId, connection: ConnectionId },
    CloseRoom { room: RoomId },
}

/// One recorder thread and the rooms that it serves.
#[derive(Debug)]
struct Worker {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Clock,
    commands: Receiver<Command>,
    rooms: HashMap<RoomId, RoomRecording>,
}

impl Worker {
    fn run(mut self) {
        let mut next_tick = MonoTime::ZERO;
        let mut handles_left = true;
        while handles_left || !self.rooms.is_empty() {
            handles_left &= self.obey_until(next_tick);
            let now = self.clock.mono();
            if now >= next_tick && !self.rooms.is_empty() {
                let clock = self.clock;
                self.rooms.retain(|_, room| room.tick(clock.now(), &clock));
                next_tick = self.clock.mono() + TICK;
            }
        }
    }

    /// Carries out commands until the next tick is due, or, without rooms, until one came. `false` once no more can come.
    fn obey_until(&mut self, next_tick: MonoTime) -> bool {
        loop {
            let received = if self.rooms.is_empty() {
                self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.commands.recv_timeout(next_tick.since(self.clock.mono()))
            };
            match received {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(next_tick.since(self.clock.mono()));
                    return false;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::OpenRoom { room, key, tap, facts } => {
                let (folder, disk) = (self.folder.join(room.to_string()), Arc::clone(&self.disk));
                let opened = RoomRecording::open(room, folder, disk, key, tap, facts, self.clock.mono());
                // A room may be opened anew while its old tap is still being emptied.
                if let Some(mut replaced) = self.rooms.insert(room, opened) {
                    replaced.close(self.clock.now(), &self.clock);
                }
            }
            Command::OpenOriginal { room, connection, label } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.announce(connection, &label);
                }
            }
            Command::DropOriginal { room, connection } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.forget(connection, self.clock.now(), &self.clock);
                }
            }
            Command::CloseRoom { room } => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.close(self.clock.now(), &self.clock);
                }
            }
        }
    }
}
