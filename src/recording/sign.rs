//! The signature over a manifest: Ed25519 (RFC 8032), as a JWS in compact form (RFC 7515, RFC 8037) whose payload is the
//! manifest's exact bytes. Anyone with the public key and a JOSE library can check it.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::pem::{self, LineEnding};
use serde::{Deserialize, Serialize};

/// The header's `typ` of a manifest's signature.
pub const MANIFEST_TYPE: &str = "sportello-manifest+json";
/// The header's `typ` of the signature over a timestamp.
pub const TIMESTAMP_TYPE: &str = "sportello-timestamp";
/// The header's `typ` of the signed note that a package was destroyed.
pub const DESTRUCTION_TYPE: &str = "sportello-destruction+json";

/// An Ed25519 key of 32 bytes as a `SubjectPublicKeyInfo` begins (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key file is not longer than this; something longer is another file.
const LARGEST_KEY_FILE: u64 = 64 << 10;

/// The node's private key. Neither shown nor logged.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// The key that signatures are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; 32],
    id: String,
}

/// A public key as a JWK (RFC 7517, RFC 8037 §2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The key, base64url.
    pub x: String,
    /// Its thumbprint (RFC 7638).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kid: Option<String>,
    /// `EdDSA`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub alg: Option<String>,
    /// `sig`.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<String>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or made. The system's fault.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else. The configuration's fault.
    #[error("{}: {what}", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// The operating system gave no random numbers.
    #[error("cannot make a signing key")]
    NotMade,
}

/// Why something is not signed as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is not a compact JWS.
    #[error("it is no signature: {0}")]
    Form(&'static str),
    /// Another key signed it, or the other party names the wrong one.
    #[error("it was signed with the key {found}, not with {expected}")]
    OtherKey {
        /// What the signature names.
        found: String,
        /// What it is checked with.
        expected: String,
    },
    /// Its header is not the one that this program writes.
    #[error("its header is not that of a signature of this kind")]
    Header,
    /// It is a signature of something else.
    #[error("it is the signature of other bytes")]
    OtherPayload,
    /// The signature itself does not hold: it was changed, or made without the private key.
    #[error("it was not made with the private key of {0}, or was changed since")]
    Wrong(String),
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

impl SigningKey {
    /// Reads the key from a file (PKCS#8, PEM), which is made, readable by its owner alone, if it does not exist; and
    /// writes the public key beside it, as `.jwk`.
    ///
    /// # Errors
    /// The files cannot be read or made, or hold something else. A key is never replaced.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let key = match fs::read_to_string(path) {
            Ok(text) => Self::from_pem(&text).ok_or(KeyFileError::NoKey {
                path: path.to_owned(),
                what: "no Ed25519 key in PKCS#8, like `openssl genpkey -algorithm ed25519` makes",
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path)?,
            Err(source) => return Err(KeyFileError::File { path: path.to_owned(), source }),
        };
        let jwk_path = path.with_extension("jwk");
        let mut jwk = serde_json::to_vec(&key.public.jwk()).map_err(|_| KeyFileError::NotMade)?;
        jwk.push(b'\n');
        if fs::read(&jwk_path).ok().as_ref() != Some(&jwk) {
            write_aside(&jwk_path, &jwk, 0o644)?;
        }
        Ok(key)
    }

    /// Makes a key that is kept nowhere.
    ///
    /// # Errors
    /// The operating system gave no random numbers.
    pub fn generate() -> Result<Self, KeyFileError> {
        Ed25519KeyPair::generate().map(Self::from_pair).map_err(|_| KeyFileError::NotMade)
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs bytes: a compact JWS that holds them.
    ///
    /// # Errors
    /// The library refuses, which it never does for a key that it has read.
    pub fn sign(&self, typ: &str, payload: &[u8]) -> Result<String, SignatureError> {
        let header = header(&self.public.id, typ);
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let failed = |_| SignatureError::Wrong(self.public.id.clone());
        let signature = self.pair.try_sign(signed.as_bytes()).map_err(failed)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn create(path: &Path) -> Result<Self, KeyFileError> {
        // Version 1 of PKCS#8, without the public key: older OpenSSL reads no other.
        let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| KeyFileError::NotMade)?;
        let text = pem::encode_string("PRIVATE KEY", LineEnding::LF, document.as_ref());
        let text = text.map_err(|_| KeyFileError::NotMade)?;
        write_aside(path, text.as_bytes(), 0o600)?;
        Self::from_pem(&text).ok_or(KeyFileError::NotMade)
    }

    fn from_pem(text: &str) -> Option<Self> {
        let (label, der) = pem::decode_vec(text.trim().as_bytes()).ok()?;
        let pair = (label == "PRIVATE KEY").then(|| Ed25519KeyPair::from_pkcs8(&der).ok())??;
        Some(Self::from_pair(pair))
    }

    fn from_pair(pair: Ed25519KeyPair) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(pair.public_key().as_ref()) {
            *to = *from;
        }
        Self { public: PublicKey::from_bytes(bytes), pair }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id)
    }
}

impl PublicKey {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        // RFC 7638 §3: the required members, in the order of their names, without white space.
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(bytes));
        Self { bytes, id: URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes())) }
    }

    /// The key's thumbprint (RFC 7638): what signatures name it by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key for JOSE libraries.
    pub fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: URL_SAFE_NO_PAD.encode(self.bytes),
            kid: Some(self.id.clone()),
            alg: Some("EdDSA".into()),
            usage: Some("sig".into()),
        }
    }

    /// Reads a public key from text: a JWK, or PEM («PUBLIC KEY»). `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = if text.trim_start().starts_with('{') {
            let jwk: Jwk = serde_json::from_str(text).ok()?;
            let is_ours = (jwk.kty.as_str(), jwk.crv.as_str()) == ("OKP", "Ed25519");
            is_ours.then(|| URL_SAFE_NO_PAD.decode(jwk.x).ok())??
        } else {
            let (label, der) = pem::decode_vec(text.trim().as_bytes()).ok()?;
            let key = der.strip_prefix(&SPKI_PREFIX)?;
            (label == "PUBLIC KEY").then(|| key.to_vec())?
        };
        bytes.try_into().ok().map(Self::from_bytes)
    }

    /// Reads a public key from a file: a JWK, or PEM.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::File { path: path.to_owned(), source };
        let length = fs::metadata(path).map_err(failed)?.len();
        let text = (length <= LARGEST_KEY_FILE).then(|| fs::read(path)).transpose().map_err(failed)?;
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        text.and_then(|text| Self::parse(&text)).ok_or(KeyFileError::NoKey {
            path: path.to_owned(),
            what: "no public Ed25519 key: a JWK (signing.jwk) or a PEM file («BEGIN PUBLIC KEY») is one",
        })
    }

    /// Checks a compact JWS over `payload`. It is taken only in the one form that [`SigningKey::sign`] gives it, so that
    /// no byte of it can be changed unseen.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, typ: &str, payload: &[u8], jws: &[u8]) -> Result<(), SignatureError> {
        let (signed, signature) = self.parts(typ, jws)?;
        let (_, said) = signed.split_once('.').unwrap_or_default();
        if said != URL_SAFE_NO_PAD.encode(payload) {
            return Err(SignatureError::OtherPayload);
        }
        self.check(signed, &signature)
    }

    /// Checks a compact JWS, and gives the bytes that it holds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(&self, typ: &str, jws: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let (signed, signature) = self.parts(typ, jws)?;
        self.check(signed, &signature)?;
        let (_, said) = signed.split_once('.').unwrap_or_default();
        URL_SAFE_NO_PAD.decode(said).map_err(|_| SignatureError::Form("its payload is no base64url"))
    }

    /// What was signed, and the signature; the header is the expected one.
    fn parts<'a>(&self, typ: &str, jws: &'a [u8]) -> Result<(&'a str, Vec<u8>), SignatureError> {
        let text = std::str::from_utf8(jws).map_err(|_| SignatureError::Form("it is not text"))?;
        let (signed, signature) = text.rsplit_once('.').ok_or(SignatureError::Form("it has no dots"))?;
        let (head, payload) = signed.split_once('.').ok_or(SignatureError::Form("it has one dot only"))?;
        if payload.contains('.') {
            return Err(SignatureError::Form("it has more than two dots"));
        }
        let decoded = URL_SAFE_NO_PAD.decode(head).map_err(|_| SignatureError::Form("its header is no base64url"))?;
        if decoded != header(&self.id, typ) {
            let said: Header = serde_json::from_slice(&decoded).map_err(|_| SignatureError::Header)?;
            return Err(if said.kid == self.id {
                SignatureError::Header
            } else {
                SignatureError::OtherKey { found: said.kid, expected: self.id.clone() }
            });
        }
        let signature = URL_SAFE_NO_PAD.decode(signature);
        Ok((signed, signature.map_err(|_| SignatureError::Form("its signature is no base64url"))?))
    }

    fn check(&self, signed: &str, signature: &[u8]) -> Result<(), SignatureError> {
        let verified = UnparsedPublicKey::new(&ED25519, self.bytes).verify(signed.as_bytes(), signature);
        verified.map_err(|_| SignatureError::Wrong(self.id.clone()))
    }
}

fn header(kid: &str, typ: &str) -> Vec<u8> {
    // Base64url and the types above hold nothing that JSON would escape.
    format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{typ}"}}"#).into_bytes()
}

/// Written aside and renamed: a crash half-way leaves no short key behind.
fn write_aside(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    written().map_err(|source| KeyFileError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets/signing.key");
        let made = SigningKey::open(&path).unwrap();
        let again = SigningKey::open(&path).unwrap();
        assert_eq!(made.public(), again.public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(&PublicKey::read(&path.with_extension("jwk")).unwrap(), made.public());
        assert!(matches!(PublicKey::read(&path), Err(KeyFileError::NoKey { .. })), "the private key is no public one");
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(SigningKey::open(&path), Err(KeyFileError::NoKey { .. })), "and never replaced");
        assert_eq!(format!("{made:?}"), format!("SigningKey({})", made.public().id()));
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // RFC 8037 appendices A.2 and A.3.
        let text = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert_eq!(PublicKey::parse(text).unwrap().id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn openssl_reads_the_key_and_we_read_what_openssl_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let key = SigningKey::open(&path).unwrap();
        let public = folder.path().join("public.pem");
        let status =
            Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&path).arg("-out").arg(&public).status();
        assert!(status.unwrap().success());
        assert_eq!(&PublicKey::read(&public).unwrap(), key.public());
        let theirs = folder.path().join("theirs.key");
        let status = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&theirs).status();
        assert!(status.unwrap().success());
        assert_ne!(SigningKey::open(&theirs).unwrap().public(), key.public());
    }

    #[test]
    fn a_jose_library_that_is_not_ours_believes_the_signature() {
        let key = SigningKey::generate().unwrap();
        let jws = key.sign(MANIFEST_TYPE, br#"{"a":1}"#).unwrap();
        let jwk: jsonwebtoken::jwk::Jwk =
            serde_json::from_value(serde_json::to_value(key.public().jwk()).unwrap()).unwrap();
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let checked = jsonwebtoken::decode::<serde_json::Value>(
            &jws,
            &jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap(),
            &validation,
        );
        assert_eq!(checked.unwrap().claims, serde_json::json!({"a": 1}));
    }

    #[test]
    fn no_bit_of_a_signature_can_be_changed_unseen() {
        let key = SigningKey::generate().unwrap();
        let payload = br#"{"schema":"x"}"#;
        let jws = key.sign(MANIFEST_TYPE, payload).unwrap().into_bytes();
        key.public().verify(MANIFEST_TYPE, payload, &jws).unwrap();
        assert_eq!(key.public().open(MANIFEST_TYPE, &jws).unwrap(), payload);
        for bit in 0..jws.len() * 8 {
            let mut changed = jws.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.public().verify(MANIFEST_TYPE, payload, &changed).is_err(), "bit {bit}");
            assert!(key.public().open(MANIFEST_TYPE, &changed).is_err(), "bit {bit}");
        }
        for cut in 0..jws.len() {
            assert!(key.public().verify(MANIFEST_TYPE, payload, &jws[..cut]).is_err(), "{cut} bytes");
        }
        let other = SigningKey::generate().unwrap();
        let forged = other.sign(MANIFEST_TYPE, payload).unwrap();
        let refused = key.public().verify(MANIFEST_TYPE, payload, forged.as_bytes());
        assert_eq!(
            refused,
            Err(SignatureError::OtherKey { found: other.public().id().into(), expected: key.public().id().into() })
        );
        assert_eq!(key.public().verify(MANIFEST_TYPE, b"{}", &jws), Err(SignatureError::OtherPayload));
        assert_eq!(key.public().verify(TIMESTAMP_TYPE, payload, &jws), Err(SignatureError::Header));
    }
}
