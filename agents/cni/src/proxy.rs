//! The connection to the node's proxy: snapshot, requests, sign of life, upgrade, and the breaker.
//!
//! One task owns all connections. Invariants: a proxy gets requests only after its snapshot; the older one is told
//! to drain only after a newer one took every pod; the slots are emptied only after no proxy was there for
//! [`GRACE`], and filled again only by pods that a proxy acknowledged.

mod actor;
mod command;
mod queue;

use std::path::Path;

use ambit_runtime::accept;
use ambit_zds::{Connections, Server, ZdsError};
use tokio::sync::{mpsc, oneshot, watch};

pub use actor::{GRACE, Surroundings};
pub use command::Link;

use crate::Error;
use command::Command;

/// Requests that may wait for the connection.
const COMMANDS_MAX: usize = 64;
/// Proxies that may wait to be taken.
const ARRIVALS_MAX: usize = 4;
/// Handle of the task.
#[derive(Clone, Debug)]
pub struct Proxy {
    link: watch::Receiver<Link>,
    breaker: watch::Receiver<u64>,
    commands: mpsc::Sender<Command>,
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
        tokio::spawn(arrive(server, arrived));
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

async fn arrive(server: Server, arrived: mpsc::Sender<actor::Arrival>) {
    loop {
        let mut connection = accept::next("zds", || server.accept()).await;
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
