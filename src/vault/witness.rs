//! Whether our clock is right: nothing is destroyed for its age while a second clock does not agree.
//!
//! The witness is what the object stores say the time is. They are other machines, on clocks that their owner keeps, and
//! every gateway talks to them anyway. All that answer must agree with our clock within an hour; nobody answering is no
//! agreement.
//!
//! # Cases
//! - *Our clock jumps ahead, by an hour or by years, at a start or while we run*: the witness disagrees before the next run of
//!   the runner, and nothing is erased. A run goes by one moment that was witnessed, so that a jump in its midst changes
//!   nothing for it.
//! - *Our clock jumps back*: less is due than should be; nothing goes early. What is late then cannot be seen by our clock,
//!   so the witness is asked from time to time although nothing is due, and `status` says that the clock disagrees.
//! - *Times that are written down while the clock is wrong* decide what is due when it is right again. The end of a call is
//!   bounded by its start, and a start is refused that lies minutes ahead of our clock or weeks behind it: an ingest stops
//!   by itself while the clock is wrong by more. The close of an account and the deactivation of a subscriber ask for the
//!   witness ([`Inner::witnessed_now`]) and are refused while it disagrees.
//! - *The object stores are wrong together with us*: then nobody here knows better, and the promises are kept by that
//!   time. Stores that are wrong alone only stop the runner.
//! - *The object stores do not answer*: an agreement stands for [`STANDS`] as the machine's own uninterrupted count has it, which
//!   nobody sets: our clock must show that much more than at the last agreement. So storage that is away for days breaks no
//!   promise, for keys are destroyed without it; a start without storage, and a longer outage, wait. What becomes late is counted.
//! - *Floors* end by the same measure ([`Inner::surely`]): what no witness bears out has not come yet.
//! - *A clock that a test or a rehearsal moves* brings a witness of its own.
//!
//! In `quietus dev` the object store is in the same process and on the same clock: it bears no witness there.

use super::{Error, Inner};
use crate::domain::{
    id::TenantHandle,
    time::{Timestamp, Witness},
};
use std::{
    sync::Mutex,
    sync::PoisonError,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How far apart the clocks may be.
const TOLERANCE_MS: i64 = 3_600_000;
/// How often the witness is asked although nothing is due.
const INTERVAL: Duration = Duration::from_secs(600);
/// For how long an agreement stands while nobody answers.
const STANDS: Duration = Duration::from_secs(7 * 86_400);
/// How long nobody is asked again for a floor's sake.
const AGAIN: Duration = Duration::from_secs(60);
/// How much of an agreement's age is passed over when a floor is looked at.
const FRESH_MS: i64 = 60_000;

/// What was last found out.
#[derive(Default)]
pub(crate) struct Clocks {
    disagrees: AtomicBool,
    asked: Mutex<Option<Instant>>,
    agreed: Mutex<Option<Agreed>>,
}

/// The last moment on which our clock and the witness agreed.
#[derive(Clone, Copy)]
struct Agreed {
    at: Timestamp,
    counted_from: Instant,
}

impl Agreed {
    /// The present moment by the machine's own count since then.
    fn counted(self) -> Timestamp {
        self.at.plus_ms(i64::try_from(self.counted_from.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// Why a moment is not witnessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwitnessed {
    /// No store answered.
    #[error("no object store says what time it is")]
    Silent,
    /// One says something else.
    #[error("an object store's clock is {minutes} minutes ahead of ours")]
    Disagrees {
        /// Less than nothing: it is behind.
        minutes: i64,
    },
}

impl Clocks {
    /// Whether the witness disagreed, or was silent, when it was last asked.
    pub fn disagree(&self) -> bool {
        self.disagrees.load(Ordering::SeqCst)
    }

    fn agreed(&self) -> Option<Agreed> {
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an agreement bears our clock out while nobody answers.
    fn still(&self, now: Timestamp) -> bool {
        self.agreed()
            .is_some_and(|agreed| agreed.counted_from.elapsed() <= STANDS && judge(now, &[agreed.counted()]).is_ok())
    }
}

/// Judges what the witnesses say at a moment by our clock.
fn judge(now: Timestamp, said: &[Timestamp]) -> Result<(), Unwitnessed> {
    if said.is_empty() {
        return Err(Unwitnessed::Silent);
    }
    let ahead = |said: &Timestamp| said.0.saturating_sub(now.0);
    match said.iter().map(ahead).find(|ahead| ahead.saturating_abs() > TOLERANCE_MS) {
        Some(ahead) => Err(Unwitnessed::Disagrees { minutes: ahead / 60_000 }),
        None => Ok(()),
    }
}

impl Inner {
    /// The present moment, if a second clock agrees.
    pub(crate) async fn witnessed(&self) -> Result<Timestamp, Unwitnessed> {
        let said = match self.clock.witness() {
            Witness::Ask => self.objects.dates().await,
            Witness::Says(said) => said.into_iter().collect(),
        };
        // Read behind the answers: a clock that jumps meanwhile disagrees with them.
        let now = self.clock.now();
        let judged = match judge(now, &said) {
            Ok(()) => {
                let agreed = Agreed { at: now, counted_from: Instant::now() };
                *self.clocks.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreed);
                Ok(())
            }
            Err(Unwitnessed::Silent) if self.clocks.still(now) => Ok(()),
            Err(why) => Err(why),
        };
        let disagrees = judged.is_err();
        let before = self.clocks.disagrees.swap(disagrees, Ordering::SeqCst);
        *self.clocks.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        match judged {
            Err(why) => tracing::error!(%why, "our clock is not witnessed: nothing expires until it is"),
            Ok(()) if before => tracing::warn!("our clock is witnessed again: expiry goes on"),
            Ok(()) => {}
        }
        judged.map(|()| now)
    }

    /// The present moment, for what times count from: a close, a deactivation.
    ///
    /// # Errors
    /// `Storage` while no second clock agrees: try again.
    pub(crate) async fn witnessed_now(&self) -> Result<Timestamp, Error> {
        self.witnessed().await.map_err(|why| Error::Storage(why.to_string()))
    }

    /// The latest moment that has surely come: the present one where it agrees with what was last witnessed, and never later
    /// than the machine's own count since then. Nothing has surely come before anybody was asked.
    pub(crate) fn surely(&self) -> Timestamp {
        self.clocks.agreed().map_or(Timestamp(i64::MIN), |agreed| agreed.counted().min(self.clock.now()))
    }

    /// Asks the witness where [`Inner::surely`] lies behind our clock: before the floors of these tenants are looked at, where
    /// there are any. An erasure where nothing is floored waits for no storage, and no erasure twice in a minute.
    pub(crate) async fn make_sure(&self, tenants: impl IntoIterator<Item = TenantHandle>) {
        let floored = |tenant| self.settings(tenant).is_ok_and(|(settings, _)| !settings.grounds.is_empty());
        let asked = *self.clocks.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = asked.is_some_and(|asked| asked.elapsed() < AGAIN) && !self.clock.is_moved();
        if !lately && self.surely() < self.clock.now().plus_ms(-FRESH_MS) && tenants.into_iter().any(floored) {
            // What it finds is logged and kept for the status; without an agreement floors stand.
            let _known = self.witnessed().await;
        }
    }

    /// Asks the witness when it was not asked for a while.
    pub(crate) async fn look_at_the_clock(&self) {
        let asked = *self.clocks.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|asked| asked.elapsed() >= INTERVAL) {
            // What it finds is logged and kept for the status.
            let _known = self.witnessed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_answer_must_agree_within_an_hour() {
        let hour = 3_600_000;
        let now = Timestamp(1_000 * hour);
        let said = |hours: &[i64]| hours.iter().map(|ahead| now.plus_ms(ahead * hour)).collect::<Vec<_>>();
        assert_eq!(judge(now, &said(&[0, 1])), Ok(()));
        assert_eq!(judge(now, &said(&[-1])), Ok(()));
        assert_eq!(judge(now, &[]), Err(Unwitnessed::Silent));
        assert_eq!(judge(now, &said(&[0, -2])), Err(Unwitnessed::Disagrees { minutes: -120 }));
        assert!(judge(Timestamp(i64::MAX), &[Timestamp(i64::MIN)]).is_err());
    }

    #[test]
    fn an_agreement_stands_as_long_as_the_machine_counts_the_same() {
        let clocks = Clocks::default();
        let now = Timestamp(1_000 * 3_600_000);
        assert!(!clocks.still(now), "nobody ever agreed");
        *clocks.agreed.lock().expect("whole") = Some(Agreed { at: now, counted_from: Instant::now() });
        assert!(clocks.still(now) && clocks.still(now.plus_ms(60_000)));
        assert!(!clocks.still(now.plus_ms(2 * TOLERANCE_MS)), "our clock jumped");
        assert!(!clocks.still(now.plus_ms(-2 * TOLERANCE_MS)));
        let Some(long_ago) = Instant::now().checked_sub(STANDS + Duration::from_secs(1)) else { return };
        *clocks.agreed.lock().expect("whole") = Some(Agreed { at: now, counted_from: long_ago });
        assert!(!clocks.still(now.plus_ms(STANDS.as_millis() as i64)), "too long ago");
    }
}
