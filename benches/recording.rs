//! What the recorder does with a second of a person's media: the tap, the WebM cluster, its line in the chain.

#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a bench fails loudly")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use sportello::clock::MonoTime;
use sportello::id::ConnectionId;
use sportello::media::Source;
use sportello::recording::measure::{Pieces, Second};
use sportello::rtp::{Codec, Extensions, Packet, Ssrc, Tapped, tap};

/// Frames of a camera in a second, and bytes of each: about 600 kbit/s.
const FRAMES: usize = 30;
const FRAME: usize = 2_500;

/// Packets of voice in a second, and bytes of each.
const VOICES: usize = 50;
const VOICE: usize = 80;

fn cluster(c: &mut Criterion) {
    let second = Second::new(FRAMES, FRAME, VOICES, VOICE);
    let bytes = second.cluster().unwrap();
    let mut group = c.benchmark_group("a second of a person");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("WebM cluster", |b| b.iter(|| black_box(second.cluster().unwrap())));
    let mut pieces = Pieces::default();
    group.bench_function("line of the chain", |b| b.iter(|| black_box(pieces.add(&bytes).unwrap())));
}

fn through_the_tap(c: &mut Criterion) {
    let (sender, reader) = tap();
    let connection = ConnectionId::new(Timestamp::UNIX_EPOCH);
    let packet = Packet {
        ssrc: Ssrc(1),
        codec: Codec::Vp8,
        sequence: 1,
        timestamp: 1,
        marker: true,
        arrival: MonoTime::from_millis(1),
        extensions: Extensions::default(),
        payload: Bytes::from(vec![7; 1_100]),
    };
    let mut group = c.benchmark_group("tap");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a packet in and out", |b| {
        b.iter(|| {
            sender.push(Tapped::Packet { connection, source: Source::Camera, packet: packet.clone() }).unwrap();
            black_box(reader.take().unwrap())
        });
    });
}

criterion_group!(benches, cluster, through_the_tap);
criterion_main!(benches);
