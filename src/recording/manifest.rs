//! The manifest: what a package says of its session, and the hash of every file in it. Its canonical bytes are what is
//! signed, so nothing in it changes after sealing: retention, holds and keys are kept outside of the package.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::canonical::{CanonicalError, canonical};
use super::quality::OriginalQuality;
use super::voice::VoiceReport;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;

/// What [`Manifest::schema`] says of this form.
pub const SCHEMA: &str = "sportello-manifest/1";

/// The file with a manifest's canonical bytes.
pub const MANIFEST: &str = "manifest.json";
/// The file with its signature.
pub const SIGNATURE: &str = "manifest.jws";
/// The file with the signature's timestamp, if an authority was asked for one.
pub const TIMESTAMP: &str = "manifest.tsr";
/// The file with the signature of the timestamp: an authority signs only a part of what it answers.
pub const TIMESTAMP_SIGNATURE: &str = "manifest.tsr.jws";

/// Everything that a sealed package says of its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// From 1; a package that is sealed anew, e.g. when documents came later, has the next one.
    pub revision: u64,
    /// SHA-256 of the manifest that this one replaces, hex.
    pub previous_manifest_sha256: Option<String>,
    /// The room.
    pub session: RoomId,
    /// What the booking system calls the appointment.
    pub booking_reference: Option<String>,
    /// The room's profile, e.g. `delega`.
    pub profile: String,
    /// Where: the office.
    pub office: String,
    /// Where: the counter.
    pub counter: String,
    /// Why people met.
    pub reason: String,
    /// What recorded and sealed it.
    pub software: Software,
    /// The node that recorded it.
    pub node: String,
    /// Where the node's wall time came from, e.g. `system`.
    pub clock_source: String,
    /// When media could first flow.
    pub begin: Moment,
    /// When the last media was recorded.
    pub end: Moment,
    /// Why it ended, in the ledger's words, e.g. `concluded`.
    pub end_reason: String,
    /// What the operator recorded, e.g. `granted`; `None` if nobody did.
    pub outcome: Option<String>,
    /// When this manifest was made.
    pub sealed: Timestamp,
    /// Thumbprint of the key that signs it (RFC 7638); the signature names the same one.
    pub key_id: String,
    /// Whether the recordings are encrypted, as they lie in the package.
    pub encrypted: bool,
    /// Who was there.
    pub participants: Vec<ParticipantFacts>,
    /// The originals, in the order of their files' names.
    pub originals: Vec<OriginalFacts>,
    /// The derived copy, if there was anything to derive it from.
    pub session_copy: Option<SessionCopy>,
    /// When the profile's presence rule held, in the order of time.
    pub presence: Vec<PresenceFacts>,
    /// Where the ledger stood.
    pub ledger: ChainFacts,
    /// Where the node's audit of accesses stood, as far as it is in the package.
    pub accesses: Option<ChainFacts>,
    /// Documents that were handed in.
    pub documents: Vec<DocumentFacts>,
    /// What applied when it was sealed. What applies now only the node knows.
    pub when_sealed: RetentionFacts,
    /// What was lost or repaired, in the order of time.
    pub recovery: Vec<RecoveryNote>,
    /// The authority that was asked for a timestamp: then `manifest.tsr` must be there.
    pub timestamp_authority: Option<String>,
    /// Every file of the package but the manifest's own, in the order of their paths.
    pub files: Vec<FileEntry>,
}

/// The program and its build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Software {
    /// `sportello`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it was built from, as far as the build knew; empty otherwise.
    pub build: String,
}

/// A point on both of the node's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Wall time, UTC.
    pub utc: Timestamp,
    /// Milliseconds of the node's run, the clock of the ledger and of the originals.
    pub mono_ms: u64,
}

/// One person, without what identifies them: that is in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantFacts {
    /// The ledger's name for them.
    pub id: ParticipantId,
    /// Their role, e.g. `delegato`.
    pub role: String,
    /// How they came in, e.g. `code`, never the code itself; `None`: they never did.
    pub admitted_by: Option<String>,
    /// When.
    pub admitted: Option<Timestamp>,
    /// Version of the recording notice that they agreed to.
    pub consent_text_version: Option<String>,
    /// When they agreed.
    pub consented: Option<Timestamp>,
    /// What their microphone brought.
    pub voice: Option<VoiceReport>,
}

/// One original.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginalFacts {
    /// Its file's name in `originals/`.
    pub file: String,
    /// Whose it is.
    pub participant: Option<ParticipantId>,
    /// Their role.
    pub role: String,
    /// The media connection.
    pub connection: ConnectionId,
    /// What is in it.
    pub sources: Vec<Source>,
    /// Its time 0 on both clocks, as the recorder read them when it began.
    pub begin: Moment,
    /// Where its time 0 lies on the session copy's timeline, milliseconds.
    pub offset_ms: i64,
    /// Media time from the first block to the end of the last, milliseconds.
    pub duration_ms: u64,
    /// Length of the WebM as it was recorded, bytes.
    pub bytes: u64,
    /// Number of clusters.
    pub clusters: u64,
    /// SHA-256 of the chain's last line, hex.
    pub chain_head: String,
    /// Whether it was closed in order; otherwise a note in `recovery` says what was lost.
    pub complete: bool,
    /// How good it is: what was lost, damaged or late, and how long the disk took.
    pub quality: OriginalQuality,
}

/// `session.webm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionCopy {
    /// Its file's name.
    pub file: String,
    /// Its time 0: that of the first original.
    pub begin: Moment,
    /// Milliseconds.
    pub duration_ms: u64,
    /// Its tracks' names, in their order; the first is the mixed audio.
    pub tracks: Vec<String>,
    /// How far apart audio and video were at most, milliseconds.
    pub largest_skew_ms: u64,
}

/// A time in which the presence rule held. Its begin is read from the wall clock, its length is measured on the
/// monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceFacts {
    /// When it began.
    pub from: Timestamp,
    /// When it ended: the begin and the length.
    pub to: Timestamp,
    /// How long it was, milliseconds.
    pub length_ms: u64,
}

/// Where a hash-chained list stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainFacts {
    /// Its number of lines.
    pub lines: u64,
    /// Its last line's hash, hex.
    pub head: String,
}

/// A document that was handed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentFacts {
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// Bytes.
    pub bytes: u64,
    /// Who handed it in.
    pub participant: ParticipantId,
    /// When.
    pub received: Timestamp,
    /// Whether «conformità all'originale» was declared.
    pub declared_conform: bool,
    /// Its number in the register, if it has one, e.g. `2026-0000042`.
    pub register_number: Option<String>,
}

/// How long it was meant to be kept when it was sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionFacts {
    /// Until when; `None`: nobody had set a date.
    pub retain_until: Option<Timestamp>,
    /// Whether somebody had put it on hold.
    pub on_hold: bool,
}

/// Something that was lost or repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryNote {
    /// The original's file; `None`: the room as a whole.
    pub file: Option<String>,
    /// Where media ends, on the node's monotonic clock, milliseconds; `None`: it is not known.
    pub from_mono_ms: Option<u64>,
    /// Where it goes on; `None`: it does not.
    pub to_mono_ms: Option<u64>,
    /// Bytes that no chain covers and that are kept beside it.
    pub tail_bytes: u64,
    /// What happened, e.g. `recovered` after a crash, or the ledger's word for a fault of the disk.
    pub reason: String,
}

/// One file of the package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path in the package, with `/` between folders.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// The same of what it holds, if it is encrypted: what an export brings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plain: Option<PlainEntry>,
}

/// What an encrypted file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainEntry {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// They are not what a manifest looks like.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is of another kind, e.g. of a later version of this program.
    #[error("its schema is «{0}», and this program knows «{SCHEMA}»")]
    OtherSchema(String),
    /// A number in it has no canonical form.
    #[error("{0}")]
    NotCanonical(#[from] CanonicalError),
    /// It says the same in other bytes than the canonical ones.
    #[error("it is not in the canonical form: it was written by something else, or changed")]
    OtherForm,
    /// A path leads out of the package, or occurs twice, or they are not in their order.
    #[error("«{0}» cannot stand in its list of files")]
    Path(String),
}

impl Manifest {
    /// The canonical bytes: what is signed, and `manifest.json`.
    ///
    /// # Errors
    /// An integer in it is too large for JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical(self)
    }

    /// Reads a manifest, which must be in its canonical form and name no path outside of its package.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Kind {
            schema: String,
        }

        let kind: Kind = serde_json::from_slice(bytes)?;
        if kind.schema != SCHEMA {
            return Err(ManifestError::OtherSchema(kind.schema));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.to_bytes()? != bytes {
            return Err(ManifestError::OtherForm);
        }
        let mut before = "";
        for entry in &manifest.files {
            if !is_inside(&entry.path) || entry.path.as_str() <= before {
                return Err(ManifestError::Path(entry.path.clone()));
            }
            before = &entry.path;
        }
        Ok(manifest)
    }

    /// The entry of a file.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.iter().find(|entry| entry.path == path)
    }
}

/// Whether a path stays in its package and is none of the manifest's own files.
pub(super) fn is_inside(path: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
    path.split('/').all(is_name) && !is_own(path)
}

/// Whether a file is the manifest or one of its signatures, which no manifest can hold the hash of.
pub(super) fn is_own(path: &str) -> bool {
    [MANIFEST, SIGNATURE, TIMESTAMP, TIMESTAMP_SIGNATURE].contains(&path)
}
