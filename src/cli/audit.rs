//! `quietus audit`: what was done, and whether the log that says so holds.
//!
//! `verify` trusts nothing that the gateway says but the public key, which it takes from a file or an argument. It keeps the
//! last checkpoint it saw beside the profile: a log that was rewritten since cannot be shown to extend it.

use super::{
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::{
    audit::{Checkpoint, Hash, VerifierKey, leaf, proof},
    proto::v1::{
        AuditEntry, GetCheckpointRequest, GetConsistencyProofRequest, GetInclusionProofRequest, ListRecordingsRequest,
        SubjectState, TailRequest, audit_service_client::AuditServiceClient,
        recording_service_client::RecordingServiceClient,
    },
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The file in which the last checkpoint is kept, beside the profile.
const KEPT: &str = "audit.checkpoint";
/// The file in which the public key lies, beside the profile.
const KEY: &str = "audit.vkey";
/// Entries asked for at a time.
const PAGE: u32 = 1000;
const COLUMNS: [&str; 7] = ["INDEX", "TIME", "ACTOR", "ACTION", "OUTCOME", "REFERENCE", "ABOUT"];

/// `quietus audit …`
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Show the last entries, oldest first.
    Tail(Tail),
    /// Check that the log holds: its signature, that it extends what was seen before, that entries are in it.
    Verify {
        /// The public key, or a file that holds it; otherwise audit.vkey beside the profile.
        #[arg(long, value_name = "PUBKEY")]
        key: Option<String>,
        /// Also check that the last entries of this tenant are in it.
        #[arg(long)]
        tenant: Option<String>,
    },
}

/// Whose entries.
#[derive(Args)]
pub struct Tail {
    /// A tenant's; otherwise the group's own.
    #[arg(long, conflicts_with_all = ["subscriber", "recording"])]
    pub tenant: Option<String>,
    /// Those about a subscriber, TENANT/NAME.
    #[arg(long, value_name = "TENANT/NAME", conflicts_with = "recording")]
    pub subscriber: Option<String>,
    /// Those about a recording.
    #[arg(long, value_name = "ID")]
    pub recording: Option<String>,
    /// Only those behind this index.
    #[arg(long, value_name = "INDEX")]
    pub after: Option<u64>,
    /// How many.
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// Runs the command.
pub async fn run(link: Link, command: AuditCommand, profile: &Path, output: Output) -> Result<(), Failure> {
    match command {
        AuditCommand::Tail(what) => tail(link, what, output).await,
        AuditCommand::Verify { key, tenant } => verify(link, key, tenant, profile, output).await,
    }
}

async fn tail(link: Link, what: Tail, output: Output) -> Result<(), Failure> {
    let mut request = TailRequest { after: what.after, limit: what.limit, ..TailRequest::default() };
    if let Some(name) = what.tenant {
        request.tenant = names::resolve(&name)?;
    }
    if let Some(name) = what.subscriber {
        (request.tenant, request.subscriber) = names::resolve_subscriber(&name)?;
    }
    if let Some(id) = what.recording {
        request.recording_id = names::resolve(&id)?;
    }
    let entries = AuditServiceClient::new(link).tail(request).await?.into_inner().entries;
    if output.json {
        return entries.iter().try_for_each(|entry| output.one(as_json(entry), String::new));
    }
    let rows: Vec<_> = entries.iter().map(row).collect();
    output.table(&COLUMNS, &rows)
}

/// All that one actor did to a tenant's things.
///
/// The tail of a tenant does not open what an entry is about where that lies under a recording: whose audio was heard. For such
/// entries the subscribers are asked, who have recordings now.
pub async fn report(link: Link, tenant: String, actor: &str, output: Output) -> Result<(), Failure> {
    let mut client = AuditServiceClient::new(link.clone());
    let whole = TailRequest { tenant: tenant.clone(), ..TailRequest::default() };
    let mut found = entries_of(&mut client, whole.clone(), actor).await?;
    if found.values().any(|entry| entry.subject_state() == SubjectState::Sealed) {
        for subscriber in subscribers(link, &tenant).await? {
            found.extend(entries_of(&mut client, TailRequest { subscriber, ..whole.clone() }, actor).await?);
        }
    }
    if output.json {
        return found.values().try_for_each(|entry| output.one(as_json(entry), String::new));
    }
    let rows: Vec<_> = found.values().map(row).collect();
    output.table(&COLUMNS, &rows)
}

/// The entries of one actor, by their index.
async fn entries_of(
    client: &mut AuditServiceClient<Link>,
    of: TailRequest,
    actor: &str,
) -> Result<BTreeMap<u64, AuditEntry>, Failure> {
    // No entry of a tenant is the log's first: that one is older than every tenant.
    let (mut after, mut found) = (0, BTreeMap::new());
    loop {
        let request = TailRequest { after: Some(after), limit: PAGE, ..of.clone() };
        let entries = client.tail(request).await?.into_inner().entries;
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(found) };
        after = last;
        let theirs = entries.into_iter().filter(|entry| entry.actor == actor);
        found.extend(theirs.map(|entry| (entry.index, entry)));
    }
}

/// Names of a tenant's subscribers that have recordings.
async fn subscribers(link: Link, tenant: &str) -> Result<BTreeSet<String>, Failure> {
    let mut client = RecordingServiceClient::new(link);
    let mut request = ListRecordingsRequest { tenant: tenant.to_owned(), ..ListRecordingsRequest::default() };
    let mut names = BTreeSet::new();
    loop {
        let page = client.list(request.clone()).await?.into_inner();
        names.extend(page.recordings.into_iter().map(|recording| recording.subscriber));
        if page.next_page_token.is_empty() {
            return Ok(names);
        }
        request.page_token = page.next_page_token;
    }
}

async fn verify(
    link: Link,
    key: Option<String>,
    tenant: Option<String>,
    profile: &Path,
    output: Output,
) -> Result<(), Failure> {
    let folder = profile.parent().unwrap_or(Path::new("."));
    let key = read_key(key.as_deref(), folder)?;
    let mut client = AuditServiceClient::new(link);
    let note = client.get_checkpoint(GetCheckpointRequest {}).await?.into_inner().note;
    let head = key.open_checkpoint(&note).map_err(|error| Failure::failed(format!("the checkpoint: {error}")))?;

    let kept = folder.join(KEPT);
    let before = read_kept(&kept, &key)?;
    if let Some(before) = before {
        if before.size > head.size {
            return Err(Failure::failed(format!(
                "the log is shorter than it was: {} entries, and {} before; it was rewritten or restored",
                head.size, before.size
            )));
        }
        let request = GetConsistencyProofRequest { old_size: before.size, new_size: head.size };
        let hashes = read_hashes(client.get_consistency_proof(request).await?.into_inner().hashes)?;
        if !proof::extends((before.size, before.root), (head.size, head.root), &hashes) {
            return Err(Failure::failed(format!(
                "the log of {} entries does not extend the one of {} that was seen before: it was rewritten; {} is the proof",
                head.size,
                before.size,
                kept.display()
            )));
        }
    }
    let mut checked = 0;
    if let Some(tenant) = tenant {
        let request = TailRequest { tenant: names::resolve(&tenant)?, ..TailRequest::default() };
        for entry in client.tail(request).await?.into_inner().entries {
            // Entries that came behind the checkpoint are for the next time.
            if entry.index >= head.size {
                continue;
            }
            let request = GetInclusionProofRequest { index: entry.index, size: head.size };
            let hashes = read_hashes(client.get_inclusion_proof(request).await?.into_inner().hashes)?;
            if !proof::includes(leaf::hash(&entry.leaf), entry.index, head.size, head.root, &hashes) {
                return Err(Failure::failed(format!("entry {} was shown and is not in the log", entry.index)));
            }
            checked += 1;
        }
    }
    write_kept(&kept, &note)?;
    let extends = before.map(|before| before.size);
    let json = json!({ "origin": key.origin(), "size": head.size, "extends": extends, "entries_checked": checked });
    output.one(json, || {
        let seen = match extends {
            Some(size) => format!("it extends the {size} entries seen before"),
            None => "seen for the first time".to_owned(),
        };
        format!("{}: {} entries, signed; {seen}; {checked} entries checked", key.origin(), head.size)
    })
}

/// The public key from an argument, or from a file.
pub fn read_key(given: Option<&str>, folder: &Path) -> Result<VerifierKey, Failure> {
    let path = match given {
        Some(text) => match text.parse() {
            Ok(key) => return Ok(key),
            Err(_) => PathBuf::from(text),
        },
        None => folder.join(KEY),
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::usage(format!(
            "--key: neither a verifier key nor a file that can be read ({}: {error})",
            path.display()
        ))
    })?;
    text.parse().map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn read_kept(path: &Path, key: &VerifierKey) -> Result<Option<Checkpoint>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(note) => key.open_checkpoint(&note).map(Some).map_err(|error| {
            let path = path.display();
            Failure::failed(format!("{path}: {error}; if the key was replaced on purpose, keep this file elsewhere"))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Beside its place, then renamed: a command that was stopped half-way leaves the one of before.
fn write_kept(path: &Path, note: &str) -> Result<(), Failure> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, note)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| Failure::failed(format!("cannot keep the checkpoint in {}: {error}", path.display())))
}

fn read_hashes(hashes: Vec<bytes::Bytes>) -> Result<Vec<Hash>, Failure> {
    let read = hashes.iter().map(|hash| Hash::try_from(&hash[..]));
    read.collect::<Result<_, _>>().map_err(|_| Failure::failed("the gateway's proof is not one of 32-byte hashes"))
}

fn subject_state(entry: &AuditEntry) -> &'static str {
    match entry.subject_state() {
        SubjectState::Open => "open",
        SubjectState::Erased => "erased",
        SubjectState::Sealed | SubjectState::Unspecified => "sealed",
    }
}

fn as_json(entry: &AuditEntry) -> Value {
    let present = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let subject = entry.subject.as_ref().map(|subject| {
        json!({
            "subscriber": present(&subject.subscriber),
            "recording": present(&subject.recording_id),
            "acting_subscriber": present(&subject.acting_subscriber),
            "start": subject.start,
            "end": subject.end,
            "details": subject.details,
        })
    });
    json!({
        "index": entry.index,
        "time": moment(entry.at_ms),
        "actor": entry.actor,
        "on_behalf_of": present(&entry.on_behalf_of),
        "action": entry.action,
        "outcome": entry.outcome,
        "reference": present(&entry.reference),
        "reason": present(&entry.reason),
        "subject_state": subject_state(entry),
        "subject": subject,
    })
}

fn row(entry: &AuditEntry) -> Vec<String> {
    let about = match &entry.subject {
        Some(subject) if !subject.recording_id.is_empty() => format!("recording {}", subject.recording_id),
        Some(subject) if !subject.subscriber.is_empty() => format!("subscriber {}", subject.subscriber),
        Some(_) => "tenant".to_owned(),
        None => subject_state(entry).to_owned(),
    };
    let actor = match entry.on_behalf_of.as_str() {
        "" => entry.actor.clone(),
        other => format!("{} for {other}", entry.actor),
    };
    vec![
        entry.index.to_string(),
        moment(entry.at_ms).unwrap_or_default(),
        actor,
        entry.action.clone(),
        entry.outcome.clone(),
        entry.reference.clone(),
        about,
    ]
}
