//! The connection to the node's proxy: snapshot, requests, sign of life, upgrade, and the breaker.
//!
//! One task owns all connections. Invariants: a proxy gets requests only after its snapshot; the older one is told
//! to drain only after a newer one took every pod; the slots are emptied only after no proxy was there for
//! [`GRACE`], and filled again only by pods that a proxy acknowledged.

mod actor;
mod queue;

use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};

use ambit_zds::{Connections, Server, ZdsError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Error, kernel::KernelThread, metrics::Metrics, reports::Reporter, roster::Roster};

/// How long connections wait in the listeners' queues for a proxy to come back before they are refused.
pub const GRACE: Duration = Duration::from_secs(2);
/// How often a proxy is asked for a sign of life. With the 5 s it has to answer, a wedged one is found in 10 s.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Requests that may wait for the connection.
const COMMANDS_MAX: usize = 64;
/// Proxies that may wait to be taken.
const ARRIVALS_MAX: usize = 4;
/// Pause after `accept` failed, so that running out of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether there is a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// None.
    Away,
    /// One that has its snapshot; each connection has another number.
    Ready(u64),
}

/// What connections need from the rest of the agent.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Pods to hand over.
    pub roster: Arc<Roster>,
    /// Redirection.
    pub kernel: KernelThread,
    /// What the operator is told.
    pub reporter: Reporter,
    /// What Prometheus is told.
    pub metrics: Metrics,
    /// Where processes are listed.
    pub proc: PathBuf,
}

/// Handle of the task.
#[derive(Clone, Debug)]
pub struct Proxy {
    link: watch::Receiver<Link>,
    breaker: watch::Receiver<u64>,
    commands: mpsc::Sender<Command>,
}

/// A request to the proxy that is connected.
#[derive(Debug)]
enum Command {
    Add { uid: String, done: oneshot::Sender<Result<(), Error>> },
    Del { uid: String, connections: Connections, done: oneshot::Sender<Result<(), Error>> },
}

impl Proxy {
    /// Listens for proxies at `path`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(path: &Path, surroundings: Surroundings) -> Result<Self, ZdsError> {
        let server = Server::bind(path)?;
        let (link, links) = watch::channel(Link::Away);
        let (breaker, breakers) = watch::channel(0);
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let (arrived, arrivals) = mpsc::channel(ARRIVALS_MAX);
        tokio::spawn(accept(server, arrived));
        tokio::spawn(actor::Actor::new(surroundings, link, breaker).run(queue, arrivals));
        Ok(Self { link: links, breaker: breakers, commands })
    }

    /// Whether there is a proxy, as it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// How often the breaker emptied the slots, as it changes.
    pub fn breaker(&self) -> watch::Receiver<u64> {
        self.breaker.clone()
    }

    /// Hands over a pod of the roster.
    ///
    /// # Errors
    /// When there is no proxy or it refuses.
    pub async fn add(&self, uid: &str) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        self.ask(Command::Add { uid: uid.to_owned(), done }, result).await
    }

    /// Takes a pod back.
    ///
    /// # Errors
    /// When there is no proxy or it refuses.
    pub async fn del(&self, uid: &str, connections: Connections) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        self.ask(Command::Del { uid: uid.to_owned(), connections, done }, result).await
    }

    async fn ask(&self, command: Command, result: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Stopping)?;
        result.await.map_err(|_| Error::Stopping)?
    }
}

async fn accept(server: Server, arrived: mpsc::Sender<actor::Arrival>) {
    loop {
        let mut connection = match server.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "A proxy cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A proxy that is slow with its hello does not hold up the next one.
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let pid = connection.peer().pid;
            match connection.hello().await {
                Ok(hello) => {
                    let _ = arrived.send(actor::Arrival { connection, hello }).await;
                }
                Err(error) => tracing::warn!(peer.pid = pid, %error, "A proxy was refused"),
            }
        });
    }
}
