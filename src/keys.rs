//! The erasable key tree: the one place where a key can be forgotten.
//!
//! Deleting a row from a log-structured store deletes nothing: it lives on in older tables, logs, backups and flash. So
//! every key lies in a page that is sealed under a key which the parent page holds, and the top page is sealed under
//! the root in the [slot]. Erasing drops an entry, draws a fresh key for *every resulting page* on the path to the top,
//! seals the top under a new root, and has the slot destroy the root of before.
//!
//! ```text
//! slot ─ root ─ Top ─┬─ tenant ──── page key ─┬─ subscriber ── page key ─── recording: audio secret, facts secret
//!                    │  stable secret         │  stable secret
//!                    └─ …                     └─ period: secret of a day
//! ```
//!
//! The rooms, in reading order: [`page`] (the bytes), [`tree`] (finding an entry), [`veil`] (what makes wiping the cache cheap), [`plan`] (changes become one
//! command; no I/O), [`command`] (what is written, and its versions), [`backing`] and [`rocks`] (where it is written),
//! [`start`] (what a start does with what it finds), `writer` (the one writer), [`store`] (readers), [`sweep`] (what
//! removes the ciphertext of what fell), [`backup`] (what a lost node leaves).
//!
//! # Why nothing erased comes back: invariant I9
//! For every live page key *k*: what *k* ever sealed, in any old version, directly or through keys it sealed, still lies
//! below *k* and lives. By cases, over everything that writes a page:
//! - *Append* and *rewrite under the same key* (a fold, a child that split): nothing was taken out, so the old versions
//!   hold older versions of what still lies below.
//! - *Split*, *growth at the top of a subtree*: a key that sealed the whole must not go on sealing a part, or an entry of
//!   the other part, once erased, would open from the old version under the part's live key. Every resulting page
//!   gets a fresh key. Its parent keeps its own: all of it still lies below.
//! - *Erase*: the page that held the entry, and every page above it, get fresh keys; the top gets a new root. The keys
//!   that could open an old version holding the entry are in old versions of those pages only, up to the old root.
//! - *Merge*: only two neighbours under a branch which the same erase rewrites; the page that results has a fresh key.
//!   Nothing ever moves to another owner.
//!
//! # Crash cases
//! A rotation goes: stage the next root in the slot → write and sync the command's file (**commit point**) → synced
//! RocksDB batch → delta in the backup, where there is one → slot destroys the root of before → file removed once the column
//! families are flushed. What the backup adds to the cases is argued in [`backup`].
//! - *Before the file is whole and synced*: the top names the present root; the start unlinks a torn file, and the slot
//!   drops the staged root, which is never used again: one root, one attempt.
//! - *File synced, batch not written (or lost with a torn tail)*: the start fills the missing command from the file.
//! - *Batch written, slot not committed*: the top names the staged root. The start flushes every column family first (what
//!   is read back from the page cache is not durable yet), then has the slot keep that root alone.
//! - *Slot committed, file still there*: the command's number is not above the store's; the file goes after the flush.
//! - *Numbers missing that neither the backup nor a file fills*, or *the top names a root the slot does not hold*: the start refuses and changes
//!   nothing.
//! - *A write or sync fails*: the process aborts without touching the slot; the next start finds one of the above.
//!
//! # What is left of a create that was never acknowledged
//! A batch that loses its race with the power was acknowledged to nobody and is dropped at the start, but its sealed bytes
//! may lie in the torn end of an old log, under page keys that live until their pages are next replaced. No recording has
//! audio by then (no frame is taken before its create is durable), so what can be read there is the facts of a call that
//! the caller was told had failed. A rotation leaves no such thing: its root is dropped from the slot.
//!
//! What this module does not do: it does not seal or open values (the vault does, under the secrets handed out here), it
//! deletes no object but of the backup, it keeps no clock (backup and slots are handed one).

pub mod backing;
pub mod backup;
pub mod command;
pub mod index;
pub mod keeping;
pub mod log;
pub mod pace;
pub mod page;
pub mod plan;
pub mod rocks;
pub mod slot;
pub mod start;
pub mod store;
pub mod sweep;
pub mod tree;
pub mod veil;
pub mod wrap;
mod writer;

#[cfg(test)]
mod tests;

pub use keeping::{Due, Keeping, PassedOver, RecordingEntry};
pub use pace::Pace;
pub use slot::{
    Forgets, Record as SlotRecord, Slot, SlotError,
    file::FileSlot,
    pkcs11::{ModuleToken, Pkcs11Slot},
    shares::{Opener, Reshare, SlotReport, Slots, SlotsReport, Standing},
    table::MAX_SLOTS,
};
pub use start::OpenError;
pub use store::{KeyStore, Settings};
pub use sweep::DoomedBatch;

use crate::{
    crypto::{envelope, random, secret::Secret},
    domain::{
        id::{ObjectId, PeriodHandle, ReceiptId, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
        time::Day,
    },
};
use std::ops::Range;

/// Most bytes in a tenant's or subscriber's name.
pub const MAX_NAME: usize = 1024;
/// Most objects that one recording may have: at 8 MiB each, 128 GiB.
pub const MAX_OBJECTS: usize = 16_384;
/// Most bytes in the suffix of a value's row name.
pub const MAX_SUFFIX: usize = 256;

/// Most other subscribers that a recording may be bound to.
pub const MAX_PARTIES: usize = 8;
/// Most recordings that one may have below it (transcripts).
pub const MAX_CHILDREN: usize = 64;
/// Most bytes in a leaf of the audit log.
pub const MAX_LEAF: usize = 64 << 10;
/// Most bytes in a receipt.
pub const MAX_RECEIPT: usize = 1 << 20;

/// Where a recording lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RecordingPath {
    /// Its tenant.
    pub tenant: TenantHandle,
    /// Its subscriber.
    pub subscriber: SubscriberHandle,
    /// Itself.
    pub recording: RecordingHandle,
}

/// What a period's secret is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// Client ids of a day are remembered under it.
    ClientIds = 1,
    /// Counters of a day are kept under it until the day is closed.
    Counters = 2,
    /// One hold; its day is that of its review.
    Hold = 3,
    /// Who acted, in the audit log, over some months.
    Evidence = 4,
    /// Sums that are not anonymous yet.
    Cell = 5,
    /// The inbox of a day.
    Inbox = 6,
}

impl Purpose {
    /// Every purpose, in order.
    pub const ALL: [Purpose; 6] =
        [Self::ClientIds, Self::Counters, Self::Hold, Self::Evidence, Self::Cell, Self::Inbox];

    /// From the byte in an entry.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| *purpose as u8 == byte)
    }
}

/// A period of a tenant: a secret that dies with its day. The secret is not in here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    /// Its place.
    pub handle: PeriodHandle,
    /// Its rows.
    pub row: RowId,
    /// What it is for.
    pub purpose: Purpose,
    /// Its day.
    pub day: Day,
}

/// A stable secret and the rows sealed under it. The caller wipes it before an erasure of the thing is answered.
pub struct Holder {
    /// Names the rows.
    pub row: RowId,
    /// Seals their content.
    pub secret: Secret,
}

/// A recording as playback and ingest see it.
pub struct AudioLeaf {
    /// Names the recording's rows.
    pub row: RowId,
    /// What it is; the vault's number.
    pub kind: u8,
    /// None once erased.
    pub audio: Option<Secret>,
    /// Its objects in S3.
    pub objects: Vec<ObjectId>,
}

/// A recording as `list` and `show` see it: an audio secret never comes this way.
pub struct FactsLeaf {
    /// The recording.
    pub recording: RecordingHandle,
    /// Names the recording's rows.
    pub row: RowId,
    /// What it is; the vault's number.
    pub kind: u8,
    /// None once erased.
    pub facts: Option<Secret>,
    /// Whether the audio is still there.
    pub audio_present: bool,
    /// How long it is kept, under which law and on what basis.
    pub keeping: Keeping,
}

/// Names a value's row.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueName {
    /// The thing it is about.
    pub row: RowId,
    /// What it holds.
    pub kind: envelope::Kind,
    /// Tells several values of a kind apart. Stands in clear: it must not tell anything.
    pub suffix: Vec<u8>,
}

impl ValueName {
    /// A fresh name for a [`envelope::Kind::LogRef`] under this owner's row.
    pub fn log_ref(owner: Owner, row: RowId) -> Self {
        let mut suffix = vec![owner.part().map_or(0, |part| part as u8)];
        suffix.extend_from_slice(&random::<8>());
        Self { row, kind: envelope::Kind::LogRef, suffix }
    }

    /// The row name; also the clear part of the envelope in the row.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = value_prefix(self.row, self.kind);
        bytes.extend_from_slice(&self.suffix);
        bytes
    }
}

/// Prefixes of the rows of values that lie under one leaf of a recording.
fn leaf_prefixes(row: RowId, part: wrap::Part) -> impl Iterator<Item = Vec<u8>> {
    let under = move |kind: &envelope::Kind| match part {
        wrap::Part::Audio => Owner::under_audio(*kind),
        wrap::Part::Facts => Owner::under_facts(*kind),
    };
    envelope::Kind::ALL.into_iter().filter(under).map(move |kind| leaf_prefix(row, kind, part))
}

/// The one of values of this kind. Where a kind lies under both leaves, the suffix begins with the leaf.
fn leaf_prefix(row: RowId, kind: envelope::Kind, part: wrap::Part) -> Vec<u8> {
    let mut prefix = value_prefix(row, kind);
    if Owner::under_audio(kind) && Owner::under_facts(kind) {
        prefix.push(part as u8);
    }
    prefix
}

fn value_prefix(row: RowId, kind: envelope::Kind) -> Vec<u8> {
    let mut bytes = row.0.to_vec();
    bytes.push(kind as u8);
    bytes
}

/// The secret under which a value is sealed: it must live when the value is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A tenant's stable secret.
    Tenant(TenantHandle),
    /// A subscriber's stable secret.
    Subscriber(TenantHandle, SubscriberHandle),
    /// A period's secret.
    Period(TenantHandle, PeriodHandle),
    /// A recording's audio secret.
    Audio(RecordingPath),
    /// A recording's facts secret.
    Facts(RecordingPath),
}

impl Owner {
    /// Which kinds of value lie under this secret: invariant I10, one line per row of the table in the docs.
    fn seals(self, kind: envelope::Kind) -> bool {
        use envelope::Kind;
        match self {
            Owner::Tenant(_) => matches!(
                kind,
                Kind::TenantSettings
                    | Kind::ClosedCounters
                    | Kind::TenantPolicy
                    | Kind::ApiKey
                    | Kind::Switch
                    | Kind::Permission
                    | Kind::PublishedCell
                    | Kind::LogRef
                    | Kind::Transition
                    | Kind::Block
                    | Kind::Webhook
            ),
            Owner::Subscriber(..) => {
                matches!(kind, Kind::SubscriberState | Kind::Permission | Kind::LogRef)
            }
            Owner::Period(..) => matches!(
                kind,
                Kind::Client
                    | Kind::Open
                    | Kind::OpenCounters
                    | Kind::Hold
                    | Kind::Parked
                    | Kind::InboxItem
                    | Kind::Cell
            ),
            Owner::Audio(_) => Self::under_audio(kind),
            Owner::Facts(_) => Self::under_facts(kind),
        }
    }

    /// Which leaf of a recording it is.
    fn part(self) -> Option<wrap::Part> {
        match self {
            Owner::Audio(_) => Some(wrap::Part::Audio),
            Owner::Facts(_) => Some(wrap::Part::Facts),
            Owner::Tenant(_) | Owner::Subscriber(..) | Owner::Period(..) => None,
        }
    }

    fn under_audio(kind: envelope::Kind) -> bool {
        use envelope::Kind;
        matches!(kind, Kind::Audio | Kind::Slice | Kind::Permission | Kind::LogRef | Kind::Basis | Kind::Timeline)
    }

    fn under_facts(kind: envelope::Kind) -> bool {
        matches!(kind, envelope::Kind::Facts | envelope::Kind::LogRef)
    }
}

/// Which leaves of a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// The audio secret and the objects.
    pub audio: bool,
    /// The facts secret.
    pub facts: bool,
}

impl Parts {
    /// Both leaves.
    pub const BOTH: Parts = Parts { audio: true, facts: true };
    /// The audio alone.
    pub const AUDIO: Parts = Parts { audio: true, facts: false };
    /// The facts alone.
    pub const FACTS: Parts = Parts { audio: false, facts: true };
}

/// Changes that happen together or not at all, in this order.
pub struct Mutation {
    /// What changes.
    pub changes: Vec<Change>,
    /// The receipt of what is erased: what the sweeper has to do for it is known by this name.
    pub receipt: Option<ReceiptId>,
}

impl Mutation {
    /// Changes that leave no receipt.
    pub fn new(changes: Vec<Change>) -> Self {
        Self { changes, receipt: None }
    }
}

/// One change. Erasing what is not there is no error.
pub enum Change {
    /// A new tenant.
    AddTenant {
        /// Its place.
        tenant: TenantHandle,
        /// Its rows.
        row: RowId,
        /// Its stable secret.
        secret: Secret,
        /// Its name; must be free.
        name: String,
    },
    /// A new subscriber.
    AddSubscriber {
        /// Its tenant.
        tenant: TenantHandle,
        /// Its place.
        subscriber: SubscriberHandle,
        /// Its rows.
        row: RowId,
        /// Its stable secret.
        secret: Secret,
        /// Its name; must be free within the tenant.
        name: String,
    },
    /// A new period.
    AddPeriod {
        /// Its tenant.
        tenant: TenantHandle,
        /// Its place.
        period: PeriodHandle,
        /// Its rows.
        row: RowId,
        /// Its secret.
        secret: Secret,
        /// What it is for.
        purpose: Purpose,
        /// Its day.
        day: Day,
    },
    /// A new recording.
    AddRecording {
        /// Its place.
        at: RecordingPath,
        /// Its rows.
        row: RowId,
        /// What it is; the vault's number.
        kind: u8,
        /// Seals slices, journal frames and what is known about the audio.
        audio: Secret,
        /// Seals what is known about the call.
        facts: Secret,
        /// Objects that are about to be put.
        objects: Vec<ObjectId>,
        /// How long, and under which rules.
        keeping: Keeping,
        /// The recording it was made from: one of the same subscriber, whose audio lives and which has no parent itself.
        /// Erasing the parent's audio erases this one; it is bound to whom its parent is bound, so `parties` is empty.
        parent: Option<RecordingHandle>,
        /// Other subscribers of the tenant who are bound to it.
        parties: Vec<SubscriberHandle>,
        /// Whether erasing any one of them erases it: its secrets then open with the secrets of all of them only.
        wrapped: bool,
    },
    /// Says anew how long a recording is kept. No rotation.
    SetKeeping {
        /// The recording.
        at: RecordingPath,
        /// What holds from now on.
        keeping: Keeping,
    },
    /// Binds a recording, and what was made from it, to these subscribers and no others. Its secrets stay; the entry as it
    /// was is erased. Refused for one that has a parent.
    BindParties {
        /// The recording.
        at: RecordingPath,
        /// Other subscribers of the tenant.
        parties: Vec<SubscriberHandle>,
        /// Whether erasing any one of them erases it.
        wrapped: bool,
    },
    /// Forgets the facts as they were: the old secret is erased and this one takes its place. Everything that was sealed
    /// under the old one is gone; what is to stay comes anew in the same mutation, behind this change.
    RenewFacts {
        /// The recording; its facts must live.
        at: RecordingPath,
        /// The secret from now on.
        facts: Secret,
    },
    /// Appends a leaf to the audit log.
    Log {
        /// What the leaf's hash covers.
        leaf: Vec<u8>,
        /// A row (of an evidence period) under which the leaf can be found.
        under: Option<RowId>,
    },
    /// Writes or replaces a receipt. It lies in clear and names nothing. Refused where the mutation erases under this
    /// name ([`Mutation::receipt`]) and a receipt has it already.
    PutReceipt {
        /// Its name.
        id: ReceiptId,
        /// Its content.
        body: Vec<u8>,
    },
    /// Removes a receipt.
    DropReceipt {
        /// Its name.
        id: ReceiptId,
    },
    /// One more object of a recording whose audio lives: durable before its put starts.
    AddObject {
        /// The recording.
        at: RecordingPath,
        /// The object.
        object: ObjectId,
    },
    /// Writes or replaces a value. Refused when the owner does not live.
    PutValue {
        /// Under whose secret it is sealed.
        owner: Owner,
        /// Its row.
        name: ValueName,
        /// The envelope, with the row name as its clear part.
        envelope: Vec<u8>,
    },
    /// Removes a value's row. The ciphertext stays in old copies: this is housekeeping, not erasure.
    DropValue {
        /// Its row.
        name: ValueName,
    },
    /// Queues the copy of an object to a second region.
    QueueCopy {
        /// The object.
        object: ObjectId,
        /// The region that lacks it.
        to: String,
    },
    /// A copy is there. Refused as [`CommitError::Gone`] when it is not queued any more, because its recording was
    /// erased meanwhile: the caller then deletes what it put.
    CopyDone {
        /// The object.
        object: ObjectId,
    },
    /// A put that failed: the object leaves its recording and waits for the sweeper. No rotation.
    DoomObject {
        /// The recording.
        at: RecordingPath,
        /// The object.
        object: ObjectId,
    },
    /// Forgets a tenant and everything below.
    EraseTenant(TenantHandle),
    /// Forgets a subscriber and everything below.
    EraseSubscriber(TenantHandle, SubscriberHandle),
    /// Forgets a period.
    ErasePeriod(TenantHandle, PeriodHandle),
    /// Forgets a recording or one leaf of it.
    EraseRecording {
        /// The recording.
        at: RecordingPath,
        /// Which leaves.
        parts: Parts,
    },
}

impl Change {
    /// Whether it may bring what was not there.
    fn adds(&self) -> bool {
        matches!(
            self,
            Change::AddTenant { .. }
                | Change::AddSubscriber { .. }
                | Change::AddPeriod { .. }
                | Change::AddRecording { .. }
        )
    }

    /// Whether it takes a secret away, where there is one.
    fn erases(&self) -> bool {
        matches!(
            self,
            Change::EraseTenant(_)
                | Change::EraseSubscriber(..)
                | Change::ErasePeriod(..)
                | Change::EraseRecording { .. }
                | Change::BindParties { .. }
                | Change::RenewFacts { .. }
        )
    }
}

/// A mutation that is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Whether anything was there to erase.
    pub erased: bool,
    /// Generation of the root that was replaced; equal to the other when nothing was erased.
    pub generation_from: u64,
    /// Generation of the present root.
    pub generation_to: u64,
    /// The leaves of the audit log that this mutation appended.
    pub log: Range<u64>,
    /// Number of the command that it went with, or of the last one where nothing had to be written.
    pub number: u64,
    /// Whether every root of before is destroyed, and with them everything that this and earlier mutations erased. If not, it is
    /// *sealed*: the backup's object storage is away, or slots that are away or lost still hold too many shares of one. It is
    /// destroyed as soon as they return ([`KeyStore::destroyed`]).
    pub destroyed: bool,
}

/// Why the store cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// What is there is not what was written: an attack or a broken disk.
    #[error("the key store is damaged: {0}")]
    Damaged(&'static str),
    /// RocksDB or the file system failed.
    #[error("the key store cannot be read: {0}")]
    Backing(String),
}

/// Why a mutation was refused. Nothing of it happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A parent or owner does not live.
    #[error("what this belongs to is not there, or has been erased")]
    Gone,
    /// The name or handle is taken.
    #[error("the name or handle is taken")]
    Exists,
    /// The change is not well formed: a fault of the caller.
    #[error("the change is not well formed: {0}")]
    Malformed(&'static str),
    /// The store is closing.
    #[error("the key store is closed")]
    Closed,
    /// The slot would not take the next root. Nothing was written.
    #[error("the root slot refused: {0}")]
    Slot(SlotError),
    /// What had to be read first could not be.
    #[error(transparent)]
    Read(#[from] ReadError),
}
