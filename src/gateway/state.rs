//! What all requests share: the routes in force, the breakers, metrics. A request keeps the
//! [`Snapshot`] it began with.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breaker::{Admission, Breaker, BreakerState, Millis, Ticket};
use super::client::Client;
use super::metrics::Metrics;
use super::prompt::PromptTemplate;
use super::routes::{RouteTable, Upstream};

/// The two places a request can go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The engine.
    Primary,
    /// What answers when it does not.
    Fallback,
}

impl Target {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Fallback,
            Self::Fallback => Self::Primary,
        }
    }

    /// Stable label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Fallback => "fallback",
        }
    }
}

/// An upstream with its breaker.
#[derive(Debug)]
pub struct Line {
    /// Where it is.
    pub upstream: Upstream,
    /// `Authorization` for it.
    pub authorization: Option<HeaderValue>,
    breaker: Mutex<Breaker>,
}

/// One route table, ready for use.
#[derive(Debug)]
pub struct Snapshot {
    /// The table.
    pub table: RouteTable,
    /// The model's chat template, if it can be had.
    pub template: Option<Arc<PromptTemplate>>,
    /// The client.
    pub client: Arc<Client>,
    primary: Option<Arc<Line>>,
    fallback: Option<Arc<Line>>,
}

impl Snapshot {
    /// The upstream at `target`.
    pub const fn line(&self, target: Target) -> Option<&Arc<Line>> {
        match target {
            Target::Primary => self.primary.as_ref(),
            Target::Fallback => self.fallback.as_ref(),
        }
    }
}

/// The permission to use an upstream. Dropped without a verdict, it says that the client went away.
#[derive(Debug)]
pub struct Lease {
    line: Arc<Line>,
    ticket: Option<Ticket>,
    clock: Instant,
}

impl Lease {
    /// Something was generated.
    pub fn first_token(&self) {
        if let Some(ticket) = self.ticket {
            self.line.breaker().first_token(ticket);
        }
    }

    /// The answer is complete.
    pub fn succeeded(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.line.breaker().succeeded(ticket);
        }
    }

    /// The upstream failed.
    pub fn failed(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.line.breaker().failed(ticket, millis(self.clock));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.line.breaker().abandoned(ticket);
        }
    }
}

fn millis(clock: Instant) -> Millis {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Line {
    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        // A breaker is plain data: whatever a panicking thread left is a valid state.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Gateway {
    /// Counters.
    pub metrics: Metrics,
    /// SIGTERM came: not ready any more, running answers go on.
    pub draining: CancellationToken,
    /// The grace time is over: streams end now, with an error event.
    pub cut: CancellationToken,
    clock: Instant,
    current: RwLock<Arc<Snapshot>>,
}

impl Gateway {
    /// A gateway that begins with `table`.
    pub fn new(table: RouteTable) -> Arc<Self> {
        let client = Arc::new(Client::new(table.timeouts.connect()));
        let empty = Snapshot {
            table,
            template: None,
            client,
            primary: None,
            fallback: None,
        };
        let table = empty.table.clone();
        let gateway = Self {
            metrics: Metrics::default(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            clock: Instant::now(),
            current: RwLock::new(Arc::new(empty)),
        };
        gateway.set_routes(table);
        Arc::new(gateway)
    }

    /// The routes in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a table into force. What did not change keeps its connections, breaker and template.
    pub fn set_routes(&self, table: RouteTable) {
        let old = self.snapshot();
        let same_model = old.table.gguf == table.gguf && old.template.is_some();
        let template = if same_model {
            old.template.clone()
        } else {
            load_template(&table)
        };
        let client = if old.client.connect_timeout() == table.timeouts.connect() {
            Arc::clone(&old.client)
        } else {
            Arc::new(Client::new(table.timeouts.connect()))
        };
        let line = |upstream: &Option<Upstream>, old_line: Option<&Arc<Line>>| {
            let upstream = upstream.clone()?;
            match old_line {
                Some(line) if line.upstream == upstream && old.table.breaker == table.breaker => {
                    Some(Arc::clone(line))
                }
                _ => Some(Arc::new(Line {
                    authorization: authorization(&upstream),
                    upstream,
                    breaker: Mutex::new(Breaker::new(table.breaker)),
                })),
            }
        };
        let primary = line(&table.primary, old.primary.as_ref());
        let fallback = line(&table.fallback, old.fallback.as_ref());
        self.metrics.routes(table.generation);
        let new = Arc::new(Snapshot {
            table,
            template,
            client,
            primary,
            fallback,
        });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Asks the breaker of `target` for permission. `Err`: milliseconds until asking again makes
    /// sense; `None` where there is no such upstream.
    pub fn admit(
        &self,
        snapshot: &Snapshot,
        target: Target,
        alternative: bool,
    ) -> Option<Result<Lease, Millis>> {
        let line = snapshot.line(target)?;
        let admission = line.breaker().admit(millis(self.clock), alternative);
        Some(match admission {
            Admission::Admitted(ticket) => Ok(Lease {
                line: Arc::clone(line),
                ticket: Some(ticket),
                clock: self.clock,
            }),
            Admission::Refused { retry_in } => Err(retry_in),
        })
    }

    /// The state of an upstream's breaker.
    pub fn breaker_state(&self, snapshot: &Snapshot, target: Target) -> Option<BreakerState> {
        Some(snapshot.line(target)?.breaker().state())
    }

    /// Whether `target` should be asked for a sign of life now.
    pub fn probe_due(&self, snapshot: &Snapshot, target: Target) -> bool {
        let now = millis(self.clock);
        snapshot
            .line(target)
            .is_some_and(|line| line.breaker().probe_due(now))
    }

    /// What the sign of life was.
    pub fn probed(&self, snapshot: &Snapshot, target: Target, alive: bool) {
        if let Some(line) = snapshot.line(target) {
            line.breaker().probed(alive, millis(self.clock));
        }
    }

    /// Whether some upstream is likely to answer.
    pub fn is_ready(&self) -> bool {
        let snapshot = self.snapshot();
        !self.draining.is_cancelled()
            && [Target::Primary, Target::Fallback]
                .into_iter()
                .any(|target| {
                    self.breaker_state(&snapshot, target)
                        .is_some_and(|state| state != BreakerState::Open)
                })
    }

    /// Time since the gateway began.
    pub fn uptime(&self) -> Duration {
        self.clock.elapsed()
    }
}

fn load_template(table: &RouteTable) -> Option<Arc<PromptTemplate>> {
    let path = table.gguf.as_ref()?;
    match PromptTemplate::load(path) {
        Ok(template) => Some(Arc::new(template)),
        Err(error) => {
            tracing::warn!(
                %error, path = %path.display(),
                "no chat template: broken streams will end with an error instead of being continued"
            );
            None
        }
    }
}

fn authorization(upstream: &Upstream) -> Option<HeaderValue> {
    let path = upstream.api_key_file.as_ref()?;
    let read = std::fs::read_to_string(path);
    let key = match &read {
        Ok(text) => text.trim(),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the upstream's key was not read");
            return None;
        }
    };
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
