//! Stored files that were changed: `sportello verify` says which file and which cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loadtest::client::Habits;
use serde_json::Value;
use tempfile::TempDir;

use super::meeting::{Meeting, Setup};
use super::recorded::{verifies, verify};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_named_with_its_cluster() {
    let mut meeting = Meeting::is_live(Setup::default(), |_| Habits::default()).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    meeting.ends().await;
    let stored = Stored::of(&meeting.folder(), "delegato-1");
    assert!(stored.pieces.len() >= 5, "{} pieces", stored.pieces.len());
    verifies(&stored.copy(|_| {}).1);

    // One flipped bit, in the header and in each cluster.
    for (n, (offset, length)) in stored.pieces.iter().enumerate() {
        let named = if n == 0 { "header".to_owned() } else { format!("cluster {n}") };
        stored.is_refused(&named, |bytes| bytes[offset + (7 * n + 3) % length] ^= 0x10);
    }
    let [(first, first_length), (second, second_length)] = [stored.pieces[2], stored.pieces[3]];
    stored.is_refused("cluster 2", |bytes| {
        let swapped = [&bytes[second..second + second_length], &bytes[first..first + first_length]].concat();
        bytes[first..second + second_length].copy_from_slice(&swapped);
    });
    stored.is_refused("cluster 3", |bytes| drop(bytes.drain(second..second + second_length)));
    let last = stored.clusters;
    stored.is_refused(&format!("cluster {last}"), |bytes| {
        let (offset, length) = stored.pieces[last];
        bytes.truncate(offset + length - 1);
    });
    stored.is_refused(&format!("cluster {last}"), |bytes| bytes.push(0));
}

/// An original as it is stored: its bytes, and where its header and clusters are.
struct Stored {
    folder: PathBuf,
    name: String,
    pieces: Vec<(usize, usize)>,
    /// Number of the last cluster.
    clusters: usize,
}

impl Stored {
    fn of(folder: &Path, name: &str) -> Self {
        let chain = fs::read_to_string(folder.join(format!("{name}.chain.jsonl"))).unwrap();
        let lines: Vec<Value> = chain.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let pieces = lines.iter().filter(|line| line["end"] != true).map(|line| {
            let stored = if line["stored"].is_null() { line } else { &line["stored"] };
            (number(&stored["offset"]), number(&stored["length"]))
        });
        let pieces: Vec<_> = pieces.collect();
        Self { folder: folder.to_owned(), name: name.to_owned(), clusters: pieces.len() - 1, pieces }
    }

    /// A copy of the folder in which the file was changed.
    fn copy(&self, change: impl FnOnce(&mut Vec<u8>)) -> (TempDir, PathBuf) {
        let copy = TempDir::new().unwrap();
        for entry in fs::read_dir(&self.folder).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let file = copy.path().join(format!("{}.webm", self.name));
        let mut bytes = fs::read(&file).unwrap();
        change(&mut bytes);
        fs::write(&file, bytes).unwrap();
        let path = copy.path().to_owned();
        (copy, path)
    }

    /// `sportello verify` ends with 1 and names the file and this piece of it.
    fn is_refused(&self, piece: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let (_copy, folder) = self.copy(change);
        let (code, said) = verify(&folder);
        assert_eq!(code, 1, "{piece}: {said}");
        assert!(said.contains(&format!("{}.webm", self.name)) && said.contains(piece), "{piece}: {said}");
    }
}
