//! Media sessions: one POST of an SDP offer, one final answer. WHIP clients (RFC 9725) and WHEP clients fit it as they
//! are: an offer that only sends or only receives is answered too.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::Participant;
use super::extract::{Path, text};
use super::problem::Problem;
use crate::id::ConnectionId;

const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// RFC 9110 knows no such header; the Linked Data Platform (section 7.1) does, and WHIP (RFC 9725) asks for it.
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(connect, describe_endpoint))
        .routes(routes!(restart_ice, disconnect, describe_connection))
        .layer(from_fn(allow_other_origins))
}

/// Connect media
///
/// Only for people who agreed to the recording and were let in. The answer is final and holds the server's
/// candidates, so there is no need to gather or send the client's. An earlier connection of the same person ends.
#[utoipa::path(post, path = "/v1/session/media", tag = "media", security(("session" = [])),
    request_body(content = String, content_type = "application/sdp", description = "The SDP offer, at most 128 KiB",
        example = json!("v=0\r\no=- 4611 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n…")),
    responses((status = 201, description = "The SDP answer", body = String, content_type = "application/sdp",
        headers(("Location" = String, description = "The connection's address, for PATCH and DELETE"),
            ("ETag" = String, description = "Names the ICE session")),
        example = json!("v=0\r\no=- 7305 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n…"))))]
async fn connect(
    Participant(caller): Participant,
    State(api): State<Api>,
    request: Request,
) -> Result<Response, Problem> {
    let offer = text(request, &api, SDP).await?;
    let connection = api.control.connect(&caller, offer).await?;
    let location = format!("/v1/session/media/{}", connection.connection);
    let headers = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, location),
        (header::ETAG, ice_tag(&connection.answer)),
    ];
    Ok((StatusCode::CREATED, headers, connection.answer).into_response())
}

/// Restart ICE
///
/// The fragment's new user name and password are answered with the server's. A fragment with candidates only is
/// accepted and not needed: the server learns addresses from the client's checks.
#[utoipa::path(patch, path = "/v1/session/media/{connection}", tag = "media", security(("session" = [])),
    params(("connection" = ConnectionId, Path, description = "The connection")),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag",
        description = "SDP fragment (RFC 8840), at most 128 KiB",
        example = json!("a=ice-ufrag:zW4k\r\na=ice-pwd:Xb1yQy1vXb3yq9cQ5m8hV2kZ\r\n")),
    responses((status = 200, description = "The server's new credentials", body = String,
            content_type = "application/trickle-ice-sdpfrag",
            headers(("ETag" = String, description = "Names the new ICE session")),
            example = json!("a=ice-ufrag:Ab+/9\r\na=ice-pwd:mTq7m3m0b1mYQy1vXb3yq9cQ\r\n")),
        (status = 204, description = "Nothing to answer")))]
async fn restart_ice(
    Participant(caller): Participant,
    State(api): State<Api>,
    Path(connection): Path<ConnectionId>,
    request: Request,
) -> Result<Response, Problem> {
    // RFC 9725, section 4.3.1: a restart says `If-Match: *`; an entity tag says that these are candidates of the session
    // that it names. They are not needed, and must not restart the session back to credentials from before.
    let names_session = request.headers().get(header::IF_MATCH).is_some_and(|tag| tag.as_bytes() != b"*");
    let mut fragment = text(request, &api, SDP_FRAGMENT).await?;
    if names_session {
        fragment.clear();
    }
    Ok(match api.control.restart_ice(&caller, connection, fragment).await? {
        Some(answer) => {
            let headers = [(header::CONTENT_TYPE, SDP_FRAGMENT.to_owned()), (header::ETAG, ice_tag(&answer))];
            (headers, answer).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Disconnect media
#[utoipa::path(delete, path = "/v1/session/media/{connection}", tag = "media", security(("session" = [])),
    params(("connection" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, description = "Disconnected")))]
async fn disconnect(
    Participant(caller): Participant,
    State(api): State<Api>,
    Path(connection): Path<ConnectionId>,
) -> Result<StatusCode, Problem> {
    api.control.disconnect(&caller, connection).await?;
    // RFC 9725, section 4.2: 200, not 204.
    Ok(StatusCode::OK)
}

/// What the media endpoint takes
#[utoipa::path(options, path = "/v1/session/media", tag = "media",
    responses((status = 204, description = "See `Accept-Post`",
        headers(("Accept-Post" = String, description = "`application/sdp`")))))]
async fn describe_endpoint() -> impl IntoResponse {
    (StatusCode::NO_CONTENT, [(ACCEPT_POST, SDP), (header::ALLOW, "POST, OPTIONS")])
}

/// What a connection's address takes
#[utoipa::path(options, path = "/v1/session/media/{connection}", tag = "media",
    params(("connection" = ConnectionId, Path, description = "The connection")),
    responses((status = 204, description = "See `Accept-Patch`",
        headers(("Accept-Patch" = String, description = "`application/trickle-ice-sdpfrag`")))))]
async fn describe_connection(_: Path<ConnectionId>) -> impl IntoResponse {
    (StatusCode::NO_CONTENT, [(ACCEPT_PATCH, SDP_FRAGMENT), (header::ALLOW, "DELETE, OPTIONS, PATCH")])
}

/// RFC 9725, section 4.3.1: the entity tag names the ICE session; so it is the server's ICE user name, which changes
/// with every restart and is no secret.
fn ice_tag(sdp: &str) -> String {
    let ufrag = sdp.lines().find_map(|line| line.trim_end().strip_prefix("a=ice-ufrag:")).unwrap_or_default();
    // RFC 8839, section 5.4: only letters, digits, `+` and `/`; all of them may stand in an entity tag.
    format!("\"{ufrag}\"")
}

/// Lets pages of any origin use the media endpoint (RFC 9725, section 4.8). No cookies are involved: whoever has the
/// session's token could as well use it outside a browser.
async fn allow_other_origins(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, PATCH, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, if-match"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "location, etag, link, accept-post, accept-patch"),
        // How long browsers may remember it: an hour. Longer saves a request per call, and delays changes of the above.
        (header::ACCESS_CONTROL_MAX_AGE, "3600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entity_tag_is_the_ice_user_name() {
        assert_eq!(ice_tag("v=0\r\na=ice-ufrag:Ab+/9\r\na=ice-pwd:x\r\n"), "\"Ab+/9\"");
    }
}
