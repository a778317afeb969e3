//! Reads originals back and compares them with their chains. Needs nothing but the files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chain::{ChainEntry, sha256_hex};
use super::read::{self, LARGEST_PIECE, Malformed};
use crate::vault::{self, FileOpener, HEADER_BYTES, OpenError, SessionKey};

/// What was found to be whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The originals, in the order of their paths.
    pub files: Vec<FileReport>,
}

/// One whole original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// The WebM.
    pub path: PathBuf,
    /// Length of the WebM in bytes, as it was recorded.
    pub bytes: u64,
    /// Number of clusters.
    pub clusters: u64,
    /// Whether it ended regularly. Otherwise it is still being written, or was cut short: by a crash, by a fault, or by
    /// somebody who also cut the chain, which only a chain head kept elsewhere can tell.
    pub finished: bool,
    /// Whether the file is encrypted. Without its key, only the stored bytes were checked.
    pub encrypted: bool,
    /// SHA-256 of the chain's last line, in hex: what was signed or published must be equal to it.
    pub chain_head: String,
}

/// Why a recording cannot be relied upon.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The path is no `.webm`, and holds none.
    #[error("{}: no originals here", path.display())]
    NothingFound {
        /// Where was looked.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what its chain says.
    #[error("{}: {}: {difference}", path.display(), piece_name(*cluster))]
    Broken {
        /// The WebM.
        path: PathBuf,
        /// The first cluster that differs, from 1; 0 is the header.
        cluster: u64,
        /// What differs.
        difference: Difference,
    },
}

/// What differs between an original and its chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// The chain's line cannot be read.
    #[error("its line in the chain cannot be read: {0}")]
    Line(String),
    /// The lines are not numbered one after the other.
    #[error("its line in the chain says number {0}")]
    Number(u64),
    /// It does not begin where the one before ends.
    #[error("the chain puts it at byte {said}, the one before ends at {expected}")]
    Offset {
        /// What the chain says.
        said: u64,
        /// Where the piece before ends.
        expected: u64,
    },
    /// The line does not hold the hash of the line before it.
    #[error("its line does not follow from the line before: the chain was changed")]
    Previous,
    /// The file ends before it does.
    #[error("the file is cut short")]
    CutShort,
    /// Its bytes were changed.
    #[error("its bytes have SHA-256 {found}, the chain says {said}")]
    Hash {
        /// Of the bytes in the file.
        found: String,
        /// In the chain.
        said: String,
    },
    /// Its bytes are as written, but are not decrypted: the key is another recording's, or the file another one.
    #[error("cannot be decrypted: {0}")]
    Locked(String),
    /// The chain goes on after its end.
    #[error("the chain goes on after its end")]
    AfterEnd,
    /// The bytes are as written, but no WebM.
    #[error("not the structure of a WebM: {0}")]
    Structure(Malformed),
    /// The file goes on after the last line of the chain.
    #[error("{0} bytes follow that are not in the chain")]
    Tail(u64),
}

fn piece_name(cluster: u64) -> String {
    if cluster == 0 { "header".into() } else { format!("cluster {cluster}") }
}

/// Checks one original, or every original in a folder and the folders in it.
///
/// `progress` is told the bytes checked so far and their sum.
///
/// # Errors
/// The first difference found, by file and cluster.
pub fn verify(path: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Report, VerifyError> {
    let mut originals = Vec::new();
    collect(path, &mut originals)?;
    originals.sort();
    if originals.is_empty() {
        return Err(VerifyError::NothingFound { path: path.to_owned() });
    }
    let mut total = 0;
    for original in &originals {
        total += fs::metadata(original).map_err(unreadable(original))?.len();
    }
    let mut done = 0;
    progress(done, total);
    let mut report = Report::default();
    for original in originals {
        let file = verify_original(&original, None, |bytes| {
            done += bytes;
            progress(done, total);
        })?;
        report.files.push(file);
    }
    Ok(report)
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) -> Result<(), VerifyError> {
    if !fs::metadata(path).map_err(unreadable(path))?.is_dir() {
        if path.extension().is_some_and(|extension| extension == "webm") {
            into.push(path.to_owned());
        }
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(unreadable(path))? {
        let entry = entry.map_err(unreadable(path))?;
        // Links are not followed: they may lead round in circles.
        if !entry.file_type().map_err(unreadable(path))?.is_symlink() {
            collect(&entry.path(), into)?;
        }
    }
    Ok(())
}

/// Checks one original, `<stem>.webm` with `<stem>.chain.jsonl` beside it: stored encrypted, or plain, be it because it
/// was recorded so or because it was exported. With the key, what is in an encrypted one is checked too. Without it,
/// the stored bytes are, which the same chain vouches for.
///
/// `progress` is told the bytes of each piece that was checked.
///
/// # Errors
/// The first difference found, by cluster.
pub fn verify_original(
    path: &Path,
    key: Option<&SessionKey>,
    mut progress: impl FnMut(u64),
) -> Result<FileReport, VerifyError> {
    let chain_path = path.with_extension("chain.jsonl");
    let chain = fs::read(&chain_path).map_err(unreadable(&chain_path))?;
    let mut file = File::open(path).map_err(unreadable(path))?;
    let bytes = file.metadata().map_err(unreadable(path))?.len();
    let mut checked = Checked { encrypted: is_encrypted(&mut file).map_err(unreadable(path))?, ..Checked::default() };
    let mut lock = None;
    for line in chain.split_inclusive(|byte| *byte == b'\n') {
        let cluster = checked.next;
        let broken = |difference| VerifyError::Broken { path: path.to_owned(), cluster, difference };
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err(broken(Difference::Line("it is cut short".into())));
        };
        let entry: ChainEntry =
            serde_json::from_slice(line).map_err(|error| broken(Difference::Line(error.to_string())))?;
        let (offset, length) = checked.follow(&entry, bytes).map_err(broken)?;
        let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut piece)).map_err(unreadable(path))?;
        if cluster == 0 {
            lock =
                key.filter(|_| checked.encrypted).map(|key| opener(key, path, &piece)).transpose().map_err(broken)?;
        }
        let piece = checked.check(&entry, piece, lock.as_ref()).map_err(broken)?;
        if let Some(piece) = piece {
            let structure = if cluster == 0 { read::header(&piece).map(drop) } else { check_cluster(&piece) };
            structure.map_err(|what| broken(Difference::Structure(what)))?;
        }
        checked.head = sha256_hex(line);
        progress(length);
    }
    let Checked { next, plain, stored, head, finished, encrypted } = checked;
    let broken = |cluster, difference| VerifyError::Broken { path: path.to_owned(), cluster, difference };
    let Some(clusters) = next.checked_sub(1) else {
        return Err(broken(0, Difference::Line("the chain is empty".into())));
    };
    let end = file.seek(SeekFrom::End(0)).map_err(unreadable(path))?;
    let expected = if encrypted { stored } else { plain };
    if end != expected {
        return Err(broken(clusters, Difference::Tail(end.saturating_sub(expected))));
    }
    Ok(FileReport { path: path.to_owned(), bytes: plain, clusters, finished, encrypted, chain_head: head })
}

fn is_encrypted(file: &mut File) -> io::Result<bool> {
    let mut head = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut head)?;
    Ok(vault::is_encrypted(&head))
}

fn opener(key: &SessionKey, path: &Path, piece: &[u8]) -> Result<FileOpener, Difference> {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    FileOpener::new(key, &name, piece).map_err(|error| Difference::Locked(error.to_string()))
}

/// How far a chain was followed.
#[derive(Debug, Default)]
struct Checked {
    /// Number of the next line.
    next: u64,
    /// Bytes of the WebM so far, and of the encrypted file.
    plain: u64,
    stored: u64,
    head: String,
    finished: bool,
    encrypted: bool,
}

impl Checked {
    /// Compares a line with the one before. Gives where in the file of so many bytes its piece lies, and its length.
    fn follow(&self, entry: &ChainEntry, bytes: u64) -> Result<(u64, u64), Difference> {
        if self.finished {
            return Err(Difference::AfterEnd);
        }
        if entry.n != self.next {
            return Err(Difference::Number(entry.n));
        }
        if entry.previous != self.head {
            return Err(Difference::Previous);
        }
        if entry.offset != self.plain {
            return Err(Difference::Offset { said: entry.offset, expected: self.plain });
        }
        if entry.end && (entry.length > 0 || entry.n == 0) {
            return Err(Difference::Line("an end that is none".into()));
        }
        let (offset, length) = match &entry.stored {
            Some(piece) if piece.offset != self.stored => {
                return Err(Difference::Offset { said: piece.offset, expected: self.stored });
            }
            Some(piece) if self.encrypted => (piece.offset, piece.length),
            None if self.encrypted => return Err(Difference::Line("it does not say what is stored".into())),
            _ => (entry.offset, entry.length),
        };
        if length > bytes.saturating_sub(offset) || length > LARGEST_PIECE {
            return Err(Difference::CutShort);
        }
        Ok((offset, length))
    }

    /// Compares a piece with its line, and gives its plain bytes if they can be had and are of the WebM.
    fn check(
        &mut self,
        entry: &ChainEntry,
        mut piece: Vec<u8>,
        lock: Option<&FileOpener>,
    ) -> Result<Option<Vec<u8>>, Difference> {
        self.next += u64::from(!entry.end);
        self.plain += entry.length;
        self.finished = entry.end;
        if let Some(stored) = &entry.stored {
            self.stored += stored.length;
        }
        if let Some(stored) = entry.stored.as_ref().filter(|_| self.encrypted) {
            compare(&piece, &stored.sha256)?;
            let Some(lock) = lock else { return Ok(None) };
            let segment = if entry.n == 0 { piece.get(HEADER_BYTES..).unwrap_or_default() } else { &piece };
            let opened = lock.open(entry.n, entry.end, segment);
            piece = opened.map_err(|error: OpenError| Difference::Locked(error.to_string()))?;
        }
        compare(&piece, &entry.sha256)?;
        Ok((!entry.end).then_some(piece))
    }
}

fn compare(piece: &[u8], said: &str) -> Result<(), Difference> {
    let found = sha256_hex(piece);
    if found == said { Ok(()) } else { Err(Difference::Hash { found, said: said.to_owned() }) }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> VerifyError {
    move |source| VerifyError::Unreadable { path: path.to_owned(), source }
}

fn check_cluster(piece: &[u8]) -> Result<(), Malformed> {
    read::cluster(piece)?.blocks().try_for_each(|block| block.map(drop))
}
