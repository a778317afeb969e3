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
        let granted = state.recv_buffer_size(UdpSockRef::from(&io))?;
        if granted < KERNEL_BUFFER {
            tracing::warn!(
                granted,
                wanted = KERNEL_BUFFER,
                "the system caps the receive buffer: raise net.core.rmem_max"
            );
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
        Inbox {
            bytes: vec![0; BATCH_SIZE * LARGEST_DATAGRAM * self.state.gro_segments()],
            metas: vec![RecvMeta::default(); BATCH_SIZE],
            filled: 0,
        }
    }

    /// Takes in one batch. `false`: nothing was waiting.
    pub(super) fn receive(&mut self, inbox: &mut Inbox) -> io::Result<bool> {
        let room = inbox.bytes.len() / BATCH_SIZE;
        let mut slices: Vec<IoSliceMut<'_>> = inbox.bytes.chunks_mut(room).map(IoSliceMut::new).collect();
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
        self.outgoing.push(route, contents, self.state.max_gso_segments());
    }

    /// Sends the batch; returns how many datagrams the kernel did not take. Media may be lost, and is counted.
    pub(super) fn flush(&mut self) -> usize {
        let mut lost = 0;
        for run in &self.outgoing.runs {
            let Some(contents) = self.outgoing.bytes.get(run.start..run.end) else { continue };
            let transmit = Transmit {
                destination: run.route.remote,
                ecn: None,
                contents,
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
}

/// One batch of received datagrams.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    metas: Vec<RecvMeta>,
    filled: usize,
}

impl Inbox {
    /// Holds nothing and takes no memory: stands in while a batch is worked on.
    pub(super) fn empty() -> Self {
        Self { bytes: Vec::new(), metas: Vec::new(), filled: 0 }
    }

    /// The datagrams of the batch, those that the kernel had merged (GRO) taken apart.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (Route, &[u8])> {
        let room = (self.bytes.len() / BATCH_SIZE).max(1);
        self.bytes.chunks(room).zip(&self.metas).take(self.filled).flat_map(|(bytes, meta)| {
            let route = Route { remote: meta.addr, local: meta.dst_ip };
            let filled = bytes.get(..meta.len).unwrap_or_default();
            filled.chunks(meta.stride.max(1)).map(move |datagram| (route, datagram))
        })
    }
}

/// Datagrams that wait for the flush, those to one receiver of one size joined into runs for GSO.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    runs: Vec<Run>,
}

#[derive(Debug, PartialEq, Eq)]
struct Run {
    route: Route,
    start: usize,
    end: usize,
    /// Size of each datagram; only the last may be smaller.
    segment: usize,
    datagrams: usize,
}

impl Outgoing {
    fn push(&mut self, route: Route, contents: &[u8], most_segments: usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(contents);
        let end = self.bytes.len();
        if let Some(last) = self.runs.last_mut() {
            let whole = last.end - last.start == last.segment * last.datagrams;
            if last.route == route
                && whole
                && contents.len() <= last.segment
                && last.datagrams < most_segments
                && end - last.start <= LARGEST_SEND
            {
                last.end = end;
                last.datagrams += 1;
                return;
            }
        }
        self.runs.push(Run { route, start, end, segment: contents.len(), datagrams: 1 });
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16) -> Route {
        Route { remote: SocketAddr::from(([127, 0, 0, 1], port)), local: None }
    }

    fn runs(pushes: &[(u16, usize)]) -> Vec<(u16, usize, usize)> {
        let mut outgoing = Outgoing::default();
        for &(port, size) in pushes {
            outgoing.push(route(port), &vec![0; size], 8);
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
    fn receivers_are_never_mixed_and_runs_stay_within_the_kernels_limit() {
        assert_eq!(runs(&[(1, 10), (2, 10), (1, 10)]), [(1, 10, 1), (2, 10, 1), (1, 10, 1)]);
        assert_eq!(runs(&[(1, 10); 10]), [(1, 10, 8), (1, 10, 2)]);
    }

    #[test]
    fn what_is_sent_arrives_whole_and_apart() {
        let mut receiver = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut sender = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = Route { remote: SocketAddr::from(([127, 0, 0, 1], receiver.port().unwrap())), local: None };
        for n in 0..5u8 {
            sender.send(to, &[n; 50]);
        }
        sender.send(to, &[5; 20]);
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
