//! `ErasureService`: the answer comes after the previous root has been destroyed; receipts, by their ids.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        EraseRequest, EraseResponse, GetReceiptRequest, ListReceiptsRequest, ListReceiptsResponse, Receipt,
        erasure_service_server::ErasureService,
    },
    transport::{Gateway, auth::Action, convert},
    vault::Target,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl ErasureService for Gateway {
    /// Once begun, an erasure runs to its end in a task of its own, whether the client waits for the answer or not.
    async fn erase(&self, request: Request<EraseRequest>) -> Result<Response<EraseResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let request = request.into_inner();
        let dry_run = request.dry_run;
        let sent = convert::opening(&request.scope_opening).map_err(refuse)?;
        let target = convert::target(request).map_err(refuse)?;
        let tenant = match &target {
            Target::Recording(..) => None,
            Target::Subscriber { tenant, .. } | Target::Tenant { tenant } => Some(tenant.as_str()),
        };
        identity.authorize(Action::Erase, tenant).map_err(refuse)?;
        if dry_run {
            let preview = self.vault.preview(&identity.actor(), &target).await.map_err(refuse)?;
            return Ok(Response::new(convert::preview(preview)));
        }
        let vault = self.vault.clone();
        let erasure = tokio::spawn(async move { vault.erase(&identity.actor(), target, sent).await });
        let erasure = erasure.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(convert::erasure(erasure, sent)))
    }

    /// Its id is random and names nobody: whoever may see receipts and knows it sees this one.
    async fn get_receipt(&self, request: Request<GetReceiptRequest>) -> Result<Response<Receipt>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::ReadReceipts, None).map_err(refuse)?;
        let id = convert::receipt_id("id", &request.get_ref().id).map_err(refuse)?;
        self.vault.backed_soon().await;
        Ok(Response::new(convert::receipt(self.vault.receipt(id).map_err(refuse)?)))
    }

    async fn list_receipts(
        &self,
        request: Request<ListReceiptsRequest>,
    ) -> Result<Response<ListReceiptsResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let ListReceiptsRequest { tenant, open_only, after, limit } = request.into_inner();
        let tenant = (!tenant.is_empty()).then_some(tenant);
        identity.authorize(Action::ReadReceipts, tenant.as_deref()).map_err(refuse)?;
        let after = if after.is_empty() { None } else { Some(convert::receipt_id("after", &after).map_err(refuse)?) };
        let (vault, scope) = (self.vault.clone(), identity.scope);
        let listed = tokio::task::spawn_blocking(move || {
            vault.receipts(&scope, tenant.as_deref(), open_only, after, convert::limit(limit))
        });
        let receipts = listed.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(ListReceiptsResponse { receipts: receipts.into_iter().map(convert::receipt).collect() }))
    }
}
