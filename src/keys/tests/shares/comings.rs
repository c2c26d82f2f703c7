//! Any slot at any call, any crash, S3 away, nodes lost, in random order; held against an attacker who has everything.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Rotate,
    Create,
    /// A slot goes away, or comes back.
    Away(u8, bool),
    /// A slot fails at its next call but so many: done and not answered, or not done.
    Fuse(u8, u8, bool),
    /// The disk fails at its next step but so many, in an erasure or in a change of the slots; then a start.
    Crash(u8, u8, bool),
    Restart,
    /// A slot is lost and a new one takes its place; where it is said, another one takes its share and then fails.
    Replace(u8, Option<u8>),
    Retire(u8),
    /// The backup's object storage goes away, or comes back.
    Storage(bool),
    /// The node is lost.
    LoseNode,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Rotate),
        2 => Just(Step::Create),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(at, away)| Step::Away(at, away)),
        3 => (any::<u8>(), 0u8..3, any::<bool>()).prop_map(|(at, calls, done)| Step::Fuse(at, calls, done)),
        3 => (0u8..5, 0u8..3, any::<bool>()).prop_map(|(steps, left, change)| Step::Crash(steps, left, change)),
        2 => Just(Step::Restart),
        2 => (any::<u8>(), any::<Option<u8>>()).prop_map(|(at, misses)| Step::Replace(at, misses)),
        1 => any::<u8>().prop_map(Step::Retire),
        2 => any::<bool>().prop_map(Step::Storage),
        2 => Just(Step::LoseNode),
    ]
}

/// Something that was erased.
struct Erased {
    secrets: BTreeSet<Key>,
    /// The generation that its erasure made.
    generation: u64,
    /// It was said to be destroyed.
    destroyed: bool,
}

/// The truth beside the store.
struct Truth {
    erased: Vec<Erased>,
    /// In the backup, where there is one.
    kept: Vec<RecordingPath>,
    /// Not there yet.
    loose: Vec<RecordingPath>,
}

/// A start; where too few slots are there, another one once all of them are back.
fn restart(world: &mut World) {
    world.stop();
    world.disk.disarm();
    if world.start().is_err() {
        assert!(world.is_any_away(), "a start failed although every slot was there");
        for at in world.seated.clone() {
            world.set_away(at, false);
        }
        world.start().expect("with every slot there is, it opens");
    }
}

impl World {
    fn is_any_away(&self) -> bool {
        (0..self.drawers.len()).any(|at| self.is_away(at))
    }

    fn run(&mut self, lives: &Lives, truth: &mut Truth, step: &Step) {
        let seat = |at: &u8, world: &Self| world.seated[usize::from(*at) % world.seated.len()];
        match step {
            Step::Rotate => self.rotate_for(lives, truth),
            Step::Create => {
                let (at, create) = super::super::new_recording(lives.tenant, lives.subscriber, 1);
                commit(self.keys(), vec![create]).expect("creates");
                truth.loose.push(at);
                self.catch_up(truth);
            }
            Step::Away(at, away) => self.set_away(seat(at, self), *away),
            Step::Fuse(at, calls, done) => {
                self.drawers[seat(at, self)].lock().expect("no panic").fuse = Some((usize::from(*calls), *done));
            }
            Step::Crash(steps, left, change) => {
                self.disk.arm(usize::from(*steps), [Left::Nothing, Left::All, Left::Half][usize::from(*left)]);
                if *change {
                    // Whatever comes of it.
                    let _ = block_on(self.keys().reshare(Reshare::Match));
                } else {
                    self.rotate_for(lives, truth);
                }
                self.disk.disarm();
                self.stop();
                self.disk.lose_power();
                restart(self);
            }
            Step::Restart => restart(self),
            Step::Replace(at, misses) => {
                let misses = misses.map(|misses| seat(&misses, self));
                // As an operator would: only while what is there is enough without it.
                let at = seat(at, self);
                self.stop();
                self.drawers.push(Arc::default());
                self.set_away(at, true);
                self.seated.retain(|other| *other != at);
                self.seated.push(self.drawers.len() - 1);
                if self.start().is_err() {
                    self.set_away(at, false);
                    self.seated.pop();
                    self.seated.push(at);
                    restart(self);
                } else {
                    if let Some(misses) = misses.filter(|misses| *misses != at) {
                        self.drawers[misses].lock().expect("no panic").fuse = Some((1, false));
                    }
                    if block_on(self.keys().reshare(Reshare::Match)).is_err() {
                        restart(self);
                    }
                }
            }
            Step::Storage(away) => {
                if let Some(storage) = &self.storage {
                    storage.set_away(*away);
                    self.catch_up(truth);
                }
            }
            Step::LoseNode => {
                if let Some(storage) = self.storage.clone() {
                    // What the backup lacks is lost.
                    self.stop();
                    storage.set_away(false);
                    self.lose_and_restore(truth);
                }
            }
            Step::Retire(at) => {
                let number = self.keys().slots().slots[usize::from(*at) % self.seated.len()].number;
                if let Some(number) = number
                    && let Err(CommitError::Closed) = block_on(self.keys().reshare(Reshare::Retire(number)))
                {
                    restart(self);
                }
            }
        }
    }

    /// What is created is in the backup, where that is there.
    fn catch_up(&self, truth: &mut Truth) {
        if self.storage.is_none() || self.keys().tend_backup() {
            truth.kept.append(&mut truth.loose);
        }
    }

    fn lose_and_restore(&mut self, truth: &mut Truth) {
        if self.lose_node().is_err() {
            assert!(self.is_any_away(), "a restore failed although every slot was there");
            for at in self.seated.clone() {
                self.set_away(at, false);
            }
            self.lose_node().expect("with every slot there is, it is restored");
        }
        // What was sealed, and not destroyed, may be back; what was not in the backup may be gone.
        truth.erased.retain(|erased| erased.destroyed);
        restart(self);
        let keys = self.keys().clone();
        truth.loose.retain(|at| keys.audio_leaf(*at).expect("reads").is_some());
    }

    fn rotate_for(&mut self, lives: &Lives, truth: &mut Truth) {
        let Some((secrets, answer)) = lives.rotate(self) else {
            restart(self);
            return;
        };
        match answer {
            Ok(committed) => {
                let Committed { generation_to: generation, destroyed, .. } = committed;
                truth.erased.push(Erased { secrets, generation, destroyed });
            }
            Err(CommitError::Slot(_)) => {}
            Err(_) => restart(self),
        }
    }
}

proptest! {
    // Ids and keys are drawn from the system, so a stored seed would not replay: none is stored.
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn no_coming_and_going_of_slots_loses_what_lives_or_opens_what_is_destroyed(
        (k, count) in prop_oneof![Just((1, 1)), Just((2, 3)), Just((3, 5)), Just((2, 2))],
        grows: bool,
        backup: bool,
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let mut world = if backup { World::with_backup(k, count) } else { World::new(k, count) };
        let lives = inhabit(&world);
        if grows && k == 1 {
            // Two more are configured, and join at the first change of the set.
            world.drawers.extend([Arc::default(), Arc::default()]);
            (world.seated, world.k) = (vec![0, 1, 2], 2);
            world.start().expect("one is enough");
        }
        assert!(!backup || world.keys().tend_backup());
        let mut truth = Truth { erased: Vec::new(), kept: Vec::new(), loose: Vec::new() };
        for step in &steps {
            world.run(&lives, &mut truth, step);
            // What lives is read.
            for at in truth.kept.iter().chain(&truth.loose) {
                assert!(world.keys().audio_leaf(*at).expect("reads").is_some());
            }
            // What is called destroyed opens to nobody, and stays so.
            let destroyed_before = world.keys().slots().destroyed_before;
            let seen = opened(&world, &world.reach(&[]));
            for erased in &mut truth.erased {
                erased.destroyed |= erased.generation <= destroyed_before;
                assert!(!erased.destroyed || seen.is_disjoint(&erased.secrets), "{step:?}");
            }
        }
        // The control: with the past of every slot, everything opens.
        let all: Vec<_> = (0..world.drawers.len()).collect();
        let seen = opened(&world, &world.reach(&all));
        assert!(truth.erased.iter().all(|erased| seen.is_superset(&erased.secrets)));
        // With every slot and the storage back, nothing is left: each slot holds the present root alone, or nothing.
        for at in world.seated.clone() {
            world.set_away(at, false);
        }
        if let Some(storage) = &world.storage {
            storage.set_away(false);
        }
        world.start().expect("starts");
        let committed = rotate(&world, &lives);
        block_on(async { assert!(world.storage.is_none() || world.keys().backed_up(committed.number).await) });
        let settled = || {
            let image = world.image();
            let alone = |at: &usize| image[*at].iter().all(|record| record.0 == committed.generation_to);
            world.seated.iter().all(alone)
        };
        let began = std::time::Instant::now();
        while !settled() {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", world.keys().slots());
            std::thread::sleep(Duration::from_millis(5));
        }
        // Nobody was lost, and nobody was about to join when power failed: so every old root is destroyed.
        let for_good = |step: &Step| matches!(step, Step::Replace(..) | Step::Crash(_, _, true));
        assert!(steps.iter().any(for_good) || world.keys().all_destroyed(), "{:?}", world.keys().slots());
    }
}
