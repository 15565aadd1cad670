//! The status of a route for each parent.
//!
//! Invariant: entries of other controllers are kept, and a patch is created only if something
//! changed.

use std::rc::Rc;

use ambit_api::{
    conditions::{ACCEPTED, RESOLVED_REFS, RESOLVED_WAYPOINTS, ROUTE_PARTIALLY_INVALID, reason},
    gateway::{ParentReference, RouteParentStatus},
    labels::WAYPOINT_CONTROLLER,
    policy::PolicyCondition,
};
use ambit_model::NamespacedName;

use super::{
    FilterFacts, Parent, RouteFacts, RouteKey,
    attach::{Attached, Misfit, ports},
    resolve::World,
};
use crate::{
    policies::{Holds, Judgement},
    services::{PortFacts, ServiceFacts},
};

/// Number of rules or references listed in one message.
const NAMED_MAX: usize = 4;

/// A route whose status must be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePatch {
    /// Key of the route.
    pub key: RouteKey,
    /// Resource version of the evaluated object.
    pub resource_version: String,
    /// Generation of the evaluated object.
    pub generation: Option<i64>,
    /// Our entries of the new status.
    pub parents: Vec<RouteParent>,
    /// The current status, of this and of other controllers.
    pub current: Vec<RouteParentStatus>,
}

/// Our status entry for one parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteParent {
    /// The parent reference, as the route has it.
    pub reference: ParentReference,
    /// The conditions, one per type.
    pub judgements: Vec<Judgement>,
}

impl RoutePatch {
    /// The new `status.parents`. The transition time of a condition changes only with its status.
    pub fn status(&self, now: &str) -> Vec<RouteParentStatus> {
        let ours = |parent: &RouteParent| {
            let old = said(&self.current, &parent.reference);
            let condition = |judgement: &Judgement| {
                let same = old.into_iter().flat_map(|old| &old.conditions).find(|condition| {
                    condition.kind == judgement.condition && condition.status == judgement.holds.as_str()
                });
                PolicyCondition {
                    kind: judgement.condition.to_owned(),
                    status: judgement.holds.as_str().to_owned(),
                    reason: judgement.reason.to_owned(),
                    message: judgement.message.clone(),
                    last_transition_time: same
                        .and_then(|same| same.last_transition_time.clone())
                        .or_else(|| Some(now.to_owned())),
                    observed_generation: self.generation,
                }
            };
            RouteParentStatus {
                parent_ref: parent.reference.clone(),
                controller_name: WAYPOINT_CONTROLLER.to_owned(),
                conditions: parent.judgements.iter().map(condition).collect(),
            }
        };
        let others = self.current.iter().filter(|status| status.controller_name != WAYPOINT_CONTROLLER);
        others.cloned().chain(self.parents.iter().map(ours)).collect()
    }
}

fn said<'a>(current: &'a [RouteParentStatus], parent: &ParentReference) -> Option<&'a RouteParentStatus> {
    current
        .iter()
        .find(|status| status.controller_name == WAYPOINT_CONTROLLER && status.parent_ref == *parent)
}

impl RouteFacts {
    /// The patch for the status, if it must change.
    pub(crate) fn patch(&self, parents: Vec<RouteParent>) -> Option<RoutePatch> {
        let is_ours = |status: &&RouteParentStatus| status.controller_name == WAYPOINT_CONTROLLER;
        let is_said = |parent: &RouteParent| {
            said(&self.status, &parent.reference).is_some_and(|status| {
                status.conditions.len() == parent.judgements.len()
                    && parent.judgements.iter().all(|judgement| {
                        status.conditions.iter().any(|condition| {
                            condition.kind == judgement.condition
                                && condition.status == judgement.holds.as_str()
                                && condition.reason == judgement.reason
                                && condition.message == judgement.message
                                && condition.observed_generation == self.generation
                        })
                    })
            })
        };
        let is_right =
            self.status.iter().filter(is_ours).count() == parents.len() && parents.iter().all(is_said);
        (!is_right).then(|| RoutePatch {
            key: self.key.clone(),
            resource_version: self.resource_version.clone(),
            generation: self.generation,
            parents,
            current: self.status.clone(),
        })
    }

    /// The status entry of one parent; `waypoint` is the parent's, and `holder` returns the route
    /// that has a port.
    pub(crate) fn judge<'a>(
        &self,
        parent: &Parent,
        world: &World<'_>,
        waypoint: Option<&NamespacedName>,
        holder: impl Fn(&ServiceFacts, &PortFacts) -> Rc<Attached<'a>>,
    ) -> RouteParent {
        let accepted = self.accepted(parent, world, holder);
        let mut judgements = vec![
            accepted,
            self.resolved(world),
            resolved_waypoints(parent, world.services.get(&parent.service).is_some(), waypoint),
        ];
        let wrong = self.problems();
        if !wrong.is_empty() && wrong.len() < self.rules.len() {
            let message = format!("Dropped Rule: answered 500: {}", named(&wrong));
            judgements.push(says(ROUTE_PARTIALLY_INVALID, Holds::True, reason::UNSUPPORTED_VALUE, message));
        }
        RouteParent { reference: parent.reference.clone(), judgements }
    }

    fn accepted<'a>(
        &self,
        parent: &Parent,
        world: &World<'_>,
        holder: impl Fn(&ServiceFacts, &PortFacts) -> Rc<Attached<'a>>,
    ) -> Judgement {
        let refused = |reason, message: String| says(ACCEPTED, Holds::False, reason, message);
        let Some(service) = world.services.get(&parent.service) else {
            return refused(reason::NO_MATCHING_PARENT, format!("Service {} does not exist", parent.service));
        };
        let wrong = self.problems();
        if !wrong.is_empty() && wrong.len() == self.rules.len() {
            return refused(reason::UNSUPPORTED_VALUE, format!("answered 500: {}", named(&wrong)));
        }
        let wanted = match ports(self.key.kind, parent, service) {
            Ok(ports) => ports,
            Err(Misfit::NoSuchPort) => {
                return refused(
                    reason::NO_MATCHING_PARENT,
                    format!("Service {} has no such TCP port", parent.service),
                );
            }
            Err(Misfit::Protocol) => {
                return refused(
                    reason::NO_MATCHING_PARENT,
                    format!(
                        "no selected port of Service {} has a protocol that a {} routes",
                        parent.service,
                        self.key.kind.as_str()
                    ),
                );
            }
        };
        if wanted.iter().any(|port| holder(service, port).is_denied) {
            let message = format!(
                "a TrafficPolicy of Service {} denies routes of other namespaces (consumerRoutes)",
                parent.service
            );
            return refused(reason::NOT_ALLOWED_BY_LISTENERS, message);
        }
        let lost: Vec<String> = wanted
            .iter()
            .filter_map(|port| {
                let winner = holder(service, port).winner(self)?;
                Some(format!("port {} is taken by the older {}", port.port, winner.key))
            })
            .collect();
        if lost.len() == wanted.len() {
            return refused(reason::CONFLICTED, named(&lost));
        }
        let outranked = wanted.iter().map(|port| holder(service, port).outranked(self));
        let mut behind = lost;
        behind.extend(outranked.max_by_key(Vec::len).unwrap_or_default());
        let message = match behind.as_slice() {
            [] => "attached".to_owned(),
            behind => format!("attached, but {}", named(behind)),
        };
        says(ACCEPTED, Holds::True, reason::ACCEPTED, message)
    }

    fn resolved(&self, world: &World<'_>) -> Judgement {
        let mirrors = |filters: &'_ [FilterFacts]| {
            filters.iter().filter_map(FilterFacts::mirror).cloned().collect::<Vec<_>>()
        };
        let references = self.rules.iter().flat_map(|rule| {
            let of_backends = rule.backends.iter().flat_map(|backend| {
                mirrors(&backend.filters).into_iter().chain(std::iter::once(backend.reference.clone()))
            });
            mirrors(&rule.filters).into_iter().chain(of_backends)
        });
        let unresolved: Vec<_> =
            references.filter_map(|reference| world.destination(self, &reference).err()).collect();
        let Some(first) = unresolved.first() else {
            let message = "all references are resolved".to_owned();
            return says(RESOLVED_REFS, Holds::True, reason::RESOLVED_REFS, message);
        };
        let mut messages: Vec<String> = Vec::new();
        for wrong in &unresolved {
            if !messages.contains(&wrong.message) {
                messages.push(wrong.message.clone());
            }
        }
        says(RESOLVED_REFS, Holds::False, first.reason, named(&messages))
    }

    /// The rules whose requests get 500, each with the reason.
    fn problems(&self) -> Vec<String> {
        let problem = |(at, why): (usize, &std::sync::Arc<str>)| format!("spec.rules[{at}]: {why}");
        let rules = self.rules.iter().enumerate();
        rules.filter_map(|(at, rule)| Some((at, rule.problem.as_ref()?))).map(problem).collect()
    }
}

fn resolved_waypoints(parent: &Parent, exists: bool, waypoint: Option<&NamespacedName>) -> Judgement {
    match waypoint {
        Some(waypoint) => says(
            RESOLVED_WAYPOINTS,
            Holds::True,
            reason::RESOLVED_WAYPOINTS,
            format!("waypoint {waypoint} executes the route"),
        ),
        None if !exists => says(
            RESOLVED_WAYPOINTS,
            Holds::False,
            reason::NO_MATCHING_PARENT,
            format!("Service {} does not exist", parent.service),
        ),
        None => says(
            RESOLVED_WAYPOINTS,
            Holds::False,
            reason::MISSING_USE_WAYPOINT_LABEL,
            format!("Service {} has no waypoint, so the route has no effect", parent.service),
        ),
    }
}

fn says(condition: &'static str, holds: Holds, reason: &'static str, message: String) -> Judgement {
    Judgement { condition, holds, reason, message }
}

fn named(all: &[String]) -> String {
    let shown: Vec<&str> = all.iter().take(NAMED_MAX).map(String::as_str).collect();
    match all.len().checked_sub(NAMED_MAX) {
        None | Some(0) => shown.join("; "),
        Some(more) => format!("{} and {more} more", shown.join("; ")),
    }
}
