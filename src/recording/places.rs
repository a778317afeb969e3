//! Which room lies on which disk, and which of that disk's threads writes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use dashmap::DashMap;

use super::Command;
use super::space::{Volume, remove_leftover};
use crate::clock::MonoTime;
use crate::id::RoomId;

/// A thread that has been at one piece of work for longer hangs in its disk, and gets no new rooms. Shorter avoids
/// disks for an ordinary slow sync; longer opens rooms on disks that do not answer.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// The recorder's threads and what each works on.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) volumes: Vec<Arc<Volume>>,
    threads: Vec<Thread>,
    rooms: DashMap<RoomId, usize>,
}

/// One thread as seen from outside.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) commands: Sender<Command>,
    /// Index of its disk.
    pub(super) volume: usize,
    pub(super) work: Arc<Work>,
}

/// What a thread is doing.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// `MonoTime` in ns since when it has been at one piece of work; 0: it is not.
    busy_since: AtomicU64,
    /// Rooms that it records.
    pub(super) rooms: AtomicUsize,
}

impl Work {
    pub(super) fn begin(&self, now: MonoTime) {
        self.busy_since.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    fn hangs(&self, now: MonoTime) -> bool {
        let since = self.busy_since.load(Ordering::Relaxed);
        since != 0 && now.since(MonoTime::from_nanos(since)) > HANGS_AFTER
    }
}

impl Places {
    pub(super) fn new(volumes: Vec<Arc<Volume>>, threads: Vec<Thread>) -> Self {
        Self { volumes, threads, rooms: DashMap::new() }
    }

    /// Finds the rooms that lie in the folders already, and gives back what an earlier run had reserved for them. A
    /// folder that cannot be read is left for later: its rooms say so when they are opened.
    pub(super) fn find_rooms(&self) {
        for (index, volume) in self.volumes.iter().enumerate() {
            for (room, folder) in rooms_in(&volume.folder) {
                if let Err(error) = remove_leftover(&folder) {
                    tracing::warn!(%room, %error, "an earlier reservation could not be removed");
                }
                if let Some(thread) = self.spread(index, room) {
                    self.rooms.entry(room).or_insert(thread);
                }
            }
        }
    }

    /// The thread that writes a room, if it has a place.
    pub(super) fn of(&self, room: RoomId) -> Option<usize> {
        self.rooms.get(&room).map(|thread| *thread)
    }

    pub(super) fn thread(&self, index: usize) -> Option<&Thread> {
        self.threads.get(index)
    }

    pub(super) fn put(&self, room: RoomId, thread: usize) {
        self.rooms.insert(room, thread);
    }

    /// A thread on each disk that answers, the disk with most unreserved space first.
    pub(super) fn candidates(&self, now: MonoTime) -> Vec<usize> {
        let mut volumes: Vec<_> = self.volumes.iter().enumerate().collect();
        volumes.sort_by_key(|(_, volume)| std::cmp::Reverse(volume.unreserved()));
        volumes.into_iter().filter_map(|(index, _)| self.least_busy(index, now)).collect()
    }

    /// The thread for a room, wherever it may lie best if it has no place yet.
    pub(super) fn place(&self, room: RoomId, now: MonoTime) -> usize {
        if let Some(thread) = self.of(room) {
            return thread;
        }
        // If no disk answers, the room's recording says so.
        let thread = self.candidates(now).first().copied().unwrap_or(0);
        *self.rooms.entry(room).or_insert(thread)
    }

    /// One of a disk's threads, the same for a room each time.
    fn spread(&self, volume: usize, room: RoomId) -> Option<usize> {
        let here = || self.threads.iter().enumerate().filter(|(_, thread)| thread.volume == volume);
        // A version 7 UUID ends in random bits.
        let random = room.as_bytes().last().copied().map_or(0, usize::from);
        here().nth(random.checked_rem(here().count())?).map(|(index, _)| index)
    }

    fn least_busy(&self, volume: usize, now: MonoTime) -> Option<usize> {
        let threads = self.threads.iter().enumerate();
        let here = threads.filter(|(_, thread)| thread.volume == volume && !thread.work.hangs(now));
        here.min_by_key(|(_, thread)| thread.work.rooms.load(Ordering::Relaxed)).map(|(index, _)| index)
    }
}

/// The folder in which a room's recording lies, if it has one in any of these.
pub fn folder_of(roots: &[PathBuf], room: RoomId) -> Option<PathBuf> {
    roots.iter().map(|root| root.join(room.to_string())).find(|folder| folder.is_dir())
}

/// The rooms that have a folder in this one.
fn rooms_in(root: &Path) -> Vec<(RoomId, PathBuf)> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(folder = %root.display(), %error, "a folder of recordings cannot be read");
            return Vec::new();
        }
    };
    let named = |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()));
    entries.filter_map(|entry| named(entry.ok()?)).collect()
}
