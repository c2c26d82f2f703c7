//! `ErasureService`: the answer comes after the previous root has been destroyed.

use super::{caller, refuse};
use crate::{
    proto::v1::{EraseRequest, EraseResponse, erasure_service_server::ErasureService},
    transport::{Gateway, auth::Action, convert},
    vault::Target,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl ErasureService for Gateway {
    /// Once begun, an erasure runs to its end in a task of its own, whether the client waits for the answer or not.
    async fn erase(&self, request: Request<EraseRequest>) -> Result<Response<EraseResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let target = convert::target(request.into_inner()).map_err(refuse)?;
        let tenant = match &target {
            Target::Recording(..) => None,
            Target::Subscriber { tenant, .. } | Target::Tenant { tenant } => Some(tenant.as_str()),
        };
        identity.authorize(Action::Erase, tenant).map_err(refuse)?;
        let vault = self.vault.clone();
        let erasure = tokio::spawn(async move { vault.erase(&identity.actor(), target, None).await });
        Ok(Response::new(convert::erasure(erasure.await.map_err(refuse)?.map_err(refuse)?)))
    }
}
