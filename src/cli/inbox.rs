//! `quietus inbox`: what the gateway has to tell a tenant, and where it says that there is something.

use super::{
    connect::Link,
    failure::Failure,
    names,
    output::{Output, moment},
    permission,
};
use crate::proto::v1::{
    AcknowledgeRequest, GetWebhookRequest, InboxItem, ListInboxRequest, RemoveWebhookRequest, SetWebhookRequest,
    inbox_item::About, inbox_service_client::InboxServiceClient,
};
use clap::Subcommand;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

/// `quietus inbox …`
#[derive(Subcommand)]
pub enum InboxCommand {
    /// List what is there, the oldest day first.
    List {
        /// Whose.
        tenant: String,
    },
    /// Take items out.
    Ack {
        /// Whose.
        tenant: String,
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Where the tenant is told that something came.
    Webhook {
        /// What to do with it.
        #[command(subcommand)]
        command: WebhookCommand,
    },
}

/// `quietus inbox webhook …`
#[derive(Subcommand)]
pub enum WebhookCommand {
    /// Set it, and print the secret that signs, this once.
    Set {
        /// Whose.
        tenant: String,
        /// An https URL.
        url: String,
    },
    /// Show it.
    Show {
        /// Whose.
        tenant: String,
    },
    /// Take it away.
    Remove {
        /// Whose.
        tenant: String,
    },
}

/// Runs the command.
pub async fn run(link: Link, command: InboxCommand, output: Output) -> Result<(), Failure> {
    let mut client = InboxServiceClient::new(link);
    match command {
        InboxCommand::List { tenant } => {
            let mut request = ListInboxRequest { tenant: names::resolve(&tenant)?, ..Default::default() };
            let mut rows = Vec::new();
            loop {
                let page = client.list(request.clone()).await?.into_inner();
                for item in &page.items {
                    match output.json {
                        true => output.one(as_json(item), String::new)?,
                        false => rows.push(row(item)),
                    }
                }
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            if output.json { Ok(()) } else { output.table(&["ITEM", "SINCE", "WHAT", "ID", "ABOUT"], &rows) }
        }
        InboxCommand::Ack { tenant, ids } => {
            let request = AcknowledgeRequest {
                tenant: names::resolve(&tenant)?,
                ids: ids.iter().map(|id| names::resolve(id)).collect::<Result<_, _>>()?,
            };
            let gone = client.acknowledge(request).await?.into_inner().acknowledged;
            output.one(json!({ "acknowledged": gone }), || format!("{gone} acknowledged"))
        }
        InboxCommand::Webhook { command: WebhookCommand::Set { tenant, url } } => {
            let request = SetWebhookRequest { tenant: names::resolve(&tenant)?, url: names::resolve(&url)? };
            let secret = client.set_webhook(request).await?.into_inner().secret;
            output.one(json!({ "secret": secret }), || secret.clone())
        }
        InboxCommand::Webhook { command: WebhookCommand::Show { tenant } } => {
            let request = GetWebhookRequest { tenant: names::resolve(&tenant)? };
            let hook = client.get_webhook(request).await?.into_inner();
            let set = moment(hook.set_ms);
            let json = json!({ "url": (!hook.url.is_empty()).then_some(&hook.url), "set": set, "set_by": hook.set_by });
            output.one(json, || match set {
                Some(set) => format!("{} (set {set} by {})", hook.url, hook.set_by),
                None => "none".to_owned(),
            })
        }
        InboxCommand::Webhook { command: WebhookCommand::Remove { tenant } } => {
            let request = RemoveWebhookRequest { tenant: names::resolve(&tenant)? };
            let removed = client.remove_webhook(request).await?.into_inner().removed;
            output.one(json!({ "removed": removed }), || if removed { "removed" } else { "there was none" }.to_owned())
        }
    }
}

fn as_json(item: &InboxItem) -> Value {
    let mut json = json!({ "item": item.id, "since": moment(item.at_ms) });
    match &item.about {
        Some(About::Permission(notice)) => {
            json["what"] = "permission.requested".into();
            json["id"] = notice.id.clone().into();
            json["permission"] = notice.permission.as_ref().map(permission::as_json).into();
        }
        Some(About::Receipt(notice)) => {
            json["what"] = "receipt.ready".into();
            json["id"] = notice.id.clone().into();
            json["opening"] = HEXLOWER.encode(&notice.opening).into();
        }
        None => {}
    }
    json
}

fn row(item: &InboxItem) -> Vec<String> {
    let (what, id, about) = match &item.about {
        Some(About::Permission(notice)) => {
            let about = match &notice.permission {
                Some(asked) => format!("{} asks for {}: {}", asked.asked_by, permission::about(asked), asked.purpose),
                None => "of something that is gone".to_owned(),
            };
            ("permission", notice.id.clone(), about)
        }
        Some(About::Receipt(notice)) => {
            ("receipt", notice.id.clone(), format!("opened by {}", HEXLOWER.encode(&notice.opening)))
        }
        None => ("other", String::new(), String::new()),
    };
    vec![item.id.clone(), moment(item.at_ms).unwrap_or_default(), what.to_owned(), id, about]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{PermissionNotice, ReceiptNotice};

    #[test]
    fn an_item_of_something_erased_is_shown_as_that() {
        let notice = PermissionNotice { id: "1f".into(), permission: None };
        let item = InboxItem { about: Some(About::Permission(notice)), ..Default::default() };
        assert_eq!(as_json(&item)["permission"], Value::Null);
        assert!(row(&item).contains(&"of something that is gone".to_owned()));
    }

    #[test]
    fn the_opening_of_a_receipt_is_shown_as_hexadecimal() {
        let notice = ReceiptNotice { id: "1f".into(), opening: vec![0xab; 32].into() };
        let item = InboxItem { about: Some(About::Receipt(notice)), ..Default::default() };
        assert_eq!(as_json(&item)["opening"], "ab".repeat(32));
    }
}
