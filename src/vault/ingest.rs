//! A call comes in: the front half, which the sender's stream talks to. How it is opened is in [`super::opening`]; the back
//! half, [`super::track`], owns the keys, seals slices and puts them.
//!
//! What the front half holds of the audio and its keys lies on a [`Desk`] that the track clears when it is cut, before its
//! session leaves: so an erasure is not answered while a stream that nobody reads still holds a slice or a frame key.

use super::{
    Actor, Error, Finish, Finished, Inner, Mode, Opened, Paused, Progress,
    discard::Discarding,
    tenants::invalid,
    timeline::{self, Command},
    track::{Ended, Job, Queues, Track, Written},
};
use crate::{
    domain::{
        media,
        pause::{DiscardReason, PauseReason},
        time::Timestamp,
    },
    journal::{CallWriter, FrameKind, WriteError},
    proto::stored,
    segment::{MAX_SLICE, SliceBuffer},
};
use bytes::Bytes;
use ring::digest;
use std::sync::Arc;
use tokio::{
    sync::{Mutex, MutexGuard, OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::Instant,
};
use zeroize::Zeroizing;

/// Bytes from the start of a recording that tell its rate.
pub(crate) const HEAD_LEN: usize = 4096;
/// Most plaintext in one journal frame: what a slow disk syncs in one go.
const MAX_FRAME: usize = 64 << 10;
/// Least memory asked for at a time.
const MIN_GRANT: usize = 64 << 10;
/// Room of the first slice of a file whose length is not stated.
const FIRST_SLICE: usize = 1 << 20;

/// A recording that takes audio. Dropped without [`Ingest::finish`], its caller has vanished.
pub struct Ingest {
    inner: Arc<Inner>,
    opened: Opened,
    mode: Mode,
    media_type: String,
    received: u64,
    /// Of everything received; none for a live call that was resumed, when it is taken again from what is kept.
    digest: Option<digest::Context>,
    length_hint: Option<u64>,
    slices: u32,
    /// Finish was accepted: nothing more comes.
    closed: bool,
    /// Audio is refused. Durable whenever it is set.
    paused: Option<Paused>,
    desk: SharedDesk,
    jobs: mpsc::Sender<Job>,
    written: mpsc::Sender<Written>,
    commands: mpsc::Sender<Box<Command>>,
    progress: watch::Receiver<Progress>,
    ended: watch::Receiver<Option<Ended>>,
}

/// What the front half holds of a recording's audio and keys.
pub(crate) struct Desk {
    /// The track was cut or has ended: nothing is put here any more.
    cleared: bool,
    /// The slice of a spooled recording that fills.
    filling: Option<Filling>,
    /// Seals the frames of a live call.
    writer: Option<CallWriter>,
    head: Zeroizing<Vec<u8>>,
}

/// Both halves reach it.
pub(crate) type SharedDesk = Arc<Mutex<Desk>>;

/// A slice that fills.
pub(crate) struct Filling {
    pub buffer: SliceBuffer,
    /// Plaintext this slice may hold: what memory was granted for.
    room: usize,
    pub memory: OwnedSemaphorePermit,
    /// When the last byte came.
    pub touched: Instant,
}

impl Desk {
    /// Wipes everything, for good.
    pub(crate) fn clear(&mut self) {
        self.cleared = true;
        self.filling = None;
        self.writer = None;
        self.head = Zeroizing::new(Vec::new());
    }

    /// Takes a slice whose sender has been silent since `before`, so that its memory serves others.
    pub(crate) fn take_idle(&mut self, before: Instant) -> Option<Filling> {
        self.filling.take_if(|filling| filling.touched < before && !filling.buffer.is_empty())
    }
}

impl Inner {
    /// Starts the back half and gives the front half.
    pub(crate) fn start(
        self: &Arc<Self>,
        track: Track,
        opened: Opened,
        mode: Mode,
        length_hint: Option<u64>,
        (digest, head): (Option<digest::Context>, Zeroizing<Vec<u8>>),
    ) -> Result<Ingest, Error> {
        // One slice waits while another is put and a third fills.
        let (jobs, queued_jobs) = mpsc::channel(1);
        // Frames whose sync is awaited.
        let (written, queued_frames) = mpsc::channel(64);
        let (commands, queued_commands) = mpsc::channel(1);
        let queues = Queues { jobs: queued_jobs, written: queued_frames, commands: queued_commands };
        let timekeeper = track.timekeeper()?;
        let paused = timeline::paused(&timekeeper.timeline)?;
        let (progress, watched) = watch::channel(Progress {
            journaled: opened.resume_offset,
            stored: track.stored,
            backed_up: self.keys.has_backup(),
            ..Progress::default()
        });
        let (ended, ending) = watch::channel(None);
        let writer = match mode {
            Mode::Spooled => None,
            Mode::Live => track.audio.as_ref().map(|audio| self.journal.call(track.row, audio)),
        };
        let desk = Arc::new(Mutex::new(Desk { cleared: false, filling: None, writer, head }));
        let media_type = track.audio_row.media_type.clone();
        self.tasks.spawn(track.run(desk.clone(), queues, timekeeper, progress, ended));
        Ok(Ingest {
            inner: self.clone(),
            opened,
            mode,
            media_type,
            received: opened.resume_offset,
            digest,
            length_hint: length_hint.map(|hint| hint.saturating_sub(opened.resume_offset)),
            slices: 0,
            closed: false,
            paused,
            desk,
            jobs,
            written,
            commands,
            progress: watched,
            ended: ending,
        })
    }
}

impl Ingest {
    /// A recording that an earlier stream finished: nothing is taken, and progress says so.
    pub(crate) fn finished_before(inner: &Arc<Inner>, opened: Opened, mode: Mode, finished: Finished) -> Self {
        let length = finished.length;
        let (_, progress) = watch::channel(Progress {
            journaled: length,
            stored: length,
            backed_up: finished.backed_up,
            finish_journaled: true,
            finished: Some(finished),
        });
        let (_, ended) = watch::channel(Some(Ended::Finished));
        let (jobs, _) = mpsc::channel(1);
        let (written, _) = mpsc::channel(1);
        let (commands, _) = mpsc::channel(1);
        let head = Zeroizing::new(Vec::new());
        Self {
            inner: inner.clone(),
            opened,
            mode,
            media_type: String::new(),
            received: length,
            digest: None,
            length_hint: None,
            slices: 0,
            closed: true,
            paused: None,
            desk: Arc::new(Mutex::new(Desk { cleared: true, filling: None, writer: None, head })),
            jobs,
            written,
            commands,
            progress,
            ended,
        }
    }

    /// The answer to Open.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Bytes taken so far; where the next one belongs.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the recording is paused, also by an earlier stream.
    pub fn paused(&self) -> Option<Paused> {
        self.paused
    }

    /// The watermarks. The sender's end is dropped when the recording has ended, for [`Ingest::ended`] to say how.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until the recording no longer takes audio, and says why. A finished recording waits for ever: `progress`
    /// tells of it.
    pub fn ended(&self) -> impl Future<Output = Error> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            let why = ended.wait_for(Option::is_some).await.map(|why| why.clone());
            match why {
                Ok(Some(Ended::Finished)) => std::future::pending().await,
                Ok(Some(why)) => why.into_error(),
                Ok(None) | Err(_) => Error::Stopping,
            }
        }
    }

    /// Why the track takes nothing any more. It clears the desk first and says so last; this waits for the word.
    async fn why_ended(&self) -> Error {
        let mut ended = self.ended.clone();
        let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.map_or(Error::Stopping, Ended::into_error)
    }

    /// The desk, unless it was cleared.
    async fn desk(&self) -> Result<MutexGuard<'_, Desk>, Error> {
        let desk = self.desk.lock().await;
        if desk.cleared {
            drop(desk);
            return Err(self.why_ended().await);
        }
        Ok(desk)
    }

    async fn send(&self, job: Job) -> Result<(), Error> {
        match self.jobs.send(job).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.why_ended().await),
        }
    }

    async fn order(&self, command: Command) -> Result<(), Error> {
        match self.commands.send(Box::new(command)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.why_ended().await),
        }
    }

    async fn send_written(&self, written: Written) -> Result<(), Error> {
        match self.written.send(written).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.why_ended().await),
        }
    }

    /// Takes audio. Waits while memory or the journal is behind: that is the sender's back-pressure.
    ///
    /// # Errors
    /// `Invalid` for a gap, and while the recording is paused: nothing of this content is taken then. What cut the recording
    /// otherwise.
    pub async fn data(&mut self, offset: u64, content: Bytes) -> Result<(), Error> {
        let new = !content.is_empty() && offset.saturating_add(content.len() as u64) > self.received;
        if new && self.paused.is_some() {
            let remedy =
                format!("comes while the recording is paused; send Resume, then go on at byte {}", self.received);
            return Err(invalid("data", remedy));
        }
        if offset > self.received {
            return Err(invalid("data.offset", format!("leaves a gap; the next byte is {}", self.received)));
        }
        // What lies below was kept already: a sender that resumed may send it again.
        let known = (self.received - offset).min(content.len() as u64) as usize;
        let mut content = &content[known..];
        if !content.is_empty() && self.closed {
            return Err(invalid("data", "comes after Finish; nothing more is taken".to_owned()));
        }
        while !content.is_empty() {
            let taken = match self.mode {
                Mode::Spooled => self.fill(content).await?,
                Mode::Live => self.write(&content[..content.len().min(MAX_FRAME)]).await?,
            };
            let (new, rest) = content.split_at(taken);
            if let Some(digest) = &mut self.digest {
                digest.update(new);
            }
            self.received += taken as u64;
            content = rest;
        }
        Ok(())
    }

    /// Puts as much as fits into the slice that fills.
    async fn fill(&mut self, content: &[u8]) -> Result<usize, Error> {
        let mut desk = self.desk().await?;
        if let Some(slice) = desk.filling.as_mut().filter(|slice| slice.buffer.len() < slice.room) {
            let most = content.len().min(slice.room - slice.buffer.len());
            let taken = slice.buffer.push(&content[..most]);
            slice.touched = Instant::now();
            desk.note_head(self.received, &content[..taken]);
            return Ok(taken);
        }
        let full = desk.filling.take();
        drop(desk);
        if let Some(full) = full {
            self.hand_over(full).await?;
        }
        self.next_slice(content.len()).await?;
        Ok(0)
    }

    /// Has the track put a slice.
    async fn hand_over(&mut self, slice: Filling) -> Result<(), Error> {
        if let Some(hint) = &mut self.length_hint {
            *hint = hint.saturating_sub(slice.buffer.len() as u64);
        }
        self.send(Job::Slice(slice)).await
    }

    /// Asks for memory for the next slice.
    async fn next_slice(&mut self, at_hand: usize) -> Result<(), Error> {
        // The hint saves memory for short files. One that was too small costs a further slice, and nothing else.
        let unstated = if self.slices == 0 { FIRST_SLICE } else { MAX_SLICE };
        let expected = match self.length_hint {
            Some(hint) if hint > 0 => hint.min(MAX_SLICE as u64) as usize,
            _ => unstated,
        };
        let room = expected.max(at_hand).clamp(MIN_GRANT, MAX_SLICE);
        let grants = super::grants(room as u64);
        let memory = tokio::select! {
            memory = self.inner.memory.clone().acquire_many_owned(grants) => memory.map_err(|_| Error::Stopping)?,
            why = self.why_ended() => return Err(why),
        };
        self.slices += 1;
        let buffer = SliceBuffer::with_room(room);
        self.desk().await?.filling = Some(Filling { buffer, room, memory, touched: Instant::now() });
        Ok(())
    }

    /// Sends a frame to the journal.
    async fn write(&self, frame: &[u8]) -> Result<usize, Error> {
        let mut desk = self.desk().await?;
        desk.note_head(self.received, frame);
        let pending = desk.seal_frame(FrameKind::Audio, self.received, frame).await?;
        drop(desk);
        self.send_written(Written::Audio(pending, self.received + frame.len() as u64)).await?;
        Ok(frame.len())
    }

    /// Takes no audio until [`Ingest::resume`]. Returns once the pause and all audio before it are durable; see
    /// [`super::timeline`]. Idempotent.
    ///
    /// # Errors
    /// `Invalid` after Finish, and for more gaps than a recording may have; what cut the recording otherwise.
    pub async fn pause(&mut self, actor: &Actor, reason: PauseReason, at: Option<Timestamp>) -> Result<Paused, Error> {
        if let Some(paused) = self.paused {
            return Ok(paused);
        }
        if self.closed {
            return Err(invalid("pause", "comes after Finish".to_owned()));
        }
        // A file is kept from its slices on.
        let filling = self.desk().await?.filling.take().filter(|filling| !filling.buffer.is_empty());
        if let Some(filling) = filling {
            self.hand_over(filling).await?;
        }
        let (reply, answer) = oneshot::channel();
        let (offset, actor) = (self.received, actor.clone());
        self.order(Command::Pause { offset, reason, at, actor, reply }).await?;
        let Ok(paused) = answer.await else { return Err(self.why_ended().await) };
        let paused = paused?;
        self.paused = Some(paused);
        Ok(paused)
    }

    /// Takes audio again. Returns once that is durable. Idempotent.
    ///
    /// # Errors
    /// What cut the recording.
    pub async fn resume(&mut self, actor: &Actor, at: Option<Timestamp>) -> Result<(), Error> {
        if self.paused.is_none() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.order(Command::Resume { at, actor: actor.clone(), reply }).await?;
        if answer.await.is_err() {
            return Err(self.why_ended().await);
        }
        self.paused = None;
        Ok(())
    }

    /// Takes the stated length and digest and closes the recording. Returns once that is accepted; `progress` shows the
    /// rest.
    ///
    /// # Errors
    /// `Mismatch` for a spooled recording: it is gone, its key destroyed. `Invalid` for one without a byte.
    pub async fn finish(&mut self, finish: Finish) -> Result<(), Error> {
        let finished = self.progress.borrow().finished;
        if let Some(finished) = finished {
            // A retry of Finish after the answer was lost.
            return if finished.length == finish.length { Ok(()) } else { Err(self.mismatch("length")) };
        }
        if self.closed {
            return Err(invalid("finish", "came twice".to_owned()));
        }
        if self.received == 0 {
            self.forget().await?;
            return Err(invalid("finish.length", "no audio arrived; a recording has at least one byte".to_owned()));
        }
        let computed = match self.digest.take() {
            Some(digest) => Some(digest.finish()),
            None => self.digest_of_kept().await?,
        };
        let length_differs = finish.length != self.received;
        let digest_differs =
            matches!((&computed, finish.sha256), (Some(ours), Some(stated)) if ours.as_ref() != stated.as_slice());
        if self.mode == Mode::Spooled && (length_differs || digest_differs) {
            self.forget().await?;
            return Err(self.mismatch(if length_differs { "length" } else { "sha256" }));
        }
        let mut desk = self.desk().await?;
        let stated = stored::FinishFrame {
            length: self.received,
            sha256: computed.map_or_else(Vec::new, |digest| digest.as_ref().to_vec()),
            end_ms: finish.end.unwrap_or_else(|| self.inner.clock.now()).0,
            mismatch: length_differs || digest_differs,
            duration_seconds: media::layout(&self.media_type, &desk.head).map(|layout| layout.duration(self.received)),
        };
        let job = match self.mode {
            Mode::Spooled => {
                let filling = desk.filling.take();
                drop(desk);
                Job::FinishSpooled(filling, stated)
            }
            Mode::Live => {
                let frame = Zeroizing::new(prost::Message::encode_to_vec(&stated));
                let pending = desk.seal_frame(FrameKind::Finish, self.received, &frame).await?;
                drop(desk);
                self.send_written(Written::Finish(pending)).await?;
                Job::FinishLive(stated)
            }
        };
        self.closed = true;
        self.send(job).await
    }

    /// Forgets the recording while it runs. A later retry of its client id is told that it was erased.
    ///
    /// # Errors
    /// `Parked`, `Floor`, `Restricted`: it is kept. What cut the recording before.
    pub async fn discard(mut self, actor: &Actor, reason: DiscardReason) -> Result<(), Error> {
        self.order(Command::Discard(Discarding::Wanted(actor.clone(), reason))).await?;
        self.gone().await
    }

    /// Destroys what arrived so that the same client id can send it again.
    async fn forget(&mut self) -> Result<(), Error> {
        self.closed = true;
        self.order(Command::Discard(Discarding::Refused)).await?;
        self.gone().await.map_err(|error| match error {
            Error::Parked { .. } | Error::Floor { .. } | Error::Restricted => Error::Refused {
                why:
                    "what is stated at Finish is not what arrived; what was acknowledged is kept, for a hold, floor or \
                      restriction stands on it; send the file anew, with another client_id"
                        .to_owned(),
            },
            other => other,
        })
    }

    async fn gone(&mut self) -> Result<(), Error> {
        match self.ended.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(Ended::Discarded(_))) => Ok(()),
            Ok(Some(other)) => Err(other.into_error()),
            Ok(None) | Err(_) => Err(Error::Stopping),
        }
    }

    fn mismatch(&self, field: &'static str) -> Error {
        Error::Mismatch { field, received: self.received }
    }

    /// Has the track take digest and head of a resumed live call from what is kept. A call does not wait for S3 to be told
    /// that it may hang up: where S3 is away, digest and duration stay unknown.
    async fn digest_of_kept(&self) -> Result<Option<digest::Digest>, Error> {
        let (reply, taken) = oneshot::channel();
        self.send(Job::Digest { below: self.received, reply }).await?;
        let Ok(taken) = taken.await else { return Err(self.why_ended().await) };
        let Some((digest, head)) = taken else { return Ok(None) };
        self.desk().await?.head = head;
        Ok(Some(digest.finish()))
    }
}

impl Desk {
    fn note_head(&mut self, at: u64, bytes: &[u8]) {
        if at == self.head.len() as u64 {
            let room = HEAD_LEN - self.head.len();
            self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    async fn seal_frame(
        &mut self,
        kind: FrameKind,
        offset: u64,
        plaintext: &[u8],
    ) -> Result<crate::journal::Pending, Error> {
        let writer = self.writer.as_mut().ok_or(Error::Stopping)?;
        writer.enqueue(kind, offset, plaintext).await.map_err(|error| match error {
            WriteError::NoSpace => Error::JournalFull,
            WriteError::Closed => Error::Stopping,
            other => Error::Internal(other.to_string()),
        })
    }
}
