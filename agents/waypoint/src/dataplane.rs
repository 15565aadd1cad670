//! The worker threads, and the thread that accepts for them.
//!
//! Invariant: a connection stays on the worker that was chosen for it. The least loaded worker is chosen: few, long-lived
//! tunnel connections carry all requests, so that a random choice would leave cores idle.

mod accept;
mod load;
mod worker;

use std::{io, net::TcpListener, num::NonZeroUsize, sync::Arc, thread::JoinHandle, time::Duration};

use ambit_proxy::{
    stage::{Cut, Stage, StageControl},
    worker::{self as threads, CUT_TIME},
};
use worker::WorkerHandle;

pub use load::{Load, least_loaded};

use crate::context::Shared;

/// The threads of the process.
#[derive(Debug)]
pub struct DataPlane {
    stage: StageControl,
    threads: Vec<JoinHandle<()>>,
}

impl DataPlane {
    /// Starts the threads; connections come from `listener`.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(shared: &Arc<Shared>, listener: TcpListener, workers: NonZeroUsize) -> io::Result<Self> {
        let stage = StageControl::default();
        let mut started = Vec::with_capacity(workers.get() + 1);
        let mut handles = Vec::with_capacity(workers.get());
        for number in 0..workers.get() {
            let runtime = threads::runtime()?;
            let (handle, accepted) = WorkerHandle::new(runtime.metrics());
            handles.push(handle);
            let (shared, stage) = (shared.clone(), stage.watch());
            started.push(threads::spawn(format!("waypoint-{number}"), runtime, move || {
                worker::run(shared, accepted, stage)
            })?);
        }
        let watch = stage.watch();
        started.push(threads::spawn("waypoint-accept".to_owned(), threads::runtime()?, move || {
            accept::run(listener, handles, watch)
        })?);
        Ok(Self { stage, threads: started })
    }

    /// Stops accepting, asks peers to go elsewhere, waits for open requests at most `deadline`, cuts the rest and ends the
    /// threads.
    pub async fn drain(self, deadline: Duration) {
        self.stage.advance(Stage::Draining);
        let Self { stage, threads } = self;
        let mut ended = std::pin::pin!(threads::join(threads));
        if tokio::time::timeout(deadline, &mut ended).await.is_ok() {
            return;
        }
        stage.advance(Stage::Cut(Cut::Drain));
        if tokio::time::timeout(CUT_TIME, ended).await.is_err() {
            tracing::warn!("Aborted connections did not end in time");
        }
    }
}
