//! The key store as the vault sees it: readers over a bounded cache, and the door to the one writer.
//!
//! Readers hold a shared lock while they go from the top to an entry; the writer holds it alone while a batch is applied
//! and published, never while a slot commits. So a reader sees one state, and once an erasure's batch is published no page
//! of what fell opens from the cache: pages with keys are dropped, and secrets of recordings lose their
//! [veil](super::veil), so that this does not take longer the more there were. What was handed out ([`Holder`], leaves) is the caller's to wipe.

mod applying;
mod entries;
mod log;
mod reading;

use self::{log::BackedLeaves, reading::Reading};
use super::{
    CommitError, Committed, DoomedBatch, Forgets, Holder, Mutation, OpenError, Period, ReadError, Reshare, Slot, Slots,
    SlotsReport, ValueName,
    backing::{Backing, Family, KeyValue},
    backup::{
        Backup, BackupStatus,
        keeper::{self, Backlog, Keeper},
    },
    command::{Chain, Sent},
    index::{Index, NameChange},
    page::{Entry, Page, Under},
    plan::{Limits, RootKey},
    rocks::Rocks,
    start, sweep,
    tree::{self, NoPath},
    value_prefix,
    veil::Veil,
    writer::{OnFailure, Work, Writer},
};
use crate::{
    crypto::envelope::{self, Envelope},
    domain::{
        id::{ObjectId, PageId, PeriodHandle, ReceiptId, RowId, SubscriberHandle, TenantHandle},
        time::{Clock, Timestamp},
    },
};
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Most entries in the cache, over all pages: about 100 MB.
const CACHED_ENTRIES: u64 = 400_000;
/// How much of it is for pages that were asked for again. The rest are those that came last: of what is due, all pages that are
/// found ahead of their erasure fit there.
const ASKED_AGAIN: f64 = 0.75;

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
        let cached = OptionsBuilder::new()
            .estimated_items_capacity(CACHED_ENTRIES as usize / 64)
            .weight_capacity(CACHED_ENTRIES)
            .hot_allocation(ASKED_AGAIN)
            .build()
            .map_err(|error| OpenError::Backing(error.to_string()))?;
        let leaves = BackedLeaves::at_start(&*backing, settled.roots.backed(), log_size)?;
        let shared = Shared {
            leaves: Mutex::new(leaves),
            cache: Cache::with_options(cached, ByEntries, DefaultHashBuilder::default(), DefaultLifecycle::default()),
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

impl Shared {
    /// Whether every root of before is destroyed.
    pub(super) fn all_destroyed(&self) -> bool {
        *self.destroyed.borrow() >= self.rotated.load(Ordering::SeqCst)
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
