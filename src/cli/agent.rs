//! `enginewright agent`: publishes the node it runs on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config as ClientConfig};
use tokio::net::TcpListener;

use super::listen::Listen;
use super::process::{on_one_thread, stop_on_signal};
use super::{Exit, fail};
use crate::agent::metrics::Metrics;
use crate::agent::{self, Config};
use crate::server::admin;
use crate::telemetry::TelemetryArgs;

/// Publish the node it runs on: its `EdgeNode` and labels on its `Node`
///
/// Runs as a `DaemonSet` (manifests/agent). Writes only what changed, and only its own node's
/// objects.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the node; in a `DaemonSet` from the field spec.nodeName.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,

    /// Where the node's root folder is mounted, read-only.
    #[arg(long, default_value = "/", value_name = "DIR")]
    host_root: PathBuf,

    /// Folder on the node whose file system holds the engine caches; k3s keeps its volumes there.
    #[arg(
        long,
        default_value = "/var/lib/rancher/k3s/storage",
        value_name = "DIR"
    )]
    cache_dir: PathBuf,

    /// Seconds between two looks at the node.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,

    /// Address and port of /healthz, /readyz and /metrics.
    #[arg(
        long,
        default_value = "0.0.0.0:9402",
        env = "ENGINEWRIGHT_AGENT_LISTEN"
    )]
    listen: Listen,

    /// Kubeconfig of the cluster. Default: the pod's service account, or `KUBECONFIG`.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let telemetry = self.telemetry.clone();
        on_one_thread(&telemetry, self.serve())
    }

    async fn serve(self) -> Exit {
        let client = match self.client().await {
            Ok(client) => client,
            Err(problem) => return fail(Exit::BadInput, &problem),
        };
        let listener = match self.listen.open().map(TcpListener::from_std) {
            Ok(Ok(listener)) => listener,
            Ok(Err(error)) => return fail(Exit::Environment, &error),
            Err(error) => return fail(Exit::Environment, &error),
        };
        let stop = match stop_on_signal() {
            Ok(stop) => stop,
            Err(error) => return fail(Exit::Environment, &error),
        };
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, node = self.node_name, "publishing");
        }
        let metrics = Arc::new(Metrics::default());
        let config = Config {
            node: self.node_name,
            host_root: self.host_root,
            cache: self.cache_dir,
            interval: Duration::from_secs(self.interval),
        };
        let serving = admin::run(listener, Arc::clone(&metrics) as _, stop.clone());
        tokio::join!(agent::run(client, config, metrics, stop), serving);
        Exit::Ok
    }

    async fn client(&self) -> Result<Client, String> {
        let config = match &self.kubeconfig {
            None => ClientConfig::infer()
                .await
                .map_err(|error| format!("no cluster: {error}; write --kubeconfig FILE"))?,
            Some(path) => {
                let wrong = |error: &dyn std::fmt::Display| {
                    format!("--kubeconfig {}: {error}", path.display())
                };
                let read = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
                ClientConfig::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| wrong(&error))?
            }
        };
        Client::try_from(config).map_err(|error| format!("no cluster: {error}"))
    }
}
