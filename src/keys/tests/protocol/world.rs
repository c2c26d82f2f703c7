//! What the model's world consists of: the gateway's disk, backup and slots, what the callers were told, and what an attacker
//! has seen by now.

use super::roll::{Roll, generation, id};
use crate::keys::{backup::roots::Roots, command::Rotation};

/// A set of roots, slots or things: a bit each.
pub type Set = u8;
/// A root, by its number.
pub type Root = u8;

/// Most roots that are ever drawn.
pub const ROOTS: usize = 6;
/// Slots, those in reserve included.
pub const SLOTS: usize = 4;

pub fn one(member: u8) -> Set {
    1 << member
}

pub fn members(set: Set) -> impl Iterator<Item = u8> + Clone {
    (0..8).filter(move |member| set & one(*member) != 0)
}

/// The key store after some command: what all of its pages and rows amount to. Keys of pages and sealed bytes are abstracted
/// away: what lives is what the root opens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Image {
    /// Number of the command.
    pub number: u8,
    /// The root that seals the top.
    pub root: Root,
    /// The root that it took the place of.
    pub before: Option<Root>,
    /// Things that live.
    pub live: Set,
    /// Slots among which the root is shared.
    pub members: Set,
    /// Members whose share waits in a row, sealed to the slot's receiving key.
    pub waiting: Set,
    /// What the table of slots says.
    pub roll: Roll,
    pub outbox: Outbox,
}

/// Rows of rotations that the backup may lack; of the node alone. Rows of other commands tell a start how far the backup is at
/// least, but not under which root: without them it is taken to be as far as the next rotation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Outbox {
    /// For each root the command that brought it, where its row is there, and 0 where it is not.
    brought: [u8; ROOTS],
    /// The root before that.
    before: [Root; ROOTS],
}

impl Outbox {
    /// With a command more, which may rotate; the rows up to `sent` go with its batch.
    pub fn with(mut self, command: u8, rotation: Option<(Root, Root)>, sent: u8) -> Self {
        if let Some((from, to)) = rotation {
            (self.brought[usize::from(to)], self.before[usize::from(to)]) = (command, from);
        }
        for (brought, before) in self.brought.iter_mut().zip(&mut self.before).filter(|(brought, _)| **brought <= sent)
        {
            (*brought, *before) = (0, 0);
        }
        self
    }

    /// Rotations behind a command.
    pub fn behind(&self, number: u8) -> Vec<(u64, Rotation)> {
        let rows = (0..).zip(self.brought.into_iter().zip(self.before));
        rows.filter(|(_, (at, _))| *at > number)
            .map(|(root, (at, before))| {
                (u64::from(at), Rotation { generation: generation(root), from: id(before), to: id(root) })
            })
            .collect()
    }

    /// How far the backup is at least, by the rows of a store whose last command this is.
    pub fn gone(&self, last: u8) -> u8 {
        self.brought.into_iter().filter(|at| *at > 0).min().map_or(last, |first| first - 1)
    }
}

/// A rotation's file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct File {
    pub image: Image,
    pub whole: bool,
    pub synced: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Disk {
    /// What no longer depends on the log.
    pub tables: Image,
    /// Each command behind it.
    pub log: Vec<Image>,
    /// How many of them loss of power leaves.
    pub synced: u8,
    /// A record that the medium has damaged.
    pub bad: Option<u8>,
    pub files: Vec<File>,
}

impl Disk {
    /// What can be read back.
    pub fn last(&self) -> Image {
        self.log.last().copied().unwrap_or(self.tables)
    }

    /// Whether loss of power would take something.
    pub fn is_exposed(&self) -> bool {
        usize::from(self.synced) < self.log.len() || self.files.iter().any(|file| !file.synced)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum At {
    Here,
    Away,
    /// Lost or stolen: it never comes back, and what it held the attacker may have.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Slot {
    pub at: At,
    /// Roots of which it holds a share (the root itself where one slot is enough).
    pub shares: Set,
    /// Roots of which a share was ever sealed to the receiving key that it holds now. Who has the slot and any copy of the
    /// row has the share.
    pub reach: Set,
}

impl Slot {
    pub fn holds(self) -> Set {
        self.shares | self.reach
    }
}

/// Where the gateway is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    Down,
    Idle,
    /// A create's batch is written and not synced.
    Creating,
    /// A rotation asks the slots to take their shares.
    Staging {
        image: Image,
        confirmed: Set,
    },
    /// Its file is written and not synced.
    Filed,
    /// It gave up before the commit point; half of what that takes is done.
    Withdrawn {
        root: Root,
    },
    /// Its file is synced: the commit point.
    Agreed,
    /// Its batch is written and not synced.
    Written,
}

/// How often the environment does what it can do; the bounds of a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Budget {
    pub creates: u8,
    /// Kills and losses of power.
    pub crashes: u8,
    /// Rotations that give up although nothing forces them to.
    pub refusals: u8,
    /// Slots that go away.
    pub absences: u8,
    /// Slots that are lost.
    pub losses: u8,
    /// Slots that are replaced.
    pub replacements: u8,
    /// Times that S3 goes away.
    pub outages: u8,
    /// Records of the log that go bad.
    pub rots: u8,
    /// Nodes that are lost.
    pub disks: u8,
    /// Older copies that are put in the place of the key store.
    pub rollbacks: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub phase: Phase,
    /// None when the node is lost.
    pub disk: Option<Disk>,
    /// The newest backup; where there is none, the first state for ever.
    pub backup: Image,
    pub s3: bool,
    pub slots: [Slot; SLOTS],
    /// What the running gateway knows of its slots, ahead of the row.
    pub roll: Roll,
    /// What it knows of its backup, where there is one.
    pub roots: Option<Roots>,
    /// Of the roots that the backup needs beside the top's, those of which it has every share in memory.
    pub known: Set,
    /// For each root, what lived in any state that was ever written under it: rows, logs, files (torn ones too), backups.
    pub sealed: [Set; ROOTS],
    pub next_root: Root,
    /// Things that were ever created, whether their create survived or not.
    pub born: Set,
    /// Creates that were acknowledged and are still promised.
    pub acked: Set,
    /// Those that were acknowledged as being in the backup too.
    pub stored: Set,
    /// Things of which an erasure was asked.
    pub doomed: Set,
    /// Things whose erasure was acknowledged as *destroyed*.
    pub forgotten: Set,
    pub left: Budget,
}

impl World {
    /// The process ends, and what it knew with it.
    pub fn go_down(&mut self) {
        (self.phase, self.roll, self.roots, self.known) = (Phase::Down, Roll::NONE, None, 0);
    }

    pub fn last(&self) -> Option<Image> {
        self.disk.as_ref().map(Disk::last)
    }

    pub fn at(&self, at: At) -> Set {
        (0..).zip(self.slots).filter(|(_, slot)| slot.at == at).map(|(number, _)| one(number)).sum()
    }

    /// How many slots hold a share of a root, or may: lost, retired and absent ones included.
    pub fn holders(&self, root: Root) -> u32 {
        self.slots.iter().filter(|slot| slot.holds() & one(root) != 0).count() as u32
    }

    /// Erasures that are durable and not acknowledged.
    pub fn owed(&self) -> Set {
        self.last().map_or(0, |last| self.acked & self.doomed & !last.live & !self.forgotten)
    }

    /// What was sealed under a root of which nobody has anything is out of everybody's reach: states that differ in it alone
    /// are one.
    pub fn forget_dead_roots(&mut self) {
        let used = [self.last().map(|last| last.root), Some(self.backup.root), self.next_root.checked_sub(1)];
        for root in 0..self.next_root {
            if self.holders(root) == 0 && !used.contains(&Some(root)) {
                self.sealed[usize::from(root)] = 0;
            }
        }
    }

    /// The same world with its slots in order: which of several slots is which makes no difference. Nothing that the program
    /// does with a table of slots depends on their numbers but for whether two are the same, so that a table whose numbers are
    /// exchanged like the slots is the table of the world with the slots exchanged.
    pub fn representative(&self) -> Self {
        let mut world = self.clone();
        let mut keys = self.slots.map(|slot| (slot, 0_u64, [0; 3]));
        world.each_set_of_slots(|set| {
            for (number, (_, sets, _)) in (0..).zip(&mut keys) {
                *sets = *sets << 1 | u64::from(*set >> number & 1);
            }
        });
        let rolls = [self.roll, self.last().map_or(Roll::NONE, |last| last.roll), self.backup.roll];
        for (number, (_, _, entries)) in (0..).zip(&mut keys) {
            *entries = rolls.map(|roll| roll.entry(number));
        }
        let mut order = [0, 1, 2, 3];
        order.sort_by_key(|number| keys[*number]);
        if order.is_sorted() {
            return world;
        }
        world.slots = order.map(|number| self.slots[number]);
        world.each_set_of_slots(|set| *set = (0..).zip(order).map(|(to, from)| (*set >> from & 1) << to).sum());
        world.roll = world.roll.permuted(order);
        world.each_image(|image| image.roll = image.roll.permuted(order));
        world
    }

    fn each_image(&mut self, mut visit: impl FnMut(&mut Image)) {
        visit(&mut self.backup);
        if let Some(disk) = &mut self.disk {
            visit(&mut disk.tables);
            disk.log.iter_mut().for_each(&mut visit);
            disk.files.iter_mut().for_each(|file| visit(&mut file.image));
        }
        if let Phase::Staging { image, .. } = &mut self.phase {
            visit(image);
        }
    }

    fn each_set_of_slots(&mut self, mut visit: impl FnMut(&mut Set)) {
        self.each_image(|image| {
            visit(&mut image.members);
            visit(&mut image.waiting);
        });
        if let Phase::Staging { confirmed, .. } = &mut self.phase {
            visit(confirmed);
        }
    }
}
