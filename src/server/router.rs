//! Which path is answered by which handler; the one table that routing, authentication tests,
//! logs and metrics share.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, any, get, post};

use super::edge::{Failure, edge};
use super::handlers::{generate, health, models, ollama, openai};
use super::state::ServerState;
use crate::wire::{ApiError, ErrorKind};

/// A route of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method; `ANY` for those that are refused.
    pub method: &'static str,
    /// The path, in axum's notation.
    pub path: &'static str,
}

const fn route(method: &'static str, path: &'static str) -> Route {
    Route { method, path }
}

/// All routes.
pub const ROUTES: [Route; 25] = [
    route("GET", "/"),
    route("GET", "/healthz"),
    route("GET", "/readyz"),
    route("GET", "/metrics"),
    route("POST", "/v1/chat/completions"),
    route("POST", "/v1/completions"),
    route("GET", "/v1/models"),
    route("GET", "/v1/models/{*id}"),
    route("POST", "/api/chat"),
    route("POST", "/api/generate"),
    route("GET", "/api/tags"),
    route("POST", "/api/show"),
    route("GET", "/api/ps"),
    route("GET", "/api/version"),
    route("POST", "/generate"),
    route("POST", "/generate_stream"),
    route("ANY", "/api/pull"),
    route("ANY", "/api/push"),
    route("ANY", "/api/create"),
    route("ANY", "/api/copy"),
    route("ANY", "/api/delete"),
    route("ANY", "/api/blobs/{digest}"),
    route("ANY", "/api/embed"),
    route("ANY", "/api/embeddings"),
    route("ANY", "/v1/embeddings"),
];

fn handler(path: &str) -> Option<MethodRouter<Arc<ServerState>>> {
    Some(match path {
        "/" => get(health::root),
        "/healthz" => get(health::healthz),
        "/readyz" => get(health::readyz),
        "/metrics" => get(health::metrics),
        "/v1/chat/completions" => post(openai::chat),
        "/v1/completions" => post(openai::completions),
        "/v1/models" => get(models::list),
        "/v1/models/{*id}" => get(models::one),
        "/api/chat" => post(ollama::chat),
        "/api/generate" => post(ollama::generate),
        "/api/tags" => get(models::tags),
        "/api/show" => post(models::show),
        "/api/ps" => get(models::ps),
        "/api/version" => get(models::version),
        "/generate" => post(generate::generate),
        "/generate_stream" => post(generate::generate_stream),
        "/api/embed" | "/api/embeddings" | "/v1/embeddings" => any(no_embeddings),
        _ if path.starts_with("/api/") => any(no_management),
        _ => return None,
    })
}

/// The server as a function of its state.
pub fn router(state: Arc<ServerState>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        if let Some(handler) = handler(route.path) {
            router = router.route(route.path, handler);
        }
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&state),
            edge,
        ))
        .with_state(state)
}

async fn not_found() -> Failure {
    Failure(ApiError::new(
        ErrorKind::RouteNotFound,
        "there is nothing at this path",
    ))
}

async fn not_allowed() -> Failure {
    Failure(ApiError::new(
        ErrorKind::MethodNotAllowed,
        "this path has another method",
    ))
}

async fn no_management() -> Failure {
    let message = "models cannot be changed through this endpoint: change the InferenceEngine";
    Failure(ApiError::new(ErrorKind::Forbidden, message))
}

async fn no_embeddings() -> Failure {
    let message = "this endpoint generates text; it has no embeddings";
    Failure(ApiError::new(ErrorKind::RouteNotFound, message))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_route_of_the_table_has_a_handler() {
        for route in super::ROUTES {
            assert!(super::handler(route.path).is_some(), "{}", route.path);
        }
    }
}
