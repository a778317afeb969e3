//! A node for the tests: the real store on a real file, the real rules, and a media worker and a recorder that do
//! what the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::control::{
    Booked, Booking, BookingParticipant, Caller, CodeKey, Control, Documents, Invitation, Media, Personal, Recording,
    Register, SessionEvent, SessionView, Settings, Subscription,
};
use crate::documents::Folder;
use crate::id::{ConnectionId, RoomId};
use crate::media::{RecordingFault, Source};
use crate::notify::Waker;
use crate::recording::sign::SigningKey;
use crate::recording::{self, Need, NoSpace, Original};
use crate::room::{Command, Profile, Role};
use crate::rtp::{Tap, TapReader};
use crate::sfu::{self, ConnectError, Join};
use crate::store::{Purpose, Store};
use crate::vault::{KekFile, SessionKey};

pub(super) const NOTICE: &str = "2026-01";

/// A media worker that only remembers.
#[derive(Clone, Default)]
pub(super) struct Worker(Arc<Mutex<WorkerState>>);

#[derive(Default)]
pub(super) struct WorkerState {
    pub(super) tap: Option<Tap>,
    pub(super) facts: Option<mpsc::Sender<sfu::Fact>>,
    pub(super) flow: bool,
    pub(super) recorded: Vec<ConnectionId>,
    pub(super) joins: Vec<Join>,
    pub(super) ended: Vec<ConnectionId>,
    pub(super) opened: usize,
    /// It is too busy for a further room.
    pub(super) full: bool,
    /// Who was asked for a keyframe.
    pub(super) asked: Vec<(ConnectionId, Source)>,
}

/// A recorder that says what the test wants.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
pub(super) struct DiskState {
    pub(super) reader: Option<TapReader>,
    pub(super) facts: Option<mpsc::Sender<recording::Fact>>,
    pub(super) labels: Vec<(ConnectionId, String)>,
    /// What rooms were to be recorded under, in the order of their opening.
    pub(super) keys: Vec<Option<Arc<SessionKey>>>,
    /// What every room is told when it is opened.
    pub(super) fault: Option<RecordingFault>,
    /// It hangs: nothing is answered, nothing acknowledged.
    pub(super) hangs: bool,
    pub(super) opened: usize,
    /// There is no space.
    pub(super) full: bool,
    pub(super) reserved: Vec<Need>,
    pub(super) released: usize,
}

impl Worker {
    pub(super) fn state<T>(&self, look: impl FnOnce(&mut WorkerState) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(super) async fn says(&self, fact: sfu::Fact) {
        let facts = self.state(|state| state.facts.clone()).expect("the room is on the worker");
        facts.send(fact).await.expect("the room's actor lives");
    }
}

impl Disk {
    /// Acknowledges what is tapped, unless it hangs.
    async fn work(self, clock: Clock) {
        while Arc::strong_count(&self.0) > 1 {
            self.state(|state| {
                if let Some(reader) = state.reader.as_ref().filter(|_| !state.hangs) {
                    reader.acknowledge(clock.mono());
                }
            });
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn state<T>(&self, look: impl FnOnce(&mut DiskState) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(super) async fn says(&self, fact: recording::Fact) {
        let facts = self.state(|state| state.facts.clone()).expect("the room is recorded");
        facts.send(fact).await.expect("the room's actor lives");
    }
}

impl Media for Worker {
    fn is_full(&self) -> bool {
        self.state(|state| state.full)
    }

    fn reflectors(&self) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([192, 0, 2, 1], 40_000))]
    }

    async fn open_room(&self, _: RoomId, tap: Tap, facts: mpsc::Sender<sfu::Fact>) -> Result<(), ConnectError> {
        self.state(|state| {
            state.opened += 1;
            (state.tap, state.facts) = (Some(tap), Some(facts));
        });
        Ok(())
    }

    async fn connect(&self, _: RoomId, join: Join) -> Result<String, ConnectError> {
        if join.offer == "garbage" {
            return Err(ConnectError::BadOffer("no m-line".into()));
        }
        self.state(|state| state.joins.push(join));
        Ok("answer".into())
    }

    async fn restart_ice(&self, _: RoomId, _: ConnectionId, _: String) -> Result<Option<String>, ConnectError> {
        Ok(None)
    }

    async fn set_flow(&self, _: RoomId, flow: bool) {
        self.state(|state| state.flow = flow);
    }

    async fn set_tap(&self, _: RoomId, tap: Option<Tap>) {
        self.state(|state| {
            state.recorded.clear();
            state.tap = tap;
        });
    }

    async fn ask_for_keyframe(&self, _: RoomId, connection: ConnectionId, source: Source) {
        self.state(|state| state.asked.push((connection, source)));
    }

    async fn recording_started(&self, _: RoomId, connection: ConnectionId, _: Source) {
        self.state(|state| state.recorded.push(connection));
    }

    async fn disconnect(&self, _: RoomId, connection: ConnectionId) {
        self.state(|state| state.ended.push(connection));
    }

    async fn close_room(&self, _: RoomId) {
        self.state(|state| (state.tap, state.facts, state.flow) = (None, None, false));
    }
}

impl Recording for Disk {
    fn has_space(&self) -> bool {
        self.state(|state| !state.full)
    }

    async fn reserve(&self, _: RoomId, need: Need) -> Result<(), NoSpace> {
        self.state(|state| {
            state.reserved.push(need);
            if state.full { Err(NoSpace) } else { Ok(()) }
        })
    }

    fn release(&self, _: RoomId) {
        self.state(|state| state.released += 1);
    }

    fn open_room(&self, _: RoomId, key: Option<Arc<SessionKey>>, tap: TapReader, facts: mpsc::Sender<recording::Fact>) {
        self.state(|state| {
            state.keys.push(key);
            state.opened += 1;
            state.labels.clear();
            match state.fault {
                Some(fault) => facts.try_send(recording::Fact::Lost { fault }).unwrap(),
                None if state.hangs => {}
                None => facts.try_send(recording::Fact::Ready).unwrap(),
            }
            (state.reader, state.facts) = (Some(tap), Some(facts));
        });
    }

    fn open_original(&self, _: RoomId, connection: ConnectionId, label: String) {
        self.state(|state| state.labels.push((connection, label)));
    }

    fn drop_original(&self, _: RoomId, connection: ConnectionId) {
        self.state(|state| state.labels.retain(|(announced, _)| *announced != connection));
    }

    fn close_room(&self, _: RoomId) {
        self.state(|state| {
            let Some(facts) = state.facts.take() else { return };
            for (number, (connection, label)) in state.labels.iter().enumerate() {
                let file = format!("{label}-{}.webm", number + 1);
                let original = Original {
                    file,
                    sources: vec![Source::Microphone, Source::Camera],
                    bytes: 1_000,
                    clusters: 2,
                    duration_ms: 1_500,
                    chain_head: "00".repeat(32),
                };
                facts.try_send(recording::Fact::Finished { connection: *connection, original }).unwrap();
            }
            facts.try_send(recording::Fact::Closed).unwrap();
        });
    }
}

pub(super) struct House {
    pub(super) folder: TempDir,
    pub(super) store: Store,
    pub(super) worker: Worker,
    pub(super) disk: Disk,
    pub(super) control: Control<Worker, Disk>,
    clock: Clock,
    profiles: Vec<Profile>,
}

impl House {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A node whose `delega` profile is changed.
    pub(super) async fn with(change: impl FnOnce(&mut Profile)) -> Self {
        let mut profiles = Profile::shipped();
        change(profiles.iter_mut().find(|profile| profile.name == "delega").unwrap());
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new();
        let (store, control, worker, disk) = start(&folder, clock, profiles.clone()).await;
        Self { folder, store, worker, disk, control, clock, profiles }
    }

    /// The process dies without a word and comes up again on the same files.
    pub(super) async fn restart(self) -> Self {
        let Self { folder, store, clock, profiles, .. } = self;
        store.close().await;
        let (store, control, worker, disk) = start(&folder, clock, profiles.clone()).await;
        Self { folder, store, worker, disk, control, clock, profiles }
    }

    /// Books a `delega` room that began a minute ago.
    pub(super) async fn book(&self) -> Booked {
        self.control.create_room(booking(-1), None).await.unwrap()
    }

    pub(super) async fn admit_by_code(&self, invitation: &Invitation) -> Caller {
        let (link, code) = (invitation.join_token.expose(), invitation.code.as_ref().unwrap().expose());
        let session = self.control.enter_code(link, code, false).await.unwrap();
        self.control.authenticate(session.session_token.expose()).await.unwrap()
    }

    pub(super) async fn does(&self, room: RoomId, command: Command) {
        self.control.command(room, command, None).await.unwrap();
    }

    /// Everyone is admitted, has consented and is inside; nobody is connected.
    pub(super) async fn gather(&self, booked: &Booked) -> Vec<Caller> {
        let room = booked.room.id;
        let mut callers = Vec::new();
        for invitation in &booked.participants {
            let caller = self.admit_by_code(invitation).await;
            let participant = caller.participant;
            self.does(room, Command::Consent { participant, text_version: NOTICE.into() }).await;
            self.does(room, Command::EnterWaiting { participant }).await;
            callers.push(caller);
        }
        self.does(room, Command::Open).await;
        for caller in callers.iter().filter(|caller| caller.role != Role::Operator) {
            self.does(room, Command::Admit { participant: caller.participant }).await;
        }
        callers
    }

    /// A person connects, is seen and heard, and their original begins.
    pub(super) async fn send_media(&self, caller: &Caller) -> ConnectionId {
        let connection = self.control.connect(caller, "offer".into()).await.unwrap().connection;
        self.worker.says(sfu::Fact::Connected { connection }).await;
        for source in [Source::Microphone, Source::Camera] {
            let since = self.clock.mono();
            self.worker.says(sfu::Fact::SourceChanged { connection, source, active: true, since }).await;
        }
        self.acknowledge();
        for source in [Source::Microphone, Source::Camera] {
            self.disk.says(recording::Fact::Started { connection, source }).await;
        }
        connection
    }

    /// A live room.
    pub(super) async fn go_live(&self) -> (Booked, Vec<Caller>, Vec<ConnectionId>) {
        let booked = self.book().await;
        let callers = self.gather(&booked).await;
        let mut connections = Vec::new();
        for caller in &callers {
            connections.push(self.send_media(caller).await);
        }
        eventually("media flows", || self.worker.state(|state| state.flow)).await;
        (booked, callers, connections)
    }

    /// Another process that holds the database file, like a backup or someone with a tool.
    pub(super) async fn another_process(&self) -> SqliteConnection {
        let file = self.folder.path().join("sportello.db");
        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap()
    }

    /// The recorder acknowledges everything up to now.
    pub(super) fn acknowledge(&self) {
        let now = self.clock.mono();
        self.disk.state(|state| state.reader.as_ref().unwrap().acknowledge(now));
    }

    /// Waits until a participant's view is as it should be.
    pub(super) async fn sees(&self, caller: &Caller, what: &str, holds: impl Fn(&SessionView) -> bool) -> SessionView {
        for _ in 0..600 {
            let view = self.control.session_view(caller).await.unwrap();
            if holds(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:#?}", self.control.session_view(caller).await);
    }
}

async fn start(folder: &TempDir, clock: Clock, profiles: Vec<Profile>) -> (Store, Control<Worker, Disk>, Worker, Disk) {
    let store = Store::open(folder.path().join("sportello.db").to_str().unwrap()).await.unwrap();
    let (worker, disk) = (Worker::default(), Disk::default());
    tokio::spawn(disk.clone().work(clock));
    let settings = Settings {
        profiles,
        public_url: "http://127.0.0.1:8080".into(),
        consent_text_version: NOTICE.into(),
        calendar: None,
        capacity: None,
        webhooks: true,
        sms: None,
        answers: CodeKey::from_bytes([7; 32]).seal(Purpose::KeptAnswer).unwrap(),
        posted: Waker::default(),
        code_key: CodeKey::from_bytes([7; 32]),
        longest_silence: Duration::from_secs(2),
        recording_keys: Arc::new(KekFile::open(&folder.path().join("recordings.key")).unwrap()),
        encrypt: true,
        publish_heads: Some(Duration::from_mins(1)),
        signing: Arc::new(SigningKey::generate().unwrap()),
        documents: Documents { folder: Folder::new(folder.path().join("documents")), antivirus: None },
        register: Register::Embedded,
    };
    let control = Control::start(store.clone(), worker.clone(), disk.clone(), settings, clock).await.unwrap();
    (store, control, worker, disk)
}

/// The time on the wall.
pub(super) fn wall() -> Timestamp {
    Clock::new().now().wall
}

/// A `delega` appointment of half an hour that starts so many minutes from now.
pub(super) fn booking(minutes: i64) -> Booking {
    let start = wall() + SignedDuration::from_mins(minutes);
    let person = |role, name: &str| BookingParticipant {
        role,
        name: Personal::from(name),
        fiscal_code: None,
        phone: Some(Personal::from("+39 333 1234567")),
        operator_number: None,
        language: None,
    };
    let mut operator = person(Role::Operator, "Olga Operatrice");
    operator.operator_number = Some("OP-042".into());
    let mut delegante = person(Role::Delegante, "Dino Delegante");
    delegante.fiscal_code = Some(Personal::from("rssmra80a41h501w"));
    Booking {
        profile: "delega".into(),
        office: "Roma".into(),
        counter: "Deleghe".into(),
        reason: "Delega dell'identità digitale".into(),
        start,
        end: start + SignedDuration::from_mins(30),
        reference: None,
        participants: vec![operator, person(Role::Delegato, "Dario Delegato"), delegante],
    }
}

pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The next view that a subscriber is told, past any slots.
pub(super) async fn next_view(subscription: &mut Subscription) -> SessionView {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await.expect("news in time");
        if let SessionEvent::Session { session } = message.expect("the subscription goes on").event {
            return *session;
        }
    }
}
