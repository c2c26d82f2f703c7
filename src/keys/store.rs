//! The key store as the vault sees it: readers over a bounded cache, and the door to the one writer.
//!
//! Readers hold a shared lock while they go from the top to an entry; the writer holds it alone while a batch is applied
//! and published, never while a slot commits. So a reader sees one state, and once an erasure's batch is published no page
//! of what fell opens from the cache: pages with keys are dropped, and secrets of recordings lose their
//! [veil](super::veil), so that this does not take longer the more there were. What was handed out ([`Holder`], leaves) is the caller's to wipe.

mod entries;
mod log;

use self::log::BackedLeaves;
use super::{
    Change, CommitError, Committed, DoomedBatch, Forgets, Holder, Mutation, OpenError, Period, ReadError, Reshare,
    Slot, Slots, SlotsReport, ValueName,
    backing::{Backing, Family, KeyValue},
    backup::{
        Backup, BackupStatus,
        keeper::{self, Backlog, Keeper},
    },
    command::{self, Chain, Command, Sent, State},
    index::{Index, NameChange},
    page::{Entries, Entry, Level, Link, Page, TOP, Under, apply_append, decode_appends, decode_body},
    plan::{Limits, Published, RootKey, Store},
    rocks::Rocks,
    start, sweep,
    tree::{self, NoPath, Pages},
    value_prefix,
    veil::Veil,
    writer::{OnFailure, Work, Writer},
};
use crate::{
    crypto::{
        envelope::{self, Envelope, Kind},
        secret::Secret,
        stack,
    },
    domain::{
        id::{ObjectId, PageId, PeriodHandle, ReceiptId, RootId, RowId, SubscriberHandle, TenantHandle},
        time::{Clock, Timestamp},
    },
};
use quick_cache::{Weighter, sync::Cache};
use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Most entries in the cache, over all pages: about 100 MB.
const CACHED_ENTRIES: u64 = 400_000;

/// The key store. Clones share one store; it closes when the last is dropped.
#[derive(Clone)]
pub struct KeyStore(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    writer: Writer,
}

/// What readers and the writer share.
pub(super) struct Shared {
    pub(super) backing: Arc<dyn Backing>,
    pub(super) limits: Limits,
    /// None: there is no backup.
    pub(super) backlog: Option<Arc<Backlog>>,
    /// The newest rotation at which all old roots were destroyed.
    pub(super) destroyed: watch::Sender<u64>,
    /// The newest rotation.
    pub(super) rotated: AtomicU64,
    /// Which leaves of the audit log the backup has.
    leaves: Mutex<BackedLeaves>,
    cache: Cache<PageId, Arc<Page>, ByEntries>,
    present: RwLock<Present>,
    /// Held by the writer while it waits for the readers, and passed by those who read much: see [`Shared::read_behind_writer`].
    turn: Mutex<()>,
    doomed: AtomicU64,
    copies: AtomicU64,
    /// What the slots hold, as of their last commit.
    pub(super) slots: Mutex<Told>,
    /// The doomed row that a step was last drawn up from.
    sweeps_behind: Mutex<Vec<u8>>,
    /// How often an audio secret was handed out.
    #[cfg(test)]
    pub(super) audio_opened: AtomicU64,
}

/// What is told of the slots.
pub(super) struct Told {
    pub(super) report: SlotsReport,
    pub(super) forgets: Forgets,
}

/// The state that readers see.
pub(super) struct Present {
    pub(super) root: RootKey,
    pub(super) last_number: u64,
    pub(super) chain: Chain,
    /// Leaves of the audit log.
    pub(super) log_size: u64,
    pub(super) index: Index,
    /// Which rows of the outbox may go.
    sent: Sent,
}

#[derive(Clone)]
struct ByEntries;

impl Weighter<PageId, Arc<Page>> for ByEntries {
    fn weight(&self, _: &PageId, page: &Arc<Page>) -> u64 {
        page.entries.len() as u64 + 1
    }
}

/// How a store runs; tests change it.
#[derive(Clone, Default)]
pub struct Settings {
    pub(super) limits: Limits,
    pub(super) on_failure: OnFailure,
    /// At least so long between two rotations: erasures that come meanwhile share the next.
    pub min_rotation_interval: Duration,
    /// What that is measured by, and how long backup and erasures wait.
    pub clock: Clock,
}

impl Settings {
    /// Rotations keep this interval by this clock.
    pub fn spaced(min_rotation_interval: Duration, clock: Clock) -> Self {
        Self { min_rotation_interval, clock, ..Self::default() }
    }
}

impl KeyStore {
    /// Opens the key store in a folder, or creates it when both it and the slot are empty.
    ///
    /// The slot must lie outside of every snapshot and backup of the folder.
    /// There is no backup: whoever loses the folder loses everything.
    pub fn open(dir: &Path, slot: Box<dyn Slot>) -> Result<KeyStore, OpenError> {
        Self::open_with(dir, Slots::one(slot), None, Settings::default())
    }

    /// Whether a key store is in this folder.
    pub fn exists(dir: &Path) -> bool {
        Rocks::exists(dir)
    }

    /// The same with several slots, and with a backup, where there is one.
    pub fn open_with(
        dir: &Path,
        mut slots: Slots,
        backup: Option<Backup>,
        settings: Settings,
    ) -> Result<KeyStore, OpenError> {
        // Before RocksDB creates anything.
        if !Rocks::exists(dir) && !slots.records()?.is_empty() {
            return Err(OpenError::StoreIsMissing);
        }
        let rocks = Rocks::open(dir).map_err(|error| if error.is_lock() { OpenError::InUse } else { error.into() })?;
        Self::open_on(Arc::new(rocks), slots, backup, settings)
    }

    pub(super) fn open_on(
        backing: Arc<dyn Backing>,
        mut slots: Slots,
        mut backup: Option<Backup>,
        settings: Settings,
    ) -> Result<KeyStore, OpenError> {
        slots.go_by(settings.clock.clone());
        let settled = start::settle(&*backing, &mut slots, backup.as_mut())?;
        let log_size = super::log::size(&*backing)?;
        let (root, last_number, chain) = (settled.root.clone(), settled.last_number, settled.chain);
        let sent = Sent { gone: settled.outbox_from.saturating_sub(1), sent: settled.roots.backed() };
        let present = Present { root, last_number, chain, log_size, index: Index::default(), sent };
        let backlog = backup.is_some().then(|| {
            let (roots, place, clock) = (settled.roots.clone(), settled.place.as_ref(), settings.clock.clone());
            Arc::new(Backlog::new(last_number, roots, place, clock))
        });
        let count = |family| backing.scan(family, &[], None, usize::MAX).map(|rows| AtomicU64::new(rows.len() as u64));
        let (doomed, copies) = (count(Family::Doomed)?, count(Family::Copies)?);
        let leaves = BackedLeaves::at_start(&*backing, settled.roots.backed(), log_size)?;
        let shared = Shared {
            leaves: Mutex::new(leaves),
            cache: Cache::with_weighter(CACHED_ENTRIES as usize / 64, CACHED_ENTRIES, ByEntries),
            present: RwLock::new(present),
            turn: Mutex::new(()),
            limits: settings.limits,
            backlog,
            destroyed: watch::Sender::new(0),
            rotated: AtomicU64::new(last_number),
            backing,
            doomed,
            copies,
            slots: Mutex::new(Told { report: slots.report(), forgets: slots.forgets() }),
            sweeps_behind: Mutex::new(Vec::new()),
            #[cfg(test)]
            audio_opened: AtomicU64::new(0),
        };
        shared.rebuild_index()?;
        settled.commit(&*shared.backing, &mut slots)?;
        shared.tell(&slots);
        let keeper = match (backup, &shared.backlog) {
            (Some(backup), Some(backlog)) => {
                let store = keeper::name_store(&*shared.backing)?;
                let patience = backup.options.patience;
                let keeper = Keeper::new(backup, store, shared.backing.clone(), backlog.clone(), settled.place);
                Some((keeper, patience))
            }
            _ => None,
        };
        let shared = Arc::new(shared);
        let writer = Writer::start(shared.clone(), slots, settings, keeper)
            .map_err(|error| OpenError::Backing(error.to_string()))?;
        Ok(KeyStore(Arc::new(Inner { shared, writer })))
    }

    fn read(&self) -> Reading<'_> {
        self.0.shared.read()
    }

    /// Every tenant, in no order.
    pub fn tenants(&self) -> Vec<(TenantHandle, String)> {
        self.read().present.index.tenants().map(|(handle, name)| (handle, name.to_owned())).collect()
    }

    /// A tenant by name.
    pub fn find_tenant(&self, name: &str) -> Option<TenantHandle> {
        self.read().present.index.find_tenant(name)
    }

    /// A tenant's name.
    pub fn tenant_name(&self, tenant: TenantHandle) -> Option<String> {
        self.read().present.index.tenant_name(tenant).map(str::to_owned)
    }

    /// Every subscriber of a tenant, in no order.
    pub fn subscribers(&self, tenant: TenantHandle) -> Vec<(SubscriberHandle, String)> {
        self.read().present.index.subscribers(tenant).map(|(handle, name)| (handle, name.to_owned())).collect()
    }

    /// How many subscribers a tenant has.
    pub fn subscriber_count(&self, tenant: TenantHandle) -> usize {
        self.read().present.index.subscriber_count(tenant)
    }

    /// A subscriber by name.
    pub fn find_subscriber(&self, tenant: TenantHandle, name: &str) -> Option<SubscriberHandle> {
        self.read().present.index.find_subscriber(tenant, name)
    }

    /// A subscriber's name.
    pub fn subscriber_name(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Option<String> {
        self.read().present.index.subscriber_name(tenant, subscriber).map(str::to_owned)
    }

    /// Every period of a tenant, in no order.
    pub fn periods(&self, tenant: TenantHandle) -> Vec<Period> {
        self.read().present.index.periods(tenant).collect()
    }

    /// A tenant's stable secret; none when it does not live.
    pub fn tenant(&self, tenant: TenantHandle) -> Result<Option<Holder>, ReadError> {
        let reading = self.read();
        let found = tree::tenant(&reading, &reading.top(), tenant, &mut NoPath)?.found();
        Ok(found.as_deref().and_then(|entry| match entry {
            Entry::Tenant(account) => Some(Holder { row: account.row, secret: account.secret.duplicate() }),
            _ => None,
        }))
    }

    /// A subscriber's stable secret; none when it does not live.
    pub fn subscriber(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Result<Option<Holder>, ReadError> {
        let reading = self.read();
        let found = tree::subscriber(&reading, &reading.top(), tenant, subscriber, &mut NoPath)?;
        let account = found.as_deref().and_then(tree::account);
        Ok(account.map(|account| Holder { row: account.row, secret: account.secret.duplicate() }))
    }

    /// A period's secret; none when it does not live.
    pub fn period(&self, tenant: TenantHandle, period: PeriodHandle) -> Result<Option<Holder>, ReadError> {
        let reading = self.read();
        let found = tree::below_tenant(&reading, &reading.top(), tenant, period.0, &mut NoPath)?.found();
        Ok(found.as_deref().and_then(|entry| match entry {
            Entry::Period(period, secret) => Some(Holder { row: period.row, secret: secret.duplicate() }),
            _ => None,
        }))
    }

    /// A value's envelope.
    pub fn value(&self, name: &ValueName) -> Result<Option<Vec<u8>>, ReadError> {
        let key = name.to_bytes();
        let Some(value) = self.0.shared.backing.get(Family::Values, &key)? else { return Ok(None) };
        check_value(&key, &value)?;
        Ok(Some(value))
    }

    /// Every value of one kind under a row id: suffix and envelope, in order of suffix.
    pub fn values(&self, row: RowId, kind: envelope::Kind) -> Result<Vec<KeyValue>, ReadError> {
        let prefix = value_prefix(row, kind);
        let rows = self.0.shared.backing.scan(Family::Values, &prefix, None, usize::MAX)?;
        rows.into_iter()
            .map(|(key, value)| {
                check_value(&key, &value)?;
                Ok((key[prefix.len()..].to_vec(), value))
            })
            .collect()
    }

    /// Makes changes: all or none. Resolves when they are durable; where something is erased, when the slot has destroyed
    /// the root of before. Once it was first polled it may happen even if the caller goes away.
    pub async fn commit(&self, mutation: Mutation) -> Result<Committed, CommitError> {
        self.0.writer.submit(Work::Mutate(mutation)).await
    }

    /// Waits until the backup has a command and everything before it; false when there is no backup.
    pub async fn backed_up(&self, number: u64) -> bool {
        let Some(backlog) = &self.0.shared.backlog else { return false };
        // The sender lives as long as the store.
        backlog.watch().wait_for(|backed| *backed >= number).await.is_ok()
    }

    /// Whether there is a backup.
    pub fn has_backup(&self) -> bool {
        self.0.shared.backlog.is_some()
    }

    /// How the backup stands; none where there is none.
    pub fn backup_status(&self) -> Option<BackupStatus> {
        self.0.shared.backlog.as_ref().map(|backlog| backlog.status())
    }

    /// Waits until whatever was erased up to a command is destroyed; see [`Committed::destroyed`].
    pub async fn destroyed(&self, number: u64) {
        let shared = &self.0.shared;
        let wanted = number.min(shared.rotated.load(Ordering::SeqCst));
        // Fails when the store is gone; then nobody waits here.
        let _ = shared.destroyed.subscribe().wait_for(|destroyed| *destroyed >= wanted).await;
    }

    /// Whether everything that was erased is destroyed.
    pub fn all_destroyed(&self) -> bool {
        self.0.shared.all_destroyed()
    }

    /// Since when the oldest erasure waits: queued, under way, or sealed and not destroyed yet; none: none waits. Waits for no
    /// slot. One that a start found sealed counts from the start.
    pub fn erasures_waiting_since(&self) -> Option<Timestamp> {
        self.0.writer.waiting_since()
    }

    /// Has the backup do now what it would do by itself: put what waits, make a base where one is due, remove what is over
    /// its age. False when object storage is away, or there is no backup. Blocks.
    pub fn tend_backup(&self) -> bool {
        self.0.shared.backlog.as_ref().is_some_and(|backlog| backlog.round())
    }

    /// Generation of the present root.
    pub fn generation(&self) -> u64 {
        self.read().present.root.generation
    }

    /// Number of the last command: how many batches were ever written.
    pub fn commands(&self) -> u64 {
        self.read().present.last_number
    }

    /// What the slots declare about forgetting, all together.
    pub fn forgets(&self) -> Forgets {
        self.0.shared.told().forgets
    }

    /// The slots, as of their last commit.
    pub fn slots(&self) -> SlotsReport {
        self.0.shared.told().report.clone()
    }

    /// The slots, and what they declare all together, as of the same moment: for what is signed.
    pub fn declared(&self) -> (SlotsReport, Forgets) {
        let told = self.0.shared.told();
        (told.report.clone(), told.forgets)
    }

    /// Shares a fresh root among another set of slots. Erases nothing.
    pub async fn reshare(&self, change: Reshare) -> Result<Committed, CommitError> {
        self.0.writer.submit(Work::Reshare(change)).await
    }

    /// How many erased things the sweeper has not done with.
    pub fn doomed_count(&self) -> u64 {
        self.0.shared.doomed.load(Ordering::Relaxed)
    }

    /// The sweeper's next step, with at most so many objects; none when nothing is left. Every version of the objects must
    /// be gone from every region before the step is handed to [`KeyStore::swept`]. What was erased takes turns: a step that is
    /// not ended does not hold up the others.
    pub fn next_doomed(&self, max_objects: usize) -> Result<Option<DoomedBatch>, ReadError> {
        let mut behind = self.0.shared.sweeps_behind.lock().unwrap_or_else(PoisonError::into_inner);
        let step = sweep::next(&*self.0.shared.backing, &behind, max_objects)?;
        if let Some(step) = &step {
            behind.clone_from(&step.id);
        }
        Ok(step)
    }

    /// Ends a step of the sweeper. A step that was ended before changes nothing. Gives the receipt that the step was for
    /// when nothing doomed under it is left.
    pub async fn swept(&self, batch: DoomedBatch) -> Result<Option<ReceiptId>, CommitError> {
        let receipt = batch.receipt();
        self.0.writer.submit(Work::Swept(batch)).await?;
        match receipt {
            Some(receipt) if !self.doomed_under(receipt)? => Ok(Some(receipt)),
            _ => Ok(None),
        }
    }

    /// Whether the sweeper has work left for a receipt.
    pub fn doomed_under(&self, receipt: ReceiptId) -> Result<bool, ReadError> {
        Ok(!self.0.shared.backing.scan(Family::Doomed, &receipt.0, None, 1)?.is_empty())
    }

    /// Copies that wait: object and the region that lacks it.
    pub fn copies(&self, limit: usize) -> Result<Vec<(ObjectId, String)>, ReadError> {
        let rows = self.0.shared.backing.scan(Family::Copies, &[], None, limit)?;
        rows.into_iter()
            .map(|(key, value)| {
                let object = ObjectId::from_slice(&key).ok_or(ReadError::Damaged("a queued copy"))?;
                Ok((object, String::from_utf8(value).map_err(|_| ReadError::Damaged("a queued copy"))?))
            })
            .collect()
    }

    /// Whether a copy of this object waits.
    pub fn copy_is_queued(&self, object: ObjectId) -> Result<bool, ReadError> {
        Ok(self.0.shared.backing.get(Family::Copies, &object.0)?.is_some())
    }

    #[cfg(test)]
    pub(crate) fn audio_opened(&self) -> u64 {
        self.0.shared.audio_opened.load(Ordering::SeqCst)
    }

    #[cfg(test)]
    pub(super) fn cached_secrets(&self) -> usize {
        let count = |entry: &Entry| match entry {
            Entry::Recording(recording) => {
                let leaves = [&recording.audio, &recording.facts].into_iter().flatten();
                leaves
                    .filter(|leaf| matches!(leaf, super::page::Leaf::Plain(secret) if secret.open().is_some()))
                    .count()
            }
            Entry::Bound(_) => 0,
            Entry::Branch { .. } | Entry::Period(..) => 1,
            Entry::Tenant(_) | Entry::Subscriber(_) => 2,
        };
        self.0.shared.cache.iter().map(|(_, page)| page.entries.iter().map(count).sum::<usize>()).sum()
    }

    /// How many copies wait.
    pub fn copies_count(&self) -> u64 {
        self.0.shared.copies.load(Ordering::Relaxed)
    }
}

fn check_value(key: &[u8], value: &[u8]) -> Result<(), ReadError> {
    match Envelope::parse(value) {
        Ok(envelope) if envelope.clear == key => Ok(()),
        _ => Err(ReadError::Damaged("a value lies in another row than it was written to")),
    }
}

/// A reader's hold on one state.
pub(super) struct Reading<'a> {
    pub(super) shared: &'a Shared,
    pub(super) present: RwLockReadGuard<'a, Present>,
}

impl Reading<'_> {
    fn top(&self) -> Link {
        Link { id: TOP, key: self.present.root.key.clone() }
    }

    /// Whether anything is there that a change would erase. What cannot be read may be.
    pub(super) fn may_erase(&self, change: &Change) -> bool {
        let index = &self.present.index;
        match *change {
            Change::EraseTenant(tenant) => index.tenant_name(tenant).is_some(),
            Change::EraseSubscriber(tenant, subscriber) => index.subscriber_name(tenant, subscriber).is_some(),
            Change::ErasePeriod(tenant, period) => index.periods(tenant).any(|known| known.handle == period),
            Change::EraseRecording { at, parts } => {
                match tree::recording(self, &self.top(), at, &mut NoPath).map(tree::Search::found) {
                    Ok(found) => found.is_some_and(|entry| match &*entry {
                        // One without leaves is left of somebody who fell, and goes without a rotation.
                        Entry::Recording(recording) => {
                            parts.audio && recording.audio.is_some() || parts.facts && recording.facts.is_some()
                        }
                        _ => false,
                    }),
                    Err(_) => true,
                }
            }
            _ => change.erases(),
        }
    }
}

impl Pages for Reading<'_> {
    fn page(&self, link: &Link, under: Under) -> Result<Arc<Page>, ReadError> {
        if let Some(page) = self.shared.cache.get(&link.id) {
            return Ok(page);
        }
        let veil = match under {
            Under::Subscriber(tenant, subscriber) => self.present.index.veil(tenant, subscriber),
            Under::Top | Under::Tenant(_) => None,
        };
        let page = Arc::new(stack::wiped(|| open_page(&*self.shared.backing, link, under, veil))?);
        self.shared.cache.insert(link.id, page.clone());
        Ok(page)
    }
}

impl Store for Reading<'_> {
    fn row(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.shared.backing.get(family, key)?)
    }

    fn rows(&self, family: Family, prefix: &[u8]) -> Result<Vec<Vec<u8>>, ReadError> {
        let rows = self.shared.backing.scan(family, prefix, None, usize::MAX)?;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }
}

/// Opens a page and its appended rows.
fn open_page(backing: &dyn Backing, link: &Link, under: Under, veil: Option<&Arc<Veil>>) -> Result<Page, ReadError> {
    let damaged = || ReadError::Damaged("a page is missing or does not open");
    let rows = backing.scan(Family::Pages, &link.id.0, None, usize::MAX)?;
    let mut rows = rows.into_iter();
    let (key, value) = rows.next().filter(|(key, _)| *key == link.id.0).ok_or_else(damaged)?;
    let (clear, body) = open_row(&value, &link.key, if link.id == TOP { Kind::Top } else { Kind::Page })?;
    let (level, mut entries) = decode_body(&body, &clear.items, veil).map_err(|_| damaged())?;
    if clear.page.0[..] != key[..] || (level != under.leaf() && level != Level::Branch) {
        return Err(damaged());
    }
    let (base, mut version) = (clear.version, clear.version);
    // Most rows have one entry more.
    entries.reserve_exact(rows.len());
    for (_, value) in rows {
        let (clear, body) = open_row(&value, &link.key, Kind::Append)?;
        version += 1;
        if clear.page != link.id || clear.version != version {
            return Err(damaged());
        }
        for append in decode_appends(level, &body, &clear.items, veil).map_err(|_| damaged())? {
            apply_append(&mut entries, append).map_err(|_| damaged())?;
        }
    }
    Ok(Page { id: link.id, base, version, under, level, entries: Entries::new(entries) })
}

fn open_row(
    value: &[u8],
    key: &Secret,
    kind: Kind,
) -> Result<(super::page::Clear, zeroize::Zeroizing<Vec<u8>>), ReadError> {
    let damaged = || ReadError::Damaged("a page is missing or does not open");
    let envelope = Envelope::parse(value).map_err(|_| damaged())?;
    if envelope.kind != kind {
        return Err(damaged());
    }
    Ok((command::clear_of(value)?, envelope.open(key).map_err(|_| damaged())?))
}

impl Shared {
    /// Whether every root of before is destroyed.
    pub(super) fn all_destroyed(&self) -> bool {
        *self.destroyed.borrow() >= self.rotated.load(Ordering::SeqCst)
    }

    pub(super) fn read(&self) -> Reading<'_> {
        // A panic elsewhere cannot leave the state half-changed: it is changed after everything that can fail.
        Reading { shared: self, present: self.present.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The same, behind a writer that waits. A lock that was let go of is not given to who waits for it: whoever takes it again
    /// at once would have it before the writer has woken up, and again and again.
    fn read_behind_writer(&self) -> Reading<'_> {
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.read()
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the slots hold now.
    pub(super) fn tell(&self, slots: &Slots) {
        *self.told() = Told { report: slots.report(), forgets: slots.forgets() };
        if slots.all_destroyed() {
            self.destroyed.send_replace(self.rotated.load(Ordering::SeqCst));
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Present> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.present.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a command, of which `encoded` are the bytes, and lets readers see what it did. `root` is the root from now on,
    /// where it changed.
    pub(super) fn apply(
        &self,
        command: &Command,
        encoded: &[u8],
        published: Published,
        root: Option<RootKey>,
    ) -> Result<(), command::ApplyError> {
        let mut present = self.write();
        let mut sent = self.backlog.as_ref().map(|backlog| Sent { sent: backlog.backed(), ..present.sent });
        let state = Checked { shared: self, present: &present };
        let chain = command.apply_encoded(encoded, &*self.backing, &state, sent.as_mut())?;
        present.last_number = command.number;
        present.chain = chain;
        present.sent = sent.unwrap_or(present.sent);
        if root.is_some() {
            self.rotated.store(command.number, Ordering::SeqCst);
        }
        if let Some(backlog) = &self.backlog {
            backlog.applied(command.number, root.as_ref().map(|root| root.id));
        }
        if published.log > 0 {
            present.log_size += published.log;
            if self.backlog.is_some() {
                let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
                leaves.appended(command.number, present.log_size);
            }
        }
        for page in published.pages {
            self.cache.insert(page.id, page);
        }
        for page in published.gone {
            self.cache.remove(&page);
        }
        if !published.scopes.is_empty() {
            // Pages of recordings stay until they are evicted: once the index lets go of the veil nothing opens them.
            let falls = |page: &Page| published.scopes.iter().any(|scope| page.under.within(*scope));
            self.cache.retain(|_, page| page.level == Level::Recordings || !falls(page));
        }
        for change in published.names {
            present.index.apply(change);
        }
        if let Some(root) = root {
            present.root = root;
        }
        for (count, change) in [(&self.doomed, published.doomed), (&self.copies, published.copies)] {
            // Added as what it is modulo 2^64: less by so many where it is negative.
            count.fetch_add(change as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn rebuild_index(&self) -> Result<(), ReadError> {
        let mut changes = Vec::new();
        {
            let reading = self.read();
            let mut tenants = Vec::new();
            tree::walk(&reading, &reading.top(), Under::Top, None, &mut |entry| {
                tenants.extend(tree::account(entry).cloned());
                Ok(ControlFlow::Continue(()))
            })?;
            for account in tenants {
                let tenant = TenantHandle(account.handle);
                changes.push(NameChange::AddTenant(tenant, account.name.clone()));
                tree::walk(&reading, &account.subtree, Under::Tenant(tenant), None, &mut |entry| {
                    match entry {
                        Entry::Subscriber(account) => {
                            let subscriber = SubscriberHandle(account.handle);
                            changes.push(NameChange::AddSubscriber(
                                tenant,
                                subscriber,
                                account.name.clone(),
                                Veil::new(),
                            ));
                        }
                        Entry::Period(period, _) => changes.push(NameChange::AddPeriod(tenant, *period)),
                        _ => {}
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
            }
        }
        let mut present = self.write();
        changes.into_iter().for_each(|change| present.index.apply(change));
        Ok(())
    }
}

/// The state that the writer's commands are checked against: the cache, else the rows.
struct Checked<'a> {
    shared: &'a Shared,
    present: &'a Present,
}

impl State for Checked<'_> {
    fn last_number(&self) -> u64 {
        self.present.last_number
    }

    fn chain(&self) -> Chain {
        self.present.chain
    }

    fn root(&self) -> RootId {
        self.present.root.id
    }

    fn version(&self, page: PageId) -> Result<Option<u64>, ReadError> {
        match self.shared.cache.get(&page) {
            Some(page) => Ok(Some(page.version)),
            None => command::stored_version(&*self.shared.backing, page),
        }
    }
}
