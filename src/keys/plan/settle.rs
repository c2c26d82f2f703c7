//! The second half of planning: what becomes of every touched page, from the leaves to the top.
//!
//! The rules, each of which a named test in `keys::tests` holds:
//! - A page that erases, or under which something was erased, is replaced by pages with fresh keys, up to the top.
//! - A page that splits is replaced by pages with fresh keys, all of them; so is a root of a subtree that grows.
//! - What a page's owner (a branch, an account) says of when something below is due is exact: it is set in the same command
//!   as whatever changes it. That takes out no secret, so an appended row is enough, and no row at all where the first to be
//!   due stays the same, as it does when what comes is due later than what is there.
//! - A page that vanishes takes its parent's entry with it; the root of a subtree stays, empty, while its owner lives.
//! - Two neighbours merge only under a branch that this erasure rewrites.
//! - Any other page keeps its key, and is written as one appended row where that is enough.

use super::{Doom, Node, Planner, Store};
use crate::{
    crypto::{
        envelope::{Kind, seal},
        random,
        secret::Secret,
        stack,
    },
    domain::{
        id::{PageId, RootId},
        time::Minute,
    },
    keys::{
        ReadError,
        backing::{Family, Row},
        command::{Command, Rotation},
        index::NameChange,
        log,
        page::{
            Account, Append, BadPage, Changes, Clear, Entries, Entry, Item, Level, Link, Page, TOP, Under,
            encode_appends, encode_body,
        },
        sweep::NAME,
    },
};
use std::{borrow::Cow, sync::Arc};

/// A root and its names.
#[derive(Clone)]
pub struct RootKey {
    /// Counts rotations.
    pub generation: u64,
    /// Names it without telling it.
    pub id: RootId,
    /// The root.
    pub key: Arc<Secret>,
}

/// What readers see once the command is applied.
#[derive(Default)]
pub struct Published {
    /// Pages as they are now.
    pub pages: Vec<Arc<Page>>,
    /// Pages that are no more.
    pub gone: Vec<PageId>,
    /// Subtrees that fell.
    pub scopes: Vec<Under>,
    /// Names that came and went.
    pub names: Vec<NameChange>,
    /// How many leaves came to the audit log.
    pub log: u64,
    /// How many doomed rows came, less those that went.
    pub doomed: i64,
    /// How many queued copies came, less those that went.
    pub copies: i64,
}

/// What became of a page.
struct Settled {
    was: Option<Arc<Page>>,
    erased: bool,
    /// When the first of what lies in it or below is due.
    due: Minute,
    pieces: Pieces,
}

/// What became of the root page of a subtree.
struct Rooted {
    link: Link,
    erased: bool,
    due: Minute,
}

enum Pieces {
    /// Written, or untouched; under the key it had.
    Kept(Link),
    /// To be written under fresh keys.
    Fresh(Vec<Draft>),
}

/// A page that waits for its fresh key.
struct Draft {
    /// Whose place in the store it takes.
    was: Option<Arc<Page>>,
    level: Level,
    entries: Entries,
}

/// One child of a branch while it is settled.
enum Part {
    Entry(Entry),
    Fresh { low: [u8; 16], erased: bool, draft: Draft },
}

impl<S: Store> Planner<'_, S> {
    /// Ends planning: the command, and what to publish once it is applied. `next` is the staged root where the batch
    /// [rotates](Planner::rotates), and is not looked at elsewhere.
    pub fn finish(mut self, number: u64, next: Option<&RootKey>) -> Result<(Command, Published), ReadError> {
        let rotation = match (self.erased, next) {
            (false, _) => None,
            (true, Some(next)) => {
                Some((next, Rotation { generation: next.generation, from: self.root.id, to: next.id }))
            }
            (true, None) => return Err(ReadError::Damaged("an erasure without a new root")),
        };
        for doom in std::mem::take(&mut self.dooms) {
            self.doom(doom)?;
        }
        if self.overlay.nodes.contains_key(&TOP) {
            let settled = self.settle(TOP)?;
            if let Pieces::Fresh(drafts) = settled.pieces {
                let draft = Draft { was: settled.was, ..self.reduce(drafts, Under::Top)? };
                let root = rotation.map_or(&self.root, |(next, _)| next).clone();
                self.write(TOP, draft, Under::Top, &root.key, Some(root.id))?;
            }
        }
        self.published.log = self.log.len() as u64;
        self.published.copies = self.copies.iter().map(|(_, queued)| if *queued { 1 } else { -1 }).sum();
        log::append(self.log_size, std::mem::take(&mut self.log), self.overlay.store, &mut self.rows)?;
        self.published.names = self.names;
        let rotation = rotation.map(|(_, rotation)| rotation);
        let expects = self.expects.into_iter().collect();
        Ok((Command { number, rotation, expects, rows: self.rows }, self.published))
    }

    /// One doomed row for the top of what fell. Pages below it that this batch touched are written all the same, so that
    /// the sweeper finds what hangs on them.
    fn doom(&mut self, doom: Doom) -> Result<(), ReadError> {
        let mut items = doom.items;
        if let Some(subtree) = doom.subtree {
            let root = match self.overlay.nodes.get(&subtree).map(|node| node.under) {
                Some(under) => self.settle_root(subtree, under)?.link.id,
                None => subtree,
            };
            items.push(Item::Page(root));
        }
        let mut list = Vec::with_capacity(items.len() * Item::LEN);
        Item::encode_list(&items, &mut list);
        let mut name = doom.receipt.map_or_else(Vec::new, |receipt| receipt.0.to_vec());
        name.extend_from_slice(&random::<{ NAME }>());
        self.rows.push(Row::put(Family::Doomed, name, list));
        self.published.doomed += 1;
        Ok(())
    }

    fn settle(&mut self, id: PageId) -> Result<Settled, ReadError> {
        let Some(mut node) = self.overlay.nodes.remove(&id) else {
            return Err(ReadError::Damaged("a touched page left the plan"));
        };
        let (was, changes) = (node.was.clone(), std::mem::take(&mut node.changes));
        let mut entries = match &was {
            Some(page) if changes.is_empty() => Cow::Borrowed(&page.entries),
            Some(page) => Cow::Owned(page.entries.changed(changes)),
            None => Cow::Owned(Entries::default().changed(changes)),
        };
        let mut erased = node.erased;
        if !node.children.is_empty() {
            let (below, above) = match node.level {
                Level::Branch => self.settle_branch(&mut node, &entries)?,
                _ => self.settle_roots(&mut node, &entries)?,
            };
            erased |= below;
            if let Some(above) = above {
                entries = Cow::Owned(above);
            }
        }
        let Node { link, under, level, appends, rewrite, .. } = node;
        let due = entries.due();
        if erased || !self.fits(level, &entries) {
            let entries = entries.into_owned();
            let pieces = Pieces::Fresh(self.chunk(was.clone().filter(|page| page.id != TOP), level, entries));
            return Ok(Settled { was, erased, due, pieces });
        }
        let top = (id == TOP).then_some(self.root.id);
        match &was {
            Some(_) if !rewrite && appends.is_empty() => {}
            Some(page) if !rewrite && page.version - page.base < self.limits.appends => {
                let version = page.version + 1;
                let sealed = stack::wiped(|| {
                    let (body, items) = encode_appends(&appends)?;
                    let clear = Clear { page: id, version, root: None, items }.encode();
                    Ok(seal(Kind::Append, &link.key, &clear, &body))
                });
                self.rows.push(Row::put(Family::Pages, append_name(id, version), sealed.map_err(fell)?));
                let entries = entries.into_owned();
                self.published.pages.push(Arc::new(Page { id, base: page.base, version, under, level, entries }));
            }
            _ => {
                let draft = Draft { was: was.clone(), level, entries: entries.into_owned() };
                self.write(id, draft, under, &link.key, top)?;
            }
        }
        Ok(Settled { was, erased, due, pieces: Pieces::Kept(link) })
    }

    /// Settles what lies below the touched accounts of a page. Says whether anything there was erased, and gives the page's new
    /// entries where any became another.
    fn settle_roots(&mut self, node: &mut Node, entries: &Entries) -> Result<(bool, Option<Entries>), ReadError> {
        let (mut any_erased, mut changes) = (false, Changes::new());
        for entry in entries.iter() {
            let Some(child) = entry.child().filter(|child| node.children.contains(&child.id)) else { continue };
            let below = self.settle_root(child.id, under_of(node.under, entry))?;
            any_erased |= below.erased;
            if below.link.id != child.id || !Arc::ptr_eq(&below.link.key, &child.key) {
                changes.insert(entry.place(), Some(with_subtree(entry, below.link, below.due)?));
                node.rewrite = true;
            } else {
                set_due(entry, below.due, &mut changes, &mut node.appends);
            }
        }
        Ok((any_erased, changed(entries, changes)))
    }

    /// Settles the touched children of a branch; says and gives the same.
    fn settle_branch(&mut self, node: &mut Node, entries: &Entries) -> Result<(bool, Option<Entries>), ReadError> {
        let (mut settled, mut changes) = (Vec::new(), Changes::new());
        for (index, entry) in entries.iter().enumerate() {
            let Some(child) = entry.child().filter(|child| node.children.contains(&child.id)) else { continue };
            settled.push((index, self.settle(child.id)?));
        }
        if settled.iter().all(|(_, settled)| matches!(settled.pieces, Pieces::Kept(_))) {
            for (index, settled) in settled {
                set_due(&entries[index], settled.due, &mut changes, &mut node.appends);
            }
            return Ok((false, changed(entries, changes)));
        }
        node.rewrite = true;
        let any_erased = settled.iter().any(|(_, settled)| settled.erased);
        let mut settled = settled.into_iter().peekable();
        let mut parts = Vec::with_capacity(entries.len() + 1);
        for (index, entry) in entries.iter().enumerate() {
            let Some((_, settled)) = settled.next_if(|(settled, _)| *settled == index) else {
                parts.push(Part::Entry(entry.clone()));
                continue;
            };
            match settled.pieces {
                Pieces::Kept(_) => {
                    parts.push(Part::Entry(entry.due_from(settled.due).unwrap_or_else(|| entry.clone())));
                }
                Pieces::Fresh(drafts) => {
                    if drafts.is_empty() {
                        self.remove(settled.was.as_deref());
                    }
                    for (number, draft) in drafts.into_iter().enumerate() {
                        let low = match draft.entries.first() {
                            Some(first) if number > 0 => first.place(),
                            _ => entry.place(),
                        };
                        parts.push(Part::Fresh { low, erased: settled.erased, draft });
                    }
                }
            }
        }
        if any_erased {
            self.merge(&mut parts, node)?;
        }
        let mut entries = Vec::with_capacity(parts.len());
        for part in parts {
            entries.push(match part {
                Part::Entry(entry) => entry,
                Part::Fresh { low, draft, .. } => {
                    let due = draft.entries.due();
                    let child = self.write_fresh(draft, node.under)?;
                    Entry::Branch { low, child, due }
                }
            });
        }
        Ok((any_erased, Some(Entries::new(entries))))
    }

    /// Joins a page that an erasure has thinned out to a quarter with a neighbour, where both together are at most half full:
    /// neighbours may have to be read, and not for every page that a split has left half full. The page that results gets a
    /// fresh key like every other page on the path.
    fn merge(&mut self, parts: &mut Vec<Part>, node: &Node) -> Result<(), ReadError> {
        let mut at = 0;
        while at < parts.len() {
            let thin = matches!(&parts[at], Part::Fresh { erased: true, draft, .. }
                if self.fills(4, draft.level, draft.entries.len(), draft.entries.size()));
            let partner = if !thin {
                None
            } else if at + 1 < parts.len() && self.merges(&parts[at], &parts[at + 1], node)? {
                Some(at)
            } else if at > 0 && self.merges(&parts[at - 1], &parts[at], node)? {
                Some(at - 1)
            } else {
                None
            };
            let Some(left) = partner else {
                at += 1;
                continue;
            };
            let (right_low, mut right) = self.draft_of(parts.remove(left + 1), node)?;
            right.entries.begin_at(right_low);
            let (low, mut draft) = self.draft_of(parts.remove(left), node)?;
            self.remove(right.was.as_deref());
            draft.entries = draft.entries.joined(&right.entries);
            parts.insert(left, Part::Fresh { low, erased: true, draft });
            at = left + 1;
        }
        Ok(())
    }

    fn merges(&self, left: &Part, right: &Part, node: &Node) -> Result<bool, ReadError> {
        let mut pages = [None, None];
        for (part, page) in [left, right].into_iter().zip(&mut pages) {
            if let Part::Entry(entry) = part {
                match entry.child() {
                    Some(child) if !node.children.contains(&child.id) => {
                        *page = Some(self.overlay.store.page(child, node.under)?);
                    }
                    _ => return Ok(false),
                }
            }
        }
        let seen = |part: &Part, page: &Option<Arc<Page>>| match (part, page) {
            (Part::Fresh { draft, .. }, _) => Some((draft.level, draft.entries.len(), draft.entries.size())),
            (Part::Entry(_), Some(page)) => Some((page.level, page.entries.len(), page.entries.size())),
            (Part::Entry(_), None) => None,
        };
        Ok(match (seen(left, &pages[0]), seen(right, &pages[1])) {
            (Some((left_level, left_len, left_size)), Some((right_level, right_len, right_size))) => {
                left_level == right_level && self.fills(2, left_level, left_len + right_len, left_size + right_size)
            }
            _ => false,
        })
    }

    fn draft_of(&mut self, part: Part, node: &Node) -> Result<([u8; 16], Draft), ReadError> {
        match part {
            Part::Fresh { low, draft, .. } => Ok((low, draft)),
            Part::Entry(entry) => {
                let Some(child) = entry.child() else {
                    return Err(ReadError::Damaged("a branch entry without a page"));
                };
                let page = self.overlay.store.page(child, node.under)?;
                self.expects.insert(page.id, page.version);
                let draft = Draft { level: page.level, entries: page.entries.clone(), was: Some(page) };
                Ok((entry.place(), draft))
            }
        }
    }

    /// Settles the root page of a subtree, which stays while its owner lives; says whether anything below was erased.
    fn settle_root(&mut self, id: PageId, under: Under) -> Result<Rooted, ReadError> {
        let settled = self.settle(id)?;
        let link = match settled.pieces {
            Pieces::Kept(link) => link,
            Pieces::Fresh(drafts) if drafts.is_empty() => {
                let draft = Draft { was: settled.was, level: under.leaf(), entries: Entries::default() };
                self.write_fresh(draft, under)?
            }
            Pieces::Fresh(drafts) => {
                let draft = self.reduce(drafts, under)?;
                match (draft.level, &draft.entries[..]) {
                    // A branch over one page is not needed: nothing but that page lies below it.
                    (Level::Branch, [only]) if only.child().is_some() => {
                        self.remove(draft.was.as_deref());
                        only.child().cloned().ok_or(ReadError::Damaged("a branch entry without a page"))?
                    }
                    _ => self.write_fresh(draft, under)?,
                }
            }
        };
        Ok(Rooted { link, erased: settled.erased, due: settled.due })
    }

    /// Puts branches above several pages until one is left, which the caller writes.
    fn reduce(&mut self, mut drafts: Vec<Draft>, under: Under) -> Result<Draft, ReadError> {
        loop {
            if drafts.len() <= 1 {
                let empty = || Draft { was: None, level: under.leaf(), entries: Entries::default() };
                return Ok(drafts.pop().unwrap_or_else(empty));
            }
            let mut entries = Vec::with_capacity(drafts.len());
            for draft in drafts {
                let low = match draft.entries.first() {
                    Some(first) if !entries.is_empty() => first.place(),
                    _ => [0; 16],
                };
                let due = draft.entries.due();
                let child = self.write_fresh(draft, under)?;
                entries.push(Entry::Branch { low, child, due });
            }
            drafts = self.chunk(None, Level::Branch, Entries::new(entries));
        }
    }

    /// Cuts entries into as few halves of halves as fit; the first takes the place of the page they came from.
    fn chunk(&self, was: Option<Arc<Page>>, level: Level, entries: Entries) -> Vec<Draft> {
        if entries.is_empty() {
            return Vec::new();
        }
        if self.fits(level, &entries) {
            return vec![Draft { was, level, entries }];
        }
        let (left, right) = entries.halves();
        let mut drafts = self.chunk(was, level, left);
        drafts.extend(self.chunk(None, level, right));
        drafts
    }

    fn most_entries(&self, level: Level) -> usize {
        match level {
            Level::Branch => self.limits.branch,
            Level::Tenants | Level::Subscribers | Level::Recordings => self.limits.leaf,
        }
    }

    fn fits(&self, level: Level, entries: &Entries) -> bool {
        entries.len() <= 1 || entries.len() <= self.most_entries(level) && entries.size() <= self.limits.bytes
    }

    /// Whether so much fills a page to this part at most.
    fn fills(&self, part: usize, level: Level, entries: usize, bytes: usize) -> bool {
        entries <= self.most_entries(level) / part && bytes <= self.limits.bytes / part
    }

    fn write_fresh(&mut self, draft: Draft, under: Under) -> Result<Link, ReadError> {
        let id = draft.was.as_ref().map_or_else(|| PageId(random()), |page| page.id);
        let link = Link { id, key: Arc::new(Secret::random()) };
        self.write(id, draft, under, &link.key, None)?;
        Ok(link)
    }

    fn write(
        &mut self,
        id: PageId,
        draft: Draft,
        under: Under,
        key: &Secret,
        root: Option<RootId>,
    ) -> Result<(), ReadError> {
        let Draft { was, level, mut entries } = draft;
        let version = was.as_ref().map_or(1, |page| page.version + 1);
        self.remove_appended(was.as_deref());
        entries.begin_at([0; 16]);
        let kind = if root.is_some() { Kind::Top } else { Kind::Page };
        let sealed = stack::wiped(|| {
            let (body, items) = encode_body(level, &entries)?;
            let clear = Clear { page: id, version, root, items }.encode();
            Ok(seal(kind, key, &clear, &body))
        });
        self.rows.push(Row::put(Family::Pages, id.0, sealed.map_err(fell)?));
        self.published.pages.push(Arc::new(Page { id, base: version, version, under, level, entries }));
        Ok(())
    }

    fn remove(&mut self, was: Option<&Page>) {
        if let Some(page) = was {
            self.rows.push(Row::delete(Family::Pages, page.id.0));
            self.published.gone.push(page.id);
        }
        self.remove_appended(was);
    }

    fn remove_appended(&mut self, was: Option<&Page>) {
        if let Some(page) = was {
            for version in page.base + 1..=page.version {
                self.rows.push(Row::delete(Family::Pages, append_name(page.id, version)));
            }
        }
    }
}

/// A page's entries with changes, where there are any.
fn changed(entries: &Entries, changes: Changes) -> Option<Entries> {
    if changes.is_empty() { None } else { Some(entries.changed(changes)) }
}

/// Has a page's owner say when the first of what lies below is due, where it says something else.
fn set_due(entry: &Entry, due: Minute, changes: &mut Changes, appends: &mut Vec<Append>) {
    if entry.due() != due
        && let Some(exact) = entry.due_from(due)
    {
        changes.insert(entry.place(), Some(exact.clone()));
        appends.push(Append::Replace(exact));
    }
}

/// The writer wipes veils, and only when it publishes, after all planning.
fn fell(_: BadPage) -> ReadError {
    ReadError::Damaged("a page that fell is being written")
}

/// Name of an appended row.
fn append_name(id: PageId, version: u64) -> Vec<u8> {
    [&id.0[..], &version.to_be_bytes()].concat()
}

fn under_of(under: Under, entry: &Entry) -> Under {
    use crate::domain::id::{SubscriberHandle, TenantHandle};
    match (under, entry) {
        (_, Entry::Tenant(account)) => Under::Tenant(TenantHandle(account.handle)),
        (Under::Tenant(tenant), Entry::Subscriber(account)) => {
            Under::Subscriber(tenant, SubscriberHandle(account.handle))
        }
        (under, _) => under,
    }
}

fn with_subtree(entry: &Entry, subtree: Link, due: Minute) -> Result<Entry, ReadError> {
    match entry {
        Entry::Tenant(account) => Ok(Entry::Tenant(Account { subtree, due, ..account.clone() })),
        Entry::Subscriber(account) => Ok(Entry::Subscriber(Account { subtree, due, ..account.clone() })),
        _ => Err(ReadError::Damaged("an entry that owns no subtree")),
    }
}
