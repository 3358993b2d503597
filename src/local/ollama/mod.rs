//! The fallback: an Ollama of our own as a child process, or one at an address that is only watched.
//!
//! One task lives as long as the process does, keeps the right model in it, and tells the loop what
//! becomes of it. It restarts nothing: that is the planner's to order.

pub mod api;
mod models;
mod program;
mod template;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::event::{Event, Events, FallbackEvent};
use super::model::Digests;
use super::process::{self, Order, Running};
use crate::api::{Reason, Residency, RevisionId};
use crate::planner::{Failure, transient};
use api::{Ollama, OllamaError};
pub use models::{hand_over, pull_to_disk};
pub use program::find_program;

/// From the start of the process to its first answer.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// For the process to end by itself.
const GRACE: Duration = Duration::from_secs(6);
/// Unanswered questions in a row after which it is held to hang.
const PATIENCE: u32 = 3;

/// What the fallback is to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Whose model it is.
    pub revision: RevisionId,
    /// Its name in Ollama.
    pub name: String,
    /// The GGUF file to hand over; `None`: a model of Ollama's library.
    pub file: Option<PathBuf>,
    /// Context that the gateway will ask for, in tokens.
    pub context_tokens: u32,
    /// Threads it may keep busy. Both Ollama and the engine wait for their threads by spinning: where
    /// together they have more than there are processors, each burns the time the other needs, and
    /// both are slower by a factor of ten and more.
    pub threads: u32,
}

/// What the loop wants of the fallback now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The model, once one is there.
    pub model: Option<Model>,
    /// Whether to load it at once, or only when a request comes.
    pub load: bool,
}

/// What the loop tells the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give the memory back; with `Cold` end the process too.
    Park,
    /// Load the model again.
    Raise,
    /// End the process.
    Stop,
}

/// How to start an Ollama of our own.
#[derive(Debug)]
pub struct Start<'a> {
    /// The program.
    pub program: PathBuf,
    /// Folder for its models and keys.
    pub home: &'a Path,
    /// Port on loopback.
    pub port: u16,
    /// Where its output goes.
    pub log: PathBuf,
    /// How ready it is kept.
    pub residency: Residency,
    /// Requests at the same time.
    pub parallel: u32,
}

/// Starts the process, guarded as a tree: it starts runners of its own.
///
/// # Errors
/// What the operating system says.
pub fn start(start: Start<'_>) -> std::io::Result<Running> {
    let text = |value: String| OsString::from(value);
    let keep_alive = match start.residency {
        Residency::Warm => "-1",
        Residency::Standby | Residency::Cold => "5m",
    };
    process::start(Order {
        program: Some(start.program),
        arguments: vec!["serve".into()],
        environment: vec![
            ("OLLAMA_HOST", text(format!("127.0.0.1:{}", start.port))),
            ("OLLAMA_MODELS", start.home.join("models").into()),
            ("HOME", start.home.into()),
            ("OLLAMA_KEEP_ALIVE", text(keep_alive.to_owned())),
            ("OLLAMA_NUM_PARALLEL", text(start.parallel.to_string())),
            ("OLLAMA_MAX_LOADED_MODELS", text("1".to_owned())),
        ],
        stdin: None,
        log: start.log,
        tree: true,
    })
}

/// The task of a managed Ollama.
#[derive(Debug)]
pub struct Managed {
    /// Number of this start, for events.
    pub start: u64,
    /// Its API.
    pub ollama: Ollama,
    /// What is wanted of it.
    pub wanted: watch::Receiver<Wanted>,
    /// Digests of model files.
    pub digests: Digests,
    /// How ready it is kept.
    pub residency: Residency,
    /// How often it is asked whether it lives.
    pub interval: Duration,
    /// Where to report.
    pub events: Events,
}

/// Why the task's process is to end.
enum Told {
    Stop,
    Park,
}

impl Managed {
    /// Lives with the process until it is told to end it, or it fails.
    pub async fn live(self, mut running: Running, mut commands: UnboundedReceiver<Command>) {
        let log = running.log().to_owned();
        let result = tokio::select! {
            result = self.serve(&mut commands) => result,
            _ = running.wait() => Err(ended(&log)),
        };
        running.end(GRACE).await;
        self.say(match result {
            Ok(Told::Stop) => FallbackEvent::Gone,
            Ok(Told::Park) => FallbackEvent::Parked,
            Err(failure) => FallbackEvent::Failed(failure),
        });
    }

    fn say(&self, event: FallbackEvent) {
        // The loop only ends when everything does.
        let _ended = self.events.send(Event::Fallback(self.start, event));
    }

    async fn serve(&self, commands: &mut UnboundedReceiver<Command>) -> Result<Told, Failure> {
        let mut state = State::default();
        let mut changes = self.wanted.clone();
        loop {
            let wanted = changes.borrow_and_update().clone();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop) | None => return Ok(Told::Stop),
                    Some(Command::Park) if self.residency == Residency::Cold => return Ok(Told::Park),
                    Some(Command::Park) => self.park(&mut state).await?,
                    Some(Command::Raise) => {
                        state.parked = false;
                        state.serves = None;
                    }
                },
                result = changes.changed() => {
                    if result.is_err() {
                        return Ok(Told::Stop);
                    }
                }
                result = self.step(&mut state, wanted) => result?,
            }
        }
    }

    /// One thing at a time: come up, take the model, or look whether all is well. May be dropped at
    /// any point and called again.
    async fn step(&self, state: &mut State, wanted: Wanted) -> Result<(), Failure> {
        if !state.up {
            self.come_up().await?;
            state.up = true;
        }
        let Wanted { model, load } = wanted;
        match model {
            Some(model) if !state.parked && state.serves.as_ref() != Some(&model) => {
                self.take(&model, load)
                    .await
                    .map_err(|error| unavailable(&error))?;
                state.serves = Some(model);
                self.say(FallbackEvent::Ready);
                Ok(())
            }
            _ => {
                sleep(self.interval).await;
                self.look(state).await
            }
        }
    }

    async fn come_up(&self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            match self.ollama.version().await {
                Ok(version) => {
                    tracing::debug!(%version, "ollama is up");
                    return Ok(());
                }
                // Not listening yet.
                Err(OllamaError::Unreachable) if start.elapsed() < UP_WITHIN => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(unavailable(&error)),
            }
        }
    }

    /// Makes Ollama have the model and, if wanted, proves that it generates with it.
    async fn take(&self, model: &Model, load: bool) -> Result<(), OllamaError> {
        match &model.file {
            Some(file) => self.hand_over(model, file).await?,
            None => {
                if self.ollama.show(&model.name).await?.is_none() {
                    let mut progress =
                        |done, total| self.say(FallbackEvent::Progress { done, total });
                    self.ollama.pull(&model.name, &mut progress).await?;
                }
            }
        }
        if load {
            self.ollama.load(&model.name, model.context_tokens).await?;
        }
        Ok(())
    }

    async fn hand_over(&self, model: &Model, file: &Path) -> Result<(), OllamaError> {
        let (digests, path) = (self.digests.clone(), file.to_owned());
        let digest = tokio::task::spawn_blocking(move || digests.of(&path, &mut |_| true))
            .await
            .map_err(|error| OllamaError::File(std::io::Error::other(error)))?
            .map_err(OllamaError::File)?;
        hand_over(&self.ollama, &model.name, file, &digest, model.threads).await
    }

    async fn park(&self, state: &mut State) -> Result<(), Failure> {
        if let Some(model) = &state.serves {
            self.ollama
                .unload(&model.name)
                .await
                .map_err(|error| unavailable(&error))?;
        }
        state.parked = true;
        self.say(FallbackEvent::Parked);
        Ok(())
    }

    async fn look(&self, state: &mut State) -> Result<(), Failure> {
        match self.ollama.version().await {
            Ok(_) => state.missed = 0,
            Err(error) => {
                state.missed += 1;
                if state.missed >= PATIENCE {
                    return Err(unavailable(&error));
                }
            }
        }
        if state.parked
            && let Some(model) = &state.serves
            && self.ollama.is_loaded(&model.name).await.unwrap_or(false)
        {
            state.parked = false;
            self.say(FallbackEvent::Ready);
        }
        Ok(())
    }
}

/// What the task knows of its process.
#[derive(Default)]
struct State {
    up: bool,
    parked: bool,
    serves: Option<Model>,
    missed: u32,
}

/// Watches an Ollama that somebody else runs; ends never.
pub async fn watch_external(
    start: u64,
    ollama: Ollama,
    model: String,
    interval: Duration,
    events: Events,
) {
    let mut last: Option<Result<(), String>> = None;
    loop {
        let found = look_at_external(&ollama, &model).await;
        let summary = found
            .as_ref()
            .copied()
            .map_err(|failure| failure.message.clone());
        if last.as_ref() != Some(&summary) {
            last = Some(summary);
            let event = match found {
                Ok(()) => FallbackEvent::Ready,
                Err(failure) => FallbackEvent::Failed(failure),
            };
            let _ended = events.send(Event::Fallback(start, event));
        }
        sleep(interval).await;
    }
}

async fn look_at_external(ollama: &Ollama, model: &str) -> Result<(), Failure> {
    let origin = ollama.origin();
    let failed = |text: String| {
        transient(
            Reason::FallbackUnavailable,
            &format!("The Ollama at {origin}: {text}."),
        )
    };
    ollama
        .version()
        .await
        .map_err(|error| failed(error.to_string()))?;
    match ollama.show(model).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(failed(format!(
            "it does not have the model {model}; run `ollama pull {model}` there, or correct \
             spec.fallback.ollama.model"
        ))),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn unavailable(error: &OllamaError) -> Failure {
    transient(
        Reason::FallbackUnavailable,
        &format!("The managed Ollama cannot serve: {error}."),
    )
}

fn ended(log: &Path) -> Failure {
    let words = process::last_words(log).unwrap_or_else(|| "it said nothing".to_owned());
    transient(
        Reason::FallbackUnavailable,
        &format!("The managed Ollama ended: {words}."),
    )
}
