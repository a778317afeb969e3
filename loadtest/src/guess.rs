//! Somebody has a room's links and guesses its codes, from many addresses, while honest people next door type theirs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::api::{Api, ApiError, Participant};
use crate::appointment::{Appointment, Profile};
use crate::plan::duration;
use crate::timing::{Figures, Times};
use crate::wire::Line;

/// Guesses at one room's codes from many addresses, and honest people next door.
#[derive(Clone, Debug, Args)]
pub struct Guesses {
    /// The server, plain HTTP, on this machine: the guessers' addresses are loopback addresses.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// API key with the scope `booking`.
    #[arg(long, env = "SPORTELLO_BOOKING_KEY", hide_env_values = true)]
    pub booking_key: String,
    /// Codes to guess: 000000, 000001, … at each of the room's links in turn.
    #[arg(long, default_value_t = 100_000)]
    pub guesses: u32,
    /// Addresses that the guesses come from, up to 60000.
    #[arg(long, default_value_t = 2_000)]
    pub addresses: u32,
    /// How long the guessing takes; longer if the server is slower.
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = duration)]
    pub lasts: Duration,
    /// Honest people, each from an address of their own, evenly over that time.
    #[arg(long, default_value_t = 600)]
    pub honest: u32,
    /// Longest time of all but one in a hundred honest admissions.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = duration)]
    pub max_p99: Duration,
    /// Prints JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct GuessReport {
    /// The room that was guessed at.
    pub room: String,
    /// Answers to the guesses: status and kind of problem, and how often.
    pub answers: BTreeMap<String, u32>,
    /// Guesses that were admitted.
    pub got_in: u32,
    /// Honest people who were not admitted, and why.
    pub turned_away: Vec<String>,
    /// Honest admissions, from the connection's first packet to the answer.
    pub honest: Figures,
    /// How long the guessing took, seconds.
    pub seconds: f64,
}

/// Guessers at work at the same time. More: the server sees more at once, and this tool needs more of the machine.
const AT_ONCE: u32 = 16;
/// People in a room of the load tool.
const SEATS: usize = 3;

/// Guesses, and measures those who do not.
///
/// # Errors
/// The rooms could not be booked, or the server is not one on this machine.
pub async fn run(plan: &Guesses) -> Result<GuessReport, ApiError> {
    let api = Api::new(&plan.url);
    let server = plan.url.trim_start_matches("http://").trim_end_matches('/').parse();
    let server: SocketAddr = server.map_err(|_| ApiError::Answer("--url must be http://<address>:<port>"))?;
    let target = api.book(&plan.booking_key, &Appointment::now(Profile::Delega, 0)).await?;
    let mut honest = Vec::new();
    for number in 1..=plan.honest.div_ceil(3) {
        honest.extend(api.book(&plan.booking_key, &Appointment::now(Profile::Delega, number)).await?.participants);
    }
    honest.truncate(usize::try_from(plan.honest).unwrap_or(usize::MAX));

    let began = Instant::now();
    let admissions = tokio::spawn(admit_all(server, honest, began, plan.lasts));
    let next = Arc::new(AtomicU32::new(0));
    let links: Arc<[String]> = target.participants.iter().map(|person| person.join_token.clone()).collect();
    let mut guessers = JoinSet::new();
    for guesser in 0..AT_ONCE {
        let work = Work { server, plan: plan.clone(), links: Arc::clone(&links), next: Arc::clone(&next), began };
        guessers.spawn(work.guess(guesser));
    }
    let mut answers = BTreeMap::new();
    while let Some(seen) = guessers.join_next().await {
        for (answer, count) in seen.map_err(|_| ApiError::Answer("a guesser's task ended early"))? {
            *answers.entry(answer).or_default() += count;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let (times, turned_away) =
        admissions.await.map_err(|_| ApiError::Answer("the honest people's task ended early"))?;
    let got_in = answers.iter().filter(|(answer, _)| answer.starts_with('2')).map(|(_, count)| count).sum();
    Ok(GuessReport { room: target.room.id, answers, got_in, turned_away, honest: times.figures(), seconds })
}

impl GuessReport {
    /// For people.
    pub fn table(&self) -> String {
        let mut table = format!("honest admissions  {}\nguesses            in {:.1} s\n", self.honest, self.seconds);
        for (answer, count) in &self.answers {
            let _ = writeln!(table, "{count:>9}  {answer}");
        }
        table
    }

    /// Every limit that was not kept, in words.
    pub fn misses(&self, plan: &Guesses) -> Vec<String> {
        let mut misses = self.turned_away.clone();
        if self.got_in > 0 {
            misses.push(format!("{} guesses were admitted", self.got_in));
        }
        let answered: u32 = self.answers.values().sum();
        if answered < plan.guesses {
            misses.push(format!("{answered} of {} guesses were answered", plan.guesses));
        }
        if self.honest.exceed(plan.max_p99) {
            misses.push(format!("honest admissions: p99 {:.1} ms", self.honest.p99_ms));
        }
        misses
    }
}

struct Work {
    server: SocketAddr,
    plan: Guesses,
    links: Arc<[String]>,
    next: Arc<AtomicU32>,
    began: Instant,
}

impl Work {
    /// Guesses as long as there are guesses, from one address after the other.
    async fn guess(self, guesser: u32) -> BTreeMap<String, u32> {
        let Self { server, plan, links, next, began } = self;
        let mut answers = BTreeMap::new();
        let mut address = guesser;
        let mut line = None;
        // As many guesses from each address as it takes for all of them to be used.
        let from_each = (plan.guesses / plan.addresses.max(1)).max(1);
        let mut left = from_each;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.guesses {
                return answers;
            }
            tokio::time::sleep_until((began + plan.lasts.mul_f64(f64::from(number) / f64::from(plan.guesses))).into())
                .await;
            if left == 0 {
                (left, line) = (from_each, None);
                address = (address + AT_ONCE) % plan.addresses.max(1);
            }
            left -= 1;
            let link = usize::try_from(number).ok().and_then(|number| links.get(number % SEATS));
            let code = json!({"code": format!("{:06}", number / 3)});
            let answer = post(&mut line, server, stranger(1, address), link.map_or("", String::as_str), &code).await;
            *answers.entry(answer.unwrap_or_else(|error| format!("no answer: {error}"))).or_default() += 1;
        }
    }
}

/// Lets people type their codes, evenly over the time; gives how long each took, and who was not admitted.
async fn admit_all(
    server: SocketAddr,
    people: Vec<Participant>,
    began: Instant,
    lasts: Duration,
) -> (Times, Vec<String>) {
    let (mut times, mut turned_away) = (Times::default(), Vec::new());
    let count = u32::try_from(people.len()).unwrap_or(u32::MAX).max(1);
    for (number, person) in (0..).zip(people) {
        tokio::time::sleep_until((began + lasts.mul_f64(f64::from(number) / f64::from(count))).into()).await;
        let code = json!({"code": person.code});
        let begins = Instant::now();
        match post(&mut None, server, stranger(2, number), &person.join_token, &code).await {
            Ok(answer) if answer.starts_with("200") => times.add(begins.elapsed()),
            Ok(answer) => turned_away.push(format!("an honest person was told: {answer}")),
            Err(error) => turned_away.push(format!("an honest person had no answer: {error}")),
        }
    }
    (times, turned_away)
}

/// Types a code; gives the status and the kind of problem.
async fn post(
    line: &mut Option<Line>,
    server: SocketAddr,
    from: IpAddr,
    link: &str,
    code: &serde_json::Value,
) -> std::io::Result<String> {
    let mut open = match line.take() {
        Some(open) => open,
        None => Line::open(server, from).await?,
    };
    let (status, body) = open.post(&format!("/v1/join/{link}"), code).await?;
    if open.stays() {
        *line = Some(open);
    }
    let kind = body.get("type").and_then(serde_json::Value::as_str).unwrap_or_default();
    Ok(format!("{status} {kind}").trim_end().to_owned())
}

/// The `number`th address of a crowd: 127.0.0.0/8 is all this machine (RFC 1122, section 3.2.1.3).
fn stranger(crowd: u8, number: u32) -> IpAddr {
    let [.., high, low] = (number % 60_000).to_be_bytes();
    Ipv4Addr::new(127, crowd, high, low.max(1)).into()
}
