//! The loop of `run`: observe, plan, persist, act, report, wait. It owns all state; what it decides
//! is only how an observation is put together, everything else is the planner's.

mod act;
mod event;
mod fallback;
mod observe;
mod reload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::TensorRt;
use super::config::Wanted;
use super::engine::Engine;
use super::event::{Event, Events};
use super::gateway::Gateway;
use super::model::{Digests, Origin};
use super::report::{self, Report};
use super::revisions::{Revisions, Stored};
use super::screen::Screen;
use crate::api::{ConditionType, RevisionId};
use crate::hardware::Hardware;
use crate::model::ModelFacts;
use crate::planner::{
    Condition, ConditionStatus, Durable, Garbage, InstanceId, Memory, Observed, Plan, Step,
    Timestamp, Work, plan, status_of,
};
use crate::store::{StateDir, StoreError};
use fallback::Fallback;

/// Name of the planner's memory in the state directory.
pub const DURABLE: &str = "durable.json";
/// Plans in a row that act, after which the loop pauses: a planner and a shell that disagree must not
/// take the processor.
const STEADY: u32 = 32;
/// The pause then, and after a failure to persist.
const PAUSE: Duration = Duration::from_secs(1);
/// How long events are collected before the next plan: what happens together is planned together.
const COLLECT: Duration = Duration::from_millis(5);
/// Most time between two looks at what grows slowly (logs).
const UPKEEP: Duration = Duration::from_mins(1);

/// What does not change while `run` runs.
#[derive(Debug)]
pub struct Settings {
    /// The YAML file.
    pub file: PathBuf,
    /// The program `ollama`, where it was named.
    pub ollama: Option<PathBuf>,
    /// `PATH`, for finding it otherwise.
    pub path: Option<std::ffi::OsString>,
    /// Folders in which an Ollama of the user or of the system keeps models.
    pub ollama_models: Vec<PathBuf>,
    /// What sources of models demand.
    pub access: crate::sources::Access,
}

/// A piece of work that runs.
#[derive(Debug)]
pub(super) struct Running {
    work: Work,
    cancelled: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

/// A revision as the loop knows it.
#[derive(Debug, Default)]
pub(super) struct Known {
    origin: Option<Origin>,
    stored: Option<Stored>,
    facts: Option<ModelFacts>,
    model: Step,
    /// The engine from a registry: there is none without a cluster.
    bundle: Step,
    /// The engine built here.
    build: Step,
    verify: Step,
    running: Option<Running>,
}

/// Everything `run` is made of.
#[derive(Debug)]
pub struct Supervisor {
    settings: Settings,
    start: Instant,
    events: Events,
    inbox: UnboundedReceiver<Event>,
    state: StateDir,
    revisions: Revisions,
    digests: Digests,
    client: reqwest::Client,
    hardware: Hardware,
    tensorrt: Option<TensorRt>,
    memory_bytes: u64,
    wanted: Wanted,
    durable: Durable,
    memory: Memory,
    known: BTreeMap<RevisionId, Known>,
    engines: BTreeMap<InstanceId, Engine>,
    gateway: Gateway,
    fallback: Fallback,
    garbage: Garbage,
    stopping: bool,
    announced: bool,
    /// As last shown: what differs from it is news.
    report: Report,
    problems: Problems,
    screen: Screen,
}

/// What keeps `run` from doing what it should, for the report.
#[derive(Debug, Default)]
struct Problems {
    /// With the YAML file as it is now.
    file: Option<String>,
    /// With the state directory.
    state: Option<String>,
    /// The report itself could not be written: to be tried again though nothing else is new.
    report: bool,
}

/// What the parts of a supervisor are made from.
#[derive(Debug)]
pub struct Parts {
    /// See [`Settings`].
    pub settings: Settings,
    /// Sends events.
    pub events: Events,
    /// Receives them.
    pub inbox: UnboundedReceiver<Event>,
    /// The state directory.
    pub state: StateDir,
    /// One HTTP client for everything.
    pub client: reqwest::Client,
    /// This machine; without its GPU where the processor serves.
    pub hardware: Hardware,
    /// How engines are built and run on the GPU.
    pub tensorrt: Option<TensorRt>,
    /// What the user wants at first.
    pub wanted: Wanted,
    /// The gateway, not yet started.
    pub gateway: Gateway,
}

impl Supervisor {
    /// Reads back what an earlier life left.
    ///
    /// # Errors
    /// When that was written by a newer version, or is damaged.
    pub fn new(parts: Parts) -> Result<Self, StoreError> {
        let Parts {
            settings,
            events,
            inbox,
            state,
            client,
            hardware,
            tensorrt,
            wanted,
            gateway,
        } = parts;
        let durable = read_durable(&state)?;
        let revisions = Revisions::new(state.folder("revisions")?);
        let known = revisions
            .all()
            .into_iter()
            .map(|stored| {
                let facts = super::model::read_facts(&revisions.model(&stored)).ok();
                let engine = revisions.engine(&stored.revision);
                let known = Known {
                    facts,
                    model: Step::Done,
                    build: engine.map_or(Step::Todo, |_| Step::Done),
                    stored: Some(stored.clone()),
                    ..Known::default()
                };
                (stored.revision, known)
            })
            .collect();
        let memory_bytes = crate::engine::budget(&hardware, tensorrt.is_some()).left.0;
        let report = Report {
            pid: std::process::id(),
            ..Report::default()
        };
        let mut supervisor = Self {
            digests: Digests::new(state.path("digests.json")),
            settings,
            start: Instant::now(),
            events,
            inbox,
            state,
            revisions,
            client,
            hardware,
            tensorrt,
            memory_bytes,
            wanted,
            durable,
            memory: Memory::default(),
            known,
            engines: BTreeMap::new(),
            gateway,
            fallback: Fallback::default(),
            garbage: Garbage::default(),
            stopping: false,
            announced: false,
            report,
            problems: Problems::default(),
            screen: Screen::default(),
        };
        supervisor.note_wanted();
        Ok(supervisor)
    }

    fn now(&self) -> Timestamp {
        let millis = self.start.elapsed().as_millis();
        Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Runs until everything was taken down in order.
    pub async fn run(&mut self) {
        let endpoint = self.gateway.endpoint();
        self.screen.say(&format!(
            "{} at {endpoint}, state in {}",
            self.wanted.engine.name,
            self.state.root().display()
        ));
        let mut acted = 0;
        loop {
            let now = self.now();
            self.sync_fallback(now);
            self.sync_routes();
            let observed: Observed = self.observe(now);
            let plan = plan(&observed, now);
            let wake_at = plan.wake_at;
            let persisted = self.persist(&plan);
            self.memory = plan.memory;
            self.publish(&plan.status);
            if plan.removed {
                return;
            }
            if persisted && !plan.actions.is_empty() {
                for action in plan.actions {
                    self.act(action, now);
                }
                acted += 1;
                if acted < STEADY {
                    self.take_events(Duration::ZERO).await;
                    continue;
                }
                tracing::warn!("the planner keeps acting; pausing");
            }
            acted = 0;
            let wait = match wake_at {
                _ if !persisted => PAUSE,
                Some(at) => at.since(self.now()).min(UPKEEP),
                None => UPKEEP,
            };
            self.take_events(wait).await;
            self.bound_logs();
        }
    }

    /// Waits for events, at most `wait`, and takes all that are there.
    async fn take_events(&mut self, wait: Duration) {
        // The supervisor holds a sender itself, so the channel never closes.
        if let Ok(Some(event)) = timeout(wait, self.inbox.recv()).await {
            self.take(event);
            sleep(COLLECT).await;
        }
        while let Ok(event) = self.inbox.try_recv() {
            self.take(event);
        }
    }

    /// Intent before effect: `false` when it could not be persisted, so that nothing may be done.
    fn persist(&mut self, plan: &Plan) -> bool {
        if plan.durable == self.durable {
            return true;
        }
        match self.state.write_json(DURABLE, &plan.durable) {
            Ok(()) => {
                self.durable = plan.durable.clone();
                self.problems.state = None;
                true
            }
            Err(error) => {
                tracing::error!(%error, "nothing can be changed until the state can be written");
                self.problems.state = Some(error.to_string());
                false
            }
        }
    }

    fn publish(&mut self, status: &crate::planner::Status) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = crate::wire::time::rfc3339(Duration::from_secs(now.as_secs()));
        let next = Report {
            name: self.wanted.engine.name.to_string(),
            file: self.settings.file.display().to_string(),
            source: self.wanted.engine.model.source.to_string(),
            pid: std::process::id(),
            status: status_of(
                status,
                &self.report.status,
                Some(&self.gateway.endpoint()),
                self.wanted.engine.rollout.retry_token.as_deref(),
                &now,
            ),
            processes: self.processes(),
            file_problem: self.problems.file.clone(),
            state_problem: self.problems.state.clone(),
        };
        self.notify_systemd(status.condition(ConditionType::Available));
        if next == self.report && !self.problems.report {
            return;
        }
        self.screen.compare(&self.report.status, &next.status);
        self.report = next;
        let written = self.state.write_json(report::FILE, &self.report);
        self.problems.report = written.is_err();
        if let Err(error) = written {
            tracing::warn!(%error, "the report cannot be written");
        }
    }

    /// Says once that requests are answered.
    fn notify_systemd(&mut self, available: Option<&Condition>) {
        let answers = available.is_some_and(|condition| condition.status == ConditionStatus::True);
        if answers && !self.announced {
            self.announced = true;
            // Without systemd this does nothing.
            let _nobody = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
    }

    fn bound_logs(&self) {
        self.gateway.bound_log();
        self.fallback.bound_log();
        for engine in self.engines.values() {
            engine.bound_log();
        }
    }
}

fn read_durable(state: &StateDir) -> Result<Durable, StoreError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    // Its version first: a newer form need not have the fields of this one.
    match state.read_json::<Version>(DURABLE)? {
        None => Ok(Durable::default()),
        Some(Version { version }) if version > crate::planner::SCHEMA_VERSION => {
            Err(StoreError::Newer {
                path: state.root().to_owned(),
                found: version,
            })
        }
        Some(_) => Ok(state.read_json(DURABLE)?.unwrap_or_default()),
    }
}
