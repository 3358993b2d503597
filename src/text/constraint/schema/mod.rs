//! JSON schemas from clients: bounded, satisfiable as far as can be told, and in terms that the
//! grammar compiler knows.

mod finite;
mod limits;
mod one_of;

use serde_json::{Map, Value, json};

use super::ConstraintError;

/// The library's own keyword, which sets options: not for clients.
const OPTIONS: &str = "x-guidance";

/// What to do about keywords that cannot be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsupported {
    /// The client asked for exactly this schema.
    Refuse,
    /// The schema describes; the answer is not promised to follow all of it.
    Ignore,
}

/// A client's schema, checked, with our options.
pub(super) fn prepare(schema: &Value, unsupported: Unsupported) -> Result<Value, ConstraintError> {
    let mut prepared = match schema {
        Value::Object(_) => schema.clone(),
        Value::Bool(true) => json!({}),
        Value::Bool(false) => return refuse("false: no value can satisfy it"),
        _ => return refuse("a schema is an object"),
    };
    limits::check(schema)?;
    if !finite::has_finite_value(schema) {
        return refuse("no finite value can satisfy it: it requires itself");
    }
    remove_options(&mut prepared);
    if unsupported == Unsupported::Refuse {
        one_of::rewrite(&mut prepared, schema)?;
    }
    if let Value::Object(members) = &mut prepared {
        members.insert(OPTIONS.into(), options(unsupported));
    }
    Ok(prepared)
}

/// JSON on one line, a space after comma and colon, as models write it most. Free white space
/// would let a weak model fill its answer with it.
fn options(unsupported: Unsupported) -> Value {
    json!({
        "whitespace_flexible": false,
        "item_separator": ", ",
        "key_separator": ": ",
        "lenient": unsupported == Unsupported::Ignore,
    })
}

fn refuse<T>(problem: impl Into<String>) -> Result<T, ConstraintError> {
    Err(ConstraintError::Schema(problem.into()))
}

fn remove_options(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove(OPTIONS);
            members.values_mut().for_each(remove_options);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_options),
        _ => {}
    }
}

/// The schema that `members` refers to with `$ref`, when it is a part of `root`.
fn referenced<'s>(
    root: &'s Value,
    members: &'s Map<String, Value>,
) -> Option<(&'s str, &'s Value)> {
    let reference = members.get("$ref")?.as_str()?;
    Some((reference, root.pointer(reference.strip_prefix('#')?)?))
}
