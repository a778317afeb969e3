//! Requests that hang on what was so before: entity tags (RFC 9110, section 13) and names of requests.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};

use super::problem::{Kind, Problem};
use crate::control::{Expected, RoomView};

/// The header that names a request, so that it may be repeated (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest name of a request, characters. A UUID has 36; longer ones only fill the table.
const LONGEST_KEY: usize = 255;

/// The revisions that a change is meant for (`If-Match`); `None`: whatever it is.
#[derive(Clone, Debug)]
pub struct IfMatch(pub Expected);

/// [`IfMatch`], for the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the document is made from the type alone")]
pub struct IfMatchHeader {
    /// Only if the room's `ETag` is still this, or one of these; `*`, or left out: whatever it is.
    #[param(
        rename = "If-Match",
        required = false,
        example = "\"17\"",
        pattern = r#"^(\*|"[0-9]{1,19}"(, "[0-9]{1,19}")*)$"#
    )]
    if_match: String,
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        if !parts.headers.contains_key(header::IF_MATCH) {
            return Ok(Self(None));
        }
        // Several lines are one list (section 5.3), and our tags hold no commas.
        let lines = parts.headers.get_all(header::IF_MATCH).iter().filter_map(|line| line.to_str().ok());
        let tags: Vec<_> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        if tags == ["*"] {
            return Ok(Self(None));
        }
        Ok(Self(Some(tags.into_iter().filter_map(revision).collect())))
    }
}

/// The request's name, if it has one.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(pub Option<String>);

/// [`IdempotencyKey`], for the API's document.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the document is made from the type alone")]
pub struct IdempotencyKeyHeader {
    /// The caller's name for this request, which may then be repeated: 1 to 255 visible ASCII characters.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$",
        example = "7f9c24e8-3b12-4fef-91e0-0f4b7c7e2d11"
    )]
    idempotency_key: String,
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(key) = parts.headers.get(IDEMPOTENCY_KEY) else { return Ok(Self(None)) };
        let text = key.to_str().unwrap_or_default();
        if (1..=LONGEST_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(Some(text.to_owned())));
        }
        let allowed = format!("Idempotency-Key: 1 to {LONGEST_KEY} visible ASCII characters without spaces");
        Err(Problem::new(Kind::MALFORMED).detail(allowed))
    }
}

/// The revision that a tag names. A tag that we did not give is one that does not match, and neither does a weak one
/// (section 8.8.3.2).
fn revision(tag: &str) -> Option<u64> {
    let number: u64 = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
    (entity_tag(number) == tag).then_some(number)
}

fn entity_tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The entity tag of a room's revision.
pub fn tag(revision: u64) -> (HeaderName, String) {
    (header::ETAG, entity_tag(revision))
}

/// An answer without a body that says what the room's entity tag is now.
pub type Changed = (StatusCode, [(HeaderName, String); 1]);

/// See [`Changed`].
pub fn changed(room: &RoomView) -> Changed {
    (StatusCode::NO_CONTENT, [tag(room.revision)])
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn if_match(value: &str) -> Expected {
        let (mut parts, ()) = Request::builder().header(header::IF_MATCH, value).body(()).unwrap().into_parts();
        let Ok(IfMatch(revision)) = IfMatch::from_request_parts(&mut parts, &()).await;
        revision
    }

    #[tokio::test]
    async fn only_a_strong_tag_of_ours_can_match() {
        assert_eq!(if_match("\"17\"").await, Some(vec![17]));
        assert_eq!(if_match("\"17\", W/\"18\" ,\"19\"").await, Some(vec![17, 19]));
        assert_eq!(if_match("*").await, None);
        for other in ["W/\"17\"", "17", "\"abc\"", "\"017\"", "\"+17\"", ""] {
            assert_eq!(if_match(other).await, Some(vec![]), "{other}");
        }
    }
}
