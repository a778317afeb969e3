//! Drives a Sportello server from outside, as the world does: books rooms, types the codes, admits, and holds
//! WebRTC calls with real Opus and VP8. Knows the wire only, nothing of the server's own code: a parser that both
//! sides shared would hide its bugs from this tool.
//!
//! ```text
//! booking ─ POST /v1/rooms ─> plan::Room ─ three clients each ─> client::hold ─> report::Report ─> exit code
//! ```

mod api;
mod client;
mod media;
mod plan;
mod report;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::task::JoinSet;

use crate::plan::{Plan, hold_room};
use crate::report::Report;

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool: its output is its work")]
async fn main() -> ExitCode {
    let plan = Plan::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(plan).await {
        Ok((plan, report)) => {
            if plan.json {
                println!("{}", report.json());
            } else {
                print!("{}", report.table());
            }
            let misses = report.misses(&plan.limits);
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

/// Starts the rooms one after the other, lets them run, and gathers what each saw.
async fn run(plan: Plan) -> Result<(Arc<Plan>, Report), plan::PlanError> {
    let film = Arc::new(plan.film()?);
    let plan = Arc::new(plan);
    let mut rooms = JoinSet::new();
    for number in 0..plan.rooms {
        let (shared, film) = (Arc::clone(&plan), Arc::clone(&film));
        rooms.spawn(async move { hold_room(number, &shared, &film).await });
        tokio::time::sleep(plan.stagger).await;
    }
    let mut report = Report::default();
    while let Some(room) = rooms.join_next().await {
        match room {
            Ok(outcome) => report.add(outcome),
            Err(error) => report.add(Err(format!("a room's task ended early: {error}"))),
        }
    }
    Ok((plan, report))
}
