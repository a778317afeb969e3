//! The day: its server, its booking system, and the words for what holds of all rooms.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use loadtest::media::Film;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard};

use super::room::Room;
use crate::database::Database;
use crate::receiver::{self, Receiver, Webhook};
use crate::server::{Server, Signal, sportello, text};

/// Longest wait for what should happen at once, on a machine that is busy with many calls.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// How often a room is looked at while something is awaited.
pub(super) const GLANCE: Duration = Duration::from_millis(100);
/// Longest wait for a webhook that was refused: it is tried again after 5 s, then after 15 s more.
pub(super) const LONGEST_DELIVERY: Duration = Duration::from_secs(30);
/// Longest wait for a room to be sealed: they are sealed one after the other, beside everything else.
const LONGEST_SEALING: Duration = Duration::from_secs(90);

/// The profiles of the day. Shorter than those that ship in all that a test cannot wait for; the grace of an absence
/// is the real one.
const PROFILES: [(&str, &str); 2] = [
    (
        "delega.toml",
        r#"
        name = "delega"
        required = ["operator", "delegato", "delegante"]
        outcomes = ["granted", "refused", "incomplete"]
        slot_minutes = 30
        admission_opens_minutes = 15
        code_digits = 6
        code_attempts = 5
        absence_grace_seconds = 10
        minimum_presence_seconds = 5
        longest_absence_seconds = 20
        longest_extension_hours = 72
        "#,
    ),
    (
        "videochiamata.toml",
        r#"
        name = "videochiamata"
        required = ["operator", "citizen"]
        outcomes = ["served", "incomplete"]
        slot_minutes = 20
        admission_opens_minutes = 15
        code_digits = 6
        code_attempts = 5
        absence_grace_seconds = 10
        minimum_presence_seconds = 0
        longest_absence_seconds = 30
        longest_extension_hours = 72
        "#,
    ),
];

/// Seconds.
pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(super) use tokio::time::sleep as pass;

/// One server, from its first start to the evening.
pub(super) struct Day {
    server: RwLock<Server>,
    /// What every camera sees.
    pub film: Arc<Film>,
    rooms: Mutex<Vec<String>>,
    /// The booking system, as far as it is told things.
    pub receiver: Receiver,
    _profiles: TempDir,
}

impl Day {
    pub(super) async fn begins(database: Database) -> Self {
        let profiles = TempDir::new().unwrap();
        for (name, profile) in PROFILES {
            std::fs::write(profiles.path().join(name), profile).unwrap();
        }
        let receiver = Receiver::start().await;
        let configuration = [
            ("ROOMS__PROFILES", profiles.path().to_str().unwrap()),
            ("WEBHOOKS__URL", &receiver.url()),
            ("WEBHOOKS__SECRETS", receiver::SECRET),
        ];
        let server = RwLock::new(Server::start_with(database, &configuration).await);
        let film = Arc::new(Film::built_in().unwrap());
        Self { server, film, rooms: Mutex::default(), receiver, _profiles: profiles }
    }

    pub(super) async fn server(&self) -> RwLockReadGuard<'_, Server> {
        self.server.read().await
    }

    /// Books a room of the profile `delega` that begins now and lasts so long.
    pub(super) async fn delega(&self, lasts: Duration) -> Room<'_> {
        let people = json!([
            {"role": "operator", "name": "Ofelia Quarantotti", "operator_number": "OP-042"},
            {"role": "delegato", "name": "Dario Bevilacqua", "fiscal_code": "BVLDRA80A01H501U"},
            {"role": "delegante", "name": "Zenobia Tagliaferri", "fiscal_code": "TGLZNB50A41H501W"},
        ]);
        self.books("delega", &people, lasts).await
    }

    /// Books a room of the profile `videochiamata` that begins now and lasts so long.
    pub(super) async fn videochiamata(&self, lasts: Duration) -> Room<'_> {
        let people = json!([
            {"role": "operator", "name": "Ofelia Quarantotti", "operator_number": "OP-042"},
            {"role": "citizen", "name": "Cesira Malaspina"},
        ]);
        self.books("videochiamata", &people, lasts).await
    }

    async fn books(&self, profile: &str, people: &Value, lasts: Duration) -> Room<'_> {
        let counter = format!("Sportello {}", self.rooms.lock().unwrap().len() + 1);
        let start = Timestamp::now();
        let end = start + SignedDuration::try_from(lasts).unwrap();
        let booking = json!({
            "profile": profile, "office": "Roma", "counter": counter, "reason": "Una giornata di prova",
            "start": start.to_string(), "end": end.to_string(), "participants": people,
        });
        let booked = self.server().await.book(&booking).await;
        self.rooms.lock().unwrap().push(booked.room.clone());
        Room::booked(self, booked)
    }

    /// `kill -9`, a while without anyone there, and a new start on the same data.
    pub(super) async fn server_is_killed_and_comes_back_after(&self, pause: Duration) {
        let mut server = self.server.write().await;
        server.end(Signal::Kill);
        pass(pause).await;
        server.come_back().await;
    }

    /// Nothing in the server panicked, and it ends in order.
    pub(super) async fn ends(&self) {
        let mut server = self.server.write().await;
        server.is_well().await;
        assert!(server.end(Signal::Term).success());
    }

    /// The receiver is told every room's story, in order, each event once or again under the same id; nothing is left.
    pub(super) async fn every_webhook_arrives(&self) {
        let rooms = self.rooms.lock().unwrap().clone();
        for room in &rooms {
            let ledger = self.ledger(room).await;
            let story: Vec<(String, u64)> = ledger.iter().flat_map(webhooks_of).collect();
            let deadline = Instant::now() + LONGEST_DELIVERY;
            let told = |webhook: &Webhook| (webhook.kind(), webhook.data()["ledger"]["seq"].as_u64().unwrap());
            let of_recording = |webhook: &Webhook| webhook.kind().starts_with("recording.");
            let was_recorded = ledger.iter().any(|line| line["event"]["type"] == "recording_started");
            let all_there = || {
                let (recording, webhooks): (Vec<_>, Vec<_>) =
                    self.receiver.of_room(room).into_iter().partition(of_recording);
                let sealed = recording.iter().any(|webhook| webhook.kind() == "recording.sealed");
                webhooks.len() >= story.len() && sealed == was_recorded
            };
            while !all_there() && Instant::now() < deadline {
                pass(GLANCE).await;
            }
            let (recording, webhooks): (Vec<_>, Vec<_>) =
                self.receiver.of_room(room).into_iter().partition(of_recording);
            let sealed = recording.iter().filter(|webhook| webhook.kind() == "recording.sealed").count();
            assert_eq!(sealed > 0, was_recorded, "{room} was sealed {sealed} times");
            assert_eq!(webhooks.iter().map(told).collect::<Vec<_>>(), story, "what was told of {room}");
            for webhook in webhooks {
                let head = &webhook.data()["ledger"];
                let line = ledger.iter().find(|line| line["seq"] == head["seq"]).unwrap();
                assert_eq!(line["hash"], head["hash"], "{}", webhook.payload);
                assert_eq!(line["wall"], webhook.payload["timestamp"], "{}", webhook.payload);
            }
        }
        assert!(self.receiver.turned_away() > 0, "it was down for a while");
        let server = self.server().await;
        for state in ["pending", "parked"] {
            let left = server.get(&format!("/v1/webhooks?state={state}"), server.key("booking")).await;
            assert_eq!(left["webhooks"], json!([]), "{state}: {left}");
        }
    }

    /// A webhook that was delivered comes again when it is asked for, under the same id.
    pub(super) async fn a_webhook_can_be_replayed(&self) {
        let server = self.server().await;
        let delivered = server.get("/v1/webhooks?state=delivered&limit=1", server.key("booking")).await;
        let first = text(&delivered["webhooks"][0]["id"]);
        let count = || self.receiver.all().iter().filter(|webhook| webhook.id.ends_with(&first)).count();
        let before = count();
        let replay = server.request(Method::POST, &format!("/v1/webhooks/{first}/replay"), server.key("booking"));
        assert_eq!(replay.send().await.unwrap().status(), 202);
        let deadline = Instant::now() + SOON;
        while count() == before {
            assert!(Instant::now() < deadline, "it was not told again");
            pass(GLANCE).await;
        }
    }

    pub(super) async fn ledger(&self, room: &str) -> Vec<Value> {
        let server = self.server().await;
        let ledger = server.get(&format!("/v1/rooms/{room}/ledger"), server.key("compliance")).await;
        ledger.as_array().unwrap().clone()
    }

    /// Fetches the ledger of every room and has `sportello verify` check them.
    pub(super) async fn every_ledger_verifies(&self) {
        let folder = TempDir::new().unwrap();
        let rooms = self.rooms.lock().unwrap().clone();
        for room in &rooms {
            let server = self.server().await;
            let ledger = server.request(Method::GET, &format!("/v1/rooms/{room}/ledger"), server.key("compliance"));
            let ledger = ledger.send().await.unwrap().text().await.unwrap();
            for name in ["Ofelia", "Dario", "Zenobia", "Cesira", "OP-042", "BVLDRA80A01H501U"] {
                assert!(!ledger.contains(name), "the ledger of {room} tells «{name}»");
            }
            let file = folder.path().join(format!("{room}.json"));
            std::fs::write(&file, &ledger).unwrap();
            verifies(&file);

            let forged = folder.path().join(format!("{room}-forged.json"));
            std::fs::write(&forged, ledger.replacen("operator", "delegato", 1)).unwrap();
            assert!(!sportello().arg("verify").arg(&forged).output().unwrap().status.success(), "a forged ledger");
        }
    }

    /// Has `sportello verify` check everything that was recorded: by then it is sealed, and nothing is left beside it.
    pub(super) async fn every_recording_verifies(&self) {
        let data = self.server().await.data().to_owned();
        let mut verified = 0;
        let rooms = self.rooms.lock().unwrap().clone();
        for room in rooms {
            let ledger = self.ledger(&room).await;
            if !ledger.iter().any(|line| line["event"]["type"] == "recording_started") {
                continue;
            }
            let (package, recordings) =
                (data.join("packages").join(format!("session-{room}")), data.join("recordings").join(&room));
            let deadline = Instant::now() + LONGEST_SEALING;
            while recordings.exists() || !package.join("manifest.jws").exists() {
                assert!(Instant::now() < deadline, "{room} is not sealed within {LONGEST_SEALING:?}");
                pass(GLANCE).await;
            }
            let key = data.join("secrets").join("signing.jwk");
            let output = sportello().arg("verify").arg(&package).arg("--key").arg(key).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{}: {said}", package.display());
            verified += 1;
        }
        assert!(verified > 0, "nothing was recorded");
    }
}

/// What the booking system is told of a ledger line: kind of event, number of the line.
fn webhooks_of(line: &Value) -> Vec<(String, u64)> {
    let event = &line["event"];
    let kinds: &[&str] = match event["type"].as_str().unwrap() {
        "booked" => &["room.booked"],
        "rescheduled" => &["room.rescheduled"],
        "replaced" => &["participant.replaced"],
        "cancelled" => &["room.cancelled"],
        "expired" => &["room.expired"],
        "code_rejected" if event["attempts_left"] == 0 => &["participant.code_locked"],
        "opened" => &["room.opened"],
        "went_live" => &["room.live"],
        "suspended" => &["room.suspended"],
        "recording_lost" => &["room.recording_lost"],
        "concluded" if event["outcome"] == "granted" => &["room.concluded", "delegation.granted"],
        "concluded" => &["room.concluded"],
        "extended" => &["room.extended"],
        "closed" => &["room.closed"],
        _ => &[],
    };
    kinds.iter().map(|kind| ((*kind).to_owned(), line["seq"].as_u64().unwrap())).collect()
}

fn verifies(path: &PathBuf) {
    let output = sportello().arg("verify").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", path.display());
}
