//! Tenants: creating, showing, counting; the one door to their settings; and the reserved tenant of the group.
//!
//! Several parts of the gateway rewrite the settings row: the policy, the state, the list of floor grounds. They all go
//! through [`Inner::change_settings`], one at a time, so that none writes back what another has changed.
//!
//! The *reserved tenant* `~group` holds what belongs to the group and to no customer: published sums and the entries of
//! the log that are about no tenant. No public name can begin with `~`, and no name from outside is ever looked up among
//! reserved ones: it can neither be shown nor listed, recorded into or erased.

use super::{
    Actor, Error, Inner, Kind, NewTenant, Residency, Scope, StatisticsRow, Tenant, TenantState, Vault, values,
};
use crate::{
    crypto::{envelope, random, secret::Secret},
    domain::{
        id::{RowId, TenantHandle},
        time::{Day, Timestamp},
    },
    keys::{Change, CommitError, Holder, Mutation, Owner, Purpose},
    proto::stored,
};
use std::collections::BTreeMap;

/// The tenant that holds what belongs to the group.
const GROUP: &str = "~group";
/// What reserved names begin with.
const RESERVED: char = '~';
/// Most grounds of floors a tenant may have: an entry names one in a byte.
const MAX_GROUNDS: usize = 255;

/// A tenant's settings, parsed.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Region of the first copy.
    pub home: String,
    /// Where copies go.
    pub residency: Residency,
    /// Name of the retention policy.
    pub policy: String,
    /// When it was created.
    pub created: Timestamp,
    /// How often the policy was set or a state changed that its rules go by.
    pub policy_revision: u64,
    /// What the due times of what is stored were last made from.
    pub due_revision: u64,
    /// Grounds of floors. An entry's `ground` counts from 1 in here, so the list only ever grows.
    pub grounds: Vec<String>,
    /// Where the account stands.
    pub state: TenantState,
    /// Kept, and not used.
    pub restricted: bool,
    /// Some recording or subscriber was restricted at some time.
    pub ever_restricted: bool,
}

impl Settings {
    /// The number of a ground, added where it is new. None when there are too many.
    pub fn ground(&mut self, ground: &str) -> Option<u8> {
        let at = self.grounds.iter().position(|known| known == ground).or_else(|| {
            let room = self.grounds.len() < MAX_GROUNDS;
            room.then(|| self.grounds.push(ground.to_owned())).map(|()| self.grounds.len() - 1)
        })?;
        u8::try_from(at + 1).ok()
    }

    /// The number of a ground that was added before; 0 where it was not.
    pub fn ground_number(&self, ground: &str) -> u8 {
        let at = self.grounds.iter().position(|known| known == ground);
        at.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0)
    }

    /// Says that a rule, or a state that rules go by, is another from this command on: everything stored is to be made due
    /// anew.
    pub fn rules_changed(&mut self) {
        self.policy_revision += 1;
    }

    /// The ground that a number in an entry stands for.
    pub fn ground_text(&self, number: u8) -> &str {
        let at = usize::from(number).checked_sub(1);
        at.and_then(|at| self.grounds.get(at)).map_or("a floor of an earlier policy", String::as_str)
    }

    fn to_stored(&self) -> stored::TenantSettings {
        let (state, closed) = match self.state {
            TenantState::Open => (1, 0),
            TenantState::Closed { at } => (2, at.0),
            TenantState::Purging { at } => (3, at.0),
        };
        stored::TenantSettings {
            home: self.home.clone(),
            residency: match self.residency {
                Residency::HomeOnly => 1,
                Residency::Both => 2,
            },
            policy: self.policy.clone(),
            created_ms: self.created.0,
            policy_revision: self.policy_revision,
            due_revision: self.due_revision,
            grounds: self.grounds.clone(),
            state,
            closed_ms: closed,
            restricted: self.restricted,
            ever_restricted: self.ever_restricted,
        }
    }

    fn from_stored(stored: stored::TenantSettings) -> Self {
        let closed = Timestamp(stored.closed_ms);
        Self {
            home: stored.home,
            residency: if stored.residency == 2 { Residency::Both } else { Residency::HomeOnly },
            policy: stored.policy,
            created: Timestamp(stored.created_ms),
            policy_revision: stored.policy_revision,
            due_revision: stored.due_revision,
            grounds: stored.grounds,
            state: match stored.state {
                2 => TenantState::Closed { at: closed },
                3 => TenantState::Purging { at: closed },
                _ => TenantState::Open,
            },
            restricted: stored.restricted,
            ever_restricted: stored.ever_restricted,
        }
    }
}

impl Vault {
    /// Creates a tenant.
    ///
    /// # Errors
    /// `Invalid` names the field; `Exists`.
    pub async fn create_tenant(&self, actor: &Actor, new: NewTenant) -> Result<Tenant, Error> {
        self.0.running()?;
        check_name("name", &new.name)?;
        let regions = self.0.objects.regions();
        if !regions.contains(&new.home) {
            return Err(invalid("home", format!("name a region of this group: {}", regions.join(", "))));
        }
        if new.residency == Residency::Both && regions.len() < 2 {
            return Err(invalid("residency", "`both` needs a group of two regions; send `home-only`".to_owned()));
        }
        let chosen = new.policy.read()?;

        let (tenant, row, secret) = (TenantHandle(random()), RowId(random()), Secret::random());
        let mut settings = Settings {
            home: new.home,
            residency: new.residency,
            policy: String::new(),
            created: self.0.clock.now(),
            policy_revision: 0,
            due_revision: 0,
            grounds: Vec::new(),
            state: TenantState::Open,
            restricted: false,
            ever_restricted: false,
        };
        chosen.enter(&mut settings)?;
        // Nothing is stored that would have to be made due by it.
        settings.due_revision = settings.policy_revision;
        let policy = chosen.change(tenant, row, &secret);
        let name = values::name(row, envelope::Kind::TenantSettings);
        let envelope = values::seal(&settings.to_stored(), &secret, &name);
        let logged = self.0.audit_birth(actor, tenant, row, &secret);
        let mut changes = vec![
            Change::AddTenant { tenant, row, secret, name: new.name.clone() },
            Change::PutValue { owner: Owner::Tenant(tenant), name, envelope },
            policy,
        ];
        changes.extend(logged);
        self.0.keys.commit(Mutation::new(changes)).await?;
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
            state: settings.state,
            restricted: settings.restricted,
            transition: self.0.transition(tenant)?.as_ref().map(super::transition::shown),
        })
    }

    /// The tenants within a scope, by name.
    ///
    /// # Errors
    /// When the key store cannot be read.
    pub fn tenants(&self, scope: &Scope) -> Result<Vec<Tenant>, Error> {
        let mut names: Vec<String> = self.0.public_tenants().into_iter().map(|(_, name)| name).collect();
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
        self.0.counted(self.0.find_tenant(tenant)?)
    }
}

impl Inner {
    /// The counters of a tenant, per day, kind and region, oldest first.
    pub(crate) fn counted(&self, tenant: TenantHandle) -> Result<Vec<StatisticsRow>, Error> {
        let holder = self.tenant_holder(tenant)?;
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
            &self.keys,
            holder.row,
            envelope::Kind::ClosedCounters,
            &holder.secret,
        )?;
        for (_, row) in closed {
            add(Day(row.day), row.counters);
        }
        for period in self.keys.periods(tenant) {
            if period.purpose == Purpose::Counters {
                add(period.day, self.open_counters(tenant, period.handle)?);
            }
        }
        sums.into_iter()
            .map(|((day, kind, region), (recordings, seconds, bytes))| {
                let kind = Kind::from_number(kind).ok_or_else(|| Error::Corrupt("a counter row".to_owned()))?;
                Ok(StatisticsRow { day, kind, region, recordings, seconds, bytes })
            })
            .collect()
    }

    /// Every tenant but the reserved one, in no order.
    pub(crate) fn public_tenants(&self) -> Vec<(TenantHandle, String)> {
        let mut tenants = self.keys.tenants();
        tenants.retain(|(_, name)| !name.starts_with(RESERVED));
        tenants
    }

    /// The handle of a tenant that exists. The reserved one does not, for whoever asks by name.
    pub(crate) fn find_tenant(&self, name: &str) -> Result<TenantHandle, Error> {
        let public = !name.starts_with(RESERVED);
        public.then(|| self.keys.find_tenant(name)).flatten().ok_or(Error::Unknown { what: "tenant" })
    }

    /// The reserved tenant, where it was made already.
    pub(crate) fn existing_group(&self) -> Option<TenantHandle> {
        self.keys.find_tenant(GROUP)
    }

    /// The reserved tenant, made when it is missing.
    pub(crate) async fn group(&self) -> Result<TenantHandle, Error> {
        loop {
            if let Some(group) = self.existing_group() {
                return Ok(group);
            }
            let (tenant, row, secret) = (TenantHandle(random()), RowId(random()), Secret::random());
            let change = Change::AddTenant { tenant, row, secret, name: GROUP.to_owned() };
            match self.keys.commit(Mutation::new(vec![change])).await {
                Ok(_) => return Ok(tenant),
                // Somebody else was first: it is found now.
                Err(CommitError::Exists) => {}
                Err(error) => return Err(error.into()),
            }
        }
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
        Ok((Settings::from_stored(stored), holder))
    }

    /// The change that has everything of a tenant made due anew, for a command that changes something else that rules go by.
    /// The caller holds `settings_lock`.
    pub(crate) fn rules_changed(&self, tenant: TenantHandle) -> Result<Change, Error> {
        let (mut settings, holder) = self.settings(tenant)?;
        settings.rules_changed();
        let name = values::name(holder.row, envelope::Kind::TenantSettings);
        let envelope = values::seal(&settings.to_stored(), &holder.secret, &name);
        Ok(Change::PutValue { owner: Owner::Tenant(tenant), name, envelope })
    }

    /// Changes a tenant's settings: the only way to. `change` sees them as they are and may refuse; what it returns goes
    /// into the same command as the row.
    pub(crate) async fn change_settings(
        &self,
        tenant: TenantHandle,
        change: impl FnOnce(&mut Settings) -> Result<Vec<Change>, Error>,
    ) -> Result<Settings, Error> {
        let _alone = self.settings_lock.lock().await;
        let (mut settings, holder) = self.settings(tenant)?;
        let mut changes = change(&mut settings)?;
        let name = values::name(holder.row, envelope::Kind::TenantSettings);
        let envelope = values::seal(&settings.to_stored(), &holder.secret, &name);
        changes.push(Change::PutValue { owner: Owner::Tenant(tenant), name, envelope });
        self.keys.commit(Mutation::new(changes)).await.map_err(|error| match error {
            CommitError::Gone => Error::Unknown { what: "tenant" },
            other => other.into(),
        })?;
        Ok(settings)
    }
}

impl Kind {
    /// From the number on the wire and in sealed values.
    pub fn from_number(number: u32) -> Option<Self> {
        let all =
            [Kind::Call, Kind::Voicemail, Kind::Transcript, Kind::Video, Kind::Message, Kind::Media, Kind::Connection];
        all.into_iter().find(|kind| *kind as u32 == number)
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
