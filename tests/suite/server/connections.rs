//! Hostile and slow clients on a real socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enginewright::server::{ServerState, serve};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::support::{Builder, Server, chat, saying};

struct Live {
    address: SocketAddr,
    state: Arc<ServerState>,
    control: enginewright::backend::scripted::Control,
    token: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), enginewright::server::ServeError>>,
}

async fn live(builder: Builder) -> Live {
    let Server { state, control, .. } = builder.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let task = tokio::spawn(serve(listener, Arc::clone(&state), token.clone()));
    Live {
        address,
        state,
        control,
        token,
        task,
    }
}

impl Live {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_all(&mut stream).await
    }

    async fn healthy(&self) {
        let began = Instant::now();
        let answer = self
            .talk(&request(
                "POST",
                "/v1/chat/completions",
                &chat("hi").to_string(),
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }

    async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads until the server closes; a reset counts as closing.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes));
    let _reset = read.await.expect("the server closes within 30 s");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_connections_do_not_stop_a_normal_client() {
    // Both ends of the connections are in this process.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let live = live(saying("ok").with(|config| config.connections.connections = 400)).await;
    let mut silent = Vec::new();
    for i in 0..1000 {
        let mut stream = live.connect().await;
        match i % 3 {
            0 => {}
            1 => stream
                .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: loc")
                .await
                .unwrap(),
            _ => stream
                .write_all(
                    b"POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999\r\n\r\n{",
                )
                .await
                .unwrap(),
        }
        silent.push(stream);
        if i % 100 == 99 {
            live.healthy().await;
        }
    }
    assert!(live.state.connections.open() <= 400);
    live.healthy().await;
    drop(silent);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_that_do_not_arrive_are_cut_at_their_deadline() {
    let live = live(saying("ok").with(|config| {
        config.connections.head_timeout = Duration::from_millis(300);
        config.body_timeout = Duration::from_millis(300);
    }))
    .await;
    let mut silent = live.connect().await;
    let mut half_head = live.connect().await;
    half_head
        .write_all(b"GET /v1/models HTTP/1.1\r\nhost:")
        .await
        .unwrap();
    let began = Instant::now();
    assert_eq!(read_all(&mut silent).await, "");
    read_all(&mut half_head).await;
    let half_body = live
        .talk(b"POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{")
        .await;
    assert!(half_body.starts_with("HTTP/1.1 408"), "{half_body}");
    assert!(half_body.contains("connection: close"), "{half_body}");
    assert!(began.elapsed() < Duration::from_secs(5));
    live.healthy().await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_drips_its_head_is_cut_too() {
    let live = live(
        saying("ok").with(|config| config.connections.head_timeout = Duration::from_millis(400)),
    )
    .await;
    let mut stream = live.connect().await;
    let began = Instant::now();
    let dripping = async {
        for byte in b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-a: aaaaaaaaaaaaaaaaaaaaaaaaaa"
        {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    dripping.await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_and_its_slot_is_free_again() {
    let words = "a word and ".repeat(180);
    let live = live(
        saying(&words)
            .with(|config| config.connections.write_timeout = Duration::from_millis(500))
            .places(1, 4),
    )
    .await;
    // Log-probabilities make the answer larger than the buffers between the two.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(live.address).await.unwrap();
    let mut body = chat("hi");
    body["stream"] = true.into();
    body["logprobs"] = true.into();
    body["top_logprobs"] = 20.into();
    stream
        .write_all(&request("POST", "/v1/chat/completions", &body.to_string()))
        .await
        .unwrap();
    let engine = &live.state.loaded().unwrap().engine;
    let began = Instant::now();
    while live.state.connections.open() > 0 || began.elapsed() < Duration::from_millis(100) {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the connection is still open"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(engine.stats().slots_busy, 0);
    drop(stream);
    live.healthy().await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads_are_refused() {
    let live = live(saying("ok")).await;
    let long = format!(
        "GET /v1/models HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "a".repeat(200_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    let smuggled = "POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\
                    transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /secret HTTP/1.1\r\nhost: x\r\n\r\n";
    let twice =
        "POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello";
    for (bytes, codes) in [
        (long.as_str(), &["431"][..]),
        (many.as_str(), &["431"]),
        (smuggled, &["400"]),
        (twice, &["400"]),
        ("NONSENSE\r\n\r\n", &["400"]),
        ("GET / HTTP/9.9\r\n\r\n", &["400", "505"]),
    ] {
        let answer = live.talk(bytes.as_bytes()).await;
        let shown: String = bytes.chars().take(70).collect();
        assert!(
            codes
                .iter()
                .any(|code| answer.starts_with(&format!("HTTP/1.1 {code}"))),
            "{shown:?}: {answer:?}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    live.healthy().await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_100_mb_reads_the_refusal() {
    let live = live(saying("ok")).await;
    let mut stream = live.connect().await;
    let length = 100 * 1024 * 1024;
    let head =
        format!("POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 1024 * 1024];
    for _ in 0..100 {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
    }
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:?}");
    live.healthy().await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_tiny_chunks_are_only_a_body() {
    let live = live(saying("ok")).await;
    let mut stream = live.connect().await;
    let head = "POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend(b"1\r\n \r\n".repeat(500_000));
    bytes.extend(b"0\r\n\r\n");
    stream.write_all(&bytes).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    live.healthy().await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_while_it_waits_frees_its_place() {
    let live = live(saying("ok").places(1, 2)).await;
    live.control.close();
    let mut stream = live.connect().await;
    stream
        .write_all(&request(
            "POST",
            "/v1/chat/completions",
            &chat("hi").to_string(),
        ))
        .await
        .unwrap();
    let engine = &live.state.loaded().unwrap().engine;
    let busy = async |wanted: u32| {
        for _ in 0..2000 {
            let stats = engine.stats();
            if stats.slots_busy + stats.waiting == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never {wanted}: {:?}", engine.stats());
    };
    busy(1).await;
    drop(stream);
    while live.state.connections.open() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    live.control.pass(1);
    busy(0).await;
    live.control.open();
    live.healthy().await;
    live.stop().await;
}
