//! Health and metrics of processes that serve nothing else: the agent, the operator.
//!
//! `/healthz`: the process answers. `/readyz`: it does its work, else what is missing. `/metrics`:
//! `OpenMetrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::http::{Connections, Limits, Shutdown, serve};

/// Connections at the same time: the kubelet's and a scraper's.
const CONNECTIONS: usize = 32;

/// What a process says of itself.
pub trait Report: Send + Sync + 'static {
    /// What is missing; `None` when it does its work.
    fn unready(&self) -> Option<String>;
    /// Its metrics.
    fn metrics(&self) -> String;
}

/// The three paths.
pub fn router(report: Arc<dyn Report>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(report)
}

async fn ready(State(report): State<Arc<dyn Report>>) -> Response {
    match report.unready() {
        None => "ok".into_response(),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing).into_response(),
    }
}

async fn metrics(State(report): State<Arc<dyn Report>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], report.metrics()).into_response()
}

/// Serves until `stop`.
pub async fn run(listener: TcpListener, report: Arc<dyn Report>, stop: CancellationToken) {
    let limits = Limits {
        connections: CONNECTIONS,
        ..Limits::default()
    };
    let connections = Connections::new(&limits);
    let shutdown = Shutdown {
        drain: stop.clone(),
        stop,
    };
    serve(listener, router(report), limits, connections, shutdown).await;
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    struct Fixed(Option<&'static str>);

    impl Report for Fixed {
        fn unready(&self) -> Option<String> {
            self.0.map(str::to_owned)
        }

        fn metrics(&self) -> String {
            "# EOF\n".to_owned()
        }
    }

    async fn ask(report: Fixed, path: &str) -> (StatusCode, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = router(Arc::new(report)).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing_and_health_does_not_depend_on_it() {
        let missing = || Fixed(Some("no cluster"));
        let unavailable = (StatusCode::SERVICE_UNAVAILABLE, "no cluster".to_owned());
        assert_eq!(ask(missing(), "/readyz").await, unavailable);
        assert_eq!(ask(missing(), "/healthz").await.0, StatusCode::OK);
        assert_eq!(ask(Fixed(None), "/readyz").await.0, StatusCode::OK);
        assert_eq!(ask(Fixed(None), "/metrics").await.1, "# EOF\n");
        assert_eq!(ask(Fixed(None), "/other").await.0, StatusCode::NOT_FOUND);
    }
}
