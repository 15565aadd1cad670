//! The connection to the node's proxy: snapshot, requests, liveness checks, upgrade, and circuit
//! breaker.
//!
//! One task owns all connections. Invariants: a proxy gets requests only after its snapshot. The
//! older proxy is drained only after a newer one has accepted every pod. Listeners are removed only
//! after no proxy was connected for [`GRACE`], and restored only for pods that a proxy has
//! acknowledged.

mod actor;
mod command;
mod queue;

use std::path::Path;

use ambit_runtime::accept;
use ambit_zds::{Connections, Server, ZdsError};
use tokio::sync::{mpsc, oneshot, watch};

pub use actor::Surroundings;
pub(crate) use command::Link;

use crate::Error;
use command::ProxyCommand;

/// Requests queued for the connection.
const COMMANDS_MAX: usize = 64;
/// New proxies queued.
const ARRIVALS_MAX: usize = 4;
/// Handle of the task that owns the connections.
#[derive(Clone, Debug)]
pub struct Proxy {
    link: watch::Receiver<Link>,
    breaker: watch::Receiver<u64>,
    commands: mpsc::Sender<ProxyCommand>,
}

impl Proxy {
    /// Listens for proxies at `path`.
    ///
    /// # Errors
    /// When the socket cannot be created.
    pub fn start(path: &Path, surroundings: Surroundings) -> Result<Self, ZdsError> {
        let server = Server::bind(path)?;
        let (link, links) = watch::channel(Link::Away);
        let (breaker, breakers) = watch::channel(0);
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let (arrived, arrivals) = mpsc::channel(ARRIVALS_MAX);
        tokio::spawn(arrive(server, arrived));
        tokio::spawn(actor::Actor::new(surroundings, link, breaker).run(queue, arrivals));
        Ok(Self { link: links, breaker: breakers, commands })
    }

    /// Whether a proxy is connected, as a channel of changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// How often the breaker removed the listeners, as a channel of changes.
    pub fn breaker(&self) -> watch::Receiver<u64> {
        self.breaker.clone()
    }

    /// Passes a pod of the roster to the proxy.
    ///
    /// # Errors
    /// When no proxy is connected, or it refuses.
    pub async fn add(&self, uid: &str) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        self.ask(ProxyCommand::Add { uid: uid.to_owned(), done }, result).await
    }

    /// Removes a pod from the proxy.
    ///
    /// # Errors
    /// When no proxy is connected, or it refuses.
    pub async fn del(&self, uid: &str, connections: Connections) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        self.ask(ProxyCommand::Del { uid: uid.to_owned(), connections, done }, result).await
    }

    async fn ask(
        &self,
        command: ProxyCommand,
        result: oneshot::Receiver<Result<(), Error>>,
    ) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Stopping)?;
        result.await.map_err(|_| Error::Stopping)?
    }
}

async fn arrive(server: Server, arrived: mpsc::Sender<actor::Arrival>) {
    loop {
        let mut connection = accept::next("zds", || server.accept()).await;
        // On a separate task, so that a slow hello does not delay the next proxy.
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
