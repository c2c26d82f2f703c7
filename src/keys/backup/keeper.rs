//! The thread that keeps the backup, and what it tells the writer, the rotator and those who wait.
//!
//! It works from the outbox alone: whatever is there and not in the backup goes out as one delta, in the order of numbers. So
//! it can be killed anywhere, and nobody waits for it but those who want to know that something *is* in the backup. A delta
//! ends at a state whose root the slot keeps: at the newest state, or before a rotation that no delta holds yet; where
//! neither is possible within the bound of an object, a base is made instead.
//!
//! At first, and after each failure, it compares backup and store ([`reconcile`]): a put whose answer was lost is found then.
//! A backup that went another way than the store stops the store, since both cannot be right.

use super::{
    super::{
        ReadError,
        backing::{Backing, BackingError, Family, Row, Snapshot},
        command::{CHAIN, Chain, Command, NUMBER, clear_of},
        page::TOP,
    },
    Archive, ArchiveError, Backup, BackupStatus, MAX_OBJECT, Options, STORE,
    format::{Delta, PartWriter, delta},
    lag::Lag,
    name::{self, BaseName, Catalogue, DeltaName, Mark, Short, Way, catalogues},
    roots::Roots,
    store_id,
};
use crate::{
    crypto::random,
    domain::{
        id::{RootId, StoreId},
        time::{Clock, Timestamp},
    },
};
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Rows of the outbox that are read at a time.
const ROWS: usize = 64;
/// Most bytes of one delta; more is several, or a base.
const MAX_DELTA: usize = 2 * MAX_OBJECT;
/// Bytes of deltas behind a base, in bases, that make another one worth its while.
const REBASE: u64 = 4;
/// How often ages are looked at while nothing happens.
const LOOK: Duration = Duration::from_secs(60);

/// What the threads of a store know of its backup.
pub(in super::super) struct Backlog {
    clock: Clock,
    state: Mutex<State>,
    wake: Condvar,
    backed: watch::Sender<u64>,
}

struct State {
    /// The last command that was applied.
    applied: u64,
    /// How far the backup is, and which roots its states need.
    roots: Roots,
    /// Since when it lacks what it lacks.
    lag: Lag,
    /// When its base was begun, where that is known.
    base: Option<Timestamp>,
    /// Tries that failed.
    failures: u64,
    away: bool,
    /// Rounds that were asked for, and that are done.
    asked: u64,
    done: u64,
    closed: bool,
}

impl Backlog {
    /// With the last command, and what the start found.
    pub(in super::super) fn new(applied: u64, roots: Roots, place: Option<&Place>, clock: Clock) -> Self {
        let backed = watch::Sender::new(roots.backed());
        let lag = Lag::found(roots.backed(), applied, clock.now());
        let base = place.map(|place| place.taken);
        let state = State { applied, roots, lag, base, failures: 0, away: false, asked: 0, done: 0, closed: false };
        Self { clock, state: Mutex::new(state), wake: Condvar::new(), backed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.wake.notify_all();
    }

    /// A command was applied; with the root that it brought, where it rotated.
    pub(in super::super) fn applied(&self, number: u64, root: Option<RootId>) {
        let now = self.clock.now();
        self.change(|state| {
            state.applied = number;
            state.lag.applied(number, now);
            if let Some(root) = root {
                state.roots.rotated(number, root);
            }
        });
    }

    /// The last command that the backup has.
    pub(in super::super) fn backed(&self) -> u64 {
        self.lock().roots.backed()
    }

    /// Waits until the backup has a command; false when object storage turns out to be away, or when that takes too long.
    pub(in super::super) fn wait(&self, number: u64, patience: Duration) -> bool {
        let state = self.lock();
        let failures = state.failures;
        let waits = |state: &mut State| state.roots.backed() < number && state.failures == failures && !state.closed;
        let waited = self.wake.wait_timeout_while(state, patience, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.roots.backed() >= number
    }

    /// The newest rotation is put off: see [`Roots::put_off`].
    pub(in super::super) fn put_off(&self) -> Vec<RootId> {
        self.lock().roots.put_off()
    }

    /// Whether the slots wait for the backup.
    pub(in super::super) fn is_owed(&self) -> bool {
        self.lock().roots.is_owed()
    }

    /// The root that the slots are to keep alone, once they may.
    pub(in super::super) fn due(&self) -> Option<RootId> {
        self.lock().roots.due()
    }

    /// The slots keep the newest root alone.
    pub(in super::super) fn settled(&self) {
        self.lock().roots.settled();
    }

    /// The backup has everything up to a command, on a base that was begun then.
    fn publish(&self, number: u64, base: Timestamp) {
        self.change(|state| {
            state.away = false;
            state.base = Some(base);
            state.roots.published(number);
            state.lag.backed(state.roots.backed());
        });
        self.backed.send_replace(self.backed());
    }

    /// Follows how far the backup is.
    pub(in super::super) fn watch(&self) -> watch::Receiver<u64> {
        self.backed.subscribe()
    }

    pub(in super::super) fn status(&self) -> BackupStatus {
        let state = self.lock();
        BackupStatus {
            behind: state.applied.saturating_sub(state.roots.backed()),
            behind_since: state.lag.since(),
            base: state.base,
            away: state.away,
        }
    }

    /// Asks for a round, also where nothing waits, and waits until it is done. False when it failed.
    pub(in super::super) fn round(&self) -> bool {
        let mut state = self.lock();
        state.asked += 1;
        let (asked, failures) = (state.asked, state.failures);
        self.wake.notify_all();
        let waits = |state: &mut State| state.done < asked && state.failures == failures && !state.closed;
        let state = self.wake.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        state.done >= asked
    }

    /// Ends the keeper where it stands.
    pub(in super::super) fn abandon(&self) {
        self.change(|state| (state.closed, state.away) = (true, true));
    }

    /// Ends the keeper, after one more try where object storage is there.
    pub(in super::super) fn close(&self) {
        self.change(|state| state.closed = true);
    }
}

/// Why a round ended early.
pub(in super::super) enum Trouble {
    /// Try again.
    Away(String),
    /// The store must not go on.
    Fatal(String),
}

impl From<ArchiveError> for Trouble {
    fn from(error: ArchiveError) -> Self {
        Trouble::Away(error.to_string())
    }
}

impl From<BackingError> for Trouble {
    fn from(error: BackingError) -> Self {
        Trouble::Fatal(error.0)
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Trouble::Fatal(error.to_string())
    }
}

/// What comparing backup and store gave.
pub(in super::super) enum Compared {
    /// The backup has the store's history up to here.
    Linked(Place),
    /// It does not reach: a base is to be made.
    Apart,
    /// It has commands that the store lacks.
    Ahead(Ahead),
    /// They went different ways.
    Diverged,
}

/// As names have it.
pub(in super::super) fn short(root: RootId) -> Short {
    root.into()
}

/// How far the backup is.
#[derive(Clone, Copy)]
pub(in super::super) struct Place {
    /// The last command.
    pub number: u64,
    chain: Chain,
    /// The root that opens it.
    pub root: Short,
    /// Bytes of the last base, and of the deltas behind it; 0 where nobody knows.
    base: u64,
    deltas: u64,
    /// When the last base was made.
    taken: Timestamp,
}

impl Place {
    /// At a state of the backup.
    pub(in super::super) fn at(mark: Mark, chain: Chain, taken: Timestamp) -> Self {
        Self { number: mark.number, chain, root: mark.root, base: 0, deltas: 0, taken }
    }
}

/// The newest state of the backup, and the deltas that lead there from the store's.
pub(in super::super) struct Ahead {
    pub mark: Mark,
    /// When the base before it was made.
    pub taken: Timestamp,
    /// None: they do not reach back.
    pub deltas: Option<Vec<DeltaName>>,
}

/// The store, as the backup is compared with it.
pub(in super::super) struct Tip {
    pub store: StoreId,
    pub number: u64,
    pub chain: Chain,
}

/// A command that waits in the outbox.
pub(in super::super) struct Waiting {
    pub number: u64,
    /// The chain before it.
    pub before: Chain,
    pub bytes: Vec<u8>,
}

/// Commands of the outbox behind a number, in order.
pub(in super::super) fn outbox(backing: &dyn Backing, behind: u64, limit: usize) -> Result<Vec<Waiting>, ReadError> {
    let damaged = || ReadError::Damaged("a command in the outbox");
    let rows = backing.scan(Family::Outbox, &[], Some(&behind.to_be_bytes()), limit)?;
    rows.into_iter()
        .map(|(key, value)| {
            let number = u64::from_be_bytes(key.try_into().map_err(|_| damaged())?);
            let (before, bytes) = value.split_at_checked(32).ok_or_else(damaged)?;
            let before = Chain(before.try_into().map_err(|_| damaged())?);
            Ok(Waiting { number, before, bytes: bytes.to_vec() })
        })
        .collect()
}

/// The way to the newest state of a store's backup, and the deltas behind `from` at least. Objects before the newest base are
/// looked at only when it leads nowhere.
pub(in super::super) fn newest(
    archive: &mut dyn Archive,
    store: StoreId,
    from: u64,
    holds: impl Fn(Short) -> bool,
) -> Result<Option<(Catalogue, Way)>, ArchiveError> {
    let bases = archive.list(&name::bases(store), "")?;
    let newest = catalogues(&bases).remove(&store).and_then(|found| Some(found.bases.last()?.0.mark.number));
    for first in [newest.map_or(0, |newest| newest.min(from)), 0] {
        let deltas = archive.list(&name::deltas(store), &name::deltas_from(store, first + 1))?;
        let Some(found) = catalogues(&[&bases[..], &deltas[..]].concat()).remove(&store) else { return Ok(None) };
        if let Some(way) = found.best(&holds) {
            return Ok(Some((found, way)));
        }
        if first == 0 {
            break;
        }
    }
    Ok(None)
}

/// Compares. `holds` tells which roots the slot has.
pub(in super::super) fn reconcile(
    archive: &mut dyn Archive,
    backing: &dyn Backing,
    tip: &Tip,
    holds: impl Fn(Short) -> bool,
) -> Result<Compared, Trouble> {
    let Some((catalogue, way)) = newest(archive, tip.store, tip.number, holds)? else { return Ok(Compared::Apart) };
    let Mark { number, chain, root } = way.mark;
    if number > tip.number {
        return Ok(Compared::Ahead(Ahead {
            mark: way.mark,
            taken: way.base.taken,
            deltas: catalogue.deltas_to(way.mark, tip.number),
        }));
    }
    let here = if number == tip.number {
        Some(tip.chain)
    } else {
        // Without a gap up to the tip, or the backup has to begin anew.
        let next = outbox(backing, number, 1)?.pop();
        next.filter(|next| next.number == number + 1).map(|next| next.before)
    };
    Ok(match here {
        Some(here) if Short::from(here) == chain => {
            let taken = way.base.taken;
            Compared::Linked(Place { number, chain: here, root, base: 0, deltas: 0, taken })
        }
        Some(_) => Compared::Diverged,
        None => Compared::Apart,
    })
}

/// Commands of a delta, each with the chain behind it, and the bytes of the object.
pub(in super::super) type Fetched = (Vec<(Command, Chain)>, usize);

/// The commands of a delta and its size, once it is what its name says and continues `tip`; those up to `tip` are left out.
pub(in super::super) fn fetch(
    archive: &mut dyn Archive,
    tip: &Tip,
    name: &DeltaName,
) -> Result<Option<Fetched>, ArchiveError> {
    let bytes = archive.get(&name.text(tip.store))?;
    let Ok(found) = Delta::decode(&bytes) else { return Ok(None) };
    let Delta { store, first, before, commands } = found;
    let end = commands.last().map(|(command, chain)| (command.number, Short::from(*chain)));
    let named = store == tip.store && first == name.first && end == Some((name.mark.number, name.mark.chain));
    let at_tip = if first == tip.number + 1 {
        Some(before)
    } else {
        commands.iter().find(|(command, _)| command.number == tip.number).map(|(_, chain)| *chain)
    };
    if !named || at_tip != Some(tip.chain) {
        return Ok(None);
    }
    Ok(Some((commands.into_iter().filter(|(command, _)| command.number > tip.number).collect(), bytes.len())))
}

/// Commands of the next delta, and the root behind them; no root where there are no commands.
type Next = (Vec<Waiting>, Option<Short>);

/// What the store must do when the keeper cannot go on.
pub(in super::super) type OnFatal = Box<dyn Fn(&str) + Send>;

/// The keeper.
pub(in super::super) struct Keeper {
    archive: Box<dyn Archive>,
    clock: Clock,
    options: Options,
    store: StoreId,
    backing: Arc<dyn Backing>,
    backlog: Arc<Backlog>,
    place: Option<Place>,
    /// A base was asked for by [`Backlog::round`], or is due.
    rounds: u64,
}

/// The store's name to its backups; drawn where it has none yet.
pub(in super::super) fn name_store(backing: &dyn Backing) -> Result<StoreId, ReadError> {
    if let Some(store) = store_id(backing.get(Family::Meta, STORE)?)? {
        return Ok(store);
    }
    let store = StoreId(random());
    backing.write(&[&[Row::put(Family::Meta, STORE, store.0.to_vec())]])?;
    Ok(store)
}

impl Keeper {
    /// `place` is what the start found, where object storage was there.
    pub(in super::super) fn new(
        backup: Backup,
        store: StoreId,
        backing: Arc<dyn Backing>,
        backlog: Arc<Backlog>,
        place: Option<Place>,
    ) -> Self {
        let Backup { archive, clock, options } = backup;
        Self { archive, clock, options, store, backing, backlog, place, rounds: 0 }
    }

    /// Runs until the backlog is closed.
    pub(in super::super) fn run(mut self, on_fatal: &OnFatal) {
        let mut pause = Duration::ZERO;
        while let Some(asked) = self.wait(pause) {
            match self.round() {
                Ok(()) => {
                    pause = Duration::ZERO;
                    self.backlog.change(|state| {
                        state.away = false;
                        state.done = asked;
                    });
                }
                Err(Trouble::Away(why)) => {
                    tracing::warn!(why, "the backup waits");
                    // The put may have arrived: look again.
                    self.place = None;
                    pause = self.options.retry;
                    self.backlog.change(|state| {
                        state.away = true;
                        state.failures += 1;
                    });
                }
                Err(Trouble::Fatal(why)) => {
                    self.backlog.close();
                    return on_fatal(&why);
                }
            }
        }
    }

    /// Waits for work; gives the rounds that were asked for, none at the end.
    fn wait(&self, pause: Duration) -> Option<u64> {
        let mut state = self.backlog.lock();
        let since = Instant::now();
        loop {
            let waited = since.elapsed();
            let waiting = state.applied > state.roots.backed() || self.place.is_none();
            if state.closed {
                // One more try, for what came while the store closed.
                let last = waiting && !state.away && self.rounds == 0;
                return last.then_some(state.asked).filter(|_| state.applied > state.roots.backed());
            }
            let urgent = state.roots.is_behind() || state.asked > state.done || self.place.is_none();
            let wait = match (waiting, urgent) {
                (true, true) => pause,
                (true, false) => pause.max(self.options.tick),
                (false, true) => pause,
                (false, false) => LOOK,
            };
            let Some(left) = wait.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Some(state.asked);
            };
            state = self.backlog.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn round(&mut self) -> Result<(), Trouble> {
        if self.backlog.lock().closed {
            self.rounds += 1;
        }
        if self.place.is_none() {
            self.compare()?;
        }
        let aged = |place: &Place| {
            let due = place.taken.plus_ms(self.options.base_interval.as_millis() as i64) <= self.clock.now();
            due || (place.base > 0 && place.deltas > REBASE * place.base + MAX_OBJECT as u64)
        };
        let rebase = self.place.as_ref().is_none_or(aged);
        if rebase || !self.pump()? {
            self.base()?;
            self.pump()?;
            self.age()?;
        }
        Ok(())
    }

    /// How backup and store stand to each other.
    fn compare(&mut self) -> Result<(), Trouble> {
        let tip = {
            let (mark, chain) = state_of(&*self.backing.snapshot()?)?;
            Tip { store: self.store, number: mark.number, chain }
        };
        let kept: Vec<Short> = self.backlog.lock().roots.kept().into_iter().map(short).collect();
        let compared = reconcile(&mut *self.archive, &*self.backing, &tip, |root| kept.contains(&root))?;
        match compared {
            Compared::Linked(place) => {
                self.place = Some(place);
                self.backlog.publish(place.number, place.taken);
                Ok(())
            }
            Compared::Apart => Ok(()),
            // Both stop the store: the next start fills what it lacks, or says why it cannot. Nobody but this thread puts, so
            // that what the backup had in advance it had before this store was opened.
            Compared::Ahead(_) => Err(Trouble::Fatal("the backup has commands that this store lacks".to_owned())),
            Compared::Diverged => Err(Trouble::Fatal("the store and its backup went different ways".to_owned())),
        }
    }

    /// Puts what waits. False when that takes a base.
    fn pump(&mut self) -> Result<bool, Trouble> {
        while let Some(place) = self.place {
            let Some((commands, end)) = self.next_delta(&place)? else { return Ok(false) };
            let Some((before, end)) = commands.first().map(|first| first.before).zip(end) else { return Ok(true) };
            if before != place.chain {
                return Err(Trouble::Fatal("the outbox does not continue the backup".to_owned()));
            }
            let first = place.number + 1;
            let mut chain = before;
            let bytes: Vec<Vec<u8>> = commands.into_iter().map(|command| command.bytes).collect();
            for command in &bytes {
                let damaged = |_| Trouble::Fatal("a command in the outbox is damaged".to_owned());
                Command::decode(command).map_err(damaged)?;
                chain = chain.and(command);
            }
            let mark = Mark { number: place.number + bytes.len() as u64, chain: chain.into(), root: end };
            let name = DeltaName { first, before: before.into(), mark, taken: self.clock.now() };
            let object = delta(self.store, first, before, &bytes);
            let size = object.len() as u64;
            self.archive.put(&name.text(self.store), object)?;
            let deltas = place.deltas + size;
            self.place = Some(Place { number: mark.number, chain, root: end, deltas, ..place });
            self.backlog.publish(mark.number, place.taken);
        }
        Ok(true)
    }

    /// The commands of the next delta and the root behind them; no commands when none wait, nothing when they do not fit.
    fn next_delta(&self, place: &Place) -> Result<Option<Next>, Trouble> {
        let (mut commands, mut size, mut number, mut root) = (Vec::<Waiting>::new(), 0, place.number, place.root);
        // Where the first rotation is: before it, the root is one that the slot keeps.
        let mut rotation: Option<usize> = None;
        loop {
            let rows = outbox(&*self.backing, number, ROWS)?;
            if rows.is_empty() {
                // Everything: the newest state.
                let end = (!commands.is_empty()).then_some(root);
                return Ok(Some((commands, end)));
            }
            for waiting in rows {
                if waiting.number != number + 1 {
                    // Commands were written while there was no backup.
                    return Ok(None);
                }
                if size + waiting.bytes.len() > MAX_DELTA {
                    return Ok(match rotation {
                        None if commands.is_empty() => None,
                        None => Some((commands, Some(root))),
                        Some(0) => None,
                        Some(at) => {
                            commands.truncate(at);
                            Some((commands, Some(place.root)))
                        }
                    });
                }
                number = waiting.number;
                size += waiting.bytes.len();
                if let Some(to) = Command::root_brought(&waiting.bytes) {
                    rotation = rotation.or(Some(commands.len()));
                    root = to.into();
                }
                commands.push(waiting);
            }
        }
    }

    /// Makes a base. What waits goes on being put meanwhile, where the backup is linked to the store.
    fn base(&mut self) -> Result<(), Trouble> {
        let backing = self.backing.clone();
        let snapshot = backing.snapshot()?;
        let taken = self.clock.now();
        let (mark, chain) = state_of(&*snapshot)?;
        let base = BaseName { mark, taken };
        let (mut part, mut size) = (0, 0);
        let mut writer = PartWriter::new(self.store, mark.number, chain, part);
        for family in Family::KEPT {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let rows = snapshot.rows(family, after.as_deref(), MAX_OBJECT)?;
                let Some((last, _)) = rows.last() else { break };
                after = Some(last.clone());
                for (key, value) in rows {
                    if writer.size() + key.len() + value.len() > MAX_OBJECT && writer.size() > MAX_OBJECT / 2 {
                        let next = PartWriter::new(self.store, mark.number, chain, part + 1);
                        let full = std::mem::replace(&mut writer, next).finish(false);
                        size += full.len() as u64;
                        self.archive.put(&base.part(self.store, part, false), full)?;
                        part += 1;
                        self.pump()?;
                    }
                    writer.push(family, &key, &value);
                }
            }
        }
        let full = writer.finish(true);
        size += full.len() as u64;
        self.archive.put(&base.part(self.store, part, true), full)?;
        tracing::info!(number = mark.number, bytes = size, "a base of the backup is made");
        // What was put meanwhile is further than the base.
        let ahead = self.place.filter(|place| place.number > mark.number);
        self.place = Some(match ahead {
            Some(place) => Place { base: size, deltas: 0, taken, ..place },
            None => Place { number: mark.number, chain, root: mark.root, base: size, deltas: 0, taken },
        });
        self.backlog.publish(mark.number, taken);
        Ok(())
    }

    /// Removes what is over its age and what the newest state does not need.
    fn age(&mut self) -> Result<(), Trouble> {
        let Some(place) = self.place else { return Ok(()) };
        let mut names = self.archive.list(&name::bases(self.store), "")?;
        names.extend(self.archive.list(&name::deltas(self.store), "")?);
        let Some(catalogue) = catalogues(&names).remove(&self.store) else { return Ok(()) };
        // Nothing goes unless the newest state can be had without it.
        let way = catalogue.best(|root| root == place.root).filter(|way| way.mark.number >= place.number);
        let Some(way) = way else { return Ok(()) };
        let before = self.clock.now().plus_ms(-(self.options.max_age.as_millis() as i64));
        let aged = catalogue.aged(&way, self.store, before);
        if !aged.is_empty() {
            self.archive.remove(&aged)?;
            tracing::info!(objects = aged.len(), "objects of the backup that are over their age are removed");
        }
        self.archive.heal()?;
        Ok(())
    }
}

/// The state that a snapshot holds.
fn state_of(snapshot: &dyn Snapshot) -> Result<(Mark, Chain), Trouble> {
    let damaged = |what| Trouble::from(ReadError::Damaged(what));
    let number = snapshot.get(Family::Meta, NUMBER)?.and_then(|row| row.try_into().ok()).map(u64::from_be_bytes);
    let number = number.ok_or_else(|| damaged("the number of the last command"))?;
    let chain = match snapshot.get(Family::Meta, CHAIN)? {
        Some(row) => Chain(row.try_into().map_err(|_| damaged("the chain over the commands"))?),
        None => Chain::START,
    };
    let top = snapshot.get(Family::Pages, &TOP.0)?.ok_or_else(|| damaged("there is no top page"))?;
    let root = clear_of(&top)?.root.ok_or_else(|| damaged("the top page names no root"))?;
    Ok((Mark { number, chain: chain.into(), root: root.into() }, chain))
}
