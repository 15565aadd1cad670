//! What this program counts, under Istio's names where Istio has one.
//!
//! Invariant: the number of series is bounded; see [`traffic`].

pub mod labels;
pub mod traffic;

use std::sync::atomic::AtomicU64;

use ambit_runtime::admin;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

pub use labels::{End, Labels, Reporter, ResponseFlags, Security};
pub use traffic::{Cache, InUse, SERIES_MAX, Traffic, UNUSED_MAX};

/// A resource type of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Url {
    /// Type URL.
    pub url: String,
}

/// Counters of the process. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// `istio_tcp_*`
    pub traffic: Traffic,
    /// Connections that went to another endpoint because the first could not be reached.
    pub failovers: Counter,
    /// Connections to the tunnel port that did not become tunnels.
    pub handshakes_failed: Counter,
    /// Access-log lines that could not be kept.
    pub log_dropped: Counter,
    /// Pods served.
    pub pods: Gauge,
    /// Pods that began to be served.
    pub pods_started: Counter,
    /// Pods that were no longer served.
    pub pods_stopped: Counter,
    /// Control plane messages by type.
    pub xds_messages: Family<Url, Counter>,
    /// Their bytes.
    pub xds_bytes: Family<Url, Counter<u64, AtomicU64>>,
    /// Streams to the control plane that ended.
    pub xds_disconnects: Counter,
    /// Messages of the control plane refused in part or whole.
    pub xds_rejections: Counter,
}

impl Metrics {
    /// Makes everything visible on `/metrics`.
    pub fn register(&self, metrics: &admin::Metrics) {
        metrics.register(|registry| {
            registry.register_collector(Box::new(self.traffic.clone()));
            let build = [("component", "ztunnel"), ("tag", env!("CARGO_PKG_VERSION"))];
            // Not `Info`: Istio's dashboards know a gauge of 1.
            let gauge: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
            gauge.get_or_create(&build.to_vec()).set(1);
            registry.register("istio_build", "Istio component build info", gauge);
            let counters = [
                ("ambit_ztunnel_failovers", "Connections that went to another endpoint", &self.failovers),
                (
                    "ambit_ztunnel_handshakes_failed",
                    "Connections to port 15008 that did not become tunnels",
                    &self.handshakes_failed,
                ),
                ("ambit_ztunnel_access_log_dropped", "Access log lines dropped", &self.log_dropped),
                ("workload_manager_proxies_started", "Pods that began to be served", &self.pods_started),
                ("workload_manager_proxies_stopped", "Pods no longer served", &self.pods_stopped),
                (
                    "istio_xds_connection_terminations",
                    "Streams to the control plane that ended",
                    &self.xds_disconnects,
                ),
                (
                    "ambit_xds_rejections",
                    "Control plane messages refused in part or whole",
                    &self.xds_rejections,
                ),
            ];
            for (name, help, counter) in counters {
                registry.register(name, help, counter.clone());
            }
            registry.register("workload_manager_active_proxy_count", "Pods served", self.pods.clone());
            registry.register(
                "istio_xds_message",
                "Control plane messages by type",
                self.xds_messages.clone(),
            );
            registry.register("istio_xds_message_bytes", "Their bytes", self.xds_bytes.clone());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_every_metric_under_its_name() {
        let (all, shown) = (Metrics::default(), admin::Metrics::default());
        all.register(&shown);
        all.xds_messages.get_or_create(&Url { url: "x".to_owned() }).inc();
        let text = shown.encode();
        for line in [
            "istio_build{component=\"ztunnel\",tag=\"0.1.0\"} 1",
            "istio_xds_message_total{url=\"x\"} 1",
            "workload_manager_active_proxy_count 0",
            "istio_xds_connection_terminations_total 0",
            "# TYPE istio_tcp_connections_opened counter",
        ] {
            assert!(text.contains(line), "{line}\n is not in\n{text}");
        }
    }
}
