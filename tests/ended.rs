//! What is left of accounts and subscribers that have ended goes by itself: read from the bytes that remain, with every copy
//! that was ever made, and the slot as it is at the end. Through the library, on a clock that the test moves.

#[path = "common/rehearsal.rs"]
mod rehearsal;

use quietus::{
    audit::{SigningKey, receipt::State, verify},
    domain::audit::{Action, Outcome},
    vault::{
        Error, HoldScope, InboxAbout, KeyRole, KeySecret, NewApiKey, NewHold, Scope, TailOf, Target, TenantState,
        VaultConfig,
    },
};
use rehearsal::{DAY_MS, World, admin};
use std::sync::Arc;

const TENANT: &str = "acme-of-doncaster";
const ONE: &str = "+441632960001";
const TWO: &str = "+441632960002";
const KEY_NAME: &str = "the crm of acme";

async fn world(policy: &str) -> World {
    let config =
        VaultConfig { signing_key: Some(Arc::new(SigningKey::of_this_run("uk+eu"))), ..VaultConfig::default() };
    let world = World::new(config).await;
    world.tenant(TENANT, policy).await;
    world
}

/// Moves the clock, lets go what is due, and does the daily work behind it.
async fn pass(world: &World, ms: i64) {
    world.clock.advance_ms(ms);
    world.vault().expire().await.expect("runs");
    world.vault().housekeep().await.expect("the daily work");
}

fn lives(world: &World) -> bool {
    match world.vault().tenant(TENANT) {
        Ok(_) => true,
        Err(Error::Unknown { what: "tenant" }) => false,
        Err(other) => panic!("neither lives nor is gone: {other}"),
    }
}

async fn hold(world: &World) -> quietus::domain::id::HoldId {
    let new = NewHold {
        tenant: TENANT.into(),
        scope: HoldScope::Tenant,
        ground: "litigation".into(),
        authority: "county court, case 17".into(),
        review: world.now().plus_ms(365 * DAY_MS),
    };
    world.vault().place_hold(&admin("anna"), new).await.expect("placed").hold.id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_account_is_forgotten_with_its_names_when_nothing_recorded_is_left() {
    let world = world("circleloop").await;
    world.record(TENANT, ONE).await;
    world.record(TENANT, TWO).await;
    let (tenant, name, secret) = (TENANT.into(), KEY_NAME.into(), KeySecret::Drawn);
    let new = NewApiKey { tenant, name, role: KeyRole::Auditor, secret };
    world.vault().create_api_key(&admin("anna"), new).await.expect("made");
    world.vault().close_tenant(&admin("anna"), TENANT, "").await.expect("closed");
    let names = [TENANT, ONE, TWO, KEY_NAME];
    let mut copies = vec![world.copy("closed", true)];
    assert_eq!(rehearsal::found(&world.attack(&[], &names)), names, "the control: closed, it can all be read");

    // Everything recorded has gone a margin ahead of its promise; the customer still finds what opens the receipts.
    pass(&world, 88 * DAY_MS).await;
    pass(&world, 60_000).await;
    let recorded = world.vault().status().expiry.expired;
    assert_eq!(recorded, 2);
    assert!(lives(&world));
    let items = world.vault().inbox(&admin("anna"), TENANT, 10, "").await.expect("read").0;
    assert!(items.iter().any(|item| matches!(item.about, InboxAbout::Receipt(..))));
    assert!(!world.vault().statistics(TENANT).expect("counted").is_empty());
    copies.push(world.copy("expired", true));

    pass(&world, 3 * DAY_MS).await;
    assert!(!lives(&world), "91 days after the close");
    let group = world.vault().tail(&Scope::All, &TailOf::Group, None, 1000).expect("a log");
    let purge = group.iter().find(|entry| entry.action == Action::TenantPurge).expect("it is logged");
    assert_eq!((purge.outcome, purge.actor.as_str()), (Outcome::Done, "gateway"));
    let receipts = world.vault().receipts(&Scope::All, None, false, None, 100).expect("listed");
    let receipt = receipts.iter().find(|receipt| Some(receipt.id.0) == purge.reference).expect("a receipt");
    let text = world.vault().receipt(receipt.id).expect("known").text.expect("stated");
    let key = world.vault().verifier_key().parse().expect("a key");
    assert_eq!(verify::verify(&text, &key, None).expect("it holds").statement.state, State::Destroyed);

    world.swept().await;
    for copy in &copies {
        std::fs::remove_dir_all(copy.join("slot")).expect("the slot of before is gone");
    }
    copies.push(world.copy("after", false));
    assert!(rehearsal::found(&world.attack(&copies, &names)).is_empty(), "a copy of any time tells a name");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_account_that_something_keeps_stays_until_that_is_gone() {
    let world = world("circleloop").await;
    world.record(TENANT, ONE).await;
    world.vault().close_tenant(&admin("anna"), TENANT, "").await.expect("closed");
    pass(&world, 88 * DAY_MS + 60_000).await;
    let held = hold(&world).await;
    pass(&world, 100 * DAY_MS).await;
    assert!(lives(&world), "held");
    world.vault().lift_hold(&admin("anna"), held).await.expect("lifted");

    let anna = admin("anna");
    let restrict = |on| world.vault().restrict(&anna, quietus::vault::Restrict::Tenant(TENANT.into()), on);
    restrict(true).await.expect("restricted");
    pass(&world, DAY_MS).await;
    assert!(lives(&world), "restricted");
    restrict(false).await.expect("lifted");

    // A clock that no second one agrees with forgets nothing.
    world.clock.set_witness_ahead(Some(-10 * DAY_MS));
    pass(&world, DAY_MS).await;
    assert!(lives(&world), "not witnessed");
    world.clock.set_witness_ahead(Some(0));
    pass(&world, 60_000).await;
    assert!(!lives(&world), "the control: nothing keeps it any more");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_waits_and_is_overtaken_by_the_end_of_the_account_has_its_receipt() {
    const CAREFUL: &str = r#"
name = "careful"
margin = "48h"
parties = "owner"
[purge]
approval = "second-person"
cooling_off = "72h"
[[keep]]
what = "both"
not_after = "90d after close"
"#;
    let world = world(CAREFUL).await;
    world.record(TENANT, ONE).await;
    world.vault().close_tenant(&admin("anna"), TENANT, "").await.expect("closed");
    let target = Target::Tenant { tenant: TENANT.into() };
    let Err(Error::Parked { receipt: Some(promised), .. }) =
        world.vault().erase(&admin("anna"), target, Some([7; 32])).await
    else {
        panic!("it waits for a second person");
    };
    pass(&world, 91 * DAY_MS).await;
    pass(&world, 60_000).await;
    assert!(!lives(&world));
    let text = world.vault().receipt(promised.id).expect("known").text.expect("stated");
    let key = world.vault().verifier_key().parse().expect("a key");
    let scope = format!("tenant {TENANT}");
    assert!(verify::verify(&text, &key, Some((&[7; 32], &scope))).is_ok());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_of_which_no_rule_speaks_is_no_purge() {
    let world = world("uk-mifid").await;
    world.vault().close_tenant(&admin("anna"), TENANT, "").await.expect("closed");
    pass(&world, 29 * DAY_MS).await;
    assert!(matches!(world.vault().tenant(TENANT).expect("it stays").state, TenantState::Closed { .. }));
    pass(&world, 2 * DAY_MS).await;
    assert!(!lives(&world), "nothing was recorded, and nothing is kept");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deactivated_subscriber_is_forgotten_when_nothing_is_left_of_it() {
    let world = world("broadcloud").await;
    let call = world.record(TENANT, ONE).await;
    let kept = world.record(TENANT, TWO).await;
    world.vault().deactivate_subscriber(&admin("anna"), TENANT, ONE).await.expect("deactivated");
    let control = world.copy("before", true);
    assert_eq!(rehearsal::found(&world.attack(&[], &[ONE])), [ONE], "the control");
    let subscriber = async |name| world.vault().subscriber(&admin("anna"), TENANT, name, "").await;
    pass(&world, 10 * DAY_MS).await;
    assert!(world.plays(call).await && subscriber(ONE).await.is_ok(), "its calls are kept for 40 days");
    pass(&world, 31 * DAY_MS).await;
    pass(&world, 2 * 3_600_000).await;
    assert!(matches!(subscriber(ONE).await, Err(Error::Unknown { what: "subscriber" })));
    assert!(subscriber(TWO).await.is_ok(), "the control: active, it stays without a recording");
    assert!(!world.plays(kept).await);

    // It has a receipt, and nothing is left that opens it: numbers could be tried.
    let tail = world.vault().tail(&Scope::All, &TailOf::Tenant(TENANT.into()), None, 1000).expect("a log");
    let done = tail.iter().rfind(|entry| entry.action == Action::EraseDone).expect("it is logged");
    let id = quietus::domain::id::ReceiptId(done.reference.expect("a receipt"));
    let text = world.vault().receipt(id).expect("known").text.expect("stated");
    assert!(text.contains("about: subscriber"));
    let items = world.vault().inbox(&admin("anna"), TENANT, 100, "").await.expect("read").0;
    assert!(!items.is_empty(), "the control: those of what expired are there");
    assert!(items.iter().all(|item| !matches!(&item.about, InboxAbout::Receipt(told, _) if *told == id)));
    std::fs::remove_dir_all(control.join("slot")).expect("the slot of before is gone");
    world.swept().await;
    assert!(rehearsal::found(&world.attack(&[control], &[ONE])).is_empty());
    world.close().await;
}
