//! Who gets in, and how often they may try: API keys made and revoked beside a running node, tokens of an OIDC issuer,
//! and the limits per address. Over real sockets: the limits go by the peer's address.

use std::net::SocketAddr;
use std::process::Output;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sportello::config::Sources;
use sportello::node::Node;
use tempfile::TempDir;

use crate::database::Database;
use crate::issuer::{Issuer, SigningKey};
use crate::server::{Signal, accepted, delega, problem, refused, sportello, text};

/// A running node in this process.
struct Server {
    address: SocketAddr,
    keys: Vec<(String, String)>,
    http: reqwest::Client,
    folder: TempDir,
    running: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(preset: &[(&str, figment::value::Value)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut values: Vec<(&str, figment::value::Value)> = vec![
            ("media.first_port", 0.into()),
            ("media.workers", 1.into()),
            ("media.announce", vec!["127.0.0.1"].into()),
        ];
        values.extend_from_slice(preset);
        let sources = Sources::with_preset(&values)
            .with("http.listen", "127.0.0.1:0")
            .with("storage.data_dir", &folder.path().display().to_string());
        let node = Node::start(&sources.read().unwrap()).await.unwrap();
        let address = node.address();
        let keys =
            node.new_keys().iter().map(|(scope, key)| (scope.name().to_owned(), key.expose().to_owned())).collect();
        let running = tokio::spawn(node.run(std::future::pending()));
        Self { address, keys, http: reqwest::Client::new(), folder, running }
    }

    /// One that takes tokens of this issuer.
    async fn start_with(issuer: &Issuer) -> Self {
        let scopes = [("sportello-booking", "booking"), ("counter-officer", "operator")];
        let scopes = figment::value::Value::from(std::collections::BTreeMap::from(scopes));
        Self::start(&[
            ("oidc.issuer", issuer.url.clone().into()),
            ("oidc.audience", "sportello".into()),
            ("oidc.scopes", scopes),
        ])
        .await
    }

    fn key(&self, scope: &str) -> &str {
        &self.keys.iter().find(|(name, _)| name == scope).unwrap().1
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    /// A booking by whoever holds this key or token.
    fn book(&self, bearer: &str) -> RequestBuilder {
        self.request(Method::POST, "/v1/rooms").bearer_auth(bearer).json(&delega())
    }

    /// Opens a join link that nobody has, as seen by a proxy that was asked by `client`.
    fn open_link(&self, client: &str) -> RequestBuilder {
        self.request(Method::GET, "/v1/join/AAAAAAAAAAAAAAAAAAAAAA").header("x-forwarded-for", client)
    }

    /// Runs `sportello keys …` on this node's database.
    async fn keys(&self, arguments: &[&str]) -> Output {
        let mut command = sportello();
        command.arg("keys").args(arguments).env("SPORTELLO__STORAGE__DATA_DIR", self.folder.path());
        // The node answers on this process's threads meanwhile.
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// The same, which must succeed; gives what it printed to standard output.
    async fn keys_done(&self, arguments: &[&str]) -> String {
        let output = self.keys(arguments).await;
        let (said, complained) = (said(&output.stdout), said(&output.stderr));
        assert!(output.status.success(), "{said}{complained}");
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn said(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

async fn too_many(request: RequestBuilder) -> Response {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 429, "{response:?}");
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    response
}

#[tokio::test]
async fn a_key_made_beside_the_running_server_opens_until_it_is_revoked() {
    let server = Server::start(&[]).await;
    let output = server.keys(&["create", "--scope", "booking", "--name", "Prenotazioni"]).await;
    let (key, explained) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{explained}");
    let key = key.strip_suffix('\n').unwrap();
    assert!(key.starts_with("sportello_booking_") && !key.contains(char::is_whitespace), "only the key: {key:?}");
    assert!(explained.contains("shown this once") && !explained.contains(key), "{explained}");
    accepted(server.book(key)).await;

    let listed: Value = serde_json::from_str(&server.keys_done(&["list", "--json"]).await).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 5, "the four of the first start, and this one: {listed:?}");
    let mine = listed.iter().find(|key| key["name"] == "Prenotazioni").unwrap();
    assert_eq!((&mine["scope"], &mine["revoked"]), (&json!("booking"), &Value::Null));
    assert!(!listed.iter().any(|each| each.to_string().contains("sportello_")), "no key is told again");

    let id = text(&mine["id"]);
    let table = server.keys_done(&["list"]).await;
    assert!(table.lines().any(|line| line.starts_with(&id) && line.ends_with("Prenotazioni")), "{table}");
    let revoked = server.keys_done(&["revoke", &id]).await;
    assert!(revoked.contains(&id) && revoked.contains("Prenotazioni"), "{revoked}");
    refused(server.book(key), 401, "unauthenticated").await;
    accepted(server.book(server.key("booking"))).await;

    let again = server.keys(&["revoke", &id]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again.stderr).contains("was revoked already"), "{}", said(&again.stderr));
    let unknown = server.keys(&["revoke", "0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown.stderr).contains("there is no key"), "{}", said(&unknown.stderr));
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked_on_postgresql_beside_the_running_server_and_without_it() {
    let mut server = crate::server::Server::start_on(Database::Postgres).await;
    let booked =
        |server: &crate::server::Server, key: &str| server.request(Method::POST, "/v1/rooms", key).json(&delega());
    let made = server.keys(&["create", "--scope", "booking", "--name", "Prenotazioni"]).await;
    assert!(made.status.success(), "{}", said(&made.stderr));
    let key = said(&made.stdout).trim().to_owned();
    accepted(booked(&server, &key)).await;

    // The node is away: keys are made and revoked all the same.
    server.end(Signal::Kill);
    let listed = server.keys(&["list", "--json"]).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 5, "{listed}");
    assert!(!listed.to_string().contains(&key), "no key is told again");
    let mine = listed.as_array().unwrap().iter().find(|key| key["name"] == "Prenotazioni").unwrap();
    let id = text(&mine["id"]);
    let operator = server.keys(&["create", "--scope", "operator", "--name", "Sportello 3"]).await;
    assert!(server.keys(&["revoke", &id]).await.status.success());
    assert_eq!(server.keys(&["revoke", &id]).await.status.code(), Some(1), "once is enough");

    server.come_back().await;
    refused(booked(&server, &key), 401, "unauthenticated").await;
    refused(booked(&server, said(&operator.stdout).trim()), 403, "forbidden").await;
    accepted(booked(&server, server.key("booking"))).await;
    server.does_not_keep(&[key, said(&operator.stdout).trim().to_owned()]).await;
    server.is_well().await;
}

#[tokio::test]
async fn keys_that_cannot_be_made_are_refused_with_what_is_allowed() {
    let server = Server::start(&[]).await;
    for (arguments, expected) in [
        (&["create", "--scope", "root", "--name", "x"][..], "booking, operator, compliance, metrics"),
        (&["create", "--scope", "booking"][..], "--name"),
        (&["create", "--scope", "booking", "--name", " "][..], "1 to 100 characters"),
        (&["create", "--scope", "booking", "--name", "two\nlines"][..], "control character"),
        (&["revoke", "sportello_booking_x"][..], "that is no key's id"),
    ] {
        let output = server.keys(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said(&output.stderr).contains(expected), "{arguments:?}: {}", said(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!said(&output.stderr).contains("sportello_booking_x"), "what may be a key is not repeated");
    }
}

#[test]
fn keys_of_a_database_that_does_not_exist_say_where_it_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("nothing");
    let output = sportello().args(["keys", "list"]).env("SPORTELLO__STORAGE__DATA_DIR", &data).output().unwrap();
    let complaint = said(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint.contains("nothing/sportello.db") && complaint.contains("first start"), "{complaint}");
    assert!(!data.exists(), "a look makes nothing");
}

#[tokio::test]
async fn a_token_of_the_issuer_opens_what_its_claim_maps_to_and_nothing_else() {
    let (rsa, ec) = (SigningKey::rsa("r"), SigningKey::p256("e"));
    let issuer = Issuer::start(&[&rsa, &ec]).await;
    let server = Server::start_with(&issuer).await;
    let booking = issuer.claims("openid sportello-booking");
    let booked = accepted(server.book(&rsa.token(&booking))).await;
    accepted(server.book(&ec.token(&booking))).await;

    let room = text(&booked["room"]["id"]);
    let open = |bearer: &str| server.request(Method::POST, &format!("/v1/rooms/{room}/open")).bearer_auth(bearer);
    refused(open(&ec.token(&booking)), 403, "forbidden").await;
    refused(server.book(&ec.token(&issuer.claims("counter-officer"))), 403, "forbidden").await;
    refused(server.book(&ec.token(&issuer.claims("openid email"))), 403, "forbidden").await;
    let operator = open(&ec.token(&issuer.claims("counter-officer"))).send().await.unwrap();
    assert_ne!(operator.status().as_u16() / 100, 5, "{operator:?}");
    assert!(![401, 403].contains(&operator.status().as_u16()), "{operator:?}");
    let metrics = server.request(Method::GET, "/metrics").bearer_auth(rsa.token(&booking));
    refused(metrics, 403, "forbidden").await;
    // A participant's session is no matter of the issuer's.
    refused(server.request(Method::GET, "/v1/session").bearer_auth(rsa.token(&booking)), 401, "unauthenticated").await;
}

#[tokio::test]
async fn a_token_that_is_not_the_issuers_for_us_and_for_now_is_refused() {
    let (key, stranger) = (SigningKey::rsa("k"), SigningKey::rsa("k"));
    let unpublished = SigningKey::p256("unpublished");
    let issuer = Issuer::start(&[&key]).await;
    let server = Server::start_with(&issuer).await;
    let good = issuer.claims("sportello-booking");
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let now = jiff::Timestamp::now().as_second();
    for (what, token) in [
        ("wrong audience", key.token(&with("aud", json!("elsewhere")))),
        ("wrong issuer", key.token(&with("iss", json!("https://login.example.org")))),
        ("expired", key.token(&with("exp", json!(now - 61)))),
        ("not yet valid", key.token(&with("nbf", json!(now + 120)))),
        ("another key of the same name", stranger.token(&good)),
        ("a key that was never published", unpublished.token(&good)),
        ("no signature", key.token_without_signature(&good)),
        ("the public key as secret", key.token_keyed_with_public_key(&good)),
        ("an ID token", key.token(&with("at_hash", json!("x")))),
    ] {
        let problem = refused(server.book(&token), 401, "unauthenticated").await;
        let told = problem.to_string();
        assert!(!told.contains(&token) && !told.contains("f7c1b2a0"), "{what}: {told}");
    }
    accepted(server.book(&key.token(&good))).await;
}

#[tokio::test]
async fn without_the_issuers_keys_its_tokens_wait_and_api_keys_go_on() {
    let key = SigningKey::p256("k");
    let issuer = Issuer::start(&[&key]).await;
    issuer.set_down(true);
    let server = Server::start_with(&issuer).await;
    let token = key.token(&issuer.claims("sportello-booking"));
    let problem = refused(server.book(&token), 503, "unavailable").await;
    assert!(text(&problem["detail"]).contains("OIDC issuer"), "{problem}");
    accepted(server.book(server.key("booking"))).await;
}

#[tokio::test]
async fn without_an_issuer_a_jwt_is_nothing() {
    let key = SigningKey::p256("k");
    let issuer = Issuer::start(&[&key]).await;
    let server = Server::start(&[]).await;
    refused(server.book(&key.token(&issuer.claims("sportello-booking"))), 401, "unauthenticated").await;
    assert_eq!(issuer.key_requests(), 0);
}

#[tokio::test]
async fn an_address_that_opens_too_many_links_waits_and_its_neighbours_do_not() {
    let server = Server::start(&[("http.join_per_minute", 2.into()), ("http.join_burst", 3.into())]).await;
    for _ in 0..3 {
        refused(server.open_link("203.0.113.7"), 404, "unknown-link").await;
    }
    problem(too_many(server.open_link("203.0.113.7")).await, 429, "too-many-requests").await;
    refused(server.open_link("203.0.113.8"), 404, "unknown-link").await;
    let code = server.request(Method::POST, "/v1/join/AAAAAAAAAAAAAAAAAAAAAA").header("x-forwarded-for", "203.0.113.7");
    too_many(code.json(&json!({"code": "123456"}))).await;

    for host in 1..=3 {
        refused(server.open_link(&format!("2001:db8:7:7::{host}")), 404, "unknown-link").await;
    }
    too_many(server.open_link("2001:db8:7:7:ffff::1")).await;
    refused(server.open_link("2001:db8:7:8::1"), 404, "unknown-link").await;
    // Whoever is in, and whoever books, asks for no links.
    accepted(server.book(server.key("booking")).header("x-forwarded-for", "203.0.113.7")).await;
}

#[tokio::test]
async fn without_a_trusted_proxy_the_header_is_anybodys_word() {
    let preset = [
        ("http.trusted_proxies", Vec::<String>::new().into()),
        ("http.join_per_minute", 2.into()),
        ("http.join_burst", 3.into()),
    ];
    let server = Server::start(&preset).await;
    for host in 1..=3 {
        refused(server.open_link(&format!("203.0.113.{host}")), 404, "unknown-link").await;
    }
    too_many(server.open_link("203.0.113.4")).await;
}

#[tokio::test]
async fn wrong_tokens_become_too_many_and_valid_ones_never_do() {
    let server = Server::start(&[("http.wrong_tokens_per_minute", 4.into())]).await;
    refused(server.book("sportello_booking_wrong"), 401, "unauthenticated").await;
    refused(server.book("eyJhbGciOiJub25lIn0.e30."), 401, "unauthenticated").await;
    refused(server.request(Method::GET, "/v1/session"), 401, "unauthenticated").await;
    refused(
        server.request(Method::POST, "/v1/session/media").header("content-type", "application/sdp"),
        401,
        "unauthenticated",
    )
    .await;
    problem(too_many(server.book("sportello_booking_wrong")).await, 429, "too-many-requests").await;
    let media = server.request(Method::POST, "/v1/session/media").header("content-type", "application/sdp");
    let media = too_many(media).await;
    assert_eq!(media.headers()["access-control-allow-origin"], "*", "a script must be able to read the problem");
    for _ in 0..10 {
        accepted(server.book(server.key("booking"))).await;
    }
    refused(server.book("wrong").header("x-forwarded-for", "203.0.113.7"), 401, "unauthenticated").await;
}

#[tokio::test]
async fn by_default_an_office_of_forty_people_behind_one_address_gets_in_at_once() {
    let server = Server::start(&[]).await;
    let booked = accepted(server.book(server.key("booking"))).await;
    let link = format!("/v1/join/{}", text(&booked["participants"][0]["join_token"]));
    for _ in 0..40 {
        // The link is opened, the page once more, and a code is typed.
        for _ in 0..2 {
            accepted(server.request(Method::GET, &link)).await;
        }
        let typed = server.request(Method::POST, &link).json(&json!({"code": "not a code"})).send().await.unwrap();
        assert_ne!(typed.status(), 429);
    }
}
