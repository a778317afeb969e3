//! What leaves the node of a recording while it grows: how far each original is on disk, signed. Whoever keeps it can tell
//! later that nothing was changed or cut off that was recorded by then.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::webhooks::{LedgerHead, tried_until};
use crate::clock::{MonoTime, Now};
use crate::id::{MessageId, RoomId};
use crate::recording::Original;
use crate::recording::sign::SigningKey;
use crate::room::ledger::Head;
use crate::store::{MessageKind, NewMessage};

/// What the signature says that it is over (`typ`).
const HEADS_TYPE: &str = "sportello-heads+json";

/// How far a room's originals are on disk, and when that was published last.
#[derive(Debug, Default)]
pub(super) struct Heads {
    originals: BTreeMap<String, OriginalHead>,
    changed: bool,
    published: Option<MonoTime>,
}

/// How far the originals of a room were on disk at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RecordedHeads {
    /// The room.
    pub room_id: RoomId,
    /// When that was so, RFC 3339.
    #[schema(example = "2026-01-13T09:05:00Z")]
    pub at: Timestamp,
    /// Where the room's ledger stood.
    pub ledger: LedgerHead,
    /// Each original.
    pub originals: Vec<OriginalHead>,
}

/// How far an original was on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OriginalHead {
    /// Its file.
    #[schema(example = "delegato-1.webm")]
    pub file: String,
    /// Number of clusters.
    #[schema(example = 58)]
    pub clusters: u64,
    /// Length of the WebM, number of bytes.
    #[schema(example = 4_812_331)]
    pub bytes: u64,
    /// SHA-256 of the last line of its chain, hex: binds that cluster and every one before it.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub chain_head: String,
}

/// The webhook `recording.heads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HeadsWebhook {
    /// `recording.heads`.
    #[serde(rename = "type")]
    #[schema(example = "recording.heads")]
    pub kind: &'static str,
    /// When that was so, RFC 3339.
    #[schema(example = "2026-01-13T09:05:00Z")]
    pub timestamp: Timestamp,
    /// The heads, and their signature.
    pub data: HeadsData,
}

/// The heads, and their signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HeadsData {
    /// What is signed.
    #[serde(flatten)]
    pub heads: RecordedHeads,
    /// The same as a compact JWS (RFC 7515) by the key of `/v1/signing-key`.
    #[schema(example = "eyJhbGciOiJFZERTQSJ9.eyJyb29tX2lkIjoi4oCmIn0.c2lnbmF0dXJl")]
    pub jws: String,
}

/// A message on its way, with the signature in it.
pub(super) struct Published {
    pub(super) jws: String,
    message: NewMessage,
}

impl From<Published> for NewMessage {
    fn from(published: Published) -> Self {
        published.message
    }
}

impl Heads {
    /// Takes in how far an original is.
    pub(super) fn take(&mut self, original: Original) {
        let Original { file, bytes, clusters, chain_head, .. } = original;
        let head = OriginalHead { file: file.clone(), clusters, bytes, chain_head };
        self.changed |= self.originals.insert(file, head.clone()) != Some(head);
    }

    /// Whether there is news to be published.
    pub(super) fn is_due(&self, now: MonoTime, every: Duration) -> bool {
        self.changed && self.published.is_none_or(|published| now.since(published) >= every)
    }

    /// The news, which is none from then on. The first ones only begin the time: there is little in a room's first
    /// second that could be cut off.
    pub(super) fn publish(&mut self, now: Now, room: RoomId, ledger: &Head) -> Option<RecordedHeads> {
        let first = self.published.replace(now.mono).is_none();
        if first {
            return None;
        }
        self.changed = false;
        Some(RecordedHeads {
            room_id: room,
            at: now.wall,
            ledger: LedgerHead { seq: ledger.seq, hash: ledger.hash.clone() },
            originals: self.originals.values().cloned().collect(),
        })
    }
}

/// The webhook that tells of heads; `None`: they could not be signed.
pub(super) fn webhook(now: Now, heads: &RecordedHeads, key: &SigningKey) -> Option<Published> {
    let room = heads.room_id;
    let jws = serde_json::to_vec(heads).ok().and_then(|payload| key.sign(HEADS_TYPE, &payload).ok());
    let Some(jws) = jws else {
        tracing::error!(%room, "heads of recordings could not be signed");
        return None;
    };
    let data = HeadsData { heads: heads.clone(), jws: jws.clone() };
    let body = HeadsWebhook { kind: "recording.heads", timestamp: now.wall, data };
    let message = NewMessage {
        id: MessageId::new(now.wall),
        kind: MessageKind::Webhook,
        room,
        participant: None,
        subject: "recording.heads".to_owned(),
        body: serde_json::to_vec(&body).ok()?,
        give_up: tried_until(now.wall),
    };
    Some(Published { jws, message })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn now(seconds: u64) -> Now {
        let wall = Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap();
        Now { mono: MonoTime::from_millis(seconds * 1_000), wall }
    }

    fn original(clusters: u64) -> Original {
        let (file, chain_head) = ("delegato-1.webm".to_owned(), format!("head of {clusters}"));
        Original { file, sources: Vec::new(), bytes: 100 * clusters, clusters, duration_ms: 1, chain_head }
    }

    #[test]
    fn heads_are_published_at_their_rhythm_and_only_when_something_was_recorded() {
        let (mut heads, every, room) = (Heads::default(), Duration::from_mins(1), RoomId::new(now(0).wall));
        assert!(!heads.is_due(now(1).mono, every), "nothing is recorded");
        heads.take(original(1));
        assert!(heads.is_due(now(1).mono, every));
        assert_eq!(heads.publish(now(1), room, &Head::empty()), None, "the time begins");
        heads.take(original(40));
        assert!(!heads.is_due(now(60).mono, every));
        assert!(heads.is_due(now(61).mono, every));
        let published = heads.publish(now(61), room, &Head::empty()).unwrap();
        assert_eq!(published.originals.len(), 1);
        assert_eq!(published.originals[0].clusters, 40);
        heads.take(original(40));
        assert!(!heads.is_due(now(200).mono, every), "the same again is no news");
    }

    #[test]
    fn published_heads_are_signed_by_the_key_that_signs_packages() {
        let (mut heads, key, room) = (Heads::default(), SigningKey::generate().unwrap(), RoomId::new(now(0).wall));
        heads.take(original(40));
        assert_eq!(heads.publish(now(0), room, &Head::empty()), None);
        let published = heads.publish(now(61), room, &Head::empty()).unwrap();
        let message = webhook(now(61), &published, &key).unwrap();
        let payload = key.public().open(HEADS_TYPE, message.jws.as_bytes()).unwrap();
        let signed: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(signed["originals"][0]["chain_head"], "head of 40");
        let message = NewMessage::from(message);
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        assert_eq!(body["type"], "recording.heads");
        assert_eq!(body["data"]["room_id"], room.to_string());
    }
}
