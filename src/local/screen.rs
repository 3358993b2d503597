//! What `run` shows while it runs: bars on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::api::{ActiveBackend, Condition, InferenceEngineStatus};
use crate::planner::Work;

/// Between two lines about the same progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where `run` speaks to people.
#[derive(Debug)]
pub struct Screen {
    start: Instant,
    terminal: Option<MultiProgress>,
    bars: BTreeMap<String, Bar>,
}

#[derive(Debug)]
struct Bar {
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            terminal: std::io::stdout().is_terminal().then(MultiProgress::new),
            bars: BTreeMap::new(),
        }
    }
}

impl Screen {
    /// One line, with the time since the start.
    pub fn say(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let line = format!("[{seconds:8.2} s] {text}");
        // A reader that went away is no reason to stop serving.
        let _gone = match &self.terminal {
            Some(terminal) => terminal.println(line),
            None => writeln!(std::io::stdout(), "{line}"),
        };
    }

    /// Something that moves: bytes, or the percent of a build's present stage.
    pub fn progress(&mut self, name: &str, work: Work, done: u64, total: Option<u64>) {
        let percent = work == Work::BuildBundle;
        let terminal = self.terminal.clone();
        let known = self.bars.contains_key(name);
        let bar = self.bars.entry(name.to_owned()).or_insert_with(|| Bar {
            bar: terminal.map(|terminal| terminal.add(bar(name, percent, total))),
            said: Instant::now(),
        });
        if let Some(bar) = &bar.bar {
            bar.set_position(done);
            return;
        }
        if known && bar.said.elapsed() < LINE_EVERY {
            return;
        }
        bar.said = Instant::now();
        let mib = |bytes: u64| bytes >> 20;
        match total {
            _ if percent => self.say(&format!("{name}: {done} % of this stage")),
            Some(total) => self.say(&format!("{name}: {} of {} MiB", mib(done), mib(total))),
            None => self.say(&format!("{name}: {} MiB", mib(done))),
        }
    }

    /// What moved has arrived, or is not wanted any more.
    pub fn finish(&mut self, name: &str) {
        if let Some(Bar { bar: Some(bar), .. }) = self.bars.remove(name) {
            bar.finish_and_clear();
        }
    }

    /// What is new in a report.
    pub fn compare(&self, old: &InferenceEngineStatus, new: &InferenceEngineStatus) {
        if old.active_backend != new.active_backend {
            match new.active_backend {
                ActiveBackend::None => self.say("nobody answers"),
                backend => self.say(&format!("{backend} answers")),
            }
        }
        let mut said: Vec<&str> = Vec::new();
        for condition in &new.conditions {
            let Condition {
                kind,
                status,
                reason,
                message,
                ..
            } = condition;
            let known = old
                .conditions
                .iter()
                .any(|old| (old.kind, old.status, old.reason) == (*kind, *status, *reason));
            // Several conditions say the same thing from their points of view: once is enough.
            if known || said.contains(&message.as_str()) {
                continue;
            }
            said.push(message);
            self.say(&format!("{kind}={status} {reason}: {message}"));
        }
    }
}

fn bar(name: &str, percent: bool, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = if percent {
        "{msg} {wide_bar} {percent} %"
    } else {
        "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
    };
    // The template is a constant; were it wrong, the default bar would do.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(name.to_owned())
}
