//! The gateway's life: accepts connections (by the same code as the engine's server) and ends them
//! decently.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::service::{Access, router};
use super::state::Gateway;
use crate::server::http::{self, Connections, Shutdown};

/// Limits of the listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of the connections.
    pub http: http::Limits,
    /// From SIGTERM to the end of running answers.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http: http::Limits::default(),
            grace: Duration::from_secs(30),
        }
    }
}

/// How long an ended stream has to reach its client after the grace time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves until `stop` is cancelled, then lets running answers end within the grace time; what is
/// cut after it ends with an error event.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    access: Access,
    limits: Limits,
    stop: CancellationToken,
) {
    let connections = Connections::new(&limits.http);
    let shutdown = Shutdown::default();
    let router = router(Arc::clone(&gateway), Arc::new(access));
    let serving = http::serve(
        listener,
        router,
        limits.http,
        connections.clone(),
        shutdown.clone(),
    );
    let ending = async {
        stop.cancelled().await;
        gateway.draining.cancel();
        shutdown.drain.cancel();
        if tokio::time::timeout(limits.grace, connections.idle())
            .await
            .is_err()
        {
            tracing::warn!(
                "the grace time is over: {} answers are cut",
                gateway.metrics.running()
            );
            gateway.cut.cancel();
            let _in_time = tokio::time::timeout(LAST_WORDS, connections.idle()).await;
        }
        shutdown.stop.cancel();
    };
    tokio::join!(serving, ending);
}
