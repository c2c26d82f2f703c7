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
//! away: it is worth what that slot is worth) and takes the place of the row before; only a restart adds a row. So rows
//! are bounded by starts, not by erasures.
//!
//! # The steps of a rotation
//! [`Slots::stage`] gives every slot that answers its new share, and is refused, with everything taken back, when fewer than `k` are
//! confirmed; [`Slots::commit`], behind the commit point, has each of them destroy what else it holds. A slot that fails in
//! either is *away* from then on; it is asked again at the next rotation and at the next start. Where fewer than `k` commit, nobody
//! knows what the slots hold: the writer ends the process, and a start finds out.
//!
//! # A start
//! [`Slots::find`] changes nothing. It needs `k` slots that hold a share of the root that the top names, or reach one by rows. Then
//! [`Slots::settle`] has those that hold one keep it alone, and gives one to every other slot of this key store and wipes what
//! else it holds; one that was retired is emptied. A slot is taken for one of ours by its number and the id of a root that
//! it is known to have held; any other is foreign, and is left alone.

use super::{
    Forgets, Record, Slot, SlotError, root_id,
    table::{self, Member, Table},
};
use crate::{
    crypto::{
        envelope::{Envelope, Kind, seal},
        label::{Label, derive},
        secret::Secret,
        share,
    },
    domain::id::RootId,
    keys::{
        backing::{Family, KeyValue, Row},
        plan::RootKey,
    },
};
use std::collections::BTreeMap;

/// What the names of the rows of shares that wait begin with.
pub const WAITING: &[u8] = b"waiting";

/// Opens a slot; asked again when the slot was away.
pub type Opener = Box<dyn FnMut() -> Result<Box<dyn Slot>, SlotError> + Send>;

/// How the set of slots is to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reshare {
    /// Without this slot.
    Retire(u8),
    /// As configured: empty slots join, those that no configured slot is are retired, and the configured `k` holds.
    Match,
}

/// What became of a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It holds the present share.
    Present,
    /// It is one of ours and holds an older share, or got none of the last rotation.
    Behind,
    /// It was retired, and still holds something.
    Retired,
    /// It holds nothing, and is none of ours: new, or not mounted.
    Empty,
    /// It holds something of another key store.
    Foreign,
    /// It cannot be used.
    Away(String),
}

/// One slot, as it is shown.
#[derive(Clone, Debug)]
pub struct SlotReport {
    /// Where it is; empty for one that no configured slot is.
    pub name: String,
    /// Its number, where it is known.
    pub number: Option<u8>,
    /// What became of it.
    pub standing: Standing,
    /// What it declares; none where it could not be opened.
    pub forgets: Option<Forgets>,
    /// It holds no share of an older generation than this.
    pub confirmed: Option<u64>,
}

/// All slots, as they are shown.
#[derive(Clone, Debug)]
pub struct SlotsReport {
    /// How many shares give the root.
    pub k: u8,
    /// How many slots share the present root.
    pub of: usize,
    /// Generation of the present root.
    pub generation: u64,
    /// Every root below this generation is destroyed.
    pub destroyed_before: u64,
    /// Shares that are left of the oldest root that is not destroyed; none where every old root is.
    pub shares_left: Option<usize>,
    /// How many more slots may be lost without losing everything.
    pub losses_survivable: usize,
    /// Each slot.
    pub slots: Vec<SlotReport>,
}

/// Too few slots match. Nothing was changed.
pub(crate) struct Short {
    pub needed: u8,
    pub found: usize,
    /// Every slot could be read, and none held anything.
    pub all_empty: bool,
    /// Each slot, and what is the matter with it.
    pub detail: String,
}

/// One configured slot.
struct Seat {
    name: String,
    open: Option<Opener>,
    slot: Option<Box<dyn Slot>>,
    number: Option<u8>,
    standing: Standing,
    forgets: Option<Forgets>,
}

impl Seat {
    fn away(&mut self, error: &SlotError) {
        self.standing = Standing::Away(error.to_string());
        // What is open is kept where it cannot be opened again.
        if self.open.is_some() {
            self.slot = None;
        }
    }

    fn records(&mut self) -> Result<Vec<Record>, SlotError> {
        let slot = match (&mut self.slot, &mut self.open) {
            (Some(slot), _) => slot,
            (none, Some(open)) => none.insert(open()?),
            (None, None) => return Err(SlotError::Missing),
        };
        self.forgets = Some(slot.forgets());
        slot.records()
    }

    fn stage(&mut self, record: &Record) -> Result<(), SlotError> {
        self.slot.as_mut().ok_or(SlotError::Missing)?.stage(record)
    }
}

/// A rotation between its stage and its commit.
struct Staged {
    generation: u64,
    id: RootId,
    table: Table,
    shares: BTreeMap<u8, Secret>,
    numbers: Vec<u8>,
    anchored: BTreeMap<u8, (RootId, Secret)>,
}

/// The slots of one key store.
pub struct Slots {
    seats: Vec<Seat>,
    /// As configured: for a first start, and for [`Reshare::Match`].
    k: u8,
    table: Table,
    generation: u64,
    id: RootId,
    /// Every share of the present root.
    shares: BTreeMap<u8, Secret>,
    /// The rows of shares that wait: number, and the root whose share opens it.
    waiting: Vec<(u8, RootId)>,
    /// What the rows of absent slots start from.
    anchors: BTreeMap<u8, (RootId, Secret)>,
    staged: Option<Staged>,
}

/// A sharing that was refused: with every slot that answers as it was, or else not.
pub(crate) enum NotStaged {
    /// Everything was taken back.
    Refused(SlotError),
    /// Fewer slots answer than are needed.
    Unknown(SlotError),
}

impl Slots {
    /// A single slot.
    pub fn one(slot: Box<dyn Slot>) -> Self {
        Self::with(1, vec![(String::new(), None, Some(slot))])
    }

    /// Several, of which any `k` give the root; `2k > n`, as whoever read the configuration has checked. They are opened when
    /// they are first needed.
    pub fn several(k: u8, slots: Vec<(String, Opener)>) -> Self {
        Self::with(k, slots.into_iter().map(|(name, open)| (name, Some(open), None)).collect())
    }

    fn with(k: u8, slots: Vec<(String, Option<Opener>, Option<Box<dyn Slot>>)>) -> Self {
        let seat =
            |(name, open, slot)| Seat { name, open, slot, number: None, standing: Standing::Empty, forgets: None };
        let seats: Vec<_> = slots.into_iter().map(seat).collect();
        Self {
            k,
            table: Table::first(k, seats.len() as u8, RootId([0; 16])),
            seats,
            generation: 0,
            id: RootId([0; 16]),
            shares: BTreeMap::new(),
            waiting: Vec::new(),
            anchors: BTreeMap::new(),
            staged: None,
        }
    }

    /// What all of them hold. Fails when one of them cannot be read.
    pub fn records(&mut self) -> Result<Vec<Record>, SlotError> {
        let mut records = Vec::new();
        for seat in &mut self.seats {
            records.append(&mut seat.records()?);
        }
        Ok(records)
    }

    /// A first start: every slot must take its share. Gives the row of the table.
    pub(crate) fn begin(&mut self, root: &RootKey) -> Result<Row, SlotError> {
        self.table = Table::first(self.k, self.seats.len() as u8, root.id);
        let numbers: Vec<u8> = self.table.present().map(|member| member.number).collect();
        for (number, share) in share::split(&root.key, self.k, &numbers) {
            let seat = &mut self.seats[usize::from(number) - 1];
            let record = Record { generation: root.generation, id: root.id, number, share };
            seat.stage(&record)?;
            (seat.number, seat.standing) = (Some(number), Standing::Present);
            self.shares.insert(number, record.share);
        }
        (self.generation, self.id) = (root.generation, root.id);
        Ok(Row::put(Family::Meta, table::NAME, self.table.encode()))
    }

    /// Takes back what an interrupted first start left.
    pub(crate) fn discard(&mut self, root: RootId) -> Result<(), SlotError> {
        self.seats.iter_mut().filter_map(|seat| seat.slot.as_mut()).try_for_each(|slot| slot.discard(root))
    }

    /// Finds the root with this id: from what the slots hold and the rows of shares that wait. Changes nothing.
    pub(crate) fn find(&mut self, table: Table, waiting: &[KeyValue], root: RootId) -> Result<(u64, Secret), Short> {
        (self.table, self.id) = (table, root);
        self.waiting = waiting.iter().filter_map(|(key, _)| waiting_name(key)).collect();
        let (mut found, mut generation) = (BTreeMap::new(), None);
        for at in 0..self.seats.len() {
            let records = match self.seats[at].records() {
                Ok(records) => records,
                Err(error) => {
                    self.seats[at].away(&error);
                    continue;
                }
            };
            let (number, standing) = self.recognize(&records);
            for record in records.iter().filter(|record| Some(record.number) == number && standing != Standing::Retired)
            {
                if record.id == root {
                    generation = Some(record.generation);
                    found.insert(record.number, record.share.duplicate());
                } else if let Some(share) = follow(waiting, record, root) {
                    found.entry(record.number).or_insert(share);
                }
            }
            (self.seats[at].number, self.seats[at].standing) = (number, standing);
        }
        let shares: Vec<_> = found.iter().map(|(number, share)| (*number, share)).collect();
        let (k, mut picked) = (usize::from(self.table.k()), Vec::new());
        match any_of(&shares, k, &mut picked, &mut |some| share::combine(some).filter(|secret| root_id(secret) == root))
        {
            Some(secret) => {
                for member in self.table.present() {
                    if let Some(share) = share::another(member.number, &picked) {
                        self.shares.insert(member.number, share);
                    }
                }
                Ok((generation.unwrap_or(0), secret))
            }
            None => Err(self.short(found.len())),
        }
    }

    fn short(&self, found: usize) -> Short {
        let words = self.seats.iter().map(|seat| {
            let name = if seat.name.is_empty() { "the slot" } else { &seat.name };
            format!("{name} {}", seat.standing.words())
        });
        Short {
            needed: self.table.k(),
            found,
            all_empty: self.seats.iter().all(|seat| seat.standing == Standing::Empty),
            detail: words.collect::<Vec<_>>().join("; "),
        }
    }

    /// Which slot it is, by what it holds.
    fn recognize(&self, records: &[Record]) -> (Option<u8>, Standing) {
        if records.is_empty() {
            return (None, Standing::Empty);
        }
        for record in records {
            let Some(member) = self.table.member(record.number) else { continue };
            let held = record.id == member.holds || self.waiting.contains(&(record.number, record.id));
            match member.left {
                None if record.id == self.id => return (Some(record.number), Standing::Present),
                None if held => return (Some(record.number), Standing::Behind),
                Some(_) if held || record.id == self.id => return (Some(record.number), Standing::Retired),
                _ => {}
            }
        }
        (None, Standing::Foreign)
    }

    /// Has every slot of ours hold its share of the root that was found and nothing else.
    pub(crate) fn settle(&mut self, root: &RootKey) -> Result<(), SlotError> {
        self.generation = root.generation;
        let (mut confirmed, mut failed) = (0, None);
        for at in 0..self.seats.len() {
            match self.settle_seat(at, root) {
                Ok(true) => confirmed += 1,
                Ok(false) => {}
                Err(error) => {
                    self.seats[at].away(&error);
                    failed = Some(error);
                }
            }
        }
        self.table.tidy(self.generation);
        if confirmed < usize::from(self.table.k()) { Err(failed.unwrap_or(SlotError::Missing)) } else { Ok(()) }
    }

    fn settle_seat(&mut self, at: usize, root: &RootKey) -> Result<bool, SlotError> {
        let Slots { seats, table, shares, .. } = self;
        let seat = &mut seats[at];
        let (Some(number), Some(slot)) = (seat.number, seat.slot.as_mut()) else { return Ok(false) };
        match seat.standing {
            Standing::Retired => {
                empty(slot)?;
                table.wiped(number);
                (seat.number, seat.standing) = (None, Standing::Empty);
                Ok(false)
            }
            Standing::Present | Standing::Behind => {
                if seat.standing == Standing::Behind
                    && let Some(share) = shares.get(&number)
                {
                    let share = share.duplicate();
                    stage_in(slot, &Record { generation: root.generation, id: root.id, number, share })?;
                }
                slot.commit(root.id)?;
                table.confirm(number, root.generation, root.id);
                seat.standing = Standing::Present;
                Ok(true)
            }
            Standing::Empty | Standing::Foreign | Standing::Away(_) => Ok(false),
        }
    }

    /// Asks the slots that were away. One that answers and is ours takes part in the rotation.
    fn ask_again(&mut self) {
        for at in 0..self.seats.len() {
            if !matches!(self.seats[at].standing, Standing::Away(_) | Standing::Empty) {
                continue;
            }
            match self.seats[at].records() {
                Ok(records) => (self.seats[at].number, self.seats[at].standing) = self.recognize(&records),
                Err(error) => self.seats[at].away(&error),
            }
        }
    }

    /// Shares the next root among the slots. Gives the rows of its command.
    pub(crate) fn stage(&mut self, next: &RootKey, change: Option<&Reshare>) -> Result<Vec<Row>, NotStaged> {
        self.ask_again();
        let mut table = self.table.clone();
        let new = self.apply(change, &mut table, next.generation).map_err(NotStaged::Refused)?;
        let numbers: Vec<u8> = table.present().map(|member| member.number).collect();
        let shares = share::split(&next.key, table.k(), &numbers);
        let (mut staged, mut failed) = (Vec::new(), SlotError::Missing);
        for (number, share) in &shares {
            let record = Record { generation: next.generation, id: next.id, number: *number, share: share.duplicate() };
            let joins = new.iter().find(|(_, new)| new == number).map(|(seat, _)| *seat);
            let seat = joins.or_else(|| self.seats.iter().position(|seat| seat.number == Some(*number)));
            let Some(seat) = seat.map(|at| &mut self.seats[at]) else { continue };
            if joins.is_none() && !matches!(seat.standing, Standing::Present | Standing::Behind) {
                continue;
            }
            match seat.stage(&record) {
                Ok(()) => staged.push(*number),
                Err(error) => {
                    if !matches!(error, SlotError::Full) {
                        seat.away(&error);
                    }
                    failed = error;
                }
            }
        }
        let joined = new.iter().all(|(_, number)| staged.contains(number));
        if staged.len() < usize::from(table.k()) || !joined {
            return Err(self.take_back(next.id, failed));
        }
        for (seat, number) in &new {
            (self.seats[*seat].number, self.seats[*seat].standing) = (Some(*number), Standing::Present);
        }
        let shares: BTreeMap<u8, Secret> = shares.into_iter().collect();
        Ok(self.draw_up(next, table, shares, staged))
    }

    /// The rows, and what the commit will need.
    fn draw_up(&mut self, next: &RootKey, table: Table, shares: BTreeMap<u8, Secret>, staged: Vec<u8>) -> Vec<Row> {
        let mut rows = vec![Row::put(Family::Meta, table::NAME, table.encode())];
        // A slot that has the new share follows no row; one that was wiped after it was retired never will.
        let gone = |number: &u8| staged.contains(number) || table.member(*number).is_none();
        rows.extend(
            self.waiting
                .iter()
                .filter(|(number, _)| gone(number))
                .map(|(number, from)| Row::delete(Family::Meta, waiting_row(*number, *from))),
        );
        let mut anchored = BTreeMap::new();
        for (number, share) in shares.iter().filter(|(number, _)| !staged.contains(number)) {
            let start = self.anchors.get(number).map(|(id, share)| (*id, share.duplicate()));
            let start = start.or_else(|| self.shares.get(number).map(|share| (self.id, share.duplicate())));
            if let Some((from, with)) = start {
                rows.push(seal_waiting(*number, from, &with, next.id, share));
                anchored.insert(*number, (from, with));
            }
        }
        self.staged =
            Some(Staged { generation: next.generation, id: next.id, table, shares, numbers: staged, anchored });
        rows
    }

    fn take_back(&mut self, root: RootId, error: SlotError) -> NotStaged {
        let mut answered = 0;
        for seat in &mut self.seats {
            match seat.slot.as_mut().map(|slot| slot.discard(root)) {
                Some(Ok(())) if matches!(seat.standing, Standing::Present | Standing::Behind) => answered += 1,
                Some(Err(error)) => seat.away(&error),
                _ => {}
            }
        }
        if answered < self.table.k() { NotStaged::Unknown(error) } else { NotStaged::Refused(error) }
    }

    /// Changes the table; gives the seats that join and their numbers.
    fn apply(
        &self,
        change: Option<&Reshare>,
        table: &mut Table,
        generation: u64,
    ) -> Result<Vec<(usize, u8)>, SlotError> {
        let (leave, join, k) = match change {
            None => return Ok(Vec::new()),
            Some(Reshare::Retire(number)) => {
                if table.present().all(|member| member.number != *number) {
                    return Err(SlotError::Sharing("no slot with this number shares the root"));
                }
                (vec![*number], Vec::new(), table.k())
            }
            Some(Reshare::Match) => {
                let unknown = |seat: &Seat| matches!(seat.standing, Standing::Away(_) | Standing::Foreign);
                if self.seats.iter().any(unknown) {
                    return Err(SlotError::Sharing(
                        "each configured slot must be there, and empty or of this key store",
                    ));
                }
                let seated = |member: &&Member| self.seats.iter().any(|seat| seat.number == Some(member.number));
                let leave = table.present().filter(|member| !seated(member)).map(|member| member.number).collect();
                let empty = |(_, seat): &(usize, &Seat)| seat.standing == Standing::Empty && seat.slot.is_some();
                (leave, self.seats.iter().enumerate().filter(empty).map(|(at, _)| at).collect(), self.k)
            }
        };
        let count = table.present().count() - leave.len() + join.len();
        if count > table::MAX_SLOTS || usize::from(k) > count || 2 * usize::from(k) <= count {
            return Err(SlotError::Sharing("more than half of the slots must be needed, and no more than there are"));
        }
        let new = table.reshare(generation, k, &leave, join.len());
        let new = new.ok_or(SlotError::Sharing("every number has been given to a slot"))?;
        Ok(join.into_iter().zip(new).collect())
    }

    /// Behind the commit point: every slot that got its share destroys what else it holds, and those that were retired
    /// everything.
    pub(crate) fn commit(&mut self, keep: RootId) -> Result<(), SlotError> {
        let Some(Staged { generation, id, mut table, shares, numbers, anchored }) =
            self.staged.take().filter(|staged| staged.id == keep)
        else {
            return Err(SlotError::Missing);
        };
        let (mut confirmed, mut failed) = (0, SlotError::Missing);
        for seat in &mut self.seats {
            let (Some(number), Some(slot)) = (seat.number, seat.slot.as_mut()) else { continue };
            let retired = table.member(number).is_some_and(|member| member.left.is_some());
            let done = match numbers.contains(&number) {
                true => slot.commit(keep),
                false if retired => empty(slot),
                false => continue,
            };
            match done {
                Ok(()) if retired => {
                    table.wiped(number);
                    (seat.number, seat.standing) = (None, Standing::Empty);
                }
                Ok(()) => {
                    confirmed += 1;
                    table.confirm(number, generation, id);
                    seat.standing = Standing::Present;
                }
                Err(error) => {
                    seat.away(&error);
                    failed = error;
                }
            }
        }
        self.waiting.retain(|(number, _)| !numbers.contains(number) && table.member(*number).is_some());
        for (number, (from, _)) in &anchored {
            if !self.waiting.contains(&(*number, *from)) {
                self.waiting.push((*number, *from));
            }
        }
        (self.generation, self.id, self.shares, self.anchors) = (generation, id, shares, anchored);
        table.tidy(generation);
        self.table = table;
        if confirmed < usize::from(self.table.k()) { Err(failed) } else { Ok(()) }
    }

    /// Every root below this generation is destroyed.
    pub fn destroyed_before(&self) -> u64 {
        self.table.destroyed_before(self.generation)
    }

    /// As they are shown.
    pub fn report(&self) -> SlotsReport {
        let destroyed_before = self.destroyed_before();
        let known = |number: u8| self.table.member(number);
        let mut slots: Vec<_> = self
            .seats
            .iter()
            .map(|seat| SlotReport {
                name: seat.name.clone(),
                number: seat.number,
                standing: seat.standing.clone(),
                forgets: seat.forgets,
                confirmed: seat.number.and_then(known).map(|member| member.confirmed),
            })
            .collect();
        for member in self.table.members() {
            if self.seats.iter().all(|seat| seat.number != Some(member.number)) {
                let what = if member.left.is_some() { "retired, and not known to be wiped" } else { "not seen" };
                slots.push(SlotReport {
                    name: String::new(),
                    number: Some(member.number),
                    standing: Standing::Away(what.to_owned()),
                    forgets: None,
                    confirmed: Some(member.confirmed),
                });
            }
        }
        let holding = self.seats.iter().filter(|seat| seat.standing == Standing::Present).count();
        SlotsReport {
            k: self.table.k(),
            of: self.table.present().count(),
            generation: self.generation,
            destroyed_before,
            shares_left: (destroyed_before < self.generation).then(|| self.table.shares_left(destroyed_before)),
            losses_survivable: holding.saturating_sub(usize::from(self.table.k())),
            slots,
        }
    }

    /// What all of them together declare: the weakest of so many that fewer than `k` are without.
    pub fn forgets(&self) -> Forgets {
        let mut declared: Vec<_> = self.seats.iter().filter_map(|seat| seat.forgets).collect();
        declared.sort_by_key(|forgets| match forgets {
            Forgets::AtOnce => (0, 0),
            Forgets::BestEffort => (1, 0),
            Forgets::At(when) => (2, when.0),
        });
        let enough = self.table.present().count().saturating_sub(usize::from(self.table.k()));
        declared.get(enough).or(declared.last()).copied().unwrap_or(Forgets::BestEffort)
    }
}

impl Standing {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Standing::Present => "matches".to_owned(),
            Standing::Behind => "holds an older share".to_owned(),
            Standing::Retired => "was retired".to_owned(),
            Standing::Empty => "is empty".to_owned(),
            Standing::Foreign => "holds a root of another key store".to_owned(),
            Standing::Away(why) => format!("is away ({why})"),
        }
    }
}

/// Destroys every record.
fn empty(slot: &mut Box<dyn Slot>) -> Result<(), SlotError> {
    for record in slot.records()? {
        slot.discard(record.id)?;
    }
    Ok(())
}

/// Adds a record; where there is no room, the newest record is kept and the others go first.
fn stage_in(slot: &mut Box<dyn Slot>, record: &Record) -> Result<(), SlotError> {
    if slot.records()?.iter().any(|held| held.id == record.id) {
        return Ok(());
    }
    match slot.stage(record) {
        Err(SlotError::Full) => {
            let newest = slot.records()?.into_iter().max_by_key(|held| held.generation);
            slot.commit(newest.ok_or(SlotError::Full)?.id)?;
            slot.stage(record)
        }
        done => done,
    }
}

/// The first `k` of the shares that give what is looked for: a share that is not what it should be does not hide the others.
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

/// Row name: `waiting` ‖ number (1) ‖ id of the root whose share opens it (16).
fn waiting_row(number: u8, from: RootId) -> Vec<u8> {
    [WAITING, &[number], &from.0].concat()
}

fn waiting_name(key: &[u8]) -> Option<(u8, RootId)> {
    let (number, from) = key.strip_prefix(WAITING)?.split_first()?;
    Some((*number, RootId::from_slice(from)?))
}

fn waiting_key(share: &Secret, number: u8, from: RootId) -> Secret {
    Secret::from_bytes(&derive(share.expose(), Label::WaitingShare, &[&[number], &from.0]))
}

/// The share of root `to`, to be opened with the share of root `from`.
fn seal_waiting(number: u8, from: RootId, with: &Secret, to: RootId, share: &Secret) -> Row {
    let name = waiting_row(number, from);
    let clear = [&name[..], &to.0].concat();
    let sealed = seal(Kind::WaitingShare, &waiting_key(with, number, from), &clear, share.expose());
    Row::put(Family::Meta, name, sealed)
}

/// Follows rows from what a slot holds to its share of a root.
fn follow(rows: &[KeyValue], record: &Record, root: RootId) -> Option<Secret> {
    let (mut at, mut share) = (record.id, record.share.duplicate());
    // Each row leads on from a root of its own, so that there are no more steps than rows.
    for _ in 0..rows.len() {
        let name = waiting_row(record.number, at);
        let (_, value) = rows.iter().find(|(key, _)| *key == name)?;
        let envelope = Envelope::parse(value).ok().filter(|envelope| envelope.kind == Kind::WaitingShare)?;
        let to = RootId::from_slice(envelope.clear.strip_prefix(&name[..])?)?;
        let plain = envelope.open(&waiting_key(&share, record.number, at)).ok()?;
        (at, share) = (to, plain.as_slice().try_into().ok().map(Secret::from_bytes)?);
        if at == root {
            return Some(share);
        }
    }
    None
}
