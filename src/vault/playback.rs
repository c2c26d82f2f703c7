//! A recording is heard: resolved, logged, then streamed.
//!
//! The order is I7's: the session enters, the secret is read, the audit entry is written and synced,
//! and only then does the first byte leave. Every byte comes out of an authenticated segment. A task fetches one chunk
//! ahead of the listener; it holds the secret and the session's guard, and ends when either side goes.

use super::{
    Actor, Error, Inner, PlayInfo, PlayRange, Vault,
    audio::{Piece, SliceFetcher, Source, end_of},
    audit::{About, Detail, Event},
    sessions::{Cut, Guard},
    values,
};
use crate::{
    crypto::secret::Secret,
    domain::{
        audit::{Action, Outcome},
        id::{RecordingId, RowId},
        media::{self, Layout},
    },
    keys::{CommitError, Mutation, RecordingPath},
    proto::stored,
    segment::{ExpectedSlice, SEGMENT, check_list},
};
use bytes::Bytes;
use std::{
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{self, error::SendTimeoutError},
};
use tokio_stream::Stream;

/// Plaintext fetched with one GET: large enough to keep the line busy, small enough for many listeners.
const FETCH: u64 = 16 * SEGMENT as u64;
/// Chunks that wait for the listener: one fetch is heard while the next one comes.
const QUEUED: usize = 2 * (FETCH as usize / SEGMENT);
/// How long a listener may take nothing. One who pauses for longer asks again for the rest.
const SILENCE: Duration = Duration::from_secs(120);
/// Bytes from the start of a recording that tell its rate.
const HEAD_LEN: u64 = 4096;

/// A running playback: a stream of authenticated bytes, at most 64 KiB at a time.
pub struct Playback {
    info: PlayInfo,
    chunks: Queue,
}

/// What is fetched and not yet heard. The task empties it when it is cut: an erasure is not answered while plaintext waits.
type Queue = Arc<Mutex<mpsc::Receiver<Result<Bytes, Error>>>>;

impl Playback {
    /// What will be delivered.
    pub fn info(&self) -> &PlayInfo {
        &self.info
    }
}

impl Stream for Playback {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(context)
    }
}

impl Vault {
    /// Plays a recording, or a range of it. `actor` and `transport` go into the log.
    ///
    /// # Errors
    /// `Unknown`, `Erased`, `NoRate`, `OutOfRange`.
    pub async fn play(
        &self,
        actor: &Actor,
        id: RecordingId,
        range: PlayRange,
        transport: &str,
    ) -> Result<Playback, Error> {
        let inner = &self.0;
        inner.running()?;
        let path = inner.locate(&actor.scope, id)?.path;
        let slot = inner.playbacks.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
        let guard = inner.sessions.enter_playback(path);
        // Asked from inside: whoever restricts it now cuts this session.
        inner.usable(path)?;
        let leaf = inner.keys.audio_leaf(path)?.ok_or(Error::Erased)?;
        let audio = leaf.audio.ok_or(Error::Erased)?;
        let row: stored::Audio = values::read(&inner.keys, leaf.row, &audio)?
            .ok_or_else(|| Error::Corrupt("a recording without its audio row".to_owned()))?;
        let pieces = inner.pieces(leaf.row, &audio)?;
        let total = end_of(&pieces);
        check_whole(&pieces, &row)?;
        // A time range reads the head of the recording, which takes as long as S3 does; an erasure does not wait for it.
        let plan = tokio::select! {
            biased;
            _ = guard.cut() => return Err(Error::Erased),
            plan = inner.plan(leaf.row, &audio, &row.media_type, &pieces, range) => plan?,
        };

        inner.log_play(actor, path, plan.body.clone(), transport).await?;

        let info = PlayInfo {
            media_type: row.media_type,
            total_length: total,
            length: plan.header.len() as u64 + (plan.body.end - plan.body.start),
            start: plan.body.start,
            complete: row.state == 3,
        };
        let (sender, chunks) = mpsc::channel(QUEUED);
        let chunks = Arc::new(Mutex::new(chunks));
        let queue = chunks.clone();
        let task = Streaming { inner: inner.clone(), row: leaf.row, audio, pieces, plan, sender, queue };
        inner.tasks.spawn(task.run(guard, slot));
        Ok(Playback { info, chunks })
    }
}

/// A complete recording has its last slice and the length that it was finished with: a list that was cut short is told from
/// a recording that was.
fn check_whole(pieces: &[Piece], row: &stored::Audio) -> Result<(), Error> {
    let slices: Vec<ExpectedSlice> = pieces
        .iter()
        .filter_map(|piece| match &piece.source {
            Source::Slice(listed) => Some(listed.expected),
            Source::Frame(..) => None,
        })
        .collect();
    let complete = row.state == 3;
    check_list(&slices, complete).map_err(|error| Error::Corrupt(error.to_string()))?;
    if complete && end_of(pieces) != row.length {
        return Err(Error::Corrupt("the slice list is not as long as the recording".to_owned()));
    }
    Ok(())
}

/// What to deliver: a header of its own for a cut of a WAV, then a range of the recording.
struct Plan {
    header: Vec<u8>,
    body: Range<u64>,
}

impl Inner {
    async fn plan(
        &self,
        row: RowId,
        audio: &Secret,
        media_type: &str,
        pieces: &[Piece],
        range: PlayRange,
    ) -> Result<Plan, Error> {
        let total = end_of(pieces);
        match range {
            PlayRange::Bytes { start, end } => {
                let end = end.unwrap_or(total).min(total);
                if start > end || (start == end && start > 0) {
                    return Err(Error::OutOfRange { total });
                }
                Ok(Plan { header: Vec::new(), body: start..end })
            }
            PlayRange::Time { from, to } => {
                let mut head = Vec::new();
                for piece in pieces {
                    let range = piece.at.start..piece.at.end.min(HEAD_LEN);
                    if range.is_empty() {
                        break;
                    }
                    head.extend_from_slice(&self.read_kept(row, audio, piece, range).await?);
                }
                let layout: Layout = media::layout(media_type, &head).ok_or(Error::NoRate)?;
                let to = to.unwrap_or(f64::INFINITY);
                if !(from >= 0.0 && to > from && from < layout.duration(total)) {
                    return Err(Error::OutOfRange { total });
                }
                let body = layout.byte_range(from, to, total);
                let header = if layout.wav {
                    let length = u32::try_from(body.end - body.start).unwrap_or(u32::MAX);
                    media::wav_header_for(&head, length)
                } else {
                    Vec::new()
                };
                Ok(Plan { header, body })
            }
        }
    }

    /// Writes that somebody listens, and returns once that is durable (I7).
    async fn log_play(
        &self,
        actor: &Actor,
        path: RecordingPath,
        range: Range<u64>,
        transport: &str,
    ) -> Result<(), Error> {
        let event = Event {
            action: Action::Play,
            about: About::Audio(path),
            grant: None,
            outcome: Outcome::Done,
            detail: Detail {
                range: Some(range),
                notes: vec![("transport", transport.to_owned())],
                ..Detail::default()
            },
        };
        match self.keys.commit(Mutation::new(self.audit(actor, event).await?)).await {
            Ok(_) => Ok(()),
            Err(CommitError::Gone) => Err(Error::Erased),
            Err(error) => Err(error.into()),
        }
    }
}

struct Streaming {
    inner: Arc<Inner>,
    row: RowId,
    audio: Secret,
    pieces: Vec<Piece>,
    plan: Plan,
    sender: mpsc::Sender<Result<Bytes, Error>>,
    queue: Queue,
}

impl Streaming {
    async fn run(self, guard: Guard, _slot: OwnedSemaphorePermit) {
        let outcome = tokio::select! {
            biased;
            cut = guard.cut() => Err(match cut {
                Cut::Erased | Cut::TakenOver => Error::Erased,
                Cut::Restricted => Error::Restricted,
                Cut::Stopping => Error::Stopping,
            }),
            outcome = self.deliver() => outcome,
        };
        let Self { audio, sender, queue, .. } = self;
        drop(audio);
        if guard.is_cut() || matches!(outcome, Err(Error::Idle)) {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.try_recv().is_ok() {}
        }
        // The listener alone keeps the queue from here on.
        drop(queue);
        drop(guard);
        if let Err(error) = outcome {
            // A listener that has gone does not hear of it.
            let _ = sender.send(Err(error)).await;
        }
    }

    /// Streams, and waits until all of it has been heard or the listener has gone: plaintext in the queue is the session's.
    async fn deliver(&self) -> Result<(), Error> {
        let sent = self.stream().await;
        tokio::select! {
            () = self.sender.closed() => sent,
            _ = self.sender.reserve_many(QUEUED) => sent,
            () = tokio::time::sleep(SILENCE) => Err(Error::Idle),
        }
    }

    async fn stream(&self) -> Result<(), Error> {
        if !self.plan.header.is_empty() && !self.send(&self.plan.header).await? {
            return Ok(());
        }
        for piece in &self.pieces {
            let wanted = piece.at.start.max(self.plan.body.start)..piece.at.end.min(self.plan.body.end);
            if wanted.is_empty() {
                continue;
            }
            match &piece.source {
                Source::Slice(listed) => {
                    let mut fetcher = SliceFetcher::new(listed.clone());
                    let mut at = wanted.start - piece.at.start;
                    let end = wanted.end - piece.at.start;
                    while at < end {
                        // Fetches end on segment borders, so that no segment is fetched twice.
                        let next = ((at / FETCH + 1) * FETCH).min(end);
                        let bytes = fetcher.read(&self.inner, &self.audio, at..next).await?;
                        if !self.send(&bytes).await? {
                            return Ok(());
                        }
                        at = next;
                    }
                }
                Source::Frame(..) => {
                    let bytes = self.inner.read_kept(self.row, &self.audio, piece, wanted).await?;
                    if !self.send(&bytes).await? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// False when the listener has gone.
    async fn send(&self, bytes: &[u8]) -> Result<bool, Error> {
        for chunk in bytes.chunks(SEGMENT) {
            match self.sender.send_timeout(Ok(Bytes::copy_from_slice(chunk)), SILENCE).await {
                Ok(()) => {}
                Err(SendTimeoutError::Timeout(_)) => return Err(Error::Idle),
                Err(SendTimeoutError::Closed(_)) => return Ok(false),
            }
        }
        Ok(true)
    }
}
