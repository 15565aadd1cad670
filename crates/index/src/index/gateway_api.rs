//! Applies Gateway API objects and TrafficPolicies.

use std::sync::Arc;

use ambit_api::{gateway::ReferenceGrantSpec, mesh::FailurePolicy};
use ambit_model::NamespacedName;

use super::{Index, maps::remove_from};
use crate::{
    changes::Changes,
    gateways::{ClassFacts, GatewayFacts},
    policies::request_authentication::Providers,
    routes::{RouteFacts, RouteKey},
    traffic::{TrafficFacts, TrafficTo},
};

impl Index {
    pub(super) fn set_gateway(
        &mut self,
        name: NamespacedName,
        facts: Option<GatewayFacts>,
        changes: &mut Changes,
    ) {
        if self.layer7.gateways.get(&name) == facts.as_ref() {
            return;
        }
        match facts {
            Some(facts) => self.layer7.gateways.insert(name.clone(), facts),
            None => self.layer7.gateways.remove(&name),
        };
        changes.policy_status = true;
        self.layer7.touch_waypoint(&name);
        changes.waypoints.insert(name);
    }

    pub(super) fn set_class(&mut self, name: Arc<str>, facts: Option<ClassFacts>, changes: &mut Changes) {
        if self.layer7.classes.get(&name) == facts.as_ref() {
            return;
        }
        match facts {
            Some(facts) => self.layer7.classes.insert(name.clone(), facts),
            None => self.layer7.classes.remove(&name),
        };
        changes.policy_status = true;
        let gateways = self.layer7.gateways.values().filter(|gateway| gateway.class == name);
        let gateways: Vec<_> = gateways.map(|gateway| gateway.name.clone()).collect();
        for gateway in gateways {
            self.layer7.touch_waypoint(&gateway);
            changes.waypoints.insert(gateway);
        }
    }

    pub(super) fn set_route(&mut self, facts: RouteFacts, changes: &mut Changes) {
        let old = self.layer7.routes.get(&facts.key);
        if old == Some(&facts) {
            return;
        }
        changes.route_status = true;
        let is_new = old.is_none();
        if old.is_some_and(|old| {
            old.parents == facts.parents
                && old.names == facts.names
                && old.rules == facts.rules
                && old.created == facts.created
        }) {
            // Only its status changed, or fields that are not used.
            self.layer7.routes.insert(facts.key.clone(), facts);
            return;
        }
        self.forget_route(&facts.key.clone(), changes);
        for parent in &facts.parents {
            let routes = self.layer7.routes_by_parent.entry(parent.service.clone()).or_default();
            routes.insert(facts.key.clone());
            self.layer7.dirty.compiled.insert(parent.service.clone());
        }
        for backend in facts.backends() {
            self.layer7.routes_by_backend.entry(backend).or_default().insert(facts.key.clone());
        }
        changes.policy_status |= is_new;
        self.layer7.routes.insert(facts.key.clone(), facts);
    }

    pub(super) fn forget_route(&mut self, key: &RouteKey, changes: &mut Changes) {
        let Some(old) = self.layer7.routes.remove(key) else { return };
        for parent in &old.parents {
            remove_from(&mut self.layer7.routes_by_parent, &parent.service, key);
            self.layer7.dirty.compiled.insert(parent.service.clone());
        }
        for backend in old.backends() {
            remove_from(&mut self.layer7.routes_by_backend, &backend, key);
        }
        changes.route_status = true;
        changes.policy_status = true;
    }

    pub(super) fn set_grant(
        &mut self,
        name: NamespacedName,
        spec: Option<ReferenceGrantSpec>,
        changes: &mut Changes,
    ) {
        if self.layer7.grants.get(&name) == spec.as_ref() {
            return;
        }
        let namespace = name.namespace.clone();
        match spec {
            Some(spec) => self.layer7.grants.insert(name, spec),
            None => self.layer7.grants.remove(&name),
        };
        changes.route_status = true;
        let backends = self.layer7.routes_by_backend.keys().filter(|backend| backend.namespace == namespace);
        let backends: Vec<_> = backends.cloned().collect();
        for backend in backends {
            self.layer7.touch_backend(&backend);
        }
    }

    pub(super) fn set_traffic(
        &mut self,
        name: NamespacedName,
        facts: Option<TrafficFacts>,
        changes: &mut Changes,
    ) {
        if self.layer7.traffic.get(&name) == facts.as_ref() {
            return;
        }
        let old = match facts.clone() {
            Some(facts) => self.layer7.traffic.insert(name, facts),
            None => self.layer7.traffic.remove(&name),
        };
        changes.policy_status = true;
        let says = |facts: &Option<TrafficFacts>| facts.as_ref().map(|f| (f.created, f.content.clone()));
        if says(&old) == says(&facts) {
            return;
        }
        // Also for routes of other namespaces, whether or not a waypoint has them yet.
        changes.route_status = true;
        let targets: Vec<TrafficTo> =
            old.into_iter().chain(facts).flat_map(|facts| facts.content.targets).collect();
        for target in targets {
            match target {
                TrafficTo::Service(service) => {
                    self.layer7.touch_backend(&service);
                    self.touch_providers();
                    self.layer7.dirty.compiled.insert(service);
                }
                TrafficTo::Route(key) => {
                    let parents = self.layer7.routes.get(&key).into_iter().flat_map(|route| &route.parents);
                    let parents: Vec<_> = parents.map(|parent| parent.service.clone()).collect();
                    self.layer7.dirty.compiled.extend(parents);
                }
            }
        }
    }

    /// Sets the failure policy from a Gateway's parameters; `None` uses the Mesh's.
    pub fn set_failure_policy(&mut self, gateway: &NamespacedName, policy: Option<FailurePolicy>) -> Changes {
        let mut changes = Changes::default();
        let old = match policy {
            Some(policy) => self.layer7.failure_policies.insert(gateway.clone(), policy),
            None => self.layer7.failure_policies.remove(gateway),
        };
        if old != policy {
            self.layer7.touch_waypoint(gateway);
            self.follow(&mut changes);
        }
        changes
    }

    /// Sets the result of fetching a key set, a set or an error; `None` removes it.
    pub fn set_key_set(&mut self, uri: &Arc<str>, fetched: Option<Result<Arc<str>, String>>) -> Changes {
        let mut changes = Changes::default();
        if self.layer7.key_sets.get(uri) == fetched.as_ref() {
            return changes;
        }
        match fetched {
            Some(fetched) => self.layer7.key_sets.insert(uri.clone(), fetched),
            None => self.layer7.key_sets.remove(uri),
        };
        changes.policy_status = true;
        let wants = |providers: &Providers| providers.uris().any(|(wanted, _)| wanted == uri);
        let attachments = self.request.values().filter_map(|policy| policy.content.as_ref());
        let targets: Vec<_> = attachments
            .filter(|attachment| attachment.content.as_ref().is_ok_and(wants))
            .flat_map(|attachment| attachment.targets.iter().cloned())
            .collect();
        targets.iter().for_each(|target| self.touch_target(target));
        self.follow(&mut changes);
        changes
    }
}
