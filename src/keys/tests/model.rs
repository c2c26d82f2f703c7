//! The plain truth: what lives, and what was erased.

use super::{
    super::*,
    attacker::{Haul, Key},
    medium::Disk,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Model {
    pub tenants: BTreeMap<TenantHandle, Tenant>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Tenant {
    pub name: String,
    pub row: RowId,
    pub secret: Key,
    pub subscribers: BTreeMap<SubscriberHandle, Subscriber>,
    pub periods: BTreeMap<PeriodHandle, Key>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Subscriber {
    pub name: String,
    pub row: RowId,
    pub secret: Key,
    pub recordings: BTreeMap<RecordingHandle, Recording>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Recording {
    pub row: RowId,
    pub audio: Option<Key>,
    pub facts: Option<Key>,
    pub objects: BTreeSet<ObjectId>,
}

impl Model {
    /// What the store says, through its own interface.
    pub fn of(keys: &KeyStore) -> Self {
        let mut model = Self::default();
        for (handle, name) in keys.tenants() {
            let holder = keys.tenant(handle).expect("reads").expect("a tenant in the index lives");
            let periods = keys.periods(handle).into_iter().map(|period| {
                let holder = keys.period(handle, period.handle).expect("reads").expect("a period in the index lives");
                (period.handle, *holder.secret.expose())
            });
            let subscribers = keys.subscribers(handle).into_iter().map(|(subscriber, name)| {
                let holder = keys.subscriber(handle, subscriber).expect("reads").expect("a subscriber lives");
                let recordings = recordings(keys, handle, subscriber);
                (subscriber, Subscriber { name, row: holder.row, secret: *holder.secret.expose(), recordings })
            });
            let tenant = Tenant {
                name,
                row: holder.row,
                secret: *holder.secret.expose(),
                periods: periods.collect(),
                subscribers: subscribers.collect(),
            };
            model.tenants.insert(handle, tenant);
        }
        model
    }

    pub fn secrets(&self) -> HashSet<Key> {
        let mut secrets = HashSet::new();
        for tenant in self.tenants.values() {
            secrets.insert(tenant.secret);
            secrets.extend(tenant.periods.values());
            for subscriber in tenant.subscribers.values() {
                secrets.insert(subscriber.secret);
                for recording in subscriber.recordings.values() {
                    secrets.extend([recording.audio, recording.facts].into_iter().flatten());
                }
            }
        }
        secrets
    }

    pub fn names(&self) -> HashSet<String> {
        let below = |tenant: &Tenant| tenant.subscribers.values().map(|one| one.name.clone()).collect::<Vec<_>>();
        self.tenants.values().flat_map(|tenant| [vec![tenant.name.clone()], below(tenant)].concat()).collect()
    }

    pub fn objects(&self) -> BTreeSet<ObjectId> {
        let subscribers = self.tenants.values().flat_map(|tenant| tenant.subscribers.values());
        let recordings = subscribers.flat_map(|subscriber| subscriber.recordings.values());
        recordings.flat_map(|recording| recording.objects.iter().copied()).collect()
    }
}

fn recordings(
    keys: &KeyStore,
    tenant: TenantHandle,
    subscriber: SubscriberHandle,
) -> BTreeMap<RecordingHandle, Recording> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        // Two at a time, so that the continuation is tested too.
        let leaves = keys.facts_leaves(tenant, subscriber, after, 2).expect("reads");
        let Some(last) = leaves.last() else { return found };
        assert!(after.is_none_or(|after| after < leaves[0].recording));
        after = Some(last.recording);
        for leaf in leaves {
            let at = RecordingPath { tenant, subscriber, recording: leaf.recording };
            let audio = keys.audio_leaf(at).expect("reads").expect("a listed recording lives");
            assert_eq!(audio.audio.is_some(), leaf.audio_present);
            let recording = Recording {
                row: leaf.row,
                audio: audio.audio.map(|secret| *secret.expose()),
                facts: leaf.facts.map(|secret| *secret.expose()),
                objects: audio.objects.into_iter().collect(),
            };
            found.insert(leaf.recording, recording);
        }
    }
}

/// What was forgotten, and what never was.
#[derive(Default)]
pub struct Forgotten {
    /// Secrets that were erased.
    pub secrets: HashSet<Key>,
    /// Names that were erased.
    pub names: HashSet<String>,
    /// Secrets of creates that were never acknowledged and that loss of power took: no erasure is owed to them, but their
    /// bytes may lie in the torn end of a log.
    pub ghosts: HashSet<Key>,
}

/// The guarantee and invariant I9, over every version of every row ever written.
pub fn check(disk: &Disk, model: &Model, forgotten: &Forgotten) {
    let (ever, present) = (Haul::carve(&disk.ever()), Haul::carve(&disk.present()));
    let roots = disk.roots();
    assert_eq!(roots.len(), 1, "a settled slot holds one root");

    let follows = ever.below_roots(&roots);
    let secrets = &forgotten.secrets;
    assert!(follows.secrets.is_disjoint(secrets), "an erased secret follows from old versions and the present slot");
    assert!(follows.names.is_disjoint(&forgotten.names), "an erased name follows");

    let survives = present.below_roots(&roots);
    assert!(survives.secrets == model.secrets(), "exactly what lives follows from the present rows");
    assert!(survives.names == model.names());

    for (page, key) in &survives.pages {
        let sealed = ever.closure(vec![(*page, *key)]).secrets;
        let below = present.closure(vec![(*page, *key)]).secrets;
        let astray = sealed.difference(&below).any(|secret| !forgotten.ghosts.contains(secret));
        assert!(!astray, "I9: a live key seals something that no longer lies below it");
    }
}
