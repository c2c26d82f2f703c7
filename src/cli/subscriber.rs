//! `quietus subscriber` and `quietus recording`: what subscribers are in, and restriction.

use super::{
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
};
use crate::proto::v1::{
    DeactivateSubscriberRequest, GetSubscriberRequest, RestrictRequest, RestrictSubscriber, Subscriber, UnblockRequest,
    restrict_request::Scope, subscriber_service_client::SubscriberServiceClient,
};
use clap::Subcommand;
use serde_json::json;

/// `quietus subscriber …`
#[derive(Subcommand)]
pub enum SubscriberCommand {
    /// Show what a subscriber is in.
    Show {
        /// TENANT/NAME.
        name: String,
        /// Number of the ticket of the support system that this is about: staff need one.
        #[arg(long, value_name = "NUMBER")]
        ticket: Option<String>,
    },
    /// Take no new recording of it, and let the policy's rules for that fire.
    Deactivate {
        /// TENANT/NAME.
        name: String,
    },
    /// Keep its recordings, and neither play, export, expire nor erase them.
    Restrict {
        /// TENANT/NAME.
        name: String,
    },
    /// Lift a restriction.
    Unrestrict {
        /// TENANT/NAME.
        name: String,
    },
    /// Take recordings of a name again that was blocked when its subscriber was erased.
    Unblock {
        /// TENANT/NAME.
        name: String,
    },
}

/// `quietus recording …`
#[derive(Subcommand)]
pub enum RecordingCommand {
    /// Keep a recording, and neither play, export, expire nor erase it.
    Restrict {
        /// Its id.
        id: String,
    },
    /// Lift a restriction.
    Unrestrict {
        /// Its id.
        id: String,
    },
}

/// Runs a command about a subscriber.
pub async fn run(link: Link, command: SubscriberCommand, output: Output) -> Result<(), Failure> {
    let mut client = SubscriberServiceClient::new(link.clone());
    match command {
        SubscriberCommand::Show { name, ticket } => {
            let (tenant, name) = names::resolve_subscriber(&name)?;
            let request = GetSubscriberRequest { tenant, name, ticket: ticket.unwrap_or_default() };
            show(&client.get_subscriber(request).await?.into_inner(), output)
        }
        SubscriberCommand::Deactivate { name } => {
            let (tenant, name) = names::resolve_subscriber(&name)?;
            let request = DeactivateSubscriberRequest { tenant, name };
            show(&client.deactivate_subscriber(request).await?.into_inner(), output)
        }
        SubscriberCommand::Restrict { name } => {
            let (tenant, name) = names::resolve_subscriber(&name)?;
            restrict(link, Scope::Subscriber(RestrictSubscriber { tenant, name }), true, output).await
        }
        SubscriberCommand::Unrestrict { name } => {
            let (tenant, name) = names::resolve_subscriber(&name)?;
            restrict(link, Scope::Subscriber(RestrictSubscriber { tenant, name }), false, output).await
        }
        SubscriberCommand::Unblock { name } => {
            let (tenant, name) = names::resolve_subscriber(&name)?;
            client.unblock(UnblockRequest { tenant, name }).await?;
            output.one(json!({ "blocked": false }), || "not blocked any more".into())
        }
    }
}

/// Runs a command about a recording.
pub async fn recording(link: Link, command: RecordingCommand, output: Output) -> Result<(), Failure> {
    let (id, restricted) = match command {
        RecordingCommand::Restrict { id } => (id, true),
        RecordingCommand::Unrestrict { id } => (id, false),
    };
    restrict(link, Scope::Recording(names::resolve(&id)?), restricted, output).await
}

/// Restricts something, or lifts its restriction.
pub async fn restrict(link: Link, scope: Scope, restricted: bool, output: Output) -> Result<(), Failure> {
    let mut client = SubscriberServiceClient::new(link);
    let request = RestrictRequest { scope: Some(scope) };
    if restricted {
        client.restrict(request).await?;
    } else {
        client.unrestrict(request).await?;
    }
    output.one(json!({ "restricted": restricted }), || {
        if restricted { "restricted: kept, and not used".into() } else { "not restricted any more".into() }
    })
}

fn show(subscriber: &Subscriber, output: Output) -> Result<(), Failure> {
    let json = json!({
        "tenant": subscriber.tenant,
        "name": subscriber.name,
        "deactivated": moment(subscriber.deactivated_ms),
        "restricted": subscriber.restricted,
    });
    output.one(json, || {
        let state = match moment(subscriber.deactivated_ms) {
            Some(since) => format!("deactivated since {since}"),
            None => "active".into(),
        };
        format!(
            "tenant      {}\nname        {}\nstate       {state}\nrestricted  {}",
            subscriber.tenant,
            subscriber.name,
            if subscriber.restricted { "yes" } else { "no" }
        )
    })
}
