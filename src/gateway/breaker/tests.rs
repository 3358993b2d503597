use proptest::prelude::*;

use super::*;

const SETTINGS: BreakerSettings = BreakerSettings {
    failures: 3,
    open_ms: 100,
    open_max_ms: 1_000,
};

fn ticket(breaker: &mut Breaker, now: Millis) -> Ticket {
    match breaker.admit(now, true) {
        Admission::Admitted(ticket) => ticket,
        Admission::Refused { .. } => panic!("refused in {:?}", breaker.state()),
    }
}

fn opened(now: Millis) -> Breaker {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..SETTINGS.failures {
        let t = ticket(&mut breaker, now);
        breaker.failed(t, now);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

fn half_open(now: Millis) -> Breaker {
    let mut breaker = opened(now);
    assert!(breaker.probe_due(now + SETTINGS.open_ms));
    breaker.probed(true, now + SETTINGS.open_ms);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker
}

#[test]
fn only_failures_in_a_row_open_it() {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..10 {
        for _ in 1..SETTINGS.failures {
            let t = ticket(&mut breaker, 0);
            breaker.failed(t, 0);
        }
        let t = ticket(&mut breaker, 0);
        breaker.succeeded(t);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn an_engine_that_dies_after_each_first_token_is_still_found_out() {
    let mut breaker = Breaker::new(SETTINGS);
    for _ in 0..SETTINGS.failures {
        let t = ticket(&mut breaker, 0);
        breaker.first_token(t);
        breaker.failed(t, 0);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn the_other_victims_of_one_crash_do_not_count_twice() {
    let mut breaker = Breaker::new(SETTINGS);
    let tickets: Vec<_> = (0..8).map(|_| ticket(&mut breaker, 0)).collect();
    for t in tickets {
        breaker.failed(t, 0);
    }
    assert_eq!(
        breaker.admit(0, true),
        Admission::Refused {
            retry_in: SETTINGS.open_ms
        }
    );
}

#[test]
fn half_open_lets_one_request_try_and_an_abandoned_trial_frees_the_place() {
    let mut breaker = half_open(0);
    let trial = ticket(&mut breaker, 200);
    assert!(matches!(
        breaker.admit(200, true),
        Admission::Refused { .. }
    ));
    breaker.abandoned(trial);
    let trial = ticket(&mut breaker, 200);
    breaker.first_token(trial);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn without_an_alternative_half_open_lets_everyone_try() {
    let mut breaker = half_open(0);
    for _ in 0..4 {
        assert!(matches!(breaker.admit(200, false), Admission::Admitted(_)));
    }
}

#[test]
fn each_failed_trial_waits_twice_as_long_up_to_the_limit() {
    let mut breaker = opened(0);
    let mut now = 0;
    let mut waits = vec![];
    for _ in 0..6 {
        let Admission::Refused { retry_in } = breaker.admit(now, true) else {
            panic!("open")
        };
        waits.push(retry_in);
        now += retry_in;
        assert!(breaker.probe_due(now));
        breaker.probed(true, now);
        let trial = ticket(&mut breaker, now);
        breaker.failed(trial, now);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
}

#[test]
fn a_dead_probe_keeps_it_open_without_waiting_longer() {
    let mut breaker = opened(0);
    for round in 1..20 {
        let now = round * SETTINGS.open_ms;
        assert!(breaker.probe_due(now));
        assert!(!breaker.probe_due(now), "one probe at a time");
        breaker.probed(false, now);
        assert_eq!(breaker.state(), BreakerState::Open);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Admit(bool),
    FirstToken(usize),
    Succeed(usize),
    Fail(usize),
    Abandon(usize),
    Probe(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..400_u64).prop_map(Step::Wait),
        any::<bool>().prop_map(Step::Admit),
        any::<usize>().prop_map(Step::FirstToken),
        any::<usize>().prop_map(Step::Succeed),
        any::<usize>().prop_map(Step::Fail),
        any::<usize>().prop_map(Step::Abandon),
        any::<bool>().prop_map(Step::Probe),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_it_keeps_its_rules(steps in proptest::collection::vec(step(), 1..200)) {
        let mut breaker = Breaker::new(SETTINGS);
        let mut now = 0;
        let mut running: Vec<Ticket> = vec![];
        for step in steps {
            let before = breaker.state();
            let took = |running: &mut Vec<Ticket>, at: usize| {
                (!running.is_empty()).then(|| running.swap_remove(at % running.len()))
            };
            match step {
                Step::Wait(ms) => now += ms,
                Step::Admit(alternative) => match breaker.admit(now, alternative) {
                    Admission::Admitted(t) => {
                        prop_assert_ne!(before, BreakerState::Open, "open lets nothing pass");
                        running.push(t);
                    }
                    Admission::Refused { retry_in } => {
                        prop_assert_ne!(before, BreakerState::Closed, "closed lets all pass");
                        prop_assert!((1..=SETTINGS.open_max_ms).contains(&retry_in));
                    }
                },
                Step::FirstToken(at) => if !running.is_empty() {
                    let t = running[at % running.len()];
                    breaker.first_token(t);
                },
                Step::Succeed(at) => if let Some(t) = took(&mut running, at) {
                    breaker.succeeded(t);
                    prop_assert!(before != BreakerState::Open || breaker.state() == BreakerState::Open);
                },
                Step::Fail(at) => if let Some(t) = took(&mut running, at) {
                    breaker.failed(t, now);
                    prop_assert!(before != BreakerState::Open || breaker.state() == BreakerState::Open);
                },
                Step::Abandon(at) => if let Some(t) = took(&mut running, at) {
                    breaker.abandoned(t);
                    prop_assert_eq!(breaker.state(), before, "an absent client says nothing");
                },
                Step::Probe(alive) => if breaker.probe_due(now) {
                    breaker.probed(alive, now);
                    prop_assert_ne!(breaker.state(), BreakerState::Closed, "a probe closes nothing");
                },
            }
        }
        // When faults stop, it closes: one probe, one good request.
        now += SETTINGS.open_max_ms;
        for t in running.drain(..) {
            breaker.abandoned(t);
        }
        if breaker.probe_due(now) {
            breaker.probed(true, now);
        }
        match breaker.admit(now, true) {
            Admission::Admitted(t) => breaker.succeeded(t),
            Admission::Refused { .. } => prop_assert!(false, "stuck in {:?}", breaker.state()),
        }
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
