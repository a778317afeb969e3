//! The node: the only file that wires the parts together.

use std::fs::DirBuilder;
use std::future::{Future, IntoFuture};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::limits::Limits;
use crate::api::oidc::{NoClient, Oidc};
use crate::clock::Clock;
use crate::config::{Config, Problems};
use crate::control::{self, CodeKey, Control, Scope, Secret, TextMessages};
use crate::evidence::{Evidence, Sealer};
use crate::notify::{self, Notifier, SmsOutcome};
use crate::objects;
use crate::recording::Recorder;
use crate::recording::recover::{self, RecoveredOriginal};
use crate::recording::sign::{KeyFileError, SigningKey};
use crate::recording::timestamp::TimestampError;
use crate::register::RegisterClientError;
use crate::sfu::{self, Sfu};
use crate::store::{self, Purpose, SealError, Store};
use crate::telemetry::{self, Metrics};
use crate::vault::{KekFile, KekFileError, KeyEncryption};
use crate::web::demo::{Demo, DemoMessage, NotBooked, Wish};
use crate::{api, web};

/// How long the originals of live rooms may take to be finished when the node stops. Shorter risks a recording that
/// ends without its last second; longer makes an operator reach for kill -9.
const FINISH_LIMIT: Duration = Duration::from_secs(20);
/// How long open connections may take to end after that.
const GOODBYE_LIMIT: Duration = Duration::from_secs(3);

/// Ends of text messages that wait for their rooms. When they are more, the gateway's next message waits.
const TEXT_OUTCOMES: usize = 64;
/// How often the database is tidied up and looked through for what was left undone. Longer: a room whose actor is gone
/// waits longer for its next one. Shorter: more questions for nothing.
const TIDY_EVERY: Duration = Duration::from_mins(1);

/// A node that listens; [`Node::run`] makes it answer.
pub struct Node {
    listener: TcpListener,
    address: SocketAddr,
    routes: Router,
    control: Control,
    evidence: Evidence,
    sealer: Sealer,
    store: Store,
    notifier: Notifier<Store>,
    /// How text messages ended.
    text_outcomes: mpsc::Receiver<SmsOutcome>,
    metrics: Metrics,
    limits: Limits,
    stopping: watch::Sender<bool>,
    clock: Clock,
    new_keys: Vec<(Scope, Secret)>,
    secrets: PathBuf,
    encrypts: bool,
}

/// Why the node did not start, by who is at fault.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration's fault.
    #[error("{0}")]
    Config(#[from] Problems),
    /// A folder or a key file cannot be made or read. The system's fault.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The HTTP port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The database.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// The database belongs to another key. The configuration's fault.
    #[error(
        "{}: this is not the key that the database was made with; codes that were sent out would be void. Put the \
         earlier file back, or begin with an empty database",
        .0.display()
    )]
    OtherKey(PathBuf),
    /// The keys of recordings.
    #[error("{0}")]
    RecordingKeys(#[from] KekFileError),
    /// The key that signs.
    #[error("{0}")]
    SigningKey(#[from] KeyFileError),
    /// The sealer.
    #[error("cannot start the sealer: {0}")]
    Sealer(reqwest::Error),
    /// The authorities whose timestamps are believed. The configuration's fault.
    #[error("sealing.timestamp_ca: {0}")]
    Authority(#[from] TimestampError),
    /// The place of the packages.
    #[error("{0}")]
    Packages(#[from] objects::OpenError),
    /// The keys of sealed values.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// The media workers.
    #[error("{0}")]
    Sfu(#[from] sfu::StartError),
    /// The recorder.
    #[error("cannot start the recorder: {0}")]
    Recorder(io::Error),
    /// Webhooks and text messages.
    #[error("{0}")]
    Notify(#[from] notify::ClientError),
    /// The rooms.
    #[error("{0}")]
    Control(#[from] control::StartError),
    /// The register's client could not be made.
    #[error(transparent)]
    Register(#[from] RegisterClientError),
    /// The client of the OIDC issuer.
    #[error("{0}")]
    Oidc(#[from] NoClient),
    /// The API keys.
    #[error("cannot make API keys: {0}")]
    Keys(control::Error),
    /// The metrics.
    #[error("{0}")]
    Telemetry(#[from] telemetry::Error),
    /// The data directory was used before, but its demo keys are gone.
    #[error("the API keys of this demo are not in {}: start it with another --data-dir", .0.display())]
    DemoKeysLost(PathBuf),
    /// The demo's room.
    #[error("cannot book the demo's room: {0}")]
    Demo(#[from] NotBooked),
}

impl Node {
    /// Starts every part. The first start makes folders, keys and the database.
    ///
    /// # Errors
    /// The first part that did not start.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let clock = Clock::new();
        let metrics = Metrics::install()?;
        let profiles = config.profiles()?;
        let data_dir = &config.storage.data_dir;
        let secrets = data_dir.join("secrets");
        make_folder(data_dir, 0o700)?;
        make_folder(&secrets, 0o700)?;
        let code_key = secrets.join("code.key");
        let code_key = CodeKey::open(&code_key).map_err(|source| StartError::Folder { path: code_key, source })?;

        let recording_keys: Arc<dyn KeyEncryption> = Arc::new(KekFile::open(&secrets.join("recordings.key"))?);
        let signing = Arc::new(SigningKey::open(&secrets.join("signing.key"))?);

        // The HTTP port first: a second node on the same data would stop here, before it touches them.
        let address = config.http.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;

        let store = Store::open(&config.database()).await?;
        if !store.hold_key(code_key.check_value()).await? {
            return Err(StartError::OtherKey(secrets.join("code.key")));
        }
        let sfu = Sfu::start(&config.sfu(), clock)?;
        // Before anything is written there.
        let recovered = recover_recordings(config.recordings()).await;
        let recorder = Recorder::start(config.recorder(), clock).map_err(StartError::Recorder)?;
        let text_messages = code_key.seal(Purpose::TextMessage)?;
        let (outcomes, text_outcomes) = mpsc::channel(TEXT_OUTCOMES);
        let notifier = notify::Settings {
            webhooks: config.webhooks.clone(),
            sms: config.sms.gateway.clone().map(|gateway| notify::Sms {
                gateway,
                seal: text_messages.clone(),
                outcomes,
            }),
        };
        let notifier = Notifier::new(store.clone(), notifier, clock)?;
        let settings = control::Settings {
            profiles,
            public_url: config.http.public_url.clone().unwrap_or_else(|| format!("http://{address}")),
            consent_text_version: config.rooms.consent_text_version.clone(),
            calendar: config.calendar()?,
            capacity: config.rooms.capacity,
            webhooks: config.webhooks.is_some(),
            sms: config
                .sms
                .gateway
                .is_some()
                .then_some(TextMessages { seal: text_messages, language: config.sms.language }),
            answers: code_key.seal(Purpose::KeptAnswer)?,
            posted: notifier.waker(),
            code_key,
            longest_silence: config.recording.longest_silence,
            recording_keys: Arc::clone(&recording_keys),
            encrypt: config.recording.encrypt,
            publish_heads: config.recording.publish_heads,
            signing: Arc::clone(&signing),
            documents: config.documents(),
            register: config.register()?,
        };
        let control = Control::start(store.clone(), sfu, recorder, settings, clock).await?;
        control.take_recovered(recovered).await;
        let new_keys = control.ensure_keys().await.map_err(StartError::Keys)?;

        let packages = config.open_packages()?;
        let sealer = Sealer::new(
            store.clone(),
            packages.clone(),
            Arc::clone(&recording_keys),
            Arc::clone(&signing),
            config.sealer()?,
            notifier.waker(),
            clock,
        )
        .map_err(StartError::Sealer)?;
        let evidence =
            Evidence::new(store.clone(), packages, recording_keys, signing, config.evidence(), sealer.sealing(), clock);

        let (stopping, is_stopping) = watch::channel(false);
        let rendered = metrics.clone();
        let oidc = config.oidc.clone().map(|settings| Oidc::new(settings, clock)).transpose()?;
        if let Some(oidc) = oidc.clone() {
            // By itself: a node starts, and takes API keys, while the issuer is away.
            tokio::spawn(oidc.warm_up());
        }
        let limits = Limits::new(&config.http.limits, clock);
        let render = move || rendered.render();
        let api = api::Api::new(control.clone(), evidence.clone(), clock, oidc, limits.clone(), render, is_stopping);
        let routes = api::routes(api).merge(web::routes());
        Ok(Self {
            listener,
            address,
            routes,
            control,
            evidence,
            sealer,
            store,
            notifier,
            text_outcomes,
            metrics,
            limits,
            stopping,
            clock,
            new_keys,
            secrets,
            encrypts: config.recording.encrypt,
        })
    }

    /// The address that pages and REST answer on, with the port that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether rooms are recorded encrypted.
    pub fn encrypts_recordings(&self) -> bool {
        self.encrypts
    }

    /// Everything this node answers, as a service: what [`Node::run`] puts on the socket.
    pub fn server(&self) -> Router {
        api::finish(self.routes.clone(), self.clock)
    }

    /// API keys that this start made: to be shown this once, only their hashes are kept.
    pub fn new_keys(&self) -> &[(Scope, Secret)] {
        &self.new_keys
    }

    /// Makes this node a demo: adds its page and books a `delega` room over the REST API. Returns the demo's API keys
    /// (kept in a file, so that a demo can be started again) and the room's messages.
    ///
    /// # Errors
    /// The keys of an earlier start are gone, or the API did not book the room.
    pub async fn add_demo(&mut self) -> Result<(Vec<(String, String)>, Vec<DemoMessage>), StartError> {
        let keys = self.demo_keys()?;
        let booking = keys.iter().find(|(scope, _)| scope == Scope::Booking.name()).map(|(_, key)| key.as_str());
        let demo = Demo::new(self.server(), booking.unwrap_or_default(), text_message, self.clock);
        let messages = demo.book(Wish::of("delega")).await?;
        self.routes = std::mem::take(&mut self.routes).merge(demo.routes());
        Ok((keys, messages))
    }

    fn demo_keys(&self) -> Result<Vec<(String, String)>, StartError> {
        let path = self.secrets.join("demo.keys");
        if !self.new_keys.is_empty() {
            let keys: Vec<_> =
                self.new_keys.iter().map(|(scope, key)| (scope.name().to_owned(), key.expose().to_owned())).collect();
            let lines: Vec<_> = keys.iter().map(|(scope, key)| format!("{scope} {key}\n")).collect();
            write_secret(&path, &lines.concat()).map_err(|source| StartError::Folder { path, source })?;
            return Ok(keys);
        }
        let text = std::fs::read_to_string(&path).map_err(|_| StartError::DemoKeysLost(path))?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.map(|(scope, key)| (scope.to_owned(), key.to_owned())).collect())
    }

    /// Answers until `stop` comes; then takes nothing new, finishes the originals of live rooms and says goodbye, all
    /// within a bounded time.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Self {
            listener,
            routes,
            control,
            evidence,
            sealer,
            store,
            notifier,
            text_outcomes,
            metrics,
            limits,
            stopping,
            clock,
            ..
        } = self;
        let upkeep = [
            tokio::spawn(metrics.upkeep()),
            tokio::spawn(limits.upkeep()),
            tokio::spawn(hear_of_texts(control.clone(), text_outcomes)),
            tokio::spawn(tidy(control.clone(), store, clock)),
            tokio::spawn(control.clone().register()),
            tokio::spawn(evidence.clone().upkeep()),
            tokio::spawn(evidence.work()),
        ];
        let (last_package, no_more_packages) = oneshot::channel::<()>();
        let sealer = tokio::spawn(async move {
            sealer
                .run(async {
                    // Dropped or used, it means the same.
                    let _stopped = no_more_packages.await;
                })
                .await;
        });
        let (last_message, no_more_messages) = oneshot::channel::<()>();
        let notifier = tokio::spawn(notifier.run(async {
            // Dropped or used, it means the same.
            let _stopped = no_more_messages.await;
        }));
        let mut is_stopping = stopping.subscribe();
        let listener = listener.tap_io(|connection| {
            // Answers are small and awaited: Nagle's algorithm would only delay them. Failing, they are a bit later.
            let _nodelay = connection.set_nodelay(true);
        });
        // With each request its peer's address: the limits count by it.
        let service = api::finish(routes, clock).into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(listener, service).with_graceful_shutdown(async move {
            // An error means that the sender is gone, which is a stop too.
            let _stopping = is_stopping.wait_for(|stopping| *stopping).await;
        });
        let mut server = tokio::spawn(server.into_future());
        tokio::select! {
            ended = &mut server => return ended.unwrap_or_else(|error| Err(io::Error::other(error))),
            () = stop => {}
        }
        tracing::info!("stopping: finishing the originals of live rooms");
        stopping.send_replace(true);
        if tokio::time::timeout(FINISH_LIMIT, control.shutdown()).await.is_err() {
            tracing::error!("some originals were not finished in time; what was acknowledged is on disk");
        }
        // What is being sealed is taken up at the next start.
        drop(last_package);
        if tokio::time::timeout(GOODBYE_LIMIT, sealer).await.is_err() {
            tracing::warn!("the sealer did not stop in time");
        }
        // What is under way may arrive; the rest waits in the database for the next start.
        drop(last_message);
        if tokio::time::timeout(GOODBYE_LIMIT, notifier).await.is_err() {
            tracing::warn!("some webhooks or text messages were cut off; they are sent again at the next start");
        }
        if tokio::time::timeout(GOODBYE_LIMIT, &mut server).await.is_err() {
            server.abort();
        }
        // WebSockets are the server's no more once they are upgraded. Each holds on to the stop signal until it has
        // said goodbye.
        if tokio::time::timeout(GOODBYE_LIMIT, stopping.closed()).await.is_err() {
            tracing::warn!("some clients did not take their goodbye in time");
        }
        for task in upkeep {
            task.abort();
        }
        tracing::info!("stopped");
        Ok(())
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Has what a crash left of recordings cut to what is whole. What cannot be is logged: the node starts all the same, and
/// says so again when the room is sealed.
async fn recover_recordings(folders: Vec<PathBuf>) -> Vec<RecoveredOriginal> {
    let mut originals = Vec::new();
    for folder in folders {
        let recovering = tokio::task::spawn_blocking(move || recover::recover(&folder, log_progress()));
        match recovering.await {
            Ok(Ok(recovery)) => {
                for error in recovery.failed {
                    tracing::error!(%error, "an original could not be recovered");
                }
                originals.extend(recovery.originals);
            }
            Ok(Err(error)) => tracing::error!(%error, "the recordings cannot be looked through"),
            Err(error) => tracing::error!(%error, "looking through the recordings was broken off"),
        }
    }
    originals
}

/// Says every tenth of long work.
fn log_progress() -> impl FnMut(u64, u64) {
    let mut told = 0;
    move |done, total| {
        let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(0);
        if tenth > told {
            told = tenth;
            tracing::info!(percent = tenth * 10, "unfinished recordings are looked through");
        }
    }
}

/// What people would get by SMS if the demo had a gateway.
fn text_message(code: &Secret, office: &str, start: Timestamp) -> Secret {
    notify::sms::text(notify::Language::It, &notify::CodeText { code, office, start })
}

/// Has the rooms' ledgers say how text messages ended.
async fn hear_of_texts(control: Control, mut outcomes: mpsc::Receiver<SmsOutcome>) {
    while let Some(SmsOutcome { id, room, .. }) = outcomes.recv().await {
        if let Err(error) = control.message_settled(room, id).await {
            tracing::warn!(%room, %error, "a text message's end could not be written down");
        }
    }
}

/// Removes from the database what nobody asks for any more, and makes up for what went wrong.
async fn tidy(control: Control, store: Store, clock: Clock) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        let now = clock.now().wall;
        // Twice over: what was settled during a round is in the next one.
        let since = now.saturating_sub(SignedDuration::from_secs(2 * TIDY_EVERY.as_secs().cast_signed()));
        let caught_up = control.catch_up(since.unwrap_or(now)).await;
        if let Err(error) = caught_up.and(store.purge(now).await) {
            tracing::warn!(%error, "the database could not be tidied up");
        }
    }
}

/// Addresses for browsers on this machine: loopback, and the one that the machine uses towards others, because Firefox
/// takes no candidates on 127.0.0.1.
pub fn local_addresses() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    // Connecting a UDP socket sends nothing: it only asks the routing table. The address is one for documentation
    // (RFC 5737), so nobody is meant.
    let towards_others = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).map(|()| socket))
        .and_then(|socket| socket.local_addr());
    if let Ok(address) = towards_others
        && !addresses.contains(&address.ip())
    {
        addresses.push(address.ip());
    }
    addresses
}

fn make_folder(path: &Path, mode: u32) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| StartError::Folder { path: path.into(), source })
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
