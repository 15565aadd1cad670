//! Runs what an HTTP/2 connection spawns on the thread of the connection.

use std::future::Future;

/// On the present thread's task set.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // Boxed: a task is moved when it is spawned, and once more when it ends.
        tokio::task::spawn_local(Box::pin(future));
    }
}
