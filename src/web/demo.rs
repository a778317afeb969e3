//! The demo's booking system: it books rooms over the REST API with its booking key, like any other, and shows what
//! the SMS gateway would have sent in an inbox.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json as JsonBody, Router};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower::ServiceExt as _;

use crate::api::Secret;
use crate::api::extract::Json;
use crate::clock::Clock;

/// Messages that the inbox keeps: some thirty rooms. More would only be scrolled past.
const INBOX_MESSAGES: usize = 100;
/// Length of an appointment that begins at once; long enough to look around.
const LOOK_AROUND: SignedDuration = SignedDuration::from_mins(60);
/// Where the demo's appointments are, unless one chooses.
const OFFICE: &str = "Roma";
/// Largest answer that is read from the API, bytes; a booking's is under 8 KiB.
const ANSWER_LIMIT: usize = 64 << 10;

/// The demo's booking system and inbox. Clones share the inbox.
#[derive(Clone)]
pub struct Demo {
    /// The server's own routes: the API as every client sees it, without a socket in between.
    server: Router,
    booking_key: Arc<str>,
    /// What the SMS gateway would be given.
    text_of: TextOf,
    clock: Clock,
    inbox: Arc<Mutex<VecDeque<DemoMessage>>>,
}

/// The text message with a code: of the code, the office and the start of the appointment.
pub type TextOf = fn(&Secret, &str, Timestamp) -> Secret;

/// One message of the inbox: what a person gets by e-mail (the link) and by SMS (the code).
#[derive(Clone, Serialize)]
pub struct DemoMessage {
    /// The room.
    pub room: String,
    /// Its profile.
    pub profile: String,
    /// Where the appointment is.
    pub office: String,
    /// At which counter.
    pub counter: String,
    /// When it begins.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
    /// The person's role.
    pub role: String,
    /// Their name; all demo people are made up.
    pub name: String,
    /// The telephone number that the SMS would go to.
    pub phone: String,
    /// Their join link.
    pub join_url: String,
    /// Their admission code.
    pub code: String,
    /// The SMS.
    pub text: String,
    /// When it was «sent», RFC 3339.
    pub at: Timestamp,
}

/// The API did not book the demo's room; its answer, as it is.
#[derive(Debug)]
pub struct NotBooked {
    status: StatusCode,
    content_type: String,
    body: Vec<u8>,
}

impl std::fmt::Display for NotBooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the API answered {}: {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

impl std::error::Error for NotBooked {}

/// What the demo's page asks for: a service, and what the form tells besides. The API judges all of it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The profile: `delega` or `videochiamata`.
    pub profile: String,
    /// Where; without it in the demo's office.
    pub office: Option<String>,
    /// At which counter.
    pub counter: Option<String>,
    /// When it begins; without it now, and then for long enough to look around.
    pub start: Option<Timestamp>,
    /// Who delegates, if it is not the made-up person.
    pub delegante: Option<Delegante>,
}

/// The person who delegates, as the delegato names them when booking.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegante {
    name: String,
    fiscal_code: String,
}

impl Wish {
    /// A room of this profile that begins now.
    pub fn of(profile: &str) -> Self {
        Self { profile: profile.into(), ..Self::default() }
    }
}

/// What the demo reads of a booking's answer.
#[derive(Deserialize)]
struct Booked {
    room: BookedRoom,
    participants: Vec<Invitation>,
}

#[derive(Deserialize)]
struct BookedRoom {
    id: String,
    profile: String,
    office: String,
    counter: String,
    start: Timestamp,
    end: Timestamp,
}

#[derive(Deserialize)]
struct Invitation {
    role: String,
    name: String,
    join_url: String,
    code: String,
}

impl Demo {
    /// A booking system for the API that `server` answers.
    pub fn new(server: Router, booking_key: &str, text_of: TextOf, clock: Clock) -> Self {
        Self { server, booking_key: booking_key.into(), text_of, clock, inbox: Arc::default() }
    }

    /// The demo's own routes: its page, the inbox, and a way to book another room.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/", get(async || super::page("demo.html")))
            .route("/demo/inbox", get(inbox))
            .route("/demo/rooms", post(book))
            .with_state(self)
    }

    /// Books a room and puts everyone's message into the inbox.
    ///
    /// # Errors
    /// What the API answered instead.
    pub async fn book(&self, wish: Wish) -> Result<Vec<DemoMessage>, NotBooked> {
        let now = self.clock.now().wall;
        let (counter, reason, length) = match wish.profile.as_str() {
            "videochiamata" => ("Indennità e ammortizzatori sociali", "Richiesta maggiori informazioni", 20),
            _ => ("Deleghe", "Delega dell'identità digitale", 30),
        };
        let length = wish.start.map_or(LOOK_AROUND, |_| SignedDuration::from_mins(length));
        let start = wish.start.unwrap_or(now);
        let booking = json!({
            "profile": wish.profile,
            "office": wish.office.as_deref().unwrap_or(OFFICE),
            "counter": wish.counter.as_deref().unwrap_or(counter),
            "reason": reason,
            "start": start.to_string(),
            "end": start.saturating_add(length).unwrap_or(start).to_string(),
            "reference": "DEMO",
            "participants": people_of(&wish),
        });
        let request = Request::post("/v1/rooms")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.booking_key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(booking.to_string()));
        let failed = |reason: String| NotBooked {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            content_type: "text/plain; charset=utf-8".into(),
            body: reason.into_bytes(),
        };
        let request = request.map_err(|error| failed(error.to_string()))?;
        let Ok(response) = self.server.clone().oneshot(request).await;
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, ANSWER_LIMIT).await.map_err(|error| failed(error.to_string()))?;
        if head.status != StatusCode::CREATED {
            let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
            return Err(NotBooked { status: head.status, content_type, body: body.to_vec() });
        }
        let booked: Booked = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
        Ok(self.deliver(booked, now))
    }

    fn deliver(&self, booked: Booked, at: Timestamp) -> Vec<DemoMessage> {
        let BookedRoom { id, profile, office, counter, start, end } = booked.room;
        let messages: Vec<_> = booked
            .participants
            .into_iter()
            .map(|Invitation { role, name, join_url, code }| DemoMessage {
                room: id.clone(),
                profile: profile.clone(),
                office: office.clone(),
                counter: counter.clone(),
                start,
                end,
                phone: phone_of(&role).into(),
                text: (self.text_of)(&Secret::new(code.clone()), &office, start).expose().to_owned(),
                role,
                name,
                join_url,
                code,
                at,
            })
            .collect();
        // Nothing can be half done behind this lock, so a poisoned one is as good as any.
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.extend(messages.iter().cloned());
        let surplus = inbox.len().saturating_sub(INBOX_MESSAGES);
        inbox.drain(..surplus);
        messages
    }
}

impl std::fmt::Debug for Demo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Demo(…)")
    }
}

async fn inbox(State(demo): State<Demo>) -> JsonBody<Vec<DemoMessage>> {
    let inbox = demo.inbox.lock().unwrap_or_else(PoisonError::into_inner);
    JsonBody(inbox.iter().cloned().collect())
}

async fn book(State(demo): State<Demo>, Json(wish): Json<Wish>) -> Response {
    match demo.book(wish).await {
        Ok(messages) => (StatusCode::CREATED, JsonBody(messages)).into_response(),
        Err(NotBooked { status, content_type, body }) => {
            (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
        }
    }
}

/// Who takes part. The people are made up, unless the page named one; so are the numbers.
fn people_of(wish: &Wish) -> serde_json::Value {
    let delegante = wish.delegante.as_ref();
    let (name, fiscal_code) =
        delegante.map_or(("Anna Conti", "CNTNNA48M52F205X"), |named| (&*named.name, &*named.fiscal_code));
    let operator =
        json!({"role": "operator", "name": "Giulia Ferri", "phone": phone_of("operator"), "operator_number": "OP-042"});
    let delegato = json!({"role": "delegato", "name": "Marco Bianchi", "phone": phone_of("delegato"), "fiscal_code": "BNCMRC85T10H501K"});
    let delegante =
        json!({"role": "delegante", "name": name, "phone": phone_of("delegante"), "fiscal_code": fiscal_code});
    let citizen = json!({"role": "citizen", "name": "Luca Moretti", "phone": phone_of("citizen"), "fiscal_code": "MRTLCU79A01L219P"});
    match wish.profile.as_str() {
        "videochiamata" => json!([operator, citizen]),
        _ => json!([operator, delegato, delegante]),
    }
}

fn phone_of(role: &str) -> &'static str {
    match role {
        "operator" => "+390600000001",
        "delegato" => "+393330000002",
        "delegante" => "+393330000003",
        _ => "+393330000004",
    }
}
