//! A small package, whole, changed in every way, exported, and as a tar.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::audit;
use crate::clock::{MonoTime, Now};
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;
use crate::recording::canonical::canonical;
use crate::recording::chain::sha256_hex;
use crate::recording::manifest::*;
use crate::recording::quality::OriginalQuality;
use crate::recording::sign::{PublicKey, SignatureError};
use crate::recording::timestamp::tests::Local;
use crate::recording::voice::VoiceReport;
use crate::recording::webm::{self, SimpleBlock, Track, TrackKind};
use crate::recording::{Difference, verify};
use crate::room::{Entry, Event, Role, ledger};
use crate::rtp::vp8::Resolution;
use crate::vault::{FileSealer, FixedWriter};

/// Clusters of each original.
const CLUSTERS: u64 = 4;
/// Longer than two fixed segments.
const COPY: usize = 150_000;

/// A sealed package with the keys to it.
struct Small {
    folder: TempDir,
    signing: SigningKey,
    session: SessionKey,
}

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(1_768_294_800 + second).unwrap()
}

/// The pieces of an original: header, then clusters.
fn pieces(seed: u8) -> Vec<Vec<u8>> {
    let track = |kind, name| Track { kind, uid: 7, name };
    let resolution = Resolution { width: 320, height: 240 };
    let tracks = [track(TrackKind::Audio, "microphone"), track(TrackKind::Video(resolution), "camera")];
    let mut pieces = vec![webm::header(&tracks, wall(0)).unwrap()];
    for n in 0..CLUSTERS {
        let data = vec![seed.wrapping_add(u8::try_from(n).unwrap()); 150];
        let block = |track, offset| SimpleBlock { track, offset, keyframe: track == 2, data: &data };
        pieces.push(webm::cluster(n * 1_000, &[block(1, 0), block(2, 20), block(1, 40)]).unwrap());
    }
    pieces
}

/// Writes an original as the recorder does, closed in order.
fn write_original(folder: &Path, stem: &str, seed: u8, key: Option<&SessionKey>) -> OriginalFacts {
    let name = format!("{stem}.webm");
    let mut sealer = key.map(|key| FileSealer::new(key, &name).unwrap());
    let (mut file, mut chain, mut head, mut offset) = (Vec::new(), String::new(), String::new(), 0);
    let pieces = pieces(seed);
    for (n, piece) in pieces.iter().map(Vec::as_slice).chain([&[][..]]).enumerate() {
        let is_end = n == pieces.len();
        let mut line =
            json!({"n": n, "offset": offset, "length": piece.len(), "sha256": sha256_hex(piece), "previous": head});
        let mut stored = Vec::new();
        match sealer.take() {
            Some(sealer) if is_end => sealer.finish(&mut stored).unwrap(),
            Some(mut open) => {
                open.seal(piece, &mut stored).unwrap();
                sealer = Some(open);
            }
            None => {}
        }
        if key.is_some() {
            line["stored"] = json!({"offset": file.len(), "length": stored.len(), "sha256": sha256_hex(&stored)});
        }
        if is_end {
            line["end"] = true.into();
        }
        file.extend_from_slice(if key.is_some() { &stored } else { piece });
        let line = line.to_string();
        head = sha256_hex(line.as_bytes());
        chain.push_str(&line);
        chain.push('\n');
        offset += piece.len();
    }
    fs::write(folder.join(&name), &file).unwrap();
    fs::write(folder.join(format!("{stem}.chain.jsonl")), chain).unwrap();
    fs::write(folder.join(format!("{stem}.rtcp.jsonl")), format!("{{\"type\":\"original\",\"file\":\"{name}\"}}\n"))
        .unwrap();
    OriginalFacts {
        file: name,
        participant: Some(ParticipantId::new(wall(1))),
        role: stem.split('-').next().unwrap().into(),
        connection: ConnectionId::new(wall(2)),
        sources: vec![Source::Microphone, Source::Camera],
        begin: Moment { utc: wall(0), mono_ms: 60_000 },
        offset_ms: 0,
        duration_ms: CLUSTERS * 1_000,
        bytes: u64::try_from(offset).unwrap(),
        clusters: CLUSTERS,
        chain_head: head,
        complete: true,
        quality: OriginalQuality::default(),
    }
}

fn write_ledger(path: &Path, room: RoomId) -> ChainFacts {
    let events = [
        Event::Booked {
            room,
            profile: "delega".into(),
            start: wall(0),
            end: wall(1_800),
            participants: vec![(ParticipantId::new(wall(0)), Role::Operator)],
        },
        Event::AdmissionOpened,
        Event::Opened,
        Event::WentLive,
        Event::Closed,
    ];
    let (mut head, mut text) = (ledger::Head::empty(), String::new());
    for (n, event) in (0..).zip(events) {
        let line =
            ledger::chain(&head, &Entry::at(Now { mono: MonoTime::from_millis(n * 1_000), wall: wall(5) }, event));
        head = line.head();
        text.push_str(&serde_json::to_string(&line).unwrap());
        text.push('\n');
    }
    fs::write(path, text).unwrap();
    ChainFacts { lines: head.seq, head: head.hash }
}

fn write_accesses(path: &Path, room: RoomId) -> ChainFacts {
    let access = audit::Access {
        caller: "node".into(),
        action: audit::Action::AccessOpened,
        room: Some(room),
        reason: "Reclamo 2026/17".into(),
        detail: serde_json::Map::new(),
    };
    let first = audit::chain(&audit::Head { seq: 40, hash: "ab".repeat(32) }, None, wall(9), &access);
    let head = audit::Head { seq: first.seq, hash: first.hash.clone() };
    let second = audit::chain(&head, Some(&first.hash), wall(10), &access);
    let lines = [&first, &second].map(|line| serde_json::to_string(line).unwrap() + "\n");
    fs::write(path, lines.concat()).unwrap();
    ChainFacts { lines: 2, head: second.hash }
}

impl Small {
    fn new(encrypted: bool) -> Self {
        Self::with(encrypted, None)
    }

    /// A package, with a timestamp of this authority.
    fn with(encrypted: bool, authority: Option<&Local>) -> Self {
        let small = Self {
            folder: tempfile::tempdir().unwrap(),
            signing: SigningKey::generate().unwrap(),
            session: SessionKey::generate().unwrap(),
        };
        let root = small.folder.path();
        let key = encrypted.then_some(&small.session);
        fs::create_dir(root.join("originals")).unwrap();
        let originals = [("delegato-1", 10), ("operatore-1", 90)]
            .map(|(stem, seed)| write_original(&root.join("originals"), stem, seed, key));
        let copy: Vec<u8> = (0..COPY).map(|n| u8::try_from(n % 253).unwrap()).collect();
        let mut session = Cursor::new(Vec::new());
        match key {
            Some(key) => {
                let mut writer = FixedWriter::new(session, key, "session.webm").unwrap();
                writer.write_all(&copy).unwrap();
                session = writer.finish().unwrap();
            }
            None => session.get_mut().extend_from_slice(&copy),
        }
        fs::write(root.join("session.webm"), session.into_inner()).unwrap();
        let room = RoomId::new(wall(0));
        let ledger = write_ledger(&root.join("ledger.jsonl"), room);
        let accesses = write_accesses(&root.join("access.jsonl"), room);
        let manifest = Manifest {
            schema: SCHEMA.into(),
            revision: 1,
            previous_manifest_sha256: None,
            session: room,
            booking_reference: Some("PRA-2026-17".into()),
            profile: "delega".into(),
            office: "Roma, Municipio I".into(),
            counter: "Deleghe".into(),
            reason: "Delega dell'identità digitale".into(),
            software: Software { name: "sportello".into(), version: "0.1.0".into(), build: String::new() },
            node: "test".into(),
            clock_source: "system".into(),
            begin: Moment { utc: wall(0), mono_ms: 60_000 },
            end: Moment { utc: wall(4), mono_ms: 64_000 },
            end_reason: "concluded".into(),
            outcome: Some("granted".into()),
            sealed: wall(60),
            key_id: small.signing.public().id().into(),
            encrypted,
            participants: vec![ParticipantFacts {
                id: ParticipantId::new(wall(1)),
                role: "delegato".into(),
                admitted_by: Some("code".into()),
                admitted: Some(wall(1)),
                consent_text_version: Some("2026-01".into()),
                consented: Some(wall(1)),
                voice: Some(VoiceReport {
                    recorded_ms: 4_000,
                    speech_ms: 3_000,
                    silence_ms: 1_000,
                    level_dbfs: Some(-23),
                    ..VoiceReport::default()
                }),
            }],
            originals: originals.to_vec(),
            session_copy: Some(SessionCopy {
                file: "session.webm".into(),
                begin: Moment { utc: wall(0), mono_ms: 60_000 },
                duration_ms: 4_000,
                tracks: vec!["audio".into(), "delegato".into()],
                largest_skew_ms: 3,
            }),
            presence: vec![PresenceFacts { from: wall(0), to: wall(4), length_ms: 4_000 }],
            ledger,
            accesses: Some(accesses),
            documents: Vec::new(),
            when_sealed: RetentionFacts::default(),
            recovery: Vec::new(),
            timestamp_authority: authority.map(|_| "http://127.0.0.1/tsa".into()),
            files: file_entries(root, key, &mut |_| {}).unwrap(),
        };
        let (_, jws) = sign_manifest(root, &manifest, &small.signing).unwrap();
        if let Some(local) = authority {
            let request = crate::recording::timestamp::Request::new(jws.as_bytes()).unwrap();
            add_timestamp(root, &local.answer(request.body()), &small.signing).unwrap();
        }
        small
    }

    fn files(&self) -> Memory {
        let folder = StoredFolder::new(self.folder.path());
        let list = folder.list().unwrap();
        Memory(list.into_keys().map(|path| (path.clone(), fs::read(self.folder.path().join(path)).unwrap())).collect())
    }

    fn check(&self, files: &dyn PackageFiles, open: bool) -> PackageReport {
        let session_key = open.then_some(&self.session);
        check(files, self.signing.public(), session_key)
    }
}

fn check(files: &dyn PackageFiles, key: &PublicKey, session_key: Option<&SessionKey>) -> PackageReport {
    let ledger = |text: &str| {
        let head = ledger::verify_text(text);
        let head = head.map_err(|error| LineFault { line: error.line(), reason: error.to_string() })?;
        Ok(ChainFacts { lines: head.seq, head: head.hash })
    };
    check_package(files, &Checks { key, session_key, authority: None, ledger: &ledger }, &mut |_, _| {})
}

/// A package in memory, to be changed quickly.
#[derive(Clone)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl PackageFiles for Memory {
    fn list(&self) -> io::Result<BTreeMap<String, Found>> {
        let found = |bytes: &Vec<u8>| Found { bytes: u64::try_from(bytes.len()).unwrap(), kind: Kind::File };
        Ok(self.0.iter().map(|(path, bytes)| (path.clone(), found(bytes))).collect())
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn ReadSeek + '_>> {
        Ok(Box::new(Cursor::new(self.0.get(path).ok_or(io::ErrorKind::NotFound)?)))
    }
}

impl Memory {
    /// In which piece of an original a byte lies.
    fn piece(&self, path: &str, byte: usize) -> u64 {
        let chain = &self.0[&path.replace(".webm", ".chain.jsonl")];
        let encrypted = vault::is_encrypted(&self.0[path]);
        let (mut end, mut piece) = (0, 0);
        for line in String::from_utf8(chain.clone()).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let length = if encrypted { &line["stored"]["length"] } else { &line["length"] };
            end += length.as_u64().unwrap();
            if u64::try_from(byte).unwrap() < end {
                return piece;
            }
            piece += 1;
        }
        panic!("behind the end")
    }
}

fn said(report: &PackageReport) -> Vec<String> {
    report.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_whole_package_is_whole_with_and_without_the_sessions_key() {
    for encrypted in [true, false] {
        let small = Small::new(encrypted);
        for open in [true, false] {
            let report = small.check(&StoredFolder::new(small.folder.path()), open);
            assert_eq!(said(&report), [""; 0], "encrypted {encrypted}, key {open}");
            assert_eq!((report.files, report.encrypted, report.opened), (9, encrypted, open));
            assert_eq!(report.manifest.unwrap().originals.len(), 2);
        }
        let loose = verify(&small.folder.path().join("originals"), |_, _| {}).unwrap();
        assert!(
            loose.files.iter().all(|file| file.finished && file.encrypted == encrypted && file.clusters == CLUSTERS)
        );
    }
}

#[test]
fn progress_comes_to_its_end() {
    let small = Small::new(true);
    let ledger = |text: &str| Ok(ChainFacts { lines: 5, head: ledger::verify_text(text).unwrap().hash });
    let checks = Checks { key: small.signing.public(), session_key: None, authority: None, ledger: &ledger };
    let (mut steps, mut last) = (0, (0, 0));
    let report = check_package(&small.files(), &checks, &mut |done, total| {
        assert!(done >= last.0 && done <= total);
        (steps, last) = (steps + 1, (done, total));
    });
    assert_eq!(said(&report), [""; 0]);
    assert!(last.0 == last.1 && steps > 10, "{last:?}");
}

/// The packages that bits are flipped in: made once.
fn flipped(encrypted: bool) -> &'static (Memory, PublicKey, SessionKey) {
    static MADE: [std::sync::OnceLock<(Memory, PublicKey, SessionKey)>; 2] = [const { std::sync::OnceLock::new() }; 2];
    MADE[usize::from(encrypted)].get_or_init(|| {
        let small = Small::new(encrypted);
        (small.files(), small.signing.public().clone(), small.session.clone())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_flipped_bit_anywhere_is_found_in_the_right_place(
        encrypted: bool, open: bool, file: prop::sample::Index, place: prop::sample::Index, bit in 0..8_u8
    ) {
        let (whole, key, session_key) = flipped(encrypted);
        let path = whole.0.keys().nth(file.index(whole.0.len())).unwrap().clone();
        let byte = place.index(whole.0[&path].len());
        let mut files = whole.clone();
        files.0.get_mut(&path).unwrap()[byte] ^= 1 << bit;
        let report = check(&files, key, open.then_some(session_key));
        let first = report.faults.first();
        prop_assert!(first.is_some(), "byte {byte} of {path} was not missed");
        prop_assert!(report.faults.iter().all(|fault| fault.file == path), "byte {byte} of {path}: {:?}", said(&report));
        let line = whole.0[&path][..byte].split(|byte| *byte == b'\n').count();
        let line = Some(Place::Line(u64::try_from(line).unwrap()));
        let expected = match path.as_str() {
            "ledger.jsonl" => line,
            // A changed line may also be told by the one after it, which does not follow from it.
            _ if path.contains(".chain.") || path == "access.jsonl" => match first.unwrap().place {
                Some(Place::Line(named)) if line == Some(Place::Line(named - 1)) => Some(Place::Line(named)),
                _ => line,
            },
            _ if is_original(&path) => Some(Place::Cluster(whole.piece(&path, byte))),
            "session.webm" => first.unwrap().place,
            _ => None,
        };
        prop_assert_eq!(first.unwrap().place, expected, "byte {} of {}: {:?}", byte, path, said(&report));
    }

    #[test]
    fn a_file_cut_anywhere_is_found(encrypted: bool, file: prop::sample::Index, place: prop::sample::Index) {
        let (whole, key, _) = flipped(encrypted);
        let path = whole.0.keys().nth(file.index(whole.0.len())).unwrap().clone();
        let mut files = whole.clone();
        let length = place.index(whole.0[&path].len());
        files.0.get_mut(&path).unwrap().truncate(length);
        let report = check(&files, key, None);
        prop_assert!(report.faults.first().is_some_and(|fault| fault.file == path), "{path}: {:?}", said(&report));
    }
}

fn is_original(path: &str) -> bool {
    path.starts_with("originals/") && is_webm(path)
}

#[test]
fn a_file_that_was_emptied_is_found_the_signature_too() {
    for encrypted in [false, true] {
        let (whole, key, _) = flipped(encrypted);
        for path in whole.0.keys().filter(|path| !whole.0[*path].is_empty()) {
            let mut files = whole.clone();
            files.0.get_mut(path).unwrap().clear();
            let report = check(&files, key, None);
            assert!(report.faults.first().is_some_and(|fault| fault.file == *path), "{path}: {:?}", said(&report));
        }
    }
}

#[test]
fn a_chain_whose_last_line_was_changed_is_not_believed_about_its_original() {
    let small = Small::new(false);
    let mut files = small.files();
    let chain = files.0.get_mut("originals/delegato-1.chain.jsonl").unwrap();
    let place = chain.windows(10).rposition(|window| window == b"\"sha256\":\"").unwrap() + 10;
    chain[place] ^= 1;
    let report = small.check(&files, false);
    assert_eq!(report.faults.len(), 1, "{:?}", said(&report));
    assert!(said(&report)[0].starts_with("originals/delegato-1.chain.jsonl: line 6: "), "{:?}", said(&report));
}

#[test]
fn segments_of_the_session_copy_are_named_to_whoever_has_the_key() {
    let small = Small::new(true);
    let mut files = small.files();
    files.0.get_mut("session.webm").unwrap()[100_000] ^= 4;
    assert!(said(&small.check(&files, true))[0].starts_with("session.webm: segment 1: its bytes have SHA-256"));
    assert!(said(&small.check(&files, false))[0].starts_with("session.webm: its bytes have SHA-256"));
}

#[test]
fn missing_additional_and_renamed_files_are_found() {
    let small = Small::new(true);
    for path in small.files().0.keys() {
        let mut files = small.files();
        files.0.remove(path);
        let report = small.check(&files, false);
        assert!(said(&report).contains(&format!("{path}: it is missing")), "{path}: {:?}", said(&report));
    }
    let mut files = small.files();
    let moved = files.0.remove("originals/delegato-1.rtcp.jsonl").unwrap();
    files.0.insert("originals/delegato-2.rtcp.jsonl".into(), moved);
    let report = small.check(&files, false);
    assert_eq!(
        said(&report),
        [
            "originals/delegato-2.rtcp.jsonl: it does not belong to the package: the manifest does not name it",
            "originals/delegato-1.rtcp.jsonl: it is missing"
        ]
    );
    // A timestamp that the manifest does not speak of is no part of it either.
    let mut files = small.files();
    files.0.insert(TIMESTAMP.into(), vec![1]);
    assert_eq!(small.check(&files, false).faults[0].problem, Problem::Extra);
    std::os::unix::fs::symlink("/etc/hostname", small.folder.path().join("originals/link")).unwrap();
    let report = small.check(&StoredFolder::new(small.folder.path()), false);
    assert_eq!(said(&report), ["originals/link: it is not a file"]);
}

#[test]
fn files_and_clusters_that_change_places_are_found() {
    for encrypted in [true, false] {
        let small = Small::new(encrypted);
        let mut files = small.files();
        let (one, other) = ("originals/delegato-1.webm", "originals/operatore-1.webm");
        let (first, second) = (files.0[one].clone(), files.0[other].clone());
        files.0.insert(one.into(), second);
        files.0.insert(other.into(), first.clone());
        let report = small.check(&files, false);
        assert_eq!(report.faults.len(), 2, "{:?}", said(&report));
        assert!(said(&report)[0].starts_with("originals/delegato-1.webm: "), "{:?}", said(&report));

        let mut files = small.files();
        let edges: Vec<usize> = (0..first.len()).filter(|byte| files.piece(one, *byte) == 2).collect();
        let next: Vec<usize> = (0..first.len()).filter(|byte| files.piece(one, *byte) == 3).collect();
        let swapped = [
            &first[..edges[0]],
            &first[next[0]..=next[next.len() - 1]],
            &first[edges[0]..=edges[edges.len() - 1]],
            &first[next[next.len() - 1] + 1..],
        ];
        files.0.insert(one.into(), swapped.concat());
        let report = small.check(&files, false);
        assert_eq!(report.faults[0].place, Some(Place::Cluster(2)), "{:?}", said(&report));
        assert!(matches!(report.faults[0].problem, Problem::Original(Difference::Hash { .. })));
    }
}

#[test]
fn a_manifest_that_somebody_else_signed_is_refused() {
    let small = Small::new(true);
    let forger = SigningKey::generate().unwrap();
    let mut manifest = Manifest::from_bytes(&fs::read(small.folder.path().join(MANIFEST)).unwrap()).unwrap();
    manifest.outcome = Some("refused".into());
    sign_manifest(small.folder.path(), &manifest, &forger).unwrap();
    let report = small.check(&small.files(), false);
    let found =
        SignatureError::OtherKey { found: forger.public().id().into(), expected: small.signing.public().id().into() };
    assert_eq!(report.faults[0].problem, Problem::Signature(found));
    assert_eq!(report.faults[0].file, SIGNATURE);
    // Under the name of the right key: the signature itself tells.
    let bytes = manifest.to_bytes().unwrap();
    let jws = forger.sign(MANIFEST_TYPE, &bytes).unwrap();
    let right = small.signing.sign(MANIFEST_TYPE, &bytes).unwrap();
    let mixed = [right.rsplit_once('.').unwrap().0, jws.rsplit_once('.').unwrap().1].join(".");
    fs::write(small.folder.path().join(SIGNATURE), mixed).unwrap();
    let report = small.check(&small.files(), false);
    assert!(matches!(report.faults[0].problem, Problem::Signature(SignatureError::Wrong(_))), "{:?}", said(&report));
}

#[test]
fn what_the_manifest_says_of_an_original_must_be_so() {
    let small = Small::new(true);
    let mut manifest = Manifest::from_bytes(&fs::read(small.folder.path().join(MANIFEST)).unwrap()).unwrap();
    manifest.originals[0].clusters += 1;
    manifest.originals.remove(1);
    manifest.ledger.lines += 1;
    sign_manifest(small.folder.path(), &manifest, &small.signing).unwrap();
    let report = small.check(&small.files(), false);
    let said = said(&report);
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("ledger.jsonl: the manifest says that its head is"), "{said:?}");
    assert_eq!(said[1], "originals/delegato-1.webm: the manifest says that its clusters are 5, and it is 4");
    assert!(said[2].starts_with("originals/operatore-1.webm: the manifest says of it nothing"), "{said:?}");
}

#[test]
fn manifests_are_read_in_their_one_form_only() {
    let small = Small::new(false);
    let bytes = fs::read(small.folder.path().join(MANIFEST)).unwrap();
    let manifest = Manifest::from_bytes(&bytes).unwrap();
    assert_eq!(canonical(&manifest).unwrap(), bytes);
    let spaced = [bytes.as_slice(), b"\n"].concat();
    assert!(matches!(Manifest::from_bytes(&spaced), Err(ManifestError::OtherForm)));
    for path in ["../x", "/etc/passwd", "a//b", "", "manifest.json", "a/../b"] {
        let mut outside = manifest.clone();
        outside.files = vec![FileEntry { path: path.into(), bytes: 0, sha256: String::new(), plain: None }];
        let read = Manifest::from_bytes(&outside.to_bytes().unwrap());
        assert!(matches!(read, Err(ManifestError::Path(_))), "{path}");
    }
    let mut later = manifest;
    later.schema = "sportello-manifest/2".into();
    assert!(matches!(Manifest::from_bytes(&later.to_bytes().unwrap()), Err(ManifestError::OtherSchema(_))));
}

#[test]
fn a_timestamp_belongs_to_the_package_and_no_bit_of_it_can_change() {
    let local = Local::new();
    let small = Small::with(true, Some(&local));
    let authority = local.authority();
    let ledger = |text: &str| Ok(ChainFacts { lines: 5, head: ledger::verify_text(text).unwrap().hash });
    let checks =
        Checks { key: small.signing.public(), session_key: None, authority: Some(&authority), ledger: &ledger };
    let report = check_package(&small.files(), &checks, &mut |_, _| {});
    assert_eq!(said(&report), [""; 0]);
    assert!(report.timestamp.unwrap().trusted);
    let stranger = Local::new().authority();
    let other = check_package(&small.files(), &Checks { authority: Some(&stranger), ..checks }, &mut |_, _| {});
    assert!(said(&other)[0].starts_with("manifest.tsr: it was not signed by the configured authority"));
    for path in [TIMESTAMP, TIMESTAMP_SIGNATURE] {
        let length = small.files().0[path].len();
        for byte in (0..length).step_by(7) {
            let mut files = small.files();
            files.0.get_mut(path).unwrap()[byte] ^= 1;
            let report = check_package(&files, &checks, &mut |_, _| {});
            assert!(report.faults.iter().any(|fault| fault.file == path), "byte {byte} of {path}");
        }
        let mut files = small.files();
        files.0.remove(path);
        assert_eq!(said(&check_package(&files, &checks, &mut |_, _| {})), [format!("{path}: it is missing")]);
    }
}

#[test]
fn a_plain_export_verifies_against_the_same_manifest() {
    let small = Small::new(true);
    let out = tempfile::tempdir().unwrap();
    let plain = out.path().join("plain");
    let count = export_plain(&small.files(), Some(&small.session), &plain, &mut |_, _| {}).unwrap();
    assert_eq!(count, 11);
    let report = small.check(&StoredFolder::new(&plain), false);
    assert_eq!(said(&report), [""; 0]);
    assert!(!report.encrypted);
    assert_eq!(fs::read(plain.join("originals/delegato-1.webm")).unwrap(), pieces(10).concat());
    assert_eq!(fs::read(plain.join("session.webm")).unwrap().len(), COPY);
    // And a flipped byte of it is found in its cluster.
    let mut bytes = fs::read(plain.join("originals/delegato-1.webm")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(plain.join("originals/delegato-1.webm"), bytes).unwrap();
    let report = small.check(&StoredFolder::new(&plain), false);
    assert_eq!(report.faults[0].place, Some(Place::Cluster(CLUSTERS)), "{:?}", said(&report));

    let again = export_plain(&small.files(), Some(&small.session), &plain, &mut |_, _| {});
    assert!(matches!(again, Err(ExportError::Write { .. })), "nothing is overwritten");
    let other = SessionKey::generate().unwrap();
    let closed = export_plain(&small.files(), Some(&other), &out.path().join("other"), &mut |_, _| {});
    assert!(matches!(closed, Err(ExportError::Closed { path, .. }) if path == "originals/delegato-1.webm"));
}

#[test]
fn a_tar_is_the_package_encrypted_or_plain() {
    let small = Small::new(true);
    let out = tempfile::tempdir().unwrap();
    for key in [None, Some(&small.session)] {
        let path = out.path().join("package.tar");
        write_tar(&small.files(), "session-1", key, fs::File::create(&path).unwrap()).unwrap();
        let tar = StoredTar::open(&path).unwrap();
        assert_eq!(tar.list().unwrap().len(), 11);
        let report = small.check(&tar, key.is_some());
        assert_eq!(said(&report), [""; 0]);
        assert_eq!(report.encrypted, key.is_none());
        let bytes = fs::read(&path).unwrap();
        for cut in [bytes.len() / 3, bytes.len() * 2 / 3] {
            let path = out.path().join("cut.tar");
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = StoredTar::open(&path).is_ok_and(|tar| small.check(&tar, false).faults.is_empty());
            assert!(!whole, "cut at {cut}");
        }
    }
    let listed = std::process::Command::new("tar").arg("-tf").arg(out.path().join("package.tar")).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains("session-1/originals/delegato-1.webm\n"));
}

#[test]
fn packages_are_left_for_other_programs_to_verify() {
    let Some(artefacts) = std::env::var_os("ARTEFACTS").map(PathBuf::from) else { return };
    for (name, encrypted) in [("encrypted", true), ("plain", false)] {
        let small = Small::new(encrypted);
        let place = artefacts.join("packages").join(name);
        let _before = fs::remove_dir_all(&place);
        export_plain(&small.files(), None, &place.join("session"), &mut |_, _| {}).unwrap();
        fs::write(place.join("signing.jwk"), serde_json::to_vec(&small.signing.public().jwk()).unwrap()).unwrap();
        fs::write(place.join("session.key"), hex::encode(small.session.expose())).unwrap();
    }
}
