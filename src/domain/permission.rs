//! Permission to listen: what the provider's staff ask for, what the customer grants, and when it ends. Pure.
//!
//! ```text
//! asked ──grant──▸ granted ──revoke──▸ revoked
//!   │                 └──────time────▸ expired
//!   ├──deny──▸ denied
//!   └──time──▸ lapsed
//! ```
//!
//! - A grant is never wider than what was asked for: [`Terms::narrowed`] is the only way to the terms of a grant.
//! - A state that has ended never begins again; who needs more asks again.
//! - A grant begins when it is given. Its end is fixed then, and nothing moves it but a revocation.
//!
//! A label that asks for two people (a later issue) has its place between asked and granted: a first approval leaves the
//! state as it is and is remembered beside it.

use super::{id::PermissionId, time::Timestamp};
use std::str::FromStr;

/// The shortest and the longest time a permission may last.
pub const LASTS_MS: (i64, i64) = (60_000, 90 * 86_400_000);
/// A request that nobody decides lapses after this.
pub const LAPSES_MS: i64 = 14 * 86_400_000;
/// What has ended is shown for so long; the log keeps the evidence.
pub const SHOWN_MS: i64 = 90 * 86_400_000;
/// Bounds on what staff write into a request.
pub const MAX_PURPOSE: usize = 512;
/// See [`MAX_PURPOSE`].
pub const MAX_TICKET: usize = 64;

/// What a grant is good for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// To hear it: delivered a little ahead of what is heard, marked as for playing at once.
    Listen = 1,
    /// To keep a copy: delivered as fast as the line takes it.
    Download = 2,
}

impl Level {
    /// From the number in sealed values.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Listen, Self::Download].into_iter().find(|level| *level as u32 == number)
    }
}

/// How far a permission got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Waits for the customer.
    Asked = 1,
    /// Good until its end.
    Granted = 2,
    /// The customer said no.
    Denied = 3,
    /// The customer took it back.
    Revoked = 4,
    /// Its time ran out.
    Expired = 5,
    /// Nobody decided in time.
    Lapsed = 6,
}

impl State {
    /// From the number in sealed values.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Asked, Self::Granted, Self::Denied, Self::Revoked, Self::Expired, Self::Lapsed]
            .into_iter()
            .find(|state| *state as u32 == number)
    }

    /// Whether nothing follows any more.
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Asked | Self::Granted)
    }
}

/// What is asked for, or granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Hearing, or keeping a copy.
    pub level: Level,
    /// For how long, from the grant on.
    pub lasts_ms: i64,
    /// Whether recordings of calls that end after the grant are covered too.
    pub later_calls: bool,
}

/// Why terms are refused; the field and what to send instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {remedy}")]
pub struct BadTerms {
    /// The field's name on the wire.
    pub field: &'static str,
    /// What to send instead.
    pub remedy: &'static str,
}

impl Terms {
    /// Terms within their bounds.
    pub fn checked(self) -> Result<Self, BadTerms> {
        if (LASTS_MS.0..=LASTS_MS.1).contains(&self.lasts_ms) {
            Ok(self)
        } else {
            Err(BadTerms { field: "seconds", remedy: "a permission lasts from a minute to 90 days" })
        }
    }

    /// What is granted: what was asked for, less what the customer takes away. `None` takes nothing away.
    pub fn narrowed(
        self,
        level: Option<Level>,
        lasts_ms: Option<i64>,
        later_calls: Option<bool>,
    ) -> Result<Self, BadTerms> {
        let wider = |field| Err(BadTerms { field, remedy: "a grant is not wider than what was asked for" });
        if level.is_some_and(|level| level > self.level) {
            return wider("level");
        }
        if lasts_ms.is_some_and(|lasts| lasts > self.lasts_ms) {
            return wider("seconds");
        }
        if later_calls.is_some_and(|later| later && !self.later_calls) {
            return wider("later_calls");
        }
        Terms {
            level: level.unwrap_or(self.level),
            lasts_ms: lasts_ms.unwrap_or(self.lasts_ms),
            later_calls: later_calls.unwrap_or(self.later_calls),
        }
        .checked()
    }
}

/// What is in force: the state as it is stored, and the moment it ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// As stored.
    pub state: State,
    /// When it was asked for.
    pub asked: Timestamp,
    /// Where granted: good before this moment and not at it.
    pub until: Option<Timestamp>,
}

impl Standing {
    /// The state at a moment: time ends what nobody ended.
    pub fn at(self, now: Timestamp) -> State {
        match self.state {
            State::Granted if self.until.is_none_or(|until| now >= until) => State::Expired,
            State::Asked if now >= self.asked.plus_ms(LAPSES_MS) => State::Lapsed,
            state => state,
        }
    }

    /// When time ends it; none for what has ended.
    pub fn ends(self) -> Option<Timestamp> {
        match self.state {
            State::Granted => Some(self.until.unwrap_or(self.asked)),
            State::Asked => Some(self.asked.plus_ms(LAPSES_MS)),
            _ => None,
        }
    }
}

/// Whether a grant that was given at `granted` covers a recording whose call ended at `ended`, which is known to the minute
/// and rounded up (none while it runs).
///
/// A customer who lets somebody hear "this subscriber's recordings" means those there are. A call that ends in a later
/// minute is covered only where the grant says so; one that has no end yet is not, whatever was stated about its start.
pub fn covers(granted: Timestamp, later_calls: bool, ended: Option<Timestamp>) -> bool {
    later_calls || ended.is_some_and(|ended| ended < granted.plus_ms(60_000))
}

/// The text is not the id of a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a permission has 32 hexadecimal digits")]
pub struct NotAPermissionId;

impl FromStr for PermissionId {
    type Err = NotAPermissionId;

    fn from_str(text: &str) -> Result<Self, NotAPermissionId> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes());
        bytes.ok().and_then(|bytes| Self::from_slice(&bytes)).ok_or(NotAPermissionId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms() -> impl Strategy<Value = Terms> {
        (any::<bool>(), LASTS_MS.0..=LASTS_MS.1, any::<bool>()).prop_map(|(download, lasts_ms, later_calls)| Terms {
            level: if download { Level::Download } else { Level::Listen },
            lasts_ms,
            later_calls,
        })
    }

    proptest! {
        #[test]
        fn a_grant_is_never_wider_than_what_was_asked_for(asked in terms(), wanted in terms()) {
            if let Ok(granted) = asked.narrowed(Some(wanted.level), Some(wanted.lasts_ms), Some(wanted.later_calls)) {
                prop_assert!(granted.level <= asked.level);
                prop_assert!(granted.lasts_ms <= asked.lasts_ms);
                prop_assert!(asked.later_calls || !granted.later_calls);
                prop_assert_eq!(granted, wanted);
            } else {
                prop_assert!(
                    wanted.level > asked.level
                        || wanted.lasts_ms > asked.lasts_ms
                        || (wanted.later_calls && !asked.later_calls)
                );
            }
        }

        #[test]
        fn what_is_not_taken_away_is_granted_as_asked(asked in terms()) {
            prop_assert_eq!(asked.narrowed(None, None, None), Ok(asked));
        }

        #[test]
        fn an_id_reads_back_and_hostile_text_never_panics(bytes: [u8; 16], text: String) {
            prop_assert_eq!(PermissionId(bytes).to_string().parse(), Ok(PermissionId(bytes)));
            let _ = text.parse::<PermissionId>();
        }
    }

    #[test]
    fn a_grant_ends_at_its_moment_and_a_request_lapses() {
        let (asked, until) = (Timestamp(1000), Timestamp(5000));
        let granted = Standing { state: State::Granted, asked, until: Some(until) };
        assert_eq!(granted.at(Timestamp(4999)), State::Granted);
        assert_eq!(granted.at(until), State::Expired);
        let waits = Standing { state: State::Asked, asked, until: None };
        assert_eq!(waits.at(asked.plus_ms(LAPSES_MS - 1)), State::Asked);
        assert_eq!(waits.at(asked.plus_ms(LAPSES_MS)), State::Lapsed);
        for state in [State::Denied, State::Revoked] {
            assert_eq!(Standing { state, asked, until: Some(until) }.at(Timestamp(i64::MAX)), state);
        }
        // A grant without an end is a damaged row, and is no grant.
        assert_eq!(Standing { state: State::Granted, asked, until: None }.at(Timestamp(0)), State::Expired);
    }

    #[test]
    fn a_grant_covers_the_calls_that_had_ended() {
        let (granted, minute) = (Timestamp(10_030_000), 60_000);
        // The call ended before the grant, or in the same minute: its end is rounded up.
        for ended in [0, 10_020_000, 10_080_000] {
            assert!(covers(granted, false, Some(Timestamp(ended))), "{ended}");
        }
        let later = Some(granted.plus_ms(minute));
        assert!(!covers(granted, false, later));
        assert!(!covers(granted, false, None), "a call that runs has not ended");
        assert!(covers(granted, true, later) && covers(granted, true, None));
    }

    #[test]
    fn terms_have_bounds() {
        let terms = |lasts_ms| Terms { level: Level::Listen, lasts_ms, later_calls: false };
        assert!(terms(LASTS_MS.0).checked().is_ok() && terms(LASTS_MS.1).checked().is_ok());
        for lasts in [i64::MIN, 0, LASTS_MS.0 - 1, LASTS_MS.1 + 1, i64::MAX] {
            assert_eq!(terms(lasts).checked().map_err(|error| error.field), Err("seconds"));
        }
    }
}
