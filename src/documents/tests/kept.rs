//! Documents on the disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::super::{Folder, MAX_BYTES};
use crate::id::RoomId;
use crate::vault::{EncryptedReader, SessionKey};

fn room() -> RoomId {
    RoomId::new(Timestamp::UNIX_EPOCH)
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

#[test]
fn a_document_comes_back_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(place.path().join("documents"));
    let key = SessionKey::generate().unwrap();
    for bytes in [vec![], b"%PDF-".to_vec(), vec![7; 65_536], vec![8; 65_537], vec![9; MAX_BYTES]] {
        for key in [None, Some(&key)] {
            let (room, sha256) = (room(), hash(&bytes));
            folder.put(room, &sha256, key, &bytes).unwrap();
            folder.put(room, &sha256, key, &bytes).unwrap();
            assert_eq!(folder.get(room, &sha256, key).unwrap(), bytes);
            let stored = fs::read(folder.path(room, &sha256)).unwrap();
            assert_eq!(stored == bytes, key.is_none());
            assert_eq!(fs::read_dir(folder.path(room, &sha256).parent().unwrap()).unwrap().count(), 1);
        }
    }
}

#[test]
fn a_stored_document_opens_by_its_base_name() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(place.path().to_owned());
    let (room, key, bytes) = (room(), SessionKey::generate().unwrap(), vec![3; 100_000]);
    let sha256 = hash(&bytes);
    folder.put(room, &sha256, Some(&key), &bytes).unwrap();
    let file = File::open(place.path().join(room.to_string()).join(&sha256)).unwrap();
    let mut reader = EncryptedReader::open(file, &key, &sha256).unwrap();
    let mut opened = Vec::new();
    reader.read_to_end(&mut opened).unwrap();
    assert!(reader.is_finished() && opened == bytes);
}

#[test]
fn a_changed_document_does_not_come_back() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(place.path().to_owned());
    let (key, other) = (SessionKey::generate().unwrap(), SessionKey::generate().unwrap());
    let bytes = vec![5; 70_000];
    let sha256 = hash(&bytes);
    for key in [None, Some(&key)] {
        let room = room();
        folder.put(room, &sha256, key, &bytes).unwrap();
        let path = folder.path(room, &sha256);
        let whole = fs::read(&path).unwrap();
        if key.is_some() {
            assert_eq!(folder.get(room, &sha256, Some(&other)).unwrap_err().kind(), ErrorKind::InvalidData);
            assert_eq!(folder.get(room, &sha256, None).unwrap_err().kind(), ErrorKind::InvalidData);
        }
        let mut flipped = whole.clone();
        flipped[69_000] ^= 1;
        for broken in [&flipped[..], &whole[..65_600], &[]] {
            fs::write(&path, broken).unwrap();
            assert_eq!(folder.get(room, &sha256, key).unwrap_err().kind(), ErrorKind::InvalidData);
        }
        // Handed in again, it is whole again.
        folder.put(room, &sha256, key, &bytes).unwrap();
        assert_eq!(folder.get(room, &sha256, key).unwrap(), bytes);
    }
}

#[test]
fn nothing_but_a_hash_becomes_a_path() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(place.path().join("documents"));
    let outside = place.path().join("outside");
    fs::write(&outside, b"x").unwrap();
    let upper = hash(b"x").to_uppercase();
    for name in ["../../outside", "", "..", "/etc/passwd", &upper, &"0".repeat(63), &"g".repeat(64)] {
        assert_eq!(folder.put(room(), name, None, b"x").unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        assert_eq!(folder.get(room(), name, None).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        assert_eq!(folder.remove(room(), name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
    }
    assert!(outside.exists());
    assert_eq!(folder.put(room(), &hash(b"y"), None, b"x").unwrap_err().kind(), ErrorKind::InvalidInput);
    let large = vec![0; MAX_BYTES + 1];
    assert_eq!(folder.put(room(), &hash(&large), None, &large).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_is_removed_is_gone_and_may_be_gone_already() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(place.path().join("documents"));
    let (room, other) = (room(), room());
    let (first, second) = (hash(b"1"), hash(b"2"));
    folder.remove(room, &first).unwrap();
    folder.remove_room(room).unwrap();
    folder.put(room, &first, None, b"1").unwrap();
    folder.put(room, &second, None, b"2").unwrap();
    folder.put(other, &first, None, b"1").unwrap();
    folder.remove(room, &first).unwrap();
    assert_eq!(folder.get(room, &first, None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(folder.get(room, &second, None).unwrap(), b"2");
    folder.remove_room(room).unwrap();
    assert_eq!(folder.get(room, &second, None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(folder.get(other, &first, None).unwrap(), b"1");
}
