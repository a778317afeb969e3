//! What can happen to a room, at random.

use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::reference::Millis;
use super::world::seconds;
use crate::media::{RecordingFault, Source};
use crate::room::{Feature, Outcome};

/// One thing that happens to the room. `who` is a position among those who were booked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Pass(Duration),
    /// Time passes, and the node does not notice.
    Stall(Duration),
    SetClock(SignedDuration),
    Restart(Duration),
    TryCode {
        who: usize,
        right: bool,
    },
    /// Wrong codes, one after the other.
    Guess {
        who: usize,
        times: u8,
    },
    ReissueCode {
        who: usize,
    },
    Message {
        who: usize,
        sent: bool,
    },
    Enter {
        who: usize,
    },
    Open,
    Admit {
        who: usize,
    },
    SendBack {
        who: usize,
    },
    Leave {
        who: usize,
    },
    Remove {
        who: usize,
    },
    Replace {
        who: usize,
    },
    Attest {
        who: usize,
        beside: usize,
    },
    Withdraw {
        who: usize,
    },
    Connect {
        who: usize,
        old: Old,
        silent_ms: Millis,
    },
    Source {
        who: usize,
        source: Source,
        active: bool,
        ago_ms: Millis,
    },
    Record {
        who: usize,
    },
    Disconnect {
        who: usize,
        silent_ms: Millis,
    },
    /// Everything that it takes to be seen, heard and recorded.
    Arrive {
        who: usize,
    },
    /// Whoever is missing or not recorded arrives or is.
    Everyone,
    Lose(RecordingFault),
    Resume,
    Switch {
        feature: Feature,
        on: bool,
    },
    Conclude {
        outcome: Outcome,
        hours: u16,
    },
    Extend {
        hours: u16,
    },
    Reschedule {
        minutes: i64,
    },
    Cancel,
}

/// When the end of a connection is told that another one takes the place of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Old {
    First,
    Last,
    Never,
}

/// Where the room stands before the first step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Booked,
    Waiting,
    /// Opened, and everyone is there, but nothing can be recorded.
    Unrecorded,
    Live,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Delega,
    /// `delega` with short times and few attempts.
    Hasty,
    Videochiamata,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..4_usize;
    let source = prop::sample::select(vec![Source::Microphone, Source::Camera, Source::Camera, Source::Screen]);
    let feature = prop::sample::select(vec![Feature::Chat, Feature::Documents, Feature::Sharing]);
    let old = prop::sample::select(vec![Old::First, Old::Last, Old::Never]);
    let outcome = prop::sample::select(vec![
        Outcome::Granted,
        Outcome::Granted,
        Outcome::Granted,
        Outcome::Refused,
        Outcome::Served,
        Outcome::Incomplete,
    ]);
    let fault = prop::sample::select(vec![
        RecordingFault::NotWritable,
        RecordingFault::DiskFull,
        RecordingFault::WriteFailed,
        RecordingFault::Stalled,
        RecordingFault::Overflow,
    ]);
    let time = prop_oneof![
        8 => (0..12_500_u64).prop_map(Duration::from_millis),
        2 => (9_990..10_011_u64).prop_map(Duration::from_millis),
        3 => (25..700_u64).prop_map(seconds),
    ];
    let people = prop_oneof![
        2 => (who.clone(), any::<bool>()).prop_map(|(who, right)| Step::TryCode { who, right }),
        1 => (who.clone(), 1..8_u8).prop_map(|(who, times)| Step::Guess { who, times }),
        1 => who.clone().prop_map(|who| Step::ReissueCode { who }),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, sent)| Step::Message { who, sent }),
        2 => who.clone().prop_map(|who| Step::Enter { who }),
        2 => Just(Step::Open),
        2 => who.clone().prop_map(|who| Step::Admit { who }),
        1 => who.clone().prop_map(|who| Step::SendBack { who }),
        1 => who.clone().prop_map(|who| Step::Leave { who }),
        1 => who.clone().prop_map(|who| Step::Remove { who }),
        1 => who.clone().prop_map(|who| Step::Replace { who }),
        3 => (1..3_usize, 1..3_usize).prop_map(|(who, beside)| Step::Attest { who, beside }),
        1 => (who.clone(), who.clone()).prop_map(|(who, beside)| Step::Attest { who, beside }),
        1 => who.clone().prop_map(|who| Step::Withdraw { who }),
        6 => who.clone().prop_map(|who| Step::Arrive { who }),
        4 => Just(Step::Everyone),
    ];
    let media = prop_oneof![
        2 => (who.clone(), old, 0..2_500_i64).prop_map(|(who, old, silent_ms)| Step::Connect { who, old, silent_ms }),
        8 => (who.clone(), source, any::<bool>(), 0..2_500_i64)
            .prop_map(|(who, source, active, ago_ms)| Step::Source { who, source, active, ago_ms }),
        2 => who.clone().prop_map(|who| Step::Record { who }),
        2 => (who, 0..2_500_i64).prop_map(|(who, silent_ms)| Step::Disconnect { who, silent_ms }),
        1 => fault.prop_map(Step::Lose),
        1 => Just(Step::Resume),
    ];
    let room = prop_oneof![
        3 => (outcome, 0..80_u16).prop_map(|(outcome, hours)| Step::Conclude { outcome, hours }),
        1 => (0..80_u16).prop_map(|hours| Step::Extend { hours }),
        2 => (feature, any::<bool>()).prop_map(|(feature, on)| Step::Switch { feature, on }),
        2 => (-20..60_i64).prop_map(|minutes| Step::Reschedule { minutes }),
    ];
    let step = prop_oneof![
        12 => time.clone().prop_map(Step::Pass),
        1 => time.prop_map(Step::Stall),
        1 => (-7_200..7_200_i64).prop_map(|s| Step::SetClock(SignedDuration::from_secs(s))),
        1 => (0..600_u64).prop_map(|s| Step::Restart(seconds(s))),
        20 => people,
        14 => media,
        2 => room,
    ];
    // Often the operator waits for everyone, and then concludes too early or in time; now and then the booking is
    // withdrawn. At the end: everything after it would only be refused.
    let end = prop_oneof![
        1 => Just(Vec::new()),
        1 => Just(vec![Step::Cancel]),
        8 => (0..80_u64, prop::bool::weighted(0.2)).prop_map(|(waits, restart)| {
            let grant = Step::Conclude { outcome: Outcome::Granted, hours: 0 };
            let down = restart.then_some(Step::Restart(seconds(5)));
            let waits = [Step::Resume, Step::Everyone, Step::Pass(seconds(waits)), Step::Everyone, grant];
            down.into_iter().chain(waits).collect()
        }),
    ];
    (prop::collection::vec(step, 1..60), end).prop_map(|(mut steps, end)| {
        steps.extend(end);
        steps
    })
}
