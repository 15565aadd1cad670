//! The index: objects in, model out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ambit_model::{Locality, NamespacedName, Policy, Workload};
use k8s_openapi::api::core::v1::Service as KubeService;

use crate::{
    changes::Changes,
    enrollment::{Enrollment, NodeEnrollment, is_enrolled_namespace},
    nodes::{DataplaneMode, dataplane_mode, locality},
    object::{Key, Kind, Object, name_of},
    pods::PodFacts,
    policies::{
        AuthorizationFacts, PeerFacts, RequestFacts, authorization, peer_authentication,
        request_authentication,
    },
    services::ServiceFacts,
    settings::Settings,
    slices::SliceFacts,
};

mod build;
mod read;

/// A pod and what follows from it.
#[derive(Debug)]
struct PodEntry {
    facts: PodFacts,
    workload: Option<Arc<Workload>>,
    enrollment: Option<Arc<Enrollment>>,
}

/// Who a pod is, for certificates and reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// Kubernetes uid.
    pub uid: Arc<str>,
    /// Pod namespace and name.
    pub name: NamespacedName,
    /// Service account.
    pub service_account: Arc<str>,
    /// Node it is bound to, empty while it is not.
    pub node: Arc<str>,
    /// Its containers have ended.
    pub terminated: bool,
}

/// The mesh model, folded from objects.
#[derive(Debug)]
pub struct Index {
    settings: Settings,
    pods: BTreeMap<NamespacedName, PodEntry>,
    pod_uids: HashMap<Arc<str>, NamespacedName>,
    pods_by_node: HashMap<Arc<str>, BTreeSet<NamespacedName>>,
    /// As read, so that settings can change under it.
    kube_services: BTreeMap<NamespacedName, KubeService>,
    services: BTreeMap<NamespacedName, ServiceFacts>,
    services_by_key: HashMap<NamespacedName, NamespacedName>,
    slices: BTreeMap<NamespacedName, SliceFacts>,
    slices_by_pod: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    slices_by_service: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    slice_workloads: HashMap<NamespacedName, Vec<Workload>>,
    other_workloads: BTreeMap<Arc<str>, Arc<Workload>>,
    nodes: BTreeMap<Arc<str>, Locality>,
    namespaces: BTreeMap<Arc<str>, DataplaneMode>,
    authorization: BTreeMap<NamespacedName, AuthorizationFacts>,
    peer: BTreeMap<NamespacedName, PeerFacts>,
    request: BTreeMap<NamespacedName, RequestFacts>,
    policies: BTreeMap<NamespacedName, Arc<Policy>>,
    /// Names of policies that PeerAuthentications became.
    derived: BTreeSet<NamespacedName>,
    node_enrollment: Arc<NodeEnrollment>,
}

impl Index {
    /// An index that has seen no object.
    pub fn new(settings: Settings) -> Self {
        let strict = Arc::new(peer_authentication::strict(&settings.system_namespace));
        Self {
            settings,
            pods: BTreeMap::new(),
            pod_uids: HashMap::new(),
            pods_by_node: HashMap::new(),
            kube_services: BTreeMap::new(),
            services: BTreeMap::new(),
            services_by_key: HashMap::new(),
            slices: BTreeMap::new(),
            slices_by_pod: HashMap::new(),
            slices_by_service: HashMap::new(),
            slice_workloads: HashMap::new(),
            other_workloads: BTreeMap::new(),
            nodes: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            authorization: BTreeMap::new(),
            peer: BTreeMap::new(),
            request: BTreeMap::new(),
            policies: BTreeMap::from([(strict.key.clone(), strict)]),
            derived: BTreeSet::new(),
            node_enrollment: Arc::default(),
        }
    }

    /// Folds an object in.
    pub fn apply(&mut self, object: Object) -> Changes {
        let mut changes = Changes::default();
        let name = object.key().name;
        match object {
            Object::Pod(pod) => self.set_pod(name, Some(PodFacts::read(&pod)), &mut changes),
            Object::Service(mut service) => {
                service.metadata.managed_fields = None;
                self.set_service(name, Some(*service), &mut changes);
            }
            Object::EndpointSlice(slice) => self.set_slice(name, SliceFacts::read(&slice), &mut changes),
            Object::Node(node) => self.set_node(name.name, Some(locality(&node)), &mut changes),
            Object::Namespace(metadata) => {
                self.set_namespace(name_of(&metadata).name, Some(dataplane_mode(&metadata)), &mut changes);
            }
            Object::AuthorizationPolicy(policy) => {
                let facts = authorization::read(&policy, &self.settings.system_namespace);
                self.set_authorization(name, Some(facts), &mut changes);
            }
            Object::PeerAuthentication(policy) => {
                self.set_peer(name, Some(peer_authentication::read(&policy)), &mut changes);
            }
            Object::RequestAuthentication(policy) => {
                let facts = request_authentication::read(&policy, &self.settings.system_namespace);
                self.set_request(name, Some(facts), &mut changes);
            }
        }
        changes
    }

    /// Takes an object out.
    pub fn delete(&mut self, key: &Key) -> Changes {
        let mut changes = Changes::default();
        let name = key.name.clone();
        match key.kind {
            Kind::Pod => self.set_pod(name, None, &mut changes),
            Kind::Service => self.set_service(name, None, &mut changes),
            Kind::EndpointSlice => self.set_slice(name, None, &mut changes),
            Kind::Node => self.set_node(name.name, None, &mut changes),
            Kind::Namespace => self.set_namespace(name.name, None, &mut changes),
            Kind::AuthorizationPolicy => self.set_authorization(name, None, &mut changes),
            Kind::PeerAuthentication => self.set_peer(name, None, &mut changes),
            Kind::RequestAuthentication => self.set_request(name, None, &mut changes),
        }
        changes
    }

    /// Takes out every object of a kind that a complete list did not name.
    pub fn retain(&mut self, kind: Kind, listed: &BTreeSet<NamespacedName>) -> Changes {
        let in_cluster = |names: Vec<&Arc<str>>| -> Vec<NamespacedName> {
            names.into_iter().map(|name| NamespacedName::new("", name.clone())).collect()
        };
        let known: Vec<NamespacedName> = match kind {
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Service => self.kube_services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
            Kind::Node => in_cluster(self.nodes.keys().collect()),
            Kind::Namespace => in_cluster(self.namespaces.keys().collect()),
            Kind::AuthorizationPolicy => self.authorization.keys().cloned().collect(),
            Kind::PeerAuthentication => self.peer.keys().cloned().collect(),
            Kind::RequestAuthentication => self.request.keys().cloned().collect(),
        };
        let mut changes = Changes::default();
        for name in known.into_iter().filter(|name| !listed.contains(name)) {
            changes.merge(self.delete(&Key { kind, name }));
        }
        changes
    }

    /// Takes over what the Mesh says.
    pub fn configure(&mut self, settings: Settings) -> Changes {
        let mut changes = Changes::default();
        if settings == self.settings {
            return changes;
        }
        let is_renamed = settings.cluster_domain != self.settings.cluster_domain;
        self.settings = settings;
        if is_renamed {
            let services: Vec<_> = self.kube_services.clone().into_iter().collect();
            for (name, service) in services {
                self.set_service(name, Some(service), &mut changes);
            }
        }
        self.refresh_all(&mut changes);
        changes
    }

    fn set_pod(&mut self, name: NamespacedName, facts: Option<PodFacts>, changes: &mut Changes) {
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
        self.pod_uids.insert(facts.uid.clone(), name.clone());
        if !facts.node.is_empty() {
            self.pods_by_node.entry(facts.node.clone()).or_default().insert(name.clone());
        }
        match self.pods.get_mut(&name) {
            Some(entry) => entry.facts = facts,
            None => {
                self.pods.insert(name.clone(), PodEntry { facts, workload: None, enrollment: None });
            }
        }
        self.refresh_pod(&name, changes);
    }

    fn forget_pod(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let Some(old) = self.pods.remove(name) else { return };
        self.pod_uids.remove(&old.facts.uid);
        if let Some(pods) = self.pods_by_node.get_mut(&old.facts.node) {
            pods.remove(name);
            if pods.is_empty() {
                self.pods_by_node.remove(&old.facts.node);
            }
        }
        changes.workloads.extend(old.workload.map(|workload| workload.uid.clone()));
        changes.enrollments.extend(old.enrollment.map(|e| (e.node.clone(), e.uid.clone())));
    }

    fn set_service(&mut self, name: NamespacedName, service: Option<KubeService>, changes: &mut Changes) {
        let facts = service.as_ref().and_then(|service| ServiceFacts::read(service, &self.settings));
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
        let slices: Vec<_> = self.slices_by_service.get(&name).into_iter().flatten().cloned().collect();
        for slice in slices {
            self.refresh_slice(&slice, changes);
        }
        self.refresh_namespace(&name.namespace, changes);
    }

    fn set_slice(&mut self, name: NamespacedName, facts: Option<SliceFacts>, changes: &mut Changes) {
        let old = self.slices.get(&name).cloned();
        if old == facts {
            return;
        }
        let pods: BTreeSet<NamespacedName> =
            old.iter().chain(&facts).flat_map(|slice| slice.pods.iter().cloned()).collect();
        if let Some(old) = &old {
            for pod in &old.pods {
                remove_from(&mut self.slices_by_pod, pod, &name);
            }
            remove_from(&mut self.slices_by_service, &old.service, &name);
        }
        match facts {
            Some(facts) => {
                for pod in &facts.pods {
                    self.slices_by_pod.entry(pod.clone()).or_default().insert(name.clone());
                }
                self.slices_by_service.entry(facts.service.clone()).or_default().insert(name.clone());
                self.slices.insert(name.clone(), facts);
            }
            None => {
                self.slices.remove(&name);
            }
        }
        self.refresh_slice(&name, changes);
        for pod in pods {
            self.refresh_pod(&pod, changes);
        }
    }

    fn set_node(&mut self, name: Arc<str>, locality: Option<Locality>, changes: &mut Changes) {
        if self.nodes.get(&name) == locality.as_ref() {
            return;
        }
        let is_known = match &locality {
            Some(locality) => self.nodes.insert(name.clone(), locality.clone()).is_some(),
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

    fn set_namespace(&mut self, name: Arc<str>, mode: Option<DataplaneMode>, changes: &mut Changes) {
        let old = match mode {
            Some(mode) => self.namespaces.insert(name.clone(), mode),
            None => self.namespaces.remove(&name),
        };
        if old == mode {
            return;
        }
        self.refresh_node_enrollment(changes);
        self.refresh_namespace(&name, changes);
    }

    fn set_authorization(
        &mut self,
        name: NamespacedName,
        facts: Option<AuthorizationFacts>,
        changes: &mut Changes,
    ) {
        let policy = facts.as_ref().and_then(|facts| facts.content.ztunnel().cloned());
        let old = match facts {
            Some(facts) => self.authorization.insert(name.clone(), facts),
            None => self.authorization.remove(&name),
        };
        changes.policy_status = true;
        self.publish(name.clone(), policy, changes);
        let reach = |facts: Option<&AuthorizationFacts>| {
            facts.map(|f| (f.selector.clone(), f.content.ztunnel().is_some()))
        };
        if reach(old.as_ref()) != reach(self.authorization.get(&name)) {
            self.refresh_reach_of(&name.namespace, changes);
        }
    }

    fn set_peer(&mut self, name: NamespacedName, facts: Option<PeerFacts>, changes: &mut Changes) {
        match facts {
            Some(facts) => self.peer.insert(name.clone(), facts),
            None => self.peer.remove(&name),
        };
        changes.policy_status = true;
        self.refresh_derived(changes);
        self.refresh_reach_of(&name.namespace, changes);
    }

    fn set_request(&mut self, name: NamespacedName, facts: Option<RequestFacts>, changes: &mut Changes) {
        match facts {
            Some(facts) => self.request.insert(name, facts),
            None => self.request.remove(&name),
        };
        changes.policy_status = true;
    }

    /// Policies of the system namespace reach every pod.
    fn refresh_reach_of(&mut self, namespace: &Arc<str>, changes: &mut Changes) {
        if *namespace == self.settings.system_namespace {
            self.refresh_pods(None, changes);
        } else {
            self.refresh_namespace(namespace, changes);
        }
    }

    fn refresh_node_enrollment(&mut self, changes: &mut Changes) {
        let enrolled =
            self.namespaces.iter().filter(|(name, mode)| is_enrolled_namespace(name, **mode, &self.settings));
        let enrollment = NodeEnrollment {
            enrolled_namespaces: enrolled.map(|(name, _)| name.clone()).collect(),
            decommission: self.settings.presence == crate::Presence::Leaving,
        };
        if *self.node_enrollment != enrollment {
            self.node_enrollment = Arc::new(enrollment);
            changes.nodes.extend(self.nodes.keys().cloned());
        }
    }

    fn publish(&mut self, name: NamespacedName, policy: Option<Arc<Policy>>, changes: &mut Changes) {
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

fn remove_from(
    map: &mut HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    key: &NamespacedName,
    value: &NamespacedName,
) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
