//! An engine that fails in every way at every point: the client reads the whole answer.

use super::upstream::{Act, Scripted, chunk, events, head, json, ollama, whole_stream};
use super::{ANSWER, EVERY_WAY, Running, Via, nobody, reading, start, table};

/// Where the engine fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    NotThere,
    ClosedAtOnce,
    ResetAtOnce,
    Hangs,
    Status(u16),
    HeadCut,
    ClosedAfterHead,
    HangsAfterHead,
    Nonsense,
    ErrorEventFirst,
    EmptyButEnded,
    AfterGreeting,
    AfterTokens(usize),
    ResetAfterTokens(usize),
    InsideEvent(usize),
    InsideCharacter(usize),
    StallsAfterTokens(usize),
    ErrorEventAfterTokens(usize),
    NonsenseAfterTokens(usize),
    BeforeFinish,
    BeforeDone,
    EndedWithoutDone,
}

const EARLY: [Point; 12] = [
    Point::NotThere,
    Point::ClosedAtOnce,
    Point::ResetAtOnce,
    Point::Hangs,
    Point::Status(500),
    Point::Status(503),
    Point::Status(404),
    Point::HeadCut,
    Point::ClosedAfterHead,
    Point::HangsAfterHead,
    Point::Nonsense,
    Point::EmptyButEnded,
];

const LATE: [Point; 15] = [
    Point::ErrorEventFirst,
    Point::AfterGreeting,
    Point::AfterTokens(1),
    Point::AfterTokens(3),
    Point::ResetAfterTokens(2),
    Point::InsideEvent(0),
    Point::InsideEvent(2),
    Point::InsideCharacter(2),
    Point::StallsAfterTokens(1),
    Point::StallsAfterTokens(4),
    Point::ErrorEventAfterTokens(3),
    Point::NonsenseAfterTokens(2),
    Point::BeforeFinish,
    Point::BeforeDone,
    Point::EndedWithoutDone,
];

fn script(via: Via, point: Point) -> Vec<Act> {
    let all = events(via, &ANSWER);
    let error = if via.is_sse() {
        "data: {\"error\":{\"message\":\"the engine failed: out of memory\"}}\n\n"
    } else {
        "{\"error\":\"the engine failed: out of memory\"}\n"
    };
    let nonsense = if via.is_sse() {
        "data: {\"what\":1}\n\n"
    } else {
        "<html>\n"
    };
    let up_to = |tokens: usize| {
        let mut acts = vec![head(200, "text/event-stream")];
        acts.extend(all.greeting.iter().map(|text| chunk(text)));
        acts.extend(all.tokens[..tokens].iter().map(|text| chunk(text)));
        acts
    };
    let then = |mut acts: Vec<Act>, more: Vec<Act>| {
        acts.extend(more);
        acts
    };
    match point {
        Point::NotThere | Point::ClosedAtOnce => vec![Act::Close],
        Point::ResetAtOnce => vec![Act::Reset],
        Point::Hangs => vec![Act::Hang],
        Point::Status(status) => json(status, &serde_json::json!({ "error": { "message": "no" } })),
        Point::HeadCut => vec![
            Act::Send("HTTP/1.1 200 OK\r\ncontent-ty".into()),
            Act::Close,
        ],
        Point::ClosedAfterHead => vec![head(200, "text/event-stream"), Act::Close],
        Point::HangsAfterHead => vec![head(200, "text/event-stream"), Act::Hang],
        Point::Nonsense => then(up_to(0), vec![chunk(nonsense), Act::Hang]),
        Point::ErrorEventFirst => then(up_to(0), vec![chunk(error), Act::Hang]),
        Point::EmptyButEnded => then(up_to(0), vec![Act::Send("0\r\n\r\n".into())]),
        Point::AfterGreeting => then(up_to(0), vec![Act::Close]),
        Point::AfterTokens(n) => then(up_to(n), vec![Act::Close]),
        Point::ResetAfterTokens(n) => then(up_to(n), vec![Act::Reset]),
        Point::InsideEvent(n) => {
            let half = &all.tokens[n][..all.tokens[n].len() / 2];
            then(
                up_to(n),
                vec![
                    Act::Send(format!("{:x}\r\n{half}", half.len() * 2)),
                    Act::Close,
                ],
            )
        }
        Point::InsideCharacter(n) => {
            // Announces more than the first bytes of the crab.
            let event = &all.tokens[n];
            let at = event.find('\u{1f980}').unwrap();
            let until = &event[..at];
            then(
                up_to(n),
                vec![Act::Send(format!("ff\r\n{until}")), Act::Close],
            )
        }
        Point::StallsAfterTokens(n) => then(up_to(n), vec![Act::Hang]),
        Point::ErrorEventAfterTokens(n) => then(up_to(n), vec![chunk(error), Act::Hang]),
        Point::NonsenseAfterTokens(n) => then(up_to(n), vec![chunk(nonsense), Act::Hang]),
        Point::BeforeFinish => then(up_to(ANSWER.len()), vec![Act::Close]),
        Point::BeforeDone => {
            let finish = all.finish.iter().map(|text| chunk(text));
            then(up_to(ANSWER.len()), finish.chain([Act::Close]).collect())
        }
        Point::EndedWithoutDone => then(up_to(ANSWER.len()), vec![Act::Send("0\r\n\r\n".into())]),
    }
}

async fn pair(via: Via, point: Point) -> (Running, Scripted, Scripted) {
    let engine = Scripted::start(move |request| {
        if request.head.starts_with("GET") {
            json(503, &serde_json::json!({}))
        } else {
            script(via, point)
        }
    })
    .await;
    let fallback = Scripted::start(ollama).await;
    let url = if point == Point::NotThere {
        nobody()
    } else {
        engine.url.clone()
    };
    let running = start(table(Some(&url), Some(&fallback.url))).await;
    (running, engine, fallback)
}

#[tokio::test]
async fn a_stream_survives_every_failure_of_the_engine_at_every_point() {
    for via in EVERY_WAY {
        for point in EARLY.into_iter().chain(LATE) {
            let (running, _engine, fallback) = pair(via, point).await;
            let response = running
                .post(via.path(true), &via.body(true))
                .send()
                .await
                .unwrap();
            let context = format!("{via:?} {point:?}");
            assert_eq!(response.status(), 200, "{context}");
            let backend = response.headers()["x-enginewright-backend"].clone();
            let body = response.text().await.unwrap();
            let read = reading::stream(via, &body);
            assert_eq!(read.text, ANSWER.concat(), "{context}: {body}");
            assert_eq!(read.error, None, "{context}");
            assert_eq!(read.finish.as_deref(), Some("stop"), "{context}: {body}");
            assert!(read.closed, "{context}: {body}");
            assert!(
                read.models.iter().all(|model| model == "served"),
                "{context}: {body}"
            );
            assert!(
                read.ids.windows(2).all(|two| two[0] == two[1]),
                "{context}: {body}"
            );
            let resumed = backend == "Cpu" && !fallback.asked().is_empty();
            assert_eq!(read.mark.is_some(), resumed, "{context}: {body}");
            assert_eq!(
                !read.comments.is_empty(),
                resumed && via.is_sse(),
                "{context}: {body}"
            );
        }
    }
}

#[tokio::test]
async fn a_whole_answer_survives_every_failure_of_the_engine_at_every_point() {
    for via in EVERY_WAY {
        for point in EARLY.into_iter().chain(LATE) {
            // Without [DONE] all that matters was said, but the engine may have died: begun anew.
            let (running, _engine, _fallback) = pair(via, point).await;
            let response = running
                .post(via.path(false), &via.body(false))
                .send()
                .await
                .unwrap();
            let context = format!("{via:?} {point:?}");
            assert_eq!(response.status(), 200, "{context}");
            let body = response.json().await.unwrap();
            let read = reading::whole(via, &body);
            assert_eq!(read.text, ANSWER.concat(), "{context}: {body}");
            assert_eq!(read.finish.as_deref(), Some("stop"), "{context}: {body}");
        }
    }
}

#[tokio::test]
async fn a_healthy_engine_answers_and_its_events_are_passed_on_byte_for_byte() {
    for via in EVERY_WAY {
        let engine = Scripted::start(move |_| whole_stream(via)).await;
        let fallback = Scripted::start(ollama).await;
        let running = start(table(Some(&engine.url), Some(&fallback.url))).await;
        let response = running
            .post(via.path(true), &via.body(true))
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["x-enginewright-backend"], "Cpu");
        let all = events(via, &ANSWER);
        let expected: String = all
            .greeting
            .into_iter()
            .chain(all.tokens)
            .chain(all.finish)
            .chain(all.done)
            .collect();
        assert_eq!(response.text().await.unwrap(), expected);
        let whole = running
            .post(via.path(false), &via.body(false))
            .send()
            .await
            .unwrap();
        let read = reading::whole(via, &whole.json().await.unwrap());
        assert_eq!(read.text, ANSWER.concat());
        assert!(fallback.asked().is_empty());
        assert_eq!(
            engine.asked()[0].body,
            via.body(true),
            "the request is passed on as it came"
        );
    }
}

#[tokio::test]
async fn the_continuation_asks_for_the_rest_only() {
    let via = Via::Chat;
    let (running, _engine, fallback) = pair(via, Point::AfterTokens(3)).await;
    let mut body = via.body(true);
    body["max_tokens"] = 10.into();
    body["stop"] = "END".into();
    body["stream_options"] = serde_json::json!({ "include_usage": true });
    let response = running.post(via.path(true), &body).send().await.unwrap();
    let read = reading::stream(via, &response.text().await.unwrap());
    let asked = fallback.asked().remove(0).body;
    let prompt = asked["prompt"].as_str().unwrap();
    assert!(prompt.ends_with(&ANSWER[..3].concat()), "{prompt:?}");
    assert_eq!(asked["options"]["num_predict"], 7);
    assert_eq!(asked["options"]["stop"], serde_json::json!(["END"]));
    assert_eq!(read.ids[0], "chatcmpl-engine");
    let mark = &read.mark.unwrap()["resumed"];
    assert_eq!(mark["backend"], "Ollama");
    assert_eq!(
        mark["after_characters"],
        ANSWER[..3].concat().chars().count()
    );
    // 23 tokens of prompt, 3 of them the engine's part of the answer, which has 5 in all.
    assert_eq!(
        read.usage.unwrap(),
        serde_json::json!({ "prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25 })
    );
}

#[tokio::test]
async fn at_the_limit_of_tokens_nothing_more_is_asked_for() {
    let via = Via::Chat;
    let (running, _engine, fallback) = pair(via, Point::AfterTokens(3)).await;
    let mut body = via.body(true);
    body["max_tokens"] = 3.into();
    let response = running.post(via.path(true), &body).send().await.unwrap();
    let read = reading::stream(via, &response.text().await.unwrap());
    assert_eq!(read.text, ANSWER[..3].concat());
    assert_eq!(read.finish.as_deref(), Some("length"));
    assert!(read.closed && fallback.asked().is_empty());
}

#[tokio::test]
async fn an_absent_engine_costs_next_to_nothing() {
    let fallback = Scripted::start(ollama).await;
    let running = start(table(Some(&nobody()), Some(&fallback.url))).await;
    for _ in 0..5 {
        let begun = std::time::Instant::now();
        let response = running
            .post("/api/chat", &Via::OllamaChat.body(false))
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["x-enginewright-backend"], "Ollama");
        response.bytes().await.unwrap();
        // The target is 50 ms; a shared machine may be late.
        assert!(begun.elapsed().as_millis() < 500);
    }
}

#[tokio::test]
async fn when_the_fallback_breaks_too_the_stream_ends_with_an_error_event() {
    for via in EVERY_WAY {
        let engine = Scripted::start(move |_| script(via, Point::AfterTokens(2))).await;
        let running = start(table(Some(&engine.url), Some(&nobody()))).await;
        let response = running
            .post(via.path(true), &via.body(true))
            .send()
            .await
            .unwrap();
        let read = reading::stream(via, &response.text().await.unwrap());
        assert_eq!(read.text, ANSWER[..2].concat());
        let error = read.error.expect("an error event");
        assert!(
            !read.closed && read.finish.is_none(),
            "it must not look complete"
        );
        let message = if via == Via::Chat {
            &error["error"]["message"]
        } else {
            &error["error"]
        };
        let message = if message.is_object() {
            &message["message"]
        } else {
            message
        };
        assert!(
            message.as_str().unwrap().contains("could not be completed"),
            "{error}"
        );
        assert!(
            (running
                .metric(&format!(
                    "enginewright_gateway_requests_total{{api=\"{}\",outcome=\"broken\"}}",
                    match via {
                        Via::Chat => "chat_completions",
                        Via::Completion => "completions",
                        Via::OllamaChat => "ollama_chat",
                        Via::OllamaGenerate => "ollama_generate",
                        Via::Plain => "generate",
                    }
                ))
                .await
                - 1.0)
                .abs()
                < f64::EPSILON
        );
    }
}
