//! What this program counts, under Istio's names where Istio has one.
//!
//! Invariant: the number of series is bounded; see [`traffic`].

pub mod labels;
pub mod traffic;

use ambit_runtime::admin;
use ambit_store::LookupResult;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

pub use labels::{End, Labels, Reporter, ResponseFlags, Security};
pub use traffic::{Cache, InUse, SERIES_MAX, Traffic};

/// What came of asking about an address: one of [`LookupResult`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LookedUp {
    answer: &'static str,
}

/// Counters of the process. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// `istio_tcp_*`
    pub traffic: Traffic,
    /// Connections to addresses that nobody here had heard of, by what came of asking.
    pub lookups: Family<LookedUp, Counter>,
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
    /// What the control plane says.
    pub xds: ambit_xds::Counters,
}

impl Metrics {
    /// A connection went to an address that nobody here had heard of.
    pub fn looked_up(&self, looked: LookupResult) {
        self.lookups.get_or_create(&LookedUp { answer: looked.as_str() }).inc();
    }

    /// Makes everything visible on `/metrics`.
    pub fn register(&self, metrics: &admin::Metrics) {
        metrics.register_build("ztunnel", env!("CARGO_PKG_VERSION"));
        metrics.register(|registry| {
            registry.register_collector(Box::new(self.traffic.clone()));
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
            ];
            for (name, help, counter) in counters {
                registry.register(name, help, counter.clone());
            }
            registry.register(
                "ambit_ztunnel_address_lookups",
                "Connections to addresses that this node had not heard of, by what the operator said",
                self.lookups.clone(),
            );
            registry.register("workload_manager_active_proxy_count", "Pods served", self.pods.clone());
            self.xds.register(registry);
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
        let text = shown.encode();
        for line in [
            "istio_build{component=\"ztunnel\",tag=\"0.1.0\"} 1",
            "workload_manager_active_proxy_count 0",
            "istio_xds_connection_terminations_total 0",
            "# TYPE istio_tcp_connections_opened counter",
        ] {
            assert!(text.contains(line), "{line}\n is not in\n{text}");
        }
    }
}
