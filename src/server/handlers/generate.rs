//! `/generate` and `/generate_stream`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::{begin, json, read};
use crate::server::answer::{AnswerReader, PlainEvents, stream, whole_plain};
use crate::server::edge::Failure;
use crate::server::request::{defaults, plain};
use crate::server::state::ServerState;
use crate::wire::{ApiError, generate};

/// `POST /generate`.
pub async fn generate(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, Failure> {
    let reader = answer(&state, request).await?;
    Ok(json(whole_plain(reader.whole().await?)))
}

/// `POST /generate_stream`.
pub async fn generate_stream(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, Failure> {
    let mut reader = answer(&state, request).await?;
    let first = reader.next().await;
    Ok(stream(reader, first, PlainEvents)?)
}

async fn answer(state: &ServerState, request: Request) -> Result<AnswerReader, ApiError> {
    let mut call = read::<generate::Request>(state, request).await?;
    let service = Arc::clone(state.service()?);
    let said = &service.model.card.modelfile;
    defaults::plain(said, &mut call.body);
    let mut task = plain::generate(call.body)?;
    defaults::limit(said, &mut task);
    begin(state, &service, task, &call.id, call.budget).await
}
