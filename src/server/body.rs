//! Receiving a request's body within limits of size, time and memory. A body that is too long is
//! read to its end for a moment and thrown away, because a client that is still sending would see
//! a broken connection instead of the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::http::ConnectionInfo;
use super::state::ServerState;
use crate::wire::{ApiError, ErrorKind};

/// How long, and how many bytes, an unwanted body is received before the connection is closed.
const LINGER: Duration = Duration::from_secs(3);
const LINGER_BYTES: usize = 256 * 1024 * 1024;

/// A whole body, and its share of the memory for bodies.
#[derive(Debug)]
pub struct Received {
    /// The bytes.
    pub bytes: Bytes,
    /// Held until the body and what was made of it are gone.
    pub budget: Option<OwnedSemaphorePermit>,
}

/// What bodies are allowed to take.
#[derive(Clone, Debug)]
pub struct Reception {
    /// Longest body in bytes.
    pub max_bytes: usize,
    /// How long a client may take to send it.
    pub timeout: Duration,
    /// Bytes of all bodies together.
    pub budget: Arc<Semaphore>,
}

/// Receives the body of `request`.
///
/// # Errors
/// 413 when it is too long, 408 when it takes too long, 429 when too many bodies are being
/// received, 400 when it ends early.
pub async fn receive(state: &ServerState, request: Request) -> Result<Received, ApiError> {
    let reception = Reception {
        max_bytes: state.config.max_body_bytes,
        timeout: state.config.body_timeout,
        budget: Arc::clone(&state.body_budget),
    };
    receive_within(&reception, request).await
}

/// As [`receive`], within limits of the caller's own.
///
/// # Errors
/// As [`receive`].
pub async fn receive_within(reception: &Reception, request: Request) -> Result<Received, ApiError> {
    let (parts, mut body) = request.into_parts();
    let limit = reception.max_bytes;
    let announced = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        // A client that asks first has not begun to send, and must not be told to.
        if !parts.headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_large(limit));
    }
    let deadline = Instant::now() + reception.timeout;
    let mut bytes = BytesMut::new();
    let mut budget: Option<OwnedSemaphorePermit> = None;
    loop {
        let frame = timeout_at(deadline, body.frame())
            .await
            .map_err(|_| too_slow(reception))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            ApiError::new(
                ErrorKind::InvalidRequest,
                "the body ended before its announced length",
            )
            .diagnostic(error.to_string())
        })?;
        let Some(chunk) = frame.data_ref() else {
            continue;
        };
        if bytes.len() + chunk.len() > limit {
            discard(body).await;
            return Err(too_large(limit));
        }
        let permit = reserve(reception, chunk.len())?;
        match &mut budget {
            Some(all) => all.merge(permit),
            None => budget = Some(permit),
        }
        bytes.extend_from_slice(chunk);
    }
    if let Some(connection) = parts.extensions.get::<ConnectionInfo>() {
        connection.serving();
    }
    Ok(Received {
        bytes: bytes.freeze(),
        budget,
    })
}

fn reserve(reception: &Reception, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let count = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(&reception.budget)
        .try_acquire_many_owned(count)
        .map_err(|_| {
            ApiError::new(
                ErrorKind::Overloaded,
                "too many large requests are being received",
            )
            .retry_after(Duration::from_secs(1))
        })
}

async fn discard(mut body: Body) {
    let deadline = Instant::now() + LINGER;
    let mut seen = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > LINGER_BYTES {
            return;
        }
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        ErrorKind::TooLarge,
        format!("the body is longer than the limit of {limit} bytes"),
    )
}

fn too_slow(reception: &Reception) -> ApiError {
    let seconds = reception.timeout.as_secs();
    ApiError::new(
        ErrorKind::RequestTimeout,
        format!("the body did not arrive within {seconds} s"),
    )
}
