//! What a start does with what it finds, in this order (the cases are argued in [`super`]):
//!
//! 1. Read the number of the last command and the root that the top names.
//! 2. Look at the files of rotations: those that are done, those that fill a missing number, torn ones.
//! 3. Refuse, before anything is changed: a gap that no file fills; a top whose root the slot does not hold.
//! 4. Fill. Unlink torn files. Flush every column family.
//! 5. Open everything down to the subscribers, to see that the root opens it, and to rebuild the index.
//! 6. Have the slot keep the top's root and destroy every other record, broken ones included: a staged root whose attempt did
//!    not reach the commit point is never used again.
//!
//! A first start writes a mark with the id of the root before it stages the root, so that a slot that was just begun is told
//! from one whose key store is lost.

use super::{
    ReadError, SlotError, Slots,
    backing::{Backing, BackingError, Family, KeyValue, Row},
    command::{ApplyError, Command, State, StoredState},
    page::{Clear, Level, TOP, encode_body},
    plan::RootKey,
    slot::{
        root_id, shares,
        table::{self, Table},
    },
};
use crate::{
    crypto::{
        envelope::{Kind, seal},
        secret::Secret,
    },
    domain::id::{PageId, RootId},
};
use std::sync::Arc;

/// Row of the mark of a first start.
const BIRTH: &[u8] = b"birth";

/// Why a key store does not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// RocksDB or the file system failed.
    #[error("the key store cannot be opened: {0}")]
    Backing(String),
    /// Another process holds it.
    #[error("another process holds the key store")]
    InUse,
    /// The slot failed.
    #[error("the root slot cannot be used: {0}")]
    Slot(#[from] SlotError),
    /// There is a key store and the slot is empty.
    #[error("the key store exists but its root slot is empty: bring the slot back; nothing was changed")]
    SlotIsEmpty,
    /// The slot holds a root and there is no key store.
    #[error("the root slot holds a root but there is no key store: restore it; nothing was changed")]
    StoreIsMissing,
    /// The top is sealed under a root that the slot does not hold.
    #[error("the slot does not hold the root that opens this key store; nothing was changed")]
    ForeignRoot,
    /// Too few slots match.
    #[error("{needed} slots are needed to open this key store and {found} match: {detail}; nothing was changed")]
    TooFewSlots {
        /// How many shares give the root.
        needed: u8,
        /// How many slots have one.
        found: usize,
        /// Each slot, and what is the matter with it.
        detail: String,
    },
    /// Commands are missing that nothing fills.
    #[error("commands {from} to {to} are missing from the key store: restore it; nothing was changed")]
    Gap {
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
    /// What is there is not what was written.
    #[error("the key store is damaged: {0}")]
    Damaged(&'static str),
}

impl From<BackingError> for OpenError {
    fn from(error: BackingError) -> Self {
        OpenError::Backing(error.0)
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(what) => OpenError::Damaged(what),
            ReadError::Backing(what) => OpenError::Backing(what),
        }
    }
}

impl From<ApplyError> for OpenError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Backing(error) => error.into(),
            ApplyError::Read(error) => error.into(),
            ApplyError::Number | ApplyError::Stale => {
                OpenError::Damaged("a pending command was planned on another state")
            }
        }
    }
}

/// A store whose rows are as they must be; the slot may still hold more than it should, until [`Settled::commit`].
pub struct Settled {
    /// The root that the top names.
    pub root: RootKey,
    /// Number of the last command.
    pub last_number: u64,
    done: Vec<u64>,
}

/// Steps 1 to 4.
pub fn settle(backing: &dyn Backing, slots: &mut Slots) -> Result<Settled, OpenError> {
    match StoredState::read(backing)? {
        Some(state) => resume(backing, &state, slots),
        None => first_start(backing, slots),
    }
}

impl Settled {
    /// Step 6, once what the root opens has been seen.
    pub fn commit(&self, backing: &dyn Backing, slots: &mut Slots) -> Result<(), OpenError> {
        slots.settle(&self.root)?;
        Ok(backing.drop_pending(&self.done)?)
    }
}

fn resume(backing: &dyn Backing, state: &StoredState<'_>, slots: &mut Slots) -> Result<Settled, OpenError> {
    let (mut last_number, mut root, mut generation) = (state.last_number(), state.root(), None);
    let (mut done, mut torn, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (number, bytes) in backing.pending()? {
        if number > last_number + 1 {
            return Err(OpenError::Gap { from: last_number + 1, to: number - 1 });
        }
        match Command::decode(&bytes) {
            Err(_) => torn.push(number),
            Ok(command) if command.number != number => {
                return Err(OpenError::Damaged("a pending command bears another number than its file"));
            }
            Ok(_) if number <= last_number => done.push(number),
            Ok(command) => {
                let Some(rotation) = command.rotation.filter(|rotation| rotation.from == root) else {
                    return Err(OpenError::Damaged("a pending command was planned on another state"));
                };
                (last_number, root, generation) = (number, rotation.to, Some(rotation.generation));
                missing.push(command);
                done.push(number);
            }
        }
    }
    let (found, key) = look(backing, &missing, slots, root)?;
    let generation = generation.unwrap_or(found);
    for command in missing {
        let Some(state) = StoredState::read(backing)? else { return Err(OpenError::Damaged("the top page is gone")) };
        command.apply(backing, &state)?;
    }
    backing.drop_pending(&torn)?;
    backing.flush()?;
    Ok(Settled { root: RootKey { generation, id: root, key: Arc::new(key) }, last_number, done })
}

/// Finds the root, by what the rows say of the slots once the missing commands are applied.
fn look(
    backing: &dyn Backing,
    missing: &[Command],
    slots: &mut Slots,
    root: RootId,
) -> Result<(u64, Secret), OpenError> {
    let mut known = slot_rows(backing)?;
    for row in missing.iter().flat_map(|command| &command.rows).filter(|row| row.family == Family::Meta) {
        known.retain(|(key, _)| *key != row.key);
        known.extend(row.value.iter().map(|value| (row.key.clone(), value.clone())));
    }
    let damaged = || OpenError::Damaged("the table of slots");
    let table = known.iter().find(|(key, _)| key == table::NAME).ok_or_else(damaged)?;
    let table = Table::decode(&table.1).ok_or_else(damaged)?;
    known.retain(|(key, _)| key.starts_with(shares::WAITING));
    let single = table.k() == 1;
    slots.find(table, &known, root).map_err(|short| match short {
        short if short.all_empty => OpenError::SlotIsEmpty,
        _ if single => OpenError::ForeignRoot,
        short => OpenError::TooFewSlots { needed: short.needed, found: short.found, detail: short.detail },
    })
}

/// The rows that are about slots.
fn slot_rows(backing: &dyn Backing) -> Result<Vec<KeyValue>, BackingError> {
    let mut rows = backing.scan(Family::Meta, shares::WAITING, None, usize::MAX)?;
    let table = backing.get(Family::Meta, table::NAME)?;
    rows.extend(table.map(|table| (table::NAME.to_vec(), table)));
    Ok(rows)
}

/// Nothing was ever written but, perhaps, the mark of a first start that did not get to its end.
fn first_start(backing: &dyn Backing, slots: &mut Slots) -> Result<Settled, OpenError> {
    let birth = backing.get(Family::Meta, BIRTH)?;
    let held = slots.records()?;
    if held.iter().any(|record| birth.as_deref() != Some(&record.id.0)) {
        return Err(OpenError::StoreIsMissing);
    }
    for record in held {
        slots.discard(record.id)?;
    }
    let key = Arc::new(Secret::random());
    let root = RootKey { generation: 1, id: root_id(&key), key };
    backing.write(&[&[Row::put(Family::Meta, BIRTH, root.id.0.to_vec())]])?;
    let table = slots.begin(&root)?;
    let (body, items) = encode_body(Level::Tenants, &[]).map_err(|_| OpenError::Damaged("an empty page"))?;
    let clear = Clear { page: TOP, version: 1, root: Some(root.id), items }.encode();
    let top = Row::put(Family::Pages, TOP.0, seal(Kind::Top, &root.key, &clear, &body));
    let rows = vec![top, table, Row::delete(Family::Meta, BIRTH)];
    Command { number: 1, rotation: None, expects: Vec::new(), rows }.apply(backing, &Nothing)?;
    backing.flush()?;
    Ok(Settled { root, last_number: 1, done: Vec::new() })
}

/// The state before the first command.
struct Nothing;

impl State for Nothing {
    fn last_number(&self) -> u64 {
        0
    }

    fn root(&self) -> RootId {
        RootId([0; 16])
    }

    fn version(&self, _: PageId) -> Result<Option<u64>, ReadError> {
        Ok(None)
    }
}
