//! Who asks: an API key with a scope, a token of the OIDC issuer that maps to scopes, or the session of one
//! participant. All come as `Authorization: Bearer …`, and tell themselves apart by their form.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::Api;
use super::oidc::{self, Refused};
use super::problem::{Kind, Problem};
use crate::control::{API_KEY_PREFIX, Caller, Scope};
use crate::id::{KeyId, ParticipantId, RoomId};
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
    /// Who runs meetings, at whatever counter.
    OperatorKey: Operator;
    /// Who may find and read recordings.
    Compliance: Compliance;
    /// Who scrapes metrics.
    Metrics: Metrics;
}

/// Who calls, for what is kept per caller and for audits: `key:` and the API key's id, `oidc:` and SHA-256 (hex) of
/// the token's issuer and subject, or `session:` and the participant's id. The same each time, and nobody's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerId(Who);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Key(KeyId),
    Oidc([u8; 32]),
    Session(ParticipantId),
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Who::Key(id) => write!(f, "key:{id}"),
            Who::Oidc(subject) => write!(f, "oidc:{}", hex::encode(subject)),
            Who::Session(participant) => write!(f, "session:{participant}"),
        }
    }
}

impl fmt::Debug for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallerId({self})")
    }
}

/// The request carries an API key or an OIDC token with one of the scopes `S`.
#[derive(Clone, Copy, Debug)]
pub struct Key<S> {
    caller: CallerId,
    scopes: PhantomData<S>,
}

impl<S> Key<S> {
    /// Who calls.
    pub fn caller(&self) -> &CallerId {
        &self.caller
    }
}

impl<S: Scopes> FromRequestParts<Api> for Key<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let granted = granted(api, bearer(&parts.headers)?).await?.ok_or(Kind::UNAUTHENTICATED)?;
        let caller = granted.for_any(S::ANY)?;
        Ok(Self { caller, scopes: PhantomData })
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

/// The request comes from someone who may run a meeting: an operator's API key or OIDC token (any room), or the
/// session of a room's operator (that room).
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    caller: CallerId,
    /// The session, if it is one: it opens its own room only.
    session: Option<Caller>,
}

impl Operator {
    /// Whether this operator may run `room`.
    ///
    /// # Errors
    /// 403 if their session is for another room.
    pub fn may_run(self, room: RoomId) -> Result<RoomId, Problem> {
        match self.session {
            Some(own) if own.room != room => Err(Kind::FORBIDDEN.into()),
            _ => Ok(room),
        }
    }

    /// The session, if the operator came with one.
    pub fn session(&self) -> Option<Caller> {
        self.session
    }

    /// Who calls.
    pub fn caller(&self) -> &CallerId {
        &self.caller
    }
}

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        if let Some(granted) = granted(api, token).await? {
            return Ok(Self { caller: granted.for_any(&[Scope::Operator])?, session: None });
        }
        let caller = api.control.authenticate(token).await?;
        if caller.role != Role::Operator {
            return Err(Kind::FORBIDDEN.into());
        }
        Ok(Self { caller: CallerId(Who::Session(caller.participant)), session: Some(caller) })
    }
}

/// What a key or an OIDC token allows.
struct Granted {
    caller: CallerId,
    scopes: Vec<Scope>,
}

impl Granted {
    /// # Errors
    /// 403 if none of `scopes` is allowed.
    fn for_any(&self, scopes: &[Scope]) -> Result<CallerId, Problem> {
        if self.scopes.iter().any(|scope| scopes.contains(scope)) {
            Ok(self.caller)
        } else {
            Err(Kind::FORBIDDEN.into())
        }
    }
}

/// Who calls with an API key or an OIDC token that has one of these scopes.
///
/// # Errors
/// 401 or 403.
pub(super) async fn granted_for(api: &Api, headers: &HeaderMap, scopes: &[Scope]) -> Result<CallerId, Problem> {
    granted(api, bearer(headers)?).await?.ok_or(Kind::UNAUTHENTICATED)?.for_any(scopes)
}

/// Who holds this API key or OIDC token; `None`: it has the form of neither.
///
/// # Errors
/// 401 if it is not valid, 503 if that cannot be told.
async fn granted(api: &Api, token: &str) -> Result<Option<Granted>, Problem> {
    if token.starts_with(API_KEY_PREFIX) {
        let (id, scope) = api.control.key(token).await?;
        return Ok(Some(Granted { caller: CallerId(Who::Key(id)), scopes: vec![scope] }));
    }
    if !oidc::is_jwt(token) {
        return Ok(None);
    }
    let Some(oidc) = &api.oidc else { return Err(Kind::UNAUTHENTICATED.into()) };
    let holder = oidc.verify(token).await.map_err(|refused| match refused {
        Refused::Token(reason) => {
            tracing::debug!(reason, "an OIDC token was refused");
            Problem::new(Kind::UNAUTHENTICATED).detail(reason)
        }
        Refused::Away => Problem::new(Kind::UNAVAILABLE).detail(refused.to_string()),
    })?;
    Ok(Some(Granted { caller: CallerId(Who::Oidc(holder.subject)), scopes: holder.scopes }))
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
