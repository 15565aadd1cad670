//! What the connections of a pod, or of the process, may still do.
//!
//! Invariant: stages only move forward; late subscribers see the current one.

use tokio::sync::watch;

/// What tasks may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accept connections and requests.
    Serving,
    /// Finish what is open: another process accepts from the same listeners.
    HandedOver,
    /// Finish what is open, and ask peers to go elsewhere: nobody accepts from these listeners any more.
    Draining,
    /// End at once.
    Cut(Cut),
}

/// Why open connections are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// The process ends and its deadline has passed.
    Drain,
    /// The pod is gone.
    PodGone,
}

/// The side that moves the stage.
#[derive(Debug)]
pub struct StageControl(watch::Sender<Stage>);

/// The side that tasks watch.
#[derive(Clone, Debug)]
pub struct StageWatch(watch::Receiver<Stage>);

impl Default for StageControl {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::Serving))
    }
}

impl StageControl {
    /// A watch for one more task.
    pub fn watch(&self) -> StageWatch {
        StageWatch(self.0.subscribe())
    }

    /// Moves on; a stage before the current one changes nothing.
    pub fn advance(&self, to: Stage) {
        self.0.send_if_modified(|stage| {
            let later = to > *stage;
            if later {
                *stage = to;
            }
            later
        });
    }
}

impl StageWatch {
    /// The current stage.
    pub fn now(&self) -> Stage {
        *self.0.borrow()
    }

    /// Returns once no connection may be accepted any more, and peers are to be asked to go elsewhere.
    pub async fn draining(&self) {
        // An error means that the control is gone, and with it the pod or the process.
        let _ = self.0.clone().wait_for(|stage| *stage > Stage::Serving).await;
    }

    /// Returns the reason once open connections have to end.
    pub async fn cut(&self) -> Cut {
        let mut stage = self.0.clone();
        loop {
            if let Stage::Cut(cut) = *stage.borrow_and_update() {
                return cut;
            }
            if stage.changed().await.is_err() {
                return Cut::PodGone;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn moves_forward_only_and_late_subscribers_see_the_current_stage() {
        let control = StageControl::default();
        let watch = control.watch();
        control.advance(Stage::Draining);
        assert!(watch.cut().now_or_never().is_none());
        control.advance(Stage::Cut(Cut::Drain));
        control.advance(Stage::Draining);
        watch.draining().await;
        assert_eq!(watch.cut().await, Cut::Drain);
        assert_eq!(watch.now(), Stage::Cut(Cut::Drain));
    }

    #[tokio::test]
    async fn draining_does_not_cut() {
        let control = StageControl::default();
        let watch = control.watch();
        control.advance(Stage::Draining);
        watch.draining().await;
        let cut = tokio::time::timeout(std::time::Duration::from_millis(10), watch.cut()).await;
        assert!(cut.is_err());
    }
}
