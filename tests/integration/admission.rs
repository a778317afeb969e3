//! From the link to the room: code, consent, waiting room, operator.

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Booked, Server, delega, delega_from, offer, refused, text};

fn try_code(server: &Server, invitation: &Value, code: &str) -> reqwest::RequestBuilder {
    let path = format!("/v1/join/{}", text(&invitation["join_token"]));
    server.anonymous(Method::POST, &path).json(&json!({"code": code}))
}

/// A code of six digits that is not theirs.
fn wrong_code(invitation: &Value) -> &'static str {
    if invitation["code"] == "000000" { "000001" } else { "000000" }
}

fn place_of(view: &Value, id: &str) -> String {
    let people = view["participants"].as_array().unwrap();
    text(&people.iter().find(|person| person["id"] == id).unwrap()["place"])
}

#[tokio::test]
async fn a_link_tells_where_and_when_but_no_names() {
    let mut server = Server::start().await;
    let booked = server.book(&delega()).await;
    for role in ["operator", "delegato", "delegante"] {
        let path = format!("/v1/join/{}", text(&booked.invitation(role)["join_token"]));
        let welcome = server.anonymous(Method::GET, &path).send().await.unwrap().text().await.unwrap();
        for word in ["Ofelia", "Quarantotti", "Dario", "Bevilacqua", "Zenobia", "Tagliaferri", "OP-042"] {
            assert!(!welcome.contains(word), "the link tells «{word}»");
        }
        let welcome: Value = serde_json::from_str(&welcome).unwrap();
        assert_eq!((&welcome["office"], &welcome["role"]), (&json!("Roma"), &json!(role)));
    }
    server.is_well().await;
}

#[tokio::test]
async fn five_wrong_codes_lock_until_a_new_one_is_issued() {
    let mut server = Server::start().await;
    let booked = server.book(&delega()).await;
    let person = booked.invitation("delegato");
    for left in (0..=4).rev() {
        let problem = refused(try_code(&server, person, wrong_code(person)), 403, "wrong-code").await;
        assert_eq!(problem["attempts_left"], left);
    }
    refused(try_code(&server, person, &text(&person["code"])), 403, "code-locked").await;

    let path = format!("/v1/rooms/{}/participants/{}/code", booked.room, booked.id("delegato"));
    let reissued = server.post(&path, server.key("booking"), &json!({})).await;
    if reissued["code"] != person["code"] {
        refused(try_code(&server, person, &text(&person["code"])), 403, "wrong-code").await;
    }
    let admitted = try_code(&server, person, &text(&reissued["code"])).send().await.unwrap();
    assert_eq!(admitted.status(), 200);
    server.is_well().await;
}

#[tokio::test]
async fn a_code_of_another_room_is_a_wrong_code_here() {
    let mut server = Server::start().await;
    let (here, there) = (server.book(&delega()).await, server.book(&delega()).await);
    let (mine, theirs) = (here.invitation("delegante"), text(&there.invitation("delegante")["code"]));
    if mine["code"] != json!(theirs) {
        refused(try_code(&server, mine, &theirs), 403, "wrong-code").await;
    }
    server.is_well().await;
}

#[tokio::test]
async fn a_code_typed_too_early_is_not_an_attempt_lost() {
    let mut server = Server::start().await;
    let start = Timestamp::now() + SignedDuration::from_hours(2);
    let booked = server.book(&delega_from(start)).await;
    let person = booked.invitation("delegato");
    for _ in 0..6 {
        let problem = refused(try_code(&server, person, wrong_code(person)), 403, "too-early").await;
        let opens: Timestamp = text(&problem["opens_at"]).parse().unwrap();
        assert_eq!(opens.as_second(), (start - SignedDuration::from_mins(15)).as_second());
    }
    refused(try_code(&server, person, &text(&person["code"])), 403, "too-early").await;
    server.is_well().await;
}

#[tokio::test]
async fn nobody_enters_or_sends_before_consent_and_the_operators_word() {
    let mut server = Server::start().await;
    let booked = server.book(&delega()).await;
    let delegato = server.admit(booked.invitation("delegato")).await;
    let connect = |bearer: &str| {
        let request = server.request(Method::POST, "/v1/session/media", bearer);
        request.header("content-type", "application/sdp").body(offer())
    };
    refused(server.request(Method::POST, "/v1/session/enter", &delegato), 409, "no-consent").await;
    refused(connect(&delegato), 409, "no-consent").await;
    let stale =
        server.request(Method::POST, "/v1/session/consent", &delegato).json(&json!({"text_version": "1999-01"}));
    refused(stale, 409, "consent-text-changed").await;

    let version = server.get("/v1/session", &delegato).await["consent_text_version"].clone();
    server.post("/v1/session/consent", &delegato, &json!({"text_version": version})).await;
    server.order("/v1/session/enter", &delegato).await;
    refused(connect(&delegato), 409, "not-inside").await;

    let admit = format!("/v1/rooms/{}/participants/{}/admit", booked.room, booked.id("delegato"));
    refused(server.request(Method::POST, &admit, &delegato), 403, "forbidden").await;
    refused(server.request(Method::POST, &format!("/v1/rooms/{}/open", booked.room), &delegato), 403, "forbidden")
        .await;
    server.is_well().await;
}

#[tokio::test]
async fn the_operator_opens_admits_sends_back_and_removes_and_each_is_told() {
    let mut server = Server::start().await;
    let (booked, operator) = server.open_room().await;
    let delegato = server.enter(booked.invitation("delegato")).await;
    let id = booked.id("delegato");
    let mut officer = server.follow(&operator).await;
    let mut citizen = server.follow(&delegato).await;
    let person = |what: &str| format!("/v1/rooms/{}/participants/{id}/{what}", booked.room);

    officer.session("the delegato waits", |view| place_of(view, &id) == "waiting").await;
    server.order(&person("admit"), &operator).await;
    citizen.session("inside", |view| view["place"] == "inside").await;
    let answer = server
        .request(Method::POST, "/v1/session/media", &delegato)
        .header("content-type", "application/sdp")
        .body(offer())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    assert!(answer.headers().contains_key("location") && answer.headers().contains_key("etag"));
    assert_eq!(answer.headers()["content-type"], "application/sdp");
    let answer = answer.text().await.unwrap();
    assert!(answer.contains("a=ice-lite") && answer.contains("a=candidate:"), "{answer}");

    server.order(&person("send-back"), &operator).await;
    citizen.session("waiting again", |view| view["place"] == "waiting").await;
    server.order(&person("remove"), &operator).await;
    assert_eq!(citizen.closed().await, 4401);
    refused(server.request(Method::GET, "/v1/session", &delegato), 401, "unauthenticated").await;
    let back = try_code(&server, booked.invitation("delegato"), &text(&booked.invitation("delegato")["code"]));
    refused(back, 403, "removed").await;
    server.is_well().await;
}

#[tokio::test]
async fn a_second_device_takes_the_session_over_once_the_person_says_so() {
    let mut server = Server::start().await;
    let booked = server.book(&delega()).await;
    let first = server.enter(booked.invitation("delegato")).await;
    let mut events = server.follow(&first).await;
    let invitation = booked.invitation("delegato");
    let path = format!("/v1/join/{}", invitation["join_token"].as_str().unwrap());
    let code = json!({"code": invitation["code"]});
    refused(server.anonymous(Method::POST, &path).json(&code), 409, "other-device").await;
    assert_eq!(server.get("/v1/session", &first).await["place"], "waiting", "nothing has ended yet");
    let second = server.take_over(invitation).await;
    assert_ne!(first, second);
    assert_eq!(events.closed().await, 4401);
    refused(server.request(Method::GET, "/v1/session", &first), 401, "unauthenticated").await;
    assert_eq!(server.get("/v1/session", &second).await["me"]["id"], json!(booked.id("delegato")));
    server.is_well().await;
}

#[tokio::test]
async fn the_ledger_tells_the_way_in_without_names_or_codes() {
    let mut server = Server::start().await;
    let (booked, operator) = server.open_room().await;
    server.enter(booked.invitation("delegante")).await;
    let admit = format!("/v1/rooms/{}/participants/{}/admit", booked.room, booked.id("delegante"));
    server.order(&admit, &operator).await;
    let ledger = server.get(&format!("/v1/rooms/{}/ledger", booked.room), server.key("compliance")).await;
    assert_tells(&ledger, &booked);
    let lines = ledger.as_array().unwrap();
    assert!(lines.iter().zip(1..).all(|(line, seq)| line["seq"] == seq), "numbered from 1 without a gap: {ledger}");
    let mut hashes: Vec<&str> = lines.iter().map(|line| line["hash"].as_str().unwrap()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), lines.len(), "each line has a hash of its own");
    server.is_well().await;
}

fn assert_tells(ledger: &Value, booked: &Booked) {
    let of = |id: &str| {
        let own =
            ledger.as_array().unwrap().iter().map(|line| &line["event"]).filter(|event| event["participant"] == id);
        own.map(|event| text(&event["type"])).collect::<Vec<_>>()
    };
    assert_eq!(of(&booked.id("delegante")), ["code_accepted", "consent_given", "entered_waiting", "let_in"]);
    let whole = ledger.to_string();
    for secret in ["Zenobia", "Quarantotti", "TGLZNB50A41H501W", "+39333"] {
        assert!(!whole.contains(secret), "the ledger tells «{secret}»");
    }
    for role in ["operator", "delegato", "delegante"] {
        assert!(!whole.contains(&text(&booked.invitation(role)["join_token"])), "the ledger tells a link");
    }
}
