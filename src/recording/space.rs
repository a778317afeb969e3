//! Space for recordings: what is free on each disk, and the bytes that are taken for a room before it opens.
//!
//! Where the file system can, the bytes are really taken: a file of that size in the room's folder ([`RESERVATION`]),
//! shrunk as the room's originals grow and removed at the end. Where it cannot, they are only counted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::file::{Append, Disk};
use crate::media::RecordingFault;

/// The file in a room's folder that holds its bytes.
const RESERVATION: &str = ".reserved";

/// A reservation gives back so much at once, or an eighth of it if that is less: a step costs the file system a change
/// of its books. Larger steps leave more to whoever else writes to the disk.
const STEP: u64 = 1 << 20;

/// What a write may need besides its bytes.
const BLOCKS: u64 = 64 << 10;

/// A room whose recording broke begins anew only with so much time's bytes at hand: on a disk that is all but full it
/// would break again at once, and the meeting with it.
const AHEAD: Duration = Duration::from_secs(30);

/// How much space recordings take and leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceConfig {
    /// Bytes that one person's original is expected to grow by each second.
    pub bytes_per_second: u64,
    /// Bytes of each disk that no reservation takes.
    pub floor: u64,
}

/// What a room is expected to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How many people are booked.
    pub people: u32,
    /// How long it will last.
    pub lasts: Duration,
}

/// Why no bytes were reserved.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReserveError {
    /// They are not there.
    #[error("{wanted} bytes are wanted and {free} are free")]
    Full { wanted: u64, free: u64 },
    /// The disk failed.
    #[error("{}: {source}", .path.display())]
    Disk { path: PathBuf, source: io::Error },
}

impl ReserveError {
    /// The word for it in the room.
    pub(super) fn fault(&self) -> RecordingFault {
        match self {
            Self::Full { .. } => RecordingFault::DiskFull,
            Self::Disk { .. } => RecordingFault::NotWritable,
        }
    }
}

impl SpaceConfig {
    /// Bytes that a room is expected to write.
    pub(super) fn bytes(&self, need: Need) -> u64 {
        let each = self.bytes_per_second.saturating_mul(need.lasts.as_secs());
        each.saturating_mul(need.people.into())
    }

    /// Bytes that must be at hand when a room's recording begins, anew or for the first time.
    pub(super) fn ahead(&self, need: Need) -> u64 {
        self.bytes(Need { lasts: need.lasts.min(AHEAD), ..need })
    }
}

/// Bytes that may still be written below a folder that may not be there yet.
pub(super) fn free(folder: &Path) -> io::Result<u64> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let figures = statvfs(there)?;
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}

/// A file that takes bytes of a disk.
pub(super) trait Hold: std::fmt::Debug + Send {
    /// Takes more, or gives back. [`io::ErrorKind::Unsupported`]: the file system cannot take any.
    fn resize(&mut self, bytes: u64) -> io::Result<()>;
}

/// Makes one that takes nothing yet, in place of one that an earlier run may have left.
pub(super) fn hold(path: &Path) -> io::Result<Box<dyn Hold>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    Ok(Box::new(LocalHold { file, held: 0 }))
}

#[derive(Debug)]
struct LocalHold {
    file: File,
    held: u64,
}

impl Hold for LocalHold {
    fn resize(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.held {
            // The system call, not libc's stand-in for it, which would write the whole file.
            if let Err(error) = fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
                // What it took before it failed.
                self.file.set_len(self.held)?;
                return Err(error.into());
            }
        } else {
            self.file.set_len(bytes)?;
        }
        self.held = bytes;
        Ok(())
    }
}

/// One of the folders of recordings, and how its disk stands.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) folder: PathBuf,
    disk: Arc<dyn Disk>,
    /// As it was last looked at.
    free: AtomicU64,
    /// Bytes that reservations hold.
    reserved: AtomicU64,
    /// Those of them that the file system does not know of.
    counted: AtomicU64,
}

impl Volume {
    pub(super) fn new(folder: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { folder, disk, free: 0.into(), reserved: 0.into(), counted: 0.into() }
    }

    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Looks how much is free.
    pub(super) fn look(&self) {
        let free = self.disk.free(&self.folder).unwrap_or_else(|error| {
            tracing::warn!(folder = %self.folder.display(), %error, "the disk does not say how much is free");
            0
        });
        self.free.store(free, Ordering::Relaxed);
        let folder = self.folder.display().to_string();
        metrics::gauge!("sportello_recording_free_bytes", "folder" => folder.clone()).set(figure(free));
        let reserved = self.reserved.load(Ordering::Relaxed);
        metrics::gauge!("sportello_recording_reserved_bytes", "folder" => folder).set(figure(reserved));
    }

    /// Bytes that were neither written nor reserved when it was last looked at.
    pub(super) fn unreserved(&self) -> u64 {
        self.free.load(Ordering::Relaxed).saturating_sub(self.counted.load(Ordering::Relaxed))
    }

    fn note(&self, held: u64, counted: bool, before: u64) {
        for sum in [Some(&self.reserved), counted.then_some(&self.counted)].into_iter().flatten() {
            sum.fetch_add(held, Ordering::Relaxed);
            sum.fetch_sub(before, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn figure(bytes: u64) -> f64 {
    bytes as f64
}

/// The bytes that one room holds. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    volume: Arc<Volume>,
    path: PathBuf,
    /// `None`: the file system takes no bytes for files that are not written.
    file: Option<Box<dyn Hold>>,
    held: u64,
    /// Given back for what is about to be written.
    ahead: u64,
}

impl Reservation {
    /// One that holds nothing yet, for a room whose folder is this.
    pub(super) fn empty(volume: Arc<Volume>, folder: &Path) -> Self {
        Self { volume, path: folder.join(RESERVATION), file: None, held: 0, ahead: 0 }
    }

    /// Sees to it that at least so many bytes are held, and leaves `floor` bytes of the disk.
    pub(super) fn hold_at_least(&mut self, bytes: u64, floor: u64) -> Result<(), ReserveError> {
        if bytes <= self.held {
            return Ok(());
        }
        let more = bytes - self.held;
        let failed = |path: &Path, source| ReserveError::Disk { path: path.to_owned(), source };
        // Asked first: taking what is not there would leave everybody else without any for a moment.
        let free = self.volume.disk.free(&self.volume.folder).map_err(|error| failed(&self.path, error))?;
        let counted = self.volume.counted.load(Ordering::Relaxed);
        let full = ReserveError::Full { wanted: more, free: free.saturating_sub(counted) };
        if free.saturating_sub(counted) < more.saturating_add(floor) {
            return Err(full);
        }
        match self.take(bytes) {
            Ok(file) => {
                self.volume.note(bytes, file.is_none(), self.held);
                (self.file, self.held) = (file, bytes);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Err(full)
            }
            Err(error) => Err(failed(&self.path, error)),
        }
    }

    fn take(&mut self, bytes: u64) -> io::Result<Option<Box<dyn Hold>>> {
        if self.held > 0 && self.file.is_none() {
            return Ok(None);
        }
        if let Some(folder) = self.path.parent() {
            self.volume.disk.make_folder(folder)?;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.volume.disk.hold(&self.path)?,
        };
        match file.resize(bytes) {
            Ok(()) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::Unsupported && self.held == 0 => {
                tracing::debug!(folder = %self.volume.folder.display(), "this file system reserves nothing");
                self.remove_file();
                Ok(None)
            }
            Err(error) => {
                if self.held > 0 {
                    self.file = Some(file);
                } else {
                    self.remove_file();
                }
                Err(error)
            }
        }
    }

    /// Gives back what so many bytes, about to be written, need.
    fn spend(&mut self, bytes: u64) {
        if self.ahead < bytes && self.held > 0 {
            let give = (bytes - self.ahead).max(STEP.min(self.held / 8)).min(self.held);
            let left = self.held - give;
            if let Some(Err(error)) = self.file.as_mut().map(|file| file.resize(left)) {
                // The write will tell whether that matters.
                tracing::warn!(path = %self.path.display(), %error, "reserved bytes could not be given back");
            }
            self.volume.note(left, self.file.is_none(), self.held);
            self.held = left;
            self.ahead += give;
        }
        self.ahead = self.ahead.saturating_sub(bytes);
    }

    fn give_back(&mut self) {
        self.volume.note(0, self.file.is_none(), self.held);
        (self.held, self.ahead) = (0, 0);
        if self.file.take().is_some() {
            self.remove_file();
        }
    }

    fn remove_file(&self) {
        if let Err(error) = self.volume.disk.remove(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a reservation could not be removed");
        }
        // A room of which nothing was recorded leaves nothing; a folder that is not empty stays.
        if let Some(folder) = self.path.parent() {
            let _full = fs::remove_dir(folder);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Removes what an earlier run reserved in a room's folder and had no time to give back.
pub(super) fn remove_leftover(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(RESERVATION)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A room's reservation, which its files draw on.
#[derive(Clone, Debug)]
pub(super) struct Purse(Arc<Mutex<Reservation>>);

impl Purse {
    pub(super) fn new(reservation: Reservation) -> Self {
        Self(Arc::new(Mutex::new(reservation)))
    }

    pub(super) fn hold_at_least(&self, bytes: u64, floor: u64) -> Result<(), ReserveError> {
        self.lock().hold_at_least(bytes, floor)
    }

    pub(super) fn give_back(&self) {
        self.lock().give_back();
    }

    /// Gives back once more what so many bytes need; `false`: nothing is held any more.
    fn spend_anew(&self, bytes: usize) -> bool {
        let mut reservation = self.lock();
        let held = reservation.held;
        reservation.ahead = 0;
        // File systems count in blocks, and need some for their own books.
        reservation.spend(u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(BLOCKS));
        held > 0
    }

    fn spend(&self, bytes: usize) {
        self.lock().spend(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Reservation> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk as one room writes to it: each append first gives back that much of what the room holds.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) purse: Purse,
}

#[derive(Debug)]
struct ReservedFile {
    file: Box<dyn Append>,
    purse: Purse,
}

impl Disk for Reserved {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.make_folder(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        Ok(Box::new(ReservedFile { file: self.disk.create(path)?, purse: self.purse.clone() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_folder(path)
    }

    fn free(&self, folder: &Path) -> io::Result<u64> {
        self.disk.free(folder)
    }

    fn hold(&self, path: &Path) -> io::Result<Box<dyn Hold>> {
        self.disk.hold(path)
    }
}

impl Append for ReservedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.purse.spend(bytes.len());
        match self.file.append(bytes) {
            // Somebody else was quicker to use what had been given back. Nothing of it was written: see `Append`.
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.purse.spend_anew(bytes.len()) => {
                self.file.append(bytes)
            }
            appended => appended,
        }
    }

    fn retract(&mut self) {
        self.file.retract();
    }

    fn start_writeback(&mut self) {
        self.file.start_writeback();
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::LocalDisk;
    use super::*;

    /// A disk of this many bytes, on which files can be held or not.
    #[derive(Debug)]
    struct Small {
        free: u64,
        holds: bool,
    }

    #[derive(Debug)]
    struct Unsupported;

    impl Hold for Unsupported {
        fn resize(&mut self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl Disk for Small {
        fn make_folder(&self, path: &Path) -> io::Result<()> {
            LocalDisk.make_folder(path)
        }

        fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
            LocalDisk.create(path)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            LocalDisk.remove(path)
        }

        fn sync_folder(&self, path: &Path) -> io::Result<()> {
            LocalDisk.sync_folder(path)
        }

        fn free(&self, _: &Path) -> io::Result<u64> {
            Ok(self.free)
        }

        fn hold(&self, path: &Path) -> io::Result<Box<dyn Hold>> {
            if self.holds { hold(path) } else { Ok(Box::new(Unsupported)) }
        }
    }

    fn volume(folder: &Path, free: u64, holds: bool) -> Arc<Volume> {
        let volume = Volume::new(folder.to_owned(), Arc::new(Small { free, holds }));
        volume.look();
        Arc::new(volume)
    }

    fn taken(path: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
    }

    #[test]
    fn bytes_are_really_taken_shrink_with_what_is_written_and_are_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let room = folder.path().join("room");
        let volume = volume(folder.path(), 100 << 20, true);
        let mut held = Reservation::empty(Arc::clone(&volume), &room);
        held.hold_at_least(8 << 20, 0).unwrap();
        let file = room.join(RESERVATION);
        assert!(taken(&file) >= 8 << 20, "{} bytes", taken(&file));
        assert_eq!(volume.unreserved(), 100 << 20, "the file system itself says what is free");

        held.spend(10);
        assert_eq!(fs::metadata(&file).unwrap().len(), 7 << 20);
        held.spend((1 << 20) - 10);
        assert_eq!(fs::metadata(&file).unwrap().len(), 7 << 20, "of what was given back before");
        held.spend(3 << 20);
        assert_eq!(fs::metadata(&file).unwrap().len(), 4 << 20);
        held.spend(100 << 20);
        assert_eq!(fs::metadata(&file).unwrap().len(), 0);
        held.hold_at_least(2 << 20, 0).unwrap();
        assert!(taken(&file) >= 2 << 20, "taken anew");
        drop(held);
        assert!(!file.exists() && !room.exists(), "nothing was recorded, nothing is left");
        assert_eq!(volume.reserved.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_others_took_meanwhile_is_given_back_once_more() {
        /// Full until its room gives bytes back a second time.
        #[derive(Debug)]
        struct Taken(PathBuf, u64);

        impl Append for Taken {
            fn append(&mut self, _: &[u8]) -> io::Result<()> {
                let held = fs::metadata(&self.0).map_or(0, |metadata| metadata.len());
                if held > self.1 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            }

            fn retract(&mut self) {}

            fn start_writeback(&mut self) {}

            fn sync(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let folder = tempfile::tempdir().unwrap();
        let room = folder.path().join("room");
        let volume = volume(folder.path(), 100 << 20, true);
        let mut held = Reservation::empty(volume, &room);
        held.hold_at_least(800_000, 0).unwrap();
        let purse = Purse::new(held);
        let file = |limit| Box::new(Taken(room.join(RESERVATION), limit));
        // The first step gives back 100,000.
        let mut taken = ReservedFile { file: file(650_000), purse: purse.clone() };
        taken.append(&[0; 1_000]).unwrap();
        let mut hopeless = ReservedFile { file: file(0), purse };
        assert_eq!(hopeless.append(&[0; 1_000]).unwrap_err().kind(), io::ErrorKind::StorageFull, "twice, not for ever");
    }

    #[test]
    fn where_files_cannot_be_held_bytes_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(folder.path(), 10_000, false);
        let mut first = Reservation::empty(Arc::clone(&volume), &folder.path().join("first"));
        first.hold_at_least(6_000, 1_000).unwrap();
        assert_eq!(volume.unreserved(), 4_000);
        let mut second = Reservation::empty(Arc::clone(&volume), &folder.path().join("second"));
        let refused = second.hold_at_least(3_500, 1_000).unwrap_err();
        assert!(matches!(refused, ReserveError::Full { wanted: 3_500, free: 4_000 }), "{refused}");
        assert_eq!(refused.fault(), RecordingFault::DiskFull);
        first.spend(6_000);
        assert_eq!(volume.unreserved(), 10_000, "what was written shows in what is free");
        second.hold_at_least(3_500, 1_000).unwrap();
        drop((first, second));
        assert_eq!(volume.unreserved(), 10_000);
    }

    #[test]
    fn no_reservation_takes_the_floor() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(folder.path(), 5 << 20, true);
        let mut held = Reservation::empty(volume, &folder.path().join("room"));
        assert!(matches!(held.hold_at_least(4 << 20, (1 << 20) + 1), Err(ReserveError::Full { .. })));
        assert!(!folder.path().join("room").exists(), "and nothing is left of the attempt");
        held.hold_at_least(4 << 20, 1 << 20).unwrap();
    }

    #[test]
    fn a_room_needs_bytes_by_people_and_time() {
        let config = SpaceConfig { bytes_per_second: 200_000, floor: 0 };
        let need = Need { people: 3, lasts: Duration::from_mins(30) };
        assert_eq!(config.bytes(need), 1_080_000_000);
        assert_eq!(config.ahead(need), 18_000_000, "half a minute");
    }
}
