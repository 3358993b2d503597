//! What the schema objects to, in words: what is allowed, and what to write instead.

use serde_json::Value;

use super::hints;
use super::schema::{Objection, ObjectionKind, StrictSchema};
use super::words::{describe, nearest, type_name};
use crate::api::Problem;

/// An objection as a problem.
pub(super) fn problem(schema: &StrictSchema, objection: &Objection<'_>) -> Problem {
    let (found, node) = (objection.found, objection.node);
    let path = objection.at.to_string();
    match &objection.kind {
        ObjectionKind::Unknown(field) => unknown(schema, objection, field),
        ObjectionKind::Missing(field) => missing(objection, field),
        ObjectionKind::Type(wanted) => {
            let allowed = format!("must be {}", type_name(wanted));
            Problem::new(
                path,
                describe(found),
                allowed,
                type_fix(wanted, found, node),
            )
        }
        ObjectionKind::Choice => choice(path, found, node),
        ObjectionKind::Minimum => range(path, found, node, "minimum"),
        ObjectionKind::Maximum => range(path, found, node, "maximum"),
        ObjectionKind::TooLong => {
            let limit = describe(node.get("maxLength").unwrap_or(&Value::Null));
            let allowed = format!("at most {limit} characters");
            Problem::new(path, describe(found), allowed, "write a shorter one")
        }
        ObjectionKind::Text => text(path, found, node),
        ObjectionKind::TooMany => count(path, found, node, ["maxItems", "maxProperties"]),
        ObjectionKind::TooFew => count(path, found, node, ["minItems", "minProperties"]),
        ObjectionKind::Other(message) => Problem::new(path, describe(found), message, ""),
    }
}

fn unknown(schema: &StrictSchema, objection: &Objection<'_>, field: &str) -> Problem {
    let here = objection.at.to_string();
    let names = fields_of(objection.node);
    let elsewhere = || {
        let mut places = Vec::new();
        find_field(schema.strict(), "", field, &mut places);
        places
    };
    let fix = if let Some(near) = nearest(field, names.iter().map(String::as_str)) {
        format!("write {near}")
    } else if let [place, ..] = elsewhere().as_slice() {
        format!("write it as {place}")
    } else {
        "remove it".to_owned()
    };
    let around = if here.is_empty() { "here" } else { &here };
    Problem::new(
        objection.at.field(field).to_string(),
        objection.found.get(field).map(describe).unwrap_or_default(),
        format!(
            "there is no field {field} in {around}, only {}",
            names.join(", ")
        ),
        fix,
    )
}

fn missing(objection: &Objection<'_>, field: &str) -> Problem {
    let path = objection.at.field(field).to_string();
    let node = objection
        .node
        .get("properties")
        .and_then(|all| all.get(field));
    let description = node
        .and_then(|node| node.get("description"))
        .and_then(Value::as_str)
        .and_then(|text| text.split(['.', ':']).next())
        .map(|sentence| format!(" ({})", sentence.replace('\n', " ")))
        .unwrap_or_default();
    let fix = hints::for_missing(&path).map_or_else(
        || {
            let pattern = node
                .and_then(|node| node.get("pattern"))
                .and_then(Value::as_str);
            let example = pattern
                .and_then(hints::for_pattern)
                .map(|hint| hint.example);
            format!("write {field}: {}", example.unwrap_or("…"))
        },
        |example| format!("write {example}"),
    );
    Problem::new(path, "", format!("{field} must be there{description}"), fix)
}

fn type_fix(wanted: &str, found: &Value, node: &Value) -> String {
    match (wanted, found) {
        ("integer" | "number", Value::String(text)) if text.parse::<f64>().is_ok() => {
            format!("write {text} without quotes")
        }
        ("integer", Value::Number(number)) => {
            format!("write {:.0}", number.as_f64().unwrap_or_default())
        }
        ("string", Value::Number(_) | Value::Bool(_)) => {
            format!("write \"{found}\" in quotes{}", example(node))
        }
        ("array", Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
            format!(
                "write [{}]",
                found
                    .as_str()
                    .map_or_else(|| found.to_string(), str::to_owned)
            )
        }
        ("boolean", _) => "write true or false, without quotes".to_owned(),
        ("object", _) => format!("write a block with {}", fields_of(node).join(", ")),
        ("integer" | "number", _) => {
            let limit = node.get("default").or_else(|| node.get("minimum"));
            format!(
                "write for example {}",
                limit.map_or_else(|| "1".to_owned(), describe)
            )
        }
        _ => format!("write {}{}", type_name(wanted), example(node)),
    }
}

fn example(node: &Value) -> String {
    let pattern = node.get("pattern").and_then(Value::as_str);
    pattern
        .and_then(hints::for_pattern)
        .map(|hint| format!(", for example {}", hint.example))
        .unwrap_or_default()
}

fn choice(path: String, found: &Value, node: &Value) -> Problem {
    let options: Vec<&str> = node
        .get("enum")
        .and_then(Value::as_array)
        .map(|options| options.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let meant = found
        .as_str()
        .and_then(|text| nearest(text, options.iter().copied()));
    let write = meant
        .or_else(|| options.first().copied())
        .unwrap_or_default();
    Problem::new(
        path,
        describe(found),
        format!("one of {}", options.join(", ")),
        format!("write {write}"),
    )
}

fn range(path: String, found: &Value, node: &Value, broken: &str) -> Problem {
    let bound = |name: &str| node.get(name).map(describe);
    let allowed = match (bound("minimum"), bound("maximum")) {
        (Some(low), Some(high)) => format!("a number from {low} to {high}"),
        (Some(low), None) => format!("a number of at least {low}"),
        (None, Some(high)) => format!("a number of at most {high}"),
        (None, None) => "a number".to_owned(),
    };
    let fix = bound(broken)
        .map(|limit| format!("write {limit}"))
        .unwrap_or_default();
    Problem::new(path, describe(found), allowed, fix)
}

fn text(path: String, found: &Value, node: &Value) -> Problem {
    let pattern = node.get("pattern").and_then(Value::as_str);
    if let Some(hint) = pattern.and_then(hints::for_pattern) {
        let fix = format!("write for example {}", hint.example);
        return Problem::new(path, describe(found), hint.allowed, fix);
    }
    let least = describe(node.get("minLength").unwrap_or(&Value::Null));
    let allowed = format!("at least {least} characters");
    Problem::new(
        path,
        describe(found),
        allowed,
        "write a longer one, or remove it",
    )
}

fn count(path: String, found: &Value, node: &Value, limits: [&str; 2]) -> Problem {
    let limit = limits
        .iter()
        .find_map(|name| node.get(*name))
        .and_then(Value::as_u64);
    let limit = limit.unwrap_or_default();
    let there = found
        .as_array()
        .map(Vec::len)
        .or_else(|| found.as_object().map(serde_json::Map::len));
    let there = there
        .and_then(|there| u64::try_from(there).ok())
        .unwrap_or_default();
    let (allowed, fix) = if there > limit {
        (
            format!("at most {limit} entries"),
            format!("remove {}", there - limit),
        )
    } else {
        (
            format!("at least {limit} entries"),
            format!("add {}", limit - there),
        )
    };
    Problem::new(path, format!("{there} entries"), allowed, fix)
}

fn fields_of(node: &Value) -> Vec<String> {
    let properties = node.get("properties").and_then(Value::as_object);
    properties
        .map(|all| all.keys().cloned().collect())
        .unwrap_or_default()
}

/// Places of the fields with this name, but for capitals.
fn find_field(schema: &Value, path: &str, name: &str, places: &mut Vec<String>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (field, inside) in properties {
        let place = if path.is_empty() {
            field.clone()
        } else {
            format!("{path}.{field}")
        };
        if place == "status" || place == "metadata" {
            continue;
        }
        if field.eq_ignore_ascii_case(name) {
            places.push(place.clone());
        }
        find_field(inside, &place, name, places);
    }
}
