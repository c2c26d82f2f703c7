//! `quietus policy`: the policies that ship, a tenant's own, and why something goes when it goes.

use super::{
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::{
    domain::retention::{MAX_TEXT, presets},
    proto::v1::{
        CheckPolicyRequest, DryRunPolicyRequest, ExplainRequest, GetPolicyRequest, GetPresetRequest,
        ListPresetsRequest, PartExplanation, PolicyDryRunRow, PolicySource, Preset, SetPolicyRequest, TenantPolicy,
        policy_service_client::PolicyServiceClient,
    },
};
use clap::Subcommand;
use serde_json::{Value, json};
use std::io::Read as _;

/// `quietus policy …`
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// List the policies that ship with the gateway, or print one.
    Presets {
        /// Print the page of this one.
        name: Option<String>,
    },
    /// Tell what is wrong with a policy, or how it was understood.
    Check {
        /// A file, or the name of a preset.
        policy: String,
        /// Its parameter, for a policy that takes one: 90d.
        #[arg(long, value_name = "LENGTH")]
        keep: Option<String>,
    },
    /// Tell when and why the parts of a recording go.
    Explain {
        /// The recording's id.
        id: String,
        /// Number of the ticket of the support system that this is about: staff need one.
        #[arg(long, value_name = "NUMBER")]
        ticket: Option<String>,
    },
    /// Tell what a policy would do to what a tenant has stored.
    DryRun {
        /// The tenant's name.
        tenant: String,
        /// A file, or the name of a preset.
        policy: String,
        /// Its parameter.
        #[arg(long, value_name = "LENGTH")]
        keep: Option<String>,
    },
    /// Give a tenant another policy.
    Set {
        /// The tenant's name.
        tenant: String,
        /// A file, or the name of a preset.
        policy: String,
        /// Its parameter.
        #[arg(long, value_name = "LENGTH")]
        keep: Option<String>,
        /// The tenant's name again, where the policy makes anything due at once or asks less of a purge.
        #[arg(long, value_name = "NAME", default_value = "")]
        confirm: String,
    },
    /// Show a tenant's policy.
    Show {
        /// The tenant's name.
        tenant: String,
    },
}

/// Runs the command.
pub async fn run(link: Link, command: PolicyCommand, output: Output) -> Result<(), Failure> {
    let mut client = PolicyServiceClient::new(link);
    match command {
        PolicyCommand::Presets { name: None } => {
            let presets = client.list_presets(ListPresetsRequest {}).await?.into_inner().presets;
            if output.json {
                return presets.iter().try_for_each(|preset| output.one(preset_json(preset), String::new));
            }
            let rows: Vec<_> =
                presets.iter().map(|preset| vec![preset.name.clone(), keep(preset), preset.summary.clone()]).collect();
            output.table(&["NAME", "KEEP", "FOR"], &rows)
        }
        PolicyCommand::Presets { name: Some(name) } => {
            let page = client.get_preset(GetPresetRequest { name }).await?.into_inner();
            output.one(json!({ "name": page.name, "text": page.text }), || page.text.trim_end().to_owned())
        }
        PolicyCommand::Check { policy, keep } => {
            let source = Some(source(&policy, keep)?);
            let page = client.check_policy(CheckPolicyRequest { source }).await?.into_inner();
            output.one(json!({ "name": page.name, "good": true, "text": page.text }), || {
                format!("# {} is good. As it was understood:\n{}", page.name, page.text.trim_end())
            })
        }
        PolicyCommand::Explain { id, ticket } => {
            let request = ExplainRequest { id: names::resolve(&id)?, ticket: ticket.unwrap_or_default() };
            let explanation = client.explain(request).await?.into_inner();
            let parts: Vec<Value> = explanation.parts.iter().map(part_json).collect();
            output.one(json!({ "id": explanation.id, "policy": explanation.policy, "parts": parts }), || {
                explanation.parts.iter().map(|part| part.says.clone()).collect::<Vec<_>>().join("\n")
            })
        }
        PolicyCommand::DryRun { tenant, policy, keep } => {
            let request =
                DryRunPolicyRequest { tenant: names::resolve(&tenant)?, source: Some(source(&policy, keep)?) };
            let rows = client.dry_run_policy(request).await?.into_inner().rows;
            if output.json {
                return rows.iter().try_for_each(|row| output.one(row_json(row), String::new));
            }
            let header = [
                "KIND",
                "PART",
                "STORED",
                "AT ONCE",
                "EARLIER",
                "LATER",
                "WAITING",
                "BY FLOOR",
                "NO RULE",
                "FIRST GOES",
            ];
            output.table(&header, &rows.iter().map(row_cells).collect::<Vec<_>>())
        }
        PolicyCommand::Set { tenant, policy, keep, confirm } => {
            let request = SetPolicyRequest {
                tenant: names::resolve(&tenant)?,
                source: Some(source(&policy, keep)?),
                confirm: names::resolve(&confirm)?,
            };
            let policy = client.set_policy(request).await?.into_inner();
            output.one(policy_json(&policy), || format!("{} is kept by {} from now on", policy.tenant, policy.name))
        }
        PolicyCommand::Show { tenant } => {
            let policy = client.get_policy(GetPolicyRequest { tenant: names::resolve(&tenant)? }).await?.into_inner();
            output.one(policy_json(&policy), || {
                let keep = if policy.keep.is_empty() { String::new() } else { format!(" --keep {}", policy.keep) };
                let applied = if policy.being_applied { ", being applied to what is stored" } else { "" };
                format!("# {}: {}{keep}{applied}\n{}", policy.tenant, policy.name, policy.text.trim_end())
            })
        }
    }
}

/// A preset by its name, else the text of a file.
pub fn source(policy: &str, keep: Option<String>) -> Result<PolicySource, Failure> {
    let keep = keep.unwrap_or_default();
    if presets::find(policy).is_some() {
        return Ok(PolicySource { policy: policy.to_owned(), keep });
    }
    let mut text = String::new();
    let read = std::fs::File::open(policy).and_then(|file| file.take(MAX_TEXT as u64 + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.contains('\n') => Ok(PolicySource { policy: text, keep }),
        Ok(_) => Err(Failure::usage(format!("{policy}: a policy has more than one line"))),
        Err(error) => Err(Failure::usage(format!(
            "{policy} is neither a preset ({}) nor a file that can be read: {error}",
            presets::names()
        ))),
    }
}

fn keep(preset: &Preset) -> String {
    let bounds = [("default ", &preset.keep_default), ("from ", &preset.keep_at_least), ("to ", &preset.keep_at_most)];
    let words = bounds.iter().filter(|(_, value)| !value.is_empty()).map(|(word, value)| format!("{word}{value}"));
    let required = preset.keep_required.then(|| "required".to_owned());
    required.into_iter().chain(words).collect::<Vec<_>>().join(", ")
}

fn preset_json(preset: &Preset) -> Value {
    json!({ "name": preset.name, "summary": preset.summary, "keep_required": preset.keep_required, "keep": keep(preset) })
}

fn policy_json(policy: &TenantPolicy) -> Value {
    json!({
        "tenant": policy.tenant, "name": policy.name, "keep": policy.keep, "text": policy.text,
        "being_applied": policy.being_applied,
    })
}

fn part_json(part: &PartExplanation) -> Value {
    json!({
        "part": part.part, "present": part.present, "goes": moment(part.goes_ms),
        "not_after": moment(part.not_after_ms), "floor": moment(part.floor_ms), "floor_ground": part.floor_ground,
        "line": part.line, "blocked_by": part.blocked_by, "says": part.says,
    })
}

fn row_json(row: &PolicyDryRunRow) -> Value {
    json!({
        "kind": row.kind, "part": row.part, "stored": row.stored, "due_at_once": row.due_at_once,
        "due_earlier": row.due_earlier, "due_later": row.due_later, "waiting": row.waiting,
        "kept_by_floor": row.kept_by_floor, "ungoverned": row.ungoverned, "first": moment(row.first_ms),
    })
}

fn row_cells(row: &PolicyDryRunRow) -> Vec<String> {
    let numbers =
        [row.stored, row.due_at_once, row.due_earlier, row.due_later, row.waiting, row.kept_by_floor, row.ungoverned];
    let words = [row.kind.clone(), row.part.clone()].into_iter();
    words.chain(numbers.map(|number| number.to_string())).chain([moment(row.first_ms).unwrap_or_default()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_a_preset_or_a_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("ours.toml");
        std::fs::write(&path, "name = \"ours\"\n").expect("written");
        let preset = source("uk-mifid", Some("6y".into())).expect("ships");
        assert_eq!((preset.policy.as_str(), preset.keep.as_str()), ("uk-mifid", "6y"));
        assert_eq!(source(&path.display().to_string(), None).expect("a file").policy, "name = \"ours\"\n");
        let failure = source("uk-standard", None).expect_err("neither");
        assert!(failure.status == 2 && failure.message.contains("uk-mifid"));
    }
}
