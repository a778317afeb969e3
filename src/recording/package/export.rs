//! A package's files elsewhere: plain, for whoever holds the session's key, or as a tar.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::place::{Kind, PackageFiles, ReadSeek};
use super::{base_name, is_encrypted, may_be_encrypted};
use crate::vault::{EncryptedReader, OpenError, SessionKey};

/// Why nothing, or only a part, was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The package cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which of its files.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written, or is there already: nothing is ever overwritten.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key is not this session's, or the file was changed.
    #[error("{path} does not open with the session's key: {source}")]
    Closed {
        /// Which.
        path: String,
        /// Why.
        source: OpenError,
    },
    /// A path leads out of the folder.
    #[error("«{0}» does not belong into a package")]
    Outside(String),
}

/// Writes the files of a package, or of a room's recordings, into a folder: encrypted ones plain, all others as they are.
/// What comes out of a package still verifies against its manifest. Files that are there already are not overwritten.
/// Gives the number of files. `progress` is told the bytes written so far and their sum.
///
/// # Errors
/// The first file that cannot be read, opened or written; without a key, encrypted ones are written as they are.
pub fn export_plain(
    files: &dyn PackageFiles,
    key: Option<&SessionKey>,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, ExportError> {
    let list = listed(files)?;
    let total = list.iter().map(|(_, bytes)| bytes).sum();
    let (mut done, mut count) = (0, 0);
    progress(done, total);
    for (path, _) in list {
        let target = out.join(&path);
        let failed = |source| ExportError::Write { path: target.clone(), source };
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&target).map_err(failed)?;
        let (mut from, _) = open(files, &path, key)?;
        let mut block = vec![0; super::BLOCK];
        loop {
            let read = from.read(&mut block).map_err(|source| ExportError::Read { path: path.clone(), source })?;
            if read == 0 {
                break;
            }
            file.write_all(block.get(..read).unwrap_or_default()).map_err(failed)?;
            done += u64::try_from(read).unwrap_or(0);
            progress(done.min(total), total);
        }
        file.sync_all().map_err(failed)?;
        count += 1;
    }
    progress(total, total);
    Ok(count)
}

/// Writes the files of a package as a tar, in a folder of this name; with the session's key, encrypted ones plain.
///
/// # Errors
/// The first file that cannot be read or opened, or the writer's.
pub fn write_tar(
    files: &dyn PackageFiles,
    name: &str,
    key: Option<&SessionKey>,
    out: impl Write,
) -> Result<(), ExportError> {
    let failed = |source| ExportError::Write { path: name.into(), source };
    let mut tar = tar::Builder::new(out);
    for (path, _) in listed(files)? {
        let (from, bytes) = open(files, &path, key)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes);
        // The same package is the same tar, whenever and wherever it is written.
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, format!("{name}/{path}"), from).map_err(failed)?;
    }
    tar.into_inner().and_then(|mut out| out.flush()).map_err(failed)
}

fn listed(files: &dyn PackageFiles) -> Result<Vec<(String, u64)>, ExportError> {
    let list = files.list().map_err(|source| ExportError::Read { path: ".".into(), source })?;
    let mut paths = Vec::new();
    for (path, found) in list {
        if found.kind != Kind::File || path.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return Err(ExportError::Outside(path));
        }
        paths.push((path, found.bytes));
    }
    Ok(paths)
}

/// A file as it is to be written, and its length.
fn open<'a>(
    files: &'a dyn PackageFiles,
    path: &str,
    key: Option<&SessionKey>,
) -> Result<(Box<dyn ReadSeek + 'a>, u64), ExportError> {
    let failed = |source| ExportError::Read { path: path.to_owned(), source };
    let opens = key.filter(|_| may_be_encrypted(path));
    if let Some(key) = opens
        && is_encrypted(files, path).map_err(failed)?
    {
        let file = files.open(path).map_err(failed)?;
        let reader = EncryptedReader::open(file, key, base_name(path));
        let reader = reader.map_err(|source| ExportError::Closed { path: path.to_owned(), source })?;
        let bytes = reader.plain_length();
        return Ok((Box::new(reader), bytes));
    }
    let mut file = files.open(path).map_err(failed)?;
    let bytes = file.seek(io::SeekFrom::End(0)).map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok((file, bytes))
}
