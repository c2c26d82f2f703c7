//! What is left of an account, or of a subscriber, that has ended: it goes by itself.
//!
//! When the last recording of a closed account has gone, names, counters by the day, keys and the webhook are left. They are
//! personal data like the recordings, and the policy's promises about the close hold for them too. So the daily work forgets
//! the tenant, as a purge does: with a clearance, a receipt, an entry in the group's log that names the gateway, and its
//! counters in the cell of anonymous sums ([`super::anonymous`]). Nobody approves it and nothing cools off: a policy that
//! makes this due at the close has the close guarded like a purge ([`super::transition`]). A deactivated subscriber below
//! which nothing is left goes likewise, where the policy has a rule about deactivation.
//!
//! # When
//! - *Not while anything recorded is left*, of which a floor or a rule of its own may keep some, and not while a hold stands in the
//!   tenant or something is restricted.
//! - *Half a margin before the longest promise* that counts from the close or the deactivation: `60d after close` is kept. What
//!   is recorded went a whole margin before. The time between is the customer's, to fetch the openings of these last receipts from
//!   an inbox that goes with the account.
//! - *Where no rule counts from the close*, there is no promise to keep, and a close must not be a purge: 30 days after it
//!   at the earliest, and not while there is something in the inbox.
//! - At a moment that a second clock has witnessed ([`super::witness`]).
//!
//! # What is not told to anybody
//! The opening of the tenant's receipt, unless a purge was asked for that waits: then the receipt is the one which that was
//! promised. There is no inbox left to put it into. Whoever wants a receipt that they can show asks for a purge in time.
//! Nor is a subscriber's: in the tenant's inbox it would outlive the subscriber, and whoever has it can try every number
//! against the receipt. Whoever wants that one asks for the erasure.
//!
//! With the name of a subscriber goes that it was deactivated: later calls of this name make another subscriber, as after any
//! erasure that blocks nothing.

use super::{
    Actor, Error, Inner, TenantState,
    clearance::Wanted,
    erasure::{Forgot, Order},
    transition,
};
use crate::domain::{
    id::{SubscriberHandle, TenantHandle},
    retention::SubscriberState,
    time::Timestamp,
};
use std::sync::{Arc, Mutex, PoisonError};

/// How often all subscribers are looked at: each look reads the state of every one.
const INTERVAL_MS: i64 = 60 * 60 * 1000;
/// How long an account of which no rule speaks is left after its close.
const UNPROMISED_MS: i64 = 30 * 86_400_000;

/// When subscribers were last looked at.
#[derive(Default)]
pub(crate) struct Ended(Mutex<Option<Timestamp>>);

impl Ended {
    /// Whether it is time to; then it counts as done.
    fn takes_a_look(&self, now: Timestamp) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back counts anew.
        let due = last.is_none_or(|last| now < last || now.0 - last.0 >= INTERVAL_MS);
        if due {
            *last = Some(now);
        }
        due
    }
}

impl Inner {
    /// The daily work: forgets what has ended. A tenant in which something fails holds up no other.
    pub(crate) async fn forget_the_ended(self: &Arc<Self>) {
        let look = self.ended.takes_a_look(self.clock.now());
        for (tenant, _) in self.public_tenants() {
            let done = match self.forget_account(tenant).await {
                Ok(()) if look => self.forget_deactivated(tenant).await,
                done => done,
            };
            match done {
                // Erased meanwhile.
                Ok(()) | Err(Error::Unknown { .. } | Error::Erased) => {}
                Err(error) => tracing::error!(%error, "what is left of what has ended cannot be forgotten"),
            }
        }
    }

    async fn forget_account(self: &Arc<Self>, tenant: TenantHandle) -> Result<(), Error> {
        if !matches!(self.settings(tenant)?.0.state, TenantState::Closed { .. }) {
            return Ok(());
        }
        let _one = self.transitions.lock().await;
        if !self.account_is_due(tenant, self.clock.now())? || self.anything_in(tenant).await? {
            return Ok(());
        }
        // The witness is asked only where there is something to destroy; what it says is logged and shown.
        let Ok(now) = self.witnessed().await else { return Ok(()) };
        if !self.account_is_due(tenant, now)? {
            return Ok(());
        }
        let promise = self.transition(tenant)?.as_ref().and_then(transition::promise);
        let opening = promise.map(|promise| promise.opening);
        let order = Order { receipt: promise.map(|promise| promise.id), ..Order::new(Actor::gateway(), opening) };
        self.forget_tenant(&order, tenant).await.map(drop)
    }

    /// Whether the time has come of a closed account that nothing keeps as a whole.
    fn account_is_due(&self, tenant: TenantHandle, now: Timestamp) -> Result<bool, Error> {
        let rules = self.rules(tenant)?;
        let TenantState::Closed { at } = rules.settings.state else { return Ok(false) };
        // A hold that was lifted stays in the index while something waits that it kept.
        if rules.settings.restricted || !self.holds.of(tenant).is_empty() {
            return Ok(false);
        }
        match rules.policy.account_goes(at) {
            Some(goes) => Ok(goes <= now),
            None => Ok(at.plus_ms(UNPROMISED_MS) <= now && self.inbox_is_empty(tenant)?),
        }
    }

    /// Whether anything recorded is left in a tenant.
    async fn anything_in(self: &Arc<Self>, tenant: TenantHandle) -> Result<bool, Error> {
        let inner = self.clone();
        let look = move || {
            for (subscriber, _) in inner.keys.subscribers(tenant) {
                if inner.anything_below(tenant, subscriber)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        super::blocking(look).await?
    }

    /// Whether anything recorded is left of a subscriber, or of others that would die with it.
    fn anything_below(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Result<bool, Error> {
        let own = self.keys.entries(tenant, subscriber, None, 1)?;
        Ok(!own.is_empty() || !self.keys.bound(tenant, subscriber)?.is_empty())
    }

    async fn forget_deactivated(self: &Arc<Self>, tenant: TenantHandle) -> Result<(), Error> {
        let now = self.clock.now();
        let inner = self.clone();
        let look = move || inner.deactivated_and_due(tenant, now);
        for subscriber in super::blocking(look).await?? {
            let Ok(now) = self.witnessed().await else { return Ok(()) };
            // No new recording is bound to it between the look and the erasure.
            let _alone = self.gate.write().await;
            if !self.subscriber_is_due(tenant, subscriber, now)? {
                continue;
            }
            let order = Order::new(Actor::gateway(), None);
            match self.forget(&order, Wanted::Subscriber(tenant, subscriber), Vec::new()).await {
                // What came in its way since the look keeps it.
                Ok(Forgot::Done(_) | Forgot::Blocked(..)) | Err(Error::Erased) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn deactivated_and_due(&self, tenant: TenantHandle, now: Timestamp) -> Result<Vec<SubscriberHandle>, Error> {
        let mut due = Vec::new();
        if self.policy(tenant)?.subscriber_goes(now).is_none() {
            return Ok(due);
        }
        for (subscriber, _) in self.keys.subscribers(tenant) {
            if self.subscriber_is_due(tenant, subscriber, now)? {
                due.push(subscriber);
            }
        }
        Ok(due)
    }

    /// Whether the time has come of a deactivated subscriber that nothing keeps.
    fn subscriber_is_due(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let SubscriberState::Deactivated { at } = self.life(tenant, subscriber)? else { return Ok(false) };
        let due = self.policy(tenant)?.subscriber_goes(at).is_some_and(|goes| goes <= now);
        if !due || self.anything_below(tenant, subscriber)? {
            return Ok(false);
        }
        let (free, _) = self.judge(vec![Wanted::Subscriber(tenant, subscriber)])?;
        Ok(!free.is_empty())
    }
}
