//! What kind of service a room follows, and the domain's fixed words.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Toml};
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

impl Role {
    /// The word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Delegato => "delegato",
            Self::Delegante => "delegante",
            Self::Citizen => "citizen",
            Self::Guest => "guest",
        }
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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

impl Phase {
    /// The word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Suspended => "suspended",
            Self::Concluded => "concluded",
            Self::Extended => "extended",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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

impl Outcome {
    /// The word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Served => "served",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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
    /// What the operator goes through and ticks off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// How long a room's recordings are kept from its end on, days; `None`: until someone sets a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
}

/// One step of a meeting, for the operator's list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name in the ledger.
    pub id: String,
    /// What it is called in Italian.
    pub it: String,
    /// In English.
    pub en: String,
    /// In German.
    pub de: String,
}

/// Steps of one profile. More would not fit beside a meeting.
const MOST_STEPS: usize = 20;
/// Characters of a step's texts.
const LONGEST_STEP: usize = 200;

/// Why a text is not a profile. The configuration's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}{}: allowed: {allowed}", value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default())]
pub struct ProfileError {
    /// The key; empty if the text is no TOML at all.
    pub key: String,
    /// What it says there; `None` if the key is missing or unknown.
    pub value: Option<String>,
    /// What it may say.
    pub allowed: String,
}

/// Longest retention: a hundred years. Its only purpose is to catch a wrong number.
const LONGEST_RETENTION_DAYS: u32 = 36_525;

/// The built-in profiles.
const SHIPPED: [&str; 2] =
    [include_str!("../../config/profiles/delega.toml"), include_str!("../../config/profiles/videochiamata.toml")];

impl Profile {
    /// Reads a profile from the text of its file.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = Figment::from(Toml::string(text)).extract()?;
        profile.check()?;
        Ok(profile)
    }

    /// The built-in profiles, `delega` and `videochiamata`.
    pub fn shipped() -> Vec<Self> {
        // They are part of the program, and a test reads them: none is left out.
        SHIPPED.iter().filter_map(|text| Self::parse(text).ok()).collect()
    }

    fn check(&self) -> Result<(), ProfileError> {
        let name_is_plain =
            self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        ensure(name_is_plain && (1..=64).contains(&self.name.len()), "name", &self.name, || {
            "1 to 64 lower-case letters, digits, \"-\" and \"_\"".into()
        })?;
        let required = &self.required;
        ensure(
            required.contains(&Role::Operator) && !required.contains(&Role::Guest) && all_different(required),
            "required",
            required,
            || "operator and any of delegato, delegante, citizen, each once".into(),
        )?;
        let outcomes = &self.outcomes;
        ensure(outcomes.contains(&Outcome::Incomplete) && all_different(outcomes), "outcomes", outcomes, || {
            "incomplete and any of granted, refused, served, each once".into()
        })?;
        ensure(all_different(&self.features), "features", &self.features, || {
            "any of chat, documents, sharing, each once".into()
        })?;
        self.check_steps()?;
        within("slot_minutes", self.slot_minutes, 1..=480)?;
        within("admission_opens_minutes", self.admission_opens_minutes, 0..=1440)?;
        within("code_digits", self.code_digits, 4..=10)?;
        within("code_attempts", self.code_attempts, 1..=10)?;
        within("absence_grace_seconds", self.absence_grace_seconds, 1..=60)?;
        let slot = u32::from(self.slot_minutes) * 60;
        within("minimum_presence_seconds", self.minimum_presence_seconds, 0..=slot.min(3_600))?;
        within("longest_absence_seconds", self.longest_absence_seconds, self.absence_grace_seconds + 1..=86_400)?;
        within("longest_extension_hours", self.longest_extension_hours, 0..=720)?;
        self.retention_days.map_or(Ok(()), |days| within("retention_days", days, 1..=LONGEST_RETENTION_DAYS))
    }

    fn check_steps(&self) -> Result<(), ProfileError> {
        let ids: Vec<_> = self.steps.iter().map(|step| &step.id).collect();
        let plain = |id: &str| {
            id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b)) && !id.is_empty()
        };
        let short = |step: &Step| {
            let texts = [&step.id, &step.it, &step.en, &step.de];
            texts.iter().all(|text| (1..=LONGEST_STEP).contains(&text.chars().count()))
        };
        let good = self.steps.iter().all(|step| plain(&step.id) && short(step));
        ensure(good && self.steps.len() <= MOST_STEPS && all_different(&ids), "steps", &self.steps, || {
            format!("at most {MOST_STEPS}, each with an id of its own in lower case and texts it, en, de")
        })
    }

    /// How long before the start the admission window opens.
    pub fn admission_opens(&self) -> Duration {
        Duration::from_secs(u64::from(self.admission_opens_minutes) * 60)
    }

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

fn ensure(
    holds: bool,
    key: &str,
    value: &(impl Serialize + ?Sized),
    allowed: impl FnOnce() -> String,
) -> Result<(), ProfileError> {
    if holds {
        Ok(())
    } else {
        Err(ProfileError { key: key.into(), value: serde_json::to_string(value).ok(), allowed: allowed() })
    }
}

fn within<T: PartialOrd + Display + Serialize + Copy>(
    key: &str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), ProfileError> {
    ensure(allowed.contains(&value), key, &value, || format!("{} to {}", allowed.start(), allowed.end()))
}

fn all_different<T: PartialEq>(values: &[T]) -> bool {
    values.iter().enumerate().all(|(at, value)| !values.iter().take(at).any(|earlier| earlier == value))
}

impl From<figment::Error> for ProfileError {
    fn from(error: figment::Error) -> Self {
        let key = error.path.join(".");
        let one_of = |names: &[&str]| format!("one of {}", names.join(", "));
        let (key, value, allowed) = match error.kind {
            Kind::UnknownField(key, known) => (key, None, one_of(known)),
            Kind::MissingField(key) => (key.into_owned(), None, "the key must be there".into()),
            Kind::UnknownVariant(value, known) => (key, Some(format!("{value:?}")), one_of(known)),
            Kind::InvalidType(value, allowed) | Kind::InvalidValue(value, allowed) => {
                (key, Some(value.to_string()), allowed)
            }
            kind => (key, None, format!("a TOML file like those in config/profiles ({kind})")),
        };
        Self { key, value, allowed }
    }
}
