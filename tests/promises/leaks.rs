//! What goes in is nowhere to be read: one run over all presets, and then everything that the gateway wrote or said.
//!
//! Every name, number and label that goes in has one of two stems in it, so a search for these finds each of them. Commands
//! read names from files beside the data folder; what they print on purpose is not searched, what they fail with is.

use super::{
    stage::{CUSTOMER, DAY, DONE, PROVIDER, STAFF, Stage, Take},
    traces::Traces,
};
use quietus::domain::retention::presets;
use std::{cell::RefCell, path::Path};

const WORD: &str = "qzwvkj7x";
const NUMBER: &str = "99907739145";

/// What somebody is called in one preset.
struct Cast {
    tenant: String,
    subscriber: String,
    party: String,
    /// The same, to be read from files.
    at_tenant: String,
    at_subscriber: String,
    at_both: String,
    at_party: String,
}

impl Cast {
    fn of(stage: &Stage, index: usize, tenant: &str) -> Self {
        let (subscriber, party) = (format!("+{NUMBER}{index}1"), format!("+{NUMBER}{index}2"));
        let file = |kind: &str, text: &str| stage.file(&format!("{kind}-{index}"), text);
        Self {
            at_tenant: file("tenant", tenant),
            at_subscriber: file("subscriber", &subscriber),
            at_both: file("both", &format!("{tenant}/{subscriber}")),
            at_party: file("party", &party),
            tenant: tenant.to_owned(),
            subscriber,
            party,
        }
    }
}

/// What commands failed with.
#[derive(Default)]
struct Failures(RefCell<Vec<u8>>);

impl Failures {
    fn run(&self, stage: &Stage, who: &str, arguments: &[&str]) -> i32 {
        let output = stage.run(who, arguments);
        self.0.borrow_mut().extend_from_slice(&output.stderr);
        output.status.code().expect("it was not killed")
    }

    /// What must be refused.
    fn refused(&self, stage: &Stage, who: &str, arguments: &[&str]) {
        let before = self.0.borrow().len();
        assert_ne!(self.run(stage, who, arguments), DONE, "{who}: {arguments:?}");
        assert!(self.0.borrow().len() > before, "a refusal says why");
    }
}

fn through_one_preset(stage: &Stage, failures: &Failures, preset: &str, cast: &Cast) {
    let word = |what: &str| format!("{what}-{WORD}");
    let outline = presets::find(preset).expect("ships").outline().expect("good");
    let keep: &[&str] = if outline.keep.is_some_and(|keep| keep.default.is_none()) { &["--keep", "30d"] } else { &[] };
    stage.tenant(&cast.at_tenant, preset, keep);
    failures.refused(stage, PROVIDER, &["tenant", "create", &cast.at_tenant, "--home", "eu-west-2"]);
    failures.refused(stage, PROVIDER, &["tenant", "create", &word("other"), "--home", &word("region")]);

    let (label, purpose) = (format!("{}={}", word("label"), word("value")), word("purpose"));
    let proof =
        |party: &str| format!("{{\"party\": \"{party}\", \"how\": \"dtmf\", \"at\": \"2026-06-15T12:00:00Z\"}}");
    let evidence =
        stage.file(&format!("evidence-{preset}"), &format!("[{}, {}]", proof(&cast.party), proof(&cast.subscriber)));
    let facts = [
        &["--party", &cast.at_party, "--party", &cast.at_subscriber, "--label", &label, "--purpose", &purpose][..],
        &["--basis", "consent", "--evidence", &evidence],
    ]
    .concat();
    let take = Take::call(&cast.at_tenant, &cast.at_subscriber).more(&facts);
    let call = stage.record(&take);
    let live = stage.record(&take.clone().more(&[&facts[..], &["--live"]].concat()));
    let voicemail = stage.record(&take.clone().kind("voicemail"));
    for wrong in [
        &["--media-type", &word("audio")][..],
        &["--start", "2000-01-01T00:00:00Z"],
        &["--label", &label, "--label", &word("=")],
    ] {
        let (_, refused) = stage.attempt(&take.clone().more(&[&facts[..], wrong].concat()));
        failures.0.borrow_mut().extend_from_slice(&refused.stderr);
    }
    let (_, refused) = stage.attempt(&Take::call(&word("nobody"), &cast.at_subscriber).more(&facts));
    assert_ne!(refused.status.code(), Some(DONE));
    failures.0.borrow_mut().extend_from_slice(&refused.stderr);

    for recorded in [&call, &live, &voicemail] {
        assert!(stage.plays(recorded));
        stage.ok(STAFF, &["show", &recorded.id, "--ticket", &word("T")]);
        failures.refused(stage, STAFF, &["play", &recorded.id]);
    }
    stage
        .ok(STAFF, &["list", "--tenant", &cast.at_tenant, "--subscriber", &cast.at_subscriber, "--ticket", &word("T")]);
    for unknown in [
        &["list", "--tenant", &word("nobody")][..],
        &["list", "--tenant", &cast.at_tenant, "--subscriber", &cast.at_party],
        &["subscriber", "show", &format!("{}/{}", cast.tenant, cast.party)],
        &["erase", "subscriber", &format!("{}/{}", cast.tenant, cast.party)],
        &["audit", "tail", "--subscriber", &format!("{}/{}", cast.tenant, cast.party)],
        &["policy", "explain", &word("id")],
        &["tenant", "close", &cast.at_tenant, "--confirm", &word("wrong")],
    ] {
        // A close that needs no second word is no failure.
        if unknown[1] == "close" && !["cloudtalk", "broadcloud"].contains(&preset) {
            continue;
        }
        failures.refused(stage, PROVIDER, unknown);
    }

    let (customer, terms) = (CUSTOMER, ["--ticket", &word("T"), "--purpose", &word("why"), "--for", "1h"]);
    let ask = |scope: &[&str]| stage.ok(STAFF, &[&["permission", "request"], scope, &terms].concat());
    let asked = ask(&["--subscriber", &cast.at_both]);
    stage.ok(customer, &["inbox", "list", &cast.at_tenant]);
    stage.ok(customer, &["permission", "grant", &asked]);
    assert!(stage.plays_to(STAFF, &call));
    stage.ok(customer, &["permission", "revoke", &asked]);
    let denied = ask(&["--recording", &call.id]);
    failures.refused(stage, STAFF, &["permission", "grant", &denied]);
    stage.ok(customer, &["permission", "deny", &denied]);

    let hold = ["--ground", &word("ground"), "--authority", &word("court"), "--review", "2027-06-01T00:00:00Z"];
    let place = ["hold", "place", "--tenant", &cast.at_tenant, "--number", &cast.at_party];
    let placed = stage.json(PROVIDER, &[&place[..], &hold].concat()).remove(0);
    failures.refused(stage, PROVIDER, &["erase", "recording", &call.id]);
    stage.ok(PROVIDER, &["hold", "list", "--tenant", &cast.at_tenant, "--parked"]);
    stage.ok(PROVIDER, &["hold", "lift", placed["id"].as_str().expect("an id")]);
    stage.ok(customer, &["apikey", "create", &cast.at_tenant, "--name", &word("key"), "--role", "admin"]);
    stage.ok(PROVIDER, &["audit", "tail", "--tenant", &cast.at_tenant]);
    // By a floor, where there is one.
    failures.run(stage, PROVIDER, &["erase", "recording", &live.id]);
    stage.ok(PROVIDER, &["subscriber", "restrict", &cast.at_both]);
    failures.refused(stage, PROVIDER, &["play", &voicemail.id]);
    stage.ok(PROVIDER, &["subscriber", "unrestrict", &cast.at_both]);
    stage.ok(PROVIDER, &["subscriber", "deactivate", &cast.at_both]);
    let (_, refused) = stage.attempt(&take);
    failures.0.borrow_mut().extend_from_slice(&refused.stderr);
    assert_eq!(cast.subscriber.len(), cast.party.len());
}

/// Everything that the gateway keeps: key store, journal, objects, slot. What is in `tls` and `client` its operator put there.
fn search(traces: &Traces, data: &Path) {
    let files: usize =
        ["keys", "journal", "s3", "slot"].iter().map(|part| traces.search_folder(&data.join(part))).sum();
    assert!(files > 20, "hardly anything was searched: {files}");
}

#[test]
fn nothing_that_went_in_is_in_the_data_folder_the_log_the_metrics_or_a_refusal() {
    let traces = Traces::of(&[("a name or label", WORD.as_bytes()), ("a number", NUMBER.as_bytes())]);
    let all: Vec<&str> = presets::ALL.iter().map(|preset| preset.name).collect();
    assert!(all.len() >= 9, "{all:?}");
    let names: Vec<String> = all.iter().map(|preset| format!("{preset}-{WORD}")).collect();
    let tenants: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut stage = Stage::with("debug", &tenants);
    let failures = Failures::default();
    let casts: Vec<Cast> = tenants.iter().enumerate().map(|(index, tenant)| Cast::of(&stage, index, tenant)).collect();
    for (preset, cast) in all.iter().zip(&casts) {
        through_one_preset(&stage, &failures, preset, cast);
    }
    search(&traces, &stage.data());
    let metrics = stage.metrics();
    assert!(metrics.contains("quietus_holds_count"));
    traces.search("the metrics", metrics.as_bytes());

    // Killed, started again, and years later: what expires, and what is erased.
    stage.kill();
    stage.noticed_at(stage.now() + 400 * DAY);
    for cast in &casts {
        failures.run(&stage, PROVIDER, &["erase", "subscriber", &cast.at_both]);
        failures.run(&stage, PROVIDER, &["tenant", "purge", &cast.at_tenant, "--confirm", &cast.at_tenant]);
    }
    stage.settled();
    traces.search("the metrics", stage.metrics().as_bytes());
    let log = stage.gateway().log();
    assert!(log.matches(" INFO serving").count() == 2, "it did log: {log}");
    traces.search("the log", log.as_bytes());
    traces.search("what commands failed with", &failures.0.borrow());
    stage.stop();
    search(&traces, &stage.data());

    // The control: the search finds what is planted, and what was read from the files is what was searched for.
    let planted = stage.data().join("keys").join("planted");
    for text in [casts[0].tenant.as_bytes(), casts[0].party.as_bytes()] {
        std::fs::write(&planted, [b"xy".as_slice(), text].concat()).expect("written");
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| search(&traces, &stage.data())));
        assert!(caught.is_err(), "the search is blind");
    }
}
