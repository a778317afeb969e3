//! From opening hours to slots.

use std::vec;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::AmbiguousOffset;
use jiff::{SignedDuration, Timestamp};

use super::{Calendar, Opening};

/// Longest query; what lies beyond is not looked at. A year ahead is further than anyone books, and a full counter is
/// searched to the end for its next free slot: longer makes that search longer.
const LONGEST_QUERY: SignedDuration = SignedDuration::from_hours(366 * 24);

/// Which slots are asked for.
#[derive(Clone, Copy, Debug)]
pub struct SlotQuery<'q> {
    /// The profile's name.
    pub profile: &'q str,
    /// One office, as the calendar writes it; `None`: any.
    pub office: Option<&'q str>,
    /// One counter, as the calendar writes it; `None`: any.
    pub counter: Option<&'q str>,
    /// Slots that begin at or after this.
    pub from: Timestamp,
    /// Slots that begin before this; at most 366 days after `from` are looked at.
    pub to: Timestamp,
}

/// A time at which a counter takes rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot<'c> {
    /// As the calendar writes it.
    pub office: &'c str,
    /// As the calendar writes it.
    pub counter: &'c str,
    /// The profile's name.
    pub profile: &'c str,
    /// First moment.
    pub start: Timestamp,
    /// The moment after the last.
    pub end: Timestamp,
    /// Most rooms at once at this counter, of whatever profile.
    pub parallel: u16,
}

impl Calendar {
    /// The slots of a query in order of time, those of one time by office and counter. Lazy: a day is worked out when
    /// its first slot is asked for.
    pub fn slots<'c>(&'c self, query: &SlotQuery<'_>) -> impl Iterator<Item = Slot<'c>> + use<'c> {
        let is_wanted = |opening: &&Opening| {
            opening.profile == query.profile
                && query.office.is_none_or(|office| opening.office == office)
                && query.counter.is_none_or(|counter| opening.counter == counter)
        };
        let openings: Vec<_> = self.openings.iter().filter(is_wanted).collect();
        let to = query.to.min(query.from.checked_add(LONGEST_QUERY).unwrap_or(Timestamp::MAX));
        let day_of = |at| self.zone.to_datetime(at).date();
        Slots {
            calendar: self,
            next_day: Some(day_of(query.from)).filter(|_| !openings.is_empty()),
            last_day: day_of(to),
            openings,
            from: query.from,
            to,
            today: Vec::new().into_iter(),
        }
    }

    /// The slot of this office's counter that begins and ends exactly then.
    pub fn slot_at(
        &self,
        profile: &str,
        office: &str,
        counter: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Option<Slot<'_>> {
        let just_after = start.checked_add(SignedDuration::from_nanos(1)).ok()?;
        let query = SlotQuery { profile, office: Some(office), counter: Some(counter), from: start, to: just_after };
        self.slots(&query).find(|slot| slot.end == end)
    }

    /// Where a slot that begins at this local time lies; `None` if the clocks skip its beginning or are changed in
    /// its midst.
    fn place(&self, start: DateTime, length: SignedDuration) -> Option<(Timestamp, Timestamp)> {
        let (first, second) = match self.zone.to_ambiguous_timestamp(start).offset() {
            AmbiguousOffset::Unambiguous { offset } => (offset, None),
            AmbiguousOffset::Gap { .. } => return None,
            // Shown twice: the first time, unless the slot would then still run when the clocks are put back.
            AmbiguousOffset::Fold { before, after } => (before, Some(after)),
        };
        [Some(first), second].into_iter().flatten().find_map(|offset| {
            let start = offset.to_timestamp(start).ok()?;
            let end = start.checked_add(length).ok()?;
            let last = end.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            (self.zone.to_offset(last) == offset).then_some((start, end))
        })
    }
}

/// See [`Calendar::slots`].
struct Slots<'c> {
    calendar: &'c Calendar,
    openings: Vec<&'c Opening>,
    from: Timestamp,
    to: Timestamp,
    /// The next local day to work out; `None`: all are.
    next_day: Option<Date>,
    last_day: Date,
    today: vec::IntoIter<Slot<'c>>,
}

impl<'c> Iterator for Slots<'c> {
    type Item = Slot<'c>;

    fn next(&mut self) -> Option<Slot<'c>> {
        loop {
            if let Some(slot) = self.today.next() {
                return Some(slot);
            }
            let day = self.next_day.filter(|day| *day <= self.last_day)?;
            self.next_day = day.tomorrow().ok();
            self.today = self.slots_of(day).into_iter();
        }
    }
}

impl<'c> Slots<'c> {
    fn slots_of(&self, day: Date) -> Vec<Slot<'c>> {
        let mut slots = Vec::new();
        if self.calendar.is_closed_on(day) {
            return slots;
        }
        for opening in self.openings.iter().filter(|opening| opening.is_open_on(day)) {
            let length = SignedDuration::from_mins(opening.slot_minutes.into());
            for minutes in opening.slot_starts() {
                let since_midnight = SignedDuration::from_mins(minutes.into());
                let local = day.to_datetime(Time::midnight()).checked_add(since_midnight);
                let Some((start, end)) = local.ok().and_then(|local| self.calendar.place(local, length)) else {
                    continue;
                };
                if self.from <= start && start < self.to {
                    slots.push(Slot {
                        office: &opening.office,
                        counter: &opening.counter,
                        profile: &opening.profile,
                        start,
                        end,
                        parallel: opening.parallel,
                    });
                }
            }
        }
        slots.sort_unstable_by_key(|slot| (slot.start, slot.office, slot.counter));
        slots
    }
}
