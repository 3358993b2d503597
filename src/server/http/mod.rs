//! The connections: who may connect, how long a client may be silent, and how the last answers get
//! out before the process ends. Knows nothing of what is served.
//!
//! hyper sets no timer by itself, so every deadline is set here: a head that does not arrive (also
//! on a connection kept alive), an answer that is not read. Bodies have theirs in
//! [`super::body`]. When all places are taken, the connection that has waited longest without
//! being served makes room, so that silent clients cannot keep others out.

mod io;
mod places;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

pub use places::ConnectionInfo;

use io::StallGuard;
use places::{Answer, Place, Places};

/// Limits of the connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most connections at once.
    pub connections: usize,
    /// How long a client may take to send a request's head, and how long a kept connection may be
    /// idle.
    pub head_timeout: Duration,
    /// How long a client may not read while an answer waits for it.
    pub write_timeout: Duration,
    /// Longest head in bytes.
    pub head_bytes: usize,
    /// Most header lines.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            head_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            head_bytes: 64 * 1024,
            headers: 100,
        }
    }
}

/// The two orders a running server takes.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Finish what is running; connections close after their answer.
    pub drain: CancellationToken,
    /// End now.
    pub stop: CancellationToken,
}

/// The open connections of a server.
#[derive(Clone, Debug)]
pub struct Connections {
    places: Arc<Places>,
}

impl Connections {
    /// None yet, at most `limits.connections`.
    pub fn new(limits: &Limits) -> Self {
        Self {
            places: Arc::new(Places::new(limits.connections)),
        }
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.places.open()
    }

    /// Resolves when no connection is being served.
    pub async fn idle(&self) {
        self.places.idle().await;
    }
}

/// How long connections that were just served may take to send what is still in their buffers
/// after `stop`.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Accepts and serves connections until `shutdown.stop`; returns when all are closed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    connections: Connections,
    shutdown: Shutdown,
) {
    let limits = Arc::new(limits);
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let Some(place) = connections.places.enter() else {
                    // Everybody is being served: closing is the only answer that costs nothing.
                    continue;
                };
                let (router, limits) = (router.clone(), Arc::clone(&limits));
                tasks.spawn(connection(stream, place, router, limits, shutdown.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: make room and breathe, do not spin.
                tracing::warn!(%error, "a connection was not accepted");
                connections.places.evict();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    stream: TcpStream,
    place: Place,
    router: Router,
    limits: Arc<Limits>,
    shutdown: Shutdown,
) {
    let _no_delay_is_only_faster = stream.set_nodelay(true);
    let io = TokioIo::new(StallGuard::new(stream, limits.write_timeout));
    let info = place.info();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(info.clone());
        let (router, info) = (router.clone(), info.clone());
        async move {
            let response = router.oneshot(request).await?;
            info.serving();
            Ok::<_, std::convert::Infallible>(response.map(|body| Answer::new(body, info)))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.headers)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let mut draining = shutdown.drain.is_cancelled();
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = place.evicted() => return,
            () = shutdown.stop.cancelled() => break,
            () = shutdown.drain.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _whoever_does_not_read_by_now_loses_the_rest =
        tokio::time::timeout(LAST_BYTES, connection).await;
}
