//! One person in one room: an SDP offer like the pages', a full ICE agent, a microphone and a camera that can be
//! switched, a network that can be bad or go away, and a careful count of what comes back.

use std::sync::Arc;
use std::time::Instant;

use str0m::RtcConfig;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{Api, ApiError};
use crate::call::{Call, Seen, millis};
use crate::delay::Delays;
use crate::device::DeviceClock;
use crate::events;
use crate::janus::{Door, JanusError};
use crate::light::{self, Light};
use crate::line::{Line, Wire};
use crate::live::Meters;
use crate::media::{Film, Voice};
use crate::network::Network;
use crate::numbered::Record;
use crate::report::ClientReport;
use crate::sdp;

/// Why a client could not take part.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The REST API refused or was away.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// Janus refused or was away.
    #[error("janus: {0}")]
    Janus(#[from] JanusError),
    /// The answer, or the server's packets, were not what WebRTC allows.
    #[error("webrtc: {0}")]
    Rtc(#[from] str0m::RtcError),
    /// The answer is not SDP.
    #[error("the answer is not SDP: {0}")]
    Answer(String),
    /// The answer has no address that this machine can send to.
    #[error("the answer has no usable UDP candidate")]
    NoCandidate,
    /// The socket broke.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The events were refused.
    #[error("events: {0}")]
    Events(Box<tokio_tungstenite::tungstenite::Error>),
    /// The tone could not be encoded.
    #[error("opus: {0}")]
    Opus(#[from] opus::Error),
    /// More is wanted of a light client than it can do.
    #[error("a light client has a clear network, an even clock and a camera that obeys")]
    TooLight,
    /// Something else than light clients is wanted where there is nothing else.
    #[error("before Janus there are light clients only")]
    TooHeavy,
    /// The server chose a protection that light clients do not have.
    #[error("light clients protect their media with AES-GCM only, and the server chose something else")]
    Protection,
    /// The thread of the light clients has ended.
    #[error("the thread of the light clients has ended")]
    LightEnded,
    /// The task ended early.
    #[error("a client's task ended early: {0}")]
    Task(String),
}

impl From<tokio_tungstenite::tungstenite::Error> for ClientError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::Events(Box::new(error))
    }
}

/// One person's part in a call.
pub struct Part {
    /// The server.
    pub api: Api,
    /// The person's session token; they must have been let into the room.
    pub session: String,
    /// The person's role, for the report.
    pub role: String,
    /// What the camera sees.
    pub film: Arc<Film>,
    /// What the microphone hears.
    pub voice: Voice,
    /// Start of the room, which the report's times count from.
    pub began: Instant,
    /// What is unusual about the person, their device and their network. [`Habits::default`]: nothing.
    pub habits: Habits,
}

/// One person's part in a meeting on Janus, as a light client.
pub(crate) struct Guest {
    pub(crate) door: Door,
    /// Name in the room, and role in the report.
    pub(crate) role: String,
    /// How many others there will be.
    pub(crate) others: usize,
    pub(crate) film: Arc<Film>,
    pub(crate) voice: Voice,
    pub(crate) delays: Option<Arc<Delays>>,
    pub(crate) meters: Arc<Meters>,
    /// Start of the room, which the report's times count from.
    pub(crate) began: Instant,
}

/// What is unusual about a person's part.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// Everything that is sent carries its number and is put down here; the same record goes on over re-joins.
    pub record: Option<Arc<Record>>,
    /// What happens to datagrams on the way.
    pub network: Network,
    /// How much faster the device's clock runs than this machine's: RTP timestamps and sender reports run by it.
    pub drift_ppm: i32,
    /// The camera never sends a keyframe, also when it is asked for one.
    pub never_a_keyframe: bool,
    /// Every packet of voice carries the time at which it was sent, and those of others are held against it. Together
    /// with a record only if that stamps ([`Record::stamping`]).
    pub delays: Option<Arc<Delays>>,
    /// Media is driven by this thread, with little CPU, instead of the person's own task. What comes is counted, and not
    /// decrypted but for voices; no repairs are asked for or given. Goes with `record`, `delays` and `meters` and nothing
    /// else of these habits; [`Client::packets`] counts nothing, and a record hears nothing.
    pub light: Option<Light>,
    /// Where packets are counted as they go and come.
    pub meters: Arc<Meters>,
}

impl Habits {
    fn light_alone(&self) -> bool {
        self.network == Network::default() && self.drift_ppm == 0 && !self.never_a_keyframe
    }
}

/// What a person has switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Whether the microphone sends.
    pub microphone: bool,
    /// Whether the camera sends.
    pub camera: bool,
}

impl Devices {
    /// Voice and picture.
    pub const ON: Self = Self { microphone: true, camera: true };
    /// Voice only.
    pub const CAMERA_OFF: Self = Self { microphone: true, camera: false };
    /// Nothing is sent: the person listens.
    pub const OFF: Self = Self { microphone: false, camera: false };
}

/// What is wanted of a connection's task. Only the last word counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    pub(crate) devices: Devices,
    /// How often the streams have been given new SSRCs.
    pub(crate) ssrc_changes: u32,
    /// Somebody else is away: streams may stand still.
    pub(crate) excused: bool,
    pub(crate) going: Going,
}

impl Orders {
    /// As a person is when they come.
    pub(crate) fn with(devices: Devices) -> Self {
        Self { devices, ssrc_changes: 0, excused: false, going: Going::Stays }
    }
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Going {
    Stays,
    HangsUp,
    /// Without goodbye, as when the network is gone.
    Vanishes,
}

/// A media connection of one person. Dropped, it falls silent at once and says goodbye to nobody, as when the network
/// is lost: whoever ends it properly calls [`Client::leave`].
#[derive(Debug)]
pub struct Client {
    orders: watch::Sender<Orders>,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<Result<ClientReport, ClientError>>,
}

impl Client {
    /// Opens the events, posts the offer, and sends voice and picture as soon as the connection stands.
    ///
    /// # Errors
    /// What the server refused, or an answer that cannot be used.
    pub async fn join(part: Part) -> Result<Self, ClientError> {
        let news = events::listen(&part.api, &part.session).await?;
        let (orders, given) = watch::channel(Orders::with(Devices::ON));
        let (tell, seen) = watch::channel(Seen::default());
        if let Some(light) = part.habits.light.clone() {
            if !part.habits.light_alone() {
                return Err(ClientError::TooLight);
            }
            let seat = Box::pin(light::sportello::Seat::take(light, part, tell)).await?;
            return Ok(Self { orders, seen, task: tokio::spawn(seat.hold(given, news)) });
        }
        let clock = DeviceClock::new(part.habits.drift_ppm);
        let (mut rtc, offer, pending, lines) = sdp::offer(RtcConfig::new(), clock.now());
        let posted = Instant::now();
        let (answer, location) = part.api.offer(&part.session, offer).await?;
        let (socket, local) = sdp::answered(&mut rtc, &answer, pending, lines.microphone).await?;
        let report = ClientReport {
            role: part.role.clone(),
            posted_ms: millis(posted.saturating_duration_since(part.began)),
            ..ClientReport::default()
        };
        let wire = Wire::new(socket, local, part.habits.network);
        let call = Call::new(report, &lines, posted, tell, clock, part.habits.clone());
        let line = Line { rtc, clock, wire, location, part, call, orders: given, news };
        Ok(Self { orders, seen, task: tokio::spawn(line.hold()) })
    }

    /// Enters a room of Janus's, publishes, and subscribes to the others as soon as they are there.
    pub(crate) async fn join_janus(light: Light, guest: Guest) -> Result<Self, ClientError> {
        let (orders, given) = watch::channel(Orders::with(Devices::ON));
        let (tell, seen) = watch::channel(Seen::default());
        let seat = Box::pin(light::janus::Seat::take(light, guest, tell)).await?;
        Ok(Self { orders, seen, task: tokio::spawn(seat.hold(given)) })
    }

    /// Switches microphone and camera.
    pub fn switch(&self, devices: Devices) {
        self.orders.send_modify(|orders| orders.devices = devices);
    }

    /// Sends on under new SSRCs, as a browser does that replaces its encoders.
    pub fn change_ssrc(&self) {
        self.orders.send_modify(|orders| orders.ssrc_changes += 1);
    }

    /// Somebody else goes, so that streams may legitimately stand still and are not held against the clock; or is back.
    pub fn excuse(&self, others_away: bool) {
        self.orders.send_modify(|orders| orders.excused = others_away);
    }

    /// Waits until the connection stands (ICE and DTLS). False: it ended before.
    pub async fn connected(&mut self) -> bool {
        self.seen.wait_for(|seen| seen.connected).await.is_ok()
    }

    /// Media packets that have come so far, from everyone.
    pub fn packets(&self) -> u64 {
        self.seen.borrow().packets.values().sum()
    }

    /// Media packets that have come so far on the m-lines that show this participant's source (`microphone`,
    /// `camera`, …) now.
    pub fn packets_of(&self, participant: &str, source: &str) -> u64 {
        let seen = self.seen.borrow();
        let shown = seen.slots.values().filter(|slot| slot.participant_id == participant && slot.source == source);
        shown.filter_map(|slot| seen.packets.get(&slot.mid)).sum()
    }

    /// The network is gone: no goodbye, no further packet.
    pub fn lose_network(&self) {
        self.task.abort();
    }

    /// Hangs up; gives what was seen.
    ///
    /// # Errors
    /// What ended the call earlier, or the server refusing the goodbye.
    pub async fn leave(self) -> Result<ClientReport, ClientError> {
        self.go(Going::HangsUp).await
    }

    /// As [`Client::lose_network`], and gives what was seen until then.
    ///
    /// # Errors
    /// What ended the call earlier.
    pub async fn vanish(self) -> Result<ClientReport, ClientError> {
        self.go(Going::Vanishes).await
    }

    async fn go(mut self, how: Going) -> Result<ClientReport, ClientError> {
        self.orders.send_modify(|orders| orders.going = how);
        (&mut self.task).await.map_err(|error| ClientError::Task(error.to_string()))?
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}
