//! The public REST API, as a booking system, an officer and a citizen use it.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::appointment::Appointment;

/// One server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    url: String,
}

/// What a booking gives back.
#[derive(Debug, Deserialize)]
pub struct Booked {
    /// The room.
    pub room: Room,
    /// Everyone's way in, in the booking's order.
    pub participants: Vec<Participant>,
}

/// The part of a room's view that is used here.
#[derive(Debug, Deserialize)]
pub struct Room {
    /// Its name.
    pub id: String,
    /// Where it stands, in the API's words.
    pub phase: String,
}

/// A file of a recording.
#[derive(Debug, Deserialize)]
pub struct Original {
    /// Its name.
    pub file: String,
}

/// An access to a recording, for its hour.
#[derive(Debug, Deserialize)]
pub struct Access {
    token: String,
}

/// One person's way in.
#[derive(Debug, Deserialize)]
pub struct Participant {
    /// Their name in the room.
    pub id: String,
    /// Their role, in the API's words.
    pub role: String,
    /// The link: it identifies.
    pub join_token: String,
    /// The code: it admits.
    pub code: String,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server was not reached, or its answer was not what it should be.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// It refused.
    #[error("{what}: {status} {problem}")]
    Refused {
        /// Method and path.
        what: String,
        /// HTTP status.
        status: u16,
        /// The problem document.
        problem: String,
    },
    /// Its answer lacks something.
    #[error("{0}")]
    Answer(&'static str),
}

impl Api {
    /// A client of the server at `url`.
    pub fn new(url: &str) -> Self {
        Self { http: reqwest::Client::new(), url: url.trim_end_matches('/').to_owned() }
    }

    /// The address of `path`.
    pub fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Books a room.
    pub async fn book(&self, key: &str, appointment: &Appointment) -> Result<Booked, ApiError> {
        self.book_this(key, &appointment.booking()).await
    }

    /// Where a room stands, in the API's words.
    pub async fn phase(&self, key: &str, room: &str) -> Result<String, ApiError> {
        Ok(self.get::<Room>(&format!("/v1/rooms/{room}"), key, &[]).await?.phase)
    }

    /// Opens an access to a recording; it is written to the audit.
    pub async fn open_access(&self, key: &str, room: &str, reason: &str) -> Result<Access, ApiError> {
        let (path, reason) = (format!("/v1/recordings/{room}/accesses"), json!({"reason": reason}));
        Ok(self.send(Method::POST, &path, key, |request| request.json(&reason)).await?.json().await?)
    }

    /// Reads a file of a recording, by its path below the room's; decrypted.
    pub async fn read_recording(
        &self,
        key: &str,
        room: &str,
        access: &Access,
        file: &str,
    ) -> Result<Vec<u8>, ApiError> {
        let finish = |request: RequestBuilder| request.header(ACCESS, &access.token).timeout(LONGEST_DOWNLOAD);
        let answer = self.send(Method::GET, &format!("/v1/recordings/{room}/{file}"), key, finish).await?;
        Ok(answer.bytes().await?.into())
    }

    /// Books a room, in the API's own words.
    pub async fn book_this(&self, key: &str, booking: &Value) -> Result<Booked, ApiError> {
        Ok(self.send(Method::POST, "/v1/rooms", key, |request| request.json(booking)).await?.json().await?)
    }

    /// Asks for something, with a query.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        query: &[(&str, String)],
    ) -> Result<T, ApiError> {
        Ok(self.send(Method::GET, path, key, |request| request.query(query)).await?.json().await?)
    }

    /// Types the code, agrees to the recording and enters the waiting room; gives the session token.
    pub async fn join(&self, participant: &Participant) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct Session {
            session_token: String,
        }
        let path = format!("/v1/join/{}", participant.join_token);
        let code = json!({"code": participant.code});
        let request = self.http.post(self.address(&path)).json(&code);
        let Session { session_token: token } = accepted("join", request.send().await?).await?.json().await?;
        let view: Value = self.send(Method::GET, "/v1/session", &token, |request| request).await?.json().await?;
        let version = view.get("consent_text_version").and_then(Value::as_str).unwrap_or_default();
        let consent = json!({"text_version": version});
        self.send(Method::POST, "/v1/session/consent", &token, |request| request.json(&consent)).await?;
        self.send(Method::POST, "/v1/session/enter", &token, |request| request).await?;
        Ok(token)
    }

    /// The operator opens the room.
    pub async fn open(&self, operator: &str, room: &str) -> Result<(), ApiError> {
        self.send(Method::POST, &format!("/v1/rooms/{room}/open"), operator, |request| request).await?;
        Ok(())
    }

    /// The operator lets someone in.
    pub async fn admit(&self, operator: &str, room: &str, participant: &str) -> Result<(), ApiError> {
        let path = format!("/v1/rooms/{room}/participants/{participant}/admit");
        self.send(Method::POST, &path, operator, |request| request).await?;
        Ok(())
    }

    /// The operator ends the meeting. Always `incomplete`: no act was done here.
    pub async fn conclude(&self, operator: &str, room: &str) -> Result<(), ApiError> {
        let outcome = json!({"outcome": "incomplete", "extension_hours": 0});
        let path = format!("/v1/rooms/{room}/conclude");
        self.send(Method::POST, &path, operator, |request| request.json(&outcome)).await?;
        Ok(())
    }

    /// Posts the offer; gives the answer and the connection's location.
    pub async fn offer(&self, session: &str, offer: String) -> Result<(String, String), ApiError> {
        let with_offer = |request: RequestBuilder| request.header(CONTENT_TYPE, "application/sdp").body(offer);
        let answer = self.send(Method::POST, "/v1/session/media", session, with_offer).await?;
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.ok_or(ApiError::Answer("the answer to the offer has no Location"))?.to_owned();
        Ok((answer.text().await?, location))
    }

    /// The server's metrics, in Prometheus' text format.
    pub async fn metrics(&self, key: &str) -> Result<String, ApiError> {
        Ok(self.send(Method::GET, "/metrics", key, |request| request).await?.text().await?)
    }

    /// Ends a media connection.
    pub async fn hang_up(&self, session: &str, location: &str) -> Result<(), ApiError> {
        self.send(Method::DELETE, location, session, |request| request).await?;
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        bearer: &str,
        finish: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, ApiError> {
        let what = format!("{method} {path}");
        let address = if path.starts_with("http") { path.to_owned() } else { self.address(path) };
        let request = self.http.request(method, address).bearer_auth(bearer).timeout(LONGEST_REQUEST);
        accepted(&what, finish(request).send().await?).await
    }
}

/// A server that takes longer than this for one request has failed the run anyway.
const LONGEST_REQUEST: Duration = Duration::from_secs(20);
/// Recordings are long, and decrypted while they are read.
const LONGEST_DOWNLOAD: Duration = Duration::from_mins(10);
/// The header that names an opened access.
const ACCESS: &str = "Sportello-Access";

async fn accepted(what: &str, response: Response) -> Result<Response, ApiError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    Err(ApiError::Refused { what: what.to_owned(), status, problem: response.text().await.unwrap_or_default() })
}
