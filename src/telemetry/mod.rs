//! What the node tells those who run it: the log and the metrics. Never names, codes, tokens or keys.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Upper bounds of the duration histograms, seconds. More bounds cost a time series each, per route.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// How often histograms are drained. Rarer: more memory between two scrapes; nobody sees a difference otherwise.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why the log or the metrics could not be set up. The configuration's or the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not written in tracing's language.
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process already has a logger or a recorder that is not ours.
    #[error("already set up: {0}")]
    AlreadySet(String),
}

/// Sends the log to standard error, as configured. Once per process.
///
/// # Errors
/// A wrong filter, or a second call.
pub fn start_log(log: &Log) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init(),
        LogFormat::Json => lines.json().finish().try_init(),
    };
    started.map_err(|error| Error::AlreadySet(error.to_string()))
}

/// The node's metrics, as Prometheus reads them. Clones read the same.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// The process's metrics; starts to gather them at the first call.
    ///
    /// # Errors
    /// Another recorder is already at work in this process.
    pub fn install() -> Result<Self, Error> {
        // The `metrics` crate has one recorder per process; tests start several nodes in one.
        static INSTALLED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
        let handle = INSTALLED.get_or_init(|| {
            PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
                .and_then(PrometheusBuilder::install_recorder)
                .map_err(|error| error.to_string())
        });
        handle.clone().map(Self).map_err(Error::AlreadySet)
    }

    /// All metrics in Prometheus' text format, and what the process takes of the machine.
    pub fn render(&self) -> String {
        let mut text = self.0.render();
        // Prometheus' own names for them. A counter of whole numbers would lose most of a second.
        if let Some(cpu) = cpu_seconds() {
            let _ = write!(
                text,
                "# HELP process_cpu_seconds_total CPU time of all threads, user and system\n\
                 # TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {cpu:.3}\n"
            );
        }
        if let Some(memory) = resident_bytes() {
            let _ = write!(
                text,
                "# HELP process_resident_memory_bytes Memory in use\n\
                 # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {memory}\n"
            );
        }
        text
    }

    /// Keeps histograms small; runs until it is dropped.
    pub async fn upkeep(self) {
        let mut interval = tokio::time::interval(UPKEEP);
        loop {
            interval.tick().await;
            self.0.run_upkeep();
        }
    }
}

fn cpu_seconds() -> Option<f64> {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(spent).ok().map(|spent| spent.as_secs_f64())
}

/// `None` where there is no `/proc`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}
