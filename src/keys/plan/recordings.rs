//! What changes do to recordings: their entries, and the entries in the pages of those who are bound to them.
//!
//! Two rules are kept here and nowhere else. *What was made from a recording is bound as it is*, so that whatever kills the
//! parent's audio kills the children. *Whoever is bound by a wrapped recording has an entry with its row and objects*, for
//! the sweeper; see [`super::super::wrap`].

use super::{Edit, Planner, Store, vacant};
use crate::{
    crypto::secret::Secret,
    domain::id::{ObjectId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
    keys::{
        CommitError, Keeping, MAX_CHILDREN, MAX_OBJECTS, MAX_PARTIES, Parts, ReadError, RecordingPath,
        backing::{Family, Row},
        leaf_prefixes,
        page::{Append, Bound, Entry, Item, Leaf, Objects, Recording, Ties},
        tree::{self, Step},
        veil::Veiled,
        wrap::{Bond, Part},
    },
};
use std::sync::Arc;

/// What [`super::Change::AddRecording`] says, but for its place.
pub struct NewRecording {
    pub row: RowId,
    pub kind: u8,
    pub audio: Secret,
    pub facts: Secret,
    pub objects: Vec<ObjectId>,
    pub keeping: Keeping,
    pub parent: Option<RecordingHandle>,
    pub parties: Vec<SubscriberHandle>,
    pub wrapped: bool,
}

/// A recording and the pages on the way to it.
struct Found {
    path: Vec<Step>,
    recording: Recording,
}

impl<S: Store> Planner<'_, S> {
    pub fn add_recording(&mut self, at: RecordingPath, new: NewRecording) -> Result<(), CommitError> {
        if new.objects.len() > MAX_OBJECTS {
            return Err(CommitError::Malformed("a recording has too many objects"));
        }
        let mut path = Vec::new();
        vacant(tree::recording(&self.overlay, &self.top, at, &mut path)?)?;
        let mut ties = Ties { parent: new.parent, ..Ties::default() };
        if let Some(parent) = new.parent {
            let parent = RecordingPath { recording: parent, ..at };
            if !new.parties.is_empty() {
                return Err(CommitError::Malformed("what was made from a recording is bound as that one is"));
            }
            let above = self.adopt(parent, at.recording)?;
            (ties.parties, ties.wrapped) = (above.parties, above.wrapped);
        } else {
            (ties.parties, ties.wrapped) = bound_to(at, new.parties, new.wrapped)?;
            if !self.all_live(at.tenant, &ties.parties)? {
                return Err(CommitError::Gone);
            }
        }
        let bond = self.bond(at, new.row, &ties)?;
        let recording = Recording {
            handle: at.recording,
            row: new.row,
            kind: new.kind,
            audio: Some(self.leaf(at, bond.as_ref(), Part::Audio, &new.audio)?),
            facts: Some(self.leaf(at, bond.as_ref(), Part::Facts, &new.facts)?),
            objects: Objects::from_slice(&new.objects),
            keeping: new.keeping,
            ties: ties.boxed(),
        };
        for party in bound(&recording) {
            self.add_bound(at, *party, &recording)?;
        }
        // The search above may be older than the parent's entry, but pages keep their places while a batch is planned.
        self.insert(&path, Entry::Recording(recording))
    }

    /// Adds a child to a parent's entry and gives what the parent is tied to.
    fn adopt(&mut self, parent: RecordingPath, child: RecordingHandle) -> Result<Ties, CommitError> {
        let Found { path, mut recording } = self.living(parent)?;
        if recording.audio.is_none() {
            return Err(CommitError::Gone);
        }
        let mut ties = recording.ties().clone();
        if ties.parent.is_some() {
            return Err(CommitError::Malformed("what was made from a recording has nothing made from it"));
        }
        if ties.children.len() >= MAX_CHILDREN {
            return Err(CommitError::Malformed("too much was made from a recording"));
        }
        ties.children.push(child);
        recording.ties = ties.clone().boxed();
        self.replace(&path, recording)?;
        Ok(ties)
    }

    pub fn add_object(&mut self, at: RecordingPath, object: ObjectId) -> Result<(), CommitError> {
        let Found { path, mut recording } = self.living(at)?;
        if recording.audio.is_none() {
            return Err(CommitError::Gone);
        }
        if recording.objects.contains(&object) {
            return Err(CommitError::Exists);
        }
        if recording.objects.len() >= MAX_OBJECTS {
            return Err(CommitError::Malformed("a recording has too many objects"));
        }
        recording.objects.push(object);
        let append = || Append::Objects(recording.row, Objects::from_elem(object, 1));
        for party in bound(&recording) {
            let Some((path, mut entry)) = self.find_bound(at, *party)? else { continue };
            entry.objects.push(object);
            self.edit(&path, at.recording.0, Some(Entry::Bound(entry)), Edit::Append(append()))?;
        }
        let append = append();
        self.edit(&path, at.recording.0, Some(Entry::Recording(recording)), Edit::Append(append))
    }

    pub fn doom_object(&mut self, at: RecordingPath, object: ObjectId) -> Result<(), CommitError> {
        let Found { path, mut recording } = self.living(at)?;
        let before = recording.objects.len();
        recording.objects.retain(|own| *own != object);
        if recording.objects.len() == before {
            return Err(CommitError::Gone);
        }
        self.drop_copy(object)?;
        self.fell(vec![Item::Object(object)], None);
        for party in bound(&recording) {
            let Some((path, mut entry)) = self.find_bound(at, *party)? else { continue };
            entry.objects.retain(|own| *own != object);
            self.edit(&path, at.recording.0, Some(Entry::Bound(entry)), Edit::Rewrite)?;
        }
        self.edit(&path, at.recording.0, Some(Entry::Recording(recording)), Edit::Rewrite)
    }

    pub fn set_keeping(&mut self, at: RecordingPath, keeping: Keeping) -> Result<(), CommitError> {
        let Found { path, mut recording } = self.living(at)?;
        if recording.keeping == keeping {
            return Ok(());
        }
        recording.keeping = keeping;
        self.replace(&path, recording)
    }

    pub fn bind_parties(
        &mut self,
        at: RecordingPath,
        parties: Vec<SubscriberHandle>,
        wrapped: bool,
    ) -> Result<(), CommitError> {
        let found = self.living(at)?;
        let ties = found.recording.ties();
        if ties.parent.is_some() {
            return Err(CommitError::Malformed("what was made from a recording is bound as that one is"));
        }
        let bound = bound_to(at, parties, wrapped)?;
        if (&ties.parties, ties.wrapped) == (&bound.0, bound.1) {
            return Ok(());
        }
        if !self.all_live(at.tenant, &bound.0)? {
            return Err(CommitError::Gone);
        }
        for child in ties.children.clone() {
            let at = RecordingPath { recording: child, ..at };
            let found = self.living(at)?;
            self.bind(at, found, bound.clone())?;
        }
        self.bind(at, found, bound)
    }

    /// Binds one recording anew. Where secrets are or were wrapped, the entry as it was is erased.
    fn bind(
        &mut self,
        at: RecordingPath,
        Found { path, mut recording }: Found,
        (parties, wrapped): (Vec<SubscriberHandle>, bool),
    ) -> Result<(), CommitError> {
        let before = recording.clone();
        let ties = Ties { parties, wrapped, ..recording.ties().clone() };
        let (old, new) = (self.bond(at, before.row, before.ties())?, self.bond(at, before.row, &ties)?);
        if old.is_none() && new.is_none() {
            recording.ties = ties.boxed();
            return self.replace(&path, recording);
        }
        recording.ties = ties.boxed();
        for (part, leaf) in [(Part::Audio, &mut recording.audio), (Part::Facts, &mut recording.facts)] {
            if let Some(leaf) = leaf {
                let secret = opened(old.as_ref(), part, leaf).ok_or(CommitError::Gone)?;
                *leaf = self.leaf(at, new.as_ref(), part, &secret)?;
            }
        }
        let (was, is) = (bound(&before), bound(&recording));
        for party in was.iter().filter(|party| !is.contains(party)) {
            self.drop_bound(at, *party)?;
        }
        for party in is.iter().filter(|party| !was.contains(party)) {
            self.add_bound(at, *party, &recording)?;
        }
        self.edit(&path, at.recording.0, Some(Entry::Recording(recording)), Edit::Erase)
    }

    pub fn renew_facts(&mut self, at: RecordingPath, facts: &Secret) -> Result<(), CommitError> {
        let Found { path, mut recording } = self.living(at)?;
        if recording.facts.is_none() {
            return Err(CommitError::Gone);
        }
        let bond = self.bond(at, recording.row, recording.ties())?;
        recording.facts = Some(self.leaf(at, bond.as_ref(), Part::Facts, facts)?);
        for prefix in leaf_prefixes(recording.row, Part::Facts) {
            self.drop_values(&prefix)?;
        }
        self.edit(&path, at.recording.0, Some(Entry::Recording(recording)), Edit::Erase)
    }

    /// Removes the rows of values under a prefix, those of this batch included.
    fn drop_values(&mut self, prefix: &[u8]) -> Result<(), ReadError> {
        let planned = self.rows.iter().filter(|row| row.family == Family::Values && row.key.starts_with(prefix));
        let mut keys: Vec<_> = planned.map(|row| row.key.clone()).collect();
        keys.extend(self.overlay.store.rows(Family::Values, prefix)?);
        self.rows.extend(keys.into_iter().map(|key| Row::delete(Family::Values, key)));
        Ok(())
    }

    pub fn erase_recording(&mut self, at: RecordingPath, parts: Parts) -> Result<(), CommitError> {
        let Some(found) = self.find(at)? else { return Ok(()) };
        let (parent, children) = (found.recording.ties().parent, found.recording.ties().children.clone());
        let audio = parts.audio && found.recording.audio.is_some();
        let gone = self.erase_leaves(at, found, parts)?;
        if audio {
            for child in children {
                let at = RecordingPath { recording: child, ..at };
                if let Some(found) = self.find(at)? {
                    self.erase_leaves(at, found, Parts::BOTH)?;
                }
            }
        }
        if let Some(parent) = parent.filter(|_| gone) {
            self.disown(RecordingPath { recording: parent, ..at }, at.recording)?;
        }
        Ok(())
    }

    /// Takes a child off its parent's entry.
    fn disown(&mut self, parent: RecordingPath, child: RecordingHandle) -> Result<(), CommitError> {
        let Some(Found { path, mut recording }) = self.find(parent)? else { return Ok(()) };
        let mut ties = recording.ties().clone();
        ties.children.retain(|own| *own != child);
        recording.ties = ties.boxed();
        self.replace(&path, recording)
    }

    /// Erases leaves of one recording; says whether that was the last of it.
    fn erase_leaves(&mut self, at: RecordingPath, found: Found, parts: Parts) -> Result<bool, CommitError> {
        let Found { path, recording } = found;
        let (audio, facts) = (parts.audio && recording.audio.is_some(), parts.facts && recording.facts.is_some());
        if !audio && !facts {
            return Ok(false);
        }
        let mut left = recording;
        let mut items = Vec::new();
        if audio {
            left.audio = None;
            items.push(Item::AudioValues(left.row));
            for object in left.objects.drain(..) {
                self.drop_copy(object)?;
                items.push(Item::Object(object));
            }
            let mut ties = left.ties().clone();
            ties.children.clear();
            left.ties = ties.boxed();
        }
        if facts {
            left.facts = None;
            items.push(Item::FactsValues(left.row));
        }
        let gone = left.audio.is_none() && left.facts.is_none();
        for party in bound(&left).to_vec() {
            if gone {
                self.drop_bound(at, party)?;
            } else if audio && let Some((path, mut entry)) = self.find_bound(at, party)? {
                entry.objects.clear();
                self.edit(&path, at.recording.0, Some(Entry::Bound(entry)), Edit::Rewrite)?;
            }
        }
        let left = if gone {
            items.retain(|item| matches!(item, Item::Object(_)));
            items.insert(0, Item::Row(left.row));
            None
        } else {
            Some(Entry::Recording(left))
        };
        self.fell(items, None);
        self.edit(&path, at.recording.0, left, Edit::Erase)?;
        Ok(gone)
    }

    fn find(&mut self, at: RecordingPath) -> Result<Option<Found>, ReadError> {
        let mut path = Vec::new();
        Ok(match tree::recording(&self.overlay, &self.top, at, &mut path)?.found().as_deref() {
            Some(Entry::Recording(recording)) => Some(Found { path, recording: recording.clone() }),
            _ => None,
        })
    }

    /// A recording of which a leaf lives, and so everybody whom a wrapped one is bound to.
    fn living(&mut self, at: RecordingPath) -> Result<Found, CommitError> {
        let found = self.find(at)?.ok_or(CommitError::Gone)?;
        if self.lives(at.tenant, &found.recording)? { Ok(found) } else { Err(CommitError::Gone) }
    }

    /// Whether everybody lives whom a wrapped recording is bound to; the command then builds on it.
    fn lives(&mut self, tenant: TenantHandle, recording: &Recording) -> Result<bool, ReadError> {
        self.all_live(tenant, bound(recording))
    }

    pub fn all_live(&mut self, tenant: TenantHandle, parties: &[SubscriberHandle]) -> Result<bool, ReadError> {
        for party in parties {
            let mut path = Vec::new();
            if tree::subscriber(&self.overlay, &self.top, tenant, *party, &mut path)?.is_none() {
                return Ok(false);
            }
            self.expect(&path)?;
        }
        Ok(true)
    }

    /// An older version of an entry gives way; no secret is taken out.
    fn replace(&mut self, path: &[Step], recording: Recording) -> Result<(), CommitError> {
        let at = recording.handle.0;
        let entry = Entry::Recording(recording);
        self.edit(path, at, Some(entry.clone()), Edit::Append(Append::Replace(entry)))
    }

    /// What wraps the leaves of a recording with these ties; none where they are not wrapped.
    fn bond(&self, at: RecordingPath, row: RowId, ties: &Ties) -> Result<Option<Bond>, CommitError> {
        if !ties.wrapped {
            return Ok(None);
        }
        match Bond::of(&self.overlay, &self.top, at.tenant, (at.subscriber, &ties.parties), row)? {
            Some(bond) => Ok(Some(bond)),
            None => Err(CommitError::Gone),
        }
    }

    fn leaf(&self, at: RecordingPath, bond: Option<&Bond>, part: Part, secret: &Secret) -> Result<Leaf, CommitError> {
        match bond {
            Some(bond) => Ok(Leaf::Wrapped(Arc::new(bond.wrap(part, secret)))),
            None => {
                let veil = self.veil(at.tenant, at.subscriber).ok_or(CommitError::Gone)?;
                Ok(Leaf::Plain(Veiled::new(&veil, secret.expose())))
            }
        }
    }

    fn find_bound(
        &mut self,
        at: RecordingPath,
        party: SubscriberHandle,
    ) -> Result<Option<(Vec<Step>, Bound)>, CommitError> {
        let mut path = Vec::new();
        let place = RecordingPath { subscriber: party, ..at };
        Ok(match tree::recording(&self.overlay, &self.top, place, &mut path)?.found().as_deref() {
            Some(Entry::Bound(bound)) if bound.owner == at.subscriber => Some((path, bound.clone())),
            _ => None,
        })
    }

    fn add_bound(&mut self, at: RecordingPath, party: SubscriberHandle, of: &Recording) -> Result<(), CommitError> {
        let mut path = Vec::new();
        let place = RecordingPath { subscriber: party, ..at };
        vacant(tree::recording(&self.overlay, &self.top, place, &mut path)?)?;
        let (handle, row, objects) = (of.handle, of.row, of.objects.clone());
        self.insert(&path, Entry::Bound(Bound { handle, row, owner: at.subscriber, objects }))
    }

    /// Takes an entry out that holds no secret: a rewrite, no erasure.
    fn drop_bound(&mut self, at: RecordingPath, party: SubscriberHandle) -> Result<(), CommitError> {
        match self.find_bound(at, party)? {
            Some((path, _)) => self.edit(&path, at.recording.0, None, Edit::Rewrite),
            None => Ok(()),
        }
    }
}

/// The row of a recording under whose leaf a value may be put, where everybody lives who is named with it.
pub fn leaf_row(recording: &Recording, leaf: &Option<Leaf>) -> (Option<RowId>, Vec<SubscriberHandle>) {
    (leaf.as_ref().map(|_| recording.row), bound(recording).to_vec())
}

/// Who has an entry for a recording: the parties of a wrapped one.
fn bound(recording: &Recording) -> &[SubscriberHandle] {
    let ties = recording.ties();
    if ties.wrapped { &ties.parties } else { &[] }
}

/// Parties as an entry holds them. The owner is not one of them, and nobody is bound twice.
fn bound_to(
    at: RecordingPath,
    mut parties: Vec<SubscriberHandle>,
    wrapped: bool,
) -> Result<(Vec<SubscriberHandle>, bool), CommitError> {
    parties.sort_unstable();
    parties.dedup();
    parties.retain(|party| *party != at.subscriber);
    if parties.len() > MAX_PARTIES {
        return Err(CommitError::Malformed("a recording is bound to too many subscribers"));
    }
    let wrapped = wrapped && !parties.is_empty();
    Ok((parties, wrapped))
}

fn opened(bond: Option<&Bond>, part: Part, leaf: &Leaf) -> Option<Secret> {
    match leaf {
        Leaf::Plain(secret) => secret.open(),
        Leaf::Wrapped(wrapped) => bond?.unwrap(part, wrapped),
    }
}
