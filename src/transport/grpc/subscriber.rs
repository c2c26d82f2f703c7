//! `SubscriberService`: what subscribers are in, and restriction.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        self, DeactivateSubscriberRequest, GetSubscriberRequest, GiveConsentRequest, RestrictRequest, RestrictResponse,
        Subscriber, UnblockRequest, UnblockResponse, WithdrawConsentRequest, WithdrawConsentResponse,
        restrict_request::Scope, subscriber_service_server::SubscriberService,
    },
    transport::{Gateway, auth::Action, convert, error::Problem},
    vault::{self, Restrict},
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl SubscriberService for Gateway {
    async fn get_subscriber(&self, request: Request<GetSubscriberRequest>) -> Result<Response<Subscriber>, Status> {
        let (identity, _) = caller(self, &request)?;
        let GetSubscriberRequest { tenant, name, ticket } = request.into_inner();
        identity.authorize(Action::ReadSubscriber, Some(&tenant)).map_err(refuse)?;
        let found = self.vault.subscriber(&identity.actor(), &tenant, &name, &ticket).await.map_err(refuse)?;
        Ok(Response::new(subscriber(found)))
    }

    /// A change of state runs to its end in a task of its own, whether the client waits for the answer or not.
    async fn deactivate_subscriber(
        &self,
        request: Request<DeactivateSubscriberRequest>,
    ) -> Result<Response<Subscriber>, Status> {
        let (identity, _) = caller(self, &request)?;
        let DeactivateSubscriberRequest { tenant, name } = request.into_inner();
        identity.authorize(Action::ChangeSubscriber, Some(&tenant)).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let done = tokio::spawn(async move { vault.deactivate_subscriber(&actor, &tenant, &name).await });
        Ok(Response::new(subscriber(done.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn restrict(&self, request: Request<RestrictRequest>) -> Result<Response<RestrictResponse>, Status> {
        restrict(self, request, true).await
    }

    async fn unrestrict(&self, request: Request<RestrictRequest>) -> Result<Response<RestrictResponse>, Status> {
        restrict(self, request, false).await
    }

    async fn unblock(&self, request: Request<UnblockRequest>) -> Result<Response<UnblockResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let UnblockRequest { tenant, name } = request.into_inner();
        identity.authorize(Action::ChangeSubscriber, Some(&tenant)).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let done = tokio::spawn(async move { vault.unblock(&actor, &tenant, &name).await });
        done.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(UnblockResponse {}))
    }

    async fn withdraw_consent(
        &self,
        request: Request<WithdrawConsentRequest>,
    ) -> Result<Response<WithdrawConsentResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let WithdrawConsentRequest { tenant, name } = request.into_inner();
        identity.authorize(Action::WithdrawConsent, Some(&tenant)).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let done = tokio::spawn(async move { vault.withdraw_consent(&actor, &tenant, &name).await });
        let done = done.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(WithdrawConsentResponse {
            subscriber: Some(subscriber(done.subscriber)),
            stopped: done.stopped,
            erased: done.erased,
            receipts: done.receipts.iter().map(ToString::to_string).collect(),
            left: Some(convert::standing(done.left)),
        }))
    }

    async fn give_consent(&self, request: Request<GiveConsentRequest>) -> Result<Response<Subscriber>, Status> {
        let (identity, _) = caller(self, &request)?;
        let GiveConsentRequest { tenant, name } = request.into_inner();
        identity.authorize(Action::WithdrawConsent, Some(&tenant)).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let done = tokio::spawn(async move { vault.give_consent(&actor, &tenant, &name).await });
        Ok(Response::new(subscriber(done.await.map_err(refuse)?.map_err(refuse)?)))
    }
}

async fn restrict(
    gateway: &Gateway,
    request: Request<RestrictRequest>,
    restricted: bool,
) -> Result<Response<RestrictResponse>, Status> {
    let (identity, _) = caller(gateway, &request)?;
    let (action, tenant, what) = match request.into_inner().scope {
        None => return Err(refuse(Problem::invalid("scope", "say what to restrict"))),
        Some(Scope::Tenant(name)) => (Action::ChangeTenant, Some(name.clone()), Restrict::Tenant(name)),
        Some(Scope::Subscriber(v1::RestrictSubscriber { tenant, name })) => {
            (Action::ChangeSubscriber, Some(tenant.clone()), Restrict::Subscriber { tenant, subscriber: name })
        }
        Some(Scope::Recording(id)) => {
            (Action::ChangeSubscriber, None, Restrict::Recording(convert::recording_id(&id).map_err(refuse)?))
        }
    };
    identity.authorize(action, tenant.as_deref()).map_err(refuse)?;
    let (vault, actor) = (gateway.vault.clone(), identity.actor());
    let done = tokio::spawn(async move { vault.restrict(&actor, what, restricted).await });
    done.await.map_err(refuse)?.map_err(refuse)?;
    Ok(Response::new(RestrictResponse {}))
}

fn subscriber(subscriber: vault::Subscriber) -> Subscriber {
    Subscriber {
        tenant: subscriber.tenant,
        name: subscriber.name,
        deactivated_ms: subscriber.deactivated.map_or(0, |since| since.0),
        restricted: subscriber.restricted,
        consent_withdrawn_ms: subscriber.consent_withdrawn.map_or(0, |since| since.0),
    }
}
