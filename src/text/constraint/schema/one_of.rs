//! `oneOf` as `anyOf`, where no value can satisfy two of the branches.

use serde_json::{Map, Value};

use super::{ConstraintError, referenced, refuse};

/// Replaces the `oneOf` of one schema, whose references lead into `root`.
pub(super) fn rewrite(
    members: &mut Map<String, Value>,
    root: &Value,
) -> Result<(), ConstraintError> {
    let Some(Value::Array(branches)) = members.get("oneOf") else {
        return Ok(());
    };
    if !are_disjoint(branches, root) {
        return refuse(
            "oneOf needs branches that exclude each other: different types, or objects that all \
             require one property with different const values; otherwise use anyOf",
        );
    }
    if let Some(branches) = members.remove("oneOf") {
        merge(members, branches);
    }
    Ok(())
}

fn merge(members: &mut Map<String, Value>, branches: Value) {
    if !members.contains_key("anyOf") {
        members.insert("anyOf".into(), branches);
        return;
    }
    let both = Value::Object(Map::from_iter([("anyOf".to_owned(), branches)]));
    match members
        .entry("allOf")
        .or_insert_with(|| Value::Array(Vec::new()))
    {
        Value::Array(all) => all.push(both),
        other => *other = Value::Array(vec![both]),
    }
}

fn are_disjoint(branches: &[Value], root: &Value) -> bool {
    let branches: Vec<&Value> = branches
        .iter()
        .map(|branch| resolve(branch, root))
        .collect();
    let mut pairs = (0..branches.len())
        .flat_map(|first| (first + 1..branches.len()).map(move |second| (first, second)));
    pairs.all(|(first, second)| excludes(branches[first], branches[second], root))
}

fn resolve<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
    let mut schema = schema;
    for _ in 0..16 {
        match schema
            .as_object()
            .and_then(|members| referenced(root, members))
        {
            Some((_, target)) => schema = target,
            None => break,
        }
    }
    schema
}

/// Whether no value satisfies both.
fn excludes(one: &Value, other: &Value, root: &Value) -> bool {
    let kinds = (kinds(one), kinds(other));
    if let (Some(one), Some(other)) = kinds
        && !one.iter().any(|kind| other.contains(kind))
    {
        return true;
    }
    if let (Some(one), Some(other)) = (values(one), values(other)) {
        return !one.iter().any(|value| other.contains(value));
    }
    let required = |schema: &Value, name: &str| {
        let list = schema.get("required").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|one| one == name))
    };
    let property = |schema: &'_ Value, name: &str| {
        schema
            .get("properties")
            .and_then(|all| all.get(name))
            .cloned()
    };
    let names = one
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::keys);
    names
        .filter(|name| required(one, name) && required(other, name))
        .any(|name| match (property(one, name), property(other, name)) {
            (Some(first), Some(second)) => {
                let (first, second) = (resolve(&first, root), resolve(&second, root));
                match (values(first), values(second)) {
                    (Some(first), Some(second)) => {
                        !first.iter().any(|value| second.contains(value))
                    }
                    _ => false,
                }
            }
            _ => false,
        })
}

/// The values a schema names one by one.
fn values(schema: &Value) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        _ => None,
    }
}

/// The types a schema allows; numbers are one, whether whole or not.
fn kinds(schema: &Value) -> Option<Vec<&str>> {
    let name = |value: &Value| -> Option<&'static str> {
        Some(match value.as_str()? {
            "null" => "null",
            "boolean" => "boolean",
            "integer" | "number" => "number",
            "string" => "string",
            "array" => "array",
            "object" => "object",
            _ => return None,
        })
    };
    let of = |value: &Value| -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    };
    match schema.get("type") {
        Some(Value::Array(names)) => names.iter().map(name).collect(),
        Some(one) => name(one).map(|name| vec![name]),
        None => values(schema).map(|values| values.into_iter().map(of).collect()),
    }
}
