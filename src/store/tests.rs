//! What the store promises, each as a sentence.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;

use super::*;
use crate::clock::{MonoTime, Now};
use crate::id::{ParticipantId, RoomId};
use crate::room::{Entry, Event, Phase, Profile, Role};

struct Kept {
    folder: TempDir,
    store: Store,
    appointment: Appointment,
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("sportello.db")
}

fn entry(event: Event) -> Entry {
    Entry::at(Now { mono: MonoTime::from_millis(5), wall: Timestamp::now() }, event)
}

async fn kept() -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&path(&folder)).await.unwrap();
    let appointment = appointment();
    book(&store, &appointment).await.unwrap();
    Kept { folder, store, appointment }
}

fn appointment() -> Appointment {
    let now = Timestamp::now();
    let people = [Role::Operator, Role::Delegato].map(|role| Person {
        id: ParticipantId::new(now),
        role,
        name: Personal::from("Maria Rossi"),
        fiscal_code: Some(Personal::from("RSSMRA80A41H501W")),
        phone: None,
        operator_number: None,
        link: Hash::of_token(&format!("{role:?}{now}")),
        code: Hash::of_token("402913"),
        session: None,
    });
    Appointment {
        id: RoomId::new(now),
        profile: Profile::shipped().remove(0),
        office: "Roma".into(),
        counter: "Deleghe".into(),
        reason: "Delega".into(),
        reference: Some("PRN-1".into()),
        start: now,
        end: now + SignedDuration::from_mins(30),
        people: people.into(),
    }
}

async fn book(store: &Store, appointment: &Appointment) -> Result<(), Error> {
    let booked = Event::Booked {
        room: appointment.id,
        profile: appointment.profile.name.clone(),
        start: appointment.start,
        end: appointment.end,
        participants: appointment.people.iter().map(|person| (person.id, person.role)).collect(),
    };
    store.book(appointment, &[entry(booked)], Phase::Scheduled, Timestamp::now()).await
}

impl Kept {
    async fn record(&self, events: &[Event], changes: &[Change]) -> Result<(), Error> {
        let entries: Vec<Entry> = events.iter().cloned().map(entry).collect();
        let (room, at) = (self.appointment.id, Timestamp::now());
        self.store.record(&Record { room, entries: &entries, phase: Phase::Waiting, changes, at }).await
    }

    /// Someone with the file and a tool.
    async fn intruder(&self) -> SqlitePool {
        SqlitePool::connect_with(SqliteConnectOptions::new().filename(path(&self.folder))).await.unwrap()
    }
}

#[tokio::test]
async fn what_was_booked_is_read_again_after_a_restart() {
    let Kept { folder, store, appointment } = kept().await;
    store.close().await;
    let store = Store::open(&path(&folder)).await.unwrap();
    let read = store.appointment(appointment.id).await.unwrap().unwrap();
    assert_eq!(format!("{read:?}").replace(&format!("{:?}", read.start), ""), {
        let start = Timestamp::from_millisecond(appointment.start.as_millisecond()).unwrap();
        let end = Timestamp::from_millisecond(appointment.end.as_millisecond()).unwrap();
        format!("{:?}", Appointment { start, end, ..appointment.clone() }).replace(&format!("{start:?}"), "")
    });
    assert_eq!(read.people[0].name, appointment.people[0].name);
    assert_eq!(read.people[1].code, appointment.people[1].code);
    assert_eq!(store.unfinished().await.unwrap(), [appointment.id]);
    let owner = store.link_owner(appointment.people[1].link).await.unwrap().unwrap();
    assert_eq!((owner.participant, owner.role), (appointment.people[1].id, Role::Delegato));
}

#[tokio::test]
async fn ledger_lines_are_chained_and_read_back_as_they_were_written() {
    let kept = kept().await;
    let wall = Timestamp::now();
    kept.record(&[Event::AdmissionOpened, Event::Opened], &[]).await.unwrap();
    let lines = kept.store.ledger(kept.appointment.id).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(lines[2].event, Event::Opened);
    assert_eq!(lines[2].prev, lines[1].hash);
    assert!(lines[2].wall >= Timestamp::from_millisecond(wall.as_millisecond()).unwrap());
    assert!(kept.store.ledger(RoomId::new(wall)).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_ledger_cannot_be_changed_even_by_a_mistake_of_ours() {
    let kept = kept().await;
    let pool = kept.intruder().await;
    let changed = sqlx::query("UPDATE ledger SET event = '{}'").execute(&pool).await;
    assert!(changed.unwrap_err().to_string().contains("append-only"));
    let deleted = sqlx::query("DELETE FROM ledger").execute(&pool).await;
    assert!(deleted.unwrap_err().to_string().contains("append-only"));
}

#[tokio::test]
async fn a_ledger_that_was_tampered_with_is_not_read() {
    let kept = kept().await;
    kept.record(&[Event::AdmissionOpened, Event::Opened], &[]).await.unwrap();
    let pool = kept.intruder().await;
    sqlx::query("DROP TRIGGER ledger_keeps_its_lines").execute(&pool).await.unwrap();
    sqlx::query("UPDATE ledger SET event = '{\"type\":\"expired\"}' WHERE seq = 2").execute(&pool).await.unwrap();
    assert!(matches!(kept.store.ledger(kept.appointment.id).await, Err(Error::Corrupt("ledger"))));
}

#[tokio::test]
async fn entries_and_the_rows_that_belong_to_them_are_written_together_or_not_at_all() {
    let kept = kept().await;
    let stranger = ParticipantId::new(Timestamp::now());
    let session = Change::SessionStarted { participant: stranger, token: Hash::of_token("t") };
    let failed = kept.record(&[Event::AdmissionOpened], &[session]).await;
    assert!(matches!(failed, Err(Error::Database(_))), "the session's person does not exist: {failed:?}");
    assert_eq!(kept.store.ledger(kept.appointment.id).await.unwrap().len(), 1, "so the entry is not there either");
}

#[tokio::test]
async fn a_person_has_one_open_session() {
    let kept = kept().await;
    let participant = kept.appointment.people[0].id;
    let (first, second) = (Hash::of_token("first"), Hash::of_token("second"));
    kept.record(&[], &[Change::SessionStarted { participant, token: first }]).await.unwrap();
    assert_eq!(kept.store.session_owner(first).await.unwrap().unwrap().participant, participant);
    kept.record(&[], &[Change::SessionStarted { participant, token: second }]).await.unwrap();
    assert_eq!(kept.store.session_owner(first).await.unwrap(), None);
    let read = kept.store.appointment(kept.appointment.id).await.unwrap().unwrap();
    assert_eq!(read.people[0].session, Some(second));
    kept.record(&[], &[Change::SessionEnded { participant }]).await.unwrap();
    assert_eq!(kept.store.session_owner(second).await.unwrap(), None);
}

#[tokio::test]
async fn many_rooms_are_written_at_once_without_getting_in_each_others_way() {
    let kept = kept().await;
    let written = (0..20).map(|_| {
        let store = kept.store.clone();
        tokio::spawn(async move {
            let appointment = appointment();
            book(&store, &appointment).await?;
            let entries = [entry(Event::AdmissionOpened)];
            let (room, at) = (appointment.id, Timestamp::now());
            store.record(&Record { room, entries: &entries, phase: Phase::Waiting, changes: &[], at }).await?;
            store.ledger(room).await.map(|lines| lines.len())
        })
    });
    for written in written.collect::<Vec<_>>() {
        assert_eq!(written.await.unwrap().unwrap(), 2);
    }
    assert_eq!(kept.store.unfinished().await.unwrap().len(), 21);
}
