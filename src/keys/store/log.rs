//! The audit log and the receipts as the vault reads them.

use super::{
    super::{
        ReadError,
        backing::{Backing, Family},
        backup::keeper,
        command::Command,
        log,
    },
    KeyStore,
};
use crate::domain::id::{ReceiptId, RowId};
use std::{collections::VecDeque, sync::PoisonError};

/// Commands with leaves that are remembered while the backup lacks them; of more, the last ones count as one.
const REMEMBERED: usize = 65_536;
/// Commands that are read at one time.
const READ: usize = 256;

/// How many leaves the backup has.
pub(in super::super) struct BackedLeaves {
    there: u64,
    /// Commands that it lacks, and the size of the log behind each; ascending.
    behind: VecDeque<(u64, u64)>,
}

impl BackedLeaves {
    /// At a start: the log has so many leaves, and the backup every command up to `backed`.
    pub(in super::super) fn at_start(backing: &dyn Backing, backed: u64, size: u64) -> Result<Self, ReadError> {
        let (mut steps, mut number) = (Vec::new(), backed);
        loop {
            let waiting = keeper::outbox(backing, number, READ)?;
            let Some(last) = waiting.last() else { break };
            number = last.number;
            for waiting in &waiting {
                let command = Command::decode(&waiting.bytes);
                let command = command.map_err(|_| ReadError::Damaged("a command in the outbox"))?;
                steps.push((waiting.number, command.rows.iter().filter(|row| log::is_leaf(row)).count() as u64));
            }
        }
        let waits: u64 = steps.iter().map(|(_, leaves)| leaves).sum();
        let mut leaves = Self { there: size.saturating_sub(waits), behind: VecDeque::new() };
        let mut size = leaves.there;
        for (number, more) in steps.into_iter().filter(|(_, more)| *more > 0) {
            size += more;
            leaves.appended(number, size);
        }
        Ok(leaves)
    }

    /// A command left the log with so many leaves.
    pub(in super::super) fn appended(&mut self, number: u64, size: u64) {
        if self.behind.len() == REMEMBERED {
            self.behind.pop_back();
        }
        self.behind.push_back((number, size));
    }

    /// How many there are, now that the backup has every command up to this one.
    fn there(&mut self, backed: u64) -> u64 {
        while let Some((_, size)) = self.behind.pop_front_if(|(number, _)| *number <= backed) {
            self.there = size;
        }
        self.there
    }
}

impl KeyStore {
    /// How many leaves the audit log has.
    pub fn log_size(&self) -> u64 {
        self.read().present.log_size
    }

    /// How many of them a loss of this node leaves: those in the backup, or all of them where there is none.
    pub fn log_size_backed(&self) -> u64 {
        let shared = &self.0.shared;
        let Some(backlog) = &shared.backlog else { return self.log_size() };
        shared.leaves.lock().unwrap_or_else(PoisonError::into_inner).there(backlog.backed())
    }

    /// A leaf of the audit log.
    pub fn log_leaf(&self, number: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.0.shared.backing.get(Family::Log, &log::leaf_name(number))?)
    }

    /// Hashes of the audit log by their index among stored hashes, as `tlog_tiles` numbers them.
    pub fn log_hashes(&self, indexes: &[u64]) -> Result<Vec<[u8; 32]>, ReadError> {
        let missing = || ReadError::Damaged("a hash of the audit log is missing");
        let hash = |index: &u64| self.0.shared.backing.get(Family::Log, &log::hash_name(*index));
        indexes.iter().map(|index| hash(index)?.ok_or_else(missing)?.try_into().map_err(|_| missing())).collect()
    }

    /// The leaves that were put under a row, ascending, behind `after`.
    pub fn log_under(&self, row: RowId, after: Option<u64>, limit: usize) -> Result<Vec<u64>, ReadError> {
        let after = after.map(|number| log::under_name(row, number));
        let prefix = log::under_prefix(row);
        let rows = self.0.shared.backing.scan(Family::Log, &prefix, after.as_deref(), limit)?;
        let number = |key: &[u8]| key.get(prefix.len()..)?.try_into().ok().map(u64::from_be_bytes);
        rows.iter().map(|(key, _)| number(key).ok_or(ReadError::Damaged("a reference of the audit log"))).collect()
    }

    /// A receipt.
    pub fn receipt(&self, id: ReceiptId) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.0.shared.backing.get(Family::Receipts, &id.0)?)
    }

    /// Receipts behind `after`, in order of their names.
    pub fn receipts(&self, after: Option<ReceiptId>, limit: usize) -> Result<Vec<(ReceiptId, Vec<u8>)>, ReadError> {
        let after = after.map(|id| id.0);
        let rows = self.0.shared.backing.scan(Family::Receipts, &[], after.as_ref().map(|id| &id[..]), limit)?;
        rows.into_iter()
            .map(|(key, body)| Ok((ReceiptId::from_slice(&key).ok_or(ReadError::Damaged("a receipt"))?, body)))
            .collect()
    }
}
