//! The back half of an ingest: owns the recording's secrets while it takes audio, seals slices, puts them, lists them.
//!
//! # Order, and what a crash leaves
//!
//! 1. The next slice's object id is in the recording's entry (by the create, or by the row that listed the slice before).
//! 2. The slice is sealed, in an epoch of its own, and put. Every retry of the network sends the same bytes.
//! 3. One command lists the slice, names the next object id, and queues the copy for the second region.
//! 4. Where there is a backup, it has the command, and with it the create of the recording and all keys above.
//! 5. `stored` moves; the journal lets go of what the slice holds.
//!
//! A crash before 3 leaves an object that is named and not listed: [`Track::take_up`] dooms every such id and names a
//! fresh one, so that bytes that were sealed twice never share an object id, and a put that arrives late changes nothing
//! that is listed. A crash after 3 leaves journal frames below `stored`, which reading passes over.
//!
//! # Cut
//!
//! [`Track::run`] drops everything it does at the moment it is cut, then the writer of the front half and both secrets,
//! and leaves its guard last.

use super::{
    Error, Finished, Inner, Progress, Residency,
    audio::{self, Source},
    clearance::Blocked,
    discard::Discarding,
    ingest::{Filling, SharedDesk},
    sessions::{Cut, Guard},
    tenants::Settings,
    timeline::{self, Command, Timekeeper},
    values,
};
use crate::{
    crypto::{envelope, random, secret::Secret},
    domain::{
        id::{ObjectId, PeriodHandle, RowId},
        time::Timestamp,
    },
    journal::Pending,
    keys::{Change, CommitError, Mutation, Owner, Purpose, RecordingPath, ValueName},
    object::StoreError,
    proto::stored::{self, FinishFrame},
    segment::{MAX_SLICE, SliceBuffer},
};
use bytes::Bytes;
use ring::digest;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::Instant,
};
use zeroize::Zeroizing;

/// What the front half asks for.
pub(crate) enum Job {
    /// A full slice of a spooled recording.
    Slice(Filling),
    /// The rest of a spooled recording.
    FinishSpooled(Option<Filling>, FinishFrame),
    /// The rest of a live one lies in the journal, or is on its way there.
    FinishLive(FinishFrame),
    /// Take digest and head of the first bytes again from what is kept. None where that cannot be had soon.
    Digest { below: u64, reply: oneshot::Sender<Option<(digest::Context, Zeroizing<Vec<u8>>)>> },
}

/// A frame on its way to the journal.
pub(crate) enum Written {
    /// Audio, and where it ends.
    Audio(Pending, u64),
    /// Finish.
    Finish(Pending),
}

/// The queues of a track.
pub(crate) struct Queues {
    pub jobs: mpsc::Receiver<Job>,
    /// Apart from the jobs, so that an acknowledgement never waits for S3.
    pub written: mpsc::Receiver<Written>,
    /// The same for what the sender orders.
    pub commands: mpsc::Receiver<Box<Command>>,
}

/// How a track ended.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    Finished,
    Discarded(Discarding),
    /// A Discard that something stands in the way of: what arrived is kept, and parked where it is held.
    Kept(Blocked),
    /// Its caller did not come back.
    Partial,
    Cut(Cut),
    Storage(String),
    Failed(String),
}

impl Ended {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Ended::Cut(cut) => cut.into(),
            Ended::Partial => Error::TakenOver,
            Ended::Discarded(_) => Error::Erased,
            Ended::Kept(stands) => stands.into_error(),
            Ended::Storage(why) => Error::Storage(why),
            Ended::Failed(why) => Error::Internal(why),
            Ended::Finished => super::tenants::invalid("finish", "the recording is finished".to_owned()),
        }
    }

    fn from_error(error: Error) -> Self {
        match error {
            Error::Erased => Ended::Cut(Cut::Erased),
            Error::Stopping => Ended::Cut(Cut::Stopping),
            Error::Storage(why) => Ended::Storage(why),
            other => Ended::Failed(other.to_string()),
        }
    }
}

/// A recording that takes audio, and its secrets.
pub(crate) struct Track {
    pub inner: Arc<Inner>,
    pub path: RecordingPath,
    pub row: RowId,
    /// Left last.
    pub guard: Guard,
    /// None once the track has been cut.
    pub audio: Option<Secret>,
    /// None when the facts were erased apart, too.
    pub facts: Option<Secret>,
    pub facts_row: stored::Facts,
    pub audio_row: stored::Audio,
    pub settings: Settings,
    /// The row that says that this recording is open, and the period it lies under.
    pub open_row: (ValueName, PeriodHandle),
    pub client_row: ValueName,
    pub next_ordinal: u32,
    pub stored: u64,
    /// Durable in the recording's entry; used by no put so far.
    pub next_object: ObjectId,
}

/// How long a sender of a file may be silent while a slice fills.
const IDLE: Duration = Duration::from_secs(10);
/// How long Finish of a resumed live call may take to read back what is kept.
const DIGEST_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries of a put for a live call, which nobody else has.
const RETRY: Duration = Duration::from_secs(1);

impl Track {
    /// Takes up a recording that exists. None when its audio, or all of it, was erased.
    pub(crate) fn take_up(
        inner: &Arc<Inner>,
        guard: Guard,
        (period, period_row): (PeriodHandle, RowId),
        client_row: ValueName,
    ) -> Result<Option<Self>, Error> {
        let path = guard.path();
        let Some(leaf) = inner.keys.audio_leaf(path)? else { return Ok(None) };
        let Some(audio) = leaf.audio else { return Ok(None) };
        let facts = inner.keys.facts_leaf(path)?.and_then(|leaf| leaf.facts);
        let (settings, _) = inner.settings(path.tenant)?;
        let audio_row = values::read(&inner.keys, leaf.row, &audio)?
            .ok_or_else(|| Error::Corrupt("a recording without its audio row".to_owned()))?;
        let facts_row = match &facts {
            Some(facts) => values::read(&inner.keys, leaf.row, facts)?.unwrap_or_default(),
            None => stored::Facts::default(),
        };
        let slices = inner.slices(leaf.row, &audio)?;
        Ok(Some(Self {
            inner: inner.clone(),
            path,
            row: leaf.row,
            guard,
            audio: Some(audio),
            facts,
            facts_row,
            audio_row,
            settings,
            open_row: (values::name_with(period_row, envelope::Kind::Open, &leaf.row.0), period),
            client_row,
            next_ordinal: slices.len() as u32,
            stored: slices.iter().map(|slice| slice.expected.length).sum(),
            next_object: ObjectId(random()),
        }))
    }

    /// Makes a recording that was taken up ready to take audio: ids that were named and never listed are doomed, a fresh
    /// one is named, and the rows say that it is open.
    pub(crate) async fn reopen(&mut self) -> Result<(), Error> {
        let mut changes = self.doom_unlisted()?;
        changes.push(Change::AddObject { at: self.path, object: self.next_object });
        self.audio_row.state = 1;
        self.facts_row.state = 1;
        changes.extend(self.put_rows()?);
        let inner = self.inner.clone();
        let _keeping = inner.keeping.read().await;
        changes.push(inner.keep_running(self.path)?);
        let (name, period) = &self.open_row;
        let secret = self.inner.keys.period(self.path.tenant, *period)?.ok_or(Error::Erased)?.secret;
        let entry =
            stored::OpenEntry { subscriber: self.path.subscriber.0.to_vec(), handle: self.path.recording.0.to_vec() };
        changes.push(Change::PutValue {
            owner: Owner::Period(self.path.tenant, *period),
            name: name.clone(),
            envelope: values::seal(&entry, &secret, name),
        });
        self.inner.keys.commit(Mutation::new(changes)).await?;
        self.inner.sweep_wake.notify_one();
        Ok(())
    }

    /// Dooms the objects that were named and never listed: their put failed, was cut off, or never began.
    fn doom_unlisted(&self) -> Result<Vec<Change>, Error> {
        let listed: HashSet<ObjectId> =
            self.inner.slices(self.row, self.audio_secret()?)?.into_iter().map(|slice| slice.object).collect();
        let named = self.inner.keys.audio_leaf(self.path)?.ok_or(Error::Erased)?.objects;
        let unlisted = named.into_iter().filter(|object| !listed.contains(object));
        Ok(unlisted.map(|object| Change::DoomObject { at: self.path, object }).collect())
    }

    /// The audio secret, while the track has not been cut.
    pub(crate) fn audio_secret(&self) -> Result<&Secret, Error> {
        self.audio.as_ref().ok_or(Error::Erased)
    }

    /// Runs until the recording ends or is cut.
    pub(crate) async fn run(
        mut self,
        desk: SharedDesk,
        mut queues: Queues,
        mut timekeeper: Timekeeper,
        progress: watch::Sender<Progress>,
        ended: watch::Sender<Option<Ended>>,
    ) {
        let cut = self.guard.listener();
        let outcome = tokio::select! {
            biased;
            cut = Guard::heard(cut.clone()) => Ended::Cut(cut),
            Err(error) = acknowledge(&mut queues.written, &progress) => Ended::from_error(error),
            outcome = timekeeper.run(&mut queues.commands, progress.subscribe()) => outcome.unwrap_or_else(Ended::from_error),
            outcome = self.work(&mut queues.jobs, &desk, &progress) => outcome.unwrap_or_else(Ended::from_error),
        };
        drop((queues, timekeeper));
        desk.lock().await.clear();
        let outcome = match outcome {
            // The sender hears of it at once; the recording waits for its return like that of any other sender.
            Ended::Storage(_) => {
                ended.send_replace(Some(outcome));
                drop(progress);
                let (unheard, _) = watch::channel(Progress::default());
                tokio::select! {
                    biased;
                    cut = Guard::heard(cut.clone()) => Ended::Cut(cut),
                    outcome = self.linger(&unheard) => outcome.unwrap_or_else(Ended::from_error),
                }
            }
            other => other,
        };
        self.leave(outcome, &ended).await;
    }

    /// Goes on with a recording that was left open, without a caller.
    pub(crate) async fn run_orphan(mut self) {
        let (progress, _) = watch::channel(Progress::default());
        let (ended, _) = watch::channel(None);
        let cut = self.guard.listener();
        let work = async {
            self.reopen().await?;
            self.linger(&progress).await
        };
        let outcome = tokio::select! {
            biased;
            cut = Guard::heard(cut) => Ended::Cut(cut),
            outcome = work => outcome.unwrap_or_else(Ended::from_error),
        };
        self.leave(outcome, &ended).await;
    }

    /// Wipes the secrets, leaves, and says how it ended.
    async fn leave(mut self, outcome: Ended, ended: &watch::Sender<Option<Ended>>) {
        (self.audio, self.facts) = (None, None);
        if let Ended::Storage(why) | Ended::Failed(why) = &outcome {
            tracing::warn!(row = %self.row, why, "a recording stopped taking audio");
        }
        let outcome = match outcome {
            Ended::Discarded(how) => self
                .destroy(&how)
                .await
                .map_or_else(Ended::from_error, |kept| kept.map_or(Ended::Discarded(how), Ended::Kept)),
            other => other,
        };
        // Only now may another stream take the recording up: it must find it gone, not see it go.
        let Self { inner, path, row, open_row, guard, .. } = self;
        drop(guard);
        // Acknowledged audio may wait in the journal, or the audio may outlive the facts: somebody looks after it.
        if matches!(
            outcome,
            Ended::Cut(Cut::Erased | Cut::Withdrawn) | Ended::Kept(_) | Ended::Storage(_) | Ended::Failed(_)
        ) {
            let later = super::recover::adopt_later(inner.clone(), path, row, open_row.1);
            inner.tasks.spawn(later);
        }
        ended.send_replace(Some(outcome));
    }

    async fn work(
        &mut self,
        jobs: &mut mpsc::Receiver<Job>,
        desk: &SharedDesk,
        progress: &watch::Sender<Progress>,
    ) -> Result<Ended, Error> {
        let mut watched = progress.subscribe();
        let mut oldest: Option<Instant> = None;
        loop {
            let journaled = watched.borrow_and_update().journaled;
            if journaled.saturating_sub(self.stored) >= MAX_SLICE as u64 {
                self.store_journaled(self.stored + MAX_SLICE as u64, None, progress).await?;
                oldest = None;
                continue;
            }
            if journaled > self.stored {
                oldest.get_or_insert_with(Instant::now);
            }
            let due = oldest.map(|since| since + self.inner.config.max_unstored);
            let job = tokio::select! {
                job = jobs.recv() => job,
                _ = watched.changed() => continue,
                () = tokio::time::sleep(IDLE) => {
                    // The sender is silent. What it sent becomes a slice, and the memory serves others.
                    let idle = desk.lock().await.take_idle(Instant::now() - IDLE);
                    if let Some(filling) = idle {
                        self.store(filling.buffer, Some(filling.memory), None, progress).await?;
                    }
                    continue;
                }
                () = sleep_until(due), if due.is_some() => {
                    self.store_journaled(journaled, None, progress).await?;
                    oldest = None;
                    continue;
                }
            };
            match job {
                Some(Job::Slice(filling)) => {
                    self.store(filling.buffer, Some(filling.memory), None, progress).await?;
                }
                Some(Job::FinishSpooled(filling, stated)) => {
                    let (buffer, memory) = match filling {
                        Some(filling) => (filling.buffer, Some(filling.memory)),
                        None => (SliceBuffer::new(), None),
                    };
                    self.store(buffer, memory, Some(&stated), progress).await?;
                    return Ok(Ended::Finished);
                }
                Some(Job::FinishLive(stated)) => {
                    watched.wait_for(|progress| progress.finish_journaled).await.map_err(|_| Error::Stopping)?;
                    self.finish_live(&stated, progress).await?;
                    return Ok(Ended::Finished);
                }
                Some(Job::Digest { below, reply }) => {
                    watched
                        .wait_for(|progress| progress.journaled.max(progress.stored) >= below)
                        .await
                        .map_err(|_| Error::Stopping)?;
                    let taken = self.inner.digest_kept(self.row, self.audio_secret()?, below);
                    let taken = tokio::time::timeout(DIGEST_LIMIT, taken).await.ok().and_then(Result::ok);
                    // A caller that has gone does not want it.
                    let _ = reply.send(taken);
                }
                None => return self.linger(progress).await,
            }
        }
    }

    /// Puts what is left of a live recording whose Finish lies in the journal.
    pub(crate) async fn finish_live(
        &mut self,
        stated: &FinishFrame,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Error> {
        while stated.length.saturating_sub(self.stored) > MAX_SLICE as u64 {
            self.store_journaled(self.stored + MAX_SLICE as u64, None, progress).await?;
        }
        self.store_journaled(stated.length, Some(stated), progress).await
    }

    /// The caller has gone: waits for it, then puts what there is and marks the recording partial. A caller that comes back
    /// earlier or later cuts this track or takes the partial recording up.
    pub(crate) async fn linger(&mut self, progress: &watch::Sender<Progress>) -> Result<Ended, Error> {
        // It may have finished before it went, and come back in between: what it was told stands.
        if let Some(stated) = super::recover::finish_frame(&self.inner, self)? {
            return self.finish_live(&stated, progress).await.map(|()| Ended::Finished);
        }
        tokio::time::sleep(self.inner.config.sender_timeout).await;
        let journaled = audio::end_of(&self.inner.pieces(self.row, self.audio_secret()?)?);
        while self.stored < journaled {
            self.store_journaled(journaled.min(self.stored + MAX_SLICE as u64), None, progress).await?;
        }
        self.audio_row.state = 2;
        self.audio_row.length = self.stored;
        self.facts_row.state = 2;
        self.facts_row.length = self.stored;
        self.facts_row.paused_ms = timeline::paused_ms(&self.timeline()?);
        let mut changes = self.put_rows()?;
        let inner = self.inner.clone();
        let _keeping = inner.keeping.read().await;
        changes.push(inner.keep_ended(self.path, self.start(), inner.clock.now(), None)?);
        changes.push(Change::DropValue { name: self.open_row.0.clone() });
        changes.extend(self.doom_unlisted()?);
        self.inner.keys.commit(Mutation::new(changes)).await?;
        self.inner.sweep_wake.notify_one();
        Ok(Ended::Partial)
    }

    /// Seals what lies in the journal between `stored` and `below` as one slice.
    async fn store_journaled(
        &mut self,
        below: u64,
        finish: Option<&FinishFrame>,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Error> {
        let length = below.saturating_sub(self.stored);
        let memory = self.grant(length).await?;
        let mut buffer = SliceBuffer::with_room(length as usize);
        if length > 0 {
            let audio = self.audio_secret()?;
            for piece in self.inner.pieces(self.row, audio)? {
                let range = piece.at.start.max(self.stored)..piece.at.end.min(below);
                if range.is_empty() || matches!(piece.source, Source::Slice(_)) {
                    continue;
                }
                let bytes = self.inner.read_piece(audio, &piece, range).await?;
                buffer.push(&bytes);
            }
            if buffer.len() as u64 != length {
                return Err(Error::Internal("the journal lacks bytes that it acknowledged".to_owned()));
            }
        }
        self.store(buffer, Some(memory), finish, progress).await?;
        self.inner.journal.release(self.row, self.stored);
        if finish.is_some() {
            self.inner.journal.forget(self.row);
        }
        Ok(())
    }

    /// Memory for a slice from the journal: of the share that live calls of this region have for themselves, so that neither
    /// files nor a region that is away keep it from them.
    async fn grant(&self, plaintext: u64) -> Result<OwnedSemaphorePermit, Error> {
        let share = self.inner.live_memory.get(&self.settings.home).unwrap_or(&self.inner.memory);
        share.clone().acquire_many_owned(super::grants(plaintext)).await.map_err(|_| Error::Stopping)
    }

    /// Seals one slice, puts it, lists it. The memory it was granted goes back at the end.
    async fn store(
        &mut self,
        buffer: SliceBuffer,
        memory: Option<OwnedSemaphorePermit>,
        finish: Option<&FinishFrame>,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Error> {
        let sealed = buffer.seal(self.audio_secret()?, self.next_ordinal, finish.is_some());
        let object = self.next_object;
        let region = self.put(object, Bytes::from(sealed.object)).await?;
        drop(memory);

        let listed = stored::Slice {
            object_id: object.0.to_vec(),
            salt: sealed.salt.to_vec(),
            length: sealed.length,
            last: finish.is_some(),
            region: region.clone(),
        };
        let name = values::name_with(self.row, envelope::Kind::Slice, &self.next_ordinal.to_be_bytes());
        let next_object = ObjectId(random());
        let stored = self.stored + sealed.length;
        let inner = self.inner.clone();
        let keeping = match finish {
            Some(_) => Some(inner.keeping.read().await),
            None => None,
        };
        let mut number = 0;
        // A day's counters may close between two tries; anything else that is gone is the recording itself.
        for last_try in [false, true] {
            let mut changes = vec![Change::PutValue {
                owner: Owner::Audio(self.path),
                name: name.clone(),
                envelope: values::seal(&listed, self.audio_secret()?, &name),
            }];
            if self.settings.residency == Residency::Both {
                let others = self.inner.objects.regions().into_iter().filter(|other| *other != region);
                changes.extend(others.map(|to| Change::QueueCopy { object, to }));
            }
            match finish {
                Some(stated) => changes.extend(self.finished_rows(stated, stored, &region).await?),
                None => changes.push(Change::AddObject { at: self.path, object: next_object }),
            }
            match self.inner.keys.commit(Mutation::new(changes)).await {
                Ok(committed) => {
                    number = committed.number;
                    break;
                }
                Err(CommitError::Gone) if !last_try && finish.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.inner.copy_wake.notify_one();
        self.next_ordinal += 1;
        self.next_object = next_object;
        self.stored = stored;
        // Nobody who changes what is kept waits for the backup with us.
        drop(keeping);
        let backed_up = self.inner.keys.backed_up(number).await;
        progress.send_modify(|progress| {
            progress.stored = stored;
            progress.finished =
                finish.map(|stated| Finished { length: stated.length, backed_up, mismatch: stated.mismatch });
        });
        Ok(())
    }

    /// Puts a sealed slice: at home, else, where residency allows it, in another region. Nobody else has the audio of a
    /// live call, so it is tried until it works; the sender of a file keeps it and hears of the failure.
    async fn put(&self, object: ObjectId, body: Bytes) -> Result<String, Error> {
        let mut regions = vec![self.settings.home.clone()];
        if self.settings.residency == Residency::Both {
            regions.extend(self.inner.objects.regions().into_iter().filter(|region| *region != self.settings.home));
        }
        loop {
            let mut failure = None;
            for region in &regions {
                match self.inner.put(region, object, body.clone()).await {
                    Ok(()) => return Ok(region.clone()),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            let failure = failure.unwrap_or(StoreError::Unavailable("no region is configured".to_owned()));
            if self.audio_row.mode != 2 {
                return Err(failure.into());
            }
            tracing::warn!(%failure, "object storage is away; a live call waits in the journal");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The rows that say that a recording is complete, and what it counts for.
    async fn finished_rows(&mut self, stated: &FinishFrame, length: u64, region: &str) -> Result<Vec<Change>, Error> {
        self.audio_row.state = 3;
        self.audio_row.length = length;
        self.audio_row.sha256.clone_from(&stated.sha256);
        self.audio_row.mismatch = stated.mismatch;
        self.facts_row.state = 3;
        self.facts_row.length = length;
        self.facts_row.end_ms = stated.end_ms;
        self.facts_row.duration_seconds = stated.duration_seconds;
        self.facts_row.mismatch = stated.mismatch;
        let end = Timestamp(stated.end_ms);
        let mut timeline = self.timeline()?;
        let paused = timeline::end(&mut timeline, end.min(self.inner.clock.now()));
        self.facts_row.paused_ms = timeline::paused_ms(&timeline);
        let mut changes = self.put_rows()?;
        if paused {
            changes.push(timeline::change(self.path, self.row, self.audio_secret()?, &timeline));
        }
        // Neither was the call over before the pauses were.
        let seconds = stated.duration_seconds.map(|audio| audio + self.facts_row.paused_ms as f64 / 1000.0);
        changes.push(self.inner.keep_ended(self.path, self.start(), end, seconds)?);
        changes.push(Change::DropValue { name: self.open_row.0.clone() });

        let today = self.inner.clock.now().day();
        let tenant = self.path.tenant;
        let (period, row, secret) = self.inner.period(tenant, Purpose::Counters, today).await?;
        let kind = self.inner.keys.audio_leaf(self.path)?.ok_or(Error::Erased)?.kind;
        let counted = stored::DayCounters {
            day: today.0,
            counters: vec![stored::Counter {
                kind: u32::from(kind),
                region: region.to_owned(),
                recordings: 1,
                seconds: stated.duration_seconds.unwrap_or(0.0),
                bytes: length,
            }],
        };
        let name = values::name_with(row, envelope::Kind::OpenCounters, &random::<8>());
        let envelope = values::seal_as(envelope::Kind::OpenCounters, &counted, &secret, &name);
        changes.push(Change::PutValue { owner: Owner::Period(tenant, period), name, envelope });
        Ok(changes)
    }

    /// When the call began, while the facts tell.
    fn start(&self) -> Option<Timestamp> {
        self.facts.as_ref().map(|_| Timestamp(self.facts_row.start_ms))
    }

    /// Where it was paused, as far as that is durable.
    fn timeline(&self) -> Result<stored::Timeline, Error> {
        Ok(values::read(&self.inner.keys, self.row, self.audio_secret()?)?.unwrap_or_default())
    }

    /// Who keeps the time line while somebody feeds the recording.
    pub(crate) fn timekeeper(&self) -> Result<Timekeeper, Error> {
        Ok(Timekeeper {
            inner: self.inner.clone(),
            path: self.path,
            row: self.row,
            audio: self.audio_secret()?.duplicate(),
            start: self.start(),
            timeline: self.timeline()?,
        })
    }

    /// The audio row and, unless they were erased apart, the facts.
    fn put_rows(&self) -> Result<Vec<Change>, Error> {
        let name = values::name(self.row, envelope::Kind::Audio);
        let envelope = values::seal(&self.audio_row, self.audio_secret()?, &name);
        let mut changes = vec![Change::PutValue { owner: Owner::Audio(self.path), name, envelope }];
        if let Some(facts) = &self.facts {
            let name = values::name(self.row, envelope::Kind::Facts);
            let envelope = values::seal(&self.facts_row, facts, &name);
            changes.push(Change::PutValue { owner: Owner::Facts(self.path), name, envelope });
        }
        Ok(changes)
    }
}

/// Moves the `journaled` watermark as frames become durable, in their order. Ends only by an error: a queue whose sender
/// has gone leaves the rest to the jobs.
async fn acknowledge(
    written: &mut mpsc::Receiver<Written>,
    progress: &watch::Sender<Progress>,
) -> Result<std::convert::Infallible, Error> {
    let failed = |error: crate::journal::WriteError| Error::Storage(error.to_string());
    while let Some(frame) = written.recv().await {
        match frame {
            Written::Audio(pending, end) => {
                pending.durable().await.map_err(failed)?;
                progress.send_modify(|progress| progress.journaled = end);
            }
            Written::Finish(pending) => {
                pending.durable().await.map_err(failed)?;
                progress.send_modify(|progress| progress.finish_journaled = true);
            }
        }
    }
    std::future::pending().await
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}
