//! What Prometheus is told.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

/// An effect on a pod and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EffectLabels {
    /// Name of the effect.
    pub effect: String,
    /// `ok` or the reason of the failure.
    pub outcome: &'static str,
}

/// How a request of the CNI plugin ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AdmissionLabels {
    /// `allow` or the reason to wait.
    pub outcome: String,
}

/// Which way a packet was forwarded that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ForwardedLabels {
    /// `out` or `in`.
    pub direction: &'static str,
}

/// All metrics of the agent.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Effects on pods.
    pub effects: Family<EffectLabels, Counter>,
    /// Requests of the CNI plugin.
    pub admissions: Family<AdmissionLabels, Counter>,
    /// Pods enrolled now.
    pub pods_enrolled: Gauge,
    /// Whether a proxy is connected.
    pub proxy_connected: Gauge,
    /// Times that connections were refused because no proxy was there.
    pub breaker_opened: Counter,
    /// Packets that were dropped instead of forwarded.
    pub forwarded_dropped: Family<ForwardedLabels, Counter>,
    /// Connections of before a pod's enrollment that were closed.
    pub unjudged_closed: Counter,
    /// Whether the plugin is in the node's network configuration.
    pub plugin_installed: Gauge,
}

impl Metrics {
    /// Makes and registers them.
    pub fn register(all: &ambit_runtime::admin::Metrics) -> Self {
        let metrics = Self::default();
        all.register(|registry| {
            let registry = registry.sub_registry_with_prefix("nodeagent");
            registry.register("reconcile_events", "Effects on pods", metrics.effects.clone());
            registry.register("admissions", "Pods that started", metrics.admissions.clone());
            registry.register("pods_enrolled", "Pods enrolled now", metrics.pods_enrolled.clone());
            registry.register("proxy_connected", "A proxy is connected", metrics.proxy_connected.clone());
            registry.register("breaker_opened", "No proxy came back in time", metrics.breaker_opened.clone());
            registry.register(
                "forwarded_packets_dropped",
                "Packets that pods forwarded and that could not be captured or judged",
                metrics.forwarded_dropped.clone(),
            );
            registry.register(
                "unjudged_connections_closed",
                "Connections closed since a pod ran before it could be enrolled",
                metrics.unjudged_closed.clone(),
            );
            registry.register(
                "plugin_installed",
                "The plugin is configured",
                metrics.plugin_installed.clone(),
            );
        });
        metrics
    }
}
