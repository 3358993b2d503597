//! The ranges of sampling parameters. Errors name the client's field, not ours.

use std::collections::BTreeMap;

use crate::text::sampling::SamplingParams;
use crate::wire::ApiError;

/// Most entries of `logit_bias`.
const MAX_BIASES: usize = 1024;
/// Most stop strings, and the longest one in bytes.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;

/// How tokens are drawn; the seed may still be open.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Everything but the seed.
    pub params: SamplingParams,
    /// Fixed by the client, or drawn when the request is prepared.
    pub seed: Option<u64>,
}

/// A number in a closed range, or its default.
///
/// # Errors
/// 400 naming `field`, the range and what was found.
pub(super) fn in_range(
    field: &str,
    value: Option<f32>,
    (low, high): (f32, f32),
    default: f32,
) -> Result<f32, ApiError> {
    match value {
        None => Ok(default),
        Some(value) if (low..=high).contains(&value) => Ok(value),
        Some(value) => Err(ApiError::field(
            field,
            format!("must be between {low} and {high}, got {value}"),
        )),
    }
}

/// A client's seed as ours: all 64 bits count.
pub(super) const fn seed(seed: i64) -> u64 {
    seed.cast_unsigned()
}

/// OpenAI's `logit_bias`.
///
/// # Errors
/// 400 naming the entry.
pub(super) fn logit_bias(
    biases: Option<BTreeMap<String, f32>>,
) -> Result<Vec<(u32, f32)>, ApiError> {
    let biases = biases.unwrap_or_default();
    if biases.len() > MAX_BIASES {
        return Err(ApiError::field(
            "logit_bias",
            format!("has at most {MAX_BIASES} entries"),
        ));
    }
    biases
        .into_iter()
        .map(|(token, bias)| {
            let field = || format!("logit_bias.{}", token.chars().take(20).collect::<String>());
            let token: u32 = token
                .parse()
                .map_err(|_| ApiError::field(field(), "the key must be a token id"))?;
            let bias = in_range(&field(), Some(bias), (-100.0, 100.0), 0.0)?;
            Ok((token, bias))
        })
        .collect()
}

/// Stop strings.
///
/// # Errors
/// 400 naming the entry.
pub(super) fn stop(field: &str, stop: Option<Vec<String>>) -> Result<Vec<String>, ApiError> {
    let stop = stop.unwrap_or_default();
    if stop.len() > MAX_STOPS {
        return Err(ApiError::field(
            field,
            format!("has at most {MAX_STOPS} strings"),
        ));
    }
    for (index, text) in stop.iter().enumerate() {
        if text.is_empty() || text.len() > MAX_STOP_BYTES {
            return Err(ApiError::field(
                format!("{field}[{index}]"),
                format!("must have 1 to {MAX_STOP_BYTES} bytes, has {}", text.len()),
            ));
        }
    }
    Ok(stop)
}

/// The number of alternatives to report.
///
/// # Errors
/// 400 naming `field`.
pub(super) fn alternatives(field: &str, count: u32) -> Result<u8, ApiError> {
    u8::try_from(count)
        .ok()
        .filter(|count| *count <= 20)
        .ok_or_else(|| ApiError::field(field, format!("must be between 0 and 20, got {count}")))
}

/// How many answers; only one can be had.
///
/// # Errors
/// 400 naming `field`.
pub(super) fn single(field: &str, count: Option<u32>) -> Result<(), ApiError> {
    match count {
        None | Some(1) => Ok(()),
        Some(count) => Err(ApiError::field(
            field,
            format!("only 1 answer per request is supported, got {count}; send several requests"),
        )),
    }
}

/// A field that cannot be honoured and must not be ignored.
///
/// # Errors
/// 400 naming `field` when it is there.
pub(super) fn refuse<T>(field: &str, value: Option<&T>, why: &str) -> Result<(), ApiError> {
    if value.is_some() {
        Err(ApiError::field(field, why))
    } else {
        Ok(())
    }
}
