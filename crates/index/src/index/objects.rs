//! Applies objects of the core API.

use std::{collections::BTreeSet, sync::Arc};

use ambit_model::{Health, NamespacedName, Policy};
use k8s_openapi::api::core::v1::Service as KubeService;

use super::{
    Index, PodEntry,
    endpoints::addresses,
    layer7::Subject,
    maps::{of_namespace, remove_from},
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
        self.note_own_label(&name, enrolls_itself(&facts), changes);
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
        // Before anything is published, so that the pod starts behind its waypoint.
        self.refresh_binding(&Subject::Pod(name.clone()), changes);
        changes.policy_status |= self.is_annotation_outdated(&name);
        self.move_pod(&name, was_at, is_at, changes);
        self.refresh_pod(&name, changes);
    }

    pub(super) fn forget_pod(&mut self, name: &NamespacedName, changes: &mut Changes) {
        self.refresh_waypoint_pod(name, None, changes);
        self.note_own_label(name, false, changes);
        let Some(old) = self.pods.remove(name) else { return };
        self.layer7.dirty.bindings.insert(Subject::Pod(name.clone()));
        if let Some(workload) = &old.workload {
            self.refresh_services_of(&workload.uid, workload.services.keys(), std::iter::empty());
        }
        self.pod_uids.remove(&old.facts.uid);
        if let Some(pods) = self.pods_by_node.get_mut(&old.facts.node) {
            pods.remove(name);
            if pods.is_empty() {
                self.pods_by_node.remove(&old.facts.node);
            }
        }
        self.move_pod(name, addresses(&old.facts), Vec::new(), changes);
        changes.workloads.extend(old.workload.map(|workload| workload.uid.clone()));
        changes.enrollments.extend(old.enrollment.map(|e| (e.node.clone(), e.uid.clone())));
    }

    /// Agents must know about a namespace as long as it contains pods with an enrollment label of
    /// their own.
    fn note_own_label(&mut self, name: &NamespacedName, enrolls_itself: bool, changes: &mut Changes) {
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
        if before != after {
            self.refresh_node_enrollment(changes);
        }
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

    /// Updates the index of which workloads serve which services.
    pub(super) fn refresh_services_of<'a>(
        &mut self,
        uid: &Arc<str>,
        old: impl Iterator<Item = &'a NamespacedName>,
        new: impl Iterator<Item = &'a NamespacedName>,
    ) {
        for key in old {
            remove_from(&mut self.layer7.workloads_by_service, key, uid);
            let service = self.services_by_key.get(key).cloned();
            self.layer7.dirty.bindings.extend(service.map(Subject::Service));
        }
        for key in new {
            self.layer7.workloads_by_service.entry(key.clone()).or_default().insert(uid.clone());
            let service = self.services_by_key.get(key).cloned();
            self.layer7.dirty.bindings.extend(service.map(Subject::Service));
        }
    }

    pub(super) fn set_service(
        &mut self,
        name: NamespacedName,
        service: Option<KubeService>,
        changes: &mut Changes,
    ) {
        let mut facts = service.as_ref().and_then(|service| ServiceFacts::read(service, &self.settings));
        if let Some(facts) = &mut facts {
            Arc::make_mut(&mut facts.model).waypoint = self.announced(&Subject::Service(name.clone()));
            facts.balance(self.distribution(&name.namespace));
        }
        // Another process may have changed the waypoint conditions in its status.
        changes.policy_status |= self.layer7.service(&name).is_some();
        match service {
            Some(service) => self.kube_services.insert(name.clone(), service),
            None => self.kube_services.remove(&name),
        };
        let old = self.services.get(&name).cloned();
        if old == facts {
            return;
        }
        if old.as_ref().map(|s| &s.model) != facts.as_ref().map(|s| &s.model) {
            changes.services.extend(old.iter().chain(&facts).map(|s| s.model.key()));
        }
        if let Some(old) = &old {
            self.services_by_key.remove(&old.model.key());
        }
        match facts {
            Some(facts) => {
                self.services_by_key.insert(facts.model.key(), name.clone());
                self.services.insert(name.clone(), facts);
            }
            None => {
                self.services.remove(&name);
            }
        }
        changes.policy_status = true;
        changes.route_status = true;
        self.layer7.touch_backend(&name);
        self.touch_providers();
        self.layer7.dirty.bindings.insert(Subject::Service(name.clone()));
        self.layer7.dirty.compiled.insert(name.clone());
        self.refresh_slices_of(&name, changes);
        self.refresh_namespace(&name.namespace, changes);
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
        let pods: Vec<_> = self.pods_by_node.get(&name).into_iter().flatten().cloned().collect();
        for pod in pods {
            self.refresh_pod(&pod, changes);
        }
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
        self.refresh_node_enrollment(changes);
        self.refresh_namespace(&name, changes);
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
