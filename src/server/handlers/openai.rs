//! `/v1/chat/completions` and `/v1/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::{begin, json, read};
use crate::server::answer::{
    ChatChunks, CompletionChunks, Heading, stream, whole_chat, whole_completion,
};
use crate::server::edge::Failure;
use crate::server::request::{Input, defaults, openai};
use crate::server::state::{ServerState, Service};
use crate::wire::ApiError;
use crate::wire::openai::{ChatCompletionRequest, CompletionRequest, StreamOptions};

/// `POST /v1/chat/completions`.
pub async fn chat(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, Failure> {
    let mut call = read::<ChatCompletionRequest>(&state, request).await?;
    let service = named(&state, call.body.model.as_deref())?;
    let streamed = streamed(call.body.stream, call.body.stream_options)?;
    let said = &service.model.card.modelfile;
    defaults::chat(said, &mut call.body);
    let mut task = openai::chat(call.body)?;
    defaults::limit(said, &mut task);
    let logprobs = task.top_logprobs.is_some();
    let heading = heading(&state, &service, "chatcmpl", &call.id);
    let mut reader = begin(&state, &service, task, &call.id, call.budget).await?;
    match streamed {
        None => Ok(json(whole_chat(heading, reader.whole().await?, logprobs))),
        Some(usage) => {
            let first = reader.next().await;
            Ok(stream(
                reader,
                first,
                ChatChunks::new(heading, usage, logprobs),
            )?)
        }
    }
}

/// `POST /v1/completions`.
pub async fn completions(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, Failure> {
    let mut call = read::<CompletionRequest>(&state, request).await?;
    let service = named(&state, call.body.model.as_deref())?;
    let streamed = streamed(call.body.stream, call.body.stream_options)?;
    let wants_echo = call.body.echo.unwrap_or(false);
    defaults::completion(&service.model.card.modelfile, &mut call.body);
    let task = openai::completion(call.body)?;
    let echo = match &task.input {
        Input::Text(text) if wants_echo => Some(text.clone()),
        _ if wants_echo => {
            return Err(ApiError::field("echo", "needs a prompt that is text").into());
        }
        _ => None,
    };
    let logprobs = task.top_logprobs.is_some();
    let heading = heading(&state, &service, "cmpl", &call.id);
    let mut reader = begin(&state, &service, task, &call.id, call.budget).await?;
    match streamed {
        None => Ok(json(whole_completion(
            heading,
            &reader.whole().await?,
            logprobs,
            echo,
        ))),
        Some(usage) => {
            let first = reader.next().await;
            Ok(stream(
                reader,
                first,
                CompletionChunks::new(heading, usage, logprobs, echo),
            )?)
        }
    }
}

/// The service, when the client's model is the one that is served.
fn named(state: &ServerState, asked: Option<&str>) -> Result<Arc<Service>, ApiError> {
    let service = state.service()?;
    if let Some(asked) = asked {
        service.model.check_name(asked)?;
    }
    Ok(Arc::clone(service))
}

/// Whether to stream, and then whether with usage.
fn streamed(
    stream: Option<bool>,
    options: Option<StreamOptions>,
) -> Result<Option<bool>, ApiError> {
    match (stream.unwrap_or(false), options) {
        (true, options) => Ok(Some(
            options.and_then(|it| it.include_usage).unwrap_or(false),
        )),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(ApiError::field("stream_options", "needs stream: true")),
    }
}

fn heading(state: &ServerState, service: &Service, prefix: &str, id: &str) -> Heading {
    Heading {
        id: format!("{prefix}-{id}"),
        created: (state.clock)().as_secs(),
        model: service.model.name.clone(),
    }
}
