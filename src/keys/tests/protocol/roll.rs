//! The key store's own table of slots, in few bytes.
//!
//! A [`Roll`] says what a [`Table`] says, and nothing is done to it but by the table's own methods: it is unfolded, changed, and
//! folded again. In a state of the model it lies as an array with a place for each slot, so that states are small, and so that
//! to exchange two slots is to exchange two places. Slot s has the number s + 1, and the root r is that of generation r + 1 (a root
//! that is given up leaves a gap, which a table does not see: it compares generations, and no more). No two slots ever share a
//! number. What the table knows of numbers besides is the highest, from which the next is given out: that one is beyond all places
//! until it is seated.

use super::world::{Root, SLOTS};
use crate::{domain::id::RootId, keys::slot::table::Table};

pub fn id(root: Root) -> RootId {
    RootId([root; 16])
}

pub fn generation(root: Root) -> u64 {
    u64::from(root) + 1
}

pub fn number(slot: u8) -> u8 {
    slot + 1
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Roll {
    generation: u8,
    need: u8,
    /// Of each slot the bytes `joined`, `left`, `confirmed`, `holds`; all zero where the table knows nothing of it.
    entries: [u32; SLOTS],
}

impl Roll {
    /// Of a gateway that is down: it is read back at the start.
    pub const NONE: Roll = Roll { generation: 0, need: 0, entries: [0; SLOTS] };

    /// What a table says. A number that was given out just now is that of the slot `seat`.
    pub fn of(table: &Table, seat: Option<u8>) -> Self {
        let small = |number: u64| u8::try_from(number).expect("few generations");
        let mut roll = Self { generation: small(table.generation()), need: table.k(), ..Self::NONE };
        for member in table.members() {
            let slot = if member.number > SLOTS as u8 { seat.expect("a seat") } else { member.number - 1 };
            let (joined, left, confirmed) =
                (small(member.joined), member.left.map_or(0, small), small(member.confirmed));
            let entry = &mut roll.entries[usize::from(slot)];
            assert_eq!(*entry, 0, "one slot, one number");
            *entry = u32::from_be_bytes([joined, left, confirmed, member.holds.0[0]]);
        }
        roll
    }

    /// The table that says it.
    pub fn table(&self) -> Table {
        let known = (1..).zip(self.entries).filter(|(_, entry)| *entry != 0);
        let mut row = vec![1, SLOTS as u8, 1, known.clone().count() as u8];
        let number = |row: &mut Vec<u8>, number: u8| row.extend_from_slice(&u64::from(number).to_be_bytes());
        number(&mut row, self.generation);
        // Nobody that is gone declared anything.
        row.extend([0; 9]);
        number(&mut row, 1);
        row.push(self.need);
        for (slot, entry) in known {
            let [joined, left, confirmed, holds] = entry.to_be_bytes();
            row.push(slot);
            [joined, left, confirmed].into_iter().for_each(|at| number(&mut row, at));
            row.extend_from_slice(&id(holds).0);
        }
        Table::decode(&row).expect("what a table said is a table")
    }

    /// A change of the table, by the table.
    pub fn change(&mut self, change: impl FnOnce(&mut Table)) {
        let mut table = self.table();
        change(&mut table);
        *self = Self::of(&table, None);
    }

    /// Whether a slot was in the sharing of a root.
    pub fn had(&self, slot: u8, root: Root) -> bool {
        let ([joined, left, ..], of) = (self.entry(slot).to_be_bytes(), root + 1);
        (1..=of).contains(&joined) && (left == 0 || of < left)
    }

    /// Whether a slot is known to hold nothing older than a root.
    pub fn is_confirmed(&self, slot: u8, root: Root) -> bool {
        self.entry(slot).to_be_bytes()[2] > root
    }

    /// What the table knows of a slot; 0 where it knows nothing.
    pub fn entry(&self, slot: u8) -> u32 {
        self.entries[usize::from(slot)]
    }

    /// The slots in another order.
    pub fn permuted(&self, order: [usize; SLOTS]) -> Self {
        Self { entries: order.map(|slot| self.entries[slot]), ..*self }
    }
}

#[test]
fn a_roll_loses_nothing_of_its_table() {
    let mut table = Table::first(2, 3, id(0));
    table.advance(2);
    let numbers = table.announce(1, id(2)).expect("numbers are left");
    assert_eq!(Roll::of(&table, None).table(), table);
    table.reshare(2, &[2], &numbers);
    table.confirm(1, 2, id(1));
    assert_eq!(Roll::of(&table, Some(3)).table(), table);
}
