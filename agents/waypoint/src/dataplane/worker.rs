//! One worker: serves its connections, and re-evaluates them when policy changes.
//!
//! Invariant: it ends with its last connection, or when the stage is [`Stage::Cut`].
//!
//! [`Stage::Cut`]: ambit_proxy::stage::Stage::Cut

use std::{
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ambit_proxy::stage::StageWatch;
use tokio::{
    runtime::RuntimeMetrics,
    sync::mpsc::{self, error::SendError},
    time::{MissedTickBehavior, interval},
};

use crate::{
    context::{Local, Shared},
    inbound,
};

/// Accepted connections that wait for one worker.
const WAITING_MAX: usize = 256;
/// How often connections are closed that were not used for long.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// A connection on its way to a worker.
pub(super) struct Accepted {
    stream: TcpStream,
    client: SocketAddr,
    slot: ConnectionSlot,
}

/// Counts as one connection of a worker while it lives.
struct ConnectionSlot(Arc<AtomicUsize>);

/// A worker as the accepting thread sees it.
pub(super) struct WorkerHandle {
    connections: mpsc::Sender<Accepted>,
    open: Arc<AtomicUsize>,
    runtime: RuntimeMetrics,
}

impl WorkerHandle {
    /// A handle, and what the worker receives its connections from.
    pub(super) fn new(runtime: RuntimeMetrics) -> (Self, mpsc::Receiver<Accepted>) {
        let (connections, accepted) = mpsc::channel(WAITING_MAX);
        (Self { connections, open: Arc::default(), runtime }, accepted)
    }

    /// Number of open connections.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Time in which its thread was busy since it started.
    pub(super) fn busy_so_far(&self) -> Duration {
        self.runtime.worker_total_busy_duration(0)
    }

    /// Hands it a connection.
    ///
    /// # Errors
    /// When its thread is gone.
    pub(super) async fn send(
        &self,
        stream: TcpStream,
        client: SocketAddr,
    ) -> Result<(), SendError<Accepted>> {
        self.open.fetch_add(1, Ordering::Relaxed);
        let slot = ConnectionSlot(Arc::clone(&self.open));
        self.connections.send(Accepted { stream, client, slot }).await
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs until the accepting thread is gone and its connections have ended.
pub(super) async fn run(shared: Arc<Shared>, mut accepted: mpsc::Receiver<Accepted>, stage: StageWatch) {
    let mut changes = shared.services.changes();
    let local = Local::new(shared, stage.clone());
    let mut tidy = interval(TIDY_EVERY);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut accepting = true;
    let cut = stage.cut();
    let mut cut = std::pin::pin!(cut);
    while accepting || local.tasks.is_busy() {
        tokio::select! {
            biased;
            _ = &mut cut => return,
            // Policy holds to the last byte, also while draining.
            Ok(()) = changes.changed() => local.streams.judge_again(&local.shared.services.load()),
            next = accepted.recv(), if accepting => match next {
                Some(next) => begin(&local, next),
                None => accepting = false,
            },
            () = local.tasks.ended(), if !accepting => {}
            _ = tidy.tick() => local.tidy(),
        }
    }
    local.tidy();
}

fn begin(local: &Rc<Local>, Accepted { stream, client, slot }: Accepted) {
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "A connection cannot be polled"),
    };
    // Boxed: the task would hold it twice.
    let serve = Box::pin(inbound::serve(local.clone(), stream, client));
    local.tasks.spawn(async move {
        serve.await;
        drop(slot);
    });
}
