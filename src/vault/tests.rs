//! Files go in and come out; whatever was done to them in between is found.

use std::fs;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::stream::Header;
use super::*;
use crate::id::RoomId;

const NAME: &str = "delegato-1.webm";
const SEGMENT: usize = FIXED_SEGMENT as usize;

fn key() -> SessionKey {
    SessionKey::from_bytes(std::array::from_fn(|n| u8::try_from(n).unwrap()))
}

/// A file of variable segments, finished or cut off behind its last piece; and where each segment begins.
fn sealed(pieces: &[Vec<u8>], finished: bool) -> (Vec<u8>, Vec<usize>) {
    let mut sealer = FileSealer::new(&key(), NAME).unwrap();
    let (mut file, mut places) = (Vec::new(), Vec::new());
    for piece in pieces {
        places.push(file.len().max(HEADER_BYTES));
        sealer.seal(piece, &mut file).unwrap();
    }
    if finished {
        places.push(file.len());
        sealer.finish(&mut file).unwrap();
    }
    (file, places)
}

fn pieces() -> Vec<Vec<u8>> {
    vec![b"the header".to_vec(), vec![1; 300], vec![2; 300], vec![3; 300], vec![4; 41]]
}

fn read(file: &[u8]) -> Result<(Vec<u8>, bool), OpenError> {
    read_as(file, &key(), NAME)
}

fn read_as(file: &[u8], key: &SessionKey, name: &str) -> Result<(Vec<u8>, bool), OpenError> {
    let mut reader = EncryptedReader::open(Cursor::new(file), key, name)?;
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).map_err(|error| {
        let is_ours = error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<OpenError>);
        if is_ours { *error.into_inner().unwrap().downcast::<OpenError>().unwrap() } else { OpenError::Io(error) }
    })?;
    Ok((plain, reader.is_finished()))
}

fn fixed(plain: &[u8]) -> Vec<u8> {
    let mut writer = FixedWriter::new(Cursor::new(Vec::new()), &key(), NAME).unwrap();
    writer.write_all(plain).unwrap();
    assert_eq!(writer.length(), plain.len() as u64);
    writer.finish().unwrap().into_inner()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n * 31 + n / 251) % 256).unwrap()).collect()
}

#[test]
fn what_is_written_piece_by_piece_comes_out_whole_and_is_known_to_be_whole() {
    let (file, places) = sealed(&pieces(), true);
    assert!(!file.windows(10).any(|bytes| bytes == b"the header"), "nothing shows");
    assert_eq!(read(&file).unwrap(), (pieces().concat(), true));
    let segments = Segments::find(&mut Cursor::new(&file)).unwrap();
    assert_eq!((segments.number(), segments.plain_length(), segments.torn()), (6, 951, 0));
    let opener = FileOpener::new(&key(), NAME, &file).unwrap();
    assert_eq!(opener.open(1, false, &file[places[1]..places[2]]).unwrap(), vec![1; 300]);
    assert_eq!(opener.open(5, true, &file[places[5]..]).unwrap(), b"");
    assert!(matches!(opener.open(5, false, &file[places[5]..]), Err(OpenError::Segment(5))));
    assert!(matches!(opener.open(1, false, &file[places[1]..=places[2]]), Err(OpenError::Length(1))));
}

#[test]
fn a_file_cut_anywhere_is_readable_up_to_its_last_whole_segment_and_never_taken_for_a_whole_one() {
    let (file, places) = sealed(&pieces(), true);
    for length in 0..file.len() {
        let cut = &file[..length];
        if length < HEADER_BYTES {
            assert!(matches!(read(cut), Err(OpenError::NotEncrypted)));
            continue;
        }
        let whole = places.iter().skip(1).filter(|place| **place <= length).count();
        let (plain, finished) = read(cut).unwrap();
        assert_eq!(plain, pieces()[..whole].concat(), "{length}");
        assert!(!finished);
        let torn = Segments::find(&mut Cursor::new(cut)).unwrap().torn();
        assert_eq!(usize::try_from(torn), Ok(length - places.get(whole).copied().unwrap_or(length)));
    }
}

#[test]
fn reordered_dropped_and_repeated_segments_are_found_and_named() {
    let (file, places) = sealed(&pieces(), true);
    let segment = |n: usize| file[places[n]..places.get(n + 1).copied().unwrap_or(file.len())].to_vec();
    let build = |order: &[usize]| {
        let mut built = file[..HEADER_BYTES].to_vec();
        built.extend(order.iter().flat_map(|n| segment(*n)));
        built
    };
    assert_eq!(build(&[0, 1, 2, 3, 4, 5]), file);
    for (order, named) in [
        (vec![0, 2, 1, 3, 4, 5], 1),
        (vec![0, 1, 3, 4, 5], 2),
        (vec![0, 1, 2, 2, 3, 4, 5], 3),
        (vec![1, 2, 3, 4, 5], 0),
        (vec![0, 1, 2, 3, 5], 4),
        (vec![0, 1, 2, 3, 4, 5, 5], 6),
        (vec![0, 1, 2, 3, 4, 5, 4], 6),
    ] {
        assert!(matches!(read(&build(&order)), Err(OpenError::Segment(n)) if n == named), "{order:?}");
    }
    // Without its end it is a cut file, and says so.
    assert!(!read(&build(&[0, 1, 2, 3, 4])).unwrap().1);
    // A segment of another file of the same session has no place in this one.
    let (other, _) = sealed(&pieces(), true);
    let mixed = [&file[..places[2]], &other[places[2]..]].concat();
    assert!(matches!(read(&mixed), Err(OpenError::Segment(2))));
}

#[test]
fn every_flipped_bit_is_found() {
    let (file, places) = sealed(&pieces(), true);
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        match read(&changed) {
            Err(OpenError::Segment(n) | OpenError::Length(n)) => {
                let segment = places.iter().rposition(|place| *place <= at).unwrap_or(0);
                assert_eq!(usize::try_from(n), Ok(segment), "byte {at}");
            }
            Err(OpenError::NotEncrypted | OpenError::Version(_)) => assert!(at < HEADER_BYTES),
            // A length that grew points past the end: the file is cut there, and is not taken for a whole one.
            Ok((plain, finished)) => assert!(!finished && pieces().concat().starts_with(&plain), "byte {at}"),
            Err(OpenError::Io(error)) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn another_key_or_file_name_opens_nothing() {
    let (file, _) = sealed(&pieces(), true);
    assert!(matches!(read_as(&file, &SessionKey::generate().unwrap(), NAME), Err(OpenError::Segment(0))));
    assert!(matches!(read_as(&file, &key(), "delegante-1.webm"), Err(OpenError::Segment(0))));
    let mut fixed = file.clone();
    fixed[12] = 7;
    assert!(read(&fixed).is_err(), "another segment size is another key");
    let mut later = file;
    later[8] = 2;
    assert!(matches!(read(&later), Err(OpenError::Version(2))));
    assert!(matches!(
        read(b"\x1a\x45\xdf\xa3 a plain WebM, as one sees from its first bytes"),
        Err(OpenError::NotEncrypted)
    ));
}

#[test]
fn the_same_pieces_make_different_files() {
    let (one, other) = (sealed(&pieces(), true).0, sealed(&pieces(), true).0);
    assert_ne!(one[13..36], other[13..36]);
    assert_ne!(one[36..], other[36..]);
}

#[test]
fn a_fixed_file_can_be_read_from_anywhere() {
    for length in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT + 77] {
        let plain = pattern(length);
        let file = fixed(&plain);
        let segments = length.div_ceil(SEGMENT).max(1);
        assert_eq!(file.len(), HEADER_BYTES + length + segments * OVERHEAD, "{length}");
        let mut reader = EncryptedReader::open(Cursor::new(&file), &key(), NAME).unwrap();
        assert!(reader.is_finished());
        assert_eq!((reader.plain_length(), reader.segment_size()), (length as u64, Some(FIXED_SEGMENT)));
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, plain);
        for at in [0, length / 3, length / 2, length.saturating_sub(5)] {
            reader.seek(SeekFrom::Start(at as u64)).unwrap();
            let mut part = vec![0; (length - at).min(90_000)];
            reader.read_exact(&mut part).unwrap();
            assert_eq!(part, plain[at..at + part.len()]);
        }
        assert_eq!(reader.seek(SeekFrom::End(10)).unwrap(), length as u64 + 10);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
        assert!(reader.seek(SeekFrom::End(-1 - i64::try_from(length).unwrap())).is_err());
    }
}

#[test]
fn the_front_of_a_fixed_file_can_be_changed_until_it_is_finished() {
    let plain = pattern(2 * SEGMENT + 10);
    let mut writer = FixedWriter::new(Cursor::new(Vec::new()), &key(), NAME).unwrap();
    assert!(writer.patch(0, b"x").is_err(), "nothing is there yet");
    writer.write_all(&plain).unwrap();
    writer.patch(100, b"Duration").unwrap();
    writer.patch(SEGMENT - 3, b"end").unwrap();
    assert!(writer.patch(SEGMENT - 2, b"end").is_err());
    let file = writer.finish().unwrap().into_inner();
    let mut wanted = plain;
    wanted[100..108].copy_from_slice(b"Duration");
    wanted[SEGMENT - 3..SEGMENT].copy_from_slice(b"end");
    assert_eq!(read(&file).unwrap(), (wanted, true));
}

#[test]
fn a_fixed_file_that_was_not_finished_does_not_open() {
    let mut stored = Cursor::new(Vec::new());
    let mut writer = FixedWriter::new(&mut stored, &key(), NAME).unwrap();
    writer.write_all(&pattern(3 * SEGMENT)).unwrap();
    drop(writer);
    assert!(stored.get_ref().len() > SEGMENT);
    assert!(matches!(read(stored.get_ref()), Err(OpenError::NotEncrypted)));
}

#[test]
fn a_fixed_file_that_was_changed_gives_what_is_whole_and_names_the_rest() {
    let plain = pattern(3 * SEGMENT + 10);
    let file = fixed(&plain);
    let mut changed = file.clone();
    changed[HEADER_BYTES + SEGMENT + OVERHEAD + 4_000] ^= 1;
    let mut reader = EncryptedReader::open(Cursor::new(&changed), &key(), NAME).unwrap();
    let mut first = vec![0; SEGMENT];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(first, plain[..SEGMENT]);
    let error = reader.read(&mut first).unwrap_err();
    assert_eq!(error.to_string(), "segment 1 does not authenticate");
    reader.seek(SeekFrom::Start(2 * SEGMENT as u64)).unwrap();
    reader.read_exact(&mut first).unwrap();
    assert_eq!(first, plain[2 * SEGMENT..3 * SEGMENT]);

    let mut cut = EncryptedReader::open(Cursor::new(&file[..file.len() - 9]), &key(), NAME).unwrap();
    assert!(!cut.is_finished());
    cut.read_exact(&mut first).unwrap();
    let stored = SEGMENT + OVERHEAD;
    let shorter = EncryptedReader::open(Cursor::new(&file[..HEADER_BYTES + 2 * stored]), &key(), NAME).unwrap();
    assert!(!shorter.is_finished(), "cut between two segments");
}

#[test]
fn what_version_1_wrote_is_read_for_ever_and_written_alike() {
    // Made by another implementation (Python's `cryptography`).
    let variable = [
        "53504f5254564c5401000000006465666768696a6b6c6d6e6f70717273c8c9cacbcccdce",
        "00000016eba11f8f4eaf16209748a701685acf21cc61f04bc244",
        "0000001d2e134b30c98540c39deb9699607d4a6f91c2183dab4ec70dce8050c990",
        "00000010951e7b927c5c7b7554052bc0a17c8cfe",
    ];
    let variable = hex::decode(variable.concat()).unwrap();
    assert_eq!(read(&variable).unwrap(), (b"headerfirst cluster".to_vec(), true));
    let salt = std::array::from_fn(|n| 100 + u8::try_from(n).unwrap());
    let prefix = std::array::from_fn(|n| 200 + u8::try_from(n).unwrap());
    let mut sealer = FileSealer::with_header(&key(), NAME, Header::fixed_for_tests(0, salt, prefix)).unwrap();
    let mut written = Vec::new();
    sealer.seal(b"header", &mut written).unwrap();
    sealer.seal(b"first cluster", &mut written).unwrap();
    sealer.finish(&mut written).unwrap();
    assert_eq!(written, variable);

    let header = Header::fixed_for_tests(FIXED_SEGMENT, salt, prefix);
    let mut writer = FixedWriter::with_header(Cursor::new(Vec::new()), &key(), "session.webm", header).unwrap();
    writer.write_all(&vec![7; SEGMENT]).unwrap();
    writer.write_all(b"rest").unwrap();
    let fixed = writer.finish().unwrap().into_inner();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &fixed);
    assert_eq!(hex::encode(hash), "142c548795cc8c4940fecab843bec1297b97dcdc2967811e4ab9f01732920a44");
}

fn room() -> RoomId {
    "0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11".parse().unwrap()
}

#[test]
fn a_session_key_comes_back_in_its_own_room_only() {
    let folder = tempfile::tempdir().unwrap();
    let kek = KekFile::open(&folder.path().join("recordings.key")).unwrap();
    let wrapped = kek.wrap(room(), &key()).unwrap();
    assert_eq!(wrapped.bytes.len(), 60);
    assert_ne!(wrapped, kek.wrap(room(), &key()).unwrap(), "never twice the same");
    assert_eq!(kek.unwrap(room(), &wrapped).unwrap().expose(), key().expose());
    let other = RoomId::new(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(kek.unwrap(other, &wrapped).unwrap_err(), KeyError::Changed);
    for at in 0..wrapped.bytes.len() {
        let mut changed = wrapped.clone();
        changed.bytes[at] ^= 1;
        assert_eq!(kek.unwrap(room(), &changed).unwrap_err(), KeyError::Changed);
        changed.bytes.truncate(at);
        assert_eq!(kek.unwrap(room(), &changed).unwrap_err(), KeyError::Changed);
    }
}

#[test]
fn a_wrapped_key_is_text_in_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recordings.key");
    // Made by another implementation (Python's `cryptography`).
    fs::write(&path, "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk\n").unwrap();
    let kept = "8c0cc17a:AAECAwQFBgcICQoL6lCZwThKLOKXXyaU3M7LO8NknbGJBSqzZxcq7VrU4cSfrxVjKIgHY-UohTq-kH8T";
    let wrapped: WrappedKey = kept.parse().unwrap();
    assert_eq!(wrapped.to_string(), kept);
    assert_eq!(KekFile::open(&path).unwrap().unwrap(room(), &wrapped).unwrap().expose(), key().expose());
    for wrong in ["", "8c0cc17a", "8c0cc17:AAEC", "8c0cc17a:A A", "8c0cc17a:AAEC=", "xx0cc17a:AAEC"] {
        assert_eq!(wrong.parse::<WrappedKey>(), Err(WrappedKeyError), "{wrong:?}");
    }
}

#[test]
fn a_new_key_in_front_wraps_and_the_old_ones_still_unwrap() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets/recordings.key");
    let old = KekFile::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path().join("secrets")).unwrap().count(), 1, "nothing is left aside");
    assert_eq!(KekFile::open(&path).unwrap().id(), old.id(), "made once");
    let wrapped = old.wrap(room(), &key()).unwrap();

    let old_line = fs::read_to_string(&path).unwrap();
    let new_line = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk";
    fs::write(&path, format!("{new_line}\n\n{old_line}")).unwrap();
    let rotated = KekFile::open(&path).unwrap();
    assert_eq!(rotated.wrap(room(), &key()).unwrap().kek, rotated.id().unwrap());
    assert_ne!(rotated.id(), old.id());
    assert_eq!(rotated.unwrap(room(), &wrapped).unwrap().expose(), key().expose());

    fs::write(&path, new_line).unwrap();
    let without = KekFile::open(&path).unwrap();
    assert_eq!(without.unwrap(room(), &wrapped).unwrap_err(), KeyError::UnknownKek(wrapped.kek));
}

#[test]
fn a_key_file_that_holds_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recordings.key");
    fs::write(&path, "\n").unwrap();
    assert!(matches!(KekFile::open(&path), Err(KekFileError::Empty { .. })));
    fs::write(&path, "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk\nCQkJ\n").unwrap();
    assert!(matches!(KekFile::open(&path), Err(KekFileError::NotAKey { line: 2, .. })));
    assert!(fs::read_to_string(&path).unwrap().ends_with("CQkJ\n"));
    assert!(matches!(KekFile::open(folder.path()), Err(KekFileError::Io { .. })));
}

#[test]
fn keys_never_show() {
    let folder = tempfile::tempdir().unwrap();
    let kek = KekFile::open(&folder.path().join("recordings.key")).unwrap();
    let shown = format!("{:?} {kek:?}", key());
    assert_eq!(shown, format!("SessionKey(…) KekFile {{ keys: [\"{}\"], .. }}", kek.id().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any pieces, any reading order: the same bytes as from the plain file.
    #[test]
    fn reads_and_seeks_give_what_a_plain_file_would(
        lengths in prop::collection::vec(prop_oneof![0_usize..5, 0_usize..3_000, 60_000_usize..70_000], 0..8),
        steps in prop::collection::vec((0_u64..200_000, 0_usize..70_000), 1..12),
        is_fixed in any::<bool>(),
    ) {
        let pieces: Vec<Vec<u8>> = lengths.iter().map(|length| pattern(*length)).collect();
        let plain = pieces.concat();
        let file = if is_fixed { fixed(&plain) } else { sealed(&pieces, true).0 };
        let mut reader = EncryptedReader::open(Cursor::new(&file), &key(), NAME).unwrap();
        prop_assert!(reader.is_finished());
        let mut like = Cursor::new(&plain);
        for (at, length) in steps {
            prop_assert_eq!(reader.seek(SeekFrom::Start(at)).unwrap(), like.seek(SeekFrom::Start(at)).unwrap());
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            (&mut reader).take(length as u64).read_to_end(&mut ours).unwrap();
            (&mut like).take(length as u64).read_to_end(&mut theirs).unwrap();
            prop_assert_eq!(ours, theirs);
        }
    }

    /// Bytes changed, moved, dropped or added anywhere never come out as something else, and never pass for whole.
    #[test]
    fn nothing_but_the_written_bytes_ever_comes_out(
        lengths in prop::collection::vec(0_usize..400, 1..6),
        at in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        length in 1_usize..100,
        kind in 0_u8..4,
    ) {
        let pieces: Vec<Vec<u8>> = lengths.iter().map(|length| pattern(*length)).collect();
        let (file, _) = sealed(&pieces, true);
        let (at, from) = (at.index(file.len()), from.index(file.len()));
        let mut changed = file.clone();
        match kind {
            0 => changed[at] = changed[at].wrapping_add(u8::try_from(length).unwrap()),
            1 => drop(changed.drain(at..(at + length).min(file.len()))),
            2 => drop(changed.splice(at..at, file[from..(from + length).min(file.len())].to_vec())),
            _ => changed.truncate(at),
        }
        if let Ok((plain, finished)) = read(&changed) {
            prop_assert!(pieces.concat().starts_with(&plain));
            prop_assert!(!finished || changed == file);
        }
    }
}
