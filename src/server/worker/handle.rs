//! The async side of the engine thread: submitting, watching, draining. Decides whether a request
//! is let in; everything after that is the thread's.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc as channel, watch};

use super::super::generation::{GenerationError, GenerationEvent, GenerationRequest, SubmitError};
use crate::backend::Capabilities;
use crate::scheduler::admission::Admission;

/// Where the engine thread stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Takes requests.
    Running,
    /// Takes no more, finishes those it has.
    Draining,
    /// Ended as told.
    Stopped,
    /// Ended by a fault: the process must exit non-zero.
    Failed(String),
}

/// A snapshot for metrics and `/api/ps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Slots there are.
    pub slots: u32,
    /// Requests in a slot.
    pub slots_busy: u32,
    /// Requests that wait for one.
    pub waiting: u32,
    /// Prompt tokens of those that wait.
    pub waiting_tokens: u64,
    /// How long the device call in progress has taken; zero between calls. A value of minutes
    /// means that the device hangs.
    pub step_running: Duration,
}

pub(super) struct Submission {
    pub(super) request: GenerationRequest,
    pub(super) submitted: Instant,
    pub(super) events: channel::UnboundedSender<GenerationEvent>,
}

pub(super) enum Command {
    Submit(Box<Submission>),
    /// Finish what is there; fail what is left at this time.
    Drain(Instant),
}

/// What the handles and the thread share.
pub(super) struct Shared {
    pub(super) capabilities: Capabilities,
    admission: Mutex<Admission>,
    pub(super) state: watch::Sender<EngineState>,
    origin: Instant,
    /// Milliseconds since `origin`, plus one, at which the running device call began; 0: none.
    step_began: AtomicU64,
}

impl Shared {
    pub(super) fn new(capabilities: Capabilities, admission: Admission) -> Self {
        Self {
            capabilities,
            admission: Mutex::new(admission),
            state: watch::Sender::new(EngineState::Running),
            origin: Instant::now(),
            step_began: AtomicU64::new(0),
        }
    }

    /// The counters hold no invariant that a panic could break half-way, so a poisoned lock is
    /// taken over.
    pub(super) fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn since_origin(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    pub(super) fn step_begins(&self) {
        self.step_began
            .store(self.since_origin(), Ordering::Relaxed);
    }

    pub(super) fn step_ends(&self) {
        self.step_began.store(0, Ordering::Relaxed);
    }

    fn step_running(&self) -> Duration {
        match self.step_began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_millis(self.since_origin().saturating_sub(began)),
        }
    }
}

/// The way to the engine thread; cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EngineHandle")
            .field("capabilities", &self.shared.capabilities)
            .finish_non_exhaustive()
    }
}

impl EngineHandle {
    pub(super) const fn new(shared: Arc<Shared>, commands: mpsc::Sender<Command>) -> Self {
        Self { shared, commands }
    }

    /// What was loaded.
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    /// Whether a request of at least one token would be let in now: lets callers refuse before they
    /// spend time on it. [`EngineHandle::submit`] decides.
    ///
    /// # Errors
    /// As [`EngineHandle::submit`].
    pub fn check_room(&self) -> Result<(), SubmitError> {
        match &*self.shared.state.borrow() {
            EngineState::Running => {}
            EngineState::Draining => return Err(SubmitError::ShuttingDown),
            EngineState::Stopped | EngineState::Failed(_) => return Err(SubmitError::EngineGone),
        }
        // On a copy: nobody enters.
        let outcome = self.shared.admission().clone().enter(1);
        outcome.map_err(|full| SubmitError::QueueFull {
            retry_after: full.retry_after,
        })
    }

    /// Hands a request to the engine thread, or refuses it at once; never waits.
    ///
    /// # Errors
    /// [`SubmitError`] when there is no place, or no engine.
    pub fn submit(&self, request: GenerationRequest) -> Result<GenerationStream, SubmitError> {
        match &*self.shared.state.borrow() {
            EngineState::Running => {}
            EngineState::Draining => return Err(SubmitError::ShuttingDown),
            EngineState::Stopped | EngineState::Failed(_) => return Err(SubmitError::EngineGone),
        }
        let tokens = request.prompt.len() as u64;
        self.shared
            .admission()
            .enter(tokens)
            .map_err(|full| SubmitError::QueueFull {
                retry_after: full.retry_after,
            })?;
        let (events, receiver) = channel::unbounded_channel();
        let submission = Submission {
            request,
            submitted: Instant::now(),
            events,
        };
        if self
            .commands
            .send(Command::Submit(Box::new(submission)))
            .is_err()
        {
            self.shared.admission().leave_waiting(tokens);
            return Err(SubmitError::EngineGone);
        }
        Ok(GenerationStream {
            receiver,
            state: self.shared.state.subscribe(),
            ended: false,
        })
    }

    /// A snapshot of the engine's load.
    pub fn stats(&self) -> EngineStats {
        let admission = self.shared.admission();
        EngineStats {
            slots: self.shared.capabilities.slots,
            slots_busy: admission.running(),
            waiting: admission.waiting(),
            waiting_tokens: admission.waiting_tokens(),
            step_running: self.shared.step_running(),
        }
    }

    /// Where the engine thread stands now.
    pub fn state(&self) -> EngineState {
        self.shared.state.borrow().clone()
    }

    /// Whether the engine thread is there (it may be draining).
    pub fn is_alive(&self) -> bool {
        matches!(
            *self.shared.state.borrow(),
            EngineState::Running | EngineState::Draining
        )
    }

    /// Resolves when the engine thread is gone: with [`EngineState::Stopped`] after a drain, with
    /// [`EngineState::Failed`] otherwise.
    pub async fn stopped(&self) -> EngineState {
        let mut state = self.shared.state.subscribe();
        let gone =
            |state: &EngineState| matches!(state, EngineState::Stopped | EngineState::Failed(_));
        match state.wait_for(gone).await {
            Ok(state) => state.clone(),
            Err(_) => self.state(),
        }
    }

    /// Takes no more requests, lets those there are finish for up to `grace`, fails the rest with
    /// [`GenerationError::ShuttingDown`], and returns when the thread is gone.
    pub async fn drain(&self, grace: Duration) -> EngineState {
        self.shared.state.send_if_modified(|state| {
            let first = *state == EngineState::Running;
            if first {
                *state = EngineState::Draining;
            }
            first
        });
        // No receiver: the thread is gone, which is what is waited for.
        let _ = self.commands.send(Command::Drain(Instant::now() + grace));
        self.stopped().await
    }
}

/// The events of one request. Dropping it cancels the request within one step.
#[derive(Debug)]
pub struct GenerationStream {
    receiver: channel::UnboundedReceiver<GenerationEvent>,
    state: watch::Receiver<EngineState>,
    ended: bool,
}

impl GenerationStream {
    /// The next event; `None` after [`GenerationEvent::Finished`] or [`GenerationEvent::Failed`],
    /// one of which always comes.
    pub async fn next(&mut self) -> Option<GenerationEvent> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<GenerationEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(self.receiver.poll_recv(context));
        // A thread that died had no time for last words: say them for it.
        let event = event.unwrap_or_else(|| GenerationEvent::Failed(self.last_words()));
        self.ended = !matches!(event, GenerationEvent::Delta { .. });
        Poll::Ready(Some(event))
    }

    fn last_words(&self) -> GenerationError {
        match &*self.state.borrow() {
            EngineState::Failed(reason) => GenerationError::Engine(reason.clone()),
            EngineState::Running => GenerationError::Engine("the engine thread ended".into()),
            EngineState::Draining | EngineState::Stopped => GenerationError::ShuttingDown,
        }
    }
}

impl futures::Stream for GenerationStream {
    type Item = GenerationEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(context)
    }
}
