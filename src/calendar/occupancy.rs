//! What is booked, and what that leaves of a slot.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Calendar, Slot, SlotQuery};

/// One booked room that takes a place. Which rooms do (a cancelled one does not, nor the one that is being moved) is
/// for the caller to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken<'t> {
    /// As booked.
    pub office: &'t str,
    /// As booked.
    pub counter: &'t str,
    /// First moment.
    pub start: Timestamp,
    /// The moment after the last: a room that begins then does not meet this one.
    pub end: Timestamp,
}

/// A slot with room for at least one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSlot<'c> {
    /// The slot.
    pub slot: Slot<'c>,
    /// How many more rooms fit, at least 1.
    pub places: u32,
}

/// How many rooms there are at once, at each counter and on the node. Built once for all the slots of a question:
/// each is then answered by a binary search.
#[derive(Clone, Debug, Default)]
pub struct Occupancy<'t> {
    node: Steps,
    counters: BTreeMap<(&'t str, &'t str), Steps>,
    capacity: Option<u32>,
}

impl<'t> Occupancy<'t> {
    /// Counts the rooms of the whole node: other offices' and those outside of the calendar take its capacity too.
    /// `capacity`: most rooms at once on the node; `None`: no limit.
    pub fn new(taken: impl IntoIterator<Item = Taken<'t>>, capacity: Option<u32>) -> Self {
        let mut node = Vec::new();
        let mut counters: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Taken { office, counter, start, end } in taken {
            if start < end {
                let changes = [(start, 1), (end, -1)];
                node.extend(changes);
                counters.entry((office, counter)).or_default().extend(changes);
            }
        }
        let counters = counters.into_iter().map(|(key, changes)| (key, Steps::new(changes))).collect();
        Self { node: Steps::new(node), counters, capacity }
    }

    /// How many more rooms fit into a slot: what is left at its fullest moment, at the counter and on the node.
    pub fn places(&self, slot: &Slot<'_>) -> u32 {
        let booked =
            self.counters.get(&(slot.office, slot.counter)).map_or(0, |steps| steps.peak(slot.start, slot.end));
        u32::from(slot.parallel).saturating_sub(booked).min(self.places_on_node(slot.start, slot.end))
    }

    /// How many more rooms from `start` to `end` the node can hold; `u32::MAX` if it has no limit.
    pub fn places_on_node(&self, start: Timestamp, end: Timestamp) -> u32 {
        self.capacity.map_or(u32::MAX, |most| most.saturating_sub(self.node.peak(start, end)))
    }
}

impl Calendar {
    /// The slots of a query that have a place left, lazily and in order of time.
    pub fn free<'c, 'o>(
        &'c self,
        query: &SlotQuery<'_>,
        occupancy: &'o Occupancy<'_>,
    ) -> impl Iterator<Item = FreeSlot<'c>> + use<'c, 'o> {
        let free = |slot| Some(FreeSlot { slot, places: occupancy.places(&slot) }).filter(|free| free.places > 0);
        self.slots(query).filter_map(free)
    }
}

/// From each time on, so many rooms at once; none before the first. Ascending.
#[derive(Clone, Debug, Default)]
struct Steps(Vec<(Timestamp, u32)>);

impl Steps {
    fn new(mut changes: Vec<(Timestamp, i64)>) -> Self {
        changes.sort_unstable();
        let mut steps: Vec<(Timestamp, u32)> = Vec::new();
        let mut rooms = 0;
        for moment in changes.chunk_by(|(a, _), (b, _)| a == b) {
            // What ends and what begins at one moment are one step: rooms that only touch are not at once.
            rooms += moment.iter().map(|(_, change)| change).sum::<i64>();
            if let Some((at, _)) = moment.first() {
                steps.push((*at, u32::try_from(rooms).unwrap_or(u32::MAX)));
            }
        }
        Self(steps)
    }

    /// Most rooms at one moment of `start..end`.
    fn peak(&self, start: Timestamp, end: Timestamp) -> u32 {
        let later = self.0.partition_point(|(at, _)| *at <= start);
        let at_start = later.checked_sub(1).and_then(|index| self.0.get(index)).map_or(0, |(_, rooms)| *rooms);
        let within = self.0.iter().skip(later).take_while(|(at, _)| *at < end);
        within.map(|(_, rooms)| *rooms).fold(at_start, u32::max)
    }
}
