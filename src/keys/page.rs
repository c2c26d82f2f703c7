//! The bytes of pages: entries, appended entries, clear parts. Pure: no I/O, no randomness; nothing is sealed here.
//!
//! The tables are in docs/format.md, section 3. What stands in clear beside a sealed page (child pages, rows, objects) is
//! the sweeper's map for the day when the key is gone. Those ids stand there alone, in the order of their entries: a body is
//! opened with them as associated data, so nobody changes them, and there is one reading of every page.

mod entries;
mod entry;

use super::veil::Veil;
use crate::{
    crypto::secret::{SECRET_LEN, Secret},
    domain::id::{ObjectId, PageId, RootId, RowId, SubscriberHandle, TenantHandle},
};
pub use entries::{Changes, Entries};
pub use entry::{Account, Bound, Entry, Leaf, Objects, Recording, Ties};
use std::{borrow::Borrow, sync::Arc};
use zeroize::{Zeroize as _, Zeroizing};

/// The id of the top page.
pub const TOP: PageId = PageId([0; 16]);

/// An entry's handle, padded with zeros on the right: what orders the entries of a page.
pub type Place = [u8; 16];

/// Pads a handle.
pub fn place(handle: &[u8]) -> Place {
    let mut place = [0; 16];
    let len = handle.len().min(16);
    place[..len].copy_from_slice(&handle[..len]);
    place
}

/// What the entries of a page are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Level {
    /// Pages of the same subtree.
    Branch = 1,
    /// Tenants.
    Tenants = 2,
    /// Subscribers and periods of one tenant.
    Subscribers = 3,
    /// Recordings of one subscriber.
    Recordings = 4,
}

impl Level {
    /// From the byte in a body.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Branch, Self::Tenants, Self::Subscribers, Self::Recordings]
            .into_iter()
            .find(|level| *level as u8 == byte)
    }
}

/// A name of a tenant or subscriber: wiped when dropped, never printed.
pub struct Name(Box<str>);

impl Name {
    /// Takes a name over.
    pub fn new(name: String) -> Self {
        Self(name.into_boxed_str())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Name {}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A page and the key that opens it, as its parent holds them.
#[derive(Clone)]
pub struct Link {
    /// The page.
    pub id: PageId,
    /// Its key.
    pub key: Arc<Secret>,
}

/// An id in clear, and what it is of. In a page: `Page`, `Row`, `Object`; the last two only in doomed rows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Item {
    /// A page and everything that its clear parts lead to.
    Page(PageId),
    /// Every value of a row id.
    Row(RowId),
    /// An object; in a page it belongs to the row id before it.
    Object(ObjectId),
    /// The values of a row id that its audio secret seals.
    AudioValues(RowId),
    /// The values of a row id that its facts secret seals.
    FactsValues(RowId),
}

impl Item {
    /// Bytes of one.
    pub const LEN: usize = 17;

    /// Writes a list.
    pub fn encode_list(items: &[Item], out: &mut Vec<u8>) {
        for item in items {
            let (tag, id) = match item {
                Item::Page(id) => (1, &id.0),
                Item::Row(id) => (2, &id.0),
                Item::Object(id) => (3, &id.0),
                Item::AudioValues(id) => (4, &id.0),
                Item::FactsValues(id) => (5, &id.0),
            };
            out.push(tag);
            out.extend_from_slice(id);
        }
    }

    /// Reads a list that fills `bytes`.
    pub fn decode_list(bytes: &[u8]) -> Result<Vec<Item>, BadPage> {
        let (items, rest) = bytes.as_chunks::<{ Item::LEN }>();
        if !rest.is_empty() {
            return Err(BadPage);
        }
        items
            .iter()
            .map(|[tag, id @ ..]| match tag {
                1 => Ok(Item::Page(PageId(*id))),
                2 => Ok(Item::Row(RowId(*id))),
                3 => Ok(Item::Object(ObjectId(*id))),
                4 => Ok(Item::AudioValues(RowId(*id))),
                5 => Ok(Item::FactsValues(RowId(*id))),
                _ => Err(BadPage),
            })
            .collect()
    }
}

/// Bytes that are not a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not a page of the key tree")]
pub struct BadPage;

/// The clear part of a page or of an appended row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clear {
    /// The page.
    pub page: PageId,
    /// Counts the writes of this page, appended rows included.
    pub version: u64,
    /// Names the root; in a Top only.
    pub root: Option<RootId>,
    /// The sweeper's map.
    pub items: Vec<Item>,
}

impl Clear {
    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40 + Item::LEN * self.items.len());
        out.extend_from_slice(&self.page.0);
        out.extend_from_slice(&self.version.to_be_bytes());
        if let Some(root) = self.root {
            out.extend_from_slice(&root.0);
        }
        Item::encode_list(&self.items, &mut out);
        out
    }

    /// Reads it; `top` says whether a root id is in it.
    pub fn decode(bytes: &[u8], top: bool) -> Result<Self, BadPage> {
        let mut reader = Reader(bytes);
        let page = PageId(reader.array()?);
        let version = u64::from_be_bytes(reader.array()?);
        let root = if top { Some(RootId(reader.array()?)) } else { None };
        Ok(Self { page, version, root, items: Item::decode_list(reader.0)? })
    }
}

/// Plaintext to be sealed, and the items of the clear part beside it.
pub type Encoded = (Zeroizing<Vec<u8>>, Vec<Item>);

/// A page's body and its items. Fails when a secret's veil has been wiped: the page fell.
pub fn encode_body(level: Level, entries: &[Entry]) -> Result<Encoded, BadPage> {
    // Reserved in full, so that no half-written copy with secrets is left behind by a growing buffer.
    let mut body = Zeroizing::new(Vec::with_capacity(5 + entries.iter().map(Entry::size).sum::<usize>()));
    body.push(level as u8);
    body.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    let mut items = Vec::new();
    for entry in entries {
        entry.encode(&mut body)?;
        entry.push_items(&mut items);
    }
    Ok((body, items))
}

/// Reads a page's body against its items. Secrets of recordings go under the veil; without one there must be none. The entries
/// are in ascending order of place.
pub fn decode_body(body: &[u8], items: &[Item], veil: Option<&Arc<Veil>>) -> Result<(Level, Vec<Entry>), BadPage> {
    let mut reader = Reader(body);
    let level = Level::from_byte(reader.byte()?).ok_or(BadPage)?;
    let count = u32::from_be_bytes(reader.array()?) as usize;
    let mut items = Items(items);
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(body.len() / 20));
    for _ in 0..count {
        let entry = Entry::decode(level, &mut reader, &mut items, veil)?;
        if entries.last().is_some_and(|last| last.place() >= entry.place()) {
            return Err(BadPage);
        }
        entries.push(entry);
    }
    if reader.0.is_empty() && items.0.is_empty() { Ok((level, entries)) } else { Err(BadPage) }
}

/// What an appended row does to its page.
pub enum Append {
    /// One more entry.
    Insert(Entry),
    /// More objects of a recording that is there.
    Objects(RowId, Objects),
    /// An entry takes the place of an older version of itself, which holds no secret that this one lacks.
    Replace(Entry),
}

/// The sealed part of an appended row and its items; fails like [`encode_body`].
pub fn encode_appends(appends: &[Append]) -> Result<Encoded, BadPage> {
    let size = appends.iter().map(|append| match append {
        Append::Insert(entry) | Append::Replace(entry) => 1 + entry.size(),
        Append::Objects(..) => 1,
    });
    let mut body = Zeroizing::new(Vec::with_capacity(size.sum()));
    let mut items = Vec::new();
    for append in appends {
        match append {
            Append::Insert(entry) => {
                body.push(1);
                entry.encode(&mut body)?;
                entry.push_items(&mut items);
            }
            Append::Objects(row, objects) => {
                body.push(2);
                items.push(Item::Row(*row));
                items.extend(objects.iter().copied().map(Item::Object));
            }
            Append::Replace(entry) => {
                // Entries of branches have no tag of their own.
                body.push(if matches!(entry, Entry::Branch { .. }) { 4 } else { 3 });
                entry.encode(&mut body)?;
                entry.push_items(&mut items);
            }
        }
    }
    Ok((body, items))
}

/// Reads an appended row of a page of this level.
pub fn decode_appends(
    level: Level,
    body: &[u8],
    items: &[Item],
    veil: Option<&Arc<Veil>>,
) -> Result<Vec<Append>, BadPage> {
    let mut reader = Reader(body);
    let mut items = Items(items);
    let mut appends = Vec::new();
    while !reader.0.is_empty() {
        appends.push(match (reader.byte()?, level) {
            (1, Level::Branch) => return Err(BadPage),
            (1, _) => Append::Insert(Entry::decode(level, &mut reader, &mut items, veil)?),
            (2, _) => Append::Objects(items.row()?, items.objects()),
            (4, Level::Branch) => replace(level, &mut reader, &mut items, veil)?,
            (3, Level::Tenants | Level::Subscribers | Level::Recordings) => {
                replace(level, &mut reader, &mut items, veil)?
            }
            _ => return Err(BadPage),
        });
    }
    if items.0.is_empty() { Ok(appends) } else { Err(BadPage) }
}

fn replace(
    level: Level,
    reader: &mut Reader<'_>,
    items: &mut Items<'_>,
    veil: Option<&Arc<Veil>>,
) -> Result<Append, BadPage> {
    Entry::decode(level, reader, items, veil).map(Append::Replace)
}

/// Applies an appended row to a page's entries.
pub fn apply_append(entries: &mut Vec<Entry>, append: Append) -> Result<(), BadPage> {
    let find = |entries: &[Entry], place: &Place| entries.binary_search_by(|entry| entry.place().cmp(place));
    match append {
        Append::Insert(entry) => match find(entries, &entry.place()) {
            Ok(_) => return Err(BadPage),
            Err(index) => entries.insert(index, entry),
        },
        Append::Objects(row, objects) => {
            let own = entries.iter_mut().find_map(|entry| match entry {
                Entry::Recording(recording) if recording.row == row => Some(&mut recording.objects),
                Entry::Bound(bound) if bound.row == row => Some(&mut bound.objects),
                _ => None,
            });
            own.ok_or(BadPage)?.extend_from_slice(&objects);
        }
        Append::Replace(entry) => match find(entries, &entry.place()) {
            Ok(index) => entries[index] = entry,
            Err(_) => return Err(BadPage),
        },
    }
    Ok(())
}

fn decode_secret(reader: &mut Reader<'_>) -> Result<Arc<Secret>, BadPage> {
    Ok(Arc::new(Secret::from_bytes(reader.secret()?)))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadPage> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(BadPage)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadPage> {
        self.take(N)?.try_into().map_err(|_| BadPage)
    }

    fn byte(&mut self) -> Result<u8, BadPage> {
        Ok(self.array::<1>()?[0])
    }

    /// Where it lies: a secret is not copied on its way.
    fn secret(&mut self) -> Result<&'a [u8; SECRET_LEN], BadPage> {
        self.take(SECRET_LEN)?.try_into().map_err(|_| BadPage)
    }
}

struct Items<'a>(&'a [Item]);

impl Items<'_> {
    fn take(&mut self) -> Result<Item, BadPage> {
        let (first, rest) = self.0.split_first().ok_or(BadPage)?;
        self.0 = rest;
        Ok(*first)
    }

    fn page(&mut self) -> Result<PageId, BadPage> {
        if let Item::Page(id) = self.take()? { Ok(id) } else { Err(BadPage) }
    }

    fn row(&mut self) -> Result<RowId, BadPage> {
        if let Item::Row(id) = self.take()? { Ok(id) } else { Err(BadPage) }
    }

    fn objects(&mut self) -> Objects {
        let mut objects = Objects::new();
        while let Some((Item::Object(object), rest)) = self.0.split_first() {
            objects.push(*object);
            self.0 = rest;
        }
        objects
    }
}

/// Whose subtree a page belongs to: what its leaves hold, and which erasure makes it fall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Under {
    /// The top.
    Top,
    /// A tenant.
    Tenant(TenantHandle),
    /// A subscriber.
    Subscriber(TenantHandle, SubscriberHandle),
}

impl Under {
    /// What leaf pages of this subtree hold.
    pub fn leaf(self) -> Level {
        match self {
            Under::Top => Level::Tenants,
            Under::Tenant(_) => Level::Subscribers,
            Under::Subscriber(..) => Level::Recordings,
        }
    }

    /// Whether it falls when `scope` falls.
    pub fn within(self, scope: Under) -> bool {
        match (scope, self) {
            (Under::Top, _) => true,
            (Under::Tenant(scope), Under::Tenant(tenant) | Under::Subscriber(tenant, _)) => scope == tenant,
            (scope, own) => scope == own,
        }
    }
}

/// A page, opened: its row and its appended rows together.
pub struct Page {
    /// Its id.
    pub id: PageId,
    /// The version that the page row has.
    pub base: u64,
    /// The version with the appended rows.
    pub version: u64,
    /// Whose subtree it belongs to.
    pub under: Under,
    /// What its entries are.
    pub level: Level,
    /// What is in it.
    pub entries: Entries,
}

#[cfg(test)]
mod tests;
