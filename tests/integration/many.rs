//! Many bookings.

use std::time::Duration;

use loadtest::book::{self, Bookings};

use crate::database::Database;
use crate::server::Server;

/// A tenth of the rooms that the bar of 20 ms is set for, and ten times the bar: a debug build on a machine that runs
/// other tests too. `loadtest book` holds a release build to the whole of it.
const ROOMS: u32 = 1_000;
const LONGEST_CALL: Duration = Duration::from_millis(200);

async fn books_and_lists_a_thousand_rooms_of_a_day(database: Database) {
    let mut server = Server::start_on(database).await;
    let plan = Bookings {
        url: server.url(""),
        booking_key: server.key("booking").to_owned(),
        rooms: ROOMS,
        at_once: 2,
        max_p99: LONGEST_CALL,
        json: false,
    };
    let report = book::run(&plan).await.unwrap();
    println!("{}", report.table());
    assert_eq!(report.misses(&plan), Vec::<String>::new(), "{}", report.table());
    assert_eq!(report.listed, 1_000, "each room once");
    server.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_a_thousand_rooms_is_booked_and_listed_quickly_with_sqlite() {
    books_and_lists_a_thousand_rooms_of_a_day(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_a_thousand_rooms_is_booked_and_listed_quickly_with_postgresql() {
    books_and_lists_a_thousand_rooms_of_a_day(Database::Postgres).await;
}
