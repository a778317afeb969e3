//! One person of a room: their admission, their consent, where they are and what they send.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Role;
use super::papers::Devices;
use super::presence::Absences;
use crate::clock::MonoTime;
use crate::id::{ConnectionId, ParticipantId};
use crate::media::Source;

/// Where a person is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "waiting")]
pub enum Place {
    /// Booked; has not entered a right code.
    Expected,
    /// The code was right; has not entered the waiting room, or left it.
    Admitted,
    /// In the waiting room.
    Waiting,
    /// In the room.
    Inside,
    /// Removed by the operator, for good.
    Removed,
}

/// Consent to the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Version of the notice that was shown.
    pub text_version: String,
    /// When it was given.
    pub at: Timestamp,
}

/// What became of the message that carries a person's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// The gateway took it.
    Sent {
        /// When it was told.
        at: Timestamp,
    },
    /// It could not be delivered, and is not tried again.
    Failed {
        /// When it was given up.
        at: Timestamp,
    },
}

/// One person booked into the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub(super) id: ParticipantId,
    pub(super) role: Role,
    pub(super) attempts_left: u8,
    pub(super) message: Option<MessageState>,
    pub(super) consent: Option<Consent>,
    pub(super) devices: Option<Devices>,
    /// Whether they were ever let in.
    pub(super) came_in: bool,
    pub(super) standing: Standing,
    pub(super) attestation: Option<Attestation>,
    /// Connections whose original has its first write on disk. Kept apart from the connection, because the
    /// recorder's word may overtake the worker's.
    pub(super) recorded: BTreeSet<ConnectionId>,
}

/// A [`Place`] with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Expected,
    Admitted,
    Waiting { since: Timestamp },
    Inside { connection: Option<Connection> },
    Removed,
}

/// The operator's word that someone sits beside another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attestation {
    pub(super) beside: ParticipantId,
    pub(super) since: MonoTime,
    pub(super) device: Device,
}

/// Whether voice and face arrive from the device that someone was attested on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// They have not arrived since the attestation.
    NotYet,
    /// They have; and when they did not.
    Seen { absences: Absences },
}

/// A person's media connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// What arrives, and since when.
    pub(super) sources: BTreeMap<Source, MonoTime>,
    /// Pictures that arrive and cannot be recorded.
    pub(super) missing: BTreeSet<Source>,
    /// The connection that this one took over from, until its end is reported.
    pub(super) replaced: Option<ConnectionId>,
}

impl Person {
    pub(super) fn booked(id: ParticipantId, role: Role, attempts: u8) -> Self {
        Self {
            id,
            role,
            attempts_left: attempts,
            message: None,
            consent: None,
            devices: None,
            came_in: false,
            standing: Standing::Expected,
            attestation: None,
            recorded: BTreeSet::new(),
        }
    }

    /// Who it is.
    pub fn id(&self) -> ParticipantId {
        self.id
    }

    /// Their role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where they are.
    pub fn place(&self) -> Place {
        match self.standing {
            Standing::Expected => Place::Expected,
            Standing::Admitted => Place::Admitted,
            Standing::Waiting { .. } => Place::Waiting,
            Standing::Inside { .. } => Place::Inside,
            Standing::Removed => Place::Removed,
        }
    }

    /// Since when they have been in the waiting room; `None` unless they are there.
    pub fn waiting_since(&self) -> Option<Timestamp> {
        match self.standing {
            Standing::Waiting { since } => Some(since),
            _ => None,
        }
    }

    /// Wrong codes that they still have until theirs is locked.
    pub fn attempts_left(&self) -> u8 {
        self.attempts_left
    }

    /// What became of the message with their code; `None`: nothing is known of one since the code was issued.
    pub fn message(&self) -> Option<MessageState> {
        self.message
    }

    /// Their consent to the recording.
    pub fn consent(&self) -> Option<&Consent> {
        self.consent.as_ref()
    }

    /// What their device check found; `None`: nobody told.
    pub fn devices(&self) -> Option<Devices> {
        self.devices
    }

    /// Whether they are or were in the room.
    pub fn came_in(&self) -> bool {
        self.came_in
    }

    /// Their media connection, if one stands.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.link().map(|connection| connection.id)
    }

    /// Whether a media connection stands.
    pub fn is_connected(&self) -> bool {
        self.link().is_some()
    }

    /// What arrives from them.
    pub fn sources(&self) -> Vec<Source> {
        self.link().map(|connection| connection.sources.keys().copied().collect()).unwrap_or_default()
    }

    /// Pictures that arrive from them and cannot be recorded, because no keyframe comes.
    pub fn missing_pictures(&self) -> Vec<Source> {
        self.link().map(|connection| connection.missing.iter().copied().collect()).unwrap_or_default()
    }

    /// On whose device they were attested; `None` unless they were.
    pub fn attested_beside(&self) -> Option<ParticipantId> {
        self.attestation.as_ref().map(|attestation| attestation.beside)
    }

    /// Whether a right code was typed.
    pub(super) fn is_admitted(&self) -> bool {
        !matches!(self.standing, Standing::Expected | Standing::Removed)
    }

    pub(super) fn link(&self) -> Option<&Connection> {
        match &self.standing {
            Standing::Inside { connection } => connection.as_ref(),
            _ => None,
        }
    }

    pub(super) fn link_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.standing {
            Standing::Inside { connection } => connection.as_mut(),
            _ => None,
        }
    }

    pub(super) fn drop_link(&mut self) {
        if let Standing::Inside { connection } = &mut self.standing {
            *connection = None;
        }
    }

    /// Since when voice and face both arrive over one connection: what presence on a device of one's own means.
    pub(super) fn seen_and_heard_since(&self) -> Option<MonoTime> {
        let sources = &self.link()?.sources;
        Some(*sources.get(&Source::Microphone)?.max(sources.get(&Source::Camera)?))
    }

    /// Since when the device that they were attested on has not been seen or heard; `None` unless it is lost.
    pub(super) fn device_lost_since(&self) -> Option<MonoTime> {
        match &self.attestation.as_ref()?.device {
            Device::Seen { absences } => absences.since(),
            Device::NotYet => None,
        }
    }

    /// Whether something arrives from them that is not known to be on disk.
    pub(super) fn sends_unrecorded(&self) -> bool {
        self.link().is_some_and(|connection| !connection.sources.is_empty() && !self.recorded.contains(&connection.id))
    }
}
