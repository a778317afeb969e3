//! The command line of `loadtest`: what to drive, and the exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::book::{self, Bookings};
use loadtest::guess::{self, Guesses};
use loadtest::plan::{self, Plan};

/// Drives a Sportello server from outside, as booking systems, citizens and officers do.
///
/// Options without a command are those of `call`. Exit codes: 0 all limits were kept, 1 a limit was missed, 2 it could not begin.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold rooms: two or three WebRTC clients each, with real Opus and VP8
    Call(Box<Plan>),
    /// Book many rooms of one day and list them
    Book(Bookings),
    /// Guess a room's codes from many addresses, while honest people next door type theirs
    Guess(Guesses),
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool: its output is its work")]
async fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse_from(with_command(std::env::args_os().collect()));
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let outcome = match command {
        Command::Call(plan) => plan::run(*plan).await.map_err(|error| error.to_string()).map(|(plan, report)| {
            (if plan.json { report.json() } else { report.table() }, report.misses(&plan.limits))
        }),
        Command::Book(plan) => book::run(&plan)
            .await
            .map_err(|error| error.to_string())
            .map(|report| (if plan.json { json(&report) } else { report.table() }, report.misses(&plan))),
        Command::Guess(plan) => guess::run(&plan)
            .await
            .map_err(|error| error.to_string())
            .map(|report| (if plan.json { json(&report) } else { report.table() }, report.misses(&plan))),
    };
    match outcome {
        Ok((said, misses)) => {
            println!("{}", said.trim_end());
            for miss in &misses {
                eprintln!("missed: {miss}");
            }
            if misses.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

/// Holding rooms is what it is mostly for, so that `call` may be left out before options.
fn with_command(mut words: Vec<OsString>) -> Vec<OsString> {
    let first = words.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    if first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first) {
        words.insert(1, "call".into());
    }
    words
}

fn json(report: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn janus_has_its_own_address_and_light_clients_and_wants_no_key() {
        let plan = |words: &[&str]| {
            let words = ["loadtest"].iter().chain(words).map(OsString::from).collect();
            Arguments::try_parse_from(with_command(words)).map(|all| match all.command {
                Command::Call(plan) => Some((plan.url, plan.light)),
                _ => None,
            })
        };
        let (url, light) = plan(&["--target", "janus"]).unwrap().unwrap();
        assert!(light && url.ends_with("/janus"), "{url}");
        let (url, _) = plan(&["--target", "janus", "--url", "http://192.0.2.1/j"]).unwrap().unwrap();
        assert_eq!(url, "http://192.0.2.1/j");
        let (url, light) = plan(&["--target", "sportello", "--booking-key", "k"]).unwrap().unwrap();
        assert!(!light && url.ends_with(":8080"), "{url}");
        if std::env::var_os("SPORTELLO_BOOKING_KEY").is_none() {
            assert!(plan(&["--rooms", "2"]).is_err() && plan(&["--target", "sportello"]).is_err());
        }
        let limit = ["--target", "janus", "--max-cpu-per-packet", "9"];
        assert!(plan(&[&limit[..], &["--server-pid", "1"]].concat()).is_ok());
        if std::env::var_os("SPORTELLO_METRICS_KEY").is_none() {
            assert!(plan(&limit).is_err());
        }
    }

    #[test]
    fn call_may_be_left_out() {
        let command = |words: &[&str]| {
            Arguments::try_parse_from(with_command(words.iter().map(OsString::from).collect())).map(|all| all.command)
        };
        let key = ["--booking-key", "k"];
        for words in [vec!["loadtest", "--rooms", "7"], vec!["loadtest", "call", "--rooms", "7"]] {
            let command = command(&[&words[..], &key].concat());
            assert!(matches!(command, Ok(Command::Call(plan)) if plan.rooms == 7));
        }
        assert!(matches!(command(&[&["loadtest", "book"][..], &key].concat()), Ok(Command::Book(_))));
        for help in ["--help", "--version"] {
            assert!(command(&["loadtest", help]).is_err_and(|shown| !shown.use_stderr()));
        }
    }
}
