//! Tenants: creating, showing, counting.

use super::{Error, Inner, Kind, NewTenant, Residency, Scope, StatisticsRow, Tenant, Vault, values};
use crate::{
    crypto::{envelope, random, secret::Secret},
    domain::{
        id::{RowId, TenantHandle},
        time::{Day, Timestamp},
    },
    keys::{Change, Holder, Mutation, Owner, Purpose},
    proto::stored,
};
use std::collections::BTreeMap;

/// A tenant's settings, parsed.
pub(crate) struct Settings {
    /// Region of the first copy.
    pub home: String,
    /// Where copies go.
    pub residency: Residency,
    /// Name of the retention policy.
    pub policy: String,
    /// When it was created.
    pub created: Timestamp,
}

impl Vault {
    /// Creates a tenant.
    ///
    /// # Errors
    /// `Invalid` names the field; `Exists`.
    pub async fn create_tenant(&self, new: NewTenant) -> Result<Tenant, Error> {
        self.0.running()?;
        check_name("name", &new.name)?;
        let regions = self.0.objects.regions();
        if !regions.contains(&new.home) {
            return Err(invalid("home", format!("name a region of this group: {}", regions.join(", "))));
        }
        if new.residency == Residency::Both && regions.len() < 2 {
            return Err(invalid("residency", "`both` needs a group of two regions; send `home-only`".to_owned()));
        }
        check_name("policy", &new.policy)?;

        let (tenant, row, secret) = (TenantHandle(random()), RowId(random()), Secret::random());
        let created = self.0.clock.now();
        let settings = stored::TenantSettings {
            home: new.home,
            residency: match new.residency {
                Residency::HomeOnly => 1,
                Residency::Both => 2,
            },
            policy: new.policy,
            created_ms: created.0,
        };
        let name = values::name(row, envelope::Kind::TenantSettings);
        let envelope = values::seal(&settings, &secret, &name);
        self.0
            .keys
            .commit(Mutation::new(vec![
                Change::AddTenant { tenant, row, secret, name: new.name.clone() },
                Change::PutValue { owner: Owner::Tenant(tenant), name, envelope },
            ]))
            .await?;
        self.tenant(&new.name)
    }

    /// One tenant.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn tenant(&self, name: &str) -> Result<Tenant, Error> {
        let tenant = self.0.find_tenant(name)?;
        let (settings, _) = self.0.settings(tenant)?;
        Ok(Tenant {
            name: name.to_owned(),
            home: settings.home,
            residency: settings.residency,
            policy: settings.policy,
            created: settings.created,
            subscribers: self.0.keys.subscriber_count(tenant) as u64,
        })
    }

    /// The tenants within a scope, by name.
    ///
    /// # Errors
    /// When the key store cannot be read.
    pub fn tenants(&self, scope: &Scope) -> Result<Vec<Tenant>, Error> {
        let mut names: Vec<String> = self.0.keys.tenants().into_iter().map(|(_, name)| name).collect();
        names.retain(|name| scope.contains(name));
        names.sort_unstable();
        names
            .iter()
            .map(|name| self.tenant(name))
            .filter(|tenant| !matches!(tenant, Err(Error::Unknown { .. })))
            .collect()
    }

    /// Counters per day, kind and region, oldest first.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn statistics(&self, tenant: &str) -> Result<Vec<StatisticsRow>, Error> {
        let handle = self.0.find_tenant(tenant)?;
        let holder = self.0.tenant_holder(handle)?;
        let mut sums: BTreeMap<(Day, u32, String), (u64, f64, u64)> = BTreeMap::new();
        let mut add = |day: Day, counters: Vec<stored::Counter>| {
            for counter in counters {
                let sum = sums.entry((day, counter.kind, counter.region)).or_default();
                sum.0 += counter.recordings;
                sum.1 += counter.seconds;
                sum.2 += counter.bytes;
            }
        };
        let closed = values::read_all::<stored::DayCounters>(
            &self.0.keys,
            holder.row,
            envelope::Kind::ClosedCounters,
            &holder.secret,
        )?;
        for (_, row) in closed {
            add(Day(row.day), row.counters);
        }
        for period in self.0.keys.periods(handle) {
            if period.purpose == Purpose::Counters {
                add(period.day, self.0.open_counters(handle, period.handle)?);
            }
        }
        sums.into_iter()
            .map(|((day, kind, region), (recordings, seconds, bytes))| {
                let kind = Kind::from_number(kind).ok_or_else(|| Error::Corrupt("a counter row".to_owned()))?;
                Ok(StatisticsRow { day, kind, region, recordings, seconds, bytes })
            })
            .collect()
    }
}

impl Inner {
    /// The handle of a tenant that exists.
    pub(crate) fn find_tenant(&self, name: &str) -> Result<TenantHandle, Error> {
        self.keys.find_tenant(name).ok_or(Error::Unknown { what: "tenant" })
    }

    /// A tenant's row and secret.
    pub(crate) fn tenant_holder(&self, tenant: TenantHandle) -> Result<Holder, Error> {
        self.keys.tenant(tenant)?.ok_or(Error::Unknown { what: "tenant" })
    }

    /// A tenant's settings, and its row and secret.
    pub(crate) fn settings(&self, tenant: TenantHandle) -> Result<(Settings, Holder), Error> {
        let holder = self.tenant_holder(tenant)?;
        let stored: stored::TenantSettings = values::read(&self.keys, holder.row, &holder.secret)?
            .ok_or_else(|| Error::Corrupt("a tenant's settings are missing".to_owned()))?;
        let settings = Settings {
            home: stored.home,
            residency: if stored.residency == 2 { Residency::Both } else { Residency::HomeOnly },
            policy: stored.policy,
            created: Timestamp(stored.created_ms),
        };
        Ok((settings, holder))
    }
}

impl Kind {
    /// From the number on the wire and in sealed values.
    pub fn from_number(number: u32) -> Option<Self> {
        [Kind::Call, Kind::Voicemail, Kind::Transcript, Kind::Video, Kind::Message, Kind::Media]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// A wrong field and what to send instead.
pub(crate) fn invalid(field: &'static str, remedy: String) -> Error {
    Error::Invalid { field, remedy }
}

/// Names of tenants, policies and switches, which people type.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        return Err(invalid(field, "send 1 to 64 letters, digits, `-`, `_` or `.`".to_owned()));
    }
    Ok(())
}
