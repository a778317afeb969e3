//! Reading a calendar's file, and refusing what is none.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Toml};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::closed::{self, ClosedDays};
use super::{Calendar, Opening};

/// Most rows. All of them are looked through for each question; ten times the counters of the largest Italian
/// administration leave that below a millisecond.
const MOST_OPENINGS: usize = 5_000;

/// Most slots that begin on one weekday, all rows together. A day's slots are worked out and sorted at once: this is
/// what one question may cost in memory (some MB). Lower would refuse rows of very short slots.
const MOST_SLOTS_A_DAY: usize = 100_000;

/// Most entries of one list of closed days. The list is read for each day that is asked for; many days in a row are
/// one entry.
const MOST_CLOSED: usize = 100;

/// Longest name of an office or counter, characters: what a booking may write.
const LONGEST_NAME: usize = 200;

/// Why a text is not a calendar. The configuration's fault. Entries of a list are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}{}: allowed: {allowed}", value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default())]
pub struct CalendarError {
    /// The key, e.g. `opening[2].from`; empty if the text is no TOML at all.
    pub key: String,
    /// What it says there; `None` if the key is missing or unknown.
    pub value: Option<String>,
    /// What it may say.
    pub allowed: String,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "europe_rome")]
    time_zone: String,
    #[serde(default = "yes")]
    italian_holidays: bool,
    #[serde(default)]
    closed: Vec<String>,
    #[serde(default)]
    office: Vec<OfficeEntry>,
    #[serde(default)]
    opening: Vec<OpeningEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfficeEntry {
    name: String,
    #[serde(default)]
    closed: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpeningEntry {
    office: String,
    counter: String,
    profile: String,
    weekdays: Vec<Day>,
    from: String,
    to: String,
    // Wider than what is allowed, so that what is out of range is told as such.
    slot_minutes: Option<i64>,
    parallel: Option<i64>,
    valid_from: Option<String>,
    valid_until: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

fn europe_rome() -> String {
    "Europe/Rome".into()
}

fn yes() -> bool {
    true
}

impl Calendar {
    /// Reads a calendar from the text of its file. `profiles`: the names that openings may write, each with its usual
    /// slot length in minutes, which holds for openings that name none.
    ///
    /// # Errors
    /// The first wrong entry.
    pub fn parse(text: &str, profiles: &[(&str, u16)]) -> Result<Self, CalendarError> {
        let file: File = Figment::from(Toml::string(text)).extract()?;
        let zone = TimeZone::get(&file.time_zone).ok().filter(|zone| !zone.is_unknown());
        let zone = zone.ok_or_else(|| {
            let allowed = "a time zone of the IANA database (package tzdata), e.g. \"Europe/Rome\"";
            wrong("time_zone".into(), &file.time_zone, allowed.into())
        })?;
        let closed = read_closed("closed", &file.closed)?;
        ensure((1..=MOST_OPENINGS).contains(&file.opening.len()), "opening", &file.opening.len(), || {
            format!("1 to {MOST_OPENINGS} entries")
        })?;
        let offices = read_offices(&file)?;
        let mut openings = Vec::with_capacity(file.opening.len());
        for (index, entry) in file.opening.into_iter().enumerate() {
            let closed = offices.get(&entry.office).cloned().unwrap_or_default();
            openings.push(read_opening(&format!("opening[{index}]"), entry, profiles, closed)?);
        }
        refuse_overlaps(&openings)?;
        refuse_crowded_days(&openings)?;
        Ok(Self { zone, italian_holidays: file.italian_holidays, closed, openings })
    }
}

fn read_closed(key: &str, entries: &[String]) -> Result<Vec<ClosedDays>, CalendarError> {
    ensure(entries.len() <= MOST_CLOSED, key, &entries.len(), || format!("at most {MOST_CLOSED} entries"))?;
    let read = |(index, text): (usize, &String)| {
        ClosedDays::parse(text).ok_or_else(|| wrong(format!("{key}[{index}]"), text, ClosedDays::ALLOWED.into()))
    };
    entries.iter().enumerate().map(read).collect()
}

/// The offices' own closed days by name.
fn read_offices(file: &File) -> Result<BTreeMap<String, Arc<[ClosedDays]>>, CalendarError> {
    let mut offices = BTreeMap::new();
    for (index, entry) in file.office.iter().enumerate() {
        let key = format!("office[{index}]");
        // A misspelt office would stay open on its patron's day, and nobody would know why.
        let is_known = file.opening.iter().any(|opening| opening.office == entry.name);
        ensure(is_known && !offices.contains_key(&entry.name), &format!("{key}.name"), &entry.name, || {
            "the office of an opening, each once".into()
        })?;
        offices.insert(entry.name.clone(), read_closed(&format!("{key}.closed"), &entry.closed)?.into());
    }
    Ok(offices)
}

fn read_opening(
    key: &str,
    entry: OpeningEntry,
    profiles: &[(&str, u16)],
    closed: Arc<[ClosedDays]>,
) -> Result<Opening, CalendarError> {
    let OpeningEntry { office, counter, profile, .. } = entry;
    let key_of = |name: &str| format!("{key}.{name}");
    for (name, value) in [("office", &office), ("counter", &counter)] {
        ensure(is_a_name(value), &key_of(name), value, || {
            format!("1 to {LONGEST_NAME} characters on one line, without spaces around them")
        })?;
    }
    let slot_of_profile = profiles.iter().find(|(name, _)| *name == profile).map(|(_, minutes)| *minutes);
    let slot_of_profile = slot_of_profile.ok_or_else(|| {
        let names: Vec<_> = profiles.iter().map(|(name, _)| *name).collect();
        wrong(key_of("profile"), &profile, format!("one of {}", names.join(", ")))
    })?;
    let weekdays = entry.weekdays.iter().fold(0, |days: u8, day| days | 1 << *day as u8);
    let all_different = usize::try_from(weekdays.count_ones()) == Ok(entry.weekdays.len());
    ensure(weekdays != 0 && all_different, &key_of("weekdays"), &entry.weekdays, || {
        "one or more of monday to sunday, each once".into()
    })?;
    let from = read_time(&key_of("from"), &entry.from)?;
    let to = read_time(&key_of("to"), &entry.to)?;
    let slot_minutes = entry.slot_minutes.unwrap_or(slot_of_profile.into());
    let slot_minutes = within(&key_of("slot_minutes"), slot_minutes, 1..=480)?;
    ensure(from.checked_add(slot_minutes).is_some_and(|end| end <= to), &key_of("to"), &entry.to, || {
        format!("a time at least a slot ({slot_minutes} minutes) after {}", entry.from)
    })?;
    let parallel = within(&key_of("parallel"), entry.parallel.unwrap_or(1), 1..=1_000)?;
    let valid_from = read_date(&key_of("valid_from"), entry.valid_from.as_ref())?.unwrap_or(Date::MIN);
    let valid_until = read_date(&key_of("valid_until"), entry.valid_until.as_ref())?.unwrap_or(Date::MAX);
    ensure(valid_from <= valid_until, &key_of("valid_until"), &valid_until, || {
        format!("{valid_from} (valid_from) or later")
    })?;
    Ok(Opening {
        office,
        counter,
        profile,
        weekdays,
        from,
        to,
        slot_minutes,
        parallel,
        valid_from,
        valid_until,
        closed,
    })
}

/// Whether a booking could write this, which trims its texts and takes no control characters.
fn is_a_name(text: &str) -> bool {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (1..=LONGEST_NAME).contains(&text.chars().count())
        && text.trim() == text
        && !text.chars().any(|c| c.is_control() || turns(c))
}

/// Minutes since midnight.
fn read_time(key: &str, text: &str) -> Result<u16, CalendarError> {
    let digits = |text: &str| (text.len() == 2).then(|| text.bytes().all(|byte| byte.is_ascii_digit()));
    let time =
        text.split_once(':').filter(|(hours, minutes)| digits(hours) == Some(true) && digits(minutes) == Some(true));
    let time = time.and_then(|(hours, minutes)| Some((hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?)));
    time.filter(|(hours, minutes)| (*hours < 24 && *minutes < 60) || (*hours, *minutes) == (24, 0))
        .map(|(hours, minutes)| hours * 60 + minutes)
        .ok_or_else(|| wrong(key.into(), text, "a local time from \"00:00\" to \"24:00\"".into()))
}

fn read_date(key: &str, text: Option<&String>) -> Result<Option<Date>, CalendarError> {
    let Some(text) = text else { return Ok(None) };
    match closed::date(text) {
        Some(date) => Ok(Some(date)),
        None => Err(wrong(key.into(), text, "a date in quotes, e.g. \"2025-07-01\"".into())),
    }
}

/// Two rows of the same counter and profile that meet would offer overlapping slots, and leave open how many rooms
/// the counter takes.
fn refuse_overlaps(openings: &[Opening]) -> Result<(), CalendarError> {
    let mut rows: BTreeMap<_, Vec<(usize, &Opening)>> = BTreeMap::new();
    for (index, opening) in openings.iter().enumerate() {
        let earlier = rows.entry((&opening.office, &opening.counter, &opening.profile)).or_default();
        if let Some((other, _)) = earlier.iter().find(|(_, other)| other.meets(opening)) {
            let office_and_counter = format!("{}, {}", opening.office, opening.counter);
            let allowed = format!("hours, weekdays or dates apart from those of opening[{other}]");
            return Err(wrong(format!("opening[{index}]"), &office_and_counter, allowed));
        }
        earlier.push((index, opening));
    }
    Ok(())
}

impl Opening {
    fn meets(&self, other: &Self) -> bool {
        self.weekdays & other.weekdays != 0
            && self.from < other.to
            && other.from < self.to
            && self.valid_from <= other.valid_until
            && other.valid_from <= self.valid_until
    }
}

fn refuse_crowded_days(openings: &[Opening]) -> Result<(), CalendarError> {
    for weekday in 0..7 {
        let of_day = openings.iter().filter(|opening| opening.weekdays & 1 << weekday != 0);
        let slots: usize = of_day.map(|opening| opening.slot_starts().count()).sum();
        ensure(slots <= MOST_SLOTS_A_DAY, "opening", &format!("{slots} slots on one weekday"), || {
            format!("at most {MOST_SLOTS_A_DAY} slots a day, all openings together")
        })?;
    }
    Ok(())
}

fn wrong(key: String, value: &(impl Debug + ?Sized), allowed: String) -> CalendarError {
    CalendarError { key, value: Some(format!("{value:?}")), allowed }
}

fn ensure(
    holds: bool,
    key: &str,
    value: &(impl Debug + ?Sized),
    allowed: impl FnOnce() -> String,
) -> Result<(), CalendarError> {
    if holds { Ok(()) } else { Err(wrong(key.into(), value, allowed())) }
}

fn within(key: &str, value: i64, allowed: RangeInclusive<u16>) -> Result<u16, CalendarError> {
    let (least, most) = (allowed.start(), allowed.end());
    let accepted = u16::try_from(value).ok().filter(|value| allowed.contains(value));
    accepted.ok_or_else(|| wrong(key.into(), &value, format!("{least} to {most}")))
}

impl From<figment::Error> for CalendarError {
    fn from(error: figment::Error) -> Self {
        let one_of = |names: &[&str]| format!("one of {}", names.join(", "));
        // Whether the path already ends with the key depends on who found the fault.
        let with_key = |key: &str| match error.path.last() {
            Some(last) if last == key => key_of(&error.path),
            _ => key_of(&[error.path.clone(), vec![key.to_owned()]].concat()),
        };
        let (key, value, allowed) = match &error.kind {
            Kind::UnknownField(key, known) => (with_key(key), None, one_of(known)),
            Kind::MissingField(key) => (with_key(key), None, "the key must be there".into()),
            Kind::UnknownVariant(value, known) => (key_of(&error.path), Some(format!("{value:?}")), one_of(known)),
            Kind::InvalidType(value, allowed) | Kind::InvalidValue(value, allowed) => {
                // A date without quotes is a table to the TOML reader.
                let allowed = if allowed == "a string" { "text in quotes" } else { allowed };
                (key_of(&error.path), Some(value.to_string()), allowed.to_owned())
            }
            kind => (key_of(&error.path), None, format!("a TOML file like config/calendar.toml ({kind})")),
        };
        Self { key, value, allowed }
    }
}

/// `opening`, `2`, `weekdays` → `opening[2].weekdays`.
fn key_of(path: &[String]) -> String {
    path.iter().fold(String::new(), |key, part| match part.parse::<usize>() {
        Ok(index) => format!("{key}[{index}]"),
        Err(_) if key.is_empty() => part.clone(),
        Err(_) => format!("{key}.{part}"),
    })
}
