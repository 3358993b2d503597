//! How long a thread sleeps before it looks whether the device is done, and how long it looks before
//! it sleeps for good. Pure: durations are given.
//!
//! Being woken by the device's interrupt costs some hundred microseconds, which is a tenth of a short
//! step; looking all the time costs a processor. A step's duration hardly differs from that of the step
//! of the same shape before it, so sleeping until shortly before the expected end and looking from there
//! on costs neither.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Shape;

/// Weight of the newest measurement.
const WEIGHT: f64 = 0.3;
/// What is expected of a step that was overslept, as a share of what was expected of it before.
const EARLIER: f64 = 0.7;
/// Steps this much longer than expected are waited for with open eyes; later ones are not worth it.
const LATE: f64 = 0.05;
/// The least that is looked ahead of the expected end and after it, seconds.
const LEAST: f64 = 30e-6;
/// A sleep shorter than this is not worth a system call, seconds.
const SHORTEST_SLEEP: f64 = 50e-6;
/// Steps longer than this are woken from: there the interrupt's delay is less than a hundredth, seconds.
const LONG: f64 = 50e-3;

/// What to do until the device is done; after both parts, the device's interrupt is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vigil {
    /// First sleep so long.
    pub sleep: Duration,
    /// Then look at most so long.
    pub look: Duration,
}

/// What steps have taken.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    /// Seconds by shape; `None`: met once, when it was prepared too.
    expected: BTreeMap<Shape, Option<f64>>,
    /// Seconds that sleeps last longer than asked for.
    overslept: Option<f64>,
}

impl Patience {
    /// For a step of `shape` that the device was given `since` ago.
    pub fn vigil(&self, shape: Shape, since: Duration) -> Vigil {
        let Some(expected) = self.expected.get(&shape).copied().flatten() else {
            return Vigil::default();
        };
        if expected > LONG {
            return Vigil::default();
        }
        let left = expected - since.as_secs_f64();
        let early = LEAST + self.overslept.unwrap_or(SHORTEST_SLEEP) + LATE / 2.0 * expected;
        let sleep = left - early;
        let sleep = if sleep > SHORTEST_SLEEP { sleep } else { 0.0 };
        let look = left.max(0.0) - sleep + LEAST + LATE * expected;
        Vigil {
            sleep: Duration::from_secs_f64(sleep),
            look: Duration::from_secs_f64(look),
        }
    }

    /// The step was over `took` after the device was given it, or earlier where that was `overslept`.
    pub fn learn(&mut self, shape: Shape, took: Duration, overslept: bool) {
        let new = took.as_secs_f64();
        let Some(known) = self.expected.get_mut(&shape) else {
            self.expected.insert(shape, None);
            return;
        };
        *known = Some(match *known {
            None => new,
            // When it was over nobody knows: find out.
            Some(old) if overslept => old.min(new) * EARLIER,
            Some(old) if new < old => new,
            // One that was kept waiting is no rule.
            Some(old) => old + WEIGHT * (new - old),
        });
    }

    /// A sleep of `asked` lasted `slept`.
    pub fn slept(&mut self, asked: Duration, slept: Duration) {
        let new = slept.saturating_sub(asked).as_secs_f64();
        let known = self.overslept.unwrap_or(new);
        // Seldom too early is worth more than seldom too late.
        let weight = if new > known { 2.0 * WEIGHT } else { WEIGHT };
        self.overslept = Some(known + weight * (new - known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        profile: 0,
        tokens: 1,
        bucket: 256,
        first: 0,
        rows: 1,
    };

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    fn settled(step: Duration, oversleeps: Duration) -> Patience {
        let mut patience = Patience::default();
        for _ in 0..50 {
            patience.learn(SHAPE, step, false);
            patience.slept(micros(500), micros(500) + oversleeps);
        }
        patience
    }

    /// Runs steps of `step` microseconds on a machine whose sleeps last 60 longer; how long each was
    /// waited for.
    fn waited(patience: &mut Patience, step: u64, count: usize) -> Vec<u64> {
        let mut all = Vec::new();
        for _ in 0..count {
            let vigil = patience.vigil(SHAPE, Duration::ZERO);
            let woken = if vigil.sleep.is_zero() {
                0
            } else {
                patience.slept(vigil.sleep, vigil.sleep + micros(60));
                u64::try_from(vigil.sleep.as_micros()).unwrap() + 60
            };
            let looked = woken + u64::try_from(vigil.look.as_micros()).unwrap();
            // The device's interrupt comes 150 late.
            let heard = if looked >= step { step } else { step + 150 };
            let took = heard.max(woken);
            patience.learn(SHAPE, micros(took), woken > step);
            all.push(took);
        }
        all
    }

    #[test]
    fn a_shape_that_was_never_run_is_slept_for() {
        assert_eq!(
            Patience::default().vigil(SHAPE, Duration::ZERO),
            Vigil::default()
        );
        let other = Shape {
            bucket: 512,
            ..SHAPE
        };
        let known = settled(micros(2_000), micros(60));
        assert_eq!(known.vigil(other, Duration::ZERO), Vigil::default());
    }

    #[test]
    fn the_eyes_are_open_before_the_end_even_when_sleeps_last_too_long() {
        for (step, late) in [(1_900, 60), (1_900, 150), (9_000, 80), (40_000, 100)] {
            let vigil = settled(micros(step), micros(late)).vigil(SHAPE, Duration::ZERO);
            assert!(
                vigil.sleep + micros(late) < micros(step),
                "{step} {late} {vigil:?}"
            );
            assert!(vigil.sleep + vigil.look > micros(step + step / 25));
            // What is burnt: the last part of the step, not the step.
            assert!(vigil.look < micros(step / 10 + 2 * late + 100), "{vigil:?}");
        }
    }

    #[test]
    fn what_has_passed_since_the_start_is_not_waited_for_again() {
        let patience = settled(micros(2_000), micros(60));
        let vigil = patience.vigil(SHAPE, micros(1_900));
        assert_eq!(vigil.sleep, Duration::ZERO);
        assert!(vigil.look < micros(300));
        let late = patience.vigil(SHAPE, micros(5_000));
        assert!(late.sleep.is_zero() && late.look < micros(200));
    }

    #[test]
    fn long_steps_are_slept_through() {
        let patience = settled(Duration::from_millis(80), micros(60));
        assert_eq!(patience.vigil(SHAPE, Duration::ZERO), Vigil::default());
    }

    #[test]
    fn one_late_step_does_not_make_the_next_one_late() {
        let mut patience = settled(micros(2_000), micros(60));
        patience.learn(SHAPE, micros(6_000), false);
        patience.learn(SHAPE, micros(2_000), false);
        let vigil = patience.vigil(SHAPE, Duration::ZERO);
        assert!(vigil.sleep < micros(2_000));
    }

    #[test]
    fn what_the_first_run_of_a_shape_takes_says_nothing() {
        let mut patience = Patience::default();
        patience.learn(SHAPE, micros(40_000), false);
        assert_eq!(patience.vigil(SHAPE, Duration::ZERO), Vigil::default());
        patience.learn(SHAPE, micros(2_000), false);
        let vigil = patience.vigil(SHAPE, Duration::ZERO);
        assert!(vigil.sleep < micros(2_000) && !vigil.sleep.is_zero());
    }

    #[test]
    fn steps_that_became_shorter_are_found_out_within_a_few() {
        let mut patience = settled(micros(20_000), micros(60));
        let took = waited(&mut patience, 2_000, 40);
        // Slept for at first, then less and less, then heard of at once.
        let late = took.iter().filter(|took| **took > 2_200).count();
        assert!(late <= 8, "{took:?}");
        assert!(took[20..].iter().all(|took| *took <= 2_150), "{took:?}");
        let at_once = took[30..].iter().filter(|took| **took == 2_000).count();
        assert!(at_once >= 8, "{took:?}");
    }

    #[test]
    fn steps_that_became_longer_are_found_out_within_a_few() {
        let mut patience = settled(micros(2_000), micros(60));
        let took = waited(&mut patience, 6_000, 40);
        assert!(took[15..].iter().all(|took| *took == 6_000), "{took:?}");
    }
}
