//! The rows of the audit log: leaves, the hashes of the tree above them (RFC 6962), and who is spoken of where.
//!
//! A leaf and its hashes are written by the command that holds its effect: by one batch, so that there is neither an
//! effect without its leaf nor a leaf without its hashes, whatever a crash leaves (a torn record of RocksDB's log takes the
//! whole batch, and the file of a rotation brings the whole batch back). The planner numbers leaves after it has taken every
//! mutation of the batch in, so a mutation that is refused leaves no hole.
//!
//! Leaves are never removed, and no hash is ever written twice. What the leaves hold is for the vault to seal; here they
//! are bytes. Numbers stand in clear: the order of the log shows, as that of any log does.
//!
//! | row name | value |
//! |---|---|
//! | 0x01 ‖ number (8) | leaf |
//! | 0x02 ‖ index among stored hashes (8) | hash (32) |
//! | 0x03 ‖ row id (16) ‖ number (8) | nothing: the leaf can be found under the row; the sweeper removes it with the row |

use super::{
    ReadError,
    backing::{Backing, Family, Row},
    plan::Store,
};
use crate::domain::id::RowId;
use std::collections::HashMap;
use tlog_tiles::tlog::{self, Hash, HashReader};

const LEAF: u8 = 1;
const HASH: u8 = 2;
const UNDER: u8 = 3;

/// Row name of a leaf.
pub fn leaf_name(number: u64) -> Vec<u8> {
    numbered(LEAF, number)
}

/// Whether a row is a leaf.
pub fn is_leaf(row: &Row) -> bool {
    row.family == Family::Log && row.key.first() == Some(&LEAF)
}

/// Row name of a stored hash.
pub fn hash_name(index: u64) -> Vec<u8> {
    numbered(HASH, index)
}

/// What the names of the leaves under a row begin with.
pub fn under_prefix(row: RowId) -> Vec<u8> {
    [&[UNDER], &row.0[..]].concat()
}

/// Row name of a leaf under a row.
pub fn under_name(row: RowId, number: u64) -> Vec<u8> {
    [&[UNDER], &row.0[..], &number.to_be_bytes()].concat()
}

fn numbered(tag: u8, number: u64) -> Vec<u8> {
    [&[tag], &number.to_be_bytes()[..]].concat()
}

/// How many leaves there are: they are numbered from 0 without a gap, so the end is found by halving.
pub fn size(backing: &dyn Backing) -> Result<u64, ReadError> {
    let there = |number: u64| backing.get(Family::Log, &leaf_name(number)).map(|leaf| leaf.is_some());
    let mut above = 1;
    while there(above - 1)? {
        above *= 2;
    }
    // Leaves before `below` are there, leaf `above - 1` is not.
    let mut below = above / 2;
    above -= 1;
    while below < above {
        let middle = below + (above - below) / 2;
        if there(middle)? {
            below = middle + 1;
        } else {
            above = middle;
        }
    }
    Ok(below)
}

/// A leaf to append, and the row under which it can be found.
pub struct Leaf {
    /// What its hash covers.
    pub bytes: Vec<u8>,
    /// The row.
    pub under: Option<RowId>,
}

/// Writes leaves, numbered from `first`, and the hashes that they complete.
pub fn append(first: u64, leaves: Vec<Leaf>, store: &impl Store, rows: &mut Vec<Row>) -> Result<(), ReadError> {
    let mut hashes = Hashes { new: HashMap::new(), store };
    for (number, Leaf { bytes, under }) in (first..).zip(leaves) {
        let completed = tlog::stored_hashes(number, &bytes, &hashes)
            .map_err(|_| ReadError::Damaged("a hash of the audit log is missing"))?;
        rows.push(Row::put(Family::Log, leaf_name(number), bytes));
        for (index, hash) in (tlog::stored_hash_index(0, number)..).zip(completed) {
            rows.push(Row::put(Family::Log, hash_name(index), hash.0.to_vec()));
            hashes.new.insert(index, hash);
        }
        if let Some(row) = under {
            rows.push(Row::put(Family::Log, under_name(row, number), Vec::new()));
        }
    }
    Ok(())
}

/// Hashes as they will be: of this batch, else of the store.
struct Hashes<'a, S> {
    new: HashMap<u64, Hash>,
    store: &'a S,
}

impl<S: Store> HashReader for Hashes<'_, S> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        let stored = |index: u64| self.store.row(Family::Log, &hash_name(index)).ok().flatten();
        let hash = |index: &u64| match self.new.get(index) {
            Some(hash) => Some(*hash),
            None => stored(*index)?.try_into().ok().map(Hash),
        };
        indexes.iter().map(|index| hash(index).ok_or(tlog::Error::IndexesNotInTree)).collect()
    }
}
