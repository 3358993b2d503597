//! The engine thread: the only bridge between async handlers and the blocking device.
//!
//! One OS thread owns the [`Backend`] and drives the
//! [`Scheduler`](crate::scheduler::Scheduler). It blocks when there is nothing to do, looks for
//! new and cancelled requests before every step, and turns logits into text. It knows no HTTP; when
//! it ends, every waiting stream is told why.

mod answer;
mod engine;
mod handle;
mod observer;
mod pace;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

pub use handle::{EngineHandle, EngineState, EngineStats, GenerationStream};
pub use observer::{EngineObserver, Outcome, StepReport};

use engine::Engine;
use handle::{Command, Shared};

use super::generation::GenerationError;
use crate::backend::{Backend, LoadError, Loader};
use crate::scheduler::admission::{Admission, QueueLimits};
use crate::text::TextModel;

/// How much of a prompt one step may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PrefillPolicy {
    /// As much as keeps a step within `stall_factor` times a plain decode step while answers are
    /// being streamed (measured as it goes), and full batches when none is.
    Adaptive {
        /// Longest step in multiples of a plain decode step; at least 1.
        stall_factor: f32,
    },
    /// Always at most this many tokens while answers are being streamed.
    Fixed(u32),
    /// Full batches always: running answers stall (for comparison).
    Whole,
}

impl Default for PrefillPolicy {
    fn default() -> Self {
        Self::Adaptive { stall_factor: 6.0 }
    }
}

impl FromStr for PrefillPolicy {
    type Err = String;

    /// `adaptive`, `whole`, or a number of tokens.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "adaptive" => Ok(Self::default()),
            "whole" => Ok(Self::Whole),
            number => match number.parse() {
                Ok(tokens) if tokens > 0 => Ok(Self::Fixed(tokens)),
                _ => Err("must be `adaptive`, `whole` or a number of tokens".to_owned()),
            },
        }
    }
}

/// What an operator can set about the engine thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineConfig {
    /// Requests that may wait for a slot.
    pub queue: u32,
    /// Prompt tokens that may wait for a slot, all waiting requests together. One request is
    /// always let in, however long.
    pub queue_tokens: u64,
    /// How prompts are cut.
    pub prefill: PrefillPolicy,
    /// Longest step while no answer is being streamed: bounds how late a new request is seen and a
    /// cancelled one frees its slot. [`PrefillPolicy::Whole`] ignores it.
    pub longest_step: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            queue: 64,
            queue_tokens: 1 << 18,
            prefill: PrefillPolicy::default(),
            longest_step: Duration::from_millis(250),
        }
    }
}

/// Starts the engine thread, waits until the model is loaded, and returns the handle. Blocks: call
/// it outside of async code.
///
/// # Errors
/// [`LoadError`] when the model cannot be loaded; the thread is gone then.
pub fn spawn(
    loader: Box<dyn Loader>,
    text: Arc<TextModel>,
    config: EngineConfig,
    observer: Arc<dyn EngineObserver>,
) -> Result<EngineHandle, LoadError> {
    let (sender, commands) = mpsc::channel();
    let (outcome, ready) = mpsc::channel();
    let thread = Thread {
        text,
        config,
        observer,
        commands: Some(commands),
        loaded: outcome,
        shared: None,
    };
    std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || thread.main(loader))
        .map_err(|error| LoadError::Memory(format!("cannot start the engine thread: {error}")))?;
    match ready.recv() {
        Ok(shared) => Ok(EngineHandle::new(shared?, sender)),
        Err(_) => Err(LoadError::Model(
            "the engine thread ended while loading the model".into(),
        )),
    }
}

/// What the engine thread starts with.
struct Thread {
    text: Arc<TextModel>,
    config: EngineConfig,
    observer: Arc<dyn EngineObserver>,
    commands: Option<mpsc::Receiver<Command>>,
    loaded: mpsc::Sender<Result<Arc<Shared>, LoadError>>,
    /// Set once the model is loaded.
    shared: Option<Arc<Shared>>,
}

impl Thread {
    fn main(mut self, loader: Box<dyn Loader>) {
        let outcome = loader.run(&mut |backend| self.drive(backend));
        match (self.shared, outcome) {
            // The model is unloaded: now the process may exit.
            (Some(shared), Ok(())) => {
                shared.state.send_if_modified(|state| {
                    let orderly = !matches!(state, EngineState::Failed(_));
                    if orderly {
                        *state = EngineState::Stopped;
                    }
                    orderly
                });
            }
            (Some(shared), Err(error)) => {
                shared
                    .state
                    .send_replace(EngineState::Failed(error.to_string()));
            }
            (None, outcome) => {
                let error = outcome.err().unwrap_or_else(|| {
                    LoadError::Model("the loader ended without loading a model".into())
                });
                let _ = self.loaded.send(Err(error));
            }
        }
    }

    fn drive(&mut self, backend: &mut dyn Backend) {
        // `None`: driven a second time, against the loader's contract.
        let Some(commands) = self.commands.take() else {
            return;
        };
        let capabilities = backend.capabilities();
        let limits = QueueLimits {
            slots: capabilities.slots,
            requests: self.config.queue,
            tokens: self.config.queue_tokens,
        };
        let shared = Arc::new(Shared::new(capabilities, Admission::new(limits)));
        self.shared = Some(Arc::clone(&shared));
        let (text, observer) = (Arc::clone(&self.text), Arc::clone(&self.observer));
        let mut engine = Engine::new(Arc::clone(&shared), commands, text, &self.config, observer);
        if self.loaded.send(Ok(Arc::clone(&shared))).is_err() {
            return;
        }
        let reason = match catch_unwind(AssertUnwindSafe(|| engine.run(backend))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("the engine thread panicked: {}", message(&*panic)),
        };
        tracing::error!(reason, "the engine failed");
        // First the state, so that whoever hears of a failed request finds the engine gone.
        shared
            .state
            .send_replace(EngineState::Failed(reason.clone()));
        engine.fail_all(&GenerationError::Engine(reason));
    }
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
