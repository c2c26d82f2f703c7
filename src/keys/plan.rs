//! The planner: mutations become one command. No I/O: pages come in through [`Store`], sealed rows go out.
//!
//! Mutations are tried one after the other on an overlay of opened pages; one that is refused is rolled back and leaves
//! nothing behind, the others go on. Then `settle` walks the touched pages from the leaves to the top and decides
//! for each of them: append a row, rewrite under the same key, or replace by pages with fresh keys (after an erasure
//! on or below it, or when it splits). Why that keeps erased things erased is argued in [`super`].
//!
//! During planning only leaf pages change; branches and links follow in `settle`. So paths stay valid while a batch grows.

mod settle;

use super::{
    Change, CommitError, MAX_NAME, MAX_OBJECTS, MAX_SUFFIX, Mutation, Owner, Parts, Period, ReadError, RecordingPath,
    ValueName,
    backing::{Family, Row},
    index::{Index, NameChange},
    page::{self, Account, Append, Entry, Item, Level, Link, Name, Page, Place, Recording, TOP, Under, place},
    sweep::DoomedBatch,
    tree::{self, Search, Source, Step},
    veil::{Veil, Veiled},
};
use crate::{
    crypto::{envelope::Envelope, random, secret::Secret},
    domain::id::{ObjectId, PageId, RowId, SubscriberHandle, TenantHandle},
};
pub use settle::{Published, RootKey};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// When pages split and fold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries in a page.
    pub entries: usize,
    /// Most bytes in a page, unless it has one entry.
    pub bytes: usize,
    /// Most appended rows before a page is rewritten.
    pub appends: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 128, bytes: 64 << 10, appends: 32 }
    }
}

/// What the planner reads.
pub trait Store {
    /// Opens a page as it is now.
    fn page(&self, link: &Link, under: Under) -> Result<Arc<Page>, ReadError>;
    /// A row as it is now.
    fn row(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;
}

/// A page that this plan touches.
struct Node {
    /// As it was; none for a new page.
    was: Option<Arc<Page>>,
    link: Link,
    under: Under,
    level: Level,
    entries: Vec<Arc<Entry>>,
    /// What could be written as an appended row, unless `rewrite`.
    appends: Vec<Append>,
    rewrite: bool,
    /// Something was taken out here: this page and all above get fresh keys.
    erased: bool,
    /// Touched pages below.
    children: BTreeSet<PageId>,
}

struct Overlay<'a, S> {
    nodes: HashMap<PageId, Node>,
    store: &'a S,
}

impl<S: Store> Source for Overlay<'_, S> {
    fn view<R>(&self, link: &Link, under: Under, read: impl FnOnce(Level, &[Arc<Entry>]) -> R) -> Result<R, ReadError> {
        match self.nodes.get(&link.id) {
            Some(node) => Ok(read(node.level, &node.entries)),
            None => self.store.page(link, under).map(|page| read(page.level, &page.entries)),
        }
    }
}

/// One thing that falls.
struct Doom {
    items: Vec<Item>,
    subtree: Option<PageId>,
}

enum Undo {
    NewNode(PageId),
    Entry { page: PageId, place: Place, old: Option<Arc<Entry>>, appends: usize, rewrite: bool, erased: bool },
}

struct Mark {
    undo: usize,
    rows: usize,
    names: usize,
    dooms: usize,
    copies: usize,
    scopes: usize,
    erased: bool,
}

/// Plans one batch.
pub struct Planner<'a, S> {
    index: &'a Index,
    limits: Limits,
    root: RootKey,
    top: Link,
    overlay: Overlay<'a, S>,
    expects: HashMap<PageId, u64>,
    rows: Vec<Row>,
    names: Vec<NameChange>,
    dooms: Vec<Doom>,
    copies: Vec<(ObjectId, bool)>,
    undo: Vec<Undo>,
    erased: bool,
    published: Published,
}

impl<'a, S: Store> Planner<'a, S> {
    /// Starts a batch on the state that `store` and `index` show; `root` opens the top.
    pub fn new(store: &'a S, index: &'a Index, root: RootKey, limits: Limits) -> Self {
        Self {
            index,
            limits,
            top: Link { id: TOP, key: root.key.clone() },
            root,
            overlay: Overlay { nodes: HashMap::new(), store },
            expects: HashMap::new(),
            rows: Vec::new(),
            names: Vec::new(),
            dooms: Vec::new(),
            copies: Vec::new(),
            undo: Vec::new(),
            erased: false,
            published: Published::default(),
        }
    }

    /// Whether anything was erased, so that the batch needs a new root.
    pub fn rotates(&self) -> bool {
        self.erased
    }

    /// Takes a mutation into the batch and says whether it erased anything; or refuses it and leaves the batch as it was.
    pub fn mutate(&mut self, mutation: Mutation) -> Result<bool, CommitError> {
        let mark = Mark {
            undo: self.undo.len(),
            rows: self.rows.len(),
            names: self.names.len(),
            dooms: self.dooms.len(),
            copies: self.copies.len(),
            scopes: self.published.scopes.len(),
            erased: self.erased,
        };
        self.erased = false;
        for change in mutation.changes {
            if let Err(error) = self.change(change) {
                self.roll_back(mark);
                return Err(error);
            }
        }
        let erased = self.erased;
        self.erased |= mark.erased;
        Ok(erased)
    }

    /// Takes the sweeper's step in. A step that was taken before, or planned on another state, changes nothing.
    pub fn sweep(&mut self, batch: &DoomedBatch) -> Result<(), ReadError> {
        if self.overlay.store.row(Family::Doomed, &batch.id)?.as_ref() == Some(&batch.before) {
            self.rows.extend(batch.rows.iter().cloned());
        }
        Ok(())
    }

    fn roll_back(&mut self, mark: Mark) {
        for undo in self.undo.drain(mark.undo..).rev() {
            match undo {
                Undo::NewNode(page) => drop(self.overlay.nodes.remove(&page)),
                Undo::Entry { page, place, old, appends, rewrite, erased } => {
                    if let Some(node) = self.overlay.nodes.get_mut(&page) {
                        set_entry(&mut node.entries, &place, old);
                        node.appends.truncate(appends);
                        node.rewrite = rewrite;
                        node.erased = erased;
                    }
                }
            }
        }
        self.rows.truncate(mark.rows);
        self.names.truncate(mark.names);
        self.dooms.truncate(mark.dooms);
        self.copies.truncate(mark.copies);
        self.published.scopes.truncate(mark.scopes);
        self.erased = mark.erased;
    }

    fn change(&mut self, change: Change) -> Result<(), CommitError> {
        let mut path = Vec::new();
        match change {
            Change::AddTenant { tenant, row, secret, name } => {
                self.check_name(None, &name)?;
                let found = tree::tenant(&self.overlay, &self.top, tenant, &mut path)?;
                vacant(found)?;
                let account = self.new_account(tenant.0, row, secret, name, Under::Tenant(tenant));
                self.names.push(NameChange::AddTenant(tenant, account.name.clone()));
                self.insert(&path, Entry::Tenant(account))
            }
            Change::AddSubscriber { tenant, subscriber, row, secret, name } => {
                self.check_name(Some(tenant), &name)?;
                let found = tree::below_tenant(&self.overlay, &self.top, tenant, subscriber.0, &mut path)?;
                vacant(found)?;
                let account = self.new_account(subscriber.0, row, secret, name, Under::Subscriber(tenant, subscriber));
                self.names.push(NameChange::AddSubscriber(tenant, subscriber, account.name.clone(), Veil::new()));
                self.insert(&path, Entry::Subscriber(account))
            }
            Change::AddPeriod { tenant, period, row, secret, purpose, day } => {
                vacant(tree::below_tenant(&self.overlay, &self.top, tenant, period.0, &mut path)?)?;
                let period = Period { handle: period, row, purpose, day };
                self.names.push(NameChange::AddPeriod(tenant, period));
                self.insert(&path, Entry::Period(period, Arc::new(secret)))
            }
            Change::AddRecording { at, row, kind, audio, facts, objects, .. } => {
                if objects.len() > MAX_OBJECTS {
                    return Err(CommitError::Malformed("a recording has too many objects"));
                }
                vacant(tree::recording(&self.overlay, &self.top, at, &mut path)?)?;
                let veil = self.veil(at.tenant, at.subscriber).ok_or(CommitError::Gone)?;
                let (audio, facts) = (Some(Veiled::new(&veil, &audio)), Some(Veiled::new(&veil, &facts)));
                let recording = Recording { handle: at.recording, row, kind, audio, facts, objects };
                self.insert(&path, Entry::Recording(recording))
            }
            Change::AddObject { at, object } => {
                let mut recording = self.living_recording(at, &mut path)?;
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
                let append = Append::Objects(recording.row, vec![object]);
                self.edit(&path, at.recording.0, Some(Arc::new(Entry::Recording(recording))), Edit::Append(append))
            }
            Change::PutValue { owner, name, envelope } => self.put_value(owner, &name, envelope),
            Change::DropValue { name } => {
                self.rows.push(Row::delete(Family::Values, name.to_bytes()));
                Ok(())
            }
            Change::QueueCopy { object, to } => {
                self.copies.push((object, true));
                self.rows.push(Row::put(Family::Copies, object.0, to.into_bytes()));
                Ok(())
            }
            Change::CopyDone { object } => {
                if !self.copy_is_queued(object)? {
                    return Err(CommitError::Gone);
                }
                self.drop_copy(object);
                Ok(())
            }
            Change::DoomObject { at, object } => {
                let mut recording = self.living_recording(at, &mut path)?;
                let before = recording.objects.len();
                recording.objects.retain(|own| *own != object);
                if recording.objects.len() == before {
                    return Err(CommitError::Gone);
                }
                self.drop_copy(object);
                self.dooms.push(Doom { items: vec![Item::Object(object)], subtree: None });
                self.edit(&path, at.recording.0, Some(Arc::new(Entry::Recording(recording))), Edit::Rewrite)
            }
            Change::EraseTenant(tenant) => {
                let found = tree::tenant(&self.overlay, &self.top, tenant, &mut path)?;
                self.erase_account(found, &path, Under::Tenant(tenant), NameChange::DropTenant(tenant))
            }
            Change::EraseSubscriber(tenant, subscriber) => {
                let found = tree::below_tenant(&self.overlay, &self.top, tenant, subscriber.0, &mut path)?;
                let dropped = NameChange::DropSubscriber(tenant, subscriber);
                self.erase_account(found, &path, Under::Subscriber(tenant, subscriber), dropped)
            }
            Change::ErasePeriod(tenant, period) => {
                let found = tree::below_tenant(&self.overlay, &self.top, tenant, period.0, &mut path)?;
                match found.found().as_deref() {
                    Some(Entry::Period(period, _)) => {
                        self.names.push(NameChange::DropPeriod(tenant, period.handle));
                        self.dooms.push(Doom { items: vec![Item::Row(period.row)], subtree: None });
                        self.edit(&path, place(&period.handle.0), None, Edit::Erase)
                    }
                    _ => Ok(()),
                }
            }
            Change::EraseRecording { at, parts } => self.erase_recording(at, parts),
            Change::SetKeeping { .. }
            | Change::BindParties { .. }
            | Change::RenewFacts { .. }
            | Change::Log { .. }
            | Change::PutReceipt { .. }
            | Change::DropReceipt { .. } => Ok(()),
        }
    }

    fn new_account(&mut self, handle: [u8; 8], row: RowId, secret: Secret, name: String, under: Under) -> Account {
        let link = Link { id: PageId(random()), key: Arc::new(Secret::random()) };
        let node = Node {
            was: None,
            link: link.clone(),
            under,
            level: under.leaf(),
            entries: Vec::new(),
            appends: Vec::new(),
            rewrite: true,
            erased: false,
            children: BTreeSet::new(),
        };
        self.overlay.nodes.insert(link.id, node);
        self.undo.push(Undo::NewNode(link.id));
        Account { handle, row, secret: Arc::new(secret), subtree: link, name: Arc::new(Name::new(name)) }
    }

    fn insert(&mut self, path: &[Step], entry: Entry) -> Result<(), CommitError> {
        let entry = Arc::new(entry);
        self.edit(path, entry.place(), Some(entry.clone()), Edit::Append(Append::Insert(entry.clone())))?;
        if let (Some(child), Some(leaf)) = (entry.child(), path.last())
            && let Some(node) = self.overlay.nodes.get_mut(&leaf.link.id)
        {
            node.children.insert(child.id);
        }
        Ok(())
    }

    fn erase_account(
        &mut self,
        found: Search,
        path: &[Step],
        scope: Under,
        dropped: NameChange,
    ) -> Result<(), CommitError> {
        let Some(entry) = found.found() else { return Ok(()) };
        let Some(account) = tree::account(&entry) else { return Ok(()) };
        self.names.push(dropped);
        self.dooms.push(Doom { items: vec![Item::Row(account.row)], subtree: Some(account.subtree.id) });
        self.published.scopes.push(scope);
        self.edit(path, entry.place(), None, Edit::Erase)
    }

    fn erase_recording(&mut self, at: RecordingPath, parts: Parts) -> Result<(), CommitError> {
        let mut path = Vec::new();
        let found = tree::recording(&self.overlay, &self.top, at, &mut path)?.found();
        let Some(Entry::Recording(recording)) = found.as_deref() else { return Ok(()) };
        let (audio, facts) = (parts.audio && recording.audio.is_some(), parts.facts && recording.facts.is_some());
        if !audio && !facts {
            return Ok(());
        }
        let mut left = recording.clone();
        let mut items = Vec::new();
        if audio {
            left.audio = None;
            items.push(Item::AudioValues(left.row));
            for object in left.objects.drain(..) {
                self.drop_copy(object);
                items.push(Item::Object(object));
            }
        }
        if facts {
            left.facts = None;
            items.push(Item::FactsValues(left.row));
        }
        let left = if left.audio.is_none() && left.facts.is_none() {
            items.retain(|item| matches!(item, Item::Object(_)));
            items.insert(0, Item::Row(left.row));
            None
        } else {
            Some(Arc::new(Entry::Recording(left)))
        };
        self.dooms.push(Doom { items, subtree: None });
        self.edit(&path, at.recording.0, left, Edit::Erase)
    }

    fn living_recording(&mut self, at: RecordingPath, path: &mut Vec<Step>) -> Result<Recording, CommitError> {
        match tree::recording(&self.overlay, &self.top, at, path)?.found().as_deref() {
            Some(Entry::Recording(recording)) => Ok(recording.clone()),
            _ => Err(CommitError::Gone),
        }
    }

    fn put_value(&mut self, owner: Owner, name: &ValueName, envelope: Vec<u8>) -> Result<(), CommitError> {
        if !owner.seals(name.kind) {
            return Err(CommitError::Malformed("values of this kind are not sealed under this owner"));
        }
        if name.suffix.len() > MAX_SUFFIX {
            return Err(CommitError::Malformed("a value's suffix is too long"));
        }
        let key = name.to_bytes();
        let parsed = Envelope::parse(&envelope).map_err(|_| CommitError::Malformed("a value is not an envelope"))?;
        if parsed.kind != name.kind || parsed.clear != key {
            return Err(CommitError::Malformed("a value's envelope belongs in another row"));
        }
        let mut path = Vec::new();
        let (overlay, top) = (&self.overlay, &self.top);
        let found = match owner {
            Owner::Tenant(tenant) => tree::tenant(overlay, top, tenant, &mut path),
            Owner::Subscriber(tenant, subscriber) => tree::below_tenant(overlay, top, tenant, subscriber.0, &mut path),
            Owner::Period(tenant, period) => tree::below_tenant(overlay, top, tenant, period.0, &mut path),
            Owner::Audio(at) | Owner::Facts(at) => tree::recording(overlay, top, at, &mut path),
        }?;
        let row = match (found.found().as_deref(), owner) {
            (Some(Entry::Tenant(account)), Owner::Tenant(_)) => Some(account.row),
            (Some(Entry::Subscriber(account)), Owner::Subscriber(..)) => Some(account.row),
            (Some(Entry::Period(period, _)), Owner::Period(..)) => Some(period.row),
            (Some(Entry::Recording(recording)), Owner::Audio(_)) => recording.audio.as_ref().map(|_| recording.row),
            (Some(Entry::Recording(recording)), Owner::Facts(_)) => recording.facts.as_ref().map(|_| recording.row),
            _ => None,
        };
        match row {
            None => return Err(CommitError::Gone),
            Some(row) if row != name.row => return Err(CommitError::Malformed("a value's row is not its owner's")),
            Some(_) => {}
        }
        self.expect(&path)?;
        self.rows.push(Row::put(Family::Values, key, envelope));
        Ok(())
    }

    /// The veil of a subscriber that lives, or comes with this batch.
    fn veil(&self, tenant: TenantHandle, subscriber: SubscriberHandle) -> Option<Arc<Veil>> {
        let new = self.names.iter().rev().find_map(|change| match change {
            NameChange::AddSubscriber(of, new, _, veil) if (*of, *new) == (tenant, subscriber) => Some(veil),
            _ => None,
        });
        new.or_else(|| self.index.veil(tenant, subscriber)).cloned()
    }

    fn copy_is_queued(&self, object: ObjectId) -> Result<bool, ReadError> {
        match self.copies.iter().rev().find(|(copied, _)| *copied == object) {
            Some((_, queued)) => Ok(*queued),
            None => Ok(self.overlay.store.row(Family::Copies, &object.0)?.is_some()),
        }
    }

    fn drop_copy(&mut self, object: ObjectId) {
        self.copies.push((object, false));
        self.rows.push(Row::delete(Family::Copies, object.0));
    }

    fn check_name(&self, tenant: Option<TenantHandle>, name: &str) -> Result<(), CommitError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(CommitError::Malformed("a name is empty or too long"));
        }
        // The latest change of this batch decides, then the index.
        let mut dropped = Vec::new();
        for change in self.names.iter().rev() {
            match (change, tenant) {
                (NameChange::AddTenant(handle, taken), None) if taken.as_str() == name => {
                    return if dropped.contains(&handle.0) { Ok(()) } else { Err(CommitError::Exists) };
                }
                (NameChange::AddSubscriber(of, handle, taken, _), Some(tenant))
                    if *of == tenant && taken.as_str() == name =>
                {
                    return if dropped.contains(&handle.0) { Ok(()) } else { Err(CommitError::Exists) };
                }
                (NameChange::DropTenant(handle), None) => dropped.push(handle.0),
                (NameChange::DropSubscriber(of, handle), Some(tenant)) if *of == tenant => dropped.push(handle.0),
                _ => {}
            }
        }
        let taken = match tenant {
            None => self.index.find_tenant(name).map(|handle| handle.0),
            Some(tenant) => self.index.find_subscriber(tenant, name).map(|handle| handle.0),
        };
        if taken.is_some_and(|handle| !dropped.contains(&handle)) { Err(CommitError::Exists) } else { Ok(()) }
    }

    /// Names the pages on a path with the versions this plan builds on.
    fn expect(&mut self, path: &[Step]) -> Result<(), ReadError> {
        for Step { link, under } in path {
            if let Some(node) = self.overlay.nodes.get(&link.id) {
                if let Some(was) = &node.was {
                    self.expects.insert(link.id, was.version);
                }
            } else if !self.expects.contains_key(&link.id) {
                self.expects.insert(link.id, self.overlay.store.page(link, *under)?.version);
            }
        }
        Ok(())
    }

    /// Sets or removes an entry of the page at the end of a path, and marks the pages on the way.
    fn edit(&mut self, path: &[Step], at: Place, entry: Option<Arc<Entry>>, edit: Edit) -> Result<(), CommitError> {
        self.expect(path)?;
        for (depth, Step { link, under }) in path.iter().enumerate() {
            if !self.overlay.nodes.contains_key(&link.id) {
                let page = self.overlay.store.page(link, *under)?;
                self.overlay.nodes.insert(link.id, Node::of(page, link.clone()));
            }
            if let (Some(child), Some(node)) = (path.get(depth + 1), self.overlay.nodes.get_mut(&link.id)) {
                node.children.insert(child.link.id);
            }
        }
        let Some(Step { link: leaf, .. }) = path.last() else { return Err(ReadError::Damaged("an empty path").into()) };
        let Some(node) = self.overlay.nodes.get_mut(&leaf.id) else {
            return Err(ReadError::Damaged("a page left the plan").into());
        };
        let (appends, rewrite, erased) = (node.appends.len(), node.rewrite, node.erased);
        let old = set_entry(&mut node.entries, &at, entry);
        match edit {
            Edit::Append(append) => node.appends.push(append),
            Edit::Rewrite => node.rewrite = true,
            Edit::Erase => {
                node.rewrite = true;
                node.erased = true;
                self.erased = true;
            }
        }
        self.undo.push(Undo::Entry { page: leaf.id, place: at, old, appends, rewrite, erased });
        Ok(())
    }
}

enum Edit {
    Append(Append),
    Rewrite,
    Erase,
}

impl Node {
    fn of(page: Arc<Page>, link: Link) -> Self {
        Self {
            link,
            under: page.under,
            level: page.level,
            entries: page.entries.clone(),
            appends: Vec::new(),
            rewrite: false,
            erased: false,
            children: BTreeSet::new(),
            was: Some(page),
        }
    }
}

fn set_entry(entries: &mut Vec<Arc<Entry>>, at: &Place, entry: Option<Arc<Entry>>) -> Option<Arc<Entry>> {
    match (page::find(entries, at), entry) {
        (Ok(index), Some(entry)) => Some(std::mem::replace(&mut entries[index], entry)),
        (Ok(index), None) => Some(entries.remove(index)),
        (Err(index), Some(entry)) => {
            entries.insert(index, entry);
            None
        }
        (Err(_), None) => None,
    }
}

fn vacant(search: Search) -> Result<(), CommitError> {
    match search {
        Search::Vacant => Ok(()),
        Search::Found(_) => Err(CommitError::Exists),
        Search::NoParent => Err(CommitError::Gone),
    }
}
