//! `TenantService`: tenants, what is counted of them, and what waits.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        AnonymousStatistics, ApproveTransitionRequest, ApproveTransitionResponse, CloseTenantRequest,
        CreateTenantRequest, GetAnonymousStatisticsRequest, GetStandingRequest, GetStatisticsRequest, GetStatusRequest,
        GetTenantRequest, ListTenantsRequest, ListTenantsResponse, Standing, Statistics, Status as GatewayStatus,
        Tenant, WithdrawTransitionRequest, tenant_service_server::TenantService,
    },
    transport::{Gateway, auth::Action, convert},
    vault::{Settled, Target},
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl TenantService for Gateway {
    async fn create_tenant(&self, request: Request<CreateTenantRequest>) -> Result<Response<Tenant>, Status> {
        let (identity, _) = caller(self, &request)?;
        let new = convert::new_tenant(request.into_inner()).map_err(refuse)?;
        identity.authorize(Action::CreateTenant, Some(&new.name)).map_err(refuse)?;
        let vault = self.vault.clone();
        let tenant = tokio::spawn(async move { vault.create_tenant(&identity.actor(), new).await });
        Ok(Response::new(convert::tenant(tenant.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<Tenant>, Status> {
        let (identity, _) = caller(self, &request)?;
        let name = &request.get_ref().name;
        identity.authorize(Action::ReadTenant, Some(name)).map_err(refuse)?;
        Ok(Response::new(convert::tenant(self.vault.tenant(name).map_err(refuse)?)))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::ReadTenant, None).map_err(refuse)?;
        let tenants = self.vault.tenants(&identity.scope).map_err(refuse)?;
        Ok(Response::new(ListTenantsResponse { tenants: tenants.into_iter().map(convert::tenant).collect() }))
    }

    async fn get_statistics(&self, request: Request<GetStatisticsRequest>) -> Result<Response<Statistics>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = request.into_inner().tenant;
        identity.authorize(Action::ReadTenant, Some(&tenant)).map_err(refuse)?;
        let vault = self.vault.clone();
        let rows = tokio::task::spawn_blocking(move || vault.statistics(&tenant)).await.map_err(refuse)?;
        let rows = rows.map_err(refuse)?.into_iter().map(convert::statistics_row).collect();
        Ok(Response::new(Statistics { rows }))
    }

    /// A change of state runs to its end in a task of its own, whether the client waits for the answer or not.
    async fn close_tenant(&self, request: Request<CloseTenantRequest>) -> Result<Response<Tenant>, Status> {
        let (identity, _) = caller(self, &request)?;
        let CloseTenantRequest { name, confirm } = request.into_inner();
        identity.authorize(Action::ChangeTenant, Some(&name)).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let closed = tokio::spawn(async move { vault.close_tenant(&actor, &name, &confirm).await });
        Ok(Response::new(convert::tenant(closed.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn approve_transition(
        &self,
        request: Request<ApproveTransitionRequest>,
    ) -> Result<Response<ApproveTransitionResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let name = request.into_inner().name;
        identity.authorize(Action::ApproveTransition, Some(&name)).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let approved = tokio::spawn(async move {
            let settled = vault.approve(&actor, &name).await?;
            Ok::<_, crate::vault::Error>(match settled {
                Settled::Purged(erasure, drawn) => ApproveTransitionResponse {
                    tenant: None,
                    generation_from: erasure.generation_from,
                    generation_to: erasure.generation_to,
                    receipt_id: erasure.receipt.to_string(),
                    receipt: erasure.receipt_file,
                    scope_opening: if drawn { erasure.opening.to_vec().into() } else { bytes::Bytes::new() },
                },
                Settled::Waits(transition) => ApproveTransitionResponse {
                    tenant: Some(convert::tenant(vault.tenant(&name)?)),
                    receipt_id: transition.receipt.map_or_else(String::new, |id| id.to_string()),
                    ..ApproveTransitionResponse::default()
                },
                Settled::Stays(_) => ApproveTransitionResponse {
                    tenant: Some(convert::tenant(vault.tenant(&name)?)),
                    ..ApproveTransitionResponse::default()
                },
            })
        });
        Ok(Response::new(approved.await.map_err(refuse)?.map_err(refuse)?))
    }

    async fn withdraw_transition(
        &self,
        request: Request<WithdrawTransitionRequest>,
    ) -> Result<Response<Tenant>, Status> {
        let (identity, _) = caller(self, &request)?;
        let name = request.into_inner().name;
        identity.authorize(Action::ApproveTransition, Some(&name)).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let withdrawn = tokio::spawn(async move { vault.withdraw(&actor, &name).await });
        Ok(Response::new(convert::tenant(withdrawn.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn get_standing(&self, request: Request<GetStandingRequest>) -> Result<Response<Standing>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = request.into_inner().name;
        identity.authorize(Action::ReadHolds, Some(&tenant)).map_err(refuse)?;
        let preview = self.vault.preview(&identity.actor(), &Target::Tenant { tenant }).await.map_err(refuse)?;
        Ok(Response::new(convert::standing(preview)))
    }

    async fn get_anonymous_statistics(
        &self,
        request: Request<GetAnonymousStatisticsRequest>,
    ) -> Result<Response<AnonymousStatistics>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::Status, None).map_err(refuse)?;
        let rows = self.vault.anonymous_statistics().map_err(refuse)?.into_iter().map(convert::anonymous_row).collect();
        Ok(Response::new(AnonymousStatistics { min_tenants: self.vault.min_tenants(), rows }))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GatewayStatus>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::Status, None).map_err(refuse)?;
        Ok(Response::new(convert::status(self.vault.status())))
    }
}
