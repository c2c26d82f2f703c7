//! The accept loops by themselves, with a small router behind them: who the peer is, how old a connection gets, what a
//! silent or excessive peer gets, and how a drain ends. No vault.

use axum::{Router, routing::get};
use http::Request;
use http_body_util::BodyExt as _;
use quietus::{
    cli::{args::Transport, connect::Link},
    server::dev_files::DevFiles,
    transport::{Limits, Peer, auth::CertificateName, quic, serve, tls::server_config},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Service as _, ServiceExt as _};

const TRANSPORTS: [Transport; 2] = [Transport::H2, Transport::H3];
const WITHIN: Duration = Duration::from_secs(30);

struct Served {
    dir: tempfile::TempDir,
    address: SocketAddr,
    stop: CancellationToken,
    loops: JoinSet<()>,
}

impl Served {
    async fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let files = DevFiles::prepare(dir.path()).expect("files");
        let (_, health) = tonic_health::server::health_reporter();
        let who = async |axum::Extension(peer): axum::Extension<Peer>| match peer.certificate {
            CertificateName::Named { name, .. } => format!("{} {name}", peer.transport),
            other => format!("{} {other:?}", peer.transport),
        };
        let router =
            tonic::service::Routes::new(health).into_axum_router().merge(Router::new().route("/who", get(who)));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let udp = UdpSocket::bind(address).expect("bound");
        let stop = CancellationToken::new();
        let tls = Arc::new(server_config(&files.tls, &[b"h2", b"http/1.1"]).expect("tls"));
        let endpoint = quic::endpoint(udp, server_config(&files.tls, &[b"h3"]).expect("tls"), limits).expect("quic");
        let mut loops = JoinSet::new();
        loops.spawn(serve::serve(listener, tls, router.clone(), limits, stop.clone()));
        loops.spawn(quic::serve(endpoint, router, limits, stop.clone()));
        files.write_profiles(address.port()).expect("profiles");
        Self { dir, address, stop, loops }
    }

    fn link(&self, role: &str, transport: Transport) -> Link {
        let profile = self.dir.path().join("client").join(format!("{role}.toml"));
        Link::open(&profile, Some(transport)).expect("a profile")
    }

    async fn who(&self, mut link: Link) -> String {
        let request = Request::get("https://localhost/who").body(Body::empty()).expect("a request");
        let response = link.ready().await.expect("ready").call(request).await.expect("an answer");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    /// A TLS connection that asks for nothing.
    async fn shake(&self) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let ca = CertificateDer::from_pem_file(self.dir.path().join("client/ca.pem")).expect("ca");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca).expect("added");
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("TLS 1.3")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = "localhost".try_into().expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

fn limits() -> Limits {
    Limits { age_grace: Duration::from_millis(300), drain_grace: Duration::from_millis(300), ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_tells_its_peer() {
    let served = Served::start(limits()).await;
    assert_eq!(served.who(served.link("switch", Transport::H2)).await, "h2 switch/dev");
    assert_eq!(served.who(served.link("admin", Transport::H3)).await, "h3 admin/dev");
    let profile = served.dir.path().join("client/nobody.toml");
    let text = format!("endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\n", served.address.port());
    std::fs::write(&profile, text).expect("written");
    for transport in TRANSPORTS {
        let link = Link::open(&profile, Some(transport)).expect("a profile");
        assert!(served.who(link).await.ends_with(" Absent"), "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_ca_is_refused_in_the_handshake() {
    let served = Served::start(limits()).await;
    let other = Served::start(limits()).await;
    for file in ["admin.pem", "admin.key"] {
        let from = other.dir.path().join("client").join(file);
        std::fs::copy(from, served.dir.path().join("client").join(file)).expect("copied");
    }
    for transport in TRANSPORTS {
        let mut client = HealthClient::new(served.link("admin", transport));
        let answer = tokio::time::timeout(WITHIN, client.check(HealthCheckRequest::default())).await;
        assert!(answer.expect("an answer").is_err(), "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_a_maximum_age_and_the_next_request_finds_a_new_one() {
    let served = Served::start(Limits { max_age: Duration::from_secs(1), ..limits() }).await;
    for transport in TRANSPORTS {
        let mut client = HealthClient::new(served.link("admin", transport));
        let mut watch = client.watch(HealthCheckRequest::default()).await.expect("begun").into_inner();
        watch.message().await.expect("first").expect("an answer");
        // It would go on for ever; the connection does not.
        let end = tokio::time::timeout(WITHIN, watch.message()).await.expect("cut in time");
        assert!(end.is_err(), "{transport:?}: {end:?}");
        // One request may still meet the connection that is going.
        let mut answer = client.check(HealthCheckRequest::default()).await;
        if answer.is_err() {
            answer = client.check(HealthCheckRequest::default()).await;
        }
        answer.unwrap_or_else(|status| panic!("{transport:?}: {status}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_although_a_request_goes_on() {
    for transport in TRANSPORTS {
        let mut served = Served::start(limits()).await;
        let mut client = HealthClient::new(served.link("admin", transport));
        let mut watch = client.watch(HealthCheckRequest::default()).await.expect("begun").into_inner();
        watch.message().await.expect("first").expect("an answer");
        served.stop.cancel();
        let all = async { while served.loops.join_next().await.is_some() {} };
        tokio::time::timeout(WITHIN, all).await.unwrap_or_else(|_| panic!("{transport:?} does not end"));
        assert!(TcpStream::connect(served.address).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_asks_for_nothing_is_cut() {
    let served = Served::start(Limits { handshake: Duration::from_millis(300), ..limits() }).await;
    let mut silent = TcpStream::connect(served.address).await.expect("connected");
    let mut shaken = served.shake().await.expect("a handshake");
    let mut buffer = Vec::new();
    let cut = tokio::time::timeout(WITHIN, silent.read_to_end(&mut buffer)).await;
    assert!(cut.is_ok() && buffer.is_empty());
    // What the server says first (SETTINGS) may come; then the connection ends, by a close or a reset.
    let cut = tokio::time::timeout(WITHIN, shaken.read_to_end(&mut buffer)).await;
    assert!(cut.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_wait_until_one_goes() {
    let served = Served::start(Limits { connections: 1, ..limits() }).await;
    let mut first = served.shake().await.expect("a handshake");
    let second = served.shake();
    let mut second = std::pin::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(300), second.as_mut()).await.is_err());
    first.shutdown().await.expect("closed");
    drop(first);
    tokio::time::timeout(WITHIN, second).await.expect("in time").expect("a handshake");
}
