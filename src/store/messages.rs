//! Messages that leave the node: webhooks and text messages, as the outbox keeps them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{MessageId, ParticipantId, RoomId};

/// How a message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// A webhook to the booking system.
    Webhook,
    /// A text message to a person.
    Sms,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "pending")]
pub enum MessageState {
    /// It is still to arrive.
    Pending,
    /// It arrived.
    Delivered,
    /// It was given up.
    Parked,
}

/// A message to be written with its cause.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its identifier, the same at every attempt.
    pub id: MessageId,
    /// How it leaves.
    pub kind: MessageKind,
    /// The room that it is about.
    pub room: RoomId,
    /// The person that it is for, if it is a text message.
    pub participant: Option<ParticipantId>,
    /// The event's type, e.g. `room.concluded`, or `code`.
    pub subject: String,
    /// A webhook's JSON as it is sent; a text message, sealed.
    pub body: Vec<u8>,
    /// When it is tried for the last time.
    pub give_up: Timestamp,
}

/// A message of the outbox.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its identifier.
    pub id: MessageId,
    /// How it leaves.
    pub kind: MessageKind,
    /// The room that it is about.
    pub room: RoomId,
    /// The person that it is for, if it is a text message.
    pub participant: Option<ParticipantId>,
    /// The event's type, e.g. `room.concluded`, or `code`.
    pub subject: String,
    /// A webhook's JSON as it is sent; a text message, sealed, and empty once it is settled.
    pub body: Vec<u8>,
    /// When it was written.
    pub created: Timestamp,
    /// When the next attempt is to be made.
    pub due: Timestamp,
    /// When it is tried for the last time.
    pub give_up: Timestamp,
    /// Attempts that were made.
    pub attempts: u32,
    /// Where it stands.
    pub state: MessageState,
    /// Why the last attempt failed, in our own words or as an HTTP status: never the far end's text.
    pub last_error: Option<String>,
}
