//! The agent: looks at the node it runs on, and publishes what it finds as the node's `EdgeNode` and
//! as labels on its `Node`.
//!
//! What is written is decided by [`mod@decide`], which is pure. This shell observes (`observe`), asks,
//! and writes (`publish`); it decides only when to look again. It touches no object but those of
//! its own node; the API server refuses it any other (`manifests/agent`).

pub mod decide;
pub mod metrics;
mod observe;
mod publish;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;

use decide::decide;
use metrics::{Metrics, Outcome};
use observe::Observer;

/// Longest wait after a round that failed; after one that did not, the interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// What the agent is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node it runs on.
    pub node: String,
    /// Where the node's root folder is mounted; `/` outside a container.
    pub host_root: PathBuf,
    /// Folder on the node whose file system holds the engine caches.
    pub cache: PathBuf,
    /// Between two looks.
    pub interval: Duration,
}

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The node has another name.
    #[error(
        "there is no node named {0:?}: write the node's name in --node-name; in a DaemonSet it comes \
         from the field spec.nodeName"
    )]
    NoSuchNode(String),
    /// The API server refused.
    #[error(
        "the API server refuses to let the agent {what} ({message}): apply manifests/agent, and let \
         the agent of each node write that node's objects only"
    )]
    Forbidden {
        /// What was tried.
        what: &'static str,
        /// In the server's words.
        message: String,
    },
    /// The API server could not be asked, or failed.
    #[error("cannot {what}: {source}")]
    Api {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// An answer did not come.
    #[error("cannot {0}: no answer from the API server within {limit:?}", limit = publish::PATIENCE)]
    TimedOut(&'static str),
    /// The probe's thread was lost.
    #[error("the node could not be looked at: {0}")]
    Probe(#[from] tokio::task::JoinError),
}

impl AgentError {
    /// For the metric: which kind of failure.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoSuchNode(_) => Outcome::NoSuchNode,
            Self::Forbidden { .. } => Outcome::Forbidden,
            Self::Api { .. } => Outcome::ApiError,
            Self::TimedOut(_) => Outcome::TimedOut,
            Self::Probe(_) => Outcome::ProbeFailed,
        }
    }
}

/// Looks and publishes until `stop`.
pub async fn run(client: Client, config: Config, metrics: Arc<Metrics>, stop: CancellationToken) {
    let interval = config.interval;
    let observer = Observer::new(client.clone(), config);
    let mut retry = FIRST_RETRY;
    loop {
        let wait = match round(&client, &observer, &metrics).await {
            Ok(()) => {
                metrics.round(Outcome::Published);
                retry = FIRST_RETRY;
                interval
            }
            Err(error) => {
                metrics.round(error.outcome());
                tracing::warn!(%error, "the node was not published");
                let wait = retry.min(interval);
                retry = retry.saturating_mul(2);
                wait
            }
        };
        // A fleet that was switched on at the same time must not ask at the same time.
        let wait = wait.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn round(client: &Client, observer: &Observer, metrics: &Metrics) -> Result<(), AgentError> {
    let seen = observer.look().await?;
    metrics.seen(&seen.host);
    for write in decide(&seen) {
        publish::publish(client, &seen.node.name, &write).await?;
        metrics.wrote(write.kind());
        tracing::info!(what = write.kind().as_str(), "written");
    }
    Ok(())
}
