//! The writing thread: everything that waits, one write, one sync, all answers; then again.
//!
//! Batches make themselves: what arrives while the disk syncs is the next one. The queue's bound (in bytes) bounds them.
//! A failed write or sync ends the process ([`Medium::fatal`]); a segment that cannot be allocated refuses frames only.

use super::{FrameRef, Shared, WriteError, index::Attached, medium::Medium, segment_path};
use std::{
    fs::File,
    io,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Most of the gathering buffer that is kept between batches.
const KEPT_BUFFER: usize = 4 << 20;

/// One sealed frame on its way. Its position is filled in here.
pub(super) struct Job {
    pub bytes: Vec<u8>,
    pub reference: FrameRef,
    pub attached: Arc<Attached>,
    pub answer: oneshot::Sender<Result<FrameRef, WriteError>>,
    /// Its share of the queue, given back when it is answered.
    pub _space: OwnedSemaphorePermit,
}

impl Job {
    fn refuse(self, error: WriteError) {
        // Whoever no longer listens does not need the answer.
        let _ = self.answer.send(Err(error));
    }
}

struct Growing {
    number: u32,
    file: File,
    /// Bytes written, and bytes that were allocated.
    written: u64,
    size: u64,
}

struct Writer {
    shared: Arc<Shared>,
    medium: Box<dyn Medium>,
    next: u32,
    current: Option<Growing>,
    /// Jobs placed in the current segment, their bytes in `buffer`, not yet written.
    placed: Vec<Job>,
    buffer: Vec<u8>,
}

/// A write or a sync failed: the thread ends (the process is gone already, but for tests).
struct Broken;

/// Starts the thread. It ends when every sender is gone and the queue is drained.
pub(super) fn start(
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    medium: Box<dyn Medium>,
    next: u32,
) -> io::Result<JoinHandle<()>> {
    let mut writer = Writer { shared, medium, next, current: None, placed: Vec::new(), buffer: Vec::new() };
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
        while let Ok(first) = jobs.recv() {
            if writer.batch(std::iter::once(first).chain(jobs.try_iter())).is_err() {
                return;
            }
        }
        writer.close();
    })
}

impl Writer {
    fn batch(&mut self, jobs: impl Iterator<Item = Job>) -> Result<(), Broken> {
        let mut full = false;
        for job in jobs {
            let len = job.bytes.len() as u64;
            if !self.fits(len) && (full || !self.roll(len)?) {
                full = true;
                job.refuse(WriteError::NoSpace);
                continue;
            }
            self.place(job);
        }
        self.commit()
    }

    fn fits(&self, len: u64) -> bool {
        self.current.as_ref().is_some_and(|segment| segment.written + self.buffer.len() as u64 + len <= segment.size)
    }

    fn place(&mut self, mut job: Job) {
        let Some(segment) = &self.current else { return job.refuse(WriteError::NoSpace) };
        job.reference.at.segment = segment.number;
        // A segment's size was clamped to 1 GiB and a frame, so that positions in it fit.
        job.reference.at.offset = (segment.written + self.buffer.len() as u64) as u32;
        self.buffer.extend_from_slice(&job.bytes);
        self.placed.push(job);
    }

    /// Goes on to a fresh segment. False where none can be had: the current one is as it was.
    fn roll(&mut self, frame: u64) -> Result<bool, Broken> {
        let number = self.next;
        let size = self.shared.options.segment_bytes.max(frame);
        let file = match self.medium.allocate(&segment_path(&self.shared.dir, number), size) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, "no journal segment can be allocated; frames are refused");
                return Ok(false);
            }
        };
        self.medium.sync_dir(&self.shared.dir).map_err(|error| self.broken("syncing the journal's folder", error))?;
        self.commit()?;
        self.close();
        self.next = number.saturating_add(1);
        self.shared.index().started(number);
        self.current = Some(Growing { number, file, written: 0, size });
        Ok(true)
    }

    /// Writes what was placed, syncs, makes it live, answers.
    fn commit(&mut self) -> Result<(), Broken> {
        let Some(segment) = self.current.as_mut().filter(|_| !self.placed.is_empty()) else { return Ok(()) };
        if let Err(error) = self.medium.write(&segment.file, &self.buffer, segment.written) {
            return Err(self.broken("writing to a journal segment", error));
        }
        if let Err(error) = self.medium.sync(&segment.file) {
            return Err(self.broken("syncing a journal segment", error));
        }
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        segment.written += self.buffer.len() as u64;
        let live: Vec<bool> = {
            let mut index = self.shared.index();
            index.written(segment.number, segment.written);
            self.placed.iter().map(|job| index.add(&job.attached, job.reference)).collect()
        };
        for (job, live) in self.placed.drain(..).zip(live) {
            let answer = if live { Ok(job.reference) } else { Err(WriteError::Forgotten) };
            let _ = job.answer.send(answer);
        }
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER);
        Ok(())
    }

    /// Ends the current segment. Its unused blocks go back; should that fail, they go with the file.
    fn close(&mut self) {
        if let Some(segment) = self.current.take() {
            let _ = segment.file.set_len(segment.written);
            let dead = self.shared.index().closed(segment.number);
            self.shared.unlink(dead);
        }
    }

    fn broken(&self, doing: &'static str, error: io::Error) -> Broken {
        self.medium.fatal(doing, error);
        Broken
    }
}
