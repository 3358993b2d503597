//! What goes on beside requests: looking at the route file, probing what a breaker has cut off.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::metadata;
use super::routes::RouteTable;
use super::state::{Gateway, Target};

/// How often the route file and the breakers are looked at.
const PERIOD: Duration = Duration::from_millis(200);

/// Why a route file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not readable.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a route table.
    #[error("{path}: {source}")]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        source: super::routes::RouteError,
    },
}

/// Reads a route file.
///
/// # Errors
/// [`LoadError`].
pub fn load(path: &Path) -> Result<RouteTable, LoadError> {
    let json = std::fs::read(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    RouteTable::parse(&json).map_err(|source| LoadError::Table {
        path: path.to_owned(),
        source,
    })
}

/// A route file that is looked at again and again.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    seen: Option<Stamp>,
}

type Stamp = (SystemTime, u64, u64);

impl Watch {
    /// Watches `path`, of which the present content is in force already.
    pub fn new(path: PathBuf) -> Self {
        let seen = stamp(&path);
        Self { path, seen }
    }

    /// Puts the file into force if it changed. A bad file changes nothing but is counted and told.
    pub fn look(&mut self, gateway: &Gateway) {
        let now = stamp(&self.path);
        if now == self.seen {
            return;
        }
        self.seen = now;
        match load(&self.path) {
            Ok(table) => {
                tracing::info!(generation = table.generation, "new routes");
                gateway.set_routes(table);
            }
            Err(error) => {
                gateway.metrics.routes_refused();
                tracing::error!(%error, "the route file is refused; the routes stay as they are");
            }
        }
    }

    /// Looks at the file even if it seems unchanged (SIGHUP).
    pub fn look_anyway(&mut self, gateway: &Gateway) {
        self.seen = None;
        self.look(gateway);
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.ino(), metadata.len()))
}

/// Looks at routes and breakers until dropped; `reload` asks for a look at the routes at once.
pub async fn run(gateway: Arc<Gateway>, mut watch: Option<Watch>, reload: Arc<Notify>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            _ = tick.tick() => false,
            () = reload.notified() => true,
        };
        match &mut watch {
            Some(watch) if asked => watch.look_anyway(&gateway),
            Some(watch) => watch.look(&gateway),
            None => {}
        }
        let snapshot = gateway.snapshot();
        for target in [Target::Primary, Target::Fallback] {
            if gateway.probe_due(&snapshot, target) {
                let (gateway, snapshot) = (Arc::clone(&gateway), Arc::clone(&snapshot));
                tokio::spawn(async move {
                    let alive = metadata::probe(&snapshot, target).await;
                    gateway.probed(&snapshot, target, alive);
                });
            }
        }
    }
}
