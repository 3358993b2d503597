//! Accepts connections: HTTP/1.1 only, a limit on their number, deadlines for heads and for readers
//! that do not read; and ends them decently.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::service::{Access, answer};
use super::state::Gateway;
use super::write_deadline::WriteDeadline;

/// Limits of the listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// For the head of a request, also of the next one on a kept connection.
    pub head: Duration,
    /// For a reader to take what was sent.
    pub write: Duration,
    /// From SIGTERM to the end of running answers.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(20),
            write: Duration::from_secs(30),
            grace: Duration::from_secs(30),
        }
    }
}

/// How long an ended stream has to reach its client after the grace time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves until `stop` is cancelled, then lets running answers end within the grace time.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    access: Access,
    limits: Limits,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let access = Arc::new(access);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else {
            continue;
        };
        let (gateway, access, stop) = (Arc::clone(&gateway), Arc::clone(&access), stop.clone());
        connections.spawn(async move {
            connection(stream, peer, gateway, access, limits, stop).await;
            drop(place);
        });
    }
    drop(listener);
    gateway.draining.cancel();
    connections.close();
    if tokio::time::timeout(limits.grace, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "the grace time is over: {} answers are cut",
            gateway.metrics.running()
        );
        gateway.cut.cancel();
        let _in_time = tokio::time::timeout(LAST_WORDS, connections.wait()).await;
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            // Out of file descriptors, most likely: others must end first.
            tracing::warn!(%error, "a connection was not accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    gateway: Arc<Gateway>,
    access: Arc<Access>,
    limits: Limits,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "TCP_NODELAY was not set");
    }
    let service = service_fn(move |request| {
        let (gateway, access) = (Arc::clone(&gateway), Arc::clone(&access));
        async move { Ok::<_, Infallible>(answer(gateway, access, request).await) }
    });
    let io = TokioIo::new(WriteDeadline::new(stream, limits.write));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(64 * 1024)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled_owned() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection broke");
    }
}
