//! Ending: on an order without cutting anybody, and when the engine dies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enginewright::backend::scripted::Fault;
use enginewright::server::{Phase, ServeError, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::support::{Builder, Server, and, chat, saying};

struct Live {
    address: SocketAddr,
    server: Server,
    token: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), ServeError>>,
    client: reqwest::Client,
}

async fn live(builder: Builder) -> Live {
    let server = builder.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let task = tokio::spawn(serve(listener, Arc::clone(&server.state), token.clone()));
    // A connection each: an idle one is closed by the drain, and a request that meets the closing
    // half-way is lost by HTTP's own rules, not by the server's.
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0);
    let client = client.build().unwrap();
    Live {
        address,
        server,
        token,
        task,
        client,
    }
}

impl Live {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn status(&self, path: &str) -> u16 {
        self.client
            .get(self.url(path))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    async fn stream(&self, body: &Value) -> reqwest::Response {
        let response = self
            .client
            .post(self.url("/v1/chat/completions"))
            .json(body)
            .send()
            .await;
        response.unwrap()
    }
}

fn streaming() -> Value {
    and(chat("hi"), &json!({ "stream": true }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_not_ready_first_and_cuts_no_answer() {
    let live = live(saying("a rather long answer").places(2, 4)).await;
    live.server.control.delay(Duration::from_millis(30));
    let running = live.stream(&streaming()).await;
    assert_eq!(running.status(), 200);
    assert_eq!(live.status("/readyz").await, 200);
    live.token.cancel();
    live.server
        .state
        .reached(|phase| *phase == Phase::Draining)
        .await;
    assert_eq!(live.status("/readyz").await, 503);
    assert_eq!(live.status("/healthz").await, 200);
    let refused = live.stream(&chat("too late")).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let text = running.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    live.task.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(live.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_still_served_while_word_gets_around_that_the_server_leaves() {
    let live = live(saying("ok").with(|config| config.drain_delay = Duration::from_secs(2))).await;
    live.token.cancel();
    live.server
        .state
        .reached(|phase| *phase == Phase::Leaving)
        .await;
    assert_eq!(live.status("/readyz").await, 503);
    assert_eq!(live.stream(&chat("hi")).await.status(), 200);
    live.task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_within_the_grace_time_is_told_so() {
    let live =
        live(saying(&"long ".repeat(300)).with(|config| config.grace = Duration::from_millis(400)))
            .await;
    live.server.control.delay(Duration::from_millis(20));
    let running = live.stream(&streaming()).await;
    let began = Instant::now();
    live.token.cancel();
    let text = running.text().await.unwrap();
    assert!(
        text.contains("shutting down") && !text.contains("[DONE]"),
        "{text}"
    );
    live.task.await.unwrap().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_heads_and_idle_connections_do_not_hold_up_the_end() {
    let live = live(saying("ok")).await;
    let mut silent = Vec::new();
    for i in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(live.address).await.unwrap();
        if i % 2 == 0 {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"POST / HT")
                .await
                .unwrap();
        }
        silent.push(stream);
    }
    assert_eq!(live.status("/healthz").await, 200);
    let began = Instant::now();
    live.token.cancel();
    live.task.await.unwrap().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_ends_the_server_with_an_error_and_tells_running_clients() {
    for fault in [Fault::Fatal, Fault::Panic] {
        let live = live(saying("a rather long answer")).await;
        live.server.control.delay(Duration::from_millis(20));
        let running = live.stream(&streaming()).await;
        let began = Instant::now();
        live.server.control.fault(fault);
        let text = running.text().await.unwrap();
        assert!(text.contains("\"error\""), "{text}");
        let error = live.task.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("the engine failed"), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }
}
