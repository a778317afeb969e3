//! Several disks, of which one hangs, fails or is full; rooms that go on in new files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use super::synthetic::{SILENCE, Sender};
use crate::clock::Clock;
use crate::id::{ConnectionId, RoomId};
use crate::media::{RecordingFault, Source};
use crate::recording::file::{Append, Disk, LocalDisk};
use crate::recording::{Fact, Need, NoSpace, Recorder, RecorderConfig, SpaceConfig, folder_of, verify};
use crate::rtp::{Tap, Tapped, tap};

const LIMIT: Duration = Duration::from_secs(2);

/// A disk whose syncs hang or fail when they are told to.
#[derive(Debug, Default)]
struct Moods {
    hangs: Mutex<bool>,
    wakes: Condvar,
    fails: AtomicBool,
    /// Bytes that it says are free.
    free: AtomicU64,
    /// Syncs of files whose sync had failed before.
    synced_again: AtomicU64,
}

#[derive(Debug)]
struct MoodyDisk(Arc<Moods>);

#[derive(Debug)]
struct MoodyFile {
    moods: Arc<Moods>,
    inner: Box<dyn Append>,
    failed: bool,
}

impl Moods {
    fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.wakes.notify_all();
    }
}

impl Disk for MoodyDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        LocalDisk.make_folder(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        Ok(Box::new(MoodyFile { moods: Arc::clone(&self.0), inner: LocalDisk.create(path)?, failed: false }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        LocalDisk.sync_folder(path)
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.free.load(Ordering::Relaxed))
    }
}

impl Append for MoodyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.append(bytes)
    }

    fn retract(&mut self) {
        self.inner.retract();
    }

    fn start_writeback(&mut self) {
        self.inner.start_writeback();
    }

    fn sync(&mut self) -> io::Result<()> {
        let hangs = self.moods.hangs.lock().unwrap();
        drop(self.moods.wakes.wait_while(hangs, |hangs| *hangs).unwrap());
        self.moods.synced_again.fetch_add(u64::from(self.failed), Ordering::Relaxed);
        if self.moods.fails.load(Ordering::Relaxed) {
            self.failed = true;
            return Err(io::Error::other("the disk is gone"));
        }
        self.inner.sync()
    }
}

/// A recorder on disks with moods.
struct Archive {
    folder: tempfile::TempDir,
    roots: Vec<PathBuf>,
    moods: Vec<Arc<Moods>>,
    recorder: Recorder,
    clock: Clock,
}

impl Archive {
    /// One disk for each of these figures of free bytes.
    fn new(free: &[u64]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let roots: Vec<_> = (0..free.len()).map(|n| folder.path().join(format!("disk-{n}"))).collect();
        let moods: Vec<_> =
            free.iter().map(|free| Arc::new(Moods { free: (*free).into(), ..Moods::default() })).collect();
        let clock = Clock::new();
        let disks = moods.iter().map(|moods| Arc::new(MoodyDisk(Arc::clone(moods))) as Arc<dyn Disk>).collect();
        let space = SpaceConfig { bytes_per_second: 1_000, floor: 10_000 };
        let config = RecorderConfig { folders: roots.clone(), threads: 1, space };
        let recorder = Recorder::start_on(disks, config, clock).unwrap();
        Self { folder, roots, moods, recorder, clock }
    }

    async fn reserve(&self, room: RoomId, seconds: u64) -> Result<(), NoSpace> {
        self.recorder.reserve(room, Need { people: 1, lasts: Duration::from_secs(seconds) }).await
    }

    fn room(&self) -> RoomId {
        RoomId::new(self.clock.now().wall)
    }

    fn open(&self, room: RoomId) -> Session<'_> {
        let (tap, reader) = tap();
        let (sender, facts) = mpsc::channel(64);
        self.recorder.open_room(room, None, reader, sender);
        let connection = ConnectionId::new(self.clock.now().wall);
        self.recorder.open_original(room, connection, "citizen".into());
        Session { archive: self, tap, facts, connection, voice: Sender::new(Source::Microphone) }
    }

    /// On which disk a room lies.
    fn disk_of(&self, room: RoomId) -> usize {
        let folder = folder_of(&self.roots, room).expect("it lies somewhere");
        self.roots.iter().position(|root| folder.starts_with(root)).unwrap()
    }
}

/// Someone who speaks in a room.
struct Session<'a> {
    archive: &'a Archive,
    tap: Tap,
    facts: mpsc::Receiver<Fact>,
    connection: ConnectionId,
    voice: Sender,
}

impl Session<'_> {
    fn speak(&mut self) {
        let packet = self.voice.audio(self.archive.clock.mono(), &SILENCE);
        let item = Tapped::Packet { connection: self.connection, source: Source::Microphone, packet };
        self.tap.push(item).unwrap();
    }

    /// Speaks until `holds`, for at most five seconds.
    fn speak_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let (clock, begin) = (self.archive.clock, self.archive.clock.mono());
        while !holds(self) {
            assert!(clock.mono().since(begin) < Duration::from_secs(5), "{what}");
            self.speak();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_durable(&self) -> bool {
        self.tap.is_durable(self.archive.clock.mono(), LIMIT)
    }

    /// Speaks until this is told.
    fn hears(&mut self, what: &str, fits: impl Fn(&Fact) -> bool) {
        self.speak_until(what, |session| session.facts.try_recv().is_ok_and(|fact| fits(&fact)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_in_a_sync_stops_its_own_rooms_and_no_others() {
    let archive = Archive::new(&[200_000, 100_000]);
    let rooms = [archive.room(), archive.room()];
    archive.reserve(rooms[0], 150).await.unwrap();
    archive.moods[0].free.store(50_000, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1_200));
    archive.reserve(rooms[1], 60).await.unwrap();
    assert_eq!(rooms.map(|room| archive.disk_of(room)), [0, 1], "each where most space was");

    let [mut hangs, mut goes_on] = rooms.map(|room| archive.open(room));
    for session in [&mut hangs, &mut goes_on] {
        session.hears("it is recorded", |fact| matches!(fact, Fact::Started { .. }));
    }
    archive.moods[0].hang(true);
    hangs.speak_until("two seconds without an acknowledgement", |session| {
        goes_on.speak();
        assert!(goes_on.is_durable(), "the other disk goes on");
        !session.is_durable()
    });
    // While it hangs, nothing new is placed there, however much space it has.
    archive.moods[0].free.store(900_000, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1_200));
    let third = archive.room();
    archive.reserve(third, 20).await.unwrap();
    assert_eq!(archive.disk_of(third), 1);

    // It comes back; the room is opened anew and gets new files.
    let connection = hangs.connection;
    drop(hangs);
    let mut again = archive.open(rooms[0]);
    archive.recorder.open_original(rooms[0], connection, "citizen".into());
    assert!(!again.is_durable());
    archive.moods[0].hang(false);
    again.hears("it is recorded again", |fact| matches!(fact, Fact::Started { .. }));
    assert!(again.is_durable());
    let files = fs::read_dir(folder_of(&archive.roots, rooms[0]).unwrap()).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|name| Path::new(name).extension().is_some_and(|end| end == "webm"));
    files.sort();
    assert_eq!(files, ["citizen-1.webm", "citizen-2.webm"]);
    verify(&folder_of(&archive.roots, rooms[0]).unwrap(), |_, _| {}).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_sync_failed_is_given_up_and_never_synced_again() {
    let archive = Archive::new(&[1_000_000]);
    let room = archive.room();
    archive.reserve(room, 60).await.unwrap();
    let mut session = archive.open(room);
    session.hears("it is recorded", |fact| matches!(fact, Fact::Started { .. }));
    archive.moods[0].fails.store(true, Ordering::Relaxed);
    let mut given_up = None;
    session.speak_until("it is lost", |session| match session.facts.try_recv() {
        Ok(Fact::GivenUp { original, .. }) => {
            given_up = Some(original);
            false
        }
        Ok(Fact::Lost { fault }) => fault == RecordingFault::WriteFailed,
        _ => false,
    });
    assert!(!session.is_durable());
    let given_up = given_up.expect("what is on disk for sure is told");
    assert!(given_up.clusters > 0 && given_up.file == "citizen-1.webm", "{given_up:?}");

    let mut again = archive.open(room);
    again.hears("it fails again", |fact| matches!(fact, Fact::Lost { .. }));
    archive.moods[0].fails.store(false, Ordering::Relaxed);
    let mut again = archive.open(room);
    again.hears("it is ready", |fact| *fact == Fact::Ready);
    again.hears("it is recorded again", |fact| matches!(fact, Fact::Started { .. }));
    archive.recorder.close_room(room);
    again.speak_until("it is finished", |session| {
        matches!(session.facts.try_recv(), Ok(Fact::Finished { original, .. }) if original.file == "citizen-2.webm")
    });
    assert_eq!(archive.moods[0].synced_again.load(Ordering::Relaxed), 0);
    let folder = folder_of(&archive.roots, room).unwrap();
    verify(&folder, |_, _| {}).unwrap();
    assert!(!folder.join(".reserved").exists(), "what was reserved is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_reserved_and_the_floor_is_left() {
    let archive = Archive::new(&[50_000, 60_000]);
    assert!(archive.recorder.has_space());
    let room = archive.room();
    assert_eq!(archive.reserve(room, 51).await, Err(NoSpace), "51,000 and the floor of 10,000");
    archive.reserve(room, 50).await.unwrap();
    assert_eq!(archive.disk_of(room), 1);
    archive.reserve(room, 50).await.unwrap();
    archive.recorder.release(room);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(folder_of(&archive.roots, room), None, "nothing is left of a room that was not opened");
    for moods in &archive.moods {
        moods.free.store(9_000, Ordering::Relaxed);
    }
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(!archive.recorder.has_space(), "below the floor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_disk_is_all_but_full_does_not_begin_anew() {
    let archive = Archive::new(&[100_000]);
    let room = archive.room();
    archive.reserve(room, 80).await.unwrap();
    archive.recorder.release(room);
    archive.moods[0].free.store(20_000, Ordering::Relaxed);
    // It is open: it may take what the floor keeps from others, but half a minute must fit.
    assert_eq!(archive.reserve(room, 80).await, Err(NoSpace));
    let mut session = archive.open(room);
    session.hears("there is no space", |fact| *fact == Fact::Lost { fault: RecordingFault::DiskFull });
    archive.moods[0].free.store(30_000, Ordering::Relaxed);
    let mut session = archive.open(room);
    session.hears("half a minute fits", |fact| *fact == Fact::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_finds_the_rooms_and_gives_back_what_an_earlier_run_had_reserved() {
    let archive = Archive::new(&[100_000, 1_000_000]);
    let room = archive.room();
    let folder = archive.roots[0].join(room.to_string());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(".reserved"), "left by a crash").unwrap();
    fs::write(folder.join("citizen-1.webm"), "recorded before it").unwrap();
    let Archive { folder: kept, roots, .. } = archive;
    let clock = Clock::new();
    let config =
        RecorderConfig { folders: roots.clone(), threads: 2, space: SpaceConfig { bytes_per_second: 1_000, floor: 0 } };
    let recorder = Recorder::start(config, clock).unwrap();
    assert!(!folder.join(".reserved").exists());
    recorder.reserve(room, Need { people: 1, lasts: Duration::from_secs(10) }).await.unwrap();
    assert_eq!(folder_of(&roots, room), Some(folder.clone()), "it goes on where it lies");
    assert_eq!(fs::metadata(folder.join(".reserved")).unwrap().len(), 10_000);
    recorder.close_room(room);
    drop(kept);
}
