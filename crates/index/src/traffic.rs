//! TrafficPolicy: facts, and translation for waypoints.
//!
//! Invariant: of several policies on one object the oldest is in force, and the others' status says
//! so. A value that cannot be parsed disables the whole policy, and its status names the field.
//! Only a refusal of consumer routes applies whichever policy contains it.

use std::sync::Arc;

use ambit_api::{
    TrafficPolicy,
    conditions::{WAYPOINT_ACCEPTED, reason},
    traffic_policy::{ConsumerRoutes, TrafficPolicySpec, TrafficTarget, TrafficTargetKind},
};
use ambit_model::{
    NamespacedName,
    bound::{DestinationPolicy, RequestPolicy},
};

use crate::{
    object::name_of,
    policies::{Holds, Judgement, PolicyFacts},
    routes::{RouteKey, RouteKind},
};

#[cfg(test)]
mod tests;
mod translate;

/// The target of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TrafficTo {
    /// A Service.
    Service(NamespacedName),
    /// A route.
    Route(RouteKey),
}

/// A TrafficPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) targets: Vec<TrafficTo>,
    pub(crate) content: Result<Effects, String>,
    /// Its Services reject routes of other namespaces, even if the rest of the policy is invalid.
    pub(crate) denies_consumers: bool,
}

/// The compiled effects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) requests: Arc<RequestPolicy>,
    pub(crate) destination: Arc<DestinationPolicy>,
    /// It sets a load balancing algorithm, even if it is the default one.
    pub(crate) balances: bool,
}

/// A TrafficPolicy and its metadata.
pub(crate) type TrafficFacts = PolicyFacts<Traffic>;

/// The result for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrafficReach {
    /// This waypoint enforces it.
    Bound(NamespacedName),
    /// The target exists, but has no waypoint.
    NotBound,
    /// The target does not exist.
    NotFound,
    /// An older policy is in force.
    Taken(NamespacedName),
    /// The target is a route that the owner of this Service rejects.
    Refused(NamespacedName),
}

/// Parses an object.
pub(crate) fn read(object: &TrafficPolicy) -> TrafficFacts {
    let name = name_of(&object.metadata);
    PolicyFacts {
        created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        selector: None,
        judgements: Vec::new(),
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        generation: object.metadata.generation,
        conditions: object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default(),
        content: Traffic {
            targets: object.spec.target_refs.iter().map(|target| to(target, &name)).collect(),
            content: content(&object.spec),
            denies_consumers: object.spec.consumer_routes == Some(ConsumerRoutes::Deny),
        },
        name,
    }
}

fn content(spec: &TrafficPolicySpec) -> Result<Effects, String> {
    let is_on_route = spec.target_refs.iter().any(|target| target.kind != TrafficTargetKind::Service);
    let is_of_destination = spec.circuit_breaker.is_some()
        || spec.outlier_detection.is_some()
        || spec.load_balancing.is_some()
        || spec.retry_budget.is_some()
        || spec.consumer_routes.is_some();
    if is_on_route && is_of_destination {
        return Err("circuitBreaker, outlierDetection, loadBalancing, retryBudget and consumerRoutes apply to a Service, not to a route".into());
    }
    Ok(Effects {
        requests: Arc::new(translate::requests(spec)?),
        destination: Arc::new(translate::destination(spec)?),
        balances: spec.load_balancing.is_some(),
    })
}

fn to(target: &TrafficTarget, of: &NamespacedName) -> TrafficTo {
    let name = NamespacedName::new(of.namespace.clone(), target.name.as_str());
    match target.kind {
        TrafficTargetKind::Service => TrafficTo::Service(name),
        TrafficTargetKind::HttpRoute => TrafficTo::Route(RouteKey { kind: RouteKind::Http, name }),
        TrafficTargetKind::GrpcRoute => TrafficTo::Route(RouteKey { kind: RouteKind::Grpc, name }),
    }
}

impl TrafficTo {
    fn describe(&self) -> String {
        match self {
            Self::Service(name) => format!("Service {name}"),
            Self::Route(key) => key.to_string(),
        }
    }
}

impl Traffic {
    /// The condition `WaypointAccepted`, which covers all targets.
    pub(crate) fn judge(&self, reach: impl Fn(&TrafficTo) -> TrafficReach) -> Judgement {
        let says =
            |holds, reason, message| Judgement { condition: WAYPOINT_ACCEPTED, holds, reason, message };
        if let Err(why) = &self.content {
            return says(Holds::False, reason::INVALID, format!("{why}: nothing of the policy is in force"));
        }
        let (mut bound, mut wrong) = (Vec::new(), Vec::new());
        let mut why = None;
        for target in &self.targets {
            let what = target.describe();
            let (reason, message) = match reach(target) {
                TrafficReach::Bound(waypoint) => {
                    bound.push(format!("{what} by {waypoint}"));
                    continue;
                }
                TrafficReach::NotBound => (reason::ANCESTOR_NOT_BOUND, format!("{what} has no waypoint")),
                TrafficReach::NotFound => (reason::TARGET_NOT_FOUND, format!("{what} does not exist")),
                TrafficReach::Taken(by) => {
                    (reason::CONFLICTED, format!("{what} has an older TrafficPolicy, {by}"))
                }
                TrafficReach::Refused(service) => (
                    reason::REF_NOT_PERMITTED,
                    format!("{what} has no effect: Service {service} accepts no routes of other namespaces"),
                ),
            };
            wrong.push(message);
            why.get_or_insert(reason);
        }
        let (enforced, missed) = (bound.join(", "), wrong.join(", "));
        match (why, bound.is_empty()) {
            (None, _) => says(Holds::True, reason::ACCEPTED, format!("enforced: {enforced}")),
            (Some(why), true) => says(Holds::False, why, format!("not enforced: {missed}")),
            (Some(_), false) => {
                let message = format!("enforced: {enforced}; not enforced: {missed}");
                says(Holds::False, reason::PARTIALLY_INVALID, message)
            }
        }
    }
}
