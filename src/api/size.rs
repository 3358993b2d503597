//! Amounts of memory and disk as people write them in the resource (`512Mi`, `12Gi`).

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a [`ByteSize`] looks like.
pub const SIZE_PATTERN: &str = "^[1-9][0-9]{0,6}(Mi|Gi)$";

/// An amount of memory or disk, kept as written: a whole number of `Mi` or `Gi`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(String);

impl ByteSize {
    /// Takes the text as it is; [`Self::bytes`] says whether it is an amount.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The amount in bytes; `None` when the text is not an amount.
    pub fn bytes(&self) -> Option<u64> {
        let (number, unit) = if let Some(number) = self.0.strip_suffix("Gi") {
            (number, 1 << 30)
        } else {
            (self.0.strip_suffix("Mi")?, 1 << 20)
        };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        number
            .parse::<u64>()
            .ok()
            .filter(|number| (1..10_000_000).contains(number))?
            .checked_mul(unit)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 3,
            "maxLength": 9,
            "pattern": SIZE_PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_binary_units() {
        assert_eq!(ByteSize::new("512Mi").bytes(), Some(512 << 20));
        assert_eq!(ByteSize::new("12Gi").bytes(), Some(12 << 30));
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        for text in [
            "",
            "Gi",
            "12",
            "12G",
            "0Gi",
            "-1Gi",
            "+1Gi",
            "1.5Gi",
            "99999999Gi",
        ] {
            assert_eq!(ByteSize::new(text).bytes(), None, "{text}");
        }
    }
}
