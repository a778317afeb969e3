//! Small disks that fill up under meetings with real microphones and cameras: who is stopped, who is told, and how it
//! goes on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use loadtest::api::Api;
use loadtest::client::{Client, Habits, Part};
use loadtest::media::{Film, Voice};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::database::Database;
use crate::server::{Booked, Server, Signal, accepted, refused, sportello, text};

/// Longest wait for what should happen at once, on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// Longest wait for a disk of some megabytes to fill up under a call.
const FILLED: Duration = Duration::from_secs(40);

const GLANCE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_mid_call_suspends_the_room_which_goes_on_by_itself_when_there_is_space() {
    let disk = SmallDisk::of_megabytes(24);
    let mut server = server_on(&[&disk]).await;
    let meeting = Meeting::begins(&server).await;
    meeting.becomes(&server, "live", SOON).await;
    meeting.all_see_and_hear_each_other().await;
    let first_files = meeting.originals(&[&disk]);
    assert_eq!(first_files, ["citizen-1.webm", "operator-1.webm"]);
    let seen = meeting.seen_by(&server, "operator").await;
    let behind = time(&seen["now"]).duration_since(time(&seen["recording"]["durable_until"]));
    assert!(behind < SignedDuration::from_secs(2), "{behind}");

    // Whatever else is on the disk takes all that is left but what was reserved.
    let ballast = disk.fill();
    meeting.stays(&server, "live", Duration::from_secs(3)).await;
    meeting.becomes(&server, "suspended", FILLED).await;
    for role in ["operator", "citizen"] {
        let seen = meeting.seen_by(&server, role).await;
        assert_eq!(seen["suspended"], json!({"why": "recording", "reason": "disk_full"}), "{role}: {seen}");
        assert_eq!(seen["recording"]["fault"], "disk_full", "{role}: {seen}");
        assert_eq!(seen["flow"], false);
    }
    meeting.nothing_flows().await;
    server.is_well().await;
    let folder = meeting.folder(&[&disk]);
    verifies(&folder);
    for file in &first_files {
        decodes(&folder.join(file));
    }
    meeting.stays(&server, "suspended", Duration::from_secs(2)).await;

    std::fs::remove_file(ballast).unwrap();
    meeting.becomes(&server, "live", SOON).await;
    meeting.all_see_and_hear_each_other().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    meeting.operator_concludes(&server, "served").await;
    meeting.becomes(&server, "closed", SOON).await;

    let told = meeting.told(&server).await;
    assert_eq!(times(&told, "connected"), 2, "nobody connected again: {told:?}");
    assert_eq!((times(&told, "recording_lost"), times(&told, "recording_resumed")), (1, 1), "{told:?}");
    assert!(position(&told, "recording_lost") < position(&told, "recording_resumed"));
    assert_eq!(meeting.originals(&[&disk]), ["citizen-1.webm", "citizen-2.webm", "operator-1.webm", "operator-2.webm"]);
    verifies(&folder);
    for file in meeting.originals(&[&disk]) {
        decodes(&folder.join(&file));
        begins_with_a_keyframe(&folder.join(&file));
    }
    assert!(!folder.join(".reserved").exists(), "what was reserved is given back");
    server.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_disks_one_fills_up_and_the_room_on_the_other_goes_on() {
    let (larger, smaller) = (SmallDisk::of_megabytes(40), SmallDisk::of_megabytes(30));
    let disks = [&larger, &smaller];
    let mut server = server_on(&disks).await;
    let first = Meeting::begins(&server).await;
    assert!(first.folder(&disks).starts_with(larger.path()), "where most space is");
    // Twelve megabytes less, and the other disk has more. The server looks once a second.
    std::fs::write(larger.path().join("other"), vec![0; 12 << 20]).unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let second = Meeting::begins(&server).await;
    assert!(second.folder(&disks).starts_with(smaller.path()), "where most space is now");
    first.becomes(&server, "live", SOON).await;
    second.becomes(&server, "live", SOON).await;

    let ballast = larger.fill();
    let deadline = Instant::now() + FILLED;
    while first.phase(&server).await != "suspended" {
        assert_eq!(second.phase(&server).await, "live");
        assert!(Instant::now() < deadline, "the full disk stops nobody");
        tokio::time::sleep(GLANCE).await;
    }
    second.stays(&server, "live", Duration::from_secs(4)).await;
    second.all_see_and_hear_each_other().await;
    first.nothing_flows().await;

    std::fs::remove_file(ballast).unwrap();
    first.becomes(&server, "live", SOON).await;
    first.all_see_and_hear_each_other().await;
    for meeting in [&first, &second] {
        meeting.operator_concludes(&server, "served").await;
        meeting.becomes(&server, "closed", SOON).await;
        verifies(&meeting.folder(&disks));
    }
    assert_eq!(times(&second.told(&server).await, "recording_lost"), 0);
    server.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_space_no_room_is_opened_and_none_booked_and_a_crash_keeps_nothing_reserved() {
    let disk = SmallDisk::of_megabytes(8);
    let server = server_on(&[&disk]).await;
    let booked = server.book(&videochiamata()).await;
    let operator = server.enter(booked.invitation("operator")).await;
    let open = format!("/v1/rooms/{}/open", booked.room);

    let ballast = disk.fill();
    let problem = refused(server.request(Method::POST, &open, &operator), 507, "no-recording-space").await;
    assert!(problem["title"].as_str().unwrap().contains("space"), "{problem}");
    assert_eq!(server.get("/v1/session", &operator).await["opened"], false);
    // The figures of the disks are a second old at most.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let booking = server.request(Method::POST, "/v1/rooms", server.key("booking")).json(&videochiamata());
    refused(booking, 507, "no-recording-space").await;
    assert!(server.counter("sportello_recording_free_bytes").await < 1.0);

    std::fs::remove_file(ballast).unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    server.book(&videochiamata()).await;
    server.order(&open, &operator).await;
    let reserved = disk.path().join(&booked.room).join(".reserved");
    // Two people, five minutes, a thousand bytes a second each.
    assert!(std::fs::metadata(&reserved).unwrap().len() > 500_000);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(server.counter("sportello_recording_reserved_bytes").await > 500_000.0);

    let mut server = server.restart(Signal::Kill).await;
    assert!(!reserved.exists(), "nobody needs it any more");
    server.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_camera_without_any_keyframe_the_operator_is_told_within_five_seconds_and_the_voice_is_recorded() {
    let mut server = Server::start_with(Database::Sqlite, &[("RECORDING__ENCRYPT", "false")]).await;
    let habits = Habits { never_a_keyframe: true, ..Habits::default() };
    let meeting = Meeting::begins_with(&server, habits).await;
    let connected = Instant::now();
    let missing = |view: &Value| {
        let people = view["participants"].as_array().unwrap();
        people.iter().find(|person| person["role"] == "citizen").unwrap()["not_recorded"].clone()
    };
    while missing(&meeting.seen_by(&server, "operator").await) != json!(["camera"]) {
        assert!(connected.elapsed() < Duration::from_secs(5), "{:?}", meeting.told(&server).await);
        tokio::time::sleep(GLANCE).await;
    }
    assert_eq!(missing(&meeting.seen_by(&server, "citizen").await), json!(["camera"]), "and so is the citizen");
    let asked = server.counter("sportello_recording_keyframes_wanted_total").await;
    assert!(asked >= 3.0, "asked for {asked} times");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(server.counter("sportello_recording_keyframes_wanted_total").await > asked, "and again");
    meeting.operator_concludes(&server, "incomplete").await;
    meeting.becomes(&server, "closed", SOON).await;
    let told = meeting.told(&server).await;
    assert_eq!((times(&told, "picture_missing"), times(&told, "recording_lost")), (1, 0), "{told:?}");

    let folder = server.data().join("recordings").join(&meeting.booked.room);
    verifies(&folder);
    let voice = voice_packets(&folder.join("citizen-1.webm"));
    assert!(voice > 200, "{voice} packets of voice in more than five seconds");
    server.is_well().await;
}

/// A server whose recordings go to these disks.
async fn server_on(disks: &[&SmallDisk]) -> Server {
    let folders: Vec<_> = disks.iter().map(|disk| disk.path().to_str().unwrap()).collect();
    let folders = if let [folder] = folders[..] { folder.to_owned() } else { json!(folders).to_string() };
    let configuration = [
        ("RECORDING__FOLDER", folders.as_str()),
        ("RECORDING__RESERVE_BYTES_PER_SECOND", "1000"),
        // For ffmpeg to read.
        ("RECORDING__ENCRYPT", "false"),
    ];
    Server::start_with(Database::Sqlite, &configuration).await
}

/// A booking of five minutes from now.
fn videochiamata() -> Value {
    let start = Timestamp::now();
    let end = start + SignedDuration::from_mins(5);
    json!({
        "profile": "videochiamata", "office": "Roma", "counter": "Informazioni", "reason": "Una prova",
        "start": start.to_string(), "end": end.to_string(),
        "participants": [
            {"role": "operator", "name": "Ofelia Quarantotti", "operator_number": "OP-042"},
            {"role": "citizen", "name": "Cesira Malaspina"},
        ],
    })
}

/// A disk of its own for a test: a tmpfs, gone when this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn of_megabytes(size: u32) -> Self {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}m"), "tmpfs"])
            .arg(folder.path())
            .output()
            .unwrap();
        // Not skipped: without a disk that fills up nothing would be tried here.
        let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(mounted.status.success(), "a small disk is needed, which only root may mount: {why}");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all that is left, in a file that can be removed.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [1 << 16, 1 << 12] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may hold files in it for a moment longer.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A meeting of two with microphones and cameras.
struct Meeting {
    booked: Booked,
    sessions: Vec<(&'static str, String)>,
    devices: Vec<(&'static str, Client)>,
}

impl Meeting {
    /// Both come, the operator opens the room and lets the citizen in, both connect.
    async fn begins(server: &Server) -> Self {
        Self::begins_with(server, Habits::default()).await
    }

    /// The same with a citizen who is out of the ordinary.
    async fn begins_with(server: &Server, habits: Habits) -> Self {
        let booked = server.book(&videochiamata()).await;
        let operator = server.enter(booked.invitation("operator")).await;
        let citizen = server.enter(booked.invitation("citizen")).await;
        server.order(&format!("/v1/rooms/{}/open", booked.room), &operator).await;
        let admit = format!("/v1/rooms/{}/participants/{}/admit", booked.room, booked.id("citizen"));
        server.order(&admit, &operator).await;
        let sessions = vec![("operator", operator), ("citizen", citizen)];
        let mut devices = Vec::new();
        for (role, session) in &sessions {
            let part = Part {
                api: Api::new(&server.url("")),
                session: session.clone(),
                role: (*role).to_owned(),
                film: Arc::new(Film::built_in().unwrap()),
                voice: Voice::tone(if *role == "operator" { 300 } else { 500 }).unwrap(),
                began: Instant::now(),
                habits: if *role == "citizen" { habits.clone() } else { Habits::default() },
            };
            let mut client = Client::join(part).await.unwrap();
            let connected = tokio::time::timeout(SOON, client.connected()).await;
            assert_eq!(connected, Ok(true), "the {role} has no media connection");
            devices.push((*role, client));
        }
        Self { booked, sessions, devices }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/rooms/{}{rest}", self.booked.room)
    }

    fn session(&self, role: &str) -> &str {
        &self.sessions.iter().find(|(name, _)| *name == role).unwrap().1
    }

    async fn phase(&self, server: &Server) -> String {
        text(&server.get(&self.path(""), server.key("booking")).await["phase"])
    }

    async fn becomes(&self, server: &Server, phase: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.phase(server).await != phase {
            assert!(Instant::now() < deadline, "not {phase} in time: {:?}", self.told(server).await);
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn stays(&self, server: &Server, phase: &str, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            assert_eq!(self.phase(server).await, phase, "{:?}", self.told(server).await);
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn seen_by(&self, server: &Server, role: &str) -> Value {
        server.get("/v1/session", self.session(role)).await
    }

    /// The types of the ledger's events, in order.
    async fn told(&self, server: &Server) -> Vec<String> {
        let ledger = server.get(&self.path("/ledger"), server.key("compliance")).await;
        ledger.as_array().unwrap().iter().map(|line| text(&line["event"]["type"])).collect()
    }

    async fn operator_concludes(&self, server: &Server, outcome: &str) {
        let request = server.request(Method::POST, &self.path("/conclude"), self.session("operator"));
        accepted(request.json(&json!({"outcome": outcome}))).await;
    }

    /// Everyone receives voice and picture of the other.
    async fn all_see_and_hear_each_other(&self) {
        for (listener, device) in &self.devices {
            for (speaker, _) in self.devices.iter().filter(|(speaker, _)| speaker != listener) {
                for source in ["microphone", "camera"] {
                    let count = || device.packets_of(&self.booked.id(speaker), source);
                    let (before, deadline) = (count(), Instant::now() + SOON);
                    while count() < before + 10 {
                        assert!(Instant::now() < deadline, "the {listener} does not receive the {speaker}'s {source}");
                        tokio::time::sleep(GLANCE).await;
                    }
                }
            }
        }
    }

    /// No packet of media comes to anyone.
    async fn nothing_flows(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let count = || self.devices.iter().map(|(_, device)| device.packets()).sum::<u64>();
        let before = count();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(count(), before, "media flows");
    }

    /// Where its recording lies.
    fn folder(&self, disks: &[&SmallDisk]) -> PathBuf {
        let folders = disks.iter().map(|disk| disk.path().join(&self.booked.room));
        let found: Vec<_> = folders.filter(|folder| folder.is_dir()).collect();
        assert_eq!(found.len(), 1, "a room lies whole on one disk: {found:?}");
        found[0].clone()
    }

    fn originals(&self, disks: &[&SmallDisk]) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder(disks)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> =
            names.filter(|name| Path::new(name).extension().is_some_and(|end| end == "webm")).collect();
        names.sort();
        names
    }
}

fn times(told: &[String], event: &str) -> usize {
    told.iter().filter(|told| *told == event).count()
}

fn position(told: &[String], event: &str) -> usize {
    told.iter().position(|told| told == event).unwrap()
}

fn time(value: &Value) -> Timestamp {
    text(value).parse().unwrap()
}

fn verifies(path: &Path) {
    let output = sportello().arg("verify").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", path.display());
}

/// ffmpeg decodes all of it without a word of complaint.
fn decodes(path: &Path) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-map", "0", "-f", "null", "-"])
        .output()
        .expect("ffmpeg is needed for this test");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{}: {words}", path.display());
}

fn voice_packets(path: &Path) -> usize {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "a", "-show_entries", "packet=flags", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe is needed for this test");
    String::from_utf8_lossy(&output.stdout).lines().count()
}

fn begins_with_a_keyframe(path: &Path) {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-show_entries", "packet=flags", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe is needed for this test");
    let flags = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(flags.starts_with('K'), "{}: {flags}", path.display());
}
