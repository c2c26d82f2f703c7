//! Forgetting: cut, destroy, cut again, answer.
//!
//! Sessions of the scope are cut first, so that nobody is heard or recorded while the key goes. The key tree's commit is
//! the erasure; it returns after the slot has destroyed the root of before. Sessions that entered between the two are cut
//! after it: whoever read a secret had entered before the commit. Then no copy of the secret is left in this process, and
//! the answer goes out. Ciphertext is the sweeper's.

use super::{
    Erasure, Error, Part, Scope, Target, Vault,
    sessions::{Cut, Role},
};
use crate::{
    domain::id::{SubscriberHandle, TenantHandle},
    keys::{Change, Committed, Mutation, Parts, RecordingPath},
};

/// How far an erasure reaches.
#[derive(Clone, Copy)]
enum Reach {
    Recording(RecordingPath),
    Subscriber(TenantHandle, SubscriberHandle),
    Tenant(TenantHandle),
}

impl Reach {
    fn covers(self, at: &RecordingPath) -> bool {
        match self {
            Reach::Recording(path) => *at == path,
            Reach::Subscriber(tenant, subscriber) => at.tenant == tenant && at.subscriber == subscriber,
            Reach::Tenant(tenant) => at.tenant == tenant,
        }
    }
}

impl Vault {
    /// Erases. Idempotent: what was erased before, and what is not there, is no failure for a recording whose id was issued
    /// here.
    ///
    /// # Errors
    /// `Unknown` for a name or id that leads nowhere.
    pub async fn erase(&self, scope: &Scope, target: Target) -> Result<Erasure, Error> {
        let inner = &self.0;
        inner.running()?;
        let (change, reach) = match target {
            Target::Recording(id, part) => {
                let path = inner.locate(scope, id)?.path;
                let parts = Parts {
                    audio: matches!(part, Part::Both | Part::Audio),
                    facts: matches!(part, Part::Both | Part::Facts),
                };
                (Change::EraseRecording { at: path, parts }, Reach::Recording(path))
            }
            Target::Subscriber { tenant, subscriber } => {
                let tenant = inner.find_in(scope, &tenant)?;
                let subscriber =
                    inner.keys.find_subscriber(tenant, &subscriber).ok_or(Error::Unknown { what: "subscriber" })?;
                (Change::EraseSubscriber(tenant, subscriber), Reach::Subscriber(tenant, subscriber))
            }
            Target::Tenant { tenant } => {
                let tenant = inner.find_in(scope, &tenant)?;
                (Change::EraseTenant(tenant), Reach::Tenant(tenant))
            }
        };
        let outcome = self.destroy(change, reach).await?;
        if let Reach::Tenant(tenant) = reach {
            inner.api_keys.forget(tenant);
            inner.switches.forget(tenant);
        }
        inner.sweep_wake.notify_one();
        Ok(Erasure {
            destroyed: outcome.erased,
            generation_from: outcome.generation_from,
            generation_to: outcome.generation_to,
            slot_forgets: inner.keys.forgets().to_string(),
        })
    }

    async fn destroy(&self, change: Change, reach: Reach) -> Result<Committed, Error> {
        let inner = &self.0;
        let in_scope = |at: &RecordingPath, _: Role| reach.covers(at);
        let stuck = || Error::Internal("a session did not end when it was cut".to_owned());
        if !inner.sessions.cut(Cut::Erased, in_scope).await {
            tracing::warn!("a session lingers; erasing all the same");
        }
        let committed = inner.keys.commit(Mutation::new(vec![change])).await?;
        // The key is destroyed from here on; a session that still lingers holds a copy in memory, so no answer may say so.
        if inner.sessions.cut(Cut::Erased, in_scope).await { Ok(committed) } else { Err(stuck()) }
    }
}
