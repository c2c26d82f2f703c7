//! Page bodies, read as `docs/format.md` section 3 has them. This parser is the forensics tool's own: it shares nothing
//! with the code that writes pages, so that a mistake there is not repeated here.

use crate::crypto::envelope::Kind;

/// Sixteen bytes that name a page, a row or an object.
pub type Id = [u8; 16];
/// A secret or a page key. The attacker keeps what it finds; nothing here is wiped.
pub type Key = [u8; 32];

/// Bytes of the envelope of a wrapped secret: header, row id, part, secret, tag.
const WRAPPED: usize = 48 + 17 + 32 + 16;

/// What an entry tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// A page of the same subtree.
    Branch { page: Id, key: Key },
    /// A tenant or a subscriber.
    Account { tenant: bool, handle: [u8; 8], row: Id, secret: Key, page: Id, key: Key, name: Vec<u8> },
    /// A period of a tenant.
    Period { row: Id, secret: Key },
    /// A recording.
    Recording { handle: Id, row: Id, audio: Option<Leaf>, facts: Option<Leaf>, parties: Vec<[u8; 8]> },
    /// A recording of another subscriber: no secret is in it.
    Bound { row: Id },
}

/// What an entry holds of a leaf.
#[derive(Debug, PartialEq, Eq)]
pub enum Leaf {
    /// Its secret.
    Plain(Key),
    /// An envelope under what follows from the secrets of everybody it is bound to.
    Wrapped(Vec<u8>),
}

impl Entry {
    /// The row id that it stands for.
    pub fn row(&self) -> Option<Id> {
        match self {
            Entry::Branch { .. } => None,
            Entry::Account { row, .. } | Entry::Period { row, .. } | Entry::Recording { row, .. } => Some(*row),
            // It says that there is, or was, an entry elsewhere; that one may be gone.
            Entry::Bound { .. } => None,
        }
    }

    /// What it is, in the report.
    pub fn what(&self) -> &'static str {
        match self {
            Entry::Branch { .. } => "branch",
            Entry::Account { tenant: true, .. } => "tenant",
            Entry::Account { tenant: false, .. } => "subscriber",
            Entry::Period { .. } => "period",
            Entry::Recording { .. } => "recording",
            Entry::Bound { .. } => "bound",
        }
    }
}

/// The entries of a page's body, whose ids are in the items of its clear part; none where it is not understood.
pub fn body(bytes: &[u8], items: &[u8]) -> Option<Vec<Entry>> {
    let (mut bytes, mut ids) = (Bytes(bytes), Ids::new(items));
    let [level] = bytes.take()?;
    let count = u32::from_be_bytes(bytes.take()?);
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(match level {
            1 => branch(&mut bytes, &mut ids)?,
            2..=4 => entry(&mut bytes, &mut ids)?,
            _ => return None,
        });
    }
    (bytes.0.is_empty() && ids.are_over()).then_some(entries)
}

/// The entries of an appended row; it may also add objects to a recording, which tells no secret.
pub fn appended(bytes: &[u8], items: &[u8]) -> Option<Vec<Entry>> {
    let (mut bytes, mut ids) = (Bytes(bytes), Ids::new(items));
    let mut entries = Vec::new();
    while !bytes.0.is_empty() {
        match bytes.take()? {
            [1] => entries.push(entry(&mut bytes, &mut ids)?),
            [2] => drop(ids.next(ROW)?),
            [3] => entries.push(entry(&mut bytes, &mut ids)?),
            [4] => entries.push(branch(&mut bytes, &mut ids)?),
            _ => return None,
        }
    }
    ids.are_over().then_some(entries)
}

fn branch(bytes: &mut Bytes<'_>, ids: &mut Ids<'_>) -> Option<Entry> {
    let _low: Id = bytes.take()?;
    let branch = Entry::Branch { page: ids.next(PAGE)?, key: bytes.take()? };
    let _due: [u8; 4] = bytes.take()?;
    Some(branch)
}

fn entry(bytes: &mut Bytes<'_>, ids: &mut Ids<'_>) -> Option<Entry> {
    Some(match bytes.take()? {
        [tag @ (1 | 2)] => Entry::Account {
            tenant: tag == 1,
            page: ids.next(PAGE)?,
            row: ids.next(ROW)?,
            handle: bytes.take()?,
            secret: bytes.take()?,
            key: bytes.take()?,
            name: {
                let _due: [u8; 4] = bytes.take()?;
                let length = u16::from_be_bytes(bytes.take()?);
                bytes.slice(usize::from(length))?.to_vec()
            },
        },
        [3] => {
            let _handle: [u8; 8] = bytes.take()?;
            let period = Entry::Period { row: ids.next(ROW)?, secret: bytes.take()? };
            let _purpose_and_day: [u8; 5] = bytes.take()?;
            period
        }
        [4] => recording(bytes, ids.next(ROW)?)?,
        [5] => {
            bytes.slice(16 + 8)?;
            Entry::Bound { row: ids.next(ROW)? }
        }
        _ => return None,
    })
}

fn recording(bytes: &mut Bytes<'_>, row: Id) -> Option<Entry> {
    let handle = bytes.take()?;
    let _kind: [u8; 1] = bytes.take()?;
    let flags = u16::from_be_bytes(bytes.take()?);
    let said = |bit: u16| flags >> bit & 1 == 1;
    let mut leaf = |bit| match (said(bit), said(2)) {
        (false, _) => Some(None),
        (true, false) => bytes.take().map(|secret| Some(Leaf::Plain(secret))),
        (true, true) => bytes.slice(WRAPPED).map(|envelope| Some(Leaf::Wrapped(envelope.to_vec()))),
    };
    let (audio, facts) = (leaf(0)?, leaf(1)?);
    let mut parties = Vec::new();
    if said(3) {
        let [count] = bytes.take()?;
        for _ in 0..count {
            parties.push(bytes.take()?);
        }
    }
    if said(4) {
        bytes.slice(16)?;
    }
    if said(5) {
        let [count] = bytes.take()?;
        bytes.slice(16 * usize::from(count))?;
    }
    // End, due minutes and floors; ground, jurisdiction, basis.
    for (bit, length) in [(7, 4), (8, 4), (9, 4), (10, 4), (11, 4), (12, 1), (13, 2), (14, 1)] {
        if said(bit) {
            bytes.slice(length)?;
        }
    }
    (!said(15)).then_some(Entry::Recording { handle, row, audio, facts, parties })
}

/// What follows the fixed fields in the clear part of a page or of an appended row: items.
pub fn items_of(kind: Kind, clear: &[u8]) -> &[u8] {
    clear.get(if kind == Kind::Top { 40 } else { 24 }..).unwrap_or_default()
}

/// Tag and id of each item. What is torn is left out.
pub fn items(clear: &[u8]) -> impl Iterator<Item = (u8, Id)> + '_ {
    clear.as_chunks::<17>().0.iter().map(|[tag, id @ ..]| (*tag, *id))
}

/// Tags of items.
const PAGE: u8 = 1;
const ROW: u8 = 2;
const OBJECT: u8 = 3;

/// The ids of entries, in the order of the entries. Objects are nobody's question here.
struct Ids<'a>(&'a [[u8; 17]]);

impl<'a> Ids<'a> {
    fn new(items: &'a [u8]) -> Self {
        Self(items.as_chunks().0)
    }

    fn next(&mut self, wanted: u8) -> Option<Id> {
        self.skip_objects();
        let ([tag, id @ ..], later) = self.0.split_first()?;
        self.0 = later;
        (*tag == wanted).then_some(*id)
    }

    fn are_over(mut self) -> bool {
        self.skip_objects();
        self.0.is_empty()
    }

    fn skip_objects(&mut self) {
        let objects = self.0.iter().take_while(|item| item[0] == OBJECT).count();
        self.0 = &self.0[objects..];
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(length)?;
        self.0 = later;
        Some(now)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(tag: u8, id: u8) -> [u8; 17] {
        std::array::from_fn(|at| if at == 0 { tag } else { id })
    }

    #[test]
    fn a_body_by_the_table_is_understood() {
        let mut bytes = vec![4, 0, 0, 0, 4, 4];
        bytes.extend([1; 16]);
        bytes.extend([7, 0, 3]);
        bytes.extend([[3; 32], [4; 32]].concat());
        bytes.push(4);
        bytes.extend([5; 16]);
        bytes.extend([7, 0, 2]);
        bytes.extend([8; 32]);
        // Everything that an entry can say, wrapped for two.
        bytes.push(4);
        bytes.extend([7; 16]);
        bytes.extend([7, 0x7f, 0xff]);
        bytes.extend([[9; WRAPPED], [10; WRAPPED]].concat());
        bytes.extend([2]);
        bytes.extend([[11; 8], [12; 8]].concat());
        bytes.extend([13; 16]);
        bytes.extend([1]);
        bytes.extend([14; 16]);
        bytes.extend([15; 4 * 5 + 4]);
        bytes.push(5);
        bytes.extend([16; 16]);
        bytes.extend([18; 8]);
        let items = [item(2, 2), item(3, 90), item(2, 6), item(2, 8), item(2, 17), item(3, 91)].concat();
        let plain = |byte| Some(Leaf::Plain([byte; 32]));
        let wrapped = |byte| Some(Leaf::Wrapped(vec![byte; WRAPPED]));
        let parties = Vec::new;
        let recordings = [
            Entry::Recording { handle: [1; 16], row: [2; 16], audio: plain(3), facts: plain(4), parties: parties() },
            Entry::Recording { handle: [5; 16], row: [6; 16], audio: None, facts: plain(8), parties: parties() },
            Entry::Recording {
                handle: [7; 16],
                row: [8; 16],
                audio: wrapped(9),
                facts: wrapped(10),
                parties: vec![[11; 8], [12; 8]],
            },
            Entry::Bound { row: [17; 16] },
        ];
        assert_eq!(body(&bytes, &items).as_deref(), Some(recordings.as_slice()));
        assert_eq!(body(&bytes[..bytes.len() - 1], &items), None);
        assert_eq!(body(&bytes, &items[17..]), None, "a recording without its row");
        assert_eq!(body(&bytes, &[&items[..], &item(2, 92)].concat()), None, "a row without its recording");
        bytes.push(0);
        assert_eq!(body(&bytes, &items), None, "bytes behind the last entry");
    }

    #[test]
    fn an_appended_row_may_hold_several_things() {
        let period = [[3].as_slice(), &[1; 8], &[3; 32], &[1, 0, 0, 0, 9]].concat();
        let branch = [[1; 16].as_slice(), &[3; 32], &[4; 4]].concat();
        let row = [[1].as_slice(), &period, &[2, 3], &period, &[4], &branch].concat();
        let items = [item(2, 2), item(2, 4), item(3, 5), item(2, 2), item(1, 6)].concat();
        assert_eq!(appended(&row, &items).map(|entries| entries.len()), Some(3));
        assert_eq!(appended(&row[1..], &items), None);
        assert_eq!(appended(&row, &items[17..]), None);
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, clear: Vec<u8>) {
            let _ = body(&bytes, &clear);
            let _ = appended(&bytes, &clear);
            let _ = items(&bytes).count();
            for level in 1..5 {
                let _ = body(&[&[level, 0, 0, 0, 200], bytes.as_slice()].concat(), &clear);
            }
        }
    }
}
