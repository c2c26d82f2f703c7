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

pub(super) mod decide;

use super::{
    ReadError, Slot, SlotError,
    backing::{Backing, BackingError, Family, Row},
    command::{ApplyError, Command, State, StoredState},
    page::{Clear, Level, TOP, encode_body},
    plan::RootKey,
    slot::Record,
};
use crate::{
    crypto::{
        envelope::{Kind, seal},
        secret::Secret,
    },
    domain::id::{PageId, RootId},
};
use decide::{Content, Decision, decide};
use std::{collections::BTreeMap, sync::Arc};

/// Row of the mark of a first start.
const BIRTH: &[u8] = b"birth";

/// Why a key store does not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// RocksDB or the file system failed.
    #[error("the key store cannot be opened: {0}")]
    Backing(String),
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
pub fn settle(backing: &dyn Backing, slot: &mut dyn Slot) -> Result<Settled, OpenError> {
    let records = slot.records()?;
    match StoredState::read(backing)? {
        Some(state) => resume(backing, &state, records),
        None => first_start(backing, slot, &records),
    }
}

impl Settled {
    /// Step 6, once what the root opens has been seen.
    pub fn commit(&self, backing: &dyn Backing, slot: &mut dyn Slot) -> Result<(), OpenError> {
        slot.commit(self.root.id)?;
        Ok(backing.drop_pending(&self.done)?)
    }
}

fn resume(backing: &dyn Backing, state: &StoredState<'_>, records: Vec<Record>) -> Result<Settled, OpenError> {
    let (mut files, mut commands) = (Vec::new(), BTreeMap::new());
    for (number, bytes) in backing.pending()? {
        let content = match Command::decode(&bytes) {
            Err(_) => Content::Torn,
            Ok(command) => {
                let content = Content::Whole { number: command.number, rotation: command.rotation };
                commands.insert(number, command);
                content
            }
        };
        files.push((number, content));
    }
    let held: Vec<RootId> = records.iter().map(|record| record.id).collect();
    let Decision { root, last_number, fill, torn, done } = decide(state.last_number(), state.root(), &files, &held)?;
    let record = records.into_iter().find(|record| record.id == root).ok_or(OpenError::ForeignRoot)?;
    for command in fill.iter().filter_map(|number| commands.get(number)) {
        let Some(state) = StoredState::read(backing)? else { return Err(OpenError::Damaged("the top page is gone")) };
        command.apply(backing, &state)?;
    }
    backing.drop_pending(&torn)?;
    backing.flush()?;
    Ok(Settled { root: root_key(record), last_number, done })
}

/// Nothing was ever written but, perhaps, the mark of a first start that did not get to its end.
fn first_start(backing: &dyn Backing, slot: &mut dyn Slot, records: &[Record]) -> Result<Settled, OpenError> {
    let birth = backing.get(Family::Meta, BIRTH)?;
    if records.iter().any(|record| birth.as_deref() != Some(&record.id.0)) {
        return Err(OpenError::StoreIsMissing);
    }
    for record in records {
        slot.discard(record.id)?;
    }
    let root = root_key(Record::new(1, Secret::random()));
    backing.write(&[&[Row::put(Family::Meta, BIRTH, root.id.0.to_vec())]])?;
    slot.stage(root.generation, &root.key)?;
    let (body, items) = encode_body(Level::Tenants, &[]).map_err(|_| OpenError::Damaged("an empty page"))?;
    let clear = Clear { page: TOP, version: 1, root: Some(root.id), items }.encode();
    let top = Row::put(Family::Pages, TOP.0, seal(Kind::Top, &root.key, &clear, &body));
    let rows = vec![top, Row::delete(Family::Meta, BIRTH)];
    Command { number: 1, rotation: None, expects: Vec::new(), rows }.apply(backing, &Nothing)?;
    backing.flush()?;
    Ok(Settled { root, last_number: 1, done: Vec::new() })
}

fn root_key(record: Record) -> RootKey {
    RootKey { generation: record.generation, id: record.id, key: Arc::new(record.root) }
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
