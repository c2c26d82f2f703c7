//! Tests of the whole key store. [`medium`] is a disk that forgets what was not synced and remembers everything that was ever
//! written; [`attacker`] computes what follows from it; [`model`] is the plain truth to compare with.

mod attacker;
mod backup;
mod basics;
mod bound;
mod history;
mod log;
mod medium;
mod model;
mod musts;
mod protocol;
mod rocks;
mod shares;
mod status;
mod storage;

use super::*;
use crate::crypto::random;
use medium::Disk;
use plan::Limits;
use std::sync::Arc;
use writer::OnFailure;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

/// Pages so small that everything splits, folds and merges.
const TINY: Limits = Limits { leaf: 4, branch: 4, bytes: 4096, appends: 3 };

fn settings(limits: Limits) -> Settings {
    Settings { limits, on_failure: OnFailure::Stop, ..Settings::default() }
}

fn open_with(disk: &Arc<Disk>, limits: Limits) -> Result<KeyStore, OpenError> {
    disk.revive();
    let slots = Slots::one(Box::new(medium::MemorySlot(disk.clone())));
    KeyStore::open_on(Arc::new(medium::Memory(disk.clone())), slots, None, settings(limits))
}

fn open(disk: &Arc<Disk>) -> KeyStore {
    open_with(disk, TINY).expect("opens")
}

fn commit(keys: &KeyStore, changes: Vec<Change>) -> Result<Committed, CommitError> {
    block_on(keys.commit(Mutation::new(changes)))
}

fn add_tenant(keys: &KeyStore, name: &str) -> TenantHandle {
    let tenant = TenantHandle(random());
    let change = Change::AddTenant { tenant, row: RowId(random()), secret: Secret::random(), name: name.to_owned() };
    commit(keys, vec![change]).expect("a tenant");
    tenant
}

fn add_subscriber(keys: &KeyStore, tenant: TenantHandle, name: &str) -> SubscriberHandle {
    let subscriber = SubscriberHandle(random());
    let (row, secret, name) = (RowId(random()), Secret::random(), name.to_owned());
    commit(keys, vec![Change::AddSubscriber { tenant, subscriber, row, secret, name }]).expect("a subscriber");
    subscriber
}

fn new_recording(tenant: TenantHandle, subscriber: SubscriberHandle, objects: usize) -> (RecordingPath, Change) {
    let at = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
    let change = Change::AddRecording {
        at,
        row: RowId(random()),
        kind: 1,
        audio: Secret::random(),
        facts: Secret::random(),
        objects: (0..objects).map(|_| ObjectId(random())).collect(),
        keeping: Keeping::default(),
        parent: None,
        parties: Vec::new(),
        wrapped: false,
    };
    (at, change)
}

fn add_recording(keys: &KeyStore, tenant: TenantHandle, subscriber: SubscriberHandle) -> RecordingPath {
    let (at, change) = new_recording(tenant, subscriber, 1);
    commit(keys, vec![change]).expect("a recording");
    at
}

/// Sweeps until nothing is doomed; gives the objects that were handed out.
fn sweep_all(keys: &KeyStore, max_objects: usize) -> Vec<ObjectId> {
    let mut objects = Vec::new();
    while let Some(step) = keys.next_doomed(max_objects).expect("draws up a step") {
        objects.extend(step.objects.iter().copied());
        block_on(keys.swept(step)).expect("ends a step");
    }
    objects
}
