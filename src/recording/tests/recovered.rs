//! What a crash leaves, and what is made of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::synthetic::{Booth, blocks, both, decode};
use crate::clock::MonoTime;
use crate::id::ConnectionId;
use crate::media::Source;
use crate::recording::lines::{Line, read_lines};
use crate::recording::recover::{OriginalEnd, RecoverError, Recovery, recover, recover_room};
use crate::recording::{ChainEntry, verify_original};
use crate::vault::{EncryptedReader, SessionKey};

const START: MonoTime = MonoTime::from_millis(2_000);
const FILES: [&str; 3] = ["delegato-1.webm", "delegato-1.chain.jsonl", "delegato-1.rtcp.jsonl"];

type Folder = BTreeMap<String, Vec<u8>>;

fn folder(path: &Path) -> Folder {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn fill(path: &Path, files: &Folder) {
    fs::remove_dir_all(path).unwrap();
    fs::create_dir(path).unwrap();
    for (name, bytes) in files {
        fs::write(path.join(name), bytes).unwrap();
    }
}

/// A call that the process does not survive, with its files as it left them.
fn killed(key: Option<&SessionKey>, seconds: u64) -> (Booth, ConnectionId, Folder) {
    let mut booth = key.map_or_else(Booth::new, Booth::encrypted);
    let connection = booth.connect("delegato");
    booth.play(connection, both(START, seconds, false));
    let files = folder(&booth.path(""));
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), [FILES[1], FILES[2], FILES[0]]);
    (booth, connection, files)
}

/// End of each piece in the file, and of its line in the chain.
fn ends(files: &Folder) -> Vec<(usize, usize)> {
    let mut at = 0;
    let lines = std::str::from_utf8(&files[FILES[1]]).unwrap().lines();
    lines
        .map(|line| {
            at += line.len() + 1;
            let entry: ChainEntry = serde_json::from_str(line).unwrap();
            let end = entry.stored.map_or(entry.offset + entry.length, |piece| piece.offset + piece.length);
            (usize::try_from(end).unwrap(), at)
        })
        .collect()
}

fn rerun(path: &Path, before: &Recovery) {
    let files = folder(path);
    let again = recover_room(path, |_, _| {});
    assert_eq!(again.originals, before.originals);
    assert!(again.failed.is_empty(), "{:?}", again.failed);
    assert!(folder(path) == files, "a second run changes nothing");
}

#[test]
fn what_a_crash_left_is_cut_to_its_last_whole_cluster_wherever_it_was_torn() {
    let key = SessionKey::generate().unwrap();
    for key in [None, Some(&key)] {
        let (booth, connection, files) = killed(key, 6);
        let ends = ends(&files);
        let path = booth.path("");
        let (media, chain) = (&files[FILES[0]], &files[FILES[1]]);
        for n in 0..120 {
            // Sometimes the file is torn, sometimes its chain, sometimes both; each at another place.
            let media_length = if n % 3 == 1 { media.len() } else { (n * 7_919 + 17) % (media.len() + 1) };
            let chain_length = if n % 3 == 0 { chain.len() } else { (n * 6_007 + 5) % (chain.len() + 1) };
            let mut torn = files.clone();
            torn.insert(FILES[0].into(), media[..media_length].to_vec());
            torn.insert(FILES[1].into(), chain[..chain_length].to_vec());
            fill(&path, &torn);
            let whole = ends.iter().take_while(|(end, line)| *end <= media_length && *line <= chain_length).count();
            let recovery = recover_room(&path, |_, _| {});
            assert!(recovery.failed.is_empty(), "{:?}", recovery.failed);
            rerun(&path, &recovery);
            if whole < 2 {
                assert!(recovery.originals.is_empty() && !path.join(FILES[0]).exists());
                let tail = fs::read(path.join("delegato-1.tail")).unwrap_or_default();
                assert_eq!(tail, media[..media_length], "it is set aside whole");
                continue;
            }
            let [original] = recovery.originals.as_slice() else { panic!("{recovery:?}") };
            let (media_end, chain_end) = ends[whole - 1];
            assert_eq!(fs::read(path.join(FILES[0])).unwrap(), media[..media_end]);
            assert_eq!(fs::read(path.join(FILES[1])).unwrap(), chain[..chain_end]);
            let tail = |name: &str| fs::read(path.join(name)).unwrap_or_default();
            assert_eq!(tail("delegato-1.tail"), media[media_end..media_length]);
            assert_eq!(tail("delegato-1.chain.tail"), chain[chain_end..chain_length]);
            let left = u64::try_from(media_length - media_end).unwrap();
            assert!(matches!(original.end, OriginalEnd::Cut { tail_bytes, .. } if tail_bytes == left));
            assert_eq!((original.connection, original.original.file.as_str()), (connection, FILES[0]));
            assert_eq!(original.original.sources, [Source::Microphone, Source::Camera]);
            for key in [None, key] {
                let report = verify_original(&path.join(FILES[0]), key, |_| {}).unwrap();
                assert_eq!(report.clusters, u64::try_from(whole - 1).unwrap());
                assert_eq!(report.chain_head, original.original.chain_head);
                assert_eq!((report.bytes, report.finished), (original.original.bytes, false));
            }
        }
    }
}

#[test]
fn a_process_that_dies_loses_less_than_a_second_and_its_file_plays() {
    let key = SessionKey::generate().unwrap();
    for key in [None, Some(&key)] {
        let mut booth = key.map_or_else(Booth::new, Booth::encrypted);
        let connection = booth.connect("delegato");
        booth.play(connection, both(START, 5, true));
        let path = booth.path("");
        let recovery = recover_room(&path, |_, _| {});
        let original = &recovery.originals[0].original;
        assert!((4_000..=5_001).contains(&original.duration_ms), "{}", original.duration_ms);
        let copy = tempfile::tempdir().unwrap();
        let plain = copy.path().join("plain.webm");
        let stored = fs::File::open(path.join(FILES[0])).unwrap();
        if let Some(key) = key {
            let mut reader = EncryptedReader::open(stored, key, FILES[0]).unwrap();
            assert!(!reader.is_finished());
            std::io::copy(&mut reader, &mut fs::File::create(&plain).unwrap()).unwrap();
        } else {
            fs::copy(path.join(FILES[0]), &plain).unwrap();
        }
        decode(&plain);
        let last = blocks(&plain).last().unwrap().1;
        assert!(last < original.duration_ms && last + 60 > original.duration_ms, "{last}");
        let text = fs::read(path.join(FILES[2])).unwrap();
        let Some(Line::Recovered { clusters, duration_ms, .. }) = read_lines(&text).last() else { panic!("no word") };
        assert_eq!((clusters, duration_ms), (original.clusters, original.duration_ms));
    }
}

#[test]
fn a_recovery_that_is_interrupted_is_finished_by_the_next() {
    let (booth, _, files) = killed(None, 4);
    let path = booth.path("");
    let mut torn = files.clone();
    let length = files[FILES[0]].len() - 1_000;
    torn.get_mut(FILES[0]).unwrap().truncate(length);
    fill(&path, &torn);
    let wanted = recover_room(&path, |_, _| {});
    let done = folder(&path);
    // Each step may be the last one: the tails are kept, the file is cut, the chain is cut, the line is written.
    for steps in 1..4 {
        let mut half = torn.clone();
        for (step, names) in
            [vec!["delegato-1.tail", "delegato-1.chain.tail"], vec![FILES[0]], vec![FILES[1]]].into_iter().enumerate()
        {
            if step < steps {
                for name in names {
                    half.insert(name.into(), done[name].clone());
                }
            }
        }
        fill(&path, &half);
        let recovery = recover_room(&path, |_, _| {});
        assert_eq!(recovery.originals, wanted.originals);
        assert!(folder(&path) == done, "after {steps} steps");
    }
}

#[test]
fn what_ended_regularly_is_told_of_and_not_touched() {
    let key = SessionKey::generate().unwrap();
    for key in [None, Some(&key)] {
        let mut booth = key.map_or_else(Booth::new, Booth::encrypted);
        let connection = booth.connect("delegato");
        booth.play(connection, both(START, 3, false));
        let finished = booth.close();
        let path = booth.path("");
        // Files that are no originals are nobody's business here.
        fs::write(path.join("session.webm"), "a copy that is being made").unwrap();
        let before = folder(&path);
        let mut steps = Vec::new();
        let recovery = recover(booth.folder.path(), |done, total| steps.push((done, total))).unwrap();
        assert!(folder(&path) == before);
        assert_eq!(steps, [(0, 0)]);
        let [found] = recovery.originals.as_slice() else { panic!("{recovery:?}") };
        assert_eq!((found.connection, found.end), (connection, OriginalEnd::Regular));
        assert_eq!(found.original, finished[0]);
        // Bytes after a regular end are not part of it.
        let mut longer = before[FILES[0]].clone();
        longer.extend(b"something");
        fs::write(path.join(FILES[0]), &longer).unwrap();
        let recovery = recover_room(&path, |_, _| {});
        assert!(matches!(recovery.originals[0].end, OriginalEnd::Cut { tail_bytes: 9, .. }), "{recovery:?}");
        assert_eq!(fs::read(path.join(FILES[0])).unwrap(), before[FILES[0]]);
        rerun(&path, &recovery);
    }
}

#[test]
fn whoever_comes_back_after_a_crash_gets_the_next_free_number_and_all_verifies() {
    let key = SessionKey::generate().unwrap();
    let (mut booth, _, _) = killed(Some(&key), 3);
    for n in 2..4 {
        recover_room(&booth.path(""), |_, _| {});
        booth = booth.die();
        let connection = booth.connect("delegato");
        booth.play(connection, both(booth.at + Duration::from_millis(100), 3, false));
        assert!(booth.path(&format!("delegato-{n}.webm")).exists());
    }
    // One that left nothing whole keeps its number, too.
    let path = booth.path("delegato-3.webm");
    fs::write(&path, &fs::read(&path).unwrap()[..100]).unwrap();
    let recovery = recover_room(&booth.path(""), |_, _| {});
    assert_eq!(recovery.originals.len(), 2);
    let mut booth = booth.die();
    let connection = booth.connect("delegato");
    booth.play(connection, both(booth.at + Duration::from_millis(100), 3, false));
    let last = booth.close().remove(0);
    assert_eq!(last.file, "delegato-4.webm");
    for file in ["delegato-1.webm", "delegato-2.webm", "delegato-4.webm"] {
        let report = verify_original(&booth.path(file), Some(&key), |_| {}).unwrap();
        assert_eq!(report.finished, file == "delegato-4.webm");
    }
    assert_eq!(fs::read(booth.path("delegato-3.tail")).unwrap().len(), 100);
}

#[test]
fn an_original_that_does_not_say_whose_it_is_is_cut_and_told_of_as_such() {
    let (booth, _, mut files) = killed(None, 3);
    files.insert(FILES[2].into(), Vec::new());
    let path = booth.path("");
    fill(&path, &files);
    let recovery = recover_room(&path, |_, _| {});
    assert!(recovery.originals.is_empty());
    assert!(matches!(recovery.failed.as_slice(), [RecoverError::Nobodys { path }] if path.ends_with(FILES[0])));
    assert!(verify_original(&path.join(FILES[0]), None, |_| {}).is_ok());
    let nowhere = booth.folder.path().join("nowhere");
    assert!(recover(&nowhere, |_, _| {}).unwrap().originals.is_empty(), "nothing was recorded yet");
    assert!(matches!(recover(&path.join(FILES[0]), |_, _| {}), Err(RecoverError::Io { .. })));
}
