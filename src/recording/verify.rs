//! Reads originals back and compares them with their chains. Needs nothing but the files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::original_check::{Checked, Difference, Fault, check_original, piece_name, read_chain};
use crate::vault::SessionKey;

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
    /// Whether it ended regularly. Otherwise it is still being written, or was cut short: by a crash, by a fault, or by
    /// somebody who also cut the chain, which only a chain head kept elsewhere can tell.
    pub finished: bool,
    /// Whether the file is encrypted. Without its key, only the stored bytes were checked.
    pub encrypted: bool,
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
    progress: impl FnMut(u64),
) -> Result<FileReport, VerifyError> {
    let chain_path = path.with_extension("chain.jsonl");
    let chain = fs::read(&chain_path).map_err(unreadable(&chain_path))?;
    let file = File::open(path).map_err(unreadable(path))?;
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let path = path.to_owned();
    match read_chain(&chain).and_then(|chain| check_original(&chain, file, &name, key, progress)) {
        Ok(Checked { bytes, clusters, chain_head, finished, encrypted }) => {
            Ok(FileReport { path, bytes, clusters, chain_head, finished, encrypted })
        }
        Err(Fault::Unreadable(source)) => Err(VerifyError::Unreadable { path, source }),
        Err(Fault::Broken { piece, difference }) => Err(VerifyError::Broken { path, cluster: piece, difference }),
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> VerifyError {
    move |source| VerifyError::Unreadable { path: path.to_owned(), source }
}
