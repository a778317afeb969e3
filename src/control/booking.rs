//! What a booking must be before it becomes a room.

use jiff::{Span, Timestamp};

use super::views::{Booking, BookingParticipant};
use super::{Error, Personal};
use crate::room::{BookingError, Role};

/// Most people in one room: what the pages show and a worker's slots carry.
const MOST_PARTICIPANTS: usize = 10;

/// Longest appointment, hours. Its only purpose is to catch a wrong date.
const LONGEST_HOURS: i64 = 24;

/// Checks a booking's fields and brings them into their one form (trimmed, upper-case fiscal codes, telephone numbers
/// without spaces). Roles and times are for the room's rules to judge: see [`refused`].
pub(super) fn check(mut booking: Booking) -> Result<Booking, Error> {
    booking.office = line("office", &booking.office, 200)?;
    booking.counter = line("counter", &booking.counter, 200)?;
    booking.reason = line("reason", &booking.reason, 500)?;
    booking.reference = booking.reference.map(|text| line("reference", &text, 200)).transpose()?;
    check_length(booking.start, booking.end)?;
    if booking.participants.len() > MOST_PARTICIPANTS {
        return Err(invalid("participants", format!("at most {MOST_PARTICIPANTS} people")));
    }
    let people = std::mem::take(&mut booking.participants);
    booking.participants = people
        .into_iter()
        .enumerate()
        .map(|(index, person)| check_fields(person, |name| format!("participants[{index}].{name}")))
        .collect::<Result<_, _>>()?;
    Ok(booking)
}

/// Names the field that the room's rules object to.
pub(super) fn refused(error: &BookingError) -> Error {
    match error {
        BookingError::BadTimes => invalid("end", error.to_string()),
        BookingError::RoleMissing(_) | BookingError::RoleUnknown(_) | BookingError::RoleTwice(_) => {
            invalid("participants", error.to_string())
        }
    }
}

/// A wrong field.
pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), reason: reason.into() }
}

/// Whether an appointment is no longer than one can be.
pub(super) fn check_length(start: Timestamp, end: Timestamp) -> Result<(), Error> {
    match start.checked_add(Span::new().hours(LONGEST_HOURS)) {
        Ok(latest) if end <= latest => Ok(()),
        _ => Err(invalid("end", format!("must come at most {LONGEST_HOURS} hours after the start"))),
    }
}

/// Checks one person's fields.
pub(super) fn check_person(person: BookingParticipant) -> Result<BookingParticipant, Error> {
    check_fields(person, str::to_owned)
}

fn check_fields(mut person: BookingParticipant, field: impl Fn(&str) -> String) -> Result<BookingParticipant, Error> {
    person.name = Personal::new(line(&field("name"), person.name.expose(), 200)?);
    person.fiscal_code = person.fiscal_code.map(|code| fiscal_code(&field("fiscal_code"), &code)).transpose()?;
    person.phone = person.phone.map(|number| phone(&field("phone"), &number)).transpose()?;
    if person.operator_number.is_some() && person.role != Role::Operator {
        return Err(invalid(field("operator_number"), "only an operator has one"));
    }
    person.operator_number =
        person.operator_number.map(|number| line(&field("operator_number"), &number, 64)).transpose()?;
    Ok(person)
}

/// One line of text: trimmed, not empty, without control characters, and without the marks that turn the writing
/// direction of what follows (a name could otherwise rewrite the line it stands in).
pub(super) fn line(field: &str, text: &str, longest: usize) -> Result<String, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid(field, "must not be empty"));
    }
    if text.chars().count() > longest {
        return Err(invalid(field, format!("at most {longest} characters")));
    }
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().any(|c| c.is_control() || turns(c)) {
        return Err(invalid(field, "must not hold control characters"));
    }
    Ok(text.to_owned())
}

/// Sixteen letters and digits (a person's), or eleven digits (the provisional one). The check letter is not verified:
/// codes changed for namesakes (omocodia) and foreign registers' are the booking system's to judge.
/// A text of several lines, trimmed.
pub(super) fn paragraph(field: &str, text: &str, longest: usize) -> Result<String, Error> {
    let text = text.trim();
    let plain = text.chars().all(|c| c == '\n' || !c.is_control());
    if plain && (1..=longest).contains(&text.chars().count()) {
        Ok(text.to_owned())
    } else {
        Err(invalid(field, format!("1 to {longest} characters, without control characters but line breaks")))
    }
}

fn fiscal_code(field: &str, code: &Personal) -> Result<Personal, Error> {
    let code = code.expose().trim().to_ascii_uppercase();
    let usual = code.len() == 16 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let provisional = code.len() == 11 && code.bytes().all(|byte| byte.is_ascii_digit());
    if usual || provisional {
        Ok(Personal::new(code))
    } else {
        Err(invalid(field, "16 letters and digits, or 11 digits"))
    }
}

/// E.164: `+`, country code and number, together 6 to 15 digits.
fn phone(field: &str, number: &Personal) -> Result<Personal, Error> {
    let number: String = number.expose().chars().filter(|c| !matches!(c, ' ' | '-' | '.')).collect();
    let digits = number.strip_prefix('+').unwrap_or_default();
    if (6..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(Personal::new(number))
    } else {
        Err(invalid(field, "`+` and 6 to 15 digits, country code first"))
    }
}
