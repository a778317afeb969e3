//! What to do: how many rooms of which kind, for how long, who comes and goes, and what counts as failed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use jiff::SignedDuration;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::appointment::Profile;
use crate::client::ClientError;
use crate::crowd::{Crowd, CrowdOptions, CrowdReport, Probe};
use crate::delay::Delays;
use crate::flow::Flows;
use crate::janus::Janus;
use crate::light::{Light, process_cpu_ns};
use crate::live::{Display, Meters, Sources};
use crate::media::{Film, FilmError, Voice};
use crate::network::NetworkOptions;
use crate::report::{Limits, Report, RunFigures};
use crate::room::{Evidence, Run, hold_room};
use crate::script::Script;
use crate::server::{Process, Source, Watch};
use crate::target::{Server, Target};
use crate::verify::Verifier;

/// Rooms of WebRTC clients with real Opus and VP8.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(group(ArgGroup::new("figures").args(["metrics_key", "server_pid"]).multiple(true)))]
pub struct Plan {
    /// Whose server it is. `loadtest/janus` installs and starts Janus.
    #[arg(long, value_enum, default_value_t, help_heading = "Server")]
    pub target: Target,
    /// The server, plain HTTP; Janus's API has a path, too: `http://127.0.0.1:8088/janus`, its default.
    #[arg(
        long,
        default_value_if("target", "janus", "http://127.0.0.1:8088/janus"),
        default_value = "http://127.0.0.1:8080",
        help_heading = "Server"
    )]
    pub url: String,
    /// API key with the scope `booking`.
    #[arg(
        long,
        env = "SPORTELLO_BOOKING_KEY",
        hide_env_values = true,
        required_unless_present = "target",
        required_if_eq("target", "sportello"),
        help_heading = "Server"
    )]
    pub booking_key: Option<String>,
    /// API key with the scope `metrics`: the server's CPU and memory are read from /metrics once a second.
    #[arg(long, env = "SPORTELLO_METRICS_KEY", hide_env_values = true, help_heading = "Server")]
    pub metrics_key: Option<String>,
    /// Process of a server on this machine, whatever its kind: its CPU and memory are read from the system once a second,
    /// and held against the packets that reach the clients. Goes with light clients, and before --metrics-key.
    #[arg(long, value_name = "PID", help_heading = "Server")]
    pub server_pid: Option<u32>,
    /// API key with the scope `compliance`, for --verify.
    #[arg(long, env = "SPORTELLO_COMPLIANCE_KEY", hide_env_values = true, help_heading = "Server")]
    pub compliance_key: Option<String>,
    /// Rooms to hold at the same time. Everyone joins from this machine's address: for more than 40 rooms raise the
    /// server's `http.join_burst` and `http.join_per_minute`, one join a person.
    #[arg(long, default_value_t = 1, help_heading = "Rooms")]
    pub rooms: u32,
    /// Kind of service that the rooms are of.
    #[arg(long, value_enum, default_value_t, help_heading = "Rooms")]
    pub profile: Profile,
    /// How long each room's media flows, from when everyone in it is connected, e.g. 20s or 5m.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration, help_heading = "Rooms")]
    pub duration: Duration,
    /// Over how long the rooms begin, evenly; 200ms for each, if it is left out. All are up at once if it is shorter than
    /// --duration.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Rooms")]
    pub ramp: Option<Duration>,
    /// VP8 in IVF that every camera plays in a loop, instead of the four seconds of 320x180 that are built in.
    /// Made by e.g. `ffmpeg -f lavfi -i testsrc2=s=640x360:r=25:d=4 -c:v libvpx -b:v 600k -auto-alt-ref 0 -g 1000 x.ivf`.
    #[arg(long, value_name = "FILE", help_heading = "Rooms")]
    pub vp8: Option<PathBuf>,
    /// Light clients: one thread drives everyone's media, so that one core can load another. What comes is counted and
    /// timed by its plain header, only voices are decrypted. They ask for no repairs, give none, and send no feedback on
    /// what they receive. Before Janus there are no others.
    #[arg(long, default_value_if("target", "janus", "true"), help_heading = "Rooms")]
    pub light: bool,
    /// Everyone's microphone and camera stay off: what rooms cost in which nobody sends.
    #[arg(long, help_heading = "Rooms", conflicts_with_all = ["verify", "churn", "reconnect", "absence"])]
    pub idle: bool,
    /// Who goes and comes back.
    #[command(flatten)]
    pub script: Script,
    /// What happens to datagrams.
    #[command(flatten)]
    pub network: NetworkOptions,
    /// Those who are not in the rooms.
    #[command(flatten)]
    pub crowd: CrowdOptions,
    /// Numbers everything that is sent, waits for the sealed packages when the rooms are over, reads the recordings over
    /// the API, and looks for each frame and packet in them: one that is missing without a gap that the recording itself
    /// lists is a missed limit. Takes some 100 bytes of memory for each frame and packet sent.
    #[arg(long, requires = "compliance_key", help_heading = "Recordings")]
    pub verify: bool,
    /// Longest time from a room's conclusion until its package is sealed, with --verify.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, help_heading = "Recordings")]
    pub max_sealing: Duration,
    /// When the run counts as failed.
    #[command(flatten)]
    pub limits: Limits,
    /// Writes the report as a page of its own, too.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Prints JSON instead of a table.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Shows nothing while it runs: otherwise a bar and a live table, or, where standard error is no terminal, a line
    /// every five seconds.
    #[arg(long, help_heading = "Output")]
    pub quiet: bool,
}

/// Why the run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The film cannot be played.
    #[error("the film: {0}")]
    Film(#[from] FilmError),
    /// The thread of the light clients cannot be started.
    #[error("light clients: {0}")]
    Light(std::io::Error),
    /// The process that is to be watched is not there, or not to be read.
    #[error("the server's process {0}: {1}")]
    Process(u32, std::io::Error),
    /// Options that exclude each other.
    #[error("{0}")]
    Unfit(&'static str),
    /// The tones of the voices cannot be encoded.
    #[error("opus: {0}")]
    Opus(#[from] opus::Error),
    /// The page cannot be written.
    #[error("the report: {0}")]
    Page(#[from] std::io::Error),
    /// What people are to do does not fit into the run.
    #[error("{0}")]
    Script(String),
    /// Not everyone who was to be around the rooms came.
    #[error("around the rooms: {0}\n(429: raise the server's http.join_burst and http.join_per_minute)")]
    Crowd(ClientError),
}

impl Plan {
    /// The film of `--vp8`, or the built-in one.
    fn film(&self) -> Result<Film, PlanError> {
        Ok(match &self.vp8 {
            Some(file) => Film::read(file)?,
            None => Film::built_in()?,
        })
    }

    /// Asked for wherever one is needed.
    fn booking_key(&self) -> String {
        self.booking_key.clone().unwrap_or_default()
    }

    fn server(&self) -> Server {
        match self.target {
            Target::Sportello => Server::Sportello { api: Api::new(&self.url), booking_key: self.booking_key() },
            Target::Janus => Server::Janus(Janus::new(&self.url)),
        }
    }

    /// Before Janus only what it has, too.
    fn check_target(&self) -> Result<(), PlanError> {
        if self.target == Target::Sportello {
            return Ok(());
        }
        let around = self.crowd.booked > 0 || self.crowd.waiting > 0 || self.api_rate().is_some();
        let unfit = match () {
            () if self.script.is_any() => "--churn, --absence and --reconnect: Janus has no place to come back to",
            () if around => "--booked, --waiting and the probe of the API are for our own server",
            () if self.verify => "--verify: what Janus records is no recording that could be verified",
            () => return Ok(()),
        };
        Err(PlanError::Unfit(unfit))
    }

    /// Where the server's figures come from, if from anywhere.
    fn source(&self, light: Option<&Light>, flows: &Arc<Flows>) -> Result<Option<Source>, PlanError> {
        let api = || Api::new(&self.url);
        let Some(pid) = self.server_pid else {
            let key = self.metrics_key.clone().filter(|_| self.target == Target::Sportello);
            return Ok(key.map(|key| Source::Metrics(api(), key)));
        };
        let light = light.ok_or(PlanError::Unfit("--server-pid goes with --light, which counts what comes"))?.clone();
        let process = Process::find(pid, light, Arc::clone(flows)).map_err(|error| PlanError::Process(pid, error))?;
        Ok(Some(Source::Process(process)))
    }

    /// Over how long the rooms begin.
    fn ramp(&self) -> Duration {
        self.ramp.unwrap_or(USUAL_STEP * self.rooms)
    }

    /// Requests that the probe makes a second, if there is to be one.
    fn api_rate(&self) -> Option<u32> {
        let wanted = self.crowd.booked > 0 || self.crowd.waiting > 0 || self.limits.api_p99.is_some();
        self.crowd.api_rate.or(wanted.then_some(USUAL_API_RATE))
    }

    /// How long appointments are booked for: the server lets nobody in after their end.
    fn booked_for(&self) -> SignedDuration {
        let lasts = SignedDuration::try_from(self.ramp() + self.duration).unwrap_or(SignedDuration::MAX);
        lasts.saturating_add(SPARE).max(SignedDuration::from_mins(self.profile.minutes()))
    }
}

/// Between the starts of two rooms. Shorter: all join at once, which is another test.
const USUAL_STEP: Duration = Duration::from_millis(200);
/// Requests a second.
const USUAL_API_RATE: u32 = 20;
/// Appointments end so long after their run, which may be late.
const SPARE: SignedDuration = SignedDuration::from_mins(15);

/// Starts the rooms one after the other, lets them run, and gathers what each saw.
///
/// # Errors
/// A film that cannot be played, a script that does not fit, a crowd that did not come, a page that cannot be written.
/// What a room met is in the report.
pub async fn run(plan: Plan) -> Result<(Arc<Plan>, Report), PlanError> {
    plan.check_target()?;
    let people = plan.profile.roles().len();
    plan.script.departures(0, people, plan.duration).map_err(PlanError::Script)?;
    let film = Arc::new(plan.film()?);
    // Each voice is a tone of its own, so that a recording tells them apart by ear and by FFT.
    let seats = 0..u16::try_from(people).unwrap_or(u16::MAX);
    let voices = seats.map(|seat| Voice::tone(500 + 450 * seat)).collect::<Result<_, _>>()?;
    let light = if plan.light { Some(Light::start().map_err(PlanError::Light)?) } else { None };
    let plan = Arc::new(plan);
    let api = Api::new(&plan.url);
    let (delays, meters) = (Arc::<Delays>::default(), Arc::<Meters>::default());
    meters.rooms.wanted.add(plan.rooms.into());
    let flows = Arc::new(Flows::new(plan.rooms, Arc::clone(&delays)));
    let watch = plan.source(light.as_ref(), &flows)?.map(|source| Arc::new(Watch::begin(source)));
    let sources = Sources { meters: Arc::clone(&meters), delays: Arc::clone(&delays), server: watch.clone() };
    let display = (!plan.quiet).then(|| Display::begin(sources));

    let (key, booked_for) = (plan.booking_key(), plan.booked_for());
    let crowd = Crowd::gather(&api, &key, (plan.profile, &plan.crowd), booked_for, &meters);
    let crowd = crowd.await.map_err(PlanError::Crowd)?;

    let (began, cpu) = (Instant::now(), process_cpu_ns());
    meters.begin_timed("rooms", plan.ramp() + plan.duration);
    let run = Arc::new(Run {
        plan: Arc::clone(&plan),
        server: plan.server(),
        film,
        voices,
        delays: Arc::clone(&delays),
        light: light.clone(),
        meters: Arc::clone(&meters),
        flows: Arc::clone(&flows),
        booked_for,
    });
    let probe = async {
        let Some(rate) = plan.api_rate() else { return Ok(None) };
        let profile = plan.profile;
        Probe { api: api.clone(), key, profile, rate, meters: Arc::clone(&meters) }.run(&crowd).await.map(Some)
    };
    let ((mut report, evidence), probe) = tokio::join!(hold_all(&run), probe);
    let crowd = CrowdReport {
        booked: plan.crowd.booked,
        waiting: plan.crowd.waiting,
        still_waiting: crowd.still_waiting(),
        probe: probe.map_err(PlanError::Crowd)?,
    };
    let spent = (process_cpu_ns() - cpu, began.elapsed());
    if let Some(key) = plan.compliance_key.as_deref().filter(|_| plan.verify) {
        let verifier = Verifier { api: &api, key, patience: plan.max_sealing, meters: &meters };
        report.verify = Some(verifier.verify(evidence).await);
    }
    drop(display);
    report.target = plan.target;
    report.delays_all_up = flows.delays();
    report.run = RunFigures::of(&plan, plan.ramp(), spent.1);
    report.crowd = crowd;
    report.sum_up(delays.figures(), watch.as_ref().map(|watch| watch.figures()));
    report.count_cost(spent.0, spent.1, light.as_ref().map(Light::figures));
    if let Some(file) = &plan.html {
        std::fs::write(file, report.html())?;
    }
    Ok((plan, report))
}

/// Holds all rooms, which begin one after the other.
async fn hold_all(run: &Arc<Run>) -> (Report, Vec<Evidence>) {
    let (mut rooms, began) = (JoinSet::new(), Instant::now());
    let (plan, mut report, mut evidence) = (&run.plan, Report::default(), Vec::new());
    for number in 0..plan.rooms {
        tokio::time::sleep_until((began + plan.ramp() * number / plan.rooms.max(1)).into()).await;
        let run = Arc::clone(run);
        rooms.spawn(async move { hold_room(number, &run).await });
    }
    while let Some(room) = rooms.join_next().await {
        match room {
            Ok(Ok((room, left))) => {
                report.add(Ok(room));
                evidence.push(left);
            }
            Ok(Err(error)) => report.add(Err(error)),
            Err(error) => report.add(Err(format!("a room's task ended early: {error}"))),
        }
    }
    evidence.sort_by_key(|left| left.number);
    (report, evidence)
}

/// `250ms`, `20s`, `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or("give a unit: ms, s or m")?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    let per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("unknown unit {unit:?}: ms, s or m")),
    };
    // Longer than a month is a slip of the finger, and would overflow sums.
    let ms = number.checked_mul(per_unit).filter(|ms| *ms <= 30 * 24 * 3_600_000).ok_or("too long")?;
    Ok(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_its_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert!(duration("20").is_err(), "a bare number says no unit");
        assert!(duration("20h").is_err(), "hours are not known");
        assert!(
            duration("").is_err() && duration("99999999999999999999s").is_err() && duration("99999999999m").is_err()
        );
    }
}
