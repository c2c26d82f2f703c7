//! The audit log and the receipts as the vault reads them.

use super::{
    super::{ReadError, backing::Family, log},
    KeyStore,
};
use crate::domain::id::{ReceiptId, RowId};

impl KeyStore {
    /// How many leaves the audit log has.
    pub fn log_size(&self) -> u64 {
        self.read().present.log_size
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
