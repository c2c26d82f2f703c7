//! The outside of the gateway over each of its transports, against the real process: what is answered, to whom, and what
//! is refused. What the vault does with recordings is tested elsewhere.

#[path = "common/gateway.rs"]
mod gateway;

use gateway::Gateway;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use quietus::{
    cli::{args::Transport, connect::Link},
    proto::{
        rpc,
        v1::{
            self, RecordRequest, RecordResponse, erase_request::Scope, erasure_service_client::ErasureServiceClient,
            play_response, playback_service_client::PlaybackServiceClient, record_request::Event, record_response,
            recording_service_client::RecordingServiceClient, tenant_service_client::TenantServiceClient,
        },
    },
};
use std::{
    io::{Read as _, Write as _},
    path::Path,
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, body::Body};
use tower::{Service as _, ServiceExt as _};

const TRANSPORTS: [Transport; 2] = [Transport::H2, Transport::H3];
const WITHIN: Duration = Duration::from_secs(30);

fn start() -> (tempfile::TempDir, Gateway) {
    let dir = tempfile::tempdir().expect("dir");
    let gateway = Gateway::start(&dir.path().join("data"));
    (dir, gateway)
}

async fn create_tenant(link: Link, name: &str) {
    let request = v1::CreateTenantRequest {
        name: name.into(),
        home: "eu-west-2".into(),
        residency: v1::Residency::HomeOnly.into(),
        policy: "dev".into(),
        keep: String::new(),
    };
    TenantServiceClient::new(link).create_tenant(request).await.expect("created");
}

fn open(tenant: &str, mode: v1::Mode) -> Event {
    Event::Open(v1::Open {
        tenant: tenant.into(),
        subscriber: "sub-1".into(),
        kind: v1::Kind::Call.into(),
        mode: mode.into(),
        media_type: "audio/PCMA;rate=8000".into(),
        start_ms: quietus::domain::time::Clock::system().now().0,
        client_id: quietus::crypto::random::<16>().to_vec().into(),
        ..Default::default()
    })
}

/// A stream that is fed by hand.
struct Call {
    requests: mpsc::Sender<RecordRequest>,
    answers: Streaming<RecordResponse>,
}

impl Call {
    async fn begin(link: Link, first: Event) -> Result<(Self, v1::Opened), Status> {
        let (requests, stream) = mpsc::channel(8);
        requests.send(RecordRequest { event: Some(first) }).await.expect("room");
        let answers = RecordingServiceClient::new(link).record(ReceiverStream::new(stream)).await?.into_inner();
        let mut call = Self { requests, answers };
        match call.next().await? {
            record_response::Event::Opened(opened) => Ok((call, opened)),
            other => panic!("{other:?}"),
        }
    }

    async fn say(&self, event: Event) {
        self.requests.send(RecordRequest { event: Some(event) }).await.expect("the stream is open");
    }

    async fn next(&mut self) -> Result<record_response::Event, Status> {
        let answer = tokio::time::timeout(WITHIN, self.answers.message()).await.expect("an answer in time")?;
        Ok(answer.expect("the stream is open").event.expect("an event"))
    }

    async fn until_finished(&mut self) -> Result<v1::Finished, Status> {
        loop {
            if let record_response::Event::Finished(finished) = self.next().await? {
                return Ok(finished);
            }
        }
    }
}

async fn store(link: Link, tenant: &str, mode: v1::Mode, content: &[u8]) -> String {
    let (mut call, opened) = Call::begin(link, open(tenant, mode)).await.expect("opened");
    for (index, piece) in content.chunks(50_000).enumerate() {
        let data = v1::Data { offset: (index * 50_000) as u64, content: piece.to_vec().into() };
        call.say(Event::Data(data)).await;
    }
    let length = content.len() as u64;
    call.say(Event::Finish(v1::Finish { length, ..Default::default() })).await;
    let finished = call.until_finished().await.expect("finished");
    assert_eq!((finished.length, &finished.recording_id), (length, &opened.recording_id));
    assert!(call.answers.message().await.expect("ends well").is_none());
    opened.recording_id
}

async fn play(link: Link, id: &str, range: Option<v1::play_request::Range>) -> Result<Vec<u8>, Status> {
    let request = v1::PlayRequest { id: id.into(), range, ..Default::default() };
    let mut stream = PlaybackServiceClient::new(link).play(request).await?.into_inner();
    let mut heard = Vec::new();
    let mut info = None;
    while let Some(answer) = stream.message().await? {
        match answer.event.expect("an event") {
            play_response::Event::Info(first) => info = Some(first),
            play_response::Event::Chunk(chunk) => heard.extend_from_slice(&chunk.content),
        }
    }
    assert_eq!(info.expect("info comes first").length, heard.len() as u64);
    Ok(heard)
}

fn reason(status: &Status) -> String {
    rpc::decode(status.details()).map(|info| info.reason).unwrap_or_default()
}

fn sound(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_goes_in_and_comes_out_over_both_transports() {
    let (_dir, gateway) = start();
    for (tenant, transport) in ["t2", "t3"].into_iter().zip(TRANSPORTS) {
        let link = || gateway.link("developer", transport);
        create_tenant(link(), tenant).await;
        let content = sound(700_001);
        for mode in [v1::Mode::Spooled, v1::Mode::Live] {
            let id = store(link(), tenant, mode, &content).await;
            assert!(play(link(), &id, None).await.expect("plays") == content, "{transport:?} {mode:?}");
            let range = v1::play_request::Range::Bytes(v1::ByteRange { start: 65_530, end: 65_550 });
            assert_eq!(play(link(), &id, Some(range)).await.expect("plays"), content[65_530..65_550]);

            let scope = Scope::Recording(v1::EraseRecording { id: id.clone(), part: v1::Part::Unspecified.into() });
            let request = v1::EraseRequest { scope: Some(scope), ..Default::default() };
            let erased = ErasureServiceClient::new(link()).erase(request).await.expect("erased").into_inner();
            assert_eq!(erased.outcome(), v1::Outcome::Erased);
            assert!(erased.generation_to > erased.generation_from);
            let gone = play(link(), &id, None).await.expect_err("gone");
            assert_eq!((gone.code(), reason(&gone)), (Code::FailedPrecondition, "ERASED".into()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_are_the_same_over_both_transports() {
    let (_dir, gateway) = start();
    create_tenant(gateway.link("admin", Transport::H2), "acme").await;
    let id = store(gateway.link("switch", Transport::H2), "acme", v1::Mode::Spooled, b"sound").await;
    for transport in TRANSPORTS {
        let link = |role| gateway.link(role, transport);
        let unknown = play(link("admin"), &"0".repeat(52), None).await.expect_err("unknown");
        assert_eq!((unknown.code(), reason(&unknown)), (Code::NotFound, "UNKNOWN".into()), "{transport:?}");
        let malformed = play(link("admin"), "x", None).await.expect_err("malformed");
        assert_eq!((malformed.code(), reason(&malformed)), (Code::InvalidArgument, "INVALID".into()));
        let unknown = play(link("staff"), &"0".repeat(52), None).await.expect_err("unknown");
        assert_eq!((unknown.code(), reason(&unknown)), (Code::NotFound, "UNKNOWN".into()));
        let staff = play(link("staff"), &id, None).await.expect_err("denied");
        assert_eq!((staff.code(), reason(&staff)), (Code::PermissionDenied, "NOT_PERMITTED".into()));
        assert!(staff.message().contains("customer's permission"));
        let denied = Call::begin(link("auditor"), open("acme", v1::Mode::Spooled)).await.err().expect("denied");
        assert_eq!(denied.code(), Code::PermissionDenied);
        let tenant = Call::begin(link("switch"), open("nobody", v1::Mode::Spooled)).await.err().expect("unknown");
        assert_eq!((tenant.code(), reason(&tenant)), (Code::NotFound, "UNKNOWN".into()));
        let first = Event::Finish(v1::Finish::default());
        let protocol = Call::begin(link("switch"), first).await.err().expect("refused");
        assert_eq!(protocol.code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_bound_is_refused() {
    let (_dir, gateway) = start();
    create_tenant(gateway.link("admin", Transport::H2), "acme").await;
    for transport in TRANSPORTS {
        let (mut call, _) =
            Call::begin(gateway.link("switch", transport), open("acme", v1::Mode::Spooled)).await.expect("opened");
        call.say(Event::Data(v1::Data { offset: 0, content: vec![0; (1 << 20) + 1].into() })).await;
        let refused = call.until_finished().await.expect_err("refused");
        assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, "INVALID".into()), "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_finish_tells_its_own_reason_and_leaves_nothing() {
    let (_dir, gateway) = start();
    create_tenant(gateway.link("admin", Transport::H2), "acme").await;
    let finishes = [(0, 0, "INVALID"), (1000, 999, "MISMATCH"), (1000, 1001, "MISMATCH")];
    // The refusal and the end of the recording race; repeat, so that both orders are seen.
    for transport in TRANSPORTS {
        for (arrives, stated, expected) in finishes.repeat(5) {
            let link = || gateway.link("developer", transport);
            let (mut call, opened) = Call::begin(link(), open("acme", v1::Mode::Spooled)).await.expect("opened");
            if arrives > 0 {
                call.say(Event::Data(v1::Data { offset: 0, content: vec![7; arrives].into() })).await;
            }
            call.say(Event::Finish(v1::Finish { length: stated, ..Default::default() })).await;
            let refused = call.until_finished().await.expect_err("refused");
            assert_eq!(reason(&refused), expected, "{transport:?} {arrives} {stated}: {refused}");
            assert!(play(link(), &opened.recording_id, None).await.is_err());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discarded_recording_is_erased() {
    let (_dir, gateway) = start();
    create_tenant(gateway.link("admin", Transport::H2), "acme").await;
    for transport in TRANSPORTS {
        let link = || gateway.link("developer", transport);
        let (mut call, opened) = Call::begin(link(), open("acme", v1::Mode::Live)).await.expect("opened");
        call.say(Event::Data(v1::Data { offset: 0, content: vec![7; 1000].into() })).await;
        call.say(Event::Discard(v1::Discard::default())).await;
        loop {
            match call.next().await.expect("no status") {
                record_response::Event::Discarded(gone) => break assert_eq!(gone.recording_id, opened.recording_id),
                record_response::Event::Watermark(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let gone = play(link(), &opened.recording_id, None).await.expect_err("gone");
        assert_eq!(reason(&gone), "ERASED", "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_vanishes_harms_nobody() {
    let (_dir, gateway) = start();
    create_tenant(gateway.link("admin", Transport::H2), "acme").await;
    for transport in TRANSPORTS {
        let first = open("acme", v1::Mode::Live);
        let (mut call, opened) = Call::begin(gateway.link("switch", transport), first.clone()).await.expect("opened");
        call.say(Event::Data(v1::Data { offset: 0, content: vec![7; 1000].into() })).await;
        while !matches!(call.next().await, Ok(record_response::Event::Watermark(mark)) if mark.journaled == 1000) {}
        drop(call);
        let (mut call, again) = Call::begin(gateway.link("switch", transport), first).await.expect("opened again");
        assert_eq!((&again.recording_id, again.resume_offset), (&opened.recording_id, 1000), "{transport:?}");
        call.say(Event::Finish(v1::Finish { length: 1000, ..Default::default() })).await;
        assert_eq!(call.until_finished().await.expect("finished").length, 1000);
    }
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

async fn get(link: &mut Link, path: &str, headers: &[(header::HeaderName, &str)]) -> http::Response<bytes::Bytes> {
    let mut request = Request::get(format!("https://localhost{path}"));
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = link.ready().await.expect("ready").call(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    http::Response::from_parts(head, body.collect().await.expect("a body").to_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audio_element_plays_and_seeks() {
    let (_dir, gateway) = start();
    create_tenant(gateway.link("admin", Transport::H2), "acme").await;
    let content = sound(300_000);
    let id = store(gateway.link("switch", Transport::H2), "acme", v1::Mode::Spooled, &content).await;
    let path = format!("/v1/recordings/{id}/audio");
    for transport in TRANSPORTS {
        let mut link = gateway.link("developer", transport);
        let whole = get(&mut link, &path, &[]).await;
        assert_eq!(whole.status(), StatusCode::OK);
        assert_eq!(whole.headers()[header::CONTENT_TYPE], "audio/PCMA;rate=8000");
        assert_eq!(whole.headers()[header::CONTENT_LENGTH], "300000");
        assert_eq!(whole.headers()[header::ACCEPT_RANGES], "bytes");
        assert!(whole.body() == &content, "{transport:?}");
        for (range, start, end) in
            [("bytes=0-", 0, 300_000), ("bytes=65000-66000", 65_000, 66_001), ("bytes=-7", 299_993, 300_000)]
        {
            let part = get(&mut link, &path, &[(header::RANGE, range)]).await;
            assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
            assert_eq!(part.headers()[header::CONTENT_RANGE], format!("bytes {start}-{}/300000", end - 1));
            assert!(part.body() == &content[start..end], "{range}");
        }
        let outside = get(&mut link, &path, &[(header::RANGE, "bytes=300000-")]).await;
        assert_eq!(outside.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(outside.headers()[header::CONTENT_RANGE], "bytes */300000");
        let staff = get(&mut gateway.link("staff", transport), &path, &[]).await;
        assert_eq!(staff.status(), StatusCode::FORBIDDEN);
        let token = std::fs::read_to_string(gateway.client_file("developer.token")).expect("token");
        let by_token = get(&mut gateway.link("staff", transport), &format!("{path}?access_token={token}"), &[]).await;
        assert_eq!(by_token.status(), StatusCode::OK);
        let wrong = get(&mut link, &format!("{path}?access_token=wrong"), &[]).await;
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(get(&mut link, "/readyz", &[]).await.status(), StatusCode::OK);
        let mut admin = gateway.link("admin", transport);
        assert_eq!(get(&mut admin, "/metrics", &[]).await.status(), StatusCode::FORBIDDEN);
        // Who reaches every tenant is the provider's.
        assert_eq!(get(&mut admin, &path, &[]).await.status(), StatusCode::FORBIDDEN);
        let metrics = get(&mut gateway.link("operator", transport), "/metrics", &[]).await;
        assert!(String::from_utf8_lossy(metrics.body()).contains("\nquietus_journal_bytes "));
    }
    let log = gateway.log();
    assert!(!log.contains("access_token") && !log.contains("acme") && !log.contains("sub-1"), "{log}");
}

#[test]
fn plaintext_is_refused() {
    let (_dir, gateway) = start();
    for hello in [&b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", gateway.port)).expect("connected");
        stream.set_read_timeout(Some(WITHIN)).expect("set");
        stream.write_all(hello).expect("sent");
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.windows(4).any(|window| window == b"HTTP"), "{answer:?}");
    }
}

#[test]
fn a_stopped_gateway_starts_again_on_its_folder_and_refuses_a_second_process() {
    let (_dir, gateway) = start();
    let data = gateway.data().to_owned();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_quietus")).arg("dev").arg("--data").arg(&data).output();
    let second = second.expect("runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another quietus serves"));
    let ca = std::fs::read(gateway.client_file("ca.pem")).expect("ca");
    assert!(gateway.stop().success());
    let again = Gateway::start(&data);
    assert_eq!(std::fs::read(again.client_file("ca.pem")).expect("ca"), ca);
    assert!(again.run(&["status", "--json"]).status.success());
}

#[test]
fn commands_end_with_the_exit_statuses_of_the_interface_page() {
    let (dir, gateway) = start();
    let file = dir.path().join("a.al");
    std::fs::write(&file, sound(20_000)).expect("written");
    let file = file.to_str().expect("text");
    for transport in ["h2", "h3"] {
        let tenant = format!("acme-{transport}");
        let run = |arguments: &[&str], status: i32| {
            let output = gateway.command(arguments).env("QUIETUS_TRANSPORT", transport).output().expect("runs");
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
            assert_eq!(error.lines().count(), usize::from(status != 0), "{error}");
            String::from_utf8(output.stdout).expect("text").trim().to_owned()
        };
        run(&["tenant", "create", &tenant, "--home", "eu-west-2"], 0);
        run(&["tenant", "create", &tenant, "--home", "eu-west-2"], 1);
        let id = run(&["record", "--tenant", &tenant, "--subscriber", "s", "--kind", "call", file], 0);
        assert_eq!(id.len(), 52);
        run(&["show", &id], 0);
        run(&["show", "nonsense"], 2);
        run(&["show", &"0".repeat(52)], 5);
        let staff = gateway.client_file("staff.toml");
        run(&["--profile", staff.to_str().expect("text"), "play", &id], 3);
        run(&["erase", "recording", &id], 0);
        run(&["play", &id], 4);
    }
    let nobody = dir.path().join("nobody.toml");
    let ca = gateway.client_file("ca.pem");
    std::fs::write(&nobody, format!("endpoint = \"https://localhost:1\"\nca = \"{}\"\n", ca.display()))
        .expect("written");
    let away = gateway.run(&["--profile", nobody.to_str().expect("text"), "status"]);
    assert_eq!(away.status.code(), Some(75));
}

/// Docs: docs/audit.md, "What waits".
#[test]
fn what_waits_ends_with_status_6_and_gives_the_receipt_that_it_will_have() {
    let (dir, gateway) = start();
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    std::fs::write(path("a.al"), sound(20_000)).expect("written");
    let policy = "name = \"slow\"\nmargin = \"1h\"\nparties = \"owner\"\n[purge]\napproval = \"confirm\"\n\
                  cooling_off = \"72h\"\n[[keep]]\nwhat = \"both\"\nnot_after = \"90d after close\"\n";
    std::fs::write(path("slow.toml"), policy).expect("written");
    let run = |arguments: &[&str], status: i32| {
        let output = gateway.run(&[&["--json"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        let json = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default();
        (json, error)
    };
    run(&["tenant", "create", "acme", "--home", "eu-west-2", "--policy", &path("slow.toml")], 0);
    let recorded = run(&["record", "--tenant", "acme", "--subscriber", "s", "--kind", "call", &path("a.al")], 0).0;
    let id = recorded["id"].as_str().expect("an id");
    let review = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string();
    let held = ["--recording", id, "--ground", "g", "--authority", "a", "--review", &review];
    let hold = run(&[&["hold", "place"], &held[..]].concat(), 0).0["id"].as_str().expect("an id").to_owned();

    let receipt = path("r.txt");
    let parked = run(&["erase", "recording", id, "--receipt", &receipt], 6).0;
    let promised = parked["receipt"].as_str().expect("an id").to_owned();
    assert_eq!((parked["outcome"].as_str(), parked["opening"].is_null()), (Some("parked"), true));
    assert!(!Path::new(&receipt).exists());
    let opening = std::fs::read_to_string(format!("{receipt}.opening")).expect("kept");
    // Asked for again, it is the same receipt, and is opened by what the first one drew.
    let again = run(&["erase", "recording", id], 6).0;
    assert_eq!((again["receipt"].as_str(), again["opening"].as_str()), (Some(&*promised), Some(opening.trim())));
    run(&["receipt", "show", &promised], 5);
    assert_eq!(run(&["hold", "list", "--parked"], 0).0["receipt"].as_str(), Some(&*promised));
    let lifted = run(&["hold", "lift", &hold], 0).0;
    assert_eq!(lifted["receipts"], serde_json::json!([promised]));
    run(&["receipt", "show", &promised, "-o", &receipt], 0);
    let (key, scope) = (gateway.client_file("audit.vkey"), format!("recording {id}"));
    let opening = format!("{receipt}.opening");
    let verify =
        ["receipt", "verify", &receipt, "--key", key.to_str().expect("text"), "--opening", &opening, "--scope"];
    run(&[&verify[..], &[&scope]].concat(), 0);
    run(&[&verify[..], &["recording other"]].concat(), 1);

    // A whole tenant is named twice, whichever way it goes.
    let (_, error) = run(&["erase", "tenant", "acme"], 2);
    assert!(error.contains("--confirm NAME"), "{error}");
    run(&["erase", "tenant", "acme", "--confirm", "other"], 2);
    run(&["erase", "tenant", "acme", "--dry-run"], 0);
    let purge = path("purge.txt");
    let cools = run(&["erase", "tenant", "acme", "--confirm", "acme", "--receipt", &purge], 6).0;
    let again = run(&["tenant", "purge", "acme", "--confirm", "acme"], 6).0;
    assert!(cools["receipt"].is_string() && cools["receipt"] == again["receipt"]);
    let opening = std::fs::read_to_string(format!("{purge}.opening")).expect("kept");
    assert_eq!(again["opening"].as_str(), Some(opening.trim()));
    let shown = run(&["tenant", "show", "acme"], 0).0;
    assert_eq!(shown["transition"]["receipt"], cools["receipt"]);
}
