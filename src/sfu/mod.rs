//! The media workers: one thread, one UDP port and one event loop each. A room lives on one worker, so nothing
//! on a packet's way takes a lock.
//!
//! `control` tells a worker what may flow; the worker tells `control` what it saw ([`Fact`]). A room's packets
//! go to the recorder through the room's [`Tap`](crate::rtp::Tap) before they go to anyone else.

use std::net::IpAddr;

use tokio::sync::mpsc;

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
    /// UDP port of the first worker; the next ones follow. 0: any free port each.
    pub first_port: u16,
    /// Addresses to announce in answers; empty: those of the machine's interfaces.
    pub announce: Vec<IpAddr>,
}

/// Handle on the media workers. Clones speak to the same workers.
#[derive(Clone, Debug)]
pub struct Sfu {}

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
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The machine has no address to announce.
    #[error("no address to announce: set media.announce")]
    NoAddress,
    /// A thread could not be started.
    #[error("cannot start a media worker: {0}")]
    Thread(std::io::Error),
}

#[expect(clippy::todo, clippy::unused_async, unused_variables, reason = "being written")]
impl Sfu {
    /// Opens the sockets and starts the threads.
    pub fn start(config: &SfuConfig, clock: Clock) -> Result<Self, StartError> {
        todo!()
    }

    /// Places a room on the least loaded worker. Nothing flows until [`Sfu::set_flow`].
    pub async fn open_room(&self, room: RoomId, tap: Tap, facts: mpsc::Sender<Fact>) -> Result<(), ConnectError> {
        todo!()
    }

    /// Answers an offer. The answer is final: its candidates are the server's own.
    pub async fn connect(&self, room: RoomId, join: Join) -> Result<String, ConnectError> {
        todo!()
    }

    /// Takes a client's new ICE credentials (a `trickle-ice-sdpfrag` body, RFC 8840) and returns the server's as
    /// the same kind of body. `None`: the fragment held only candidates, which an ICE-lite server does not need.
    pub async fn restart_ice(
        &self,
        room: RoomId,
        connection: ConnectionId,
        fragment: String,
    ) -> Result<Option<String>, ConnectError> {
        todo!()
    }

    /// Lets media flow between everyone in the room, or stops it. A source is forwarded only once its own
    /// recording has begun.
    pub async fn set_flow(&self, room: RoomId, flow: bool) {
        todo!()
    }

    /// Says that a connection's original has its first write on disk: its media may be forwarded.
    pub async fn recording_started(&self, room: RoomId, connection: ConnectionId) {
        todo!()
    }

    /// Ends a connection; [`Fact::Disconnected`] follows.
    pub async fn disconnect(&self, room: RoomId, connection: ConnectionId) {
        todo!()
    }

    /// Ends all connections of a room and forgets it; the tap is closed.
    pub async fn close_room(&self, room: RoomId) {
        todo!()
    }
}
