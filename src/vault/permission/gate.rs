//! The one gate to audio. [`super::super::playback`] cannot begin without a [`Grant`], and only this file makes one.
//!
//! Who hears what, without exception and without a switch:
//! - *Restricted* recordings: nobody.
//! - *Customers* (administrators whose scope names the tenant, and its API keys) and *subscribers* (their own recordings): their
//!   own, without asking.
//! - *The provider's people*: staff, and administrators who reach every tenant. They hear what the customer granted, in
//!   person, while it lasts. Their scope alone opens nothing.
//! - *Developers* exist in `quietus dev` only.
//! - Everybody else: nothing.

use super::{At, Error, Inner, missing, read, standing};
use crate::{
    crypto::envelope::Kind,
    domain::{
        id::PermissionId,
        permission::{self, Level, State},
        time::Timestamp,
    },
    keys::{Holder, RecordingPath},
    proto::stored,
    vault::{Actor, ActorRole, Scope, sessions::Guard, values},
};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// That somebody may hear a recording. Fields are private to the gate's module: nobody else makes one.
pub(crate) struct Grant {
    id: Option<PermissionId>,
    until: Option<Timestamp>,
    level: Level,
}

impl Grant {
    /// The permission this rests on; none for who hears their own.
    pub(crate) fn id(&self) -> Option<PermissionId> {
        self.id
    }

    /// Good before this moment.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Whether a copy may be kept.
    pub(crate) fn download(&self) -> bool {
        self.level == Level::Download
    }
}

/// What somebody may hear without asking.
const OWN: Grant = Grant { id: None, until: None, level: Level::Download };

impl Inner {
    /// Lets a playback in, or says what is missing. The session is told the permission it rests on *between two looks*: the
    /// argument is at the head of the parent module.
    pub(crate) fn admit(&self, actor: &Actor, guard: &Guard) -> Result<Grant, Error> {
        self.admit_after(actor, guard, || ())
    }

    /// As [`Inner::admit`]; what comes between the first look and the word to the session is for tests to say.
    pub(crate) fn admit_after(&self, actor: &Actor, guard: &Guard, between: impl FnOnce()) -> Result<Grant, Error> {
        let first = self.may_hear(actor, guard.path(), self.clock.now())?;
        between();
        guard.rest_on(first.id);
        let grant = self.may_hear(actor, guard.path(), self.clock.now())?;
        // The best of several permissions ended between the looks: the caller asks again and gets the next best.
        if grant.id == first.id { Ok(grant) } else { Err(Error::Busy) }
    }

    /// Whether somebody may hear a recording at this moment.
    pub(crate) fn may_hear(&self, actor: &Actor, at: RecordingPath, now: Timestamp) -> Result<Grant, Error> {
        let entry = self.keys.entry(at)?.ok_or(Error::Erased)?;
        if !entry.audio_present {
            return Err(Error::Erased);
        }
        self.usable(at)?;
        match (actor.role, &actor.scope) {
            (ActorRole::Developer, _)
            | (ActorRole::Admin | ActorRole::ApiKey, Scope::Tenants(_))
            | (ActorRole::Subscriber, Scope::Own { .. }) => {
                let tenant = self.keys.tenant_name(at.tenant).ok_or(Error::Erased)?;
                let own =
                    actor.role == ActorRole::Developer || self.reaches(&actor.scope, at.tenant, &tenant, at.subscriber);
                if own { Ok(OWN) } else { Err(Error::Unknown { what: "recording" }) }
            }
            (ActorRole::Staff, _) => self.granted(actor, at, entry.row, ended(&entry), now),
            (ActorRole::Admin, _) => {
                Err(missing("the customer's permission; an administrator who reaches every tenant is the provider's"))
            }
            (
                ActorRole::Switch
                | ActorRole::Auditor
                | ActorRole::Operator
                | ActorRole::Gateway
                | ActorRole::ApiKey
                | ActorRole::Subscriber,
                _,
            ) => Err(missing("a role that listens")),
        }
    }

    /// The best permission that covers a recording: of the recording, of its subscriber, of its tenant.
    fn granted(
        &self,
        actor: &Actor,
        at: RecordingPath,
        row: crate::domain::id::RowId,
        ended: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        let mut best: Option<Grant> = None;
        // The audio's secret is read only where a permission hangs on the recording.
        let on_recording = !self.keys.values(row, Kind::Permission)?.is_empty();
        let recording = on_recording.then_some(At::Recording(at));
        let wider = [At::Subscriber(at.tenant, at.subscriber), At::Tenant(at.tenant)];
        for at in recording.into_iter().chain(wider) {
            let Some(Holder { row, secret }) = self.holder(at)? else { continue };
            for (_, kept) in values::read_all::<stored::Permission>(&self.keys, row, Kind::Permission, &secret)? {
                let Some(terms) = read(kept.granted.as_ref())? else { continue };
                let stands = standing(&kept)?.at(now) == State::Granted && kept.asked_by == actor.name;
                let covered = matches!(at, At::Recording(_))
                    || permission::covers(Timestamp(kept.decided_ms), terms.later_calls, ended);
                if !(stands && covered) {
                    continue;
                }
                let grant = Grant {
                    id: PermissionId::from_slice(&kept.id),
                    until: Some(Timestamp(kept.until_ms)),
                    level: terms.level,
                };
                if best.as_ref().is_none_or(|best| (best.level, best.until) < (grant.level, grant.until)) {
                    best = Some(grant);
                }
            }
        }
        best.ok_or_else(|| {
            missing("the customer's permission to hear this recording; ask with `quietus permission request`")
        })
    }
}

/// When the call of a recording ended, to the minute; none while it runs.
fn ended(entry: &crate::keys::RecordingEntry) -> Option<Timestamp> {
    let ended = entry.keeping.ended;
    (ended != crate::domain::time::Minute::NONE).then(|| ended.start())
}

/// Holds back what is only to be listened to: a playback may be some way ahead of the ear and no further, so that a
/// revocation takes something away. All playbacks of one permission share one pace, or many small ranges would outrun it.
/// (A generic cell rate: one moment to which everything so far is paid.)
#[derive(Default)]
pub(crate) struct Pace(Mutex<Option<Instant>>);

/// How far ahead delivery may be at once.
const AHEAD: Duration = Duration::from_secs(16);
/// Delivered in a second: so many times what is heard in one, and no less than this.
const FASTER: f64 = 8.0;
const SLOWEST: f64 = 65_536.0;

impl Pace {
    /// Waits until so many bytes of a recording may go.
    pub(crate) async fn wait(&self, bytes: usize, heard_per_second: Option<f64>) {
        tokio::time::sleep(self.pay(Instant::now(), bytes, heard_per_second)).await;
    }

    /// Pays for so many bytes at a moment, and says how long they have to wait.
    fn pay(&self, now: Instant, bytes: usize, heard_per_second: Option<f64>) -> Duration {
        let rate = heard_per_second.map_or(SLOWEST, |heard| (heard * FASTER).max(SLOWEST));
        let cost = Duration::from_secs_f64(bytes as f64 / rate);
        let mut paid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = paid.map_or(now, |paid| paid.max(now)) + cost;
        *paid = Some(until);
        // What is paid for ahead of now may be as much as `AHEAD`.
        until.saturating_duration_since(now + AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_little_ahead_and_no_further_whatever_the_ranges() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.pay(now, 1 << 20, Some(8000.0)), Duration::ZERO, "as much as is ahead goes at once");
        // Several listeners of one permission get no more together than one alone.
        let waits: Vec<u64> = (0..4).map(|_| pace.pay(now, 128 << 10, Some(8000.0)).as_secs()).collect();
        assert_eq!(waits, [2, 4, 6, 8], "128 KiB at 64 KiB a second");
        // Who has listened for a while may be ahead again.
        assert_eq!(pace.pay(now + Duration::from_secs(24), 1 << 20, Some(8000.0)), Duration::ZERO);
    }

    #[test]
    fn what_sounds_faster_is_delivered_faster() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.pay(now, 16 * 8 * 176_400, Some(176_400.0)), Duration::ZERO);
        assert_eq!(pace.pay(now, 8 * 176_400, Some(176_400.0)).as_secs(), 1);
    }
}
