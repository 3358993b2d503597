//! Who is let in.

use axum::body::Body;
use enginewright::server::ROUTES;
use http::Request;
use serde_json::json;

use super::support::{Answer, Server, chat, saying};

fn request(method: &str, path: &str) -> http::request::Builder {
    let method = if method == "ANY" { "POST" } else { method };
    let path = path
        .replace("{*id}", "test-model")
        .replace("{digest}", "sha256:00");
    Request::builder().method(method).uri(path)
}

async fn ask(server: &Server, request: http::request::Builder) -> Answer {
    server
        .send(request.body(Body::from(chat("hi").to_string())).unwrap())
        .await
}

#[tokio::test]
async fn without_a_key_every_route_of_the_router_but_health_is_refused() {
    let server = saying("ok").keys("a-secret-key\n").start();
    for route in ROUTES {
        let answer = ask(&server, request(route.method, route.path)).await;
        let open = ["/healthz", "/readyz"].contains(&route.path);
        assert_eq!(
            answer.status == 401,
            !open,
            "{}: {}",
            route.path,
            answer.status
        );
        if !open {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(!answer.text().contains("test-model"), "{}", answer.text());
        }
        let known =
            request(route.method, route.path).header("authorization", "Bearer a-secret-key");
        assert_ne!(ask(&server, known).await.status, 401, "{}", route.path);
        let wrong =
            request(route.method, route.path).header("authorization", "Bearer a-secret-kez");
        assert_eq!(
            ask(&server, wrong).await.status == 401,
            !open,
            "{}",
            route.path
        );
    }
    for path in [
        "/nothing",
        "/v1/chat/completions/",
        "//healthz",
        "/healthz/x",
    ] {
        assert_eq!(
            ask(&server, request("GET", path)).await.status,
            401,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_refusal_has_the_shape_of_the_clients_dialect() {
    let server = saying("ok").keys("a-secret-key").start();
    let openai = server.get("/v1/models").await.json();
    assert_eq!(openai["error"]["code"], "invalid_api_key");
    assert!(server.get("/api/tags").await.json()["error"].is_string());
}

#[tokio::test]
async fn keys_can_be_exchanged_while_the_server_runs() {
    let server = saying("ok").keys("the-old-key").start();
    server
        .state
        .set_keys(enginewright::server::auth::ApiKeys::parse("the-new-key").unwrap());
    let with = |key: &str| request("GET", "/v1/models").header("x-api-key", key);
    assert_eq!(ask(&server, with("the-old-key")).await.status, 401);
    assert_eq!(ask(&server, with("the-new-key")).await.status, 200);
}

#[tokio::test]
async fn a_local_server_without_keys_answers_only_local_names() {
    let server = saying("ok")
        .with(|config| config.local_hosts_only = true)
        .start();
    let with = |name: &'static str, value: &str| request("GET", "/v1/models").header(name, value);
    for host in ["localhost:8080", "127.0.0.1", "[::1]:1"] {
        assert_eq!(ask(&server, with("host", host)).await.status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1"] {
        assert_eq!(ask(&server, with("host", host)).await.status, 403, "{host}");
    }
    assert_eq!(
        ask(&server, with("origin", "http://evil.example"))
            .await
            .status,
        403
    );
    assert_eq!(
        ask(&server, with("origin", "http://localhost:3000"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_request_id_is_taken_over_when_harmless() {
    let server = saying("ok").start();
    let with = |id: &str| request("GET", "/v1/models").header("x-request-id", id);
    assert_eq!(
        ask(&server, with("abc-123")).await.header("x-request-id"),
        "abc-123"
    );
    let answer = ask(&server, with("<script>")).await;
    assert_eq!(answer.header("x-request-id").len(), 16);
    let body = json!({ "messages": [] });
    assert!(
        !server
            .post("/v1/chat/completions", &body)
            .await
            .header("x-request-id")
            .is_empty()
    );
}
