//! What cannot be seen from outside about listening: what memory keeps of it, and how its places are shared.

use super::{
    basis::{call, recorded, run, until},
    *,
};
use crate::{
    domain::id::TenantHandle,
    vault::{Part, audit::About, permission::At, playback::MAX_PLAYBACKS_OF_ONE},
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
