//! A back end without a model: answers come from a script, and tests hold it, slow it down, break
//! it and look inside. It keeps the same books as a real device and refuses what one would refuse.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Backend, BackendError, Capabilities, LoadError, Loader, Run, SlotId, TokenId};

/// Gives the token that follows a sequence.
pub type Script = Arc<dyn Fn(&[TokenId]) -> TokenId + Send + Sync>;

/// The script that continues with `reply` and then `end`, wherever the sequence stands: the next
/// token is the one after the longest beginning of `reply` that the sequence ends with.
pub fn reply(reply: Vec<TokenId>, end: TokenId) -> Script {
    Arc::new(move |sequence| {
        let said = (0..=reply.len())
            .rev()
            .find(|n| sequence.ends_with(&reply[..*n]));
        reply.get(said.unwrap_or(0)).copied().unwrap_or(end)
    })
}

/// The script that picks its reply by what the sequence contains: the first pair whose first part
/// occurs in it (an empty one always does); `end` when none does.
pub fn replies(pairs: Vec<(Vec<TokenId>, Vec<TokenId>)>, end: TokenId) -> Script {
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|(needle, answer)| (needle, reply(answer, end)))
        .collect();
    Arc::new(move |sequence| {
        let occurs = |needle: &[TokenId]| {
            needle.is_empty()
                || sequence
                    .windows(needle.len())
                    .any(|window| window == needle)
        };
        pairs
            .iter()
            .find(|(needle, _)| occurs(needle))
            .map_or(end, |(_, script)| script(sequence))
    })
}

/// What goes wrong in a later call of `forward`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The whole batch is refused, once.
    RejectOnce,
    /// Every batch that extends this slot is refused.
    RejectSlot(SlotId),
    /// The device fails.
    Fatal,
    /// The device's library panics.
    Panic,
    /// The rows are not numbers, once.
    NotANumber,
}

#[derive(Debug, Default)]
struct Hold {
    /// Calls of `forward` that may still pass; `None`: all.
    passes: Option<u64>,
    /// Calls that have begun.
    begun: u64,
    /// Calls that ended well.
    done: u64,
    delay: Duration,
    fault: Option<Fault>,
    /// What each slot holds.
    slots: Vec<Vec<TokenId>>,
    /// Tokens of each run of each call that ended well.
    batches: Vec<Vec<usize>>,
}

/// Looks into a running scripted back end and steers it; clones steer the same one.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<(Mutex<Hold>, Condvar)>);

impl Control {
    /// How long anything is waited for before the test that forgot to open a gate fails.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the gate: the next calls wait.
    pub fn close(&self) {
        self.hold().passes = Some(0);
    }

    /// Lets `calls` calls through.
    pub fn pass(&self, calls: u64) {
        let mut hold = self.hold();
        hold.passes = Some(hold.passes.unwrap_or(0) + calls);
        self.0.1.notify_all();
    }

    /// Opens the gate for good.
    pub fn open(&self) {
        self.hold().passes = None;
        self.0.1.notify_all();
    }

    /// Every call takes at least this long.
    pub fn delay(&self, delay: Duration) {
        self.hold().delay = delay;
    }

    /// Breaks the next call.
    pub fn fault(&self, fault: Fault) {
        self.hold().fault = Some(fault);
    }

    /// Calls that have begun, the one held at the gate included.
    pub fn begun(&self) -> u64 {
        self.hold().begun
    }

    /// Calls that ended well.
    pub fn done(&self) -> u64 {
        self.hold().done
    }

    /// Waits until `calls` calls have begun; `false` when that takes more than half a minute.
    pub fn wait_begun(&self, calls: u64) -> bool {
        self.wait(|hold| hold.begun >= calls)
    }

    /// Waits until `calls` calls have ended well; `false` when that takes more than half a minute.
    pub fn wait_done(&self, calls: u64) -> bool {
        self.wait(|hold| hold.done >= calls)
    }

    /// The tokens in the KV cache of a slot.
    pub fn held(&self, slot: SlotId) -> Vec<TokenId> {
        self.hold()
            .slots
            .get(slot.0 as usize)
            .cloned()
            .unwrap_or_default()
    }

    /// The number of tokens of each run, call by call.
    pub fn batches(&self) -> Vec<Vec<usize>> {
        self.hold().batches.clone()
    }

    fn wait(&self, until: impl Fn(&Hold) -> bool) -> bool {
        let waited = self
            .0
            .1
            .wait_timeout_while(self.hold(), Self::PATIENCE, |hold| !until(hold));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Stands at the gate; returns what shall go wrong.
    fn enter(&self, runs: &[Run]) -> Result<Option<Fault>, BackendError> {
        self.hold().begun += 1;
        self.0.1.notify_all();
        if !self.wait(|hold| hold.passes != Some(0)) {
            return Err(BackendError::Fatal("the test never opened the gate".into()));
        }
        let mut hold = self.hold();
        hold.passes = hold.passes.map(|passes| passes - 1);
        let stays = match &hold.fault {
            Some(Fault::RejectSlot(slot)) if runs.iter().any(|run| run.slot == *slot) => true,
            Some(Fault::RejectSlot(_)) => return Ok(None),
            _ => false,
        };
        let fault = if stays {
            hold.fault.clone()
        } else {
            hold.fault.take()
        };
        let delay = hold.delay;
        drop(hold);
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        Ok(fault)
    }
}

/// Loads a scripted back end.
pub struct ScriptedLoader {
    /// What it claims to be able to do.
    pub capabilities: Capabilities,
    /// What it says.
    pub script: Script,
    /// How it is steered.
    pub control: Control,
    /// Loading fails with this.
    pub failure: Option<LoadError>,
}

impl ScriptedLoader {
    /// One with the given script and a vocabulary of `vocabulary` tokens: four slots of 2,048
    /// tokens, batches of 256.
    pub fn new(script: Script, vocabulary: u32) -> Self {
        let capabilities = Capabilities {
            name: "Scripted",
            slots: 4,
            context_tokens: 2_048,
            max_batch_tokens: 256,
            prompts_per_step: u32::MAX,
            vocabulary,
        };
        Self {
            capabilities,
            script,
            control: Control::default(),
            failure: None,
        }
    }

    /// With this many slots.
    #[must_use]
    pub const fn slots(mut self, slots: u32) -> Self {
        self.capabilities.slots = slots;
        self
    }
}

impl Loader for ScriptedLoader {
    fn run(self: Box<Self>, drive: &mut dyn FnMut(&mut dyn Backend)) -> Result<(), LoadError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.control.hold().slots = vec![Vec::new(); self.capabilities.slots as usize];
        let row = vec![0.0; self.capabilities.vocabulary as usize];
        let Self {
            capabilities,
            script,
            control,
            ..
        } = *self;
        drive(&mut ScriptedBackend {
            capabilities,
            script,
            control,
            row,
        });
        Ok(())
    }
}

/// See the module.
struct ScriptedBackend {
    capabilities: Capabilities,
    script: Script,
    control: Control,
    row: Vec<f32>,
}

impl ScriptedBackend {
    /// What a real device would refuse.
    fn check(&self, runs: &[Run]) -> Result<(), BackendError> {
        let total: usize = runs.iter().map(|run| run.tokens.len()).sum();
        let reject = |what: String| Err(BackendError::Rejected(what));
        if total > self.capabilities.max_batch_tokens as usize {
            return reject(format!("a batch of {total} tokens"));
        }
        let hold = self.control.hold();
        for (i, run) in runs.iter().enumerate() {
            let Some(slot) = hold.slots.get(run.slot.0 as usize) else {
                return reject(format!("no slot {}", run.slot.0));
            };
            if slot.len() != run.start as usize || run.tokens.is_empty() {
                return reject(format!(
                    "{} tokens at {}, not {}",
                    run.tokens.len(),
                    run.start,
                    slot.len()
                ));
            }
            if slot.len() + run.tokens.len() > self.capabilities.context_tokens as usize {
                return reject(format!("slot {} overflows", run.slot.0));
            }
            if runs[..i].iter().any(|other| other.slot == run.slot) {
                return reject(format!("two runs in slot {}", run.slot.0));
            }
        }
        Ok(())
    }

    /// The scripted token is all but certain; the others follow in the order of their ids, so that
    /// alternatives are the same everywhere.
    fn logits(&mut self, next: TokenId) {
        for (id, logit) in self.row.iter_mut().enumerate() {
            // Precision is of no matter here.
            #[allow(clippy::cast_precision_loss)]
            let rank = id as f32;
            *logit = -rank / 1_000.0;
        }
        if let Some(logit) = self.row.get_mut(next as usize) {
            *logit = 30.0;
        }
    }
}

impl Backend for ScriptedBackend {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn forward(
        &mut self,
        runs: &[Run],
        row: &mut dyn FnMut(usize, usize, &[f32]),
    ) -> Result<(), BackendError> {
        let fault = self.control.enter(runs)?;
        self.check(runs)?;
        match fault {
            Some(Fault::RejectOnce | Fault::RejectSlot(_)) => {
                return Err(BackendError::Rejected("told to".into()));
            }
            Some(Fault::Fatal) => return Err(BackendError::Fatal("told to".into())),
            #[allow(clippy::panic)] // What a panicking device library looks like.
            Some(Fault::Panic) => panic!("told to"),
            Some(Fault::NotANumber) | None => {}
        }
        for (i, run) in runs.iter().enumerate() {
            for (j, token) in run.tokens.iter().enumerate() {
                let next = {
                    let mut hold = self.control.hold();
                    let slot = &mut hold.slots[run.slot.0 as usize];
                    slot.push(*token);
                    run.logits
                        .wants(j, run.tokens.len())
                        .then(|| (self.script)(slot))
                };
                let Some(next) = next else { continue };
                self.logits(next);
                if fault == Some(Fault::NotANumber) {
                    self.row.fill(f32::NAN);
                }
                row(i, j, &self.row);
            }
        }
        let mut hold = self.control.hold();
        hold.done += 1;
        hold.batches
            .push(runs.iter().map(|run| run.tokens.len()).collect());
        drop(hold);
        self.control.0.1.notify_all();
        Ok(())
    }

    fn truncate(&mut self, slot: SlotId, len: u32) -> Result<(), BackendError> {
        let mut hold = self.control.hold();
        let Some(tokens) = hold.slots.get_mut(slot.0 as usize) else {
            return Err(BackendError::Rejected(format!("no slot {}", slot.0)));
        };
        tokens.truncate(len as usize);
        Ok(())
    }

    fn copy_prefix(&mut self, from: SlotId, to: SlotId, len: u32) -> Result<(), BackendError> {
        let mut hold = self.control.hold();
        let source = hold
            .slots
            .get(from.0 as usize)
            .and_then(|held| held.get(..len as usize));
        let Some(prefix) = source.map(<[TokenId]>::to_vec) else {
            return Err(BackendError::Rejected(format!(
                "slot {} is shorter than {len}",
                from.0
            )));
        };
        let target = hold.slots.get_mut(to.0 as usize);
        *target.ok_or_else(|| BackendError::Rejected(format!("no slot {}", to.0)))? = prefix;
        Ok(())
    }
}
