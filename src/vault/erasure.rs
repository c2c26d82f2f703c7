//! Forgetting: cut, destroy, cut again, answer.
//!
//! Sessions of the scope are cut first, so that nobody is heard or recorded while the key goes. The key tree's commit is
//! the erasure; it returns after the slot has destroyed the root of before. Sessions that entered between the two are cut
//! after it: whoever read a secret had entered before the commit. Then no copy of the secret is left in this process, and
//! the answer goes out. Ciphertext is the sweeper's.

use super::{
    Error, Erasure, Part, Scope, Target, Vault,
    sessions::{Cut, Role},
};
use crate::keys::{Change, Committed, Mutation, Parts, RecordingPath};

impl Vault {
    /// Erases. Idempotent: what was erased before, and what is not there, is no failure for a recording whose id was issued
    /// here.
    ///
    /// # Errors
    /// `Unknown` for a name or id that leads nowhere.
    pub async fn erase(&self, scope: &Scope, target: Target) -> Result<Erasure, Error> {
        let inner = &self.0;
        inner.running()?;
        let (change, matching): (Change, Box<dyn Fn(&RecordingPath) -> bool + Send + Sync>) = match target {
            Target::Recording(id, part) => {
                let path = inner.locate(scope, id)?.path;
                let parts = Parts {
                    audio: matches!(part, Part::Both | Part::Audio),
                    facts: matches!(part, Part::Both | Part::Facts),
                };
                (Change::EraseRecording { at: path, parts }, Box::new(move |at| *at == path))
            }
            Target::Subscriber { tenant, subscriber } => {
                let tenant = inner.find_in(scope, &tenant)?;
                let subscriber =
                    inner.keys.find_subscriber(tenant, &subscriber).ok_or(Error::Unknown { what: "subscriber" })?;
                let matching = move |at: &RecordingPath| at.tenant == tenant && at.subscriber == subscriber;
                (Change::EraseSubscriber(tenant, subscriber), Box::new(matching))
            }
            Target::Tenant { tenant } => {
                let tenant = inner.find_in(scope, &tenant)?;
                (Change::EraseTenant(tenant), Box::new(move |at| at.tenant == tenant))
            }
        };
        let outcome = self.destroy(change, &*matching).await?;
        inner.sweep_wake.notify_one();
        Ok(Erasure {
            destroyed: outcome.erased,
            generation_from: outcome.generation_from,
            generation_to: outcome.generation_to,
            slot_forgets: inner.keys.forgets().to_string(),
        })
    }

    async fn destroy(
        &self,
        change: Change,
        matching: &(dyn Fn(&RecordingPath) -> bool + Send + Sync),
    ) -> Result<Committed, Error> {
        let inner = &self.0;
        let in_scope = |at: &RecordingPath, _: Role| matching(at);
        let stuck = || Error::Internal("a session did not end when it was cut".to_owned());
        if !inner.sessions.cut(Cut::Erased, in_scope).await {
            tracing::warn!("a session lingers; erasing all the same");
        }
        let committed = inner.keys.commit(Mutation { changes: vec![change] }).await?;
        // The key is destroyed from here on; a session that still lingers holds a copy in memory, so no answer may say so.
        if inner.sessions.cut(Cut::Erased, in_scope).await { Ok(committed) } else { Err(stuck()) }
    }
}
