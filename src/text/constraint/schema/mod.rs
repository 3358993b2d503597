//! JSON schemas from clients: bounded, satisfiable as far as can be told, and in terms that the
//! grammar compiler knows.

mod finite;
mod formats;
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
    for_each_schema(&mut prepared, &mut |members| {
        members.remove(OPTIONS);
        formats::rewrite(members);
        match unsupported {
            Unsupported::Refuse => one_of::rewrite(members, schema),
            // The compiler then takes `oneOf` for `anyOf`.
            Unsupported::Ignore => Ok(()),
        }
    })?;
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

/// What is done to the members of one schema.
type Change<'a> = dyn FnMut(&mut Map<String, Value>) -> Result<(), ConstraintError> + 'a;

/// Calls `change` for `schema` and every schema in it; not for values that only look like one, as
/// in `const` or `default`.
fn for_each_schema(schema: &mut Value, change: &mut Change<'_>) -> Result<(), ConstraintError> {
    let Value::Object(members) = schema else {
        return Ok(());
    };
    change(members)?;
    for (name, member) in members {
        match (name.as_str(), member) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
                Value::Object(schemas),
            ) => schemas
                .values_mut()
                .try_for_each(|one| for_each_schema(one, change))?,
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(schemas)) => {
                schemas
                    .iter_mut()
                    .try_for_each(|one| for_each_schema(one, change))?;
            }
            (
                "items"
                | "additionalItems"
                | "additionalProperties"
                | "contains"
                | "not"
                | "if"
                | "then"
                | "else"
                | "propertyNames"
                | "unevaluatedItems"
                | "unevaluatedProperties",
                one,
            ) => for_each_schema(one, change)?,
            _ => {}
        }
    }
    Ok(())
}

/// The schema that `members` refers to with `$ref`, when it is a part of `root`.
fn referenced<'s>(
    root: &'s Value,
    members: &'s Map<String, Value>,
) -> Option<(&'s str, &'s Value)> {
    let reference = members.get("$ref")?.as_str()?;
    Some((reference, root.pointer(reference.strip_prefix('#')?)?))
}
