//! `quietus switch`: switches that may record for a tenant.

use super::{
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::proto::v1::{
    EnrolSwitchRequest, ListSwitchesRequest, RevokeSwitchRequest, Switch, switch_service_client::SwitchServiceClient,
};
use clap::Subcommand;
use serde_json::{Value, json};

/// `quietus switch …`
#[derive(Subcommand)]
pub enum SwitchCommand {
    /// Let a switch record for a tenant.
    Enrol {
        /// For whom.
        tenant: String,
        /// Its name, as in its certificate: quietus://GROUP/switch/NAME.
        name: String,
        /// Recordings that it may feed at one time.
        #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
        max_recordings: u32,
    },
    /// List the switches of a tenant.
    List {
        /// Whose.
        tenant: String,
    },
    /// Take an enrolment back, at once.
    Revoke {
        /// Whose.
        tenant: String,
        /// Its name.
        name: String,
    },
}

/// Runs the command.
pub async fn run(link: Link, command: SwitchCommand, output: Output) -> Result<(), Failure> {
    let mut client = SwitchServiceClient::new(link);
    match command {
        SwitchCommand::Enrol { tenant, name, max_recordings } => {
            let (tenant, name) = (names::resolve(&tenant)?, names::resolve(&name)?);
            let switch = client.enrol_switch(EnrolSwitchRequest { tenant, name, max_recordings }).await?.into_inner();
            output.one(as_json(&switch), || {
                format!("enrolled: {}, {} recordings at one time", switch.name, switch.max_recordings)
            })
        }
        SwitchCommand::List { tenant } => {
            let request = ListSwitchesRequest { tenant: names::resolve(&tenant)? };
            let switches = client.list_switches(request).await?.into_inner().switches;
            if output.json {
                return switches.iter().try_for_each(|switch| output.one(as_json(switch), String::new));
            }
            let rows: Vec<_> = switches.iter().map(row).collect();
            output.table(&["NAME", "RECORDINGS", "AT MOST", "ENROLLED"], &rows)
        }
        SwitchCommand::Revoke { tenant, name } => {
            let (tenant, name) = (names::resolve(&tenant)?, names::resolve(&name)?);
            client.revoke_switch(RevokeSwitchRequest { tenant, name: name.clone() }).await?;
            output.one(json!({ "name": name, "revoked": true }), || format!("revoked: {name}"))
        }
    }
}

fn as_json(switch: &Switch) -> Value {
    json!({
        "name": switch.name, "recordings": switch.recordings, "max_recordings": switch.max_recordings,
        "created": moment(switch.created_ms),
    })
}

fn row(switch: &Switch) -> Vec<String> {
    vec![
        switch.name.clone(),
        switch.recordings.to_string(),
        switch.max_recordings.to_string(),
        moment(switch.created_ms).unwrap_or_default(),
    ]
}
