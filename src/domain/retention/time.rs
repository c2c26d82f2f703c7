//! The times that a policy speaks of: lengths, and moments that hang on an event or a date.
//!
//! A length is written `40d`, `48h`, `30min`, `2w` or `5y`, and several in a row are added: `5y 90d`. Years are calendar
//! years in UTC, so that a floor of five years ends on the day that the law means; a 29 February becomes the 28th where
//! the year has none. Everything else is a fixed number of minutes. Arithmetic saturates: no text from outside panics.

use crate::domain::time::Timestamp;
use jiff::{SignedDuration, Span, Unit, civil::Date, tz::TimeZone};
use std::{fmt, str::FromStr};

const MINUTES_A_DAY: u32 = 24 * 60;
/// Longest length.
const MAX_YEARS: u16 = 100;
/// Longest fixed part of a length.
const MAX_MINUTES: u32 = 100 * 366 * MINUTES_A_DAY;

/// How long. Years by the calendar, the rest in minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Length {
    years: u16,
    minutes: u32,
}

impl Length {
    /// A fixed number of minutes, at most a hundred years of them.
    pub const fn minutes(minutes: u32) -> Self {
        Self { years: 0, minutes: if minutes > MAX_MINUTES { MAX_MINUTES } else { minutes } }
    }

    /// The minutes of a length without years.
    pub fn fixed(self) -> Option<u32> {
        (self.years == 0).then_some(self.minutes)
    }

    /// Minutes by which it is longer than another, at least, whichever years they span.
    pub fn surely_beyond(self, other: Length) -> i64 {
        let years = i64::from(self.years) - i64::from(other.years);
        let days = if years >= 0 { years * 365 } else { years * 366 };
        days * i64::from(MINUTES_A_DAY) + i64::from(self.minutes) - i64::from(other.minutes)
    }

    /// The moment so long after another.
    pub fn after(self, moment: Timestamp) -> Timestamp {
        let Ok(from) = jiff::Timestamp::from_millisecond(moment.0) else { return moment };
        let years = Span::new().years(i64::from(self.years));
        let there = from
            .to_zoned(TimeZone::UTC)
            .checked_add(years)
            .and_then(|later| later.checked_add(SignedDuration::from_mins(i64::from(self.minutes))));
        there.map_or(Timestamp(i64::MAX), |there| Timestamp(there.timestamp().as_millisecond()))
    }

    /// The moment so long before another; years count 366 days here, which is never too late.
    pub fn before(self, moment: Timestamp) -> Timestamp {
        let minutes = i64::from(self.years) * 366 * i64::from(MINUTES_A_DAY) + i64::from(self.minutes);
        moment.plus_ms(-minutes * 60_000)
    }
}

/// The text is no length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a length such as `40d`, `48h`, `30min`, `2w`, `5y` or `5y 90d`, at most 100 years")]
pub struct NotALength;

/// The units and their minutes; years go by the calendar.
const UNITS: [(&str, u32); 5] = [("y", 0), ("w", 7 * MINUTES_A_DAY), ("d", MINUTES_A_DAY), ("h", 60), ("min", 1)];

impl FromStr for Length {
    type Err = NotALength;

    fn from_str(text: &str) -> Result<Self, NotALength> {
        let mut length = Self::default();
        let mut any = false;
        for word in text.split_ascii_whitespace() {
            let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, unit) = word.split_at(digits);
            let number: u32 = number.parse().map_err(|_| NotALength)?;
            let (unit, minutes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NotALength)?;
            if *unit == "y" {
                let years = u16::try_from(number).map_err(|_| NotALength)?;
                length.years = length.years.checked_add(years).ok_or(NotALength)?;
            } else {
                let minutes = number.checked_mul(*minutes).ok_or(NotALength)?;
                length.minutes = length.minutes.checked_add(minutes).ok_or(NotALength)?;
            }
            any = true;
        }
        let bounded = length.years <= MAX_YEARS && length.minutes <= MAX_MINUTES;
        if any && bounded { Ok(length) } else { Err(NotALength) }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours, minutes) =
            (self.minutes / MINUTES_A_DAY, self.minutes % MINUTES_A_DAY / 60, self.minutes % 60);
        let parts = [(u32::from(self.years), "y"), (days, "d"), (hours, "h"), (minutes, "min")];
        let words: Vec<String> =
            parts.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}")).collect();
        if words.is_empty() { f.write_str("0h") } else { f.write_str(&words.join(" ")) }
    }
}

/// What a time may hang on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The end of the call.
    End,
    /// The account was closed.
    Close,
    /// The subscriber was deactivated.
    Deactivation,
}

impl Event {
    /// The word in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Event::End => "end",
            Event::Close => "close",
            Event::Deactivation => "deactivation",
        }
    }
}

/// A moment as a policy names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// So long after an event.
    After(Length, Event),
    /// At the beginning of a day, UTC.
    On(Date),
}

/// The text names no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write `LENGTH after end`, `LENGTH after close`, `LENGTH after deactivation`, or a date such as `2031-01-01`")]
pub struct NotAMoment;

impl FromStr for When {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        if let Some((length, event)) = text.split_once(" after ") {
            let length = length.parse().map_err(|NotALength| NotAMoment)?;
            let event = [Event::End, Event::Close, Event::Deactivation]
                .into_iter()
                .find(|known| known.word() == event.trim())
                .ok_or(NotAMoment)?;
            return Ok(Self::After(length, event));
        }
        let text = text.trim();
        let date: Date = text.parse().map_err(|_| NotAMoment)?;
        // jiff reads more spellings than a policy should have.
        if date.to_string() == text && (2000..=2999).contains(&date.year()) {
            Ok(Self::On(date))
        } else {
            Err(NotAMoment)
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::After(length, event) => write!(f, "{length} after {}", event.word()),
            When::On(date) => write!(f, "{date}"),
        }
    }
}

/// The beginning of a day, UTC.
pub(super) fn midnight(date: Date) -> Timestamp {
    date.to_zoned(TimeZone::UTC).map_or(Timestamp(0), |zoned| Timestamp(zoned.timestamp().as_millisecond()))
}

/// A moment for people: to the minute, UTC.
pub fn spoken(moment: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(moment.0).and_then(|moment| moment.round(Unit::Minute)) {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => "never".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().expect("a moment").as_millisecond())
    }

    #[test]
    fn years_are_calendar_years_and_days_are_24_hours() {
        let end = at("2023-03-01T10:30:00Z");
        assert_eq!("5y".parse::<Length>().expect("good").after(end), at("2028-03-01T10:30:00Z"));
        assert_eq!("5y 90d".parse::<Length>().expect("good").after(end), at("2028-05-30T10:30:00Z"));
        assert_eq!("1w 1d 1h 1min".parse::<Length>().expect("good").after(end), at("2023-03-09T11:31:00Z"));
        assert_eq!("30d 5y 60d".parse::<Length>(), "5y 90d".parse::<Length>());
        assert_eq!("1y".parse::<Length>().expect("good").after(at("2024-02-29T12:00:00Z")), at("2025-02-28T12:00:00Z"));
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for text in ["", "d", "4", "4 d", "-4d", "4m", "101y", "99999999999d", "4d,"] {
            assert_eq!(text.parse::<Length>(), Err(NotALength), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "after end", "4d after start", "4d", "tomorrow", "20310101", "1999-12-31", "2031-02-30"] {
            assert_eq!(text.parse::<When>(), Err(NotAMoment), "{text}");
        }
    }

    #[test]
    fn a_comparison_holds_whichever_years_are_spanned() {
        let length = |text: &str| text.parse::<Length>().expect("good");
        assert_eq!(length("5y 90d").surely_beyond(length("5y")), i64::from(90 * MINUTES_A_DAY));
        assert_eq!(length("1y").surely_beyond(length("365d")), 0);
        assert_eq!(length("366d").surely_beyond(length("1y")), 0);
        assert!(length("365d").surely_beyond(length("1y")) < 0);
    }

    proptest::proptest! {
        #[test]
        fn hostile_text_and_moments_never_panic(text in ".{0,40}", moment: i64, years in 0u32..200, days in 0u32..60_000) {
            let _ = text.parse::<When>();
            if let Ok(length) = format!("{years}y {days}d").parse::<Length>() {
                let _ = (length.after(Timestamp(moment)), length.before(Timestamp(moment)));
            }
            let _ = spoken(Timestamp(moment));
        }

        #[test]
        fn a_length_reads_back_from_its_spelling(years in 0u16..=100, minutes in 0..=MAX_MINUTES) {
            let length = Length { years, minutes };
            proptest::prop_assert_eq!(length.to_string().parse::<Length>(), Ok(length));
        }
    }
}
