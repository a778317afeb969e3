//! UDP sockets of light clients: one for all of them on the loopback, where each has an address of its own, or one each.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

/// Kernel buffer in each direction. The tool shares its core with itself: while others join, the media waits for tens
/// of milliseconds, and what does not fit here is lost by us and not by the server.
const KERNEL_BUFFER: usize = 32 << 20;

/// Longest run of merged datagrams (GRO): a UDP payload's limit.
const LONGEST_RUN: usize = 1 << 16;

/// A bound socket. Anyone may send; only the light thread receives.
#[derive(Debug)]
pub(super) struct Port {
    io: UdpSocket,
    state: UdpSocketState,
    bound: SocketAddr,
}

impl Port {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let io = UdpSocket::bind(address)?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let bound = io.local_addr()?;
        // The system caps them at its limits (net.core.rmem_max); what is lost is counted.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&io), KERNEL_BUFFER);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&io), KERNEL_BUFFER);
        Ok(Self { io, state, bound })
    }

    pub(super) fn bound(&self) -> SocketAddr {
        self.bound
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.io.as_raw_fd()
    }

    /// Datagrams that the kernel dropped because the socket was full (`/proc/net/udp`, last column). None where the system
    /// does not say.
    pub(super) fn dropped(&self) -> u64 {
        let table = if self.bound.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
        let table = std::fs::read_to_string(table).unwrap_or_default();
        let local = format!(":{:04X}", self.bound.port());
        let ours = |line: &&str| line.split_whitespace().nth(1).is_some_and(|address| address.ends_with(&local));
        table.lines().filter(ours).filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
    }

    /// Sends a datagram by itself, as browsers do. Joined sends (GSO) were cheaper for both sides: the server would
    /// receive them joined, too, as it never does from browsers. False: it is lost, as a network would lose it.
    pub(super) fn send(&self, from: IpAddr, to: SocketAddr, contents: &[u8]) -> bool {
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: Some(from) };
        self.state.try_send(UdpSockRef::from(&self.io), &transmit).is_ok()
    }
}

/// Room for one batch of received datagrams.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    metas: Vec<RecvMeta>,
}

/// Datagrams that came together.
pub(super) struct Run<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// When the kernel took it in.
    pub(super) at: Instant,
    /// Length of each datagram; the last may be shorter.
    pub(super) stride: usize,
    pub(super) bytes: &'a mut [u8],
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; BATCH_SIZE * LONGEST_RUN], metas: vec![RecvMeta::default(); BATCH_SIZE] }
    }
}

impl Inbox {
    /// Takes in one batch and hands it over, run by run. False: nothing waits any more.
    pub(super) fn receive(&mut self, port: &Port, mut hear: impl FnMut(Run<'_>)) -> bool {
        let mut places = self.bytes.chunks_mut(LONGEST_RUN);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(places.next().unwrap_or_default()));
        let filled = match port.state.recv(UdpSockRef::from(&port.io), &mut slices, &mut self.metas) {
            Ok(filled) => filled,
            // An ICMP error of an earlier send shows up here and says nothing of what waits.
            Err(error) => return matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted),
        };
        let (now, today) = (Instant::now(), SystemTime::now());
        for (bytes, meta) in self.bytes.chunks_mut(LONGEST_RUN).zip(&self.metas).take(filled) {
            let at = meta.timestamp.and_then(|taken| now.checked_sub(waited(today, taken)));
            let to = SocketAddr::new(meta.dst_ip.unwrap_or(port.bound.ip()), port.bound.port());
            let bytes = bytes.get_mut(..meta.len).unwrap_or_default();
            hear(Run { from: meta.addr, to, at: at.unwrap_or(now), stride: meta.stride.max(1), bytes });
        }
        filled > 0
    }
}

/// How long ago it was that the kernel's clock showed this.
fn waited(today: SystemTime, taken: Duration) -> Duration {
    today.duration_since(SystemTime::UNIX_EPOCH + taken).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_loopback_share_a_socket_and_are_told_apart() {
        let port = Port::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = |last| IpAddr::from([127, 16, 0, last]);
        for last in [1, 2] {
            assert!(port.send(address(last), server.local_addr().unwrap(), &[last]));
            let mut byte = [0];
            let (_, from) = server.recv_from(&mut byte).unwrap();
            assert_eq!(from, SocketAddr::new(address(last), port.bound().port()));
            server.send_to(&byte, from).unwrap();
        }
        let (mut inbox, mut heard) = (Inbox::default(), Vec::new());
        while heard.len() < 2 {
            let now = Instant::now();
            inbox.receive(&port, |run| {
                assert!(run.at <= Instant::now() && now.saturating_duration_since(run.at) < Duration::from_secs(5));
                heard.push((run.to.ip(), run.bytes.to_vec()));
            });
        }
        assert_eq!(heard, [(address(1), vec![1]), (address(2), vec![2])]);
        assert_eq!(port.dropped(), 0);
    }
}
