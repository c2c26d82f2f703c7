//! Signed tokens against a real issuer on the loopback: which are taken, whom they make of their holder, and what happens
//! when the issuer rotates its keys, is asked too often, or goes away. The time is an argument.

#[path = "common/issuer.rs"]
mod issuer;

use issuer::{Issuer, Signer, unsigned};
use quietus::{
    domain::time::{Clock, Timestamp},
    transport::auth::{
        Denied, Role,
        issuer::{Issuer as Kept, PAUSE, REFRESH},
        jws::ALGORITHMS,
        oidc::{self, Claims, Judged, Reach, Settings},
    },
    vault::Scope,
};
use serde_json::{Value, json};
use std::time::Duration;

const KEYS_LAST: Duration = Duration::from_secs(3600);

fn settings(issuer: &Issuer) -> Settings {
    let roles = [("staff", Role::Staff), ("admin", Role::Admin), ("subscriber", Role::Subscriber)];
    Settings {
        name: "corp".into(),
        issuer: issuer.url.clone(),
        audiences: vec!["quietus".into()],
        jwks: None,
        ca_pem: Some(issuer.ca_pem.clone().into_bytes()),
        algorithms: ALGORITHMS.to_vec(),
        leeway: Duration::from_secs(30),
        max_age: Duration::from_secs(3600),
        keys_last: KEYS_LAST,
        tenants: Scope::All,
        roles: roles.into_iter().map(|(value, role)| (value.to_owned(), role)).collect(),
        claims: Claims {
            name: "sub".into(),
            role: "groups".into(),
            tenants: Some("tenants".into()),
            subscriber: Some("number".into()),
        },
    }
}

fn kept(issuer: &Issuer) -> Kept {
    Kept::new(settings(issuer)).expect("good settings")
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn later(span: Duration) -> Timestamp {
    now().plus_ms(span.as_millis() as i64)
}

async fn judge(kept: &Kept, token: &str, now: Timestamp) -> Result<Judged, Denied> {
    kept.judge(token, &oidc::unverified(token)?, now).await
}

/// Claims that are still good at a later moment.
fn at(mut claims: Value, moment: Timestamp) -> Value {
    for (claim, ahead) in [("iat", 0), ("nbf", 0), ("exp", 300)] {
        claims[claim] = (moment.0 / 1000 + ahead).into();
    }
    claims
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_taken_and_names_its_holder() {
    let issuer = Issuer::start().await;
    let signers = [
        Signer::ed25519("ed"),
        Signer::es256("p256"),
        Signer::es384("p384"),
        Signer::rsa("rsa", "RS256"),
        Signer::rsa("pss", "PS256"),
    ];
    issuer.publish(&signers.each_ref());
    let kept = kept(&issuer);
    for signer in &signers {
        let token = signer.token(&issuer.claims("sam", "staff", &["acme"]));
        let judged = judge(&kept, &token, now()).await.unwrap_or_else(|denied| panic!("{}: {denied}", signer.kid));
        assert_eq!((judged.name.as_str(), judged.role), ("staff/sam@corp", Role::Staff));
        assert_eq!(judged.reach, Reach::Tenants(vec!["acme".into()]));
        let (head, tail) = token.split_at(token.len() - 10);
        let bent = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
        assert_eq!(judge(&kept, &bent, now()).await, Err(Denied::Token("its signature is not good")), "{}", signer.kid);
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_token_that_is_not_exactly_right_is_refused() {
    let issuer = Issuer::start().await;
    let (good, stranger) = (Signer::ed25519("k"), Signer::ed25519("k"));
    issuer.publish(&[&good]);
    let kept = kept(&issuer);
    let claims = || issuer.claims("sam", "staff", &["acme"]);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        good.token(&claims)
    };
    let seconds = now().0 / 1000;
    assert!(judge(&kept, &with(&|_| ()), now()).await.is_ok());
    let refused = [
        ("another's key", stranger.token(&claims())),
        ("another issuer", with(&|c| c["iss"] = "https://example.org".into())),
        ("no issuer", with(&|c| c["iss"] = Value::Null)),
        ("several issuers", with(&|c| c["iss"] = json!([issuer.url, "https://example.org"]))),
        ("another audience", with(&|c| c["aud"] = "others".into())),
        ("no audience", with(&|c| drop(c.as_object_mut().expect("claims").remove("aud")))),
        ("expired", with(&|c| c["exp"] = (seconds - 31).into())),
        ("no expiry", with(&|c| drop(c.as_object_mut().expect("claims").remove("exp")))),
        ("an expiry in words", with(&|c| c["exp"] = "never".into())),
        ("an endless expiry", with(&|c| c["exp"] = json!(1e300))),
        ("not yet", with(&|c| c["nbf"] = (seconds + 60).into())),
        ("issued in the future", with(&|c| c["iat"] = (seconds + 60).into())),
        ("issued long ago", with(&|c| c["iat"] = (seconds - 3700).into())),
        ("not said when", with(&|c| drop(c.as_object_mut().expect("claims").remove("iat")))),
        ("no role", with(&|c| c["groups"] = json!(["everybody"]))),
        ("two roles", with(&|c| c["groups"] = json!(["staff", "admin"]))),
        ("a role that is no text", with(&|c| c["groups"] = json!([1, "staff"]))),
        ("no name", with(&|c| c["sub"] = "".into())),
        ("a name with a line break", with(&|c| c["sub"] = "sam\nadmin".into())),
        ("no tenant", with(&|c| c["tenants"] = json!([]))),
        ("a subscriber without a name", with(&|c| c["groups"] = "subscriber".into())),
        ("extensions", good.with_header(&json!({ "alg": "EdDSA", "kid": "k", "crit": ["exp"], "exp": 1 }), &claims())),
        ("a logout token", good.with_header(&json!({ "alg": "EdDSA", "kid": "k", "typ": "logout+jwt" }), &claims())),
        ("another algorithm's name", good.with_header(&json!({ "alg": "ES256", "kid": "k" }), &claims())),
        ("no algorithm", good.with_header(&json!({ "kid": "k" }), &claims())),
        ("none", format!("{}.", unsigned(&json!({ "alg": "none", "kid": "k" }), &claims()))),
        ("none, signed", good.with_header(&json!({ "alg": "none", "kid": "k" }), &claims())),
        ("too long", with(&|c| c["padding"] = "x".repeat(oidc::MAX_TOKEN).into())),
        ("two parts", "a.b".into()),
        ("four parts", format!("{}.x", with(&|_| ()))),
    ];
    for (what, token) in &refused {
        assert!(matches!(judge(&kept, token, now()).await, Err(Denied::Token(_))), "{what}");
    }
    let endless = with(&|c| c["exp"] = json!(i64::MAX));
    assert!(judge(&kept, &endless, now()).await.is_ok());
    assert!(judge(&kept, &endless, later(Duration::from_secs(3640))).await.is_err(), "its age ends it");
    let good_for_now = with(&|_| ());
    assert!(judge(&kept, &good_for_now, later(Duration::from_secs(329))).await.is_ok(), "within the leeway");
    assert!(judge(&kept, &good_for_now, later(Duration::from_secs(331))).await.is_err(), "behind it");
}

/// The confusion that gave the algorithm list its place: the public key, which everybody has, as a shared secret.
#[tokio::test]
async fn a_public_key_is_never_taken_for_a_shared_secret() {
    let issuer = Issuer::start().await;
    let signers = [Signer::ed25519("ed"), Signer::es256("p256"), Signer::rsa("rsa", "RS256")];
    issuer.publish(&signers.each_ref());
    let kept = kept(&issuer);
    for signer in &signers {
        let jwk = signer.jwk();
        let texts = [jwk.to_string().into_bytes(), signer.public(), jwk["n"].to_string().into_bytes()];
        for secret in texts {
            let message =
                unsigned(&json!({ "alg": "HS256", "kid": signer.kid }), &issuer.claims("eve", "admin", &["acme"]));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
            let tag = ring::hmac::sign(&key, message.as_bytes());
            let token = format!("{message}.{}", data_encoding::BASE64URL_NOPAD.encode(tag.as_ref()));
            assert!(matches!(judge(&kept, &token, now()).await, Err(Denied::Token(_))), "{}", signer.kid);
        }
    }
    // Nor does a shared secret that the issuer publishes by mistake open anything.
    let secret = data_encoding::BASE64URL_NOPAD.encode(b"a shared secret of the issuer, published");
    issuer.publish_set(
        json!({ "keys": [signers[0].jwk(), { "kty": "oct", "kid": "oct", "k": secret, "alg": "HS256" }] }),
    );
    let message = unsigned(&json!({ "alg": "HS256", "kid": "oct" }), &issuer.claims("eve", "admin", &["acme"]));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"a shared secret of the issuer, published");
    let tag = ring::hmac::sign(&key, message.as_bytes());
    let token = format!("{message}.{}", data_encoding::BASE64URL_NOPAD.encode(tag.as_ref()));
    assert!(matches!(judge(&kept, &token, now()).await, Err(Denied::Token(_))));
}

#[tokio::test]
async fn a_key_serves_the_algorithm_it_was_published_for_and_no_other() {
    let issuer = Issuer::start().await;
    let (pkcs1, pss) = (Signer::rsa("k", "RS256"), Signer::rsa("k", "PS256"));
    let mut jwk = pkcs1.jwk();
    jwk["alg"] = "RS256".into();
    issuer.publish_set(json!({ "keys": [jwk, { "kty": "future", "kid": "f" }, { "kid": 7 }] }));
    let claims = issuer.claims("sam", "staff", &["acme"]);
    // A set with an entry that is no key at all is refused whole; one of an unknown kind is passed over.
    assert_eq!(judge(&kept(&issuer), &pkcs1.token(&claims), now()).await, Err(Denied::IssuerAway));
    let mut jwk = pkcs1.jwk();
    jwk["alg"] = "RS256".into();
    issuer.publish_set(json!({ "keys": [jwk, { "kty": "future", "kid": "f" }] }));
    let kept = kept(&issuer);
    assert!(judge(&kept, &pkcs1.token(&claims), now()).await.is_ok());
    assert_eq!(judge(&kept, &pss.token(&claims), now()).await, Err(Denied::Token("its issuer has no such key")));
    let narrow = Kept::new(Settings { algorithms: vec![ALGORITHMS[2]], ..settings(&issuer) }).expect("good settings");
    assert!(matches!(judge(&narrow, &pkcs1.token(&claims), now()).await, Err(Denied::Token(_))));
}

#[tokio::test]
async fn a_rotated_key_is_found_and_made_up_names_of_keys_cost_the_issuer_nothing() {
    let issuer = Issuer::start().await;
    let (first, second) = (Signer::ed25519("first"), Signer::es256("second"));
    issuer.publish(&[&first]);
    let kept = kept(&issuer);
    let claims = issuer.claims("sam", "staff", &["acme"]);
    assert!(judge(&kept, &first.token(&claims), now()).await.is_ok());
    issuer.publish(&[&second]);
    // Just fetched: a new key has to wait for a moment, whoever asks for it and how often.
    for round in 0..200 {
        let made_up = Signer::ed25519(&format!("made-up-{round}"));
        let refused = judge(&kept, &made_up.token(&claims), now()).await;
        assert_eq!(refused, Err(Denied::Token("its issuer has no such key")));
    }
    assert_eq!(issuer.fetches(), 1);
    let then = later(PAUSE);
    assert!(judge(&kept, &second.token(&claims), then).await.is_ok());
    assert_eq!(issuer.fetches(), 2);
    // The key that was withdrawn is not believed any more.
    assert!(judge(&kept, &first.token(&claims), then).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_for_the_same_keys_share_one_fetch() {
    let issuer = Issuer::start().await;
    let signer = Signer::ed25519("k");
    issuer.publish(&[&signer]);
    let kept = kept(&issuer);
    let token = signer.token(&issuer.claims("sam", "staff", &["acme"]));
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (kept, token) = (kept.clone(), token.clone());
        asking.spawn(async move { judge(&kept, &token, now()).await.is_ok() });
    }
    assert!(asking.join_all().await.into_iter().all(|taken| taken));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn keys_go_on_for_their_time_while_the_issuer_is_away_and_no_longer() {
    let issuer = Issuer::start().await;
    let signer = Signer::ed25519("k");
    issuer.publish(&[&signer]);
    let kept = kept(&issuer);
    let ask = async |moment: Timestamp| {
        let token = signer.token(&at(issuer.claims("sam", "staff", &["acme"]), moment));
        judge(&kept, &token, moment).await.map(|judged| judged.name)
    };
    // The gateway starts while the issuer is away.
    issuer.away(true);
    assert_eq!(ask(now()).await, Err(Denied::IssuerAway));
    issuer.away(false);
    assert_eq!(ask(now()).await, Err(Denied::IssuerAway), "not asked again at once");
    let begin = later(PAUSE);
    let after = |span: Duration| begin.plus_ms(span.as_millis() as i64);
    assert!(ask(begin).await.is_ok());
    issuer.away(true);
    assert!(ask(after(REFRESH)).await.is_ok());
    assert!(ask(after(KEYS_LAST - Duration::from_secs(1))).await.is_ok());
    assert_eq!(ask(after(KEYS_LAST)).await, Err(Denied::IssuerAway));
    // A key that nobody knows cannot be judged while the issuer is away, which is not the same as being refused.
    issuer.away(false);
    assert!(ask(after(KEYS_LAST + PAUSE)).await.is_ok(), "it is back");
    // A clock that was set back proves nothing about the age of keys; they are fetched anew.
    let before = issuer.fetches();
    assert!(ask(now()).await.is_ok());
    assert_eq!(issuer.fetches(), before + 1);
}

#[tokio::test]
async fn keys_in_use_are_fetched_anew_so_that_a_withdrawn_one_is_not_believed_for_long() {
    let issuer = Issuer::start().await;
    let (stolen, next) = (Signer::ed25519("stolen"), Signer::ed25519("next"));
    issuer.publish(&[&stolen]);
    let kept = kept(&issuer);
    let claims = issuer.claims("eve", "admin", &["acme"]);
    assert!(judge(&kept, &stolen.token(&claims), now()).await.is_ok());
    issuer.publish(&[&next]);
    let then = later(REFRESH);
    let token = stolen.token(&at(claims, then));
    // This one still finds the key, and has the keys fetched behind it.
    assert!(judge(&kept, &token, then).await.is_ok());
    // The fetch runs behind it; until it is done the key is found.
    for _ in 0..2000 {
        if judge(&kept, &token, then).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the withdrawn key is still believed");
}

#[tokio::test]
async fn discovery_that_speaks_for_another_issuer_is_not_believed() {
    let issuer = Issuer::start().await;
    let signer = Signer::ed25519("k");
    issuer.publish(&[&signer]);
    let token = signer.token(&issuer.claims("sam", "staff", &["acme"]));
    let keys = format!("{}/keys", issuer.url);
    for document in [
        json!({ "issuer": "https://example.org", "jwks_uri": keys }),
        json!({ "jwks_uri": keys }),
        json!({ "issuer": issuer.url }),
        json!({ "issuer": issuer.url, "jwks_uri": keys.replace("https://", "http://") }),
        json!({ "issuer": issuer.url, "jwks_uri": format!("{}/nowhere", issuer.url) }),
        json!(["nothing"]),
        json!({ "issuer": issuer.url, "jwks_uri": keys, "padding": "x".repeat(300 << 10) }),
    ] {
        issuer.pretend(document.clone());
        assert_eq!(judge(&kept(&issuer), &token, now()).await, Err(Denied::IssuerAway));
    }
    assert_eq!(issuer.fetches(), 0);
    // The configured address of the keys needs no discovery.
    let direct = Kept::new(Settings { jwks: Some(keys), ..settings(&issuer) }).expect("good settings");
    assert!(judge(&direct, &token, now()).await.is_ok());
}

#[tokio::test]
async fn an_issuer_behind_another_authority_is_not_talked_to() {
    let (issuer, other) = (Issuer::start().await, Issuer::start().await);
    let signer = Signer::ed25519("k");
    issuer.publish(&[&signer]);
    let token = signer.token(&issuer.claims("sam", "staff", &["acme"]));
    let settings = Settings { ca_pem: Some(other.ca_pem.clone().into_bytes()), ..settings(&issuer) };
    assert_eq!(judge(&Kept::new(settings).expect("good settings"), &token, now()).await, Err(Denied::IssuerAway));
    assert_eq!(issuer.fetches(), 0);
}

#[tokio::test]
async fn an_issuer_speaks_for_its_own_tenants_only() {
    let issuer = Issuer::start().await;
    let signer = Signer::ed25519("k");
    issuer.publish(&[&signer]);
    let own = Scope::Tenants(vec!["acme".into(), "globex".into()]);
    let kept = Kept::new(Settings { tenants: own, ..settings(&issuer) }).expect("good settings");
    let ask = async |tenants: &[&str]| {
        let token = signer.token(&issuer.claims("anna", "admin", tenants));
        judge(&kept, &token, now()).await.map(|judged| judged.reach)
    };
    assert_eq!(ask(&["acme"]).await, Ok(Reach::Tenants(vec!["acme".into()])));
    for foreign in [&["acme", "initech"][..], &["initech"], &["*"], &["acme", "*"]] {
        assert!(ask(foreign).await.is_err(), "{foreign:?}");
    }
}

#[tokio::test]
async fn a_subscriber_is_one_of_one_tenant() {
    let issuer = Issuer::start().await;
    let signer = Signer::ed25519("k");
    issuer.publish(&[&signer]);
    let kept = kept(&issuer);
    let ask = async |tenants: &[&str], number: Value| {
        let mut claims = issuer.claims("maria", "subscriber", tenants);
        claims["number"] = number;
        judge(&kept, &signer.token(&claims), now()).await.map(|judged| judged.reach)
    };
    assert_eq!(ask(&["acme"], "+441".into()).await, Ok(Reach::Own("acme".into(), "+441".into())));
    for (tenants, number) in [
        (&["acme", "globex"][..], json!("+441")),
        (&["*"], json!("+441")),
        (&["acme"], json!("")),
        (&["acme"], json!(["+441"])),
        (&["acme"], Value::Null),
    ] {
        assert!(ask(tenants, number).await.is_err());
    }
}

/// The log must name the person; and nobody gains by acting for another.
#[tokio::test]
async fn whoever_acts_for_another_is_named_and_has_no_more_rights_than_either() {
    let issuer = Issuer::start().await;
    let signer = Signer::ed25519("k");
    issuer.publish(&[&signer]);
    let kept = kept(&issuer);
    let ask = async |role: &str, act: Value| {
        let mut claims = issuer.claims("anna", role, &["acme"]);
        claims["act"] = act;
        claims["number"] = "+441".into();
        judge(&kept, &signer.token(&claims), now()).await
    };
    let sam = json!({ "sub": "sam", "groups": ["staff"] });
    let judged = ask("admin", sam.clone()).await.expect("taken");
    assert_eq!(judged.name, "staff/sam@corp");
    assert_eq!(judged.on_behalf_of.as_deref(), Some("admin/anna@corp"));
    // Staff who stand in for the customer's user are staff: to hear they need the customer's permission.
    assert_eq!((judged.role, judged.besides), (Role::Staff, Some(Role::Admin)));
    let judged = ask("subscriber", sam.clone()).await.expect("taken");
    assert_eq!((judged.role, judged.reach), (Role::Staff, Reach::Own("acme".into(), "+441".into())));
    let judged = ask("staff", json!({ "sub": "boss", "groups": "admin" })).await.expect("taken");
    assert_eq!((judged.role, judged.besides), (Role::Staff, Some(Role::Admin)));
    // An administrator whose own claims do not name the tenant is the provider's: nothing is its own to hear.
    for role in ["subscriber", "admin"] {
        for tenants in [json!("*"), json!(["initech"]), Value::Null] {
            let judged = ask(role, json!({ "sub": "boss", "groups": "admin", "tenants": tenants })).await;
            let lesser = if role == "admin" { Role::Admin } else { Role::Subscriber };
            let roles = judged.map(|judged| (judged.role, judged.besides));
            assert_eq!(roles, Ok((Role::Staff, Some(lesser))), "{role}, {tenants}");
        }
        let own = ask(role, json!({ "sub": "otto", "groups": "admin", "tenants": "acme" })).await.expect("taken");
        assert_ne!(own.role, Role::Staff, "the control: the customer's administrator acts for its own people");
        assert_eq!(own.name, "admin/otto@corp");
    }
    // A chain: the last link acts.
    let chain = json!({ "sub": "tool", "groups": "staff", "act": { "sub": "first", "groups": "staff" } });
    assert_eq!(ask("staff", chain).await.expect("taken").name, "staff/tool@corp");
    for act in [json!({ "sub": "sam" }), json!("sam"), Value::Null, json!({ "groups": "staff" }), json!([])] {
        assert!(ask("admin", act.clone()).await.is_err(), "{act}");
    }
    let elsewhere = json!({ "sub": "sam", "groups": "staff", "iss": "https://example.org" });
    assert!(ask("admin", elsewhere).await.is_err());
}

proptest::proptest! {
    #[test]
    fn hostile_tokens_never_panic(text in "[A-Za-z0-9_.-]{0,200}", bytes: Vec<u8>) {
        let _ = oidc::unverified(&text);
        let part = data_encoding::BASE64URL_NOPAD.encode(&bytes);
        let _ = oidc::unverified(&format!("{part}.{part}.{part}"));
        let header = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"ES256"}"#);
        let _ = oidc::unverified(&format!("{header}.{part}.{part}"));
    }

    #[test]
    fn hostile_key_sets_never_panic(bytes: Vec<u8>, n in ".{0,40}", kid in ".{0,10}") {
        let _ = oidc::Keys::parse(&bytes, &ALGORITHMS);
        for kty in ["RSA", "EC", "OKP", "oct"] {
            let key = json!({ "kty": kty, "crv": "P-256", "n": n, "e": n, "x": n, "y": n, "k": n, "kid": kid });
            let _ = oidc::Keys::parse(json!({ "keys": [key] }).to_string().as_bytes(), &ALGORITHMS);
        }
    }
}
