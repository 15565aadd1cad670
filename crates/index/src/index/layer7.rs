//! What the index holds of waypoints: their objects, who goes where, and what is still to be looked at again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ambit_api::{gateway::ReferenceGrantSpec, mesh::FailurePolicy};
use ambit_model::{BoundService, NamespacedName, bound::PODS};

use crate::{
    callers::Caller,
    gateways::{ClassFacts, GatewayFacts, Serves},
    object::Key,
    policies::request_authentication::KeySets,
    routes::{RouteFacts, RouteKey, RouteKind},
    traffic::TrafficFacts,
    waypoints::{
        binding::Binding,
        stage::{Goal, Stage},
    },
};

/// What goes through a waypoint, or does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    /// Traffic addressed to a service.
    Service(NamespacedName),
    /// Traffic addressed to a pod.
    Pod(NamespacedName),
}

impl Subject {
    /// The object.
    pub(super) fn name(&self) -> &NamespacedName {
        match self {
            Self::Service(name) | Self::Pod(name) => name,
        }
    }

    /// Under which name waypoints know it: all pods of a namespace are one to them.
    pub(super) fn compiled(&self) -> NamespacedName {
        match self {
            Self::Service(name) => name.clone(),
            Self::Pod(name) => NamespacedName::new(name.namespace.clone(), PODS),
        }
    }
}

/// Waypoints, and what they know.
#[derive(Debug, Default)]
pub(super) struct Layer7 {
    pub(super) gateways: BTreeMap<NamespacedName, GatewayFacts>,
    pub(super) classes: BTreeMap<Arc<str>, ClassFacts>,
    pub(super) routes: BTreeMap<RouteKey, RouteFacts>,
    pub(super) routes_by_parent: HashMap<NamespacedName, BTreeSet<RouteKey>>,
    pub(super) routes_by_backend: HashMap<NamespacedName, BTreeSet<RouteKey>>,
    pub(super) grants: BTreeMap<NamespacedName, ReferenceGrantSpec>,
    pub(super) traffic: BTreeMap<NamespacedName, TrafficFacts>,
    /// What makes the API server call Services.
    pub(super) callers: BTreeMap<Key, Caller>,
    pub(super) callers_by_service: HashMap<NamespacedName, BTreeSet<Key>>,
    pub(super) key_sets: KeySets,
    /// Of Gateways whose parameters say it.
    pub(super) failure_policies: BTreeMap<NamespacedName, FailurePolicy>,
    /// Pods of a Gateway.
    pub(super) pods_by_waypoint: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Workloads by key of the services they serve.
    pub(super) workloads_by_service: HashMap<NamespacedName, BTreeSet<Arc<str>>>,
    /// Services and pods that ask for a waypoint, or are not rid of it yet.
    pub(super) bound: BTreeMap<Subject, Bound>,
    pub(super) bound_by_waypoint: HashMap<NamespacedName, BTreeSet<Subject>>,
    /// Services whose endpoints are closed, and the policies that close them.
    pub(super) closed: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Pods that are closed, and the policies that close them.
    pub(super) closed_pods: BTreeMap<NamespacedName, NamespacedName>,
    pub(super) pods_by_policy: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// By waypoint and key of the service.
    pub(super) compiled: BTreeMap<(NamespacedName, NamespacedName), Arc<BoundService>>,
    pub(super) compiled_of: HashMap<NamespacedName, BTreeSet<(NamespacedName, NamespacedName)>>,
    pub(super) dirty: Dirty,
    /// Proxies hear of changes, so a step needs time.
    pub(super) is_heard: bool,
    /// Number of the last step.
    pub(super) steps: u64,
}

/// What a service or pod asks for, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// The waypoint that its labels name.
    pub(super) asks_for: Option<NamespacedName>,
    pub(super) binding: Binding,
    pub(super) stage: Stage,
    /// The step that not everybody may have heard of.
    pub(super) unsettled: Option<u64>,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Which waypoint.
    pub(super) bindings: BTreeSet<Subject>,
    /// Whether endpoints are closed, and to whom.
    pub(super) closings: BTreeSet<Subject>,
    /// What waypoints know.
    pub(super) compiled: BTreeSet<NamespacedName>,
}

impl Bound {
    /// Waypoints that matter to it.
    pub(super) fn waypoints(&self) -> BTreeSet<&NamespacedName> {
        self.asks_for.iter().chain(self.stage.served_by()).chain(self.stage.announced()).collect()
    }

    /// The waypoint behind which it is closed to everybody else.
    pub(super) fn enforced(&self) -> Option<&NamespacedName> {
        let is_closed = !self.stage.admitted(&self.binding.goal).is_empty();
        self.stage.announced().filter(|_| is_closed)
    }

    /// The waypoint that it should go through, and can.
    pub(super) fn waypoint(&self) -> Option<&NamespacedName> {
        match &self.binding.goal {
            Goal::Out | Goal::Serve(_) | Goal::Close(_) => None,
            Goal::Announce(waypoint) | Goal::Enforce(waypoint) => Some(waypoint),
        }
    }
}

impl Layer7 {
    /// The routes of a kind.
    pub(super) fn routes_of(&self, kind: RouteKind) -> impl Iterator<Item = &RouteFacts> {
        self.routes.values().filter(move |route| route.key.kind == kind)
    }

    /// The routes that are attached to a service.
    pub(super) fn attached_to(&self, service: &NamespacedName) -> impl Iterator<Item = &RouteFacts> {
        let keys = self.routes_by_parent.get(service).into_iter().flatten();
        keys.filter_map(|key| self.routes.get(key))
    }

    /// A Gateway that is a waypoint of ours. A class that somebody else runs is not.
    pub(super) fn waypoint(&self, name: &NamespacedName) -> Option<&GatewayFacts> {
        let gateway = self.gateways.get(name)?;
        self.classes.get(&gateway.class).is_none_or(|class| class.is_ours).then_some(gateway)
    }

    /// Every waypoint.
    pub(super) fn waypoints(&self) -> impl Iterator<Item = &GatewayFacts> {
        self.gateways.keys().filter_map(|name| self.waypoint(name))
    }

    /// Which traffic a waypoint is for.
    pub(super) fn serves(&self, gateway: &GatewayFacts) -> Serves {
        let of_class = || self.classes.get(&gateway.class).and_then(|class| class.serves);
        gateway.serves.or_else(of_class).unwrap_or(Serves::Services)
    }

    /// What a service asks for.
    pub(super) fn service(&self, name: &NamespacedName) -> Option<&Bound> {
        self.bound.get(&Subject::Service(name.clone()))
    }

    /// What the pods of a namespace ask for.
    pub(super) fn pods_of(&self, namespace: &Arc<str>) -> impl Iterator<Item = (&NamespacedName, &Bound)> {
        let first = Subject::Pod(NamespacedName::new(namespace.clone(), ""));
        let pods = self.bound.range(first..).map(|(subject, bound)| (subject.name(), bound));
        pods.take_while(move |(name, _)| name.namespace == *namespace)
    }

    /// Marks everything that has to do with a waypoint.
    pub(super) fn touch_waypoint(&mut self, waypoint: &NamespacedName) {
        let subjects = self.bound_by_waypoint.get(waypoint).into_iter().flatten();
        self.dirty.compiled.extend(subjects.clone().map(Subject::compiled));
        self.dirty.bindings.extend(subjects.cloned());
    }

    /// Marks what a waypoint knows.
    pub(super) fn touch_known(&mut self, waypoint: &NamespacedName) {
        let subjects = self.bound_by_waypoint.get(waypoint).into_iter().flatten();
        self.dirty.compiled.extend(subjects.map(Subject::compiled));
    }

    /// Marks the services whose routes lead to a service.
    pub(super) fn touch_backend(&mut self, service: &NamespacedName) {
        let keys = self.routes_by_backend.get(service).into_iter().flatten();
        let routes = keys.filter_map(|key| self.routes.get(key));
        let parents: Vec<_> = routes.flat_map(|route| &route.parents).map(|p| p.service.clone()).collect();
        self.dirty.compiled.extend(parents);
    }
}
