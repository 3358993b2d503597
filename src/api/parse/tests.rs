use serde_json::json;

use super::*;
use crate::api::{EnginePolicy, Ollama, Precision, RuntimeServer};

/// A resource with this spec.
fn with_spec(spec: &Value) -> String {
    json!({
        "apiVersion": "enginewright.dev/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": {"name": "hermes3"},
        "spec": spec,
    })
    .to_string()
}

/// A resource with a model and these groups beside it.
fn with(groups: &Value) -> String {
    let mut spec = json!({"model": {"source": "ollama://hermes3:8b"}});
    for (name, value) in groups.as_object().unwrap() {
        spec[name] = value.clone();
    }
    with_spec(&spec)
}

fn problems(yaml: &str) -> Vec<String> {
    let problems = parse(yaml).map_or_else(|problems| problems, |engine| panic!("{engine:#?}"));
    problems.iter().map(ToString::to_string).collect()
}

fn one_problem(groups: &Value) -> String {
    let mut all = problems(&with(groups));
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[test]
fn the_smallest_resource_gets_defaults_that_are_right_for_a_jetson() {
    let engine = parse(&with(&json!({}))).unwrap();
    assert_eq!(engine.name.as_str(), "hermes3");
    assert_eq!(engine.namespace, "default");
    assert_eq!(engine.served_name, "hermes3:8b");
    assert_eq!(engine.engine.precision, Precision::Auto);
    assert_eq!(engine.engine.policy, EnginePolicy::Auto);
    assert_eq!(engine.engine.context_tokens(), 4096);
    assert_eq!(engine.engine.slots, 2);
    assert!(engine.engine.trust.require_signature);
    assert_eq!(engine.runtime.server, RuntimeServer::Native);
    assert_eq!(engine.placement.runtime_class_name, "nvidia");
    assert_eq!(engine.health.probe_interval.as_secs(), 10);
    assert_eq!(engine.rollout.retry_limit, 3);
    assert_eq!(engine.objectives, crate::api::Objectives::default());
    assert!(engine.fallback.uses_last_good());
    assert!(!engine.suspend);
}

#[test]
fn the_definition_and_the_types_agree_on_every_default() {
    fn defaults(schema: &Value, value: &Value, path: &str, seen: &mut usize) {
        for (name, node) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if let Some(default) = node.get("default") {
                assert_eq!(&value[name], default, "{path}");
                *seen += 1;
            } else {
                assert!(value[name].is_null() || name == "model", "{path}");
            }
            if node["type"] == "object" && name != "model" && value[name].is_object() {
                defaults(node, &value[name], &path, seen);
            }
        }
    }
    let engine: InferenceEngine = serde_json::from_str(&with(&json!({}))).unwrap();
    let written = serde_json::to_value(&engine).unwrap();
    let mut seen = 0;
    let spec = &SCHEMA.plain()["properties"]["spec"];
    defaults(spec, &written["spec"], "spec", &mut seen);
    assert!(seen > 20, "{seen}");
}

#[test]
fn several_mistakes_are_all_said_at_once() {
    let yaml = "
apiVersion: enginewright.dev/v1alpha1
kind: InferenceEngine
metadata: { name: Hermes_3, lables: { a: b } }
spec:
  model: { source: \"s3://bucket/model\" }
  precision: Int4
  engine:
    precison: Fp8
    slots: 0
    maxInputTokens: \"4096\"
    policy: fetchonly
  health: { probeInterval: 10 s, failureThreshold: many }
  fallback: { order: [Ollama, Ollama] }
  rollout: { backoff: { initial: 2h } }
";
    assert_eq!(
        problems(yaml),
        [
            "metadata.lables: found a block with a; there is no field lables in metadata, only \
             name, namespace, labels, annotations, creationTimestamp, deletionGracePeriodSeconds, \
             deletionTimestamp, finalizers, generateName, generation, managedFields, \
             ownerReferences, resourceVersion, selfLink, uid; write labels",
            "metadata.name: found \"Hermes_3\"; a name is lower-case letters, digits and '-', \
             starts with a letter and does not end with '-'; write for example hermes3",
            "spec.engine.maxInputTokens: found \"4096\"; must be a whole number; write 4096 without \
             quotes",
            "spec.engine.policy: found \"fetchonly\"; one of Auto, FetchOnly, BuildOnly, Never; \
             write FetchOnly",
            "spec.engine.precison: found \"Fp8\"; there is no field precison in spec.engine, only \
             build, maxInputTokens, maxOutputTokens, policy, precision, registry, slots, trust; \
             write precision",
            "spec.engine.slots: found 0; a number from 1 to 64; write 1",
            "spec.fallback.order[1]: found \"Ollama\"; each entry of this list may be there once; \
             remove it, or give it another name",
            "spec.health.failureThreshold: found \"many\"; must be a whole number; write for \
             example 3",
            "spec.health.probeInterval: found \"10 s\"; a length of time is whole numbers with the \
             units ms, s, m or h; write for example 30s, 500ms or 1h30m",
            "spec.model.source: found \"s3://bucket/model\"; a source is one URL that starts with \
             ollama://, hf://, oci://, https://, file:// or pvc://; write for example \
             ollama://hermes3:8b-llama3.1-q4_K_M",
            "spec.precision: found \"Int4\"; there is no field precision in spec, only engine, \
             fallback, health, model, objectives, placement, rollout, runtime, suspend; write it as \
             spec.engine.precision",
            "spec.rollout.backoff: found initial: 2h, max: 1h; backoff.initial is at most \
             backoff.max; write for example initial: 1m and max: 1h",
        ]
    );
}

#[test]
fn what_is_missing_is_said_with_what_to_write() {
    let yaml = "{apiVersion: enginewright.dev/v1alpha1, kind: InferenceEngine}";
    let all = problems(yaml);
    assert_eq!(all.len(), 2, "{all:#?}");
    assert!(all[0].starts_with("metadata: missing; "), "{}", all[0]);
    assert!(all[1].starts_with("spec: missing; "), "{}", all[1]);
    assert!(
        all[1].contains("write spec: { model: { source: "),
        "{}",
        all[1]
    );
    let all = problems(&with_spec(&json!({"model": {}})));
    assert_eq!(
        all,
        [
            "spec.model.source: missing; source must be there (Where the model comes from, as one \
          URL); write source: \"ollama://hermes3:8b-llama3.1-q4_K_M\""
        ]
    );
}

#[test]
fn a_file_that_is_no_resource_says_so_and_nothing_else() {
    for (yaml, start) in [
        ("", "file: missing; one InferenceEngine is expected"),
        (
            "# nothing\n",
            "file: missing; one InferenceEngine is expected",
        ),
        (
            "just text",
            "file: found \"just text\"; an InferenceEngine is a block",
        ),
        (
            "[1, 2]",
            "file: found a list of 2; an InferenceEngine is a block",
        ),
        ("a: [1, 2", "line "),
        ("a: 1\na: 2\n", "line "),
        ("a: &a [*a]", "line "),
    ] {
        let all = problems(yaml);
        assert_eq!(all.len(), 1, "{all:#?}");
        assert!(all[0].starts_with(start), "{yaml:?}: {}", all[0]);
    }
    let two = format!("{}\n---\n{}", with(&json!({})), with(&json!({})));
    assert!(problems(&two)[0].contains("found 2 documents"));
    let all = problems("kind: Deployment\napiVersion: apps/v1\nspec: {}\n");
    assert_eq!(
        all,
        [
            "apiVersion: found \"apps/v1\"; apiVersion must be enginewright.dev/v1alpha1; write \
             apiVersion: enginewright.dev/v1alpha1",
            "kind: found \"Deployment\"; kind must be InferenceEngine; write kind: InferenceEngine",
        ]
    );
}

#[test]
fn hostile_files_are_refused_without_harm() {
    let huge = "a".repeat(MAX_FILE_BYTES + 1);
    assert!(problems(&huge)[0].contains("at most"));
    let deep = "[".repeat(100_000);
    assert_eq!(problems(&deep).len(), 1);
    let mut bomb = vec!["a: &a [x,x,x,x,x,x,x,x,x]".to_owned()];
    for (name, before) in ('b'..='z').zip('a'..='y') {
        let aliases = format!("*{before},").repeat(9);
        bomb.push(format!("{name}: &{name} [{aliases}]"));
    }
    assert_eq!(problems(&bomb.join("\n")).len(), 1);
}

#[test]
fn nothing_that_a_mutation_of_a_resource_can_be_makes_it_panic() {
    let whole: Value =
        serde_saphyr::from_str(include_str!("../../../manifests/samples/full.yaml")).unwrap();
    let junk = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(18_446_744_073_709_551_615_u64),
        json!(""),
        json!("\u{0}é𝄞 ; \"'"),
        json!("9".repeat(5000)),
        json!([]),
        json!([null, [[]]]),
        json!({}),
        json!({"": {"": null}}),
    ];
    let mut places = Vec::new();
    collect(&whole, String::new(), &mut places);
    assert!(places.len() > 80, "{}", places.len());
    for place in &places {
        for value in &junk {
            let mut mutated = whole.clone();
            *mutated.pointer_mut(place).unwrap() = value.clone();
            // Any verdict is right, as long as there is one and every problem has a place.
            if let Err(found) = parse(&mutated.to_string()) {
                assert!(!found.is_empty(), "{place} {value}");
                for problem in found {
                    assert!(!problem.path.is_empty(), "{place} {value}: {problem}");
                    assert!(!problem.path.contains("stand-in"), "{place}: {problem}");
                }
            }
        }
    }
}

fn collect(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inside) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(inside, format!("{at}/{name}"), places);
            }
        }
        Value::Array(items) => {
            for (index, inside) in items.iter().enumerate() {
                collect(inside, format!("{at}/{index}"), places);
            }
        }
        _ => {}
    }
    places.push(at);
}

#[test]
fn a_null_means_that_nothing_was_written() {
    let plain = parse(&with(&json!({}))).unwrap();
    let nulls = json!({"engine": null, "health": {"soak": null}, "suspend": null});
    assert_eq!(parse(&with(&nulls)).unwrap(), plain);
}

#[test]
fn each_rule_between_fields_is_refused_with_what_to_write() {
    for (groups, start, fix) in [
        (
            json!({"engine": {"maxInputTokens": 100_000, "maxOutputTokens": 100_000}}),
            "spec.engine: found maxInputTokens: 100000, maxOutputTokens: 100000; ",
            "write smaller ones",
        ),
        (
            json!({"engine": {"maxInputTokens": 65536, "slots": 64}}),
            "spec.engine: found maxInputTokens: 65536, maxOutputTokens: 1024, slots: 64; ",
            "write fewer slots",
        ),
        (
            json!({"engine": {"policy": "FetchOnly"}}),
            "spec.engine: found policy: FetchOnly; ",
            "write engine.registry.repository",
        ),
        (
            json!({"engine": {"registry": {"repository": "ghcr.io/acme/engines"}}}),
            "spec.engine: found registry: ",
            "write engine.trust.publicKeys",
        ),
        (
            json!({"runtime": {"type": "Image"}}),
            "spec.runtime: found type: Image; ",
            "write runtime.image.image",
        ),
        (
            json!({"runtime": {"image": {"image": format!("ghcr.io/a/b@sha256:{}", "0".repeat(64))}}}),
            "spec.runtime: found type: Native, image: ",
            "write type: Image",
        ),
        (
            json!({"health": {"soak": "1s"}}),
            "spec.health: found soak: 1s, probeInterval: 10s; ",
            "write for example soak: 2m",
        ),
        (
            json!({"health": {"soak": "30h"}}),
            "spec.health.soak: found \"30h\"; a length of time from 0s to 24h; ",
            "write for example 10s",
        ),
        (
            json!({"placement": {"tolerations": [{"operator": "Exists", "value": "x"}]}}),
            "spec.placement.tolerations[0]: found operator: Exists, value: x; ",
            "remove the toleration's value",
        ),
        (
            json!({"placement": {"tolerations": [{"value": "x"}]}}),
            "spec.placement.tolerations[0]: found operator: Equal; ",
            "write the taint's key",
        ),
        (
            json!({"model": {"source": "https://example.com/m.gguf"}}),
            "spec.model: found source: https://example.com/m.gguf; ",
            "write model.sha256",
        ),
        (
            json!({"model": {"source": "file:///m.gguf", "endpoint": "http://registry.lan:5000"}}),
            "spec.model: found endpoint: http://registry.lan:5000, source: file:///m.gguf; ",
            "remove model.endpoint",
        ),
        (
            json!({"model": {"source": "ollama://a", "sha256": "0".repeat(64)}}),
            "spec.model: found sha256: 000",
            "remove model.sha256",
        ),
        (
            json!({"model": {"source": "file:///m.gguf"}, "fallback": {"ollama": {"address": "http://10.0.0.1:11434"}}}),
            "spec: found fallback.ollama.address: http://10.0.0.1:11434",
            "write fallback.ollama.model",
        ),
        (
            json!({"rollout": {"waves": [{"name": "a", "nodeSelector": {"x": "y"}}, {"name": "a", "nodeSelector": {"x": "z"}}]}}),
            "spec.rollout.waves[1]: found \"a\"; each entry",
            "remove it",
        ),
    ] {
        let problem = one_problem(&groups);
        assert!(problem.starts_with(start), "{problem}");
        assert!(problem.contains(fix), "{problem}");
    }
}

#[test]
fn bounds_are_said_in_words() {
    for (groups, expected) in [
        (
            json!({"fallback": {"order": ["Ollama", "LastGood", "Ollama"]}}),
            "spec.fallback.order: found 3 entries; at most 2 entries; remove 1",
        ),
        (
            json!({"rollout": {"waves": [{"name": "a", "nodeSelector": {}}]}}),
            "spec.rollout.waves[0].nodeSelector: found 0 entries; at least 1 entries; add 1",
        ),
        (
            json!({"objectives": {"toolCallAccuracy": 90}}),
            "spec.objectives.toolCallAccuracy: found 90; a number from 0 to 1; write 1",
        ),
        (
            json!({"suspend": "yes"}),
            "spec.suspend: found \"yes\"; must be true or false; write true or false, without quotes",
        ),
        (
            json!({"rollout": {"retryToken": 2}}),
            "spec.rollout.retryToken: found 2; must be a text; write \"2\" in quotes, for example \"2\"",
        ),
        (
            json!({"fallback": {"order": "Ollama"}}),
            "spec.fallback.order: found \"Ollama\"; must be a list; write [Ollama]",
        ),
        (
            json!({"engine": {"slots": 1.5}}),
            "spec.engine.slots: found 1.5; must be a whole number; write 2",
        ),
    ] {
        assert_eq!(one_problem(&groups), expected);
    }
}

#[test]
fn relative_files_are_for_this_machine_only() {
    let yaml = with(&json!({"model": {"source": "file://./model.gguf"}}));
    assert!(parse(&yaml).is_ok());
    let engine: InferenceEngine = serde_saphyr::from_str(&yaml).unwrap();
    let problems = validate(&engine).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].path, "spec.model.source");
    assert!(problems[0].fix.starts_with("write the absolute path"));
}

#[test]
fn a_resource_from_a_cluster_is_validated_with_its_generation() {
    let mut engine: InferenceEngine = serde_json::from_str(&with(&json!({}))).unwrap();
    engine.metadata.generation = Some(7);
    engine.metadata.uid = Some("0".to_owned());
    engine.status = Some(crate::api::InferenceEngineStatus::default());
    assert_eq!(validate(&engine).unwrap().generation, Some(7));
}

#[test]
fn the_fallback_is_the_same_model() {
    let ollama = |groups: &Value| parse(&with(groups)).unwrap().fallback.ollama;
    assert_eq!(
        ollama(&json!({"model": {"source": "file:///m.gguf"}})),
        Some(Ollama::Managed {
            model: "enginewright/hermes3:imported".to_owned(),
            import: true,
            image: None,
        })
    );
    assert_eq!(
        ollama(&json!({"fallback": {"ollama": {"address": "http://10.0.0.1:11434/"}}})),
        Some(Ollama::External {
            url: "http://10.0.0.1:11434".to_owned(),
            model: "hermes3:8b".to_owned(),
        })
    );
    assert_eq!(ollama(&json!({"fallback": {"order": ["LastGood"]}})), None);
}

#[test]
fn the_revision_changes_with_what_is_served_and_with_nothing_else() {
    let revision = |groups: &Value| parse(&with(groups)).unwrap().revision();
    let base = revision(&json!({}));
    assert_eq!(base.as_str().len(), 10);
    for same in [
        json!({"health": {"soak": "5m"}}),
        json!({"objectives": {"firstToken": "1s"}}),
        json!({"fallback": {"order": []}}),
        json!({"rollout": {"retryToken": "2"}}),
        json!({"engine": {"policy": "BuildOnly"}}),
        json!({"engine": {"build": {"progressDeadline": "1h"}}}),
        json!({"placement": {"nodeSelector": {"a": "b"}}}),
        json!({"runtime": {"startupDeadline": "1h"}}),
        json!({"suspend": true}),
        json!({"model": {"source": "ollama://hermes3:8b", "servedName": "hermes3:8b"}}),
    ] {
        assert_eq!(revision(&same), base, "{same}");
    }
    for other in [
        json!({"model": {"source": "ollama://hermes3:70b"}}),
        json!({"model": {"source": "ollama://hermes3:8b", "servedName": "other"}}),
        json!({"engine": {"precision": "Int4"}}),
        json!({"engine": {"maxInputTokens": 1024}}),
        json!({"engine": {"maxOutputTokens": 512}}),
        json!({"engine": {"slots": 3}}),
        json!({"engine": {"policy": "Never"}}),
        json!({"runtime": {"type": "Image", "image": {"image": format!("ghcr.io/a/b@sha256:{}", "0".repeat(64))}}}),
    ] {
        assert_ne!(revision(&other), base, "{other}");
    }
}

#[test]
fn the_revision_of_a_spec_never_changes_with_a_new_version() {
    // A change here restarts every engine of every user: it must be meant.
    let revision = parse(&with(&json!({}))).unwrap().revision();
    assert_eq!(revision.as_str(), "09b8b62ed3");
}
