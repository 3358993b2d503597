//! What clients send and read.

use serde_json::json;

use super::*;
use crate::wire::json::parse;

#[test]
fn options_take_whole_floats_and_name_what_is_wrong() {
    let request: ChatRequest = parse(
        json!({ "model": "m", "options": { "num_ctx": 4096.0, "seed": 1, "num_gpu": 3, "stop": "x" } })
            .to_string()
            .as_bytes(),
    )
    .unwrap();
    let options = request.options.unwrap();
    assert_eq!((options.num_ctx, options.seed), (Some(4096), Some(1)));
    let wrong = |body: serde_json::Value| {
        parse::<ChatRequest>(body.to_string().as_bytes())
            .unwrap_err()
            .to_string()
    };
    assert!(
        wrong(json!({ "model": "m", "options": { "top_k": 1.5 } })).starts_with("options.top_k: ")
    );
    assert!(
        wrong(json!({ "model": "m", "messages": [{ "role": "user", "content": [] }] }))
            .starts_with("messages[0].content: ")
    );
    assert_eq!(wrong(json!({})), "model: is required");
}

#[test]
fn the_last_line_is_flat() {
    let line = GenerateResponse {
        model: "m".into(),
        created_at: String::new(),
        response: String::new(),
        done: true,
        done_reason: Some("stop".into()),
        counts: Counts {
            eval_count: Some(3),
            ..Counts::default()
        },
    };
    let value = serde_json::to_value(&line).unwrap();
    assert_eq!(value["eval_count"], 3);
    assert_eq!(value.get("total_duration"), None);
    assert_eq!(
        serde_json::from_value::<GenerateResponse>(value).unwrap(),
        line
    );
}
