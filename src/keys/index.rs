//! Names → handles, in memory only: rebuilt at every start from the sealed pages, and wiped as names go.
//!
//! It also holds each subscriber's veil, so that forgetting one wipes what the cache holds of it.
//!
//! The text of a name is shared with the page it came from, so it is wiped when both have let go of it.

use super::{Period, page::Name, veil::Veil};
use crate::domain::id::{PeriodHandle, SubscriberHandle, TenantHandle};
use quick_cache::DefaultHashBuilder;
use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// A change of the index, which takes effect with the batch that it belongs to.
pub enum NameChange {
    /// A tenant came.
    AddTenant(TenantHandle, Arc<Name>),
    /// A subscriber came.
    AddSubscriber(TenantHandle, SubscriberHandle, Arc<Name>, Arc<Veil>),
    /// A period came.
    AddPeriod(TenantHandle, Period),
    /// A tenant went, with everything below.
    DropTenant(TenantHandle),
    /// A subscriber went.
    DropSubscriber(TenantHandle, SubscriberHandle),
    /// A period went.
    DropPeriod(TenantHandle, PeriodHandle),
}

/// What is known of handles. They are drawn here, so nobody makes them meet, as somebody might make names.
type ByHandle<H, T> = HashMap<H, T, DefaultHashBuilder>;

/// The index.
#[derive(Default)]
pub struct Index {
    tenants: ByHandle<TenantHandle, Tenant>,
    by_name: HashMap<Key, TenantHandle>,
}

struct Tenant {
    name: Arc<Name>,
    subscribers: ByHandle<SubscriberHandle, Subscriber>,
    by_name: HashMap<Key, SubscriberHandle>,
    periods: ByHandle<PeriodHandle, Period>,
}

struct Subscriber {
    name: Arc<Name>,
    veil: Arc<Veil>,
}

struct Key(Arc<Name>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

impl Index {
    /// Applies one change.
    pub fn apply(&mut self, change: NameChange) {
        match change {
            NameChange::AddTenant(tenant, name) => {
                self.by_name.insert(Key(name.clone()), tenant);
                self.tenants.insert(
                    tenant,
                    Tenant {
                        name,
                        subscribers: ByHandle::default(),
                        by_name: HashMap::new(),
                        periods: ByHandle::default(),
                    },
                );
            }
            NameChange::AddSubscriber(tenant, subscriber, name, veil) => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    tenant.by_name.insert(Key(name.clone()), subscriber);
                    tenant.subscribers.insert(subscriber, Subscriber { name, veil });
                }
            }
            NameChange::AddPeriod(tenant, period) => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    tenant.periods.insert(period.handle, period);
                }
            }
            NameChange::DropTenant(tenant) => {
                if let Some(tenant) = self.tenants.remove(&tenant) {
                    self.by_name.remove(tenant.name.as_str());
                    tenant.subscribers.values().for_each(|subscriber| subscriber.veil.wipe());
                }
            }
            NameChange::DropSubscriber(tenant, subscriber) => {
                if let Some(tenant) = self.tenants.get_mut(&tenant)
                    && let Some(subscriber) = tenant.subscribers.remove(&subscriber)
                {
                    tenant.by_name.remove(subscriber.name.as_str());
                    subscriber.veil.wipe();
                }
            }
            NameChange::DropPeriod(tenant, period) => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    tenant.periods.remove(&period);
                }
            }
        }
    }

    /// A tenant by name.
    pub fn find_tenant(&self, name: &str) -> Option<TenantHandle> {
        self.by_name.get(name).copied()
    }

    /// A tenant's name.
    pub fn tenant_name(&self, tenant: TenantHandle) -> Option<&str> {
        self.tenants.get(&tenant).map(|tenant| tenant.name.as_str())
    }

    /// Every tenant.
    pub fn tenants(&self) -> impl Iterator<Item = (TenantHandle, &str)> {
        self.tenants.iter().map(|(handle, tenant)| (*handle, tenant.name.as_str()))
    }

    /// A subscriber by name.
    pub fn find_subscriber(&self, tenant: TenantHandle, name: &str) -> Option<SubscriberHandle> {
        self.tenants.get(&tenant)?.by_name.get(name).copied()
    }

    /// A subscriber's name.
    pub fn subscriber_name(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Option<&str> {
        self.tenants.get(&tenant)?.subscribers.get(&subscriber).map(|subscriber| subscriber.name.as_str())
    }

    /// The veil over what the cache holds of a subscriber.
    pub fn veil(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Option<&Arc<Veil>> {
        self.tenants.get(&tenant)?.subscribers.get(&subscriber).map(|subscriber| &subscriber.veil)
    }

    /// Every subscriber of a tenant.
    pub fn subscribers(&self, tenant: TenantHandle) -> impl Iterator<Item = (SubscriberHandle, &str)> {
        let tenant = self.tenants.get(&tenant).into_iter();
        tenant.flat_map(|tenant| tenant.subscribers.iter().map(|(handle, own)| (*handle, own.name.as_str())))
    }

    /// How many subscribers a tenant has.
    pub fn subscriber_count(&self, tenant: TenantHandle) -> usize {
        self.tenants.get(&tenant).map_or(0, |tenant| tenant.subscribers.len())
    }

    /// Every period of a tenant.
    pub fn periods(&self, tenant: TenantHandle) -> impl Iterator<Item = Period> {
        self.tenants.get(&tenant).into_iter().flat_map(|tenant| tenant.periods.values().copied())
    }
}
