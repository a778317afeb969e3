//! What compliance is told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::id::{AccessId, JobId, ParticipantId, RoomId};
use crate::recording::sign::Jwk;
use crate::room::{Outcome, Phase, Role};
use crate::store::{Hold, Job, JobKind, JobState, PackageState, Personal, RecordingRow, Secret, StoredPackage};

/// A page of recordings, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RecordingPage {
    /// The recordings.
    pub recordings: Vec<RecordingView>,
    /// Where the next page begins; `null`: there is none.
    #[schema(example = "MTc2ODI5NDgwMDAwMCAwMTk5YzFjMi03YjFlLTdjYzMtOWE1ZS0wZjRiN2M3ZTJkMTE")]
    pub next_cursor: Option<String>,
}

/// A recorded room.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = RecordedRoom)]
pub struct RecordingView {
    /// The room.
    pub room: RoomId,
    /// Name of its profile.
    #[schema(example = "delega")]
    pub profile: String,
    /// Office (sede).
    #[schema(example = "Roma")]
    pub office: String,
    /// Counter (sportello).
    #[schema(example = "Deleghe")]
    pub counter: String,
    /// Reason of the appointment (motivazione).
    #[schema(example = "Delega dell'identità digitale")]
    pub reason: String,
    /// The booking system's own name for it.
    #[schema(example = "PRN-2026-000123")]
    pub reference: Option<String>,
    /// Start of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Timestamp,
    /// End of the appointment, RFC 3339.
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Timestamp,
    /// Where the room stands.
    pub phase: Phase,
    /// How the meeting ended; `null` until it did.
    pub outcome: Option<Outcome>,
    /// Who was booked, in the booking's order.
    pub participants: Vec<RecordingParticipant>,
    /// Where its recordings stand.
    pub state: RecordedState,
    /// How much of the sealing is done, percent; `null` unless they are being sealed.
    #[schema(example = 41.5, minimum = 0, maximum = 100)]
    pub sealing_percent: Option<f64>,
    /// When the recording began, RFC 3339; `null` while the meeting goes on.
    #[schema(example = "2026-01-13T09:01:40Z")]
    pub begun: Option<Timestamp>,
    /// When the meeting ended, RFC 3339; `null` while it goes on.
    #[schema(example = "2026-01-13T09:24:10Z")]
    pub ended: Option<Timestamp>,
    /// When the package was sealed, RFC 3339; `null` until it is.
    #[schema(example = "2026-01-13T09:26:03Z")]
    pub sealed: Option<Timestamp>,
    /// How many times it was sealed: more than once if something was added later.
    #[schema(example = 1)]
    pub revision: u64,
    /// Size of the package, number of bytes; 0 until it is sealed.
    #[schema(example = 148_211_733)]
    pub bytes: u64,
    /// SHA-256 of the manifest, hex; `null` until it is sealed.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub manifest_sha256: Option<String>,
    /// Until when it is kept, RFC 3339; `null`: until someone sets a date.
    #[schema(example = "2036-01-13T09:24:10Z")]
    pub retain_until: Option<Timestamp>,
    /// Why it may not be destroyed; `null`: it is not on hold.
    pub hold: Option<HoldView>,
    /// When it was destroyed, RFC 3339; `null`: it was not.
    #[schema(example = "2036-01-14T00:00:00Z")]
    pub destroyed: Option<Timestamp>,
    /// The signed note of its destruction: a compact JWS (RFC 7515) by the key of `/v1/signing-key`.
    #[schema(example = "eyJhbGciOiJFZERTQSJ9.eyJyb29tIjoi4oCmIn0.c2lnbmF0dXJl")]
    pub destruction_note: Option<String>,
    /// Why sealing failed the last time; `null`: it did not.
    #[schema(example = "the place of the packages does not answer")]
    pub last_error: Option<String>,
}

/// Someone who was booked into a recorded room.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RecordingParticipant {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// First and last name.
    #[schema(value_type = String, example = "Maria Rossi")]
    pub name: Personal,
}

/// Where a room's recordings stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "sealed")]
pub enum RecordedState {
    /// The meeting goes on.
    Recording,
    /// The meeting is over; its recordings wait to be sealed.
    Recorded,
    /// They are being sealed.
    Sealing,
    /// The package is signed, stored and verified.
    Sealed,
    /// Sealing failed; it is tried again.
    Failed,
    /// The key and the files are gone; the note of it remains.
    Destroyed,
}

/// A legal hold.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HoldView {
    /// Why.
    #[schema(example = "Procura di Roma, proc. 1234/26")]
    pub reason: String,
    /// Who placed it: a caller, as in the audit.
    #[schema(example = "key:0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11")]
    pub by: String,
    /// When, RFC 3339.
    #[schema(example = "2026-01-20T10:15:00Z")]
    pub at: Timestamp,
}

/// An opened access.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OpenedAccess {
    /// Its name, as in the audit.
    pub id: AccessId,
    /// What opens the recordings, told this once: 43 letters, digits, `-` and `_`.
    #[schema(value_type = String, example = "Z1Q0rN0hV0w2mTq7m3m0b1mYQy1vXb3yq9cQ5m8hV2k")]
    pub token: Secret,
    /// When it ends, RFC 3339.
    #[schema(example = "2026-01-20T11:15:00Z")]
    pub expires: Timestamp,
}

/// One file of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OriginalView {
    /// Its name, for `…/originals/{file}`.
    #[schema(example = "delegato-1.webm")]
    pub file: String,
    /// Its size as it is stored, number of bytes; what is read of an encrypted one is a little shorter.
    #[schema(example = 48_211_733)]
    pub bytes: u64,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "mp4")]
pub enum ExportFormat {
    /// VP8 and Opus, for browsers.
    Webm,
    /// H.264 and AAC, for preservation.
    Mp4,
}

impl ExportFormat {
    pub(super) const fn kind(self) -> JobKind {
        match self {
            Self::Webm => JobKind::ExportWebm,
            Self::Mp4 => JobKind::ExportMp4,
        }
    }
}

/// A public key that checks signatures, as a JWK (RFC 7517, RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SigningJwk {
    /// Always `OKP`.
    #[schema(example = "OKP")]
    pub kty: String,
    /// Always `Ed25519`.
    #[schema(example = "Ed25519")]
    pub crv: String,
    /// The key, base64url.
    #[schema(example = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")]
    pub x: String,
    /// Its thumbprint (RFC 7638): what signatures name it by.
    #[schema(example = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]
    pub kid: Option<String>,
    /// Always `EdDSA`.
    #[schema(example = "EdDSA")]
    pub alg: Option<String>,
    /// Always `sig`.
    #[serde(rename = "use")]
    #[schema(example = "sig")]
    pub usage: Option<String>,
}

impl From<Jwk> for SigningJwk {
    fn from(Jwk { kty, crv, x, kid, alg, usage }: Jwk) -> Self {
        Self { kty, crv, x, kid, alg, usage }
    }
}

/// Long work.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// What is done.
    pub kind: JobKind,
    /// With which room's recordings.
    pub room: RoomId,
    /// Where it stands.
    pub state: JobState,
    /// How far it is, percent.
    #[schema(example = 41.7, minimum = 0, maximum = 100)]
    pub progress_percent: f64,
    /// What came out; `null` until it is done. Of a check: `verified`, and if that is false, `fault`: the file, cluster or
    /// line that is wrong. Of an export: `file`, its `bytes` and `sha256`.
    #[schema(schema_with = result_schema)]
    pub result: Option<Map<String, Value>>,
    /// Why it failed; `null`: it did not.
    #[schema(example = "ffmpeg is not installed on the server")]
    pub error: Option<String>,
    /// When it was asked for, RFC 3339.
    #[schema(example = "2026-01-20T10:16:00Z")]
    pub created: Timestamp,
    /// When it changed last, RFC 3339.
    #[schema(example = "2026-01-20T10:16:31Z")]
    pub updated: Timestamp,
}

/// `utoipa` loses the attribute `example` on objects of any form.
fn result_schema() -> Object {
    let description = "What came out; `null` until it is done. Of a check: `verified`, and if that is false, `fault`: the \
                       file, cluster or line that is wrong. Of an export: `file`, its `bytes` and `sha256`.";
    let example = json!({"verified": true, "files": 9, "bytes": 148_211_733});
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(description))
        .examples([example])
        .build()
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        let Job { id, kind, room, state, progress_permille, result, error, created, updated, .. } = job;
        let progress_percent = f64::from(progress_permille) / 10.0;
        Self { id, kind, room, state, progress_percent, result, error, created, updated }
    }
}

impl From<RecordingRow> for RecordingView {
    fn from(RecordingRow { room, package }: RecordingRow) -> Self {
        let people = room.people.into_iter().map(|(id, role, name)| RecordingParticipant { id, role, name });
        let state = package.as_ref().map_or(RecordedState::Recording, |package| package.state.into());
        let known = |take: fn(&StoredPackage) -> Option<Timestamp>| package.as_ref().and_then(take);
        Self {
            room: room.id,
            profile: room.profile,
            office: room.office,
            counter: room.counter,
            reason: room.reason,
            reference: room.reference,
            start: room.start,
            end: room.end,
            phase: room.phase,
            outcome: room.outcome,
            participants: people.collect(),
            state,
            sealing_percent: None,
            begun: known(|package| Some(package.begun)),
            ended: known(|package| Some(package.ended)),
            sealed: known(|package| package.sealed),
            revision: package.as_ref().map_or(0, |package| package.revision),
            bytes: package.as_ref().map_or(0, |package| package.bytes),
            retain_until: known(|package| package.retain_until),
            destroyed: known(|package| package.destroyed.as_ref().map(|(at, _)| *at)),
            hold: package.as_ref().and_then(|package| package.hold.clone()).map(HoldView::from),
            manifest_sha256: package.as_ref().and_then(|package| package.manifest_sha256.clone()),
            destruction_note: package.as_ref().and_then(|package| package.destroyed.clone()).map(|(_, note)| note),
            last_error: package.and_then(|package| package.last_error),
        }
    }
}

impl From<PackageState> for RecordedState {
    fn from(state: PackageState) -> Self {
        match state {
            PackageState::Recorded => Self::Recorded,
            PackageState::Sealing => Self::Sealing,
            PackageState::Sealed => Self::Sealed,
            PackageState::Failed => Self::Failed,
            PackageState::Destroyed => Self::Destroyed,
        }
    }
}

impl From<Hold> for HoldView {
    fn from(Hold { reason, by, at }: Hold) -> Self {
        Self { reason, by, at }
    }
}
