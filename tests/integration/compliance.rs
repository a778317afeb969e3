//! Compliance, with the real binary: a meeting is recorded, and then found, read, held and destroyed over the API.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use loadtest::api::Api;
use loadtest::client::{Client, Habits, Part};
use loadtest::media::{Film, Voice};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use sportello::audit;
use sportello::evidence::NOTE_TYPE;
use sportello::recording::sign::PublicKey;
use sportello::store::Store;

use crate::database::Database;
use crate::server::{Booked, Server, accepted, refused, text};

/// Longest wait for what happens by itself.
const SOON: Duration = Duration::from_secs(15);
const WHY: &str = "Reclamo 2026/17";
const CITIZEN: &str = "MLSCSR80A41H501W";

/// A server with one meeting that was recorded and is over.
struct Office {
    server: Server,
    room: String,
    compliance: String,
    /// Whoever holds this may do the same, and is somebody else.
    colleague: String,
}

impl Office {
    async fn after_a_meeting(database: Database) -> Self {
        let server = Server::start_on(database).await;
        let room = a_meeting(&server).await.room;
        let made = server.keys(&["create", "--scope", "compliance", "--name", "Collega"]).await;
        let colleague = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let compliance = server.key("compliance").to_owned();
        let office = Self { server, room, compliance, colleague };
        office.has_a_package().await;
        office
    }

    /// The recording waits to be sealed, or is.
    async fn has_a_package(&self) {
        let store = self.store().await;
        let room = self.room.parse().unwrap();
        let deadline = Instant::now() + SOON;
        while store.originals(room).await.unwrap().len() < 2 {
            assert!(Instant::now() < deadline, "the originals are not finished");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let now = Timestamp::now();
        store.package_recorded(room, now, now, now).await.unwrap();
        store.close().await;
    }

    async fn store(&self) -> Store {
        Store::open(&self.server.database()).await.unwrap()
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/recordings/{}{rest}", self.room)
    }

    fn ask(&self, method: Method, rest: &str, key: &str) -> RequestBuilder {
        self.server.request(method, &self.path(rest), key)
    }

    /// Opens an access; gives its token.
    async fn access(&self, key: &str) -> String {
        let opened = accepted(self.ask(Method::POST, "/accesses", key).json(&json!({"reason": WHY}))).await;
        text(&opened["token"])
    }

    fn read(&self, method: Method, rest: &str, token: &str) -> RequestBuilder {
        self.ask(method, rest, &self.compliance).header("Sportello-Access", token)
    }

    async fn search(&self, filter: Value) -> Vec<Value> {
        let page = accepted(self.searching(filter)).await;
        page["recordings"].as_array().unwrap().clone()
    }

    fn searching(&self, filter: Value) -> RequestBuilder {
        let Value::Object(mut filter) = filter else { panic!("no object") };
        filter.entry("reason").or_insert_with(|| WHY.into());
        self.server.request(Method::POST, "/v1/recordings/search", &self.compliance).json(&filter)
    }
}

/// An operator and a citizen see and hear each other for some seconds.
async fn a_meeting(server: &Server) -> Booked {
    let start = Timestamp::now();
    let end = start + SignedDuration::from_mins(20);
    let booking = json!({
        "profile": "videochiamata", "office": "Roma", "counter": "Informazioni", "reason": "Una visura",
        "start": start.to_string(), "end": end.to_string(),
        "participants": [
            {"role": "operator", "name": "Ofelia Quarantotti", "operator_number": "OP-042"},
            {"role": "citizen", "name": "Cesira Malaspina", "fiscal_code": CITIZEN},
        ],
    });
    let booked = server.book(&booking).await;
    let path = |rest: &str| format!("/v1/rooms/{}{rest}", booked.room);
    let operator = server.enter(booked.invitation("operator")).await;
    let citizen = server.enter(booked.invitation("citizen")).await;
    server.order(&path("/open"), &operator).await;
    server.order(&path(&format!("/participants/{}/admit", booked.id("citizen"))), &operator).await;
    let film = Arc::new(Film::built_in().unwrap());
    let mut devices = Vec::new();
    for (role, session, hertz) in [("operator", &operator, 300), ("citizen", &citizen, 500)] {
        let part = Part {
            api: Api::new(&server.url("")),
            session: session.clone(),
            role: role.to_owned(),
            film: Arc::clone(&film),
            voice: Voice::tone(hertz).unwrap(),
            began: Instant::now(),
            habits: Habits::default(),
        };
        let mut client = Client::join(part).await.unwrap();
        assert_eq!(tokio::time::timeout(SOON, client.connected()).await, Ok(true), "the {role} is not connected");
        devices.push(client);
    }
    let deadline = Instant::now() + SOON;
    while server.get(&path(""), server.key("booking")).await["phase"] != "live" {
        assert!(Instant::now() < deadline, "the meeting did not begin");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.post(&path("/conclude"), &operator, &json!({"outcome": "served"})).await;
    booked
}

/// Whether a film decodes from end to end, by a program that is not ours.
fn plays(film: &Path) {
    let output =
        Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(film).args(["-f", "null", "-"]).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", film.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_found_read_held_and_destroyed_with_sqlite() {
    a_recording_is_found_read_held_and_destroyed(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_found_read_held_and_destroyed_with_postgresql() {
    a_recording_is_found_read_held_and_destroyed(Database::Postgres).await;
}

async fn a_recording_is_found_read_held_and_destroyed(database: Database) {
    let mut office = Office::after_a_meeting(database).await;
    it_is_found_by_what_is_known_of_it(&office).await;
    nobody_reads_without_a_reason_and_an_access_of_their_own(&office).await;
    let token = office.access(&office.compliance).await;
    originals_are_read_in_ranges(&office, &token).await;
    a_hold_and_the_retention_keep_it(&office, &token).await;
    destroyed_it_cannot_be_read_and_the_note_remains(&office).await;
    office.server.has_not_said(&[token, CITIZEN.into(), "Malaspina".into()]);
    office.server.is_well().await;
}

async fn it_is_found_by_what_is_known_of_it(office: &Office) {
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let found = [
        json!({}),
        json!({"fiscal_code": CITIZEN.to_lowercase()}),
        json!({"room": office.room}),
        json!({"office": "Roma", "counter": "Informazioni"}),
        json!({"from": (now - hour).to_string(), "to": (now + hour).to_string()}),
    ];
    for filter in found {
        let recordings = office.search(filter.clone()).await;
        assert_eq!(recordings.len(), 1, "{filter}");
        assert_eq!(recordings[0]["room"], office.room.as_str());
        assert_eq!(recordings[0]["participants"][1]["name"], "Cesira Malaspina");
        assert_eq!(recordings[0]["outcome"], "served");
    }
    for filter in [
        json!({"fiscal_code": "RSSMRA80A41H501W"}),
        json!({"office": "Milano"}),
        json!({"to": (now - hour).to_string()}),
    ] {
        assert_eq!(office.search(filter.clone()).await, [json!(null); 0], "{filter}");
    }
    let problem = refused(office.searching(json!({"reason": "  "})), 422, "invalid-field").await;
    assert_eq!(problem["field"], "reason");
    let unexplained = office.server.request(Method::POST, "/v1/recordings/search", &office.compliance);
    refused(unexplained.json(&json!({})), 422, "invalid-field").await;
    let problem = refused(office.searching(json!({"fiscal_code": "MALASPINA"})), 422, "invalid-field").await;
    assert_eq!(problem["field"], "fiscal_code");
    assert!(!problem.to_string().contains("MALASPINA"), "what was typed is not said again: {problem}");
}

async fn nobody_reads_without_a_reason_and_an_access_of_their_own(office: &Office) {
    for scope in ["booking", "operator", "metrics"] {
        let key = office.server.key(scope);
        let reason = json!({"reason": WHY});
        refused(office.ask(Method::POST, "/accesses", key).json(&reason), 403, "forbidden").await;
        refused(office.ask(Method::GET, "/originals", key).header("Sportello-Access", "x"), 403, "forbidden").await;
        let search = office.server.request(Method::POST, "/v1/recordings/search", key).json(&reason);
        refused(search, 403, "forbidden").await;
    }
    let empty = office.ask(Method::POST, "/accesses", &office.compliance).json(&json!({"reason": ""}));
    assert_eq!(refused(empty, 422, "invalid-field").await["field"], "reason");
    refused(office.ask(Method::GET, "/originals", &office.compliance), 403, "access-required").await;
    refused(office.read(Method::GET, "/originals", "another"), 403, "access-required").await;
    refused(office.server.anonymous(Method::GET, &office.path("/originals")), 401, "unauthenticated").await;

    let token = office.access(&office.compliance).await;
    accepted(office.read(Method::GET, "/originals", &token)).await;
    let stolen = office.ask(Method::GET, "/originals", &office.colleague).header("Sportello-Access", &token);
    refused(stolen, 403, "access-required").await;
    let own = office.access(&office.colleague).await;
    accepted(office.ask(Method::GET, "/originals", &office.colleague).header("Sportello-Access", own)).await;
    // A media element sends no headers; what changes something needs a key all the same.
    let query = |token: &str| office.path(&format!("/originals/citizen-1.webm?access={token}"));
    let element = office.server.anonymous(Method::GET, &query(&token)).send().await.unwrap();
    assert_eq!(element.status(), StatusCode::OK);
    refused(office.server.anonymous(Method::GET, &query("another")), 401, "unauthenticated").await;
    let link = office.path(&format!("/hold?access={token}"));
    refused(office.server.anonymous(Method::DELETE, &link), 401, "unauthenticated").await;
    let nowhere = "/v1/recordings/0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11/accesses";
    let asked = office.server.request(Method::POST, nowhere, &office.compliance).json(&json!({"reason": WHY}));
    refused(asked, 404, "unknown-recording").await;
}

async fn originals_are_read_in_ranges(office: &Office, token: &str) {
    let listed = accepted(office.read(Method::GET, "/originals", token)).await;
    let files: Vec<_> = listed.as_array().unwrap().iter().map(|view| text(&view["file"])).collect();
    for file in ["citizen-1.webm", "citizen-1.chain.jsonl", "citizen-1.rtcp.jsonl", "operator-1.webm"] {
        assert!(files.iter().any(|known| known == file), "{file} is not in {files:?}");
    }
    let original = "/originals/citizen-1.webm";
    let whole = office.read(Method::GET, original, token).send().await.unwrap();
    assert_eq!(whole.status(), StatusCode::OK);
    let said = |name: &str| whole.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((said("cache-control"), said("x-content-type-options")), ("no-store".into(), "nosniff".into()));
    assert_eq!((said("content-type"), said("accept-ranges")), ("video/webm".into(), "bytes".into()));
    assert_eq!(said("content-disposition"), "attachment; filename=\"citizen-1.webm\"");
    let length: usize = said("content-length").parse().unwrap();
    let whole = whole.bytes().await.unwrap();
    assert_eq!(whole.len(), length);
    let film = office.server.data().join("citizen-1.webm");
    std::fs::write(&film, &whole).unwrap();
    plays(&film);

    for (range, expected) in [
        ("bytes=0-3".to_owned(), 0..4),
        (format!("bytes={}-", length - 5), length - 5..length),
        ("bytes=-10".to_owned(), length - 10..length),
        (format!("bytes=1000-{}", length * 2), 1_000..length),
    ] {
        let part = office.read(Method::GET, original, token).header(header::RANGE, &range).send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let said = part.headers()["content-range"].to_str().unwrap().to_owned();
        assert_eq!(said, format!("bytes {}-{}/{length}", expected.start, expected.end - 1));
        assert!(part.bytes().await.unwrap() == whole[expected], "{range}");
    }
    let behind = office.read(Method::GET, original, token).header(header::RANGE, format!("bytes={length}-"));
    let behind = behind.send().await.unwrap();
    assert_eq!(behind.headers()["content-range"].to_str().unwrap(), format!("bytes */{length}"));
    crate::server::problem(behind, 416, "range-not-satisfiable").await;
    let head = office.read(Method::HEAD, original, token).send().await.unwrap();
    assert_eq!(
        (head.status(), head.headers()["content-length"].to_str().unwrap()),
        (StatusCode::OK, &*length.to_string())
    );
    refused(office.read(Method::GET, "/originals/nobody-1.webm", token), 404, "unknown-file").await;
    refused(office.read(Method::GET, "/originals/..%2Fcitizen-1.webm", token), 404, "unknown-file").await;
}

async fn a_hold_and_the_retention_keep_it(office: &Office, token: &str) {
    let destroy = || office.ask(Method::POST, "/destroy", &office.compliance).json(&json!({"reason": "Scarto"}));
    refused(destroy(), 409, "retention-not-over").await;
    let retention = |until: Timestamp| {
        let body = json!({"until": until.to_string(), "reason": "Massimario"});
        office.ask(Method::PUT, "/retention", &office.compliance).json(&body)
    };
    accepted(retention(Timestamp::now() + SignedDuration::from_hours(24))).await;
    refused(destroy(), 409, "retention-not-over").await;
    // Held first: what is due would otherwise be destroyed by itself.
    let hold = json!({"reason": "Procura di Roma, proc. 1234/26"});
    accepted(office.ask(Method::PUT, "/hold", &office.compliance).json(&hold)).await;
    accepted(retention(Timestamp::now())).await;
    refused(destroy(), 409, "on-hold").await;
    let found = office.search(json!({"room": office.room})).await;
    assert_eq!(found[0]["hold"]["reason"], "Procura di Roma, proc. 1234/26");
    accepted(retention(Timestamp::now() + SignedDuration::from_hours(24))).await;
    accepted(office.read(Method::DELETE, "/hold", token)).await;
    refused(office.read(Method::DELETE, "/hold", token), 409, "not-on-hold").await;
}

async fn destroyed_it_cannot_be_read_and_the_note_remains(office: &Office) {
    let key = accepted(office.server.anonymous(Method::GET, "/v1/signing-key")).await;
    let key = PublicKey::parse(&key.to_string()).unwrap();
    let body = json!({"until": Timestamp::now().to_string(), "reason": "Massimario"});
    // While it is being sealed nothing is destroyed; what is due may also be destroyed by itself at this moment.
    let deadline = Instant::now() + SOON;
    accepted(office.ask(Method::PUT, "/retention", &office.compliance).json(&body)).await;
    loop {
        let destroy = office.ask(Method::POST, "/destroy", &office.compliance).json(&json!({"reason": "Scarto"}));
        let answer = destroy.send().await.unwrap().status();
        if answer == StatusCode::OK || answer == StatusCode::GONE {
            break;
        }
        assert!(answer == StatusCode::CONFLICT && Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let found = office.search(json!({"room": office.room})).await;
    assert_eq!(found[0]["state"], "destroyed");
    let note = key.open(NOTE_TYPE, text(&found[0]["destruction_note"]).as_bytes()).unwrap();
    let note: Value = serde_json::from_slice(&note).unwrap();
    assert_eq!(note["room"], office.room.as_str());

    let token = office.access(&office.compliance).await;
    refused(office.read(Method::GET, "/originals/citizen-1.webm", &token), 410, "destroyed").await;
    refused(office.read(Method::GET, "/manifest", &token), 410, "destroyed").await;
    let folder = office.server.data().join("recordings").join(&office.room);
    assert!(!folder.exists(), "its files are left");
    accepted(office.read(Method::GET, "/ledger", &token)).await;

    // The audit tells all of it, and holds together.
    let history = accepted(office.read(Method::GET, "/accesses", &token)).await;
    let lines: Vec<audit::Line> = serde_json::from_value(history).unwrap();
    audit::verify_room(&lines).unwrap();
    for action in [
        audit::Action::AccessOpened,
        audit::Action::OriginalRead,
        audit::Action::HoldPlaced,
        audit::Action::HoldLifted,
        audit::Action::RetentionSet,
        audit::Action::Destroyed,
    ] {
        assert!(lines.iter().any(|line| line.action == action), "{action:?}");
    }
    assert!(lines.iter().all(|line| line.caller.starts_with("key:") || line.caller == "node"));
    let mut changed = lines;
    changed[1].reason.push('!');
    assert!(audit::verify_room(&changed).is_err());
    let store = office.store().await;
    let whole = store.audit(0, 1_000).await.unwrap();
    audit::verify(&whole).unwrap();
    assert!(whole.iter().any(|line| line.action == audit::Action::Searched && line.room.is_none()));
    store.close().await;
}
