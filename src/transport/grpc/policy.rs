//! `PolicyService`: which policies there are, which one a tenant has, and why something goes when it goes.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        CheckPolicyRequest, DryRunPolicyRequest, ExplainRequest, Explanation, GetPolicyRequest, GetPresetRequest,
        ListPresetsRequest, ListPresetsResponse, PolicyDryRun, PolicyText, SetPolicyRequest, TenantPolicy,
        policy_service_server::PolicyService,
    },
    transport::{Gateway, auth::Action, convert, convert::policy as write},
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl PolicyService for Gateway {
    async fn list_presets(
        &self,
        request: Request<ListPresetsRequest>,
    ) -> Result<Response<ListPresetsResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::ReadPolicy, None).map_err(refuse)?;
        let presets = self.vault.presets().map_err(refuse)?.into_iter().map(write::preset).collect();
        Ok(Response::new(ListPresetsResponse { presets }))
    }

    async fn get_preset(&self, request: Request<GetPresetRequest>) -> Result<Response<PolicyText>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::ReadPolicy, None).map_err(refuse)?;
        let page = self.vault.preset(&request.get_ref().name).map_err(refuse)?;
        Ok(Response::new(write::text(page)))
    }

    async fn check_policy(&self, request: Request<CheckPolicyRequest>) -> Result<Response<PolicyText>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::ReadPolicy, None).map_err(refuse)?;
        let source = write::source(request.into_inner().source).map_err(refuse)?;
        Ok(Response::new(write::text(self.vault.check_policy(&source).map_err(refuse)?)))
    }

    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Result<Response<TenantPolicy>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = &request.get_ref().tenant;
        identity.authorize(Action::ReadPolicy, Some(tenant)).map_err(refuse)?;
        Ok(Response::new(write::in_force(self.vault.policy(tenant).map_err(refuse)?)))
    }

    async fn set_policy(&self, request: Request<SetPolicyRequest>) -> Result<Response<TenantPolicy>, Status> {
        let (identity, _) = caller(self, &request)?;
        let SetPolicyRequest { tenant, source, confirm } = request.into_inner();
        identity.authorize(Action::SetPolicy, Some(&tenant)).map_err(refuse)?;
        let source = write::source(source).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let set = tokio::spawn(async move { vault.set_policy(&actor, &tenant, &source, &confirm).await });
        Ok(Response::new(write::in_force(set.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<Explanation>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::Explain, None).map_err(refuse)?;
        let ExplainRequest { id, ticket } = request.into_inner();
        let id = convert::recording_id(&id).map_err(refuse)?;
        let explanation = self.vault.explain(&identity.actor(), id, &ticket).await.map_err(refuse)?;
        Ok(Response::new(write::explanation(id, explanation)))
    }

    async fn dry_run_policy(&self, request: Request<DryRunPolicyRequest>) -> Result<Response<PolicyDryRun>, Status> {
        let (identity, _) = caller(self, &request)?;
        let DryRunPolicyRequest { tenant, source } = request.into_inner();
        identity.authorize(Action::ReadPolicy, Some(&tenant)).map_err(refuse)?;
        let source = write::source(source).map_err(refuse)?;
        let rows = self.vault.dry_run_policy(&tenant, &source).await.map_err(refuse)?;
        Ok(Response::new(PolicyDryRun { rows: rows.into_iter().map(write::row).collect() }))
    }
}
