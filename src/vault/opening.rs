//! How a recording is opened, or taken up again.
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
//! what is *kept* (slices, then journal frames without a gap), not from what was sent. What the stream before left on its
//! way, in the queue of the key store's writer or of the journal's, is awaited first: a sender that keeps nothing goes on
//! with other audio, or finishes, at the byte that it is told.
//!
//! # Taking over
//!
//! A resume refuses what it must refuse before it cuts the stream before. From then on it is this resume that looks after
//! the recording: where it fails, the recording is handed to [`super::recover`].

use super::{
    Error, Finished, Ingest, Inner, Mode, Open, Opened, Vault, audio,
    basis::{self, Rests},
    ingest::HEAD_LEN,
    recover,
    sessions::Guard,
    tenants::invalid,
    track::Track,
    values,
};
use crate::{
    crypto::{
        envelope,
        label::{Label, derive},
        random,
        secret::Secret,
        stack,
    },
    domain::{
        id::{ObjectId, PeriodHandle, RecordingHandle, RowId, SubscriberHandle, TenantHandle},
        media,
        time::{Day, Timestamp},
    },
    keys::{Change, CommitError, Mutation, Owner, Purpose, RecordingPath, ValueName},
    proto::stored,
};
use ring::digest;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How far a start may lie ahead of our clock.
const MAX_AHEAD_MS: i64 = 5 * 60 * 1000;

impl Vault {
    /// Opens a recording, or takes up one that this client id opened before.
    ///
    /// # Errors
    /// `Invalid` names the field; `Unknown` tenant; `Erased` for a client id whose recording was erased; `Refused` names
    /// the rule that wants something else; `JournalFull`.
    pub async fn record(&self, open: Open) -> Result<Ingest, Error> {
        let inner = self.0.clone();
        // Runs to its end though the caller may go: a recording that was made always has a track, which notices.
        let opening = self.0.tasks.spawn(async move { inner.open_recording(open).await });
        opening.await.unwrap_or_else(|failed| Err(Error::Internal(failed.to_string())))
    }
}

/// What a client id's row leads to.
struct Found {
    subscriber: SubscriberHandle,
    handle: RecordingHandle,
    period: PeriodHandle,
    period_row: RowId,
}

/// Bounds on one text that a caller states.
pub(super) fn text(field: &'static str, value: &str, most: usize, least: usize) -> Result<(), Error> {
    if value.len() < least || value.len() > most || value.chars().any(char::is_control) {
        Err(invalid(field, format!("send {least} to {most} bytes of text without control characters")))
    } else {
        Ok(())
    }
}

/// Bounds on what is stated about a call.
pub(super) fn check_facts<'a>(
    parties: &[String],
    call_id: &str,
    labels: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
    purpose: &str,
) -> Result<(), Error> {
    text("facts.call_id", call_id, 256, 0)?;
    text("facts.purpose", purpose, 256, 0)?;
    if parties.len() > 64 || labels.len() > 64 {
        return Err(invalid("facts", "send at most 64 parties and 64 labels".to_owned()));
    }
    for party in parties {
        text("facts.parties", party, 256, 1)?;
    }
    for (label, value) in labels {
        text("facts.labels", label, 64, 1)?;
        text("facts.labels", value, 1024, 0)?;
    }
    Ok(())
}

/// Bounds on what a stream states at Open; gives the start.
fn check(open: &Open, now: Timestamp, window_days: u32) -> Result<Timestamp, Error> {
    text("subscriber", &open.subscriber, 256, 1)?;
    check_facts(&open.facts.parties, &open.facts.call_id, open.facts.labels.iter(), &open.facts.purpose)?;
    basis::check(open, now.plus_ms(MAX_AHEAD_MS))?;
    if !media::validate_media_type(&open.media_type) {
        return Err(invalid("media_type", "send an RFC 6838 media type, such as `audio/wav`".to_owned()));
    }
    if !(16..=64).contains(&open.client_id.len()) {
        return Err(invalid("client_id", "send 16 to 64 random bytes, drawn once per recording".to_owned()));
    }
    // A retry that states no start could come when its client id is long forgotten, and bring back what was erased.
    let Some(start) = open.start else {
        return Err(invalid("start_ms", "state when the call began, and the same in every retry".to_owned()));
    };
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
                let wrong = || Error::Corrupt("a client id's row".to_owned());
                let handle = RecordingHandle::from_slice(&entry.handle).ok_or_else(wrong)?;
                let subscriber = SubscriberHandle::from_slice(&entry.subscriber).ok_or_else(wrong)?;
                return Ok(Some(Found { subscriber, handle, period: period.handle, period_row: holder.row }));
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
        self.keys.commit(Mutation::new(vec![change])).await.map_err(|error| match error {
            CommitError::Gone => Error::Unknown { what: "tenant" },
            other => other.into(),
        })?;
        Ok((period, row, kept))
    }

    /// The subscriber of this name, provisioned when it is new.
    pub(super) async fn provision(&self, tenant: TenantHandle, name: &str) -> Result<SubscriberHandle, Error> {
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
            match self.keys.commit(Mutation::new(vec![change])).await {
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
        // Until the create is durable, no account is closed, no subscriber deactivated and no consent withdrawn.
        let _gate = self.gate.read().await;
        let (settings, holder) = self.settings(tenant)?;
        self.admits(tenant, &settings, &holder, &open.subscriber)?;
        let Rests { jurisdiction, basis, parent } = self.rests(tenant, &holder, &open)?;
        self.governed(tenant, open.kind, jurisdiction)?;
        let parties = self.bound_parties(tenant, &open.ties.bound).await?;
        let wrapped = !parties.is_empty() && self.wraps(tenant)?;
        let subscriber = self.provision(tenant, &open.subscriber).await?;
        let _keeping = self.keeping.read().await;
        let keeping = self.keeping_at_open(tenant, subscriber, open.kind, jurisdiction, basis, start)?;
        let (period, period_row, period_secret) = self.period(tenant, Purpose::ClientIds, now.day()).await?;

        let path = RecordingPath { tenant, subscriber, recording: RecordingHandle(random()) };
        let guard = self.sessions.enter_ingest(path).ok_or(Error::TakenOver)?;
        guard.made_from(parent);
        let (row, object) = (RowId(random()), ObjectId(random()));
        let (audio, facts) = (Secret::random(), Secret::random());
        let facts_row = stored::Facts {
            kind: open.kind as u32,
            parties: open.facts.parties,
            call_id: open.facts.call_id,
            labels: open.facts.labels.into_iter().collect(),
            purpose: open.facts.purpose,
            start_ms: start.0,
            end_ms: 0,
            length: 0,
            duration_seconds: None,
            state: 1,
            mismatch: false,
            paused_ms: 0,
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
        let client_entry = stored::ClientEntry { handle: path.recording.0.to_vec(), subscriber: subscriber.0.to_vec() };
        let put = |owner, name: &ValueName, envelope| Change::PutValue { owner, name: name.clone(), envelope };
        let mut changes = vec![
            Change::AddRecording {
                at: path,
                row,
                kind: open.kind as u8,
                audio: audio.duplicate(),
                facts: facts.duplicate(),
                objects: vec![object],
                keeping,
                parent,
                parties,
                wrapped,
            },
            put(Owner::Facts(path), &facts_name, values::seal(&facts_row, &facts, &facts_name)),
            put(Owner::Audio(path), &audio_name, values::seal(&audio_row, &audio, &audio_name)),
            put(Owner::Period(tenant, period), &client_name, values::seal(&client_entry, &client_secret, &client_name)),
            put(Owner::Period(tenant, period), &open_name, values::seal(&open_entry, &period_secret, &open_name)),
        ];
        changes.extend(basis::row_change(path, row, &audio, open.basis));
        self.keys.commit(Mutation::new(changes)).await?;

        let opened = Opened {
            id: super::recording_id::issue(&holder.secret, subscriber, path.recording),
            resume_offset: 0,
            already_finished: false,
        };
        let track = Track {
            inner: self.clone(),
            path,
            row,
            guard,
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
        let begin = (Some(digest::Context::new(&digest::SHA256)), Zeroizing::new(Vec::new()));
        self.start(track, opened, open.mode, open.length_hint, begin)
    }

    async fn resume(self: &Arc<Self>, open: Open, tenant: TenantHandle, found: Found) -> Result<Ingest, Error> {
        let path = RecordingPath { tenant, subscriber: found.subscriber, recording: found.handle };
        let leaf = self.keys.audio_leaf(path)?.ok_or(Error::Erased)?;
        let audio = leaf.audio.ok_or(Error::Erased)?;
        if self.keys.subscriber_name(tenant, found.subscriber).is_some_and(|name| name != open.subscriber) {
            let remedy = "this client id began a recording of another subscriber; send the same again";
            return Err(invalid("subscriber", remedy.to_owned()));
        }
        let row: stored::Audio = values::read(&self.keys, leaf.row, &audio)?.ok_or(Error::Erased)?;
        drop(audio);
        if mode_of(&row) != open.mode {
            return Err(invalid("mode", "this client id began a recording in the other mode; keep to it".to_owned()));
        }
        self.consent_stands(path)?;
        let Some(guard) = self.sessions.take_over(path).await else {
            return Err(Error::Internal("the stream before did not end when it was cut".to_owned()));
        };
        let taken = self.take_up(&open, &found, path, guard).await;
        if taken.is_err() {
            self.tasks.spawn(recover::adopt_later(self.clone(), path, leaf.row, found.period));
        }
        taken
    }

    /// Takes the recording up where the stream before left it.
    async fn take_up(
        self: &Arc<Self>,
        open: &Open,
        found: &Found,
        path: RecordingPath,
        guard: Guard,
    ) -> Result<Ingest, Error> {
        let cut = guard.listener();
        let taken = async {
            // The stream before may have been cut while its last command waited for the writer. This one waits behind it,
            // so that what is read below is what that command left.
            self.keys.commit(Mutation::new(Vec::new())).await?;
            // Again: a withdrawal finds who is inside, and whoever comes in later finds the withdrawal.
            self.consent_stands(path)?;
            let holder = self.tenant_holder(path.tenant)?;
            let id = super::recording_id::issue(&holder.secret, path.subscriber, path.recording);
            let period = self.keys.period(path.tenant, found.period)?.ok_or(Error::Erased)?;
            let (client_name, _) = client_row(found.period_row, &period.secret, &open.client_id);
            let place = (found.period, found.period_row);
            let mut track = Track::take_up(self, guard, place, client_name)?.ok_or(Error::Erased)?;
            let mode = mode_of(&track.audio_row);
            if track.audio_row.state == 3 {
                let length = track.audio_row.length;
                let opened = Opened { id, resume_offset: length, already_finished: true };
                let backed_up = self.keys.backed_up(self.keys.commands()).await;
                // The stream that finished it may have been cut before it could say so.
                self.journal.forget(track.row);
                let finished = Finished { length, backed_up, mismatch: track.audio_row.mismatch };
                return Ok(Ingest::finished_before(self, opened, mode, finished));
            }
            // Its frames may still wait for the disk. They are awaited too: what comes to life behind this look would lie where
            // the sender goes on.
            self.journal.settled(track.row).await;
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
            self.start(track, opened, mode, open.length_hint, (digest, head))
        };
        // Reading back may take as long as S3 does; an erasure does not wait for it.
        tokio::select! {
            biased;
            _ = Guard::heard(cut) => Err(Error::Erased),
            taken = taken => taken,
        }
    }

    /// Digest and head of the first `below` bytes of what is kept.
    pub(crate) async fn digest_kept(
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
}

/// Name and secret of a client id's row. Only somebody who presents the client id finds or opens it.
fn client_row(period_row: RowId, period: &Secret, client_id: &[u8]) -> (ValueName, Secret) {
    let suffix = derive::<16>(period.expose(), Label::ClientRow, &[client_id]);
    let secret = stack::wiped(|| Secret::from_bytes(&derive(period.expose(), Label::ClientSecret, &[client_id])));
    (values::name_with(period_row, envelope::Kind::Client, suffix.as_slice()), secret)
}

fn mode_of(row: &stored::Audio) -> Mode {
    if row.mode == 2 { Mode::Live } else { Mode::Spooled }
}
