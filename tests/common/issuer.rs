//! A real OpenID Connect issuer on the loopback: it signs, publishes its keys over TLS 1.3, rotates them, and goes away.

#![allow(dead_code)]

use data_encoding::BASE64URL_NOPAD;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use quietus::{crypto::random, domain::time::Clock};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::net::TcpListener;

/// A key that signs nothing but the tokens of these tests.
const RSA: &[u8] = include_bytes!("../vectors/oidc/rsa2048.pk8");

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A key with its name.
pub struct Signer {
    pub kid: String,
    algorithm: &'static str,
    pair: Pair,
}

impl Signer {
    pub fn ed25519(kid: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Pair::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key"));
        Self { kid: kid.into(), algorithm: "EdDSA", pair }
    }

    pub fn es256(kid: &str) -> Self {
        Self::ec(kid, "ES256", &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    pub fn es384(kid: &str) -> Self {
        Self::ec(kid, "ES384", &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    fn ec(kid: &str, algorithm: &'static str, curve: &'static EcdsaSigningAlgorithm) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(curve, &random).expect("a key");
        let pair = Pair::Ec(EcdsaKeyPair::from_pkcs8(curve, document.as_ref(), &random).expect("a key"));
        Self { kid: kid.into(), algorithm, pair }
    }

    /// `RS256` or `PS256`; always the same key.
    pub fn rsa(kid: &str, algorithm: &'static str) -> Self {
        let pair = Pair::Rsa(RsaKeyPair::from_pkcs8(RSA).expect("a key"));
        Self { kid: kid.into(), algorithm, pair }
    }

    /// As it is published.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) }),
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let curve = if self.algorithm == "ES256" { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
            }
            Pair::Rsa(pair) => {
                let public: ring::rsa::PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({ "kty": "RSA", "n": text(&public.n), "e": text(&public.e) })
            }
        };
        jwk["kid"] = self.kid.clone().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The bytes of the public key, as somebody might use them for a shared secret.
    pub fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Rsa(pair) => pair.public().as_ref().to_vec(),
        }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.with_header(&json!({ "typ": "at+jwt", "alg": self.algorithm, "kid": self.kid }), claims)
    }

    /// A token with a header of its own.
    pub fn with_header(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Pair::Ec(pair) => pair.sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &'static dyn ring::signature::RsaEncoding =
                    if self.algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(padding, &random, message.as_bytes(), &mut signature).expect("signed");
                signature
            }
        };
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// The part of a token that is signed.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

#[derive(Default)]
struct State {
    base: String,
    keys: Mutex<Value>,
    discovery: Mutex<Option<Value>>,
    away: AtomicBool,
    asked: AtomicUsize,
}

/// A running issuer. It ends with the test's runtime.
pub struct Issuer {
    state: Arc<State>,
    /// As in `iss`.
    pub url: String,
    /// Who signed its server's certificate.
    pub ca_pem: String,
}

impl Issuer {
    pub async fn start() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        let certificate = params.self_signed(&key).expect("a certificate");
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
            .expect("a certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let state = Arc::new(State { base: url.clone(), keys: Mutex::new(json!({ "keys": [] })), ..State::default() });
        let served = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), served.clone());
                if state.away.load(Ordering::SeqCst) {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let state = state.clone();
                        async move { Ok::<_, std::convert::Infallible>(state.answer(request.uri().path())) }
                    });
                    let mut serving = hyper::server::conn::http1::Builder::new();
                    serving.keep_alive(false);
                    let _ = serving.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { state, url, ca_pem: certificate.pem() }
    }

    /// These keys, and no others, are published from now on.
    pub fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        self.publish_set(json!({ "keys": keys }));
    }

    pub fn publish_set(&self, set: Value) {
        *self.state.keys.lock().expect("not poisoned") = set;
    }

    /// What discovery says, in the place of the truth.
    pub fn pretend(&self, document: Value) {
        *self.state.discovery.lock().expect("not poisoned") = Some(document);
    }

    /// Whether it refuses connections.
    pub fn away(&self, away: bool) {
        self.state.away.store(away, Ordering::SeqCst);
    }

    /// How often its keys were fetched.
    pub fn fetches(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Good claims: somebody in a role, for these tenants, issued now.
    pub fn claims(&self, sub: &str, role: &str, tenants: &[&str]) -> Value {
        let now = Clock::system().now().0 / 1000;
        json!({
            "iss": self.url, "aud": ["quietus", "others"], "sub": sub, "iat": now, "nbf": now, "exp": now + 300,
            "jti": BASE64URL_NOPAD.encode(&random::<16>()), "groups": [role, "everybody"], "tenants": tenants,
        })
    }

    /// The section of a gateway's configuration. Roles are named as they are; a file for the CA is written into a folder.
    pub fn section(&self, folder: &Path) -> String {
        let ca: PathBuf = folder.join("issuer-ca.pem");
        std::fs::write(&ca, &self.ca_pem).expect("written");
        format!(
            "[[oidc]]\nname = \"corp\"\nissuer = \"{}\"\naudience = [\"quietus\"]\nca = \"{}\"\ntenants = [\"*\"]\n\
             roles = {{ staff = \"staff\", admin = \"admin\", subscriber = \"subscriber\", auditor = \"auditor\", \
             operator = \"operator\" }}\n\
             claims = {{ role = \"groups\", tenants = \"tenants\", subscriber = \"number\" }}\n",
            self.url,
            ca.display()
        )
    }
}

impl State {
    fn answer(&self, path: &str) -> http::Response<Full<bytes::Bytes>> {
        let body = match path {
            "/.well-known/openid-configuration" => {
                let pretended = self.discovery.lock().expect("not poisoned").clone();
                let jwks = format!("{}/keys", self.base);
                pretended.unwrap_or_else(|| json!({ "issuer": self.base, "jwks_uri": jwks }))
            }
            "/keys" => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                self.keys.lock().expect("not poisoned").clone()
            }
            _ => Value::Null,
        };
        let status = if body.is_null() { 404 } else { 200 };
        let answer = http::Response::builder().status(status).header("content-type", "application/json");
        answer.body(Full::new(body.to_string().into())).expect("an answer")
    }
}
