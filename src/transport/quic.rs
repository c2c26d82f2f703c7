//! HTTP/3: the same router over QUIC.
//!
//! The rules are those of [`super::serve`]: a [`Peer`] in every request, a maximum age with GOAWAY and a grace, bounds on
//! connections, streams and windows. Above half of the allowed connections a new peer must first show that it owns its
//! address (a Retry), so that forged packets cannot fill the table. Early data is off by [`super::tls`].
//!
//! Notes on h3 0.0.8, which this loop is written around:
//! - The connection must outlive its requests: dropping it closes QUIC with everything on it.
//! - After our own GOAWAY `accept` waits for the client to leave; so we count requests ourselves and leave when none is
//!   left.
//! - Telling a peer to stop while a read is under way panics in h3-quinn, and the body of `h3_util` does so when it is
//!   dropped. A session that ends early drops its requests just then; so [`RequestBody`] is ours, and leaves it to quinn,
//!   whose streams tell the peer when they are dropped.
//! - Its own log lines show headers and addresses; `server::process` holds them back, and this loop logs nothing.

use super::{Limits, Peer, auth::CertificateName, grace_is_over, tls::TlsError};
use axum::{Router, body::Body};
use bytes::{Buf as _, Bytes};
use h3::server::RequestResolver;
use h3_util::server_body::send_h3_server_body;
use http_body::Frame;
use quinn::{
    Endpoint, Incoming, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use std::{
    net::UdpSocket,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// What waits here when a listener is cut over gRPC may still leave, if it did not read: so no more than a line needs.
const SEND_WINDOW: u64 = 1 << 20;
const HEADERS: u64 = 16 << 10;
const IDLE: Duration = Duration::from_secs(30);
const PING_EVERY: Duration = Duration::from_secs(10);

/// QUIC cannot start.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The provider lacks the suite that QUIC begins with.
    #[error("QUIC: {0}")]
    Suite(#[from] NoInitialCipherSuite),
    /// The socket cannot be used.
    #[error("QUIC: {0}")]
    Socket(#[from] std::io::Error),
}

/// Binds QUIC to a socket. `tls` must offer `h3`.
pub fn endpoint(socket: UdpSocket, tls: rustls::ServerConfig, limits: Limits) -> Result<Endpoint, QuicError> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams))
        // HTTP/3 needs three: control and the two of QPACK; some more for those that a peer greases with.
        .max_concurrent_uni_streams(VarInt::from_u32(16))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE.as_millis() as u32).into()))
        .keep_alive_interval(Some(PING_EVERY))
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    config.max_incoming(limits.connections);
    Ok(Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, Arc::new(quinn::TokioRuntime))?)
}

/// Serves until `stop` is cancelled, then waits for the connections to end; each has the grace for the drain.
pub async fn serve(endpoint: Endpoint, router: Router, limits: Limits, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let open = connections.len();
        if open >= limits.connections {
            incoming.refuse();
        } else if open >= limits.connections / 2 && !incoming.remote_address_validated() && incoming.may_retry() {
            // A Retry that cannot be sent leaves the peer to its own retry.
            let _ = incoming.retry();
        } else {
            connections.spawn(connection(incoming, router.clone(), limits, stop.clone()));
        }
    }
    connections.close();
    connections.wait().await;
    endpoint.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
}

async fn connection(incoming: Incoming, router: Router, limits: Limits, stop: CancellationToken) {
    let address = incoming.remote_address();
    let Ok(Ok(quic)) = tokio::time::timeout(limits.handshake, incoming).await else { return };
    let chain = quic.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first());
    let peer = Peer { certificate: CertificateName::of(leaf.map(AsRef::as_ref)), transport: "h3", address };

    let mut builder = h3::server::builder();
    builder.max_field_section_size(HEADERS);
    let built = tokio::time::timeout(limits.handshake, builder.build(h3_quinn::Connection::new(quic)));
    let Ok(Ok(mut http)) = built.await else { return };
    let requests = TaskTracker::new();
    let mut silence = std::pin::pin!(tokio::time::sleep(limits.handshake));
    let mut age = std::pin::pin!(tokio::time::sleep(limits.max_age));
    let mut asked = false;
    loop {
        tokio::select! {
            accepted = http.accept() => match accepted {
                Ok(Some(resolver)) => {
                    asked = true;
                    requests.spawn(request(resolver, router.clone(), peer.clone()));
                }
                // The client said GOAWAY and everything is answered, or the connection is lost.
                Ok(None) | Err(_) => return,
            },
            () = &mut silence, if !asked => return,
            () = &mut age => break,
            () = stop.cancelled() => break,
        }
    }

    if http.shutdown(0).await.is_err() {
        return;
    }
    requests.close();
    let left = async {
        loop {
            tokio::select! {
                () = requests.wait() => return,
                // Keeps the control stream moving, and serves what was under way when GOAWAY left.
                accepted = http.accept() => match accepted {
                    Ok(Some(resolver)) => {
                        requests.spawn(request(resolver, router.clone(), peer.clone()));
                    }
                    Ok(None) | Err(_) => return requests.wait().await,
                },
            }
        }
    };
    tokio::select! {
        () = left => {}
        () = grace_is_over(limits, &stop) => {}
    }
}

async fn request(resolver: RequestResolver<h3_quinn::Connection, Bytes>, router: Router, peer: Peer) {
    // An error here is the peer's: a reset or a lost line. Dropping the halves resets the stream.
    let Ok((head, stream)) = resolver.resolve_request().await else { return };
    let (mut send, receive) = stream.split();
    let mut request = head.map(|()| Body::new(RequestBody { stream: Some(receive), next: Next::Data }));
    request.extensions_mut().insert(peer);
    let Ok(response) = router.oneshot(request).await;
    let (head, body) = response.into_parts();
    if send.send_response(http::Response::from_parts(head, ())).await.is_ok() {
        let _ = send_h3_server_body::<_, h3_quinn::BidiStream<Bytes>>(&mut send, body).await;
    }
}

/// What a client sends: data, then perhaps trailers.
struct RequestBody {
    stream: Option<h3::server::RequestStream<h3_quinn::RecvStream, Bytes>>,
    next: Next,
}

enum Next {
    Data,
    Trailers,
    Nothing,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = h3::error::StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        if matches!(this.next, Next::Data) {
            let data = ready!(stream.poll_recv_data(cx));
            let data = data.map(|data| data.map(|mut data| data.copy_to_bytes(data.remaining())));
            match data.transpose() {
                Some(data) => {
                    if data.is_err() {
                        this.next = Next::Nothing;
                    }
                    return Poll::Ready(Some(data.map(Frame::data)));
                }
                None => this.next = Next::Trailers,
            }
        }
        if matches!(this.next, Next::Trailers) {
            let trailers = ready!(stream.poll_recv_trailers(cx));
            this.next = Next::Nothing;
            return Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)));
        }
        Poll::Ready(None)
    }
}

/// What is read of a request that was answered before its end, and for how long.
const REST: (usize, Duration) = (64 << 10, Duration::from_secs(1));

/// A request that is answered early (a refusal) is read on for a little: to stop the client's stream there would make some
/// clients throw the answer away.
impl Drop for RequestBody {
    fn drop(&mut self) {
        if matches!(self.next, Next::Nothing) {
            return;
        }
        if let Some(mut stream) = self.stream.take() {
            tokio::spawn(async move {
                let rest = async {
                    let mut left = REST.0;
                    while let Ok(Some(data)) = stream.recv_data().await {
                        left = left.saturating_sub(data.remaining());
                        if left == 0 {
                            break;
                        }
                    }
                };
                let _ = tokio::time::timeout(REST.1, rest).await;
            });
        }
    }
}
