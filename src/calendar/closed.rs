//! Closed days as the calendar's file writes them.

use jiff::civil::Date;

/// Days on which nothing opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClosedDays {
    /// From the first to the second, both included.
    Once(Date, Date),
    /// The same every year; past the year's end if the first comes later in the year.
    Yearly(MonthDay, MonthDay),
}

/// Month and day.
type MonthDay = (i8, i8);

impl ClosedDays {
    /// How they may be written.
    pub(super) const ALLOWED: &str = "a day (\"2026-12-24\"), a day of every year (\"12-24\"), \
         or the first and the last of several (\"2026-08-10/2026-08-21\", \"12-24/01-06\")";

    /// Reads one entry; `None`: see [`Self::ALLOWED`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('/').unwrap_or((text, text));
        match (date(first), date(last)) {
            (Some(first), Some(last)) => (first <= last).then_some(Self::Once(first, last)),
            (None, None) => Some(Self::Yearly(month_day(first)?, month_day(last)?)),
            _ => None,
        }
    }

    /// Whether a day is among them.
    pub(super) fn contains(self, day: Date) -> bool {
        match self {
            Self::Once(first, last) => (first..=last).contains(&day),
            Self::Yearly(first, last) => {
                let day = (day.month(), day.day());
                if first <= last { (first..=last).contains(&day) } else { first <= day || day <= last }
            }
        }
    }
}

/// A date written `YYYY-MM-DD`, and no other way.
pub(super) fn date(text: &str) -> Option<Date> {
    let shape = text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    shape.eq(*b"0000-00-00").then(|| text.parse().ok())?
}

/// A day of the year written `MM-DD`.
fn month_day(text: &str) -> Option<MonthDay> {
    // Year 2000 had a 29 February.
    date(&format!("2000-{text}")).map(|day| (day.month(), day.day()))
}
