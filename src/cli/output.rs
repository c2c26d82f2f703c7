//! Lines on standard output: for people, or JSON. A reader that went away ends the command without a word.

use super::failure::Failure;
use serde_json::Value;
use std::io::Write as _;

/// How results are shown.
#[derive(Clone, Copy)]
pub struct Output {
    /// As JSON, one object per line.
    pub json: bool,
}

impl Output {
    /// One result.
    pub fn one(self, json: Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let line = if self.json { json.to_string() } else { text() };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    /// A table for people; `json` is left to the caller, a line each.
    pub fn table(self, header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: Vec<&str>| {
            let padded: Vec<_> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            padded.join("  ").trim_end().to_owned()
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", line(header.to_vec()))?;
        for row in rows {
            writeln!(out, "{}", line(row.iter().map(String::as_str).collect()))?;
        }
        Ok(out.flush()?)
    }
}

/// A moment as RFC 3339.
pub fn moment(ms: i64) -> Option<String> {
    let moment = (ms != 0).then(|| jiff::Timestamp::from_millisecond(ms)).and_then(Result::ok)?;
    Some(moment.to_string())
}
