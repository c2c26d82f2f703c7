//! store
use super::*;
use std::{path::Path, sync::Arc};

/// The key store. Clones share one store; it closes when the last is dropped.
#[derive(Clone)]
pub struct KeyStore(Arc<()>);

#[expect(unused_variables, clippy::unimplemented, reason = "signatures first")]
impl KeyStore {
    /// Opens.
    pub fn open(dir: &Path, slot: Box<dyn Slot>) -> Result<KeyStore, OpenError> { unimplemented!() }
    /// Doc.
    pub fn tenants(&self) -> Vec<(TenantHandle, String)> { unimplemented!() }
    /// Doc.
    pub fn find_tenant(&self, name: &str) -> Option<TenantHandle> { unimplemented!() }
    /// Doc.
    pub fn tenant_name(&self, tenant: TenantHandle) -> Option<String> { unimplemented!() }
    /// Doc.
    pub fn subscribers(&self, tenant: TenantHandle) -> Vec<(SubscriberHandle, String)> { unimplemented!() }
    /// Doc.
    pub fn subscriber_count(&self, tenant: TenantHandle) -> usize { unimplemented!() }
    /// Doc.
    pub fn find_subscriber(&self, tenant: TenantHandle, name: &str) -> Option<SubscriberHandle> { unimplemented!() }
    /// Doc.
    pub fn subscriber_name(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Option<String> { unimplemented!() }
    /// Doc.
    pub fn periods(&self, tenant: TenantHandle) -> Vec<Period> { unimplemented!() }
    /// Doc.
    pub fn tenant(&self, tenant: TenantHandle) -> Result<Option<Holder>, ReadError> { unimplemented!() }
    /// Doc.
    pub fn subscriber(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Result<Option<Holder>, ReadError> { unimplemented!() }
    /// Doc.
    pub fn period(&self, tenant: TenantHandle, period: PeriodHandle) -> Result<Option<Holder>, ReadError> { unimplemented!() }
    /// Doc.
    pub fn audio_leaf(&self, at: RecordingPath) -> Result<Option<AudioLeaf>, ReadError> { unimplemented!() }
    /// Doc.
    pub fn facts_leaf(&self, at: RecordingPath) -> Result<Option<FactsLeaf>, ReadError> { unimplemented!() }
    /// Doc.
    pub fn facts_leaves(&self, tenant: TenantHandle, subscriber: SubscriberHandle, after: Option<RecordingHandle>, limit: usize) -> Result<Vec<FactsLeaf>, ReadError> { unimplemented!() }
    /// Doc.
    pub fn value(&self, name: &ValueName) -> Result<Option<Vec<u8>>, ReadError> { unimplemented!() }
    /// Doc.
    pub fn values(&self, row: RowId, kind: envelope::Kind) -> Result<Vec<(Vec<u8>, Vec<u8>)>, ReadError> { unimplemented!() }
    /// Doc.
    pub async fn commit(&self, mutation: Mutation) -> Result<Committed, CommitError> { unimplemented!() }
    /// Doc.
    pub fn generation(&self) -> u64 { unimplemented!() }
    /// Doc.
    pub fn forgets(&self) -> Forgets { unimplemented!() }
    /// Doc.
    pub fn doomed_count(&self) -> u64 { unimplemented!() }
    /// Doc.
    pub fn next_doomed(&self, max_objects: usize) -> Result<Option<DoomedBatch>, ReadError> { unimplemented!() }
    /// Doc.
    pub async fn swept(&self, batch: DoomedBatch) -> Result<(), CommitError> { unimplemented!() }
    /// Doc.
    pub fn copies(&self, limit: usize) -> Result<Vec<(ObjectId, String)>, ReadError> { unimplemented!() }
    /// Doc.
    pub fn copies_count(&self) -> u64 { unimplemented!() }
}
