//! What readers do under the shared lock: pages from the cache, else opened from their rows.

use super::{
    super::{
        Change, ReadError,
        backing::{Backing, Family},
        command,
        page::{Clear, Entries, Entry, Level, Link, Page, TOP, Under, apply_append, decode_appends, decode_body},
        plan::Store,
        tree::{self, NoPath, Pages},
        veil::Veil,
    },
    Present, Shared,
};
use crate::crypto::{
    envelope::{Envelope, Kind},
    secret::Secret,
    stack,
};
use std::sync::{Arc, PoisonError, RwLockReadGuard};
use zeroize::Zeroizing;

impl Shared {
    pub(in super::super) fn read(&self) -> Reading<'_> {
        // A panic elsewhere cannot leave the state half-changed: it is changed after everything that can fail.
        Reading { shared: self, present: self.present.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The same, behind a writer that waits. A lock that was let go of is not given to who waits for it: whoever takes it again
    /// at once would have it before the writer has woken up, and again and again.
    pub(super) fn read_behind_writer(&self) -> Reading<'_> {
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.read()
    }
}

/// A reader's hold on one state.
pub struct Reading<'a> {
    pub(in super::super) shared: &'a Shared,
    pub(in super::super) present: RwLockReadGuard<'a, Present>,
}

impl Reading<'_> {
    pub(super) fn top(&self) -> Link {
        Link { id: TOP, key: self.present.root.key.clone() }
    }

    /// Whether anything is there that a change would erase. What cannot be read may be.
    pub(in super::super) fn may_erase(&self, change: &Change) -> bool {
        let index = &self.present.index;
        match *change {
            Change::EraseTenant(tenant) => index.tenant_name(tenant).is_some(),
            Change::EraseSubscriber(tenant, subscriber) => index.subscriber_name(tenant, subscriber).is_some(),
            Change::ErasePeriod(tenant, period) => index.periods(tenant).any(|known| known.handle == period),
            Change::EraseRecording { at, parts } => {
                match tree::recording(self, &self.top(), at, &mut NoPath).map(tree::Search::found) {
                    Ok(found) => found.is_some_and(|entry| match &*entry {
                        // One without leaves is left of somebody who fell, and goes without a rotation.
                        Entry::Recording(recording) => {
                            parts.audio && recording.audio.is_some() || parts.facts && recording.facts.is_some()
                        }
                        _ => false,
                    }),
                    Err(_) => true,
                }
            }
            _ => change.erases(),
        }
    }
}

impl Pages for Reading<'_> {
    fn page(&self, link: &Link, under: Under) -> Result<Arc<Page>, ReadError> {
        if let Some(page) = self.shared.cache.get(&link.id) {
            return Ok(page);
        }
        let veil = match under {
            Under::Subscriber(tenant, subscriber) => self.present.index.veil(tenant, subscriber),
            Under::Top | Under::Tenant(_) => None,
        };
        let page = Arc::new(stack::wiped(|| open_page(&*self.shared.backing, link, under, veil))?);
        self.shared.cache.insert(link.id, page.clone());
        Ok(page)
    }
}

impl Store for Reading<'_> {
    fn row(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.shared.backing.get(family, key)?)
    }

    fn rows(&self, family: Family, prefix: &[u8]) -> Result<Vec<Vec<u8>>, ReadError> {
        let rows = self.shared.backing.scan(family, prefix, None, usize::MAX)?;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }
}

/// Opens a page and its appended rows.
fn open_page(backing: &dyn Backing, link: &Link, under: Under, veil: Option<&Arc<Veil>>) -> Result<Page, ReadError> {
    let damaged = || ReadError::Damaged("a page is missing or does not open");
    let rows = backing.scan(Family::Pages, &link.id.0, None, usize::MAX)?;
    let mut rows = rows.into_iter();
    let (key, value) = rows.next().filter(|(key, _)| *key == link.id.0).ok_or_else(damaged)?;
    let (clear, body) = open_row(&value, &link.key, if link.id == TOP { Kind::Top } else { Kind::Page })?;
    let (level, mut entries) = decode_body(&body, &clear.items, veil).map_err(|_| damaged())?;
    if clear.page.0[..] != key[..] || (level != under.leaf() && level != Level::Branch) {
        return Err(damaged());
    }
    let (base, mut version) = (clear.version, clear.version);
    // Most rows have one entry more.
    entries.reserve_exact(rows.len());
    for (_, value) in rows {
        let (clear, body) = open_row(&value, &link.key, Kind::Append)?;
        version += 1;
        if clear.page != link.id || clear.version != version {
            return Err(damaged());
        }
        for append in decode_appends(level, &body, &clear.items, veil).map_err(|_| damaged())? {
            apply_append(&mut entries, append).map_err(|_| damaged())?;
        }
    }
    Ok(Page { id: link.id, base, version, under, level, entries: Entries::new(entries) })
}

fn open_row(value: &[u8], key: &Secret, kind: Kind) -> Result<(Clear, Zeroizing<Vec<u8>>), ReadError> {
    let damaged = || ReadError::Damaged("a page is missing or does not open");
    let envelope = Envelope::parse(value).map_err(|_| damaged())?;
    if envelope.kind != kind {
        return Err(damaged());
    }
    Ok((command::clear_of(value)?, envelope.open(key).map_err(|_| damaged())?))
}
