//! One person in one room: an SDP offer like the pages', a full ICE agent, a microphone and a camera that can be
//! switched, a network that can go away, and a careful count of what comes back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Receive};
use str0m::{Input, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::{Api, ApiError};
use crate::call::{Call, Seen, millis};
use crate::events::{self, Slot};
use crate::media::{Film, VOICE_STEP, Voice};
use crate::report::ClientReport;
use crate::sdp;

/// Datagrams are at most this long on any path that we know.
const DATAGRAM: usize = 2_000;

/// Why a client could not take part.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The REST API refused or was away.
    #[error("{0}")]
    Api(#[from] ApiError),
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

#[derive(Clone, Copy, Debug)]
enum Order {
    Send(Devices),
    Leave,
}

/// A media connection of one person. Dropped, it falls silent at once and says goodbye to nobody, as when the network
/// is lost: whoever ends it properly calls [`Client::leave`].
#[derive(Debug)]
pub struct Client {
    orders: watch::Sender<Order>,
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
        let (mut rtc, offer, pending, lines) = sdp::offer();
        let posted = Instant::now();
        let (answer, location) = part.api.offer(&part.session, offer).await?;
        let (socket, local) = sdp::answered(&mut rtc, &answer, pending).await?;
        let report = ClientReport {
            role: part.role.clone(),
            posted_ms: millis(posted.saturating_duration_since(part.began)),
            ..ClientReport::default()
        };
        let (orders, given) = watch::channel(Order::Send(Devices::ON));
        let (tell, seen) = watch::channel(Seen::default());
        let call = Call::new(report, &lines, posted, tell);
        let line = Line { rtc, socket, local, location, part, call, orders: given, news };
        Ok(Self { orders, seen, task: tokio::spawn(line.hold()) })
    }

    /// Switches microphone and camera.
    pub fn switch(&self, devices: Devices) {
        self.orders.send_replace(Order::Send(devices));
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
    pub fn lose_network(self) {
        self.task.abort();
    }

    /// Hangs up; gives what was seen.
    ///
    /// # Errors
    /// What ended the call earlier, or the server refusing the goodbye.
    pub async fn leave(mut self) -> Result<ClientReport, ClientError> {
        self.orders.send_replace(Order::Leave);
        (&mut self.task).await.map_err(|error| ClientError::Task(error.to_string()))?
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection that is held by its task.
struct Line {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    location: String,
    part: Part,
    call: Call,
    orders: watch::Receiver<Order>,
    news: mpsc::Receiver<HashMap<String, Slot>>,
}

impl Line {
    async fn hold(self) -> Result<ClientReport, ClientError> {
        let Self { mut rtc, socket, local, location, part, mut call, mut orders, mut news } = self;
        let mut datagram = vec![0; DATAGRAM];
        let mut voice = Pace::new(VOICE_STEP);
        let mut film = Pace::new(part.film.step);
        let mut sending = Devices::OFF;
        loop {
            let deadline = call.drain(&mut rtc, &socket).await?;
            let ordered = match *orders.borrow_and_update() {
                Order::Leave => break,
                Order::Send(devices) if call.connected => devices,
                Order::Send(_) => Devices::OFF,
            };
            if ordered.microphone && !sending.microphone {
                voice.restart();
                call.begin_to_speak();
            }
            if ordered.camera && !sending.camera {
                film.restart();
                call.begin_with_keyframe();
            }
            if sending.microphone && !ordered.microphone {
                call.quiet();
            }
            sending = ordered;
            tokio::select! {
                received = socket.recv_from(&mut datagram) => {
                    let (length, source) = received?;
                    let bytes = datagram.get(..length).unwrap_or_default();
                    if let Ok(receive) = Receive::new(Protocol::Udp, source, local, bytes) {
                        rtc.handle_input(Input::Receive(Instant::now(), receive))?;
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => rtc.handle_input(Input::Timeout(Instant::now()))?,
                () = voice.next(), if sending.microphone => call.speak(&mut rtc, &part.voice),
                () = film.next(), if sending.camera => call.show(&mut rtc, &part.film),
                Some(slots) = news.recv() => call.show_in(slots),
                // The order itself is looked at above; without a giver of orders the task was aborted already.
                _ = orders.changed() => {}
            }
        }
        part.api.hang_up(&part.session, &location).await?;
        Ok(call.finish())
    }
}

/// Even steps of time. Steps that were missed are caught up on, since a microphone does not skip.
struct Pace {
    step: Duration,
    next: Instant,
}

impl Pace {
    fn new(step: Duration) -> Self {
        Self { step, next: Instant::now() }
    }

    fn restart(&mut self) {
        self.next = Instant::now();
    }

    /// Waits for the next step. Safe to drop and call again: the step is taken only when it is reached.
    async fn next(&mut self) {
        tokio::time::sleep_until(self.next.into()).await;
        self.next += self.step;
    }
}
