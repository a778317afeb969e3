//! A room's media as its actor holds it: the worker's room, the recorder's room and who is connected.
//!
//! A recording that breaks ends with its tap. The connections stand; new files are asked for until the disk takes them,
//! and then the worker gets the new tap: whatever was recorded, told or tapped before has no way into the new files.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::recording_key::recording_key;
use super::seam::{Media, Recording};
use super::session_views::{SessionEvent, SlotView};
use super::{Error, Fault, Shared};
use crate::clock::MonoTime;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;
use crate::recording::{self, Need, Original};
use crate::room::{Command, Role};
use crate::rtp::{Durability, Tap, tap};
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

/// How long after a recording broke new files are asked for; each time it breaks again, twice as long. Shorter keeps
/// a disk busy that may need rest; longer keeps people waiting who are ready to go on.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest such pause: so late at most is it noticed that the disk is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// A recording that went on for so long was mended; one that breaks sooner waits longer than the time before.
const MENDED: Duration = Duration::from_secs(30);

pub(super) struct Stage<M, R> {
    room: RoomId,
    shared: Arc<Shared<M, R>>,
    lights: Option<Lights>,
    /// Everyone who ever connected in this run: the recorder speaks of connections that are gone.
    owners: HashMap<ConnectionId, ParticipantId>,
    /// Rooms of the recorder that are being finished.
    finishing: JoinSet<()>,
    key: Key,
}

/// What a room is recorded under.
enum Key {
    /// Its media was not opened yet.
    Unasked,
    /// This key, or none: it is not encrypted.
    Is(Option<Arc<SessionKey>>),
}

/// What there is while a room has media.
struct Lights {
    worker: mpsc::Receiver<sfu::Fact>,
    files: Files,
    /// The recording is lost and everyone knows: nothing flows until there are new files.
    lost: bool,
    /// How long new files are waited for when the recording breaks next.
    pause: Duration,
    flow: bool,
    /// The connections that stand or are being made.
    connections: HashMap<ConnectionId, Wire>,
    /// Originals that began while the ledger could not take it.
    owed: Vec<(ConnectionId, Source)>,
}

/// A connection on the stage.
struct Wire {
    /// What its originals are named after.
    label: &'static str,
    /// What its slots show.
    slots: Vec<SlotView>,
}

/// Where the room's originals stand.
enum Files {
    /// They were asked for, and the recorder has not answered.
    Asked { reel: Reel, since: MonoTime, way: Way },
    /// They are being written.
    Written { reel: Reel, since: MonoTime },
    /// They were given up; new ones are asked for at this time.
    GivenUp { again: MonoTime },
}

/// The recorder's side of a tap.
struct Reel {
    facts: mpsc::Receiver<recording::Fact>,
    durability: Durability,
}

/// Where the worker's end of a tap is while files are asked for.
enum Way {
    /// The worker has it, since the stage was opened.
    Handed,
    /// The worker gets it when the recorder has answered.
    Kept(Tap),
    /// It was taken from the worker again.
    TakenBack,
}

impl Files {
    fn reel(&self) -> Option<&Reel> {
        match self {
            Self::Asked { reel, .. } | Self::Written { reel, .. } => Some(reel),
            Self::GivenUp { .. } => None,
        }
    }

    fn reel_mut(&mut self) -> Option<&mut Reel> {
        match self {
            Self::Asked { reel, .. } | Self::Written { reel, .. } => Some(reel),
            Self::GivenUp { .. } => None,
        }
    }
}

/// A report from below; `None`: who reports is gone.
pub(super) enum Fact {
    Recorder(Option<recording::Fact>),
    Worker(Option<sfu::Fact>),
}

impl<M: Media, R: Recording> Stage<M, R> {
    pub(super) fn new(room: RoomId, shared: Arc<Shared<M, R>>) -> Self {
        Self { room, shared, lights: None, owners: HashMap::new(), finishing: JoinSet::new(), key: Key::Unasked }
    }

    /// The next report; waits for ever while there is no media. The recorder's come first: media stops by them.
    ///
    /// Without `worker`, the worker's reports stay where they are. Safe to cancel.
    pub(super) async fn next_fact(&mut self, worker: bool) -> Fact {
        let Some(lights) = &mut self.lights else { return pending().await };
        let reel = lights.files.reel_mut();
        let recorder = async {
            match reel {
                Some(reel) => reel.facts.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            fact = recorder => Fact::Recorder(fact),
            fact = lights.worker.recv(), if worker => Fact::Worker(fact),
        }
    }

    pub(super) fn waiting_recorder_fact(&mut self) -> Option<recording::Fact> {
        self.lights.as_mut()?.files.reel_mut()?.facts.try_recv().ok()
    }

    /// Opens the worker's and the recorder's room, with a new tap between them, unless there are.
    pub(super) async fn open(&mut self, need: Need) -> Result<(), Error> {
        if self.lights.is_some() {
            return Ok(());
        }
        let key = self.recording_key().await?;
        // A room that is open goes on with what space there is; if that is none, its recording says so.
        if self.shared.recorder.reserve(self.room, need).await.is_err() {
            tracing::warn!(room = %self.room, "the room goes on without the space that it was to have");
        }
        let (tap, reader) = tap();
        let durability = tap.durability();
        let (worker_sender, worker) = mpsc::channel(WORKER_FACTS);
        let (recorder_sender, facts) = mpsc::channel(RECORDER_FACTS);
        // Whatever an earlier actor left behind ends here.
        self.shared.media.close_room(self.room).await;
        self.shared.recorder.open_room(self.room, key, reader, recorder_sender);
        if let Err(error) = answered(self.shared.media.open_room(self.room, tap, worker_sender)).await {
            self.shared.recorder.close_room(self.room);
            tracing::error!(room = %self.room, %error, "the room has no media worker");
            return Err(Error::Unavailable(Fault::Media(error)));
        }
        let since = self.shared.clock.mono();
        self.lights = Some(Lights {
            worker,
            files: Files::Asked { reel: Reel { facts, durability }, since, way: Way::Handed },
            lost: false,
            pause: FIRST_PAUSE,
            flow: false,
            connections: HashMap::new(),
            owed: Vec::new(),
        });
        Ok(())
    }

    /// The key that the room is recorded under; `None`: it is not encrypted.
    async fn recording_key(&mut self) -> Result<Option<Arc<SessionKey>>, Error> {
        if let Key::Is(key) = &self.key {
            return Ok(key.clone());
        }
        let key = recording_key(&self.shared, self.room).await?;
        self.key = Key::Is(key.clone());
        Ok(key)
    }

    // ── the recording breaks and begins anew ─────────────────────────────────────────────────────────────────────

    /// Gives the files up and stops media. `answered`: the recorder itself said that they are lost; otherwise it may
    /// still be asked for them, and hang. Says whether that is news.
    pub(super) async fn give_up(&mut self, answered: bool) -> bool {
        let now = self.shared.clock.mono();
        let Some(lights) = &mut self.lights else { return false };
        lights.flow = false;
        lights.owed.clear();
        let news = !std::mem::replace(&mut lights.lost, true);
        match &mut lights.files {
            Files::Asked { way, .. } if !answered => {
                if matches!(way, Way::Handed) {
                    *way = Way::TakenBack;
                }
            }
            Files::GivenUp { .. } => return news,
            files => {
                if matches!(files, Files::Written { since, .. } if now.since(*since) >= MENDED) {
                    lights.pause = FIRST_PAUSE;
                }
                let again = now + lights.pause;
                lights.pause = (lights.pause * 2).min(LONGEST_PAUSE);
                if let Files::Asked { reel, .. } | Files::Written { reel, .. } =
                    std::mem::replace(files, Files::GivenUp { again })
                {
                    // Whatever the recorder still says of these files is for the database alone.
                    let (shared, room, owners) = (Arc::clone(&self.shared), self.room, self.owners.clone());
                    tokio::spawn(async move { keep_originals(&shared, room, &owners, reel.facts).await });
                }
            }
        }
        self.shared.media.set_flow(self.room, false).await;
        self.shared.media.set_tap(self.room, None).await;
        news
    }

    /// Asks for new files if it is time to.
    pub(super) fn ask_again(&mut self) {
        let now = self.shared.clock.mono();
        // It was opened with the key, or without.
        let Key::Is(key) = &self.key else { return };
        let Some(lights) = &mut self.lights else { return };
        if !matches!(lights.files, Files::GivenUp { again } if again <= now) {
            return;
        }
        let (tap, reader) = tap();
        let durability = tap.durability();
        let (sender, facts) = mpsc::channel(RECORDER_FACTS);
        self.shared.recorder.open_room(self.room, key.clone(), reader, sender);
        for (connection, wire) in &lights.connections {
            self.shared.recorder.open_original(self.room, *connection, wire.label.to_owned());
        }
        lights.files = Files::Asked { reel: Reel { facts, durability }, since: now, way: Way::Kept(tap) };
    }

    /// The recorder can write: from here on the room's media goes into its files. Says whether it had been lost.
    pub(super) async fn begin(&mut self) -> bool {
        let now = self.shared.clock.mono();
        let Some(lights) = &mut self.lights else { return false };
        let Files::Asked { reel, way, .. } = std::mem::replace(&mut lights.files, Files::GivenUp { again: now }) else {
            return false;
        };
        if matches!(way, Way::TakenBack) || reel.durability.is_lost() {
            // Nothing is tapped any more for the files that it made: others are asked for at once.
            return false;
        }
        lights.files = Files::Written { reel, since: now };
        if let Way::Kept(tap) = way {
            self.shared.media.set_tap(self.room, Some(tap)).await;
        }
        std::mem::replace(&mut lights.lost, false)
    }

    // ── people and their connections ─────────────────────────────────────────────────────────────────────────────

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
        let label = label(role);
        self.shared.recorder.open_original(self.room, connection, label.to_owned());
        self.owners.insert(connection, participant);
        lights.connections.insert(connection, Wire { label, slots: Vec::new() });
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

    pub(super) async fn ask_for_keyframe(&self, connection: ConnectionId, source: Source) {
        self.shared.media.ask_for_keyframe(self.room, connection, source).await;
    }

    /// Lets media flow, or stops it. Nothing flows on a stage whose recording is lost.
    pub(super) async fn set_flow(&mut self, flow: bool) {
        let Some(lights) = &mut self.lights else { return };
        lights.flow = flow && !lights.lost;
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

    /// Ends all media and has the originals finished. Returns what is to be reported of the connections.
    pub(super) async fn close(&mut self) -> Vec<Command> {
        let Some(lights) = self.lights.take() else { return Vec::new() };
        self.shared.media.set_flow(self.room, false).await;
        self.shared.media.close_room(self.room).await;
        self.shared.recorder.close_room(self.room);
        let (shared, room, owners) = (Arc::clone(&self.shared), self.room, self.owners.clone());
        if let Files::Asked { reel, .. } | Files::Written { reel, .. } = lights.files {
            self.finishing.spawn(async move {
                let collected = keep_originals(&shared, room, &owners, reel.facts);
                if timeout(FINISH_WITHIN, collected).await.is_err() {
                    tracing::error!(%room, "the recorder did not finish a room's originals in time");
                }
            });
        }
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

    /// Whether the recorder has said nothing for longer than `limit`, as far as nobody knows that yet.
    pub(super) fn is_silent(&self, now: MonoTime, limit: Duration) -> bool {
        self.lights.as_ref().is_some_and(|lights| match &lights.files {
            Files::Asked { since, .. } => !lights.lost && now.since(*since) > limit,
            // Of a tap that was given up, whoever did it is about to say so, and why.
            Files::Written { reel, since } => {
                let Reel { durability, .. } = reel;
                now.since(*since) > limit && !durability.is_lost() && !durability.is_fresh(now, limit)
            }
            Files::GivenUp { .. } => false,
        })
    }

    /// When [`Self::is_silent`] is to be asked next, or new files: it cannot be so before. `None`: there is no media.
    pub(super) fn look_at(&self, limit: Duration) -> Option<MonoTime> {
        self.lights.as_ref().map(|lights| match &lights.files {
            Files::Asked { since, .. } => *since + limit,
            Files::Written { reel, since } => reel.durability.durable_until().unwrap_or(*since).max(*since) + limit,
            Files::GivenUp { again } => *again,
        })
    }

    /// Whether the tap that is in use now was given up by either end.
    pub(super) fn tap_is_lost(&self) -> bool {
        let reel = self.lights.as_ref().and_then(|lights| lights.files.reel());
        reel.is_some_and(|reel| reel.durability.is_lost())
    }

    /// The time up to which everything is on disk; `None` while nothing is recorded.
    pub(super) fn durable_until(&self) -> Option<MonoTime> {
        self.lights.as_ref()?.files.reel()?.durability.durable_until()
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
        let wire = self.lights.as_mut()?.connections.get_mut(&connection)?;
        wire.slots = slots.into_iter().map(SlotView::from).collect();
        Some((owner, SessionEvent::Slots { connection, slots: wire.slots.clone() }))
    }

    /// What this person's connections show, for who subscribes in mid-call.
    pub(super) fn slots_of(&self, participant: ParticipantId) -> Vec<SessionEvent> {
        let connections = self.lights.iter().flat_map(|lights| &lights.connections);
        connections
            .filter(|(connection, wire)| self.owner(**connection) == Some(participant) && !wire.slots.is_empty())
            .map(|(connection, wire)| SessionEvent::Slots { connection: *connection, slots: wire.slots.clone() })
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

/// Takes what the recorder says of files that are being finished, or were given up, into the database.
async fn keep_originals<M, R>(
    shared: &Shared<M, R>,
    room: RoomId,
    owners: &HashMap<ConnectionId, ParticipantId>,
    mut facts: mpsc::Receiver<recording::Fact>,
) {
    while let Some(fact) = facts.recv().await {
        match fact {
            recording::Fact::Finished { connection, original } | recording::Fact::GivenUp { connection, original } => {
                keep_original(shared, room, owners.get(&connection).copied(), connection, original).await;
            }
            recording::Fact::Closed => return,
            recording::Fact::Ready
            | recording::Fact::Started { .. }
            | recording::Fact::Head { .. }
            | recording::Fact::KeyframeWanted { .. }
            | recording::Fact::PictureMissing { .. }
            | recording::Fact::PictureBack { .. }
            | recording::Fact::Lost { .. } => {}
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
