//! For compliance: reading recordings. Decrypted on the way, in ranges, as attachments that browsers do not guess about.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::compliance::{AccessHeader, Reader};
use super::extract::{Path, Query};
use super::problem::Problem;
use crate::control::Secret;
use crate::evidence::{ByteRange, Content, Error, Part, Pieces};
use crate::id::{JobId, RoomId};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(read_manifest))
        .routes(routes!(read_signature))
        .routes(routes!(read_package))
        .routes(routes!(read_original))
        .routes(routes!(read_session_copy))
        .routes(routes!(read_export))
}

/// The bytes of a file.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, format = Binary, example = "…")]
#[expect(dead_code, reason = "the document is made from the type alone")]
pub struct FileBytes(Vec<u8>);

/// A manifest: what a package says of its session, and the hash of every file in it.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
#[expect(dead_code, reason = "the document is made from the type alone")]
pub struct ManifestDocument(Vec<u8>);

/// How a media element names its access.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReadParameters {
    /// The token of an opened access, for media elements of a page: they send no headers.
    #[param(value_type = Option<String>, example = "Z1Q0rN0hV0w2mTq7m3m0b1mYQy1vXb3yq9cQ5m8hV2k")]
    #[expect(dead_code, reason = "read where callers are recognised")]
    access: Option<Secret>,
}

/// In which form an original is read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OriginalParameters {
    /// Whether players can jump in it; `false`, if it is left out: it is as it was recorded. The same clusters then stand
    /// behind a front that tells how long it is and where its keyframes are.
    #[serde(default)]
    #[param(example = true)]
    seekable: bool,
    /// The token of an opened access, for media elements of a page: they send no headers.
    #[param(value_type = Option<String>, example = "Z1Q0rN0hV0w2mTq7m3m0b1mYQy1vXb3yq9cQ5m8hV2k")]
    #[expect(dead_code, reason = "read where callers are recognised")]
    access: Option<Secret>,
}

/// In which form the package is read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PackageParameters {
    /// Whether recordings are decrypted; `false`, if it is left out: they are as they are stored.
    #[serde(default)]
    #[param(example = true)]
    plain: bool,
    /// The token of an opened access, for links of a page: they send no headers.
    #[param(value_type = Option<String>, example = "Z1Q0rN0hV0w2mTq7m3m0b1mYQy1vXb3yq9cQ5m8hV2k")]
    #[expect(dead_code, reason = "read where callers are recognised")]
    access: Option<Secret>,
}

/// `Range`, for the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the document is made from the type alone")]
pub struct RangeHeader {
    /// One range of bytes (RFC 9110, section 14.2); left out, or several: all of them.
    #[param(rename = "Range", required = false, example = "bytes=0-65535")]
    range: String,
}

/// Read the manifest
#[utoipa::path(get, path = "/v1/recordings/{room}/manifest", tag = "compliance", security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader, ReadParameters),
    responses((status = 200, description = "`manifest.json`, to the byte", body = ManifestDocument,
        content_type = "application/json", example = json!({"schema": "sportello-manifest/1", "revision": 1}))))]
async fn read_manifest(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Query(_): Query<ReadParameters>,
    method: Method,
) -> Result<Response, Problem> {
    read(&api, &reader, room, Part::Manifest, None, &method).await
}

/// Read the manifest's signature
///
/// A compact JWS (RFC 7515) over the manifest's bytes, by the key of `/v1/signing-key`.
#[utoipa::path(get, path = "/v1/recordings/{room}/manifest.jws", tag = "compliance",
    security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader, ReadParameters),
    responses((status = 200, description = "`manifest.jws`", body = FileBytes, content_type = "application/jose")))]
async fn read_signature(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Query(_): Query<ReadParameters>,
    method: Method,
) -> Result<Response, Problem> {
    read(&api, &reader, room, Part::Signature, None, &method).await
}

/// Download the package
///
/// As tar, made on the way. `sportello verify` checks it, plain or not.
#[utoipa::path(get, path = "/v1/recordings/{room}/package.tar", tag = "compliance",
    security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader, PackageParameters),
    responses((status = 200, description = "The package", body = FileBytes, content_type = "application/x-tar")))]
async fn read_package(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Query(PackageParameters { plain, .. }): Query<PackageParameters>,
) -> Result<Response, Problem> {
    let grant = reader.may_read(&api, room).await?;
    let (name, pieces) = api.evidence.package(&grant, plain).await?;
    Ok((attached("application/x-tar", &name), body(pieces)).into_response())
}

/// Read an original, or a file beside it
///
/// Decrypted. While the meeting goes on: what is on disk of it, up to the last whole cluster.
#[utoipa::path(get, path = "/v1/recordings/{room}/originals/{file}", tag = "compliance",
    security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("file" = String, Path, description = "The file's name", example = "delegato-1.webm"),
        AccessHeader, RangeHeader, OriginalParameters),
    responses((status = 200, description = "The whole file", body = FileBytes, content_type = "video/webm"),
        (status = 206, description = "The range", body = FileBytes, content_type = "video/webm",
            headers(("Content-Range" = String, description = "Which bytes of how many")))))]
async fn read_original(
    reader: Reader,
    State(api): State<Api>,
    Path((room, file)): Path<(RoomId, String)>,
    Query(OriginalParameters { seekable, .. }): Query<OriginalParameters>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let part = if seekable { Part::Seekable(file) } else { Part::Original(file) };
    read(&api, &reader, room, part, range(&headers), &method).await
}

/// Read the session copy
///
/// Everyone's voice as the first track and every camera, on one timeline. Decrypted; it plays and seeks in browsers.
#[utoipa::path(get, path = "/v1/recordings/{room}/session.webm", tag = "compliance",
    security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), AccessHeader, RangeHeader, ReadParameters),
    responses((status = 200, description = "The whole file", body = FileBytes, content_type = "video/webm"),
        (status = 206, description = "The range", body = FileBytes, content_type = "video/webm",
            headers(("Content-Range" = String, description = "Which bytes of how many")))))]
async fn read_session_copy(
    reader: Reader,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    Query(_): Query<ReadParameters>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    read(&api, &reader, room, Part::Session, range(&headers), &method).await
}

/// Download an export
///
/// Once its job is done; for as long as exports are kept.
#[utoipa::path(get, path = "/v1/recordings/{room}/exports/{job}/file", tag = "compliance",
    security(("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room"), ("job" = JobId, Path, description = "The export's job"),
        AccessHeader, ReadParameters),
    responses((status = 200, description = "The export", content(
        (FileBytes = "video/webm"), (FileBytes = "video/mp4")))))]
async fn read_export(
    reader: Reader,
    State(api): State<Api>,
    Path((room, job)): Path<(RoomId, JobId)>,
    Query(_): Query<ReadParameters>,
    method: Method,
) -> Result<Response, Problem> {
    let grant = reader.may_read(&api, room).await?;
    Ok(answer(api.evidence.read_export(&grant, job, method != Method::HEAD).await?))
}

async fn read(
    api: &Api,
    reader: &Reader,
    room: RoomId,
    part: Part,
    range: Option<ByteRange>,
    method: &Method,
) -> Result<Response, Problem> {
    let grant = reader.may_read(api, room).await?;
    // RFC 9110, section 14.2: a range means something for GET alone.
    let range = range.filter(|_| method == Method::GET);
    match api.evidence.read(&grant, part, range, method != Method::HEAD).await {
        Ok(content) => Ok(answer(content)),
        Err(error) => {
            let length = if let Error::NoSuchPart(length) = error { Some(length) } else { None };
            let mut response = Problem::from(error).into_response();
            if let Some(length) = length.and_then(|length| HeaderValue::try_from(format!("bytes */{length}")).ok()) {
                response.headers_mut().insert(header::CONTENT_RANGE, length);
            }
            Ok(response)
        }
    }
}

fn range(headers: &HeaderMap) -> Option<ByteRange> {
    headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(ByteRange::parse)
}

fn answer(content: Content) -> Response {
    let Content { length, range, name, media_type, body: pieces } = content;
    let mut headers = attached(media_type, &name);
    let mut set = |name, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    set(header::ACCEPT_RANGES, "bytes".into());
    let status = if let Some(range) = range {
        set(header::CONTENT_LENGTH, (range.end - range.start).to_string());
        set(header::CONTENT_RANGE, format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1)));
        StatusCode::PARTIAL_CONTENT
    } else {
        set(header::CONTENT_LENGTH, length.to_string());
        StatusCode::OK
    };
    (status, headers, pieces.map_or_else(Body::empty, body)).into_response()
}

/// For a file that is saved, not shown: even a page that somebody smuggled in would not run.
fn attached(media_type: &'static str, name: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Names of ours are letters, digits, dots and hyphens.
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    headers
}

fn body(pieces: Pieces) -> Body {
    Body::from_stream(futures_util::stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    }))
}
