//! Who asks: an API key with a scope, or the session of one participant. Both come as `Authorization: Bearer …`.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::Api;
use super::problem::{Kind, Problem};
use crate::control::{Caller, Scope};
use crate::id::RoomId;
use crate::room::Role;

/// Scopes of which one is enough.
pub trait Scopes: Send + Sync {
    /// Any of these.
    const ANY: &'static [Scope];
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident: $($scope:ident),+;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl Scopes for $name {
            const ANY: &'static [Scope] = &[$(Scope::$scope),+];
        }
    )*};
}

scopes! {
    /// Who books rooms.
    Booking: Booking;
    /// Who may list rooms.
    RoomLister: Booking, Operator, Compliance;
    /// Who may look at a room.
    RoomReader: Booking, Operator;
    /// Who may read a ledger.
    LedgerReader: Booking, Operator, Compliance;
    /// Who scrapes metrics.
    Metrics: Metrics;
}

/// The request carries an API key of one of the scopes `S`.
#[derive(Clone, Debug)]
pub struct Key<S> {
    caller: String,
    scopes: PhantomData<S>,
}

impl<S> Key<S> {
    /// Who calls.
    pub fn caller(&self) -> &str {
        &self.caller
    }
}

impl<S: Scopes> FromRequestParts<Api> for Key<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let (key, scope) = api.control.key(bearer(&parts.headers)?).await?;
        if S::ANY.contains(&scope) {
            Ok(Self { caller: format!("key:{key}"), scopes: PhantomData })
        } else {
            Err(Kind::FORBIDDEN.into())
        }
    }
}

/// The request carries a participant's session token.
#[derive(Clone, Copy, Debug)]
pub struct Participant(pub Caller);

impl FromRequestParts<Api> for Participant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Ok(Self(api.control.authenticate(bearer(&parts.headers)?).await?))
    }
}

/// The request comes from someone who may run a meeting: an operator's API key (any room), or the session of a
/// room's operator (that room).
#[derive(Clone, Copy, Debug)]
pub struct Operator(Option<RoomId>);

impl Operator {
    /// Whether this operator may run `room`.
    ///
    /// # Errors
    /// 403 if their session is for another room.
    pub fn may_run(self, room: RoomId) -> Result<RoomId, Problem> {
        match self.0 {
            Some(own) if own != room => Err(Kind::FORBIDDEN.into()),
            _ => Ok(room),
        }
    }
}

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        match api.control.key(token).await.map(|(_, scope)| scope) {
            Ok(Scope::Operator) => return Ok(Self(None)),
            Ok(_) => return Err(Kind::FORBIDDEN.into()),
            Err(crate::control::Error::Unauthenticated) => {}
            Err(error) => return Err(error.into()),
        }
        let caller = api.control.authenticate(token).await?;
        if caller.role == Role::Operator { Ok(Self(Some(caller.room))) } else { Err(Kind::FORBIDDEN.into()) }
    }
}

/// The bearer token (RFC 6750, section 2.1).
///
/// # Errors
/// 401 if there is none.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split_once(' '))
        // RFC 9110, section 11.1: the scheme's case does not matter.
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Kind::UNAUTHENTICATED.into())
}
