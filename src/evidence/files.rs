//! The files of a recording as plain bytes: found in the package or in the recordings folder, decrypted on the way, read
//! in a thread that may wait, and handed on piece by piece.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Error, Evidence, Fault, OriginalView, detail};
use crate::audit::Action;
use crate::id::RoomId;
use crate::objects::ObjectReader;
use crate::recording::ChainEntry;
use crate::recording::seekable::{Front, front};
use crate::store::{Grant, PackageState, RecordingKey};
use crate::vault::{EncryptedReader, SessionKey, WrappedKey};

/// Bytes that are handed on at once. More cost memory for each reader; fewer wake more often.
pub(super) const PIECE: usize = 64 << 10;
/// Pieces that wait for a slow client; then the reading waits.
pub(super) const PIECES: usize = 4;
/// How long a client may take none of them. Longer: clients that are gone hold on to a thread for longer.
pub(super) const STALLED: Duration = Duration::from_mins(1);

/// What an encrypted file begins with.
const ENCRYPTED: &[u8; 8] = b"SPORTVLT";

/// Largest side file of an original that is still written, bytes: its chain has some 500 bytes a second, so a day's is
/// 43 MB.
const LARGEST_CHAIN: u64 = 256 << 20;

/// What of a recording is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `manifest.json`.
    Manifest,
    /// `manifest.jws`.
    Signature,
    /// `session.webm`.
    Session,
    /// A file of `originals/`.
    Original(String),
    /// An original's WebM, with a front by which players jump.
    Seekable(String),
}

/// A single range of bytes, as a request names it (RFC 9110, section 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From this byte to the end.
    From(u64),
    /// From the first of these bytes to the second, both included.
    Between(u64, u64),
    /// So many of the last bytes.
    Last(u64),
}

/// What is answered.
#[derive(Debug)]
pub struct Content {
    /// Length of the whole file.
    pub length: u64,
    /// The bytes that are given, if not all are.
    pub range: Option<Range<u64>>,
    /// What to call it.
    pub name: String,
    /// Its media type.
    pub media_type: &'static str,
    /// The bytes; `None`: they were not asked for.
    pub body: Option<Pieces>,
}

/// Bytes on their way; an error is the last of them.
pub type Pieces = mpsc::Receiver<io::Result<Bytes>>;

impl ByteRange {
    /// A `Range` header. `None`: it is not one single range of bytes, and is ignored, as section 14.2 allows.
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, set) = header.trim().split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // What is longer than a number of ours lies behind every file's end.
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        let (first, last) = set.trim().split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", last) => number(last).map(Self::Last),
            (first, "") => number(first).map(Self::From),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// The bytes of a file of this length; `None`: it has none of them.
    fn within(self, length: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first) => first..length,
            Self::Between(first, last) => first..length.min(last.saturating_add(1)),
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Where a room's files are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Sealed, among the objects, below this prefix.
    Package(String),
    /// Not sealed yet, in this folder.
    Folder(PathBuf),
}

/// A file's stored bytes.
#[derive(Debug)]
pub(super) enum Stored {
    Local(File),
    Object(ObjectReader),
}

/// A file's plain bytes.
#[derive(Debug)]
pub(super) enum Plain {
    Decrypted(Box<EncryptedReader<Stored>>),
    /// As it is stored, up to this length.
    AsItIs {
        stored: Stored,
        position: u64,
        length: u64,
    },
    /// With another front.
    View {
        front: Arc<Front>,
        position: u64,
        original: Box<Plain>,
    },
}

/// The fronts of views that were made last: a player asks for a film in many parts, and a front costs a whole reading.
#[derive(Debug, Default)]
pub(super) struct Fronts(Mutex<VecDeque<(FrontKey, Arc<Front>)>>);

/// An original, as long as it is by now.
type FrontKey = (RoomId, String, u64);

/// Fronts that are remembered, each of some kilobytes. Fewer: with many players at once they are made again and again.
const FRONTS: usize = 64;

impl Evidence {
    /// The names of a recording's original files, and of those beside them.
    pub async fn originals(&self, grant: &Grant) -> Result<Vec<OriginalView>, Error> {
        let place = self.place(grant.room).await?;
        self.note(grant, Action::OriginalRead, detail([("list", true.into())])).await?;
        let mut files = match place {
            Place::Package(prefix) => {
                let below = format!("{prefix}/originals/");
                let listed = self.0.objects.list(&format!("{prefix}/originals")).await;
                let listed = listed.map_err(|error| Error::Unavailable(error.into()))?;
                let named = listed.into_iter().filter_map(|object| {
                    Some(OriginalView { file: object.path.strip_prefix(&below)?.to_owned(), bytes: object.bytes })
                });
                named.collect::<Vec<_>>()
            }
            Place::Folder(folder) => blocking(move || list_folder(&folder)).await?.map_err(unreadable)?,
        };
        files.retain(|view| is_original(&view.file));
        files.sort_by(|one, other| one.file.cmp(&other.file));
        Ok(files)
    }

    /// Reads a file of a recording, or a part of it. Without `body` nothing is read but its length.
    pub async fn read(
        &self,
        grant: &Grant,
        part: Part,
        range: Option<ByteRange>,
        body: bool,
    ) -> Result<Content, Error> {
        let (action, path, media_type) = match &part {
            Part::Manifest => (Action::ManifestRead, "manifest.json".to_owned(), "application/json"),
            Part::Signature => (Action::SignatureRead, "manifest.jws".to_owned(), "application/jose"),
            Part::Session => (Action::SessionCopyRead, "session.webm".to_owned(), "video/webm"),
            Part::Original(file) if is_original(file) => {
                (Action::OriginalRead, format!("originals/{file}"), media_type(file))
            }
            Part::Seekable(file) if is_original(file) && is_film(file) => {
                (Action::OriginalRead, format!("originals/{file}"), media_type(file))
            }
            Part::Original(_) | Part::Seekable(_) => return Err(Error::UnknownFile),
        };
        let place = self.place(grant.room).await?;
        if matches!(place, Place::Folder(_)) && !matches!(part, Part::Original(_) | Part::Seekable(_)) {
            return Err(Error::NotSealed);
        }
        let key = self.session_key(grant.room).await?;
        let permit = self.reader()?;
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let (evidence, runtime, at) = (self.clone(), Handle::current(), path.clone());
        let view = matches!(part, Part::Seekable(_)).then_some(grant.room);
        let opened = blocking(move || {
            let plain = evidence.open_plain(&place, &at, key.as_ref(), &runtime)?;
            if let Some(room) = view { evidence.seekable(plain, (room, at)) } else { Ok(plain) }
        });
        let mut plain = opened.await??;
        let length = plain.length();
        let range = match range {
            Some(range) => Some(range.within(length).ok_or(Error::NoSuchPart(length))?),
            None => None,
        };
        let mut noted = detail([("file", path.into())]);
        if let Some(range) = &range {
            noted.insert("bytes".into(), format!("{}-{}", range.start, range.end.saturating_sub(1)).into());
        }
        self.note(grant, action, noted).await?;
        let wanted = range.clone().unwrap_or(0..length);
        let body = body.then(|| {
            pump(permit, move |out| {
                plain.seek(SeekFrom::Start(wanted.start))?;
                let mut plain = plain.take(wanted.end - wanted.start);
                io::copy(&mut plain, out).map(drop)
            })
        });
        Ok(Content { length, range, name, media_type, body })
    }

    /// Where a room's files are.
    pub(super) async fn place(&self, room: RoomId) -> Result<Place, Error> {
        match self.0.store.package(room).await? {
            Some(package) if package.state == PackageState::Destroyed => return Err(Error::Destroyed),
            Some(package) if package.revision > 0 => {
                if let Some(prefix) = package.prefix {
                    return Ok(Place::Package(prefix.trim_end_matches('/').to_owned()));
                }
            }
            _ => {}
        }
        let folders = self.0.settings.recordings.iter().map(|folder| folder.join(room.to_string()));
        folders.into_iter().find(|folder| folder.is_dir()).map(Place::Folder).ok_or(Error::UnknownFile)
    }

    /// A room's key; `None`: it has none, because it was not encrypted.
    pub(super) async fn session_key(&self, room: RoomId) -> Result<Option<SessionKey>, Error> {
        let wrapped = match self.0.store.recording_key(room).await? {
            RecordingKey::None => return Ok(None),
            RecordingKey::Destroyed(_) => return Err(Error::Destroyed),
            RecordingKey::Wrapped(text) => text,
        };
        let wrapped: WrappedKey = wrapped.parse().map_err(|error| failed(&error))?;
        let keys = Arc::clone(&self.0.keys);
        // A key management service is asked over the network.
        let key = blocking(move || keys.unwrap(room, &wrapped)).await?;
        key.map(Some).map_err(|error| failed(&error))
    }

    /// The view of an original in which players jump. To be called where it may wait.
    fn seekable(&self, mut original: Plain, (room, path): (RoomId, String)) -> Result<Plain, Error> {
        let key = (room, path, original.length());
        let front = if let Some(known) = self.0.fronts.find(&key) {
            known
        } else {
            match front(io::BufReader::with_capacity(PIECE, &mut original)) {
                Ok(made) => self.0.fronts.keep(key, Arc::new(made)),
                // Nothing that a player could jump in: whoever reads it sees what is there, as it is.
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                    original.seek(SeekFrom::Start(0)).map_err(unreadable)?;
                    return Ok(original);
                }
                Err(error) => return Err(unreadable(error)),
            }
        };
        Ok(Plain::View { front, position: 0, original: Box::new(original) })
    }

    pub(super) fn reader(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.0.readers).try_acquire_owned().map_err(|_| Error::TooBusy)
    }

    /// Opens a file of a recording by its path in the package. To be called where it may wait.
    pub(super) fn open_plain(
        &self,
        place: &Place,
        path: &str,
        key: Option<&SessionKey>,
        runtime: &Handle,
    ) -> Result<Plain, Error> {
        let name = path.rsplit('/').next().unwrap_or_default();
        let (stored, length) = match place {
            Place::Package(prefix) => {
                let reader = ObjectReader::open(&self.0.objects, &format!("{prefix}/{path}"), runtime);
                let reader = reader.map_err(|error| match error {
                    crate::objects::ObjectError::Missing { .. } => Error::UnknownFile,
                    error => Error::Unavailable(error.into()),
                })?;
                let length = reader.length();
                (Stored::Object(reader), length)
            }
            Place::Folder(folder) => {
                let file = File::open(folder.join(name)).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => Error::UnknownFile,
                    _ => unreadable(error),
                })?;
                let length = file.metadata().map_err(unreadable)?.len();
                (Stored::Local(file), whole_length(folder, name, length))
            }
        };
        Plain::open(stored, length, name, key)
    }
}

impl Plain {
    pub(super) fn open(mut stored: Stored, length: u64, name: &str, key: Option<&SessionKey>) -> Result<Self, Error> {
        let mut head = Vec::new();
        stored.by_ref().take(8).read_to_end(&mut head).map_err(unreadable)?;
        stored.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        // What was cut off an original is given out as it is.
        if head != ENCRYPTED || !is_film(name) {
            return Ok(Self::AsItIs { stored, position: 0, length });
        }
        let key = key.ok_or_else(|| failed(&format_args!("{name} is encrypted, and there is no key of its room")))?;
        let reader = EncryptedReader::open(stored, key, name).map_err(|error| failed(&error))?;
        Ok(Self::Decrypted(Box::new(reader)))
    }

    /// Plain bytes in it.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Decrypted(reader) => reader.plain_length(),
            Self::AsItIs { length, .. } => *length,
            Self::View { front, original, .. } => front.length() + original.length().saturating_sub(front.replaces),
        }
    }
}

impl Read for Stored {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Local(file) => file.read(into),
            Self::Object(reader) => reader.read(into),
        }
    }
}

impl Seek for Stored {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Local(file) => file.seek(to),
            Self::Object(reader) => reader.seek(to),
        }
    }
}

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Decrypted(reader) => reader.read(into),
            Self::AsItIs { stored, position, length } => {
                let read = stored.take(length.saturating_sub(*position)).read(into)?;
                *position += u64::try_from(read).unwrap_or(0);
                Ok(read)
            }
            Self::View { front, position, original } => {
                let rest = usize::try_from(*position).ok().and_then(|from| front.bytes.get(from..));
                let read = match rest {
                    Some(mut rest) if !rest.is_empty() => rest.read(into)?,
                    _ => {
                        original.seek(SeekFrom::Start(*position - front.length() + front.replaces))?;
                        original.read(into)?
                    }
                };
                *position += u64::try_from(read).unwrap_or(0);
                Ok(read)
            }
        }
    }
}

impl Fronts {
    fn find(&self, key: &FrontKey) -> Option<Arc<Front>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(other, _)| other == key).map(|(_, front)| Arc::clone(front))
    }

    fn keep(&self, key: FrontKey, front: Arc<Front>) -> Arc<Front> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back((key, Arc::clone(&front)));
        if known.len() > FRONTS {
            known.pop_front();
        }
        front
    }
}

impl Seek for Plain {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Decrypted(reader) => reader.seek(to),
            Self::AsItIs { stored, position, .. } => {
                *position = stored.seek(to)?;
                Ok(*position)
            }
            Self::View { position, .. } => {
                let SeekFrom::Start(place) = to else { return Err(io::ErrorKind::Unsupported.into()) };
                *position = place;
                Ok(place)
            }
        }
    }
}

/// Does work in a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Unavailable(Fault::BrokenOff))
}

/// Has a thread write, and hands on what it writes, as fast as it is taken. The permit is held for as long.
pub(super) fn pump(
    permit: OwnedSemaphorePermit,
    write: impl FnOnce(&mut Outlet) -> io::Result<()> + Send + 'static,
) -> Pieces {
    let (sender, pieces) = mpsc::channel(PIECES);
    let mut outlet = Outlet { sender, runtime: Handle::current(), piece: Vec::with_capacity(PIECE) };
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let written = write(&mut outlet).and_then(|()| io::Write::flush(&mut outlet));
        if let Err(error) = written {
            if error.kind() != io::ErrorKind::BrokenPipe {
                tracing::error!(%error, "a recording could not be read to its end");
            }
            // The client sees a body that breaks off, and not one that ends.
            let broken = io::Error::new(error.kind(), "the recording could not be read to its end");
            let _gone = outlet.sender.try_send(Err(broken));
        }
    });
    pieces
}

/// Where a thread writes what a client gets.
pub(super) struct Outlet {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
    piece: Vec<u8>,
}

impl io::Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE.saturating_sub(self.piece.len()));
        self.piece.extend(bytes.iter().take(taken));
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.runtime.block_on(tokio::time::timeout(STALLED, self.sender.send(Ok(piece.into()))));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// A file of an original, by its name alone: what cannot be one is not looked for.
fn is_original(file: &str) -> bool {
    const ENDS: [&str; 5] = [".webm", ".chain.jsonl", ".rtcp.jsonl", ".tail", ".chain.tail"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let stem = ENDS.iter().find_map(|end| file.strip_suffix(end));
    file.len() <= 128
        && file.bytes().all(plain)
        && stem.is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.') && !stem.contains(".."))
}

fn is_film(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "webm" || end == "mp4")
}

fn media_type(file: &str) -> &'static str {
    match Path::new(file).extension().and_then(|end| end.to_str()) {
        Some("webm") => "video/webm",
        Some("jsonl") => "application/jsonl",
        _ => "application/octet-stream",
    }
}

fn list_folder(folder: &Path) -> io::Result<Vec<OriginalView>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(file) = entry.file_name().to_str() {
            files.push(OriginalView { file: file.to_owned(), bytes: entry.metadata()?.len() });
        }
    }
    Ok(files)
}

/// How much of a file that may still be written is whole: up to the last cluster that its chain names. An encrypted one
/// counts its own segments.
fn whole_length(folder: &Path, name: &str, length: u64) -> u64 {
    let Some(stem) = name.strip_suffix(".webm") else { return length };
    let chain = folder.join(format!("{stem}.chain.jsonl"));
    let Ok(file) = File::open(chain) else { return length };
    let mut text = Vec::new();
    if file.take(LARGEST_CHAIN).read_to_end(&mut text).is_err() {
        return length;
    }
    // The last line may be half there.
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let last = lines.filter_map(|line| serde_json::from_slice::<ChainEntry>(line).ok()).next_back();
    last.map_or(length, |entry| length.min(entry.offset.saturating_add(entry.length)))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn unreadable(error: io::Error) -> Error {
    failed(&error)
}

pub(super) fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::Unavailable(Fault::Unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_understood_and_everything_else_is_ignored() {
        let whole = |header: &str| ByteRange::parse(header).map(|range| range.within(1_000));
        assert_eq!(whole("bytes=0-499"), Some(Some(0..500)));
        assert_eq!(whole("bytes=500-"), Some(Some(500..1_000)));
        assert_eq!(whole("bytes=-100"), Some(Some(900..1_000)));
        assert_eq!(whole("Bytes= 0-99999"), Some(Some(0..1_000)));
        assert_eq!(whole("bytes=-99999"), Some(Some(0..1_000)));
        for nothing in ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(whole(nothing), Some(None), "{nothing}");
        }
        for other in ["", "bytes", "bytes=", "bytes=-", "bytes=2-1", "bytes=0-1,3-4", "items=0-1", "bytes=+1-2"] {
            assert_eq!(whole(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_files_lead_nowhere_else() {
        for file in ["delegato-1.webm", "operator-2-screen.chain.jsonl", "delegante-1.rtcp.jsonl", "citizen-1.tail"] {
            assert!(is_original(file), "{file}");
        }
        for file in ["", ".webm", "../x.webm", "a/b.webm", "a..webm.webm", "x.webm\0", "session.key", "..tail"] {
            assert!(!is_original(file), "{file}");
        }
    }
}
