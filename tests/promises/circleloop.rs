//! `circleloop`, a cloud phone system.

use super::stage::{
    CUSTOMER, DAY, ERASED, HOUR, Left, MARGIN, MINUTE, NOT_PERMITTED, PROVIDER, REFUSED, Recorded, STAFF, Stage, Take,
    UNKNOWN, USAGE, found,
};
use http::Request;
use quietus::crypto::envelope::Kind;
use std::collections::HashSet;
use tower::{Service as _, ServiceExt as _};

const NUMBER: &str = "+441632960001";
const OTHER: &str = "+441632960002";

fn stage() -> Stage {
    let stage = Stage::open();
    stage.tenant("acme", "circleloop", &[]);
    stage
}

/// Regions are what the configuration says, each tenant says which of them are its own, and no object lies elsewhere.
#[test]
fn c1_copies_lie_in_the_regions_of_the_tenant_and_nowhere_else() {
    let stage = Stage::open();
    stage.tenant("acme", "circleloop", &["--residency", "both"]);
    let create = ["tenant", "create", "globex", "--home", "eu-west-1", "--policy", "circleloop"];
    stage.ok(PROVIDER, &create);
    let said = stage.refused(PROVIDER, &["tenant", "create", "initech", "--home", "us-east-1"], USAGE);
    assert!(said.contains("eu-west-2, eu-west-1"), "{said}");

    let both = stage.record(&Take::call("acme", NUMBER));
    stage.settled();
    let copies = stage.objects("eu-west-2");
    assert_eq!(copies.len(), 1);
    assert_eq!(stage.objects("eu-west-1"), copies, "the same object, once in each region");
    let home = stage.record(&Take::call("globex", NUMBER));
    stage.settled();
    assert_eq!(stage.objects("eu-west-2"), copies, "nothing left its home");
    assert_eq!(stage.objects("eu-west-1").len(), 2);
    assert!(stage.plays(&both) && stage.plays(&home));

    // The product can say it: of the tenant where copies may lie, of what was recorded where it went first, of what is
    // erased where there was any.
    for (tenant, home, residency) in [("acme", "eu-west-2", "both"), ("globex", "eu-west-1", "home-only")] {
        let shown = stage.json(CUSTOMER, &["tenant", "show", tenant]).remove(0);
        assert_eq!((&shown["home"], &shown["residency"]), (&home.into(), &residency.into()));
        assert_eq!(shown["statistics"][0]["region"], home);
    }
    stage.ok(CUSTOMER, &["erase", "recording", &both.id, "--receipt", &stage.path("receipt").display().to_string()]);
    let receipt = std::fs::read_to_string(stage.path("receipt")).expect("a receipt");
    for region in ["eu-west-1", "eu-west-2"] {
        assert!(receipt.contains(&format!("\nciphertext: {region} pending\n")), "{receipt}");
    }
    stage.settled();
    assert!(stage.objects("eu-west-2").is_empty());
    assert_eq!(stage.objects("eu-west-1").len(), 1);
    assert!(stage.plays(&home));
}

/// For the life of the account, and the customer's own people erase a recording, a subscriber, everything.
#[test]
fn c2_kept_while_the_account_lives_and_erased_by_the_customer_at_any_time() {
    let stage = stage();
    let kinds = ["call", "voicemail", "transcript"];
    let records: Vec<_> = kinds.map(|kind| stage.record(&Take::call("acme", NUMBER).kind(kind))).into();
    let others: Vec<_> = kinds.map(|kind| stage.record(&Take::call("acme", OTHER).kind(kind))).into();
    let all: Vec<_> = records.iter().chain(&others).collect();
    stage.noticed_at(stage.now() + 10 * 365 * DAY);
    for recorded in &all {
        assert_eq!(stage.left(recorded), Left::Both);
        assert_eq!(stage.explained(recorded, "audio"), (None, None));
        assert_eq!(stage.explained(recorded, "facts"), (None, None));
    }

    let before = stage.steal();
    stage.ok(CUSTOMER, &["erase", "recording", &records[0].id]);
    let expect = |gone: usize| -> Vec<_> {
        all.iter().enumerate().map(|(at, it)| (*it, if at < gone { Left::Nothing } else { Left::Both })).collect()
    };
    stage.assert_left(&before, &expect(1));
    stage.ok(CUSTOMER, &["erase", "subscriber", &format!("acme/{NUMBER}")]);
    stage.assert_left(&before, &expect(3));
    stage.assert_words(&before, &[NUMBER], &[OTHER]);
    for recorded in &records {
        assert_eq!(stage.left(recorded), Left::Nothing);
    }
    assert!(others.iter().all(|recorded| stage.plays(recorded)));
    stage.ok(CUSTOMER, &["tenant", "purge", "acme", "--confirm", "acme"]);
    stage.assert_left(&before, &expect(6));
    stage.assert_words(&before, &[NUMBER, OTHER], &[]);
    stage.settled();
    assert!(stage.objects("eu-west-2").is_empty());
}

/// Ninety days from the close at most, without anybody doing anything; and earlier for whoever asks within the grace.
#[test]
fn c3_ninety_days_after_close_all_is_gone_and_earlier_on_request() {
    let mut stage = stage();
    stage.tenant("globex", "circleloop", &[]);
    let early = stage.record(&Take::call("acme", NUMBER));
    let kept = stage.record(&Take::call("acme", NUMBER));
    let voicemail = stage.record(&Take::call("acme", OTHER).kind("voicemail"));
    let open = stage.record(&Take::call("globex", NUMBER));
    stage.wait(400 * DAY);
    let before = stage.steal();
    stage.ok(CUSTOMER, &["tenant", "close", "acme"]);
    let promise = stage.now() + 90 * DAY;

    // Its people read on; its switch does not record any more.
    let (_, refused) = stage.attempt(&Take::call("acme", NUMBER));
    assert_eq!(refused.status.code(), Some(REFUSED));
    stage.wait(DAY);
    assert!(stage.plays(&early));
    stage.ok(CUSTOMER, &["erase", "recording", &early.id]);
    stage.assert_left(&before, &[(&early, Left::Nothing), (&kept, Left::Both), (&voicemail, Left::Both)]);

    // A restart within the grace changes nothing.
    stage.restart();
    assert_eq!(stage.explained(&voicemail, "facts"), (Some(promise - MARGIN), Some(promise)));
    stage.goes_by(&kept, promise, Left::Both, Left::Nothing);
    stage.until("the voicemail too", || stage.left(&voicemail) == Left::Nothing);
    stage.nothing_is_late();
    stage.go_to(promise);
    let expected = [&early, &kept, &voicemail].map(|recorded| (recorded, Left::Nothing));
    stage.assert_left(&before, &[&expected[..], &[(&open, Left::Both)]].concat());
    assert!(stage.plays(&open), "an account that is open keeps");
}

/// Staff see that a call took place, with a ticket and logged; they hear it when the customer lets them, and no longer.
#[test]
fn c4_staff_see_activity_and_hear_nothing_without_the_customers_permission() {
    let mut stage = stage();
    let call = stage.record(&Take::call("acme", NUMBER).more(&["--party", NUMBER, "--party", OTHER]));
    let voicemail = stage.record(&Take::call("acme", NUMBER).kind("voicemail"));
    let transcript = stage.record(&Take::call("acme", NUMBER).kind("transcript"));
    let all = [&call, &voicemail, &transcript];

    let ways_in = |stage: &Stage| {
        for recorded in all {
            stage.refused(STAFF, &["play", &recorded.id], NOT_PERMITTED);
            stage.refused(STAFF, &["play", &recorded.id, "--download"], NOT_PERMITTED);
            stage.refused(STAFF, &["play", &recorded.id, "--url"], NOT_PERMITTED);
            // Nor do those who run the tenants of the provider.
            stage.refused(PROVIDER, &["play", &recorded.id], NOT_PERMITTED);
            assert_eq!(over_http(stage, STAFF, &recorded.id), 403);
        }
    };
    ways_in(&stage);

    // Activity and numbers: with a ticket only, and the log has it.
    stage.refused(STAFF, &["show", &call.id], USAGE);
    stage.refused(STAFF, &["list", "--tenant", "acme"], USAGE);
    let shown = stage.json(STAFF, &["show", &call.id, "--ticket", "T-4711"]).remove(0);
    assert_eq!(shown["facts"]["parties"], serde_json::json!([NUMBER, OTHER]));
    assert_eq!(stage.json(STAFF, &["list", "--tenant", "acme", "--ticket", "T-4712"]).len(), 3);
    let looks = stage.json(CUSTOMER, &["audit", "tail", "--recording", &call.id]);
    let looked = looks.iter().find(|entry| entry["action"] == "facts.show").expect("the look is in the log");
    assert!(looked["actor"] == "staff/dev" && looked.to_string().contains("T-4711"), "{looked}");
    // That view takes no key of the audio: it is the same where there is none.
    stage.ok(CUSTOMER, &["erase", "recording", &voicemail.id, "--part", "audio"]);
    let shown = stage.json(STAFF, &["show", &voicemail.id, "--ticket", "T-4711"]).remove(0);
    assert_eq!(shown["facts"]["call_id"], voicemail.mark.as_str());

    // A permission: asked for, told to the customer, refused once and granted once.
    let ask = |recorded: &str| {
        let terms = ["--purpose", "crackling", "--ticket", "T-4713", "--for", "2h"];
        stage.ok(STAFF, &[&["permission", "request", "--recording", recorded], &terms[..]].concat())
    };
    let denied = ask(&call.id);
    stage.refused(STAFF, &["permission", "grant", &denied], NOT_PERMITTED);
    stage.refused(PROVIDER, &["permission", "grant", &denied], NOT_PERMITTED);
    stage.ok(CUSTOMER, &["permission", "deny", &denied]);
    stage.refused(STAFF, &["play", &call.id], NOT_PERMITTED);
    let granted = ask(&call.id);
    let inbox = stage.json(CUSTOMER, &["inbox", "list", "acme"]);
    assert!(inbox.iter().any(|item| item["id"] == granted.as_str()), "the customer learns of it");
    stage.refused(STAFF, &["play", &call.id], NOT_PERMITTED);
    stage.ok(CUSTOMER, &["permission", "grant", &granted]);
    assert!(stage.plays_to(STAFF, &call));
    stage.refused(STAFF, &["play", &transcript.id], NOT_PERMITTED);
    let heard = stage.json(CUSTOMER, &["audit", "tail", "--recording", &call.id]);
    let played: Vec<_> = heard.iter().filter(|entry| entry["action"] == "play" && entry["outcome"] == "done").collect();
    assert!(played.len() == 1 && played[0]["actor"] == "staff/dev", "{heard:?}");

    // It ends by itself, and a restart neither forgets a grant nor revives one.
    stage.restart();
    assert!(stage.plays_to(STAFF, &call));
    stage.wait(2 * HOUR + MINUTE);
    ways_in_but_voicemail(&stage, &[&call, &transcript]);
    stage.restart();
    ways_in_but_voicemail(&stage, &[&call, &transcript]);
    assert!(stage.plays(&call), "the customer hears what is theirs");
}

fn ways_in_but_voicemail(stage: &Stage, all: &[&Recorded]) {
    for recorded in all {
        stage.refused(STAFF, &["play", &recorded.id], NOT_PERMITTED);
        assert_eq!(over_http(stage, STAFF, &recorded.id), 403);
    }
}

/// The status with which HTTP answers.
fn over_http(stage: &Stage, who: &str, id: &str) -> u16 {
    let mut link = stage.link(who);
    let request = Request::get(format!("https://localhost/v1/recordings/{id}/audio"));
    stage.block_on(async move {
        let request = request.body(tonic::body::Body::empty()).expect("a request");
        link.ready().await.expect("ready").call(request).await.expect("an answer").status().as_u16()
    })
}

/// Counters of purged tenants are shown when there are ten of them in a sum, which then ties to none; of fewer, never.
#[test]
fn c5_statistics_of_closed_tenants_are_anonymous_or_dropped() {
    let mut stage = Stage::open();
    let names: Vec<String> = (1..=10).map(|number| format!("tenant-qzx{number}qzx")).collect();
    let mut thefts = Vec::new();
    for (index, name) in names.iter().enumerate() {
        assert!(stage.json(PROVIDER, &["stats", "anonymous"]).is_empty(), "shown of {index} tenants");
        stage.tenant(name, "circleloop", &[]);
        stage.record(&Take::call(name, NUMBER));
        if index == 0 {
            // Of a kind that the others have none of.
            stage.record(&Take::call(name, NUMBER).kind("video"));
        }
        thefts.push(stage.steal());
        stage.ok(PROVIDER, &["tenant", "purge", name, "--confirm", name]);
    }
    let rows = stage.json(PROVIDER, &["stats", "anonymous"]);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!((&row["month"], &row["kind"], &row["region"]), (&"2026-06".into(), &"call".into(), &"eu-west-2".into()));
    assert_eq!((&row["tenants"], &row["recordings"]), (&10.into(), &10.into()));

    // Nothing left says which tenants those were, and nobody ties them again.
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    stage.assert_words(&thefts[9], &[words[9], NUMBER], &[]);
    for (name, theft) in words.iter().zip(&thefts) {
        assert!(found(&stage.attack(&[], &[name])).is_empty(), "{name}");
        assert!(!found(&stage.attack(&[theft], &[name])).is_empty(), "the control");
    }

    // The one video waits for nine more, and is dropped when the year is over.
    assert_eq!(cells(&stage), 1);
    stage.go_to(stage.now() + 366 * DAY);
    stage.restart();
    stage.until("what is too few is dropped", || cells(&stage) == 0);
    assert_eq!(stage.json(PROVIDER, &["stats", "anonymous"]), rows);
}

/// Cells of sums that wait and that an attacker can read.
fn cells(stage: &Stage) -> usize {
    let findings = stage.attack(&[], &[]);
    let cells = findings.carved.sealed.iter().filter(|sealed| sealed.kind == Kind::Cell);
    cells.map(|sealed| sealed.salt).filter(|salt| findings.closure.opened.contains(salt)).collect::<HashSet<_>>().len()
}

/// Activity and contacts are kept and erased apart from audio.
#[test]
fn c12_activity_is_apart_from_audio() {
    let stage = stage();
    let parties = ["--party", "+441632960111", "--party", "sip:maria-hqzv@example.org", "--label", "queue=sales-wqzk"];
    let take = Take::call("acme", NUMBER).more(&parties);
    let records = ["call", "voicemail", "message"].map(|kind| stage.record(&take.clone().kind(kind)));
    let [without_audio, without_facts, whole] = &records;
    stage.noticed_at(stage.now() + 5 * 365 * DAY);
    let before = stage.steal();

    stage.ok(CUSTOMER, &["erase", "recording", &without_audio.id, "--part", "audio"]);
    stage.ok(CUSTOMER, &["erase", "recording", &without_facts.id, "--part", "facts"]);
    assert_eq!(records.each_ref().map(|it| stage.left(it)), [Left::Facts, Left::Audio, Left::Both]);
    stage.assert_left(&before, &[(without_audio, Left::Facts), (without_facts, Left::Audio), (whole, Left::Both)]);
    let facts = stage.facts(without_audio).expect("kept");
    assert_eq!(facts["parties"], serde_json::json!(["+441632960111", "sip:maria-hqzv@example.org"]));
    assert_eq!((&facts["kind"], &facts["labels"]["queue"]), (&"call".into(), &"sales-wqzk".into()));
    assert!(stage.status(CUSTOMER, &["play", &without_audio.id]) == ERASED);

    // Contacts go when the last facts that name them go, and nothing else of the account.
    for recorded in [without_audio, whole] {
        stage.ok(CUSTOMER, &["erase", "recording", &recorded.id, "--part", "facts"]);
    }
    stage.assert_words(&before, &["+441632960111", "maria-hqzv", "sales-wqzk"], &["acme", NUMBER]);
    assert!(stage.plays(whole) && stage.plays(without_facts));
    assert_eq!(stage.status(CUSTOMER, &["show", &"0".repeat(52)]), UNKNOWN);
}
