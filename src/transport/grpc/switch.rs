//! `SwitchService`: switches that a tenant lets record.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        EnrolSwitchRequest, ListSwitchesRequest, ListSwitchesResponse, RevokeSwitchRequest, RevokeSwitchResponse,
        Switch, switch_service_server::SwitchService,
    },
    transport::{Gateway, auth::Action},
    vault,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl SwitchService for Gateway {
    async fn enrol_switch(&self, request: Request<EnrolSwitchRequest>) -> Result<Response<Switch>, Status> {
        let (identity, _) = caller(self, &request)?;
        let EnrolSwitchRequest { tenant, name, max_recordings } = request.into_inner();
        identity.authorize(Action::ManageSwitches, Some(&tenant)).map_err(refuse)?;
        let vault = self.vault.clone();
        let enrolled =
            tokio::spawn(async move { vault.enrol_switch(&identity.actor(), &tenant, &name, max_recordings).await });
        Ok(Response::new(shown(enrolled.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn list_switches(
        &self,
        request: Request<ListSwitchesRequest>,
    ) -> Result<Response<ListSwitchesResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = &request.get_ref().tenant;
        identity.authorize(Action::ManageSwitches, Some(tenant)).map_err(refuse)?;
        let switches = self.vault.switches(&identity.actor(), tenant).map_err(refuse)?;
        Ok(Response::new(ListSwitchesResponse { switches: switches.into_iter().map(shown).collect() }))
    }

    async fn revoke_switch(
        &self,
        request: Request<RevokeSwitchRequest>,
    ) -> Result<Response<RevokeSwitchResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let RevokeSwitchRequest { tenant, name } = request.into_inner();
        identity.authorize(Action::ManageSwitches, Some(&tenant)).map_err(refuse)?;
        let vault = self.vault.clone();
        let revoked = tokio::spawn(async move { vault.revoke_switch(&identity.actor(), &tenant, &name).await });
        revoked.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(RevokeSwitchResponse {}))
    }
}

fn shown(switch: vault::Switch) -> Switch {
    Switch {
        name: switch.name,
        max_recordings: switch.max_recordings,
        created_ms: switch.created.0,
        recordings: switch.recordings,
    }
}
