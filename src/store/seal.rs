//! Values that the database keeps and that nobody may read from the database alone: text messages that wait to be
//! sent, and answers kept for repeated requests. Both hold codes.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

/// First byte of a sealed value: tells a later way of sealing from this one.
const VERSION: u8 = 1;

/// Extraction salt (RFC 5869 §3.1): ties what is derived here to this purpose, should the same secret ever be used for
/// another.
const SALT: &[u8] = b"sportello sealed values";

/// What a [`Seal`] is for. Each purpose has a key of its own: a value moved from one to the other does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Text messages in the outbox.
    TextMessage,
    /// Answers kept for repeated requests.
    KeptAnswer,
}

impl Purpose {
    /// What the key is derived for; changed, it makes what was sealed unreadable.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::TextMessage => b"text message",
            Self::KeptAnswer => b"kept answer",
        }
    }
}

/// Why a value was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random numbers, or the value is larger than the cipher takes (64 GiB). The
    /// system's fault.
    #[error("a value could not be sealed")]
    NotSealed,
    /// The value was sealed under another key, for another purpose or row, or was changed since. The disk's fault, or
    /// somebody's.
    #[error("a sealed value does not open")]
    NotOpened,
}

/// AES-256-GCM under a key derived from the node's own secret (HKDF-SHA-256, RFC 5869). Nonces are random: good for
/// 2^32 values (NIST SP 800-38D §8.3), which is more than a node ever sends.
#[derive(Clone)]
pub struct Seal(Arc<RandomizedNonceKey>);

impl Seal {
    /// The seal for one purpose, from the node's secret.
    ///
    /// # Errors
    /// [`SealError::NotSealed`] if the cipher does not take the key, which it always does.
    pub fn derive(secret: &[u8; 32], purpose: Purpose) -> Result<Self, SealError> {
        let mut key = [0; 32];
        let info = [purpose.label()];
        let expanded = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let filled = expanded.expand(&info, &AES_256_GCM).and_then(|okm| okm.fill(&mut key));
        let key = filled.and_then(|()| RandomizedNonceKey::new(&AES_256_GCM, &key));
        key.map(|key| Self(Arc::new(key))).map_err(|_| SealError::NotSealed)
    }

    /// Seals `clear` for the row named by `context` (e.g. a message's identifier): elsewhere it does not open. The
    /// result is 29 bytes longer.
    ///
    /// # Errors
    /// [`SealError::NotSealed`].
    pub fn seal(&self, context: &[u8], clear: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = clear.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(context), &mut sealed);
        let nonce = nonce.map_err(|_| SealError::NotSealed)?;
        Ok([&[VERSION], &nonce.as_ref()[..], &sealed].concat())
    }

    /// Opens what was sealed for the same row.
    ///
    /// # Errors
    /// [`SealError::NotOpened`].
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(SealError::NotOpened)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::NotOpened)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::NotOpened)?;
        let mut text = rest.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(context), &mut text);
        let length = opened.map_err(|_| SealError::NotOpened)?.len();
        text.truncate(length);
        Ok(text)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        Seal::derive(&[7; 32], Purpose::TextMessage).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_in_its_own_row_only() {
        let sealed = seal().seal(b"row 1", b"402913").unwrap();
        assert_eq!(seal().open(b"row 1", &sealed).unwrap(), b"402913");
        assert_eq!(seal().open(b"row 2", &sealed), Err(SealError::NotOpened));
    }

    #[test]
    fn another_purpose_or_secret_does_not_open_it() {
        let sealed = seal().seal(b"row", b"402913").unwrap();
        for other in [Seal::derive(&[7; 32], Purpose::KeptAnswer), Seal::derive(&[8; 32], Purpose::TextMessage)] {
            assert_eq!(other.unwrap().open(b"row", &sealed), Err(SealError::NotOpened));
        }
    }

    #[test]
    fn a_changed_or_shortened_value_does_not_open() {
        let sealed = seal().seal(b"row", b"402913").unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(seal().open(b"row", &changed), Err(SealError::NotOpened), "byte {place}");
            assert_eq!(seal().open(b"row", &sealed[..place]), Err(SealError::NotOpened), "{place} bytes");
        }
    }

    #[test]
    fn the_same_text_is_sealed_differently_each_time_and_never_shows() {
        let (one, other) = (seal().seal(b"row", b"402913").unwrap(), seal().seal(b"row", b"402913").unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 6 + 29);
        assert!(!one.windows(6).any(|bytes| bytes == b"402913"));
        assert_eq!(format!("{:?}", seal()), "Seal(…)");
    }

    #[test]
    fn what_an_earlier_version_sealed_still_opens() {
        // Made by another implementation. A change of label, salt or layout would void what waits in outboxes.
        let kept = "01000102030405060708090a0b8af0b0f3a71dc92716dd8f7859f26fbde0398f0427db";
        assert_eq!(seal().open(b"row", &hex::decode(kept).unwrap()).unwrap(), b"402913");
    }
}
