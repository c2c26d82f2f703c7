//! Random histories of creates, erasures, splits, restarts and failing writes, compared with the model after every step.

use super::{
    super::*,
    attacker::Key,
    medium::{Disk, Left},
    model::{Forgotten, Held, Model, Recording, Subscriber, Tenant, check, check_found},
    open, open_with, sweep_all,
};
use crate::{crypto::random, domain::time::Minute, keys::backing::Family};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Clone, Debug)]
enum Step {
    AddTenant,
    AddSubscribers(u8, u8),
    AddPeriod(u8),
    AddRecordings(u8, u8, u8),
    /// One that is bound to so many others, wrapped or not.
    AddBound(u8, u8, bool),
    AddChild(u8),
    SetKeeping(u8, [u8; 3]),
    BindParties(u8, u8, bool),
    RenewFacts(u8),
    Log(u8),
    /// Everything at once, and then something that is refused.
    Refused(u8),
    AddObject(u8),
    DoomObject(u8),
    EraseTenant(u8),
    EraseSubscriber(u8),
    ErasePeriod(u8),
    EraseRecordings(Vec<u8>, bool, bool),
    /// An erasure and a create in one mutation.
    Replace(u8),
    Sweep(u8),
    Restart {
        power: bool,
    },
    /// The next durable step but so many fails.
    Fail {
        steps: u8,
        left: u8,
        power: bool,
        what: Box<Step>,
    },
    /// A start that fails, and another.
    FailingStart {
        steps: u8,
        left: u8,
        power: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let plain = prop_oneof![
        2 => Just(Step::AddTenant),
        4 => (any::<u8>(), 1u8..6).prop_map(|(of, count)| Step::AddSubscribers(of, count)),
        1 => any::<u8>().prop_map(Step::AddPeriod),
        8 => (any::<u8>(), 1u8..9, 0u8..3).prop_map(|(of, count, objects)| Step::AddRecordings(of, count, objects)),
        4 => (any::<u8>(), 1u8..4, any::<bool>())
            .prop_map(|(of, parties, wrapped)| Step::AddBound(of, parties, wrapped)),
        3 => any::<u8>().prop_map(Step::AddChild),
        4 => (any::<u8>(), any::<[u8; 3]>()).prop_map(|(of, what)| Step::SetKeeping(of, what)),
        2 => (any::<u8>(), 0u8..4, any::<bool>())
            .prop_map(|(of, parties, wrapped)| Step::BindParties(of, parties, wrapped)),
        1 => any::<u8>().prop_map(Step::RenewFacts),
        1 => (1u8..5).prop_map(Step::Log),
        1 => any::<u8>().prop_map(Step::Refused),
        2 => any::<u8>().prop_map(Step::AddObject),
        1 => any::<u8>().prop_map(Step::DoomObject),
        1 => any::<u8>().prop_map(Step::EraseTenant),
        3 => any::<u8>().prop_map(Step::EraseSubscriber),
        1 => any::<u8>().prop_map(Step::ErasePeriod),
        6 => (prop::collection::vec(any::<u8>(), 1..5), any::<bool>(), any::<bool>())
            .prop_map(|(which, audio, facts)| Step::EraseRecordings(which, audio, facts)),
        1 => any::<u8>().prop_map(Step::Replace),
        2 => (1u8..4).prop_map(Step::Sweep),
        1 => any::<bool>().prop_map(|power| Step::Restart { power }),
        1 => (0u8..4, 0u8..3, any::<bool>())
            .prop_map(|(steps, left, power)| Step::FailingStart { steps, left, power }),
    ];
    (plain, prop::option::weighted(0.25, (0u8..6, 0u8..3, any::<bool>()))).prop_map(|(what, fail)| match fail {
        Some((steps, left, power)) => Step::Fail { steps, left, power, what: Box::new(what) },
        None => what,
    })
}

fn left(number: u8) -> Left {
    [Left::Nothing, Left::All, Left::Half][usize::from(number)]
}

/// The store, the truth, and what may never be seen again.
struct World {
    disk: Arc<Disk>,
    keys: Option<KeyStore>,
    model: Model,
    forgotten: Forgotten,
    /// Objects the sweeper must have handed out once everything is swept.
    doomed: BTreeSet<ObjectId>,
    swept: BTreeSet<ObjectId>,
    receipts: Vec<ReceiptId>,
    counter: u32,
}

impl World {
    fn new() -> Self {
        let disk = Disk::new();
        let keys = Some(open(&disk));
        Self {
            disk,
            keys,
            model: Model::default(),
            forgotten: Forgotten::default(),
            doomed: BTreeSet::new(),
            swept: BTreeSet::new(),
            receipts: Vec::new(),
            counter: 0,
        }
    }

    fn keys(&self) -> &KeyStore {
        self.keys.as_ref().expect("it is open between steps")
    }

    fn tenant(&self, pick: u8) -> Option<TenantHandle> {
        pick_from(self.model.tenants.keys().copied(), pick)
    }

    fn subscriber(&self, pick: u8) -> Option<(TenantHandle, SubscriberHandle)> {
        let all = self.model.tenants.iter().flat_map(|(t, tenant)| tenant.subscribers.keys().map(|s| (*t, *s)));
        pick_from(all, pick)
    }

    fn recording(&self, pick: u8) -> Option<RecordingPath> {
        pick_from(self.model.recordings().map(|(at, _)| at), pick)
    }

    fn name(&mut self) -> String {
        self.counter += 1;
        format!("name-{}", self.counter)
    }

    /// A mutation and the truth after it.
    fn draw_up(&mut self, step: &Step) -> Option<(Mutation, Model)> {
        let mut after = self.model.clone();
        let mut changes = Vec::new();
        match step {
            Step::AddTenant => {
                let (tenant, row, secret, name) = (TenantHandle(random()), RowId(random()), random(), self.name());
                let (subscribers, periods) = (BTreeMap::new(), BTreeMap::new());
                after.tenants.insert(tenant, Tenant { name: name.clone(), row, secret, subscribers, periods });
                changes.push(Change::AddTenant { tenant, row, secret: Secret::from_bytes(&secret), name });
            }
            Step::AddSubscribers(of, count) => {
                let tenant = self.tenant(*of)?;
                for _ in 0..*count {
                    let (subscriber, row, secret, name) =
                        (SubscriberHandle(random()), RowId(random()), random(), self.name());
                    let new = Subscriber { name: name.clone(), row, secret, recordings: BTreeMap::new() };
                    after.tenants.get_mut(&tenant)?.subscribers.insert(subscriber, new);
                    let secret = Secret::from_bytes(&secret);
                    changes.push(Change::AddSubscriber { tenant, subscriber, row, secret, name });
                }
            }
            Step::AddPeriod(of) => {
                let (tenant, period, secret) = (self.tenant(*of)?, PeriodHandle(random()), random());
                after.tenants.get_mut(&tenant)?.periods.insert(period, secret);
                let (row, secret) = (RowId(random()), Secret::from_bytes(&secret));
                let (purpose, day) = (Purpose::ClientIds, Day(1));
                changes.push(Change::AddPeriod { tenant, period, row, secret, purpose, day });
            }
            Step::AddRecordings(of, count, objects) => {
                let (tenant, subscriber) = self.subscriber(*of)?;
                for number in 0..*count {
                    let new = New { objects: *objects, keeping: keeping([number, *objects, *of]), ..New::default() };
                    changes.push(add_recording(&mut after, tenant, subscriber, new)?);
                }
            }
            Step::AddBound(of, parties, wrapped) => {
                let (tenant, subscriber) = self.subscriber(*of)?;
                let parties = self.parties(tenant, subscriber, *of, *parties);
                let new = New { objects: 1, parties, wrapped: *wrapped, keeping: keeping([*of; 3]), parent: None };
                changes.push(add_recording(&mut after, tenant, subscriber, new)?);
            }
            Step::AddChild(of) => {
                let at = self.recording(*of)?;
                let parent = recording_of(&mut after, at)?;
                if parent.audio.is_none() || parent.parent.is_some() {
                    return None;
                }
                let new = New {
                    objects: 1,
                    parent: Some(at.recording),
                    parties: parent.parties.clone(),
                    wrapped: parent.wrapped,
                    keeping: keeping([*of; 3]),
                };
                changes.push(add_recording(&mut after, at.tenant, at.subscriber, new)?);
            }
            Step::SetKeeping(of, what) => {
                let (at, keeping) = (self.living(*of)?, keeping(*what));
                recording_of(&mut after, at)?.keeping = keeping;
                changes.push(Change::SetKeeping { at, keeping });
            }
            Step::BindParties(of, parties, wrapped) => {
                let at = self.living(*of)?;
                let parties = self.parties(at.tenant, at.subscriber, *of, *parties);
                let recording = recording_of(&mut after, at)?;
                if recording.parent.is_some() {
                    return None;
                }
                let family = [vec![at.recording], recording.children.clone()].concat();
                for recording in family {
                    let recording = recording_of(&mut after, RecordingPath { recording, ..at })?;
                    recording.parties.clone_from(&parties);
                    recording.wrapped = *wrapped && !parties.is_empty();
                }
                changes.push(Change::BindParties { at, parties, wrapped: *wrapped });
            }
            Step::RenewFacts(of) => {
                let (at, facts): (_, Key) = (self.living(*of)?, random());
                let recording = recording_of(&mut after, at)?;
                recording.facts?;
                recording.facts = Some(facts);
                changes.push(Change::RenewFacts { at, facts: Secret::from_bytes(&facts) });
            }
            Step::Log(count) => {
                for _ in 0..*count {
                    let leaf = random::<9>().to_vec();
                    after.log.push(leaf.clone());
                    changes.push(Change::Log { leaf, under: None });
                }
            }
            Step::AddObject(of) => {
                let (at, object) = (self.recording(*of)?, ObjectId(random()));
                let recording = recording_of(&mut after, at)?;
                recording.audio?;
                recording.objects.insert(object);
                changes.push(Change::AddObject { at, object });
                changes.extend([(); 2].map(|()| Change::QueueCopy { object, to: "elsewhere".to_owned() }));
            }
            Step::DoomObject(of) => {
                let at = self.recording(*of)?;
                let object = recording_of(&mut after, at)?.objects.pop_first()?;
                changes.push(Change::DoomObject { at, object });
            }
            Step::EraseTenant(of) => {
                let tenant = self.tenant(*of)?;
                after.tenants.remove(&tenant);
                changes.push(Change::EraseTenant(tenant));
            }
            Step::EraseSubscriber(of) => {
                let (tenant, subscriber) = self.subscriber(*of)?;
                after.erase_subscriber(tenant, subscriber);
                changes.push(Change::EraseSubscriber(tenant, subscriber));
            }
            Step::ErasePeriod(of) => {
                let tenant = self.tenant(*of)?;
                let (period, _) = after.tenants.get_mut(&tenant)?.periods.pop_first()?;
                changes.push(Change::ErasePeriod(tenant, period));
            }
            Step::EraseRecordings(which, audio, facts) => {
                let parts = if *audio || *facts { Parts { audio: *audio, facts: *facts } } else { Parts::BOTH };
                for pick in which {
                    let at = self.recording(*pick)?;
                    erase_recording(&mut after, at, parts);
                    changes.push(Change::EraseRecording { at, parts });
                }
            }
            Step::Replace(of) => {
                let at = self.recording(*of)?;
                erase_recording(&mut after, at, Parts::BOTH);
                let new = New { objects: 1, ..New::default() };
                changes.push(add_recording(&mut after, at.tenant, at.subscriber, new)?);
                changes.push(Change::EraseRecording { at, parts: Parts::BOTH });
            }
            _ => return None,
        }
        // Some erasures have receipts.
        let receipt = changes.iter().any(Change::erases).then(|| ReceiptId(random())).filter(|id| id.0[0] % 2 == 0);
        if receipt.is_some() {
            changes.push(Change::Log { leaf: b"erased".to_vec(), under: None });
            after.log.push(b"erased".to_vec());
        }
        Some((Mutation { changes, receipt }, after))
    }

    fn living(&self, pick: u8) -> Option<RecordingPath> {
        let living = self.model.recordings().filter(|(_, own)| own.audio.or(own.facts).is_some());
        pick_from(living.map(|(at, _)| at), pick)
    }

    /// So many other subscribers of a tenant, ascending.
    fn parties(&self, tenant: TenantHandle, owner: SubscriberHandle, pick: u8, count: u8) -> Vec<SubscriberHandle> {
        let others: Vec<_> = self.model.tenants[&tenant].subscribers.keys().filter(|own| **own != owner).collect();
        let mut parties: Vec<_> = (0..count)
            .filter_map(|more| pick_from(others.iter(), pick.wrapping_add(more)).map(|party| **party))
            .collect();
        parties.sort_unstable();
        parties.dedup();
        parties
    }

    fn accept(&mut self, after: Model) {
        let (before, now) = (self.model.secrets(), after.secrets());
        self.forgotten.secrets.extend(before.difference(&now));
        let names = after.names();
        self.forgotten.names.extend(self.model.names().into_iter().filter(|name| !names.contains(name)));
        let objects = after.objects();
        self.doomed.extend(self.model.objects().into_iter().filter(|object| !objects.contains(object)));
        self.model = after;
    }

    fn reopen(&mut self, power: bool) {
        self.keys = None;
        self.disk.disarm();
        if power {
            self.disk.lose_power();
        }
        self.keys = Some(open(&self.disk));
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Restart { power } => self.reopen(*power),
            Step::Refused(of) => {
                let mut changes = Vec::new();
                for step in [
                    Step::AddBound(*of, 2, true),
                    Step::AddChild(*of),
                    Step::SetKeeping(*of, [*of; 3]),
                    Step::Log(2),
                    Step::BindParties(*of, 2, true),
                    Step::EraseRecordings(vec![*of], true, false),
                ] {
                    changes.extend(self.draw_up(&step).into_iter().flat_map(|(mutation, _)| mutation.changes));
                }
                let nowhere = TenantHandle(random());
                changes.push(super::new_recording(nowhere, SubscriberHandle(random()), 0).1);
                let before = self.disk.image();
                assert!(super::block_on(self.keys().commit(Mutation::new(changes))).is_err());
                assert!(self.disk.image() == before, "a refused mutation wrote something");
            }
            Step::Sweep(max) => {
                let objects = sweep_all(self.keys(), usize::from(*max));
                self.swept.extend(objects);
                self.count_waiting();
                assert_eq!(self.keys().doomed_count(), 0);
                // A step says at most once that nothing is left of a receipt; afterwards nothing is left of any.
                assert!(self.receipts.iter().all(|id| !self.keys().doomed_under(*id).expect("reads")));
                assert!(self.doomed.is_subset(&self.swept), "an erased object was not handed to the sweeper");
                assert!(self.swept.is_disjoint(&self.model.objects()), "the sweeper was handed a living object");
            }
            Step::FailingStart { steps, left: how, power } => {
                self.keys = None;
                self.disk.arm(usize::from(*steps), left(*how));
                drop(open_with(&self.disk, super::TINY));
                self.reopen(*power);
            }
            Step::Fail { steps, left: how, power, what } => {
                let Some((mutation, after)) = self.draw_up(what) else { return };
                self.disk.arm(usize::from(*steps), left(*how));
                let answer = super::block_on(self.keys().commit(mutation));
                self.reopen(*power);
                let found = Model::of(self.keys());
                assert!(found == self.model || found == after, "a failing write left something in between");
                assert!(answer.is_err() || found == after, "what was acknowledged came undone");
                if found == after {
                    self.accept(after);
                } else {
                    let known = self.model.secrets();
                    self.forgotten.ghosts.extend(after.secrets().into_iter().filter(|new| !known.contains(new)));
                }
            }
            plain => {
                let Some((mutation, after)) = self.draw_up(plain) else { return };
                self.receipts.extend(mutation.receipt);
                let first = self.model.log.len() as u64;
                let committed = super::block_on(self.keys().commit(mutation)).expect("commits");
                assert_eq!(committed.log, first..after.log.len() as u64);
                self.accept(after);
                self.count_waiting();
            }
        }
    }

    /// What waits is counted as it comes and goes, and read from the rows at a start alone.
    fn count_waiting(&self) {
        let (rows, ..) = self.disk.image();
        let count = |of| rows.keys().filter(|(family, _)| *family == of).count() as u64;
        let counted = (self.keys().doomed_count(), self.keys().copies_count());
        assert_eq!(counted, (count(Family::Doomed), count(Family::Copies)));
    }
}

/// What differs between the recordings that are made.
#[derive(Default)]
struct New {
    objects: u8,
    keeping: Keeping,
    parent: Option<RecordingHandle>,
    parties: Vec<SubscriberHandle>,
    wrapped: bool,
}

fn add_recording(
    after: &mut Model,
    tenant: TenantHandle,
    subscriber: SubscriberHandle,
    New { objects, keeping, parent, parties, wrapped }: New,
) -> Option<Change> {
    let at = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
    let (row, audio, facts): (_, Key, Key) = (RowId(random()), random(), random());
    let objects: Vec<_> = (0..objects).map(|_| ObjectId(random())).collect();
    let new = Recording {
        row,
        audio: Some(audio),
        facts: Some(facts),
        objects: objects.iter().copied().collect(),
        keeping,
        parent,
        children: Vec::new(),
        parties: parties.clone(),
        wrapped: wrapped && !parties.is_empty(),
        held: Held(Parts::BOTH),
    };
    let own = after.tenants.get_mut(&tenant)?.subscribers.get_mut(&subscriber)?;
    own.recordings.insert(at.recording, new);
    // A child is bound as its parent is.
    let (parties, wrapped) = match parent {
        Some(parent) => {
            own.recordings.get_mut(&parent)?.children.push(at.recording);
            (Vec::new(), false)
        }
        None => (parties, wrapped),
    };
    let (audio, facts) = (Secret::from_bytes(&audio), Secret::from_bytes(&facts));
    Some(Change::AddRecording { at, row, kind: 1, audio, facts, objects, keeping, parent, parties, wrapped })
}

/// Some keeping or other: often never due, rarely restricted.
fn keeping([audio, facts, rest]: [u8; 3]) -> Keeping {
    let due = |byte: u8| if byte.is_multiple_of(3) { Minute::NEVER } else { Minute(u32::from(byte % 16)) };
    Keeping {
        audio_due: due(audio),
        facts_due: due(facts),
        restricted: rest.is_multiple_of(7),
        jurisdiction: if rest.is_multiple_of(2) { *b"DE" } else { [0; 2] },
        ended: Minute(u32::from(rest)),
        ..Keeping::default()
    }
}

fn recording_of(model: &mut Model, at: RecordingPath) -> Option<&mut Recording> {
    model.tenants.get_mut(&at.tenant)?.subscribers.get_mut(&at.subscriber)?.recordings.get_mut(&at.recording)
}

fn erase_recording(model: &mut Model, at: RecordingPath, parts: Parts) {
    let Some(recording) = recording_of(model, at) else { return };
    let held = &mut recording.held.0;
    let mut children = Vec::new();
    if parts.audio && held.audio {
        held.audio = false;
        recording.audio = None;
        recording.objects.clear();
        children = std::mem::take(&mut recording.children);
    }
    if parts.facts {
        held.facts = false;
        recording.facts = None;
    }
    let (gone, parent) = (!held.audio && !held.facts, recording.parent);
    if let Some(subscriber) = model.tenants.get_mut(&at.tenant).and_then(|t| t.subscribers.get_mut(&at.subscriber)) {
        if gone {
            subscriber.recordings.remove(&at.recording);
        }
        if let Some(parent) = parent.filter(|_| gone).and_then(|parent| subscriber.recordings.get_mut(&parent)) {
            parent.children.retain(|own| *own != at.recording);
        }
    }
    for child in children {
        erase_recording(model, RecordingPath { recording: child, ..at }, Parts::BOTH);
    }
}

fn pick_from<T>(all: impl Iterator<Item = T> + Clone, pick: u8) -> Option<T> {
    let count = all.clone().count();
    all.clone().nth(usize::from(pick).checked_rem(count)?)
}

/// Ids and keys are drawn from the system, so a stored seed would not replay: none is stored.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, max_shrink_iters: 500, ..ProptestConfig::default() };
    // The default is for cheap tests; PROPTEST_CASES overrides.
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { 48 };
    ProptestConfig { cases, ..config }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn no_history_brings_anything_erased_back(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        world.run(&Step::AddTenant);
        world.run(&Step::AddSubscribers(0, 3));
        world.run(&Step::AddRecordings(0, 5, 1));
        for step in &steps {
            world.run(step);
            assert!(!world.disk.is_dead());
            assert!(Model::of(world.keys()) == world.model, "the store and the model differ");
            check_found(world.keys(), &world.model);
            check(&world.disk, &world.model, &world.forgotten);
        }
        world.run(&Step::Restart { power: true });
        world.run(&Step::Sweep(2));
        check(&world.disk, &world.model, &world.forgotten);
    }
}
