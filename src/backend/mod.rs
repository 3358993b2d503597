//! The narrow interface to a device that runs a model, and its implementations.
//!
//! A back end turns runs of tokens into logits. It decides nothing about requests: which tokens
//! run, in which slot and when, is the [`crate::scheduler`]'s; sampling is [`crate::text`]'s. It is
//! owned by one OS thread and never shared.

#[cfg(feature = "cpu")]
pub mod llama;
pub mod memory;
pub mod scripted;
pub mod tensorrt;

/// One token of the model's vocabulary.
pub type TokenId = u32;

/// A place in the KV cache that holds one sequence, `0..Capabilities::slots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// Which rows of logits a run wants back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// No row: a prefill chunk that is not the prompt's last.
    None,
    /// The row of the run's last token: the usual case.
    Last,
    /// Every row: prompt log-probabilities.
    All,
}

impl LogitsWanted {
    /// Whether the row of token `index` of `count` is wanted.
    pub const fn wants(self, index: usize, count: usize) -> bool {
        match self {
            Self::None => false,
            Self::Last => index + 1 == count,
            Self::All => true,
        }
    }
}

/// Consecutive tokens of one sequence, to be appended at `start` in its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The slot whose KV cache is extended.
    pub slot: SlotId,
    /// Position of the first token: the slot's length before this run.
    pub start: u32,
    /// The tokens, at least one.
    pub tokens: Vec<TokenId>,
    /// Rows wanted.
    pub logits: LogitsWanted,
}

/// What a loaded back end can do; constant for its lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Stable name for headers, logs and metrics: `Cpu`, `TensorRT`, `Scripted`.
    pub name: &'static str,
    /// Concurrent sequences.
    pub slots: u32,
    /// Tokens that fit into one slot, prompt and answer together.
    pub context_tokens: u32,
    /// Tokens of all runs together that one `forward` accepts.
    pub max_batch_tokens: u32,
    /// Prompts that one `forward` should take parts of: the device runs each more by itself, at the
    /// cost of a step.
    pub prompts_per_step: u32,
    /// Length of a row of logits.
    pub vocabulary: u32,
}

/// Why a device call failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The caller broke the contract of this trait (a bug in the scheduler): the request fails,
    /// the device is intact.
    #[error("rejected by the back end: {0}")]
    Rejected(String),
    /// The device or its library is in an unknown state: the process must exit, by design.
    #[error("the back end failed and the process must restart: {0}")]
    Fatal(String),
}

/// A device with one model loaded.
pub trait Backend {
    /// What was loaded.
    fn capabilities(&self) -> Capabilities;

    /// Runs all `runs` as one batch, at most one run per slot. For each wanted row, in order of
    /// runs and tokens, `row(run_index, token_index, logits)` is called; the slice is only valid
    /// during the call and has `Capabilities::vocabulary` entries.
    ///
    /// # Errors
    /// [`BackendError::Rejected`] changes no slot; after [`BackendError::Fatal`] the back end must
    /// not be used again.
    fn forward(
        &mut self,
        runs: &[Run],
        row: &mut dyn FnMut(usize, usize, &[f32]),
    ) -> Result<(), BackendError>;

    /// Forgets all tokens of `slot` from position `len` on.
    ///
    /// # Errors
    /// As [`Backend::forward`].
    fn truncate(&mut self, slot: SlotId, len: u32) -> Result<(), BackendError>;

    /// Makes the first `len` tokens of `to` equal to those of `from`, dropping what `to` held:
    /// how a prefix computed for one request serves another.
    ///
    /// # Errors
    /// As [`Backend::forward`].
    fn copy_prefix(&mut self, from: SlotId, to: SlotId, len: u32) -> Result<(), BackendError>;
}

/// Loads a back end on the thread that will own it and drives it there until `drive` returns.
/// Implementations may borrow from what they load, which is why the back end is lent, not given.
pub trait Loader: Send {
    /// Loads, then calls `drive` once.
    ///
    /// # Errors
    /// When loading fails; the message says what to do.
    fn run(self: Box<Self>, drive: &mut dyn FnMut(&mut dyn Backend)) -> Result<(), LoadError>;
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is missing, unreadable or not a model this back end can run.
    #[error("{0}")]
    Model(String),
    /// Weights or KV cache do not fit into memory.
    #[error("{0}")]
    Memory(String),
}
