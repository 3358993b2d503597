//! What all handlers share: the model and its engine once they are there, where the server stands
//! in its life, the keys, the limits and the counters. Decides who is served at all; nothing about
//! a single request.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::auth::ApiKeys;
use super::http::{Connections, Limits};
use super::metrics::Metrics;
use super::model::ServedModel;
use super::worker::EngineHandle;
use crate::wire::{ApiError, ErrorKind};

/// Where the server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The model is being loaded.
    Loading,
    /// The model is loaded and proves itself by a first generation.
    Warming,
    /// Requests are welcome.
    Ready,
    /// SIGTERM: `/readyz` says no, requests are still served while word gets around.
    Leaving,
    /// Running answers go on, new requests are refused.
    Draining,
    /// The engine is gone; the process is about to exit.
    Failed(String),
}

impl Phase {
    const fn rank(&self) -> u8 {
        match self {
            Self::Loading => 0,
            Self::Warming => 1,
            Self::Ready => 2,
            Self::Leaving => 3,
            Self::Draining => 4,
            Self::Failed(_) => 5,
        }
    }
}

/// What the operator sets about the HTTP side.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Value of the back end header.
    pub backend: &'static str,
    /// Longest body in bytes.
    pub max_body_bytes: usize,
    /// All bodies together that are being received, in bytes.
    pub max_buffered_bytes: usize,
    /// How long a client may take to send its body.
    pub body_timeout: Duration,
    /// How long an answer may take, waiting included.
    pub request_timeout: Duration,
    /// Only answer requests whose `Host` is this machine: against web pages that rebind DNS, when
    /// the server listens on loopback and no key is asked for.
    pub local_hosts_only: bool,
    /// How long `/readyz` says no before new requests are refused.
    pub drain_delay: Duration,
    /// How long running answers may take after that.
    pub grace: Duration,
    /// Limits of the connections.
    pub connections: Limits,
}

impl ServerConfig {
    /// The defaults for a back end.
    pub fn new(backend: &'static str) -> Self {
        Self {
            backend,
            max_body_bytes: 4 * 1024 * 1024,
            max_buffered_bytes: 64 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_hours(1),
            local_hosts_only: false,
            drain_delay: Duration::ZERO,
            grace: Duration::from_secs(30),
            connections: Limits::default(),
        }
    }
}

/// A loaded model and the way to its engine.
#[derive(Debug)]
pub struct Service {
    /// The model.
    pub model: ServedModel,
    /// The engine.
    pub engine: EngineHandle,
}

/// Shared by all handlers.
#[derive(Debug)]
pub struct ServerState {
    /// What the operator set.
    pub config: ServerConfig,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Seconds since 1970 and the like come from here, so that tests can hold them.
    pub clock: fn() -> Duration,
    /// The open connections.
    pub connections: Connections,
    /// Turns at preparing a request: as many as there are processors.
    pub preparing: Semaphore,
    /// Bytes that bodies may have in memory.
    pub body_budget: Arc<Semaphore>,
    phase: watch::Sender<Phase>,
    service: OnceLock<Arc<Service>>,
    keys: RwLock<Arc<ApiKeys>>,
}

impl ServerState {
    /// A server whose model is not loaded yet.
    pub fn new(config: ServerConfig, keys: ApiKeys, metrics: Arc<Metrics>) -> Arc<Self> {
        let body_budget = Arc::new(Semaphore::new(config.max_buffered_bytes));
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let connections = Connections::new(&config.connections);
        Arc::new(Self {
            config,
            metrics,
            clock: since_epoch,
            connections,
            preparing: Semaphore::new(processors),
            body_budget,
            phase: watch::Sender::new(Phase::Loading),
            service: OnceLock::new(),
            keys: RwLock::new(Arc::new(keys)),
        })
    }

    /// Hands over the loaded model; only the first counts.
    pub fn install(&self, service: Service) -> Arc<Service> {
        let service = Arc::clone(self.service.get_or_init(|| Arc::new(service)));
        self.advance(Phase::Warming);
        service
    }

    /// Goes on to `next`; there is no way back.
    pub fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = next.rank() > phase.rank();
            if forward {
                *phase = next;
            }
            forward
        });
    }

    /// Where the server stands now.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Resolves when `wanted` says so.
    pub async fn reached(&self, mut wanted: impl FnMut(&Phase) -> bool) {
        let mut phase = self.phase.subscribe();
        // The sender lives in `self`, so waiting ends only by the condition.
        let _ = phase.wait_for(|phase| wanted(phase)).await;
    }

    /// The model and its engine, for metadata.
    pub fn loaded(&self) -> Option<&Arc<Service>> {
        self.service.get()
    }

    /// The model and its engine, for a new request.
    ///
    /// # Errors
    /// 503 while there is none, or no more.
    pub fn service(&self) -> Result<&Arc<Service>, ApiError> {
        let unavailable = |message: &str, after| {
            Err(ApiError::new(ErrorKind::Unavailable, message)
                .retry_after(Duration::from_secs(after)))
        };
        match (&*self.phase.borrow(), self.service.get()) {
            (Phase::Warming | Phase::Ready | Phase::Leaving, Some(service))
                if service.engine.is_alive() =>
            {
                Ok(service)
            }
            (Phase::Draining, _) => unavailable("the server is shutting down", 1),
            (Phase::Loading, _) => unavailable("the model is being loaded", 2),
            _ => unavailable("the engine is not running", 2),
        }
    }

    /// The keys that are accepted now.
    pub fn keys(&self) -> Arc<ApiKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the keys.
    pub fn set_keys(&self, keys: ApiKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

fn since_epoch() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}
