//! What stands in the way of an erasure, and the proof that nothing does.
//!
//! Three things stand in the way, asked in this order: a *restriction* (of the recording, its subscriber, a bound party or
//! the tenant), a *floor* that lies in the recording's entry, and a *hold*. The first two refuse; a hold parks.
//!
//! # No erasure without a proof
//! The changes that forget a recording, a subscriber or a tenant are made in this file alone, and only out of a
//! [`Clearance`]; a test reads the sources for it. There are three ways to come by one:
//! - [`Inner::clear`] asks for everything that is wanted, and gives a clearance over what is free. It holds the lock of
//!   [`super::holds`] shared, and the clearance keeps it until the erasure is durable. Placing and lifting take that lock
//!   alone. So either a hold is in the index before the question is asked, and the erasure parks; or it waits until the
//!   erasure is durable, and finds nothing. There is no third order.
//! - [`Clearance::of_a_refused_take`]: a file that differs from what its sender states, or a recording without a byte, of which
//!   nothing was ever acknowledged. Nothing was taken in: the sender is told so and still has what it sent, and would send it
//!   again under the same client id. A hold is on what is kept, and this never was. Where a part had been acknowledged as
//!   stored, it is asked like any other.
//! - [`Clearance::of_the_dead`]: what is left of a wrapped recording when somebody who is bound to it was erased is an entry
//!   whose secrets open no more. Their erasure was cleared, and takes this one with it.
//!
//! Periods need none: closing a day loses no count, a client id is no record of a call, and a hold's own period goes when
//! it is lifted. Binding a party seals the same secrets anew and loses none. Forgetting the old facts of a corrected
//! recording is an erasure of its facts and asks like any other.
//!
//! # When a floor is over
//! When the moment has surely come: by our clock *and* by the witness ([`super::witness`]). A rule that was just set counts for
//! entries that the pass over its tenant has not reached yet: the floor is worked out anew there, and never lowered.
//!
//! # What it costs
//! A recording: its entry and that of the call it was made from, two small rows, and the facts of both where a hold on a number
//! stands in its tenant. A subscriber or tenant: nothing per recording, unless the tenant has floors, restrictions, or holds
//! that only an entry can answer; then all entries below are read (and none is written). So the erasure itself costs the same
//! however much lies below (I6).
//!
//! # Facts that are gone
//! A hold on a number is matched against facts. Where the facts have been erased nobody can tell any more whose call it
//! was, neither we nor whoever asked for the hold: the recording is not covered, and placing says how many such there are
//! in its range. The other order does not arise: once the hold stands, the facts of what it covers are held too.

use super::{
    Error, Inner,
    holds::{Held, Placed},
    retention::Rules,
    tenants::Settings,
    values,
};
use crate::{
    crypto::secret::Secret,
    domain::{
        id::{RecordingHandle, SubscriberHandle, TenantHandle},
        party,
        time::{Minute, Timestamp},
    },
    keys::{Change, Parts, RecordingEntry, RecordingPath},
    proto::stored,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

/// Entries read at one time.
const PAGE: usize = 512;

/// What is to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// A recording, or a part of it.
    Recording(RecordingPath, Parts),
    /// A subscriber and everything below.
    Subscriber(TenantHandle, SubscriberHandle),
    /// A tenant and everything below.
    Tenant(TenantHandle),
}

impl Wanted {
    /// Its tenant.
    pub fn tenant(self) -> TenantHandle {
        match self {
            Wanted::Recording(at, _) => at.tenant,
            Wanted::Subscriber(tenant, _) | Wanted::Tenant(tenant) => tenant,
        }
    }

    /// Whether a recording lies in it.
    pub fn covers(self, at: &RecordingPath) -> bool {
        match self {
            Wanted::Recording(path, _) => *at == path,
            Wanted::Subscriber(tenant, subscriber) => at.tenant == tenant && at.subscriber == subscriber,
            Wanted::Tenant(tenant) => at.tenant == tenant,
        }
    }

    fn change(self) -> Change {
        match self {
            Wanted::Recording(at, parts) => Change::EraseRecording { at, parts },
            Wanted::Subscriber(tenant, subscriber) => Change::EraseSubscriber(tenant, subscriber),
            Wanted::Tenant(tenant) => Change::EraseTenant(tenant),
        }
    }
}

/// What stands in the way.
#[derive(Clone)]
pub(crate) enum Blocked {
    /// Kept, and not used.
    Restricted,
    /// A statutory minimum.
    Floor {
        /// From when on it may go.
        until: Timestamp,
        /// The law or duty.
        ground: String,
    },
    /// A hold; the erasure parks.
    Hold(Arc<Placed>),
}

impl std::fmt::Debug for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Blocked::Restricted => "Restricted",
            Blocked::Floor { .. } => "Floor",
            Blocked::Hold(_) => "Hold",
        })
    }
}

impl Blocked {
    /// Whether it ends by itself.
    pub fn is_floor(&self) -> bool {
        matches!(self, Blocked::Floor { .. })
    }

    /// As the caller hears of it.
    pub fn into_error(self) -> Error {
        match self {
            Blocked::Restricted => Error::Restricted,
            Blocked::Floor { until, ground } => Error::Floor { until, ground },
            Blocked::Hold(hold) => Error::Parked { by: format!("hold {}", hold.id), until: None, receipt: None },
        }
    }
}

/// While any copy of it lives no hold is placed and none is lifted.
#[derive(Clone)]
pub(crate) struct Standing {
    _lock: Arc<OwnedRwLockReadGuard<()>>,
}

/// While any copy of it lives no entry says anything new about how long it is kept, but by whoever has one. Taken behind
/// [`Standing`].
#[derive(Clone)]
pub(crate) struct Settled {
    _lock: Arc<OwnedRwLockWriteGuard<()>>,
}

/// The proof that nothing stands in the way of these erasures. It is used up by what it allows.
#[must_use]
pub(crate) struct Clearance {
    erases: Vec<Wanted>,
    _standing: Option<Standing>,
    /// Of expiries: what was due when they were cleared is so until they are durable.
    _settled: Option<Settled>,
}

impl Clearance {
    /// Of a recording that was refused while it was taken in; see the module's doc.
    pub fn of_a_refused_take(at: RecordingPath) -> Self {
        Self { erases: vec![Wanted::Recording(at, Parts::BOTH)], _standing: None, _settled: None }
    }

    /// Of entries that are left of what somebody bound to it took along: their secrets are gone already.
    pub fn of_the_dead(places: Vec<RecordingPath>) -> Self {
        let erases = places.into_iter().map(|at| Wanted::Recording(at, Parts::BOTH)).collect();
        Self { erases, _standing: None, _settled: None }
    }

    /// What may be forgotten.
    pub fn erases(&self) -> &[Wanted] {
        &self.erases
    }

    /// The changes that forget the facts of recordings and put others, under this secret, in their place. The clearance
    /// must live until they are durable.
    pub fn renewals(&self, facts: &Secret) -> Vec<Change> {
        let renewed = self.erases.iter().filter_map(|wanted| match wanted {
            Wanted::Recording(at, Parts::FACTS) => Some(Change::RenewFacts { at: *at, facts: facts.duplicate() }),
            _ => None,
        });
        renewed.collect()
    }

    /// The changes that forget it. The clearance must live until they are durable.
    pub fn changes(&self) -> Vec<Change> {
        self.erases.iter().map(|wanted| wanted.change()).collect()
    }
}

/// What is free, and what is not and why.
type Judged = (Vec<Wanted>, Vec<(Wanted, Blocked)>);
/// Is shown a recording and everything that stands in its way.
type Visit<'a> = dyn FnMut(RecordingPath, &RecordingEntry, &[Blocked]) -> Result<(), Error> + 'a;

/// The answer to what was wanted.
pub(crate) struct Cleared {
    /// Over what is free; none where nothing is.
    pub clearance: Option<Clearance>,
    /// What is not.
    pub blocked: Vec<(Wanted, Blocked)>,
    /// The lock, so that what is held can be parked before the hold is lifted.
    pub standing: Standing,
}

impl Inner {
    /// Asks whether anything stands in the way, and gives the proof for what is free.
    pub(crate) async fn clear(self: &Arc<Self>, wanted: Vec<Wanted>) -> Result<Cleared, Error> {
        self.make_sure(wanted.iter().map(|wanted| wanted.tenant())).await;
        let standing = self.standing().await;
        let (free, blocked) = self.judged(wanted).await?;
        let clearance =
            (!free.is_empty()).then(|| Clearance { erases: free, _standing: Some(standing.clone()), _settled: None });
        Ok(Cleared { clearance, blocked, standing })
    }

    /// Until it goes, no hold is placed and none is lifted.
    pub(crate) async fn standing(&self) -> Standing {
        Standing { _lock: Arc::new(self.holds.shared().await) }
    }

    /// Until it goes, nobody else writes how long something is kept. Whoever has it took [`Inner::standing`] first.
    pub(crate) async fn settled(&self, _standing: &Standing) -> Settled {
        Settled { _lock: Arc::new(self.keeping.clone().write_owned().await) }
    }

    /// Clears what has expired, and was found so under these locks. What is held is parked before this returns; the rest of
    /// what stands in the way is given back: floors and restrictions.
    pub(crate) async fn clear_expired(
        self: &Arc<Self>,
        wanted: Vec<Wanted>,
        standing: Standing,
        settled: Settled,
    ) -> Result<(Option<Clearance>, Vec<(Wanted, Blocked)>), Error> {
        let (free, blocked) = self.judged(wanted).await?;
        let mut rest = Vec::new();
        for (wanted, stands) in blocked {
            match (wanted, stands) {
                (Wanted::Recording(at, parts), Blocked::Hold(hold)) => {
                    self.park_expiry((&standing, &settled), &hold, at, parts).await?;
                }
                other => rest.push(other),
            }
        }
        let clearance =
            (!free.is_empty()).then(|| Clearance { erases: free, _standing: Some(standing), _settled: Some(settled) });
        Ok((clearance, rest))
    }

    async fn judged(self: &Arc<Self>, wanted: Vec<Wanted>) -> Result<Judged, Error> {
        let inner = self.clone();
        super::blocking(move || inner.judge(wanted)).await?
    }

    /// The same question without the lock: for what is shown, and before sessions are cut.
    pub(crate) fn judge(&self, wanted: Vec<Wanted>) -> Result<Judged, Error> {
        let (mut free, mut blocked) = (Vec::new(), Vec::new());
        let mut look: Option<Look<'_>> = None;
        for wanted in wanted {
            let mut at = match look.take() {
                Some(look) if look.tenant == wanted.tenant() => look,
                _ => self.look(wanted.tenant())?,
            };
            match at.wanted(wanted)? {
                None => free.push(wanted),
                Some(stands) => blocked.push((wanted, stands)),
            }
            look = Some(at);
        }
        Ok((free, blocked))
    }

    /// What stands in the way of erasing parts of a recording.
    pub(crate) fn blocked(
        &self,
        at: RecordingPath,
        entry: &RecordingEntry,
        parts: Parts,
    ) -> Result<Option<Blocked>, Error> {
        self.look(at.tenant)?.recording(at, entry, parts)
    }

    /// Whether a recording may be used: neither it, nor its subscriber, nor a bound party, nor the tenant is restricted.
    pub(crate) fn usable(&self, at: RecordingPath) -> Result<(), Error> {
        let entry = self.keys.entry(at)?.ok_or(Error::Erased)?;
        if self.look(at.tenant)?.restricted(at, &entry)? { Err(Error::Restricted) } else { Ok(()) }
    }

    /// Looks at what stands in a tenant, with its settings and holds as they are now.
    pub(crate) fn look(&self, tenant: TenantHandle) -> Result<Look<'_>, Error> {
        let (settings, _) = self.settings(tenant)?;
        let holds = self.holds.standing(tenant);
        let rules = match settings.due_revision < settings.policy_revision && !settings.grounds.is_empty() {
            true => Some(self.rules(tenant)?),
            false => None,
        };
        let now = self.surely();
        Ok(Look { inner: self, tenant, now, settings, rules, holds, subscribers: HashMap::new() })
    }
}

/// A look at one tenant: what is the same for all its recordings is read once.
pub(crate) struct Look<'a> {
    inner: &'a Inner,
    tenant: TenantHandle,
    /// What has surely come: a floor that no witness bears out as over still stands.
    now: Timestamp,
    settings: Settings,
    /// While entries are not yet brought up to them: floors of a rule that was just set count from when it was set.
    rules: Option<Rules>,
    holds: Vec<Arc<Placed>>,
    /// Which subscribers are restricted, as far as was asked.
    subscribers: HashMap<SubscriberHandle, bool>,
}

/// What a scope holds, and what stands in the way of erasing it.
#[derive(Default)]
pub(crate) struct Tally {
    /// Recordings of which anything is left.
    pub recordings: u64,
    /// With audio.
    pub audio: u64,
    /// With facts.
    pub facts: u64,
    /// Not used now.
    pub restricted: u64,
    /// Recordings of others that go with it.
    pub bound: u64,
    /// Floors by ground: the latest date, and how many.
    pub floors: BTreeMap<String, (Timestamp, u64)>,
    /// Holds, and how many recordings each covers.
    pub holds: Vec<(Arc<Placed>, u64)>,
}

impl Tally {
    fn count(&mut self, entry: &RecordingEntry, found: &[Blocked]) {
        self.recordings += 1;
        self.audio += u64::from(entry.audio_present);
        self.facts += u64::from(entry.facts_present);
        for blocked in found {
            match blocked {
                Blocked::Restricted => self.restricted += 1,
                Blocked::Floor { until, ground } => {
                    let floor = self.floors.entry(ground.clone()).or_insert((*until, 0));
                    *floor = (floor.0.max(*until), floor.1 + 1);
                }
                Blocked::Hold(hold) => match self.holds.iter_mut().find(|(known, _)| known.id == hold.id) {
                    Some((_, count)) => *count += 1,
                    None => self.holds.push((hold.clone(), 1)),
                },
            }
        }
    }

    /// The one thing to tell the caller.
    pub fn worst(&self) -> Option<Blocked> {
        if self.restricted > 0 {
            return Some(Blocked::Restricted);
        }
        let latest = self.floors.iter().max_by_key(|(_, (until, _))| *until);
        if let Some((ground, (until, _))) = latest {
            return Some(Blocked::Floor { until: *until, ground: ground.clone() });
        }
        self.holds.first().map(|(hold, _)| Blocked::Hold(hold.clone()))
    }
}

impl Look<'_> {
    fn wanted(&mut self, wanted: Wanted) -> Result<Option<Blocked>, Error> {
        match wanted {
            Wanted::Recording(at, parts) => match self.inner.keys.entry(at)? {
                Some(entry) if entry.lives() => self.recording(at, &entry, parts),
                _ => Ok(None),
            },
            Wanted::Subscriber(_, subscriber) => {
                if self.settings.restricted || self.subscriber_restricted(subscriber)? {
                    return Ok(Some(Blocked::Restricted));
                }
                if self.must_read_entries() {
                    let mut tally = Tally::default();
                    self.visit(subscriber, true, &mut |_, entry, found| {
                        tally.count(entry, found);
                        Ok(())
                    })?;
                    if let Some(worst) = tally.worst() {
                        return Ok(Some(worst));
                    }
                }
                // One on the subscriber itself, or on a recording of it, is told without a look at entries.
                let stands = self.holds.iter().find(|hold| match &hold.held {
                    Held::Tenant => true,
                    Held::Subscriber(held) => *held == subscriber,
                    Held::Recording(at) => at.subscriber == subscriber,
                    Held::Number { .. } => false,
                });
                Ok(stands.cloned().map(Blocked::Hold))
            }
            Wanted::Tenant(_) => {
                if self.settings.restricted {
                    return Ok(Some(Blocked::Restricted));
                }
                if self.must_read_entries() {
                    let tally = self.tally(None)?;
                    if let Some(worst) = tally.worst() {
                        return Ok(Some(worst));
                    }
                }
                // A hold would fall with its tenant, whatever it covers now.
                Ok(self.holds.first().cloned().map(Blocked::Hold))
            }
        }
    }

    /// Whether only entries can tell: there may be floors or restrictions, or a hold is on what an entry or its facts name.
    fn must_read_entries(&self) -> bool {
        let by_entry = |hold: &Arc<Placed>| match &hold.held {
            Held::Tenant => false,
            // Bound parties, and transcripts of a recording.
            Held::Subscriber(_) | Held::Recording(_) | Held::Number { .. } => true,
        };
        !self.settings.grounds.is_empty() || self.settings.ever_restricted || self.holds.iter().any(by_entry)
    }

    /// Counts one recording and what was made from it, as far as parts of it would go.
    pub fn one(&mut self, at: RecordingPath, parts: Parts, tally: &mut Tally) -> Result<(), Error> {
        let Some(entry) = self.inner.keys.entry(at)? else { return Ok(()) };
        let found = self.all(at, &entry, parts)?;
        tally.count(&entry, &found);
        for child in entry.children.iter().filter(|_| parts.audio) {
            self.one(RecordingPath { recording: *child, ..at }, Parts::BOTH, tally)?;
        }
        Ok(())
    }

    /// What lies in a subscriber, or in the whole tenant.
    pub fn tally(&mut self, subscriber: Option<SubscriberHandle>) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        let subscribers = match subscriber {
            Some(subscriber) => vec![subscriber],
            None => self.inner.keys.subscribers(self.tenant).into_iter().map(|(subscriber, _)| subscriber).collect(),
        };
        for own in subscribers {
            self.visit(own, subscriber.is_some(), &mut |at, entry, found| {
                tally.count(entry, found);
                tally.bound += u64::from(at.subscriber != own);
                Ok(())
            })?;
        }
        Ok(tally)
    }

    /// Counts one recording alone.
    pub fn count(&mut self, at: RecordingPath, tally: &mut Tally) -> Result<(), Error> {
        if let Some(entry) = self.inner.keys.entry(at)?.filter(RecordingEntry::lives) {
            let found = self.all(at, &entry, Parts::BOTH)?;
            tally.count(&entry, &found);
        }
        Ok(())
    }

    /// Visits the recordings of a subscriber with everything that stands in each one's way; with those of others that
    /// would go with the subscriber, where that is asked for.
    pub fn visit(
        &mut self,
        subscriber: SubscriberHandle,
        with_bound: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let (inner, tenant) = (self.inner, self.tenant);
        inner.visit_entries(tenant, subscriber, with_bound, &mut |at, entry| {
            let found = self.all(at, entry, Parts::BOTH)?;
            visit(at, entry, &found)
        })
    }

    /// What stands first in the way of erasing parts of a recording.
    pub fn recording(
        &mut self,
        at: RecordingPath,
        entry: &RecordingEntry,
        parts: Parts,
    ) -> Result<Option<Blocked>, Error> {
        if let Some(own) = self.all(at, entry, parts)?.into_iter().next() {
            return Ok(Some(own));
        }
        if parts.audio {
            // A transcript falls with its parent's audio.
            for child in &entry.children {
                let at = RecordingPath { recording: *child, ..at };
                if let Some(entry) = self.inner.keys.entry(at)?
                    && let Some(stands) = self.all(at, &entry, Parts::BOTH)?.into_iter().next()
                {
                    return Ok(Some(stands));
                }
            }
        }
        Ok(None)
    }

    /// Everything that stands in the way of one recording, in the order in which it is told.
    fn all(&mut self, at: RecordingPath, entry: &RecordingEntry, parts: Parts) -> Result<Vec<Blocked>, Error> {
        let mut found = Vec::new();
        if self.restricted(at, entry)? {
            found.push(Blocked::Restricted);
        }
        let keeping = match &self.rules {
            Some(rules) => self.inner.renewed_by(rules, at, entry)?,
            None => entry.keeping,
        };
        let floors = [
            (parts.audio && entry.audio_present, keeping.audio_floor),
            (parts.facts && entry.facts_present, keeping.facts_floor),
        ];
        let latest =
            floors.into_iter().filter_map(|(asked, floor)| asked.then_some(floor)).max().unwrap_or(Minute::NONE);
        if latest != Minute::NONE && latest.start() > self.now {
            let ground = self.settings.ground_text(keeping.ground).to_owned();
            found.push(Blocked::Floor { until: latest.start(), ground });
        }
        if self.holds.is_empty() {
            return Ok(found);
        }
        // Whatever holds a call holds what was made from it.
        let mut calls = vec![Call::new(at, entry.clone())];
        if let Some(recording) = entry.parent {
            let parent = RecordingPath { recording, ..at };
            calls.extend(self.inner.keys.entry(parent)?.map(|entry| Call::new(parent, entry)));
        }
        for hold in &self.holds {
            for call in &mut calls {
                if call.held_by(self.inner, &hold.held)? {
                    found.push(Blocked::Hold(hold.clone()));
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Whether a recording is kept and not used.
    pub fn restricted(&mut self, at: RecordingPath, entry: &RecordingEntry) -> Result<bool, Error> {
        if self.settings.restricted || entry.keeping.restricted {
            return Ok(true);
        }
        if !self.settings.ever_restricted {
            return Ok(false);
        }
        for subscriber in std::iter::once(&at.subscriber).chain(&entry.parties) {
            if self.subscriber_restricted(*subscriber)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn subscriber_restricted(&mut self, subscriber: SubscriberHandle) -> Result<bool, Error> {
        if let Some(known) = self.subscribers.get(&subscriber) {
            return Ok(*known);
        }
        let restricted = self.inner.subscriber_state(self.tenant, subscriber)?.is_some_and(|state| state.restricted);
        self.subscribers.insert(subscriber, restricted);
        Ok(restricted)
    }
}

/// A recording as holds are asked about it; its facts are read at most once.
struct Call {
    at: RecordingPath,
    entry: RecordingEntry,
    /// None: not read. Some(None): gone.
    told: Option<Option<Told>>,
}

impl Call {
    fn new(at: RecordingPath, entry: RecordingEntry) -> Self {
        Self { at, entry, told: None }
    }

    fn held_by(&mut self, inner: &Inner, held: &Held) -> Result<bool, Error> {
        Ok(match held {
            Held::Tenant => true,
            Held::Subscriber(held) => *held == self.at.subscriber || self.entry.parties.contains(held),
            Held::Recording(held) => *held == self.at,
            Held::Number { number, from, to } => {
                // A call that was over before the range began.
                let ended = self.entry.keeping.ended;
                if ended != Minute::NONE && ended.start() < *from {
                    return Ok(false);
                }
                let told = match &self.told {
                    Some(told) => told,
                    None => self.told.insert(inner.told(self.at)?),
                };
                told.as_ref().is_some_and(|told| told.matches(number, *from, *to))
            }
        })
    }
}

/// What a recording's facts tell a hold on a number.
pub(crate) struct Told {
    parties: Vec<zeroize::Zeroizing<String>>,
    start: Timestamp,
}

impl Told {
    /// Whether a number took part, in a call that began within a range.
    pub fn matches(&self, number: &str, from: Timestamp, to: Timestamp) -> bool {
        self.start >= from && self.start < to && self.parties.iter().any(|party| party.as_str() == number)
    }
}

impl Inner {
    /// Visits what lives of a subscriber's recordings; with those of others that would go with the subscriber, where that
    /// is asked for.
    pub(crate) fn visit_entries(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        with_bound: bool,
        visit: &mut dyn FnMut(RecordingPath, &RecordingEntry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut after: Option<RecordingHandle> = None;
        loop {
            let page = self.keys.entries(tenant, subscriber, after, PAGE)?;
            for (recording, entry) in page.iter().filter(|(_, entry)| entry.lives()) {
                visit(RecordingPath { tenant, subscriber, recording: *recording }, entry)?;
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(*last),
                _ => break,
            }
        }
        if with_bound {
            for at in self.keys.bound(tenant, subscriber)? {
                if let Some(entry) = self.keys.entry(at)?.filter(RecordingEntry::lives) {
                    visit(at, &entry)?;
                }
            }
        }
        Ok(())
    }

    /// Who took part and when, in plain spelling; none when the facts are gone. The subscriber counts as a party.
    pub(crate) fn told(&self, at: RecordingPath) -> Result<Option<Told>, Error> {
        let Some(leaf) = self.keys.facts_leaf(at)? else { return Ok(None) };
        let Some(secret) = leaf.facts else { return Ok(None) };
        let Some(facts) = values::read::<stored::Facts>(&self.keys, leaf.row, &secret)? else { return Ok(None) };
        let owner = self.keys.subscriber_name(at.tenant, at.subscriber);
        let parties = facts
            .parties
            .iter()
            .chain(owner.iter())
            .map(|party| zeroize::Zeroizing::new(party::plain(party)))
            .collect();
        Ok(Some(Told { parties, start: Timestamp(facts.start_ms) }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The types keep the promise of this module only where nobody else makes the changes.
    #[test]
    fn nothing_is_erased_without_a_clearance() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/vault");
        let mut folders = vec![root];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("reads") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                let made = ["EraseRecording", "EraseSubscriber", "EraseTenant", "RenewFacts"]
                    .iter()
                    .any(|change| text.contains(&format!("Change::{change}")));
                seen += usize::from(made);
                let allowed = path.ends_with("clearance.rs");
                assert!(!made || allowed, "{} erases without a clearance", path.display());
            }
        }
        assert_eq!(seen, 1, "the sources are read as they should be");
    }
}
