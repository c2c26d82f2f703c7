//! A clock that is read from a file: `quietus dev --clock FILE`, so that months can be rehearsed in seconds.
//!
//! The first line is the present moment in milliseconds since 1970. The second one, where there is one, is what a second
//! clock says ([`Reading::witness`]): a number, or `away`; without it the second clock agrees. The file is read anew at
//! each look. Whoever moves the time writes a new file and renames it, or writes in place: a file that is empty or broken
//! for a moment leaves the last reading standing. `quietus serve` takes no such file: its time is the system's.

use crate::domain::time::{Clock, Reading, Timestamp};
use anyhow::Context as _;
use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

/// A clock that goes by a file.
///
/// # Errors
/// When the file cannot be read now.
pub fn clock(path: &Path) -> anyhow::Result<Clock> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let first = parse(&text).with_context(|| format!("{}: write milliseconds since 1970", path.display()))?;
    let (path, last) = (path.to_owned(), Mutex::new(first));
    Ok(Clock::read_by(move || {
        let read = std::fs::read_to_string(&path).ok().and_then(|text| parse(&text));
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = read {
            *last = read;
        }
        *last
    }))
}

fn parse(text: &str) -> Option<Reading> {
    // Half a number, of a file that is being written, is an earlier time: nothing is done early for it.
    let mut lines = text.lines();
    let moment = |line: &str| line.trim().parse().ok().filter(|ms| *ms >= 0).map(Timestamp);
    let now = moment(lines.next()?)?;
    let witness = match lines.next().map(str::trim) {
        None => Some(now),
        Some("away") => None,
        Some(line) => Some(moment(line)?),
    };
    lines.next().is_none().then_some(Reading { now, witness })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Witness;

    #[test]
    fn the_clock_goes_by_its_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("clock");
        assert!(clock(&path).is_err());
        std::fs::write(&path, "1000\n").expect("written");
        let clock = clock(&path).expect("a clock");
        assert_eq!((clock.now(), clock.witness()), (Timestamp(1000), Witness::Says(Some(Timestamp(1000)))));
        std::fs::write(&path, "2000\n7\n").expect("written");
        assert_eq!((clock.now(), clock.witness()), (Timestamp(2000), Witness::Says(Some(Timestamp(7)))));
        for broken in ["", "3000\naw", "x\n", "3000\n7\n8\n", "-1\n"] {
            std::fs::write(&path, broken).expect("written");
            assert_eq!(clock.now(), Timestamp(2000), "{broken:?}");
        }
        std::fs::write(&path, "3000\naway\n").expect("written");
        assert_eq!((clock.now(), clock.witness()), (Timestamp(3000), Witness::Says(None)));
    }

    proptest::proptest! {
        #[test]
        fn hostile_text_never_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
