//! Calls between subscribers: other subscribers of the tenant are bound to a recording.
//!
//! What being bound means is the policy's to say at the moment of the binding. Under `owner` the recording stays the
//! owner's alone; holds, restrictions and a withdrawn consent of the bound parties count all the same. Under `any` its
//! secrets are wrapped besides, so that the erasure of any one of them erases it. A policy that changes later binds
//! nothing that is stored; what is wrapped stays wrapped.
//!
//! Parties are named as subscribers are named at Open, and provisioned where they are new: so nobody learns by binding who is
//! a subscriber already. A name that is blocked is refused, as it is at Open: it would get keys again.
//!
//! Binding later destroys the entry as it was, and loses no secret ([`crate::keys::Change::BindParties`]): nothing can
//! stand in its way, and no receipt is due. Running ingests go on, and so do playbacks, unless a party is restricted. It may
//! be repeated.
//!
//! *An erasure in the midst*: the command is refused when one of the parties is gone by then. Where the recording lives,
//! they are looked up again; where it was erased, that is the answer.

use super::{
    Actor, Error, Inner, Vault,
    audit::{About, Event},
    basis::check_parties,
    tenants::invalid,
};
use crate::{
    domain::{
        audit::Action,
        basis::{Basis, Footing},
        id::{RecordingId, SubscriberHandle, TenantHandle},
        retention::PartyRule,
    },
    keys::{Change, CommitError, MAX_PARTIES, Mutation, RecordingEntry, RecordingPath},
};
use std::collections::BTreeSet;

/// How often parties are looked up again because one was erased.
const ATTEMPTS: usize = 16;

impl Vault {
    /// Binds further subscribers to a recording. Those who are bound stay so.
    ///
    /// # Errors
    /// `Unknown`, `Erased`; `Invalid` for no party or too many; `Refused` for what was made from another recording, for a
    /// blocked name, and where the recording rests on a consent that a party has withdrawn.
    pub async fn bind_parties(&self, actor: &Actor, id: RecordingId, parties: &[String]) -> Result<(), Error> {
        let inner = &self.0;
        inner.running()?;
        let at = inner.locate(&actor.scope, id)?.path;
        if parties.is_empty() {
            return Err(invalid("parties", "name who is to be bound".to_owned()));
        }
        check_parties("parties", parties)?;
        inner.bind(actor, at, parties).await
    }
}

impl Inner {
    /// Handles of who is to be bound, provisioned where they are new. Asked while the gate is held.
    pub(super) async fn bound_parties(
        &self,
        tenant: TenantHandle,
        names: &[String],
    ) -> Result<Vec<SubscriberHandle>, Error> {
        let holder = self.tenant_holder(tenant)?;
        for name in names {
            self.not_blocked(&holder, name)?;
        }
        let mut parties = Vec::with_capacity(names.len());
        for name in names {
            parties.push(self.provision(tenant, name).await?);
        }
        Ok(parties)
    }

    /// Whether a recording that is bound now is wrapped.
    pub(super) fn wraps(&self, tenant: TenantHandle) -> Result<bool, Error> {
        Ok(self.policy(tenant)?.parties() == PartyRule::Any)
    }

    async fn bind(&self, actor: &Actor, at: RecordingPath, names: &[String]) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            // No account closes, no name is blocked and no consent withdrawn until the binding is durable.
            let _gate = self.gate.read().await;
            // Nothing is erased meanwhile either: what a bound party's hold covers from now on was not cleared without it.
            let alone = self.holds.alone().await;
            let entry = self.keys.entry(at)?.filter(RecordingEntry::lives).ok_or(Error::Erased)?;
            if entry.parent.is_some() {
                let why = "it is bound as the recording that it was made from; bind that one";
                return Err(Error::Refused { why: why.to_owned() });
            }
            if Footing::from_number(entry.keeping.basis).is_some_and(|footing| footing.basis() == Basis::Consent) {
                self.consent_of_names(at.tenant, names.iter().map(String::as_str))?;
            }
            let mut parties: BTreeSet<SubscriberHandle> = entry.parties.iter().copied().collect();
            parties.extend(self.bound_parties(at.tenant, names).await?);
            parties.remove(&at.subscriber);
            if parties.len() > MAX_PARTIES {
                return Err(invalid("parties", format!("with those who are bound, at most {MAX_PARTIES}")));
            }
            let wrapped = entry.wrapped || self.wraps(at.tenant)?;
            let parties: Vec<_> = parties.into_iter().collect();
            if (&parties, wrapped && !parties.is_empty()) == (&entry.parties, entry.wrapped) {
                return Ok(());
            }
            let mut changes = vec![Change::BindParties { at, parties, wrapped }];
            // Who was bound is not named: the log's entry would outlive whom it names.
            let about =
                if entry.facts_present { About::Facts(at) } else { About::Subscriber(at.tenant, at.subscriber) };
            changes.extend(self.audit(actor, Event::new(Action::PartiesBind, about)).await?);
            match self.keys.commit(Mutation::new(changes)).await {
                // Somebody who is bound may be restricted, and so what is heard now.
                Ok(_) => {
                    drop(alone);
                    return self.cut_restricted(at.tenant, Some(at.subscriber)).await;
                }
                Err(CommitError::Gone) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Internal("parties were erased at each attempt to bind them".to_owned()))
    }
}
