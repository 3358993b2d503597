//! The places for connections. A place is *serving* from the moment a request is complete until
//! its answer is; all others are waiting, and the one that waits longest can be asked to leave.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<BTreeMap<u64, Arc<Shared>>>,
    next: AtomicU64,
    serving: AtomicUsize,
    all_waiting: Notify,
}

#[derive(Debug)]
struct Shared {
    /// Whether a request is being served: at most one at a time in HTTP/1.
    serving: AtomicBool,
    /// Since when it waits, in the order of events.
    waiting_since: AtomicU64,
    evicted: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            taken: Mutex::new(BTreeMap::new()),
            next: AtomicU64::new(0),
            serving: AtomicUsize::new(0),
            all_waiting: Notify::new(),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.lock().len()
    }

    /// Takes a place, if need be that of the connection that has waited longest; `None` when all
    /// are serving.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let full = self.open() >= self.most;
        if full && !self.evict() {
            return None;
        }
        let id = self.tick();
        let shared = Arc::new(Shared {
            serving: AtomicBool::new(false),
            waiting_since: AtomicU64::new(id),
            evicted: CancellationToken::new(),
        });
        self.lock().insert(id, Arc::clone(&shared));
        Some(Place {
            id,
            shared,
            places: Arc::clone(self),
        })
    }

    /// Asks the connection that has waited longest to leave; its place is free at once.
    pub(super) fn evict(&self) -> bool {
        let mut taken = self.lock();
        let longest = taken
            .iter()
            .filter(|(_, shared)| !shared.serving.load(Ordering::Acquire))
            .min_by_key(|(_, shared)| shared.waiting_since.load(Ordering::Relaxed))
            .map(|(id, _)| *id);
        let left = longest.and_then(|id| taken.remove(&id));
        if let Some(shared) = &left {
            shared.evicted.cancel();
        }
        left.is_some()
    }

    pub(super) async fn idle(&self) {
        loop {
            let notified = self.all_waiting.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.serving.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    fn tick(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// No invariant spans two operations, so a poisoned lock is taken over.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Shared>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    shared: Arc<Shared>,
    places: Arc<Places>,
}

impl Place {
    pub(super) async fn evicted(&self) {
        self.shared.evicted.cancelled().await;
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            shared: Arc::clone(&self.shared),
            places: Arc::clone(&self.places),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.info().served();
        self.places.lock().remove(&self.id);
    }
}

/// The connection a request came by; an extension of the request.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    shared: Arc<Shared>,
    places: Arc<Places>,
}

impl ConnectionInfo {
    /// A request is complete: from now on the connection is serving.
    pub fn serving(&self) {
        if !self.shared.serving.swap(true, Ordering::AcqRel) {
            self.places.serving.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The answer is out, or given up.
    pub(super) fn served(&self) {
        let Self { shared, places } = self;
        shared.waiting_since.store(places.tick(), Ordering::Relaxed);
        if shared.serving.swap(false, Ordering::AcqRel)
            && places.serving.fetch_sub(1, Ordering::AcqRel) == 1
        {
            places.all_waiting.notify_waiters();
        }
    }
}

/// An answer's body, which marks its connection as waiting again when hyper is done with it.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    info: ConnectionInfo,
}

impl Answer {
    pub(super) const fn new(body: Body, info: ConnectionInfo) -> Self {
        Self { body, info }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.info.served();
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_waited_longest_makes_room_but_never_one_that_is_served() {
        let places = Arc::new(Places::new(3));
        let first = places.enter().unwrap();
        let second = places.enter().unwrap();
        let third = places.enter().unwrap();
        first.info().serving();
        let fourth = places.enter().unwrap();
        assert!(second.shared.evicted.is_cancelled());
        assert!(!first.shared.evicted.is_cancelled() && !third.shared.evicted.is_cancelled());
        first.info().served();
        // The first waits only since now: the third leaves before it.
        let _fifth = places.enter().unwrap();
        assert!(third.shared.evicted.is_cancelled());
        assert!(!first.shared.evicted.is_cancelled() && !fourth.shared.evicted.is_cancelled());
        assert_eq!(places.open(), 3);
    }

    #[test]
    fn when_all_are_served_nobody_enters() {
        let places = Arc::new(Places::new(1));
        let only = places.enter().unwrap();
        only.info().serving();
        assert!(places.enter().is_none());
        only.info().served();
        assert!(places.enter().is_some());
    }
}
