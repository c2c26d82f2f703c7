//! Slots made of slots: each of them lost, away or back at each step, over several rotations, with crashes between, and with a
//! backup that is away or that the node is built from again.

mod backed;
mod comings;

use super::{
    super::*,
    TINY, add_recording, add_subscriber, add_tenant,
    attacker::{Haul, Key},
    block_on, commit,
    medium::{Disk, Left, Memory},
    settings,
    storage::Storage,
};
use crate::{
    crypto::share,
    domain::{
        id::RootId,
        time::{Clock, Timestamp},
    },
};
use backing::{Backing, Family};
use backup::restore::{self, Reached, RestoreError};
use slot::{Record, root_id};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Generation, root id, number, share.
type Held = (u64, RootId, u8, [u8; 32]);

/// What one slot holds now, and everything it ever held.
#[derive(Default)]
struct Drawer {
    records: Vec<Held>,
    ever: Vec<(RootId, u8, [u8; 32])>,
    away: bool,
    /// At once, where nothing else is said.
    forgets: Option<Forgets>,
    /// The call after so many more fails, done or not.
    fuse: Option<(usize, bool)>,
}

impl Drawer {
    /// Whether the call is done, and whether it is answered.
    fn call(&mut self) -> (bool, bool) {
        match &mut self.fuse {
            _ if self.away => (false, false),
            Some((0, done)) => {
                let done = *done;
                (self.fuse, self.away) = (None, true);
                (done, false)
            }
            Some((calls, _)) => {
                *calls -= 1;
                (true, true)
            }
            None => (true, true),
        }
    }
}

struct MemberSlot(Arc<Mutex<Drawer>>);

fn away<T>() -> Result<T, SlotError> {
    Err(SlotError::Io("away".to_owned()))
}

impl MemberSlot {
    fn change(&self, change: impl FnOnce(&mut Drawer) -> Result<(), SlotError>) -> Result<(), SlotError> {
        let mut drawer = self.0.lock().expect("no panic");
        let (done, answered) = drawer.call();
        let result = if done { change(&mut drawer) } else { Ok(()) };
        if answered { result } else { away() }
    }
}

impl Slot for MemberSlot {
    fn records(&mut self) -> Result<Vec<Record>, SlotError> {
        let drawer = self.0.lock().expect("no panic");
        if drawer.away {
            return away();
        }
        let record = |(generation, id, number, share): &Held| Record {
            generation: *generation,
            id: *id,
            number: *number,
            share: Secret::from_bytes(share),
        };
        Ok(drawer.records.iter().map(record).collect())
    }

    fn stage(&mut self, record: &Record) -> Result<(), SlotError> {
        self.change(|drawer| {
            if drawer.records.len() == 3 {
                return Err(SlotError::Full);
            }
            drawer.records.push((record.generation, record.id, record.number, *record.share.expose()));
            drawer.ever.push((record.id, record.number, *record.share.expose()));
            Ok(())
        })
    }

    fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        self.change(|drawer| {
            if !drawer.records.iter().any(|record| record.1 == keep) {
                return Err(SlotError::Missing);
            }
            drawer.records.retain(|record| record.1 == keep);
            Ok(())
        })
    }

    fn discard(&mut self, root: RootId) -> Result<(), SlotError> {
        self.change(|drawer| {
            drawer.records.retain(|record| record.1 != root);
            Ok(())
        })
    }

    fn clear(&mut self) -> Result<(), SlotError> {
        self.change(|drawer| {
            drawer.records.clear();
            Ok(())
        })
    }

    fn forgets(&self) -> Forgets {
        self.0.lock().expect("no panic").forgets.unwrap_or(Forgets::AtOnce)
    }
}

/// Key store and slots. The roots that there were are known, as a witness.
struct World {
    disk: Arc<Disk>,
    /// Where the backup lies, if there is one.
    storage: Option<Storage>,
    /// Everything that disks of nodes held that are lost.
    lost: Vec<Vec<u8>>,
    /// All that there ever were; the first `seated` are configured.
    drawers: Vec<Arc<Mutex<Drawer>>>,
    seated: Vec<usize>,
    k: u8,
    keys: Option<KeyStore>,
}

impl World {
    fn new(k: u8, count: usize) -> Self {
        let drawers = (0..count).map(|_| Arc::default()).collect();
        let (disk, seated) = (Disk::new(), (0..count).collect());
        let mut world = Self { disk, storage: None, lost: Vec::new(), drawers, seated, k, keys: None };
        world.start().expect("a first start");
        world
    }

    fn with_backup(k: u8, count: usize) -> Self {
        let mut world = Self::new(k, count);
        world.storage = Some(Storage::default());
        world.start().expect("a start");
        assert!(world.keys().tend_backup());
        world
    }

    fn start(&mut self) -> Result<(), OpenError> {
        self.start_with(settings(TINY))
    }

    fn start_with(&mut self, settings: Settings) -> Result<(), OpenError> {
        self.keys = None;
        self.disk.revive();
        let backup = self.storage.as_ref().map(|storage| storage.backup(&Clock::set_to(Timestamp(1_000_000))));
        self.keys = Some(KeyStore::open_on(Arc::new(Memory(self.disk.clone())), self.slots(), backup, settings)?);
        Ok(())
    }

    fn slots(&self) -> Slots {
        let slots = self.seated.iter().map(|at| {
            let drawer = self.drawers[*at].clone();
            let open: Opener = Box::new(move || Ok(Box::new(MemberSlot(drawer.clone())) as Box<dyn Slot>));
            (format!("slot {at}"), open)
        });
        Slots::several(self.k, slots.collect())
    }

    /// The node is lost: another one is built from slots and backup.
    fn lose_node(&mut self) -> Result<Reached, RestoreError> {
        self.stop();
        let mut storage = self.storage.clone().expect("there is a backup");
        let built = Mutex::new(Disk::new());
        let anew = || {
            let disk = Disk::new();
            built.lock().expect("no panic").clone_from(&disk);
            Box::new(Memory(disk)) as Box<dyn Backing>
        };
        let reached = restore::restore_into(anew, &mut self.slots(), &mut storage)?;
        self.lost.extend(self.disk.ever());
        self.disk = built.into_inner().expect("no panic");
        Ok(reached)
    }

    /// Every copy that there ever was of anything but slots.
    fn copies(&self) -> Vec<Vec<u8>> {
        let stored = self.storage.iter().flat_map(|storage| storage.lock().ever.clone());
        self.disk.ever().into_iter().chain(self.lost.iter().cloned()).chain(stored).collect()
    }

    fn keys(&self) -> &KeyStore {
        self.keys.as_ref().expect("it is open")
    }

    fn set_away(&self, at: usize, away: bool) {
        let mut drawer = self.drawers[at].lock().expect("no panic");
        (drawer.away, drawer.fuse) = (away, None);
    }

    fn is_away(&self, at: usize) -> bool {
        self.drawers[at].lock().expect("no panic").away
    }

    /// Everything but what the disk shows.
    fn image(&self) -> Vec<Vec<Held>> {
        self.drawers.iter().map(|drawer| drawer.lock().expect("no panic").records.clone()).collect()
    }

    fn stop(&mut self) {
        self.keys = None;
    }

    /// Roots that an attacker gets out of every copy of the key store and of every slot as it is: those that take part as they
    /// are now, those that are absent, lost or retired as they were when they went. `more` are slots whose whole past he
    /// has as well.
    fn reach(&self, more: &[usize]) -> Vec<[u8; 32]> {
        let mut shares: HashMap<RootId, BTreeMap<u8, [u8; 32]>> = HashMap::new();
        for (at, drawer) in self.drawers.iter().enumerate() {
            let drawer = drawer.lock().expect("no panic");
            let copied = more.contains(&at);
            let now = drawer.records.iter().map(|(_, id, number, share)| (*id, *number, *share));
            for (id, number, share) in now.chain(drawer.ever.iter().copied().filter(|_| copied)) {
                shares.entry(id).or_default().insert(number, share);
            }
        }
        shares_to_fixpoint(&self.copies(), &mut shares);
        let roots = shares.values().flat_map(|shares| {
            let shares: Vec<_> = shares.iter().map(|(number, share)| (*number, Secret::from_bytes(share))).collect();
            subsets(&shares)
        });
        let mut roots: Vec<_> = roots.collect();
        roots.retain(|root| shares.contains_key(&root_id(&Secret::from_bytes(root))));
        roots
    }
}

/// Every combination of shares, whatever `k` may be.
fn subsets(shares: &[(u8, Secret)]) -> Vec<[u8; 32]> {
    let picked = (1_u32..1 << shares.len()).filter_map(|mask| {
        let some: Vec<_> = shares
            .iter()
            .enumerate()
            .filter_map(|(at, (number, share))| (mask >> at & 1 == 1).then_some((*number, share)))
            .collect();
        share::combine(&some).map(|root| *root.expose())
    });
    picked.collect()
}

/// Opens every share that waits in any copy of the key store.
fn shares_to_fixpoint(contents: &[Vec<u8>], shares: &mut HashMap<RootId, BTreeMap<u8, [u8; 32]>>) {
    use crate::crypto::{
        envelope::{Envelope, Kind, MAGIC},
        label::{Label, derive},
    };
    let mut rows = Vec::new();
    for content in contents {
        for at in 0..content.len().saturating_sub(MAGIC.len()) {
            if content[at..].starts_with(&MAGIC)
                && let Ok((envelope, _)) = Envelope::parse_prefix(&content[at..])
                && envelope.kind == Kind::WaitingShare
            {
                rows.push((envelope.clear.to_vec(), content[at..].to_vec()));
            }
        }
    }
    loop {
        let mut more = false;
        for (clear, row) in &rows {
            let (number, from) = (clear[0], RootId::from_slice(&clear[1..17]).expect("an id"));
            let to = RootId::from_slice(&clear[17..]).expect("an id");
            let Some(with) = shares.get(&from).and_then(|shares| shares.get(&number)) else { continue };
            let key = Secret::from_bytes(&derive(with, Label::WaitingShare, &[&[number], &from.0]));
            let (envelope, _) = Envelope::parse_prefix(row).expect("parsed before");
            let Ok(plain) = envelope.open(&key) else { continue };
            let share: [u8; 32] = plain.as_slice().try_into().expect("a share");
            more |= shares.entry(to).or_default().insert(number, share) != Some(share);
        }
        if !more {
            return;
        }
    }
}

/// A recording that is erased again: one rotation.
struct Lives {
    tenant: TenantHandle,
    subscriber: SubscriberHandle,
}

fn inhabit(world: &World) -> Lives {
    let tenant = add_tenant(world.keys(), "acme");
    Lives { tenant, subscriber: add_subscriber(world.keys(), tenant, "ada") }
}

impl Lives {
    /// What its secrets were, and how the erasure was answered.
    fn rotate(&self, world: &World) -> Option<(BTreeSet<Key>, Result<Committed, CommitError>)> {
        let at = super::new_recording(self.tenant, self.subscriber, 1);
        commit(world.keys(), vec![at.1]).ok()?;
        let at = at.0;
        let audio = world.keys().audio_leaf(at).expect("reads").expect("lives").audio.expect("lives");
        let facts = world.keys().facts_leaf(at).expect("reads").expect("lives").facts.expect("lives");
        let secrets = BTreeSet::from([*audio.expose(), *facts.expose()]);
        Some((secrets, commit(world.keys(), vec![Change::EraseRecording { at, parts: Parts::BOTH }])))
    }
}

fn rotate(world: &World, lives: &Lives) -> Committed {
    lives.rotate(world).expect("creates").1.expect("erases")
}

fn opened(world: &World, roots: &[[u8; 32]]) -> BTreeSet<[u8; 32]> {
    Haul::carve(&world.copies()).below_roots(roots).secrets.into_iter().collect()
}

#[test]
fn two_of_three_lose_any_one_at_any_moment_and_open_again() {
    for lost in 0..3 {
        let mut world = World::new(2, 3);
        let lives = inhabit(&world);
        assert!(rotate(&world, &lives).destroyed);
        world.set_away(lost, true);
        let committed = rotate(&world, &lives);
        assert!(committed.destroyed, "one share of the old root is left with the absent slot, and one is too few");
        assert_eq!(world.keys().slots().losses_survivable, 0);
        world.start().expect("two are enough");
        assert_eq!(world.keys().generation(), 3);
        rotate(&world, &lives);
    }
}

#[test]
fn a_share_that_waits_saves_everything_when_another_slot_is_lost() {
    let mut world = World::new(2, 3);
    let lives = inhabit(&world);
    world.set_away(2, true);
    // Rotations over two starts: rows one after the other.
    for _ in 0..3 {
        rotate(&world, &lives);
    }
    world.start().expect("two are enough");
    for _ in 0..3 {
        rotate(&world, &lives);
    }
    let rows = || {
        let image = world.disk.image().0;
        image.into_keys().filter(|(family, key)| *family == Family::Slots && key.len() == 17).count()
    };
    assert_eq!(rows(), 2, "a row for each start, not for each erasure");
    // The slot is back, and another one is lost for good.
    world.set_away(2, false);
    world.set_away(0, true);
    world.start().expect("one that matches, and one that follows the rows");
    assert_eq!(world.keys().generation(), 7);
    assert!(rotate(&world, &lives).destroyed);
}

#[test]
fn a_start_with_fewer_than_k_is_refused_names_them_and_changes_nothing() {
    let mut world = World::new(2, 3);
    rotate(&world, &inhabit(&world));
    world.stop();
    world.set_away(0, true);
    world.set_away(2, true);
    let (disk, slots) = (world.disk.image(), world.image());
    let refused = world.start().expect_err("refused");
    assert!(matches!(refused, OpenError::TooFewSlots { needed: 2, found: 1, .. }), "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("slot 0 is away") && text.contains("slot 1 matches") && text.contains("slot 2 is away"),
        "{text}"
    );
    assert!(world.disk.image() == disk && world.image() == slots);
}

#[test]
fn too_few_slots_refuse_an_erasure_and_keep_nothing_of_it() {
    let world = World::new(2, 3);
    let lives = inhabit(&world);
    // Two fill up: they answer, and take nothing.
    for at in [0, 1] {
        let mut drawer = world.drawers[at].lock().expect("no panic");
        let record = drawer.records[0];
        drawer.records.extend([(0, RootId([1; 16]), record.2, [1; 32]), (0, RootId([2; 16]), record.2, [2; 32])]);
    }
    let before = world.image();
    let (_, answer) = lives.rotate(&world).expect("creates");
    assert!(matches!(answer, Err(CommitError::Slot(SlotError::TooFew { needed: 2, found: 1, .. }))), "{answer:?}");
    assert!(world.image() == before && world.keys().generation() == 1);
}

#[test]
fn while_too_few_slots_are_there_creates_go_on_and_erasures_are_refused() {
    let world = World::new(2, 3);
    let lives = inhabit(&world);
    for at in [0, 1] {
        world.set_away(at, true);
    }
    for _ in 0..2 {
        let (_, answer) = lives.rotate(&world).expect("creates");
        let Err(CommitError::Slot(refusal @ SlotError::TooFew { needed: 2, found, .. })) = answer else {
            panic!("{answer:?}")
        };
        assert!(found < 2 && refusal.to_string().contains("slot 0"), "{refusal}");
    }
    assert_eq!(world.keys().generation(), 1);
    for at in [0, 1] {
        world.set_away(at, false);
    }
    assert!(rotate(&world, &lives).destroyed);
    assert!(world.image().iter().all(|records| records.len() == 1 && records[0].0 == 2));
}

#[test]
fn an_absent_slot_is_wiped_when_it_comes_back() {
    let mut world = World::new(2, 3);
    let lives = inhabit(&world);
    world.set_away(1, true);
    rotate(&world, &lives);
    rotate(&world, &lives);
    let old = world.image()[1].clone();
    // While the process runs: with the next rotation.
    world.set_away(1, false);
    rotate(&world, &lives);
    assert!(world.image()[1].iter().all(|record| record.0 == 4) && old.iter().all(|record| record.0 == 1));
    // With a start.
    world.set_away(1, true);
    rotate(&world, &lives);
    world.set_away(1, false);
    world.start().expect("starts");
    assert!(world.image().iter().all(|records| records.len() == 1 && records[0].0 == 5));
    assert_eq!(world.keys().slots().losses_survivable, 1);
}

#[test]
fn a_slot_that_goes_under_a_running_gateway_is_known_when_all_are_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |at: usize| dir.path().join(format!("slot-{at}"));
    let opener = |at: usize| -> Opener {
        let path = path(at);
        Box::new(move || Ok(Box::new(FileSlot::open(&path)?) as Box<dyn Slot>))
    };
    let mut slots = Slots::several(2, (0..3).map(|at| (format!("slot {at}"), opener(at))).collect());
    let key = Arc::new(Secret::random());
    slots.begin(&plan::RootKey { generation: 1, id: root_id(&key), key }).expect("each takes its share");
    std::fs::rename(path(1), dir.path().join("aside")).expect("moves");
    assert_eq!(slots.report().losses_survivable, 1, "nobody has looked");
    slots.check();
    let report = slots.report();
    assert_eq!((report.losses_survivable, report.slots[1].matches()), (0, false));
    std::fs::rename(dir.path().join("aside"), path(1)).expect("moves back");
    slots.check();
    assert_eq!(slots.report().losses_survivable, 0, "one that was away is asked by whoever gives it what it lacks");
    slots.tend();
    assert_eq!(slots.report().losses_survivable, 1);
}

#[test]
fn a_lost_and_a_missing_slot_make_an_erasure_wait_until_one_of_them_is_wiped() {
    let mut world = World::new(2, 3);
    let lives = inhabit(&world);
    world.stop();
    // Slot 0 is lost and a new one takes its place; in the same rotation slot 1 takes its share and then fails.
    world.drawers.push(Arc::default());
    world.set_away(0, true);
    world.seated = vec![1, 2, 3];
    world.start().expect("two are enough");
    world.drawers[1].lock().expect("no panic").fuse = Some((1, false));
    let first = block_on(world.keys().reshare(Reshare::Match)).expect("shares anew");
    assert!(!first.destroyed, "slots 0 and 1 still give the first root");
    let witness = opened(&world, &world.reach(&[]));
    assert!(!witness.is_empty(), "the control: they do");
    let (erased, answer) = lives.rotate(&world).expect("creates");
    assert!(!answer.expect("erases").destroyed, "what lived under the first root may still open");
    assert_eq!(world.keys().slots().shares_left, Some(2));
    world.set_away(1, false);
    let committed = rotate(&world, &lives);
    assert!(committed.destroyed, "slot 1 came back, and was wiped");
    let report = world.keys().slots();
    assert!(report.slots.iter().any(|slot| slot.standing == Standing::Left), "the lost one may still hold its share");
    assert!(report.slots.iter().all(|slot| !slot.is_short()), "and nothing is missing without it");
    assert!(opened(&world, &world.reach(&[])).is_disjoint(&erased));
}

#[test]
fn a_retired_slot_is_wiped_and_a_foreign_one_left_alone() {
    let mut world = World::new(2, 3);
    let lives = inhabit(&world);
    block_on(world.keys().reshare(Reshare::Retire(3))).expect("retires");
    assert!(world.image()[2].is_empty());
    let report = world.keys().slots();
    assert_eq!((report.k, report.of, report.losses_survivable), (2, 2, 0));
    assert!(block_on(world.keys().reshare(Reshare::Retire(1))).is_err(), "the other alone would not be enough");
    rotate(&world, &lives);
    // It is empty: it may join again, under another number.
    block_on(world.keys().reshare(Reshare::Match)).expect("joins");
    assert_eq!(world.image()[2][0].2, 4);
    world.stop();
    let foreign = vec![(1, RootId([9; 16]), 2, [9; 32])];
    world.drawers[1].lock().expect("no panic").records.clone_from(&foreign);
    world.start().expect("two are enough");
    rotate(&world, &lives);
    assert!(world.image()[1] == foreign);
}

#[test]
fn a_retired_slot_that_was_away_is_emptied_when_it_is_found() {
    let mut world = World::new(2, 3);
    let lives = inhabit(&world);
    world.set_away(2, true);
    rotate(&world, &lives);
    block_on(world.keys().reshare(Reshare::Retire(3))).expect("retires");
    assert!(!world.image()[2].is_empty());
    world.set_away(2, false);
    world.start().expect("starts");
    assert!(world.image()[2].is_empty());
}

#[test]
fn a_slot_that_goes_while_it_is_tended_comes_back_as_one_of_ours() {
    for fuse in [(0, true), (1, false), (1, true), (2, false), (2, true)] {
        let mut world = World::new(2, 3);
        let lives = inhabit(&world);
        rotate(&world, &lives);
        world.set_away(2, true);
        rotate(&world, &lives);
        world.set_away(2, false);
        world.drawers[2].lock().expect("no panic").fuse = Some(fuse);
        rotate(&world, &lives);
        world.set_away(2, false);
        rotate(&world, &lives);
        let present = world.keys().generation();
        assert!(world.image()[2].iter().all(|record| record.0 == present), "{fuse:?}");
        world.set_away(0, true);
        world.start().expect("two are enough");
    }
}

#[test]
fn a_slot_that_was_retired_while_it_was_away_is_known_over_a_start() {
    let mut world = World::new(2, 3);
    let lives = inhabit(&world);
    rotate(&world, &lives);
    world.stop();
    world.set_away(2, true);
    world.start().expect("two are enough");
    block_on(world.keys().reshare(Reshare::Retire(3))).expect("retires");
    world.stop();
    world.set_away(2, false);
    world.start().expect("starts");
    assert!(world.image()[2].is_empty());
    assert!(world.keys().all_destroyed());
}

#[test]
fn a_copy_of_a_slot_counts_as_nothing() {
    let mut world = World::new(2, 3);
    let lives = inhabit(&world);
    world.stop();
    let copied = world.image()[0].clone();
    world.drawers[2].lock().expect("no panic").records = copied;
    world.start().expect("two are enough");
    let report = world.keys().slots();
    assert_eq!((report.losses_survivable, &report.slots[2].standing), (0, &Standing::Copy));
    world.set_away(1, true);
    let (_, answer) = lives.rotate(&world).expect("creates");
    assert!(matches!(answer, Err(CommitError::Slot(SlotError::TooFew { .. }))), "{answer:?}");
}

#[test]
fn what_is_declared_counts_slots_that_are_lost_or_gone() {
    let mut world = World::new(2, 3);
    let lives = inhabit(&world);
    let set = |world: &World, at: usize, forgets: Forgets| {
        world.drawers[at].lock().expect("no panic").forgets = Some(forgets);
    };
    set(&world, 1, Forgets::After { days: 35 });
    world.start().expect("starts");
    assert_eq!(world.keys().forgets(), Forgets::AtOnce, "the two others are enough");
    world.set_away(2, true);
    rotate(&world, &lives);
    assert_eq!(world.keys().forgets(), Forgets::After { days: 35 }, "one of them is away");
    world.set_away(2, false);
    rotate(&world, &lives);
    assert_eq!(world.keys().forgets(), Forgets::AtOnce);
    // It leaves: what it held of old roots is in its backups for as long.
    block_on(world.keys().reshare(Reshare::Retire(2))).expect("retires");
    for _ in 0..2 {
        assert_eq!(world.keys().forgets(), Forgets::After { days: 35 });
        assert_eq!(world.keys().slots().departed, Some(Forgets::After { days: 35 }));
        world.start().expect("starts");
    }
    let report = world.keys().slots();
    assert!(report.slots.iter().all(|slot| slot.number != Some(2)), "and it is known to be wiped: {report:?}");
}

#[test]
fn rotations_keep_their_interval_and_erasures_share_the_next() {
    let mut world = World::new(1, 1);
    let clock = Clock::set_to(Timestamp(1_000_000));
    let min_rotation_interval = Duration::from_secs(3600);
    world.start_with(Settings { clock: clock.clone(), min_rotation_interval, ..settings(TINY) }).expect("starts");
    let lives = inhabit(&world);
    let (tenant, subscriber) = (lives.tenant, lives.subscriber);
    let paths: Vec<_> = (0..3).map(|_| add_recording(world.keys(), tenant, subscriber)).collect();
    rotate(&world, &lives);
    block_on(async {
        let erase = |at| {
            let keys = world.keys().clone();
            let change = Change::EraseRecording { at, parts: Parts::BOTH };
            tokio::spawn(async move { keys.commit(Mutation::new(vec![change])).await })
        };
        let waiting = [erase(paths[0]), erase(paths[1])];
        // Behind them in the queue, and not held up.
        for _ in 0..20 {
            let (_, create) = super::new_recording(tenant, subscriber, 1);
            world.keys().commit(Mutation::new(vec![create])).await.expect("creates");
        }
        assert!(waiting.iter().all(|erasure| !erasure.is_finished()) && world.keys().generation() == 2);
        clock.advance_ms(3_600_000);
        for erasure in waiting {
            assert_eq!(erasure.await.expect("no panic").expect("erases").generation_to, 3);
        }
        // More than may wait at one time, and far more than one rotation takes: no create waits for them, and of those that
        // found a place none waits for a second interval.
        let started = Arc::new(AtomicUsize::new(0));
        let mut many: Vec<_> = (0..5000)
            .map(|_| {
                let (keys, started) = (world.keys().clone(), started.clone());
                let change = Change::EraseRecording { at: paths[2], parts: Parts::BOTH };
                tokio::spawn(async move {
                    started.fetch_add(1, Ordering::SeqCst);
                    keys.commit(Mutation::new(vec![change])).await
                })
            })
            .collect();
        while started.load(Ordering::SeqCst) < many.len() {
            tokio::task::yield_now().await;
        }
        let (_, create) = super::new_recording(tenant, subscriber, 1);
        world.keys().commit(Mutation::new(vec![create])).await.expect("creates");
        let later = many.split_off(4096);
        clock.advance_ms(3_600_000);
        for erasure in many {
            erasure.await.expect("no panic").expect("erases");
        }
        for erasure in later {
            while !erasure.is_finished() {
                clock.advance_ms(3_600_000);
                tokio::task::yield_now().await;
            }
            erasure.await.expect("no panic").expect("erases");
        }
    });
}
