//! A hundred thousand guesses at one room's codes, from two thousand addresses.

use std::time::Duration;

use loadtest::guess::{self, Guesses};
use reqwest::Method;
use serde_json::json;

use crate::database::Database;
use crate::server::{Server, text};

/// What honest people may wait here, where a debug build shares two cores with the guessers and the other tests. The
/// bar for a release build on a machine of its own is 50 ms, which `loadtest guess` holds by default.
const LONGEST_ADMISSION: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_guesses_get_in_nowhere_and_slow_nobody_down() {
    let mut server = Server::start_on(Database::Sqlite).await;
    let plan = Guesses {
        url: server.url(""),
        booking_key: server.key("booking").to_owned(),
        guesses: 100_000,
        addresses: 2_000,
        lasts: Duration::from_secs(40),
        honest: 600,
        max_p99: LONGEST_ADMISSION,
        json: false,
    };
    let report = guess::run(&plan).await.unwrap();
    println!("{}", report.table());
    assert_eq!(report.misses(&plan), Vec::<String>::new(), "{}", report.table());

    // What was compared: five codes for each of the three links, and no sixth.
    let ledger = server.get(&format!("/v1/rooms/{}/ledger", report.room), server.key("compliance")).await;
    let told = |kind: &str| ledger.as_array().unwrap().iter().filter(|line| line["event"]["type"] == kind).count();
    assert_eq!((told("code_rejected"), told("code_accepted")), (15, 0));

    // Whoever was meant to come in still can: with a new code.
    let room = server.get(&format!("/v1/rooms/{}", report.room), server.key("booking")).await;
    let person = text(&room["participants"][1]["id"]);
    let path = format!("/v1/rooms/{}/participants/{person}/code", report.room);
    let code = server.request(Method::POST, &path, server.key("booking")).json(&json!({})).send().await.unwrap();
    assert_eq!(code.status(), 200);
    server.is_well().await;
}
