//! Forgetting: ask, cut, prove, destroy, cut again, answer.
//!
//! First it is asked whether anything stands in the way, so that nobody is cut off for an erasure that is refused. Then
//! sessions of the scope are cut, so that nobody is heard or recorded while the key goes. Then it is asked again, under
//! the lock that gives the proof ([`super::clearance`]). The key tree's commit is the erasure; it returns after the slot has
//! destroyed the root of before. Sessions that entered between the two are cut after it: whoever read a secret had
//! entered before the commit. Then no copy of the secret is left in this process, and the answer goes out. Ciphertext is
//! the sweeper's.
//!
//! The lock is free again before the second cut: a session that is leaving may itself be waiting for it.

use super::{
    Actor, Erasure, Error, Inner, Part, Target, Vault,
    clearance::{Blocked, Clearance, Standing, Wanted},
    sessions::{Cut, Role},
};
use crate::keys::{Change, Mutation, Parts, RecordingPath};
use std::{collections::HashSet, sync::Arc};

/// Who wants an erasure, and what opens the commitment of its receipt.
#[derive(Clone)]
pub(crate) struct Order {
    /// Who.
    pub actor: Actor,
    /// Drawn by whoever asked; none: the gateway draws it.
    pub opening: Option<[u8; 32]>,
}

/// What came of an erasure.
pub(crate) enum Forgot {
    /// Done.
    Done(Erasure),
    /// Something stands in the way. The lock is held, so that it can be parked.
    Blocked(Blocked, Standing),
}

impl Vault {
    /// Erases. Idempotent: what was erased before, and what is not there, is no failure for a recording whose id was issued
    /// here. What a hold keeps is parked, and runs by itself when the last hold is lifted.
    ///
    /// # Errors
    /// `Unknown` for a name or id that leads nowhere; `Parked`, `Floor`, `Restricted`.
    pub async fn erase(&self, actor: &Actor, target: Target, opening: Option<[u8; 32]>) -> Result<Erasure, Error> {
        let inner = &self.0;
        inner.running()?;
        let order = Order { actor: actor.clone(), opening };
        let (wanted, and) = match target {
            Target::Tenant { tenant } => return self.purge_tenant(&order, &tenant).await,
            Target::Recording(id, part) => {
                let parts = Parts {
                    audio: matches!(part, Part::Both | Part::Audio),
                    facts: matches!(part, Part::Both | Part::Facts),
                };
                (Wanted::Recording(inner.locate(&actor.scope, id)?.path, parts), Vec::new())
            }
            Target::Subscriber { tenant, subscriber, block } => {
                let tenant = inner.find_in(&actor.scope, &tenant)?;
                let found =
                    inner.keys.find_subscriber(tenant, &subscriber).ok_or(Error::Unknown { what: "subscriber" })?;
                let block = block.then(|| inner.block_change(tenant, &subscriber)).transpose()?;
                (Wanted::Subscriber(tenant, found), block.into_iter().collect())
            }
        };
        let blocking = and.iter().any(|change| matches!(change, Change::PutValue { .. }));
        match inner.forget(&order, wanted, and).await? {
            Forgot::Done(erasure) => Ok(erasure),
            Forgot::Blocked(Blocked::Hold(hold), standing) => {
                // A name that is to be refused is refused from now on, not from the day when the hold is lifted.
                let and = match wanted {
                    Wanted::Subscriber(tenant, subscriber) if blocking => {
                        let name = inner.keys.subscriber_name(tenant, subscriber).ok_or(Error::Erased)?;
                        vec![inner.block_change(tenant, &name)?]
                    }
                    _ => Vec::new(),
                };
                inner.park(&standing, &hold, wanted, &order, and).await?;
                Err(Blocked::Hold(hold).into_error())
            }
            Forgot::Blocked(stands, _) => Err(stands.into_error()),
        }
    }
}

impl Inner {
    /// Forgets one thing where nothing stands in the way; `and` goes into the same command.
    pub(crate) async fn forget(
        self: &Arc<Self>,
        order: &Order,
        wanted: Wanted,
        and: Vec<Change>,
    ) -> Result<Forgot, Error> {
        let asked = {
            let inner = self.clone();
            tokio::task::spawn_blocking(move || inner.judge(vec![wanted])).await
        };
        let (free, _) = asked.map_err(|failed| Error::Internal(failed.to_string()))??;
        let reach = Reach::of(self, wanted)?;
        if !free.is_empty() && !self.sessions.cut(Cut::Erased, |at, _| reach.covers(at)).await {
            tracing::warn!("a session lingers; erasing all the same");
        }
        let cleared = self.clear(vec![wanted]).await?;
        match (cleared.clearance, cleared.standing) {
            (Some(clearance), _) => Ok(Forgot::Done(self.destroy(order, clearance, reach, and).await?)),
            (None, Some(standing)) => match cleared.blocked.into_iter().next() {
                Some((_, stands)) => Ok(Forgot::Blocked(stands, standing)),
                None => Err(Error::Internal("an erasure is neither free nor blocked".to_owned())),
            },
            (None, None) => Err(Error::Internal("a clearance without its lock".to_owned())),
        }
    }

    /// Destroys recordings whose time has come, in one command.
    pub(crate) async fn erase_batch(self: &Arc<Self>, _actor: &Actor, clearance: Clearance) -> Result<Erasure, Error> {
        let reach: Vec<Reach> =
            clearance.erases().iter().map(|wanted| Reach::of(self, *wanted)).collect::<Result<_, _>>()?;
        let paths: HashSet<RecordingPath> = reach.iter().flat_map(Reach::paths).collect();
        if !self.sessions.cut(Cut::Erased, |at, _| paths.contains(at)).await {
            tracing::warn!("a session lingers; erasing all the same");
        }
        let committed = self.keys.commit(Mutation::new(clearance.changes())).await?;
        drop(clearance);
        self.sweep_wake.notify_one();
        if !self.sessions.cut(Cut::Erased, |at, _: Role| paths.contains(at)).await {
            return Err(Error::Internal("a session did not end when it was cut".to_owned()));
        }
        Ok(Erasure {
            destroyed: committed.erased,
            generation_from: committed.generation_from,
            generation_to: committed.generation_to,
            slot_forgets: self.keys.forgets().to_string(),
        })
    }

    /// Destroys what a clearance allows, and cuts whoever entered meanwhile.
    async fn destroy(
        self: &Arc<Self>,
        _order: &Order,
        clearance: Clearance,
        reach: Reach,
        and: Vec<Change>,
    ) -> Result<Erasure, Error> {
        let mut changes = clearance.changes();
        changes.extend(and);
        let committed = self.keys.commit(Mutation::new(changes)).await?;
        drop(clearance);
        if let Wanted::Tenant(tenant) = reach.wanted {
            self.api_keys.forget(tenant);
            self.switches.forget(tenant);
        }
        self.sweep_wake.notify_one();
        // The key is destroyed from here on; a session that still lingers holds a copy in memory, so no answer may say so.
        if !self.sessions.cut(Cut::Erased, |at, _: Role| reach.covers(at)).await {
            return Err(Error::Internal("a session did not end when it was cut".to_owned()));
        }
        Ok(Erasure {
            destroyed: committed.erased,
            generation_from: committed.generation_from,
            generation_to: committed.generation_to,
            slot_forgets: self.keys.forgets().to_string(),
        })
    }
}

/// Whose sessions an erasure cuts: what it names, and what falls with it.
struct Reach {
    wanted: Wanted,
    /// Transcripts of a recording; recordings of others that a subscriber is bound to.
    with: HashSet<RecordingPath>,
}

impl Reach {
    fn of(inner: &Inner, wanted: Wanted) -> Result<Self, Error> {
        let with = match wanted {
            Wanted::Recording(at, parts) if parts.audio => {
                let children = inner.keys.entry(at)?.map_or_else(Vec::new, |entry| entry.children);
                children.into_iter().map(|recording| RecordingPath { recording, ..at }).collect()
            }
            Wanted::Subscriber(tenant, subscriber) => inner.keys.bound(tenant, subscriber)?.into_iter().collect(),
            Wanted::Recording(..) | Wanted::Tenant(_) => HashSet::new(),
        };
        Ok(Self { wanted, with })
    }

    fn covers(&self, at: &RecordingPath) -> bool {
        self.wanted.covers(at) || self.with.contains(at)
    }

    /// The recordings that it names or takes along.
    fn paths(&self) -> impl Iterator<Item = RecordingPath> {
        let named = match self.wanted {
            Wanted::Recording(at, _) => Some(at),
            Wanted::Subscriber(..) | Wanted::Tenant(_) => None,
        };
        named.into_iter().chain(self.with.iter().copied())
    }
}
