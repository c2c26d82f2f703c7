//! Policies between wire and vault.

use super::Problem;
use crate::{
    domain::{id::RecordingId, retention::Parameter, time::Timestamp},
    proto::v1,
    vault::{DryRunRow, Explanation, PartExplanation, PolicyInForce, PolicyPage, PolicySource, PresetLine},
};

/// Reads which policy is meant.
pub fn source(source: Option<v1::PolicySource>) -> Result<PolicySource, Problem> {
    match source {
        Some(v1::PolicySource { policy, keep }) if !policy.is_empty() => {
            Ok(PolicySource { policy, keep: (!keep.is_empty()).then_some(keep) })
        }
        _ => Err(Problem::invalid("source", "name a preset or send the text of a policy")),
    }
}

/// Writes a line of the list of presets.
pub fn preset(line: PresetLine) -> v1::Preset {
    let length = |pick: fn(&Parameter) -> Option<_>| {
        line.keep.as_ref().and_then(pick).map(|length: crate::domain::retention::Length| length.to_string())
    };
    v1::Preset {
        keep_required: line.keep.is_some_and(|keep| keep.default.is_none()),
        keep_default: length(|keep| keep.default).unwrap_or_default(),
        keep_at_least: length(|keep| keep.at_least).unwrap_or_default(),
        keep_at_most: length(|keep| keep.at_most).unwrap_or_default(),
        name: line.name,
        summary: line.summary,
    }
}

/// Writes a page.
pub fn text(page: PolicyPage) -> v1::PolicyText {
    v1::PolicyText { name: page.name, summary: page.summary, text: page.text }
}

/// Writes a tenant's policy.
pub fn in_force(policy: PolicyInForce) -> v1::TenantPolicy {
    v1::TenantPolicy {
        tenant: policy.tenant,
        name: policy.name,
        text: policy.text,
        keep: policy.keep.unwrap_or_default(),
        being_applied: policy.being_applied,
    }
}

/// Writes why a recording goes when it goes.
pub fn explanation(id: RecordingId, explanation: Explanation) -> v1::Explanation {
    v1::Explanation {
        id: id.to_string(),
        policy: explanation.policy,
        parts: explanation.parts.into_iter().map(part).collect(),
    }
}

fn part(part: PartExplanation) -> v1::PartExplanation {
    let ms = |moment: Option<Timestamp>| moment.map_or(0, |moment| moment.0);
    let (floor_ms, floor_ground) = part.floor.map_or((0, String::new()), |floor| (floor.until.0, floor.ground));
    v1::PartExplanation {
        part: part.part.word().to_owned(),
        present: part.present,
        goes_ms: ms(part.goes),
        not_after_ms: ms(part.not_after),
        floor_ms,
        floor_ground,
        line: part.line,
        blocked_by: part.blocked_by.unwrap_or_default(),
        says: part.says,
    }
}

/// Writes a row of a dry run.
pub fn row(row: DryRunRow) -> v1::PolicyDryRunRow {
    v1::PolicyDryRunRow {
        kind: row.category.word().to_owned(),
        part: row.part.word().to_owned(),
        stored: row.stored,
        due_at_once: row.due_at_once,
        due_earlier: row.due_earlier,
        due_later: row.due_later,
        waiting: row.waiting,
        kept_by_floor: row.kept_by_floor,
        ungoverned: row.ungoverned,
        first_ms: row.first.map_or(0, |first| first.0),
    }
}
