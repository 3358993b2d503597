//! Whether the process is well, whether requests are welcome, and the counters.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

use crate::server::state::{Phase, ServerState};

/// No call of a device that works takes longer.
const LONGEST_STEP: Duration = Duration::from_mins(2);

/// `GET /`: what this is, for people and for clients that look whether somebody is there.
pub async fn root() -> &'static str {
    "enginewright is running\n"
}

/// `GET /healthz`: whether the process should live on. Loading is well; a lost engine is not.
pub async fn healthz(State(state): State<Arc<ServerState>>) -> Response {
    let engine = state.loaded().map(|service| &service.engine);
    let lost = engine.is_some_and(|engine| !engine.is_alive());
    let hangs = engine.is_some_and(|engine| engine.stats().step_running > LONGEST_STEP);
    match state.phase() {
        Phase::Leaving | Phase::Draining => answer(StatusCode::OK, "draining", None),
        Phase::Failed(reason) => answer(StatusCode::INTERNAL_SERVER_ERROR, "failed", Some(&reason)),
        _ if lost => answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed",
            Some("the engine is gone"),
        ),
        _ if hangs => answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            "hangs",
            Some("the device does not answer"),
        ),
        _ => answer(StatusCode::OK, "ok", None),
    }
}

/// `GET /readyz`: whether requests are welcome; says what is missing.
pub async fn readyz(State(state): State<Arc<ServerState>>) -> Response {
    let no = |status, detail| answer(StatusCode::SERVICE_UNAVAILABLE, status, detail);
    match state.phase() {
        Phase::Ready if state.service().is_ok() => answer(StatusCode::OK, "ready", None),
        Phase::Ready => no("failed", Some("the engine is gone")),
        Phase::Loading => no("loading", Some("the model is being loaded")),
        Phase::Warming => no("warming", Some("the first generation is not complete")),
        Phase::Leaving | Phase::Draining => no("draining", Some("the server is shutting down")),
        Phase::Failed(reason) => no("failed", Some(reason.as_str())),
    }
}

fn answer(code: StatusCode, status: &str, detail: Option<&str>) -> Response {
    let body = match detail {
        None => json!({ "status": status }),
        Some(detail) => json!({ "status": status, "detail": detail }),
    };
    (code, axum::Json(body)).into_response()
}

/// `GET /metrics`.
pub async fn metrics(State(state): State<Arc<ServerState>>) -> Response {
    let load = state
        .loaded()
        .map(|service| service.engine.stats())
        .unwrap_or_default();
    let ready = state.phase() == Phase::Ready;
    let connections = state.connections.open();
    state.metrics.look(
        load.slots,
        load.slots_busy,
        load.waiting,
        connections,
        ready,
    );
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.encode()).into_response()
}
