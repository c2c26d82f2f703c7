//! What the key store stands on: ordered rows with atomic synced batches, and the files of rotations.
//!
//! A seam, so that the crash tests can put a medium underneath that forgets what was not synced and keeps every version
//! that was ever written. The real one is [`super::rocks`].

use std::{fs::File, io, path::Path};

/// Column families. Their names and those of rows are fit for publication.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Family {
    /// Pages and appended rows.
    Pages = 1,
    /// Sealed values.
    Values = 2,
    /// What the sweeper removes.
    Doomed = 3,
    /// Copies that a second region lacks.
    Copies = 4,
    /// Number of the last command; the mark of an unfinished first start.
    Meta = 5,
    /// The audit log: leaves, hashes, and who is spoken of where.
    Log = 6,
    /// Receipts, in clear.
    Receipts = 7,
    /// The table of slots, and shares that wait for slots.
    Slots = 9,
    /// Commands that the backup lacks. Of this node alone: in no command and in no base.
    Outbox = 8,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 9] = [
        Family::Pages,
        Family::Values,
        Family::Doomed,
        Family::Copies,
        Family::Meta,
        Family::Log,
        Family::Receipts,
        Family::Slots,
        Family::Outbox,
    ];

    /// What commands alone write: the same in every store with the same history. The top page comes first.
    pub const KEPT: [Family; 7] =
        [Family::Pages, Family::Values, Family::Doomed, Family::Copies, Family::Log, Family::Receipts, Family::Slots];

    /// The column family's name.
    pub fn name(self) -> &'static str {
        match self {
            Family::Pages => "pages",
            Family::Values => "values",
            Family::Doomed => "doomed",
            Family::Copies => "copies",
            Family::Meta => "meta",
            Family::Log => "log",
            Family::Receipts => "receipts",
            Family::Slots => "slots",
            Family::Outbox => "outbox",
        }
    }

    /// From the byte in a command.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| *family as u8 == byte && *family != Family::Outbox)
    }
}

/// A row to write, or to remove when there is no value.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub family: Family,
    /// Its name.
    pub key: Vec<u8>,
    /// Its content; none removes it.
    pub value: Option<Vec<u8>>,
}

impl Row {
    /// Writes a row.
    pub fn put(family: Family, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Self {
        Self { family, key: key.into(), value: Some(value) }
    }

    /// Removes a row.
    pub fn delete(family: Family, key: impl Into<Vec<u8>>) -> Self {
        Self { family, key: key.into(), value: None }
    }
}

/// The medium failed. Says what the medium said; row names in it are fit for publication.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BackingError(pub String);

impl BackingError {
    /// Whether another process holds the medium: RocksDB has no code for it, only these words.
    pub fn is_lock(&self) -> bool {
        self.0.contains("lock file") || self.0.contains("lock hold")
    }
}

/// A row's name and content.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// All rows as they were at one moment.
pub trait Snapshot {
    /// One row.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, BackingError>;
    /// Rows behind `after`, in order, until they have `bytes` bytes or no more are there.
    fn rows(&self, family: Family, after: Option<&[u8]>, bytes: usize) -> Result<Vec<KeyValue>, BackingError>;
}

/// The medium.
pub trait Backing: Send + Sync {
    /// One row.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, BackingError>;
    /// Rows whose name begins with `prefix` and lies behind `after`, in order, up to `limit`. In `Pages` and `Values` a
    /// prefix has at least the 16 bytes of an id.
    fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, BackingError>;
    /// All rows as they are now, while others write on.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, BackingError>;
    /// Writes all rows of these lists or none, in order; synced when it returns.
    fn write(&self, lists: &[&[Row]]) -> Result<(), BackingError>;
    /// Moves everything written out of the log, so that it no longer depends on it.
    fn flush(&self) -> Result<(), BackingError>;
    /// Writes the file of a rotation; durable when it returns.
    fn put_pending(&self, number: u64, bytes: &[u8]) -> Result<(), BackingError>;
    /// The files that are there, in ascending order by the number that each gives; 0 where it gives none.
    fn pending(&self) -> Result<Vec<(u64, Vec<u8>)>, BackingError>;
    /// Removes torn files; durable when it returns.
    fn unlink_pending(&self, numbers: &[u64]) -> Result<(), BackingError>;
    /// These files have done their work, and their place may be taken by others. They may be found again.
    fn release_pending(&self, numbers: &[u64]) -> Result<(), BackingError>;
}

/// Creates a folder, and what lacks above it. Its name is durable when this returns, also where an earlier process made it
/// and died before its sync.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_folder(above)?;
            std::fs::create_dir(folder)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        other => other?,
    }
    sync_folder(above)
}

/// Makes durable which names a folder has.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
