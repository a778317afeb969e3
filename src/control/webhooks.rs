//! What the booking system is told of a room, and when: one webhook for each ledger line that matters to it.
//!
//! Payloads hold ids, times and facts, never names, numbers or codes: they pass through systems that are not ours.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Now;
use crate::id::{MessageId, ParticipantId, RoomId};
use crate::room::ledger::Line;
use crate::room::{Event, Outcome, Person, Phase, Place, PresenceInterval, Role, Room, SuspendReason};
use crate::store::{Appointment, MessageKind, NewMessage};

/// How long a webhook is tried. Longer keeps a dead receiver's events alive past anyone's interest; shorter loses what
/// happened over a weekend.
const TRIED_FOR: SignedDuration = SignedDuration::from_hours(72);

/// The body of a webhook (Standard Webhooks, «payload structure»).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Webhook {
    /// What happened, e.g. `room.concluded`.
    #[serde(rename = "type")]
    #[schema(example = "delegation.granted")]
    pub kind: String,
    /// When it happened, RFC 3339.
    #[schema(example = "2026-01-13T09:21:40Z")]
    pub timestamp: Timestamp,
    /// What there is to know of it.
    pub data: WebhookData,
}

/// What there is to know of an event. Members that say nothing about it are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookData {
    /// The room.
    pub room_id: RoomId,
    /// The booking system's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "PRN-2026-000123")]
    pub reference: Option<String>,
    /// Name of the room's profile.
    #[schema(example = "delega")]
    pub profile: String,
    /// The room's phase after the event.
    pub phase: Phase,
    /// The ledger line that this tells of, and its hash.
    pub ledger: LedgerHead,
    /// Start of the appointment, RFC 3339, when it is booked or moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-13T09:00:00Z")]
    pub start: Option<Timestamp>,
    /// End of the appointment, RFC 3339, when it is booked or moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub end: Option<Timestamp>,
    /// The person it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant_id: Option<ParticipantId>,
    /// Why media does not flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<SuspendReason>,
    /// How the meeting ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Until when documents may be handed in, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-16T09:21:40Z")]
    pub extension_until: Option<Timestamp>,
    /// What the delegation rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// Where a ledger stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LedgerHead {
    /// Number of the line, from 1.
    #[schema(example = 42)]
    pub seq: u64,
    /// SHA-256 of the line, hex: binds it and every line before it.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
}

/// What a delegation rests on: that everyone required was there together, and what was written of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Proof {
    /// Who took part.
    pub participants: Vec<ProofParticipant>,
    /// When all required were present together, with live sound and picture or attested on a shared device.
    pub presence: Vec<PresenceInterval>,
}

/// Someone who took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProofParticipant {
    /// The participant.
    pub id: ParticipantId,
    /// Their role.
    pub role: Role,
    /// On whose device they were attested, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attested_beside: Option<ParticipantId>,
}

/// The webhooks that follow from new ledger lines; `before` is the room before them.
pub(super) fn of_lines(now: Now, before: &Room, appointment: &Appointment, lines: &[Line]) -> Vec<NewMessage> {
    let mut messages = Vec::new();
    // Most lines tell of media, and of those nobody is told.
    if lines.iter().all(|line| kinds(&line.event).is_empty()) {
        return messages;
    }
    let mut room = before.clone();
    for line in lines {
        room.apply(&line.entry());
        messages.extend(of_line(now, &room, appointment, line));
    }
    messages
}

/// The webhooks that follow from one ledger line; `room` is the room after it.
pub(super) fn of_line(now: Now, room: &Room, appointment: &Appointment, line: &Line) -> Vec<NewMessage> {
    let message = |kind: &str| {
        let webhook = webhook(kind, now, room, appointment, line);
        Some(NewMessage {
            id: MessageId::new(now.wall),
            kind: MessageKind::Webhook,
            room: room.id(),
            participant: None,
            subject: kind.to_owned(),
            // Plain data: it always serialises.
            body: serde_json::to_vec(&webhook).ok()?,
            give_up: tried_until(now.wall),
        })
    };
    kinds(&line.event).iter().filter_map(|kind| message(kind)).collect()
}

/// How long a webhook is tried that is written, or replayed, now.
pub(super) fn tried_until(now: Timestamp) -> Timestamp {
    now.saturating_add(TRIED_FOR).unwrap_or(Timestamp::MAX)
}

/// What an event is called outside; nothing: the booking system has no use for it.
fn kinds(event: &Event) -> &'static [&'static str] {
    match event {
        Event::Booked { .. } => &["room.booked"],
        Event::Rescheduled { .. } => &["room.rescheduled"],
        Event::Replaced { .. } => &["participant.replaced"],
        Event::Cancelled => &["room.cancelled"],
        Event::Expired => &["room.expired"],
        Event::CodeRejected { attempts_left: 0, .. } => &["participant.code_locked"],
        Event::CodeNotSent { .. } => &["participant.code_not_sent"],
        Event::Opened => &["room.opened"],
        Event::WentLive => &["room.live"],
        Event::Suspended { .. } => &["room.suspended"],
        Event::RecordingLost { .. } => &["room.recording_lost"],
        Event::Concluded { outcome: Outcome::Granted, .. } => &["room.concluded", "delegation.granted"],
        Event::Concluded { .. } => &["room.concluded"],
        Event::Extended { .. } => &["room.extended"],
        Event::Closed => &["room.closed"],
        _ => &[],
    }
}

fn webhook(kind: &str, now: Now, room: &Room, appointment: &Appointment, line: &Line) -> Webhook {
    let (start, end) = match line.event {
        Event::Booked { start, end, .. } | Event::Rescheduled { start, end } => (Some(start), Some(end)),
        _ => (None, None),
    };
    let participant_id = match line.event {
        Event::CodeRejected { participant, .. } | Event::CodeNotSent { participant } => Some(participant),
        Event::Replaced { by, .. } => Some(by),
        _ => None,
    };
    let suspended = match &line.event {
        Event::Suspended { reason } => Some(reason.clone()),
        Event::RecordingLost { reason } => Some(SuspendReason::Recording { reason: *reason }),
        _ => None,
    };
    let over = matches!(line.event, Event::Concluded { .. } | Event::Extended { .. } | Event::Closed);
    Webhook {
        kind: kind.to_owned(),
        timestamp: line.wall,
        data: WebhookData {
            room_id: room.id(),
            reference: appointment.reference.clone(),
            profile: room.profile().name.clone(),
            phase: room.phase(),
            ledger: LedgerHead { seq: line.seq, hash: line.hash.clone() },
            start,
            end,
            participant_id,
            suspended,
            outcome: room.outcome().filter(|_| over),
            extension_until: room.extension_until().filter(|_| over),
            proof: (kind == "delegation.granted").then(|| proof(now, room)),
        },
    }
}

fn proof(now: Now, room: &Room) -> Proof {
    // Whoever was booked and did not come proves nothing.
    let came = |person: &&Person| person.place() == Place::Inside || person.attested_beside().is_some();
    let participants = room.people().iter().filter(came);
    Proof {
        participants: participants
            .map(|person| ProofParticipant {
                id: person.id(),
                role: person.role(),
                attested_beside: person.attested_beside(),
            })
            .collect(),
        presence: room.presence_intervals(now),
    }
}
