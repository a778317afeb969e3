//! What the store promises, each as a sentence: one contract, held on SQLite and on PostgreSQL.
//!
//! `SPORTELLO_TEST_POSTGRES` names a PostgreSQL server whose user may create databases: `bash .ci/postgres cargo
//! nextest run` starts one. Without it those tests say so and fail.

use jiff::{SignedDuration, Timestamp};
use sqlx::{AnyPool, AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::audit::{self, Access, Action};
use crate::clock::{MonoTime, Now};
use crate::id::{AccessId, JobId, KeyId, MessageId, ParticipantId, RoomId};
use crate::room::ledger::{self, Head, Line};
use crate::room::{Entry, Event, Outcome, Phase, Profile, Role};

#[derive(Clone, Copy)]
enum On {
    Sqlite,
    Postgres,
}

/// A database of a test's own.
struct Place {
    url: String,
    held: Held,
}

enum Held {
    Folder(TempDir),
    Database(String),
}

impl Place {
    async fn new(on: On) -> Self {
        match on {
            On::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = folder.path().join("a store's file.db").display().to_string();
                Self { url, held: Held::Folder(folder) }
            }
            On::Postgres => {
                let name = format!("store_{}", Uuid::now_v7().simple());
                let server = server();
                let mut connection = PgConnection::connect(&server).await.expect("SPORTELLO_TEST_POSTGRES answers");
                let make = format!("CREATE DATABASE {name}");
                sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut connection).await.unwrap();
                let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
                Self { url, held: Held::Database(name) }
            }
        }
    }

    /// Someone with the database's password, or the file, and a tool.
    async fn intruder(&self) -> AnyPool {
        match &self.held {
            Held::Folder(folder) => {
                let file = folder.path().join("a%20store's%20file.db");
                AnyPool::connect(&format!("sqlite://{}", file.display())).await.unwrap()
            }
            Held::Database(_) => AnyPool::connect(&self.url).await.unwrap(),
        }
    }

    /// PostgreSQL keeps what it is not told to drop.
    async fn gone(self) {
        if let Held::Database(name) = &self.held {
            let mut connection = PgConnection::connect(&server()).await.unwrap();
            let drop = format!("DROP DATABASE {name} WITH (FORCE)");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
        }
    }
}

fn server() -> String {
    std::env::var("SPORTELLO_TEST_POSTGRES")
        .expect("SPORTELLO_TEST_POSTGRES names no server: run the tests by `bash .ci/postgres cargo nextest run`")
}

/// Each sentence becomes two tests.
macro_rules! contract {
    ($($sentence:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $sentence() {
                super::held(super::On::Sqlite, async |kept| super::$sentence(kept).await).await;
            })*
        }
        mod on_postgresql {
            $(#[tokio::test]
            async fn $sentence() {
                super::held(super::On::Postgres, async |kept| super::$sentence(kept).await).await;
            })*
        }
    };
}

contract! {
    what_was_booked_is_read_again_after_a_restart
    ledger_lines_are_read_back_as_they_were_written
    a_ledger_is_continued_where_it_stands_or_not_at_all
    the_ledger_cannot_be_changed_even_by_a_mistake_of_ours
    a_ledger_that_was_tampered_with_is_not_read
    entries_and_the_rows_that_belong_to_them_are_written_together_or_not_at_all
    a_person_has_one_open_session
    sessions_lapse_an_hour_after_their_room_has_ended
    somebody_else_takes_a_persons_place_and_their_link_is_void
    many_rooms_are_written_at_once_without_getting_in_each_others_way
    rooms_are_listed_by_start_page_by_page_without_gap_or_repetition
    rooms_are_found_by_what_is_known_of_them
    the_last_place_is_given_once
    a_repeated_request_is_answered_as_the_first_time_and_only_for_a_day
    keys_are_listed_and_revoked_once
    of_each_room_only_the_oldest_webhook_goes_out
    a_failed_message_waits_and_a_parked_one_lets_the_next_pass
    a_webhook_is_replayed_before_the_later_ones_of_its_room
    a_text_messages_body_is_erased_once_it_is_settled
    a_new_code_takes_the_place_of_a_text_message_that_waits
    text_messages_that_wait_follow_their_room
    delivered_webhooks_are_forgotten_after_a_month
    a_database_belongs_to_one_key
    a_room_has_one_recording_key_and_none_after_it_was_destroyed
    a_recorded_room_is_sealed_by_one_at_a_time_and_again_when_that_failed
    recordings_are_found_by_date_place_room_and_fiscal_code_newest_first
    recordings_are_destroyed_when_their_time_has_come_and_nobody_holds_them
    the_audit_is_one_chain_however_many_write_to_it
    the_audit_cannot_be_changed_even_by_a_mistake_of_ours
    an_audit_that_was_tampered_with_is_found
    an_access_opens_one_room_for_a_while
    jobs_are_done_in_turn_and_begun_anew_after_a_restart
}

struct Kept {
    place: Place,
    store: Store,
    appointment: Appointment,
}

async fn held(on: On, sentence: impl AsyncFnOnce(&Kept)) {
    let place = Place::new(on).await;
    let store = Store::open(&place.url).await.unwrap();
    let appointment = appointment();
    book(&store, &appointment).await.unwrap();
    let kept = Kept { place, store, appointment };
    sentence(&kept).await;
    kept.store.close().await;
    kept.place.gone().await;
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap()
}

fn entry(event: Event) -> Entry {
    Entry::at(Now { mono: MonoTime::from_millis(5), wall: now() }, event)
}

fn person(role: Role) -> Person {
    Person {
        id: ParticipantId::new(now()),
        role,
        name: Personal::from("Maria Rossi"),
        fiscal_code: Some(Personal::from("RSSMRA80A41H501W")),
        phone: None,
        operator_number: None,
        language: Some(Language::De),
        link: Hash::of_token(&Uuid::now_v7().to_string()),
        code: Hash::of_token("402913"),
        session: None,
    }
}

fn appointment() -> Appointment {
    let start = now();
    Appointment {
        id: RoomId::new(start),
        profile: Profile::shipped().remove(0),
        office: "Roma".into(),
        counter: "Deleghe".into(),
        reason: "Delega".into(),
        reference: Some("PRN-1".into()),
        start,
        end: start + SignedDuration::from_mins(30),
        people: [Role::Operator, Role::Delegato].map(person).into(),
        documents: Vec::new(),
    }
}

/// The appointment so many minutes later.
fn later(minutes: i64) -> Appointment {
    let mut appointment = appointment();
    appointment.start += SignedDuration::from_mins(minutes);
    appointment.end += SignedDuration::from_mins(minutes);
    appointment
}

fn first_line(appointment: &Appointment) -> Line {
    let booked = Event::Booked {
        room: appointment.id,
        profile: appointment.profile.name.clone(),
        start: appointment.start,
        end: appointment.end,
        participants: appointment.people.iter().map(|person| (person.id, person.role)).collect(),
    };
    ledger::chain(&Head::empty(), &entry(booked))
}

async fn book(store: &Store, appointment: &Appointment) -> Result<Booked, Error> {
    book_with(store, appointment, None, None).await
}

async fn book_with(
    store: &Store,
    appointment: &Appointment,
    answer: Option<&Answer>,
    fits: Option<Fits<'_>>,
) -> Result<Booked, Error> {
    let lines = [first_line(appointment)];
    let (phase, at) = (Phase::Scheduled, now());
    store.book(&NewRoom { appointment, lines: &lines, phase, at, messages: &[], answer, fits }).await
}

impl Kept {
    async fn record(&self, events: &[Event], changes: &[Change]) -> Result<(), Error> {
        self.record_in(Phase::Waiting, events, changes, &[], now()).await
    }

    async fn post(&self, messages: &[NewMessage]) {
        self.record_in(Phase::Waiting, &[], &[], messages, now()).await.unwrap();
    }

    async fn record_in(
        &self,
        phase: Phase,
        events: &[Event],
        changes: &[Change],
        messages: &[NewMessage],
        at: Timestamp,
    ) -> Result<(), Error> {
        let room = self.appointment.id;
        let mut head = self.store.ledger(room).await.unwrap().last().unwrap().head();
        let mut lines = Vec::new();
        for event in events {
            let line = ledger::chain(&head, &entry(event.clone()));
            head = line.head();
            lines.push(line);
        }
        let outcome = (phase == Phase::Closed).then_some(Outcome::Granted);
        self.store.record(&Record { room, lines: &lines, phase, outcome, changes, messages, fits: None, at }).await
    }

    fn message(&self, kind: MessageKind, subject: &str) -> NewMessage {
        NewMessage {
            id: MessageId::new(now()),
            kind,
            room: self.appointment.id,
            participant: (kind == MessageKind::Sms).then_some(self.appointment.people[0].id),
            subject: subject.into(),
            body: b"{}".to_vec(),
            give_up: now() + SignedDuration::from_hours(72),
        }
    }

    async fn due(&self, kind: MessageKind) -> Vec<String> {
        let due = self.store.due_messages(kind, Timestamp::now(), 10).await.unwrap();
        due.into_iter().map(|message| message.subject).collect()
    }
}

async fn what_was_booked_is_read_again_after_a_restart(kept: &Kept) {
    let Kept { place, store, appointment } = kept;
    store.close().await;
    let store = Store::open(&place.url).await.unwrap();
    let read = store.appointment(appointment.id).await.unwrap().unwrap();
    assert_eq!(format!("{read:?}"), format!("{appointment:?}"));
    assert_eq!(read.people[0].name, appointment.people[0].name);
    assert_eq!(read.people[1].code, appointment.people[1].code);
    assert_eq!(store.unfinished().await.unwrap(), [appointment.id]);
    let owner = store.link_owner(appointment.people[1].link).await.unwrap().unwrap();
    assert_eq!((owner.participant, owner.role), (appointment.people[1].id, Role::Delegato));
    store.close().await;
}

async fn ledger_lines_are_read_back_as_they_were_written(kept: &Kept) {
    kept.record(&[Event::AdmissionOpened, Event::Opened], &[]).await.unwrap();
    let lines = kept.store.ledger(kept.appointment.id).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(lines[0].event, first_line(&kept.appointment).event);
    assert_eq!(lines[2].event, Event::Opened);
    assert_eq!(lines[2].prev, lines[1].hash);
    assert!(kept.store.ledger(RoomId::new(now())).await.unwrap().is_empty());
}

async fn a_ledger_is_continued_where_it_stands_or_not_at_all(kept: &Kept) {
    let room = kept.appointment.id;
    let head = kept.store.ledger(room).await.unwrap()[0].head();
    kept.record(&[Event::AdmissionOpened], &[]).await.unwrap();
    let lines = [ledger::chain(&head, &entry(Event::Cancelled))];
    let record = Record {
        room,
        lines: &lines,
        phase: Phase::Cancelled,
        outcome: None,
        changes: &[],
        messages: &[],
        fits: None,
        at: now(),
    };
    assert!(matches!(kept.store.record(&record).await, Err(Error::Outrun)));
    assert_eq!(kept.store.ledger(room).await.unwrap()[1].event, Event::AdmissionOpened);
}

async fn the_ledger_cannot_be_changed_even_by_a_mistake_of_ours(kept: &Kept) {
    let pool = kept.place.intruder().await;
    for statement in ["UPDATE ledger SET event = '{}'", "DELETE FROM ledger"] {
        let refused = sqlx::query(statement).execute(&pool).await;
        assert!(refused.unwrap_err().to_string().contains("append-only"), "{statement}");
    }
}

async fn a_ledger_that_was_tampered_with_is_not_read(kept: &Kept) {
    kept.record(&[Event::AdmissionOpened, Event::Opened], &[]).await.unwrap();
    let pool = kept.place.intruder().await;
    let on_table = if matches!(kept.place.held, Held::Database(_)) { " ON ledger" } else { "" };
    let drop = format!("DROP TRIGGER ledger_keeps_its_lines{on_table}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await.unwrap();
    sqlx::query("UPDATE ledger SET event = '{\"type\":\"expired\"}' WHERE seq = 2").execute(&pool).await.unwrap();
    assert!(matches!(kept.store.ledger(kept.appointment.id).await, Err(Error::Corrupt("ledger"))));
}

async fn entries_and_the_rows_that_belong_to_them_are_written_together_or_not_at_all(kept: &Kept) {
    let stranger = ParticipantId::new(now());
    let session = Change::SessionStarted { participant: stranger, token: Hash::of_token("t") };
    let failed = kept.record(&[Event::AdmissionOpened], &[session]).await;
    assert!(matches!(failed, Err(Error::Database(_))), "the session's person does not exist: {failed:?}");
    assert_eq!(kept.store.ledger(kept.appointment.id).await.unwrap().len(), 1, "so the entry is not there either");
}

async fn a_person_has_one_open_session(kept: &Kept) {
    let participant = kept.appointment.people[0].id;
    let (first, second) = (Hash::of_token("first"), Hash::of_token("second"));
    kept.record(&[], &[Change::SessionStarted { participant, token: first }]).await.unwrap();
    assert_eq!(kept.store.session_owner(first, now()).await.unwrap().unwrap().participant, participant);
    kept.record(&[], &[Change::SessionStarted { participant, token: second }]).await.unwrap();
    assert_eq!(kept.store.session_owner(first, now()).await.unwrap(), None);
    let read = kept.store.appointment(kept.appointment.id).await.unwrap().unwrap();
    assert_eq!(read.people[0].session, Some(second));
    kept.record(&[], &[Change::SessionEnded { participant }]).await.unwrap();
    assert_eq!(kept.store.session_owner(second, now()).await.unwrap(), None);
}

async fn sessions_lapse_an_hour_after_their_room_has_ended(kept: &Kept) {
    let participant = kept.appointment.people[0].id;
    let (token, end) = (Hash::of_token("t"), now());
    kept.record(&[], &[Change::SessionStarted { participant, token }]).await.unwrap();
    kept.record_in(Phase::Closed, &[Event::Closed], &[], &[], end).await.unwrap();
    let after = |minutes| kept.store.session_owner(token, end + SignedDuration::from_mins(minutes));
    assert!(after(59).await.unwrap().is_some(), "the page still says how it ended");
    assert!(after(61).await.unwrap().is_none());
}

async fn somebody_else_takes_a_persons_place_and_their_link_is_void(kept: &Kept) {
    let (old, by) = (&kept.appointment.people[0], person(Role::Operator));
    for (participant, by) in [(old.id, by.clone()), (by.id, person(Role::Operator))] {
        let replaced = Event::Replaced { participant, by: by.id };
        kept.record(&[replaced], &[Change::Replaced { participant, by: Box::new(by.clone()) }]).await.unwrap();
        let read = kept.store.appointment(kept.appointment.id).await.unwrap().unwrap();
        assert_eq!(read.people[0].id, by.id, "at the same place");
        assert_eq!(read.people.len(), 2);
    }
    assert_eq!(kept.store.link_owner(old.link).await.unwrap(), None);
}

async fn many_rooms_are_written_at_once_without_getting_in_each_others_way(kept: &Kept) {
    let written = (0..20).map(|_| {
        let store = kept.store.clone();
        tokio::spawn(async move {
            let appointment = appointment();
            book(&store, &appointment).await?;
            let head = first_line(&appointment).head();
            assert_ne!(head.hash, Head::empty().hash);
            store.ledger(appointment.id).await.map(|lines| lines.len())
        })
    });
    for written in written.collect::<Vec<_>>() {
        assert_eq!(written.await.unwrap().unwrap(), 1);
    }
    assert_eq!(kept.store.unfinished().await.unwrap().len(), 21);
}

async fn rooms_are_listed_by_start_page_by_page_without_gap_or_repetition(kept: &Kept) {
    let mut booked = vec![kept.appointment.id];
    // Pairs that begin at the same time.
    let base = later(1);
    for number in 0..7 {
        let mut appointment = appointment();
        appointment.start = base.start + SignedDuration::from_mins(number / 2);
        appointment.end = appointment.start + SignedDuration::from_mins(30);
        book(&kept.store, &appointment).await.unwrap();
        booked.push(appointment.id);
    }
    let mut listed = Vec::new();
    let mut filter = RoomFilter { limit: 3, ..RoomFilter::default() };
    loop {
        let page = kept.store.rooms(&filter).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some((last.start, last.id));
        assert!(page.is_sorted_by_key(|room| (room.start, room.id)));
        assert!(page.iter().all(|room| room.people.len() == 2 && room.people[0].1 == Role::Operator));
        listed.extend(page.iter().map(|room| room.id));
    }
    listed.sort_unstable();
    booked.sort_unstable();
    assert_eq!(listed, booked);
}

async fn rooms_are_found_by_what_is_known_of_them(kept: &Kept) {
    let mut other = later(60);
    other.office = "Milano".into();
    other.counter = "Pensioni".into();
    other.reference = None;
    other.profile = Profile::shipped().remove(1);
    book(&kept.store, &other).await.unwrap();
    kept.record_in(Phase::Closed, &[Event::Closed], &[], &[], now()).await.unwrap();
    let all = RoomFilter { limit: 10, ..RoomFilter::default() };
    let between = other.start;
    let cases = [
        (RoomFilter { office: Some("Milano".into()), ..all.clone() }, other.id),
        (RoomFilter { counter: Some("Pensioni".into()), ..all.clone() }, other.id),
        (RoomFilter { profile: Some("videochiamata".into()), ..all.clone() }, other.id),
        (RoomFilter { from: Some(between), ..all.clone() }, other.id),
        (RoomFilter { to: Some(between), ..all.clone() }, kept.appointment.id),
        (RoomFilter { phase: Some(Phase::Closed), ..all.clone() }, kept.appointment.id),
        (RoomFilter { reference: Some("PRN-1".into()), ..all.clone() }, kept.appointment.id),
    ];
    for (filter, only) in cases {
        let found = kept.store.rooms(&filter).await.unwrap();
        assert_eq!(found.iter().map(|room| room.id).collect::<Vec<_>>(), [only], "{filter:?}");
    }
    let found = kept.store.rooms(&all).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].outcome, found[1].outcome), (Some(Outcome::Granted), None));
}

async fn the_last_place_is_given_once(kept: &Kept) {
    let asked = (0..8).map(|_| {
        let store = kept.store.clone();
        tokio::spawn(async move {
            let appointment = later(24 * 60);
            let one_place = |taken: &[Taken]| taken.is_empty();
            book_with(&store, &appointment, None, Some(&one_place)).await.unwrap()
        })
    });
    let mut given = 0;
    for asked in asked.collect::<Vec<_>>() {
        given += i32::from(asked.await.unwrap() == Booked::Now);
    }
    assert_eq!(given, 1);
    let there = later(24 * 60);
    assert_eq!(kept.store.taken(there.start, there.end).await.unwrap().len(), 1);
    let after = (there.end + SignedDuration::from_mins(5), there.end + SignedDuration::from_mins(35));
    assert_eq!(kept.store.taken(after.0, after.1).await.unwrap(), []);
    // A room that stays where it is does not stand in its own way.
    let (start, end) = (kept.appointment.start, kept.appointment.end + SignedDuration::from_mins(1));
    let nobody_else = |taken: &[Taken]| taken.is_empty();
    let record = Record {
        room: kept.appointment.id,
        lines: &[],
        phase: Phase::Scheduled,
        outcome: None,
        changes: &[Change::Times { start, end }],
        messages: &[],
        fits: Some(&nobody_else),
        at: now(),
    };
    kept.store.record(&record).await.unwrap();
    let changes = [Change::Times { start: there.start, end: there.end }];
    assert!(matches!(kept.store.record(&Record { changes: &changes, ..record }).await, Err(Error::Full)));
}

async fn a_repeated_request_is_answered_as_the_first_time_and_only_for_a_day(kept: &Kept) {
    let answer = Answer {
        caller: "key:1".into(),
        key: "request 1".into(),
        fingerprint: Hash::of_token("body"),
        sealed: vec![1, 2, 3],
    };
    let (first, second) = (later(10), later(20));
    assert_eq!(book_with(&kept.store, &first, Some(&answer), None).await.unwrap(), Booked::Now);
    let repeated = book_with(&kept.store, &second, Some(&answer), None).await.unwrap();
    assert_eq!(repeated, Booked::Before(answer.clone()));
    assert!(kept.store.appointment(second.id).await.unwrap().is_none(), "nothing was booked");
    assert_eq!(kept.store.answer("key:1", "request 1").await.unwrap(), Some(answer));
    assert_eq!(kept.store.answer("key:2", "request 1").await.unwrap(), None, "names are the caller's own");
    kept.store.purge(now() + SignedDuration::from_hours(23)).await.unwrap();
    assert!(kept.store.answer("key:1", "request 1").await.unwrap().is_some());
    kept.store.purge(now() + SignedDuration::from_hours(25)).await.unwrap();
    assert!(kept.store.answer("key:1", "request 1").await.unwrap().is_none());
}

async fn keys_are_listed_and_revoked_once(kept: &Kept) {
    let (id, hash) = (KeyId::new(now()), Hash::of_token("sportello_booking_x"));
    assert!(
        kept.store
            .add_first_keys(&[(KeyId::new(now()), Hash::of_token("first"), Scope::Operator)], now())
            .await
            .unwrap()
    );
    assert!(
        !kept
            .store
            .add_first_keys(&[(KeyId::new(now()), Hash::of_token("again"), Scope::Operator)], now())
            .await
            .unwrap()
    );
    kept.store.add_key(id, "Prenotazioni", hash, Scope::Booking, now()).await.unwrap();
    assert_eq!(kept.store.key(hash).await.unwrap(), Some((id, Scope::Booking)));
    let keys = kept.store.keys().await.unwrap();
    let key = keys.iter().find(|key| key.id == id).unwrap();
    assert_eq!((keys.len(), key.name.as_str(), key.scope, key.revoked), (2, "Prenotazioni", Scope::Booking, None));
    assert!(kept.store.revoke_key(id, now()).await.unwrap());
    assert!(!kept.store.revoke_key(id, now()).await.unwrap(), "it was not valid any more");
    assert_eq!(kept.store.key(hash).await.unwrap(), None);
}

async fn of_each_room_only_the_oldest_webhook_goes_out(kept: &Kept) {
    let webhook = |subject| kept.message(MessageKind::Webhook, subject);
    kept.post(&[webhook("first"), webhook("second")]).await;
    kept.post(&[webhook("third")]).await;
    let mut sent = Vec::new();
    while let Some(message) = kept.store.due_messages(MessageKind::Webhook, Timestamp::now(), 10).await.unwrap().pop() {
        assert!(kept.store.next_due(MessageKind::Webhook).await.unwrap().unwrap() <= Timestamp::now());
        assert!(kept.store.oldest_pending(MessageKind::Webhook).await.unwrap().is_some());
        sent.push(message.subject);
        kept.store.message_delivered(message.id, now()).await.unwrap();
    }
    assert_eq!(sent, ["first", "second", "third"]);
    assert_eq!(kept.store.next_due(MessageKind::Webhook).await.unwrap(), None);
    assert_eq!(kept.store.oldest_pending(MessageKind::Webhook).await.unwrap(), None);
    let page = kept.store.messages(MessageKind::Webhook, Some(MessageState::Delivered), None, 2).await.unwrap();
    let rest = kept.store.messages(MessageKind::Webhook, None, Some(page[1].id), 2).await.unwrap();
    assert_eq!(rest.iter().map(|message| message.subject.as_str()).collect::<Vec<_>>(), ["third"]);
}

async fn a_failed_message_waits_and_a_parked_one_lets_the_next_pass(kept: &Kept) {
    let messages = ["first", "second"].map(|subject| kept.message(MessageKind::Webhook, subject));
    kept.post(&messages).await;
    let later = now() + SignedDuration::from_mins(5);
    kept.store.message_failed(messages[0].id, now(), "status 503", Some(later)).await.unwrap();
    assert_eq!(kept.due(MessageKind::Webhook).await, [""; 0], "the second waits for the first");
    assert_eq!(kept.store.next_due(MessageKind::Webhook).await.unwrap(), Some(later));
    kept.store.message_failed(messages[0].id, now(), "status 410", None).await.unwrap();
    assert_eq!(kept.due(MessageKind::Webhook).await, ["second"]);
    let parked = kept.store.message(messages[0].id).await.unwrap().unwrap();
    assert_eq!(
        (parked.state, parked.attempts, parked.last_error.as_deref()),
        (MessageState::Parked, 2, Some("status 410"))
    );
}

async fn a_webhook_is_replayed_before_the_later_ones_of_its_room(kept: &Kept) {
    let messages = ["first", "second"].map(|subject| kept.message(MessageKind::Webhook, subject));
    kept.post(&messages).await;
    kept.store.message_failed(messages[0].id, now(), "status 410", None).await.unwrap();
    let give_up = now() + SignedDuration::from_hours(72);
    assert!(kept.store.replay_message(messages[0].id, now(), give_up).await.unwrap());
    assert_eq!(kept.due(MessageKind::Webhook).await, ["first"]);
    assert_eq!(kept.store.message(messages[0].id).await.unwrap().unwrap().attempts, 0);
    let sms = kept.message(MessageKind::Sms, "code");
    kept.post(std::slice::from_ref(&sms)).await;
    assert!(!kept.store.replay_message(sms.id, now(), give_up).await.unwrap(), "codes are re-issued, not replayed");
    assert!(!kept.store.replay_message(MessageId::new(now()), now(), give_up).await.unwrap());
}

async fn a_text_messages_body_is_erased_once_it_is_settled(kept: &Kept) {
    let sms = kept.message(MessageKind::Sms, "code");
    kept.post(std::slice::from_ref(&sms)).await;
    let due = kept.store.due_messages(MessageKind::Sms, Timestamp::now(), 10).await.unwrap();
    assert_eq!((due[0].body.as_slice(), due[0].participant), (&b"{}"[..], sms.participant));
    kept.store.message_delivered(sms.id, now()).await.unwrap();
    assert_eq!(kept.store.message(sms.id).await.unwrap().unwrap().body, b"");
    let webhook = kept.message(MessageKind::Webhook, "room.live");
    kept.post(std::slice::from_ref(&webhook)).await;
    kept.store.message_delivered(webhook.id, now()).await.unwrap();
    assert_eq!(kept.store.message(webhook.id).await.unwrap().unwrap().body, b"{}", "it may be replayed");
}

async fn a_new_code_takes_the_place_of_a_text_message_that_waits(kept: &Kept) {
    let (old, new) = (kept.message(MessageKind::Sms, "code"), kept.message(MessageKind::Sms, "code"));
    kept.post(std::slice::from_ref(&old)).await;
    kept.post(std::slice::from_ref(&new)).await;
    let due = kept.store.due_messages(MessageKind::Sms, Timestamp::now(), 10).await.unwrap();
    assert_eq!(due.iter().map(|message| message.id).collect::<Vec<_>>(), [new.id]);
    let old = kept.store.message(old.id).await.unwrap().unwrap();
    assert_eq!((old.state, old.body.len(), old.last_error.as_deref()), (MessageState::Parked, 0, Some("superseded")));
}

async fn text_messages_that_wait_follow_their_room(kept: &Kept) {
    let (moved, replaced) = (kept.message(MessageKind::Sms, "code"), kept.message(MessageKind::Sms, "code"));
    let state = async |id| {
        let message = kept.store.message(id).await.unwrap().unwrap();
        (message.state, message.give_up, message.body.len())
    };
    kept.post(std::slice::from_ref(&moved)).await;
    let (start, end) = (now() + SignedDuration::from_hours(240), now() + SignedDuration::from_hours(241));
    kept.record(&[], &[Change::Times { start, end }]).await.unwrap();
    assert_eq!(state(moved.id).await, (MessageState::Pending, end, 2), "the code is of use until the new end");
    let (participant, by) = (kept.appointment.people[0].id, Box::new(person(Role::Operator)));
    kept.record(&[], &[Change::Replaced { participant, by }]).await.unwrap();
    assert_eq!(state(moved.id).await, (MessageState::Parked, end, 0), "whose it was does not come any more");
    kept.post(std::slice::from_ref(&replaced)).await;
    kept.record_in(Phase::Cancelled, &[Event::Cancelled], &[], &[], now()).await.unwrap();
    assert_eq!(state(replaced.id).await.0, MessageState::Parked, "nobody comes any more");
}

async fn delivered_webhooks_are_forgotten_after_a_month(kept: &Kept) {
    let messages = ["delivered", "parked"].map(|subject| kept.message(MessageKind::Webhook, subject));
    kept.post(&messages).await;
    kept.store.message_delivered(messages[0].id, now()).await.unwrap();
    kept.store.message_failed(messages[1].id, now(), "status 410", None).await.unwrap();
    kept.store.purge(now() + SignedDuration::from_hours(29 * 24)).await.unwrap();
    assert!(kept.store.message(messages[0].id).await.unwrap().is_some());
    kept.store.purge(now() + SignedDuration::from_hours(31 * 24)).await.unwrap();
    assert!(kept.store.message(messages[0].id).await.unwrap().is_none());
    assert!(kept.store.message(messages[1].id).await.unwrap().is_some(), "what did not arrive stays");
}

async fn a_database_belongs_to_one_key(kept: &Kept) {
    let (own, other) = (Hash::of_token("own"), Hash::of_token("other"));
    assert!(kept.store.hold_key(own).await.unwrap(), "the first one takes it");
    assert!(kept.store.hold_key(own).await.unwrap());
    assert!(!kept.store.hold_key(other).await.unwrap());
}

fn access(kept: &Kept, action: Action) -> Access {
    let (caller, reason) = ("key:1".to_owned(), "Reclamo 2026/17".to_owned());
    Access { caller, action, room: Some(kept.appointment.id), reason, detail: serde_json::Map::new() }
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn sealed() -> SealedPackage {
    SealedPackage {
        revision: 1,
        prefix: "session-1".into(),
        bytes: 4_711,
        manifest_sha256: "9f86".into(),
        key_id: "key-1".into(),
        ledger_lines: 1,
    }
}

impl Kept {
    /// The room is over and its package is sealed; kept until then.
    async fn sealed_until(&self, retain_until: Option<Timestamp>) {
        let (store, room) = (&self.store, self.appointment.id);
        store.put_recording_key(room, "kek:wrapped").await.unwrap();
        store.package_recorded(room, now(), now(), now()).await.unwrap();
        assert!(store.claim_package(room, now(), now()).await.unwrap());
        assert!(store.package_sealed(room, &sealed(), &[], now()).await.unwrap());
        let set = access(self, Action::RetentionSet);
        assert!(store.set_retention(&set, room, retain_until, now()).await.unwrap());
    }

    async fn destroy(&self, at: Timestamp) -> Destruction {
        let (destroyed, room) = (access(self, Action::Destroyed), self.appointment.id);
        self.store.destroy_package(&destroyed, room, "a.signed.note", &[], at).await.unwrap()
    }
}

async fn a_room_has_one_recording_key_and_none_after_it_was_destroyed(kept: &Kept) {
    let (store, room) = (&kept.store, kept.appointment.id);
    assert_eq!(store.recording_key(room).await.unwrap(), RecordingKey::None);
    assert!(store.put_recording_key(room, "kek:first").await.unwrap());
    assert!(!store.put_recording_key(room, "kek:second").await.unwrap(), "what was written under the first stays");
    assert_eq!(store.recording_key(room).await.unwrap(), RecordingKey::Wrapped("kek:first".into()));
    assert!(!store.rewrap_recording_key(room, "kek:second", "kek:third").await.unwrap());
    assert!(store.rewrap_recording_key(room, "kek:first", "kek:third").await.unwrap());
    let at = now();
    store.destroy_recording_key(room, at).await.unwrap();
    store.destroy_recording_key(room, at + days(1)).await.unwrap();
    assert_eq!(store.recording_key(room).await.unwrap(), RecordingKey::Destroyed(at));
    assert!(!store.put_recording_key(room, "kek:fourth").await.unwrap());
    if let Held::Folder(folder) = &kept.place.held {
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(9).any(|window| window == b"kek:third"), "it is still in the file");
        }
    }
}

async fn a_recorded_room_is_sealed_by_one_at_a_time_and_again_when_that_failed(kept: &Kept) {
    let (store, room) = (&kept.store, kept.appointment.id);
    store.put_recording_key(room, "kek:wrapped").await.unwrap();
    assert_eq!(store.rooms_without_package(10).await.unwrap(), [], "the meeting goes on");
    kept.record_in(Phase::Concluded, &[], &[], &[], now()).await.unwrap();
    assert_eq!(store.rooms_without_package(10).await.unwrap(), [room]);
    let (begun, at) = (now() - days(1), now());
    store.package_recorded(room, begun, at, at).await.unwrap();
    store.package_recorded(room, at, at, at).await.unwrap();
    assert_eq!(store.rooms_without_package(10).await.unwrap(), []);
    let package = store.package(room).await.unwrap().unwrap();
    assert_eq!((package.state, package.begun, package.revision), (PackageState::Recorded, begun, 0));
    assert_eq!(package.retain_until, None, "the profile names no time");
    assert_eq!(store.rooms_to_seal(at, 10).await.unwrap(), [room]);

    let lease = at + SignedDuration::from_mins(5);
    let claims = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.claim_package(room, at, lease).await.unwrap() })
    });
    let mut claimed = 0;
    for claim in claims.collect::<Vec<_>>() {
        claimed += i32::from(claim.await.unwrap());
    }
    assert_eq!(claimed, 1);
    assert_eq!(store.rooms_to_seal(at, 10).await.unwrap(), []);
    assert_eq!(store.rooms_to_seal(lease, 10).await.unwrap(), [room], "whoever took it did not finish");
    let retry = at + SignedDuration::from_mins(10);
    store.package_failed(room, "the objects do not answer", retry).await.unwrap();
    assert_eq!(store.rooms_to_seal(lease, 10).await.unwrap(), []);
    assert!(!store.package_sealed(room, &sealed(), &[], at).await.unwrap(), "nobody was sealing it");
    assert!(store.claim_package(room, retry, retry + SignedDuration::from_mins(5)).await.unwrap());
    assert_eq!(store.release_claims(retry).await.unwrap(), 1, "the process was stopped meanwhile");
    assert!(store.claim_package(room, retry, retry + SignedDuration::from_mins(5)).await.unwrap());
    assert!(store.extend_claim(room, retry + SignedDuration::from_mins(9)).await.unwrap());
    let message = kept.message(MessageKind::Webhook, "recording.sealed");
    assert!(store.package_sealed(room, &sealed(), &[message], at).await.unwrap());
    assert_eq!(kept.due(MessageKind::Webhook).await, ["recording.sealed"]);
    let package = store.package(room).await.unwrap().unwrap();
    assert_eq!((package.state, package.revision, package.attempts), (PackageState::Sealed, 1, 0));
    assert_eq!((package.prefix.as_deref(), package.last_error), (Some("session-1"), None));
    assert_eq!(store.rooms_to_seal(at + days(99), 10).await.unwrap(), []);
    assert!(store.package_changed(room, retry).await.unwrap(), "a document came in");
    assert_eq!(store.rooms_to_seal(retry, 10).await.unwrap(), [room]);
}

async fn recordings_are_found_by_date_place_room_and_fiscal_code_newest_first(kept: &Kept) {
    let store = &kept.store;
    let mut rooms = vec![kept.appointment.clone()];
    for minutes in [60, 60, 120] {
        let mut appointment = later(minutes);
        appointment.people[1].fiscal_code = Some(Personal::from("VRDLGI75C10F205X"));
        appointment.office = "Milano".into();
        appointment.counter = format!("Deleghe {minutes}");
        book(store, &appointment).await.unwrap();
        rooms.push(appointment);
    }
    let never_recorded = later(180);
    book(store, &never_recorded).await.unwrap();
    for room in &rooms {
        store.put_recording_key(room.id, "kek:wrapped").await.unwrap();
    }
    store.package_recorded(rooms[3].id, now(), now(), now()).await.unwrap();
    rooms.sort_by_key(|room| std::cmp::Reverse((room.start, room.id)));

    let mut filter = RecordingFilter { limit: 2, ..RecordingFilter::default() };
    let first = store.find_recordings(&filter).await.unwrap();
    filter.after = first.last().map(|last| (last.room.start, last.room.id));
    let second = store.find_recordings(&filter).await.unwrap();
    let found: Vec<_> = first.iter().chain(&second).map(|row| row.room.id).collect();
    assert_eq!(found, rooms.iter().map(|room| room.id).collect::<Vec<_>>());
    assert_eq!(first[0].package.as_ref().map(|package| package.state), Some(PackageState::Recorded));
    assert_eq!((second[1].package.as_ref(), second[1].room.people.len()), (None, 2), "its meeting goes on");

    let all = RecordingFilter { limit: 10, ..RecordingFilter::default() };
    let cases = [
        (RecordingFilter { office: Some("Milano".into()), ..all.clone() }, 3),
        (RecordingFilter { counter: Some("Deleghe 60".into()), ..all.clone() }, 2),
        (RecordingFilter { room: Some(rooms[3].id), ..all.clone() }, 1),
        (RecordingFilter { fiscal_code: Some("VRDLGI75C10F205X".into()), ..all.clone() }, 3),
        (RecordingFilter { fiscal_code: Some("RSSMRA80A41H501W".into()), ..all.clone() }, 4),
        (RecordingFilter { fiscal_code: Some("NBDYXX80A41H501W".into()), ..all.clone() }, 0),
        (RecordingFilter { from: Some(rooms[0].start), ..all.clone() }, 1),
        (RecordingFilter { to: Some(rooms[0].start), ..all.clone() }, 3),
        (RecordingFilter { room: Some(never_recorded.id), ..all.clone() }, 0),
    ];
    for (filter, count) in cases {
        assert_eq!(store.find_recordings(&filter).await.unwrap().len(), count, "{filter:?}");
    }
    assert!(store.was_recorded(rooms[0].id).await.unwrap());
    assert!(!store.was_recorded(never_recorded.id).await.unwrap());
}

async fn recordings_are_destroyed_when_their_time_has_come_and_nobody_holds_them(kept: &Kept) {
    let (store, room, at) = (&kept.store, kept.appointment.id, now() + days(1));
    assert_eq!(kept.destroy(at).await, Destruction::Gone, "there is nothing");
    kept.sealed_until(None).await;
    assert_eq!(kept.destroy(at).await, Destruction::Kept(None));
    let set = access(kept, Action::RetentionSet);
    store.set_retention(&set, room, Some(at + days(1)), now()).await.unwrap();
    assert_eq!(kept.destroy(at).await, Destruction::Kept(Some(at + days(1))));
    assert_eq!(store.packages_to_destroy(at, 10).await.unwrap(), []);
    assert_eq!(store.packages_to_destroy(at + days(2), 10).await.unwrap(), [room]);
    store.set_retention(&set, room, Some(at), now()).await.unwrap();
    assert!(store.hold_package(&access(kept, Action::HoldPlaced), room, now()).await.unwrap());
    assert_eq!(kept.destroy(at).await, Destruction::Held);
    assert_eq!(store.packages_to_destroy(at, 10).await.unwrap(), []);
    let hold = store.package(room).await.unwrap().unwrap().hold.unwrap();
    assert_eq!((hold.reason.as_str(), hold.by.as_str()), ("Reclamo 2026/17", "key:1"));
    assert!(store.lift_hold(&access(kept, Action::HoldLifted), room, now()).await.unwrap());
    assert!(!store.lift_hold(&access(kept, Action::HoldLifted), room, now()).await.unwrap());
    assert!(store.package_changed(room, at).await.unwrap());
    assert!(store.claim_package(room, at, at + SignedDuration::from_mins(5)).await.unwrap());
    assert_eq!(kept.destroy(at).await, Destruction::Busy, "someone works with its files");

    assert_eq!(kept.destroy(at + SignedDuration::from_mins(5)).await, Destruction::Done);
    assert_eq!(kept.destroy(at + days(9)).await, Destruction::Gone);
    let package = store.package(room).await.unwrap().unwrap();
    assert_eq!(package.destroyed, Some((at + SignedDuration::from_mins(5), "a.signed.note".into())));
    assert!(matches!(store.recording_key(room).await.unwrap(), RecordingKey::Destroyed(_)));
    assert!(!store.package_sealed(room, &sealed(), &[], at).await.unwrap(), "it does not come back");
    assert!(!store.hold_package(&access(kept, Action::HoldPlaced), room, at).await.unwrap());
    assert_eq!(store.packages_to_empty(10).await.unwrap().len(), 1);
    store.package_emptied(room, at).await.unwrap();
    assert_eq!(store.packages_to_empty(10).await.unwrap(), []);
    let actions: Vec<_> = store.accesses(room).await.unwrap().iter().map(|line| line.action).collect();
    let [set, placed, lifted] = [Action::RetentionSet, Action::HoldPlaced, Action::HoldLifted];
    assert_eq!(actions, [set, set, set, placed, lifted, Action::Destroyed], "refusals change nothing");
}

async fn the_audit_is_one_chain_however_many_write_to_it(kept: &Kept) {
    let written = (0..24).map(|n| {
        let (store, mut access) = (kept.store.clone(), access(kept, Action::OriginalRead));
        access.room = (n % 3 > 0).then_some(kept.appointment.id);
        tokio::spawn(async move { store.note_access(&access, now()).await.unwrap().seq })
    });
    let mut numbers = Vec::new();
    for written in written.collect::<Vec<_>>() {
        numbers.push(written.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=24).collect::<Vec<_>>());
    let mut lines = kept.store.audit(0, 20).await.unwrap();
    lines.extend(kept.store.audit(20, 20).await.unwrap());
    assert_eq!(audit::verify(&lines).unwrap().seq, 24);
    assert_eq!(kept.store.accesses(kept.appointment.id).await.unwrap().len(), 16);
}

async fn the_audit_cannot_be_changed_even_by_a_mistake_of_ours(kept: &Kept) {
    kept.store.note_access(&access(kept, Action::OriginalRead), now()).await.unwrap();
    let pool = kept.place.intruder().await;
    for statement in ["UPDATE accesses SET reason = 'another'", "DELETE FROM accesses"] {
        let refused = sqlx::query(statement).execute(&pool).await;
        assert!(refused.unwrap_err().to_string().contains("append-only"), "{statement}");
    }
}

async fn an_audit_that_was_tampered_with_is_found(kept: &Kept) {
    for _ in 0..3 {
        kept.store.note_access(&access(kept, Action::OriginalRead), now()).await.unwrap();
    }
    let pool = kept.place.intruder().await;
    let on_table = if matches!(kept.place.held, Held::Database(_)) { " ON accesses" } else { "" };
    let drop = format!("DROP TRIGGER accesses_keep_their_lines{on_table}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await.unwrap();
    sqlx::query("UPDATE accesses SET caller = 'key:2' WHERE seq = 2").execute(&pool).await.unwrap();
    let lines = kept.store.audit(0, 10).await.unwrap();
    assert_eq!(audit::verify(&lines), Err(audit::ChainError::Changed { seq: 2 }));
    assert!(matches!(kept.store.accesses(kept.appointment.id).await, Err(Error::Corrupt("audit"))));
}

async fn an_access_opens_one_room_for_a_while(kept: &Kept) {
    let (token, end) = (Hash::of_token("token"), now() + SignedDuration::from_hours(1));
    let key = KeyId::new(now());
    kept.store.add_key(key, "Compliance", Hash::of_token("key"), Scope::Compliance, now()).await.unwrap();
    let grant = Grant {
        id: AccessId::new(now()),
        room: kept.appointment.id,
        caller: format!("key:{key}"),
        reason: "Reclamo 2026/17".into(),
        expires: end,
    };
    kept.store.open_access(&grant, token, &access(kept, Action::AccessOpened), now()).await.unwrap();
    assert_eq!(kept.store.access(token, now()).await.unwrap(), Some(grant));
    assert_eq!(kept.store.access(token, end).await.unwrap(), None);
    assert_eq!(kept.store.access(Hash::of_token("another"), now()).await.unwrap(), None);
    assert_eq!(kept.store.accesses(kept.appointment.id).await.unwrap().len(), 1);
    kept.store.revoke_key(key, now()).await.unwrap();
    assert_eq!(kept.store.access(token, now()).await.unwrap(), None, "nor with a key that was revoked");
    kept.store.purge(end + SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!(kept.store.access(token, now()).await.unwrap(), None);
}

async fn jobs_are_done_in_turn_and_begun_anew_after_a_restart(kept: &Kept) {
    let (store, room) = (&kept.store, kept.appointment.id);
    let ids = [(); 3].map(|()| JobId::new(now()));
    for (id, kind) in ids.into_iter().zip([JobKind::Verify, JobKind::ExportWebm, JobKind::ExportMp4]) {
        let added = store.add_job(id, kind, &access(kept, Action::ExportAsked), room, 2, now()).await.unwrap();
        assert_eq!(added, id != ids[2], "two of one caller may wait");
    }
    let begun = store.begin_job(now()).await.unwrap().unwrap();
    assert_eq!((begun.id, begun.kind, begun.state, begun.attempts), (ids[0], JobKind::Verify, JobState::Running, 1));
    store.job_progress(ids[0], 417, now()).await.unwrap();
    assert_eq!(store.job(ids[0]).await.unwrap().unwrap().progress_permille, 417);
    store.requeue_jobs(2, "interrupted", now()).await.unwrap();
    assert_eq!(store.begin_job(now()).await.unwrap().unwrap().attempts, 2, "it is first again");
    store.requeue_jobs(2, "interrupted", now()).await.unwrap();
    let given_up = store.job(ids[0]).await.unwrap().unwrap();
    assert_eq!((given_up.state, given_up.error.as_deref()), (JobState::Failed, Some("interrupted")));
    assert_eq!(store.begin_job(now()).await.unwrap().unwrap().id, ids[1]);
    assert_eq!(store.begin_job(now()).await.unwrap(), None);
    let result = serde_json::json!({"file": "export.webm"}).as_object().unwrap().clone();
    store.end_job(ids[1], Ok(&result), now()).await.unwrap();
    let done = store.job(ids[1]).await.unwrap().unwrap();
    assert_eq!((done.state, done.progress_permille, done.result), (JobState::Done, 1_000, Some(result)));
    assert_eq!(store.jobs_done_before(now() + days(1), 10).await.unwrap().len(), 2);
    store.forget_job(ids[1]).await.unwrap();
    assert_eq!(store.job(ids[1]).await.unwrap(), None);
}
