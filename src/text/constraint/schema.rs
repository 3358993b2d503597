//! JSON schemas from clients: bounded, and satisfiable as far as can be told.

use std::cell::Cell;

use serde_json::{Map, Value, json};

use super::ConstraintError;

/// Most nested values of a schema. Reading and compiling recurse.
const MAX_DEPTH: usize = 64;
/// Most values of a schema, counted with everything in it.
const MAX_VALUES: usize = 20_000;
/// Most bytes of all strings of a schema.
const MAX_STRING_BYTES: usize = 256 * 1024;
/// Largest count a schema may ask for (`minItems`, `maxLength`, …): grammars spell counts out.
const MAX_COUNT: u64 = 100_000;
/// Keywords whose value is such a count.
const COUNTS: [&str; 8] = [
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
];
/// The library's own keyword, which sets options: not for clients.
const OPTIONS: &str = "x-guidance";

/// JSON on one line, a space after comma and colon, as models write it most. Free white space
/// would let a weak model fill its answer with it.
pub(super) fn style() -> Value {
    json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " })
}

/// A client's schema, checked, with our options.
pub(super) fn prepare(schema: &Value) -> Result<Value, ConstraintError> {
    let mut prepared = match schema {
        Value::Object(_) => schema.clone(),
        Value::Bool(true) => json!({}),
        Value::Bool(false) => return refuse("false: no value can satisfy it"),
        _ => return refuse("a schema is an object"),
    };
    Measure::default().check(schema, 0)?;
    remove_options(&mut prepared);
    let finite = Finite {
        root: schema,
        steps: Cell::new(0),
    };
    if !finite.value(schema, &mut Vec::new()) {
        return refuse("no finite value can satisfy it: it requires itself");
    }
    if let Value::Object(members) = &mut prepared {
        members.insert(OPTIONS.into(), style());
    }
    Ok(prepared)
}

fn refuse<T>(problem: impl Into<String>) -> Result<T, ConstraintError> {
    Err(ConstraintError::Schema(problem.into()))
}

#[derive(Default)]
struct Measure {
    values: usize,
    string_bytes: usize,
}

impl Measure {
    fn check(&mut self, value: &Value, depth: usize) -> Result<(), ConstraintError> {
        self.values += 1;
        if depth > MAX_DEPTH {
            return refuse(format!("nested more than {MAX_DEPTH} deep"));
        }
        match value {
            Value::String(text) => self.string_bytes += text.len(),
            Value::Array(items) => {
                for item in items {
                    self.check(item, depth + 1)?;
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    self.string_bytes += name.len();
                    check_count(name, member)?;
                    self.check(member, depth + 1)?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        if self.values > MAX_VALUES || self.string_bytes > MAX_STRING_BYTES {
            return refuse(format!(
                "too large: at most {MAX_VALUES} values and {MAX_STRING_BYTES} bytes of strings"
            ));
        }
        Ok(())
    }
}

fn check_count(name: &str, value: &Value) -> Result<(), ConstraintError> {
    let too_large = value.as_u64().is_some_and(|count| count > MAX_COUNT)
        || value.as_f64().is_some_and(|count| count > 100_000.0);
    if COUNTS.contains(&name) && too_large {
        return refuse(format!(
            "{name} is {value}, at most {MAX_COUNT} is supported"
        ));
    }
    Ok(())
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

/// Whether a schema has a finite value. Says yes where it cannot tell.
struct Finite<'s> {
    root: &'s Value,
    /// Schemas visited: references can multiply, and past the limit it cannot be told.
    steps: Cell<usize>,
}

impl<'s> Finite<'s> {
    /// `path`: the references that are being followed.
    fn value(&self, schema: &'s Value, path: &mut Vec<&'s str>) -> bool {
        let Value::Object(members) = schema else {
            return *schema != Value::Bool(false);
        };
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_VALUES || path.len() > MAX_DEPTH {
            return true;
        }
        self.reference(members, path)
            && self.combined(members, path)
            && self.object(members, path)
            && self.array(members, path)
    }

    fn reference(&self, members: &'s Map<String, Value>, path: &mut Vec<&'s str>) -> bool {
        let Some(Value::String(reference)) = members.get("$ref") else {
            return true;
        };
        if path.contains(&reference.as_str()) {
            return false;
        }
        let Some(target) = reference
            .strip_prefix('#')
            .and_then(|at| self.root.pointer(at))
        else {
            return true;
        };
        path.push(reference);
        let finite = self.value(target, path);
        path.pop();
        finite
    }

    fn combined(&self, members: &'s Map<String, Value>, path: &mut Vec<&'s str>) -> bool {
        let list = |name| members.get(name).and_then(Value::as_array);
        let any = ["anyOf", "oneOf"]
            .into_iter()
            .filter_map(list)
            .all(|branches| {
                branches.is_empty() || branches.iter().any(|branch| self.value(branch, path))
            });
        any && list("allOf").is_none_or(|all| all.iter().all(|one| self.value(one, path)))
    }

    fn object(&self, members: &'s Map<String, Value>, path: &mut Vec<&'s str>) -> bool {
        if !only_type(members, "object") {
            return true;
        }
        let required = members.get("required").and_then(Value::as_array);
        let names = required.into_iter().flatten().filter_map(Value::as_str);
        let property = |name| members.get("properties").and_then(|all| all.get(name));
        names.filter_map(property).all(|one| self.value(one, path))
    }

    fn array(&self, members: &'s Map<String, Value>, path: &mut Vec<&'s str>) -> bool {
        let least = members.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        if least == 0 || !only_type(members, "array") {
            return true;
        }
        let first = members
            .get("prefixItems")
            .and_then(Value::as_array)
            .and_then(|all| all.first());
        first
            .or(members.get("items"))
            .is_none_or(|one| self.value(one, path))
    }
}

fn only_type(members: &Map<String, Value>, name: &str) -> bool {
    members.get("type").and_then(Value::as_str) == Some(name)
}
