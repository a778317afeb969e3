//! Against an issuer of the tests' own, over HTTP; and the rules for claims by themselves.

use serde_json::json;

use self::issuer::{Issuer, SigningKey};
use super::*;

#[path = "../../../tests/integration/issuer.rs"]
mod issuer;

fn settings(issuer: &str) -> Settings {
    Settings {
        issuer: issuer.into(),
        audience: "sportello".into(),
        jwks_url: None,
        claim: "scope".into(),
        scopes: BTreeMap::from([
            ("sportello-booking".into(), Scope::Booking),
            ("sportello-operator".into(), Scope::Operator),
            ("officer".into(), Scope::Operator),
        ]),
    }
}

fn client(issuer: &Issuer) -> Oidc {
    Oidc::new(settings(&issuer.url), Clock::new()).unwrap()
}

/// As if the last attempt to fetch keys were long enough ago.
fn half_a_minute_passes(oidc: &Oidc) {
    oidc.0.shelf.lock().unwrap().forget_attempt();
}

async fn refusal(oidc: &Oidc, token: &str) -> String {
    oidc.verify(token).await.unwrap_err().to_string()
}

#[tokio::test]
async fn tokens_that_the_issuers_keys_signed_are_believed() {
    let (rsa, ec) = (SigningKey::rsa("r"), SigningKey::p256("e"));
    let issuer = Issuer::start(&[&rsa, &ec]).await;
    let oidc = client(&issuer);
    let claims = issuer.claims("openid sportello-booking officer sportello-operator");
    let pss = rsa.token_with(&json!({"alg": "PS256", "kid": "r"}), &claims);
    let holders = [rsa.token(&claims), ec.token(&claims), pss].map(async |token| oidc.verify(&token).await.unwrap());
    for holder in holders {
        let holder = holder.await;
        assert_eq!(holder.scopes, [Scope::Booking, Scope::Operator], "each once");
        assert_eq!(holder.subject, subject_hash(&issuer.url, "f7c1b2a0-portale-prenotazioni"));
    }
    assert_eq!(issuer.key_requests(), 1, "the keys are kept");
}

#[tokio::test]
async fn a_signature_by_any_other_means_is_refused() {
    let (key, other) = (SigningKey::rsa("k"), SigningKey::rsa("k"));
    let issuer = Issuer::start(&[&key]).await;
    let oidc = client(&issuer);
    let claims = issuer.claims("sportello-booking");
    assert!(refusal(&oidc, &other.token(&claims)).await.contains("signature is wrong"));
    assert!(refusal(&oidc, &key.token_keyed_with_public_key(&claims)).await.contains("algorithm is not accepted"));
    assert!(refusal(&oidc, &key.token_without_signature(&claims)).await.contains("cannot be read"));
    let ec = SigningKey::p256("k");
    assert!(refusal(&oidc, &ec.token(&claims)).await.contains("none of the issuer's keys"));

    let good = key.token(&claims);
    let raised = key.token(&issuer.claims("sportello-operator"));
    let (good_parts, raised_parts): (Vec<_>, Vec<_>) = (good.split('.').collect(), raised.split('.').collect());
    let forged = [good_parts[0], raised_parts[1], good_parts[2]].join(".");
    assert!(oidc.verify(&forged).await.is_err());
    assert!(refusal(&oidc, &format!("{good}{}", "A".repeat(20_000))).await.contains("too long"));
    oidc.verify(&good).await.unwrap();
}

#[tokio::test]
async fn headers_with_unknown_extensions_and_other_kinds_of_tokens_are_refused() {
    let key = SigningKey::rsa("k");
    let issuer = Issuer::start(&[&key]).await;
    let oidc = client(&issuer);
    let claims = issuer.claims("sportello-booking");
    let with = |header: Value| key.token_with(&header, &claims);
    assert!(oidc.verify(&with(json!({"alg": "RS256"}))).await.is_ok(), "the only key needs no name");
    assert!(oidc.verify(&with(json!({"alg": "RS256", "kid": "k", "typ": "application/at+JWT"}))).await.is_ok());
    let critical = json!({"alg": "RS256", "kid": "k", "crit": ["b64"], "b64": false});
    assert!(refusal(&oidc, &with(critical)).await.contains("extension"));
    for typ in ["dpop+jwt", "logout+jwt", "id_token+jwt"] {
        let token = with(json!({"alg": "RS256", "kid": "k", "typ": typ}));
        assert!(refusal(&oidc, &token).await.contains("not an access token"), "{typ}");
    }
    // The key that a token brings along is nobody's.
    let stranger = SigningKey::rsa("k");
    let brought = json!({"alg": "RS256", "kid": "k", "jwk": stranger.jwk()});
    assert!(refusal(&oidc, &stranger.token_with(&brought, &claims)).await.contains("signature is wrong"));
}

#[tokio::test]
async fn after_a_rotation_the_new_key_is_fetched_and_the_old_one_is_refused() {
    let (old, new) = (SigningKey::p256("2025"), SigningKey::p256("2026"));
    let issuer = Issuer::start(&[&old]).await;
    let oidc = client(&issuer);
    let claims = issuer.claims("sportello-booking");
    oidc.verify(&old.token(&claims)).await.unwrap();
    issuer.publish(&[&new]);
    assert!(refusal(&oidc, &new.token(&claims)).await.contains("none of the issuer's keys"), "asked a moment ago");
    assert_eq!(issuer.key_requests(), 1);
    half_a_minute_passes(&oidc);
    oidc.verify(&new.token(&claims)).await.unwrap();
    assert!(refusal(&oidc, &old.token(&claims)).await.contains("none of the issuer's keys"));
    assert_eq!(issuer.key_requests(), 2);
}

#[tokio::test]
async fn many_tokens_with_made_up_keys_ask_the_issuer_once() {
    let (key, stranger) = (SigningKey::p256("k"), SigningKey::p256("made up"));
    let issuer = Issuer::start(&[&key]).await;
    let oidc = client(&issuer);
    let token = stranger.token(&issuer.claims("sportello-booking"));
    let attempts: Vec<_> = (0..20)
        .map(|_| {
            let (oidc, token) = (oidc.clone(), token.clone());
            tokio::spawn(async move { oidc.verify(&token).await })
        })
        .collect();
    for attempt in attempts {
        assert!(matches!(attempt.await.unwrap(), Err(Refused::Token(_))));
    }
    assert_eq!(issuer.key_requests(), 1);
}

#[tokio::test]
async fn while_the_issuer_is_down_its_known_keys_go_on() {
    let (key, new) = (SigningKey::p256("k"), SigningKey::p256("new"));
    let issuer = Issuer::start(&[&key]).await;
    issuer.set_down(true);
    let oidc = client(&issuer);
    let claims = issuer.claims("sportello-booking");
    assert_eq!(oidc.verify(&key.token(&claims)).await, Err(Refused::Away), "never had its keys");
    issuer.set_down(false);
    half_a_minute_passes(&oidc);
    oidc.verify(&key.token(&claims)).await.unwrap();
    issuer.set_down(true);
    half_a_minute_passes(&oidc);
    assert_eq!(oidc.verify(&new.token(&claims)).await, Err(Refused::Away), "it may be a new key");
    oidc.verify(&key.token(&claims)).await.unwrap();
}

#[tokio::test]
async fn what_the_issuer_answers_is_not_believed_blindly() {
    let key = SigningKey::p256("k");
    let issuer = Issuer::start(&[&key]).await;
    let keys = format!("{}/keys", issuer.url);
    let token = key.token(&issuer.claims("sportello-booking"));
    for wrong in [
        json!({"issuer": "https://login.example.org", "jwks_uri": keys}),
        json!({"issuer": issuer.url, "jwks_uri": "http://192.0.2.1/keys"}),
        json!({"issuer": issuer.url}),
        json!("nothing"),
    ] {
        issuer.describe(&wrong);
        assert_eq!(client(&issuer).verify(&token).await, Err(Refused::Away), "{wrong}");
    }
    let mut fixed = settings(&issuer.url);
    fixed.jwks_url = Some(Url::parse(&keys).unwrap());
    let without_discovery = || Oidc::new(fixed.clone(), Clock::new()).unwrap();
    without_discovery().verify(&token).await.unwrap();
    let padded = json!({"keys": [key.jwk()], "padding": "x".repeat(LONGEST_ANSWER)});
    for wrong in [padded, json!({"keys": []}), json!({})] {
        issuer.publish_document(wrong);
        assert_eq!(without_discovery().verify(&token).await, Err(Refused::Away));
    }
}

#[test]
fn claims_must_be_the_issuers_for_us_and_for_now() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let settings = settings("https://login.example.it/realms/pa");
    let good = json!({
        "iss": settings.issuer, "aud": ["account", "sportello"], "sub": "someone", "scope": "sportello-booking",
        "nbf": 1_800_000_000, "exp": 1_800_000_300,
    });
    let check = |changes: Value| {
        let mut claims = good.as_object().unwrap().clone();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        check_claims(&claims, &settings, now).map_err(|refused| refused.to_string())
    };
    for fine in [
        json!({}),
        json!({"aud": "sportello"}),
        json!({"nbf": null}),
        json!({"nbf": 1_800_000_060}),
        json!({"exp": 1_799_999_941}),
        json!({"exp": 1_800_000_000.5}),
        json!({"typ": "Bearer", "nonce": "x"}),
        json!({"token_use": "access"}),
    ] {
        assert_eq!(check(fine.clone()).map(|holder| holder.scopes), Ok(vec![Scope::Booking]), "{fine}");
    }
    for (wrong, reason) in [
        (json!({"iss": "https://login.example.it/realms/pa/"}), "another issuer"),
        (json!({"iss": null}), "another issuer"),
        (json!({"iss": [settings.issuer]}), "another issuer"),
        (json!({"aud": "account"}), "another audience"),
        (json!({"aud": ["account", ["sportello"]]}), "another audience"),
        (json!({"aud": null}), "another audience"),
        (json!({"exp": 1_799_999_940}), "has expired"),
        (json!({"exp": null}), "when it expires"),
        (json!({"exp": "1800000300"}), "no number"),
        (json!({"nbf": 1_800_000_061}), "not valid yet"),
        (json!({"nbf": "now"}), "no number"),
        (json!({"sub": null}), "no subject"),
        (json!({"sub": 7}), "no subject"),
        (json!({"typ": "ID"}), "not an access token"),
        (json!({"typ": "Refresh"}), "not an access token"),
        (json!({"token_use": "id"}), "not an access token"),
        (json!({"at_hash": "x"}), "not an access token"),
    ] {
        let refused = check(wrong.clone()).unwrap_err();
        assert!(refused.contains(reason), "{wrong}: {refused}");
    }
}

#[test]
fn scopes_are_found_by_path_in_strings_and_lists_and_unknown_words_allow_nothing() {
    let found = |claim: &str, claims: Value| {
        let settings = Settings { claim: claim.into(), ..settings("https://login.example.it") };
        scopes(claims.as_object().unwrap(), &settings)
    };
    assert_eq!(found("scope", json!({"scope": "email  sportello-booking"})), [Scope::Booking]);
    assert_eq!(found("roles", json!({"roles": ["officer", "admin", 7]})), [Scope::Operator]);
    assert_eq!(found("realm_access.roles", json!({"realm_access": {"roles": ["officer"]}})), [Scope::Operator]);
    let dotted = json!({"resource_access": {"it.example.app": {"roles": ["officer"]}}});
    assert_eq!(found("resource_access.it.example.app.roles", dotted), [Scope::Operator]);
    let url = json!({"https://example.it/roles": ["officer"]});
    assert_eq!(found("https://example.it/roles", url), [Scope::Operator]);
    for nothing in [
        json!({}),
        json!({"scope": "booking operator sportello-bookings"}),
        json!({"scope": ["sportello-booking officer"]}),
        json!({"scope": {"sportello-booking": true}}),
        json!({"scope": true}),
    ] {
        assert_eq!(found("scope", nothing.clone()), [], "{nothing}");
    }
}

#[test]
fn keys_are_asked_for_by_tls_or_without_leaving_the_machine() {
    let is_safe = |text: &str| Url::parse(text).is_ok_and(|url| is_safe(&url));
    for safe in ["https://login.example.it/realms/pa", "http://localhost:8080", "http://127.0.0.1", "http://[::1]:9/x"]
    {
        assert!(is_safe(safe), "{safe}");
    }
    for unsafe_url in [
        "http://login.example.it",
        "http://127.0.0.1.example.it",
        "https://me:secret@login.example.it",
        "https://login.example.it/#x",
        "file:///etc/passwd",
        "ftp://localhost",
    ] {
        assert!(!is_safe(unsafe_url), "{unsafe_url}");
    }
}

#[test]
fn only_what_has_the_form_of_a_jwt_is_taken_for_one() {
    assert!(is_jwt("eyJhbGciOiJub25lIn0.e30."));
    for other in ["", "sportello_booking_x", "eyJhbGciOiJub25lIn0.e30", "dWqIYlYp0mPBkdJwJSDSIA", "ey.a.b.c.d"] {
        assert!(!is_jwt(other), "{other}");
    }
}
