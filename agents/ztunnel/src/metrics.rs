//! Metrics, with Istio's names where they exist.
//!
//! Invariant: the number of series is bounded; see [`traffic`].

pub(crate) mod labels;
pub(crate) mod traffic;

use ambit_runtime::admin;
use ambit_store::LookupResult;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

pub(crate) use labels::{End, Labels, Reporter, ResponseFlags, Security};
pub(crate) use traffic::{Cache, InUse, Traffic};

/// Label: the result of a lookup ([`LookupResult`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LookedUp {
    answer: &'static str,
}

/// Metrics of the process. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// `istio_tcp_*`
    pub traffic: Traffic,
    /// Connections to addresses unknown on this node, by the result of the lookup.
    pub lookups: Family<LookedUp, Counter>,
    /// Connections that used another endpoint because the first could not be reached.
    pub failovers: Counter,
    /// Connections to the tunnel port that failed before becoming tunnels.
    pub handshakes_failed: Counter,
    /// Dropped access log lines.
    pub log_dropped: Counter,
    /// Pods that are served now.
    pub pods: Gauge,
    /// Pods that started to be served.
    pub pods_started: Counter,
    /// Pods that stopped being served.
    pub pods_stopped: Counter,
    /// Metrics of the xDS client.
    pub xds: ambit_xds::Counters,
}

impl Metrics {
    /// Counts the lookup of an unknown address.
    pub fn looked_up(&self, looked: LookupResult) {
        self.lookups.get_or_create(&LookedUp { answer: looked.as_str() }).inc();
    }

    /// Registers the metrics.
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
                ("workload_manager_proxies_started", "Pods that started to be served", &self.pods_started),
                ("workload_manager_proxies_stopped", "Pods no longer served", &self.pods_stopped),
            ];
            for (name, help, counter) in counters {
                registry.register(name, help, counter.clone());
            }
            registry.register(
                "ambit_ztunnel_address_lookups",
                "Connections to addresses unknown on this node, by result of the lookup",
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
