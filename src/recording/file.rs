//! The only file that writes to the disk: append whole, sync, never overwrite, never try twice.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use super::chain::Chain;
use super::space::{self, Hold};
use crate::media::RecordingFault;
use crate::vault::{FileSealer, SealError, SessionKey};

/// What the recorder asks of a disk. Tests put one in its place that fails on demand.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder, and those above it, if it is not there.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Creates a file that does not exist yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>>;
    /// Removes a file that was made by mistake or as a trial.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder's list of names durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Bytes that may still be written below a folder.
    fn free(&self, folder: &Path) -> io::Result<u64> {
        space::free(folder)
    }
    /// Makes a file that takes bytes of the disk without their being written.
    fn hold(&self, path: &Path) -> io::Result<Box<dyn Hold>> {
        space::hold(path)
    }
}

/// A file that only grows.
pub(super) trait Append: fmt::Debug + Send {
    /// Appends all of `bytes`, or, as far as the disk lets it, nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Takes the last append back, as far as the disk lets it.
    fn retract(&mut self);
    /// Lets the disk begin to write what was appended, without waiting for it: a sync that follows is short. What fails
    /// here is told by the sync.
    fn start_writeback(&mut self);
    /// Makes everything appended durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Debug)]
pub(super) struct LocalDisk;

#[derive(Debug)]
struct LocalFile {
    file: File,
    length: u64,
    /// Length before the last append.
    before: u64,
    /// Up to where writing back was begun.
    begun: u64,
}

impl Disk for LocalDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)?;
        // A new folder is durable when its name is, in the folder above.
        path.parent().map_or(Ok(()), |parent| self.sync_folder(parent))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Box::new(LocalFile { file, length: 0, before: 0, begun: 0 }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl Append for LocalFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.before = self.length;
        if let Err(error) = self.file.write_all(bytes) {
            // No half element stays behind.
            self.retract();
            return Err(error);
        }
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }

    fn retract(&mut self) {
        // If this fails too, the chain still says where the whole ones end.
        if self.file.set_len(self.before).is_ok() {
            self.length = self.before;
        }
    }

    fn start_writeback(&mut self) {
        // Linux begins to write dirty pages back before it sees which clean ones it may let go of (mm/fadvise.c).
        let fresh = NonZeroU64::new(self.length.saturating_sub(self.begun));
        if fresh.is_some() {
            let _ = fadvise(&self.file, self.begun, fresh, Advice::DontNeed);
            self.begun = self.length;
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What went wrong on the disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// A folder or file could not be made.
    #[error("cannot create {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    /// Bytes could not be appended or made durable.
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    /// Bytes could not be encrypted.
    #[error("cannot encrypt {path}: {source}")]
    Seal { path: PathBuf, source: SealError },
}

impl DiskError {
    fn open(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Open { path: path.to_owned(), source }
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    fn seal(path: &Path) -> impl FnOnce(SealError) -> Self {
        move |source| Self::Seal { path: path.to_owned(), source }
    }

    /// The word for it in the room.
    pub(super) fn fault(&self) -> RecordingFault {
        use io::ErrorKind as Kind;
        let (Self::Open { source, .. } | Self::Write { source, .. }) = self else {
            return RecordingFault::WriteFailed;
        };
        match (self, source.kind()) {
            (_, Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge) => RecordingFault::DiskFull,
            (
                Self::Open { .. },
                Kind::PermissionDenied
                | Kind::ReadOnlyFilesystem
                | Kind::NotADirectory
                | Kind::IsADirectory
                | Kind::NotFound
                | Kind::AlreadyExists,
            ) => RecordingFault::NotWritable,
            _ => RecordingFault::WriteFailed,
        }
    }
}

/// Makes a room's folder and proves, with a file that is synced and removed, that it can be written.
pub(super) fn prove_writable(disk: &dyn Disk, folder: &Path) -> Result<(), DiskError> {
    disk.make_folder(folder).map_err(DiskError::open(folder))?;
    let probe = folder.join(".probe");
    // One may be left from a process that died between the two steps.
    match disk.remove(&probe) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DiskError::open(&probe)(error)),
    }
    let mut file = disk.create(&probe).map_err(DiskError::open(&probe))?;
    file.append(&[0; 4_096]).and_then(|()| file.sync()).map_err(DiskError::write(&probe))?;
    drop(file);
    disk.remove(&probe).and_then(|()| disk.sync_folder(folder)).map_err(DiskError::open(&probe))
}

/// An original with its two side files, all of them append-only.
#[derive(Debug)]
pub(super) struct OriginalFiles {
    name: String,
    media: Side,
    chain_lines: Side,
    rtcp_lines: Side,
    chain: Chain,
    sealer: Option<FileSealer>,
}

#[derive(Debug)]
struct Side {
    path: PathBuf,
    file: Box<dyn Append>,
    dirty: bool,
}

impl OriginalFiles {
    /// Creates `<stem>.webm`, `<stem>.chain.jsonl` and `<stem>.rtcp.jsonl` in a folder; `None` if one of them is there
    /// already. With a key the WebM is encrypted from its first byte.
    pub(super) fn create(
        disk: &dyn Disk,
        folder: &Path,
        stem: &str,
        key: Option<&SessionKey>,
    ) -> Result<Option<Self>, DiskError> {
        let name = format!("{stem}.webm");
        let sealer = key.map(|key| FileSealer::new(key, &name)).transpose();
        let sealer = sealer.map_err(DiskError::seal(&folder.join(&name)))?;
        let mut made = Vec::new();
        for suffix in ["webm", "chain.jsonl", "rtcp.jsonl"] {
            let path = folder.join(format!("{stem}.{suffix}"));
            match disk.create(&path) {
                Ok(file) => made.push(Side { path, file, dirty: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    for side in made {
                        disk.remove(&side.path).map_err(DiskError::open(&side.path))?;
                    }
                    return Ok(None);
                }
                Err(error) => return Err(DiskError::open(&path)(error)),
            }
        }
        disk.sync_folder(folder).map_err(DiskError::open(folder))?;
        let mut made = made.into_iter();
        let (Some(media), Some(chain_lines), Some(rtcp_lines)) = (made.next(), made.next(), made.next()) else {
            return Ok(None);
        };
        Ok(Some(Self { name, media, chain_lines, rtcp_lines, chain: Chain::default(), sealer }))
    }

    /// The media file's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Hashes appended so far.
    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Appends the header or one whole cluster, and its line in the chain.
    pub(super) fn append_piece(&mut self, piece: &[u8]) -> Result<(), DiskError> {
        let sealed = match &mut self.sealer {
            Some(sealer) => {
                let mut sealed = Vec::new();
                sealer.seal(piece, &mut sealed).map_err(DiskError::seal(&self.media.path))?;
                Some(sealed)
            }
            None => None,
        };
        let line = self.chain.add(piece, sealed.as_deref());
        self.put(sealed.as_deref().unwrap_or(piece), line)
    }

    /// Appends what says that the original is whole: the last segment, if it is encrypted, and the chain's last line.
    pub(super) fn append_end(&mut self) -> Result<(), DiskError> {
        let sealed = match self.sealer.take() {
            Some(sealer) => {
                let mut sealed = Vec::new();
                sealer.finish(&mut sealed).map_err(DiskError::seal(&self.media.path))?;
                Some(sealed)
            }
            None => None,
        };
        let line = self.chain.end(sealed.as_deref());
        self.put(sealed.as_deref().unwrap_or_default(), line)
    }

    /// Appends a piece as it is to be stored, and then its line.
    fn put(&mut self, stored: &[u8], line: serde_json::Result<String>) -> Result<(), DiskError> {
        let line = line.map_err(|error| DiskError::write(&self.chain_lines.path)(error.into()))?;
        if !stored.is_empty() {
            self.media.append(stored)?;
        }
        metrics::counter!("sportello_recording_bytes_total").increment(u64::try_from(stored.len()).unwrap_or(0));
        let chained = self.chain_lines.append(line.as_bytes());
        if chained.is_err() && !stored.is_empty() {
            // What stays behind is to verify: no cluster without its line.
            self.media.file.retract();
        }
        chained
    }

    /// Appends whole lines to the side file of reports.
    pub(super) fn append_reports(&mut self, lines: &[u8]) -> Result<(), DiskError> {
        self.rtcp_lines.append(lines)
    }

    /// Lets the disk begin with what [`Self::sync`] will wait for.
    pub(super) fn start_writeback(&mut self, reports: bool) {
        self.media.file.start_writeback();
        if reports {
            self.rtcp_lines.file.start_writeback();
        }
        self.chain_lines.file.start_writeback();
    }

    /// Makes everything appended durable, or all but the lines of reports. The chain goes last: it never speaks of what is
    /// not there, and its end says that the rest is whole.
    pub(super) fn sync(&mut self, reports: bool) -> Result<(), DiskError> {
        self.media.sync()?;
        if reports {
            self.rtcp_lines.sync()?;
        }
        self.chain_lines.sync()
    }
}

impl Side {
    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.dirty = true;
        self.file.append(bytes).map_err(DiskError::write(&self.path))
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        if std::mem::take(&mut self.dirty) {
            self.file.sync().map_err(DiskError::write(&self.path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ever_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("delegato-1.rtcp.jsonl"), "old").unwrap();
        assert!(OriginalFiles::create(&LocalDisk, folder.path(), "delegato-1", None).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "and nothing is left behind");
        assert!(OriginalFiles::create(&LocalDisk, folder.path(), "delegato-2", None).unwrap().is_some());
    }

    #[test]
    fn a_probe_left_by_a_crash_does_not_count_against_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".probe"), "x").unwrap();
        prove_writable(&LocalDisk, folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_error_has_its_word() {
        let open = |kind: io::ErrorKind| DiskError::open(Path::new("x"))(kind.into()).fault();
        let write = |kind: io::ErrorKind| DiskError::write(Path::new("x"))(kind.into()).fault();
        assert_eq!(open(io::ErrorKind::NotADirectory), RecordingFault::NotWritable);
        assert_eq!(open(io::ErrorKind::StorageFull), RecordingFault::DiskFull);
        assert_eq!(write(io::ErrorKind::StorageFull), RecordingFault::DiskFull);
        assert_eq!(write(io::ErrorKind::Other), RecordingFault::WriteFailed);
    }
}
