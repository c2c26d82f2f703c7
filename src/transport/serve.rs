//! The accept loop of HTTP/2 and HTTP/1.1 over TLS.
//!
//! Our own loop, since a served request must carry the [`Peer`], and since a connection must end: after its maximum age
//! it is asked to go (GOAWAY; running requests go on for a grace), and after the grace it is cut. The same path is the
//! drain at shutdown.
//!
//! Bounds: connections by a semaphore (beyond it nobody is accepted, the kernel's queue holds them), the handshake and
//! the time to the first request by one time limit, requests per connection, header sizes and flow-control windows by
//! the HTTP stack. A peer that vanished is found by pings (HTTP/2) or by the header timeout (HTTP/1.1). Bytes that are
//! not TLS end the connection.

use super::{Limits, Peer, auth::CertificateName, grace_is_over};
use axum::{Router, body::Body};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// Flow control, so that one sender's 1 MiB messages never wait for a window over a long line.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Large frames: the one setting that matters most for throughput.
const FRAME: u32 = 256 << 10;
const HEADERS: u32 = 16 << 10;
const SEND_BUFFER: usize = 512 << 10;
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(20);
const HEADER_WITHIN: Duration = Duration::from_secs(20);
/// After a failed accept (out of file descriptors), before the next one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled, then waits for the connections to end; each has the grace for the drain.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            permit = room.clone().acquire_owned() => match permit {
                Ok(permit) => tokio::select! {
                    () = stop.cancelled() => break,
                    accepted = listener.accept() => accepted.map(|(stream, address)| (permit, stream, address)),
                },
                Err(_) => break,
            },
        };
        let (permit, stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            let shaken = tokio::time::timeout(limits.handshake, shake(&acceptor, stream));
            if let Ok(Some(stream)) = shaken.await {
                connection(stream, address, router, limits, stop).await;
            }
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn shake(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    stream.set_nodelay(true).ok()?;
    acceptor.accept(stream).await.ok()
}

async fn connection(
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let (_, session) = stream.get_ref();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let peer = Peer {
        certificate: CertificateName::of(
            session.peer_certificates().and_then(|chain| chain.first()).map(AsRef::as_ref),
        ),
        transport: if http2 { "h2" } else { "http/1.1" },
        address,
    };
    let asked = Arc::new(AtomicBool::new(false));
    let has_asked = asked.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });

    let builder = builder(http2, limits);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut silence = std::pin::pin!(tokio::time::sleep(limits.handshake));
    let mut age = std::pin::pin!(tokio::time::sleep(limits.max_age));
    let mut watched = true;
    // An error here is the peer's: a reset, a broken frame, a lost line. There is nothing to do about it.
    loop {
        tokio::select! {
            _ = serving.as_mut() => return,
            () = &mut silence, if watched => {
                watched = false;
                if !has_asked.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = &mut age => break,
            () = stop.cancelled() => break,
        }
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        _ = serving => {}
        () = grace_is_over(limits, &stop) => {}
    }
}

fn builder(http2: bool, limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN).max_buf_size(64 << 10).keep_alive(true);
    if http2 { builder.http2_only() } else { builder.http1_only() }
}
