//! Forgetting: ask, cut, prove, destroy, cut again, state, answer.
//!
//! First it is asked whether anything stands in the way, so that nobody is cut off for an erasure that is refused. Then
//! sessions of the scope are cut, so that nobody is heard or recorded while the key goes. Then it is asked again, under
//! the lock that gives the proof ([`super::clearance`]). The key tree's commit is the erasure; it returns after the slot has
//! destroyed the root of before. Sessions that entered between the two are cut after it: whoever read a secret had
//! entered before the commit. Then no copy of the secret is left in this process, the receipt is stated in the log
//! ([`super::receipt`]), and the answer goes out. Ciphertext is the sweeper's.
//!
//! Where the backup's object storage is away, the commit returns before the root is destroyed and says so: the erasure is
//! *sealed*. Everything happens as above but the receipt, which is stated once the root is destroyed.
//!
//! The log's entry, and a row that says that a receipt is due, are in the same command as the erasure.
//!
//! The lock is free again before the second cut: a session that is leaving may itself be waiting for it.
//!
//! Cut is who holds a secret that goes. A playback opens no facts, so one of the audio goes on where the facts alone are
//! forgotten: where a floor keeps the one and not the other, that happens by itself while somebody listens.

use super::{
    Actor, Erasure, Error, Inner, Part, Target, Vault,
    audit::{About, Detail, Event},
    clearance::{Blocked, Clearance, Standing, Wanted},
    permission::At,
    receipt::{Pending, state_later},
    recording_id,
    sessions::{Cut, Role},
};
use crate::{
    audit::{
        Hash,
        receipt::{self, Opening},
    },
    crypto::random,
    domain::{
        audit::{Action, Outcome},
        id::{ReceiptId, SubscriberHandle, TenantHandle},
    },
    keys::{Change, Mutation, Parts, RecordingEntry, RecordingPath},
    proto::stored,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// Who wants an erasure, and what is settled of its receipt.
#[derive(Clone)]
pub(crate) struct Order {
    /// Who.
    pub actor: Actor,
    /// What opens the commitment, drawn by whoever asked; none: the gateway draws it.
    pub opening: Option<Opening>,
    /// The receipt's id, where it was told before the erasure runs.
    pub receipt: Option<ReceiptId>,
    /// The commitment, where it was settled before and nobody here has the opening any more.
    pub commitment: Option<Hash>,
}

impl Order {
    /// Of something that was not promised a receipt.
    pub fn new(actor: Actor, opening: Option<Opening>) -> Self {
        Self { actor, opening, receipt: None, commitment: None }
    }
}

/// Why several recordings go in one command.
#[derive(Clone, Copy)]
pub(crate) enum Batch {
    /// Their time has come.
    Expired,
    /// The consent that they rest on was withdrawn by this subscriber.
    Withdrawn(TenantHandle, SubscriberHandle),
}

impl Batch {
    fn about(self) -> receipt::About {
        match self {
            Batch::Expired => receipt::About::Expiry,
            Batch::Withdrawn(..) => receipt::About::Withdrawal,
        }
    }

    fn logged(self, tenant: TenantHandle, receipt: ReceiptId) -> Event {
        match self {
            Batch::Expired => done(Action::ExpireBatch, About::Tenant(tenant), receipt),
            Batch::Withdrawn(tenant, subscriber) => {
                done(Action::EraseDone, About::Subscriber(tenant, subscriber), receipt)
            }
        }
    }
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
        let order = Order::new(actor.clone(), opening);
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
                let (tenant, found) = inner.find_subscriber_in(&actor.scope, &tenant, &subscriber)?;
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
                let (by, receipt) = inner.park(&standing, &hold, wanted, &order, and).await?;
                Err(Error::Parked { by, until: None, receipt })
            }
            Forgot::Blocked(stands, _) => {
                let reason = if stands.is_floor() { "floor" } else { "restriction" };
                let event = Event {
                    detail: Detail { reason: Some(reason), ..Detail::default() },
                    ..Event::new(Action::EraseRequest, inner.about_wanted(wanted)?).ended(Outcome::Refused)
                };
                inner.log_first(actor, event).await?;
                Err(stands.into_error())
            }
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
        self.make_sure([wanted.tenant()]).await;
        let asked = {
            let inner = self.clone();
            tokio::task::spawn_blocking(move || inner.judge(vec![wanted])).await
        };
        let (free, _) = asked.map_err(|failed| Error::Internal(failed.to_string()))??;
        let reach = Reach::of(self, wanted)?;
        if !free.is_empty() && !self.sessions.cut(Cut::Erased, |at, role| reach.cuts(at, role)).await {
            tracing::warn!("a session lingers; erasing all the same");
        }
        let cleared = self.clear(vec![wanted]).await?;
        if let Some(clearance) = cleared.clearance {
            // This copy of the lock must not outlive the clearance's: the second cut waits for sessions.
            drop(cleared.standing);
            return Ok(Forgot::Done(self.destroy(order, clearance, reach, and).await?));
        }
        match cleared.blocked.into_iter().next() {
            Some((_, stands)) => Ok(Forgot::Blocked(stands, cleared.standing)),
            None => Err(Error::Internal("an erasure is neither free nor blocked".to_owned())),
        }
    }

    /// Destroys what a clearance allows, with its entry in the log and its receipt.
    async fn destroy(
        self: &Arc<Self>,
        order: &Order,
        clearance: Clearance,
        reach: Reach,
        and: Vec<Change>,
    ) -> Result<Erasure, Error> {
        let receipt = self.receipt_for(reach.wanted, order)?;
        // An erasure is about what lies above it and lives on.
        let (action, about) = match reach.wanted {
            Wanted::Recording(at, _) => (Action::EraseDone, About::Subscriber(at.tenant, at.subscriber)),
            Wanted::Subscriber(tenant, _) => (Action::EraseDone, About::Tenant(tenant)),
            Wanted::Tenant(_) => (Action::TenantPurge, About::Group),
        };
        let mut and = and;
        and.extend(self.audit(&order.actor, done(action, about, receipt.id)).await?);
        self.carry_out(clearance, |at, role| reach.cuts(at, role), receipt, and).await
    }

    /// Destroys several recordings in one command with one receipt. What opens it goes into the inbox of each
    /// tenant, in the same command; the gateway keeps none.
    pub(crate) async fn erase_batch(
        self: &Arc<Self>,
        actor: &Actor,
        clearance: Clearance,
        why: Batch,
    ) -> Result<Erasure, Error> {
        let mut by_tenant: BTreeMap<TenantHandle, Vec<(RecordingPath, Parts)>> = BTreeMap::new();
        for wanted in clearance.erases() {
            let Wanted::Recording(at, parts) = wanted else {
                return Err(Error::Internal("a batch is of recordings".to_owned()));
            };
            by_tenant.entry(at.tenant).or_default().push((*at, *parts));
        }
        let (receipt, openings) = self.receipt_for_batch(&by_tenant, why)?;
        let mut and = Vec::new();
        for (tenant, opening) in openings {
            and.extend(self.inbox_put(tenant, receipt.id, opening).await?);
            and.extend(self.audit(actor, why.logged(tenant, receipt.id)).await?);
        }
        let reached: Vec<Reach> =
            clearance.erases().iter().map(|wanted| Reach::of(self, *wanted)).collect::<Result<_, _>>()?;
        let (mut audio, mut facts) = (HashSet::new(), HashSet::new());
        for reach in &reached {
            if reach.takes_audio() { &mut audio } else { &mut facts }.extend(reach.paths());
        }
        let cuts = |at: &RecordingPath, role| audio.contains(at) || (role != Role::Playback && facts.contains(at));
        // No cut before the commit: the clearance holds locks that a session on its way out may be waiting for.
        self.carry_out(clearance, cuts, receipt, and).await
    }

    /// Commits, cuts whoever entered meanwhile, states the receipt.
    async fn carry_out(
        self: &Arc<Self>,
        clearance: Clearance,
        cuts: impl Fn(&RecordingPath, Role) -> bool,
        receipt: Pending,
        and: Vec<Change>,
    ) -> Result<Erasure, Error> {
        let mut changes = clearance.changes();
        changes.extend(and);
        changes.push(self.sealed_receipt(&receipt));
        let committed = self.keys.commit(Mutation { changes, receipt: Some(receipt.id) }).await?;
        for wanted in clearance.erases() {
            if let Wanted::Tenant(tenant) = wanted {
                self.api_keys.forget(*tenant);
                self.switches.forget(*tenant);
                self.holds.forget(*tenant);
                self.policies.forget(*tenant);
            }
        }
        let mut fallen = HashSet::new();
        for wanted in clearance.erases() {
            self.fell_meanwhile(*wanted, &mut fallen)?;
        }
        drop(clearance);
        // Whoever feeds a recording holds each of its secrets.
        self.forget_in_memory(|at| cuts(at, Role::Ingest) || fallen.contains(at));
        self.sweep_wake.notify_one();
        // The key is destroyed from here on; a session that still lingers holds a copy in memory, so neither answer nor
        // receipt may say so.
        if !self.sessions.cut(Cut::Erased, |at, role| cuts(at, role) || fallen.contains(at)).await {
            return Err(Error::Internal("a session did not end when it was cut".to_owned()));
        }
        let Pending { id, scope, opening, row } = receipt;
        let generations = Some((committed.generation_from, committed.generation_to));
        let receipt_file = if committed.destroyed {
            self.state_destroyed(id, row, committed.erased, generations).await?
        } else {
            tracing::warn!(receipt = %id, "an erasure is sealed, and not destroyed before its backup, or enough slots, are there");
            let (mut row, erased) = (row, committed.erased);
            let sealed = match generations.filter(|_| erased) {
                Some(generations) => self.state_sealed(id, &mut row, generations).await,
                None => Ok(String::new()),
            };
            self.tasks.spawn(state_later(self.clone(), id, row, erased, generations, committed.number));
            sealed?
        };
        Ok(Erasure {
            destroyed: committed.erased,
            sealed: !committed.destroyed,
            generation_from: committed.generation_from,
            generation_to: committed.generation_to,
            slot_forgets: self.keys.forgets().to_string(),
            receipt: id,
            receipt_file,
            opening,
            scope,
        })
    }

    /// Drops from memory what ties the log, permissions, tickets and refusals to what an erasure took of some recordings, or
    /// to subscribers and tenants that are gone. With the evidence, which lives on, it would tell who heard whom. Called behind
    /// the commit.
    pub(super) fn forget_in_memory(&self, covers: impl Fn(&RecordingPath) -> bool) {
        // What cannot be read counts as gone: all of this only helps whoever looks.
        let has = |at: RecordingPath, part: fn(&RecordingEntry) -> bool| matches!(self.keys.entry(at), Ok(Some(entry)) if entry.lives() && part(&entry));
        let audio_gone = |at: &RecordingPath| covers(at) && !has(*at, |entry| entry.audio_present);
        let facts_gone = |at: &RecordingPath| covers(at) && !has(*at, |entry| entry.facts_present);
        let tenant_gone = |tenant| self.keys.tenant_name(tenant).is_none();
        let subscriber_gone = |tenant, subscriber| self.keys.subscriber_name(tenant, subscriber).is_none();
        self.log.drop_of(|about| match about {
            About::Group => false,
            About::Tenant(tenant) => tenant_gone(tenant),
            About::Subscriber(tenant, subscriber) => subscriber_gone(tenant, subscriber),
            About::Audio(at) => audio_gone(&at),
            About::Facts(at) => facts_gone(&at),
        });
        self.permissions.drop_of(|at| match at {
            At::Tenant(tenant) => tenant_gone(tenant),
            At::Subscriber(tenant, subscriber) => subscriber_gone(tenant, subscriber),
            At::Recording(at) => audio_gone(&at),
        });
        self.tickets.drop_of(audio_gone);
        self.refusals.drop_of(audio_gone);
    }

    /// Sessions of what an erasure took along and nobody knew of when its reach was looked up: what was bound to the
    /// subscriber, or made from the recording, between that look and the commit. No other can come: a create behind the
    /// commit is refused.
    pub(super) fn fell_meanwhile(&self, wanted: Wanted, fallen: &mut HashSet<RecordingPath>) -> Result<(), Error> {
        let inside = || self.sessions.inside(wanted.tenant());
        match wanted {
            Wanted::Recording(parent, parts) if parts.audio => {
                let made = inside()
                    .into_iter()
                    .filter(|(at, from)| at.subscriber == parent.subscriber && *from == Some(parent.recording));
                fallen.extend(made.map(|(at, _)| at));
            }
            Wanted::Subscriber(..) => {
                for (at, _) in inside() {
                    if self.keys.entry(at)?.is_some_and(|entry| !entry.lives()) {
                        fallen.insert(at);
                    }
                }
            }
            Wanted::Recording(..) | Wanted::Tenant(_) => {}
        }
        Ok(())
    }

    /// The receipt of one thing.
    fn receipt_for(&self, wanted: Wanted, order: &Order) -> Result<Pending, Error> {
        let scope = self.receipt_scope(wanted)?;
        let opening = order.opening.unwrap_or_else(random);
        let commitment = order.commitment.unwrap_or_else(|| receipt::commitment(&opening, &scope));
        let (drawn, row) = self.receipt_over(wanted, commitment)?;
        Ok(Pending { id: order.receipt.unwrap_or(drawn), scope, opening, row })
    }

    /// The text to which the receipt of one thing commits.
    pub(super) fn receipt_scope(&self, wanted: Wanted) -> Result<String, Error> {
        let tenant = wanted.tenant();
        let tenant_name = || self.keys.tenant_name(tenant).ok_or(Error::Unknown { what: "tenant" });
        Ok(match wanted {
            Wanted::Recording(at, _) => {
                let id = recording_id::issue(&self.tenant_holder(tenant)?.secret, at.subscriber, at.recording);
                receipt::recording_scope(id)
            }
            Wanted::Subscriber(_, subscriber) => {
                let name = self.keys.subscriber_name(tenant, subscriber).ok_or(Error::Erased)?;
                receipt::subscriber_scope(&tenant_name()?, &name)
            }
            Wanted::Tenant(_) => receipt::tenant_scope(&tenant_name()?),
        })
    }

    /// A receipt of one thing, by its commitment.
    pub(super) fn receipt_over(&self, wanted: Wanted, commitment: Hash) -> Result<(ReceiptId, stored::Receipt), Error> {
        let (about, parts) = match wanted {
            Wanted::Recording(_, parts) => (receipt::About::Recording, named(parts)),
            Wanted::Subscriber(..) => (receipt::About::Subscriber, receipt::Parts::Everything),
            Wanted::Tenant(_) => (receipt::About::Tenant, receipt::Parts::Everything),
        };
        Ok(self.new_receipt(about, parts, &[commitment], self.sweep_deadline_ms(wanted.tenant())?))
    }

    /// The receipt of a batch: a commitment for each recording, under an opening for each tenant.
    fn receipt_for_batch(
        &self,
        by_tenant: &BTreeMap<TenantHandle, Vec<(RecordingPath, Parts)>>,
        why: Batch,
    ) -> Result<(Pending, Vec<(TenantHandle, Opening)>), Error> {
        let (mut scopes, mut openings) = (Vec::new(), Vec::new());
        for (tenant, recordings) in by_tenant {
            let (secret, opening) = (self.tenant_holder(*tenant)?.secret, random());
            for (at, parts) in recordings {
                let id = recording_id::issue(&secret, at.subscriber, at.recording);
                scopes.push(receipt::commitment(&opening, &receipt::expired_scope(id, named(*parts))));
            }
            openings.push((*tenant, opening));
        }
        if scopes.len() > receipt::MAX_SCOPES {
            return Err(Error::Internal("a batch is larger than a receipt".to_owned()));
        }
        // In the order of their digits: the line of a recording tells nothing of its place in the batch.
        scopes.sort_unstable();
        let mut deadline = self.config.sweep_deadline_ms;
        for tenant in by_tenant.keys() {
            deadline = deadline.min(self.sweep_deadline_ms(*tenant)?);
        }
        let (id, row) = self.new_receipt(why.about(), receipt::Parts::Listed, &scopes, deadline);
        Ok((Pending { id, scope: String::new(), opening: random(), row }, openings))
    }
}

fn named(parts: Parts) -> receipt::Parts {
    match (parts.audio, parts.facts) {
        (true, false) => receipt::Parts::Audio,
        (false, true) => receipt::Parts::Facts,
        (true, true) | (false, false) => receipt::Parts::Both,
    }
}

pub(super) fn done(action: Action, about: About, receipt: ReceiptId) -> Event {
    Event::new(action, about).referring_to(receipt.0)
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

    /// Whether somebody who does this with a recording is cut.
    fn cuts(&self, at: &RecordingPath, role: Role) -> bool {
        let inside = self.wanted.covers(at) || self.with.contains(at);
        inside && (self.takes_audio() || role != Role::Playback)
    }

    fn takes_audio(&self) -> bool {
        !matches!(self.wanted, Wanted::Recording(_, Parts::FACTS))
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
