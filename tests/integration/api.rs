//! The HTTP API as its callers meet it: who gets in, what is refused and how it is said.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sportello::config::Sources;
use sportello::node::Node;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tower::ServiceExt as _;

/// A node with a fresh database, and its keys.
struct Server {
    router: Router,
    node: Option<Node>,
    booking: String,
    operator: String,
    metrics: String,
    _folder: TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} is no JSON: {}", self.status, self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    fn assert_problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
        assert_eq!(problem["status"], status);
        problem
    }
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Sources::with_preset(&[
            ("media.first_port", 0.into()),
            ("media.workers", 1.into()),
            ("media.announce", vec!["127.0.0.1"].into()),
        ])
        .with("http.listen", "127.0.0.1:0")
        .with("storage.data_dir", &folder.path().display().to_string())
        .read()
        .unwrap();
        let node = Node::start(&config).await.unwrap();
        let key = |scope: &str| {
            let found = node.new_keys().iter().find(|(each, _)| each.name() == scope);
            found.map(|(_, key)| key.expose().to_owned()).unwrap()
        };
        let (booking, operator, metrics) = (key("booking"), key("operator"), key("metrics"));
        Self { router: node.server(), node: Some(node), booking, operator, metrics, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer { status: head.status, headers: head.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn ask(&self, method: Method, path: &str, token: &str, body: Option<(&str, String)>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some((content_type, _)) = &body {
            request = request.header("content-type", *content_type);
        }
        self.send(request.body(body.map_or_else(Body::empty, |(_, text)| Body::from(text))).unwrap()).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(Method::GET, path, token, None).await
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, token, Some(("application/json", body.to_string()))).await
    }

    async fn book(&self) -> Value {
        let answer = self.post("/v1/rooms", &self.booking, booking()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    }

    /// Enters the code of the booking's `index`th participant; gives the session token.
    async fn admit(&self, booked: &Value, index: usize) -> String {
        let invitation = &booked["participants"][index];
        let path = format!("/v1/join/{}", invitation["join_token"].as_str().unwrap());
        let answer = self.post(&path, "", json!({"code": invitation["code"], "take_over": true})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["session_token"].as_str().unwrap().to_owned()
    }
}

fn booking() -> Value {
    let start = jiff::Timestamp::now();
    let end = start + jiff::SignedDuration::from_mins(30);
    json!({
        "profile": "delega", "office": "Roma", "counter": "Deleghe", "reason": "Delega dell'identità digitale",
        "start": start.to_string(), "end": end.to_string(),
        "participants": [
            {"role": "operator", "name": "Giulia Ferri", "operator_number": "OP-042"},
            {"role": "delegato", "name": "Marco Bianchi", "fiscal_code": "BNCMRC85T10H501K", "phone": "+393330000002"},
            {"role": "delegante", "name": "Anna Conti"},
        ],
    })
}

#[tokio::test]
async fn what_no_route_takes_is_a_problem_document() {
    let server = Server::start().await;
    server.get("/nowhere", "").await.assert_problem(404, "not-found");
    server.get("/assets/nothing.js", "").await.assert_problem(404, "not-found");
    let answer = server.ask(Method::DELETE, "/v1/rooms", &server.booking, None).await;
    answer.assert_problem(405, "method-not-allowed");
    assert!(answer.header("allow").contains("POST"), "{:?}", answer.headers);
    server.get("/v1/rooms/not-a-room", &server.booking).await.assert_problem(404, "not-found");
    let unknown = "/v1/rooms/0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11";
    server.get(unknown, &server.booking).await.assert_problem(404, "unknown-room");
}

#[tokio::test]
async fn without_the_right_key_nothing_answers() {
    let server = Server::start().await;
    let answer = server.post("/v1/rooms", "", booking()).await;
    answer.assert_problem(401, "unauthenticated");
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    server.post("/v1/rooms", "wrong", booking()).await.assert_problem(401, "unauthenticated");
    server.post("/v1/rooms", &server.operator, booking()).await.assert_problem(403, "forbidden");
    server.get("/metrics", &server.booking).await.assert_problem(403, "forbidden");
    server.get("/v1/session", &server.booking).await.assert_problem(401, "unauthenticated");
    let metrics = server.get("/metrics", &server.metrics).await;
    assert!(metrics.text.contains("sportello_http_requests_total"), "{}", metrics.text);
    assert_eq!(server.get("/healthz", "").await.json(), json!({"status": "ok"}));
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused_with_the_reason() {
    let server = Server::start().await;
    let key = server.booking.clone();
    let send = async |content_type: &str, text: &str| {
        server.ask(Method::POST, "/v1/rooms", &key, Some((content_type, text.to_owned()))).await
    };
    send("text/plain", "{}").await.assert_problem(415, "unsupported-media-type");
    send("application/json", "{").await.assert_problem(400, "malformed-request");
    let missing = send("application/json; charset=utf-8", "{}").await.assert_problem(422, "invalid-field");
    assert!(missing["detail"].as_str().unwrap().contains("missing field"), "{missing}");
    send("application/json", &" ".repeat(65 << 10)).await.assert_problem(413, "too-large");
    let mut wrong = booking();
    wrong["participants"][1]["phone"] = "not a number".into();
    let problem = server.post("/v1/rooms", &key, wrong).await.assert_problem(422, "invalid-field");
    assert!(problem["field"].as_str().unwrap().contains("phone"), "{problem}");
    assert!(!problem.to_string().contains("Marco"), "no personal data in problems: {problem}");
}

#[tokio::test]
async fn a_booking_gives_links_and_codes_and_the_link_names_nobody() {
    let server = Server::start().await;
    let answer = server.post("/v1/rooms", &server.booking, booking()).await;
    let booked = answer.json();
    assert_eq!(answer.header("location"), format!("/v1/rooms/{}", booked["room"]["id"].as_str().unwrap()));
    assert_eq!(booked["participants"].as_array().unwrap().len(), 3);
    let token = booked["participants"][1]["join_token"].as_str().unwrap();
    let welcome = server.get(&format!("/v1/join/{token}"), "").await;
    assert_eq!(welcome.status, 200);
    assert_eq!(welcome.json()["counter"], "Deleghe");
    for name in ["Giulia", "Marco", "Anna", "BNCMRC"] {
        assert!(!welcome.text.contains(name), "{}", welcome.text);
    }
    server.get("/v1/join/AAAAAAAAAAAAAAAAAAAAAA", "").await.assert_problem(404, "unknown-link");
    let page = server.get(&format!("/join/{token}"), "").await;
    assert!(page.header("content-security-policy").contains("default-src 'none'"), "{:?}", page.headers);
    assert!(page.header("permissions-policy").contains("camera=(self)"));
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert_eq!(page.header("cache-control"), "no-store");
}

#[tokio::test]
async fn wrong_codes_are_counted_and_a_new_code_unlocks() {
    let server = Server::start().await;
    let booked = server.book().await;
    let person = &booked["participants"][1];
    let path = format!("/v1/join/{}", person["join_token"].as_str().unwrap());
    let wrong = if person["code"] == "000000" { "000001" } else { "000000" };
    for left in (0..5).rev() {
        let answer = server.post(&path, "", json!({"code": wrong})).await;
        // The attempt that uses up the last one may say either: both are true.
        if left > 0 {
            assert_eq!(answer.assert_problem(403, "wrong-code")["attempts_left"], left);
        }
    }
    server.post(&path, "", json!({"code": person["code"]})).await.assert_problem(403, "code-locked");
    let room = booked["room"]["id"].as_str().unwrap();
    let code_path = format!("/v1/rooms/{room}/participants/{}/code", person["id"].as_str().unwrap());
    let code = server.ask(Method::POST, &code_path, &server.booking, None).await.json();
    assert_eq!(server.post(&path, "", json!({"code": code["code"]})).await.status, 200);
}

#[tokio::test]
async fn media_needs_consent_and_being_let_in() {
    let server = Server::start().await;
    let booked = server.book().await;
    let room = booked["room"]["id"].as_str().unwrap();
    let delegato = booked["participants"][1]["id"].as_str().unwrap();
    let session = server.admit(&booked, 1).await;
    let offer = async |content_type: &'static str, sdp: String| {
        server.ask(Method::POST, "/v1/session/media", &session, Some((content_type, sdp))).await
    };
    offer("application/json", "{}".into()).await.assert_problem(415, "unsupported-media-type");
    offer("application/sdp", "v".repeat(129 << 10)).await.assert_problem(413, "too-large");
    let refused = offer("application/sdp", "v=0\r\n".into()).await;
    assert_eq!(refused.status, 409, "{}", refused.text);

    let stale = server.post("/v1/session/consent", &session, json!({"text_version": "1999-01"})).await;
    stale.assert_problem(409, "consent-text-changed");
    let given = server.post("/v1/session/consent", &session, json!({"text_version": "2026-01"})).await;
    assert_eq!(given.status, 204, "{}", given.text);
    assert_eq!(server.ask(Method::POST, "/v1/session/enter", &session, None).await.status, 204);
    offer("application/sdp", "v=0\r\n".into()).await.assert_problem(409, "not-inside");

    // The room's own operator lets them in, with nothing but their session.
    let operator = server.admit(&booked, 0).await;
    server.post("/v1/session/consent", &operator, json!({"text_version": "2026-01"})).await;
    let command = async |token: &str, path: &str| {
        server.ask(Method::POST, &format!("/v1/rooms/{room}/{path}"), token, None).await
    };
    command(&session, "open").await.assert_problem(403, "forbidden");
    assert_eq!(command(&operator, "open").await.status, 204);
    let admit = format!("participants/{delegato}/admit");
    assert_eq!(command(&operator, &admit).await.status, 204);
    offer("application/sdp", "no sdp at all".into()).await.assert_problem(400, "bad-offer");
    let view = server.get("/v1/session", &session).await.json();
    assert_eq!(view["place"], "inside", "{view}");

    let other = server.book().await;
    let elsewhere = format!("/v1/rooms/{}/open", other["room"]["id"].as_str().unwrap());
    server.ask(Method::POST, &elsewhere, &operator, None).await.assert_problem(403, "forbidden");
    let ledger = server.get(&format!("/v1/rooms/{room}/ledger"), &server.operator).await;
    assert!(ledger.text.contains("let_in") && !ledger.text.contains("Marco"), "{}", ledger.text);
}

#[tokio::test]
async fn the_media_endpoint_answers_clients_of_any_origin() {
    let server = Server::start().await;
    let options = server.ask(Method::OPTIONS, "/v1/session/media", "", None).await;
    assert_eq!(options.status, 204);
    assert_eq!(options.header("accept-post"), "application/sdp");
    assert_eq!(options.header("access-control-allow-origin"), "*");
    assert!(options.header("access-control-expose-headers").contains("location"));
    let refused = server.ask(Method::POST, "/v1/session/media", "", Some(("application/sdp", String::new()))).await;
    refused.assert_problem(401, "unauthenticated");
    assert_eq!(refused.header("access-control-allow-origin"), "*", "a script must be able to read the problem");
    let elsewhere = server.get("/v1/session", "").await;
    assert_eq!(elsewhere.header("access-control-allow-origin"), "", "only the media endpoint is for other origins");
}

#[tokio::test]
async fn assets_are_asked_for_again_and_not_sent_again() {
    let server = Server::start().await;
    let script = server.get("/assets/join.js", "").await;
    assert_eq!(script.status, 200);
    assert!(script.header("content-type").starts_with("text/javascript"), "{:?}", script.headers);
    assert_eq!(script.header("x-content-type-options"), "nosniff");
    let again = Request::get("/assets/join.js").header("if-none-match", script.header("etag"));
    assert_eq!(server.send(again.body(Body::empty()).unwrap()).await.status, 304);
    server.get("/assets/join.html", "").await.assert_problem(404, "not-found");
    let document = server.get("/v1/openapi.json", "").await.json();
    assert!(document["paths"]["/v1/rooms"]["post"].is_object());
}

#[tokio::test]
async fn the_events_tell_the_session_and_then_its_end() {
    let mut server = Server::start().await;
    let booked = server.book().await;
    let session = server.admit(&booked, 1).await;
    let node = server.node.take().unwrap();
    let address = node.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(node.run(async {
        let _ = stopped.await;
    }));

    let follow = async |token: &str| {
        let mut request = format!("ws://{address}/v1/session/events").into_client_request().unwrap();
        let protocols = format!("sportello.v1, bearer.{token}");
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
        tokio_tungstenite::connect_async(request).await
    };
    let (mut events, response) = follow(&session).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "sportello.v1", "the token is not echoed");
    let first: Value = serde_json::from_str(events.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
    assert_eq!((&first["type"], &first["id"]), (&json!("session"), &json!(1)), "{first}");
    assert_eq!(first["session"]["me"]["role"], "delegato");

    let (mut stranger, _) = follow("nobody").await.unwrap();
    let close = stranger.next().await.unwrap().unwrap();
    assert!(close.is_close() && format!("{close:?}").contains("4401"), "{close:?}");

    // The same person on another device: this session is over.
    server.admit(&booked, 1).await;
    let mut last = None;
    while let Some(Ok(message)) = events.next().await {
        last = Some(message);
    }
    assert!(format!("{last:?}").contains("4401"), "{last:?}");

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_demo_books_over_the_api_and_shows_what_was_sent() {
    let mut server = Server::start().await;
    let mut node = server.node.take().unwrap();
    let (keys, messages) = node.add_demo().await.unwrap();
    assert!(keys.iter().any(|(scope, key)| scope == "booking" && *key == server.booking));
    assert_eq!(messages.len(), 3);
    server.router = node.server();
    let another = server.post("/demo/rooms", "", json!({"profile": "videochiamata"})).await;
    assert_eq!(another.status, 201, "{}", another.text);
    let inbox = server.get("/demo/inbox", "").await.json();
    let roles: Vec<_> = inbox.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["operator", "delegato", "delegante", "operator", "citizen"]);
    let link = inbox[0]["join_url"].as_str().unwrap();
    assert!(link.starts_with(&format!("http://{}/join/", node.address())), "{link}");
    server.post("/demo/rooms", "", json!({"profile": "karaoke"})).await.assert_problem(422, "invalid-field");
    assert!(server.get("/", "").await.text.contains("<html"), "the demo's page");
}
