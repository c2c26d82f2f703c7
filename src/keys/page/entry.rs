//! Entries of pages: what they hold, and their bytes.
//!
//! A page holds its entries by value, and what an old and a new version of it have in common is in both: secrets of accounts,
//! periods and links as one that is shared ([`Arc`]) and wiped when the last page that holds it is dropped; those of
//! recordings each under the same mask, and each copy wiped with its page.
//!
//! A recording's entry is as short as what it says: flags tell which fields follow, and a field that says nothing must not be
//! there, so that every entry has one spelling.

use super::{BadPage, Item, Items, Level, Link, Name, Place, Reader, decode_secret, place};
use crate::{
    crypto::secret::Secret,
    domain::{
        id::{ObjectId, PeriodHandle, RecordingHandle, RowId, SubscriberHandle},
        time::{Day, Minute},
    },
    keys::{
        Keeping, MAX_CHILDREN, MAX_NAME, MAX_PARTIES, Period, Purpose,
        veil::{Veil, Veiled},
        wrap::{self, Wrapped},
    },
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Objects of a recording. Most have one, which lies in the entry itself.
pub type Objects = SmallVec<[ObjectId; 1]>;

/// A tenant or a subscriber.
#[derive(Clone)]
pub struct Account {
    /// Its handle.
    pub handle: [u8; 8],
    /// Its rows.
    pub row: RowId,
    /// Its stable secret.
    pub secret: Arc<Secret>,
    /// What lies below it.
    pub subtree: Link,
    /// When the first recording below it is due.
    pub due: Minute,
    /// Its name.
    pub name: Arc<Name>,
}

/// A recording.
#[derive(Clone)]
pub struct Recording {
    /// Its handle.
    pub handle: RecordingHandle,
    /// Its rows.
    pub row: RowId,
    /// What it is; the vault's number.
    pub kind: u8,
    /// None once erased.
    pub audio: Option<Leaf>,
    /// None once erased.
    pub facts: Option<Leaf>,
    /// Its objects, in the clear part.
    pub objects: Objects,
    /// How long it is kept.
    pub keeping: Keeping,
    /// None where it is tied to nothing: most are not.
    pub ties: Option<Box<Ties>>,
}

/// A leaf's secret as its page holds it.
#[derive(Clone)]
pub enum Leaf {
    /// The secret itself.
    Plain(Veiled),
    /// The secret, sealed under what follows from the secrets of everybody it is bound to.
    Wrapped(Arc<Wrapped>),
}

/// What a recording is tied to.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Ties {
    /// The recording it was made from.
    pub parent: Option<RecordingHandle>,
    /// What was made from it, in order of creation.
    pub children: Vec<RecordingHandle>,
    /// Other subscribers who are bound to it, ascending.
    pub parties: Vec<SubscriberHandle>,
    /// Whether its leaves are wrapped; then there are parties.
    pub wrapped: bool,
}

impl Ties {
    /// As an entry holds them.
    pub fn boxed(self) -> Option<Box<Ties>> {
        if self == Ties::default() { None } else { Some(Box::new(self)) }
    }
}

/// In the page of a subscriber who is bound to a recording of another: what the sweeper needs when this one is erased. It
/// holds no secret.
#[derive(Clone)]
pub struct Bound {
    /// The recording's handle.
    pub handle: RecordingHandle,
    /// Its rows.
    pub row: RowId,
    /// Whose it is.
    pub owner: SubscriberHandle,
    /// Its objects, in the clear part.
    pub objects: Objects,
}

/// One entry of a page.
#[derive(Clone)]
pub enum Entry {
    /// A page of the same subtree, with everything from `low` up to the next entry's.
    Branch {
        /// Where it begins.
        low: Place,
        /// The page.
        child: Link,
        /// When the first recording below it is due.
        due: Minute,
    },
    /// A tenant.
    Tenant(Account),
    /// A subscriber.
    Subscriber(Account),
    /// A period and its secret.
    Period(Period, Arc<Secret>),
    /// A recording.
    Recording(Recording),
    /// A recording of another subscriber.
    Bound(Bound),
}

/// Flags of a recording's entry, in the order of the fields that they announce.
mod flag {
    pub const AUDIO: u16 = 1;
    pub const FACTS: u16 = 1 << 1;
    pub const WRAPPED: u16 = 1 << 2;
    pub const PARTIES: u16 = 1 << 3;
    pub const PARENT: u16 = 1 << 4;
    pub const CHILDREN: u16 = 1 << 5;
    pub const RESTRICTED: u16 = 1 << 6;
    pub const ENDED: u16 = 1 << 7;
    pub const AUDIO_DUE: u16 = 1 << 8;
    pub const FACTS_DUE: u16 = 1 << 9;
    pub const AUDIO_FLOOR: u16 = 1 << 10;
    pub const FACTS_FLOOR: u16 = 1 << 11;
    pub const GROUND: u16 = 1 << 12;
    pub const JURISDICTION: u16 = 1 << 13;
    pub const BASIS: u16 = 1 << 14;
    pub const ALL: u16 = (1 << 15) - 1;
}

impl Recording {
    /// What it is tied to.
    pub fn ties(&self) -> &Ties {
        const NONE: &Ties = &Ties { parent: None, children: Vec::new(), parties: Vec::new(), wrapped: false };
        self.ties.as_deref().unwrap_or(NONE)
    }

    fn flags(&self) -> u16 {
        let (keeping, ties) = (&self.keeping, self.ties());
        let said = |said: bool, flag: u16| if said { flag } else { 0 };
        said(self.audio.is_some(), flag::AUDIO)
            | said(self.facts.is_some(), flag::FACTS)
            | said(ties.wrapped, flag::WRAPPED)
            | said(!ties.parties.is_empty(), flag::PARTIES)
            | said(ties.parent.is_some(), flag::PARENT)
            | said(!ties.children.is_empty(), flag::CHILDREN)
            | said(keeping.restricted, flag::RESTRICTED)
            | said(keeping.ended != Minute::NONE, flag::ENDED)
            | said(keeping.audio_due != Minute::NEVER, flag::AUDIO_DUE)
            | said(keeping.facts_due != Minute::NEVER, flag::FACTS_DUE)
            | said(keeping.audio_floor != Minute::NONE, flag::AUDIO_FLOOR)
            | said(keeping.facts_floor != Minute::NONE, flag::FACTS_FLOOR)
            | said(keeping.ground != 0, flag::GROUND)
            | said(keeping.jurisdiction != [0; 2], flag::JURISDICTION)
            | said(keeping.basis != 0, flag::BASIS)
    }

    fn size(&self) -> usize {
        let (flags, ties) = (self.flags(), self.ties());
        let leaf = |leaf: &Option<Leaf>| match leaf {
            None => 0,
            Some(Leaf::Plain(_)) => 32,
            Some(Leaf::Wrapped(wrapped)) => wrapped.len(),
        };
        let minutes = flag::ENDED | flag::AUDIO_DUE | flag::FACTS_DUE | flag::AUDIO_FLOOR | flag::FACTS_FLOOR;
        let bytes = flag::PARTIES | flag::CHILDREN | flag::GROUND | flag::BASIS;
        let said = |flags: u16| flags.count_ones() as usize;
        20 + leaf(&self.audio)
            + leaf(&self.facts)
            + 8 * ties.parties.len()
            + 16 * (ties.children.len() + said(flags & flag::PARENT))
            + 4 * said(flags & minutes)
            + said(flags & bytes)
            + 2 * said(flags & flag::JURISDICTION)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), BadPage> {
        let (flags, keeping, ties) = (self.flags(), &self.keeping, self.ties());
        out.push(4);
        out.extend_from_slice(&self.handle.0);
        out.push(self.kind);
        out.extend_from_slice(&flags.to_be_bytes());
        for leaf in [&self.audio, &self.facts].into_iter().flatten() {
            match leaf {
                Leaf::Plain(secret) => secret.open_onto(out).ok_or(BadPage)?,
                Leaf::Wrapped(wrapped) => out.extend_from_slice(&wrapped[..]),
            }
        }
        if flags & flag::PARTIES != 0 {
            out.push(ties.parties.len() as u8);
            ties.parties.iter().for_each(|party| out.extend_from_slice(&party.0));
        }
        if let Some(parent) = ties.parent {
            out.extend_from_slice(&parent.0);
        }
        if flags & flag::CHILDREN != 0 {
            out.push(ties.children.len() as u8);
            ties.children.iter().for_each(|child| out.extend_from_slice(&child.0));
        }
        for (flag, minute) in [
            (flag::ENDED, keeping.ended),
            (flag::AUDIO_DUE, keeping.audio_due),
            (flag::FACTS_DUE, keeping.facts_due),
            (flag::AUDIO_FLOOR, keeping.audio_floor),
            (flag::FACTS_FLOOR, keeping.facts_floor),
        ] {
            if flags & flag != 0 {
                out.extend_from_slice(&minute.0.to_be_bytes());
            }
        }
        for (flag, bytes) in [
            (flag::GROUND, &[keeping.ground][..]),
            (flag::JURISDICTION, &keeping.jurisdiction),
            (flag::BASIS, &[keeping.basis]),
        ] {
            if flags & flag != 0 {
                out.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>, items: &mut Items<'_>, veil: &Arc<Veil>) -> Result<Self, BadPage> {
        let handle = RecordingHandle(reader.array()?);
        let kind = reader.byte()?;
        let flags = u16::from_be_bytes(reader.array()?);
        let said = |flag: u16| flags & flag != 0;
        if flags & !flag::ALL != 0 || said(flag::WRAPPED) && !said(flag::PARTIES) {
            return Err(BadPage);
        }
        let mut leaf = |flag: u16| match (said(flag), said(flag::WRAPPED)) {
            (false, _) => Ok(None),
            (true, false) => reader.secret().map(|secret| Some(Leaf::Plain(Veiled::new(veil, secret)))),
            (true, true) => reader.array::<{ wrap::LEN }>().map(|wrapped| Some(Leaf::Wrapped(Arc::new(wrapped)))),
        };
        let (audio, facts) = (leaf(flag::AUDIO)?, leaf(flag::FACTS)?);
        let mut ties = Ties { wrapped: said(flag::WRAPPED), ..Ties::default() };
        if said(flag::PARTIES) {
            let count = count(reader, MAX_PARTIES)?;
            for _ in 0..count {
                ties.parties.push(SubscriberHandle(reader.array()?));
            }
            if !ties.parties.is_sorted_by(|left, right| left < right) {
                return Err(BadPage);
            }
        }
        if said(flag::PARENT) {
            ties.parent = Some(RecordingHandle(reader.array()?));
        }
        if said(flag::CHILDREN) {
            let count = count(reader, MAX_CHILDREN)?;
            for _ in 0..count {
                ties.children.push(RecordingHandle(reader.array()?));
            }
        }
        let mut keeping = Keeping { restricted: said(flag::RESTRICTED), ..Keeping::default() };
        for (flag, minute) in [
            (flag::ENDED, &mut keeping.ended),
            (flag::AUDIO_DUE, &mut keeping.audio_due),
            (flag::FACTS_DUE, &mut keeping.facts_due),
            (flag::AUDIO_FLOOR, &mut keeping.audio_floor),
            (flag::FACTS_FLOOR, &mut keeping.facts_floor),
        ] {
            if said(flag) {
                *minute = Minute(u32::from_be_bytes(reader.array()?));
            }
        }
        if said(flag::GROUND) {
            keeping.ground = reader.byte()?;
        }
        if said(flag::JURISDICTION) {
            keeping.jurisdiction = reader.array()?;
        }
        if said(flag::BASIS) {
            keeping.basis = reader.byte()?;
        }
        let (row, objects) = (items.row()?, items.objects());
        let recording = Self { handle, row, kind, audio, facts, objects, keeping, ties: ties.boxed() };
        // A field that says nothing would be a second spelling.
        if recording.flags() == flags { Ok(recording) } else { Err(BadPage) }
    }
}

fn count(reader: &mut Reader<'_>, most: usize) -> Result<usize, BadPage> {
    let count = usize::from(reader.byte()?);
    if count > most { Err(BadPage) } else { Ok(count) }
}

impl Entry {
    /// Where it stands in its page.
    pub fn place(&self) -> Place {
        match self {
            Entry::Branch { low, .. } => *low,
            Entry::Tenant(account) | Entry::Subscriber(account) => place(&account.handle),
            Entry::Period(period, _) => place(&period.handle.0),
            Entry::Recording(recording) => recording.handle.0,
            Entry::Bound(bound) => bound.handle.0,
        }
    }

    /// The page below it.
    pub fn child(&self) -> Option<&Link> {
        match self {
            Entry::Branch { child, .. } => Some(child),
            Entry::Tenant(account) | Entry::Subscriber(account) => Some(&account.subtree),
            Entry::Period(..) | Entry::Recording(_) | Entry::Bound(_) => None,
        }
    }

    /// When it, or the first recording below it, is due.
    pub fn due(&self) -> Minute {
        match self {
            Entry::Branch { due, .. } => *due,
            Entry::Tenant(account) | Entry::Subscriber(account) => account.due,
            Entry::Recording(recording) => recording.keeping.due(recording.audio.is_some(), recording.facts.is_some()),
            Entry::Period(..) | Entry::Bound(_) => Minute::NEVER,
        }
    }

    /// The same entry of a page's owner with another due minute; none for an entry that has no page.
    pub fn due_from(&self, due: Minute) -> Option<Entry> {
        match self {
            Entry::Branch { low, child, .. } => Some(Entry::Branch { low: *low, child: child.clone(), due }),
            Entry::Tenant(account) => Some(Entry::Tenant(Account { due, ..account.clone() })),
            Entry::Subscriber(account) => Some(Entry::Subscriber(Account { due, ..account.clone() })),
            Entry::Period(..) | Entry::Recording(_) | Entry::Bound(_) => None,
        }
    }

    /// Its items in the clear part.
    pub fn push_items(&self, items: &mut Vec<Item>) {
        let mut objects = |row: RowId, objects: &[ObjectId]| {
            items.push(Item::Row(row));
            items.extend(objects.iter().copied().map(Item::Object));
        };
        match self {
            Entry::Recording(recording) => objects(recording.row, &recording.objects),
            Entry::Bound(bound) => objects(bound.row, &bound.objects),
            Entry::Branch { child, .. } => items.push(Item::Page(child.id)),
            Entry::Tenant(account) | Entry::Subscriber(account) => {
                items.extend([Item::Page(account.subtree.id), Item::Row(account.row)]);
            }
            Entry::Period(period, _) => items.push(Item::Row(period.row)),
        }
    }

    /// Bytes it takes, in the body and in the clear part.
    pub fn size(&self) -> usize {
        match self {
            Entry::Branch { .. } => 52 + 17,
            Entry::Tenant(account) | Entry::Subscriber(account) => 79 + account.name.as_str().len() + 34,
            Entry::Period(..) => 46 + 17,
            Entry::Recording(recording) => recording.size() + 17 * (1 + recording.objects.len()),
            Entry::Bound(bound) => 25 + 17 * (1 + bound.objects.len()),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), BadPage> {
        match self {
            Entry::Branch { low, child, due } => {
                out.extend_from_slice(low);
                out.extend_from_slice(child.key.expose());
                out.extend_from_slice(&due.0.to_be_bytes());
            }
            Entry::Tenant(account) => encode_account(1, account, out),
            Entry::Subscriber(account) => encode_account(2, account, out),
            Entry::Period(period, secret) => {
                out.push(3);
                out.extend_from_slice(&period.handle.0);
                out.extend_from_slice(secret.expose());
                out.push(period.purpose as u8);
                out.extend_from_slice(&period.day.0.to_be_bytes());
            }
            Entry::Recording(recording) => recording.encode(out)?,
            Entry::Bound(bound) => {
                out.push(5);
                out.extend_from_slice(&bound.handle.0);
                out.extend_from_slice(&bound.owner.0);
            }
        }
        Ok(())
    }

    pub(super) fn decode(
        level: Level,
        reader: &mut Reader<'_>,
        items: &mut Items<'_>,
        veil: Option<&Arc<Veil>>,
    ) -> Result<Self, BadPage> {
        if level == Level::Branch {
            let low = reader.array()?;
            let child = Link { id: items.page()?, key: decode_secret(reader)? };
            let due = Minute(u32::from_be_bytes(reader.array()?));
            return Ok(Entry::Branch { low, child, due });
        }
        match (reader.byte()?, level) {
            (1, Level::Tenants) => decode_account(reader, items).map(Entry::Tenant),
            (2, Level::Subscribers) => decode_account(reader, items).map(Entry::Subscriber),
            (3, Level::Subscribers) => {
                let (handle, row) = (PeriodHandle(reader.array()?), items.row()?);
                let secret = decode_secret(reader)?;
                let purpose = Purpose::from_byte(reader.byte()?).ok_or(BadPage)?;
                let day = Day(u32::from_be_bytes(reader.array()?));
                Ok(Entry::Period(Period { handle, row, purpose, day }, secret))
            }
            (4, Level::Recordings) => Recording::decode(reader, items, veil.ok_or(BadPage)?).map(Entry::Recording),
            (5, Level::Recordings) => {
                let (handle, row) = (RecordingHandle(reader.array()?), items.row()?);
                let owner = SubscriberHandle(reader.array()?);
                Ok(Entry::Bound(Bound { handle, row, owner, objects: items.objects() }))
            }
            _ => Err(BadPage),
        }
    }
}

fn encode_account(tag: u8, account: &Account, out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&account.handle);
    out.extend_from_slice(account.secret.expose());
    out.extend_from_slice(account.subtree.key.expose());
    out.extend_from_slice(&account.due.0.to_be_bytes());
    let name = account.name.as_str().as_bytes();
    debug_assert!(name.len() <= MAX_NAME, "the planner bounds names");
    out.extend_from_slice(&(name.len() as u16).to_be_bytes());
    out.extend_from_slice(name);
}

fn decode_account(reader: &mut Reader<'_>, items: &mut Items<'_>) -> Result<Account, BadPage> {
    let handle = reader.array()?;
    let secret = decode_secret(reader)?;
    let subtree = Link { id: items.page()?, key: decode_secret(reader)? };
    let row = items.row()?;
    let due = Minute(u32::from_be_bytes(reader.array()?));
    let len = u16::from_be_bytes(reader.array()?);
    let name = std::str::from_utf8(reader.take(usize::from(len))?).map_err(|_| BadPage)?;
    Ok(Account { handle, row, secret, subtree, due, name: Arc::new(Name::new(name.to_owned())) })
}
