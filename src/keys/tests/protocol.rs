//! The slot protocol, checked in every interleaving within bounds.
//!
//! [`world`] is what there is, [`steps`] what may happen next, [`gateway`] what the gateway knows by then, [`promises`] what
//! must hold in every state. The checker (kept library `stateright`) walks all of it. What is pure in the program is the
//! program's own here: the decision of a start ([`decide`](crate::keys::start::decide::decide)), the table of slots (in few
//! bytes: [`roll`]), and which roots the backup needs ([`Roots`](crate::keys::backup::roots::Roots)). `docs/protocol.md` says
//! what is abstracted away.
//!
//! The model itself is tested by mutants: each breaks one rule, and a run must find out. `QUIETUS_PROTOCOL=1` widens the
//! bounds by one, `=2` by two.

mod gateway;
mod promises;
mod roll;
mod steps;
mod world;

use promises::*;
use stateright::{Checker as _, HasDiscoveries, Model, Property};
use std::{collections::BTreeSet, time::Instant};
use steps::Step;
use world::{Budget, ROOTS, Root, Set, World};

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    /// The slot commits when the file is written and not synced.
    SlotBeforeFile,
    /// A root that was staged for an attempt that gave up seals the next.
    RootReused,
    /// A start lets the slot commit what it read from the page cache.
    NoFlush,
    /// Recovery drops a damaged record of the log and all behind it.
    PointInTime,
    /// The slot commits before the backup has the rotation.
    SlotBeforeBackup,
    /// Each slot's old share goes when it takes the new one.
    WipeBeforeConfirmed,
    /// Giving up lets go of the staged root first, then unlinks the file.
    DiscardBeforeUnlink,
    /// Receipts do not count slots that are members no more.
    RetiredNotCounted,
    /// Receipts do not count slots that are away.
    AbsentNotCounted,
    /// Receipts do not count shares that wait for their slot.
    WaitingNotCounted,
    /// Receipts count the root before the present one, and none before that.
    OneRootCounted,
    /// A slot that matches keeps its receiving key.
    ReceivingKeyKept,
    /// A slot that comes back gets its share of the present root, and not of that which the newest backup needs.
    PresentRootOnly,
    /// A start whose log has lost its end goes on without having asked the backup.
    ShortLogTrusted,
    /// A start takes a store whose root the slots do not hold.
    AnyRootTaken,
    /// Receipts go out before the slots commit.
    AnswerBeforeCommit,
}

/// One configuration: shares, bounds, and what is wrong with it.
#[derive(Clone, Debug)]
struct Protocol {
    /// Slots of the first sharing; the others are in reserve.
    members: Set,
    /// Shares that open.
    need: u32,
    backup: bool,
    /// Roots that may be drawn, the first included.
    roots: Root,
    bounds: Budget,
    mutant: Option<Mutant>,
    sights: &'static [&'static str],
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.first_world()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.steps(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        self.after(world.clone(), step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = promises::properties();
        properties.extend(sights(self.sights));
        properties
    }
}

const NONE: Budget = Budget {
    creates: 0,
    crashes: 0,
    refusals: 0,
    absences: 0,
    losses: 0,
    replacements: 0,
    outages: 0,
    rots: 0,
    disks: 0,
    rollbacks: 0,
};

impl Protocol {
    fn one_slot(bounds: Budget) -> Self {
        Self { members: 0b0001, need: 1, backup: false, roots: 3, bounds, mutant: None, sights: &[] }
    }

    fn two_of_three(bounds: Budget) -> Self {
        Self { members: 0b0111, need: 2, ..Self::one_slot(bounds) }
    }

    fn backed_up(self) -> Self {
        Self { backup: true, ..self }
    }

    fn sees(self, sights: &'static [&'static str]) -> Self {
        Self { sights, ..self }
    }

    fn breaking(self, mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..self }
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Walks every state, and finds every promise kept and everything seen that there is to see.
    fn holds(self, what: &str) {
        let more = std::env::var("QUIETUS_PROTOCOL").ok().and_then(|more| more.parse().ok()).unwrap_or(0);
        let roots = (self.roots + more).min(ROOTS as Root);
        let wide = Self { bounds: self.bounds.widened(more), roots, ..self };
        let began = Instant::now();
        let checker = wide.checker().threads(2).symmetry_fn(World::representative).spawn_dfs().join();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        println!("{what}: {states} states, depth {depth}, {:.1} s", began.elapsed().as_secs_f64());
        checker.assert_properties();
    }

    /// Finds that a promise is broken.
    fn fails(self, promise: &'static str) {
        let mutant = self.mutant;
        let found = HasDiscoveries::AllOf(BTreeSet::from([promise]));
        let checker = self.checker().finish_when(found).spawn_bfs().join();
        let states = checker.unique_state_count();
        let trace =
            checker.discovery(promise).unwrap_or_else(|| panic!("{mutant:?} goes unnoticed in {states} states"));
        println!("{mutant:?}, {states} states: not \"{promise}\":\n  {:?}", trace.into_actions());
    }
}

#[test]
fn one_slot_keeps_every_promise() {
    let bounds =
        Budget { creates: 1, crashes: 2, refusals: 1, rots: 1, replacements: 1, absences: 1, rollbacks: 1, ..NONE };
    Protocol::one_slot(bounds).sees(&[ACKNOWLEDGED, FORWARD, BACK, ALREADY, BEHIND, FILLED, REFUSED]).holds("one slot");
}

#[test]
fn one_slot_and_a_backup_keep_every_promise() {
    let bounds = Budget { creates: 1, crashes: 1, refusals: 1, outages: 1, rots: 1, disks: 1, ..NONE };
    let sights = &[ACKNOWLEDGED, FORWARD, BACK, AWAY, BEYOND, RESTORED];
    Protocol::one_slot(bounds).backed_up().sees(sights).holds("one slot, backup");
}

#[test]
fn two_of_three_slots_keep_every_promise() {
    let bounds = Budget { crashes: 1, absences: 1, refusals: 1, ..NONE };
    Protocol::two_of_three(bounds).sees(&[ACKNOWLEDGED, BACK]).holds("two of three that give up");
    let bounds = Budget { crashes: 1, absences: 2, losses: 1, replacements: 1, ..NONE };
    let sights = &[ACKNOWLEDGED, FORWARD, BACK, RETURNED, WAITING, OWED, RETIRED];
    Protocol::two_of_three(bounds).sees(sights).holds("two of three");
}

#[test]
fn two_of_three_slots_and_a_backup_keep_every_promise() {
    let bounds = Budget { crashes: 1, absences: 1, losses: 1, outages: 1, disks: 1, ..NONE };
    let sights = &[ACKNOWLEDGED, FORWARD, RETURNED, AWAY, BEYOND, RESTORED];
    Protocol::two_of_three(bounds).backed_up().sees(sights).holds("two of three, backup");
}

/// A slot that is away at a start may be the one that opens what the backup has: the start without S3 keeps its root.
#[test]
fn slots_that_are_away_at_a_start_without_s3_lose_nothing_that_the_backup_has() {
    let bounds = Budget { crashes: 2, absences: 2, outages: 1, disks: 1, ..NONE };
    Protocol::two_of_three(bounds).backed_up().holds("two of three, backup, two absences");
}

#[test]
fn the_slot_must_not_commit_before_the_file_is_durable() {
    let bounds = Budget { crashes: 1, ..NONE };
    Protocol::one_slot(bounds).breaking(Mutant::SlotBeforeFile).fails(SETTLES);
}

#[test]
fn a_staged_root_must_not_serve_twice() {
    let bounds = Budget { refusals: 1, ..NONE };
    let broken = Protocol::one_slot(bounds).breaking(Mutant::RootReused);
    broken.clone().fails(BELOW);
    broken.fails(DESTROYED);
}

#[test]
fn what_the_page_cache_holds_must_not_be_committed() {
    let bounds = Budget { crashes: 2, ..NONE };
    Protocol::one_slot(bounds).breaking(Mutant::NoFlush).fails(SETTLES);
}

#[test]
fn recovery_must_not_go_back_to_a_point_in_time() {
    let bounds = Budget { creates: 2, crashes: 1, rots: 1, ..NONE };
    Protocol::one_slot(bounds).breaking(Mutant::PointInTime).fails(LOST);
}

#[test]
fn the_slot_must_not_commit_before_the_backup() {
    Protocol::one_slot(NONE).backed_up().breaking(Mutant::SlotBeforeBackup).fails(BACKUP);
}

#[test]
fn an_old_share_must_not_go_before_enough_new_ones_are_confirmed() {
    let bounds = Budget { crashes: 1, ..NONE };
    Protocol::two_of_three(bounds).breaking(Mutant::WipeBeforeConfirmed).fails(SETTLES);
}

#[test]
fn the_file_must_go_before_the_staged_root() {
    let bounds = Budget { crashes: 1, refusals: 1, ..NONE };
    Protocol::one_slot(bounds).breaking(Mutant::DiscardBeforeUnlink).fails(SETTLES);
}

#[test]
fn a_retired_slot_must_be_counted() {
    let bounds = Budget { absences: 2, replacements: 1, losses: 1, ..NONE };
    Protocol::two_of_three(bounds).breaking(Mutant::RetiredNotCounted).fails(DESTROYED);
}

#[test]
fn an_absent_slot_must_be_counted() {
    let bounds = Budget { absences: 2, ..NONE };
    Protocol::two_of_three(bounds).breaking(Mutant::AbsentNotCounted).fails(DESTROYED);
}

#[test]
fn a_share_that_waits_must_be_counted() {
    let bounds = Budget { absences: 2, ..NONE };
    Protocol::two_of_three(bounds).breaking(Mutant::WaitingNotCounted).fails(DESTROYED);
}

#[test]
fn every_old_root_must_be_counted() {
    let bounds = Budget { absences: 3, replacements: 1, losses: 1, ..NONE };
    Protocol::two_of_three(bounds).breaking(Mutant::OneRootCounted).fails(DESTROYED);
}

#[test]
fn a_receiving_key_must_not_outlive_a_rotation() {
    let bounds = Budget { absences: 1, refusals: 1, ..NONE };
    Protocol::two_of_three(bounds).breaking(Mutant::ReceivingKeyKept).fails(LINGERS);
}

#[test]
fn a_slot_that_comes_back_must_get_what_the_backup_needs() {
    let bounds = Budget { absences: 1, outages: 1, ..NONE };
    Protocol::two_of_three(bounds).backed_up().breaking(Mutant::PresentRootOnly).fails(BACKUP);
}

#[test]
fn a_second_start_without_s3_keeps_what_the_first_was_unsure_of() {
    let bounds = Budget { crashes: 2, outages: 1, ..NONE };
    Protocol::one_slot(bounds).backed_up().holds("two starts in one outage");
}

#[test]
fn a_receipt_must_not_go_out_before_the_slot_commits() {
    Protocol::one_slot(NONE).breaking(Mutant::AnswerBeforeCommit).fails(DESTROYED);
}

#[test]
fn an_older_copy_must_not_be_taken() {
    let bounds = Budget { crashes: 1, rollbacks: 1, ..NONE };
    Protocol::one_slot(bounds).breaking(Mutant::AnyRootTaken).fails(UNDONE);
}

#[test]
fn a_short_log_must_not_be_trusted_while_s3_is_away() {
    let bounds = Budget { creates: 2, crashes: 1, outages: 1, rots: 1, ..NONE };
    Protocol::one_slot(bounds).backed_up().breaking(Mutant::ShortLogTrusted).fails(HISTORY);
}
