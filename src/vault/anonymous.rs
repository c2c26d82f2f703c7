//! What is left of a purged tenant's counters: sums over many tenants, which tie to none of them.
//!
//! # Cells
//! When a tenant is purged, its counters are summed by month, kind and region, and added to the year's *cell*: rows of sums
//! with the number of tenants in each. A row that has reached `k` tenants (10 unless configured) is *published*: it moves
//! to the group's own secret and may be asked for. Rows that have not when their year is over are dropped.
//!
//! - *k is per row, not per cell.* A row to which one tenant of ten had contributed would be that tenant's number.
//! - *A published row starts again from nothing.* What is published later for the same month is again of at least `k`
//!   other tenants, so that two publications never differ by one tenant.
//! - *Nothing finer than a month*, no subscribers, no policies, no dates of creation or closing.
//! - *A cell that waits leaves no trace of its growth.* The cell before and the cell after an addition differ by one
//!   tenant's numbers. So each addition puts the new cell under a fresh key and destroys the old one's, in the command
//!   that purges the tenant: one rotation for both, and no copy of the key store opens the cell before.
//!
//! # What it does not hide
//! While a row waits, it holds the sums of fewer than `k` tenants, perhaps of one, without a name: whoever can open what
//! lives can read that so many recordings of some tenant that is gone were made in some month. It is never shown, and dies
//! at the end of its year. And a sum over `k` tenants tells each of them the sum of the others, as every sum does.

use super::{Error, Inner, Kind as Recorded, Vault, values};
use crate::{
    crypto::{envelope::Kind, random, secret::Secret},
    domain::{
        id::{PeriodHandle, RowId, TenantHandle},
        time::{Day, Timestamp},
    },
    keys::{Change, CommitError, Mutation, Owner, Period, Purpose},
    proto::stored,
};
use std::collections::BTreeMap;

/// A published sum.
#[derive(Clone, PartialEq, Debug)]
pub struct AnonymousRow {
    /// Year and month: 202611.
    pub month: u32,
    /// What was recorded.
    pub kind: Recorded,
    /// Where its first copy went.
    pub region: String,
    /// How many tenants are in it, all of them gone.
    pub tenants: u64,
    /// How many recordings.
    pub recordings: u64,
    /// How long in all.
    pub seconds: f64,
    /// How large in all.
    pub bytes: u64,
}

/// Month, kind, region.
type Place = (u32, u32, String);

impl Vault {
    /// Of how many purged tenants a sum must be before it may be seen.
    pub fn min_tenants(&self) -> u32 {
        self.0.config.min_tenants
    }

    /// What was published.
    ///
    /// # Errors
    /// When the key store cannot be read.
    pub fn anonymous_statistics(&self) -> Result<Vec<AnonymousRow>, Error> {
        let inner = &self.0;
        let Some(group) = inner.existing_group() else { return Ok(Vec::new()) };
        let holder = inner.tenant_holder(group)?;
        let published: Vec<(_, stored::PublishedCell)> =
            values::read_all(&inner.keys, holder.row, Kind::PublishedCell, &holder.secret)?;
        let mut sums: BTreeMap<Place, stored::CellRow> = BTreeMap::new();
        for row in published.into_iter().flat_map(|(_, cell)| cell.rows) {
            add(&mut sums, row);
        }
        sums.into_values()
            .map(|row| {
                let kind =
                    Recorded::from_number(row.kind).ok_or_else(|| Error::Corrupt("a published sum".to_owned()))?;
                Ok(AnonymousRow {
                    month: row.month,
                    kind,
                    region: row.region,
                    tenants: row.tenants.into(),
                    recordings: row.recordings,
                    seconds: row.seconds,
                    bytes: row.bytes,
                })
            })
            .collect()
    }
}

fn add(sums: &mut BTreeMap<Place, stored::CellRow>, row: stored::CellRow) {
    let place = (row.month, row.kind, row.region.clone());
    let sum = sums.entry(place).or_insert_with(|| stored::CellRow {
        month: row.month,
        kind: row.kind,
        region: row.region.clone(),
        ..stored::CellRow::default()
    });
    sum.tenants = sum.tenants.saturating_add(row.tenants);
    sum.recordings = sum.recordings.saturating_add(row.recordings);
    sum.seconds += row.seconds;
    sum.bytes = sum.bytes.saturating_add(row.bytes);
}

/// Puts a tenant into a cell. Gives what waits on, and what is published.
fn merge(
    waiting: Vec<stored::CellRow>,
    tenant: BTreeMap<Place, stored::CellRow>,
    k: u32,
) -> (Vec<stored::CellRow>, Vec<stored::CellRow>) {
    let mut sums = BTreeMap::new();
    waiting.into_iter().for_each(|row| add(&mut sums, row));
    tenant
        .into_values()
        .filter(|row| row.recordings > 0)
        .for_each(|row| add(&mut sums, stored::CellRow { tenants: 1, ..row }));
    sums.into_values().partition(|row| row.tenants < k)
}

fn month(day: Day) -> u32 {
    let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(i64::from(day.0.min(2_900_000))));
    date.map_or(0, |date| u32::from(date.year().unsigned_abs()) * 100 + u32::from(date.month().unsigned_abs()))
}

/// The first day of a moment's year: a cell's period bears it.
fn year(now: Timestamp) -> Day {
    let date = jiff::Timestamp::from_millisecond(now.0).map(|now| now.to_zoned(jiff::tz::TimeZone::UTC).date());
    let into_year = date.map_or(0, |date| u32::from(date.day_of_year().unsigned_abs()) - 1);
    Day(now.day().0 - into_year)
}

impl Inner {
    /// The changes that put a tenant's counters into the year's cell, to go into the command that purges it. Whoever calls
    /// holds the lock of the cells until that command is durable.
    pub(crate) async fn merge_into_cell(&self, tenant: TenantHandle) -> Result<Vec<Change>, Error> {
        let group = self.group().await?;
        let mut sums = BTreeMap::new();
        for row in self.counted(tenant)? {
            let row = stored::CellRow {
                month: month(row.day),
                kind: row.kind as u32,
                region: row.region,
                tenants: 0,
                recordings: row.recordings,
                seconds: row.seconds,
                bytes: row.bytes,
            };
            add(&mut sums, row);
        }
        // A clock that jumped ahead does not begin a new year. One that nobody witnessed yet is all there is: a purge does not
        // wait for storage. Cells of other years are left alone, so that it costs at most what this tenant adds.
        let sure = self.surely();
        let day = year(if sure == Timestamp(i64::MIN) { self.clock.now() } else { sure });
        let mut changes = Vec::new();
        let mut waiting = Vec::new();
        for period in self.cells(group).into_iter().filter(|period| period.day == day) {
            changes.push(Change::ErasePeriod(group, period.handle));
            if let Some(holder) = self.keys.period(group, period.handle)? {
                let cell: stored::Cell = values::read(&self.keys, holder.row, &holder.secret)?.unwrap_or_default();
                waiting.extend(cell.rows);
            }
        }
        let (waiting, published) = merge(waiting, sums, self.config.min_tenants);
        if !waiting.is_empty() {
            let (period, row, secret) = (PeriodHandle(random()), RowId(random()), Secret::random());
            let name = values::name(row, Kind::Cell);
            let envelope = values::seal(&stored::Cell { rows: waiting }, &secret, &name);
            changes.push(Change::AddPeriod { tenant: group, period, row, secret, purpose: Purpose::Cell, day });
            changes.push(Change::PutValue { owner: Owner::Period(group, period), name, envelope });
        }
        if !published.is_empty() {
            let holder = self.tenant_holder(group)?;
            let name = values::name_with(holder.row, Kind::PublishedCell, &random::<8>());
            let envelope = values::seal(&stored::PublishedCell { rows: published }, &holder.secret, &name);
            changes.push(Change::PutValue { owner: Owner::Tenant(group), name, envelope });
        }
        Ok(changes)
    }

    /// Drops what has waited beyond the end of its year.
    pub(crate) async fn drop_old_cells(&self) -> Result<(), Error> {
        let Some(group) = self.existing_group() else { return Ok(()) };
        let _alone = self.cell_lock.lock().await;
        let before = |year: Day| self.cells(group).into_iter().filter(move |period| period.day < year);
        if before(year(self.clock.now())).next().is_none() {
            return Ok(());
        }
        // By a clock that jumped ahead, sums would go that others could still have joined.
        let Ok(now) = self.witnessed().await else { return Ok(()) };
        let old = before(year(now)).map(|period| Change::ErasePeriod(group, period.handle)).collect();
        match self.keys.commit(Mutation::new(old)).await {
            Ok(_) => self.sweep_wake.notify_one(),
            Err(CommitError::Gone) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn cells(&self, group: TenantHandle) -> Vec<Period> {
        let mut periods = self.keys.periods(group);
        periods.retain(|period| period.purpose == Purpose::Cell);
        periods
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(month: u32, kind: u32, recordings: u64) -> stored::CellRow {
        stored::CellRow {
            month,
            kind,
            region: "r".into(),
            tenants: 0,
            recordings,
            seconds: 1.0,
            bytes: recordings * 10,
        }
    }

    #[test]
    fn a_year_begins_on_its_first_day() {
        let at = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().expect("a moment").as_millisecond());
        assert_eq!(year(at("2026-12-31T23:59:59Z")), at("2026-01-01T00:00:00Z").day());
        assert_eq!(year(at("2027-01-01T00:00:00Z")), at("2027-01-01T00:00:00Z").day());
        assert_eq!(month(at("2026-11-30T12:00:00Z").day()), 202_611);
    }

    proptest! {
        /// However tenants come, each published row is of k tenants or more that are in no other publication of that
        /// place, and nothing is counted twice or invented.
        #[test]
        fn what_is_published_is_of_k_tenants(
            tenants in prop::collection::vec(prop::collection::vec((0_u32..3, 1_u32..4, 0_u64..5), 0..6), 0..40),
            k in 2_u32..12,
        ) {
            let mut waiting = Vec::new();
            let mut published = Vec::new();
            let mut expected: BTreeMap<Place, u64> = BTreeMap::new();
            for tenant in tenants {
                let mut sums = BTreeMap::new();
                for (month, kind, recordings) in tenant {
                    add(&mut sums, row(month, kind, recordings));
                    *expected.entry((month, kind, "r".into())).or_default() += recordings;
                }
                let (on, out) = merge(waiting, sums, k);
                prop_assert!(on.iter().all(|row| row.tenants < k));
                prop_assert!(out.iter().all(|row| row.tenants >= k && row.recordings >= u64::from(k)));
                published.extend(out);
                waiting = on;
            }
            let mut found: BTreeMap<Place, u64> = BTreeMap::new();
            for row in waiting.into_iter().chain(published) {
                *found.entry((row.month, row.kind, row.region)).or_default() += row.recordings;
            }
            expected.retain(|_, recordings| *recordings > 0);
            prop_assert_eq!(found, expected);
        }
    }
}
