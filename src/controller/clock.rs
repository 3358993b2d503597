//! The operator's monotonic clock; the wall clock is only for what people read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::planner::Timestamp;

/// Counts from the operator's start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock {
    /// Now.
    pub fn now(&self) -> Timestamp {
        let millis = self.start.elapsed().as_millis();
        Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Now, as RFC 3339 in whole seconds.
    pub fn wall() -> String {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        crate::wire::time::rfc3339(Duration::from_secs(since.as_secs()))
    }
}
