//! start
use super::SlotError;

/// Why a key store does not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// RocksDB or the file system failed.
    #[error("the key store cannot be opened: {0}")]
    Backing(String),
    /// The slot failed.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// There is a key store and the slot is empty.
    #[error("the key store exists but its root slot is empty: bring the slot back; nothing was changed")]
    SlotIsEmpty,
    /// The slot holds a root and there is no key store.
    #[error("the root slot holds a root but there is no key store: restore it; nothing was changed")]
    StoreIsMissing,
    /// The top is sealed under a root that the slot does not hold.
    #[error("the slot holds none of the roots that could open this key store; nothing was changed")]
    ForeignRoot,
    /// Commands are missing that nothing fills.
    #[error("commands {from} to {to} are missing from the key store: restore it; nothing was changed")]
    Gap {
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
    /// What is there is not what was written.
    #[error("the key store is damaged: {0}")]
    Damaged(&'static str),
}
