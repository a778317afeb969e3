//! What is said of an original's quality, against what was done to it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::SignedDuration;

use super::synthetic::{Booth, Sender, blocks, both, fake_frame, picture, speech};
use crate::clock::MonoTime;
use crate::media::Source;
use crate::recording::lines::read_lines;
use crate::recording::quality::{
    ClockSet, End, Gap, Interval, OriginalQuality, PictureQuality, Resolution, SourceQuality, summarise,
};
use crate::rtp::{Codec, Packet, Ssrc, Tapped};

const START: MonoTime = MonoTime::from_millis(2_000);

fn after(millis: u64) -> MonoTime {
    START + Duration::from_millis(millis)
}

fn quality_of(path: &Path) -> OriginalQuality {
    let quality = summarise(read_lines(&fs::read(path.with_extension("rtcp.jsonl")).unwrap()));
    // It goes into a manifest, and comes out of it.
    let text = serde_json::to_string(&quality).unwrap();
    assert_eq!(serde_json::from_str::<OriginalQuality>(&text).unwrap(), quality);
    quality
}

fn recorded(packets: Vec<(Source, Packet)>) -> (Booth, OriginalQuality) {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    booth.play(connection, packets);
    booth.pass_to(booth.at + Duration::from_secs(1));
    let original = booth.close().remove(0);
    let quality = quality_of(&booth.path(&original.file));
    assert_eq!(quality.duration_ms, original.duration_ms);
    (booth, quality)
}

fn source(quality: &OriginalQuality, source: Source) -> &SourceQuality {
    quality.sources.iter().find(|entry| entry.source == source).unwrap()
}

fn seen(quality: &OriginalQuality) -> &PictureQuality {
    source(quality, Source::Camera).picture.as_ref().unwrap()
}

#[test]
fn of_a_clean_call_nothing_bad_is_said() {
    let (_booth, quality) = recorded(both(START, 10, false));
    assert_eq!(quality.end, End::Regular);
    assert!(quality.write_us.unwrap().count > 5 && quality.sync_us.unwrap().count > 5);
    assert!(quality.clock_sets.is_empty());
    let voice = source(&quality, Source::Microphone);
    assert_eq!((voice.codec, voice.packets, voice.lost, voice.first_packet_ms), (Codec::Opus, 500, 0, Some(0)));
    assert!(voice.picture.is_none());
    let camera = source(&quality, Source::Camera);
    assert_eq!((camera.lost, camera.recovered, camera.late, camera.duplicates), (0, 0, 0, 0));
    assert_eq!(
        camera.streams.iter().map(|stream| (stream.ssrc, stream.first_sequence)).collect::<Vec<_>>(),
        [(1_001, 100)]
    );
    assert!(camera.gaps.is_empty() && camera.silences.is_empty() && camera.jumps_ms.is_empty());
    let seen = seen(&quality);
    assert_eq!((seen.frames, seen.keyframes, seen.frames_left_out, seen.damaged_ms), (250, 10, 0, 0));
    assert_eq!(
        (seen.first_keyframe_ms, seen.longest_keyframe_gap_ms, seen.keyframe_gaps_over_5_s),
        (Some(0), 1_000, 0)
    );
    assert_eq!(seen.resolutions, [Resolution { width: 320, height: 240, at_ms: 0 }]);
}

#[test]
fn lost_recovered_late_and_repeated_packets_are_told_apart_and_damage_has_a_length() {
    let mut packets = both(START, 6, false);
    let at = |packets: &[(Source, Packet)], of: Source, n: u64| {
        packets.iter().position(|(source, packet)| *source == of && packet.sequence == 100 + n).unwrap()
    };
    // Voice: three in a row never come.
    for n in [120, 121, 122] {
        let gone = at(&packets, Source::Microphone, n);
        packets.remove(gone);
    }
    // Picture (three packets a frame, a keyframe each second): the second packet of frame 30 comes too late, the first
    // of frame 60 comes when it was asked for again, one of frame 80 comes twice.
    let late = at(&packets, Source::Camera, 91);
    packets[late].1.arrival = after(30 * 40 + 900);
    let again = at(&packets, Source::Camera, 180);
    packets[again].1.arrival = after(60 * 40 + 150);
    let twice = at(&packets, Source::Camera, 240);
    let mut copy = packets[twice].clone();
    copy.1.arrival = copy.1.arrival + Duration::from_millis(30);
    packets.push(copy);
    let (_booth, quality) = recorded(packets);

    let voice = source(&quality, Source::Microphone);
    assert_eq!((voice.packets, voice.lost), (297, 3));
    let [gap] = voice.gaps.as_slice() else { panic!("{voice:?}") };
    assert_eq!(*gap, Gap { ssrc: 1_000, first_sequence: 220, packets: 3, at_ms: gap.at_ms });
    assert!(gap.at_ms.abs_diff(23 * 20 + 2_000) <= 5, "where the next packet came: {gap:?}");

    let camera = source(&quality, Source::Camera);
    assert_eq!((camera.lost, camera.recovered, camera.late, camera.duplicates), (1, 1, 1, 1));
    assert_eq!(camera.gaps.iter().map(|gap| (gap.first_sequence, gap.packets)).collect::<Vec<_>>(), [(191, 1)]);
    // Frame 30 is damaged, 31 to 49 refer to it, and 50 is a keyframe.
    let seen = seen(&quality);
    assert_eq!((seen.frames, seen.keyframes, seen.frames_left_out), (130, 6, 20));
    let [damage] = seen.damages.as_slice() else { panic!("{seen:?}") };
    assert!(damage.from_ms.abs_diff(1_200) <= 60 && damage.to_ms.abs_diff(2_000) <= 60, "{damage:?}");
    assert_eq!(seen.damaged_ms, damage.to_ms - damage.from_ms);
}

#[test]
fn mutes_are_silences_and_no_loss_and_make_no_keyframe_gap() {
    let (mut microphone, mut camera) = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
    let mut packets = speech(&mut microphone, START, 100);
    packets.extend(picture(&mut camera, START, 50, false));
    microphone.timestamp += 3 * 48_000;
    camera.timestamp += 10 * 90_000;
    packets.extend(speech(&mut microphone, after(5_000), 500));
    packets.extend(picture(&mut camera, after(12_000), 25, false));
    let (_booth, quality) = recorded(packets);
    let near = |silences: &[Interval], from: u64, to: u64| {
        silences.iter().any(|one| one.from_ms.abs_diff(from) <= 40 && one.to_ms.abs_diff(to) <= 40)
    };
    let voice = source(&quality, Source::Microphone);
    assert!(voice.silences.len() == 1 && near(&voice.silences, 2_000, 5_000), "{voice:?}");
    let camera = source(&quality, Source::Camera);
    assert!(near(&camera.silences, 1_960, 12_000), "{camera:?}");
    assert!(near(&camera.silences, 12_960, 15_000), "what stopped and did not come back: {camera:?}");
    assert_eq!((voice.lost, camera.lost), (0, 0));
    let seen = seen(&quality);
    assert_eq!((seen.keyframe_gaps_over_5_s, seen.damaged_ms), (0, 0));
    assert!(seen.longest_keyframe_gap_ms <= 1_040, "{seen:?}");
}

#[test]
fn another_size_and_another_stream_are_written_down_and_rare_keyframes_counted() {
    let mut camera = Sender::new(Source::Camera);
    let mut packets = speech(&mut Sender::new(Source::Microphone), START, 1_000);
    for n in 0..500_u64 {
        if n == 300 {
            camera.ssrc = Ssrc(4_242);
            (camera.sequence, camera.timestamp) = (7, 70);
        }
        let key = [0, 200, 300].contains(&n);
        let mut frame = fake_frame(u32::try_from(n).unwrap(), key, 500);
        if n >= 200 {
            // Width of a keyframe (RFC 6386 §9.1).
            frame[6..8].copy_from_slice(&640_u16.to_le_bytes());
        }
        let sent = camera.video(after(n * 40), &frame, Duration::from_millis(40));
        packets.extend(sent.into_iter().map(|packet| (Source::Camera, packet)));
    }
    let (booth, quality) = recorded(packets);
    let entry = source(&quality, Source::Camera);
    assert_eq!(entry.streams.iter().map(|stream| stream.ssrc).collect::<Vec<_>>(), [1_001, 4_242]);
    assert_eq!(entry.jumps_ms.len(), 1);
    let seen = seen(&quality);
    let sizes: Vec<(u16, u16)> = seen.resolutions.iter().map(|size| (size.width, size.height)).collect();
    assert_eq!(sizes, [(320, 240), (640, 240)]);
    assert!(seen.resolutions[1].at_ms.abs_diff(8_000) <= 40);
    assert_eq!((seen.longest_keyframe_gap_ms.div_ceil(100), seen.keyframe_gaps_over_5_s), (80, 2));
    let frames = blocks(&booth.path("delegato-1.webm")).iter().filter(|block| block.0 == 1).count();
    assert_eq!(frames, 500, "all in one file, on one track");
}

#[test]
fn a_wall_clock_set_by_an_hour_moves_no_media_and_is_written_down() {
    for by in [SignedDuration::from_hours(1), SignedDuration::from_hours(-1)] {
        let mut booth = Booth::new();
        let connection = booth.connect("delegato");
        let (first, second): (Vec<_>, Vec<_>) =
            both(START, 6, false).into_iter().partition(|(_, packet)| packet.arrival < after(3_000));
        booth.play(connection, first);
        booth.wall_off = by;
        booth.play(connection, second);
        booth.close();
        let path = booth.path("delegato-1.webm");
        let times: Vec<u64> = blocks(&path).iter().filter(|block| block.0 == 1).map(|block| block.1).collect();
        assert!((0..).zip(&times).all(|(n, ms)| *ms == n * 40) && times.len() == 150, "{times:?}");
        let quality = quality_of(&path);
        let [ClockSet { at_ms, by_ms }] = quality.clock_sets.as_slice() else { panic!("{:?}", quality.clock_sets) };
        assert_eq!(i128::from(*by_ms), by.as_millis());
        assert!(at_ms.abs_diff(3_000) <= 60, "{at_ms}");
    }
}

#[test]
fn thirty_per_cent_loss_with_reordering_is_marked_packet_by_packet_and_voice_and_picture_stay_together() {
    let (mut microphone, mut camera) = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
    let mut state = 0x5eed_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut booth = Booth::new();
    let connection = booth.connect("delegante");
    let (mut items, mut dropped) = (Vec::new(), [0_u64; 2]);
    for n in 0..1_500_u64 {
        let at = after(n * 20);
        let mut sent = vec![(Source::Microphone, microphone.audio(at, &super::synthetic::SILENCE))];
        if n % 2 == 0 {
            let frame = fake_frame(u32::try_from(n / 2).unwrap(), n % 50 == 0, 3_000);
            let packets = camera.video(at, &frame, Duration::from_millis(40));
            sent.extend(packets.into_iter().map(|packet| (Source::Camera, packet)));
        }
        for (source, mut packet) in sent {
            // The last ones come: of what is lost after them nobody could know.
            let kept = n >= 1_490 || random(100) >= 30;
            if !kept {
                dropped[usize::from(source == Source::Camera)] += 1;
                continue;
            }
            packet.arrival = packet.arrival + Duration::from_millis(20 + random(60));
            for copy in 0..=u64::from(random(20) == 0) {
                let mut copied = packet.clone();
                copied.arrival = packet.arrival + Duration::from_millis(copy * 15);
                items.push((copied.arrival, Tapped::Packet { connection, source, packet: copied }));
            }
        }
        if n % 50 == 49 {
            for (source, sender) in [(Source::Microphone, &microphone), (Source::Camera, &camera)] {
                let report = sender.report(Duration::from_millis((n + 1) * 20), at + Duration::from_millis(40));
                items.push((report.arrival, Tapped::Report { connection, source, report }));
            }
        }
    }
    items.sort_by_key(|(arrival, _)| *arrival);
    for (arrival, item) in items {
        booth.pass_to(arrival);
        booth.tap.push(item).unwrap();
    }
    booth.pass_to(booth.at + Duration::from_secs(1));
    booth.close();
    let path = booth.path("delegante-1.webm");
    let quality = quality_of(&path);
    let (voice, seen) = (source(&quality, Source::Microphone), source(&quality, Source::Camera));
    for (entry, dropped) in [(voice, dropped[0]), (seen, dropped[1])] {
        let listed: u64 = entry.gaps.iter().map(|gap| gap.packets).sum();
        // Of those before the first packet that came nobody knows.
        assert!(entry.lost == listed && dropped - listed <= 6, "{} of {dropped}", entry.lost);
        assert!(entry.recovered > 0 && entry.duplicates > 0);
    }
    let picture = seen.picture.as_ref().unwrap();
    assert!(picture.damaged_ms > 1_000 && picture.frames_left_out > 100, "{picture:?}");
    let skew = quality.skew_ms.unwrap();
    assert!(skew.max <= 100 && skew.count > 20, "{skew:?}");
    let numbered =
        |track: u64, data: &[u8]| if track == 1 { u32::from_be_bytes(data[10..14].try_into().unwrap()) } else { 0 };
    let (mut frames, mut worst) = (0, 0);
    let zero = blocks(&path).iter().find(|block| block.0 == 1).map(|block| (block.1, numbered(1, &block.3))).unwrap();
    for (track, ms, key, data) in blocks(&path) {
        if track == 1 {
            let number = numbered(track, &data);
            assert_eq!(key, number % 25 == 0, "no false keyframe");
            let expected = zero.0 + u64::from(number - zero.1) * 40;
            worst = worst.max(ms.abs_diff(expected));
            frames += 1;
        }
    }
    assert!(frames > 10 && worst <= 100, "{frames} frames, the worst {worst} ms off");
}
