//! Time as an argument: milliseconds since the Unix epoch, minutes for what is due, days in UTC, and the clock that tests
//! replace.

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

/// Minutes since 1970-01-01T00:00Z. A moment is rounded up to one: what is due must never be early.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Minute(pub u32);

impl Minute {
    /// No moment at all: nothing was stated.
    pub const NONE: Minute = Minute(0);
    /// After every moment.
    pub const NEVER: Minute = Minute(u32::MAX);

    /// The first minute that does not begin before a moment. A moment that is too far off is [`Minute::NEVER`].
    pub fn at_or_after(moment: Timestamp) -> Self {
        let begun = i64::from(moment.0.rem_euclid(60_000) != 0);
        let minutes = moment.0.div_euclid(60_000) + begun;
        if minutes < 0 { Self::NONE } else { u32::try_from(minutes).map_or(Self::NEVER, Self) }
    }

    /// The last minute that has begun: what is due by it is due now.
    pub fn begun(now: Timestamp) -> Self {
        let minutes = now.0.div_euclid(60_000);
        // Never itself is reached by no clock.
        if minutes < 0 { Self::NONE } else { Self(u32::try_from(minutes).unwrap_or(u32::MAX).min(u32::MAX - 1)) }
    }

    /// The moment at which it begins.
    pub fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0) * 60_000)
    }
}

/// A day in UTC: days since 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Day(pub u32);

impl Day {
    fn date(self) -> Result<jiff::civil::Date, jiff::Error> {
        jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(i64::from(self.0.min(2_900_000))))
    }

    fn of(date: jiff::civil::Date) -> Option<Self> {
        let since = jiff::civil::date(1970, 1, 1).until(date).ok()?;
        u32::try_from(since.get_days()).ok().map(Self)
    }

    /// The first day of its quarter.
    pub fn quarter(self) -> Self {
        let first = |date: jiff::civil::Date| {
            Self::of(jiff::civil::Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1).ok()?)
        };
        self.date().ok().and_then(first).unwrap_or(self)
    }

    /// The same day of the month, months later. Beyond the calendar: never.
    pub fn plus_months(self, months: u32) -> Self {
        let span = jiff::Span::new().try_months(i64::from(months));
        let later = self.date().and_then(|date| date.checked_add(span?));
        later.ok().and_then(Self::of).unwrap_or(Self(u32::MAX))
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.date() {
            Ok(date) => write!(f, "{date}"),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

/// Where `now` comes from.
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Set(Arc<Set>),
    Read(Arc<dyn Fn() -> Reading + Send + Sync>),
}

struct Set {
    now: AtomicI64,
    /// How far the witness lies ahead of `now`; [`AWAY`] where it does not answer.
    witness_ahead: AtomicI64,
}

/// A witness that does not answer.
const AWAY: i64 = i64::MIN;

/// What a clock that is read from somewhere shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The present moment.
    pub now: Timestamp,
    /// What a second clock says; none where it does not answer.
    pub witness: Option<Timestamp>,
}

/// Who can tell whether a clock is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Witness {
    /// Somebody outside must be asked.
    Ask,
    /// The clock was made with a witness of its own, which says this; none where it does not answer.
    Says(Option<Timestamp>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is set. Its witness agrees until it is told otherwise.
    pub fn set_to(now: Timestamp) -> Self {
        Self(Source::Set(Arc::new(Set { now: AtomicI64::new(now.0), witness_ahead: AtomicI64::new(0) })))
    }

    /// A clock that is read anew each time.
    pub fn read_by(reading: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self(Source::Read(Arc::new(reading)))
    }

    /// Moves a clock made by [`Clock::set_to`]; no other clock moves.
    pub fn advance_ms(&self, ms: i64) {
        if let Source::Set(set) = &self.0 {
            set.now.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Says how far the witness of a clock made by [`Clock::set_to`] lies ahead of it; none: it does not answer.
    pub fn set_witness_ahead(&self, ms: Option<i64>) {
        if let Source::Set(set) = &self.0 {
            set.witness_ahead.store(ms.unwrap_or(AWAY), Ordering::SeqCst);
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
            Source::Set(set) => Timestamp(set.now.load(Ordering::SeqCst)),
            Source::Read(reading) => reading().now,
        }
    }

    /// Who can tell whether it is right.
    pub fn witness(&self) -> Witness {
        match &self.0 {
            Source::System => Witness::Ask,
            Source::Set(set) => match set.witness_ahead.load(Ordering::SeqCst) {
                AWAY => Witness::Says(None),
                ahead => Witness::Says(Some(self.now().plus_ms(ahead))),
            },
            Source::Read(reading) => Witness::Says(reading().witness),
        }
    }

    /// Whether it is a clock that somebody moves, so that time may pass between two looks at it.
    pub fn is_moved(&self) -> bool {
        !matches!(self.0, Source::System)
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_never_before_its_moment() {
        for (moment, minute) in [(0, 0), (1, 1), (59_999, 1), (60_000, 1), (60_001, 2), (-1, 0), (-60_001, 0)] {
            assert_eq!(Minute::at_or_after(Timestamp(moment)), Minute(minute), "{moment}");
        }
        assert_eq!(Minute::at_or_after(Timestamp(i64::MAX)), Minute::NEVER);
        assert_eq!(Minute::at_or_after(Timestamp(i64::MIN)), Minute::NONE);
        for (now, minute) in [(0, 0), (59_999, 0), (60_000, 1), (-1, 0), (i64::MAX, u32::MAX - 1)] {
            assert_eq!(Minute::begun(Timestamp(now)), Minute(minute), "{now}");
        }
        assert_eq!(Minute(7).start(), Timestamp(420_000));
    }

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(Timestamp(86_399_999).day(), Day(0));
        assert_eq!(Timestamp(86_400_000).day(), Day(1));
        assert_eq!(Day(20_000).to_string(), "2024-10-04");
    }

    #[test]
    fn a_clock_that_is_set_brings_its_own_witness() {
        let clock = Clock::set_to(Timestamp(5));
        clock.advance_ms(2);
        assert_eq!(clock.witness(), Witness::Says(Some(Timestamp(7))));
        clock.set_witness_ahead(Some(-3));
        assert_eq!(clock.witness(), Witness::Says(Some(Timestamp(4))));
        clock.set_witness_ahead(None);
        assert_eq!(clock.witness(), Witness::Says(None));
        assert_eq!(Clock::system().witness(), Witness::Ask);
    }

    #[test]
    fn quarters_and_months_are_those_of_the_calendar() {
        let day = Day(20_000);
        assert_eq!(day.quarter().to_string(), "2024-10-01");
        assert_eq!(day.quarter().quarter(), day.quarter());
        assert_eq!(Day(0).quarter(), Day(0));
        assert_eq!(day.quarter().plus_months(3 + 12 * 6).to_string(), "2031-01-01");
        assert_eq!(day.plus_months(u32::MAX), Day(u32::MAX));
    }
}
