//! A room on its worker: who is connected, what they send, and what may flow.
//!
//! Every packet goes into the tap first. It is forwarded only while `control` lets the room's media flow, the
//! sender's own original has begun, and the recorder's last acknowledgement is fresh: the worker holds to this
//! alone, without waiting for `control` to notice.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;

use super::demux::PeerKey;
use super::forward::{FrameIds, Origin, Rewrite, Slots, Verdict};
use super::{Fact, Slot};
use crate::clock::MonoTime;
use crate::id::{ConnectionId, ParticipantId};
use crate::media::Source;
use crate::rtp::{Codec, Packet, SenderReport, Tap, TapError, Tapped};

/// A voice that sends nothing for so long has stopped. Opus in DTX still sends every 400 ms (RFC 7587 §3.1.3).
const AUDIO_SILENCE: Duration = Duration::from_secs(1);

/// A picture that sends nothing for so long has stopped. A camera in the dark may fall to one frame a second.
const VIDEO_SILENCE: Duration = Duration::from_millis(1_500);

/// Least time between two keyframe requests to one source. A keyframe costs ten ordinary frames; a browser answers
/// within this time.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

/// A recorded picture has a keyframe at least so often: seeking in it is poor otherwise, and what the recorder drops
/// after a damaged frame lasts until the next one. More often costs the picture's sharpness.
const LONGEST_WITHOUT_KEYFRAME: Duration = Duration::from_secs(2);

/// Facts that wait for a busy actor. More means that the room is out of control: its media stops.
const MOST_WAITING_FACTS: usize = 1_024;

/// A room's media.
pub(super) struct Room {
    /// `None` while the room is not recorded, so that nothing flows: from when it took a packet no more, or `control`
    /// took it away, until `control` hands in the next one.
    tap: Option<Tap>,
    longest_silence: Duration,
    facts: mpsc::Sender<Fact>,
    waiting: VecDeque<Fact>,
    flow: bool,
    was_flowing: bool,
    members: Vec<(PeerKey, Member)>,
}

/// A connection's part in its room.
pub(super) struct Member {
    connection: ConnectionId,
    participant: ParticipantId,
    /// When its last datagram came.
    pub(super) last_seen: MonoTime,
    /// Its sources whose first write is on disk.
    pub(super) recorded: Vec<Source>,
    sources: Vec<SourceState>,
    slots: Slots,
    slots_changed: bool,
}

/// What one source did last.
struct SourceState {
    source: Source,
    last_packet: MonoTime,
    active: bool,
    keyframe_wanted: bool,
    keyframe_asked: Option<MonoTime>,
    last_keyframe: MonoTime,
}

impl Member {
    pub(super) fn new(connection: ConnectionId, participant: ParticipantId, now: MonoTime) -> Self {
        Self {
            connection,
            participant,
            last_seen: now,
            recorded: Vec::new(),
            sources: Vec::new(),
            slots: Slots::default(),
            slots_changed: false,
        }
    }

    fn source_mut(&mut self, source: Source) -> Option<&mut SourceState> {
        self.sources.iter_mut().find(|state| state.source == source)
    }
}

impl SourceState {
    fn is_busy(&self) -> bool {
        self.active || self.keyframe_wanted
    }

    fn silence_limit(&self) -> Duration {
        if self.source.is_audio() { AUDIO_SILENCE } else { VIDEO_SILENCE }
    }
}

impl Room {
    pub(super) fn new(tap: Tap, facts: mpsc::Sender<Fact>, longest_silence: Duration) -> Self {
        Self {
            tap: Some(tap),
            longest_silence,
            facts,
            waiting: VecDeque::new(),
            flow: false,
            was_flowing: false,
            members: Vec::new(),
        }
    }

    pub(super) fn join(&mut self, key: PeerKey, member: Member) {
        self.members.push((key, member));
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = PeerKey> {
        self.members.iter().map(|(key, _)| *key)
    }

    /// A connection from which no datagram came for longer than `limit`.
    pub(super) fn silent(&self, now: MonoTime, limit: Duration) -> Option<PeerKey> {
        self.members.iter().find(|(_, member)| now.since(member.last_seen) > limit).map(|(key, _)| *key)
    }

    pub(super) fn key_of(&self, connection: ConnectionId) -> Option<PeerKey> {
        self.members.iter().find(|(_, member)| member.connection == connection).map(|(key, _)| *key)
    }

    pub(super) fn key_of_participant(&self, participant: ParticipantId) -> Option<PeerKey> {
        self.members.iter().find(|(_, member)| member.participant == participant).map(|(key, _)| *key)
    }

    pub(super) fn member_mut(&mut self, connection: ConnectionId) -> Option<&mut Member> {
        self.members.iter_mut().map(|(_, member)| member).find(|member| member.connection == connection)
    }

    pub(super) fn set_flow(&mut self, flow: bool) {
        self.flow = flow;
    }

    /// From here on the room's media goes into this tap; `None`: into none, and nothing flows. Whatever was recorded
    /// before says nothing about the new files: every source begins anew, a picture with a keyframe.
    pub(super) fn set_tap(&mut self, now: MonoTime, tap: Option<Tap>) {
        self.tap = tap;
        for (_, member) in &mut self.members {
            member.recorded.clear();
            for state in member.sources.iter_mut().filter(|state| !state.source.is_audio()) {
                state.keyframe_wanted |= self.tap.is_some();
            }
        }
        self.flows(now);
    }

    /// The recorder can do nothing with this source's picture before a keyframe comes.
    pub(super) fn ask_for_keyframe(&mut self, connection: ConnectionId, source: Source) {
        if let Some(state) = self.member_mut(connection).and_then(|sender| sender.source_mut(source)) {
            state.keyframe_wanted = true;
        }
    }

    /// The client receives on one more m-line.
    pub(super) fn add_slot(&mut self, connection: ConnectionId, audio: bool) {
        if let Some(member) = self.member_mut(connection) {
            member.slots.add(audio);
        }
    }

    /// Records a packet, and hands it to `send` for every receiver that may have it.
    pub(super) fn take_packet(
        &mut self,
        now: MonoTime,
        connection: ConnectionId,
        source: Source,
        packet: &Packet,
        mut send: impl FnMut(PeerKey, usize, &Packet, Rewrite),
    ) {
        let frame = (packet.codec == Codec::Vp8).then(|| FrameIds::of(&packet.payload));
        let Some(sender) = self.member_mut(connection) else { return };
        let (participant, recorded) = (sender.participant, sender.recorded.contains(&source));
        let began = note_packet(sender, source, packet, frame);
        if began {
            self.tell(Fact::SourceChanged { connection, source, active: true, since: packet.arrival });
        }
        self.record(Tapped::Packet { connection, source, packet: packet.clone() });
        if !self.flows(now) || !recorded {
            return;
        }
        let origin = Origin { connection, participant, source };
        let mut keyframe_wanted = false;
        for (key, receiver) in self.members.iter_mut().filter(|(_, member)| member.participant != participant) {
            // Padding goes where its source is seen already, so that the receiver misses no number; it opens nothing.
            let found = if packet.payload.is_empty() {
                receiver.slots.slot_of(origin).map(|slot| (slot, false))
            } else {
                receiver.slots.assign(origin)
            };
            let Some((slot, new)) = found else { continue };
            receiver.slots_changed |= new;
            match receiver.slots.forward(slot, packet, frame) {
                Verdict::Forward(slot, rewrite) => send(*key, slot, packet, rewrite),
                Verdict::AwaitKeyframe => keyframe_wanted |= !packet.payload.is_empty(),
                Verdict::Drop => {}
            }
        }
        if keyframe_wanted && let Some(state) = self.member_mut(connection).and_then(|sender| sender.source_mut(source))
        {
            state.keyframe_wanted = true;
        }
    }

    /// Records a sender report.
    pub(super) fn take_report(&mut self, connection: ConnectionId, source: Source, report: SenderReport) {
        self.record(Tapped::Report { connection, source, report });
    }

    /// What a source's report says of the slots that carry it: `each` gets receiver, slot and the report's timestamp as
    /// it is there.
    pub(super) fn map_report(
        &self,
        connection: ConnectionId,
        source: Source,
        report: &SenderReport,
        mut each: impl FnMut(PeerKey, usize, u32),
    ) {
        let sender = self.members.iter().map(|(_, member)| member).find(|member| member.connection == connection);
        let Some(sender) = sender else { return };
        let origin = Origin { connection, participant: sender.participant, source };
        for (key, receiver) in &self.members {
            if let Some(slot) = receiver.slots.slot_of(origin)
                && let Some(timestamp) = receiver.slots.timestamp(slot, report.ssrc, report.rtp_timestamp)
            {
                each(*key, slot, timestamp);
            }
        }
    }

    /// A receiver cannot decode this slot until a keyframe comes.
    pub(super) fn want_keyframe(&mut self, receiver: ConnectionId, slot: usize) {
        let origin = self.member_mut(receiver).and_then(|member| member.slots.origin(slot));
        let Some(origin) = origin else { return };
        if let Some(state) = self.member_mut(origin.connection).and_then(|sender| sender.source_mut(origin.source)) {
            state.keyframe_wanted = true;
        }
    }

    /// The next source to be asked for a keyframe; each at most once per [`KEYFRAME_INTERVAL`].
    pub(super) fn next_keyframe_request(&mut self, now: MonoTime) -> Option<(PeerKey, Source)> {
        for (key, member) in &mut self.members {
            for state in &mut member.sources {
                let rested = state.keyframe_asked.is_none_or(|asked| now.since(asked) >= KEYFRAME_INTERVAL);
                if state.keyframe_wanted && rested {
                    state.keyframe_wanted = false;
                    state.keyframe_asked = Some(now);
                    return Some((*key, state.source));
                }
            }
        }
        None
    }

    /// A connection is gone: its original ends, its slots become free.
    pub(super) fn leave(&mut self, now: MonoTime, key: PeerKey, slot_mid: impl Fn(PeerKey, usize) -> Option<String>) {
        let Some(index) = self.members.iter().position(|(held, _)| *held == key) else { return };
        let (_, member) = self.members.remove(index);
        self.record(Tapped::End { connection: member.connection, at: now });
        for (_, receiver) in &mut self.members {
            receiver.slots_changed |= receiver.slots.release(member.connection, None);
        }
        self.tell(Fact::Disconnected { connection: member.connection, last_seen: member.last_seen });
        self.tell_slots(slot_mid);
    }

    /// Whether [`Self::keep_house`] could find anything: rooms in which nobody sends are left alone.
    pub(super) fn needs_keeping(&self) -> bool {
        let busy = |member: &Member| member.slots_changed || member.sources.iter().any(SourceState::is_busy);
        !self.waiting.is_empty() || self.members.iter().any(|(_, member)| busy(member))
    }

    /// Notices who fell silent, whose picture needs a keyframe, and sends facts that waited.
    pub(super) fn keep_house(&mut self, now: MonoTime, slot_mid: impl Fn(PeerKey, usize) -> Option<String>) {
        let mut silent = Vec::new();
        for (_, member) in &mut self.members {
            for state in member.sources.iter_mut().filter(|state| state.active) {
                if now.since(state.last_packet) > state.silence_limit() {
                    state.active = false;
                    silent.push((member.connection, state.source, state.last_packet));
                } else if !state.source.is_audio() && now.since(state.last_keyframe) > LONGEST_WITHOUT_KEYFRAME {
                    state.keyframe_wanted = true;
                }
            }
        }
        for (connection, source, since) in silent {
            self.tell(Fact::SourceChanged { connection, source, active: false, since });
            if source == Source::Screen {
                for (_, receiver) in &mut self.members {
                    receiver.slots_changed |= receiver.slots.release(connection, Some(source));
                }
            }
        }
        // A stop is noticed here too, when no packet comes that would.
        self.flows(now);
        self.tell_slots(slot_mid);
        self.send_waiting_facts();
    }

    /// Tells each receiver whose slots changed what they carry now.
    pub(super) fn tell_slots(&mut self, slot_mid: impl Fn(PeerKey, usize) -> Option<String>) {
        let mut changed = Vec::new();
        for (key, member) in self.members.iter_mut().filter(|(_, member)| member.slots_changed) {
            member.slots_changed = false;
            let slots = member.slots.used().filter_map(|(index, origin)| {
                let mid = slot_mid(*key, index)?;
                Some(Slot { mid, participant: origin.participant, source: origin.source })
            });
            changed.push(Fact::Slots { connection: member.connection, slots: slots.collect() });
        }
        for fact in changed {
            self.tell(fact);
        }
    }

    /// Tells the room's actor; a fact that finds its queue full waits.
    pub(super) fn tell(&mut self, fact: Fact) {
        if self.waiting.len() >= MOST_WAITING_FACTS {
            tracing::error!("a room's actor does not take facts: its media stops");
            self.flow = false;
            return;
        }
        self.waiting.push_back(fact);
        self.send_waiting_facts();
    }

    fn send_waiting_facts(&mut self) {
        while let Some(fact) = self.waiting.pop_front() {
            match self.facts.try_send(fact) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(fact)) => {
                    self.waiting.push_front(fact);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    // Nobody decides about this room any more.
                    self.flow = false;
                    return;
                }
            }
        }
    }

    /// Whether media may flow now. Each stop makes every stream go on with a keyframe.
    fn flows(&mut self, now: MonoTime) -> bool {
        let durable = self.tap.as_ref().is_some_and(|tap| tap.is_durable(now, self.longest_silence));
        let flows = self.flow && durable;
        if self.was_flowing && !flows {
            for (_, member) in &mut self.members {
                member.slots.pause();
            }
        }
        self.was_flowing = flows;
        flows
    }

    fn record(&mut self, item: Tapped) {
        let Some(tap) = &self.tap else { return };
        if let Err(error) = tap.push(item) {
            self.lose_recording(error);
        }
    }

    fn lose_recording(&mut self, error: TapError) {
        tracing::error!(%error, "a room's recording is lost: its media stops");
        if let Some(tap) = self.tap.take() {
            tap.give_up();
        }
        self.tell(Fact::TapFailed { error });
    }
}

/// Notes what a packet tells of its source; `true`: the source began to send.
fn note_packet(sender: &mut Member, source: Source, packet: &Packet, frame: Option<FrameIds>) -> bool {
    let arrival = packet.arrival;
    if sender.source_mut(source).is_none() {
        sender.sources.push(SourceState {
            source,
            last_packet: arrival,
            active: false,
            keyframe_wanted: false,
            keyframe_asked: None,
            last_keyframe: arrival,
        });
    }
    let Some(state) = sender.source_mut(source) else { return false };
    // Padding proves that a connection lives, not that a camera does.
    if packet.payload.is_empty() {
        return false;
    }
    state.last_packet = arrival;
    if frame.is_some_and(|frame| frame.starts_keyframe) {
        state.last_keyframe = arrival;
        state.keyframe_wanted = false;
    }
    !std::mem::replace(&mut state.active, true)
}
