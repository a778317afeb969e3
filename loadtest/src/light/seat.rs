//! The task of one light client: it keeps ICE and DTLS going, and passes orders on to the thread that drives the media.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
use crate::client::{ClientError, Devices, Going, Orders, Part};
use crate::events::Slot;
use crate::numbered::Record;
use crate::report::ClientReport;
use crate::sdp;

/// `str0m` sends no reports, so that its timers for them need not wake anyone.
const NEVER: Duration = Duration::from_hours(24);

/// STUN and DTLS that wait for the task: a handshake's flight and some checks. More is lost, and comes again.
const WAITING: usize = 32;

/// A light client from its answer on. Dropped, it falls silent.
pub(crate) struct Seat {
    rtc: Box<Rtc>,
    mailbox: Mailbox,
    place: Place,
    inbox: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    part: Part,
    location: String,
    posted: Instant,
    report: ClientReport,
    seen: watch::Sender<Seen>,
    /// Where DTLS went last: media goes there, too.
    server: Option<SocketAddr>,
}

/// A client's name with the thread. The thread forgets it when this is dropped.
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

impl Seat {
    /// Posts the offer, and gets ready for the answer's server.
    pub(crate) async fn take(light: Light, part: Part, seen: watch::Sender<Seen>) -> Result<Self, ClientError> {
        let config = RtcConfig::new()
            .set_crypto_provider(Arc::clone(&light.0.crypto))
            .set_rtcp_report_interval_audio(NEVER)
            .set_rtcp_report_interval_video(NEVER);
        let ((rtc, offer, pending, lines), mailbox) = keys::with_mailbox(|| sdp::offer(config, Instant::now()));
        let mut rtc = Box::new(rtc);
        let posted = Instant::now();
        let (answer, location) = part.api.offer(&part.session, offer).await?;
        sdp::accept(&mut rtc, &answer, pending)?;
        let (port, local) = light.place(&answer).await?;
        sdp::add_host(&mut rtc, local)?;
        let report = ClientReport {
            role: part.role.clone(),
            posted_ms: millis(posted.saturating_duration_since(part.began)),
            ..ClientReport::default()
        };
        let (task, inbox) = mpsc::channel(WAITING);
        let kit = Kit {
            port: Arc::clone(&port),
            local,
            terms: Terms::read(&answer),
            film: Arc::clone(&part.film),
            voice: part.voice.clone(),
            delays: part.habits.delays.clone(),
            connection: part.habits.record.as_deref().map_or(0, Record::connect),
            record: part.habits.record.clone(),
            meters: Arc::clone(&part.habits.meters),
            task,
        };
        let person = Person::new(kit, [lines.microphone, lines.camera].map(|mid| mid.to_string()), Instant::now());
        light.tell(Command::Enter(local, Box::new(person)))?;
        let place = Place { light, port, local };
        Ok(Self { rtc, mailbox, place, inbox, part, location, posted, report, seen, server: None })
    }

    /// Holds the connection until it is told to leave.
    pub(crate) async fn hold(
        mut self,
        mut orders: watch::Receiver<Orders>,
        mut news: mpsc::Receiver<HashMap<String, Slot>>,
    ) -> Result<ClientReport, ClientError> {
        let mut obeyed = Orders::with(Devices::OFF);
        loop {
            let deadline = self.drain()?;
            let ordered = *orders.borrow_and_update();
            if ordered.going != Going::Stays {
                break;
            }
            if ordered.ssrc_changes != obeyed.ssrc_changes {
                self.place.light.tell(Command::ChangeSsrc(self.place.local))?;
            }
            if ordered.excused != obeyed.excused {
                self.place.light.tell(Command::Excuse(self.place.local, ordered.excused))?;
            }
            if ordered.devices != obeyed.devices {
                self.place.light.tell(Command::Order(self.place.local, ordered.devices))?;
            }
            obeyed = ordered;
            tokio::select! {
                Some((from, bytes)) = self.inbox.recv() => {
                    if let Ok(receive) = Receive::new(Protocol::Udp, from, self.place.local, &bytes) {
                        self.rtc.handle_input(Input::Receive(Instant::now(), receive))?;
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => self.rtc.handle_input(Input::Timeout(Instant::now()))?,
                Some(slots) = news.recv() => self.seen.send_modify(|seen| seen.slots = slots),
                // The order itself is looked at above; without a giver of orders the task was aborted already.
                _ = orders.changed() => {}
            }
        }
        if orders.borrow().going == Going::HangsUp {
            self.part.api.hang_up(&self.part.session, &self.location).await?;
        }
        self.finish().await
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
                    self.report.join_ms = Some(millis(self.posted.elapsed()));
                    self.seen.send_modify(|seen| seen.connected = true);
                    // The keys took the place of what DTLS has to say next.
                    self.rtc.handle_input(Input::Timeout(Instant::now()))?;
                }
            }
        }
    }

    async fn finish(mut self) -> Result<ClientReport, ClientError> {
        self.place.light.count_dropped(&self.place.port);
        let (tell, told) = oneshot::channel();
        self.place.light.tell(Command::Leave(self.place.local, Some(tell)))?;
        let Tally { sent, received, keyframe_requests, heard, .. } = told.await.map_err(|_| ClientError::LightEnded)?;
        let report = &mut self.report;
        (report.sent, report.received, report.keyframe_requests) = (sent, received, keyframe_requests);
        report.first_media_ms = heard
            .iter()
            .filter(|heard| !heard.after_change)
            .map(|heard| millis(heard.first.saturating_duration_since(self.posted)))
            .max();
        sum_up(report, heard.iter(), &self.seen.borrow().slots);
        Ok(self.report)
    }
}
