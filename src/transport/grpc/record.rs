//! One stream of `RecordingService.Record`: a session.
//!
//! The session is one task with two halves: messages in, watermarks out. It waits for the vault inside `data` and reads
//! no further message meanwhile, so that back-pressure reaches the sender through the flow control of HTTP/2 or QUIC;
//! watermarks go on. A sender that does not read its answers blocks nothing but those.
//!
//! How a session ends, and what it leaves:
//! - Finish, everything stored → Finished, OK.
//! - Discard → Discarded, OK; runs to its end even when the client is gone. Kept by a hold, a floor or a restriction: that is
//!   the stream's status.
//! - The client is gone (stream reset, connection lost, response dropped): the whole session future is dropped at once,
//!   and with it the vault's `Ingest`, which is how the vault learns that the caller vanished.
//! - The vault cuts the recording (erased, taken over, stopping): its reason is the stream's status.
//! - What let the caller feed is taken back: as if the caller had vanished, and the stream says so.
//! - The client breaks the protocol: INVALID. What was acknowledged is kept, as if the caller had vanished. Audio that comes
//!   while the recording is paused is such a break: with its stream goes what else was on its way, and the recording is
//!   still paused for the next stream.

use super::{MAX_CONTENT, refuse};
use crate::{
    domain::pause::DiscardReason,
    proto::v1::{self, RecordRequest, RecordResponse, record_request, record_response},
    transport::{
        auth::{Action, Denied, Identity},
        convert,
        error::Problem,
    },
    vault::{Actor, Ingest, Progress, Vault},
};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

/// Answers under way to a client that reads slowly.
pub(super) const ANSWERS: usize = 8;
/// For the first message to arrive.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// For the vault to answer a message of a recording that it has let go of.
const SETTLE: Duration = Duration::from_secs(5);
/// Watermarks that move faster than this are put together.
const COALESCE: Duration = Duration::from_millis(50);

pub(super) type Answers = mpsc::Sender<Result<RecordResponse, Status>>;

/// Runs a session until it ends or the client is gone.
pub(super) async fn run(vault: Vault, identity: Identity, messages: Streaming<RecordRequest>, answers: Answers) {
    let result = tokio::select! {
        biased;
        () = answers.closed() => return,
        result = session(&vault, &identity, messages, &answers) => result,
    };
    if let Err(status) = result {
        // A client that is gone by now does not need the status.
        let _ = answers.send(Err(status)).await;
    }
}

async fn session(
    vault: &Vault,
    identity: &Identity,
    mut messages: Streaming<RecordRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let open = first(&mut messages).await?;
    identity.authorize(Action::Record, Some(&open.tenant)).map_err(refuse)?;
    if !open.bound.is_empty() {
        identity.authorize(Action::BindParties, Some(&open.tenant)).map_err(refuse)?;
    }
    let feeding = identity.feed(&open.tenant).map_err(refuse)?;
    let mut revoked = std::pin::pin!(vault.proof_ends(feeding.proof.clone()));
    let mut ingest = vault.record(convert::open(open).map_err(refuse)?).await.map_err(refuse)?;
    let opened = ingest.opened();
    let id = opened.id.to_string();
    say(
        answers,
        record_response::Event::Opened(v1::Opened {
            recording_id: id.clone(),
            resume_offset: opened.resume_offset,
            already_finished: opened.already_finished,
            paused: ingest.paused().map(convert::paused),
        }),
    )
    .await;

    let mut ended = std::pin::pin!(watermarks(ingest.progress(), answers, &id));
    let mut takes = !opened.already_finished;
    loop {
        let message = tokio::select! {
            end = &mut ended => return close(end, &ingest).await,
            () = &mut revoked => return Err(refuse(Denied::Revoked)),
            message = messages.message(), if takes => message?,
        };
        let event = match message.map(|message| message.event) {
            Some(Some(event)) => event,
            Some(None) => return Err(refuse(Problem::invalid("event", "Data, Pause, Resume, Finish or Discard"))),
            None => return Err(refuse(Problem::invalid("event", "the stream ended before Finish"))),
        };
        if let record_request::Event::Discard(wanted) = event {
            let reason = convert::discard(&wanted).map_err(refuse)?;
            discard(ingest, identity.actor(), reason).await?;
            say(answers, record_response::Event::Discarded(v1::Discarded { recording_id: id.clone() })).await;
            return Ok(());
        }
        takes = !matches!(event, record_request::Event::Finish(_));
        let end = {
            let mut taking = std::pin::pin!(take(&mut ingest, identity, answers, event));
            tokio::select! {
                biased;
                taken = &mut taking => {
                    taken?;
                    continue;
                }
                () = &mut revoked => return Err(refuse(Denied::Revoked)),
                end = &mut ended => {
                    // A message that the vault refuses may end the recording before the refusal gets here; the refusal
                    // is the better reason.
                    if matches!(end, End::Cut) && let Ok(taken) = tokio::time::timeout(SETTLE, taking).await {
                        taken?;
                    }
                    end
                }
            }
        };
        return close(end, &ingest).await;
    }
}

async fn first(messages: &mut Streaming<RecordRequest>) -> Result<v1::Open, Status> {
    let first = tokio::time::timeout(OPEN_WITHIN, messages.message())
        .await
        .map_err(|_| refuse(Problem::invalid("event", "Open must follow at once")))??;
    match first.and_then(|message| message.event) {
        Some(record_request::Event::Open(open)) => Ok(open),
        _ => Err(refuse(Problem::invalid("event", "the first message must be Open"))),
    }
}

async fn take(
    ingest: &mut Ingest,
    identity: &Identity,
    answers: &Answers,
    event: record_request::Event,
) -> Result<(), Status> {
    match event {
        record_request::Event::Data(data) if data.content.len() > MAX_CONTENT => {
            Err(refuse(Problem::invalid("content", "at most 1 MiB in one message")))
        }
        record_request::Event::Data(data) => ingest.data(data.offset, data.content).await.map_err(refuse),
        record_request::Event::Finish(finish) => {
            ingest.finish(convert::finish(&finish).map_err(refuse)?).await.map_err(refuse)
        }
        record_request::Event::Pause(pause) => {
            let (reason, at) = convert::pause(&pause).map_err(refuse)?;
            let paused = ingest.pause(&identity.actor(), reason, at).await.map_err(refuse)?;
            say(answers, record_response::Event::Paused(convert::paused(paused))).await;
            Ok(())
        }
        record_request::Event::Resume(resume) => {
            ingest.resume(&identity.actor(), convert::moment(resume.at_ms)).await.map_err(refuse)?;
            say(answers, record_response::Event::Resumed(v1::Resumed { offset: ingest.received() })).await;
            Ok(())
        }
        record_request::Event::Open(_) | record_request::Event::Discard(_) => {
            Err(refuse(Problem::invalid("event", "Open comes once, and first")))
        }
    }
}

/// Forgets what was recorded. In a task of its own: once begun, it does not depend on the client's patience.
async fn discard(ingest: Ingest, actor: Actor, reason: DiscardReason) -> Result<(), Status> {
    tokio::spawn(async move { ingest.discard(&actor, reason).await }).await.map_err(refuse)?.map_err(refuse)
}

enum End {
    /// Everything is stored, and said so.
    Finished,
    /// The vault lets go of the recording.
    Cut,
}

async fn close(end: End, ingest: &Ingest) -> Result<(), Status> {
    match end {
        End::Finished => Ok(()),
        End::Cut => Err(refuse(ingest.ended().await)),
    }
}

/// Says watermarks as they move, put together where they move fast, until the recording ends.
async fn watermarks(mut progress: watch::Receiver<Progress>, answers: &Answers, id: &str) -> End {
    let mut said = Progress::default();
    loop {
        let now = *progress.borrow_and_update();
        let moved =
            (now.journaled, now.stored, now.finish_journaled) != (said.journaled, said.stored, said.finish_journaled);
        if moved {
            say(answers, record_response::Event::Watermark(convert::watermark(&now))).await;
            said = now;
        }
        if let Some(finished) = now.finished {
            say(answers, record_response::Event::Finished(convert::finished(id, finished))).await;
            return End::Finished;
        }
        if moved {
            let urgent = |p: &Progress| p.finished.is_some() || p.finish_journaled != said.finish_journaled;
            let _ = tokio::time::timeout(COALESCE, progress.wait_for(urgent)).await;
        }
        // What `wait_for` looked at counts as seen, so it is compared here; what comes later wakes `changed`.
        if *progress.borrow() == now && progress.changed().await.is_err() {
            return End::Cut;
        }
    }
}

async fn say(answers: &Answers, event: record_response::Event) {
    // A closed channel ends the session in `run`.
    let _ = answers.send(Ok(RecordResponse { event: Some(event) })).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::Finished;

    fn progress(journaled: u64, stored: u64) -> Progress {
        Progress { journaled, stored, ..Default::default() }
    }

    async fn next(answers: &mut mpsc::Receiver<Result<RecordResponse, Status>>) -> record_response::Event {
        answers.recv().await.expect("open").expect("no status").event.expect("an event")
    }

    #[tokio::test]
    async fn watermarks_that_move_fast_are_put_together() {
        let (to, from) = watch::channel(Progress::default());
        let (answers, mut heard) = mpsc::channel(1024);
        let began = std::time::Instant::now();
        let pump = tokio::spawn(async move { watermarks(from, &answers, "id").await });
        for journaled in 1..=500 {
            to.send_replace(progress(journaled, 0));
            tokio::task::yield_now().await;
        }
        let finished = Some(Finished { length: 500, backed_up: false, mismatch: false });
        to.send_replace(Progress { finished, ..progress(500, 500) });
        assert!(matches!(pump.await, Ok(End::Finished)));
        let allowed = 2 + began.elapsed().as_millis() / COALESCE.as_millis();
        let mut marks = Vec::new();
        loop {
            match next(&mut heard).await {
                record_response::Event::Watermark(mark) => marks.push((mark.journaled, mark.stored)),
                record_response::Event::Finished(finished) => break assert_eq!(finished.length, 500),
                other => panic!("{other:?}"),
            }
        }
        assert!(marks.len() as u128 <= allowed, "{marks:?}");
        assert_eq!(marks.last(), Some(&(500, 500)));
    }

    #[tokio::test]
    async fn a_mark_behind_the_coalescing_pause_is_not_lost() {
        let (to, from) = watch::channel(Progress::default());
        let (answers, mut heard) = mpsc::channel(64);
        let _pump = tokio::spawn(async move { watermarks(from, &answers, "id").await });
        for journaled in [1, 2] {
            to.send_replace(progress(journaled, 0));
            while !matches!(next(&mut heard).await, record_response::Event::Watermark(mark) if mark.journaled == journaled)
            {
            }
        }
    }

    #[tokio::test]
    async fn the_last_watermark_is_said_although_the_sender_is_gone() {
        let (to, from) = watch::channel(Progress::default());
        let (answers, mut heard) = mpsc::channel(64);
        to.send_replace(progress(5, 0));
        drop(to);
        assert!(matches!(watermarks(from, &answers, "id").await, End::Cut));
        assert!(matches!(next(&mut heard).await, record_response::Event::Watermark(mark) if mark.journaled == 5));
    }
}
