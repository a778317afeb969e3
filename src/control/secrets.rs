//! Codes, tokens and keys: how they are made, and what is kept of them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Fault;
use crate::id::ParticipantId;
use crate::store::{Hash, Purpose, Scope, Seal, SealError, Secret};

/// Bytes of a join link's token: 128 bits cannot be guessed, and the link still fits a line of an e-mail.
const LINK_BYTES: usize = 16;

/// Bytes of a session token or an API key.
const TOKEN_BYTES: usize = 32;

/// The node's key for admission codes: whoever reads the database without it cannot try codes against the hashes.
#[derive(Clone)]
pub struct CodeKey {
    codes: hmac::Key,
    secret: [u8; 32],
}

impl CodeKey {
    /// A key by its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { codes: hmac::Key::new(hmac::HMAC_SHA256, &bytes), secret: bytes }
    }

    /// A value that tells this key from others, and nothing else of it.
    pub fn check_value(&self) -> Hash {
        self.tag(b"sportello: which key is this?")
    }

    /// The seal for values of one purpose that wait in the database, under a key of its own.
    pub fn seal(&self, purpose: Purpose) -> Result<Seal, SealError> {
        Seal::derive(&self.secret, purpose)
    }

    /// Reads the key from a file, which is made (readable by its owner alone) if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read or made, or does not hold exactly 32 bytes. A key is never replaced: the codes that
    /// were sent out would be void.
    pub fn open(path: &Path) -> io::Result<Self> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            read => read,
        }
    }

    /// The keyed hash that is stored in the place of `participant`'s code.
    pub(super) fn hash(&self, participant: ParticipantId, code: &str) -> Hash {
        self.tag(&message(participant, code))
    }

    fn tag(&self, message: &[u8]) -> Hash {
        let tag = hmac::sign(&self.codes, message);
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Hash::from_bytes(bytes)
    }

    /// Whether `code` is the one behind `stored`; takes equally long for every wrong one.
    pub(super) fn matches(&self, participant: ParticipantId, code: &str, stored: &Hash) -> bool {
        hmac::verify(&self.codes, &message(participant, code), stored.as_bytes()).is_ok()
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(33).read_to_end(&mut bytes)?;
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the code key must have exactly 32 bytes"))?;
        Ok(Self::from_bytes(bytes))
    }

    fn create(path: &Path) -> io::Result<Self> {
        let bytes: [u8; 32] = random().map_err(io::Error::other)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Written aside and renamed: a crash half-way leaves no short key behind.
        let aside = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        Ok(Self::from_bytes(bytes))
    }
}

impl fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeKey(…)")
    }
}

/// The code is bound to its person: another's hash, copied over theirs, admits nobody.
fn message(participant: ParticipantId, code: &str) -> Vec<u8> {
    [participant.as_bytes().as_slice(), code.as_bytes()].concat()
}

/// A new admission code of so many digits, each as likely as the others.
pub(super) fn new_code(digits: u8) -> Result<Secret, Fault> {
    let mut code = String::with_capacity(digits.into());
    while code.len() < usize::from(digits) {
        let bytes: [u8; 16] = random()?;
        // 250 is the largest multiple of ten in a byte: what lies above would favour the low digits.
        let fair = bytes.into_iter().filter(|byte| *byte < 250).map(|byte| char::from(b'0' + byte % 10));
        let missing = usize::from(digits) - code.len();
        code.extend(fair.take(missing));
    }
    Ok(Secret::new(code))
}

/// A new join token.
pub(super) fn new_link() -> Result<Secret, Fault> {
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(random::<LINK_BYTES>()?)))
}

/// A new session token.
pub(super) fn new_session() -> Result<Secret, Fault> {
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(random::<TOKEN_BYTES>()?)))
}

/// What every API key begins with.
pub const API_KEY_PREFIX: &str = "sportello_";

/// A new API key, which says whose it is and what it opens: for people, and for scanners that look for leaked keys.
///
/// # Errors
/// The system gives no random numbers.
pub fn new_api_key(scope: Scope) -> Result<Secret, Fault> {
    let random = URL_SAFE_NO_PAD.encode(random::<TOKEN_BYTES>()?);
    Ok(Secret::new(format!("{API_KEY_PREFIX}{}_{random}", scope.name())))
}

fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Fault::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn key() -> CodeKey {
        CodeKey::from_bytes([7; 32])
    }

    #[test]
    fn a_code_has_exactly_its_digits_and_every_digit_occurs() {
        let mut seen = [0_u32; 10];
        for _ in 0..500 {
            let code = new_code(6).unwrap();
            assert_eq!(code.expose().len(), 6);
            for digit in code.expose().bytes() {
                seen[usize::from(digit - b'0')] += 1;
            }
        }
        // 3,000 digits: 300 each, give or take far more than chance would.
        assert!(seen.iter().all(|count| (200..400).contains(count)), "{seen:?}");
    }

    #[test]
    fn a_code_admits_its_own_person_only_and_only_under_the_same_key() {
        let (maria, paolo) = (ParticipantId::new(Timestamp::UNIX_EPOCH), ParticipantId::new(Timestamp::UNIX_EPOCH));
        let stored = key().hash(maria, "402913");
        assert!(key().matches(maria, "402913", &stored));
        assert!(!key().matches(maria, "402914", &stored));
        assert!(!key().matches(paolo, "402913", &stored));
        assert!(!CodeKey::from_bytes([8; 32]).matches(maria, "402913", &stored));
    }

    #[test]
    fn tokens_are_long_different_and_never_printed() {
        let (one, other) = (new_session().unwrap(), new_session().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.expose().len(), 43);
        assert_eq!(new_link().unwrap().expose().len(), 22);
        assert!(new_api_key(Scope::Booking).unwrap().expose().starts_with("sportello_booking_"));
        assert_eq!(format!("{one:?} {:?}", key()), "Secret(…) CodeKey(…)");
    }

    #[test]
    fn the_key_file_is_made_once_and_read_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets/code.key");
        let participant = ParticipantId::new(Timestamp::UNIX_EPOCH);
        let stored = CodeKey::open(&path).unwrap().hash(participant, "123456");
        assert!(CodeKey::open(&path).unwrap().matches(participant, "123456", &stored));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"short").unwrap();
        assert_eq!(CodeKey::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
