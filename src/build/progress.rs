//! How far a build is, in one number that never goes back. Pure but for a lock.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crate::tensorrt;

/// What a build is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Weights are read, rounded and laid down.
    Weights,
    /// The network is described to TensorRT.
    Network,
    /// TensorRT builds, and writes the plan meanwhile.
    Engine,
    /// Tokenizer, template and manifest are written.
    Bundle,
}

impl Stage {
    /// Name for people, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Network => "network",
            Self::Engine => "engine",
            Self::Bundle => "bundle",
        }
    }
}

/// Hears of a build's progress and says whether it shall go on. Called from several threads.
pub trait Monitor: Sync {
    /// `done` of the whole stage, 0 to 1; `detail` names what TensorRT does.
    fn progress(&self, stage: Stage, done: f64, detail: &str);
    /// Whether somebody wants the build to stop.
    fn is_stopped(&self) -> bool;
}

/// TensorRT's nested phases as one number.
pub(super) struct Phases<'a> {
    monitor: &'a dyn Monitor,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<String, Phase>,
    most: f64,
}

struct Phase {
    parent: String,
    steps: u32,
    done: u32,
}

impl<'a> Phases<'a> {
    pub(super) fn new(monitor: &'a dyn Monitor) -> Self {
        Self {
            monitor,
            state: Mutex::default(),
        }
    }

    fn change(&self, detail: &str, change: impl FnOnce(&mut BTreeMap<String, Phase>)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.running);
        // A phase that TensorRT begins anew must not take the bar back.
        state.most = state.most.max(fraction(&state.running, "", 8)).min(1.0);
        let done = state.most;
        drop(state);
        self.monitor.progress(Stage::Engine, done, detail);
    }
}

/// The part of `parent`'s children that is done: their own steps, and what runs inside the present one.
fn fraction(running: &BTreeMap<String, Phase>, parent: &str, depth: u32) -> f64 {
    let children = running
        .iter()
        .filter(|(name, phase)| phase.parent == parent && name.as_str() != parent && depth > 0);
    children
        .map(|(name, phase)| {
            let inside = fraction(running, name, depth - 1);
            let steps = f64::from(phase.steps.max(1));
            ((f64::from(phase.done) + inside) / steps).min(1.0)
        })
        .fold(0.0, f64::max)
}

impl tensorrt::Progress for Phases<'_> {
    fn started(&self, phase: &str, parent: &str, steps: u32) {
        self.change(phase, |running| {
            let begun = Phase {
                parent: parent.to_owned(),
                steps,
                done: 0,
            };
            running.insert(phase.to_owned(), begun);
        });
    }

    fn step(&self, phase: &str, step: u32) -> ControlFlow<()> {
        self.change(phase, |running| {
            if let Some(phase) = running.get_mut(phase) {
                phase.done = phase.done.max(step.saturating_add(1));
            }
        });
        if self.monitor.is_stopped() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn finished(&self, phase: &str) {
        self.change(phase, |running| {
            running.remove(phase);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorrt::Progress;

    #[derive(Default)]
    struct Seen(Mutex<Vec<f64>>);

    impl Monitor for Seen {
        fn progress(&self, _: Stage, done: f64, _: &str) {
            self.0.lock().unwrap().push(done);
        }
        fn is_stopped(&self) -> bool {
            self.0.lock().unwrap().len() > 100
        }
    }

    #[test]
    fn nested_phases_are_one_number_that_never_goes_back() {
        let seen = Seen::default();
        let phases = Phases::new(&seen);
        phases.started("whole", "", 2);
        phases.started("first", "whole", 4);
        assert!(phases.step("first", 1).is_continue());
        phases.finished("first");
        let _ = phases.step("whole", 0);
        phases.started("second", "whole", 2);
        let _ = phases.step("second", 0);
        phases.finished("second");
        let _ = phases.step("whole", 1);
        phases.finished("whole");
        let seen = seen.0.into_inner().unwrap();
        assert!(seen.is_sorted(), "{seen:?}");
        assert_eq!(seen[2], 0.25);
        assert_eq!(seen.last(), Some(&1.0));
        assert!(seen.contains(&0.75), "{seen:?}");
    }

    #[test]
    fn who_wants_to_stop_is_heard_at_the_next_step() {
        let seen = Seen(Mutex::new(vec![0.0; 101]));
        assert!(Phases::new(&seen).step("any", 0).is_break());
    }

    #[test]
    fn a_phase_that_is_its_own_parent_ends() {
        let seen = Seen::default();
        let phases = Phases::new(&seen);
        phases.started("a", "b", 1);
        phases.started("b", "a", 1);
        phases.started("c", "c", 1);
    }
}
