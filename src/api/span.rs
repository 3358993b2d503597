//! Lengths of time as people write them in the resource (`500ms`, `30s`, `1h30m`), with bounds
//! that are part of the type. Decides the syntax and the bounds; never reads a clock.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use kube::core::{Rule, validate};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a [`Span`] looks like: one to four pairs of a whole number and a unit.
pub const SPAN_PATTERN: &str = "^([0-9]{1,6}(ms|s|m|h)){1,4}$";

/// A length of time between `MIN_MS` and `MAX_MS` milliseconds, kept as written.
///
/// The type carries the text, because the resource must come back as it was written; [`Self::get`]
/// gives the length. The bounds are in the generated schema, as a rule whose message names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span<const MIN_MS: u64, const MAX_MS: u64>(String);

impl<const MIN_MS: u64, const MAX_MS: u64> Span<MIN_MS, MAX_MS> {
    /// Takes the text as it is; [`Self::get`] says whether it is a length of time within bounds.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The length of time.
    ///
    /// # Errors
    /// When the text is not a length of time, or outside the bounds of this type; the message
    /// says what is allowed.
    pub fn get(&self) -> Result<Duration, SpanError> {
        let length = parse_span(&self.0)
            .filter(|length| (MIN_MS..=MAX_MS).contains(&saturating_millis(*length)));
        length.ok_or_else(|| SpanError {
            found: self.0.clone(),
            allowed: Self::allowed(),
        })
    }

    /// What is allowed, in words.
    fn allowed() -> String {
        format!(
            "a length of time from {} to {}",
            format_span(Duration::from_millis(MIN_MS)),
            format_span(Duration::from_millis(MAX_MS))
        )
    }

    /// A length of time inside the bounds that serves as an example.
    fn example() -> String {
        let middle = [10_000, 60_000, 1_000, 3_600_000, MIN_MS]
            .into_iter()
            .find(|millis| (MIN_MS..=MAX_MS).contains(millis));
        format_span(Duration::from_millis(middle.unwrap_or(MAX_MS)))
    }
}

/// A text that is not a length of time within the bounds asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{found}\" is not {allowed}")]
pub struct SpanError {
    /// The text found.
    pub found: String,
    /// What is allowed, in words.
    pub allowed: String,
}

impl<const MIN_MS: u64, const MAX_MS: u64> fmt::Display for Span<MIN_MS, MAX_MS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MIN_MS: u64, const MAX_MS: u64> JsonSchema for Span<MIN_MS, MAX_MS> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Span{MIN_MS}To{MAX_MS}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": 28,
            "pattern": SPAN_PATTERN,
        });
        let rule = Rule::new(format!(
            "duration(self) >= duration('{MIN_MS}ms') && duration(self) <= duration('{MAX_MS}ms')"
        ))
        .message(format!("{}; write for example {}", Self::allowed(), Self::example()).as_str());
        // Serialising a rule of two strings cannot fail; without it the bounds are still checked
        // by `get`.
        let _infallible = validate(&mut schema, rule);
        schema
    }
}

fn saturating_millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Reads `500ms`, `30s`, `5m`, `1h30m`; `None` when the text is not a length of time.
pub fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let amount: u64 = rest.get(..digits)?.parse().ok()?;
        let (unit, after) = split_unit(rest.get(digits..)?)?;
        total = total.checked_add(Duration::from_millis(amount.checked_mul(unit)?))?;
        rest = after;
    }
    Some(total)
}

/// Milliseconds of the unit at the start of `text`, and what follows it.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    // `ms` before `m`: the longer unit wins.
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    units
        .into_iter()
        .find_map(|(unit, millis)| Some((millis, text.strip_prefix(unit)?)))
}

/// Writes a length of time in the syntax of [`parse_span`], in whole milliseconds.
pub fn format_span(length: Duration) -> String {
    let mut millis = saturating_millis(length);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let amount = millis / size;
        if amount > 0 {
            text.push_str(&amount.to_string());
            text.push_str(unit);
            millis %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    type TenMsToAMinute = Span<10, 60_000>;

    #[test]
    fn a_span_is_read_as_people_write_it() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(
                parse_span(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_span_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "1.5s",
            "5d",
            "5sm",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn a_span_is_written_the_way_it_is_read() {
        for text in ["0s", "500ms", "30s", "5m", "1h30m", "1h1m1s1ms"] {
            assert_eq!(parse_span(text).map(format_span).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_span_outside_its_bounds_says_what_is_allowed() {
        let error = TenMsToAMinute::new("2m").get().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"2m\" is not a length of time from 10ms to 1m"
        );
        assert_eq!(TenMsToAMinute::new("1m").get(), Ok(Duration::from_mins(1)));
    }
}
