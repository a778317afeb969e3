//! What a packet costs: SRTP alone, the way from one camera to two receivers (and that nothing is allocated on it), and a
//! worker's loop with real sockets, held against the floor: the same datagrams received, opened, sealed twice and sent
//! with GSO, with no logic. The ratio of the two is printed; both are measured in turns, since machines drift.

#![allow(unsafe_code, reason = "a global allocator that counts is unsafe to declare; it passes everything on")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench fails loudly and prints its figures"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sportello::clock::Clock;
use sportello::rtp::Ssrc;
use sportello::rtp::sequence::Window;
use sportello::rtp::srtp::{Profile, contexts};
use sportello::sfu::laps::{Floor, Laps, Spent};
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
                let mut spent = Duration::ZERO;
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

/// Once everything has its size, only a new piece of payload memory and a block of the tap's queue are allocated now and
/// then, for some thirty to sixty packets each.
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
    // A piece is its bytes and a count of who holds them.
    assert!(allocations <= 3 * pieces + PACKETS / 30, "something is allocated for every packet");
}

/// Rooms of three, everyone with voice and picture; one iteration is a tenth of a second of everyone's media.
fn worker_loop(c: &mut Criterion) {
    let mut group = c.benchmark_group("worker loop");
    group.sample_size(20);
    for rooms in [1, 30, 300] {
        let (mut laps, mut floor) = (Laps::new(rooms, Clock::new()).unwrap(), Floor::new(rooms, Clock::new()).unwrap());
        compare(rooms, &mut laps, &mut floor);
        group.throughput(Throughput::Elements(arrivals(rooms)));
        group.bench_function(format!("{rooms} rooms"), |b| b.iter_custom(|cycles| spent(cycles, || laps.run()).time));
        group.bench_function(format!("{rooms} rooms, floor"), |b| {
            b.iter_custom(|cycles| spent(cycles, || floor.run()).time);
        });
    }
}

/// Datagrams of media that arrive in one cycle: 12 of each of three people, at two others.
fn arrivals(rooms: usize) -> u64 {
    u64::try_from(rooms).unwrap() * 3 * 12 * 2
}

fn spent(cycles: u64, mut run: impl FnMut() -> Spent) -> Spent {
    let mut whole = Spent::default();
    for _ in 0..cycles {
        let some = run();
        whole.arrived += some.arrived;
        whole.time += some.time;
    }
    whole
}

/// Prints what a packet out costs in the loop and on the floor: the medians of eleven pairs of runs.
fn compare(rooms: usize, laps: &mut Laps, floor: &mut Floor) {
    let cycles = u64::try_from(600_usize.div_ceil(rooms)).unwrap();
    let per_packet = |spent: Spent| {
        assert!(spent.arrived * 1_000 >= cycles * arrivals(rooms) * 999, "{} packets arrived", spent.arrived);
        spent.time.as_secs_f64() * 1e6 / f64::from(u32::try_from(spent.arrived).unwrap())
    };
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    spent(cycles, || laps.run());
    spent(cycles, || floor.run());
    for _ in 0..11 {
        pairs.push((per_packet(spent(cycles, || laps.run())), per_packet(spent(cycles, || floor.run()))));
    }
    let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = pairs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!(
        "{rooms} rooms: {:.2} us per packet out, floor {:.2} us, ratio {:.2}",
        median(&|pair| pair.0),
        median(&|pair| pair.1),
        median(&|pair| pair.0 / pair.1),
    );
}

criterion_group!(benches, srtp, forward, worker_loop);
criterion_main!(benches);
