//! Codes that this server sends itself, by text message through a gateway.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::database::Database;
use crate::gateway::{Gateway, Taken};
use crate::receiver::{self, Receiver};
use crate::server::{Booked, Server, Signal, accepted, refused, text};

const BOTH: [Database; 2] = [Database::Sqlite, Database::Postgres];

/// Longest wait for what follows a message.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that sends codes through the gateway at `url`; codes have ten digits, so that no other number looks like one.
async fn starts(database: Database, url: &str, more: &[(&str, &str)]) -> (Server, TempDir) {
    let profiles = TempDir::new().unwrap();
    let delega = include_str!("../../config/profiles/delega.toml");
    let delega = delega.replace("\ncode_digits = 6\n", "\ncode_digits = 10\n");
    std::fs::write(profiles.path().join("delega.toml"), delega).unwrap();
    let mut configuration = vec![
        ("ROOMS__PROFILES", profiles.path().to_str().unwrap()),
        ("SMS__MODE", "gateway"),
        ("SMS__GATEWAY_URL", url),
        ("LOG__FILTER", "debug,sportello=trace"),
    ];
    configuration.extend_from_slice(more);
    (Server::start_with(database, &configuration).await, profiles)
}

/// A room that began a minute ago; only the delegato has a telephone.
fn booking(language: Option<&str>) -> Value {
    let start = Timestamp::now() - SignedDuration::from_mins(1);
    let mut booking = json!({
        "profile": "delega", "office": "Roma «Tuscolana»", "counter": "Deleghe", "reason": "Delega",
        "start": start.to_string(), "end": (start + SignedDuration::from_mins(30)).to_string(),
        "participants": [
            {"role": "operator", "name": "Ofelia Quarantotti"},
            {"role": "delegato", "name": "Dario Bevilacqua", "phone": "+39 333 123 4567"},
            {"role": "delegante", "name": "Zenobia Tagliaferri"},
        ],
    });
    if let Some(language) = language {
        booking["participants"][1]["language"] = json!(language);
    }
    booking
}

/// The ten digits in a text.
fn code_in(text: &str) -> String {
    let code = text.split(|character: char| !character.is_ascii_digit()).find(|digits| digits.len() == 10);
    code.unwrap_or_else(|| panic!("no code in: {text}")).to_owned()
}

/// The delegato's code, as the gateway was given it.
fn code_of(taken: &Taken) -> String {
    code_in(&text(&taken.json()["text"]))
}

async fn delegato(server: &Server, booked: &Booked) -> Value {
    let room = server.get(&format!("/v1/rooms/{}", booked.room), server.key("booking")).await;
    room["participants"][1].clone()
}

/// Waits until the delegato's message stands so.
async fn message_becomes(server: &Server, booked: &Booked, state: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let message = delegato(server, booked).await["message"].clone();
        if message["state"] == state {
            return message;
        }
        assert!(Instant::now() < deadline, "not {state}: {message}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The code admits the delegato, through their link.
async fn admits(server: &Server, booked: &Booked, code: &str) {
    let path = format!("/v1/join/{}", text(&booked.invitation("delegato")["join_token"]));
    accepted(server.anonymous(Method::POST, &path).json(&json!({"code": code, "take_over": true}))).await;
}

async fn reissues(server: &Server, booked: &Booked) -> Value {
    let path = format!("/v1/rooms/{}/participants/{}/code", booked.room, booked.id("delegato"));
    server.post(&path, server.key("booking"), &json!({})).await
}

/// None of the codes is anywhere but in the gateway.
async fn nobody_else_was_told(server: &Server, booked: &Booked, codes: &[String]) {
    server.has_not_said(codes);
    server.does_not_keep(codes).await;
    let key = server.key("booking");
    for path in ["", "/ledger"] {
        let told = server.get(&format!("/v1/rooms/{}{path}", booked.room), key).await.to_string();
        assert!(!codes.iter().any(|code| told.contains(code)), "{path} tells a code");
    }
}

#[tokio::test]
async fn a_code_goes_by_text_message_and_only_there() {
    for database in BOTH {
        let gateway = Gateway::start().await;
        let (mut server, _profiles) =
            starts(database, &gateway.url(), &[("SMS__GATEWAY_AUTHORIZATION", "Bearer gw-secret")]).await;
        let booked = server.book(&booking(None)).await;
        let invitation = booked.invitation("delegato");
        assert_eq!(
            (&invitation["code"], &invitation["message"]),
            (&Value::Null, &json!({"state": "queued", "at": null}))
        );
        // Who has no telephone gets the code another way.
        let by_hand = booked.invitation("delegante");
        assert_eq!((text(&by_hand["code"]).len(), &by_hand["message"]), (10, &Value::Null));

        let taken = gateway.asked(1).await.remove(0);
        assert_eq!(
            (taken.content_type.as_str(), taken.authorization.as_str()),
            ("application/json", "Bearer gw-secret")
        );
        let body = taken.json();
        assert_eq!(body.as_object().unwrap().len(), 3, "as the template says: {body}");
        assert_eq!(body["to"], "+393331234567");
        let sms = text(&body["text"]);
        assert!(sms.starts_with("Il Suo codice") && sms.contains("(Roma \"Tuscolana\")"), "{sms}");
        assert!(sms.chars().count() <= 160 && !sms.contains("Dario") && !sms.contains("Deleg"), "{sms}");
        assert!(text(&body["id"]).parse::<uuid::Uuid>().is_ok(), "{body}");

        let sent = message_becomes(&server, &booked, "sent").await;
        assert!(text(&sent["at"]).parse::<Timestamp>().is_ok(), "{sent}");
        let code = code_of(&taken);
        nobody_else_was_told(&server, &booked, std::slice::from_ref(&code)).await;
        admits(&server, &booked, &code).await;
        let ledger = server.get(&format!("/v1/rooms/{}/ledger", booked.room), server.key("booking")).await;
        assert!(ledger.to_string().contains("\"code_sent\""), "{database:?}: {ledger}");
        server.has_not_said(&["gw-secret".to_owned(), code, "+393331234567".to_owned()]);
        assert_eq!(gateway.all().len(), 1, "once");
        server.is_well().await;
    }
}

#[tokio::test]
async fn people_read_their_own_language_and_the_others_the_nodes() {
    let gateway = Gateway::start().await;
    let (mut server, _profiles) = starts(Database::Sqlite, &gateway.url(), &[("SMS__LANGUAGE", "de")]).await;
    let said = [(Some("it"), "Il Suo codice"), (Some("de"), "Ihr Code"), (Some("en"), "Your code"), (None, "Ihr Code")];
    for (count, (language, beginning)) in said.into_iter().enumerate() {
        let booked = server.book(&booking(language)).await;
        let taken = gateway.asked(count + 1).await.pop().unwrap();
        let sms = text(&taken.json()["text"]);
        assert!(sms.starts_with(beginning), "{language:?}: {sms}");
        admits(&server, &booked, &code_of(&taken)).await;
    }
    let mut wrong = booking(None);
    wrong["participants"][1]["language"] = json!("fr");
    let request = server.request(Method::POST, "/v1/rooms", server.key("booking")).json(&wrong);
    refused(request, 422, "invalid-field").await;
    server.is_well().await;
}

#[tokio::test]
async fn the_body_is_written_as_the_configuration_says() {
    let gateway = Gateway::start().await;
    let form = [
        ("SMS__GATEWAY_CONTENT_TYPE", "application/x-www-form-urlencoded"),
        ("SMS__GATEWAY_BODY", "user=ufficio&to={phone}&message={text}&ref={id}"),
    ];
    let (mut server, _profiles) = starts(Database::Sqlite, &gateway.url(), &form).await;
    let booked = server.book(&booking(None)).await;
    let taken = gateway.asked(1).await.remove(0);
    assert_eq!(taken.content_type, "application/x-www-form-urlencoded");
    // Read as a query is: the same encoding.
    let read = Url::parse(&format!("http://localhost/?{}", taken.body)).unwrap();
    let fields: Vec<(String, String)> = read.query_pairs().into_owned().collect();
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["user", "to", "message", "ref"], "{}", taken.body);
    assert_eq!((fields[0].1.as_str(), fields[1].1.as_str()), ("ufficio", "+393331234567"));
    assert!(fields[2].1.contains("(Roma \"Tuscolana\")"), "{}", fields[2].1);
    admits(&server, &booked, &code_in(&fields[2].1)).await;
    server.is_well().await;

    let nested = [(
        "SMS__GATEWAY_BODY",
        r#"{"messages": [{"to": ["{phone}"], "body": "{text}", "ref": "s-{id}"}], "flash": false}"#,
    )];
    let (mut server, _profiles) = starts(Database::Sqlite, &gateway.url(), &nested).await;
    let booked = server.book(&booking(None)).await;
    let body = gateway.asked(2).await.remove(1).json();
    assert_eq!((&body["flash"], &body["messages"][0]["to"]), (&json!(false), &json!(["+393331234567"])));
    assert!(text(&body["messages"][0]["ref"]).starts_with("s-0"), "{body}");
    admits(&server, &booked, &code_in(&text(&body["messages"][0]["body"]))).await;
    server.is_well().await;
}

#[tokio::test]
async fn a_gateway_that_is_down_is_asked_again_for_the_same_message() {
    for database in BOTH {
        let gateway = Gateway::start().await;
        gateway.answers(503);
        let (mut server, _profiles) = starts(database, &gateway.url(), &[]).await;
        let booked = server.book(&booking(None)).await;
        gateway.asked(1).await;
        assert_eq!(delegato(&server, &booked).await["message"]["state"], "queued", "it is tried again");
        gateway.answers(200);
        let taken = gateway.asked(2).await;
        assert_eq!(taken[0].body, taken[1].body, "{database:?}: the same id, the same text");
        message_becomes(&server, &booked, "sent").await;
        let code = code_of(&taken[1]);
        nobody_else_was_told(&server, &booked, std::slice::from_ref(&code)).await;
        admits(&server, &booked, &code).await;
        server.is_well().await;
    }
}

#[tokio::test]
async fn a_gateway_where_nobody_listens_yet_is_found_later() {
    // Bound and deaf: connections are refused, and nobody else can take the port meanwhile.
    let door = TcpSocket::new_v4().unwrap();
    door.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/send", door.local_addr().unwrap());
    let (mut server, _profiles) = starts(Database::Sqlite, &url, &[]).await;
    let booked = server.book(&booking(None)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(delegato(&server, &booked).await["message"]["state"], "queued");
    let gateway = Gateway::start_on(door.listen(16).unwrap());
    message_becomes(&server, &booked, "sent").await;
    admits(&server, &booked, &code_of(&gateway.all()[0])).await;
    server.is_well().await;
}

#[tokio::test]
async fn a_message_that_is_refused_is_told_and_the_code_can_be_sent_anew() {
    for database in BOTH {
        let (gateway, receiver) = (Gateway::start().await, Receiver::start().await);
        gateway.answers(422);
        let url = receiver.url();
        let webhooks = [("WEBHOOKS__URL", url.as_str()), ("WEBHOOKS__SECRETS", receiver::SECRET)];
        let (mut server, _profiles) = starts(database, &gateway.url(), &webhooks).await;
        let booked = server.book(&booking(None)).await;
        let failed = message_becomes(&server, &booked, "failed").await;
        assert!(text(&failed["at"]).parse::<Timestamp>().is_ok(), "{failed}");
        let told = told(&receiver, &booked, "participant.code_not_sent").await;
        assert_eq!(told["participant_id"], booked.id("delegato"), "{told}");

        gateway.answers(200);
        let answer = reissues(&server, &booked).await;
        assert_eq!(answer, json!({"message": {"state": "queued", "at": null}}));
        let taken = gateway.asked(2).await;
        message_becomes(&server, &booked, "sent").await;
        let (old, new) = (code_of(&taken[0]), code_of(&taken[1]));
        assert_ne!((&old, &taken[0].json()["id"]), (&new, &taken[1].json()["id"]), "another code, another message");
        let path = format!("/v1/join/{}", text(&booked.invitation("delegato")["join_token"]));
        refused(server.anonymous(Method::POST, &path).json(&json!({"code": old})), 403, "wrong-code").await;
        admits(&server, &booked, &new).await;
        nobody_else_was_told(&server, &booked, &[old.clone(), new.clone()]).await;
        for webhook in receiver.all() {
            let payload = webhook.payload.to_string();
            for secret in [&old, &new, "+393331234567", "Dario"] {
                assert!(!payload.contains(secret), "a webhook tells {secret}");
            }
        }
        assert_eq!(gateway.all().len(), 2, "{database:?}: a final refusal is not tried again");
        server.is_well().await;
    }
}

/// Waits until the receiver was told this of the room; gives its data.
async fn told(receiver: &Receiver, booked: &Booked, kind: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(webhook) = receiver.of_room(&booked.room).iter().find(|webhook| webhook.kind() == kind) {
            return webhook.data().clone();
        }
        assert!(Instant::now() < deadline, "{kind} was not told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_crash_before_a_message_went_out_loses_nothing_and_tells_nobody() {
    for database in BOTH {
        let gateway = Gateway::start().await;
        gateway.answers(500);
        let (mut server, _profiles) = starts(database, &gateway.url(), &[]).await;
        let booked = server.book(&booking(None)).await;
        let first = gateway.asked(1).await.remove(0);
        server.end(Signal::Kill);
        let code = code_of(&first);
        server.has_not_said(std::slice::from_ref(&code));
        server.does_not_keep(std::slice::from_ref(&code)).await;

        gateway.answers(200);
        server.come_back().await;
        message_becomes(&server, &booked, "sent").await;
        let taken = gateway.all();
        assert!(taken.iter().all(|taken| taken.body == first.body), "{database:?}: one message under one id");
        assert_eq!(taken.iter().filter(|taken| taken.status == 200).count(), 1);
        nobody_else_was_told(&server, &booked, std::slice::from_ref(&code)).await;
        admits(&server, &booked, &code).await;

        // Sent, and the process ends before anyone could look: it still is sent afterwards, and not once more.
        let booked = server.book(&booking(None)).await;
        let count = taken.len() + 1;
        gateway.asked(count).await;
        message_becomes(&server, &booked, "sent").await;
        let mut server = server.restart(Signal::Kill).await;
        message_becomes(&server, &booked, "sent").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(gateway.all().len(), count, "{database:?}");
        server.is_well().await;
    }
}

#[tokio::test]
async fn a_new_code_takes_the_place_of_one_that_still_waits() {
    let gateway = Gateway::start().await;
    gateway.answers(503);
    let (mut server, _profiles) = starts(Database::Sqlite, &gateway.url(), &[]).await;
    let booked = server.book(&booking(None)).await;
    let old = code_of(&gateway.asked(1).await[0]);
    gateway.answers(200);
    reissues(&server, &booked).await;
    message_becomes(&server, &booked, "sent").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let taken = gateway.all();
    let went_out: Vec<_> = taken.iter().filter(|taken| taken.status == 200).map(code_of).collect();
    assert_eq!(went_out.len(), 1, "the old code does not follow");
    assert_ne!(went_out[0], old);
    admits(&server, &booked, &went_out[0]).await;

    // Somebody else in the delegante's place, with a telephone: their code goes there.
    let path = format!("/v1/rooms/{}/participants/{}/replace", booked.room, booked.id("delegante"));
    let by = json!({"role": "delegante", "name": "Ottavia Serristori", "phone": "+41791234567", "language": "en"});
    let invitation = server.post(&path, server.key("booking"), &by).await;
    assert_eq!((&invitation["code"], &invitation["message"]["state"]), (&Value::Null, &json!("queued")));
    let last = gateway.asked(taken.len() + 1).await.pop().unwrap();
    assert_eq!(last.json()["to"], "+41791234567");
    let link = format!("/v1/join/{}", text(&invitation["join_token"]));
    accepted(server.anonymous(Method::POST, &link).json(&json!({"code": code_of(&last)}))).await;
    server.is_well().await;
}
