//! The sweeper: removes the ciphertext of what was erased, rows and objects, in every region.
//!
//! It works from `doomed` rows alone and in small steps: fetch the next step, remove its objects everywhere, then have the
//! key store remove the step's rows. Each part is idempotent and the row goes last, so a kill between any two leaves work
//! that is done again, never work that is forgotten. When nothing is left of an erasure, its second receipt is stated. Objects that somebody else is putting or copying are waited for.

use super::Inner;
use std::{sync::Arc, time::Duration};

/// Objects removed in one step.
const STEP: usize = 256;
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Runs until the vault stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut pause = PAUSES.0;
    loop {
        let stopped = inner.stopping.cancelled();
        let step = tokio::select! {
            () = stopped => return,
            step = step(&inner) => step,
        };
        let wait = match step {
            Ok(true) => {
                pause = PAUSES.0;
                continue;
            }
            Ok(false) => None,
            Err(why) => {
                tracing::warn!(why, "sweeping waits");
                let wait = pause;
                pause = (pause * 2).min(PAUSES.1);
                Some(wait)
            }
        };
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = inner.sweep_wake.notified(), if wait.is_none() => {}
            () = tokio::time::sleep(wait.unwrap_or(PAUSES.1)) => {}
        }
    }
}

/// One step. False when nothing is doomed.
async fn step(inner: &Arc<Inner>) -> Result<bool, String> {
    let Some(batch) = inner.keys.next_doomed(STEP).map_err(|error| error.to_string())? else { return Ok(false) };
    let _claim = inner.claims.claim(&batch.objects).await;
    if !batch.objects.is_empty() {
        // A region that is away does not keep the ciphertext in the others.
        let mut failed = None;
        for region in inner.objects.regions() {
            if let Err(error) = inner.objects.remove(&region, &batch.objects).await {
                failed = Some(error.to_string());
            }
        }
        if let Some(why) = failed {
            return Err(why);
        }
    }
    if let Some(receipt) = inner.keys.swept(batch).await.map_err(|error| error.to_string())? {
        inner.state_removed(receipt).await.map_err(|error| error.to_string())?;
    }
    Ok(true)
}
