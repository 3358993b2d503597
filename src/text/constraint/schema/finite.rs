//! Whether a schema has a finite value: one that requires itself has none, and a grammar made of it
//! would never end.

use std::cell::Cell;

use serde_json::{Map, Value};

use super::referenced;

/// Schemas visited at most: references can multiply, and past the limit it cannot be told.
const MAX_STEPS: usize = 20_000;
/// References followed in a row.
const MAX_PATH: usize = 64;

/// Whether some finite value satisfies `schema`. Says yes where it cannot tell.
pub(super) fn has_finite_value(schema: &Value) -> bool {
    let finite = Finite {
        root: schema,
        steps: Cell::new(0),
    };
    finite.value(schema, &mut Vec::new())
}

struct Finite<'s> {
    root: &'s Value,
    steps: Cell<usize>,
}

impl<'s> Finite<'s> {
    /// `path`: the references that are being followed.
    fn value(&self, schema: &'s Value, path: &mut Vec<&'s str>) -> bool {
        let Value::Object(members) = schema else {
            return *schema != Value::Bool(false);
        };
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_STEPS || path.len() > MAX_PATH {
            return true;
        }
        self.reference(members, path)
            && self.combined(members, path)
            && self.object(members, path)
            && self.array(members, path)
    }

    fn reference(&self, members: &'s Map<String, Value>, path: &mut Vec<&'s str>) -> bool {
        let Some((reference, target)) = referenced(self.root, members) else {
            return true;
        };
        if path.contains(&reference) {
            return false;
        }
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
        let listed = members.get("prefixItems").and_then(Value::as_array);
        let first = listed.and_then(|all| all.first());
        first
            .or_else(|| members.get("items"))
            .is_none_or(|one| self.value(one, path))
    }
}

fn only_type(members: &Map<String, Value>, name: &str) -> bool {
    members.get("type").and_then(Value::as_str) == Some(name)
}
