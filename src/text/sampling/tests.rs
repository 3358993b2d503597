#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "small whole numbers, and logits made of draws"
)]

use proptest::prelude::*;

use super::*;

const VOCABULARY: u32 = 16;

fn row() -> Vec<f32> {
    (0..VOCABULARY)
        .map(|token| ((token * 7919) % 13) as f32 / 3.0 - 2.0)
        .collect()
}

fn softmax(row: &[f32], temperature: f32) -> Vec<f64> {
    let weights: Vec<f64> = row
        .iter()
        .map(|logit| f64::from(logit / temperature).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Ids by falling probability.
fn ranked(probabilities: &[f64]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..probabilities.len()).collect();
    ids.sort_by(|a, b| {
        probabilities[*b]
            .total_cmp(&probabilities[*a])
            .then(a.cmp(b))
    });
    ids
}

/// What each filter is defined as, done with a sort.
fn reference(params: &SamplingParams, row: &[f32]) -> Vec<f64> {
    let mut probabilities = softmax(row, params.temperature);
    let ids = ranked(&probabilities);
    let greatest = probabilities[ids[0]];
    let normalise = |probabilities: &mut Vec<f64>| {
        let sum: f64 = probabilities.iter().sum();
        for one in probabilities {
            *one /= sum;
        }
    };
    if params.top_k > 0 {
        ids.iter()
            .skip(params.top_k as usize)
            .for_each(|id| probabilities[*id] = 0.0);
        normalise(&mut probabilities);
    }
    if params.top_p < 1.0 {
        let mut before = 0.0;
        for (rank, id) in ids.iter().enumerate() {
            let own = probabilities[*id];
            if rank > 0 && before >= f64::from(params.top_p) {
                probabilities[*id] = 0.0;
            }
            before += own;
        }
        normalise(&mut probabilities);
    }
    let full = softmax(row, params.temperature);
    for (id, probability) in probabilities.iter_mut().enumerate() {
        if full[id] < f64::from(params.min_p) * greatest {
            *probability = 0.0;
        }
    }
    normalise(&mut probabilities);
    probabilities
}

fn frequencies(params: &SamplingParams, row: &[f32], draws: u32) -> Vec<f64> {
    let mut sampler = Sampler::new(params.clone(), &[]).unwrap();
    let mut counts = vec![0_u32; row.len()];
    for _ in 0..draws {
        counts[sampler.sample(row, None).unwrap() as usize] += 1;
    }
    counts
        .into_iter()
        .map(|count| f64::from(count) / f64::from(draws))
        .collect()
}

#[test]
fn what_is_drawn_follows_the_distribution_each_parameter_defines() {
    let shapes = [
        SamplingParams::default(),
        SamplingParams {
            temperature: 0.5,
            ..SamplingParams::default()
        },
        SamplingParams {
            temperature: 2.0,
            top_k: 5,
            ..SamplingParams::default()
        },
        SamplingParams {
            top_p: 0.8,
            ..SamplingParams::default()
        },
        SamplingParams {
            min_p: 0.2,
            ..SamplingParams::default()
        },
        SamplingParams {
            top_k: 10,
            top_p: 0.9,
            min_p: 0.1,
            seed: 7,
            ..SamplingParams::default()
        },
        SamplingParams {
            top_p: 0.0,
            ..SamplingParams::default()
        },
    ];
    let draws = 60_000;
    for params in shapes {
        let expected = reference(&params, &row());
        let seen = frequencies(&params, &row(), draws);
        for (token, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
            // Five standard deviations of a binomial share.
            let allowed = 5.0 * (expected * (1.0 - expected) / f64::from(draws)).sqrt();
            assert!(
                (seen - expected).abs() <= allowed,
                "{params:?} {token}: {seen} {expected}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_seed_others() {
    let tokens = |seed| {
        let params = SamplingParams {
            seed,
            ..SamplingParams::default()
        };
        let mut sampler = Sampler::new(params, &[]).unwrap();
        (0..64)
            .map(|_| sampler.sample(&row(), None).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
}

#[test]
fn the_generator_is_splitmix64() {
    // First output of the reference implementation for seed 1234567: 6457827717110365317.
    let mut random = Random(1_234_567);
    assert!(
        (random.next() - (6_457_827_717_110_365_317_u64 >> 11) as f64 / 2f64.powi(53)).abs()
            < 1e-18
    );
}

#[test]
fn temperature_zero_takes_the_greatest_and_the_lowest_id_of_equals() {
    let params = SamplingParams {
        temperature: 0.0,
        ..SamplingParams::default()
    };
    let mut sampler = Sampler::new(params, &[]).unwrap();
    assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, f32::NAN], None), Ok(1));
    assert_eq!(
        sampler.sample(&[f32::NAN, f32::NEG_INFINITY], None),
        Err(SamplingError::NoToken)
    );
    assert_eq!(sampler.sample(&[], None), Err(SamplingError::NoToken));
}

#[test]
fn only_allowed_tokens_are_drawn() {
    let mask = TokenMask::of(&[3, 9, 40], VOCABULARY);
    for temperature in [0.0, 1.0, 50.0] {
        let params = SamplingParams {
            temperature,
            top_k: 4,
            ..SamplingParams::default()
        };
        let mut sampler = Sampler::new(params, &[]).unwrap();
        for _ in 0..200 {
            assert!([3, 9].contains(&sampler.sample(&row(), Some(&mask)).unwrap()));
        }
        let none = TokenMask::of(&[], VOCABULARY);
        assert_eq!(
            sampler.sample(&row(), Some(&none)),
            Err(SamplingError::NoToken)
        );
    }
}

#[test]
fn penalties_follow_their_formulae() {
    let params = SamplingParams {
        temperature: 0.0,
        repetition_penalty: 1.5,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(2, 5.5), (99, 1.0)],
        ..SamplingParams::default()
    };
    let mut penalties = Penalties::new(&params, &[0, 1]);
    for token in [1, 3, 3] {
        penalties.accept(token);
    }
    let mut row = vec![3.0, -3.0, 1.0, 6.0, 5.0];
    penalties.apply(&mut row);
    assert_eq!(
        row,
        [3.0 / 1.5, -3.0 * 1.5 - 0.75, 1.0, 6.0 / 1.5 - 1.0, 5.0]
    );

    let mut sampler = Sampler::new(params, &[0, 1]).unwrap();
    assert_eq!(
        sampler.sample(&[3.0, -3.0, 1.0, 6.0, 5.0], None),
        Ok(2),
        "bias comes last"
    );
    let params = SamplingParams {
        logit_bias: Vec::new(),
        ..sampler.params.clone()
    };
    let mut sampler = Sampler::new(params, &[0, 1]).unwrap();
    let row = [3.0, -3.0, 1.0, 6.0, 5.8];
    assert_eq!(sampler.sample(&row, None), Ok(3));
    sampler.accept(3);
    assert_eq!(
        sampler.sample(&row, None),
        Ok(4),
        "6 / 1.5 - 0.75 is below 5.8"
    );
}

#[test]
fn a_repetition_window_forgets() {
    let params = SamplingParams {
        temperature: 0.0,
        repetition_penalty: 2.0,
        repetition_window: Some(2),
        ..SamplingParams::default()
    };
    let mut sampler = Sampler::new(params, &[0, 0, 1, 2]).unwrap();
    let row = [4.0, 5.0, 1.0];
    assert_eq!(
        sampler.sample(&row, None),
        Ok(0),
        "1 is in the window, 0 no longer"
    );
    sampler.accept(0);
    assert_eq!(
        sampler.sample(&row, None),
        Ok(1),
        "now 0 is, and 1 no longer"
    );
}

#[test]
fn parameters_outside_their_range_are_named() {
    for (params, field) in [
        (
            SamplingParams {
                temperature: -0.1,
                ..SamplingParams::default()
            },
            "temperature",
        ),
        (
            SamplingParams {
                temperature: f32::NAN,
                ..SamplingParams::default()
            },
            "temperature",
        ),
        (
            SamplingParams {
                top_p: 1.1,
                ..SamplingParams::default()
            },
            "top_p",
        ),
        (
            SamplingParams {
                min_p: f32::INFINITY,
                ..SamplingParams::default()
            },
            "min_p",
        ),
        (
            SamplingParams {
                repetition_penalty: 0.0,
                ..SamplingParams::default()
            },
            "repetition_penalty",
        ),
        (
            SamplingParams {
                presence_penalty: 101.0,
                ..SamplingParams::default()
            },
            "presence_penalty",
        ),
        (
            SamplingParams {
                frequency_penalty: f32::NAN,
                ..SamplingParams::default()
            },
            "frequency_penalty",
        ),
        (
            SamplingParams {
                logit_bias: vec![(0, f32::NAN)],
                ..SamplingParams::default()
            },
            "logit_bias",
        ),
    ] {
        let error = Sampler::new(params, &[]).unwrap_err();
        assert!(matches!(&error, SamplingError::Parameter { field: found, .. } if *found == field));
        assert!(error.to_string().starts_with(field));
    }
}

#[test]
fn logprobs_are_the_logarithms_of_the_softmax() {
    let probabilities = softmax(&row(), 1.0);
    let found = logprobs(&row(), 4, 5);
    assert!((f64::from(found.logprob) - probabilities[4].ln()).abs() < 1e-5);
    let ids: Vec<usize> = found.top.iter().map(|(token, _)| *token as usize).collect();
    assert_eq!(ids, ranked(&probabilities)[..5]);
    for (token, logprob) in found.top {
        assert!((f64::from(logprob) - probabilities[token as usize].ln()).abs() < 1e-5);
    }
    assert!(logprobs(&row(), 4, 0).top.is_empty());
    assert_eq!(logprobs(&[0.0, 0.0], 1, 20).top.len(), 2);
}

/// Where a token lies in the cumulative distribution over ids, by sorting the whole vocabulary.
fn interval(shape: &select::Shape, row: &[f32], token: TokenId) -> (f64, f64) {
    let params = SamplingParams {
        temperature: shape.temperature,
        top_k: u32::try_from(shape.top_k).unwrap(),
        top_p: shape.top_p,
        min_p: shape.min_p,
        ..SamplingParams::default()
    };
    let allowed = reference(&params, row);
    let before: f64 = allowed[..token as usize].iter().sum();
    (before, before + allowed[token as usize])
}

/// Rows of several blocks and parts, as steep as a model's.
fn long_row(seed: u64, length: usize, spread: f32) -> Vec<f32> {
    let mut random = Random(seed);
    let mut bell = || (0..6).map(|_| random.next() as f32 - 0.5).sum::<f32>();
    (0..length).map(|_| bell() * spread).collect()
}

proptest! {
    #[test]
    fn what_is_drawn_is_what_sorting_the_whole_vocabulary_gives(
        (seed, length, spread) in (any::<u64>(), 1usize..5_000, 1.0f32..12.0),
        temperature in 0.3f32..2.0,
        filter in prop_oneof![
            Just((0, 1.0, 0.0)),
            (1usize..200).prop_map(|top_k| (top_k, 1.0, 0.0)),
            (1usize..60, 0.3f32..0.95).prop_map(|(top_k, top_p)| (top_k, top_p, 0.0)),
            (0.3f32..0.95).prop_map(|top_p| (0, top_p, 0.0)),
            (0.01f32..0.5).prop_map(|min_p| (0, 1.0, min_p)),
        ],
        random in 0.0f64..1.0,
    ) {
        let (top_k, top_p, min_p) = filter;
        let shape = select::Shape { temperature, top_k, top_p, min_p };
        let row = long_row(seed, length, spread);
        let token = select::draw(&shape, &row, random, &mut Vec::new()).unwrap();
        let (from, to) = interval(&shape, &row, token);
        // Rounding: of the sums, and of which token is the last one that is kept.
        let slack = 3e-4;
        prop_assert!(from - slack <= random && random <= to + slack, "{token}: {from} {random} {to}");
    }

    #[test]
    fn the_most_probable_are_those_that_a_sort_puts_first(
        (seed, length) in (any::<u64>(), 1usize..5_000),
        count in 0usize..3_000,
        steps in prop_oneof![Just(3.0f32), Just(1e4f32)],
    ) {
        // Coarse steps: many are equal.
        let mut row: Vec<f32> = long_row(seed, length, 8.0).into_iter().map(|logit| (logit * steps).round() / steps).collect();
        row[length / 2] = f32::NAN;
        row[length / 3] = f32::NEG_INFINITY;
        let mut ids: Vec<TokenId> = (0..).zip(&row).filter(|(_, logit)| **logit > f32::NEG_INFINITY).map(|(token, _)| token).collect();
        ids.sort_by(|a, b| row[*b as usize].partial_cmp(&row[*a as usize]).unwrap().then(a.cmp(b)));
        prop_assert_eq!(select::greatest(&row), ids.first().copied());
        ids.truncate(count);
        let found: Vec<TokenId> = select::most_probable(&row, count).into_iter().map(select::Ranked::token).collect();
        prop_assert_eq!(found, ids);
    }

    #[test]
    fn a_row_with_any_number_gives_an_allowed_token(
        row in prop::collection::vec(prop_oneof![-1e30f32..1e30, Just(f32::NEG_INFINITY), Just(f32::INFINITY)], 1..300),
        temperature in 0.0f32..3.0,
        top_k in 0u32..20,
        top_p in 0.0f32..=1.0,
        min_p in 0.0f32..=1.0,
        seed: u64,
    ) {
        let params = SamplingParams { temperature, top_k, top_p, min_p, seed, ..SamplingParams::default() };
        let mut sampler = Sampler::new(params, &[]).unwrap();
        match sampler.sample(&row, None) {
            Ok(token) => prop_assert!(row[token as usize] > f32::NEG_INFINITY),
            Err(error) => {
                prop_assert_eq!(error, SamplingError::NoToken);
                prop_assert!(row.iter().all(|logit| *logit == f32::NEG_INFINITY));
            }
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_sufficient_set(
        row in prop::collection::vec(-8.0f32..8.0, 1..200),
        top_p in 0.01f32..0.99,
        seed: u64,
    ) {
        let params = SamplingParams { top_p, seed, ..SamplingParams::default() };
        let allowed = reference(&params, &row);
        let mut sampler = Sampler::new(params, &[]).unwrap();
        for _ in 0..20 {
            let token = sampler.sample(&row, None).unwrap() as usize;
            // The border may fall either way by rounding.
            let probability = softmax(&row, 1.0)[token];
            let least = allowed.iter().zip(softmax(&row, 1.0)).filter(|(kept, _)| **kept > 0.0)
                .map(|(_, own)| own).fold(f64::INFINITY, f64::min);
            prop_assert!(probability >= least * 0.999);
        }
    }
}
