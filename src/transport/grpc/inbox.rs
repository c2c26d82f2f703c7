//! `InboxService`: what a tenant is told, and where.

use super::{caller, permission, refuse};
use crate::{
    proto::v1::{
        self, AcknowledgeRequest, AcknowledgeResponse, GetWebhookRequest, InboxItem, ListInboxRequest,
        ListInboxResponse, RemoveWebhookRequest, RemoveWebhookResponse, SetWebhookRequest, SetWebhookResponse, Webhook,
        inbox_item::About, inbox_service_server::InboxService,
    },
    transport::{Gateway, auth::Action, error::Problem},
    vault::{self, InboxAbout, InboxId},
};
use tonic::{Request, Response, Status};

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

#[tonic::async_trait]
impl InboxService for Gateway {
    async fn list(&self, request: Request<ListInboxRequest>) -> Result<Response<ListInboxResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let request = request.into_inner();
        identity.authorize(Action::Inbox, Some(&request.tenant)).map_err(refuse)?;
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(MAX_PAGE),
        } as usize;
        let actor = identity.actor();
        let page = self.vault.inbox(&actor, &request.tenant, size, &request.page_token);
        let (items, next_page_token) = page.await.map_err(refuse)?;
        Ok(Response::new(ListInboxResponse { items: items.into_iter().map(item).collect(), next_page_token }))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Result<Response<AcknowledgeResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let request = request.into_inner();
        identity.authorize(Action::Inbox, Some(&request.tenant)).map_err(refuse)?;
        let ids: Vec<InboxId> = request
            .ids
            .iter()
            .map(|id| id.parse().map_err(|_| Problem::invalid("ids", "an item's id has 40 hexadecimal digits")))
            .collect::<Result<_, _>>()
            .map_err(refuse)?;
        let acknowledged = self.vault.acknowledge(&identity.actor(), &request.tenant, &ids).await.map_err(refuse)?;
        Ok(Response::new(AcknowledgeResponse { acknowledged }))
    }

    async fn set_webhook(&self, request: Request<SetWebhookRequest>) -> Result<Response<SetWebhookResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let SetWebhookRequest { tenant, url } = request.into_inner();
        identity.authorize(Action::Inbox, Some(&tenant)).map_err(refuse)?;
        let secret = self.vault.set_webhook(&identity.actor(), &tenant, &url).await.map_err(refuse)?;
        Ok(Response::new(SetWebhookResponse { secret }))
    }

    async fn get_webhook(&self, request: Request<GetWebhookRequest>) -> Result<Response<Webhook>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = &request.get_ref().tenant;
        identity.authorize(Action::Inbox, Some(tenant)).map_err(refuse)?;
        let hook = self.vault.webhook(&identity.actor(), tenant).map_err(refuse)?;
        let shown = hook.map(|hook| Webhook { url: hook.url, set_ms: hook.set.0, set_by: hook.set_by });
        Ok(Response::new(shown.unwrap_or_default()))
    }

    async fn remove_webhook(
        &self,
        request: Request<RemoveWebhookRequest>,
    ) -> Result<Response<RemoveWebhookResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = request.into_inner().tenant;
        identity.authorize(Action::Inbox, Some(&tenant)).map_err(refuse)?;
        let removed = self.vault.remove_webhook(&identity.actor(), &tenant).await.map_err(refuse)?;
        Ok(Response::new(RemoveWebhookResponse { removed }))
    }
}

fn item(item: vault::InboxItem) -> InboxItem {
    InboxItem {
        id: item.id.to_string(),
        at_ms: item.at.0,
        about: Some(match item.about {
            InboxAbout::Permission(id, found) => About::Permission(v1::PermissionNotice {
                id: id.to_string(),
                permission: found.map(|found| permission::shown(*found)),
            }),
            InboxAbout::Receipt(id, opening) => {
                About::Receipt(v1::ReceiptNotice { id: id.to_string(), opening: opening.into() })
            }
        }),
    }
}
