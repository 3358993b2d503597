//! The custom resource definitions as the API server gets them, and the schema that files are
//! checked against. Decides how the generated schema is tidied; invents no field.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use kube::core::crd::CustomResourceExt;
use serde_json::Value;

use super::{EdgeNode, InferenceEngine};

use apiextensions::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// First lines of every generated file.
const HEADER: &str = "# Generated from the types in src/api. Do not edit; refresh all of them with:\n\
                      #   cargo run -- crds --dir crds\n";

/// All custom resource definitions, as they are applied to a cluster.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    let mut engines = InferenceEngine::crd();
    let mut nodes = EdgeNode::crd();
    for root in roots(&mut engines).chain(roots(&mut nodes)) {
        tidy(root);
    }
    roots(&mut engines).for_each(unobserved);
    vec![engines, nodes]
}

fn roots(crd: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let versions = crd.spec.versions.iter_mut();
    versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

/// Nobody has looked at a resource that was just written. Without this kstatus (Flux, `helm --wait`)
/// would take one without a status for complete.
fn unobserved(root: &mut JSONSchemaProps) {
    let properties = root.properties.as_mut();
    if let Some(status) = properties.and_then(|properties| properties.get_mut("status")) {
        status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
    }
}

/// File name of a definition, for example `inferenceengines.enginewright.dev.yaml`.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}.{}.yaml", crd.spec.names.plural, crd.spec.group)
}

/// A definition as a YAML document with the header of generated files.
///
/// # Errors
/// When the definition cannot be written as YAML: a mistake in the types.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, CrdError> {
    let mut value = serde_json::to_value(crd)?;
    whole_numbers(&mut value);
    Ok(format!("{HEADER}{}", serde_saphyr::to_string(&value)?))
}

/// A definition that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The definition is no JSON.
    #[error("the definition is no JSON")]
    Json(#[from] serde_json::Error),
    /// The definition is no YAML.
    #[error("the definition is no YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

/// The schema of `InferenceEngine` as in its definition, as JSON.
pub(super) fn inference_engine_schema() -> Value {
    let mut crd = InferenceEngine::crd();
    let version = crd.spec.versions.first_mut();
    let root = version.and_then(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    let mut schema = root.map_or(Value::Null, |root| {
        tidy(root);
        serde_json::to_value(&*root).unwrap_or_default()
    });
    whole_numbers(&mut schema);
    schema
}

/// Removes what the generator adds and Kubernetes does not want.
fn tidy(schema: &mut JSONSchemaProps) {
    // A null is pruned by the API server where it is not allowed, so it means the same as nothing,
    // and `has()` in a rule means what it says.
    schema.nullable = None;
    // Kubernetes knows no unsigned formats; the bounds are written out.
    schema.format = schema.format.take().map(|format| match &*format {
        "uint8" | "uint16" => "int32".to_owned(),
        "uint32" | "uint64" => "int64".to_owned(),
        _ => format,
    });
    // Source lines are wrapped; only an empty line is a new paragraph.
    schema.description = schema.description.take().map(|text| {
        let paragraphs: Vec<String> = text.split("\n\n").map(|p| p.replace('\n', " ")).collect();
        paragraphs.join("\n\n")
    });
    for child in schema
        .properties
        .iter_mut()
        .flat_map(|map| map.values_mut())
    {
        tidy(child);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// Writes `1.0` as `1`: bounds are floats in the definition's types and whole in meaning.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number
                .as_f64()
                .filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(whole) = whole.and_then(|float| format!("{float:.0}").parse::<i64>().ok()) {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
