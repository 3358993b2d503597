//! The fallback as the loop knows it, and the route table that depends on it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::super::event::FallbackEvent;
use super::super::ollama::api::Ollama as OllamaApi;
use super::super::ollama::{self, Command, Managed, Model, Start, Wanted};
use super::super::process;
use super::Supervisor;
use crate::api::{ActiveBackend, Ollama, Reason, Residency};
use crate::gateway::routes::{RouteTable, Timeouts, Upstream, UpstreamKind};
use crate::planner::{Failure, Route, Service, Timestamp, Work, transient};

/// Least time between two looks whether the fallback lives.
const LOOK: Duration = Duration::from_secs(2);

/// What the progress of its model is called.
const MODEL_BAR: &str = "fallback model";

/// The fallback.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// What the planner sees.
    pub(super) service: Service,
    /// Process id while a managed one runs.
    pub(super) pid: Option<u32>,
    /// Where a managed one listens.
    pub(super) origin: Option<String>,
    starts: u64,
    commands: Option<UnboundedSender<Command>>,
    wanted: watch::Sender<Wanted>,
    external: Option<((String, String), AbortOnDropHandle<()>)>,
    log: Option<PathBuf>,
}

impl Fallback {
    pub(super) fn bound_log(&self) {
        if let Some(log) = &self.log {
            process::bound_log(log);
        }
    }

    fn tell(&self, command: Command) -> bool {
        self.commands
            .as_ref()
            .is_some_and(|commands| commands.send(command).is_ok())
    }
}

impl Supervisor {
    /// Keeps the fallback's task told what is wanted, and an external one watched.
    pub(super) fn sync_fallback(&mut self, now: Timestamp) {
        let external = match &self.wanted.engine.fallback.ollama {
            Some(Ollama::External { url, model }) => Some((url.clone(), model.clone())),
            Some(Ollama::Managed { .. }) | None => None,
        };
        if self.fallback.external.as_ref().map(|(key, _)| key) != external.as_ref() {
            // Whatever it was, it is not wanted any more.
            self.fallback.tell(Command::Stop);
            self.fallback.commands = None;
            self.fallback.starts += 1;
            self.fallback.external = None;
            self.fallback.service = Service::Absent;
            if let Some((url, model)) = external {
                self.watch_external(url, model, now);
            }
        }
        let wanted = Wanted {
            model: self.fallback_model(),
            load: self.fallback_loads_at_once(),
        };
        self.fallback.wanted.send_if_modified(|old| {
            let changed = *old != wanted;
            *old = wanted;
            changed
        });
    }

    fn watch_external(&mut self, url: String, model: String, now: Timestamp) {
        self.fallback.service = Service::Starting { since: now };
        let task = tokio::spawn(ollama::watch_external(
            self.fallback.starts,
            OllamaApi::new(self.client.clone(), &url),
            model.clone(),
            self.wanted.engine.health.probe_interval.max(LOOK),
            self.events.clone(),
        ));
        self.fallback.external = Some(((url, model), AbortOnDropHandle::new(task)));
    }

    fn fallback_loads_at_once(&self) -> bool {
        let engine_serves = self
            .gateway
            .routed
            .is_some_and(|route| route.primary.is_some());
        self.wanted.engine.fallback.residency != Residency::Standby || !engine_serves
    }

    fn fallback_model(&self) -> Option<Model> {
        let Some(Ollama::Managed {
            model: name,
            import,
            ..
        }) = &self.wanted.engine.fallback.ollama
        else {
            return None;
        };
        // The engine takes all processors; see `Model::threads`.
        let threads = (self.hardware.cpu.cores / 2).max(1);
        if !import {
            return Some(Model {
                revision: self.wanted.revision.clone(),
                name: name.clone(),
                file: None,
                context_tokens: self.wanted.engine.engine.context_tokens(),
                threads,
            });
        }
        let revision = self.fallback_revision()?;
        let stored = self.known.get(&revision)?.stored.as_ref()?;
        Some(Model {
            name: name.clone(),
            file: Some(self.revisions.model(stored)),
            context_tokens: stored.served.context_tokens(),
            threads,
            revision,
        })
    }

    /// Starts the managed fallback, or brings a parked one back.
    pub(super) fn ensure_fallback(&mut self, now: Timestamp) {
        match self.fallback.service {
            Service::Starting { .. } | Service::Ready { .. } | Service::Stopping => return,
            Service::Parked if self.fallback.tell(Command::Raise) => {
                self.fallback.service = Service::Starting { since: now };
                return;
            }
            Service::Parked | Service::Unknown | Service::Absent | Service::Failed { .. } => {}
        }
        self.fallback.starts += 1;
        self.fallback.service = match self.start_ollama() {
            Ok(()) => Service::Starting { since: now },
            Err(failure) => Service::Failed { at: now, failure },
        };
    }

    fn start_ollama(&mut self) -> Result<(), Failure> {
        let cannot = |error: &dyn std::fmt::Display| {
            transient(
                Reason::FallbackUnavailable,
                &format!("Ollama cannot be started: {error}."),
            )
        };
        let program =
            ollama::find_program(self.settings.ollama.as_deref(), self.settings.path.as_ref())?;
        let home = self
            .state
            .folder("ollama")
            .map_err(|error| cannot(&error))?;
        let log = self.state.path("logs/ollama.log");
        // Ollama takes no open socket: the port is free now and taken by it in a moment.
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|error| cannot(&error))?
            .port();
        let residency = self.wanted.engine.fallback.residency;
        let running = ollama::start(Start {
            program,
            home: &home,
            port,
            log: log.clone(),
            residency,
            parallel: self.wanted.engine.engine.slots,
        })
        .map_err(|error| cannot(&error))?;
        let origin = format!("http://127.0.0.1:{port}");
        let (commands, orders) = unbounded_channel();
        self.fallback.pid = running.id();
        self.fallback.log = Some(log);
        self.fallback.commands = Some(commands);
        let managed = Managed {
            start: self.fallback.starts,
            ollama: OllamaApi::new(self.client.clone(), &origin),
            wanted: self.fallback.wanted.subscribe(),
            digests: self.digests.clone(),
            residency,
            interval: self.wanted.engine.health.probe_interval.max(LOOK),
            events: self.events.clone(),
        };
        self.fallback.origin = Some(origin);
        tokio::spawn(managed.live(running, orders));
        Ok(())
    }

    /// Makes the managed fallback give its memory back.
    pub(super) fn park_fallback(&mut self) {
        self.fallback.service = if self.fallback.tell(Command::Park) {
            Service::Stopping
        } else {
            Service::Parked
        };
    }

    /// Ends the managed fallback.
    pub(super) fn stop_fallback(&mut self) {
        self.fallback.service = if self.fallback.tell(Command::Stop) {
            Service::Stopping
        } else {
            Service::Absent
        };
    }

    /// A managed Ollama of ours that answers now.
    pub(super) fn own_ollama(&self) -> Option<OllamaApi> {
        let runs = self.fallback.commands.is_some();
        let origin = self.fallback.origin.as_ref().filter(|_| runs)?;
        Some(OllamaApi::new(self.client.clone(), origin))
    }

    pub(super) fn take_fallback(&mut self, start: u64, event: FallbackEvent, now: Timestamp) {
        if start != self.fallback.starts {
            return;
        }
        match event {
            FallbackEvent::Progress { done, total } => {
                self.screen
                    .progress(MODEL_BAR, Work::FetchModel, done, total);
            }
            FallbackEvent::Ready => {
                self.screen.finish(MODEL_BAR);
                if !matches!(
                    self.fallback.service,
                    Service::Ready { .. } | Service::Stopping
                ) {
                    self.fallback.service = Service::Ready { since: now };
                }
            }
            FallbackEvent::Parked => {
                self.fallback.service = Service::Parked;
                self.fallback.forget_ended_process();
            }
            FallbackEvent::Gone => {
                self.fallback.service = Service::Absent;
                self.fallback.forget_process();
            }
            FallbackEvent::Failed(failure) => {
                self.screen.finish(MODEL_BAR);
                tracing::warn!(message = failure.message, "the fallback failed");
                self.fallback.service = Service::Failed { at: now, failure };
                self.fallback.forget_process();
            }
        }
    }

    /// Writes the route table anew where what it names has moved.
    pub(super) fn sync_routes(&mut self) {
        if let Some(route) = self.gateway.wanted_route() {
            self.route(route);
        }
    }

    /// Has the gateway take a route over.
    pub(super) fn route(&mut self, route: Route) {
        let table = self.table(route);
        if let Err(error) = self.gateway.route(route, table) {
            tracing::error!(%error, "the route table cannot be written");
            self.problems.state = Some(format!("the route table cannot be written: {error}"));
        }
    }

    fn table(&self, route: Route) -> RouteTable {
        let wanted = &self.wanted.engine;
        let engine = route.primary.and_then(|id| self.engines.get(&id));
        let revision = engine
            .map(|engine| engine.instance.revision.clone())
            .or_else(|| self.fallback_revision());
        let stored = revision
            .as_ref()
            .and_then(|id| self.known.get(id)?.stored.as_ref());
        let served_name = stored.map_or(&wanted.served_name, |stored| &stored.served.served_name);
        let primary = engine.map(|engine| Upstream {
            kind: UpstreamKind::Enginewright,
            url: format!("http://{}", engine.address),
            backend: if engine.instance.revision == self.wanted.revision {
                match self.tensorrt() {
                    Some(_) => ActiveBackend::TensorRT,
                    None => ActiveBackend::Cpu,
                }
            } else {
                ActiveBackend::LastGood
            }
            .to_string(),
            model: served_name.clone(),
            context_tokens: None,
            api_key_file: None,
        });
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let health = &wanted.health;
        RouteTable {
            primary,
            fallback: self.fallback_upstream().filter(|_| route.fallback),
            gguf: stored.map(|stored| self.revisions.model(stored)),
            timeouts: Timeouts {
                first_token_ms: millis(health.first_token_timeout),
                stall_ms: millis(health.stall_timeout),
                ..Timeouts::default()
            },
            ..RouteTable::empty(served_name.clone())
        }
    }

    /// The fallback, where it can be asked.
    fn fallback_upstream(&self) -> Option<Upstream> {
        let answers = matches!(
            self.fallback.service,
            Service::Ready { .. } | Service::Parked
        );
        let (url, model) = match self.wanted.engine.fallback.ollama.as_ref()? {
            Ollama::External { url, model } => (url.clone(), model.clone()),
            Ollama::Managed { model, .. } => (self.fallback.origin.clone()?, model.clone()),
        };
        answers.then(|| Upstream {
            kind: UpstreamKind::Ollama,
            url,
            backend: ActiveBackend::Ollama.to_string(),
            model,
            context_tokens: self
                .fallback
                .wanted
                .borrow()
                .model
                .as_ref()
                .map(|model| model.context_tokens),
            api_key_file: None,
        })
    }
}

impl Fallback {
    fn forget_process(&mut self) {
        self.commands = None;
        self.pid = None;
        self.origin = None;
    }

    /// Parked with `Cold`, the task has ended and its channel with it.
    fn forget_ended_process(&mut self) {
        if self
            .commands
            .as_ref()
            .is_some_and(UnboundedSender::is_closed)
        {
            self.forget_process();
        }
    }
}
