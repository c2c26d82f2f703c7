//! Switches that a tenant has let in, beside those of the identities file.
//!
//! A switch proves its name by its certificate. An enrolment is one tenant's word that this name may record for it, and how
//! many recordings at one time; it says nothing about other tenants, which may enrol the same switch and know nothing of
//! one another. So taking an enrolment back cuts what the switch feeds for this tenant, and nothing else.
//!
//! The index in memory is rebuilt at the start: an enrolment is in it if and only if its row is there. A row is durable
//! before it gets in; the answer to a revocation waits until it is out.

use super::{
    Actor, Error, Inner, Vault,
    audit::{About, Detail, Event},
    tenants::invalid,
    values,
};
use crate::{
    crypto::{envelope, random},
    domain::{
        audit::{Action, Outcome},
        id::TenantHandle,
        time::Timestamp,
    },
    keys::{Change, KeyStore, Mutation, Owner},
    proto::stored,
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Enrolments of one tenant.
const MAX_SWITCHES: usize = 1000;
/// Recordings at one time, where the tenant does not say.
const DEFAULT_RECORDINGS: u32 = 1000;
/// The most a tenant can say.
const MOST_RECORDINGS: u32 = 100_000;

/// One tenant's word that a switch may record for it.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// The tenant.
    pub tenant: String,
    /// Cancelled when it is taken back.
    pub alive: CancellationToken,
    /// A permit for each recording that may be fed at one time.
    pub room: Arc<Semaphore>,
}

/// A switch as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Switch {
    /// As in its certificate.
    pub name: String,
    /// Recordings that it may feed at one time.
    pub max_recordings: u32,
    /// When it was enrolled.
    pub created: Timestamp,
    /// Recordings that it feeds now.
    pub recordings: u32,
}

struct Enrolled {
    tenant: TenantHandle,
    suffix: Vec<u8>,
    max_recordings: u32,
    created: Timestamp,
    alive: CancellationToken,
    room: Arc<Semaphore>,
}

impl Enrolled {
    fn new(tenant: TenantHandle, suffix: Vec<u8>, row: &stored::Switch) -> Self {
        Self {
            tenant,
            suffix,
            max_recordings: row.max_recordings,
            created: Timestamp(row.created_ms),
            alive: CancellationToken::new(),
            room: Arc::new(Semaphore::new(row.max_recordings.min(MOST_RECORDINGS) as usize)),
        }
    }

    fn shown(&self, name: &str) -> Switch {
        let free = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        Switch {
            name: name.to_owned(),
            max_recordings: self.max_recordings,
            created: self.created,
            recordings: self.max_recordings.saturating_sub(free),
        }
    }
}

/// Who is enrolled, by the switch's name.
#[derive(Default)]
pub(crate) struct Switches(RwLock<HashMap<String, Vec<Enrolled>>>);

impl Switches {
    /// Reads every tenant's enrolments.
    pub fn load(keys: &KeyStore) -> Result<Self, Error> {
        let mut all: HashMap<String, Vec<Enrolled>> = HashMap::new();
        for (tenant, _) in keys.tenants() {
            let Some(holder) = keys.tenant(tenant)? else { continue };
            let rows = values::read_all::<stored::Switch>(keys, holder.row, envelope::Kind::Switch, &holder.secret)?;
            for (suffix, row) in rows {
                all.entry(row.name.clone()).or_default().push(Enrolled::new(tenant, suffix, &row));
            }
        }
        Ok(Self(RwLock::new(all)))
    }

    /// Lets go of the enrolments of a tenant that was erased.
    pub fn forget(&self, tenant: TenantHandle) {
        self.drop_where(|_, enrolled| enrolled.tenant == tenant);
    }

    fn drop_where(&self, falls: impl Fn(&str, &Enrolled) -> bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|name, enrolments| {
            enrolments.retain(|enrolled| {
                let falls = falls(name, enrolled);
                if falls {
                    enrolled.alive.cancel();
                }
                !falls
            });
            !enrolments.is_empty()
        });
    }
}

impl Vault {
    /// The tenants that let this switch record for them.
    pub fn enrolments(&self, switch: &str) -> Vec<Enrolment> {
        let all = self.0.switches.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(enrolments) = all.get(switch) else { return Vec::new() };
        let enrolment = |enrolled: &Enrolled| {
            let tenant = self.0.keys.tenant_name(enrolled.tenant)?;
            Some(Enrolment { tenant, alive: enrolled.alive.clone(), room: enrolled.room.clone() })
        };
        enrolments.iter().filter_map(enrolment).collect()
    }

    /// Lets a switch record for a tenant; 0 for as many recordings at one time as nobody needs to think about.
    ///
    /// # Errors
    /// `Unknown` tenant; `Exists`; `Invalid` names the field.
    pub async fn enrol_switch(
        &self,
        actor: &Actor,
        tenant: &str,
        name: &str,
        max_recordings: u32,
    ) -> Result<Switch, Error> {
        let inner = &self.0;
        inner.running()?;
        let tenant = inner.find_in(&actor.scope, tenant)?;
        super::tenants::check_name("name", name)?;
        let max_recordings = if max_recordings == 0 { DEFAULT_RECORDINGS } else { max_recordings };
        if max_recordings > MOST_RECORDINGS {
            return Err(invalid("max_recordings", format!("send at most {MOST_RECORDINGS}")));
        }
        // Two enrolments of one name at a time must not both find it free.
        let _alone = inner.enrolling.lock().await;
        let enrolled = inner.enrolled(tenant);
        if enrolled.iter().any(|switch| switch.name == name) {
            return Err(Error::Exists);
        }
        if enrolled.len() >= MAX_SWITCHES {
            return Err(invalid("tenant", format!("has {MAX_SWITCHES} switches; that is the most")));
        }
        let row = stored::Switch { name: name.to_owned(), max_recordings, created_ms: inner.clock.now().0 };
        let holder = inner.tenant_holder(tenant)?;
        let suffix = random::<16>();
        let row_name = values::name_with(holder.row, envelope::Kind::Switch, &suffix);
        let envelope = values::seal_as(envelope::Kind::Switch, &row, &holder.secret, &row_name);
        let change = Change::PutValue { owner: Owner::Tenant(tenant), name: row_name, envelope };
        let mut changes = vec![change];
        changes.extend(inner.audit(actor, event(Action::SwitchEnrol, tenant, name)).await?);
        inner.keys.commit(Mutation::new(changes)).await?;
        let entry = Enrolled::new(tenant, suffix.to_vec(), &row);
        let shown = entry.shown(name);
        {
            let mut all = inner.switches.0.write().unwrap_or_else(PoisonError::into_inner);
            all.entry(name.to_owned()).or_default().push(entry);
        }
        if inner.keys.tenant_name(tenant).is_none() {
            // The tenant was erased between the two; nobody else would take the enrolment out of the index.
            inner.switches.forget(tenant);
            return Err(Error::Unknown { what: "tenant" });
        }
        Ok(shown)
    }

    /// The switches of a tenant, by name.
    ///
    /// # Errors
    /// `Unknown` tenant.
    pub fn switches(&self, actor: &Actor, tenant: &str) -> Result<Vec<Switch>, Error> {
        let tenant = self.0.find_in(&actor.scope, tenant)?;
        let mut switches = self.0.enrolled(tenant);
        switches.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(switches)
    }

    /// Takes an enrolment back, and cuts what the switch feeds for this tenant.
    ///
    /// # Errors
    /// `Unknown` tenant or switch.
    pub async fn revoke_switch(&self, actor: &Actor, tenant: &str, name: &str) -> Result<(), Error> {
        let inner = &self.0;
        inner.running()?;
        let tenant = inner.find_in(&actor.scope, tenant)?;
        let _alone = inner.enrolling.lock().await;
        let suffix = {
            let all = inner.switches.0.read().unwrap_or_else(PoisonError::into_inner);
            let enrolled = all.get(name).and_then(|all| all.iter().find(|enrolled| enrolled.tenant == tenant));
            enrolled.map(|enrolled| enrolled.suffix.clone()).ok_or(Error::Unknown { what: "switch" })?
        };
        let holder = inner.tenant_holder(tenant)?;
        let row_name = values::name_with(holder.row, envelope::Kind::Switch, &suffix);
        let mut changes = vec![Change::DropValue { name: row_name }];
        changes.extend(inner.audit(actor, event(Action::SwitchRevoke, tenant, name)).await?);
        inner.keys.commit(Mutation::new(changes)).await?;
        inner.switches.drop_where(|switch, enrolled| switch == name && enrolled.tenant == tenant);
        Ok(())
    }
}

impl Inner {
    fn enrolled(&self, tenant: TenantHandle) -> Vec<Switch> {
        let all = self.switches.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .flat_map(|(name, enrolments)| {
                enrolments.iter().filter(|enrolled| enrolled.tenant == tenant).map(|enrolled| enrolled.shown(name))
            })
            .collect()
    }
}

fn event(action: Action, tenant: TenantHandle, name: &str) -> Event {
    let detail = Detail { notes: vec![("switch", name.to_owned())], ..Detail::default() };
    Event { action, about: About::Tenant(tenant), grant: None, outcome: Outcome::Done, detail }
}
