//! Who may hear, from outside: the real process over gRPC, HTTP/1.1, HTTP/2 and HTTP/3, and the commands. The rules
//! themselves are tested in `permission.rs`.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/served.rs"]
mod served;
#[path = "common/wire.rs"]
mod wire;

use gateway::Gateway;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use quietus::{
    cli::{args::Transport, connect::Link},
    proto::v1::{
        self, Mode, Residency, permission_scope::About, permission_service_client::PermissionServiceClient,
        play_response::Event, playback_service_client::PlaybackServiceClient,
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use served::World;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Status, body::Body};
use tower::{Service as _, ServiceExt as _};
use wire::{open, reason, store};

const TRANSPORTS: [Transport; 2] = [Transport::H2, Transport::H3];
/// Enough that a listener, who is held back, is not through with it when the test goes on.
const LONG: usize = 3 << 20;
/// What may be on its way when a listener who reads is cut: a segment, and what the client had not looked at.
const IN_FLIGHT: usize = 256 << 10;
/// The bound.
const CUT_WITHIN: Duration = Duration::from_secs(1);

async fn ask(gateway: &Gateway, recording: &str, level: v1::PermissionLevel) -> String {
    let request = v1::RequestPermissionRequest {
        scope: Some(v1::PermissionScope { about: Some(About::Recording(recording.into())) }),
        purpose: "crackling line".into(),
        ticket: "T-1".into(),
        terms: Some(v1::PermissionTerms { level: level.into(), seconds: 3600, later_calls: false }),
    };
    let mut staff = PermissionServiceClient::new(gateway.link("staff", Transport::H2));
    staff.request(request).await.expect("asked").into_inner().id
}

async fn granted(gateway: &Gateway, recording: &str) -> String {
    let id = ask(gateway, recording, v1::PermissionLevel::Listen).await;
    let grant = v1::GrantPermissionRequest { id: id.clone(), ..Default::default() };
    customer(gateway).grant(grant).await.expect("granted");
    id
}

fn customer(gateway: &Gateway) -> PermissionServiceClient<Link> {
    PermissionServiceClient::new(gateway.link("admin", Transport::H2))
}

async fn revoke(gateway: &Gateway, id: &str) {
    customer(gateway).revoke(v1::RevokePermissionRequest { id: id.into() }).await.expect("revoked");
}

async fn get(mut link: Link, path: &str, range: Option<&str>) -> http::Response<tonic::body::Body> {
    let mut request = Request::get(format!("https://localhost{path}"));
    if let Some(range) = range {
        request = request.header(header::RANGE, range);
    }
    let request = request.body(Body::empty()).expect("a request");
    link.ready().await.expect("ready").call(request).await.expect("an answer")
}

async fn whole(response: http::Response<tonic::body::Body>) -> (http::response::Parts, Vec<u8>) {
    let (head, body) = response.into_parts();
    (head, body.collect().await.expect("a body").to_bytes().to_vec())
}

/// What a listener counts while it reads as fast as it can.
#[derive(Clone, Default)]
struct Heard {
    bytes: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Heard {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < wire::WITHIN, "{what}: {} bytes", self.bytes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The ways in which a recording is listened to.
#[derive(Clone, Copy, Debug)]
enum Way {
    Grpc(Transport),
    Http(Transport),
    Http1,
    Ticket(Transport),
}

const WAYS: [Way; 7] = [
    Way::Grpc(Transport::H2),
    Way::Grpc(Transport::H3),
    Way::Http(Transport::H2),
    Way::Http(Transport::H3),
    Way::Http1,
    Way::Ticket(Transport::H2),
    Way::Ticket(Transport::H3),
];

/// Listens as staff in the background. The task's outcome says whether it was told of a failure, or took it for the end.
async fn listen(gateway: &Gateway, way: Way, recording: &str, heard: Heard) -> tokio::task::JoinHandle<bool> {
    let path = format!("/v1/recordings/{recording}/audio");
    match way {
        Way::Grpc(transport) => {
            let mut stream =
                wire::start_playing(gateway.link("staff", transport), recording, None).await.expect("plays");
            tokio::spawn(async move {
                let failed = loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            if let Some(Event::Chunk(chunk)) = message.event {
                                heard.add(chunk.content.len());
                            }
                        }
                        Ok(None) => break false,
                        Err(status) => break reason(&status) == "NOT_PERMITTED",
                    }
                };
                heard.ended.store(true, Ordering::SeqCst);
                failed
            })
        }
        Way::Http(transport) | Way::Ticket(transport) => {
            let (link, path) = match way {
                Way::Ticket(_) => (nobody(gateway, transport), ticket(gateway, "staff", recording).await),
                _ => (gateway.link("staff", transport), path),
            };
            let answer = get(link, &path, None).await;
            assert_eq!(answer.status(), StatusCode::OK, "{way:?}");
            let mut body = answer.into_body();
            tokio::spawn(async move {
                let failed = loop {
                    match body.frame().await {
                        Some(Ok(frame)) => heard.add(frame.data_ref().map_or(0, |data| data.len())),
                        Some(Err(_)) => break true,
                        None => break false,
                    }
                };
                heard.ended.store(true, Ordering::SeqCst);
                failed
            })
        }
        Way::Http1 => {
            let mut stream = http1(gateway).await;
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            tokio::spawn(async move {
                let (mut buffer, mut all) = (vec![0; 64 << 10], 0);
                let failed = loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) => break all < LONG,
                        Ok(read) => {
                            all += read;
                            heard.add(read);
                        }
                        Err(_) => break true,
                    }
                };
                heard.ended.store(true, Ordering::SeqCst);
                failed
            })
        }
    }
}

/// A connection as staff that speaks HTTP/1.1.
async fn http1(gateway: &Gateway) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(gateway.client_file("ca.pem")).expect("a CA")).expect("added");
    let chain = vec![CertificateDer::from_pem_file(gateway.client_file("staff.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(gateway.client_file("staff.key")).expect("a key");
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", gateway.port)).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

/// A channel of somebody who shows nothing.
fn nobody(gateway: &Gateway, transport: Transport) -> Link {
    let path = gateway.client_file("nobody.toml");
    let text = format!("endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\n", gateway.port);
    std::fs::write(&path, text).expect("written");
    Link::open(&path, Some(transport)).expect("a profile")
}

/// The path of a fresh ticket.
async fn ticket(gateway: &Gateway, role: &str, recording: &str) -> String {
    let mut client = PlaybackServiceClient::new(gateway.link(role, Transport::H2));
    let ticket = client.ticket(v1::TicketRequest { id: recording.into() }).await.expect("a ticket").into_inner();
    let (host, path) = ticket.url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).expect("a URL");
    assert_eq!(host, format!("localhost:{}", gateway.port), "the host that was asked");
    format!("/{path}")
}

async fn staged() -> (World, Gateway, String) {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", Transport::H2), "acme", Residency::HomeOnly).await;
    let sound = wire::sound(7, LONG);
    let id = store(gateway.link("switch", Transport::H2), open("acme", Mode::Spooled), &sound).await;
    (world, gateway, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revocation_cuts_a_running_playback_within_a_second_over_every_transport() {
    let (_world, gateway, id) = staged().await;
    for way in WAYS {
        let grant = granted(&gateway, &id).await;
        let heard = Heard::default();
        let listener = listen(&gateway, way, &id, heard.clone()).await;
        heard.until("begins", |heard| heard.bytes() > 1 << 20).await;
        assert!(!heard.ended.load(Ordering::SeqCst), "{way:?}: the listener is held back");
        revoke(&gateway, &grant).await;
        let (answered, before) = (Instant::now(), heard.bytes());
        heard.until("ends", |heard| heard.ended.load(Ordering::SeqCst)).await;
        let (took, after) = (answered.elapsed(), heard.bytes() - before);
        println!("{way:?}: ended {took:?} after the revocation was answered, {after} bytes came later");
        assert!(took < CUT_WITHIN, "{way:?}: {took:?}");
        assert!(after <= IN_FLIGHT, "{way:?}: {after} bytes after the revocation was answered");
        assert!(listener.await.expect("listened"), "{way:?}: a cut is not taken for the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_erasure_and_a_restriction_cut_a_running_playback_too() {
    let (_world, gateway, id) = staged().await;
    let admin = || gateway.link("admin", Transport::H2);
    granted(&gateway, &id).await;
    let restrict = || v1::RestrictRequest { scope: Some(v1::restrict_request::Scope::Recording(id.clone())) };
    let heard = Heard::default();
    let listener = listen(&gateway, Way::Http(Transport::H2), &id, heard.clone()).await;
    heard.until("begins", |heard| heard.bytes() > 1 << 20).await;
    let mut subscribers = v1::subscriber_service_client::SubscriberServiceClient::new(admin());
    subscribers.restrict(restrict()).await.expect("restricted");
    let answered = Instant::now();
    heard.until("ends", |heard| heard.ended.load(Ordering::SeqCst)).await;
    assert!(answered.elapsed() < CUT_WITHIN && listener.await.expect("listened"));
    for role in ["staff", "admin"] {
        let refused = wire::play(gateway.link(role, Transport::H2), &id, None).await.expect_err("restricted");
        assert_eq!(reason(&refused), "RESTRICTED", "nobody plays what is restricted: {role}");
    }
    subscribers.unrestrict(restrict()).await.expect("unrestricted");

    let heard = Heard::default();
    let listener = listen(&gateway, Way::Grpc(Transport::H3), &id, heard.clone()).await;
    // The pace goes on where it was: the same permission.
    heard.until("begins", |heard| heard.bytes() > 0).await;
    wire::erase(admin(), wire::recording(&id, v1::Part::Unspecified)).await.expect("erased");
    let answered = Instant::now();
    heard.until("ends", |heard| heard.ended.load(Ordering::SeqCst)).await;
    assert!(answered.elapsed() < CUT_WITHIN);
    assert!(!listener.await.expect("listened"), "told that it was erased, not that it may not");
    wire::assert_erased(gateway.link("staff", Transport::H2), &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_play_that_begins_after_the_revocation_gets_nothing() {
    let (_world, gateway, id) = staged().await;
    for round in 0..8 {
        let grant = granted(&gateway, &id).await;
        let answered = Arc::new(AtomicBool::new(false));
        let mut listeners = tokio::task::JoinSet::new();
        for transport in TRANSPORTS {
            let (link, id, answered) = (gateway.link("staff", transport), id.clone(), answered.clone());
            listeners.spawn(async move {
                loop {
                    let late = answered.load(Ordering::SeqCst);
                    match wire::play(link.clone(), &id, wire::bytes(0, 1000)).await {
                        Ok(_) => assert!(!late, "round {round}: heard after the revocation was answered"),
                        Err(status) if late => return assert_eq!(reason(&status), "NOT_PERMITTED"),
                        Err(_) => {}
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(20 + 3 * round)).await;
        revoke(&gateway, &grant).await;
        answered.store(true, Ordering::SeqCst);
        while let Some(listened) = listeners.join_next().await {
            listened.expect("as it should be");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_plays_in_an_element_and_tells_nobody_else_anything() {
    let (_world, gateway, id) = staged().await;
    let sound = wire::sound(7, LONG);
    for transport in TRANSPORTS {
        // The customer's own: nothing is held back.
        let path = ticket(&gateway, "admin", &id).await;
        let element = || nobody(&gateway, transport);
        // As an element does: open-ended first, then it seeks, on other connections too.
        let (head, body) = whole(get(element(), &path, Some("bytes=0-")).await).await;
        assert_eq!((head.status, body.len()), (StatusCode::PARTIAL_CONTENT, LONG));
        assert!(body == sound, "{transport:?}");
        let value = |name| head.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        assert_eq!(value(header::CONTENT_TYPE), Some("audio/PCMA;rate=8000"));
        assert_eq!(value(header::CONTENT_LENGTH), Some(LONG.to_string().as_str()));
        assert_eq!(value(header::CONTENT_RANGE), Some(format!("bytes 0-{}/{LONG}", LONG - 1).as_str()));
        assert_eq!(value(header::ACCEPT_RANGES), Some("bytes"));
        assert_eq!(value(header::CACHE_CONTROL), Some("no-store"));
        assert_eq!(value(header::REFERRER_POLICY), Some("no-referrer"));
        assert_eq!(value(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
        assert_eq!(value(header::ACCESS_CONTROL_ALLOW_ORIGIN), None);
        for (range, start, end) in [("bytes=100000-100099", 100_000, 100_100), ("bytes=-5", LONG - 5, LONG)] {
            let (head, body) = whole(get(element(), &path, Some(range)).await).await;
            assert_eq!(head.status, StatusCode::PARTIAL_CONTENT);
            assert!(body == sound[start..end], "{range}");
        }
        let outside = get(element(), &path, Some(&format!("bytes={LONG}-"))).await;
        assert_eq!(outside.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        // Made up, cut short, of another gateway: all the same.
        let made_up = whole(get(element(), "/v1/tickets/x", None).await).await;
        assert_eq!(made_up.0.status, StatusCode::NOT_FOUND);
        let (short, _) = path.split_at(path.len() - 1);
        assert_eq!(whole(get(element(), short, None).await).await.1, made_up.1);
        // The recording itself wants to know who asks.
        let bare = get(element(), &format!("/v1/recordings/{id}/audio"), None).await;
        assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
        let refused = PlaybackServiceClient::new(gateway.link("staff", transport))
            .ticket(v1::TicketRequest { id: id.clone() })
            .await
            .expect_err("no permission");
        assert_eq!(reason(&refused), "NOT_PERMITTED");
    }
    assert!(!gateway.log().contains("/v1/tickets/"), "no URL is logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_to_keep_needs_a_permission_that_says_so() {
    let (_world, gateway, id) = staged().await;
    let path = format!("/v1/recordings/{id}/audio?download=1");
    let staff = || gateway.link("staff", Transport::H2);
    granted(&gateway, &id).await;
    assert_eq!(get(staff(), &path, None).await.status(), StatusCode::FORBIDDEN);
    let request = v1::PlayRequest { id: id.clone(), download: true, ..Default::default() };
    let refused: Status = PlaybackServiceClient::new(staff()).play(request).await.expect_err("listening only");
    assert_eq!(reason(&refused), "NOT_PERMITTED");
    let wider = ask(&gateway, &id, v1::PermissionLevel::Download).await;
    customer(&gateway).grant(v1::GrantPermissionRequest { id: wider, ..Default::default() }).await.expect("granted");
    let (head, body) = whole(get(staff(), &path, None).await).await;
    assert_eq!((head.status, body.len()), (StatusCode::OK, LONG));
    assert_eq!(head.headers[header::CONTENT_DISPOSITION], "attachment; filename=\"recording\"");
}

/// A command as one of the identities.
fn run(gateway: &Gateway, role: &str, arguments: &[&str], status: i32) -> serde_json::Value {
    let profile = gateway.client_file(&format!("{role}.toml"));
    let profile = profile.to_str().expect("text");
    let output = gateway.run(&[&["--json", "--profile", profile], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{role} {arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staff_and_customer_settle_it_by_command_and_a_killed_gateway_remembers() {
    let (world, gateway, id) = staged().await;
    let file = world.aside("heard.al");
    let file = file.to_str().expect("text");
    let play = ["play", id.as_str(), "-o", file, "--bytes", "0-999"];
    run(&gateway, "staff", &play, 3);
    run(&gateway, "staff", &["show", &id], 2);
    assert_eq!(run(&gateway, "staff", &["show", &id, "--ticket", "T-7"], 0)["subscriber"], "sub-1");
    let ask =
        ["permission", "request", "--recording", &id, "--purpose", "crackling line", "--ticket", "T-7", "--for", "2h"];
    let asked = run(&gateway, "staff", &ask, 0)["id"].as_str().expect("an id").to_owned();
    let item = run(&gateway, "admin", &["inbox", "list", "acme"], 0);
    assert_eq!((&item["id"], &item["permission"]["purpose"]), (&asked.clone().into(), &"crackling line".into()));
    run(&gateway, "staff", &["permission", "grant", &asked], 3);
    run(&gateway, "staff", &play, 3);
    // Ids and words may lie in files, like names.
    let in_file = |name: &str, text: &str| {
        let path = world.aside(name);
        std::fs::write(&path, format!("{text}\n")).expect("written");
        format!("@{}", path.display())
    };
    let (asked_file, id_file) = (in_file("asked", &asked), in_file("id", &id));
    assert_eq!(run(&gateway, "admin", &["permission", "show", &asked_file], 0)["state"], "asked");
    assert_eq!(run(&gateway, "admin", &["policy", "explain", &id_file], 0)["id"], id.as_str());
    let words = ["--purpose", &in_file("why", "a second look"), "--ticket", &in_file("ticket", "T-8"), "--for", "1h"];
    let second = run(&gateway, "staff", &[&["permission", "request", "--recording", &id_file], &words[..]].concat(), 0);
    let denied = ["permission", "deny", &in_file("second", second["id"].as_str().expect("an id"))];
    assert_eq!(run(&gateway, "admin", &denied, 0)["purpose"], "a second look");
    let granted = run(&gateway, "admin", &["permission", "grant", &asked_file, "--for", "30m"], 0);
    assert_eq!((&granted["state"], &granted["granted"]["seconds"]), (&"granted".into(), &1800.into()));
    run(&gateway, "staff", &["play", &id_file, "-o", file, "--bytes", "0-999"], 0);
    assert_eq!(std::fs::read(file).expect("a file"), wire::sound(7, LONG)[..1000]);
    let item = item["item"].as_str().expect("an id");
    assert_eq!(run(&gateway, "admin", &["inbox", "ack", "acme", &in_file("item", item)], 0)["acknowledged"], 1);

    gateway.kill();
    let gateway = world.start();
    run(&gateway, "staff", &play, 0);
    assert_eq!(run(&gateway, "admin", &["permission", "revoke", &asked], 0)["state"], "revoked");
    run(&gateway, "staff", &play, 3);
    gateway.kill();
    let gateway = world.start();
    run(&gateway, "staff", &play, 3);
    run(&gateway, "admin", &["permission", "grant", &asked], 6);
    assert_eq!(run(&gateway, "staff", &["permission", "show", &asked], 0)["state"], "revoked");
    // The customer hears without asking, and the log names no name that went in.
    run(&gateway, "admin", &play, 0);
    let log = gateway.log();
    assert!(!log.contains("sub-1") && !log.contains("crackling") && !log.contains("T-7"), "{log}");
}

/// Every field that the configuration knows; none of them has to do with who may hear.
#[test]
fn no_switch_turns_the_gate_off() {
    let source = |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("reads");
    let gate = source("src/vault/permission/gate.rs");
    for word in ["config", "cfg(", "env::", "Access"] {
        let code = gate.split("#[cfg(test)]").next().expect("the program");
        assert!(!code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word)), "{word}");
    }
    // One way in, and one maker of what it takes.
    let playback = source("src/vault/playback.rs");
    assert_eq!(playback.matches("self.admit(").count(), 1);
    assert_eq!(playback.matches("tasks.spawn(").count(), 1);
}
