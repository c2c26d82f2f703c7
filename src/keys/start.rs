//! What a start does with what it finds, in this order (the cases are argued in [`super`]):
//!
//! 1. Read the number of the last command and the root that the top names.
//! 2. Look at the files of rotations: those that are done, those that fill a missing number, torn ones.
//! 3. Where there is a backup, get the commands from it that the store lacks. Object storage that is away is no reason to
//!    stay down: what the slot keeps for the backup is told by the outbox. One that has said that the store is behind, and then
//!    goes, is: the store would go on from a state that others were told is past.
//! 4. Refuse, before anything is changed: a store that is older than its backup and cannot be filled, or that went another
//!    way; a gap that nothing fills; a top whose root the slot does not hold.
//! 5. Fill. Unlink torn files. Flush every column family.
//! 6. Open everything down to the subscribers, to see that the root opens it, and to rebuild the index.
//! 7. Have the slot keep the top's root and destroy every other record, broken ones included: a staged root whose attempt did
//!    not reach the commit point is never used again. Where a rotation waits for its delta, the root that the backup needs
//!    stays too, and the rotator ends the rotation once the backup has it.
//!
//! A first start writes a mark with the id of the root before it stages the root, so that a slot that was just begun is told
//! from one whose key store is lost.

pub(super) mod decide;

use super::{
    ReadError, SlotError, Slots,
    backing::{Backing, BackingError, Family, KeyValue, Row},
    backup::{
        Archive, ArchiveError, Backup, STORE,
        keeper::{self, Ahead, Compared, Place, Tip, Trouble},
        name::Short,
        roots::Roots,
        store_id,
    },
    command::{ApplyError, Chain, Command, Rotation, Sent, State, StoredState},
    page::{Clear, Level, TOP, encode_body},
    plan::RootKey,
    slot::{root_id, shares::Held, table::Table},
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
    /// The backup is further than the store, and cannot fill it.
    #[error("the key store is older than its backup ({store} commands of {backup}): restore it; nothing was changed")]
    OlderThanBackup {
        /// Last command of the store.
        store: u64,
        /// Last command of the backup.
        backup: u64,
    },
    /// The same, and what it could be filled from cannot be had now.
    #[error(
        "the key store lacks commands that its backup has ({store} of {backup}), and they cannot be had now ({why}): start \
         again when object storage answers; nothing was changed"
    )]
    CannotBeFilled {
        /// Last command of the store.
        store: u64,
        /// Last command of the backup.
        backup: u64,
        /// What object storage said.
        why: String,
    },
    /// Backup and store have different histories.
    #[error(
        "the key store and its backup went different ways: restore it, or bring back the one that was used last; \
             nothing was changed"
    )]
    Diverged,
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
    /// The chain up to there.
    pub(super) chain: Chain,
    /// What the backup has, as far as is known here, and which roots its states may need.
    pub(super) roots: Roots,
    /// The first command in the outbox, or the next one.
    pub(super) outbox_from: u64,
    /// Where the backup stands, when that was seen.
    pub(super) place: Option<Place>,
    done: Vec<u64>,
}

/// Steps 1 to 5.
pub fn settle(backing: &dyn Backing, slots: &mut Slots, backup: Option<&mut Backup>) -> Result<Settled, OpenError> {
    match StoredState::read(backing)? {
        Some(state) => resume(backing, &state, slots, backup),
        None => first_start(backing, slots, backup.is_some()),
    }
}

impl Settled {
    /// Step 7, once what the root opens has been seen. Where the backup lacks a rotation, the root that it needs stays.
    pub fn commit(&self, backing: &dyn Backing, slots: &mut Slots) -> Result<(), OpenError> {
        slots.settle(self.roots.needed())?;
        Ok(backing.release_pending(&self.done)?)
    }
}

/// Most bytes of commands that a start fills from the backup: a torn tail, or some hours.
const MOST_FILLED: usize = 256 << 20;

/// A command that the store lacks, and whether the backup lacks it too.
type Missing = (Command, bool);

fn resume(
    backing: &dyn Backing,
    state: &StoredState<'_>,
    slots: &mut Slots,
    backup: Option<&mut Backup>,
) -> Result<Settled, OpenError> {
    let shares = slots.held()?;
    let held: Vec<RootId> = shares.iter().map(|held| held.id).collect();
    let (mut last_number, mut root) = (state.last_number(), state.root());
    let mut missing = Vec::<Missing>::new();
    let has_backup = backup.is_some();
    let (mut files, mut commands) = (Vec::new(), BTreeMap::new());
    for (number, bytes) in backing.pending()? {
        let content = match Command::decode_first(&bytes) {
            Err(_) => Content::Torn,
            Ok((command, _)) => {
                let content = Content::Whole(command.rotation);
                // Of the others it is done.
                if number > last_number {
                    commands.insert(number, command);
                }
                content
            }
        };
        files.push((number, content));
    }
    let mut place = None;
    if let (Some(backup), Some(store)) = (backup, store_id(backing.get(Family::Meta, STORE)?)?) {
        let tip = Tip { store, number: last_number, chain: state.chain() };
        // Files that have done their work may still say what they said.
        let ahead = files.iter().rev().find(|(number, content)| *number > last_number && content.rotation().is_some());
        let (brought, own) = match ahead.and_then(|(number, content)| Some((*number, content.rotation()?))) {
            Some((number, rotation)) => (number, rotation.to),
            None => (last_number, root),
        };
        let shares = Shares { held: shares, own, brought, table: table(backing, &[])?.1 };
        (place, missing) = fill(backup, backing, slots, (tip, root), &shares)?;
        for (command, _) in &missing {
            (last_number, root) = follow(command, root)?;
        }
    }
    let Decision { root, last_number, fill, torn, done } = decide(last_number, root, &files, &held)?;
    missing.extend(fill.iter().filter_map(|number| Some((commands.remove(number)?, has_backup))));
    let root = look(backing, &missing, slots, root)?;
    let roots = if has_backup {
        let forgotten = |id, generation| !held.contains(&id) || slots.have_forgotten(id, generation);
        let reach = |id, generation| slots.reach(id, generation);
        let (backed, rotations) = waiting(backing, last_number, place.as_ref(), &missing)?;
        Roots::found(root.id, backed, &rotations, place.is_some(), forgotten, reach)
    } else {
        Roots::alone(root.id, 0, false)
    };
    for (command, waits) in missing {
        let Some(state) = StoredState::read(backing)? else { return Err(OpenError::Damaged("the top page is gone")) };
        command.apply(backing, &state, waits.then_some(&mut Sent { gone: 0, sent: 0 }))?;
    }
    backing.unlink_pending(&torn)?;
    backing.flush()?;
    let Some(state) = StoredState::read(backing)? else { return Err(OpenError::Damaged("the top page is gone")) };
    let outbox_from = keeper::outbox(backing, 0, 1)?.first().map_or(last_number + 1, |first| first.number);
    Ok(Settled { root, last_number, chain: state.chain(), roots, outbox_from, place, done })
}

/// The rows of the slots once the missing commands are applied, and the table among them.
fn table(backing: &dyn Backing, missing: &[Missing]) -> Result<(Vec<KeyValue>, Table), OpenError> {
    let mut rows = backing.scan(Family::Slots, &[], None, usize::MAX)?;
    let later = missing.iter().flat_map(|(command, _)| &command.rows);
    for row in later.filter(|row| row.family == Family::Slots) {
        rows.retain(|(key, _)| *key != row.key);
        rows.extend(row.value.iter().map(|value| (row.key.clone(), value.clone())));
    }
    let table = Table::of(&rows).ok_or(OpenError::Damaged("the table of slots"))?;
    Ok((rows, table))
}

/// Finds the root, by what the rows say of the slots then.
fn look(backing: &dyn Backing, missing: &[Missing], slots: &mut Slots, root: RootId) -> Result<RootKey, OpenError> {
    let (rows, table) = table(backing, missing)?;
    slots.find(table, &rows, root).map_err(|short| match short.needed {
        1 => OpenError::ForeignRoot,
        needed => OpenError::TooFewSlots { needed, found: short.found, detail: short.detail },
    })
}

/// Number and root behind a command.
fn follow(command: &Command, root: RootId) -> Result<(u64, RootId), OpenError> {
    match command.rotation {
        Some(rotation) if rotation.from != root => {
            Err(OpenError::Damaged("a pending command was planned on another state"))
        }
        Some(rotation) => Ok((command.number, rotation.to)),
        None => Ok((command.number, root)),
    }
}

/// What the slots hold, as the backup is compared with it.
struct Shares {
    held: Vec<Held>,
    /// The root behind everything that lies here. Its shares may wait in rows, and without it nothing opens anyway.
    own: RootId,
    /// The last command that lies here.
    brought: u64,
    table: Table,
}

impl Shares {
    fn any_of(&self, root: Short) -> bool {
        self.held.iter().any(|held| keeper::short(held.id) == root)
    }

    fn enough_of(&self, root: Short) -> bool {
        let enough = |held: &Held| held.shares >= usize::from(self.table.k_of(held.generation));
        keeper::short(self.own) == root || self.held.iter().any(|held| keeper::short(held.id) == root && enough(held))
    }
}

/// Gets what the store lacks from the backup, whose last command and root are `at`; says where the backup stands.
///
/// - *Object storage does not say whether the backup is further*: that is waited for later.
/// - *It is further, and the slots that are there open it*, with the shares that wait in what is missing: the store is never to go
///   on behind it. Where they do not, nobody was told that the backup has that state, because any `k` slots open what is told
///   of: it is passed over.
/// - *It is not further, and fewer shares are there than open it*: others may wait in the rows of that state, or nobody has them
///   any more. It is as if it had not been seen: [`Roots`] lets go of nothing then, and speaks of nothing that is not sure.
fn fill(
    backup: &mut Backup,
    backing: &dyn Backing,
    slots: &mut Slots,
    (tip, root): (Tip, RootId),
    shares: &Shares,
) -> Result<(Option<Place>, Vec<Missing>), OpenError> {
    let archive = &mut *backup.archive;
    let mut closed: Vec<Short> = Vec::new();
    loop {
        let holds = |root| shares.any_of(root) && !closed.contains(&root);
        let ahead = match keeper::reconcile(archive, backing, &tip, holds) {
            Ok(Compared::Linked(place)) => return Ok((Some(place).filter(|it| shares.enough_of(it.root)), Vec::new())),
            Ok(Compared::Apart) => return Ok((None, Vec::new())),
            Ok(Compared::Diverged) => return Err(OpenError::Diverged),
            Ok(Compared::Ahead(ahead)) => ahead,
            Err(Trouble::Away(why)) => {
                tracing::warn!(why, "the key store opens without a look at its backup");
                return Ok((None, Vec::new()));
            }
            Err(Trouble::Fatal(why)) => return Err(OpenError::Backing(why)),
        };
        let (missing, chain) = catch_up(archive, &tip, &ahead)?;
        let reached = missing.iter().try_fold(root, |root, (command, _)| Ok(follow(command, root)?.1));
        // What lies here goes further still, and has a root of its own.
        let beyond = shares.brought > ahead.mark.number;
        match reached.and_then(|root| if beyond { Ok(()) } else { look(backing, &missing, slots, root).map(drop) }) {
            Err(OpenError::TooFewSlots { .. } | OpenError::ForeignRoot) => closed.push(ahead.mark.root),
            Err(error) => return Err(error),
            Ok(()) => {
                tracing::warn!(commands = missing.len(), "the key store was behind its backup and is filled from it");
                return Ok((Some(Place::at(ahead.mark, chain, ahead.taken)), missing));
            }
        }
    }
}

/// The commands from a store's tip to a state of its backup, and the chain behind them.
fn catch_up(archive: &mut dyn Archive, tip: &Tip, ahead: &Ahead) -> Result<(Vec<Missing>, Chain), OpenError> {
    let (store, backup) = (tip.number, ahead.mark.number);
    let older = OpenError::OlderThanBackup { store, backup };
    let Some(deltas) = &ahead.deltas else { return Err(older) };
    let (mut missing, mut bytes) = (Vec::new(), 0);
    let mut tip = Tip { ..*tip };
    for name in deltas {
        let fetched = keeper::fetch(archive, &tip, name);
        let cannot = |error: ArchiveError| OpenError::CannotBeFilled { store, backup, why: error.to_string() };
        // Its name said that it continues the store, and it does not.
        let Some((commands, size)) = fetched.map_err(cannot)? else { return Err(OpenError::Diverged) };
        bytes += size;
        if bytes > MOST_FILLED {
            return Err(older);
        }
        if let Some((last, chain)) = commands.last() {
            (tip.number, tip.chain) = (last.number, *chain);
        }
        missing.extend(commands.into_iter().map(|(command, _)| (command, false)));
    }
    Ok((missing, tip.chain))
}

/// What the backup has for certain, and the rotations behind it that wait, each with its command.
fn waiting(
    backing: &dyn Backing,
    last_number: u64,
    place: Option<&Place>,
    missing: &[Missing],
) -> Result<(u64, Vec<(u64, Rotation)>), OpenError> {
    let first = keeper::outbox(backing, 0, 1)?.first().map(|first| first.number);
    let backed = match (place, first) {
        (Some(place), _) => place.number,
        (None, Some(first)) => first - 1,
        (None, None) => last_number - missing.iter().filter(|(_, waits)| *waits).count() as u64,
    };
    let mut rotations = Vec::new();
    let mut behind = backed;
    loop {
        let rows = keeper::outbox(backing, behind, 64)?;
        let Some(last) = rows.last() else { break };
        behind = last.number;
        for waiting in rows.iter().filter(|waiting| Command::root_brought(&waiting.bytes).is_some()) {
            let command = Command::decode(&waiting.bytes);
            let command = command.map_err(|_| OpenError::Damaged("a command in the outbox"))?;
            rotations.extend(command.rotation.map(|rotation| (waiting.number, rotation)));
        }
    }
    let filed = missing.iter().filter(|(_, waits)| *waits);
    rotations.extend(filed.filter_map(|(command, _)| Some((command.number, command.rotation?))));
    Ok((backed, rotations))
}

/// Nothing was ever written but, perhaps, the mark of a first start that did not get to its end.
fn first_start(backing: &dyn Backing, slots: &mut Slots, has_backup: bool) -> Result<Settled, OpenError> {
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
    let mut waits = has_backup.then_some(Sent { gone: 0, sent: 0 });
    let first = Command { number: 1, rotation: None, expects: Vec::new(), rows };
    let chain = first.apply(backing, &Nothing, waits.as_mut())?;
    backing.flush()?;
    let roots = Roots::alone(root.id, 0, false);
    Ok(Settled { root, last_number: 1, chain, roots, outbox_from: 1, place: None, done: Vec::new() })
}

/// The state before the first command.
struct Nothing;

impl State for Nothing {
    fn last_number(&self) -> u64 {
        0
    }

    fn chain(&self) -> Chain {
        Chain::START
    }

    fn root(&self) -> RootId {
        RootId([0; 16])
    }

    fn version(&self, _: PageId) -> Result<Option<u64>, ReadError> {
        Ok(None)
    }
}
