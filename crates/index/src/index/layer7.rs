//! The waypoint state of the index: objects, bindings, and what must be updated.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ambit_api::{gateway::ReferenceGrantSpec, mesh::FailurePolicy};
use ambit_model::{BoundService, NamespacedName};

use super::{dirty::Dirty, known::KnownPods, subject::Subject, tally::Tally};
use crate::{
    callers::Caller,
    gateways::{ClassFacts, GatewayFacts, Serves},
    key::Key,
    policies::request_authentication::KeySets,
    routes::{RouteFacts, RouteKey, RouteKind},
    traffic::TrafficFacts,
    waypoints::{
        binding::Binding,
        stage::{Goal, Stage},
    },
};

/// Waypoints, and what is published to them.
#[derive(Debug, Default)]
pub(super) struct Layer7 {
    pub(super) gateways: BTreeMap<NamespacedName, GatewayFacts>,
    pub(super) classes: BTreeMap<Arc<str>, ClassFacts>,
    pub(super) routes: BTreeMap<RouteKey, RouteFacts>,
    pub(super) routes_by_parent: HashMap<NamespacedName, BTreeSet<RouteKey>>,
    pub(super) routes_by_backend: HashMap<NamespacedName, BTreeSet<RouteKey>>,
    pub(super) grants: BTreeMap<NamespacedName, ReferenceGrantSpec>,
    pub(super) traffic: BTreeMap<NamespacedName, TrafficFacts>,
    /// Objects that make the API server call Services.
    pub(super) callers: BTreeMap<Key, Caller>,
    pub(super) callers_by_service: HashMap<NamespacedName, BTreeSet<Key>>,
    pub(super) key_sets: KeySets,
    /// Failure policies of Gateways that set one in their parameters.
    pub(super) failure_policies: BTreeMap<NamespacedName, FailurePolicy>,
    /// Pods of each waypoint.
    pub(super) pods_by_waypoint: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Uids of workloads, by the key of their service.
    pub(super) workloads_by_service: HashMap<NamespacedName, BTreeSet<Arc<str>>>,
    /// Services and pods that request a waypoint, or have not fully left one.
    pub(super) bound: BTreeMap<Subject, Bound>,
    pub(super) bound_by_waypoint: HashMap<NamespacedName, BTreeSet<Subject>>,
    /// Services with closed endpoints, and the policies that close them.
    pub(super) closed: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Closed pods, and the policy that closes each.
    pub(super) closed_pods: BTreeMap<NamespacedName, NamespacedName>,
    pub(super) pods_by_policy: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// Compiled results, by waypoint and key of the service.
    pub(super) compiled: BTreeMap<(NamespacedName, NamespacedName), Arc<BoundService>>,
    pub(super) compiled_of: HashMap<NamespacedName, BTreeSet<(NamespacedName, NamespacedName)>>,
    /// Totals over the endpoints of Services that use a waypoint, by name of the Service.
    pub(super) tallies: HashMap<NamespacedName, Tally>,
    pub(super) known_pods: KnownPods,
    /// Pods whose own label names a waypoint that does not accept them.
    pub(super) refused: BTreeSet<NamespacedName>,
    /// Pods whose annotation does not name the waypoint that alone reaches them.
    pub(super) annotate: BTreeSet<NamespacedName>,
    /// AuthorizationPolicies that name an extension provider.
    pub(super) customs: BTreeSet<NamespacedName>,
    pub(super) dirty: Dirty,
    /// Proxies are being served, so steps must wait.
    pub(super) is_serving: bool,
    /// Number of the last step.
    pub(super) steps: u64,
}

/// The requested waypoint of a service or pod, and its current stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// The waypoint that its labels request.
    pub(super) asks_for: Option<NamespacedName>,
    pub(super) binding: Binding,
    pub(super) stage: Stage,
    /// The last step, as long as not all proxies may have received it.
    pub(super) unsettled: Option<u64>,
}

impl Bound {
    /// All waypoints that it is related to.
    pub(super) fn waypoints(&self) -> BTreeSet<&NamespacedName> {
        self.asks_for.iter().chain(self.stage.served_by()).chain(self.stage.announced()).collect()
    }

    /// The only waypoint that may reach it, if it is closed.
    pub(super) fn enforced(&self) -> Option<&NamespacedName> {
        let is_closed = !self.stage.admitted(&self.binding.goal).is_empty();
        self.stage.announced().filter(|_| is_closed)
    }

    /// The requested waypoint, if it can be used.
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

    /// The routes attached to a service.
    pub(super) fn attached_to(&self, service: &NamespacedName) -> impl Iterator<Item = &RouteFacts> {
        let keys = self.routes_by_parent.get(service).into_iter().flatten();
        keys.filter_map(|key| self.routes.get(key))
    }

    /// A Gateway that is a waypoint of this mesh, in contrast to one of a foreign class.
    pub(super) fn waypoint(&self, name: &NamespacedName) -> Option<&GatewayFacts> {
        let gateway = self.gateways.get(name)?;
        self.classes.get(&gateway.class).is_none_or(|class| class.is_ours).then_some(gateway)
    }

    /// All waypoints.
    pub(super) fn waypoints(&self) -> impl Iterator<Item = &GatewayFacts> {
        self.gateways.keys().filter_map(|name| self.waypoint(name))
    }

    /// Which traffic a waypoint serves.
    pub(super) fn serves(&self, gateway: &GatewayFacts) -> Serves {
        let of_class = || self.classes.get(&gateway.class).and_then(|class| class.serves);
        gateway.serves.or_else(of_class).unwrap_or(Serves::Services)
    }

    /// The binding of a service.
    pub(super) fn service(&self, name: &NamespacedName) -> Option<&Bound> {
        self.bound.get(&Subject::Service(name.clone()))
    }

    /// Marks everything related to a waypoint.
    pub(super) fn touch_waypoint(&mut self, waypoint: &NamespacedName) {
        let subjects = self.bound_by_waypoint.get(waypoint).into_iter().flatten();
        self.dirty.compiled.extend(subjects.clone().map(Subject::compiled));
        self.dirty.bindings.extend(subjects.cloned());
    }

    /// Marks all compiled results of a waypoint.
    pub(super) fn touch_known(&mut self, waypoint: &NamespacedName) {
        let subjects = self.bound_by_waypoint.get(waypoint).into_iter().flatten();
        self.dirty.compiled.extend(subjects.map(Subject::compiled));
    }

    /// Marks the services with routes to a service.
    pub(super) fn touch_backend(&mut self, service: &NamespacedName) {
        let keys = self.routes_by_backend.get(service).into_iter().flatten();
        let routes = keys.filter_map(|key| self.routes.get(key));
        let parents: Vec<_> = routes.flat_map(|route| &route.parents).map(|p| p.service.clone()).collect();
        self.dirty.compiled.extend(parents);
    }
}
