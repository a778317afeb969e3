//! What kind of service a room follows, and the domain's fixed words.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who someone is in a room (DOMAIN.md, «Words»).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "delegato")]
pub enum Role {
    /// The counter officer who opens the room, lets people in and records the outcome.
    Operator,
    /// The person who will act for someone else.
    Delegato,
    /// The person who delegates.
    Delegante,
    /// The one citizen of a `videochiamata` room.
    Citizen,
    /// Anyone else the booking names; never required.
    Guest,
}

/// Where a room stands (DOMAIN.md, «Phases of a room»).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "waiting")]
pub enum Phase {
    /// Booked; nobody is admitted yet.
    Scheduled,
    /// The admission window is open; no media flows.
    Waiting,
    /// The presence rule holds, the recording is durable, media flows.
    Live,
    /// It was live and the rule or the recording broke; no media flows.
    Suspended,
    /// The operator recorded the outcome, or the absence lasted too long.
    Concluded,
    /// Concluded, and documents may still be handed in.
    Extended,
    /// Over.
    Closed,
    /// The booking was withdrawn.
    Cancelled,
    /// Nobody opened it in its window.
    Expired,
}

/// How a meeting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "granted")]
pub enum Outcome {
    /// The delegation is given (delega).
    Granted,
    /// The delegation is not given (delega).
    Refused,
    /// The information was given (videochiamata).
    Served,
    /// The meeting did not come to an end.
    Incomplete,
}

/// What the operator can switch on in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = "chat")]
pub enum Feature {
    /// Written messages.
    Chat,
    /// Handing documents in.
    Documents,
    /// Sharing a screen.
    Sharing,
}

/// A kind of service (DOMAIN.md, «Numbers of the profiles»). One file in `config/profiles/` each.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The profile's name, as bookings write it.
    pub name: String,
    /// Roles of the presence rule: each present with live audio and video, or attested on a shared device.
    pub required: Vec<Role>,
    /// Outcomes the operator may record.
    pub outcomes: Vec<Outcome>,
    /// Usual length of an appointment, minutes.
    pub slot_minutes: u16,
    /// How long before the start the admission window opens, minutes. It closes at the end.
    pub admission_opens_minutes: u16,
    /// Digits of an admission code.
    pub code_digits: u8,
    /// Wrong codes until it is locked and must be re-issued.
    pub code_attempts: u8,
    /// How long someone may be missing before the room is suspended, seconds.
    pub absence_grace_seconds: u32,
    /// Unbroken presence that `granted` needs, seconds; 0: none.
    pub minimum_presence_seconds: u32,
    /// Absence after which the room is concluded as `incomplete`, seconds.
    pub longest_absence_seconds: u32,
    /// Longest document extension, hours; 0: none.
    pub longest_extension_hours: u16,
    /// Features that are on from the start; the others wait for the operator.
    #[serde(default)]
    pub features: Vec<Feature>,
}

impl Profile {
    /// Grace of an absence.
    pub fn absence_grace(&self) -> Duration {
        Duration::from_secs(self.absence_grace_seconds.into())
    }

    /// Unbroken presence that `granted` needs.
    pub fn minimum_presence(&self) -> Duration {
        Duration::from_secs(self.minimum_presence_seconds.into())
    }

    /// Absence after which the room is concluded.
    pub fn longest_absence(&self) -> Duration {
        Duration::from_secs(self.longest_absence_seconds.into())
    }
}
