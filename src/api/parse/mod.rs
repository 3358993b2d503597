//! Reading a resource: text in, [`ValidatedEngine`] or everything that is wrong with it out.
//!
//! The checks are those of the API server (the generated schema, its CEL rules, unique lists), made
//! strict about unknown fields, and those that only a program can do. A mistake does not hide the
//! next one: what is wrong is taken out, defaults take its place, and the checks go on.

mod convert;
mod hints;
mod objections;
mod path;
mod schema;
mod words;

use std::sync::LazyLock;

use kube::core::cel::{ErrorKind, Validator as CelValidator};
use serde_json::{Map, Value};

use super::problem::Problem;
use super::source::RELATIVE_FILE_MESSAGE;
use super::{InferenceEngine, ValidatedEngine};
use path::Path;
use schema::StrictSchema;

/// Largest file that is read, in bytes. A resource in etcd is at most 1.5 MiB; this one is written by
/// hand.
pub const MAX_FILE_BYTES: usize = 1 << 20;

static SCHEMA: LazyLock<StrictSchema> = LazyLock::new(StrictSchema::new);

/// Where a resource comes from: what is allowed differs in one thing, relative files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A file on this machine.
    File,
    /// A cluster.
    Cluster,
}

/// Reads one `InferenceEngine` from a YAML file, as `run` and `plan` take it.
///
/// # Errors
/// Every mistake in the file, in the order of the paths, each with where it is, what was found, what
/// is allowed and what to write.
pub fn parse(yaml: &str) -> Result<ValidatedEngine, Vec<Problem>> {
    let document = read_document(yaml).map_err(|problem| vec![problem])?;
    check(document, Origin::File)
}

/// Checks a resource that the API server gave us: one that was stored before a rule was added, or
/// under an older version of the definition, may break it.
///
/// # Errors
/// Every mistake, as [`parse`] gives them.
pub fn validate(engine: &InferenceEngine) -> Result<ValidatedEngine, Vec<Problem>> {
    let document = serde_json::to_value(engine).map_err(|error| {
        vec![Problem::new(
            "",
            "a resource that cannot be written as JSON",
            error.to_string(),
            "",
        )]
    })?;
    check(document, Origin::Cluster)
}

/// The one document of a YAML text.
fn read_document(yaml: &str) -> Result<Value, Problem> {
    const FIX: &str = "write a resource like the one that `kubectl apply` takes";
    if yaml.len() > MAX_FILE_BYTES {
        return Err(Problem::new(
            "file",
            format!("{} bytes", yaml.len()),
            format!("a resource file is at most {MAX_FILE_BYTES} bytes"),
            FIX,
        ));
    }
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(yaml).map_err(|error| {
        let place = error.location().map_or_else(
            || "file".to_owned(),
            |at| format!("line {}, column {}", at.line(), at.column()),
        );
        let message = error.without_snippet().to_string();
        Problem::new(place, first_line(&message), "the file must be YAML", FIX)
    })?;
    match (documents.pop(), documents.len()) {
        (None, _) => Err(Problem::new(
            "file",
            "",
            "one InferenceEngine is expected",
            FIX,
        )),
        (Some(document), 0) => Ok(document),
        (Some(_), others) => Err(Problem::new(
            "file",
            format!("{} documents", others + 1),
            "one InferenceEngine a file",
            "write each into a file of its own",
        )),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn check(document: Value, origin: Origin) -> Result<ValidatedEngine, Vec<Problem>> {
    let document = head(document)?;
    let (clean, mut problems) = SCHEMA.check(document);
    // What is left fits the schema, so the types take it; if they do not, the types are wrong.
    let engine: InferenceEngine = match serde_json::from_value(clean) {
        Ok(engine) => engine,
        Err(error) => {
            problems.push(Problem::new("file", error.to_string(), "", ""));
            return Err(problems);
        }
    };
    add_new(&mut problems, rule_problems(&engine, origin));
    add_new(&mut problems, schema::duplicates(&SCHEMA, &engine));
    let (validated, converted) = convert::convert(engine);
    add_new(&mut problems, converted);
    if problems.is_empty() {
        return Ok(validated);
    }
    problems.sort();
    Err(problems)
}

/// Adds problems at places that have none yet: the first check that objects has said what to write.
fn add_new(problems: &mut Vec<Problem>, more: Vec<Problem>) {
    for problem in more {
        if problems.iter().all(|known| known.path != problem.path) {
            problems.push(problem);
        }
    }
}

/// Checks that this is one of our resources at all; if not, nothing else is worth saying.
fn head(document: Value) -> Result<Value, Vec<Problem>> {
    let Value::Object(mut fields) = document else {
        return Err(vec![Problem::new(
            "file",
            words::describe(&document),
            "an InferenceEngine is a block of fields",
            "start with apiVersion: enginewright.dev/v1alpha1 and kind: InferenceEngine",
        )]);
    };
    let mut problems = Vec::new();
    for (field, wanted) in [
        ("apiVersion", "enginewright.dev/v1alpha1"),
        ("kind", "InferenceEngine"),
    ] {
        let found = fields.get(field);
        if found.and_then(Value::as_str) != Some(wanted) {
            problems.push(Problem::new(
                field,
                found.map(words::describe).unwrap_or_default(),
                format!("{field} must be {wanted}"),
                format!("write {field}: {wanted}"),
            ));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // The status is ours to write, whatever a copy of an old one says.
    fields.remove("status");
    let mut document = Value::Object(fields);
    drop_nulls(&mut document);
    Ok(document)
}

/// A null means nothing was written, as it does for the API server.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// What the CEL rules of the definition object to.
fn rule_problems(engine: &InferenceEngine, origin: Origin) -> Vec<Problem> {
    // The types write every default out, so the rules see what they would see in the API server.
    let object = serde_json::to_value(engine).unwrap_or_else(|_| Value::Object(Map::new()));
    let Err(errors) = CelValidator::new().validate_compiled(SCHEMA.rules(), &object, None) else {
        return Vec::new();
    };
    errors
        .into_iter()
        .filter(|error| origin == Origin::Cluster || error.message != RELATIVE_FILE_MESSAGE)
        .map(|error| {
            let at = Path::parse(&error.field_path);
            let found = at.get(&object).map_or_else(String::new, |value| {
                words::describe_for_rule(value, &error.rule)
            });
            let (allowed, fix) = error
                .message
                .split_once("; ")
                .unwrap_or((&error.message, ""));
            // Fails closed: a rule that cannot be evaluated is a problem too.
            let allowed = match error.kind {
                ErrorKind::ValidationFailure => allowed.to_owned(),
                kind => format!("{allowed} (the rule cannot be evaluated: {kind:?})"),
            };
            Problem::new(at.to_string(), found, allowed, fix)
        })
        .collect()
}

#[cfg(test)]
mod tests;
