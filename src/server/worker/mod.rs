//! The engine thread: the only bridge between async handlers and the blocking device.
//!
//! One OS thread owns the [`Backend`](crate::backend::Backend) and drives the
//! [`Scheduler`](crate::scheduler::Scheduler). It blocks when there is nothing to do, looks for
//! new and cancelled requests before every step, and turns logits into text. It knows no HTTP; when
//! it ends, every waiting stream is told why.

mod handle;
mod observer;

use std::sync::Arc;

pub use handle::{EngineHandle, EngineState, EngineStats, GenerationStream};
pub use observer::{EngineObserver, Outcome, StepReport};

use crate::backend::{LoadError, Loader};
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
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            queue: 64,
            queue_tokens: 1 << 18,
            prefill: PrefillPolicy::Adaptive { stall_factor: 6.0 },
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
    let _ = (loader, text, config, observer);
    Err(LoadError::Model(
        "the engine thread is not there yet".into(),
    ))
}
