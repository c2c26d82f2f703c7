//! The rows of shares that wait for a slot that was away; why they help nobody else is argued in [`super`].

use super::Record;
use crate::{
    crypto::{
        envelope::{Envelope, Kind, seal},
        label::{Label, derive},
        secret::Secret,
    },
    domain::id::RootId,
    keys::backing::{Family, KeyValue, Row},
};

/// Whose share waits, and the root whose share of the same slot opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    pub number: u8,
    pub from: RootId,
}

impl Waiting {
    /// From a row's name; none where it is another row.
    pub fn of(name: &[u8]) -> Option<Self> {
        let (number, from) = name.split_first().filter(|(_, from)| from.len() == 16)?;
        Some(Self { number: *number, from: RootId::from_slice(from)? })
    }

    /// Row name: number (1) ‖ root id (16).
    fn row(self) -> Vec<u8> {
        [&[self.number], &self.from.0[..]].concat()
    }

    pub fn delete(self) -> Row {
        Row::delete(Family::Slots, self.row())
    }

    /// Says that the slot may hold its share of this root: by that it is known when it comes back.
    pub fn mark(self) -> Row {
        Row::put(Family::Slots, self.row(), Vec::new())
    }

    /// The share of root `to`, to be opened with the share `with` of the root `from`.
    pub fn put(self, with: &Secret, to: RootId, share: &Secret) -> Row {
        let name = self.row();
        let clear = [&name[..], &to.0].concat();
        let sealed = seal(Kind::WaitingShare, &self.key(with), &clear, share.expose());
        Row::put(Family::Slots, name, sealed)
    }

    fn key(self, share: &Secret) -> Secret {
        Secret::from_bytes(&derive(share.expose(), Label::WaitingShare, &[&[self.number], &self.from.0]))
    }
}

/// Follows rows from what a slot holds to its share of a root.
pub fn follow(rows: &[KeyValue], record: &Record, root: RootId) -> Option<Secret> {
    let (mut at, mut share) = (record.id, record.share.duplicate());
    // Each row leads on from a root of its own, so that there are no more steps than rows.
    for _ in 0..rows.len() {
        let waiting = Waiting { number: record.number, from: at };
        let name = waiting.row();
        let (_, value) = rows.iter().find(|(key, _)| *key == name)?;
        let envelope = Envelope::parse(value).ok().filter(|envelope| envelope.kind == Kind::WaitingShare)?;
        let to = RootId::from_slice(envelope.clear.strip_prefix(&name[..])?)?;
        let plain = envelope.open(&waiting.key(&share)).ok()?;
        (at, share) = (to, plain.as_slice().try_into().ok().map(Secret::from_bytes)?);
        if at == root {
            return Some(share);
        }
    }
    None
}
