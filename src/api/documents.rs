//! Documents and written messages: handed in by multipart, read as attachments that no browser guesses about.

use std::fmt::Write as _;

use axum::Json as JsonBody;
use axum::body::Body;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::{Key, Operator, OperatorKey, Participant};
use super::compliance_files::FileBytes;
use super::conditional::{IfMatch, IfMatchHeader};
use super::extract::{Json, Path, Query};
use super::problem::{Kind, Problem};
use crate::control::{ChatMessageView, ChatPage, DayView, DocumentContent, DocumentList, DocumentView, Session};
use crate::documents::MAX_BYTES;
use crate::id::{DocumentId, RoomId};
use crate::register::{DayExport, day_export};
use crate::room::{Command, MOST_MESSAGES};

/// What a multipart body may have around the file: its boundaries, headers and the other field.
const AROUND: usize = 16 << 10;
/// Largest body of an upload.
const UPLOAD_LIMIT: usize = MAX_BYTES + AROUND;
/// So much of a body that is too large is read and thrown away: a browser that is still sending when it is hung up on
/// shows a broken line instead of the reason.
const SWALLOWED: usize = 32 << 20;

/// What a document is served with: nothing in it runs, whatever a browser takes it for.
const SANDBOX: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(read_document, delete_document))
        .routes(routes!(read_receipt))
        .routes(routes!(read_chat, write_message))
        .routes(routes!(list_documents))
        .routes(routes!(read_room_document))
        .routes(routes!(read_room_receipt))
        .routes(routes!(register_document))
        .routes(routes!(tick_step))
        .routes(routes!(list_day))
        .routes(routes!(take_seat))
        .routes(routes!(read_register_day))
}

/// The one route with a large body.
pub(super) fn upload_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(hand_in))
}

/// An upload, as `multipart/form-data`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the API's document is made from the type alone")]
struct UploadForm {
    /// `true`: the sender declares that the document conforms to its original («Conformità all'originale»). Comes before
    /// the file.
    #[schema(example = "true")]
    conforms: String,
    /// The file, with its name.
    #[schema(value_type = String, format = Binary, example = "…")]
    file: Vec<u8>,
}

/// A message to be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewChatMessage {
    /// What.
    #[schema(example = "Buongiorno", min_length = 1, max_length = 2000)]
    pub text: String,
}

/// Which messages.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ChatParameters {
    /// Only those after this number.
    #[serde(default)]
    #[param(example = 0, maximum = 1000)]
    pub after: u64,
}

/// What the register is told of a document.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrationRequest {
    /// What it is about; the room's reason if it is left out.
    #[serde(default)]
    #[schema(example = "Delega: documento di identità del delegante", min_length = 1, max_length = 500)]
    pub subject: Option<String>,
}

/// Whether a step is done.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepTick {
    /// Done, or not any more.
    #[schema(example = true)]
    pub done: bool,
}

/// Which day.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DayParameters {
    /// In Europe/Rome; today if it is left out.
    #[param(value_type = Option<String>, format = Date, example = "2026-01-13")]
    pub date: Option<Date>,
    /// Only this office (sede).
    #[param(example = "Roma")]
    pub office: Option<String>,
}

/// Hand a document in
///
/// The declaration comes first, then the file. What it is is seen by its content: PDF, P7M, JPEG or PNG of at most 3 MB,
/// without anything that acts by itself. The same bytes from the same person are one document: whoever did not get an
/// answer may send them again.
#[utoipa::path(post, path = "/v1/session/documents", tag = "participant", security(("session" = [])),
    request_body(content = UploadForm, content_type = "multipart/form-data", description = "Declaration and file"),
    responses((status = 201, description = "Received", body = DocumentView),
        (status = 200, description = "It was there already", body = DocumentView)))]
async fn hand_in(
    Participant(caller): Participant,
    State(api): State<Api>,
    request: Request,
) -> Result<(StatusCode, JsonBody<DocumentView>), Problem> {
    let upload = api.control.begin_upload(&caller).await?;
    let mut form = whole_form(request).await?;
    let (name, bytes) = read_form(&mut form).await?;
    let (document, new) = api.control.hand_in(upload, &caller, &name, bytes).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, JsonBody(document)))
}

/// The form, once all of it is there: a body that is shorter than it says, or goes on too long, is none.
async fn whole_form(request: Request) -> Result<Multipart, Problem> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut stream = request.into_body().into_data_stream();
    let (mut body, mut length) = (BytesMut::new(), 0);
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| Problem::new(Kind::MALFORMED).detail("the form breaks off"))?;
        length += piece.len();
        if length <= UPLOAD_LIMIT {
            body.extend_from_slice(&piece);
        } else if length > SWALLOWED {
            break;
        }
    }
    if length > UPLOAD_LIMIT {
        return Err(Kind::DOCUMENT_TOO_LARGE.into());
    }
    let mut whole = Request::new(Body::from(body.freeze()));
    whole.headers_mut().extend(content_type.map(|content_type| (header::CONTENT_TYPE, content_type)));
    // It was counted already.
    DefaultBodyLimit::disable().apply(&mut whole);
    let form = Multipart::from_request(whole, &()).await;
    form.map_err(|_| Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE).detail("multipart/form-data with its boundary"))
}

/// The file's name and bytes.
async fn read_form(form: &mut Multipart) -> Result<(String, Bytes), Problem> {
    let mut conforms = false;
    let mut file = None;
    while let Some(mut field) = form.next_field().await.map_err(|error| broken(&error))? {
        match field.name() {
            Some("conforms") if file.is_none() => {
                conforms = &*read_field(&mut field, 16, Kind::TOO_LARGE).await? == b"true";
            }
            Some("file") if file.is_none() => {
                if !conforms {
                    return Err(Kind::CONFORMITY_MISSING.into());
                }
                let name = field.file_name().unwrap_or_default().to_owned();
                file = Some((name, read_field(&mut field, MAX_BYTES, Kind::DOCUMENT_TOO_LARGE).await?));
            }
            _ => return Err(Problem::new(Kind::MALFORMED).detail("one field «conforms», then one field «file»")),
        }
    }
    file.ok_or_else(|| Problem::new(Kind::MALFORMED).detail("there is no field «file»"))
}

async fn read_field(field: &mut Field<'_>, most: usize, too_large: Kind) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        if bytes.len() + chunk.len() > most {
            return Err(too_large.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn broken(error: &MultipartError) -> Problem {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Kind::DOCUMENT_TOO_LARGE.into();
    }
    Problem::new(Kind::MALFORMED).detail("the form cannot be read, or breaks off")
}

/// Read a document
///
/// Its own sender, whoever the operator sent it to, and the operator may.
#[utoipa::path(get, path = "/v1/session/documents/{document}", tag = "participant", security(("session" = [])),
    params(("document" = DocumentId, Path, description = "The document")),
    responses((status = 200, description = "Its bytes, as an attachment",
        content((FileBytes = "application/pdf"), (FileBytes = "application/pkcs7-mime"), (FileBytes = "image/jpeg"),
            (FileBytes = "image/png")))))]
async fn read_document(
    Participant(caller): Participant,
    State(api): State<Api>,
    Path(document): Path<DocumentId>,
) -> Result<Response, Problem> {
    Ok(attachment(api.control.document_content(Some(caller), caller.room, document).await?))
}

/// Take a document back
///
/// Its bytes are removed, its line stays. What was sent to the register stays too (`document-registered`).
#[utoipa::path(delete, path = "/v1/session/documents/{document}", tag = "participant", security(("session" = [])),
    params(("document" = DocumentId, Path, description = "One's own document")),
    responses((status = 204, description = "Deleted")))]
async fn delete_document(
    Participant(caller): Participant,
    State(api): State<Api>,
    Path(document): Path<DocumentId>,
) -> Result<StatusCode, Problem> {
    api.control.delete_document(&caller, document).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read a registered document's receipt
#[utoipa::path(get, path = "/v1/session/documents/{document}/receipt", tag = "participant",
    security(("session" = [])),
    params(("document" = DocumentId, Path, description = "The document")),
    responses((status = 200, description = "A PDF", body = FileBytes, content_type = "application/pdf")))]
async fn read_receipt(
    Participant(caller): Participant,
    State(api): State<Api>,
    Path(document): Path<DocumentId>,
) -> Result<Response, Problem> {
    let (name, bytes) = api.control.document_receipt(Some(caller), caller.room, document).await?;
    Ok(served(&name, "application/pdf", bytes))
}

/// What is written in the room
#[utoipa::path(get, path = "/v1/session/chat", tag = "participant", security(("session" = [])),
    params(ChatParameters),
    responses((status = 200, description = "Messages, oldest first", body = ChatPage)))]
async fn read_chat(
    Participant(caller): Participant,
    State(api): State<Api>,
    Query(parameters): Query<ChatParameters>,
) -> Result<JsonBody<ChatPage>, Problem> {
    if parameters.after > MOST_MESSAGES {
        let allowed = format!("a message's number, at most {MOST_MESSAGES}");
        return Err(Problem::new(Kind::INVALID_FIELD).field("after").detail(allowed));
    }
    Ok(JsonBody(api.control.chat(&caller, parameters.after).await?))
}

/// Write a message
#[utoipa::path(post, path = "/v1/session/chat", tag = "participant", security(("session" = [])),
    request_body(content = NewChatMessage, description = "The message"),
    responses((status = 201, description = "Written", body = ChatMessageView)))]
async fn write_message(
    Participant(caller): Participant,
    State(api): State<Api>,
    Json(message): Json<NewChatMessage>,
) -> Result<(StatusCode, JsonBody<ChatMessageView>), Problem> {
    Ok((StatusCode::CREATED, JsonBody(api.control.write_message(&caller, message.text).await?)))
}

/// A room's documents
#[utoipa::path(get, path = "/v1/rooms/{room}/documents", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    responses((status = 200, description = "All that were handed in", body = DocumentList)))]
async fn list_documents(
    operator: Operator,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<JsonBody<DocumentList>, Problem> {
    Ok(JsonBody(api.control.documents(operator.may_run(room)?).await?))
}

/// Read one of a room's documents
#[utoipa::path(get, path = "/v1/rooms/{room}/documents/{document}", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("document" = DocumentId, Path, description = "The document")),
    responses((status = 200, description = "Its bytes, as an attachment",
        content((FileBytes = "application/pdf"), (FileBytes = "application/pkcs7-mime"), (FileBytes = "image/jpeg"),
            (FileBytes = "image/png")))))]
async fn read_room_document(
    operator: Operator,
    State(api): State<Api>,
    Path((room, document)): Path<(RoomId, DocumentId)>,
) -> Result<Response, Problem> {
    let room = operator.may_run(room)?;
    Ok(attachment(api.control.document_content(operator.session(), room, document).await?))
}

/// Read the receipt of one of a room's documents
#[utoipa::path(get, path = "/v1/rooms/{room}/documents/{document}/receipt", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("document" = DocumentId, Path, description = "The document")),
    responses((status = 200, description = "A PDF", body = FileBytes, content_type = "application/pdf")))]
async fn read_room_receipt(
    operator: Operator,
    State(api): State<Api>,
    Path((room, document)): Path<(RoomId, DocumentId)>,
) -> Result<Response, Problem> {
    let room = operator.may_run(room)?;
    let (name, bytes) = api.control.document_receipt(operator.session(), room, document).await?;
    Ok(served(&name, "application/pdf", bytes))
}

/// Register a document
///
/// It gets the next number of the year in which it was handed in, at once or as soon as the register answers; its date is
/// that of the hand-in. What was registered can neither be changed nor deleted.
#[utoipa::path(post, path = "/v1/rooms/{room}/documents/{document}/register", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("document" = DocumentId, Path, description = "The document"),
        IfMatchHeader),
    request_body(content = RegistrationRequest, description = "What it is about"),
    responses((status = 202, description = "Sent to the register", body = DocumentView)))]
async fn register_document(
    operator: Operator,
    State(api): State<Api>,
    Path((room, document)): Path<(RoomId, DocumentId)>,
    expected: IfMatch,
    Json(request): Json<RegistrationRequest>,
) -> Result<(StatusCode, JsonBody<DocumentView>), Problem> {
    let room = operator.may_run(room)?;
    let asked = api.control.register_document(operator.session(), room, document, request.subject, expected.0).await?;
    Ok((StatusCode::ACCEPTED, JsonBody(asked.0)))
}

/// Tick a step of the meeting off
#[utoipa::path(put, path = "/v1/rooms/{room}/steps/{step}", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("step" = String, Path, description = "One of the profile's steps", example = "identity"),
        IfMatchHeader),
    request_body(content = StepTick, description = "Whether it is done"),
    responses((status = 204, description = "Noted in the ledger")))]
async fn tick_step(
    operator: Operator,
    State(api): State<Api>,
    Path((room, step)): Path<(RoomId, String)>,
    expected: IfMatch,
    Json(StepTick { done }): Json<StepTick>,
) -> Result<StatusCode, Problem> {
    let room = operator.may_run(room)?;
    api.control.command_of(operator.session(), room, Command::TickStep { step, done }, expected.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The appointments of a day
///
/// For the operators' console: where each room stands, who waits and since when, and what their device checks found.
#[utoipa::path(get, path = "/v1/appointments", tag = "operator", security(("operator key" = [])),
    params(DayParameters),
    responses((status = 200, description = "By their start", body = DayView)))]
async fn list_day(
    _: Key<OperatorKey>,
    State(api): State<Api>,
    Query(DayParameters { date, office }): Query<DayParameters>,
) -> Result<JsonBody<DayView>, Problem> {
    Ok(JsonBody(api.control.day(date, office).await?))
}

/// Take the operator's seat
///
/// A session of the room's operator without a code, for whoever holds an operator's key. An earlier session of the
/// operator ends. It is written to the ledger.
#[utoipa::path(post, path = "/v1/rooms/{room}/seat", tag = "operator", security(("operator key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    responses((status = 200, description = "The session", body = Session)))]
async fn take_seat(
    _: Key<OperatorKey>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<JsonBody<Session>, Problem> {
    Ok(JsonBody(api.control.take_seat(room).await?))
}

/// The register's day
///
/// The embedded register's entries whose documents were handed in on a day, chained by their hashes (DPR 445/2000,
/// art. 53).
#[utoipa::path(get, path = "/v1/register/days/{date}", tag = "operator", security(("operator key" = [])),
    params(("date" = String, Path, description = "The day in Europe/Rome", example = "2026-01-13")),
    responses((status = 200, description = "The day's entries", body = DayExport)))]
async fn read_register_day(
    _: Key<OperatorKey>,
    State(api): State<Api>,
    Path(date): Path<Date>,
) -> Result<JsonBody<DayExport>, Problem> {
    let entries = api.control.register_day(date).await?;
    Ok(JsonBody(day_export(date, &entries)))
}

fn attachment(content: DocumentContent) -> Response {
    served(&content.name, content.kind.media_type(), content.bytes)
}

/// A file that browsers save and never show, whatever is in it.
fn served(name: &str, media_type: &'static str, bytes: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CONTENT_DISPOSITION, disposition(name)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX)),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, bytes).into_response()
}

/// `attachment` with the name in the one form that carries every letter (RFC 6266, RFC 8187).
fn disposition(name: &str) -> HeaderValue {
    let mut encoded = String::from("attachment; filename*=UTF-8''");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_only_ever_a_name() {
        let said = |name| disposition(name).to_str().unwrap().to_owned();
        assert_eq!(said("carta.pdf"), "attachment; filename*=UTF-8''carta.pdf");
        assert_eq!(
            said("identità \"x\"\r\n;.pdf"),
            "attachment; filename*=UTF-8''identit%C3%A0%20%22x%22%0D%0A%3B.pdf"
        );
    }
}
