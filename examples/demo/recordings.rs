//! What is stored in the demo: whose recordings, from which files, under which ids.
//!
//! Numbers are from the ranges that the British regulator keeps free for fiction. They reach the client in files
//! (`@FILE`), as they would in production, so that they stand in no process list.

use crate::gateway::Client;
use anyhow::{Context as _, ensure};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

/// The tenant; `quietus dev` has a customer who is an administrator of this one.
pub const TENANT: &str = "acme";

/// A subscriber, whom they talk to, and what one of their calls was called at the switch.
pub struct Subscriber {
    /// Their number, which is their name here.
    pub number: String,
    /// The other party of their calls.
    pub party: String,
    /// The switch's id.
    pub call_id: String,
    number_file: PathBuf,
    party_file: PathBuf,
    full_name_file: PathBuf,
}

impl Subscriber {
    /// The one with this index, below 10.
    pub fn new(index: usize, names: &Path) -> anyhow::Result<Self> {
        let subscriber = Self {
            number: format!("+44163296000{index}"),
            party: format!("+44770090010{index}"),
            call_id: format!("switch-7f3a-{index}"),
            number_file: names.join(format!("number-{index}")),
            party_file: names.join(format!("party-{index}")),
            full_name_file: names.join(format!("name-{index}")),
        };
        std::fs::write(&subscriber.number_file, &subscriber.number)?;
        std::fs::write(&subscriber.party_file, &subscriber.party)?;
        std::fs::write(&subscriber.full_name_file, format!("{TENANT}/{}", subscriber.number))?;
        Ok(subscriber)
    }

    /// The same call, made by another subscriber.
    pub fn called_from(mut self, other: &Self) -> Self {
        self.number = other.number.clone();
        self.number_file = other.number_file.clone();
        self.full_name_file = other.full_name_file.clone();
        self
    }

    /// `@FILE` with the number.
    pub fn number_argument(&self) -> String {
        format!("@{}", self.number_file.display())
    }

    /// `@FILE` with what a receipt of this subscriber's erasure is about, as it is hashed.
    pub fn receipt_scope(&self) -> anyhow::Result<String> {
        let file = self.full_name_file.with_extension("scope");
        std::fs::write(&file, format!("subscriber {TENANT}/{}", self.number))?;
        Ok(format!("@{}", file.display()))
    }

    /// `@FILE` with TENANT/NUMBER.
    pub fn name_argument(&self) -> String {
        format!("@{}", self.full_name_file.display())
    }
}

/// A recording that the gateway acknowledged as stored.
pub struct Recording {
    /// Its id.
    pub id: String,
    /// What was sent.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// `quietus record`, running.
pub struct Recorder {
    process: Child,
    files: usize,
    complaints: PathBuf,
}

impl Recorder {
    /// Starts it.
    pub fn start(client: &Client, whose: &Subscriber, live: bool, files: &[PathBuf]) -> anyhow::Result<Self> {
        let party = format!("@{}", whose.party_file.display());
        let complaints = whose.number_file.with_extension("log");
        let mut command = client.command(&["record", "--tenant", TENANT, "--kind", "call", "--jobs", "8"]);
        command.args(["--subscriber", &whose.number_argument(), "--party", &party, "--call-id", &whose.call_id]);
        if live {
            command.arg("--live");
        }
        let process = command
            .args(files)
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&complaints)?);
        Ok(Self { process: process.spawn()?, files: files.len(), complaints })
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Follows it to its end, telling of each recording as it is done.
    pub fn finish(mut self, mut each: impl FnMut(&Recording)) -> anyhow::Result<Vec<Recording>> {
        let mut recordings = Vec::with_capacity(self.files);
        let said = self.process.stdout.take().context("standard output is piped")?;
        for line in BufReader::new(said).lines() {
            let line: serde_json::Value = serde_json::from_str(&line?)?;
            let text = |name: &str| line[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
            let recording = Recording {
                id: text("id")?,
                file: text("file")?.into(),
                bytes: line["bytes"].as_u64().context("no bytes")?,
            };
            let sent = std::fs::metadata(&recording.file)?.len();
            ensure!(recording.bytes == sent && line["mismatch"] == false, "a recording is not as long as its file");
            each(&recording);
            recordings.push(recording);
        }
        let status = self.process.wait()?;
        ensure!(status.success(), "`quietus record` ended with {status}; see {}", self.complaints.display());
        ensure!(recordings.len() == self.files, "{} files gave {} ids", self.files, recordings.len());
        Ok(recordings)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Everything that was stored, and what of it is to be forgotten.
#[derive(Default)]
pub struct Library {
    /// What stays.
    pub kept: Vec<Recording>,
    /// What goes.
    pub erased: Vec<Recording>,
}

impl Library {
    /// Ids of a part.
    pub fn ids(part: &[Recording]) -> BTreeSet<String> {
        part.iter().map(|recording| recording.id.clone()).collect()
    }
}
