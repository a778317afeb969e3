//! What compliance may rely on, each as a sentence: on a real database, real files and real keys.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::audit;
use crate::clock::{MonoTime, Now};
use crate::id::{JobId, ParticipantId};
use crate::recording::manifest::{ChainFacts, Manifest, Moment, RetentionFacts, SCHEMA, SessionCopy, Software};
use crate::recording::package::{Checks, StoredTar, check_package, file_entries, package_name, sign_manifest};
use crate::room::ledger::{self, Head};
use crate::room::{Entry, Event, Phase, Profile, Role};
use crate::store::{
    Appointment, Hash, JobKind, JobState, NewRoom, PackageState, Person, Personal, RecordingFilter, SealedPackage,
};
use crate::vault::{FileSealer, FixedWriter, KekFile, SessionKey};

const CALLER: &str = "key:0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11";
const OTHER: &str = "key:0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d12";
const WHY: &str = "Reclamo 2026/17";

/// A node's recordings in a folder that goes away.
struct World {
    folder: TempDir,
    evidence: Evidence,
    kek: Arc<KekFile>,
}

/// One recorded room.
struct Recorded {
    room: RoomId,
    key: Option<SessionKey>,
    people: Vec<ParticipantId>,
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap()
}

/// Bytes that differ from each other, and are the same each time.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap()).collect()
}

impl World {
    async fn new() -> Self {
        Self::with_ffmpeg("ffmpeg").await
    }

    async fn with_ffmpeg(ffmpeg: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let store = Store::open(&at("store.db").display().to_string()).await.unwrap();
        let kek = Arc::new(KekFile::open(&at("recordings.key")).unwrap());
        let settings = Settings {
            recordings: vec![at("first disk"), at("second disk")],
            documents: at("documents"),
            exports: at("exports"),
            exports_kept: SignedDuration::from_hours(1),
            ffmpeg: ffmpeg.into(),
            webhooks: true,
        };
        let (keys, signing) = (Arc::clone(&kek), Arc::new(SigningKey::generate().unwrap()));
        let objects = Objects::in_folder(&at("packages")).unwrap();
        let evidence = Evidence::new(store, objects, keys, signing, settings, Sealing::default(), Clock::new());
        Self { folder, evidence, kek }
    }

    fn store(&self) -> &Store {
        &self.evidence.0.store
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A room that was booked and has a key, if it is encrypted.
    async fn booked(&self, encrypted: bool) -> Recorded {
        let (room, start) = (RoomId::new(now()), now());
        let person = |role, name: &str, code: &str| Person {
            id: ParticipantId::new(start),
            role,
            name: Personal::from(name),
            fiscal_code: Some(Personal::from(code)),
            phone: None,
            operator_number: None,
            language: None,
            link: Hash::of_token(&ParticipantId::new(start).to_string()),
            code: Hash::of_token("402913"),
            session: None,
        };
        let appointment = Appointment {
            id: room,
            profile: Profile::shipped().remove(0),
            office: "Roma".into(),
            counter: "Deleghe".into(),
            reason: "Delega".into(),
            reference: None,
            start,
            end: start + SignedDuration::from_mins(30),
            people: vec![
                person(Role::Operator, "Ofelia Quarantotti", "QRNFLO70A41H501W"),
                person(Role::Delegato, "Dario Bevilacqua", "BVLDRA80A01H501U"),
            ],
            documents: Vec::new(),
        };
        let participants: Vec<_> = appointment.people.iter().map(|person| (person.id, person.role)).collect();
        let people = participants.iter().map(|(id, _)| *id).collect();
        let end = appointment.end;
        let booked = Event::Booked { room, profile: "delega".into(), start, end, participants };
        let lines =
            [ledger::chain(&Head::empty(), &Entry::at(Now { mono: MonoTime::from_millis(5), wall: start }, booked))];
        let new = NewRoom {
            appointment: &appointment,
            lines: &lines,
            phase: Phase::Concluded,
            at: start,
            messages: &[],
            answer: None,
            fits: None,
        };
        self.store().book(&new).await.unwrap();
        let key = encrypted.then(|| SessionKey::generate().unwrap());
        if let Some(key) = &key {
            let wrapped = self.kek.wrap(room, key).unwrap().to_string();
            assert!(self.store().put_recording_key(room, &wrapped).await.unwrap());
        }
        Recorded { room, key, people }
    }

    /// A room with a package of this session copy.
    async fn sealed(&self, encrypted: bool, session: &[u8]) -> Recorded {
        let recorded = self.booked(encrypted).await;
        let Recorded { room, key, .. } = &recorded;
        let root = self.at(&format!("packages/{}", package_name(*room)));
        fs::create_dir_all(&root).unwrap();
        let file = fs::File::create(root.join("session.webm")).unwrap();
        match key {
            Some(key) => {
                let mut writer = FixedWriter::new(file, key, "session.webm").unwrap();
                writer.write_all(session).unwrap();
                writer.finish().unwrap();
            }
            None => (&file).write_all(session).unwrap(),
        }
        let lines = self.store().ledger(*room).await.unwrap();
        let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        fs::write(root.join("ledger.jsonl"), text).unwrap();
        let head = lines.last().unwrap().head();
        let begin = Moment { utc: now(), mono_ms: 5 };
        let manifest = Manifest {
            schema: SCHEMA.into(),
            revision: 1,
            previous_manifest_sha256: None,
            session: *room,
            booking_reference: None,
            profile: "delega".into(),
            office: "Roma".into(),
            counter: "Deleghe".into(),
            reason: "Delega".into(),
            software: Software { name: "sportello".into(), version: "0.1.0".into(), build: String::new() },
            node: "test".into(),
            clock_source: "system".into(),
            begin,
            end: begin,
            end_reason: "concluded".into(),
            outcome: None,
            sealed: now(),
            key_id: self.evidence.0.signing.public().id().into(),
            encrypted,
            participants: Vec::new(),
            originals: Vec::new(),
            session_copy: Some(SessionCopy {
                file: "session.webm".into(),
                begin,
                duration_ms: 2_000,
                tracks: vec!["audio".into(), "operator".into(), "delegato".into()],
                largest_skew_ms: 0,
            }),
            presence: Vec::new(),
            ledger: ChainFacts { lines: head.seq, head: head.hash },
            accesses: None,
            documents: Vec::new(),
            when_sealed: RetentionFacts::default(),
            recovery: Vec::new(),
            timestamp_authority: None,
            files: file_entries(&root, key.as_ref(), &mut |_| {}).unwrap(),
        };
        let (manifest_sha256, _) = sign_manifest(&root, &manifest, &self.evidence.0.signing).unwrap();
        self.store().package_recorded(*room, begin.utc, begin.utc, now()).await.unwrap();
        assert!(self.store().claim_package(*room, now(), now()).await.unwrap());
        let sealed = SealedPackage {
            revision: 1,
            prefix: package_name(*room),
            bytes: 1,
            manifest_sha256,
            key_id: self.evidence.0.signing.public().id().into(),
            ledger_lines: manifest.ledger.lines,
        };
        assert!(self.store().package_sealed(*room, &sealed, &[], now()).await.unwrap());
        recorded
    }

    async fn opened(&self, room: RoomId) -> Grant {
        let opened = self.evidence.open_access(CALLER, room, WHY).await.unwrap();
        self.evidence.grant(opened.token.expose(), Some(CALLER), room).await.unwrap()
    }

    async fn read(&self, grant: &Grant, part: Part, range: Option<ByteRange>) -> Result<Vec<u8>, Error> {
        let content = self.evidence.read(grant, part, range, true).await?;
        let length = content.range.clone().map_or(content.length, |range| range.end - range.start);
        let read = gathered(content.body.unwrap()).await;
        assert_eq!(u64::try_from(read.len()).unwrap(), length, "as long as it was said to be");
        Ok(read)
    }

    /// Has the job done that was queued; as it is then.
    async fn done(&self, job: JobId) -> JobView {
        assert!(self.evidence.work_once().await.unwrap(), "a job waits");
        self.evidence.job(job).await.unwrap()
    }

    async fn retain_until(&self, room: RoomId, until: Timestamp) {
        self.evidence.set_retention(CALLER, room, Some(until), "scarto").await.unwrap();
    }
}

async fn gathered(mut pieces: Pieces) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(piece) = pieces.recv().await {
        read.extend_from_slice(&piece.unwrap());
    }
    read
}

#[tokio::test]
async fn an_access_is_good_for_its_room_and_its_caller_only() {
    let world = World::new().await;
    let (room, other) = (world.booked(true).await.room, world.booked(true).await.room);
    let opened = world.evidence.open_access(CALLER, room, WHY).await.unwrap();
    let token = opened.token.expose();
    let grant = world.evidence.grant(token, Some(CALLER), room).await.unwrap();
    assert_eq!((grant.id, grant.reason.as_str()), (opened.id, WHY));
    assert!(world.evidence.grant(token, None, room).await.is_ok(), "a media element names no caller");
    for (token, caller, room) in [(token, OTHER, room), (token, CALLER, other), ("another", CALLER, room)] {
        assert!(matches!(world.evidence.grant(token, Some(caller), room).await, Err(Error::NoAccess)));
    }
    let left = opened.expires.duration_since(now());
    assert!(left > SignedDuration::from_mins(59) && left <= SignedDuration::from_hours(1), "{left}");
    assert!(world.evidence.open_access(CALLER, RoomId::new(now()), WHY).await.is_err());
    for nothing in ["", "  ", "line\nbreak", &"x".repeat(501)] {
        let refused = world.evidence.open_access(CALLER, room, nothing).await;
        assert!(matches!(refused, Err(Error::Invalid { field: "reason", .. })), "{nothing:?}");
    }
}

#[tokio::test]
async fn every_range_of_a_decrypted_file_is_what_was_asked_for() {
    let plain = bytes(200_001);
    for encrypted in [true, false] {
        let world = World::new().await;
        let recorded = world.sealed(encrypted, &plain).await;
        let stored = fs::read(world.at(&format!("packages/{}/session.webm", package_name(recorded.room)))).unwrap();
        assert_eq!(stored == plain, !encrypted);
        let grant = world.opened(recorded.room).await;
        assert_eq!(world.read(&grant, Part::Session, None).await.unwrap(), plain);
        let cases = [
            (ByteRange::Between(0, 0), 0..1),
            (ByteRange::Between(65_530, 65_545), 65_530..65_546),
            (ByteRange::Between(1_000, 140_000), 1_000..140_001),
            (ByteRange::From(199_990), 199_990..200_001),
            (ByteRange::Last(70_000), 130_001..200_001),
            (ByteRange::Between(200_000, 999_999), 200_000..200_001),
        ];
        for (range, expected) in cases {
            let read = world.read(&grant, Part::Session, Some(range)).await.unwrap();
            assert!(read == plain[expected.clone()], "{range:?} is not {expected:?}");
        }
        let behind = world.read(&grant, Part::Session, Some(ByteRange::From(200_001))).await;
        assert!(matches!(behind, Err(Error::NoSuchPart(200_001))));
        let head = world.evidence.read(&grant, Part::Session, None, false).await.unwrap();
        assert!(head.body.is_none() && head.length == 200_001);
        for missing in ["delegato-9.webm", "../session.webm", "ledger.jsonl"] {
            let read = world.read(&grant, Part::Original(missing.into()), None).await;
            assert!(matches!(read, Err(Error::UnknownFile)), "{missing}");
        }
    }
}

#[tokio::test]
async fn every_look_is_in_the_audit_with_its_caller_and_reason() {
    let world = World::new().await;
    let room = world.sealed(true, &bytes(100)).await.room;
    let filter = RecordingFilter {
        fiscal_code: Some(Personal::from(" bvldra80a01h501u")),
        limit: 10,
        ..RecordingFilter::default()
    };
    let page = world.evidence.search(CALLER, WHY, filter, None).await.unwrap();
    assert_eq!(page.recordings.iter().map(|found| found.room).collect::<Vec<_>>(), [room]);
    let grant = world.opened(room).await;
    world.read(&grant, Part::Session, Some(ByteRange::Between(5, 9))).await.unwrap();
    world.read(&grant, Part::Manifest, None).await.unwrap();
    world.evidence.ledger(&grant).await.unwrap();
    let history = world.evidence.history(&grant).await.unwrap();
    let actions: Vec<_> = history.iter().map(|line| line.action).collect();
    let [opened, copy, manifest] = [Action::AccessOpened, Action::SessionCopyRead, Action::ManifestRead];
    assert_eq!(actions, [opened, copy, manifest, Action::LedgerRead, Action::AccessesRead]);
    assert!(history.iter().all(|line| line.caller == CALLER && line.reason == WHY && line.room == Some(room)));
    assert_eq!(history[1].detail["bytes"], "5-9");
    assert_eq!(history[1].detail["access"], grant.id.to_string());

    let whole = world.store().audit(0, 100).await.unwrap();
    assert_eq!(audit::verify(&whole).unwrap().seq, 6);
    assert_eq!((whole[0].action, whole[0].room), (Action::Searched, None));
    assert_eq!(whole[0].detail["found"], json!([room.to_string()]));
    let text = serde_json::to_string(&whole).unwrap();
    assert!(!text.contains("BVLDRA") && !text.contains("Bevilacqua"), "a person in what is never deleted");
}

#[tokio::test]
async fn what_cannot_be_written_to_the_audit_is_not_shown() {
    let world = World::new().await;
    let room = world.sealed(true, &bytes(100)).await.room;
    let grant = world.opened(room).await;
    world.store().close().await;
    assert!(matches!(world.read(&grant, Part::Session, None).await, Err(Error::Unavailable(_))));
    assert!(world.evidence.search(CALLER, WHY, RecordingFilter::default(), None).await.is_err());
}

#[tokio::test]
async fn a_package_is_one_tar_that_verifies_plain_or_as_it_is_stored() {
    let world = World::new().await;
    let plain = bytes(150_000);
    let recorded = world.sealed(true, &plain).await;
    let grant = world.opened(recorded.room).await;
    for decrypted in [false, true] {
        let (name, pieces) = world.evidence.package(&grant, decrypted).await.unwrap();
        assert_eq!(name, format!("session-{}.tar", recorded.room));
        let path = world.at("downloaded.tar");
        fs::write(&path, gathered(pieces).await).unwrap();
        let mut archive = tar::Archive::new(fs::File::open(&path).unwrap());
        let mut session = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap().ends_with("session.webm") {
                entry.read_to_end(&mut session).unwrap();
            }
        }
        assert_eq!(session == plain, decrypted);
        let checks = Checks {
            key: world.evidence.0.signing.public(),
            session_key: recorded.key.as_ref(),
            authority: None,
            ledger: &|text| {
                let head = ledger::verify_text(text).unwrap();
                Ok(ChainFacts { lines: head.seq, head: head.hash })
            },
        };
        let report = check_package(&StoredTar::open(&path).unwrap(), &checks, &mut |_, _| {});
        assert_eq!(report.faults, [], "plain: {decrypted}");
    }
}

#[tokio::test]
async fn what_is_still_recorded_is_read_up_to_its_last_whole_cluster() {
    let world = World::new().await;
    for encrypted in [true, false] {
        let recorded = world.booked(encrypted).await;
        let folder = world.at(&format!("second disk/{}", recorded.room));
        fs::create_dir_all(&folder).unwrap();
        let pieces = [bytes(300), bytes(5_000), bytes(4_000)];
        let mut stored = Vec::new();
        if let Some(key) = &recorded.key {
            let mut sealer = FileSealer::new(key, "delegato-1.webm").unwrap();
            for piece in &pieces {
                sealer.seal(piece, &mut stored).unwrap();
            }
        } else {
            stored = pieces.concat();
            let line = |n: u64, offset: usize, length: usize| {
                let line = json!({"n": n, "offset": offset, "length": length, "sha256": "", "previous": ""});
                line.to_string() + "\n"
            };
            let chain = [line(0, 0, 300), line(1, 300, 5_000), "{\"n\":2,\"off".into()].concat();
            fs::write(folder.join("delegato-1.chain.jsonl"), chain).unwrap();
        }
        // The writing of the last one is not finished.
        stored.truncate(stored.len() - 7);
        fs::write(folder.join("delegato-1.webm"), stored).unwrap();
        let grant = world.opened(recorded.room).await;
        let read = world.read(&grant, Part::Original("delegato-1.webm".into()), None).await.unwrap();
        assert!(read == pieces[..2].concat(), "{} bytes", read.len());
        let listed = world.evidence.originals(&grant).await.unwrap();
        assert_eq!(listed.iter().filter(|view| view.file == "delegato-1.webm").count(), 1);
        assert!(matches!(world.read(&grant, Part::Session, None).await, Err(Error::NotSealed)));
        assert!(matches!(world.evidence.package(&grant, true).await, Err(Error::NotSealed)));
    }
}

#[tokio::test]
async fn a_recording_on_hold_or_to_be_kept_is_not_destroyed() {
    let world = World::new().await;
    let room = world.sealed(true, &bytes(100)).await.room;
    let destroy = || world.evidence.destroy(CALLER, room, "scarto");
    assert!(matches!(destroy().await, Err(Error::Kept(None))));
    let tomorrow = now() + SignedDuration::from_hours(24);
    world.retain_until(room, tomorrow).await;
    assert!(matches!(destroy().await, Err(Error::Kept(Some(until))) if until == tomorrow));
    world.retain_until(room, now()).await;
    world.evidence.hold(CALLER, room, "Procura").await.unwrap();
    assert!(matches!(destroy().await, Err(Error::Held)));
    world.evidence.tidy().await;
    let grant = world.opened(room).await;
    assert_eq!(world.read(&grant, Part::Session, None).await.unwrap(), bytes(100), "it is all there");
    world.evidence.lift_hold(&grant).await.unwrap();
    assert!(matches!(world.evidence.lift_hold(&grant).await, Err(Error::NotHeld)));
    destroy().await.unwrap();
    assert!(matches!(destroy().await, Err(Error::Destroyed)));
}

#[tokio::test]
async fn a_destroyed_recording_cannot_be_read_and_a_signed_note_remains() {
    let world = World::new().await;
    let recorded = world.sealed(true, &bytes(100)).await;
    let room = recorded.room;
    fs::create_dir_all(world.at(&format!("first disk/{room}"))).unwrap();
    // Somebody has a copy of everything.
    let copy = fs::read(world.at(&format!("packages/{}/session.webm", package_name(room)))).unwrap();
    let grant = world.opened(room).await;
    world.retain_until(room, now()).await;
    let note = world.evidence.destroy(CALLER, room, "scarto 2036").await.unwrap();

    let said = world.evidence.0.signing.public().open(NOTE_TYPE, note.as_bytes()).unwrap();
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!((said["room"].as_str(), said["by"].as_str()), (Some(room.to_string().as_str()), Some(CALLER)));
    assert_eq!((said["reason"].as_str(), said["revision"].as_u64()), (Some("scarto 2036"), Some(1)));
    let package = world.store().package(room).await.unwrap().unwrap();
    assert_eq!(package.state, PackageState::Destroyed);
    assert_eq!(said["manifest_sha256"].as_str(), package.manifest_sha256.as_deref());
    assert_eq!(package.destroyed.unwrap().1, note);
    let last = world.store().accesses(room).await.unwrap().pop().unwrap();
    assert_eq!((last.action, last.detail["note"].as_str()), (Action::Destroyed, Some(note.as_str())));

    assert!(!world.at(&format!("packages/{}", package_name(room))).join("session.webm").exists());
    assert!(!world.at(&format!("first disk/{room}")).exists());
    assert!(matches!(world.read(&grant, Part::Session, None).await, Err(Error::Destroyed)));
    assert!(world.store().packages_to_empty(10).await.unwrap().is_empty(), "nothing is left to delete");
    // The copy comes back, and nothing opens it.
    let root = world.at(&format!("packages/{}", package_name(room)));
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("session.webm"), copy).unwrap();
    assert!(matches!(world.evidence.session_key(room).await, Err(Error::Destroyed)));
    let fresh = world.opened(room).await;
    assert!(matches!(world.read(&fresh, Part::Session, None).await, Err(Error::Destroyed)));
    assert!(!world.evidence.history(&fresh).await.unwrap().is_empty(), "what was done with it stays known");
    drop(recorded);
}

#[tokio::test]
async fn what_is_due_is_destroyed_by_itself_and_files_that_were_left_are_deleted_later() {
    let world = World::new().await;
    let (due, kept) = (world.sealed(true, &bytes(100)).await.room, world.sealed(false, &bytes(100)).await.room);
    world.retain_until(due, now()).await;
    world.retain_until(kept, now() + SignedDuration::from_hours(1)).await;
    // Its files cannot be deleted at first: something that is no folder stands where one should.
    let in_the_way = world.at(&format!("first disk/{due}"));
    fs::create_dir_all(world.at("first disk")).unwrap();
    fs::write(&in_the_way, "").unwrap();
    world.evidence.tidy().await;
    let state = async |room| world.store().package(room).await.unwrap().unwrap().state;
    assert_eq!((state(due).await, state(kept).await), (PackageState::Destroyed, PackageState::Sealed));
    assert_eq!(world.store().packages_to_empty(10).await.unwrap().len(), 1);
    fs::remove_file(&in_the_way).unwrap();
    world.evidence.tidy().await;
    assert!(world.store().packages_to_empty(10).await.unwrap().is_empty());
    let last = world.store().accesses(due).await.unwrap().pop().unwrap();
    assert_eq!((last.action, last.caller.as_str()), (Action::Destroyed, "node"));
}

#[tokio::test]
async fn a_check_finds_a_flipped_byte_and_names_the_file() {
    let world = World::new().await;
    let recorded = world.sealed(true, &bytes(150_000)).await;
    let grant = world.opened(recorded.room).await;
    let whole = world.evidence.verify(&grant).await.unwrap();
    let whole = world.done(whole.id).await;
    assert_eq!((whole.state, &whole.result.unwrap()["verified"]), (JobState::Done, &json!(true)));
    let file = world.at(&format!("packages/{}/session.webm", package_name(recorded.room)));
    let mut stored = fs::read(&file).unwrap();
    stored[100_000] ^= 1;
    fs::write(&file, stored).unwrap();
    let changed = world.evidence.verify(&grant).await.unwrap();
    let result = world.done(changed.id).await.result.unwrap();
    assert_eq!(result["verified"], false);
    assert!(result["fault"].as_str().unwrap().contains("session.webm"), "{result:?}");
}

/// A session copy with a tone and two cameras, the second of which comes late.
fn session_copy(folder: &Path) -> Vec<u8> {
    let made = folder.join("made.webm");
    let sources = [
        "sine=frequency=440:duration=2",
        "testsrc=size=320x240:rate=25:duration=2",
        "testsrc2=size=160x120:rate=25:duration=1",
    ];
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin"]);
    for (place, source) in sources.iter().enumerate() {
        if place == 2 {
            command.args(["-itsoffset", "1"]);
        }
        command.args(["-f", "lavfi", "-i", source]);
    }
    command.args(["-map", "0:a", "-map", "1:v", "-map", "2:v", "-c:v", "libvpx", "-c:a", "libopus"]).arg(&made);
    assert!(command.status().unwrap().success());
    fs::read(made).unwrap()
}

/// Codecs, size and length of a film.
fn looked_at(film: &Path) -> String {
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "error",
        "-show_entries",
        "stream=codec_name,width,height:format=duration",
        "-of",
        "compact=nk=1",
    ]);
    String::from_utf8(command.arg(film).output().unwrap().stdout).unwrap()
}

#[tokio::test]
async fn an_export_is_one_picture_of_everyone_and_is_kept_encrypted() {
    let world = World::new().await;
    let recorded = world.sealed(true, &session_copy(world.folder.path())).await;
    let grant = world.opened(recorded.room).await;
    for (format, codecs) in [(ExportFormat::Webm, ["vp8", "opus"]), (ExportFormat::Mp4, ["h264", "aac"])] {
        let job = world.evidence.export(&grant, format).await.unwrap();
        assert!(matches!(world.evidence.read_export(&grant, job.id, true).await, Err(Error::NoExport)), "not yet");
        let job = world.done(job.id).await;
        assert_eq!((job.state, job.error), (JobState::Done, None));
        let result = job.result.unwrap();
        let kept = world.at(&format!("exports/{}/{}", recorded.room, result["file"].as_str().unwrap()));
        assert!(fs::read(&kept).unwrap().starts_with(b"SPORTVLT"), "nobody reads it on the disk");
        let folder = fs::read_dir(world.at(&format!("exports/{}", recorded.room))).unwrap();
        assert!(folder.map(|entry| entry.unwrap().path()).all(|path| path.is_file()), "what was decrypted is gone");
        let content = world.evidence.read_export(&grant, job.id, true).await.unwrap();
        let film = world.at("film");
        fs::write(&film, gathered(content.body.unwrap()).await).unwrap();
        assert_eq!(result["bytes"].as_u64(), Some(content.length));
        let seen = looked_at(&film);
        for part in [codecs[0], codecs[1], "1280|720", "|2."] {
            assert!(format!("|{}", seen.replace('\n', "|")).contains(part), "{part} is not in {seen}");
        }
        // Both cameras are in the picture, the late one too: its place is black at first and not at the end.
        let light = |second: &str| {
            let crop = "crop=640:680:640:0,scale=1:1,format=gray";
            let mut command = Command::new("ffmpeg");
            command.args(["-v", "error", "-ss", second, "-i"]).arg(&film);
            command.args(["-frames:v", "1", "-vf", crop, "-f", "rawvideo", "-"]);
            command.output().unwrap().stdout[0]
        };
        let (before, after) = (light("0.4"), light("1.6"));
        assert!(before < 25 && after > before + 20, "{before} and {after}");
    }
}

#[tokio::test]
async fn without_ffmpeg_an_export_fails_and_says_so() {
    let world = World::with_ffmpeg("/nowhere/ffmpeg").await;
    let recorded = world.sealed(false, &bytes(100)).await;
    let grant = world.opened(recorded.room).await;
    let job = world.evidence.export(&grant, ExportFormat::Mp4).await.unwrap();
    let job = world.done(job.id).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.error.as_ref().unwrap().contains("ffmpeg is not installed"), "{job:?}");
    // What is no film fails too, and nothing of it stays.
    let world = World::new().await;
    let recorded = world.sealed(false, &bytes(100)).await;
    let grant = world.opened(recorded.room).await;
    let job = world.evidence.export(&grant, ExportFormat::Webm).await.unwrap();
    assert_eq!(world.done(job.id).await.state, JobState::Failed);
    assert_eq!(fs::read_dir(world.at(&format!("exports/{}", recorded.room))).unwrap().count(), 0);
}

#[tokio::test]
async fn exports_are_forgotten_after_their_time_and_with_their_recording() {
    let world = World::new().await;
    let recorded = world.sealed(false, &bytes(100)).await;
    let folder = world.at(&format!("exports/{}", recorded.room));
    let (id, at) = (JobId::new(now()), now() - SignedDuration::from_hours(2));
    let access = access_of(CALLER, Action::ExportAsked, Some(recorded.room), WHY, detail([]));
    let kind = JobKind::ExportWebm;
    world.store().add_job(id, kind, &access, recorded.room, 5, at).await.unwrap();
    world.store().begin_job(at).await.unwrap().unwrap();
    world.store().end_job(id, Ok(&detail([])), at).await.unwrap();
    fs::create_dir_all(folder.join("left.tmp")).unwrap();
    fs::write(folder.join(format!("{id}.webm")), "x").unwrap();
    fs::write(folder.join("another.webm"), "x").unwrap();
    world.evidence.sweep_exports().await;
    assert!(!folder.join("left.tmp").exists(), "an earlier process left it");
    world.evidence.tidy().await;
    assert!(!folder.join(format!("{id}.webm")).exists());
    assert!(matches!(world.evidence.job(id).await, Err(Error::UnknownJob)));
    assert!(folder.join("another.webm").exists());
    world.retain_until(recorded.room, now()).await;
    world.evidence.destroy(CALLER, recorded.room, "scarto").await.unwrap();
    assert!(!folder.exists());
    assert_eq!(recorded.people.len(), 2);
}

#[tokio::test]
async fn a_recording_of_a_meeting_that_goes_on_has_nothing_to_hold_or_destroy() {
    let world = World::new().await;
    let room = world.booked(true).await.room;
    assert!(matches!(world.evidence.hold(CALLER, room, WHY).await, Err(Error::NotOver)));
    assert!(matches!(world.evidence.destroy(CALLER, room, WHY).await, Err(Error::NotOver)));
    let nobody = RoomId::new(now());
    assert!(matches!(world.evidence.hold(CALLER, nobody, WHY).await, Err(Error::UnknownRecording)));
}
