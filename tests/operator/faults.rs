//! A layer under the operator's client that ends its life: a given write is made and its answer lost,
//! and nothing else reaches the API server any more, as if the process had been killed there. What a
//! process killed before its next write leaves behind is the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, Service};

/// What became of one life of an operator.
#[derive(Debug, Default)]
pub struct Life {
    writes: AtomicU64,
    /// Nothing more is sent.
    dead: AtomicBool,
    /// The last write was made.
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

/// A client whose life ends with write number `last`.
pub fn mortal(client: Client, last: u64) -> (Client, Arc<Life>) {
    let life = Arc::new(Life::default());
    let service = Mortal {
        inner: client,
        last,
        life: Arc::clone(&life),
    };
    (Client::new(service, "default"), life)
}

#[derive(Clone)]
struct Mortal {
    inner: Client,
    last: u64,
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
        if self.life.dead.load(Ordering::SeqCst) {
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
        // Writes that were begun at the same time are lost with it.
        let is_last = counts && number == self.last;
        if number > self.last {
            return Box::pin(async move { Err(dead()) });
        }
        if is_last {
            self.life.dead.store(true, Ordering::SeqCst);
        }
        let (inner, life) = (self.inner.clone(), Arc::clone(&self.life));
        Box::pin(async move {
            let answer = inner.send(request).await.map_err(BoxError::from);
            if is_last {
                life.ended.store(true, Ordering::SeqCst);
                return Err(dead());
            }
            answer
        })
    }
}
