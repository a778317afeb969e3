//! A room's actor: the one task that decides, stores, and makes the media workers and the recorder follow.
//!
//! What the workers and the recorder report is stored before anything else is: if the database fails, media stops
//! and the report waits until it can be written.

mod admission;
mod papers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub(super) use self::papers::CheckedDocument;
use super::heads::{self, Heads};
use super::paper_views::{ChatMessageView, DayAppointment, DocumentView};
use super::seam::{Media, Recording};
use super::session_views::{Caller, Connection, Session, SessionEvent, SessionView, Welcome};
use super::stage::{Fact, Stage};
use super::subscription::{Subscriber, Subscription, SubscriptionEnd};
use super::view::{DocumentFile, View};
use super::views::{BookingParticipant, Invitation, ReissuedCode, RoomView};
use super::{Error, Expected, Fault, Shared, webhooks};
use crate::clock::{MonoTime, Now};
use crate::id::{ConnectionId, DocumentId, MessageId, ParticipantId};
use crate::media::RecordingFault;
use crate::recording::{self, Need, NoSpace};
use crate::room::ledger::{self, Head, Line};
use crate::room::{Command, Decision, Effect, Entry, Event, Recording as RecordingState, Refusal, Room};
use crate::sfu;
use crate::store::{self, Appointment, Change, ChatMessage, NamedDocument, NewMessage, Person, Record, Secret};

/// Open rooms look after their recordings at multiples of this time, milliseconds, as soon as something can have happened to
/// them: one wake-up serves all. Shorter costs CPU in every open room, longer is later noticed.
const LIVE_ROUND: u64 = 250;

/// How long a write may take while media flows. The shortest grace is a second: what happens in the room meanwhile is
/// not heard. Shorter stops media at a slow disk's ordinary pauses.
const STORE_WITHIN: Duration = Duration::from_secs(1);

/// How long a write is waited for at all; then its caller is told that it is not known to be done.
const STORE_GIVE_UP: Duration = Duration::from_secs(15);

/// Space is reserved for so long at least: a room may be opened at the end of its time. Longer refuses more such rooms
/// on a disk that is almost full; shorter lets more of them begin that may be stopped before they are over.
const SHORTEST_MEETING: Duration = Duration::from_mins(5);

/// How often a report that the database did not take is tried again.
const STORE_ROUND: Duration = Duration::from_secs(1);

/// Longest sleep: how late a room notices that the wall clock was set. Shorter wakes every booked room more often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// A wall clock that has gone this far from the monotonic one was set, milliseconds. Shorter takes a busy machine, which
/// reads one clock some time after the other, for it; longer leaves smaller jumps unexplained in the ledger.
const CLOCK_SET_MS: u64 = 1_000;

/// Subscriptions that one person may hold; the oldest makes room. A page has one, and for a moment two while it
/// reconnects; every one costs a view at each change.
const MOST_SUBSCRIPTIONS: usize = 4;

/// Least sleep before a deadline that has passed and that nothing followed from: keeps a mistake in the rules from
/// becoming a busy loop.
const LEAST_SLEEP: Duration = Duration::from_millis(5);

/// Where an answer goes. The asker may be gone, which changes nothing.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What an actor can be asked.
pub(super) enum Ask {
    Command {
        caller: Option<Caller>,
        command: Command,
        expected: Expected,
        reply: Reply<RoomView>,
    },
    TryCode {
        participant: ParticipantId,
        code: Secret,
        take_over: bool,
        reply: Reply<Session>,
    },
    ReissueCode {
        participant: ParticipantId,
        expected: Expected,
        reply: Reply<(ReissuedCode, u64)>,
    },
    Replace {
        participant: ParticipantId,
        by: BookingParticipant,
        expected: Expected,
        reply: Reply<(Invitation, u64)>,
    },
    MessageSettled {
        id: MessageId,
        reply: Reply<()>,
    },
    Room {
        reply: Reply<RoomView>,
    },
    Welcome {
        participant: ParticipantId,
        reply: Reply<Welcome>,
    },
    Session {
        caller: Caller,
        reply: Reply<SessionView>,
    },
    Connect {
        caller: Caller,
        offer: String,
        reply: Reply<Connection>,
    },
    RestartIce {
        caller: Caller,
        connection: ConnectionId,
        fragment: String,
        reply: Reply<Option<String>>,
    },
    Disconnect {
        caller: Caller,
        connection: ConnectionId,
        reply: Reply<()>,
    },
    Subscribe {
        caller: Caller,
        reply: Reply<Subscription>,
    },
    MayHandIn {
        caller: Caller,
        reply: Reply<()>,
    },
    HandIn {
        caller: Caller,
        document: CheckedDocument,
        reply: Reply<(DocumentView, bool)>,
    },
    DeleteDocument {
        caller: Caller,
        document: DocumentId,
        reply: Reply<Option<String>>,
    },
    Keeps {
        sha256: String,
        reply: Reply<bool>,
    },
    Document {
        caller: Option<Caller>,
        document: DocumentId,
        reply: Reply<DocumentFile>,
    },
    Documents {
        reply: Reply<Vec<DocumentView>>,
    },
    Register {
        caller: Option<Caller>,
        document: DocumentId,
        subject: Option<String>,
        expected: Expected,
        reply: Reply<(DocumentView, u64)>,
    },
    Registered {
        document: DocumentId,
        entry: Option<(i16, u64)>,
        reply: Reply<()>,
    },
    ReadChat {
        caller: Caller,
        messages: Vec<ChatMessage>,
        reply: Reply<Vec<ChatMessageView>>,
    },
    Write {
        caller: Caller,
        text: String,
        reply: Reply<ChatMessageView>,
    },
    TakeSeat {
        reply: Reply<Session>,
    },
    Day {
        reply: Reply<DayAppointment>,
    },
    Shutdown {
        reply: Reply<()>,
    },
}

/// What is stored with a command's events, if the rules accept it.
#[derive(Default)]
struct Consequences {
    changes: Vec<Change>,
    messages: Vec<NewMessage>,
}

pub(super) struct Actor<M, R> {
    shared: Arc<Shared<M, R>>,
    inbox: mpsc::Receiver<Ask>,
    room: Room,
    /// Where the room's ledger stands.
    head: Head,
    appointment: Appointment,
    stage: Stage<M, R>,
    subscribers: Vec<Subscriber>,
    /// Reports that are not in the ledger yet. Nothing is decided before they are.
    backlog: VecDeque<Command>,
    /// Media was stopped because the database did not take a report.
    held_back: bool,
    /// Who typed wrong codes that the database did not take. No code is compared before it has.
    uncounted: Vec<ParticipantId>,
    /// How far its originals are on disk.
    heads: Heads,
    /// How far the wall clock was ahead of the monotonic one when it was looked at first, or was set last; milliseconds.
    wall_ahead: Option<i64>,
}

impl<M: Media, R: Recording> Actor<M, R> {
    pub(super) fn new(
        shared: Arc<Shared<M, R>>,
        inbox: mpsc::Receiver<Ask>,
        room: Room,
        head: Head,
        appointment: Appointment,
    ) -> Self {
        let stage = Stage::new(room.id(), Arc::clone(&shared));
        Self {
            shared,
            inbox,
            room,
            head,
            appointment,
            stage,
            subscribers: Vec::new(),
            backlog: VecDeque::new(),
            held_back: false,
            uncounted: Vec::new(),
            heads: Heads::default(),
            wall_ahead: None,
        }
    }

    /// Takes the room up again after a restart: the connections and the monotonic clock of the earlier run are gone.
    pub(super) fn restarted(mut self) -> Self {
        self.backlog.push_back(Command::Restarted);
        self
    }

    /// Runs the room until nothing can happen in it any more, or the node shuts down.
    pub(super) async fn run(mut self) {
        loop {
            // What follows a failure here has been done: media is stopped, and it is tried again at the next round.
            let _ = self.store_backlog().await;
            // At every turn, not only when the sleep is over: a busy room must not put its deadlines off.
            self.keep_time().await;
            if self.may_rest() && self.rest().await {
                return;
            }
            let wake = tokio::time::sleep(self.sleep());
            tokio::select! {
                biased;
                // While the database is down, the worker's reports wait with the worker, which stops when they are too many.
                fact = self.stage.next_fact(self.backlog.is_empty()) => match fact {
                    Fact::Recorder(fact) => self.on_recorder(fact).await,
                    Fact::Worker(fact) => self.on_worker(fact).await,
                },
                ask = self.inbox.recv() => match ask {
                    Some(Ask::Shutdown { reply }) => {
                        self.shut_down().await;
                        // The asker waits for exactly this; if it gave up, nobody does.
                        let _ = reply.send(Ok(()));
                        return;
                    }
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                () = wake => {}
            }
        }
    }

    async fn answer(&mut self, ask: Ask) {
        // Whoever asked may have gone: the answer is then for nobody.
        match ask {
            Ask::Command { caller, command, expected, reply } => {
                let checked = caller.map_or(Ok(()), |caller| self.check(&caller));
                let _ = reply.send(match checked {
                    Ok(()) => self.command(command, expected).await,
                    Err(error) => Err(error),
                });
            }
            Ask::TryCode { participant, code, take_over, reply } => {
                let _ = reply.send(self.try_code(participant, &code, take_over).await);
            }
            Ask::ReissueCode { participant, expected, reply } => {
                let _ = reply.send(self.reissue_code(participant, expected).await);
            }
            Ask::Replace { participant, by, expected, reply } => {
                let _ = reply.send(self.replace(participant, by, expected).await);
            }
            Ask::MessageSettled { id, reply } => {
                let _ = reply.send(self.message_settled(id).await);
            }
            Ask::Room { reply } => {
                let _ = reply.send(Ok(self.view().room()));
            }
            Ask::Welcome { participant, reply } => {
                let _ = reply.send(self.view().welcome(participant));
            }
            Ask::Session { caller, reply } => {
                let _ = reply.send(self.check(&caller).and_then(|()| self.session_view(caller.participant)));
            }
            Ask::Connect { caller, offer, reply } => {
                let _ = reply.send(self.connect(&caller, offer).await);
            }
            Ask::RestartIce { caller, connection, fragment, reply } => {
                let _ = reply.send(self.restart_ice(&caller, connection, fragment).await);
            }
            Ask::Disconnect { caller, connection, reply } => {
                let _ = reply.send(self.disconnect(&caller, connection).await);
            }
            Ask::Subscribe { caller, reply } => {
                let _ = reply.send(self.subscribe(&caller));
            }
            Ask::MayHandIn { caller, reply } => {
                let _ = reply.send(self.may_hand_in(&caller));
            }
            Ask::HandIn { caller, document, reply } => {
                let _ = reply.send(self.hand_in(&caller, document).await);
            }
            Ask::DeleteDocument { caller, document, reply } => {
                let _ = reply.send(self.delete_document(&caller, document).await);
            }
            Ask::Keeps { sha256, reply } => {
                let _ = reply.send(Ok(self.keeps(&sha256)));
            }
            Ask::Document { caller, document, reply } => {
                let _ = reply.send(self.document(caller.as_ref(), document));
            }
            Ask::Documents { reply } => {
                let _ = reply.send(Ok(self.view().documents()));
            }
            Ask::Register { caller, document, subject, expected, reply } => {
                let _ = reply.send(self.ask_registration(caller.as_ref(), document, subject, expected).await);
            }
            Ask::Registered { document, entry, reply } => {
                let _ = reply.send(self.registered(document, entry).await);
            }
            Ask::ReadChat { caller, messages, reply } => {
                let _ = reply.send(self.read_chat(&caller, messages));
            }
            Ask::Write { caller, text, reply } => {
                let _ = reply.send(self.write(&caller, text).await);
            }
            Ask::TakeSeat { reply } => {
                let _ = reply.send(self.take_seat().await);
            }
            Ask::Day { reply } => {
                let _ = reply.send(Ok(self.view().day()));
            }
            Ask::Shutdown { reply } => {
                let _ = reply.send(Ok(()));
            }
        }
    }

    // ── decide, store, announce ──────────────────────────────────────────────────────────────────────────────────

    /// Carries out a command of someone who may have looked at the room before.
    async fn command(&mut self, command: Command, expected: Expected) -> Result<RoomView, Error> {
        self.store_backlog().await?;
        self.expect(expected)?;
        if self.opens(&command) {
            return self.open_room(command).await;
        }
        self.decide(command, Consequences::default()).await?;
        Ok(self.view().room())
    }

    /// Whether this command opens the room.
    fn opens(&self, command: &Command) -> bool {
        matches!(command, Command::Open) && self.room.handle(self.now(), Command::Open).events.contains(&Event::Opened)
    }

    /// Opens the room, if a worker can bear it and there is space for its recording.
    async fn open_room(&mut self, command: Command) -> Result<RoomView, Error> {
        if !self.room.is_open() && self.shared.media.is_full() {
            tracing::warn!(room = %self.room.id(), "a room was not opened: every media worker is busy");
            return Err(Error::Full);
        }
        let (recorder, room) = (self.shared.recorder.clone(), self.room.id());
        let opened = match recorder.reserve(room, self.need()).await {
            Ok(()) => self.decide(command, Consequences::default()).await,
            Err(NoSpace) => Err(Error::NoSpace),
        };
        if !self.room.is_open() {
            recorder.release(room);
        }
        opened?;
        Ok(self.view().room())
    }

    /// What the rest of the appointment needs.
    fn need(&self) -> Need {
        let left = Duration::try_from(self.room.end().duration_since(self.now().wall)).unwrap_or_default();
        let people = u32::try_from(self.appointment.people.len()).unwrap_or(u32::MAX);
        Need { people, lasts: left.max(SHORTEST_MEETING) }
    }

    /// Carries out a command that someone waits for.
    async fn decide(&mut self, command: Command, consequences: Consequences) -> Result<(), Error> {
        self.store_backlog().await?;
        let done = self.commit(command, consequences).await;
        // If media was stopped for what could then not be stored, it goes on as before.
        self.held_back |= matches!(done, Err(Error::Unavailable(_)));
        done
    }

    /// Whether the room is still as the caller saw it.
    fn expect(&self, expected: Expected) -> Result<(), Error> {
        match expected {
            Some(revisions) if !revisions.contains(&self.head.seq) => Err(Error::Changed),
            _ => Ok(()),
        }
    }

    /// Takes in what the workers or the recorder report, or time brought.
    async fn report(&mut self, command: Command) {
        self.backlog.push_back(command);
        // On failure media is stopped and the report stays.
        let _ = self.store_backlog().await;
    }

    /// Stores the reports that wait, in order.
    async fn store_backlog(&mut self) -> Result<(), Error> {
        while let Some(command) = self.backlog.pop_front() {
            match self.commit(command.clone(), Consequences::default()).await {
                Ok(()) => {}
                Err(Error::Refused(refusal)) => {
                    tracing::debug!(room = %self.room.id(), %refusal, "a report changed nothing");
                }
                Err(error) => {
                    self.backlog.push_front(command);
                    self.held_back = true;
                    self.stage.set_flow(false).await;
                    return Err(error);
                }
            }
        }
        if std::mem::take(&mut self.held_back) {
            self.stage.set_flow(self.room.flow()).await;
        }
        Ok(())
    }

    /// Decides, stores, carries out, announces.
    async fn commit(&mut self, command: Command, consequences: Consequences) -> Result<(), Error> {
        let now = self.now();
        let Decision { events, effects, refusal } = self.room.handle(now, command);
        // Stopping never waits for a disk.
        if effects.iter().any(|effect| matches!(effect, Effect::StopFlow | Effect::CloseMedia)) {
            self.stage.set_flow(false).await;
        }
        let Consequences { mut changes, messages } =
            if refusal.is_none() { consequences } else { Consequences::default() };
        changes.extend(effects.iter().filter_map(|effect| match effect {
            Effect::EndSession(participant) => Some(Change::SessionEnded { participant: *participant }),
            _ => None,
        }));
        changes.extend(events.iter().filter_map(|event| match event {
            Event::Rescheduled { start, end } => Some(Change::Times { start: *start, end: *end }),
            _ => None,
        }));
        let opened = events.contains(&Event::Opened);
        let entries: Vec<Entry> = events.into_iter().map(|event| Entry::at(now, event)).collect();
        let changed = !entries.is_empty() || !changes.is_empty();
        if changed {
            self.store(now, &entries, &changes, messages).await?;
        }
        if opened && let Err(error) = self.stage.open(self.need()).await {
            // It is tried again when somebody connects, and they are told.
            tracing::warn!(room = %self.room.id(), %error, "the room is open and has no media yet");
        }
        let ended = self.carry_out(effects).await;
        if changed {
            self.announce();
        }
        for participant in ended {
            self.end_subscriptions(participant);
        }
        refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// Stores entries with what belongs to them, and only then takes them in.
    async fn store(
        &mut self,
        now: Now,
        entries: &[Entry],
        changes: &[Change],
        mut messages: Vec<NewMessage>,
    ) -> Result<(), Error> {
        let mut after = self.room.clone();
        for entry in entries {
            after.apply(entry);
        }
        let mut head = self.head.clone();
        let lines: Vec<_> = entries
            .iter()
            .map(|entry| {
                let line = ledger::chain(&head, entry);
                head = line.head();
                line
            })
            .collect();
        let shared = Arc::clone(&self.shared);
        if shared.settings.webhooks {
            messages.extend(webhooks::of_lines(now, &self.room, &self.appointment, &lines));
        }
        let fits = shared.places(&self.appointment, changes);
        let record = Record {
            room: self.room.id(),
            lines: &lines,
            phase: after.phase(),
            outcome: after.outcome(),
            changes,
            messages: &messages,
            fits: fits.as_ref().map(|fits| fits as store::Fits<'_>),
            at: now.wall,
        };
        let recorded = self.recorded(shared.store.record(&record)).await;
        drop(fits);
        match recorded {
            Ok(()) => {}
            Err(Fault::Store(store::Error::Full)) => return Err(shared.no_place(&self.appointment, changes).await),
            Err(fault) => {
                tracing::error!(room = %self.room.id(), %fault, "the database did not take a room's entries");
                if matches!(fault, Fault::Store(store::Error::Outrun)) {
                    self.catch_up().await;
                }
                return Err(Error::Unavailable(fault));
            }
        }
        if !messages.is_empty() {
            self.shared.settings.posted.wake();
        }
        self.room = after;
        self.head = head;
        for change in changes {
            match change {
                Change::Times { start, end } => (self.appointment.start, self.appointment.end) = (*start, *end),
                Change::Code { participant, code } => self.change_person(*participant, |person| person.code = *code),
                Change::SessionStarted { participant, token } => {
                    self.change_person(*participant, |person| person.session = Some(*token));
                }
                Change::SessionEnded { participant } => {
                    self.change_person(*participant, |person| person.session = None);
                }
                Change::DocumentNamed { document, name } => {
                    self.appointment.documents.push(NamedDocument { id: *document, name: name.clone() });
                }
                Change::Written(_) | Change::RegistrationAsked(_) => {}
                Change::Replaced { participant, by } => {
                    self.change_person(*participant, |person| *person = Person::clone(by));
                }
            }
        }
        Ok(())
    }

    /// Waits for a write. Nothing is heard of the media meanwhile, so it stops when that takes long.
    async fn recorded(&mut self, write: impl Future<Output = Result<(), store::Error>>) -> Result<(), Fault> {
        tokio::pin!(write);
        if let Ok(written) = tokio::time::timeout(STORE_WITHIN, &mut write).await {
            return written.map_err(Fault::Store);
        }
        self.held_back = true;
        self.stage.set_flow(false).await;
        match tokio::time::timeout(STORE_GIVE_UP, write).await {
            Ok(written) => written.map_err(Fault::Store),
            Err(_) => Err(Fault::StoreSilent),
        }
    }

    /// Takes in what the database has and this actor does not know of: a write whose acknowledgement was lost.
    async fn catch_up(&mut self) {
        let id = self.room.id();
        let store = &self.shared.store;
        let (Ok(lines), Ok(Some(appointment))) = (store.ledger(id).await, store.appointment(id).await) else { return };
        let known = usize::try_from(self.head.seq).ok().and_then(|seq| lines.get(seq.checked_sub(1)?));
        if known.is_none_or(|line| line.hash != self.head.hash) {
            tracing::error!(room = %id, "the stored ledger is not the one that this room had");
            return;
        }
        let entries: Vec<_> = lines.iter().map(Line::entry).collect();
        let (Some(last), Ok(room)) = (lines.last(), Room::replay(&Arc::new(appointment.profile.clone()), &entries))
        else {
            return;
        };
        tracing::warn!(room = %id, "a room took in what it had written without knowing");
        (self.head, self.room, self.appointment) = (last.head(), room, appointment);
        self.held_back = true;
        if !self.room.is_open() {
            let gone = self.stage.close().await;
            self.backlog.extend(gone);
        }
        self.announce();
    }

    /// Makes the world follow; returns whose session is over.
    async fn carry_out(&mut self, effects: Vec<Effect>) -> Vec<ParticipantId> {
        let mut ended = Vec::new();
        for effect in effects {
            match effect {
                Effect::StartFlow => self.stage.set_flow(!self.held_back).await,
                Effect::StopFlow => self.stage.set_flow(false).await,
                Effect::Disconnect(participant) => self.stage.disconnect_person(participant).await,
                Effect::EndSession(participant) => ended.push(participant),
                Effect::CloseMedia => {
                    let gone = self.stage.close().await;
                    self.backlog.extend(gone);
                }
            }
        }
        ended
    }

    // ── what is reported ─────────────────────────────────────────────────────────────────────────────────────────

    async fn on_worker(&mut self, fact: Option<sfu::Fact>) {
        let Some(fact) = fact else {
            tracing::error!(room = %self.room.id(), "the room's media worker is gone");
            let gone = self.stage.close().await;
            self.backlog.extend(gone);
            return;
        };
        match fact {
            sfu::Fact::Connected { connection } => {
                if let Some(participant) = self.stage.owner(connection) {
                    self.report(Command::Connected { participant, connection }).await;
                }
            }
            sfu::Fact::Disconnected { connection, last_seen } => {
                self.stage.forget(connection);
                self.report(Command::Disconnected { connection, last_seen }).await;
            }
            sfu::Fact::SourceChanged { connection, source, active, since } => {
                self.report(Command::SourceChanged { connection, source, active, since }).await;
            }
            sfu::Fact::Slots { connection, slots } => {
                if let Some((participant, event)) = self.stage.take_slots(connection, slots) {
                    self.tell(participant, &event);
                }
            }
            sfu::Fact::TapFailed { error } => {
                // It may be news of a tap that another has taken the place of.
                if !self.stage.tap_is_lost() {
                    return;
                }
                tracing::error!(room = %self.room.id(), %error, "the room's tap failed");
                // The recorder may know the cause better, and have said so at the same moment.
                while let Some(fact) = self.stage.waiting_recorder_fact() {
                    self.on_recorder(Some(fact)).await;
                }
                self.lose_recording(RecordingFault::Overflow, false).await;
            }
        }
    }

    async fn on_recorder(&mut self, fact: Option<recording::Fact>) {
        match fact {
            Some(recording::Fact::Ready) => {
                if self.stage.begin().await || matches!(self.room.recording(), RecordingState::Lost(_)) {
                    self.report(Command::RecordingResumed).await;
                }
            }
            Some(recording::Fact::Started { connection, source }) => {
                let Some(participant) = self.stage.owner(connection) else { return };
                self.report(Command::RecordingStarted { participant, connection }).await;
                // Only what the ledger knows to be recorded may be forwarded.
                if self.backlog.is_empty() {
                    self.stage.recording_started(connection, source).await;
                } else {
                    self.stage.owe_recording_started(connection, source);
                }
            }
            Some(recording::Fact::KeyframeWanted { connection, source }) => {
                self.stage.ask_for_keyframe(connection, source).await;
            }
            Some(recording::Fact::PictureMissing { connection, source, since }) => {
                self.report(Command::PictureMissing { connection, source, since }).await;
            }
            Some(recording::Fact::PictureBack { connection, source }) => {
                self.report(Command::PictureBack { connection, source }).await;
            }
            Some(recording::Fact::Head { original, .. }) => self.heads.take(original),
            Some(recording::Fact::Lost { fault }) => self.lose_recording(fault, true).await,
            Some(
                recording::Fact::Finished { connection, original } | recording::Fact::GivenUp { connection, original },
            ) => {
                self.stage.keep_original(connection, original).await;
            }
            Some(recording::Fact::Closed) | None => {
                tracing::error!(room = %self.room.id(), "the recorder gave the room up");
                self.lose_recording(RecordingFault::WriteFailed, true).await;
            }
        }
    }

    /// Fails closed: media stops first, then it is written down why.
    async fn lose_recording(&mut self, fault: RecordingFault, answered: bool) {
        if self.stage.give_up(answered).await {
            tracing::error!(room = %self.room.id(), ?fault, "the room is not recorded any more");
            self.report(Command::RecordingLost { reason: fault }).await;
        }
    }

    /// Has the heads of the originals leave this node. What does not leave now, leaves with the next ones.
    async fn publish_heads(&mut self, now: Now) {
        let Some(heads) = self.heads.publish(now, self.room.id(), &self.head) else { return };
        let shared = Arc::clone(&self.shared);
        let Some(message) = heads::webhook(now, &heads, &shared.settings.signing) else { return };
        if !shared.settings.webhooks {
            // The log is what leaves this node then.
            tracing::info!(room = %self.room.id(), heads = %message.jws, "how far the recordings are on disk, signed");
            return;
        }
        match tokio::time::timeout(STORE_WITHIN, shared.store.post(&[message.into()], now.wall)).await {
            Ok(Ok(())) => shared.settings.posted.wake(),
            Ok(Err(error)) => tracing::warn!(room = %self.room.id(), %error, "heads of recordings were not published"),
            Err(_) => tracing::warn!(room = %self.room.id(), "heads of recordings were not published in time"),
        }
    }

    async fn keep_time(&mut self) {
        if self.stage.is_silent(self.shared.clock.mono(), self.shared.settings.longest_silence) {
            self.lose_recording(RecordingFault::Stalled, false).await;
        }
        self.stage.ask_again();
        let (now, deadline) = (self.now(), self.room.deadline());
        if let Some(every) = self.shared.settings.publish_heads
            && self.heads.is_due(now.mono, every)
        {
            self.publish_heads(now).await;
        }
        if let Some(by_ms) = self.wall_clock_set(now) {
            self.report(Command::WallClockSet { by_ms }).await;
        }
        let due = deadline.mono.is_some_and(|at| at <= now.mono) || deadline.wall.is_some_and(|at| at <= now.wall);
        if due && self.backlog.is_empty() {
            self.report(Command::Tick).await;
        }
        self.subscribers.retain(|subscriber| !subscriber.is_gone());
        self.stage.reap();
    }

    /// By how much the wall clock was set since it was looked at last.
    fn wall_clock_set(&mut self, now: Now) -> Option<i64> {
        let ahead = now.wall.as_millisecond().saturating_sub_unsigned(now.mono.as_millis());
        let by_ms = ahead - *self.wall_ahead.get_or_insert(ahead);
        if by_ms.unsigned_abs() < CLOCK_SET_MS {
            return None;
        }
        self.wall_ahead = Some(ahead);
        Some(by_ms)
    }

    fn sleep(&self) -> Duration {
        let (now, deadline) = (self.now(), self.room.deadline());
        // A millisecond more: the rules see whole milliseconds.
        let mono = deadline.mono.map(|at| at.since(now.mono) + Duration::from_millis(1));
        let wall = deadline
            .wall
            .map(|at| Duration::try_from(at.duration_since(now.wall)).unwrap_or_default() + Duration::from_millis(1));
        let live = self.stage.look_at(self.shared.settings.longest_silence).map(|at| {
            let round = at.max(now.mono).as_millis() / LIVE_ROUND + 1;
            MonoTime::from_millis(round * LIVE_ROUND).since(now.mono)
        });
        let store = (!self.backlog.is_empty()).then_some(STORE_ROUND);
        let over = self.room.is_over().then_some(STORE_ROUND);
        let soonest = [mono, wall, live, store, over].into_iter().flatten().min();
        soonest.map_or(LONGEST_SLEEP, |sleep| sleep.clamp(LEAST_SLEEP, LONGEST_SLEEP))
    }

    // ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn subscribe(&mut self, caller: &Caller) -> Result<Subscription, Error> {
        self.check(caller)?;
        let (mut subscriber, subscription) = Subscriber::new(caller.participant);
        let view = SessionEvent::Session { session: Box::new(self.session_view(caller.participant)?) };
        let slots = self.stage.slots_of(caller.participant);
        if std::iter::once(view).chain(slots).all(|event| subscriber.tell(event)) {
            let held = self.subscribers.iter().filter(|held| held.participant == caller.participant).count();
            if held >= MOST_SUBSCRIPTIONS
                && let Some(oldest) = self.subscribers.iter().position(|held| held.participant == caller.participant)
            {
                self.subscribers.remove(oldest).close(SubscriptionEnd::TooSlow);
            }
            self.subscribers.push(subscriber);
        }
        Ok(subscription)
    }

    /// Tells everyone how the room is now.
    fn announce(&mut self) {
        let mut subscribers = std::mem::take(&mut self.subscribers);
        subscribers.retain_mut(|subscriber| {
            let Ok(view) = self.session_view(subscriber.participant) else {
                // Another person stands in their place.
                subscriber.close(SubscriptionEnd::SessionEnded);
                return false;
            };
            subscriber.tell(SessionEvent::Session { session: Box::new(view) })
        });
        self.subscribers = subscribers;
    }

    fn tell(&mut self, participant: ParticipantId, event: &SessionEvent) {
        self.subscribers
            .retain_mut(|subscriber| subscriber.participant != participant || subscriber.tell(event.clone()));
    }

    fn end_subscriptions(&mut self, participant: ParticipantId) {
        self.subscribers.retain(|subscriber| {
            let over = subscriber.participant == participant;
            if over {
                subscriber.close(SubscriptionEnd::SessionEnded);
            }
            !over
        });
    }

    // ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn may_rest(&self) -> bool {
        self.room.is_over() && self.backlog.is_empty() && self.subscribers.is_empty() && self.stage.is_dark()
    }

    /// Ends the actor of a room in which nothing can happen any more, unless someone is about to ask it something.
    async fn rest(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let _loading = shared.loading.lock().await;
        if !self.inbox.is_empty() {
            return false;
        }
        self.inbox.close();
        while let Some(ask) = self.inbox.recv().await {
            self.answer(ask).await;
        }
        for subscriber in &self.subscribers {
            subscriber.close(SubscriptionEnd::ShuttingDown);
        }
        shared.rooms.remove(&self.room.id());
        true
    }

    async fn shut_down(&mut self) {
        let gone = self.stage.close().await;
        self.backlog.extend(gone);
        if let Err(error) = self.store_backlog().await {
            tracing::error!(room = %self.room.id(), %error, "a room's last entries are lost");
        }
        self.stage.finish().await;
        for subscriber in &self.subscribers {
            subscriber.close(SubscriptionEnd::ShuttingDown);
        }
        self.shared.rooms.remove(&self.room.id());
    }

    // ── small things ─────────────────────────────────────────────────────────────────────────────────────────────

    fn now(&self) -> Now {
        self.shared.clock.now()
    }

    /// Whether this is still the person's session: it may have ended since the token was looked up.
    fn check(&self, caller: &Caller) -> Result<(), Error> {
        let person = self.person(caller.participant).map_err(|_| Error::Unauthenticated)?;
        if person.session == Some(caller.session) { Ok(()) } else { Err(Error::Unauthenticated) }
    }

    fn person(&self, participant: ParticipantId) -> Result<&Person, Error> {
        let known = self.appointment.people.iter().find(|person| person.id == participant);
        known.ok_or(Error::Refused(Refusal::UnknownParticipant))
    }

    fn change_person(&mut self, participant: ParticipantId, change: impl FnOnce(&mut Person)) {
        if let Some(person) = self.appointment.people.iter_mut().find(|person| person.id == participant) {
            change(person);
        }
    }

    fn view(&self) -> View<'_> {
        let now = self.now();
        let durable_until =
            self.stage.durable_until().and_then(|until| now.wall.checked_sub(now.mono.since(until)).ok());
        View {
            room: &self.room,
            appointment: &self.appointment,
            revision: self.head.seq,
            sends_codes: self.shared.settings.sms.is_some(),
            consent_text_version: &self.shared.settings.consent_text_version,
            // Not what the rules want but what is so: nothing flows while a report waits for the database.
            held_back: self.held_back,
            durable_until,
            reflectors: self.shared.media.reflectors(),
            now,
        }
    }

    fn session_view(&self, participant: ParticipantId) -> Result<SessionView, Error> {
        self.view().session(participant)
    }
}
