//! `customer-notice`, an office-services group.

use super::{
    gateway::Gateway,
    issuer::{Issuer, Signer},
    served::{REGIONS, World},
    stage::{self, CUSTOMER, DAY, DONE, Left, PROVIDER, REFUSED, STAFF, Stage, Take, USAGE, found},
    traces::Traces,
    wire::{self, Call, assert_plays, open, reason, sound, store},
};
use quietus::{
    cli::{args::Transport, connect::Link},
    object::{Embedded, embedded::Certificate},
    proto::v1,
    server::dev_files::DevFiles,
};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const NUMBER: &str = "+441632960031";

fn stage() -> Stage {
    let stage = Stage::open();
    stage.tenant("acme", "customer-notice", &["--keep", "60d"]);
    stage
}

/// What a call was recorded for is a fact of it; what somebody listens for is a term of the permission.
#[test]
fn n1_a_recording_and_a_permission_name_their_purpose() {
    let stage = stage();
    let call = stage.record(&Take::call("acme", NUMBER).more(&["--purpose", "training-wqzkjv"]));
    assert_eq!(stage.facts(&call).expect("kept")["purpose"], "training-wqzkjv");
    let terms = ["permission", "request", "--recording", &call.id, "--ticket", "T-1", "--for", "1h"];
    stage.refused(STAFF, &terms, USAGE);
    stage.refused(STAFF, &[&terms[..], &["--purpose", ""]].concat(), USAGE);
    let asked = stage.ok(STAFF, &[&terms[..], &["--purpose", "quality-vkqzwj"]].concat());
    let item = stage.json(CUSTOMER, &["inbox", "list", "acme"]).remove(0);
    assert_eq!(item["permission"]["purpose"], "quality-vkqzwj", "the customer decides on it");
    stage.ok(CUSTOMER, &["permission", "grant", &asked]);
    assert!(stage.plays_to(STAFF, &call));
    let before = stage.steal();
    // Both go with what they are about.
    stage.ok(CUSTOMER, &["erase", "recording", &call.id]);
    stage.assert_words(&before, &["training-wqzkjv", "quality-vkqzwj"], &["acme", NUMBER]);
    stage.assert_left(&before, &[(&call, Left::Nothing)]);
}

/// Staff and administrators are whoever the central identity management says, and nobody has an account here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n3_staff_and_administrators_come_from_the_identity_provider_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::start().await;
    let (signer, forger) = (Signer::es256("k"), Signer::es256("k"));
    issuer.publish(&[&signer]);
    let world = World::new(&issuer.section(dir.path())).await;
    // Switches have certificates. Nobody else is known to the gateway itself.
    let file = world.data().join("identities.toml");
    let all = std::fs::read_to_string(&file).expect("identities");
    let switch = all.split("[[identity]]").find(|entry| entry.contains("switch/")).expect("a switch");
    std::fs::write(&file, format!("[[identity]]{switch}")).expect("written");
    let gateway = world.start();
    let link = |signer: &Signer, sub: &str, role: &str| {
        let token = signer.token(&issuer.claims(sub, role, &["acme"]));
        token_holder(&gateway, &token)
    };
    let mut tenants = v1::tenant_service_client::TenantServiceClient::new(link(&signer, "anna", "admin"));
    let request = v1::CreateTenantRequest {
        name: "acme".into(),
        home: REGIONS[0].into(),
        residency: v1::Residency::HomeOnly.into(),
        policy: "customer-notice".into(),
        keep: "60d".into(),
    };
    tenants.create_tenant(request).await.expect("made");
    let content = sound(1, 50_000);
    let id = store(gateway.link("switch", Transport::H2), open("acme", v1::Mode::Spooled), &content).await;
    assert_plays(link(&signer, "anna", "admin"), &id, &content).await;

    // Staff get in, as far as staff do.
    let mut staff = v1::recording_service_client::RecordingServiceClient::new(link(&signer, "sam", "staff"));
    let seen = v1::GetRecordingRequest { id: id.clone(), ticket: "T-1".into() };
    assert!(staff.get(seen.clone()).await.is_ok());
    let heard = wire::play(link(&signer, "sam", "staff"), &id, None).await.expect_err("no permission");
    assert_eq!(reason(&heard), "NOT_PERMITTED");
    // A good certificate of ours for somebody whom only the identity provider could know is worth nothing, and so is the
    // token that came with it, and any token of anybody else.
    for role in ["admin", "staff", "auditor", "operator", "developer"] {
        let by_certificate = wire::show(gateway.link(role, Transport::H2), &id).await.expect_err(role);
        assert_eq!(reason(&by_certificate), "UNAUTHENTICATED", "{role}");
        let token = std::fs::read_to_string(gateway.client_file(&format!("{role}.token"))).expect("a token");
        let by_token = wire::show(token_holder(&gateway, token.trim()), &id).await.expect_err(role);
        assert_eq!(reason(&by_token), "UNAUTHENTICATED", "{role}");
    }
    let forged = wire::show(link(&forger, "anna", "admin"), &id).await.expect_err("signed by nobody it knows");
    assert_eq!(reason(&forged), "UNAUTHENTICATED");
    // Whom the provider of identities gives no role has none, and whose token has run out is out.
    for (claim, value) in [("groups", serde_json::json!(["everybody"])), ("exp", serde_json::json!(1))] {
        let mut claims = issuer.claims("anna", "admin", &["acme"]);
        claims[claim] = value;
        let out = wire::show(token_holder(&gateway, &signer.token(&claims)), &id).await.expect_err(claim);
        assert!(["UNAUTHENTICATED", "NOT_PERMITTED"].contains(&reason(&out).as_str()), "{claim}: {out:?}");
    }
}

fn token_holder(gateway: &Gateway, token: &str) -> Link {
    let name = data_encoding::HEXLOWER.encode(&wire::sha256(token.as_bytes())[..8]);
    let path = gateway.client_file(&format!("{name}.toml"));
    let text = format!("endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\ntoken = \"{token}\"\n", gateway.port);
    std::fs::write(&path, text).expect("written");
    Link::open(&path, Some(Transport::H2)).expect("a profile")
}

/// Passes connections on, and keeps what went by: what clients said, what servers said.
#[derive(Clone)]
struct Tap {
    port: u16,
    seen: Arc<[Mutex<Vec<u8>>; 2]>,
    connections: Arc<Mutex<Vec<[u8; 3]>>>,
}

impl Tap {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let tap = Self {
            port: listener.local_addr().expect("an address").port(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let taken = tap.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(taken.clone().pass(0, from_client, to_server));
                tokio::spawn(taken.clone().pass(1, from_server, to_client));
            }
        });
        tap
    }

    async fn pass(
        self,
        side: usize,
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
    ) {
        let (mut piece, mut first) = (vec![0; 64 << 10], side == 0);
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            if std::mem::take(&mut first) {
                let head = [piece[0], piece[1], piece[5]];
                self.connections.lock().expect("not poisoned").push(head);
            }
            self.seen[side].lock().expect("not poisoned").extend_from_slice(&piece[..length]);
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Every connection was TLS 1.3, and nothing of what went through can be seen.
    fn assert_sealed(&self, hop: &str, traces: &Traces) {
        let connections = self.connections.lock().expect("not poisoned");
        assert!(!connections.is_empty(), "{hop}: nothing went this way");
        // A handshake record with a ClientHello in it.
        assert!(connections.iter().all(|head| *head == [22, 3, 1]), "{hop}: {connections:?}");
        let answers = self.seen[1].lock().expect("not poisoned");
        // What a ServerHello says when it has chosen TLS 1.3: supported_versions, RFC 8446 section 4.2.1.
        let chosen = answers.windows(6).filter(|bytes| *bytes == [0, 43, 0, 2, 3, 4]).count();
        assert!(chosen >= connections.len(), "{hop}: {chosen} of {} connections are TLS 1.3", connections.len());
        drop(answers);
        for side in self.seen.iter() {
            traces.search(hop, &side.lock().expect("not poisoned"));
        }
    }
}

/// From the client to the gateway and from the gateway to both regions: TLS 1.3, and nothing readable on the line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n4_every_hop_is_tls_1_3() {
    let audio = "AUDIO-pattern-qwertzuiop-0123456789".repeat(3000).into_bytes();
    let words = ["acme", "subscriber-wvyfpgq", "party-mnbvcxy", "call-id-hwkzmxr"];
    let mut secrets: Vec<(&str, &[u8])> = words.iter().skip(1).map(|word| (*word, word.as_bytes())).collect();
    secrets.extend([("audio", &audio[..35]), ("a request in clear", b"HTTP/1.1".as_slice())]);
    let traces = Traces::of(&secrets);

    let dir = tempfile::tempdir().expect("a folder");
    let files = DevFiles::prepare(dir.path()).expect("certificates");
    let ca = files.tls.client_ca.clone().expect("a CA");
    let certificate = Certificate { chain_pem: &files.tls.certificate, key_pem: &files.tls.key, ca_pem: &ca };
    let storage = Embedded::start(&dir.path().join("s3"), &REGIONS, certificate).await.expect("storage");
    let (mut regions, mut taps) = (storage.region_configs(), Vec::new());
    for region in &mut regions {
        let endpoint = region.endpoint.as_ref().expect("an endpoint");
        let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let tap = Tap::before(port).await;
        region.endpoint = Some(format!("https://127.0.0.1:{}", tap.port));
        taps.push((format!("to S3 in {}", region.name), tap));
    }
    let world = World::over(regions, "").await;
    let gateway = world.start();
    let tap = Tap::before(gateway.port).await;
    let profile = std::fs::read_to_string(gateway.client_file("admin.toml")).expect("a profile");
    let profile = profile.replace(&gateway.port.to_string(), &tap.port.to_string());
    std::fs::write(gateway.client_file("tapped.toml"), profile).expect("a profile");
    let link = || gateway.link("tapped", Transport::H2);
    taps.push(("to the gateway".to_owned(), tap));

    let request = v1::CreateTenantRequest {
        name: words[0].into(),
        home: REGIONS[0].into(),
        residency: v1::Residency::Both.into(),
        policy: "customer-notice".into(),
        keep: "60d".into(),
    };
    v1::tenant_service_client::TenantServiceClient::new(link()).create_tenant(request).await.expect("made");
    let facts = v1::Facts { parties: vec![words[2].into()], call_id: words[3].into(), ..Default::default() };
    let first = v1::Open { subscriber: words[1].into(), facts: Some(facts), ..open(words[0], v1::Mode::Spooled) };
    let id = store(link(), first, &audio).await;
    assert_plays(link(), &id, &audio).await;
    assert_eq!(wire::list(link(), words[0], 0).await.len(), 1);
    wire::settled(link()).await;
    assert!(world.proxies.len() == 2 && taps.len() == 3);
    for (hop, tap) in &taps {
        tap.assert_sealed(hop, &traces);
    }

    // Nothing answers in clear, and no configuration has a store without TLS on another machine.
    let mut plain = TcpStream::connect(("127.0.0.1", gateway.port)).await.expect("connected");
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    // Closed or reset: both are no answer.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"), "{answer:?}");
    let shipped = include_str!("../../infra/quietus.example.toml");
    let clear = shipped
        .replace("# endpoint = \"https://s3.example.org\"", "endpoint = \"http://s3.example.org\"\nallow_http = true");
    assert_ne!(clear, shipped);
    let file = dir.path().join("clear.toml");
    std::fs::write(&file, clear).expect("written");
    let said = tokio::task::block_in_place(|| gateway.run(&["config", "check", &file.display().to_string()]));
    assert!(!said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("loopback"), "{said}");
}

/// Restricted is kept and not used: not heard, not erased, not expired, until it is lifted.
#[test]
fn n6_restricted_is_kept_and_not_used() {
    let stage = stage();
    let [one, subscriber, account, free] = [
        stage.record(&Take::call("acme", NUMBER)),
        stage.record(&Take::call("acme", "+441632960032")),
        {
            stage.tenant("globex", "customer-notice", &["--keep", "60d"]);
            stage.record(&Take::call("globex", NUMBER))
        },
        stage.record(&Take::call("acme", NUMBER)),
    ];
    let before = stage.steal();
    let restricted = [
        (&one, vec!["recording", "restrict", &one.id]),
        (&subscriber, vec!["subscriber", "restrict", "acme/+441632960032"]),
        (&account, vec!["tenant", "restrict", "globex"]),
    ];
    for (recorded, restrict) in &restricted {
        stage.ok(CUSTOMER, restrict);
        stage.refused(CUSTOMER, &["play", &recorded.id], REFUSED);
        stage.refused(CUSTOMER, &["erase", "recording", &recorded.id], REFUSED);
        stage.refused(STAFF, &["play", &recorded.id], REFUSED);
    }
    assert!(stage.plays(&free));
    // Beyond the promise, and for as long as it is restricted.
    stage.goes_by(&free, free.at + 60 * DAY, Left::Both, Left::Nothing);
    stage.noticed_at(free.at + 100 * DAY);
    let expected = restricted.each_ref().map(|(recorded, _)| (*recorded, Left::Both));
    stage.assert_left(&before, &[&expected[..], &[(&free, Left::Nothing)]].concat());
    stage.nothing_is_late();
    for (recorded, restrict) in &restricted {
        let lift: Vec<&str> =
            restrict.iter().map(|word| if *word == "restrict" { "unrestrict" } else { word }).collect();
        stage.ok(CUSTOMER, &lift);
        stage.until("its time has come meanwhile", || stage.left(recorded) == Left::Nothing);
    }
    let expected = restricted.each_ref().map(|(recorded, _)| (*recorded, Left::Nothing));
    stage.assert_left(&before, &expected);
}

/// Consent is withdrawn: what rests on it stops and goes, what rests on another basis stays.
#[test]
fn n6_withdrawal_of_consent_stops_and_erases_what_rested_on_it() {
    let stage = stage();
    let (consent, contract) = (&["--basis", "consent"], &["--basis", "contract"]);
    let of = |basis| Take::call("acme", NUMBER).more(basis);
    let [agreed, also, needed] = [consent, consent, contract].map(|basis| stage.record(&of(basis)));
    let theirs = stage.record(&Take::call("acme", "+441632960032").more(consent));
    let facts = v1::Facts { basis: "consent".into(), ..Default::default() };
    let first = v1::Open { facts: Some(facts), ..stage::open(&stage, "acme", NUMBER, v1::Mode::Live) };
    let (link, content) = (stage.link(CUSTOMER), sound(3, 50_000));
    let mut running = stage.block_on(async {
        let mut call = Call::begin(link, first).await.expect("opened");
        assert!(call.rest(&content, 0).await);
        call.until(|mark| mark.journaled == content.len() as u64).await.expect("journaled");
        call
    });
    let before = stage.steal();
    stage.ok(CUSTOMER, &["subscriber", "withdraw-consent", &format!("acme/{NUMBER}")]);
    stage.block_on(running.until_refused());
    for gone in [&agreed, &also] {
        assert_eq!(stage.left(gone), Left::Nothing);
    }
    assert_ne!(stage.status(CUSTOMER, &["play", &running.id()]), DONE);
    let expected = [(&agreed, Left::Nothing), (&also, Left::Nothing), (&needed, Left::Both), (&theirs, Left::Both)];
    stage.assert_left(&before, &expected);
    let (_, refused) = stage.attempt(&of(consent));
    assert_eq!(refused.status.code(), Some(REFUSED), "{}", String::from_utf8_lossy(&refused.stderr));
    stage.record(&of(contract));
    // Given again, it counts for what comes, and brings nothing back.
    stage.ok(CUSTOMER, &["subscriber", "give-consent", &format!("acme/{NUMBER}")]);
    stage.record(&of(consent));
    assert_eq!(stage.left(&agreed), Left::Nothing);
    stage.assert_left(&before, &expected);
}

/// What was wrong is put right, and what it said before cannot be read any more.
#[test]
fn n6_a_correction_forgets_what_was_wrong() {
    let stage = stage();
    let call =
        stage.record(&Take::call("acme", NUMBER).more(&["--party", "maria-wqzkjv", "--label", "name=otto-vkqzwj"]));
    let before = stage.steal();
    let correct = ["recording", "correct", &call.id, "--party", "marie-jqzvkw", "--no-labels"];
    stage.ok(CUSTOMER, &correct);
    let facts = stage.facts(&call).expect("kept");
    assert_eq!((&facts["parties"], &facts["labels"]), (&serde_json::json!(["marie-jqzvkw"]), &serde_json::json!({})));
    assert!(stage.plays(&call));
    let now = found(&stage.attack(&[], &["maria-wqzkjv", "otto-vkqzwj", "marie-jqzvkw"]));
    assert_eq!(now, ["marie-jqzvkw".to_owned()].into(), "with the slot of now");
    let then = found(&stage.attack(&[&before], &["maria-wqzkjv", "otto-vkqzwj"]));
    assert_eq!(then.len(), 2, "the control, with the slot of before");
    stage.assert_left(&before, &[(&call, Left::Both)]);
}

/// No period is given, so whoever makes the tenant gives one, and it is kept.
#[test]
fn n7_a_tenant_without_a_period_is_refused() {
    let stage = Stage::open();
    let create = ["tenant", "create", "acme", "--home", "eu-west-2", "--policy", "customer-notice"];
    let said = stage.refused(PROVIDER, &create, USAGE);
    assert!(said.contains("keep"), "{said}");
    for wrong in ["soon", "0d", "1h"] {
        stage.refused(PROVIDER, &[&create[..], &["--keep", wrong]].concat(), USAGE);
    }
    assert!(stage.json(PROVIDER, &["tenant", "list"]).iter().all(|tenant| tenant["name"] != "acme"));
    stage.tenant("acme", "customer-notice", &["--keep", "3d"]);
    stage.tenant("globex", "customer-notice", &["--keep", "1y"]);
    let [short, long] = ["acme", "globex"].map(|tenant| stage.record(&Take::call(tenant, NUMBER)));
    let before = stage.steal();
    stage.goes_by(&short, short.at + 3 * DAY, Left::Both, Left::Nothing);
    stage.assert_left(&before, &[(&short, Left::Nothing), (&long, Left::Both)]);
    stage.goes_by(&long, long.at + 365 * DAY, Left::Both, Left::Nothing);
    stage.assert_left(&before, &[(&short, Left::Nothing), (&long, Left::Nothing)]);
}
