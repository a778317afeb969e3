//! What a packet costs between two datagrams: SRTP alone, and the whole way from one camera to two receivers; and that
//! nothing is allocated on it.

#![allow(unsafe_code, reason = "a global allocator that counts is unsafe to declare; it passes everything on")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and prints its figures")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sportello::rtp::Ssrc;
use sportello::rtp::sequence::Window;
use sportello::rtp::srtp::{Profile, contexts};
use sportello::sfu::measure::Forwarding;

const PROFILES: [(&str, Profile, u8); 3] = [
    ("aes-256-gcm", Profile::Aes256Gcm, 88),
    ("aes-128-gcm", Profile::Aes128Gcm, 56),
    ("aes-128-cm-sha1", Profile::Aes128CmSha1, 60),
];

/// Payload of a packet of video.
const PAYLOAD: usize = 1_100;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn srtp(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp");
    group.throughput(Throughput::Elements(1));
    for (name, profile, length) in PROFILES {
        let material: Vec<u8> = (0..length).collect();
        let (_, sealer) = contexts(profile, &material, true).unwrap();
        let (opener, _) = contexts(profile, &material, false).unwrap();
        let mut plain = vec![0x80, 96, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9];
        plain.resize(12 + PAYLOAD + sealer.overhead(), 7);
        let (mut index, mut window) = (0, Window::default());
        group.bench_function(format!("seal/{name}"), |b| {
            b.iter(|| {
                index += 1;
                sealer.seal(&mut window, Ssrc(9), index, black_box(&mut plain), 12).unwrap();
            });
        });
        let mut sealed = vec![0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9];
        sealed.resize(12 + PAYLOAD + sealer.overhead(), 7);
        sealer.seal(&mut Window::default(), Ssrc(9), 1, &mut sealed, 12).unwrap();
        group.bench_function(format!("open/{name}"), |b| {
            b.iter_batched_ref(
                || sealed.clone(),
                |packet| opener.open(&mut Window::default(), Ssrc(9), 1, packet, 12).unwrap().index,
                BatchSize::SmallInput,
            );
        });
    }
}

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward to two");
    group.throughput(Throughput::Elements(2));
    for (name, profile, _) in PROFILES {
        let mut world = Forwarding::new(profile, 2).unwrap();
        count_allocations(name, &mut world);
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let mut spent = std::time::Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let some = left.min(1_000);
                    let mut datagrams: Vec<_> = (0..some).map(|_| world.datagram(PAYLOAD)).collect();
                    let begin = std::time::Instant::now();
                    for datagram in &mut datagrams {
                        black_box(world.forward(datagram));
                    }
                    spent += begin.elapsed();
                    left -= some;
                }
                spent
            });
        });
    }
}

/// Once everything has its size, only a new piece of payload memory is allocated now and then.
fn count_allocations(name: &str, world: &mut Forwarding) {
    const PACKETS: usize = 10_000;
    let run = |world: &mut Forwarding| {
        let mut datagrams: Vec<_> = (0..PACKETS).map(|_| world.datagram(PAYLOAD)).collect();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let sent: usize = datagrams.iter_mut().map(|datagram| world.forward(datagram)).sum();
        assert_eq!(sent, 2 * PACKETS);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    run(world);
    let allocations = run(world);
    let pieces = (PACKETS * PAYLOAD).div_ceil(64 << 10);
    println!(
        "{name}: {allocations} allocations for {PACKETS} packets to two receivers, {pieces} pieces of payload memory"
    );
    // A piece is its bytes and a count of who holds them; nothing grows with packets or receivers.
    assert!(allocations <= 3 * pieces, "something is allocated for every packet");
}

criterion_group!(benches, srtp, forward);
criterion_main!(benches);
