//! News for one participant's page: a bounded queue that cuts a slow reader off instead of holding the room up.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::session_views::{SessionEvent, SessionMessage};
use crate::id::ParticipantId;

/// Messages that wait for one client. Raising it lets a stuck client hold more memory; lowering it cuts clients off
/// that only paused for a moment.
const MOST_WAITING: usize = 256;

/// A participant's stream of news. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<SessionMessage>,
    end: Arc<OnceLock<SubscriptionEnd>>,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionEnd {
    /// The session is over: removed, or replaced by another device.
    SessionEnded,
    /// The client did not read fast enough; it may subscribe again.
    TooSlow,
    /// The node is shutting down; the client may subscribe again elsewhere or later.
    ShuttingDown,
}

impl Subscription {
    /// Waits for the next message. The first one is the session as it is. Safe to cancel.
    pub async fn next(&mut self) -> Result<SessionMessage, SubscriptionEnd> {
        // What waits for a slow client is old by now: it is not made to read it first.
        if self.end.get() == Some(&SubscriptionEnd::TooSlow) {
            return Err(SubscriptionEnd::TooSlow);
        }
        match self.messages.recv().await {
            Some(message) => Ok(message),
            None => Err(self.end.get().copied().unwrap_or(SubscriptionEnd::ShuttingDown)),
        }
    }
}

/// The room's end of a subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) participant: ParticipantId,
    messages: mpsc::Sender<SessionMessage>,
    end: Arc<OnceLock<SubscriptionEnd>>,
    next_id: u64,
}

impl Subscriber {
    pub(super) fn new(participant: ParticipantId) -> (Self, Subscription) {
        let (sender, messages) = mpsc::channel(MOST_WAITING);
        let end = Arc::new(OnceLock::new());
        let subscription = Subscription { messages, end: Arc::clone(&end) };
        (Self { participant, messages: sender, end, next_id: 1 }, subscription)
    }

    /// Queues news; `false`: the subscriber is to be dropped, having gone or been too slow.
    #[must_use]
    pub(super) fn tell(&mut self, event: SessionEvent) -> bool {
        let message = SessionMessage { id: self.next_id, event };
        self.next_id += 1;
        match self.messages.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.close(SubscriptionEnd::TooSlow);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Says why the stream ends when this end is dropped.
    pub(super) fn close(&self, why: SubscriptionEnd) {
        // The first reason is the one that counts.
        let _ = self.end.set(why);
    }

    /// Whether the client has gone.
    pub(super) fn is_gone(&self) -> bool {
        self.messages.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::id::ConnectionId;

    fn news() -> SessionEvent {
        SessionEvent::Slots { connection: ConnectionId::new(Timestamp::UNIX_EPOCH), slots: Vec::new() }
    }

    #[tokio::test]
    async fn messages_are_numbered_from_one() {
        let (mut subscriber, mut subscription) = Subscriber::new(ParticipantId::new(Timestamp::UNIX_EPOCH));
        assert!(subscriber.tell(news()));
        assert!(subscriber.tell(news()));
        assert_eq!(subscription.next().await.unwrap().id, 1);
        assert_eq!(subscription.next().await.unwrap().id, 2);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off_at_once() {
        let (mut subscriber, mut subscription) = Subscriber::new(ParticipantId::new(Timestamp::UNIX_EPOCH));
        for _ in 0..MOST_WAITING {
            assert!(subscriber.tell(news()));
        }
        assert!(!subscriber.tell(news()));
        drop(subscriber);
        assert_eq!(subscription.next().await.unwrap_err(), SubscriptionEnd::TooSlow);
    }

    #[tokio::test]
    async fn what_was_said_before_the_session_ended_is_still_read() {
        let (mut subscriber, mut subscription) = Subscriber::new(ParticipantId::new(Timestamp::UNIX_EPOCH));
        assert!(subscriber.tell(news()));
        subscriber.close(SubscriptionEnd::SessionEnded);
        drop(subscriber);
        assert_eq!(subscription.next().await.unwrap().id, 1);
        assert_eq!(subscription.next().await.unwrap_err(), SubscriptionEnd::SessionEnded);
    }
}
