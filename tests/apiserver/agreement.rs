//! Our own validation and the API server agree: on 300 resources that are put together by chance from
//! values that matter, and on every field of the definition with values of every kind.

use std::fmt::Write;

use futures::{StreamExt, stream};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::cluster::ControlPlane;
use crate::specs::{full, our_verdict, servers_verdict, smallest};

/// Requests at the same time.
const AT_ONCE: usize = 8;
/// Resources that are put together by chance.
const CORPUS: usize = 300;

/// A place in a document: names and positions.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

type Place = Vec<Step>;

fn show(place: &[Step]) -> String {
    let mut text = String::new();
    for step in place {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => write!(text, ".{name}").unwrap(),
            Step::Item(at) => write!(text, "[{at}]").unwrap(),
        }
    }
    text
}

fn places(value: &Value, place: &[Step], into: &mut Vec<Place>) {
    let below = |step: Step| {
        let mut place = place.to_vec();
        place.push(step);
        place
    };
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let place = below(Step::Field(name.clone()));
                into.push(place.clone());
                places(inner, &place, into);
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                let place = below(Step::Item(at));
                into.push(place.clone());
                places(inner, &place, into);
            }
        }
        _ => {}
    }
}

/// Every place of the full sample's `spec`, and its name.
fn all_places() -> Vec<Place> {
    let mut found = Vec::new();
    let document = full();
    let spec = vec![Step::Field("spec".to_owned())];
    places(&document["spec"], &spec, &mut found);
    found.push(vec![
        Step::Field("metadata".to_owned()),
        Step::Field("name".to_owned()),
    ]);
    found
}

fn at<'a>(document: &'a mut Value, place: &[Step]) -> Option<&'a mut Value> {
    place.iter().try_fold(document, |inside, step| match step {
        Step::Field(name) => inside.get_mut(name),
        Step::Item(at) => inside.get_mut(*at),
    })
}

/// `document` with `value` at `place`; `None` where an earlier change took the place away.
fn changed(mut document: Value, place: &[Step], value: Value) -> Option<Value> {
    *at(&mut document, place)? = value;
    Some(document)
}

/// Values of every kind, right for some fields and wrong for all others.
fn values() -> Vec<Value> {
    let mut values = vec![
        Value::Null,
        json!(true),
        json!([]),
        json!([null]),
        json!(["LastGood"]),
        json!(["Ollama", "Ollama"]),
        json!(["LastGood", "Ollama"]),
        json!({}),
        json!({"unknown": "field"}),
        json!("9".repeat(5000)),
        json!(format!("oci://a/b@sha256:{}", "0".repeat(64))),
        json!(format!("a/b@sha256:{}", "0".repeat(64))),
        json!("0".repeat(64)),
        json!("a".repeat(40)),
        json!("a".repeat(41)),
    ];
    values.extend([0, -1, 1, 3, 64, 65, 100_000, 131_072, 1_000_000_000_000_i64].map(Value::from));
    values.extend([0.5, 1.5, 1e300].map(Value::from));
    values.extend(
        [
            "",
            "x",
            "é",
            "0s",
            "1s",
            "30s",
            "90h",
            "1000000h",
            "10 s",
            "5m",
            "1h30m",
            "1.5s",
            "Auto",
            "Never",
            "Exists",
            "Equal",
            "Image",
            "Native",
            "LastGood",
            "1Gi",
            "0Gi",
            "12Mi",
            "http://10.0.0.1:11434",
            "https://x/y",
            "file:///m",
            "file://./m",
            "file:///../m",
            "ollama://x",
            "pvc://c/p",
            "hf://a/b@c",
            "hf://a/b",
            "a b",
            "/x",
            "a=b",
        ]
        .map(Value::from),
    );
    values
}

/// Resources put together by chance, the same ones each time.
fn corpus() -> Vec<Value> {
    let spans = "[0-9]{1,4}(ms|s|m|h)".prop_map(Value::from);
    let source = "(ollama|hf|oci|https|file|pvc|s3)://[a-z0-9:/@.#]{1,12}".prop_map(Value::from);
    let value = prop_oneof![
        3 => select(values()),
        2 => spans,
        1 => source,
        1 => (-2_i64..200_000).prop_map(Value::from),
        1 => "[a-zA-Z0-9./:@_-]{0,20}".prop_map(Value::from),
    ];
    let change = (select(all_places()), value);
    let resource =
        (any::<bool>(), prop::collection::vec(change, 0..3)).prop_map(|(small, changes)| {
            let base = if small { smallest() } else { full() };
            changes.into_iter().fold(base, |document, (place, value)| {
                changed(document.clone(), &place, value).unwrap_or(document)
            })
        });
    let mut runner = TestRunner::deterministic();
    (0..CORPUS)
        .map(|_| resource.new_tree(&mut runner).unwrap().current())
        .collect()
}

struct Verdict {
    what: String,
    ours: Result<(), String>,
    servers: Result<Value, Box<kube::core::Status>>,
}

impl Verdict {
    fn differs(&self) -> bool {
        self.ours.is_ok() != self.servers.is_ok()
    }

    fn show(&self) -> String {
        let servers = self.servers.as_ref().err().map(|status| &status.message);
        format!(
            "{}\n   ours: {:?}\n   server's: {servers:?}",
            self.what, self.ours
        )
    }
}

async fn judge(cases: Vec<(String, Value)>) -> Vec<Verdict> {
    let client = &ControlPlane::shared().client();
    stream::iter(cases)
        .map(|(what, object)| async move {
            Verdict {
                ours: our_verdict(&object),
                servers: servers_verdict(client, &object).await,
                what,
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

fn assert_agreement(verdicts: &[Verdict]) {
    let differing: Vec<String> = verdicts
        .iter()
        .filter(|verdict| verdict.differs())
        .map(Verdict::show)
        .collect();
    assert!(
        differing.is_empty(),
        "{} of {} differ:\n{}",
        differing.len(),
        verdicts.len(),
        differing.join("\n")
    );
}

#[tokio::test]
async fn our_validation_and_the_api_server_agree_on_300_resources() {
    let cases = corpus()
        .into_iter()
        .map(|object| (object.to_string(), object))
        .collect();
    let verdicts = judge(cases).await;
    assert_agreement(&verdicts);
    let accepted = verdicts.iter().filter(|one| one.servers.is_ok()).count();
    assert!(
        (CORPUS / 6..=CORPUS * 5 / 6).contains(&accepted),
        "{accepted} of {CORPUS} accepted: such a corpus says little"
    );
}

/// Whether a refusal helps: it names the field, and says what is allowed or what is missing.
fn helps(status: &kube::core::Status, place: &str) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut named = causes.filter(|cause| {
        let field = cause.field.as_str();
        // A rule across fields stands at their parent (the root is `<nil>`), a wrong type inside below.
        let near = place.starts_with(field) || field.starts_with(place);
        (near && !field.is_empty()) || field == "<nil>"
    });
    // What is no JSON of the type at all is refused before the schema, with the path in the message.
    named.any(|cause| cause.message.len() > 15)
        || status
            .message
            .contains(&place.replace("metadata.", "ObjectMeta."))
        || status.message.contains("unknown field")
}

#[tokio::test]
async fn every_field_refuses_bad_values_with_a_message_that_helps() {
    let mut cases = Vec::new();
    let places = all_places();
    for place in &places {
        for value in values() {
            let shown: String = value.to_string().chars().take(60).collect();
            let object = changed(full(), place, value).unwrap();
            cases.push((format!("{} = {shown}", show(place)), object));
        }
    }
    let verdicts = judge(cases).await;
    assert_agreement(&verdicts);
    for place in &places {
        let place = show(place);
        let prefix = format!("{place} = ");
        let refused: Vec<&Verdict> = verdicts
            .iter()
            .filter(|one| one.what.starts_with(&prefix) && one.servers.is_err())
            .collect();
        assert!(refused.len() >= 3, "{place}: {} refused", refused.len());
        for verdict in refused {
            let status = verdict.servers.as_ref().unwrap_err();
            assert!(helps(status, &place), "{}", verdict.show());
        }
    }
}
