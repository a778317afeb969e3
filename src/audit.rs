//! The audit: who looked at which recording, when and why, each line bound by SHA-256 to the lines before it.
//!
//! A line's hash is over the UTF-8 bytes of the JSON object `{"seq":…,"at":"…","caller":"…","action":"…","room":…,
//! "reason":"…","detail":{…},"prev":"…","room_prev":…}`: these keys in this order, no white space, the keys of `detail`
//! sorted, as `serde_json` writes it; that is the line as it is kept, less its last key `hash`. `prev` is the hash of the
//! line before, 64 zeros in the first. `room_prev` is that of the line before **about the same room**, 64 zeros in the
//! room's first, and `null` in lines about no room: so the lines of one room, taken out of the whole (`access.jsonl` of
//! a package), are a chain of their own, in which none can be missing unseen but at the end.
//!
//! No personal data is in it, because no line of it can ever be deleted: callers appear by identifiers, and reasons
//! are written by people who are told so.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::id::RoomId;

/// What a first line names as the hash before it.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "original_read")]
pub enum Action {
    /// Recordings were searched for.
    Searched,
    /// An access to a room's recordings was opened, with a reason.
    AccessOpened,
    /// The manifest was read.
    ManifestRead,
    /// The manifest's signature was read.
    SignatureRead,
    /// The package was downloaded.
    PackageRead,
    /// An original, or a file beside it, was read.
    OriginalRead,
    /// The session copy was read.
    SessionCopyRead,
    /// The room's ledger was read.
    LedgerRead,
    /// This audit was read.
    AccessesRead,
    /// The recordings were put on hold.
    HoldPlaced,
    /// The hold was lifted.
    HoldLifted,
    /// The date was set until which the recordings are kept.
    RetentionSet,
    /// The recordings were destroyed.
    Destroyed,
    /// A verification was asked for.
    VerificationAsked,
    /// An export was asked for.
    ExportAsked,
    /// A finished export was downloaded.
    ExportRead,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AccessLine)]
pub struct Line {
    /// Number of the line in the node's audit, from 1, without gaps.
    #[schema(example = 42)]
    pub seq: u64,
    /// When, RFC 3339.
    #[schema(example = "2026-01-20T10:15:00Z")]
    pub at: Timestamp,
    /// Who: `key:` and an API key's id, `oidc:` and SHA-256 (hex) of a token's issuer and subject, or `node` itself.
    #[schema(example = "key:0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11")]
    pub caller: String,
    /// What was done.
    pub action: Action,
    /// The room; `null`: none in particular.
    pub room: Option<RoomId>,
    /// Why, in the caller's words.
    #[schema(example = "Reclamo 2026/17")]
    pub reason: String,
    /// What else belongs to the action: which file, which access.
    #[schema(schema_with = detail_schema)]
    pub detail: Map<String, Value>,
    /// Hash of the audit's line before, hex; zeros in the first.
    #[schema(example = "0000000000000000000000000000000000000000000000000000000000000000")]
    pub prev: String,
    /// Hash of the line before about the same room, hex; zeros in the room's first, `null` without a room.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub room_prev: Option<String>,
    /// SHA-256 of this line as JSON without this field, hex.
    #[schema(example = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")]
    pub hash: String,
}

/// What becomes a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub caller: String,
    /// What is done.
    pub action: Action,
    /// The room.
    pub room: Option<RoomId>,
    /// Why.
    pub reason: String,
    /// What else belongs to it. No personal data, no secrets.
    pub detail: Map<String, Value>,
}

/// Where the audit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its last line's position; 0: it is empty.
    pub seq: u64,
    /// Its last line's hash.
    pub hash: String,
}

impl Head {
    /// The head of an empty audit.
    pub fn empty() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

/// Why lines are not an audit, or not all of a room's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A line cannot be read.
    #[error("line {number} is not a line of an audit: {reason}")]
    Unreadable {
        /// Which, counted from 1.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A line is not what it was.
    #[error("the audit's line {seq} was changed")]
    Changed {
        /// Its position as it says.
        seq: u64,
    },
    /// A line does not follow from the one before it: something is missing or was put in between.
    #[error("the audit's line {seq} does not follow from the one before it")]
    Broken {
        /// Its position as it says.
        seq: u64,
    },
    /// The lines are about several rooms.
    #[error("the audit's line {seq} is about another room")]
    OtherRoom {
        /// Its position as it says.
        seq: u64,
    },
}

/// The line that an access becomes. `room_prev` is the hash of the last line about the same room; `None`: there is none.
pub fn chain(prev: &Head, room_prev: Option<&str>, at: Timestamp, access: &Access) -> Line {
    let Access { caller, action, room, reason, detail } = access.clone();
    // What is kept has milliseconds.
    let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
    let room_prev = room.map(|_| room_prev.unwrap_or(GENESIS).to_owned());
    let (seq, prev, hash) = (prev.seq + 1, prev.hash.clone(), String::new());
    let mut line = Line { seq, at, caller, action, room, reason, detail, prev, room_prev, hash };
    line.hash = hash_of(&line);
    line
}

/// Checks a whole audit, from its first line; its head, if every line is what it was and where it was. What is missing
/// at its end shows only against a head that is kept elsewhere.
///
/// # Errors
/// The first line that is wrong.
pub fn verify<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Result<Head, ChainError> {
    let mut head = Head::empty();
    for line in lines {
        if line.hash != hash_of(line) {
            return Err(ChainError::Changed { seq: line.seq });
        }
        if line.seq != head.seq + 1 || line.prev != head.hash {
            return Err(ChainError::Broken { seq: line.seq });
        }
        head = Head { seq: line.seq, hash: line.hash.clone() };
    }
    Ok(head)
}

/// Checks the lines about one room, from its first.
///
/// # Errors
/// The first line that is wrong.
pub fn verify_room<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Result<Head, ChainError> {
    let mut head = Head::empty();
    let mut room = None;
    for line in lines {
        let seq = line.seq;
        if line.hash != hash_of(line) {
            return Err(ChainError::Changed { seq });
        }
        if line.room.is_none() || line.room != *room.get_or_insert(line.room) {
            return Err(ChainError::OtherRoom { seq });
        }
        let adjacent = line.seq == head.seq + 1;
        if line.seq <= head.seq || line.room_prev.as_deref() != Some(&head.hash) || (adjacent && line.prev != head.hash)
        {
            return Err(ChainError::Broken { seq });
        }
        head = Head { seq, hash: line.hash.clone() };
    }
    Ok(head)
}

/// Checks a room's audit as text, one line of JSON for each of its lines (`access.jsonl`). An empty one is one in which
/// nobody has looked yet.
///
/// # Errors
/// The first line that cannot be read, says more than is hashed, or is wrong.
pub fn verify_room_text(text: &str) -> Result<Head, ChainError> {
    let lines = (1..).zip(text.lines()).map(|(number, text)| read_line(number, text));
    verify_room(&lines.collect::<Result<Vec<_>, _>>()?)
}

/// `utoipa` loses the attribute `example` on objects of any form.
fn detail_schema() -> Object {
    let description = "What else belongs to the action: which file, which access, which bytes.";
    let example = json!({"access": "0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11", "file": "originals/delegato-1.webm"});
    ObjectBuilder::new().schema_type(Type::Object).description(Some(description)).examples([example]).build()
}

fn read_line(number: u64, text: &str) -> Result<Line, ChainError> {
    let unreadable = |reason: String| ChainError::Unreadable { number, reason };
    let line: Line = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    // What the reading leaves out is not hashed either. As text: a key that is there twice shows only there.
    if serde_json::to_string(&line).is_ok_and(|written| written == text) {
        Ok(line)
    } else {
        Err(unreadable("it is not written as it was".into()))
    }
}

fn hash_of(line: &Line) -> String {
    /// A line as it is hashed.
    #[derive(Serialize)]
    struct Hashed<'a> {
        seq: u64,
        at: Timestamp,
        caller: &'a str,
        action: Action,
        room: Option<RoomId>,
        reason: &'a str,
        detail: &'a Map<String, Value>,
        prev: &'a str,
        room_prev: Option<&'a str>,
    }

    let Line { seq, at, caller, action, room, reason, detail, prev, room_prev, .. } = line;
    let room_prev = room_prev.as_deref();
    let hashed = Hashed { seq: *seq, at: *at, caller, action: *action, room: *room, reason, detail, prev, room_prev };
    let written = serde_json::to_vec(&hashed);
    debug_assert!(written.is_ok(), "all of it is plain JSON");
    hex::encode(digest(&SHA256, &written.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_768_294_800 + second).unwrap()
    }

    fn access(room: Option<RoomId>, file: &str) -> Access {
        let Value::Object(detail) = json!({"file": file, "a": 1}) else { unreachable!() };
        let (caller, reason) = ("key:1".to_owned(), "Reclamo 2026/17".to_owned());
        Access { caller, action: Action::OriginalRead, room, reason, detail }
    }

    /// Six lines: about one room, another, and none, in turn.
    fn lines() -> (RoomId, Vec<Line>) {
        let rooms = [Some(RoomId::new(at(0))), Some(RoomId::new(at(1))), None];
        let (mut head, mut lines) = (Head::empty(), Vec::<Line>::new());
        for n in 0..6 {
            let room = rooms[n % 3];
            let room_prev = lines.iter().rfind(|line| line.room == room).map(|line| line.hash.clone());
            let line = chain(&head, room_prev.as_deref(), at(10), &access(room, &format!("delegato-{n}.webm")));
            head = Head { seq: line.seq, hash: line.hash.clone() };
            lines.push(line);
        }
        (rooms[0].unwrap(), lines)
    }

    fn text(lines: &[&Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    #[test]
    fn a_whole_audit_and_one_rooms_lines_of_it_verify() {
        let (room, lines) = lines();
        assert_eq!(verify(&lines).unwrap().seq, 6);
        let own: Vec<_> = lines.iter().filter(|line| line.room == Some(room)).collect();
        assert_eq!(verify_room_text(&text(&own)).unwrap(), Head { seq: 4, hash: own[1].hash.clone() });
        assert_eq!(verify_room_text("").unwrap(), Head::empty());
    }

    #[test]
    fn a_changed_a_missing_and_a_foreign_line_are_found() {
        let (room, mut lines) = lines();
        let own: Vec<_> = lines.iter().filter(|line| line.room == Some(room)).collect();
        assert_eq!(verify_room([own[1]]), Err(ChainError::Broken { seq: 4 }), "the first is missing");
        assert_eq!(verify_room([own[0], &lines[1]]), Err(ChainError::OtherRoom { seq: 2 }));
        assert_eq!(verify(&lines[1..]), Err(ChainError::Broken { seq: 2 }));
        lines[2].reason = "another".into();
        assert_eq!(verify(&lines), Err(ChainError::Changed { seq: 3 }));
    }

    #[test]
    fn each_byte_of_the_text_counts() {
        let (room, lines) = lines();
        let own: Vec<_> = lines.iter().filter(|line| line.room == Some(room)).collect();
        let text = text(&own);
        for place in 0..text.len() - 1 {
            let mut flipped = text.clone().into_bytes();
            flipped[place] ^= 1;
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            assert!(verify_room_text(&flipped).is_err(), "byte {place}");
        }
    }
}
