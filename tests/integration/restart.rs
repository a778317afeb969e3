//! What a restart keeps: rooms, sessions, keys, ledgers.

use reqwest::Method;
use serde_json::{Value, json};

use crate::database::Database;
use crate::server::{Server, Signal, delega, refused, text};

#[tokio::test]
async fn a_stopped_server_ends_well_and_tells_those_who_listen() {
    let mut server = Server::start().await;
    let booked = server.book(&delega()).await;
    let session = server.enter(booked.invitation("delegato")).await;
    let mut events = server.follow(&session).await;
    let status = server.end(Signal::Term);
    assert!(status.success(), "{status}");
    assert_eq!(events.closed().await, 1001);
}

#[tokio::test]
async fn a_restart_keeps_rooms_sessions_and_keys() {
    let each = [Database::Sqlite, Database::Postgres].into_iter();
    for (database, signal) in each.flat_map(|database| [(database, Signal::Term), (database, Signal::Kill)]) {
        let server = Server::start_on(database).await;
        let (booked, operator) = server.open_room().await;
        let path = format!("/v1/rooms/{}", booked.room);
        let ledger = format!("{path}/ledger");
        let locked = booked.invitation("delegante").clone();
        let link = format!("/v1/join/{}", text(&locked["join_token"]));
        let wrong = if locked["code"] == "000000" { "000001" } else { "000000" };
        refused(server.anonymous(Method::POST, &link).json(&json!({"code": wrong})), 403, "wrong-code").await;
        let before = server.get(&ledger, server.key("booking")).await;

        let mut server = server.restart(signal).await;
        let room = server.get(&path, server.key("booking")).await;
        assert_eq!(room["reference"], "PRN-2026-000123");
        assert_eq!(server.get("/v1/session", &operator).await["me"]["role"], "operator", "{database:?}, {signal:?}");
        let after = server.get(&ledger, server.key("booking")).await;
        let (before, after) = (before.as_array().unwrap(), after.as_array().unwrap());
        assert_eq!(after[..before.len()], before[..], "the ledger only grows");
        assert!(after[before.len()..].iter().any(|line| line["event"]["type"] == "node_restarted"), "{after:?}");
        let again = server.anonymous(Method::POST, &link).json(&json!({"code": wrong}));
        let problem: Value = refused(again, 403, "wrong-code").await;
        assert_eq!(problem["attempts_left"], 3, "attempts are counted across restarts");
        server.enter(booked.invitation("delegato")).await;
        server.is_well().await;
    }
}
