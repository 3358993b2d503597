//! Resources for tests, and the two judges of them: the API server and our own validation.

use enginewright::api::{InferenceEngine, parse, validate};
use kube::Client;
use kube::core::Status;
use serde_json::{Value, json};

/// The smallest resource that can be written.
pub fn smallest() -> Value {
    json!({
        "apiVersion": "enginewright.dev/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": {"name": "smallest"},
        "spec": {"model": {"source": "ollama://hermes3:8b-llama3.1-q4_K_M"}},
    })
}

/// A resource that writes every field but those that exclude each other.
pub fn full() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/samples/full.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// `base` with `spec` merged over it (RFC 7386: null removes).
pub fn with(mut base: Value, spec: &Value) -> Value {
    merge(&mut base["spec"], spec);
    base
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// What our own validation says: the file check, and the check of what comes from a cluster (a
/// relative file is right in a file only).
pub fn our_verdict(object: &Value) -> Result<(), String> {
    parse(&object.to_string()).map_err(|problems| format!("{problems:?}"))?;
    let mut stored = object.clone();
    remove_nulls(&mut stored);
    let engine: InferenceEngine =
        serde_json::from_value(stored).map_err(|error| error.to_string())?;
    validate(&engine)
        .map(drop)
        .map_err(|problems| format!("{problems:?}"))
}

/// What the API server does before it looks: a null stands for nothing.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, inner| !inner.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// What the API server says to `kubectl create --dry-run=server`: it stores nothing.
pub async fn servers_verdict(client: &Client, object: &Value) -> Result<Value, Box<Status>> {
    let mut object = object.clone();
    object["metadata"]["namespace"] = "default".into();
    let url = "/apis/enginewright.dev/v1alpha1/namespaces/default/inferenceengines\
               ?dryRun=All&fieldValidation=Strict";
    let request = http::Request::post(url)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    match client.request(request).await {
        Ok(created) => Ok(created),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("no verdict on {object}: {error:?}"),
    }
}
