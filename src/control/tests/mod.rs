//! The rules of this part, each as a sentence.

mod house;
mod media;

use jiff::SignedDuration;

use self::house::{House, NOTICE, booking, next_view, wall};
use super::{Admission, Error, Personal, Scope, Secret, SubscriptionEnd};
use crate::media::Source;
use crate::room::{Command, Outcome, Phase, Place, Refusal, Role};

#[tokio::test]
async fn a_booking_gives_everyone_a_link_and_a_code_of_their_own() {
    let house = House::new().await;
    let booked = house.control.create_room(booking(60), None).await.unwrap();
    assert_eq!(booked.room.phase, Phase::Scheduled);
    assert_eq!(booked.participants.len(), 3);
    for invitation in &booked.participants {
        assert_eq!(invitation.code.as_ref().unwrap().expose().len(), 6);
        let url = format!("http://127.0.0.1:8080/join/{}", invitation.join_token.expose());
        assert_eq!(invitation.join_url.expose(), url);
    }
    assert_ne!(booked.participants[0].join_token, booked.participants[1].join_token);
    assert_eq!(house.control.room(booked.room.id).await.unwrap(), booked.room);
}

#[tokio::test]
async fn a_booking_that_makes_no_sense_names_the_field() {
    let house = House::new().await;
    let refused = async |change: fn(&mut super::Booking)| {
        let mut booking = booking(10);
        change(&mut booking);
        match house.control.create_room(booking, None).await {
            Err(Error::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|booking| booking.profile = "nozze".into()).await, "profile");
    assert_eq!(refused(|booking| booking.office = "  ".into()).await, "office");
    assert_eq!(refused(|booking| booking.reason = "x".repeat(501)).await, "reason");
    assert_eq!(refused(|booking| booking.end = booking.start).await, "end");
    assert_eq!(refused(|booking| booking.end += SignedDuration::from_hours(48)).await, "end");
    assert_eq!(refused(|booking| booking.participants.truncate(2)).await, "participants");
    assert_eq!(refused(|booking| booking.participants[2].role = Role::Citizen).await, "participants");
    assert_eq!(
        refused(|booking| booking.participants[1].name = Personal::from("a\u{202e}b")).await,
        "participants[1].name"
    );
    assert_eq!(refused(|booking| booking.participants[1].phone = Some("333".into())).await, "participants[1].phone");
    let field = refused(|booking| booking.participants[2].fiscal_code = Some("RSS".into())).await;
    assert_eq!(field, "participants[2].fiscal_code");
    let field = refused(|booking| booking.participants[1].operator_number = Some("7".into())).await;
    assert_eq!(field, "participants[1].operator_number");
}

#[tokio::test]
async fn five_wrong_codes_lock_and_a_new_code_unlocks() {
    let house = House::new().await;
    let booked = house.book().await;
    let (link, code) =
        (booked.participants[1].join_token.expose(), booked.participants[1].code.as_ref().unwrap().expose());
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for left in (0..5).rev() {
        let refusal = refusal(house.control.enter_code(link, wrong, false).await);
        assert!(matches!(refusal, Refusal::WrongCode(n) if n == left) || (left == 0 && refusal == Refusal::CodeLocked));
    }
    assert_eq!(refusal(house.control.enter_code(link, code, false).await), Refusal::CodeLocked, "even the right one");
    let new =
        house.control.reissue_code(booked.room.id, booked.participants[1].id, None).await.unwrap().0.code.unwrap();
    if new.expose() != code {
        assert_eq!(
            refusal(house.control.enter_code(link, code, false).await),
            Refusal::WrongCode(4),
            "the old one is void"
        );
    }
    house.control.enter_code(link, new.expose(), false).await.unwrap();
}

#[tokio::test]
async fn a_slip_of_the_hand_costs_no_attempt_and_spaces_do_not_matter() {
    let house = House::new().await;
    let booked = house.book().await;
    let (link, code) =
        (booked.participants[1].join_token.expose(), booked.participants[1].code.as_ref().unwrap().expose());
    for slip in ["", "12345", "1234567", "12345x", "１２３４５６"] {
        assert!(matches!(house.control.enter_code(link, slip, false).await, Err(Error::Invalid { .. })), "{slip}");
    }
    let spaced = format!(" {} {} ", &code[..3], &code[3..]);
    house.control.enter_code(link, &spaced, false).await.unwrap();
}

#[tokio::test]
async fn a_code_typed_too_early_is_not_an_attempt_and_says_when_to_come_back() {
    let house = House::new().await;
    let booked = house.control.create_room(booking(60), None).await.unwrap();
    let link = booked.participants[1].join_token.expose();
    for _ in 0..6 {
        let refusal = refusal(house.control.enter_code(link, "000000", false).await);
        assert!(matches!(refusal, Refusal::TooEarly(at) if at == booked.room.opens_at), "{refusal:?}");
    }
    assert_eq!(house.control.ledger(booked.room.id).await.unwrap().len(), 1, "nothing was counted");
}

#[tokio::test]
async fn a_code_of_one_person_does_not_admit_another() {
    let house = House::new().await;
    let (one, other) = (house.book().await, house.book().await);
    let (link, code) = (one.participants[1].join_token.expose(), other.participants[1].code.as_ref().unwrap().expose());
    if code != one.participants[1].code.as_ref().unwrap().expose() {
        assert!(matches!(refusal(house.control.enter_code(link, code, false).await), Refusal::WrongCode(4)));
    }
    assert!(matches!(house.control.enter_code("no-such-link", code, false).await, Err(Error::UnknownLink)));
}

#[tokio::test]
async fn a_link_tells_no_names() {
    let house = House::new().await;
    let booked = house.book().await;
    let welcome = house.control.welcome(booked.participants[2].join_token.expose()).await.unwrap();
    assert_eq!((welcome.role, welcome.office.as_str()), (Role::Delegante, "Roma"));
    let json = serde_json::to_string(&welcome).unwrap();
    assert!(!json.contains("Dino") && !json.contains("Olga") && !json.contains("OP-042"), "{json}");
}

#[tokio::test]
async fn a_link_tells_what_its_code_would_come_to() {
    let house = House::new().await;
    let told = async |link: &Secret| house.control.welcome(link.expose()).await.unwrap();
    let early = house.control.create_room(booking(60), None).await.unwrap();
    assert_eq!(told(&early.participants[1].join_token).await.admission, Admission::TooEarly);
    house.does(early.room.id, Command::Cancel).await;
    assert_eq!(told(&early.participants[1].join_token).await.admission, Admission::Cancelled);

    let locked = house.book().await;
    let link = &locked.participants[1].join_token;
    let code = locked.participants[1].code.as_ref().unwrap().expose();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    assert_eq!(told(link).await.admission, Admission::Open);
    for _ in 0..5 {
        refusal(house.control.enter_code(link.expose(), wrong, false).await);
    }
    assert_eq!(told(link).await.admission, Admission::Locked);
}

#[tokio::test]
async fn who_comes_back_after_the_end_is_told_of_the_time_for_documents_and_not_that_it_is_too_late() {
    let house = House::new().await;
    let mut short = booking(-1);
    short.end = wall() + SignedDuration::from_secs(2);
    let booked = house.control.create_room(short, None).await.unwrap();
    let room = booked.room.id;
    // The delegante never comes.
    for invitation in &booked.participants[..2] {
        let participant = house.admit_by_code(invitation).await.participant;
        house.does(room, Command::Consent { participant, text_version: NOTICE.into() }).await;
        house.does(room, Command::EnterWaiting { participant }).await;
    }
    house.does(room, Command::Open).await;
    house.does(room, Command::Conclude { outcome: Outcome::Incomplete, extension_hours: 72 }).await;
    while wall() < booked.room.end {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let delegato = house.control.welcome(booked.participants[1].join_token.expose()).await.unwrap();
    assert_eq!(delegato.admission, Admission::Documents);
    assert!(delegato.closes_at > booked.room.end + SignedDuration::from_hours(71), "{}", delegato.closes_at);
    let (link, code) =
        (booked.participants[1].join_token.expose(), booked.participants[1].code.as_ref().unwrap().expose());
    house.control.enter_code(link, code, true).await.unwrap();
    let delegante = house.control.welcome(booked.participants[2].join_token.expose()).await.unwrap();
    assert_eq!((delegante.admission, delegante.closes_at), (Admission::Over, booked.room.end));
}

#[tokio::test]
async fn a_wrong_code_that_the_database_cannot_count_is_counted_before_the_next_is_compared() {
    let house = House::new().await;
    let booked = house.book().await;
    let invitation = &booked.participants[1];
    let (link, code) = (invitation.join_token.expose(), invitation.code.as_ref().unwrap().expose());
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let mut disk = house.another_process().await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON ledger BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    sqlx::raw_sql(full).execute(&mut disk).await.unwrap();
    assert!(matches!(house.control.enter_code(link, wrong, false).await, Err(Error::Unavailable(_))));
    for _ in 0..8 {
        let tried = house.control.enter_code(link, wrong, false).await;
        assert!(matches!(tried, Err(Error::Unavailable(_))), "not compared: {tried:?}");
    }
    sqlx::raw_sql("DROP TRIGGER full").execute(&mut disk).await.unwrap();
    assert_eq!(refusal(house.control.enter_code(link, wrong, false).await), Refusal::WrongCode(3), "both are counted");
}

#[tokio::test]
async fn a_second_device_takes_over_only_when_the_person_says_so_and_then_ends_the_first() {
    let house = House::new().await;
    let booked = house.book().await;
    let first = house.admit_by_code(&booked.participants[1]).await;
    let mut news = house.control.subscribe(&first).await.unwrap();
    assert_eq!(next_view(&mut news).await.place, Place::Admitted);
    let invitation = &booked.participants[1];
    let (link, code) = (invitation.join_token.expose(), invitation.code.as_ref().unwrap().expose());
    assert!(matches!(house.control.enter_code(link, code, false).await, Err(Error::OtherDevice)));
    house.control.session_view(&first).await.expect("nothing has ended yet");
    assert_eq!(house.control.room(booked.room.id).await.unwrap().participants[1].attempts_left, 5);
    let second = house.control.enter_code(link, code, true).await.unwrap();
    let second = house.control.authenticate(second.session_token.expose()).await.unwrap();
    assert!(matches!(house.control.session_view(&first).await, Err(Error::Unauthenticated)));
    house.control.session_view(&second).await.unwrap();
    loop {
        match news.next().await {
            Ok(_) => {}
            Err(end) => break assert_eq!(end, SubscriptionEnd::SessionEnded),
        }
    }
}

#[tokio::test]
async fn what_a_person_sees_is_their_own_and_the_operator_sees_what_to_check() {
    let house = House::new().await;
    let booked = house.book().await;
    let operator = house.admit_by_code(&booked.participants[0]).await;
    let delegato = house.admit_by_code(&booked.participants[1]).await;
    let view = house.control.session_view(&operator).await.unwrap();
    assert_eq!(view.participants[2].fiscal_code, Some(Personal::from("RSSMRA80A41H501W")));
    assert_eq!(view.outcomes.len(), 3);
    let view = house.control.session_view(&delegato).await.unwrap();
    assert_eq!(view.participants[2].fiscal_code, None, "not before they are in the room together");
    assert_eq!(view.room.operator_number.as_deref(), Some("OP-042"));
    assert!(view.outcomes.is_empty());
    assert_eq!(view.me.role, Role::Delegato);
}

#[tokio::test]
async fn consent_is_to_the_notice_that_is_shown() {
    let house = House::new().await;
    let booked = house.book().await;
    let caller = house.admit_by_code(&booked.participants[1]).await;
    let (room, participant) = (caller.room, caller.participant);
    let old = Command::Consent { participant, text_version: "2019-07".into() };
    assert!(
        matches!(house.control.command(room, old, None).await, Err(Error::Invalid { field, .. }) if field == "text_version")
    );
    house.does(room, Command::Consent { participant, text_version: NOTICE.into() }).await;
    let view = house.control.session_view(&caller).await.unwrap();
    assert_eq!(view.consent.unwrap().text_version, NOTICE);
}

#[tokio::test]
async fn nobody_can_say_over_the_api_what_only_the_node_may_say() {
    let house = House::new().await;
    let booked = house.book().await;
    let participant = booked.participants[1].id;
    for command in [Command::TryCode { participant, right: true }, Command::Restarted, Command::RecordingResumed] {
        assert!(matches!(house.control.command(booked.room.id, command, None).await, Err(Error::Forbidden)));
    }
}

#[tokio::test]
async fn the_removed_learn_it_and_their_session_ends() {
    let house = House::new().await;
    let booked = house.book().await;
    let callers = house.gather(&booked).await;
    let mut news = house.control.subscribe(&callers[1]).await.unwrap();
    house.does(booked.room.id, Command::Remove { participant: callers[1].participant }).await;
    let mut place = next_view(&mut news).await.place;
    let end = loop {
        match news.next().await {
            Ok(message) => match message.event {
                super::SessionEvent::Session { session } => place = session.place,
                super::SessionEvent::Slots { .. } => {}
            },
            Err(end) => break end,
        }
    };
    assert_eq!((place, end), (Place::Removed, SubscriptionEnd::SessionEnded));
    assert!(matches!(house.control.session_view(&callers[1]).await, Err(Error::Unauthenticated)));
    let code = booked.participants[1].code.as_ref().unwrap().expose();
    let again = house.control.enter_code(booked.participants[1].join_token.expose(), code, false).await;
    assert_eq!(refusal(again), Refusal::Removed);
}

#[tokio::test]
async fn after_a_restart_every_room_goes_on_in_its_phase_with_its_attempts_and_consents() {
    let house = House::new().await;
    let booked = house.book().await;
    let link = booked.participants[1].join_token.expose();
    let right = booked.participants[1].code.as_ref().unwrap().expose();
    let wrong = if right == "000000" { "000001" } else { "000000" };
    let _ = house.control.enter_code(link, wrong, false).await;
    let token = house.control.enter_code(
        booked.participants[2].join_token.expose(),
        booked.participants[2].code.as_ref().unwrap().expose(),
        false,
    );
    let token = token.await.unwrap().session_token;
    let participant = booked.participants[2].id;
    house.does(booked.room.id, Command::Consent { participant, text_version: NOTICE.into() }).await;
    let before = house.control.room(booked.room.id).await.unwrap();

    let house = house.restart().await;
    let after = house.control.room(booked.room.id).await.unwrap();
    assert!(after.revision > before.revision, "the restart is written down");
    assert_eq!(super::RoomView { revision: before.revision, ..after }, before);
    let caller = house.control.authenticate(token.expose()).await.unwrap();
    assert!(house.control.session_view(&caller).await.unwrap().consent.is_some());
    assert!(matches!(refusal(house.control.enter_code(link, wrong, false).await), Refusal::WrongCode(3)));
    let kinds: Vec<String> = house.control.ledger(booked.room.id).await.unwrap().iter().map(kind).collect();
    assert!(kinds.contains(&"node_restarted".to_owned()), "{kinds:?}");
}

#[tokio::test]
async fn a_room_that_is_over_is_still_read_and_asked() {
    let house = House::new().await;
    let booked = house.control.create_room(booking(60), None).await.unwrap();
    let room = booked.room.id;
    house.does(room, Command::Cancel).await;
    house::eventually("its actor rests", || house.control.shared.rooms.is_empty()).await;
    assert_eq!(house.control.room(room).await.unwrap().phase, Phase::Cancelled);
    assert!(matches!(house.control.command(room, Command::Open, None).await, Err(Error::Refused(_))));
    let house = house.restart().await;
    assert!(house.control.shared.rooms.is_empty(), "it is not made up again");
    assert_eq!(house.control.room(room).await.unwrap().phase, Phase::Cancelled);
    let nowhere = crate::id::RoomId::new(wall());
    assert!(matches!(house.control.room(nowhere).await, Err(Error::UnknownRoom)));
    assert!(matches!(house.control.ledger(nowhere).await, Err(Error::UnknownRoom)));
}

#[tokio::test]
async fn a_moved_booking_is_moved_in_every_view_and_after_a_restart() {
    let house = House::new().await;
    let booked = house.control.create_room(booking(60), None).await.unwrap();
    let (start, end) = (booked.room.end, booked.room.end + SignedDuration::from_mins(30));
    house.does(booked.room.id, Command::Reschedule { start, end }).await;
    let house = house.restart().await;
    let room = house.control.room(booked.room.id).await.unwrap();
    assert_eq!((room.start, room.end), (start, end));
}

#[tokio::test]
async fn neither_codes_nor_tokens_nor_personal_data_are_in_the_ledger_or_in_debug_output() {
    let house = House::new().await;
    let (booked, callers, _) = house.go_live().await;
    let view = house.control.session_view(&callers[0]).await.unwrap();
    let ledger = serde_json::to_string(&house.control.ledger(booked.room.id).await.unwrap()).unwrap();
    let printed = format!("{booked:?} {view:?} {callers:?} {:?} {:?}", booking(1), house.control);
    for text in [ledger, printed] {
        for word in ["Olga", "Dino", "1234567", "RSSMRA80A41H501W"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
        for invitation in &booked.participants {
            assert!(!text.contains(invitation.join_token.expose()));
            assert!(!text.contains(&format!("\"{}\"", invitation.code.as_ref().unwrap().expose())));
        }
    }
}

#[tokio::test]
async fn keys_are_made_once_each_with_its_own_scope() {
    let house = House::new().await;
    let keys = house.control.ensure_keys().await.unwrap();
    assert_eq!(keys.len(), 4);
    for (scope, key) in &keys {
        assert_eq!(house.control.key(key.expose()).await.unwrap().1, *scope);
    }
    assert!(house.control.ensure_keys().await.unwrap().is_empty());
    assert!(matches!(house.control.key("sportello_booking_x").await, Err(Error::Unauthenticated)));
    let (scope, key) = &keys[0];
    assert_eq!(*scope, Scope::Booking);
    let (id, _) = house.control.key(key.expose()).await.unwrap();
    assert!(house.store.revoke_key(id, wall()).await.unwrap());
    assert!(matches!(house.control.key(key.expose()).await, Err(Error::Unauthenticated)));
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn kind(line: &super::LedgerLine) -> String {
    serde_json::to_value(&line.event).unwrap()["type"].as_str().unwrap().to_owned()
}

/// Both sources of a face that talks.
const FACE_AND_VOICE: [Source; 2] = [Source::Microphone, Source::Camera];
