//! Light clients: many of them for little CPU, so that one core can load another.
//!
//! A client of its own costs more than what a server spends on it: a wake-up for every datagram, and a whole WebRTC stack
//! that every packet walks through. Here one thread drives the media of all:
//!
//! ```text
//! task of a client (connection): ICE, DTLS, consent by str0m ── keys, orders ──> thread (engine), every 250 us:
//!                                                                                send what is due, receive all that waits
//!        ^─────────────────────── STUN, DTLS ─────────────────────────────────── count, open voices, answer wishes for keyframes
//! ```
//!
//! Who makes offers and carries them is another matter with each server (`sportello`, `janus`).
//!
//! The DTLS keys are taken out of `str0m` (`keys`), which so sends and reads nothing but STUN and DTLS; RTP and the little
//! RTCP are sealed and opened here (`srtp`, `rtcp`). Before a server on the loopback all share one socket, each with an
//! address of its own in 127.16.0.0/12; before others each has a socket.
//!
//! A packet of voice carries in its payload when it was sent, to the nanosecond, and the kernel says when it came: a delay is
//! the whole way from the send call to the receiver's socket, and the thread's turns are no part of it. The buckets of
//! [`crate::delay`] resolve a microsecond at best.
//!
//! What light clients do not: receiver reports and transport-wide feedback, asking for lost packets and sending lost ones again.
//! They send each packet by itself, as browsers do.

mod connection;
mod engine;
mod header;
pub(crate) mod janus;
mod keys;
mod person;
mod rtcp;
mod socket;
pub(crate) mod sportello;
mod srtp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use str0m::config::CryptoProvider;

use self::engine::{Command, Engine};
use self::socket::Port;
use crate::client::ClientError;
use crate::delay::Delays;
use crate::sdp;

/// First address of the loopback that clients take; the servers and other tests stay below.
const FIRST_ADDRESS: u32 = Ipv4Addr::new(127, 16, 0, 1).to_bits();

/// The thread that drives light clients. It ends with the last clone and the last client.
#[derive(Clone, Debug)]
pub struct Light(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    commands: Sender<Command>,
    crypto: Arc<CryptoProvider>,
    /// The socket before servers on the loopback, once there is one.
    common: Mutex<Option<Arc<Port>>>,
    /// Clients on it so far. An address is not used again, so that nothing that comes late meets another client.
    places: AtomicU32,
    meters: Arc<Meters>,
}

/// What the thread tells while it runs.
#[derive(Debug, Default)]
struct Meters {
    packets: AtomicU64,
    /// Those of them that came.
    received: AtomicU64,
    cpu_ns: AtomicU64,
    unopened: AtomicU64,
    /// Of sockets that are gone.
    dropped: AtomicU64,
    late: Delays,
}

/// How the thread fared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LightFigures {
    /// Packets of media sent and received.
    pub packets: u64,
    /// Microseconds of the thread's CPU for each: sealing, sending, receiving, counting.
    pub cpu_us_per_packet: f64,
    /// 99 of 100 packets and frames were sent at most so long after they were due, milliseconds.
    pub late_p99_ms: f64,
    /// The latest, milliseconds.
    pub late_max_ms: f64,
    /// Datagrams that were lost in the tool's own full sockets: they count as missing, and the server is not to blame.
    pub dropped: u64,
    /// Packets of voice that could not be decrypted.
    pub unopened: u64,
}

impl Light {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (commands, told) = channel();
        let meters = Arc::<Meters>::default();
        let engine = Engine::new(told, Arc::clone(&meters))?;
        std::thread::Builder::new().name("light".into()).spawn(move || engine.run())?;
        let (common, places) = (Mutex::default(), AtomicU32::new(0));
        let crypto = Arc::new(keys::provider());
        Ok(Self(Arc::new(Shared { commands, crypto, common, places, meters })))
    }

    /// What was done so far.
    #[expect(clippy::cast_precision_loss, reason = "microseconds with some decimals")]
    pub fn figures(&self) -> LightFigures {
        let Shared { meters, common, .. } = &*self.0;
        let common = common.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (packets, cpu_ns) = (meters.packets.load(Ordering::Relaxed), meters.cpu_ns.load(Ordering::Relaxed));
        let late = meters.late.figures();
        LightFigures {
            packets,
            cpu_us_per_packet: cpu_ns as f64 / 1_000.0 / packets.max(1) as f64,
            late_p99_ms: late.p99_ms,
            late_max_ms: late.max_ms,
            dropped: meters.dropped.load(Ordering::Relaxed) + common.map_or(0, |port| port.dropped()),
            unopened: meters.unopened.load(Ordering::Relaxed),
        }
    }

    /// Packets of media that have come so far, to all clients.
    pub(crate) fn received(&self) -> u64 {
        self.0.meters.received.load(Ordering::Relaxed)
    }

    fn tell(&self, command: Command) -> Result<(), ClientError> {
        self.0.commands.send(command).map_err(|_| ClientError::LightEnded)
    }

    /// A socket and an address for another connection to the server that an offer or answer is from.
    async fn place(&self, sdp: &str) -> Result<(Arc<Port>, SocketAddr), ClientError> {
        let servers = sdp::candidates(sdp);
        if servers.iter().any(|server| server.is_ipv4() && server.ip().is_loopback()) {
            let port = self.common()?;
            let place = self.0.places.fetch_add(1, Ordering::Relaxed);
            let address = IpAddr::from(Ipv4Addr::from_bits(FIRST_ADDRESS + place));
            let local = SocketAddr::new(address, port.bound().port());
            return Ok((port, local));
        }
        for server in servers {
            if let Some(ip) = sdp::facing(server).await
                && let Ok(port) = Port::bind(SocketAddr::new(ip, 0))
            {
                let local = port.bound();
                return Ok((Arc::new(port), local));
            }
        }
        Err(ClientError::NoCandidate)
    }

    fn common(&self) -> io::Result<Arc<Port>> {
        let mut common = self.0.common.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = &*common {
            return Ok(Arc::clone(port));
        }
        let port = Arc::new(Port::bind(SocketAddr::from(([0, 0, 0, 0], 0)))?);
        *common = Some(Arc::clone(&port));
        Ok(port)
    }

    /// A client is about to let go of its port.
    fn count_dropped(&self, port: &Arc<Port>) {
        let common = self.0.common.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if common.is_none_or(|common| !Arc::ptr_eq(&common, port)) {
            self.0.meters.dropped.fetch_add(port.dropped(), Ordering::Relaxed);
        }
    }
}

/// Nanoseconds of CPU that this process has taken so far, all threads.
pub(crate) fn process_cpu_ns() -> u64 {
    engine::nanos_of(rustix::time::ClockId::ProcessCPUTime)
}
