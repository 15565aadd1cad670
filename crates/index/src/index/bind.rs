//! Services on their way to waypoints and back: one step at a time, and what follows from each.

use std::{collections::BTreeSet, sync::Arc};

use ambit_api::conditions::WAYPOINT_BOUND;
use ambit_model::{
    GatewayAddress, GatewayDestination, HBONE_PORT, Health, NamespacedName, Policy, TunnelProtocol,
};

use super::{Index, layer7::Bound, objects::remove_from};
use crate::{
    changes::Changes,
    enrollment::Wanted,
    nodes::NamespaceFacts,
    policies::Holds,
    services::ServiceFacts,
    settings::Presence,
    waypoints::{
        binding::{Asking, Binding, Candidate, Endpoints, Wish, bind},
        deny, deny_name,
        stage::{Goal, Stage, next},
    },
};

impl Index {
    /// From now on proxies hear of changes: a service goes to its waypoint step by step. Before, it is where it
    /// should be at once, so that a control plane that starts anew publishes what held before.
    pub fn serve(&mut self) {
        self.layer7.is_heard = true;
        self.follow(&mut Changes::default());
    }

    /// Everybody had the time to hear of the steps up to this one ([`Changes::settling`]): the next ones are taken.
    pub fn settle(&mut self, step: u64) -> Changes {
        let mut changes = Changes::default();
        for (name, bound) in &mut self.layer7.services {
            if bound.unsettled.is_some_and(|unsettled| unsettled <= step) {
                bound.unsettled = None;
                self.layer7.dirty.bindings.insert(name.clone());
            }
        }
        self.follow(&mut changes);
        changes
    }

    /// Marks every service that has to do with a waypoint: something that all depend on has changed.
    pub(super) fn refresh_bindings(&mut self) {
        let names: Vec<_> = self.services.keys().chain(self.layer7.services.keys()).cloned().collect();
        self.layer7.dirty.bindings.extend(names.iter().cloned());
        self.layer7.dirty.closings.extend(names.iter().cloned());
        self.layer7.dirty.compiled.extend(names);
    }

    /// Looks again at every service that was marked, until nothing follows any more.
    pub(super) fn follow(&mut self, changes: &mut Changes) {
        loop {
            if let Some(service) = self.layer7.dirty.bindings.pop_first() {
                self.refresh_binding(&service, changes);
            } else if let Some(service) = self.layer7.dirty.closings.pop_first() {
                self.refresh_closing(&service, changes);
            } else if !self.layer7.is_heard {
                // Compiled once, when everything is known, and not again for every object of the first lists.
                return;
            } else if let Some(service) = self.layer7.dirty.compiled.pop_first() {
                self.refresh_compiled(&service, changes);
            } else {
                return;
            }
        }
    }

    fn refresh_binding(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let old = self.layer7.services.get(name).cloned().unwrap_or_default();
        let (asks_for, binding) = match self.services.get(name) {
            Some(service) => self.decide(service, &old),
            None => (None, Binding::default()),
        };
        let mut new = Bound { asks_for, binding, ..old.clone() };
        self.advance(name, &mut new, changes);
        self.layer7.dirty.closings.insert(name.clone());
        if new == old {
            return;
        }
        for waypoint in old.waypoints() {
            remove_from(&mut self.layer7.services_by_waypoint, waypoint, name);
        }
        for waypoint in new.waypoints() {
            self.layer7.services_by_waypoint.entry(waypoint.clone()).or_default().insert(name.clone());
        }
        if old.binding != new.binding {
            changes.policy_status = true;
            changes.route_status = true;
        }
        if old.stage != new.stage {
            changes.waypoints.extend(old.stage.served_by().into_iter().chain(new.stage.served_by()).cloned());
            self.layer7.dirty.closings.extend(self.sharing(name));
            self.layer7.dirty.compiled.insert(name.clone());
        }
        if new.asks_for.is_none() && new.stage == Stage::Unbound && new.unsettled.is_none() {
            self.layer7.services.remove(name);
        } else {
            self.layer7.services.insert(name.clone(), new);
        }
        let address = self.announced(name);
        if let Some(service) = self.services.get_mut(name).filter(|s| s.model.waypoint != address) {
            Arc::make_mut(&mut service.model).waypoint = address;
            changes.services.insert(service.model.key());
        }
    }

    fn advance(&mut self, name: &NamespacedName, bound: &mut Bound, changes: &mut Changes) {
        if !self.services.contains_key(name) {
            // Nobody can be on the way to a service that is gone.
            (bound.stage, bound.unsettled) = (Stage::Unbound, None);
            return;
        }
        if !self.layer7.is_heard {
            while let Some(stage) = next(&bound.stage, &bound.binding.goal) {
                bound.stage = stage;
            }
            return;
        }
        if bound.unsettled.is_none()
            && let Some(stage) = next(&bound.stage, &bound.binding.goal)
        {
            bound.stage = stage;
            self.layer7.steps += 1;
            bound.unsettled = Some(self.layer7.steps);
        }
        changes.settling = changes.settling.max(bound.unsettled);
    }

    fn decide(&self, service: &ServiceFacts, old: &Bound) -> (Option<NamespacedName>, Binding) {
        let unlabelled = NamespaceFacts::default();
        let namespace = self.namespaces.get(&service.name.namespace).unwrap_or(&unlabelled);
        if self.settings.presence != Presence::Present {
            return (None, Binding::default());
        }
        // Where it is counts only once somebody may have heard of it.
        let at = old.stage.announced().filter(|_| self.layer7.is_heard);
        let asking = Asking {
            own: &service.wish,
            inherited: &namespace.wish,
            is_waypoint: service.is_managed,
            is_headless: service.model.addresses.is_empty(),
            namespace: &service.name.namespace,
            namespace_labels: &namespace.labels,
            endpoints: self.endpoints(service),
            was_bound: at.is_some() || self.was_said_bound(&service.name),
        };
        let found = asking.waypoint().and_then(|name| self.candidate(name));
        let asks_for = asking.waypoint().cloned();
        let mut binding = bind(&asking, found.as_ref());
        // A service that moves stays behind its old waypoint until the new one can take it.
        if let (Goal::Serve(to), Some(at)) = (&binding.goal, at)
            && to != at
            && let Some(candidate) = self.candidate(at)
        {
            let stay = Wish::Waypoint(at.clone());
            binding.goal = bind(&Asking { own: &stay, ..asking }, Some(&candidate)).goal;
        }
        (asks_for, binding)
    }

    fn candidate(&self, name: &NamespacedName) -> Option<Candidate<'_>> {
        let gateway = self.layer7.waypoint(name)?;
        let own = self.layer7.failure_policies.get(name).copied();
        Some(Candidate {
            serves: self.layer7.serves(gateway),
            has_ready_pod: self.ready_pods(name) > 0,
            failure_policy: own.unwrap_or(self.settings.failure_policy),
            gateway,
        })
    }

    pub(super) fn ready_pods(&self, waypoint: &NamespacedName) -> usize {
        let pods = self.layer7.pods_by_waypoint.get(waypoint).into_iter().flatten();
        let pods = pods.filter_map(|pod| self.pods.get(pod));
        pods.filter(|pod| pod.facts.is_endpoint() && pod.facts.health == Health::Healthy).count()
    }

    fn endpoints(&self, service: &ServiceFacts) -> Endpoints {
        let uids = self.layer7.workloads_by_service.get(&service.model.key()).into_iter().flatten();
        uids.fold(Endpoints::default(), |mut found, uid| {
            found.all += 1;
            let enrollment = self.pod_of_workload(uid).and_then(|pod| pod.enrollment.as_ref());
            if let Some(enrollment) = enrollment.filter(|enrollment| enrollment.wanted == Wanted::L4) {
                found.wanted += 1;
                found.enrolled += usize::from(enrollment.redirected);
            }
            found
        })
    }

    /// The Service's own status remembers it, should this process have started anew.
    fn was_said_bound(&self, name: &NamespacedName) -> bool {
        let status = self.kube_services.get(name).and_then(|service| service.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        conditions.into_iter().any(|c| c.type_ == WAYPOINT_BOUND && c.status == Holds::True.as_str())
    }

    /// Where clients of a service are told to go.
    pub(super) fn announced(&self, service: &NamespacedName) -> Option<GatewayAddress> {
        let waypoint = self.layer7.services.get(service)?.stage.announced()?;
        let NamespacedName { namespace, name } = waypoint;
        let host = format!("{name}.{namespace}.svc.{}", self.settings.cluster_domain);
        Some(GatewayAddress {
            destination: GatewayDestination::Hostname(NamespacedName::new(namespace.clone(), host)),
            hbone_mtls_port: HBONE_PORT,
        })
    }

    /// Services that have an endpoint in common with one.
    fn sharing(&self, name: &NamespacedName) -> BTreeSet<NamespacedName> {
        let Some(service) = self.services.get(name) else { return BTreeSet::new() };
        let uids = self.layer7.workloads_by_service.get(&service.model.key()).into_iter().flatten();
        let keys = uids.filter_map(|uid| self.workload(uid)).flat_map(|workload| workload.services.keys());
        keys.filter_map(|key| self.services_by_key.get(key)).cloned().collect()
    }

    fn refresh_closing(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let policy = self.closing(name).map(Arc::new);
        let (was_closed, is_closed) = (self.layer7.closed.contains(name), policy.is_some());
        if !was_closed && !is_closed {
            return;
        }
        self.publish(deny_name(name), policy, changes);
        if is_closed {
            self.layer7.closed.insert(name.clone());
        } else {
            self.layer7.closed.remove(name);
        }
        if was_closed != is_closed {
            self.refresh_endpoints_of(name, changes);
        }
    }

    fn refresh_endpoints_of(&mut self, name: &NamespacedName, changes: &mut Changes) {
        let Some(service) = self.services.get(name) else { return };
        let uids = self.layer7.workloads_by_service.get(&service.model.key()).into_iter().flatten();
        let pods: Vec<NamespacedName> =
            uids.filter_map(|uid| self.pod_of_workload(uid)).map(|pod| pod.facts.name.clone()).collect();
        for pod in pods {
            self.refresh_pod(&pod, changes);
        }
    }

    /// The policy that lets only waypoints reach the endpoints of a service. Waypoints of other services with the
    /// same endpoints are let through too, or the services would close each other.
    fn closing(&self, name: &NamespacedName) -> Option<Policy> {
        let (service, bound) = (self.services.get(name)?, self.layer7.services.get(name)?);
        let own = bound.stage.admitted(&bound.binding.goal);
        if own.is_empty() {
            return None;
        }
        let key = service.model.key();
        let numbers = service.model.ports.iter().map(|port| port.target_port).filter(|port| *port > 0);
        let mut ports: BTreeSet<u16> = numbers.collect();
        let mut waypoints: BTreeSet<&NamespacedName> = own.into_iter().collect();
        let uids = self.layer7.workloads_by_service.get(&key).into_iter().flatten();
        for workload in uids.filter_map(|uid| self.workload(uid)) {
            ports.extend(workload.services.get(&key).into_iter().flatten().map(|port| port.target_port));
            let others = workload.services.keys().filter_map(|other| self.services_by_key.get(other));
            let others = others.filter_map(|other| self.layer7.services.get(other));
            waypoints.extend(others.flat_map(|other| other.stage.served_by()));
        }
        deny(name, waypoints, ports.into_iter().collect(), &self.settings.trust_domain)
    }

    /// A pod of a waypoint ends tunnels itself, whether or not anything redirects its traffic.
    pub(super) fn tunnel(waypoint: Option<&NamespacedName>, is_redirected: bool) -> (TunnelProtocol, bool) {
        match (waypoint, is_redirected) {
            (Some(_), _) => (TunnelProtocol::Hbone, true),
            (None, true) => (TunnelProtocol::Hbone, false),
            (None, false) => (TunnelProtocol::None, false),
        }
    }
}
