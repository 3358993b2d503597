//! `enginewright gateway`: the stable endpoint in front of engine and fallback.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::listen::Listen;
use super::{Exit, fail};
use crate::gateway::background::{self, Watch};
use crate::gateway::keys::Keys;
use crate::gateway::listener::{self, Limits};
use crate::gateway::service::Access;
use crate::gateway::state::Gateway;

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

    /// File with the API keys that clients must present, one per line. Absent: no key is needed.
    #[arg(long)]
    api_keys: Option<PathBuf>,

    /// Longest request body, in bytes.
    #[arg(long, default_value_t = 16 << 20)]
    max_body_bytes: usize,

    /// Most connections at a time.
    #[arg(long, default_value_t = 1024)]
    max_connections: usize,

    /// Seconds that running answers have to end after SIGTERM.
    #[arg(long, default_value_t = 30)]
    grace: u64,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        // One thread: there is little to do per token, and a second one would cost memory and
        // wake-ups on a board that has better use for both.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.serve()),
            Err(error) => fail(Exit::Environment, &error),
        }
    }

    async fn serve(self) -> Exit {
        let Self {
            listen,
            routes,
            api_keys,
            max_body_bytes,
            max_connections,
            grace,
        } = self;
        let keys = match api_keys.map(|path| read_keys(&path)).transpose() {
            Ok(keys) => keys.unwrap_or_default(),
            Err(problem) => return fail(Exit::BadInput, &problem),
        };
        let watch = Watch::new(routes.clone());
        let table = match background::load(&routes) {
            Ok(table) => table,
            Err(error) => return fail(Exit::BadInput, &error),
        };
        let listener = match listen.open() {
            Ok(listener) => listener,
            Err(error) => return fail(Exit::Environment, &error),
        };
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return fail(Exit::Environment, &error),
        };
        let (stop, reload) = match signals() {
            Ok(handles) => handles,
            Err(error) => return fail(Exit::Environment, &error),
        };
        let gateway = Gateway::new(table);
        if let Ok(address) = listener.local_addr() {
            super::out(&format!("listening on http://{address}\n"));
        }
        let background = tokio::spawn(background::run(Arc::clone(&gateway), Some(watch), reload));
        let access = Access {
            keys,
            max_body: max_body_bytes,
            ..Access::default()
        };
        let limits = Limits {
            connections: max_connections,
            grace: Duration::from_secs(grace),
            ..Limits::default()
        };
        listener::serve(listener, gateway, access, limits, stop).await;
        background.abort();
        Exit::Ok
    }
}

fn read_keys(path: &std::path::Path) -> Result<Keys, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("--api-keys {}: {error}", path.display()))?;
    Keys::parse(&text).map_err(|error| format!("--api-keys {}: {error}", path.display()))
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
