//! The root slot: the only place that must be able to forget.
//!
//! A slot holds separate records, up to three: the root that the newest backup needs, the root that seals the top, the one
//! staged for the next rotation. It never overwrites a valid record before the successor is safe. What a slot can promise
//! about forgetting it declares ([`Forgets`]); receipts repeat it. Shares over several slots (k of n) will be a slot made
//! of slots.

pub mod file;
pub mod pkcs11;

use crate::{
    crypto::{
        label::{Label, derive},
        secret::Secret,
    },
    domain::{id::RootId, time::Timestamp},
};
use std::fmt;

const DAY_MS: i64 = 86_400_000;

/// One root in a slot.
pub struct Record {
    /// Counts rotations; the first root has 1.
    pub generation: u64,
    /// Names the root without telling it.
    pub id: RootId,
    /// The root.
    pub root: Secret,
}

impl Record {
    /// A record of this root.
    pub fn new(generation: u64, root: Secret) -> Self {
        Self { generation, id: root_id(&root), root }
    }
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
    #[error("the slot has no room for another root")]
    Full,
    /// The record to keep is not there: nothing was changed.
    #[error("the slot does not hold this root")]
    Missing,
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

/// Keeps roots. Every call is durable when it returns; a failed call leaves valid what was valid before.
pub trait Slot: Send {
    /// The valid records.
    fn records(&mut self) -> Result<Vec<Record>, SlotError>;
    /// Adds a root beside those that are there.
    fn stage(&mut self, generation: u64, root: &Secret) -> Result<(), SlotError>;
    /// Destroys every other record, those that do not parse included. Refused when the root to keep is not there.
    fn commit(&mut self, keep: RootId) -> Result<(), SlotError>;
    /// Destroys one record; no error when it is not there.
    fn discard(&mut self, root: RootId) -> Result<(), SlotError>;
    /// What this kind of slot declares.
    fn forgets(&self) -> Forgets;
}
