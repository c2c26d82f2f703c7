//! The journal: where live audio is safe before it is in S3.
//!
//! Frames of all live calls go, sealed, into append-only segment files `NNNNNNNN.qtj`. One thread writes: it takes
//! everything that waits, writes it, syncs once, answers everybody; meanwhile the next batch gathers. A segment is
//! unlinked when no frame in it is live any more. The bytes are those of `docs/format.md`, section 5.
//!
//! - [`frame`]: one frame: bytes, sealing, opening.
//! - [`recover`]: what a scan of the segments of earlier runs finds.
//! - [`index`]: which frames live, in which segments; what can be unlinked.
//! - [`mod@write`]: the writing thread.
//! - [`medium`]: the few things asked of the file system, so that tests can refuse them.
//!
//! It does not know what a recording is, how far it is stored, or in what order offsets must come: a call is a row id,
//! gaps and overlaps are the caller's matter. It keeps no times: frames that a start finds are to be taken as old.
//!
//! # What holds
//! - A frame is answered only after the sync that covers it (and, for a segment's first, the sync of the directory).
//! - Plaintext is in the frame's buffer only, and is sealed in place there before it is queued.
//! - A key and a nonce meet once: an epoch's salt is drawn by [`Journal::call`], its counter lives in the one
//!   [`CallWriter`]; a number is used up even where the write is refused. Nothing resumes an epoch.
//! - A segment of an earlier run is never written to again.
//! - Queue, frames, open files and segments are bounded.
//!
//! # Crashes, by cases
//! - *While a batch is written*: none of it was answered. Pages may have reached the disk in any order; frames that are
//!   whole are found (and are authentic), the others are counted as damage.
//! - *After the sync, before the answers*: the frames are found. The caller learns of more than was acknowledged.
//! - *A write or a sync fails*: the process aborts. What the kernel kept in its cache after a failed sync says nothing
//!   about the disk, so a start first syncs each segment, then drops it from the cache, and only then reads.
//! - *After [`Journal::release`] or [`Journal::forget`]*: what is live is known in memory only. A start finds frames that
//!   were released, as long as their segment is there; the vault, which knows the stored watermark and the erased rows,
//!   releases them again. An unlink that was not synced does the same.
//! - *No space*: a segment is allocated whole before its first frame. Where that fails, frames are refused with
//!   [`WriteError::NoSpace`] and nothing that was written before is touched.
//!
//! # An attacker with the disk
//! Sees row ids, sizes, order and offsets (as the design's section 1 says), and nothing once the audio secret is gone. Who
//! writes to the disk can destroy frames, or put back old copies of them, but not make one that opens: header and row are
//! bound to the seal. [`Journal::read`] compares salt and number too, so that another frame in the place is noticed.

pub mod frame;
mod index;
mod medium;
mod recover;
mod write;

use crate::crypto::{
    epoch::{FreshSalt, Salt, SealingKey},
    label::Label,
    secret::Secret,
};
use crate::domain::id::RowId;
use frame::Position;
pub use frame::{FrameKind, FrameRef, MAX_PLAINTEXT};
use index::{Attached, Index};
use medium::{Disk, Medium};
pub use recover::{Damage, Recovered};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};
use tokio::sync::{Semaphore, oneshot};
use write::Job;
use zeroize::Zeroizing;

/// Bytes of frames that may wait for the writing thread. Who wants to queue more waits.
const QUEUE_BYTES: usize = 64 << 20;
/// Bounds of [`Options::segment_bytes`].
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// Segments' worth of free space that no new call is let into.
const RESERVED_SEGMENTS: u64 = 4;

/// How much the journal may hold.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// New calls are refused from here on. Running calls go on as long as the file system has space.
    pub limit_bytes: u64,
    /// Size of a segment file; taken into 4 KiB to 1 GiB.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { limit_bytes: 8 << 30, segment_bytes: 64 << 20 }
    }
}

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another process has the journal open")]
    Locked,
    /// The file system refused.
    #[error("the journal cannot be opened: {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the file system said.
        source: io::Error,
    },
    /// A file has a segment's name and cannot be one.
    #[error("journal file {0:08}.qtj is larger than a segment can be")]
    Oversized(u32),
    /// 4 294 967 295 segments have been used.
    #[error("the journal has no segment numbers left")]
    Exhausted,
}

/// The journal holds as much as it may: no new live call for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full: {bytes} of {limit} bytes")]
pub struct Full {
    /// Bytes held.
    pub bytes: u64,
    /// Bytes at which new calls are refused: the set limit, or what the file system lets us have.
    pub limit: u64,
}

/// A frame was not made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No segment could be allocated. What was written before is safe; a later frame may succeed.
    #[error("the file system has no space for another journal segment")]
    NoSpace,
    /// More than [`MAX_PLAINTEXT`] bytes in one frame.
    #[error("a journal frame holds at most {MAX_PLAINTEXT} bytes")]
    TooLarge,
    /// The call was forgotten meanwhile: it is stored, or erased.
    #[error("the call is no longer in the journal")]
    Forgotten,
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// A frame cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its segment is unlinked: the frame was released.
    #[error("the journal frame was released")]
    Released,
    /// What is on disk there is not the frame that was written, or does not open under this secret.
    #[error("the journal frame is damaged")]
    Damaged,
    /// The file system refused.
    #[error("the journal frame cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The journal of one node. Clones are the same journal.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// None only while dropping.
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the writing thread shares with everybody else.
struct Shared {
    dir: PathBuf,
    options: Options,
    index: Mutex<Index>,
    queue_space: Arc<Semaphore>,
    syncs: AtomicU64,
    /// Held as long as anybody may touch the folder.
    _lock: File,
}

impl Shared {
    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        // Nothing under this lock can leave the index half changed, so a poisoned one is as good.
        self.index.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Unlinks segments that hold nothing live. Failing is harmless: the next start finds and drops them.
    fn unlink(&self, segments: Vec<u32>) {
        for segment in segments {
            if let Err(error) = std::fs::remove_file(segment_path(&self.dir, segment)) {
                tracing::warn!(segment, %error, "a journal segment could not be unlinked");
            }
        }
    }
}

fn segment_path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.qtj"))
}

impl Journal {
    /// Opens the journal in a folder, which is created where missing, and gives the frames that earlier runs left there.
    /// They are on disk when this returns.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovered), OpenError> {
        Self::open_on(dir, options, Box::new(Disk))
    }

    fn open_on(dir: &Path, options: Options, medium: Box<dyn Medium>) -> Result<(Self, Recovered), OpenError> {
        let options = Options {
            segment_bytes: options.segment_bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()),
            ..options
        };
        let lock = recover::lock(dir)?;
        let (recovered, index, next) = recover::recover(dir)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options,
            index: Mutex::new(index),
            queue_space: Arc::new(Semaphore::new(QUEUE_BYTES)),
            syncs: AtomicU64::new(0),
            _lock: lock,
        });
        let (queue, jobs) = mpsc::channel();
        let thread = write::start(shared.clone(), jobs, medium, next)
            .map_err(|source| OpenError::Io { doing: "starting the writing thread", source })?;
        Ok((Self(Arc::new(Inner { shared, queue: Some(queue), thread: Some(thread) })), recovered))
    }

    /// Asked before a *new* live call is taken; running calls are not refused by it. What the file system has left counts
    /// too, less a reserve for the calls that run.
    pub fn admit(&self) -> Result<(), Full> {
        let bytes = self.bytes();
        let reserve = self.0.shared.options.segment_bytes * RESERVED_SEGMENTS;
        let limit = match rustix::fs::statvfs(&self.0.shared.dir) {
            Ok(space) => {
                let free = space.f_bavail.saturating_mul(space.f_frsize);
                self.limit().min(bytes.saturating_add(free).saturating_sub(reserve))
            }
            // Whoever writes will be told; the set limit holds.
            Err(_) => self.limit(),
        };
        if bytes < limit { Ok(()) } else { Err(Full { bytes, limit }) }
    }

    /// Starts a sealing epoch of a call: at its first frame, and again for every stream that resumes it.
    pub fn call(&self, row: RowId, audio: &Secret) -> CallWriter {
        let fresh = FreshSalt::draw();
        let salt = *fresh.bytes();
        let key = fresh.sealing_key(audio, Label::JournalFrame, &[&row.0, &salt]);
        let attached = Attached::new(&self.0.shared, row);
        CallWriter { journal: self.clone(), attached: Arc::new(attached), row, key, salt, sequence: 0 }
    }

    /// The live frames of a call, in the order in which they were written.
    pub fn frames(&self, row: RowId) -> Vec<FrameRef> {
        self.0.shared.index().frames(row)
    }

    /// Waits until every frame that was queued for a call is live or refused, so that [`Journal::frames`] has all that will
    /// ever be there of its writers so far. They must be gone, and the call not be started anew meanwhile.
    pub async fn settled(&self, row: RowId) {
        let detached = self.0.shared.index().wait_detached(row);
        if let Some(detached) = detached {
            let Err(_ended) = detached.await;
        }
    }

    /// Reads a frame back and opens it. Blocks on the disk.
    pub fn read(&self, audio: &Secret, frame: &FrameRef) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        use std::os::unix::fs::FileExt as _;
        let file = self.segment_file(frame.at.segment)?;
        let mut bytes = Zeroizing::new(vec![0; frame.disk_len()]);
        match file.read_exact_at(&mut bytes, u64::from(frame.at.offset)) {
            Ok(()) => frame::open(audio, frame, bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Damaged),
            Err(error) => Err(error.into()),
        }
    }

    fn segment_file(&self, segment: u32) -> Result<Arc<File>, ReadError> {
        let mut index = self.0.shared.index();
        if let Some(file) = index.cached_file(segment) {
            return Ok(file);
        }
        match File::open(segment_path(&self.0.shared.dir, segment)) {
            Ok(file) => Ok(index.cache_file(segment, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::Released),
            Err(error) => Err(error.into()),
        }
    }

    /// Audio frames that end at or below `below` are in S3: they are no longer live, and no audio that was written before one
    /// of them is. What of that reaches further was never part of the call (it lay behind a gap).
    pub fn release(&self, row: RowId, below: u64) {
        let dead = self.0.shared.index().release(row, below);
        self.0.shared.unlink(dead);
    }

    /// The call is finished and stored, or erased: none of its frames is live, and frames of it that still wait to be
    /// written are refused with [`WriteError::Forgotten`].
    pub fn forget(&self, row: RowId) {
        let dead = self.0.shared.index().forget(row);
        self.0.shared.unlink(dead);
    }

    /// Bytes of frames on disk, released ones included until their segment is unlinked. The newest segment is allocated
    /// ahead of this by up to its size.
    pub fn bytes(&self) -> u64 {
        self.0.shared.index().bytes()
    }

    /// The bytes at which new calls are refused.
    pub fn limit(&self) -> u64 {
        self.0.shared.options.limit_bytes
    }

    /// Group syncs since the start.
    pub fn syncs(&self) -> u64 {
        self.0.shared.syncs.load(Ordering::Relaxed)
    }
}

impl Drop for Inner {
    /// Writes what is queued and ends the thread, so that the folder can be opened again at once.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's writing thread had panicked");
        }
    }
}

/// Writes the frames of one call, in one sealing epoch.
pub struct CallWriter {
    journal: Journal,
    attached: Arc<Attached>,
    row: RowId,
    key: SealingKey,
    salt: Salt,
    /// The next frame's. Only ever rises.
    sequence: u64,
}

impl CallWriter {
    /// Writes one frame; resolves once it is durable. Dropped before that, the frame is written or not.
    pub async fn append(&mut self, kind: FrameKind, offset: u64, plaintext: &[u8]) -> Result<FrameRef, WriteError> {
        self.enqueue(kind, offset, plaintext).await?.durable().await
    }

    /// Seals one frame and queues it; waits only for space in the queue. Frames of one writer become durable in the order
    /// in which they were queued, so that a session can have several on their way.
    pub async fn enqueue(&mut self, kind: FrameKind, offset: u64, plaintext: &[u8]) -> Result<Pending, WriteError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(WriteError::TooLarge);
        }
        let permits = frame::disk_len(plaintext.len()) as u32;
        let space = self
            .journal
            .0
            .shared
            .queue_space
            .clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| WriteError::Closed)?;
        // Nothing is awaited from here on: a number that was drawn is either queued or never written.
        let sequence = self.sequence;
        self.sequence = sequence.checked_add(1).expect("2^64 frames take longer than any call");
        let reference = FrameRef {
            salt: self.salt,
            sequence,
            offset,
            len: plaintext.len() as u32,
            at: Position { segment: 0, offset: 0 },
            kind,
        };
        let bytes = frame::seal(&self.key, self.row, &reference, plaintext);
        let (answer, answered) = oneshot::channel();
        let job = Job { bytes, reference, attached: self.attached.clone(), answer, _space: space };
        self.journal.0.queue.as_ref().ok_or(WriteError::Closed)?.send(job).map_err(|_| WriteError::Closed)?;
        Ok(Pending(answered))
    }
}

/// A frame on its way to the disk.
#[must_use]
pub struct Pending(oneshot::Receiver<Result<FrameRef, WriteError>>);

impl Pending {
    /// Resolves once the frame is durable, or refused.
    pub async fn durable(self) -> Result<FrameRef, WriteError> {
        self.0.await.unwrap_or(Err(WriteError::Closed))
    }
}

#[cfg(test)]
pub(crate) mod tests;
