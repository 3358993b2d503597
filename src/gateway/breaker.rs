//! The circuit breaker of one upstream: when to stop asking it, when to try again.
//!
//! A pure state machine: time comes in as milliseconds, outcomes as calls. It never sends anything;
//! who probes and what is asked is the shell's.
//!
//! ```text
//!            failures in a row                     probe answers
//!  Closed ────────────────────► Open ─(time over)─► probe due ───► HalfOpen: one trial request
//!    ▲                           ▲ ▲                  │ no            │            │
//!    │                           │ └──────────────────┘               │ fails      │ first token
//!    │                           └── longer each time ────────────────┘            │
//!    └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A hung engine answers its probe, so only a real request closes the breaker; a request that is
//! lost on a trial goes to the fallback like any other.

use super::routes::BreakerSettings;

/// Milliseconds on a clock that never goes back.
pub type Millis = u64;

/// The permission to send one request; each outcome is reported with it. Outcomes of requests that
/// were admitted before the state last changed are old news and change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    epoch: u64,
    trial: bool,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Send it.
    Admitted(Ticket),
    /// Do not; asking again makes sense after so many milliseconds.
    Refused {
        /// Milliseconds, at least 1.
        retry_in: Millis,
    },
}

/// For metrics and `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// No request passes.
    Open,
    /// One request is tried.
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Millis, probing: bool },
    HalfOpen { trial_running: bool },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    epoch: u64,
    /// Trials that failed since the breaker was last closed for good.
    failed_trials: u32,
}

impl Breaker {
    /// A closed breaker.
    pub const fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed { failures: 0 },
            epoch: 0,
            failed_trials: 0,
        }
    }

    /// The state to show.
    pub const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Asks for permission to send one request. `alternative` says whether another upstream could
    /// take it: without one, a half-open breaker lets every request try.
    pub const fn admit(&mut self, now: Millis, alternative: bool) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Admitted(Ticket {
                epoch: self.epoch,
                trial: false,
            }),
            State::HalfOpen { trial_running } if !trial_running || !alternative => {
                self.state = State::HalfOpen {
                    trial_running: true,
                };
                Admission::Admitted(Ticket {
                    epoch: self.epoch,
                    trial: !trial_running,
                })
            }
            State::HalfOpen { .. } => Admission::Refused { retry_in: 1_000 },
            State::Open { until, .. } => {
                let left = until.saturating_sub(now);
                Admission::Refused {
                    retry_in: if left == 0 { 1 } else { left },
                }
            }
        }
    }

    /// The upstream generated something for this request: it is alive. One more failure opens the
    /// breaker again until a request is answered to its end.
    pub const fn first_token(&mut self, ticket: Ticket) {
        if ticket.epoch == self.epoch && matches!(self.state, State::HalfOpen { .. }) {
            self.state = State::Closed {
                failures: self.settings.failures.saturating_sub(1),
            };
        }
    }

    /// The request was answered to its end (a refusal such as 400 or 429 is an answer).
    pub const fn succeeded(&mut self, ticket: Ticket) {
        if ticket.epoch == self.epoch && !matches!(self.state, State::Open { .. }) {
            self.state = State::Closed { failures: 0 };
            self.failed_trials = 0;
        }
    }

    /// The upstream failed this request.
    pub fn failed(&mut self, ticket: Ticket, now: Millis) {
        if ticket.epoch != self.epoch {
            return;
        }
        match self.state {
            State::Closed { failures } if failures + 1 < self.settings.failures => {
                self.state = State::Closed {
                    failures: failures + 1,
                };
            }
            State::Closed { .. } | State::HalfOpen { .. } => self.open(now),
            State::Open { .. } => {}
        }
    }

    /// The request ended without telling anything: its client went away.
    pub const fn abandoned(&mut self, ticket: Ticket) {
        if ticket.epoch == self.epoch
            && ticket.trial
            && matches!(self.state, State::HalfOpen { .. })
        {
            self.state = State::HalfOpen {
                trial_running: false,
            };
        }
    }

    /// Whether the shell should ask the upstream for a sign of life now. Says so once per probe.
    pub const fn probe_due(&mut self, now: Millis) -> bool {
        if let State::Open {
            until,
            probing: false,
        } = self.state
            && now >= until
        {
            self.state = State::Open {
                until,
                probing: true,
            };
            return true;
        }
        false
    }

    /// The probe's result.
    pub fn probed(&mut self, alive: bool, now: Millis) {
        let State::Open { probing: true, .. } = self.state else {
            return;
        };
        if alive {
            self.epoch += 1;
            self.state = State::HalfOpen {
                trial_running: false,
            };
        } else {
            let until = now.saturating_add(self.settings.open_ms);
            self.state = State::Open {
                until,
                probing: false,
            };
        }
    }

    fn open(&mut self, now: Millis) {
        let factor = 1_u64.checked_shl(self.failed_trials).unwrap_or(u64::MAX);
        let wait = self
            .settings
            .open_ms
            .saturating_mul(factor)
            .min(self.settings.open_max_ms);
        self.failed_trials = self.failed_trials.saturating_add(1);
        self.epoch += 1;
        self.state = State::Open {
            until: now.saturating_add(wait),
            probing: false,
        };
    }
}

#[cfg(test)]
mod tests;
