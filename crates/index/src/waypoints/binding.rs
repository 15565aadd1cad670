//! Decides which waypoint a service or pod uses, and the condition that explains it.
//!
//! Invariant: the object's label takes precedence over its namespace's, even if it names a missing
//! waypoint. A waypoint gets traffic only once it has been ready and the pods it is for are in the
//! mesh; then it keeps the traffic. What was closed to all but a waypoint stays closed while a
//! label requests one, whatever happens to the Gateway.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::{
    conditions::{WAYPOINT_BOUND, reason},
    labels,
    mesh::FailurePolicy,
};
use ambit_model::NamespacedName;

use super::{
    around::{Around, list},
    stage::Goal,
};
use crate::{
    gateways::{GatewayFacts, Serves},
    policies::{Holds, Judgement},
};

/// Appended for a subject that its waypoint closed but does not serve.
const STAYS_CLOSED: &str =
    "it was behind a waypoint and stays closed until a waypoint accepts it or no label requests one";

/// The waypoint that the labels of an object request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum WaypointLabel {
    /// No label.
    #[default]
    Unset,
    /// Explicitly no waypoint, whatever the namespace's label is.
    None,
    /// This waypoint.
    Waypoint(NamespacedName),
}

impl WaypointLabel {
    /// Parses the labels of an object in a namespace, or of the namespace itself.
    pub(crate) fn read(all: Option<&BTreeMap<String, String>>, namespace: &Arc<str>) -> Self {
        let label =
            |key: &str| all.and_then(|all| all.get(key)).map(String::as_str).filter(|v| !v.is_empty());
        match label(labels::USE_WAYPOINT) {
            None => Self::Unset,
            Some(labels::NONE) => Self::None,
            Some(name) => {
                let namespace = label(labels::USE_WAYPOINT_NAMESPACE).map_or(namespace.clone(), Arc::from);
                Self::Waypoint(NamespacedName::new(namespace, name))
            }
        }
    }
}

/// How clients address the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrafficTarget {
    /// By the virtual address of a service.
    Service,
    /// By the endpoints of a headless service.
    Headless,
    /// By the address of a pod.
    Pod,
}

/// Number of endpoints by enrollment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// All endpoints.
    pub(crate) all: usize,
    /// Wanted in the mesh.
    pub(crate) wanted: usize,
    /// Enrolled.
    pub(crate) enrolled: usize,
}

/// The inputs of the decision, except the waypoint itself.
#[derive(Debug)]
pub(crate) struct BindingInput<'a> {
    /// From its own labels.
    pub(crate) own: &'a WaypointLabel,
    /// From its namespace's labels.
    pub(crate) inherited: &'a WaypointLabel,
    /// It was created for a waypoint.
    pub(crate) is_waypoint: bool,
    /// How clients address it.
    pub(crate) traffic: TrafficTarget,
    /// Its namespace.
    pub(crate) namespace: &'a Arc<str>,
    /// Labels of its namespace.
    pub(crate) namespace_labels: &'a BTreeMap<String, String>,
    /// Its endpoints.
    pub(crate) endpoints: Endpoints,
    /// A waypoint already has its traffic, or no client knows it yet.
    pub(crate) was_bound: bool,
    /// The only waypoint that may reach it, if it is closed.
    pub(crate) enforced: Option<&'a NamespacedName>,
    /// Warnings about bypassing traffic and cut-off callers.
    pub(crate) around: Around,
}

/// The current state of a waypoint.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) gateway: &'a GatewayFacts,
    pub(crate) serves: Serves,
    pub(crate) has_ready_pod: bool,
    pub(crate) failure_policy: FailurePolicy,
}

/// The decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) goal: Goal,
    /// The condition `istio.io/WaypointBound`; `None` when no label requests a waypoint.
    pub(crate) judgement: Option<Judgement>,
    /// Ports at which plaintext bypasses the waypoint ([`Around::past`]).
    pub(crate) past: Vec<String>,
}

impl BindingInput<'_> {
    /// The requested waypoint.
    pub(crate) fn waypoint(&self) -> Option<&NamespacedName> {
        match (self.own, self.inherited) {
            _ if self.is_waypoint => None,
            (WaypointLabel::Waypoint(name), _) | (WaypointLabel::Unset, WaypointLabel::Waypoint(name)) => {
                Some(name)
            }
            (WaypointLabel::None, _) | (WaypointLabel::Unset, WaypointLabel::Unset | WaypointLabel::None) => {
                None
            }
        }
    }

    /// A pod without a label of its own gets no condition, because its namespace's label may be
    /// meant for services only.
    fn is_silent(&self) -> bool {
        self.traffic == TrafficTarget::Pod && *self.own == WaypointLabel::Unset
    }
}

/// Whether a waypoint serves such traffic.
fn is_for(serves: Serves, traffic: TrafficTarget) -> bool {
    match (serves, traffic) {
        (Serves::All, TrafficTarget::Service | TrafficTarget::Pod)
        | (Serves::Services, TrafficTarget::Service)
        | (Serves::Workloads, TrafficTarget::Pod) => true,
        (Serves::All, TrafficTarget::Headless)
        | (Serves::Services, TrafficTarget::Headless | TrafficTarget::Pod)
        | (Serves::Workloads, TrafficTarget::Headless | TrafficTarget::Service)
        | (Serves::Nothing, TrafficTarget::Service | TrafficTarget::Headless | TrafficTarget::Pod) => false,
    }
}

/// Decides; `found` is the waypoint [`BindingInput::waypoint`], if it exists.
pub(crate) fn bind(input: &BindingInput<'_>, found: Option<&Candidate<'_>>) -> Binding {
    let binding = judge(input, found);
    Binding { judgement: binding.judgement.filter(|_| !input.is_silent()), ..binding }
}

fn judge(input: &BindingInput<'_>, found: Option<&Candidate<'_>>) -> Binding {
    let Some(name) = input.waypoint() else { return Binding::default() };
    let Some(found) = found else {
        return lost(input, reason::WAYPOINT_IS_NOT_READY, format!("there is no waypoint {name}"));
    };
    if !found.gateway.admits(input.namespace, input.namespace_labels) {
        let message = format!("the listener of waypoint {name} does not allow namespace {}", input.namespace);
        return lost(input, reason::ATTACHMENT_DENIED, message);
    }
    if !is_for(found.serves, input.traffic) {
        let message = match input.traffic {
            TrafficTarget::Service => {
                format!("waypoint {name} is not for services ({})", labels::WAYPOINT_FOR)
            }
            TrafficTarget::Headless => {
                "clients connect to the pods of a headless service, not to the service".into()
            }
            TrafficTarget::Pod => format!("waypoint {name} is not for pods ({})", labels::WAYPOINT_FOR),
        };
        return lost(input, reason::UNSUPPORTED_TRAFFIC_TYPE, message);
    }
    if !found.gateway.has_been_ready {
        if input.enforced == Some(name) && found.failure_policy == FailurePolicy::Closed {
            let message = format!("waypoint {name} has no ready pod yet: {STAYS_CLOSED}");
            return refused(Goal::Enforce(name.clone()), reason::WAYPOINT_IS_NOT_READY, message);
        }
        if let Some(at) = input.enforced.filter(|at| *at != name) {
            let message = format!("waypoint {name} has no ready pod yet: {STAYS_CLOSED}");
            return refused(Goal::Close(at.clone()), reason::WAYPOINT_IS_NOT_READY, message);
        }
        let message = format!("waypoint {name} has no ready pod yet: traffic flows without it");
        return refused(Goal::Serve(name.clone()), reason::WAYPOINT_IS_NOT_READY, message);
    }
    if let Some(message) = waits_for_enrollment(input) {
        return refused(Goal::Serve(name.clone()), reason::WAITING_FOR_ENROLLMENT, message);
    }
    if let Some(message) = would_cut_off(input) {
        return refused(Goal::Serve(name.clone()), reason::CALLED_FROM_OUTSIDE, message);
    }
    let goal = match (found.failure_policy, found.has_ready_pod) {
        (FailurePolicy::Closed, _) => Goal::Enforce(name.clone()),
        (FailurePolicy::Open, true) => Goal::Announce(name.clone()),
        (FailurePolicy::Open, false) => {
            let message = format!("waypoint {name} has no ready pod: traffic flows without it (Open)");
            return refused(Goal::Serve(name.clone()), reason::WAYPOINT_IS_NOT_READY, message);
        }
    };
    let notes = input.around.notes(&goal);
    if !input.around.open.is_empty() {
        let open = list(&input.around.open);
        let message = format!("attached to waypoint {name}, but reachable without it: {open}{notes}");
        return refused(goal, reason::ENDPOINTS_OPEN, message);
    }
    let message = format!("Successfully attached to waypoint {name}{notes}");
    let judgement = Some(judgement(Holds::True, reason::WAYPOINT_ACCEPTED, message));
    Binding { goal, judgement, ..Binding::default() }
}

/// L7 requires L4: an endpoint that is not redirected cannot be closed to callers that bypass the
/// waypoint.
fn waits_for_enrollment(input: &BindingInput<'_>) -> Option<String> {
    let Endpoints { all, wanted, enrolled } = input.endpoints;
    if input.was_bound || input.enforced.is_some() || all == 0 || (wanted > 0 && wanted == enrolled) {
        return None;
    }
    let open = &input.around.open;
    let named = if open.is_empty() { String::new() } else { format!(" (not: {})", list(open)) };
    Some(match wanted {
        0 => format!("none of its {all} endpoints is in the mesh: label the namespace or its pods{named}"),
        _ => format!("{enrolled} of {wanted} endpoints are in the mesh{named}"),
    })
}

/// No waypoint accepts it: an open subject continues without one, and a closed one stays closed. A
/// headless service itself is never dialed, so there is nothing to close.
fn lost(input: &BindingInput<'_>, reason: &'static str, message: String) -> Binding {
    match input.enforced.filter(|_| input.traffic != TrafficTarget::Headless) {
        Some(at) => {
            let goal = Goal::Close(at.clone());
            let notes = input.around.notes(&goal);
            refused(goal, reason, format!("{message}: {STAYS_CLOSED}{notes}"))
        }
        None => refused(Goal::Out, reason, format!("{message}: traffic flows without it")),
    }
}

/// A label on the namespace alone does not cut the API server off, which is never in the mesh.
fn would_cut_off(input: &BindingInput<'_>) -> Option<String> {
    let callers = &input.around.callers;
    if callers.is_empty() || *input.own != WaypointLabel::Unset || input.was_bound || input.enforced.is_some()
    {
        return None;
    }
    Some(format!(
        "the API server calls it from outside the mesh, for {}, and would be refused: traffic flows without a waypoint \
         until the Service itself is labelled {}, with the waypoint or with {}",
        list(callers),
        labels::USE_WAYPOINT,
        labels::NONE
    ))
}

fn refused(goal: Goal, reason: &'static str, message: String) -> Binding {
    let judgement = Some(judgement(Holds::False, reason, message));
    Binding { goal, judgement, ..Binding::default() }
}

fn judgement(holds: Holds, reason: &'static str, message: String) -> Judgement {
    Judgement { condition: WAYPOINT_BOUND, holds, reason, message }
}
