//! What stands in the files: complete, in order, at the right time, for readers that we did not write.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::synthetic::{
    Booth, HastyDisk, SILENCE, Sender, blocks, both, decode, fake_frame, picture, probe, real_frames, speech,
};
use crate::clock::MonoTime;
use crate::media::Source;
use crate::recording::webm::{SimpleBlock, Track, TrackKind, cluster, header};
use crate::recording::{Fact, verify};
use crate::rtp::vp8::{Resolution, keyframe_resolution};
use crate::rtp::{Packet, Ssrc, Tapped};

const START: MonoTime = MonoTime::from_millis(2_000);

fn after(millis: u64) -> MonoTime {
    START + Duration::from_millis(millis)
}

/// Numbers of the fake frames in a file's first (video) track, with their time and flag.
fn numbers(path: &std::path::Path) -> Vec<(u32, u64, bool)> {
    let video = blocks(path).into_iter().filter(|(track, ..)| *track == 1);
    video.map(|(_, ms, key, data)| (u32::from_be_bytes(data[10..14].try_into().unwrap()), ms, key)).collect()
}

#[test]
fn an_original_holds_every_frame_in_order_and_plays_elsewhere() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    booth.play(connection, both(START, 5, true));
    let originals = booth.close();
    assert_eq!(originals.len(), 1);
    let original = &originals[0];
    assert_eq!(original.file, "delegato-1.webm");
    assert_eq!(original.sources, [Source::Microphone, Source::Camera]);
    assert!(original.duration_ms.abs_diff(5_000) <= 1, "{}", original.duration_ms);

    let path = booth.path(&original.file);
    decode(&path);
    let streams = probe(&path);
    assert_eq!(
        streams.iter().map(|stream| (stream.0.as_str(), stream.3)).collect::<Vec<_>>(),
        [("vp8", 125), ("opus", 250)]
    );
    for (codec, first, last, _) in &streams {
        assert!(first.abs() < 0.01, "{codec} begins at {first}");
        assert!((last - 4.97).abs() < 0.05, "{codec} ends at {last}");
    }
    let blocks = blocks(&path);
    let video: Vec<_> = blocks.iter().filter(|(track, ..)| *track == 1).collect();
    for ((_, ms, key, data), (n, frame)) in video.iter().zip(real_frames().iter().enumerate()) {
        assert_eq!((*ms, *key, data == frame), (n as u64 * 40, n % 25 == 0, true), "frame {n}");
    }
    assert!(blocks.windows(2).all(|pair| pair[0].1 <= pair[1].1), "both tracks in the order of time");
    let report = verify(&path, |_, _| {}).unwrap();
    assert_eq!(report.files[0].chain_head, original.chain_head);
    assert_eq!((report.files[0].bytes, report.files[0].clusters), (original.bytes, original.clusters));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), original.bytes);
    // Keyframes begin clusters: one a second, and what was cut between them.
    assert!((6..=16).contains(&original.clusters), "{}", original.clusters);

    if let Ok(output) = Command::new("mkvmerge").arg("-J").arg(&path).output() {
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["warnings"].as_array().unwrap().len() + value["errors"].as_array().unwrap().len(), 0);
        assert_eq!(value["tracks"][0]["properties"]["pixel_dimensions"], "320x240");
        assert_eq!(value["tracks"][1]["properties"]["codec_id"], "A_OPUS");
    }
}

#[test]
fn frames_that_come_unevenly_decode_without_a_word() {
    let mut booth = Booth::new();
    let connection = booth.connect("operator");
    let mut camera = Sender::new(Source::Camera);
    // Even for two seconds, so that a reader takes it for 25 frames a second; then two at a time, 3 ms apart.
    let time = |n: u64| n * 40 + if n >= 50 && n.is_multiple_of(2) { 37 } else { 0 };
    let mut packets = speech(&mut Sender::new(Source::Microphone), START, 250);
    for (n, frame) in (0..125).zip(real_frames()) {
        let sent = camera.video(after(time(n)), frame, Duration::from_millis(time(n + 1) - time(n)));
        packets.extend(sent.into_iter().map(|packet| (Source::Camera, packet)));
    }
    booth.play(connection, packets);
    let original = booth.close().remove(0);
    let times: Vec<u64> = blocks(&booth.path(&original.file)).iter().filter(|b| b.0 == 1).map(|b| b.1).collect();
    assert_eq!(times[60..64], [2_437, 2_440, 2_517, 2_520]);
    decode(&booth.path(&original.file));
}

#[test]
fn cut_anywhere_it_still_parses_and_decodes() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegante");
    booth.play(connection, both(START, 4, true));
    let original = booth.close().remove(0);
    let path = booth.path(&original.file);
    let whole = std::fs::read(&path).unwrap();
    let header = 600.min(whole.len());
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.webm");
    for n in 0..100 {
        let length = header + (n * 7_919) % (whole.len() - header);
        std::fs::write(&cut, &whole[..length]).unwrap();
        let mut demuxer = matroska_demuxer::MatroskaFile::open(std::fs::File::open(&cut).unwrap()).unwrap();
        let mut frame = matroska_demuxer::Frame::default();
        // A cut in the middle of an element ends the file there.
        while matches!(demuxer.next_frame(&mut frame), Ok(true)) {}
        if n % 25 == 0 {
            let output = Command::new("ffmpeg")
                .args(["-v", "fatal", "-i"])
                .arg(&cut)
                .args(["-f", "null", "-"])
                .status()
                .unwrap();
            assert!(output.success(), "cut at {length}");
        }
    }
}

#[test]
fn elements_of_every_awkward_size_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sizes.webm");
    let size = Resolution { width: 320, height: 240 };
    let track = Track { kind: TrackKind::Video(size), uid: 7, name: "camera" };
    let mut bytes = header(&[track], Timestamp::UNIX_EPOCH).unwrap();
    let lengths: Vec<usize> = (100..135).chain(16_360..16_390).chain([2_097_147, 2_097_148]).collect();
    for (n, length) in (0_u64..).zip(&lengths) {
        let data = vec![0x51; *length];
        let block = SimpleBlock { track: 1, offset: 0, keyframe: true, data: &data };
        bytes.extend(cluster(n * 10, &[block]).unwrap());
    }
    std::fs::write(&path, bytes).unwrap();
    let read: Vec<usize> = blocks(&path).into_iter().map(|(.., data)| data.len()).collect();
    assert_eq!(read, lengths);
}

#[test]
fn forty_seconds_of_silence_stay_forty_seconds() {
    let mut booth = Booth::new();
    let connection = booth.connect("operatore");
    let (mut microphone, mut camera) = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
    let mut packets = speech(&mut microphone, START, 50);
    packets.extend(picture(&mut camera, START, 25, true));
    microphone.timestamp += 40 * 48_000;
    camera.timestamp += 40 * 90_000;
    packets.extend(speech(&mut microphone, after(41_000), 50));
    packets.extend(picture(&mut camera, after(41_000), 25, true));
    booth.play(connection, packets);
    let original = &booth.close()[0];
    assert!(original.duration_ms.abs_diff(42_000) <= 1, "{}", original.duration_ms);
    let path = booth.path(&original.file);
    let blocks = blocks(&path);
    assert_eq!(blocks.len(), 150);
    assert_eq!(blocks.iter().filter(|(_, ms, ..)| (1_000..41_000).contains(ms)).count(), 0);
    assert!(blocks.iter().any(|(_, ms, ..)| *ms == 41_000));
    decode(&path);
}

#[test]
fn wraps_and_a_new_ssrc_leave_time_and_track_as_they_were() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    let (mut microphone, mut camera) = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
    microphone.sequence = 65_500;
    microphone.timestamp = u64::from(u32::MAX) - 20_000;
    camera.sequence = 65_530;
    camera.timestamp = u64::from(u32::MAX) - 90_000;
    camera.picture = 0x7ff0;
    let mut packets = speech(&mut microphone, START, 150);
    packets.extend(picture(&mut camera, START, 75, false));
    microphone.ssrc = Ssrc(77);
    (microphone.sequence, microphone.timestamp) = (9, 1_234_567);
    camera.ssrc = Ssrc(78);
    (camera.sequence, camera.timestamp, camera.picture) = (3, 99, 1);
    packets.extend(speech(&mut microphone, after(3_000), 100));
    packets.extend(picture(&mut camera, after(3_000), 50, false));
    booth.play(connection, packets);
    let original = &booth.close()[0];
    assert!(original.duration_ms.abs_diff(5_000) <= 1);
    let path = booth.path(&original.file);
    for (n, (_, ms, _)) in (0_u64..).zip(numbers(&path)) {
        assert!(ms.abs_diff(n * 40) <= 1, "frame {n} at {ms}");
    }
    let audio: Vec<u64> = blocks(&path).into_iter().filter(|(track, ..)| *track == 2).map(|(_, ms, ..)| ms).collect();
    assert_eq!(audio.len(), 250);
    assert!((0_u64..).zip(&audio).all(|(n, ms)| ms.abs_diff(n * 20) <= 1));
    let lines = std::fs::read_to_string(path.with_extension("rtcp.jsonl")).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains(r#""type":"stream""#)).count(), 4, "{lines}");
}

#[test]
fn who_only_speaks_or_only_shows_has_a_file_with_what_there_is() {
    let mut booth = Booth::new();
    let speaker = booth.connect("delegante");
    booth.play(speaker, speech(&mut Sender::new(Source::Microphone), START, 150));
    let shower = booth.connect("delegante");
    booth.play(shower, picture(&mut Sender::new(Source::Camera), after(4_000), 75, true));
    let originals = booth.close();
    assert_eq!(originals[0].sources, [Source::Microphone]);
    assert_eq!(originals[1].sources, [Source::Camera]);
    assert_eq!(originals[1].file, "delegante-2.webm");
    for (original, frames) in originals.iter().zip([150, 75]) {
        let path = booth.path(&original.file);
        decode(&path);
        assert_eq!(probe(&path)[0].3, frames);
        assert!(original.duration_ms.abs_diff(3_000) <= 1, "{}", original.duration_ms);
    }
}

#[test]
fn without_a_keyframe_the_voice_is_recorded_and_the_picture_joins_at_the_first() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    let (mut microphone, mut camera) = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
    let mut packets = speech(&mut microphone, START, 250);
    for n in 0..125_u64 {
        let frame = fake_frame(u32::try_from(n).unwrap(), n == 75, 500);
        let sent = camera.video(after(n * 40), &frame, Duration::from_millis(40));
        packets.extend(sent.into_iter().map(|packet| (Source::Camera, packet)));
    }
    booth.play(connection, packets);
    let original = &booth.close()[0];
    let path = booth.path(&original.file);
    let numbers = numbers(&path);
    assert_eq!(numbers[0], (75, 3_000, true));
    assert_eq!(numbers.len(), 50);
    assert_eq!(blocks(&path).iter().filter(|(track, ..)| *track == 2).count(), 250);
}

#[test]
fn a_camera_that_begins_late_opens_the_next_original() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    let mut packets = speech(&mut Sender::new(Source::Microphone), START, 300);
    packets.extend(picture(&mut Sender::new(Source::Camera), after(3_000), 75, true));
    booth.play(connection, packets);
    let originals = booth.close();
    assert_eq!(
        originals.iter().map(|original| original.file.as_str()).collect::<Vec<_>>(),
        ["delegato-1.webm", "delegato-2.webm"]
    );
    assert_eq!(originals[1].sources, [Source::Microphone, Source::Camera]);
    let counted: usize = originals
        .iter()
        .map(|original| blocks(&booth.path(&original.file)).iter().filter(|(.., data)| *data == SILENCE).count())
        .sum();
    assert_eq!(counted, 300, "no word is lost between the two");
    decode(&booth.path("delegato-2.webm"));
}

#[test]
fn the_screen_has_a_file_of_its_own() {
    let mut booth = Booth::new();
    let connection = booth.connect("operatore");
    let mut packets = both(START, 4, true);
    packets.extend(picture(&mut Sender::new(Source::Screen), after(2_000), 50, true));
    booth.play(connection, packets);
    let at = booth.at;
    booth.tap.push(Tapped::End { connection, at }).unwrap();
    let originals = booth.close();
    assert_eq!(
        originals.iter().map(|original| original.file.as_str()).collect::<Vec<_>>(),
        ["operatore-1-screen.webm", "operatore-1.webm"]
    );
    assert_eq!(originals[0].sources, [Source::Screen]);
    for original in &originals {
        decode(&booth.path(&original.file));
    }
}

/// A network that loses, repeats and reorders; lost video comes back by NACK most of the time.
fn spoil(packets: Vec<(Source, Packet)>, seed: u64, loss: u64) -> Vec<(Source, Packet)> {
    let mut state = seed | 1;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut spoiled = Vec::new();
    for (source, packet) in packets {
        // The first pictures come whole, so that the frames' time is known.
        if source == Source::Camera && packet.sequence < 190 {
            spoiled.push((source, packet));
            continue;
        }
        let mut late = packet.clone();
        late.arrival = packet.arrival + Duration::from_millis(random(40));
        if random(100) < loss {
            if source == Source::Microphone || random(10) == 0 {
                continue;
            }
            late.arrival = packet.arrival + Duration::from_millis(60 + random(200));
        }
        if random(20) == 0 {
            let mut again = late.clone();
            again.arrival = late.arrival + Duration::from_millis(random(300));
            spoiled.push((source, again));
        }
        spoiled.push((source, late));
    }
    spoiled
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn loss_reorder_and_repeats_leave_gaps_but_no_lies(seed in any::<u64>(), loss in 0_u64..35) {
        let mut booth = Booth::new();
        let connection = booth.connect("delegante");
        booth.play(connection, spoil(both(START, 20, false), seed, loss));
        booth.pass_to(booth.at + Duration::from_secs(1));
        let originals = booth.close();
        let path = booth.path(&originals[0].file);
        let frames = numbers(&path);
        // In order, none twice, each at its time, and flagged for what it is.
        prop_assert!(frames.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
        let offset = i64::try_from(frames[0].1).unwrap() - i64::from(frames[0].0) * 40;
        for (number, ms, key) in &frames {
            prop_assert_eq!(*key, number % 25 == 0);
            let off = i64::try_from(*ms).unwrap() - i64::from(*number) * 40 - offset;
            prop_assert!(off.abs() <= 2, "frame {} is off by {} ms", number, off);
        }
        // After a missing frame nothing comes before the next keyframe.
        for pair in frames.windows(2) {
            prop_assert!(pair[1].0 == pair[0].0 + 1 || pair[1].2, "frame {} follows {}", pair[1].0, pair[0].0);
        }
        if loss == 0 {
            prop_assert_eq!(frames.len(), 500);
        }
        for (track, _, key, data) in blocks(&path) {
            prop_assert!(track != 1 || key == keyframe_resolution(&data).is_some());
            prop_assert!(track != 1 || data.len() == 3_000, "a whole frame");
        }
        let whole = verify(&path, |_, _| {}).is_ok();
        prop_assert!(whole);
    }
}

#[test]
fn reports_bring_voice_and_picture_together_over_twenty_minutes() {
    let mut booth = Booth::on(Arc::new(HastyDisk), 64);
    let connection = booth.connect("delegato");
    let (mut microphone, mut camera) = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
    // The sender's clock runs 100 ppm fast; its pictures come 150 ms later than its words, with the same reports.
    let real = |sent: u64| START + Duration::from_micros(sent * 1_000 - sent / 10);
    for n in 0..60_000_u64 {
        let sent = n * 20;
        if n % 2 == 0 {
            let frame = fake_frame(u32::try_from(n / 2).unwrap(), n % 100 == 0, 60);
            for packet in camera.video(real(sent) + Duration::from_millis(150), &frame, Duration::from_millis(40)) {
                booth.pass_to(real(sent));
                booth.tap.push(Tapped::Packet { connection, source: Source::Camera, packet }).unwrap();
            }
        }
        let [.., high, middle, low] = n.to_be_bytes();
        let numbered = [0xfc, high, middle, low];
        let packet = microphone.audio(real(sent), &numbered);
        booth.pass_to(real(sent));
        booth.tap.push(Tapped::Packet { connection, source: Source::Microphone, packet }).unwrap();
        if n % 50 == 0 {
            let time = Duration::from_millis(sent + 20);
            let report = microphone.report(time, real(sent));
            booth.tap.push(Tapped::Report { connection, source: Source::Microphone, report }).unwrap();
            let report = camera.report(time + Duration::from_millis(if n % 2 == 0 { 20 } else { 0 }), real(sent));
            booth.tap.push(Tapped::Report { connection, source: Source::Camera, report }).unwrap();
        }
    }
    let originals = booth.close();
    let (mut voice, mut frames) = (Vec::new(), Vec::new());
    for (track, ms, _, data) in blocks(&booth.path(&originals[0].file)) {
        if track == 1 {
            frames.push((u64::from(u32::from_be_bytes(data[10..14].try_into().unwrap())) * 40, ms));
        } else {
            voice.push((u64::from(u32::from_be_bytes([0, data[1], data[2], data[3]])) * 20, ms));
        }
    }
    assert_eq!((voice.len(), frames.len()), (60_000, 30_000), "nothing lost");
    let voice: std::collections::HashMap<u64, u64> = voice.into_iter().collect();
    let worst = frames.iter().skip(250).map(|(sent, ms)| voice[sent].abs_diff(*ms)).max().unwrap();
    assert!(worst <= 5, "skew of {worst} ms");
    let last = frames.last().unwrap();
    assert!(last.1.abs_diff(last.0 - last.0 / 10_000) <= 200, "{last:?}");
}

#[test]
fn what_is_acknowledged_is_on_disk() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    assert_eq!(booth.tap.durable_until(), Some(booth.at), "the proven folder counts as the first");
    let mut started = None;
    let mut worst = Duration::ZERO;
    for (source, packet) in {
        let mut packets = both(START, 10, false);
        packets.sort_by_key(|(_, packet)| packet.arrival);
        packets
    } {
        booth.pass_to(packet.arrival);
        if started.is_none() && matches!(booth.facts.try_recv(), Ok(Fact::Started { .. })) {
            started = Some(booth.at.since(START));
        }
        worst = worst.max(booth.at.since(booth.tap.durable_until().unwrap()));
        booth.tap.push(Tapped::Packet { connection, source, packet }).unwrap();
    }
    assert!(started.unwrap() <= Duration::from_millis(200), "started after {started:?}");
    assert!(worst <= Duration::from_secs(1), "{worst:?} behind");
    // A copy of the file as it is now holds everything up to what was acknowledged.
    let durable = booth.tap.durable_until().unwrap();
    let last = blocks(&booth.path("delegato-1.webm")).last().unwrap().1;
    let expected = u64::try_from(durable.since(START).as_millis()).unwrap();
    assert!(last + 40 >= expected, "{last} on disk, {expected} acknowledged");
    // And with nothing more to write, it goes on.
    booth.pass_to(booth.at + Duration::from_secs(10));
    assert!(booth.at.since(booth.tap.durable_until().unwrap()) <= Duration::from_millis(50));
}
