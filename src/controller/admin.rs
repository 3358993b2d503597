//! Metrics and health of the operator itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::Metrics;

/// Whether the operator does its work, or stands by to do it.
#[derive(Debug, Default)]
pub struct Health {
    serving: AtomicBool,
}

impl Health {
    /// It does.
    pub fn serving(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, health: Arc<Health>) {
    let exposition = |State((metrics, _)): State<Shared>| async move { metrics.render() };
    let ready = |State((_, health)): State<Shared>| async move {
        if health.serving.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        }
    };
    let router = Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state((metrics, health));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "metrics and health are not served any more");
    }
}

type Shared = (Arc<Metrics>, Arc<Health>);
