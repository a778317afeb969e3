//! What to do: how many rooms, for how long, what counts as failed; and one room from booking to conclusion.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::client::{Client, ClientError, Devices, Habits};
use crate::delay::Delays;
use crate::flow::Flows;
use crate::janus::Janus;
use crate::light::{Light, process_cpu_ns};
use crate::media::{Film, FilmError, Voice};
use crate::report::{ClientReport, Limits, Report, RoomReport};
use crate::server::{Process, Source, Watch};
use crate::target::{Person, Server, Target};

/// Rooms of three WebRTC clients with real Opus and VP8.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("figures").args(["metrics_key", "server_pid"]).multiple(true)))]
pub struct Plan {
    /// Whose server it is. `loadtest/janus` installs and starts Janus.
    #[arg(long, value_enum, default_value_t)]
    pub target: Target,
    /// The server, plain HTTP; Janus's API has a path, too: `http://127.0.0.1:8088/janus`, its default.
    #[arg(
        long,
        default_value_if("target", "janus", "http://127.0.0.1:8088/janus"),
        default_value = "http://127.0.0.1:8080"
    )]
    pub url: String,
    /// API key with the scope `booking`.
    #[arg(
        long,
        env = "SPORTELLO_BOOKING_KEY",
        hide_env_values = true,
        required_unless_present = "target",
        required_if_eq("target", "sportello")
    )]
    pub booking_key: Option<String>,
    /// Rooms to hold at the same time. Everyone joins from this machine's address: for more than 40 rooms raise the
    /// server's `http.join_burst` and `http.join_per_minute`, three joins a room.
    #[arg(long, default_value_t = 1)]
    pub rooms: u32,
    /// How long each room's media flows, e.g. 20s or 5m.
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub duration: Duration,
    /// Pause between two rooms' starts.
    #[arg(long, default_value = "200ms", value_parser = duration)]
    pub stagger: Duration,
    /// After so much of it the network of each room's second person is gone; they come back three seconds later. What
    /// the others miss meanwhile counts as lost: raise --max-loss.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub drop_after: Option<Duration>,
    /// VP8 in IVF that every camera plays in a loop, instead of the four seconds of 320x180 that are built in.
    /// Made by e.g. `ffmpeg -f lavfi -i testsrc2=s=640x360:r=25:d=4 -c:v libvpx -b:v 600k -auto-alt-ref 0 -g 1000 x.ivf`.
    #[arg(long, value_name = "FILE")]
    pub vp8: Option<std::path::PathBuf>,
    /// Light clients: one thread drives everyone's media, so that one core can load another. What comes is counted, only
    /// voices are decrypted. They ask for no repairs, give none, and send no feedback on what they receive. Before Janus
    /// there are no others.
    #[arg(long, default_value_if("target", "janus", "true"))]
    pub light: bool,
    /// API key with the scope `metrics`: the server's CPU and memory are read from /metrics once a second.
    #[arg(long, env = "SPORTELLO_METRICS_KEY", hide_env_values = true)]
    pub metrics_key: Option<String>,
    /// Process of a server on this machine, whatever its kind: its CPU and memory are read from the system once a second,
    /// and held against the packets that reach the clients. Goes with light clients, and before --metrics-key.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Writes the report as a page of its own, too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<std::path::PathBuf>,
    /// Prints JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// When the run counts as failed.
    #[command(flatten)]
    pub limits: Limits,
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
}

impl Plan {
    /// The film of `--vp8`, or the built-in one.
    fn film(&self) -> Result<Film, PlanError> {
        Ok(match &self.vp8 {
            Some(file) => Film::read(file)?,
            None => Film::built_in()?,
        })
    }

    fn server(&self) -> Server {
        match self.target {
            Target::Sportello => Server::Sportello {
                api: Api::new(&self.url),
                booking_key: self.booking_key.clone().unwrap_or_default(),
            },
            Target::Janus => Server::Janus(Janus::new(&self.url)),
        }
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
}

/// After this the room runs without those who did not get through. Longer than any threshold of interest, short
/// enough that a dead server ends the run soon.
const LONGEST_CONNECT: Duration = Duration::from_secs(15);
/// How long who lost the network is away: longer than a hiccup, shorter than the grace.
const AWAY: Duration = Duration::from_secs(3);
/// Voices and pictures of the two others.
const SOURCES_EXPECTED: usize = 4;
/// People in a room.
const PEOPLE: u16 = 3;

/// What all rooms of a run share.
struct Run {
    plan: Arc<Plan>,
    server: Server,
    film: Arc<Film>,
    /// By seat.
    voices: Vec<Voice>,
    habits: Habits,
    flows: Arc<Flows>,
}

/// Starts the rooms one after the other, lets them run, and gathers what each saw.
///
/// # Errors
/// A film that cannot be played, a page that cannot be written. What a room met is in the report.
pub async fn run(plan: Plan) -> Result<(Arc<Plan>, Report), PlanError> {
    if plan.target == Target::Janus && plan.drop_after.is_some() {
        return Err(PlanError::Unfit("--drop-after is for our own server: Janus has no place to come back to"));
    }
    let film = Arc::new(plan.film()?);
    // Each voice is a tone of its own, so that a recording tells them apart by ear and by FFT.
    let voices = (0..PEOPLE).map(|seat| Voice::tone(500 + 450 * seat)).collect::<Result<_, _>>()?;
    let light = if plan.light { Some(Light::start().map_err(PlanError::Light)?) } else { None };
    let plan = Arc::new(plan);
    let delays = Arc::<Delays>::default();
    let (began, cpu) = (Instant::now(), process_cpu_ns());
    let flows = Arc::new(Flows::new(plan.rooms, Arc::clone(&delays)));
    let watch = plan.source(light.as_ref(), &flows)?.map(Watch::begin);
    let habits = Habits { delays: Some(Arc::clone(&delays)), light: light.clone(), ..Habits::default() };
    let run = Arc::new(Run {
        plan: Arc::clone(&plan),
        server: plan.server(),
        film,
        voices,
        habits,
        flows: Arc::clone(&flows),
    });
    let mut rooms = JoinSet::new();
    for number in 0..plan.rooms {
        let run = Arc::clone(&run);
        rooms.spawn(async move { hold_room(number, &run).await });
        tokio::time::sleep(plan.stagger).await;
    }
    let mut report = Report { target: plan.target, ..Report::default() };
    while let Some(room) = rooms.join_next().await {
        match room {
            Ok(outcome) => report.add(outcome),
            Err(error) => report.add(Err(format!("a room's task ended early: {error}"))),
        }
    }
    report.sum_up(delays.figures(), watch.as_ref().map(Watch::figures));
    report.delays_all_up = flows.delays();
    report.count_cost(process_cpu_ns() - cpu, began.elapsed(), light.as_ref().map(Light::figures));
    if let Some(file) = &plan.html {
        std::fs::write(file, report.html())?;
    }
    Ok((plan, report))
}

/// One room: booked, joined, opened, everyone admitted, held for the plan's duration, concluded.
async fn hold_room(number: u32, run: &Run) -> Result<RoomReport, String> {
    hold(number, run).await.map_err(|error| format!("room {number}: {error}"))
}

async fn hold(number: u32, run: &Run) -> Result<RoomReport, ClientError> {
    let Run { plan, server, film, voices, habits, flows } = run;
    let began = Instant::now();
    let meeting = server.begin_meeting(number).await?;
    let join = async |(seat, voice): (usize, &Voice)| {
        meeting.join(seat, Person { film: Arc::clone(film), voice: voice.clone(), began, habits: habits.clone() }).await
    };
    let mut clients = Vec::new();
    for seat in voices.iter().enumerate() {
        clients.push(join(seat).await?);
    }
    // The duration is that of a whole room: it counts from when all are connected, or from the patience's end.
    let all = async {
        for client in &mut clients {
            client.connected().await;
        }
    };
    let _ = tokio::time::timeout(LONGEST_CONNECT, all).await;
    let flow = flows.begin();
    let dropped = plan.drop_after.zip(voices.get(1)).zip(clients.get_mut(1));
    if let Some(((after, voice), client)) = dropped {
        tokio::time::sleep(after).await;
        client.lose_network();
        tokio::time::sleep(AWAY).await;
        *client = join((1, voice)).await?;
        tokio::time::sleep(plan.duration.saturating_sub(after + AWAY)).await;
    } else {
        tokio::time::sleep(plan.duration).await;
    }
    drop(flow);
    // Nobody sends while the figures are taken, so that what is still under way is not counted as lost.
    for client in &clients {
        client.switch(Devices::OFF);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut room = RoomReport::new(number);
    // All at once: whoever is left behind is told that the others' places are empty, and counts them no more.
    for seen in join_all(clients.into_iter().map(Client::leave)).await {
        let seen = seen?;
        room.clients.push(ClientReport { sources_expected: SOURCES_EXPECTED, ..seen });
    }
    meeting.conclude().await?;
    Ok(room)
}

/// `250ms`, `20s`, `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or("give a unit: ms, s or m")?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("unknown unit {unit:?}: ms, s or m")),
    }
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
    }
}
