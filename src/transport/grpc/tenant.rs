//! `TenantService`: tenants, what is counted of them, and what waits.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        CreateTenantRequest, GetStatisticsRequest, GetStatusRequest, GetTenantRequest, ListTenantsRequest,
        ListTenantsResponse, Statistics, Status as GatewayStatus, Tenant, tenant_service_server::TenantService,
    },
    transport::{Gateway, auth::Action, convert},
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

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GatewayStatus>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::Status, None).map_err(refuse)?;
        Ok(Response::new(convert::status(self.vault.status())))
    }
}
