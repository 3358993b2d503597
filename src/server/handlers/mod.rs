//! One function per route: read, check, hand to the engine, render. What they share is here.

pub mod generate;
pub mod health;
pub mod models;
pub mod ollama;
pub mod openai;

use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::answer::AnswerReader;
use super::body::receive;
use super::edge::RequestId;
use super::generation::SubmitError;
use super::request::{Surroundings, Task, prepare};
use super::state::{ServerState, Service};
use crate::wire::{ApiError, ErrorKind};

/// A request that was read: its identity and its body.
pub(super) struct Call<T> {
    pub(super) id: String,
    pub(super) body: T,
    pub(super) budget: Budget,
}

/// A request's share of the memory for requests that are not yet with the engine.
pub(super) type Budget = Option<OwnedSemaphorePermit>;

/// Reads a request's body as JSON.
pub(super) async fn read<T: DeserializeOwned>(
    state: &ServerState,
    request: Request,
) -> Result<Call<T>, ApiError> {
    let id = request
        .extensions()
        .get::<RequestId>()
        .map_or_else(String::new, |id| id.0.clone());
    let received = receive(state, request).await?;
    let body = crate::wire::json::parse(&received.bytes)?;
    Ok(Call {
        id,
        body,
        budget: received.budget,
    })
}

/// Prepares a task and hands it to the engine.
pub(super) async fn begin(
    state: &ServerState,
    service: &Arc<Service>,
    task: Task,
    id: &str,
    budget: Budget,
) -> Result<AnswerReader, ApiError> {
    let deadline = Instant::now() + state.config.request_timeout;
    full(service)?;
    let _turn = state.preparing.acquire().await;
    let (shared, answer) = (Arc::clone(service), id.to_owned());
    let now = i64::try_from((state.clock)().as_secs()).unwrap_or(i64::MAX);
    // Tokenising a long prompt and compiling a schema take milliseconds: not on a thread that
    // others' tokens wait for.
    let prepared = tokio::task::spawn_blocking(move || {
        prepare(
            task,
            &Surroundings {
                text: &shared.model.text,
                context_tokens: shared.engine.capabilities().context_tokens,
                longest_token: shared.model.longest_token,
                id: answer,
                random_seed: rand::random(),
                now,
            },
        )
    })
    .await
    .map_err(|error| {
        ApiError::new(ErrorKind::Internal, "the request could not be prepared")
            .diagnostic(error.to_string())
    })??;
    drop(budget);
    let stream = service
        .engine
        .submit(prepared.request)
        .map_err(|error| refused(&error))?;
    Ok(AnswerReader::new(stream, prepared.tools, deadline, id))
}

/// Refuses at once when there is no place, before time is spent on the request.
fn full(service: &Service) -> Result<(), ApiError> {
    match service.engine.check_room() {
        Ok(()) => Ok(()),
        Err(error) => Err(refused(&error)),
    }
}

fn refused(error: &SubmitError) -> ApiError {
    let message = error.to_string();
    match error {
        SubmitError::QueueFull { retry_after } => {
            ApiError::new(ErrorKind::Overloaded, message).retry_after(*retry_after)
        }
        SubmitError::ShuttingDown | SubmitError::EngineGone => {
            ApiError::new(ErrorKind::Unavailable, message)
                .retry_after(std::time::Duration::from_secs(1))
        }
    }
}

/// A JSON answer.
pub(super) fn json<T: Serialize>(value: T) -> Response {
    Json(value).into_response()
}
