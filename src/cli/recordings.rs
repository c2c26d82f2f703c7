//! `quietus list` and `quietus show`: what is known about recordings. Neither touches the key of any audio.

use super::{
    args::List,
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::proto::v1::{
    GetRecordingRequest, Kind, ListRecordingsRequest, Recording, RecordingFacts, State,
    recording_service_client::RecordingServiceClient,
};
use serde_json::{Value, json};

const HEADER: [&str; 7] = ["ID", "SUBSCRIBER", "KIND", "START", "SECONDS", "BYTES", "STATE"];

/// Lists a tenant's recordings.
pub async fn list(link: Link, what: List, output: Output) -> Result<(), Failure> {
    let mut client = RecordingServiceClient::new(link);
    let mut request = ListRecordingsRequest {
        tenant: names::resolve(&what.tenant)?,
        subscriber: what.subscriber.as_deref().map(names::resolve).transpose()?.unwrap_or_default(),
        ticket: what.ticket.as_deref().map(names::resolve).transpose()?.unwrap_or_default(),
        ..Default::default()
    };
    let mut rows = Vec::new();
    loop {
        let page = client.list(request.clone()).await?.into_inner();
        for recording in &page.recordings {
            match output.json {
                true => output.one(as_json(recording), String::new)?,
                false => rows.push(row(recording)),
            }
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if output.json { Ok(()) } else { output.table(&HEADER, &rows) }
}

/// Shows one recording.
pub async fn show(link: Link, id: &str, ticket: Option<String>, output: Output) -> Result<(), Failure> {
    let ticket = ticket.as_deref().map(names::resolve).transpose()?.unwrap_or_default();
    let request = GetRecordingRequest { id: names::resolve(id)?, ticket };
    let recording = RecordingServiceClient::new(link).get(request).await?.into_inner();
    output.one(as_json(&recording), || as_text(&recording))
}

fn as_json(recording: &Recording) -> Value {
    json!({
        "id": recording.id,
        "tenant": recording.tenant,
        "subscriber": recording.subscriber,
        "audio_present": recording.audio_present,
        "jurisdiction": recording.jurisdiction,
        "basis": recording.basis,
        "consent_withdrawn": recording.consent_withdrawn,
        "facts": recording.facts.as_ref().map(facts_json),
    })
}

fn facts_json(facts: &RecordingFacts) -> Value {
    let stated = facts.stated.clone().unwrap_or_default();
    let labels: std::collections::BTreeMap<_, _> = stated.labels.into_iter().collect();
    json!({
        "kind": kind(facts),
        "start": moment(facts.start_ms),
        "end": moment(facts.end_ms),
        "bytes": facts.length,
        "seconds": facts.duration_seconds,
        "paused_seconds": facts.paused_seconds,
        "state": state(facts),
        "mismatch": facts.mismatch,
        "parties": stated.parties,
        "call_id": stated.call_id,
        "labels": labels,
        "purpose": stated.purpose,
        "basis": stated.basis,
    })
}

fn row(recording: &Recording) -> Vec<String> {
    let audio = if recording.audio_present { "" } else { ", audio erased" };
    let (id, subscriber) = (recording.id.clone(), recording.subscriber.clone());
    let Some(facts) = &recording.facts else {
        let gone = || "-".to_owned();
        return vec![id, subscriber, gone(), gone(), gone(), gone(), format!("facts erased{audio}")];
    };
    vec![
        id,
        subscriber,
        kind(facts).into(),
        moment(facts.start_ms).unwrap_or_default(),
        facts.duration_seconds.map(|seconds| format!("{seconds:.1}")).unwrap_or_default(),
        facts.length.to_string(),
        format!("{}{audio}", state(facts)),
    ]
}

fn as_text(recording: &Recording) -> String {
    let mut lines = vec![
        ("id", recording.id.clone()),
        ("tenant", recording.tenant.clone()),
        ("subscriber", recording.subscriber.clone()),
        ("audio", if recording.audio_present { "present" } else { "erased" }.into()),
        ("law of", recording.jurisdiction.clone()),
        ("basis", recording.basis.clone()),
    ];
    if recording.consent_withdrawn {
        lines.push(("consent", "withdrawn; it goes as soon as nothing keeps it".into()));
    }
    match &recording.facts {
        None => lines.push(("facts", "erased".into())),
        Some(facts) => {
            let stated = facts.stated.clone().unwrap_or_default();
            lines.extend([
                ("kind", kind(facts).into()),
                ("state", state(facts).into()),
                ("start", moment(facts.start_ms).unwrap_or_default()),
                ("end", moment(facts.end_ms).unwrap_or_default()),
                ("bytes", facts.length.to_string()),
                ("seconds", facts.duration_seconds.map(|seconds| format!("{seconds:.3}")).unwrap_or_default()),
                ("parties", stated.parties.join(", ")),
                ("call id", stated.call_id),
                ("purpose", stated.purpose),
            ]);
            let mut labels: Vec<_> = stated.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            labels.sort();
            lines.push(("labels", labels.join(", ")));
            if facts.paused_seconds > 0.0 {
                lines.push(("paused", format!("{:.3} seconds, which are not in it", facts.paused_seconds)));
            }
            if facts.mismatch {
                lines.push(("mismatch", "what was stated at the end is not what arrived".into()));
            }
        }
    }
    let told = lines.into_iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| format!("{name:<11} {value}")).collect::<Vec<_>>().join("\n")
}

fn kind(facts: &RecordingFacts) -> &'static str {
    match facts.kind() {
        Kind::Unspecified => "other",
        Kind::Call => "call",
        Kind::Voicemail => "voicemail",
        Kind::Transcript => "transcript",
        Kind::Video => "video",
        Kind::Message => "message",
        Kind::Media => "media",
        Kind::Connection => "connection",
    }
}

fn state(facts: &RecordingFacts) -> &'static str {
    match facts.state() {
        State::Unspecified => "other",
        State::Open => "open",
        State::Partial => "partial",
        State::Complete => "complete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erased_facts_are_told_as_erased() {
        let recording = Recording { id: "x".into(), audio_present: true, ..Default::default() };
        assert!(as_text(&recording).contains("facts       erased"));
        assert_eq!(as_json(&recording)["facts"], Value::Null);
        assert_eq!(row(&recording).len(), HEADER.len());
    }
}
