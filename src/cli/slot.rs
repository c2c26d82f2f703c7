//! `quietus slot`: the slots that share the root, on the node's own files, while the gateway is stopped.

use super::{args::SlotCommand, failure::Failure, output::Output};
use crate::server::{
    config::Config,
    slots::{self, Asked, Failed},
};

/// Runs the command.
pub async fn run(config: Config, command: &SlotCommand, output: Output) -> Result<(), Failure> {
    let asked = match command {
        SlotCommand::Init { .. } => Asked::Init,
        SlotCommand::Status { .. } => Asked::Status,
        SlotCommand::Retire { number, .. } => Asked::Retire(*number),
        SlotCommand::Migrate { .. } => Asked::Migrate,
    };
    let report = slots::run(config, asked).await.map_err(failure)?;
    let slots = report.slots.iter().map(|slot| {
        serde_json::json!({
            "number": slot.number,
            "path": (!slot.name.is_empty()).then_some(&slot.name),
            "state": slot.standing.words(),
            "forgets": slot.forgets.map(|forgets| forgets.to_string()),
            "generation": slot.confirmed,
        })
    });
    let json = serde_json::json!({
        "threshold": report.k,
        "of": report.of,
        "generation": report.generation,
        "destroyed_before": report.destroyed_before,
        "shares_left": report.shares_left,
        "losses_survivable": report.losses_survivable,
        "slots": slots.collect::<Vec<_>>(),
    });
    output.one(json, || {
        let mut text = format!(
            "root               generation {}, {} of {} slots give it\nlosses survivable  {}\nold roots          {}",
            report.generation,
            report.k,
            report.of,
            report.losses_survivable,
            match report.shares_left {
                None => "destroyed".to_owned(),
                Some(left) => {
                    format!("generation {} is not destroyed: {left} shares are left", report.destroyed_before)
                }
            }
        );
        for slot in &report.slots {
            let number = slot.number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let forgets = slot.forgets.map_or_else(String::new, |forgets| format!(", forgets {forgets}"));
            let holds = slot.confirmed.map_or_else(String::new, |at| format!(", nothing older than generation {at}"));
            text.push_str(&format!("\nslot {number:<3} {} {}{forgets}{holds}", slot.name, slot.standing.words()));
        }
        text
    })?;
    match report.shares_left {
        Some(_) => Err(Failure::overdue(
            "an old root is not destroyed: bring back the slots that are away and start again; where none is, the backup's \
             object storage must be there",
        )),
        None => Ok(()),
    }
}

fn failure(error: Failed) -> Failure {
    match error {
        Failed::Running => Failure::try_again(error.to_string()),
        Failed::Refused(text) => Failure::refused(text),
        Failed::Open(_) | Failed::Commit(_) | Failed::Other(_) => {
            Failure::failed(format!("{:#}", anyhow::Error::from(error)))
        }
    }
}
