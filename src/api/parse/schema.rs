//! The generated schema, made strict about unknown fields, and what it objects to.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use kube::core::cel::{CompiledSchema, compile_schema};
use serde_json::{Value, json};

use super::objections;
use super::path::Path;
use crate::api::crd::inference_engine_schema;
use crate::api::names::{MAX_NAME, NAME_PATTERN};
use crate::api::{InferenceEngine, Problem};

/// How often what is wrong is taken out before giving up: each round goes one level up.
const MAX_ROUNDS: usize = 32;

/// The schema of `InferenceEngine`, in the form of the definition and in a strict form.
pub(super) struct StrictSchema {
    plain: Value,
    strict: Value,
    /// The CEL rules of the definition.
    rules: CompiledSchema,
    /// `None`: the schema is not one, which a test rules out; nothing is accepted then.
    validator: Option<jsonschema::Validator>,
}

/// One objection of the schema, with the part of the schema that objects.
pub(super) struct Objection<'a> {
    pub(super) at: Path,
    pub(super) found: &'a Value,
    pub(super) node: &'a Value,
    pub(super) kind: ObjectionKind,
}

/// What is objected to.
pub(super) enum ObjectionKind {
    Unknown(String),
    Missing(String),
    Type(String),
    Choice,
    Minimum,
    Maximum,
    TooLong,
    Text,
    TooMany,
    TooFew,
    Other(String),
}

impl StrictSchema {
    pub(super) fn new() -> Self {
        let plain = inference_engine_schema();
        let mut strict = plain.clone();
        if let Some(Value::Object(properties)) = strict.get_mut("properties") {
            // What every resource has, and the definition therefore does not say.
            properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
            properties.insert("kind".to_owned(), json!({"type": "string"}));
            properties.insert("metadata".to_owned(), metadata_schema());
        }
        if let Some(required) = strict.get_mut("required").and_then(Value::as_array_mut) {
            required.push("metadata".into());
        }
        close(&mut strict);
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .build(&strict)
            .ok();
        Self {
            rules: compile_schema(&plain),
            plain,
            strict,
            validator,
        }
    }

    /// The CEL rules of the definition.
    pub(super) fn rules(&self) -> &CompiledSchema {
        &self.rules
    }

    /// The schema as in the definition.
    #[cfg(test)]
    pub(super) fn plain(&self) -> &Value {
        &self.plain
    }

    /// The strict schema.
    pub(super) fn strict(&self) -> &Value {
        &self.strict
    }

    /// What the schema objects to, and the document without it: what is wrong is taken out, what is
    /// missing gets a stand-in, so that the checks after this one see a document that fits.
    pub(super) fn check(&self, mut document: Value) -> (Value, Vec<Problem>) {
        let mut problems: Vec<Problem> = Vec::new();
        for round in 0..MAX_ROUNDS {
            let objections = self.objections(&document);
            if objections.is_empty() {
                return (document, problems);
            }
            // What comes up later follows from what was taken out: it is not the user's mistake.
            if round == 0 {
                for objection in &objections {
                    let problem = objections::problem(self, objection);
                    if problems.iter().all(|known| known.path != problem.path) {
                        problems.push(problem);
                    }
                }
            }
            let repairs: Vec<_> = objections.iter().map(repair).collect();
            for (place, value) in repairs {
                put(&mut document, &place, value);
            }
            sweep(&mut document);
        }
        problems.push(Problem::new(
            "file",
            "a document that does not fit in any way",
            "one InferenceEngine is expected",
            "start from a file in manifests/samples",
        ));
        (stand_in(), problems)
    }

    fn objections<'a>(&'a self, document: &'a Value) -> Vec<Objection<'a>> {
        let Some(validator) = &self.validator else {
            return vec![Objection {
                at: Path::default(),
                found: document,
                node: &self.strict,
                kind: ObjectionKind::Other("the schema of this version is damaged".to_owned()),
            }];
        };
        let mut objections = Vec::new();
        for error in validator.iter_errors(document) {
            let at = Path::from_pointer(error.instance_path().as_str(), document);
            let keyword = error.schema_path().as_str();
            let node = keyword
                .rsplit_once('/')
                .and_then(|(node, _)| self.strict.pointer(node))
                .unwrap_or(&Value::Null);
            let found = at.get(document).unwrap_or(&Value::Null);
            for kind in kinds(error.kind(), &error) {
                objections.push(Objection {
                    at: at.clone(),
                    found,
                    node,
                    kind,
                });
            }
        }
        objections
    }
}

fn kinds(kind: &ValidationErrorKind, error: &dyn std::fmt::Display) -> Vec<ObjectionKind> {
    use ValidationErrorKind as Kind;
    vec![match kind {
        Kind::AdditionalProperties { unexpected } => {
            return unexpected
                .iter()
                .cloned()
                .map(ObjectionKind::Unknown)
                .collect();
        }
        Kind::Required { property } => {
            ObjectionKind::Missing(property.as_str().unwrap_or_default().to_owned())
        }
        Kind::Type {
            kind: TypeKind::Single(wanted),
        } => ObjectionKind::Type(wanted.to_string()),
        Kind::Enum { .. } => ObjectionKind::Choice,
        Kind::Minimum { .. } | Kind::ExclusiveMinimum { .. } => ObjectionKind::Minimum,
        Kind::Maximum { .. } | Kind::ExclusiveMaximum { .. } => ObjectionKind::Maximum,
        Kind::MaxLength { .. } => ObjectionKind::TooLong,
        Kind::MinLength { .. } | Kind::Pattern { .. } => ObjectionKind::Text,
        Kind::MaxItems { .. } | Kind::MaxProperties { .. } => ObjectionKind::TooMany,
        Kind::MinItems { .. } | Kind::MinProperties { .. } => ObjectionKind::TooFew,
        _ => ObjectionKind::Other(error.to_string()),
    }]
}

/// Where to put what, so that the objection goes away. Null: nothing.
fn repair(objection: &Objection<'_>) -> (Path, Value) {
    match &objection.kind {
        ObjectionKind::Unknown(field) => (objection.at.field(field), Value::Null),
        ObjectionKind::Missing(field) => {
            let place = objection.at.field(field);
            match Path::parse(&place.to_string()).get(&stand_in()) {
                Some(value) => (place, value.clone()),
                None => (objection.at.clone(), Value::Null),
            }
        }
        _ => (objection.at.clone(), Value::Null),
    }
}

/// The smallest resource.
fn stand_in() -> Value {
    json!({
        "apiVersion": "enginewright.dev/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": {"name": "stand-in"},
        "spec": {"model": {"source": "ollama://stand-in"}},
    })
}

fn put(document: &mut Value, place: &Path, value: Value) {
    if let Some(there) = place.get_mut(document) {
        *there = value;
    } else if let (Some(Value::Object(around)), Some(name)) =
        (place.parent().get_mut(document), place.last_field())
    {
        around.insert(name.to_owned(), value);
    }
}

/// Takes out nulls, in lists too.
fn sweep(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(sweep);
        }
        Value::Array(items) => {
            items.retain(|value| !value.is_null());
            items.iter_mut().for_each(sweep);
        }
        _ => {}
    }
}

/// What can be written in `metadata`; the definition itself may not say.
fn metadata_schema() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let mut schema = json!({
        "type": "object",
        "description": "Name and labels of this resource.",
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string",
                "description": "Name of this resource, and of what belongs to it.",
                "minLength": 1,
                "maxLength": MAX_NAME,
                "pattern": NAME_PATTERN,
            },
            "namespace": {
                "type": "string",
                "minLength": 1,
                "maxLength": 63,
                "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            },
            "labels": texts,
            "annotations": texts,
        },
    });
    let kept_by_the_server = [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.extend(kept_by_the_server.map(|name| (name.to_owned(), json!({}))));
    }
    schema
}

/// Makes every block with known fields refuse unknown ones.
fn close(schema: &mut Value) {
    let Value::Object(node) = schema else {
        return;
    };
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(close);
        node.insert("additionalProperties".to_owned(), false.into());
    } else if let Some(values) = node.get_mut("additionalProperties") {
        close(values);
    }
    if let Some(items) = node.get_mut("items") {
        close(items);
    }
}

/// Entries that are there twice in lists whose entries are unique.
pub(super) fn duplicates(schema: &StrictSchema, engine: &InferenceEngine) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Ok(object) = serde_json::to_value(engine) {
        find_duplicates(&schema.plain, &object, &Path::default(), &mut problems);
    }
    problems
}

fn find_duplicates(schema: &Value, value: &Value, at: &Path, problems: &mut Vec<Problem>) {
    match value {
        Value::Object(fields) => {
            for (name, inside) in fields {
                if let Some(node) = schema.pointer("/properties").and_then(|all| all.get(name)) {
                    find_duplicates(node, inside, &at.field(name), problems);
                }
            }
        }
        Value::Array(items) => {
            let key = |item: &Value| match schema.get("x-kubernetes-list-type")?.as_str()? {
                "set" => Some(item.clone()),
                "map" => {
                    let name = schema.pointer("/x-kubernetes-list-map-keys/0")?.as_str()?;
                    item.get(name).cloned()
                }
                _ => None,
            };
            for (index, item) in items.iter().enumerate() {
                let place = at.item(index);
                let twice = key(item).filter(|wanted| {
                    items
                        .iter()
                        .take(index)
                        .any(|other| key(other).as_ref() == Some(wanted))
                });
                if let Some(twice) = twice {
                    problems.push(Problem::new(
                        place.to_string(),
                        super::words::describe(&twice),
                        "each entry of this list may be there once",
                        "remove it, or give it another name",
                    ));
                }
                if let Some(node) = schema.get("items") {
                    find_duplicates(node, item, &place, problems);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::hints;
    use super::*;

    fn patterns(schema: &Value, found: &mut Vec<String>) {
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            found.push(pattern.to_owned());
        }
        match schema {
            Value::Object(fields) => fields.values().for_each(|value| patterns(value, found)),
            Value::Array(items) => items.iter().for_each(|value| patterns(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_pattern_of_the_schema_is_explained_in_words() {
        let schema = StrictSchema::new();
        let mut found = Vec::new();
        patterns(&schema.strict, &mut found);
        assert!(found.len() > 10);
        for pattern in found {
            assert!(hints::for_pattern(&pattern).is_some(), "{pattern}");
        }
    }

    #[test]
    fn the_strict_schema_is_a_schema() {
        assert!(StrictSchema::new().validator.is_some());
    }

    #[test]
    fn the_smallest_resource_fits() {
        let (_, problems) = StrictSchema::new().check(stand_in());
        assert_eq!(problems, []);
    }
}
