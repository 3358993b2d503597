//! `enginewright serve`: flags to configuration, one call into [`crate::server`], signals, exit
//! code.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::listen::Listen;
use super::process::descriptors;
use super::{Exit, fail};
#[cfg(feature = "cpu")]
use crate::backend::llama::{LlamaConfig, LlamaLoader};
use crate::backend::tensorrt::bundle::EngineFolder;
use crate::backend::tensorrt::{self, TensorRtLoader};
use crate::backend::{LoadError, Loader};
use crate::server::auth::ApiKeys;
use crate::server::load::{LoadOptions, load, load_engine};
use crate::server::metrics::Metrics;
use crate::server::worker::{EngineConfig, PrefillPolicy};
use crate::server::{ServerConfig, ServerState, Service, bring_up, serve};
use crate::telemetry::{self, TelemetryArgs};
use crate::tensorrt::{Search, Wait};

/// Serve one model over HTTP: OpenAI's API, Ollama's, and POST /generate.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The model: a GGUF file, whose tokenizer and chat template are used. It runs on the CPU.
    #[arg(
        long,
        value_name = "FILE",
        env = "ENGINEWRIGHT_MODEL",
        required_unless_present = "engine",
        conflicts_with = "engine"
    )]
    model: Option<PathBuf>,

    /// An engine built by `engine build`: its folder. It runs on the GPU, with the slots and the
    /// context it was built for.
    #[arg(long, value_name = "DIR", env = "ENGINEWRIGHT_ENGINE")]
    engine: Option<PathBuf>,

    /// With --engine: the shim, a file or its folder; beside the program by default.
    #[arg(long, value_name = "PATH", env = "ENGINEWRIGHT_SHIM")]
    shim: Option<PathBuf>,

    /// With --engine: TensorRT, a file or its folder; where the system has it by default.
    #[arg(long, value_name = "PATH", env = "ENGINEWRIGHT_TENSORRT")]
    tensorrt: Option<PathBuf>,

    /// Where to listen. Loopback unless told otherwise; anything else should have API keys. Port 0
    /// takes a free one and logs it; `stdin` takes the listening socket that the parent passes.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        env = "ENGINEWRIGHT_LISTEN"
    )]
    listen: Listen,

    /// The model's name in the API; the file's name without its ending by default, which is
    /// understood in any case.
    #[arg(long, value_name = "NAME")]
    served_name: Option<String>,

    /// Requests that are answered at once on the CPU; others wait.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    slots: u32,

    /// Tokens of prompt and answer together, per slot on the CPU; what the model was trained with, at
    /// most 4096, by default.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,

    /// Threads; one per physical core by default. Never more than the processors that this process
    /// may use: those it is bound to, and the quota of its container.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Requests that may wait; more are refused with 429.
    #[arg(long, default_value_t = 64, value_name = "REQUESTS")]
    queue: u32,

    /// How much of a prompt one step takes while answers are streamed: `adaptive` keeps the steps
    /// short, `whole` stalls the answers, a number is a number of tokens.
    #[arg(long, default_value = "adaptive", value_name = "POLICY")]
    prefill: PrefillPolicy,

    /// With --engine: how the engine thread waits for the GPU. `expect` sleeps until shortly before the
    /// step's expected end and looks from there on, for some hundred microseconds of a processor per
    /// step; `sleep` leaves the processor alone and hears of the end later, which is a tenth of a step of
    /// 2 ms and nothing of one of 50 ms; `spin` burns a whole processor.
    #[arg(long, default_value = "expect", value_name = "HOW")]
    wait: Wait,

    /// Only answer requests that carry one of the keys in this file: one a line, `#` for comments.
    /// Read again on SIGHUP.
    #[arg(long, value_name = "FILE", env = "ENGINEWRIGHT_API_KEYS_FILE")]
    api_keys_file: Option<PathBuf>,

    /// Longest request body in bytes.
    #[arg(long, default_value_t = 4 * 1024 * 1024, value_name = "BYTES")]
    max_body: usize,

    /// Longest time for one answer, waiting included, in seconds.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    request_timeout: u64,

    /// On SIGTERM: how long running answers may take to end, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    grace: u64,

    /// On SIGTERM: how long /readyz says no before new requests are refused, in seconds.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    drain_delay: u64,

    /// End at once when the process that started this one ends.
    #[arg(long, hide = true)]
    exit_with_parent: bool,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

impl Args {
    /// Runs the server until it is told to end.
    pub fn run(self) -> Exit {
        if self.exit_with_parent
            && let Err(error) = crate::local::guard::exit_with_parent()
        {
            return fail(Exit::Environment, &format!("--exit-with-parent: {error}"));
        }
        let keys = match read_keys(self.api_keys_file.as_deref()) {
            Ok(keys) => keys,
            Err(problem) => return fail(Exit::BadInput, &problem),
        };
        let runtime = match tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return fail(Exit::Environment, &error),
        };
        let entered = runtime.enter();
        let guard = match telemetry::init(&self.telemetry) {
            Ok(guard) => guard,
            Err(error) => return fail(Exit::BadInput, &error),
        };
        let exit = runtime.block_on(self.serve(keys));
        drop(guard);
        drop(entered);
        // A model that is still being loaded is not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        exit
    }

    async fn serve(self, keys: ApiKeys) -> Exit {
        let listener = match self.listen.open().map(TcpListener::from_std) {
            Ok(Ok(listener)) => listener,
            Ok(Err(error)) => return fail(Exit::Environment, &error),
            Err(error) => return fail(Exit::Environment, &error),
        };
        let loopback = listener
            .local_addr()
            .is_ok_and(|address| address.ip().is_loopback());
        let token = CancellationToken::new();
        let state = ServerState::new(
            self.server_config(loopback),
            keys,
            Arc::new(Metrics::new(self.backend())),
        );
        if let Err(error) = watch_signals(token.clone(), &state, self.api_keys_file.clone()) {
            return fail(Exit::Environment, &format!("cannot watch signals: {error}"));
        }
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, model = %self.file().display(), "listening");
        }
        let observer = Arc::clone(&state.metrics);
        let begun = std::time::Instant::now();
        let loading = tokio::spawn(bring_up(Arc::clone(&state), move || {
            let service = self.load(observer)?;
            tracing::info!(seconds = begun.elapsed().as_secs_f64(), "model loaded");
            Ok(service)
        }));
        let exit = match serve(listener, state, token).await {
            Ok(()) => Exit::Ok,
            Err(error) => fail(Exit::Engine, &error),
        };
        loading.abort();
        exit
    }

    fn server_config(&self, loopback: bool) -> ServerConfig {
        let mut config = ServerConfig::new(self.backend());
        config.max_body_bytes = self.max_body;
        config.max_buffered_bytes = config.max_buffered_bytes.max(self.max_body);
        config.request_timeout = Duration::from_secs(self.request_timeout);
        config.grace = Duration::from_secs(self.grace);
        config.drain_delay = Duration::from_secs(self.drain_delay);
        config.local_hosts_only = self.api_keys_file.is_none() && loopback;
        config.connections.connections = config
            .connections
            .connections
            .min(descriptors() / 2)
            .max(16);
        config
    }

    /// The name of the back end in headers and metrics.
    const fn backend(&self) -> &'static str {
        if self.engine.is_some() {
            tensorrt::NAME
        } else {
            "Cpu"
        }
    }

    /// What is served: clap sees to it that there is one.
    fn file(&self) -> PathBuf {
        let file = self.engine.as_ref().or(self.model.as_ref());
        file.cloned().unwrap_or_default()
    }

    fn load(&self, observer: Arc<Metrics>) -> Result<Service, LoadError> {
        let options = LoadOptions {
            file: self.file(),
            served_name: self.served_name.clone(),
            engine: EngineConfig {
                queue: self.queue,
                prefill: self.prefill,
                ..EngineConfig::default()
            },
        };
        if self.engine.is_none() {
            return load(&options, self.cpu()?, observer);
        }
        let search = Search {
            shim: self.shim.clone(),
            tensorrt: self.tensorrt.clone(),
        };
        let folder = EngineFolder::open(&options.file)?;
        let mut config = folder.config(search)?;
        config.wait = self.wait;
        let loader = TensorRtLoader::new(config);
        load_engine(&options, &folder, Box::new(loader), observer)
    }

    #[cfg(feature = "cpu")]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "fails where there is no CPU back end"
    )]
    fn cpu(&self) -> Result<Box<dyn Loader>, LoadError> {
        let mut llama = LlamaConfig::new(self.file());
        llama.slots = self.slots;
        llama.context_tokens = self.context;
        llama.threads = self.threads;
        Ok(Box::new(LlamaLoader::new(llama)))
    }

    #[cfg(not(feature = "cpu"))]
    fn cpu(&self) -> Result<Box<dyn Loader>, LoadError> {
        let file = self.file();
        Err(LoadError::Model(format!(
            "{}: this program was built without the CPU back end; give it an engine with --engine",
            file.display()
        )))
    }
}

fn read_keys(file: Option<&Path>) -> Result<ApiKeys, String> {
    let Some(file) = file else {
        return Ok(ApiKeys::default());
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("--api-keys-file {}: {error}", file.display()))?;
    ApiKeys::parse(&text).map_err(|error| format!("--api-keys-file {}: {error}", file.display()))
}

/// The first SIGTERM or SIGINT drains, the second ends at once; SIGHUP reads the keys again.
fn watch_signals(
    token: CancellationToken,
    state: &Arc<ServerState>,
    keys: Option<PathBuf>,
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    tokio::spawn(reread_keys(hangup, Arc::clone(state), keys));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if token.is_cancelled() {
                tracing::warn!("told to end twice: ending now");
                std::process::exit(i32::from(Exit::Environment as u8));
            }
            token.cancel();
        }
    });
    Ok(())
}

async fn reread_keys(mut hangup: Signal, state: Arc<ServerState>, file: Option<PathBuf>) {
    while hangup.recv().await.is_some() {
        let Some(file) = &file else { continue };
        match read_keys(Some(file)) {
            Ok(keys) => {
                state.set_keys(keys);
                tracing::info!("API keys read again");
            }
            Err(problem) => tracing::error!(problem, "the API keys stay as they were"),
        }
    }
}
