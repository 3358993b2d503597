//! The CPU back end: llama.cpp, through the crate `llama-cpp-2`. It translates between the
//! [`Backend`] trait and llama.cpp's batches, and refuses before llama.cpp would end the process:
//! hostile files, contexts without memory, batches that break its rules.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::OnceLock;

use llama_cpp_2::DecodeError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

use super::memory::{self, Need};
use super::{Backend, BackendError, Capabilities, LoadError, Loader, Run, SlotId};
use crate::model::gguf::GgufFile;
use crate::model::{self, ModelFacts};

/// Context per slot where neither the user nor the model says less.
const DEFAULT_CONTEXT: u32 = 4_096;
/// llama.cpp rounds contexts up to this.
const CONTEXT_UNIT: u32 = 256;
/// llama.cpp's own bound on sequences.
const MAX_SLOTS: u32 = 256;
/// llama.cpp's flash attention, switched off: on CPUs it is slower (a third fewer tokens per second
/// at 1,000 tokens of context) and rounds differently for chunks of different length, so that the
/// same request would not give the same text under load.
const NO_FLASH_ATTENTION: i32 = 0;

/// What an operator can set about the CPU back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LlamaConfig {
    /// The GGUF file.
    pub model: PathBuf,
    /// Concurrent sequences, 1 to 256.
    pub slots: u32,
    /// Tokens per slot, prompt and answer together; `None`: what the model was trained with, at
    /// most 4,096.
    pub context_tokens: Option<u32>,
    /// Threads of a step; `None`: one per physical core.
    pub threads: Option<u32>,
    /// Tokens of a step; raised to 64 and to twice the slots where it is less.
    pub max_batch_tokens: u32,
}

impl LlamaConfig {
    /// The defaults for a model: four slots, steps of up to 256 tokens.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            slots: 4,
            context_tokens: None,
            threads: None,
            max_batch_tokens: 256,
        }
    }
}

/// Loads a GGUF file into llama.cpp.
#[derive(Clone, Debug)]
pub struct LlamaLoader {
    config: LlamaConfig,
}

impl LlamaLoader {
    /// A loader for the given configuration; nothing is read yet.
    pub fn new(mut config: LlamaConfig) -> Self {
        let least = config.slots.saturating_mul(2).max(64);
        config.max_batch_tokens = config.max_batch_tokens.max(least);
        Self { config }
    }

    /// Checks the file and the memory; says how large a slot will be and what all needs.
    fn size(&self) -> Result<(ModelFacts, Need), LoadError> {
        let LlamaConfig {
            model,
            slots,
            context_tokens,
            ..
        } = &self.config;
        let named = |error: &dyn std::fmt::Display| {
            LoadError::Model(format!("{}: {error}", model.display()))
        };
        if !(1..=MAX_SLOTS).contains(slots) {
            return Err(named(&format!(
                "{slots} slots asked for; 1 to {MAX_SLOTS} are possible"
            )));
        }
        let file = GgufFile::open(model).map_err(|error| named(&error))?;
        let facts = model::check(&file).map_err(|error| named(&error))?;
        let context = context_tokens.unwrap_or_else(|| facts.context.min(DEFAULT_CONTEXT));
        if context > facts.context || context == 0 {
            return Err(named(&format!(
                "a context of {context} tokens was asked for; the model was trained with {}",
                facts.context
            )));
        }
        let context = context.next_multiple_of(CONTEXT_UNIT);
        let tokens = u64::from(*slots) * u64::from(context);
        let need = Need {
            weights: facts.file_bytes(),
            kv_cache: facts.kv_bytes_per_token().saturating_mul(tokens),
            slots: *slots,
            context_tokens: context,
            compute: self.compute_bytes(&facts, context),
        };
        if let Some(available) = memory::available() {
            need.check(available).map_err(LoadError::Memory)?;
        }
        Ok((facts, need))
    }

    /// An upper bound of llama.cpp's buffers for one batch: logits, the widest activations several
    /// times over, attention scores of all heads, and the mask.
    fn compute_bytes(&self, facts: &ModelFacts, context: u32) -> u64 {
        let widest = u64::from(facts.feed_forward.max(facts.hidden)) * 6;
        let attention = u64::from(context) * (u64::from(facts.heads) + 2);
        let per_token = (u64::from(facts.vocabulary) + widest + attention) * 4;
        u64::from(self.config.max_batch_tokens).saturating_mul(per_token)
    }

    fn context_params(&self, context_tokens: u32) -> LlamaContextParams {
        let LlamaConfig {
            slots,
            threads,
            max_batch_tokens,
            ..
        } = self.config;
        let threads = memory::threads(threads);
        let threads = i32::try_from(threads).unwrap_or(i32::MAX);
        LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(context_tokens.saturating_mul(slots)))
            .with_n_seq_max(slots)
            .with_n_batch(max_batch_tokens)
            .with_n_ubatch(max_batch_tokens)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            // A stream per slot: idle slots that keep their prefix cost the others nothing (unified,
            // three idle slots of 1,000 tokens cost a fifth of the decode rate).
            .with_kv_unified(false)
            .with_flash_attention_policy(NO_FLASH_ATTENTION)
            .with_no_perf(true)
    }
}

impl Loader for LlamaLoader {
    fn run(self: Box<Self>, drive: &mut dyn FnMut(&mut dyn Backend)) -> Result<(), LoadError> {
        let (facts, need) = self.size()?;
        let path = self.config.model.display();
        let library = library()?;
        let model =
            LlamaModel::load_from_file(library, &self.config.model, &LlamaModelParams::default())
                .map_err(|error| {
                LoadError::Model(format!(
                    "{path}: llama.cpp cannot load it ({error}); its log says why"
                ))
            })?;
        let context = model
            .new_context(library, self.context_params(need.context_tokens))
            .map_err(|error| {
                LoadError::Memory(format!(
                    "{path}: llama.cpp cannot create a context of {} slots × {} tokens, {} MiB \
                     ({error})",
                    need.slots,
                    need.context_tokens,
                    need.kv_cache >> 20
                ))
            })?;
        let capabilities = Capabilities {
            name: "Cpu",
            slots: need.slots,
            context_tokens: need.context_tokens.min(facts.context),
            max_batch_tokens: self.config.max_batch_tokens,
            prompts_per_step: u32::MAX,
            vocabulary: u32::try_from(model.n_vocab()).unwrap_or(0),
        };
        tracing::info!(
            model = %path,
            slots = need.slots,
            context_tokens = capabilities.context_tokens,
            kv_cache_mib = need.kv_cache >> 20,
            "model loaded"
        );
        drive(&mut LlamaCpu::new(context, capabilities));
        Ok(())
    }
}

/// llama.cpp's process-wide state: initialised once, never torn down, because contexts of other
/// threads may use it. Its log goes to tracing.
///
/// # Errors
/// When something else in the process has initialised it.
pub fn library() -> Result<&'static LlamaBackend, LoadError> {
    static LIBRARY: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().map_err(|error| error.to_string())
    });
    library
        .as_ref()
        .map_err(|error| LoadError::Model(format!("llama.cpp: {error}")))
}

/// A context of llama.cpp with one sequence per slot.
struct LlamaCpu<'model> {
    context: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
    capabilities: Capabilities,
    /// Tokens in each slot, to refuse what llama.cpp would refuse, with a reason.
    lengths: Vec<u32>,
}

impl<'model> LlamaCpu<'model> {
    fn new(context: LlamaContext<'model>, capabilities: Capabilities) -> Self {
        let tokens = capabilities.max_batch_tokens as usize;
        Self {
            context,
            batch: LlamaBatch::new(tokens, 1),
            lengths: vec![0; capabilities.slots as usize],
            capabilities,
        }
    }

    fn length(&self, slot: SlotId) -> Result<u32, BackendError> {
        let length = self.lengths.get(slot.0 as usize).copied();
        length.ok_or_else(|| BackendError::Rejected(format!("there is no slot {}", slot.0)))
    }

    /// llama.cpp asserts some of this, which would end the process.
    fn check(&self, runs: &[Run]) -> Result<(), BackendError> {
        let total: usize = runs.iter().map(|run| run.tokens.len()).sum();
        let limit = self.capabilities.max_batch_tokens;
        let refuse = |reason: String| Err(BackendError::Rejected(reason));
        if total == 0 || total > limit as usize {
            return refuse(format!(
                "a batch of {total} tokens; 1 to {limit} are possible"
            ));
        }
        for (i, run) in runs.iter().enumerate() {
            let length = self.length(run.slot)?;
            let slot = run.slot.0;
            if run.start != length || run.tokens.is_empty() {
                let tokens = run.tokens.len();
                return refuse(format!(
                    "{tokens} tokens at {} of slot {slot}, which holds {length}",
                    run.start
                ));
            }
            let room = self.capabilities.context_tokens.saturating_sub(length) as usize;
            if run.tokens.len() > room {
                return refuse(format!(
                    "{} tokens for slot {slot}, which has room for {room}",
                    run.tokens.len()
                ));
            }
            if runs[..i].iter().any(|other| other.slot == run.slot) {
                return refuse(format!("two runs for slot {slot}"));
            }
            if let Some(token) = run
                .tokens
                .iter()
                .find(|id| **id >= self.capabilities.vocabulary)
            {
                return refuse(format!("token {token} is not in the vocabulary"));
            }
        }
        Ok(())
    }

    /// Computes some of the runs with one call and hands out their rows.
    ///
    /// llama.cpp takes neighbours together and starts anew at every step back or gap in the
    /// sequences, so they go in ascending order.
    fn decode(
        &mut self,
        runs: &[(usize, &Run)],
        row: &mut dyn FnMut(usize, usize, &[f32]),
    ) -> Result<(), BackendError> {
        let mut rows = Vec::new();
        self.batch.clear();
        for (i, run) in runs {
            let sequence = [signed(run.slot.0)?];
            for (j, (token, position)) in run.tokens.iter().zip(run.start..).enumerate() {
                let wanted = run.logits.wants(j, run.tokens.len());
                if wanted {
                    rows.push((*i, j, self.batch.n_tokens()));
                }
                self.batch
                    .add(
                        LlamaToken(signed(*token)?),
                        signed(position)?,
                        &sequence,
                        wanted,
                    )
                    .map_err(|error| BackendError::Rejected(error.to_string()))?;
            }
        }
        match self.context.decode(&mut self.batch) {
            Ok(()) => {}
            // Both are decided before anything is computed.
            Err(error @ (DecodeError::NoKvCacheSlot | DecodeError::NTokensZero)) => {
                return Err(BackendError::Rejected(error.to_string()));
            }
            Err(error) => return Err(BackendError::Fatal(error.to_string())),
        }
        for (_, run) in runs {
            self.lengths[run.slot.0 as usize] = run.start + length(&run.tokens);
        }
        for (i, j, index) in rows {
            row(i, j, self.context.get_logits_ith(index));
        }
        Ok(())
    }

    fn keep(&mut self, slot: SlotId, len: u32) -> Result<(), BackendError> {
        let removed = self
            .context
            .clear_kv_cache_seq(Some(slot.0), Some(len), None);
        match removed {
            Ok(true) => Ok(()),
            Ok(false) => Err(BackendError::Fatal(
                "llama.cpp cannot cut this model's cache".into(),
            )),
            Err(error) => Err(BackendError::Fatal(error.to_string())),
        }
    }
}

impl Backend for LlamaCpu<'_> {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn forward(
        &mut self,
        runs: &[Run],
        row: &mut dyn FnMut(usize, usize, &[f32]),
    ) -> Result<(), BackendError> {
        self.check(runs)?;
        // One call for all that go on by one token, and one for each longer run: llama.cpp would
        // otherwise cut the longer ones at the length of the shorter, and a token computed alone
        // is rounded differently from one in a chunk. So what a run gives does not depend on what
        // runs beside it.
        let (mut singles, longer): (Vec<_>, Vec<_>) = runs
            .iter()
            .enumerate()
            .partition(|(_, run)| run.tokens.len() == 1);
        singles.sort_unstable_by_key(|(_, run)| run.slot);
        let singles = (!singles.is_empty()).then_some(singles);
        let groups = singles
            .into_iter()
            .chain(longer.into_iter().map(|run| vec![run]));
        for (i, group) in groups.enumerate() {
            match self.decode(&group, row) {
                // Rows of the groups before were handed out: too late to take it back.
                Err(BackendError::Rejected(reason)) if i > 0 => {
                    return Err(BackendError::Fatal(reason));
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn truncate(&mut self, slot: SlotId, len: u32) -> Result<(), BackendError> {
        let kept = self.length(slot)?.min(len);
        self.keep(slot, kept)?;
        self.lengths[slot.0 as usize] = kept;
        Ok(())
    }

    fn copy_prefix(&mut self, from: SlotId, to: SlotId, len: u32) -> Result<(), BackendError> {
        self.length(to)?;
        if from == to || self.length(from)? < len {
            return Err(BackendError::Rejected(format!(
                "cannot copy {len} tokens from slot {} to slot {}",
                from.0, to.0
            )));
        }
        self.keep(to, 0)?;
        // Streams can only be copied whole; what is too much is cut off again.
        self.context
            .copy_kv_cache_seq(signed(from.0)?, signed(to.0)?, None, None)
            .map_err(|error| BackendError::Fatal(error.to_string()))?;
        self.keep(to, len)?;
        self.lengths[to.0 as usize] = len;
        Ok(())
    }
}

fn signed(number: u32) -> Result<i32, BackendError> {
    i32::try_from(number).map_err(|_| BackendError::Rejected(format!("{number} is too large")))
}

/// Bounded by the batch, which is a `u32`.
fn length(tokens: &[super::TokenId]) -> u32 {
    u32::try_from(tokens.len()).unwrap_or(u32::MAX)
}
