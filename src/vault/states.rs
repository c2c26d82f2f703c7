//! What an account and a subscriber are in, and restriction.
//!
//! - A tenant is *open*, *closed* (no new recording is taken; its people read, play and export as before, and the policy's
//!   grace runs), on its way to being *purged*, or gone. A close that makes anything due at once, and a purge, are
//!   [`super::transition`]'s.
//! - A subscriber is *active* or *deactivated*: the policy's rules for that fire, and no new recording is taken.
//! - A recording, subscriber or tenant may be *restricted*: kept, and neither played nor exported nor expired nor erased,
//!   until the restriction is lifted. New recordings are still taken; they are restricted like the rest.
//! - The name of an erased subscriber may be *blocked*, if whoever erases asks for it.
//!
//! What began before a close or a deactivation may be finished: its sender has the promise that what was acknowledged is
//! kept.
//!
//! # No recording begins behind a close
//! A new recording holds the gate shared from the look at the states until its create is durable. A change of state holds
//! it alone. So when a close is answered, everything that it did not see has been refused.
//!
//! # What a block remembers
//! Nobody may confirm from the name of an erased subscriber that it was ever there. A block must recognise the name, so
//! it breaks that, and is therefore asked for by name and never the default. It is a row named by a keyed hash of the name,
//! under the tenant's secret: without that secret it is noise, and the tenant's purge makes it noise for good. But whoever
//! can open the living tenant can test a name, and numbers are few enough to test all of them. The other choice,
//! `continue`, remembers nothing: the next call makes a subscriber with fresh keys.

use super::{
    Actor, Error, Inner, Scope, TenantState, Vault,
    audit::{About, Event},
    sessions::{Cut, Role},
    tenants::{Settings, invalid},
    values,
};
use crate::{
    crypto::{
        envelope::Kind,
        label::{Label, derive},
    },
    domain::{
        audit::Action,
        id::{RecordingId, SubscriberHandle, TenantHandle},
        party,
        time::Timestamp,
    },
    keys::{Change, CommitError, Holder, Keeping, Mutation, Owner, RecordingPath, ValueName},
    proto::stored,
};

/// A subscriber as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscriber {
    /// The tenant's name.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// Since when it is deactivated; none while it is active.
    pub deactivated: Option<Timestamp>,
    /// Kept, and not used.
    pub restricted: bool,
    /// When consent was withdrawn; none where it was not, or was given again.
    pub consent_withdrawn: Option<Timestamp>,
}

/// What to restrict.
pub enum Restrict {
    /// A tenant, by name.
    Tenant(String),
    /// A subscriber.
    Subscriber {
        /// Tenant, by name.
        tenant: String,
        /// Subscriber, by name.
        subscriber: String,
    },
    /// A recording.
    Recording(RecordingId),
}

impl Vault {
    /// A subscriber and what it is in. `ticket`: see [`super::catalogue`]; that a name is not there is told to the provider's
    /// people on the same terms.
    ///
    /// # Errors
    /// `Unknown`; `Invalid` where staff name no ticket.
    pub async fn subscriber(&self, actor: &Actor, tenant: &str, name: &str, ticket: &str) -> Result<Subscriber, Error> {
        let inner = &self.0;
        let handle = inner.find_in(&actor.scope, tenant)?;
        let found = inner.find_subscriber_in(&actor.scope, tenant, name);
        let about = found.as_ref().map_or(About::Tenant(handle), |(tenant, found)| About::Subscriber(*tenant, *found));
        inner.looks(actor, about, ticket).await?;
        let (_, subscriber) = found?;
        let state = inner.subscriber_state(handle, subscriber)?.unwrap_or_default();
        Ok(shown(tenant, name, &state))
    }

    /// Deactivates a subscriber. Idempotent: the first moment stands.
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn deactivate_subscriber(&self, actor: &Actor, tenant: &str, name: &str) -> Result<Subscriber, Error> {
        let inner = &self.0;
        inner.running()?;
        let (handle, subscriber) = inner.find_subscriber_in(&actor.scope, tenant, name)?;
        // Times of the policy count from it.
        let now = inner.witnessed_now().await?;
        let event = Event::new(Action::SubscriberDeactivate, About::Subscriber(handle, subscriber));
        let logged = inner.audit(actor, event).await?;
        let state = {
            let _alone = inner.gate.write().await;
            let changed = inner.change_subscriber_state(handle, subscriber, |state| {
                if state.deactivated_ms != 0 {
                    return Ok(Vec::new());
                }
                state.deactivated_ms = now.0;
                let mut changes = logged;
                changes.push(inner.rules_changed(handle)?);
                Ok(changes)
            });
            changed.await?
        };
        inner.due_wake.notify_one();
        Ok(shown(tenant, name, &state))
    }

    /// Restricts, or lifts a restriction. Playbacks that run are cut. Where it is so already, nothing happens.
    ///
    /// # Errors
    /// `Unknown`, `Erased`.
    pub async fn restrict(&self, actor: &Actor, what: Restrict, restricted: bool) -> Result<(), Error> {
        let inner = &self.0;
        inner.running()?;
        let (tenant, subscriber) = match what {
            Restrict::Tenant(name) => {
                let tenant = inner.find_in(&actor.scope, &name)?;
                if inner.settings(tenant)?.0.restricted == restricted {
                    return Ok(());
                }
                let action = if restricted { Action::TenantRestrict } else { Action::TenantUnrestrict };
                let logged = inner.audit(actor, Event::of_tenant(action, tenant)).await?;
                let _alone = inner.holds.alone().await;
                inner
                    .change_settings(tenant, |settings| {
                        settings.restricted = restricted;
                        Ok(logged)
                    })
                    .await?;
                (tenant, None)
            }
            Restrict::Subscriber { tenant, subscriber } => {
                let (tenant, subscriber) = inner.find_subscriber_in(&actor.scope, &tenant, &subscriber)?;
                let state = inner.subscriber_state(tenant, subscriber)?.unwrap_or_default();
                if state.restricted == restricted {
                    return Ok(());
                }
                let action = if restricted { Action::SubscriberRestrict } else { Action::SubscriberUnrestrict };
                let logged = inner.audit(actor, Event::new(action, About::Subscriber(tenant, subscriber))).await?;
                let _alone = inner.holds.alone().await;
                inner.note_restriction(tenant).await?;
                inner
                    .change_subscriber_state(tenant, subscriber, |state| {
                        state.restricted = restricted;
                        Ok(logged)
                    })
                    .await?;
                (tenant, Some(subscriber))
            }
            Restrict::Recording(id) => {
                let at = inner.locate(&actor.scope, id)?.path;
                if inner.keys.entry(at)?.ok_or(Error::Erased)?.keeping.restricted == restricted {
                    return Ok(());
                }
                let action = if restricted { Action::RecordingRestrict } else { Action::RecordingUnrestrict };
                let logged = inner.audit(actor, Event::new(action, inner.about_recording(at)?)).await?;
                let _alone = inner.holds.alone().await;
                inner.note_restriction(at.tenant).await?;
                let _keeping = inner.keeping.write().await;
                let entry = inner.keys.entry(at)?.ok_or(Error::Erased)?;
                let keeping = Keeping { restricted, ..entry.keeping };
                let mut changes = vec![Change::SetKeeping { at, keeping }];
                changes.extend(logged);
                inner.keys.commit(Mutation::new(changes)).await?;
                (at.tenant, Some(at.subscriber))
            }
        };
        if restricted {
            inner.cut_restricted(tenant, subscriber).await?;
        }
        inner.redue(tenant).await?;
        if !restricted {
            inner.run_lifted_of(tenant).await?;
            inner.go_on_with(tenant).await?;
        }
        Ok(())
    }

    /// Lets recordings of an erased subscriber's name come again.
    ///
    /// # Errors
    /// `Unknown` tenant, or a name that is not blocked.
    pub async fn unblock(&self, actor: &Actor, tenant: &str, name: &str) -> Result<(), Error> {
        let inner = &self.0;
        inner.running()?;
        let tenant = inner.find_in(&actor.scope, tenant)?;
        let row = block_name(&inner.tenant_holder(tenant)?, name);
        inner.keys.value(&row)?.ok_or(Error::Unknown { what: "blocked name" })?;
        let mut changes = vec![Change::DropValue { name: row }];
        changes.extend(inner.audit(actor, Event::of_tenant(Action::SubscriberUnblock, tenant)).await?);
        inner.keys.commit(Mutation::new(changes)).await?;
        Ok(())
    }
}

impl Inner {
    /// Whether a new recording is taken for a subscriber of this name. Asked while the gate is held.
    pub(crate) fn admits(
        &self,
        tenant: TenantHandle,
        settings: &Settings,
        holder: &Holder,
        subscriber: &str,
    ) -> Result<(), Error> {
        let refused = |why: &str| Err(Error::Refused { why: why.to_owned() });
        match settings.state {
            TenantState::Open => {}
            TenantState::Closed { .. } => return refused("the tenant's account is closed; it takes no new recording"),
            TenantState::Purging { .. } => return refused("the tenant is being purged; it takes no new recording"),
        }
        self.not_blocked(holder, subscriber)?;
        let Some(found) = self.keys.find_subscriber(tenant, subscriber) else { return Ok(()) };
        match self.subscriber_state(tenant, found)? {
            Some(state) if state.deactivated_ms != 0 => {
                refused("the subscriber is deactivated; no new recording of it is taken")
            }
            _ => Ok(()),
        }
    }

    /// Refuses a name whose future calls are blocked.
    pub(super) fn not_blocked(&self, holder: &Holder, subscriber: &str) -> Result<(), Error> {
        if self.keys.value(&block_name(holder, subscriber))?.is_some() {
            let why =
                "a subscriber of this name was erased and its future calls are blocked; `subscriber unblock` ends that";
            return Err(Error::Refused { why: why.to_owned() });
        }
        Ok(())
    }

    /// A subscriber of a tenant within reach.
    pub(crate) fn find_subscriber_in(
        &self,
        scope: &Scope,
        tenant: &str,
        name: &str,
    ) -> Result<(TenantHandle, SubscriberHandle), Error> {
        let handle = self.find_in(scope, tenant)?;
        let unknown = Error::Unknown { what: "subscriber" };
        if !scope.reaches(tenant, name) {
            return Err(unknown);
        }
        self.keys.find_subscriber(handle, name).map(|subscriber| (handle, subscriber)).ok_or(unknown)
    }

    /// What a subscriber is in; none where nothing was ever changed, or it is gone.
    pub(crate) fn subscriber_state(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
    ) -> Result<Option<stored::SubscriberState>, Error> {
        let Some(holder) = self.keys.subscriber(tenant, subscriber)? else { return Ok(None) };
        values::read(&self.keys, holder.row, &holder.secret)
    }

    /// Changes what a subscriber is in: the only way to. What `change` returns goes into the same command.
    pub(crate) async fn change_subscriber_state(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        change: impl FnOnce(&mut stored::SubscriberState) -> Result<Vec<Change>, Error>,
    ) -> Result<stored::SubscriberState, Error> {
        let unknown = Error::Unknown { what: "subscriber" };
        let _alone = self.settings_lock.lock().await;
        let Some(holder) = self.keys.subscriber(tenant, subscriber)? else { return Err(unknown) };
        let mut state: stored::SubscriberState =
            values::read(&self.keys, holder.row, &holder.secret)?.unwrap_or_default();
        let mut changes = change(&mut state)?;
        let name = values::name(holder.row, Kind::SubscriberState);
        let envelope = values::seal(&state, &holder.secret, &name);
        changes.push(Change::PutValue { owner: Owner::Subscriber(tenant, subscriber), name, envelope });
        match self.keys.commit(Mutation::new(changes)).await {
            Ok(_) => Ok(state),
            Err(CommitError::Gone) => Err(unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes erasures of this tenant look at entries from now on.
    async fn note_restriction(&self, tenant: TenantHandle) -> Result<(), Error> {
        if !self.settings(tenant)?.0.ever_restricted {
            self.change_settings(tenant, |settings| {
                settings.ever_restricted = true;
                Ok(Vec::new())
            })
            .await?;
        }
        Ok(())
    }

    /// Cuts every playback of a tenant, or of a subscriber and what it is bound to, that may not go on.
    pub(super) async fn cut_restricted(
        &self,
        tenant: TenantHandle,
        subscriber: Option<SubscriberHandle>,
    ) -> Result<(), Error> {
        let cut = |at: &RecordingPath, role: Role| {
            let near =
                at.tenant == tenant && (subscriber.is_none() || matches!(self.usable(*at), Err(Error::Restricted)));
            role == Role::Playback && near
        };
        if self.sessions.cut(Cut::Restricted, cut).await {
            Ok(())
        } else {
            Err(Error::Internal("a playback did not end when it was cut".to_owned()))
        }
    }

    /// The change that blocks a name in a tenant.
    pub(crate) fn block_change(&self, tenant: TenantHandle, name: &str) -> Result<Change, Error> {
        let holder = self.tenant_holder(tenant)?;
        let row = block_name(&holder, name);
        let envelope = values::seal(&stored::Block { since_ms: self.clock.now().0 }, &holder.secret, &row);
        Ok(Change::PutValue { owner: Owner::Tenant(tenant), name: row, envelope })
    }
}

/// A subscriber as it is shown.
pub(crate) fn shown(tenant: &str, name: &str, state: &stored::SubscriberState) -> Subscriber {
    Subscriber {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        deactivated: (state.deactivated_ms != 0).then_some(Timestamp(state.deactivated_ms)),
        restricted: state.restricted,
        consent_withdrawn: (state.consent_withdrawn_ms != 0).then_some(Timestamp(state.consent_withdrawn_ms)),
    }
}

fn block_name(tenant: &Holder, name: &str) -> ValueName {
    let plain = zeroize::Zeroizing::new(party::plain(name));
    let suffix = derive::<16>(tenant.secret.expose(), Label::BlockRow, &[plain.as_bytes()]);
    values::name_with(tenant.row, Kind::Block, suffix.as_slice())
}

/// The name of a tenant, repeated by whoever wants to close or purge it.
pub(crate) fn check_confirm(name: &str, confirm: &str) -> Result<(), Error> {
    if name == confirm { Ok(()) } else { Err(invalid("confirm", "repeat the tenant's name".to_owned())) }
}
