//! How far a pod has come in one worker, and what that means for its tasks.
//!
//! Invariant: stages only move forward; whoever asks late sees the last one.

use tokio::sync::watch;

use crate::error::Error;

/// What a pod's tasks may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everything.
    Serving,
    /// Finish what is open: another process accepts from the same listeners.
    HandedOver,
    /// Finish what is open, and what waits to be accepted: the pod leaves the mesh.
    Leaving,
    /// Nothing.
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

impl From<Cut> for Error {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Drain => Self::Drained,
            Cut::PodGone => Self::PodGone,
        }
    }
}

/// The side that moves the stage.
#[derive(Debug)]
pub struct StageControl(watch::Sender<Stage>);

/// The side that heeds it.
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

    /// Moves on; an earlier stage than the present one changes nothing.
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
    /// Returns once no connection may be accepted any more.
    pub async fn leaving(&self) {
        // An error means that the control is gone, and so is the pod.
        let _ = self.0.clone().wait_for(|stage| *stage > Stage::Serving).await;
    }

    /// The present stage.
    pub fn now(&self) -> Stage {
        *self.0.borrow()
    }

    /// Returns the reason once open connections are to end.
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
    use super::*;

    #[tokio::test]
    async fn moves_forward_only_and_tells_those_who_ask_late() {
        let control = StageControl::default();
        let watch = control.watch();
        control.advance(Stage::Cut(Cut::Drain));
        control.advance(Stage::Leaving);
        watch.leaving().await;
        assert_eq!(watch.cut().await, Cut::Drain);
    }

    #[tokio::test]
    async fn leaving_does_not_cut() {
        let control = StageControl::default();
        let watch = control.watch();
        control.advance(Stage::Leaving);
        watch.leaving().await;
        let cut = tokio::time::timeout(std::time::Duration::from_millis(10), watch.cut()).await;
        assert!(cut.is_err());
    }
}
