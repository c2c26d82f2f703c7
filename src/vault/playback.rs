//! A recording is heard: resolved, logged, then streamed.
//!
//! The order is I7's: the session enters, the gate of [`super::permission`] lets it in, the secret is read, the listening is
//! written and synced, and only then does the first byte leave. Every byte comes out of an authenticated segment. A task
//! fetches one chunk ahead of the listener; it holds the secret and the session's guard, and ends when either side goes.
//!
//! There is one way in, [`Inner::begin`], for gRPC, HTTP and tickets alike; it takes what the gate gave, and nobody else makes
//! one. Whom the gate turns away is logged as well ([`super::refused`]). A playback ends by itself when its grant or its ticket
//! does: the clock is looked at several times a second, so that a clock that jumps ends it too. What waits in the queue then
//! is thrown away, as for a session that is cut.
//!
//! # A recording that is being finished
//!
//! Nothing is locked: the row is read first, then the journal's frames, then the slice list, while the track writes. It lists
//! a slice before the journal lets go of its frames, and the slice that it marks as last in one command with the row that
//! says *complete*, and how long. So, by what comes between the three looks:
//!
//! - *A slice is listed*: behind the frames, its bytes are seen twice and laid once; before them, it is seen as a slice. Never
//!   not at all.
//! - *Frames are released*: they were listed before, so the list, which is read last, has them.
//! - *The recording is finished*, behind the row: the list has its end, and the whole is heard; the row of before claims no
//!   length. Before the row: the list, read later, is the one that the row's length was taken from.
//! - *The journal is told*, or not yet: no matter, because frames do not count where the list has its end.
//!
//! So a complete row and a list of another length are never two moments of one recording: something is lost.

use super::{
    Actor, Error, Inner, MAX_PLAYBACKS, PlayInfo, PlayRange, Vault,
    audio::{Piece, SliceFetcher, Source, end_of},
    audit::{About, Detail, Event},
    permission::{Grant, Pace, missing},
    sessions::Guard,
    ticket::{Proof, SLOW_BYTES_PER_SECOND},
    timeline, values,
};
use crate::{
    crypto::secret::Secret,
    domain::{
        audit::{Action, Outcome},
        id::{PermissionId, RecordingId, RowId},
        media::{self, Layout},
    },
    keys::RecordingPath,
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
/// How often a playback looks at the clock.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// Playbacks of one tenant: several of them together leave room for the others.
pub(super) const MAX_PLAYBACKS_OF_ONE: usize = MAX_PLAYBACKS / 4;
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

/// A listener who goes leaves at once: the task, which shares the queue, would else wait for it to be taken.
impl Drop for Playback {
    fn drop(&mut self) {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).close();
    }
}

impl Stream for Playback {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(context)
    }
}

/// How a recording is heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hearing {
    /// Goes into the log.
    pub transport: &'static str,
    /// A copy is wanted: staff need a permission that says so.
    pub download: bool,
}

impl Hearing {
    /// As the log has it.
    pub(crate) fn notes(self) -> Vec<(&'static str, String)> {
        let purpose = if self.download { "download" } else { "listening" };
        vec![("transport", self.transport.to_owned()), ("for", purpose.to_owned())]
    }
}

impl Vault {
    /// Plays a recording, or a range of it, to whoever may hear it, while the proof of the name stands. `actor` goes into the
    /// log.
    ///
    /// # Errors
    /// `Unknown`, `Erased`, `NotPermitted`, `Restricted`, `NoRate`, `OutOfRange`.
    pub async fn play(
        &self,
        actor: &Actor,
        proof: Proof,
        id: RecordingId,
        range: PlayRange,
        hearing: Hearing,
    ) -> Result<Playback, Error> {
        self.0.begin(actor, id, range, hearing, proof).await
    }
}

impl Inner {
    /// The way to audio. It is open while the proof stands.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        actor: &Actor,
        id: RecordingId,
        range: PlayRange,
        hearing: Hearing,
        proof: Proof,
    ) -> Result<Playback, Error> {
        self.running()?;
        let path = self.locate(&actor.scope, id)?.path;
        let slot = self.playbacks.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
        let guard = self.sessions.enter_playback(path);
        // Itself included.
        if self.sessions.listening(path.tenant) > MAX_PLAYBACKS_OF_ONE {
            return Err(Error::Busy);
        }
        let admitted = self.admit(actor, &guard).and_then(|grant| match hearing.download && !grant.download() {
            true => Err(missing("a permission to download; the one there is lets you listen")),
            false => Ok(grant),
        });
        let grant = match admitted {
            Ok(grant) => grant,
            Err(error) => {
                // Nobody listens: an erasure need not wait for what is written now.
                drop(guard);
                return Err(self.refused(actor, path, Action::Play, Some(hearing), error).await);
            }
        };
        let until = [grant.until(), proof.until].into_iter().flatten().min();
        let proof = Proof { until, ..proof };
        self.stream(actor, Admitted { grant, guard, slot, proof }, range, hearing).await
    }

    /// Opens the recording, logs, and streams. Takes what only the gate gives.
    async fn stream(
        self: &Arc<Self>,
        actor: &Actor,
        admitted: Admitted,
        range: PlayRange,
        hearing: Hearing,
    ) -> Result<Playback, Error> {
        let Admitted { grant, guard, slot, proof } = admitted;
        let path = guard.path();
        let leaf = self.keys.audio_leaf(path)?.ok_or(Error::Erased)?;
        let audio = leaf.audio.ok_or(Error::Erased)?;
        let row: stored::Audio = values::read(&self.keys, leaf.row, &audio)?
            .ok_or_else(|| Error::Corrupt("a recording without its audio row".to_owned()))?;
        let pieces = self.pieces(leaf.row, &audio)?;
        let total = end_of(&pieces);
        check_whole(&pieces, &row)?;
        let timeline: stored::Timeline = values::read(&self.keys, leaf.row, &audio)?.unwrap_or_default();
        let pace = grant.id().filter(|_| !hearing.download).map(|id| self.permissions.pace(id));
        // Both may read the head of the recording, which takes as long as S3 does; an erasure does not wait for it.
        let planned = async {
            let plan = self.plan(leaf.row, &audio, &row.media_type, &pieces, range).await?;
            let layout = match pace.is_some() || !timeline.pauses.is_empty() {
                true => self.layout(leaf.row, &audio, &row.media_type, &pieces).await?,
                false => None,
            };
            Ok::<_, Error>((plan, layout))
        };
        let (plan, layout) = tokio::select! {
            biased;
            cut = guard.cut() => return Err(cut.into()),
            planned = planned => planned?,
        };

        let gaps = timeline::gaps(&timeline, layout.as_ref())?;
        self.log_play(actor, path, plan.body.clone(), hearing, grant.id()).await?;

        let info = PlayInfo {
            media_type: row.media_type,
            total_length: total,
            length: plan.header.len() as u64 + (plan.body.end - plan.body.start),
            start: plan.body.start,
            complete: row.state == 3,
            gaps,
        };
        let (sender, chunks) = mpsc::channel(QUEUED);
        let chunks = Arc::new(Mutex::new(chunks));
        let queue = chunks.clone();
        let paced = pace.map(|pace| Paced { pace, rate: layout.map(|layout| layout.bytes_per_second) });
        let inner = self.clone();
        let task = Streaming { inner, row: leaf.row, audio, pieces, plan, proof, paced, sender, queue };
        self.tasks.spawn(task.run(guard, slot));
        Ok(Playback { info, chunks })
    }
}

/// Somebody whom the gate let in, and what a running playback holds.
struct Admitted {
    grant: Grant,
    guard: Guard,
    slot: OwnedSemaphorePermit,
    /// Until the grant or the ticket ends, or the listener's name is taken back.
    proof: Proof,
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
                let head = self.audio_head(row, audio, pieces).await?;
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

    /// The first bytes of a recording, which tell its rate.
    async fn audio_head(&self, row: RowId, audio: &Secret, pieces: &[Piece]) -> Result<Vec<u8>, Error> {
        let mut head = Vec::new();
        for piece in pieces {
            let range = piece.at.start..piece.at.end.min(HEAD_LEN);
            if range.is_empty() {
                break;
            }
            head.extend_from_slice(&self.read_kept(row, audio, piece, range).await?);
        }
        Ok(head)
    }

    /// About how long a recording plays; rather too long where nothing tells.
    pub(crate) async fn seconds_of(&self, path: RecordingPath) -> Result<f64, Error> {
        let guard = self.sessions.enter_playback(path);
        let leaf = self.keys.audio_leaf(path)?.ok_or(Error::Erased)?;
        let audio = leaf.audio.ok_or(Error::Erased)?;
        let row: stored::Audio = values::read(&self.keys, leaf.row, &audio)?
            .ok_or_else(|| Error::Corrupt("a recording without its audio row".to_owned()))?;
        let pieces = self.pieces(leaf.row, &audio)?;
        let layout = tokio::select! {
            biased;
            cut = guard.cut() => return Err(cut.into()),
            layout = self.layout(leaf.row, &audio, &row.media_type, &pieces) => layout?,
        };
        let rate = layout.map_or(SLOW_BYTES_PER_SECOND, |layout| layout.bytes_per_second);
        Ok(end_of(&pieces) as f64 / rate)
    }

    /// How fast a recording is heard, where its media type or its head tells.
    async fn layout(
        &self,
        row: RowId,
        audio: &Secret,
        media_type: &str,
        pieces: &[Piece],
    ) -> Result<Option<Layout>, Error> {
        match media::layout(media_type, &[]) {
            Some(layout) => Ok(Some(layout)),
            None => Ok(media::layout(media_type, &self.audio_head(row, audio, pieces).await?)),
        }
    }

    /// Writes that somebody listens, and returns once that is durable (I7).
    async fn log_play(
        &self,
        actor: &Actor,
        path: RecordingPath,
        range: Range<u64>,
        hearing: Hearing,
        grant: Option<PermissionId>,
    ) -> Result<(), Error> {
        let event = Event {
            action: Action::Play,
            about: About::Audio(path),
            grant: grant.map(|grant| grant.0),
            outcome: Outcome::Done,
            detail: Detail { range: Some(range), notes: hearing.notes(), ..Detail::default() },
        };
        self.log_first(actor, event).await
    }
}

fn run_out() -> Error {
    missing("the permission, ticket or token; its time has run out")
}

/// A listener who must not run ahead.
struct Paced {
    pace: Arc<Pace>,
    /// Bytes that are heard in a second, where that is known.
    rate: Option<f64>,
}

struct Streaming {
    inner: Arc<Inner>,
    row: RowId,
    audio: Secret,
    pieces: Vec<Piece>,
    plan: Plan,
    proof: Proof,
    paced: Option<Paced>,
    sender: mpsc::Sender<Result<Bytes, Error>>,
    queue: Queue,
}

impl Streaming {
    async fn run(self, guard: Guard, _slot: OwnedSemaphorePermit) {
        let outcome = tokio::select! {
            biased;
            cut = guard.cut() => Err(cut.into()),
            () = self.proof.alive.cancelled() => Err(missing("an identity; the listener's was taken back")),
            () = self.time_is_up() => Err(run_out()),
            outcome = self.deliver() => outcome,
        };
        let Self { audio, sender, queue, .. } = self;
        drop(audio);
        if guard.is_cut() || matches!(outcome, Err(Error::Idle | Error::NotPermitted { .. })) {
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

    fn is_over(&self) -> bool {
        self.proof.until.is_some_and(|until| self.inner.clock.now() >= until)
    }

    /// Resolves at the end of the grant or ticket, for a listener who takes nothing for a while.
    async fn time_is_up(&self) {
        while !self.is_over() {
            tokio::time::sleep(LOOK).await;
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
            if let Some(Paced { pace, rate }) = &self.paced {
                pace.wait(chunk.len(), *rate).await;
            }
            if self.is_over() {
                return Err(run_out());
            }
            match self.sender.send_timeout(Ok(Bytes::copy_from_slice(chunk)), SILENCE).await {
                Ok(()) => {}
                Err(SendTimeoutError::Timeout(_)) => return Err(Error::Idle),
                Err(SendTimeoutError::Closed(_)) => return Ok(false),
            }
        }
        Ok(true)
    }
}
