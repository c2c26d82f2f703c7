//! Finding entries: from the top through branches and accounts down to a leaf page. The same code reads for readers (over
//! the cache) and for the planner (over pages that are being changed).

use super::{
    ReadError, RecordingPath,
    page::{Account, Changes, Entries, Entry, Level, Link, Page, Place, Under, place},
};
use crate::domain::id::{SubscriberHandle, TenantHandle};
use std::{
    ops::{ControlFlow, Deref},
    sync::Arc,
};

/// No subtree is deeper: at the least fill that splitting leaves, this is far beyond any number of entries. Bounds loops.
pub const MAX_DEPTH: usize = 24;

/// Gives pages as they are now.
pub trait Pages {
    /// Opens a page.
    fn page(&self, link: &Link, under: Under) -> Result<Arc<Page>, ReadError>;
}

/// Gives pages to search.
pub trait Source {
    /// Opens a page.
    fn view(&self, link: &Link, under: Under) -> Result<View<'_>, ReadError>;
}

impl<P: Pages> Source for P {
    fn view(&self, link: &Link, under: Under) -> Result<View<'_>, ReadError> {
        self.page(link, under).map(View::Now)
    }
}

/// A page that is searched.
pub enum View<'a> {
    /// As it is now.
    Now(Arc<Page>),
    /// As a plan has it so far.
    Planned {
        /// What its entries are.
        level: Level,
        /// Those it had; none of a new page.
        was: Option<&'a Entries>,
        /// What becomes of them. Of a branch nothing before the plan is settled.
        changes: &'a Changes,
    },
}

impl<'a> View<'a> {
    fn level(&self) -> Level {
        match self {
            View::Now(page) => page.level,
            View::Planned { level, .. } => *level,
        }
    }

    fn covering(&self, place: &Place) -> Option<&Entry> {
        match self {
            View::Now(page) => page.entries.covering(place),
            View::Planned { was, .. } => was.and_then(|was| was.covering(place)),
        }
    }

    fn find(self, place: &Place) -> Option<Found<'a>> {
        match self {
            View::Now(page) => page.entries.find(place).ok().map(|index| Found::Now(page, index)),
            View::Planned { was, changes, .. } => match changes.get(place) {
                Some(change) => change.as_ref().map(Found::Planned),
                None => was.and_then(|was| was.find(place).ok().map(|index| Found::Planned(&was[index]))),
            },
        }
    }
}

/// An entry where it lies. It is not outlived by the hold on the state that it was found in.
pub enum Found<'a> {
    /// In a page as it is now.
    Now(Arc<Page>, usize),
    /// In a plan.
    Planned(&'a Entry),
}

impl Deref for Found<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        match self {
            Found::Now(page, index) => &page.entries[*index],
            Found::Planned(entry) => entry,
        }
    }
}

/// What a search found.
pub enum Search<'a> {
    /// What it should lie below is not there.
    NoParent,
    /// It is not there; the path leads to where it would be.
    Vacant,
    /// It is there.
    Found(Found<'a>),
}

impl<'a> Search<'a> {
    /// The entry.
    pub fn found(self) -> Option<Found<'a>> {
        match self {
            Search::Found(found) => Some(found),
            Search::NoParent | Search::Vacant => None,
        }
    }
}

/// A page on the way to an entry.
pub struct Step {
    /// The page.
    pub link: Link,
    /// Whose subtree it belongs to.
    pub under: Under,
}

/// Is told of the pages on the way to an entry.
pub trait Path {
    /// One more page.
    fn step(&mut self, link: &Link, under: Under);
}

impl Path for Vec<Step> {
    fn step(&mut self, link: &Link, under: Under) {
        self.push(Step { link: link.clone(), under });
    }
}

/// For readers, who go down once and build on nothing.
pub struct NoPath;

impl Path for NoPath {
    fn step(&mut self, _: &Link, _: Under) {}
}

/// The account in an entry.
pub fn account(entry: &Entry) -> Option<&Account> {
    match entry {
        Entry::Tenant(account) | Entry::Subscriber(account) => Some(account),
        _ => None,
    }
}

/// A tenant. The pages on the way go onto `path`, here and below.
pub fn tenant<'a>(
    source: &'a impl Source,
    top: &Link,
    tenant: TenantHandle,
    path: &mut impl Path,
) -> Result<Search<'a>, ReadError> {
    descend(source, top, Under::Top, &place(&tenant.0), path)
}

/// A subscriber or period, by its handle.
pub fn below_tenant<'a>(
    source: &'a impl Source,
    top: &Link,
    tenant: TenantHandle,
    handle: [u8; 8],
    path: &mut impl Path,
) -> Result<Search<'a>, ReadError> {
    let Search::Found(parent) = self::tenant(source, top, tenant, path)? else { return Ok(Search::NoParent) };
    let Some(parent) = account(&parent) else { return Ok(Search::NoParent) };
    descend(source, &parent.subtree, Under::Tenant(tenant), &place(&handle), path)
}

/// A subscriber's entry, which has an account.
pub fn subscriber<'a>(
    source: &'a impl Source,
    top: &Link,
    tenant: TenantHandle,
    subscriber: SubscriberHandle,
    path: &mut impl Path,
) -> Result<Option<Found<'a>>, ReadError> {
    let found = below_tenant(source, top, tenant, subscriber.0, path)?.found();
    Ok(found.filter(|entry| matches!(**entry, Entry::Subscriber(_))))
}

/// A recording.
pub fn recording<'a>(
    source: &'a impl Source,
    top: &Link,
    at: RecordingPath,
    path: &mut impl Path,
) -> Result<Search<'a>, ReadError> {
    let parent = subscriber(source, top, at.tenant, at.subscriber, path)?;
    let Some(parent) = parent.as_deref().and_then(account) else { return Ok(Search::NoParent) };
    let under = Under::Subscriber(at.tenant, at.subscriber);
    descend(source, &parent.subtree, under, &at.recording.0, path)
}

fn descend<'a>(
    source: &'a impl Source,
    root: &Link,
    under: Under,
    place: &Place,
    path: &mut impl Path,
) -> Result<Search<'a>, ReadError> {
    let mut view = source.view(root, under)?;
    path.step(root, under);
    for _ in 0..MAX_DEPTH {
        if view.level() != Level::Branch {
            return Ok(view.find(place).map_or(Search::Vacant, Search::Found));
        }
        let child = view.covering(place).and_then(Entry::child);
        let child = child.ok_or(ReadError::Damaged("a branch page is empty"))?;
        let below = source.view(child, under)?;
        path.step(child, under);
        view = below;
    }
    Err(ReadError::Damaged("the tree is too deep"))
}

/// Visits the leaf entries of one subtree behind `after`, in order, until `visit` breaks.
pub fn walk(
    pages: &impl Pages,
    root: &Link,
    under: Under,
    after: Option<Place>,
    visit: &mut impl FnMut(&Entry) -> Result<ControlFlow<()>, ReadError>,
) -> Result<(), ReadError> {
    walk_below(pages, root, under, after, visit, MAX_DEPTH).map(drop)
}

fn walk_below(
    pages: &impl Pages,
    link: &Link,
    under: Under,
    after: Option<Place>,
    visit: &mut impl FnMut(&Entry) -> Result<ControlFlow<()>, ReadError>,
    depth: usize,
) -> Result<ControlFlow<()>, ReadError> {
    if depth == 0 {
        return Err(ReadError::Damaged("the tree is too deep"));
    }
    let page = pages.page(link, under)?;
    let first = match (after, page.level) {
        (None, _) => 0,
        (Some(after), Level::Branch) => page.entries.up_to(&after).saturating_sub(1),
        (Some(after), _) => page.entries.up_to(&after),
    };
    for entry in &page.entries[first..] {
        let flow = match (page.level, entry.child()) {
            (Level::Branch, Some(child)) => walk_below(pages, child, under, after, visit, depth - 1)?,
            _ => visit(entry)?,
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}
