//! The metrics of this program, under Istio's names where Istio has one.
//!
//! Invariant: the number of series is bounded; see [`traffic`].

mod histogram;
pub mod labels;
mod sizes;
pub mod traffic;

use ambit_runtime::admin;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

pub use labels::{End, Ended, Flags};
pub use sizes::Sizes;
pub use traffic::{Cache, Parties, SERIES_MAX, StreamInUse, Traffic};

/// A limit of a destination, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Limit {
    /// Connections, pending requests, requests or retries.
    pub resource: &'static str,
}

/// How a check by a provider of external authorization ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckResult {
    /// `allowed`, `denied`, `error` or `timeout`, after Envoy's statistics of `ext_authz`.
    pub result: &'static str,
}

/// Counters of the process. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// `istio_requests_total`, its histograms, and `istio_tcp_*`.
    pub traffic: Traffic,
    /// Tries after the first.
    pub retries: Counter,
    /// Requests and connections that a circuit breaker refused.
    pub overflows: Family<Limit, Counter>,
    /// Copies of requests that did not reach their destination.
    pub copies_failed: Counter,
    /// Endpoints ejected by outlier detection.
    pub ejections: Counter,
    /// Checks of external authorization, one for each request and provider.
    pub checks: Family<CheckResult, Counter>,
    /// Checks without an answer whose request went on, because the provider has `failOpen`.
    pub checks_failed_open: Counter,
    /// Requests that a rate limit refused.
    pub rate_limited: Counter,
    /// Requests accepted with a token that never expires.
    pub tokens_without_expiry: Counter,
    /// Connections to the tunnel port that did not become tunnels.
    pub handshakes_failed: Counter,
    /// Access-log lines dropped because the queue was full.
    pub log_dropped: Counter,
    /// Spans accepted by the collector.
    pub spans_sent: Counter,
    /// Spans dropped because the queue was full or the collector refused them.
    pub spans_dropped: Counter,
    /// Services bound here.
    pub services: Gauge,
    /// The connection to the operator.
    pub xds: ambit_xds::Counters,
}

impl Metrics {
    /// Registers all metrics for `/metrics`.
    pub fn register(&self, metrics: &admin::Metrics) {
        metrics.register_build("waypoint", env!("CARGO_PKG_VERSION"));
        metrics.register(|registry| {
            registry.register_collector(Box::new(self.traffic.clone()));
            for (name, help, counter) in self.counters() {
                registry.register(name, help, counter.clone());
            }
            let overflows = self.overflows.clone();
            registry.register("ambit_waypoint_overflows", "Refused by a circuit breaker", overflows);
            let checks = self.checks.clone();
            registry.register("ambit_waypoint_ext_authz_checks", "Checks by external authorization", checks);
            registry.register("ambit_waypoint_services", "Services bound here", self.services.clone());
            self.xds.register(registry);
        });
    }

    fn counters(&self) -> [(&'static str, &'static str, &Counter); 10] {
        [
            ("ambit_waypoint_retries", "Retries", &self.retries),
            ("ambit_waypoint_mirrors_failed", "Copies of requests not delivered", &self.copies_failed),
            ("ambit_waypoint_ejections", "Endpoints ejected by outlier detection", &self.ejections),
            (
                "ambit_waypoint_ext_authz_failed_open",
                "Requests admitted without an answer of their provider (failOpen)",
                &self.checks_failed_open,
            ),
            ("ambit_waypoint_rate_limited", "Requests refused by a rate limit", &self.rate_limited),
            (
                "ambit_waypoint_handshakes_failed",
                "Connections to port 15008 that did not become tunnels",
                &self.handshakes_failed,
            ),
            (
                "ambit_waypoint_tokens_without_expiry",
                "Requests accepted with a token without exp",
                &self.tokens_without_expiry,
            ),
            ("ambit_waypoint_access_log_dropped", "Access log lines dropped", &self.log_dropped),
            ("ambit_waypoint_spans_sent", "Spans accepted by the collector", &self.spans_sent),
            ("ambit_waypoint_spans_dropped", "Spans dropped", &self.spans_dropped),
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
        all.overflows.get_or_create(&Limit { resource: "connections" }).inc();
        all.checks.get_or_create(&CheckResult { result: "denied" }).inc();
        let text = shown.encode();
        for line in [
            "istio_build{component=\"waypoint\",tag=\"0.1.0\"} 1",
            "istio_xds_connection_terminations_total 0",
            "ambit_waypoint_retries_total 0",
            "ambit_waypoint_ejections_total 0",
            "ambit_waypoint_mirrors_failed_total 0",
            "ambit_waypoint_rate_limited_total 0",
            "ambit_waypoint_tokens_without_expiry_total 0",
            "ambit_waypoint_overflows_total{resource=\"connections\"} 1",
            "ambit_waypoint_ext_authz_checks_total{result=\"denied\"} 1",
            "ambit_waypoint_ext_authz_failed_open_total 0",
            "ambit_waypoint_spans_dropped_total 0",
            "# TYPE istio_requests counter",
            "# TYPE istio_request_duration_milliseconds histogram",
            "# TYPE istio_tcp_connections_opened counter",
        ] {
            assert!(text.contains(line), "{line}\n is not in\n{text}");
        }
    }
}
