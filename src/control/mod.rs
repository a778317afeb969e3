//! The part that runs rooms: one actor each, that asks [`room`](crate::room) what follows from a command, stores it,
//! and then makes the media workers and the recorder do it.
//!
//! Persist, then announce: what anybody was told is in the database.

mod views;

use std::time::Duration;

use crate::clock::Clock;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::recording::Recorder;
use crate::room::{Command, Profile, Refusal};
use crate::sfu::{ConnectError, Sfu};
use crate::store::{self, Store};
pub use crate::store::{Personal, Scope, Secret};
pub use views::{
    Booked, Booking, BookingParticipant, Caller, Connection, Consent, IceServer, Invitation, LedgerLine, Me,
    ParticipantView, Place, RecordingState, RecordingView, RoomParticipantView, RoomView, Session, SessionEvent,
    SessionMessage, SessionRoom, SessionView, SlotView, Welcome,
};

/// What control must be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The profiles that rooms may follow.
    pub profiles: Vec<Profile>,
    /// Where people reach this node, without a slash at the end, e.g. `http://127.0.0.1:8080`.
    pub public_url: String,
    /// Version of the recording notice that pages show, e.g. `2026-01`.
    pub consent_text_version: String,
    /// Key of the admission codes' hashes.
    pub code_key: CodeKey,
    /// How long the recorder may go without an acknowledgement while a room is live. Raising it lets more media
    /// flow that may turn out not to be on disk; lowering it suspends rooms on an ordinary sync pause.
    pub longest_silence: Duration,
}

/// The node's key for admission codes: whoever reads the database without it cannot try codes against the hashes.
#[derive(Clone)]
pub struct CodeKey([u8; 32]);

/// Runs the rooms. Clones speak to the same ones.
#[derive(Clone, Debug)]
pub struct Control {}

/// Why control did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed. The disk's fault.
    #[error("cannot restore the rooms: {0}")]
    Store(#[from] store::Error),
    /// An unfinished room follows a profile that is not configured any more. The configuration's fault.
    #[error("room {room} follows the profile `{profile}`, which is not configured")]
    UnknownProfile {
        /// Which room.
        room: RoomId,
        /// Which profile.
        profile: String,
    },
}

/// Why something was not done, by who is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The room's rules do not allow it. The caller's fault.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such room. The caller's fault.
    #[error("there is no such room")]
    UnknownRoom,
    /// No such join link. The caller's fault.
    #[error("this link is not known")]
    UnknownLink,
    /// No such media connection of this session. The caller's fault.
    #[error("there is no such media connection")]
    UnknownConnection,
    /// The key or session token is not known, or not any more. The caller's fault.
    #[error("not authenticated")]
    Unauthenticated,
    /// The caller is known and may not do this. The caller's fault.
    #[error("not allowed")]
    Forbidden,
    /// A field of the request is wrong. The caller's fault.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which field, e.g. `participants[1].phone`.
        field: String,
        /// What is allowed, for the caller to read.
        reason: String,
    },
    /// The SDP offer could not be answered. The caller's fault.
    #[error("{0}")]
    BadOffer(ConnectError),
    /// The node cannot do it now. Its own fault: the cause is for the log, not for the caller.
    #[error("not possible at the moment")]
    Unavailable(#[source] Fault),
}

/// What is wrong with the node; never shown to a client.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The media workers failed.
    #[error("media: {0}")]
    Media(ConnectError),
    /// The operating system's random generator failed.
    #[error("the operating system gives no random numbers")]
    Random,
    /// The room's actor is gone.
    #[error("the room does not answer")]
    RoomGone,
    /// The node is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

/// A participant's stream of news. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionEnd {
    /// The session is over: removed, replaced by another device, or the room is closed for good.
    SessionEnded,
    /// The client did not read fast enough; it may subscribe again.
    TooSlow,
    /// The node is shutting down; the client may subscribe again elsewhere or later.
    ShuttingDown,
}

#[expect(clippy::todo, clippy::unused_async, unused_variables, reason = "being written")]
impl Subscription {
    /// Waits for the next message. The first one is the session as it is. Safe to cancel.
    pub async fn next(&mut self) -> Result<SessionMessage, SubscriptionEnd> {
        todo!()
    }
}

#[expect(clippy::todo, clippy::unused_async, unused_variables, reason = "being written")]
impl CodeKey {
    /// A key by its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        todo!()
    }

    /// Reads the key from a file, which is made (readable by its owner alone) if it does not exist.
    pub fn open(path: &std::path::Path) -> std::io::Result<Self> {
        todo!()
    }
}

impl std::fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeKey(…)")
    }
}

#[expect(clippy::todo, clippy::unused_async, unused_variables, reason = "being written")]
impl Control {
    /// Restores the unfinished rooms and takes commands.
    pub async fn start(
        store: Store,
        sfu: Sfu,
        recorder: Recorder,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, StartError> {
        todo!()
    }

    /// Books a room.
    pub async fn create_room(&self, booking: Booking) -> Result<Booked, Error> {
        todo!()
    }

    /// A room as it is now.
    pub async fn room(&self, room: RoomId) -> Result<RoomView, Error> {
        todo!()
    }

    /// A room's ledger, oldest line first.
    pub async fn ledger(&self, room: RoomId) -> Result<Vec<LedgerLine>, Error> {
        todo!()
    }

    /// Carries out a command of the operator, of the booking system or of a participant.
    pub async fn command(&self, room: RoomId, command: Command) -> Result<(), Error> {
        todo!()
    }

    /// Makes a new admission code in the old one's place, and unlocks.
    pub async fn reissue_code(&self, room: RoomId, participant: ParticipantId) -> Result<Secret, Error> {
        todo!()
    }

    /// What a join link tells before a code was typed.
    pub async fn welcome(&self, join_token: &str) -> Result<Welcome, Error> {
        todo!()
    }

    /// Tries an admission code; the right one gives a new session, and the person's earlier one ends.
    pub async fn enter_code(&self, join_token: &str, code: &str) -> Result<Session, Error> {
        todo!()
    }

    /// Who a session token speaks for.
    pub async fn authenticate(&self, session_token: &str) -> Result<Caller, Error> {
        todo!()
    }

    /// The session as it is now.
    pub async fn session_view(&self, caller: &Caller) -> Result<SessionView, Error> {
        todo!()
    }

    /// Answers an SDP offer. The person's earlier connection ends.
    pub async fn connect(&self, caller: &Caller, offer: String) -> Result<Connection, Error> {
        todo!()
    }

    /// Restarts ICE with the client's new credentials (`trickle-ice-sdpfrag`, RFC 8840); returns the server's, or
    /// `None` if the fragment held only candidates.
    pub async fn restart_ice(
        &self,
        caller: &Caller,
        connection: ConnectionId,
        fragment: String,
    ) -> Result<Option<String>, Error> {
        todo!()
    }

    /// Ends one of the caller's media connections.
    pub async fn disconnect(&self, caller: &Caller, connection: ConnectionId) -> Result<(), Error> {
        todo!()
    }

    /// Follows a session.
    pub async fn subscribe(&self, caller: &Caller) -> Result<Subscription, Error> {
        todo!()
    }

    /// Makes one API key of each scope if there are none at all, and returns them: to be shown this once.
    pub async fn ensure_keys(&self) -> Result<Vec<(Scope, Secret)>, Error> {
        todo!()
    }

    /// What the holder of an API key may do.
    pub async fn key_scope(&self, key: &str) -> Result<Scope, Error> {
        todo!()
    }

    /// Ends all media, finishes the originals and stops the rooms' actors. Unfinished rooms go on at the next start.
    pub async fn shutdown(&self) {
        todo!()
    }
}
