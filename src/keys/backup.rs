//! The backup: what a node that is lost leaves behind, besides its slot.
//!
//! - [`name`]: what objects are called, and which of them lead to which state. Pure.
//! - [`mod@format`]: their bytes.
//! - `roots`: which roots its states need of the slots. Pure.
//! - `lag`: since when it lacks commands. Pure.
//! - `keeper`: the thread that puts deltas and bases, and removes what is over its age.
//! - [`restore`]: a key store on an empty node, from nothing but slot and objects.
//!
//! A *base* is everything that commands ever wrote, as of one command, in parts of bounded size. A *delta* is some commands in
//! their order. Both hold sealed rows and clear ids only, exactly what the key store's own files hold, so that every copy of
//! them may leak and be kept for ever: what they seal falls with the root.
//!
//! # The order, and why the newest backup opens with the present slot
//! A command waits in a row of the *outbox*, written by its own batch, until a delta with it is put. A rotation goes: batch →
//! delta → the slot destroys the root of before. So the slot holds, at every moment, the root of the newest state that the
//! backup can give. By cases:
//! - *The put fails or nobody knows*: the erasure is *sealed, not yet destroyed*. The slot keeps the root that the backup
//!   needs beside the one that seals the top. A further rotation puts a third beside them and then drops the one in the
//!   middle, which neither needs: so three places are enough however long object storage is away, as long as the process
//!   runs. One that starts meanwhile does not know how far the backup is, and keeps every root that the slots still keep until
//!   object storage has been seen: where a rotation waits already, there is room for one more then, and further ones are refused.
//! - *The put arrived and the answer did not*: the backup may give a state under a root that was dropped as one in the
//!   middle. Nobody was told that anything in it is in the backup, because that is said only of states whose root the slot
//!   holds; [`name::Catalogue::best`] passes it over.
//! - *A crash before the put*: the start finds the row in the outbox, and with it the root that the backup needs.
//! - *More waits than one delta takes*: a base is made, which is whole with its last part and not before: there is no state
//!   of the backup in between.
//! - *The store is behind its backup* (a torn tail, an older copy): the start fills it from the deltas. Where they do not reach,
//!   or where the chain over all commands says that the two went different ways, it refuses and changes nothing.

pub mod format;
pub(super) mod keeper;
mod lag;
pub mod name;
pub mod restore;
pub(super) mod roots;

use crate::domain::{
    id::StoreId,
    time::{Clock, Timestamp},
};
use std::time::Duration;

/// Most bytes of an object of the backup, but for a single command or row that is longer.
pub const MAX_OBJECT: usize = 16 << 20;

/// Object storage as the backup sees it, all regions of the group together. Blocks.
pub trait Archive: Send {
    /// Names of all objects that begin with `prefix` and lie behind `after`, in any region.
    fn list(&mut self, prefix: &str, after: &str) -> Result<Vec<String>, ArchiveError>;
    /// Puts an object; durable when it returns. Put again with the same bytes only.
    fn put(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError>;
    /// The content of an object.
    fn get(&mut self, name: &str) -> Result<Vec<u8>, ArchiveError>;
    /// Removes objects, with all their versions; what is not there is fine.
    fn remove(&mut self, names: &[String]) -> Result<(), ArchiveError>;
    /// Gives each region what it lacks and another one has. Names of removed objects are never put again.
    fn heal(&mut self) -> Result<(), ArchiveError>;
}

/// Object storage did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArchiveError {
    /// It is away, or refuses for now: the same may work later.
    #[error("the backup's object storage is away: {0}")]
    Away(String),
    /// There is no such object.
    #[error("an object of the backup is missing")]
    Missing,
}

/// How a key store is backed up.
pub struct Backup {
    /// Where to.
    pub archive: Box<dyn Archive>,
    /// Tells ages.
    pub clock: Clock,
    /// Bounds.
    pub options: Options,
}

/// Bounds of the backup.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Objects that the newest state does not need are removed at this age.
    pub max_age: Duration,
    /// A base is made when the last one has this age. Below `max_age`, so that nothing that is needed gets older than the
    /// two together.
    pub base_interval: Duration,
    /// How long creates gather before they are put together. An erasure waits for nothing.
    pub tick: Duration,
    /// How long an erasure waits for its delta before it is answered as sealed.
    pub patience: Duration,
    /// Between two tries while object storage is away.
    pub retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(7 * 86_400),
            base_interval: Duration::from_secs(86_400),
            tick: Duration::from_millis(50),
            patience: Duration::from_secs(5),
            retry: Duration::from_secs(1),
        }
    }
}

/// How the backup stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackupStatus {
    /// Commands that it lacks.
    pub behind: u64,
    /// When the oldest of them was written, or the start, where that is later; none: it has all.
    pub behind_since: Option<Timestamp>,
    /// When the base was begun that its newest state is built on; none where that is not known yet.
    pub base: Option<Timestamp>,
    /// The last try failed.
    pub away: bool,
}

/// Row of the store's name to its backups.
pub(super) const STORE: &[u8] = b"store";

/// Reads the row of the store's name.
pub(super) fn store_id(row: Option<Vec<u8>>) -> Result<Option<StoreId>, super::ReadError> {
    let damaged = super::ReadError::Damaged("the name of the store");
    row.map(|row| StoreId::from_slice(&row).ok_or(damaged)).transpose()
}
