//! Voices with everything that can happen to them, listened to sample by sample.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "samples of a minute fit anywhere")]

use std::f64::consts::TAU;

use super::*;

const HERTZ: f64 = 440.0;

/// One second and a half of a tone in packets of 20 ms, fullband.
fn packets() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(RATE, Channels::Mono, Application::Audio).unwrap();
    encoder.set_bitrate(Bitrate::Bits(64_000)).unwrap();
    encode(encoder, 0..0)
}

/// The same as SILK, silent in these packets, with what a browser may switch on for it: FEC, DTX.
fn spoken(silent: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(RATE, Channels::Mono, Application::Voip).unwrap();
    encoder.set_bitrate(Bitrate::Bits(32_000)).unwrap();
    encoder.set_max_bandwidth(opus::Bandwidth::Wideband).unwrap();
    encoder.set_inband_fec(true).unwrap();
    encoder.set_packet_loss_perc(20).unwrap();
    encoder.set_dtx(true).unwrap();
    encode(encoder, silent)
}

fn encode(mut encoder: Encoder, silent: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    let packet = |n: usize| {
        let sample = |i: usize| {
            let loud = if silent.contains(&n) { 0.0 } else { 0.4 };
            (loud * (TAU * HERTZ * (n * FRAME + i) as f64 / 48_000.0).sin()) as f32
        };
        encoder.encode_vec_float(&(0..FRAME).map(sample).collect::<Vec<_>>(), LARGEST_PACKET).unwrap()
    };
    (0..75).map(packet).collect()
}

/// What is heard of these blocks (ms, packet), and what was counted.
fn hear(blocks: &[(i64, &[u8])], until_ms: i64) -> (Vec<f32>, VoiceCounts) {
    let mut voice = Voice::new(312).unwrap();
    let mut blocks = blocks.iter().peekable();
    let mut heard = Vec::new();
    for ms in (0..until_ms).step_by(20) {
        while let Some((at, packet)) = blocks.next_if(|(at, _)| *at < ms + 20 + HORIZON_MS) {
            voice.push(at * PER_MS, packet);
        }
        voice.trail_off((ms + 20) * PER_MS);
        let mut frame = [0.0; FRAME];
        voice.mix_into(&mut frame, ms * PER_MS);
        heard.extend(frame);
    }
    (heard, voice.counts())
}

/// Where the packets of a stream stand when nothing happens to them.
fn even(packets: &[Vec<u8>]) -> Vec<(i64, &[u8])> {
    (0..).step_by(20).zip(packets.iter().map(Vec::as_slice)).collect()
}

fn loudest(heard: &[f32], ms: std::ops::Range<usize>) -> f32 {
    peak(&heard[ms.start * 48..ms.end * 48])
}

/// The largest bend between three samples: a click bends far more than the tone, at most `0.4 · (2π·440/48000)²`.
fn sharpest(heard: &[f32], ms: std::ops::Range<usize>) -> f32 {
    heard[ms.start * 48..ms.end * 48].windows(3).fold(0.0, |most, w| most.max((w[0] - 2.0 * w[1] + w[2]).abs()))
}

const BEND: f32 = 0.001_4;

#[test]
fn a_voice_stands_sample_exact_where_it_was_made() {
    let packets = packets();
    let (heard, counts) = hear(&even(&packets), 1_500);
    // The decoder reproduces the wave with its phase: one sample off would be an error of 0.023.
    for at in (300..1_200).step_by(100) {
        let worst = (at * 48..(at + 20) * 48)
            .map(|n| (f64::from(heard[n]) - 0.4 * (TAU * HERTZ * n as f64 / 48_000.0).sin()).abs())
            .fold(0.0, f64::max);
        assert!(worst < 0.02, "at {at} ms off by {worst}");
    }
    assert_eq!((counts.packets, counts.concealed, counts.furthest), (75, 0, 0));
}

#[test]
fn what_was_lost_is_concealed_up_to_a_bound_and_silent_beyond() {
    let packets = packets();
    let without = |lost: std::ops::Range<usize>| {
        let (start, end) = (lost.start * 20, lost.end * 20);
        let mut blocks = even(&packets);
        blocks.drain(lost);
        let (heard, counts) = hear(&blocks, 1_500);
        assert!(sharpest(&heard, 100..1_300) < 12.0 * BEND, "no click: {}", sharpest(&heard, 100..1_300));
        let after = (loudest(&heard, end + 20..end + 200) - 0.4).abs();
        assert!(after < 0.05, "the voice is back: {after}");
        (loudest(&heard, start + 2..start + 18), loudest(&heard, end - 60..end - 10), counts)
    };
    for lost in [1, 2, 4, 6] {
        let (at_once, _, counts) = without(30..30 + lost);
        assert!(at_once > 0.25, "{lost} lost: {at_once}");
        assert_eq!((counts.concealed, counts.set_anew), (signed(lost * FRAME), 0));
    }
    for lost in [8, 15, 30] {
        let (_, late, counts) = without(30..30 + lost);
        assert!(late < 1e-4, "{lost} lost: {late}");
        assert_eq!(counts.concealed, 0);
    }
}

#[test]
fn what_the_next_packet_tells_of_a_lost_one_is_used() {
    let speech = spoken(0..0);
    // The lost packet's sound ends in mid-way: only what came after it can tell.
    let ending = spoken(30..75);
    let rebuilt = |packets: &[Vec<u8>]| {
        let mut blocks = even(packets);
        blocks.remove(30);
        loudest(&hear(&blocks, 1_500).0, 612..616)
    };
    let (goes_on, ends) = (rebuilt(&speech), rebuilt(&ending));
    assert!(goes_on > 0.25 && ends < 0.5 * goes_on, "{goes_on} and {ends}");
}

#[test]
fn a_sender_that_says_nothing_is_silent() {
    // Half a second of sound, then DTX: after some frames packets of a byte or two, or none at all.
    let packets = spoken(25..75);
    let quiet = packets.iter().skip(25).position(|packet| packet.len() <= DTX_BYTES).expect("DTX begins") + 25;
    let mut blocks = even(&packets);
    blocks.retain(|(at, packet)| *at < i64::try_from(quiet * 20).unwrap() || packet.len() <= DTX_BYTES);
    let (heard, _) = hear(&blocks, 1_500);
    assert!(loudest(&heard, 100..480) > 0.3);
    assert!(heard[(quiet * 20 + 20) * 48..1_450 * 48].iter().all(|sample| *sample == 0.0), "true silence");
    assert!(sharpest(&heard, 100..1_450) < 12.0 * BEND);
}

#[test]
fn two_clocks_that_drift_apart_are_kept_together_without_a_click() {
    let packets = packets();
    // The same second again and again would click by itself: a whole number of waves lies in 0.5 s.
    let minute: Vec<&[u8]> = packets[10..60].iter().cycle().take(3_000).map(Vec::as_slice).collect();
    for ppm in [-1_000_i64, -100, 100, 1_000] {
        let time = |n: i64| (n * 20 * (1_000_000 + ppm)).div_euclid(1_000_000);
        let blocks: Vec<(i64, &[u8])> = (0..).map(time).zip(minute.iter().copied()).collect();
        let (heard, counts) = hear(&blocks, 59_000);
        assert_eq!((counts.set_anew, counts.concealed), (0, 0), "{ppm} ppm");
        assert!(counts.furthest <= 5 * PER_MS, "{ppm} ppm: {} samples", counts.furthest);
        let sharpest = sharpest(&heard, 2_000..58_000);
        assert!(sharpest < 4.0 * BEND, "{ppm} ppm: {sharpest}");
    }
}

#[test]
fn a_voice_that_is_corrected_by_more_than_a_stretch_is_set_anew_without_a_click() {
    let packets = packets();
    for step in [-60_i64, -25, 25] {
        let mut blocks = even(&packets);
        // Worked in at 5 ms a packet, as the timeline does after a first packet that came late.
        let mut moved = 0;
        for (at, _) in blocks.iter_mut().skip(30) {
            if moved != step {
                moved += 5 * step.signum();
            }
            *at += moved;
        }
        let (heard, counts) = hear(&blocks, 1_400);
        assert!(counts.set_anew >= 1 && counts.set_anew <= 4, "{step} ms: {counts:?}");
        assert!(counts.furthest <= FURTHEST, "{step} ms: {counts:?}");
        // Two phases of a tone are blended over 5 ms.
        assert!(sharpest(&heard, 100..1_200) < 40.0 * BEND, "{step} ms: {}", sharpest(&heard, 100..1_200));
    }
}

#[test]
fn packets_that_no_decoder_takes_are_gaps() {
    let packets = packets();
    let mut blocks = even(&packets);
    let bad: [&[u8]; 3] = [&[], &[0xff; 2], &[0x03, 0x3f]];
    for (n, bad) in bad.iter().enumerate() {
        blocks[20 + 10 * n].1 = bad;
    }
    let (heard, counts) = hear(&blocks, 1_500);
    assert_eq!((counts.unreadable, counts.packets), (3, 72));
    assert!((20..50).step_by(10).all(|n| loudest(&heard, n * 20 + 2..n * 20 + 18) > 0.25), "and concealed");
}

#[test]
fn a_sum_too_loud_is_turned_down_in_time_and_up_again_slowly() {
    let mut limiter = Limiter::new();
    limiter.prime(&[]);
    let wave = |n: usize, loud: f64| (loud * (TAU * 1_000.0 * n as f64 / 48_000.0).sin()) as f32;
    let mut out = Vec::new();
    for frame in 0..200 {
        // Quiet, then three people at once, then quiet again.
        let loud = if (50..100).contains(&frame) { 2.7 } else { 0.2 };
        let mut sum: [f32; FRAME] = std::array::from_fn(|i| wave(frame * FRAME + i, loud));
        limiter.limit(&mut sum);
        out.extend(sum);
    }
    assert!(out.iter().all(|sample| sample.abs() <= CEILING + 1e-6), "never above the ceiling");
    let level = |ms: usize| loudest(&out, ms..ms + 10);
    assert!((level(900) - 0.2).abs() < 0.001, "untouched while it is quiet enough");
    assert!((level(1_500) - CEILING).abs() < 0.01, "as loud as may be");
    let back: Vec<f32> = [2_020, 2_200, 2_500, 3_500].into_iter().map(level).collect();
    assert!(back.is_sorted() && back[0] < 0.1 && back[3] > 0.19, "{back:?}");
    // The gain never jumps. (The wave itself does, where it becomes loud and where it becomes quiet.)
    for ms in [900..1_004, 1_006..2_004, 2_006..3_990] {
        let sharpest = sharpest(&out, ms.clone());
        assert!(sharpest < 1.5 * CEILING * 0.017_2, "{ms:?}: {sharpest}");
    }
}
