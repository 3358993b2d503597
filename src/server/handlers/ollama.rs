//! `/api/chat` and `/api/generate`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;

use super::{Budget, Call, begin, json, read};
use crate::server::answer::{OllamaLines, OllamaShape, loaded, stream, whole_ollama};
use crate::server::edge::Failure;
use crate::server::request::{self, Task, defaults};
use crate::server::state::{ServerState, Service};
use crate::wire::ApiError;
use crate::wire::ollama::{ChatRequest, GenerateRequest};

/// `POST /api/chat`.
pub async fn chat(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, Failure> {
    let Call {
        id,
        mut body,
        budget,
    } = read::<ChatRequest>(&state, request).await?;
    let service = named(&state, &body.model)?;
    defaults::ollama_chat(&service.model.card.modelfile, &mut body);
    let asked = Asked::new(
        OllamaShape::Chat,
        id,
        &body.model,
        body.stream,
        body.keep_alive.as_ref(),
    );
    answer(
        &state,
        &service,
        asked,
        limited(&service, request::ollama::chat(body)?),
        budget,
    )
    .await
}

/// `POST /api/generate`.
pub async fn generate(
    State(state): State<Arc<ServerState>>,
    request: Request,
) -> Result<Response, Failure> {
    let Call {
        id,
        mut body,
        budget,
    } = read::<GenerateRequest>(&state, request).await?;
    let service = named(&state, &body.model)?;
    defaults::ollama_generate(&service.model.card.modelfile, &mut body);
    let shape = OllamaShape::Generate;
    let asked = Asked::new(
        shape,
        id,
        &body.model,
        body.stream,
        body.keep_alive.as_ref(),
    );
    answer(
        &state,
        &service,
        asked,
        limited(&service, request::ollama::generate(body)?),
        budget,
    )
    .await
}

fn limited(service: &Service, task: Option<Task>) -> Option<Task> {
    task.map(|mut task| {
        defaults::limit(&service.model.card.modelfile, &mut task);
        task
    })
}

/// What shapes the answer.
struct Asked {
    shape: OllamaShape,
    id: String,
    model: String,
    stream: bool,
    unload: bool,
}

impl Asked {
    fn new(
        shape: OllamaShape,
        id: String,
        model: &str,
        stream: Option<bool>,
        keep_alive: Option<&Value>,
    ) -> Self {
        let unload = match keep_alive {
            Some(Value::Number(number)) => number.as_f64() == Some(0.0),
            Some(Value::String(text)) => text.trim_end_matches(['s', 'm', 'h']) == "0",
            _ => false,
        };
        Self {
            shape,
            id,
            model: model.to_owned(),
            stream: stream.unwrap_or(true),
            unload,
        }
    }
}

async fn answer(
    state: &ServerState,
    service: &Arc<Service>,
    asked: Asked,
    task: Option<Task>,
    budget: Budget,
) -> Result<Response, Failure> {
    let Some(task) = task else {
        // The model is always loaded and stays so, whatever is said about it.
        let reason = if asked.unload { "unload" } else { "load" };
        return Ok(json(loaded(
            asked.shape,
            &asked.model,
            (state.clock)(),
            reason,
        )));
    };
    let mut reader = begin(state, service, task, &asked.id, budget).await?;
    if asked.stream {
        let first = reader.next().await;
        let lines = OllamaLines::new(asked.shape, asked.model, state.clock);
        return Ok(stream(reader, first, lines)?);
    }
    let whole = reader.whole().await?;
    Ok(json(whole_ollama(
        asked.shape,
        &asked.model,
        (state.clock)(),
        whole,
    )))
}

fn named(state: &ServerState, asked: &str) -> Result<Arc<Service>, ApiError> {
    let service = state.service()?;
    service.model.check_name(asked)?;
    Ok(Arc::clone(service))
}
