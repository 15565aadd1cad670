//! Metrics of the control plane: reconciles, leadership, and the content of the index, computed at
//! each scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};
use tokio::sync::watch;

use crate::state::SharedIndex;

/// The result of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// Everything succeeded.
    Done,
    /// Something failed and will be retried.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: Outcome,
}

/// Metrics of the control plane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    reconciles: Family<Labels, Counter>,
}

impl Metrics {
    /// Registers all metrics.
    pub(crate) fn register(&self, registry: &mut Registry, index: SharedIndex, leads: watch::Receiver<bool>) {
        let help = "Reconciles of the Mesh by this replica";
        registry.register("ambit_reconciles", help, self.reconciles.clone());
        registry.register_collector(Box::new(State { index, leads }));
    }

    /// Counts a reconcile.
    pub(crate) fn reconciled(&self, result: Outcome) {
        self.reconciles.get_or_create(&Labels { result }).inc();
    }
}

#[derive(Debug)]
struct State {
    index: SharedIndex,
    leads: watch::Receiver<bool>,
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (enrolled, pending, workloads, services, policies) = {
            let index = self.index.read();
            let (enrolled, pending) = index.enrolled_and_pending();
            let counts = (index.workloads().count(), index.services().count(), index.policies().count());
            (enrolled, pending, counts.0, counts.1, counts.2)
        };
        for (name, help, value) in [
            ("ambit_leader", "Whether this replica writes", usize::from(*self.leads.borrow())),
            ("ambit_pods_enrolled", "Pods in the mesh", enrolled),
            ("ambit_pods_pending", "Pods that are not in their wanted state", pending),
            ("ambit_workloads", "Workloads published to proxies", workloads),
            ("ambit_services", "Services published to proxies", services),
            ("ambit_policies", "Policies published to proxies", policies),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ambit_index::{Index, Settings};

    use super::*;

    #[test]
    fn a_scrape_says_who_leads_and_what_is_known() {
        let (_lead, leads) = watch::channel(true);
        let mut registry = Registry::default();
        let metrics = Metrics::default();
        metrics.register(&mut registry, SharedIndex::new(Index::new(Settings::default())), leads);
        metrics.reconciled(Outcome::Done);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in ["ambit_leader 1", "ambit_policies 1", "ambit_reconciles_total{result=\"Done\"} 1"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
