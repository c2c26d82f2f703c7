//! Finds a permission by its id. In memory only, since no row may lead from an id to a recording: see the parent.
//!
//! Rebuilt at a start by a walk over the tree, beside the serving. Until it has ended nothing is listed or decided (the
//! callers wait for a moment, then are told to try again). The gate needs none of this: it looks at the rows themselves.

use super::{At, Error, Inner, Pace, wakes};
use crate::{
    crypto::envelope::Kind,
    domain::{
        id::{PermissionId, TenantHandle},
        permission::State,
        time::Timestamp,
    },
    keys::{Holder, RecordingPath, ValueName},
    proto::stored,
    vault::values,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How long a caller waits for the walk at a start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Recordings looked at in one step of the walk.
const STEP: usize = 1000;

/// Where a permission lies.
#[derive(Clone)]
pub(super) struct Place {
    pub at: At,
    pub name: ValueName,
    /// When time does something to it.
    pub wakes: i64,
    /// Whether it waits for the customer.
    pub waits: bool,
}

/// Every permission there is.
pub(crate) struct Registry {
    places: Mutex<HashMap<PermissionId, Place>>,
    /// Of those that somebody listened under.
    paces: Mutex<HashMap<PermissionId, Arc<Pace>>>,
    loaded: watch::Sender<bool>,
    changing: tokio::sync::Mutex<()>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            places: Mutex::default(),
            paces: Mutex::default(),
            loaded: watch::Sender::new(false),
            changing: tokio::sync::Mutex::default(),
        }
    }
}

impl Registry {
    fn places(&self) -> MutexGuard<'_, HashMap<PermissionId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the walk at the start has ended.
    pub(super) async fn loaded(&self) -> Result<(), Error> {
        let mut loaded = self.loaded.subscribe();
        match tokio::time::timeout(PATIENCE, loaded.wait_for(|loaded| *loaded)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Busy),
        }
    }

    pub(super) fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Held from reading a permission to writing it.
    pub(super) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    pub(super) fn place(&self, id: PermissionId) -> Option<Place> {
        self.places().get(&id).cloned()
    }

    pub(super) fn put(&self, id: PermissionId, place: Place) {
        self.places().insert(id, place);
    }

    pub(super) fn forget(&self, id: PermissionId) {
        self.places().remove(&id);
        self.paces.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Drops those that hang on what is gone.
    pub(crate) fn drop_of(&self, gone: impl Fn(At) -> bool) {
        let mut dropped = Vec::new();
        self.places().retain(|id, place| {
            let keep = !gone(place.at);
            if !keep {
                dropped.push(*id);
            }
            keep
        });
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.iter().for_each(|id| drop(paces.remove(id)));
    }

    /// The pace that all playbacks of a permission share.
    pub(crate) fn pace(&self, id: PermissionId) -> Arc<Pace> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }

    pub(super) fn of(&self, tenant: TenantHandle) -> Vec<PermissionId> {
        self.places().iter().filter(|(_, place)| place.at.tenant() == tenant).map(|(id, _)| *id).collect()
    }

    pub(super) fn waiting(&self, tenant: TenantHandle) -> usize {
        self.places().values().filter(|place| place.waits && place.at.tenant() == tenant).count()
    }

    pub(super) fn due(&self, now: Timestamp) -> Vec<PermissionId> {
        self.places().iter().filter(|(_, place)| place.wakes <= now.0).map(|(id, _)| *id).collect()
    }
}

/// Walks over the tree once.
pub(crate) async fn load(inner: Arc<Inner>) {
    let walking = inner.clone();
    let walked = tokio::task::spawn_blocking(move || walk(&walking)).await;
    match walked {
        Ok(Ok(())) => {
            inner.permissions.loaded.send_replace(true);
        }
        Ok(Err(error)) => tracing::error!(%error, "permissions cannot be read; none can be decided"),
        Err(_) => tracing::error!("permissions could not be read; none can be decided"),
    }
}

fn walk(inner: &Inner) -> Result<(), Error> {
    for (tenant, _) in inner.keys.tenants() {
        remember(inner, At::Tenant(tenant), None)?;
        for (subscriber, _) in inner.keys.subscribers(tenant) {
            remember(inner, At::Subscriber(tenant, subscriber), None)?;
            let mut after = None;
            loop {
                if inner.stopping.is_cancelled() {
                    return Ok(());
                }
                let entries = inner.keys.entries(tenant, subscriber, after, STEP)?;
                for (recording, entry) in &entries {
                    let path = RecordingPath { tenant, subscriber, recording: *recording };
                    remember(inner, At::Recording(path), Some(entry.row))?;
                }
                match entries.last() {
                    Some((last, _)) if entries.len() == STEP => after = Some(*last),
                    _ => break,
                }
            }
        }
    }
    Ok(())
}

/// Remembers the permissions that hang on one thing. The secret is read only where there are any.
fn remember(inner: &Inner, at: At, row: Option<crate::domain::id::RowId>) -> Result<(), Error> {
    if let Some(row) = row
        && inner.keys.values(row, Kind::Permission)?.is_empty()
    {
        return Ok(());
    }
    let Some(Holder { row, secret }) = inner.holder(at)? else { return Ok(()) };
    for (suffix, kept) in values::read_all::<stored::Permission>(&inner.keys, row, Kind::Permission, &secret)? {
        let Some(id) = PermissionId::from_slice(&kept.id) else { continue };
        let name = values::name_with(row, Kind::Permission, &suffix);
        let place = Place { at, name, wakes: wakes(&kept)?, waits: kept.state == State::Asked as u32 };
        // What was written since the walk began is newer than what it read.
        inner.permissions.places().entry(id).or_insert(place);
    }
    Ok(())
}
