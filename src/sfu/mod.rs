//! The media workers: one thread, one UDP port and one event loop each. A room lives on one worker, so nothing
//! on a packet's way takes a lock.
//!
//! `control` tells a worker what may flow; the worker tells `control` what it saw ([`Fact`]). A room's packets
//! go to the recorder through the room's [`Tap`](crate::rtp::Tap) before they go to anyone else.

mod crowd;
mod demux;
mod egress;
mod forward;
mod ingress;
mod keepalive;
mod keys;
#[doc(hidden)]
pub mod laps;
mod load;
#[doc(hidden)]
pub mod measure;
mod media;
mod meters;
mod negotiated;
mod path;
mod peer;
mod reflect;
mod room;
mod sdp;
mod socket;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use mio::Waker;
use rustix::thread::{CpuSet, sched_setaffinity};
use str0m::config::DtlsCert;
use tokio::sync::{mpsc, oneshot};

use self::load::{Load, LoadMeter};
use self::meters::Meters;
use self::peer::{Peer, Site};
use self::socket::Socket;
use self::worker::{Command, Worker};

use crate::clock::{Clock, MonoTime};
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;
use crate::rtp::Tap;

/// Where and how wide the workers listen.
#[derive(Clone, Debug)]
pub struct SfuConfig {
    /// Worker threads.
    pub workers: usize,
    /// Address that the UDP sockets are bound to.
    pub bind: IpAddr,
    /// Whether each worker keeps to a core of its own.
    pub pinned: bool,
    /// UDP port of the first worker; the next ones follow. 0: any free port each.
    pub first_port: u16,
    /// Addresses to announce in answers; empty: those of the machine's interfaces.
    pub announce: Vec<IpAddr>,
    /// Longest time since the recorder's last acknowledgement with media still flowing (EVIDENCE.md, case 3). Longer
    /// forwards more that may turn out not to be recorded; shorter stops rooms on an ordinary sync pause.
    pub longest_silence: Duration,
}

/// Handle on the media workers. Clones speak to the same workers.
#[derive(Clone, Debug)]
pub struct Sfu {
    workers: Arc<[Handle]>,
    placed: Arc<DashMap<RoomId, usize>>,
}

/// One worker as seen from outside.
#[derive(Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    waker: Waker,
    site: Site,
    rooms: AtomicUsize,
    load: Load,
}

/// What a participant asks for when they connect.
#[derive(Clone, Debug)]
pub struct Join {
    /// Name of the new connection.
    pub connection: ConnectionId,
    /// Whose it is. An earlier connection of theirs is ended.
    pub participant: ParticipantId,
    /// The SDP offer as it came in.
    pub offer: String,
}

/// What a worker saw, told to the room's actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// ICE and DTLS are done.
    Connected {
        /// Which connection.
        connection: ConnectionId,
    },
    /// The connection is gone: closed, replaced or silent for too long.
    Disconnected {
        /// Which connection.
        connection: ConnectionId,
        /// When its last datagram came.
        last_seen: MonoTime,
    },
    /// A source began to send, or fell silent.
    SourceChanged {
        /// Over which connection.
        connection: ConnectionId,
        /// Which source.
        source: Source,
        /// Whether media arrives.
        active: bool,
        /// Its first packet if it began, its last if it fell silent.
        since: MonoTime,
    },
    /// What this receiver's slots show now.
    Slots {
        /// The receiver.
        connection: ConnectionId,
        /// Its used slots.
        slots: Vec<Slot>,
    },
    /// The tap took a packet no more: the worker has stopped this room's media on its own.
    TapFailed {
        /// Why.
        error: crate::rtp::TapError,
    },
}

/// One receive-only m-line and what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The m-line's `mid` in the receiver's SDP.
    pub mid: String,
    /// Whose media.
    pub participant: ParticipantId,
    /// Which source.
    pub source: Source,
}

/// Why an offer was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The offer is not SDP that we understand. Caller's fault.
    #[error("the offer is not valid SDP: {0}")]
    BadOffer(String),
    /// The offer has no audio or video that we can answer (Opus, VP8). Caller's fault.
    #[error("the offer has no m-line with Opus or VP8 that could be answered")]
    NothingToAnswer,
    /// The room or the connection is not on any worker.
    #[error("no such media session")]
    Unknown,
    /// The worker is gone or full.
    #[error("the media worker does not answer")]
    Unavailable,
}

/// Why the workers did not start. Configuration's or the system's fault.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A UDP port could not be opened.
    #[error("cannot listen on udp {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The machine has no address to announce.
    #[error("no address to announce: set media.announce")]
    NoAddress,
    /// A thread or its event loop could not be started.
    #[error("cannot start a media worker: {0}")]
    Thread(std::io::Error),
    /// The certificate for DTLS could not be made.
    #[error("cannot make a DTLS certificate")]
    Certificate,
}

/// From the NTP epoch (1900) to the Unix epoch (RFC 5905 §6).
const NTP_UNIX_OFFSET: Duration = Duration::from_hours(613_608);

/// Commands that wait for a worker; the caller waits when it is full. A worker takes them all at every turn of its
/// loop, so a fuller queue means that it does not turn.
const MOST_COMMANDS: usize = 1_024;

/// How long a worker may take to close a room; it takes a turn of its loop. Longer holds up a room's end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

impl Sfu {
    /// Opens the sockets and starts the threads.
    pub fn start(config: &SfuConfig, clock: Clock) -> Result<Self, StartError> {
        let announced: Arc<[IpAddr]> =
            if config.announce.is_empty() { interface_addresses()?.into() } else { config.announce.clone().into() };
        let certificate = certificate().ok_or(StartError::Certificate)?;
        let crypto = Arc::new(keys::provider());
        let epoch = since_1900(clock);
        let mut workers = Vec::new();
        for index in 0..config.workers.max(1) {
            let offset = u16::try_from(index).unwrap_or(u16::MAX);
            let port = if config.first_port == 0 { 0 } else { config.first_port.saturating_add(offset) };
            let address = SocketAddr::new(config.bind, port);
            let bind_error = |source| StartError::Bind { address, source };
            let socket = Socket::bind(address).map_err(bind_error)?;
            let port = socket.port().map_err(bind_error)?;
            let (commands, receiver) = mpsc::channel(MOST_COMMANDS);
            let (meters, load) = (Meters::new(index), Load::default());
            let meter = LoadMeter::new(load.clone(), meters.load.clone(), clock.mono());
            let (worker, waker) = Worker::new(clock, socket, receiver, meters, meter, config.longest_silence)
                .map_err(StartError::Thread)?;
            let core = config.pinned.then_some(index);
            std::thread::Builder::new()
                .name(format!("media-{index}"))
                .spawn(move || {
                    core.into_iter().for_each(keep_to_core);
                    worker.run();
                })
                .map_err(StartError::Thread)?;
            let (announced, certificate, crypto) = (Arc::clone(&announced), certificate.clone(), Arc::clone(&crypto));
            let site = Site { clock, announced, port, certificate, crypto, epoch };
            workers.push(Handle { commands, waker, site, rooms: AtomicUsize::new(0), load });
        }
        Ok(Self { workers: workers.into(), placed: Arc::default() })
    }

    /// The workers' UDP ports.
    pub fn ports(&self) -> Vec<u16> {
        self.workers.iter().map(|worker| worker.site.port).collect()
    }

    /// The addresses that answers announce.
    pub fn announced(&self) -> Vec<IpAddr> {
        self.workers.first().map(|worker| worker.site.announced.to_vec()).unwrap_or_default()
    }

    /// Where a page may ask whether UDP comes through (STUN).
    pub fn reflectors(&self) -> Vec<SocketAddr> {
        let addresses = |worker: &Handle| {
            let port = worker.site.port;
            worker.site.announced.iter().map(move |&ip| SocketAddr::new(ip, port)).collect()
        };
        self.workers.first().map(addresses).unwrap_or_default()
    }

    /// Whether every worker is so busy that a further room would cost those that are there.
    pub fn is_full(&self) -> bool {
        self.workers.iter().all(|worker| worker.is_full() || worker.commands.is_closed())
    }

    /// Places a room on the least busy worker, among equals on the one with the fewest rooms. Nothing flows until
    /// [`Sfu::set_flow`].
    pub async fn open_room(&self, room: RoomId, tap: Tap, facts: mpsc::Sender<Fact>) -> Result<(), ConnectError> {
        let least = |(_, worker): &(usize, &Handle)| {
            let rooms = worker.rooms.load(Ordering::Relaxed);
            (worker.load.tenths(rooms, worker.site.clock.mono()), rooms)
        };
        let alive = |(_, worker): &(usize, &Handle)| !worker.commands.is_closed();
        let workers = self.workers.iter().enumerate().filter(alive);
        let (index, worker) = workers.min_by_key(least).ok_or(ConnectError::Unavailable)?;
        let (done, opened) = oneshot::channel();
        // Placed first: whoever stops waiting for the answer can still close what the worker opens.
        self.placed.insert(room, index);
        worker.rooms.fetch_add(1, Ordering::Relaxed);
        worker.load.expect_room(worker.site.clock.mono());
        worker.send(Command::OpenRoom { room, tap, facts, done }).await?;
        opened.await.map_err(|_| ConnectError::Unavailable)
    }

    /// Answers an offer. The answer is final: its candidates are the server's own.
    pub async fn connect(&self, room: RoomId, join: Join) -> Result<String, ConnectError> {
        let worker = self.worker(room).ok_or(ConnectError::Unknown)?;
        // SDP is parsed here, off the media thread; hostile input that breaks the parser breaks this call only.
        let accept = || Peer::accept(&worker.site, &join.offer);
        let (peer, answer) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(accept))
            .unwrap_or_else(|_| Err(ConnectError::BadOffer("it could not be processed".into())))?;
        let (done, connected) = oneshot::channel();
        let (connection, participant) = (join.connection, join.participant);
        worker.send(Command::Connect { room, connection, participant, peer: Box::new(peer), done }).await?;
        connected.await.map_err(|_| ConnectError::Unavailable)??;
        Ok(answer)
    }

    /// Takes a client's new ICE credentials (a `trickle-ice-sdpfrag` body, RFC 8840) and returns the server's as
    /// the same kind of body. `None`: the fragment held only candidates, which an ICE-lite server does not need.
    pub async fn restart_ice(
        &self,
        room: RoomId,
        connection: ConnectionId,
        fragment: String,
    ) -> Result<Option<String>, ConnectError> {
        let worker = self.worker(room).ok_or(ConnectError::Unknown)?;
        let (done, restarted) = oneshot::channel();
        worker.send(Command::RestartIce { room, connection, fragment, done }).await?;
        restarted.await.map_err(|_| ConnectError::Unavailable)?
    }

    /// Lets media flow between everyone in the room, or stops it. A source is forwarded only once its own
    /// recording has begun.
    pub async fn set_flow(&self, room: RoomId, flow: bool) {
        self.tell(room, Command::SetFlow { room, flow }).await;
    }

    /// Has the room's media go into this tap from here on, and asks every picture for a keyframe; `None`: into none,
    /// and nothing flows. Each source is forwarded again once its recording has begun again.
    pub async fn set_tap(&self, room: RoomId, tap: Option<Tap>) {
        self.tell(room, Command::SetTap { room, tap }).await;
    }

    /// Asks a source for a keyframe, unless one was asked for a moment ago.
    pub async fn ask_for_keyframe(&self, room: RoomId, connection: ConnectionId, source: Source) {
        self.tell(room, Command::AskForKeyframe { room, connection, source }).await;
    }

    /// Says that the first write that holds a source is on disk: it may be forwarded.
    pub async fn recording_started(&self, room: RoomId, connection: ConnectionId, source: Source) {
        self.tell(room, Command::RecordingStarted { room, connection, source }).await;
    }

    /// Ends a connection; [`Fact::Disconnected`] follows.
    pub async fn disconnect(&self, room: RoomId, connection: ConnectionId) {
        self.tell(room, Command::Disconnect { room, connection }).await;
    }

    /// Ends all connections of a room and forgets it; the tap is closed. When this returns, nothing flows any more.
    pub async fn close_room(&self, room: RoomId) {
        let (done, closed) = oneshot::channel();
        self.tell(room, Command::CloseRoom { room, done }).await;
        // A worker that is gone answers at once, by dropping its end.
        let _ = tokio::time::timeout(CLOSE_WITHIN, closed).await;
        if let Some((_, index)) = self.placed.remove(&room)
            && let Some(worker) = self.workers.get(index)
        {
            worker.rooms.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn worker(&self, room: RoomId) -> Option<&Handle> {
        let index = *self.placed.get(&room)?;
        self.workers.get(index)
    }

    async fn tell(&self, room: RoomId, command: Command) {
        if let Some(worker) = self.worker(room)
            && worker.send(command).await.is_err()
        {
            tracing::error!(%room, "the room's media worker is gone");
        }
    }
}

impl Handle {
    fn is_full(&self) -> bool {
        self.load.is_full(self.rooms.load(Ordering::Relaxed), self.site.clock.mono())
    }

    async fn send(&self, command: Command) -> Result<(), ConnectError> {
        self.commands.send(command).await.map_err(|_| ConnectError::Unavailable)?;
        self.waker.wake().map_err(|_| ConnectError::Unavailable)
    }
}

/// Keeps this thread to one of the machine's cores. Where that is not possible it runs where the system puts it.
fn keep_to_core(core: usize) {
    let mut cores = CpuSet::new();
    if core < CpuSet::MAX_CPU {
        cores.set(core);
    }
    if let Err(error) = sched_setaffinity(None, &cores) {
        tracing::warn!(core, %error, "a media worker has no core of its own");
    }
}

/// The addresses under which this machine can be reached, loopback only where there is no other.
fn interface_addresses() -> Result<Vec<IpAddr>, StartError> {
    let interfaces = if_addrs::get_if_addrs().map_err(|_| StartError::NoAddress)?;
    let usable = |loopback: bool| {
        let mut addresses: Vec<IpAddr> = interfaces
            .iter()
            .filter(|interface| interface.is_loopback() == loopback && !interface.is_link_local())
            .map(if_addrs::Interface::ip)
            .filter(IpAddr::is_ipv4)
            .collect();
        addresses.dedup();
        addresses
    };
    let addresses = if usable(false).is_empty() { usable(true) } else { usable(false) };
    if addresses.is_empty() { Err(StartError::NoAddress) } else { Ok(addresses) }
}

/// Time since 1900 at the zero of the node's clock (RFC 5905 §6). It is read once: reports' time must not jump.
fn since_1900(clock: Clock) -> Duration {
    let now = clock.now();
    let wall = Duration::try_from(now.wall.duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap_or_default();
    (wall + NTP_UNIX_OFFSET).saturating_sub(Duration::from_nanos(now.mono.as_nanos()))
}

fn certificate() -> Option<DtlsCert> {
    str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
}

#[cfg(test)]
#[path = "conformance/tests.rs"]
mod conformance;
#[cfg(test)]
mod tests;
