//! The session copy, made from originals that the recorder wrote, and listened to.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "samples of a minute fit anywhere")]
#![allow(clippy::single_range_in_vec_init, reason = "a list of spans may have one")]

use std::f64::consts::TAU;
use std::fs::{self, File};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use opus::{Application, Channels, Decoder, Encoder};

use super::synthetic::{Booth, HastyDisk, SILENCE, Sender, blocks, decode, fake_frame, picture, probe};
use crate::clock::MonoTime;
use crate::media::Source;
use crate::recording::Original;
use crate::recording::read::Pieces;
use crate::recording::session::{PlainFile, SessionError, SessionReport, SessionSink, SessionSource, derive};
use crate::rtp::{Packet, Tapped};

/// When the session's timeline begins on the node's clock.
const ZERO: MonoTime = MonoTime::from_millis(2_000);

fn at(ms: u64) -> MonoTime {
    ZERO + Duration::from_millis(ms)
}

/// A tone that sounds only in these spans (ms of the session), as 20 ms packets from `from` to `to`.
fn tone(hertz: f64, spoken: &[Range<u64>], from: u64, to: u64) -> Vec<(Source, Packet)> {
    let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Voip).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(32_000)).unwrap();
    let mut microphone = Sender::new(Source::Microphone);
    let mut packets = Vec::new();
    for ms in (from..to).step_by(20) {
        let payload = encoder.encode_vec_float(&wave(hertz, spoken, ms), 1_275).unwrap();
        packets.push((Source::Microphone, microphone.audio(at(ms), &payload)));
    }
    packets
}

/// 20 ms of it.
fn wave(hertz: f64, spoken: &[Range<u64>], ms: u64) -> Vec<f32> {
    let sample = |n: u64| {
        let sounds = spoken.iter().any(|span| span.contains(&(n / 48)));
        if sounds { (0.25 * (TAU * hertz * n as f64 / 48_000.0).sin()) as f32 } else { 0.0 }
    };
    (ms * 48..(ms + 20) * 48).map(sample).collect()
}

/// The originals as sources, in the order of their names; the label is the name up to its number.
fn sources(booth: &Booth, originals: &[Original]) -> Vec<SessionSource> {
    let source = |original: &Original| {
        let path = booth.path(&original.file);
        let lines = fs::read_to_string(path.with_extension("rtcp.jsonl")).unwrap();
        let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        let zero_ms = i64::try_from(first["zero_ns"].as_u64().unwrap() / 1_000_000).unwrap();
        let label = original.file.split('-').next().unwrap().to_owned();
        SessionSource {
            role: label.clone(),
            label,
            offset_ms: zero_ms - i64::try_from(ZERO.as_millis()).unwrap(),
            pieces: Box::new(Pieces::new(std::io::BufReader::new(File::open(path).unwrap()))),
            screen: original.sources.contains(&Source::Screen),
        }
    };
    originals.iter().map(source).collect()
}

fn derive_into(path: &Path, sources: Vec<SessionSource>) -> Result<SessionReport, SessionError> {
    let file = PlainFile(File::create(path).unwrap());
    let report = derive(sources, file, &mut |_| ControlFlow::Continue(()))?;
    assert_eq!(fs::metadata(path).unwrap().len(), report.bytes);
    Ok(report)
}

/// The decoded mix, sample 0 at the session's zero.
fn listen(path: &Path) -> Vec<f32> {
    let mut decoder = Decoder::new(48_000, Channels::Mono).unwrap();
    let (mut sound, mut expected, mut frame) = (Vec::new(), 0, [0.0; 960]);
    for (track, ms, _, data) in blocks(path) {
        if track == 1 {
            assert_eq!(ms, expected, "the mix has no gaps");
            expected += 20;
            assert_eq!(decoder.decode_float(&data, &mut frame, false).unwrap(), 960);
            sound.extend(frame);
        }
    }
    // Players drop the pre-skip and set the rest earlier by as much (CodecDelay).
    sound.split_off(312)
}

/// Level of one frequency in a window, dB below full scale (Goertzel).
fn level(sound: &[f32], hertz: f64) -> f64 {
    let factor = 2.0 * (TAU * hertz / 48_000.0).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in sound {
        (last, before) = (f64::from(*sample) + factor * last - before, last);
    }
    let power = last * last + before * before - factor * last * before;
    10.0 * (power / (sound.len() as f64 / 2.0).powi(2) + 1e-12).log10()
}

/// The tone is there in every 50 ms within these spans, and nowhere else.
fn assert_heard(sound: &[f32], hertz: f64, spoken: &[Range<u64>], until_ms: u64) {
    for ms in (0..until_ms.saturating_sub(50)).step_by(50) {
        let window = &sound[usize::try_from(ms * 48).unwrap()..usize::try_from((ms + 50) * 48).unwrap()];
        let level = level(window, hertz);
        let inside = spoken.iter().any(|span| ms >= span.start && ms + 50 <= span.end);
        // A window next to a span's end holds the codec's own ringing.
        let outside = spoken.iter().all(|span| ms + 55 <= span.start || ms >= span.end + 50);
        if inside {
            assert!((level + 12.0).abs() < 3.0, "{hertz} Hz at {ms} ms is at {level:.1} dB");
        } else if outside {
            assert!(level < -50.0, "{hertz} Hz at {ms} ms is at {level:.1} dB");
        }
    }
}

/// Hertz, and when each of the three speaks; delegato is away from 8 to 12 s.
const OPERATOR: (f64, &[Range<u64>]) = (500.0, &[1_000..4_000, 13_000..15_000]);
const DELEGATO: (f64, &[Range<u64>]) = (800.0, &[3_000..6_000, 13_500..17_000]);
const DELEGANTE: (f64, &[Range<u64>]) = (1_300.0, &[5_000..9_000, 14_000..14_500]);
const AWAY: Range<u64> = 8_000..12_000;
const CALL_MS: u64 = 20_000;

/// A call of three with real pictures, in which one drops and comes back; then one shares a screen.
fn record_call(booth: &mut Booth) -> Vec<Original> {
    let mut packets = Vec::new();
    let mut sharer = None;
    for (label, (hertz, spoken), span) in [
        ("operator", OPERATOR, 0..CALL_MS),
        ("delegato", DELEGATO, 100..AWAY.start),
        ("delegato", DELEGATO, AWAY.end..CALL_MS),
        ("delegante", DELEGANTE, 300..CALL_MS),
    ] {
        let connection = booth.connect(label);
        sharer.get_or_insert(connection);
        let mut media = tone(hertz, spoken, span.start, span.end);
        media.extend(picture(&mut Sender::new(Source::Camera), at(span.start), (span.end - span.start) / 40, true));
        packets.extend(media.into_iter().map(|packet| (connection, packet)));
    }
    let screen = picture(&mut Sender::new(Source::Screen), at(10_000), 100, true);
    packets.extend(screen.into_iter().map(|packet| (sharer.unwrap(), packet)));
    play(booth, packets);
    booth.close()
}

fn play(booth: &mut Booth, mut packets: Vec<(crate::id::ConnectionId, (Source, Packet))>) {
    packets.sort_by_key(|(_, (_, packet))| packet.arrival);
    for (connection, (source, packet)) in packets {
        booth.pass_to(packet.arrival);
        booth.tap.push(Tapped::Packet { connection, source, packet }).unwrap();
    }
}

#[test]
fn every_voice_is_heard_in_the_seconds_in_which_it_spoke_and_every_picture_stands_where_it_did() {
    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let originals = record_call(&mut booth);
    let names: Vec<_> = originals.iter().map(|original| original.file.as_str()).collect();
    assert_eq!(
        names,
        ["delegante-1.webm", "delegato-1.webm", "delegato-2.webm", "operator-1-screen.webm", "operator-1.webm"]
    );
    let path = artefact(&booth);
    let report = derive_into(&path, sources(&booth, &originals)).unwrap();

    let sound = listen(&path);
    for (hertz, spoken) in [OPERATOR, DELEGATO, DELEGANTE] {
        assert_heard(&sound, hertz, spoken, CALL_MS);
    }
    // Every frame of every original, at its own time.
    let copy = blocks(&path);
    assert!(copy.windows(2).all(|pair| pair[0].1 <= pair[1].1), "in the order of time");
    let offsets: Vec<i64> = sources(&booth, &originals).iter().map(|source| source.offset_ms).collect();
    for (number, files) in [(2, vec![4]), (3, vec![1, 2]), (4, vec![0]), (5, vec![3])] {
        let expected: Vec<(i64, bool, Vec<u8>)> = files
            .iter()
            .flat_map(|n: &usize| {
                let of_file = blocks(&booth.path(&originals[*n].file)).into_iter().filter(|block| block.0 == 1);
                of_file.map(|(_, ms, key, data)| (i64::try_from(ms).unwrap() + offsets[*n], key, data))
            })
            .collect();
        let found: Vec<(i64, bool, Vec<u8>)> = copy
            .iter()
            .filter(|block| block.0 == number)
            .map(|(_, ms, key, data)| (i64::try_from(*ms).unwrap(), *key, data.clone()))
            .collect();
        assert!(found == expected, "track {number}: {} of {} frames", found.len(), expected.len());
    }
    let tracks: Vec<_> = report.tracks.iter().map(|track| (track.number, track.name.as_str())).collect();
    assert_eq!(tracks, [(2, "operator"), (3, "delegato"), (4, "delegante"), (5, "operator-screen")]);
    assert!(report.tracks.iter().all(|track| track.superseded + track.unusable == 0), "{report:?}");

    let pauses: Vec<_> = report.tracks.iter().map(|track| track.pauses.as_slice()).collect();
    let [[], [pause], [], []] = pauses[..] else { panic!("{pauses:?}") };
    assert_eq!((pause.from_ms / 100, pause.to_ms), (79, AWAY.end), "one went, and came back");

    for (label, spoken) in [("operator", 5_000), ("delegato", 6_500), ("delegante", 4_500)] {
        let speaker = report.voices.iter().find(|speaker| speaker.label == label).unwrap();
        let voice = speaker.voice;
        // Each of the two spans has a hangover.
        assert!(voice.speech_ms.abs_diff(spoken + 480) <= 160, "{label}: {voice:?}");
        assert_eq!((voice.clipped_ms, voice.level_dbfs), (0, Some(-15)), "{label}: {voice:?}");
        assert!(speaker.skew.largest_us <= 2_000 && speaker.skew.set_anew == 0, "{label}: {speaker:?}");
    }
    assert!(report.duration_ms.abs_diff(CALL_MS) <= 40, "{report:?}");
}

#[test]
fn other_programs_read_the_copy_without_a_word() {
    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let originals = record_call(&mut booth);
    let path = booth.path("session.webm");
    let report = derive_into(&path, sources(&booth, &originals)).unwrap();
    decode(&path);
    let streams = probe(&path);
    let codecs: Vec<_> = streams.iter().map(|stream| (stream.0.as_str(), stream.3)).collect();
    assert_eq!(codecs, [("opus", 1_001), ("vp8", 500), ("vp8", 397), ("vp8", 492), ("vp8", 100)]);

    let output = Command::new("mkvmerge").arg("-J").arg(&path).output().expect("mkvmerge is needed for this test");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["warnings"].as_array().unwrap().len() + said["errors"].as_array().unwrap().len(), 0, "{said}");
    let properties: Vec<_> = said["tracks"].as_array().unwrap().iter().map(|track| &track["properties"]).collect();
    let names: Vec<_> = properties.iter().map(|track| track["track_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mix", "operator", "delegato", "delegante", "operator-screen"]);
    let chosen: Vec<_> = properties.iter().map(|track| track["default_track"].as_bool().unwrap()).collect();
    assert_eq!(chosen, [true, true, false, false, false]);
    assert_eq!(said["container"]["properties"]["duration"].as_u64().unwrap(), report.duration_ms * 1_000_000);

    // Every second can be jumped to: what is decoded from there begins there.
    for second in [0, 3, 9, 13, 19] {
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0"])
            .args(["-read_intervals", &format!("{second}%+#1")])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let (time, flags) = said.trim().split_once(',').unwrap_or_default();
        assert!(flags.starts_with('K'), "{second}: {said}");
        let time: f64 = time.parse().unwrap();
        assert!(time <= f64::from(second) + 0.01 && time > f64::from(second) - 1.1, "{second}: {time}");
    }
}

#[test]
fn a_session_without_cameras_or_without_voices_has_a_copy_too() {
    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let connection = booth.connect("citizen");
    let spoken = [1_000..3_000];
    let packets = tone(600.0, &spoken, 0, 5_000).into_iter().map(|packet| (connection, packet)).collect();
    play(&mut booth, packets);
    let originals = booth.close();
    let path = booth.path("voice.webm");
    let report = derive_into(&path, sources(&booth, &originals)).unwrap();
    assert!(report.tracks.is_empty());
    assert_heard(&listen(&path), 600.0, &spoken, 5_000);
    decode(&path);

    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let connection = booth.connect("citizen");
    let packets = picture(&mut Sender::new(Source::Camera), at(500), 100, true);
    play(&mut booth, packets.into_iter().map(|packet| (connection, packet)).collect());
    let originals = booth.close();
    let path = booth.path("picture.webm");
    let report = derive_into(&path, sources(&booth, &originals)).unwrap();
    assert_eq!((report.tracks.len(), report.voices.len()), (1, 0));
    assert!(listen(&path).iter().all(|sample| sample.abs() < 1e-3), "nobody spoke");
    decode(&path);

    let nobody = derive_into(&booth.path("nothing.webm"), Vec::new());
    assert!(matches!(nobody, Err(SessionError::Nothing)));
}

#[test]
fn whoever_comes_back_before_the_old_connection_is_noticed_takes_the_track_over() {
    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let mut packets = Vec::new();
    for (from, to) in [(0, 6_000), (4_000, 10_000)] {
        let connection = booth.connect("delegante");
        let mut media = tone(700.0, &[from..to], from, to);
        media.extend(picture(&mut Sender::new(Source::Camera), at(from), (to - from) / 40, true));
        packets.extend(media.into_iter().map(|packet| (connection, packet)));
    }
    play(&mut booth, packets);
    let originals = booth.close();
    let path = booth.path("session.webm");
    let report = derive_into(&path, sources(&booth, &originals)).unwrap();
    let track = &report.tracks[0];
    assert_eq!((track.frames, track.superseded, track.unusable), (250, 50, 0), "{track:?}");
    let times: Vec<u64> = blocks(&path).into_iter().filter(|block| block.0 == 2).map(|block| block.1).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 40), "the picture goes on without a break");
    decode(&path);
}

/// A sink that takes everything and keeps nothing.
struct Nowhere;

impl SessionSink for Nowhere {
    fn append(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn patch(&mut self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// A source of these pieces, at 0.
fn source(pieces: Vec<std::io::Result<Vec<u8>>>) -> SessionSource {
    let (role, label) = ("delegato".to_owned(), "delegato".to_owned());
    SessionSource { role, label, offset_ms: 0, pieces: Box::new(pieces.into_iter()), screen: false }
}

#[test]
fn a_source_that_cannot_be_read_is_named_with_its_piece() {
    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let connection = booth.connect("delegato");
    let packets = super::synthetic::both(ZERO, 4, false).into_iter().map(|packet| (connection, packet)).collect();
    play(&mut booth, packets);
    let original = booth.close().remove(0);
    let pieces: Vec<Vec<u8>> =
        Pieces::new(File::open(booth.path(&original.file)).unwrap()).map(Result::unwrap).collect();
    assert!(pieces.len() > 4);
    let mut on = |_| ControlFlow::Continue(());
    let mut said = |pieces: Vec<std::io::Result<Vec<u8>>>| match derive(vec![source(pieces)], Nowhere, &mut on) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(said(pieces.iter().cloned().map(Ok).collect()), "");
    let broken = |at: usize, change: fn(&mut Vec<u8>)| {
        let mut pieces = pieces.clone();
        change(&mut pieces[at]);
        pieces.into_iter().map(Ok).collect()
    };
    let mut lost: Vec<_> = pieces.iter().cloned().map(Ok).collect();
    lost[2] = Err(std::io::Error::other("segment 2 does not authenticate"));
    assert_eq!(said(lost), "delegato: source 0, piece 2: segment 2 does not authenticate");
    let cut = said(broken(3, |piece| piece.truncate(100)));
    assert!(cut.starts_with("delegato: source 0, piece 3: not the structure of an original"), "{cut}");
    let header = said(broken(0, |piece| piece[0] = 0));
    assert!(header.starts_with("delegato: source 0, piece 0: not the structure"), "{header}");
    // What a crash cut off ends where it ends.
    assert_eq!(said(pieces[..3].iter().cloned().map(Ok).collect()), "");
    assert_eq!(said(vec![Ok(pieces[0].clone())]), "nothing was recorded");
    assert_eq!(said(Vec::new()), "nothing was recorded");
}

#[test]
fn whoever_asks_for_a_copy_hears_how_far_it_is_and_may_stop_it() {
    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let originals = record_call(&mut booth);
    let total: u64 = originals.iter().map(|original| original.bytes).sum();
    let mut told = Vec::new();
    let on = &mut |bytes| {
        told.push(bytes);
        ControlFlow::Continue(())
    };
    derive(sources(&booth, &originals), Nowhere, on).unwrap();
    assert!(told.is_sorted() && told.len() > 20 && told.last() == Some(&total), "{told:?}");
    let mut calls = 0;
    let stopped = derive(sources(&booth, &originals), Nowhere, &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(SessionError::Cancelled)) && calls == 3);
}

/// Where the copy is left for players that are no part of this test, or a place of its own.
fn artefact(booth: &Booth) -> PathBuf {
    let Some(folder) = std::env::var_os("ARTEFACTS") else {
        return booth.path("session.webm");
    };
    let folder = PathBuf::from(folder).join("session");
    fs::create_dir_all(&folder).unwrap();
    folder.join("session.webm")
}

#[test]
fn voice_and_picture_stay_together_through_twenty_minutes_on_a_clock_that_drifts() {
    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let mut packets = Vec::new();
    // The sender's clock is slow by 100 ppm: what it takes for 20 ms are 20.002. It drops out for five seconds.
    let stretched = |ms: u64| ZERO + Duration::from_nanos(ms * 1_000_100);
    for span in [0..600_000_u64, 605_000..1_200_000] {
        let connection = booth.connect("delegato");
        let (mut microphone, mut camera) = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
        let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Voip).unwrap();
        for ms in span.step_by(20) {
            // Beeps of 100 ms each ten seconds; the frame of the same moment is a keyframe.
            let beep = ms / 10_000 * 10_000..ms / 10_000 * 10_000 + 100;
            let near = ms < beep.end + 100 || ms >= beep.start + 9_900;
            let sound = near.then(|| encoder.encode_vec_float(&wave(1_000.0, &[beep], ms), 1_275).unwrap());
            let payload = sound.unwrap_or(SILENCE.to_vec());
            let arrival = stretched(ms) + Duration::from_millis(30);
            packets.push(Tapped::Packet {
                connection,
                source: Source::Microphone,
                packet: microphone.audio(arrival, &payload),
            });
            if ms % 100 == 0 {
                let frame = fake_frame(u32::try_from(ms).unwrap(), ms % 10_000 == 0, 60);
                // Pictures take longer on their way than sound.
                let later = arrival + Duration::from_millis(70);
                for packet in camera.video(later, &frame, Duration::from_millis(100)) {
                    packets.push(Tapped::Packet { connection, source: Source::Camera, packet });
                }
            }
            if ms % 1_000 == 980 {
                let sent = Duration::from_millis(ms + 20);
                let arrival = stretched(ms + 20) + Duration::from_millis(30);
                for (source, report) in [
                    (Source::Microphone, microphone.report(sent, arrival)),
                    (Source::Camera, camera.report(sent, arrival)),
                ] {
                    packets.push(Tapped::Report { connection, source, report });
                }
            }
        }
    }
    packets.sort_by_key(arrival);
    for tapped in packets {
        booth.pass_to(arrival(&tapped));
        booth.tap.push(tapped).unwrap();
    }
    let originals = booth.close();
    let path = booth.path("session.webm");
    let report = derive_into(&path, sources(&booth, &originals)).unwrap();

    let sound = listen(&path);
    let mut worst: f64 = 0.0;
    let mut compared = 0;
    for (_, ms, _, _) in blocks(&path).into_iter().filter(|(track, _, key, _)| *track == 2 && *key) {
        // The first seconds are those in which nothing is known of the sender's clock.
        if !(10_000..605_000).contains(&ms) && ms < 616_000 {
            continue;
        }
        let from = usize::try_from((ms - 200) * 48).unwrap();
        let onset = sound[from..from + 400 * 48].iter().position(|sample| sample.abs() > 0.1).expect("a beep");
        worst = worst.max((onset as f64 / 48.0 - 200.0).abs());
        compared += 1;
    }
    let skew = report.voices[0].skew;
    println!("{compared} beeps, voice and picture at most {worst:.1} ms apart; {skew:?}");
    assert!(compared > 110, "{compared}");
    assert!(worst <= 40.0, "{worst} ms apart");
    assert!(skew.largest_us <= 20_000 && skew.set_anew <= 2, "{skew:?}");
}

fn arrival(tapped: &Tapped) -> MonoTime {
    match tapped {
        Tapped::Packet { packet, .. } => packet.arrival,
        Tapped::Report { report, .. } => report.arrival,
        Tapped::End { .. } => MonoTime::ZERO,
    }
}
