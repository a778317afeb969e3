//! One client's RTP session: what it sends, what it receives, and the RTCP about both.
//!
//! Takes time and datagrams, writes datagrams into the send batch. An idle session has no timer of its own.

use std::collections::VecDeque;
use std::time::Duration;

use super::egress::{Egress, Way};
use super::forward::Rewrite;
use super::ingress::{Ingress, Payloads};
use super::keys::Keys;
use super::negotiated::Negotiated;
use super::path::Path;
use super::peer::PeerEvent;
use super::socket::{Lane, Route, Socket};
use crate::clock::MonoTime;
use crate::media::Source;
use crate::rtp::report::{ntp, round_trip};
use crate::rtp::rtcp::{self, Block, Compound, Item, MOST_BLOCKS};
use crate::rtp::srtp::{Opener, Sealer, contexts};
use crate::rtp::{Packet, Ssrc};

/// Time between reports (RFC 3550 §6.2 asks for 5 s on average and allows less). Browsers tell loss and round trip by
/// them: longer makes them slow to react, shorter costs packets.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How soon after a source begins in a slot its first report is sent: until then voice and picture are not in step.
const FIRST_REPORT: Duration = Duration::from_millis(100);

/// Time between two transport-wide feedbacks. Senders' estimates follow at this pace: longer makes them sluggish,
/// shorter costs a packet each time.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

/// Round trip that is taken until one was measured.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// Bytes after which a compound is sent and another begun: with SRTCP's own it stays below 1,200.
const LONGEST_COMPOUND: usize = 1_000;

/// One client's RTP session.
#[derive(Debug)]
pub(super) struct Media {
    negotiated: Negotiated,
    ingress: Ingress,
    egress: Egress,
    keys: Option<(Opener, Sealer)>,
    path: Path,
    lane: Lane,
    /// What our feedback is signed with.
    sender: Ssrc,
    /// Time since 1900 at the zero of the node's clock.
    epoch: Duration,
    round_trip: Duration,
    keyframes: Vec<Ssrc>,
    reports_due: Option<MonoTime>,
    feedback_due: Option<MonoTime>,
    requests_due: Option<MonoTime>,
    compound: Vec<u8>,
}

impl Media {
    /// `spare` signs feedback where nothing is sent; `epoch` is the time since 1900 at the zero of the node's clock.
    pub(super) fn new(negotiated: Negotiated, spare: Ssrc, epoch: Duration) -> Self {
        let egress = Egress::new(&negotiated);
        Self {
            ingress: Ingress::new(&negotiated),
            sender: egress.first_stream().unwrap_or(spare),
            negotiated,
            egress,
            keys: None,
            path: Path::default(),
            lane: Lane::default(),
            epoch,
            round_trip: USUAL_ROUND_TRIP,
            keyframes: Vec::new(),
            reports_due: None,
            feedback_due: None,
            requests_due: None,
            compound: Vec::new(),
        }
    }

    /// DTLS is done: from now on packets can be opened and sealed.
    pub(super) fn start(&mut self, keys: &Keys, events: &mut VecDeque<PeerEvent>) {
        match contexts(keys.profile, &keys.material, keys.we_are_client) {
            Ok(contexts) => {
                self.keys = Some(contexts);
                events.extend(self.egress.slots().map(PeerEvent::SlotAdded));
            }
            Err(error) => tracing::warn!(%error, "a session has no keys"),
        }
    }

    /// The way to the client.
    pub(super) fn path(&mut self) -> &mut Path {
        &mut self.path
    }

    /// The slot's m-line in the client's SDP.
    pub(super) fn slot_mid(&self, slot: usize) -> Option<&str> {
        self.egress.mid(slot)
    }

    // ---- in ----------------------------------------------------------------------------------------------------

    /// Takes a datagram of RTP; gives the packet, if it is one that is wanted.
    pub(super) fn receive(
        &mut self,
        now: MonoTime,
        datagram: &mut [u8],
        payloads: &mut Payloads,
    ) -> Option<(Source, Packet)> {
        let (opener, _) = self.keys.as_ref()?;
        let received = self.ingress.receive(now, opener, &self.negotiated, datagram, payloads)?;
        self.reports_due.get_or_insert(now + REPORT_INTERVAL);
        if self.negotiated.transport_feedback && self.feedback_due.is_none() && self.ingress.has_arrivals() {
            self.feedback_due = Some(now + FEEDBACK_INTERVAL);
        }
        if received.wants.repairs {
            self.requests_due = Some(now);
        }
        if let Some(source) = received.wants.keyframe {
            self.request_keyframe(source);
        }
        received.media
    }

    /// Takes a datagram of RTCP; what it asks for again is sent at once.
    pub(super) fn receive_rtcp(
        &mut self,
        now: MonoTime,
        datagram: &mut [u8],
        socket: &mut Socket,
        events: &mut VecDeque<PeerEvent>,
    ) {
        let Self { keys, ingress, egress, path, lane, epoch, round_trip: trip, .. } = self;
        let Some((opener, sealer)) = keys else { return };
        let compound = match opener.open_rtcp(datagram) {
            Ok(compound) => compound,
            Err(error) => {
                tracing::debug!(%error, "a report was refused");
                return;
            }
        };
        rtcp::read(compound, |item| match item {
            Item::SenderReport(info) => {
                if let Some((source, report, local)) = ingress.note_report(now, &info) {
                    events.push_back(PeerEvent::Report(source, report, local));
                }
            }
            Item::Block(block) => {
                if let Some(measured) = round_trip(&block, ntp_at(*epoch, now)) {
                    *trip = measured;
                }
            }
            Item::Nack { media, sequence } => {
                if let Some(route) = path.route() {
                    egress.repair(now, media, sequence, Way { sealer, route, lane: &mut *lane, socket: &mut *socket });
                }
            }
            Item::Pli(media) | Item::Fir(media) => {
                if let Some(slot) = egress.slot_of(media) {
                    events.push_back(PeerEvent::KeyframeWanted(slot));
                }
            }
            // A stream that ends falls silent, which is noticed anyway; feedback to us is for an estimator of ours.
            Item::Goodbye(_) | Item::TransportFeedback(_) => {}
        });
    }

    // ---- out ---------------------------------------------------------------------------------------------------

    /// Sends a packet in a slot. False: it was not sent.
    pub(super) fn send(
        &mut self,
        now: MonoTime,
        slot: usize,
        packet: &Packet,
        rewrite: Rewrite,
        socket: &mut Socket,
    ) -> bool {
        let (Some((_, sealer)), Some(route)) = (&self.keys, self.path.route()) else { return false };
        let way = Way { sealer, route, lane: &mut self.lane, socket };
        if !self.egress.send(slot, packet, rewrite, way) {
            return false;
        }
        let due = self.reports_due.get_or_insert(now + REPORT_INTERVAL);
        if rewrite.begins {
            *due = (*due).min(now + FIRST_REPORT);
        }
        true
    }

    /// What the slot carries was at `timestamp` at this time of our clock.
    pub(super) fn set_anchor(&mut self, slot: usize, timestamp: u32, at: MonoTime) {
        self.egress.set_anchor(slot, timestamp, at);
    }

    /// Asks the client for a keyframe of this source, at the next [`Media::advance`], which is due at once.
    pub(super) fn request_keyframe(&mut self, source: Source) {
        if let Some(stream) = self.ingress.stream_of(source)
            && !self.keyframes.contains(&stream)
        {
            self.keyframes.push(stream);
        }
    }

    /// When [`Media::advance`] is wanted. `None`: nothing flows.
    pub(super) fn due(&self) -> Option<MonoTime> {
        if !self.keyframes.is_empty() {
            return Some(MonoTime::ZERO);
        }
        self.reports_due.into_iter().chain(self.feedback_due).chain(self.requests_due).min()
    }

    /// Sends the reports, requests and feedback that are due.
    pub(super) fn advance(&mut self, now: MonoTime, socket: &mut Socket) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let Some(route) = self.path.route().filter(|_| self.keys.is_some()) else {
            (self.reports_due, self.feedback_due, self.requests_due) = (None, None, None);
            self.keyframes.clear();
            return;
        };
        let Self { ingress, egress, keys, sender, .. } = self;
        let (sender, ntp) = (*sender, ntp_at(self.epoch, now));
        let mut out = std::mem::take(&mut self.compound);
        out.clear();
        let mut flush = |out: &mut Vec<u8>, least: usize| {
            if let Some((_, sealer)) = keys
                && out.len() > least
            {
                seal_and_send(sealer, out, route, socket);
            }
        };
        let is_due = |due: Option<MonoTime>| due.is_some_and(|due| due <= now);
        if is_due(self.reports_due) {
            let kept = egress.write_reports(now, ntp, &mut out, |out| flush(out, LONGEST_COMPOUND));
            self.reports_due = kept.then_some(now + REPORT_INTERVAL);
            let mut blocks = [Block::default(); MOST_BLOCKS];
            let count = ingress.blocks(now, &mut blocks);
            if count > 0 {
                flush(&mut out, LONGEST_COMPOUND.saturating_sub(24 * count));
                Compound::new(&mut out).receiver_report(sender, blocks.get(..count).unwrap_or_default());
            }
        }
        for media in self.keyframes.drain(..) {
            Compound::new(&mut out).pli(sender, media);
        }
        if is_due(self.requests_due) {
            ingress.write_requests(now, self.round_trip, sender, &mut out, |out| flush(out, LONGEST_COMPOUND));
            self.requests_due = ingress.requests_due();
        }
        if is_due(self.feedback_due) {
            // A feedback may be as long as a compound.
            flush(&mut out, LONGEST_COMPOUND / 4);
            ingress.write_arrivals(sender, &mut Compound::new(&mut out));
            self.feedback_due = ingress.has_arrivals().then_some(now + FEEDBACK_INTERVAL);
        }
        flush(&mut out, 0);
        self.compound = out;
    }

    /// Says goodbye in the name of every stream.
    pub(super) fn close(&mut self, socket: &mut Socket) {
        let Some(route) = self.path.route() else { return };
        let Some((_, sealer)) = &mut self.keys else { return };
        let mut out = Vec::new();
        self.egress.write_goodbye(&mut Compound::new(&mut out));
        if !out.is_empty() {
            seal_and_send(sealer, &mut out, route, socket);
        }
    }
}

fn seal_and_send(sealer: &mut Sealer, out: &mut Vec<u8>, route: Route, socket: &mut Socket) {
    match sealer.seal_rtcp(out) {
        Ok(()) => socket.send(route, out),
        Err(error) => tracing::warn!(%error, "a report could not be sealed"),
    }
    out.clear();
}

/// The node's wall clock as NTP writes it.
fn ntp_at(epoch: Duration, now: MonoTime) -> u64 {
    ntp(epoch + Duration::from_nanos(now.as_nanos()))
}
