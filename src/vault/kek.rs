//! The key-encryption key in a file.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::key::{KEY_BYTES, KekId, KeyEncryption, KeyError, SessionKey, WrappedKey};
use crate::id::RoomId;

/// A key file longer than this is none: room for several hundred keys.
const LARGEST_FILE: u64 = 64 << 10;

/// Key-encryption keys from a file, one a line: 32 bytes in base64url. The first wraps, all unwrap: to change the key, put
/// a new line first, and keep the old ones for as long as recordings are kept.
pub struct KekFile {
    /// What wraps, and then what unwraps besides it.
    keys: Vec<(KekId, RandomizedNonceKey)>,
}

/// Why there is no key file.
#[derive(Debug, thiserror::Error)]
pub enum KekFileError {
    /// It cannot be read or made. The disk's or the configuration's fault.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something that is no key. A file is never replaced: what was recorded could not be read any more.
    #[error("{}: line {line} is not 32 bytes in base64url", path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// It holds no key at all.
    #[error("{}: there is no key in it", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

impl KekFile {
    /// Reads the file, which is made with one new key (readable by its owner alone) if it does not exist.
    ///
    /// # Errors
    /// Any [`KekFileError`].
    pub fn open(path: &Path) -> Result<Self, KekFileError> {
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(source) => Err(KekFileError::Io { path: path.to_owned(), source }),
        }
    }

    /// What wraps from now on.
    pub fn id(&self) -> Option<KekId> {
        self.keys.first().map(|(id, _)| *id)
    }

    fn read(path: &Path, file: File) -> Result<Self, KekFileError> {
        let mut text = Zeroizing::new(String::new());
        let read = file.take(LARGEST_FILE).read_to_string(&mut text);
        read.map_err(|source| KekFileError::Io { path: path.to_owned(), source })?;
        let mut keys = Vec::new();
        for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
            let key = parse(text.trim()).ok_or_else(|| KekFileError::NotAKey { path: path.to_owned(), line })?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KekFileError::Empty { path: path.to_owned() });
        }
        Ok(Self { keys })
    }

    fn create(path: &Path) -> Result<Self, KekFileError> {
        let failed = |source| KekFileError::Io { path: path.to_owned(), source };
        let key = SessionKey::generate().map_err(|error| failed(io::Error::other(error)))?;
        let line = Zeroizing::new(format!("{}\n", URL_SAFE_NO_PAD.encode(key.expose())));
        write_new(path, line.as_bytes()).map_err(failed)?;
        let file = File::open(path).map_err(failed)?;
        Self::read(path, file)
    }
}

/// Written aside and linked: a crash half-way leaves no short key behind, and a file that another process made in the
/// meantime stays.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let linked = fs::hard_link(&aside, path);
    fs::remove_file(&aside)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(folder)?.sync_all(),
    }
}

fn parse(text: &str) -> Option<(KekId, RandomizedNonceKey)> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 2]);
    let length = URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut_slice()).ok()?;
    let key = bytes.get(..KEY_BYTES).filter(|_| length == KEY_BYTES)?;
    let mut id = [0; 4];
    for (to, from) in id.iter_mut().zip(digest(&SHA256, key).as_ref()) {
        *to = *from;
    }
    Some((KekId(id), RandomizedNonceKey::new(&AES_256_GCM, key).ok()?))
}

impl KeyEncryption for KekFile {
    fn wrap(&self, room: RoomId, key: &SessionKey) -> Result<WrappedKey, KeyError> {
        let failed = || KeyError::Failed("the cipher took no key".into());
        let (kek, cipher) = self.keys.first().ok_or_else(failed)?;
        let mut sealed = key.expose().to_vec();
        let nonce = cipher.seal_in_place_append_tag(Aad::from(room.as_bytes()), &mut sealed).map_err(|_| failed())?;
        Ok(WrappedKey { kek: *kek, bytes: [&nonce.as_ref()[..], &sealed].concat() })
    }

    fn unwrap(&self, room: RoomId, wrapped: &WrappedKey) -> Result<SessionKey, KeyError> {
        let key = self.keys.iter().find(|(id, _)| *id == wrapped.kek).ok_or(KeyError::UnknownKek(wrapped.kek))?;
        let (nonce, sealed) = wrapped.bytes.split_at_checked(NONCE_LEN).ok_or(KeyError::Changed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Changed)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let opened = key.1.open_in_place(nonce, Aad::from(room.as_bytes()), &mut text);
        let bytes: &[u8] = opened.map_err(|_| KeyError::Changed)?;
        bytes.try_into().map(SessionKey::from_bytes).map_err(|_| KeyError::Changed)
    }
}

impl fmt::Debug for KekFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>();
        f.debug_struct("KekFile").field("keys", &ids).finish_non_exhaustive()
    }
}
