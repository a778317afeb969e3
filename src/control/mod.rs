//! The part that runs rooms: one actor each, that asks [`room`](crate::room) what follows from a command, stores it,
//! and then makes the media workers and the recorder do it.
//!
//! Persist, then announce: what anybody was told is in the database.

mod actor;
mod book;
mod booking;
mod heads;
mod invite;
mod paper_views;
mod papers;
mod recording_key;
mod recovered;
mod registrar;
mod schemas;
mod seam;
mod secrets;
mod session_views;
mod stage;
mod subscription;
mod view;
mod views;
mod webhooks;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use self::actor::{Actor, Ask, Reply};
use self::papers::Uploads;
use crate::calendar::Calendar;
use crate::clock::Clock;
use crate::id::{ConnectionId, KeyId, MessageId, RoomId};
use crate::notify::Waker;
use crate::recording::Recorder;
use crate::recording::sign::SigningKey;
pub use crate::room::Place;
use crate::room::ledger::{Head, Line};
use crate::room::{Command, Profile, Refusal, Room};
use crate::sfu::{ConnectError, Sfu};
use crate::store::{self, Hash, MessageKind, Seal, SealError, Store};
pub use crate::store::{Language, MessageState, Personal, RoomFilter, Scope, Secret};
use crate::vault::{KeyEncryption, KeyError};
pub use book::{Repeatable, SlotSearch};
pub use heads::{HeadsData, HeadsWebhook, OriginalHead, RecordedHeads};
pub use invite::TextMessages;
pub use paper_views::{
    ChatMessageView, ChatPage, DayAppointment, DayParticipant, DayView, DevicesView, DocumentList, DocumentProgress,
    DocumentView, GrantView, StepView, Texts,
};
pub use papers::{DocumentContent, DocumentError, Documents, Upload};
pub use registrar::Register;
pub use seam::{Media, Recording};
pub use secrets::{API_KEY_PREFIX, CodeKey, new_api_key};
pub use session_views::{
    Admission, Caller, Connection, Consent, IceServer, Me, ParticipantView, RecordingView, Session, SessionEvent,
    SessionMessage, SessionRoom, SessionView, SlotView, Welcome,
};
pub use subscription::{Subscription, SubscriptionEnd};
pub use views::{
    Booked, Booking, BookingParticipant, Delivery, DeliveryState, Invitation, LedgerLine, ParticipantSummary,
    RecordingState, ReissuedCode, RoomPage, RoomParticipantView, RoomSummary, RoomView, SlotOffer, WebhookPage,
    WebhookView,
};
pub use webhooks::{LedgerHead, Proof, ProofParticipant, Webhook, WebhookData};

/// What control must be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The profiles that rooms may follow.
    pub profiles: Vec<Profile>,
    /// Where people reach this node, without a slash at the end, e.g. `http://127.0.0.1:8080`.
    pub public_url: String,
    /// Version of the recording notice that pages show, e.g. `2026-01`.
    pub consent_text_version: String,
    /// When and where rooms may be; `None`: anywhere and any time.
    pub calendar: Option<Calendar>,
    /// Most rooms at once on this node; `None`: no limit.
    pub capacity: Option<u32>,
    /// Whether a booking system is told of what happens.
    pub webhooks: bool,
    /// How codes go out by text message; `None`: the booking system sends them.
    pub sms: Option<TextMessages>,
    /// Seals the answers that are kept for repeated requests.
    pub answers: Seal,
    /// Told whenever there is a new message to be sent.
    pub posted: Waker,
    /// Key of the admission codes' hashes.
    pub code_key: CodeKey,
    /// How long the recorder may go without an acknowledgement while a room is live. Raising it lets more media
    /// flow that may turn out not to be on disk; lowering it suspends rooms on an ordinary sync pause.
    pub longest_silence: Duration,
    /// What wraps and unwraps the keys of recordings.
    pub recording_keys: Arc<dyn KeyEncryption>,
    /// Whether rooms that have no recording yet are recorded encrypted.
    pub encrypt: bool,
    /// How often the heads of a room's originals are published while it is recorded; `None`: never.
    pub publish_heads: Option<Duration>,
    /// Signs what is published.
    pub signing: Arc<SigningKey>,
    /// Where documents go.
    pub documents: Documents,
    /// Which register they are entered in.
    pub register: Register,
}

/// Questions that wait for one room. An operator and nine participants ask a few a second; when more wait, the
/// room's database or worker is stuck, and the askers wait with it.
const WAITING_ASKS: usize = 1_024;

/// How far back to look for text messages whose end was not written down: longer than anything takes to restart, short
/// enough that there are few.
const UNHEARD: SignedDuration = SignedDuration::from_hours(24);

/// Runs the rooms. Clones speak to the same ones.
pub struct Control<M = Sfu, R = Recorder> {
    shared: Arc<Shared<M, R>>,
}

/// The room's revisions that a change is meant for; if it is another by now, [`Error::Changed`]. `None`: whatever it is.
pub type Expected = Option<Vec<u64>>;

/// What control and the rooms' actors share.
struct Shared<M, R> {
    store: Store,
    media: M,
    recorder: R,
    settings: Settings,
    clock: Clock,
    /// The rooms that have an actor.
    rooms: DashMap<RoomId, mpsc::Sender<Ask>>,
    /// Held while an actor is made for a stored room, and while one ends: a room never has two.
    loading: Mutex<()>,
    closing: AtomicBool,
    uploads: Uploads,
    /// Woken when the register is asked for something.
    registering: Notify,
}

/// Why control did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed. The disk's fault.
    #[error("cannot restore the rooms: {0}")]
    Store(#[from] store::Error),
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
    /// The code was right, and the person is in on another device: they must say that this one takes over.
    #[error("the person is in on another device")]
    OtherDevice,
    /// The room is not any more as the caller saw it. The caller's fault.
    #[error("the room has changed since")]
    Changed,
    /// The request's name was used for another request. The caller's fault.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The calendar or the node has no place at that time. The caller's fault.
    #[error("there is no place at that time")]
    NoPlace {
        /// The next free slots at the same counter.
        next: Vec<SlotOffer>,
    },
    /// No disk has the space that the room's recording needs. The node's fault.
    #[error("there is not enough space for the room's recording")]
    NoSpace,
    /// Every media worker is so busy that a further room would cost those that are there. The node's fault.
    #[error("this node holds as many meetings as it can; try again when one of them is over")]
    Full,
    /// No such webhook. The caller's fault.
    #[error("there is no such webhook")]
    UnknownWebhook,
    /// A document was not taken.
    #[error(transparent)]
    Document(#[from] DocumentError),
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
    /// The store does not answer.
    #[error("the database does not answer")]
    StoreSilent,
    /// The operating system's random generator failed.
    #[error("the operating system gives no random numbers")]
    Random,
    /// A value could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The key of the room's recording could not be made, wrapped or unwrapped.
    #[error("the recording's key: {0}")]
    RecordingKey(#[from] KeyError),
    /// The key of the room's recording was destroyed: nothing more can be recorded in it.
    #[error("the recording's key was destroyed")]
    RecordingKeyDestroyed,
    /// Too many documents are being uploaded.
    #[error("too many documents are being uploaded")]
    TooManyUploads,
    /// A document's file could not be kept or read.
    #[error("a document's file could not be kept or read")]
    Documents,
    /// A receipt could not be made.
    #[error("a receipt could not be made")]
    Receipt,
    /// The room's actor is gone.
    #[error("the room does not answer")]
    RoomGone,
    /// The node is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

impl<M: Media, R: Recording> Control<M, R> {
    /// Restores the unfinished rooms and takes commands.
    ///
    /// A room whose stored ledger does not hold together is left alone and logged; the others go on.
    pub async fn start(
        store: Store,
        media: M,
        recorder: R,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let rooms = DashMap::new();
        let (loading, closing) = (Mutex::new(()), AtomicBool::new(false));
        let (uploads, registering) = (Uploads::default(), Notify::new());
        let shared =
            Arc::new(Shared { store, media, recorder, settings, clock, rooms, loading, closing, uploads, registering });
        let control = Self { shared };
        let since = control.shared.clock.now().wall.saturating_sub(UNHEARD).unwrap_or(Timestamp::MIN);
        control.catch_up(since).await?;
        Ok(control)
    }

    /// Hears of text messages that were settled since then and whose end could not be written down. Told again, it
    /// changes nothing. Takes up rooms again that have lost their actor.
    pub async fn catch_up(&self, since: Timestamp) -> Result<(), store::Error> {
        for (room, id) in self.shared.store.settled_texts(since).await? {
            if let Err(error) = self.message_settled(room, id).await {
                tracing::warn!(%room, %error, "a text message's end could not be written down");
            }
        }
        for room in self.shared.store.unfinished().await? {
            let lives = self.shared.rooms.get(&room).is_some_and(|actor| !actor.is_closed());
            if !lives && let Err(error) = self.load(room).await {
                tracing::error!(%room, cause = ?error, "a room could not be restored");
            }
        }
        Ok(())
    }

    /// A room as it is now.
    pub async fn room(&self, room: RoomId) -> Result<RoomView, Error> {
        self.ask(room, |reply| Ask::Room { reply }).await
    }

    /// A room's ledger, oldest line first.
    pub async fn ledger(&self, room: RoomId) -> Result<Vec<LedgerLine>, Error> {
        let lines = self.shared.store.ledger(room).await.map_err(unavailable)?;
        if lines.is_empty() {
            return Err(Error::UnknownRoom);
        }
        Ok(lines.into_iter().map(LedgerLine::from).collect())
    }

    /// Carries out a command of the operator, of the booking system or of a participant.
    ///
    /// What only the node itself may say (that a code was right, that media arrives) is [`Error::Forbidden`].
    pub async fn command(&self, room: RoomId, command: Command, expected: Expected) -> Result<RoomView, Error> {
        self.command_of(None, room, command, expected).await
    }

    /// The same for someone with a session, which may have ended since it was looked up.
    pub async fn command_of(
        &self,
        caller: Option<Caller>,
        room: RoomId,
        command: Command,
        expected: Expected,
    ) -> Result<RoomView, Error> {
        match &command {
            Command::Consent { text_version, .. } if *text_version != self.shared.settings.consent_text_version => {
                return Err(booking::invalid("text_version", "not the version of the notice that is shown"));
            }
            Command::Reschedule { start, end } => booking::check_length(*start, *end)?,
            Command::Consent { .. }
            | Command::EnterWaiting { .. }
            | Command::Leave { .. }
            | Command::Open
            | Command::Admit { .. }
            | Command::SendBack { .. }
            | Command::Remove { .. }
            | Command::Attest { .. }
            | Command::WithdrawAttestation { .. }
            | Command::SetFeature { .. }
            | Command::Conclude { .. }
            | Command::Extend { .. }
            | Command::DevicesChecked { .. }
            | Command::TickStep { .. }
            | Command::Cancel => {}
            Command::TryCode { .. }
            | Command::ReissueCode { .. }
            | Command::Replace { .. }
            | Command::TakeSeat { .. }
            | Command::HandIn { .. }
            | Command::DeleteDocument { .. }
            | Command::AskRegistration { .. }
            | Command::Registered { .. }
            | Command::Write { .. }
            | Command::MessageSent { .. }
            | Command::MessageFailed { .. }
            | Command::Connected { .. }
            | Command::Disconnected { .. }
            | Command::SourceChanged { .. }
            | Command::RecordingStarted { .. }
            | Command::RecordingLost { .. }
            | Command::RecordingResumed
            | Command::PictureMissing { .. }
            | Command::PictureBack { .. }
            | Command::RecordingRecovered { .. }
            | Command::Restarted
            | Command::WallClockSet { .. }
            | Command::Tick => return Err(Error::Forbidden),
        }
        self.ask(room, |reply| Ask::Command { caller, command, expected, reply }).await
    }

    /// What a join link tells before a code was typed.
    pub async fn welcome(&self, join_token: &str) -> Result<Welcome, Error> {
        let owner = self.link_owner(join_token).await?;
        self.ask(owner.room, |reply| Ask::Welcome { participant: owner.participant, reply }).await
    }

    /// Tries an admission code; the right one gives a new session. If the person has one already, on another device,
    /// [`Error::OtherDevice`], unless they say `take_over`: then the earlier one ends.
    pub async fn enter_code(&self, join_token: &str, code: &str, take_over: bool) -> Result<Session, Error> {
        let owner = self.link_owner(join_token).await?;
        let code = Secret::new(code.to_owned());
        self.ask(owner.room, |reply| Ask::TryCode { participant: owner.participant, code, take_over, reply }).await
    }

    /// Who a session token speaks for.
    pub async fn authenticate(&self, session_token: &str) -> Result<Caller, Error> {
        let session = Hash::of_token(session_token);
        let now = self.shared.clock.now().wall;
        let owner = self.shared.store.session_owner(session, now).await.map_err(unavailable)?;
        let store::Owner { room, participant, role } = owner.ok_or(Error::Unauthenticated)?;
        Ok(Caller { room, participant, role, session })
    }

    /// The session as it is now.
    pub async fn session_view(&self, caller: &Caller) -> Result<SessionView, Error> {
        self.ask(caller.room, |reply| Ask::Session { caller: *caller, reply }).await
    }

    /// Answers an SDP offer. The person's earlier connection ends.
    pub async fn connect(&self, caller: &Caller, offer: String) -> Result<Connection, Error> {
        self.ask(caller.room, |reply| Ask::Connect { caller: *caller, offer, reply }).await
    }

    /// Restarts ICE with the client's new credentials (`trickle-ice-sdpfrag`, RFC 8840); returns the server's, or
    /// `None` if the fragment held only candidates.
    pub async fn restart_ice(
        &self,
        caller: &Caller,
        connection: ConnectionId,
        fragment: String,
    ) -> Result<Option<String>, Error> {
        self.ask(caller.room, |reply| Ask::RestartIce { caller: *caller, connection, fragment, reply }).await
    }

    /// Ends one of the caller's media connections.
    pub async fn disconnect(&self, caller: &Caller, connection: ConnectionId) -> Result<(), Error> {
        self.ask(caller.room, |reply| Ask::Disconnect { caller: *caller, connection, reply }).await
    }

    /// Follows a session.
    pub async fn subscribe(&self, caller: &Caller) -> Result<Subscription, Error> {
        self.ask(caller.room, |reply| Ask::Subscribe { caller: *caller, reply }).await
    }

    /// Makes one API key of each scope if there are none at all, and returns them: to be shown this once.
    pub async fn ensure_keys(&self) -> Result<Vec<(Scope, Secret)>, Error> {
        let made: Result<Vec<_>, Fault> =
            Scope::ALL.into_iter().map(|scope| Ok((scope, new_api_key(scope)?))).collect();
        let made = made.map_err(Error::Unavailable)?;
        let now = self.shared.clock.now().wall;
        let kept: Vec<_> =
            made.iter().map(|(scope, key)| (KeyId::new(now), Hash::of_token(key.expose()), *scope)).collect();
        let first = self.shared.store.add_first_keys(&kept, now).await.map_err(unavailable)?;
        Ok(if first { made } else { Vec::new() })
    }

    /// Which API key this is, and what its holder may do. Asked of the database each time: a revoked key is refused at
    /// once.
    pub async fn key(&self, key: &str) -> Result<(KeyId, Scope), Error> {
        let known = self.shared.store.key(Hash::of_token(key)).await.map_err(unavailable)?;
        known.ok_or(Error::Unauthenticated)
    }

    /// Webhooks in the order in which they were written, a page at a time.
    pub async fn webhooks(
        &self,
        state: Option<MessageState>,
        after: Option<MessageId>,
        limit: u32,
    ) -> Result<WebhookPage, Error> {
        let store = &self.shared.store;
        let found = store.messages(MessageKind::Webhook, state, after, limit.saturating_add(1)).await;
        let mut webhooks: Vec<_> = found.map_err(unavailable)?.into_iter().map(WebhookView::from).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = webhooks.len() > limit;
        webhooks.truncate(limit);
        let next_cursor = webhooks.last().filter(|_| more).map(|last| last.id);
        Ok(WebhookPage { webhooks, next_cursor })
    }

    /// One webhook.
    pub async fn webhook(&self, id: MessageId) -> Result<WebhookView, Error> {
        let message = self.shared.store.message(id).await.map_err(unavailable)?;
        let webhook = message.filter(|message| message.kind == MessageKind::Webhook);
        webhook.map(WebhookView::from).ok_or(Error::UnknownWebhook)
    }

    /// Sends a webhook once more, whatever became of it.
    pub async fn replay_webhook(&self, id: MessageId) -> Result<WebhookView, Error> {
        let now = self.shared.clock.now().wall;
        let known = self.shared.store.replay_message(id, now, webhooks::tried_until(now)).await.map_err(unavailable)?;
        if !known {
            return Err(Error::UnknownWebhook);
        }
        self.shared.settings.posted.wake();
        self.webhook(id).await
    }

    /// Writes down what became of a text message that carries a code, unless another has taken its place since.
    pub async fn message_settled(&self, room: RoomId, id: MessageId) -> Result<(), Error> {
        self.ask(room, |reply| Ask::MessageSettled { id, reply }).await
    }

    /// Ends all media, finishes the originals and stops the rooms' actors. Unfinished rooms go on at the next start.
    pub async fn shutdown(&self) {
        self.shared.closing.store(true, Ordering::Release);
        // Whoever is making an actor at this moment is waited for.
        let actors: Vec<_> = {
            let _loading = self.shared.loading.lock().await;
            self.shared.rooms.iter().map(|entry| entry.value().clone()).collect()
        };
        // All at once: each waits for its recorder.
        let mut done = Vec::with_capacity(actors.len());
        for actor in actors {
            let (reply, answer) = oneshot::channel();
            if actor.send(Ask::Shutdown { reply }).await.is_ok() {
                done.push(answer);
            }
        }
        for answer in done {
            // An actor that is gone has nothing left to finish.
            let _ = answer.await;
        }
    }

    async fn link_owner(&self, join_token: &str) -> Result<store::Owner, Error> {
        let owner = self.shared.store.link_owner(Hash::of_token(join_token)).await.map_err(unavailable)?;
        owner.ok_or(Error::UnknownLink)
    }

    /// Asks a room's actor, which is made if the room has none.
    async fn ask<T>(&self, room: RoomId, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let mut ask = ask(reply);
        loop {
            let actor = self.shared.rooms.get(&room).map(|entry| entry.value().clone());
            let actor = match actor {
                Some(actor) if !actor.is_closed() => actor,
                _ => self.load(room).await?,
            };
            match actor.send(ask).await {
                Ok(()) => break,
                // It ended between the two lines; the next one takes the question.
                Err(mpsc::error::SendError(unasked)) => ask = unasked,
            }
        }
        answer.await.map_err(|_| Error::Unavailable(Fault::RoomGone))?
    }

    /// Makes an actor for a stored room.
    async fn load(&self, room: RoomId) -> Result<mpsc::Sender<Ask>, Error> {
        let _loading = self.shared.loading.lock().await;
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(Error::Unavailable(Fault::ShuttingDown));
        }
        let there = self.shared.rooms.get(&room).map(|entry| entry.value().clone());
        if let Some(actor) = there.filter(|actor| !actor.is_closed()) {
            return Ok(actor);
        }
        let store = &self.shared.store;
        let appointment = store.appointment(room).await.map_err(unavailable)?.ok_or(Error::UnknownRoom)?;
        let lines = store.ledger(room).await.map_err(unavailable)?;
        let entries = lines.iter().map(Line::entry).collect::<Vec<_>>();
        let head = lines.last().map_or_else(Head::empty, Line::head);
        let state = Room::replay(&Arc::new(appointment.profile.clone()), &entries)
            .map_err(|_| unavailable(store::Error::Corrupt("ledger")))?;
        let over = state.is_over();
        Ok(self.spawn(room, |inbox| {
            let actor = Actor::new(Arc::clone(&self.shared), inbox, state, head, appointment);
            if over { actor } else { actor.restarted() }
        }))
    }

    fn spawn(&self, room: RoomId, actor: impl FnOnce(mpsc::Receiver<Ask>) -> Actor<M, R>) -> mpsc::Sender<Ask> {
        let (sender, inbox) = mpsc::channel(WAITING_ASKS);
        self.shared.rooms.insert(room, sender.clone());
        tokio::spawn(actor(inbox).run());
        sender
    }
}

fn unavailable(error: store::Error) -> Error {
    tracing::error!(%error, "the database failed");
    Error::Unavailable(Fault::Store(error))
}

impl<M, R> Clone for Control<M, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M, R> fmt::Debug for Control<M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("rooms", &self.shared.rooms.len()).finish_non_exhaustive()
    }
}
