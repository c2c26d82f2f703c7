//! Attempts to hear that the gate turned away are logged too: who, what, when, and that it was refused.
//!
//! - *Who tries what he cannot reach* finds nothing, and leaves nothing: an entry would tell that there is something. The
//!   same holds of what is erased.
//! - *Under which secrets.* The evidence lies under the tenant's, as always. What it was about lies under the recording's
//!   facts, which whoever may play may see; where they are gone, under its subscriber's, and names no recording. The
//!   audio's secret is opened for nobody whom the gate did not let in.
//! - *Durable before the answer.* Whoever was told "no" is in the log.
//!
//! # No way to fill the disk
//!
//! The log only grows, and a refused attempt costs nothing but a request. So an attempt is an entry of its own only if
//! it is the first of its minute of this listener at this recording, and only for [`MOST_OF_ONE`] recordings of one listener
//! and [`MOST`] in all: about 100 kB in a minute at the very most, and less than a listener makes who may. What is beyond
//! is counted by listener and tenant, and housekeeping writes each number, when the minute is over, as one entry. A stop
//! writes them too; a kill loses the numbers of its last minute, and none of the entries.

use super::{
    Actor, Error, Hearing, Inner,
    audit::{About, Detail, Event},
};
use crate::{
    domain::{
        audit::{Action, Outcome},
        id::TenantHandle,
        time::Timestamp,
    },
    keys::RecordingPath,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Within this, a second attempt is counted.
const MINUTE_MS: i64 = 60_000;
/// Recordings of which one listener's attempts are entries of their own, in a minute.
const MOST_OF_ONE: usize = 20;
/// Entries in a minute, whoever tries.
const MOST: usize = 200;
/// Listeners and tenants whose attempts are counted apart; beyond this, by tenant alone.
const MOST_COUNTED: usize = 4096;

/// The attempts of the present minute.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Minute>);

#[derive(Default)]
struct Minute {
    /// Since 1970.
    number: i64,
    written: HashMap<String, HashSet<RecordingPath>>,
    entries: usize,
    counted: HashMap<(String, TenantHandle), Counted>,
}

/// Attempts that are no entries.
struct Counted {
    actor: Actor,
    tenant: TenantHandle,
    attempts: u64,
    /// Of the last of them.
    minute: i64,
}

impl Refusals {
    fn minute(&self) -> MutexGuard<'_, Minute> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an attempt is to be written; else it is counted.
    fn take(&self, actor: &Actor, at: RecordingPath, now: Timestamp) -> bool {
        let mut minute = self.minute();
        let number = now.0.div_euclid(MINUTE_MS);
        if minute.number != number {
            // What is counted stays until it is written.
            *minute = Minute { number, counted: std::mem::take(&mut minute.counted), ..Minute::default() };
        }
        if minute.entries < MOST {
            let own = minute.written.entry(actor.name.clone()).or_default();
            if own.len() < MOST_OF_ONE && own.insert(at) {
                minute.entries += 1;
                return true;
            }
        }
        minute.count(actor, at.tenant, 1);
        false
    }

    /// Forgets who tried to hear some recordings, their names too where they tried nothing else. The entries of this minute
    /// stay counted.
    pub(super) fn drop_of(&self, gone: impl Fn(&RecordingPath) -> bool) {
        self.minute().written.retain(|_, own| {
            own.retain(|at| !gone(at));
            !own.is_empty()
        });
    }

    /// One number that is to be written: of a minute that is over, or any.
    fn counted(&self, now: Option<Timestamp>) -> Option<Counted> {
        let mut minute = self.minute();
        let over = |counted: &Counted| now.is_none_or(|now| counted.minute != now.0.div_euclid(MINUTE_MS));
        let key = minute.counted.iter().find(|(_, counted)| over(counted)).map(|(key, _)| key.clone())?;
        minute.counted.remove(&key)
    }
}

impl Minute {
    fn count(&mut self, actor: &Actor, tenant: TenantHandle, attempts: u64) {
        let mut key = (actor.name.clone(), tenant);
        let mut actor = actor.clone();
        if self.counted.len() >= MOST_COUNTED && !self.counted.contains_key(&key) {
            actor = Actor::gateway();
            key.0.clone_from(&actor.name);
        }
        let minute = self.number;
        let counted = self.counted.entry(key).or_insert(Counted { actor, tenant, attempts: 0, minute });
        counted.attempts += attempts;
        counted.minute = minute;
    }
}

impl Inner {
    /// Logs that somebody was refused, and gives the answer. What is no refusal is handed back as it is.
    pub(crate) async fn refused(
        &self,
        actor: &Actor,
        at: RecordingPath,
        action: Action,
        hearing: Option<Hearing>,
        error: Error,
    ) -> Error {
        let reason = match &error {
            Error::NotPermitted { .. } => "not-permitted",
            Error::Restricted => "restricted",
            _ => return error,
        };
        if !self.refusals.take(actor, at, self.clock.now()) {
            return error;
        }
        match self.log_refusal(actor, at, action, hearing, reason).await {
            Ok(()) => error,
            Err(failed) => failed,
        }
    }

    async fn log_refusal(
        &self,
        actor: &Actor,
        at: RecordingPath,
        action: Action,
        hearing: Option<Hearing>,
        reason: &'static str,
    ) -> Result<(), Error> {
        let entry = self.keys.entry(at)?.ok_or(Error::Erased)?;
        let about = match entry.facts_present {
            true => About::Facts(at),
            false => About::Subscriber(at.tenant, at.subscriber),
        };
        let notes = hearing.map(Hearing::notes).unwrap_or_default();
        let detail = Detail { reason: Some(reason), notes, ..Detail::default() };
        self.log_first(actor, Event { detail, ..Event::new(action, about).ended(Outcome::Refused) }).await
    }

    /// Writes what was only counted: of minutes that are over, or all of it.
    pub(crate) async fn write_refusals(&self, over: Option<Timestamp>) -> Result<(), Error> {
        while let Some(counted) = self.refusals.counted(over) {
            let Counted { actor, tenant, attempts, .. } = counted;
            let notes = vec![("attempts", attempts.to_string())];
            let detail = Detail { reason: Some("repeated"), notes, ..Detail::default() };
            let event = Event { detail, ..Event::of_tenant(Action::Play, tenant).ended(Outcome::Refused) };
            match self.log_first(&actor, event).await {
                // A tenant that was erased meanwhile has no log any more.
                Ok(()) | Err(Error::Erased | Error::Unknown { .. }) => {}
                Err(error) => {
                    self.refusals.minute().count(&actor, tenant, attempts);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::random,
        domain::id::{RecordingHandle, SubscriberHandle},
    };

    const NOW: Timestamp = Timestamp(1_700_000_040_000);

    fn actor(name: &str) -> Actor {
        Actor { name: name.into(), ..Actor::gateway() }
    }

    fn recording(tenant: TenantHandle) -> RecordingPath {
        RecordingPath { tenant, subscriber: SubscriberHandle(random()), recording: RecordingHandle(random()) }
    }

    /// Everything that waits to be written: by whom, and how many attempts.
    fn counted(refusals: &Refusals, now: Option<Timestamp>) -> Vec<(String, u64)> {
        let mut all: Vec<_> = std::iter::from_fn(|| refusals.counted(now))
            .map(|counted| (counted.actor.name, counted.attempts))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn one_listener_at_one_recording_is_one_entry_a_minute_and_the_rest_is_counted() {
        let (refusals, tenant) = (Refusals::default(), TenantHandle(random()));
        let (first, second) = (recording(tenant), recording(tenant));
        assert!(refusals.take(&actor("staff/sam"), first, NOW));
        for _ in 0..9 {
            assert!(!refusals.take(&actor("staff/sam"), first, NOW.plus_ms(100)));
        }
        assert!(refusals.take(&actor("staff/sam"), second, NOW), "another recording");
        assert!(refusals.take(&actor("staff/kim"), first, NOW), "another listener");
        assert!(counted(&refusals, Some(NOW)).is_empty(), "while the minute runs");
        let next = NOW.plus_ms(MINUTE_MS);
        assert!(refusals.take(&actor("staff/sam"), first, next));
        assert_eq!(counted(&refusals, Some(next)), [("staff/sam".to_owned(), 9)]);
        assert!(counted(&refusals, None).is_empty(), "once");
    }

    #[test]
    fn entries_are_bounded_for_one_and_for_all_and_no_attempt_is_lost() {
        let (refusals, tenant) = (Refusals::default(), TenantHandle(random()));
        let tries = |name: &str, times: usize| {
            (0..times).filter(|_| refusals.take(&actor(name), recording(tenant), NOW)).count()
        };
        assert_eq!(tries("staff/sam", 1000), MOST_OF_ONE);
        let others: usize = (0..500).map(|n| tries(&format!("staff/{n}"), 3)).sum();
        assert_eq!(others, MOST - MOST_OF_ONE);
        let all: u64 = counted(&refusals, None).iter().map(|(_, attempts)| attempts).sum();
        assert_eq!(all as usize, 2500 - MOST);
    }

    #[test]
    fn more_listeners_than_are_counted_apart_are_counted_together() {
        let (refusals, tenant) = (Refusals::default(), TenantHandle(random()));
        for n in 0..MOST_COUNTED + MOST + 7 {
            refusals.take(&actor(&format!("staff/{n}")), recording(tenant), NOW);
        }
        let counted = counted(&refusals, None);
        assert_eq!(counted.len(), MOST_COUNTED + 1);
        assert!(counted.contains(&("gateway".to_owned(), 7)));
    }
}
