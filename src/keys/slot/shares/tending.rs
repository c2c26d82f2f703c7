//! What slots that are there are given, and what they lose: at a start, when they come back, and behind a rotation.

use super::{
    super::{Record, Slot, SlotError},
    Sharing, Slots, Standing, recover,
};
use crate::domain::id::RootId;
use std::collections::BTreeMap;

impl Slots {
    /// Has every slot of ours hold its share of the root that was found, those of the roots in `older` that the backup needs,
    /// and nothing else.
    pub(crate) fn settle(&mut self, older: Vec<RootId>) -> Result<(), SlotError> {
        self.needed = older;
        self.recall();
        let (mut confirmed, mut failed) = (0, SlotError::Missing);
        for at in 0..self.seats.len() {
            match self.settle_seat(at) {
                Ok(true) => confirmed += 1,
                Ok(false) => {}
                Err(error) => {
                    self.seats[at].away(&error);
                    failed = error;
                }
            }
        }
        self.table.tidy();
        if confirmed < usize::from(self.table.k()) { Err(failed) } else { Ok(()) }
    }

    /// Finds every share of the roots that the backup needs, where enough slots still hold theirs.
    fn recall(&mut self) {
        for id in self.needed.clone() {
            if self.older.iter().any(|sharing| sharing.id == id) {
                continue;
            }
            let (mut shares, mut generation) = (BTreeMap::new(), 0);
            for seat in &mut self.seats {
                let Ok(records) = seat.slot().and_then(|slot| slot.records()) else { continue };
                let ours = |record: &Record| record.id == id && seat.number == Some(record.number);
                for record in records.into_iter().filter(ours) {
                    generation = record.generation;
                    shares.insert(record.number, record.share);
                }
            }
            let held: Vec<_> = shares.iter().map(|(number, share)| (*number, share)).collect();
            let then = self.table.members().iter().filter(|member| member.joined <= generation);
            let numbers: Vec<u8> = then.map(|member| member.number).collect();
            if let Some((_, shares)) = recover(&held, self.table.k_of(generation), id, &numbers) {
                self.older.push(Sharing { generation, id, shares });
            }
        }
    }

    /// One slot; whether it holds the present share. It keeps those that the backup needs, and while not all of these are
    /// known, everything that came before: what it held when it went away may be its way to them. What came after was staged by an
    /// attempt that did not reach its commit point.
    fn settle_seat(&mut self, at: usize) -> Result<bool, SlotError> {
        let Slots { seats, table, present, needed, older, anchors, clock, unsaid, .. } = self;
        let seat = &mut seats[at];
        let (Some(number), Some(slot)) = (seat.number, seat.slot.as_mut()) else { return Ok(false) };
        let all_known = needed.len() == older.len();
        match seat.standing {
            Standing::Retired if needed.is_empty() => {
                slot.clear()?;
                table.wiped(number, slot.forgets(), clock.now());
                *unsaid = true;
                (seat.number, seat.standing) = (None, Standing::Empty);
                Ok(false)
            }
            Standing::Present if needed.is_empty() => {
                anchors.remove(&number);
                slot.commit(present.id)?;
                table.confirm(number, present.generation, present.id);
                Ok(true)
            }
            Standing::Present | Standing::Behind => {
                let kept = |id: RootId| id == present.id || needed.contains(&id);
                let joined = table.member(number).map_or(u64::MAX, |member| member.joined);
                let given = older.iter().filter(|sharing| joined <= sharing.generation);
                let wanted = [&*present].into_iter().chain(given);
                let wanted = wanted.filter_map(|sharing| sharing.record(number));
                for record in wanted.collect::<Vec<_>>() {
                    add(slot, &record, |id| kept(id) || seat.leads == Some(id))?;
                }
                // It holds the present share: its next row starts there, whatever of the rest is answered.
                anchors.remove(&number);
                let spare =
                    |record: &&Record| !kept(record.id) && (all_known || record.generation > present.generation);
                for record in slot.records()?.iter().filter(spare) {
                    slot.discard(record.id)?;
                }
                if needed.is_empty() {
                    slot.commit(present.id)?;
                    table.confirm(number, present.generation, present.id);
                }
                seat.standing = Standing::Present;
                tracing::info!(slot = seat.name, number, "a slot that was away has its share");
                Ok(true)
            }
            Standing::Retired
            | Standing::Left
            | Standing::Empty
            | Standing::Copy
            | Standing::Foreign
            | Standing::Away(_) => Ok(false),
        }
    }

    /// Reads every slot that should be there, so that one that is gone is known before it is needed. The others are asked by
    /// [`Slots::tend`], which gives them their share.
    pub(crate) fn check(&mut self) {
        for at in 0..self.seats.len() {
            if self.seats[at].standing == Standing::Present {
                self.look_at(at);
            }
        }
    }

    /// Asks the slots that were away. One that answers and is ours gets its share, and loses what else it holds.
    pub(crate) fn tend(&mut self) {
        let short: Vec<usize> =
            (0..self.seats.len()).filter(|at| self.seats[*at].standing != Standing::Present).collect();
        let back: Vec<usize> = short.into_iter().filter(|at| self.look_at(*at).is_some()).collect();
        if !back.is_empty() {
            self.recall();
        }
        for at in back {
            if let Err(error) = self.settle_seat(at) {
                self.seats[at].away(&error);
            }
        }
        self.table.tidy();
    }
}

/// Adds a record; where there is no room, one that need not be kept goes first.
fn add(slot: &mut Box<dyn Slot>, record: &Record, kept: impl Fn(RootId) -> bool) -> Result<(), SlotError> {
    let held = slot.records()?;
    if held.iter().any(|held| held.id == record.id) {
        return Ok(());
    }
    match slot.stage(record) {
        Err(SlotError::Full) => {
            let spare = held.iter().find(|held| !kept(held.id)).ok_or(SlotError::Full)?;
            slot.discard(spare.id)?;
            slot.stage(record)
        }
        done => done,
    }
}
