//! TrafficPolicy: facts, and what waypoints get of it.
//!
//! Invariant: of several policies on one object the oldest is in force, and the others say so. A value that cannot be
//! read takes the whole policy out of force, and its status names the field; only a refusal of consumer routes holds
//! whoever says it.

use std::{sync::Arc, time::Duration};

use ambit_api::{
    TrafficPolicy,
    conditions::{WAYPOINT_ACCEPTED, reason},
    parse_duration,
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

/// Longest pause of a fault.
const FAULT_DELAY_MAX: Duration = Duration::from_secs(3600);

/// What a policy is attached to.
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
    /// Routes of other namespaces are refused at its Services, whatever becomes of the rest of it.
    pub(crate) denies_consumers: bool,
}

/// What it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) requests: Arc<RequestPolicy>,
    pub(crate) destination: Arc<DestinationPolicy>,
    /// It says how an endpoint is chosen, be it as by default.
    pub(crate) balances: bool,
}

/// A TrafficPolicy and its metadata.
pub(crate) type TrafficFacts = PolicyFacts<Traffic>;

/// What became of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrafficReach {
    /// This waypoint enforces it.
    Bound(NamespacedName),
    /// The target exists, and no waypoint serves it.
    NotBound,
    /// There is no such object.
    NotFound,
    /// An older policy is in force.
    Taken(NamespacedName),
    /// A route that the owner of this Service does not admit.
    Refused(NamespacedName),
}

/// Reads an object.
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

fn duration(field: &str, text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("{field}: {error}"))
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
    /// What the status says, `WaypointAccepted`: all targets in one condition.
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
                    format!("{what} has no effect: Service {service} takes no routes of other namespaces"),
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
