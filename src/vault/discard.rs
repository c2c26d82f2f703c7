//! How a recording that takes audio is forgotten: somebody wants it gone, or what arrived is refused.
//!
//! Either is an erasure like any other: it takes a clearance, it is logged, and whoever listens is cut before it is answered. The
//! row that says that the recording is open goes in the same command, and with a refusal the client id, so that a crash
//! leaves all of it or nothing.
//!
//! - *Discard*: what stands in the way keeps what arrived; a hold parks the erasure under the name of who asked.
//! - *A refusal* (what Finish states is not what arrived, or nothing did): where nothing was ever acknowledged there is
//!   nothing to keep, and nobody is asked. Where a part had been acknowledged as stored, maybe to an earlier stream, what
//!   stands in the way keeps that part; nothing is parked, because nobody asked for an erasure.

use super::{
    Actor, Error,
    audit::{About, Detail, Event},
    clearance::{Blocked, Clearance, Wanted},
    erasure::Order,
    sessions::{Cut, Role},
    track::Track,
};
use crate::{
    domain::{
        audit::{Action, Outcome},
        pause::DiscardReason,
    },
    keys::{Change, Mutation, Parts, RecordingPath},
};
use std::collections::HashSet;

/// Why a recording that takes audio is forgotten.
#[derive(Clone, Debug)]
pub(crate) enum Discarding {
    /// What arrived is refused, and its client id forgotten too, so that it can be sent again.
    Refused,
    /// Somebody wants it gone. A retry is told so.
    Wanted(Actor, DiscardReason),
}

impl Track {
    /// Destroys the recording's keys; gives what stands in the way. The track has wiped its own secrets, and holds the last
    /// session that feeds the recording.
    pub(super) async fn destroy(&self, how: &Discarding) -> Result<Option<Blocked>, Error> {
        let mut changes = vec![Change::DropValue { name: self.open_row.0.clone() }];
        if matches!(how, Discarding::Refused) {
            changes.push(Change::DropValue { name: self.client_row.clone() });
        }
        let clearance = match how {
            Discarding::Refused if self.stored == 0 => Clearance::of_a_refused_take(self.path),
            _ => match self.ask(how).await? {
                Asked::Free(clearance, logged) => {
                    changes.extend(logged);
                    clearance
                }
                Asked::Blocked(stands) => return Ok(Some(stands)),
            },
        };
        changes.extend(clearance.changes());
        let children = self.inner.keys.entry(self.path)?.map_or_else(Vec::new, |entry| entry.children);
        let mut fallen: HashSet<RecordingPath> =
            children.into_iter().map(|recording| RecordingPath { recording, ..self.path }).collect();
        self.inner.keys.commit(Mutation::new(changes)).await?;
        self.inner.fell_meanwhile(self.wanted(), &mut fallen)?;
        drop(clearance);
        self.inner.forget_in_memory(|at| *at == self.path || fallen.contains(at));
        let heard_or_made =
            |at: &RecordingPath, role| fallen.contains(at) || (*at == self.path && role == Role::Playback);
        if !self.inner.sessions.cut(Cut::Erased, heard_or_made).await {
            return Err(Error::Internal("a session did not end when it was cut".to_owned()));
        }
        self.inner.journal.forget(self.row);
        self.inner.sweep_wake.notify_one();
        Ok(None)
    }

    fn wanted(&self) -> Wanted {
        Wanted::Recording(self.path, Parts::BOTH)
    }

    /// Asks for a clearance. What stands in the way is logged here, and parked where somebody asked and a hold stands.
    async fn ask(&self, how: &Discarding) -> Result<Asked, Error> {
        let gateway = Actor::gateway();
        let (actor, reason) = match how {
            Discarding::Refused => (&gateway, "mismatch"),
            Discarding::Wanted(actor, reason) => (actor, reason.word()),
        };
        let cleared = self.inner.clear(vec![self.wanted()]).await?;
        let stands = cleared.blocked.into_iter().next().map(|(_, stands)| stands);
        let parked_under = match (&stands, how) {
            (Some(Blocked::Hold(hold)), Discarding::Wanted(..)) => Some(hold.clone()),
            _ => None,
        };
        // What is kept has a subject still; of what goes only the subscriber is left.
        let (about, outcome) = match &stands {
            Some(_) if parked_under.is_some() => (About::Audio(self.path), Outcome::Parked),
            Some(_) => (About::Audio(self.path), Outcome::Refused),
            None => (About::Subscriber(self.path.tenant, self.path.subscriber), Outcome::Done),
        };
        let detail = Detail { reason: Some(reason), ..Detail::default() };
        let event = Event { detail, ..Event::new(Action::RecordingDiscard, about).ended(outcome) };
        let logged = self.inner.audit(actor, event).await?;
        match (cleared.clearance, stands) {
            (Some(clearance), None) => Ok(Asked::Free(clearance, logged)),
            (_, Some(stands)) => {
                match parked_under {
                    Some(hold) => {
                        let order = Order::new(actor.clone(), None);
                        self.inner.park(&cleared.standing, &hold, self.wanted(), &order, logged).await?;
                    }
                    None => {
                        self.inner.keys.commit(Mutation::new(logged)).await?;
                    }
                }
                Ok(Asked::Blocked(stands))
            }
            (None, None) => Err(Error::Internal("a discard is neither free nor blocked".to_owned())),
        }
    }
}

/// What came of asking.
enum Asked {
    /// Nothing stands in the way; the log's entry goes into the command that erases.
    Free(Clearance, Vec<Change>),
    /// It is kept, and that is logged.
    Blocked(Blocked),
}
