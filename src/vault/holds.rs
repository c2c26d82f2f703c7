//! Holds: what must be kept although it was erased or has expired, on whose word, and until when somebody looks again.
//!
//! A hold is on a tenant, a subscriber, a recording, or a party's number within a range of dates. It lies under a secret of
//! its own (a period of its tenant), which dies when the hold is lifted: ground, authority and number are then forgotten,
//! and the log alone says that somebody lifted a hold. What waits for it lies under the same secret ([`super::parked`]).
//!
//! All of them are in memory too, read at every start, so that an erasure asks without a search. The index changes under
//! one lock, which an erasure holds shared from its question until it is durable ([`super::clearance`]), and which
//! placing and lifting hold alone:
//! - *Place*: look whether what is to be held is there; write; put it into the index. An erasure before it has left nothing
//!   to find, and placing says so; one after it parks.
//! - *Lift*: mark it lifted, durably, and take it out of the index. From here on nothing parks under it. Then what waited
//!   is done, and at last its period is erased. A stop in between leaves a lifted hold with what still waits, and the
//!   next start goes on.
//!
//! A hold past its review date still holds; it is overdue, and `status`, a metric and an exit status say so.

use super::{
    Actor, Error, Inner, Vault,
    audit::{About, Event},
    parked::Ran,
    tenants::invalid,
    values,
};
use crate::{
    crypto::{envelope::Kind, random, secret::Secret},
    domain::{
        audit::Action,
        id::{HoldId, PeriodHandle, RecordingHandle, RecordingId, RowId, SubscriberHandle, TenantHandle},
        party,
        time::Timestamp,
    },
    keys::{Change, Mutation, Owner, Purpose, RecordingPath},
    proto::stored::{self, hold::Scope as Stored},
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
use zeroize::Zeroizing;

/// Most holds in a tenant: each is asked at every erasure there.
const MAX_HOLDS: usize = 1000;
/// Most bytes in a ground, an authority, a number.
const MAX_TEXT: usize = 256;
/// Furthest a review may lie ahead.
const MAX_REVIEW_MS: i64 = 5 * 366 * 86_400_000;

/// What to hold, as it is asked for and shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HoldScope {
    /// Everything of the tenant.
    Tenant,
    /// Everything of a subscriber, by name, and the calls it is bound to.
    Subscriber(String),
    /// One recording, and what was made from it.
    Recording(RecordingId),
    /// Every call in which a number took part.
    Number {
        /// The number, in any spelling.
        number: String,
        /// Calls that began at this moment or later.
        from: Option<Timestamp>,
        /// Calls that began before this moment.
        to: Option<Timestamp>,
    },
}

/// A hold to place.
pub struct NewHold {
    /// The tenant, by name. May be empty where a recording names it.
    pub tenant: String,
    /// What to hold.
    pub scope: HoldScope,
    /// Why: `litigation`, `dispute`, `investigation`, or any words.
    pub ground: String,
    /// On whose word.
    pub authority: String,
    /// When somebody must look whether it is still needed.
    pub review: Timestamp,
}

/// A hold as it is shown.
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// The tenant's name.
    pub tenant: String,
    /// What it holds.
    pub scope: HoldScope,
    /// Why.
    pub ground: String,
    /// On whose word.
    pub authority: String,
    /// When somebody must look again.
    pub review: Timestamp,
    /// That moment has passed.
    pub overdue: bool,
    /// When it was placed.
    pub placed: Timestamp,
    /// By whom.
    pub placed_by: String,
    /// Erasures and expiries that wait for it.
    pub parked: u64,
    /// It holds nothing any more; what waited for it is being done.
    pub lifted: bool,
}

/// What placing found.
pub struct HoldPlaced {
    /// The hold.
    pub hold: Hold,
    /// Recordings that it covers now.
    pub found: u64,
    /// Recordings of its tenant whose facts are gone: a hold on a number cannot tell whether it covers them.
    pub without_facts: u64,
}

/// A hold in the index.
pub(crate) struct Placed {
    pub id: HoldId,
    pub tenant: TenantHandle,
    pub period: PeriodHandle,
    pub row: RowId,
    pub held: Held,
    pub ground: String,
    pub authority: String,
    pub review: Timestamp,
    pub placed: Timestamp,
    pub placed_by: String,
    pub lifted: bool,
}

/// What a hold is on.
#[derive(Clone)]
pub(crate) enum Held {
    Tenant,
    Subscriber(SubscriberHandle),
    Recording(RecordingPath),
    /// In plain spelling; calls that began within the range.
    Number {
        number: Zeroizing<String>,
        from: Timestamp,
        to: Timestamp,
    },
}

/// Every hold, in memory.
#[derive(Default)]
pub(crate) struct Holds {
    lock: Arc<tokio::sync::RwLock<()>>,
    /// What waited for a lifted hold runs once: whoever has it runs it.
    finishing: tokio::sync::Mutex<()>,
    /// Whoever reads what waits under a hold and writes it back: two who park the same thing would each promise a receipt.
    parking: tokio::sync::Mutex<()>,
    index: RwLock<HashMap<TenantHandle, Vec<Arc<Placed>>>>,
}

impl Holds {
    /// Until the guard goes, nothing is placed or lifted.
    pub async fn shared(&self) -> OwnedRwLockReadGuard<()> {
        self.lock.clone().read_owned().await
    }

    /// Until the guard goes, nothing else is parked.
    pub async fn parking(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.parking.lock().await
    }

    /// Until the guard goes, nothing is erased.
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.lock.clone().write_owned().await
    }

    /// The holds that stand in a tenant.
    pub fn standing(&self, tenant: TenantHandle) -> Vec<Arc<Placed>> {
        self.of(tenant).into_iter().filter(|hold| !hold.lifted).collect()
    }

    /// The holds of a tenant, lifted ones too.
    pub fn of(&self, tenant: TenantHandle) -> Vec<Arc<Placed>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.get(&tenant).cloned().unwrap_or_default()
    }

    /// Every hold.
    pub fn all(&self) -> Vec<Arc<Placed>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.values().flatten().cloned().collect()
    }

    /// Puts a hold in, or in the place of what it was.
    fn put(&self, hold: Placed) -> Arc<Placed> {
        let hold = Arc::new(hold);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let holds = index.entry(hold.tenant).or_default();
        holds.retain(|other| other.id != hold.id);
        holds.push(hold.clone());
        hold
    }

    /// Lets go of the holds of a tenant that was erased.
    pub fn forget(&self, tenant: TenantHandle) {
        self.index.write().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
    }

    fn drop(&self, hold: &Placed) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(holds) = index.get_mut(&hold.tenant) {
            holds.retain(|other| other.id != hold.id);
        }
        index.retain(|_, holds| !holds.is_empty());
    }
}

impl Placed {
    fn to_stored(&self) -> stored::Hold {
        let scope = match &self.held {
            Held::Tenant => Stored::Tenant(stored::HeldTenant {}),
            Held::Subscriber(subscriber) => {
                Stored::Subscriber(stored::HeldSubscriber { subscriber: subscriber.0.to_vec() })
            }
            Held::Recording(at) => Stored::Recording(stored::HeldRecording {
                subscriber: at.subscriber.0.to_vec(),
                handle: at.recording.0.to_vec(),
            }),
            Held::Number { number, from, to } => {
                Stored::Number(stored::HeldNumber { number: number.to_string(), from_ms: from.0, to_ms: to.0 })
            }
        };
        stored::Hold {
            scope: Some(scope),
            id: self.id.0.to_vec(),
            ground: self.ground.clone(),
            authority: self.authority.clone(),
            review_ms: self.review.0,
            placed_ms: self.placed.0,
            placed_by: self.placed_by.clone(),
            lifted: self.lifted,
        }
    }

    fn from_stored(tenant: TenantHandle, period: PeriodHandle, row: RowId, stored: stored::Hold) -> Option<Self> {
        let held = match stored.scope? {
            Stored::Tenant(_) => Held::Tenant,
            Stored::Subscriber(held) => Held::Subscriber(SubscriberHandle::from_slice(&held.subscriber)?),
            Stored::Recording(held) => Held::Recording(RecordingPath {
                tenant,
                subscriber: SubscriberHandle::from_slice(&held.subscriber)?,
                recording: RecordingHandle::from_slice(&held.handle)?,
            }),
            Stored::Number(held) => Held::Number {
                number: Zeroizing::new(held.number),
                from: Timestamp(held.from_ms),
                to: Timestamp(held.to_ms),
            },
        };
        Some(Self {
            id: HoldId::from_slice(&stored.id)?,
            tenant,
            period,
            row,
            held,
            ground: stored.ground,
            authority: stored.authority,
            review: Timestamp(stored.review_ms),
            placed: Timestamp(stored.placed_ms),
            placed_by: stored.placed_by,
            lifted: stored.lifted,
        })
    }

    /// The row as it is to be now.
    fn row_change(&self, secret: &Secret) -> Change {
        let name = values::name(self.row, Kind::Hold);
        let envelope = values::seal(&self.to_stored(), secret, &name);
        Change::PutValue { owner: Owner::Period(self.tenant, self.period), name, envelope }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut hold = Self {
            held: self.held.clone(),
            ground: self.ground.clone(),
            authority: self.authority.clone(),
            placed_by: self.placed_by.clone(),
            ..*self
        };
        change(&mut hold);
        hold
    }
}

impl Vault {
    /// Places a hold.
    ///
    /// # Errors
    /// `Unknown` and `Erased` for what is not there; `Invalid` names the field.
    pub async fn place_hold(&self, actor: &Actor, new: NewHold) -> Result<HoldPlaced, Error> {
        let inner = &self.0;
        inner.running()?;
        let now = inner.clock.now();
        check_text("ground", &new.ground)?;
        check_text("authority", &new.authority)?;
        check_review(new.review, now)?;
        let alone = inner.holds.alone().await;
        let (tenant, held) = inner.held(actor, &new)?;
        if inner.holds.of(tenant).len() >= MAX_HOLDS {
            return Err(invalid("tenant", format!("has {MAX_HOLDS} holds; lift those that are not needed")));
        }
        let (period, secret) = (PeriodHandle(random()), Secret::random());
        let hold = Placed {
            id: HoldId(random()),
            tenant,
            period,
            row: RowId(random()),
            held,
            ground: new.ground,
            authority: new.authority,
            review: new.review,
            placed: now,
            placed_by: actor.name.clone(),
            lifted: false,
        };
        let row = hold.row_change(&secret);
        let (purpose, day) = (Purpose::Hold, new.review.day());
        let mut changes = vec![Change::AddPeriod { tenant, period, row: hold.row, secret, purpose, day }, row];
        changes.extend(inner.audit_hold(actor, Action::HoldPlace, &hold).await?);
        inner.keys.commit(Mutation::new(changes)).await?;
        let hold = inner.holds.put(hold);
        drop(alone);
        let (found, without_facts) = inner.covered(&hold).await?;
        Ok(HoldPlaced { hold: inner.shown(&hold)?, found, without_facts })
    }

    /// The holds of a tenant, or of all within reach, those that are overdue first.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn holds(&self, actor: &Actor, tenant: Option<&str>) -> Result<Vec<Hold>, Error> {
        let inner = &self.0;
        let of = tenant.map(|tenant| inner.find_in(&actor.scope, tenant)).transpose()?;
        let mut holds = Vec::new();
        for hold in inner.holds.all() {
            let name = inner.keys.tenant_name(hold.tenant);
            let reached = name.is_some_and(|name| actor.scope.contains(&name));
            if reached && of.is_none_or(|of| of == hold.tenant) {
                holds.push(inner.shown(&hold)?);
            }
        }
        holds.sort_by_key(|hold| (hold.review, hold.id));
        Ok(holds)
    }

    /// Says that somebody looked, and when the next look is due.
    ///
    /// # Errors
    /// `Unknown`; `Invalid` for a date that is not ahead.
    pub async fn review_hold(&self, actor: &Actor, id: HoldId, next: Timestamp) -> Result<Hold, Error> {
        let inner = &self.0;
        inner.running()?;
        check_review(next, inner.clock.now())?;
        let _alone = inner.holds.alone().await;
        let hold = inner.find_hold(actor, id)?;
        let secret = inner.hold_secret(&hold)?;
        let hold = hold.with(|hold| hold.review = next);
        let mut changes = vec![hold.row_change(&secret)];
        changes.extend(inner.audit_hold(actor, Action::HoldReview, &hold).await?);
        inner.keys.commit(Mutation::new(changes)).await?;
        inner.shown(&inner.holds.put(hold))
    }

    /// Lifts a hold; what waited for it alone is done before this returns.
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn lift_hold(&self, actor: &Actor, id: HoldId) -> Result<Ran, Error> {
        let inner = &self.0;
        inner.running()?;
        let alone = inner.holds.alone().await;
        let hold = inner.find_hold(actor, id)?;
        let secret = inner.hold_secret(&hold)?;
        let hold = hold.with(|hold| hold.lifted = true);
        let mut changes = vec![hold.row_change(&secret)];
        changes.extend(inner.audit_hold(actor, Action::HoldLift, &hold).await?);
        inner.keys.commit(Mutation::new(changes)).await?;
        let hold = inner.holds.put(hold);
        drop(alone);
        let mut ran = inner.finish_lifted(&hold).await?;
        // A purge that the hold kept.
        ran.receipts.extend(inner.go_on_with(hold.tenant).await?);
        Ok(ran)
    }
}

impl Inner {
    /// The log's entry of what was done with a hold: its id, and what it is on. Ground, authority and number are forgotten
    /// with the hold, so they do not lie under any other secret.
    async fn audit_hold(&self, actor: &Actor, action: Action, hold: &Placed) -> Result<Vec<Change>, Error> {
        let about = match &hold.held {
            Held::Tenant | Held::Number { .. } => About::Tenant(hold.tenant),
            Held::Subscriber(subscriber) => About::Subscriber(hold.tenant, *subscriber),
            // Where it is gone, whose it was.
            Held::Recording(at) => self.about_recording(*at).unwrap_or(About::Subscriber(at.tenant, at.subscriber)),
        };
        self.audit(actor, Event::new(action, about).referring_to(hold.id.0)).await
    }

    /// Reads every hold back. Called once, before anything can be erased.
    pub(crate) fn read_holds(&self) -> Result<(), Error> {
        for (tenant, _) in self.keys.tenants() {
            for period in self.keys.periods(tenant) {
                if period.purpose != Purpose::Hold {
                    continue;
                }
                let Some(holder) = self.keys.period(tenant, period.handle)? else { continue };
                let corrupt = || Error::Corrupt("a hold's row".to_owned());
                let row = values::read::<stored::Hold>(&self.keys, holder.row, &holder.secret)?.ok_or_else(corrupt)?;
                self.holds.put(Placed::from_stored(tenant, period.handle, holder.row, row).ok_or_else(corrupt)?);
            }
        }
        Ok(())
    }

    /// Does what waited for a lifted hold; once nothing is left, forgets the hold. Lifting, the end of a restriction and the
    /// daily work all come here for the same hold: one at a time, and who comes late finds it done.
    pub(crate) async fn finish_lifted(self: &Arc<Self>, hold: &Placed) -> Result<Ran, Error> {
        let _one = self.holds.finishing.lock().await;
        if !self.holds.of(hold.tenant).iter().any(|other| other.id == hold.id) {
            return Ok(Ran::default());
        }
        // It went with its tenant.
        if self.keys.period(hold.tenant, hold.period)?.is_none() {
            self.holds.drop(hold);
            return Ok(Ran::default());
        }
        let ran = self.run_parked(hold).await?;
        if ran.left == 0 {
            let change = Change::ErasePeriod(hold.tenant, hold.period);
            self.keys.commit(Mutation::new(vec![change])).await?;
            self.holds.drop(hold);
            self.sweep_wake.notify_one();
        }
        Ok(ran)
    }

    /// Goes on with holds that were lifted and still have something that waits: a floor or restriction came in between, or
    /// the gateway stopped. What fails keeps no other from its turn; the first failure is given back.
    pub(crate) async fn run_all_lifted(self: &Arc<Self>) -> Result<(), Error> {
        self.run_lifted(self.holds.all()).await
    }

    /// The same in one tenant.
    pub(crate) async fn run_lifted_of(self: &Arc<Self>, tenant: TenantHandle) -> Result<(), Error> {
        self.run_lifted(self.holds.of(tenant)).await
    }

    async fn run_lifted(self: &Arc<Self>, holds: Vec<Arc<Placed>>) -> Result<(), Error> {
        let mut all = Ok(());
        for hold in holds.into_iter().filter(|hold| hold.lifted) {
            all = all.and(self.finish_lifted(&hold).await.map(drop));
        }
        all
    }

    /// How many holds there are, and how many of them are past their review date.
    pub(crate) fn count_holds(&self) -> (u64, u64) {
        let now = self.clock.now();
        let holds = self.holds.all();
        let overdue = holds.iter().filter(|hold| !hold.lifted && hold.review < now).count();
        (holds.len() as u64, overdue as u64)
    }

    /// The secret that seals a hold and what waits for it.
    pub(crate) fn hold_secret(&self, hold: &Placed) -> Result<Secret, Error> {
        let holder = self.keys.period(hold.tenant, hold.period)?;
        Ok(holder.ok_or_else(|| Error::Corrupt("a hold without its secret".to_owned()))?.secret)
    }

    fn find_hold(&self, actor: &Actor, id: HoldId) -> Result<Arc<Placed>, Error> {
        let unknown = Error::Unknown { what: "hold" };
        let hold = self.holds.all().into_iter().find(|hold| hold.id == id && !hold.lifted);
        let Some(hold) = hold else { return Err(unknown) };
        let name = self.keys.tenant_name(hold.tenant);
        if name.is_some_and(|name| actor.scope.contains(&name)) { Ok(hold) } else { Err(unknown) }
    }

    /// What a new hold is on; an error where it is not there.
    fn held(&self, actor: &Actor, new: &NewHold) -> Result<(TenantHandle, Held), Error> {
        if let HoldScope::Recording(id) = &new.scope {
            let at = self.locate(&actor.scope, *id)?.path;
            self.keys.entry(at)?.ok_or(Error::Erased)?;
            return Ok((at.tenant, Held::Recording(at)));
        }
        let tenant = self.find_in(&actor.scope, &new.tenant)?;
        let held = match &new.scope {
            HoldScope::Tenant | HoldScope::Recording(_) => Held::Tenant,
            HoldScope::Subscriber(name) => {
                Held::Subscriber(self.keys.find_subscriber(tenant, name).ok_or(Error::Unknown { what: "subscriber" })?)
            }
            HoldScope::Number { number, from, to } => {
                check_text("number", number)?;
                let (from, to) = (from.unwrap_or(Timestamp(i64::MIN)), to.unwrap_or(Timestamp(i64::MAX)));
                if from >= to {
                    return Err(invalid("to", "must lie behind `from`".to_owned()));
                }
                Held::Number { number: Zeroizing::new(party::plain(number)), from, to }
            }
        };
        Ok((tenant, held))
    }

    /// How many recordings a hold covers now, and of how many it cannot tell because their facts are gone.
    async fn covered(self: &Arc<Self>, hold: &Arc<Placed>) -> Result<(u64, u64), Error> {
        let (inner, hold) = (self.clone(), hold.clone());
        let count = move || -> Result<_, Error> {
            let mut look = inner.look(hold.tenant)?;
            let tally = match &hold.held {
                Held::Recording(_) => return Ok((1, 0)),
                Held::Tenant | Held::Subscriber(_) | Held::Number { .. } => look.tally(None)?,
            };
            let found = tally.holds.iter().find(|(other, _)| other.id == hold.id).map_or(0, |(_, count)| *count);
            let by_number = matches!(hold.held, Held::Number { .. });
            Ok((found, if by_number { tally.recordings - tally.facts } else { 0 }))
        };
        tokio::task::spawn_blocking(count).await.map_err(|failed| Error::Internal(failed.to_string()))?
    }

    /// A hold as it is shown.
    pub(crate) fn shown(&self, hold: &Placed) -> Result<Hold, Error> {
        let scope = match &hold.held {
            Held::Tenant => HoldScope::Tenant,
            Held::Subscriber(subscriber) => {
                HoldScope::Subscriber(self.keys.subscriber_name(hold.tenant, *subscriber).unwrap_or_default())
            }
            Held::Recording(at) => {
                let secret = self.tenant_holder(hold.tenant)?.secret;
                HoldScope::Recording(super::recording_id::issue(&secret, at.subscriber, at.recording))
            }
            Held::Number { number, from, to } => HoldScope::Number {
                number: number.to_string(),
                from: (from.0 != i64::MIN).then_some(*from),
                to: (to.0 != i64::MAX).then_some(*to),
            },
        };
        Ok(Hold {
            id: hold.id,
            tenant: self.keys.tenant_name(hold.tenant).unwrap_or_default(),
            scope,
            ground: hold.ground.clone(),
            authority: hold.authority.clone(),
            review: hold.review,
            overdue: !hold.lifted && hold.review < self.clock.now(),
            placed: hold.placed,
            placed_by: hold.placed_by.clone(),
            parked: self.keys.values(hold.row, Kind::Parked)?.len() as u64,
            lifted: hold.lifted,
        })
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(invalid(field, format!("send 1 to {MAX_TEXT} bytes of text without control characters")));
    }
    Ok(())
}

fn check_review(review: Timestamp, now: Timestamp) -> Result<(), Error> {
    if review <= now || review > now.plus_ms(MAX_REVIEW_MS) {
        return Err(invalid("review", "send a moment ahead of now, at most five years".to_owned()));
    }
    Ok(())
}
