//! A sealed package as files, wherever they are; what is made of them ([`file_entries`], [`sign_manifest`],
//! [`export_plain`], [`write_tar`]), and whether they are whole ([`check_package`]).

mod check;
mod export;
mod place;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

pub use self::check::{
    Checks, LineCheck, LineFault, PackageFault, PackageReport, Place, Problem, check_package, verify_package,
};
pub use self::export::{ExportError, export_plain, write_tar};
pub use self::place::{Found, Kind, PackageFiles, ReadSeek, StoredFolder, StoredTar, package_name};

use super::canonical::CanonicalError;
use super::manifest::{self, FileEntry, MANIFEST, Manifest, PlainEntry, SIGNATURE};
use super::sign::{MANIFEST_TYPE, SignatureError, SigningKey};
use crate::vault::{self, EncryptedReader, HEADER_BYTES, OpenError, SessionKey};

/// How much is read at once.
const BLOCK: usize = 64 << 10;

/// Why the files of a package cannot be listed or sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file cannot be read or written. The disk's fault.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An encrypted file does not open with the session's key.
    #[error("{path}: {source}")]
    Encrypted {
        /// Which.
        path: String,
        /// Why.
        source: OpenError,
    },
    /// The manifest has no canonical form.
    #[error("the manifest: {0}")]
    Manifest(#[from] CanonicalError),
    /// The manifest cannot be signed.
    #[error("the manifest: {0}")]
    Signature(#[from] SignatureError),
}

/// The length and SHA-256 (hex) of everything that a reader gives. `progress` is told the bytes of each step.
///
/// # Errors
/// The reader's.
pub fn digest(mut from: impl Read, progress: &mut dyn FnMut(u64)) -> io::Result<(u64, String)> {
    let (mut context, mut bytes, mut block) = (Context::new(&SHA256), 0, vec![0; BLOCK]);
    loop {
        let read = match from.read(&mut block) {
            Ok(0) => return Ok((bytes, hex::encode(context.finish()))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(block.get(..read).unwrap_or_default());
        let read = u64::try_from(read).unwrap_or(0);
        bytes += read;
        progress(read);
    }
}

/// The manifest's table of files for everything in a folder but the manifest's own files. With the session's key, also
/// what encrypted files hold. `progress` is told the bytes of each step; the sum is that of all files.
///
/// # Errors
/// A file cannot be read, or does not open.
pub fn file_entries(
    folder: &Path,
    key: Option<&SessionKey>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<FileEntry>, SealError> {
    let files = StoredFolder::new(folder);
    let failed = |path: &str| {
        let path = folder.join(path);
        move |source| SealError::File { path, source }
    };
    let mut entries = Vec::new();
    // The list comes in the order of the paths, which is the manifest's.
    for (path, found) in files.list().map_err(failed(""))? {
        if manifest::is_own(&path) {
            continue;
        }
        if found.kind != Kind::File {
            return Err(failed(&path)(io::Error::other("neither a file nor a folder")));
        }
        let file = files.open(&path).map_err(failed(&path))?;
        let (bytes, sha256) = digest(file, progress).map_err(failed(&path))?;
        let plain = match key {
            Some(key) if is_encrypted(&files, &path).map_err(failed(&path))? => {
                let file = files.open(&path).map_err(failed(&path))?;
                let opened = EncryptedReader::open(file, key, base_name(&path));
                let opened = opened.map_err(|source| SealError::Encrypted { path: path.clone(), source })?;
                let (bytes, sha256) = digest(opened, &mut |_| {}).map_err(failed(&path))?;
                Some(PlainEntry { bytes, sha256 })
            }
            _ => None,
        };
        entries.push(FileEntry { path, bytes, sha256, plain });
    }
    Ok(entries)
}

/// Writes `manifest.json` and `manifest.jws` into a package's folder, synced; gives the manifest's SHA-256 (hex) and the
/// signature, for which a timestamp may be asked.
///
/// # Errors
/// It has no canonical form, or the files cannot be written.
pub fn sign_manifest(folder: &Path, manifest: &Manifest, key: &SigningKey) -> Result<(String, String), SealError> {
    let bytes = manifest.to_bytes()?;
    let jws = key.sign(MANIFEST_TYPE, &bytes)?;
    write_synced(&folder.join(MANIFEST), &bytes)?;
    write_synced(&folder.join(SIGNATURE), jws.as_bytes())?;
    Ok((super::chain::sha256_hex(&bytes), jws))
}

/// Writes the authority's answer to a package's folder, and our signature of it: it signs only a part of what it says,
/// and no byte of a package may be changed unseen.
///
/// # Errors
/// The files cannot be written.
pub fn add_timestamp(folder: &Path, answer: &[u8], key: &SigningKey) -> Result<(), SealError> {
    let jws = key.sign(super::sign::TIMESTAMP_TYPE, answer)?;
    write_synced(&folder.join(manifest::TIMESTAMP), answer)?;
    write_synced(&folder.join(manifest::TIMESTAMP_SIGNATURE), jws.as_bytes())
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), SealError> {
    let written = || {
        use std::io::Write as _;
        let mut file = std::fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    written().map_err(|source| SealError::File { path: path.to_owned(), source })
}

/// Whether a file of a package is an encrypted one.
///
/// # Errors
/// It cannot be read.
pub fn is_encrypted(files: &dyn PackageFiles, path: &str) -> io::Result<bool> {
    let mut head = Vec::new();
    files.open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut head)?;
    Ok(vault::is_encrypted(&head))
}

/// Whether a file is a recording, by its name.
pub fn is_webm(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "webm")
}

/// Whether a file is one of those that are encrypted if the room has a key: recordings, and what people exchanged.
pub fn may_be_encrypted(path: &str) -> bool {
    is_webm(path) || path == "chat.jsonl" || ["documents/", "receipts/"].iter().any(|folder| path.starts_with(folder))
}

/// A file's name without its folders: encryption binds a file to it.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
