//! What this program counts, under Istio's names where Istio has one.
//!
//! Invariant: the number of series is bounded; see [`traffic`].

mod histogram;
pub mod labels;
pub mod traffic;

use std::sync::atomic::AtomicU64;

use ambit_runtime::admin;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

pub use labels::{End, Ended, Flags};
pub use traffic::{Cache, Parties, SERIES_MAX, Sizes, StreamInUse, Traffic, UNUSED_MAX};

/// A resource type of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Url {
    /// Type URL.
    pub url: String,
}

/// Counters of the process. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// `istio_requests_total`, its histograms, and `istio_tcp_*`.
    pub traffic: Traffic,
    /// Tries after the first.
    pub retries: Counter,
    /// Connections to the tunnel port that did not become tunnels.
    pub handshakes_failed: Counter,
    /// Access-log lines that could not be kept.
    pub log_dropped: Counter,
    /// Spans that a collector took.
    pub spans_sent: Counter,
    /// Spans that could not be kept or delivered.
    pub spans_dropped: Counter,
    /// Services bound here.
    pub services: Gauge,
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
            let build = [("component", "waypoint"), ("tag", env!("CARGO_PKG_VERSION"))];
            // Not `Info`: Istio's dashboards know a gauge of 1.
            let gauge: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
            gauge.get_or_create(&build.to_vec()).set(1);
            registry.register("istio_build", "Istio component build info", gauge);
            for (name, help, counter) in self.counters() {
                registry.register(name, help, counter.clone());
            }
            registry.register("ambit_waypoint_services", "Services bound here", self.services.clone());
            let messages = self.xds_messages.clone();
            registry.register("istio_xds_message", "Control plane messages by type", messages);
            registry.register("istio_xds_message_bytes", "Their bytes", self.xds_bytes.clone());
        });
    }

    fn counters(&self) -> [(&'static str, &'static str, &Counter); 7] {
        [
            ("ambit_waypoint_retries", "Tries after the first", &self.retries),
            (
                "ambit_waypoint_handshakes_failed",
                "Connections to port 15008 that did not become tunnels",
                &self.handshakes_failed,
            ),
            ("ambit_waypoint_access_log_dropped", "Access log lines dropped", &self.log_dropped),
            ("ambit_waypoint_spans_sent", "Spans that a collector took", &self.spans_sent),
            ("ambit_waypoint_spans_dropped", "Spans dropped", &self.spans_dropped),
            (
                "istio_xds_connection_terminations",
                "Streams to the control plane that ended",
                &self.xds_disconnects,
            ),
            ("ambit_xds_rejections", "Control plane messages refused in part or whole", &self.xds_rejections),
        ]
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
            "istio_build{component=\"waypoint\",tag=\"0.1.0\"} 1",
            "istio_xds_message_total{url=\"x\"} 1",
            "ambit_waypoint_retries_total 0",
            "ambit_waypoint_spans_dropped_total 0",
            "# TYPE istio_requests counter",
            "# TYPE istio_request_duration_milliseconds histogram",
            "# TYPE istio_tcp_connections_opened counter",
        ] {
            assert!(text.contains(line), "{line}\n is not in\n{text}");
        }
    }
}
