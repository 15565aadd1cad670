//! Prometheus metrics.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

/// Labels of an effect and its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EffectLabels {
    /// Name of the effect.
    pub effect: String,
    /// `ok`, or the reason of the failure.
    pub outcome: &'static str,
}

/// Labels of a request of the CNI plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AdmissionLabels {
    /// `allow`, or the reason to wait.
    pub outcome: String,
}

/// Labels of a dropped forwarded packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ForwardedLabels {
    /// `out` or `in`.
    pub direction: &'static str,
}

/// All metrics of the agent.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Effects, by name and result.
    pub effects: Family<EffectLabels, Counter>,
    /// Requests of the CNI plugin, by result.
    pub admissions: Family<AdmissionLabels, Counter>,
    /// Pods that are enrolled now.
    pub pods_enrolled: Gauge,
    /// Whether a proxy is connected.
    pub proxy_connected: Gauge,
    /// How often connections were refused because no proxy was connected.
    pub breaker_opened: Counter,
    /// Forwarded packets that were dropped.
    pub forwarded_dropped: Family<ForwardedLabels, Counter>,
    /// Connections from before a pod's enrollment that were closed.
    pub unjudged_closed: Counter,
    /// Whether the plugin is in the node's network configuration.
    pub plugin_installed: Gauge,
}

impl Metrics {
    /// Creates and registers the metrics.
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
                "Forwarded packets of pods that were dropped because policy could not be applied",
                metrics.forwarded_dropped.clone(),
            );
            registry.register(
                "unjudged_connections_closed",
                "Connections closed because their pod ran before it was enrolled",
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
