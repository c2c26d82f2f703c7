//! Retention, unattended: over the real vault, slot and S3, on a clock that the test moves. What each preset promises is
//! played through in tests/promises; here is what holds of the runner whatever the policy says.

#[path = "common/rehearsal.rs"]
mod rehearsal;

use quietus::{
    domain::{id::RecordingId, time::Timestamp},
    vault::{Error, HoldScope, NewHold, PolicySource, Scope, VaultConfig},
};
use rehearsal::{DAY_MS, HOUR_MS, World, admin};

const ONE: &str = "+441632960001";

/// Audio ten days, facts thirty; aimed at two days earlier.
const SHORT: &str = r#"
name = "short"
margin = "48h"
parties = "owner"
[[keep]]
what = "audio"
not_after = ["10d after end", "90d after close"]
[[keep]]
what = "facts"
not_after = ["30d after end", "90d after close"]
"#;

async fn world(policy: &str) -> World {
    let world = World::new(VaultConfig::default()).await;
    world.tenant("acme", policy).await;
    world
}

async fn set(world: &World, policy: &str) -> Result<(), Error> {
    world.vault().set_policy(&admin("anna"), "acme", &PolicySource::from(policy), "acme").await.map(drop)
}

async fn has_facts(world: &World, id: RecordingId) -> bool {
    match world.vault().recording(&admin("anna"), id, "").await {
        Ok(recording) => recording.facts.is_some(),
        Err(Error::Erased) => false,
        Err(other) => panic!("neither there nor gone: {other}"),
    }
}

async fn goes(world: &World, id: RecordingId) -> [Option<Timestamp>; 2] {
    let explained = world.vault().explain(&admin("anna"), id, "").await.expect("explained");
    [explained.parts[0].goes, explained.parts[1].goes]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_early_and_nothing_late_and_each_leaf_by_its_own_rule() {
    let world = world(SHORT).await;
    let id = world.record("acme", ONE).await;
    let aims = [8, 28].map(|days| Some(world.now().plus_ms(days * DAY_MS)));
    assert_eq!(goes(&world, id).await, aims);
    world.wait(8 * DAY_MS - 60_000).await;
    world.vault().expire().await.expect("runs");
    assert!(world.plays(id).await, "a minute early");
    world.wait(60_000).await;
    world.vault().expire().await.expect("runs");
    assert!(!world.plays(id).await && has_facts(&world, id).await, "audio goes, facts stay");
    world.wait(20 * DAY_MS - 60_000).await;
    world.vault().expire().await.expect("runs");
    assert!(has_facts(&world, id).await);
    world.wait(60_000).await;
    world.vault().expire().await.expect("runs");
    assert!(!has_facts(&world, id).await);
    let expiry = world.vault().status().expiry;
    assert_eq!((expiry.expired, expiry.expired_late, expiry.late_recordings), (2, 0, 0));
    // An unattended expiry has its receipts: of the audio, of the facts.
    let receipts = world.vault().receipts(&Scope::All, Some("acme"), false, None, 100).expect("listed");
    assert_eq!(receipts.iter().filter(|receipt| receipt.follows.is_none()).count(), 2);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runner_catches_up_after_a_time_away_and_says_how_late_it_was() {
    let mut world = world(SHORT).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(world.record("acme", &format!("+4416329600{number:02}")).await);
    }
    // Away: what nobody witnesses does not expire, and what becomes late is counted.
    world.clock.set_witness_ahead(None);
    world.clock.advance_ms(15 * DAY_MS);
    world.vault().expire().await.expect("it says so and waits");
    assert!(world.plays(ids[0]).await && world.vault().status().expiry.clock_disagrees);
    world.reopen().await;
    world.clock.set_witness_ahead(Some(0));
    world.vault().expire().await.expect("runs");
    for id in &ids {
        assert!(!world.plays(*id).await && has_facts(&world, *id).await);
    }
    let expiry = world.vault().status().expiry;
    assert_eq!((expiry.expired_late, expiry.late_recordings), (20, 0), "five days late, and now nothing is");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_beyond_its_promise_is_counted_while_it_is() {
    let world = world(SHORT).await;
    let id = world.record("acme", ONE).await;
    world.clock.set_witness_ahead(None);
    world.clock.advance_ms(10 * DAY_MS + HOUR_MS);
    world.vault().expire().await.expect("it says so and waits");
    let expiry = world.vault().status().expiry;
    assert!(expiry.clock_disagrees && expiry.late_recordings == 1, "{expiry:?}");
    assert!((3599..=3601).contains(&expiry.late_seconds), "{expiry:?}");
    assert!(world.plays(id).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_that_are_due_together_go_in_few_rotations_and_creates_go_on() {
    let world = world(SHORT).await;
    let mut ids = Vec::new();
    for number in 0..300 {
        ids.push(world.record("acme", &format!("+44163296{number:04}")).await);
    }
    world.clock.set_witness_ahead(None);
    world.clock.advance_ms(8 * DAY_MS);
    let before = world.vault().status().generation;
    world.clock.set_witness_ahead(Some(0));
    // How long the slowest create beside it waited is printed, and not asserted.
    let vault = world.vault().clone();
    let expiry = tokio::spawn(async move { vault.expire().await });
    let (mut opened, mut slowest) = (0_u32, std::time::Duration::ZERO);
    loop {
        let began = std::time::Instant::now();
        let mut ingest = world.vault().record(world.call("acme", ONE, &[])).await.expect("opened");
        slowest = slowest.max(began.elapsed());
        opened += 1;
        let id = ingest.opened().id;
        ingest.data(0, bytes::Bytes::from(vec![7; 2000])).await.expect("taken");
        let finish = quietus::vault::Finish { length: 2000, sha256: None, end: None };
        ingest.finish(finish).await.expect("finished");
        ingest.progress().wait_for(|progress| progress.finished.is_some()).await.expect("stored");
        if expiry.is_finished() {
            assert!(world.plays(id).await);
            break;
        }
    }
    expiry.await.expect("no panic").expect("runs");
    println!("{opened} creates beside the expiry of 300 recordings; the slowest was durable in {slowest:?}");
    for id in &ids {
        assert!(matches!(world.play(*id).await, Err(Error::Erased)));
    }
    let rotations = world.vault().status().generation - before;
    // Sixteen at least go together, however slow the machine is; days that close and windows that pass take a few of their own.
    assert!((1..=28).contains(&rotations), "{rotations} rotations");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_policy_holds_for_what_is_stored_but_never_shortens_its_floors() {
    let world = World::new(VaultConfig::default()).await;
    let mifid = |keep: &str| PolicySource { policy: "eu-mifid".to_owned(), keep: Some(keep.to_owned()) };
    world.tenant("acme", "eu-mifid").await;
    let id = world.record("acme", ONE).await;
    let floor = async |world: &World| {
        let explained = world.vault().explain(&admin("anna"), id, "").await.expect("explained");
        explained.parts[0].floor.as_ref().map(|floor| (floor.until, floor.ground.clone()))
    };
    let five = floor(&world).await.expect("a floor");
    assert_eq!(five.1, "MiFID II art. 16(7)");

    // Seven years raise it, five again do not lower it. It holds from the answer on, though what is stored has not been
    // brought up to it yet: the runner stands still while nothing is witnessed.
    world.wait(2000 * DAY_MS).await;
    world.clock.set_witness_ahead(None);
    world.vault().set_policy(&admin("anna"), "acme", &mifid("7y"), "").await.expect("set");
    world.clock.set_witness_ahead(Some(0));
    assert!(matches!(world.erase_recording(id).await, Err(Error::Floor { .. })), "five years and a half");
    world.vault().expire().await.expect("brings what is stored up to it");
    let seven = floor(&world).await.expect("a floor");
    assert!(seven.0 > five.0.plus_ms(700 * DAY_MS), "{five:?} {seven:?}");
    world.vault().set_policy(&admin("anna"), "acme", &mifid("5y"), "").await.expect("set");
    world.vault().expire().await.expect("brings what is stored up to it");
    assert_eq!(floor(&world).await, Some(seven.clone()));

    // Nor does another policy without floors, nor the close of the account, nor its purge.
    assert!(matches!(set(&world, SHORT).await, Err(Error::Parked { .. })), "it asks less of a purge");
    world.vault().approve(&admin("bob"), "acme").await.expect("approved");
    world.wait(73 * HOUR_MS).await;
    assert_eq!(world.vault().policy("acme").expect("a policy").name, "short");
    world.vault().expire().await.expect("brings what is stored up to it");
    world.vault().close_tenant(&admin("anna"), "acme", "").await.expect("closed");
    world.wait(100 * DAY_MS).await;
    world.vault().expire().await.expect("runs");
    match world.erase_recording(id).await {
        Err(Error::Floor { until, ground }) => assert_eq!((until, ground), seven),
        other => panic!("{other:?}"),
    }
    assert!(matches!(world.purge("acme").await, Err(Error::Parked { until: Some(until), .. }) if until == seven.0));
    assert!(world.plays(id).await);
    // When the duty has ended it goes by itself.
    world.wait(seven.0.0 - world.now().0 + 61 * 60_000).await;
    world.vault().housekeep().await.expect("the daily work");
    assert!(!world.plays(id).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tenant_has_no_rule_for_is_refused_before_it_is_taken() {
    let voicemail_only = r#"
name = "voicemail-only"
margin = "1h"
parties = "owner"
[[keep]]
what = "both"
category = "voicemail"
not_after = ["10d after end", "90d after close"]
"#;
    let world = world(voicemail_only).await;
    match world.send(world.call("acme", ONE, &[])).await {
        Err(Error::Refused { why }) => assert!(why.contains("voicemail-only") && why.contains("call"), "{why}"),
        other => panic!("{other:?}"),
    }
    // A policy that leaves without a rule what the one before governs does not take its place.
    set(&world, SHORT).await.expect("governs more");
    world.record("acme", ONE).await;
    assert!(matches!(set(&world, voicemail_only).await, Err(Error::Invalid { field: "policy", .. })));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_rehearsed_before_it_is_set_and_the_rehearsal_is_right() {
    let world = world("dev").await;
    let id = world.record("acme", ONE).await;
    world.wait(9 * DAY_MS).await;
    let rows = world.vault().dry_run_policy("acme", &PolicySource::from(SHORT)).await.expect("rehearsed");
    let audio = &rows[0];
    assert_eq!((audio.stored, audio.due_at_once, audio.due_earlier), (1, 1, 1), "{rows:?}");
    let facts = &rows[1];
    assert_eq!((facts.stored, facts.due_at_once, facts.due_earlier), (1, 0, 1), "{rows:?}");
    world.vault().expire().await.expect("runs");
    assert!(world.plays(id).await, "a rehearsal changes nothing");
    set(&world, SHORT).await.expect("set");
    world.vault().expire().await.expect("runs");
    assert!(!world.plays(id).await && has_facts(&world, id).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_that_meets_a_hold_runs_by_itself_when_it_lifts() {
    let mut world = world(SHORT).await;
    let id = world.record("acme", ONE).await;
    let new = NewHold {
        tenant: "acme".into(),
        scope: HoldScope::Subscriber(ONE.into()),
        ground: "dispute".into(),
        authority: "the customer".into(),
        review: world.now().plus_ms(90 * DAY_MS),
    };
    let hold = world.vault().place_hold(&admin("anna"), new).await.expect("placed").hold.id;
    world.wait(60 * DAY_MS).await;
    world.vault().expire().await.expect("runs");
    assert!(world.plays(id).await && has_facts(&world, id).await);
    assert_eq!(world.vault().status().expiry.late_recordings, 0, "a hold is no lateness");
    let waiting = world.vault().parked(&admin("anna"), Some("acme")).expect("listed");
    assert!(waiting.len() == 1 && waiting[0].expiry && waiting[0].part.is_none());
    world.reopen().await;
    world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
    world.vault().expire().await.expect("runs");
    assert!(!world.plays(id).await && !has_facts(&world, id).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_due_by_when_its_call_ended_and_a_forged_end_brings_nothing_forward() {
    let world = world(SHORT).await;
    let began = world.now().plus_ms(-5 * DAY_MS);
    let late = |end: Option<Timestamp>| {
        let open = quietus::vault::Open { start: Some(began), ..world.call("acme", ONE, &[]) };
        let world = &world;
        async move {
            let mut ingest = world.vault().record(open).await.expect("opened");
            ingest.data(0, bytes::Bytes::from(vec![7; 2000])).await.expect("taken");
            let finish = quietus::vault::Finish { length: 2000, sha256: None, end };
            ingest.finish(finish).await.expect("finished");
            let mut progress = ingest.progress();
            progress.wait_for(|progress| progress.finished.is_some()).await.expect("stored");
            ingest.opened().id
        }
    };
    let honest = late(Some(began.plus_ms(HOUR_MS))).await;
    let forged_early = late(Some(Timestamp(1))).await;
    let forged_late = late(Some(world.now().plus_ms(1000 * DAY_MS))).await;
    let aim = |from: Timestamp| Some(from.plus_ms(8 * DAY_MS));
    assert_eq!(goes(&world, honest).await[0], aim(began.plus_ms(HOUR_MS)));
    let early = goes(&world, forged_early).await[0].expect("an aim");
    assert!(Some(early) >= aim(began) && Some(early) <= aim(began.plus_ms(60_000)), "not before the call began");
    assert_eq!(goes(&world, forged_late).await[0], aim(world.now()), "not after its receipt");
    world.close().await;
}
