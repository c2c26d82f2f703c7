//! Correction of facts: what a switch stated wrongly is stated anew, and forgotten as it was.
//!
//! The old facts lie under a secret that is erased; the new ones come under a fresh one in the same command. So no copy from
//! before opens any more, and there is no moment without facts. It is an erasure like any other: it takes a clearance
//! ([`super::clearance`]), it shares its rotation with others, and it is logged. A hold cannot park it, because what is to
//! come in the place of the old facts would have to wait with it: it is refused until the hold is lifted. No receipt is
//! given: the recording has facts.
//!
//! What was not stated (kind, times, length, state) stays as it is. Jurisdiction and basis are no facts: rules went by
//! them since the call began, and they cannot be corrected.
//!
//! Entries of the log about the old facts keep their evidence, and their subject part is blank from then on.
//!
//! # A recording that takes audio
//! Its track holds the secret of its facts, and writes them again at its end. So the correction enters in a role that excludes
//! whoever feeds: it is refused while somebody does, and a sender that comes back waits until it is done. It leaves only
//! when no copy of a secret is left.

use super::{
    Actor, Error, Inner, Vault,
    audit::{About, Event},
    clearance::{Blocked, Wanted},
    opening::check_facts,
    values,
};
use crate::{
    crypto::{envelope::Kind, secret::Secret},
    domain::{audit::Action, id::RecordingId},
    keys::{Change, Mutation, Owner, Parts, RecordingPath},
    proto::stored,
};
use std::{collections::BTreeMap, sync::Arc};

/// What takes the place of what was stated. What is none stays.
#[derive(Clone, Default)]
pub struct Correction {
    /// All parties.
    pub parties: Option<Vec<String>>,
    /// The switch's own call id.
    pub call_id: Option<String>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Why it was recorded.
    pub purpose: Option<String>,
}

impl Correction {
    fn apply(self, facts: &mut stored::Facts) {
        if let Some(parties) = self.parties {
            facts.parties = parties;
        }
        if let Some(call_id) = self.call_id {
            facts.call_id = call_id;
        }
        if let Some(labels) = self.labels {
            facts.labels = labels.into_iter().collect();
        }
        if let Some(purpose) = self.purpose {
            facts.purpose = purpose;
        }
    }
}

impl Vault {
    /// Corrects the facts of a recording.
    ///
    /// # Errors
    /// `Unknown`; `Erased` where the facts are gone; `Invalid` names the field; `Floor`, `Restricted`; `Refused` while it
    /// takes audio and while a hold keeps the facts as they are.
    pub async fn correct_facts(&self, actor: &Actor, id: RecordingId, to: Correction) -> Result<(), Error> {
        let inner = &self.0;
        inner.running()?;
        let at = inner.locate(&actor.scope, id)?.path;
        inner.renew_facts(actor, at, to).await
    }
}

impl Inner {
    async fn renew_facts(self: &Arc<Self>, actor: &Actor, at: RecordingPath, to: Correction) -> Result<(), Error> {
        let Some(_alone) = self.sessions.enter_correction(at).await else {
            let why = "the recording takes audio or is being corrected now; try again when that has ended";
            return Err(Error::Refused { why: why.to_owned() });
        };
        // What the track before wrote last may wait for the writer.
        self.keys.commit(Mutation::new(Vec::new())).await?;
        let leaf = self.keys.facts_leaf(at)?.ok_or(Error::Erased)?;
        let old = leaf.facts.ok_or(Error::Erased)?;
        let mut facts = values::read::<stored::Facts>(&self.keys, leaf.row, &old)?.ok_or(Error::Erased)?;
        drop(old);
        to.apply(&mut facts);
        check_facts(&facts.parties, &facts.call_id, facts.labels.iter(), &facts.purpose)?;

        let cleared = self.clear(vec![Wanted::Recording(at, Parts::FACTS)]).await?;
        drop(cleared.standing);
        let Some(clearance) = cleared.clearance else {
            return Err(match cleared.blocked.into_iter().next() {
                Some((_, Blocked::Hold(hold))) => {
                    let why = format!("hold {} keeps the facts as they are; correct them when it is lifted", hold.id);
                    Error::Refused { why }
                }
                Some((_, stands)) => stands.into_error(),
                None => Error::Internal("a correction is neither free nor blocked".to_owned()),
            });
        };
        let new = Secret::random();
        let mut changes = clearance.renewals(&new);
        let name = values::name(leaf.row, Kind::Facts);
        let envelope = values::seal(&facts, &new, &name);
        changes.push(Change::PutValue { owner: Owner::Facts(at), name, envelope });
        // An erasure is about what lies above it and lives on.
        let event = Event::new(Action::FactsCorrect, About::Subscriber(at.tenant, at.subscriber));
        changes.extend(self.audit(actor, event).await?);
        self.keys.commit(Mutation::new(changes)).await?;
        drop(clearance);
        self.sweep_wake.notify_one();
        Ok(())
    }
}
