//! What the server takes while a run lasts: by its own word in `/metrics`, or by the system's of any process.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::flow::Flows;
use crate::light::Light;

/// Time between two looks. Shorter loads the server with its own measurement.
const INTERVAL: Duration = Duration::from_secs(1);

/// One look.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Look {
    /// Seconds since the run's beginning.
    pub at: f64,
    /// CPU seconds of the process, user and system, all threads.
    pub cpu: f64,
    /// Bytes of memory in use.
    pub memory: f64,
    /// Media packets sent on so far.
    pub forwarded: f64,
    /// Rooms on the workers, or rooms whose media flows.
    pub rooms: f64,
}

/// What the server's figures come to while all rooms are up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerFigures {
    /// Cores in use, on average.
    pub cores: f64,
    /// Microseconds of CPU for each packet sent on.
    pub cpu_us_per_packet: f64,
    /// Packets sent on in a second.
    pub packets_per_second: f64,
    /// Most memory in use, MiB.
    pub memory_mib: f64,
    /// What it is more than at the first look for each room, MiB.
    pub memory_mib_per_room: f64,
    /// Every look.
    pub looks: Vec<Look>,
}

/// Where looks come from.
pub(crate) enum Source {
    /// The server's `/metrics`, with this key.
    Metrics(Api, String),
    /// The system.
    Process(Process),
}

impl Source {
    async fn look(&self, at: f64) -> Result<Look, String> {
        match self {
            Self::Metrics(api, key) => Ok(look(&api.metrics(key).await.map_err(|error| error.to_string())?, at)),
            Self::Process(process) => process.look(at).map_err(|error| error.to_string()),
        }
    }
}

/// A process of this machine. What reaches the clients is what it sends on.
pub(crate) struct Process {
    pid: u32,
    light: Light,
    flows: Arc<Flows>,
}

impl Process {
    /// The process, if it can be read.
    pub(crate) fn find(pid: u32, light: Light, flows: Arc<Flows>) -> io::Result<Self> {
        let process = Self { pid, light, flows };
        process.look(0.0)?;
        Ok(process)
    }

    #[expect(clippy::cast_precision_loss, reason = "packets and bytes far below 2^53")]
    fn look(&self, at: f64) -> io::Result<Look> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid));
        let strange = || io::Error::other("a line of /proc that is not understood");
        let ticks = cpu_ticks(&read("stat")?).ok_or_else(strange)?;
        let memory = resident_kib(&read("status")?).ok_or_else(strange)? << 10;
        Ok(Look {
            at,
            cpu: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            memory: memory as f64,
            forwarded: self.light.received() as f64,
            rooms: self.flows.count().into(),
        })
    }
}

/// CPU of all threads that are and were, user and system, in clock ticks (`proc_pid_stat(5)`: `utime` and `stime`).
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name before may contain anything, spaces and parentheses, too.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    next()?.checked_add(next()?)
}

/// Resident memory (`proc_pid_status(5)`: `VmRSS`), KiB.
fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Looks until it is dropped or asked.
#[derive(Debug)]
pub(crate) struct Watch {
    looks: Arc<Mutex<Vec<Look>>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn begin(source: Source) -> Self {
        let looks = Arc::<Mutex<Vec<Look>>>::default();
        let shared = Arc::clone(&looks);
        let began = Instant::now();
        let task = tokio::spawn(async move {
            let mut interval = tokio::time::interval(INTERVAL);
            loop {
                interval.tick().await;
                match source.look(began.elapsed().as_secs_f64()).await {
                    Ok(look) => shared.lock().unwrap_or_else(PoisonError::into_inner).push(look),
                    Err(error) => tracing::warn!(%error, "no figures of the server"),
                }
            }
        });
        Self { looks, task }
    }

    /// Cores in use and MiB of memory between the last two looks.
    pub(crate) fn now(&self) -> Option<(f64, f64)> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, before) = (looks.last()?, looks.len().checked_sub(2).and_then(|n| looks.get(n))?);
        let cores = (last.cpu - before.cpu) / (last.at - before.at).max(f64::EPSILON);
        Some((cores, last.memory / f64::from(1 << 20)))
    }

    /// The figures of the time in which as many rooms were up as ever.
    pub(crate) fn figures(&self) -> ServerFigures {
        figures(self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn figures(looks: Vec<Look>) -> ServerFigures {
    let most = looks.iter().map(|look| look.rooms).fold(0.0, f64::max);
    let full: Vec<&Look> = looks.iter().filter(|look| look.rooms >= most).collect();
    let per = |what: f64, of: f64| if of > 0.0 { what / of } else { 0.0 };
    let memory_mib = looks.iter().map(|look| look.memory).fold(0.0, f64::max) / f64::from(1 << 20);
    let empty = looks.first().map_or(0.0, |look| look.memory / f64::from(1 << 20));
    let memory_mib_per_room = per(memory_mib - empty, most);
    // The first second and the last are of people who come and go.
    let (Some(first), Some(last)) = (full.get(2.min(full.len().saturating_sub(1))), full.iter().rev().nth(1)) else {
        return ServerFigures { memory_mib, memory_mib_per_room, looks, ..ServerFigures::default() };
    };
    let (time, cpu, packets) = (last.at - first.at, last.cpu - first.cpu, last.forwarded - first.forwarded);
    ServerFigures {
        cores: per(cpu, time),
        cpu_us_per_packet: per(cpu * 1e6, packets),
        packets_per_second: per(packets, time),
        memory_mib,
        memory_mib_per_room,
        looks,
    }
}

fn look(text: &str, at: f64) -> Look {
    // The workers' own series are summed.
    let sum = |name: &str| {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        text.lines().filter_map(value).sum()
    };
    Look {
        at,
        cpu: sum("process_cpu_seconds_total"),
        memory: sum("process_resident_memory_bytes"),
        forwarded: sum("sportello_packets_forwarded_total"),
        rooms: sum("sportello_worker_rooms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_sums_the_workers_and_reads_nothing_else() {
        let text = "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1.5\n\
                    sportello_packets_forwarded_total{worker=\"0\"} 40\nsportello_packets_forwarded_total{worker=\"1\"} 2\n\
                    sportello_worker_rooms_other 7\nsportello_worker_rooms{worker=\"0\"} 3\n";
        let look = look(text, 2.0);
        assert!((look.cpu, look.forwarded, look.rooms, look.memory) == (1.5, 42.0, 3.0, 0.0));
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 250 40 3 4 20 0 13 0 99 1 2";
        assert_eq!(cpu_ticks(stat), Some(290));
        assert_eq!([cpu_ticks("7 (x) S 1"), cpu_ticks("")], [None, None]);
        assert_eq!(resident_kib("VmHWM:\t  9 kB\nVmRSS:\t  2048 kB\nRssAnon:\t 1 kB\n"), Some(2_048));
        assert_eq!(resident_kib("VmRSS:\tmany\n"), None);
    }

    #[test]
    fn only_the_time_in_which_all_rooms_are_up_counts() {
        let look = |at: u32, rooms: u32, cpu: f64| Look {
            at: at.into(),
            rooms: rooms.into(),
            cpu,
            memory: f64::from(1 << 20),
            forwarded: f64::from(at) * 1_000.0,
        };
        let mut looks = vec![look(0, 1, 0.0), look(1, 2, 7.0)];
        looks.extend((2..9).map(|at| look(at, 2, 7.0 + f64::from(at) / 2.0)));
        looks.push(look(9, 0, 99.0));
        let figures = figures(looks);
        assert!((figures.cores - 0.5).abs() < 1e-9);
        assert!((figures.cpu_us_per_packet - 500.0).abs() < 1e-9);
        assert!((figures.memory_mib - 1.0).abs() < 1e-9);
        assert!(super::figures(Vec::new()).looks.is_empty());
    }
}
