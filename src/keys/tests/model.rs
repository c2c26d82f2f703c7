//! The plain truth: what lives, and what was erased.

use super::{
    super::*,
    attacker::{Haul, Key},
    medium::Disk,
};
use crate::{domain::time::Minute, keys::PassedOver};
use std::collections::{BTreeMap, BTreeSet, HashSet};

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Model {
    pub tenants: BTreeMap<TenantHandle, Tenant>,
    /// Leaves of the audit log.
    pub log: Vec<Vec<u8>>,
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
    /// None when it was erased, and when somebody was whom it is bound to.
    pub audio: Option<Key>,
    pub facts: Option<Key>,
    pub objects: BTreeSet<ObjectId>,
    pub keeping: Keeping,
    pub parent: Option<RecordingHandle>,
    pub children: Vec<RecordingHandle>,
    pub parties: Vec<SubscriberHandle>,
    pub wrapped: bool,
    pub held: Held,
}

/// Which leaves the page holds, dead or not. No reader tells it of a dead one, so it takes no part in comparisons.
#[derive(Clone, Copy, Debug)]
pub struct Held(pub Parts);

impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Recording {
    pub fn due(&self) -> Minute {
        self.keeping.due(self.held.0.audio, self.held.0.facts)
    }
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
        for number in 0..keys.log_size() {
            model.log.push(keys.log_leaf(number).expect("reads").expect("a leaf of the log is there"));
        }
        assert!(keys.log_leaf(keys.log_size()).expect("reads").is_none());
        model
    }

    pub fn recordings(&self) -> impl Iterator<Item = (RecordingPath, &Recording)> + Clone {
        self.tenants.iter().flat_map(|(tenant, below)| {
            below.subscribers.iter().flat_map(|(subscriber, below)| {
                below.recordings.iter().map(|(recording, own)| {
                    (RecordingPath { tenant: *tenant, subscriber: *subscriber, recording: *recording }, own)
                })
            })
        })
    }

    /// Takes a subscriber out; what was wrapped for it dies.
    pub fn erase_subscriber(&mut self, tenant: TenantHandle, subscriber: SubscriberHandle) {
        let Some(tenant) = self.tenants.get_mut(&tenant) else { return };
        tenant.subscribers.remove(&subscriber);
        let recordings = tenant.subscribers.values_mut().flat_map(|own| own.recordings.values_mut());
        for recording in recordings.filter(|recording| recording.wrapped && recording.parties.contains(&subscriber)) {
            (recording.audio, recording.facts) = (None, None);
            recording.objects.clear();
        }
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
    let mut living = Vec::new();
    let mut after = None;
    loop {
        // Two at a time, so that the continuation is tested too.
        let entries = keys.entries(tenant, subscriber, after, 2).expect("reads");
        let Some((last, _)) = entries.last() else { break };
        assert!(after.is_none_or(|after| after < entries[0].0));
        after = Some(*last);
        for (handle, entry) in entries {
            let at = RecordingPath { tenant, subscriber, recording: handle };
            assert_eq!(keys.entry(at).expect("reads").as_ref(), Some(&entry));
            let audio = keys.audio_leaf(at).expect("reads");
            let facts = keys.facts_leaf(at).expect("reads");
            assert_eq!(audio.is_some(), entry.audio_present || entry.facts_present, "a dead one has no leaf");
            if audio.is_some() {
                living.push(handle);
            }
            let audio = audio.map(|leaf| (leaf.audio, leaf.objects));
            let (audio, objects) = audio.unwrap_or_default();
            let facts = facts.and_then(|leaf| leaf.facts);
            assert_eq!((audio.is_some(), facts.is_some()), (entry.audio_present, entry.facts_present));
            let recording = Recording {
                row: entry.row,
                audio: audio.map(|secret| *secret.expose()),
                facts: facts.map(|secret| *secret.expose()),
                objects: objects.into_iter().collect(),
                keeping: entry.keeping,
                parent: entry.parent,
                children: entry.children,
                parties: entry.parties,
                wrapped: entry.wrapped,
                held: Held(Parts::BOTH),
            };
            found.insert(handle, recording);
        }
    }
    let listed = keys.facts_leaves(tenant, subscriber, None, usize::MAX).expect("reads");
    assert!(listed.iter().map(|leaf| leaf.recording).eq(living), "exactly what lives is listed");
    found
}

/// What is due by the truth, at every minute that makes a difference; who is bound; the tree over the log.
pub fn check_found(keys: &KeyStore, model: &Model) {
    let nobody = PassedOver::new();
    let mut minutes: BTreeSet<Minute> = model.recordings().map(|(_, recording)| recording.due()).collect();
    minutes.insert(Minute::NONE);
    minutes.remove(&Minute::NEVER);
    for now in minutes {
        let due: BTreeSet<RecordingPath> =
            model.recordings().filter(|(_, recording)| recording.due() <= now).map(|(at, _)| at).collect();
        let found = keys.due(now, usize::MAX, &nobody, None).expect("reads");
        assert!(found.iter().all(|due| keys.entry(due.at).expect("reads").as_ref() == Some(&due.entry)));
        assert!(found.iter().map(|due| due.at).collect::<BTreeSet<_>>() == due && found.len() == due.len());
        let mut by_two: Vec<RecordingPath> = Vec::new();
        loop {
            let some = keys.due(now, 2, &nobody, by_two.last().copied()).expect("reads");
            assert_eq!(some.len(), (due.len() - by_two.len()).min(2));
            by_two.extend(some.iter().map(|due| due.at));
            if some.is_empty() {
                break;
            }
        }
        assert!(by_two.into_iter().eq(found.iter().map(|due| due.at)));
        // Behind what is not there.
        let (tenant, subscriber) = (TenantHandle([0x80; 8]), SubscriberHandle([0x80; 8]));
        let nowhere = RecordingPath { tenant, subscriber, recording: RecordingHandle([0x80; 16]) };
        let behind: Vec<_> = keys.due(now, usize::MAX, &nobody, Some(nowhere)).expect("reads");
        let others = found.iter().map(|due| due.at).filter(|at| at.tenant > nowhere.tenant);
        assert!(behind.iter().map(|due| due.at).eq(others));
        let Some(one) = due.first() else { continue };
        let passed = PassedOver::from([(one.tenant, Some(one.subscriber))]);
        let others = due.iter().filter(|at| !passed.contains(&(at.tenant, Some(at.subscriber)))).count();
        assert_eq!(keys.due(now, usize::MAX, &passed, None).expect("reads").len(), others);
    }
    let first = |tenant: Option<TenantHandle>| {
        let own = model.recordings().filter(|(at, _)| tenant.is_none_or(|tenant| at.tenant == tenant));
        own.map(|(_, recording)| recording.due()).min().unwrap_or(Minute::NEVER)
    };
    assert_eq!(keys.next_due(None).expect("reads"), first(None));
    for (tenant, below) in &model.tenants {
        assert_eq!(keys.next_due(Some(*tenant)).expect("reads"), first(Some(*tenant)));
        for subscriber in below.subscribers.keys() {
            let binds = |recording: &Recording| {
                recording.wrapped
                    && recording.parties.contains(subscriber)
                    && recording.audio.or(recording.facts).is_some()
            };
            let bound: BTreeSet<_> =
                model.recordings().filter(|(at, own)| at.tenant == *tenant && binds(own)).map(|(at, _)| at).collect();
            let found = keys.bound(*tenant, *subscriber).expect("reads");
            assert!(found.iter().copied().collect::<BTreeSet<_>>() == bound && found.len() == bound.len());
        }
    }
    let size = keys.log_size();
    if size > 0 {
        let needed = tlog_tiles::tlog::sub_tree_index(0, size, Vec::new());
        assert_eq!(keys.log_hashes(&needed).expect("reads").len(), needed.len());
        assert_eq!(super::log::root_by_the_store(keys, size), super::log::root_by_hand(&model.log));
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
