//! `cloudtalk`, call-centre software.

use super::{
    served::World,
    stage::{CUSTOMER, DAY, Left, NOT_PERMITTED, PROVIDER, REFUSED, STAFF, Stage, Take, USAGE, found},
    wire::{self, assert_plays, open, sound, store},
};
use quietus::{
    cli::args::Transport,
    object::{Embedded, embedded::Certificate},
    proto::v1::{self, tenant_service_client::TenantServiceClient},
    server::dev_files::DevFiles,
};

const NUMBER: &str = "+441632960021";
const OTHER: &str = "+441632960022";

fn stage() -> Stage {
    let stage = Stage::open();
    stage.tenant("acme", "cloudtalk", &[]);
    stage
}

/// Each tenant has a home, and what it records lies there; which regions there are is for the configuration to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_each_tenant_lies_in_its_home_and_more_regions_are_configuration() {
    const HOMES: [(&str, &str); 2] = [("acme", "eu-central-1"), ("globex", "ap-southeast-2")];
    let dir = tempfile::tempdir().expect("a folder");
    let files = DevFiles::prepare(dir.path()).expect("certificates");
    let ca = files.tls.client_ca.clone().expect("a CA");
    let certificate = Certificate { chain_pem: &files.tls.certificate, key_pem: &files.tls.key, ca_pem: &ca };
    let s3 = dir.path().join("s3");
    let storage = Embedded::start(&s3, &HOMES.map(|(_, home)| home), certificate).await.expect("storage");
    let world = World::over(storage.region_configs(), "").await;
    let gateway = world.start();
    let link = || gateway.link("admin", Transport::H2);
    let objects = || {
        HOMES.map(|(_, home)| {
            let entries = std::fs::read_dir(s3.join(home)).expect("a bucket");
            entries
                .filter(|entry| !entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with('.'))
                .count()
        })
    };
    for (at, (tenant, home)) in HOMES.into_iter().enumerate() {
        let request = v1::CreateTenantRequest {
            name: tenant.into(),
            home: home.into(),
            residency: v1::Residency::HomeOnly.into(),
            policy: "cloudtalk".into(),
            keep: String::new(),
        };
        TenantServiceClient::new(link()).create_tenant(request).await.expect("made");
        let content = sound(at as u64, 50_000);
        let id = store(link(), open(tenant, v1::Mode::Spooled), &content).await;
        assert_plays(link(), &id, &content).await;
        wire::settled(link()).await;
        let expected = [0, 1].map(|region| usize::from(region <= at));
        assert_eq!(objects(), expected, "{tenant}");
    }
}

/// No grace: due the moment the account is closed; so a close is guarded like a purge.
#[test]
fn t2_everything_is_due_the_moment_the_account_is_closed() {
    let stage = stage();
    stage.tenant("globex", "cloudtalk", &[]);
    let records: Vec<_> =
        ["call", "voicemail", "transcript"].map(|kind| stage.record(&Take::call("acme", NUMBER).kind(kind))).into();
    let open = stage.record(&Take::call("globex", OTHER));
    stage.noticed_at(stage.now() + 3 * 365 * DAY);
    assert!(records.iter().all(|recorded| stage.left(recorded) == Left::Both), "kept while it is used");

    let before = stage.steal();
    for wrong in [&["tenant", "close", "acme"][..], &["tenant", "close", "acme", "--confirm", "globex"]] {
        stage.refused(CUSTOMER, wrong, USAGE);
    }
    stage.noticed();
    assert!(records.iter().all(|recorded| stage.plays(recorded)), "a slip of the hand closes nothing");
    stage.ok(CUSTOMER, &["tenant", "close", "acme", "--confirm", "acme"]);
    stage.until("all of it is gone, with no time passing", || {
        records.iter().all(|recorded| stage.left(recorded) == Left::Nothing)
    });
    stage.nothing_is_late();
    let expected: Vec<_> = records.iter().map(|recorded| (recorded, Left::Nothing)).collect();
    stage.assert_left(&before, &[&expected[..], &[(&open, Left::Both)]].concat());
    assert!(stage.plays(&open));
    let (_, refused) = stage.attempt(&Take::call("acme", NUMBER));
    assert_eq!(refused.status.code(), Some(REFUSED));
}

/// What counts and logs keep of somebody dies with the key: nobody, the provider included, can tie it again.
#[test]
fn t4_what_statistics_and_the_log_keep_ties_to_nobody_for_good() {
    let stage = stage();
    let call = stage.record(&Take::call("acme", NUMBER));
    let other = stage.record(&Take::call("acme", OTHER));
    let looks = |recorded: &str, ticket: &str| stage.ok(STAFF, &["show", recorded, "--ticket", ticket]);
    looks(&call.id, "TICKET-qzjw");
    looks(&other.id, "TICKET-kvxp");
    for recorded in [&call, &other] {
        assert!(stage.plays(recorded));
    }
    let entries = |subscriber: &str| {
        stage.json(CUSTOMER, &["audit", "tail", "--subscriber", &format!("acme/{subscriber}")]).len()
    };
    assert!(entries(NUMBER) > 0);
    let counted = || stage.json(CUSTOMER, &["tenant", "show", "acme"]).remove(0)["statistics"].clone();
    let (before, statistics) = (stage.steal(), counted());
    assert_eq!(statistics[0]["recordings"], 2);
    stage.ok(CUSTOMER, &["erase", "subscriber", &format!("acme/{NUMBER}")]);

    // Counts stay as they were, the log holds and still says that somebody listened; whose it was, nobody finds.
    assert_eq!(counted(), statistics);
    stage.ok(CUSTOMER, &["audit", "verify", "--tenant", "acme"]);
    let log = stage.json(CUSTOMER, &["audit", "tail", "--tenant", "acme"]);
    assert_eq!(log.iter().filter(|entry| entry["action"] == "play").count(), 2, "{log:?}");
    assert!(log.iter().any(|entry| entry["action"] == "play" && entry.to_string().contains(&other.id)));
    assert!(!log.iter().any(|entry| entry.to_string().contains(&call.id)), "{log:?}");
    stage.assert_words(&before, &[NUMBER, "TICKET-qzjw"], &[OTHER, "TICKET-kvxp"]);

    // With the tenant goes the rest: who, when, and the counts.
    stage.ok(CUSTOMER, &["tenant", "purge", "acme", "--confirm", "acme"]);
    stage.assert_words(&before, &[NUMBER, "TICKET-qzjw", OTHER, "TICKET-kvxp", "acme"], &[]);
    stage.ok(PROVIDER, &["audit", "verify"]);
    assert!(stage.json(PROVIDER, &["stats", "anonymous"]).is_empty());
    assert!(found(&stage.attack(&[], &[call.id.as_str(), other.id.as_str()])).is_empty());
}

/// The support request is what lets staff in: it names a ticket and a purpose, and the customer answers it.
#[test]
fn t6_a_support_request_is_the_trigger_and_the_customer_answers_it() {
    let stage = stage();
    let call = stage.record(&Take::call("acme", NUMBER));
    let beside = stage.record(&Take::call("acme", OTHER));
    let scope = format!("acme/{NUMBER}");
    for lacking in [["--purpose", "echo on the line"], ["--ticket", "T-1"]] {
        let request = ["permission", "request", "--subscriber", &scope, "--for", "1h"];
        stage.refused(STAFF, &[&request[..], &lacking].concat(), USAGE);
    }
    stage.refused(STAFF, &["play", &call.id], NOT_PERMITTED);
    let terms = ["--purpose", "echo on the line", "--ticket", "T-1", "--for", "1h", "--download"];
    let asked = stage.ok(STAFF, &[&["permission", "request", "--subscriber", &scope][..], &terms].concat());
    let shown = stage.json(CUSTOMER, &["permission", "show", &asked]).remove(0);
    assert_eq!((&shown["ticket"], &shown["asked_by"]), (&"T-1".into(), &"staff/dev".into()));
    stage.refused(STAFF, &["play", &call.id], NOT_PERMITTED);

    // Less than was asked for: to listen, and shorter.
    stage.ok(CUSTOMER, &["permission", "grant", &asked, "--for", "30m", "--listen-only"]);
    assert!(stage.plays_to(STAFF, &call));
    stage.refused(STAFF, &["play", &call.id, "--download"], NOT_PERMITTED);
    stage.refused(STAFF, &["play", &beside.id], NOT_PERMITTED);
    stage.ok(CUSTOMER, &["permission", "revoke", &asked]);
    stage.refused(STAFF, &["play", &call.id], NOT_PERMITTED);
    let log = stage.json(CUSTOMER, &["audit", "tail", "--subscriber", &scope]);
    for action in ["permission.request", "permission.grant", "permission.revoke"] {
        assert!(log.iter().any(|entry| entry["action"] == action), "{action}: {log:?}");
    }
}
