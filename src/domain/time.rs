//! Time as an argument: milliseconds since the Unix epoch, days in UTC, and the clock that tests replace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The day this moment lies in.
    pub fn day(self) -> Day {
        Day(u32::try_from(self.0.div_euclid(86_400_000)).unwrap_or(0))
    }

    /// This moment moved by some milliseconds.
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A day in UTC: days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Day(pub u32);

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(i64::from(self.0.min(2_900_000))));
        match date {
            Ok(date) => write!(f, "{date}"),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

/// Where `now` comes from.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is set.
    pub fn set_to(now: Timestamp) -> Self {
        Self(Source::Set(Arc::new(AtomicI64::new(now.0))))
    }

    /// Moves a clock made by [`Clock::set_to`]; the system's clock does not move.
    pub fn advance_ms(&self, ms: i64) {
        if let Source::Set(now) = &self.0 {
            now.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            ),
            Source::Set(now) => Timestamp(now.load(Ordering::SeqCst)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(Timestamp(86_399_999).day(), Day(0));
        assert_eq!(Timestamp(86_400_000).day(), Day(1));
        assert_eq!(Day(20_000).to_string(), "2024-10-04");
    }
}
