//! A day at the counters, told once and lived on both databases: the real binary over its HTTP API, with real
//! microphones and cameras.

#![expect(clippy::large_futures, reason = "a whole day is one future, made once")]

mod room;
mod words;

use crate::database::Database;
use room::Room;
use words::{Day, pass, seconds};

const HALF_AN_HOUR: u64 = 1_800;

#[tokio::test(flavor = "multi_thread")]
async fn a_day_at_the_counters_with_sqlite() {
    a_day_at_the_counters(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_at_the_counters_with_postgresql() {
    a_day_at_the_counters(Database::Postgres).await;
}

async fn a_day_at_the_counters(database: Database) {
    let day = Day::begins(database).await;

    // The morning: all counters are busy at the same time.
    let (granted, (), (), (), (), (), (), (), (), ()) = tokio::join!(
        a_late_delegante_mistypes_her_code_three_times_and_the_delegation_is_granted(&day),
        a_delegante_sits_beside_the_delegato_on_one_device(&day),
        a_camera_may_be_off_for_nine_seconds_but_not_for_eleven(&day),
        the_operators_network_is_lost_and_she_comes_back_without_a_code(&day),
        nobody_comes(&day),
        a_room_is_moved_while_someone_waits(&day),
        a_room_is_cancelled_while_someone_waits(&day),
        another_delegante_comes_in_place_of_the_one_who_was_booked(&day),
        a_second_device_takes_over_only_when_told_to(&day),
        the_booking_systems_receiver_is_down_for_a_while(&day),
    );
    granted.proof_of_the_delegation_is_told().await;

    // Noon: rooms in every phase, and the power goes.
    let noon = Noon::comes(&day, granted).await;
    day.server_is_killed_and_comes_back_after(seconds(3)).await;
    noon.has_passed_and_every_room_goes_on(&day).await;

    // The evening: what is written holds, and was told.
    day.every_recording_verifies().await;
    day.every_ledger_verifies().await;
    day.every_webhook_arrives().await;
    day.a_webhook_can_be_replayed().await;
    day.ends().await;
}

async fn a_late_delegante_mistypes_her_code_three_times_and_the_delegation_is_granted(day: &Day) -> Room<'_> {
    let mut room = day.delega(seconds(HALF_AN_HOUR)).await;
    room.operator_opens().await;
    room.comes_in("delegato").await;
    room.stays("waiting", seconds(2)).await;
    room.nothing_flows().await;

    for attempts_left in [4, 3, 2] {
        room.mistypes("delegante", attempts_left).await;
    }
    room.comes_in("delegante").await;
    room.becomes("live").await;

    let problem = room.operator_may_not_conclude("granted", "presence-too-short").await;
    let seconds_left = problem["seconds_left"].as_u64().unwrap();
    assert!((1..=5).contains(&seconds_left), "{problem}");
    room.operator_may_not_conclude("served", "outcome-not-allowed").await;
    room.all_see_and_hear_each_other().await;
    pass(seconds(seconds_left)).await;
    room.operator_concludes("granted", 72).await;

    room.is("extended").await;
    room.has_outcome("granted").await;
    assert!((room.extension_hours().await - 72.0).abs() < 0.01);
    room.nothing_flows().await;
    room
}

async fn a_delegante_sits_beside_the_delegato_on_one_device(day: &Day) {
    let mut room = day.delega(seconds(HALF_AN_HOUR)).await;
    room.operator_opens().await;
    room.comes_in("delegato").await;
    room.is("waiting").await;
    room.operator_attests("delegante", "delegato").await;
    room.becomes("live").await;
    room.all_see_and_hear_each_other().await;

    room.operator_withdraws_attestation("delegante").await;
    room.stays("live", seconds(8)).await;
    room.becomes("suspended").await;
    room.nothing_flows().await;
    room.operator_may_not_conclude("granted", "presence-missing").await;

    room.operator_attests("delegante", "delegato").await;
    room.becomes("live").await;
    room.all_see_and_hear_each_other().await;
    pass(seconds(5)).await;
    room.operator_concludes("granted", 0).await;
    room.becomes("closed").await;
    room.has_outcome("granted").await;
    assert_eq!(room.times_told("attested").await, 2);
    assert_eq!(room.times_told("attestation_withdrawn").await, 1);
}

async fn a_camera_may_be_off_for_nine_seconds_but_not_for_eleven(day: &Day) {
    let mut room = day.delega(seconds(HALF_AN_HOUR)).await;
    room.operator_opens().await;
    room.comes_in("delegato").await;
    room.comes_in("delegante").await;
    room.becomes("live").await;

    room.camera_goes_off("delegante");
    room.stays("live", seconds(9)).await;
    room.camera_comes_on("delegante");
    room.stays("live", seconds(3)).await;
    assert_eq!(room.times_told("presence_broken").await, 0);

    room.camera_goes_off("delegante");
    pass(seconds(11)).await;
    room.becomes("suspended").await;
    assert_eq!(room.seen_by("delegato").await["missing"][0], "delegante");
    room.nothing_flows().await;
    room.camera_comes_on("delegante");
    room.becomes("live").await;
    room.all_see_and_hear_each_other().await;
    assert_eq!(room.times_told("presence_broken").await, 1);

    // This time it stays off, and nobody can wait for ever.
    room.camera_goes_off("delegante");
    room.becomes_within("closed", seconds(25)).await;
    room.has_outcome("incomplete").await;
}

async fn the_operators_network_is_lost_and_she_comes_back_without_a_code(day: &Day) {
    let mut room = day.videochiamata(seconds(HALF_AN_HOUR)).await;
    room.operator_opens().await;
    room.comes_in("citizen").await;
    room.becomes("live").await;
    room.all_see_and_hear_each_other().await;

    room.network_is_lost("operator");
    room.stays("live", seconds(8)).await;
    room.becomes("suspended").await;
    room.nothing_flows().await;
    room.connects("operator").await;
    room.becomes("live").await;
    room.all_see_and_hear_each_other().await;

    // A shorter one is hardly noticed.
    room.network_is_lost("citizen");
    room.stays("live", seconds(3)).await;
    room.connects("citizen").await;
    room.stays("live", seconds(2)).await;
    room.all_see_and_hear_each_other().await;
    room.operator_concludes("served", 0).await;
    room.becomes("closed").await;
    room.has_outcome("served").await;
    assert_eq!(room.times_told("code_accepted").await, 2, "one code each");
}

async fn nobody_comes(day: &Day) {
    let room = day.videochiamata(seconds(4)).await;
    room.is("waiting").await;
    room.becomes("expired").await;
    room.code_is_refused("citizen", 403, "too-late").await;
}

async fn a_room_is_moved_while_someone_waits(day: &Day) {
    let mut room = day.delega(seconds(HALF_AN_HOUR)).await;
    room.waits("delegato").await;
    let mut page = room.events_of("delegato").await;

    // Admission opens a quarter of an hour before the start.
    let opens_in = jiff::SignedDuration::from_secs(6);
    let start = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(15) + opens_in;
    room.is_moved_to(start).await;
    assert_eq!(page.closed().await, 4401, "who waited is sent away");
    room.session_is_over("delegato").await;
    room.is("scheduled").await;
    room.code_is_refused("delegato", 403, "too-early").await;

    room.becomes("waiting").await;
    room.waits("delegato").await;
    assert_eq!(room.seen_by("delegato").await["place"], "waiting");
}

async fn a_room_is_cancelled_while_someone_waits(day: &Day) {
    let mut room = day.delega(seconds(HALF_AN_HOUR)).await;
    room.waits("delegante").await;
    let mut page = room.events_of("delegante").await;
    room.is_cancelled().await;
    page.session("cancelled", |session| session["phase"] == "cancelled").await;
    room.code_is_refused("delegato", 409, "wrong-phase").await;
}

async fn another_delegante_comes_in_place_of_the_one_who_was_booked(day: &Day) {
    let mut room = day.delega(seconds(HALF_AN_HOUR)).await;
    room.operator_opens().await;
    room.comes_in("delegato").await;
    room.waits("delegante").await;
    let mut page = room.events_of("delegante").await;
    let (before, old_id) = (room.invitation("delegante"), room.id("delegante"));

    room.is_replaced("delegante", "Ottavia Serristori").await;
    assert_eq!(page.closed().await, 4401);
    assert_ne!(room.id("delegante"), old_id);
    room.old_invitation_is_refused(&before, 404, "unknown-link").await;
    room.comes_in("delegante").await;
    room.becomes("live").await;
    room.all_see_and_hear_each_other().await;
    let people = room.view().await["participants"].clone();
    assert_eq!(people[2]["name"], "Ottavia Serristori", "she stands where the other stood: {people}");
    room.operator_concludes("refused", 24).await;

    assert!((room.extension_hours().await - 24.0).abs() < 0.01);
    room.operator_extends(72).await;
    assert!((room.extension_hours().await - 72.0).abs() < 0.01, "hours count from the conclusion");
    room.operator_may_not_extend(73, "extension-too-long").await;
    room.is("extended").await;
}

async fn a_second_device_takes_over_only_when_told_to(day: &Day) {
    let mut room = day.videochiamata(seconds(HALF_AN_HOUR)).await;
    room.operator_opens().await;
    room.comes_in("citizen").await;
    room.becomes("live").await;
    let mut page = room.events_of("citizen").await;

    room.code_is_refused("citizen", 409, "other-device").await;
    room.all_see_and_hear_each_other().await;
    room.takes_over("citizen").await;
    assert_eq!(page.closed().await, 4401, "the first device is told");
    room.connects("citizen").await;
    room.all_see_and_hear_each_other().await;
    room.is("live").await;
    room.operator_concludes("incomplete", 0).await;
    room.becomes("closed").await;
}

async fn the_booking_systems_receiver_is_down_for_a_while(day: &Day) {
    pass(seconds(3)).await;
    day.receiver.goes_down();
    pass(seconds(9)).await;
    day.receiver.comes_back();
}

/// Rooms in every phase at one moment.
struct Noon<'d> {
    granted: Room<'d>,
    live: Room<'d>,
    waiting: Room<'d>,
    locked: Room<'d>,
    nobody: Room<'d>,
    extension_until: serde_json::Value,
}

impl<'d> Noon<'d> {
    async fn comes(day: &'d Day, granted: Room<'d>) -> Self {
        let live = async {
            let mut room = day.delega(seconds(HALF_AN_HOUR)).await;
            room.operator_opens().await;
            room.comes_in("delegato").await;
            room.operator_attests("delegante", "delegato").await;
            room.becomes("live").await;
            room.all_see_and_hear_each_other().await;
            room
        };
        let waiting = async {
            let mut room = day.delega(seconds(HALF_AN_HOUR)).await;
            room.mistypes("delegante", 4).await;
            room.mistypes("delegante", 3).await;
            room.types_the_code("delegato").await;
            room.consents("delegato").await;
            room.operator_opens().await;
            room
        };
        let locked = async {
            let room = day.videochiamata(seconds(HALF_AN_HOUR)).await;
            for attempts_left in [4, 3, 2, 1, 0] {
                room.mistypes("citizen", attempts_left).await;
            }
            room
        };
        let (live, waiting, locked) = tokio::join!(live, waiting, locked);
        let nobody = day.videochiamata(seconds(2)).await;
        let extension_until = granted.seen_by("operator").await["extension_until"].clone();
        Self { granted, live, waiting, locked, nobody, extension_until }
    }

    async fn has_passed_and_every_room_goes_on(self, _: &Day) {
        let Self { granted, mut live, mut waiting, locked, nobody, extension_until } = self;

        granted.is("extended").await;
        granted.has_outcome("granted").await;
        assert_eq!(granted.seen_by("operator").await["extension_until"], extension_until);

        nobody.becomes("expired").await;
        locked.code_is_refused("citizen", 403, "code-locked").await;

        let in_the_live_room = async {
            live.connects("operator").await;
            live.connects("delegato").await;
            live.becomes("live").await;
            live.all_see_and_hear_each_other().await;
            // The attestation still stands; the second before the crash may not be on disk.
            pass(seconds(5)).await;
            live.operator_may_not_conclude("granted", "recording-incomplete").await;
            live.operator_concludes("incomplete", 0).await;
            live.becomes("closed").await;
            assert_eq!(live.times_told("attested").await, 1);
        };
        let in_the_waiting_room = async {
            waiting.mistypes("delegante", 2).await;
            assert!(!waiting.seen_by("delegato").await["consent"].is_null(), "consent is not asked again");
            waiting.enters("delegato").await;
            waiting.operator_admits("delegato").await;
            waiting.connects("operator").await;
            waiting.connects("delegato").await;
            waiting.comes_in("delegante").await;
            waiting.becomes("live").await;
            waiting.all_see_and_hear_each_other().await;
            pass(seconds(5)).await;
            waiting.operator_concludes("granted", 0).await;
            waiting.becomes("closed").await;
            waiting.has_outcome("granted").await;
        };
        tokio::join!(in_the_live_room, in_the_waiting_room);
    }
}
