//! A server process of a test's own, and the people and systems that call it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use str0m::media::{Direction, MediaKind};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::database::{Database, Postgres};

/// A debug build on a machine that is busy with other tests.
const LONGEST_START: Duration = Duration::from_secs(20);
/// Longest wait for anything that the server should tell by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a process is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// It is asked to.
    Term,
    /// It is not asked.
    Kill,
}

/// A running `sportello serve`. Ended by its process id when dropped.
pub(crate) struct Server {
    child: Child,
    said: Arc<Mutex<String>>,
    kept: Kept,
    http: reqwest::Client,
    address: SocketAddr,
    /// As printed at its first start: scope and key.
    keys: Vec<(String, String)>,
}

/// What stays when the process ends.
struct Kept {
    data: TempDir,
    database: Option<Postgres>,
    /// Configuration and environment of the test's own.
    configuration: Vec<(String, String)>,
}

impl Kept {
    fn serve(&self) -> (Child, Arc<Mutex<String>>) {
        let mut command = sportello();
        command
            .arg("serve")
            .current_dir(self.data.path())
            .env("SPORTELLO__HTTP__LISTEN", "127.0.0.1:0")
            .env("SPORTELLO__MEDIA__BIND", "127.0.0.1")
            .env("SPORTELLO__MEDIA__ANNOUNCE", "[\"127.0.0.1\"]")
            .env("SPORTELLO__MEDIA__FIRST_PORT", "0")
            .env("SPORTELLO__MEDIA__WORKERS", "1")
            .env("SPORTELLO__STORAGE__DATA_DIR", self.data.path())
            // Many rooms of half an hour at once must not fill the disk of the machine that tests.
            .env("SPORTELLO__RECORDING__RESERVE_BYTES_PER_SECOND", "2000")
            .env("SPORTELLO__RECORDING__RESERVE_FLOOR_MB", "0")
            .envs(self.configuration.iter().map(|(name, value)| (name, value)));
        if let Some(database) = &self.database {
            command.env("SPORTELLO__STORAGE__DATABASE", &database.url);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().unwrap(), &said);
        listen(child.stderr.take().unwrap(), &said);
        (child, said)
    }
}

impl Server {
    /// Starts one on an empty data folder.
    pub(crate) async fn start() -> Self {
        Self::start_on(Database::Sqlite).await
    }

    /// Starts one with an empty database of this kind.
    pub(crate) async fn start_on(database: Database) -> Self {
        Self::start_with(database, &[]).await
    }

    /// Starts one with configuration of the test's own: names below `SPORTELLO__`, like `ROOMS__PROFILES`.
    pub(crate) async fn start_with(database: Database, configuration: &[(&str, &str)]) -> Self {
        Self::start_in(&[], database, configuration).await
    }

    /// The same in an environment of the test's own, with whole names.
    pub(crate) async fn start_in(
        environment: &[(&str, &str)],
        database: Database,
        configuration: &[(&str, &str)],
    ) -> Self {
        let database = match database {
            Database::Sqlite => None,
            Database::Postgres => Some(Postgres::create().await),
        };
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let configuration =
            configuration.iter().map(|(name, value)| (format!("SPORTELLO__{name}"), (*value).to_owned()));
        let configuration = environment.chain(configuration).collect();
        Self::spawn(Kept { data: TempDir::new().unwrap(), database, configuration }, true).await
    }

    /// Starts one on this data; at its first start there it prints its keys.
    async fn spawn(kept: Kept, first: bool) -> Self {
        let (child, said) = kept.serve();
        let address = SocketAddr::from(([0; 4], 0));
        let mut server = Self { child, said, kept, http: reqwest::Client::new(), address, keys: Vec::new() };
        server.wait_until_ready(first).await;
        server
    }

    /// The server prints its keys at its first start, then where it listens.
    async fn wait_until_ready(&mut self, first: bool) {
        let deadline = Instant::now() + LONGEST_START;
        while Instant::now() < deadline && self.child.try_wait().unwrap().is_none() {
            let address = listening_address(&self.said.lock().unwrap());
            if let Some(address) = address {
                self.address = address;
                let printed = printed_keys(&self.said.lock().unwrap());
                assert_eq!(printed.is_empty(), !first, "keys are printed at the first start, and only then");
                self.keys.extend(printed);
                self.is_well().await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the server did not start");
    }

    /// Ends the process with `signal` and starts another one on the same data.
    pub(crate) async fn restart(mut self, signal: Signal) -> Self {
        self.end(signal);
        self.come_back().await;
        self
    }

    /// Starts a process on the same data, after the one before has ended.
    pub(crate) async fn come_back(&mut self) {
        (self.child, self.said) = self.kept.serve();
        self.wait_until_ready(false).await;
    }

    /// Sends a signal to the process and waits for its end.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        match signal {
            Signal::Kill => self.child.kill().unwrap(),
            // The standard library sends no other signal; every shell can.
            Signal::Term => {
                let order = format!("kill -TERM {}", self.child.id());
                assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not end within 10 s of {signal:?}");
    }

    /// Where its database is, as the store opens it.
    pub(crate) fn database(&self) -> String {
        let file = || self.data().join("sportello.db").display().to_string();
        self.kept.database.as_ref().map_or_else(file, |database| database.url.clone())
    }

    /// The folder with its recordings.
    pub(crate) fn data(&self) -> &Path {
        self.kept.data.path()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Runs `sportello keys …` on its database.
    pub(crate) async fn keys(&self, arguments: &[&str]) -> Output {
        self.runs(&[&["keys"], arguments].concat()).await
    }

    /// Runs `sportello …` on its data and database.
    pub(crate) async fn runs(&self, arguments: &[&str]) -> Output {
        let mut command = sportello();
        command.args(arguments).env("SPORTELLO__STORAGE__DATA_DIR", self.data());
        if let Some(database) = &self.kept.database {
            command.env("SPORTELLO__STORAGE__DATABASE", &database.url);
        }
        // The test may have to answer meanwhile, as the node's issuer.
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Asserts that none of these is in what the process has printed since it started.
    pub(crate) fn has_not_said(&self, secrets: &[String]) {
        let said = self.said.lock().unwrap();
        for secret in secrets {
            assert!(!said.contains(secret.as_str()), "the log tells a secret");
        }
    }

    /// Asserts that none of these is in its files (a database with its write-ahead log among them) or in its database.
    pub(crate) async fn does_not_keep(&self, secrets: &[String]) {
        let mut kept = everything_in(self.data());
        if let Some(database) = &self.kept.database {
            kept.push(database.dump().await);
        }
        let names = kept.iter().any(|text| text.contains("Ofelia Quarantotti"));
        assert!(names, "this does not look where things are kept: every booking here names her");
        for secret in secrets {
            // A dump shows binary columns in hex.
            for form in [secret.clone(), hex::encode(secret)] {
                assert!(!kept.iter().any(|text| text.contains(&form)), "a secret is kept in the clear");
            }
        }
    }

    /// Address of the HTTP socket, for tests that write their own requests.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The API key with this scope.
    pub(crate) fn key(&self, scope: &str) -> &str {
        let found = self.keys.iter().find(|(name, _)| name == scope);
        &found.unwrap_or_else(|| panic!("no {scope} key was printed")).1
    }

    /// A request with this bearer.
    pub(crate) fn request(&self, method: Method, path: &str, bearer: &str) -> RequestBuilder {
        self.http.request(method, self.url(path)).bearer_auth(bearer)
    }

    /// A request without any authorization.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str, bearer: &str) -> Value {
        accepted(self.request(Method::GET, path, bearer)).await
    }

    /// A POST that must be accepted.
    pub(crate) async fn post(&self, path: &str, bearer: &str, body: &Value) -> Value {
        accepted(self.request(Method::POST, path, bearer).json(body)).await
    }

    /// A POST without a body that must be accepted.
    pub(crate) async fn order(&self, path: &str, bearer: &str) {
        accepted(self.request(Method::POST, path, bearer)).await;
    }

    /// Books a room.
    pub(crate) async fn book(&self, booking: &Value) -> Booked {
        let answer = self.post("/v1/rooms", self.key("booking"), booking).await;
        Booked { room: text(&answer["room"]["id"]), answer }
    }

    /// Types a person's code; gives the session token.
    pub(crate) async fn admit(&self, invitation: &Value) -> String {
        let path = format!("/v1/join/{}", text(&invitation["join_token"]));
        let code = json!({"code": invitation["code"]});
        text(&accepted(self.anonymous(Method::POST, &path).json(&code)).await["session_token"])
    }

    /// The right code on another device, whose person has been asked.
    pub(crate) async fn take_over(&self, invitation: &Value) -> String {
        let path = format!("/v1/join/{}", text(&invitation["join_token"]));
        let code = json!({"code": invitation["code"], "take_over": true});
        text(&accepted(self.anonymous(Method::POST, &path).json(&code)).await["session_token"])
    }

    /// From the code to the waiting room; gives the session token.
    pub(crate) async fn enter(&self, invitation: &Value) -> String {
        let token = self.admit(invitation).await;
        let version = self.get("/v1/session", &token).await["consent_text_version"].clone();
        self.post("/v1/session/consent", &token, &json!({"text_version": version})).await;
        self.order("/v1/session/enter", &token).await;
        token
    }

    /// A `delega` room with its operator inside; gives the room and the operator's session.
    pub(crate) async fn open_room(&self) -> (Booked, String) {
        self.book_and_open(&delega()).await
    }

    /// The same with a booking of the test's own.
    pub(crate) async fn book_and_open(&self, booking: &Value) -> (Booked, String) {
        let booked = self.book(booking).await;
        let operator = self.enter(booked.invitation("operator")).await;
        self.order(&format!("/v1/rooms/{}/open", booked.room), &operator).await;
        (booked, operator)
    }

    /// The sum of a counter over its labels; 0 if it was never counted.
    pub(crate) async fn counter(&self, name: &str) -> f64 {
        let metrics = self.request(Method::GET, "/metrics", self.key("metrics")).send().await.unwrap();
        assert_eq!(metrics.status(), StatusCode::OK);
        metrics
            .text()
            .await
            .unwrap()
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until a counter has grown beyond `before`.
    pub(crate) async fn counts_beyond(&self, name: &str, before: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.counter(name).await <= before {
            assert!(Instant::now() < deadline, "{name} did not grow beyond {before}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asserts that the process lives, answers, and that nothing in it panicked.
    pub(crate) async fn is_well(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the process is gone");
        let health = self.http.get(self.url("/healthz")).send().await.unwrap();
        assert_eq!(health.status(), StatusCode::OK);
        let said = self.said.lock().unwrap();
        assert!(!said.contains("panicked"), "something panicked");
    }

    /// Follows a session's events.
    pub(crate) async fn follow(&self, session: &str) -> Events {
        let mut request = format!("ws://{}/v1/session/events", self.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {session}").parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Events { socket }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server said ---\n{}", self.said.lock().unwrap());
        }
    }
}

/// A session's event WebSocket.
pub(crate) struct Events {
    socket: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
}

impl Events {
    /// Waits for a session view that fits.
    pub(crate) async fn session(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let message = self.socket.next().await.expect("the server closed the events").unwrap();
                let Ok(text) = message.to_text() else { continue };
                let Ok(message) = serde_json::from_str::<Value>(text) else { continue };
                if message["type"] == "session" && fits(&message["session"]) {
                    return message["session"].clone();
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no session view: {what}"))
    }

    /// Waits for the server to close; gives the close code.
    pub(crate) async fn closed(&mut self) -> u16 {
        let wait = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(tokio_tungstenite::tungstenite::Message::Close(Some(frame)))) => return frame.code.into(),
                    Some(Ok(_)) => {}
                    other => panic!("closed without a code: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the server did not close")
    }
}

/// A booked room.
pub(crate) struct Booked {
    /// The room's id.
    pub room: String,
    /// The booking's whole answer.
    pub answer: Value,
}

impl Booked {
    /// How the person with this role gets in.
    pub(crate) fn invitation(&self, role: &str) -> &Value {
        let people = self.answer["participants"].as_array().unwrap();
        people.iter().find(|person| person["role"] == role).unwrap_or_else(|| panic!("no {role} was booked"))
    }

    /// The participant's id.
    pub(crate) fn id(&self, role: &str) -> String {
        text(&self.invitation(role)["id"])
    }
}

/// The binary under test, with no configuration from this shell.
pub(crate) fn sportello() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sportello"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SPORTELLO__")) {
        command.env_remove(name);
    }
    command
}

/// A booking of a `delega` room from now.
pub(crate) fn delega() -> Value {
    delega_from(Timestamp::now())
}

/// A booking of a `delega` room of half an hour.
pub(crate) fn delega_from(start: Timestamp) -> Value {
    let end = start + SignedDuration::from_mins(30);
    json!({
        "profile": "delega", "office": "Roma", "counter": "Deleghe", "reason": "Delega dell'identità digitale",
        "start": start.to_string(), "end": end.to_string(), "reference": "PRN-2026-000123",
        "participants": [
            {"role": "operator", "name": "Ofelia Quarantotti", "operator_number": "OP-042"},
            {"role": "delegato", "name": "Dario Bevilacqua", "fiscal_code": "BVLDRA80A01H501U", "phone": "+393331234567"},
            {"role": "delegante", "name": "Zenobia Tagliaferri", "fiscal_code": "TGLZNB50A41H501W"},
        ],
    })
}

/// An offer that a server may answer: a microphone, a camera, and a slot of each kind.
pub(crate) fn offer() -> String {
    let mut rtc = str0m::Rtc::new(Instant::now());
    let mut changes = rtc.sdp_api();
    for direction in [Direction::SendOnly, Direction::RecvOnly] {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            changes.add_media(kind, direction, None, None, None);
        }
    }
    changes.apply().unwrap().0.to_sdp_string()
}

/// Sends, and asserts that the server accepts; gives the JSON of the answer, null if it has no body.
pub(crate) async fn accepted(request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let (status, url) = (response.status(), response.url().path().to_owned());
    let body = response.text().await.unwrap();
    assert!(status.is_success(), "{url}: {status} {body}");
    if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() }
}

/// Sends, and asserts that the server refuses with this status and problem; gives the problem document.
pub(crate) async fn refused(request: RequestBuilder, status: u16, slug: &str) -> Value {
    let response = request.send().await.unwrap();
    problem(response, status, slug).await
}

/// Asserts that a response is this problem (RFC 9457); gives the document.
pub(crate) async fn problem(response: Response, status: u16, slug: &str) -> Value {
    let (found, url) = (response.status().as_u16(), response.url().path().to_owned());
    let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let body = response.text().await.unwrap();
    assert_eq!(found, status, "{url}: {body}");
    assert_eq!(content_type.as_deref(), Some("application/problem+json"), "{url}: {body}");
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["type"], format!("/problems/{slug}"), "{url}: {body}");
    assert_eq!(document["status"], status, "{url}: {body}");
    document
}

/// A JSON string as a string.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}

/// Contents of all files below a folder; what is no text in them is replaced.
fn everything_in(folder: &Path) -> Vec<String> {
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { everything_in(&path) } else { vec![read(&path)] }).collect()
}

fn listen(stream: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut said = said.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

fn listening_address(said: &str) -> Option<SocketAddr> {
    said.lines().find_map(|line| line.split_once("listening on http://")?.1.trim().parse().ok())
}

fn printed_keys(said: &str) -> Vec<(String, String)> {
    said.lines()
        .filter_map(|line| {
            let (before, key) = line.split_once(" key: ")?;
            Some((before.split_whitespace().last()?.to_owned(), key.trim().to_owned()))
        })
        .collect()
}
