//! The sealed package of a call in which someone dropped and came back: it verifies, one changed byte is found, and the
//! session copy has everyone's every frame on one timeline, and every voice.

use std::collections::BTreeMap;
use std::f32::consts::TAU;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use loadtest::client::Habits;
use loadtest::numbered::{Kind, Mark, Sent};
use tempfile::TempDir;

use super::meeting::{GLANCE, Meeting, ROLES, Setup, export, originals_in, tone_of};
use super::recorded::decodes;
use crate::server::{Server, Signal};

/// Sealing has the least priority, and a debug build encodes slowly.
const LONGEST_SEALING: Duration = Duration::from_secs(90);
/// How far apart what happened at one moment may stand in the session copy.
const TOGETHER_MS: f64 = 40.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_a_drop_and_a_return_is_sealed_whole_and_its_session_copy_has_everyone() {
    let mut meeting = Meeting::is_live(Setup::default(), |_| Habits::default()).await;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    meeting.device("delegato").lose_network();
    let lost = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    meeting.connects("delegato").await;
    let back = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let ended = Instant::now();
    meeting.ends().await;

    let package = sealed_package(&meeting).await;
    package_verifies(&meeting.server, &package).await;
    every_changed_byte_is_found(&meeting.server, &package).await;

    let plain = TempDir::new().unwrap();
    let exported = plain.path().join("session");
    export(&meeting.server, &package, &exported).await;
    package_verifies(&meeting.server, &exported).await;
    let session = exported.join("session.webm");
    decodes(&session);
    keep_for_players(&session);

    // Each person's picture is in the copy as it is in their originals, which have everything that they sent.
    let tracks = Session::read(&session);
    assert_eq!(tracks.names[0].1, "A_OPUS", "players take the first audio track: {:?}", tracks.names);
    let mut offsets = Vec::new();
    for role in ROLES {
        let record = meeting.record(role);
        let originals = originals_in(&exported.join("originals"), role);
        assert_eq!(originals.len(), if role == "delegato" { 2 } else { 1 }, "originals of the {role}");
        for original in &originals {
            decodes(&original.path);
        }
        for kind in [Kind::Voice, Kind::Picture] {
            let blocks = originals.iter().flat_map(|original| original.of(kind));
            let numbers: Vec<_> = blocks.map(|block| block.mark.number).collect();
            let sent = arrived(&record.sent(kind), &numbers);
            assert_eq!(numbers, sent.iter().map(|sent| sent.number).collect::<Vec<_>>(), "{role} {kind:?}");
        }
        let copied = &tracks.pictures[role];
        let numbers: Vec<_> = copied.iter().map(|(mark, _)| mark.number).collect();
        let sent = arrived(&record.sent(Kind::Picture), &numbers);
        assert_eq!(numbers, sent.iter().map(|sent| sent.number).collect::<Vec<_>>(), "the {role} in the session copy");
        let since_began = |at: Instant| {
            at.checked_duration_since(began)
                .map_or_else(|| -began.duration_since(at).as_secs_f64() * 1e3, |later| later.as_secs_f64() * 1e3)
        };
        offsets.extend(copied.iter().zip(&sent).map(|((_, at_ms), sent)| *at_ms as f64 - since_began(sent.captured)));
    }
    let (least, most) = offsets.iter().fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(*at), high.max(*at)));
    println!("all pictures of one moment stand within {:.1} ms in the session copy", most - least);
    assert!(most - least <= TOGETHER_MS, "pictures of one moment stand {:.1} ms apart", most - least);

    // Each voice is heard while its person was there, and not while they were not.
    let sound = Sound::of(&session);
    let at = |moment: Instant| (moment.duration_since(began).as_secs_f64() * 1e3 + least) / 1e3;
    for role in ROLES {
        let there = if role == "delegato" {
            vec![(at(began), at(lost)), (at(back), at(ended))]
        } else {
            vec![(at(began), at(ended))]
        };
        for (from, to) in there {
            sound.has(tone_of(role), from + 0.5, to - 0.5, true);
        }
    }
    sound.has(tone_of("delegato"), at(lost) + 0.5, at(back) - 0.5, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealing_that_is_killed_again_and_again_is_taken_up_and_comes_to_its_end() {
    let mut meeting = Meeting::is_live(Setup::default(), |_| Habits::default()).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    meeting.ends().await;

    let (data, room) = (meeting.server.data().to_owned(), meeting.booked.room.clone());
    let (work, package) = (data.join("sealing").join(&room), data.join("packages").join(format!("session-{room}")));
    // Each time a little later: while it checks, derives, stores, reads back, or just when it is done.
    let mut interrupted = 0;
    for n in 0..8 {
        let deadline = Instant::now() + LONGEST_SEALING;
        while !work.exists() && !package.join("manifest.json").exists() {
            assert!(Instant::now() < deadline, "nobody begins to seal it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(60 * n)).await;
        interrupted += usize::from(work.exists());
        meeting.server.end(Signal::Kill);
        meeting.server.come_back().await;
    }
    assert!(interrupted > 0, "no kill met the sealer at work");

    let sealed = sealed_package(&meeting).await;
    package_verifies(&meeting.server, &sealed).await;
    // The recorder's files, and what the interrupted attempts left, are gone; the rest is there once.
    while work.exists() {
        tokio::time::sleep(GLANCE).await;
    }
    let plain = TempDir::new().unwrap();
    let exported = plain.path().join("session");
    export(&meeting.server, &sealed, &exported).await;
    decodes(&exported.join("session.webm"));
    for role in ROLES {
        assert_eq!(originals_in(&exported.join("originals"), role).len(), 1, "originals of the {role}");
    }
}

/// What was sent, less the last of a connection before another one if it is not there: the network may have gone just
/// when it was to be handed over.
fn arrived(sent: &[Sent], there: &[u64]) -> Vec<Sent> {
    let last = |n: usize| sent.get(n + 1).is_some_and(|next| next.connection != sent[n].connection);
    let arrived = (0..sent.len()).filter(|n| !last(*n) || there.contains(&sent[*n].number));
    arrived.map(|n| sent[n]).collect()
}

/// Waits until the room's package is sealed; gives its folder.
async fn sealed_package(meeting: &Meeting) -> PathBuf {
    let (data, room) = (meeting.server.data(), &meeting.booked.room);
    let (package, recordings) =
        (data.join("packages").join(format!("session-{room}")), data.join("recordings").join(room));
    let deadline = Instant::now() + LONGEST_SEALING;
    // What was recorded goes from the recordings folder when the package was stored and read back.
    while recordings.exists() || !package.join("manifest.jws").exists() {
        assert!(Instant::now() < deadline, "not sealed within {LONGEST_SEALING:?}");
        tokio::time::sleep(GLANCE).await;
    }
    package
}

/// `sportello verify` finds the package whole.
async fn package_verifies(server: &Server, package: &Path) {
    let output = server.runs(&["verify", package.to_str().unwrap()]).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", package.display());
}

/// In every file of the package a byte at its start, at its end and between is changed: each time the file is named.
async fn every_changed_byte_is_found(server: &Server, package: &Path) {
    let copy = TempDir::new().unwrap();
    let copied = copy.path().join(package.file_name().unwrap());
    copy_all(package, &copied);
    for file in files_in(&copied) {
        let whole = fs::read(&file).unwrap();
        let places = if whole.is_empty() { vec![0] } else { vec![0, whole.len() * 3 / 7, whole.len() - 1] };
        for at in places {
            let mut changed = whole.clone();
            match changed.get_mut(at) {
                Some(byte) => *byte ^= 0x01,
                // The audit of a recording that nobody looked at is empty.
                None => changed.push(b'\n'),
            }
            fs::write(&file, &changed).unwrap();
            let output = server.runs(&["verify", copied.to_str().unwrap()]).await;
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let name = file.file_name().unwrap().to_str().unwrap();
            assert_eq!(output.status.code(), Some(1), "byte {at} of {name}: {said}");
            // A manifest that was changed is one whose signature does not fit.
            assert!(said.contains(name) || name.starts_with("manifest."), "byte {at} of {name}: {said}");
        }
        fs::write(&file, &whole).unwrap();
    }
    package_verifies(server, &copied).await;
}

/// A copy for whoever wants to look at it.
fn keep_for_players(session: &Path) {
    if let Ok(artefacts) = std::env::var("ARTEFACTS") {
        fs::copy(session, Path::new(&artefacts).join("session.webm")).unwrap();
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

/// The session copy: its tracks, and what is in those of the cameras.
struct Session {
    /// Name and codec, in the file's order.
    names: Vec<(String, String)>,
    /// Frames by the track's name: mark, time.
    pictures: BTreeMap<String, Vec<(Mark, u64)>>,
}

impl Session {
    fn read(path: &Path) -> Self {
        let file = BufReader::new(fs::File::open(path).unwrap());
        let mut webm = matroska_demuxer::MatroskaFile::open(file).unwrap();
        let tracks: Vec<_> = webm
            .tracks()
            .iter()
            .map(|track| {
                (track.track_number().get(), track.name().unwrap_or_default().to_owned(), track.codec_id().to_owned())
            })
            .collect();
        let mut pictures: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut frame = matroska_demuxer::Frame::default();
        while webm.next_frame(&mut frame).unwrap() {
            let (_, name, codec) = tracks.iter().find(|(number, ..)| *number == frame.track).unwrap();
            if codec == "V_VP8" {
                let mark = Mark::read(&frame.data).unwrap_or_else(|| panic!("a frame of {name} without its mark"));
                pictures.entry(name.clone()).or_default().push((mark, frame.timestamp));
            }
        }
        Self { names: tracks.into_iter().map(|(_, name, codec)| (name, codec)).collect(), pictures }
    }
}

/// The sound of a file.
struct Sound {
    samples: Vec<f32>,
}

const SAMPLE_RATE: f32 = 8_000.0;

impl Sound {
    fn of(path: &Path) -> Self {
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(path)
            .args(["-map", "0:a:0", "-ac", "1", "-ar", "8000", "-f", "f32le", "-"])
            .output()
            .expect("ffmpeg is needed for this test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let samples = output.stdout.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        Self { samples: samples.collect() }
    }

    /// Asserts that in every half second between two times, seconds, this tone sounds, or does not.
    fn has(&self, hertz: u16, from: f64, to: f64, sounds: bool) {
        let half = (SAMPLE_RATE / 2.0) as usize;
        let (from, to) = ((from * f64::from(SAMPLE_RATE)) as usize, (to * f64::from(SAMPLE_RATE)) as usize);
        assert!(to > from + half && to <= self.samples.len(), "{from} to {to} of {} samples", self.samples.len());
        for (n, window) in self.samples[from..to].chunks_exact(half).enumerate() {
            let decibels = 10.0 * (power(window, f32::from(hertz)) + 1e-12).log10();
            let (second, heard) = (from as f64 / f64::from(SAMPLE_RATE) + n as f64 / 2.0, decibels > -40.0);
            assert_eq!(heard, sounds, "{hertz} Hz at {second:.1} s: {decibels:.1} dB");
        }
    }
}

/// Power of one frequency, by the Goertzel algorithm.
fn power(window: &[f32], hertz: f32) -> f32 {
    let factor = 2.0 * (TAU * hertz / SAMPLE_RATE).cos();
    let (mut last, mut before) = (0.0_f32, 0.0_f32);
    for sample in window {
        (last, before) = (sample + factor * last - before, last);
    }
    (last * last + before * before - factor * last * before) / (window.len() as f32 / 2.0).powi(2)
}
