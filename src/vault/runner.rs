//! The runner: erases what is due, unattended.
//!
//! What is due is found by the due minutes in the entries of the key tree: there is no list of days, and no row's name
//! tells a time. A look costs as much as there is due.
//!
//! # Never early
//! - A run goes by one moment that a second clock has witnessed ([`super::witness`]).
//! - A due minute only says where to look. The entry is read anew and the verdict worked out from the policy and the states of
//!   now, under the lock of everybody who changes them, which is held until the erasure is durable. So a recording that is
//!   taken up again, and a policy that keeps longer, come before the erasure and are heeded, or after it. What is not due gets
//!   its due minute corrected, and stays.
//! - Due minutes are rounded up, and the present one down.
//! - Nothing is erased without a clearance, which restrictions, floors and holds refuse.
//!
//! # What stands in the way
//! An expiry that meets a hold parks under it, and its due minute leaves the entry: it costs nothing more until the hold is
//! lifted, which puts it back ([`super::parked`]). Where a bound party's restriction or the floor of a transcript stands in
//! the way, the entry is looked at again a day later, or when the floor ends; restricted tenants and subscribers are passed
//! over without a look at their entries.
//!
//! # Few rotations, of bounded size
//! What is due is found, and erased, in the order of the key tree, so that what lies on one page goes together: the page is
//! sealed anew once. How much is taken at one time goes by what it costs and how long the last took ([`Pace`]): a create waits
//! for the locks that are held meanwhile. What is taken is erased in batches of one tenant, each one command with one entry in
//! the log and one receipt, all of them under the same hold of the locks, so that they share a rotation where they can.
//! Between two holds whoever waits for the locks goes first, so a create waits for one at most.
//!
//! # One tenant's fault is its own
//! Where something of a tenant cannot be read (its policy, its settings), its part of the run ends: that is logged and counted,
//! and tried again at the next run. The others go on.
//!
//! # Lateness
//! After each run, and when a run may not happen because no witness answers, what is still due and past its promise is counted:
//! how much, and by how long. By a clock that the witness gainsays nothing is counted. After a time away the runner simply finds more; the counters of what was erased late go up.

use super::{
    Actor, Error, Inner,
    clearance::{Blocked, Clearance, Settled, Standing, Wanted},
    erasure::Batch,
    retention::Kept,
    witness::Unwitnessed,
};
use crate::{
    domain::{
        id::{SubscriberHandle, TenantHandle},
        retention::Part,
        time::{Minute, Timestamp},
    },
    keys::{Change, CommitError, Due, Mutation, Pace, Parts, PassedOver, RecordingEntry, RecordingPath},
};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often the clock is looked at.
const INTERVAL: Duration = Duration::from_secs(60);
/// The same for a clock that somebody moves.
const REHEARSAL: Duration = Duration::from_millis(250);
/// What is looked for at one time.
const ROUND: usize = 1024;
/// How many that are late are looked at; more are as many.
const MOST_LATE: usize = 10_000;
/// When an entry is looked at again that something stands in the way of.
const AGAIN_MS: i64 = 86_400_000;

/// What the runner has done and what it could not do.
#[derive(Default)]
pub(crate) struct Expiry {
    alone: tokio::sync::Mutex<()>,
    expired: AtomicU64,
    expired_late: AtomicU64,
    late: AtomicU64,
    late_seconds: AtomicU64,
    failing: AtomicU64,
}

/// The same, as it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExpiryStatus {
    /// Recordings of which a part expired since the start.
    pub expired: u64,
    /// Of these, after their promise.
    pub expired_late: u64,
    /// Recordings that should be gone by their promise and are not; holds and restrictions excepted.
    pub late_recordings: u64,
    /// By how long the latest of them.
    pub late_seconds: u64,
    /// Nothing expires because no second clock agrees with ours.
    pub clock_disagrees: bool,
    /// Tenants in which the last run met a fault: nothing of theirs expires until it is mended.
    pub failing_tenants: u64,
}

/// Runs until the vault stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let interval = if inner.clock.is_moved() { REHEARSAL } else { INTERVAL };
    loop {
        if let Err(error) = once(&inner).await {
            tracing::error!(%error, "expiry waits");
        }
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = inner.due_wake.notified() => {}
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Erases what is due now.
pub(crate) async fn once(inner: &Arc<Inner>) -> Result<(), Error> {
    let _alone = inner.expiry.alone.lock().await;
    let mut failing = inner.redue_wanted().await;
    if inner.keys.next_due(None)? > Minute::begun(inner.clock.now()) {
        inner.expiry.note(0, 0, failing.len() as u64);
        inner.look_at_the_clock().await;
        return Ok(());
    }
    match inner.witnessed().await {
        Ok(now) => erase_due(inner, now, &mut failing).await?,
        // It is logged. What is late by a clock that others gainsay may not be.
        Err(Unwitnessed::Disagrees { .. }) => return Ok(()),
        Err(Unwitnessed::Silent) => {}
    }
    let (late, seconds) = inner.count_late(&failing).await?;
    inner.expiry.note(late, seconds, failing.len() as u64);
    Ok(())
}

/// Erases what is due, of every tenant but those in which something fails: they are logged, counted, and tried again at the
/// next run. What comes next in the tree is looked for meanwhile. Once there is no more behind the last, it is looked from the
/// beginning, until that finds nothing new.
async fn erase_due(inner: &Arc<Inner>, now: Timestamp, failing: &mut HashSet<TenantHandle>) -> Result<(), Error> {
    let (mut seen, mut pace) = (HashSet::new(), Pace::default());
    let mut behind = None;
    let mut looked = inner.due(now, ROUND, failing, behind);
    loop {
        let mut due = looked.await?;
        let from_the_beginning = behind.is_none();
        behind = due.last().map(|due| due.at);
        due.retain(|due| seen.insert(due.at));
        if from_the_beginning && due.is_empty() || inner.stopping.is_cancelled() {
            return Ok(());
        }
        looked = inner.due(now, ROUND, failing, behind);
        if let Err(error) = erase_found(inner, &due, now, failing, &mut pace).await {
            // It has the key store open, and nobody waits for the runner's own looks but the runner.
            drop(looked.await);
            return Err(error);
        }
    }
}

/// Erases what was found, in as many rotations as it takes.
async fn erase_found(
    inner: &Arc<Inner>,
    mut due: &[Due],
    now: Timestamp,
    failing: &mut HashSet<TenantHandle>,
    pace: &mut Pace,
) -> Result<(), Error> {
    while !due.is_empty() && !inner.stopping.is_cancelled() {
        let (taken, later) = due.split_at(pace.next(due));
        let time = inner.expire(taken, now, failing).await?;
        pace.took(taken, time);
        due = later;
    }
    Ok(())
}

fn recording(wanted: &Wanted) -> Option<RecordingPath> {
    match wanted {
        Wanted::Recording(at, _) => Some(*at),
        Wanted::Subscriber(..) | Wanted::Tenant(_) => None,
    }
}

/// A recording of which something is to go.
struct Expiring {
    at: RecordingPath,
    parts: Parts,
    late: bool,
}

impl Inner {
    /// What is due at a moment, behind one of them where it is named. What is restricted as a whole is passed over. Looks whether
    /// it is waited for or not.
    fn due(
        self: &Arc<Self>,
        now: Timestamp,
        most: usize,
        failing: &HashSet<TenantHandle>,
        behind: Option<RecordingPath>,
    ) -> impl Future<Output = Result<Vec<Due>, Error>> + use<> {
        let inner = self.clone();
        let mut passed: PassedOver = failing.iter().map(|tenant| (*tenant, None)).collect();
        let look = move || {
            let mut asked = HashSet::new();
            // Each look that meets something restricted is followed by one that passes it over.
            loop {
                let due = inner.keys.due(Minute::begun(now), most, &passed, behind)?;
                let before = passed.len();
                for at in due.iter().map(|due| due.at) {
                    for whole in [(at.tenant, None), (at.tenant, Some(at.subscriber))] {
                        if asked.insert(whole) && inner.restricted_as_a_whole(whole.0, whole.1) {
                            passed.insert(whole);
                        }
                    }
                }
                if passed.len() == before {
                    return Ok(due);
                }
            }
        };
        let looking = super::blocking(look);
        async { looking.await? }
    }

    fn restricted_as_a_whole(&self, tenant: TenantHandle, subscriber: Option<SubscriberHandle>) -> bool {
        match subscriber {
            None => self.settings(tenant).is_ok_and(|(settings, _)| settings.restricted),
            Some(subscriber) => {
                self.subscriber_state(tenant, subscriber).ok().flatten().is_some_and(|state| state.restricted)
            }
        }
    }

    /// Erases what was taken for one rotation, as far as it is due and free; gives how long it took from when the locks were
    /// had. Tenants in which something fails are logged and noted.
    ///
    /// Entries are read anew, under locks that are held until the erasure is durable: whoever changes a rule or a state, or
    /// takes up a recording that was partial, has either done so and is seen, or does so after the erasure.
    async fn expire(
        self: &Arc<Self>,
        taken: &[Due],
        now: Timestamp,
        failing: &mut HashSet<TenantHandle>,
    ) -> Result<Duration, Error> {
        let standing = self.standing().await;
        let settled = self.settled(&standing).await;
        let (began, mut running) = (Instant::now(), tokio::task::JoinSet::new());
        for batch in taken.chunk_by(|one, next| one.at.tenant == next.at.tenant) {
            let Some(tenant) = batch.first().map(|due| due.at.tenant).filter(|tenant| !failing.contains(tenant)) else {
                continue;
            };
            let places: Vec<RecordingPath> = batch.iter().map(|due| due.at).collect();
            let (inner, standing, settled) = (self.clone(), standing.clone(), settled.clone());
            running.spawn(async move { (tenant, inner.expire_of_one(&places, now, standing, settled).await) });
        }
        // What is left to do behind an erasure takes a lock anew: each batch lets go of its own copies first.
        drop((standing, settled));
        while let Some(done) = running.join_next().await {
            let (tenant, done) = done.map_err(|gone| Error::Internal(gone.to_string()))?;
            match done {
                // Erased meanwhile.
                Ok(()) | Err(Error::Unknown { .. } | Error::Erased) => {}
                Err(error) => {
                    tracing::error!(%error, "expiry of a tenant waits");
                    failing.insert(tenant);
                }
            }
        }
        Ok(began.elapsed())
    }

    /// Erases one tenant's batch of them.
    async fn expire_of_one(
        self: &Arc<Self>,
        batch: &[RecordingPath],
        now: Timestamp,
        standing: Standing,
        settled: Settled,
    ) -> Result<(), Error> {
        let minute = Minute::begun(now);
        let (mut expiring, mut corrected, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for at in batch {
            let Some(entry) = self.keys.entry(*at)? else { continue };
            if !entry.lives() {
                dead.push(*at);
                continue;
            }
            let keeping = self.renewed(*at, &entry)?;
            let still = entry.keeping.due(entry.audio_present, entry.facts_present) <= minute;
            let parts = Parts {
                audio: entry.audio_present && keeping.audio_due <= minute,
                facts: entry.facts_present && keeping.facts_due <= minute,
            };
            if still && (parts.audio || parts.facts) {
                let late = self.late_by(*at, &entry, parts, now)?.is_some();
                expiring.push(Expiring { at: *at, parts, late });
            } else {
                corrected.push(*at);
            }
        }
        let kept = self.erase_free(&expiring, standing, settled).await?;
        self.correct(&corrected).await?;
        if !dead.is_empty() {
            self.keys.commit(Mutation::new(Clearance::of_the_dead(dead).changes())).await?;
        }
        self.set_aside(kept, now).await
    }

    /// Writes due minutes anew that the rules of now do not bear out.
    pub(super) async fn correct(&self, places: &[RecordingPath]) -> Result<(), Error> {
        if places.is_empty() {
            return Ok(());
        }
        let _alone = self.keeping.write().await;
        let mut entries = Vec::new();
        for at in places {
            if let Some(entry) = self.keys.entry(*at)? {
                entries.push((*at, entry));
            }
        }
        let entries: Vec<_> = entries.iter().map(|(at, entry)| (*at, entry)).collect();
        self.renew(&entries).await
    }

    /// Erases what is free in one rotation, and parks what is held; gives what a floor or a restriction keeps.
    async fn erase_free(
        self: &Arc<Self>,
        expiring: &[Expiring],
        standing: Standing,
        settled: Settled,
    ) -> Result<Vec<(RecordingPath, Parts, Blocked)>, Error> {
        let wanted: Vec<Wanted> = expiring.iter().map(|it| Wanted::Recording(it.at, it.parts)).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (clearance, blocked) = self.clear_expired(wanted, standing, settled).await?;
        if let Some(clearance) = clearance {
            let freed: HashSet<RecordingPath> = clearance.erases().iter().filter_map(recording).collect();
            let gone = expiring.iter().filter(|it| freed.contains(&it.at));
            let late = gone.clone().filter(|it| it.late).count() as u64;
            let gone = gone.count() as u64;
            self.erase_batch(&Actor::gateway(), clearance, Batch::Expired).await?;
            self.expiry.expired.fetch_add(gone, Ordering::Relaxed);
            self.expiry.expired_late.fetch_add(late, Ordering::Relaxed);
        }
        let kept = blocked.into_iter().filter_map(|(wanted, stands)| match wanted {
            Wanted::Recording(at, parts) => Some((at, parts, stands)),
            Wanted::Subscriber(..) | Wanted::Tenant(_) => None,
        });
        Ok(kept.collect())
    }

    /// Sees to it that the runner does not meet again and again what it may not erase.
    async fn set_aside(&self, kept: Vec<(RecordingPath, Parts, Blocked)>, now: Timestamp) -> Result<(), Error> {
        for (at, parts, stands) in kept {
            let _alone = self.keeping.write().await;
            let Some(entry) = self.keys.entry(at)? else { continue };
            let again = match stands {
                Blocked::Floor { until, .. } => until,
                Blocked::Restricted | Blocked::Hold(_) => now.plus_ms(AGAIN_MS),
            };
            let mut keeping = entry.keeping;
            let later = |due: &mut Minute, part: bool| {
                if part {
                    *due = Minute::at_or_after(again);
                }
            };
            later(&mut keeping.audio_due, parts.audio);
            later(&mut keeping.facts_due, parts.facts);
            match self.keys.commit(Mutation::new(vec![Change::SetKeeping { at, keeping }])).await {
                Ok(_) | Err(CommitError::Gone) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// By how long parts of a recording are past their promise.
    fn late_by(
        &self,
        at: RecordingPath,
        entry: &RecordingEntry,
        parts: Parts,
        now: Timestamp,
    ) -> Result<Option<Duration>, Error> {
        let rules = self.rules(at.tenant)?;
        let kept = Kept::of(entry, self.life(at.tenant, at.subscriber)?, now)?;
        let keeping = entry.keeping;
        let asked = [(Part::Audio, parts.audio, keeping.audio_floor), (Part::Facts, parts.facts, keeping.facts_floor)];
        let asked = asked.into_iter().filter(|(_, asked, _)| *asked);
        let promises = asked.filter_map(|(part, _, floor)| rules.promise(&rules.verdict(kept, part)?, floor));
        let earliest = promises.min();
        let late = earliest.map(|promise| now.0.saturating_sub(promise.0)).filter(|late| *late > 0);
        Ok(late.map(|late| Duration::from_millis(late.unsigned_abs())))
    }

    /// How many are past their promise now, and by how many seconds the latest.
    async fn count_late(self: &Arc<Self>, failing: &HashSet<TenantHandle>) -> Result<(u64, u64), Error> {
        let now = self.clock.now();
        let (mut count, mut seconds) = (0, 0);
        for due in self.due(now, MOST_LATE, failing, None).await? {
            let parts = Parts { audio: due.entry.audio_present, facts: due.entry.facts_present };
            if let Some(late) = self.late_by(due.at, &due.entry, parts, now)? {
                count += 1;
                seconds = seconds.max(late.as_secs());
            }
        }
        Ok((count, seconds))
    }

    /// What the runner has done and could not do.
    pub(crate) fn expiry_status(&self) -> ExpiryStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExpiryStatus {
            expired: read(&self.expiry.expired),
            expired_late: read(&self.expiry.expired_late),
            late_recordings: read(&self.expiry.late),
            late_seconds: read(&self.expiry.late_seconds),
            clock_disagrees: self.clocks.disagree(),
            failing_tenants: read(&self.expiry.failing),
        }
    }
}

impl Expiry {
    /// Until the guard goes, nothing expires.
    pub(super) async fn pause(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.alone.lock().await
    }

    fn note(&self, late: u64, seconds: u64, failing: u64) {
        if late > 0 {
            tracing::error!(recordings = late, seconds, "recordings are kept beyond their promise");
        }
        self.late.store(late, Ordering::Relaxed);
        self.late_seconds.store(seconds, Ordering::Relaxed);
        self.failing.store(failing, Ordering::Relaxed);
    }
}
