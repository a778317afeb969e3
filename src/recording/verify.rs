//! Reads originals back and compares them with their chains. Needs nothing but the files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chain::{ChainEntry, sha256_hex};
use super::read::{self, LARGEST_PIECE, Malformed};

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
    /// Its length in bytes.
    pub bytes: u64,
    /// Number of clusters.
    pub clusters: u64,
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
        let file = verify_original(original, |bytes| {
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

fn verify_original(path: PathBuf, mut progress: impl FnMut(u64)) -> Result<FileReport, VerifyError> {
    let chain_path = path.with_extension("chain.jsonl");
    let chain = fs::read(&chain_path).map_err(unreadable(&chain_path))?;
    let mut file = File::open(&path).map_err(unreadable(&path))?;
    let bytes = file.metadata().map_err(unreadable(&path))?.len();
    let (mut next, mut offset, mut head) = (0, 0, String::new());
    for line in chain.split_inclusive(|byte| *byte == b'\n') {
        let broken = |difference| VerifyError::Broken { path: path.clone(), cluster: next, difference };
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err(broken(Difference::Line("it is cut short".into())));
        };
        let entry: ChainEntry =
            serde_json::from_slice(line).map_err(|error| broken(Difference::Line(error.to_string())))?;
        if entry.n != next {
            return Err(broken(Difference::Number(entry.n)));
        }
        if entry.previous != head {
            return Err(broken(Difference::Previous));
        }
        if entry.offset != offset {
            return Err(broken(Difference::Offset { said: entry.offset, expected: offset }));
        }
        if entry.length > bytes.saturating_sub(offset) || entry.length > LARGEST_PIECE {
            return Err(broken(Difference::CutShort));
        }
        let mut piece = vec![0; usize::try_from(entry.length).unwrap_or(0)];
        file.read_exact(&mut piece).map_err(unreadable(&path))?;
        let found = sha256_hex(&piece);
        if found != entry.sha256 {
            return Err(broken(Difference::Hash { found, said: entry.sha256 }));
        }
        let structure = if next == 0 { read::header(&piece).map(drop) } else { check_cluster(&piece) };
        structure.map_err(|what| broken(Difference::Structure(what)))?;
        head = sha256_hex(line);
        offset += entry.length;
        next += 1;
        progress(entry.length);
    }
    let broken = |cluster, difference| VerifyError::Broken { path: path.clone(), cluster, difference };
    if next == 0 {
        return Err(broken(0, Difference::Line("the chain is empty".into())));
    }
    let end = file.seek(SeekFrom::End(0)).map_err(unreadable(&path))?;
    if end != offset {
        return Err(broken(next - 1, Difference::Tail(end.saturating_sub(offset))));
    }
    Ok(FileReport { path, bytes: offset, clusters: next - 1, chain_head: head })
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> VerifyError {
    move |source| VerifyError::Unreadable { path: path.to_owned(), source }
}

fn check_cluster(piece: &[u8]) -> Result<(), Malformed> {
    read::cluster(piece)?.blocks().try_for_each(|block| block.map(drop))
}
