//! A slot made of slots: any `k` of `n` shares give the root, `2k > n`.
//!
//! # Shares that wait
//! A slot that is away while the root rotates gets no share; still it must count, or the loss of another slot would lose
//! everything. So its new share *waits* in the key store, in a row of the rotation's command, sealed to a key that this slot
//! holds: its share of the root that it last received, put through a derivation (`quietus/1 waiting share`). There are no keys
//! for receiving besides: whoever has the root and `k` shares knows every share of that root, those of absent slots included,
//! and each rotation brings every slot that takes part a fresh one. A slot that comes back follows the rows from the share it
//! holds to the present one.
//!
//! *Why a row helps nobody who may not.* It opens with an older share of the same slot only, and gives the newer share of that
//! slot only: the rows lead forward. By cases, over an attacker who holds all copies of the key store, every slot as it is now,
//! and everything that lost, absent and retired slots ever held:
//! - *An old root g*: he has the shares of g of the slots that are not confirmed beyond g, kept or reached by rows. Those of
//!   a slot that is confirmed are destroyed with it, and with them what opened the rows that led to them. The present shares
//!   open rows to later roots, never to earlier ones. So he has as many as [`Table::shares_left`] says, and when that is fewer
//!   than k, he has nothing.
//! - *The present root*: whoever was absent keeps one share of it, as the design wants; absent ones are at most n - k, and
//!   that is fewer than k.
//!
//! Within one run of the process the row of an absent slot starts from the same share each time (kept in memory while the slot is
//! away: it is worth what that slot is worth, and goes when that slot is wiped) and takes the place of the row before; only a
//! restart adds a row. So rows are bounded by starts, not by erasures.
//!
//! # The steps of a rotation
//! [`Slots::stage`] gives every slot that matches its new share, and is refused, with everything taken back that can be, when
//! fewer than `k` take it: the callers are told, and the rest of the gateway goes on. Behind the commit point, [`Slots::commit`] has each of them destroy what else it holds. A slot that fails in
//! either is *away* from then on, and is asked again by [`Slots::tend`]: before each rotation, and every two seconds. [`Slots::check`]
//! reads those too that nobody needs now. Where too few
//! commit, what they hold of roots of before counts as left, and the erasure is sealed until they are back. Only where there
//! is one slot does a failed commit end the process: then nobody knows what is on its medium, and a start finds out.
//!
//! While the backup lacks a rotation, [`Slots::put_off`] takes the place of the commit: every slot keeps its share of the root
//! that the backup needs (one of [`Slots::older`]) beside that of the present one. A slot that comes back meanwhile gets both,
//! since whoever loses the node has the backup's state only; one that joined later does not, as it was never counted for it.
//!
//! # A start
//! [`Slots::find`] changes nothing. It needs `k` slots that hold a share of the root that the top names, or reach one by rows. Then
//! [`Slots::settle`] has those that hold one keep it alone, and gives one to every other slot of this key store and wipes what
//! else it holds; one that was retired is emptied. A slot is taken for one of ours by its number and the id of a root that
//! it is known to have held; any other is foreign, and is left alone.

mod change;
mod report;
mod tending;
mod waiting;

pub use change::Reshare;
pub use report::{SlotReport, SlotsReport, Standing};

use super::{
    Forgets, Record, Slot, SlotError, root_id,
    table::{Member, Reach, Table},
};
use crate::{
    crypto::{secret::Secret, share},
    domain::{id::RootId, time::Clock},
    keys::{
        backing::{KeyValue, Row},
        plan::RootKey,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use waiting::{Waiting, follow};

/// Opens a slot; asked again when the slot was away.
pub type Opener = Box<dyn FnMut() -> Result<Box<dyn Slot>, SlotError> + Send>;

/// Too few slots match. Nothing was changed.
#[derive(Debug)]
pub struct Short {
    /// How many shares give the root.
    pub needed: u8,
    /// How many there are.
    pub found: usize,
    /// Each slot, and what is the matter with it.
    pub detail: String,
}

/// A root of which slots hold shares.
pub(crate) struct Held {
    pub id: RootId,
    pub generation: u64,
    /// How many different ones.
    pub shares: usize,
}

/// One configured slot.
struct Seat {
    name: String,
    open: Option<Opener>,
    slot: Option<Box<dyn Slot>>,
    number: Option<u8>,
    standing: Standing,
    /// Of a slot that is behind: the root whose share tells it for ours, and leads to the present one.
    leads: Option<RootId>,
    /// It was to join with this number, and did not say whether it took its share.
    promised: Option<u8>,
    /// The roots whose shares it held when it was last looked at.
    held: Vec<RootId>,
    forgets: Option<Forgets>,
}

impl Seat {
    fn new(name: String, open: Option<Opener>, slot: Option<Box<dyn Slot>>) -> Self {
        Self {
            name,
            open,
            slot,
            number: None,
            standing: Standing::Empty,
            leads: None,
            promised: None,
            held: Vec::new(),
            forgets: None,
        }
    }

    /// Its name, and what became of it.
    fn words(&self) -> String {
        let name = if self.name.is_empty() { "the slot" } else { &self.name };
        format!("{name} {}", self.standing.words())
    }

    fn away(&mut self, error: &SlotError) {
        if !matches!(self.standing, Standing::Away(_)) {
            tracing::warn!(slot = self.name, %error, "a slot is away");
        }
        self.standing = Standing::Away(error.to_string());
        // What is open is kept where it cannot be opened again.
        if self.open.is_some() {
            self.slot = None;
        }
    }

    fn slot(&mut self) -> Result<&mut Box<dyn Slot>, SlotError> {
        let slot = match (&mut self.slot, &mut self.open) {
            (Some(slot), _) => slot,
            (none, Some(open)) => none.insert(open()?),
            (None, None) => return Err(SlotError::Missing),
        };
        self.forgets = Some(slot.forgets());
        Ok(slot)
    }
}

/// One root, and every share of it.
struct Sharing {
    generation: u64,
    id: RootId,
    shares: BTreeMap<u8, Secret>,
}

impl Sharing {
    fn record(&self, number: u8) -> Option<Record> {
        let share = self.shares.get(&number)?.duplicate();
        Some(Record { generation: self.generation, id: self.id, number, share })
    }
}

/// A rotation between its stage and its commit.
struct Staged {
    sharing: Sharing,
    table: Table,
    numbers: Vec<u8>,
    anchors: BTreeMap<u8, (RootId, Secret)>,
    /// The set of slots is another one.
    changed: bool,
}

/// The slots of one key store.
pub struct Slots {
    seats: Vec<Seat>,
    /// As configured: for a first start, and for [`Reshare::Match`].
    k: u8,
    table: Table,
    present: Sharing,
    /// Roots of before that the backup may need, as [`Roots`](crate::keys::backup::roots::Roots) said when a rotation was last
    /// finished or put off.
    needed: Vec<RootId>,
    /// Of these, those of which enough shares were found.
    older: Vec<Sharing>,
    /// The rows of shares that wait.
    waiting: Vec<Waiting>,
    /// What the rows of absent slots start from.
    anchors: BTreeMap<u8, (RootId, Secret)>,
    staged: Option<Staged>,
    clock: Clock,
    /// A slot was wiped and is gone, or the set is another one, and the key store's table does not say all of it yet.
    unsaid: bool,
}

impl Slots {
    /// A single slot.
    pub fn one(slot: Box<dyn Slot>) -> Self {
        Self::with(1, vec![Seat::new(String::new(), None, Some(slot))])
    }

    /// Several, of which any `k` give the root; `2k > n`, as whoever read the configuration has checked. They are opened when
    /// they are first needed.
    pub fn several(k: u8, slots: Vec<(String, Opener)>) -> Self {
        Self::with(k, slots.into_iter().map(|(name, open)| Seat::new(name, Some(open), None)).collect())
    }

    fn with(k: u8, seats: Vec<Seat>) -> Self {
        let nothing = RootId([0; 16]);
        Self {
            k,
            table: Table::first(k, seats.len() as u8, nothing),
            seats,
            present: Sharing { generation: 0, id: nothing, shares: BTreeMap::new() },
            needed: Vec::new(),
            older: Vec::new(),
            waiting: Vec::new(),
            anchors: BTreeMap::new(),
            staged: None,
            clock: Clock::default(),
            unsaid: false,
        }
    }

    /// Tells the time by this clock.
    pub(crate) fn go_by(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// What all of them hold. Fails when one of them cannot be read.
    pub fn records(&mut self) -> Result<Vec<Record>, SlotError> {
        let mut records = Vec::new();
        for seat in &mut self.seats {
            records.append(&mut seat.slot()?.records()?);
        }
        Ok(records)
    }

    /// The roots of which at least one slot holds a share, ascending. Fails when no slot can be read.
    pub(crate) fn held(&mut self) -> Result<Vec<Held>, SlotError> {
        let (mut failed, mut read) = (SlotError::Missing, false);
        let mut found: BTreeMap<RootId, (u64, BTreeSet<u8>)> = BTreeMap::new();
        for seat in &mut self.seats {
            match seat.slot().and_then(|slot| slot.records()) {
                Ok(records) => {
                    read = true;
                    for record in records {
                        let (_, numbers) = found.entry(record.id).or_insert((record.generation, BTreeSet::new()));
                        numbers.insert(record.number);
                    }
                }
                Err(error) => {
                    seat.away(&error);
                    failed = error;
                }
            }
        }
        let held =
            |(id, (generation, numbers)): (RootId, (u64, BTreeSet<u8>))| Held { id, generation, shares: numbers.len() };
        if read { Ok(found.into_iter().map(held).collect()) } else { Err(failed) }
    }

    /// A first start: every slot must take its share. Gives the row of the table.
    pub(crate) fn begin(&mut self, root: &RootKey) -> Result<Row, SlotError> {
        self.table = Table::first(self.k, self.seats.len() as u8, root.id);
        let numbers: Vec<u8> = self.table.present().map(|member| member.number).collect();
        let shares = share::split(&root.key, self.k, &numbers).into_iter().collect();
        self.present = Sharing { generation: root.generation, id: root.id, shares };
        for (seat, number) in self.seats.iter_mut().zip(numbers) {
            if let Some(record) = self.present.record(number) {
                seat.slot()?.stage(&record)?;
            }
            (seat.number, seat.standing) = (Some(number), Standing::Present);
        }
        Ok(self.table.row())
    }

    /// Takes back what an interrupted first start left.
    pub(crate) fn discard(&mut self, root: RootId) -> Result<(), SlotError> {
        self.seats.iter_mut().filter_map(|seat| seat.slot.as_mut()).try_for_each(|slot| slot.discard(root))
    }

    /// Finds the root with this id: from what the slots hold, and what the rows of the key store say of them. Changes nothing.
    pub(crate) fn find(&mut self, table: Table, rows: &[KeyValue], root: RootId) -> Result<RootKey, Short> {
        self.table = table;
        self.present.id = root;
        self.waiting = rows.iter().filter_map(|(name, _)| Waiting::of(name)).collect();
        let mut found = BTreeMap::new();
        for at in 0..self.seats.len() {
            let Some(records) = self.look_at(at) else { continue };
            let seat = &self.seats[at];
            let ours = |record: &&Record| Some(record.number) == seat.number && seat.standing != Standing::Retired;
            for record in records.iter().filter(ours) {
                if record.id == root {
                    found.insert(record.number, record.share.duplicate());
                } else if let Some(share) = follow(rows, record, root) {
                    found.entry(record.number).or_insert(share);
                }
            }
        }
        let shares: Vec<_> = found.iter().map(|(number, share)| (*number, share)).collect();
        let present: Vec<u8> = self.table.present().map(|member| member.number).collect();
        let Some((key, shares)) = recover(&shares, self.table.k(), root, &present) else {
            return Err(self.short(found.len()));
        };
        let generation = self.table.generation();
        self.present = Sharing { generation, id: root, shares };
        Ok(RootKey { generation, id: root, key: Arc::new(key) })
    }

    /// Asks a slot what it is; gives what it holds.
    fn look_at(&mut self, at: usize) -> Option<Vec<Record>> {
        match self.seats[at].slot().and_then(|slot| slot.records()) {
            Ok(records) => {
                let mut known = self.recognize(&records);
                let taken = |(other, seat): (usize, &Seat)| {
                    other != at && seat.number == known.0 && !matches!(seat.standing, Standing::Away(_))
                };
                if known.0.is_some() && self.seats.iter().enumerate().any(taken) {
                    known = (None, Standing::Copy, None);
                }
                let seat = &mut self.seats[at];
                if seat.standing == Standing::Present && known.1 != Standing::Present {
                    tracing::warn!(slot = seat.name, "a slot {}", known.1.words());
                }
                (seat.number, seat.standing, seat.leads) = known;
                seat.held = records.iter().map(|record| record.id).collect();
                if seat.standing == Standing::Empty
                    && let Some(number) = seat.promised.take()
                {
                    self.table.withdraw(None, Some(number));
                    self.unsaid = true;
                }
                if seat.standing == Standing::Empty && seat.open.is_some() {
                    // What is found there next time may be another file.
                    seat.slot = None;
                }
                Some(records)
            }
            Err(error) => {
                self.seats[at].away(&error);
                None
            }
        }
    }

    /// Whether a slot that had a share of this root of before is known to have destroyed it.
    pub(crate) fn have_forgotten(&self, root: RootId, generation: u64) -> bool {
        let confirmed = |member: &Member| member.joined <= generation && member.confirmed > generation;
        let wiped = |seat: &Seat| {
            let holds = seat.number.and_then(|number| self.table.member(number)).map(|member| member.holds);
            seat.standing == Standing::Present && holds == Some(root) && !seat.held.contains(&root)
        };
        self.table.members().iter().any(confirmed) || self.seats.iter().any(wiped)
    }

    /// How near the slots that are there come to a root of this generation.
    pub(crate) fn reach(&self, root: RootId, generation: u64) -> Reach {
        let holding = self.seats.iter().filter(|seat| seat.number.is_some() && seat.held.contains(&root)).count();
        let there = |number| {
            let ours = |seat: &Seat| seat.number == Some(number) && !matches!(seat.standing, Standing::Away(_));
            self.seats.iter().any(ours)
        };
        self.table.reach(generation, holding, there)
    }

    fn short(&self, found: usize) -> Short {
        let words: Vec<_> = self.seats.iter().map(Seat::words).collect();
        Short { needed: self.table.k(), found, detail: words.join("; ") }
    }

    /// Slots that are away or empty, each with what is the matter with it.
    pub(crate) fn absent(&self) -> Vec<String> {
        let absent = |seat: &&Seat| matches!(seat.standing, Standing::Away(_) | Standing::Empty);
        self.seats.iter().filter(absent).map(Seat::words).collect()
    }

    /// Which slot it is, by what it holds; and the root whose share says so.
    fn recognize(&self, records: &[Record]) -> (Option<u8>, Standing, Option<RootId>) {
        if records.is_empty() {
            return (None, Standing::Empty, None);
        }
        let present = records.iter().filter(|record| record.id == self.present.id);
        for record in present.chain(records) {
            let Some(member) = self.table.member(record.number) else { continue };
            let waits = self.waiting.contains(&Waiting { number: record.number, from: record.id });
            let older = self.older.iter().any(|sharing| sharing.id == record.id);
            let held = record.id == member.holds || waits || older;
            let standing = match member.left {
                None if record.id == self.present.id => Standing::Present,
                None if held => Standing::Behind,
                Some(_) if held || record.id == self.present.id => Standing::Retired,
                _ => continue,
            };
            return (Some(record.number), standing, Some(record.id));
        }
        (None, Standing::Foreign, None)
    }

    /// Whether a slot does not hold its share.
    pub(crate) fn is_short(&self) -> bool {
        self.seats.iter().any(|seat| seat.standing != Standing::Present)
    }

    /// Whether the key store's table is behind what is known here; asked once.
    pub(crate) fn take_unsaid(&mut self) -> bool {
        std::mem::take(&mut self.unsaid)
    }

    /// The row of the table as it is now.
    pub(crate) fn row(&self) -> Row {
        self.table.row()
    }

    /// Shares the next root among the slots. Gives the rows of its command.
    pub(crate) fn stage(&mut self, next: &RootKey, change: Option<&Reshare>) -> Result<Vec<Row>, SlotError> {
        if change.is_none() {
            self.tend();
        }
        let mut table = self.table.clone();
        table.advance(next.generation);
        let new = self.apply(change, &mut table, next.id)?;
        let numbers: Vec<u8> = table.present().map(|member| member.number).collect();
        let shares = share::split(&next.key, table.k(), &numbers).into_iter().collect();
        let sharing = Sharing { generation: next.generation, id: next.id, shares };
        let (mut staged, mut failed) = (Vec::new(), Vec::new());
        for (at, seat) in self.seats.iter_mut().enumerate() {
            let joins = new.iter().find(|(joining, _)| *joining == at).map(|(_, number)| *number);
            let stays = seat.number.filter(|_| seat.standing == Standing::Present);
            // One that is retired by this rotation has no share of it.
            let Some(record) = joins.or(stays).and_then(|number| sharing.record(number)) else { continue };
            match seat.slot().and_then(|slot| slot.stage(&record)) {
                Ok(()) => staged.push(record.number),
                Err(error) => failed.push((at, error)),
            }
        }
        let joined = new.iter().all(|(_, number)| staged.contains(number));
        if staged.len() < usize::from(table.k()) || !joined {
            let refusal = self.too_few(table.k(), staged.len(), &failed);
            self.take_back(next.id, &new);
            return Err(refusal);
        }
        for (at, error) in failed {
            // Half of it may be there, and must not look like a share.
            drop(self.seats[at].slot.as_mut().map(|slot| slot.discard(next.id)));
            self.seats[at].away(&error);
        }
        for (at, number) in new {
            (self.seats[at].number, self.seats[at].standing) = (Some(number), Standing::Present);
        }
        Ok(self.draw_up(sharing, table, staged, change.is_some()))
    }

    /// The rows, and what the commit will need.
    fn draw_up(&mut self, sharing: Sharing, table: Table, staged: Vec<u8>, changed: bool) -> Vec<Row> {
        let mut rows = vec![table.row()];
        // A slot that has the new share follows no row; one that was wiped after it was retired never will.
        let gone = |waiting: &&Waiting| staged.contains(&waiting.number) || table.member(waiting.number).is_none();
        rows.extend(self.waiting.iter().filter(gone).map(|waiting| waiting.delete()));
        let mut anchors = BTreeMap::new();
        for (number, share) in sharing.shares.iter().filter(|(number, _)| !staged.contains(number)) {
            let start = self.anchors.get(number).map(|(id, share)| (*id, share.duplicate()));
            let present = || self.present.shares.get(number).map(|share| (self.present.id, share.duplicate()));
            if let Some((from, with)) = start.or_else(present) {
                rows.push(Waiting { number: *number, from }.put(&with, sharing.id, share));
                anchors.insert(*number, (from, with));
            }
        }
        // One that leaves and does not answer may hold its share of the present root, which the table does not say yet.
        let leaves = table.members().iter().filter(|member| member.left.is_some() && !staged.contains(&member.number));
        let unseen = leaves.filter(|member| self.present.shares.contains_key(&member.number));
        rows.extend(unseen.map(|member| Waiting { number: member.number, from: self.present.id }.mark()));
        self.staged = Some(Staged { sharing, table, numbers: staged, anchors, changed });
        rows
    }

    fn too_few(&self, needed: u8, found: usize, failed: &[(usize, SlotError)]) -> SlotError {
        if let ([_], [(_, error)]) = (self.seats.as_slice(), failed) {
            return error.clone();
        }
        let words = self.seats.iter().enumerate().map(|(at, seat)| {
            let failed = failed.iter().find(|(failed, _)| *failed == at);
            let words = failed.map_or_else(|| seat.standing.words(), |(_, error)| format!("refuses ({error})"));
            format!("{} {words}", seat.name)
        });
        SlotError::TooFew { needed, found, detail: words.collect::<Vec<_>>().join("; ") }
    }

    /// Takes the staged shares back. One that cannot be stays in a slot that is away from then on: nothing was, or will be, sealed
    /// under its root, and the slot loses it when it is back. Slots that were to join are empty again.
    fn take_back(&mut self, root: RootId, joining: &[(usize, u8)]) {
        for (at, seat) in self.seats.iter_mut().enumerate() {
            let number = joining.iter().find(|(joining, _)| *joining == at).map(|(_, number)| *number);
            // Without a slot nothing was asked of it.
            match seat.slot.as_mut().map_or(Ok(()), |slot| slot.discard(root)) {
                Ok(()) if number.is_some() => {
                    self.table.withdraw(Some(root), number);
                    self.unsaid = true;
                }
                Ok(()) => {}
                Err(error) => {
                    seat.away(&error);
                    seat.promised = number;
                }
            }
        }
    }

    /// The staged root is not wanted: nothing was sealed under it.
    pub(crate) fn unstage(&mut self) {
        let Some(Staged { sharing, .. }) = self.staged.take() else { return };
        let mut joining = Vec::new();
        for (at, seat) in self.seats.iter_mut().enumerate() {
            let announced = seat.number.filter(|number| self.table.announced(sharing.id).any(|it| it == *number));
            if let Some(number) = announced {
                joining.push((at, number));
                (seat.number, seat.standing) = (None, Standing::Empty);
            }
        }
        self.take_back(sharing.id, &joining);
    }

    /// The staged root is the present one from now on.
    fn adopt(&mut self, keep: RootId) -> Result<(), SlotError> {
        if let Some(Staged { sharing, table, numbers, anchors, changed }) = self.staged.take() {
            // Else a slot that is lost soon after would count for a root that fewer shares gave.
            self.unsaid |= changed;
            self.waiting.retain(|row| !numbers.contains(&row.number) && table.member(row.number).is_some());
            for (number, (from, _)) in &anchors {
                let row = Waiting { number: *number, from: *from };
                if !self.waiting.contains(&row) {
                    self.waiting.push(row);
                }
            }
            for seat in self.seats.iter_mut().filter(|seat| seat.standing == Standing::Present) {
                let left = seat.number.is_some_and(|number| !sharing.shares.contains_key(&number));
                seat.standing = if left { Standing::Retired } else { Standing::Present };
            }
            self.older.push(std::mem::replace(&mut self.present, sharing));
            (self.table, self.anchors) = (table, anchors);
        }
        if self.present.id == keep { Ok(()) } else { Err(SlotError::Missing) }
    }

    /// Behind the commit point: every slot that got its share destroys what else it holds, and those that were retired
    /// everything.
    pub(crate) fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        self.adopt(keep)?;
        self.older.clear();
        // Enough took their shares. Those of several that do not answer now count as left, and are asked again.
        self.settle(Vec::new()).or_else(|error| if self.seats.len() == 1 { Err(error) } else { Ok(()) })
    }

    /// The same while the backup lacks the rotation: of the roots that were kept so far only those are destroyed that neither
    /// the top nor the backup needs; `older` are those that it does.
    pub(crate) fn put_off(&mut self, keep: RootId, older: Vec<RootId>) -> Result<(), SlotError> {
        let mut dropped = std::mem::replace(&mut self.needed, older);
        dropped.push(self.present.id);
        self.adopt(keep)?;
        dropped.retain(|id| *id != keep && !self.needed.contains(id));
        self.older.retain(|sharing| self.needed.contains(&sharing.id));
        let (mut holding, mut failed) = (0, SlotError::Missing);
        for seat in self.seats.iter_mut().filter(|seat| seat.standing == Standing::Present) {
            let Some(slot) = seat.slot.as_mut() else { continue };
            match dropped.iter().try_for_each(|root| slot.discard(*root)) {
                Ok(()) => holding += 1,
                Err(error) => {
                    seat.away(&error);
                    failed = error;
                }
            }
        }
        let enough = holding >= usize::from(self.table.k()) || self.seats.len() > 1;
        if enough { Ok(()) } else { Err(failed) }
    }

    /// Whether every root of before is destroyed.
    pub(crate) fn all_destroyed(&self) -> bool {
        self.table.destroyed_before() == self.table.generation()
    }
}

/// The root with this id from `k` of these shares, and the shares of it with these numbers. A share that is not what it should
/// be does not hide the others.
fn recover(shares: &[(u8, &Secret)], k: u8, id: RootId, numbers: &[u8]) -> Option<(Secret, BTreeMap<u8, Secret>)> {
    let mut picked = Vec::new();
    let root = any_of(shares, usize::from(k), &mut picked, &mut |some| {
        share::combine(some).filter(|secret| root_id(secret) == id)
    })?;
    let share = |number: &u8| Some((*number, share::another(*number, &picked)?));
    Some((root, numbers.iter().filter_map(share).collect()))
}

/// The first `k` of the shares that give what is looked for.
fn any_of<'a, R>(
    shares: &[(u8, &'a Secret)],
    k: usize,
    picked: &mut Vec<(u8, &'a Secret)>,
    gives: &mut impl FnMut(&[(u8, &Secret)]) -> Option<R>,
) -> Option<R> {
    if picked.len() == k {
        return gives(picked);
    }
    for (at, share) in shares.iter().enumerate() {
        picked.push(*share);
        if let Some(found) = any_of(&shares[at + 1..], k, picked, gives) {
            return Some(found);
        }
        picked.pop();
    }
    None
}
