//! A room's media as its actor holds it: the worker's room, the recorder's room and who is connected.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::recording_key::recording_key;
use super::seam::{Media, Recording};
use super::views::{SessionEvent, SlotView};
use super::{Error, Fault, Shared};
use crate::clock::MonoTime;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;
use crate::recording::{self, Original};
use crate::room::{Command, Role};
use crate::rtp::{Durability, tap};
use crate::sfu::{self, ConnectError, Join, Slot};
use crate::store::StoredOriginal;
use crate::vault::SessionKey;

/// Reports of a worker that wait for the actor. When they are more, they wait at the worker.
const WORKER_FACTS: usize = 256;

/// Reports of the recorder that wait for the actor: a few per connection.
const RECORDER_FACTS: usize = 256;

/// How long a worker may take to answer. It takes milliseconds; a client gives up at about ten seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long the recorder may take to finish a room's originals: the last second of media and one sync.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Stage<M, R> {
    room: RoomId,
    shared: Arc<Shared<M, R>>,
    lights: Option<Lights>,
    /// Everyone who ever connected in this run: the recorder speaks of connections that are gone.
    owners: HashMap<ConnectionId, ParticipantId>,
    /// Rooms of the recorder that are being finished.
    finishing: JoinSet<()>,
    /// What the room is recorded under, once it was asked for; `Some(None)`: it is not encrypted.
    key: Option<Option<Arc<SessionKey>>>,
}

/// What there is while a room has media.
struct Lights {
    worker: mpsc::Receiver<sfu::Fact>,
    recorder: mpsc::Receiver<recording::Fact>,
    durability: Durability,
    flow: bool,
    /// The recording is lost: nothing flows on this stage any more.
    broken: bool,
    /// The connections that stand or are being made, with what their slots show.
    connections: HashMap<ConnectionId, Vec<SlotView>>,
    /// Originals that began while the ledger could not take it.
    owed: Vec<(ConnectionId, Source)>,
}

/// A report from below; `None`: who reports is gone.
pub(super) enum Fact {
    Recorder(Option<recording::Fact>),
    Worker(Option<sfu::Fact>),
}

impl<M: Media, R: Recording> Stage<M, R> {
    pub(super) fn new(room: RoomId, shared: Arc<Shared<M, R>>) -> Self {
        Self { room, shared, lights: None, owners: HashMap::new(), finishing: JoinSet::new(), key: None }
    }

    /// The next report; waits for ever while there is no media. The recorder's come first: media stops by them.
    ///
    /// Without `worker`, the worker's reports stay where they are. Safe to cancel.
    pub(super) async fn next_fact(&mut self, worker: bool) -> Fact {
        let Some(lights) = &mut self.lights else { return pending().await };
        // That a recorder is gone is said once.
        let ended = lights.broken && lights.recorder.is_closed() && lights.recorder.is_empty();
        tokio::select! {
            biased;
            fact = lights.recorder.recv(), if !ended => Fact::Recorder(fact),
            fact = lights.worker.recv(), if worker => Fact::Worker(fact),
            else => pending().await,
        }
    }

    pub(super) fn waiting_recorder_fact(&mut self) -> Option<recording::Fact> {
        self.lights.as_mut().and_then(|lights| lights.recorder.try_recv().ok())
    }

    /// Makes sure that there is media, for a connection of `participant` to come. Returns what is to be reported.
    ///
    /// A stage whose recording is lost is made anew only when nobody else stands on it: people who are connected
    /// would be thrown out, and come back, and throw others out.
    pub(super) async fn open_for(&mut self, participant: ParticipantId) -> Result<Vec<Command>, Error> {
        let mut gone = Vec::new();
        if let Some(lights) = &self.lights {
            let others = lights.connections.keys().any(|connection| self.owner(*connection) != Some(participant));
            if !lights.broken || others {
                return Ok(gone);
            }
            gone = self.close().await;
        }
        self.open().await?;
        Ok(gone)
    }

    /// Opens the worker's and the recorder's room, with a new tap between them, unless there are.
    pub(super) async fn open(&mut self) -> Result<(), Error> {
        if self.lights.is_some() {
            return Ok(());
        }
        let key = self.recording_key().await?;
        let (tap, reader) = tap();
        let durability = tap.durability();
        let (worker_sender, worker) = mpsc::channel(WORKER_FACTS);
        let (recorder_sender, recorder) = mpsc::channel(RECORDER_FACTS);
        // Whatever an earlier actor left behind ends here.
        self.shared.media.close_room(self.room).await;
        self.shared.recorder.open_room(self.room, key, reader, recorder_sender);
        if let Err(error) = answered(self.shared.media.open_room(self.room, tap, worker_sender)).await {
            self.shared.recorder.close_room(self.room);
            tracing::error!(room = %self.room, %error, "the room has no media worker");
            return Err(Error::Unavailable(Fault::Media(error)));
        }
        self.lights = Some(Lights {
            worker,
            recorder,
            durability,
            flow: false,
            broken: false,
            connections: HashMap::new(),
            owed: Vec::new(),
        });
        Ok(())
    }

    /// The key that the room is recorded under; `None`: it is not encrypted.
    async fn recording_key(&mut self) -> Result<Option<Arc<SessionKey>>, Error> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        let key = recording_key(&self.shared, self.room).await?;
        self.key = Some(key.clone());
        Ok(key)
    }

    /// Answers an offer; the recorder hears of the connection before its first packet can come.
    pub(super) async fn connect(
        &mut self,
        connection: ConnectionId,
        participant: ParticipantId,
        role: Role,
        offer: String,
    ) -> Result<String, Error> {
        let Some(lights) = &mut self.lights else {
            return Err(Error::Unavailable(Fault::Media(ConnectError::Unknown)));
        };
        self.shared.recorder.open_original(self.room, connection, label(role).to_owned());
        self.owners.insert(connection, participant);
        lights.connections.insert(connection, Vec::new());
        let join = Join { connection, participant, offer };
        answered(self.shared.media.connect(self.room, join)).await.map_err(|error| {
            self.forget(connection);
            self.owners.remove(&connection);
            self.shared.recorder.drop_original(self.room, connection);
            match error {
                // It was this room that the worker did not know: not the caller's doing.
                ConnectError::Unknown => Error::Unavailable(Fault::Media(error)),
                _ => self.blame(error),
            }
        })
    }

    pub(super) async fn restart_ice(
        &self,
        connection: ConnectionId,
        fragment: String,
    ) -> Result<Option<String>, Error> {
        let restarted = answered(self.shared.media.restart_ice(self.room, connection, fragment)).await;
        restarted.map_err(|error| self.blame(error))
    }

    pub(super) async fn disconnect(&self, connection: ConnectionId) {
        self.shared.media.disconnect(self.room, connection).await;
    }

    pub(super) async fn disconnect_person(&self, participant: ParticipantId) {
        let Some(lights) = &self.lights else { return };
        for connection in lights.connections.keys() {
            if self.owner(*connection) == Some(participant) {
                self.disconnect(*connection).await;
            }
        }
    }

    /// Lets media flow, or stops it. Nothing flows on a stage whose recording is lost.
    pub(super) async fn set_flow(&mut self, flow: bool) {
        let Some(lights) = &mut self.lights else { return };
        lights.flow = flow && !lights.broken;
        let flow = lights.flow;
        if flow {
            for (connection, source) in std::mem::take(&mut lights.owed) {
                self.shared.media.recording_started(self.room, connection, source).await;
            }
        }
        self.shared.media.set_flow(self.room, flow).await;
    }

    pub(super) async fn recording_started(&self, connection: ConnectionId, source: Source) {
        self.shared.media.recording_started(self.room, connection, source).await;
    }

    /// The worker is told when media may flow again.
    pub(super) fn owe_recording_started(&mut self, connection: ConnectionId, source: Source) {
        if let Some(lights) = &mut self.lights {
            lights.owed.push((connection, source));
        }
    }

    /// Notes that the recording is lost; `false`: it was before, or there is none.
    pub(super) fn mark_broken(&mut self) -> bool {
        self.lights.as_mut().is_some_and(|lights| !std::mem::replace(&mut lights.broken, true))
    }

    /// Ends all media and has the originals finished. Returns what is to be reported of the connections.
    pub(super) async fn close(&mut self) -> Vec<Command> {
        let Some(mut lights) = self.lights.take() else { return Vec::new() };
        self.shared.media.set_flow(self.room, false).await;
        self.shared.media.close_room(self.room).await;
        self.shared.recorder.close_room(self.room);
        let (shared, room, owners) = (Arc::clone(&self.shared), self.room, self.owners.clone());
        self.finishing.spawn(async move {
            let collected = async {
                while let Some(fact) = lights.recorder.recv().await {
                    match fact {
                        recording::Fact::Finished { connection, original } => {
                            keep_original(&shared, room, owners.get(&connection).copied(), connection, original).await;
                        }
                        recording::Fact::Closed => return,
                        recording::Fact::Started { .. } | recording::Fact::Lost { .. } => {}
                    }
                }
            };
            if timeout(FINISH_WITHIN, collected).await.is_err() {
                tracing::error!(%room, "the recorder did not finish a room's originals in time");
            }
        });
        let last_seen = self.shared.clock.mono();
        let gone = lights.connections.into_keys();
        gone.map(|connection| Command::Disconnected { connection, last_seen }).collect()
    }

    /// Waits until the originals are finished.
    pub(super) async fn finish(&mut self) {
        while self.finishing.join_next().await.is_some() {}
    }

    /// Forgets tasks that are done.
    pub(super) fn reap(&mut self) {
        while self.finishing.try_join_next().is_some() {}
    }

    pub(super) async fn keep_original(&self, connection: ConnectionId, original: Original) {
        keep_original(&self.shared, self.room, self.owner(connection), connection, original).await;
    }

    // ── what is so ───────────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn is_dark(&self) -> bool {
        self.lights.is_none() && self.finishing.is_empty()
    }

    pub(super) fn is_flowing(&self) -> bool {
        self.lights.as_ref().is_some_and(|lights| lights.flow)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.lights.as_ref().is_some_and(|lights| lights.broken)
    }

    /// Whether media flows and the recorder has not acknowledged for longer than `limit`.
    pub(super) fn is_silent(&self, now: MonoTime, limit: Duration) -> bool {
        self.lights.as_ref().is_some_and(|lights| lights.flow && !lights.durability.is_fresh(now, limit))
    }

    pub(super) fn owner(&self, connection: ConnectionId) -> Option<ParticipantId> {
        self.owners.get(&connection).copied()
    }

    /// Whether this connection stands and is this person's.
    pub(super) fn check_owner(&self, connection: ConnectionId, participant: ParticipantId) -> Result<(), Error> {
        let stands = self.lights.as_ref().is_some_and(|lights| lights.connections.contains_key(&connection));
        if stands && self.owner(connection) == Some(participant) { Ok(()) } else { Err(Error::UnknownConnection) }
    }

    pub(super) fn forget(&mut self, connection: ConnectionId) {
        if let Some(lights) = &mut self.lights {
            lights.connections.remove(&connection);
        }
    }

    /// Keeps what a connection's slots show, and says whom to tell.
    pub(super) fn take_slots(
        &mut self,
        connection: ConnectionId,
        slots: Vec<Slot>,
    ) -> Option<(ParticipantId, SessionEvent)> {
        let owner = self.owner(connection)?;
        let shown = self.lights.as_mut()?.connections.get_mut(&connection)?;
        *shown = slots.into_iter().map(SlotView::from).collect();
        Some((owner, SessionEvent::Slots { connection, slots: shown.clone() }))
    }

    /// What this person's connections show, for who subscribes in mid-call.
    pub(super) fn slots_of(&self, participant: ParticipantId) -> Vec<SessionEvent> {
        let connections = self.lights.iter().flat_map(|lights| &lights.connections);
        connections
            .filter(|(connection, slots)| self.owner(**connection) == Some(participant) && !slots.is_empty())
            .map(|(connection, slots)| SessionEvent::Slots { connection: *connection, slots: slots.clone() })
            .collect()
    }

    fn blame(&self, error: ConnectError) -> Error {
        match error {
            ConnectError::BadOffer(_) | ConnectError::NothingToAnswer => Error::BadOffer(error),
            ConnectError::Unknown => Error::UnknownConnection,
            ConnectError::Unavailable => {
                tracing::error!(room = %self.room, %error, "the room's media worker does not answer");
                Error::Unavailable(Fault::Media(error))
            }
        }
    }
}

async fn keep_original<M, R>(
    shared: &Shared<M, R>,
    room: RoomId,
    participant: Option<ParticipantId>,
    connection: ConnectionId,
    original: Original,
) {
    let Some(participant) = participant else {
        tracing::error!(%room, %connection, "the recorder finished an original that nobody asked for");
        return;
    };
    let stored = StoredOriginal { connection, participant, original };
    if let Err(error) = shared.store.add_original(room, &stored, shared.clock.now().wall).await {
        // The file and its chain are on disk and say the same.
        tracing::error!(%room, %connection, %error, "the database did not take a finished original");
    }
}

async fn answered<T>(answer: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
    timeout(ANSWER_WITHIN, answer).await.unwrap_or(Err(ConnectError::Unavailable))
}

/// What an original's file is named after.
fn label(role: Role) -> &'static str {
    match role {
        Role::Operator => "operator",
        Role::Delegato => "delegato",
        Role::Delegante => "delegante",
        Role::Citizen => "citizen",
        Role::Guest => "guest",
    }
}

impl From<Slot> for SlotView {
    fn from(slot: Slot) -> Self {
        Self { mid: slot.mid, participant_id: slot.participant, source: slot.source }
    }
}
