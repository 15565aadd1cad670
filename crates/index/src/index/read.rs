//! Queries of the index. Reading changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ambit_model::{BoundService, NamespacedName, Policy, Service, Workload};

use super::{Index, PodEntry, PodIdentity, subject::Subject};
use crate::{
    enrollment::{Enrollment, NodeEnrollment, Wanted, is_enrolled_namespace},
    gateways::GatewayFacts,
    pods::PodFacts,
    policies::request_authentication::WantedKeySet,
    settings::Settings,
    waypoints::{Waypoint, binding::WaypointLabel},
};

impl Index {
    /// The settings of the Mesh.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A workload by uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        match self.pod_of_workload(uid) {
            Some(pod) => pod.workload.as_ref(),
            None => self.other_workloads.get(uid),
        }
    }

    /// All workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.pods.values().filter_map(|pod| pod.workload.as_ref()).chain(self.other_workloads.values())
    }

    /// A service by `namespace/hostname`.
    pub fn service(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        Some(&self.services.get(self.services_by_key.get(key)?)?.model)
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().map(|service| &service.model)
    }

    /// A policy by `namespace/name`.
    pub fn policy(&self, key: &NamespacedName) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// All policies.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.keys()
    }

    /// Whether a node exists.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// The uid of the Node object, which changes when the node registers again.
    pub fn node_uid(&self, name: &str) -> Option<Arc<str>> {
        self.nodes.get(name).map(|node| node.uid.clone())
    }

    /// What every node agent must know in addition to its pods.
    pub fn node_enrollment(&self) -> &Arc<NodeEnrollment> {
        &self.node_enrollment
    }

    /// The enrollment of a pod that is bound to a node.
    pub fn enrollment(&self, pod_uid: &str) -> Option<&Arc<Enrollment>> {
        self.pods.get(self.pod_uids.get(pod_uid)?)?.enrollment.as_ref()
    }

    /// The enrollments of the pods of a node.
    pub fn enrollments_on(&self, node: &str) -> impl Iterator<Item = &Arc<Enrollment>> {
        let names = self.pods_by_node.get(node).into_iter().flatten();
        names.filter_map(|name| self.pods.get(name)?.enrollment.as_ref())
    }

    /// All enrollments.
    pub fn enrollments(&self) -> impl Iterator<Item = &Arc<Enrollment>> {
        self.pods.values().filter_map(|pod| pod.enrollment.as_ref())
    }

    /// The identity of a pod.
    pub fn pod(&self, name: &NamespacedName) -> Option<PodIdentity> {
        self.pods.get(name).map(|pod| identity(&pod.facts))
    }

    /// The identity of a pod, by Kubernetes uid.
    pub fn pod_by_uid(&self, uid: &str) -> Option<PodIdentity> {
        self.pod(self.pod_uids.get(uid)?)
    }

    /// The pods bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = PodIdentity> + '_ {
        let names = self.pods_by_node.get(node).into_iter().flatten();
        names.filter_map(|name| self.pod(name))
    }

    /// Number of pods in the mesh, and of pods that are not in their wanted state.
    pub fn enrolled_and_pending(&self) -> (usize, usize) {
        self.enrollments().fold((0, 0), |(enrolled, pending), e| match (e.wanted, e.redirected) {
            (Wanted::L4, true) => (enrolled + 1, pending),
            (Wanted::L4, false) | (Wanted::Out, true) => (enrolled, pending + 1),
            (Wanted::Out, false) => (enrolled, pending),
        })
    }

    /// The compiled result of a service for a waypoint.
    pub fn bound_service(
        &self,
        waypoint: &NamespacedName,
        key: &NamespacedName,
    ) -> Option<&Arc<BoundService>> {
        self.layer7.compiled.get(&(waypoint.clone(), key.clone()))
    }

    /// All compiled results of a waypoint.
    pub fn bound_services_of<'a>(
        &'a self,
        waypoint: &'a NamespacedName,
    ) -> impl Iterator<Item = &'a Arc<BoundService>> {
        let first = (waypoint.clone(), NamespacedName::new("", ""));
        let own = self.layer7.compiled.range(first..).take_while(move |((of, _), _)| of == waypoint);
        own.map(|(_, bound)| bound)
    }

    /// A waypoint by name.
    pub fn waypoint(&self, name: &NamespacedName) -> Option<Waypoint> {
        self.layer7.waypoint(name).map(|gateway| self.describe(gateway))
    }

    /// All waypoints.
    pub fn waypoints(&self) -> impl Iterator<Item = Waypoint> {
        self.layer7.waypoints().map(|gateway| self.describe(gateway))
    }

    /// The waypoint whose pods use this service account; it has the name of the Gateway.
    pub fn waypoint_of_account(&self, namespace: &str, service_account: &str) -> Option<NamespacedName> {
        let name = NamespacedName::new(namespace, service_account);
        self.layer7.waypoint(&name).map(|gateway| gateway.name.clone())
    }

    /// The waypoint that a pod belongs to, according to its labels, account and Deployment.
    pub fn waypoint_of_pod(&self, name: &NamespacedName) -> Option<&NamespacedName> {
        let waypoint = self.pods.get(name)?.facts.waypoint.as_ref()?;
        self.layer7.waypoint(waypoint).map(|gateway| &gateway.name)
    }

    /// Dedicated waypoints that enrolled namespaces request and that do not exist.
    pub fn missing_waypoints(&self) -> BTreeSet<NamespacedName> {
        let enrolled = self
            .namespaces
            .iter()
            .filter(|(name, facts)| is_enrolled_namespace(name, facts.mode, &self.settings));
        let missing = enrolled.filter_map(|(name, facts)| match &facts.waypoint_label {
            WaypointLabel::Waypoint(waypoint) if waypoint.namespace == *name => Some(waypoint.clone()),
            WaypointLabel::Waypoint(_) | WaypointLabel::None | WaypointLabel::Unset => None,
        });
        missing.filter(|waypoint| !self.layer7.gateways.contains_key(waypoint)).collect()
    }

    /// The URIs of key sets to fetch, with the namespaces that need them and the timeout.
    pub fn key_set_uris(&self) -> BTreeMap<Arc<str>, WantedKeySet> {
        let mut wanted: BTreeMap<_, WantedKeySet> = BTreeMap::new();
        for policy in self.request.values() {
            let content = policy.content.as_ref().and_then(|attachment| attachment.content.as_ref().ok());
            for (uri, timeout) in content.into_iter().flat_map(|providers| providers.uris()) {
                let wanted = wanted.entry(uri.clone()).or_default();
                wanted.namespaces.insert(policy.name.namespace.clone());
                wanted.timeout = wanted.timeout.max(timeout);
            }
        }
        wanted
    }

    fn describe(&self, gateway: &GatewayFacts) -> Waypoint {
        let known = self.bound_services_of(&gateway.name).count();
        let subjects = self.layer7.bound_by_waypoint.get(&gateway.name).into_iter().flatten();
        let routes = subjects.filter_map(|subject| match subject {
            Subject::Service(name) => self.layer7.routes_by_parent.get(name),
            Subject::Pod(_) => None,
        });
        Waypoint {
            name: gateway.name.clone(),
            class: gateway.class.clone(),
            serves: self.layer7.serves(gateway),
            has_been_ready: gateway.has_been_ready,
            ready_pods: self.ready_pods(&gateway.name),
            bound: known,
            routes: routes.flatten().collect::<BTreeSet<_>>().len(),
        }
    }

    pub(super) fn pod_of_workload(&self, uid: &str) -> Option<&PodEntry> {
        let path = uid.strip_prefix(&*self.settings.cluster_id)?.strip_prefix("//Pod/")?;
        let (namespace, name) = path.split_once('/')?;
        self.pods.get(&NamespacedName::new(namespace, name))
    }
}

fn identity(facts: &PodFacts) -> PodIdentity {
    PodIdentity {
        uid: facts.uid.clone(),
        name: facts.name.clone(),
        service_account: facts.service_account.clone(),
        node: facts.node.clone(),
        terminated: facts.terminated,
    }
}
