//! The task that holds a connection: it waits for datagrams, timers, devices and orders, and feeds them to str0m one at
//! a time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Receive};
use str0m::{Input, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use crate::call::Call;
use crate::client::{ClientError, Devices, Going, Orders, Part};
use crate::device::{DeviceClock, Pace};
use crate::events::Slot;
use crate::media::VOICE_STEP;
use crate::network::{Network, Road};
use crate::report::ClientReport;

/// Datagrams are at most this long on any path that we know.
const DATAGRAM: usize = 2_000;

/// A connection that is held by its task.
pub(crate) struct Line {
    pub(crate) rtc: Rtc,
    pub(crate) clock: DeviceClock,
    pub(crate) wire: Wire,
    pub(crate) location: String,
    pub(crate) part: Part,
    pub(crate) call: Call,
    pub(crate) orders: watch::Receiver<Orders>,
    pub(crate) news: mpsc::Receiver<HashMap<String, Slot>>,
}

impl Line {
    pub(crate) async fn hold(self) -> Result<ClientReport, ClientError> {
        let Self { mut rtc, clock, mut wire, location, part, mut call, mut orders, mut news } = self;
        let mut datagram = vec![0; DATAGRAM];
        let mut voice = Pace::new(clock, VOICE_STEP);
        let mut film = Pace::new(clock, part.film.step);
        let mut sending = Devices::OFF;
        let mut ssrc_changes = 0;
        loop {
            let deadline = clock.real(call.drain(&mut rtc, &mut wire).await?);
            let ordered = *orders.borrow_and_update();
            call.excuse(ordered.excused);
            if ordered.going != Going::Stays {
                break;
            }
            let devices = if call.connected { ordered.devices } else { Devices::OFF };
            if devices.microphone && !sending.microphone {
                voice.restart();
            }
            if devices.camera && !sending.camera {
                film.restart();
                call.begin_with_keyframe();
            }
            if sending.microphone && !devices.microphone {
                call.quiet();
            }
            sending = devices;
            if ordered.ssrc_changes != ssrc_changes {
                ssrc_changes = ordered.ssrc_changes;
                call.change_ssrc(&mut rtc);
                continue;
            }
            tokio::select! {
                arrived = wire.receive(&mut datagram) => {
                    if let Some((length, source)) = arrived? {
                        let bytes = datagram.get(..length).unwrap_or_default();
                        if let Ok(receive) = Receive::new(Protocol::Udp, source, wire.local, bytes) {
                            rtc.handle_input(Input::Receive(clock.now(), receive))?;
                        }
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => rtc.handle_input(Input::Timeout(clock.now()))?,
                captured = voice.next(), if sending.microphone => call.speak(&mut rtc, &part.voice, captured),
                captured = film.next(), if sending.camera => call.show(&mut rtc, &part.film, captured),
                Some(slots) = news.recv() => call.show_in(slots),
                // The order itself is looked at above; without a giver of orders the task was aborted already.
                _ = orders.changed() => {}
            }
        }
        if orders.borrow().going == Going::HangsUp {
            part.api.hang_up(&part.session, &location).await?;
        }
        Ok(call.finish(wire.lost()))
    }
}

/// The socket, and the network before it.
pub(crate) struct Wire {
    socket: UdpSocket,
    pub(crate) local: SocketAddr,
    up: Road,
    down: Road,
    good_for: Duration,
    /// When the network turns bad; `None` before the connection stands.
    bad_from: Option<Instant>,
}

impl Wire {
    pub(crate) fn new(socket: UdpSocket, local: SocketAddr, network: Network) -> Self {
        let Network { seed, good_for, up, down } = network;
        let (up, down) = (Road::new(up, seed), Road::new(down, !seed));
        Self { socket, local, up, down, good_for, bad_from: None }
    }

    /// The connection stands.
    pub(crate) fn connected(&mut self) {
        self.bad_from = Some(Instant::now() + self.good_for);
    }

    /// Datagrams that the network has lost, both ways.
    fn lost(&self) -> u64 {
        self.up.lost() + self.down.lost()
    }

    fn is_bad(&self) -> bool {
        self.bad_from.is_some_and(|from| Instant::now() >= from)
    }

    /// Sends a datagram on its way.
    pub(crate) async fn send(&mut self, bytes: &[u8], to: SocketAddr) {
        if !self.up.is_clear() && self.is_bad() {
            self.up.enter(Instant::now(), bytes, to);
            self.send_due().await;
        } else {
            // A full send buffer loses the packet, as a network would; the receiver's count shows it.
            let _ = self.socket.send_to(bytes, to).await;
        }
    }

    /// Waits for a datagram; puts it into `datagram` and gives its length and where it is from. `None`: something
    /// else has moved on the way. Safe to drop.
    pub(crate) async fn receive(&mut self, datagram: &mut [u8]) -> std::io::Result<Option<(usize, SocketAddr)>> {
        if let Some((bytes, from)) = self.down.leave(Instant::now()) {
            let Some(place) = datagram.get_mut(..bytes.len()) else { return Ok(None) };
            place.copy_from_slice(&bytes);
            return Ok(Some((bytes.len(), from)));
        }
        self.send_due().await;
        let next = self.up.next().into_iter().chain(self.down.next()).min();
        let (length, from) = match next {
            Some(next) => tokio::select! {
                received = self.socket.recv_from(datagram) => received?,
                () = tokio::time::sleep_until(next.into()) => return Ok(None),
            },
            None => self.socket.recv_from(datagram).await?,
        };
        if self.down.is_clear() || !self.is_bad() {
            return Ok(Some((length, from)));
        }
        self.down.enter(Instant::now(), datagram.get(..length).unwrap_or_default(), from);
        Ok(None)
    }

    /// Sends what has been held back for long enough.
    async fn send_due(&mut self) {
        while let Some((bytes, to)) = self.up.leave(Instant::now()) {
            let _ = self.socket.send_to(&bytes, to).await;
        }
    }
}
