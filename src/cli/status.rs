//! `quietus status`: what waits, and how much room is left.

use super::{
    connect::Link,
    failure::Failure,
    output::{Output, moment},
};
use crate::proto::v1::{GetStatusRequest, Status, tenant_service_client::TenantServiceClient};

/// Runs the command.
pub async fn run(link: Link, output: Output) -> Result<(), Failure> {
    let status = TenantServiceClient::new(link).get_status(GetStatusRequest {}).await?.into_inner();
    let json = serde_json::json!({
        "sweeps_pending": status.sweeps_pending,
        "replications_pending": status.replications_pending,
        "recordings_open": status.recordings_open,
        "journal_bytes": status.journal_bytes,
        "journal_limit_bytes": status.journal_limit_bytes,
        "generation": status.generation,
        "slot_forgets": status.slot_forgets,
        "holds": status.holds,
        "holds_overdue": status.holds_overdue,
        "parked": status.parked,
        "transitions": status.transitions,
        "expired": status.expired,
        "expired_late": status.expired_late,
        "retention_late_recordings": status.retention_late_recordings,
        "retention_late_seconds": status.retention_late_seconds,
        "clock_disagrees": status.clock_disagrees,
        "failing_tenants": status.failing_tenants,
        "receipts_overdue": status.receipts_overdue,
        "backup": status.backup,
        "backup_behind": status.backup_behind,
        "backup_behind_since": moment(status.backup_behind_since_ms),
        "backup_base": moment(status.backup_base_ms),
        "backup_away": status.backup_away,
        "erasures_sealed": status.erasures_sealed,
        "erasures_waiting_since": moment(status.erasures_waiting_since_ms),
        "slot_threshold": status.slot_threshold,
        "slot_losses_survivable": status.slot_losses_survivable,
        "slots": status.slots.iter().map(|slot| serde_json::json!({
            "number": (slot.number > 0).then_some(slot.number),
            "matches": slot.matches,
            "state": slot.state,
            "forgets": slot.forgets,
        })).collect::<Vec<_>>(),
    });
    output.one(json, || {
        format!(
            "recordings that take audio  {}\nerased, ciphertext to go    {}\ncopies to another region    {}\n\
             journal                     {} of {} bytes\nroot                        generation {}, forgets {}\n\
             holds                       {}, {} past their review\nwait for holds              {}\n\
             closes and purges that wait {}\nexpired since the start     {}, {} of them late\n\
             backup                      {}\nerasures that wait          {}\nslots                       {}",
            status.recordings_open,
            status.sweeps_pending,
            status.replications_pending,
            status.journal_bytes,
            status.journal_limit_bytes,
            status.generation,
            status.slot_forgets,
            status.holds,
            status.holds_overdue,
            status.parked,
            status.transitions,
            status.expired,
            status.expired_late,
            backup(&status),
            waiting(&status),
            slots(&status),
        )
    })?;
    let overdue = overdue(&status);
    if overdue.is_empty() { Ok(()) } else { Err(Failure::overdue(overdue.join("; "))) }
}

/// How the backup stands, in words.
fn backup(status: &Status) -> String {
    if !status.backup {
        return "none: whoever loses this node loses every recording".to_owned();
    }
    let mut text = format!("lacks {} commands", status.backup_behind);
    if let Some(since) = moment(status.backup_behind_since_ms) {
        text.push_str(&format!(", the oldest since {since}"));
    }
    if status.backup_away {
        text.push_str(", object storage is away");
    }
    if let Some(base) = moment(status.backup_base_ms) {
        text.push_str(&format!("; its base is of {base}"));
    }
    text
}

/// Since when erasures wait, in words.
fn waiting(status: &Status) -> String {
    match moment(status.erasures_waiting_since_ms) {
        None => "none".to_owned(),
        Some(since) if status.erasures_sealed => format!("since {since}, sealed and not destroyed yet"),
        Some(since) => format!("since {since}"),
    }
}

/// How the slots stand, in words.
fn slots(status: &Status) -> String {
    let mut text = format!(
        "{} of {} give the root, {} more may be lost",
        status.slot_threshold, status.slots_sharing, status.slot_losses_survivable
    );
    for slot in status.slots.iter().filter(|slot| !slot.matches) {
        let name = if slot.number == 0 { "one".to_owned() } else { format!("slot {}", slot.number) };
        text.push_str(&format!("; {name} {}", slot.state));
    }
    if status.destroyed_before < status.generation {
        text.push_str(&format!("; the root of generation {} is not destroyed", status.destroyed_before));
    }
    text
}

/// What should not be, each with where to look.
fn overdue(status: &Status) -> Vec<String> {
    let short = status.slots.iter().filter(|slot| slot.short).count();
    let counts = [
        (status.holds_overdue, "holds are past their review date: see `hold list`"),
        (status.receipts_overdue, "erasures whose ciphertext should be gone: see `receipt list --open`"),
        (status.retention_late_recordings, "recordings are kept beyond their promise: see the gateway's log"),
        (short as u64, "slots do not hold their share of the root: see the line `slots`, and the gateway's log"),
        (status.failing_tenants, "tenants of which nothing expires: see the gateway's log"),
        (status.clock_disagrees.into(), "clock that no object store bears out: nothing expires until they agree"),
    ];
    counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_since_when_backup_and_erasures_wait() {
        let all = Status { backup: true, backup_base_ms: 1_800_000_000_000, ..Status::default() };
        assert_eq!(backup(&all), "lacks 0 commands; its base is of 2027-01-15T08:00:00Z");
        assert_eq!(waiting(&all), "none");
        let (since, away) = (1_800_000_060_000, true);
        let behind = Status { backup_behind: 2, backup_behind_since_ms: since, backup_away: away, ..all };
        let text = "lacks 2 commands, the oldest since 2027-01-15T08:01:00Z, object storage is away; its base is of \
                    2027-01-15T08:00:00Z";
        assert_eq!(backup(&behind), text);
        let hangs = Status { erasures_waiting_since_ms: since, ..Status::default() };
        assert_eq!(waiting(&hangs), "since 2027-01-15T08:01:00Z");
        let sealed = Status { erasures_sealed: true, ..hangs };
        assert_eq!(waiting(&sealed), "since 2027-01-15T08:01:00Z, sealed and not destroyed yet");
        assert!(overdue(&behind).is_empty() && overdue(&sealed).is_empty());
    }

    #[test]
    fn everything_that_is_overdue_is_named_and_what_only_waits_is_not() {
        let waits = Status { sweeps_pending: 3, holds: 2, parked: 1, expired_late: 4, ..Status::default() };
        assert!(overdue(&waits).is_empty());
        let late = Status {
            holds_overdue: 1,
            receipts_overdue: 2,
            retention_late_recordings: 3,
            failing_tenants: 4,
            clock_disagrees: true,
            ..Status::default()
        };
        assert_eq!(overdue(&late).iter().map(|line| &line[..1]).collect::<Vec<_>>(), ["1", "2", "3", "4", "1"]);
    }
}
