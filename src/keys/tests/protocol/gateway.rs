//! What the running gateway knows: of its slots by the program's own table, of its backup by the program's own
//! [`Roots`]; and what it makes of that. Of what is true besides, it sees what the slots hold that are here, and what S3 says
//! where it is there.

use super::{
    Mutant, Protocol,
    roll::{generation, id, number},
    world::{At, Image, Outbox, Phase, Root, SLOTS, Set, Slot, World, members, one},
};
use crate::{
    domain::{id::RootId, time::Timestamp},
    keys::{
        Forgets,
        backup::roots::Roots,
        slot::table::{Reach, Table},
    },
};

impl Protocol {
    /// The outbox behind a command that is written now.
    pub fn waits(&self, roots: Option<&Roots>, last: &Image, next: &Image) -> Outbox {
        let rotation = (next.root != last.root).then_some((last.root, next.root));
        roots.map_or(last.outbox, |roots| last.outbox.with(next.number, rotation, roots.backed() as u8))
    }

    /// What a start knows of the backup.
    pub fn found(&self, world: &World, image: Image) -> Roots {
        let table = image.roll.table();
        let holds = |slot: &u8, root: RootId| world.slots[usize::from(*slot)].shares & one(root.0[0]) != 0;
        let forgotten = |root: RootId, of: u64| {
            let confirmed = table.members().iter().any(|member| member.joined <= of && member.confirmed > of);
            let held = |slot: &u8| table.member(number(*slot)).is_some_and(|member| member.holds == root);
            let mut here = members(world.at(At::Here));
            let wiped = here.clone().any(|slot| held(&slot) && holds(&slot, id(image.root)) && !holds(&slot, root));
            confirmed || wiped || !here.any(|slot| holds(&slot, root))
        };
        let reach = |root: RootId, of: u64| {
            let here = || members(world.at(At::Here));
            let there = |of: u8| here().any(|slot| number(slot) == of && world.slots[usize::from(slot)].shares != 0);
            table.reach(of, here().filter(|slot| holds(slot, root)).count(), there)
        };
        let (newest, own) = (world.backup, image.root);
        let is_sure = newest.root == own || reach(id(newest.root), newest.roll.table().generation()) == Reach::Opens;
        let seen = world.s3 && (newest.number > image.number || is_sure);
        let backed = if seen { newest.number.min(image.number) } else { image.outbox.gone(image.number) };
        Roots::found(id(own), u64::from(backed), &image.outbox.behind(backed), seen, forgotten, reach)
    }

    /// Whether S3 is there and the backup lacks something, as far as the gateway knows.
    pub fn is_behind(&self, world: &World) -> bool {
        let Some((roots, last)) = world.roots.as_ref().zip(world.last()).filter(|_| world.s3) else { return false };
        let news = || {
            let mut published = roots.clone();
            published.published(u64::from(last.number));
            published != *roots
        };
        world.backup.number < last.number || news()
    }

    /// Roots before the top's that slots keep for the backup, and those of them that the gateway has in memory, or finds when
    /// it asks the slots.
    pub fn kept(&self, world: &World) -> (Set, Set) {
        let owed = world.roots.as_ref().filter(|roots| roots.is_owed() && !self.has(Mutant::SlotBeforeBackup));
        let Some(mut roots) = owed.cloned() else { return (0, 0) };
        finish(&mut roots);
        let needed = roots.needed().iter().map(|root| one(root.0[0])).sum();
        let found = |root: &u8| {
            let holds = |slot: &&Slot| slot.at == At::Here && slot.shares & one(*root) != 0;
            world.known & one(*root) != 0 || world.slots.iter().filter(holds).count() as u32 >= self.need
        };
        (needed, members(needed).filter(found).map(one).sum())
    }

    /// Whether every old root is destroyed, as far as the gateway counts.
    pub fn is_destroyed(&self, world: &World) -> bool {
        let Some(last) = world.last() else { return false };
        let table = world.roll.table();
        let gone =
            |table: &Table, root: Root| table.shares_left(generation(root)) < usize::from(table.k_of(generation(root)));
        let destroyed = table.destroyed_before() == table.generation();
        let Some(mutant) = self.mutant else {
            let all = (0..last.root).all(|root| gone(&table, root));
            assert_eq!(destroyed, all, "it is enough to look at the generations that the table names");
            return destroyed;
        };
        let counted_gone = |root: Root| {
            let counted = |slot: &u8| {
                let state = world.slots[usize::from(*slot)];
                match mutant {
                    Mutant::RetiredNotCounted => last.members & one(*slot) != 0,
                    Mutant::AbsentNotCounted => state.at == At::Here,
                    Mutant::WaitingNotCounted => state.shares & one(root) != 0,
                    _ => true,
                }
            };
            let mut table = table.clone();
            for slot in (0..SLOTS as u8).filter(|slot| !counted(slot)) {
                table.confirm(number(slot), table.generation(), id(last.root));
            }
            gone(&table, root)
        };
        match mutant {
            Mutant::AnswerBeforeCommit => true,
            Mutant::OneRootCounted => last.before.is_none_or(counted_gone),
            _ => (0..last.root).all(counted_gone),
        }
    }

    /// The slot as it should be: it holds what the top and the newest backup need, and its receiving key was never used.
    fn tidied(&self, world: &World, number: u8, (needed, known): (Set, Set)) -> Slot {
        let slot = world.slots[usize::from(number)];
        let Some(disk) = &world.disk else { return slot };
        let last = match world.phase {
            Phase::Filed => disk.files.last().map_or(disk.last(), |file| file.image),
            _ => disk.last(),
        };
        if last.members & one(number) == 0 {
            // One that was retired is emptied, and before that it is left as it is.
            return if needed == 0 { Slot { shares: 0, reach: 0, ..slot } } else { slot };
        }
        let top = one(last.root);
        // While not all are known, what it holds may be what leads there.
        let (kept, reach) = if needed == known { (slot.shares & needed, 0) } else { (slot.shares, slot.reach) };
        let given = members(known).filter(|root| last.roll.had(number, *root)).map(one).sum::<Set>();
        let given = if self.has(Mutant::PresentRootOnly) { 0 } else { given };
        let keeps = self.has(Mutant::ReceivingKeyKept) && slot.shares & top != 0;
        Slot { shares: top | kept | given, reach: if keeps { slot.reach } else { reach }, ..slot }
    }

    pub fn tidy(&self, world: &mut World, slot: u8) {
        let kept = self.kept(world);
        world.slots[usize::from(slot)] = self.tidied(world, slot, kept);
        world.known = kept.1;
        if let Some(roots) = &mut world.roots {
            finish(roots);
        }
        if world.last().is_some_and(|last| last.members & one(slot) == 0) {
            world.roll.change(|table| table.wiped(number(slot), Forgets::AtOnce, Timestamp(0)));
        }
    }

    /// Slots that are here and hold more or less than they should.
    pub fn untidy(&self, world: &World) -> impl Iterator<Item = u8> + Clone {
        let kept = self.kept(world);
        let untidy = |slot: &u8| self.tidied(world, *slot, kept) != world.slots[usize::from(*slot)];
        members(members(world.at(At::Here)).filter(untidy).map(one).sum())
    }

    /// Slots that hold the top's share and nothing else are known to, as soon as the backup needs nothing else.
    pub fn confirm(&self, world: &mut World) {
        let kept = self.kept(world);
        world.known &= kept.1;
        let Some(last) = world.last().filter(|_| kept.0 == 0) else { return };
        let news = |slot: &u8| {
            let tidy = || self.tidied(world, *slot, kept) == world.slots[usize::from(*slot)];
            !world.roll.is_confirmed(*slot, last.root) && tidy()
        };
        let news: Set = members(world.at(At::Here) & last.members).filter(news).map(one).sum();
        if news != 0 {
            world.roll.change(|table| {
                members(news).for_each(|slot| table.confirm(number(slot), generation(last.root), id(last.root)));
                table.tidy();
            });
        }
    }
}

/// What becomes of a rotation that is applied: the slots destroy the roots of before, or it is put off.
pub fn finish(roots: &mut Roots) {
    match roots.due() {
        Some(_) => roots.settled(),
        None => drop(roots.put_off()),
    }
}
