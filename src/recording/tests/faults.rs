//! Disks that fail, files that were changed, rooms that listen badly.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::synthetic::{Booth, SILENCE, Sender, blocks, both, speech};
use crate::clock::MonoTime;
use crate::media::{RecordingFault, Source};
use crate::recording::file::{Append, Disk, LocalDisk};
use crate::recording::{Difference, Fact, VerifyError, verify};

const START: MonoTime = MonoTime::from_millis(2_000);

/// A disk that is full after so many bytes, or whose syncs fail after so many.
#[derive(Debug)]
struct Failing {
    room: AtomicU64,
    syncs: AtomicU64,
    calls_after_failure: AtomicU64,
}

#[derive(Debug)]
struct FailingFile {
    disk: Arc<Failing>,
    inner: Box<dyn Append>,
    failed: bool,
}

#[derive(Debug)]
struct FailingDisk(Arc<Failing>);

impl FailingDisk {
    fn new(room: u64, syncs: u64) -> (Arc<Self>, Arc<Failing>) {
        let state = Failing { room: room.into(), syncs: syncs.into(), calls_after_failure: 0.into() };
        let state = Arc::new(state);
        (Arc::new(Self(Arc::clone(&state))), state)
    }
}

impl Disk for FailingDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        LocalDisk.make_folder(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        Ok(Box::new(FailingFile { disk: Arc::clone(&self.0), inner: LocalDisk.create(path)?, failed: false }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        LocalDisk.sync_folder(path)
    }
}

impl Append for FailingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.calls_after_failure.fetch_add(u64::from(self.failed), Ordering::Relaxed);
        let length = u64::try_from(bytes.len()).unwrap();
        if self.disk.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(length)).is_err() {
            self.failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.append(bytes)
    }

    fn retract(&mut self) {
        self.inner.retract();
    }

    fn start_writeback(&mut self) {
        self.inner.start_writeback();
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.calls_after_failure.fetch_add(u64::from(self.failed), Ordering::Relaxed);
        if self.disk.syncs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            self.failed = true;
            return Err(io::Error::other("the disk is gone"));
        }
        self.inner.sync()
    }
}

fn faults(booth: &mut Booth) -> Vec<Fact> {
    let mut facts = Vec::new();
    while let Ok(fact) = booth.facts.try_recv() {
        facts.push(fact);
    }
    facts.retain(|fact| !matches!(fact, Fact::Ready | Fact::Head { .. }));
    facts
}

#[test]
fn a_full_disk_stops_the_room_and_leaves_whole_clusters() {
    let (disk, state) = FailingDisk::new(300_000, u64::MAX);
    let mut booth = Booth::on(disk, 64);
    let connection = booth.connect("delegato");
    booth.play(connection, both(START, 10, false));
    let acknowledged = booth.tap.durable_until().unwrap();
    booth.pass_to(booth.at + Duration::from_secs(3));
    assert_eq!(booth.tap.durable_until(), Some(acknowledged), "nothing is acknowledged any more");
    let facts = faults(&mut booth);
    let started = |source| Fact::Started { connection, source };
    let lost = Fact::Lost { fault: RecordingFault::DiskFull };
    let [first, second, Fact::GivenUp { connection: of, original }, last] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!((first, second, last), (&started(Source::Microphone), &started(Source::Camera), &lost));
    assert_eq!((*of, original.file.as_str()), (connection, "delegato-1.webm"));
    let length = fs::metadata(booth.path("delegato-1.webm")).unwrap().len();
    assert!((1..=length).contains(&original.bytes), "what was synced: {original:?}");
    assert_eq!(state.calls_after_failure.load(Ordering::Relaxed), 0, "never tried again");
    verify(&booth.path("delegato-1.webm"), |_, _| {}).unwrap();
    assert!(!blocks(&booth.path("delegato-1.webm")).is_empty());
    // The tap is emptied all the same, and the room can be closed.
    booth.play(connection, both(START + Duration::from_secs(20), 10, false));
    assert!(booth.close().is_empty(), "what broke is not called finished");
}

#[test]
fn a_failed_sync_gives_the_file_up() {
    let (disk, state) = FailingDisk::new(u64::MAX, 9);
    let mut booth = Booth::on(disk, 64);
    let connection = booth.connect("delegato");
    booth.play(connection, both(START, 10, false));
    let facts = faults(&mut booth);
    assert_eq!(facts.last(), Some(&Fact::Lost { fault: RecordingFault::WriteFailed }));
    assert_eq!(state.calls_after_failure.load(Ordering::Relaxed), 0);
}

#[test]
fn a_room_that_does_not_listen_still_hears_that_it_was_lost() {
    let (disk, _) = FailingDisk::new(200_000, u64::MAX);
    let mut booth = Booth::on(disk, 1);
    let connections = [booth.connect("delegato"), booth.connect("delegante")];
    for connection in connections {
        booth.play(connection, both(booth.at + Duration::from_millis(100), 5, false));
    }
    booth.close();
    let mut facts = Vec::new();
    for _ in 0..10 {
        booth.pass_to(booth.at + Duration::from_millis(50));
        facts.extend(booth.facts.try_recv());
    }
    assert!(facts.contains(&Fact::Lost { fault: RecordingFault::DiskFull }), "{facts:?}");
    assert_eq!(facts.last(), Some(&Fact::Closed));
}

#[test]
fn a_disk_that_is_full_from_the_start_lets_no_media_flow() {
    let (disk, _) = FailingDisk::new(0, u64::MAX);
    let mut booth = Booth::on(disk, 4);
    assert_eq!(faults(&mut booth), [Fact::Lost { fault: RecordingFault::DiskFull }]);
    assert_eq!(booth.tap.durable_until(), None, "no media flows");
}

fn recorded() -> (Booth, std::path::PathBuf) {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    booth.play(connection, both(START, 6, false));
    let original = booth.close().remove(0);
    let path = booth.path(&original.file);
    (booth, path)
}

fn broken(path: &Path) -> (u64, Difference) {
    match verify(path, |_, _| {}) {
        Err(VerifyError::Broken { cluster, difference, path: named }) => {
            assert!(named.ends_with("delegato-1.webm"));
            (cluster, difference)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_flipped_byte_is_found_and_its_cluster_named() {
    let (booth, path) = recorded();
    let bytes = fs::read(&path).unwrap();
    let chain = fs::read_to_string(path.with_extension("chain.jsonl")).unwrap();
    let entries: Vec<crate::recording::ChainEntry> =
        chain.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for entry in entries.iter().filter(|entry| !entry.end) {
        let mut changed = bytes.clone();
        let at = usize::try_from(entry.offset + entry.length / 2).unwrap();
        changed[at] ^= 0x10;
        fs::write(&path, changed).unwrap();
        let (cluster, difference) = broken(&booth.path(""));
        assert_eq!(cluster, entry.n);
        assert!(matches!(difference, Difference::Hash { .. }));
    }
    let error = verify(&path, |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("delegato-1.webm: cluster ") && error.contains("SHA-256"), "{error}");
}

#[test]
fn a_cut_tail_a_longer_file_and_swapped_or_changed_lines_are_found() {
    let (_booth, path) = recorded();
    let chain_path = path.with_extension("chain.jsonl");
    let (bytes, chain) = (fs::read(&path).unwrap(), fs::read_to_string(&chain_path).unwrap());
    let lines: Vec<&str> = chain.lines().collect();
    let last = u64::try_from(lines.len() - 2).unwrap();

    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(broken(&path), (last, Difference::CutShort));
    fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
    assert_eq!(broken(&path), (last, Difference::Tail(1)));
    fs::write(&path, &bytes).unwrap();

    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    fs::write(&chain_path, swapped.join("\n") + "\n").unwrap();
    assert_eq!(broken(&path), (2, Difference::Number(3)));

    // Whoever changes a cluster and its hash breaks the line after it.
    let changed = chain.replacen(&lines[2][40..60], &"0".repeat(20), 1);
    fs::write(&chain_path, changed).unwrap();
    assert!(broken(&path).0 <= 3);

    fs::write(&chain_path, &chain[..chain.len() - 5]).unwrap();
    assert!(matches!(broken(&path), (n, Difference::Line(_)) if n == last + 1));
    fs::write(&chain_path, "").unwrap();
    assert!(matches!(broken(&path), (0, Difference::Line(_))));
    fs::remove_file(&chain_path).unwrap();
    assert!(matches!(verify(&path, |_, _| {}), Err(VerifyError::Unreadable { .. })));
    assert!(matches!(verify(&chain_path, |_, _| {}), Err(VerifyError::Unreadable { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(verify(empty.path(), |_, _| {}), Err(VerifyError::NothingFound { .. })));
}

#[test]
fn verify_tells_its_progress() {
    let (booth, path) = recorded();
    let mut seen = Vec::new();
    verify(&booth.path(""), |done, total| seen.push((done, total))).unwrap();
    let length = fs::metadata(&path).unwrap().len();
    assert_eq!(seen.first(), Some(&(0, length)));
    assert_eq!(seen.last(), Some(&(length, length)));
}

#[test]
fn a_room_in_which_nothing_comes_in_is_only_acknowledged_and_looked_through_once_a_second() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    let (begin, mut microphone) = (booth.at, Sender::new(Source::Microphone));
    booth.play(connection, speech(&mut microphone, begin, 50));
    assert!(!booth.room.acknowledge_rest(booth.at), "not while something waits");
    booth.pass_to(begin + Duration::from_secs(4));
    let rounds = (0..100).map(|n| booth.at + Duration::from_millis(50 * n));
    let rested = rounds.take_while(|&at| booth.room.acknowledge_rest(at)).count();
    assert!((1..=20).contains(&rested), "{rested} rounds of 50 ms");
    let last = booth.at + Duration::from_millis(50 * (u64::try_from(rested).unwrap() - 1));
    assert!(booth.tap.is_durable(last, Duration::ZERO), "acknowledged up to the last of them");

    booth.play(connection, speech(&mut microphone, booth.at, 1));
    assert!(!booth.room.acknowledge_rest(booth.at), "nor when something comes in");
    assert_eq!(booth.close().len(), 1, "and all of it is in the file");
    assert_eq!(blocks(&booth.path("delegato-1.webm")).iter().filter(|(.., data)| data == &SILENCE).count(), 51);
}

#[test]
fn an_unfinished_frame_or_a_silent_source_never_holds_up_the_rest() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    booth.play(connection, both(START, 2, false));
    // Half a frame, then nothing but voice.
    let mut camera = Sender::new(Source::Camera);
    (camera.sequence, camera.timestamp, camera.picture) = (250, 5_000 + 50 * 3_600, 127);
    let half = camera.video(START + Duration::from_secs(2), &[0x51; 3_000], Duration::from_millis(40)).remove(0);
    booth.play(connection, vec![(Source::Camera, half)]);
    let mut microphone = Sender::new(Source::Microphone);
    (microphone.sequence, microphone.timestamp) = (200, 5_000 + 100 * 960);
    for (source, packet) in speech(&mut microphone, START + Duration::from_secs(2), 250) {
        booth.play(connection, vec![(source, packet)]);
        let behind = booth.at.since(booth.tap.durable_until().unwrap());
        assert!(behind < Duration::from_millis(1_500), "{behind:?} behind");
    }
}
