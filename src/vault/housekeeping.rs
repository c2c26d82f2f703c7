//! Daily work: days close, client ids and inboxes are forgotten, permissions run out, evidence expires, and what is left of
//! accounts that have ended goes ([`super::ended`]). Every minute: what was only counted of refused playbacks is logged.
//!
//! Counters of an open day lie under a key of that day, because their successive versions would tell when each recording
//! came and how long it was. Closing the day writes the sums under the tenant's secret and erases the day's key in one
//! command. A client-id period is erased when the window has passed since its last moment; then a late retry with such an
//! id is refused by its start, not recognised by its id. An evidence period of the audit log is erased some years after its
//! quarter has ended.
//!
//! # By a clock that is right
//! All of that destroys keys for their age, so it goes by a moment that a second clock has witnessed ([`super::witness`]). By a
//! clock that jumped ahead, client ids would be forgotten before their window has passed: a late retry would bring back
//! what was erased (I4). Evidence and the openings of receipts would be gone for good.

use super::{Error, Inner, values};
use crate::{
    crypto::{envelope::Kind, random},
    domain::{
        id::{PeriodHandle, RowId, TenantHandle},
        time::{Day, Timestamp},
    },
    keys::{Change, CommitError, Mutation, Owner, Period, Purpose},
    proto::stored,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How often the clock is looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long after midnight a day is closed.
const SETTLE_MS: i64 = 5 * 60 * 1000;

/// Runs until the vault stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        if let Err(error) = once(&inner).await {
            tracing::warn!(%error, "the daily work waits");
        }
        tokio::select! {
            () = inner.stopping.cancelled() => break,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
    // Nobody is refused any more once the vault stops.
    if let Err(error) = inner.write_refusals(None).await {
        tracing::warn!(%error, "how often somebody was refused in the last minute is not in the log");
    }
}

/// Does what is due. No step that fails stops the next; the first failure is given back.
pub(crate) async fn once(inner: &Arc<Inner>) -> Result<(), Error> {
    let mut steps = vec![inner.run_all_lifted().await];
    inner.go_on_with_all().await;
    inner.forget_the_ended().await;
    steps.push(inner.drop_old_cells().await);
    steps.push(inner.keep_permissions().await);
    steps.push(inner.write_refusals(Some(inner.clock.now())).await);
    steps.push(forget_periods(inner).await);
    steps.into_iter().collect()
}

/// Erases the periods whose time has passed.
async fn forget_periods(inner: &Arc<Inner>) -> Result<(), Error> {
    let tenants = inner.keys.tenants();
    let over_in = |tenant, today| -> Result<Vec<Period>, Error> {
        let periods = inner.keys.periods(tenant).into_iter();
        periods
            .filter_map(|period| is_over(inner, &period, today).map(|over| over.then_some(period)).transpose())
            .collect()
    };
    let by_our_clock = settled_day(inner.clock.now());
    let mut some = false;
    for (tenant, _) in &tenants {
        some = some || !over_in(*tenant, by_our_clock)?.is_empty();
    }
    // The witness is asked only where there is something to destroy; what it says is logged and shown.
    if !some {
        return Ok(());
    }
    let Ok(now) = inner.witnessed().await else { return Ok(()) };
    let today = settled_day(now);
    for (tenant, _) in tenants {
        let mut changes = Vec::new();
        for period in over_in(tenant, today)? {
            if period.purpose == Purpose::Counters {
                changes.extend(close_day(inner, tenant, period.handle, period.day)?);
            }
            changes.push(Change::ErasePeriod(tenant, period.handle));
        }
        if changes.is_empty() {
            continue;
        }
        match inner.keys.commit(Mutation::new(changes)).await {
            Ok(_) => inner.sweep_wake.notify_one(),
            // The tenant was erased meanwhile.
            Err(CommitError::Gone) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The day that is not over yet: a recording that finished just before midnight may still be on its way to its day's counters.
fn settled_day(now: Timestamp) -> Day {
    now.plus_ms(-SETTLE_MS).day()
}

/// Whether a period's time has passed.
fn is_over(inner: &Inner, period: &Period, today: Day) -> Result<bool, Error> {
    Ok(match period.purpose {
        Purpose::Counters => period.day < today,
        Purpose::ClientIds => period.day.0 + inner.config.client_window_days < today.0 && none_open(inner, period.row)?,
        Purpose::Inbox => inner.inbox_is_over(period, today)?,
        Purpose::Evidence => evidence_end(inner, period.day) <= today,
        // A hold is lifted by somebody, never by time; cells have a lock of their own.
        Purpose::Hold | Purpose::Cell => false,
    })
}

/// Whether no recording of a client-id period is open. One that is, has acknowledged audio which only its `Open` row leads
/// to: after a node was away for weeks, or its clock jumped, the period waits until the recording is complete or partial.
fn none_open(inner: &Inner, period: RowId) -> Result<bool, Error> {
    Ok(inner.keys.values(period, Kind::Open)?.is_empty())
}

/// The day from which the evidence of a quarter is forgotten.
fn evidence_end(inner: &Inner, quarter: Day) -> Day {
    quarter.plus_months(3 + 12 * inner.config.evidence_years)
}

/// The row that keeps a day's sums for good.
fn close_day(inner: &Inner, tenant: TenantHandle, period: PeriodHandle, day: Day) -> Result<Option<Change>, Error> {
    let counters = inner.open_counters(tenant, period)?;
    let Some(holder) = inner.keys.tenant(tenant)? else { return Ok(None) };
    if counters.is_empty() {
        return Ok(None);
    }
    let name = values::name_with(holder.row, Kind::ClosedCounters, &random::<8>());
    let closed = stored::DayCounters { day: day.0, counters };
    let envelope = values::seal_as(Kind::ClosedCounters, &closed, &holder.secret, &name);
    Ok(Some(Change::PutValue { owner: Owner::Tenant(tenant), name, envelope }))
}

impl Inner {
    /// The sums of a day that is still open.
    pub(crate) fn open_counters(
        &self,
        tenant: TenantHandle,
        period: PeriodHandle,
    ) -> Result<Vec<stored::Counter>, Error> {
        let Some(holder) = self.keys.period(tenant, period)? else { return Ok(Vec::new()) };
        let rows = values::read_all::<stored::DayCounters>(&self.keys, holder.row, Kind::OpenCounters, &holder.secret)?;
        let mut sums: BTreeMap<(u32, String), stored::Counter> = BTreeMap::new();
        for counter in rows.into_iter().flat_map(|(_, row)| row.counters) {
            let sum = sums.entry((counter.kind, counter.region.clone())).or_insert_with(|| stored::Counter {
                kind: counter.kind,
                region: counter.region.clone(),
                ..stored::Counter::default()
            });
            sum.recordings += counter.recordings;
            sum.seconds += counter.seconds;
            sum.bytes += counter.bytes;
        }
        Ok(sums.into_values().collect())
    }
}
