//! Copies sealed slices to the regions that lack them, from a durable queue.
//!
//! The queue's row is written in the command that lists the slice and goes when the copy is there, so a kill in between
//! copies once more and nothing else. A copy holds the object's claim, which the sweeper waits for. An object that no region
//! has, though its row is there, is reported and tried again: only an erasure takes such a row away.

use super::Inner;
use crate::{
    domain::id::ObjectId,
    keys::{Change, CommitError, Mutation},
    object::StoreError,
};
use std::{sync::Arc, time::Duration};

/// Rows looked at in one go.
const BATCH: usize = 1024;
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// Pause while nothing waits; new rows wake it.
const IDLE: Duration = Duration::from_secs(60);

/// Runs until the vault stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        let pass = tokio::select! {
            () = inner.stopping.cancelled() => return,
            pass = pass(&inner) => pass,
        };
        let wait = match pass {
            Ok(0) => IDLE,
            Ok(_) => continue,
            Err(why) => {
                tracing::warn!(why, "copying to the second region waits");
                PAUSE
            }
        };
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = inner.copy_wake.notified(), if wait == IDLE => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Copies what waits, at most a batch; gives how many rows went.
async fn pass(inner: &Arc<Inner>) -> Result<usize, String> {
    let waiting = inner.keys.copies(BATCH).map_err(|error| error.to_string())?;
    let mut done = 0;
    let mut failed = None;
    for (object, to) in waiting {
        match copy(inner, object, &to).await {
            Ok(()) => done += 1,
            Err(why) => failed = Some(why),
        }
    }
    match failed {
        Some(why) if done == 0 => Err(why),
        _ => Ok(done),
    }
}

async fn copy(inner: &Arc<Inner>, object: ObjectId, to: &str) -> Result<(), String> {
    let _claim = inner.claims.claim(&[object]).await;
    // An erasure takes the row from the queue: whatever is still queued must be somewhere.
    if !inner.keys.copy_is_queued(object).map_err(|error| error.to_string())? {
        return Ok(());
    }
    let body = read(inner, object, to).await.map_err(|error| error.to_string())?;
    let body = body.ok_or("an object that is to be copied is in no other region")?;
    inner.objects.put(to, object, body).await.map_err(|error| error.to_string())?;
    match inner.keys.commit(Mutation::new(vec![Change::CopyDone { object }])).await {
        // Erased meanwhile: the sweeper waits for the claim and removes this copy like the others.
        Ok(_) | Err(CommitError::Gone) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads the object from any other region; none when no region has it.
async fn read(inner: &Inner, object: ObjectId, to: &str) -> Result<Option<bytes::Bytes>, StoreError> {
    let mut failure = None;
    for region in inner.objects.regions().iter().filter(|region| *region != to) {
        match inner.objects.size(region, object).await {
            Ok(Some(size)) => match inner.objects.get(region, object, 0..size).await {
                Ok(body) => return Ok(Some(body)),
                Err(error) => failure = Some(error),
            },
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}
