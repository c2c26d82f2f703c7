//! What is known about recordings: one, or a page of many. Reads `facts` secrets and never an `audio` secret.
//!
//! The provider's people may see facts without the customer's permission, but not unseen: staff say for which ticket of the
//! support system they look, and each look is in the log before anything is shown. The provider's are staff, whatever
//! their scope, and everybody who reaches every tenant. There is no other way to facts than the two functions here; what a
//! recording's explanation ([`super::explain`]) and a subscriber's state ([`super::states`]) tell is logged alike.

use super::{
    Actor, ActorRole, Error, Facts, Inner, Kind, Recording, Scope, State, StatedFacts, Vault,
    audit::{About, Detail, Event},
    permission, recording_id,
    tenants::invalid,
    values,
};
use crate::{
    crypto::secret::Secret,
    domain::{
        audit::{Action, Outcome},
        basis::Footing,
        id::{RecordingId, SubscriberHandle, TenantHandle},
        permission::MAX_TICKET,
        retention::Jurisdiction,
        time::Timestamp,
    },
    keys::FactsLeaf,
    proto::stored,
};

impl Vault {
    /// One recording. `ticket`: see the head of this file.
    ///
    /// # Errors
    /// `Unknown`, `Erased`; `Invalid` where staff name no ticket.
    pub async fn recording(&self, actor: &Actor, id: RecordingId, ticket: &str) -> Result<Recording, Error> {
        let inner = &self.0;
        let located = inner.locate(&actor.scope, id)?;
        inner.looks(actor, About::Facts(located.path), ticket).await?;
        let leaf = inner.keys.facts_leaf(located.path)?.ok_or(Error::Erased)?;
        let subscriber =
            inner.keys.subscriber_name(located.path.tenant, located.path.subscriber).ok_or(Error::Erased)?;
        inner.describe(id, &located.tenant, subscriber, &leaf)
    }

    /// A page of a tenant's recordings, or of one subscriber's, and the token of the next page (empty on the last). Opens up
    /// to thousands of facts, so it works where blocking is allowed.
    ///
    /// # Errors
    /// `Unknown`, `Invalid` token; `Invalid` where staff name no ticket.
    pub async fn recordings(&self, actor: &Actor, page: Page) -> Result<(Vec<Recording>, String), Error> {
        let handle = self.0.find_in(&actor.scope, &page.tenant)?;
        let found = page.subscriber.as_deref().and_then(|name| {
            self.0.keys.find_subscriber(handle, name).filter(|_| actor.scope.reaches(&page.tenant, name))
        });
        // Also where there is none of this name: that is told too.
        let about = found.map_or(About::Tenant(handle), |found| About::Subscriber(handle, found));
        self.0.looks(actor, about, &page.ticket).await?;
        let subscriber = match page.subscriber {
            None => None,
            Some(_) => Some(found.ok_or(Error::Unknown { what: "subscriber" })?),
        };
        let inner = self.0.clone();
        let reading = tokio::task::spawn_blocking(move || inner.page(handle, subscriber, &page));
        reading.await.map_err(|failed| Error::Internal(failed.to_string()))?
    }
}

/// Which recordings are asked for.
pub struct Page {
    /// Tenant, by name.
    pub tenant: String,
    /// Only this subscriber's.
    pub subscriber: Option<String>,
    /// At most so many.
    pub size: usize,
    /// Of the page before; empty for the first.
    pub token: String,
    /// See [`Vault::recording`].
    pub ticket: String,
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
    /// Wants a ticket from staff, and writes that somebody of the provider looks.
    pub(crate) async fn looks(&self, actor: &Actor, about: About, ticket: &str) -> Result<(), Error> {
        let staff = actor.role == ActorRole::Staff;
        if staff || !ticket.is_empty() {
            permission::check_text("ticket", ticket, MAX_TICKET)?;
        }
        if !(staff || matches!(actor.scope, Scope::All)) {
            return Ok(());
        }
        let detail = Detail { notes: vec![("ticket", ticket.to_owned())], ..Detail::default() };
        let event = Event { action: Action::FactsShow, about, grant: None, outcome: Outcome::Done, detail };
        self.log_first(actor, event).await
    }

    fn page(
        &self,
        tenant: TenantHandle,
        subscriber: Option<SubscriberHandle>,
        page: &Page,
    ) -> Result<(Vec<Recording>, String), Error> {
        let secret = self.tenant_holder(tenant)?.secret;
        let mut subscribers = self.keys.subscribers(tenant);
        subscribers.retain(|(found, _)| subscriber.is_none_or(|wanted| wanted == *found));
        subscribers.sort_unstable_by_key(|(subscriber, _)| *subscriber);
        let after = read_token(&secret, &page.token)?;
        let mut recordings: Vec<Recording> = Vec::new();
        for (subscriber, name) in subscribers {
            let after = match after {
                Some((reached, _)) if subscriber < reached => continue,
                Some((reached, id)) if subscriber == reached => Some(id.handle),
                _ => None,
            };
            let wanted = page.size - recordings.len();
            let leaves = self.keys.facts_leaves(tenant, subscriber, after, wanted)?;
            recordings.extend(self.describe_all(&page.tenant, &secret, subscriber, &name, leaves)?);
            if recordings.len() >= page.size {
                break;
            }
        }
        let next = match recordings.last() {
            Some(last) if recordings.len() >= page.size => last.id.to_string(),
            _ => String::new(),
        };
        Ok((recordings, next))
    }

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
        Ok(Recording {
            id,
            tenant: tenant.to_owned(),
            subscriber,
            facts,
            audio_present: leaf.audio_present,
            jurisdiction: Jurisdiction::from_bytes(leaf.keeping.jurisdiction),
            footing: Footing::from_number(leaf.keeping.basis),
        })
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
        paused_seconds: facts.paused_ms as f64 / 1000.0,
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
        },
    })
}
