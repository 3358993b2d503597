//! What is served, in both dialects.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;

use super::{json, read};
use crate::server::edge::Failure;
use crate::server::model::ServedModel;
use crate::server::state::ServerState;
use crate::wire::ollama::{
    PsResponse, RunningModel, SPOKEN_VERSION, ShowRequest, TagsResponse, Version,
};
use crate::wire::openai::{Model, ModelList};
use crate::wire::{ApiError, ErrorKind};

/// A time that never comes, as Ollama writes it.
const NEVER: &str = "2318-01-01T00:00:00Z";

fn model(state: &ServerState) -> Result<&ServedModel, ApiError> {
    let loading = || {
        ApiError::new(ErrorKind::Unavailable, "the model is being loaded")
            .retry_after(std::time::Duration::from_secs(2))
    };
    Ok(&state.loaded().ok_or_else(loading)?.model)
}

fn entry(model: &ServedModel) -> Model {
    Model {
        id: model.name.clone(),
        object: "model".into(),
        created: model.card.modified.as_secs(),
        owned_by: "enginewright".into(),
    }
}

/// `GET /v1/models`.
pub async fn list(State(state): State<Arc<ServerState>>) -> Result<Response, Failure> {
    let data = vec![entry(model(&state)?)];
    Ok(json(ModelList {
        object: "list".into(),
        data,
    }))
}

/// `GET /v1/models/{id}`; names may contain slashes.
pub async fn one(
    State(state): State<Arc<ServerState>>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let model = model(&state)?;
    model.check_name(&id)?;
    Ok(json(entry(model)))
}

/// `GET /api/tags`.
pub async fn tags(State(state): State<Arc<ServerState>>) -> Result<Response, Failure> {
    Ok(json(TagsResponse {
        models: vec![model(&state)?.tag()],
    }))
}

/// `POST /api/show`.
pub async fn show(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, Failure> {
    let asked = read::<ShowRequest>(&state, request).await?.body;
    let Some(name) = asked.model.or(asked.name) else {
        return Err(ApiError::field("model", "is required").into());
    };
    let model = model(&state)?;
    model.check_name(&name)?;
    Ok(json(model.show()))
}

/// `GET /api/ps`.
pub async fn ps(State(state): State<Arc<ServerState>>) -> Result<Response, Failure> {
    let Some(service) = state.loaded() else {
        return Ok(json(PsResponse::default()));
    };
    let model = &service.model;
    let running = RunningModel {
        name: model.name.clone(),
        model: model.name.clone(),
        size: model.card.file_bytes,
        digest: model.card.digest.clone(),
        details: model.details(),
        expires_at: NEVER.into(),
        size_vram: 0,
        context_length: service.engine.capabilities().context_tokens,
    };
    Ok(json(PsResponse {
        models: vec![running],
    }))
}

/// `GET /api/version`.
pub async fn version() -> Response {
    json(Version {
        version: SPOKEN_VERSION.into(),
    })
}
