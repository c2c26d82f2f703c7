//! Who gets in, against the real process: signed tokens, API keys, enrolled switches, the identities file read again; and
//! that what is taken back is taken back at once, with whatever still runs on it.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/issuer.rs"]
mod issuer;
#[path = "common/served.rs"]
mod served;
#[path = "common/wire.rs"]
mod wire;

use gateway::Gateway;
use http::{Request, StatusCode};
use issuer::{Issuer, Signer};
use quietus::{
    cli::{args::Transport, connect::Link},
    proto::v1::{self, Mode, Residency, api_key_service_client::ApiKeyServiceClient, play_response},
};
use ring::digest;
use rustix::process::Signal;
use served::World;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tower::{Service as _, ServiceExt as _};
use wire::{Call, assert_plays, open, reason, sound, store};

const TRANSPORTS: [Transport; 2] = [Transport::H2, Transport::H3];
/// What is taken back at once is gone within this.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A channel with a token and no certificate.
fn holder(gateway: &Gateway, token: &str, transport: Transport) -> Link {
    let name = digest::digest(&digest::SHA256, token.as_bytes());
    let name = data_encoding::HEXLOWER.encode(&name.as_ref()[..8]);
    let path = gateway.client_file(&format!("{name}.toml"));
    let text = format!("endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\ntoken = \"{token}\"\n", gateway.port);
    std::fs::write(&path, text).expect("written");
    Link::open(&path, Some(transport)).expect("a profile")
}

fn admin(gateway: &Gateway) -> Link {
    gateway.link("admin", TRANSPORTS[0])
}

/// Why somebody does not hear a recording.
async fn refusal(link: Link, id: &str) -> String {
    match wire::play(link, id, None).await {
        Ok(_) => "it plays".into(),
        Err(status) => reason(&status),
    }
}

async fn make_key(gateway: &Gateway, tenant: &str, role: v1::ApiKeyRole) -> (String, String) {
    let request = v1::CreateApiKeyRequest { tenant: tenant.into(), name: "crm".into(), role: role.into(), own: None };
    let made = ApiKeyServiceClient::new(admin(gateway)).create_api_key(request).await.expect("made").into_inner();
    (made.key.expect("a key").id, made.token)
}

async fn revoke_key(gateway: &Gateway, tenant: &str, id: &str) -> v1::ApiKey {
    let request = v1::RevokeApiKeyRequest { tenant: tenant.into(), id: id.into() };
    ApiKeyServiceClient::new(admin(gateway)).revoke_api_key(request).await.expect("revoked").into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_with_a_signed_token_gets_in_as_what_the_token_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::start().await;
    let signer = Signer::es256("k");
    issuer.publish(&[&signer]);
    let world = World::new(&issuer.section(dir.path())).await;
    let gateway = world.start();
    for name in ["acme", "other"] {
        wire::tenant(admin(&gateway), name, Residency::HomeOnly).await;
    }
    let content = sound(1, 50_000);
    let of = |subscriber: &str| v1::Open { subscriber: subscriber.into(), ..open("acme", Mode::Spooled) };
    let marias = store(admin(&gateway), of("maria"), &content).await;
    let ottos = store(admin(&gateway), of("otto"), &content).await;
    let theirs = store(admin(&gateway), open("other", Mode::Spooled), &content).await;
    for transport in TRANSPORTS {
        let link = |sub: &str, role: &str| {
            let mut claims = issuer.claims(sub, role, &["acme"]);
            claims["number"] = "maria".into();
            holder(&gateway, &signer.token(&claims), transport)
        };
        // The customer's own administrator.
        assert_plays(link("anna", "admin"), &ottos, &content).await;
        assert_eq!(reason(&wire::show(link("anna", "admin"), &theirs).await.expect_err("foreign")), "UNKNOWN");
        // Somebody whose calls are recorded: what is their own, and nothing else of the same tenant.
        assert_plays(link("maria", "subscriber"), &marias, &content).await;
        let foreign = wire::play(link("maria", "subscriber"), &ottos, None).await.expect_err("another's");
        let made_up = wire::play(link("maria", "subscriber"), &"0".repeat(52), None).await.expect_err("made up");
        assert_eq!((foreign.code(), foreign.message()), (made_up.code(), made_up.message()));
        let listed = wire::list(link("maria", "subscriber"), "acme", 0).await;
        assert_eq!(listed.iter().map(|shown| shown.id.as_str()).collect::<Vec<_>>(), [marias.as_str()]);
        let request =
            v1::ListRecordingsRequest { tenant: "acme".into(), subscriber: "otto".into(), ..Default::default() };
        let mut client = v1::recording_service_client::RecordingServiceClient::new(link("maria", "subscriber"));
        assert_eq!(reason(&client.list(request).await.expect_err("another's")), "UNKNOWN");
        // Staff ask, and hear nothing; an auditor may not even ask.
        assert_eq!(refusal(link("sam", "staff"), &ottos).await, "NOT_PERMITTED");
        assert_eq!(refusal(link("ann", "auditor"), &ottos).await, "NOT_PERMITTED");
        // Staff who stand in for the customer's administrator hear nothing either.
        let mut claims = issuer.claims("anna", "admin", &["acme"]);
        claims["act"] = serde_json::json!({ "sub": "sam", "groups": "staff" });
        let stand_in = holder(&gateway, &signer.token(&claims), transport);
        assert_eq!(refusal(stand_in, &ottos).await, "NOT_PERMITTED");
        let other = holder(&gateway, &Signer::es256("k").token(&issuer.claims("eve", "admin", &["acme"])), transport);
        assert_eq!(reason(&wire::show(other, &ottos).await.expect_err("forged")), "UNAUTHENTICATED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_not_saved_by_a_good_certificate() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    let good = std::fs::read_to_string(gateway.client_file("admin.toml")).expect("reads");
    let token = |file: &str| std::fs::read_to_string(gateway.client_file(file)).expect("reads");
    for transport in TRANSPORTS {
        let ask = async |line: &str| {
            let path = gateway.client_file("both.toml");
            std::fs::write(&path, format!("{good}{line}\n")).expect("written");
            let link = Link::open(&path, Some(transport)).expect("a profile");
            let asked = v1::GetTenantRequest { name: "acme".into() };
            let answer = v1::tenant_service_client::TenantServiceClient::new(link).get_tenant(asked).await;
            answer.map(|_| ()).map_err(|status| reason(&status))
        };
        assert_eq!(ask("").await, Ok(()));
        for wrong in ["wrong", "a.b.c", "qk_wrong", "qk_0_0"] {
            assert_eq!(ask(&format!("token = \"{wrong}\"")).await, Err("UNAUTHENTICATED".into()), "{wrong}");
        }
        // A good token counts, and the certificate does not add to it.
        assert_eq!(ask(&format!("token = \"{}\"", token("staff.token"))).await, Ok(()));
        assert_eq!(ask(&format!("token = \"{}\"", token("switch.token"))).await, Err("NOT_PERMITTED".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_opens_its_tenant_until_it_is_revoked_and_over_a_restart() {
    let world = World::new("").await;
    let mut gateway = world.start();
    for name in ["acme", "other"] {
        wire::tenant(admin(&gateway), name, Residency::HomeOnly).await;
    }
    let (id, token) = make_key(&gateway, "acme", v1::ApiKeyRole::Admin).await;
    let (_, switch) = make_key(&gateway, "acme", v1::ApiKeyRole::Switch).await;
    assert!(token.starts_with(&format!("qk_{id}_")));
    let content = sound(1, 50_000);
    let recording = store(holder(&gateway, &switch, TRANSPORTS[0]), open("acme", Mode::Live), &content).await;
    gateway.kill();
    gateway = world.start();
    for transport in TRANSPORTS {
        let key = || holder(&gateway, &token, transport);
        assert_plays(key(), &recording, &content).await;
        // Its own tenant alone; and what no key may, or not a key in this role.
        assert_eq!(reason(&Call::begin(key(), open("other", Mode::Live)).await.err().expect("foreign")), "UNKNOWN");
        let request = v1::ListApiKeysRequest { tenant: "acme".into() };
        let refused = ApiKeyServiceClient::new(key()).list_api_keys(request).await.expect_err("no key lists keys");
        assert_eq!(reason(&refused), "NOT_PERMITTED");
        let erase =
            wire::erase(holder(&gateway, &switch, transport), wire::recording(&recording, v1::Part::Unspecified));
        assert_eq!(reason(&erase.await.expect_err("a switch's key")), "NOT_PERMITTED");
        // Every key that is none reads the same.
        let bent = format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
        let mut said = Vec::new();
        for wrong in [bent, format!("qk_{}_x", "0".repeat(24)), "qk_".into(), "qk_x_y".into(), format!("qk_{id}_")] {
            let refused = wire::show(holder(&gateway, &wrong, transport), &recording).await.expect_err("refused");
            said.push((refused.code(), refused.message().to_owned(), refused.details().to_vec()));
        }
        said.dedup();
        assert_eq!(said.len(), 1, "{said:?}");
    }
    let revoked = revoke_key(&gateway, "acme", &id).await;
    assert!(revoked.revoked_ms > 0);
    assert_eq!(revoke_key(&gateway, "acme", &id).await, revoked, "again is no failure");
    let key = || holder(&gateway, &token, TRANSPORTS[0]);
    assert_eq!(reason(&wire::show(key(), &recording).await.expect_err("revoked")), "UNAUTHENTICATED");
    gateway.kill();
    gateway = world.start();
    let key = || holder(&gateway, &token, TRANSPORTS[0]);
    assert_eq!(reason(&wire::show(key(), &recording).await.expect_err("still revoked")), "UNAUTHENTICATED");
    let request = v1::ListApiKeysRequest { tenant: "acme".into() };
    let listed = ApiKeyServiceClient::new(admin(&gateway)).list_api_keys(request).await.expect("listed").into_inner();
    assert_eq!(listed.keys.iter().filter(|key| key.revoked_ms > 0).count(), 1);
    assert_eq!(listed.keys.len(), 2);
    // With the tenant its keys go.
    wire::erase(admin(&gateway), wire::whole_tenant("acme")).await.expect("erased");
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    let refused = wire::show(holder(&gateway, &switch, TRANSPORTS[0]), &recording).await.expect_err("gone");
    assert_eq!(reason(&refused), "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_cut_while_it_listens_and_while_it_feeds() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    // More than what connections buffer.
    let content = sound(1, 64 << 20);
    let recording = store(admin(&gateway), open("acme", Mode::Spooled), &content).await;
    for transport in TRANSPORTS {
        let (id, token) = make_key(&gateway, "acme", v1::ApiKeyRole::Admin).await;
        let (bystander_id, bystander) = make_key(&gateway, "acme", v1::ApiKeyRole::Admin).await;
        let key = || holder(&gateway, &token, transport);
        let mut listening = wire::start_playing(key(), &recording, None).await.expect("begun");
        assert!(matches!(
            listening.message().await.expect("first").expect("an answer").event,
            Some(play_response::Event::Info(_))
        ));
        let mut feeding = Call::begin(key(), open("acme", Mode::Live)).await.expect("opened");
        assert!(feeding.rest(&content[..10_000], 0).await);
        feeding.until(|mark| mark.journaled == 10_000).await.expect("journaled");
        let mut other =
            Call::begin(holder(&gateway, &bystander, transport), open("acme", Mode::Live)).await.expect("opened");

        revoke_key(&gateway, "acme", &id).await;
        let began = Instant::now();
        assert_eq!(reason(&feeding.until_refused().await), "UNAUTHENTICATED");
        let mut heard = 0;
        let end = loop {
            match listening.message().await {
                Ok(Some(answer)) => {
                    if let Some(play_response::Event::Chunk(chunk)) = answer.event {
                        heard += chunk.content.len();
                    }
                }
                other => break other,
            }
        };
        assert!(began.elapsed() < AT_ONCE, "{transport:?}: {:?}", began.elapsed());
        assert_eq!(reason(&end.expect_err("cut")), "UNAUTHENTICATED", "{transport:?}");
        assert!(heard < content.len() / 2, "{transport:?}: {heard} bytes were on their way");
        // Another key of the same tenant notices nothing.
        assert!(other.rest(&content[..1000], 0).await && other.finish_with(&content[..1000]).await);
        other.until_finished().await.expect("finished");
        revoke_key(&gateway, "acme", &bystander_id).await;
        // What the revoked key had fed is kept, for whoever may go on with it.
        let request = wire::show(admin(&gateway), &feeding.id()).await.expect("kept");
        assert!(request.audio_present);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_cut_while_it_listens_over_http() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    let content = sound(1, 64 << 20);
    let recording = store(admin(&gateway), open("acme", Mode::Spooled), &content).await;
    let (id, token) = make_key(&gateway, "acme", v1::ApiKeyRole::Admin).await;
    let mut link = holder(&gateway, &token, TRANSPORTS[0]);
    let uri = format!("https://localhost/v1/recordings/{recording}/audio");
    let request = || Request::get(&uri).body(tonic::body::Body::empty()).expect("a request");
    let answer = link.ready().await.expect("ready").call(request()).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    use http_body_util::BodyExt as _;
    assert!(body.frame().await.expect("a frame").is_ok());
    revoke_key(&gateway, "acme", &id).await;
    let began = Instant::now();
    let mut heard = 0;
    let cut = loop {
        match body.frame().await {
            Some(Ok(frame)) => heard += frame.data_ref().map_or(0, bytes::Bytes::len),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(cut && heard < content.len() / 2, "{heard} bytes, cut: {cut}");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let answer = link.ready().await.expect("ready").call(request()).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

/// The path of a fresh ticket.
async fn ticket(link: Link, recording: &str) -> v1::TicketResponse {
    let request = v1::TicketRequest { id: recording.into() };
    let mut client = v1::playback_service_client::PlaybackServiceClient::new(link);
    client.ticket(request).await.expect("a ticket").into_inner()
}

/// What a ticket's URL answers to somebody who shows nothing else.
async fn by_ticket(gateway: &Gateway, ticket: &v1::TicketResponse) -> http::Response<tonic::body::Body> {
    let path = gateway.client_file("nobody.toml");
    let text = format!("endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\n", gateway.port);
    std::fs::write(&path, text).expect("written");
    let mut link = Link::open(&path, None).expect("a profile");
    let request = Request::get(&ticket.url).body(tonic::body::Body::empty()).expect("a request");
    link.ready().await.expect("ready").call(request).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_void_with_the_key_or_the_line_of_the_file_that_got_it() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    // More than what connections buffer.
    let content = sound(1, 64 << 20);
    let recording = store(admin(&gateway), open("acme", Mode::Spooled), &content).await;
    let (id, token) = make_key(&gateway, "acme", v1::ApiKeyRole::Admin).await;
    let file = world.data().join("identities.toml");
    let listed = std::fs::read_to_string(&file).expect("reads");
    let kept = listed.split("[[identity]]").skip(1).filter(|entry| !entry.contains("\"admin/dev\""));
    let struck: String = kept.map(|entry| format!("[[identity]]{entry}")).collect();
    for by_key in [true, false] {
        let link = if by_key { holder(&gateway, &token, TRANSPORTS[0]) } else { admin(&gateway) };
        let (own, unused) = (ticket(link.clone(), &recording).await, ticket(link, &recording).await);
        let bystander = ticket(gateway.link("customer", TRANSPORTS[0]), &recording).await;
        let answer = by_ticket(&gateway, &own).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = answer.into_body();
        use http_body_util::BodyExt as _;
        assert!(body.frame().await.expect("a frame").is_ok());
        if by_key {
            revoke_key(&gateway, "acme", &id).await;
        } else {
            std::fs::write(&file, &struck).expect("written");
            gateway.signal(Signal::HUP);
        }
        let began = Instant::now();
        let mut heard = 0;
        let cut = loop {
            match body.frame().await {
                Some(Ok(frame)) => heard += frame.data_ref().map_or(0, bytes::Bytes::len),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        assert!(cut && heard < content.len() / 2, "{heard} bytes, cut: {cut}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        for ticket in [&own, &unused] {
            assert_eq!(by_ticket(&gateway, ticket).await.status(), StatusCode::NOT_FOUND);
        }
        assert_eq!(by_ticket(&gateway, &bystander).await.status(), StatusCode::OK, "somebody else's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_a_signed_token_got_ends_with_the_token() {
    let dir = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::start().await;
    let signer = Signer::es256("k");
    issuer.publish(&[&signer]);
    let world = World::new(&issuer.section(dir.path())).await;
    let gateway = world.start();
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    let recording = store(admin(&gateway), open("acme", Mode::Spooled), &sound(1, 50_000)).await;
    let mut claims = issuer.claims("anna", "admin", &["acme"]);
    let exp = claims["iat"].as_i64().expect("a time") + 120;
    claims["exp"] = exp.into();
    let signed = ticket(holder(&gateway, &signer.token(&claims), TRANSPORTS[0]), &recording).await;
    let by_line = ticket(admin(&gateway), &recording).await;
    // The token is taken until the leeway of half a minute behind its expiry is over.
    assert!((60..=150).contains(&signed.session_seconds), "{}", signed.session_seconds);
    assert!(by_line.session_seconds >= 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_decides_from_outside_where_the_policy_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::start().await;
    let signer = Signer::es256("k");
    issuer.publish(&[&signer]);
    let world = World::new(&issuer.section(dir.path())).await;
    let gateway = world.start();
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    let of = |subscriber: &str| v1::Open { subscriber: subscriber.into(), ..open("acme", Mode::Spooled) };
    let recording = store(admin(&gateway), of("maria"), &sound(1, 50_000)).await;
    let link = |number: &str| {
        let mut claims = issuer.claims(number, "subscriber", &["acme"]);
        claims["number"] = number.into();
        holder(&gateway, &signer.token(&claims), TRANSPORTS[0])
    };
    use v1::{permission_scope::About, permission_service_client::PermissionServiceClient};
    let request = v1::RequestPermissionRequest {
        scope: Some(v1::PermissionScope { about: Some(About::Recording(recording.clone())) }),
        purpose: "crackling line".into(),
        ticket: "T-1".into(),
        terms: Some(v1::PermissionTerms {
            level: v1::PermissionLevel::Listen.into(),
            seconds: 3600,
            later_calls: false,
        }),
    };
    let staff = || gateway.link("staff", TRANSPORTS[0]);
    let id = PermissionServiceClient::new(staff()).request(request).await.expect("asked").into_inner().id;
    let grant = async |number: &str| {
        let request = v1::GrantPermissionRequest { id: id.clone(), ..Default::default() };
        let answer = PermissionServiceClient::new(link(number)).grant(request).await;
        answer.map(|_| ()).map_err(|status| reason(&status))
    };
    assert_eq!(grant("maria").await, Err("NOT_PERMITTED".into()), "the presets leave it to the administrator");
    let policy = world.aside("policy.toml");
    let text = "name = \"ours\"\nparties = \"owner\"\nmargin = \"1h\"\n[permission]\nsubscribers_decide = true\n\
                [[keep]]\nwhat = \"both\"\nnot_after = [\"1y after end\", \"30d after close\"]\n";
    std::fs::write(&policy, text).expect("written");
    let profile = gateway.client_file("admin.toml");
    let arguments = ["policy", "set", "acme", policy.to_str().expect("text"), "--profile"];
    let set = gateway.run(&[&arguments[..], &[profile.to_str().expect("text")]].concat());
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    assert_eq!(grant("otto").await, Err("UNKNOWN".into()), "another subscriber's");
    assert_eq!(grant("maria").await, Ok(()));
    assert_plays(staff(), &recording, &sound(1, 50_000)).await;
    let revoke = v1::RevokePermissionRequest { id: id.clone() };
    PermissionServiceClient::new(link("maria")).revoke(revoke).await.expect("revoked");
    assert_eq!(refusal(staff(), &recording).await, "NOT_PERMITTED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_brings_its_own_secret_or_only_its_hash_and_neither_is_anywhere_on_disk() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    let make = async |own| {
        let role = v1::ApiKeyRole::Admin.into();
        let request =
            v1::CreateApiKeyRequest { tenant: "acme".into(), name: "key-name-qwzx".into(), role, own: Some(own) };
        ApiKeyServiceClient::new(admin(&gateway)).create_api_key(request).await.map(tonic::Response::into_inner)
    };
    use v1::create_api_key_request::Own;
    let own = "hT7-kq0_ZpX.w3Vd9+LmB1sR/8uYcEoJ";
    let hashed = "another=secret:4fK2xQ9!zLp7$Wm5#Rt8";
    let given = make(Own::Secret(own.into())).await.expect("made").token;
    assert!(given.ends_with(own));
    let prefix = make(Own::SecretSha256(wire::sha256(hashed.as_bytes()).into())).await.expect("made").token;
    for token in [&given, &format!("{prefix}{hashed}")] {
        wire::list(holder(&gateway, token, TRANSPORTS[0]), "acme", 0).await;
    }
    for poor in ["short", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "has spaces hT7-kq0_ZpX.w3Vd9+LmB1sR"] {
        let refused = make(Own::Secret(poor.into())).await.expect_err("refused");
        assert_eq!((reason(&refused).as_str(), wire::field(&refused).as_str()), ("INVALID", "secret"));
        assert!(!refused.message().contains(poor));
    }
    assert_eq!(wire::field(&make(Own::SecretSha256(vec![1; 31].into())).await.expect_err("refused")), "secret_sha256");
    let drawn = make_key(&gateway, "acme", v1::ApiKeyRole::Admin).await.1;
    let drawn_secret = drawn.splitn(3, '_').nth(2).expect("a secret").to_owned();
    let log = world.data().with_extension("log");
    gateway.stop();
    let mut files = vec![log];
    let mut folders = vec![world.data().join("keys"), world.data().join("journal")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("reads") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let mut searched = 0;
    for file in files {
        let content = std::fs::read(&file).expect("reads");
        searched += content.len();
        for secret in [own, hashed, "key-name-qwzx", &drawn_secret] {
            assert!(memchr::memmem::find(&content, secret.as_bytes()).is_none(), "{secret} in {}", file.display());
        }
        for secret in [own, hashed, &drawn_secret] {
            let hash = wire::sha256(secret.as_bytes());
            assert!(memchr::memmem::find(&content, &hash).is_none(), "an unsalted hash in {}", file.display());
        }
    }
    assert!(searched > 1000);
}

/// The identities file without one role.
fn without(data: &Path, role: &str) -> String {
    let text = std::fs::read_to_string(data.join("identities.toml")).expect("reads");
    let kept = text.split("[[identity]]").skip(1).filter(|entry| !entry.contains(&format!("\"{role}/")));
    kept.map(|entry| format!("[[identity]]{entry}")).collect()
}

async fn enrol(gateway: &Gateway, tenant: &str, most: u32) -> v1::Switch {
    let request = v1::EnrolSwitchRequest { tenant: tenant.into(), name: "dev".into(), max_recordings: most };
    let mut client = v1::switch_service_client::SwitchServiceClient::new(admin(gateway));
    client.enrol_switch(request).await.expect("enrolled").into_inner()
}

async fn expel(gateway: &Gateway, tenant: &str) {
    let request = v1::RevokeSwitchRequest { tenant: tenant.into(), name: "dev".into() };
    let mut client = v1::switch_service_client::SwitchServiceClient::new(admin(gateway));
    client.revoke_switch(request).await.expect("revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_feeds_the_tenants_that_enrolled_it_within_their_limits_until_they_take_it_back() {
    let world = World::new("").await;
    std::fs::write(world.data().join("identities.toml"), without(&world.data(), "switch")).expect("written");
    let mut gateway = world.start();
    for name in ["acme", "other"] {
        wire::tenant(admin(&gateway), name, Residency::HomeOnly).await;
    }
    let begin = async |gateway: &Gateway, tenant: &str, transport| {
        Call::begin(gateway.link("switch", transport), open(tenant, Mode::Live)).await
    };
    let refused = begin(&gateway, "acme", TRANSPORTS[0]).await.err().expect("nobody knows it");
    assert_eq!(reason(&refused), "UNAUTHENTICATED");
    assert_eq!(enrol(&gateway, "acme", 1).await.max_recordings, 1);
    let refused = begin(&gateway, "other", TRANSPORTS[0]).await.err().expect("one tenant's word is its own");
    assert_eq!(reason(&refused), "UNKNOWN");
    assert_eq!(enrol(&gateway, "other", 0).await.max_recordings, 1000);
    gateway.kill();
    gateway = world.start();
    for transport in TRANSPORTS {
        let mut acme = begin(&gateway, "acme", transport).await.expect("enrolled");
        let mut other = begin(&gateway, "other", transport).await.expect("enrolled");
        assert_eq!(reason(&begin(&gateway, "acme", transport).await.err().expect("the limit")), "TRY_AGAIN");
        let request = v1::ListSwitchesRequest { tenant: "acme".into() };
        let mut client = v1::switch_service_client::SwitchServiceClient::new(admin(&gateway));
        let listed = client.list_switches(request).await.expect("listed").into_inner().switches;
        assert_eq!(
            listed.iter().map(|switch| (switch.name.as_str(), switch.recordings)).collect::<Vec<_>>(),
            [("dev", 1)]
        );
        assert!(acme.rest(&[1; 1000], 0).await && other.rest(&[2; 1000], 0).await);
        acme.until(|mark| mark.journaled == 1000).await.expect("journaled");

        expel(&gateway, "acme").await;
        let began = Instant::now();
        assert_eq!(reason(&acme.until_refused().await), "UNAUTHENTICATED");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert_eq!(reason(&begin(&gateway, "acme", transport).await.err().expect("expelled")), "UNKNOWN");
        // What another tenant said stands.
        assert!(other.rest(&[2; 2000], 1000).await && other.finish_with(&[2; 2000]).await);
        other.until_finished().await.expect("finished");
        assert!(wire::show(admin(&gateway), &acme.id()).await.expect("kept").audio_present);
        enrol(&gateway, "acme", 1).await;
    }
    let again = v1::EnrolSwitchRequest { tenant: "acme".into(), name: "dev".into(), max_recordings: 1 };
    let mut client = v1::switch_service_client::SwitchServiceClient::new(admin(&gateway));
    assert_eq!(reason(&client.enrol_switch(again).await.expect_err("twice")), "EXISTS");
    wire::erase(admin(&gateway), wire::whole_tenant("acme")).await.expect("erased");
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    assert_eq!(reason(&begin(&gateway, "acme", TRANSPORTS[0]).await.err().expect("a new tenant")), "UNKNOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_identities_file_is_read_again_on_a_signal_and_who_is_gone_from_it_is_cut() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(admin(&gateway), "acme", Residency::HomeOnly).await;
    let mut feeding =
        Call::begin(gateway.link("switch", TRANSPORTS[0]), open("acme", Mode::Live)).await.expect("opened");
    let mut other = Call::begin(admin(&gateway), open("acme", Mode::Live)).await.expect("opened");
    let file = world.data().join("identities.toml");
    let hangup = || gateway.signal(Signal::HUP);
    // A file that makes no sense changes nothing.
    let good = without(&world.data(), "switch");
    std::fs::write(&file, "[[identity]]\nname = \"king/x\"\ntenants = []\n").expect("written");
    hangup();
    let said = async {
        while !gateway.log().contains("makes no sense") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(wire::WITHIN, said).await.expect("the log says so");
    assert!(feeding.rest(&[1; 1000], 0).await);
    feeding.until(|mark| mark.journaled == 1000).await.expect("journaled");
    std::fs::write(&file, good).expect("written");
    hangup();
    assert_eq!(reason(&feeding.until_refused().await), "UNAUTHENTICATED");
    let again = Call::begin(gateway.link("switch", TRANSPORTS[0]), open("acme", Mode::Live)).await.err();
    assert_eq!(reason(&again.expect("gone")), "UNAUTHENTICATED");
    assert!(other.rest(&[1; 1000], 0).await && other.finish_with(&[1; 1000]).await);
    other.until_finished().await.expect("finished");
    assert!(!gateway.log().contains("king/x"), "the log repeats a name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_switches_are_managed_from_the_command_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("data"));
    let run = |arguments: &[&str]| {
        let output = gateway.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(run(&["tenant", "create", "acme", "--home", "eu-west-2", "--policy", "dev"]).0, Some(0));
    let (status, token, _) = run(&["apikey", "create", "acme", "--name", "crm", "--role", "admin"]);
    assert_eq!(status, Some(0));
    let id = token.split('_').nth(1).expect("an id").to_owned();
    let profile = gateway.client_file("crm.toml");
    std::fs::write(gateway.client_file("crm.key"), &token).expect("written");
    let text =
        format!("endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\ntoken_file = \"crm.key\"\n", gateway.port);
    std::fs::write(&profile, text).expect("written");
    let profile = profile.display().to_string();
    assert_eq!(run(&["list", "--tenant", "acme", "--profile", &profile]).0, Some(0));
    assert_eq!(run(&["apikey", "list", "acme", "--profile", &profile]).0, Some(3), "no key lists keys");
    // When a key got out: what did it touch?
    let file = gateway.client_file("sound.wav");
    std::fs::write(&file, sound(1, 1000)).expect("written");
    let record =
        ["record", "--tenant", "acme", "--subscriber", "s", "--kind", "call", "--media-type", "audio/L16;rate=8000"];
    let (status, recording, said) = run(&[&record[..], &[&file.display().to_string()]].concat());
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(run(&["play", &recording, "-o", "/dev/null"]).0, Some(0), "somebody else");
    assert_eq!(run(&["play", &recording, "-o", "/dev/null", "--profile", &profile]).0, Some(0));
    let null = std::fs::metadata("/dev/null").expect("there");
    assert!(!null.is_file(), "a device is written into, and no file put in its place");
    assert_eq!(run(&["erase", "recording", &recording, "--profile", &profile]).0, Some(0));
    let (status, report, _) = run(&["apikey", "report", "acme", &id, "--json"]);
    assert_eq!(status, Some(0));
    assert!(
        report.lines().count() >= 2 && report.lines().all(|line| line.contains(&format!("\"key/{id}\""))),
        "{report}"
    );
    for action in ["\"play\"", "\"erase."] {
        assert!(report.contains(action), "{action} in {report}");
    }
    let (_, listed, _) = run(&["apikey", "list", "acme", "--json"]);
    assert!(listed.contains(&id) && !listed.contains(&token));
    assert_eq!(run(&["apikey", "revoke", "acme", &id]).0, Some(0));
    assert_eq!(run(&["list", "--tenant", "acme", "--profile", &profile]).0, Some(3));
    assert_eq!(run(&["apikey", "revoke", "acme", "00"]).0, Some(5));
    assert_eq!(run(&["apikey", "revoke", "nobody", &id]).0, Some(5));
    assert_eq!(run(&["switch", "enrol", "acme", "pbx-1", "--max-recordings", "40"]).0, Some(0));
    assert_eq!(run(&["switch", "enrol", "acme", "pbx-1"]).0, Some(1), "enrolled already");
    let (_, listed, _) = run(&["switch", "list", "acme"]);
    assert!(listed.contains("pbx-1") && listed.contains("40"), "{listed}");
    assert_eq!(run(&["switch", "revoke", "acme", "pbx-1"]).0, Some(0));
    assert_eq!(run(&["switch", "revoke", "acme", "pbx-1"]).0, Some(5));
    let (_, log, _) = run(&["audit", "tail", "--tenant", "acme", "--json"]);
    for action in ["apikey.create", "apikey.revoke", "switch.enrol", "switch.revoke"] {
        assert!(log.contains(action), "{action} in {log}");
    }
}
