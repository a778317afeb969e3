//! For compliance: finding recordings, saying why one looks, holding, keeping, destroying, and long work. Reading them is in
//! [`super::compliance_files`].

use axum::Json as JsonBody;
use axum::extract::{FromRequestParts, Query as AxumQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::{self, CallerId, Key, granted_for};
use super::booking::within;
use super::extract::{Json, Path};
use super::problem::{Kind, Problem};
use crate::audit::Line;
use crate::control::{LedgerLine, Personal, Scope, Secret};
use crate::evidence::{
    Error, ExportFormat, Grant, JobView, OpenedAccess, OriginalView, RecordingFilter, RecordingPage, SigningJwk,
};
use crate::id::{JobId, RoomId};

/// The header that names an opened access.
const ACCESS: HeaderName = HeaderName::from_static("sportello-access");

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(search_recordings))
        .routes(routes!(open_access, list_accesses))
        .routes(routes!(show_recorded_ledger))
        .routes(routes!(list_originals))
        .routes(routes!(place_hold, lift_hold))
        .routes(routes!(set_retention))
        .routes(routes!(destroy_recording))
        .routes(routes!(verify_recording))
        .routes(routes!(export_recording))
        .routes(routes!(show_job))
        .routes(routes!(show_signing_key))
}

/// Which recordings to find, and why. Filters are joined by «and».
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Why somebody looks; written to the audit, for ever: names nobody. 1 to 500 characters.
    #[schema(example = "Reclamo 2026/17", min_length = 1, max_length = 500)]
    pub reason: String,
    /// Only appointments that begin at or after this, RFC 3339.
    #[serde(default)]
    #[schema(example = "2026-01-13T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// Only appointments that begin before this, RFC 3339.
    #[serde(default)]
    #[schema(example = "2026-01-14T00:00:00Z")]
    pub to: Option<Timestamp>,
    /// Only this office (sede).
    #[serde(default)]
    #[schema(example = "Roma")]
    pub office: Option<String>,
    /// Only this counter (sportello).
    #[serde(default)]
    #[schema(example = "Deleghe")]
    pub counter: Option<String>,
    /// Only this room.
    #[serde(default)]
    pub room: Option<RoomId>,
    /// Only rooms into which someone with this fiscal code (codice fiscale) was booked. It is not written to the audit.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "RSSMRA80A41H501W")]
    pub fiscal_code: Option<Personal>,
    /// The `next_cursor` of the page before.
    #[serde(default)]
    #[schema(example = "MTc2ODI5NDgwMDAwMCAwMTk5YzFjMi03YjFlLTdjYzMtOWE1ZS0wZjRiN2M3ZTJkMTE")]
    pub cursor: Option<String>,
    /// Most recordings of a page, 1 to 200; 50, if it is left out.
    #[serde(default)]
    #[schema(example = 50, minimum = 1, maximum = 200)]
    pub limit: Option<u16>,
}

/// Why something is done.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// Why; written to the audit, for ever: names nobody. 1 to 500 characters.
    #[schema(example = "Reclamo 2026/17", min_length = 1, max_length = 500)]
    pub reason: String,
}

/// Until when recordings are kept.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Until when, RFC 3339; then they are destroyed. `null`: they are kept until someone sets a date.
    #[schema(example = "2036-01-13T00:00:00Z")]
    pub until: Option<Timestamp>,
    /// Why; written to the audit, for ever: names nobody. 1 to 500 characters.
    #[schema(example = "Massimario di scarto 2026, voce 12", min_length = 1, max_length = 500)]
    pub reason: String,
}

/// What to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// In which form.
    pub format: ExportFormat,
}

/// What remains of destroyed recordings.
#[derive(Debug, Serialize, ToSchema)]
pub struct Destroyed {
    /// The signed note: a compact JWS (RFC 7515) by the key of `/v1/signing-key`.
    #[schema(example = "eyJhbGciOiJFZERTQSJ9.eyJyb29tIjoi4oCmIn0.c2lnbmF0dXJl")]
    pub note: String,
}

/// Who reads a recording, by the access that they opened: `Sportello-Access`, with the key of whoever opened it; or, for
/// media elements of a page, which send no headers, `access` in the query alone.
#[derive(Debug)]
pub struct Reader {
    token: Option<String>,
    caller: Option<CallerId>,
}

/// [`Reader`], for the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the document is made from the type alone")]
pub struct AccessHeader {
    /// The token of an opened access to this room.
    #[param(
        rename = "Sportello-Access",
        required = false,
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z0-9_-]+$",
        example = "Z1Q0rN0hV0w2mTq7m3m0b1mYQy1vXb3yq9cQ5m8hV2k"
    )]
    sportello_access: String,
}

/// The access of a media element.
#[derive(Debug, Deserialize)]
struct AccessInQuery {
    access: Option<Secret>,
}

impl FromRequestParts<Api> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let in_header = parts.headers.get(ACCESS).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let in_query = AxumQuery::<AccessInQuery>::try_from_uri(&parts.uri).ok().and_then(|query| query.0.access);
        let in_query = in_query.map(|access| access.expose().to_owned());
        let caller = if parts.headers.contains_key(header::AUTHORIZATION) {
            Some(granted_for(api, &parts.headers, &[Scope::Compliance]).await?)
        } else if in_header.is_none() && in_query.is_some() {
            None
        } else {
            return Err(Kind::UNAUTHENTICATED.into());
        };
        Ok(Self { token: in_header.or(in_query), caller })
    }
}

impl Reader {
    /// The access, if it is open, and for this room and caller.
    ///
    /// # Errors
    /// 403; without a key 401, as for any wrong token.
    pub async fn may_read(&self, api: &Api, room: RoomId) -> Result<Grant, Problem> {
        let caller = self.caller.map(|caller| caller.to_string());
        let token = self.token.as_deref().unwrap_or_default();
        match api.evidence.grant(token, caller.as_deref(), room).await {
            Err(Error::NoAccess) if caller.is_none() => Err(Kind::UNAUTHENTICATED.into()),
            Err(Error::NoAccess) => {
                // Who may open an access may know to what.
                api.evidence.must_be_known(room).await?;
                Err(Error::NoAccess.into())
            }
            grant => Ok(grant?),
        }
    }
}

/// Find recordings
///
/// Newest first, a page at a time. What was looked for and found is written to the audit, with the reason.
#[utoipa::path(post, path = "/v1/recordings/search", tag = "compliance", security(("compliance key" = [])),
    request_body(content = Search, description = "Which, and why"),
    responses((status = 200, description = "A page of recordings", body = RecordingPage)))]
async fn search_recordings(
    key: Key<auth::Compliance>,
    State(api): State<Api>,
    Json(asked): Json<Search>,
) -> Result<JsonBody<RecordingPage>, Problem> {
    let filter = RecordingFilter {
        from: asked.from,
        to: asked.to,
        office: asked.office,
        counter: asked.counter,
        room: asked.room,
        fiscal_code: asked.fiscal_code,
        after: None,
        limit: within("limit", asked.limit, 50, 200)?.into(),
    };
    let caller = key.caller().to_string();
    Ok(JsonBody(api.evidence.search(&caller, &asked.reason, filter, asked.cursor.as_deref()).await?))
}

/// Open an access to a recording
///
/// With the reason. The token that it gives is good for an hour, for this room and this caller; each use is written to
/// the audit.
#[utoipa::path(post, path = "/v1/recordings/{room}/accesses", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    request_body(content = Reason, description = "Why"),
    responses((status = 201, description = "Open; the token is told this once", body = OpenedAccess)))]
async fn open_access(
    key: Key<auth::Compliance>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Json(Reason { reason }): Json<Reason>,
) -> Result<(StatusCode, JsonBody<OpenedAccess>), Problem> {
    let opened = api.evidence.open_access(&key.caller().to_string(), room, &reason).await?;
    Ok((StatusCode::CREATED, JsonBody(opened)))
}

/// Show who did what with a recording
///
/// Every line of the audit about this room, oldest first; this look is the last. Each line's hash covers the line
/// before it, and the one before it about the same room.
#[utoipa::path(get, path = "/v1/recordings/{room}/accesses", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader),
    responses((status = 200, description = "The room's audit", body = Vec<Line>)))]
async fn list_accesses(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<JsonBody<Vec<Line>>, Problem> {
    let grant = reader.may_read(&api, room).await?;
    Ok(JsonBody(api.evidence.history(&grant).await?))
}

/// Show a recorded room's ledger
///
/// As `GET /v1/rooms/{room}/ledger`, and written to the audit.
#[utoipa::path(get, path = "/v1/recordings/{room}/ledger", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader),
    responses((status = 200, description = "The ledger", body = Vec<LedgerLine>)))]
async fn show_recorded_ledger(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<JsonBody<Vec<LedgerLine>>, Problem> {
    let grant = reader.may_read(&api, room).await?;
    let lines = api.evidence.ledger(&grant).await?;
    Ok(JsonBody(lines.into_iter().map(LedgerLine::from).collect()))
}

/// List a recording's originals
///
/// With the files beside them: chains, and what the recorder wrote down. While the meeting goes on, those of now.
#[utoipa::path(get, path = "/v1/recordings/{room}/originals", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader),
    responses((status = 200, description = "The files, by name", body = Vec<OriginalView>)))]
async fn list_originals(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<JsonBody<Vec<OriginalView>>, Problem> {
    let grant = reader.may_read(&api, room).await?;
    Ok(JsonBody(api.evidence.originals(&grant).await?))
}

/// Put a recording on hold
///
/// Nothing destroys it until the hold is lifted. On hold already, it is for this reason from now on.
#[utoipa::path(put, path = "/v1/recordings/{room}/hold", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    request_body(content = Reason, description = "Why"),
    responses((status = 204, description = "On hold")))]
async fn place_hold(
    key: Key<auth::Compliance>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Json(Reason { reason }): Json<Reason>,
) -> Result<StatusCode, Problem> {
    api.evidence.hold(&key.caller().to_string(), room, &reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lift the hold
///
/// For the reason of the access that is named.
#[utoipa::path(delete, path = "/v1/recordings/{room}/hold", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader),
    responses((status = 204, description = "Not on hold any more")))]
async fn lift_hold(reader: Reader, State(api): State<Api>, Path(room): Path<RoomId>) -> Result<StatusCode, Problem> {
    let grant = reader.with_key()?.may_read(&api, room).await?;
    api.evidence.lift_hold(&grant).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set until when a recording is kept
#[utoipa::path(put, path = "/v1/recordings/{room}/retention", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    request_body(content = Retention, description = "Until when, and why"),
    responses((status = 204, description = "Set")))]
async fn set_retention(
    key: Key<auth::Compliance>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Json(Retention { until, reason }): Json<Retention>,
) -> Result<StatusCode, Problem> {
    api.evidence.set_retention(&key.caller().to_string(), room, until, &reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Destroy a recording
///
/// Its key first, and with it every copy, wherever that is; then its files. Not under hold, and not before its
/// retention is over: without a date it never is. A signed note remains.
#[utoipa::path(post, path = "/v1/recordings/{room}/destroy", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    request_body(content = Reason, description = "Why"),
    responses((status = 200, description = "Destroyed", body = Destroyed)))]
async fn destroy_recording(
    key: Key<auth::Compliance>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Json(Reason { reason }): Json<Reason>,
) -> Result<JsonBody<Destroyed>, Problem> {
    // To its end, even if the caller goes away: half of it is none of it for whoever asks next.
    let (evidence, caller) = (api.evidence.clone(), key.caller().to_string());
    let done = tokio::spawn(async move { evidence.destroy(&caller, room, &reason).await });
    let note = done.await.map_err(|_| Problem::new(Kind::INTERNAL))??;
    Ok(JsonBody(Destroyed { note }))
}

/// Check a recording
///
/// Every byte of its package, as a job.
#[utoipa::path(post, path = "/v1/recordings/{room}/verify", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader),
    responses((status = 202, description = "Queued", body = JobView)))]
async fn verify_recording(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<(StatusCode, JsonBody<JobView>), Problem> {
    let grant = reader.with_key()?.may_read(&api, room).await?;
    Ok((StatusCode::ACCEPTED, JsonBody(api.evidence.verify(&grant).await?)))
}

/// Export a recording
///
/// Everyone in one picture, with names, roles and the time, as a job. For browsers and for preservation: what proves
/// something is the package.
#[utoipa::path(post, path = "/v1/recordings/{room}/exports", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader),
    request_body(content = Export, description = "In which form"),
    responses((status = 202, description = "Queued", body = JobView)))]
async fn export_recording(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Json(Export { format }): Json<Export>,
) -> Result<(StatusCode, JsonBody<JobView>), Problem> {
    let grant = reader.with_key()?.may_read(&api, room).await?;
    Ok((StatusCode::ACCEPTED, JsonBody(api.evidence.export(&grant, format).await?)))
}

/// Show a job
///
/// How far it is, and what came out. Forgotten some time after its end.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "compliance", security(("compliance key" = [])),
    params(("job" = JobId, Path, description = "The job")),
    responses((status = 200, description = "The job as it is now", body = JobView)))]
async fn show_job(
    _: Key<auth::Compliance>,
    State(api): State<Api>,
    Path(job): Path<JobId>,
) -> Result<JsonBody<JobView>, Problem> {
    Ok(JsonBody(api.evidence.job(job).await?))
}

/// Show the public key of signatures
///
/// As a JWK (RFC 7517, RFC 8037): what checks manifests and notes of destruction. Its owner should also keep it elsewhere.
#[utoipa::path(get, path = "/v1/signing-key", tag = "compliance",
    responses((status = 200, description = "The key", body = SigningJwk)))]
async fn show_signing_key(State(api): State<Api>) -> JsonBody<SigningJwk> {
    JsonBody(api.evidence.signing_key())
}

impl Reader {
    /// The same, who must have come with a key: a link to a recording must not be one that changes something.
    ///
    /// # Errors
    /// 401.
    pub fn with_key(self) -> Result<Self, Problem> {
        if self.caller.is_some() { Ok(self) } else { Err(Kind::UNAUTHENTICATED.into()) }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let said = error.to_string();
        let kind = match error {
            Error::UnknownRecording => Kind::UNKNOWN_RECORDING,
            Error::UnknownFile | Error::NoExport => Kind::UNKNOWN_FILE,
            Error::UnknownJob => Kind::UNKNOWN_JOB,
            Error::NoAccess => Kind::ACCESS_REQUIRED,
            Error::Invalid { field, reason } => return Self::new(Kind::INVALID_FIELD).detail(reason).field(field),
            Error::NoSuchPart(_) => Kind::RANGE_NOT_SATISFIABLE,
            Error::NotOver => Kind::MEETING_NOT_OVER,
            Error::NotSealed => Kind::NOT_SEALED,
            Error::Held => Kind::ON_HOLD,
            Error::NotHeld => Kind::NOT_ON_HOLD,
            Error::Kept(until) => {
                let detail = until.map_or("nobody has set a date".into(), |until| format!("kept until {until}"));
                return Self::new(Kind::RETENTION_NOT_OVER).detail(detail);
            }
            Error::Busy => Kind::BEING_SEALED,
            Error::Destroyed => Kind::DESTROYED,
            Error::TooManyJobs(_) => Kind::TOO_MANY_JOBS,
            Error::TooBusy => Kind::UNAVAILABLE,
            Error::Unavailable(fault) => {
                tracing::error!(%fault, "a request could not be served");
                return Kind::UNAVAILABLE.into();
            }
        };
        Self::new(kind).detail(said)
    }
}
