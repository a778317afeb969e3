//! What a room's ledger tells of its recording, in the manifest's words. Pure: lines in, facts out.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::{MonoTime, Now};
use crate::id::{ConnectionId, ParticipantId};
use crate::recording::manifest::{Moment, ParticipantFacts, PresenceFacts, RecoveryNote};
use crate::room::ledger::Line;
use crate::room::{Document, Entry, Event, Profile, ReplayError, Role, Room};

/// A run of the node: its monotonic clock begins anew in each. Counted from 0 within a room's ledger.
pub(super) type Run = usize;

/// What the manifest takes from the ledger.
#[derive(Debug)]
pub(super) struct Story {
    /// Everyone who was ever booked, in the booking's order.
    pub(super) participants: Vec<ParticipantFacts>,
    /// When the profile's presence rule held.
    pub(super) presence: Vec<PresenceFacts>,
    /// The room was opened.
    pub(super) begin: Moment,
    /// The meeting was over.
    pub(super) end: Moment,
    /// The ledger's word for how it ended.
    pub(super) end_reason: String,
    /// What the operator recorded, or what followed from absence.
    pub(super) outcome: Option<String>,
    /// What was lost or repaired.
    pub(super) recovery: Vec<RecoveryNote>,
    /// Whose each connection was, and in which run of the node it stood.
    pub(super) connections: HashMap<ConnectionId, (ParticipantId, Run)>,
    /// Documents that were handed in.
    pub(super) documents: Vec<Document>,
    /// The role of each person.
    pub(super) roles: HashMap<ParticipantId, Role>,
}

/// Reads a room's ledger as the story of its recording.
///
/// # Errors
/// The ledger does not begin with the booking of a room of this profile.
pub(super) fn tell(profile: &Arc<Profile>, lines: &[Line]) -> Result<Story, ReplayError> {
    let entries: Vec<Entry> = lines.iter().map(Line::entry).collect();
    let room = Room::replay(profile, &entries)?;
    let first = entries.first().ok_or(ReplayError::NotBooked)?;
    let last = entries.last().unwrap_or(first);
    let mut story = Story {
        participants: Vec::new(),
        presence: room
            .presence_intervals(Now { mono: last.mono, wall: last.wall })
            .into_iter()
            .map(|interval| PresenceFacts { from: interval.from, to: interval.to, length_ms: interval.length_ms })
            .collect(),
        begin: moment(first),
        end: moment(last),
        end_reason: "unfinished".to_owned(),
        outcome: room.outcome().map(|outcome| outcome.name().to_owned()),
        recovery: Vec::new(),
        documents: room.documents().to_vec(),
        connections: HashMap::new(),
        roles: HashMap::new(),
    };
    let mut run = 0;
    let mut lost: Option<(MonoTime, Run, String)> = None;
    for entry in &entries {
        match &entry.event {
            Event::Booked { participants, .. } => {
                for (id, role) in participants {
                    story.take_in(*id, *role);
                }
            }
            Event::Replaced { participant, by } => {
                if let Some(role) = story.roles.get(participant).copied() {
                    story.take_in(*by, role);
                }
            }
            Event::CodeAccepted { participant } => story.change(*participant, |person| {
                person.admitted_by.get_or_insert_with(|| "code".to_owned());
                person.admitted.get_or_insert(entry.wall);
            }),
            Event::SeatTaken { participant } => story.change(*participant, |person| {
                person.admitted_by.get_or_insert_with(|| "operator_key".to_owned());
                person.admitted.get_or_insert(entry.wall);
            }),
            Event::Attested { participant, .. } => story.change(*participant, |person| {
                person.admitted_by.get_or_insert_with(|| "attested_by_operator".to_owned());
                person.admitted.get_or_insert(entry.wall);
            }),
            Event::ConsentGiven { participant, text_version } => story.change(*participant, |person| {
                person.consent_text_version = Some(text_version.clone());
                person.consented = Some(entry.wall);
            }),
            Event::Connected { participant, connection } | Event::RecordingStarted { participant, connection } => {
                story.connections.entry(*connection).or_insert((*participant, run));
            }
            Event::Opened => story.begin = moment(entry),
            Event::RecordingLost { reason } => {
                let word = serde_json::to_value(reason).ok().and_then(|word| word.as_str().map(str::to_owned));
                lost.get_or_insert((entry.mono, run, word.unwrap_or_default()));
            }
            Event::RecordingResumed => {
                if let Some((from, began, reason)) = lost.take() {
                    let to = (began == run).then_some(entry.mono);
                    story.recovery.push(incident(from, to, reason));
                }
            }
            Event::NodeRestarted => {
                // Not every run has media: a room that waits for its people loses nothing by a restart.
                run += 1;
                story.recovery.push(RecoveryNote {
                    file: None,
                    from_mono_ms: None,
                    to_mono_ms: Some(entry.mono.as_millis()),
                    tail_bytes: 0,
                    reason: "node_restarted".to_owned(),
                });
            }
            Event::Concluded { by_operator, .. } => {
                story.end = moment(entry);
                let reason = if *by_operator { "concluded_by_operator" } else { "concluded_by_absence" };
                reason.clone_into(&mut story.end_reason);
            }
            Event::Cancelled => {
                story.end = moment(entry);
                "cancelled".clone_into(&mut story.end_reason);
            }
            Event::Expired => {
                story.end = moment(entry);
                "expired".clone_into(&mut story.end_reason);
            }
            _ => {}
        }
    }
    if let Some((from, _, reason)) = lost {
        story.recovery.push(incident(from, None, reason));
    }
    Ok(story)
}

impl Story {
    fn take_in(&mut self, id: ParticipantId, role: Role) {
        self.roles.insert(id, role);
        self.participants.push(ParticipantFacts {
            id,
            role: role.name().to_owned(),
            admitted_by: None,
            admitted: None,
            consent_text_version: None,
            consented: None,
            voice: None,
        });
    }

    fn change(&mut self, id: ParticipantId, change: impl FnOnce(&mut ParticipantFacts)) {
        if let Some(person) = self.participants.iter_mut().find(|person| person.id == id) {
            change(person);
        }
    }
}

fn moment(entry: &Entry) -> Moment {
    Moment { utc: entry.wall, mono_ms: entry.mono.as_millis() }
}

fn incident(from: MonoTime, to: Option<MonoTime>, reason: String) -> RecoveryNote {
    RecoveryNote {
        file: None,
        from_mono_ms: Some(from.as_millis()),
        to_mono_ms: to.map(MonoTime::as_millis),
        tail_bytes: 0,
        reason,
    }
}

/// Where an original begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    /// In which run of the node.
    pub(super) run: Run,
    /// Its time 0 on that run's monotonic clock.
    pub(super) mono: MonoTime,
    /// The same on the wall clock, as the recorder read it.
    pub(super) wall: Timestamp,
}

/// Puts originals on one timeline: milliseconds from the first one's begin, in the order given.
///
/// Within a run the monotonic clock alone counts, so a wall clock that is set in mid-call moves nothing; only from one
/// run to the next there is no other clock than the wall's.
pub(super) fn timeline(begins: &[Begin]) -> Vec<i64> {
    // What the first original of each run read on both clocks ties that run to the wall.
    let mut anchors: HashMap<Run, (MonoTime, Timestamp)> = HashMap::new();
    for begin in begins {
        let anchor = anchors.entry(begin.run).or_insert((begin.mono, begin.wall));
        if begin.mono < anchor.0 {
            *anchor = (begin.mono, begin.wall);
        }
    }
    let at: Vec<i64> = begins
        .iter()
        .map(|begin| {
            let (mono, wall) = anchors.get(&begin.run).copied().unwrap_or((begin.mono, begin.wall));
            let since = i64::try_from(begin.mono.since(mono).as_millis()).unwrap_or(i64::MAX);
            wall.as_millisecond().saturating_add(since)
        })
        .collect();
    let zero = at.iter().copied().min().unwrap_or(0);
    at.into_iter().map(|at| at.saturating_sub(zero)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(run: Run, mono_ms: u64, wall_ms: i64) -> Begin {
        let wall = Timestamp::from_millisecond(wall_ms).unwrap();
        Begin { run, mono: MonoTime::from_millis(mono_ms), wall }
    }

    #[test]
    fn a_wall_clock_that_is_set_back_moves_no_original_of_the_same_run() {
        let begins = [begin(0, 5_000, 1_000_000), begin(0, 65_000, 1_060_000 - 3_600_000), begin(0, 4_000, 999_000)];
        assert_eq!(timeline(&begins), [1_000, 61_000, 0]);
    }

    #[test]
    fn the_wall_clock_ties_one_run_to_the_next() {
        let begins = [begin(0, 500_000, 1_000_000), begin(1, 2_000, 1_030_000), begin(1, 7_000, 1_099_000)];
        assert_eq!(timeline(&begins), [0, 30_000, 35_000]);
    }
}
