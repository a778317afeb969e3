//! How requests are read: like axum's extractors, but what cannot be read is answered with a problem document.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};

/// A JSON body.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        expect_content_type(request.headers(), "application/json")?;
        let bytes = body(request, state).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| json_problem(&error))
    }
}

/// A JSON body that may be left out.
#[derive(Clone, Copy, Debug)]
pub struct OptionalJson<T>(pub Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = expect_content_type(request.headers(), "application/json");
        let bytes = body(request, state).await?;
        // Some clients name a type for a body that they do not send.
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        content_type?;
        serde_json::from_slice(&bytes).map(|value| Self(Some(value))).map_err(|error| json_problem(&error))
    }
}

/// Parameters of the path. One that cannot be parsed names nothing that exists: 404.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|_| Kind::NOT_FOUND.into())
    }
}

/// Parameters of the query.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            // What was found is cut out, as with bodies.
            .map_err(|error| match std::error::Error::source(&error).map(ToString::to_string) {
                Some(message) => {
                    let problem = Problem::new(Kind::INVALID_FIELD).detail(without_values(&message));
                    // The message begins with the parameter's name, which may be anything if it is not one of ours.
                    match message.split_once(": ") {
                        Some((field, _)) if is_name(field) => problem.field(field),
                        _ => problem,
                    }
                }
                None => Problem::new(Kind::INVALID_FIELD).detail("the query cannot be read"),
            })
    }
}

/// The body as text of one content type.
///
/// # Errors
/// 415, 413, or 400 if it breaks off or is not UTF-8.
pub async fn text<S: Send + Sync>(request: Request, state: &S, content_type: &'static str) -> Result<String, Problem> {
    expect_content_type(request.headers(), content_type)?;
    let bytes = body(request, state).await?;
    String::from_utf8(bytes.into()).map_err(|_| Problem::new(Kind::MALFORMED).detail("the body is not UTF-8"))
}

/// Parameters like `; charset=utf-8` are ignored: RFC 8259 and RFC 8866 leave no choice of charset.
fn expect_content_type(headers: &HeaderMap, expected: &'static str) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE).detail(format!("the body must be {expected}")))
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TOO_LARGE.into(),
        _ => Problem::new(Kind::MALFORMED).detail("the body broke off"),
    })
}

/// Serde's messages are helpful, but quote the value, which may be someone's name: what was found is cut out.
fn json_problem(error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        let place = format!("no valid JSON at line {}, column {}", error.line(), error.column());
        return Problem::new(Kind::MALFORMED).detail(place);
    }
    let message = error.to_string();
    let shown = without_values(&message);
    let place = format!(" at line {} column {}", error.line(), error.column());
    let detail = if shown.ends_with(&place) { shown.to_owned() } else { format!("{shown}{place}") };
    Problem::new(Kind::INVALID_FIELD).detail(detail)
}

/// A parameter as ours are named.
fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn without_values(message: &str) -> &str {
    let safe = ["missing field", "unknown field", "duplicate field"];
    // A query's error begins with the parameter's name.
    let message = message.split_once(": ").map_or(message, |(_, rest)| rest);
    match message.find("expected") {
        _ if safe.iter().any(|start| message.starts_with(start)) => message,
        Some(at) => message.get(at..).unwrap_or_default(),
        None => "a value is not what is allowed there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[expect(dead_code, reason = "only its absence is looked at")]
        count: u8,
    }

    fn told(json: &str) -> String {
        format!("{:?}", json_problem(&serde_json::from_str::<Body>(json).unwrap_err()))
    }

    #[test]
    fn a_wrong_value_is_not_quoted() {
        let told = told(r#"{"count":"Maria Rossi"}"#);
        assert!(!told.contains("Maria") && told.contains("expected u8"), "{told}");
    }

    #[test]
    fn missing_and_unknown_fields_are_named() {
        assert!(told("{}").contains("missing field `count`"));
        assert!(told(r#"{"cont":1}"#).contains("unknown field `cont`"));
    }

    #[test]
    fn broken_json_says_where() {
        assert!(told(r#"{"count":"#).contains("no valid JSON at line 1, column 9"));
    }
}
