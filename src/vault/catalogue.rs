//! What is known about recordings: one, or a page of many. Reads `facts` secrets and never an `audio` secret.

use super::{
    Error, Facts, Inner, Kind, Recording, Scope, State, StatedFacts, Vault, recording_id, tenants::invalid, values,
};
use crate::{
    crypto::secret::Secret,
    domain::{
        id::{RecordingId, SubscriberHandle, TenantHandle},
        time::Timestamp,
    },
    keys::FactsLeaf,
    proto::stored,
};

impl Vault {
    /// One recording.
    ///
    /// # Errors
    /// `Unknown`, `Erased`.
    pub fn recording(&self, scope: &Scope, id: RecordingId) -> Result<Recording, Error> {
        let inner = &self.0;
        let located = inner.locate(scope, id)?;
        let leaf = inner.keys.facts_leaf(located.path)?.ok_or(Error::Erased)?;
        let subscriber =
            inner.keys.subscriber_name(located.path.tenant, located.path.subscriber).ok_or(Error::Erased)?;
        inner.describe(id, &located.tenant, subscriber, &leaf)
    }

    /// A page of a tenant's recordings, or of one subscriber's, and the token of the next page (empty on the last).
    ///
    /// # Errors
    /// `Unknown`, `Invalid` token.
    pub fn recordings(
        &self,
        tenant: &str,
        subscriber: Option<&str>,
        page_size: usize,
        page_token: &str,
    ) -> Result<(Vec<Recording>, String), Error> {
        let inner = &self.0;
        let handle = inner.find_tenant(tenant)?;
        let secret = inner.tenant_holder(handle)?.secret;
        let mut subscribers = match subscriber {
            None => inner.keys.subscribers(handle),
            Some(name) => {
                let found = inner.keys.find_subscriber(handle, name).ok_or(Error::Unknown { what: "subscriber" })?;
                vec![(found, name.to_owned())]
            }
        };
        subscribers.sort_unstable_by_key(|(subscriber, _)| *subscriber);
        let after = read_token(&secret, page_token)?;
        let mut recordings: Vec<Recording> = Vec::new();
        for (subscriber, name) in subscribers {
            let after = match after {
                Some((reached, _)) if subscriber < reached => continue,
                Some((reached, id)) if subscriber == reached => Some(id.handle),
                _ => None,
            };
            let wanted = page_size - recordings.len();
            let leaves = inner.keys.facts_leaves(handle, subscriber, after, wanted)?;
            recordings.extend(inner.describe_all(tenant, &secret, subscriber, &name, leaves)?);
            if recordings.len() >= page_size {
                break;
            }
        }
        let next = match recordings.last() {
            Some(last) if recordings.len() >= page_size => last.id.to_string(),
            _ => String::new(),
        };
        Ok((recordings, next))
    }
}

/// A page token is the id of the last recording of the page before.
fn read_token(tenant: &Secret, token: &str) -> Result<Option<(SubscriberHandle, RecordingId)>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    token
        .parse::<RecordingId>()
        .ok()
        .and_then(|id| Some((recording_id::resolve(tenant, id)?, id)))
        .map(Some)
        .ok_or_else(|| invalid("page_token", "send the token of the page before, or none".to_owned()))
}

impl Inner {
    fn describe_all(
        &self,
        tenant: &str,
        secret: &Secret,
        subscriber: SubscriberHandle,
        name: &str,
        leaves: Vec<FactsLeaf>,
    ) -> Result<Vec<Recording>, Error> {
        leaves
            .iter()
            .map(|leaf| {
                let id = recording_id::issue(secret, subscriber, leaf.recording);
                self.describe(id, tenant, name.to_owned(), leaf)
            })
            .collect()
    }

    fn describe(
        &self,
        id: RecordingId,
        tenant: &str,
        subscriber: String,
        leaf: &FactsLeaf,
    ) -> Result<Recording, Error> {
        let facts = match &leaf.facts {
            // Absent when the facts were erased between the two reads.
            Some(secret) => values::read::<stored::Facts>(&self.keys, leaf.row, secret)?.map(shown).transpose()?,
            None => None,
        };
        Ok(Recording { id, tenant: tenant.to_owned(), subscriber, facts, audio_present: leaf.audio_present })
    }

    /// The tenant's handle where the caller may reach it.
    pub(crate) fn find_in(&self, scope: &Scope, tenant: &str) -> Result<TenantHandle, Error> {
        if scope.contains(tenant) { self.find_tenant(tenant) } else { Err(Error::Unknown { what: "tenant" }) }
    }
}

fn shown(facts: stored::Facts) -> Result<Facts, Error> {
    Ok(Facts {
        kind: Kind::from_number(facts.kind).ok_or_else(|| Error::Corrupt("a facts row".to_owned()))?,
        start: Timestamp(facts.start_ms),
        end: (facts.end_ms != 0).then_some(Timestamp(facts.end_ms)),
        length: facts.length,
        duration_seconds: facts.duration_seconds,
        state: match facts.state {
            2 => State::Partial,
            3 => State::Complete,
            _ => State::Open,
        },
        mismatch: facts.mismatch,
        stated: StatedFacts {
            parties: facts.parties,
            call_id: facts.call_id,
            labels: facts.labels.into_iter().collect(),
            purpose: facts.purpose,
            basis: facts.basis,
        },
    })
}
