//! One worker: serves its connections, and judges them again when policy changes.
//!
//! Invariant: it ends when its last connection has, or when it is told to cut them.

use std::{rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::Accepted;
use crate::{
    context::{Local, Shared},
    inbound,
    stage::StageWatch,
};

/// How often idle connections are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Runs until the accepting thread is gone and its connections have ended.
pub(super) async fn run(shared: Arc<Shared>, mut accepted: mpsc::Receiver<Accepted>, stage: StageWatch) {
    let mut changes = shared.services.changes();
    let local = Local::new(shared, stage.clone());
    let mut tidy = interval(TIDY_EVERY);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut accepting = true;
    let cut = stage.cut();
    let mut cut = std::pin::pin!(cut);
    while accepting || local.is_busy() {
        tokio::select! {
            biased;
            () = &mut cut => return,
            // Policy holds to the last byte, also while draining.
            Ok(()) = changes.changed() => local.streams.judge_again(&local.shared.services.load()),
            next = accepted.recv(), if accepting => match next {
                Some(next) => begin(&local, next),
                None => accepting = false,
            },
            () = local.ended(), if !accepting => {}
            _ = tidy.tick() => local.tidy(),
        }
    }
    local.tidy();
}

fn begin(local: &Rc<Local>, Accepted { stream, client, place }: Accepted) {
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "A connection cannot be polled"),
    };
    // Boxed: the task would hold it twice.
    let serve = Box::pin(inbound::serve(local.clone(), stream, client));
    local.spawn(async move {
        serve.await;
        drop(place);
    });
}
