//! The protocol's steps and what the environment does to them. A step is one thing that is durable or not: a crash fits
//! between any two.

use super::{
    Mutant, Protocol,
    gateway::finish,
    roll::{Roll, generation, id, number},
    world::{At, Budget, Disk, File, Image, Outbox, Phase, Root, SLOTS, Set, Slot, World, members, one},
};
use crate::{
    domain::id::RootId,
    keys::{
        backup::roots::Roots,
        command::Rotation,
        slot::table::Table,
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
        let roll = Roll::of(&Table::first(self.need as u8, self.members.count_ones() as u8, id(0)), None);
        let (root, before, waiting, outbox) = (0, None, 0, Outbox::default());
        let image = Image { number: 1, root, before, live: 0b11, members: self.members, waiting, roll, outbox };
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
            roll,
            roots: self.backup.then(|| Roots::alone(id(0), 1, true)),
            known: 0,
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
                .flat_map(|old| members(here & !last.members).map(move |new| (old, new)))
                .filter(|(_, new)| world.roll.entry(*new) == 0);
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
        if self.is_behind(world) {
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
                world.disk = None;
                world.go_down();
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
            Step::Tidy(slot) => self.tidy(&mut world, slot),
            Step::Start => {
                let (image, decision) = self.consider(&world, world.at(At::Here))?;
                world.roots = self.backup.then(|| self.found(&world, image));
                world.roll = image.roll;
                self.settle(world.disk.as_mut()?, image, &decision);
                world.phase = Phase::Idle;
                world.known = self.kept(&world).1;
            }
            step => self.write(&mut world, step)?,
        }
        if world.phase == Phase::Idle {
            self.confirm(&mut world);
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
                let mut image = Image { number: last.number + 1, live: last.live | thing, ..last };
                image.outbox = self.waits(world.roots.as_ref(), &last, &image);
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
                if let Some(roots) = &mut world.roots {
                    finish(roots);
                }
                let mut last = last;
                if let Some((_, new)) = replace {
                    // A command of its own says who is to join, before it gets anything.
                    let mut table = world.roll.table();
                    table.announce(1, id(root))?;
                    world.roll = Roll::of(&table, Some(new));
                    let said = Image { number: last.number + 1, roll: world.roll, ..last };
                    let outbox = self.waits(world.roots.as_ref(), &last, &said);
                    last = Image { outbox, ..said };
                    disk.log.push(last);
                    disk.synced = disk.log.len() as u8;
                }
                let mut roll = world.roll;
                roll.change(|table| {
                    table.advance(generation(root));
                    if let Some((old, new)) = replace {
                        table.reshare(self.need as u8, &[number(old)], &[number(new)]);
                    }
                });
                let (live, before) = (last.live & !erase, Some(last.root));
                let mut image =
                    Image { number: last.number + 1, root, before, live, members, waiting: 0, roll, ..last };
                image.outbox = self.waits(world.roots.as_ref(), &last, &image);
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
                world.roll = last.roll;
                if let Some(roots) = &mut world.roots {
                    roots.rotated(u64::from(last.number), id(last.root));
                    world.known |= last.before.map_or(0, one);
                }
                world.phase = Phase::Idle;
            }
            (Step::Upload, _) => {
                world.backup = Image { outbox: Outbox::default(), ..last };
                if let Some(roots) = &mut world.roots {
                    roots.published(u64::from(last.number));
                }
                world.stored |= world.acked & last.live;
            }
            (Step::Checkpoint, _) => {
                (disk.tables, disk.log, disk.synced) = (last, vec![], 0);
                let backed_up = if self.backup { world.backup.number } else { u8::MAX };
                disk.files.retain(|file| file.image.number > backed_up);
            }
            (Step::Kill { torn }, _) => {
                world.left.crashes -= 1;
                if torn {
                    disk.files.last_mut()?.whole = false;
                }
                world.go_down();
            }
            (Step::PowerLoss { keep, file: fate }, _) => {
                world.left.crashes -= 1;
                disk.log.truncate(usize::from(keep));
                disk.synced = keep;
                if fate == Fate::Absent {
                    disk.files.retain(|file| file.synced);
                }
                for file in disk.files.iter_mut().filter(|file| !file.synced) {
                    file.whole &= fate == Fate::Whole;
                    file.synced = true;
                }
                world.go_down();
            }
            (Step::Rot(at), _) => {
                world.left.rots -= 1;
                disk.bad = Some(at);
            }
            _ => return None,
        }
        Some(())
    }

    /// Takes a staged root back; whoever was to join with it and is here has nothing, and is not counted.
    fn discard(&self, world: &mut World, root: Root) {
        for (slot, state) in (0..).zip(&mut world.slots).filter(|(_, slot)| slot.at == At::Here) {
            state.shares &= !one(root);
            world.roll.change(|table| table.withdraw(Some(id(root)), Some(number(slot))));
        }
        if self.has(Mutant::RootReused) {
            world.next_root = root;
        }
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
            last = Image { outbox: last.outbox, ..world.backup };
        }
        // What is filled from files is in the outbox from then on, and nothing goes from there.
        let mut outbox = last.outbox;
        let mut images = vec![last];
        for File { image, .. } in disk.files.iter().filter(|file| file.whole) {
            if image.number > last.number && self.backup {
                outbox = outbox.with(image.number, image.before.map(|before| (before, image.root)), 0);
                images.push(Image { outbox, ..*image });
            } else {
                images.push(*image);
            }
        }
        let held: Vec<RootId> = images
            .iter()
            .filter(|image| {
                self.has(Mutant::AnyRootTaken) || self.matching(world, **image, here).count_ones() >= self.need
            })
            .map(|image| id(image.root))
            .collect();
        let content = |File { image, whole, .. }: &File| match image.before.filter(|_| *whole) {
            None => Content::Torn,
            Some(before) => {
                let (generation, from, to) = (u64::from(image.number), id(before), id(image.root));
                Content::Whole(Some(Rotation { generation, from, to }))
            }
        };
        // A torn file may give no number.
        let number = |file: &File| if file.whole { u64::from(file.image.number) } else { 0 };
        let mut files: Vec<_> = disk.files.iter().map(|file| (number(file), content(file))).collect();
        files.sort_unstable_by_key(|(number, _)| *number);
        let decision = decide(u64::from(last.number), id(last.root), &files, &held).ok()?;
        let image = images.into_iter().find(|image| u64::from(image.number) == decision.last_number)?;
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
