//! The gRPC services, and the health and reflection services beside them.
//!
//! Each method authenticates, asks the table of [`super::auth`], calls the vault, converts. What must not stop half-way
//! when a client hangs up (an erasure, a discard, the making of a tenant) runs in a task of its own. Health and
//! reflection need no identity: they tell nothing but the public interface.

mod erasure;
mod playback;
mod record;
mod recording;
mod tenant;

use super::{
    Gateway, Peer,
    auth::{self, Denied, Identity},
};
use crate::proto::v1::{
    self, erasure_service_server::ErasureServiceServer, playback_service_server::PlaybackServiceServer,
    recording_service_server::RecordingServiceServer, tenant_service_server::TenantServiceServer,
};
use axum::{
    body::Body,
    extract::State,
    middleware::{self, Next},
};
use tonic::{Request, Status, metadata::MetadataMap, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};

/// Most content in one Data message.
pub const MAX_CONTENT: usize = 1 << 20;
/// Most bytes in one message: content and a margin for the facts.
const MAX_MESSAGE: usize = MAX_CONTENT + (512 << 10);
/// Most bytes in the message of any other method.
const MAX_REQUEST: usize = 64 << 10;
const SERVICES: [&str; 5] = [
    "",
    "quietus.v1.RecordingService",
    "quietus.v1.PlaybackService",
    "quietus.v1.ErasureService",
    "quietus.v1.TenantService",
];

/// All services on one router, and what tells the health service.
pub fn routes(gateway: Gateway) -> (axum::Router, Health) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let health = health.max_decoding_message_size(MAX_REQUEST);
    let mut routes = Routes::builder();
    routes
        .add_service(health)
        .add_service(RecordingServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(PlaybackServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(ErasureServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(TenantServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The descriptors were encoded by our own build script; a test registers them.
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            routes
                .add_service(v1.max_decoding_message_size(MAX_REQUEST))
                .add_service(v1alpha.max_decoding_message_size(MAX_REQUEST));
        }
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "the reflection service is not available"),
    }
    let router = routes.routes().prepare().into_axum_router();
    (router.layer(middleware::from_fn_with_state(gateway, known)), Health(reporter))
}

/// Turns nobody away before a byte of their message is read: what a stranger sends takes no memory.
async fn known(State(gateway): State<Gateway>, request: http::Request<Body>, next: Next) -> http::Response<Body> {
    if request.uri().path().starts_with("/quietus.") {
        let (parts, body) = request.into_parts();
        let headers =
            Request::from_parts(MetadataMap::from_headers(parts.headers.clone()), parts.extensions.clone(), ());
        return match caller(&gateway, &headers) {
            Ok(_) => next.run(http::Request::from_parts(parts, body)).await,
            Err(refusal) => refusal.into_http(),
        };
    }
    next.run(request).await
}

/// Tells the health service.
pub struct Health(HealthReporter);

impl Health {
    /// Whether the services take requests.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// Who sends a request, and over what.
fn caller<T>(gateway: &Gateway, request: &Request<T>) -> Result<(Identity, &'static str), Status> {
    let peer = request.extensions().get::<Peer>().ok_or_else(|| refuse(Denied::Nobody))?;
    // A header of another scheme is not "no token": it falls through to a refusal, not to the certificate.
    let header = request.metadata().get("authorization");
    let token = header.map(|value| auth::bearer(value.to_str().ok()).unwrap_or_default());
    let identity = gateway.identities.authenticate(&peer.certificate, token).map_err(refuse)?;
    Ok((identity, peer.transport))
}

/// An error of any of our kinds as a status.
fn refuse(error: impl Into<super::error::Problem>) -> Status {
    error.into().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_takes_our_descriptors() {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        assert!(builder().build_v1().is_ok() && builder().build_v1alpha().is_ok());
    }
}
