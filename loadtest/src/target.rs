//! The servers that a call can be held on, and what a meeting is to each.

use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use crate::api::{Api, ApiError, Booked};
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

/// People in a room, in the report's order.
const ROLES: [&str; 3] = ["operator", "delegato", "delegante"];

/// A server, and what it takes to make rooms there.
pub(crate) enum Server {
    Sportello { api: Api, booking_key: String },
    Janus(Janus),
}

/// A room in which everyone may join.
pub(crate) enum Meeting {
    Sportello { api: Api, booked: Booked, sessions: Vec<String> },
    Janus(janus::Room),
}

/// Who joins, and what they bring.
pub(crate) struct Person {
    pub(crate) film: Arc<Film>,
    pub(crate) voice: Voice,
    /// Start of the room.
    pub(crate) began: Instant,
    pub(crate) habits: Habits,
}

impl Server {
    /// Makes a room and, where there are doors, opens them for everyone.
    pub(crate) async fn begin_meeting(&self, number: u32) -> Result<Meeting, ClientError> {
        let (api, booking_key) = match self {
            Self::Janus(janus) => return Ok(Meeting::Janus(janus::Room::make(janus, number, ROLES.len()).await?)),
            Self::Sportello { api, booking_key } => (api, booking_key),
        };
        let booked = api.book(booking_key, number).await?;
        let mut sessions = Vec::new();
        for participant in &booked.participants {
            sessions.push(api.join(participant).await?);
        }
        let operator = officer(&booked, &sessions)?;
        api.open(operator, &booked.room.id).await?;
        for participant in booked.participants.iter().filter(|participant| participant.role != "operator") {
            api.admit(operator, &booked.room.id, &participant.id).await?;
        }
        Ok(Meeting::Sportello { api: api.clone(), booked, sessions })
    }
}

impl Meeting {
    /// The person with this number joins, or joins again.
    pub(crate) async fn join(&self, seat: usize, person: Person) -> Result<Client, ClientError> {
        let Person { film, voice, began, habits } = person;
        match self {
            Self::Sportello { api, booked, sessions } => {
                let nobody = ApiError::Answer("fewer people than were booked");
                let (participant, session) = booked.participants.iter().zip(sessions).nth(seat).ok_or(nobody)?;
                let (api, session, role) = (api.clone(), session.clone(), participant.role.clone());
                Client::join(Part { api, session, role, film, voice, began, habits }).await
            }
            Self::Janus(room) => {
                let role = ROLES.get(seat).copied().unwrap_or_default().to_owned();
                let light = habits.light.ok_or(ClientError::TooHeavy)?;
                let (door, others) = (room.door(), ROLES.len() - 1);
                let guest = Guest { door, role, others, film, voice, delays: habits.delays, began };
                Client::join_janus(light, guest).await
            }
        }
    }

    /// Ends the room.
    pub(crate) async fn conclude(self) -> Result<(), ClientError> {
        match self {
            Self::Sportello { api, booked, sessions } => {
                Ok(api.conclude(officer(&booked, &sessions)?, &booked.room.id).await?)
            }
            Self::Janus(room) => Ok(room.destroy().await?),
        }
    }
}

fn officer<'a>(booked: &Booked, sessions: &'a [String]) -> Result<&'a str, ApiError> {
    let seat = booked.participants.iter().position(|participant| participant.role == "operator");
    let session = seat.and_then(|seat| sessions.get(seat)).map(String::as_str);
    session.ok_or(ApiError::Answer("no operator among those booked"))
}
