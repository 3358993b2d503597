//! How far a fetch is: told by the transfer, read by the log, by `/metrics` and by the watch for
//! transfers that hang.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::sources::Progress;

/// Least time between two lines about progress.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at whether something moves.
const LOOK: Duration = Duration::from_millis(500);

/// Bytes done, and in all where that is known.
#[derive(Debug)]
pub struct Meter {
    done: AtomicU64,
    total: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    moved: Instant,
    said: Instant,
    said_bytes: u64,
}

impl Default for Meter {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            times: Mutex::new(Times {
                moved: now,
                said: now,
                said_bytes: 0,
            }),
        }
    }
}

impl Meter {
    /// Bytes done, and in all where that is known.
    pub fn bytes(&self) -> (u64, Option<u64>) {
        let total = self.total.load(Ordering::Relaxed);
        let done = self.done.load(Ordering::Relaxed);
        (done, (total > 0).then_some(total))
    }

    /// Something moved.
    pub fn moved(&self, done: u64, total: Option<u64>) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total.unwrap_or(0), Ordering::Relaxed);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.moved = Instant::now();
        let since = times.said.elapsed();
        if since >= SAY_EVERY || total == Some(done) {
            let moved = u128::from(done.saturating_sub(times.said_bytes));
            let rate = moved * 1000 / since.as_millis().max(1);
            let bytes_per_second = u64::try_from(rate).unwrap_or(u64::MAX);
            tracing::info!(done, total, bytes_per_second, "fetching");
            times.said = Instant::now();
            times.said_bytes = done;
        }
    }

    /// As transfers tell it.
    pub fn progress(meter: &Arc<Self>) -> Progress {
        let meter = Arc::clone(meter);
        Arc::new(move |done, total| meter.moved(done, total))
    }

    /// Returns when nothing has moved for `deadline`.
    pub async fn stalled(&self, deadline: Duration) {
        loop {
            tokio::time::sleep(LOOK.min(deadline)).await;
            let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            if times.moved.elapsed() >= deadline {
                return;
            }
        }
    }

    /// In Prometheus' text format.
    pub fn exposition(&self) -> String {
        use std::fmt::Write;
        let (done, total) = self.bytes();
        let mut text = String::new();
        let gauges = [
            (
                "enginewright_fetch_bytes",
                "Bytes of the model that are here.",
                Some(done),
            ),
            (
                "enginewright_fetch_size_bytes",
                "Bytes of the model, once known.",
                total,
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let _infallible = writeln!(
                    text,
                    "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_move_is_noticed() {
        let meter = Meter::default();
        meter.stalled(Duration::from_millis(10)).await;
        assert_eq!(meter.bytes(), (0, None));
    }

    #[test]
    fn what_has_arrived_is_a_metric() {
        let meter = Arc::new(Meter::default());
        assert!(!meter.exposition().contains("size"));
        Meter::progress(&meter)(5, Some(10));
        let text = meter.exposition();
        assert!(text.contains("\nenginewright_fetch_bytes 5\n"), "{text}");
        assert!(
            text.contains("\nenginewright_fetch_size_bytes 10\n"),
            "{text}"
        );
    }
}
