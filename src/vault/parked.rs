//! Erasures and expiries that wait for a hold.
//!
//! What waits is one row under the secret of a hold that stands in its way, so that a start finds all of it by the holds
//! alone, and the wish to erase dies with the hold. It never waits under two: when its hold is lifted and another one
//! stands, the row moves there.
//!
//! I10: such a row names what it waits for by handles, and is sealed under a secret that must not outlive it. It cannot be
//! outlived by much: what is held can be forgotten in no other way than by running this row, which happens after the hold
//! was lifted, and the hold's secret is destroyed right behind.
//!
//! # Who parks
//! - An *erasure* that somebody asked for. It is parked under the same lock under which it was found to be held, so that
//!   the hold cannot be lifted in between and leave it behind. Whoever asked is told so, and it runs by itself through the
//!   same path as any other, with the receipt whose id was told when it was parked. The row keeps that id. Of a recording it
//!   keeps what will open the receipt too: what the gateway drew is told with the id, and goes into the tenant's inbox in
//!   the command that erases. Of a *subscriber* it keeps the commitment alone, and what opens it is told once: row and inbox
//!   outlive the subscriber, and with the opening every number could be tried against the receipt. Whoever asks for the
//!   same again is told the same id: it never waits twice.
//! - An *expiry*. The due minute leaves the entry, so that the runner does not meet it again at every look, and waits here;
//!   the lift puts it back, and the runner decides anew.
//! - A purge or close of a tenant waits in its own row ([`super::transition`]).
//!
//! A floor or a restriction that came meanwhile makes a parked erasure wait on, under its lifted hold.

use super::{
    Actor, ActorRole, Error, Inner, Part, Promised, Scope, Vault,
    audit::{About, Event},
    clearance::{Blocked, Settled, Standing, Wanted},
    erasure::{Forgot, Order, done},
    holds::Placed,
    receipt::{MAX_LIST, Promise},
    values,
};
use crate::{
    audit::{Hash, receipt},
    crypto::{
        envelope::Kind,
        label::{Label, derive},
        secret::Secret,
    },
    domain::{
        audit::{Action, Outcome},
        id::{HoldId, ReceiptId, RecordingHandle, RecordingId, SubscriberHandle},
        time::{Minute, Timestamp},
    },
    keys::{Change, Keeping, Mutation, Owner, Parts, RecordingPath, ValueName},
    proto::stored,
};
use prost::Message as _;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Erasures of one lift that are under way together: they share rotations.
const TOGETHER: usize = 32;

/// What came of what waited.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ran {
    /// Erasures that were done.
    pub erased: u64,
    /// Expiries that the runner has back.
    pub expiries: u64,
    /// What waits for another hold now.
    pub moved: u64,
    /// What a floor or a restriction keeps.
    pub left: u64,
    /// The receipts of what was erased: at most [`MAX_LIST`], the others are in the tenant's list.
    pub receipts: Vec<ReceiptId>,
}

impl Ran {
    fn add(&mut self, other: Self) {
        self.erased += other.erased;
        self.expiries += other.expiries;
        self.moved += other.moved;
        self.left += other.left;
        self.receipts.extend(other.receipts);
        self.receipts.truncate(MAX_LIST);
    }
}

/// Something that waits, as it is shown.
pub struct Waiting {
    /// The hold it waits for.
    pub hold: HoldId,
    /// The tenant's name.
    pub tenant: String,
    /// The subscriber's name.
    pub subscriber: String,
    /// The recording; none where it is the whole subscriber.
    pub recording: Option<RecordingId>,
    /// Which leaves an erasure would forget; none where only an expiry waits.
    pub part: Option<Part>,
    /// An expiry waits, of one leaf or both.
    pub expiry: bool,
    /// Who asked for the erasure; empty for an expiry.
    pub asked_by: String,
    /// When it was parked.
    pub asked: Timestamp,
    /// Names the receipt that the erasure will have.
    pub receipt: Option<ReceiptId>,
}

impl Vault {
    /// What waits for holds, of a tenant or of all within reach.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn parked(&self, actor: &Actor, tenant: Option<&str>) -> Result<Vec<Waiting>, Error> {
        let inner = &self.0;
        let of = tenant.map(|tenant| inner.find_in(&actor.scope, tenant)).transpose()?;
        let mut waiting = Vec::new();
        for hold in inner.holds.all() {
            let Some(name) = inner.keys.tenant_name(hold.tenant) else { continue };
            if !actor.scope.contains(&name) || of.is_some_and(|of| of != hold.tenant) {
                continue;
            }
            let holder = inner.tenant_holder(hold.tenant)?;
            for (_, row) in inner.parked_under(&hold)? {
                let wanted = place(&hold, &row)?;
                let (subscriber, recording) = match wanted {
                    Wanted::Recording(at, _) => {
                        (at.subscriber, Some(super::recording_id::issue(&holder.secret, at.subscriber, at.recording)))
                    }
                    Wanted::Subscriber(_, subscriber) => (subscriber, None),
                    Wanted::Tenant(_) => continue,
                };
                waiting.push(Waiting {
                    hold: hold.id,
                    tenant: name.clone(),
                    subscriber: inner.keys.subscriber_name(hold.tenant, subscriber).unwrap_or_default(),
                    recording,
                    part: part(row.parts),
                    expiry: row.audio_due != 0 || row.facts_due != 0,
                    asked_by: row.asked_by,
                    asked: Timestamp(row.asked_ms),
                    receipt: ReceiptId::from_slice(&row.receipt),
                });
            }
        }
        Ok(waiting)
    }
}

fn part(parts: u32) -> Option<Part> {
    match parts {
        1 => Some(Part::Audio),
        2 => Some(Part::Facts),
        3 => Some(Part::Both),
        _ => None,
    }
}

fn number(parts: Parts) -> u32 {
    u32::from(parts.audio) + 2 * u32::from(parts.facts)
}

/// Who asked for what waits in a row.
fn asked_by(row: &stored::Parked) -> Actor {
    Actor {
        name: row.asked_by.clone(),
        on_behalf_of: (!row.asked_for.is_empty()).then(|| row.asked_for.clone()),
        role: ActorRole::Gateway,
        scope: Scope::All,
        subscriber: None,
    }
}

/// Waits for all of them: one that fails must not end the others between their commit and their receipt.
pub(crate) async fn all_of<T: 'static>(mut running: JoinSet<Result<T, Error>>) -> Vec<Result<T, Error>> {
    let mut ended = Vec::new();
    while let Some(done) = running.join_next().await {
        ended.push(done.unwrap_or_else(|failed| Err(Error::Internal(failed.to_string()))));
    }
    ended
}

/// The receipt that a row promises, with what opens it.
fn promised(row: &stored::Parked) -> Result<Promise, Error> {
    Promise::read(&row.receipt, &row.opening, row.opening_drawn).ok_or_else(corrupt)
}

fn receipt_id(row: &stored::Parked) -> Result<ReceiptId, Error> {
    ReceiptId::from_slice(&row.receipt).ok_or_else(corrupt)
}

fn corrupt() -> Error {
    Error::Corrupt("a parked erasure's row".to_owned())
}

/// What a row waits for.
fn place(hold: &Placed, row: &stored::Parked) -> Result<Wanted, Error> {
    let subscriber = SubscriberHandle::from_slice(&row.subscriber).ok_or_else(corrupt)?;
    if row.recording.is_empty() {
        return Ok(Wanted::Subscriber(hold.tenant, subscriber));
    }
    let recording = RecordingHandle::from_slice(&row.recording).ok_or_else(corrupt)?;
    let at = RecordingPath { tenant: hold.tenant, subscriber, recording };
    Ok(Wanted::Recording(at, Parts { audio: row.parts & 1 != 0, facts: row.parts & 2 != 0 }))
}

impl Inner {
    /// Parks an erasure that somebody asked for. Says what it waits for, and gives its receipt; none where that is another's to
    /// open.
    pub(crate) async fn park(
        &self,
        _standing: &Standing,
        hold: &Placed,
        wanted: Wanted,
        order: &Order,
        and: Vec<Change>,
    ) -> Result<(String, Option<Promised>), Error> {
        let (subscriber, recording, parts) = match wanted {
            Wanted::Recording(at, parts) => (at.subscriber, Some(at.recording), number(parts)),
            Wanted::Subscriber(_, subscriber) => (subscriber, None, 3),
            Wanted::Tenant(_) => return Err(Error::Internal("a tenant's purge waits in a row of its own".to_owned())),
        };
        let promise = Promise::new(order.opening);
        let (opening, commitment) = match wanted {
            Wanted::Subscriber(..) => {
                (Vec::new(), receipt::commitment(&promise.opening, &self.receipt_scope(wanted)?).to_vec())
            }
            Wanted::Recording(..) | Wanted::Tenant(_) => (promise.opening.to_vec(), Vec::new()),
        };
        let mut row = stored::Parked {
            subscriber: subscriber.0.to_vec(),
            recording: recording.map_or_else(Vec::new, |recording| recording.0.to_vec()),
            parts,
            audio_due: 0,
            facts_due: 0,
            asked_by: order.actor.name.clone(),
            asked_for: order.actor.on_behalf_of.clone().unwrap_or_default(),
            asked_ms: self.clock.now().0,
            opening_drawn: promise.drawn && !opening.is_empty(),
            opening,
            receipt: promise.id.0.to_vec(),
            commitment: commitment.clone(),
        };
        let _one = self.holds.parking().await;
        let mut changes = and;
        let waiting = self.waits_already(wanted, &row)?;
        let hold: &Placed = match &waiting {
            // What a floor left behind there waits here from now on, under the receipt that it was promised.
            Some((lifted, name)) if lifted.lifted => {
                row = self.parked_row(lifted, row)?.1;
                changes.push(Change::DropValue { name: name.clone() });
                hold
            }
            Some((other, _)) => other,
            None => hold,
        };
        let (change, row) = self.parked_row(hold, row)?;
        changes.push(change);
        changes.extend(self.audit_parked(&order.actor, wanted, hold).await?);
        self.keys.commit(Mutation::new(changes)).await?;
        let by = format!("hold {}", hold.id);
        if row.commitment.is_empty() {
            return Ok((by, Some(promised(&row)?.told(order.opening))));
        }
        let id = receipt_id(&row)?;
        if row.commitment == commitment {
            return Ok((by, Some(Promised { id, ..promise.told(order.opening) })));
        }
        let told = format!("{by}, as somebody asked before; what opens its receipt {id} was told to them alone");
        Ok((told, None))
    }

    /// The hold under which an erasure of the same waits already, and its row: another one stands in its way too, and is met
    /// first now; or it was lifted, and a floor or restriction kept what waited.
    fn waits_already(&self, wanted: Wanted, row: &stored::Parked) -> Result<Option<(Arc<Placed>, ValueName)>, Error> {
        for hold in self.holds.of(wanted.tenant()) {
            // A lifted one may be done and forgotten at any moment.
            let Some(holder) = self.keys.period(hold.tenant, hold.period)? else { continue };
            let secret = holder.secret;
            let name = parked_name(&hold, &secret, &row.subscriber, &row.recording);
            let Some(bytes) = self.keys.value(&name)? else { continue };
            let waits: stored::Parked = values::open(&bytes, &secret, &name)?;
            if waits.parts != 0 {
                return Ok(Some((hold, name)));
            }
        }
        Ok(None)
    }

    /// Parks the expiry of parts of a recording: their due minutes wait with it, and leave the entry in the same command.
    pub(crate) async fn park_expiry(
        &self,
        _locks: (&Standing, &Settled),
        hold: &Placed,
        at: RecordingPath,
        parts: Parts,
    ) -> Result<(), Error> {
        let _one = self.holds.parking().await;
        let Some(entry) = self.keys.entry(at)? else { return Ok(()) };
        let mut keeping = entry.keeping;
        let take = |asked: bool, due: &mut Minute| match asked && *due != Minute::NEVER {
            true => std::mem::replace(due, Minute::NEVER).0,
            false => 0,
        };
        let row = stored::Parked {
            subscriber: at.subscriber.0.to_vec(),
            recording: at.recording.0.to_vec(),
            parts: 0,
            audio_due: take(parts.audio, &mut keeping.audio_due),
            facts_due: take(parts.facts, &mut keeping.facts_due),
            asked_ms: self.clock.now().0,
            ..stored::Parked::default()
        };
        let mut changes = vec![self.parked_row(hold, row)?.0, Change::SetKeeping { at, keeping }];
        changes.extend(self.audit_parked(&Actor::gateway(), Wanted::Recording(at, parts), hold).await?);
        self.keys.commit(Mutation::new(changes)).await?;
        Ok(())
    }

    /// The log's entry of an erasure or expiry that waits for a hold.
    async fn audit_parked(&self, actor: &Actor, wanted: Wanted, hold: &Placed) -> Result<Vec<Change>, Error> {
        let about = self.about_wanted(wanted)?;
        let event = Event::new(Action::ErasePark, about).ended(Outcome::Parked).referring_to(hold.id.0);
        self.audit(actor, event).await
    }

    /// What an entry about a wish to erase is about: it may not come true, so the thing itself.
    pub(crate) fn about_wanted(&self, wanted: Wanted) -> Result<About, Error> {
        match wanted {
            Wanted::Recording(at, _) => self.about_recording(at),
            Wanted::Subscriber(tenant, subscriber) => Ok(About::Subscriber(tenant, subscriber)),
            Wanted::Tenant(tenant) => Ok(About::Tenant(tenant)),
        }
    }

    /// The row under a hold, joined with what waits there for the same thing; and what it holds then.
    fn parked_row(&self, hold: &Placed, mut row: stored::Parked) -> Result<(Change, stored::Parked), Error> {
        let secret = self.hold_secret(hold)?;
        let name = parked_name(hold, &secret, &row.subscriber, &row.recording);
        if let Some(bytes) = self.keys.value(&name)? {
            let before: stored::Parked = values::open(&bytes, &secret, &name)?;
            row.parts |= before.parts;
            row.audio_due = if row.audio_due == 0 { before.audio_due } else { row.audio_due };
            row.facts_due = if row.facts_due == 0 { before.facts_due } else { row.facts_due };
            // The first who asked stays: the erasure is theirs, and so are its receipt and what opens it.
            if before.parts != 0 {
                row.asked_by = before.asked_by;
                row.asked_for = before.asked_for;
                row.asked_ms = before.asked_ms;
                row.opening = before.opening;
                row.opening_drawn = before.opening_drawn;
                row.receipt = before.receipt;
                row.commitment = before.commitment;
            }
        }
        let envelope = values::seal(&row, &secret, &name);
        Ok((Change::PutValue { owner: Owner::Period(hold.tenant, hold.period), name, envelope }, row))
    }

    fn parked_under(&self, hold: &Placed) -> Result<Vec<(Vec<u8>, stored::Parked)>, Error> {
        values::read_all(&self.keys, hold.row, Kind::Parked, &self.hold_secret(hold)?)
    }

    /// How many erasures and expiries wait.
    pub(crate) fn count_parked(&self) -> Result<u64, Error> {
        let mut parked = 0;
        for hold in self.holds.all() {
            parked += self.keys.values(hold.row, Kind::Parked)?.len() as u64;
        }
        Ok(parked)
    }

    /// Does what waited for a hold that was lifted.
    pub(crate) async fn run_parked(self: &Arc<Self>, hold: &Placed) -> Result<Ran, Error> {
        let mut ran = Ran::default();
        let secret = self.hold_secret(hold)?;
        let rows = self.keys.values(hold.row, Kind::Parked)?;
        for together in rows.chunks(TOGETHER) {
            let mut read = Vec::new();
            for (suffix, _) in together {
                let name = values::name_with(hold.row, Kind::Parked, suffix);
                // As it is now: what was parked again behind another hold has moved there.
                let Some(bytes) = self.keys.value(&name)? else { continue };
                let row: stored::Parked = values::open(&bytes, &secret, &name)?;
                read.push((place(hold, &row)?, row, name));
            }
            let mut running = JoinSet::new();
            for (wanted, row, name) in read {
                let inner = self.clone();
                running.spawn(async move { inner.run_one(wanted, row, name).await });
            }
            let mut failed = Ok(());
            for done in all_of(running).await {
                match done {
                    Ok(done) => ran.add(done),
                    // It went in another way since its row was read; the next look drops the row.
                    Err(Error::Erased) => ran.left += 1,
                    Err(error) => failed = failed.and(Err(error)),
                }
            }
            failed?;
        }
        Ok(ran)
    }

    /// Runs one row: erases, or moves it, and gives back the due minutes of what stays.
    async fn run_one(self: Arc<Self>, wanted: Wanted, row: stored::Parked, name: ValueName) -> Result<Ran, Error> {
        let drop_row = || Change::DropValue { name: name.clone() };
        let erased = match wanted {
            Wanted::Recording(_, parts) => parts,
            Wanted::Subscriber(..) | Wanted::Tenant(_) => Parts::BOTH,
        };
        {
            let _alone = self.keeping.write().await;
            let again = self.due_again(wanted, &row, erased)?;
            if !again.is_empty() {
                self.keys.commit(Mutation::new(again)).await?;
            }
        }
        if row.parts == 0 {
            self.keys.commit(Mutation::new(vec![drop_row()])).await?;
            return Ok(Ran { expiries: 1, ..Ran::default() });
        }
        let commitment = match row.commitment.is_empty() {
            true => None,
            false => Some(Hash::try_from(row.commitment.as_slice()).map_err(|_| corrupt())?),
        };
        let promised = commitment.is_none().then(|| promised(&row)).transpose()?;
        let id = receipt_id(&row)?;
        let told = self.keys.receipt(id)?.is_some();
        let mut and = vec![drop_row()];
        if let Some(promised) = promised.as_ref().filter(|promised| promised.drawn && !told) {
            and.extend(self.inbox_put(wanted.tenant(), promised.id, promised.opening).await?);
        }
        if self.is_gone(wanted)? {
            if told {
                self.keys.commit(Mutation::new(and)).await?;
                return Ok(Ran::default());
            }
            let commitment = match (commitment, &promised) {
                (Some(commitment), _) => commitment,
                (None, Some(promised)) => receipt::commitment(&promised.opening, &self.receipt_scope(wanted)?),
                (None, None) => return Err(corrupt()),
            };
            return self.nothing_left(wanted, &row, (id, commitment), and).await;
        }
        // Where its receipt is there, more was asked for under it after it had run: that has a receipt of its own.
        let order = Order {
            actor: asked_by(&row),
            opening: promised.map(|promised| promised.opening),
            receipt: (!told).then_some(id),
            commitment: commitment.filter(|_| !told),
        };
        match self.forget(&order, wanted, and).await? {
            Forgot::Done(erasure) => Ok(Ran { erased: 1, receipts: vec![erasure.receipt], ..Ran::default() }),
            Forgot::Blocked(Blocked::Hold(other), standing) => {
                let _one = self.holds.parking().await;
                let changes = vec![self.parked_row(&other, row)?.0, drop_row()];
                self.keys.commit(Mutation::new(changes)).await?;
                drop(standing);
                Ok(Ran { moved: 1, ..Ran::default() })
            }
            Forgot::Blocked(..) => Ok(Ran { left: 1, ..Ran::default() }),
        }
    }

    /// Whether what a row waits for went in another way: with its subscriber, in a purge, or because it was asked for again
    /// when nothing stood in the way any more.
    fn is_gone(&self, wanted: Wanted) -> Result<bool, Error> {
        Ok(match wanted {
            Wanted::Recording(at, _) => self.keys.entry(at)?.is_none(),
            Wanted::Subscriber(tenant, subscriber) => self.keys.subscriber_name(tenant, subscriber).is_none(),
            Wanted::Tenant(_) => false,
        })
    }

    /// Drops the row of what is gone. Another receipt says that it was destroyed; the one that was promised says that nothing
    /// was left, so that whoever waits for it finds it.
    async fn nothing_left(
        &self,
        wanted: Wanted,
        row: &stored::Parked,
        (id, commitment): (ReceiptId, Hash),
        mut and: Vec<Change>,
    ) -> Result<Ran, Error> {
        let (_, receipt) = self.receipt_over(wanted, commitment)?;
        and.push(Change::PutReceipt { id, body: receipt.encode_to_vec() });
        and.extend(self.audit(&asked_by(row), done(Action::EraseDone, About::Tenant(wanted.tenant()), id)).await?);
        self.keys.commit(Mutation { changes: and, receipt: Some(id) }).await?;
        self.state_destroyed(id, receipt, false, None).await?;
        Ok(Ran { erased: 1, receipts: vec![id], ..Ran::default() })
    }

    /// The change that gives an entry back the due minutes that waited, but for what is being erased.
    fn due_again(&self, wanted: Wanted, row: &stored::Parked, erased: Parts) -> Result<Vec<Change>, Error> {
        let Wanted::Recording(at, _) = wanted else { return Ok(Vec::new()) };
        let Some(entry) = self.keys.entry(at)? else { return Ok(Vec::new()) };
        let back = |waits: u32, present: bool, erased: bool, due: Minute| {
            let wanted = waits != 0 && present && !erased && due == Minute::NEVER;
            if wanted { Minute(waits) } else { due }
        };
        let keeping = Keeping {
            audio_due: back(row.audio_due, entry.audio_present, erased.audio, entry.keeping.audio_due),
            facts_due: back(row.facts_due, entry.facts_present, erased.facts, entry.keeping.facts_due),
            ..entry.keeping
        };
        Ok(if keeping == entry.keeping { Vec::new() } else { vec![Change::SetKeeping { at, keeping }] })
    }
}

/// One row for one thing under one hold, however often it is asked for.
fn parked_name(hold: &Placed, secret: &Secret, subscriber: &[u8], recording: &[u8]) -> ValueName {
    let suffix = derive::<16>(secret.expose(), Label::ParkedRow, &[subscriber, recording]);
    values::name_with(hold.row, Kind::Parked, suffix.as_slice())
}
