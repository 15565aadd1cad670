//! Runs the tasks of an HTTP/2 connection on the thread of the connection.
//!
//! Invariant: called inside the `LocalSet` of a worker.

use std::future::Future;

/// Spawns onto the current thread's `LocalSet`.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // Boxed: a task is moved when it is spawned, and once more when it ends.
        tokio::task::spawn_local(Box::pin(future));
    }
}
