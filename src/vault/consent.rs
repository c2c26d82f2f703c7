//! Withdrawal of consent: what rests on it stops, and is erased.
//!
//! # Whose consent
//! A recording on the basis of consent needs that of everybody who is bound to it. So nothing is recorded, and what runs is
//! stopped, where the subscriber *or any bound party* has withdrawn. What was recorded already goes with the owner's
//! withdrawal, and with that of a bound party where the recording is wrapped (the policy said `any`): a withdrawal ends
//! what the erasure of the same subscriber would end, and no more. Recordings with another basis, or none, stay and are taken.
//!
//! # How
//! 1. The subscriber's state says since when, durably, with the log's entry. It is changed while the gate is held alone, so
//!    every create that looked before is durable, and each later one sees it.
//! 2. Running ingests are cut. Whoever resumes looks after it has entered, so either it is found by the cut or it sees the
//!    state.
//! 3. Each recording is *marked*: its entry says that the consent was withdrawn, and is due (no rotation). A mark is for
//!    good: consent that is given again is for what comes then.
//! 4. What is marked and free is erased in batches, each one command, one rotation, one entry in the log, one receipt whose
//!    opening goes into the tenant's inbox. What is held is parked as an erasure that somebody asked for.
//!
//! # Crash cases
//! - *Before 1*: nothing happened, and nobody was told so.
//! - *Between 1 and 3*: the command of 1 counted the tenant's rules up, so the next start has everything of the tenant
//!   looked at anew ([`super::redue`]), which marks what is not marked ([`Inner::on_its_footing`]). No stream goes on: a
//!   recording that was left open is looked after without a caller, and a caller is refused.
//! - *Between 3 and 4, or within 4*: what is marked is due, so the runner erases it as it erases what has expired, and
//!   parks what is held. So it also ends what a floor or a restriction kept, when these are gone.
//! - *Given again before everything was marked*: giving marks first.
//!
//! Nothing here opens an audio secret: entries say what is on consent. The number of recordings that are looked at is that
//! of the subscriber's, and I6 does not bound it: they are erased one by one, in few rotations.

use super::{
    Actor, Error, Inner, Preview, Scope, Subscriber, Vault,
    audit::{About, Event},
    basis::withdrawn,
    clearance::{Blocked, Tally, Wanted},
    erasure::{Batch, Order},
    sessions::{Cut, Role},
    states::shown,
};
use crate::{
    domain::{
        audit::Action,
        basis::{Basis, Footing},
        id::{ReceiptId, SubscriberHandle, TenantHandle},
    },
    keys::{Keeping, Parts, RecordingEntry, RecordingPath},
};
use std::{collections::HashSet, sync::Arc, time::Duration};

/// How long a withdrawal waits for the runner before it stops what runs.
const PATIENCE: Duration = Duration::from_secs(1);
/// Recordings in one rotation. They lie on the pages of one subscriber, so that a create beside it waits 50 ms at most.
const BATCH: usize = 64;
/// How often a batch is marked again because something in it was erased.
const ATTEMPTS: usize = 16;

/// What a withdrawal did.
pub struct Withdrawal {
    /// The subscriber as it is now.
    pub subscriber: Subscriber,
    /// Running recordings that were stopped.
    pub stopped: u64,
    /// Recordings that were erased.
    pub erased: u64,
    /// One for each batch.
    pub receipts: Vec<ReceiptId>,
    /// What is left, and what keeps it. A subscriber who acts is not told of holds: they may be none of its business.
    pub left: Preview,
}

impl Vault {
    /// Withdraws a subscriber's consent; see the head of this file. Idempotent: the first moment stands, and what is left
    /// is done.
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn withdraw_consent(&self, actor: &Actor, tenant: &str, name: &str) -> Result<Withdrawal, Error> {
        let inner = &self.0;
        inner.running()?;
        let (handle, subscriber) = inner.find_subscriber_in(&actor.scope, tenant, name)?;
        // The runner would take the work away in the midst, and the answer would say less than was done. Where it has much
        // to do, stopping does not wait for it.
        let early = tokio::time::timeout(PATIENCE, inner.expiry.pause()).await.ok();
        {
            let _alone = inner.gate.write().await;
            let now = inner.clock.now();
            let entry = inner.audit(actor, consent(Action::ConsentWithdraw, handle, subscriber)).await?;
            inner
                .change_subscriber_state(handle, subscriber, |state| {
                    if state.consent_withdrawn_ms != 0 {
                        return Ok(Vec::new());
                    }
                    state.consent_withdrawn_ms = now.0;
                    Ok(entry.into_iter().chain([inner.rules_changed(handle)?]).collect())
                })
                .await?;
        }
        let stopped = inner.stop_without_consent(handle, subscriber).await?;
        let _runner = match early {
            Some(paused) => paused,
            None => inner.expiry.pause().await,
        };
        let places = inner.mark_withdrawn(handle, subscriber).await?;
        let (mut erased, mut receipts) = (0, Vec::new());
        for batch in places.chunks(BATCH) {
            if let Some((count, receipt)) = inner.erase_withdrawn(actor, handle, subscriber, batch).await? {
                erased += count;
                receipts.push(receipt);
            }
        }
        let mut left = inner.left_of(handle, places).await?;
        if matches!(actor.scope, Scope::Own { .. }) {
            left.holds.clear();
        }
        inner.due_wake.notify_one();
        let state = inner.subscriber_state(handle, subscriber)?.unwrap_or_default();
        Ok(Withdrawal { subscriber: shown(tenant, name, &state), stopped, erased, receipts, left })
    }

    /// Consent was given again: recordings on that basis are taken from now on. Idempotent.
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn give_consent(&self, actor: &Actor, tenant: &str, name: &str) -> Result<Subscriber, Error> {
        let inner = &self.0;
        inner.running()?;
        let (handle, subscriber) = inner.find_subscriber_in(&actor.scope, tenant, name)?;
        let _runner = inner.expiry.pause().await;
        let _alone = inner.gate.write().await;
        // What the withdrawal was about stays withdrawn, also where a stop came before it was marked.
        let before = inner.subscriber_state(handle, subscriber)?.unwrap_or_default();
        if before.consent_withdrawn_ms != 0 {
            inner.mark_withdrawn(handle, subscriber).await?;
            let entry = inner.audit(actor, consent(Action::ConsentGive, handle, subscriber)).await?;
            inner
                .change_subscriber_state(handle, subscriber, |state| {
                    state.consent_withdrawn_ms = 0;
                    Ok(entry)
                })
                .await?;
        }
        Ok(shown(tenant, name, &inner.subscriber_state(handle, subscriber)?.unwrap_or_default()))
    }
}

fn consent(action: Action, tenant: TenantHandle, subscriber: SubscriberHandle) -> Event {
    Event::new(action, About::Subscriber(tenant, subscriber))
}

/// Whether a recording rests on consent, or did until it was withdrawn.
fn on_consent(keeping: &Keeping) -> bool {
    Footing::from_number(keeping.basis).is_some_and(|footing| footing.basis() == Basis::Consent)
}

impl Inner {
    fn has_withdrawn(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Result<bool, Error> {
        Ok(self.subscriber_state(tenant, subscriber)?.is_some_and(|state| state.consent_withdrawn_ms != 0))
    }

    /// Refuses where one of these names has withdrawn consent. A name that nobody has withdrew nothing.
    pub(super) fn consent_of_names<'a>(
        &self,
        tenant: TenantHandle,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        for name in names {
            if let Some(subscriber) = self.keys.find_subscriber(tenant, name)
                && self.has_withdrawn(tenant, subscriber)?
            {
                return Err(withdrawn());
            }
        }
        Ok(())
    }

    /// Refuses to go on with a recording whose consent was withdrawn.
    pub(super) fn consent_stands(&self, at: RecordingPath) -> Result<(), Error> {
        let Some(entry) = self.keys.entry(at)? else { return Ok(()) };
        match Footing::from_number(entry.keeping.basis) {
            Some(Footing::Withdrawn) => return Err(withdrawn()),
            Some(Footing::Stands(Basis::Consent)) => {}
            _ => return Ok(()),
        }
        for subscriber in std::iter::once(&at.subscriber).chain(&entry.parties) {
            if self.has_withdrawn(at.tenant, *subscriber)? {
                return Err(withdrawn());
            }
        }
        Ok(())
    }

    /// What an entry says about its keeping, with the mark of a consent that was withdrawn where it lacks it.
    pub(super) fn on_its_footing(&self, at: RecordingPath, entry: &RecordingEntry) -> Result<Keeping, Error> {
        if entry.keeping.basis == Footing::Stands(Basis::Consent).number() {
            for subscriber in std::iter::once(&at.subscriber).chain(entry.parties.iter().filter(|_| entry.wrapped)) {
                if self.has_withdrawn(at.tenant, *subscriber)? {
                    return Ok(Keeping { basis: Footing::Withdrawn.number(), ..entry.keeping });
                }
            }
        }
        Ok(entry.keeping)
    }

    /// Cuts the running ingests that rest on the consent of a subscriber; says how many there were.
    async fn stop_without_consent(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Result<u64, Error> {
        let mut running = HashSet::new();
        for at in self.sessions.fed(tenant) {
            if let Some(entry) = self.keys.entry(at)?
                && on_consent(&entry.keeping)
                && (at.subscriber == subscriber || entry.parties.contains(&subscriber))
            {
                running.insert(at);
            }
        }
        if !self.sessions.cut(Cut::Withdrawn, |at, role| role == Role::Ingest && running.contains(at)).await {
            return Err(Error::Internal("a recording did not stop when it was cut".to_owned()));
        }
        Ok(running.len() as u64)
    }

    /// Marks what a withdrawal is about, and gives where it lies.
    async fn mark_withdrawn(
        self: &Arc<Self>,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
    ) -> Result<Vec<RecordingPath>, Error> {
        let inner = self.clone();
        let find = move || -> Result<Vec<RecordingPath>, Error> {
            let mut places = Vec::new();
            inner.visit_entries(tenant, subscriber, true, &mut |at, entry| {
                if on_consent(&entry.keeping) {
                    places.push(at);
                }
                Ok(())
            })?;
            Ok(places)
        };
        let places = super::blocking(find).await??;
        for batch in places.chunks(BATCH) {
            self.mark(batch).await?;
        }
        // Where consent was given again before this came to mark, what rests on that is not marked, and stays.
        let mut withdrawn = Vec::with_capacity(places.len());
        for at in places {
            let entry = self.keys.entry(at)?;
            if entry.is_some_and(|entry| Footing::from_number(entry.keeping.basis) == Some(Footing::Withdrawn)) {
                withdrawn.push(at);
            }
        }
        Ok(withdrawn)
    }

    async fn mark(&self, batch: &[RecordingPath]) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.correct(batch).await {
                Err(Error::Erased) => {}
                done => return done,
            }
        }
        Err(Error::Internal("a batch of entries changed at each look".to_owned()))
    }

    /// Erases what is free of a batch, and parks what is held; gives how many were erased, and the receipt.
    async fn erase_withdrawn(
        self: &Arc<Self>,
        actor: &Actor,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        batch: &[RecordingPath],
    ) -> Result<Option<(u64, ReceiptId)>, Error> {
        let wanted = batch.iter().map(|at| Wanted::Recording(*at, Parts::BOTH)).collect();
        let cleared = self.clear(wanted).await?;
        let order = Order::new(actor.clone(), None);
        for (wanted, stands) in cleared.blocked {
            if let Blocked::Hold(hold) = stands {
                self.park(&cleared.standing, &hold, wanted, &order, Vec::new()).await?;
            }
        }
        // The second cut of the erasure waits for sessions, and those may wait for the lock.
        drop(cleared.standing);
        let Some(clearance) = cleared.clearance else { return Ok(None) };
        let count = clearance.erases().len() as u64;
        let erasure = self.erase_batch(actor, clearance, Batch::Withdrawn(tenant, subscriber)).await?;
        Ok(Some((count, erasure.receipt)))
    }

    /// What is left of these places, and what keeps it.
    async fn left_of(self: &Arc<Self>, tenant: TenantHandle, places: Vec<RecordingPath>) -> Result<Preview, Error> {
        let inner = self.clone();
        let count = move || -> Result<Preview, Error> {
            let (mut look, mut tally) = (inner.look(tenant)?, Tally::default());
            for at in places {
                look.count(at, &mut tally)?;
            }
            Ok(tally.into())
        };
        super::blocking(count).await?
    }
}
