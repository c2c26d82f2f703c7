//! `quietus subscriber` and `quietus recording`: what subscribers are in, restriction, consent, what a recording rests on, who
//! is bound to it, correction of its facts.

use super::{
    connect::Link,
    erase,
    failure::Failure,
    names,
    output::{Output, moment},
    record,
};
use crate::proto::v1::{
    BindPartiesRequest, CorrectRequest, CorrectedLabels, CorrectedParties, DeactivateSubscriberRequest,
    GetBasisRequest, GetBasisResponse, GetSubscriberRequest, GiveConsentRequest, RestrictRequest, RestrictSubscriber,
    Subscriber, UnblockRequest, WithdrawConsentRequest, WithdrawConsentResponse,
    recording_service_client::RecordingServiceClient, restrict_request::Scope,
    subscriber_service_client::SubscriberServiceClient,
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
    /// Stop and erase what rests on the subscriber's consent, and take no more on that basis.
    WithdrawConsent {
        /// TENANT/NAME.
        name: String,
    },
    /// Consent was given again: take recordings on that basis from now on.
    GiveConsent {
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
    /// Show on what basis it was recorded, with announcement and evidence. Whoever may hear it may see them; it is logged.
    Basis {
        /// Its id.
        id: String,
    },
    /// Bind other subscribers of the tenant to it. Where the policy says `any`, erasing one of them erases it.
    Bind {
        /// Its id.
        id: String,
        /// Who; may be repeated.
        #[arg(long = "party", value_name = "NAME", required = true)]
        parties: Vec<String>,
    },
    /// State facts anew, and forget them as they were. What is not given stays.
    Correct {
        /// Its id.
        id: String,
        /// Who took part, in the place of everybody who was stated; may be repeated.
        #[arg(long = "party", value_name = "NAME")]
        parties: Vec<String>,
        /// Nobody is to be named.
        #[arg(long, conflicts_with = "parties")]
        no_parties: bool,
        /// The switch's own call id.
        #[arg(long, value_name = "ID")]
        call_id: Option<String>,
        /// Anything else, in the place of all labels that were stated; may be repeated.
        #[arg(long = "label", value_name = "NAME=VALUE")]
        labels: Vec<String>,
        /// No label is to stay.
        #[arg(long, conflicts_with = "labels")]
        no_labels: bool,
        /// Why it was recorded.
        #[arg(long)]
        purpose: Option<String>,
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
        SubscriberCommand::WithdrawConsent { name } => {
            let (tenant, name) = names::resolve_subscriber(&name)?;
            withdrawn(&client.withdraw_consent(WithdrawConsentRequest { tenant, name }).await?.into_inner(), output)
        }
        SubscriberCommand::GiveConsent { name } => {
            let (tenant, name) = names::resolve_subscriber(&name)?;
            show(&client.give_consent(GiveConsentRequest { tenant, name }).await?.into_inner(), output)
        }
    }
}

fn withdrawn(done: &WithdrawConsentResponse, output: Output) -> Result<(), Failure> {
    let left = done.left.clone().unwrap_or_default();
    let since = done.subscriber.as_ref().and_then(|subscriber| moment(subscriber.consent_withdrawn_ms));
    let json = json!({
        "consent_withdrawn": since,
        "stopped": done.stopped,
        "erased": done.erased,
        "receipts": done.receipts,
        "left": erase::standing_json(&left),
    });
    output.one(json, || {
        let mut text = format!("stopped              {}\nerased               {}", done.stopped, done.erased);
        for receipt in &done.receipts {
            text.push_str(&format!("\nreceipt              {receipt}, its opening in the tenant's inbox"));
        }
        if left.recordings > 0 {
            text.push_str("\nwhat is kept goes as soon as nothing keeps it:\n");
            text.push_str(&erase::standing_text(&left));
        }
        text
    })
}

/// Runs a command about a recording.
pub async fn recording(link: Link, command: RecordingCommand, output: Output) -> Result<(), Failure> {
    match command {
        RecordingCommand::Restrict { id } => restrict(link, Scope::Recording(names::resolve(&id)?), true, output).await,
        RecordingCommand::Unrestrict { id } => {
            restrict(link, Scope::Recording(names::resolve(&id)?), false, output).await
        }
        RecordingCommand::Basis { id } => {
            let request = GetBasisRequest { id: names::resolve(&id)? };
            basis(&RecordingServiceClient::new(link).get_basis(request).await?.into_inner(), output)
        }
        RecordingCommand::Bind { id, parties } => {
            let request = BindPartiesRequest { id: names::resolve(&id)?, parties: resolved(&parties)? };
            RecordingServiceClient::new(link).bind_parties(request).await?;
            output.one(json!({ "bound": true }), || "bound".into())
        }
        RecordingCommand::Correct { id, parties, no_parties, call_id, labels, no_labels, purpose } => {
            let labels = record::labels(&labels)?;
            let resolve = |value: Option<String>| value.map(|value| names::resolve(&value)).transpose();
            let request = CorrectRequest {
                id: names::resolve(&id)?,
                parties: (no_parties || !parties.is_empty())
                    .then(|| resolved(&parties).map(|parties| CorrectedParties { parties }))
                    .transpose()?,
                call_id: resolve(call_id)?,
                labels: (no_labels || !labels.is_empty()).then_some(CorrectedLabels { labels }),
                purpose: resolve(purpose)?,
            };
            RecordingServiceClient::new(link).correct(request).await?;
            output.one(json!({ "corrected": true }), || "corrected; the facts as they were are forgotten".into())
        }
    }
}

fn resolved(names: &[String]) -> Result<Vec<String>, Failure> {
    names.iter().map(|name| names::resolve(name)).collect()
}

fn basis(basis: &GetBasisResponse, output: Output) -> Result<(), Failure> {
    let evidence: Vec<_> = basis
        .evidence
        .iter()
        .map(|it| json!({ "party": it.party, "how": it.how, "at": moment(it.at_ms), "reference": it.reference }))
        .collect();
    let announcement = basis
        .announcement
        .as_ref()
        .map(|it| json!({ "prompt": it.prompt, "language": it.language, "offset_ms": it.offset_ms }));
    let json = json!({
        "jurisdiction": basis.jurisdiction,
        "basis": basis.basis,
        "announcement": announcement,
        "evidence": evidence,
    });
    output.one(json, || {
        let mut text = format!("jurisdiction {}\nbasis        {}", basis.jurisdiction, basis.basis);
        if let Some(it) = &basis.announcement {
            let from = it.offset_ms;
            text.push_str(&format!("\nannouncement {} {}, {from} ms from the start", it.prompt, it.language));
        }
        for it in &basis.evidence {
            let at = moment(it.at_ms).unwrap_or_default();
            text.push_str(&format!("\nevidence     {} {} {at} {}", it.party, it.how, it.reference));
        }
        text
    })
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
        "consent_withdrawn": moment(subscriber.consent_withdrawn_ms),
    });
    output.one(json, || {
        let state = match moment(subscriber.deactivated_ms) {
            Some(since) => format!("deactivated since {since}"),
            None => "active".into(),
        };
        let mut text = format!(
            "tenant      {}\nname        {}\nstate       {state}\nrestricted  {}",
            subscriber.tenant,
            subscriber.name,
            if subscriber.restricted { "yes" } else { "no" }
        );
        if let Some(since) = moment(subscriber.consent_withdrawn_ms) {
            text.push_str(&format!("\nconsent     withdrawn {since}"));
        }
        text
    })
}
