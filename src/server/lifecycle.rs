//! The life of a server: bound at once, ready after a first generation, drained on an order, gone
//! with an error when its engine is. Decides when each phase begins; how each is done is elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::http::{self, Shutdown};
use super::router::router;
use super::state::{Phase, ServerState, Service};
use super::warm::warm_up;
use super::worker::EngineState;
use crate::backend::LoadError;

/// How long the last answers may take to get out once the engine is done or gone.
const FLUSH: Duration = Duration::from_secs(3);

/// Why a server ended other than by an order.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The model could not be loaded, the first generation failed, or the engine died.
    #[error("{0}")]
    Engine(String),
}

/// Loads the model on a thread of its own, proves it by a first generation, and declares the
/// server ready; what goes wrong ends [`serve`].
pub async fn bring_up(
    state: Arc<ServerState>,
    load: impl FnOnce() -> Result<Service, LoadError> + Send + 'static,
) {
    let loaded = match tokio::task::spawn_blocking(load).await {
        Ok(Ok(service)) => service,
        Ok(Err(error)) => return state.advance(Phase::Failed(error.to_string())),
        Err(panic) => return state.advance(Phase::Failed(format!("loading failed: {panic}"))),
    };
    let service = state.install(loaded);
    match warm_up(&service).await {
        Ok(()) => {
            state.advance(Phase::Ready);
            tracing::info!(model = service.model.name, "ready");
        }
        Err(reason) => {
            state.advance(Phase::Failed(format!(
                "the first generation failed: {reason}"
            )));
        }
    }
}

/// A server whose engine died must not look well.
async fn watch(state: Arc<ServerState>) {
    state.reached(|phase| *phase != Phase::Loading).await;
    let Some(service) = state.loaded() else {
        return;
    };
    if let EngineState::Failed(reason) = service.engine.stopped().await {
        state.advance(Phase::Failed(format!("the engine failed: {reason}")));
    }
}

/// Serves until `token` is cancelled, then drains: `/readyz` says no first, no running answer is
/// cut within the grace time, and what is cut after it is told so in its own dialect.
///
/// # Errors
/// [`ServeError::Engine`] when the engine could not be started or died.
pub async fn serve(
    listener: TcpListener,
    state: Arc<ServerState>,
    token: CancellationToken,
) -> Result<(), ServeError> {
    let shutdown = Shutdown::default();
    let serving = tokio::spawn(http::serve(
        listener,
        router(Arc::clone(&state)),
        state.config.connections.clone(),
        state.connections.clone(),
        shutdown.clone(),
    ));
    let watching = tokio::spawn(watch(Arc::clone(&state)));
    let failed = state.reached(|phase| matches!(phase, Phase::Failed(_)));
    let flush_until = tokio::select! {
        () = token.cancelled() => {
            let grace_ends = Instant::now() + state.config.drain_delay + state.config.grace;
            drain(&state, &shutdown).await;
            grace_ends.max(Instant::now() + FLUSH)
        }
        () = failed => {
            shutdown.drain.cancel();
            Instant::now() + FLUSH
        }
    };
    // Answers that are complete or failed are still being read.
    let _out_of_patience = tokio::time::timeout_at(flush_until, state.connections.idle()).await;
    shutdown.stop.cancel();
    if let Err(error) = serving.await {
        tracing::error!(%error, "the accept loop ended badly");
    }
    watching.abort();
    match state.phase() {
        Phase::Failed(reason) => Err(ServeError::Engine(reason)),
        _ => Ok(()),
    }
}

async fn drain(state: &Arc<ServerState>, shutdown: &Shutdown) {
    tracing::info!(grace_s = state.config.grace.as_secs(), "draining");
    state.advance(Phase::Leaving);
    tokio::time::sleep(state.config.drain_delay).await;
    state.advance(Phase::Draining);
    shutdown.drain.cancel();
    let Some(service) = state.loaded() else {
        return;
    };
    if let EngineState::Failed(reason) = service.engine.drain(state.config.grace).await {
        state.advance(Phase::Failed(format!("the engine failed: {reason}")));
    }
}
