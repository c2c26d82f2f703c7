//! A call comes in: the front half, which the sender's stream talks to. The back half, [`super::track`], owns the keys,
//! seals slices and puts them.
//!
//! # One client id, one recording
//!
//! A client id is looked up in every live client-id period of its tenant, under a lock that two streams with the same
//! client id share; the create that follows writes the id's row, the recording's entry, its facts and its first object id
//! in one command. So a retry finds either nothing or all of it, and a crash in between leaves nothing.
//!
//! # What is acknowledged
//!
//! `Opened` goes out after the create is durable; so no frame is acknowledged before it. A resumed stream goes on from
//! what is *kept* (slices, then journal frames without a gap), not from what was sent.

use super::{
    Error, Finish, Inner, Mode, Open, Opened, Progress, Vault, audio,
    sessions::Guard,
    tenants::invalid,
    track::{Ended, Job, Queues, Track, Written},
    values,
};
use crate::{
    crypto::{
        envelope,
        label::{Label, derive},
        random,
        secret::Secret,
    },
    domain::{
        id::{ObjectId, PeriodHandle, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
        media,
        time::{Day, Timestamp},
    },
    journal::{CallWriter, FrameKind},
    keys::{Change, CommitError, Mutation, Owner, Parts, Purpose, RecordingPath, ValueName},
    proto::stored,
    segment::{MAX_SLICE, SliceBuffer},
};
use bytes::Bytes;
use ring::digest;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, watch};
use zeroize::Zeroizing;

/// Bytes from the start of a recording that tell its rate.
const HEAD_LEN: usize = 4096;
/// Most plaintext in one journal frame: what a slow disk syncs in one go.
const MAX_FRAME: usize = 64 << 10;
/// How far a start may lie ahead of our clock.
const MAX_AHEAD_MS: i64 = 5 * 60 * 1000;
/// How long Finish of a resumed live call may take to read back what is kept.
const DIGEST_LIMIT: Duration = Duration::from_secs(10);
/// Least memory asked for at a time.
const MIN_GRANT: usize = 64 << 10;

/// A recording that takes audio. Dropped without [`Ingest::finish`], its caller has vanished.
pub struct Ingest {
    inner: Arc<Inner>,
    opened: Opened,
    path: RecordingPath,
    row: RowId,
    media_type: String,
    received: u64,
    /// Of everything received; none after a resume, when it is taken again from what is kept.
    digest: Option<digest::Context>,
    head: Zeroizing<Vec<u8>>,
    intake: Intake,
    jobs: mpsc::Sender<Job>,
    written: mpsc::Sender<Written>,
    progress: watch::Receiver<Progress>,
    ended: watch::Receiver<Option<Ended>>,
}

enum Intake {
    Spooled {
        filling: Option<Filling>,
        length_hint: Option<u64>,
    },
    Live {
        writer: SharedWriter,
    },
    /// Finish was accepted: nothing more comes.
    Closed,
}

/// A slice that fills.
pub(crate) struct Filling {
    pub buffer: SliceBuffer,
    /// Plaintext this slice may hold: what memory was granted for.
    room: usize,
    pub memory: OwnedSemaphorePermit,
}

/// The frame key of a live call. The track takes it away when the session is cut.
pub(crate) type SharedWriter = Arc<Mutex<Option<CallWriter>>>;

impl Vault {
    /// Opens a recording, or takes up one that this client id opened before.
    ///
    /// # Errors
    /// `Invalid` names the field; `Unknown` tenant; `Erased` for a client id whose recording was erased; `JournalFull`.
    pub async fn record(&self, open: Open) -> Result<Ingest, Error> {
        let inner = self.0.clone();
        // Runs to its end though the caller may go: a recording that was made always has a track, which notices.
        let opening = self.0.tasks.spawn(async move { inner.open_recording(open).await });
        opening.await.unwrap_or_else(|failed| Err(Error::Internal(failed.to_string())))
    }
}

/// What a client id's row leads to.
struct Found {
    handle: RecordingHandle,
    period: PeriodHandle,
    period_row: RowId,
}

/// Bounds on what a stream states at Open; gives the start.
fn check(open: &Open, now: Timestamp, window_days: u32) -> Result<Timestamp, Error> {
    let text = |field, value: &str, most: usize, least: usize| {
        if value.len() < least || value.len() > most || value.chars().any(char::is_control) {
            Err(invalid(field, format!("send {least} to {most} bytes of text without control characters")))
        } else {
            Ok(())
        }
    };
    text("subscriber", &open.subscriber, 256, 1)?;
    text("facts.call_id", &open.facts.call_id, 256, 0)?;
    text("facts.purpose", &open.facts.purpose, 256, 0)?;
    text("facts.basis", &open.facts.basis, 256, 0)?;
    if open.facts.parties.len() > 64 || open.facts.labels.len() > 64 {
        return Err(invalid("facts", "send at most 64 parties and 64 labels".to_owned()));
    }
    for party in &open.facts.parties {
        text("facts.parties", party, 256, 1)?;
    }
    for (label, value) in &open.facts.labels {
        text("facts.labels", label, 64, 1)?;
        text("facts.labels", value, 1024, 0)?;
    }
    if !media::validate_media_type(&open.media_type) {
        return Err(invalid("media_type", "send an RFC 6838 media type, such as `audio/wav`".to_owned()));
    }
    if !(16..=64).contains(&open.client_id.len()) {
        return Err(invalid("client_id", "send 16 to 64 random bytes, drawn once per recording".to_owned()));
    }
    let start = open.start.unwrap_or(now);
    if start > now.plus_ms(MAX_AHEAD_MS) {
        return Err(invalid(
            "start_ms",
            "lies over 5 minutes ahead of the gateway's clock; set the sender's".to_owned(),
        ));
    }
    if start < now.plus_ms(-i64::from(window_days) * 86_400_000) {
        return Err(invalid("start_ms", format!("lies over {window_days} days back, beyond what client ids cover")));
    }
    Ok(start)
}

impl Inner {
    async fn open_recording(self: &Arc<Self>, open: Open) -> Result<Ingest, Error> {
        self.running()?;
        let now = self.clock.now();
        let start = check(&open, now, self.config.client_window_days)?;
        let tenant = self.find_tenant(&open.tenant)?;

        let lock = digest::digest(&digest::SHA256, &[open.tenant.as_bytes(), &[0], &open.client_id].concat());
        let lock = lock.as_ref().first().copied().map_or(0, usize::from) % self.client_locks.len();
        let _alone = self.client_locks[lock].lock().await;

        match self.find_client(tenant, &open.client_id)? {
            Some(found) => self.resume(open, tenant, found).await,
            None => self.create(open, tenant, start, now).await,
        }
    }

    /// Looks a client id up in every live period.
    fn find_client(&self, tenant: TenantHandle, client_id: &[u8]) -> Result<Option<Found>, Error> {
        for period in self.keys.periods(tenant) {
            if period.purpose != Purpose::ClientIds {
                continue;
            }
            let Some(holder) = self.keys.period(tenant, period.handle)? else { continue };
            let (name, secret) = client_row(holder.row, &holder.secret, client_id);
            if let Some(bytes) = self.keys.value(&name)? {
                let entry: stored::ClientEntry = values::open(&bytes, &secret, &name)?;
                let handle = RecordingHandle::from_slice(&entry.handle)
                    .ok_or_else(|| Error::Corrupt("a client id's row".to_owned()))?;
                return Ok(Some(Found { handle, period: period.handle, period_row: holder.row }));
            }
        }
        Ok(None)
    }

    /// The period of a purpose and day, made when it is missing.
    pub(crate) async fn period(
        &self,
        tenant: TenantHandle,
        purpose: Purpose,
        day: Day,
    ) -> Result<(PeriodHandle, RowId, Secret), Error> {
        let existing = || -> Result<_, Error> {
            let found = self.keys.periods(tenant).into_iter().find(|p| p.purpose == purpose && p.day == day);
            let Some(period) = found else { return Ok(None) };
            Ok(self.keys.period(tenant, period.handle)?.map(|holder| (period.handle, holder.row, holder.secret)))
        };
        if let Some(period) = existing()? {
            return Ok(period);
        }
        let _alone = self.period_lock.lock().await;
        if let Some(period) = existing()? {
            return Ok(period);
        }
        let (period, row, secret) = (PeriodHandle(random()), RowId(random()), Secret::random());
        let kept = secret.duplicate();
        let change = Change::AddPeriod { tenant, period, row, secret, purpose, day };
        self.keys.commit(Mutation { changes: vec![change] }).await.map_err(|error| match error {
            CommitError::Gone => Error::Unknown { what: "tenant" },
            other => other.into(),
        })?;
        Ok((period, row, kept))
    }

    /// The subscriber of this name, provisioned when it is new.
    async fn provision(&self, tenant: TenantHandle, name: &str) -> Result<SubscriberHandle, Error> {
        loop {
            if let Some(subscriber) = self.keys.find_subscriber(tenant, name) {
                return Ok(subscriber);
            }
            let subscriber = SubscriberHandle(random());
            let change = Change::AddSubscriber {
                tenant,
                subscriber,
                row: RowId(random()),
                secret: Secret::random(),
                name: name.to_owned(),
            };
            match self.keys.commit(Mutation { changes: vec![change] }).await {
                Ok(_) => return Ok(subscriber),
                // Another stream was first: its subscriber is found now.
                Err(CommitError::Exists) => {}
                Err(CommitError::Gone) => return Err(Error::Unknown { what: "tenant" }),
                Err(other) => return Err(other.into()),
            }
        }
    }

    async fn create(
        self: &Arc<Self>,
        open: Open,
        tenant: TenantHandle,
        start: Timestamp,
        now: Timestamp,
    ) -> Result<Ingest, Error> {
        if open.mode == Mode::Live {
            self.journal.admit().map_err(|_| Error::JournalFull)?;
        }
        let (settings, holder) = self.settings(tenant)?;
        let subscriber = self.provision(tenant, &open.subscriber).await?;
        let (period, period_row, period_secret) = self.period(tenant, Purpose::ClientIds, now.day()).await?;

        let path = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
        let guard = self.sessions.enter_ingest(path).ok_or(Error::TakenOver)?;
        let (row, object) = (RowId(random()), ObjectId(random()));
        let (audio, facts) = (Secret::random(), Secret::random());
        let facts_row = stored::Facts {
            kind: open.kind as u32,
            parties: open.facts.parties,
            call_id: open.facts.call_id,
            labels: open.facts.labels.into_iter().collect(),
            purpose: open.facts.purpose,
            basis: open.facts.basis,
            start_ms: start.0,
            end_ms: 0,
            length: 0,
            duration_seconds: None,
            state: 1,
            mismatch: false,
        };
        let audio_row = stored::Audio {
            media_type: open.media_type.clone(),
            state: 1,
            sha256: Vec::new(),
            length: 0,
            mismatch: false,
            mode: match open.mode {
                Mode::Spooled => 1,
                Mode::Live => 2,
            },
        };
        let facts_name = values::name(row, envelope::Kind::Facts);
        let audio_name = values::name(row, envelope::Kind::Audio);
        let open_name = values::name_with(period_row, envelope::Kind::Open, &row.0);
        let open_entry = stored::OpenEntry { subscriber: subscriber.0.to_vec(), handle: path.recording.0.to_vec() };
        let (client_name, client_secret) = client_row(period_row, &period_secret, &open.client_id);
        let client_entry = stored::ClientEntry { handle: path.recording.0.to_vec() };
        let put = |owner, name: &ValueName, envelope| Change::PutValue { owner, name: name.clone(), envelope };
        let changes = vec![
            Change::AddRecording {
                at: path,
                row,
                kind: open.kind as u8,
                audio: audio.duplicate(),
                facts: facts.duplicate(),
                objects: vec![object],
            },
            put(Owner::Facts(path), &facts_name, values::seal(&facts_row, &facts, &facts_name)),
            put(Owner::Audio(path), &audio_name, values::seal(&audio_row, &audio, &audio_name)),
            put(Owner::Period(tenant, period), &client_name, values::seal(&client_entry, &client_secret, &client_name)),
            put(Owner::Period(tenant, period), &open_name, values::seal(&open_entry, &period_secret, &open_name)),
        ];
        self.keys.commit(Mutation { changes }).await?;

        let opened = Opened {
            id: super::recording_id::issue(&holder.secret, subscriber, path.recording),
            resume_offset: 0,
            already_finished: false,
        };
        let track = Track {
            inner: self.clone(),
            path,
            row,
            audio: Some(audio),
            facts: Some(facts),
            facts_row,
            audio_row,
            settings,
            open_row: (open_name, period),
            client_row: client_name,
            next_ordinal: 0,
            stored: 0,
            next_object: object,
        };
        Ok(self.start(track, guard, opened, open.mode, open.length_hint))
    }

    async fn resume(self: &Arc<Self>, open: Open, tenant: TenantHandle, found: Found) -> Result<Ingest, Error> {
        let Some(subscriber) = self.keys.find_subscriber(tenant, &open.subscriber) else {
            // The client id was issued here, and its subscriber is no more.
            return Err(Error::Erased);
        };
        let path = RecordingPath { tenant, subscriber, recording: found.handle };
        let Some(guard) = self.sessions.take_over(path).await else {
            return Err(Error::Internal("the stream before did not end when it was cut".to_owned()));
        };
        // The stream before may have been cut while its last command waited for the writer. This one waits behind it, so
        // that what is read below is what that command left.
        self.keys.commit(Mutation { changes: Vec::new() }).await?;
        let holder = self.tenant_holder(tenant)?;
        let id = super::recording_id::issue(&holder.secret, subscriber, path.recording);
        let period_secret = self.keys.period(tenant, found.period)?.map(|holder| holder.secret).ok_or(Error::Erased)?;
        let (client_name, _) = client_row(found.period_row, &period_secret, &open.client_id);
        let Some(mut track) = Track::take_up(self, path, (found.period, found.period_row), client_name)? else {
            return Err(Error::Erased);
        };
        let mode = if track.audio_row.mode == 2 { Mode::Live } else { Mode::Spooled };
        if mode != open.mode {
            return Err(invalid("mode", "this client id began a recording in the other mode; keep to it".to_owned()));
        }
        if track.audio_row.state == 3 {
            let opened = Opened { id, resume_offset: track.audio_row.length, already_finished: true };
            let finished = super::Finished { length: track.audio_row.length, mismatch: track.audio_row.mismatch };
            return Ok(Ingest::finished_before(self, track, opened, finished));
        }
        track.reopen().await?;
        let kept = audio::end_of(&self.pieces(track.row, track.audio_secret()?)?);
        // The digest of a file is checked whatever happened on the way. A live call is not kept waiting for S3 here.
        let (digest, head) = match mode {
            Mode::Spooled => {
                let (digest, head) = self.digest_kept(track.row, track.audio_secret()?, kept).await?;
                (Some(digest), head)
            }
            Mode::Live => (None, Zeroizing::new(Vec::new())),
        };
        let opened = Opened { id, resume_offset: kept, already_finished: false };
        let mut ingest = self.start(track, guard, opened, mode, open.length_hint);
        (ingest.digest, ingest.head) = (digest, head);
        Ok(ingest)
    }

    /// Digest and head of the first `below` bytes of what is kept.
    async fn digest_kept(
        &self,
        row: RowId,
        audio: &Secret,
        below: u64,
    ) -> Result<(digest::Context, Zeroizing<Vec<u8>>), Error> {
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut head = Zeroizing::new(Vec::new());
        let mut at = 0;
        for piece in self.pieces(row, audio)? {
            let range = piece.at.start..piece.at.end.min(below);
            if range.is_empty() {
                break;
            }
            at = range.end;
            let bytes = self.read_kept(row, audio, &piece, range).await?;
            let room = HEAD_LEN.saturating_sub(head.len()).min(bytes.len());
            head.extend_from_slice(&bytes[..room]);
            digest.update(&bytes);
        }
        if at == below {
            Ok((digest, head))
        } else {
            Err(Error::Internal("what was kept is not all readable".to_owned()))
        }
    }

    /// Starts the back half and gives the front half.
    fn start(
        self: &Arc<Self>,
        track: Track,
        guard: Guard,
        opened: Opened,
        mode: Mode,
        length_hint: Option<u64>,
    ) -> Ingest {
        // One slice waits while another is put and a third fills.
        let (jobs, queued_jobs) = mpsc::channel(1);
        // Frames whose sync is awaited.
        let (written, queued_frames) = mpsc::channel(64);
        let queues = Queues { jobs: queued_jobs, written: queued_frames };
        let (progress, watched) =
            watch::channel(Progress { journaled: opened.resume_offset, stored: track.stored, ..Progress::default() });
        let (ended, ending) = watch::channel(None);
        let (path, row, media_type) = (track.path, track.row, track.audio_row.media_type.clone());
        let intake = match mode {
            Mode::Spooled => Intake::Spooled {
                filling: None,
                length_hint: length_hint.map(|hint| hint.saturating_sub(opened.resume_offset)),
            },
            Mode::Live => {
                let writer = track.audio.as_ref().map(|audio| self.journal.call(row, audio));
                Intake::Live { writer: Arc::new(Mutex::new(writer)) }
            }
        };
        let writer = match &intake {
            Intake::Live { writer } => Some(writer.clone()),
            _ => None,
        };
        self.tasks.spawn(track.run(guard, writer, queues, progress, ended));
        Ingest {
            inner: self.clone(),
            opened,
            path,
            row,
            media_type,
            received: opened.resume_offset,
            digest: Some(digest::Context::new(&digest::SHA256)),
            head: Zeroizing::new(Vec::new()),
            intake,
            jobs,
            written,
            progress: watched,
            ended: ending,
        }
    }
}

/// Name and secret of a client id's row. Only somebody who presents the client id finds or opens it.
fn client_row(period_row: RowId, period: &Secret, client_id: &[u8]) -> (ValueName, Secret) {
    let suffix = derive::<16>(period.expose(), Label::ClientRow, &[client_id]);
    let secret = Secret::from_bytes(&derive(period.expose(), Label::ClientSecret, &[client_id]));
    (values::name_with(period_row, envelope::Kind::Client, suffix.as_slice()), secret)
}

impl Ingest {
    /// A recording that an earlier stream finished: nothing is taken, and progress says so.
    fn finished_before(inner: &Arc<Inner>, track: Track, opened: Opened, finished: super::Finished) -> Self {
        let length = finished.length;
        let (_, progress) = watch::channel(Progress {
            journaled: length,
            stored: length,
            finish_journaled: true,
            finished: Some(finished),
        });
        let (_, ended) = watch::channel(Some(Ended::Finished));
        let (jobs, _) = mpsc::channel(1);
        let (written, _) = mpsc::channel(1);
        Self {
            inner: inner.clone(),
            opened,
            path: track.path,
            row: track.row,
            media_type: String::new(),
            received: length,
            digest: None,
            head: Zeroizing::new(Vec::new()),
            intake: Intake::Closed,
            jobs,
            written,
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

    /// How long the sender may be silent now. One that holds memory keeps everybody else from it.
    pub fn patience(&self) -> Option<Duration> {
        let holds = matches!(&self.intake, Intake::Spooled { filling: Some(_), .. });
        holds.then_some(self.inner.config.sender_timeout)
    }

    fn why_ended(&self) -> Error {
        self.ended.borrow().clone().map_or(Error::Stopping, Ended::into_error)
    }

    /// Takes audio. Waits while memory or the journal is behind: that is the sender's back-pressure.
    ///
    /// # Errors
    /// `Invalid` for a gap; what cut the recording otherwise.
    pub async fn data(&mut self, offset: u64, content: Bytes) -> Result<(), Error> {
        if offset > self.received {
            return Err(invalid("data.offset", format!("leaves a gap; the next byte is {}", self.received)));
        }
        // What lies below was kept already: a sender that resumed may send it again.
        let known = (self.received - offset).min(content.len() as u64) as usize;
        let mut content = &content[known..];
        while !content.is_empty() {
            let taken = match &mut self.intake {
                Intake::Spooled { filling, .. } => match filling {
                    Some(slice) if slice.buffer.len() < slice.room => {
                        let most = content.len().min(slice.room - slice.buffer.len());
                        slice.buffer.push(&content[..most])
                    }
                    _ => {
                        self.next_slice(content.len()).await?;
                        continue;
                    }
                },
                Intake::Live { writer } => {
                    let frame = &content[..content.len().min(MAX_FRAME)];
                    let mut writer = writer.lock().await;
                    let Some(open) = writer.as_mut() else {
                        drop(writer);
                        return Err(self.why_ended());
                    };
                    let pending = open.enqueue(FrameKind::Audio, self.received, frame).await.map_err(journal_failed)?;
                    drop(writer);
                    let written = Written::Audio(pending, self.received + frame.len() as u64);
                    self.written.send(written).await.map_err(|_| self.why_ended())?;
                    frame.len()
                }
                Intake::Closed => return Err(invalid("data", "comes after Finish; nothing more is taken".to_owned())),
            };
            let (frame, rest) = content.split_at(taken);
            if let Some(digest) = &mut self.digest {
                digest.update(frame);
            }
            if self.received == self.head.len() as u64 {
                let room = HEAD_LEN - self.head.len();
                self.head.extend_from_slice(&frame[..frame.len().min(room)]);
            }
            self.received += taken as u64;
            content = rest;
        }
        Ok(())
    }

    /// Sends the full slice on and asks for memory for the next one.
    async fn next_slice(&mut self, at_hand: usize) -> Result<(), Error> {
        let Intake::Spooled { filling, length_hint } = &mut self.intake else { return Ok(()) };
        if let Some(full) = filling.take() {
            if let Some(hint) = length_hint {
                *hint = hint.saturating_sub(full.buffer.len() as u64);
            }
            // The caller's loop comes back here for the next one.
            let sent = self.jobs.send(Job::Slice(full)).await;
            sent.map_err(|_| self.why_ended())?;
            return Ok(());
        }
        // The hint saves memory for short files. One that was too small costs a further slice, and nothing else.
        let expected = length_hint.filter(|hint| *hint > 0).unwrap_or(MAX_SLICE as u64).min(MAX_SLICE as u64) as usize;
        let room = expected.max(at_hand).clamp(MIN_GRANT, MAX_SLICE);
        let grants = (crate::segment::object_len(room as u64) as usize).div_ceil(super::GRANT) as u32;
        let mut ended = self.ended.clone();
        let memory = tokio::select! {
            memory = self.inner.memory.clone().acquire_many_owned(grants) => memory.map_err(|_| Error::Stopping)?,
            _ = ended.wait_for(Option::is_some) => return Err(self.why_ended()),
        };
        *filling = Some(Filling { buffer: SliceBuffer::with_room(room), room, memory });
        Ok(())
    }

    /// Takes the stated length and digest and closes the recording. Returns once that is accepted; `progress` shows the
    /// rest.
    ///
    /// # Errors
    /// `Mismatch` for a spooled recording: it is gone, its key destroyed. `Invalid` for one without a byte.
    pub async fn finish(&mut self, finish: Finish) -> Result<(), Error> {
        if let Some(progress) = self.progress.borrow().finished {
            // A retry of Finish after the answer was lost.
            return if progress.length == finish.length { Ok(()) } else { Err(self.mismatch("length")) };
        }
        let live = match &self.intake {
            Intake::Live { .. } => true,
            Intake::Spooled { .. } => false,
            Intake::Closed => return Err(invalid("finish", "came twice".to_owned())),
        };
        if self.received == 0 {
            self.forget().await?;
            return Err(invalid("finish.length", "no audio arrived; a recording has at least one byte".to_owned()));
        }
        let computed = match self.digest.take() {
            Some(digest) => Some(digest.finish()),
            None => self.digest_of_kept().await,
        };
        let length_differs = finish.length != self.received;
        let digest_differs =
            matches!((&computed, finish.sha256), (Some(ours), Some(stated)) if ours.as_ref() != stated.as_slice());
        if !live && (length_differs || digest_differs) {
            self.forget().await?;
            return Err(self.mismatch(if length_differs { "length" } else { "sha256" }));
        }
        let duration = media::layout(&self.media_type, &self.head).map(|layout| layout.duration(self.received));
        let stated = stored::FinishFrame {
            length: self.received,
            sha256: computed.map_or_else(Vec::new, |digest| digest.as_ref().to_vec()),
            end_ms: finish.end.unwrap_or_else(|| self.inner.clock.now()).0,
            mismatch: length_differs || digest_differs,
            duration_seconds: duration,
        };
        let job = match std::mem::replace(&mut self.intake, Intake::Closed) {
            Intake::Spooled { filling, .. } => Job::FinishSpooled(filling, stated),
            Intake::Live { writer } => {
                let frame = Zeroizing::new(prost::Message::encode_to_vec(&stated));
                let mut writer = writer.lock().await;
                let Some(open) = writer.as_mut() else {
                    drop(writer);
                    return Err(self.why_ended());
                };
                let pending = open.enqueue(FrameKind::Finish, self.received, &frame).await.map_err(journal_failed)?;
                drop(writer);
                self.written.send(Written::Finish(pending)).await.map_err(|_| self.why_ended())?;
                Job::FinishLive(stated)
            }
            Intake::Closed => return Ok(()),
        };
        self.jobs.send(job).await.map_err(|_| self.why_ended())
    }

    /// Forgets the recording while it runs. A later retry of its client id is told that it was erased.
    ///
    /// # Errors
    /// What cut the recording before.
    pub async fn discard(mut self) -> Result<(), Error> {
        self.jobs.send(Job::Discard { forget_client: false }).await.map_err(|_| self.why_ended())?;
        self.gone().await
    }

    /// Destroys what arrived so that the same client id can send it again.
    async fn forget(&mut self) -> Result<(), Error> {
        self.intake = Intake::Closed;
        self.jobs.send(Job::Discard { forget_client: true }).await.map_err(|_| self.why_ended())?;
        self.gone().await
    }

    async fn gone(&mut self) -> Result<(), Error> {
        match self.ended.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(Ended::Discarded { .. })) => Ok(()),
            Ok(Some(other)) => Err(other.into_error()),
            Ok(None) | Err(_) => Err(Error::Stopping),
        }
    }

    fn mismatch(&self, field: &'static str) -> Error {
        Error::Mismatch { field, received: self.received }
    }

    /// Takes digest and head of a resumed live call from what is kept. A call does not wait for S3 to be told that it may
    /// hang up: where S3 is away, digest and duration stay unknown.
    async fn digest_of_kept(&mut self) -> Option<digest::Digest> {
        let mut progress = self.progress.clone();
        let received = self.received;
        progress.wait_for(|progress| progress.journaled.max(progress.stored) >= received).await.ok()?;
        let audio = self.inner.keys.audio_leaf(self.path).ok()??.audio?;
        let taken = self.inner.digest_kept(self.row, &audio, received);
        let (digest, head) = tokio::time::timeout(DIGEST_LIMIT, taken).await.ok()?.ok()?;
        self.head = head;
        Some(digest.finish())
    }
}

fn journal_failed(error: crate::journal::WriteError) -> Error {
    match error {
        crate::journal::WriteError::NoSpace => Error::JournalFull,
        crate::journal::WriteError::Closed => Error::Stopping,
        other => Error::Internal(other.to_string()),
    }
}

/// The parts of an erasure that takes all of a recording.
pub(crate) const BOTH: Parts = Parts { audio: true, facts: true };
