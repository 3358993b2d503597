//! How cross-field rules get into the generated schema.
//!
//! Every message has the shape `what is allowed; what to write`, so that the API server's plain
//! refusal and [`crate::api::Problem`] say the same.

use kube::core::{Rule, validate};
use schemars::Schema;

/// Adds a CEL rule to a schema: `rule` must hold, else `message` is shown.
pub(super) fn add(schema: &mut Schema, rule: &str, message: &str) {
    // Serialising a rule of two strings cannot fail; `tests/suite/crds.rs` compares the result.
    let _infallible = validate(schema, Rule::new(rule).message(message));
}

/// Applies `mark` to the schema of the strings in a list or a map.
pub(super) fn bound_strings(schema: &mut Schema, inner: &str, max_length: u64) {
    if let Some(strings) = schema
        .get_mut(inner)
        .and_then(|value| value.as_object_mut())
    {
        strings.insert("maxLength".to_owned(), max_length.into());
    }
}
