//! Questions about the models served: asked of whoever answers, told in the client's terms. One
//! model is served here, under one name, whoever answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::{Value, json};

use super::ask::same_model;
use super::breaker::BreakerState;
use super::endpoint::Metadata;
use super::routes::UpstreamKind;
use super::state::{Gateway, Line, Snapshot, Target};
use crate::wire::ollama::SPOKEN_VERSION;
use crate::wire::{ApiError, ErrorKind, JSON_CONTENT_TYPE};

const PATIENCE: Duration = Duration::from_secs(3);
const ANSWER_BYTES: usize = 16 << 20;

/// Answers a question; also says who did.
///
/// # Errors
/// 404 for another model, 503 when nobody answers.
pub async fn answer(
    gateway: &Gateway,
    question: &Metadata,
) -> Result<(Response<Bytes>, String), ApiError> {
    let snapshot = gateway.snapshot();
    let served = &snapshot.table.served_name;
    if let Metadata::One(asked) = question
        && !same_model(asked, served)
    {
        return Err(ApiError::unknown_model(asked, served));
    }
    for target in [Target::Primary, Target::Fallback] {
        let Some(line) = snapshot.line(target) else {
            continue;
        };
        if gateway.breaker_state(&snapshot, target) == Some(BreakerState::Open) {
            continue;
        }
        if let Some(value) = ask(&snapshot, line, question).await {
            let mut response = Response::new(Bytes::from(value.to_string()));
            let json = HeaderValue::from_static(JSON_CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            return Ok((response, line.upstream.backend.clone()));
        }
    }
    Err(
        ApiError::new(ErrorKind::Unavailable, "no back end can answer")
            .retry_after(Duration::from_secs(1)),
    )
}

async fn ask(snapshot: &Snapshot, line: &Line, question: &Metadata) -> Option<Value> {
    let served = &snapshot.table.served_name;
    let upstream = &line.upstream;
    let request = match (question, upstream.kind) {
        (Metadata::List, UpstreamKind::Ollama | UpstreamKind::OpenAi) => {
            return Some(json!({ "object": "list", "data": [openai_model(served)] }));
        }
        (Metadata::One(_), UpstreamKind::Ollama | UpstreamKind::OpenAi) => {
            return Some(openai_model(served));
        }
        (question, UpstreamKind::OpenAi) => return told_for(question, served),
        (Metadata::List, UpstreamKind::Enginewright) => get(line, "/v1/models"),
        (Metadata::One(_), UpstreamKind::Enginewright) => {
            get(line, &format!("/v1/models/{}", upstream.model))
        }
        (Metadata::Tags, _) => get(line, "/api/tags"),
        (Metadata::Ps, _) => get(line, "/api/ps"),
        (Metadata::Version, _) => get(line, "/api/version"),
        (Metadata::Show, _) => {
            let body = json!({ "model": upstream.model }).to_string();
            send(
                Request::post(upstream.at("/api/show")),
                line,
                Bytes::from(body),
            )
        }
    }?;
    let mut value = fetch(snapshot, request).await?;
    if let Some(models) = value.get_mut("models").and_then(Value::as_array_mut) {
        models.retain(|model| {
            let name = model.get("name").and_then(Value::as_str);
            name.is_some_and(|name| same_model(name, &upstream.model))
        });
    }
    rename(&mut value, &upstream.model, served);
    Some(value)
}

/// Ollama's questions about a server that does not know them: what clients look for before they
/// ask, and nothing that nobody knows (`/api/show`).
fn told_for(question: &Metadata, served: &str) -> Option<Value> {
    let model = json!({ "name": served, "model": served, "size": 0, "digest": "",
        "modified_at": "1970-01-01T00:00:00Z", "details": {} });
    match question {
        Metadata::Tags | Metadata::Ps => Some(json!({ "models": [model] })),
        Metadata::Version => Some(json!({ "version": SPOKEN_VERSION })),
        Metadata::Show | Metadata::List | Metadata::One(_) => None,
    }
}

fn openai_model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "enginewright" })
}

fn get(line: &Line, path: &str) -> Option<Request<Full<Bytes>>> {
    send(Request::get(line.upstream.at(path)), line, Bytes::new())
}

fn send(
    mut builder: http::request::Builder,
    line: &Line,
    body: Bytes,
) -> Option<Request<Full<Bytes>>> {
    if let Some(key) = &line.authorization {
        builder = builder.header(header::AUTHORIZATION, key);
    }
    builder
        .header(header::CONTENT_TYPE, JSON_CONTENT_TYPE)
        .body(Full::new(body))
        .ok()
}

async fn fetch(snapshot: &Snapshot, request: Request<Full<Bytes>>) -> Option<Value> {
    let fetched = async {
        let response = snapshot.client.send(request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await
            .ok()?;
        serde_json::from_slice(&body.to_bytes()).ok()
    };
    tokio::time::timeout(PATIENCE, fetched).await.ok().flatten()
}

/// Replaces the model's name where it stands as one.
fn rename(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, from, to)),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match value {
                    Value::String(text)
                        if matches!(name.as_str(), "id" | "name" | "model")
                            && same_model(text, from) =>
                    {
                        to.clone_into(text);
                    }
                    _ => rename(value, from, to),
                }
            }
        }
        _ => {}
    }
}

/// Whether `target` gives a sign of life: ready, if it can say so.
pub async fn probe(snapshot: &Snapshot, target: Target) -> bool {
    let Some(line) = snapshot.line(target) else {
        return false;
    };
    let path = match line.upstream.kind {
        UpstreamKind::Enginewright => "/readyz",
        UpstreamKind::Ollama => "/api/version",
        UpstreamKind::OpenAi => "/v1/models",
    };
    let Some(request) = get(line, path) else {
        return false;
    };
    let answer = tokio::time::timeout(Duration::from_secs(1), snapshot.client.send(request)).await;
    matches!(answer, Ok(Ok(response)) if response.status() == StatusCode::OK)
}
