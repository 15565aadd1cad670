//! The ZDS client: which pods to serve, according to the node agent.
//!
//! Invariant: while the agent is away, everything continues as it last requested; a request is
//! acknowledged after it was executed.

mod held;

use std::{path::PathBuf, sync::Arc, time::Duration};

use ambit_runtime::{Backoff, Blocker, Readiness};
use ambit_zds::{Client, Request, ZdsError};
use tokio::time::sleep;

pub use held::Held;

/// First delay after losing the agent; a restarted one waits for us at most a second.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest delay: pods wait while we reconnect to a restarted agent.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A newer process serves the node's pods. Keeps this process unready as long as it exists, so that
/// clients use the other one.
#[derive(Debug)]
pub struct HandedOver {
    _not_ready: Blocker,
}

/// The agent's socket, and the readiness blocker until it has sent its snapshot.
#[derive(Debug)]
pub struct Link {
    path: PathBuf,
    instance: String,
    readiness: Readiness,
    waiting: Option<Blocker>,
}

impl Link {
    /// Not ready until a complete snapshot was received. `instance` must be unique per process.
    pub fn new(path: PathBuf, instance: String, readiness: &Readiness) -> Self {
        let waiting = Some(readiness.block("zds"));
        Self { path, instance, readiness: readiness.clone(), waiting }
    }

    /// Executes the agent's requests until a newer process takes over.
    pub async fn run(mut self, held: &mut Held) -> HandedOver {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            match self.follow(held, &mut backoff).await {
                Ok(ended) => return ended,
                Err(error) => {
                    let retry_in = backoff.pause();
                    tracing::warn!(%error, ?retry_in, "Node agent is away; pods are served as before");
                    sleep(retry_in).await;
                }
            }
        }
    }

    async fn follow(&mut self, held: &mut Held, backoff: &mut Backoff) -> Result<HandedOver, ZdsError> {
        let listeners = held.listeners();
        let mut client = Client::connect(&self.path, &self.instance, &listeners).await?;
        drop(listeners);
        tracing::info!(pods = held.len(), "Connected to the node agent");
        held.begin_snapshot();
        loop {
            let request = client.receive().await?;
            backoff.reset();
            let outcome = match request {
                Request::Add(add) => held.add(add).await.map_err(|error| error.to_string()),
                Request::Keep { uid } => {
                    held.keep(&uid);
                    Ok(())
                }
                Request::Del { uid, connections } => {
                    held.del(&Arc::from(uid.as_str()), connections).await;
                    Ok(())
                }
                Request::SnapshotSent => {
                    held.end_snapshot().await;
                    self.waiting = None;
                    Ok(())
                }
                Request::Ping => Ok(()),
                Request::Drain => {
                    held.hand_over().await;
                    client.ack(Ok(())).await?;
                    return Ok(HandedOver { _not_ready: self.readiness.block("handed over") });
                }
            };
            if let Err(reason) = &outcome {
                tracing::warn!(%reason, "A pod cannot be served");
            }
            client.ack(outcome.as_ref().copied().map_err(String::as_str)).await?;
        }
    }
}
