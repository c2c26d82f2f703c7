//! A key store on an empty node, from nothing but slot and objects; and the look at a backup that does not restore it.
//!
//! Of all states that the objects lead to, the newest whose root the slots give is restored, and no other: what was erased
//! needs a root that is gone. A state under a root that they do not give is refused, because nothing in it would open.
//!
//! Whether slots give a root is known when the state is there, which says where shares wait; before, that one of them holds a
//! share of it. Every state that anything was acknowledged under passes: `k` slots took their shares of its root, and fewer
//! are ever lost. One that turns out not to open is one that nobody was told of (see [`super`]), and the next older is taken.
//! Whoever looks cannot tell that from slots that are missing, so it is said what was passed over ([`PassedOver`]).
//!
//! It never half-works. The store is built in a folder beside its place, made durable, opened at its top, and renamed. By
//! cases: *a crash before the rename* leaves the folder beside, and in its place nothing: a start refuses, because the slot
//! holds a root and there is no key store; another restore begins anew. *A crash after it* leaves the whole store. The slot
//! is not written to.

use super::{
    super::{
        ReadError, SlotError, Slots,
        backing::{Backing, BackingError, Family, KeyValue, Row},
        command::{ApplyError, CHAIN, Chain, Command, NUMBER, State, clear_of, stored_version},
        page::TOP,
        rocks::Rocks,
        slot::table::Table,
    },
    Archive, ArchiveError, STORE,
    format::Part,
    keeper::{Tip, fetch, short},
    name::{self, Catalogue, Short, Way, catalogues},
};
use crate::{
    crypto::envelope::Envelope,
    domain::{
        id::{PageId, RootId, StoreId},
        time::Timestamp,
    },
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    path::{Path, PathBuf},
};

/// Why a backup cannot be restored, or is not whole. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Something is in its place.
    #[error("there is something in {0} already; restore onto an empty folder")]
    NotEmpty(PathBuf),
    /// No slot could be read.
    #[error("the root slot cannot be used: {0}")]
    Slot(#[from] SlotError),
    /// The slots hold nothing.
    #[error("the root slot is empty: without the root no backup opens")]
    SlotIsEmpty,
    /// Too few slots match.
    #[error("{needed} slots are needed to open this backup and {found} match: {detail}")]
    TooFewSlots {
        /// How many shares give the root.
        needed: u8,
        /// How many slots have one.
        found: usize,
        /// Each slot, and what is the matter with it.
        detail: String,
    },
    /// There is no whole base.
    #[error("there is no backup: no whole base lies in the buckets")]
    NoBackup,
    /// The slot holds none of the roots.
    #[error(
        "the backup's newest state (command {number}) opens with root {needs}, and the slot holds {held}: it is older than \
         what was erased since, or belongs to another slot"
    )]
    OtherRoot {
        /// Its last command.
        number: u64,
        /// Beginning of the id of its root.
        needs: Short,
        /// Beginnings of the ids of the roots in the slot.
        held: String,
    },
    /// Object storage.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What an object holds is not what its name says, or not whole.
    #[error("an object of the backup is damaged: {0}")]
    Damaged(String),
    /// The file system or RocksDB failed.
    #[error("the key store cannot be built: {0}")]
    Build(String),
}

impl From<BackingError> for RestoreError {
    fn from(error: BackingError) -> Self {
        RestoreError::Build(error.0)
    }
}

impl From<ReadError> for RestoreError {
    fn from(error: ReadError) -> Self {
        RestoreError::Build(error.to_string())
    }
}

impl From<ApplyError> for RestoreError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Backing(error) => error.into(),
            ApplyError::Read(error) => error.into(),
            error @ (ApplyError::Number | ApplyError::Stale) => RestoreError::Damaged(error.to_string()),
        }
    }
}

/// What a backup holds.
#[derive(Debug)]
pub struct Found {
    /// Whose.
    pub store: StoreId,
    /// How to get to its newest state.
    pub way: Way,
    /// All its objects.
    pub objects: usize,
}

/// What was read to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last command.
    pub number: u64,
}

/// What was read, and whether the backup goes further.
#[derive(Debug)]
pub struct Reached {
    /// What was read.
    pub read: Read,
    /// None: nothing newer is there.
    pub passed_over: Option<PassedOver>,
}

/// States of the same store that are newer than the one that was read. The slots that are there do not open them.
#[derive(Debug)]
pub struct PassedOver {
    /// How many.
    pub states: u64,
    /// The last command of the newest.
    pub number: u64,
    /// Beginning of the id of the root that opens it.
    pub root: Short,
    /// When it was written.
    pub taken: Timestamp,
    /// Slots that are away or empty, each with what is the matter with it: what opens it may lie there.
    pub absent: Vec<String>,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, number, root, taken, absent } = self;
        write!(f, "newer states passed over: {states}, up to command {number}")?;
        if let Ok(taken) = jiff::Timestamp::from_millisecond(taken.0) {
            write!(f, ", written {taken}")?;
        }
        write!(f, "; the slots that are there do not give root {root}…, which opens the newest: ")?;
        if absent.is_empty() {
            f.write_str(
                "all that are configured are there; add those that are not, and where there are none, nobody was told that \
                 the backup has it",
            )
        } else {
            let absent = absent.join("; ");
            write!(
                f,
                "{absent}; where these can be brought back, restore with them onto an empty folder, before a gateway goes on \
                 from here"
            )
        }
    }
}

/// The newest state of each store that has a backup here, whatever the slots may open.
pub fn list(archive: &mut dyn Archive) -> Result<Vec<Found>, RestoreError> {
    let all = catalogues(&archive.list(name::PREFIX, "")?);
    let found = |(store, catalogue): (StoreId, Catalogue)| {
        let way = catalogue.best(|_| true)?;
        Some(Found { store, way, objects: catalogue.objects.len() })
    };
    let mut found: Vec<Found> = all.into_iter().filter_map(found).collect();
    found.sort_unstable_by_key(|found| found.way.mark.number);
    Ok(found)
}

/// Reads everything that [`restore`] would need, and checks that it is whole, in order, and opens with the slots. Says how far
/// it is after each object.
pub fn verify(
    slots: &mut Slots,
    archive: &mut dyn Archive,
    seen: &mut dyn FnMut(&Read),
) -> Result<Reached, RestoreError> {
    newest_first(slots, archive, |archive, slots, found| {
        let (crown, way) = (RefCell::new(Crown::default()), &found.way);
        let mut of_part = |part: Part| {
            crown.borrow_mut().take(part.rows);
            Ok(())
        };
        let mut of_commands = |_: &Tip, commands: Vec<(Command, Chain)>| {
            commands.into_iter().for_each(|(command, _)| crown.borrow_mut().take(command.rows));
            Ok(())
        };
        let read = walk(archive, found.store, way, seen, &mut of_part, &mut of_commands)?;
        crown.into_inner().check(slots)?;
        Ok(read)
    })
}

/// Builds the key store in `dir` from the newest state that the slots open. Says how far it is after each object.
pub fn restore(
    dir: &Path,
    slots: &mut Slots,
    archive: &mut dyn Archive,
    seen: &mut dyn FnMut(&Read),
) -> Result<Reached, RestoreError> {
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(RestoreError::NotEmpty(dir.to_owned())),
        Ok(false) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(build(error)),
    }
    let beside = beside(dir);
    let reached = newest_first(slots, archive, |archive, slots, found| {
        match std::fs::remove_dir_all(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(build(error)),
            _ => {}
        }
        let rocks = Rocks::build(&beside)?;
        let read = fill(&rocks, archive, found.store, &found.way, seen)?;
        check_top(&rocks, slots)?;
        rocks.flush()?;
        Ok(read)
    })?;
    for folder in [&beside.join("db"), &beside] {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(build)?;
    }
    std::fs::rename(&beside, dir).map_err(build)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(build)?;
    Ok(reached)
}

/// Restores into rows that are there already and empty. For tests, which have a disk of their own.
#[cfg(test)]
pub(in super::super) fn restore_into(
    backing: impl Fn() -> Box<dyn Backing>,
    slots: &mut Slots,
    archive: &mut dyn Archive,
) -> Result<Reached, RestoreError> {
    newest_first(slots, archive, |archive, slots, found| {
        let backing = backing();
        let read = fill(&*backing, archive, found.store, &found.way, &mut |_| {})?;
        check_top(&*backing, slots)?;
        Ok(read)
    })
}

/// Tries the newest state that may open, and where the slots turn out not to give its root, the next one.
fn newest_first(
    slots: &mut Slots,
    archive: &mut dyn Archive,
    mut attempt: impl FnMut(&mut dyn Archive, &mut Slots, &Found) -> Result<Read, RestoreError>,
) -> Result<Reached, RestoreError> {
    let mut held: Vec<Short> = slots.held()?.into_iter().map(|held| short(held.id)).collect();
    if held.is_empty() {
        return Err(RestoreError::SlotIsEmpty);
    }
    let all = catalogues(&archive.list(name::PREFIX, "")?);
    let mut found = newest(&all, &held)?;
    let read = loop {
        let short = match attempt(archive, slots, &found) {
            Ok(read) => break read,
            Err(error @ RestoreError::TooFewSlots { .. }) => error,
            Err(error) => return Err(error),
        };
        held.retain(|root| *root != found.way.mark.root);
        found = newest(&all, &held).map_err(|_| short)?;
    };
    let newer = all.get(&found.store).and_then(|catalogue| catalogue.newer(read.number));
    let passed_over = newer.map(|(states, mark, taken)| {
        let absent = slots.absent();
        PassedOver { states, number: mark.number, root: mark.root, taken, absent }
    });
    Ok(Reached { read, passed_over })
}

fn build(error: std::io::Error) -> RestoreError {
    RestoreError::Build(error.to_string())
}

/// Where it is built.
fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    dir.with_file_name(name)
}

fn newest(all: &HashMap<StoreId, Catalogue>, held: &[Short]) -> Result<Found, RestoreError> {
    let best = |holds: &dyn Fn(Short) -> bool| {
        let found = all.iter().filter_map(|(store, catalogue)| {
            let way = catalogue.best(holds)?;
            Some(Found { store: *store, way, objects: catalogue.objects.len() })
        });
        found.max_by_key(|found| found.way.mark.number)
    };
    if let Some(found) = best(&|root| held.contains(&root)) {
        return Ok(found);
    }
    match best(&|_| true) {
        None => Err(RestoreError::NoBackup),
        Some(other) => Err(RestoreError::OtherRoot {
            number: other.way.mark.number,
            needs: other.way.mark.root,
            held: held.iter().map(Short::to_string).collect::<Vec<_>>().join(", "),
        }),
    }
}

fn fill(
    rocks: &dyn Backing,
    archive: &mut dyn Archive,
    store: StoreId,
    way: &Way,
    seen: &mut dyn FnMut(&Read),
) -> Result<Read, RestoreError> {
    let mut write = |part: Part| -> Result<(), RestoreError> {
        let mut meta = Vec::new();
        if part.last {
            meta.push(Row::put(Family::Meta, NUMBER, part.number.to_be_bytes().to_vec()));
            meta.push(Row::put(Family::Meta, CHAIN, part.chain.0.to_vec()));
            meta.push(Row::put(Family::Meta, STORE, store.0.to_vec()));
        }
        Ok(rocks.write(&[&part.rows, &meta])?)
    };
    let mut apply = |tip: &Tip, commands: Vec<(Command, Chain)>| -> Result<(), RestoreError> {
        let mut replay = Replay { backing: rocks, number: tip.number, chain: tip.chain, root: root_of(rocks)? };
        for (command, chain) in commands {
            command.apply(rocks, &replay, None)?;
            (replay.number, replay.chain) = (command.number, chain);
            replay.root = command.rotation.map_or(replay.root, |rotation| rotation.to);
        }
        Ok(())
    };
    walk(archive, store, way, seen, &mut write, &mut apply)
}

type OnPart<'a> = &'a mut dyn FnMut(Part) -> Result<(), RestoreError>;
type OnCommands<'a> = &'a mut dyn FnMut(&Tip, Vec<(Command, Chain)>) -> Result<(), RestoreError>;

/// Goes a way from its base to its end, with everything checked that can be checked without a key.
fn walk(
    archive: &mut dyn Archive,
    store: StoreId,
    way: &Way,
    seen: &mut dyn FnMut(&Read),
    on_part: OnPart<'_>,
    on_commands: OnCommands<'_>,
) -> Result<Read, RestoreError> {
    let mut read = Read { number: way.base.mark.number, ..Read::default() };
    let mut tip = None;
    for number in 0..way.parts {
        let last = number + 1 == way.parts;
        let name = way.base.part(store, number, last);
        let damaged = || RestoreError::Damaged(name.clone());
        let bytes = archive.get(&name)?;
        let part = Part::decode(&bytes).map_err(|_| damaged())?;
        let named = (part.store, part.part, part.last) == (store, number, last);
        let of = Tip { store, number: part.number, chain: part.chain };
        let fits = of.number == way.base.mark.number && Short::from(of.chain) == way.base.mark.chain;
        let continues = tip.as_ref().is_none_or(|tip: &Tip| tip.chain == of.chain);
        if !named || !fits || !continues {
            return Err(damaged());
        }
        on_part(part)?;
        tip = Some(of);
        read = Read { objects: read.objects + 1, bytes: read.bytes + bytes.len() as u64, ..read };
        seen(&read);
    }
    let Some(mut tip) = tip else { return Err(RestoreError::NoBackup) };
    for name in &way.deltas {
        let fetched = fetch(archive, &tip, name)?;
        let (commands, size) = fetched.ok_or_else(|| RestoreError::Damaged(name.text(store)))?;
        let end = commands.last().map(|(command, chain)| (command.number, *chain));
        on_commands(&tip, commands)?;
        if let Some((number, chain)) = end {
            (tip.number, tip.chain) = (number, chain);
        }
        read = Read { objects: read.objects + 1, bytes: read.bytes + size as u64, number: tip.number };
        seen(&read);
    }
    Ok(read)
}

/// The state that is being built.
struct Replay<'a> {
    backing: &'a dyn Backing,
    number: u64,
    chain: Chain,
    root: RootId,
}

impl State for Replay<'_> {
    fn last_number(&self) -> u64 {
        self.number
    }

    fn chain(&self) -> Chain {
        self.chain
    }

    fn root(&self) -> RootId {
        self.root
    }

    fn version(&self, page: PageId) -> Result<Option<u64>, ReadError> {
        stored_version(self.backing, page)
    }
}

fn root_of(backing: &dyn Backing) -> Result<RootId, RestoreError> {
    let none = || RestoreError::Damaged("no top page".to_owned());
    let top = backing.get(Family::Pages, &TOP.0)?.ok_or_else(none)?;
    clear_of(&top)?.root.ok_or_else(none)
}

/// The top must open before anything is put in its place.
fn check_top(backing: &dyn Backing, slots: &mut Slots) -> Result<(), RestoreError> {
    let rows = backing.scan(Family::Slots, &[], None, usize::MAX)?;
    Crown { top: backing.get(Family::Pages, &TOP.0)?, slots: rows.into_iter().collect() }.check(slots)
}

/// The rows of a state that slots open it by.
#[derive(Default)]
struct Crown {
    top: Option<Vec<u8>>,
    slots: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Crown {
    fn take(&mut self, rows: Vec<Row>) {
        for row in rows {
            match (row.family, row.value) {
                (Family::Pages, top) if row.key == TOP.0 => self.top = top,
                (Family::Slots, Some(value)) => drop(self.slots.insert(row.key, value)),
                (Family::Slots, None) => drop(self.slots.remove(&row.key)),
                _ => {}
            }
        }
    }

    fn check(self, slots: &mut Slots) -> Result<(), RestoreError> {
        let damaged = |what: &str| RestoreError::Damaged(what.to_owned());
        let top = self.top.ok_or_else(|| damaged("no top page"))?;
        let rows: Vec<KeyValue> = self.slots.into_iter().collect();
        let table = Table::of(&rows).ok_or_else(|| damaged("the table of slots"))?;
        let root = clear_of(&top)?.root.ok_or_else(|| damaged("no top page"))?;
        let root = slots.find(table, &rows, root).map_err(|slots| RestoreError::TooFewSlots {
            needed: slots.needed,
            found: slots.found,
            detail: slots.detail,
        })?;
        let shut = || damaged("the top page does not open");
        Envelope::parse(&top).map_err(|_| shut())?.open(&root.key).map_err(|_| shut())?;
        Ok(())
    }
}
