//! The planner: mutations become one command. No I/O: pages come in through [`Store`], sealed rows go out.
//!
//! Mutations are tried one after the other on an overlay of opened pages; one that is refused is rolled back and leaves
//! nothing behind, the others go on. Then `settle` walks the touched pages from the leaves to the top and decides
//! for each of them: append a row, rewrite under the same key, or replace by pages with fresh keys (after an erasure
//! on or below it, or when it splits). Why that keeps erased things erased is argued in [`super`].
//!
//! During planning only leaf pages change; branches and links follow in `settle`. So paths stay valid while a batch grows.

mod recordings;
mod settle;

use super::{
    Change, CommitError, MAX_LEAF, MAX_NAME, MAX_RECEIPT, MAX_SUFFIX, Mutation, Owner, Period, ReadError, ValueName,
    backing::{Family, Row},
    index::{Index, NameChange},
    leaf_prefix, log,
    page::{Account, Append, Changes, Entry, Item, Level, Link, Name, Page, Place, TOP, Under, place},
    sweep::DoomedBatch,
    tree::{self, Pages, Search, Source, Step, View},
    veil::Veil,
};
use crate::{
    crypto::{envelope::Envelope, random, secret::Secret},
    domain::{
        id::{ObjectId, PageId, ReceiptId, RowId, SubscriberHandle, TenantHandle},
        time::Minute,
    },
};
use quick_cache::DefaultHashBuilder;
use recordings::{NewRecording, leaf_row};
pub use settle::{Published, RootKey};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

/// When pages split and fold.
///
/// Whoever erases one recording has its page sealed anew, with the secrets of all that stay on it, and whoever opens one has
/// the page opened: so leaf pages are small, as far as what every page takes besides its entries (some 180 bytes with the
/// entry of its branch, and 110 for each appended row) leaves room below 160 bytes a recording. Branches lie in the cache, and
/// the fewer levels the better.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries in a leaf page.
    pub leaf: usize,
    /// Most pages below a branch.
    pub branch: usize,
    /// Most bytes in a page, unless it has one entry.
    pub bytes: usize,
    /// Most appended rows before a page is rewritten.
    pub appends: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { leaf: 32, branch: 128, bytes: 64 << 10, appends: 4 }
    }
}

/// What the planner reads.
pub trait Store: Pages {
    /// A row as it is now.
    fn row(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;
    /// The names of the rows with this prefix as they are now.
    fn rows(&self, family: Family, prefix: &[u8]) -> Result<Vec<Vec<u8>>, ReadError>;
}

/// What is known of pages. Their ids are drawn here, so nobody makes them meet.
type ByPage<T> = HashMap<PageId, T, DefaultHashBuilder>;

/// A page that this plan touches.
struct Node {
    /// As it was; none for a new page.
    was: Option<Arc<Page>>,
    link: Link,
    under: Under,
    level: Level,
    /// What becomes of its entries. A branch's change in [`settle`] alone.
    changes: Changes,
    /// What could be written as an appended row, unless `rewrite`.
    appends: Vec<Append>,
    rewrite: bool,
    /// Something was taken out here: this page and all above get fresh keys.
    erased: bool,
    /// Touched pages below.
    children: BTreeSet<PageId>,
}

struct Overlay<'a, S> {
    nodes: ByPage<Node>,
    store: &'a S,
}

impl<S: Store> Source for Overlay<'_, S> {
    fn view(&self, link: &Link, under: Under) -> Result<View<'_>, ReadError> {
        match self.nodes.get(&link.id) {
            Some(Node { was, level, changes, .. }) => {
                Ok(View::Planned { level: *level, was: was.as_deref().map(|page| &page.entries), changes })
            }
            None => self.store.view(link, under),
        }
    }
}

/// One thing that falls.
struct Doom {
    items: Vec<Item>,
    subtree: Option<PageId>,
    receipt: Option<ReceiptId>,
}

/// A mutation that is part of the batch.
pub struct Taken {
    /// Whether it erased anything.
    pub erased: bool,
    /// The leaves of the audit log that it appends.
    pub log: Range<u64>,
}

enum Undo {
    NewNode(PageId),
    /// The change that stood there before, where one did.
    Change {
        page: PageId,
        place: Place,
        old: Option<Box<Option<Entry>>>,
        appends: usize,
        rewrite: bool,
        erased: bool,
    },
}

struct Mark {
    undo: usize,
    rows: usize,
    names: usize,
    dooms: usize,
    copies: usize,
    scopes: usize,
    log: usize,
    erased: bool,
}

/// Plans one batch.
pub struct Planner<'a, S> {
    index: &'a Index,
    limits: Limits,
    root: RootKey,
    top: Link,
    overlay: Overlay<'a, S>,
    expects: ByPage<u64>,
    rows: Vec<Row>,
    names: Vec<NameChange>,
    dooms: Vec<Doom>,
    /// Objects that came on the list of copies, and that were taken off it.
    copies: Vec<(ObjectId, bool)>,
    /// Doomed rows of which a step was taken.
    swept: HashSet<Vec<u8>>,
    /// Leaves of the audit log that the store has.
    log_size: u64,
    log: Vec<log::Leaf>,
    /// That of the mutation which is being taken in.
    receipt: Option<ReceiptId>,
    undo: Vec<Undo>,
    erased: bool,
    published: Published,
}

impl<'a, S: Store> Planner<'a, S> {
    /// Starts a batch on the state that `store` and `index` show; `root` opens the top, the audit log has `log_size` leaves.
    pub fn new(store: &'a S, index: &'a Index, root: RootKey, log_size: u64, limits: Limits) -> Self {
        Self {
            index,
            limits,
            top: Link { id: TOP, key: root.key.clone() },
            root,
            overlay: Overlay { nodes: ByPage::default(), store },
            expects: ByPage::default(),
            rows: Vec::new(),
            names: Vec::new(),
            dooms: Vec::new(),
            copies: Vec::new(),
            swept: HashSet::new(),
            log_size,
            log: Vec::new(),
            receipt: None,
            undo: Vec::new(),
            erased: false,
            published: Published::default(),
        }
    }

    /// Whether anything was erased, so that the batch needs a new root.
    pub fn rotates(&self) -> bool {
        self.erased
    }

    /// Has the top sealed under a new root though nothing is erased: for another set of slots.
    pub fn renew_root(&mut self) -> Result<(), ReadError> {
        let top = Step { link: self.top.clone(), under: Under::Top };
        self.expect(std::slice::from_ref(&top))?;
        if !self.overlay.nodes.contains_key(&TOP) {
            let page = self.overlay.store.page(&top.link, Under::Top)?;
            self.overlay.nodes.insert(TOP, Node::of(page, top.link));
        }
        if let Some(node) = self.overlay.nodes.get_mut(&TOP) {
            node.erased = true;
        }
        self.erased = true;
        Ok(())
    }

    /// Takes a mutation into the batch, or refuses it and leaves the batch as it was.
    pub fn mutate(&mut self, mutation: Mutation) -> Result<Taken, CommitError> {
        let mark = Mark {
            undo: self.undo.len(),
            rows: self.rows.len(),
            names: self.names.len(),
            dooms: self.dooms.len(),
            copies: self.copies.len(),
            scopes: self.published.scopes.len(),
            log: self.log.len(),
            erased: self.erased,
        };
        self.erased = false;
        self.receipt = mutation.receipt;
        let before = self.log.len() as u64;
        for change in mutation.changes {
            if let Err(error) = self.change(change) {
                self.roll_back(mark);
                return Err(error);
            }
        }
        let erased = self.erased;
        self.erased |= mark.erased;
        Ok(Taken { erased, log: self.log_size + before..self.log_size + self.log.len() as u64 })
    }

    /// Takes the sweeper's step in. A step that was taken before, or planned on another state, changes nothing.
    pub fn sweep(&mut self, batch: &DoomedBatch) -> Result<(), ReadError> {
        let as_drawn_up = self.overlay.store.row(Family::Doomed, &batch.id)?.as_ref() == Some(&batch.before);
        if !as_drawn_up || !self.swept.insert(batch.id.clone()) {
            return Ok(());
        }
        for object in &batch.unwanted {
            self.drop_copy(*object)?;
        }
        self.published.doomed -= i64::from(batch.is_last());
        self.rows.extend(batch.rows.iter().cloned());
        Ok(())
    }

    fn roll_back(&mut self, mark: Mark) {
        for undo in self.undo.drain(mark.undo..).rev() {
            match undo {
                Undo::NewNode(page) => drop(self.overlay.nodes.remove(&page)),
                Undo::Change { page, place, old, appends, rewrite, erased } => {
                    if let Some(node) = self.overlay.nodes.get_mut(&page) {
                        match old {
                            Some(old) => drop(node.changes.insert(place, *old)),
                            None => drop(node.changes.remove(&place)),
                        }
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
        self.log.truncate(mark.log);
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
            Change::AddRecording { at, row, kind, audio, facts, objects, keeping, parent, parties, wrapped } => {
                let new = NewRecording { row, kind, audio, facts, objects, keeping, parent, parties, wrapped };
                self.add_recording(at, new)
            }
            Change::SetKeeping { at, keeping } => self.set_keeping(at, keeping),
            Change::BindParties { at, parties, wrapped } => self.bind_parties(at, parties, wrapped),
            Change::RenewFacts { at, facts } => self.renew_facts(at, &facts),
            Change::AddObject { at, object } => self.add_object(at, object),
            Change::PutValue { owner, name, envelope } => self.put_value(owner, &name, envelope),
            Change::DropValue { name } => {
                self.rows.push(Row::delete(Family::Values, name.to_bytes()));
                Ok(())
            }
            Change::QueueCopy { object, to } => {
                if !self.copy_is_queued(object)? {
                    self.copies.push((object, true));
                }
                self.rows.push(Row::put(Family::Copies, object.0, to.into_bytes()));
                Ok(())
            }
            Change::CopyDone { object } => {
                if self.drop_copy(object)? {
                    Ok(())
                } else {
                    Err(CommitError::Gone)
                }
            }
            Change::DoomObject { at, object } => self.doom_object(at, object),
            Change::Log { leaf, under } => {
                if leaf.len() > MAX_LEAF {
                    return Err(CommitError::Malformed("a leaf of the audit log is too long"));
                }
                self.log.push(log::Leaf { bytes: leaf, under });
                Ok(())
            }
            Change::PutReceipt { id, body } => {
                if body.len() > MAX_RECEIPT {
                    return Err(CommitError::Malformed("a receipt is too long"));
                }
                // An erasure's own: what its id told before is not overwritten.
                if self.receipt == Some(id) && self.has_receipt(id)? {
                    return Err(CommitError::Exists);
                }
                self.rows.push(Row::put(Family::Receipts, id.0, body));
                Ok(())
            }
            Change::DropReceipt { id } => {
                self.rows.push(Row::delete(Family::Receipts, id.0));
                Ok(())
            }
            Change::EraseTenant(tenant) => {
                let found = held(tree::tenant(&self.overlay, &self.top, tenant, &mut path)?);
                self.erase_account(found, &path, Under::Tenant(tenant), NameChange::DropTenant(tenant))
            }
            Change::EraseSubscriber(tenant, subscriber) => {
                let found = held(tree::below_tenant(&self.overlay, &self.top, tenant, subscriber.0, &mut path)?);
                let dropped = NameChange::DropSubscriber(tenant, subscriber);
                self.erase_account(found, &path, Under::Subscriber(tenant, subscriber), dropped)
            }
            Change::ErasePeriod(tenant, period) => {
                let found = tree::below_tenant(&self.overlay, &self.top, tenant, period.0, &mut path)?.found();
                match found.as_deref() {
                    Some(&Entry::Period(period, _)) => {
                        drop(found);
                        self.names.push(NameChange::DropPeriod(tenant, period.handle));
                        self.fell(vec![Item::Row(period.row)], None);
                        self.edit(&path, place(&period.handle.0), None, Edit::Erase)
                    }
                    _ => Ok(()),
                }
            }
            Change::EraseRecording { at, parts } => self.erase_recording(at, parts),
        }
    }

    fn new_account(&mut self, handle: [u8; 8], row: RowId, secret: Secret, name: String, under: Under) -> Account {
        let link = Link { id: PageId(random()), key: Arc::new(Secret::random()) };
        let node = Node {
            was: None,
            link: link.clone(),
            under,
            level: under.leaf(),
            changes: Changes::new(),
            appends: Vec::new(),
            rewrite: true,
            erased: false,
            children: BTreeSet::new(),
        };
        self.overlay.nodes.insert(link.id, node);
        self.undo.push(Undo::NewNode(link.id));
        let (secret, name) = (Arc::new(secret), Arc::new(Name::new(name)));
        Account { handle, row, secret, subtree: link, due: Minute::NEVER, name }
    }

    fn insert(&mut self, path: &[Step], entry: Entry) -> Result<(), CommitError> {
        let child = entry.child().map(|child| child.id);
        self.edit(path, entry.place(), Some(entry.clone()), Edit::Append(Append::Insert(entry)))?;
        if let (Some(child), Some(leaf)) = (child, path.last())
            && let Some(node) = self.overlay.nodes.get_mut(&leaf.link.id)
        {
            node.children.insert(child);
        }
        Ok(())
    }

    fn erase_account(
        &mut self,
        found: Option<Account>,
        path: &[Step],
        scope: Under,
        dropped: NameChange,
    ) -> Result<(), CommitError> {
        let Some(account) = found else { return Ok(()) };
        self.names.push(dropped);
        self.fell(vec![Item::Row(account.row)], Some(account.subtree.id));
        self.published.scopes.push(scope);
        self.edit(path, place(&account.handle), None, Edit::Erase)
    }

    /// Notes what the sweeper has to do.
    fn fell(&mut self, items: Vec<Item>, subtree: Option<PageId>) {
        self.dooms.push(Doom { items, subtree, receipt: self.receipt });
    }

    fn put_value(&mut self, owner: Owner, name: &ValueName, envelope: Vec<u8>) -> Result<(), CommitError> {
        if !owner.seals(name.kind) {
            return Err(CommitError::Malformed("values of this kind are not sealed under this owner"));
        }
        if name.suffix.len() > MAX_SUFFIX {
            return Err(CommitError::Malformed("a value's suffix is too long"));
        }
        let key = name.to_bytes();
        if let Some(part) = owner.part()
            && !key.starts_with(&leaf_prefix(name.row, name.kind, part))
        {
            return Err(CommitError::Malformed("a value's suffix does not begin with its leaf"));
        }
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
        let (row, bound) = match (found.found().as_deref(), owner) {
            (Some(Entry::Tenant(account)), Owner::Tenant(_)) => (Some(account.row), Vec::new()),
            (Some(Entry::Subscriber(account)), Owner::Subscriber(..)) => (Some(account.row), Vec::new()),
            (Some(Entry::Period(period, _)), Owner::Period(..)) => (Some(period.row), Vec::new()),
            (Some(Entry::Recording(recording)), Owner::Audio(_)) => leaf_row(recording, &recording.audio),
            (Some(Entry::Recording(recording)), Owner::Facts(_)) => leaf_row(recording, &recording.facts),
            _ => (None, Vec::new()),
        };
        if let Owner::Audio(at) | Owner::Facts(at) = owner
            && !self.all_live(at.tenant, &bound)?
        {
            return Err(CommitError::Gone);
        }
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

    fn has_receipt(&self, id: ReceiptId) -> Result<bool, ReadError> {
        match self.rows.iter().rev().find(|row| row.family == Family::Receipts && row.key == id.0) {
            Some(row) => Ok(row.value.is_some()),
            None => Ok(self.overlay.store.row(Family::Receipts, &id.0)?.is_some()),
        }
    }

    /// Says whether it was queued.
    fn drop_copy(&mut self, object: ObjectId) -> Result<bool, ReadError> {
        let queued = self.copy_is_queued(object)?;
        if queued {
            self.copies.push((object, false));
            self.rows.push(Row::delete(Family::Copies, object.0));
        }
        Ok(queued)
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
    fn edit(&mut self, path: &[Step], at: Place, entry: Option<Entry>, edit: Edit) -> Result<(), CommitError> {
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
        let old = node.changes.insert(at, entry).map(Box::new);
        match edit {
            Edit::Append(append) => node.appends.push(append),
            Edit::Rewrite => node.rewrite = true,
            Edit::Erase => {
                node.rewrite = true;
                node.erased = true;
                self.erased = true;
            }
        }
        self.undo.push(Undo::Change { page: leaf.id, place: at, old, appends, rewrite, erased });
        Ok(())
    }
}

#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
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
            changes: Changes::new(),
            appends: Vec::new(),
            rewrite: false,
            erased: false,
            children: BTreeSet::new(),
            was: Some(page),
        }
    }
}

fn vacant(search: Search<'_>) -> Result<(), CommitError> {
    match search {
        Search::Vacant => Ok(()),
        Search::Found(_) => Err(CommitError::Exists),
        Search::NoParent => Err(CommitError::Gone),
    }
}

/// A copy of the account that was found.
fn held(search: Search<'_>) -> Option<Account> {
    search.found().as_deref().and_then(tree::account).cloned()
}
