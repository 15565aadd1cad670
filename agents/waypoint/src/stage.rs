//! Serving, draining, cut: what the tasks of the process may still do.
//!
//! Invariant: stages only move forward; late subscribers see the current one.

use tokio::sync::watch;

/// What tasks may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accept connections and requests.
    Serving,
    /// Finish what is open, and ask peers to go elsewhere.
    Draining,
    /// End at once.
    Cut,
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

    /// Returns once peers are to be asked to go elsewhere.
    pub async fn draining(&self) {
        self.reached(Stage::Draining).await;
    }

    /// Returns once what is open has to end.
    pub async fn cut(&self) {
        self.reached(Stage::Cut).await;
    }

    async fn reached(&self, wanted: Stage) {
        // An error means that the control is gone, and with it the process.
        let _ = self.0.clone().wait_for(|stage| *stage >= wanted).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn moves_forward_only_and_tells_those_who_ask_late() {
        let control = StageControl::default();
        let watch = control.watch();
        control.advance(Stage::Draining);
        assert!(watch.cut().now_or_never().is_none());
        control.advance(Stage::Cut);
        control.advance(Stage::Draining);
        watch.draining().await;
        watch.cut().await;
        assert_eq!(watch.now(), Stage::Cut);
    }
}
