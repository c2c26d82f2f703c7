//! Random histories of creates, erasures, splits, restarts and failing writes, compared with the model after every step.

use super::{
    super::*,
    attacker::Key,
    medium::{Disk, Left},
    model::{Forgotten, Model, Recording, Subscriber, Tenant, check},
    open, open_with, sweep_all,
};
use crate::crypto::random;
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
        let all = self.model.tenants.iter().flat_map(|(tenant, below)| {
            below.subscribers.iter().flat_map(|(subscriber, below)| {
                below.recordings.keys().map(|recording| RecordingPath {
                    tenant: *tenant,
                    subscriber: *subscriber,
                    recording: *recording,
                })
            })
        });
        pick_from(all, pick)
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
                for _ in 0..*count {
                    changes.push(add_recording(&mut after, tenant, subscriber, *objects)?);
                }
            }
            Step::AddObject(of) => {
                let (at, object) = (self.recording(*of)?, ObjectId(random()));
                let recording = recording_of(&mut after, at)?;
                recording.audio?;
                recording.objects.insert(object);
                changes.push(Change::AddObject { at, object });
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
                after.tenants.get_mut(&tenant)?.subscribers.remove(&subscriber);
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
                changes.push(add_recording(&mut after, at.tenant, at.subscriber, 1)?);
                changes.push(Change::EraseRecording { at, parts: Parts::BOTH });
            }
            _ => return None,
        }
        Some((Mutation::new(changes), after))
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
            Step::Sweep(max) => {
                let objects = sweep_all(self.keys(), usize::from(*max));
                self.swept.extend(objects);
                assert_eq!(self.keys().doomed_count(), 0);
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
                super::block_on(self.keys().commit(mutation)).expect("commits");
                self.accept(after);
            }
        }
    }
}

fn add_recording(after: &mut Model, tenant: TenantHandle, subscriber: SubscriberHandle, objects: u8) -> Option<Change> {
    let at = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
    let (row, audio, facts): (_, Key, Key) = (RowId(random()), random(), random());
    let objects: Vec<_> = (0..objects).map(|_| ObjectId(random())).collect();
    let new = Recording { row, audio: Some(audio), facts: Some(facts), objects: objects.iter().copied().collect() };
    after.tenants.get_mut(&tenant)?.subscribers.get_mut(&subscriber)?.recordings.insert(at.recording, new);
    let (audio, facts) = (Secret::from_bytes(&audio), Secret::from_bytes(&facts));
    Some(Change::AddRecording {
        at,
        row,
        kind: 1,
        audio,
        facts,
        objects,
        keeping: Keeping::default(),
        parent: None,
        parties: Vec::new(),
        wrapped: false,
    })
}

fn recording_of(model: &mut Model, at: RecordingPath) -> Option<&mut Recording> {
    model.tenants.get_mut(&at.tenant)?.subscribers.get_mut(&at.subscriber)?.recordings.get_mut(&at.recording)
}

fn erase_recording(model: &mut Model, at: RecordingPath, parts: Parts) {
    let Some(recording) = recording_of(model, at) else { return };
    if parts.audio {
        recording.audio = None;
        recording.objects.clear();
    }
    if parts.facts {
        recording.facts = None;
    }
    if recording.audio.is_none() && recording.facts.is_none() {
        let subscriber = model.tenants.get_mut(&at.tenant).and_then(|t| t.subscribers.get_mut(&at.subscriber));
        subscriber.expect("it holds the recording").recordings.remove(&at.recording);
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
            check(&world.disk, &world.model, &world.forgotten);
        }
        world.run(&Step::Restart { power: true });
        world.run(&Step::Sweep(2));
        check(&world.disk, &world.model, &world.forgotten);
    }
}
