//! An issuer's keys: fetched, kept, fetched again.
//!
//! - *Rotation.* A token whose key is not among the kept ones has them fetched again, once, whoever else waits for the
//!   same; and not again within [`PAUSE`], so that made-up key names cost the issuer nothing. Keys that are in use are
//!   fetched anew every [`REFRESH`], so that one which the issuer withdraws is soon not believed any more.
//! - *Outage.* The kept keys go on until the set time since they were fetched; then nothing this issuer signed is taken,
//!   with *try again*. The gateway starts without the issuer: there is nothing that a start would need it for.
//! - *Fetching.* HTTPS over TLS 1.3, no redirects, bounded in time and size. By discovery (`ISSUER/.well-known/
//!   openid-configuration`, whose `issuer` must be the configured one) or from the configured URL.
//!
//! A fetch runs in a task of its own: a caller that goes does not undo it for those who wait.

use super::{
    Denied,
    oidc::{Judged, Keys, Settings, Unverified},
};
use crate::domain::time::Timestamp;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::Mutex;

/// Between two fetches, whatever is asked for meanwhile.
pub const PAUSE: Duration = Duration::from_secs(10);
/// Keys that are in use are fetched anew after this.
pub const REFRESH: Duration = Duration::from_secs(300);
/// For one answer of the issuer's server.
const WITHIN: Duration = Duration::from_secs(5);
/// Bytes of one answer.
const MOST: usize = 256 << 10;

/// An issuer that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The CA file holds no certificate, or the platform has none.
    #[error("issuer {0}: no usable CA certificate")]
    Ca(String),
    /// Not an https:// URL.
    #[error("issuer {0}: not an https:// URL")]
    Url(String),
    /// TLS.
    #[error("issuer {0}: {1}")]
    Tls(String, rustls::Error),
}

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// One issuer and what is kept of it. Cheap to clone.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    settings: Settings,
    client: Https,
    kept: RwLock<Kept>,
    /// One fetch at a time.
    fetching: Mutex<()>,
}

#[derive(Clone, Default)]
struct Kept {
    keys: Option<Arc<Keys>>,
    /// When these keys were fetched.
    fetched: Option<Timestamp>,
    /// When a fetch was tried last, and whether it went well.
    tried: Option<(Timestamp, bool)>,
}

impl Kept {
    fn lasting(&self, settings: &Settings, now: Timestamp) -> Option<&Arc<Keys>> {
        self.keys.as_ref().filter(|_| within(self.fetched, now, settings.keys_last))
    }
}

/// Whether a moment lies no longer back than this. A moment ahead of now was noted by a clock that has been set back since:
/// nothing is known about how long ago it was.
fn within(moment: Option<Timestamp>, now: Timestamp, span: Duration) -> bool {
    moment.is_some_and(|moment| {
        let since = now.0.saturating_sub(moment.0);
        u128::try_from(since).is_ok_and(|since| since < span.as_millis())
    })
}

impl Issuer {
    /// Nothing is fetched yet.
    pub fn new(settings: Settings) -> Result<Self, IssuerError> {
        let https = |url: &str| url.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"));
        if !https(&settings.issuer) || !settings.jwks.as_deref().is_none_or(https) {
            return Err(IssuerError::Url(settings.name));
        }
        let client = client(&settings)?;
        Ok(Self(Arc::new(Inner { settings, client, kept: RwLock::default(), fetching: Mutex::new(()) })))
    }

    /// As in `iss`.
    pub fn issuer(&self) -> &str {
        &self.0.settings.issuer
    }

    /// Who the holder of this token is.
    pub async fn judge(&self, token: &str, unverified: &Unverified, now: Timestamp) -> Result<Judged, Denied> {
        let settings = &self.0.settings;
        if !settings.algorithms.contains(&unverified.algorithm) {
            return Err(Denied::Token("its algorithm is not one that its issuer signs with"));
        }
        let kid = unverified.kid.as_deref();
        let known = |keys: &Keys| {
            keys.find(kid, unverified.algorithm).map(|key| settings.judge(token, unverified.algorithm, key, now))
        };
        let kept = self.kept();
        if let Some(judged) = kept.lasting(settings, now).and_then(|keys| known(keys)) {
            if !within(kept.fetched, now, REFRESH) && !within(kept.tried.map(|(at, _)| at), now, PAUSE) {
                tokio::spawn(self.clone().fetch(now));
            }
            return judged;
        }
        // A task of its own; whoever waits for the same fetch finds its outcome.
        let _ = tokio::spawn(self.clone().fetch(now)).await;
        let kept = self.kept();
        match kept.lasting(settings, now) {
            None => Err(Denied::IssuerAway),
            Some(keys) => match (known(keys), kept.tried) {
                (Some(judged), _) => judged,
                (None, Some((_, false))) => Err(Denied::IssuerAway),
                (None, _) => Err(Denied::Token("its issuer has no such key")),
            },
        }
    }

    fn kept(&self) -> Kept {
        self.0.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the keys, unless somebody just did.
    async fn fetch(self, now: Timestamp) {
        let _alone = self.0.fetching.lock().await;
        if within(self.kept().tried.map(|(at, _)| at), now, PAUSE) {
            return;
        }
        let fetched = self.0.keys().await;
        let mut kept = self.0.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.tried = Some((now, fetched.is_some()));
        match fetched {
            Some(keys) => {
                kept.keys = Some(Arc::new(keys));
                kept.fetched = Some(now);
            }
            None => tracing::warn!(issuer = self.0.settings.name, "the issuer's keys cannot be fetched"),
        }
    }
}

impl Inner {
    async fn keys(&self) -> Option<Keys> {
        let url = match &self.settings.jwks {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        Keys::parse(&self.get(&url).await?, &self.settings.algorithms)
    }

    async fn discover(&self) -> Option<String> {
        let base = self.settings.issuer.trim_end_matches('/');
        let document = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
        let document: serde_json::Value = serde_json::from_slice(&document).ok()?;
        let ours = document.get("issuer").and_then(|issuer| issuer.as_str()) == Some(&self.settings.issuer);
        let url = document.get("jwks_uri").and_then(|url| url.as_str())?;
        ours.then(|| url.to_owned())
    }

    async fn get(&self, url: &str) -> Option<Bytes> {
        let request = Request::get(url).header(header::ACCEPT, "application/json").body(Empty::new()).ok()?;
        let answer = async {
            let response = self.client.request(request).await.ok()?;
            if response.status() != StatusCode::OK {
                return None;
            }
            Some(Limited::new(response.into_body(), MOST).collect().await.ok()?.to_bytes())
        };
        tokio::time::timeout(WITHIN, answer).await.ok().flatten()
    }
}

fn client(settings: &Settings) -> Result<Https, IssuerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IssuerError::Tls(settings.name.clone(), error))?;
    let no_ca = || IssuerError::Ca(settings.name.clone());
    let builder = match &settings.ca_pem {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|_| no_ca())?).map_err(|_| no_ca())?;
            }
            if roots.is_empty() {
                return Err(no_ca());
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_native_roots().map_err(|_| no_ca())?,
    };
    let connector = HttpsConnectorBuilder::new().with_tls_config(builder.with_no_client_auth());
    let connector = connector.https_only().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector))
}
