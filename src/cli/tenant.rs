//! `quietus tenant`: makes, shows, lists and purges tenants.

use super::{
    args::{Residency, TenantCommand},
    connect::Link,
    erase,
    failure::Failure,
    names,
    output::{Output, moment},
    policy,
};
use crate::proto::v1::{
    self, CreateTenantRequest, EraseTenant, GetStatisticsRequest, GetTenantRequest, ListTenantsRequest, PolicySource,
    Statistics, Tenant, erase_request::Scope, tenant_service_client::TenantServiceClient,
};
use serde_json::{Value, json};

/// Runs the command.
pub async fn run(link: Link, command: TenantCommand, output: Output) -> Result<(), Failure> {
    let mut client = TenantServiceClient::new(link.clone());
    match command {
        TenantCommand::Create { name, home, residency, policy, keep } => {
            let residency = match residency {
                Residency::HomeOnly => v1::Residency::HomeOnly,
                Residency::Both => v1::Residency::Both,
            };
            let name = names::resolve(&name)?;
            let PolicySource { policy, keep } = policy::source(&policy, keep)?;
            let request = CreateTenantRequest { name, home, residency: residency.into(), policy, keep };
            let tenant = client.create_tenant(request).await?.into_inner();
            output.one(as_json(&tenant), || format!("tenant {} made in {}", tenant.name, tenant.home))
        }
        TenantCommand::Show { name } => {
            let name = names::resolve(&name)?;
            let tenant = client.get_tenant(GetTenantRequest { name: name.clone() }).await?.into_inner();
            let statistics = client.get_statistics(GetStatisticsRequest { tenant: name }).await?.into_inner();
            show(&tenant, &statistics, output)
        }
        TenantCommand::List => {
            let tenants = client.list_tenants(ListTenantsRequest {}).await?.into_inner().tenants;
            if output.json {
                return tenants.iter().try_for_each(|tenant| output.one(as_json(tenant), String::new));
            }
            let rows: Vec<_> = tenants.iter().map(row).collect();
            output.table(&["NAME", "HOME", "RESIDENCY", "POLICY", "SUBSCRIBERS", "CREATED"], &rows)
        }
        TenantCommand::Purge { name, confirm } => {
            let (tenant, confirm) = (names::resolve(&name)?, names::resolve(&confirm)?);
            if tenant != confirm {
                return Err(Failure::usage("--confirm must repeat the tenant's name"));
            }
            erase::erase(link, Scope::Tenant(EraseTenant { tenant, confirm }), None, output).await
        }
    }
}

fn show(tenant: &Tenant, statistics: &Statistics, output: Output) -> Result<(), Failure> {
    let mut json = as_json(tenant);
    json["statistics"] = statistics
        .rows
        .iter()
        .map(|row| {
            json!({
                "day": row.day, "kind": row.kind, "region": row.region,
                "recordings": row.recordings, "seconds": row.seconds, "bytes": row.bytes,
            })
        })
        .collect();
    output.one(json, || {
        let mut text = format!(
            "name        {}\nhome        {}\nresidency   {}\npolicy      {}\ncreated     {}\nsubscribers {}",
            tenant.name,
            tenant.home,
            residency(tenant),
            tenant.policy,
            moment(tenant.created_ms).unwrap_or_default(),
            tenant.subscribers
        );
        for row in &statistics.rows {
            text.push_str(&format!(
                "\n{}  {} {}: {} recordings, {:.1} seconds, {} bytes",
                row.day, row.region, row.kind, row.recordings, row.seconds, row.bytes
            ));
        }
        text
    })
}

fn as_json(tenant: &Tenant) -> Value {
    json!({
        "name": tenant.name,
        "home": tenant.home,
        "residency": residency(tenant),
        "policy": tenant.policy,
        "created": moment(tenant.created_ms),
        "subscribers": tenant.subscribers,
    })
}

fn row(tenant: &Tenant) -> Vec<String> {
    vec![
        tenant.name.clone(),
        tenant.home.clone(),
        residency(tenant).into(),
        tenant.policy.clone(),
        tenant.subscribers.to_string(),
        moment(tenant.created_ms).unwrap_or_default(),
    ]
}

fn residency(tenant: &Tenant) -> &'static str {
    match tenant.residency() {
        v1::Residency::Both => "both",
        v1::Residency::HomeOnly => "home-only",
        v1::Residency::Unspecified => "other",
    }
}
