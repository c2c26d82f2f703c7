//! `ApiKeyService`: keys of a tenant's programs.

use super::{caller, refuse};
use crate::{
    proto::v1::{
        self, ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, ListApiKeysRequest, ListApiKeysResponse,
        RevokeApiKeyRequest, api_key_service_server::ApiKeyService, create_api_key_request::Own,
    },
    transport::{Gateway, auth::Action, error::Problem},
    vault::{self, KeyRole, KeySecret, NewApiKey},
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl ApiKeyService for Gateway {
    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let request = request.into_inner();
        identity.authorize(Action::ManageKeys, Some(&request.tenant)).map_err(refuse)?;
        let role = role(request.role()).map_err(refuse)?;
        let secret = secret(request.own).map_err(refuse)?;
        let new = NewApiKey { tenant: request.tenant, name: request.name, role, secret };
        let vault = self.vault.clone();
        // Once begun it runs to its end: a key whose answer got lost is listed, and can be revoked.
        let made = tokio::spawn(async move { vault.create_api_key(&identity.actor(), new).await });
        let (key, token) = made.await.map_err(refuse)?.map_err(refuse)?;
        Ok(Response::new(CreateApiKeyResponse { key: Some(shown(key)), token: token.as_str().to_owned() }))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        let (identity, _) = caller(self, &request)?;
        let tenant = &request.get_ref().tenant;
        identity.authorize(Action::ManageKeys, Some(tenant)).map_err(refuse)?;
        let keys = self.vault.api_keys(&identity.actor(), tenant).map_err(refuse)?;
        Ok(Response::new(ListApiKeysResponse { keys: keys.into_iter().map(shown).collect() }))
    }

    async fn revoke_api_key(&self, request: Request<RevokeApiKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let (identity, _) = caller(self, &request)?;
        let RevokeApiKeyRequest { tenant, id } = request.into_inner();
        identity.authorize(Action::ManageKeys, Some(&tenant)).map_err(refuse)?;
        let vault = self.vault.clone();
        let key = tokio::spawn(async move { vault.revoke_api_key(&identity.actor(), &tenant, &id).await });
        Ok(Response::new(shown(key.await.map_err(refuse)?.map_err(refuse)?)))
    }
}

fn role(role: v1::ApiKeyRole) -> Result<KeyRole, Problem> {
    match role {
        v1::ApiKeyRole::Admin => Ok(KeyRole::Admin),
        v1::ApiKeyRole::Switch => Ok(KeyRole::Switch),
        v1::ApiKeyRole::Auditor => Ok(KeyRole::Auditor),
        v1::ApiKeyRole::Unspecified => Err(Problem::invalid("role", "send admin, switch or auditor")),
    }
}

fn secret(own: Option<Own>) -> Result<KeySecret, Problem> {
    Ok(match own {
        None => KeySecret::Drawn,
        Some(Own::Secret(text)) => KeySecret::Own(text.into()),
        Some(Own::SecretSha256(hash)) => KeySecret::OwnHash(
            hash.as_ref()
                .try_into()
                .map_err(|_| Problem::invalid("secret_sha256", "send the 32 bytes of a SHA-256"))?,
        ),
    })
}

fn shown(key: vault::ApiKey) -> ApiKey {
    let role = match key.role {
        KeyRole::Admin => v1::ApiKeyRole::Admin,
        KeyRole::Switch => v1::ApiKeyRole::Switch,
        KeyRole::Auditor => v1::ApiKeyRole::Auditor,
    };
    ApiKey {
        id: key.id.to_string(),
        name: key.name,
        role: role.into(),
        created_ms: key.created.0,
        revoked_ms: key.revoked.map_or(0, |moment| moment.0),
    }
}
