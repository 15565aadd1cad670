//! The inbound connections that policy admitted, re-evaluated whenever policy changes.
//!
//! Invariant: a connection to a workload that is gone is evaluated by the last known description of it.

use std::{rc::Rc, sync::Arc};

use ambit_model::{Connection, Verdict, Workload, authorization::PolicySet};
use ambit_proxy::admitted::{self, AdmittedList};
use ambit_store::Snapshot;

/// All admitted connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Connections(Rc<AdmittedList<InboundConnection>>);

/// An admitted connection; leaves the list when dropped.
pub(crate) type Admitted = admitted::Admitted<InboundConnection>;

/// A connection to a workload of this node.
#[derive(Debug)]
pub(crate) struct InboundConnection {
    connection: Connection,
    workload: Arc<Workload>,
    /// The policies at the last evaluation.
    set: Arc<PolicySet>,
}

impl Connections {
    /// Evaluates a connection to `workload`; if it is allowed, re-evaluates it on every policy change until it ends.
    ///
    /// # Errors
    /// The verdict that denies it.
    pub(crate) fn admit(
        &self,
        snapshot: &Snapshot,
        workload: &Arc<Workload>,
        connection: Connection,
    ) -> Result<Admitted, Verdict> {
        let set = snapshot.policies_for(workload);
        let inbound = InboundConnection { connection, workload: workload.clone(), set };
        self.0.admit(inbound, |inbound| judge(&inbound.set, &inbound.connection))
    }

    /// Re-evaluates every connection whose policies changed, and cuts those that are no longer allowed.
    pub(crate) fn judge_again(&self, snapshot: &Snapshot) {
        self.0.evaluate_again(|inbound| inbound.judge_again(snapshot));
    }
}

impl InboundConnection {
    fn judge_again(&mut self, snapshot: &Snapshot) -> Result<(), Verdict> {
        if let Some(workload) = snapshot.workload_by_uid(&self.workload.uid) {
            self.workload = workload.clone();
        }
        let set = snapshot.policies_for(&self.workload);
        if Arc::ptr_eq(&set, &self.set) {
            return Ok(());
        }
        self.set = set;
        judge(&self.set, &self.connection)
    }
}

/// Evaluates and logs a denial; a dry-run policy only logs.
fn judge(set: &PolicySet, connection: &Connection) -> Result<(), Verdict> {
    if let Some(verdict) = set.rehearse(connection) {
        tracing::info!(
            source.ip = %connection.source_ip,
            destination.port = connection.destination_port,
            %verdict,
            "Policies in dry run would decide"
        );
    }
    let verdict = set.evaluate(connection);
    tracing::debug!(
        source.ip = %connection.source_ip,
        destination.ip = %connection.destination_ip,
        destination.port = connection.destination_port,
        %verdict,
        "Policy decided"
    );
    if verdict.is_allowed() { Ok(()) } else { Err(verdict) }
}

#[cfg(test)]
mod tests {
    use ambit_model::{Action, Clause, Match, NamespacedName, Policy, Rule, Scope};
    use ambit_store::{AddressUpdate, PolicyUpdate, Store};
    use futures::FutureExt;

    use super::*;

    fn workload(policies: &[&str]) -> Workload {
        Workload {
            uid: "Kubernetes//Pod/shop/cart".into(),
            name: "cart".into(),
            namespace: "shop".into(),
            trust_domain: "cluster.local".into(),
            service_account: "cart".into(),
            authorization_policies: policies.iter().map(|name| NamespacedName::new("shop", *name)).collect(),
            ..Workload::default()
        }
    }

    fn connection(port: u16) -> Connection {
        Connection {
            source: None,
            source_ip: [10, 0, 0, 1].into(),
            destination_ip: [10, 0, 0, 2].into(),
            destination_port: port,
        }
    }

    fn deny(name: &str, scope: Scope, port: u16) -> PolicyUpdate {
        let matches = vec![Match { destination_ports: vec![port], ..Match::default() }];
        PolicyUpdate::Readable(Policy {
            key: NamespacedName::new("shop", name),
            scope,
            action: Action::Deny,
            rules: vec![Rule { clauses: vec![Clause { matches }] }],
            dry_run: false,
        })
    }

    fn store() -> Store {
        let store = Store::new();
        store.apply_policies(vec![], &[]);
        store.apply_addresses(vec![AddressUpdate::Workload(workload(&[]))], &[]);
        store
    }

    #[test]
    fn a_new_policy_cuts_what_it_denies_and_nothing_else() {
        let (store, connections) = (store(), Connections::default());
        let cart = Arc::new(workload(&[]));
        let mut http = connections.admit(&store.load(), &cart, connection(80)).unwrap();
        let mut redis = connections.admit(&store.load(), &cart, connection(6379)).unwrap();
        store.apply_policies(vec![deny("no-redis", Scope::Namespace, 6379)], &[]);
        connections.judge_again(&store.load());
        assert_eq!(http.denied().now_or_never(), None);
        let by = NamespacedName::new("shop", "no-redis");
        assert_eq!(redis.denied().now_or_never(), Some(Verdict::DeniedBy(by)));
        drop((http, redis));
        assert!(connections.0.is_empty());
    }

    #[test]
    fn a_policy_newly_attached_to_the_workload_cuts() {
        let (store, connections) = (store(), Connections::default());
        store.apply_policies(vec![deny("strict", Scope::WorkloadSelector, 80)], &[]);
        let cart = Arc::new(workload(&[]));
        let mut http = connections.admit(&store.load(), &cart, connection(80)).unwrap();
        store.apply_addresses(vec![AddressUpdate::Workload(workload(&["strict"]))], &[]);
        connections.judge_again(&store.load());
        assert!(http.denied().now_or_never().is_some());
    }

    #[test]
    fn nothing_is_admitted_before_policies_were_received() {
        let (store, connections) = (Store::new(), Connections::default());
        let refused = connections.admit(&store.load(), &Arc::new(workload(&[])), connection(80));
        assert_eq!(refused.err(), Some(Verdict::PoliciesNotReceived));
    }
}
