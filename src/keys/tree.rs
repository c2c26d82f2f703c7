//! Finding entries: from the top through branches and accounts down to a leaf page. The same code reads for readers (over
//! the cache) and for the planner (over pages that are being changed).

use super::{
    ReadError, RecordingPath,
    page::{Account, Entry, Level, Link, Place, Under, find, place},
};
use crate::domain::id::{SubscriberHandle, TenantHandle};
use std::{ops::ControlFlow, sync::Arc};

/// No subtree is deeper: at the least fill that splitting leaves, this is far beyond any number of entries. Bounds loops.
pub const MAX_DEPTH: usize = 24;

/// Gives pages to read.
pub trait Source {
    /// Opens a page and lets `read` see it.
    fn view<R>(&self, link: &Link, under: Under, read: impl FnOnce(Level, &[Arc<Entry>]) -> R) -> Result<R, ReadError>;
}

/// A page on the way to an entry.
pub struct Step {
    /// The page.
    pub link: Link,
    /// Whose subtree it belongs to.
    pub under: Under,
}

/// What a search found.
pub enum Search {
    /// What it should lie below is not there.
    NoParent,
    /// It is not there; the path leads to where it would be.
    Vacant,
    /// It is there.
    Found(Arc<Entry>),
}

impl Search {
    /// The entry.
    pub fn found(self) -> Option<Arc<Entry>> {
        match self {
            Search::Found(entry) => Some(entry),
            Search::NoParent | Search::Vacant => None,
        }
    }
}

/// The account in an entry.
pub fn account(entry: &Entry) -> Option<&Account> {
    match entry {
        Entry::Tenant(account) | Entry::Subscriber(account) => Some(account),
        _ => None,
    }
}

/// A tenant. The pages on the way go onto `path`, here and below.
pub fn tenant(
    source: &impl Source,
    top: &Link,
    tenant: TenantHandle,
    path: &mut Vec<Step>,
) -> Result<Search, ReadError> {
    descend(source, top, Under::Top, &place(&tenant.0), path)
}

/// A subscriber or period, by its handle.
pub fn below_tenant(
    source: &impl Source,
    top: &Link,
    tenant: TenantHandle,
    handle: [u8; 8],
    path: &mut Vec<Step>,
) -> Result<Search, ReadError> {
    let Search::Found(parent) = self::tenant(source, top, tenant, path)? else { return Ok(Search::NoParent) };
    let Some(parent) = account(&parent) else { return Ok(Search::NoParent) };
    descend(source, &parent.subtree, Under::Tenant(tenant), &place(&handle), path)
}

/// A subscriber's account, and what its subtree is under.
pub fn subscriber(
    source: &impl Source,
    top: &Link,
    tenant: TenantHandle,
    subscriber: SubscriberHandle,
    path: &mut Vec<Step>,
) -> Result<Option<Account>, ReadError> {
    Ok(match below_tenant(source, top, tenant, subscriber.0, path)? {
        Search::Found(entry) => match &*entry {
            Entry::Subscriber(account) => Some(account.clone()),
            _ => None,
        },
        _ => None,
    })
}

/// A recording.
pub fn recording(
    source: &impl Source,
    top: &Link,
    at: RecordingPath,
    path: &mut Vec<Step>,
) -> Result<Search, ReadError> {
    match subscriber(source, top, at.tenant, at.subscriber, path)? {
        Some(parent) => {
            let under = Under::Subscriber(at.tenant, at.subscriber);
            descend(source, &parent.subtree, under, &at.recording.0, path)
        }
        None => Ok(Search::NoParent),
    }
}

fn descend(
    source: &impl Source,
    root: &Link,
    under: Under,
    place: &Place,
    path: &mut Vec<Step>,
) -> Result<Search, ReadError> {
    let mut link = root.clone();
    for _ in 0..MAX_DEPTH {
        let next = source.view(&link, under, |level, entries| match level {
            Level::Branch => ControlFlow::Continue(covering(entries, place).and_then(|entry| entry.child().cloned())),
            _ => ControlFlow::Break(find(entries, place).ok().map(|index| entries[index].clone())),
        })?;
        path.push(Step { link, under });
        match next {
            ControlFlow::Break(Some(entry)) => return Ok(Search::Found(entry)),
            ControlFlow::Break(None) => return Ok(Search::Vacant),
            ControlFlow::Continue(Some(child)) => link = child,
            ControlFlow::Continue(None) => return Err(ReadError::Damaged("a branch page is empty")),
        }
    }
    Err(ReadError::Damaged("the tree is too deep"))
}

/// The branch entry that covers a place: the last one that does not begin behind it, else the first.
fn covering<'a>(entries: &'a [Arc<Entry>], place: &Place) -> Option<&'a Arc<Entry>> {
    let behind = entries.partition_point(|entry| entry.place() <= *place);
    entries.get(behind.saturating_sub(1))
}

/// Visits the leaf entries of one subtree behind `after`, in order, until `visit` breaks.
pub fn walk(
    source: &impl Source,
    root: &Link,
    under: Under,
    after: Option<Place>,
    visit: &mut impl FnMut(&Arc<Entry>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    walk_below(source, root, under, after, visit, MAX_DEPTH).map(drop)
}

fn walk_below(
    source: &impl Source,
    link: &Link,
    under: Under,
    after: Option<Place>,
    visit: &mut impl FnMut(&Arc<Entry>) -> ControlFlow<()>,
    depth: usize,
) -> Result<ControlFlow<()>, ReadError> {
    if depth == 0 {
        return Err(ReadError::Damaged("the tree is too deep"));
    }
    let (level, entries) = source.view(link, under, |level, entries| {
        let first = match (after, level) {
            (None, _) => 0,
            (Some(after), Level::Branch) => entries.partition_point(|entry| entry.place() <= after).saturating_sub(1),
            (Some(after), _) => entries.partition_point(|entry| entry.place() <= after),
        };
        (level, entries[first..].to_vec())
    })?;
    for entry in &entries {
        let flow = match (level, entry.child()) {
            (Level::Branch, Some(child)) => walk_below(source, child, under, after, visit, depth - 1)?,
            _ => visit(entry),
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}
