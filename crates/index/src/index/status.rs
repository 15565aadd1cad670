//! Statuses that are not what they should be: policies, Services and routes.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use ambit_api::{conditions::WAYPOINT_BOUND, policy::PolicyCondition};
use ambit_model::NamespacedName;

use super::{Index, PodIdentity, layer7::Subject};
use crate::{
    object::Kind,
    policies::{Judgement, Reach, StatusPatch, Target},
    routes::{RouteFacts, RoutePatch, attach::Attached},
    services::{PortFacts, ServiceFacts},
    traffic::{TrafficFacts, TrafficReach, TrafficTo},
    waypoints::stage::Goal,
};

impl Index {
    /// Users' policies and Services whose status is not what it should be.
    pub fn status_patches(&self) -> Vec<StatusPatch> {
        let mut patches = Vec::new();
        for policy in self.authorization.values() {
            let attached = policy.content.attachment().map(|a| a.judge(|target| self.reach(target)));
            patches.extend(policy.status_patch(Kind::AuthorizationPolicy, attached));
        }
        for policy in self.request.values() {
            let judge = |target: &Target| self.reach(target);
            let attached = policy.content.as_ref().map(|a| a.judge_with_keys(&self.layer7.key_sets, judge));
            patches.extend(policy.status_patch(Kind::RequestAuthentication, attached));
        }
        for policy in self.layer7.traffic.values() {
            let judgement = policy.content.judge(|target| self.traffic_reach(policy, target));
            patches.extend(policy.status_patch(Kind::TrafficPolicy, Some(judgement)));
        }
        patches.extend(self.peer.values().filter_map(|p| p.status_patch(Kind::PeerAuthentication, None)));
        patches.extend(self.kube_services.keys().filter_map(|name| self.service_patch(name)));
        patches
    }

    /// Routes whose status is not what it should be.
    pub fn route_patches(&self) -> Vec<RoutePatch> {
        let known: RefCell<HashMap<_, Rc<Attached<'_>>>> = RefCell::default();
        let attached = |route: &RouteFacts, service: &ServiceFacts, port: &PortFacts| {
            let is_consumer = route.is_consumer_of(&service.name);
            let consumer = is_consumer.then(|| route.key.name.namespace.clone());
            let key = (service.name.clone(), port.port, consumer.clone());
            let mut known = known.borrow_mut();
            let attached = || Rc::new(self.attached(service, port, consumer.as_ref()));
            known.entry(key).or_insert_with(attached).clone()
        };
        let patch = |route: &RouteFacts| {
            let parents = route.parents.iter().map(|parent| {
                let bound = self.layer7.service(&parent.service);
                let waypoint = bound.and_then(|bound| bound.waypoint());
                route.judge(parent, &self.world(), waypoint, |service, port| attached(route, service, port))
            });
            route.patch(parents.collect())
        };
        self.layer7.routes.values().filter_map(patch).collect()
    }

    /// Pods whose own label names a waypoint that does not take them, and why.
    pub fn refused_pods(&self) -> impl Iterator<Item = (PodIdentity, &Judgement)> {
        self.layer7.bound.iter().filter_map(|(subject, bound)| match subject {
            Subject::Pod(name) if bound.binding.goal == Goal::Out => {
                Some((self.pod(name)?, bound.binding.judgement.as_ref()?))
            }
            Subject::Pod(_) | Subject::Service(_) => None,
        })
    }

    fn reach(&self, target: &Target) -> Reach {
        match target {
            Target::Service(name) if !self.services.contains_key(name) => Reach::NotFound,
            Target::Service(name) => self.waypoint_of(name).map_or(Reach::NotBound, Reach::Bound),
            Target::Gateway(name) => match self.layer7.waypoint(name) {
                Some(gateway) => Reach::Bound(gateway.name.clone()),
                None => Reach::NotFound,
            },
            Target::GatewayClass(class) => {
                let gateway = self.layer7.waypoints().find(|gateway| *gateway.class == **class);
                gateway.map_or(Reach::NotBound, |gateway| Reach::Bound(gateway.name.clone()))
            }
        }
    }

    fn traffic_reach(&self, policy: &TrafficFacts, target: &TrafficTo) -> TrafficReach {
        let waypoint = match target {
            TrafficTo::Service(name) if !self.services.contains_key(name) => return TrafficReach::NotFound,
            TrafficTo::Service(name) => self.waypoint_of(name),
            TrafficTo::Route(key) => match self.layer7.routes.get(key) {
                None => return TrafficReach::NotFound,
                Some(route) => route.parents.iter().find_map(|parent| self.waypoint_of(&parent.service)),
            },
        };
        match self.traffic_of(target).filter(|oldest| oldest.name != policy.name) {
            Some(oldest) => TrafficReach::Taken(oldest.name.clone()),
            None => waypoint.map_or(TrafficReach::NotBound, TrafficReach::Bound),
        }
    }

    fn waypoint_of(&self, service: &NamespacedName) -> Option<NamespacedName> {
        self.layer7.service(service)?.waypoint().cloned()
    }

    /// `istio.io/WaypointBound` of a Service; it goes when no label asks for a waypoint any more.
    fn service_patch(&self, name: &NamespacedName) -> Option<StatusPatch> {
        let service = self.kube_services.get(name)?;
        let judgement = self.layer7.service(name).and_then(|bound| bound.binding.judgement.clone());
        let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
        let current: Vec<PolicyCondition> = conditions
            .into_iter()
            .flatten()
            .map(|condition| PolicyCondition {
                kind: condition.type_.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
                last_transition_time: Some(condition.last_transition_time.0.to_string()),
                observed_generation: condition.observed_generation,
            })
            .collect();
        let said = current.iter().find(|condition| condition.kind == WAYPOINT_BOUND);
        let is_right = match (&judgement, said) {
            (None, None) => true,
            (Some(wanted), Some(said)) => {
                said.status == wanted.holds.as_str()
                    && said.reason == wanted.reason
                    && said.message == wanted.message
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        let is_asked = judgement.is_some();
        let is_kept = |condition: &PolicyCondition| is_asked || condition.kind != WAYPOINT_BOUND;
        (!is_right).then(|| StatusPatch {
            kind: Kind::Service,
            name: name.clone(),
            resource_version: service.metadata.resource_version.clone().unwrap_or_default(),
            generation: service.metadata.generation,
            current: current.into_iter().filter(is_kept).collect(),
            judgements: judgement.into_iter().collect(),
        })
    }
}
