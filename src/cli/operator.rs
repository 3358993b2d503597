//! `enginewright operator`: flags to configuration, one call into [`crate::controller`], signals.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use kube::{Client, Config};

use super::process::{on_one_thread, stop_on_signal};
use super::{Exit, fail, http};
use crate::controller::workloads::Site;
use crate::controller::{End, Options, run};
use crate::telemetry::TelemetryArgs;

/// A connection on which nothing came for so long is dead, though nobody said so (a router that forgot
/// it): watches hear a bookmark each minute.
const SILENCE: Duration = Duration::from_secs(150);

/// Run the operator: every `InferenceEngine` of the cluster becomes an endpoint that answers
///
/// Reads the cluster's address from `KUBECONFIG`, or from the service account of its pod.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Image of this program, for gateways, engines and Jobs.
    #[arg(long, env = "ENGINEWRIGHT_IMAGE", value_name = "IMAGE")]
    image: String,

    /// Image of this program with the shim for the TensorRT of the GPU nodes, for builds and engines
    /// there. Without it the processor serves everywhere.
    #[arg(long, env = "ENGINEWRIGHT_TENSORRT_IMAGE", value_name = "IMAGE")]
    tensorrt_image: Option<String>,

    /// Image of the managed fallback, where a resource names none.
    #[arg(
        long,
        env = "ENGINEWRIGHT_OLLAMA_IMAGE",
        value_name = "IMAGE",
        default_value = "docker.io/ollama/ollama:0.12.6"
    )]
    ollama_image: String,

    /// When images are pulled: `Always`, `IfNotPresent` or `Never`; the cluster's default by default.
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,

    /// Repository from which resources may name images (`runtime.image`, `fallback.ollama.image`), or
    /// a prefix of repositories that ends with `/`. Repeatable; none by default.
    #[arg(long = "allow-image", value_name = "REPOSITORY")]
    allowed_images: Vec<String>,

    /// Namespace of the operator: its Lease is there, and its pods may ask engines.
    #[arg(long, env = "POD_NAMESPACE", default_value = "enginewright-system")]
    namespace: String,

    /// Name of this process, unique among operators; the host's name by default.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,

    /// Prefix of the `PriorityClass`es `gateway`, `engine`, `fallback` and `work`. Without it pods have
    /// no priority.
    #[arg(long, value_name = "PREFIX")]
    priority_class_prefix: Option<String>,

    /// Pods of each gateway.
    #[arg(long, default_value_t = 2, value_name = "PODS", value_parser = clap::value_parser!(i32).range(1..=8))]
    gateway_replicas: i32,

    /// Where metrics and health are served.
    #[arg(long, default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    listen: SocketAddr,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let telemetry = self.telemetry.clone();
        on_one_thread(&telemetry, self.operate())
    }

    async fn operate(self) -> Exit {
        let listener = match TcpListener::bind(self.listen) {
            Ok(listener) => listener,
            Err(error) => return fail(Exit::Environment, &format!("{}: {error}", self.listen)),
        };
        let client = match connect().await {
            Ok(client) => client,
            Err(error) => {
                let text = format!("no cluster: {error}; set KUBECONFIG, or run inside a cluster");
                return fail(Exit::Environment, &text);
            }
        };
        let http = match http::client() {
            Ok(http) => http,
            Err(error) => return fail(Exit::Environment, &error),
        };
        let host = || {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        };
        let stop = match stop_on_signal() {
            Ok(stop) => stop,
            Err(error) => {
                return fail(Exit::Environment, &format!("cannot watch signals: {error}"));
            }
        };
        let options = Options {
            client,
            http,
            listener,
            identity: format!(
                "{}-{}",
                self.identity.unwrap_or_else(host),
                std::process::id()
            ),
            site: Site {
                image: self.image,
                tensorrt_image: self.tensorrt_image,
                ollama_image: self.ollama_image,
                pull_policy: self.image_pull_policy,
                allowed_images: self.allowed_images,
                namespace: self.namespace,
                priority_prefix: self.priority_class_prefix,
                gateways: self.gateway_replicas,
            },
        };
        match run(options, stop).await {
            Ok(End::Stopped) => Exit::Ok,
            Ok(End::Deposed) => fail(Exit::Environment, &"another operator leads now"),
            Err(error) => fail(Exit::Environment, &error),
        }
    }
}

async fn connect() -> Result<Client, Box<dyn std::error::Error>> {
    let mut config = Config::infer().await?;
    config.read_timeout = Some(SILENCE);
    Ok(Client::try_from(config)?)
}
