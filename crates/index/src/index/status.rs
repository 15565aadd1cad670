//! Statuses of policies, Services and routes that must be written.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use ambit_api::{
    conditions::{WAYPOINT_BOUND, WAYPOINT_ENFORCED, reason},
    policy::PolicyCondition,
};
use ambit_model::{NamespacedName, Policy};
use k8s_openapi::api::core::v1::Service as KubeService;

use super::{
    Index, PodIdentity,
    layer7::{Bound, Layer7},
    subject::Subject,
};
use crate::{
    key::Kind,
    policies::{Attachment, Holds, Judgement, Reach, StatusPatch, Target},
    routes::{RouteFacts, RoutePatch, attach::Attached},
    services::{PortFacts, ServiceFacts},
    traffic::{TrafficFacts, TrafficReach, TrafficTo},
    waypoints::{around::list, stage::Goal},
};

/// First part of the message in which a Service remembers its waypoint's name.
const ONLY: &str = "Only waypoint ";
const REACHES_IT: &str = " reaches its endpoints";

impl Index {
    /// Users' policies and Services whose status is out of date.
    pub fn status_patches(&self) -> Vec<StatusPatch> {
        let mut patches = Vec::new();
        for policy in self.authorization.values() {
            let reach = |target: &Target| self.reach(target);
            let attached = match policy.content.custom() {
                Some(custom) => Some(custom.judge(self.provider(&custom.provider), reach)),
                None => policy.content.attachment().map(|a| self.judge_attached(a)),
            };
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

    /// Routes whose status is out of date.
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

    /// Pods whose own label requests a waypoint that does not accept them, with the reason. Pods
    /// that are merely waiting are not listed.
    pub fn refused_pods(&self) -> impl Iterator<Item = (PodIdentity, &Judgement)> {
        self.layer7.refused.iter().filter_map(|name| Some((self.pod(name)?, self.refusal(name)?)))
    }

    fn refusal(&self, pod: &NamespacedName) -> Option<&Judgement> {
        let bound = self.layer7.bound.get(&Subject::Pod(pod.clone()))?;
        let binding = Some(&bound.binding).filter(|binding| !matches!(binding.goal, Goal::Serve(_)))?;
        binding.judgement.as_ref().filter(|said| said.holds == Holds::False)
    }

    /// Updates the kept sets of refused pods and of pods to annotate. Returns whether the pod is to annotate.
    pub(super) fn note_word(&mut self, pod: &NamespacedName) -> bool {
        let is_refused = self.pods.contains_key(pod) && self.refusal(pod).is_some();
        let is_outdated = self.is_annotation_outdated(pod);
        let Layer7 { refused, annotate, .. } = &mut self.layer7;
        for (named, is_named) in [(refused, is_refused), (annotate, is_outdated)] {
            if is_named {
                named.insert(pod.clone());
            } else {
                named.remove(pod);
            }
        }
        is_outdated
    }

    /// Pods whose annotation must change: it remembers the waypoint behind which the pod is closed,
    /// in case all operators restart while its Gateway is gone. `None` removes it.
    pub fn pods_to_annotate(&self) -> impl Iterator<Item = (PodIdentity, Option<&NamespacedName>)> {
        self.layer7.annotate.iter().filter_map(|name| Some((self.pod(name)?, self.enforced_pod(name))))
    }

    /// Whether a pod's annotation differs from the waypoint behind which it is closed.
    pub(super) fn is_annotation_outdated(&self, name: &NamespacedName) -> bool {
        self.pods.get(name).is_some_and(|pod| pod.facts.enforced.as_ref() != self.enforced_pod(name))
    }

    fn enforced_pod(&self, name: &NamespacedName) -> Option<&NamespacedName> {
        self.layer7.bound.get(&Subject::Pod(name.clone())).and_then(Bound::enforced)
    }

    /// The status of an attached policy, and which proxies it trusts for the client address.
    fn judge_attached(&self, attachment: &Attachment<Arc<Policy>>) -> Judgement {
        let mut judgement = attachment.judge(|target| self.reach(target));
        let asks = attachment.content.as_ref().is_ok_and(|policy| policy.asks_remote_ip());
        let is_untold = |target: &Target| match self.reach(target) {
            Reach::Bound(waypoint) => self.trusted_proxies(&waypoint).is_none(),
            Reach::NotBound | Reach::NotFound => false,
        };
        if asks && attachment.targets.iter().any(is_untold) {
            judgement.message.push_str(
                "; remoteIpBlocks and remote.ip have the same meaning as ipBlocks, and X-Forwarded-For counts only in rules that name their \
                 peers by serviceAccounts or complete principals, because neither spec.waypoints.numTrustedProxies of the \
                 Mesh nor the Gateway's annotation proxy.istio.io/config sets the number of trusted proxies",
            );
        }
        judgement
    }

    fn reach(&self, target: &Target) -> Reach {
        match target {
            Target::Service(name) if !self.services.contains_key(name) => Reach::NotFound,
            Target::Service(name) => self.waypoint_of(name).map_or(Reach::NotBound, Reach::Bound),
            Target::Gateway(name) => match self.layer7.waypoint(name) {
                Some(gateway) => Reach::Bound(gateway.name.clone()),
                None => Reach::NotFound,
            },
            Target::GatewayClass(class) if !self.layer7.classes.contains_key(class.as_str()) => {
                Reach::NotFound
            }
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
                Some(route) => {
                    let is_refused = |parent: &&NamespacedName| {
                        route.is_consumer_of(parent) && self.denies_consumers(parent)
                    };
                    let mut parents = route.parents.iter().map(|parent| &parent.service);
                    if let Some(parent) = parents.clone().find(is_refused) {
                        return TrafficReach::Refused(parent.clone());
                    }
                    parents.find_map(|parent| self.waypoint_of(parent))
                }
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

    /// The waypoint conditions of a Service; removed when no label requests a waypoint any more.
    fn service_patch(&self, name: &NamespacedName) -> Option<StatusPatch> {
        let service = self.kube_services.get(name)?;
        let bound = self.layer7.service(name);
        let judgements: Vec<Judgement> = bound.map(judgements).unwrap_or_default();
        let current = conditions(service);
        let is_ours = |kind: &str| [WAYPOINT_BOUND, WAYPOINT_ENFORCED].contains(&kind);
        let said = current.iter().filter(|condition| is_ours(&condition.kind));
        let is_said = |wanted: &Judgement| {
            said.clone().any(|said| {
                said.kind == wanted.condition
                    && said.status == wanted.holds.as_str()
                    && said.reason == wanted.reason
                    && said.message == wanted.message
            })
        };
        let is_right = said.clone().count() == judgements.len() && judgements.iter().all(is_said);
        let is_kept =
            |c: &PolicyCondition| !is_ours(&c.kind) || judgements.iter().any(|j| j.condition == c.kind);
        let kept = current.iter().filter(|condition| is_kept(condition)).cloned().collect();
        (!is_right).then(|| StatusPatch {
            kind: Kind::Service,
            name: name.clone(),
            resource_version: service.metadata.resource_version.clone().unwrap_or_default(),
            generation: service.metadata.generation,
            current: kept,
            judgements,
        })
    }

    /// The waypoint behind which a Service is closed according to its own status, for a process
    /// that has just started.
    pub(super) fn was_said_enforced(&self, name: &NamespacedName) -> Option<NamespacedName> {
        let conditions = conditions(self.kube_services.get(name)?);
        let said =
            conditions.iter().find(|c| c.kind == WAYPOINT_ENFORCED && c.status == Holds::True.as_str())?;
        let (waypoint, _) = said.message.strip_prefix(ONLY)?.split_once(REACHES_IT)?;
        let (namespace, name) = waypoint.split_once('/')?;
        Some(NamespacedName::new(namespace, name))
    }

    /// Whether the Service's own status says that a waypoint has its traffic.
    pub(super) fn was_said_bound(&self, name: &NamespacedName) -> bool {
        let conditions = self.kube_services.get(name).map(conditions).unwrap_or_default();
        let is_bound =
            |c: &PolicyCondition| c.status == Holds::True.as_str() || c.reason == reason::ENDPOINTS_OPEN;
        conditions.iter().any(|c| c.kind == WAYPOINT_BOUND && is_bound(c))
    }
}

fn judgements(bound: &Bound) -> Vec<Judgement> {
    let enforced = bound.enforced().map(|waypoint| Judgement {
        condition: WAYPOINT_ENFORCED,
        holds: Holds::True,
        reason: reason::ENFORCED,
        message: match bound.binding.past.as_slice() {
            [] => format!("{ONLY}{waypoint}{REACHES_IT}"),
            past => format!(
                "{ONLY}{waypoint}{REACHES_IT}, and so does plaintext from outside the mesh at port {}",
                list(past)
            ),
        },
    });
    bound.binding.judgement.iter().cloned().chain(enforced).collect()
}

fn conditions(service: &KubeService) -> Vec<PolicyCondition> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    let conditions = conditions.into_iter().flatten().map(|condition| PolicyCondition {
        kind: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: Some(condition.last_transition_time.0.to_string()),
        observed_generation: condition.observed_generation,
    });
    conditions.collect()
}
