//! An upstream that speaks only `OpenAI`'s API, in front of clients of every API.

use serde_json::json;

use super::upstream::{
    Act, Recorded, Scripted, chunk, end, events, head, json as answer, whole_stream,
};
use super::{ANSWER, EVERY_WAY, Running, Via, reading, start, table};
use enginewright::gateway::routes::UpstreamKind;

/// It knows the answer, and goes on from whatever part of it a prompt ends with.
fn openai(request: &Recorded) -> Vec<Act> {
    if request.head.starts_with("GET") {
        assert_eq!(request.path, "/v1/models");
        return answer(200, &json!({ "object": "list", "data": [] }));
    }
    match request.path.as_str() {
        "/v1/chat/completions" => whole_stream(Via::Chat),
        "/v1/completions" => {
            let prompt = request.body["prompt"].as_str().unwrap();
            let known = (0..=ANSWER.len())
                .rev()
                .find(|known| prompt.ends_with(&ANSWER[..*known].concat()))
                .unwrap();
            let rest = events(Via::Completion, &ANSWER[known..]);
            let all = rest.tokens.iter().chain(&rest.finish).chain(&rest.done);
            let mut acts = vec![head(200, "text/event-stream")];
            acts.extend(all.map(|text| chunk(text)));
            acts.push(end());
            acts
        }
        other => panic!("{other} is none of OpenAI's paths"),
    }
}

/// A gateway whose primary is such a server.
async fn alone(upstream: &Scripted) -> Running {
    let mut table = table(Some(&upstream.url), None);
    if let Some(primary) = &mut table.primary {
        primary.kind = UpstreamKind::OpenAi;
        primary.model = "theirs".into();
    }
    start(table).await
}

#[tokio::test]
async fn clients_of_every_api_are_answered_by_a_server_of_one() {
    let upstream = Scripted::start(openai).await;
    let running = alone(&upstream).await;
    for via in EVERY_WAY {
        let response = running.post(via.path(true), &via.body(true)).send();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200, "{via:?}");
        let body = response.text().await.unwrap();
        let read = reading::stream(via, &body);
        assert_eq!(read.text, ANSWER.concat(), "{via:?}: {body}");
        assert_eq!(read.finish.as_deref(), Some("stop"), "{via:?}: {body}");
        assert!(read.closed && read.error.is_none(), "{via:?}: {body}");
        assert!(read.models.iter().all(|model| model == "served"), "{body}");
        let whole = running.post(via.path(false), &via.body(false)).send();
        let read = reading::whole(via, &whole.await.unwrap().json().await.unwrap());
        assert_eq!(read.text, ANSWER.concat(), "{via:?}");
    }
    for request in upstream.asked() {
        assert_eq!(request.body["model"], "theirs", "{}", request.path);
    }
}

#[tokio::test]
async fn a_broken_answer_goes_on_behind_the_rendered_prompt() {
    let fallback = Scripted::start(openai).await;
    for via in EVERY_WAY {
        let engine = Scripted::start(move |request| {
            if request.head.starts_with("GET") {
                return answer(503, &json!({}));
            }
            let all = events(via, &ANSWER);
            let mut acts = vec![head(200, "text/event-stream")];
            acts.extend(all.tokens[..3].iter().map(|text| chunk(text)));
            acts.push(Act::Close);
            acts
        })
        .await;
        let mut table = table(Some(&engine.url), Some(&fallback.url));
        if let Some(fallback) = &mut table.fallback {
            fallback.kind = UpstreamKind::OpenAi;
        }
        let running = start(table).await;
        let response = running.post(via.path(true), &via.body(true)).send();
        let body = response.await.unwrap().text().await.unwrap();
        let read = reading::stream(via, &body);
        assert_eq!(read.text, ANSWER.concat(), "{via:?}: {body}");
        assert!(read.closed && read.mark.is_some(), "{via:?}: {body}");
    }
    let asked = fallback.asked();
    assert_eq!(asked.len(), EVERY_WAY.len());
    assert!(
        asked
            .iter()
            .all(|request| request.path == "/v1/completions")
    );
    let prompt = asked[0].body["prompt"].as_str().unwrap();
    assert!(
        prompt.contains("<|im_start|>assistantOne two"),
        "{prompt:?}"
    );
}

#[tokio::test]
async fn what_clients_look_for_first_is_told_in_their_terms() {
    let upstream = Scripted::start(openai).await;
    let running = alone(&upstream).await;
    for (path, pointer, expected) in [
        ("/v1/models", "/data/0/id", "served"),
        ("/v1/models/served", "/id", "served"),
        ("/api/tags", "/models/0/name", "served"),
        ("/api/ps", "/models/0/model", "served"),
    ] {
        let response = running.get(path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(body.pointer(pointer).unwrap(), expected, "{path}: {body}");
    }
    assert_eq!(
        running.get("/api/version").send().await.unwrap().status(),
        200
    );
}
