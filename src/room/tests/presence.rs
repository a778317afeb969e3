//! Who is there, what is recorded, and when media flows.

use jiff::SignedDuration;

use super::world::*;
use crate::clock::Now;
use crate::media::{RecordingFault, Source};
use crate::room::*;

// ---- Presence and flow

#[test]
fn media_flows_once_everyone_required_is_seen_heard_and_recorded() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.admit(DELEGATO);
    world.admit(DELEGANTE);
    world.join(OPERATOR);
    world.join(DELEGATO);
    let connection = world.connect(DELEGANTE);
    world.source(connection, Source::Microphone, true, seconds(0));
    assert_eq!((world.phase(), world.room.missing()), (Phase::Waiting, vec![Role::Delegante]));
    world.source(connection, Source::Camera, true, seconds(0));
    assert_eq!((world.phase(), world.room.recording()), (Phase::Waiting, Recording::Starting));
    assert!(!world.forwards());
    let participant = world.id(DELEGANTE);
    let decision = world.ok(Command::RecordingStarted { participant, connection });
    assert_eq!(decision.effects, [Effect::StartFlow]);
    assert_eq!((world.phase(), world.room.recording()), (Phase::Live, Recording::On));
    assert_eq!(world.room.live_since(), Some(wall(NINE)));
}

#[test]
fn the_recorders_word_may_overtake_the_workers() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.admit(DELEGATO);
    world.admit(DELEGANTE);
    world.join(OPERATOR);
    world.join(DELEGATO);
    let connection = crate::id::ConnectionId::new(world.now.wall);
    world.record(DELEGANTE, connection);
    world.ok(Command::Connected { participant: world.id(DELEGANTE), connection });
    for source in [Source::Microphone, Source::Camera] {
        world.source(connection, source, true, seconds(0));
    }
    assert_eq!(world.phase(), Phase::Live);
}

#[test]
fn a_guest_is_not_required_and_does_not_stop_the_room() {
    let mut world = World::live();
    world.enter(GUEST);
    world.admit(GUEST);
    let connection = world.connect(GUEST);
    assert_eq!(world.effects.last(), Some(&Effect::StartFlow), "who joins a live room is forwarded to");
    world.source(connection, Source::Microphone, true, seconds(0));
    assert_eq!(world.phase(), Phase::Live);
    world.drop_connection(GUEST, seconds(0));
    world.pass(seconds(60));
    assert_eq!(world.phase(), Phase::Live);
}

#[test]
fn a_camera_off_for_nine_seconds_is_nothing() {
    let mut world = World::live();
    world.pass(seconds(20));
    world.camera(DELEGANTE, false);
    world.pass(seconds(9));
    assert_eq!((world.phase(), world.room.missing()), (Phase::Live, vec![Role::Delegante]));
    world.camera(DELEGANTE, true);
    world.pass(seconds(31));
    assert_eq!(world.room.presence_intervals(world.now).len(), 1);
    assert_eq!(world.room.presence_intervals(world.now)[0].length_ms, 60_000, "the interval is not broken");
    assert_eq!(world.room.can_grant(world.now), Ok(()));
}

#[test]
fn a_camera_off_for_eleven_seconds_suspends_from_the_grace_on() {
    let mut world = World::live();
    world.pass(seconds(20));
    world.camera(DELEGANTE, false);
    world.pass(seconds(11));
    assert_eq!(world.phase(), Phase::Suspended);
    assert_eq!(world.room.suspended(), Some(absent(&[Role::Delegante])));
    assert!(!world.forwards());
    let broken = world.ledger.iter().find(|entry| matches!(entry.event, Event::PresenceBroken { .. })).unwrap();
    assert_eq!(broken.wall, wall("2026-01-13T09:00:30Z"));
    assert_eq!(broken.event, Event::PresenceBroken { missing: vec![Role::Delegante], ago_ms: 10_000 });
    let intervals = world.room.presence_intervals(world.now);
    assert_eq!(
        (intervals.len(), intervals[0].to),
        (1, wall("2026-01-13T09:00:20Z")),
        "it ended when the absence began"
    );
    world.camera(DELEGANTE, true);
    assert_eq!(world.phase(), Phase::Live);
    assert!(world.forwards());
}

#[test]
fn delegante_leaving_past_the_grace_suspends_the_room() {
    let mut world = World::live();
    world.ok(Command::Leave { participant: world.id(DELEGANTE) });
    world.pass(seconds(9));
    assert_eq!(world.phase(), Phase::Live);
    world.pass(seconds(1));
    assert_eq!(world.phase(), Phase::Suspended);
}

#[test]
fn the_grace_counts_from_when_media_stopped_not_from_when_it_was_noticed() {
    let mut world = World::live();
    world.pass(seconds(30));
    let connection = world.room.person(world.id(DELEGATO)).unwrap().connection().unwrap();
    world.source(connection, Source::Microphone, false, seconds(2));
    world.pass(seconds(7));
    assert_eq!(world.phase(), Phase::Live);
    world.pass(seconds(1));
    assert_eq!(world.phase(), Phase::Suspended);
}

#[test]
fn media_that_came_back_within_the_grace_came_back_in_time_though_the_news_is_late() {
    let mut world = World::live();
    world.pass(seconds(30));
    world.camera(DELEGATO, false);
    let connection = world.room.person(world.id(DELEGATO)).unwrap().connection().unwrap();
    world.now = Now { mono: world.now.mono + seconds(11), wall: world.now.wall + seconds(11) };
    world.source(connection, Source::Camera, true, seconds(2));
    assert_eq!((world.phase(), world.room.presence_intervals(world.now).len()), (Phase::Live, 1));
}

#[test]
fn a_connection_that_takes_anothers_place_within_the_grace_leaves_presence_whole() {
    for news_first in [true, false] {
        let mut world = World::live();
        world.pass(seconds(50));
        let old = world.room.person(world.id(DELEGATO)).unwrap().connection().unwrap();
        let last_seen = world.now.mono;
        world.pass(seconds(1));
        if news_first {
            world.ok(Command::Disconnected { connection: old, last_seen });
        }
        let new = world.connect(DELEGATO);
        if !news_first {
            world.ok(Command::Disconnected { connection: old, last_seen });
        }
        world.pass(seconds(8));
        for source in [Source::Microphone, Source::Camera] {
            world.source(new, source, true, seconds(0));
        }
        world.record(DELEGATO, new);
        world.pass(seconds(2));
        assert_eq!(world.phase(), Phase::Live);
        assert_eq!(world.room.presence_intervals(world.now)[0].length_ms, 61_000);
        assert_eq!(world.room.can_grant(world.now), Ok(()));
    }
}

#[test]
fn the_replaced_connections_end_tells_how_long_the_absence_has_been() {
    let mut world = World::live();
    world.pass(seconds(50));
    let old = world.room.person(world.id(DELEGATO)).unwrap().connection().unwrap();
    let last_seen = world.now.mono;
    world.pass(seconds(2));
    world.connect(DELEGATO);
    world.ok(Command::Disconnected { connection: old, last_seen });
    world.pass(seconds(7));
    assert_eq!(world.phase(), Phase::Live);
    world.pass(seconds(1));
    assert_eq!(world.phase(), Phase::Suspended);
}

#[test]
fn news_of_an_old_connection_does_not_touch_the_new_one() {
    let mut world = World::live();
    let old = world.room.person(world.id(DELEGATO)).unwrap().connection().unwrap();
    let new = world.join(DELEGATO);
    world.source(old, Source::Camera, false, seconds(0));
    world.ok(Command::Disconnected { connection: old, last_seen: world.now.mono });
    assert_eq!(world.ok(Command::Disconnected { connection: old, last_seen: world.now.mono }).events, []);
    let person = world.room.person(world.id(DELEGATO)).unwrap();
    assert_eq!((person.connection(), person.sources()), (Some(new), vec![Source::Microphone, Source::Camera]));
}

#[test]
fn two_absences_that_overlap_are_one() {
    let mut world = World::live();
    world.camera(DELEGATO, false);
    world.pass(seconds(6));
    world.camera(DELEGANTE, false);
    world.camera(DELEGATO, true);
    world.pass(seconds(4));
    assert_eq!(world.phase(), Phase::Suspended, "the rule has not held for 10 s");
}

#[test]
fn absences_that_overlap_are_one_though_the_later_is_told_when_the_earlier_is_over() {
    let mut world = World::live();
    world.pass(seconds(30));
    world.camera(DELEGATO, false);
    world.pass(seconds(9));
    world.camera(DELEGATO, true);
    // It had stopped two seconds ago, one second before the other came back.
    world.pass(seconds(1));
    assert_eq!(world.phase(), Phase::Live);
    let connection = world.room.person(world.id(DELEGANTE)).unwrap().connection().unwrap();
    let decision = world.source(connection, Source::Camera, false, seconds(2));
    assert_eq!(decision.effects, [Effect::StopFlow]);
    assert_eq!(world.room.presence_intervals(world.now)[0].length_ms, 30_000);
}

#[test]
fn a_rule_that_never_held_as_late_news_tells_stops_media_at_once() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.admit(DELEGATO);
    world.admit(DELEGANTE);
    world.join(OPERATOR);
    let delegato = world.join(DELEGATO);
    world.pass(seconds(30));
    world.join(DELEGANTE);
    assert_eq!(world.phase(), Phase::Live);
    world.pass(seconds(1));
    world.source(delegato, Source::Microphone, false, seconds(2));
    assert_eq!(world.phase(), Phase::Suspended);
    assert_eq!(world.room.presence_intervals(world.now), []);
}

#[test]
fn a_screen_that_stops_is_nobodys_absence() {
    let mut world = World::live();
    let connection = world.room.person(world.id(DELEGATO)).unwrap().connection().unwrap();
    world.source(connection, Source::Screen, true, seconds(0));
    world.pass(seconds(30));
    world.camera(DELEGATO, false);
    world.source(connection, Source::Screen, false, seconds(2));
    world.pass(seconds(9));
    world.camera(DELEGATO, true);
    assert_eq!(world.room.presence_intervals(world.now)[0].length_ms, 39_000);
}

#[test]
fn ten_minutes_of_absence_conclude_the_room_as_incomplete() {
    let mut world = World::live();
    world.drop_connection(DELEGANTE, seconds(0));
    world.pass(seconds(599));
    assert_eq!(world.phase(), Phase::Suspended);
    world.pass(seconds(1));
    assert_eq!((world.phase(), world.room.outcome()), (Phase::Closed, Some(Outcome::Incomplete)));
    let concluded = Event::Concluded { outcome: Outcome::Incomplete, by_operator: false, extension_hours: 0 };
    assert!(world.has_happened(&concluded));
    assert_eq!(world.effects.last(), Some(&Effect::CloseMedia));
}

#[test]
fn a_delegante_may_come_as_late_as_the_appointment_lasts() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.pass(seconds(29 * 60));
    assert_eq!(world.phase(), Phase::Waiting);
    world.until("2026-01-13T09:39:59Z");
    assert!(world.room.is_open());
    world.until("2026-01-13T09:40:00Z");
    assert_eq!((world.phase(), world.room.outcome()), (Phase::Closed, Some(Outcome::Incomplete)));
}

#[test]
fn setting_the_wall_clock_moves_no_grace_and_no_presence() {
    let mut world = World::live();
    world.pass(seconds(20));
    world.set_clock(SignedDuration::from_hours(1));
    world.camera(DELEGATO, false);
    world.pass(seconds(9));
    assert_eq!(world.phase(), Phase::Live);
    world.camera(DELEGATO, true);
    world.set_clock(SignedDuration::from_hours(-2));
    world.pass(seconds(31));
    assert_eq!(world.phase(), Phase::Live);
    assert_eq!(world.room.presence_intervals(world.now)[0].length_ms, 60_000);
}

// ---- Attestation

#[test]
fn a_delegante_beside_the_delegato_is_attested() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.admit(DELEGATO);
    world.join(OPERATOR);
    world.join(DELEGATO);
    world.pass(seconds(30));
    let (participant, beside) = (world.id(DELEGANTE), world.id(DELEGATO));
    world.ok(Command::Attest { participant, beside });
    assert_eq!(world.phase(), Phase::Live);
    assert_eq!(world.room.person(participant).unwrap().attested_beside(), Some(beside));
    let intervals = world.room.presence_intervals(world.now);
    assert_eq!(
        (intervals[0].from, intervals[0].length_ms),
        (world.now.wall, 0),
        "presence counts from the attestation"
    );
    world.camera(DELEGATO, false);
    assert_eq!(world.room.missing(), [Role::Delegato, Role::Delegante], "both are on one camera");
    world.camera(DELEGATO, true);
    world.ok(Command::WithdrawAttestation { participant });
    world.pass(seconds(10));
    assert_eq!(world.room.suspended(), Some(absent(&[Role::Delegante])));
}

#[test]
fn an_attestation_ends_when_the_device_leaves_the_room_or_an_own_one_comes() {
    let mut world = World::live();
    let (participant, beside) = (world.id(DELEGANTE), world.id(DELEGATO));
    world.drop_connection(DELEGANTE, seconds(0));
    world.ok(Command::Attest { participant, beside });
    world.connect(DELEGANTE);
    assert!(world.has_happened(&Event::AttestationWithdrawn { participant }));
    world.drop_connection(DELEGANTE, seconds(0));
    world.ok(Command::Attest { participant, beside });
    world.drop_connection(DELEGATO, seconds(0));
    assert_eq!(world.room.person(participant).unwrap().attested_beside(), Some(beside), "a lost network is no leaving");
    world.ok(Command::SendBack { participant: beside });
    assert_eq!(world.room.person(participant).unwrap().attested_beside(), None);
}

#[test]
fn an_attestation_outlasts_a_device_that_is_gone_within_the_grace_and_no_longer() {
    for (silence, stands) in [(9, true), (11, false)] {
        let mut world = World::live();
        let (participant, beside) = (world.id(DELEGANTE), world.id(DELEGATO));
        world.drop_connection(DELEGANTE, seconds(0));
        world.ok(Command::Attest { participant, beside });
        world.pass(seconds(20));
        world.drop_connection(DELEGATO, seconds(0));
        world.pass(seconds(silence));
        world.join(DELEGATO);
        assert_eq!(world.room.person(participant).unwrap().attested_beside().is_some(), stands);
        assert_eq!(world.phase(), if stands { Phase::Live } else { Phase::Suspended });
        if !stands {
            assert_eq!(world.room.missing(), [Role::Delegante], "the operator must see them again");
            let withdrawn = world.ledger.iter().find(|e| e.event == Event::AttestationWithdrawn { participant });
            assert_eq!(withdrawn.unwrap().wall, wall("2026-01-13T09:00:30Z"), "when the grace ran out");
            world.ok(Command::Attest { participant, beside });
            assert_eq!(world.phase(), Phase::Live);
        }
    }
}

#[test]
fn a_device_that_has_not_been_seen_yet_is_waited_for() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.admit(DELEGATO);
    world.join(OPERATOR);
    let connection = world.connect(DELEGATO);
    let (participant, beside) = (world.id(DELEGANTE), world.id(DELEGATO));
    world.ok(Command::Attest { participant, beside });
    world.pass(seconds(60));
    assert_eq!(world.room.person(participant).unwrap().attested_beside(), Some(beside), "the camera is being allowed");
    for source in [Source::Microphone, Source::Camera] {
        world.source(connection, source, true, seconds(0));
    }
    world.record(DELEGATO, connection);
    assert_eq!(world.phase(), Phase::Live);
}

#[test]
fn an_attestation_outlasts_a_restart_if_its_device_comes_back_within_the_grace() {
    for (down, stands) in [(9, true), (11, false)] {
        let mut world = World::live();
        let (participant, beside) = (world.id(DELEGANTE), world.id(DELEGATO));
        world.drop_connection(DELEGANTE, seconds(0));
        world.ok(Command::Attest { participant, beside });
        world.restart(seconds(30));
        world.pass(seconds(down));
        world.join(OPERATOR);
        world.join(DELEGATO);
        assert_eq!(world.room.person(participant).unwrap().attested_beside().is_some(), stands);
        assert_eq!(world.room.missing().is_empty(), stands);
    }
}

#[test]
fn only_a_required_citizen_beside_another_is_attested() {
    let mut world = World::live();
    world.enter(GUEST);
    world.admit(GUEST);
    world.join(GUEST);
    let mut attest = |who: usize, beside: usize| {
        let command = Command::Attest { participant: world.id(who), beside: world.id(beside) };
        matches!(world.refused(command), Refusal::CannotAttest(_))
    };
    assert!(attest(OPERATOR, DELEGATO));
    assert!(attest(DELEGANTE, OPERATOR));
    assert!(attest(DELEGANTE, GUEST));
    assert!(attest(GUEST, DELEGATO));
    assert!(attest(DELEGATO, DELEGATO));
    assert!(attest(DELEGANTE, DELEGATO), "on a device of their own");
    world.drop_connection(DELEGANTE, seconds(0));
    world.drop_connection(DELEGATO, seconds(0));
    let command = Command::Attest { participant: world.id(DELEGANTE), beside: world.id(DELEGATO) };
    assert!(matches!(world.refused(command), Refusal::CannotAttest(_)), "the device is gone");
}

// ---- Recording

#[test]
fn a_lost_recording_stops_media_at_once() {
    let mut world = World::live();
    let decision = world.lose_recording();
    assert_eq!(decision.effects, [Effect::StopFlow]);
    let reason = SuspendReason::Recording { reason: RecordingFault::DiskFull };
    assert_eq!((world.phase(), world.room.suspended()), (Phase::Suspended, Some(reason)));
    assert_eq!(world.room.recording(), Recording::Lost(RecordingFault::DiskFull));
    assert_eq!(world.lose_recording().events, [], "twice is once");
}

#[test]
fn a_resumed_recording_lets_media_flow_once_each_original_begins_but_granted_is_out_of_reach() {
    let mut world = World::live();
    world.lose_recording();
    world.ok(Command::RecordingResumed);
    assert_eq!((world.phase(), world.room.recording()), (Phase::Suspended, Recording::Starting));
    for who in [OPERATOR, DELEGATO, DELEGANTE] {
        let connection = world.room.person(world.id(who)).unwrap().connection().unwrap();
        world.record(who, connection);
    }
    assert_eq!((world.phase(), world.room.recording()), (Phase::Live, Recording::On));
    world.pass(seconds(120));
    assert_eq!(world.conclude(Outcome::Granted, 0).refusal, Some(Refusal::RecordingIncomplete));
    assert_eq!(world.conclude(Outcome::Refused, 0).refusal, None);
}

#[test]
fn a_recording_lost_again_before_it_resumed_begins_anew_again() {
    let mut world = World::live();
    world.lose_recording();
    for who in [OPERATOR, DELEGATO, DELEGANTE] {
        let connection = world.room.person(world.id(who)).unwrap().connection().unwrap();
        world.record(who, connection);
    }
    world.lose_recording();
    world.ok(Command::RecordingResumed);
    assert_eq!((world.phase(), world.room.recording()), (Phase::Suspended, Recording::Starting));
}

#[test]
fn a_folder_that_cannot_be_written_keeps_the_room_from_going_live() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.ok(Command::RecordingLost { reason: RecordingFault::NotWritable });
    world.admit(DELEGATO);
    world.admit(DELEGANTE);
    for who in [OPERATOR, DELEGATO, DELEGANTE] {
        world.join(who);
    }
    assert_eq!((world.phase(), world.room.missing()), (Phase::Waiting, vec![]));
    assert!(!world.forwards());
    assert_eq!(world.room.recording(), Recording::Lost(RecordingFault::NotWritable));
    world.ok(Command::RecordingResumed);
    assert_eq!(world.phase(), Phase::Live);
    assert!(!world.room.recording_has_hole(), "nothing had flowed");
}

#[test]
fn before_the_room_is_opened_there_is_no_recording_to_lose() {
    let mut world = World::waiting();
    assert_eq!(world.lose_recording().events, []);
    world.ok(Command::Open);
    assert_eq!(world.room.recording(), Recording::Starting);
}

#[test]
fn people_who_leave_a_suspended_room_are_waited_for_ten_minutes() {
    let mut world = World::live();
    world.lose_recording();
    world.pass(seconds(3_600));
    assert_eq!(world.phase(), Phase::Suspended, "everyone is there: the operator decides");
    world.drop_connection(OPERATOR, seconds(0));
    world.pass(seconds(600));
    assert_eq!(world.room.outcome(), Some(Outcome::Incomplete));
}
