//! An OIDC issuer of a test's own: discovery and keys over HTTP on loopback, and tokens signed as told, right or wrong.
//!
//! Used by the library's own tests too.

use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// What the issuer answers, and what it was asked.
#[derive(Default)]
struct Answers {
    discovery: Value,
    keys: Value,
    is_down: bool,
    key_requests: usize,
}

/// A running issuer.
pub(crate) struct Issuer {
    /// As its tokens name it.
    pub(crate) url: String,
    answers: Arc<Mutex<Answers>>,
    server: tokio::task::JoinHandle<()>,
}

impl Issuer {
    /// Starts one that publishes these keys.
    pub(crate) async fn start(keys: &[&SigningKey]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/realms/pa", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(Answers::default()));
        let routes = Router::new()
            .route("/realms/pa/.well-known/openid-configuration", get(discovery))
            .route("/realms/pa/keys", get(keys_document))
            .with_state(Arc::clone(&answers));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let issuer = Self { url, answers, server };
        issuer.describe(&json!({"issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url)}));
        issuer.publish(keys);
        issuer
    }

    /// Publishes these keys from now on, and no others.
    pub(crate) fn publish(&self, keys: &[&SigningKey]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.publish_document(json!({ "keys": keys }));
    }

    /// Answers this to whoever asks for keys.
    pub(crate) fn publish_document(&self, document: Value) {
        self.answers.lock().unwrap().keys = document;
    }

    /// Answers this to whoever asks for its discovery document.
    pub(crate) fn describe(&self, document: &Value) {
        self.answers.lock().unwrap().discovery = document.clone();
    }

    /// Whether it answers with errors only.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.answers.lock().unwrap().is_down = is_down;
    }

    /// How often it was asked for keys.
    pub(crate) fn key_requests(&self) -> usize {
        self.answers.lock().unwrap().key_requests
    }

    /// Claims of a good token for the audience `sportello`, with this `scope`.
    pub(crate) fn claims(&self, scope: &str) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({
            "iss": self.url, "aud": "sportello", "sub": "f7c1b2a0-portale-prenotazioni", "scope": scope,
            "iat": now, "nbf": now, "exp": now + 300,
        })
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn discovery(State(answers): State<Arc<Mutex<Answers>>>) -> Result<Json<Value>, StatusCode> {
    let answers = answers.lock().unwrap();
    if answers.is_down { Err(StatusCode::BAD_GATEWAY) } else { Ok(Json(answers.discovery.clone())) }
}

async fn keys_document(State(answers): State<Arc<Mutex<Answers>>>) -> Result<Json<Value>, StatusCode> {
    let mut answers = answers.lock().unwrap();
    answers.key_requests += 1;
    if answers.is_down { Err(StatusCode::BAD_GATEWAY) } else { Ok(Json(answers.keys.clone())) }
}

/// A key that tokens are signed with.
pub(crate) struct SigningKey {
    kid: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
}

impl SigningKey {
    /// A new RSA key of 2048 bits.
    pub(crate) fn rsa(kid: &str) -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        Self { kid: kid.into(), pair: Pair::Rsa(Box::new(pair)) }
    }

    /// A new EC key on P-256.
    pub(crate) fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { kid: kid.into(), pair: Pair::P256(pair) }
    }

    /// The public key as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({
                    "kty": "RSA", "kid": self.kid, "use": "sig",
                    "n": URL_SAFE_NO_PAD.encode(n.big_endian_without_leading_zero()),
                    "e": URL_SAFE_NO_PAD.encode(e.big_endian_without_leading_zero()),
                })
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({
                    "kty": "EC", "kid": self.kid, "crv": "P-256", "use": "sig",
                    "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
                })
            }
        }
    }

    /// A token as it should be: signed by this key, which it names.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let alg = match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
        };
        self.token_with(&json!({"alg": alg, "typ": "at+jwt", "kid": self.kid}), claims)
    }

    /// A token with this header, signed by this key.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = self.sign(header["alg"] == "PS256", message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The old trick: an HMAC with what everybody knows, the public key.
    pub(crate) fn token_keyed_with_public_key(&self, claims: &Value) -> String {
        let public = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256(pair) => {
                let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                der.as_ref().to_vec()
            }
        };
        let message = unsigned(&json!({"alg": "HS256", "typ": "at+jwt", "kid": self.kid}), claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// A token that says it needs no signature.
    pub(crate) fn token_without_signature(&self, claims: &Value) -> String {
        unsigned(&json!({"alg": "none", "typ": "at+jwt", "kid": self.kid}), claims) + "."
    }

    fn sign(&self, with_pss: bool, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding: &dyn aws_lc_rs::signature::RsaEncoding =
                    if with_pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}
