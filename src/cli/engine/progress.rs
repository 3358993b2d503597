//! A build's progress for whoever watches: a bar where there is a terminal, log lines where there is
//! none, and metrics in a file for a collector.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::build::{Monitor, Stage};
use crate::store::atomic;

/// Between two log lines, and between two writes of the metrics.
const INTERVAL: Duration = Duration::from_secs(5);

/// A bar on standard error; nothing where that is no terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Of a known number of bytes.
    pub(super) fn bytes(what: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_message(what);
        Self(bar.with_style(style("{msg:>10} [{bar:40}] {bytes}/{total_bytes} {eta}")))
    }

    fn ratio() -> Self {
        Self(ProgressBar::new(1000).with_style(style(
            "{prefix:>8} [{bar:40}] {percent:>3} % {elapsed} {msg}",
        )))
    }

    pub(super) fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template is a constant: where it were wrong, the plain bar is shown.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// When a build last moved.
pub(super) struct Pulse(Mutex<Instant>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Pulse {
    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Comes to its end when nothing has moved for so long.
    pub(super) async fn is_still(&self, deadline: Duration) {
        while self.silence() < deadline {
            tokio::time::sleep(deadline.saturating_sub(self.silence())).await;
        }
    }

    fn silence(&self) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }
}

/// Tells of a build and hears when it shall stop.
pub(super) struct Teller<'a> {
    bar: Bar,
    stop: &'a AtomicBool,
    pulse: &'a Pulse,
    metrics: Option<PathBuf>,
    state: Mutex<State>,
    begun: Instant,
}

struct State {
    told: Option<(Stage, Instant)>,
    written: Option<Instant>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(stop: &'a AtomicBool, pulse: &'a Pulse, metrics: Option<PathBuf>) -> Self {
        Self {
            bar: Bar::ratio(),
            stop,
            pulse,
            metrics,
            state: Mutex::new(State {
                told: None,
                written: None,
            }),
            begun: Instant::now(),
        }
    }

    pub(super) fn end(&self, succeeded: bool) {
        self.bar.clear();
        self.write(
            Stage::Bundle,
            f64::from(u8::from(succeeded)),
            Some(succeeded),
        );
    }

    /// Prometheus' text format, for the textfile collector of its node exporter.
    fn write(&self, stage: Stage, done: f64, succeeded: Option<bool>) {
        let Some(path) = &self.metrics else { return };
        let text = metrics(stage, done, self.begun.elapsed(), succeeded);
        if let Err(error) = atomic::write(path, text.as_bytes()) {
            tracing::warn!(path = %path.display(), %error, "the metrics cannot be written");
        }
    }
}

fn metrics(stage: Stage, done: f64, elapsed: Duration, succeeded: Option<bool>) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, help: &str, labels: &str, value: f64| {
        // Writing to a string cannot fail.
        let _never = write!(
            text,
            "# HELP enginewright_build_{name} {help}\n# TYPE enginewright_build_{name} gauge\n\
             enginewright_build_{name}{labels} {value}\n"
        );
    };
    let label = format!("{{stage=\"{}\"}}", stage.name());
    metric(
        "progress_ratio",
        "How much of the present stage is done, 0 to 1.",
        &label,
        done,
    );
    metric(
        "elapsed_seconds",
        "Time since the build began.",
        "",
        elapsed.as_secs_f64(),
    );
    if let Some(succeeded) = succeeded {
        let value = f64::from(u8::from(succeeded));
        metric(
            "succeeded",
            "1 when the last build made an engine, else 0.",
            "",
            value,
        );
    }
    text
}

impl Monitor for Teller<'_> {
    fn progress(&self, stage: Stage, done: f64, detail: &str) {
        self.pulse.beat();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1000"
        )]
        self.bar
            .0
            .set_position((done.clamp(0.0, 1.0) * 1000.0) as u64);
        self.bar.0.set_prefix(stage.name());
        self.bar.0.set_message(detail.to_owned());
        // Who does not get the lock is not the only one telling.
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        let due = |last: Option<Instant>| last.is_none_or(|last| last.elapsed() >= INTERVAL);
        let new_stage = state.told.is_none_or(|(told, _)| told != stage);
        let lines = self.bar.0.is_hidden();
        if lines && (new_stage || due(state.told.map(|(_, when)| when))) {
            state.told = Some((stage, Instant::now()));
            let percent = (done * 100.0).round();
            tracing::info!(stage = stage.name(), percent, detail, "building");
        }
        if new_stage || due(state.written) {
            state.written = Some(Instant::now());
            self.write(stage, done, None);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_build_is_still_only_when_nothing_has_moved_for_the_whole_deadline() {
        let pulse = Pulse::default();
        let deadline = Duration::from_millis(60);
        let moves = async {
            for _ in 0..5 {
                tokio::time::sleep(deadline / 3).await;
                pulse.beat();
            }
            Instant::now()
        };
        let still = async {
            pulse.is_still(deadline).await;
            Instant::now()
        };
        let (last, ended) = tokio::join!(moves, still);
        assert!(ended >= last + deadline);
    }

    #[test]
    fn the_metrics_are_what_a_collector_reads() {
        let text = metrics(Stage::Engine, 0.25, Duration::from_secs(2), Some(true));
        assert!(text.contains("enginewright_build_progress_ratio{stage=\"engine\"} 0.25\n"));
        assert!(text.contains("enginewright_build_elapsed_seconds 2\n"));
        assert!(text.contains("enginewright_build_succeeded 1\n"));
        for line in text.lines() {
            assert!(
                line.starts_with("# ") || line.split(' ').count() == 2,
                "{line}"
            );
        }
    }
}
