//! What the index answers: values by name, and who is where. Reading changes nothing.

use std::sync::Arc;

use ambit_model::{NamespacedName, Policy, Service, Workload};

use super::{Index, PodEntry, PodIdentity};
use crate::{
    enrollment::{Enrollment, NodeEnrollment, Wanted},
    object::Kind,
    pods::PodFacts,
    policies::StatusPatch,
    settings::Settings,
};

impl Index {
    /// What the Mesh says.
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

    /// Every workload.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.pods.values().filter_map(|pod| pod.workload.as_ref()).chain(self.other_workloads.values())
    }

    /// A service by `namespace/hostname`.
    pub fn service(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        Some(&self.services.get(self.services_by_key.get(key)?)?.model)
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().map(|service| &service.model)
    }

    /// A policy by `namespace/name`.
    pub fn policy(&self, key: &NamespacedName) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// Every policy.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// Every node.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.keys()
    }

    /// Whether a node exists.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// What every node agent must know beside its pods.
    pub fn node_enrollment(&self) -> &Arc<NodeEnrollment> {
        &self.node_enrollment
    }

    /// The enrollment of a pod that is bound to a node.
    pub fn enrollment(&self, pod_uid: &str) -> Option<&Arc<Enrollment>> {
        self.pods.get(self.pod_uids.get(pod_uid)?)?.enrollment.as_ref()
    }

    /// Every enrollment.
    pub fn enrollments(&self) -> impl Iterator<Item = &Arc<Enrollment>> {
        self.pods.values().filter_map(|pod| pod.enrollment.as_ref())
    }

    /// Who a pod is.
    pub fn pod(&self, name: &NamespacedName) -> Option<PodIdentity> {
        self.pods.get(name).map(|pod| identity(&pod.facts))
    }

    /// Who a pod is, by Kubernetes uid.
    pub fn pod_by_uid(&self, uid: &str) -> Option<PodIdentity> {
        self.pod(self.pod_uids.get(uid)?)
    }

    /// The pods bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = PodIdentity> + '_ {
        let names = self.pods_by_node.get(node).into_iter().flatten();
        names.filter_map(|name| self.pod(name))
    }

    /// Pods in the mesh, and pods that are not where they should be.
    pub fn enrolled_and_pending(&self) -> (usize, usize) {
        self.enrollments().fold((0, 0), |(enrolled, pending), e| match (e.wanted, e.redirected) {
            (Wanted::L4, true) => (enrolled + 1, pending),
            (Wanted::L4, false) | (Wanted::Out, true) => (enrolled, pending + 1),
            (Wanted::Out, false) => (enrolled, pending),
        })
    }

    /// Users' policies whose status is not what it should be.
    pub fn status_patches(&self) -> Vec<StatusPatch> {
        let authorization =
            self.authorization.values().filter_map(|p| p.status_patch(Kind::AuthorizationPolicy, None));
        let peer = self.peer.values().filter_map(|p| p.status_patch(Kind::PeerAuthentication, None));
        let request = self.request.values().filter_map(|p| p.status_patch(Kind::RequestAuthentication, None));
        authorization.chain(peer).chain(request).collect()
    }

    fn pod_of_workload(&self, uid: &str) -> Option<&PodEntry> {
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
