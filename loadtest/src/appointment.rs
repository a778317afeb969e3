//! What is booked: whose appointment, when, and who takes part.

use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

/// The kind of service that rooms are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Three people: operator, delegato and delegante
    #[default]
    Delega,
    /// Two people: operator and citizen
    Videochiamata,
}

impl Profile {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delega => "delega",
            Self::Videochiamata => "videochiamata",
        }
    }

    /// The roles that it requires, the operator first.
    pub const fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Delega => &["operator", "delegato", "delegante"],
            Self::Videochiamata => &["operator", "citizen"],
        }
    }

    /// Its usual slot, minutes.
    pub const fn minutes(self) -> i64 {
        match self {
            Self::Delega => 30,
            Self::Videochiamata => 20,
        }
    }
}

/// One appointment.
#[derive(Clone, Copy, Debug)]
pub struct Appointment {
    /// The kind of service.
    pub profile: Profile,
    /// Which of the run.
    pub number: u32,
    /// When it begins.
    pub start: Timestamp,
    /// How long it is booked for.
    pub lasts: SignedDuration,
}

impl Appointment {
    /// One that begins now and lasts as long as usual.
    pub fn now(profile: Profile, number: u32) -> Self {
        Self { profile, number, start: Timestamp::now(), lasts: SignedDuration::from_mins(profile.minutes()) }
    }

    /// The booking, in the API's words.
    pub(crate) fn booking(&self) -> Value {
        let Self { profile, number, start, lasts } = *self;
        let person = |(seat, role): (usize, &&str)| {
            let mut person = json!({"role": role, "name": format!("{role} {number}")});
            // A made-up one, so that a recording can be searched for by it.
            if let (1, Some(fields)) = (seat, person.as_object_mut()) {
                fields.insert("fiscal_code".into(), "RSSMRA80A41H501W".into());
            }
            person
        };
        let people: Vec<Value> = profile.roles().iter().enumerate().map(person).collect();
        // A time beyond the calendar's end is refused by the server.
        let end = start.saturating_add(lasts).unwrap_or(Timestamp::MAX);
        json!({
            "profile": profile.name(), "office": "Prova di carico", "counter": format!("Sportello {number}"),
            "reason": "Prova di carico", "start": start.to_string(), "end": end.to_string(), "participants": people,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_booking_names_each_role_that_its_profile_requires() {
        for (profile, people) in [(Profile::Delega, 3), (Profile::Videochiamata, 2)] {
            let booking = Appointment::now(profile, 7).booking();
            let booked = booking["participants"].as_array().unwrap();
            assert_eq!(booked.len(), people);
            assert!(booked.iter().zip(profile.roles()).all(|(person, role)| person["role"] == *role));
            assert!(booked[1]["fiscal_code"].is_string() && booked[0]["fiscal_code"].is_null());
        }
    }
}
