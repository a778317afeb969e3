//! The sentences of the rules, on virtual time.

use jiff::SignedDuration;

use super::world::*;
use super::*;
use crate::clock::Now;
use crate::media::{RecordingFault, Source};

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
fn a_profile_error_names_key_value_and_what_is_allowed() {
    let text = include_str!("../../config/profiles/delega.toml");
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
    assert!(error("[\"operator\", ", "[").contains("required = [Delegato, Delegante]"));
    assert!(error(", \"incomplete\"]", "]").starts_with("outcomes = [Granted, Refused]"));
    assert!(error("minimum_presence_seconds = 60", "minimum_presence_seconds = 1801").ends_with("0 to 1800"));
    assert!(error("slot_minutes = 30", "slot_minutes = = 30").contains("a TOML file"));
}

// ---- Booking

#[test]
fn a_booking_needs_every_required_role_once_and_no_other() {
    let delega = profile("delega");
    let world = World::delega();
    let book = |roles: &[Role]| {
        let participants = roles.iter().map(|&role| (crate::id::ParticipantId::new(world.now.wall), role)).collect();
        let (start, end) = (world.room.start(), world.room.end());
        Room::book(world.now, &delega, Appointment { room: world.room.id(), start, end, participants })
    };
    use Role::{Citizen, Delegante, Delegato, Guest, Operator};
    assert!(book(&[Operator, Delegato, Delegante, Guest, Guest]).is_ok());
    assert_eq!(book(&[Operator, Delegato]), Err(BookingError::RoleMissing(Delegante)));
    assert_eq!(book(&[Operator, Delegato, Delegante, Delegante]), Err(BookingError::RoleTwice(Delegante)));
    assert_eq!(book(&[Operator, Delegato, Delegante, Citizen]), Err(BookingError::RoleUnknown(Citizen)));
}

#[test]
fn a_booking_ends_after_its_start_and_ahead() {
    let world = World::delega();
    let book = |start: &str, end: &str| {
        let participants = world.room.people().iter().map(|person| (person.id(), person.role())).collect();
        let appointment = Appointment { room: world.room.id(), start: wall(start), end: wall(end), participants };
        Room::book(world.now, &world.profile, appointment).map(|_| ())
    };
    assert_eq!(book(NINE, NINE), Err(BookingError::BadTimes));
    assert_eq!(book("2026-01-13T07:00:00Z", "2026-01-13T08:00:00Z"), Err(BookingError::BadTimes));
    assert_eq!(book("2026-01-13T08:00:00Z", "2026-01-13T09:00:00Z"), Ok(()), "a meeting under way may be booked");
}

#[test]
fn a_rescheduled_room_asks_for_the_code_again_in_its_new_window() {
    let mut world = World::waiting();
    let (start, end) = (wall("2026-01-15T09:00:00Z"), wall("2026-01-15T09:30:00Z"));
    world.handle(Command::TryCode { participant: world.id(GUEST), right: false });
    let decision = world.ok(Command::Reschedule { start, end });
    assert_eq!(decision.effects.len(), 3, "the sessions of the three who were admitted end");
    assert_eq!(world.phase(), Phase::Scheduled);
    assert!(world.room.people().iter().all(|person| person.place() == Place::Expected));
    assert_eq!(world.room.person(world.id(GUEST)).unwrap().attempts_left(), 4, "attempts stay counted");
    world.until("2026-01-15T08:45:00Z");
    assert_eq!(world.phase(), Phase::Waiting);
    world.enter(DELEGATO);
}

#[test]
fn a_room_moved_by_minutes_keeps_those_who_wait() {
    let mut world = World::waiting();
    let (start, end) = (wall("2026-01-13T09:10:00Z"), wall("2026-01-13T09:40:00Z"));
    assert_eq!(world.ok(Command::Reschedule { start, end }).effects, []);
    assert_eq!(world.phase(), Phase::Waiting);
    assert_eq!(world.room.person(world.id(DELEGATO)).unwrap().place(), Place::Waiting);
}

#[test]
fn a_booking_is_not_moved_into_the_past_nor_once_it_is_open() {
    let mut world = World::waiting();
    let early = Command::Reschedule { start: wall("2026-01-13T08:59:59Z"), end: wall("2026-01-13T09:30:00Z") };
    assert_eq!(world.refused(early), Refusal::BadTimes);
    let mut world = World::live();
    let later = Command::Reschedule { start: wall("2026-01-14T09:00:00Z"), end: wall("2026-01-14T09:30:00Z") };
    assert_eq!(world.refused(later), Refusal::WrongPhase(Phase::Live));
}

#[test]
fn a_booking_is_withdrawn_until_the_operator_opens() {
    let mut world = World::waiting();
    assert_eq!(world.ok(Command::Cancel).effects, [Effect::CloseMedia]);
    assert_eq!(world.phase(), Phase::Cancelled);
    assert_eq!(world.ok(Command::Cancel).events, [], "twice is once");
    assert_eq!(world.refused(Command::Open), Refusal::WrongPhase(Phase::Cancelled));
    assert_eq!(World::live().refused(Command::Cancel), Refusal::WrongPhase(Phase::Live));
}

#[test]
fn a_room_that_nobody_opens_expires_at_its_end() {
    let mut world = World::waiting();
    world.pass(seconds(30 * 60 - 1));
    assert_eq!(world.phase(), Phase::Waiting);
    world.pass(seconds(1));
    assert_eq!(world.phase(), Phase::Expired);
    assert_eq!(world.room.deadline(), Deadline::default());
}

#[test]
fn a_room_whose_window_passed_while_the_node_was_down_expires() {
    let mut world = World::delega();
    world.restart(seconds(86_400));
    assert_eq!(world.phase(), Phase::Expired);
}

// ---- Codes

#[test]
fn a_code_typed_too_early_is_no_attempt_lost() {
    let mut world = World::delega();
    let participant = world.id(DELEGATO);
    let opens = wall("2026-01-13T08:45:00Z");
    assert_eq!(world.room.may_try_code(world.now, participant), Err(Refusal::TooEarly(opens)));
    assert_eq!(world.refused(Command::TryCode { participant, right: false }), Refusal::TooEarly(opens));
    assert_eq!(world.room.person(participant).unwrap().attempts_left(), 5);
    world.until("2026-01-13T08:45:00Z");
    assert_eq!(world.room.may_try_code(world.now, participant), Ok(()));
}

#[test]
fn a_code_typed_after_the_end_is_too_late() {
    let mut world = World::delega();
    let participant = world.id(DELEGATO);
    world.until("2026-01-13T09:30:00Z");
    assert_eq!(world.room.may_try_code(world.now, participant), Err(Refusal::TooLate(world.room.end())));
}

#[test]
fn an_open_room_admits_nobody_new_after_its_end_but_lets_the_admitted_change_device() {
    let mut world = World::live();
    world.pass(seconds(31 * 60));
    assert_eq!(world.phase(), Phase::Live, "a meeting may last longer than its appointment");
    assert_eq!(world.room.may_try_code(world.now, world.id(GUEST)), Err(Refusal::TooLate(world.room.end())));
    assert_eq!(world.room.may_try_code(world.now, world.id(DELEGATO)), Ok(()));
}

#[test]
fn five_wrong_codes_lock_and_a_sixth_is_never_compared() {
    let mut world = World::delega();
    world.until(NINE);
    let participant = world.id(DELEGATO);
    for left in [4, 3, 2, 1, 0] {
        let decision = world.handle(Command::TryCode { participant, right: false });
        assert_eq!(decision.events, [Event::CodeRejected { participant, attempts_left: left }]);
        assert_eq!(decision.refusal, Some(Refusal::WrongCode(left)));
    }
    assert_eq!(world.room.may_try_code(world.now, participant), Err(Refusal::CodeLocked));
    assert_eq!(world.refused(Command::TryCode { participant, right: true }), Refusal::CodeLocked);
    assert_eq!(world.room.may_try_code(world.now, world.id(DELEGANTE)), Ok(()), "the others are not locked");
    world.ok(Command::ReissueCode { participant });
    world.ok(Command::TryCode { participant, right: true });
    assert_eq!(world.room.person(participant).unwrap().place(), Place::Admitted);
}

#[test]
fn a_right_code_does_not_give_a_guesser_new_attempts() {
    let mut world = World::delega();
    world.until(NINE);
    let participant = world.id(DELEGATO);
    for _ in 0..3 {
        world.handle(Command::TryCode { participant, right: false });
    }
    world.ok(Command::TryCode { participant, right: true });
    assert_eq!(world.room.person(participant).unwrap().attempts_left(), 2);
}

// ---- Waiting room

#[test]
fn code_consent_and_waiting_room_come_in_this_order() {
    let mut world = World::delega();
    world.until(NINE);
    let participant = world.id(DELEGATO);
    let consent = Command::Consent { participant, text_version: "2026-01".into() };
    assert_eq!(world.refused(consent.clone()), Refusal::NotAdmitted);
    assert_eq!(world.refused(Command::EnterWaiting { participant }), Refusal::NotAdmitted);
    world.ok(Command::TryCode { participant, right: true });
    assert_eq!(world.refused(Command::EnterWaiting { participant }), Refusal::NoConsent);
    assert_eq!(world.room.may_connect(participant), Err(Refusal::NoConsent));
    world.ok(consent.clone());
    assert_eq!(world.ok(consent).events, [], "twice is once");
    world.ok(Command::EnterWaiting { participant });
    let person = world.room.person(participant).unwrap();
    assert_eq!((person.place(), person.waiting_since()), (Place::Waiting, Some(wall(NINE))));
    assert_eq!(person.consent().unwrap().text_version, "2026-01");
    assert_eq!(world.room.may_connect(participant), Err(Refusal::NotInside));
}

#[test]
fn the_operator_opens_and_is_inside() {
    let mut world = World::waiting();
    let operator = world.id(OPERATOR);
    assert_eq!(world.ok(Command::Open).events, [Event::Opened, Event::LetIn { participant: operator }]);
    assert!(world.room.is_open());
    assert_eq!(world.phase(), Phase::Waiting);
    assert_eq!(world.ok(Command::Open).events, [], "twice is once");
}

#[test]
fn only_an_operator_who_is_there_and_has_consented_opens() {
    let mut world = World::delega();
    assert_eq!(world.refused(Command::Open), Refusal::TooEarly(wall("2026-01-13T08:45:00Z")));
    world.until(NINE);
    assert_eq!(world.refused(Command::Open), Refusal::NotAdmitted);
    world.ok(Command::TryCode { participant: world.id(OPERATOR), right: true });
    assert_eq!(world.refused(Command::Open), Refusal::NoConsent);
}

#[test]
fn people_are_let_in_one_by_one_from_the_waiting_room() {
    let mut world = World::waiting();
    let [delegato, guest] = [DELEGATO, GUEST].map(|who| Command::Admit { participant: world.id(who) });
    assert_eq!(world.refused(delegato.clone()), Refusal::NotOpen);
    world.ok(Command::Open);
    assert_eq!(world.refused(guest.clone()), Refusal::NotAdmitted);
    world.ok(Command::TryCode { participant: world.id(GUEST), right: true });
    assert_eq!(world.refused(guest), Refusal::NotWaiting);
    world.ok(delegato);
    assert_eq!(world.room.person(world.id(DELEGATO)).unwrap().place(), Place::Inside);
    assert_eq!(world.room.person(world.id(DELEGANTE)).unwrap().place(), Place::Waiting);
    assert_eq!(world.room.may_connect(world.id(DELEGATO)), Ok(()));
}

#[test]
fn an_operator_who_comes_back_to_an_open_room_is_let_in_at_once() {
    let mut world = World::live();
    let participant = world.id(OPERATOR);
    world.ok(Command::Leave { participant });
    world.ok(Command::EnterWaiting { participant });
    assert_eq!(world.room.person(participant).unwrap().place(), Place::Inside);
}

#[test]
fn whoever_is_sent_back_waits_and_loses_the_connection() {
    let mut world = World::live();
    let participant = world.id(DELEGANTE);
    assert_eq!(world.ok(Command::SendBack { participant }).effects, [Effect::Disconnect(participant)]);
    assert_eq!(world.room.person(participant).unwrap().place(), Place::Waiting);
    assert_eq!(world.room.missing(), [Role::Delegante]);
    world.admit(DELEGANTE);
    world.join(DELEGANTE);
    assert_eq!(world.room.missing(), []);
}

#[test]
fn whoever_is_removed_never_comes_back() {
    let mut world = World::live();
    let participant = world.id(DELEGATO);
    let effects = [Effect::Disconnect(participant), Effect::EndSession(participant)];
    assert_eq!(world.ok(Command::Remove { participant }).effects, effects);
    assert_eq!(world.ok(Command::Remove { participant }).events, [], "twice is once");
    for command in [
        Command::TryCode { participant, right: true },
        Command::ReissueCode { participant },
        Command::EnterWaiting { participant },
        Command::Admit { participant },
        Command::Leave { participant },
    ] {
        assert_eq!(world.refused(command), Refusal::Removed);
    }
    assert_eq!(world.room.may_connect(participant), Err(Refusal::Removed));
}

#[test]
fn a_connection_of_someone_who_just_lost_their_place_is_ended() {
    let mut world = World::live();
    let participant = world.id(DELEGATO);
    world.ok(Command::SendBack { participant });
    let connection = crate::id::ConnectionId::new(world.now.wall);
    let decision = world.handle(Command::Connected { participant, connection });
    assert_eq!(decision.refusal, Some(Refusal::NotInside));
    assert_eq!((decision.events, decision.effects), (vec![], vec![Effect::Disconnect(participant)]));
}

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
    assert_eq!(world.lose_recording().events, [], "the first fault stands");
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
fn people_who_leave_a_suspended_room_are_waited_for_ten_minutes() {
    let mut world = World::live();
    world.lose_recording();
    world.pass(seconds(3_600));
    assert_eq!(world.phase(), Phase::Suspended, "everyone is there: the operator decides");
    world.drop_connection(OPERATOR, seconds(0));
    world.pass(seconds(600));
    assert_eq!(world.room.outcome(), Some(Outcome::Incomplete));
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
