//! What this part asks of the store, as a small trait: it is tested without a database.

use std::future::Future;

use jiff::Timestamp;

use crate::id::MessageId;
use crate::store::{Error, Message, MessageKind, Store};

/// Messages on their way out (the store, whose methods these are).
pub trait Outbox: Send + Sync + 'static {
    /// The messages to be sent now: of each lane (a room's webhooks, a person's text messages) the oldest that is not
    /// settled, if it is due. Oldest first.
    fn due_messages(
        &self,
        kind: MessageKind,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Message>, Error>> + Send;

    /// When the next message is due; `None`: none waits.
    fn next_due(&self, kind: MessageKind) -> impl Future<Output = Result<Option<Timestamp>, Error>> + Send;

    /// Since when the oldest message that is not settled has been waiting; `None`: none waits.
    fn oldest_pending(&self, kind: MessageKind) -> impl Future<Output = Result<Option<Timestamp>, Error>> + Send;

    /// Notes that a message arrived.
    fn message_delivered(&self, id: MessageId, at: Timestamp) -> impl Future<Output = Result<(), Error>> + Send;

    /// Notes that an attempt failed: the message is tried again at `retry_at`, or parked. `error` is in our own words.
    fn message_failed(
        &self,
        id: MessageId,
        at: Timestamp,
        error: &str,
        retry_at: Option<Timestamp>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Outbox for Store {
    async fn due_messages(&self, kind: MessageKind, now: Timestamp, limit: u32) -> Result<Vec<Message>, Error> {
        Self::due_messages(self, kind, now, limit).await
    }

    async fn next_due(&self, kind: MessageKind) -> Result<Option<Timestamp>, Error> {
        Self::next_due(self, kind).await
    }

    async fn oldest_pending(&self, kind: MessageKind) -> Result<Option<Timestamp>, Error> {
        Self::oldest_pending(self, kind).await
    }

    async fn message_delivered(&self, id: MessageId, at: Timestamp) -> Result<(), Error> {
        Self::message_delivered(self, id, at).await
    }

    async fn message_failed(
        &self,
        id: MessageId,
        at: Timestamp,
        error: &str,
        retry_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        Self::message_failed(self, id, at, error, retry_at).await
    }
}
