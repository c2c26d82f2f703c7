//! `quietus-forensics`, and its findings as the demo judges them.

use crate::gateway::program;
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// What the attacker holds.
pub struct Loot<'a> {
    /// Folders of key stores and journals, of any time.
    pub keys: &'a [PathBuf],
    /// Root slots.
    pub slots: &'a [PathBuf],
    /// Folders of objects, of any time.
    pub objects: &'a [PathBuf],
    /// Strings to look for, one a line.
    pub strings: &'a Path,
}

/// What came of it.
#[derive(Default)]
pub struct Findings {
    /// Each object that opened, and the recording it is of.
    pub readable: BTreeMap<String, String>,
    /// Objects that did not.
    pub unreadable: BTreeSet<String>,
    /// Readable and unreadable, for each kind of sealed value: names, facts, journal frames and so on.
    pub values: BTreeMap<String, [u64; 2]>,
    /// Recordings of which anything at all opened.
    pub recordings: BTreeSet<String>,
    /// Each string, and where it was met.
    pub strings: BTreeMap<String, Vec<String>>,
    /// How long it took.
    pub took: Duration,
}

impl Findings {
    /// Lets it loose.
    pub fn of(loot: &Loot<'_>) -> anyhow::Result<Self> {
        let program = program("quietus-forensics")?;
        let started = Instant::now();
        let output = Command::new(&program)
            .args(["--json", "--values", "--find"])
            .arg(format!("@{}", loot.strings.display()))
            .arg("--keys")
            .args(loot.keys)
            .arg("--slot")
            .args(loot.slots)
            .arg("--objects")
            .args(loot.objects)
            .output()
            .with_context(|| program.display().to_string())?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "quietus-forensics: {}", complaint.trim());
        let mut findings = Self { took: started.elapsed(), ..Self::default() };
        let said = String::from_utf8(output.stdout)?;
        let mut last = Value::Null;
        for line in said.lines() {
            last = serde_json::from_str(line)?;
            findings.add(&last)?;
        }
        let total = [findings.readable.len() as u64, findings.unreadable.len() as u64];
        let summary = [last["readable"].as_u64(), last["unreadable"].as_u64()];
        ensure!(summary == total.map(Some), "the findings do not add up to their summary");
        Ok(findings)
    }

    fn add(&mut self, line: &Value) -> anyhow::Result<()> {
        let recording = line["recording"].as_str().map(str::to_owned);
        let readable = line["state"] == "readable";
        if readable {
            self.recordings.extend(recording.clone());
        }
        if let Some(object) = line["object"].as_str() {
            match recording.filter(|_| readable) {
                Some(recording) => _ = self.readable.insert(object.to_owned(), recording),
                None => _ = self.unreadable.insert(object.to_owned()),
            }
        } else if let Some(value) = line["value"].as_str() {
            self.values.entry(value.to_owned()).or_default()[usize::from(!readable)] += 1;
        } else if let Some(string) = line["find"].as_str() {
            let places = line["places"].as_array().context("places")?;
            let places = places.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            self.strings.insert(string.to_owned(), places);
        }
        Ok(())
    }

    /// Readable and unreadable values of a kind.
    pub fn count(&self, value: &str) -> [u64; 2] {
        self.values.get(value).copied().unwrap_or_default()
    }

    /// Where a string was met.
    pub fn places(&self, string: &str) -> anyhow::Result<&[String]> {
        self.strings.get(string).map(Vec::as_slice).context("forensics did not look for a string it was given")
    }
}
