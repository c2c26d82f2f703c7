//! The audit log and the receipts: what can be shown to somebody who does not trust us, and verified offline.
//!
//! - [`leaf`]: one entry of the log, in two sealed parts.
//! - [`proof`]: that an entry is in the log, that a later log extends an earlier one (RFC 6962).
//! - [`key`]: the signing key, signed notes and checkpoints (C2SP).
//! - [`receipt`]: what a receipt states, and its text. [`verify`]: whether a receipt file holds.
//!
//! Pure: no clock, no storage. The key store keeps leaves and hashes; the vault decides what is logged, and when.
//!
//! # Why an entry has two sealed parts
//! The log is append-only, and what was erased must be gone. So no entry may hold, in clear or under a secret that
//! outlives it, anything that tells whom it is about: that part is sealed under the secret of what it is about, and an
//! erasure blanks it without touching a byte of the log. Who acted, when, and what was decided is sealed under the
//! tenant's evidence key of the quarter, which outlives subscribers and recordings and expires. The leaf hash covers the
//! *sealed* parts, so every hash, proof and checkpoint stays good. What remains to be shown after an erasure: *somebody
//! permitted listened under grant G at that time*; whose it was cannot be.
//!
//! # Why no entry names its row in clear
//! Rows of the key store have random names, and an old copy of the store shows which row belongs to which page. An entry
//! that named the row of a recording could, with such a copy, be tied to a subscriber who still lives, also when the
//! recording is erased. So the parts carry random ids of their own, drawn for this one entry, and what leads from a subject
//! to its entries is a value sealed under the subject's secret.

pub mod key;
pub mod leaf;
pub mod proof;
pub mod receipt;
pub mod verify;

pub use key::{NoteRefused, SigningKey, VerifierKey, origin};

/// SHA-256, in the tree of RFC 6962.
pub type Hash = [u8; 32];

/// The head of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// How many entries.
    pub size: u64,
    /// The root over all of them.
    pub root: Hash,
}
