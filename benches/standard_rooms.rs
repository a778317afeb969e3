//! What a packet out costs at the pace of a meeting, everything recorded, encrypted and synced: the worker and the recorder
//! as they are, beside the floor, the same datagrams received, opened, sealed twice and sent with no logic and no recording
//! in the same kind of loop. Both in turns, in one run; CPU of all their threads, user and system.
//!
//! The server's side has the first core, the crowd the second. `cargo bench --bench standard_rooms -- 20 50`: with so many
//! rooms; `SECONDS=5 PAIRS=5` are the length of a stretch and how many there are of each.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and prints its figures")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use sportello::clock::Clock;
use sportello::recording::{Need, Recorder, RecorderConfig, SpaceConfig};
use sportello::sfu::laps::{Floor, Laps, Paced};
use sportello::vault::SessionKey;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

/// The server's own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SERVER_CORE: usize = 0;
const CROWD_CORE: usize = 1;

fn main() {
    let rooms: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let rooms = if rooms.is_empty() { vec![10, 20, 50] } else { rooms };
    let (length, pairs) = (Duration::from_secs(setting("SECONDS", 5)), setting("PAIRS", 5));
    println!(
        "rooms   worker and recorder    floor    ratio   (us of CPU for each packet out, medians of {pairs} pairs)"
    );
    for rooms in rooms {
        let (ours, floor, ratio) = compare(rooms, length, pairs);
        println!("{rooms:5}   {ours:19.2}   {floor:6.2}   {ratio:6.2}");
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn compare(rooms: usize, length: Duration, pairs: u64) -> (f64, f64, f64) {
    // Threads that are made from here on inherit the core.
    run_on(SERVER_CORE);
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::new();
    let (mut ours, recorded) = Laps::new(rooms, clock).unwrap().paced().unwrap();
    let space = SpaceConfig { bytes_per_second: 100_000, floor: 0 };
    let config = RecorderConfig { folders: vec![folder.path().to_owned()], threads: 2, space };
    let recorder = Recorder::start(config, clock).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut facts = Vec::new();
    for room in recorded {
        let need = Need { people: 3, lasts: Duration::from_secs(30) };
        runtime.block_on(recorder.reserve(room.room, need)).unwrap();
        let (tell, told) = mpsc::channel(4_096);
        let key = Arc::new(SessionKey::generate().unwrap());
        recorder.open_room(room.room, Some(key), room.tap, tell);
        for (seat, connection) in room.connections.into_iter().enumerate() {
            recorder.open_original(room.room, connection, format!("person{seat}"));
        }
        facts.push(told);
    }
    let mut floor = Floor::new(rooms, clock).unwrap().paced().unwrap();
    run_on(CROWD_CORE);
    thread::sleep(Duration::from_millis(500));

    // The first seconds make files.
    ours.run(Duration::from_secs(3));
    floor.run(Duration::from_secs(1));
    let figures: Vec<(f64, f64)> =
        (0..pairs).map(|_| (stretch(rooms, &mut ours, length), stretch(rooms, &mut floor, length))).collect();
    let median = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = figures.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    (median(&|pair| pair.0), median(&|pair| pair.1), median(&|pair| pair.0 / pair.1))
}

/// Microseconds of CPU for each datagram that arrived.
fn stretch(rooms: usize, server: &mut Paced, time: Duration) -> f64 {
    let (whole, own) = (cpu(ClockId::ProcessCPUTime), cpu(ClockId::ThreadCPUTime));
    let arrived = server.run(time);
    let spent = cpu(ClockId::ProcessCPUTime) - whole - (cpu(ClockId::ThreadCPUTime) - own);
    // 12 datagrams of each of three people in a tenth of a second, at two others.
    let sent = u64::try_from(rooms).unwrap() * 3 * 12 * 2 * (u64::try_from(time.as_millis()).unwrap() / 100);
    assert!(arrived * 1_000 >= sent * 999, "{arrived} of {sent} datagrams arrived");
    spent * 1e6 / f64::from(u32::try_from(arrived).unwrap())
}

/// Seconds.
fn cpu(clock: ClockId) -> f64 {
    Duration::try_from(clock_gettime(clock)).unwrap().as_secs_f64()
}

fn run_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).unwrap();
}
