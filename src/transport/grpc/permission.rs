//! `PermissionService`: staff ask, the customer decides.

use super::{caller, refuse};
use crate::{
    domain::{
        id::PermissionId,
        permission::{Level, State, Terms},
    },
    proto::v1::{
        self, DenyPermissionRequest, GetPermissionRequest, GrantPermissionRequest, ListPermissionsRequest,
        ListPermissionsResponse, Permission, RequestPermissionRequest, RevokePermissionRequest,
        permission_scope::About, permission_service_server::PermissionService,
    },
    transport::{Gateway, auth::Action, convert, error::Problem},
    vault::{self, Narrower, NewPermission, Over},
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl PermissionService for Gateway {
    async fn request(&self, request: Request<RequestPermissionRequest>) -> Result<Response<Permission>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::RequestPermission, None).map_err(refuse)?;
        let new = new(request.into_inner()).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let asked = tokio::spawn(async move { vault.request_permission(&actor, new).await });
        Ok(Response::new(shown(asked.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn grant(&self, request: Request<GrantPermissionRequest>) -> Result<Response<Permission>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::DecidePermission, None).map_err(refuse)?;
        let request = request.into_inner();
        let id = id(&request.id).map_err(refuse)?;
        let narrower = narrower(request).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let granted = tokio::spawn(async move { vault.grant_permission(&actor, id, narrower).await });
        Ok(Response::new(shown(granted.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn deny(&self, request: Request<DenyPermissionRequest>) -> Result<Response<Permission>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::DecidePermission, None).map_err(refuse)?;
        let id = id(&request.get_ref().id).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let denied = tokio::spawn(async move { vault.deny_permission(&actor, id).await });
        Ok(Response::new(shown(denied.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn revoke(&self, request: Request<RevokePermissionRequest>) -> Result<Response<Permission>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::DecidePermission, None).map_err(refuse)?;
        let id = id(&request.get_ref().id).map_err(refuse)?;
        let (vault, actor) = (self.vault.clone(), identity.actor());
        let revoked = tokio::spawn(async move { vault.revoke_permission(&actor, id).await });
        Ok(Response::new(shown(revoked.await.map_err(refuse)?.map_err(refuse)?)))
    }

    async fn get(&self, request: Request<GetPermissionRequest>) -> Result<Response<Permission>, Status> {
        let (identity, _) = caller(self, &request)?;
        identity.authorize(Action::ReadPermissions, None).map_err(refuse)?;
        let id = id(&request.get_ref().id).map_err(refuse)?;
        Ok(Response::new(shown(self.vault.permission(&identity.actor(), id).await.map_err(refuse)?)))
    }

    async fn list(
        &self,
        request: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let request = request.into_inner();
        identity.authorize(Action::ReadPermissions, Some(&request.tenant)).map_err(refuse)?;
        let mut found = self.vault.permissions(&identity.actor(), &request.tenant).await.map_err(refuse)?;
        found.retain(|permission| !request.waiting || permission.state == State::Asked);
        Ok(Response::new(ListPermissionsResponse { permissions: found.into_iter().map(shown).collect() }))
    }
}

fn id(text: &str) -> Result<PermissionId, Problem> {
    text.parse().map_err(|_| Problem::invalid("id", "the id of a permission has 32 hexadecimal digits"))
}

fn new(request: RequestPermissionRequest) -> Result<NewPermission, Problem> {
    let terms = request.terms.ok_or_else(|| Problem::invalid("terms", "say how far the permission is to go"))?;
    let level = level(terms.level())?.ok_or_else(|| Problem::invalid("level", "say listen or download"))?;
    Ok(NewPermission {
        over: scope(request.scope)?
            .ok_or_else(|| Problem::invalid("scope", "a recording, a subscriber or a tenant"))?,
        purpose: request.purpose,
        ticket: request.ticket,
        terms: Terms { level, lasts_ms: milliseconds(terms.seconds), later_calls: terms.later_calls },
    })
}

fn narrower(request: GrantPermissionRequest) -> Result<Narrower, Problem> {
    Ok(Narrower {
        level: level(request.level())?,
        over: scope(request.scope)?,
        lasts_ms: (request.seconds != 0).then_some(milliseconds(request.seconds)),
        later_calls: request.without_later_calls.then_some(false),
    })
}

/// Out of bounds stays out of bounds, and is refused as that.
fn milliseconds(seconds: i64) -> i64 {
    seconds.saturating_mul(1000)
}

fn level(level: v1::PermissionLevel) -> Result<Option<Level>, Problem> {
    Ok(match level {
        v1::PermissionLevel::Unspecified => None,
        v1::PermissionLevel::Listen => Some(Level::Listen),
        v1::PermissionLevel::Download => Some(Level::Download),
    })
}

fn scope(scope: Option<v1::PermissionScope>) -> Result<Option<Over>, Problem> {
    Ok(match scope.and_then(|scope| scope.about) {
        None => None,
        Some(About::Recording(id)) => Some(Over::Recording(convert::recording_id(&id)?)),
        Some(About::Subscriber(named)) => Some(Over::Subscriber { tenant: named.tenant, subscriber: named.subscriber }),
        Some(About::Tenant(tenant)) => Some(Over::Tenant { tenant }),
    })
}

/// Writes a permission.
pub(super) fn shown(permission: vault::Permission) -> Permission {
    let terms = |terms: Terms| v1::PermissionTerms {
        level: match terms.level {
            Level::Listen => v1::PermissionLevel::Listen,
            Level::Download => v1::PermissionLevel::Download,
        }
        .into(),
        seconds: terms.lasts_ms / 1000,
        later_calls: terms.later_calls,
    };
    let about = match permission.over {
        Over::Recording(id) => About::Recording(id.to_string()),
        Over::Subscriber { tenant, subscriber } => About::Subscriber(v1::PermissionSubscriber { tenant, subscriber }),
        Over::Tenant { tenant } => About::Tenant(tenant),
    };
    let (decided_ms, decided_by) = permission.decided.map(|(at, by)| (at.0, by)).unwrap_or_default();
    Permission {
        id: permission.id.to_string(),
        state: match permission.state {
            State::Asked => v1::PermissionState::Asked,
            State::Granted => v1::PermissionState::Granted,
            State::Denied => v1::PermissionState::Denied,
            State::Revoked => v1::PermissionState::Revoked,
            State::Expired => v1::PermissionState::Expired,
            State::Lapsed => v1::PermissionState::Lapsed,
        }
        .into(),
        tenant: permission.tenant,
        scope: Some(v1::PermissionScope { about: Some(about) }),
        purpose: permission.purpose,
        ticket: permission.ticket,
        asked_by: permission.asked_by,
        asked_for: permission.asked_for.unwrap_or_default(),
        asked_ms: permission.asked.0,
        wanted: Some(terms(permission.wanted)),
        granted: permission.granted.map(terms),
        decided_ms,
        decided_by,
        until_ms: permission.until.map_or(0, |until| until.0),
        ended_ms: permission.ended.map_or(0, |ended| ended.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of<T>(result: Result<T, Problem>) -> Option<&'static str> {
        result.err().and_then(|problem| problem.field)
    }

    #[test]
    fn a_request_says_what_for_how_long_and_how_far() {
        let scope = Some(v1::PermissionScope { about: Some(About::Tenant("acme".into())) });
        let terms = v1::PermissionTerms { level: v1::PermissionLevel::Listen.into(), seconds: 60, later_calls: false };
        let request = RequestPermissionRequest { scope, terms: Some(terms), ..Default::default() };
        assert!(new(request.clone()).is_ok());
        assert_eq!(field_of(new(RequestPermissionRequest { scope: None, ..request.clone() })), Some("scope"));
        assert_eq!(field_of(new(RequestPermissionRequest { terms: None, ..request.clone() })), Some("terms"));
        let unsaid = v1::PermissionTerms { level: 0, ..terms };
        assert_eq!(field_of(new(RequestPermissionRequest { terms: Some(unsaid), ..request.clone() })), Some("level"));
        let unknown = v1::PermissionTerms { level: 99, ..terms };
        assert_eq!(field_of(new(RequestPermissionRequest { terms: Some(unknown), ..request })), Some("level"));
    }

    #[test]
    fn what_a_grant_leaves_out_is_as_asked_for() {
        let read = narrower(GrantPermissionRequest { id: "x".into(), ..Default::default() }).expect("reads");
        assert!(read.over.is_none() && read.level.is_none() && read.lasts_ms.is_none() && read.later_calls.is_none());
        let read = narrower(GrantPermissionRequest { seconds: i64::MAX, ..Default::default() }).expect("reads");
        assert_eq!(read.lasts_ms, Some(i64::MAX));
    }

    proptest::proptest! {
        #[test]
        fn hostile_ids_never_panic(text: String) {
            let _ = id(&text);
        }
    }
}
