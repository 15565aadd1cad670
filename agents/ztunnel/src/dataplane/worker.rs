//! One worker: executes orders, evaluates its connections when policy changes, and flushes byte
//! counters.
//!
//! Invariant: a leaving pod is dropped only when its last connection here has ended.

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use ambit_proxy::{
    bytes::COUNT_EVERY,
    stage::{Cut, Stage, StageControl},
    worker::CUT_TIME,
};
use ambit_zds::Connections;
use futures::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    accept,
    order::{Command, Listeners, Order},
};
use crate::{
    context::{Context, Local, Shared},
    pods::Pod,
};

/// A pod served by this worker.
struct Served {
    context: Rc<Context>,
    control: Rc<StageControl>,
    accepting: Vec<JoinHandle<()>>,
}

struct Worker {
    local: Rc<Local>,
    pods: HashMap<Arc<str>, Served>,
    /// Pods that no longer accept but still have connections.
    leaving: Vec<(Rc<Context>, Rc<StageControl>)>,
}

/// Runs until it is ordered to drain, or all senders are dropped.
pub(super) async fn run(shared: Arc<Shared>, mut orders: mpsc::Receiver<Command>) {
    let mut judgements = shared.store.judgements();
    let mut flush = interval(COUNT_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut worker = Worker { local: Local::new(shared), pods: HashMap::new(), leaving: Vec::new() };
    loop {
        tokio::select! {
            biased;
            Ok(()) = judgements.changed() => {
                worker.local.connections.judge_again(&worker.local.shared.store.load());
            }
            command = orders.recv() => {
                let Some(Command { order, done }) = command else { return };
                let next = worker.obey(order, &mut judgements).await;
                // The sender may no longer be waiting.
                let _ = done.send(());
                if next == Next::End {
                    return;
                }
            }
            _ = flush.tick() => worker.tidy(),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    End,
}

/// Keeps evaluating connections, also while draining.
async fn judge_on(local: &Local, judgements: &mut watch::Receiver<u64>) {
    while judgements.changed().await.is_ok() {
        local.connections.judge_again(&local.shared.store.load());
    }
    // The store outlives its workers.
    std::future::pending().await
}

impl Worker {
    async fn obey(&mut self, order: Order, judgements: &mut watch::Receiver<u64>) -> Next {
        match order {
            Order::Serve { pod, listeners } => self.serve(pod, listeners),
            Order::Leave { uid, connections } => self.leave(&uid, connections).await,
            Order::HandOver => self.hand_over().await,
            Order::Drain { deadline } => {
                self.hand_over().await;
                let local = self.local.clone();
                tokio::select! {
                    () = self.drain(deadline) => {}
                    () = judge_on(&local, judgements) => {}
                }
                return Next::End;
            }
        }
        Next::Continue
    }

    fn serve(&mut self, pod: Arc<Pod>, listeners: Listeners) {
        let control = Rc::new(StageControl::default());
        let context = Context::new(self.local.clone(), pod.clone(), control.watch());
        let accepting = listeners.into_iter().filter_map(|(kind, listener)| {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => Some(tokio::task::spawn_local(accept::run(context.clone(), kind, listener))),
                Err(error) => {
                    tracing::error!(pod.uid = %pod.uid, %error, "A listener cannot be polled");
                    None
                }
            }
        });
        let served = Served { accepting: accepting.collect(), context, control };
        if let Some(before) = self.pods.insert(pod.uid.clone(), served) {
            before.control.advance(Stage::Draining);
            self.leaving.push((before.context, before.control));
        }
    }

    async fn leave(&mut self, uid: &str, connections: Connections) {
        if let Some(served) = self.pods.remove(uid) {
            served.control.advance(Stage::Draining);
            self.leaving.push((served.context, served.control));
            join_all(served.accepting).await;
        }
        if connections == Connections::Close {
            // Also those that left earlier and kept their connections.
            let left = self.leaving.iter().filter(|(context, _)| &*context.pod.uid == uid);
            left.for_each(|(_, control)| control.advance(Stage::Cut(Cut::PodGone)));
        }
        self.tidy();
    }

    async fn hand_over(&mut self) {
        for (_, served) in self.pods.drain() {
            served.control.advance(Stage::HandedOver);
            join_all(served.accepting).await;
            self.leaving.push((served.context, served.control));
        }
    }

    async fn drain(&mut self, deadline: Duration) {
        if !self.finished(deadline).await {
            self.leaving.iter().for_each(|(_, control)| control.advance(Stage::Cut(Cut::Drain)));
            if !self.finished(CUT_TIME).await {
                tracing::warn!("Aborted connections did not end in time");
            }
        }
        self.local.flows.flush();
    }

    /// Whether all connections ended within `limit`.
    async fn finished(&self, limit: Duration) -> bool {
        let all = self.leaving.iter().map(|(context, _)| context.tasks.ended());
        timeout(limit, join_all(all)).await.is_ok()
    }

    fn tidy(&mut self) {
        self.local.flows.flush();
        self.leaving.retain(|(context, _)| context.tasks.is_busy());
    }
}
