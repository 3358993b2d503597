//! The HTTP client of the gateway: plain HTTP/1.1 with pooled connections, which costs little
//! memory; TLS is set up with the first `https` upstream. It decides nothing about failures but
//! their class.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::client::legacy::{Client as Legacy, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Bytes that come from an upstream.
pub type UpstreamBody = UnsyncBoxBody<Bytes, BodyError>;

/// An upstream's bytes ended in an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(String);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing listens, or not in time.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection broke before the answer's head was there.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Sends requests.
#[derive(Debug)]
pub struct Client {
    plain: Legacy<HttpConnector, Full<Bytes>>,
    tls: OnceLock<reqwest::Client>,
    connect: Duration,
}

impl Client {
    /// A client that waits `connect` for a connection.
    pub fn new(connect: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect));
        let plain = Legacy::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(32)
            .build(connector);
        Self {
            plain,
            tls: OnceLock::new(),
            connect,
        }
    }

    /// How long it waits for a connection.
    pub const fn connect_timeout(&self) -> Duration {
        self.connect
    }

    /// Sends a request; dropping the answer's body closes the connection, which the upstream sees.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        if request.uri().scheme_str() == Some("https") {
            return self.send_tls(request).await;
        }
        match self.plain.request(request).await {
            Ok(response) => Ok(response.map(|body| body.map_err(broken).boxed_unsync())),
            Err(error) if error.is_connect() => Err(SendError::Connect(innermost(&error))),
            Err(error) => Err(SendError::Broken(innermost(&error))),
        }
    }

    async fn send_tls(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let client = if let Some(client) = self.tls.get() {
            client
        } else {
            let built = reqwest::Client::builder()
                .connect_timeout(self.connect)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| SendError::Connect(error.to_string()))?;
            self.tls.get_or_init(|| built)
        };
        let (parts, body) = request.into_parts();
        // A `Full` body has one piece at most and cannot fail.
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let body = body.unwrap_or_default();
        let request = client
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers)
            .body(body);
        match request.send().await {
            Ok(response) => {
                let response: Response<reqwest::Body> = response.into();
                Ok(response.map(|body| body.map_err(broken).boxed_unsync()))
            }
            Err(error) if error.is_connect() => Err(SendError::Connect(innermost(&error))),
            Err(error) => Err(SendError::Broken(innermost(&error))),
        }
    }
}

/// The cause at the end of the chain: "connection refused" rather than "client error".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn broken<E: std::error::Error + 'static>(error: E) -> BodyError {
    BodyError(innermost(&error))
}
