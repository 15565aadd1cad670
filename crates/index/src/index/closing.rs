//! Endpoints and pods that only waypoints may reach.
//!
//! Invariant: closing happens by a published policy that each of its pods references; the policy
//! admits every waypoint that clients may still be sent through.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ambit_model::{NamespacedName, Policy};

use super::{Index, maps::remove_from, subject::Subject};
use crate::{
    changes::Changes,
    services::ServiceFacts,
    waypoints::{Opening, deny, deny_pods},
};

impl Index {
    pub(super) fn refresh_closing(&mut self, subject: &Subject, changes: &mut Changes) {
        match subject {
            Subject::Service(name) => self.refresh_closed_service(name, changes),
            Subject::Pod(name) => self.refresh_closed_pod(name, changes),
        }
    }

    /// Services that share an endpoint with the subject, and those of its pods that are bound
    /// themselves.
    pub(super) fn sharing(&self, subject: &Subject) -> BTreeSet<Subject> {
        let Subject::Service(name) = subject else { return BTreeSet::new() };
        let Some(service) = self.services.get(name) else { return BTreeSet::new() };
        let uids = self.layer7.workloads_by_service.get(&service.model.key()).into_iter().flatten();
        let keys = uids.clone().filter_map(|uid| self.workload(uid)).flat_map(|w| w.services.keys());
        let services = keys.filter_map(|key| self.services_by_key.get(key)).cloned().map(Subject::Service);
        let pods = uids.filter_map(|uid| self.pod_of_workload(uid)).map(|pod| pod.facts.name.clone());
        let pods = pods.map(Subject::Pod).filter(|pod| self.layer7.bound.contains_key(pod));
        services.chain(pods).collect()
    }

    fn refresh_closed_service(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let policies = self.closing(name);
        let old = self.layer7.closed.remove(name).unwrap_or_default();
        let new: BTreeSet<_> = policies.iter().map(|policy| policy.key.clone()).collect();
        for gone in old.difference(&new) {
            self.publish(gone.clone(), None, changes);
        }
        for policy in policies {
            self.publish(policy.key.clone(), Some(Arc::new(policy)), changes);
        }
        let (was_closed, is_closed) = (!old.is_empty(), !new.is_empty());
        if is_closed {
            self.layer7.closed.insert(name.clone(), new);
        }
        if was_closed != is_closed {
            self.mark_endpoints_of(name);
        }
    }

    fn mark_endpoints_of(&mut self, name: &NamespacedName) {
        let Some(service) = self.services.get(name) else { return };
        let uids = self.layer7.workloads_by_service.get(&service.model.key()).into_iter().flatten();
        let pods = uids.filter_map(|uid| self.pod_of_workload(uid)).map(|pod| pod.facts.name.clone());
        let pods: Vec<_> = pods.collect();
        self.layer7.dirty.pods.extend(pods);
    }

    /// The policies that let only waypoints reach the endpoints of a service, except for ports that
    /// their owner leaves open. Waypoints of other services with the same endpoints are admitted
    /// too, or the services would block each other.
    fn closing(&self, name: &NamespacedName) -> Vec<Policy> {
        let Some((service, bound)) = self.services.get(name).zip(self.layer7.service(name)) else {
            return Vec::new();
        };
        let own = bound.stage.admitted(&bound.binding.goal);
        if own.is_empty() {
            return Vec::new();
        }
        let mut waypoints: BTreeSet<&NamespacedName> = own.into_iter().collect();
        let tally = self.tally(service);
        let others = tally.serves().filter_map(|other| self.services_by_key.get(other));
        let others = others.filter(|other| other.namespace == name.namespace);
        let others = others.filter_map(|other| self.layer7.service(other));
        waypoints.extend(others.flat_map(|other| other.stage.served_by()));
        let (ports, openings) = (self.closed_ports(service), self.openings(service));
        let variants = [None].into_iter().chain(openings.values().map(Some));
        let trust_domain = &self.settings.trust_domain;
        variants.filter_map(|opening| deny(name, &waypoints, &ports, opening, trust_domain)).collect()
    }

    /// The endpoint ports that serve the service.
    pub(super) fn closed_ports(&self, service: &ServiceFacts) -> BTreeSet<u16> {
        let numbers = service.model.ports.iter().map(|port| port.target_port).filter(|port| *port > 0);
        numbers.chain(self.tally(service).ports()).collect()
    }

    /// The ports that the owner of the endpoints leaves open, by PeerAuthentication.
    pub(super) fn openings(&self, service: &ServiceFacts) -> BTreeMap<NamespacedName, Opening> {
        self.tally(service).openings()
    }

    fn refresh_closed_pod(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let policy = self.closing_of_pod(name);
        let (old, new) = (self.layer7.closed_pods.remove(name), policy.as_ref().map(|p| p.key.clone()));
        if let Some(policy) = policy {
            let key = policy.key.clone();
            self.layer7.pods_by_policy.entry(key.clone()).or_default().insert(name.clone());
            self.layer7.closed_pods.insert(name.clone(), key.clone());
            self.publish(key, Some(Arc::new(policy)), changes);
        }
        if old == new {
            return;
        }
        if let Some(old) = old {
            remove_from(&mut self.layer7.pods_by_policy, &old, name);
            if !self.layer7.pods_by_policy.contains_key(&old) {
                self.publish(old, None, changes);
            }
        }
        self.layer7.dirty.pods.insert(name.clone());
    }

    /// The policy that lets only waypoints reach a pod: its own, and at their ports those of its
    /// services, which take precedence.
    fn closing_of_pod(&self, name: &NamespacedName) -> Option<Policy> {
        let bound = self.layer7.bound.get(&Subject::Pod(name.clone()))?;
        let mut waypoints: BTreeSet<_> = bound.stage.admitted(&bound.binding.goal).into_iter().collect();
        if waypoints.is_empty() {
            return None;
        }
        let pod = self.pods.get(name)?;
        let workload = pod.workload.as_ref();
        let keys = workload.into_iter().flat_map(|workload| workload.services.keys());
        let services = keys.filter_map(|key| self.services_by_key.get(key));
        let services = services.filter(|service| service.namespace == name.namespace);
        let services = services.filter_map(|service| self.layer7.service(service));
        waypoints.extend(services.flat_map(|service| service.stage.served_by()));
        let opening = self.opening(&pod.facts);
        Some(deny_pods(&name.namespace, &waypoints, opening.as_ref(), &self.settings.trust_domain))
    }
}
