//! The format itself: the header, the file's key, and single segments.

use std::io;

use aead::consts::{U12, U16};
use aead::inout::InOutBuf;
use aead::{AeadCore, AeadInOut, Buffer, TagPosition};
use aead_stream::{NewStream as _, StreamBE32, StreamPrimitive as _};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;

use super::key::{RandomError, SessionKey};

/// Plain bytes of a fixed segment. Larger costs more decryption per seek; smaller, more tags and lengths.
pub const FIXED_SEGMENT: u32 = 65_536;

/// Bytes of a file's header.
pub const HEADER_BYTES: usize = 36;

/// Stored bytes of a segment beyond its plain ones: length and tag.
pub const OVERHEAD: usize = LENGTH_BYTES + TAG_BYTES;

/// Plain bytes that a segment may have. A reader takes no larger one for a segment: it would have to hold it in memory.
pub const LARGEST_SEGMENT: usize = 256 << 20;

/// Bytes of the length before each segment.
pub(super) const LENGTH_BYTES: usize = 4;

/// Bytes of AES-GCM's tag.
pub(super) const TAG_BYTES: usize = 16;

const MAGIC: &[u8; 8] = b"SPORTVLT";
const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
const PREFIX_BYTES: usize = 7;

/// Header bytes that the file's key depends on: magic, version and segment size.
const BOUND_BYTES: usize = 13;

/// What file keys are derived for. Changed, it makes every encrypted file unreadable.
const INFO: &[u8] = b"sportello file v1\0";

/// Why something was not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A piece is larger than a segment may be, or the file has 2^32 segments. The caller's fault.
    #[error("an encrypted file takes no more")]
    TooLarge,
    /// The cipher did not do it. The system's fault.
    #[error("a piece could not be encrypted")]
    Cipher,
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        Self::other(error)
    }
}

/// Why a file, or a part of it, is not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not begin like an encrypted file.
    #[error("not an encrypted file")]
    NotEncrypted,
    /// It is of a version that this program does not know.
    #[error("an encrypted file of version {0}, which this program does not know")]
    Version(u8),
    /// A segment does not authenticate: it was changed or moved, a segment before it is missing, or key or file name are
    /// others than it was written with.
    #[error("segment {0} does not authenticate")]
    Segment(u64),
    /// A segment says a length that none can have.
    #[error("segment {0} says an impossible length")]
    Length(u64),
    /// It cannot be read. The disk's fault.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// The head of an encrypted file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Plain bytes per segment; 0: they vary.
    pub(super) segment: u32,
    salt: [u8; SALT_BYTES],
    prefix: [u8; PREFIX_BYTES],
}

impl Header {
    pub(super) fn random(segment: u32) -> Result<Self, RandomError> {
        let mut header = Self { segment, salt: [0; SALT_BYTES], prefix: [0; PREFIX_BYTES] };
        rand::fill(&mut header.salt).and_then(|()| rand::fill(&mut header.prefix)).map_err(|_| RandomError)?;
        Ok(header)
    }

    #[cfg(test)]
    pub(super) fn fixed_for_tests(segment: u32, salt: [u8; SALT_BYTES], prefix: [u8; PREFIX_BYTES]) -> Self {
        Self { segment, salt, prefix }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, OpenError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(OpenError::NotEncrypted)?;
        let (version, rest) = rest.split_first().ok_or(OpenError::NotEncrypted)?;
        if *version != VERSION {
            return Err(OpenError::Version(*version));
        }
        let (segment, rest) = rest.split_first_chunk().ok_or(OpenError::NotEncrypted)?;
        let (salt, rest) = rest.split_first_chunk().ok_or(OpenError::NotEncrypted)?;
        let (prefix, _) = rest.split_first_chunk().ok_or(OpenError::NotEncrypted)?;
        let segment = u32::from_be_bytes(*segment);
        if usize::try_from(segment).map_or(true, |segment| segment > LARGEST_SEGMENT) {
            return Err(OpenError::Length(0));
        }
        Ok(Self { segment, salt: *salt, prefix: *prefix })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        bytes.extend(self.segment.to_be_bytes());
        bytes.extend(self.salt);
        bytes.extend(self.prefix);
        bytes
    }
}

/// Encrypts and decrypts the segments of one file.
#[derive(Debug)]
pub(super) struct Cipher(StreamBE32<Aes256Gcm>);

impl Cipher {
    pub(super) fn new(key: &SessionKey, name: &str, header: &Header) -> Result<Self, SealError> {
        let head = header.bytes();
        let info = [INFO, head.get(..BOUND_BYTES).unwrap_or_default(), name.as_bytes()];
        let expanded = Salt::new(HKDF_SHA256, &header.salt).extract(key.expose());
        let okm = expanded.expand(&info, &AES_256_GCM).map_err(|_| SealError::Cipher)?;
        let aead = Aes256Gcm(LessSafeKey::new(UnboundKey::from(okm)));
        Ok(Self(StreamBE32::from_aead(aead, &header.prefix.into())))
    }

    /// Appends a whole segment to `out`: length, ciphertext, tag. `position` must never come twice in one file.
    pub(super) fn seal(&self, position: u32, last: bool, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if plain.len() > LARGEST_SEGMENT {
            return Err(SealError::TooLarge);
        }
        let length = u32::try_from(plain.len() + TAG_BYTES).map_err(|_| SealError::TooLarge)?;
        out.reserve(LENGTH_BYTES + plain.len() + TAG_BYTES);
        out.extend(length.to_be_bytes());
        let mut tail = Tail { from: out.len(), bytes: out };
        tail.bytes.extend_from_slice(plain);
        self.0.encrypt_in_place(position, last, &[], &mut tail).map_err(|_| SealError::Cipher)
    }

    /// Decrypts ciphertext and tag where they are; `sealed` is then as long as the plain bytes. On failure it is
    /// emptied: nobody is to see bytes that were not authenticated.
    pub(super) fn open(&self, position: u32, last: bool, sealed: &mut Vec<u8>) -> Result<(), OpenError> {
        let opened = self.0.decrypt_in_place(position, last, &[], sealed);
        opened.map_err(|_| {
            sealed.clear();
            OpenError::Segment(position.into())
        })
    }
}

/// The end of a buffer, from a place on.
struct Tail<'a> {
    bytes: &'a mut Vec<u8>,
    from: usize,
}

impl AsRef<[u8]> for Tail<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Tail<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.from..).unwrap_or_default()
    }
}

impl Buffer for Tail<'_> {
    fn extend_from_slice(&mut self, other: &[u8]) -> aead::Result<()> {
        self.bytes.extend_from_slice(other);
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.from.saturating_add(len));
    }
}

/// AES-256-GCM of aws-lc-rs, as the STREAM construction asks for it.
#[derive(Debug)]
struct Aes256Gcm(LessSafeKey);

impl AeadCore for Aes256Gcm {
    type NonceSize = U12;
    type TagSize = U16;
    const TAG_POSITION: TagPosition = TagPosition::Postfix;
}

impl AeadInOut for Aes256Gcm {
    fn encrypt_inout_detached(
        &self,
        nonce: &aead::Nonce<Self>,
        associated_data: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
    ) -> aead::Result<aead::Tag<Self>> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| aead::Error)?;
        let in_out = buffer.into_out_with_copied_in();
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated_data), in_out);
        tag.ok().and_then(|tag| aead::Tag::<Self>::try_from(tag.as_ref()).ok()).ok_or(aead::Error)
    }

    fn decrypt_inout_detached(
        &self,
        nonce: &aead::Nonce<Self>,
        associated_data: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
        tag: &aead::Tag<Self>,
    ) -> aead::Result<()> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| aead::Error)?;
        let in_out = buffer.into_out_with_copied_in();
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(associated_data), tag, in_out);
        opened.map(|_| ()).map_err(|_| aead::Error)
    }
}
