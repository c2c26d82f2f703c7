//! `quietus permission`: staff ask to listen, the customer decides.

use super::{
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::proto::v1::{
    DenyPermissionRequest, GetPermissionRequest, GrantPermissionRequest, ListPermissionsRequest, Permission,
    PermissionLevel, PermissionScope, PermissionState, PermissionSubscriber, PermissionTerms, RequestPermissionRequest,
    RevokePermissionRequest, permission_scope::About, permission_service_client::PermissionServiceClient,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// `quietus permission …`
#[derive(Subcommand)]
pub enum PermissionCommand {
    /// Ask the customer; prints the request's id.
    Request {
        /// What to hear.
        #[command(flatten)]
        scope: Scope,
        /// Why.
        #[arg(long)]
        purpose: String,
        /// The support system's number.
        #[arg(long)]
        ticket: String,
        /// For how long, from the grant on: 2h, 7d.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        lasts: i64,
        /// To keep a copy too, instead of listening only.
        #[arg(long)]
        download: bool,
        /// Also calls that end after the grant.
        #[arg(long)]
        later_calls: bool,
    },
    /// Grant what was asked for, or less.
    Grant {
        /// The request's id.
        id: String,
        /// Only a part of what was asked for.
        #[command(flatten)]
        scope: Scope,
        /// For a shorter time.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        lasts: Option<i64>,
        /// Listening, where a copy was asked for.
        #[arg(long)]
        listen_only: bool,
        /// Only the calls there are.
        #[arg(long)]
        without_later_calls: bool,
    },
    /// Say no.
    Deny {
        /// The request's id.
        id: String,
    },
    /// Take a grant back; what plays under it ends at once.
    Revoke {
        /// Its id.
        id: String,
    },
    /// Show one.
    Show {
        /// Its id.
        id: String,
    },
    /// List a tenant's permissions, newest first.
    List {
        /// Whose.
        #[arg(long)]
        tenant: String,
        /// Only those that wait for the customer.
        #[arg(long)]
        waiting: bool,
    },
}

/// What a permission is about.
#[derive(Args)]
#[group(multiple = false)]
pub struct Scope {
    /// One recording.
    #[arg(long, value_name = "ID")]
    recording: Option<String>,
    /// A subscriber's recordings.
    #[arg(long, value_name = "TENANT/NAME")]
    subscriber: Option<String>,
    /// All of a tenant's recordings.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

impl Scope {
    fn resolve(self) -> Result<Option<PermissionScope>, Failure> {
        let about = match (self.recording, self.subscriber, self.tenant) {
            (Some(id), _, _) => About::Recording(names::resolve(&id)?),
            (None, Some(name), _) => {
                let (tenant, subscriber) = names::resolve_subscriber(&name)?;
                About::Subscriber(PermissionSubscriber { tenant, subscriber })
            }
            (None, None, Some(name)) => About::Tenant(names::resolve(&name)?),
            (None, None, None) => return Ok(None),
        };
        Ok(Some(PermissionScope { about: Some(about) }))
    }
}

/// Runs the command.
pub async fn run(link: Link, command: PermissionCommand, output: Output) -> Result<(), Failure> {
    let mut client = PermissionServiceClient::new(link);
    let permission = match command {
        PermissionCommand::Request { scope, purpose, ticket, lasts, download, later_calls } => {
            let scope = scope.resolve()?.ok_or_else(|| Failure::usage("say --recording, --subscriber or --tenant"))?;
            let level = if download { PermissionLevel::Download } else { PermissionLevel::Listen };
            let terms = PermissionTerms { level: level.into(), seconds: lasts, later_calls };
            let (purpose, ticket) = (names::resolve(&purpose)?, names::resolve(&ticket)?);
            let request = RequestPermissionRequest { scope: Some(scope), purpose, ticket, terms: Some(terms) };
            let asked = client.request(request).await?.into_inner();
            return output.one(as_json(&asked), || asked.id.clone());
        }
        PermissionCommand::Grant { id, scope, lasts, listen_only, without_later_calls } => {
            let level = if listen_only { PermissionLevel::Listen } else { PermissionLevel::Unspecified };
            let request = GrantPermissionRequest {
                id: names::resolve(&id)?,
                scope: scope.resolve()?,
                level: level.into(),
                seconds: lasts.unwrap_or_default(),
                without_later_calls,
            };
            client.grant(request).await?.into_inner()
        }
        PermissionCommand::Deny { id } => {
            client.deny(DenyPermissionRequest { id: names::resolve(&id)? }).await?.into_inner()
        }
        PermissionCommand::Revoke { id } => {
            client.revoke(RevokePermissionRequest { id: names::resolve(&id)? }).await?.into_inner()
        }
        PermissionCommand::Show { id } => {
            client.get(GetPermissionRequest { id: names::resolve(&id)? }).await?.into_inner()
        }
        PermissionCommand::List { tenant, waiting } => {
            let request = ListPermissionsRequest { tenant: names::resolve(&tenant)?, waiting };
            let permissions = client.list(request).await?.into_inner().permissions;
            if output.json {
                return permissions.iter().try_for_each(|permission| output.one(as_json(permission), String::new));
            }
            let rows: Vec<_> = permissions.iter().map(row).collect();
            return output.table(&["ID", "STATE", "ABOUT", "LEVEL", "UNTIL", "ASKED BY", "TICKET", "PURPOSE"], &rows);
        }
    };
    output.one(as_json(&permission), || as_text(&permission))
}

/// Reads a time such as `90m`, `2h`, `7d`. A day has 24 hours.
fn seconds(text: &str) -> Result<i64, String> {
    let wrong = |_| "write a time such as 90m, 2h or 7d".to_owned();
    let span: jiff::Span = text.parse().map_err(wrong)?;
    let total = span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours())).map_err(wrong)?;
    Ok(total as i64)
}

/// As JSON.
pub(super) fn as_json(permission: &Permission) -> Value {
    let terms = |terms: &PermissionTerms| json!({ "level": level(terms.level()), "seconds": terms.seconds, "later_calls": terms.later_calls });
    let mut json = json!({
        "id": permission.id,
        "state": state(permission),
        "tenant": permission.tenant,
        "purpose": permission.purpose,
        "ticket": permission.ticket,
        "asked_by": permission.asked_by,
        "asked": moment(permission.asked_ms),
        "wanted": permission.wanted.as_ref().map(terms),
        "granted": permission.granted.as_ref().map(terms),
        "decided": moment(permission.decided_ms),
        "decided_by": (!permission.decided_by.is_empty()).then_some(&permission.decided_by),
        "until": moment(permission.until_ms),
        "ended": moment(permission.ended_ms),
    });
    if !permission.asked_for.is_empty() {
        json["asked_for"] = permission.asked_for.clone().into();
    }
    match permission.scope.as_ref().and_then(|scope| scope.about.as_ref()) {
        Some(About::Recording(id)) => json["recording"] = id.clone().into(),
        Some(About::Subscriber(named)) => json["subscriber"] = named.subscriber.clone().into(),
        Some(About::Tenant(_)) | None => {}
    }
    json
}

fn as_text(permission: &Permission) -> String {
    let mut text = format!("{} {}", permission.id, state(permission));
    // What has ended is not good until its end any more.
    match (moment(permission.ended_ms), moment(permission.until_ms)) {
        (Some(ended), _) => text.push_str(&format!(" at {ended}")),
        (None, Some(until)) => text.push_str(&format!(" until {until}")),
        (None, None) => {}
    }
    format!("{text}: {} of {} for {}", terms_of(permission), about(permission), permission.asked_by)
}

fn row(permission: &Permission) -> Vec<String> {
    vec![
        permission.id.clone(),
        state(permission).into(),
        about(permission),
        terms_of(permission).into(),
        moment(permission.until_ms).unwrap_or_default(),
        permission.asked_by.clone(),
        permission.ticket.clone(),
        permission.purpose.clone(),
    ]
}

/// What it is about, for people.
pub(super) fn about(permission: &Permission) -> String {
    match permission.scope.as_ref().and_then(|scope| scope.about.as_ref()) {
        Some(About::Recording(id)) => id.clone(),
        Some(About::Subscriber(named)) => format!("{}/{}", named.tenant, named.subscriber),
        Some(About::Tenant(name)) => name.clone(),
        None => String::new(),
    }
}

fn terms_of(permission: &Permission) -> &'static str {
    let terms = permission.granted.as_ref().or(permission.wanted.as_ref());
    terms.map_or("", |terms| level(terms.level()))
}

fn level(level: PermissionLevel) -> &'static str {
    match level {
        PermissionLevel::Unspecified => "other",
        PermissionLevel::Listen => "listen",
        PermissionLevel::Download => "download",
    }
}

fn state(permission: &Permission) -> &'static str {
    match permission.state() {
        PermissionState::Unspecified => "other",
        PermissionState::Asked => "asked",
        PermissionState::Granted => "granted",
        PermissionState::Denied => "denied",
        PermissionState::Revoked => "revoked",
        PermissionState::Expired => "expired",
        PermissionState::Lapsed => "lapsed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, expected) in [("90m", 5400), ("2h", 7200), ("7d", 604_800), ("1h 30m", 5400), ("PT2H", 7200)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "2", "soon", "1 month"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_revoked_is_told_with_that_moment_and_not_with_its_end() {
        let mut permission =
            Permission { state: PermissionState::Granted.into(), until_ms: 1_800_000_000_000, ..Default::default() };
        assert!(as_text(&permission).contains("granted until 2027-01-15"));
        permission.state = PermissionState::Revoked.into();
        permission.ended_ms = 1_790_000_000_000;
        assert!(as_text(&permission).contains("revoked at 2026-09-21"), "{}", as_text(&permission));
    }

    #[test]
    fn what_was_granted_counts_and_before_that_what_was_asked_for() {
        let terms = |level: PermissionLevel| Some(PermissionTerms { level: level.into(), ..Default::default() });
        let mut permission = Permission { wanted: terms(PermissionLevel::Download), ..Default::default() };
        assert_eq!(terms_of(&permission), "download");
        permission.granted = terms(PermissionLevel::Listen);
        assert_eq!(terms_of(&permission), "listen");
    }
}
