//! What `quietus record --pause` leaves out of a file: seconds as they are typed, and the bytes they are.

use super::failure::Failure;
use crate::domain::{media, pause::PauseReason};
use std::ops::Range;

/// A stretch of a call, in seconds from its beginning.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stretch {
    from: f64,
    to: f64,
}

/// Bytes of a file that are left out, and when that begins and ends.
#[derive(Clone, PartialEq, Debug)]
pub struct Cut {
    /// Of the file.
    pub bytes: Range<u64>,
    /// When the pause begins.
    pub begins_ms: i64,
    /// When it ends.
    pub ends_ms: i64,
}

/// Reads `FROM..TO`.
pub fn stretch(text: &str) -> Result<Stretch, String> {
    let seconds = |text: &str| text.parse::<f64>().ok();
    match text.split_once("..").and_then(|(from, to)| Some((seconds(from)?, seconds(to)?))) {
        Some((from, to)) if 0.0 <= from && from < to && to.is_finite() => Ok(Stretch { from, to }),
        _ => Err("seconds are written FROM..TO, such as 12.5..31".to_owned()),
    }
}

/// Reads the reason of a pause.
pub fn reason(word: &str) -> Result<PauseReason, String> {
    PauseReason::from_word(word).ok_or_else(|| format!("one of {}", PauseReason::words()))
}

/// How many seconds a file plays, where its beginning tells.
pub fn seconds(media_type: &str, head: &[u8], length: u64) -> Option<f64> {
    media::layout(media_type, head).map(|layout| layout.duration(length))
}

/// The bytes to leave out of a file whose call began at `start_ms`, in order.
pub fn cuts(
    stretches: &[Stretch],
    (media_type, head): (&str, &[u8]),
    length: u64,
    start_ms: i64,
) -> Result<Vec<Cut>, Failure> {
    if stretches.is_empty() {
        return Ok(Vec::new());
    }
    let layout = media::layout(media_type, head);
    let layout = layout.ok_or_else(|| Failure::usage("--pause needs a media type that tells its rate"))?;
    let mut stretches = stretches.to_vec();
    stretches.sort_by(|a, b| a.from.total_cmp(&b.from));
    if stretches.windows(2).any(|pair| pair[1].from < pair[0].to) {
        return Err(Failure::usage("--pause: two of them overlap"));
    }
    if stretches.last().is_some_and(|last| last.from >= layout.duration(length)) {
        return Err(Failure::usage("--pause: one begins behind the end of the file"));
    }
    // A float's cast saturates.
    let moment = |seconds: f64| start_ms.saturating_add((seconds * 1000.0) as i64);
    let cut = |stretch: &Stretch| Cut {
        bytes: layout.byte_range(stretch.from, stretch.to, length),
        begins_ms: moment(stretch.from),
        ends_ms: moment(stretch.to),
    };
    Ok(stretches.iter().map(cut).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_typed_as_a_range() {
        assert_eq!(stretch("1.5..3"), Ok(Stretch { from: 1.5, to: 3.0 }));
        for wrong in ["", "1", "1..", "..2", "3..1", "1..1", "-1..2", "1..inf", "NaN..2", "1-2"] {
            assert!(stretch(wrong).is_err(), "{wrong}");
        }
        assert!(reason("payment-card").is_ok() && reason("her card").is_err());
    }

    #[test]
    fn cuts_are_the_bytes_of_the_seconds_in_order() {
        let alaw = |typed: &[&str]| {
            let typed: Vec<_> = typed.iter().map(|text| stretch(text).expect("good")).collect();
            cuts(&typed, ("audio/PCMA", &[]), 80_000, 1000)
        };
        let cut = |bytes, begins_ms, ends_ms| Cut { bytes, begins_ms, ends_ms };
        assert_eq!(
            alaw(&["5..99", "1..2.5"]),
            Ok(vec![cut(8000..20_000, 2000, 3500), cut(40_000..80_000, 6000, 100_000)])
        );
        assert_eq!(alaw(&["1..2", "2..3"]).map(|cuts| cuts.len()), Ok(2));
        assert!(alaw(&["1..3", "2..4"]).is_err() && alaw(&["10..11"]).is_err());
        let typed = [stretch("1..2").expect("good")];
        assert!(cuts(&typed, ("audio/ogg", &[]), 100, 0).is_err(), "no rate");
    }
}
