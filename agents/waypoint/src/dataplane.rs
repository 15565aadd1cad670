//! The worker threads, and the thread that accepts for them.
//!
//! Invariant: a connection stays on the worker that was chosen for it. The least loaded worker is chosen: few, long-lived
//! tunnel connections carry all requests, so that a random choice would leave cores idle.

mod accept;
mod load;
mod worker;

use std::{
    io,
    net::TcpListener,
    num::NonZeroUsize,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use ambit_proxy::stage::{Cut, Stage, StageControl};
use tokio::runtime::Runtime;
use worker::WorkerHandle;

pub use load::{Load, least_loaded};

use crate::context::Shared;

/// How long connections that were cut may take to end.
const CUT_TIME: Duration = Duration::from_secs(1);

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
        let mut threads = Vec::with_capacity(workers.get() + 1);
        let mut handles = Vec::with_capacity(workers.get());
        for number in 0..workers.get() {
            let runtime = runtime()?;
            let (handle, accepted) = WorkerHandle::new(runtime.metrics());
            handles.push(handle);
            let (shared, stage) = (shared.clone(), stage.watch());
            threads.push(thread(format!("waypoint-{number}"), runtime, move || {
                worker::run(shared, accepted, stage)
            })?);
        }
        let watch = stage.watch();
        threads.push(thread("waypoint-accept".to_owned(), runtime()?, move || {
            accept::run(listener, handles, watch)
        })?);
        Ok(Self { stage, threads })
    }

    /// Stops accepting, asks peers to go elsewhere, waits for open requests at most `deadline`, cuts the rest and ends the
    /// threads.
    pub async fn drain(self, deadline: Duration) {
        self.stage.advance(Stage::Draining);
        let Self { stage, threads } = self;
        let ended = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join())));
        let mut ended = std::pin::pin!(ended);
        if tokio::time::timeout(deadline, &mut ended).await.is_ok() {
            return;
        }
        stage.advance(Stage::Cut(Cut::Drain));
        if tokio::time::timeout(CUT_TIME, ended).await.is_err() {
            tracing::warn!("Connections that were cut did not end in time");
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn thread<F, R>(name: String, runtime: Runtime, run: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = ()>,
{
    Builder::new().name(name).spawn(move || tokio::task::LocalSet::new().block_on(&runtime, run()))
}
