//! The words that the day is told in: rooms of one server, and the people in them with microphones and cameras.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use loadtest::api::Api;
use loadtest::client::{Client, Devices, Part};
use loadtest::media::{Film, Voice};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::database::Database;
use crate::server::{Booked, Events, Server, Signal, accepted, refused, sportello, text};

/// Longest wait for what should happen at once, on a machine that is busy with many calls.
const SOON: Duration = Duration::from_secs(10);
/// How often a room is looked at while something is awaited.
const GLANCE: Duration = Duration::from_millis(100);

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
    film: Arc<Film>,
    rooms: Mutex<Vec<String>>,
    _profiles: TempDir,
}

impl Day {
    pub(super) async fn begins(database: Database) -> Self {
        let profiles = TempDir::new().unwrap();
        for (name, profile) in PROFILES {
            std::fs::write(profiles.path().join(name), profile).unwrap();
        }
        let configuration = [("ROOMS__PROFILES", profiles.path().to_str().unwrap())];
        let server = RwLock::new(Server::start_with(database, &configuration).await);
        let film = Arc::new(Film::built_in().unwrap());
        Self { server, film, rooms: Mutex::default(), _profiles: profiles }
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
        Room { day: self, booked, sessions: BTreeMap::new(), devices: BTreeMap::new() }
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
            std::fs::write(&forged, ledger.replacen("\"role", "\"Role", 1).replacen("operator", "delegato", 1))
                .unwrap();
            assert!(!sportello().arg("verify").arg(&forged).output().unwrap().status.success(), "a forged ledger");
        }
    }

    /// Has `sportello verify` check everything that was recorded.
    pub(super) async fn every_recording_verifies(&self) {
        verifies(&self.server().await.data().join("recordings"));
    }
}

fn verifies(path: &PathBuf) {
    let output = sportello().arg("verify").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", path.display());
}

/// A room of the day, its people's sessions and devices.
pub(super) struct Room<'d> {
    day: &'d Day,
    booked: Booked,
    sessions: BTreeMap<String, String>,
    devices: BTreeMap<String, Client>,
}

/// What the API says of a room.
impl Room<'_> {
    fn path(&self, rest: &str) -> String {
        format!("/v1/rooms/{}{rest}", self.booked.room)
    }

    pub(super) fn id(&self, role: &str) -> String {
        self.booked.id(role)
    }

    /// The room as the booking system sees it.
    pub(super) async fn view(&self) -> Value {
        let server = self.day.server().await;
        server.get(&self.path(""), server.key("booking")).await
    }

    /// The room as this person sees it.
    pub(super) async fn seen_by(&self, role: &str) -> Value {
        self.day.server().await.get("/v1/session", &self.sessions[role]).await
    }

    pub(super) async fn is(&self, phase: &str) {
        let view = self.view().await;
        assert_eq!(view["phase"], phase, "{view}");
    }

    pub(super) async fn becomes(&self, phase: &str) {
        self.becomes_within(phase, SOON).await;
    }

    pub(super) async fn becomes_within(&self, phase: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let view = self.view().await;
            if view["phase"] == phase {
                return;
            }
            if Instant::now() > deadline {
                panic!("not {phase} within {patience:?}: {view}\n{}", self.told().await.join("\n"));
            }
            pass(GLANCE).await;
        }
    }

    /// The phase is looked at again and again for this long.
    pub(super) async fn stays(&self, phase: &str, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            let view = self.view().await;
            assert_eq!(view["phase"], phase, "{view}\n{}", self.told().await.join("\n"));
            pass(GLANCE).await;
        }
    }

    pub(super) async fn has_outcome(&self, outcome: &str) {
        let view = self.view().await;
        assert_eq!(view["outcome"], outcome, "{view}");
    }

    /// The types of the ledger's events, in order.
    pub(super) async fn told(&self) -> Vec<String> {
        let server = self.day.server().await;
        let ledger = server.get(&self.path("/ledger"), server.key("compliance")).await;
        ledger.as_array().unwrap().iter().map(|line| text(&line["event"]["type"])).collect()
    }

    /// How often the ledger tells of this.
    pub(super) async fn times_told(&self, event: &str) -> usize {
        self.told().await.iter().filter(|told| *told == event).count()
    }
}

/// The way in.
impl Room<'_> {
    async fn try_code(&self, role: &str, code: &str, take_over: bool) -> RequestBuilder {
        let path = format!("/v1/join/{}", text(&self.booked.invitation(role)["join_token"]));
        let body = if take_over { json!({"code": code, "take_over": true}) } else { json!({"code": code}) };
        self.day.server().await.anonymous(Method::POST, &path).json(&body)
    }

    fn code(&self, role: &str) -> String {
        text(&self.booked.invitation(role)["code"])
    }

    /// The person types a code that is not theirs; so many attempts are left then.
    pub(super) async fn mistypes(&self, role: &str, attempts_left: u8) {
        let wrong = if self.code(role) == "000000" { "000001" } else { "000000" };
        let problem = refused(self.try_code(role, wrong, false).await, 403, "wrong-code").await;
        assert_eq!(problem["attempts_left"], attempts_left, "{problem}");
    }

    /// The person types their code, and it does not help.
    pub(super) async fn code_is_refused(&self, role: &str, status: u16, slug: &str) -> Value {
        refused(self.try_code(role, &self.code(role), false).await, status, slug).await
    }

    /// The person types their code and is admitted.
    pub(super) async fn types_the_code(&mut self, role: &str) {
        let session = accepted(self.try_code(role, &self.code(role), false).await).await;
        self.sessions.insert(role.to_owned(), text(&session["session_token"]));
    }

    /// The person types their code on another device, and says that they mean it.
    pub(super) async fn takes_over(&mut self, role: &str) {
        let session = accepted(self.try_code(role, &self.code(role), true).await).await;
        self.sessions.insert(role.to_owned(), text(&session["session_token"]));
    }

    /// The person agrees to the recording.
    pub(super) async fn consents(&self, role: &str) {
        let version = self.seen_by(role).await["consent_text_version"].clone();
        self.post_as(role, "/v1/session/consent", &json!({"text_version": version})).await;
    }

    /// «Entra nella stanza».
    pub(super) async fn enters(&self, role: &str) {
        self.order_as(role, "/v1/session/enter").await;
    }

    /// From the code to the waiting room.
    pub(super) async fn waits(&mut self, role: &str) {
        self.types_the_code(role).await;
        self.consents(role).await;
        self.enters(role).await;
    }

    /// From the code into the room, with microphone and camera.
    pub(super) async fn comes_in(&mut self, role: &str) {
        self.waits(role).await;
        self.operator_admits(role).await;
        self.connects(role).await;
    }

    /// The session that this person has been given.
    pub(super) fn session(&self, role: &str) -> &str {
        &self.sessions[role]
    }

    /// What this person's page is told.
    pub(super) async fn events_of(&self, role: &str) -> Events {
        self.day.server().await.follow(&self.sessions[role]).await
    }

    pub(super) async fn session_is_over(&self, role: &str) {
        let server = self.day.server().await;
        refused(server.request(Method::GET, "/v1/session", &self.sessions[role]), 401, "unauthenticated").await;
    }

    async fn post_as(&self, role: &str, path: &str, body: &Value) -> Value {
        self.day.server().await.post(path, &self.sessions[role], body).await
    }

    async fn order_as(&self, role: &str, path: &str) {
        self.day.server().await.order(path, &self.sessions[role]).await;
    }
}

/// What the operator and the booking system do.
impl Room<'_> {
    /// The operator comes, opens the room and is in it with microphone and camera.
    pub(super) async fn operator_opens(&mut self) {
        self.waits("operator").await;
        self.order_as("operator", &self.path("/open")).await;
        self.connects("operator").await;
    }

    pub(super) async fn operator_admits(&self, role: &str) {
        self.order_as("operator", &self.path(&format!("/participants/{}/admit", self.id(role)))).await;
    }

    pub(super) async fn operator_sends_back(&self, role: &str) {
        self.order_as("operator", &self.path(&format!("/participants/{}/send-back", self.id(role)))).await;
    }

    pub(super) async fn operator_attests(&self, role: &str, beside: &str) {
        let path = self.path(&format!("/participants/{}/attest", self.id(role)));
        self.post_as("operator", &path, &json!({"beside": self.id(beside)})).await;
    }

    pub(super) async fn operator_withdraws_attestation(&self, role: &str) {
        let path = self.path(&format!("/participants/{}/attest", self.id(role)));
        accepted(self.day.server().await.request(Method::DELETE, &path, &self.sessions["operator"])).await;
    }

    pub(super) async fn operator_concludes(&self, outcome: &str, extension_hours: u16) {
        let conclusion = json!({"outcome": outcome, "extension_hours": extension_hours});
        self.post_as("operator", &self.path("/conclude"), &conclusion).await;
    }

    /// The outcome is refused; gives the problem.
    pub(super) async fn operator_may_not_conclude(&self, outcome: &str, slug: &str) -> Value {
        let server = self.day.server().await;
        let request = server.request(Method::POST, &self.path("/conclude"), &self.sessions["operator"]);
        refused(request.json(&json!({"outcome": outcome})), 409, slug).await
    }

    pub(super) async fn operator_extends(&self, hours: u16) {
        self.post_as("operator", &self.path("/extend"), &json!({"hours": hours})).await;
    }

    pub(super) async fn operator_may_not_extend(&self, hours: u16, slug: &str) {
        let server = self.day.server().await;
        let request = server.request(Method::POST, &self.path("/extend"), &self.sessions["operator"]);
        refused(request.json(&json!({"hours": hours})), 409, slug).await;
    }

    /// How many hours after the conclusion documents may still be handed in.
    pub(super) async fn extension_hours(&self) -> f64 {
        let server = self.day.server().await;
        let ledger = server.get(&self.path("/ledger"), server.key("compliance")).await;
        let concluded = ledger.as_array().unwrap().iter().find(|line| line["event"]["type"] == "concluded").unwrap();
        let concluded: Timestamp = text(&concluded["wall"]).parse().unwrap();
        let until: Timestamp = text(&self.seen_by("operator").await["extension_until"]).parse().unwrap();
        until.duration_since(concluded).as_secs_f64() / 3_600.0
    }

    pub(super) async fn is_cancelled(&self) {
        let server = self.day.server().await;
        server.order(&self.path("/cancel"), server.key("booking")).await;
    }

    /// The booking system moves the room to this start; it lasts half an hour.
    pub(super) async fn is_moved_to(&self, start: Timestamp) {
        let end = start + SignedDuration::from_mins(30);
        let server = self.day.server().await;
        let times = json!({"start": start.to_string(), "end": end.to_string()});
        let view = server.post(&self.path("/reschedule"), server.key("booking"), &times).await;
        assert_eq!(text(&view["start"]).parse::<Timestamp>().unwrap().as_second(), start.as_second());
    }

    /// The booking system puts another person in this one's place.
    pub(super) async fn is_replaced(&mut self, role: &str, name: &str) {
        let path = self.path(&format!("/participants/{}/replace", self.id(role)));
        let server = self.day.server().await;
        let invitation = server.post(&path, server.key("booking"), &json!({"role": role, "name": name})).await;
        drop(server);
        let people = self.booked.answer["participants"].as_array_mut().unwrap();
        *people.iter_mut().find(|person| person["role"] == role).unwrap() = invitation;
        self.sessions.remove(role);
    }

    /// How the room's people got in before something changed.
    pub(super) fn invitation(&self, role: &str) -> Value {
        self.booked.invitation(role).clone()
    }

    /// Types the code of an invitation that is not in force any more; gives status and problem.
    pub(super) async fn old_invitation_is_refused(&self, invitation: &Value, status: u16, slug: &str) {
        let path = format!("/v1/join/{}", text(&invitation["join_token"]));
        let server = self.day.server().await;
        let request = server.anonymous(Method::POST, &path).json(&json!({"code": invitation["code"]}));
        refused(request, status, slug).await;
    }
}

/// Microphones, cameras and networks.
impl Room<'_> {
    pub(super) async fn connects(&mut self, role: &str) {
        let hertz = match role {
            "operator" => 300,
            "delegato" => 500,
            _ => 800,
        };
        let part = Part {
            api: Api::new(&self.day.server().await.url("")),
            session: self.sessions[role].clone(),
            role: role.to_owned(),
            film: Arc::clone(&self.day.film),
            voice: Voice::tone(hertz).unwrap(),
            began: Instant::now(),
        };
        let mut client = Client::join(part).await.unwrap();
        let connected = tokio::time::timeout(SOON, client.connected()).await;
        assert_eq!(connected, Ok(true), "the {role} has no media connection");
        self.devices.insert(role.to_owned(), client);
    }

    pub(super) fn camera_goes_off(&self, role: &str) {
        self.devices[role].switch(Devices::CAMERA_OFF);
    }

    pub(super) fn camera_comes_on(&self, role: &str) {
        self.devices[role].switch(Devices::ON);
    }

    /// No packet comes from this person any more, and no goodbye.
    pub(super) fn network_is_lost(&mut self, role: &str) {
        self.devices.remove(role).unwrap().lose_network();
    }

    /// Everyone with a device receives voice and picture of everyone else with one.
    pub(super) async fn all_see_and_hear_each_other(&self) {
        for (listener, device) in &self.devices {
            for speaker in self.devices.keys().filter(|speaker| *speaker != listener) {
                for source in ["microphone", "camera"] {
                    let count = || device.packets_of(&self.id(speaker), source);
                    let (before, deadline) = (count(), Instant::now() + SOON);
                    while count() < before + 10 {
                        assert!(Instant::now() < deadline, "the {listener} does not receive the {speaker}'s {source}");
                        pass(GLANCE).await;
                    }
                }
            }
        }
    }

    /// No packet of media comes to anyone.
    pub(super) async fn nothing_flows(&self) {
        // What was sent before may still be on its way.
        pass(Duration::from_millis(300)).await;
        let count = || self.devices.values().map(Client::packets).sum::<u64>();
        let before = count();
        pass(Duration::from_millis(700)).await;
        assert_eq!(count(), before, "media flows while the room is {}", self.view().await["phase"]);
    }
}
