//! Recordings as readers see them: their secrets, leaf by leaf; their entries without secrets; those that are due.
//!
//! What is due is found from the top: a page's owner says when the first of what lies below is due, so a walk enters no page
//! that it need not. Neither the names of rows nor any index outside the sealed pages tells a time. It goes on where it was
//! when it has let go of the readers' lock, which it does every few pages: the writer waits for that lock, and everybody who
//! creates something waits for the writer.

use super::{
    super::{
        AudioLeaf, Due, FactsLeaf, PassedOver, ReadError, RecordingEntry, RecordingPath,
        page::{Entry, Leaf, Level, Link, Place, Recording, Under, place},
        tree::{self, NoPath, Pages as _},
        wrap::{Bond, Part},
    },
    KeyStore, Reading,
};
use crate::{
    crypto::secret::Secret,
    domain::{
        id::{RecordingHandle, SubscriberHandle, TenantHandle},
        time::Minute,
    },
};
use std::ops::ControlFlow;

/// Pages that are searched for what is due under one hold of the readers' lock: a page that no cache has takes some 70 µs. In
/// tests one, so that their few pages are many holds.
const PAGES_AT_A_TIME: usize = if cfg!(test) { 1 } else { 16 };

impl KeyStore {
    /// A recording, with its audio secret; none when neither leaf lives.
    pub fn audio_leaf(&self, at: RecordingPath) -> Result<Option<AudioLeaf>, ReadError> {
        let reading = self.read();
        reading.living(at, |recording| {
            let audio = reading.open(at, recording, Part::Audio)?;
            Ok(AudioLeaf { row: recording.row, kind: recording.kind, audio, objects: recording.objects.to_vec() })
        })
    }

    /// A recording, with its facts secret and never its audio secret; none when neither leaf lives.
    pub fn facts_leaf(&self, at: RecordingPath) -> Result<Option<FactsLeaf>, ReadError> {
        let reading = self.read();
        reading.living(at, |recording| reading.facts_leaf(at, recording))
    }

    /// The recordings of a subscriber behind `after` of which a leaf lives, ascending by handle. Empty when the subscriber
    /// does not live.
    pub fn facts_leaves(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        after: Option<RecordingHandle>,
        limit: usize,
    ) -> Result<Vec<FactsLeaf>, ReadError> {
        let reading = self.read();
        reading.recordings(tenant, subscriber, after, limit, |recording| {
            if !reading.lives(tenant, recording) {
                return Ok(None);
            }
            let at = RecordingPath { tenant, subscriber, recording: recording.handle };
            reading.facts_leaf(at, recording).map(Some)
        })
    }

    /// A recording's entry; none when it is not there. No secret is opened.
    pub fn entry(&self, at: RecordingPath) -> Result<Option<RecordingEntry>, ReadError> {
        let reading = self.read();
        reading.recording(at, |recording| Ok(Some(reading.entry(at.tenant, recording))))
    }

    /// The entries of a subscriber behind `after`, ascending by handle, also of what is dead and not removed yet. Empty when
    /// the subscriber does not live.
    pub fn entries(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        after: Option<RecordingHandle>,
        limit: usize,
    ) -> Result<Vec<(RecordingHandle, RecordingEntry)>, ReadError> {
        let reading = self.read();
        reading.recordings(tenant, subscriber, after, limit, |recording| {
            Ok(Some((recording.handle, reading.entry(tenant, recording))))
        })
    }

    /// Up to `limit` recordings that are due by now, behind one of them where it is named, in the order of the tree and in none of
    /// time, without those of tenants and subscribers that `passed` names. A restricted recording is never due.
    ///
    /// What comes or goes while it looks may be found or not.
    ///
    /// What is passed over is a set and no question: an answer would read the store while this holds readers' lock, and a
    /// second reader behind a writer that waits is a deadlock.
    pub fn due(
        &self,
        now: Minute,
        limit: usize,
        passed: &PassedOver,
        behind: Option<RecordingPath>,
    ) -> Result<Vec<Due>, ReadError> {
        let mut found: Vec<Due> = Vec::new();
        loop {
            let reading = self.0.shared.read_behind_writer();
            let (before, behind) = (found.len(), found.last().map(|due| due.at).or(behind));
            let mut search = DueSearch { reading: &reading, now, limit, passed, behind, pages: PAGES_AT_A_TIME, found };
            let flow = search.below(&reading.top(), Under::Top, tree::MAX_DEPTH)?;
            found = search.found;
            if flow.is_continue() || found.len() == before || found.len() >= limit {
                return Ok(found);
            }
        }
    }

    /// When the first recording of a tenant, or of all, is due.
    pub fn next_due(&self, tenant: Option<TenantHandle>) -> Result<Minute, ReadError> {
        let reading = self.read();
        match tenant {
            None => Ok(reading.page(&reading.top(), Under::Top)?.entries.due()),
            Some(tenant) => {
                let found = tree::tenant(&reading, &reading.top(), tenant, &mut NoPath)?.found();
                Ok(found.map_or(Minute::NEVER, |entry| entry.due()))
            }
        }
    }

    /// Recordings of others that a subscriber is bound to, so that they die with it (the wrapped ones).
    pub fn bound(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Result<Vec<RecordingPath>, ReadError> {
        let reading = self.read();
        let mut living = Vec::new();
        reading.walk(tenant, subscriber, None, &mut |entry| {
            if let Entry::Bound(bound) = entry {
                let at = RecordingPath { tenant, subscriber: bound.owner, recording: bound.handle };
                // An entry stays behind when the owner was erased.
                living.extend(reading.living(at, |_| Ok(at))?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(living)
    }
}

impl Reading<'_> {
    /// What `read` makes of a recording.
    fn recording<R>(
        &self,
        at: RecordingPath,
        read: impl FnOnce(&Recording) -> Result<Option<R>, ReadError>,
    ) -> Result<Option<R>, ReadError> {
        match tree::recording(self, &self.top(), at, &mut NoPath)?.found().as_deref() {
            Some(Entry::Recording(recording)) => read(recording),
            _ => Ok(None),
        }
    }

    /// The same of one of which a leaf may live.
    fn living<R>(
        &self,
        at: RecordingPath,
        read: impl FnOnce(&Recording) -> Result<R, ReadError>,
    ) -> Result<Option<R>, ReadError> {
        self.recording(
            at,
            |recording| {
                if self.lives(at.tenant, recording) { read(recording).map(Some) } else { Ok(None) }
            },
        )
    }

    /// Whether everybody lives whom a wrapped recording is bound to.
    fn lives(&self, tenant: TenantHandle, recording: &Recording) -> bool {
        let ties = recording.ties();
        !ties.wrapped || ties.parties.iter().all(|party| self.present.index.veil(tenant, *party).is_some())
    }

    /// Visits the entries of a subscriber, of none when it does not live.
    fn walk(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        after: Option<RecordingHandle>,
        visit: &mut impl FnMut(&Entry) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<(), ReadError> {
        let found = tree::subscriber(self, &self.top(), tenant, subscriber, &mut NoPath)?;
        let Some(account) = found.as_deref().and_then(tree::account) else { return Ok(()) };
        let under = Under::Subscriber(tenant, subscriber);
        tree::walk(self, &account.subtree, under, after.map(|handle| handle.0), visit)
    }

    /// What `read` makes of the recordings of a subscriber, until it made something of `limit`.
    fn recordings<R>(
        &self,
        tenant: TenantHandle,
        subscriber: SubscriberHandle,
        after: Option<RecordingHandle>,
        limit: usize,
        read: impl Fn(&Recording) -> Result<Option<R>, ReadError>,
    ) -> Result<Vec<R>, ReadError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.walk(tenant, subscriber, after, &mut |entry| {
            if let Entry::Recording(recording) = entry {
                found.extend(read(recording)?);
            }
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// A leaf's secret.
    fn open(&self, at: RecordingPath, recording: &Recording, part: Part) -> Result<Option<Secret>, ReadError> {
        #[cfg(test)]
        if part == Part::Audio {
            self.shared.audio_opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        let leaf = match part {
            Part::Audio => &recording.audio,
            Part::Facts => &recording.facts,
        };
        match leaf {
            None => Ok(None),
            Some(Leaf::Plain(secret)) => Ok(secret.open()),
            Some(Leaf::Wrapped(wrapped)) => {
                let bound = (at.subscriber, &recording.ties().parties[..]);
                let bond = Bond::of(self, &self.top(), at.tenant, bound, recording.row)?;
                Ok(bond.and_then(|bond| bond.unwrap(part, wrapped)))
            }
        }
    }

    fn facts_leaf(&self, at: RecordingPath, recording: &Recording) -> Result<FactsLeaf, ReadError> {
        Ok(FactsLeaf {
            recording: recording.handle,
            row: recording.row,
            kind: recording.kind,
            facts: self.open(at, recording, Part::Facts)?,
            audio_present: recording.audio.is_some(),
            keeping: recording.keeping,
        })
    }

    fn entry(&self, tenant: TenantHandle, recording: &Recording) -> RecordingEntry {
        let (ties, lives) = (recording.ties().clone(), self.lives(tenant, recording));
        RecordingEntry {
            row: recording.row,
            kind: recording.kind,
            keeping: recording.keeping,
            parties: ties.parties,
            wrapped: ties.wrapped,
            parent: ties.parent,
            children: ties.children,
            audio_present: lives && recording.audio.is_some(),
            facts_present: lives && recording.facts.is_some(),
            objects: recording.objects.len(),
        }
    }
}

/// One hold of the readers' lock.
struct DueSearch<'a> {
    reading: &'a Reading<'a>,
    now: Minute,
    limit: usize,
    passed: &'a PassedOver,
    /// Where it goes on: the last that was found under the hold before, to begin with the one that was named.
    behind: Option<RecordingPath>,
    /// With recordings in them, that may yet be entered.
    pages: usize,
    found: Vec<Due>,
}

impl DueSearch<'_> {
    /// Breaks where it was not to the end.
    fn below(&mut self, link: &Link, under: Under, depth: usize) -> Result<ControlFlow<()>, ReadError> {
        if depth == 0 {
            return Err(ReadError::Damaged("the tree is too deep"));
        }
        let (page, now) = (self.reading.page(link, under)?, self.now);
        let from = match (self.first(under), page.level) {
            (None, _) => 0,
            // A branch's entry reaches up to the next one.
            (Some(first), Level::Branch) => page.entries.up_to(&first).saturating_sub(1),
            (Some(first), Level::Recordings) => page.entries.up_to(&first),
            // An account may have more below it, where it is still there.
            (Some(first), Level::Tenants | Level::Subscribers) => page.entries.find(&first).unwrap_or_else(|next| next),
        };
        let mut due = page.entries[from..].iter().filter(|entry| entry.due() <= now).peekable();
        if page.level == Level::Recordings && due.peek().is_some() {
            if self.pages == 0 {
                return Ok(ControlFlow::Break(()));
            }
            self.pages -= 1;
        }
        for entry in due {
            if self.found.len() >= self.limit {
                return Ok(ControlFlow::Break(()));
            }
            let flow = match (entry, under) {
                (Entry::Branch { child, .. }, _) => self.below(child, under, depth - 1)?,
                (Entry::Tenant(account), _) => {
                    let tenant = TenantHandle(account.handle);
                    if self.passed.contains(&(tenant, None)) {
                        continue;
                    }
                    self.below(&account.subtree, Under::Tenant(tenant), tree::MAX_DEPTH)?
                }
                (Entry::Subscriber(account), Under::Tenant(tenant)) => {
                    let subscriber = SubscriberHandle(account.handle);
                    if self.passed.contains(&(tenant, Some(subscriber))) {
                        continue;
                    }
                    self.below(&account.subtree, Under::Subscriber(tenant, subscriber), tree::MAX_DEPTH)?
                }
                (Entry::Recording(recording), Under::Subscriber(tenant, subscriber)) => {
                    let at = RecordingPath { tenant, subscriber, recording: recording.handle };
                    self.found.push(Due { at, page: link.id, entry: self.reading.entry(tenant, recording) });
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Continue(()),
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// From which place on a subtree is looked at; none: from its beginning.
    fn first(&self, under: Under) -> Option<Place> {
        let behind = self.behind?;
        match under {
            Under::Top => Some(place(&behind.tenant.0)),
            Under::Tenant(tenant) if tenant == behind.tenant => Some(place(&behind.subscriber.0)),
            Under::Subscriber(tenant, subscriber) if (tenant, subscriber) == (behind.tenant, behind.subscriber) => {
                Some(behind.recording.0)
            }
            _ => None,
        }
    }
}
