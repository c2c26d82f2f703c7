//! What an account and a subscriber are in, and what a purge waits for: over the real vault, slot and S3, on a clock that the
//! test moves, and on what the log says of it.

#[path = "common/rehearsal.rs"]
mod rehearsal;

use quietus::{
    audit::{SigningKey, receipt::State, verify},
    domain::audit::{Action, Outcome},
    vault::{
        Erasure, Error, HoldScope, NewHold, Restrict, Scope, Settled, SubjectView, TailOf, Target, TenantState,
        VaultConfig,
    },
};
use rehearsal::{DAY_MS, HOUR_MS, World, admin};
use std::sync::Arc;

const ONE: &str = "+441632960001";
const TWO: &str = "+441632960002";

/// A purge takes two people and three days; a close makes everything due at once.
const CAREFUL: &str = r#"
name = "careful"
margin = "48h"
parties = "owner"
[purge]
approval = "second-person"
cooling_off = "72h"
[[keep]]
what = "both"
not_after = "48h after close"
"#;

async fn world(policy: &str) -> World {
    let world = World::new(VaultConfig::default()).await;
    world.tenant("acme", policy).await;
    world
}

fn waits_for<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Parked { by, .. }) => by,
        other => panic!("does not wait: {other:?}"),
    }
}

async fn hold(world: &World, scope: HoldScope) -> quietus::domain::id::HoldId {
    let new = NewHold {
        tenant: "acme".into(),
        scope,
        ground: "litigation".into(),
        authority: "county court, case 17".into(),
        review: world.now().plus_ms(90 * DAY_MS),
    };
    world.vault().place_hold(&admin("anna"), new).await.expect("placed").hold.id
}

/// Actions of the tenant's log, with how they ended, oldest first.
fn logged(world: &World, of: &TailOf) -> Vec<(Action, Outcome)> {
    let entries = world.vault().tail(&Scope::All, of, None, 1000).expect("a log");
    entries.iter().map(|entry| (entry.action, entry.outcome)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_takes_a_second_person_and_cools_off_and_survives_restarts() {
    let mut world = world(CAREFUL).await;
    let held = world.record("acme", ONE).await;
    let beside = world.record("acme", TWO).await;
    assert_eq!(waits_for(world.purge("acme").await), "the approval of a second person");
    let delegated = quietus::vault::Actor { on_behalf_of: Some("admin/anna".into()), ..admin("bob") };
    for same in [admin("anna"), delegated] {
        let refused = world.vault().approve(&same, "acme").await;
        assert!(matches!(refused, Err(Error::NotPermitted { .. })), "one person on both sides");
    }
    world.reopen().await;
    world.wait(30 * DAY_MS).await;
    assert!(world.plays(held).await, "without approval it waits for ever");

    let Settled::Waits(cools) = world.vault().approve(&admin("bob"), "acme").await.expect("approved") else {
        panic!("it does not cool off");
    };
    assert_eq!(cools.runs, Some(world.now().plus_ms(72 * HOUR_MS)));
    assert_eq!(waits_for(world.purge("acme").await), "its cooling-off time");
    world.wait(71 * HOUR_MS).await;
    assert!(world.plays(held).await && world.plays(beside).await);
    // Somebody may still place a hold, and it counts.
    let hold = hold(&world, HoldScope::Recording(held)).await;
    world.reopen().await;
    world.wait(2 * HOUR_MS).await;
    assert!(world.plays(held).await && !world.plays(beside).await);
    assert!(matches!(world.vault().tenant("acme").expect("it stays").state, TenantState::Purging { .. }));
    let more = world.send(world.call("acme", ONE, &[])).await;
    assert!(matches!(more, Err(Error::Refused { .. })), "takes no recording on its way out");
    let late = world.vault().withdraw(&admin("anna"), "acme").await;
    assert!(matches!(late, Err(Error::Refused { .. })), "what has begun is not taken back");

    world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
    assert!(matches!(world.vault().tenant("acme"), Err(Error::Unknown { what: "tenant" })));
    assert!(!world.plays(held).await);
    let group = logged(&world, &TailOf::Group);
    assert!(group.contains(&(Action::TenantPurge, Outcome::Done)), "{group:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_has_the_receipt_that_was_promised_when_it_was_asked_for() {
    let key = Arc::new(SigningKey::of_this_run("uk+eu"));
    let config = VaultConfig { signing_key: Some(key), ..VaultConfig::default() };
    let mut world = World::new(config).await;
    for sent in [Some([7; 32]), None] {
        world.tenant("acme", CAREFUL).await;
        let held = world.record("acme", ONE).await;
        world.record("acme", TWO).await;
        let target = || Target::Tenant { tenant: "acme".into() };
        let promised = |answer: Result<Erasure, Error>| match answer {
            Err(Error::Parked { receipt: Some(promised), .. }) => promised,
            other => panic!("does not wait with a receipt: {other:?}"),
        };
        let asked = promised(world.vault().erase(&admin("anna"), target(), sent).await);
        assert_eq!(asked.opening.is_none(), sent.is_some(), "told where it is not what was sent");
        let opening = sent.or(asked.opening).expect("one of the two");
        // Told again to whoever asks again: no inbox will be left that could.
        let again = promised(world.vault().erase(&admin("carl"), target(), Some([9; 32])).await);
        assert_eq!((again.id, again.opening), (asked.id, Some(opening)));

        let Settled::Waits(cools) = world.vault().approve(&admin("bob"), "acme").await.expect("approved") else {
            panic!("it does not cool off");
        };
        assert_eq!(cools.receipt, Some(asked.id));
        world.reopen().await;
        let hold = hold(&world, HoldScope::Recording(held)).await;
        world.wait(73 * HOUR_MS).await;
        assert!(matches!(world.vault().receipt(asked.id), Err(Error::Unknown { .. })), "a part of it has gone");
        let ran = world.vault().lift_hold(&admin("anna"), hold).await.expect("lifted");
        assert_eq!(ran.receipts, [asked.id]);
        assert!(matches!(world.vault().tenant("acme"), Err(Error::Unknown { .. })));

        world.reopen().await;
        let text = world.vault().receipt(asked.id).expect("by its id, without a tenant").text.expect("stated");
        let key = world.vault().verifier_key().parse().expect("a key");
        let verified = verify::verify(&text, &key, Some((&opening, "tenant acme"))).expect("it holds");
        assert_eq!(verified.statement.state, State::Destroyed);
        assert!(verify::verify(&text, &key, Some((&[9; 32], "tenant acme"))).is_err(), "the control: another opening");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_and_a_close_can_be_withdrawn_while_they_cool_off() {
    let world = world(CAREFUL).await;
    let id = world.record("acme", ONE).await;
    waits_for(world.purge("acme").await);
    world.vault().approve(&admin("bob"), "acme").await.expect("approved");
    world.vault().withdraw(&admin("carl"), "acme").await.expect("withdrawn");
    world.wait(100 * HOUR_MS).await;
    assert!(world.plays(id).await);
    let nothing = world.vault().withdraw(&admin("carl"), "acme").await;
    assert!(matches!(nothing, Err(Error::Unknown { .. })));

    // By this policy a close makes everything due, so it is guarded alike.
    let anna = admin("anna");
    let close = |confirm: &'static str| world.vault().close_tenant(&anna, "acme", confirm);
    assert!(matches!(close("").await, Err(Error::Invalid { field: "confirm", .. })));
    waits_for(close("acme").await);
    world.vault().approve(&admin("bob"), "acme").await.expect("approved");
    world.vault().withdraw(&admin("carl"), "acme").await.expect("withdrawn");
    world.wait(100 * HOUR_MS).await;
    assert_eq!(world.vault().tenant("acme").expect("a tenant").state, TenantState::Open);

    waits_for(close("acme").await);
    world.vault().approve(&admin("bob"), "acme").await.expect("approved");
    world.wait(73 * HOUR_MS).await;
    assert!(matches!(world.vault().tenant("acme").expect("a tenant").state, TenantState::Closed { .. }));
    world.vault().expire().await.expect("runs");
    assert!(!world.plays(id).await, "due the moment it is closed");
    world.close().await;
}

/// Old calls of an open account may stay for years; by the same policy they are due once it is closed.
const SLY: &str = r#"
name = "sly"
margin = "48h"
parties = "owner"
[purge]
approval = "second-person"
[[keep]]
what = "both"
while = "account open"
not_after = "10y after end"
[[keep]]
what = "both"
while = "account closed"
not_after = "30d after end"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_would_make_something_stored_due_at_once_is_guarded_too() {
    let world = world(SLY).await;
    world.vault().close_tenant(&admin("anna"), "acme", "").await.expect("nothing is due by it");
    world.close().await;
    let world = self::world(SLY).await;
    let id = world.record("acme", ONE).await;
    world.wait(60 * DAY_MS).await;
    let close = |confirm| {
        let vault = world.vault();
        async move { vault.close_tenant(&admin("anna"), "acme", confirm).await }
    };
    assert!(matches!(close("").await, Err(Error::Invalid { field: "confirm", .. })));
    assert_eq!(waits_for(close("acme").await), "the approval of a second person");
    world.vault().expire().await.expect("runs");
    assert!(world.plays(id).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_round_the_second_person_by_a_policy_or_a_key() {
    let world = world(CAREFUL).await;
    let id = world.record("acme", ONE).await;
    world.wait(30 * DAY_MS).await;
    let set = |policy: &'static str, confirm| {
        let vault = world.vault();
        async move { vault.set_policy(&admin("anna"), "acme", &policy.into(), confirm).await.map(|policy| policy.name) }
    };
    // A policy whose purge takes nobody else, and one by which everything is due.
    let due = r#"
name = "due"
margin = "48h"
parties = "owner"
[purge]
approval = "second-person"
cooling_off = "72h"
[[keep]]
what = "both"
not_after = "10d after end"
"#;
    for policy in ["cloudtalk", due] {
        assert!(matches!(set(policy, "").await, Err(Error::Invalid { field: "confirm", .. })), "{policy}");
        assert_eq!(waits_for(set(policy, "acme").await), "the approval of a second person", "{policy}");
        assert!(matches!(world.vault().approve(&admin("anna"), "acme").await, Err(Error::NotPermitted { .. })));
        assert_eq!(world.vault().policy("acme").expect("a policy").name, "careful");
        world.vault().withdraw(&admin("anna"), "acme").await.expect("withdrawn");
    }
    world.vault().expire().await.expect("runs");
    assert!(world.plays(id).await);
    // The control: with a second person, and in its time. Meanwhile no other policy slips in.
    waits_for(set(due, "acme").await);
    world.vault().approve(&admin("bob"), "acme").await.expect("approved");
    assert!(matches!(set(CAREFUL, "").await, Err(Error::Refused { .. })), "one waits already");
    world.wait(73 * HOUR_MS).await;
    assert_eq!(world.vault().policy("acme").expect("a policy").name, "due");
    world.vault().expire().await.expect("runs");
    assert!(!world.plays(id).await);

    let key = quietus::vault::Actor {
        role: quietus::vault::ActorRole::ApiKey,
        scope: Scope::Tenants(vec!["acme".into()]),
        name: "key/0123456789abcdef".into(),
        ..admin("anna")
    };
    let purge = world.vault().erase(&key, Target::Tenant { tenant: "acme".into() }, None).await;
    assert!(matches!(purge, Err(Error::NotPermitted { .. })), "whoever made the key could approve it");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ahead_ends_no_floor() {
    const YEARS: i64 = 10 * 366 * DAY_MS;
    let floored = r#"
name = "floored"
margin = "48h"
parties = "owner"
[[keep]]
what = "both"
not_after = "6y after end"
[[floor]]
what = "both"
keep_at_least = "5y after end"
ground = "a duty"
"#;
    let mut world = world(floored).await;
    let id = world.record("acme", ONE).await;
    assert!(matches!(world.purge("acme").await, Err(Error::Parked { until: Some(_), .. })), "the floor keeps it");
    world.clock.advance_ms(YEARS);
    for witness in [Some(-YEARS), None] {
        world.clock.set_witness_ahead(witness);
        world.vault().housekeep().await.expect("the daily work");
        assert!(matches!(world.erase_recording(id).await, Err(Error::Floor { .. })));
        assert!(world.plays(id).await);
        world.reopen().await;
    }
    // The control: it is witnessed that the duty has ended.
    world.clock.set_witness_ahead(Some(0));
    world.wait(2 * HOUR_MS).await;
    assert!(!world.plays(id).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ahead_destroys_nothing() {
    const YEARS: i64 = 10 * 366 * DAY_MS;
    let world = world(CAREFUL).await;
    let open = world.call("acme", ONE, &[]);
    let again = || quietus::vault::Open {
        client_id: open.client_id.clone(),
        start: open.start,
        ..world.call("acme", ONE, &[])
    };
    let id = world.send(again()).await.expect("recorded");
    world.tenant("other", "dev").await;
    let expiring = world.record("other", TWO).await;
    waits_for(world.purge("acme").await);
    world.vault().approve(&admin("bob"), "acme").await.expect("approved");

    world.clock.advance_ms(YEARS);
    for witness in [Some(-YEARS), None] {
        world.clock.set_witness_ahead(witness);
        world.vault().housekeep().await.expect("the daily work");
        world.vault().expire().await.expect("runs");
        assert!(world.vault().status().expiry.clock_disagrees);
        assert!(world.plays(id).await, "the cooling-off time is not over");
        assert!(world.plays(expiring).await, "nothing expires");
        let refused = world.vault().deactivate_subscriber(&admin("anna"), "acme", ONE).await;
        assert!(matches!(refused, Err(Error::Storage(_))), "no time is written down that policies go by");
    }
    // Right again: the client id was not forgotten meanwhile, so a late retry makes no second recording.
    world.clock.advance_ms(-YEARS);
    world.clock.set_witness_ahead(Some(0));
    let ingest = world.vault().record(again()).await.expect("opened");
    assert!(ingest.opened().already_finished && ingest.opened().id == id);
    drop(ingest);
    let acme = logged(&world, &TailOf::Tenant("acme".into()));
    assert!(acme.contains(&(Action::TenantCreate, Outcome::Done)), "evidence was not forgotten: {acme:?}");

    // The control: once it is witnessed that the time has come, all of it goes.
    world.wait(73 * HOUR_MS).await;
    assert!(!world.plays(id).await);
    world.wait(YEARS).await;
    world.vault().expire().await.expect("runs");
    assert!(!world.plays(expiring).await);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_account_takes_nothing_and_its_people_read_on() {
    let world = world("circleloop").await;
    let id = world.record("acme", ONE).await;
    world.vault().close_tenant(&admin("anna"), "acme", "").await.expect("a grace needs no second word");
    let refused = world.send(world.call("acme", ONE, &[])).await;
    assert!(matches!(refused, Err(Error::Refused { why }) if why.contains("closed")));
    assert!(world.plays(id).await);
    world.vault().recording(&admin("anna"), id, "").await.expect("facts are shown");
    // Closing again changes nothing, its moment least of all.
    let closed = world.vault().tenant("acme").expect("a tenant").state;
    world.wait(DAY_MS).await;
    world.vault().close_tenant(&admin("anna"), "acme", "").await.expect("again");
    assert_eq!(world.vault().tenant("acme").expect("a tenant").state, closed);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_restricted_is_kept_unheard_and_neither_erased_nor_expired_until_it_is_lifted() {
    let world = world("dev").await;
    let id = world.record("acme", ONE).await;
    let beside = world.record("acme", TWO).await;
    for what in
        [|| Restrict::Tenant("acme".into()), || Restrict::Subscriber { tenant: "acme".into(), subscriber: ONE.into() }]
    {
        world.vault().restrict(&admin("anna"), what(), true).await.expect("restricted");
        assert!(matches!(world.play(id).await, Err(Error::Restricted)));
        assert!(matches!(world.erase_recording(id).await, Err(Error::Restricted)));
        world.vault().restrict(&admin("anna"), what(), false).await.expect("lifted");
        assert!(world.plays(id).await);
    }
    world.vault().restrict(&admin("anna"), Restrict::Recording(id), true).await.expect("restricted");
    assert!(matches!(world.play(id).await, Err(Error::Restricted)));
    world.wait(400 * DAY_MS).await;
    world.vault().expire().await.expect("runs");
    assert!(!world.plays(beside).await, "the control: a year is over");
    assert_eq!(world.vault().status().expiry.late_recordings, 0, "a restriction is no lateness");
    assert!(matches!(world.play(id).await, Err(Error::Restricted)), "kept");
    world.vault().restrict(&admin("anna"), Restrict::Recording(id), false).await.expect("lifted");
    world.vault().expire().await.expect("runs");
    assert!(!world.plays(id).await, "its time had come meanwhile");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_state_is_an_entry_of_the_log() {
    let world = world("uk-mifid").await;
    let id = world.record("acme", ONE).await;
    let anna = admin("anna");
    let subscriber = || TailOf::Subscriber { tenant: "acme".into(), subscriber: ONE.into() };

    // A floor refuses, and that somebody asked is logged.
    assert!(matches!(world.erase_recording(id).await, Err(Error::Floor { .. })));
    for on in [true, false] {
        world.vault().restrict(&anna, Restrict::Recording(id), on).await.expect("set");
        let whom = Restrict::Subscriber { tenant: "acme".into(), subscriber: ONE.into() };
        world.vault().restrict(&anna, whom, on).await.expect("set");
        world.vault().restrict(&anna, Restrict::Tenant("acme".into()), on).await.expect("set");
    }
    let recording = logged(&world, &TailOf::Recording(id));
    for action in [Action::RecordingRestrict, Action::RecordingUnrestrict] {
        assert!(recording.contains(&(action, Outcome::Done)), "{action:?} in {recording:?}");
    }
    assert!(recording.contains(&(Action::EraseRequest, Outcome::Refused)), "{recording:?}");

    let placed = hold(&world, HoldScope::Subscriber(ONE.into())).await;
    let next = world.now().plus_ms(30 * DAY_MS);
    world.vault().review_hold(&anna, placed, next).await.expect("reviewed");
    world.vault().lift_hold(&anna, placed).await.expect("lifted");
    world.vault().deactivate_subscriber(&anna, "acme", ONE).await.expect("deactivated");
    // What changes nothing is no entry.
    world.vault().deactivate_subscriber(&anna, "acme", ONE).await.expect("again");
    let entries = world.vault().tail(&Scope::All, &subscriber(), None, 1000).expect("a log");
    let count = |action| entries.iter().filter(|entry| entry.action == action).count();
    for action in [
        Action::SubscriberRestrict,
        Action::SubscriberUnrestrict,
        Action::HoldPlace,
        Action::HoldReview,
        Action::HoldLift,
        Action::SubscriberDeactivate,
    ] {
        assert_eq!(count(action), 1, "{action:?}");
    }
    for entry in entries.iter().filter(|entry| matches!(entry.action, Action::HoldPlace | Action::HoldLift)) {
        assert_eq!((entry.reference, entry.actor.as_str()), (Some(placed.0), "admin/anna"));
        assert!(matches!(&entry.subject, SubjectView::Open { subscriber: Some(name), .. } if name == ONE));
    }

    waits_for(world.purge("acme").await);
    world.vault().approve(&admin("bob"), "acme").await.expect("approved");
    world.vault().withdraw(&anna, "acme").await.expect("withdrawn");
    world.vault().close_tenant(&anna, "acme", "").await.expect("closed");
    let acme = logged(&world, &TailOf::Tenant("acme".into()));
    for entry in [
        (Action::TenantRestrict, Outcome::Done),
        (Action::TenantUnrestrict, Outcome::Done),
        (Action::TransitionRequest, Outcome::Parked),
        (Action::TransitionApprove, Outcome::Done),
        (Action::TransitionWithdraw, Outcome::Done),
        (Action::TenantClose, Outcome::Done),
    ] {
        assert!(acme.contains(&entry), "{entry:?} in {acme:?}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_parks_and_a_name_that_may_come_again_are_entries_too() {
    let world = world("dev").await;
    let id = world.record("acme", ONE).await;
    let held = hold(&world, HoldScope::Tenant).await;
    waits_for(world.erase_recording(id).await);
    let entries = world.vault().tail(&Scope::All, &TailOf::Recording(id), None, 1000).expect("a log");
    let parked = entries.iter().find(|entry| entry.action == Action::ErasePark).expect("it is logged");
    assert_eq!((parked.outcome, parked.reference), (Outcome::Parked, Some(held.0)));
    world.vault().lift_hold(&admin("anna"), held).await.expect("lifted");

    let block = Target::Subscriber { tenant: "acme".into(), subscriber: ONE.into(), block: true };
    world.erase(block).await.expect("erased");
    assert!(matches!(world.send(world.call("acme", ONE, &[])).await, Err(Error::Refused { .. })));
    world.vault().unblock(&admin("anna"), "acme", ONE).await.expect("unblocked");
    world.record("acme", ONE).await;
    let acme = logged(&world, &TailOf::Tenant("acme".into()));
    assert!(acme.contains(&(Action::SubscriberUnblock, Outcome::Done)), "{acme:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_groups_log_names_nobody_of_a_tenant_that_purged_itself() {
    let world = world("dev").await;
    world.record("acme", ONE).await;
    let own = quietus::vault::Actor { scope: Scope::Tenants(vec!["acme".into()]), ..admin("owner-of-acme") };
    world.vault().erase(&own, Target::Tenant { tenant: "acme".into() }, None).await.expect("purged");
    let entries = world.vault().tail(&Scope::All, &TailOf::Group, None, 1000).expect("a log");
    let purge = entries.iter().find(|entry| entry.action == Action::TenantPurge).expect("it is logged");
    assert_eq!(purge.actor, "admin", "the name would outlive the tenant");

    world.tenant("other", "dev").await;
    world.purge("other").await.expect("purged");
    let entries = world.vault().tail(&Scope::All, &TailOf::Group, None, 1000).expect("a log");
    let purge = entries.iter().rfind(|entry| entry.action == Action::TenantPurge).expect("it is logged");
    assert_eq!(purge.actor, "admin/anna", "the control: the provider's administration is named");
    world.close().await;
}
