//! The loop of the engine thread: commands, cancellations, one step, verdicts, again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use super::super::generation::{FinishReason, GenerationError, GenerationEvent};
use super::EngineConfig;
use super::answer::{Answer, Verdict};
use super::handle::{Command, Shared, Submission};
use super::observer::{EngineObserver, StepReport};
use super::pace::Pace;
use crate::backend::{Backend, BackendError, Run};
use crate::scheduler::{CacheOp, Limits, RequestId, Scheduler, Step};
use crate::text::TextModel;

/// Everything the thread works on but the device.
pub(super) struct Engine {
    scheduler: Scheduler,
    pace: Pace,
    /// Waiting and running, in the order they came.
    answers: BTreeMap<RequestId, Answer>,
    next_id: u64,
    commands: mpsc::Receiver<Command>,
    /// Set once a drain was asked for: when the rest is failed.
    deadline: Option<Instant>,
    shared: Arc<Shared>,
    text: Arc<TextModel>,
    observer: Arc<dyn EngineObserver>,
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        text: Arc<TextModel>,
        config: &EngineConfig,
        observer: Arc<dyn EngineObserver>,
    ) -> Self {
        let limits = Limits {
            slots: shared.capabilities.slots,
            context_tokens: shared.capabilities.context_tokens,
            max_batch_tokens: shared.capabilities.max_batch_tokens,
            prompts_per_step: shared.capabilities.prompts_per_step,
        };
        Self {
            scheduler: Scheduler::new(limits),
            pace: Pace::new(config.prefill, config.longest_step),
            answers: BTreeMap::new(),
            next_id: 0,
            commands,
            deadline: None,
            shared,
            text,
            observer,
        }
    }

    /// Works until drained, until no handle is left, or until the device fails.
    pub(super) fn run(&mut self, backend: &mut dyn Backend) -> Result<(), BackendError> {
        while self.take_commands() {
            self.drop_cancelled();
            if self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                self.fail_all(&GenerationError::ShuttingDown);
            }
            if !self.scheduler.is_idle() {
                self.step(backend)?;
            }
        }
        Ok(())
    }

    /// Takes what has arrived; waits for it when there is nothing else to do. Returns whether to
    /// go on.
    fn take_commands(&mut self) -> bool {
        if self.scheduler.is_idle() {
            if self.deadline.is_some() {
                return false;
            }
            let Ok(command) = self.commands.recv() else {
                return false;
            };
            self.obey(command);
        }
        // Disconnected: nobody can submit, but there may be answers to finish.
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => self.accept(*submission),
            Command::Drain(deadline) => {
                let earlier = self.deadline.map_or(deadline, |old| old.min(deadline));
                self.deadline = Some(earlier);
            }
        }
    }

    fn accept(&mut self, submission: Submission) {
        let reproducible = submission.request.reproducible;
        let waiting_tokens = submission.request.prompt.len() as u64;
        let vocabulary = self.shared.capabilities.vocabulary;
        let foreign = submission
            .request
            .prompt
            .iter()
            .copied()
            .find(|id| *id >= vocabulary);
        let (text, observer) = (Arc::clone(&self.text), Arc::clone(&self.observer));
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let refused = match Answer::new(submission, text, observer) {
            Err((events, error)) => {
                let _ = events.send(GenerationEvent::Failed(error));
                self.shared.admission().leave_waiting(waiting_tokens);
                return;
            }
            // A device that checks less than it should must not see such a token.
            Ok((answer, _)) if foreign.is_some() => Some((
                answer,
                format!(
                    "token {} is not in the vocabulary",
                    foreign.unwrap_or_default()
                ),
            )),
            Ok((answer, prompt)) => match self.scheduler.enqueue(id, prompt, reproducible) {
                Ok(()) => {
                    self.answers.insert(id, answer);
                    None
                }
                Err(error) => Some((answer, error.to_string())),
            },
        };
        if let Some((answer, reason)) = refused {
            self.shared.admission().leave_waiting(waiting_tokens);
            answer.fail(GenerationError::Request(reason));
        }
    }

    /// Frees what nobody waits for any more.
    fn drop_cancelled(&mut self) {
        let gone = self
            .answers
            .iter()
            .filter(|(_, answer)| answer.is_cancelled());
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.scheduler.finish(id);
            if let Some(answer) = self.take(id) {
                answer.cancel();
            }
        }
    }

    fn step(&mut self, backend: &mut dyn Backend) -> Result<(), BackendError> {
        let step = self
            .scheduler
            .step(self.pace.budget(self.scheduler.is_decoding()));
        for admitted in &step.admitted {
            if let Some(answer) = self.answers.get_mut(&admitted.request) {
                self.shared
                    .admission()
                    .start(u64::from(answer.prompt_tokens()));
                answer.start(admitted);
            }
        }
        let began = Instant::now();
        self.shared.step_begins();
        for op in &step.ops {
            // The scheduler relies on it: a refusal leaves no way to go on.
            apply(backend, *op).map_err(|error| BackendError::Fatal(error.to_string()))?;
        }
        let outcome = self.forward(backend, &step.runs, &step.requests);
        if let Err(BackendError::Rejected(reason)) = outcome {
            self.isolate(backend, &step, &reason)?;
        } else {
            outcome?;
        }
        self.shared.step_ends();
        let duration = began.elapsed();
        self.pace
            .learn(duration, step.prefill_tokens, step.decoding);
        self.observer.step(StepReport {
            duration,
            prefill_tokens: step.prefill_tokens,
            decode_tokens: step.decoding,
            slots_busy: self.scheduler.busy(),
            waiting: self.scheduler.waiting(),
        });
        Ok(())
    }

    /// Runs one batch, draws a token from each row, and carries out what follows.
    fn forward(
        &mut self,
        backend: &mut dyn Backend,
        runs: &[Run],
        requests: &[RequestId],
    ) -> Result<(), BackendError> {
        let mut verdicts = Vec::with_capacity(runs.len());
        let answers = &mut self.answers;
        backend.forward(runs, &mut |run, _, logits| {
            let Some(id) = requests.get(run) else { return };
            if let Some(answer) = answers.get_mut(id) {
                verdicts.push((*id, judge(answer, logits)));
            }
        })?;
        for run in runs {
            self.scheduler.ran(run);
        }
        for (id, verdict) in verdicts {
            self.carry_out(id, verdict);
        }
        Ok(())
    }

    /// A batch was refused as a whole: run by run, only the one at fault fails.
    fn isolate(
        &mut self,
        backend: &mut dyn Backend,
        step: &Step,
        reason: &str,
    ) -> Result<(), BackendError> {
        tracing::warn!(
            reason,
            runs = step.runs.len(),
            "the back end rejected a batch"
        );
        for (run, request) in step.runs.iter().zip(&step.requests) {
            let (run, request) = (std::slice::from_ref(run), std::slice::from_ref(request));
            match self.forward(backend, run, request) {
                Err(BackendError::Rejected(reason)) => {
                    self.fail(request[0], GenerationError::Request(reason));
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, id: RequestId, verdict: Verdict) {
        match verdict {
            Verdict::Continue(token) => {
                if !self.scheduler.append(id, token) {
                    self.finish(id, FinishReason::Length);
                }
            }
            Verdict::Finished(reason) => self.finish(id, reason),
            Verdict::Failed(error) => self.fail(id, error),
        }
    }

    fn finish(&mut self, id: RequestId, reason: FinishReason) {
        self.scheduler.finish(id);
        if let Some(answer) = self.take(id) {
            answer.finish(reason);
        }
    }

    /// What a failed request left in its slot is not trusted for others.
    fn fail(&mut self, id: RequestId, error: GenerationError) {
        self.scheduler.forget(id);
        if let Some(answer) = self.take(id) {
            tracing::warn!(%error, "request failed");
            answer.fail(error);
        }
    }

    /// Ends everything that waits or runs.
    pub(super) fn fail_all(&mut self, error: &GenerationError) {
        while let Some((&id, _)) = self.answers.first_key_value() {
            self.scheduler.finish(id);
            if let Some(answer) = self.take(id) {
                answer.fail(error.clone());
            }
        }
    }

    /// Takes an answer out of the books.
    fn take(&mut self, id: RequestId) -> Option<Answer> {
        let answer = self.answers.remove(&id)?;
        let mut admission = self.shared.admission();
        if answer.is_running() {
            admission.leave_running(answer.held_slot());
        } else {
            admission.leave_waiting(u64::from(answer.prompt_tokens()));
        }
        Some(answer)
    }
}

fn apply(backend: &mut dyn Backend, op: CacheOp) -> Result<(), BackendError> {
    match op {
        CacheOp::Truncate { slot, len } => backend.truncate(slot, len),
        CacheOp::CopyPrefix { from, to, len } => backend.copy_prefix(from, to, len),
    }
}

/// A panic in one request's sampler or grammar is that request's failure.
fn judge(answer: &mut Answer, logits: &[f32]) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| answer.on_logits(logits))).unwrap_or_else(|_| {
        Verdict::Failed(GenerationError::Request(
            "internal error while drawing a token".into(),
        ))
    })
}
