//! What was done, written into the log in the same command as its effect (I7), and shown again.
//!
//! Whoever changes something asks [`Inner::audit`] for changes and appends them to its own mutation: so there is no effect
//! without its entry and no entry without its effect, whatever crashes when. What an entry holds and why it has two sealed
//! parts is argued in [`crate::audit`]; here are the choices of secrets on which that rests:
//!
//! - *Evidence* lies under a period of the tenant (`Purpose::Evidence`, one a quarter). It outlives subscribers, so a
//!   subscriber who acts is named by role; the group's outlives tenants, so there an actor who does not reach every tenant
//!   is named by role. The period is erased `evidence_years` after its quarter; with the tenant it goes at once. Where a
//!   floor names a date, what it covers cannot be erased until then, so the tenant's entry stays, and the period with it.
//! - *Subject* lies under the secret of what the entry is about. Where that is gone already, it lies under a secret that
//!   nobody keeps: blank from the start. The caller names the lowest thing that lives on after its command: an erasure
//!   is about what lies above it.
//!
//! # From a subject to its entries
//! A `LogRef` lies beside the subject's other values and names the leaf by its hash, and by the size of the log before it:
//! the place in the log is known only when the command is applied, a little later. A reader looks from there on. For
//! the tail of a tenant, which goes by evidence, a bounded map in memory says what recent leaves are about; it holds
//! handles, and no secret.

use super::{Actor, Error, Inner, Scope, Vault, recording_id, values};
use crate::{
    audit::{
        Checkpoint, Hash, SigningKey,
        leaf::{self, Entry, Evidence, Leaf, Subject},
        proof::{self, ProofError},
    },
    crypto::{envelope::Kind, random, secret::Secret},
    domain::{
        audit::{Action, Outcome},
        id::{PeriodHandle, RecordingHandle, RecordingId, RowId, SubscriberHandle, TenantHandle},
        time::Timestamp,
    },
    keys::{Change, CommitError, Holder, Mutation, Owner, Purpose, ReadError, RecordingPath},
    proto::stored,
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// Leaves of which memory knows what they are about.
const RECENT: usize = 16_384;
/// How far behind its mark a leaf is looked for. Between the two lie the entries of commands that waited together.
const SEARCH: u64 = 65_536;
/// Most entries in one answer.
pub const MAX_TAIL: usize = 1000;
/// Recordings of a subscriber that its tail goes through.
const MAX_RECORDINGS: usize = 100_000;

/// What an entry is about: names the secret of its subject part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum About {
    /// The group itself.
    Group,
    /// A tenant.
    Tenant(TenantHandle),
    /// A subscriber.
    Subscriber(TenantHandle, SubscriberHandle),
    /// The audio of a recording.
    Audio(RecordingPath),
    /// The facts of a recording.
    Facts(RecordingPath),
}

impl About {
    fn tenant(self) -> Option<TenantHandle> {
        match self {
            About::Group => None,
            About::Tenant(tenant) | About::Subscriber(tenant, _) => Some(tenant),
            About::Audio(at) | About::Facts(at) => Some(at.tenant),
        }
    }

    fn subscriber(self) -> Option<SubscriberHandle> {
        match self {
            About::Group | About::Tenant(_) => None,
            About::Subscriber(_, subscriber) => Some(subscriber),
            About::Audio(at) | About::Facts(at) => Some(at.subscriber),
        }
    }
}

/// What was done.
pub(crate) struct Event {
    /// What.
    pub action: Action,
    /// About what.
    pub about: About,
    /// Id of the grant, receipt or hold that it refers to.
    pub grant: Option<[u8; 16]>,
    /// How it ended.
    pub outcome: Outcome,
    /// More.
    pub detail: Detail,
}

impl Event {
    /// Something that was done, with nothing to add.
    pub(crate) fn new(action: Action, about: About) -> Self {
        Self { action, about, grant: None, outcome: Outcome::Done, detail: Detail::default() }
    }

    /// The same of a tenant.
    pub(crate) fn of_tenant(action: Action, tenant: TenantHandle) -> Self {
        Self::new(action, About::Tenant(tenant))
    }

    /// It ended otherwise.
    pub(crate) fn ended(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    /// It refers to this grant, receipt or hold.
    pub(crate) fn referring_to(self, id: [u8; 16]) -> Self {
        Self { grant: Some(id), ..self }
    }
}

/// What an event has beside its action. Range and notes go into the subject part, the reason into the evidence.
#[derive(Default)]
pub(crate) struct Detail {
    /// The bytes that were heard.
    pub range: Option<Range<u64>>,
    /// A word of a fixed list, which tells of nobody.
    pub reason: Option<&'static str>,
    /// By name.
    pub notes: Vec<(&'static str, String)>,
}

/// What the vault keeps for its log.
pub(crate) struct Log {
    /// Signs checkpoints and receipts.
    pub key: Arc<SigningKey>,
    recent: Mutex<Recent>,
}

impl Log {
    /// Nothing is known of earlier leaves.
    pub fn new(key: Arc<SigningKey>) -> Self {
        Self { key, recent: Mutex::default() }
    }
}

#[derive(Default)]
struct Recent {
    /// None: it is gone. That tells no more than trying every secret that lives on the leaf would.
    about: HashMap<Hash, Option<About>>,
    order: VecDeque<Hash>,
}

/// Entries of what to show.
pub enum TailOf {
    /// The group's own.
    Group,
    /// A tenant's.
    Tenant(String),
    /// Those about a subscriber and its recordings.
    Subscriber {
        /// Tenant, by name.
        tenant: String,
        /// Subscriber, by name.
        subscriber: String,
    },
    /// Those about a recording.
    Recording(RecordingId),
}

/// An entry as it is shown.
pub struct AuditEntry {
    /// Its place in the log.
    pub index: u64,
    /// The leaf as it is in the log.
    pub leaf: Vec<u8>,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// For whom.
    pub on_behalf_of: Option<String>,
    /// What.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// Grant or receipt.
    pub reference: Option<[u8; 16]>,
    /// A word.
    pub reason: Option<String>,
    /// About whom.
    pub subject: SubjectView,
}

/// The subject part of an entry.
pub enum SubjectView {
    /// It could be read.
    Open {
        /// Name of the subscriber, while it lives.
        subscriber: Option<String>,
        /// The recording.
        recording: Option<RecordingId>,
        /// Name of the subscriber who acted.
        acting: Option<String>,
        /// What was heard.
        range: Option<Range<u64>>,
        /// More, by name.
        details: Vec<(String, String)>,
    },
    /// Its secret is destroyed.
    Erased,
    /// Nothing leads to its secret from here: ask by subscriber or recording.
    Sealed,
}

/// That an entry is in the log.
pub struct Inclusion {
    /// In the log of this many entries.
    pub size: u64,
    /// The entry's leaf hash.
    pub leaf: Hash,
    /// The path.
    pub hashes: Vec<Hash>,
}

impl Vault {
    /// The head of the log, signed.
    ///
    /// # Errors
    /// When the key store cannot be read.
    pub fn checkpoint(&self) -> Result<String, Error> {
        Ok(self.0.log.key.checkpoint(self.0.head()?))
    }

    /// The public key of checkpoints and receipts.
    pub fn verifier_key(&self) -> String {
        self.0.log.key.verifier().to_string()
    }

    /// That an entry is in the log of a size, or in the present one.
    ///
    /// # Errors
    /// `Invalid` names what is outside of the log.
    pub fn inclusion(&self, index: u64, size: Option<u64>) -> Result<Inclusion, Error> {
        let size = size.unwrap_or(self.0.keys.log_size_backed());
        self.0.within("size", size)?;
        let hashes = proof::inclusion(index, size, |at| self.0.keys.log_hashes(at)).map_err(|error| match error {
            ProofError::Outside => Error::Invalid { field: "index", remedy: "no entry has this index yet".to_owned() },
            other => failed(other),
        })?;
        let leaf =
            self.0.keys.log_leaf(index)?.ok_or_else(|| Error::Corrupt("a leaf of the log is missing".to_owned()))?;
        Ok(Inclusion { size, leaf: leaf::hash(&leaf), hashes })
    }

    /// That the log of a size, or the present one, extends an earlier one. Gives the size and the proof.
    ///
    /// # Errors
    /// `Invalid` names what is outside of the log.
    pub fn consistency(&self, old: u64, new: Option<u64>) -> Result<(u64, Vec<Hash>), Error> {
        let new = new.unwrap_or(self.0.keys.log_size_backed());
        self.0.within("new_size", new)?;
        let hashes = proof::consistency(old, new, |at| self.0.keys.log_hashes(at)).map_err(|error| match error {
            ProofError::Outside => {
                Error::Invalid { field: "old_size", remedy: "the log was never larger than it is".to_owned() }
            }
            other => failed(other),
        })?;
        Ok((new, hashes))
    }

    /// Entries behind an index, oldest first; without one, the last entries. At most [`MAX_TAIL`].
    ///
    /// # Errors
    /// `Unknown`: there is no such thing, or not for this caller.
    pub fn tail(&self, scope: &Scope, of: &TailOf, after: Option<u64>, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        let (inner, limit) = (&self.0, limit.clamp(1, MAX_TAIL));
        match of {
            TailOf::Group => match scope {
                Scope::All => match inner.existing_group() {
                    Some(group) => inner.tail_of_tenant(group, after, limit),
                    None => Ok(Vec::new()),
                },
                Scope::Tenants(_) | Scope::Own { .. } => Err(Error::Unknown { what: "tenant" }),
            },
            TailOf::Tenant(name) => inner.tail_of_tenant(inner.find_in(scope, name)?, after, limit),
            TailOf::Subscriber { tenant, subscriber } => {
                let tenant = inner.find_in(scope, tenant)?;
                let found = inner.keys.find_subscriber(tenant, subscriber);
                let subscriber = found.ok_or(Error::Unknown { what: "subscriber" })?;
                let mut about = vec![About::Subscriber(tenant, subscriber)];
                let recordings = inner.keys.facts_leaves(tenant, subscriber, None, MAX_RECORDINGS)?;
                about.extend(recordings.iter().flat_map(|leaf| of_recording(tenant, subscriber, leaf.recording)));
                inner.tail_of(tenant, &about, after, limit)
            }
            TailOf::Recording(id) => {
                let at = inner.locate(scope, *id)?.path;
                inner.keys.facts_leaf(at)?.ok_or(Error::Erased)?;
                inner.tail_of(at.tenant, &of_recording(at.tenant, at.subscriber, at.recording), after, limit)
            }
        }
    }
}

fn of_recording(tenant: TenantHandle, subscriber: SubscriberHandle, recording: RecordingHandle) -> [About; 2] {
    let at = RecordingPath { tenant, subscriber, recording };
    [About::Audio(at), About::Facts(at)]
}

/// The secret and row of a subject.
struct SubjectKey {
    owner: Owner,
    row: RowId,
    secret: Secret,
}

impl Inner {
    /// The changes that log an event: to be appended to the mutation of its effect. Makes the evidence period of the
    /// quarter where it is missing.
    pub(crate) async fn audit(&self, actor: &Actor, event: Event) -> Result<Vec<Change>, Error> {
        let now = self.clock.now();
        let tenant = match event.about.tenant() {
            Some(tenant) => tenant,
            None => self.group().await?,
        };
        let (_, row, secret) = self.period(tenant, Purpose::Evidence, now.day().quarter()).await?;
        let about = self.subject_key(event.about, tenant)?;
        Ok(self.entry(actor, event, now, tenant, &Holder { row, secret }, about))
    }

    /// Logs what has no effect in the key store (somebody hears or sees something), and returns once that is durable.
    pub(crate) async fn log_first(&self, actor: &Actor, event: Event) -> Result<(), Error> {
        match self.keys.commit(Mutation::new(self.audit(actor, event).await?)).await {
            Ok(_) => Ok(()),
            Err(CommitError::Gone) => Err(Error::Erased),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Inner::audit`], for a tenant that is made in the same mutation: appended behind its `AddTenant`.
    pub(crate) fn audit_birth(&self, actor: &Actor, tenant: TenantHandle, row: RowId, secret: &Secret) -> Vec<Change> {
        let now = self.clock.now();
        let evidence = Holder { row: RowId(random()), secret: Secret::random() };
        let period = Change::AddPeriod {
            tenant,
            period: PeriodHandle(random()),
            row: evidence.row,
            secret: evidence.secret.duplicate(),
            purpose: Purpose::Evidence,
            day: now.day().quarter(),
        };
        let about = SubjectKey { owner: Owner::Tenant(tenant), row, secret: secret.duplicate() };
        let event = Event {
            action: Action::TenantCreate,
            about: About::Tenant(tenant),
            grant: None,
            outcome: Outcome::Done,
            detail: Detail::default(),
        };
        let mut changes = vec![period];
        changes.extend(self.entry(actor, event, now, tenant, &evidence, Some(about)));
        changes
    }

    fn entry(
        &self,
        actor: &Actor,
        event: Event,
        at: Timestamp,
        tenant: TenantHandle,
        evidence: &Holder,
        about: Option<SubjectKey>,
    ) -> Vec<Change> {
        let (actor_name, on_behalf_of) = named(actor, event.about);
        let said = Evidence {
            at,
            actor: actor_name,
            on_behalf_of,
            action: event.action,
            outcome: event.outcome,
            reference: event.grant,
            reason: event.detail.reason.map(str::to_owned),
        };
        // Somebody who was delegated acts in the place of the subscriber whose data it reaches, and is not that subscriber.
        let own = actor.subscriber.as_deref().filter(|_| actor.on_behalf_of.is_none());
        let acting = own.and_then(|name| self.keys.find_subscriber(tenant, name));
        let subject = Subject {
            subscriber: event.about.subscriber(),
            recording: self.id_of(event.about),
            acting,
            range: event.detail.range,
            details: event.detail.notes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        let from = self.keys.log_size();
        let nobodys = Secret::random();
        let leaf =
            leaf::seal((&said, &evidence.secret), (&subject, about.as_ref().map_or(&nobodys, |about| &about.secret)));
        let hash = leaf::hash(&leaf);
        self.log.remember(hash, event.about);
        let mut changes = vec![Change::Log { leaf, under: Some(evidence.row) }];
        if let Some(about) = about {
            let reference = stored::LogRef { from, hash: hash.to_vec() };
            let name = values::name_with(about.row, Kind::LogRef, &suffix(event.about));
            let envelope = values::seal(&reference, &about.secret, &name);
            changes.push(Change::PutValue { owner: about.owner, name, envelope });
        }
        changes
    }

    /// The secret of what an entry is about; none where it is gone.
    fn subject_key(&self, about: About, tenant: TenantHandle) -> Result<Option<SubjectKey>, Error> {
        let holder = |owner, holder: Holder| SubjectKey { owner, row: holder.row, secret: holder.secret };
        Ok(match about {
            About::Group | About::Tenant(_) => {
                self.keys.tenant(tenant)?.map(|found| holder(Owner::Tenant(tenant), found))
            }
            About::Subscriber(tenant, subscriber) => {
                let found = self.keys.subscriber(tenant, subscriber)?;
                found.map(|found| holder(Owner::Subscriber(tenant, subscriber), found))
            }
            About::Audio(at) => self.keys.audio_leaf(at)?.and_then(|leaf| {
                leaf.audio.map(|secret| SubjectKey { owner: Owner::Audio(at), row: leaf.row, secret })
            }),
            About::Facts(at) => self.keys.facts_leaf(at)?.and_then(|leaf| {
                leaf.facts.map(|secret| SubjectKey { owner: Owner::Facts(at), row: leaf.row, secret })
            }),
        })
    }

    /// A recording as an entry is about it without opening its audio: its facts, or, where those are gone, its audio.
    pub(crate) fn about_recording(&self, at: RecordingPath) -> Result<About, Error> {
        let entry = self.keys.entry(at)?.ok_or(Error::Erased)?;
        Ok(if entry.facts_present { About::Facts(at) } else { About::Audio(at) })
    }

    fn id_of(&self, about: About) -> Option<RecordingId> {
        let (About::Audio(at) | About::Facts(at)) = about else { return None };
        let holder = self.keys.tenant(at.tenant).ok()??;
        Some(recording_id::issue(&holder.secret, at.subscriber, at.recording))
    }

    /// The newest head of the log that may leave with a signature: what it speaks of outlives this node, where there is a
    /// backup.
    pub(crate) fn head(&self) -> Result<Checkpoint, Error> {
        let size = self.keys.log_size_backed();
        let root = proof::root(size, |at| self.keys.log_hashes(at)).map_err(failed)?;
        Ok(Checkpoint { size, root })
    }

    fn within(&self, field: &'static str, size: u64) -> Result<(), Error> {
        let there = size <= self.keys.log_size_backed();
        let remedy = "the log has fewer entries, or the backup does not have them yet";
        if there { Ok(()) } else { Err(Error::Invalid { field, remedy: remedy.to_owned() }) }
    }

    /// The entries under the evidence of a tenant.
    fn tail_of_tenant(&self, tenant: TenantHandle, after: Option<u64>, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        let periods = self.evidence(tenant)?;
        let mut found: BTreeSet<(u64, usize)> = BTreeSet::new();
        for (at, period) in periods.iter().enumerate() {
            let mut behind = after;
            loop {
                let page = self.keys.log_under(period.row, behind, limit)?;
                found.extend(page.iter().map(|index| (*index, at)));
                // Behind an index the first ones are wanted, and otherwise the last ones.
                while after.is_none() && found.len() > limit {
                    found.pop_first();
                }
                behind = page.last().copied();
                if after.is_some() || page.len() < limit {
                    break;
                }
            }
        }
        found
            .into_iter()
            .take(limit)
            .filter_map(|(index, at)| self.show(index, &periods[at].secret, tenant, None).transpose())
            .collect()
    }

    /// Grants and receipts that entries of a tenant refer to.
    pub(crate) fn references_of(&self, tenant: TenantHandle) -> Result<Vec<[u8; 16]>, Error> {
        let mut references = Vec::new();
        for period in self.evidence(tenant)? {
            let mut behind = None;
            loop {
                let page = self.keys.log_under(period.row, behind, MAX_TAIL)?;
                for index in &page {
                    let leaf = self.keys.log_leaf(*index)?.map(|bytes| Leaf::parse(&bytes));
                    if let Some(Ok(Leaf::Entry(entry))) = leaf
                        && let Ok(said) = entry.evidence(&period.secret)
                    {
                        references.extend(said.reference);
                    }
                }
                behind = page.last().copied();
                if page.len() < MAX_TAIL {
                    break;
                }
            }
        }
        Ok(references)
    }

    /// The entries that references beside some subjects lead to.
    fn tail_of(
        &self,
        tenant: TenantHandle,
        about: &[About],
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, Error> {
        let mut found: BTreeSet<(u64, usize)> = BTreeSet::new();
        for (at, about) in about.iter().enumerate() {
            let Some(key) = self.subject_key(*about, tenant)? else { continue };
            for reference in self.references(&key, *about)? {
                if let Some(index) =
                    self.find_leaf(&reference)?.filter(|index| after.is_none_or(|after| *index > after))
                {
                    found.insert((index, at));
                }
                // As in the tail of a tenant.
                while found.len() > limit {
                    if after.is_some() {
                        found.pop_last()
                    } else {
                        found.pop_first()
                    };
                }
            }
        }
        let evidence = self.evidence(tenant)?;
        let mut entries = Vec::new();
        for (index, at) in found {
            for period in &evidence {
                if let Some(entry) = self.show(index, &period.secret, tenant, Some(about[at]))? {
                    entries.push(entry);
                    break;
                }
            }
        }
        Ok(entries)
    }

    /// The evidence keys of a tenant that live.
    fn evidence(&self, tenant: TenantHandle) -> Result<Vec<Holder>, Error> {
        let periods = self.keys.periods(tenant).into_iter().filter(|period| period.purpose == Purpose::Evidence);
        let mut holders = Vec::new();
        for period in periods {
            holders.extend(self.keys.period(tenant, period.handle)?);
        }
        Ok(holders)
    }

    fn references(&self, key: &SubjectKey, about: About) -> Result<Vec<stored::LogRef>, Error> {
        let first = suffix_head(about);
        let rows = self.keys.values(key.row, Kind::LogRef)?;
        rows.into_iter()
            .filter(|(suffix, _)| suffix.first() == Some(&first))
            .map(|(suffix, bytes)| {
                values::open(&bytes, &key.secret, &values::name_with(key.row, Kind::LogRef, &suffix))
            })
            .collect()
    }

    /// The place of a leaf in the log. One whose command never happened has none.
    fn find_leaf(&self, reference: &stored::LogRef) -> Result<Option<u64>, Error> {
        let end = self.keys.log_size().min(reference.from.saturating_add(SEARCH));
        for index in reference.from..end {
            if self.keys.log_leaf(index)?.is_some_and(|bytes| leaf::hash(&bytes)[..] == reference.hash[..]) {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// One entry; none when its evidence does not open under this key.
    fn show(
        &self,
        index: u64,
        evidence: &Secret,
        tenant: TenantHandle,
        about: Option<About>,
    ) -> Result<Option<AuditEntry>, Error> {
        let Some(bytes) = self.keys.log_leaf(index)? else { return Ok(None) };
        let damaged = || Error::Corrupt("a leaf of the audit log".to_owned());
        let Leaf::Entry(entry) = Leaf::parse(&bytes).map_err(|_| damaged())? else { return Ok(None) };
        let Ok(said) = entry.evidence(evidence) else { return Ok(None) };
        let subject = match about.map(Some).or_else(|| self.log.about(&leaf::hash(&bytes))) {
            Some(None) => SubjectView::Erased,
            known => self.show_subject(&entry, tenant, known.flatten())?,
        };
        Ok(Some(AuditEntry {
            index,
            leaf: bytes,
            at: said.at,
            actor: said.actor,
            on_behalf_of: said.on_behalf_of,
            action: said.action,
            outcome: said.outcome,
            reference: said.reference,
            reason: said.reason,
            subject,
        }))
    }

    fn show_subject(&self, entry: &Entry, tenant: TenantHandle, about: Option<About>) -> Result<SubjectView, Error> {
        // What is about the tenant itself opens without a hint.
        let known = about.is_some();
        let Some(key) = self.subject_key(about.unwrap_or(About::Tenant(tenant)), tenant)? else {
            return Ok(SubjectView::Erased);
        };
        let Ok(subject) = entry.subject(&key.secret) else {
            // Blank from the start, or a subject that nothing leads to.
            return Ok(if known { SubjectView::Erased } else { SubjectView::Sealed });
        };
        let name = |handle: Option<SubscriberHandle>| self.keys.subscriber_name(tenant, handle?);
        Ok(SubjectView::Open {
            subscriber: name(subject.subscriber),
            recording: subject.recording,
            acting: name(subject.acting),
            range: subject.range,
            details: subject.details,
        })
    }
}

impl Log {
    fn remember(&self, hash: Hash, about: About) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.about.insert(hash, Some(about));
        recent.order.push_back(hash);
        if recent.order.len() > RECENT
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.about.remove(&oldest);
        }
    }

    /// Forgets what leaves about what is gone were about, but for its being gone.
    pub(super) fn drop_of(&self, gone: impl Fn(About) -> bool) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for about in recent.about.values_mut() {
            about.take_if(|about| gone(*about));
        }
    }

    fn about(&self, hash: &Hash) -> Option<Option<About>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).about.get(hash).copied()
    }
}

/// How evidence names an actor: by role alone where the name would outlive whom it is about. A name says itself whose it is:
/// under a delegation the role is that of one end, and the other end has a name too.
fn named(actor: &Actor, about: About) -> (String, Option<String>) {
    let role = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let outlived = about == About::Group && !matches!(actor.scope, Scope::All);
    let told = |name: &str| {
        let hidden = outlived || role(name) == "subscriber";
        if hidden { role(name) } else { name.to_owned() }
    };
    (told(&actor.name), actor.on_behalf_of.as_deref().map(told))
}

/// References under the two leaves of a recording share its row: the first byte tells them apart.
fn suffix_head(about: About) -> u8 {
    match about {
        About::Audio(_) => 1,
        About::Facts(_) => 2,
        About::Group | About::Tenant(_) | About::Subscriber(..) => 0,
    }
}

fn suffix(about: About) -> [u8; 9] {
    let mut suffix = [0; 9];
    suffix[0] = suffix_head(about);
    suffix[1..].copy_from_slice(&random::<8>());
    suffix
}

pub(crate) fn failed(error: ProofError<ReadError>) -> Error {
    match error {
        ProofError::Read(error) => error.into(),
        other => Error::Corrupt(other.to_string()),
    }
}
