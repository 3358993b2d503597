//! Constrained answers of the real model through the whole server: the schemas of
//! [`crate::structured`], temperature 1, every answer checked by an independent validator.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::structured::schemas;
use crate::tools::{self, Process, enginewright, free_address};

const CLIENTS: usize = 4;
/// An answer this long is cut and therefore no JSON; it is counted apart.
const MOST_TOKENS: u32 = 300;

/// One for each schema; `make soak` asks for 20.
fn answers_per_schema() -> usize {
    std::env::var("ENGINEWRIGHT_ANSWERS").map_or(1, |text| text.parse().unwrap())
}

/// How one answer came out.
enum Answer {
    Valid,
    Cut,
    Wrong(String),
}

async fn ask(client: &reqwest::Client, base: &str, schema: &Value, seed: usize) -> Answer {
    let body = json!({
        "model": "smollm2", "temperature": 1, "seed": seed, "max_tokens": MOST_TOKENS,
        "messages": [{ "role": "user", "content": "Answer with a short, made-up example." }],
        "response_format": { "type": "json_schema",
            "json_schema": { "name": "example", "schema": schema } },
    });
    let response = client
        .post(format!("{base}/v1/chat/completions"))
        .json(&body)
        .send()
        .await
        .unwrap();
    let answer: Value = response.json().await.unwrap();
    let choice = &answer["choices"][0];
    if choice["finish_reason"] == "length" {
        return Answer::Cut;
    }
    let text = choice["message"]["content"].as_str();
    let value = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap();
    match value {
        Some(value) if choice["finish_reason"] == "stop" && validator.is_valid(&value) => {
            Answer::Valid
        }
        _ => Answer::Wrong(format!("{schema} with seed {seed} gave {answer}")),
    }
}

#[tokio::test]
async fn answers_of_the_real_model_to_fifty_schemas_are_valid() {
    let address = free_address();
    let mut command = enginewright(["serve", "--served-name", "smollm2", "--model"]);
    command.arg(tools::model());
    command.args(["--listen", &address.to_string(), "--context", "1024"]);
    let mut process = Process::start(command);
    process.wait_for_output("ready", Duration::from_mins(1));
    let (schemas, base) = (Arc::new(schemas()), format!("http://{address}"));
    let total = schemas.len() * answers_per_schema();
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (schemas, base, next) = (Arc::clone(&schemas), base.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let (mut valid, mut cut, mut wrong) = (0, 0, Vec::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return (valid, cut, wrong);
                }
                let schema = &schemas[number % schemas.len()];
                match ask(&client, &base, schema, number / schemas.len()).await {
                    Answer::Valid => valid += 1,
                    Answer::Cut => cut += 1,
                    Answer::Wrong(what) => wrong.push(what),
                }
            }
        });
    }
    let (mut valid, mut cut, mut wrong) = (0, 0, Vec::new());
    for (good, long, bad) in clients.join_all().await {
        valid += good;
        cut += long;
        wrong.extend(bad);
    }
    eprintln!("{total} answers: {valid} valid, {cut} cut at {MOST_TOKENS} tokens");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(valid + cut, total);
    assert!(
        valid * 2 > total,
        "most answers were cut: the test shows little"
    );
}
