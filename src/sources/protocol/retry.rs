//! How often a transfer is tried within one process, and how long it waits between. What still fails
//! then is the planner's to try again, with its own backoff; what has arrived is gone on with.

use std::time::Duration;

/// Tries in a row without a byte.
const TRIES: u32 = 4;
/// Longest wait for a server that asks for one; the planner waits better than a process.
const LONGEST: Duration = Duration::from_mins(1);

/// Counts tries without progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retry {
    failed: u32,
}

impl Retry {
    /// Bytes have moved.
    pub const fn moved(&mut self) {
        self.failed = 0;
    }

    /// How long to wait before the next try; `None`: give up. `after`: what the server asked for.
    pub fn failed(&mut self, after: Option<Duration>) -> Option<Duration> {
        self.failed += 1;
        let doubled = Duration::from_millis(250 << (2 * self.failed.min(8)).saturating_sub(2));
        let wait = after.unwrap_or(doubled);
        (self.failed < TRIES && wait <= LONGEST).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_up_after_some_tries_without_a_byte_but_not_while_bytes_move() {
        let mut retry = Retry::default();
        let waits: Vec<_> = std::iter::from_fn(|| retry.failed(None)).collect();
        assert_eq!(waits, [250, 1000, 4000].map(Duration::from_millis));
        for _ in 0..100 {
            retry.moved();
            assert!(retry.failed(None).is_some());
        }
    }

    #[test]
    fn it_waits_as_long_as_it_is_asked_to_within_bounds() {
        let ask = |seconds| Retry::default().failed(Some(Duration::from_secs(seconds)));
        assert_eq!(ask(5), Some(Duration::from_secs(5)));
        assert_eq!(ask(3600), None);
    }
}
