//! The worker threads, and commands to all of them.
//!
//! Invariant: a connection stays on the worker that accepted it. Commands of [`DataPlane`] have
//! been executed when its methods return.

mod accept;
mod order;
mod worker;

use std::{io, net::TcpListener, num::NonZeroUsize, sync::Arc, thread::JoinHandle, time::Duration};

use ambit_proxy::worker as threads;
use ambit_zds::{Connections, Kind};
use tokio::sync::{mpsc, oneshot};

use crate::{context::Shared, pods::Pod};
pub(crate) use order::Listeners;
use order::{Command, Order};

/// Queued commands per worker.
const COMMANDS_MAX: usize = 256;

/// All workers.
#[derive(Debug)]
pub struct DataPlane {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

impl DataPlane {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be created.
    pub fn start(shared: &Arc<Shared>, workers: NonZeroUsize) -> io::Result<Self> {
        let workers = (0..workers.get()).map(|number| Worker::start(shared.clone(), number));
        Ok(Self { workers: workers.collect::<io::Result<_>>()? })
    }

    /// Starts accepting for a pod on every worker. The caller keeps the given sockets.
    ///
    /// # Errors
    /// When a socket cannot be duplicated.
    pub async fn serve(&self, pod: &Arc<Pod>, listeners: &[(Kind, TcpListener)]) -> io::Result<()> {
        let orders = self.workers.iter().map(|_| {
            let copies = listeners.iter().map(|(kind, listener)| Ok((*kind, listener.try_clone()?)));
            Ok(Order::Serve { pod: pod.clone(), listeners: copies.collect::<io::Result<_>>()? })
        });
        let orders: Vec<Order> = orders.collect::<io::Result<_>>()?;
        self.tell(orders).await;
        Ok(())
    }

    /// Stops accepting for a pod; its connections are closed, or end by themselves.
    pub async fn leave(&self, uid: &Arc<str>, connections: Connections) {
        self.tell_all(|| Order::Leave { uid: uid.clone(), connections }).await;
    }

    /// Stops accepting for all pods, because another process does; open connections continue.
    pub async fn hand_over(&self) {
        self.tell_all(|| Order::HandOver).await;
    }

    /// Stops accepting, waits for open connections at most `deadline`, aborts the rest and ends the
    /// threads.
    pub async fn drain(self, deadline: Duration) {
        self.tell_all(|| Order::Drain { deadline }).await;
        let threads = self.workers.into_iter().map(|worker| worker.thread).collect();
        if threads::join(threads).await.is_err() {
            tracing::error!("A worker ended badly");
        }
    }

    async fn tell_all(&self, order: impl Fn() -> Order) {
        self.tell(self.workers.iter().map(|_| order()).collect()).await;
    }

    /// Sends one order to each worker; returns when all have executed it.
    async fn tell(&self, orders: Vec<Order>) {
        let told = self.workers.iter().zip(orders).map(|(worker, order)| async move {
            let (done, obeyed) = oneshot::channel();
            if worker.commands.send(Command { order, done }).await.is_err() || obeyed.await.is_err() {
                tracing::error!("A worker thread is gone");
            }
        });
        futures::future::join_all(told).await;
    }
}

impl Worker {
    fn start(shared: Arc<Shared>, number: usize) -> io::Result<Self> {
        let (commands, orders) = mpsc::channel(COMMANDS_MAX);
        let run = move || worker::run(shared, orders);
        let thread = threads::spawn(format!("ztunnel-{number}"), threads::runtime()?, run)?;
        Ok(Self { commands, thread })
    }
}
