//! The protocol's steps and what the environment does to them. A step is one thing that is durable or not: a crash fits
//! between any two.

use super::{
    Mutant, Protocol,
    world::{At, Budget, Disk, File, Image, Phase, Root, SLOTS, Set, Slot, World, members, one},
};
use crate::{
    domain::id::RootId,
    keys::{
        command::Rotation,
        start::decide::{Content, Decision, decide},
    },
};

/// What becomes of a file that was not synced when the power goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Absent,
    Torn,
    Whole,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Create,
    SyncCreate,
    Rotate {
        erase: Set,
        replace: Option<(u8, u8)>,
    },
    Stage(u8),
    Refuse,
    WriteFile,
    Withdraw,
    EndWithdrawal,
    SyncFile,
    WriteBatch,
    SyncBatch,
    Upload,
    Tidy(u8),
    Checkpoint,
    Start,
    Restore,

    /// The slot takes its share, and is gone before it says so.
    TakeAndLeave(u8),
    Leave(u8),
    Return(u8),
    Lose(u8),
    Kill {
        torn: bool,
    },
    PowerLoss {
        keep: u8,
        file: Fate,
    },
    Rot(u8),
    /// Somebody puts the first state in the place of the present one, although an erasure was acknowledged since.
    PutBack,
    LoseNode,
    S3Goes,
    S3Returns,
}

impl Protocol {
    pub fn first_world(&self) -> World {
        let image = Image { number: 1, root: 0, before: None, live: 0b11, members: self.members, waiting: 0 };
        let disk = Disk { tables: image, log: vec![], synced: 0, bad: None, files: vec![] };
        let mut slots = [Slot { at: At::Here, shares: 0, reach: 0 }; SLOTS];
        for member in members(self.members) {
            slots[usize::from(member)].shares = one(0);
        }
        World {
            phase: Phase::Idle,
            disk: Some(disk),
            backup: image,
            s3: true,
            slots,
            sealed: [image.live, 0, 0, 0, 0, 0],
            next_root: 1,
            born: image.live,
            acked: image.live,
            stored: if self.backup { image.live } else { 0 },
            doomed: 0,
            forgotten: 0,
            left: self.bounds,
        }
    }

    pub fn steps(&self, world: &World, steps: &mut Vec<Step>) {
        self.environment(world, steps);
        let Some(disk) = &world.disk else {
            if self.backup && world.s3 {
                steps.push(Step::Restore);
            }
            return;
        };
        match world.phase {
            Phase::Down => {
                if self.consider(world, world.at(At::Here)).is_some() {
                    steps.push(Step::Start);
                }
            }
            Phase::Idle => self.idle(world, disk, steps),
            Phase::Creating => steps.push(Step::SyncCreate),
            Phase::Staging { image, confirmed } => {
                let here = world.at(At::Here) & image.members;
                for slot in members(here & !confirmed) {
                    steps.push(Step::Stage(slot));
                    if world.left.absences > 0 {
                        steps.push(Step::TakeAndLeave(slot));
                    }
                }
                if here & !confirmed == 0 && confirmed.count_ones() >= self.need {
                    steps.push(Step::WriteFile);
                }
                if world.left.refusals > 0 || (here | confirmed).count_ones() < self.need {
                    steps.push(Step::Refuse);
                }
            }
            Phase::Filed => {
                steps.push(Step::SyncFile);
                if world.left.refusals > 0 {
                    steps.push(Step::Withdraw);
                }
                if self.has(Mutant::SlotBeforeFile) {
                    steps.extend(self.untidy(world).map(Step::Tidy));
                }
            }
            Phase::Withdrawn { .. } => steps.push(Step::EndWithdrawal),
            Phase::Agreed => steps.push(Step::WriteBatch),
            Phase::Written => steps.push(Step::SyncBatch),
        }
    }

    fn idle(&self, world: &World, disk: &Disk, steps: &mut Vec<Step>) {
        let last = disk.last();
        if world.left.creates > 0 {
            steps.push(Step::Create);
        }
        let untidy = self.untidy(world);
        if untidy.clone().next().is_none() && world.next_root < self.roots {
            let here = world.at(At::Here);
            // A slot that is away or lost is replaced; where there is one only, it is moved.
            let old = if self.need == 1 { last.members } else { last.members & !here };
            let replacements = members(if world.left.replacements > 0 { old } else { 0 })
                .flat_map(|old| members(here & !last.members).map(move |new| (old, new)));
            for replace in [None].into_iter().chain(replacements.map(Some)) {
                let next = replaced(last.members, replace);
                if (next & here).count_ones() < self.need {
                    continue;
                }
                // Things are alike, but for having been asked for before.
                let fresh = members(last.live & 0b11 & !world.doomed).take(1);
                let things = fresh.chain(members(last.live & world.doomed)).map(one).chain(replace.map(|_| 0));
                steps.extend(things.map(|erase| Step::Rotate { erase, replace }));
            }
        }
        steps.extend(untidy.map(Step::Tidy));
        if self.backup && world.s3 && world.backup.number < last.number {
            steps.push(Step::Upload);
        }
        // With several slots what is in the log is as safe as what is in the tables, and a start flushes.
        if self.need == 1 && !disk.log.is_empty() {
            steps.push(Step::Checkpoint);
        }
    }

    fn environment(&self, world: &World, steps: &mut Vec<Step>) {
        let (left, running) = (world.left, world.phase != Phase::Down);
        if let Some(disk) = &world.disk {
            if running && left.crashes > 0 {
                steps.push(Step::Kill { torn: false });
                if world.phase == Phase::Filed {
                    steps.push(Step::Kill { torn: true });
                }
            }
            if left.crashes > 0 && disk.is_exposed() {
                let unsynced = disk.files.iter().any(|file| !file.synced);
                let fates: &[Fate] = if unsynced { &[Fate::Absent, Fate::Torn, Fate::Whole] } else { &[Fate::Whole] };
                for keep in disk.synced..=disk.log.len() as u8 {
                    steps.extend(fates.iter().map(|file| Step::PowerLoss { keep, file: *file }));
                }
            }
            if left.rots > 0 && !running && !disk.is_exposed() {
                // The last record of the log is told from one that was never whole only if something else holds it.
                let held = |image: &Image| {
                    let in_a_file = disk.files.iter().any(|file| file.whole && file.image == *image);
                    in_a_file || self.backup && world.backup.number >= image.number
                };
                let rots = (0..).zip(&disk.log).filter(|(at, image)| at + 1 < disk.log.len() as u8 || held(image));
                steps.extend(rots.map(|(at, _)| Step::Rot(at)));
            }
            if left.rollbacks > 0 && !running && world.forgotten != 0 {
                steps.push(Step::PutBack);
            }
            if left.disks > 0 {
                steps.push(Step::LoseNode);
            }
        }
        for (slot, state) in (0..).zip(&world.slots) {
            match state.at {
                At::Here if left.absences > 0 => steps.push(Step::Leave(slot)),
                // Who comes back in the midst of a rotation is taken up behind it.
                At::Away if matches!(world.phase, Phase::Idle | Phase::Down) => steps.push(Step::Return(slot)),
                _ => {}
            }
            if state.at != At::Gone && state.holds() != 0 && left.losses > 0 {
                steps.push(Step::Lose(slot));
            }
        }
        match world.s3 {
            true if self.backup && left.outages > 0 => steps.push(Step::S3Goes),
            false => steps.push(Step::S3Returns),
            true => {}
        }
    }

    pub fn after(&self, mut world: World, step: Step) -> Option<World> {
        match step {
            Step::Restore => {
                let tables = world.backup;
                world.disk = Some(Disk { tables, log: vec![], synced: 0, bad: None, files: vec![] });
            }
            Step::PutBack => {
                world.left.rollbacks -= 1;
                world.disk = self.first_world().disk;
            }
            Step::LoseNode => {
                world.left.disks -= 1;
                (world.disk, world.phase) = (None, Phase::Down);
                world.acked &= world.stored;
            }
            Step::S3Goes => (world.s3, world.left.outages) = (false, world.left.outages - 1),
            Step::S3Returns => world.s3 = true,
            Step::Leave(slot) => {
                world.left.absences -= 1;
                world.slots[usize::from(slot)].at = At::Away;
            }
            Step::Return(slot) => world.slots[usize::from(slot)].at = At::Here,
            Step::Lose(slot) => {
                world.left.losses -= 1;
                world.slots[usize::from(slot)].at = At::Gone;
            }
            Step::Tidy(slot) => world.slots[usize::from(slot)] = self.tidied(&world, slot),
            Step::Start => {
                let (image, decision) = self.consider(&world, world.at(At::Here))?;
                self.settle(world.disk.as_mut()?, image, &decision);
                world.phase = Phase::Idle;
            }
            step => self.write(&mut world, step)?,
        }
        // An erasure is acknowledged as soon as it may be: later would promise less.
        if world.phase == Phase::Idle && world.owed() != 0 && self.is_destroyed(&world) {
            world.forgotten |= world.owed();
        }
        world.forget_dead_roots();
        Some(world)
    }

    /// Steps that touch the disk, or lead there.
    fn write(&self, world: &mut World, step: Step) -> Option<()> {
        let disk = world.disk.as_mut()?;
        let last = disk.last();
        match (step, world.phase) {
            (Step::Create, _) => {
                world.left.creates -= 1;
                let thing = one(world.born.trailing_ones() as u8);
                world.born |= thing;
                let image = Image { number: last.number + 1, live: last.live | thing, ..last };
                disk.log.push(image);
                world.sealed[usize::from(image.root)] |= image.live;
                world.phase = Phase::Creating;
            }
            (Step::SyncCreate, _) => {
                disk.synced = disk.log.len() as u8;
                // The one that was drawn last: only one is under way.
                world.acked |= one(world.born.trailing_ones() as u8 - 1);
                world.phase = Phase::Idle;
            }
            (Step::Rotate { erase, replace }, _) => {
                world.left.replacements -= u8::from(replace.is_some());
                world.doomed |= erase;
                let (root, members) = (world.next_root, replaced(last.members, replace));
                world.next_root += 1;
                let (number, before, live) = (last.number + 1, Some(last.root), last.live & !erase);
                let image = Image { number, root, before, live, members, waiting: 0 };
                world.phase = Phase::Staging { image, confirmed: 0 };
            }
            (Step::Stage(number) | Step::TakeAndLeave(number), Phase::Staging { image, mut confirmed }) => {
                let slot = &mut world.slots[usize::from(number)];
                slot.shares = one(image.root) | if self.has(Mutant::WipeBeforeConfirmed) { 0 } else { slot.shares };
                if step == Step::Stage(number) {
                    confirmed |= one(number);
                } else {
                    world.left.absences -= 1;
                    slot.at = At::Away;
                }
                world.phase = Phase::Staging { image, confirmed };
            }
            (Step::Refuse, Phase::Staging { image, .. }) => {
                world.left.refusals = world.left.refusals.saturating_sub(1);
                self.discard(world, image.root);
                world.phase = Phase::Idle;
            }
            (Step::WriteFile, Phase::Staging { image, confirmed }) => {
                let image = Image { waiting: image.members & !confirmed, ..image };
                disk.files.push(File { image, whole: true, synced: false });
                world.sealed[usize::from(image.root)] |= image.live;
                for slot in members(image.waiting) {
                    world.slots[usize::from(slot)].reach |= one(image.root);
                }
                world.phase = Phase::Filed;
            }
            (Step::Withdraw, _) => {
                world.left.refusals -= 1;
                let root = disk.files.last()?.image.root;
                if self.has(Mutant::DiscardBeforeUnlink) {
                    self.discard(world, root);
                } else {
                    disk.files.pop();
                }
                world.phase = Phase::Withdrawn { root };
            }
            (Step::EndWithdrawal, Phase::Withdrawn { root }) => {
                if self.has(Mutant::DiscardBeforeUnlink) {
                    disk.files.pop();
                } else {
                    self.discard(world, root);
                }
                world.phase = Phase::Idle;
            }
            (Step::SyncFile, _) => {
                disk.files.last_mut()?.synced = true;
                world.phase = Phase::Agreed;
            }
            (Step::WriteBatch, _) => {
                let image = disk.files.last()?.image;
                disk.log.push(image);
                world.phase = Phase::Written;
            }
            (Step::SyncBatch, _) => {
                disk.synced = disk.log.len() as u8;
                world.phase = Phase::Idle;
            }
            (Step::Upload, _) => {
                world.backup = last;
                world.stored |= world.acked & last.live;
            }
            (Step::Checkpoint, _) => {
                (disk.tables, disk.log, disk.synced) = (last, vec![], 0);
                let backed_up = if self.backup { world.backup.number } else { u8::MAX };
                disk.files.retain(|file| file.image.number > backed_up);
            }
            (Step::Kill { torn }, _) => {
                world.left.crashes -= 1;
                world.phase = Phase::Down;
                if torn {
                    disk.files.last_mut()?.whole = false;
                }
            }
            (Step::PowerLoss { keep, file: fate }, _) => {
                world.left.crashes -= 1;
                world.phase = Phase::Down;
                disk.log.truncate(usize::from(keep));
                disk.synced = keep;
                if fate == Fate::Absent {
                    disk.files.retain(|file| file.synced);
                }
                for file in disk.files.iter_mut().filter(|file| !file.synced) {
                    file.whole &= fate == Fate::Whole;
                    file.synced = true;
                }
            }
            (Step::Rot(at), _) => {
                world.left.rots -= 1;
                disk.bad = Some(at);
            }
            _ => return None,
        }
        Some(())
    }

    fn discard(&self, world: &mut World, root: Root) {
        for slot in world.slots.iter_mut().filter(|slot| slot.at == At::Here) {
            slot.shares &= !one(root);
        }
        if self.has(Mutant::RootReused) {
            world.next_root = root;
        }
    }

    /// Whether every old root is destroyed, as far as the gateway counts.
    fn is_destroyed(&self, world: &World) -> bool {
        let Some(last) = world.last() else { return false };
        let counted = |(number, slot): &(u8, Slot)| match self.mutant {
            Some(Mutant::RetiredNotCounted) => last.members & one(*number) != 0,
            Some(Mutant::AbsentNotCounted) => slot.at == At::Here,
            _ => true,
        };
        let held = |slot: Slot| match self.mutant {
            Some(Mutant::WaitingNotCounted) => slot.shares,
            _ => slot.holds(),
        };
        let gone = |root: Root| {
            let slots = (0..).zip(world.slots).filter(counted);
            (slots.filter(|(_, slot)| held(*slot) & one(root) != 0).count() as u32) < self.need
        };
        match self.mutant {
            Some(Mutant::AnswerBeforeCommit) => true,
            Some(Mutant::OneRootCounted) => last.before.is_none_or(gone),
            _ => (0..world.next_root).filter(|root| *root != last.root).all(gone),
        }
    }

    /// The slot as it should be: it holds what the top and the newest backup need, and its receiving key was never used.
    fn tidied(&self, world: &World, number: u8) -> Slot {
        let slot = world.slots[usize::from(number)];
        let Some(disk) = &world.disk else { return slot };
        let last = match world.phase {
            Phase::Filed => disk.files.last().map_or(disk.last(), |file| file.image),
            _ => disk.last(),
        };
        let share = |image: Image| if image.members & one(number) != 0 { one(image.root) } else { 0 };
        let top = share(last);
        let mut shares = top;
        if self.backup && !self.has(Mutant::SlotBeforeBackup) {
            let has = !self.has(Mutant::PresentRootOnly) || slot.shares & one(world.backup.root) != 0;
            shares |= if has { share(world.backup) } else { 0 };
        }
        let keeps = self.has(Mutant::ReceivingKeyKept) && slot.shares & top != 0;
        Slot { shares, reach: if keeps { slot.reach } else { 0 }, ..slot }
    }

    /// Slots that are here and hold more or less than they should.
    pub fn untidy(&self, world: &World) -> impl Iterator<Item = u8> + Clone {
        let untidy = |slot: &u8| self.tidied(world, *slot) != world.slots[usize::from(*slot)];
        members(members(world.at(At::Here)).filter(untidy).map(one).sum())
    }

    /// What a start with these slots does; none when it refuses.
    pub fn consider(&self, world: &World, here: Set) -> Option<(Image, Decision)> {
        let disk = world.disk.as_ref()?;
        let log = self.recover(disk)?;
        if self.backup && !world.s3 && log.len() < disk.log.len() && !self.has(Mutant::ShortLogTrusted) {
            return None;
        }
        let mut last = log.last().copied().unwrap_or(disk.tables);
        if self.backup && world.s3 && world.backup.number > last.number {
            last = world.backup;
        }
        let images = [last].into_iter().chain(disk.files.iter().filter(|file| file.whole).map(|file| file.image));
        let held: Vec<RootId> = images
            .clone()
            .filter(|image| {
                self.has(Mutant::AnyRootTaken) || self.matching(world, *image, here).count_ones() >= self.need
            })
            .map(|image| id(image.root))
            .collect();
        let content = |File { image, whole, .. }: &File| match image.before.filter(|_| *whole) {
            None => Content::Torn,
            Some(before) => {
                let (number, from, to) = (u64::from(image.number), id(before), id(image.root));
                Content::Whole { number, rotation: Some(Rotation { generation: number, from, to }) }
            }
        };
        let files: Vec<_> = disk.files.iter().map(|file| (u64::from(file.image.number), content(file))).collect();
        let decision = decide(u64::from(last.number), id(last.root), &files, &held).ok()?;
        let image = images.clone().find(|image| u64::from(image.number) == decision.last_number)?;
        Some((image, decision))
    }

    /// Slots that hold their share of an image's root, or have it waiting there.
    pub fn matching(&self, world: &World, image: Image, among: Set) -> Set {
        let root = one(image.root);
        let matches = |slot: &u8| {
            let state = world.slots[usize::from(*slot)];
            state.shares & root != 0 || (state.reach & root != 0 && image.waiting & one(*slot) != 0)
        };
        members(among & image.members).filter(matches).map(one).sum()
    }

    /// What RocksDB makes of its log: a torn tail is dropped, damage before it refused.
    fn recover<'a>(&self, disk: &'a Disk) -> Option<&'a [Image]> {
        match disk.bad {
            None => Some(&disk.log),
            Some(bad) if usize::from(bad) + 1 == disk.log.len() || self.has(Mutant::PointInTime) => {
                Some(&disk.log[..usize::from(bad)])
            }
            Some(_) => None,
        }
    }

    fn settle(&self, disk: &mut Disk, image: Image, decision: &Decision) {
        let gone = |file: &File| {
            let name = u64::from(file.image.number);
            decision.torn.contains(&name) || decision.done.contains(&name)
        };
        if self.has(Mutant::NoFlush) {
            if disk.last() != image {
                disk.log.push(image);
            }
        } else {
            (disk.tables, disk.log, disk.synced) = (image, vec![], 0);
        }
        disk.bad = None;
        disk.files.retain(|file| !gone(file));
    }
}

fn replaced(members: Set, replace: Option<(u8, u8)>) -> Set {
    replace.map_or(members, |(old, new)| members & !one(old) | one(new))
}

fn id(root: Root) -> RootId {
    RootId([root; 16])
}

impl Budget {
    /// So many more of everything that is allowed at all.
    pub fn widened(self, more: u8) -> Self {
        let widen = |bound: u8| if bound == 0 { 0 } else { bound + more };
        Self {
            creates: widen(self.creates),
            crashes: widen(self.crashes),
            refusals: widen(self.refusals),
            absences: widen(self.absences),
            losses: widen(self.losses),
            replacements: self.replacements,
            outages: widen(self.outages),
            rots: self.rots,
            disks: self.disks,
            rollbacks: self.rollbacks,
        }
    }
}
