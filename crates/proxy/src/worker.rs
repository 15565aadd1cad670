//! The threads that carry connections, and the tasks on them.
//!
//! Invariant: a task stays on the thread that spawned it.

use std::{
    future::Future,
    io,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    task::{self, LocalSet},
};
use tokio_util::task::TaskTracker;

/// How long connections that were cut may take to end.
pub const CUT_TIME: Duration = Duration::from_secs(1);

/// The runtime of one thread.
///
/// # Errors
/// When the kernel has no room for its descriptors.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Starts a thread that runs `worker` to its end.
///
/// # Errors
/// When there is no room for another thread.
pub fn spawn<F>(
    name: String,
    runtime: Runtime,
    worker: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()>,
{
    Builder::new().name(name).spawn(move || LocalSet::new().block_on(&runtime, worker()))
}

/// Waits for threads to end, without blocking the caller's thread.
pub fn join(threads: Vec<JoinHandle<()>>) -> task::JoinHandle<()> {
    task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())))
}

/// The connections of one thread, or of one pod on it.
#[derive(Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Runs a connection beside the others; [`Tasks::ended`] waits for it.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn_local(task);
    }

    /// Whether a connection is left.
    pub fn is_busy(&self) -> bool {
        !self.0.is_empty()
    }

    /// Returns once no connection is left. Call it only when none can begin any more.
    pub async fn ended(&self) {
        self.0.close();
        self.0.wait().await;
    }
}
