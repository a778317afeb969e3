//! The command line of `loadtest`: what to drive, and the exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::plan::{self, Plan};

/// Drives a Sportello server from outside, as booking systems, citizens and officers do.
///
/// Exit codes: 0 all limits were kept, 1 a limit was missed, 2 it could not begin.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold rooms: three WebRTC clients each, with real Opus and VP8
    Call(Plan),
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool: its output is its work")]
async fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let outcome = match command {
        Command::Call(plan) => plan::run(plan).await.map(|(plan, report)| {
            let said = if plan.json { report.json() } else { report.table() };
            (said, report.misses(&plan.limits))
        }),
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
