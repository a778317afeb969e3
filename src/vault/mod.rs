//! Encryption at rest: one random key per session, wrapped by a key-encryption key, and files under keys derived from
//! it. Whoever destroys the wrapped key has destroyed the files, wherever copies of them are.
//!
//! # An encrypted file, version 1
//! ```text
//! header    36 bytes: "SPORTVLT" · version 1 (1) · segment size, u32 BE, 0 = variable (4) · salt (16) · nonce prefix (7)
//! segment   u32 BE length of what follows · ciphertext · tag (16)
//! segment   …
//! ```
//! The file's key is HKDF-SHA-256 (RFC 5869): `salt` from the header, the session key as input, and as `info`
//! `"sportello file v1\0"` ‖ the first 13 header bytes ‖ the file's base name in UTF-8. So two files of one session
//! cannot be exchanged, and none can be given another segment size.
//!
//! Segments are AES-256-GCM in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: «Online
//! Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance», 2015), without associated data. The nonce is the
//! prefix ‖ the segment's number from 0, u32 BE ‖ 1 for the last segment, 0 for every other: no segment can be
//! reordered, repeated or left out unseen, and the last flag tells a whole file from a cut one. A cut file stays
//! readable up to its last whole segment.
//!
//! - *Variable* segments ([`FileSealer`]): as they come, one per cluster in originals, then an empty last one.
//! - *Fixed* segments ([`FixedWriter`]): [`FIXED_SEGMENT`] plain bytes each, the last with what is left, so that a
//!   plain offset leads to its segment by arithmetic.
//!
//! [`EncryptedReader`] reads both. Pure but for [`KekFile`], which reads the key-encryption key.

mod kek;
mod key;
mod read;
mod stream;
#[cfg(test)]
mod tests;
mod write;

pub use kek::{KekFile, KekFileError};
pub use key::{KekId, KeyEncryption, KeyError, RandomError, SessionKey, WrappedKey, WrappedKeyError};
pub use read::{EncryptedReader, FileOpener, Segments, is_encrypted};
pub use stream::{FIXED_SEGMENT, HEADER_BYTES, LARGEST_SEGMENT, OVERHEAD, OpenError, SealError};
pub use write::{FileSealer, FixedWriter};
