//! `quietus stats`: what is counted of tenants that are gone.

use super::{connect::Link, failure::Failure, output::Output};
use crate::proto::v1::{AnonymousRow, GetAnonymousStatisticsRequest, tenant_service_client::TenantServiceClient};
use clap::Subcommand;
use serde_json::json;

/// `quietus stats …`
#[derive(Subcommand)]
pub enum StatsCommand {
    /// Sums over many purged tenants, which tie to none of them.
    Anonymous,
}

/// Runs the command.
pub async fn run(link: Link, command: StatsCommand, output: Output) -> Result<(), Failure> {
    let StatsCommand::Anonymous = command;
    let answer =
        TenantServiceClient::new(link).get_anonymous_statistics(GetAnonymousStatisticsRequest {}).await?.into_inner();
    if output.json {
        return answer.rows.iter().try_for_each(|row| {
            let json = json!({
                "month": row.month, "kind": row.kind, "region": row.region, "tenants": row.tenants,
                "recordings": row.recordings, "seconds": row.seconds, "bytes": row.bytes,
            });
            output.one(json, String::new)
        });
    }
    let rows: Vec<_> = answer.rows.iter().map(cells).collect();
    output.table(&["MONTH", "KIND", "REGION", "TENANTS", "RECORDINGS", "SECONDS", "BYTES"], &rows)
}

fn cells(row: &AnonymousRow) -> Vec<String> {
    vec![
        row.month.clone(),
        row.kind.clone(),
        row.region.clone(),
        row.tenants.to_string(),
        row.recordings.to_string(),
        format!("{:.1}", row.seconds),
        row.bytes.to_string(),
    ]
}
