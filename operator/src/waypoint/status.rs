//! The status of a Gateway. Pure.
//!
//! Invariant: addresses appear when the first pod is ready and stay as long as the Gateway exists,
//! so that bound services stay bound even if all pods die.

use ambit_api::{
    conditions::{ACCEPTED, PROGRAMMED, RESOLVED_REFS, reason},
    gateway::{Gateway, GatewayAddress, GatewayStatus, Listener, ListenerStatus},
    policy::PolicyCondition,
};
use ambit_model::NamespacedName;
use jiff::Timestamp;

use super::validate::{Judgement, listener_problem};
use crate::{
    conditions::{Finding, dated},
    error::Error,
};

/// Progress of a waypoint's rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaypointRollout {
    /// ClusterIP of its Service.
    pub service_ip: Option<String>,
    /// Number of ready pods.
    pub ready: i32,
    /// What prevents the rollout.
    pub problem: Option<RolloutProblem>,
    /// Number of routes of its services.
    pub routes: i32,
}

/// What prevents a waypoint's rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RolloutProblem {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl From<&Error> for RolloutProblem {
    fn from(error: &Error) -> Self {
        let reason = match error {
            Error::NotOurs { .. } => reason::NAME_TAKEN,
            Error::Api { .. } | Error::Json { .. } | Error::Identity(_) => reason::APPLY_FAILED,
        };
        Self { reason, message: error.to_string() }
    }
}

/// The status of a waypoint's Gateway.
pub(crate) fn status(
    gateway: &Gateway,
    judgement: &Judgement,
    rollout: &WaypointRollout,
    cluster_domain: &str,
    now: Timestamp,
) -> GatewayStatus {
    let previous = gateway.status.clone().unwrap_or_default();
    let programmed = programmed(judgement, rollout);
    let listeners = gateway.spec.listeners.iter().map(|listener| {
        let old = previous.listeners.iter().find(|old| old.name == listener.name);
        let conditions = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
        let findings = listener_findings(listener, judgement, &programmed);
        ListenerStatus {
            name: listener.name.clone(),
            supported_kinds: Vec::new(),
            attached_routes: if listener_problem(listener).is_none() { rollout.routes } else { 0 },
            conditions: dated(&findings, conditions, gateway.metadata.generation, now),
        }
    });
    let listeners = listeners.collect();
    let findings = [judgement.accepted.clone(), programmed, judgement.resolved.clone()];
    GatewayStatus {
        addresses: addresses(gateway, &previous, rollout, cluster_domain),
        conditions: dated(&findings, &previous.conditions, gateway.metadata.generation, now),
        listeners,
    }
}

/// Conditions with a new status or reason.
pub(crate) fn news<'a>(
    before: &'a [PolicyCondition],
    after: &'a [PolicyCondition],
) -> impl Iterator<Item = &'a PolicyCondition> {
    let is_known = |now: &&PolicyCondition| {
        before
            .iter()
            .any(|old| (&old.kind, &old.status, &old.reason) == (&now.kind, &now.status, &now.reason))
    };
    after.iter().filter(move |now| !is_known(now))
}

fn programmed(judgement: &Judgement, rollout: &WaypointRollout) -> Finding {
    let not_yet = |reason, message: &str| Finding::fails(PROGRAMMED, reason, message);
    if judgement.valid.is_none() {
        return not_yet(reason::INVALID, "the Gateway is not accepted; what was rolled out before stays");
    }
    if let Some(problem) = &rollout.problem {
        return not_yet(problem.reason, &problem.message);
    }
    if rollout.service_ip.is_none() {
        return not_yet(reason::ADDRESS_NOT_ASSIGNED, "the Service of the waypoint has no address yet");
    }
    if rollout.ready == 0 {
        return not_yet(reason::PENDING, "no pod of the waypoint is ready");
    }
    Finding::holds(PROGRAMMED, reason::PROGRAMMED, "the waypoint serves")
}

fn listener_findings(listener: &Listener, judgement: &Judgement, programmed: &Finding) -> [Finding; 3] {
    let resolved =
        Finding::holds(RESOLVED_REFS, reason::RESOLVED_REFS, "a waypoint's listener has no references");
    match listener_problem(listener) {
        Some(problem) => {
            let programmed = Finding::fails(PROGRAMMED, reason::INVALID, problem.message.clone());
            [problem, programmed, resolved]
        }
        None => {
            let accepted = match judgement.valid {
                Some(_) => Finding::holds(ACCEPTED, reason::ACCEPTED, "the listener is valid"),
                None => {
                    Finding::fails(ACCEPTED, judgement.accepted.reason, judgement.accepted.message.clone())
                }
            };
            [accepted, programmed.clone(), resolved]
        }
    }
}

fn addresses(
    gateway: &Gateway,
    previous: &GatewayStatus,
    rollout: &WaypointRollout,
    cluster_domain: &str,
) -> Vec<GatewayAddress> {
    let was_ready = !previous.addresses.is_empty();
    match &rollout.service_ip {
        Some(ip) if was_ready || rollout.ready > 0 => {
            let NamespacedName { namespace, name } = ambit_index::name_of(&gateway.metadata);
            let address = |kind: &str, value: String| GatewayAddress { kind: Some(kind.to_owned()), value };
            vec![
                address("Hostname", format!("{name}.{namespace}.svc.{cluster_domain}")),
                address("IPAddress", ip.clone()),
            ]
        }
        Some(_) | None => previous.addresses.clone(),
    }
}

#[cfg(test)]
mod tests {
    use ambit_api::mesh::Waypoints;
    use serde_json::json;

    use super::*;
    use crate::waypoint::validate::{Found, judge};

    const DOMAIN: &str = "cluster.local";

    fn gateway() -> Gateway {
        serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "waypoint", "namespace": "shop", "generation": 2},
            "spec": {"gatewayClassName": "ambit-waypoint", "listeners": [
                {"name": "mesh", "port": 15008, "protocol": "HBONE"},
                {"name": "web", "port": 80, "protocol": "HTTP"}
            ]}
        }))
        .unwrap()
    }

    fn judged(gateway: &Gateway, found: &Found) -> Judgement {
        judge(gateway, found, &Waypoints::default())
    }

    fn fine() -> Found {
        Found::Parameters(Box::default())
    }

    fn serving() -> WaypointRollout {
        WaypointRollout { service_ip: Some("10.96.1.1".into()), ready: 1, problem: None, routes: 3 }
    }

    fn of(gateway: &Gateway, found: &Found, rollout: &WaypointRollout) -> GatewayStatus {
        status(gateway, &judged(gateway, found), rollout, DOMAIN, Timestamp::UNIX_EPOCH)
    }

    fn reason(status: &GatewayStatus, kind: &str) -> (String, String) {
        let found = status.conditions.iter().find(|condition| condition.kind == kind).unwrap();
        (found.status.clone(), found.reason.clone())
    }

    fn values(status: &GatewayStatus) -> Vec<&str> {
        status.addresses.iter().map(|address| address.value.as_str()).collect()
    }

    #[test]
    fn it_is_programmed_and_has_addresses_once_a_pod_is_ready() {
        let gateway = gateway();
        for (rollout, why, addresses) in [
            (WaypointRollout { service_ip: None, ready: 0, ..serving() }, ("False", "AddressNotAssigned"), 0),
            (WaypointRollout { ready: 0, ..serving() }, ("False", "Pending"), 0),
            (serving(), ("True", "Programmed"), 2),
        ] {
            let status = of(&gateway, &fine(), &rollout);
            let (holds, reason) = reason(&status, "Programmed");
            assert_eq!(((holds.as_str(), reason.as_str()), status.addresses.len()), (why, addresses));
        }
        assert_eq!(
            values(&of(&gateway, &fine(), &serving())),
            ["waypoint.shop.svc.cluster.local", "10.96.1.1"]
        );
    }

    #[test]
    fn addresses_stay_when_its_pods_die_and_when_it_is_not_accepted_any_more() {
        let mut gateway = gateway();
        gateway.status = Some(of(&gateway, &fine(), &serving()));
        let dead = of(&gateway, &fine(), &WaypointRollout { ready: 0, ..serving() });
        assert_eq!((dead.addresses.len(), reason(&dead, "Programmed").0.as_str()), (2, "False"));
        let broken = Found::Invalid("unknown key".into());
        let refused = of(&gateway, &broken, &WaypointRollout { service_ip: None, ready: 0, ..serving() });
        assert_eq!(values(&refused), ["waypoint.shop.svc.cluster.local", "10.96.1.1"]);
        assert_eq!(reason(&refused, "Accepted"), ("False".into(), "InvalidParameters".into()));
        assert_eq!(reason(&refused, "Programmed").1, "Invalid");
    }

    #[test]
    fn each_listener_says_whether_it_is_served() {
        let status = of(&gateway(), &fine(), &serving());
        let seen: Vec<(&str, i32, Vec<&str>)> = status
            .listeners
            .iter()
            .map(|l| {
                let statuses = l.conditions.iter().map(|condition| condition.status.as_str()).collect();
                (l.name.as_str(), l.attached_routes, statuses)
            })
            .collect();
        assert_eq!(
            seen,
            [("mesh", 3, vec!["True", "True", "True"]), ("web", 0, vec!["False", "False", "True"])]
        );
    }

    #[test]
    fn a_name_that_is_taken_is_told() {
        let taken = Error::NotOurs { object: "Service shop/waypoint".into() };
        let rollout = WaypointRollout { problem: Some(RolloutProblem::from(&taken)), ..serving() };
        let status = of(&gateway(), &fine(), &rollout);
        assert_eq!(reason(&status, "Programmed"), ("False".into(), "NameTaken".into()));
    }

    #[test]
    fn what_is_said_already_is_said_again_word_by_word() {
        let mut gateway = gateway();
        let first = of(&gateway, &fine(), &serving());
        gateway.status = Some(first.clone());
        let again = status(&gateway, &judged(&gateway, &fine()), &serving(), DOMAIN, Timestamp::MAX);
        assert_eq!(again, first);
        assert_eq!(news(&first.conditions, &again.conditions).count(), 0);
        let dead = of(&gateway, &fine(), &WaypointRollout { ready: 0, ..serving() });
        let told: Vec<_> =
            news(&first.conditions, &dead.conditions).map(|news| news.reason.as_str()).collect();
        assert_eq!(told, ["Pending"]);
    }
}
