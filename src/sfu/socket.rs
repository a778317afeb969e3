//! A worker's UDP socket: datagrams in by batches (recvmmsg, GRO), out by batches (GSO), as far as the kernel goes.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

/// Kernel buffer in each direction: 50 ms of a fully loaded worker (about 1 Gbit/s). Smaller drops bursts, larger
/// only adds delay.
const KERNEL_BUFFER: usize = 8 << 20;

/// Largest datagram that we take in; a larger one is cut and then refused by its authentication.
const LARGEST_DATAGRAM: usize = 1_600;

/// Bytes that one GSO send may carry: a UDP payload's limit, less headers.
const LARGEST_SEND: usize = 65_000;

/// A datagram's way: from where it came, or to where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The far end.
    pub(super) remote: SocketAddr,
    /// Our own address that it was sent to, and that an answer leaves from.
    pub(super) local: Option<IpAddr>,
}

/// A worker's socket with what waits to be sent.
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    outgoing: Outgoing,
}

impl Socket {
    /// Binds the socket and registers nothing yet.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let io = UdpSocket::bind(address)?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        for (way, set) in [
            ("receive", state.set_recv_buffer_size(UdpSockRef::from(&io), KERNEL_BUFFER)),
            ("send", state.set_send_buffer_size(UdpSockRef::from(&io), KERNEL_BUFFER)),
        ] {
            if let Err(error) = set {
                tracing::warn!(%error, way, wanted = KERNEL_BUFFER, "the kernel did not take the socket buffer's size");
            }
        }
        for (granted, limit) in [
            (state.recv_buffer_size(UdpSockRef::from(&io))?, "net.core.rmem_max"),
            (state.send_buffer_size(UdpSockRef::from(&io))?, "net.core.wmem_max"),
        ] {
            if granted < KERNEL_BUFFER {
                tracing::warn!(granted, wanted = KERNEL_BUFFER, "the system caps a socket buffer: raise {limit}");
            }
        }
        Ok(Self { io, state, outgoing: Outgoing::default() })
    }

    /// The port that the socket is bound to.
    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.io.local_addr()?.port())
    }

    /// For registration with the event loop.
    pub(super) fn source(&mut self) -> &mut UdpSocket {
        &mut self.io
    }

    /// Memory for one batch of received datagrams.
    pub(super) fn inbox(&self) -> Inbox {
        let room = LARGEST_DATAGRAM * self.state.gro_segments();
        let bytes = vec![0; BATCH_SIZE * room];
        Inbox { bytes, metas: vec![RecvMeta::default(); BATCH_SIZE], room, filled: 0 }
    }

    /// Takes in one batch. `false`: nothing was waiting.
    pub(super) fn receive(&mut self, inbox: &mut Inbox) -> io::Result<bool> {
        let mut places = inbox.bytes.chunks_mut(inbox.room.max(1));
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(places.next().unwrap_or_default()));
        inbox.filled = 0;
        match self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut inbox.metas) {
            Ok(filled) => {
                inbox.filled = filled;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // An ICMP error of an earlier send shows up here: it concerns one receiver, not the socket.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted) => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a datagram into the send batch.
    pub(super) fn send(&mut self, route: Route, contents: &[u8]) {
        if let Some(room) = self.outgoing.room_for(&mut Lane::default(), route, contents.len(), 1) {
            room.copy_from_slice(contents);
        }
    }

    /// Room for a datagram in the send batch, to be filled at once. What goes down one lane is joined into as few sends
    /// as the kernel allows. `None`: it is longer than any send.
    pub(super) fn room_for(&mut self, lane: &mut Lane, route: Route, length: usize) -> Option<&mut [u8]> {
        self.outgoing.room_for(lane, route, length, self.state.max_gso_segments())
    }

    /// Sends the batch; returns how many datagrams the kernel did not take. Media may be lost, and is counted.
    pub(super) fn flush(&mut self) -> usize {
        let mut lost = 0;
        for run in &self.outgoing.runs {
            let transmit = Transmit {
                destination: run.route.remote,
                ecn: None,
                contents: run.contents(),
                segment_size: (run.datagrams > 1).then_some(run.segment),
                src_ip: run.route.local,
            };
            if let Err(error) = self.state.try_send(UdpSockRef::from(&self.io), &transmit) {
                tracing::debug!(%error, "datagrams not sent");
                lost += run.datagrams;
            }
        }
        self.outgoing.clear();
        lost
    }

    /// Lets the batch go unsent, for benches.
    pub(super) fn discard(&mut self) {
        self.outgoing.clear();
    }

    /// Takes the batch instead of sending it.
    #[cfg(test)]
    pub(super) fn take_outgoing(&mut self) -> Vec<(Route, Vec<u8>)> {
        let cut = |run: &Run| -> Vec<_> {
            run.contents().chunks(run.segment.max(1)).map(|datagram| (run.route, datagram.to_vec())).collect()
        };
        let datagrams = self.outgoing.runs.iter().flat_map(cut).collect();
        self.outgoing.clear();
        datagrams
    }
}

/// One batch of received datagrams.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    metas: Vec<RecvMeta>,
    /// Bytes of each place in `bytes`.
    room: usize,
    filled: usize,
}

impl Inbox {
    /// Whether nothing was taken in.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Holds nothing and takes no memory: stands in while a batch is worked on.
    pub(super) fn empty() -> Self {
        Self { bytes: Vec::new(), metas: Vec::new(), room: 0, filled: 0 }
    }

    /// Whether the batch took in as much as it can: more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.metas.len()
    }

    /// The datagrams of the batch, those that the kernel had merged (GRO) taken apart. They may be worked on in place.
    pub(super) fn datagrams(&mut self) -> impl Iterator<Item = (Route, &mut [u8])> {
        let places = self.bytes.chunks_mut(self.room.max(1));
        places.zip(&self.metas).take(self.filled).flat_map(|(bytes, meta)| {
            let route = Route { remote: meta.addr, local: meta.dst_ip };
            let filled = bytes.get_mut(..meta.len).unwrap_or_default();
            filled.chunks_mut(meta.stride.max(1)).map(move |datagram| (route, datagram))
        })
    }
}

/// Where a receiver's datagrams were put last: the run that the next may join.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane {
    turn: u64,
    run: usize,
}

/// Buffers that are kept for the next turns. A worker in full load fills some hundred; more are given back.
const MOST_SPARE: usize = 512;

/// Datagrams that wait for the flush, those to one receiver joined into runs for GSO. Packets of one frame come in one
/// after the other and go to several receivers each, so every receiver has a run of its own to join.
struct Outgoing {
    /// Counted from one: a lane that was never used is of no turn.
    turn: u64,
    runs: Vec<Run>,
    spare: Vec<Vec<u8>>,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { turn: 1, runs: Vec::new(), spare: Vec::new() }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Run {
    route: Route,
    /// What is sent, and behind it what an earlier turn left.
    bytes: Vec<u8>,
    filled: usize,
    /// Size of each datagram; only the last may be smaller.
    segment: usize,
    datagrams: usize,
}

impl Run {
    fn contents(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    fn takes(&self, route: Route, length: usize, most_segments: usize) -> bool {
        self.route == route
            // A smaller one ends the run.
            && self.filled == self.segment * self.datagrams
            && (1..=self.segment).contains(&length)
            && self.datagrams < most_segments
            && self.filled + length <= LARGEST_SEND
    }
}

impl Outgoing {
    fn room_for(&mut self, lane: &mut Lane, route: Route, length: usize, most_segments: usize) -> Option<&mut [u8]> {
        if length > LARGEST_SEND {
            return None;
        }
        let joins = lane.turn == self.turn
            && self.runs.get(lane.run).is_some_and(|run| run.takes(route, length, most_segments));
        if !joins {
            *lane = Lane { turn: self.turn, run: self.runs.len() };
            let bytes = self.spare.pop().unwrap_or_default();
            self.runs.push(Run { route, bytes, filled: 0, segment: length, datagrams: 0 });
        }
        let run = self.runs.get_mut(lane.run)?;
        run.datagrams += 1;
        let begin = run.filled;
        run.filled += length;
        // Whoever asks for room fills it: what stands there from earlier turns need not be wiped.
        if run.bytes.len() < run.filled {
            run.bytes.resize(run.filled, 0);
        }
        run.bytes.get_mut(begin..run.filled)
    }

    fn clear(&mut self) {
        self.turn += 1;
        for run in self.runs.drain(..) {
            if self.spare.len() < MOST_SPARE {
                self.spare.push(run.bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16) -> Route {
        Route { remote: SocketAddr::from(([127, 0, 0, 1], port)), local: None }
    }

    /// Each receiver has its lane, as sessions have.
    fn runs(pushes: &[(u16, usize)]) -> Vec<(u16, usize, usize)> {
        let mut outgoing = Outgoing::default();
        let mut lanes = [Lane::default(); 4];
        for &(port, size) in pushes {
            assert_eq!(outgoing.room_for(&mut lanes[usize::from(port)], route(port), size, 8).unwrap().len(), size);
        }
        outgoing.runs.iter().map(|run| (run.route.remote.port(), run.segment, run.datagrams)).collect()
    }

    #[test]
    fn datagrams_of_one_size_to_one_receiver_leave_in_one_send() {
        assert_eq!(runs(&[(1, 100), (1, 100), (1, 100)]), [(1, 100, 3)]);
    }

    #[test]
    fn a_smaller_datagram_ends_a_run_and_a_larger_one_begins_another() {
        assert_eq!(runs(&[(1, 100), (1, 40), (1, 40), (1, 100)]), [(1, 100, 2), (1, 40, 1), (1, 100, 1)]);
    }

    #[test]
    fn the_packets_of_a_frame_are_joined_for_each_of_its_receivers() {
        let frame = [(1, 100), (2, 100), (1, 100), (2, 100), (1, 30), (2, 30)];
        assert_eq!(runs(&frame), [(1, 100, 3), (2, 100, 3)]);
    }

    #[test]
    fn receivers_are_never_mixed_and_runs_stay_within_the_kernels_limit() {
        assert_eq!(runs(&[(1, 10); 10]), [(1, 10, 8), (1, 10, 2)]);
        let mut outgoing = Outgoing::default();
        let mut lane = Lane::default();
        for port in [1, 2, 1] {
            outgoing.room_for(&mut lane, route(port), 10, 8).unwrap();
        }
        assert_eq!(outgoing.runs.len(), 3, "a receiver that moved begins another run");
        assert!(outgoing.room_for(&mut lane, route(1), LARGEST_SEND + 1, 8).is_none());
    }

    #[test]
    fn buffers_are_used_again_and_a_lane_of_an_earlier_turn_joins_nothing() {
        let mut outgoing = Outgoing::default();
        let mut lane = Lane::default();
        outgoing.room_for(&mut lane, route(1), 100, 8).unwrap().fill(7);
        let memory = outgoing.runs[0].bytes.as_ptr();
        outgoing.clear();
        let room = outgoing.room_for(&mut lane, route(1), 50, 8).unwrap();
        assert_eq!((room.as_ptr(), room.len()), (memory, 50));
        assert_eq!(outgoing.runs.len(), 1);
    }

    #[test]
    fn what_is_sent_arrives_whole_and_apart() {
        let mut receiver = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut sender = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = Route { remote: SocketAddr::from(([127, 0, 0, 1], receiver.port().unwrap())), local: None };
        let mut lane = Lane::default();
        for n in 0..5u8 {
            sender.room_for(&mut lane, to, 50).unwrap().fill(n);
        }
        sender.room_for(&mut lane, to, 20).unwrap().fill(5);
        assert_eq!(sender.outgoing.runs.len(), if sender.state.max_gso_segments() > 5 { 1 } else { 6 });
        assert_eq!(sender.flush(), 0);
        let mut inbox = receiver.inbox();
        let mut seen = Vec::new();
        for _ in 0..100 {
            if receiver.receive(&mut inbox).unwrap() {
                seen.extend(inbox.datagrams().map(|(_, bytes)| bytes.to_vec()));
            }
            if seen.len() == 6 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let expected: Vec<Vec<u8>> = (0..5u8).map(|n| vec![n; 50]).chain([vec![5; 20]]).collect();
        assert_eq!(seen, expected);
    }
}
