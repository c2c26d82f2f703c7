//! The profile, and a channel to the gateway over HTTP/2 or HTTP/3. Every client command works over both.
//!
//! ```toml
//! endpoint = "https://localhost:8443"
//! transport = "h2"                 # or "h3"
//! ca = "ca.pem"                    # paths are relative to the profile
//! certificate = "developer.pem"    # a client certificate and its key,
//! key = "developer.key"
//! # token_file = "developer.token" # or a token or an API key, in a file
//! # token = "qk_…"                 # or here: then keep this file as you keep the key
//! ```
//!
//! A [`Link`] connects when it is first used and again after it broke; TLS 1.3 with our own CA, nothing else.

use super::{args::Transport, failure::Failure};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt as _;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::Deserialize;
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tonic::{
    body::Body,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_h3::{H3Channel, quinn::H3QuinnConnector};

const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const FRAME: u32 = 256 << 10;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// An answer begins within this, erasures included: they wait for sessions that are cut, at most 20 s, and for syncs.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const PING_EVERY: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(30);
/// QUIC hears nothing from a process that was killed, where TCP gets a reset; so it asks more often and waits less.
const QUIC_PING_EVERY: Duration = Duration::from_secs(2);
const QUIC_SILENCE: Duration = Duration::from_secs(8);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    endpoint: String,
    #[serde(default = "h2")]
    transport: Transport,
    ca: PathBuf,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
    token: Option<String>,
}

fn h2() -> Transport {
    Transport::H2
}

type H3Incoming = h3_util::client_body::H3IncomingClient<h3_quinn::RecvStream, bytes::Bytes>;

/// A channel that the generated clients take.
#[derive(Clone)]
pub struct Link {
    wire: Wire,
    token: Option<HeaderValue>,
}

#[derive(Clone)]
enum Wire {
    H2(Channel),
    H3(H3Channel<H3QuinnConnector>),
}

struct Material {
    ca: Vec<u8>,
    client: Option<(Vec<u8>, zeroize::Zeroizing<Vec<u8>>)>,
}

impl Link {
    /// Reads a profile. Nothing is connected yet.
    pub fn open(profile: &Path, transport: Option<Transport>) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(profile).map_err(|error| {
            let what = profile.display();
            Failure::usage(format!("cannot read the profile {what}: {error}; say --profile, or start `quietus dev`"))
        })?;
        let parsed: Profile = toml::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: {}", profile.display(), error.message())))?;
        let folder = profile.parent().unwrap_or(Path::new("."));
        Self::from_profile(parsed, folder, transport).map_err(|failure| failure.about(profile.display()))
    }

    fn from_profile(profile: Profile, folder: &Path, transport: Option<Transport>) -> Result<Self, Failure> {
        let read = |path: &Path| {
            let path = folder.join(path);
            std::fs::read(&path).map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
        };
        let uri: Uri = profile.endpoint.parse().map_err(|_| Failure::usage("endpoint: not a URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(Failure::usage("endpoint: an https:// URL; plaintext is refused everywhere"));
        }
        let client = match (&profile.certificate, &profile.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?.into())),
            (None, None) => None,
            _ => return Err(Failure::usage("certificate and key go together")),
        };
        let token = match (&profile.token, &profile.token_file) {
            (Some(token), None) => Some(bearer(token.as_bytes())?),
            (None, Some(path)) => Some(bearer(&read(path)?)?),
            (None, None) => None,
            (Some(_), Some(_)) => return Err(Failure::usage("token and token_file exclude one another")),
        };
        let material = Material { ca: read(&profile.ca)?, client };
        let wire = match transport.unwrap_or(profile.transport) {
            Transport::H2 => Wire::H2(over_tls(uri, &material)?),
            Transport::H3 => Wire::H3(over_quic(uri, &material)?),
        };
        Ok(Self { wire, token })
    }
}

fn bearer(token: &[u8]) -> Result<HeaderValue, Failure> {
    let mut bytes = b"Bearer ".to_vec();
    bytes.extend_from_slice(token.trim_ascii());
    let mut value = HeaderValue::from_bytes(&bytes).map_err(|_| Failure::usage("token: not a token or an API key"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn over_tls(uri: Uri, material: &Material) -> Result<Channel, Failure> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&material.ca));
    if let Some((certificate, key)) = &material.client {
        tls = tls.identity(Identity::from_pem(certificate, key.as_slice()));
    }
    let endpoint = Endpoint::from(uri)
        .tls_config(tls)
        .map_err(|error| Failure::usage(format!("certificates: {error}")))?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(SILENCE)
        .connect_timeout(CONNECT_WITHIN);
    Ok(endpoint.connect_lazy())
}

fn over_quic(uri: Uri, material: &Material) -> Result<H3Channel<H3QuinnConnector>, Failure> {
    let tls = quic_tls(material).map_err(|error| Failure::usage(format!("certificates: {error}")))?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into())
        .keep_alive_interval(Some(QUIC_PING_EVERY))
        .max_idle_timeout(Some(quinn::VarInt::from_u32(QUIC_SILENCE.as_millis() as u32).into()));
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));

    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let addresses: Vec<SocketAddr> = (host.as_str(), uri.port_u16().unwrap_or(443))
        .to_socket_addrs()
        .map_err(|error| Failure::try_again(format!("cannot resolve {host}: {error}")))?
        .collect();
    // A socket of one family refuses the other's addresses at once, where QUIC alone would wait for a silent one.
    let local: SocketAddr = match addresses.iter().any(SocketAddr::is_ipv4) {
        true => (Ipv4Addr::UNSPECIFIED, 0).into(),
        false => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let mut endpoint = quinn::Endpoint::client(local)?;
    endpoint.set_default_client_config(config);
    let connector = H3QuinnConnector::new(uri.clone(), host, endpoint);
    Ok(H3Channel::new(connector, uri, None))
}

fn quic_tls(material: &Material) -> Result<QuicClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&material.ca) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match &material.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
        }
    };
    config.alpn_protocols = vec![b"h3".to_vec()];
    Ok(QuicClientConfig::try_from(config)?)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Request<Body>> for Link {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.wire {
            Wire::H2(channel) => channel.poll_ready(cx).map_err(Into::into),
            Wire::H3(channel) => tower::Service::<Request<Body>>::poll_ready(channel, cx),
        }
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        match &mut self.wire {
            Wire::H2(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { Ok(in_time(answer).await??) })
            }
            Wire::H3(channel) => {
                let answer = channel.call(request);
                let held = channel.clone();
                Box::pin(async move {
                    Ok(in_time(answer)
                        .await??
                        .map(|body| Body::new(Answer { body: Some(body), ended: false, _held: held })))
                })
            }
        }
    }
}

/// A request that meets a connection which is just going may be lost without a word; it is given up in the end, and the
/// next one finds a new connection.
async fn in_time<F: Future>(answer: F) -> Result<F::Output, BoxError> {
    let late = |_| format!("no answer began within {} s", ANSWER_WITHIN.as_secs()).into();
    tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(late)
}

/// An answer over HTTP/3. Two things of h3 0.0.8 and h3-quinn 0.0.10 need care:
/// - The last handle of a channel that goes closes the connection, so an answer under way holds one.
/// - A body that is dropped before its end may panic; so it is read to its end in a task that holds no handle, and which
///   therefore ends with the connection at the latest.
struct Answer {
    /// Taken by `drop` only.
    body: Option<H3Incoming>,
    ended: bool,
    _held: H3Channel<H3QuinnConnector>,
}

impl http_body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        self.ended = matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.ended {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                // Not dropped even when the runtime ends before the rest has come: h3-quinn panics when a stream is dropped
                // while it is being read.
                let mut body = std::mem::ManuallyDrop::new(body);
                runtime.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
            }
            // The process is about to end.
            Err(_) => std::mem::forget(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<(), Failure> {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("profile.toml");
        std::fs::write(&path, text).expect("written");
        Link::open(&path, None).map(|_| ())
    }

    #[test]
    fn a_profile_that_cannot_work_is_wrong_usage_and_names_itself() {
        for text in [
            "endpoint = \"http://localhost:1\"\nca = \"ca.pem\"",
            "endpoint = \"https://localhost:1\"\nca = \"missing.pem\"",
            "endpoint = \"https://localhost:1\"\nca = \"ca.pem\"\ncolour = \"red\"",
            "endpoint = \"https://localhost:1\"\nca = \"ca.pem\"\nkey = \"k\"",
            "endpoint = \"https://localhost:1\"\nca = \"ca.pem\"\ntoken = \"a\"\ntoken_file = \"b\"",
            "endpoint = \"https://localhost:1\"\nca = \"ca.pem\"\ntoken = \"a\\nb\"",
        ] {
            let failure = open(text).expect_err("refused");
            assert!(failure.status == 2 && failure.message.contains("profile.toml"), "{failure:?}");
        }
        assert!(Link::open(Path::new("/nowhere/profile.toml"), None).is_err_and(|failure| failure.status == 2));
    }
}
