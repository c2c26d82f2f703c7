//! The façade: composes key tree, journal and objects into what the product does. Transports call this and nothing below.
//!
//! The rooms:
//!
//! | *a call comes in* | |
//! |---|---|
//! | [`tenants`], [`states`], [`switches`], [`api_keys`] | who there is, what they are in, and their machines |
//! | [`opening`], [`basis`], [`binding`], [`recording_id`] | Open: why it may be recorded, who is bound, its id |
//! | [`ingest`], [`track`], [`timeline`], [`discard`], [`recover`], [`claims`] | front half, back half, pauses, thrown away, what a stop left open |
//! | [`audio`], [`replicate`] | where the bytes lie; copies to the second region |
//! | **who hears it, who sees it** | |
//! | [`playback`], [`permission`], [`refused`], [`ticket`] | the gate and what passes it; who tried and may not |
//! | [`catalogue`], [`inbox`], [`webhook`] | what is known; what a tenant is told |
//! | **how long, and what stands in the way** | |
//! | [`retention`], [`runner`], [`redue`], [`explain`], [`witness`] | policies, expiry, changed rules, why, the second clock |
//! | [`clearance`], [`holds`], [`parked`], [`transition`], [`preview`] | the proof that nothing stands in the way, and what waits |
//! | [`consent`], [`correction`], [`ended`] | withdrawal, facts as they should be, accounts that are over |
//! | **forgetting, and saying so** | |
//! | [`erasure`], [`receipt`], [`sweep`], [`housekeeping`] | keys go, it is stated, ciphertext goes, days close |
//! | [`audit`], [`anonymous`], [`sessions`], [`values`] | the log, sums that tie to nobody, who is inside, sealed rows |
//!
//! # The order of locks
//!
//! Whoever holds several took them in this order: `transitions` → `cell_lock` → `gate` → [`holds`] → `keeping` →
//! the lock of parking → `settings_lock`, `period_lock`, `inbox_lock`. The runner's own ([`runner`]) comes before all of them. Nobody waits for a session to
//! leave while holding `holds` or `keeping`: it may be waiting for them on its way out.
//!
//! # Who waits for whom
//!
//! - An *acknowledgement* waits for what it promises: `journaled` for the journal's sync; `stored` for the PutObject and
//!   then for the synced row that lists the slice. An object's id is durable before its put starts, because the create,
//!   or the row that listed the slice before, carries it. So at every moment each object that can exist is named in the
//!   key store, and an erasure finds it.
//! - An *erasure* waits for the sessions it cuts, then for the key tree, then for sessions that entered meanwhile; it
//!   never waits for S3.
//! - A *live call* never waits for S3 before it is acknowledged.

mod anonymous;
pub mod api;
mod api_keys;
mod audio;
mod audit;
mod basis;
mod binding;
mod catalogue;
mod claims;
mod clearance;
mod consent;
mod correction;
mod discard;
mod ended;
mod erasure;
mod explain;
mod holds;
mod housekeeping;
mod inbox;
mod ingest;
mod opening;
mod parked;
mod permission;
mod playback;
mod preview;
mod receipt;
mod recording_id;
mod recover;
mod redue;
mod refused;
mod replicate;
mod retention;
mod runner;
mod sessions;
mod states;
mod sweep;
mod switches;
mod tenants;
mod ticket;
mod timeline;
mod track;
mod transition;
mod values;
mod webhook;
mod witness;

pub use crate::domain::id::ApiKeyId;
pub use anonymous::AnonymousRow;
pub use api::*;
pub use api_keys::{ApiKey, KeyHolder, KeyRole, KeySecret, NewApiKey};
pub use audit::{AuditEntry, Inclusion, MAX_TAIL, SubjectView, TailOf};
pub use basis::BasisShown;
pub use catalogue::Page;
pub use consent::Withdrawal;
pub use correction::Correction;
pub use explain::{DryRunRow, Explanation, PartExplanation};
pub use holds::{Hold, HoldPlaced, HoldScope, NewHold};
pub use inbox::{InboxAbout, InboxId, InboxItem};
pub use ingest::Ingest;
pub use parked::{Ran, Waiting};
pub use permission::{Narrower, NewPermission, Over, Permission};
pub use playback::{Hearing, Playback};
pub use preview::Preview;
pub use receipt::{MAX_LIST, Receipt};
pub use retention::{PolicyInForce, PolicyPage, PolicySource, PresetLine};
pub use runner::ExpiryStatus;
pub use states::{Restrict, Subscriber};
pub use switches::{Enrolment, Switch};
pub use ticket::{Proof, Ticket};
pub use transition::Settled;
pub use webhook::{Webhook, WebhookConfig};

use crate::{
    audit::SigningKey,
    domain::{
        id::{ObjectId, RecordingId, SubscriberHandle, TenantHandle},
        time::{Clock, Timestamp},
    },
    journal::{self, Journal},
    keys::{self, KeyStore, RecordingPath},
    object::{ObjectStore, StoreError},
};
use api_keys::ApiKeys;
use bytes::Bytes;
use claims::Claims;
use ended::Ended;
use holds::Holds;
use receipt::Receipts;
use retention::Policies;
use runner::Expiry;
use sessions::{Cut, Sessions};
use std::{collections::HashMap, sync::Arc, time::Duration};
use switches::Switches;
use tokio::sync::{Mutex, Notify, RwLock, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use witness::Clocks;

/// What can be set.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The group's name.
    pub group: String,
    /// Bytes of audio that may be in memory on their way to S3, ciphertext included.
    pub memory_budget: usize,
    /// How long acknowledged live audio may wait in the journal while its call goes on.
    pub max_unstored: Duration,
    /// How long a caller may be away before its recording is marked partial.
    pub sender_timeout: Duration,
    /// Days for which client ids are remembered, and for which a start may lie back.
    pub client_window_days: u32,
    /// How webhooks are reached.
    pub webhook: WebhookConfig,
    /// Purged tenants that an anonymous sum must be of before it may be seen.
    pub min_tenants: u32,
    /// Signs checkpoints and receipts. None: a key of this run alone, so that nobody verifies later what was signed.
    pub signing_key: Option<Arc<SigningKey>>,
    /// Years for which evidence outlives its quarter.
    pub evidence_years: u32,
    /// Milliseconds in which the ciphertext of what was erased is to be gone.
    pub sweep_deadline_ms: i64,
    /// The slot lies on the key store's file system; receipts say so.
    pub slot_beside_store: bool,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self {
            group: "uk+eu".to_owned(),
            memory_budget: 256 << 20,
            max_unstored: Duration::from_secs(60),
            sender_timeout: Duration::from_secs(60),
            client_window_days: 14,
            webhook: WebhookConfig::default(),
            min_tenants: 10,
            signing_key: None,
            evidence_years: 6,
            sweep_deadline_ms: 30 * 86_400_000,
            slot_beside_store: false,
        }
    }
}

/// Unit in which memory is granted: a semaphore counts in 32 bits.
const GRANT: usize = 4096;
/// Playbacks at one time. Each holds up to 2 MiB.
const MAX_PLAYBACKS: usize = 512;
/// Locks over client ids, so that two streams with one client id never make two recordings.
const CLIENT_LOCKS: usize = 256;

/// The gateway's inside. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

pub(crate) struct Inner {
    config: VaultConfig,
    keys: KeyStore,
    journal: Journal,
    objects: ObjectStore,
    clock: Clock,
    sessions: Sessions,
    claims: Claims,
    permissions: permission::Registry,
    tickets: ticket::Tickets,
    refusals: refused::Refusals,
    webhooks: webhook::Webhooks,
    inbox_lock: Mutex<()>,
    webhook_wake: Notify,
    log: audit::Log,
    receipts: Receipts,
    api_keys: ApiKeys,
    switches: Switches,
    enrolling: Mutex<()>,
    memory: Arc<Semaphore>,
    /// By home region; see [`track`].
    live_memory: HashMap<String, Arc<Semaphore>>,
    playbacks: Arc<Semaphore>,
    client_locks: Vec<Mutex<()>>,
    period_lock: Mutex<()>,
    /// Whoever rewrites a tenant's settings, or a subscriber's state, holds it.
    settings_lock: Mutex<()>,
    policies: Policies,
    expiry: Expiry,
    clocks: Clocks,
    ended: Ended,
    due_wake: Notify,
    /// A new recording holds it shared, a change of what takes recordings alone.
    gate: RwLock<()>,
    /// Whoever rewrites what an entry says about keeping holds it alone; see [`retention`].
    keeping: Arc<RwLock<()>>,
    holds: Holds,
    /// Closes and purges, one step at a time.
    transitions: Mutex<()>,
    /// When a purge that something keeps is looked at again.
    purge_looks: Mutex<HashMap<TenantHandle, Timestamp>>,
    /// Additions to the cell of anonymous sums, one at a time.
    cell_lock: Mutex<()>,
    sweep_wake: Notify,
    copy_wake: Notify,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Vault {
    /// Opens the vault over its stores, takes up what a stop left open, and starts the background work.
    ///
    /// # Errors
    /// When the key store cannot be read.
    pub fn open(
        config: VaultConfig,
        keys: KeyStore,
        (journal, recovered): (Journal, journal::Recovered),
        objects: ObjectStore,
        clock: Clock,
    ) -> Result<Self, Error> {
        let key = match &config.signing_key {
            Some(key) => key.clone(),
            None => Arc::new(SigningKey::of_this_run(&config.group)),
        };
        let (api_keys, switches) = (ApiKeys::load(&keys)?, Switches::load(&keys)?);
        let webhooks = webhook::Webhooks::new(&config.webhook)?;
        let live_share = config.memory_budget / 4 / objects.regions().len().max(1);
        let inner = Arc::new(Inner {
            memory: Arc::new(Semaphore::new((config.memory_budget * 3 / 4).max(MIN_BUDGET) / GRANT)),
            live_memory: objects
                .regions()
                .into_iter()
                .map(|region| (region, Arc::new(Semaphore::new(live_share.max(MIN_BUDGET) / GRANT))))
                .collect(),
            playbacks: Arc::new(Semaphore::new(MAX_PLAYBACKS)),
            client_locks: (0..CLIENT_LOCKS).map(|_| Mutex::new(())).collect(),
            config,
            keys,
            journal,
            objects,
            clock,
            sessions: Sessions::default(),
            claims: Claims::default(),
            permissions: permission::Registry::default(),
            tickets: ticket::Tickets::default(),
            refusals: refused::Refusals::default(),
            webhooks,
            inbox_lock: Mutex::new(()),
            webhook_wake: Notify::new(),
            log: audit::Log::new(key),
            receipts: Receipts::default(),
            api_keys,
            switches,
            enrolling: Mutex::new(()),
            period_lock: Mutex::new(()),
            settings_lock: Mutex::new(()),
            policies: Policies::default(),
            expiry: Expiry::default(),
            clocks: Clocks::default(),
            ended: Ended::default(),
            due_wake: Notify::new(),
            gate: RwLock::new(()),
            keeping: Arc::default(),
            holds: Holds::default(),
            transitions: Mutex::new(()),
            purge_looks: Mutex::new(HashMap::new()),
            cell_lock: Mutex::new(()),
            sweep_wake: Notify::new(),
            copy_wake: Notify::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        inner.read_holds()?;
        recover::take_up(&inner, recovered)?;
        let due = inner.receipts_at_start()?;
        inner.tasks.spawn(receipt::settle(inner.clone(), due));
        inner.tasks.spawn(sweep::run(inner.clone()));
        inner.tasks.spawn(replicate::run(inner.clone()));
        inner.tasks.spawn(housekeeping::run(inner.clone()));
        inner.tasks.spawn(permission::load(inner.clone()));
        inner.tasks.spawn(webhook::run(inner.clone()));
        inner.tasks.spawn(runner::run(inner.clone()));
        Ok(Self(inner))
    }

    /// Stops: refuses new work, cuts what still runs, waits for the background work. What was acknowledged stays.
    pub async fn drain(&self) {
        self.0.stopping.cancel();
        self.0.sessions.cut(Cut::Stopping, |_, _| true).await;
        self.0.tasks.close();
        self.0.tasks.wait().await;
        // So that nothing waits for the backup when the key store is closed; where it is away, the next start goes on.
        let keys = self.0.keys.clone();
        if keys.has_backup() && !matches!(blocking(move || keys.tend_backup()).await, Ok(true)) {
            tracing::warn!("the backup lacks the last commands; the next start gives it what it lacks");
        }
    }

    /// The present moment, by the clock that the vault goes by.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// What waits and how much room is left.
    pub fn status(&self) -> Status {
        let inner = &self.0;
        let (holds, holds_overdue) = inner.count_holds();
        Status {
            holds,
            holds_overdue,
            parked: inner.count_parked().unwrap_or_default(),
            transitions: inner.count_transitions().unwrap_or_default(),
            sweeps_pending: inner.keys.doomed_count(),
            receipts_overdue: inner.receipts.overdue(inner.clock.now()),
            replications_pending: inner.keys.copies_count(),
            recordings_open: inner.sessions.feeding(),
            journal_bytes: inner.journal.bytes(),
            journal_limit_bytes: inner.journal.limit(),
            generation: inner.keys.generation(),
            slot_forgets: inner.keys.forgets().to_string(),
            slots: inner.keys.slots(),
            expiry: inner.expiry_status(),
            backup: inner.keys.backup_status(),
            erasures_sealed: !inner.keys.all_destroyed(),
            erasures_waiting_since: inner.keys.erasures_waiting_since(),
        }
    }

    /// Runs the daily work now. The background task does so by itself; tests with their own clock call this.
    ///
    /// # Errors
    /// When the key store fails.
    pub async fn housekeep(&self) -> Result<(), Error> {
        housekeeping::once(&self.0).await
    }

    /// Erases what is due now. The background task does so by itself; tests with their own clock call this.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn expire(&self) -> Result<(), Error> {
        runner::once(&self.0).await
    }
}

/// A share must hold at least one slice.
const MIN_BUDGET: usize = 2 * crate::segment::MAX_SLICE;

/// Grants that so much plaintext takes, sealed in place.
fn grants(plaintext: u64) -> u32 {
    (crate::segment::object_len(plaintext) as usize).div_ceil(GRANT) as u32
}

/// Runs what reads many pages of the key store, where it holds up nobody. It begins at once.
fn blocking<T, W>(work: W) -> impl Future<Output = Result<T, Error>> + Send + use<T, W>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    let running = tokio::task::spawn_blocking(work);
    async { running.await.map_err(|failed| Error::Internal(failed.to_string())) }
}

/// A recording that an id leads to.
struct Located {
    tenant: String,
    path: RecordingPath,
}

impl Inner {
    fn running(&self) -> Result<(), Error> {
        if self.stopping.is_cancelled() { Err(Error::Stopping) } else { Ok(()) }
    }

    /// Finds the tenant and subscriber of an id, within what the caller may reach.
    fn locate(&self, scope: &Scope, id: RecordingId) -> Result<Located, Error> {
        for (tenant, name) in self.public_tenants() {
            if !scope.contains(&name) {
                continue;
            }
            let Some(holder) = self.keys.tenant(tenant)? else { continue };
            if let Some(subscriber) = recording_id::resolve(&holder.secret, id) {
                if !self.reaches(scope, tenant, &name, subscriber) {
                    break;
                }
                return Ok(Located { tenant: name, path: RecordingPath { tenant, subscriber, recording: id.handle } });
            }
        }
        Err(Error::Unknown { what: "recording" })
    }

    /// Whether a subscriber lies within what the caller may reach. One that is gone lies within a whole tenant only: whose
    /// recording it was is not known any more.
    fn reaches(&self, scope: &Scope, tenant: TenantHandle, name: &str, subscriber: SubscriberHandle) -> bool {
        match scope {
            Scope::All | Scope::Tenants(_) => scope.contains(name),
            Scope::Own { .. } => {
                self.keys.subscriber_name(tenant, subscriber).is_some_and(|own| scope.reaches(name, &own))
            }
        }
    }

    /// Puts one object, holding its claim. The put runs on when the caller is cut, so that the claim ends with the put.
    async fn put(self: &Arc<Self>, region: &str, object: ObjectId, body: Bytes) -> Result<(), StoreError> {
        let claim = self.claims.claim(&[object]).await;
        let (objects, region) = (self.objects.clone(), region.to_owned());
        let put = tokio::spawn(async move {
            let outcome = objects.put(&region, object, body).await;
            drop(claim);
            outcome
        });
        put.await.unwrap_or_else(|failed| Err(StoreError::Unavailable(failed.to_string())))
    }
}

impl From<keys::ReadError> for Error {
    fn from(error: keys::ReadError) -> Self {
        Error::Internal(error.to_string())
    }
}

impl From<keys::CommitError> for Error {
    fn from(error: keys::CommitError) -> Self {
        match error {
            keys::CommitError::Gone => Error::Erased,
            keys::CommitError::Exists => Error::Exists,
            keys::CommitError::Closed => Error::Stopping,
            other => Error::Internal(other.to_string()),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::Storage(error.to_string())
    }
}

#[cfg(test)]
mod tests;
