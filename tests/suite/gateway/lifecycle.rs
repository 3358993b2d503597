//! A gateway that stops, takes new routes, and clients that do not read or do not speak.

use std::time::Duration;

use enginewright::gateway::listener::Limits;
use enginewright::gateway::service::Access;
use serde_json::Value;

use super::upstream::{Act, Scripted, chunk, events, gated_after, head, whole_stream};
use super::{ANSWER, EVERY_WAY, Via, eventually, reading, start, start_with, table};

#[tokio::test]
async fn draining_lets_running_answers_end_and_readiness_goes_first() {
    let engine = Scripted::start(|_| gated_after(1)).await;
    let mut routes = table(Some(&engine.url), None);
    routes.timeouts.stall_ms = 60_000;
    let running = start(routes).await;
    let mut response = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send()
        .await
        .unwrap();
    let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    running.stop.cancel();
    eventually("draining", || running.gateway.draining.is_cancelled()).await;
    assert!(!running.gateway.is_ready());
    engine.open_gate();
    while let Some(bytes) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    let read = reading::stream(Via::Chat, &text);
    assert_eq!(read.text, ANSWER.concat());
    assert!(read.closed);
    eventually("the listener to end", || running.ended.is_finished()).await;
}

#[tokio::test]
async fn after_the_grace_time_a_stream_ends_with_an_error_event_not_with_silence() {
    for via in EVERY_WAY {
        let engine = Scripted::start(move |_| {
            let all = events(via, &ANSWER);
            vec![
                head(200, "text/event-stream"),
                chunk(&all.tokens[0]),
                Act::Hang,
            ]
        })
        .await;
        let mut routes = table(Some(&engine.url), None);
        routes.timeouts.stall_ms = 60_000;
        let limits = Limits {
            grace: Duration::from_millis(50),
            ..Limits::default()
        };
        let running = start_with(routes, Access::default(), limits).await;
        let mut response = running
            .post(via.path(true), &via.body(true))
            .send()
            .await
            .unwrap();
        let mut text =
            String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
        running.stop.cancel();
        while let Some(bytes) = response.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        let read = reading::stream(via, &text);
        assert!(read.error.is_some() && !read.closed, "{text}");
        eventually("the listener to end", || running.ended.is_finished()).await;
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_and_frees_the_engine() {
    let engine = Scripted::start(|_| {
        let all = events(Via::Chat, &ANSWER);
        let mut acts = vec![head(200, "text/event-stream")];
        let block: String = all.tokens.concat().repeat(40);
        acts.extend((0..2_000).map(|_| chunk(&block)));
        acts.push(Act::Hang);
        acts
    })
    .await;
    let mut limits = Limits::default();
    limits.http.write_timeout = Duration::from_millis(200);
    let running = start_with(table(Some(&engine.url), None), Access::default(), limits).await;
    let response = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send()
        .await
        .unwrap();
    // The response is held, not read: socket buffers fill up, then the gateway gives up.
    eventually("the engine to be cancelled", || engine.clients_gone() == 1).await;
    drop(response);
}

#[tokio::test]
async fn a_thousand_silent_connections_do_not_stop_a_client() {
    let engine = Scripted::start(|_| whole_stream(Via::Chat)).await;
    let mut limits = Limits::default();
    limits.http.connections = 200;
    let running = start_with(table(Some(&engine.url), None), Access::default(), limits).await;
    let address = running.url.trim_start_matches("http://").to_owned();
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let response = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn new_routes_hold_for_new_requests_while_running_ones_end_where_they_began() {
    let slow = Scripted::start(|_| gated_after(1)).await;
    let new = Scripted::start(|_| whole_stream(Via::Chat)).await;
    let mut routes = table(Some(&slow.url), None);
    routes.timeouts.stall_ms = 60_000;
    let running = start(routes).await;
    let old = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send()
        .await
        .unwrap();
    let mut routes = table(Some(&new.url), None);
    routes.generation = 2;
    running.gateway.set_routes(routes);
    let ready: Value = running
        .get("/readyz")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(ready["routes_generation"], 2);
    let next = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send()
        .await
        .unwrap();
    assert_eq!(
        reading::stream(Via::Chat, &next.text().await.unwrap()).text,
        ANSWER.concat()
    );
    slow.open_gate();
    assert_eq!(
        reading::stream(Via::Chat, &old.text().await.unwrap()).text,
        ANSWER.concat()
    );
    assert_eq!((slow.asked().len(), new.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_changed_route_file_is_followed_and_a_bad_one_is_not() {
    use enginewright::gateway::background::Watch;
    use enginewright::gateway::state::Gateway;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.json");
    let mut routes = table(None, None);
    let write = |text: &[u8]| {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    write(&routes.to_json().unwrap());
    let gateway = Gateway::new(routes.clone());
    let mut watch = Watch::new(path.clone());
    routes.generation = 7;
    write(&routes.to_json().unwrap());
    watch.look(&gateway);
    assert_eq!(gateway.snapshot().table.generation, 7);
    for bad in [
        &b"{"[..],
        b"{}",
        b"\xff",
        br#"{"version":2,"generation":9,"served_name":"m"}"#,
    ] {
        write(bad);
        watch.look(&gateway);
        assert_eq!(gateway.snapshot().table.generation, 7);
    }
    std::fs::remove_file(&path).unwrap();
    watch.look(&gateway);
    assert_eq!(gateway.snapshot().table.generation, 7);
    routes.generation = 8;
    write(&routes.to_json().unwrap());
    watch.look(&gateway);
    assert_eq!(gateway.snapshot().table.generation, 8);
}
