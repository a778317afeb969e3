//! Originals that are encrypted from their first byte: what lies on the disk, what the chain says of it, and what comes
//! out again.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::synthetic::{Booth, Sender, both, decode, fake_frame};
use crate::clock::MonoTime;
use crate::media::Source;
use crate::recording::lines::{Line, read_lines};
use crate::recording::{ChainEntry, Difference, VerifyError, verify, verify_original};
use crate::vault::{EncryptedReader, SessionKey};

const START: MonoTime = MonoTime::from_millis(2_000);

fn recorded(key: Option<&SessionKey>, seconds: u64, real: bool) -> (Booth, PathBuf) {
    let mut booth = key.map_or_else(Booth::new, Booth::encrypted);
    let connection = booth.connect("delegato");
    booth.play(connection, both(START, seconds, real));
    let original = booth.close().remove(0);
    let path = booth.path(&original.file);
    (booth, path)
}

fn plain(path: &Path, key: &SessionKey) -> Vec<u8> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut reader = EncryptedReader::open(fs::File::open(path).unwrap(), key, name).unwrap();
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).unwrap();
    assert!(reader.is_finished());
    plain
}

fn chain(path: &Path) -> Vec<ChainEntry> {
    let text = fs::read_to_string(path.with_extension("chain.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn broken(result: Result<crate::recording::FileReport, VerifyError>) -> (u64, Difference) {
    match result {
        Err(VerifyError::Broken { cluster, difference, .. }) => (cluster, difference),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_encrypted_original_shows_nothing_and_verifies_without_its_key_with_it_and_when_exported() {
    let key = SessionKey::generate().unwrap();
    let (booth, path) = recorded(Some(&key), 5, true);
    let stored = fs::read(&path).unwrap();
    for telling in [&b"webm"[..], b"V_VP8", b"OpusHead", b"sportello"] {
        assert!(!stored.windows(telling.len()).any(|bytes| bytes == telling));
    }
    let without = verify_original(&path, None, |_| {}).unwrap();
    assert!(without.encrypted && without.finished);
    assert_eq!(verify_original(&path, Some(&key), |_| {}).unwrap(), without);
    assert_eq!(verify(&booth.path(""), |_, _| {}).unwrap().files, std::slice::from_ref(&without));

    let entries = chain(&path);
    let end = entries.last().unwrap();
    assert!(end.end && end.length == 0 && end.n == without.clusters + 1);
    let pieces = entries.iter().map(|entry| entry.stored.as_ref().unwrap());
    let mut next = 0;
    for piece in pieces {
        assert_eq!(piece.offset, next);
        next += piece.length;
    }
    assert_eq!(next, stored.len() as u64, "the chain speaks of every stored byte");

    // Exported as plain WebM, it verifies by the same chain, and plays.
    let webm = plain(&path, &key);
    assert_eq!(webm.len() as u64, without.bytes);
    let exported = tempfile::tempdir().unwrap();
    let copy = exported.path().join("delegato-1.webm");
    fs::write(&copy, &webm).unwrap();
    fs::copy(path.with_extension("chain.jsonl"), copy.with_extension("chain.jsonl")).unwrap();
    decode(&copy);
    let report = verify_original(&copy, None, |_| {}).unwrap();
    assert_eq!((report.encrypted, report.finished, report.chain_head), (false, true, without.chain_head));
}

#[test]
fn the_plain_file_is_the_same_encrypted_or_not() {
    let key = SessionKey::generate().unwrap();
    let ((_one, encrypted), (_other, open)) = (recorded(Some(&key), 3, false), recorded(None, 3, false));
    // Track uids and the date differ, so the headers do; the clusters are the same.
    let (one, other) = (chain(&encrypted), chain(&open));
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other).skip(1) {
        assert_eq!((&one.sha256, one.length, one.end), (&other.sha256, other.length, other.end));
        assert!(one.stored.is_some() && other.stored.is_none());
    }
}

#[test]
fn every_changed_byte_of_an_encrypted_original_is_found_and_its_cluster_named() {
    let key = SessionKey::generate().unwrap();
    let (_booth, path) = recorded(Some(&key), 3, false);
    let stored = fs::read(&path).unwrap();
    for entry in chain(&path) {
        let piece = entry.stored.unwrap();
        for at in [piece.offset, piece.offset + piece.length / 2, piece.offset + piece.length - 1] {
            let mut changed = stored.clone();
            changed[usize::try_from(at).unwrap()] ^= 1;
            fs::write(&path, &changed).unwrap();
            for key in [None, Some(&key)] {
                let (cluster, difference) = broken(verify_original(&path, key, |_| {}));
                // Without its first bytes nobody takes the file for an encrypted one.
                assert!(cluster == entry.n || (at < 8 && cluster == 0), "{difference}");
            }
        }
    }
    fs::write(&path, &stored[..stored.len() - 1]).unwrap();
    let end = chain(&path).last().unwrap().n;
    assert_eq!(broken(verify_original(&path, None, |_| {})), (end, Difference::CutShort));
    fs::write(&path, [&stored[..], b"x"].concat()).unwrap();
    assert!(matches!(broken(verify_original(&path, None, |_| {})), (_, Difference::Tail(1))));
    fs::write(&path, &stored).unwrap();
    let other = SessionKey::generate().unwrap();
    assert!(matches!(broken(verify_original(&path, Some(&other), |_| {})), (0, Difference::Locked(_))));
    // Under another name it is another file.
    let elsewhere = path.with_file_name("delegante-1.webm");
    fs::rename(&path, &elsewhere).unwrap();
    fs::rename(path.with_extension("chain.jsonl"), elsewhere.with_extension("chain.jsonl")).unwrap();
    assert!(verify_original(&elsewhere, None, |_| {}).is_ok());
    assert!(matches!(broken(verify_original(&elsewhere, Some(&key), |_| {})), (0, Difference::Locked(_))));
}

#[test]
fn nothing_may_follow_a_chains_end_and_a_chain_without_one_is_not_called_finished() {
    let key = SessionKey::generate().unwrap();
    for key in [None, Some(&key)] {
        let (_booth, path) = recorded(key, 3, false);
        let chain_path = path.with_extension("chain.jsonl");
        let text = fs::read_to_string(&chain_path).unwrap();
        let last = text.lines().last().unwrap();
        fs::write(&chain_path, format!("{text}{last}\n")).unwrap();
        assert_eq!(broken(verify_original(&path, None, |_| {})).1, Difference::AfterEnd);

        let entries = chain_without(&text, 1);
        fs::write(&chain_path, &entries).unwrap();
        if key.is_some() {
            // The last segment is still there, and nothing speaks of it.
            assert!(matches!(broken(verify_original(&path, None, |_| {})).1, Difference::Tail(_)));
        } else {
            assert!(!verify_original(&path, None, |_| {}).unwrap().finished);
        }
    }
}

fn chain_without(text: &str, last: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[..lines.len() - last].join("\n") + "\n"
}

#[test]
fn the_side_file_begins_with_whose_it_is_and_ends_with_how_it_ended() {
    let key = SessionKey::generate().unwrap();
    let mut booth = Booth::encrypted(&key);
    let connection = booth.connect("delegante");
    booth.play(connection, both(START, 5, false));
    let original = booth.close().remove(0);
    let path = booth.path(&original.file);
    let lines: Vec<Line> = read_lines(&fs::read(path.with_extension("rtcp.jsonl")).unwrap()).collect();
    let Line::Original { file, connection: of, encrypted, tracks, zero_ns, .. } = &lines[0] else {
        panic!("{:?}", lines[0]);
    };
    assert_eq!((file.as_str(), *of, *encrypted), ("delegante-1.webm", connection, true));
    assert_eq!(tracks.iter().map(|track| track.source).collect::<Vec<_>>(), [Source::Camera, Source::Microphone]);
    assert_eq!(*zero_ns, START.as_nanos());
    let Some(Line::Closed { clusters, bytes, duration_ms, .. }) = lines.last() else {
        panic!("{:?}", lines.last());
    };
    assert_eq!((*clusters, *bytes, *duration_ms), (original.clusters, original.bytes, original.duration_ms));
    // Every cluster is spoken of once, in order.
    let told: Vec<u64> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Clusters { first, end_ms, .. } => Some((*first..).zip(end_ms).map(|(n, _)| n).collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(told, (1..=original.clusters).collect::<Vec<_>>());
}

#[test]
fn elements_of_127_and_16383_bytes_are_whole_for_every_reader_encrypted_or_not() {
    let key = SessionKey::generate().unwrap();
    let mut booth = Booth::encrypted(&key);
    let connection = booth.connect("operator");
    let mut camera = Sender::new(Source::Camera);
    let mut packets = Vec::new();
    // Blocks have four bytes before the frame; lengths around both limits of the size's length.
    for (n, length) in (0_u32..).zip([3_000, 122, 123, 124, 16_378, 16_379, 16_380, 200]) {
        let at = START + Duration::from_millis(u64::from(n) * 40);
        let frame = fake_frame(n, n == 0, length);
        packets.extend(camera.video(at, &frame, Duration::from_millis(40)).into_iter().map(|p| (Source::Camera, p)));
    }
    booth.play(connection, packets);
    let original = booth.close().remove(0);
    let path = booth.path(&original.file);
    let webm = plain(&path, &key);
    let copy = path.with_file_name("plain.webm");
    fs::write(&copy, &webm).unwrap();
    let lengths: Vec<usize> = super::synthetic::blocks(&copy).iter().map(|(.., data)| data.len()).collect();
    assert_eq!(lengths, [3_000, 122, 123, 124, 16_378, 16_379, 16_380, 200]);
}
