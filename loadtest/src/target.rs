//! The servers that a call can be held on, and what a meeting is to each.

use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use crate::api::{Api, ApiError};
use crate::appointment::Appointment;
use crate::client::{Client, ClientError, Guest, Habits, Part};
use crate::janus::{self, Janus};
use crate::media::{Film, Voice};

/// Whose server is driven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Our own: rooms are booked, joined by code, opened and concluded.
    #[default]
    Sportello,
    /// Janus's video room with recording, over its REST API. Light clients only.
    Janus,
}

impl Target {
    /// Its name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sportello => "Sportello",
            Self::Janus => "Janus",
        }
    }
}

/// A server, and what it takes to make rooms there.
pub(crate) enum Server {
    Sportello { api: Api, booking_key: String },
    Janus(Janus),
}

/// A room in which everyone may join.
pub(crate) enum Meeting {
    Sportello(Booked),
    Janus { room: janus::Room, people: usize },
}

/// A room of ours.
pub(crate) struct Booked {
    api: Api,
    booking_key: String,
    id: String,
    /// The operator's session.
    operator: String,
    /// Everyone's, by seat.
    sessions: Vec<String>,
}

/// Who joins, and what they bring.
pub(crate) struct Person {
    pub(crate) role: &'static str,
    pub(crate) film: Arc<Film>,
    pub(crate) voice: Voice,
    /// Start of the room.
    pub(crate) began: Instant,
    pub(crate) habits: Habits,
}

impl Server {
    /// Makes a room and, where there are doors, opens them for everyone.
    pub(crate) async fn begin_meeting(&self, appointment: &Appointment) -> Result<Meeting, ClientError> {
        let (api, booking_key) = match self {
            Self::Janus(janus) => {
                let people = appointment.profile.roles().len();
                let room = janus::Room::make(janus, appointment.number, people).await?;
                return Ok(Meeting::Janus { room, people });
            }
            Self::Sportello { api, booking_key } => (api.clone(), booking_key.clone()),
        };
        let booked = api.book(&booking_key, appointment).await?;
        let mut sessions = Vec::new();
        for participant in &booked.participants {
            sessions.push(api.join(participant).await?);
        }
        let operator = booked.participants.iter().position(|participant| participant.role == "operator");
        let operator = operator.and_then(|seat| sessions.get(seat)).cloned();
        let operator = operator.ok_or(ApiError::Answer("no operator among those booked"))?;
        let id = booked.room.id;
        api.open(&operator, &id).await?;
        for participant in booked.participants.iter().filter(|participant| participant.role != "operator") {
            api.admit(&operator, &id, &participant.id).await?;
        }
        Ok(Meeting::Sportello(Booked { api, booking_key, id, operator, sessions }))
    }
}

impl Meeting {
    /// The person with this number joins, or joins again.
    pub(crate) async fn join(&self, seat: u32, person: Person) -> Result<Client, ClientError> {
        let Person { role, film, voice, began, habits } = person;
        let role = role.to_owned();
        match self {
            Self::Sportello(Booked { api, sessions, .. }) => {
                let session = usize::try_from(seat).ok().and_then(|seat| sessions.get(seat)).cloned();
                let session = session.ok_or(ApiError::Answer("fewer people than were booked"))?;
                Client::join(Part { api: api.clone(), session, role, film, voice, began, habits }).await
            }
            Self::Janus { room, people } => {
                let Habits { light, delays, meters, .. } = habits;
                let light = light.ok_or(ClientError::TooHeavy)?;
                let (door, others) = (room.door(), people.saturating_sub(1));
                let guest = Guest { door, role, others, film, voice, delays, meters, began };
                Client::join_janus(light, guest).await
            }
        }
    }

    /// The room's name with the server; where it has none that anybody asks for, nothing.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Sportello(Booked { id, .. }) => id,
            Self::Janus { .. } => "",
        }
    }

    /// Whether the server has stopped the media because somebody is missing.
    pub(crate) async fn is_suspended(&self) -> Result<bool, ClientError> {
        match self {
            Self::Sportello(Booked { api, booking_key, id, .. }) => {
                Ok(api.phase(booking_key, id).await? == "suspended")
            }
            Self::Janus { .. } => Ok(false),
        }
    }

    /// Ends the room.
    pub(crate) async fn conclude(self) -> Result<(), ClientError> {
        match self {
            Self::Sportello(Booked { api, id, operator, .. }) => Ok(api.conclude(&operator, &id).await?),
            Self::Janus { room, .. } => Ok(room.destroy().await?),
        }
    }
}
