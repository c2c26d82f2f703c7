//! The bytes of deltas and of parts of bases. What reads them trusts nothing in them: lengths, numbers and the chain are
//! checked, and whatever is not whole is refused. Tables in `docs/format.md`, section 7.
//!
//! Their checksums are against accidents. Somebody who can write to the buckets can do what somebody can who writes to the
//! node's disk: put old sealed rows back that the present root still opens, or destroy. The audit log shows the first, a
//! second region is for the second.

use super::super::{
    backing::{Family, Row},
    command::{Chain, Command, NotACommand, Reader, encode_row},
};
use crate::domain::id::StoreId;

/// The first four bytes of a delta.
pub const DELTA: [u8; 4] = *b"QTBD";
/// The first four bytes of a part of a base.
pub const PART: [u8; 4] = *b"QTBB";
/// Bytes of the checksum.
const DIGEST: usize = 32;

/// Bytes that are no whole delta or part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an object of the backup is damaged")]
pub struct NotABackup;

impl From<NotACommand> for NotABackup {
    fn from(_: NotACommand) -> Self {
        NotABackup
    }
}

/// Commands in their order.
pub struct Delta {
    /// Whose.
    pub store: StoreId,
    /// Number of the first.
    pub first: u64,
    /// The chain before the first.
    pub before: Chain,
    /// The commands, each with the chain behind it.
    pub commands: Vec<(Command, Chain)>,
}

/// Writes a delta.
pub fn delta(store: StoreId, first: u64, before: Chain, commands: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + commands.iter().map(|command| 4 + command.len()).sum::<usize>());
    out.extend_from_slice(&DELTA);
    out.extend_from_slice(&[1, 0, 0, 0]);
    out.extend_from_slice(&store.0);
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&before.0);
    out.extend_from_slice(&(commands.len() as u32).to_be_bytes());
    for command in commands {
        out.extend_from_slice(&(command.len() as u32).to_be_bytes());
        out.extend_from_slice(command);
    }
    seal(out)
}

impl Delta {
    /// Reads a delta.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotABackup> {
        let mut reader = Reader(unsealed(bytes)?);
        let [magic @ .., 1, 0, 0, 0]: [u8; 8] = reader.array()? else { return Err(NotABackup) };
        if magic != DELTA {
            return Err(NotABackup);
        }
        let store = StoreId(reader.array()?);
        let (first, before) = (reader.number()?, Chain(reader.array()?));
        let (mut number, mut chain, mut commands) = (first, before, Vec::new());
        for _ in 0..u32::from_be_bytes(reader.array()?) {
            let len = u32::from_be_bytes(reader.array()?) as usize;
            let bytes = reader.take(len)?;
            let command = Command::decode(bytes)?;
            if command.number != number {
                return Err(NotABackup);
            }
            number = number.checked_add(1).ok_or(NotABackup)?;
            chain = chain.and(bytes);
            commands.push((command, chain));
        }
        if commands.is_empty() || !reader.0.is_empty() {
            return Err(NotABackup);
        }
        Ok(Self { store, first, before, commands })
    }
}

/// Part of a base that is being written.
pub struct PartWriter {
    out: Vec<u8>,
    rows: u32,
}

/// Where the number of rows stands in a part.
const ROWS_AT: usize = 8 + 16 + 8 + 32 + 8;

impl PartWriter {
    /// Begins a part of the base of this state.
    pub fn new(store: StoreId, number: u64, chain: Chain, part: u64) -> Self {
        let mut out = Vec::new();
        out.extend_from_slice(&PART);
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&store.0);
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&chain.0);
        out.extend_from_slice(&part.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        Self { out, rows: 0 }
    }

    /// Adds a row.
    pub fn push(&mut self, family: Family, key: &[u8], value: &[u8]) {
        encode_row(family, key, Some(value), &mut self.out);
        self.rows += 1;
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.out.len()
    }

    /// The bytes. `last` is for the part behind which no other comes.
    pub fn finish(mut self, last: bool) -> Vec<u8> {
        self.out[5] = u8::from(last);
        self.out[ROWS_AT..ROWS_AT + 4].copy_from_slice(&self.rows.to_be_bytes());
        seal(self.out)
    }
}

/// A part of a base.
pub struct Part {
    /// Whose.
    pub store: StoreId,
    /// The last command of the state that it is of.
    pub number: u64,
    /// The chain up to there.
    pub chain: Chain,
    /// Its place, from 0.
    pub part: u64,
    /// No other comes behind it.
    pub last: bool,
    /// Rows to write.
    pub rows: Vec<Row>,
}

impl Part {
    /// Reads a part.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotABackup> {
        let mut reader = Reader(unsealed(bytes)?);
        let [magic @ .., 1, last, 0, 0]: [u8; 8] = reader.array()? else { return Err(NotABackup) };
        if magic != PART || last > 1 {
            return Err(NotABackup);
        }
        let (store, number) = (StoreId(reader.array()?), reader.number()?);
        let (chain, part) = (Chain(reader.array()?), reader.number()?);
        let mut rows = Vec::new();
        for _ in 0..u32::from_be_bytes(reader.array()?) {
            let row = reader.row()?;
            if row.value.is_none() || !Family::KEPT.contains(&row.family) {
                return Err(NotABackup);
            }
            rows.push(row);
        }
        if !reader.0.is_empty() {
            return Err(NotABackup);
        }
        Ok(Self { store, number, chain, part, last: last == 1, rows })
    }
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, &out);
    out.extend_from_slice(digest.as_ref());
    out
}

fn unsealed(bytes: &[u8]) -> Result<&[u8], NotABackup> {
    let (content, digest) = bytes.split_at_checked(bytes.len().saturating_sub(DIGEST)).ok_or(NotABackup)?;
    if ring::digest::digest(&ring::digest::SHA256, content).as_ref() == digest { Ok(content) } else { Err(NotABackup) }
}
