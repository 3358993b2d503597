//! One engine process: started, waited for, proven, probed, ended. The loop owns the record, tasks
//! do the waiting.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::config::Served;
use super::event::{Event, Events};
use super::guard;
use super::process::{self, Order, Running};
use super::{TensorRt, tensorrt_arguments};
use crate::api::{Objectives, Reason, RevisionId};
use crate::planner::{
    Failure, Health, Instance, InstanceId, Phase, Proof, Timestamp, failure, transient,
};
use crate::probe::{Prober, health, proof};

/// Exit code of `serve` when something on this machine was in the way, see `cli::Exit`.
const EXIT_ENVIRONMENT: i32 = 4;

/// What an engine is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// Its number.
    pub id: InstanceId,
    /// What it runs.
    pub revision: RevisionId,
    /// From the order.
    pub memory_bytes: u64,
    /// From the order.
    pub exclusive: bool,
    /// The model file.
    pub model: &'a Path,
    /// Its engine, and where TensorRT is; without them the model itself runs on the CPU.
    pub engine: Option<(&'a Path, &'a TensorRt)>,
    /// Its arguments.
    pub served: &'a Served,
    /// Time for running answers when it is told to end.
    pub grace: Duration,
    /// Folder for its log.
    pub logs: &'a Path,
}

/// An engine as the loop knows it.
#[derive(Debug)]
pub struct Engine {
    /// What the planner sees.
    pub instance: Instance,
    /// Where it listens.
    pub address: SocketAddr,
    /// Process id while it runs.
    pub pid: Option<u32>,
    /// Number of the last proof that was begun.
    pub proofs: u64,
    log: PathBuf,
    prober: Prober,
    stop: Option<UnboundedSender<Duration>>,
    proof: Option<AbortOnDropHandle<()>>,
    watch: Option<AbortOnDropHandle<()>>,
}

impl Engine {
    /// Starts the process. Where that is not possible, what is returned has exited already.
    pub fn start(
        start: &Start<'_>,
        client: &reqwest::Client,
        now: Timestamp,
        events: &Events,
    ) -> Self {
        let log = start.logs.join(format!("engine-{}.log", start.id));
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let address = listener
            .as_ref()
            .map_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)), |(it, _)| *it);
        let origin = format!("http://{address}");
        let mut engine = Self {
            instance: Instance {
                id: start.id,
                revision: start.revision.clone(),
                phase: Phase::Starting { since: now },
                memory_bytes: start.memory_bytes,
                exclusive: start.exclusive,
                proof: Proof::None,
                serving_since: None,
                health: None,
            },
            address,
            pid: None,
            proofs: 0,
            log,
            prober: Prober::new(client.clone(), &origin, &start.served.served_name),
            stop: None,
            proof: None,
            watch: None,
        };
        let spawned = listener.and_then(|(_, listener)| engine.spawn(start, listener, events));
        if let Err(error) = spawned {
            let text = format!("The engine's process cannot be started: {error}.");
            engine.instance.phase = Phase::Exited {
                at: now,
                failure: transient(Reason::EnvironmentError, &text),
            };
        }
        engine
    }

    /// The socket is opened by us and handed over: no port can be taken by another meanwhile.
    fn spawn(
        &mut self,
        start: &Start<'_>,
        listener: TcpListener,
        events: &Events,
    ) -> std::io::Result<()> {
        let running = process::start(Order {
            program: None,
            arguments: arguments(start),
            environment: Vec::new(),
            stdin: Some(listener.into()),
            log: self.log.clone(),
            tree: false,
        })?;
        self.pid = running.id();
        let (stop, orders) = unbounded_channel();
        self.stop = Some(stop);
        tokio::spawn(attend(
            start.id,
            running,
            self.prober.clone(),
            orders,
            events.clone(),
        ));
        Ok(())
    }

    /// Begins a proof; one that runs is ended.
    pub fn prove(&mut self, wanted: Objectives, limit: Duration, now: Timestamp, events: &Events) {
        self.proofs += 1;
        self.instance.proof = Proof::Running { since: now };
        let (id, number) = (self.instance.id, self.proofs);
        let (prober, events) = (self.prober.clone(), events.clone());
        let task = tokio::spawn(async move {
            let outcome = proof::prove(&prober, &wanted, limit).await;
            let _ended = events.send(Event::Proved(id, number, outcome));
        });
        self.proof = Some(AbortOnDropHandle::new(task));
    }

    /// Begins to probe periodically, or goes on with another interval.
    pub fn watch(
        &mut self,
        interval: Duration,
        wanted: Objectives,
        limit: Duration,
        events: &Events,
    ) {
        let health = self.instance.health.unwrap_or_default();
        self.instance.health = Some(Health { interval, ..health });
        let (instance, prober, events) = (self.instance.id, self.prober.clone(), events.clone());
        let task = tokio::spawn(async move {
            loop {
                sleep(interval).await;
                let (finding, throttled) = health::probe(&prober, &wanted, limit).await;
                let event = Event::Probed {
                    instance,
                    finding,
                    throttled,
                };
                let _ended = events.send(event);
            }
        });
        self.watch = Some(AbortOnDropHandle::new(task));
    }

    /// Tells the process to end; `false` when there is none, so that the record can go.
    pub fn stop(&mut self, grace: Duration) -> bool {
        self.proof = None;
        self.watch = None;
        self.instance.serving_since = None;
        match &self.stop {
            Some(stop) if !matches!(self.instance.phase, Phase::Exited { .. }) => {
                // A task that has ended already reports that.
                let _ended = stop.send(grace);
                self.instance.phase = Phase::Stopping;
                true
            }
            _ => false,
        }
    }

    /// Notes that the process is gone; `false` when it was told to, so that the record can go.
    pub fn ended(&mut self, status: std::io::Result<ExitStatus>, now: Timestamp) -> bool {
        self.pid = None;
        self.proof = None;
        self.watch = None;
        let failure = match &self.instance.phase {
            Phase::Stopping => return false,
            Phase::Exited { .. } => return true,
            Phase::Starting { .. } => self.why(status, Reason::StartFailed, "could not start"),
            Phase::Ready => self.why(status, Reason::EngineCrashed, "ended"),
        };
        tracing::warn!(engine = %self.instance.id, reason = %failure.reason, message = failure.message);
        self.instance.phase = Phase::Exited { at: now, failure };
        true
    }

    fn why(&self, status: std::io::Result<ExitStatus>, reason: Reason, did: &str) -> Failure {
        let code = status.ok().map(guard::exit_code);
        let words = process::last_words(&self.log)
            .map_or_else(String::new, |words| format!("; its last words: {words}"));
        let how = match code {
            Some(code) if code > 128 => format!("killed by signal {}", code - 128),
            Some(code) => format!("exit code {code}"),
            None => "nobody knows how".to_owned(),
        };
        let text = format!("The engine {did} ({how}){words}.");
        let failure = match (reason, code) {
            (Reason::StartFailed, Some(EXIT_ENVIRONMENT)) => {
                transient(Reason::EnvironmentError, &text)
            }
            _ => failure(reason, &text),
        };
        Failure {
            exit_code: code,
            ..failure
        }
    }

    /// Keeps its log from growing without bound.
    pub fn bound_log(&self) {
        process::bound_log(&self.log);
    }
}

fn arguments(start: &Start<'_>) -> Vec<OsString> {
    let served = start.served;
    let mut arguments: Vec<OsString> = vec!["serve".into()];
    let mut values = vec![
        ("--listen", "stdin".to_owned()),
        ("--served-name", served.served_name.clone()),
        ("--grace", start.grace.as_secs().max(1).to_string()),
    ];
    if let Some((engine, tensorrt)) = start.engine {
        // Slots and context are those it was built for.
        arguments.extend(["--engine".into(), engine.into()]);
        arguments.extend(tensorrt_arguments(&tensorrt.search));
    } else {
        arguments.extend(["--model".into(), start.model.into()]);
        values.push(("--slots", served.slots.to_string()));
        values.push(("--context", served.context_tokens().to_string()));
        // One processor stays free: while a new engine is proven beside it, runtimes that both span all
        // of them wait for each other in spinning barriers, and a good engine gives no answer in time.
        let processors =
            std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        values.push(("--threads", processors.saturating_sub(1).max(1).to_string()));
    }
    for (name, value) in values {
        arguments.extend([name.into(), value.into()]);
    }
    arguments
}

/// Waits for readiness, the end, and the order to end, whichever comes.
async fn attend(
    id: InstanceId,
    mut running: Running,
    prober: Prober,
    mut orders: UnboundedReceiver<Duration>,
    events: Events,
) {
    let ready = async {
        while !prober.is_ready().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::pin!(ready);
    let mut announced = false;
    let status = loop {
        tokio::select! {
            () = &mut ready, if !announced => {
                announced = true;
                let _ended = events.send(Event::EngineReady(id));
            }
            status = running.wait() => break status,
            grace = orders.recv() => {
                running.end(grace.unwrap_or_default()).await;
                break running.wait().await;
            }
        }
    };
    let _ended = events.send(Event::EngineEnded(id, status));
}
