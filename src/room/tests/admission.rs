//! Bookings, codes, waiting room.

use super::world::*;
use crate::room::*;

// ---- Booking

#[test]
fn a_booking_needs_every_required_role_once_and_no_other() {
    use Role::{Citizen, Delegante, Delegato, Guest, Operator};

    let delega = profile("delega");
    let world = World::delega();
    let book = |roles: &[Role]| {
        let participants = roles.iter().map(|&role| (crate::id::ParticipantId::new(world.now.wall), role)).collect();
        let (start, end) = (world.room.start(), world.room.end());
        Room::book(world.now, &delega, Appointment { room: world.room.id(), start, end, participants })
    };
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
fn another_person_takes_a_booked_ones_role_with_a_code_of_their_own() {
    let mut world = World::waiting();
    let participant = world.id(DELEGANTE);
    world.handle(Command::TryCode { participant, right: false });
    let by = crate::id::ParticipantId::new(world.now.wall);
    let decision = world.ok(Command::Replace { participant, by });
    assert_eq!(decision.events, [Event::Replaced { participant, by }]);
    assert_eq!(decision.effects, [Effect::Disconnect(participant), Effect::EndSession(participant)]);
    assert_eq!(world.room.person(participant), None);
    let person = &world.room.people()[DELEGANTE];
    assert_eq!((person.id(), person.role(), person.place()), (by, Role::Delegante, Place::Expected));
    assert_eq!((person.attempts_left(), person.consent()), (5, None));
    assert_eq!(world.refused(Command::EnterWaiting { participant }), Refusal::UnknownParticipant);
    assert_eq!(world.refused(Command::EnterWaiting { participant: by }), Refusal::NotAdmitted);
    world.people[DELEGANTE] = by;
    world.enter(DELEGANTE);
}

#[test]
fn whoever_is_inside_is_not_replaced_and_whoever_was_removed_may_be() {
    let mut world = World::live();
    let participant = world.id(DELEGANTE);
    let by = crate::id::ParticipantId::new(world.now.wall);
    let replace = Command::Replace { participant, by };
    assert_eq!(world.refused(replace.clone()), Refusal::StillInside);
    let twice = Command::Replace { participant: world.id(GUEST), by: participant };
    assert_eq!(world.refused(twice), Refusal::AlreadyBooked);
    world.ok(Command::Remove { participant });
    world.ok(replace.clone());
    assert_eq!(world.refused(replace), Refusal::UnknownParticipant, "they are gone");
    world.people[DELEGANTE] = by;
    world.pass(seconds(11));
    assert_eq!(world.room.suspended(), Some(absent(&[Role::Delegante])));
    world.enter(DELEGANTE);
    world.admit(DELEGANTE);
    world.join(DELEGANTE);
    assert_eq!(world.phase(), Phase::Live);
    world.conclude(Outcome::Incomplete, 1);
    let late = Command::Replace { participant: world.id(GUEST), by: participant };
    assert_eq!(world.refused(late), Refusal::WrongPhase(Phase::Extended));
}

#[test]
fn an_attestation_is_for_the_one_who_was_seen_not_for_who_comes_instead() {
    let mut world = World::live();
    let (participant, beside) = (world.id(DELEGANTE), world.id(DELEGATO));
    world.ok(Command::Leave { participant });
    world.ok(Command::Attest { participant, beside });
    let by = crate::id::ParticipantId::new(world.now.wall);
    let decision = world.ok(Command::Replace { participant, by });
    assert_eq!(decision.events, [Event::AttestationWithdrawn { participant }, Event::Replaced { participant, by }]);
    assert_eq!(world.room.missing(), [Role::Delegante]);
    world.pass(seconds(10));
    assert_eq!(world.room.suspended(), Some(absent(&[Role::Delegante])));
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
fn what_became_of_the_message_with_the_code_is_kept_until_a_new_code_is_issued() {
    let mut world = World::delega();
    let participant = world.id(DELEGATO);
    let message = |world: &World| world.room.person(participant).unwrap().message();
    assert_eq!(message(&world), None);
    assert_eq!(world.ok(Command::MessageSent { participant }).events, [Event::CodeSent { participant }]);
    assert_eq!(message(&world), Some(MessageState::Sent { at: world.now.wall }));
    assert_eq!(world.ok(Command::MessageSent { participant }).events, [], "twice is once");
    world.ok(Command::ReissueCode { participant });
    assert_eq!(message(&world), None);
    assert_eq!(world.ok(Command::MessageFailed { participant }).events, [Event::CodeNotSent { participant }]);
    assert_eq!(message(&world), Some(MessageState::Failed { at: world.now.wall }));
    let stranger = crate::id::ParticipantId::new(world.now.wall);
    assert_eq!(world.refused(Command::MessageSent { participant: stranger }), Refusal::UnknownParticipant);
    assert_eq!(world.refused(Command::MessageFailed { participant: stranger }), Refusal::UnknownParticipant);
    world.ok(Command::Cancel);
    assert_eq!(
        world.ok(Command::MessageSent { participant }).events,
        [],
        "nothing is added to a ledger that has ended"
    );
}

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
fn a_code_is_issued_anew_in_every_phase_before_the_conclusion_and_for_handing_documents_in() {
    let mut world = World::delega();
    let [delegato, guest] = [DELEGATO, GUEST].map(|who| Command::ReissueCode { participant: world.id(who) });
    world.ok(delegato.clone());
    world.until("2026-01-13T08:45:00Z");
    assert_eq!(world.phase(), Phase::Waiting);
    world.ok(delegato.clone());
    let mut world = World::live();
    let [delegato, guest_of_it] = [DELEGATO, GUEST].map(|who| Command::ReissueCode { participant: world.id(who) });
    assert_ne!(guest, guest_of_it);
    world.ok(delegato.clone());
    world.lose_recording();
    assert_eq!(world.phase(), Phase::Suspended);
    world.ok(delegato.clone());
    world.conclude(Outcome::Incomplete, 1);
    world.ok(delegato.clone());
    let never_came = Refusal::WrongPhase(Phase::Extended);
    assert_eq!(world.refused(guest_of_it), never_came, "a code would not let them in any more");
    world.pass(seconds(3_600));
    assert_eq!(world.refused(delegato), Refusal::WrongPhase(Phase::Closed));
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
