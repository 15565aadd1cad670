//! Applies objects of the core API.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::{Health, NamespacedName, Policy};
use k8s_openapi::api::core::v1::Service as KubeService;

use super::{
    Index, PodEntry,
    endpoints::addresses,
    maps::{of_namespace, remove_from},
    subject::Subject,
};
use crate::{
    changes::Changes,
    enrollment::{NodeEnrollment, enrolls_itself, is_enrolled_namespace, takes_pods_of},
    nodes::{NamespaceFacts, NodeFacts},
    pods::PodFacts,
    services::{Distribution, ServiceFacts},
};

impl Index {
    pub(super) fn set_pod(&mut self, name: NamespacedName, facts: Option<PodFacts>, changes: &mut Changes) {
        let is_same_pod = match (self.pods.get(&name), &facts) {
            (Some(old), Some(new)) => old.facts.uid == new.uid && old.facts.node == new.node,
            (_, _) => false,
        };
        if !is_same_pod {
            self.forget_pod(&name, changes);
        }
        let Some(facts) = facts else { return };
        if self.pods.get(&name).is_some_and(|old| old.facts == facts) {
            return;
        }
        self.refresh_waypoint_pod(&name, Some(&facts), changes);
        self.note_own_label(&name, enrolls_itself(&facts));
        let labels = self.pods.get(&name).map(|old| &old.facts.labels);
        self.labelled.relabel(&name, labels, Some(&facts.labels));
        self.pod_uids.insert(facts.uid.clone(), name.clone());
        if !facts.node.is_empty() {
            self.pods_by_node.entry(facts.node.clone()).or_default().insert(name.clone());
        }
        let is_at = addresses(&facts);
        let mut was_at = Vec::new();
        match self.pods.get_mut(&name) {
            Some(entry) => was_at = addresses(&std::mem::replace(&mut entry.facts, facts)),
            None => {
                self.pods.insert(name.clone(), PodEntry { facts, workload: None, enrollment: None });
            }
        }
        self.move_pod(&name, was_at, is_at);
        // A pod that took the name of another has no annotation yet, and one that was written over needs it again.
        self.layer7.annotate.remove(&name);
        self.layer7.dirty.bindings.insert(Subject::Pod(name.clone()));
        self.layer7.dirty.pods.insert(name);
    }

    pub(super) fn forget_pod(&mut self, name: &NamespacedName, changes: &mut Changes) {
        self.refresh_waypoint_pod(name, None, changes);
        self.note_own_label(name, false);
        let Some(old) = self.pods.remove(name) else { return };
        self.labelled.relabel(name, Some(&old.facts.labels), None);
        self.layer7.dirty.bindings.insert(Subject::Pod(name.clone()));
        self.note_endpoint(old.workload.as_ref(), None);
        self.pod_uids.remove(&old.facts.uid);
        if let Some(pods) = self.pods_by_node.get_mut(&old.facts.node) {
            pods.remove(name);
            if pods.is_empty() {
                self.pods_by_node.remove(&old.facts.node);
            }
        }
        self.move_pod(name, addresses(&old.facts), Vec::new());
        changes.workloads.extend(old.workload.map(|workload| workload.uid.clone()));
        changes.enrollments.extend(old.enrollment.map(|e| (e.node.clone(), e.uid.clone())));
    }

    /// Agents must know about a namespace as long as it contains pods with an enrollment label of
    /// their own.
    fn note_own_label(&mut self, name: &NamespacedName, enrolls_itself: bool) {
        let pods = self.self_enrolled.entry(name.namespace.clone()).or_default();
        let before = pods.is_empty();
        if enrolls_itself {
            pods.insert(name.clone());
        } else {
            pods.remove(name);
        }
        let after = pods.is_empty();
        if after {
            self.self_enrolled.remove(&name.namespace);
        }
        self.layer7.dirty.node_enrollment |= before != after;
    }

    /// The readiness of a waypoint's pod matters to the services behind the waypoint.
    fn refresh_waypoint_pod(
        &mut self,
        name: &NamespacedName,
        facts: Option<&PodFacts>,
        changes: &mut Changes,
    ) {
        let said = |facts: &PodFacts| {
            let is_ready = facts.is_endpoint() && facts.health == Health::Healthy;
            facts.waypoint.clone().map(|waypoint| (waypoint, is_ready))
        };
        let old = self.pods.get(name).and_then(|pod| said(&pod.facts));
        let new = facts.and_then(said);
        if old == new {
            return;
        }
        if let Some((waypoint, _)) = &old {
            remove_from(&mut self.layer7.pods_by_waypoint, waypoint, name);
        }
        if let Some((waypoint, _)) = &new {
            self.layer7.pods_by_waypoint.entry(waypoint.clone()).or_default().insert(name.clone());
        }
        for (waypoint, _) in old.into_iter().chain(new) {
            self.layer7.touch_waypoint(&waypoint);
            changes.waypoints.insert(waypoint);
        }
    }

    pub(super) fn set_service(
        &mut self,
        name: NamespacedName,
        mut service: Option<KubeService>,
        changes: &mut Changes,
    ) {
        if let Some(service) = &mut service {
            service.metadata.managed_fields = None;
        }
        if self.kube_services.get(&name) == service.as_ref() {
            return;
        }
        // Another process may have changed the waypoint conditions in its status.
        changes.policy_status |= self.layer7.service(&name).is_some();
        match service {
            Some(service) => self.kube_services.insert(name.clone(), service),
            None => self.kube_services.remove(&name),
        };
        self.reread_service(name, changes);
    }

    /// Parses the stored Service with the current settings.
    pub(super) fn reread_service(&mut self, name: NamespacedName, changes: &mut Changes) {
        let mut facts =
            self.kube_services.get(&name).and_then(|service| ServiceFacts::read(service, &self.settings));
        if let Some(facts) = &mut facts {
            Arc::make_mut(&mut facts.model).waypoint = self.announced(&Subject::Service(name.clone()));
            facts.balance(self.distribution(&name.namespace));
        }
        let old = self.services.remove(&name);
        if old == facts {
            self.services.extend(old.map(|old| (name, old)));
            return;
        }
        if old.as_ref().map(|s| &s.model) != facts.as_ref().map(|s| &s.model) {
            changes.services.extend(old.iter().chain(&facts).map(|s| s.model.key()));
        }
        let selector = |facts: &Option<ServiceFacts>| facts.as_ref().map(|facts| facts.selector.clone());
        let (before, now) = (selector(&old), selector(&facts));
        self.selecting.services.reselect(&name, before.as_ref(), now.as_ref());
        let leads = |facts: &Option<ServiceFacts>| {
            facts.as_ref().map(|s| (s.model.key(), s.ports.clone(), s.selector.clone()))
        };
        if leads(&old) != leads(&facts) {
            for selector in [&before, &now].into_iter().flatten() {
                self.layer7.dirty.pods.extend(self.labelled.selected(&name.namespace, selector));
            }
        }
        if let Some(old) = &old {
            self.services_by_key.remove(&old.model.key());
            if facts.as_ref().is_none_or(|facts| facts.model.key() != old.model.key()) {
                self.layer7.tallies.remove(&name);
            }
        }
        if let Some(facts) = facts {
            self.services_by_key.insert(facts.model.key(), name.clone());
            self.services.insert(name.clone(), facts);
        }
        changes.policy_status = true;
        changes.route_status = true;
        self.layer7.touch_backend(&name);
        self.touch_providers();
        self.layer7.dirty.bindings.insert(Subject::Service(name.clone()));
        self.mark_slices_of(&name);
        self.layer7.dirty.compiled.insert(name);
    }

    pub(super) fn set_node(&mut self, name: Arc<str>, facts: Option<NodeFacts>, changes: &mut Changes) {
        if self.nodes.get(&name) == facts.as_ref() {
            return;
        }
        let is_known = match facts {
            Some(facts) => self.nodes.insert(name.clone(), facts).is_some(),
            None => {
                self.nodes.remove(&name);
                false
            }
        };
        if !is_known {
            changes.nodes.insert(name.clone());
        }
        let pods = self.pods_by_node.get(&name).into_iter().flatten();
        self.layer7.dirty.pods.extend(pods.cloned());
    }

    pub(super) fn set_namespace(
        &mut self,
        name: Arc<str>,
        facts: Option<NamespaceFacts>,
        changes: &mut Changes,
    ) {
        let old = match facts.clone() {
            Some(facts) => self.namespaces.insert(name.clone(), facts),
            None => self.namespaces.remove(&name),
        };
        if old == facts {
            return;
        }
        let services = of_namespace(&self.services, &name).map(|(name, _)| Subject::Service(name.clone()));
        let pods = of_namespace(&self.pods, &name).map(|(name, _)| Subject::Pod(name.clone()));
        self.layer7.dirty.bindings.extend(services.chain(pods));
        self.balance_services_of(&name, changes);
        if old.map(|old| old.mode) == facts.map(|facts| facts.mode) {
            return;
        }
        self.layer7.dirty.node_enrollment = true;
        self.mark_pods_of(&name);
    }

    fn distribution(&self, namespace: &str) -> Option<Distribution> {
        self.namespaces.get(namespace).and_then(|facts| facts.distribution)
    }

    /// Updates Services that inherit their load balancing from the namespace.
    fn balance_services_of(&mut self, namespace: &Arc<str>, changes: &mut Changes) {
        let distribution = self.distribution(namespace);
        let names: Vec<_> = of_namespace(&self.services, namespace).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(service) = self.services.get_mut(&name)
                && service.balance(distribution)
            {
                changes.services.insert(service.model.key());
            }
        }
    }

    pub(super) fn refresh_node_enrollment(&mut self, changes: &mut Changes) {
        let enrolled = self
            .namespaces
            .iter()
            .filter(|(name, facts)| is_enrolled_namespace(name, facts.mode, &self.settings));
        let enrolled: BTreeSet<Arc<str>> = enrolled.map(|(name, _)| name.clone()).collect();
        let partly = self.self_enrolled.keys();
        let partly = partly.filter(|name| takes_pods_of(name, &self.settings) && !enrolled.contains(*name));
        let enrollment = NodeEnrollment {
            partly_enrolled_namespaces: partly.cloned().collect(),
            enrolled_namespaces: enrolled,
            decommission: self.settings.presence == crate::Presence::Leaving,
        };
        if *self.node_enrollment != enrollment {
            self.node_enrollment = Arc::new(enrollment);
            changes.nodes.extend(self.nodes.keys().cloned());
        }
    }

    pub(super) fn publish(
        &mut self,
        name: NamespacedName,
        policy: Option<Arc<Policy>>,
        changes: &mut Changes,
    ) {
        if self.policies.get(&name) == policy.as_ref() {
            return;
        }
        match policy {
            Some(policy) => self.policies.insert(name.clone(), policy),
            None => self.policies.remove(&name),
        };
        changes.policies.insert(name);
    }
}
