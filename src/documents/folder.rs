//! Where documents lie: `<root>/<room>/<SHA-256>`, encrypted under the room's key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};

use super::MAX_BYTES;
use crate::id::RoomId;
use crate::vault::{EncryptedReader, FixedWriter, HEADER_BYTES, SessionKey, is_encrypted};

/// Bytes that a stored file may have: a document, its header, and the segments' lengths and tags.
const LARGEST_STORED: u64 = MAX_BYTES as u64 + (64 << 10);

/// Tells files apart that are written at the same time.
static ASIDE: AtomicU64 = AtomicU64::new(0);

/// The folder of documents. A document's path is made of its room and its hash; nothing of its name is in it.
///
/// Files are encrypted in fixed segments under the room's session key, and their base name, the hash, is bound into
/// each file's key: so they open in a package as `documents/<sha256>` like every other file of it.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at `root`, which is made when the first document comes.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where a document lies, or would lie.
    pub fn path(&self, room: RoomId, sha256: &str) -> PathBuf {
        self.root.join(room.to_string()).join(sha256)
    }

    /// Stores a document; it is durable afterwards. If it is there already, nothing happens.
    ///
    /// # Errors
    /// `InvalidInput` if `sha256` is not the hash of `bytes` in hex, or they are too many; or what the disk says.
    /// Nothing is there then.
    pub fn put(&self, room: RoomId, sha256: &str, key: Option<&SessionKey>, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the document is too large"));
        }
        if hex::encode(digest(&SHA256, bytes)) != sha256 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the hash is another document's"));
        }
        let path = self.path(room, sha256);
        // What is there is whole, because it came by a rename; but a broken one is replaced.
        if self.get(room, sha256, key).is_ok() {
            return Ok(());
        }
        let folder = self.make_room(room)?;
        let number = ASIDE.fetch_add(1, Ordering::Relaxed);
        let aside = folder.join(format!("{sha256}.{}-{number}.new", std::process::id()));
        let written = write(&aside, sha256, key, bytes).and_then(|()| fs::rename(&aside, &path));
        if let Err(error) = written {
            // The first error says more than a second one.
            let _removed = fs::remove_file(&aside);
            return Err(error);
        }
        sync_folder(&folder)
    }

    /// A document's bytes, decrypted, and compared with their hash.
    ///
    /// # Errors
    /// `NotFound`, `InvalidData` if they are not what was stored or do not open with the key, or what the disk says.
    pub fn get(&self, room: RoomId, sha256: &str, key: Option<&SessionKey>) -> io::Result<Vec<u8>> {
        let stored = read_bounded(File::open(self.checked_path(room, sha256)?)?, LARGEST_STORED)?;
        let bytes = match key {
            Some(key) if is_encrypted(stored.get(..HEADER_BYTES).unwrap_or_default()) => {
                let mut reader = EncryptedReader::open(io::Cursor::new(stored), key, sha256)?;
                if !reader.is_finished() {
                    return Err(changed());
                }
                read_bounded(BufReader::new(&mut reader), MAX_BYTES as u64)?
            }
            _ => stored,
        };
        if hex::encode(digest(&SHA256, &bytes)) == sha256 { Ok(bytes) } else { Err(changed()) }
    }

    /// Removes a document; that it was not there is no error.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(&self, room: RoomId, sha256: &str) -> io::Result<()> {
        let path = self.checked_path(room, sha256)?;
        match fs::remove_file(&path) {
            Ok(()) => path.parent().map_or(Ok(()), sync_folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes all documents of a room, and what a crash left of others.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove_room(&self, room: RoomId) -> io::Result<()> {
        match fs::remove_dir_all(self.root.join(room.to_string())) {
            Ok(()) => sync_folder(&self.root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A path only for what is a hash: nothing else of the caller's becomes part of it.
    fn checked_path(&self, room: RoomId, sha256: &str) -> io::Result<PathBuf> {
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hash {
            Ok(self.path(room, sha256))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a SHA-256 in hex"))
        }
    }

    fn make_room(&self, room: RoomId) -> io::Result<PathBuf> {
        let folder = self.root.join(room.to_string());
        if !folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            // A new folder is durable when its name is, in the folder above.
            sync_folder(&self.root)?;
            if let Some(above) = self.root.parent().filter(|above| !above.as_os_str().is_empty()) {
                sync_folder(above)?;
            }
        }
        Ok(folder)
    }
}

fn write(path: &Path, name: &str, key: Option<&SessionKey>, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    match key {
        Some(key) => {
            let mut writer = FixedWriter::new(&mut file, key, name)?;
            writer.write_all(bytes)?;
            writer.finish()?;
        }
        None => file.write_all(bytes)?,
    }
    file.sync_all()
}

fn read_bounded(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) { Ok(bytes) } else { Err(changed()) }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the document is not what was stored")
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
