//! A connection of a light client: its task keeps ICE and DTLS going, and passes keys and orders on to the thread that
//! drives the media. How offer and answer travel is the seats' business.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use str0m::change::SdpPendingOffer;
use str0m::net::{Protocol, Receive};
use str0m::{Input, Output, Rtc, RtcConfig};
use tokio::sync::{mpsc, oneshot, watch};

use super::Light;
use super::engine::Command;
use super::header::{Kind, Terms};
use super::keys::{self, Mailbox};
use super::person::{Kit, Person, Tally};
use super::socket::Port;
use super::srtp;
use crate::call::{Seen, millis, sum_up};
use crate::client::{ClientError, Devices, Going, Orders};
use crate::delay::Delays;
use crate::events::Slot;
use crate::live::Meters;
use crate::media::{Film, Voice};
use crate::numbered::Record;
use crate::report::ClientReport;
use crate::sdp::{self, Lines};

/// `str0m` sends no reports, so that its timers for them need not wake anyone.
const NEVER: Duration = Duration::from_hours(24);

/// STUN and DTLS that wait for the task: a handshake's flight and some checks. More is lost, and comes again.
const WAITING: usize = 32;

/// What plays on a client's connection, and where it tells of it.
#[derive(Clone)]
pub(super) struct Player {
    pub(super) film: Arc<Film>,
    pub(super) voice: Voice,
    pub(super) delays: Option<Arc<Delays>>,
    /// Numbers what is sent.
    pub(super) record: Option<Arc<Record>>,
    pub(super) meters: Arc<Meters>,
    pub(super) standing: Standing,
}

/// A client is connected when all its connections are.
#[derive(Clone)]
pub(super) struct Standing {
    missing: Arc<AtomicUsize>,
    seen: watch::Sender<Seen>,
}

impl Standing {
    pub(super) fn new(connections: usize, seen: watch::Sender<Seen>) -> Self {
        Self { missing: Arc::new(AtomicUsize::new(connections)), seen }
    }

    fn one_more(&self) {
        if self.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.seen.send_modify(|seen| seen.connected = true);
        }
    }
}

/// A connection that is offered.
pub(super) struct Offer {
    light: Light,
    rtc: Box<Rtc>,
    mailbox: Mailbox,
    pending: SdpPendingOffer,
    lines: Lines,
    /// What is to be posted.
    pub(super) sdp: String,
    /// When it was ready to be posted.
    pub(super) posted: Instant,
}

impl Offer {
    /// Offers m-lines of which some send.
    pub(super) fn make(
        light: &Light,
        lines: impl FnOnce(RtcConfig, Instant) -> (Rtc, String, SdpPendingOffer, Lines),
    ) -> Self {
        let ((rtc, sdp, pending, lines), mailbox) = keys::with_mailbox(|| lines(config(light), Instant::now()));
        Self { light: light.clone(), rtc: Box::new(rtc), mailbox, pending, lines, sdp, posted: Instant::now() }
    }

    /// Gets ready for the answer's server.
    pub(super) async fn answered(self, answer: &str, player: Player) -> Result<Connection, ClientError> {
        let Self { light, mut rtc, mailbox, pending, lines, posted, .. } = self;
        sdp::accept(&mut rtc, answer, pending)?;
        let (port, local) = light.place(answer).await?;
        sdp::add_host(&mut rtc, local)?;
        let lines = Some([lines.microphone, lines.camera].map(|mid| mid.to_string()));
        let made = Made { light, rtc, mailbox, port, local, began: posted };
        Connection::enter(made, lines, Terms::read(answer), player)
    }
}

/// Everything but what it is for.
struct Made {
    light: Light,
    rtc: Box<Rtc>,
    mailbox: Mailbox,
    port: Arc<Port>,
    local: SocketAddr,
    began: Instant,
}

/// A connection of a light client from its answer on. Dropped, it falls silent.
pub(super) struct Connection {
    rtc: Box<Rtc>,
    mailbox: Mailbox,
    place: Place,
    inbox: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    /// Whether it has m-lines that send.
    sends: bool,
    /// When it was offered.
    began: Instant,
    /// From then to ICE and DTLS done, milliseconds.
    join_ms: Option<u64>,
    standing: Standing,
    /// Where DTLS went last: media goes there, too.
    server: Option<SocketAddr>,
}

/// A connection's name with the thread. The thread forgets it when this is dropped.
struct Place {
    light: Light,
    port: Arc<Port>,
    local: SocketAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.light.tell(Command::Leave(self.local, None));
    }
}

impl Connection {
    /// Answers an offer whose m-lines all send to us.
    pub(super) async fn answer(light: &Light, offer: &str, player: Player) -> Result<(Self, String), ClientError> {
        let began = Instant::now();
        let (rtc, mailbox) = keys::with_mailbox(|| sdp::receiver(config(light), began));
        let mut rtc = Box::new(rtc);
        let (port, local) = light.place(offer).await?;
        sdp::add_host(&mut rtc, local)?;
        let answer = sdp::answer(&mut rtc, offer)?;
        let made = Made { light: light.clone(), rtc, mailbox, port, local, began };
        Ok((Self::enter(made, None, Terms::read(&answer), player)?, answer))
    }

    fn enter(made: Made, lines: Option<[String; 2]>, terms: Terms, player: Player) -> Result<Self, ClientError> {
        let Made { light, rtc, mailbox, port, local, began } = made;
        let Player { film, voice, delays, record, meters, standing } = player;
        let (task, inbox) = mpsc::channel(WAITING);
        let connection = record.as_deref().map_or(0, Record::connect);
        let kit = Kit { port: Arc::clone(&port), local, terms, film, voice, delays, connection, record, meters, task };
        let sends = lines.is_some();
        let person = Person::new(kit, lines.unwrap_or_default(), Instant::now());
        light.tell(Command::Enter(local, Box::new(person)))?;
        let place = Place { light, port, local };
        Ok(Self { rtc, mailbox, place, inbox, sends, began, join_ms: None, standing, server: None })
    }

    /// Where its media comes from.
    pub(super) fn local(&self) -> SocketAddr {
        self.place.local
    }

    /// Holds the connection until it is told to leave.
    pub(super) async fn hold(&mut self, mut orders: watch::Receiver<Orders>) -> Result<(), ClientError> {
        let mut obeyed = Orders::with(Devices::OFF);
        loop {
            let deadline = self.drain()?;
            let ordered = *orders.borrow_and_update();
            if ordered.going != Going::Stays {
                return Ok(());
            }
            if ordered.ssrc_changes != obeyed.ssrc_changes {
                self.place.light.tell(Command::ChangeSsrc(self.place.local))?;
            }
            if ordered.excused != obeyed.excused {
                self.place.light.tell(Command::Excuse(self.place.local, ordered.excused))?;
            }
            if ordered.devices != obeyed.devices {
                // Who sends nothing hears of it all the same: nobody is expected to be heard any more.
                let devices = if self.sends { ordered.devices } else { Devices::OFF };
                self.place.light.tell(Command::Order(self.place.local, devices))?;
            }
            obeyed = ordered;
            tokio::select! {
                Some((from, bytes)) = self.inbox.recv() => {
                    if let Ok(receive) = Receive::new(Protocol::Udp, from, self.place.local, &bytes) {
                        self.rtc.handle_input(Input::Receive(Instant::now(), receive))?;
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => self.rtc.handle_input(Input::Timeout(Instant::now()))?,
                // The order itself is looked at above; without a giver of orders the task was aborted already.
                _ = orders.changed() => {}
            }
        }
    }

    /// Sends what wants to be sent, and passes the keys on; returns when str0m must be woken.
    fn drain(&mut self) -> Result<Instant, ClientError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Transmit(transmit) => {
                    // RFC 7983, section 7: what is neither STUN nor media is DTLS, in this range.
                    if matches!(transmit.contents.first(), Some(20..=63)) {
                        self.server = Some(transmit.destination);
                    }
                    if Kind::of(&transmit.contents) == Kind::Other {
                        let Place { port, local, .. } = &self.place;
                        port.send(local.ip(), transmit.destination, &transmit.contents);
                    }
                }
                Output::Event(_) => {}
                Output::Timeout(deadline) => {
                    let Some(agreed) = self.mailbox.take() else { return Ok(deadline) };
                    let keys = srtp::both_ways(&agreed).ok_or(ClientError::Protection)?;
                    let server = self.server.ok_or(ClientError::NoCandidate)?;
                    self.place.light.tell(Command::Begin(self.place.local, Box::new(keys), server))?;
                    self.join_ms = Some(millis(self.began.elapsed()));
                    self.standing.one_more();
                    // The keys took the place of what DTLS has to say next.
                    self.rtc.handle_input(Input::Timeout(Instant::now()))?;
                }
            }
        }
    }

    /// Ends it; gives how long joining took, milliseconds, and what was counted.
    pub(super) async fn finish(self) -> Result<(Option<u64>, Tally), ClientError> {
        self.place.light.count_dropped(&self.place.port);
        let (tell, told) = oneshot::channel();
        self.place.light.tell(Command::Leave(self.place.local, Some(tell)))?;
        Ok((self.join_ms, told.await.map_err(|_| ClientError::LightEnded)?))
    }
}

/// Adds what a connection counted.
pub(super) fn count(report: &mut ClientReport, tally: &Tally, posted: Instant, slots: &HashMap<String, Slot>) {
    report.sent += tally.sent;
    report.received += tally.received;
    report.keyframe_requests += tally.keyframe_requests;
    let heard = tally.heard.iter().filter(|heard| !heard.after_change);
    let first = heard.map(|heard| millis(heard.first.saturating_duration_since(posted))).max();
    report.first_media_ms = report.first_media_ms.max(first);
    sum_up(report, tally.heard.iter(), slots);
}

fn config(light: &Light) -> RtcConfig {
    RtcConfig::new()
        .set_crypto_provider(Arc::clone(&light.0.crypto))
        .set_rtcp_report_interval_audio(NEVER)
        .set_rtcp_report_interval_video(NEVER)
}
