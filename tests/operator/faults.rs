//! A layer under the operator's client that ends its life: a given write is made and its answer lost,
//! and nothing else reaches the API server any more, as if the process had been killed there. What a
//! process killed before its next write leaves behind is the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, service_fn};

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

    /// Decided when a request is begun: writes that were begun at the same time as the last one are lost
    /// with it.
    fn fate(&self, request: &Request<Body>, last: u64) -> Fate {
        if self.dead.load(Ordering::SeqCst) {
            return Fate::Unsent;
        }
        let path = request.uri().path();
        // The lease and events are no part of what is planned.
        if request.method() == Method::GET || path.contains("/leases") || path.contains("/events") {
            return Fate::Answered;
        }
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        match number.cmp(&last) {
            std::cmp::Ordering::Less => Fate::Answered,
            std::cmp::Ordering::Equal => {
                self.dead.store(true, Ordering::SeqCst);
                Fate::Last
            }
            std::cmp::Ordering::Greater => Fate::Unsent,
        }
    }
}

/// A client whose life ends with write number `last`.
pub fn mortal(client: Client, last: u64) -> (Client, Arc<Life>) {
    let life = Arc::new(Life::default());
    let lived = Arc::clone(&life);
    let layer = service_fn(move |request: Request<Body>| {
        let fate = lived.fate(&request, last);
        let (client, life) = (client.clone(), Arc::clone(&lived));
        async move {
            if fate == Fate::Unsent {
                return Err(dead());
            }
            let answer = client.send(request).await.map_err(BoxError::from);
            if fate == Fate::Last {
                life.ended.store(true, Ordering::SeqCst);
                return Err(dead());
            }
            answer
        }
    });
    (Client::new(layer, "default"), life)
}

fn dead() -> BoxError {
    "the operator was killed".into()
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Carried out, and the answer lost.
    Last,
    Unsent,
}
