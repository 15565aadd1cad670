//! The inbound connections that policy admitted, judged again whenever policy changes.
//!
//! Invariant: judging and registering is one step without a pause, and whoever changes policy publishes before it
//! tells; so no connection that the present policy denies stays open.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    rc::Rc,
    sync::Arc,
};

use ambit_model::{Connection, Verdict, Workload, authorization::PolicySet};
use ambit_store::Snapshot;
use tokio::sync::oneshot;

/// All admitted connections of one worker.
#[derive(Default)]
pub struct Connections {
    entries: RefCell<HashMap<u64, Entry>>,
    next: Cell<u64>,
}

struct Entry {
    connection: Connection,
    workload: Arc<Workload>,
    /// The policies that admitted it last.
    set: Arc<PolicySet>,
    cut: oneshot::Sender<Verdict>,
}

/// An admitted connection; leaves the list when dropped.
pub struct Admitted {
    connections: Rc<Connections>,
    id: u64,
    denied: oneshot::Receiver<Verdict>,
}

impl Connections {
    /// Judges a connection to `workload` and, when it may proceed, keeps an eye on it.
    ///
    /// # Errors
    /// The verdict that denies it.
    pub fn admit(
        self: &Rc<Self>,
        snapshot: &Snapshot,
        workload: &Arc<Workload>,
        connection: Connection,
    ) -> Result<Admitted, Verdict> {
        let set = snapshot.policies_for(workload);
        judge(&set, &connection)?;
        let (cut, denied) = oneshot::channel();
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        let entry = Entry { connection, workload: workload.clone(), set, cut };
        self.entries.borrow_mut().insert(id, entry);
        Ok(Admitted { connections: self.clone(), id, denied })
    }

    /// Judges every connection whose policies changed, and cuts those that are no longer allowed.
    pub fn judge_again(&self, snapshot: &Snapshot) {
        let mut entries = self.entries.borrow_mut();
        let denied: Vec<(u64, Verdict)> =
            entries.iter_mut().filter_map(|(id, entry)| Some((*id, entry.judge_again(snapshot)?))).collect();
        for (id, verdict) in denied {
            if let Some(entry) = entries.remove(&id) {
                // The connection may be ending by itself this very moment.
                let _ = entry.cut.send(verdict);
            }
        }
    }

    /// Connections admitted now.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    /// The verdict, when it denies.
    fn judge_again(&mut self, snapshot: &Snapshot) -> Option<Verdict> {
        // A workload that is gone is judged by what was last known about it.
        if let Some(workload) = snapshot.workload_by_uid(&self.workload.uid) {
            self.workload = workload.clone();
        }
        let set = snapshot.policies_for(&self.workload);
        if Arc::ptr_eq(&set, &self.set) {
            return None;
        }
        self.set = set;
        judge(&self.set, &self.connection).err()
    }
}

/// Judges and says so in the log; a policy in dry run is only heard.
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

impl Admitted {
    /// Returns once policy denies the connection. Cancel safe.
    pub async fn denied(&mut self) -> Verdict {
        match (&mut self.denied).await {
            Ok(verdict) => verdict,
            // The sender is dropped only together with this connection's entry.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.entries.borrow_mut().remove(&self.id);
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("admitted", &self.len()).finish()
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("id", &self.id).finish_non_exhaustive()
    }
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
        let (store, connections) = (store(), Rc::new(Connections::default()));
        let cart = Arc::new(workload(&[]));
        let mut http = connections.admit(&store.load(), &cart, connection(80)).unwrap();
        let mut redis = connections.admit(&store.load(), &cart, connection(6379)).unwrap();
        store.apply_policies(vec![deny("no-redis", Scope::Namespace, 6379)], &[]);
        connections.judge_again(&store.load());
        assert_eq!(http.denied().now_or_never(), None);
        let by = NamespacedName::new("shop", "no-redis");
        assert_eq!(redis.denied().now_or_never(), Some(Verdict::DeniedBy(by)));
        drop((http, redis));
        assert!(connections.is_empty());
    }

    #[test]
    fn a_policy_newly_attached_to_the_workload_cuts() {
        let (store, connections) = (store(), Rc::new(Connections::default()));
        store.apply_policies(vec![deny("strict", Scope::WorkloadSelector, 80)], &[]);
        let cart = Arc::new(workload(&[]));
        let mut http = connections.admit(&store.load(), &cart, connection(80)).unwrap();
        store.apply_addresses(vec![AddressUpdate::Workload(workload(&["strict"]))], &[]);
        connections.judge_again(&store.load());
        assert!(http.denied().now_or_never().is_some());
    }

    #[test]
    fn nothing_is_admitted_before_policies_were_received() {
        let (store, connections) = (Store::new(), Rc::new(Connections::default()));
        let refused = connections.admit(&store.load(), &Arc::new(workload(&[])), connection(80));
        assert_eq!(refused.err(), Some(Verdict::PoliciesNotReceived));
    }
}
