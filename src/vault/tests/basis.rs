//! What cannot be made to happen from outside about consent, binding and parents: a stop in the midst, and what comes
//! between an erasure's look and its commit.

use super::*;
use crate::{
    domain::{
        basis::{Basis, Footing},
        time::Minute,
    },
    keys::{Mutation, Parts, RecordingPath},
    vault::{StatedBasis, StatedTies, clearance::Wanted},
};

const ANY: &str = "name = \"any\"\nsummary = \"for a test\"\nmargin = \"1h\"\nparties = \"any\"\nsweep_deadline = \"30d\"\n\
                   [[keep]]\nwhat = \"both\"\nnot_after = \"90d after end\"\n";

pub(super) fn call(tenant: &str, basis: Option<Basis>, ties: StatedTies) -> Open {
    Open {
        tenant: tenant.to_owned(),
        subscriber: "ada".to_owned(),
        kind: Kind::Call,
        mode: Mode::Spooled,
        media_type: "audio/PCMA;rate=8000".to_owned(),
        client_id: crate::crypto::random::<16>().to_vec(),
        start: Some(Clock::system().now()),
        length_hint: None,
        facts: StatedFacts::default(),
        basis: StatedBasis { basis, ..StatedBasis::default() },
        ties,
    }
}

pub(super) async fn recorded(vault: &Vault, open: Open) -> RecordingId {
    let mut ingest = vault.record(open).await.expect("opened");
    ingest.data(0, audio(1, 0, 3000)).await.expect("taken");
    ingest.finish(Finish { length: 3000, sha256: None, end: None }).await.expect("finished");
    ingest.progress().wait_for(|progress| progress.finished.is_some()).await.expect("stored");
    ingest.opened().id
}

fn path(vault: &Vault, id: RecordingId) -> RecordingPath {
    vault.0.locate(&Scope::All, id).expect("located").path
}

fn footing(vault: &Vault, at: RecordingPath) -> Option<Footing> {
    let entry = vault.0.keys.entry(at).expect("reads")?;
    entry.lives().then(|| Footing::from_number(entry.keeping.basis)).flatten()
}

/// Waits until what the last command began by itself is done.
pub(super) async fn until(mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "it did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that ends when the withdrawal is durable and nothing else of it is done.
#[test]
fn a_withdrawal_that_was_cut_off_is_finished_by_the_next_start() {
    run(async |mut house| {
        let on = |basis| call("acme", Some(basis), StatedTies::default());
        let gone = recorded(&house.vault, on(Basis::Consent)).await;
        let stays = recorded(&house.vault, on(Basis::Contract)).await;
        let open = on(Basis::Consent);
        let (client_id, start) = (open.client_id.clone(), open.start);
        let mut left_open = house.vault.record(open).await.expect("opened");
        left_open.data(0, audio(1, 0, 1000)).await.expect("taken");
        let running = path(&house.vault, left_open.opened().id);
        let (at, other) = (path(&house.vault, gone), path(&house.vault, stays));
        {
            let inner = &house.vault.0;
            // No runner takes it up before the disk is copied.
            let _runner = inner.expiry.pause().await;
            let withdrawn = |state: &mut crate::proto::stored::SubscriberState| {
                state.consent_withdrawn_ms = 1;
                Ok(vec![inner.rules_changed(at.tenant)?])
            };
            inner.change_subscriber_state(at.tenant, at.subscriber, withdrawn).await.expect("changed");
            assert_eq!(footing(&house.vault, at), Some(Footing::Stands(Basis::Consent)), "not marked yet");
            let disk = house.root.join("after-the-stop");
            copy_disk(&house.disk, &disk);
        }
        drop(left_open);
        house.restart_on(house.root.join("after-the-stop")).await;
        let vault = house.vault.clone();
        // What is marked is due at once, and the runner's: it erases to the minute.
        let marked = |at| match vault.0.keys.entry(at).expect("reads").filter(|entry| entry.lives()) {
            Some(entry) => {
                let now = Minute::at_or_after(vault.now());
                footing(&vault, at) == Some(Footing::Withdrawn)
                    && entry.keeping.audio_due <= now
                    && entry.keeping.facts_due <= now
            }
            None => true,
        };
        until(|| marked(at) && marked(running)).await;
        assert_eq!(footing(&vault, other), Some(Footing::Stands(Basis::Contract)));
        let again = vault.record(Open { client_id, start, ..on(Basis::Consent) }).await;
        assert!(matches!(again.map(drop), Err(Error::Erased | Error::Refused { .. })));
        house.vault.drain().await;
    });
}

#[test]
fn a_withdrawal_opens_no_key_of_audio() {
    run(async |house| {
        let on = |basis| call("acme", Some(basis), StatedTies::default());
        for basis in [Basis::Consent, Basis::Contract, Basis::Consent] {
            recorded(&house.vault, on(basis)).await;
        }
        let (vault, keys) = (house.vault.clone(), house.vault.0.keys.clone());
        until(|| vault.status().recordings_open == 0 && vault.status().replications_pending == 0).await;
        let before = keys.audio_opened();
        let done = vault.withdraw_consent(&developer(), "acme", "ada").await.expect("withdrawn");
        assert_eq!(done.erased, 2);
        assert_eq!(keys.audio_opened(), before);
        house.vault.drain().await;
    });
}

/// A resume that looked before the withdrawal and comes in behind its cut.
#[test]
fn whoever_comes_in_behind_a_withdrawal_finds_it() {
    run(async |house| {
        let open = || call("acme", Some(Basis::Consent), StatedTies::default());
        let mut ingest = house.vault.record(open()).await.expect("opened");
        ingest.data(0, audio(1, 0, 1000)).await.expect("taken");
        let at = path(&house.vault, ingest.opened().id);
        let inner = &house.vault.0;
        inner.consent_stands(at).expect("the first look");
        let withdrawn = |state: &mut crate::proto::stored::SubscriberState| {
            state.consent_withdrawn_ms = 1;
            Ok(Vec::new())
        };
        inner.change_subscriber_state(at.tenant, at.subscriber, withdrawn).await.expect("changed");
        assert!(matches!(inner.consent_stands(at), Err(Error::Refused { .. })), "the second look, when it is inside");
        house.vault.drain().await;
    });
}

#[test]
fn what_was_bound_or_made_between_the_look_and_the_commit_is_cut() {
    run(async |house| {
        let vault = house.vault.clone();
        let new = NewTenant {
            name: "any".to_owned(),
            home: "eu-west-2".to_owned(),
            residency: Residency::HomeOnly,
            policy: ANY.into(),
        };
        vault.create_tenant(&developer(), new).await.expect("tenant");
        let bound = |name: &str| StatedTies { bound: vec![name.to_owned()], parent: None };
        let ingest = vault.record(call("any", None, bound("bob"))).await.expect("opened");
        let beside = vault.record(call("any", None, bound("eve"))).await.expect("opened");
        let parent = recorded(&vault, call("any", None, StatedTies::default())).await;
        let ties = StatedTies { bound: Vec::new(), parent: Some(parent) };
        let child = vault.record(call("any", None, ties)).await.expect("opened");
        let at = |ingest: &Ingest| path(&vault, ingest.opened().id);
        let (first, other, made) = (at(&ingest), at(&beside), at(&child));
        let (parent, tenant) = (path(&vault, parent), first.tenant);
        let bob = vault.0.keys.find_subscriber(tenant, "bob").expect("provisioned");
        // As an erasure that looked before any of them was there.
        for (wanted, expected) in
            [(Wanted::Subscriber(tenant, bob), first), (Wanted::Recording(parent, Parts::AUDIO), made)]
        {
            let cleared = vault.0.clear(vec![wanted]).await.expect("asked");
            let clearance = cleared.clearance.expect("free");
            vault.0.keys.commit(Mutation::new(clearance.changes())).await.expect("erased");
            let mut fallen = HashSet::new();
            vault.0.fell_meanwhile(wanted, &mut fallen).expect("looked");
            assert_eq!(fallen, HashSet::from([expected]), "and not {other:?}");
        }
        house.vault.drain().await;
    });
}
