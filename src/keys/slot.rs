//! The slots: the only places that must be able to forget.
//!
//! The root is shared among several slots ([`shares`]), or lies in one. A slot holds separate records of such shares, up to
//! three: the one that the newest backup needs, that of the root that seals the top, the one staged for the next rotation. It
//! never overwrites a valid record before the successor is safe. What a slot can promise about forgetting it declares
//! ([`Forgets`]); receipts repeat it. [`table`] is what the key store knows of its slots, and counts what is left.

pub mod file;
pub mod pkcs11;
pub mod shares;
pub mod table;

use crate::{
    crypto::{
        label::{Label, derive},
        secret::Secret,
    },
    domain::{id::RootId, time::Timestamp},
};
use std::fmt;

const DAY_MS: i64 = 86_400_000;

/// A share of one root in a slot.
pub struct Record {
    /// Counts rotations; the first root has 1.
    pub generation: u64,
    /// Names the root without telling it.
    pub id: RootId,
    /// The slot's number among those of its key store: 1 to 255, never given to another.
    pub number: u8,
    /// The share with this number; the root itself where one share is enough.
    pub share: Secret,
}

/// The id of a root: `derive(root, "quietus/1 root id", "", 16)`.
pub fn root_id(root: &Secret) -> RootId {
    RootId(*derive(root.expose(), Label::RootId, &[]))
}

/// What a kind of slot declares about destroying a root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forgets {
    /// When `commit` returns.
    AtOnce,
    /// So many days after `commit` has returned, when the last backup that holds it has expired.
    After {
        /// How many.
        days: u32,
    },
    /// It overwrote the root, but the medium may keep old blocks (a file on flash or on a copying file system).
    BestEffort,
}

impl Forgets {
    /// When the last copy is gone that expires later than the slot's own; none where nothing does.
    pub fn last_copy(self, destroyed: Timestamp) -> Option<Timestamp> {
        let Forgets::After { days } = self else { return None };
        Some(destroyed.plus_ms(i64::from(days) * DAY_MS))
    }
}

impl fmt::Display for Forgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Forgets::AtOnce => f.write_str("at-once"),
            Forgets::After { days } => write!(f, "after {days}d"),
            Forgets::BestEffort => f.write_str("best-effort"),
        }
    }
}

/// Why a slot did not do it. Never tells anything about a root.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SlotError {
    /// The medium failed.
    #[error("the slot cannot be read or written: {0}")]
    Io(String),
    /// The file exists and is not a slot.
    #[error("this file is not a root slot")]
    NotASlot,
    /// Another process holds it.
    #[error("another process holds the root slot")]
    Held,
    /// All records are taken.
    #[error("the slot has no room for another record")]
    Full,
    /// The record to keep is not there: nothing was changed.
    #[error("the slot does not hold this root")]
    Missing,
    /// Too few slots take a share of the next root: it was taken back.
    #[error(
        "{needed} slots must take a share of the new root and {found} do: {detail}; bring back those that are away"
    )]
    TooFew {
        /// How many must.
        needed: u8,
        /// How many did.
        found: usize,
        /// Each slot, and what is the matter with it.
        detail: String,
    },
    /// The slots cannot share a root like this: nothing was changed.
    #[error("the slots cannot share the root like this: {0}")]
    Sharing(&'static str),
    /// The token failed.
    #[error(transparent)]
    Token(#[from] pkcs11::TokenError),
    /// There are records and the token opens none of them.
    #[error(
        "the token holds no key of the records in `slot.path`: it is another token, or was initialised again; nothing was \
         changed, attach the token that they were made with (`slot.token`)"
    )]
    ForeignToken,
}

/// One place for records. Every call is durable when it returns; a failed call leaves valid what was valid before.
pub trait Slot: Send {
    /// The valid records.
    fn records(&mut self) -> Result<Vec<Record>, SlotError>;
    /// Adds a record beside those that are there.
    fn stage(&mut self, record: &Record) -> Result<(), SlotError>;
    /// Destroys every other record, those that do not parse included. Refused when the one to keep is not there.
    fn commit(&mut self, keep: RootId) -> Result<(), SlotError>;
    /// Destroys the record of one root; no error when it is not there.
    fn discard(&mut self, root: RootId) -> Result<(), SlotError>;
    /// Destroys everything, also what does not parse.
    fn clear(&mut self) -> Result<(), SlotError>;
    /// What this kind of slot declares.
    fn forgets(&self) -> Forgets;
}
