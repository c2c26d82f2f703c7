//! What cannot be seen from outside about listening: what memory keeps of it, and how its places are shared.

use super::{
    basis::{call, recorded, until},
    *,
};
use crate::{
    domain::id::TenantHandle,
    keys::{Parts, RecordingPath},
    vault::{
        Part, audit::About, clearance::Wanted, erasure::Batch, permission::At, playback::MAX_PLAYBACKS_OF_ONE,
        sessions::Cut,
    },
};
use std::cell::Cell;

const ALL: PlayRange = PlayRange::Bytes { start: 0, end: None };
const LISTEN: Hearing = Hearing { transport: "none", download: false };

/// How much memory ties to a recording: in the log, among permissions, tickets and refusals.
fn known(vault: &Vault, at: RecordingPath) -> [usize; 4] {
    let found: [Cell<usize>; 4] = Default::default();
    let count = |map: usize, is: bool| {
        found[map].set(found[map].get() + usize::from(is));
        false
    };
    let inner = &vault.0;
    inner.log.drop_of(|about| count(0, about == About::Audio(at) || about == About::Facts(at)));
    inner.permissions.drop_of(|place| count(1, place == At::Recording(at)));
    inner.tickets.drop_of(|path| count(2, *path == at));
    inner.refusals.drop_of(|path| count(3, *path == at));
    found.map(|found| found.get())
}

#[test]
fn memory_ties_nothing_to_what_was_erased() {
    run(async |house| {
        let vault = house.vault.clone();
        let stays = recorded(&vault, call("acme", None, StatedTies::default())).await;
        let goes = recorded(&vault, call("acme", None, StatedTies::default())).await;
        let path = |id| vault.0.locate(&Scope::All, id).expect("there").path;
        let (kept, gone) = (path(stays), path(goes));
        let staff = Actor { name: "staff/sam".into(), role: ActorRole::Staff, ..developer() };
        for id in [stays, goes] {
            drop(vault.play(&developer(), Proof::default(), id, ALL, LISTEN).await.expect("plays"));
            assert!(vault.play(&staff, Proof::default(), id, ALL, LISTEN).await.is_err());
            vault.ticket(&developer(), Proof::default(), id).await.expect("issued");
            let terms = Terms { level: Level::Listen, lasts_ms: 3_600_000, later_calls: false };
            let (purpose, ticket) = ("crackling line".into(), "T-1".into());
            let new = NewPermission { over: Over::Recording(id), purpose, ticket, terms };
            vault.request_permission(&staff, new).await.expect("asked");
        }
        let before = [known(&vault, kept), known(&vault, gone)];
        assert!(before.iter().flatten().all(|ties| *ties > 0), "the control: {before:?}");
        vault.erase(&developer(), Target::Recording(goes, Part::Both), None).await.expect("erased");
        assert_eq!(known(&vault, gone), [0; 4]);
        assert_eq!(known(&vault, kept), before[0], "what is left is known as before");
        vault.drain().await;
    });
}

#[test]
fn no_tenant_takes_more_than_a_quarter_of_the_playbacks() {
    run(async |house| {
        let vault = house.vault.clone();
        let id = recorded(&vault, call("acme", None, StatedTies::default())).await;
        let at = vault.0.locate(&Scope::All, id).expect("there").path;
        let another = RecordingPath { tenant: TenantHandle(crate::crypto::random()), ..at };
        let play = async || vault.play(&developer(), Proof::default(), id, ALL, LISTEN).await.map(drop);
        let others: Vec<_> = (0..MAX_PLAYBACKS_OF_ONE).map(|_| vault.0.sessions.enter_playback(another)).collect();
        play().await.expect("the control: those are of another tenant");
        until(|| vault.0.sessions.listening(at.tenant) == 0).await;
        let own: Vec<_> = (0..MAX_PLAYBACKS_OF_ONE).map(|_| vault.0.sessions.enter_playback(at)).collect();
        assert!(matches!(play().await, Err(Error::Busy)));
        drop((own, others));
        play().await.expect("there is room again");
        vault.drain().await;
    });
}

/// The permitted view: what staff may see, and what they must not touch for it.
#[test]
fn staff_see_facts_and_no_key_of_audio_is_opened() {
    run(async |mut house| {
        house.open(0, false).await;
        house.take(Step::Data { client: 0, length: 5000 }).await;
        house.take(Step::Finish { client: 0 }).await;
        let id = house.model[&0].id;
        let (vault, keys) = (house.vault.clone(), house.vault.0.keys.clone());
        let staff = Actor { name: "staff/sam".into(), role: ActorRole::Staff, ..Actor::gateway() };
        // What runs by itself has settled.
        while vault.status().recordings_open > 0 || vault.status().replications_pending > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = keys.audio_opened();
        assert!(vault.recording(&staff, id, "T-1").await.expect("shown").facts.is_some());
        let page =
            || Page { tenant: "acme".into(), subscriber: None, size: 10, token: String::new(), ticket: "T-1".into() };
        assert_eq!(vault.recordings(&staff, page()).await.expect("listed").0.len(), 1);
        vault.explain(&staff, id, "T-1").await.expect("explained");
        vault.subscriber(&staff, "acme", "subscriber-0", "T-1").await.expect("shown");
        let all = PlayRange::Bytes { start: 0, end: None };
        let refused =
            vault.play(&staff, Proof::default(), id, all, Hearing { transport: "none", download: false }).await;
        assert!(matches!(refused, Err(Error::NotPermitted { .. })));
        assert_eq!(keys.audio_opened(), before, "not to look, and not to be refused");
        // The control: whoever may hear it opens it.
        house.play(0).await;
        assert!(keys.audio_opened() > before);
        house.vault.drain().await;
    });
}

/// Both orders of the race that `vault::permission` argues about, each made to happen.
#[test]
fn a_revocation_finds_a_playback_on_either_side_of_its_cut() {
    run(async |mut house| {
        house.open(0, false).await;
        house.take(Step::Data { client: 0, length: 5000 }).await;
        house.take(Step::Finish { client: 0 }).await;
        let id = house.model[&0].id;
        let vault = house.vault.clone();
        let staff = Actor { name: "staff/sam".into(), role: ActorRole::Staff, ..Actor::gateway() };
        let scope = Scope::Tenants(vec!["acme".into()]);
        let customer = Actor { name: "admin/anna".into(), role: ActorRole::Admin, scope, ..Actor::gateway() };
        let granted = async || {
            let terms = Terms { level: Level::Listen, lasts_ms: 3_600_000, later_calls: false };
            let over = Over::Recording(id);
            let new = NewPermission { over, purpose: "p".into(), ticket: "t".into(), terms };
            let asked = vault.request_permission(&staff, new).await.expect("asked").id;
            vault.grant_permission(&customer, asked, Narrower::default()).await.expect("granted").id
        };
        let path = vault.0.locate(&Scope::All, id).expect("located").path;

        // The cut looks before the session says what it rests on: the second look finds the revocation.
        let grant = granted().await;
        let guard = vault.0.sessions.enter_playback(path);
        let revoked = || {
            let revoke = async { vault.revoke_permission(&customer, grant).await.expect("revoked") };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(revoke));
        };
        let admitted = vault.0.admit_after(&staff, &guard, revoked);
        assert!(matches!(admitted, Err(Error::NotPermitted { .. })), "let in under what was revoked and answered");
        drop(guard);

        // The session says it first: it is cut, and the revocation waits until it has left.
        let grant = granted().await;
        let guard = vault.0.sessions.enter_playback(path);
        let admitted = vault.0.admit(&staff, &guard);
        assert_eq!(admitted.ok().and_then(|admitted| admitted.id()), Some(grant));
        let revoking = tokio::spawn({
            let (vault, customer) = (vault.clone(), customer.clone());
            async move { vault.revoke_permission(&customer, grant).await }
        });
        guard.cut().await;
        assert!(!revoking.is_finished(), "answered while somebody is inside");
        drop(guard);
        revoking.await.expect("ran").expect("revoked");
        house.vault.drain().await;
    });
}

/// Who listens opens no facts: it is not their erasure that cuts anybody off the audio.
#[test]
fn an_erasure_of_facts_leaves_whoever_listens_and_one_of_audio_does_not() {
    run(async |mut house| {
        for client in 0..2 {
            house.open(client, false).await;
            house.take(Step::Data { client, length: 5000 }).await;
            house.take(Step::Finish { client }).await;
        }
        let vault = house.vault.clone();
        let place = |client: u8| vault.0.locate(&Scope::All, house.model[&client].id).expect("located").path;
        let (asked, batched) = (place(0), place(1));
        let erase = |id, part| {
            let vault = vault.clone();
            tokio::spawn(async move { vault.erase(&Actor::gateway(), Target::Recording(id, part), None).await })
        };
        let clear = async |parts| {
            let cleared = vault.0.clear(vec![Wanted::Recording(batched, parts)]).await.expect("asked");
            cleared.clearance.expect("free")
        };

        let guards = [vault.0.sessions.enter_playback(asked), vault.0.sessions.enter_playback(batched)];
        erase(house.model[&0].id, Part::Facts).await.expect("ran").expect("erased");
        vault.0.erase_batch(&Actor::gateway(), clear(Parts::FACTS).await, Batch::Expired).await.expect("erased");
        assert!(guards.iter().all(|guard| !guard.is_cut()));
        assert!([asked, batched].iter().all(|at| {
            let entry = vault.0.keys.entry(*at).expect("read").expect("there");
            entry.audio_present && !entry.facts_present
        }));

        // The control: what takes the audio waits until they have left.
        let [listens, hears] = guards;
        let erasing = erase(house.model[&0].id, Part::Both);
        assert_eq!(listens.cut().await, Cut::Erased);
        assert!(!erasing.is_finished(), "answered while somebody is inside");
        drop(listens);
        erasing.await.expect("ran").expect("erased");
        let (inner, clearance) = (vault.0.clone(), clear(Parts::BOTH).await);
        let erasing =
            tokio::spawn(
                async move { inner.erase_batch(&Actor::gateway(), clearance, Batch::Expired).await.map(drop) },
            );
        assert_eq!(hears.cut().await, Cut::Erased);
        assert!(!erasing.is_finished(), "answered while somebody is inside");
        drop(hears);
        erasing.await.expect("ran").expect("erased");
        house.vault.drain().await;
    });
}
