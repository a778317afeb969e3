//! Outcomes, extension, restarts, ledger; and the profiles that ask for them.

use jiff::SignedDuration;

use super::world::*;
use crate::media::RecordingFault;
use crate::room::*;

// ---- Profiles

#[test]
fn the_shipped_profiles_are_delega_and_videochiamata() {
    let names: Vec<_> = Profile::shipped().into_iter().map(|profile| profile.name).collect();
    assert_eq!(names, ["delega", "videochiamata"]);
    let delega = profile("delega");
    assert_eq!(delega.required, [Role::Operator, Role::Delegato, Role::Delegante]);
    assert_eq!(delega.minimum_presence(), seconds(60));
    let videochiamata = profile("videochiamata");
    assert_eq!((videochiamata.slot_minutes, videochiamata.minimum_presence()), (20, seconds(0)));
}

#[test]
fn the_shipped_profiles_have_the_domains_numbers() {
    for (name, slot, minimum, outcomes) in [
        ("delega", 30, 60, vec![Outcome::Granted, Outcome::Refused, Outcome::Incomplete]),
        ("videochiamata", 20, 0, vec![Outcome::Served, Outcome::Incomplete]),
    ] {
        let profile = profile(name);
        assert_eq!((profile.slot_minutes, profile.minimum_presence_seconds), (slot, minimum));
        assert_eq!(profile.outcomes, outcomes);
        assert_eq!((profile.admission_opens_minutes, profile.code_digits, profile.code_attempts), (15, 6, 5));
        assert_eq!((profile.absence_grace_seconds, profile.longest_absence_seconds), (10, 600));
        assert_eq!(profile.longest_extension_hours, 72);
        assert_eq!(profile.features, [], "chat, documents and sharing wait for the operator");
    }
}

#[test]
fn a_new_profile_is_a_text() {
    let text = include_str!("../../../config/profiles/videochiamata.toml")
        .replace("name = \"videochiamata\"", "name = \"consulenza\"")
        .replace("required = [\"operator\", \"citizen\"]", "required = [\"operator\", \"citizen\", \"delegato\"]")
        .replace("outcomes = [\"served\", ", "outcomes = [\"granted\", \"served\", ")
        .replace("absence_grace_seconds = 10", "absence_grace_seconds = 2");
    let roles = [Role::Operator, Role::Delegato, Role::Citizen, Role::Guest];
    let mut world = World::booked(Profile::parse(&text).unwrap(), &roles);
    world.until(NINE);
    (0..3).for_each(|who| world.enter(who));
    world.ok(Command::Open);
    (1..3).for_each(|who| world.admit(who));
    for who in 0..2 {
        world.join(who);
    }
    assert_eq!(world.room.missing(), [Role::Citizen]);
    world.join(2);
    assert_eq!(world.phase(), Phase::Live);
    world.camera(1, false);
    world.pass(seconds(2));
    assert_eq!(world.phase(), Phase::Suspended);
    world.camera(1, true);
    assert_eq!(world.conclude(Outcome::Granted, 0).refusal, None, "this one asks for no minimum");
}

#[test]
fn a_profile_error_names_key_value_and_what_is_allowed() {
    let text = include_str!("../../../config/profiles/delega.toml");
    let error = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Profile::parse(&text.replace(from, to)).unwrap_err().to_string()
    };
    assert_eq!(
        error("absence_grace_seconds = 10", "absence_grace_seconds = 61"),
        "absence_grace_seconds = 61: allowed: 1 to 60"
    );
    assert_eq!(error("code_attempts = 5", "code_attempts = 0"), "code_attempts = 0: allowed: 1 to 10");
    assert_eq!(error("code_attempts = 5", ""), "code_attempts: allowed: the key must be there");
    assert!(error("code_attempts = 5", "code_attempts = 5\ncolour = 1").starts_with("colour: allowed: one of name, "));
    assert!(error("code_attempts = 5", "code_attempts = \"many\"").contains("code_attempts = string \"many\""));
    assert!(error("\"delegante\"]", "\"cittadino\"]").contains("\"cittadino\": allowed: one of operator, "));
    assert!(error("[\"operator\", ", "[").contains("required = [\"delegato\",\"delegante\"]"));
    assert!(error(", \"incomplete\"]", "]").starts_with("outcomes = [\"granted\",\"refused\"]"));
    assert!(error("minimum_presence_seconds = 60", "minimum_presence_seconds = 1801").ends_with("0 to 1800"));
    assert!(error("slot_minutes = 30", "slot_minutes = = 30").contains("a TOML file"));
}

// ---- The act

#[test]
fn granted_needs_a_minute_of_unbroken_presence() {
    let mut world = World::live();
    world.pass(seconds(59));
    assert_eq!(world.conclude(Outcome::Granted, 0).refusal, Some(Refusal::PresenceTooShort(1)));
    world.pass(seconds(1));
    assert_eq!(world.conclude(Outcome::Granted, 0).refusal, None);
}

#[test]
fn a_break_past_the_grace_starts_the_minute_again() {
    let mut world = World::live();
    world.pass(seconds(59));
    world.camera(DELEGANTE, false);
    world.pass(seconds(11));
    world.camera(DELEGANTE, true);
    world.pass(seconds(59));
    assert_eq!(world.conclude(Outcome::Granted, 0).refusal, Some(Refusal::PresenceTooShort(1)));
}

#[test]
fn presence_counts_for_granted_only_while_media_flows() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.ok(Command::RecordingLost { reason: RecordingFault::NotWritable });
    world.admit(DELEGATO);
    world.admit(DELEGANTE);
    for who in [OPERATOR, DELEGATO, DELEGANTE] {
        world.join(who);
    }
    world.pass(seconds(59));
    world.ok(Command::RecordingResumed);
    world.pass(seconds(1));
    assert_eq!(world.room.presence_intervals(world.now)[0].length_ms, 60_000);
    assert_eq!(world.room.can_grant(world.now), Err(Refusal::PresenceTooShort(59)));
}

#[test]
fn granted_needs_everyone_at_that_very_moment() {
    let mut world = World::live();
    world.pass(seconds(90));
    world.camera(DELEGANTE, false);
    let missing = Refusal::PresenceMissing(vec![Role::Delegante]);
    assert_eq!(world.conclude(Outcome::Granted, 0).refusal, Some(missing));
    assert_eq!(world.conclude(Outcome::Incomplete, 0).refusal, None, "the other outcomes do not");
}

#[test]
fn an_outcome_is_one_of_the_profiles() {
    let mut world = World::live();
    assert_eq!(world.conclude(Outcome::Served, 0).refusal, Some(Refusal::OutcomeNotAllowed));
    let mut world = World::videochiamata();
    world.until(NINE);
    world.enter(OPERATOR);
    assert_eq!(world.conclude(Outcome::Served, 0).refusal, Some(Refusal::NotOpen));
    world.ok(Command::Open);
    assert_eq!(world.conclude(Outcome::Granted, 0).refusal, Some(Refusal::OutcomeNotAllowed));
    assert_eq!(world.conclude(Outcome::Served, 0).refusal, None);
}

#[test]
fn a_room_concluded_without_extension_closes_at_once() {
    let mut world = World::live();
    world.pass(seconds(60));
    let decision = world.conclude(Outcome::Granted, 0);
    let concluded = Event::Concluded { outcome: Outcome::Granted, by_operator: true, extension_hours: 0 };
    assert_eq!(decision.events, [concluded, Event::Closed]);
    assert_eq!(decision.effects, [Effect::StopFlow, Effect::CloseMedia]);
    assert_eq!((world.phase(), world.room.outcome()), (Phase::Closed, Some(Outcome::Granted)));
    assert_eq!(world.room.presence_intervals(world.now)[0].length_ms, 60_000, "the proof stays");
    assert_eq!(world.refused(Command::Open), Refusal::WrongPhase(Phase::Closed));
    assert_eq!(world.ok(Command::Leave { participant: world.id(DELEGATO) }).events, []);
}

#[test]
fn an_extension_lasts_its_hours_and_then_ends_every_session() {
    let mut world = World::live();
    assert_eq!(world.conclude(Outcome::Refused, 73).refusal, Some(Refusal::ExtensionTooLong(72)));
    world.conclude(Outcome::Refused, 72);
    assert_eq!(world.phase(), Phase::Extended);
    assert_eq!(world.room.extension_until(), Some(wall("2026-01-16T09:00:00Z")));
    assert_eq!(world.room.may_try_code(world.now, world.id(DELEGATO)), Ok(()), "to hand documents in from elsewhere");
    assert_eq!(world.room.may_try_code(world.now, world.id(GUEST)), Err(Refusal::WrongPhase(Phase::Extended)));
    assert_eq!(world.room.may_connect(world.id(DELEGATO)), Err(Refusal::WrongPhase(Phase::Extended)));
    world.pass(seconds(72 * 3_600 - 1));
    assert_eq!(world.phase(), Phase::Extended);
    world.pass(seconds(1));
    assert_eq!(world.phase(), Phase::Closed);
    assert_eq!(world.effects.iter().filter(|effect| matches!(effect, Effect::EndSession(_))).count(), 4);
}

#[test]
fn an_extension_is_made_longer_counted_from_the_conclusion_and_never_shorter() {
    let mut world = World::live();
    assert_eq!(world.refused(Command::Extend { hours: 24 }), Refusal::WrongPhase(Phase::Live));
    world.conclude(Outcome::Incomplete, 24);
    world.pass(seconds(10 * 3_600));
    let until = wall("2026-01-15T09:00:00Z");
    assert_eq!(world.ok(Command::Extend { hours: 48 }).events, [Event::Extended { until }]);
    assert_eq!(world.room.extension_until(), Some(until));
    assert_eq!(world.ok(Command::Extend { hours: 48 }).events, [], "twice is once");
    assert_eq!(world.refused(Command::Extend { hours: 47 }), Refusal::ExtensionNotLonger(until));
    assert_eq!(world.refused(Command::Extend { hours: 73 }), Refusal::ExtensionTooLong(72));
    world.restart(seconds(3_600));
    assert_eq!(world.room.extension_until(), Some(until));
    world.until("2026-01-15T09:00:00Z");
    assert_eq!(world.phase(), Phase::Closed);
    assert_eq!(world.refused(Command::Extend { hours: 72 }), Refusal::WrongPhase(Phase::Closed));
}

#[test]
fn a_refusal_speaks_in_the_domains_words() {
    let missing = Refusal::PresenceMissing(vec![Role::Delegato, Role::Delegante]);
    assert_eq!(missing.to_string(), "the presence rule does not hold: delegato, delegante missing");
    assert_eq!(Refusal::WrongPhase(Phase::Live).to_string(), "not possible while the room is live");
    let twice = BookingError::RoleTwice(Role::Operator);
    assert_eq!(twice.to_string(), "only one participant can have the role operator");
    for role in [Role::Operator, Role::Delegato, Role::Delegante, Role::Citizen, Role::Guest] {
        assert_eq!(serde_json::to_value(role).unwrap(), role.name());
    }
    for phase in [Phase::Scheduled, Phase::Waiting, Phase::Live, Phase::Suspended, Phase::Concluded] {
        assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
    }
    for phase in [Phase::Extended, Phase::Closed, Phase::Cancelled, Phase::Expired] {
        assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
    }
    for outcome in [Outcome::Granted, Outcome::Refused, Outcome::Served, Outcome::Incomplete] {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
    }
}

#[test]
fn features_are_switched_by_the_operator() {
    let mut world = World::live();
    assert_eq!(world.room.features().count(), 0);
    world.ok(Command::SetFeature { feature: Feature::Chat, on: true });
    assert_eq!(world.ok(Command::SetFeature { feature: Feature::Chat, on: true }).events, [], "twice is once");
    assert_eq!(world.room.features().collect::<Vec<_>>(), [Feature::Chat]);
    world.ok(Command::SetFeature { feature: Feature::Chat, on: false });
    assert_eq!(world.room.features().count(), 0);
}

// ---- Restart

#[test]
fn after_a_restart_the_room_waits_suspended_for_its_people_and_nothing_else_is_lost() {
    let mut world = World::live();
    world.handle(Command::TryCode { participant: world.id(GUEST), right: false });
    world.pass(seconds(20));
    let decision = world.restart(seconds(30));
    let missing = vec![Role::Operator, Role::Delegato, Role::Delegante];
    assert_eq!(
        decision.events,
        [Event::NodeRestarted, Event::Suspended { reason: SuspendReason::Absence { missing } }]
    );
    assert_eq!(world.room.person(world.id(GUEST)).unwrap().attempts_left(), 4);
    assert!(world.room.person(world.id(DELEGATO)).unwrap().consent().is_some());
    for who in [OPERATOR, DELEGATO, DELEGANTE] {
        assert_eq!(world.room.may_connect(world.id(who)), Ok(()), "the session is enough");
        world.join(who);
    }
    assert_eq!(world.phase(), Phase::Live);
    world.pass(seconds(60));
    assert_eq!(
        world.room.can_grant(world.now),
        Err(Refusal::RecordingIncomplete),
        "its last second may not be on disk"
    );
}

#[test]
fn media_that_flowed_until_just_before_a_crash_may_not_be_on_disk() {
    for (after, hole) in [(9, true), (10, false)] {
        let mut world = World::live();
        world.pass(seconds(20));
        world.drop_connection(DELEGANTE, seconds(0));
        world.pass(seconds(10));
        assert_eq!(world.phase(), Phase::Suspended);
        world.pass(seconds(after));
        // The newest thing that the ledger tells of the run.
        world.handle(Command::TryCode { participant: world.id(GUEST), right: false });
        world.restart(seconds(30));
        assert_eq!(world.room.recording_has_hole(), hole);
        world.restart(seconds(30));
        assert_eq!(world.room.recording_has_hole(), hole, "nothing flowed in between");
    }
}

#[test]
fn a_restart_before_media_flowed_leaves_no_hole() {
    let mut world = World::waiting();
    world.ok(Command::Open);
    world.restart(seconds(5));
    world.admit(DELEGATO);
    world.admit(DELEGANTE);
    for who in [OPERATOR, DELEGATO, DELEGANTE] {
        world.join(who);
    }
    world.pass(seconds(60));
    assert_eq!(world.room.can_grant(world.now), Ok(()));
}

#[test]
fn the_time_that_the_node_was_down_is_nobodys_absence() {
    let mut world = World::live();
    world.restart(seconds(3_600));
    assert_eq!(world.phase(), Phase::Suspended);
    world.pass(seconds(300));
    world.handle(Command::TryCode { participant: world.id(DELEGATO), right: true });
    world.restart(seconds(3_600));
    world.pass(seconds(299));
    assert_eq!(world.phase(), Phase::Suspended);
    world.pass(seconds(1));
    assert_eq!(world.room.outcome(), Some(Outcome::Incomplete), "five minutes before the restart and five after");
}

// ---- Ledger

#[test]
fn a_wall_clock_that_is_set_while_people_meet_is_told_and_moves_no_presence() {
    let mut world = World::live();
    world.pass(seconds(30));
    let by_ms = -3_600_000;
    world.set_clock(SignedDuration::from_millis(by_ms));
    assert_eq!(world.ok(Command::WallClockSet { by_ms }).events, [Event::WallClockSet { by_ms }]);
    world.pass(seconds(30));
    assert_eq!(world.room.presence_intervals(world.now)[0].length_ms, 60_000);
    assert_eq!(world.conclude(Outcome::Granted, 0).refusal, None);
    assert_eq!(World::delega().ok(Command::WallClockSet { by_ms }).events, [], "nobody meets yet");
}

#[test]
fn a_ledger_verifies_and_a_changed_one_does_not() {
    let mut world = World::live();
    world.pass(seconds(61));
    world.conclude(Outcome::Granted, 1);
    let mut head = ledger::Head::empty();
    let mut lines = Vec::new();
    for entry in &world.ledger {
        let line = ledger::chain(&head, entry);
        head = line.head();
        lines.push(line);
    }
    assert_eq!(ledger::verify(&lines), Ok(head.clone()));
    // As it is kept, and back.
    let kept: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    let read: Vec<ledger::Line> = kept.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ledger::verify(&read), Ok(head));
    assert_eq!(Room::replay(&world.profile, &read.iter().map(ledger::Line::entry).collect::<Vec<_>>()), Ok(world.room));

    let broken_at = |change: &dyn Fn(&mut Vec<ledger::Line>)| {
        let mut lines = read.clone();
        change(&mut lines);
        ledger::verify(&lines).unwrap_err().seq
    };
    assert_eq!(broken_at(&|lines| lines[2].mono_ms += 1), 3);
    assert_eq!(broken_at(&|lines| lines[2].wall += seconds(1)), 3);
    assert_eq!(broken_at(&|lines| lines[4].event = Event::Cancelled), 5);
    assert_eq!(broken_at(&|lines| drop(lines.remove(3))), 4);
    assert_eq!(broken_at(&|lines| lines.swap(5, 6)), 6);
    assert_eq!(broken_at(&|lines| drop(lines.remove(0))), 1);
}

#[test]
fn a_ledger_is_verified_as_text_and_the_line_that_fails_is_named() {
    let world = World::live();
    let mut head = ledger::Head::empty();
    let mut lines = Vec::new();
    for entry in &world.ledger {
        let line = ledger::chain(&head, entry);
        head = line.head();
        lines.push(serde_json::to_value(&line).unwrap());
    }
    let text = |lines: &[serde_json::Value]| lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(ledger::verify_text(&text(&lines)), Ok(head.clone()));
    assert_eq!(ledger::verify_text(&serde_json::to_string_pretty(&lines).unwrap()), Ok(head.clone()));
    assert_eq!(head.seq, lines.len() as u64);

    let fails = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        let said = ledger::verify_text(&text(&lines)).unwrap_err();
        assert_eq!(ledger::verify_text(&serde_json::to_string(&lines).unwrap()).unwrap_err(), said);
        said.to_string()
    };
    assert_eq!(fails(&|lines| lines.clear()), "no ledger: there are no lines");
    assert_eq!(fails(&|lines| lines[2]["mono_ms"] = 1.into()), "the ledger does not verify at line 3");
    assert_eq!(fails(&|lines| drop(lines.remove(0))), "the ledger does not verify at line 1");
    assert!(
        fails(&|lines| lines[3]["event"]["type"] = "undone".into()).starts_with("line 4 is not a line of a ledger")
    );
    let more = fails(&|lines| lines[1]["event"]["note"] = "granted".into());
    assert!(more.starts_with("line 2 is not a line of a ledger"), "what is not hashed is not shown either: {more}");
    let otherwise = fails(&|lines| lines[0]["wall"] = "2026-01-13T09:30:00+01:00".into());
    assert!(otherwise.starts_with("line 1 "), "{otherwise}");
    assert!(matches!(ledger::verify_text("[{\"seq\": 1"), Err(ledger::TextError::NotJson(_))));
    let twice = text(&lines).replacen("\"seq\":1,", "\"seq\":7,\"seq\":1,", 1);
    assert!(matches!(ledger::verify_text(&twice), Err(ledger::TextError::Unreadable { seq: 1, .. })));
    let twice = format!("[{}]", twice.trim_end().replace('\n', ","));
    assert!(matches!(ledger::verify_text(&twice), Err(ledger::TextError::NotJson(_))));
}

#[test]
fn lines_that_follow_from_each_other_are_not_yet_a_rooms_ledger() {
    let world = World::live();
    let text = |entries: &[&Entry]| {
        let mut head = ledger::Head::empty();
        let chained = entries.iter().map(|entry| {
            let line = ledger::chain(&head, entry);
            head = line.head();
            serde_json::to_string(&line).unwrap() + "\n"
        });
        chained.collect::<String>()
    };
    let entries: Vec<&Entry> = world.ledger.iter().collect();
    assert!(ledger::verify_text(&text(&entries)).is_ok());
    assert_eq!(ledger::verify_text(&text(&entries[1..])), Err(ledger::TextError::NotARoom { seq: 1 }));
    let twice = [entries[0], entries[1], entries[0]];
    assert_eq!(ledger::verify_text(&text(&twice)), Err(ledger::TextError::NotARoom { seq: 3 }));
}

#[test]
fn a_lines_hash_is_that_of_its_text_less_the_hash() {
    let world = World::delega();
    let line = ledger::chain(&ledger::Head::empty(), &world.ledger[0]);
    let text = serde_json::to_string(&line).unwrap();
    let (hashed, _) = text.rsplit_once(",\"hash\":").unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{hashed}}}").as_bytes());
    assert_eq!(line.hash, hex::encode(digest));
    assert_eq!(line.seq, 1);
}

#[test]
fn a_ledger_of_another_profile_or_without_its_booking_is_not_replayed() {
    let world = World::live();
    let other = std::sync::Arc::new(profile("videochiamata"));
    assert_eq!(Room::replay(&other, &world.ledger), Err(ReplayError::OtherProfile("delega".into())));
    assert_eq!(Room::replay(&world.profile, &world.ledger[1..]), Err(ReplayError::NotBooked));
}
