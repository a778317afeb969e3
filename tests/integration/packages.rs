//! `sportello verify` and `sportello export` on packages, as a stranger's shell sees them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use jiff::Timestamp;
use serde_json::{Value, json};
use sportello::clock::{MonoTime, Now};
use sportello::id::{ParticipantId, RoomId};
use sportello::objects::{Objects, ObjectsConfig};
use sportello::recording::manifest::{ChainFacts, Manifest, Moment, RetentionFacts, SCHEMA, SessionCopy, Software};
use sportello::recording::package::{StoredFolder, file_entries, package_name, sign_manifest, write_tar};
use sportello::recording::sign::SigningKey;
use sportello::room::{Entry, Event, Role, ledger};
use sportello::store::{RecordingKey, Store};
use sportello::vault::{FixedWriter, KekFile, KeyEncryption as _};

use crate::s3::S3Server;
use crate::server::{Server, sportello};

/// A node with keys, a database, and one sealed package of one room.
struct Kept {
    server: Server,
    room: RoomId,
    package: PathBuf,
}

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(1_768_294_800 + second).unwrap()
}

impl Kept {
    /// The package holds a session copy of so many bytes, encrypted.
    async fn new(bytes: usize) -> Self {
        let server = Server::start().await;
        let (booked, _operator) = server.open_room().await;
        let (data, room) = (server.data().to_owned(), booked.room.parse::<RoomId>().unwrap());
        let secrets = data.join("secrets");
        let signing = SigningKey::open(&secrets.join("signing.key")).unwrap();
        let kek = KekFile::open(&secrets.join("recordings.key")).unwrap();
        // The key that the node made when the room was opened.
        let store = Store::open(&data.join("sportello.db").display().to_string()).await.unwrap();
        let RecordingKey::Wrapped(wrapped) = store.recording_key(room).await.unwrap() else { panic!("no key") };
        let session = kek.unwrap(room, &wrapped.parse().unwrap()).unwrap();
        store.close().await;

        let package = data.join("packages").join(package_name(room));
        fs::create_dir_all(&package).unwrap();
        let file = fs::File::create(package.join("session.webm")).unwrap();
        let mut writer = FixedWriter::new(file, &session, "session.webm").unwrap();
        writer.write_all(&vec![7; bytes]).unwrap();
        writer.finish().unwrap();
        let (mut head, mut lines) = (ledger::Head::empty(), String::new());
        let participants = vec![(ParticipantId::new(wall(0)), Role::Operator)];
        let booked = Event::Booked { room, profile: "delega".into(), start: wall(0), end: wall(1_800), participants };
        for event in [booked, Event::Opened, Event::Closed] {
            let now = Now { mono: MonoTime::from_millis(60_000), wall: wall(5) };
            let line = ledger::chain(&head, &Entry::at(now, event));
            head = line.head();
            lines += &(serde_json::to_string(&line).unwrap() + "\n");
        }
        fs::write(package.join("ledger.jsonl"), lines).unwrap();
        let moment = |second| Moment { utc: wall(second), mono_ms: 60_000 };
        let manifest = Manifest {
            schema: SCHEMA.into(),
            revision: 1,
            previous_manifest_sha256: None,
            session: room,
            booking_reference: None,
            profile: "delega".into(),
            office: "Roma".into(),
            counter: "Deleghe".into(),
            reason: "Delega dell'identità digitale".into(),
            software: Software { name: "sportello".into(), version: "0.1.0".into(), build: String::new() },
            node: "test".into(),
            clock_source: "system".into(),
            begin: moment(0),
            end: moment(4),
            end_reason: "concluded".into(),
            outcome: None,
            sealed: wall(60),
            key_id: signing.public().id().into(),
            encrypted: true,
            participants: Vec::new(),
            originals: Vec::new(),
            session_copy: Some(SessionCopy {
                file: "session.webm".into(),
                begin: moment(0),
                duration_ms: 4_000,
                tracks: vec!["audio".into()],
                largest_skew_ms: 0,
            }),
            presence: Vec::new(),
            ledger: ChainFacts { lines: head.seq, head: head.hash },
            accesses: None,
            documents: Vec::new(),
            when_sealed: RetentionFacts::default(),
            recovery: Vec::new(),
            timestamp_authority: None,
            files: file_entries(&package, Some(&session), &mut |_| {}).unwrap(),
        };
        sign_manifest(&package, &manifest, &signing).unwrap();
        Self { server, room, package }
    }

    /// Runs a command with this node's data directory configured.
    fn run(&self, arguments: &[&str]) -> (Output, String) {
        run(arguments, self.server.data())
    }

    fn key(&self) -> String {
        self.server.data().join("secrets/signing.jwk").display().to_string()
    }
}

fn run(arguments: &[&str], data: &Path) -> (Output, String) {
    let output = sportello().args(arguments).env("SPORTELLO__STORAGE__DATA_DIR", data).output().unwrap();
    let said = [output.stdout.clone(), output.stderr.clone()].concat();
    (output, String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn a_stranger_verifies_a_package_with_the_public_key_alone() {
    let kept = Kept::new(200_000).await;
    let (elsewhere, key) = (tempfile::tempdir().unwrap(), kept.key());
    let package = kept.package.to_str().unwrap();
    let verify = |more: &[&str]| run(&[&["verify", package][..], more].concat(), elsewhere.path());

    let (output, said) = verify(&["--key", &key]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("whole, session {}", kept.room)) && said.contains("recordings encrypted"), "{said}");
    assert!(said.contains("checked with the key ") && said.contains("signing.jwk"), "{said}");

    let (output, said) = verify(&[]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("which key?") && said.contains("--key"), "{said}");

    let other = SigningKey::open(&elsewhere.path().join("other.key")).unwrap();
    let (output, said) = verify(&["--key", elsewhere.path().join("other.jwk").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("manifest.jws: it was signed with the key ") && said.contains(other.public().id()), "{said}");

    let (output, said) = verify(&["--key", elsewhere.path().join("other.key").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "the private key is no public one: {said}");

    let tar = elsewhere.path().join("package.tar");
    write_tar(&StoredFolder::new(&kept.package), "session-1", None, fs::File::create(&tar).unwrap()).unwrap();
    let (output, said) = run(&["verify", tar.to_str().unwrap(), "--key", &key], elsewhere.path());
    assert_eq!(output.status.code(), Some(0), "{said}");

    let ledger = kept.package.join("ledger.jsonl");
    let text = fs::read_to_string(&ledger).unwrap();
    fs::write(&ledger, text.replacen("opened", "closed", 1)).unwrap();
    let (output, said) = verify(&["--key", &key]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ledger.jsonl: line 2: ") && said.contains("NOT whole: 1 fault found"), "{said}");
    let (output, _) = verify(&["--key", &key, "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["kind"], &told["whole"], &told["faults"][0]["line"]),
        (&"package".into(), &false.into(), &2.into())
    );
}

#[tokio::test]
async fn a_rooms_id_stands_for_its_package() {
    let kept = Kept::new(1_000).await;
    let (output, said) = kept.run(&["verify", &kept.room.to_string()]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let (output, said) = kept.run(&["verify", kept.server.data().join("packages").to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "a folder of packages: {said}");
    let other = RoomId::new(wall(9)).to_string();
    let (output, said) = kept.run(&["verify", &other]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("there is no package of {other} at ")), "{said}");
    let (output, said) = kept.run(&["verify", "nowhere"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nowhere: no such file or folder, and no room's id"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_on_s3_is_verified_and_exported_by_its_rooms_id() {
    let (kept, server) = (Kept::new(10 << 20).await, S3Server::find());
    let url = format!(
        "s3://packages/{}?endpoint=http://{}&region=eu-south-1&allow_http=true",
        uuid::Uuid::now_v7(),
        server.address
    );
    let access_key = Some(("test-key".into(), "test-secret".into()));
    let objects = Objects::open(&ObjectsConfig { url: url.clone(), access_key }).unwrap();
    for file in fs::read_dir(&kept.package).unwrap() {
        let path = file.unwrap().path();
        let name = format!("{}/{}", package_name(kept.room), path.file_name().unwrap().to_str().unwrap());
        objects.put_file(&name, &path, &mut |_| {}).await.unwrap();
    }
    fs::remove_dir_all(&kept.package).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = sportello();
        command.args(arguments).env("SPORTELLO__STORAGE__DATA_DIR", kept.server.data());
        command.env("SPORTELLO__PACKAGES__URL", &url).env("SPORTELLO__PACKAGES__ACCESS_KEY_ID", "test-key");
        let output = command.env("SPORTELLO__PACKAGES__SECRET_ACCESS_KEY", "test-secret").output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = run(&["verify", &kept.room.to_string()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("s3://packages/") && said.contains(": whole, session "), "{said}");
    let out = tempfile::tempdir().unwrap();
    let plain = out.path().join("plain");
    let (code, said) = run(&["export", &kept.room.to_string(), "--out", plain.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read(plain.join("session.webm")).unwrap(), vec![7; 10 << 20]);

    objects.put_bytes(&format!("{}/ledger.jsonl", package_name(kept.room)), "{}\n".into()).await.unwrap();
    let (code, said) = run(&["verify", &kept.room.to_string()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ledger.jsonl: line 1: "), "{said}");
    assert!(!said.contains("test-secret"), "{said}");
}

#[tokio::test]
async fn who_holds_the_keys_exports_a_plain_package_that_still_verifies() {
    let kept = Kept::new(200_000).await;
    let out = tempfile::tempdir().unwrap();
    let plain = out.path().join("plain").display().to_string();
    let (room, key) = (kept.room.to_string(), kept.key());
    let (output, said) = kept.run(&["export", &room, "--out", &plain]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(fs::read(Path::new(&plain).join("session.webm")).unwrap(), vec![7; 200_000]);
    let (output, said) = run(&["verify", &plain, "--key", &key], out.path());
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("recordings plain"), "{said}");

    let (output, said) = kept.run(&["export", &room, "--out", &plain]);
    assert_eq!(output.status.code(), Some(1), "nothing is overwritten: {said}");
    let other = out.path().join("other.key");
    KekFile::open(&other).unwrap();
    let elsewhere = out.path().join("elsewhere").display().to_string();
    let (output, said) = kept.run(&["export", &room, "--out", &elsewhere, "--key-file", other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is not here"), "which key is missing: {said}");
    let package = kept.package.to_str().unwrap();
    let (output, said) = run(&["export", package, "--out", &elsewhere], &out.path().join("nobody"));
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("there is no key-encryption key") && !Path::new(&elsewhere).exists(), "{said}");

    let (output, said) = kept.run(&["export", package, "--out", &elsewhere]);
    assert_eq!(output.status.code(), Some(0), "by the package's folder too: {said}");
}

#[tokio::test]
async fn long_work_says_how_far_it_is_where_there_is_no_terminal() {
    let kept = Kept::new(40 << 20).await;
    let (output, said) = kept.run(&["verify", &kept.room.to_string()]);
    assert!(output.status.success(), "{said}");
    for percent in ["checked 10 % of 41 MB", "checked 50 % of 41 MB", "checked 100 % of 41 MB"] {
        assert!(said.contains(percent), "«{percent}» is missing: {said}");
    }
    let (output, _) = kept.run(&["verify", &kept.room.to_string(), "--json"]);
    let objects: Vec<Value> =
        String::from_utf8(output.stderr).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.last().unwrap()["progress_percent"], 100);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1, "results alone");
}

#[test]
fn what_a_crash_left_is_repaired_and_a_second_time_changes_nothing() {
    let (recordings, room) = (tempfile::tempdir().unwrap(), RoomId::new(wall(0)).to_string());
    let folder = recordings.path().join(&room);
    fs::create_dir(&folder).unwrap();
    let sha256 = |bytes: &[u8]| hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes));
    let (mut media, mut chain, mut previous) = (Vec::new(), String::new(), String::new());
    for (n, piece) in [&b"the header"[..], b"the first cluster", b"the second cluster"].into_iter().enumerate() {
        let (offset, length, sha) = (media.len(), piece.len(), sha256(piece));
        let line = json!({"n": n, "offset": offset, "length": length, "sha256": sha, "previous": previous}).to_string();
        previous = sha256(line.as_bytes());
        chain += &(line + "\n");
        media.extend_from_slice(piece);
    }
    let whole = media.len();
    fs::write(folder.join("delegato-1.webm"), [&media[..], b"half a clus"].concat()).unwrap();
    fs::write(folder.join("delegato-1.chain.jsonl"), format!("{chain}{{\"n\":3,\"off")).unwrap();
    let original = json!({"type": "original", "file": "delegato-1.webm", "connection": RoomId::new(wall(1)),
        "encrypted": false, "tracks": [], "zero_ns": 0, "wall": wall(0)});
    fs::write(folder.join("delegato-1.rtcp.jsonl"), format!("{original}\n")).unwrap();

    let first = run(&["repair", recordings.path().to_str().unwrap()], recordings.path());
    assert_eq!(first.0.status.code(), Some(0), "{}", first.1);
    let told = format!("{room}/delegato-1.webm: cut to its 2 whole clusters; 11 bytes are kept beside it");
    assert!(first.1.contains(&told), "{}", first.1);
    assert_eq!(fs::read(folder.join("delegato-1.webm")).unwrap(), media[..whole]);
    assert_eq!(fs::read(folder.join("delegato-1.tail")).unwrap(), b"half a clus");
    assert_eq!(fs::read_to_string(folder.join("delegato-1.chain.jsonl")).unwrap(), chain);
    let again = run(&["repair", folder.to_str().unwrap()], recordings.path());
    assert_eq!((again.0.status.code(), again.1), (Some(0), first.1), "by the room's folder, and nothing more to do");

    let empty = tempfile::tempdir().unwrap();
    let (output, said) = run(&["repair", empty.path().to_str().unwrap()], empty.path());
    assert!(output.status.success() && said.contains("there are no originals of any room"), "{said}");
    let (output, said) = run(&["repair", "/nowhere/at/all"], empty.path());
    assert!(!output.status.success() && said.contains("/nowhere/at/all: no such folder"), "{said}");
}
