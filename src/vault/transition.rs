//! A purge, a close that makes anything due at once, and a policy that does, or that asks less of a purge: asked for, approved,
//! cooled off, done.
//!
//! The tenant's policy says who must agree. *Confirm*: whoever asks repeats the tenant's name. *Second person*: somebody
//! else, who administers tenants too, approves. Two are two people only where nobody stands on both sides: the one who
//! acts and the one for whom, of the asking and of the approval, are all compared, so that a delegation makes no second
//! person out of one. An API key asks for nothing of this: whoever made it would be its second person.
//!
//! Then the policy's cooling-off time runs, in which it can be withdrawn. All of it is one row under the tenant's secret
//! with the moment at which it runs; the daily work looks at the rows. So a restart changes nothing, and what was asked
//! for under one policy is not hurried by the next. The time counts from and runs to moments that a second clock has
//! witnessed ([`super::witness`]): a clock that jumps ahead takes nothing of it away.
//!
//! # Its receipt
//! The row holds the id that a purge's receipt will have, and what will open it, from the moment it is asked for: both are told
//! in that answer, since nobody can be told once the tenant is gone, its inbox with it. What the gateway drew is told
//! again to whoever asks again, or approves. The receipt itself lies under no tenant: by its id it is fetched for good.
//! Withdrawn, the id comes to nothing.
//!
//! # A purge that meets something
//! - *A hold on the tenant, or the tenant is restricted*: nothing goes; it waits, and can still be withdrawn.
//! - *Anything else that stands below* (a floor, a hold on a part, a restriction): from here on the tenant is being
//!   purged and takes no recording. What may go goes now, subscriber by subscriber, and, where one has something that
//!   stays, recording by recording. What stays is shown with its date and ground, and the daily work looks again.
//! - *Nothing*: the tenant's key goes, in one erasure, however much lies below. Its counters go into the year's cell of
//!   anonymous sums in the same command ([`super::anonymous`]).

use super::{
    Actor, ActorRole, Erasure, Error, Inner, Scope, Tenant, TenantState, Transition, TransitionAction, Vault,
    audit::Event,
    clearance::{Blocked, Wanted},
    erasure::{Forgot, Order},
    holds::Held,
    parked::all_of,
    permission::person,
    receipt::Promise,
    retention::Rules,
    states::check_confirm,
    tenants::Settings,
    values,
};
use crate::{
    crypto::envelope::Kind,
    domain::{
        audit::{Action, Outcome},
        id::{ReceiptId, SubscriberHandle, TenantHandle},
        retention::{Approval, PurgeRule},
        time::Timestamp,
    },
    keys::{Change, Mutation, Owner, Parts},
    proto::stored,
};
use std::sync::Arc;

/// How often a purge that a floor keeps looks again. A hold that is lifted has it look at once.
const LOOK_AGAIN_MS: i64 = 60 * 60 * 1000;
/// Erasures of one purge that are under way together: they share rotations.
const TOGETHER: usize = 32;

const CLOSE: u32 = 1;
const PURGE: u32 = 2;
const POLICY: u32 = 3;

/// What came of an approval.
#[derive(Debug)]
pub enum Settled {
    /// It cools off.
    Waits(Transition),
    /// The account is closed, or has its new policy.
    Stays(Tenant),
    /// The tenant is gone. True: the gateway drew what opens its receipt.
    Purged(Erasure, bool),
}

impl Vault {
    /// Closes a tenant's account. Where the policy makes anything due at once, the name must be repeated, and what the
    /// policy says of a purge holds. Idempotent.
    ///
    /// # Errors
    /// `Unknown`; `Invalid` where the name must be repeated; `Parked` while it waits for approval or cools off.
    pub async fn close_tenant(&self, actor: &Actor, name: &str, confirm: &str) -> Result<Tenant, Error> {
        let inner = &self.0;
        inner.running()?;
        let tenant = inner.find_in(&actor.scope, name)?;
        let one = inner.transitions.lock().await;
        let (settings, _) = inner.settings(tenant)?;
        if settings.state != TenantState::Open {
            return self.tenant(name);
        }
        let policy = inner.policy(tenant)?;
        let closed = Settings { state: TenantState::Closed { at: inner.clock.now() }, ..settings };
        let rules = Rules { policy: policy.clone(), settings: closed };
        // By its rules for whatever may be stored, or by what is stored now.
        if !policy.due_at_close() && !inner.makes_due(tenant, rules).await? {
            inner.close_now(actor, tenant, Vec::new()).await?;
            return self.tenant(name);
        }
        check_confirm(name, confirm)?;
        inner.ask(&Order::new(actor.clone(), None), tenant, CLOSE, policy.purge(), None).await?;
        match inner.go_on(tenant).await {
            Ok(_) => {
                drop(one);
                self.tenant(name)
            }
            Err(waits) => Err(waits),
        }
    }

    /// Purges a tenant, or says what it waits for.
    pub(crate) async fn purge_tenant(&self, order: &Order, name: &str) -> Result<Erasure, Error> {
        let inner = &self.0;
        let tenant = inner.find_in(&order.actor.scope, name)?;
        let _one = inner.transitions.lock().await;
        let rule = inner.policy(tenant)?.purge();
        let row = inner.ask(order, tenant, PURGE, rule, None).await?;
        match inner.go_on(tenant).await {
            Ok(Done::Purged(erasure)) => Ok(erasure),
            Ok(Done::Closed | Done::PolicySet) => Err(Error::Internal("a purge that did something else".to_owned())),
            Err(Error::Parked { by, until, .. }) => {
                Err(Error::Parked { by, until, receipt: promise(&row).map(|promise| promise.told(order.opening)) })
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a tenant a policy that erases by another name, or says what that waits for.
    pub(crate) async fn guarded_policy(
        &self,
        actor: &Actor,
        name: &str,
        confirm: &str,
        policy: stored::TenantPolicy,
    ) -> Result<(), Error> {
        let inner = &self.0;
        let tenant = inner.find_in(&actor.scope, name)?;
        check_confirm(name, confirm)?;
        let _one = inner.transitions.lock().await;
        let rule = inner.policy(tenant)?.purge();
        inner.ask(&Order::new(actor.clone(), None), tenant, POLICY, rule, Some(policy)).await?;
        inner.go_on(tenant).await.map(drop)
    }

    /// Approves what somebody else asked for.
    ///
    /// # Errors
    /// `Unknown` where nothing waits; `NotPermitted` for whoever asked for it.
    pub async fn approve(&self, actor: &Actor, name: &str) -> Result<Settled, Error> {
        let inner = &self.0;
        inner.running()?;
        let tenant = inner.find_in(&actor.scope, name)?;
        let _one = inner.transitions.lock().await;
        let mut row = inner.transition(tenant)?.ok_or(Error::Unknown { what: "close or purge that waits" })?;
        if !matches!(actor.role, ActorRole::Admin | ActorRole::Developer) {
            return Err(Error::NotPermitted { missing: "the approval of somebody who administers tenants".to_owned() });
        }
        if row.approved_ms == 0 {
            if same_person(&row, actor) {
                let missing = "a second person: whoever asked for it cannot approve it";
                return Err(Error::NotPermitted { missing: missing.to_owned() });
            }
            let now = inner.cooling_from(row.cooling_off_ms).await?;
            row.approved_by.clone_from(&actor.name);
            row.approved_ms = now.0;
            row.runs_ms = now.plus_ms(row.cooling_off_ms).0;
            let logged = inner.audit(actor, Event::of_tenant(Action::TransitionApprove, tenant)).await?;
            inner.put_transition(tenant, &row, logged).await?;
        }
        let drawn = row.opening_drawn;
        match inner.go_on(tenant).await {
            Ok(Done::Purged(erasure)) => Ok(Settled::Purged(erasure, drawn)),
            Ok(Done::Closed | Done::PolicySet) => Ok(Settled::Stays(self.tenant(name)?)),
            Err(Error::Parked { .. }) => {
                let row = inner.transition(tenant)?.ok_or(Error::Unknown { what: "tenant" })?;
                Ok(Settled::Waits(shown(&row)))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes back what waits.
    ///
    /// # Errors
    /// `Unknown` where nothing waits; `Refused` once a purge has begun.
    pub async fn withdraw(&self, actor: &Actor, name: &str) -> Result<Tenant, Error> {
        let inner = &self.0;
        inner.running()?;
        let tenant = inner.find_in(&actor.scope, name)?;
        let one = inner.transitions.lock().await;
        inner.transition(tenant)?.ok_or(Error::Unknown { what: "close or purge that waits" })?;
        let (settings, holder) = inner.settings(tenant)?;
        if matches!(settings.state, TenantState::Purging { .. }) {
            let why = "the purge has begun; what it has erased cannot come back";
            return Err(Error::Refused { why: why.to_owned() });
        }
        let mut changes = vec![Change::DropValue { name: values::name(holder.row, Kind::Transition) }];
        changes.extend(inner.audit(actor, Event::of_tenant(Action::TransitionWithdraw, tenant)).await?);
        inner.keys.commit(Mutation::new(changes)).await?;
        drop(one);
        self.tenant(name)
    }
}

/// A transition that has run.
pub(crate) enum Done {
    Closed,
    PolicySet,
    Purged(Erasure),
}

/// Whether anybody stands on both sides.
fn same_person(row: &stored::Transition, actor: &Actor) -> bool {
    let asked = [person(&row.asked_by), person(&row.asked_for)];
    std::iter::once(&actor.name).chain(&actor.on_behalf_of).any(|name| asked.contains(&person(name)))
}

/// A transition as it is shown.
pub(crate) fn shown(row: &stored::Transition) -> Transition {
    Transition {
        action: match row.action {
            CLOSE => TransitionAction::Close,
            POLICY => TransitionAction::SetPolicy,
            _ => TransitionAction::Purge,
        },
        asked_by: row.asked_by.clone(),
        asked: Timestamp(row.asked_ms),
        approved_by: (row.approved_ms != 0).then(|| row.approved_by.clone()),
        runs: (row.approved_ms != 0).then_some(Timestamp(row.runs_ms)),
        receipt: promise(row).map(|promise| promise.id),
    }
}

/// The receipt that a row promises; only a purge has one.
pub(crate) fn promise(row: &stored::Transition) -> Option<Promise> {
    Promise::read(&row.receipt, &row.opening, row.opening_drawn)
}

impl Inner {
    /// What waits in a tenant.
    pub(crate) fn transition(&self, tenant: TenantHandle) -> Result<Option<stored::Transition>, Error> {
        let holder = self.tenant_holder(tenant)?;
        values::read(&self.keys, holder.row, &holder.secret)
    }

    async fn put_transition(
        &self,
        tenant: TenantHandle,
        row: &stored::Transition,
        mut and: Vec<Change>,
    ) -> Result<(), Error> {
        let holder = self.tenant_holder(tenant)?;
        let name = values::name(holder.row, Kind::Transition);
        let envelope = values::seal(row, &holder.secret, &name);
        and.push(Change::PutValue { owner: Owner::Tenant(tenant), name, envelope });
        self.keys.commit(Mutation::new(and)).await?;
        Ok(())
    }

    /// Writes down what is asked for, unless it was before; gives what is written.
    async fn ask(
        &self,
        order: &Order,
        tenant: TenantHandle,
        action: u32,
        rule: PurgeRule,
        policy: Option<stored::TenantPolicy>,
    ) -> Result<stored::Transition, Error> {
        if order.actor.role == ActorRole::ApiKey {
            let missing = "a person: no key has a tenant closed or purged, for whoever made the key could approve it";
            return Err(Error::NotPermitted { missing: missing.to_owned() });
        }
        match self.transition(tenant)? {
            Some(row) if row.action == action && row.policy == policy => return Ok(row),
            Some(_) => {
                let why = "a close, purge or policy of this tenant waits already; approve or withdraw that first";
                return Err(Error::Refused { why: why.to_owned() });
            }
            None => {}
        }
        let cools = |now: Timestamp| rule.cooling_off.after(now).0.saturating_sub(now.0);
        let now = self.cooling_from(cools(self.clock.now())).await?;
        let cooling_off_ms = cools(now);
        let mut row = stored::Transition {
            action,
            asked_by: order.actor.name.clone(),
            asked_for: order.actor.on_behalf_of.clone().unwrap_or_default(),
            asked_ms: now.0,
            approved_by: String::new(),
            approved_ms: 0,
            runs_ms: 0,
            cooling_off_ms,
            asked_by_provider: matches!(order.actor.scope, Scope::All),
            policy,
            ..stored::Transition::default()
        };
        if action == PURGE {
            let promise = Promise::new(order.opening);
            row.opening = promise.opening.to_vec();
            row.opening_drawn = promise.drawn;
            row.receipt = promise.id.0.to_vec();
        }
        if rule.approval == Approval::Confirm {
            row.approved_by.clone_from(&order.actor.name);
            row.approved_ms = now.0;
            row.runs_ms = now.plus_ms(cooling_off_ms).0;
        }
        // What runs at once is logged as what it does.
        let waits = row.approved_ms == 0 || cooling_off_ms > 0;
        let logged = match waits {
            true => {
                let event = Event::of_tenant(Action::TransitionRequest, tenant).ended(Outcome::Parked);
                self.audit(&order.actor, event).await?
            }
            false => Vec::new(),
        };
        self.put_transition(tenant, &row, logged).await?;
        Ok(row)
    }

    /// The moment from which a cooling-off time counts: a clock that is wrong would shorten it, so a second one must agree.
    async fn cooling_from(&self, cooling_off_ms: i64) -> Result<Timestamp, Error> {
        if cooling_off_ms > 0 { self.witnessed_now().await } else { Ok(self.clock.now()) }
    }

    /// Does what waits in a tenant, where its time has come. Whoever calls holds the lock of the transitions.
    async fn go_on(self: &Arc<Self>, tenant: TenantHandle) -> Result<Done, Error> {
        let row = self.transition(tenant)?.ok_or(Error::Unknown { what: "close or purge that waits" })?;
        let now = self.clock.now();
        let waits = |by: &str, until| Err(Error::Parked { by: by.to_owned(), until, receipt: None });
        if row.approved_ms == 0 {
            return waits("the approval of a second person", None);
        }
        if row.runs_ms > now.0 {
            return waits("its cooling-off time", Some(Timestamp(row.runs_ms)));
        }
        // Over by our clock; a clock that has jumped ahead must not take away the time in which it can be withdrawn.
        if self.cooling_from(row.cooling_off_ms).await?.0 < row.runs_ms {
            return waits("its cooling-off time", Some(Timestamp(row.runs_ms)));
        }
        let promise = promise(&row);
        let actor = Actor {
            name: row.asked_by,
            on_behalf_of: (!row.asked_for.is_empty()).then_some(row.asked_for),
            role: ActorRole::Gateway,
            // By it the group's log, which outlives the tenant, names whoever asked or their role alone.
            scope: if row.asked_by_provider { Scope::All } else { Scope::Tenants(Vec::new()) },
            subscriber: None,
        };
        if row.action == CLOSE {
            let holder = self.tenant_holder(tenant)?;
            let drop_row = Change::DropValue { name: values::name(holder.row, Kind::Transition) };
            self.close_now(&actor, tenant, vec![drop_row]).await?;
            return Ok(Done::Closed);
        }
        if row.action == POLICY {
            let policy = row.policy.ok_or_else(|| Error::Corrupt("a policy that waits is missing".to_owned()))?;
            let holder = self.tenant_holder(tenant)?;
            let drop_row = Change::DropValue { name: values::name(holder.row, Kind::Transition) };
            self.set_policy_now(&actor, tenant, &policy.try_into()?, vec![drop_row]).await?;
            return Ok(Done::PolicySet);
        }
        let opening = promise.map(|it| it.opening);
        let order = Order { receipt: promise.map(|it| it.id), ..Order::new(actor, opening) };
        self.purge_now(&order, tenant).await.map(Done::Purged)
    }

    /// Closes the account; the policy's times count from now.
    async fn close_now(
        self: &Arc<Self>,
        actor: &Actor,
        tenant: TenantHandle,
        mut and: Vec<Change>,
    ) -> Result<(), Error> {
        let at = self.witnessed_now().await?;
        and.extend(self.audit(actor, Event::of_tenant(Action::TenantClose, tenant)).await?);
        {
            let _alone = self.gate.write().await;
            self.change_settings(tenant, |settings| {
                settings.state = TenantState::Closed { at };
                settings.rules_changed();
                Ok(and)
            })
            .await?;
        }
        self.due_wake.notify_one();
        Ok(())
    }

    /// Forgets the tenant, or as much of it as may go.
    async fn purge_now(self: &Arc<Self>, order: &Order, tenant: TenantHandle) -> Result<Erasure, Error> {
        if let Some(stands) = self.stands_over(tenant)? {
            return Err(match stands {
                Blocked::Restricted => {
                    let by = "the restriction of the tenant".to_owned();
                    Error::Parked { by, until: None, receipt: None }
                }
                other => other.into_error(),
            });
        }
        let now = self.clock.now();
        let begun = Event::of_tenant(Action::TenantPurge, tenant).ended(Outcome::Parked);
        let logged = self.audit(&order.actor, begun).await?;
        {
            let _alone = self.gate.write().await;
            self.change_settings(tenant, |settings| {
                let (state, and) = match settings.state {
                    TenantState::Open => (TenantState::Purging { at: now }, logged),
                    TenantState::Closed { at } => (TenantState::Purging { at }, logged),
                    purging @ TenantState::Purging { .. } => (purging, Vec::new()),
                };
                settings.state = state;
                Ok(and)
            })
            .await?;
        }
        // What waits under a lifted hold was promised a receipt, and what it would be made from goes with the tenant.
        self.run_lifted_of(tenant).await?;
        if let Some(erasure) = self.forget_tenant(order, tenant).await? {
            return Ok(erasure);
        }
        self.forget_what_may_go(order, tenant).await?;
        // All of it may have gone by now.
        if let Some(erasure) = self.forget_tenant(order, tenant).await? {
            return Ok(erasure);
        }
        Err(self.what_stays(tenant).await?)
    }

    /// What keeps all of a tenant: a hold on it, or its restriction.
    fn stands_over(&self, tenant: TenantHandle) -> Result<Option<Blocked>, Error> {
        if self.settings(tenant)?.0.restricted {
            return Ok(Some(Blocked::Restricted));
        }
        let hold = self.holds.standing(tenant).into_iter().find(|hold| matches!(hold.held, Held::Tenant));
        Ok(hold.map(Blocked::Hold))
    }

    /// The tenant's own key, and its counters into the cell. None where something stands below.
    pub(crate) async fn forget_tenant(
        self: &Arc<Self>,
        order: &Order,
        tenant: TenantHandle,
    ) -> Result<Option<Erasure>, Error> {
        let _cells = self.cell_lock.lock().await;
        let and = self.merge_into_cell(tenant).await?;
        match self.forget(order, Wanted::Tenant(tenant), and).await? {
            Forgot::Done(erasure) => Ok(Some(erasure)),
            Forgot::Blocked(..) => Ok(None),
        }
    }

    /// Everything below a tenant that nothing keeps. Each part has a receipt of its own, under an opening that nobody keeps: that
    /// of the purge lies in the tenant's row for as long as a floor keeps anything, and would tell which subscribers went.
    async fn forget_what_may_go(self: &Arc<Self>, order: &Order, tenant: TenantHandle) -> Result<(), Error> {
        let order = &Order::new(order.actor.clone(), None);
        for (subscriber, _) in self.keys.subscribers(tenant) {
            match self.forget(order, Wanted::Subscriber(tenant, subscriber), Vec::new()).await? {
                Forgot::Done(_) => continue,
                Forgot::Blocked(_, standing) => drop(standing),
            }
            let mut free = self.free_below(tenant, subscriber).await?.into_iter();
            loop {
                let mut running = tokio::task::JoinSet::new();
                for wanted in free.by_ref().take(TOGETHER) {
                    let (inner, order) = (self.clone(), order.clone());
                    running.spawn(async move { inner.forget(&order, wanted, Vec::new()).await.map(drop) });
                }
                if running.is_empty() {
                    break;
                }
                all_of(running).await.into_iter().collect::<Result<(), Error>>()?;
            }
        }
        Ok(())
    }

    async fn free_below(
        self: &Arc<Self>,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
    ) -> Result<Vec<Wanted>, Error> {
        let inner = self.clone();
        let visit = move || {
            let mut free = Vec::new();
            inner.look(tenant)?.visit(subscriber, false, &mut |at, _, found| {
                if found.is_empty() {
                    free.push(Wanted::Recording(at, Parts::BOTH));
                }
                Ok(())
            })?;
            Ok(free)
        };
        tokio::task::spawn_blocking(visit).await.map_err(|failed| Error::Internal(failed.to_string()))?
    }

    /// What a purge waits for, in words.
    async fn what_stays(self: &Arc<Self>, tenant: TenantHandle) -> Result<Error, Error> {
        let inner = self.clone();
        let tally = tokio::task::spawn_blocking(move || inner.look(tenant)?.tally(None)).await;
        let tally = tally.map_err(|failed| Error::Internal(failed.to_string()))??;
        let mut by = Vec::new();
        if tally.restricted > 0 {
            by.push(format!("the restriction of {} recordings", tally.restricted));
        }
        for (hold, count) in &tally.holds {
            by.push(format!("hold {} on {count} recordings", hold.id));
        }
        for (ground, (_, count)) in &tally.floors {
            by.push(format!("a floor on {count} recordings ({ground})"));
        }
        let held = self.holds.standing(tenant);
        if by.is_empty() {
            by.extend(held.iter().map(|hold| format!("hold {}", hold.id)));
        }
        let dated = tally.restricted == 0 && held.is_empty();
        let until = tally.floors.values().map(|(until, _)| *until).max().filter(|_| dated);
        Ok(Error::Parked { by: by.join(", "), until, receipt: None })
    }

    /// Goes on with what waits in a tenant after something that kept it is gone. Gives the receipt of a purge that has run.
    pub(crate) async fn go_on_with(self: &Arc<Self>, tenant: TenantHandle) -> Result<Option<ReceiptId>, Error> {
        let _one = self.transitions.lock().await;
        match self.transition(tenant) {
            Ok(Some(row)) if row.approved_ms != 0 && row.action == PURGE => {}
            Ok(_) | Err(Error::Unknown { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        match self.go_on(tenant).await {
            Ok(Done::Purged(erasure)) => Ok(Some(erasure.receipt)),
            // `Storage`: no second clock agrees that its time has come.
            Ok(Done::Closed | Done::PolicySet)
            | Err(Error::Parked { .. } | Error::Unknown { .. } | Error::Storage(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The daily work: everything whose time has come. What fails in one tenant is logged, and holds up no other.
    pub(crate) async fn go_on_with_all(self: &Arc<Self>) {
        for (tenant, _) in self.public_tenants() {
            match self.go_on_if_due(tenant).await {
                // `Storage`: no second clock agrees that its time has come.
                Ok(()) | Err(Error::Unknown { .. } | Error::Storage(_)) => {}
                Err(error) => tracing::error!(%error, "a close, purge or policy cannot be carried out; withdraw it"),
            }
        }
    }

    async fn go_on_if_due(self: &Arc<Self>, tenant: TenantHandle) -> Result<(), Error> {
        let now = self.clock.now();
        let _one = self.transitions.lock().await;
        if !self.transition(tenant)?.is_some_and(|row| row.approved_ms != 0 && row.runs_ms <= now.0) {
            return Ok(());
        }
        // What a floor or hold keeps is not looked at every minute: each look reads every entry below.
        if self.purge_looks.lock().await.get(&tenant).is_some_and(|next| now < *next) {
            return Ok(());
        }
        match self.go_on(tenant).await {
            Ok(_) | Err(Error::Unknown { .. }) => drop(self.purge_looks.lock().await.remove(&tenant)),
            Err(Error::Parked { until, .. }) => {
                let hour = now.plus_ms(LOOK_AGAIN_MS);
                self.purge_looks.lock().await.insert(tenant, until.map_or(hour, |until| until.min(hour)));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether a policy waits in a tenant.
    pub(crate) fn policy_waits(&self, tenant: TenantHandle) -> Result<bool, Error> {
        Ok(self.transition(tenant)?.is_some_and(|row| row.action == POLICY))
    }

    /// How many closes and purges wait.
    pub(crate) fn count_transitions(&self) -> Result<u64, Error> {
        let mut waiting = 0;
        for (tenant, _) in self.public_tenants() {
            waiting += u64::from(matches!(self.transition(tenant), Ok(Some(_))));
        }
        Ok(waiting)
    }
}
