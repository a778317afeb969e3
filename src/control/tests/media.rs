//! When media flows, and above all when it does not.

use std::time::Duration;

use super::house::{House, eventually, next_view};
use super::{FACE_AND_VOICE, kind, refusal};
use crate::clock::Clock;
use crate::control::{Error, Fault, RecordingState, SessionEvent, SubscriptionEnd};
use crate::media::{RecordingFault, Source};
use crate::recording::recover::{OriginalEnd, RecoveredOriginal};
use crate::recording::{self, Original};
use crate::room::ledger;
use crate::room::{Command, Entry, Event, Feature, Outcome, Phase, Refusal, SuspendReason};
use crate::rtp::TapError;
use crate::sfu;
use crate::store::{Record, RecordingKey};
use crate::vault::{KeyError, WrappedKey};

#[tokio::test]
async fn media_flows_once_everyone_is_seen_heard_and_recorded() {
    let house = House::new().await;
    let booked = house.book().await;
    let callers = house.gather(&booked).await;
    house.send_media(&callers[0]).await;
    house.send_media(&callers[1]).await;
    let view = house.sees(&callers[0], "two are there", |view| view.participants[1].sources == FACE_AND_VOICE).await;
    assert!(!view.flow && view.missing.len() == 1 && !house.worker.state(|state| state.flow));
    let third = house.send_media(&callers[2]).await;
    let view = house.sees(&callers[1], "the room is live", |view| view.phase == Phase::Live).await;
    assert!(view.flow && view.live_since.is_some() && view.missing.is_empty());
    assert_eq!(view.recording.state, RecordingState::On);
    eventually("media flows", || house.worker.state(|state| state.flow)).await;
    assert!(house.worker.state(|state| state.recorded.contains(&third)));
    let labels = house.disk.state(|state| state.labels.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>());
    assert_eq!(labels, ["operator", "delegato", "delegante"]);
}

#[tokio::test]
async fn who_has_not_consented_or_is_not_inside_gets_no_media() {
    let house = House::new().await;
    let booked = house.book().await;
    let caller = house.admit_by_code(&booked.participants[1]).await;
    assert_eq!(refusal(house.control.connect(&caller, "offer".into()).await), Refusal::NoConsent);
    let consent = Command::Consent { participant: caller.participant, text_version: super::NOTICE.into() };
    house.does(booked.room.id, consent).await;
    assert_eq!(refusal(house.control.connect(&caller, "offer".into()).await), Refusal::NotInside);
    assert!(house.worker.state(|state| state.joins.is_empty()));
}

#[tokio::test]
async fn an_offer_that_cannot_be_answered_is_the_callers_fault() {
    let house = House::new().await;
    let booked = house.book().await;
    let callers = house.gather(&booked).await;
    assert!(matches!(house.control.connect(&callers[0], "garbage".into()).await, Err(Error::BadOffer(_))));
}

#[tokio::test]
async fn a_lost_recording_stops_media_and_everyone_reads_why() {
    let house = House::new().await;
    let (_, callers, _) = house.go_live().await;
    let mut news = house.control.subscribe(&callers[2]).await.unwrap();
    assert!(next_view(&mut news).await.flow);
    house.disk.says(recording::Fact::Lost { fault: RecordingFault::DiskFull }).await;
    eventually("media stops", || !house.worker.state(|state| state.flow)).await;
    let view = loop {
        let view = next_view(&mut news).await;
        if view.phase == Phase::Suspended {
            break view;
        }
    };
    assert!(!view.flow);
    assert_eq!(view.suspended, Some(SuspendReason::Recording { reason: RecordingFault::DiskFull }));
    assert_eq!((view.recording.state, view.recording.fault), (RecordingState::Lost, Some(RecordingFault::DiskFull)));
}

#[tokio::test]
async fn a_tap_that_takes_no_more_is_a_lost_recording() {
    let house = House::new().await;
    let (_, callers, _) = house.go_live().await;
    house.worker.state(|state| state.tap.as_ref().unwrap().give_up());
    house.worker.says(sfu::Fact::TapFailed { error: TapError::Full }).await;
    let view = house.sees(&callers[0], "it is lost", |view| view.recording.state == RecordingState::Lost).await;
    assert_eq!(view.recording.fault, Some(RecordingFault::Overflow));
    assert!(!house.worker.state(|state| state.flow));
}

#[tokio::test]
async fn a_silent_recorder_is_a_lost_recording() {
    let house = House::new().await;
    let (_, callers, _) = house.go_live().await;
    house.disk.state(|state| state.hangs = true);
    // Two seconds after the last acknowledgement it is too old.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(house.worker.state(|state| state.flow));
    let view = house.sees(&callers[0], "it is lost", |view| view.recording.state == RecordingState::Lost).await;
    assert_eq!(view.recording.fault, Some(RecordingFault::Stalled));
    assert!(!house.worker.state(|state| state.flow));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_known_when_the_room_opens_and_nothing_flows() {
    let house = House::new().await;
    house.disk.state(|state| state.fault = Some(RecordingFault::NotWritable));
    let booked = house.book().await;
    let callers = house.gather(&booked).await;
    house.sees(&callers[1], "the fault", |view| view.recording.fault == Some(RecordingFault::NotWritable)).await;
    for caller in &callers {
        let connection = house.control.connect(caller, "offer".into()).await.unwrap().connection;
        house.worker.says(sfu::Fact::Connected { connection }).await;
        for source in FACE_AND_VOICE {
            let since = crate::clock::MonoTime::ZERO;
            house.worker.says(sfu::Fact::SourceChanged { connection, source, active: true, since }).await;
        }
    }
    let view = house.sees(&callers[0], "all are there", |view| view.missing.is_empty()).await;
    assert!(!view.flow && view.phase != Phase::Live && !house.worker.state(|state| state.flow));
    let lost =
        house.control.ledger(booked.room.id).await.unwrap().iter().map(kind).filter(|k| k == "recording_lost").count();
    assert_eq!(lost, 1, "one fault is one line, however many connect");
}

#[tokio::test]
async fn recording_is_resumed_in_new_files_by_itself_while_everyone_stays_connected() {
    let house = House::new().await;
    let (booked, callers, connections) = house.go_live().await;
    house.disk.state(|state| state.fault = Some(RecordingFault::DiskFull));
    house.disk.says(recording::Fact::Lost { fault: RecordingFault::WriteFailed }).await;
    let view = house.sees(&callers[0], "it is lost", |view| view.phase == Phase::Suspended).await;
    assert_eq!(view.recording.durable_until, None, "nothing is recorded");
    assert!(house.worker.state(|state| state.tap.is_none() && state.recorded.is_empty()), "nothing is tapped");
    eventually("new files are asked for again and again", || house.disk.state(|state| state.opened >= 3)).await;
    assert!(house.worker.state(|state| state.tap.is_none()), "the disk does not take them");

    house.disk.state(|state| state.fault = None);
    eventually("the worker has a new tap", || house.worker.state(|state| state.tap.is_some())).await;
    let announced = house.disk.state(|state| state.labels.clone());
    assert_eq!(announced.len(), 3);
    assert!(connections.iter().all(|connection| announced.iter().any(|(announced, _)| announced == connection)));
    let view = house.sees(&callers[0], "resumed", |view| view.recording.state == RecordingState::Starting).await;
    assert!(!view.flow && view.phase == Phase::Suspended, "the first writes have not been acknowledged");
    for connection in &connections[..2] {
        house.disk.says(recording::Fact::Started { connection: *connection, source: Source::Camera }).await;
    }
    eventually("two are recorded", || house.worker.state(|state| state.recorded.len() == 2)).await;
    assert!(!house.control.session_view(&callers[0]).await.unwrap().flow, "the third is not");
    house.disk.says(recording::Fact::Started { connection: connections[2], source: Source::Camera }).await;
    house.sees(&callers[0], "live again", |view| view.phase == Phase::Live && view.flow).await;
    eventually("media flows", || house.worker.state(|state| state.flow)).await;

    assert_eq!(house.worker.state(|state| (state.opened, state.joins.len())), (1, 3), "nobody connected again");
    let told: Vec<_> = house.control.ledger(booked.room.id).await.unwrap().iter().map(kind).collect();
    let of_recording: Vec<_> = told.iter().filter(|kind| kind.starts_with("recording_")).collect();
    let (started, lost, resumed) = ("recording_started", "recording_lost", "recording_resumed");
    assert_eq!(of_recording, [started, started, started, lost, resumed, started, started, started]);
    // What was lost can never be granted on.
    let conclude = Command::Conclude { outcome: Outcome::Granted, extension_hours: 0 };
    let granted = house.control.command(booked.room.id, conclude, None).await;
    assert_eq!(refusal(granted), Refusal::RecordingIncomplete);
}

#[tokio::test]
async fn a_recorder_that_hangs_is_not_asked_twice_and_goes_on_when_it_answers() {
    let house = House::new().await;
    let (_, callers, connections) = house.go_live().await;
    house.disk.state(|state| state.hangs = true);
    let view = house.sees(&callers[0], "it is lost", |view| view.recording.state == RecordingState::Lost).await;
    assert_eq!(view.recording.fault, Some(RecordingFault::Stalled));
    eventually("new files are asked for", || house.disk.state(|state| state.opened == 2)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(house.disk.state(|state| state.opened), 2, "and not again: it has not answered");
    house.disk.state(|state| state.hangs = false);
    house.disk.says(recording::Fact::Ready).await;
    for connection in connections {
        house.disk.says(recording::Fact::Started { connection, source: Source::Microphone }).await;
    }
    house.sees(&callers[0], "live again", |view| view.flow).await;
}

#[tokio::test]
async fn a_recorder_that_hangs_from_the_start_is_told_of_and_taken_up_when_it_answers() {
    let house = House::new().await;
    house.disk.state(|state| state.hangs = true);
    let booked = house.book().await;
    let callers = house.gather(&booked).await;
    house.sees(&callers[1], "the fault", |view| view.recording.fault == Some(RecordingFault::Stalled)).await;
    assert!(house.worker.state(|state| state.tap.is_none()), "nothing is tapped that nobody takes out");
    // Its answer is for a tap that the worker has no more: others follow at once.
    house.disk.state(|state| state.hangs = false);
    house.disk.says(recording::Fact::Ready).await;
    eventually("the worker has a tap", || house.worker.state(|state| state.tap.is_some())).await;
    for caller in &callers {
        house.send_media(caller).await;
    }
    house.sees(&callers[0], "live", |view| view.flow).await;
}

#[tokio::test]
async fn news_of_a_tap_that_was_replaced_changes_nothing() {
    let house = House::new().await;
    let (_, callers, _) = house.go_live().await;
    house.worker.says(sfu::Fact::TapFailed { error: TapError::Full }).await;
    house.does(callers[0].room, Command::SetFeature { feature: Feature::Chat, on: true }).await;
    assert_eq!(house.control.session_view(&callers[0]).await.unwrap().recording.state, RecordingState::On);
}

#[tokio::test]
async fn what_was_given_up_is_kept_with_what_is_on_disk_for_sure() {
    let house = House::new().await;
    let (booked, callers, connections) = house.go_live().await;
    let original = Original {
        file: "delegato-1.webm".into(),
        sources: vec![Source::Microphone],
        bytes: 700,
        clusters: 1,
        duration_ms: 900,
        chain_head: "11".repeat(32),
    };
    house.disk.says(recording::Fact::GivenUp { connection: connections[1], original: original.clone() }).await;
    house.disk.says(recording::Fact::Lost { fault: RecordingFault::WriteFailed }).await;
    house.sees(&callers[0], "it is lost", |view| view.phase == Phase::Suspended).await;
    let kept = house.store.originals(booked.room.id).await.unwrap();
    assert_eq!(kept.iter().map(|stored| &stored.original).collect::<Vec<_>>(), [&original]);
    assert_eq!(kept[0].participant, callers[1].participant);
}

#[tokio::test]
async fn a_room_is_not_opened_without_space_for_its_recording() {
    let house = House::new().await;
    let booked = house.book().await;
    house.disk.state(|state| state.full = true);
    assert!(matches!(house.control.create_room(super::house::booking(5), None).await, Err(Error::NoSpace)));
    let operator = house.admit_by_code(&booked.participants[0]).await;
    let participant = operator.participant;
    let room = booked.room.id;
    house.does(room, Command::Consent { participant, text_version: super::NOTICE.into() }).await;
    house.does(room, Command::EnterWaiting { participant }).await;
    assert!(matches!(house.control.command(room, Command::Open, None).await, Err(Error::NoSpace)));
    assert!(!house.control.session_view(&operator).await.unwrap().opened);
    let need = house.disk.state(|state| (state.reserved[0], state.released));
    assert_eq!((need.0.people, need.1), (3, 1));
    assert!((1_700..1_760).contains(&need.0.lasts.as_secs()), "until the appointment's end: {need:?}");

    house.disk.state(|state| state.full = false);
    house.does(room, Command::Open).await;
    assert!(house.control.session_view(&operator).await.unwrap().opened);
    house.does(room, Command::Open).await;
    assert_eq!(house.disk.state(|state| state.released), 1);
}

#[tokio::test]
async fn a_picture_without_a_keyframe_is_asked_for_one_told_to_the_operator_and_bars_granted() {
    let house = House::with(|profile| profile.minimum_presence_seconds = 0).await;
    let (booked, callers, connections) = house.go_live().await;
    let (connection, source) = (connections[2], Source::Camera);
    house.disk.says(recording::Fact::KeyframeWanted { connection, source }).await;
    eventually("it is asked for", || house.worker.state(|state| state.asked == [(connection, source)])).await;
    house.disk.says(recording::Fact::PictureMissing { connection, source, since: house_time() }).await;
    let missing = |view: &crate::control::SessionView| view.participants[2].not_recorded.clone();
    let view = house.sees(&callers[0], "the operator knows", |view| missing(view) == [Source::Camera]).await;
    assert!(view.flow, "the voice is recorded and heard");
    assert_eq!(missing(&house.control.session_view(&callers[2]).await.unwrap()), [Source::Camera], "they know too");
    assert_eq!(missing(&house.control.session_view(&callers[1]).await.unwrap()), [], "nobody else needs to");
    let conclude = Command::Conclude { outcome: Outcome::Granted, extension_hours: 0 };
    let granted = house.control.command(booked.room.id, conclude.clone(), None).await;
    assert_eq!(refusal(granted), Refusal::RecordingIncomplete);
    house.disk.says(recording::Fact::PictureBack { connection, source }).await;
    house.sees(&callers[0], "it is back", |view| missing(view).is_empty()).await;
    house.does(booked.room.id, conclude).await;
    let told: Vec<_> = house.control.ledger(booked.room.id).await.unwrap().iter().map(kind).collect();
    assert_eq!(
        told.iter().filter(|kind| kind.starts_with("picture_")).collect::<Vec<_>>(),
        ["picture_missing", "picture_back"]
    );
}

#[tokio::test]
async fn the_operator_sees_up_to_when_the_room_is_on_disk() {
    let house = House::new().await;
    let (_, callers, _) = house.go_live().await;
    let view = house.control.session_view(&callers[0]).await.unwrap();
    let behind = view.now.duration_since(view.recording.durable_until.unwrap());
    assert!(behind.as_millis() < 1_500, "{behind}");
    assert_eq!(house.control.session_view(&callers[1]).await.unwrap().recording.durable_until, None);
}

#[tokio::test]
async fn while_the_database_fails_nothing_flows_and_nothing_is_decided() {
    let house = House::new().await;
    let (booked, callers, connections) = house.go_live().await;
    house.store.close().await;
    let gone = sfu::Fact::SourceChanged {
        connection: connections[2],
        source: Source::Camera,
        active: false,
        since: house_time(),
    };
    house.worker.says(gone).await;
    eventually("media stops", || !house.worker.state(|state| state.flow)).await;
    let remove = Command::Remove { participant: callers[1].participant };
    assert!(matches!(house.control.command(booked.room.id, remove, None).await, Err(Error::Unavailable(_))));
    assert!(!house.control.session_view(&callers[0]).await.unwrap().flow);
}

#[tokio::test]
async fn media_stops_while_a_write_hangs_and_goes_on_when_it_is_done() {
    let house = House::new().await;
    let (booked, _, _) = house.go_live().await;
    let mut other = house.another_process().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let (control, room) = (house.control.clone(), booked.room.id);
    let chat = Command::SetFeature { feature: Feature::Chat, on: true };
    let asked = tokio::spawn(async move { control.command(room, chat, None).await });
    eventually("media stops, since nothing is heard of the room", || !house.worker.state(|state| state.flow)).await;
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    asked.await.unwrap().unwrap();
    eventually("media flows again", || {
        house.acknowledge();
        house.worker.state(|state| state.flow)
    })
    .await;
}

#[tokio::test]
async fn a_room_takes_in_what_it_wrote_without_hearing_of_it() {
    let house = House::new().await;
    let booked = house.book().await;
    let room = booked.room.id;
    // Whatever is due is written before a question is answered.
    house.control.room(room).await.unwrap();
    let head = house.store.ledger(room).await.unwrap().last().unwrap().head();
    // As if the acknowledgement of this write had been lost.
    let event = Event::FeatureSet { feature: Feature::Documents, on: true };
    let lines = [ledger::chain(&head, &Entry::at(Clock::new().now(), event))];
    let (phase, at) = (Phase::Waiting, super::house::wall());
    let lost = Record { room, lines: &lines, phase, outcome: None, changes: &[], messages: &[], fits: None, at };
    house.store.record(&lost).await.unwrap();
    let chat = Command::SetFeature { feature: Feature::Chat, on: true };
    assert!(matches!(house.control.command(room, chat.clone(), None).await, Err(Error::Unavailable(_))));
    house.does(room, chat).await;
    let kinds: Vec<_> = house.control.ledger(room).await.unwrap().iter().map(kind).collect();
    assert_eq!(kinds[kinds.len() - 2..], ["feature_set", "feature_set"]);
}

#[tokio::test]
async fn absence_past_the_grace_suspends_the_room_without_anybody_asking() {
    let house = House::with(|profile| profile.absence_grace_seconds = 1).await;
    let (_, callers, connections) = house.go_live().await;
    let since = house_time();
    let fact = sfu::Fact::SourceChanged { connection: connections[2], source: Source::Camera, active: false, since };
    house.worker.says(fact).await;
    for _ in 0..40 {
        house.acknowledge();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("media stops", || !house.worker.state(|state| state.flow)).await;
    let view = house.sees(&callers[0], "suspended", |view| view.phase == Phase::Suspended).await;
    assert!(matches!(view.suspended, Some(SuspendReason::Absence { .. })), "{:?}", view.suspended);
}

#[tokio::test]
async fn a_concluded_room_ends_its_media_and_keeps_what_was_recorded() {
    let house = House::new().await;
    let (booked, callers, _) = house.go_live().await;
    let mut news = house.control.subscribe(&callers[1]).await.unwrap();
    let conclude = Command::Conclude { outcome: Outcome::Refused, extension_hours: 0 };
    house.does(booked.room.id, conclude).await;
    assert!(house.worker.state(|state| !state.flow && state.facts.is_none()), "the worker has forgotten the room");
    let view = loop {
        let view = next_view(&mut news).await;
        if view.outcome.is_some() {
            break view;
        }
    };
    assert_eq!(view.outcome, Some(Outcome::Refused));
    drop(news);
    eventually("its actor rests", || house.control.shared.rooms.is_empty()).await;
    let originals = house.store.originals(booked.room.id).await.unwrap();
    let files: Vec<_> = originals.iter().map(|stored| stored.original.file.as_str()).collect();
    assert_eq!(files, ["delegante-3.webm", "delegato-2.webm", "operator-1.webm"]);
    assert_eq!(originals[2].participant, callers[0].participant);
}

#[tokio::test]
async fn slots_are_told_to_their_receiver_alone_and_again_to_who_subscribes_late() {
    let house = House::new().await;
    let (_, callers, connections) = house.go_live().await;
    let mut other = house.control.subscribe(&callers[0]).await.unwrap();
    next_view(&mut other).await;
    let slot = sfu::Slot { mid: "3".into(), participant: callers[0].participant, source: Source::Camera };
    house.worker.says(sfu::Fact::Slots { connection: connections[1], slots: vec![slot] }).await;
    house.does(callers[0].room, Command::SetFeature { feature: Feature::Documents, on: true }).await;
    house.sees(&callers[0], "the feature", |view| view.features.contains(&Feature::Documents)).await;
    let mut own = house.control.subscribe(&callers[1]).await.unwrap();
    next_view(&mut own).await;
    let message = own.next().await.unwrap();
    let SessionEvent::Slots { connection, slots } = message.event else { panic!("{message:?}") };
    assert_eq!((connection, slots[0].mid.as_str()), (connections[1], "3"));
    assert!(matches!(other.next().await.unwrap().event, SessionEvent::Session { .. }), "not the others");
}

#[tokio::test]
async fn only_the_owner_of_a_connection_may_end_it() {
    let house = House::new().await;
    let (_, callers, connections) = house.go_live().await;
    assert!(matches!(house.control.disconnect(&callers[0], connections[1]).await, Err(Error::UnknownConnection)));
    assert!(matches!(
        house.control.restart_ice(&callers[0], connections[1], String::new()).await,
        Err(Error::UnknownConnection)
    ));
    house.control.disconnect(&callers[1], connections[1]).await.unwrap();
    assert_eq!(house.worker.state(|state| state.ended.clone()), [connections[1]]);
}

#[tokio::test]
async fn a_shutdown_finishes_the_originals_and_the_room_goes_on_at_the_next_start() {
    let house = House::new().await;
    let (booked, callers, _) = house.go_live().await;
    let mut news = house.control.subscribe(&callers[1]).await.unwrap();
    house.control.shutdown().await;
    assert_eq!(house.store.originals(booked.room.id).await.unwrap().len(), 3);
    let end = loop {
        if let Err(end) = news.next().await {
            break end;
        }
    };
    assert_eq!(end, SubscriptionEnd::ShuttingDown);
    assert!(matches!(house.control.room(booked.room.id).await, Err(Error::Unavailable(_))));
    let house = house.restart().await;
    let room = house.control.room(booked.room.id).await.unwrap();
    assert_eq!(room.phase, Phase::Suspended);
    assert!(room.participants.iter().all(|person| !person.connected));
    for caller in &callers {
        house.send_media(caller).await;
    }
    house.sees(&callers[0], "live again", |view| view.flow).await;
}

/// A time long ago on the node's clock: what matters here is that it is not in the future.
fn house_time() -> crate::clock::MonoTime {
    crate::clock::MonoTime::from_millis(1)
}

#[tokio::test]
async fn a_room_is_recorded_under_one_key_which_is_kept_wrapped_and_outlives_the_process() {
    let house = House::new().await;
    let booked = house.book().await;
    let room = booked.room.id;
    assert_eq!(house.store.recording_key(room).await.unwrap(), RecordingKey::None, "not before media opens");
    let callers = house.gather(&booked).await;
    house.send_media(&callers[0]).await;
    let key = house.disk.state(|state| state.keys.clone()).remove(0).unwrap();
    let RecordingKey::Wrapped(kept) = house.store.recording_key(room).await.unwrap() else { panic!("not kept") };
    assert!(!kept.contains(&hex::encode(key.expose())) && kept.parse::<WrappedKey>().is_ok());
    let house = house.restart().await;
    house.send_media(&callers[0]).await;
    let again = house.disk.state(|state| state.keys.clone()).remove(0).unwrap();
    assert_eq!(again.expose(), key.expose());
    assert_eq!(house.store.recording_key(room).await.unwrap(), RecordingKey::Wrapped(kept));
}

#[tokio::test]
async fn without_its_key_a_room_gets_no_media() {
    let house = House::new().await;
    let booked = house.book().await;
    let room = booked.room.id;
    assert!(house.store.put_recording_key(room, "00000000:AAAA").await.unwrap());
    let callers = house.gather(&booked).await;
    let refused = house.control.connect(&callers[0], "offer".into()).await;
    assert!(matches!(refused, Err(Error::Unavailable(Fault::RecordingKey(KeyError::UnknownKek(_))))), "{refused:?}");
    house.store.destroy_recording_key(room, Clock::new().now().wall).await.unwrap();
    let refused = house.control.connect(&callers[0], "offer".into()).await;
    assert!(matches!(refused, Err(Error::Unavailable(Fault::RecordingKeyDestroyed))), "{refused:?}");
    assert_eq!(house.worker.state(|state| (state.opened, state.joins.len())), (0, 0));
}

#[tokio::test]
async fn a_recording_that_a_crash_cut_is_kept_and_told_once_however_often_it_is_found() {
    let house = House::new().await;
    let (booked, _, connections) = house.go_live().await;
    let room = booked.room.id;
    let house = house.restart().await;
    let original = |file: &str, clusters| Original {
        file: file.into(),
        sources: vec![Source::Microphone, Source::Camera],
        bytes: 5_000,
        clusters,
        duration_ms: 4_200,
        chain_head: "11".repeat(32),
    };
    let cut = OriginalEnd::Cut { tail_bytes: 77, lost_from: Clock::new().now().wall };
    let found = vec![
        RecoveredOriginal { room, connection: connections[1], original: original("delegato-1.webm", 4), end: cut },
        RecoveredOriginal {
            room,
            connection: connections[2],
            original: original("delegante-1.webm", 5),
            end: OriginalEnd::Regular,
        },
    ];
    for _ in 0..2 {
        house.control.take_recovered(found.clone()).await;
    }
    let kept = house.store.originals(room).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|kept| (kept.original.file.as_str(), kept.connection)).collect();
    assert_eq!(kept, [("delegante-1.webm", connections[2]), ("delegato-1.webm", connections[1])]);
    let ledger = house.store.ledger(room).await.unwrap();
    let told: Vec<_> = ledger.iter().filter(|line| matches!(line.event, Event::RecordingRecovered { .. })).collect();
    let wanted = Event::RecordingRecovered {
        participant: booked.room.participants[1].id,
        connection: connections[1],
        file: "delegato-1.webm".into(),
        until_ms: 4_200,
        tail_bytes: 77,
    };
    assert_eq!(told.iter().map(|line| &line.event).collect::<Vec<_>>(), [&wanted]);
    assert!(ledger::verify(&ledger).is_ok());
    // Of a connection or a room that nobody knows nothing is written down.
    let stranger = RecoveredOriginal { connection: connections[0], ..found[0].clone() };
    let elsewhere = RecoveredOriginal { room: crate::id::RoomId::new(Clock::new().now().wall), ..stranger };
    house.control.take_recovered(vec![elsewhere]).await;
    assert_eq!(house.store.originals(room).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_room_is_not_opened_where_it_would_cost_the_others_and_one_that_is_open_stays() {
    let house = House::new().await;
    let booked = house.book().await;
    let operator = house.admit_by_code(&booked.participants[0]).await;
    let (room, participant) = (booked.room.id, operator.participant);
    house.does(room, Command::Consent { participant, text_version: super::NOTICE.into() }).await;
    house.does(room, Command::EnterWaiting { participant }).await;
    house.worker.state(|state| state.full = true);
    assert!(matches!(house.control.command(room, Command::Open, None).await, Err(Error::Full)));
    assert_eq!((house.worker.state(|state| state.opened), house.disk.state(|state| state.reserved.len())), (0, 0));

    house.worker.state(|state| state.full = false);
    house.does(room, Command::Open).await;
    house.worker.state(|state| state.full = true);
    house.does(room, Command::Open).await;
    assert!(house.control.session_view(&operator).await.unwrap().opened);
}
