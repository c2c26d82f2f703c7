//! Findings in words and in JSON lines, as `interface.md` promises them.
//!
//! JSON: a line per object, with `values` a line per sealed value, a line per string that was looked for, and one summary
//! at the end. A value is counted once, however many copies of it lie about. No content is printed; secrets are, for
//! [`export`] alone.

use super::{Findings, closure::Role, closure::what, hex, objects::Object};
use crate::{crypto::envelope::Kind, domain::id::RecordingId};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

const READABLE: &str = "readable";
const UNREADABLE: &str = "unreadable";
/// The period's key is there, and the client id, which only its client has, is the rest of the key.
const NEEDS_CLIENT_ID: &str = "unreadable-without-client-id";

fn state(readable: bool) -> &'static str {
    if readable { READABLE } else { UNREADABLE }
}

/// A sealed value's line.
struct Line {
    value: &'static str,
    state: &'static str,
    row: Option<String>,
    recording: Option<RecordingId>,
}

/// One line per object, value and string, and the summary.
pub fn json_lines(findings: &Findings, values: bool, out: &mut impl Write) -> io::Result<()> {
    for object in &findings.objects.0 {
        let mut line = json!({"object": object.name, "state": state(object.readable())});
        if let Some(recording) = object.recording() {
            line["recording"] = json!(recording.to_string());
        }
        if object.damaged() {
            line["damaged"] = json!(true);
        }
        writeln!(out, "{line}")?;
    }
    if values {
        for line in lines(findings) {
            let mut json = json!({"value": line.value, "state": line.state});
            if let Some(row) = line.row {
                json["row"] = json!(row);
            }
            if let Some(recording) = line.recording {
                json["recording"] = json!(recording.to_string());
            }
            writeln!(out, "{json}")?;
        }
    }
    for (string, places) in findings.needles.results() {
        writeln!(out, "{}", json!({"find": string, "found": !places.is_empty(), "places": places}))?;
    }
    let readable = findings.objects.0.iter().filter(|object| object.readable()).count();
    let mut summary = json!({"readable": readable, "unreadable": findings.objects.0.len() - readable});
    if values {
        for (key, count) in value_counts(findings) {
            summary[key] = json!(count);
        }
    }
    writeln!(out, "{summary}")
}

fn value_counts(findings: &Findings) -> [(&'static str, usize); 2] {
    let (mut readable, mut unreadable) = (0, 0);
    for line in lines(findings) {
        *if line.state == READABLE { &mut readable } else { &mut unreadable } += 1;
    }
    [("values_readable", readable), ("values_unreadable", unreadable)]
}

/// The same for people: what was found, what it amounts to.
pub fn text(findings: &Findings, values: bool, out: &mut impl Write) -> io::Result<()> {
    let (carved, closure) = (&findings.carved, &findings.closure);
    writeln!(out, "read       {} bytes in {} files", carved.bytes, carved.files())?;
    writeln!(out, "roots      {} of the slots' 32-byte strings open a top page", closure.roots)?;
    let mut table: BTreeMap<&'static str, [usize; 2]> = BTreeMap::new();
    for line in lines(findings) {
        table.entry(line.value).or_default()[usize::from(line.state != READABLE)] += 1;
    }
    writeln!(out, "\n{:<20}{:>12}{:>12}", "", READABLE, UNREADABLE)?;
    for (value, [readable, unreadable]) in &table {
        writeln!(out, "{value:<20}{readable:>12}{unreadable:>12}")?;
    }
    let count = |predicate: fn(&Object) -> bool| findings.objects.0.iter().filter(|object| predicate(object)).count();
    let (readable, damaged) = (count(Object::readable), count(Object::damaged));
    writeln!(out, "{:<20}{readable:>12}{:>12}", "object", findings.objects.0.len() - readable)?;
    if damaged > 0 {
        writeln!(
            out,
            "\n{damaged} of the unreadable objects are damaged: their secret is known, and no copy is whole"
        )?;
    }
    if values {
        writeln!(out)?;
        for object in &findings.objects.0 {
            writeln!(out, "{:<12}{:<20}{}", state(object.readable()), "object", object.name)?;
        }
        for line in lines(findings) {
            writeln!(out, "{:<12}{:<20}{}", line.state, line.value, line.row.unwrap_or_default())?;
        }
    }
    for (string, places) in findings.needles.results() {
        let places: Vec<_> = places.iter().copied().collect();
        let said = if places.is_empty() { "not found".to_owned() } else { format!("found in: {}", places.join(", ")) };
        writeln!(out, "find       {string}: {said}")?;
    }
    Ok(())
}

/// Every sealed value once, by the salt of its epoch.
fn lines(findings: &Findings) -> Vec<Line> {
    let (carved, closure) = (&findings.carved, &findings.closure);
    let mut lines = Vec::new();
    let mut rows: Vec<_> = carved.rows.iter().chain(closure.entries.keys()).collect();
    rows.sort();
    rows.dedup();
    let recording_of = |row| closure.secrets_of(row).iter().find_map(|known| known.recording);
    for row in rows {
        let entry = closure.entries.get(row);
        let mut line =
            |value, state| lines.push(Line { value, state, row: Some(hex(row)), recording: recording_of(row) });
        line("entry", state(entry.is_some()));
        // Whose entry it is cannot be told of one that is sealed, nor that there is a name in it.
        if matches!(entry, Some(&("tenant" | "subscriber"))) {
            line("name", READABLE);
        }
    }
    for (row, opens) in closure.wrapped.values() {
        let recording = recording_of(row);
        lines.push(Line { value: what(Kind::Wrapped), state: state(*opens), row: Some(hex(row)), recording });
    }
    let mut sealings: HashMap<[u8; 32], usize> = HashMap::new();
    for sealed in &carved.sealed {
        if sealings.insert(sealed.salt, 0).is_some() {
            continue;
        }
        let readable = closure.opened.contains(&sealed.salt);
        let period = || closure.secrets_of(&sealed.id).iter().any(|known| known.role == Role::Period);
        let state = match sealed.kind {
            Kind::Client if !readable && period() => NEEDS_CLIENT_ID,
            _ => state(readable),
        };
        let recording = if readable { recording_of(&sealed.id) } else { None };
        lines.push(Line { value: what(sealed.kind), state, row: Some(hex(&sealed.id)), recording });
    }
    let mut frames: HashMap<_, ()> = HashMap::new();
    for frame in &carved.frames {
        if frames.insert((frame.salt, frame.sequence), ()).is_none() {
            let readable = closure.frames.contains(&(frame.salt, frame.sequence));
            let recording = if readable { recording_of(&frame.row) } else { None };
            lines.push(Line { value: "journal frame", state: state(readable), row: Some(hex(&frame.row)), recording });
        }
    }
    lines
}

/// The audio secrets of a recording (by its id) or of an object (by its id), with the slice list that an independent reader
/// needs. Empty where none survives.
pub fn export(findings: &Findings, wanted: &str) -> Vec<Value> {
    let recording: Option<RecordingId> = wanted.parse().ok();
    let mut secrets: Vec<([u8; 32], Option<RecordingId>)> = Vec::new();
    let named = findings.objects.0.iter().filter(|object| object.name == wanted).filter_map(|object| object.key);
    let of_recording = findings
        .closure
        .secrets()
        .filter(|known| known.role == Role::Audio && recording.is_some() && known.recording == recording)
        .copied();
    for known in named.chain(of_recording) {
        if !secrets.iter().any(|(secret, _)| *secret == known.secret) {
            secrets.push((known.secret, known.recording));
        }
    }
    secrets
        .into_iter()
        .map(|(secret, recording)| {
            let of_secret = |object: &&Object| object.key.is_some_and(|known| known.secret == secret);
            let mut slices: Vec<_> = findings
                .objects
                .0
                .iter()
                .filter(of_secret)
                .filter_map(|object| object.slice.map(|slice| (slice.ordinal, &object.name, slice)))
                .collect();
            slices.sort_by_key(|(ordinal, name, _)| (*ordinal, *name));
            let slices: Vec<Value> = slices
                .into_iter()
                .map(|(ordinal, name, slice)| {
                    json!({"object": name, "ordinal": ordinal, "last": slice.last,
                           "salt": hex(&slice.salt), "length": slice.length})
                })
                .collect();
            json!({"recording": recording.map(|id| id.to_string()), "audio_secret": hex(&secret), "slices": slices})
        })
        .collect()
}
