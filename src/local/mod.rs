//! `run`: the planner driven with processes on one machine, without Kubernetes.
//!
//! ```text
//!  run ── guard ── ollama serve ── runners      (the guard ends the whole tree)
//!   ├──── gateway    holds no state; its listening socket belongs to run
//!   └──── serve …    one per engine, killed by the kernel when run dies
//! ```
//!
//! One thread, one loop ([`supervisor`]): it observes, asks the planner, persists, acts, reports.
//! Tasks only wait and tell the loop. It decides nothing about what shall run.

pub mod build;
pub mod config;
pub mod engine;
pub mod event;
pub mod fetch;
pub mod gateway;
pub mod guard;
pub mod model;
pub mod ollama;
pub mod process;
pub mod report;
pub mod revisions;
pub mod screen;
pub mod supervisor;
mod watch;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{getpid, set_child_subreaper};
use tokio::signal::unix::{SignalKind, signal};

use crate::gateway::routes::RouteTable;
use crate::hardware::{Hardware, Sm};
use crate::model::ollama_store;
use crate::store::{StateDir, StoreError, atomic};
use crate::tensorrt::{self, Search};
use config::ConfigError;
use event::{Event, Events};
use supervisor::{Parts, Settings, Supervisor};

/// For what an orderly end takes besides the grace time of running answers.
const END_MARGIN: Duration = Duration::from_secs(20);

/// What `run` is started with.
#[derive(Debug)]
pub struct Options {
    /// The YAML file.
    pub file: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Where the endpoint listens.
    pub listen: SocketAddr,
    /// File with the keys that clients need.
    pub api_keys: Option<PathBuf>,
    /// The program `ollama`, where it was named.
    pub ollama: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// What sources of models demand.
    pub access: crate::sources::Access,
    /// Where TensorRT is looked for.
    pub tensorrt: Search,
    /// The machine, where it is not this one: for trying out what another would do.
    pub hardware: Option<Hardware>,
}

/// How engines are built and run on this machine's GPU.
#[derive(Clone, Debug)]
pub struct TensorRt {
    /// Where shim and library are.
    pub search: Search,
    /// What engines are built for.
    pub sm: Option<Sm>,
}

/// What a child must be told to find the same TensorRT.
fn tensorrt_arguments(search: &Search) -> Vec<OsString> {
    let named = [("--shim", &search.shim), ("--tensorrt", &search.tensorrt)];
    let given = named
        .into_iter()
        .filter_map(|(flag, path)| Some([flag.into(), path.as_ref()?.into()]));
    given.flatten().collect()
}

/// Why `run` does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The YAML file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The endpoint's address.
    #[error(
        "port {} on {} is in use by another program: stop it, or choose another with --listen",
        .0.port(), .0.ip()
    )]
    PortInUse(SocketAddr),
    /// The endpoint's address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The operating system.
    #[error("{0}: {1}")]
    System(&'static str, #[source] std::io::Error),
    /// The HTTP client.
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// How `run` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was taken down in order.
    Orderly,
    /// Told twice, or too slow: everything was killed.
    Hard,
}

/// Runs until told to end. Must be called on the thread that lives as long as the process, within a
/// runtime of this one thread.
///
/// # Errors
/// [`RunError`], before anything was started.
pub async fn run(options: Options) -> Result<End, RunError> {
    let wanted = config::load(&options.file)?;
    let state = StateDir::open(&options.state_dir)?;
    let listener = listen(options.listen)?;
    let own = getpid();
    // Orphans of a guard that was killed fall to this process, which ends them.
    set_child_subreaper(Some(own))
        .map_err(|error| RunError::System("cannot adopt orphans", error.into()))?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(2))
        .build()?;
    let (events, inbox) = event::channel();
    let routes = state.path("routes.json");
    // What an earlier life routed to is gone.
    let empty = RouteTable::empty(wanted.engine.served_name.clone()).to_json();
    empty
        .map_err(std::io::Error::other)
        .and_then(|json| atomic::write(&routes, &json))
        .map_err(|error| RunError::System("cannot write the route table", error))?;
    let gateway = gateway::Gateway::new(
        gateway::Settings {
            listener,
            routes,
            log: state.path("logs/gateway.log"),
            api_keys: options.api_keys,
        },
        client.clone(),
        events.clone(),
    );
    let second = signals(events.clone(), wanted.engine.rollout.drain_timeout)
        .map_err(|error| RunError::System("cannot receive signals", error))?;
    // Kept alive to the end: dropping it ends the watching.
    let _watcher = watch::watch(&options.file, events.clone());
    let hardware = options
        .hardware
        .unwrap_or_else(crate::hardware::probe::probe);
    let (hardware, tensorrt) = backend(hardware, options.tensorrt);
    let mut supervisor = Supervisor::new(Parts {
        settings: Settings {
            ollama_models: ollama_store::usual_folders(None, options.home),
            file: options.file,
            ollama: options.ollama,
            path: options.path,
            access: options.access,
        },
        events,
        inbox,
        state,
        client,
        hardware,
        tensorrt,
        wanted,
        gateway,
    })?;
    let end = tokio::select! {
        () = supervisor.run() => End::Orderly,
        () = second => End::Hard,
    };
    guard::end_descendants_of_this_process();
    Ok(end)
}

/// What runs engines here: TensorRT where there are a GPU and our shim for it, else the processor,
/// for which the machine is one without a GPU.
fn backend(mut hardware: Hardware, search: Search) -> (Hardware, Option<TensorRt>) {
    let sm = hardware.sm();
    if sm.is_some() && tensorrt::is_installed(&search) {
        return (hardware, Some(TensorRt { search, sm }));
    }
    if sm.is_some() {
        tracing::warn!("there is a GPU, but no libenginewright_trt.so: the CPU serves; see --shim");
    }
    hardware.gpu = None;
    hardware.jetson = None;
    (hardware, None)
}

fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => RunError::PortInUse(address),
        _ => RunError::Listen(address, error),
    })
}

/// The first SIGTERM or SIGINT ends in order, SIGHUP reads the file again. What is returned is done
/// at the second, or when the end in order takes too long.
fn signals(events: Events, drain: Duration) -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut told = false;
        loop {
            let limit = async {
                if told {
                    tokio::time::sleep(drain * 2 + END_MARGIN).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                _ = hangup.recv() => {
                    let _ended = events.send(Event::FileChanged);
                    continue;
                }
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
                () = limit => return,
            }
            if told {
                return;
            }
            told = true;
            let _nobody = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            let _ended = events.send(Event::Stop);
        }
    })
}
