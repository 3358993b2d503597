//! A layer under the operator's client that ends its life: after a given number of writes nothing
//! reaches the API server any more, as if the process had been killed there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, Service};

/// Where a life is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the write is made.
    Before(u64),
    /// The write is made, and its answer is lost.
    After(u64),
}

/// What became of one life of an operator.
#[derive(Debug, Default)]
pub struct Life {
    writes: AtomicU64,
    ended: AtomicBool,
}

impl Life {
    /// Writes that were begun, those that are no part of a resource's life left out.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// A client whose life is cut at `cut`.
pub fn mortal(client: Client, cut: Option<Cut>) -> (Client, Arc<Life>) {
    let life = Arc::new(Life::default());
    let service = Mortal {
        inner: client,
        cut,
        life: Arc::clone(&life),
    };
    (Client::new(service, "default"), life)
}

#[derive(Clone)]
struct Mortal {
    inner: Client,
    cut: Option<Cut>,
    life: Arc<Life>,
}

impl Service<Request<Body>> for Mortal {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let dead = || -> BoxError { "the operator was killed".into() };
        if self.life.has_ended() {
            return Box::pin(async move { Err(dead()) });
        }
        let path = request.uri().path();
        // The lease and events are no part of what is planned.
        let counts = request.method() != Method::GET
            && !path.contains("/leases")
            && !path.contains("/events");
        let number = if counts {
            self.life.writes.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            0
        };
        if counts && self.cut == Some(Cut::Before(number)) {
            self.life.ended.store(true, Ordering::SeqCst);
            return Box::pin(async move { Err(dead()) });
        }
        let after = counts && self.cut == Some(Cut::After(number));
        if after {
            self.life.ended.store(true, Ordering::SeqCst);
        }
        let inner = self.inner.clone();
        Box::pin(async move {
            let answer = inner.send(request).await.map_err(BoxError::from);
            if after { Err(dead()) } else { answer }
        })
    }
}
