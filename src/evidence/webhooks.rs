//! What the booking system is told of recordings. No personal data, and nothing that opens them.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::id::{MessageId, RoomId};
use crate::store::{MessageKind, NewMessage, SealedPackage};

/// How long a webhook is tried, as those of rooms are.
const TRIED_FOR: SignedDuration = SignedDuration::from_hours(72);

/// The webhook that tells that a room's recordings are sealed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SealedWebhook {
    /// `recording.sealed`.
    #[serde(rename = "type")]
    #[schema(example = "recording.sealed")]
    pub kind: &'static str,
    /// When it was sealed, RFC 3339.
    #[schema(example = "2026-01-13T09:31:02Z")]
    pub timestamp: Timestamp,
    /// What there is to know of it.
    pub data: SealedData,
}

/// What there is to know of a sealed package.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SealedData {
    /// The room.
    pub room_id: RoomId,
    /// Number of times it was sealed: a package is sealed anew when something was added to the room.
    #[schema(example = 1)]
    pub revision: u64,
    /// The package's size, number of bytes.
    #[schema(example = 41_943_040)]
    pub bytes: u64,
    /// SHA-256 of the manifest, hex: kept elsewhere, it proves which package is the one.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub manifest_sha256: String,
    /// Thumbprint (RFC 7638) of the key that signed it.
    #[schema(example = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]
    pub key_id: String,
}

/// The webhook that tells that a room's recordings are destroyed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DestroyedWebhook {
    /// `recording.destroyed`.
    #[serde(rename = "type")]
    #[schema(example = "recording.destroyed")]
    pub kind: &'static str,
    /// When they were destroyed, RFC 3339.
    #[schema(example = "2036-01-13T09:31:02Z")]
    pub timestamp: Timestamp,
    /// What remains.
    pub data: DestroyedData,
}

/// What remains of destroyed recordings.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DestroyedData {
    /// The room.
    pub room_id: RoomId,
    /// The signed note: a compact JWS (RFC 7515) by the key of `/v1/signing-key`.
    #[schema(example = "eyJhbGciOiJFZERTQSJ9.eyJyb29tIjoi4oCmIn0.c2lnbmF0dXJl")]
    pub note: String,
}

/// Tells that a room is sealed.
pub(super) fn sealed(room_id: RoomId, sealed: &SealedPackage, now: Timestamp) -> Option<NewMessage> {
    let SealedPackage { revision, bytes, manifest_sha256, key_id, .. } = sealed.clone();
    let kind = "recording.sealed";
    let data = SealedData { room_id, revision, bytes, manifest_sha256, key_id };
    message(room_id, kind, &SealedWebhook { kind, timestamp: now, data }, now)
}

/// Tells that a room's recordings are destroyed.
pub(super) fn destroyed(room_id: RoomId, note: &str, now: Timestamp) -> Option<NewMessage> {
    let kind = "recording.destroyed";
    let data = DestroyedData { room_id, note: note.to_owned() };
    message(room_id, kind, &DestroyedWebhook { kind, timestamp: now, data }, now)
}

fn message(room: RoomId, kind: &str, body: &impl Serialize, now: Timestamp) -> Option<NewMessage> {
    Some(NewMessage {
        id: MessageId::new(now),
        kind: MessageKind::Webhook,
        room,
        participant: None,
        subject: kind.to_owned(),
        // Plain data: it always serialises.
        body: serde_json::to_vec(body).ok()?,
        give_up: now.saturating_add(TRIED_FOR).unwrap_or(Timestamp::MAX),
    })
}
