//! Accepts on one thread and hands each connection to the least loaded worker.
//!
//! Invariant: while no worker has room nothing is accepted; clients wait in the kernel's backlog.

use std::{net::TcpListener, time::Duration};

use ambit_proxy::stage::StageWatch;
use ambit_runtime::accept;
use tokio::{
    sync::mpsc::error::SendError,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    load::{Load, least_loaded},
    worker::{Accepted, WorkerHandle},
};
use crate::sockets;

/// How often the load of the workers is sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Accepts until draining begins; then closes the listener.
pub(super) async fn run(listener: TcpListener, workers: Vec<WorkerHandle>, stage: StageWatch) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "The listener cannot be polled"),
    };
    let mut loads = vec![Load::default(); workers.len()];
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sampled = Instant::now();
    let draining = stage.draining();
    let mut draining = std::pin::pin!(draining);
    loop {
        tokio::select! {
            biased;
            () = &mut draining => return,
            now = ticks.tick() => {
                for (load, worker) in loads.iter_mut().zip(&workers) {
                    load.sample(worker.busy_so_far(), now - sampled);
                }
                sampled = now;
            }
            (stream, client) = accept::next("tunnels", || listener.accept()) => {
                sockets::tune(&stream);
                if hand_over(stream, sockets::canonical(client), &workers, &mut loads).await.is_err() {
                    return tracing::error!("A worker thread is gone");
                }
            }
        }
    }
}

async fn hand_over(
    stream: tokio::net::TcpStream,
    client: std::net::SocketAddr,
    workers: &[WorkerHandle],
    loads: &mut [Load],
) -> Result<(), SendError<Accepted>> {
    for (load, worker) in loads.iter_mut().zip(workers) {
        load.connections = worker.open();
    }
    match (workers.get(least_loaded(loads)), stream.into_std()) {
        (Some(worker), Ok(stream)) => worker.send(stream, client).await,
        (None, _) | (_, Err(_)) => Ok(()),
    }
}
