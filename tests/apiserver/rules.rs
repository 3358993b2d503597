//! Every rule of the definitions, on the real API server: what breaks it is refused with its own
//! message, what the message tells to write is accepted.

use std::collections::BTreeSet;
use std::time::Duration;

use enginewright::api::{all_crds, format_span, parse_span};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Value, json};

use crate::cluster::ControlPlane;
use crate::specs::{servers_verdict, smallest, with};

/// A rule: path of the field (list items as `[]`) and message.
type Rule = (String, String);

fn collect(node: &JSONSchemaProps, path: &str, into: &mut BTreeSet<Rule>) {
    for rule in node.x_kubernetes_validations.iter().flatten() {
        into.insert((path.to_owned(), rule.message.clone().unwrap()));
    }
    for (name, child) in node.properties.iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect(child, &path, into);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &node.items {
        collect(items, &format!("{path}[]"), into);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &node.additional_properties {
        collect(values, &format!("{path}{{}}"), into);
    }
}

/// All rules of `InferenceEngine`; `EdgeNode` has none.
fn rules() -> BTreeSet<Rule> {
    let mut found = BTreeSet::new();
    for crd in all_crds() {
        let schema = crd.spec.versions[0].schema.clone().unwrap();
        collect(&schema.open_api_v3_schema.unwrap(), "", &mut found);
    }
    found
}

/// `{"a": {"b": value}}` from `a.b`; `[]` makes a list of one item that is valid but for it.
fn nested(path: &str, value: Value) -> Value {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, nested(rest, value)),
        None => (path, value),
    };
    match first.strip_suffix("[]") {
        None => json!({first: rest}),
        Some(list) => {
            let mut item = json!({"name": "canary", "nodeSelector": {"wave": "canary"}});
            for (key, inner) in rest.as_object().unwrap() {
                item[key] = inner.clone();
            }
            json!({list: [item]})
        }
    }
}

/// Bounds of a length of time, from the message of its rule.
fn bounds(message: &str) -> Option<(Duration, Duration)> {
    let range = message
        .strip_prefix("a length of time from ")?
        .split_once("; ")?
        .0;
    let (least, most) = range.split_once(" to ")?;
    Some((parse_span(least).unwrap(), parse_span(most).unwrap()))
}

/// What else must be written so that only the rule in question decides.
fn around(path: &str, value: Duration) -> Value {
    let span = format_span(value);
    match path {
        // Soak is compared with the interval, the backoff's bounds with each other.
        "spec.health.probeInterval" => json!({"health": {"soak": "0s"}}),
        "spec.health.soak" => json!({"health": {"probeInterval": "500ms"}}),
        "spec.rollout.backoff.initial" => json!({"rollout": {"backoff": {"max": "168h"}}}),
        "spec.rollout.backoff.max" => {
            json!({"rollout": {"backoff": {"initial": if value < Duration::from_mins(1) { span } else { "1m".to_owned() }}}})
        }
        _ => json!({}),
    }
}

struct Case {
    refused: Value,
    accepted: Value,
}

/// The bounds of every length of time: just outside, and on it.
fn lengths_of_time() -> Vec<Case> {
    let mut cases = Vec::new();
    for (path, message) in rules() {
        let Some((least, most)) = bounds(&message) else {
            continue;
        };
        let write = |value: Duration| {
            let inner = path.strip_prefix("spec.").unwrap();
            let spec = nested(inner, format_span(value).into());
            with(with(smallest(), &around(&path, value)), &spec)
        };
        let step = Duration::from_millis(1);
        if let Some(below) = least.checked_sub(step) {
            cases.push(Case {
                refused: write(below),
                accepted: write(least),
            });
        }
        cases.push(Case {
            refused: write(most + step),
            accepted: write(most),
        });
    }
    cases
}

fn source(refused: &str, accepted: &str) -> Case {
    let digest = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let write = |source: &str| {
        let sha256 = source.starts_with("https://").then_some(digest);
        with(
            smallest(),
            &json!({"model": {"source": source, "sha256": sha256}}),
        )
    };
    Case {
        refused: write(refused),
        accepted: write(accepted),
    }
}

fn sources() -> Vec<Case> {
    let digest = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let oci = format!("oci://ghcr.io/acme/hermes3@sha256:{digest}");
    vec![
        source(
            "s3://bucket/model.gguf",
            "ollama://hermes3:8b-llama3.1-q4_K_M",
        ),
        source("ollama://hermes3:", "ollama://hermes3:8b"),
        source(
            "hf://NousResearch/Hermes-3",
            "hf://NousResearch/Hermes-3@896ea440",
        ),
        source("oci://ghcr.io/acme/hermes3:latest", &oci),
        source(
            "https://user@models.example.com/a.gguf",
            "https://models.example.com/a.gguf",
        ),
        source("file:///var/../etc/shadow", "file:///var/lib/models/a.gguf"),
        source("file://./model.gguf", "file:///model.gguf"),
        source("pvc://models/../other", "pvc://models/a.gguf"),
    ]
}

fn spec(refused: &Value, accepted: &Value) -> Case {
    Case {
        refused: with(smallest(), refused),
        accepted: with(smallest(), accepted),
    }
}

/// Rules across the fields of the engine.
fn engines() -> Vec<Case> {
    let registry = json!({"repository": "ghcr.io/acme/engines"});
    let key = "ed25519:MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqo=";
    vec![
        spec(
            &json!({"engine": {"maxInputTokens": 131_072, "maxOutputTokens": 1, "slots": 1}}),
            &json!({"engine": {"maxInputTokens": 131_071, "maxOutputTokens": 1, "slots": 1}}),
        ),
        spec(
            &json!({"engine": {"maxInputTokens": 65_536, "maxOutputTokens": 65_536, "slots": 9}}),
            &json!({"engine": {"maxInputTokens": 65_536, "maxOutputTokens": 65_536, "slots": 8}}),
        ),
        spec(
            &json!({"engine": {"policy": "FetchOnly"}}),
            &json!({"engine": {"policy": "FetchOnly", "registry": registry, "trust": {"publicKeys": [key]}}}),
        ),
        spec(
            &json!({"engine": {"registry": registry}}),
            &json!({"engine": {"registry": registry, "trust": {"requireSignature": false}}}),
        ),
    ]
}

/// Rules across other fields.
fn across_fields() -> Vec<Case> {
    let digest = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let image = format!("docker.io/vllm/vllm-openai@sha256:{digest}");
    let image = json!({"image": image, "modelName": "m"});
    let https = "https://models.example.com/a.gguf";
    let endpoint = json!("http://registry.lan:5000");
    let toleration = |value: Value| json!({"placement": {"tolerations": [value]}});
    vec![
        spec(
            &json!({"health": {"soak": "5s", "probeInterval": "10s"}}),
            &json!({"health": {"soak": "10s", "probeInterval": "10s"}}),
        ),
        spec(
            &json!({"model": {"source": https}}),
            &json!({"model": {"source": https, "sha256": digest}}),
        ),
        spec(
            &json!({"model": {"source": "file:///a.gguf", "endpoint": endpoint}}),
            &json!({"model": {"endpoint": endpoint}}),
        ),
        spec(
            &json!({"model": {"sha256": digest}}),
            &json!({"model": {"source": "file:///a.gguf", "sha256": digest}}),
        ),
        spec(
            &toleration(json!({"key": "a", "operator": "Exists", "value": "b"})),
            &toleration(json!({"key": "a", "operator": "Equal", "value": "b"})),
        ),
        spec(
            &toleration(json!({"value": "b"})),
            &toleration(json!({"operator": "Exists"})),
        ),
        spec(
            &json!({"rollout": {"backoff": {"initial": "2h"}}}),
            &json!({"rollout": {"backoff": {"initial": "1h"}}}),
        ),
        spec(
            &json!({"runtime": {"type": "Image"}}),
            &json!({"runtime": {"type": "Image", "image": image}}),
        ),
        spec(
            &json!({"runtime": {"image": image}}),
            &json!({"runtime": {"type": "Native"}}),
        ),
        spec(
            &json!({"model": {"source": "file:///a.gguf"}, "fallback": {"ollama": {"address": "http://10.0.0.1:11434"}}}),
            &json!({"model": {"source": "file:///a.gguf"}, "fallback": {"ollama": {"address": "http://10.0.0.1:11434", "model": "hermes3"}}}),
        ),
    ]
}

fn names() -> Vec<Case> {
    let named = |name: &str| {
        let mut object = smallest();
        object["metadata"]["name"] = name.into();
        object
    };
    vec![
        Case {
            refused: named(&"a".repeat(41)),
            accepted: named(&"a".repeat(40)),
        },
        Case {
            refused: named("3hermes"),
            accepted: named("hermes-3"),
        },
    ]
}

/// `spec.rollout.waves[0].pause` as it stands in the definition.
fn as_in_the_definition(field: &str) -> String {
    let mut path = String::new();
    for part in field.split('[') {
        match part.split_once(']') {
            Some((_, rest)) => path.extend(["[]", rest]),
            None => path.push_str(part),
        }
    }
    path
}

#[tokio::test]
async fn every_rule_refuses_what_breaks_it_and_accepts_what_it_tells_to_write() {
    let client = ControlPlane::shared().client();
    let mut open = rules();
    assert!(open.len() > 30, "{}", open.len());
    let cases = [
        lengths_of_time(),
        sources(),
        engines(),
        across_fields(),
        names(),
    ];
    for case in cases.iter().flatten() {
        let status = servers_verdict(&client, &case.refused)
            .await
            .expect_err(&format!("accepted: {}", case.refused));
        let causes = status
            .details
            .map(|details| details.causes)
            .unwrap_or_default();
        for cause in causes {
            let field = as_in_the_definition(&cause.field);
            let field = if field == "<nil>" {
                String::new()
            } else {
                field
            };
            open.retain(|(path, message)| *path != field || !cause.message.contains(message));
        }
        servers_verdict(&client, &case.accepted)
            .await
            .unwrap_or_else(|status| panic!("refused: {}: {}", case.accepted, status.message));
    }
    assert!(open.is_empty(), "no case broke these rules: {open:#?}");
}
