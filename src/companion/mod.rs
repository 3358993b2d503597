//! The companion of a managed Ollama: in the same pod, it keeps the right model in it, loads it or
//! gives its memory back as it is told, and says how far that is.
//!
//! It is told through a file (an annotation of its pod, so that no token and no open port is needed),
//! and decides nothing about when. Ollama's own API stays closed to everybody but the gateway.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Reason, Sha256Hex};
use crate::controller::workloads::Order;
use crate::local::ollama::api::{Ollama, OllamaError, with_tag};
use crate::local::ollama::hand_over;
use crate::planner::{Failure, transient};

/// How often the order and Ollama are looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// Between two tries of what failed.
const RETRY: Duration = Duration::from_secs(5);

/// What the companion keeps.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Ollama listens.
    pub ollama: String,
    /// The model's name in it.
    pub model: String,
    /// The file to hand over, with its digest; `None`: a model of Ollama's library.
    pub file: Option<(PathBuf, Sha256Hex)>,
    /// Ollama's own store, where it is on the same file system as the file: then nothing is copied.
    pub store: Option<PathBuf>,
    /// Context the gateway asks for, in tokens.
    pub context_tokens: u32,
    /// Threads that Ollama may keep busy.
    pub threads: u32,
    /// The file with the order.
    pub order: PathBuf,
}

/// What it says (`GET /state`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// The order it works on; absent before the first was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Whether it is carried out.
    pub done: bool,
    /// Why it cannot be, for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Failure>,
}

/// Serves and works until `stop`.
///
/// # Errors
/// What the listener says.
pub async fn run(
    settings: Settings,
    client: reqwest::Client,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let (says, said) = watch::channel(Said::default());
    let worker = tokio::spawn(work(settings, client, says));
    let served = axum::serve(listener, router(said))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    worker.abort();
    served
}

fn router(said: watch::Receiver<Said>) -> Router {
    let ready = |State(said): State<Arc<watch::Receiver<Said>>>| async move {
        let said = said.borrow().clone();
        // A parked fallback still answers: a request loads its model.
        let ready = said.done && said.problem.is_none();
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, Json(said))
    };
    let state =
        |State(said): State<Arc<watch::Receiver<Said>>>| async move { Json(said.borrow().clone()) };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/state", get(state))
        .with_state(Arc::new(said))
}

async fn work(settings: Settings, client: reqwest::Client, says: watch::Sender<Said>) {
    let ollama = Ollama::new(client, &settings.ollama);
    let mut carried_out: Option<Order> = None;
    loop {
        // Before anybody has said anything the model is there, and a request loads it.
        let order = read_order(&settings.order).unwrap_or(Order::Standby);
        if carried_out == Some(order) {
            tokio::time::sleep(PERIOD).await;
            if ollama
                .show(&settings.model)
                .await
                .is_ok_and(|shown| shown.is_some())
            {
                continue;
            }
            // It was started again with an empty memory, or does not answer.
            carried_out = None;
        }
        says.send_modify(|said| {
            said.order = Some(order);
            said.done = false;
        });
        match carry_out(&ollama, &settings, order).await {
            Ok(()) => {
                carried_out = Some(order);
                says.send_replace(Said {
                    order: Some(order),
                    done: true,
                    problem: None,
                });
                tracing::info!(
                    order = order.as_str(),
                    model = settings.model,
                    "carried out"
                );
            }
            // Not listening yet.
            Err(OllamaError::Unreachable) => tokio::time::sleep(PERIOD).await,
            Err(error) => {
                tracing::warn!(%error, "it is tried again");
                let text = format!("Ollama cannot serve {}: {error}.", settings.model);
                says.send_modify(|said| {
                    said.problem = Some(transient(Reason::FallbackUnavailable, &text));
                });
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn read_order(path: &Path) -> Option<Order> {
    Order::parse(std::fs::read_to_string(path).ok()?.trim())
}

async fn carry_out(ollama: &Ollama, settings: &Settings, order: Order) -> Result<(), OllamaError> {
    ollama.version().await?;
    match &settings.file {
        Some((file, digest)) => {
            if let Some(store) = &settings.store {
                link(file, store, digest);
            }
            hand_over(ollama, &settings.model, file, digest, settings.threads).await?;
        }
        None => {
            if ollama.show(&settings.model).await?.is_none() {
                let mut progress = |done, total| tracing::debug!(done, total, "pulling");
                ollama.pull(&settings.model, &mut progress).await?;
            }
        }
    }
    match order {
        Order::Load => ollama.load(&settings.model, settings.context_tokens).await,
        Order::Standby => Ok(()),
        Order::Park => {
            if ollama.is_loaded(&with_tag(&settings.model)).await? {
                ollama.unload(&settings.model).await?;
            }
            Ok(())
        }
    }
}

/// Puts the file among Ollama's blobs as a hard link; where that is not possible it is sent instead.
fn link(file: &Path, store: &Path, digest: &Sha256Hex) {
    let blobs = store.join("blobs");
    let blob = blobs.join(format!("sha256-{digest}"));
    if blob.exists() {
        return;
    }
    let linked = std::fs::create_dir_all(&blobs).and_then(|()| std::fs::hard_link(file, &blob));
    if let Err(error) = linked {
        tracing::debug!(%error, "the model is copied into Ollama's store");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    async fn status(said: Said, path: &str) -> u16 {
        let (_says, said) = watch::channel(said);
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(said).oneshot(request).await.unwrap();
        response.status().as_u16()
    }

    #[tokio::test]
    async fn it_is_ready_when_its_order_is_carried_out() {
        let working = Said {
            order: Some(Order::Load),
            ..Said::default()
        };
        assert_eq!(status(working.clone(), "/readyz").await, 503);
        assert_eq!(status(working.clone(), "/healthz").await, 200);
        let done = Said {
            done: true,
            ..working
        };
        assert_eq!(status(done.clone(), "/readyz").await, 200);
        let troubled = Said {
            problem: Some(transient(Reason::FallbackUnavailable, "It hangs.")),
            ..done
        };
        assert_eq!(status(troubled, "/readyz").await, 503);
    }

    #[test]
    fn an_order_is_a_word_and_anything_else_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("order");
        assert_eq!(read_order(&path), None);
        for (text, order) in [("park", Some(Order::Park)), ("", None), ("x", None)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_order(&path), order);
        }
    }

    #[test]
    fn a_model_on_the_same_file_system_is_not_copied() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.gguf");
        std::fs::write(&file, "m").unwrap();
        let digest = Sha256Hex::new(&"0a".repeat(32)).unwrap();
        let store = folder.path().join("models");
        link(&file, &store, &digest);
        link(&file, &store, &digest);
        let blob = store.join("blobs").join(format!("sha256-{digest}"));
        assert_eq!(std::fs::metadata(blob).unwrap().nlink(), 2);
    }
}
