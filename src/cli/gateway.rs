//! `enginewright gateway`: the stable endpoint in front of engine and fallback.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::listen::Listen;
use super::process::{descriptors, on_one_thread};
use super::{Exit, fail};
use crate::gateway::background::{self, Watch};
use crate::gateway::listener::{self, Limits};
use crate::gateway::service::Access;
use crate::gateway::state::Gateway;
use crate::server::auth::ApiKeys;
use crate::server::body::Reception;
use crate::telemetry::TelemetryArgs;

/// Serve one endpoint in front of an engine and its fallback, failing over per request
///
/// Where requests go is read from a file (see --routes) that may be replaced while the gateway
/// runs. SIGHUP reads it at once, SIGTERM ends the gateway after running answers are complete.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and port to listen on; `stdin`: the listening socket passed as standard input.
    #[arg(
        long,
        default_value = "127.0.0.1:8080",
        env = "ENGINEWRIGHT_GATEWAY_LISTEN"
    )]
    listen: Listen,

    /// JSON file that names engine and fallback; replaced atomically by whoever writes it.
    #[arg(long)]
    routes: PathBuf,

    /// Only answer requests that carry one of the keys in this file: one a line, `#` for comments.
    #[arg(long, value_name = "FILE", env = "ENGINEWRIGHT_API_KEYS_FILE")]
    api_keys_file: Option<PathBuf>,

    /// Longest request body in bytes.
    #[arg(long, default_value_t = 4 * 1024 * 1024, value_name = "BYTES")]
    max_body: usize,

    /// On SIGTERM: how long running answers may take to end, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    grace: u64,

    /// End at once when the process that started this one ends.
    #[arg(long, hide = true)]
    exit_with_parent: bool,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        if self.exit_with_parent
            && let Err(error) = crate::local::guard::exit_with_parent()
        {
            return fail(Exit::Environment, &format!("--exit-with-parent: {error}"));
        }
        let telemetry = self.telemetry.clone();
        on_one_thread(&telemetry, self.serve())
    }

    async fn serve(self) -> Exit {
        let keys = match self.api_keys_file.as_deref().map(read_keys).transpose() {
            Ok(keys) => keys.unwrap_or_default(),
            Err(problem) => return fail(Exit::BadInput, &problem),
        };
        let watch = Watch::new(self.routes.clone());
        let table = match background::load(&self.routes) {
            Ok(table) => table,
            Err(error) => return fail(Exit::BadInput, &error),
        };
        let listener = match self.listen.open().map(TcpListener::from_std) {
            Ok(Ok(listener)) => listener,
            Ok(Err(error)) => return fail(Exit::Environment, &error),
            Err(error) => return fail(Exit::Environment, &error),
        };
        let (stop, reload) = match signals() {
            Ok(handles) => handles,
            Err(error) => return fail(Exit::Environment, &error),
        };
        let address = listener.local_addr();
        let loopback = address
            .as_ref()
            .is_ok_and(|address| address.ip().is_loopback());
        if let Ok(address) = address {
            tracing::info!(%address, routes = %self.routes.display(), "listening");
        }
        let gateway = Gateway::new(table);
        let background = tokio::spawn(background::run(Arc::clone(&gateway), Some(watch), reload));
        let access = Access {
            local_hosts_only: loopback && self.api_keys_file.is_none(),
            keys,
            bodies: Reception {
                max_bytes: self.max_body,
                budget: Arc::new(Semaphore::new(self.max_body.max(64 << 20))),
                ..Access::default().bodies
            },
        };
        let mut limits = Limits {
            grace: Duration::from_secs(self.grace),
            ..Limits::default()
        };
        limits.http.connections = limits.http.connections.min(descriptors() / 3).max(16);
        listener::serve(listener, gateway, access, limits, stop).await;
        background.abort();
        Exit::Ok
    }
}

fn read_keys(path: &std::path::Path) -> Result<ApiKeys, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("--api-keys-file {}: {error}", path.display()))?;
    ApiKeys::parse(&text).map_err(|error| format!("--api-keys-file {}: {error}", path.display()))
}

/// SIGTERM and SIGINT stop, SIGHUP reloads.
fn signals() -> std::io::Result<(CancellationToken, Arc<Notify>)> {
    let stop = CancellationToken::new();
    let reload = Arc::new(Notify::new());
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let handles = (stop.clone(), Arc::clone(&reload));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => stop.cancel(),
                _ = interrupt.recv() => stop.cancel(),
                _ = hup.recv() => reload.notify_one(),
            }
        }
    });
    Ok(handles)
}
