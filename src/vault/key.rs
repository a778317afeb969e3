//! A session's key, and how it is kept: wrapped by a key-encryption key (KEK).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::id::RoomId;

/// Bytes of a session key and of a KEK: AES-256.
pub(super) const KEY_BYTES: usize = 32;

/// The key that everything recorded in one room is encrypted under. Zeroed when it is let go.
#[derive(Clone)]
pub struct SessionKey(Zeroizing<[u8; KEY_BYTES]>);

impl SessionKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`RandomError`] if the operating system gives no random numbers.
    pub fn generate() -> Result<Self, RandomError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| RandomError)?;
        Ok(Self(bytes))
    }

    /// A key by its bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key in the clear: to wrap it, or to hand it to the one who may read everything in the session.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// The operating system gave no random numbers. The system's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct RandomError;

/// Tells key-encryption keys apart: the first four bytes of the key's SHA-256, in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KekId(pub(super) [u8; 4]);

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KekId({self})")
    }
}

/// A session key as it is kept: useless without the KEK, and in any room but its own. As text: `kek-id:base64url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which KEK opens it.
    pub kek: KekId,
    /// What that KEK's holder made of it; with a [`super::KekFile`]: nonce (12) ‖ ciphertext (32) ‖ tag (16), under
    /// AES-256-GCM with the room's id as associated data.
    pub bytes: Vec<u8>,
}

impl fmt::Display for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kek, URL_SAFE_NO_PAD.encode(&self.bytes))
    }
}

impl FromStr for WrappedKey {
    type Err = WrappedKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kek, bytes) = text.split_once(':').ok_or(WrappedKeyError)?;
        let mut id = [0; 4];
        hex::decode_to_slice(kek, &mut id).map_err(|_| WrappedKeyError)?;
        let bytes = URL_SAFE_NO_PAD.decode(bytes).map_err(|_| WrappedKeyError)?;
        Ok(Self { kek: KekId(id), bytes })
    }
}

/// A text that is no wrapped key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a wrapped key: it should be eight hex digits, a colon and base64url")]
pub struct WrappedKeyError;

/// Who wraps session keys: a file, or the interface to a key management service.
pub trait KeyEncryption: Send + Sync + fmt::Debug {
    /// Wraps a room's key for keeping.
    ///
    /// # Errors
    /// [`KeyError::Failed`].
    fn wrap(&self, room: RoomId, key: &SessionKey) -> Result<WrappedKey, KeyError>;

    /// The room's key again.
    ///
    /// # Errors
    /// Any [`KeyError`].
    fn unwrap(&self, room: RoomId, wrapped: &WrappedKey) -> Result<SessionKey, KeyError>;
}

/// Why a session key was not wrapped or unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It was wrapped under a KEK that is not here. The configuration's fault: a key file was lost or exchanged.
    #[error("the key-encryption key {0} is not here")]
    UnknownKek(KekId),
    /// It was changed, or is another room's. The database's fault, or somebody's.
    #[error("a wrapped session key does not open")]
    Changed,
    /// The cipher or the key service did not do it. The system's fault.
    #[error("the key-encryption key could not be used: {0}")]
    Failed(String),
}
