//! The gateway process and its route table.
//!
//! The listening socket belongs to `run` and outlives the process: while a gateway that died is
//! started again, connections wait instead of being refused.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::event::{Event, Events};
use super::guard;
use super::process::{self, Order, Running};
use crate::api::Reason;
use crate::gateway::routes::RouteTable;
use crate::planner::{Route, Service, Timestamp, transient};
use crate::store::atomic;

/// Between two looks whether a route table was taken over.
const LOOK: Duration = Duration::from_millis(20);
/// For one look.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the loop tells the gateway's task.
#[derive(Clone, Copy, Debug)]
enum Command {
    Reload,
    Stop(Duration),
}

/// What does not change while `run` runs.
#[derive(Debug)]
pub struct Settings {
    /// Shared by all gateways of this life.
    pub listener: TcpListener,
    /// The route table's file.
    pub routes: PathBuf,
    /// The gateway's log.
    pub log: PathBuf,
    /// API keys, where clients need one.
    pub api_keys: Option<PathBuf>,
}

/// The gateway as the loop knows it.
#[derive(Debug)]
pub struct Gateway {
    settings: Settings,
    client: reqwest::Client,
    events: Events,
    /// What the planner sees.
    pub service: Service,
    /// Process id while it runs.
    pub pid: Option<u32>,
    /// The table in force.
    pub routed: Option<Route>,
    starts: u64,
    commands: Option<UnboundedSender<Command>>,
    written: Option<(Route, RouteTable)>,
    confirming: Option<AbortOnDropHandle<()>>,
}

impl Gateway {
    /// Nothing runs yet.
    pub fn new(settings: Settings, client: reqwest::Client, events: Events) -> Self {
        Self {
            settings,
            client,
            events,
            service: Service::Absent,
            pid: None,
            routed: None,
            starts: 0,
            commands: None,
            written: None,
            confirming: None,
        }
    }

    /// Where clients reach it, as a URL.
    pub fn endpoint(&self) -> String {
        self.settings.listener.local_addr().map_or_else(
            |_| String::new(),
            |address| format!("http://{}", reachable(address)),
        )
    }

    /// Starts the process, unless it runs.
    pub fn ensure(&mut self, now: Timestamp) {
        if matches!(
            self.service,
            Service::Starting { .. } | Service::Ready { .. } | Service::Stopping
        ) {
            return;
        }
        self.starts += 1;
        self.routed = None;
        self.service = match self.spawn() {
            Ok(()) => Service::Starting { since: now },
            Err(error) => Service::Failed {
                at: now,
                failure: transient(
                    Reason::GatewayUnavailable,
                    &format!("The gateway's process cannot be started: {error}."),
                ),
            },
        };
    }

    fn spawn(&mut self) -> std::io::Result<()> {
        let Settings {
            listener,
            routes,
            log,
            api_keys,
        } = &self.settings;
        let mut arguments: Vec<OsString> = vec!["gateway".into()];
        arguments.extend(["--listen".into(), "stdin".into()]);
        arguments.extend(["--routes".into(), routes.into()]);
        if let Some(file) = api_keys {
            arguments.extend(["--api-keys-file".into(), file.into()]);
        }
        let running = process::start(Order {
            program: None,
            arguments,
            environment: Vec::new(),
            stdin: Some(listener.try_clone()?.into()),
            log: log.clone(),
            tree: false,
        })?;
        self.pid = running.id();
        let (commands, orders) = unbounded_channel();
        self.commands = Some(commands);
        let health = format!("{}/healthz", self.endpoint());
        tokio::spawn(attend(
            self.starts,
            running,
            self.client.clone(),
            health,
            orders,
            self.events.clone(),
        ));
        Ok(())
    }

    /// Writes a table, if it is another one, and has it taken over.
    ///
    /// # Errors
    /// When it cannot be written; the old one stays in force.
    pub fn route(&mut self, route: Route, mut table: RouteTable) -> std::io::Result<()> {
        let generation = self.written.as_ref().map_or(0, |(_, old)| old.generation);
        table.generation = generation;
        let same = self
            .written
            .as_ref()
            .is_some_and(|(old_route, old)| *old_route == route && *old == table);
        if !same {
            table.generation = generation + 1;
            let json = table.to_json().map_err(std::io::Error::other)?;
            atomic::write(&self.settings.routes, &json)?;
            self.written = Some((route, table));
            self.tell(Command::Reload);
            self.confirm();
        }
        Ok(())
    }

    /// What was last asked for.
    pub fn wanted_route(&self) -> Option<Route> {
        self.written.as_ref().map(|(route, _)| *route)
    }

    /// Asks the gateway until it says that the table is in force.
    fn confirm(&mut self) {
        let Some((_, table)) = &self.written else {
            return;
        };
        if !matches!(self.service, Service::Ready { .. }) {
            return;
        }
        let (start, generation) = (self.starts, table.generation);
        let (client, events) = (self.client.clone(), self.events.clone());
        let url = format!("{}/readyz", self.endpoint());
        let task = tokio::spawn(async move {
            while in_force(&client, &url)
                .await
                .is_none_or(|now| now < generation)
            {
                sleep(LOOK).await;
            }
            let _ended = events.send(Event::RoutesInForce(start, generation));
        });
        self.confirming = Some(AbortOnDropHandle::new(task));
    }

    /// The process accepts requests.
    pub fn ready(&mut self, start: u64, now: Timestamp) {
        if start == self.starts && matches!(self.service, Service::Starting { .. }) {
            self.service = Service::Ready { since: now };
            self.confirm();
        }
    }

    /// The process has taken a table over.
    pub fn in_force(&mut self, start: u64, generation: u64) {
        if let Some((route, table)) = &self.written
            && start == self.starts
            && generation == table.generation
            && matches!(self.service, Service::Ready { .. })
        {
            self.routed = Some(*route);
        }
    }

    /// The process is gone.
    pub fn ended(&mut self, start: u64, status: std::io::Result<ExitStatus>, now: Timestamp) {
        if start != self.starts {
            return;
        }
        self.pid = None;
        self.commands = None;
        self.confirming = None;
        self.routed = None;
        self.service = if self.service == Service::Stopping {
            Service::Absent
        } else {
            let code = status.map_or(1, guard::exit_code);
            let words = process::last_words(&self.settings.log).unwrap_or_default();
            let text = format!("The gateway ended with exit code {code}: {words}.");
            let mut failure = transient(Reason::GatewayUnavailable, &text);
            failure.exit_code = Some(code);
            Service::Failed { at: now, failure }
        };
    }

    /// Tells the process to end after its running answers.
    pub fn stop(&mut self, grace: Duration) {
        self.confirming = None;
        self.service = if self.tell(Command::Stop(grace)) {
            Service::Stopping
        } else {
            Service::Absent
        };
    }

    /// Keeps its log from growing without bound.
    pub fn bound_log(&self) {
        process::bound_log(&self.settings.log);
    }

    fn tell(&self, command: Command) -> bool {
        self.commands
            .as_ref()
            .is_some_and(|commands| commands.send(command).is_ok())
    }
}

/// How to reach a server on this machine that listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Generation of the table in force. A gateway without any back end says 503, and that too.
async fn in_force(client: &reqwest::Client, url: &str) -> Option<u64> {
    let body: Value = client
        .get(url)
        .timeout(TIMEOUT)
        .send()
        .await
        .ok()?
        .json()
        .await
        .ok()?;
    body.get("routes_generation")?.as_u64()
}

async fn attend(
    start: u64,
    mut running: Running,
    client: reqwest::Client,
    health: String,
    mut orders: UnboundedReceiver<Command>,
    events: Events,
) {
    let ready = async {
        loop {
            match client.get(&health).timeout(TIMEOUT).send().await {
                Ok(response) if response.status().is_success() => return,
                _ => sleep(LOOK).await,
            }
        }
    };
    tokio::pin!(ready);
    let mut announced = false;
    let status = loop {
        tokio::select! {
            () = &mut ready, if !announced => {
                announced = true;
                let _ended = events.send(Event::GatewayReady(start));
            }
            status = running.wait() => break status,
            order = orders.recv() => match order {
                // Before it is ready it has no handler yet; it reads the file itself then.
                Some(Command::Reload) if announced => running.signal(Signal::HUP),
                Some(Command::Reload) => {}
                Some(Command::Stop(grace)) => {
                    running.end(grace).await;
                    break running.wait().await;
                }
                None => {
                    running.end(Duration::ZERO).await;
                    break running.wait().await;
                }
            }
        }
    };
    let _ended = events.send(Event::GatewayEnded(start, status));
}

#[cfg(test)]
mod tests;
