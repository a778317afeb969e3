//! A meeting whose media is numbered: the real server, the room's people, and what each of them sent and heard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use loadtest::api::Api;
use loadtest::client::{Client, Devices, Habits, Part};
use loadtest::media::{Film, Voice};
use loadtest::numbered::Record;
use loadtest::report::ClientReport;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::recorded::Original;
use crate::database::Database;
use crate::server::{Booked, Server, delega, refused};

/// Longest wait for what should happen at once, on a machine that is busy with other tests.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// How often a room is looked at while something is awaited.
pub(super) const GLANCE: Duration = Duration::from_millis(50);

/// `delega` without its minute of presence: the tests here are about media. GRACE is the test's own.
const PROFILE: &str = r#"
    name = "delega"
    required = ["operator", "delegato", "delegante"]
    outcomes = ["granted", "refused", "incomplete"]
    slot_minutes = 30
    admission_opens_minutes = 15
    code_digits = 6
    code_attempts = 5
    absence_grace_seconds = GRACE
    minimum_presence_seconds = 1
    longest_absence_seconds = 600
    longest_extension_hours = 72
"#;

/// What a meeting's server is started with.
#[derive(Clone, Copy)]
pub(super) struct Setup<'a> {
    /// Names below `SPORTELLO__`.
    pub configuration: &'a [(&'a str, &'a str)],
    /// Whole names.
    pub environment: &'a [(&'a str, &'a str)],
    /// How long someone may be absent, seconds.
    pub grace: u32,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { configuration: &[], environment: &[], grace: 10 }
    }
}

/// Who meets, in the order of their numbers.
pub(super) const ROLES: [&str; 3] = ["operator", "delegato", "delegante"];

/// The frequency of the person's voice, hertz.
pub(super) fn tone_of(role: &str) -> u16 {
    300 + 250 * u16::try_from(ROLES.iter().position(|other| *other == role).unwrap()).unwrap()
}

/// A room with everyone let in.
pub(super) struct Meeting {
    pub server: Server,
    pub booked: Booked,
    people: BTreeMap<&'static str, Person>,
    film: Arc<Film>,
    kept: TempDir,
    _profiles: TempDir,
}

struct Person {
    session: String,
    record: Arc<Record>,
    device: Option<Client>,
}

impl Meeting {
    /// A server and a room whose people were all let in; nobody sends yet.
    pub(super) async fn opens(setup: Setup<'_>) -> Self {
        let profiles = TempDir::new().unwrap();
        let profile = PROFILE.replace("GRACE", &setup.grace.to_string());
        std::fs::write(profiles.path().join("delega.toml"), profile).unwrap();
        let mut configuration = vec![("ROOMS__PROFILES", profiles.path().to_str().unwrap())];
        configuration.extend_from_slice(setup.configuration);
        let server = Server::start_in(setup.environment, Database::Sqlite, &configuration).await;
        let mut booking = delega();
        // Some tests set the clock.
        booking["end"] = json!((Timestamp::now() + SignedDuration::from_hours(5)).to_string());
        let (booked, operator) = server.book_and_open(&booking).await;
        let mut people = BTreeMap::new();
        for (number, role) in (0..).zip(ROLES) {
            let session = match role {
                "operator" => operator.clone(),
                _ => server.enter(booked.invitation(role)).await,
            };
            if role != "operator" {
                let path = format!("/v1/rooms/{}/participants/{}/admit", booked.room, booked.id(role));
                server.order(&path, &operator).await;
            }
            people.insert(role, Person { session, record: Arc::new(Record::new(number)), device: None });
        }
        Self {
            server,
            booked,
            people,
            film: Arc::new(Film::built_in().unwrap()),
            kept: TempDir::new().unwrap(),
            _profiles: profiles,
        }
    }

    /// The same with everyone's microphone and camera on, and the room live.
    pub(super) async fn is_live(setup: Setup<'_>, habits: impl Fn(&str) -> Habits) -> Self {
        let mut meeting = Self::opens(setup).await;
        for role in ROLES {
            meeting.connects_with(role, habits(role)).await;
        }
        meeting.becomes("live").await;
        meeting
    }

    /// What this person sent and heard.
    pub(super) fn record(&self, role: &str) -> &Record {
        &self.people[role].record
    }

    /// The person comes with microphone and camera, and a usual network.
    pub(super) async fn connects(&mut self, role: &'static str) {
        self.connects_with(role, Habits::default()).await;
    }

    /// The person comes with microphone, camera and these habits; everything that they send is numbered.
    pub(super) async fn connects_with(&mut self, role: &'static str, habits: Habits) {
        let (api, film) = (Api::new(&self.server.url("")), Arc::clone(&self.film));
        self.people.get_mut(role).unwrap().connects(role, api, film, habits).await;
    }

    /// Everyone does, at the same time.
    pub(super) async fn everyone_connects(&mut self) {
        let (url, film) = (self.server.url(""), &self.film);
        let people = self.people.iter_mut();
        join_all(
            people.map(|(role, person)| person.connects(role, Api::new(&url), Arc::clone(film), Habits::default())),
        )
        .await;
    }

    /// No packet comes from anyone any more, and no goodbye.
    pub(super) fn everyone_is_cut_off(&mut self) {
        self.people.values_mut().filter_map(|person| person.device.take()).for_each(|device| device.lose_network());
    }

    /// The person's device, which must be on.
    pub(super) fn device(&self, role: &str) -> &Client {
        self.people[role].device.as_ref().unwrap()
    }

    /// The person falls silent and hangs up; what was under way arrives before. Gives what their device counted.
    pub(super) async fn leaves(&mut self, role: &str) -> ClientReport {
        let device = self.people.get_mut(role).unwrap().device.take().unwrap();
        device.switch(Devices::OFF);
        tokio::time::sleep(Duration::from_millis(500)).await;
        device.leave().await.unwrap()
    }

    /// Everyone does.
    async fn everyone_leaves(&mut self) {
        for device in self.people.values().filter_map(|person| person.device.as_ref()) {
            device.switch(Devices::OFF);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        for person in self.people.values_mut() {
            if let Some(device) = person.device.take() {
                device.leave().await.unwrap();
            }
        }
    }

    /// The room as this person sees it.
    pub(super) async fn seen_by(&self, role: &str) -> Value {
        self.server.get("/v1/session", &self.people[role].session).await
    }

    /// The room as the booking system sees it.
    pub(super) async fn view(&self) -> Value {
        self.server.get(&format!("/v1/rooms/{}", self.booked.room), self.server.key("booking")).await
    }

    pub(super) async fn becomes(&self, phase: &str) {
        self.sees(phase, SOON, |view| view["phase"] == phase).await;
    }

    /// Waits for the room's view to fit.
    pub(super) async fn sees(&self, what: &str, patience: Duration, fits: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + patience;
        loop {
            let view = self.view().await;
            if fits(&view) {
                return;
            }
            if Instant::now() > deadline {
                let told: Vec<_> = self.ledger().await.iter().map(|line| line["event"].to_string()).collect();
                panic!("not within {patience:?}: {what}: {view}\n{}", told.join("\n"));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// The room's ledger.
    pub(super) async fn ledger(&self) -> Vec<Value> {
        let path = format!("/v1/rooms/{}/ledger", self.booked.room);
        self.server.get(&path, self.server.key("compliance")).await.as_array().unwrap().clone()
    }

    /// The events of this type in the ledger.
    pub(super) async fn told(&self, event: &str) -> Vec<Value> {
        let events = self.ledger().await.into_iter().map(|line| line["event"].clone());
        events.filter(|told| told["type"] == event).collect()
    }

    /// Everyone falls silent and hangs up, and the operator concludes. What was recorded is kept for the test: the node
    /// removes it when it has sealed the package.
    pub(super) async fn ends(&mut self) {
        self.everyone_leaves().await;
        let recordings = self.server.data().join("recordings").join(&self.booked.room);
        let deadline = Instant::now() + SOON;
        while let Some(open) = open_original(&recordings) {
            assert!(Instant::now() < deadline, "{} is not finished", open.display());
            tokio::time::sleep(GLANCE).await;
        }
        std::fs::create_dir(self.folder()).unwrap();
        for entry in std::fs::read_dir(&recordings).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, self.folder().join(path.file_name().unwrap())).unwrap();
        }
        export(&self.server, &self.folder(), &self.plain()).await;
        self.is_concluded("incomplete").await;
        self.becomes("closed").await;
    }

    /// The operator ends the meeting.
    pub(super) async fn is_concluded(&self, outcome: &str) {
        let conclusion = json!({"outcome": outcome, "extension_hours": 0});
        let path = format!("/v1/rooms/{}/conclude", self.booked.room);
        self.server.post(&path, &self.people["operator"].session, &conclusion).await;
    }

    /// The outcome is refused.
    pub(super) async fn may_not_be_concluded(&self, outcome: &str, slug: &str) {
        let path = format!("/v1/rooms/{}/conclude", self.booked.room);
        let request = self.server.request(Method::POST, &path, &self.people["operator"].session);
        refused(request.json(&json!({"outcome": outcome})), 409, slug).await;
    }

    /// Copies of everything that was recorded, as it was when the meeting ended: encrypted.
    pub(super) fn folder(&self) -> PathBuf {
        // `sportello export` finds the key by the room's id.
        self.kept.path().join(&self.booked.room)
    }

    /// The same as `sportello export` writes it: plain.
    fn plain(&self) -> PathBuf {
        self.kept.path().join("plain")
    }

    /// The room's originals whose names begin with the role, in the order of their numbers.
    pub(super) fn originals(&self, role: &str) -> Vec<Original> {
        originals_in(&self.plain(), role)
    }
}

impl Person {
    async fn connects(&mut self, role: &str, api: Api, film: Arc<Film>, habits: Habits) {
        let part = Part {
            api,
            session: self.session.clone(),
            role: role.to_owned(),
            film,
            voice: Voice::tone(tone_of(role)).unwrap(),
            began: Instant::now(),
            habits: Habits { record: Some(Arc::clone(&self.record)), ..habits },
        };
        let mut client = Client::join(part).await.unwrap();
        let connected = tokio::time::timeout(SOON, client.connected()).await;
        assert_eq!(connected, Ok(true), "the {role} has no media connection");
        self.device = Some(client);
    }
}

/// `sportello export` writes recordings plain.
pub(super) async fn export(server: &Server, from: &Path, to: &Path) {
    let output = server.runs(&["export", from.to_str().unwrap(), "--out", to.to_str().unwrap()]).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", from.display());
}

/// An original in the folder that is still being written: the last line beside it says neither that it was closed nor
/// that it was recovered.
fn open_original(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut lines = entries.filter(|path| path.to_str().unwrap().ends_with(".rtcp.jsonl"));
    lines.find(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let last = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
        !last.is_some_and(|line| line["type"] == "closed" || line["type"] == "recovered")
    })
}

/// The originals in a folder whose names begin with the role, in the order of their numbers.
pub(super) fn originals_in(folder: &Path, role: &str) -> Vec<Original> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let webm = entries.filter(|path| path.extension().is_some_and(|extension| extension == "webm"));
    let number = |path: &Path| -> Option<u32> {
        path.file_stem()?.to_str()?.strip_prefix(role)?.strip_prefix('-')?.parse().ok()
    };
    let mut numbered: Vec<_> = webm.filter_map(|path| Some((number(&path)?, path))).collect();
    numbered.sort();
    numbered.into_iter().map(|(_, path)| Original::read(&path)).collect()
}
