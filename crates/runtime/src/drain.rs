//! Stopping in order: who watches is told to stop, and who drains waits until all have.
//!
//! Invariant: [`Drain::drain`] returns only when every [`DrainWatch`] is dropped or the deadline has passed.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// The side that says stop.
#[derive(Debug)]
pub struct Drain {
    stop: watch::Sender<bool>,
    alive: mpsc::Sender<()>,
    gone: mpsc::Receiver<()>,
}

/// The side that is told. Clone one per task; drop it when the task has ended.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    stop: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

impl Default for Drain {
    fn default() -> Self {
        let (alive, gone) = mpsc::channel(1);
        Self { stop: watch::Sender::new(false), alive, gone }
    }
}

impl Drain {
    /// A watch for one more task.
    pub fn watch(&self) -> DrainWatch {
        DrainWatch { stop: self.stop.subscribe(), _alive: self.alive.clone() }
    }

    /// Tells all watches to stop and waits for them at most `deadline`; says whether all ended in time.
    pub async fn drain(mut self, deadline: Duration) -> bool {
        self.stop.send_replace(true);
        drop(self.alive);
        tokio::time::timeout(deadline, self.gone.recv()).await.is_ok()
    }
}

impl DrainWatch {
    /// Returns once draining has begun (or the drain side is gone).
    pub async fn begun(&self) {
        let mut stop = self.stop.clone();
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        *self.stop.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_every_watch_but_not_beyond_the_deadline() {
        let drain = Drain::default();
        let watch = drain.watch();
        let task = tokio::spawn(async move { watch.begun().await });
        assert!(drain.drain(Duration::from_secs(5)).await);
        task.await.unwrap();

        let drain = Drain::default();
        let _stuck = drain.watch();
        assert!(!drain.drain(Duration::from_secs(5)).await);
    }
}
