//! Certificates that are still valid, and the nodes that obtained them: a certificate cannot be
//! revoked, so it is counted while it outlives the last pod of its identity on its node.
//!
//! Invariant: at most [`CERTIFICATES_MAX`] are remembered; beyond that, those that expire first are
//! not counted.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use ambit_identity::Clock;
use ambit_model::Spiffe;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
};

use super::NodePods;

/// Identities per node: those of a large cluster.
pub(super) const CERTIFICATES_MAX: usize = 65_536;

/// Certificates issued by one replica.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<BTreeMap<(Arc<str>, Spiffe), SystemTime>>);

impl Ledger {
    /// Records that a node has a certificate of an identity until `ends`.
    pub(super) fn record(&self, node: Arc<str>, identity: Spiffe, ends: SystemTime, now: SystemTime) {
        let mut issued = self.lock();
        if issued.len() >= CERTIFICATES_MAX {
            issued.retain(|_, ends| *ends > now);
        }
        if issued.len() >= CERTIFICATES_MAX {
            let first = issued.iter().min_by_key(|(_, ends)| **ends).map(|(key, _)| key.clone());
            first.map(|key| issued.remove(&key));
        }
        issued.insert((node, identity), ends);
    }

    /// Number of valid certificates on nodes without a pod of their identity.
    fn outliving(&self, pods: &dyn NodePods, now: SystemTime) -> usize {
        let in_force: Vec<_> = {
            let mut issued = self.lock();
            issued.retain(|_, ends| *ends > now);
            issued.keys().cloned().collect()
        };
        let runs = |(node, id): &&(Arc<str>, Spiffe)| pods.runs_on(node, &id.namespace, &id.service_account);
        in_force.iter().filter(|entry| !runs(entry)).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Arc<str>, Spiffe), SystemTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computed at each scrape: `ambit_certificates_outliving_pods`.
pub(super) struct Outliving {
    pub(super) ledger: Arc<Ledger>,
    pub(super) pods: Arc<dyn NodePods>,
    pub(super) clock: Clock,
}

impl fmt::Debug for Outliving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outliving").finish_non_exhaustive()
    }
}

impl Collector for Outliving {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let count = self.ledger.outliving(&*self.pods, (self.clock)());
        let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let help =
            "Valid certificates issued by this replica whose identity has no pod on their node any more";
        let name = "ambit_certificates_outliving_pods";
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ambit_index::{Index, Object, Settings};
    use serde_json::json;

    use super::*;
    use crate::state::SharedIndex;

    const HOUR: Duration = Duration::from_secs(3600);

    fn id(account: &str) -> Spiffe {
        format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
    }

    fn pod(phase: &str) -> Object {
        Object::Pod(Box::new(
            serde_json::from_value(json!({
                "metadata": {"name": "cart", "namespace": "shop", "uid": "u"},
                "spec": {"nodeName": "n1", "serviceAccountName": "cart", "containers": []},
                "status": {"phase": phase, "podIP": "10.0.0.1"}
            }))
            .unwrap(),
        ))
    }

    #[test]
    fn a_certificate_is_counted_from_the_end_of_its_last_pod_to_its_own() {
        let index = SharedIndex::new(Index::new(Settings::default()));
        index.write().apply(pod("Running"));
        let (ledger, pods, now) = (Ledger::default(), index.pods(), SystemTime::UNIX_EPOCH);
        ledger.record("n1".into(), id("cart"), now + HOUR, now);
        assert_eq!(ledger.outliving(&*pods, now), 0);
        index.write().apply(pod("Succeeded"));
        assert_eq!(ledger.outliving(&*pods, now), 1);
        ledger.record("n1".into(), id("cart"), now + 2 * HOUR, now);
        assert_eq!(ledger.outliving(&*pods, now + HOUR), 1, "the renewed one counts, and once");
        assert_eq!(ledger.outliving(&*pods, now + 2 * HOUR), 0);
    }

    #[test]
    fn no_more_are_remembered_than_the_limit_and_those_that_end_last_are() {
        let (ledger, now) = (Ledger::default(), SystemTime::UNIX_EPOCH);
        for at in 0..=u32::try_from(CERTIFICATES_MAX).unwrap() {
            ledger.record(
                at.to_string().into(),
                id("cart"),
                now + HOUR + Duration::from_secs(at.into()),
                now,
            );
        }
        let issued = ledger.lock();
        assert_eq!(issued.len(), CERTIFICATES_MAX);
        assert!(!issued.contains_key(&(Arc::from("0"), id("cart"))));
    }
}
