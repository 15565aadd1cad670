//! The index: folds Kubernetes objects into the model.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ambit_api::{AuthorizationPolicy, RequestAuthentication};
use ambit_model::{NamespacedName, Policy, Workload};
use k8s_openapi::api::core::v1::Service as KubeService;

use self::{known_slices::Slices, layer7::Layer7};
use crate::{
    changes::Changes,
    enrollment::{Enrollment, NodeEnrollment},
    gateways::{ClassFacts, GatewayFacts},
    key::{Key, Kind},
    nodes::{NamespaceFacts, NodeFacts},
    object::Object,
    pods::PodFacts,
    policies::{AuthorizationFacts, PeerFacts, RequestFacts, peer_authentication},
    routes::{self, RouteKey, RouteKind},
    selector::{Labelled, Selecting},
    services::ServiceFacts,
    settings::Settings,
    slices::SliceFacts,
    traffic,
};

mod around;
mod bind;
mod build;
mod closing;
mod compile;
mod count;
mod dirty;
mod endpoints;
mod follow;
mod gateway_api;
mod known;
mod known_slices;
mod layer7;
mod maps;
mod objects;
mod policies;
mod read;
mod status;
mod subject;
mod tally;
mod way;
mod waypoint_pods;

/// A pod and the values derived from it.
#[derive(Debug)]
struct PodEntry {
    facts: PodFacts,
    workload: Option<Arc<Workload>>,
    enrollment: Option<Arc<Enrollment>>,
}

/// The selectors of objects that select pods.
#[derive(Debug, Default)]
struct Selectors {
    services: Selecting,
    /// Of AuthorizationPolicies that ztunnels enforce.
    authorization: Selecting,
    peer: Selecting,
}

/// The identity of a pod, for certificates and reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// Kubernetes uid.
    pub uid: Arc<str>,
    /// Pod namespace and name.
    pub name: NamespacedName,
    /// Service account, empty for a pod without an identity.
    pub service_account: Arc<str>,
    /// Node that it is bound to; empty before scheduling.
    pub node: Arc<str>,
    /// The pod's containers have terminated.
    pub terminated: bool,
}

/// The mesh model, derived from objects.
#[derive(Debug)]
pub struct Index {
    settings: Settings,
    pods: BTreeMap<NamespacedName, PodEntry>,
    pod_uids: HashMap<Arc<str>, NamespacedName>,
    pods_by_node: HashMap<Arc<str>, BTreeSet<NamespacedName>>,
    /// Pods enrolled by their own label, by namespace.
    self_enrolled: BTreeMap<Arc<str>, BTreeSet<NamespacedName>>,
    /// The original objects, because settings that affect their conversion may change.
    kube_services: BTreeMap<NamespacedName, KubeService>,
    services: BTreeMap<NamespacedName, ServiceFacts>,
    services_by_key: HashMap<NamespacedName, NamespacedName>,
    slices: Slices,
    other_workloads: BTreeMap<Arc<str>, Arc<Workload>>,
    nodes: BTreeMap<Arc<str>, NodeFacts>,
    namespaces: BTreeMap<Arc<str>, NamespaceFacts>,
    /// The original objects, because the root namespaces may change.
    kube_authorization: BTreeMap<NamespacedName, Box<AuthorizationPolicy>>,
    kube_request: BTreeMap<NamespacedName, Box<RequestAuthentication>>,
    authorization: BTreeMap<NamespacedName, AuthorizationFacts>,
    peer: BTreeMap<NamespacedName, PeerFacts>,
    request: BTreeMap<NamespacedName, RequestFacts>,
    /// PeerAuthentications without selector, by namespace.
    whole_peers: HashMap<Arc<str>, BTreeSet<NamespacedName>>,
    /// Pods by their labels.
    labelled: Labelled,
    selecting: Selectors,
    policies: BTreeMap<NamespacedName, Arc<Policy>>,
    /// Names of the policies derived from PeerAuthentications.
    derived: BTreeSet<NamespacedName>,
    node_enrollment: Arc<NodeEnrollment>,
    /// Waypoints, and what is published to them.
    layer7: Layer7,
}

impl Index {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        let strict = Arc::new(peer_authentication::strict(&settings.system_namespace));
        Self {
            settings,
            pods: BTreeMap::new(),
            pod_uids: HashMap::new(),
            pods_by_node: HashMap::new(),
            self_enrolled: BTreeMap::new(),
            kube_services: BTreeMap::new(),
            services: BTreeMap::new(),
            services_by_key: HashMap::new(),
            slices: Slices::default(),
            other_workloads: BTreeMap::new(),
            nodes: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            kube_authorization: BTreeMap::new(),
            kube_request: BTreeMap::new(),
            authorization: BTreeMap::new(),
            peer: BTreeMap::new(),
            request: BTreeMap::new(),
            whole_peers: HashMap::new(),
            labelled: Labelled::default(),
            selecting: Selectors::default(),
            policies: BTreeMap::from([(strict.key.clone(), strict)]),
            derived: BTreeSet::new(),
            node_enrollment: Arc::default(),
            layer7: Layer7::default(),
        }
    }

    /// Adds or updates an object.
    pub fn apply(&mut self, object: Object) -> Changes {
        let mut changes = Changes::default();
        self.set(object, &mut changes);
        self.follow(&mut changes);
        changes
    }

    /// Removes an object.
    pub fn delete(&mut self, key: &Key) -> Changes {
        let mut changes = Changes::default();
        self.unset(key, &mut changes);
        self.follow(&mut changes);
        changes
    }

    /// Removes all objects of a kind that are missing in a complete list.
    pub fn retain(&mut self, kind: Kind, listed: &BTreeSet<NamespacedName>) -> Changes {
        let mut changes = Changes::default();
        for name in self.known(kind).into_iter().filter(|name| !listed.contains(name)) {
            self.unset(&Key { kind, name }, &mut changes);
        }
        self.follow(&mut changes);
        changes
    }

    /// Stores an object and marks what depends on it.
    fn set(&mut self, object: Object, changes: &mut Changes) {
        let name = object.key().name;
        match object {
            Object::Pod(pod) => self.set_pod(name, Some(PodFacts::read(&pod)), changes),
            Object::Service(service) => self.set_service(name, Some(*service), changes),
            Object::EndpointSlice(slice) => self.set_slice(name, SliceFacts::read(&slice)),
            Object::Node(node) => self.set_node(name.name, Some(NodeFacts::read(&node)), changes),
            Object::Namespace(metadata) => {
                self.set_namespace(name.name, Some(NamespaceFacts::read(&metadata)), changes);
            }
            Object::AuthorizationPolicy(policy) => {
                self.set_authorization(name, Some(policy), changes);
            }
            Object::PeerAuthentication(policy) => {
                self.set_peer(name, Some(peer_authentication::read(&policy)), changes);
            }
            Object::RequestAuthentication(policy) => {
                self.set_request(name, Some(policy), changes);
            }
            Object::Gateway(gateway) => self.set_gateway(name, GatewayFacts::read(&gateway), changes),
            Object::GatewayClass(class) => {
                self.set_class(name.name, Some(ClassFacts::read(&class)), changes);
            }
            Object::HttpRoute(route) => self.set_route(routes::http::read(&route), changes),
            Object::GrpcRoute(route) => self.set_route(routes::grpc::read(&route), changes),
            Object::TcpRoute(route) => self.set_route(routes::stream::read_tcp(&route), changes),
            Object::TlsRoute(route) => self.set_route(routes::stream::read_tls(&route), changes),
            Object::ReferenceGrant(grant) => self.set_grant(name, Some(grant.spec), changes),
            Object::Caller(caller) => self.set_caller(&caller.key.clone(), Some(*caller)),
            Object::TrafficPolicy(policy) => {
                self.set_traffic(name, Some(traffic::read(&policy)), changes);
            }
        }
    }

    /// Removes an object and marks what depends on it.
    fn unset(&mut self, key: &Key, changes: &mut Changes) {
        let name = key.name.clone();
        let mut route = |index: &mut Self, kind| {
            index.forget_route(&RouteKey { kind, name: key.name.clone() }, changes);
        };
        match key.kind {
            Kind::HttpRoute => route(self, RouteKind::Http),
            Kind::GrpcRoute => route(self, RouteKind::Grpc),
            Kind::TcpRoute => route(self, RouteKind::Tcp),
            Kind::TlsRoute => route(self, RouteKind::Tls),
            Kind::Pod => self.set_pod(name, None, changes),
            Kind::Service => self.set_service(name, None, changes),
            Kind::EndpointSlice => self.set_slice(name, None),
            Kind::Node => self.set_node(name.name, None, changes),
            Kind::Namespace => self.set_namespace(name.name, None, changes),
            Kind::AuthorizationPolicy => self.set_authorization(name, None, changes),
            Kind::PeerAuthentication => self.set_peer(name, None, changes),
            Kind::RequestAuthentication => self.set_request(name, None, changes),
            Kind::Gateway => self.set_gateway(name, None, changes),
            Kind::GatewayClass => self.set_class(name.name, None, changes),
            Kind::ReferenceGrant => self.set_grant(name, None, changes),
            Kind::TrafficPolicy => self.set_traffic(name, None, changes),
            Kind::ValidatingWebhook | Kind::MutatingWebhook | Kind::ApiService | Kind::CustomResource => {
                self.set_caller(key, None);
            }
        }
    }

    fn known(&self, kind: Kind) -> Vec<NamespacedName> {
        fn in_cluster<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Vec<NamespacedName> {
            names.map(|name| NamespacedName::new("", name.clone())).collect()
        }
        let layer7 = &self.layer7;
        let routes = |kind| layer7.routes_of(kind).map(|route| route.key.name.clone()).collect();
        match kind {
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Service => self.kube_services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.by_name.keys().cloned().collect(),
            Kind::Node => in_cluster(self.nodes.keys()),
            Kind::Namespace => in_cluster(self.namespaces.keys()),
            Kind::AuthorizationPolicy => self.authorization.keys().cloned().collect(),
            Kind::PeerAuthentication => self.peer.keys().cloned().collect(),
            Kind::RequestAuthentication => self.request.keys().cloned().collect(),
            Kind::Gateway => layer7.gateways.keys().cloned().collect(),
            Kind::GatewayClass => in_cluster(layer7.classes.keys()),
            Kind::HttpRoute => routes(RouteKind::Http),
            Kind::GrpcRoute => routes(RouteKind::Grpc),
            Kind::TcpRoute => routes(RouteKind::Tcp),
            Kind::TlsRoute => routes(RouteKind::Tls),
            Kind::ReferenceGrant => layer7.grants.keys().cloned().collect(),
            Kind::TrafficPolicy => layer7.traffic.keys().cloned().collect(),
            Kind::ValidatingWebhook | Kind::MutatingWebhook | Kind::ApiService | Kind::CustomResource => {
                let of_kind = layer7.callers.keys().filter(|key| key.kind == kind);
                of_kind.map(|key| key.name.clone()).collect()
            }
        }
    }

    /// Applies the settings of the Mesh.
    pub fn configure(&mut self, settings: Settings) -> Changes {
        let mut changes = Changes::default();
        if settings == self.settings {
            return changes;
        }
        changes.policy_status |= settings.extension_providers != self.settings.extension_providers;
        let is_renamed = settings.cluster_domain != self.settings.cluster_domain;
        let trust = self.trust();
        if settings.trusted_proxies != self.settings.trusted_proxies {
            self.layer7.dirty.compiled.extend(self.layer7.compiled_of.keys().cloned());
        }
        let roots = std::mem::replace(&mut self.settings, settings).root_namespaces;
        self.reread_policies_of(&roots, &mut changes);
        if trust != self.trust() {
            self.refresh_trust(&mut changes);
        }
        if is_renamed {
            let services: Vec<_> = self.kube_services.keys().cloned().collect();
            services.into_iter().for_each(|service| self.reread_service(service, &mut changes));
        }
        self.mark_all();
        self.follow(&mut changes);
        changes
    }
}

#[cfg(test)]
mod tests;
