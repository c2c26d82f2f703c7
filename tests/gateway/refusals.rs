//! What is refused, for which reason, and that nothing of it stays behind.

use super::{
    TRANSPORTS,
    served::World,
    wire::{self, Call, assert_plays, field, open, reason, sha256, sound, store},
};
use quietus::proto::v1::{self, Mode, Residency};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_what_its_sender_states_leaves_nothing_and_may_be_sent_again() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::Both).await;
    for transport in TRANSPORTS {
        let link = || gateway.link("admin", transport);
        let content = sound(1, (8 << 20) + 100_000);
        for (length, digest, wrong) in [
            (content.len() - 1, sha256(&content), "length"),
            (content.len() + 1, sha256(&content), "length"),
            (content.len(), sha256(b"other"), "sha256"),
        ] {
            let first = open("acme", Mode::Spooled);
            let mut call = Call::begin(link(), first.clone()).await.expect("opened");
            let refused_id = call.id();
            assert!(call.rest(&content, 0).await && call.finish(length, Some(&digest)).await);
            let refused = call.until_refused().await;
            assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("MISMATCH", wrong));
            wire::settled(link()).await;
            assert_eq!(wire::list(link(), "acme", 0).await.len(), 0, "no entry");
            assert_eq!(world.objects("eu-west-2").len() + world.objects("eu-west-1").len(), 0, "no object");
            wire::assert_erased(link(), &refused_id).await;
            assert_eq!(wire::statistics(link(), "acme").await.len(), 0, "nothing counted");
            // The same client id, the truth this time: the whole is wanted again, under a new recording id.
            let mut call = Call::begin(link(), first).await.expect("opened");
            assert_eq!(call.opened.resume_offset, 0);
            assert_ne!(call.id(), refused_id);
            assert!(call.rest(&content, 0).await && call.finish_with(&content).await);
            let id = call.until_finished().await.expect("finished").recording_id;
            assert_plays(link(), &id, &content).await;
            wire::erase(link(), wire::whole_tenant("acme")).await.expect("erased");
            wire::settled(link()).await;
            wire::tenant(link(), "acme", Residency::Both).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_not_what_its_switch_states_is_kept_and_marked() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    for transport in TRANSPORTS {
        let link = || gateway.link("admin", transport);
        let content = sound(2, 200_000);
        for (length, digest, marked) in [
            (200_000, Some(sha256(&content)), false),
            (200_000, None, false),
            (200_001, Some(sha256(&content)), true),
            (199_999, None, true),
            (200_000, Some(sha256(b"other")), true),
        ] {
            // Whole, and over two streams: then the digest is taken from what was kept.
            for broken in [false, true] {
                let first = open("acme", Mode::Live);
                let mut call = Call::begin(link(), first.clone()).await.expect("opened");
                assert!(call.rest(&content[..150_000], 0).await);
                if broken {
                    call.until(|mark| mark.journaled == 150_000).await.expect("journaled");
                    call = Call::begin(link(), first).await.expect("again");
                }
                assert!(call.rest(&content, 150_000).await);
                assert!(call.finish(length, digest.as_deref()).await);
                let finished = call.until_finished().await.expect("finished");
                assert_eq!((finished.mismatch, finished.length), (marked, 200_000), "{length} {broken}");
                assert!(call.mark.finish_journaled);
                let facts = wire::show(link(), &call.id()).await.expect("shown").facts.expect("facts");
                assert_eq!((facts.mismatch, facts.length), (marked, 200_000));
                assert_plays(link(), &call.id(), &content).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_without_a_byte_is_refused() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    for transport in TRANSPORTS {
        for mode in [Mode::Spooled, Mode::Live] {
            let link = || gateway.link("admin", transport);
            let first = open("acme", mode);
            let mut call = Call::begin(link(), first.clone()).await.expect("opened");
            call.finish(0, None).await;
            let refused = call.until_refused().await;
            assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("INVALID", "finish.length"));
            assert_eq!(wire::list(link(), "acme", 0).await.len(), 0);
            let content = sound(3, 10);
            let id = store(link(), first, &content).await;
            assert_plays(link(), &id, &content).await;
            wire::erase(link(), wire::recording(&id, v1::Part::Unspecified)).await.expect("erased");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_field_that_is_wrong_is_named() {
    let world = World::new("").await;
    let gateway = world.start();
    wire::tenant(gateway.link("admin", TRANSPORTS[0]), "acme", Residency::HomeOnly).await;
    let now = jiff::Timestamp::now().as_millisecond();
    let day = 86_400_000;
    let with = |change: &dyn Fn(&mut v1::Open)| {
        let mut open = v1::Open { facts: Some(v1::Facts::default()), ..open("acme", Mode::Spooled) };
        change(&mut open);
        open
    };
    let facts = |change: &dyn Fn(&mut v1::Facts)| with(&|open| change(open.facts.as_mut().expect("facts")));
    let announced = |change: &dyn Fn(&mut v1::Announcement)| {
        let mut it = v1::Announcement { prompt: "p".into(), ..v1::Announcement::default() };
        change(&mut it);
        with(&|open| open.announcement = Some(it.clone()))
    };
    let evidence = || v1::Evidence { party: "p".into(), how: "dtmf".into(), at_ms: now, reference: String::new() };
    let shown = |change: &dyn Fn(&mut v1::Evidence)| {
        let mut it = evidence();
        change(&mut it);
        with(&|open| open.evidence = vec![it.clone()])
    };
    let long = |length: usize| "x".repeat(length);
    let table: Vec<(&str, v1::Open)> = vec![
        ("kind", with(&|open| open.kind = 0)),
        ("kind", with(&|open| open.kind = 99)),
        ("mode", with(&|open| open.mode = 0)),
        ("subscriber", with(&|open| open.subscriber.clear())),
        ("subscriber", with(&|open| open.subscriber = long(257))),
        ("subscriber", with(&|open| open.subscriber = "a\nb".into())),
        ("media_type", with(&|open| open.media_type.clear())),
        ("media_type", with(&|open| open.media_type = "sound".into())),
        ("media_type", with(&|open| open.media_type = "audio/wav\r\nx: y".into())),
        ("client_id", with(&|open| open.client_id = vec![1; 15].into())),
        ("client_id", with(&|open| open.client_id = vec![1; 65].into())),
        ("start_ms", with(&|open| open.start_ms = now + 6 * 60_000)),
        ("start_ms", with(&|open| open.start_ms = now - 15 * day)),
        ("start_ms", with(&|open| open.start_ms = i64::MAX)),
        ("start_ms", with(&|open| open.start_ms = i64::MIN)),
        ("facts.call_id", facts(&|facts| facts.call_id = long(257))),
        ("facts.purpose", facts(&|facts| facts.purpose = long(257))),
        ("facts.basis", facts(&|facts| facts.basis = "Consent".into())),
        ("facts.basis", facts(&|facts| facts.basis = long(257))),
        ("jurisdiction", with(&|open| open.jurisdiction = "de".into())),
        ("jurisdiction", with(&|open| open.jurisdiction = "DEU".into())),
        ("announcement.prompt", announced(&|it| it.prompt.clear())),
        ("announcement.prompt", announced(&|it| it.prompt = "a\nb".into())),
        ("announcement.language", announced(&|it| it.language = "de_AT".into())),
        ("announcement.offset_ms", announced(&|it| it.offset_ms = day + 1)),
        ("announcement.offset_ms", announced(&|it| it.offset_ms = i64::MIN)),
        ("evidence.party", shown(&|it| it.party.clear())),
        ("evidence.how", shown(&|it| it.how.clear())),
        ("evidence.how", shown(&|it| it.how = "guessed".into())),
        ("evidence.at_ms", shown(&|it| it.at_ms = 0)),
        ("evidence.at_ms", shown(&|it| it.at_ms = now + 6 * 60_000)),
        ("evidence.reference", shown(&|it| it.reference = long(257))),
        ("evidence", with(&|open| open.evidence = vec![evidence(); 65])),
        ("bound", with(&|open| open.bound = vec!["b".into(); 9])),
        ("bound", with(&|open| open.bound = vec![String::new()])),
        ("bound", with(&|open| (open.bound, open.parent) = (vec!["b".into()], "0".repeat(52)))),
        ("parent", with(&|open| open.parent = "nonsense".into())),
        ("facts.parties", facts(&|facts| facts.parties = vec![String::new()])),
        ("facts.parties", facts(&|facts| facts.parties = vec!["p".into(); 65])),
        ("facts.labels", facts(&|facts| drop(facts.labels.insert(long(65), "v".into())))),
        ("facts.labels", facts(&|facts| facts.labels = (0..65).map(|i| (i.to_string(), String::new())).collect())),
    ];
    for transport in TRANSPORTS {
        for (wrong, open) in &table {
            let refused = Call::begin(gateway.link("switch", transport), open.clone()).await.err().expect("refused");
            assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("INVALID", *wrong), "{refused:?}");
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
        for (change, wrong) in [(4 * 60_000, None), (-13 * day, None), (-15 * day, Some("start_ms"))] {
            let open = with(&|open| open.start_ms = now + change);
            match (Call::begin(gateway.link("switch", transport), open).await, wrong) {
                (Ok(_), None) => {}
                (Err(refused), Some(wrong)) => assert_eq!(field(&refused), wrong),
                (outcome, _) => panic!("{change}: {:?}", outcome.err()),
            }
        }
        let mut call =
            Call::begin(gateway.link("switch", transport), open("acme", Mode::Spooled)).await.expect("opened");
        assert!(call.data(0, b"sound").await && call.finish(5, Some(b"short")).await);
        assert_eq!(field(&call.until_refused().await), "sha256");
    }
    for (wrong, name, home) in [
        ("name", "", "eu-west-2"),
        ("name", "with space", "eu-west-2"),
        ("home", "fresh", "us-east-1"),
        ("home", "fresh", ""),
    ] {
        let request = v1::CreateTenantRequest {
            name: name.into(),
            home: home.into(),
            residency: Residency::HomeOnly.into(),
            policy: "dev".into(),
            keep: String::new(),
        };
        let link = gateway.link("root", TRANSPORTS[0]);
        let refused = v1::tenant_service_client::TenantServiceClient::new(link).create_tenant(request).await;
        assert_eq!(field(&refused.expect_err("refused")), wrong);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_tenant_reads_like_one_that_is_not_there() {
    let world = World::new("").await;
    let gateway = world.start();
    let admin = || gateway.link("admin", TRANSPORTS[0]);
    wire::tenant(admin(), "acme", Residency::HomeOnly).await;
    wire::tenant(admin(), "other", Residency::HomeOnly).await;
    let theirs = store(admin(), open("other", Mode::Spooled), b"theirs").await;
    wire::assert_plays(admin(), &theirs, b"theirs").await;
    for transport in TRANSPORTS {
        // The switch reaches `acme` only.
        let switch = || gateway.link("switch", transport);
        let foreign = wire::show(switch(), &theirs).await.expect_err("foreign");
        let made_up = wire::show(switch(), &"0".repeat(52)).await.expect_err("made up");
        assert_eq!((foreign.code(), foreign.message()), (made_up.code(), made_up.message()));
        assert_eq!(reason(&foreign), "UNKNOWN");
        let foreign = Call::begin(switch(), open("other", Mode::Live)).await.err().expect("foreign");
        let absent = Call::begin(switch(), open("nobody", Mode::Live)).await.err().expect("absent");
        assert_eq!((foreign.code(), foreign.message()), (absent.code(), absent.message()));
        let staff = wire::play(gateway.link("staff", transport), &theirs, None).await.expect_err("staff");
        assert_eq!(reason(&staff), "NOT_PERMITTED");
    }
    wire::erase(admin(), wire::recording(&theirs, v1::Part::Unspecified)).await.expect("erased");
    let foreign = wire::show(gateway.link("switch", TRANSPORTS[0]), &theirs).await.expect_err("foreign");
    assert_eq!(reason(&foreign), "UNKNOWN", "an id of a foreign tenant never reads `erased`");
}
