//! The issuer's keys: which of a JWK set are of use here, which one a token names, and how long they are good for.
//! Pure; fetching them is [`super`]'s.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

use crate::clock::MonoTime;

/// Age at which keys are fetched again. Longer: a key that the issuer withdrew is believed for longer. Shorter: more
/// requests to the issuer, for nothing on most days.
const REFRESH_AFTER: Duration = Duration::from_hours(1);
/// Age up to which keys are used while the issuer does not answer. Longer: whoever can cut us off from the issuer can
/// use a withdrawn key for longer. Shorter: an outage of the issuer over night stops bookings in the morning.
const USABLE_FOR: Duration = Duration::from_hours(24);
/// Least time between two attempts to fetch keys. Longer: a new key of the issuer is noticed later. Shorter: tokens
/// with made-up key ids make us ask the issuer more often.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Keys of a set that are looked at. Issuers publish a handful; more would only cost time at each token.
const MOST_KEYS: usize = 100;

/// What tokens may be signed with: nothing symmetric, nothing unsigned, nothing with SHA-1.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// Whether tokens signed with this algorithm are read at all.
pub(super) fn is_allowed(algorithm: Algorithm) -> bool {
    ALGORITHMS.contains(&algorithm)
}

/// The usable public keys of one JWK set (RFC 7517, section 5).
pub(super) struct KeySet(Vec<PublicKey>);

struct PublicKey {
    kid: Option<String>,
    /// The only algorithm that the issuer uses it with, if it says so.
    alg: Option<Algorithm>,
    kind: KeyKind,
    key: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Why a set has no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// No key of that name: it may be newer than the set.
    Unknown,
    /// The named key is of another kind than the token's algorithm, or several keys would do.
    Unfit,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWK set. Keys that are not for signatures, or of kinds that we do not know, are passed over (RFC 7517,
    /// section 5); `None` if it is no set, or none is left.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(bytes).ok()?;
        let keys: Vec<_> = document.keys.into_iter().take(MOST_KEYS).filter_map(public_key).collect();
        if keys.is_empty() { None } else { Some(Self(keys)) }
    }

    /// The key that a token of this header must have been signed with.
    pub(super) fn find(&self, header: &Header) -> Result<&DecodingKey, Miss> {
        let fits = |key: &&PublicKey| key.fits(header.alg);
        let Some(kid) = &header.kid else {
            // OpenID Connect Core, section 10.1: a token needs to name its key only if there are several.
            let mut fitting = self.0.iter().filter(fits);
            return match (fitting.next(), fitting.next()) {
                (Some(only), None) => Ok(&only.key),
                (None, _) => Err(Miss::Unknown),
                (Some(_), Some(_)) => Err(Miss::Unfit),
            };
        };
        let mut named = self.0.iter().filter(|key| key.kid.as_ref() == Some(kid)).peekable();
        if named.peek().is_none() {
            return Err(Miss::Unknown);
        }
        named.find(fits).map(|key| &key.key).ok_or(Miss::Unfit)
    }
}

impl PublicKey {
    fn fits(&self, algorithm: Algorithm) -> bool {
        let is_of_kind = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => self.kind == KeyKind::Rsa,
            Algorithm::ES256 => self.kind == KeyKind::P256,
            Algorithm::ES384 => self.kind == KeyKind::P384,
            Algorithm::EdDSA => self.kind == KeyKind::Ed25519,
            _ => false,
        };
        is_of_kind && self.alg.is_none_or(|alg| alg == algorithm)
    }
}

fn public_key(value: Value) -> Option<PublicKey> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    if jwk.common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return None;
    }
    let alg = jwk.common.key_algorithm.map(allowed).transpose().ok()?;
    let kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => KeyKind::Rsa,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => KeyKind::P256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => KeyKind::P384,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => KeyKind::Ed25519,
        _ => return None,
    };
    Some(PublicKey { key: DecodingKey::from_jwk(&jwk).ok()?, kid: jwk.common.key_id, alg, kind })
}

fn allowed(algorithm: KeyAlgorithm) -> Result<Algorithm, ()> {
    Algorithm::try_from(algorithm).ok().filter(|algorithm| is_allowed(*algorithm)).ok_or(())
}

/// The keys that are at hand, and when the issuer was asked for them.
#[derive(Default)]
pub(super) struct Shelf {
    /// The newest set, with the time at which it came.
    set: Option<(Arc<KeySet>, MonoTime)>,
    /// The last attempt to fetch one, and whether it failed.
    tried: Option<(MonoTime, bool)>,
}

/// What the shelf has for a token.
pub(super) enum Look {
    /// The key. `refresh`: it is time to fetch the set again, which this token need not wait for.
    Found { key: DecodingKey, refresh: bool },
    /// Not until the keys are fetched (again).
    Fetch,
    /// The issuer has no such key.
    Unknown,
    /// The issuer has not answered for too long.
    Away,
}

impl Shelf {
    /// Looks for a token's key.
    pub(super) fn look(&self, header: &Header, now: MonoTime) -> Look {
        let may_try = self.tried.is_none_or(|(at, _)| now.since(at) >= RETRY_AFTER);
        let failed = self.tried.is_some_and(|(_, failed)| failed);
        let usable = self.set.as_ref().filter(|(_, since)| now.since(*since) <= USABLE_FOR);
        let Some((set, since)) = usable else {
            return if may_try { Look::Fetch } else { Look::Away };
        };
        match set.find(header) {
            Ok(key) => Look::Found { key: key.clone(), refresh: may_try && now.since(*since) >= REFRESH_AFTER },
            Err(Miss::Unknown) if may_try => Look::Fetch,
            // The key may be a new one that we could not be told of.
            Err(Miss::Unknown) if failed => Look::Away,
            Err(Miss::Unknown | Miss::Unfit) => Look::Unknown,
        }
    }

    /// As if nobody had been asked yet: for tests that cannot wait.
    #[cfg(test)]
    pub(super) fn forget_attempt(&mut self) {
        self.tried = None;
    }

    /// Notes how an attempt to fetch the set ended; a failed one leaves the old set in place.
    pub(super) fn put(&mut self, fetched: Option<KeySet>, now: MonoTime) {
        self.tried = Some((now, fetched.is_none()));
        if let Some(set) = fetched {
            self.set = Some((Arc::new(set), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RSA: &str = "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw";
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn rsa(kid: &str) -> Value {
        json!({"kty": "RSA", "kid": kid, "use": "sig", "n": RSA, "e": "AQAB"})
    }

    fn ec(kid: &str) -> Value {
        json!({"kty": "EC", "kid": kid, "crv": "P-256", "x": X, "y": Y})
    }

    fn set(keys: &[Value]) -> Option<KeySet> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn header(alg: Algorithm, kid: Option<&str>) -> Header {
        let mut header = Header::new(alg);
        header.kid = kid.map(str::to_owned);
        header
    }

    fn shelf(keys: &[Value], at: MonoTime) -> Shelf {
        let mut shelf = Shelf::default();
        shelf.put(set(keys), at);
        shelf
    }

    fn after(duration: Duration) -> MonoTime {
        MonoTime::ZERO + duration
    }

    #[test]
    fn a_key_is_found_by_its_id_and_only_for_an_algorithm_of_its_kind() {
        let set = set(&[rsa("r"), ec("e")]).unwrap();
        for (alg, kid) in [(Algorithm::RS256, "r"), (Algorithm::PS256, "r"), (Algorithm::ES256, "e")] {
            assert!(set.find(&header(alg, Some(kid))).is_ok(), "{alg:?}");
        }
        for (alg, kid) in [
            (Algorithm::ES256, "r"),
            (Algorithm::RS256, "e"),
            (Algorithm::ES384, "e"),
            (Algorithm::HS256, "r"),
            (Algorithm::EdDSA, "e"),
            (Algorithm::RS512, "r"),
        ] {
            assert_eq!(set.find(&header(alg, Some(kid))).unwrap_err(), Miss::Unfit, "{alg:?}");
        }
        assert_eq!(set.find(&header(Algorithm::RS256, Some("x"))).unwrap_err(), Miss::Unknown);
    }

    #[test]
    fn a_token_without_a_key_id_needs_a_set_with_one_fitting_key() {
        assert!(set(&[rsa("r"), ec("e")]).unwrap().find(&header(Algorithm::RS256, None)).is_ok());
        let two = set(&[rsa("r"), rsa("s")]).unwrap();
        assert_eq!(two.find(&header(Algorithm::RS256, None)).unwrap_err(), Miss::Unfit);
    }

    #[test]
    fn a_key_that_names_its_algorithm_is_used_with_no_other() {
        let mut key = rsa("r");
        key["alg"] = "PS256".into();
        let set = set(&[key]).unwrap();
        assert!(set.find(&header(Algorithm::PS256, Some("r"))).is_ok());
        assert_eq!(set.find(&header(Algorithm::RS256, Some("r"))).unwrap_err(), Miss::Unfit);
    }

    #[test]
    fn keys_that_are_of_no_use_are_passed_over() {
        let mut encryption = rsa("enc");
        encryption["use"] = "enc".into();
        let mut signing = rsa("sign");
        signing["key_ops"] = json!(["sign"]);
        let mut hmac = rsa("hs");
        hmac["alg"] = "HS256".into();
        let secret = json!({"kty": "oct", "kid": "oct", "k": "AAAA"});
        let unknown = json!({"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AAAA"});
        let useless = [encryption, signing, hmac, secret, unknown, json!("no key"), json!({})];
        assert!(set(&useless).is_none());
        assert!(set(&[&useless[..], &[ec("e")]].concat()).is_some());
        assert!(KeySet::parse(b"<html>").is_none());
    }

    #[test]
    fn keys_are_fetched_first_then_used_and_fetched_again_after_an_hour() {
        let token = header(Algorithm::ES256, Some("e"));
        assert!(matches!(Shelf::default().look(&token, MonoTime::ZERO), Look::Fetch));
        let shelf = shelf(&[ec("e")], MonoTime::ZERO);
        assert!(matches!(shelf.look(&token, after(Duration::from_mins(59))), Look::Found { refresh: false, .. }));
        assert!(matches!(shelf.look(&token, after(Duration::from_hours(1))), Look::Found { refresh: true, .. }));
    }

    #[test]
    fn an_unknown_key_id_fetches_at_most_every_thirty_seconds() {
        let token = header(Algorithm::ES256, Some("new"));
        let shelf = shelf(&[ec("old")], MonoTime::ZERO);
        assert!(matches!(shelf.look(&token, after(Duration::from_secs(29))), Look::Unknown));
        assert!(matches!(shelf.look(&token, after(Duration::from_secs(30))), Look::Fetch));
    }

    #[test]
    fn while_the_issuer_is_away_its_keys_go_on_for_a_day_and_no_longer() {
        let token = header(Algorithm::ES256, Some("e"));
        let mut shelf = shelf(&[ec("e")], MonoTime::ZERO);
        let evening = after(Duration::from_hours(23));
        shelf.put(None, evening);
        assert!(matches!(shelf.look(&token, evening), Look::Found { refresh: false, .. }));
        assert!(matches!(shelf.look(&header(Algorithm::ES256, Some("new")), evening), Look::Away));
        let morning = after(Duration::from_hours(25));
        assert!(matches!(shelf.look(&token, morning), Look::Fetch));
        shelf.put(None, morning);
        assert!(matches!(shelf.look(&token, morning), Look::Away));
        shelf.put(set(&[ec("e")]), morning + RETRY_AFTER);
        assert!(matches!(shelf.look(&token, morning + RETRY_AFTER), Look::Found { .. }));
    }
}
