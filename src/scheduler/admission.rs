//! How many requests may be in the house: those in slots, and a bounded queue in front of them,
//! bounded in requests and in prompt tokens. Counts only; order and slots are the scheduler's.

use std::time::Duration;

/// The bounds of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests that run at once.
    pub slots: u32,
    /// Requests that may wait.
    pub requests: u32,
    /// Prompt tokens that may wait; one request is always let in.
    pub tokens: u64,
}

/// No place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull {
    /// When a place is likely to be free; between one second and one minute.
    pub retry_after: Duration,
}

/// The counters. Every request that enters leaves exactly once: from the queue
/// ([`Admission::leave_waiting`]) or, after [`Admission::start`], from its slot
/// ([`Admission::leave_running`]).
#[derive(Clone, Debug)]
pub struct Admission {
    limits: QueueLimits,
    running: u32,
    waiting: u32,
    waiting_tokens: u64,
    /// Smoothed time a request holds its slot.
    service: Option<Duration>,
}

impl Admission {
    /// An empty house.
    pub const fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            running: 0,
            waiting: 0,
            waiting_tokens: 0,
            service: None,
        }
    }

    /// Requests in slots.
    pub const fn running(&self) -> u32 {
        self.running
    }

    /// Requests in the queue.
    pub const fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Prompt tokens in the queue.
    pub const fn waiting_tokens(&self) -> u64 {
        self.waiting_tokens
    }

    /// Lets a request into the queue.
    ///
    /// # Errors
    /// [`QueueFull`] when a bound would be exceeded.
    pub fn enter(&mut self, prompt_tokens: u64) -> Result<(), QueueFull> {
        // A free slot takes one of the waiting at the next step, so it counts as a place.
        let places = self.limits.slots.saturating_add(self.limits.requests);
        let crowded = self.waiting > 0
            && self.waiting_tokens.saturating_add(prompt_tokens) > self.limits.tokens;
        if self.running.saturating_add(self.waiting) >= places || crowded {
            return Err(QueueFull {
                retry_after: self.retry_after(),
            });
        }
        self.waiting += 1;
        self.waiting_tokens += prompt_tokens;
        Ok(())
    }

    /// A waiting request got its slot.
    pub fn start(&mut self, prompt_tokens: u64) {
        self.leave_waiting(prompt_tokens);
        self.running += 1;
    }

    /// A waiting request went away.
    pub fn leave_waiting(&mut self, prompt_tokens: u64) {
        self.waiting = self.waiting.saturating_sub(1);
        self.waiting_tokens = self.waiting_tokens.saturating_sub(prompt_tokens);
    }

    /// A running request ended after holding its slot for `held`.
    pub fn leave_running(&mut self, held: Duration) {
        self.running = self.running.saturating_sub(1);
        // An eighth of the newest: follows a change of load within some ten requests.
        self.service = Some(self.service.map_or(held, |old| (old * 7 + held) / 8));
    }

    /// The time until the queue as it is has moved on by one place, whole seconds.
    fn retry_after(&self) -> Duration {
        let service = self.service.unwrap_or(Duration::from_secs(1));
        let per_place = service / self.limits.slots.max(1);
        let ahead = self.waiting.max(1);
        let seconds = (per_place * ahead / 2).as_secs() + 1;
        Duration::from_secs(seconds.clamp(1, 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        slots: 2,
        requests: 3,
        tokens: 100,
    };

    #[test]
    fn slots_and_queue_together_bound_the_requests_in_the_house() {
        let mut admission = Admission::new(LIMITS);
        for _ in 0..5 {
            assert!(admission.enter(1).is_ok());
        }
        assert!(admission.enter(1).is_err());
        admission.start(1);
        assert!(
            admission.enter(1).is_err(),
            "a start moves a request, it frees no place"
        );
        admission.leave_running(Duration::from_secs(1));
        assert!(admission.enter(1).is_ok());
    }

    #[test]
    fn waiting_prompt_tokens_are_bounded_but_one_request_is_always_let_in() {
        let mut admission = Admission::new(LIMITS);
        assert!(admission.enter(1_000).is_ok());
        assert!(admission.enter(1).is_err());
        admission.start(1_000);
        assert!(admission.enter(60).is_ok());
        assert!(admission.enter(41).is_err());
        assert!(admission.enter(40).is_ok());
        assert_eq!(admission.waiting_tokens(), 100);
    }

    #[test]
    fn a_refusal_says_when_to_come_back_between_a_second_and_a_minute() {
        let mut admission = Admission::new(LIMITS);
        for _ in 0..5 {
            admission.enter(0).unwrap();
        }
        assert_eq!(
            admission.enter(0).unwrap_err().retry_after,
            Duration::from_secs(2)
        );
        admission.start(0);
        admission.leave_running(Duration::from_hours(1));
        admission.enter(0).unwrap();
        assert_eq!(
            admission.enter(0).unwrap_err().retry_after,
            Duration::from_mins(1)
        );
    }
}
