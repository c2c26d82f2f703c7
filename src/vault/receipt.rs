//! Receipts: every erasure's signed, logged statement, and the second one when the ciphertext is gone (I8).
//!
//! # Why no erasure is without its receipt, and no receipt without its erasure
//! The erasing command carries a row in clear, named by the receipt's random id, in the state *sealed*; the doomed rows of
//! what falls carry the same id. The command returns when the slot has destroyed the root of before. Then a second command
//! logs the statement and rewrites the row as *stated*. By cases:
//! - *Killed before the commit point of the first*: there is neither erasure nor row.
//! - *Killed behind it, before the second*: the start completes the erasure (`keys::start`), finds the row, and states it.
//!   The generation is read anew: what was asked for lay under the one that the row names and lies under none of the
//!   present ones, and every root between is destroyed. So the statement is true, if wider.
//! - *Not every old root can be destroyed yet* (the backup is away, too many slots are): the second command logs the statement
//!   *sealed* and leaves the row so; a third says *destroyed* when it is true, and takes its place. Killed before the second:
//!   the start makes it.
//! - *A session did not end when it was cut*: the key is destroyed and a copy may be in memory. The row stays sealed, and
//!   the next start states it, when that memory is gone.
//! - *The sweeper is done before the first statement is*: the second waits for the first (`swept_early`); a kill
//!   between leaves a stated row with nothing doomed under it, which the start finds.
//! - *The same is erased again*: nothing lives, nothing is erased; the receipt says that nothing was left.
//!
//! What a row holds is fit for publication: a commitment, which only its opening ties to a name, times, generations. The
//! gateway keeps no opening: where one lies in an inbox or in the row of what waits, it is of a recording, whose id is random,
//! or of a tenant, under its own secret. Of a subscriber none is ever kept, since numbers can be tried.
//!
//! # What waits
//! An erasure that is parked, or a purge that waits, has its receipt's id from the moment it is asked for ([`Promise`]): else
//! nobody who asked could find the receipt of what runs by itself days later. Id and opening (of a subscriber, id and
//! commitment) lie, sealed, in the row of what waits, under a secret that goes with it, and no row of a receipt is there before the erasure is.

use super::{Error, Inner, Promised, Scope, Vault, audit, inbox::Content};
use crate::{
    audit::{
        Hash, leaf, proof,
        receipt::{About, Opening, Parts, Slot, State, Statement},
        verify,
    },
    crypto::random,
    domain::{
        id::{ReceiptId, RowId, TenantHandle},
        time::Timestamp,
    },
    keys::{Change, Mutation, SlotsReport, Standing},
    proto::stored,
};
use prost::Message as _;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The row holds an erasure that is durable and not known to be destroyed; that may be stated.
const SEALED: u32 = 1;
/// The row holds a statement.
const STATED: u32 = 2;
/// Statements that one receipt may have in the log: sealed, then destroyed.
const STATEMENTS: usize = 2;
/// Most receipts in one answer.
pub const MAX_LIST: usize = 1000;

/// What memory knows of receipts; rebuilt at the start.
#[derive(Default)]
pub(crate) struct Receipts(Mutex<Open>);

#[derive(Default)]
struct Open {
    /// Ciphertext is left: when it is to be gone.
    unswept: HashMap<ReceiptId, Timestamp>,
    /// The ciphertext went before the first statement was made.
    swept_early: HashSet<ReceiptId>,
}

impl Receipts {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many should be swept by now.
    pub fn overdue(&self, now: Timestamp) -> u64 {
        self.open().unswept.values().filter(|gone_by| **gone_by < now).count() as u64
    }
}

/// A receipt that is about to be earned.
pub(crate) struct Pending {
    /// Its id.
    pub id: ReceiptId,
    /// The text that it commits to; empty for a batch.
    pub scope: String,
    /// What opens the commitment. Whoever drew it has it; the gateway forgets it with this.
    pub opening: Opening,
    /// What is kept of it.
    pub row: stored::Receipt,
}

/// What is settled of the receipt of an erasure that waits. It lies in the sealed row of what waits.
#[derive(Clone, Copy)]
pub(crate) struct Promise {
    /// The id that it will have.
    pub id: ReceiptId,
    /// What will open its commitment.
    pub opening: Opening,
    /// The gateway drew it.
    pub drawn: bool,
}

impl Promise {
    /// Of an erasure that is to wait; the gateway draws the opening where none was sent.
    pub fn new(sent: Option<Opening>) -> Self {
        Self { id: ReceiptId(random()), opening: sent.unwrap_or_else(random), drawn: sent.is_none() }
    }

    /// From its row.
    pub fn read(id: &[u8], opening: &[u8], drawn: bool) -> Option<Self> {
        Some(Self { id: ReceiptId::from_slice(id)?, opening: opening.try_into().ok()?, drawn })
    }

    /// As it is told to somebody who sent this opening.
    pub fn told(self, sent: Option<Opening>) -> Promised {
        Promised { id: self.id, opening: (sent != Some(self.opening)).then_some(self.opening) }
    }
}

/// A receipt as it is shown.
pub struct Receipt {
    /// Its id.
    pub id: ReceiptId,
    /// The file; none before it is stated, while the backup lacks its statement, and in lists.
    pub text: Option<String>,
    /// Stated in the log as more than sealed.
    pub stated: bool,
    /// The receipt which says that the ciphertext is gone.
    pub swept_by: Option<ReceiptId>,
    /// The one it follows.
    pub follows: Option<ReceiptId>,
    /// When it was asked for.
    pub requested: Timestamp,
    /// When the ciphertext is gone at the latest, while some is left.
    pub gone_by: Option<Timestamp>,
    /// That moment has passed.
    pub overdue: bool,
}

/// How long an answer waits for its receipt to be in the backup.
const BACKED_WITHIN: Duration = Duration::from_secs(5);

/// States an erasure that was sealed, as soon as it is destroyed. A stop leaves that to the next start.
pub(crate) async fn state_later(
    inner: Arc<Inner>,
    id: ReceiptId,
    row: stored::Receipt,
    erased: bool,
    generations: Option<(u64, u64)>,
    number: u64,
) {
    tokio::select! {
        () = inner.stopping.cancelled() => return,
        () = inner.keys.destroyed(number) => {}
    }
    if let Err(error) = inner.state_destroyed(id, row, erased, generations).await {
        tracing::error!(%error, receipt = %id, "a receipt cannot be stated; the next start tries again");
    }
}

/// States what a stop left unstated; what is sealed only, once it is destroyed.
pub(crate) async fn settle(inner: Arc<Inner>, due: Vec<ReceiptId>) {
    if due.is_empty() {
        return;
    }
    if !inner.keys.all_destroyed() {
        for id in &due {
            if let Err(error) = inner.settle_sealed(*id).await {
                tracing::error!(%error, receipt = %id, "a receipt cannot be stated; the next start tries again");
            }
        }
    }
    tokio::select! {
        () = inner.stopping.cancelled() => return,
        () = inner.keys.destroyed(inner.keys.commands()) => {}
    }
    for id in due {
        if let Err(error) = inner.settle_receipt(id).await {
            tracing::error!(%error, receipt = %id, "a receipt cannot be stated; the next start tries again");
        }
    }
}

impl Vault {
    /// Waits a moment until the backup has what there is now, so that heads, proofs and receipts, which leave only for what is
    /// in it, speak of the present.
    pub async fn backed_soon(&self) {
        let keys = &self.0.keys;
        if keys.has_backup() {
            // Object storage that is away: they speak of what it has.
            let _ = tokio::time::timeout(BACKED_WITHIN, keys.backed_up(keys.commands())).await;
        }
    }

    /// A receipt by its id.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn receipt(&self, id: ReceiptId) -> Result<Receipt, Error> {
        let row = self.0.receipt_row(id)?.ok_or(Error::Unknown { what: "receipt" })?;
        let text = if row.statement.is_empty() { None } else { self.0.receipt_file(id, &row.statement)? };
        Ok(Receipt { text, ..self.0.shown_receipt(id, &row)? })
    }

    /// Receipts behind an id, in the order of ids; of one tenant's erasures, or all of them.
    ///
    /// # Errors
    /// `Unknown`: there is no such tenant, or not for this caller.
    pub fn receipts(
        &self,
        scope: &Scope,
        tenant: Option<&str>,
        open_only: bool,
        after: Option<ReceiptId>,
        limit: usize,
    ) -> Result<Vec<Receipt>, Error> {
        let (inner, limit) = (&self.0, limit.clamp(1, MAX_LIST));
        let mut receipts = Vec::new();
        let mut take = |id, row: stored::Receipt| -> Result<bool, Error> {
            let receipt = inner.shown_receipt(id, &row)?;
            if !open_only || (receipt.gone_by.is_some() && receipt.swept_by.is_none()) {
                receipts.push(receipt);
            }
            Ok(receipts.len() < limit)
        };
        match (tenant, scope) {
            (Some(name), _) => {
                let tenant = inner.find_in(scope, name)?;
                for id in inner.receipts_of(tenant)?.into_iter().filter(|id| after.is_none_or(|after| *id > after)) {
                    if let Some(row) = inner.receipt_row(id)?
                        && !take(id, row)?
                    {
                        break;
                    }
                }
            }
            (None, Scope::All) => {
                let mut behind = after;
                loop {
                    let page = inner.keys.receipts(behind, limit)?;
                    behind = page.last().map(|(id, _)| *id);
                    let last = page.len() < limit;
                    let mut room = true;
                    for (id, body) in page {
                        room = room && take(id, decoded(&body)?)?;
                    }
                    if last || !room {
                        break;
                    }
                }
            }
            (None, _) => return Err(Error::Unknown { what: "tenant" }),
        }
        Ok(receipts)
    }
}

impl Inner {
    /// Draws up a receipt.
    pub(crate) fn new_receipt(
        &self,
        about: About,
        parts: Parts,
        scopes: &[Hash],
        sweep_deadline_ms: i64,
    ) -> (ReceiptId, stored::Receipt) {
        let now = self.clock.now();
        let row = stored::Receipt {
            state: SEALED,
            about: about.number(),
            commitments: scopes.iter().map(|scope| scope.to_vec()).collect(),
            parts: parts.number(),
            requested_ms: now.0,
            generation_seen: self.keys.generation(),
            gone_by_ms: now.plus_ms(sweep_deadline_ms).0,
            ..stored::Receipt::default()
        };
        (ReceiptId(random()), row)
    }

    /// What puts the opening of a receipt into a tenant's inbox.
    pub(crate) async fn inbox_put(
        &self,
        tenant: TenantHandle,
        receipt: ReceiptId,
        opening: Opening,
    ) -> Result<Vec<Change>, Error> {
        self.inbox_changes(tenant, &Content::Receipt(receipt, opening)).await
    }

    /// How long the ciphertext of what is erased in a tenant may take to go: what its policy says, and no longer than the
    /// gateway's own deadline.
    pub(crate) fn sweep_deadline_ms(&self, tenant: TenantHandle) -> Result<i64, Error> {
        let now = self.clock.now();
        let promised = self.policy(tenant)?.sweep_deadline().after(now).0.saturating_sub(now.0);
        Ok(promised.min(self.config.sweep_deadline_ms))
    }

    /// The row that goes into the erasing command.
    pub(crate) fn sealed_receipt(&self, pending: &Pending) -> Change {
        Change::PutReceipt { id: pending.id, body: pending.row.encode_to_vec() }
    }

    /// States an erasure that is durable and not destroyed yet, in the log, and in its row; gives the receipt file, where the
    /// backup has it soon.
    pub(crate) async fn state_sealed(
        &self,
        id: ReceiptId,
        row: &mut stored::Receipt,
        generations: (u64, u64),
    ) -> Result<String, Error> {
        let statement = Statement { generations, ..self.statement(id, row, State::Sealed, &self.keys.slots())? };
        row.statement = statement.text();
        let number = self.keep_statement(id, row, &row.statement, Vec::new()).await?;
        // Where it is the backup that is away nobody waits for it twice.
        if self.keys.backup_status().is_some_and(|backup| backup.away) {
            return Ok(String::new());
        }
        self.file_when_backed(id, number, &row.statement).await
    }

    async fn file_when_backed(&self, id: ReceiptId, number: u64, text: &str) -> Result<String, Error> {
        // What leaves with a signature must not be lost with the node. Whoever gets no file asks for it later.
        let there = tokio::time::timeout(BACKED_WITHIN, self.keys.backed_up(number)).await;
        Ok(if there.is_ok() { self.receipt_file(id, text)?.unwrap_or_default() } else { String::new() })
    }

    /// What a start finds unstated.
    pub(super) async fn settle_sealed(&self, id: ReceiptId) -> Result<(), Error> {
        if let Some(mut row) = self.receipt_row(id)?
            && row.state == SEALED
            && row.statement.is_empty()
        {
            let generations = (row.generation_seen, self.keys.generation());
            self.state_sealed(id, &mut row, generations).await?;
        }
        Ok(())
    }

    /// States an erasure that is done, in the log; gives the receipt file. `generations` are those of the commit; none at a
    /// start, which does not know them.
    pub(crate) async fn state_destroyed(
        &self,
        id: ReceiptId,
        mut row: stored::Receipt,
        erased: bool,
        generations: Option<(u64, u64)>,
    ) -> Result<String, Error> {
        // Read behind the commit, so that the time is no earlier than the last copy's.
        let (slots, forgets) = self.keys.declared();
        let state = match (erased, forgets.last_copy(self.clock.now())) {
            (false, _) => State::NothingLeft,
            (true, Some(when)) => State::DestroyedBy(when),
            (true, None) => State::Destroyed,
        };
        let generations = generations.unwrap_or((row.generation_seen, self.keys.generation()));
        if !erased {
            row.gone_by_ms = 0;
        }
        let statement = Statement { generations, ..self.statement(id, &row, state, &slots)? };
        let text = statement.text();
        row.state = STATED;
        row.statement = text.clone();
        if erased {
            self.receipts.open().unswept.insert(id, Timestamp(row.gone_by_ms));
        }
        let number = self.keep_statement(id, &row, &text, Vec::new()).await?;
        // Whoever read the row before this command has left its mark by now, or sees the statement.
        let early = self.receipts.open().swept_early.remove(&id);
        if early {
            self.state_removed(id).await?;
        }
        self.file_when_backed(id, number, &text).await
    }

    /// The sweeper has removed the last of what fell under a receipt: the second one says so.
    pub(crate) async fn state_removed(&self, first: ReceiptId) -> Result<(), Error> {
        let row = {
            let mut open = self.receipts.open();
            let row = self.receipt_row(first)?;
            if row.as_ref().is_some_and(|row| row.state != STATED) {
                open.swept_early.insert(first);
            }
            row.filter(|row| row.state == STATED)
        };
        let Some(mut row) = row else { return Ok(()) };
        if !row.swept_by.is_empty() {
            return Ok(());
        }
        let told = Statement::parse(&row.statement).map_err(|_| damaged())?;
        let id = ReceiptId(random());
        let now = self.clock.now();
        let second = Statement {
            id,
            state: State::Removed,
            stated: now,
            ciphertext: told.ciphertext.iter().map(|(region, _)| (region.clone(), true)).collect(),
            gone_by: None,
            follows: Some(first),
            ..told
        };
        let text = second.text();
        let second = stored::Receipt {
            state: STATED,
            requested_ms: row.requested_ms,
            statement: text.clone(),
            follows: first.0.to_vec(),
            ..stored::Receipt::default()
        };
        row.swept_by = id.0.to_vec();
        let rewritten = Change::PutReceipt { id: first, body: row.encode_to_vec() };
        self.keep_statement(id, &second, &text, vec![rewritten]).await?;
        self.receipts.open().unswept.remove(&first);
        Ok(())
    }

    /// What a start finds: fills memory, and gives what has still to be stated.
    pub(crate) fn receipts_at_start(&self) -> Result<Vec<ReceiptId>, Error> {
        let (mut behind, mut due) = (None, Vec::new());
        loop {
            let page = self.keys.receipts(behind, MAX_LIST)?;
            let Some((last, _)) = page.last() else { return Ok(due) };
            behind = Some(*last);
            for (id, body) in page {
                let row = decoded(&body)?;
                if row.state == SEALED {
                    due.push(id);
                } else if row.gone_by_ms != 0 && row.swept_by.is_empty() {
                    self.receipts.open().unswept.insert(id, Timestamp(row.gone_by_ms));
                    due.push(id);
                }
            }
        }
    }

    async fn settle_receipt(&self, id: ReceiptId) -> Result<(), Error> {
        let Some(row) = self.receipt_row(id)? else { return Ok(()) };
        if row.state == SEALED {
            self.state_destroyed(id, row, true, None).await?;
        }
        if self.keys.doomed_under(id)? { Ok(()) } else { self.state_removed(id).await }
    }

    /// Logs a statement and keeps its row, in one command.
    async fn keep_statement(
        &self,
        id: ReceiptId,
        row: &stored::Receipt,
        text: &str,
        mut more: Vec<Change>,
    ) -> Result<u64, Error> {
        more.push(Change::Log { leaf: leaf::statement(text), under: Some(RowId(id.0)) });
        more.push(Change::PutReceipt { id, body: row.encode_to_vec() });
        Ok(self.keys.commit(Mutation::new(more)).await?.number)
    }

    fn statement(
        &self,
        id: ReceiptId,
        row: &stored::Receipt,
        state: State,
        slots: &SlotsReport,
    ) -> Result<Statement, Error> {
        let left = state != State::NothingLeft;
        Ok(Statement {
            id,
            gateway: self.log.key.verifier().origin().to_owned(),
            about: About::from_number(row.about).ok_or_else(damaged)?,
            scopes: row
                .commitments
                .iter()
                .map(|scope| Hash::try_from(scope.as_slice()).map_err(|_| damaged()))
                .collect::<Result<_, _>>()?,
            parts: Parts::from_number(row.parts).ok_or_else(damaged)?,
            state,
            requested: Timestamp(row.requested_ms),
            stated: self.clock.now(),
            generations: (row.generation_seen, row.generation_seen),
            slots: self.declared(slots),
            // Where nothing was left, an earlier receipt speaks of the ciphertext.
            ciphertext: if left {
                self.objects.regions().into_iter().map(|region| (region, false)).collect()
            } else {
                Vec::new()
            },
            gone_by: left.then_some(Timestamp(row.gone_by_ms)),
            follows: None,
        })
    }

    /// What each slot declares that takes part, and those that did and are gone.
    fn declared(&self, report: &SlotsReport) -> Vec<Slot> {
        let beside_store = self.config.slot_beside_store;
        let present = report.slots.iter().filter(|slot| slot.standing == Standing::Present);
        let declared = present.filter_map(|slot| slot.forgets).chain(report.departed);
        declared.map(|forgets| Slot { forgets: forgets.to_string(), beside_store }).collect()
    }

    /// The file of a receipt's last statement, with a proof to the present head of the log; none while the backup lacks it.
    fn receipt_file(&self, id: ReceiptId, statement: &str) -> Result<Option<String>, Error> {
        let index = self.keys.log_under(RowId(id.0), None, STATEMENTS)?.last().copied().ok_or_else(damaged)?;
        let head = self.head()?;
        if index >= head.size {
            return Ok(None);
        }
        let path = proof::inclusion(index, head.size, |at| self.keys.log_hashes(at)).map_err(audit::failed)?;
        Ok(Some(verify::write(&self.log.key, statement, index, head, &path)))
    }

    fn receipt_row(&self, id: ReceiptId) -> Result<Option<stored::Receipt>, Error> {
        self.keys.receipt(id)?.map(|body| decoded(&body)).transpose()
    }

    fn shown_receipt(&self, id: ReceiptId, row: &stored::Receipt) -> Result<Receipt, Error> {
        let swept_by = other(&row.swept_by)?;
        let open = row.gone_by_ms != 0 && swept_by.is_none();
        let gone_by = open.then_some(Timestamp(row.gone_by_ms));
        Ok(Receipt {
            id,
            text: None,
            stated: row.state == STATED,
            swept_by,
            follows: other(&row.follows)?,
            requested: Timestamp(row.requested_ms),
            gone_by,
            overdue: gone_by.is_some_and(|gone_by| gone_by < self.clock.now()),
        })
    }

    /// The receipts that entries of a tenant refer to, in the order of ids.
    fn receipts_of(&self, tenant: TenantHandle) -> Result<Vec<ReceiptId>, Error> {
        let mut ids: Vec<ReceiptId> = self.references_of(tenant)?.into_iter().map(ReceiptId).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

fn decoded(body: &[u8]) -> Result<stored::Receipt, Error> {
    stored::Receipt::decode(body).map_err(|_| damaged())
}

fn other(bytes: &[u8]) -> Result<Option<ReceiptId>, Error> {
    if bytes.is_empty() { Ok(None) } else { ReceiptId::from_slice(bytes).map(Some).ok_or_else(damaged) }
}

fn damaged() -> Error {
    Error::Corrupt("a receipt's row".to_owned())
}
