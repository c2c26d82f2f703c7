//! The gRPC services, and the health and reflection services beside them.
//!
//! Each method takes the identity that [`super::auth::layer`] has settled, asks whether its role may do that, calls the vault,
//! converts. What must not stop half-way
//! when a client hangs up (an erasure, a discard, the making of a tenant) runs in a task of its own. Health and
//! reflection need no identity: they tell nothing but the public interface.

mod apikey;
mod audit;
mod erasure;
mod hold;
mod inbox;
mod permission;
mod playback;
mod policy;
mod record;
mod recording;
mod subscriber;
mod switch;
mod tenant;

use super::{
    Gateway, Peer,
    auth::{Denied, Identity},
};
use crate::proto::v1::{
    self, api_key_service_server::ApiKeyServiceServer, audit_service_server::AuditServiceServer,
    erasure_service_server::ErasureServiceServer, hold_service_server::HoldServiceServer,
    inbox_service_server::InboxServiceServer, permission_service_server::PermissionServiceServer,
    playback_service_server::PlaybackServiceServer, policy_service_server::PolicyServiceServer,
    recording_service_server::RecordingServiceServer, subscriber_service_server::SubscriberServiceServer,
    switch_service_server::SwitchServiceServer, tenant_service_server::TenantServiceServer,
};
use tonic::{Request, Status, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};

/// Most content in one Data message.
pub const MAX_CONTENT: usize = 1 << 20;
/// Most bytes in one message: content and a margin for the facts.
const MAX_MESSAGE: usize = MAX_CONTENT + (512 << 10);
/// Most bytes in a message that may hold a policy.
const MAX_POLICY: usize = 2 * crate::domain::retention::MAX_TEXT;
/// Most bytes in the message of any other method.
const MAX_REQUEST: usize = 64 << 10;
const SERVICES: [&str; 13] = [
    "",
    "quietus.v1.RecordingService",
    "quietus.v1.PlaybackService",
    "quietus.v1.ErasureService",
    "quietus.v1.TenantService",
    "quietus.v1.PolicyService",
    "quietus.v1.ApiKeyService",
    "quietus.v1.SwitchService",
    "quietus.v1.PermissionService",
    "quietus.v1.InboxService",
    "quietus.v1.AuditService",
    "quietus.v1.HoldService",
    "quietus.v1.SubscriberService",
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
        .add_service(TenantServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_POLICY))
        .add_service(PolicyServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_POLICY))
        .add_service(ApiKeyServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(PermissionServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(InboxServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(AuditServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(HoldServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(SubscriberServiceServer::new(gateway.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(SwitchServiceServer::new(gateway).max_decoding_message_size(MAX_REQUEST));
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
    (routes.routes().prepare().into_axum_router(), Health(reporter))
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

/// Who sends a request, as [`super::auth::layer`] has settled it, and over what.
fn caller<T>(_: &Gateway, request: &Request<T>) -> Result<(Identity, &'static str), Status> {
    let peer = request.extensions().get::<Peer>().ok_or_else(|| refuse(Denied::Nobody))?;
    let identity = request.extensions().get::<Identity>().ok_or_else(|| refuse(Denied::Nobody))?;
    Ok((identity.clone(), peer.transport))
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
