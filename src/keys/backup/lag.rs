//! Since when the backup lacks commands. Pure.
//!
//! However long object storage is away, few times are kept: where there are too many, several commands share the time of the
//! first of them. So the oldest is never said to be younger than it is.

use crate::domain::time::Timestamp;
use std::collections::VecDeque;

/// Most times that are kept.
const MOST: usize = 1024;

/// Runs of commands that wait: the first command of each, and when that was applied. The last run is one command.
#[derive(Default)]
pub struct Lag(VecDeque<(u64, Timestamp)>);

impl Lag {
    /// At a start. How long what waits has waited already, nobody knows.
    pub fn found(backed: u64, applied: u64, now: Timestamp) -> Self {
        let mut lag = Self::default();
        if backed + 1 < applied {
            lag.applied(backed + 1, now);
        }
        if backed < applied {
            lag.applied(applied, now);
        }
        lag
    }

    /// The next command was applied.
    pub fn applied(&mut self, number: u64, now: Timestamp) {
        if self.0.len() == MOST {
            let mut kept = false;
            self.0.retain(|_| {
                kept = !kept;
                kept
            });
        }
        self.0.push_back((number, now));
    }

    /// The backup has everything up to a command.
    pub fn backed(&mut self, number: u64) {
        while let Some((first, _)) = self.0.front() {
            let last = self.0.get(1).map_or(*first, |(next, _)| next - 1);
            if last > number {
                return;
            }
            self.0.pop_front();
        }
    }

    /// When the oldest was applied of those that wait; none: none waits.
    pub fn since(&self) -> Option<Timestamp> {
        self.0.front().map(|(_, applied)| *applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_command_that_waits_tells_since_when() {
        let mut lag = Lag::default();
        for (number, at) in [(5, 50), (6, 60), (7, 70)] {
            lag.applied(number, Timestamp(at));
        }
        for (backed, since) in [(4, Some(50)), (5, Some(60)), (5, Some(60)), (6, Some(70)), (7, None)] {
            lag.backed(backed);
            assert_eq!(lag.since(), since.map(Timestamp), "{backed}");
        }
        lag.applied(8, Timestamp(80));
        assert_eq!(lag.since(), Some(Timestamp(80)));
    }

    #[test]
    fn what_a_start_finds_waits_since_the_start() {
        let mut lag = Lag::found(3, 9, Timestamp(1000));
        for (backed, since) in [(3, Some(1000)), (4, Some(1000)), (8, Some(1000)), (9, None)] {
            lag.backed(backed);
            assert_eq!(lag.since(), since.map(Timestamp), "{backed}");
        }
        assert_eq!(Lag::found(8, 9, Timestamp(1)).since(), Some(Timestamp(1)));
        assert_eq!(Lag::found(9, 9, Timestamp(1)).since(), None);
    }

    #[test]
    fn however_many_wait_few_times_are_kept_and_none_is_too_young() {
        let mut lag = Lag::default();
        let applied = 1..=100_000_u64;
        for number in applied.clone() {
            lag.applied(number, Timestamp(number as i64));
            assert!(lag.0.len() <= MOST);
        }
        for backed in applied.clone().take_while(|backed| backed < applied.end()) {
            lag.backed(backed);
            let since = lag.since().expect("the next one waits").0 as u64;
            assert!((1..=backed + 1).contains(&since), "{since} of {backed}");
        }
        lag.backed(*applied.end());
        assert_eq!(lag.since(), None);
    }
}
