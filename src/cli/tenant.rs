//! `quietus tenant`: makes, shows, lists, closes, restricts and purges tenants.

use super::{
    args::{Residency, TenantCommand},
    connect::Link,
    erase,
    failure::Failure,
    names,
    output::{Output, moment},
    policy, subscriber,
};
use crate::proto::v1::{
    self, ApproveTransitionRequest, CloseTenantRequest, CreateTenantRequest, GetStandingRequest, GetStatisticsRequest,
    GetTenantRequest, ListTenantsRequest, PolicySource, Statistics, Tenant, Transition, WithdrawTransitionRequest,
    erase_request::Scope, restrict_request::Scope as Restricted, tenant_service_client::TenantServiceClient,
    transition::Action,
};
use data_encoding::HEXLOWER;
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
            output.table(&["NAME", "HOME", "RESIDENCY", "POLICY", "SUBSCRIBERS", "CREATED", "STATE"], &rows)
        }
        TenantCommand::Close { name, confirm } => {
            let name = names::resolve(&name)?;
            let confirm = confirm.as_deref().map(names::resolve).transpose()?.unwrap_or_default();
            let tenant = client.close_tenant(CloseTenantRequest { name, confirm }).await?.into_inner();
            output.one(as_json(&tenant), || format!("tenant {} is {}", tenant.name, state(&tenant)))
        }
        TenantCommand::Approve { name } => {
            let name = names::resolve(&name)?;
            let request = ApproveTransitionRequest { name };
            let answer = client.approve_transition(request).await?.into_inner();
            let receipt = answer.receipt_id;
            match &answer.tenant {
                Some(tenant) => output.one(as_json(tenant), || match &tenant.transition {
                    Some(waits) => format!("approved; {}", transition_text(waits)),
                    None => format!("approved: tenant {} is {}", tenant.name, state(tenant)),
                }),
                None => {
                    let (from, to) = (answer.generation_from, answer.generation_to);
                    let opening = (!answer.scope_opening.is_empty()).then(|| HEXLOWER.encode(&answer.scope_opening));
                    let shown = json!({
                        "outcome": "erased", "generation_from": from, "generation_to": to, "receipt": receipt,
                        "opening": opening,
                    });
                    output.one(shown, || {
                        let opening = opening.as_deref().unwrap_or("as whoever asked was told");
                        format!(
                            "approved and purged: root generation {from} destroyed, {to} in its place\nreceipt {receipt}, \
                             opening {opening}"
                        )
                    })
                }
            }
        }
        TenantCommand::Withdraw { name } => {
            let name = names::resolve(&name)?;
            let tenant = client.withdraw_transition(WithdrawTransitionRequest { name }).await?.into_inner();
            output.one(as_json(&tenant), || format!("withdrawn: tenant {} is {}", tenant.name, state(&tenant)))
        }
        TenantCommand::Restrict { name } => {
            subscriber::restrict(link, Restricted::Tenant(names::resolve(&name)?), true, output).await
        }
        TenantCommand::Unrestrict { name } => {
            subscriber::restrict(link, Restricted::Tenant(names::resolve(&name)?), false, output).await
        }
        TenantCommand::Standing { name } => {
            let request = GetStandingRequest { name: names::resolve(&name)? };
            let standing = client.get_standing(request).await?.into_inner();
            output.one(erase::standing_json(&standing), || erase::standing_text(&standing))
        }
        TenantCommand::Purge { name, confirm, receipt } => {
            let tenant = erase::confirmed(names::resolve(&name)?, names::resolve(&confirm)?)?;
            erase::erase(link, Scope::Tenant(tenant), receipt.as_deref(), output).await
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
            "name        {}\nhome        {}\nresidency   {}\npolicy      {}\ncreated     {}\nsubscribers {}\n\
             state       {}",
            tenant.name,
            tenant.home,
            residency(tenant),
            tenant.policy,
            moment(tenant.created_ms).unwrap_or_default(),
            tenant.subscribers,
            state(tenant),
        );
        if let Some(closed) = moment(tenant.closed_ms) {
            text.push_str(&format!(", closed since {closed}"));
        }
        if tenant.restricted {
            text.push_str("\nrestricted  kept, and not used");
        }
        if let Some(waits) = &tenant.transition {
            text.push_str(&format!("\nwaits       {}", transition_text(waits)));
        }
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
        "state": state(tenant),
        "closed": moment(tenant.closed_ms),
        "restricted": tenant.restricted,
        "transition": tenant.transition.as_ref().map(|waits| json!({
            "action": action(waits),
            "asked_by": waits.asked_by,
            "asked": moment(waits.asked_ms),
            "approved_by": waits.approved_by,
            "runs": moment(waits.runs_ms),
            "receipt": (!waits.receipt_id.is_empty()).then_some(&waits.receipt_id),
        })),
    })
}

fn state(tenant: &Tenant) -> &'static str {
    match tenant.state() {
        v1::TenantState::Open => "open",
        v1::TenantState::Closed => "closed",
        v1::TenantState::Purging => "purging",
        v1::TenantState::Unspecified => "other",
    }
}

fn action(waits: &Transition) -> &'static str {
    match waits.action() {
        Action::Close => "close",
        Action::Purge => "purge",
        Action::SetPolicy => "policy",
        Action::Unspecified => "other",
    }
}

fn transition_text(waits: &Transition) -> String {
    let what = action(waits);
    let mut text = match moment(waits.runs_ms) {
        Some(runs) => format!("the {what} runs at {runs}, unless it is withdrawn or something keeps it"),
        None => format!("the {what} that {} asked for waits for a second person", waits.asked_by),
    };
    if !waits.receipt_id.is_empty() {
        text.push_str(&format!("; its receipt will be {}", waits.receipt_id));
    }
    text
}

fn row(tenant: &Tenant) -> Vec<String> {
    vec![
        tenant.name.clone(),
        tenant.home.clone(),
        residency(tenant).into(),
        tenant.policy.clone(),
        tenant.subscribers.to_string(),
        moment(tenant.created_ms).unwrap_or_default(),
        state(tenant).into(),
    ]
}

fn residency(tenant: &Tenant) -> &'static str {
    match tenant.residency() {
        v1::Residency::Both => "both",
        v1::Residency::HomeOnly => "home-only",
        v1::Residency::Unspecified => "other",
    }
}
