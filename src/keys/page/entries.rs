//! The entries of one page, in one piece: what a search looks at lies side by side, and a page is copied, summed up and let go
//! of without a visit to each of dozens of places in memory.
//!
//! What is shared of them never changes. What a plan changes it notes beside them ([`Changes`]), and what comes of it is copied
//! into a piece of its own, each entry once and into its own place. So, of a secret that was erased, by the places where it
//! could be:
//! - *the piece that has it* goes with the last that shares the page, and every entry in it is wiped then;
//! - *the piece that comes after* never had it. Both are slices in boxes, which have no room beyond their end where something
//!   taken out, or moved off, could stay;
//! - *on the way*, while a page is decoded or a plan is made, entries are moved, and what is moved may be copied. So what an
//!   entry itself has of a recording's secrets is masked ([`Veiled`](super::super::veil::Veiled)); wrapped ones, and the
//!   secrets of accounts, periods and links, lie behind pointers. Buffers that grew, and all of a plan, are freed before its
//!   command is applied, and wiped as they are freed by the allocator of the program.

use super::{Entry, Place};
use crate::domain::time::Minute;
use std::{collections::BTreeMap, ops::Deref};

/// What becomes of places in a page: the entry that stands there from now on; none, and what was there goes.
pub type Changes = BTreeMap<Place, Option<Entry>>;

/// Entries in ascending order of place.
#[derive(Clone)]
pub struct Entries {
    /// Where each of them stands: all that a search reads on its way.
    places: Box<[Place]>,
    entries: Box<[Entry]>,
    size: usize,
    due: Minute,
}

impl Entries {
    /// Takes over what is in order.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self {
            places: entries.iter().map(Entry::place).collect(),
            size: entries.iter().map(Entry::size).sum(),
            due: due(&entries),
            entries: entries.into_boxed_slice(),
        }
    }

    /// A copy with changes.
    pub fn changed(&self, changes: Changes) -> Self {
        let (mut len, mut size, mut first, mut first_goes) = (self.len(), self.size, self.due, false);
        for (place, change) in &changes {
            if let Ok(index) = self.find(place) {
                let old = &self.entries[index];
                len -= 1;
                size -= old.size();
                first_goes |= old.due() == self.due && self.due != Minute::NEVER;
            }
            if let Some(new) = change {
                len += 1;
                size += new.size();
                first = first.min(new.due());
            }
        }
        let (mut places, mut entries) = (Vec::with_capacity(len), Vec::with_capacity(len));
        let mut from = 0;
        for (place, change) in changes {
            let (to, behind) = match self.find(&place) {
                Ok(index) => (index, index + 1),
                Err(index) => (index, index),
            };
            places.extend_from_slice(&self.places[from..to]);
            entries.extend_from_slice(&self.entries[from..to]);
            from = behind;
            if let Some(entry) = change {
                places.push(place);
                entries.push(entry);
            }
        }
        places.extend_from_slice(&self.places[from..]);
        entries.extend_from_slice(&self.entries[from..]);
        let due = if first_goes { due(&entries) } else { first };
        Self { places: places.into_boxed_slice(), entries: entries.into_boxed_slice(), size, due }
    }

    /// Copies of both halves.
    pub fn halves(&self) -> (Self, Self) {
        let (left, right) = self.entries.split_at(self.len() / 2);
        (Self::new(left.to_vec()), Self::new(right.to_vec()))
    }

    /// A copy with those of the page behind this one.
    pub fn joined(&self, right: &Self) -> Self {
        Self::new([&self.entries[..], &right.entries].concat())
    }

    /// Sets where the first child of a branch begins. A branch that is written has it begin at zero, since it takes whatever
    /// lies before it too: so what splits off the first child later still comes after it. A branch that becomes the right half
    /// of another needs the true place back, which its parent knows.
    pub fn begin_at(&mut self, begin: Place) {
        if let (Some(Entry::Branch { low, .. }), Some(place)) = (self.entries.first_mut(), self.places.first_mut()) {
            *low = begin;
            *place = begin;
        }
    }

    /// Where a place is, or would be.
    pub fn find(&self, place: &Place) -> Result<usize, usize> {
        self.places.binary_search(place)
    }

    /// How many do not lie behind a place.
    pub fn up_to(&self, place: &Place) -> usize {
        self.places.partition_point(|own| own <= place)
    }

    /// The branch entry that covers a place: the last one that does not begin behind it, else the first.
    pub fn covering(&self, place: &Place) -> Option<&Entry> {
        self.entries.get(self.up_to(place).saturating_sub(1))
    }

    /// Bytes that they take, in the body and in the clear part.
    pub fn size(&self) -> usize {
        self.size
    }

    /// When the first of them, or of what lies below them, is due.
    pub fn due(&self) -> Minute {
        self.due
    }
}

impl Default for Entries {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.entries
    }
}

fn due(entries: &[Entry]) -> Minute {
    entries.iter().map(Entry::due).min().unwrap_or(Minute::NEVER)
}
