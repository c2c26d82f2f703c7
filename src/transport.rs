//! How the gateway is reached: gRPC and HTTP over TLS 1.3 ([`serve`]: HTTP/2 and HTTP/1.1) and over QUIC ([`quic`]:
//! HTTP/3). One router serves all three, so a status, a limit or a rule never depends on the transport.
//!
//! - [`tls`]: the one TLS policy. TLS 1.3 only, no early data, no tickets.
//! - [`serve`], [`quic`]: accept loops; both put a [`Peer`] into every request.
//! - [`auth`]: who is asking, settled once for each request, and who may what.
//! - [`error`]: the one place where an error becomes a code.
//! - [`convert`]: wire messages to the vault's types and back.
//! - [`grpc`], [`http`]: the services. They call the vault and nothing below it.
//!
//! Invariants: no request is served without a [`Peer`]; every handler asks [`auth`] before it calls the vault; bytes of a
//! recording leave only as the vault hands them out (authenticated, and listed in the audit log before); connections
//! have a maximum age, so that a session key of TLS never outlives it by more than the grace for running requests.

pub mod auth;
pub mod convert;
pub mod error;
pub mod grpc;
pub mod http;
pub mod quic;
pub mod serve;
pub mod tls;

use crate::vault::Vault;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The other end of a connection; every request carries it.
#[derive(Clone)]
pub struct Peer {
    /// What the client certificate says, where there is one. It has been verified against the configured CA.
    pub certificate: auth::CertificateName,
    /// `h2`, `http/1.1` or `h3`.
    pub transport: &'static str,
    /// Where the packets come from.
    pub address: SocketAddr,
}

/// What every handler shares.
#[derive(Clone)]
pub struct Gateway {
    /// The façade.
    pub vault: Vault,
    /// Who there is, by the identities file.
    pub identities: Arc<auth::Identities>,
    /// Whose signed tokens are taken.
    pub issuers: Arc<[auth::issuer::Issuer]>,
    /// False before the gateway serves and while it drains.
    pub ready: watch::Receiver<bool>,
}

/// Bounds on connections. Requests within them are bounded per connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, per listener.
    pub connections: usize,
    /// Requests at a time on one connection.
    pub streams: u32,
    /// After this a connection is asked to go (GOAWAY).
    pub max_age: Duration,
    /// How long requests may go on after GOAWAY, before the connection is cut.
    pub age_grace: Duration,
    /// The same at shutdown. The vault ends running sessions well within it.
    pub drain_grace: Duration,
    /// For TLS or QUIC to be agreed on, and for the first request to arrive.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 1024,
            max_age: Duration::from_secs(3600),
            age_grace: Duration::from_secs(600),
            drain_grace: Duration::from_secs(25),
            handshake: Duration::from_secs(10),
        }
    }
}

/// Resolves when a connection that was asked to go must be cut: after the grace for its age, or, once the gateway stops,
/// after the shorter one for the drain.
async fn grace_is_over(limits: Limits, stop: &CancellationToken) {
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(limits.drain_grace).await;
    };
    tokio::select! {
        () = tokio::time::sleep(limits.age_grace) => {}
        () = drained => {}
    }
}

/// Everything the gateway answers, for any of the transports.
pub fn router(gateway: Gateway) -> (axum::Router, grpc::Health) {
    let (routes, health) = grpc::routes(gateway.clone());
    let all = routes.merge(http::routes(gateway.clone()));
    (all.layer(axum::middleware::from_fn_with_state(gateway, auth::layer::identified)), health)
}
