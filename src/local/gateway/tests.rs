use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::routing::get;

use super::*;
use crate::local::event::channel;

/// A gateway that is ready, and how often it was asked which table is in force.
fn ready(folder: &std::path::Path) -> (Gateway, UnboundedReceiver<Event>, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let serving = listener.try_clone().unwrap();
    serving.set_nonblocking(true).unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    let answer = move || async move {
        counted.fetch_add(1, Ordering::Relaxed);
        r#"{"routes_generation": 1}"#
    };
    let router = axum::Router::new().route("/readyz", get(answer));
    let serving = tokio::net::TcpListener::from_std(serving).unwrap();
    tokio::spawn(async move { axum::serve(serving, router).await });
    let settings = Settings {
        listener,
        routes: folder.join("routes.json"),
        log: folder.join("gateway.log"),
        api_keys: None,
    };
    let (events, inbox) = channel();
    let mut gateway = Gateway::new(settings, reqwest::Client::new(), events);
    gateway.service = Service::Ready {
        since: Timestamp(0),
    };
    (gateway, inbox, asked)
}

#[tokio::test]
async fn a_table_in_force_is_not_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut gateway, mut inbox, asked) = ready(folder.path());
    let route = Route::default();
    // The loop routes at each of its turns, and an answer is a turn.
    for _ in 0..3 {
        gateway.route(route, RouteTable::empty("test")).unwrap();
    }
    assert!(matches!(
        inbox.recv().await,
        Some(Event::RoutesInForce(0, 1))
    ));
    gateway.in_force(0, 1);
    assert_eq!(gateway.routed, Some(route));
    gateway.route(route, RouteTable::empty("test")).unwrap();
    assert!(
        gateway
            .confirming
            .as_ref()
            .is_some_and(AbortOnDropHandle::is_finished)
    );
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_server_on_all_addresses_is_reached_on_loopback() {
    for (address, expected) in [
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("10.0.0.7:80", "10.0.0.7:80"),
    ] {
        assert_eq!(reachable(address.parse().unwrap()).to_string(), expected);
    }
}
