//! What a crash left: originals without their end are cut to the last whole cluster that their chain vouches for, and
//! what was cut off is kept beside them. No key is needed, and nothing that was whole is touched.
//!
//! Each step can be interrupted and done again: the tail is kept before the file is cut, the chain is cut after it, and
//! the side file's last line says that all was done. A second run finds that line, and changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::Original;
use super::chain::{ChainEntry, sha256_hex};
use super::lines::{Line, read_lines};
use super::read::LARGEST_PIECE;
use crate::id::{ConnectionId, RoomId};
use crate::media::Source;
use crate::vault::{self, HEADER_BYTES};

/// What was found in the recordings.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Every original that does not grow any more, in the order of rooms and names.
    pub originals: Vec<RecoveredOriginal>,
    /// What could not be read, cut or told of. It was left as it is.
    pub failed: Vec<RecoverError>,
}

/// One original as it is on the disk now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredOriginal {
    /// Which room's.
    pub room: RoomId,
    /// Whose media it is.
    pub connection: ConnectionId,
    /// What is in it.
    pub original: Original,
    /// How it ended.
    pub end: OriginalEnd,
}

/// How an original ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalEnd {
    /// Regularly.
    Regular,
    /// In mid-write, in this run or in an earlier one: it was cut.
    Cut {
        /// Bytes that are kept beside it, as they were stored.
        tail_bytes: u64,
        /// Wall time from which on nothing of the connection is in this file.
        lost_from: Timestamp,
    },
}

/// Why an original could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A file or folder cannot be read or written. The disk's fault.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lines beside an original do not say whose it is: they were lost, or changed. It was cut all the same.
    #[error("{}: the lines beside it do not say whose it is", path.display())]
    Nobodys {
        /// The WebM.
        path: PathBuf,
    },
}

/// Recovers every room's originals in a folder of recordings. Nobody may write there meanwhile.
///
/// `progress` is told the bytes of unfinished originals looked through so far, and their sum.
///
/// # Errors
/// The folder cannot be read. What goes wrong with a single original is in [`Recovery::failed`].
pub fn recover(folder: &Path, progress: impl FnMut(u64, u64)) -> Result<Recovery, RecoverError> {
    let mut rooms = Vec::new();
    match fs::read_dir(folder) {
        // Nothing was recorded yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Recovery::default()),
        entries => {
            for entry in entries.map_err(failed(folder))? {
                let path = entry.map_err(failed(folder))?.path();
                if room_of(&path).is_some() && path.is_dir() {
                    rooms.push(path);
                }
            }
        }
    }
    rooms.sort();
    Ok(recover_rooms(&rooms, progress))
}

/// The same for one room's folder, which is named after it.
pub fn recover_room(folder: &Path, progress: impl FnMut(u64, u64)) -> Recovery {
    recover_rooms(&[folder.to_owned()], progress)
}

fn recover_rooms(rooms: &[PathBuf], mut progress: impl FnMut(u64, u64)) -> Recovery {
    let (mut recovery, mut unfinished) = (Recovery::default(), Vec::new());
    for folder in rooms {
        let Some(room) = room_of(folder) else { continue };
        match originals_in(folder) {
            Err(error) => recovery.failed.push(error),
            Ok(originals) => {
                for files in originals {
                    match files.settled(room) {
                        Ok(Some(original)) => recovery.originals.push(original),
                        Ok(None) => unfinished.push((room, files)),
                        Err(error) => recovery.failed.push(error),
                    }
                }
            }
        }
    }
    let total = unfinished.iter().map(|(_, files)| length(&files.media).unwrap_or(0)).sum();
    let mut done = 0;
    progress(done, total);
    for (room, files) in unfinished {
        let bytes = length(&files.media).unwrap_or(0);
        match files.cut(room) {
            Ok(Some(original)) => recovery.originals.push(original),
            Ok(None) => {}
            Err(error) => recovery.failed.push(error),
        }
        done += bytes;
        progress(done, total);
    }
    recovery.originals.sort_by(|a, b| (a.room, &a.original.file).cmp(&(b.room, &b.original.file)));
    recovery
}

fn room_of(folder: &Path) -> Option<RoomId> {
    folder.file_name()?.to_str()?.parse().ok()
}

/// What has a chain beside it is an original; `session.webm`, say, is not.
fn originals_in(folder: &Path) -> Result<Vec<Files>, RecoverError> {
    let mut originals = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let media = entry.map_err(failed(folder))?.path();
        if let Some(stem) = media.file_name().and_then(|name| name.to_str()?.strip_suffix(".chain.jsonl"))
            && !folder.join(format!("{stem}.webm")).exists()
        {
            // An earlier run was interrupted when it had set the file aside.
            set_aside(&media, &folder.join(format!("{stem}.chain.tail")))?;
        }
        if media.extension().is_none_or(|extension| extension != "webm") {
            continue;
        }
        let files = Files::of(media);
        if files.chain.exists() {
            originals.push(files);
        } else if length(&files.media)? == 0 && !files.lines.exists() {
            // The process died between the creation of the one and of the other.
            fs::remove_file(&files.media).map_err(failed(&files.media))?;
        }
    }
    originals.sort_by(|a, b| a.media.cmp(&b.media));
    Ok(originals)
}

/// An original's files, and those that what was cut off goes to.
#[derive(Debug)]
struct Files {
    media: PathBuf,
    chain: PathBuf,
    lines: PathBuf,
    tail: PathBuf,
    chain_tail: PathBuf,
}

/// How much of an original is whole.
#[derive(Debug, Default)]
struct Whole {
    clusters: u64,
    /// Bytes of the WebM.
    bytes: u64,
    /// Bytes of the file, and of its chain.
    media: u64,
    chain: u64,
    head: String,
}

/// What the lines beside an original say.
#[derive(Debug, Default)]
struct Told {
    connection: Option<ConnectionId>,
    sources: Vec<Source>,
    wall: Option<Timestamp>,
    duration_ms: u64,
    /// Bytes that were cut off, if the lines end by saying so, and the clusters that were left.
    recovered: Option<(u64, u64)>,
    /// Bytes of whole lines.
    whole: u64,
}

impl Files {
    fn of(media: PathBuf) -> Self {
        let with = |extension: &str| media.with_extension(extension);
        Self {
            chain: with("chain.jsonl"),
            lines: with("rtcp.jsonl"),
            tail: with("tail"),
            chain_tail: with("chain.tail"),
            media,
        }
    }

    /// The original, if it ended regularly or was recovered before; by the last lines alone.
    fn settled(&self, room: RoomId) -> Result<Option<RecoveredOriginal>, RecoverError> {
        let chain = read(&self.chain)?;
        let Some(line) = chain.strip_suffix(b"\n").and_then(|lines| lines.split(|byte| *byte == b'\n').next_back())
        else {
            return Ok(None);
        };
        let Ok(entry) = serde_json::from_slice::<ChainEntry>(line) else { return Ok(None) };
        let encrypted = self.is_encrypted()?;
        let end = match entry.stored.as_ref().filter(|_| encrypted) {
            Some(stored) => stored.offset.saturating_add(stored.length),
            None => entry.offset.saturating_add(entry.length),
        };
        if length(&self.media)? != end {
            return Ok(None);
        }
        let clusters = if entry.end { entry.n.saturating_sub(1) } else { entry.n };
        let told = self.told(clusters)?;
        let cut = told.recovered.filter(|(_, left)| *left == clusters).map(|(tail_bytes, _)| tail_bytes);
        if !entry.end && cut.is_none() {
            return Ok(None);
        }
        let bytes = entry.offset.saturating_add(entry.length);
        let whole = Whole { clusters, bytes, media: end, chain: 0, head: sha256_hex(line) };
        self.original(room, &told, &whole, cut).map(Some)
    }

    /// Cuts the original to what is whole. `None` if not even one cluster is: then nothing of it was ever called
    /// recorded, and what there is of it is set aside.
    fn cut(&self, room: RoomId) -> Result<Option<RecoveredOriginal>, RecoverError> {
        let whole = self.whole()?;
        let folder = self.media.parent().unwrap_or(Path::new("."));
        if whole.clusters == 0 {
            // The lines stay under their name, so that no later original gets it.
            self.close_lines(&self.told(0)?, &whole, length(&self.media)?)?;
            set_aside(&self.media, &self.tail)?;
            set_aside(&self.chain, &self.chain_tail)?;
            sync_folder(folder)?;
            return Ok(None);
        }
        keep_tail(&self.media, whole.media, &self.tail)?;
        keep_tail(&self.chain, whole.chain, &self.chain_tail)?;
        sync_folder(folder)?;
        truncate(&self.media, whole.media)?;
        truncate(&self.chain, whole.chain)?;
        let tail_bytes = if self.tail.exists() { length(&self.tail)? } else { 0 };
        let told = self.told(whole.clusters)?;
        self.close_lines(&told, &whole, tail_bytes)?;
        sync_folder(folder)?;
        metrics::counter!("sportello_recording_recovered_total").increment(1);
        self.original(room, &told, &whole, Some(tail_bytes)).map(Some)
    }

    fn original(
        &self,
        room: RoomId,
        told: &Told,
        whole: &Whole,
        tail_bytes: Option<u64>,
    ) -> Result<RecoveredOriginal, RecoverError> {
        let nobodys = || RecoverError::Nobodys { path: self.media.clone() };
        let (connection, wall) = told.connection.zip(told.wall).ok_or_else(nobodys)?;
        let file = self.media.file_name().and_then(|name| name.to_str()).ok_or_else(nobodys)?.to_owned();
        let recorded = SignedDuration::from_millis(i64::try_from(told.duration_ms).unwrap_or(i64::MAX));
        let end = tail_bytes.map_or(OriginalEnd::Regular, |tail_bytes| OriginalEnd::Cut {
            tail_bytes,
            lost_from: wall.saturating_add(recorded).unwrap_or(wall),
        });
        let original = Original {
            file,
            sources: told.sources.clone(),
            bytes: whole.bytes,
            clusters: whole.clusters,
            duration_ms: told.duration_ms,
            chain_head: whole.head.clone(),
        };
        Ok(RecoveredOriginal { room, connection, original, end })
    }

    /// Follows the chain as far as the file bears it out.
    fn whole(&self) -> Result<Whole, RecoverError> {
        let chain = read(&self.chain)?;
        let bytes = length(&self.media)?;
        let mut media = File::open(&self.media).map_err(failed(&self.media))?;
        let encrypted = self.is_encrypted()?;
        let (mut whole, mut next) = (Whole::default(), 0);
        for line in chain.split_inclusive(|byte| *byte == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else { break };
            let Ok(entry) = serde_json::from_slice::<ChainEntry>(text) else { break };
            let follows = entry.n == next && entry.previous == whole.head && entry.offset == whole.bytes;
            let (offset, length, sha256) = match &entry.stored {
                Some(stored) if encrypted => (stored.offset, stored.length, &stored.sha256),
                _ => (entry.offset, entry.length, &entry.sha256),
            };
            let there = offset == whole.media && length <= bytes.saturating_sub(offset) && length <= LARGEST_PIECE;
            if !follows || !there {
                break;
            }
            let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
            media.read_exact(&mut piece).map_err(failed(&self.media))?;
            if sha256_hex(&piece) != *sha256 {
                break;
            }
            next += u64::from(!entry.end);
            whole = Whole {
                clusters: next.saturating_sub(1),
                bytes: entry.offset.saturating_add(entry.length),
                media: offset.saturating_add(length),
                chain: whole.chain.saturating_add(u64::try_from(line.len()).unwrap_or(0)),
                head: sha256_hex(text),
            };
            if entry.end {
                break;
            }
        }
        Ok(whole)
    }

    fn is_encrypted(&self) -> Result<bool, RecoverError> {
        let mut head = Vec::with_capacity(HEADER_BYTES);
        let media = File::open(&self.media);
        let read = media.and_then(|media| media.take(HEADER_BYTES as u64).read_to_end(&mut head));
        read.map_err(failed(&self.media))?;
        Ok(vault::is_encrypted(&head))
    }

    /// What the side file says of an original of so many clusters.
    fn told(&self, clusters: u64) -> Result<Told, RecoverError> {
        let text = match fs::read(&self.lines) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(failed(&self.lines))?,
        };
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut told = Told { whole: u64::try_from(whole).unwrap_or(0), ..Told::default() };
        for line in read_lines(&text) {
            told.recovered = None;
            match line {
                Line::Original { connection, tracks, wall, .. } => {
                    told.connection = Some(connection);
                    told.wall = Some(wall);
                    told.sources = tracks.iter().map(|track| track.source).collect();
                    told.sources.sort_unstable();
                }
                Line::Clusters { first, end_ms, .. } => {
                    let ends = (first..).zip(end_ms).filter(|(n, _)| *n <= clusters);
                    told.duration_ms = ends.map(|(_, end)| end).fold(told.duration_ms, u64::max);
                }
                Line::Recovered { clusters, tail_bytes, .. } => told.recovered = Some((tail_bytes, clusters)),
                _ => {}
            }
        }
        Ok(told)
    }

    /// Ends the side file with a line that says what was done, in the place of one that was not finished.
    fn close_lines(&self, told: &Told, whole: &Whole, tail_bytes: u64) -> Result<(), RecoverError> {
        if told.recovered == Some((tail_bytes, whole.clusters)) {
            return Ok(());
        }
        let (clusters, bytes, duration_ms) = (whole.clusters, whole.bytes, told.duration_ms);
        let mut line = Vec::new();
        Line::Recovered { clusters, bytes, duration_ms, tail_bytes }.write_to(&mut line);
        let written = OpenOptions::new().write(true).create(true).truncate(false).open(&self.lines);
        let written = written.and_then(|mut file| {
            file.set_len(told.whole)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(&line)?;
            file.sync_all()
        });
        written.map_err(failed(&self.lines))
    }
}

/// Copies what follows `offset` to a file of its own; nothing if nothing does. A copy that was interrupted is made anew.
fn keep_tail(path: &Path, offset: u64, tail: &Path) -> Result<(), RecoverError> {
    if length(path)? <= offset {
        return Ok(());
    }
    let aside = tail.with_extension("tail.new");
    let copied = (|| {
        let mut from = File::open(path)?;
        from.seek(SeekFrom::Start(offset))?;
        let mut to = File::create(&aside)?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()?;
        fs::rename(&aside, tail)
    })();
    copied.map_err(failed(tail))
}

/// Renames a file of which nothing is whole; an empty one is not worth it.
fn set_aside(path: &Path, aside: &Path) -> Result<(), RecoverError> {
    let moved = match length(path) {
        // An earlier run did it.
        Err(RecoverError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => return Err(error),
        Ok(0) => fs::remove_file(path),
        Ok(_) => fs::rename(path, aside),
    };
    moved.map_err(failed(path))
}

fn truncate(path: &Path, length: u64) -> Result<(), RecoverError> {
    let cut = (|| {
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        Ok(())
    })();
    cut.map_err(failed(path))
}

fn read(path: &Path) -> Result<Vec<u8>, RecoverError> {
    fs::read(path).map_err(failed(path))
}

fn length(path: &Path) -> Result<u64, RecoverError> {
    fs::metadata(path).map(|metadata| metadata.len()).map_err(failed(path))
}

fn sync_folder(folder: &Path) -> Result<(), RecoverError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RecoverError {
    move |source| RecoverError::Io { path: path.to_owned(), source }
}
