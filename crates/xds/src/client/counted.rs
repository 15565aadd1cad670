//! A subscription with metrics, whose completion the program waits for.
//!
//! Invariant: the readiness blocker is dropped once every type was received completely, and does
//! not come back; each message is counted once.

use std::{future::Future, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{Config, Handler, Rejection, Resource, Status, Subscriber, run_with_queries};

/// Label: the type URL of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Url {
    url: String,
}

/// Metrics of a subscription, with Istio's names where they exist. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    messages: Family<Url, Counter>,
    bytes: Family<Url, Counter<u64, AtomicU64>>,
    disconnects: Counter,
    rejections: Counter,
}

impl Counters {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        let messages = self.messages.clone();
        registry.register("istio_xds_message", "Control plane messages by type", messages);
        registry.register("istio_xds_message_bytes", "Their bytes", self.bytes.clone());
        for (name, help, counter) in [
            (
                "istio_xds_connection_terminations",
                "Streams to the control plane that ended",
                &self.disconnects,
            ),
            ("ambit_xds_rejections", "Control plane messages refused in part or whole", &self.rejections),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    fn came(&self, type_url: &str, resources: &[Resource]) {
        let url = Url { url: type_url.to_owned() };
        let bytes: usize = resources.iter().map(|resource| resource.bytes.len()).sum();
        self.messages.get_or_create(&url).inc();
        self.bytes.get_or_create(&url).inc_by(bytes as u64);
    }
}

/// Like [`run`](super::run), with queries and metrics; `waiting` is dropped once everything was received.
pub async fn run_counted<C, F, H, W>(
    config: Config,
    connect: C,
    Subscriber { handler, queries }: Subscriber<H>,
    counters: Counters,
    waiting: W,
) where
    C: FnMut() -> F,
    F: Future<Output = Result<Channel, tonic::codegen::StdError>>,
    H: Handler,
{
    let (status, seen) = watch::channel(Status::default());
    let watched = follow(seen, counters.clone(), waiting);
    let counted = Counted { inner: handler, counters };
    tokio::join!(
        run_with_queries(config, connect, Subscriber { handler: counted, queries }, status),
        watched
    );
}

/// A handler that counts what passes through.
struct Counted<H> {
    inner: H,
    counters: Counters,
}

impl<H: Handler> Handler for Counted<H> {
    fn apply(&mut self, type_url: &str, resources: Vec<Resource>, removed: Vec<String>) -> Vec<Rejection> {
        self.counters.came(type_url, &resources);
        self.inner.apply(type_url, resources, removed)
    }

    fn complete(&mut self, type_url: &str) {
        self.inner.complete(type_url);
    }
}

/// Runs until the subscription ends.
async fn follow<W>(mut status: watch::Receiver<Status>, counters: Counters, waiting: W) {
    let mut waiting = Some(waiting);
    let (mut disconnects, mut nacks) = (0, 0);
    loop {
        {
            let now = status.borrow_and_update();
            if now.synced {
                waiting = None;
            }
            counters.disconnects.inc_by(now.disconnects - disconnects);
            counters.rejections.inc_by(now.nacks - nacks);
            (disconnects, nacks) = (now.disconnects, now.nacks);
        }
        if status.changed().await.is_err() {
            drop(waiting);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A handler that rejects every resource.
    #[derive(Default)]
    struct Refusing {
        completed: Vec<String>,
    }

    impl Handler for Refusing {
        fn apply(&mut self, _: &str, resources: Vec<Resource>, _: Vec<String>) -> Vec<Rejection> {
            let refused = |resource: Resource| Rejection { name: resource.name, reason: "no".to_owned() };
            resources.into_iter().map(refused).collect()
        }

        fn complete(&mut self, type_url: &str) {
            self.completed.push(type_url.to_owned());
        }
    }

    fn text(counters: &Counters) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        counters.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn what_arrives_is_counted_by_type_and_handed_on() {
        let counters = Counters::default();
        let mut counted = Counted { inner: Refusing::default(), counters: counters.clone() };
        let resource =
            |name: &str| Resource { name: name.into(), version: "1".into(), bytes: "12345".into() };
        let refused = counted.apply("t", vec![resource("a"), resource("b")], vec![]);
        assert_eq!(refused.len(), 2);
        counted.apply("t", vec![], vec!["a".into()]);
        counted.complete("t");
        assert_eq!(counted.inner.completed, ["t"]);
        let text = text(&counters);
        for line in [
            "istio_xds_message_total{url=\"t\"} 2",
            "istio_xds_message_bytes_total{url=\"t\"} 10",
            "istio_xds_connection_terminations_total 0",
            "ambit_xds_rejections_total 0",
        ] {
            assert!(text.contains(line), "{line}\n is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn who_waits_is_let_go_once_everything_is_there_and_losses_are_counted_once() {
        let (status, seen) = watch::channel(Status::default());
        let (counters, waiting) = (Counters::default(), Arc::new(()));
        let waits = Arc::downgrade(&waiting);
        let following = tokio::spawn(follow(seen, counters.clone(), waiting));
        let counted = |disconnects: u64, rejections: u64| {
            let counters = counters.clone();
            async move {
                while (counters.disconnects.get(), counters.rejections.get()) != (disconnects, rejections) {
                    tokio::task::yield_now().await;
                }
            }
        };
        status.send_modify(|status| status.disconnects = 2);
        counted(2, 0).await;
        assert!(waits.upgrade().is_some(), "an end of the stream is no beginning");
        status.send_modify(|status| (status.synced, status.nacks) = (true, 1));
        counted(2, 1).await;
        assert!(waits.upgrade().is_none());
        status.send_modify(|status| (status.disconnects, status.nacks) = (3, 1));
        counted(3, 1).await;
        drop(status);
        following.await.unwrap();
    }
}
