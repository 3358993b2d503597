//! An API server that is overloaded, loses answers and hangs, and two operators at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tower::{BoxError, service_fn};

use crate::support::{Operator, World, eventually, holds, spec};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Fair,
    /// Refused with this status.
    Refused(StatusCode),
    /// Carried out, and the answer lost.
    Lost,
    /// Never answered.
    Hung,
}

/// The weather of request `number`: one of twenty goes wrong, each in its own way, in an order that no
/// loop of retries has. A reconciliation reads nine times, so two of five fail.
fn weather(number: u64) -> Weather {
    // A multiplicative hash: the same on each run, and without a pattern that retries fall into.
    let hashed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    match hashed % 800 {
        0..12 => Weather::Refused(StatusCode::INTERNAL_SERVER_ERROR),
        12..20 => Weather::Refused(StatusCode::TOO_MANY_REQUESTS),
        20..28 => Weather::Refused(StatusCode::CONFLICT),
        28..32 => Weather::Refused(StatusCode::GONE),
        32..39 => Weather::Lost,
        39 => Weather::Hung,
        _ => Weather::Fair,
    }
}

/// What came of a storm.
#[derive(Debug, Default)]
struct Toll {
    requests: AtomicU64,
    struck: AtomicU64,
}

/// A client in a storm.
fn stormy(client: Client) -> (Client, Arc<Toll>) {
    let toll = Arc::<Toll>::default();
    let counted = Arc::clone(&toll);
    let layer = service_fn(move |request: Request<Body>| {
        let number = counted.requests.fetch_add(1, Ordering::SeqCst);
        let weather = match weather(number) {
            // A watch that hangs is ended by the connection's read timeout, which is below this layer.
            Weather::Hung if !request.uri().path().contains("/namespaces/") => Weather::Lost,
            weather => weather,
        };
        if weather != Weather::Fair {
            counted.struck.fetch_add(1, Ordering::SeqCst);
        }
        let client = client.clone();
        async move {
            match weather {
                Weather::Fair => client.send(request).await.map_err(BoxError::from),
                Weather::Refused(status) => Ok(refusal(status)),
                Weather::Lost => {
                    let _lost = client.send(request).await;
                    Err("the connection broke".into())
                }
                Weather::Hung => std::future::pending().await,
            }
        }
    });
    (Client::new(layer, "default"), toll)
}

fn refusal(status: StatusCode) -> Response<Body> {
    let reason = match status {
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::GONE => "Expired",
        _ => "InternalError",
    };
    let mut body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": "a storm", "code": status.as_u16()});
    if status == StatusCode::TOO_MANY_REQUESTS {
        body["details"] = json!({"retryAfterSeconds": 1});
    }
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string().into_bytes()))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_of_twenty_requests_goes_wrong_a_life_takes_longer_and_comes_to_the_same_end() {
    let world = World::new().await;
    let (client, toll) = stormy(world.operator.clone());
    let operator = Operator::start(client);
    world.apply("smol", spec()).await;
    world
        .until("smol", "Ready", |one| holds(one, "Ready"))
        .await;
    world.delete("smol").await;
    let (requests, struck) = (
        toll.requests.load(Ordering::SeqCst),
        toll.struck.load(Ordering::SeqCst),
    );
    println!("{struck} of {requests} requests went wrong");
    assert!(struck >= 5, "{struck} of {requests}");
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_operators_one_leads_and_the_other_takes_over_without_a_write() {
    let world = World::new().await;
    let first = Operator::start_as(world.operator.clone(), "first");
    eventually("a leader", || async { first.leads().await }).await;
    let second = Operator::start_as(world.operator.clone(), "second");
    world.apply("smol", spec()).await;
    world
        .until("smol", "Ready", |one| holds(one, "Ready"))
        .await;
    assert!(first.leads().await && !second.leads().await);
    assert_eq!(second.reconciliations().await, 0);
    first.stop().await;
    eventually("the other to lead", || async { second.leads().await }).await;
    eventually("a reconciliation", || async {
        second.reconciliations().await > 0
    })
    .await;
    crate::life::nothing_is_written(&second).await;
    assert_eq!(second.writes().await, 0);
    second.stop().await;
}
