//! Webhooks against a real receiver over TLS: what is sent, how it is signed, and what happens when nobody takes it.

#[path = "common/rehearsal.rs"]
mod rehearsal;

use quietus::{
    domain::permission::{Level, Terms},
    server::dev_files::DevFiles,
    vault::{Actor, ActorRole, Error, NewPermission, Over, Scope, VaultConfig, WebhookConfig},
};
use rehearsal::{HOUR_MS, World, admin};
use ring::hmac;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{mpsc, watch},
};

const WITHIN: Duration = Duration::from_secs(60);

/// A server of a tenant: tells what it is sent, and answers with the status that it is told to.
struct Receiver {
    url: String,
    requests: mpsc::Receiver<String>,
    answer: watch::Sender<u16>,
    config: WebhookConfig,
    _dir: tempfile::TempDir,
}

impl Receiver {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let files = DevFiles::prepare(dir.path()).expect("certificates");
        let chain = vec![CertificateDer::from_pem_slice(&files.tls.certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(&files.tls.key).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("https://localhost:{}/hook", listener.local_addr().expect("an address").port());
        let (told, requests) = mpsc::channel(64);
        let (answer, answers) = watch::channel(200);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                // The body is JSON on one line, and ends the request.
                while !request.ends_with(b"}") {
                    match stream.read(&mut buffer).await {
                        Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                        _ => break,
                    }
                }
                let status = *answers.borrow();
                // A redirect leads to itself: whoever followed it would come again.
                let head = format!("HTTP/1.1 {status} x\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.shutdown().await;
                let _ = told.send(String::from_utf8(request).expect("text")).await;
            }
        });
        let ca = files.tls.client_ca.clone().expect("a CA");
        let config = WebhookConfig { ca_pem: Some(ca), allow_private: true };
        Self { url, requests, answer, config, _dir: dir }
    }

    async fn next(&mut self) -> String {
        tokio::time::timeout(WITHIN, self.requests.recv()).await.expect("in time").expect("a request")
    }

    async fn stays_silent(&mut self) {
        // Longer than the pause between two looks.
        let came = tokio::time::timeout(Duration::from_secs(3), self.requests.recv()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

fn anna() -> Actor {
    Actor { scope: Scope::Tenants(vec!["acme".into()]), ..admin("anna") }
}

async fn world(webhook: WebhookConfig) -> (World, quietus::domain::id::RecordingId) {
    let world = World::new(VaultConfig { webhook, ..VaultConfig::default() }).await;
    world.tenant("acme", "dev").await;
    let id = world.record("acme", "+441632960001").await;
    (world, id)
}

async fn ask(world: &World, id: quietus::domain::id::RecordingId) -> String {
    let staff = Actor { role: ActorRole::Staff, name: "staff/sam".into(), ..admin("x") };
    let terms = Terms { level: Level::Listen, lasts_ms: HOUR_MS, later_calls: false };
    let new =
        NewPermission { over: Over::Recording(id), purpose: "crackling line".into(), ticket: "T-1".into(), terms };
    world.vault().request_permission(&staff, new).await.expect("asked").id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_told_by_its_id_alone_and_signed() {
    let mut receiver = Receiver::start().await;
    let (world, id) = world(receiver.config.clone()).await;
    let secret = world.vault().set_webhook(&anna(), "acme", &receiver.url).await.expect("set");
    let asked = ask(&world, id).await;
    let request = receiver.next().await;
    let (head, body) = request.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let mut fields: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["event", "id", "item", "time"]);
    assert_eq!((&json["event"], &json["id"]), (&"permission.requested".into(), &asked.into()));
    for told in ["acme", "+44", "sam", "crackling", "T-1", &id.to_string()] {
        assert!(!request.contains(told), "{told}: {request}");
    }
    let line = head.lines().find_map(|line| line.strip_prefix("quietus-signature: ")).expect("a signature");
    let (seconds, tag) = line.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("two parts");
    assert_eq!(seconds.parse(), Ok(world.now().0 / 1000));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = data_encoding::HEXLOWER.decode(tag.as_bytes()).expect("hexadecimal");
    assert!(hmac::verify(&key, format!("{seconds}.{body}").as_bytes(), &tag).is_ok());
    assert!(hmac::verify(&key, format!("{}.{body}", 1).as_bytes(), &tag).is_err(), "the time is signed too");
    receiver.stays_silent().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_takes_is_sent_again_later_also_after_a_restart() {
    let mut receiver = Receiver::start().await;
    let (mut world, id) = world(receiver.config.clone()).await;
    world.vault().set_webhook(&anna(), "acme", &receiver.url).await.expect("set");
    receiver.answer.send_replace(500);
    ask(&world, id).await;
    let first = receiver.next().await;
    receiver.stays_silent().await;
    // A redirect is a failure like any other: it is not followed.
    receiver.answer.send_replace(307);
    world.clock.advance_ms(10_000);
    world.reopen().await;
    let second = receiver.next().await;
    let body = |request: &str| request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    assert_eq!(body(&first), body(&second), "told apart by nothing but the time of sending");
    receiver.stays_silent().await;
    receiver.answer.send_replace(204);
    world.clock.advance_ms(20_000);
    world.reopen().await;
    receiver.next().await;
    receiver.stays_silent().await;
    // Taken: never again.
    world.clock.advance_ms(HOUR_MS);
    world.reopen().await;
    receiver.stays_silent().await;
    assert_eq!(world.vault().inbox(&anna(), "acme", 10, "").await.expect("listed").0.len(), 1, "the inbox keeps it");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_inside_or_with_another_authority_is_not_talked_to() {
    let mut receiver = Receiver::start().await;
    // A name that leads inside: it can be set, and is not resolved for a connection.
    let inside = WebhookConfig { allow_private: false, ..receiver.config.clone() };
    let (first, id) = world(inside).await;
    for refused in ["http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/"] {
        let set = first.vault().set_webhook(&anna(), "acme", refused).await;
        assert!(matches!(set, Err(Error::Invalid { field: "url", .. })), "{refused}");
    }
    first.vault().set_webhook(&anna(), "acme", &receiver.url).await.expect("set");
    ask(&first, id).await;
    receiver.stays_silent().await;
    first.close().await;
    // An authority that is not known.
    let other = tempfile::tempdir().expect("a folder");
    let other = DevFiles::prepare(other.path()).expect("certificates").tls.client_ca.expect("a CA");
    let (second, id) = world(WebhookConfig { ca_pem: Some(other), allow_private: true }).await;
    second.vault().set_webhook(&anna(), "acme", &receiver.url).await.expect("set");
    ask(&second, id).await;
    receiver.stays_silent().await;
    // Only the customer says where.
    for nobody in [admin("root"), Actor { role: ActorRole::ApiKey, ..anna() }] {
        assert!(matches!(
            second.vault().set_webhook(&nobody, "acme", &receiver.url).await,
            Err(Error::NotPermitted { .. })
        ));
        assert!(second.vault().remove_webhook(&nobody, "acme").await.is_err());
    }
    assert!(second.vault().remove_webhook(&anna(), "acme").await.expect("removed"));
    assert!(second.vault().webhook(&anna(), "acme").expect("shown").is_none());
    second.close().await;
}
