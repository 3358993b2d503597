//! A proxy that does what bad links and busy servers do, and notes what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub range: Option<String>,
}

/// What goes wrong with the next requests for a file; one entry is used up by each.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection breaks after this many bytes.
    Cut(usize),
    /// A status, and how many seconds to wait.
    Refuse(u16, Option<u64>),
    /// Nothing after this many bytes, for good.
    Hang(usize),
    /// One byte is another.
    Damage,
}

/// The proxy.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    client: reqwest::Client,
    asked: Mutex<Vec<Asked>>,
    faults: Mutex<VecDeque<Fault>>,
    /// Demands this token, to be had from `/token`.
    token: Option<&'static str>,
    own: SocketAddr,
}

/// Serves in a thread of its own for as long as the process lives; tests wait for processes.
pub fn serve(router: impl FnOnce(SocketAddr) -> Router + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router(address)).await.unwrap();
        });
    });
    address
}

impl Proxy {
    /// In front of what listens at `upstream`.
    pub fn new(upstream: SocketAddr) -> Self {
        Self::demanding(upstream, None)
    }

    /// One that lets nobody through without `token`, as registries with a token server do.
    pub fn demanding(upstream: SocketAddr, token: Option<&'static str>) -> Self {
        let (send, receive) = std::sync::mpsc::channel();
        let address = serve(move |own| {
            let state = Arc::new(Shared {
                upstream: format!("http://{upstream}"),
                client: reqwest::Client::builder()
                    .no_proxy()
                    .redirect(reqwest::redirect::Policy::none())
                    .build()
                    .unwrap(),
                asked: Mutex::default(),
                faults: Mutex::default(),
                token,
                own,
            });
            send.send(Arc::clone(&state)).unwrap();
            Router::new().fallback(forward).with_state(state)
        });
        Self {
            address,
            state: receive.recv().unwrap(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What goes wrong next.
    pub fn will(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.faults.lock().unwrap().extend(faults);
    }

    /// Requests for files since the start.
    pub fn files(&self) -> Vec<Asked> {
        let asked = self.state.asked.lock().unwrap();
        asked
            .iter()
            .filter(|one| is_file(&one.path))
            .cloned()
            .collect()
    }

    /// All requests since the start.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }
}

/// The model's bytes, not what is said about them.
fn is_file(path: &str) -> bool {
    path.contains("/blobs/") || path.contains("/resolve/")
}

async fn forward(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().to_string();
    let mut headers = request.into_parts().0.headers;
    let text = |name| {
        let value = headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let authorization = text(header::AUTHORIZATION);
    state.asked.lock().unwrap().push(Asked {
        path: path.clone(),
        range: text(header::RANGE),
    });
    if let Some(token) = state.token {
        if path.starts_with("/token") {
            return format!(r#"{{"token":"{token}"}}"#).into_response();
        }
        if authorization != Some(format!("Bearer {token}")) {
            let challenge = format!(
                "Bearer realm=\"http://{}/token\",service=\"test\",scope=\"repository:x:pull\"",
                state.own
            );
            return (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, challenge)],
            )
                .into_response();
        }
    }
    let fault = is_file(&path)
        .then(|| state.faults.lock().unwrap().pop_front())
        .flatten();
    if let Some(Fault::Refuse(status, after)) = fault {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(header::RETRY_AFTER, after.into());
        }
        return (StatusCode::from_u16(status).unwrap(), headers).into_response();
    }
    headers.remove(header::HOST);
    if state.token.is_some() {
        headers.remove(header::AUTHORIZATION);
    }
    let asked = state
        .client
        .get(format!("{}{path}", state.upstream))
        .headers(headers);
    let answer = asked.send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    *response.headers_mut().unwrap() = answer.headers().clone();
    response.body(spoil(answer, fault)).unwrap()
}

fn spoil(answer: reqwest::Response, fault: Option<Fault>) -> Body {
    let mut sent = 0;
    let mut fault = fault;
    let chunks = answer.bytes_stream().then(move |chunk| {
        let mut chunk = chunk
            .map(|bytes| bytes.to_vec())
            .map_err(std::io::Error::other);
        let mut hang = false;
        if let Ok(bytes) = &mut chunk {
            sent += bytes.len();
            match fault {
                Some(Fault::Cut(after)) if sent > after => {
                    chunk = Err(std::io::Error::other("cut"));
                }
                Some(Fault::Hang(after)) => hang = sent > after,
                Some(Fault::Damage) => {
                    bytes[0] ^= 1;
                    fault = None;
                }
                _ => {}
            }
        }
        async move {
            if hang {
                tokio::time::sleep(Duration::from_hours(1)).await;
            }
            chunk
        }
    });
    Body::from_stream(chunks)
}
