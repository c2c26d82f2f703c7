//! A disk and a slot in memory. Every durable step can be made to fail, in the ways in which power fails.

use super::super::{
    Forgets, Slot, SlotError,
    backing::{Backing, BackingError, Family, KeyValue, Row, Snapshot},
    slot::{Record, root_id},
};
use crate::{crypto::secret::Secret, domain::id::RootId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

/// Rows, files, and which roots the slot holds.
type Image = (Rows, BTreeMap<u64, Vec<u8>>, Vec<(u64, RootId)>);

type Rows = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

/// What a failing step leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    Nothing,
    /// All of it, durable; the process died before it knew.
    All,
    /// A torn file, or a batch that can be read back but is not durable yet.
    Half,
}

/// A durable step, in the order in which they happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Stage(RootId),
    File(u64),
    Batch,
    Flush,
    Commit(RootId),
    Unlink,
}

#[derive(Default)]
pub struct State {
    durable: Rows,
    /// Batches that can be read back but would not survive loss of power.
    unsynced: Vec<Vec<Row>>,
    /// Batches that only the log holds; the last one may be torn off.
    logged: Vec<(Vec<Row>, Rows)>,
    pub files: BTreeMap<u64, Vec<u8>>,
    pub slot: Vec<(u64, RootId, [u8; 32])>,
    /// Every content that was ever written to a row or file.
    pub ever: Vec<Vec<u8>>,
    pub events: Vec<Event>,
    fuse: Option<(usize, Left)>,
    dead: bool,
    gate_closed: bool,
    stage_closed: bool,
    /// Somebody waits there.
    stage_waits: bool,
    pub refuse_stage: bool,
    /// Gets and scans so far.
    pub reads: usize,
}

#[derive(Default)]
pub struct Disk {
    state: Mutex<State>,
    gate: Condvar,
}

impl Disk {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    /// Makes the step after `steps` more steps fail; from then on nothing reaches the disk until [`Disk::revive`].
    pub fn arm(&self, steps: usize, left: Left) {
        self.lock().fuse = Some((steps, left));
    }

    pub fn disarm(&self) {
        self.lock().fuse = None;
    }

    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    pub fn revive(&self) {
        self.lock().dead = false;
    }

    pub fn lose_power(&self) {
        self.lock().unsynced.clear();
    }

    /// Tears the last record off the log, as a bad disk or a lying one would.
    pub fn tear_log(&self) {
        let mut state = self.lock();
        let (_, before) = state.logged.pop().expect("something is in the log only");
        state.durable = before;
    }

    /// Rows of the batch that was written last.
    pub fn last_batch(&self) -> usize {
        self.lock().logged.last().expect("something was written").0.len()
    }

    /// Has the slot's commit wait until the gate opens: by [`Disk::open_gate`], or when the guard is dropped.
    pub fn close_gate(self: &Arc<Self>) -> Gate {
        self.lock().gate_closed = true;
        Gate(self.clone())
    }

    /// The same of its stage.
    pub fn close_stage(self: &Arc<Self>) -> Gate {
        self.lock().stage_closed = true;
        Gate(self.clone())
    }

    pub fn stage_waits(&self) -> bool {
        self.lock().stage_waits
    }

    pub fn open_gate(&self) {
        let mut state = self.lock();
        (state.gate_closed, state.stage_closed) = (false, false);
        self.gate.notify_all();
    }

    /// Everything a copy of the disk and slot would show.
    pub fn image(&self) -> Image {
        let state = self.lock();
        (state.rows(), state.files.clone(), state.slot.iter().map(|(generation, id, _)| (*generation, *id)).collect())
    }

    pub fn roots(&self) -> Vec<[u8; 32]> {
        self.lock().slot.iter().map(|(_, _, root)| *root).collect()
    }

    pub fn present(&self) -> Vec<Vec<u8>> {
        self.lock().rows().into_values().collect()
    }

    pub fn ever(&self) -> Vec<Vec<u8>> {
        self.lock().ever.clone()
    }

    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    pub fn edit(&self, edit: impl FnOnce(&mut State)) {
        edit(&mut self.lock());
    }
}

pub struct Gate(Arc<Disk>);

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.open_gate();
    }
}

impl State {
    fn rows(&self) -> Rows {
        let mut rows = self.durable.clone();
        for batch in &self.unsynced {
            apply(&mut rows, batch);
        }
        rows
    }

    pub fn put_row(&mut self, family: Family, key: &[u8], value: Vec<u8>) {
        self.durable.insert((family, key.to_vec()), value);
    }

    pub fn remove_row(&mut self, family: Family, key: &[u8]) {
        self.durable.remove(&(family, key.to_vec()));
    }

    /// What is left of a step, or none when it goes through.
    fn burn(&mut self) -> Option<Left> {
        if self.dead {
            return Some(Left::Nothing);
        }
        match &mut self.fuse {
            Some((0, left)) => {
                let left = *left;
                self.fuse = None;
                self.dead = true;
                Some(left)
            }
            Some((steps, _)) => {
                *steps -= 1;
                None
            }
            None => None,
        }
    }
}

fn apply(rows: &mut Rows, batch: &[Row]) {
    for row in batch {
        match &row.value {
            Some(value) => rows.insert((row.family, row.key.clone()), value.clone()),
            None => rows.remove(&(row.family, row.key.clone())),
        };
    }
}

fn failed<T>() -> Result<T, BackingError> {
    Err(BackingError("the power is gone".to_owned()))
}

pub struct Memory(pub Arc<Disk>);

impl Backing for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, BackingError> {
        let mut state = self.0.lock();
        state.reads += 1;
        Ok(state.rows().get(&(family, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, BackingError> {
        let mut state = self.0.lock();
        state.reads += 1;
        let rows = state.rows();
        let found = rows.range((family, prefix.to_vec())..);
        let found = found.take_while(|((of, key), _)| *of == family && key.starts_with(prefix));
        let found = found.filter(|((_, key), _)| after.is_none_or(|after| key[..] > *after));
        Ok(found.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, BackingError> {
        Ok(Box::new(self.0.lock().rows()))
    }

    fn write(&self, lists: &[&[Row]]) -> Result<(), BackingError> {
        let mut state = self.0.lock();
        let batch = lists.concat();
        let left = state.burn();
        if left != Some(Left::Nothing) {
            state.ever.extend(batch.iter().filter_map(|row| row.value.clone()));
            if left == Some(Left::Half) {
                state.unsynced.push(batch);
            } else {
                let before = state.rows();
                let mut rows = before.clone();
                apply(&mut rows, &batch);
                state.durable = rows;
                state.unsynced.clear();
                state.logged.push((batch, before));
                state.events.push(Event::Batch);
            }
        }
        if left.is_none() { Ok(()) } else { failed() }
    }

    fn flush(&self) -> Result<(), BackingError> {
        let mut state = self.0.lock();
        let left = state.burn();
        if matches!(left, None | Some(Left::All)) {
            state.durable = state.rows();
            state.unsynced.clear();
            state.logged.clear();
            state.events.push(Event::Flush);
        }
        if left.is_none() { Ok(()) } else { failed() }
    }

    fn put_pending(&self, number: u64, bytes: &[u8]) -> Result<(), BackingError> {
        let mut state = self.0.lock();
        let left = state.burn();
        let written = match left {
            Some(Left::Nothing) => None,
            Some(Left::Half) => Some(&bytes[..bytes.len() / 2]),
            Some(Left::All) | None => Some(bytes),
        };
        if let Some(written) = written {
            state.ever.push(written.to_vec());
            assert!(state.files.insert(number, written.to_vec()).is_none(), "a file is written once");
            state.events.push(Event::File(number));
        }
        if left.is_none() { Ok(()) } else { failed() }
    }

    fn pending(&self) -> Result<Vec<(u64, Vec<u8>)>, BackingError> {
        Ok(self.0.lock().files.iter().map(|(number, bytes)| (*number, bytes.clone())).collect())
    }

    fn unlink_pending(&self, numbers: &[u64]) -> Result<(), BackingError> {
        self.release_pending(numbers)
    }

    fn release_pending(&self, numbers: &[u64]) -> Result<(), BackingError> {
        let mut state = self.0.lock();
        if numbers.is_empty() {
            return Ok(());
        }
        let left = state.burn();
        let gone = match left {
            Some(Left::Nothing) => 0,
            Some(Left::Half) => numbers.len() / 2,
            Some(Left::All) | None => numbers.len(),
        };
        for number in &numbers[..gone] {
            assert!(state.files.remove(number).is_some(), "only a file that is there is unlinked");
        }
        state.events.push(Event::Unlink);
        if left.is_none() { Ok(()) } else { failed() }
    }
}

impl Snapshot for Rows {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, BackingError> {
        Ok(BTreeMap::get(self, &(family, key.to_vec())).cloned())
    }

    fn rows(&self, family: Family, after: Option<&[u8]>, bytes: usize) -> Result<Vec<KeyValue>, BackingError> {
        let (mut found, mut size) = (Vec::new(), 0);
        for ((of, key), value) in self.range((family, after.unwrap_or_default().to_vec())..) {
            if *of != family || size >= bytes {
                break;
            }
            if after.is_none_or(|after| key[..] > *after) {
                size += key.len() + value.len();
                found.push((key.clone(), value.clone()));
            }
        }
        Ok(found)
    }
}

pub struct MemorySlot(pub Arc<Disk>);

fn slot_failed<T>() -> Result<T, SlotError> {
    Err(SlotError::Io("the power is gone".to_owned()))
}

/// The only slot holds the roots themselves.
fn of_ours(generation: u64, root: &[u8; 32]) -> Record {
    let share = Secret::from_bytes(root);
    Record { generation, id: root_id(&share), number: 1, share }
}

impl Slot for MemorySlot {
    fn records(&mut self) -> Result<Vec<Record>, SlotError> {
        let state = self.0.lock();
        Ok(state.slot.iter().map(|(generation, _, root)| of_ours(*generation, root)).collect())
    }

    fn stage(&mut self, record: &Record) -> Result<(), SlotError> {
        let (generation, root) = (record.generation, &record.share);
        let mut state = self.0.lock();
        while state.stage_closed {
            state.stage_waits = true;
            state = self.0.gate.wait(state).expect("no test panics with it");
        }
        state.stage_waits = false;
        if state.refuse_stage {
            return Err(SlotError::Full);
        }
        let left = state.burn();
        if matches!(left, None | Some(Left::All)) {
            assert!(state.slot.len() < 3, "a slot holds up to three");
            state.slot.push((generation, root_id(root), *root.expose()));
            state.events.push(Event::Stage(root_id(root)));
        }
        if left.is_none() { Ok(()) } else { slot_failed() }
    }

    fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        let mut state = self.0.lock();
        while state.gate_closed {
            state = self.0.gate.wait(state).expect("no test panics with it");
        }
        if !state.slot.iter().any(|(_, id, _)| *id == keep) {
            return Err(SlotError::Missing);
        }
        let left = state.burn();
        if left != Some(Left::Nothing) {
            state.slot.retain(|(_, id, _)| *id == keep);
            state.events.push(Event::Commit(keep));
        }
        if left.is_none() { Ok(()) } else { slot_failed() }
    }

    fn discard(&mut self, root: RootId) -> Result<(), SlotError> {
        let mut state = self.0.lock();
        let left = state.burn();
        if left != Some(Left::Nothing) {
            state.slot.retain(|(_, id, _)| *id != root);
        }
        if left.is_none() { Ok(()) } else { slot_failed() }
    }

    fn clear(&mut self) -> Result<(), SlotError> {
        let mut state = self.0.lock();
        let left = state.burn();
        if left != Some(Left::Nothing) {
            state.slot.clear();
        }
        if left.is_none() { Ok(()) } else { slot_failed() }
    }

    fn forgets(&self) -> Forgets {
        Forgets::AtOnce
    }
}
