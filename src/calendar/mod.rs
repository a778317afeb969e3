//! When counters are open: the slots of an office's counter, and how many places are free in them (DOMAIN.md,
//! «calendar»).
//!
//! Pure: text, times and bookings are arguments. [`Calendar::parse`] reads a file like `config/calendar.toml`;
//! [`Calendar::slots`] tells lazily what it offers; an [`Occupancy`] of what is booked and [`Calendar::free`] tell what
//! is left of it.
//!
//! Opening hours are local: a slot at 9:00 begins at 9:00 by the clock on the wall in summer and in winter. A slot
//! that the wall clock never shows, or in whose midst it is changed, is not offered; one that it shows twice is offered
//! once. So every slot has its full length, and what a citizen reads is what happens.

mod closed;
mod holidays;
mod occupancy;
mod read;
mod slots;

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use closed::ClosedDays;
pub use occupancy::{FreeSlot, Occupancy, Taken};
pub use read::CalendarError;
pub use slots::{Slot, SlotQuery};

/// Which office's counter offers which profile, on which days and at which hours.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// The clock on the counters' wall.
    zone: TimeZone,
    /// Whether Italy's public holidays are days off.
    italian_holidays: bool,
    /// Days on which every office is closed.
    closed: Vec<ClosedDays>,
    openings: Vec<Opening>,
}

/// One row of the calendar.
#[derive(Clone, Debug)]
struct Opening {
    office: String,
    counter: String,
    profile: String,
    /// Bit 0: Monday … bit 6: Sunday.
    weekdays: u8,
    /// Local hours, minutes since midnight.
    from: u16,
    to: u16,
    slot_minutes: u16,
    /// Rooms at once.
    parallel: u16,
    /// First and last day.
    valid_from: Date,
    valid_until: Date,
    /// Days on which this opening's office is closed.
    closed: Arc<[ClosedDays]>,
}

impl Calendar {
    /// Whether no office opens on this day.
    fn is_closed_on(&self, day: Date) -> bool {
        self.italian_holidays && holidays::is_italian_holiday(day)
            || self.closed.iter().any(|closed| closed.contains(day))
    }
}

impl Opening {
    /// Whether this row holds on a day on which not every office is closed.
    fn is_open_on(&self, day: Date) -> bool {
        self.weekdays & 1 << day.weekday().to_monday_zero_offset() != 0
            && (self.valid_from..=self.valid_until).contains(&day)
            && !self.closed.iter().any(|closed| closed.contains(day))
    }

    /// The local beginnings of a day's slots, minutes since midnight. What is left at the end and too short for a slot
    /// is not offered.
    fn slot_starts(&self) -> impl Iterator<Item = u16> + use<> {
        let (last, length) = (self.to.saturating_sub(self.slot_minutes), self.slot_minutes);
        (self.from..=last).step_by(usize::from(length.max(1)))
    }
}

#[cfg(test)]
mod tests;
