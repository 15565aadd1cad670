//! Validation of a Gateway.
//!
//! Invariant: pure; problems of the whole Gateway are kept apart from those of a single listener.

use std::collections::BTreeMap;

use ambit_api::{
    conditions::{ACCEPTED, RESOLVED_REFS, reason},
    gateway::{Gateway, Listener, topology_problem},
    labels,
    mesh::{FailurePolicy, Replicas, Resources, Waypoints},
};
use ambit_model::{HBONE_PORT, NamespacedName};

use super::parameters::{Parameters, Scheduling};
use crate::conditions::Finding;

/// Longest name of a Gateway: it becomes the name of a Service and the value of a label.
const NAME_BYTES_MAX: usize = 63;
/// Prefix of labels and annotations reserved by the Gateway API.
const RESERVED_PREFIX: &str = "gateway.networking.k8s.io/";

/// The result of resolving `parametersRef`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// There is none, or it was parsed.
    Parameters(Box<Parameters>),
    /// The referenced object does not exist, or is not a ConfigMap.
    Missing(String),
    /// The parameters are invalid.
    Invalid(String),
}

/// A valid waypoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidWaypoint {
    /// Name of the Gateway.
    pub name: NamespacedName,
    /// Name of its class.
    pub class: String,
    /// Labels for all its objects.
    pub labels: BTreeMap<String, String>,
    /// Annotations for all its objects.
    pub annotations: BTreeMap<String, String>,
    /// Names of the accepted listeners; the port is named after the first.
    pub listeners: Vec<String>,
    /// Number of pods.
    pub replicas: Replicas,
    /// Resource requests and limits of the container.
    pub resources: Resources,
    /// Scheduling of the pods.
    pub scheduling: Scheduling,
    /// What happens while no pod is ready.
    pub failure_policy: FailurePolicy,
}

/// The evaluation of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judgement {
    /// `None`: nothing new is rolled out, and what is running stays.
    pub valid: Option<ValidWaypoint>,
    /// The condition `Accepted`.
    pub accepted: Finding,
    /// The condition `ResolvedRefs`.
    pub resolved: Finding,
}

/// Evaluates a Gateway of one of our classes. `mesh` provides the defaults.
pub(crate) fn judge(gateway: &Gateway, found: &Found, mesh: &Waypoints) -> Judgement {
    let resolved = match found {
        Found::Missing(what) => Finding::fails(RESOLVED_REFS, reason::REF_NOT_FOUND, what.clone()),
        Found::Parameters(_) | Found::Invalid(_) => {
            Finding::holds(RESOLVED_REFS, reason::RESOLVED_REFS, "all references are resolved")
        }
    };
    match valid(gateway, found, mesh) {
        Ok(valid) => Judgement { accepted: accepted(gateway), valid: Some(valid), resolved },
        Err(accepted) => Judgement { valid: None, accepted, resolved },
    }
}

fn valid(gateway: &Gateway, found: &Found, mesh: &Waypoints) -> Result<ValidWaypoint, Finding> {
    let refused = |reason, message: String| Err(Finding::fails(ACCEPTED, reason, message));
    let name = ambit_index::name_of(&gateway.metadata);
    if !is_service_name(&name.name) {
        return refused(
            reason::INVALID,
            format!(
                "the Service of a waypoint has the name of its Gateway, and {:?} is not a valid Service name; write at most {NAME_BYTES_MAX} lower-case letters, digits and dashes, a letter first",
                name.name
            ),
        );
    }
    if !gateway.spec.addresses.is_empty() {
        return refused(
            reason::UNSUPPORTED_ADDRESS,
            "the address of a waypoint is assigned by its Service; remove spec.addresses".into(),
        );
    }
    let served = gateway.spec.listeners.iter().filter(|listener| listener_problem(listener).is_none());
    let listeners: Vec<String> = served.map(|listener| listener.name.clone()).collect();
    if listeners.is_empty() {
        return refused(
            reason::LISTENERS_NOT_VALID,
            format!("a waypoint needs a listener with protocol {} on port {HBONE_PORT}", labels::HBONE),
        );
    }
    if let Some(wrong) = gateway.proxy_config().and_then(|config| topology_problem(config)) {
        return refused(reason::INVALID_PARAMETERS, format!("annotation {}: {wrong}", labels::PROXY_CONFIG));
    }
    let parameters = match found {
        Found::Parameters(parameters) => parameters,
        Found::Missing(wrong) | Found::Invalid(wrong) => {
            return refused(reason::INVALID_PARAMETERS, wrong.clone());
        }
    };
    let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
    Ok(ValidWaypoint {
        name,
        class: gateway.spec.gateway_class_name.clone(),
        labels: unreserved(infrastructure.labels),
        annotations: unreserved(infrastructure.annotations),
        listeners,
        replicas: parameters.replicas.unwrap_or(mesh.replicas),
        resources: parameters.resources.clone().unwrap_or_else(|| mesh.resources.clone()),
        scheduling: parameters.scheduling.clone(),
        failure_policy: parameters.failure_policy.unwrap_or(mesh.failure_policy),
    })
}

fn accepted(gateway: &Gateway) -> Finding {
    let wrong = gateway.spec.listeners.iter().filter(|listener| listener_problem(listener).is_some());
    let names: Vec<&str> = wrong.map(|listener| listener.name.as_str()).collect();
    if names.is_empty() {
        return Finding::holds(ACCEPTED, reason::ACCEPTED, "the Gateway is valid");
    }
    let message = format!("listeners that are not served: {}", names.join(", "));
    Finding::holds(ACCEPTED, reason::LISTENERS_NOT_VALID, message)
}

/// Why a listener is not accepted.
pub(crate) fn listener_problem(listener: &Listener) -> Option<Finding> {
    if listener.protocol != labels::HBONE {
        let message = format!("protocol {} is not served; write {}", listener.protocol, labels::HBONE);
        return Some(Finding::fails(ACCEPTED, reason::UNSUPPORTED_PROTOCOL, message));
    }
    if listener.port != i32::from(HBONE_PORT) {
        let message = format!("port {} is not served; write {HBONE_PORT}", listener.port);
        return Some(Finding::fails(ACCEPTED, reason::PORT_UNAVAILABLE, message));
    }
    None
}

/// RFC 1035 label, as required for the name of a Service.
fn is_service_name(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() <= NAME_BYTES_MAX
        && name.bytes().all(is_part)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
}

fn unreserved(entries: BTreeMap<String, String>) -> BTreeMap<String, String> {
    entries.into_iter().filter(|(key, _)| !key.starts_with(RESERVED_PREFIX)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn gateway(spec: Value) -> Gateway {
        serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "waypoint", "namespace": "shop"}, "spec": spec
        }))
        .unwrap()
    }

    fn plain() -> Value {
        json!({"gatewayClassName": "ambit-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]})
    }

    fn none() -> Found {
        Found::Parameters(Box::default())
    }

    #[test]
    fn a_gateway_as_the_guides_show_it_takes_what_the_mesh_says() {
        let judged = judge(&gateway(plain()), &none(), &Waypoints::default());
        let valid = judged.valid.unwrap();
        assert_eq!(valid.name, NamespacedName::new("shop", "waypoint"));
        assert_eq!((valid.replicas.min, valid.replicas.max), (2, 5));
        assert_eq!((valid.listeners, valid.failure_policy), (vec!["mesh".to_owned()], FailurePolicy::Closed));
        assert!(judged.accepted.holds && judged.resolved.holds);
    }

    #[test]
    fn parameters_come_before_the_mesh_and_reserved_labels_stay_out() {
        let parameters = Parameters {
            replicas: Some(Replicas { min: 1, max: 1 }),
            failure_policy: Some(FailurePolicy::Open),
            ..Parameters::default()
        };
        let mut spec = plain();
        spec["infrastructure"] = json!({
            "labels": {"team": "shop", "gateway.networking.k8s.io/gateway-name": "other"},
            "annotations": {"a": "b"}
        });
        let judged = judge(&gateway(spec), &Found::Parameters(Box::new(parameters)), &Waypoints::default());
        let valid = judged.valid.unwrap();
        assert_eq!((valid.replicas.max, valid.failure_policy), (1, FailurePolicy::Open));
        assert_eq!(valid.labels, BTreeMap::from([("team".to_owned(), "shop".to_owned())]));
        assert_eq!(valid.annotations["a"], "b");
    }

    #[test]
    fn what_is_wrong_is_told_by_reason() {
        let with = |key: &str, value: Value| {
            let mut spec = plain();
            spec[key] = value;
            gateway(spec)
        };
        let missing = Found::Missing("ConfigMap shop/size does not exist".into());
        let proxied = |config: &str| {
            let mut gateway = gateway(plain());
            let annotations = gateway.metadata.annotations.get_or_insert_default();
            annotations.insert("proxy.istio.io/config".into(), config.into());
            gateway
        };
        let mut named = gateway(plain());
        named.metadata.name = Some("way.point".into());
        for (gateway, found, accepted, resolved) in [
            (with("listeners", json!([])), none(), "ListenersNotValid", "ResolvedRefs"),
            (
                with("listeners", json!([{"name": "web", "port": 80, "protocol": "HTTP"}])),
                none(),
                "ListenersNotValid",
                "ResolvedRefs",
            ),
            (with("addresses", json!([{"value": "10.0.0.1"}])), none(), "UnsupportedAddress", "ResolvedRefs"),
            (gateway(plain()), missing, "InvalidParameters", "RefNotFound"),
            (gateway(plain()), Found::Invalid("no".into()), "InvalidParameters", "ResolvedRefs"),
            (named, none(), "Invalid", "ResolvedRefs"),
            (proxied("gatewayTopology: {proxyProtocol: {}}"), none(), "InvalidParameters", "ResolvedRefs"),
            (
                proxied("gatewayTopology: {numTrustedProxies: -1}"),
                none(),
                "InvalidParameters",
                "ResolvedRefs",
            ),
            (proxied("gatewayTopology: ["), none(), "InvalidParameters", "ResolvedRefs"),
            (
                with(
                    "infrastructure",
                    json!({"annotations": {"proxy.istio.io/config": "gatewayTopology: {proxyProtocol: {}}"}}),
                ),
                none(),
                "InvalidParameters",
                "ResolvedRefs",
            ),
        ] {
            let judged = judge(&gateway, &found, &Waypoints::default());
            assert_eq!((judged.accepted.reason, judged.resolved.reason), (accepted, resolved));
            assert!(judged.valid.is_none() && !judged.accepted.holds);
        }
    }

    #[test]
    fn a_listener_that_is_not_served_does_not_stop_the_others() {
        let mut spec = plain();
        spec["listeners"] = json!([
            {"name": "web", "port": 80, "protocol": "HTTP"},
            {"name": "mesh", "port": 15008, "protocol": "HBONE"},
            {"name": "odd", "port": 15009, "protocol": "HBONE"}
        ]);
        let gateway = gateway(spec);
        let judged = judge(&gateway, &none(), &Waypoints::default());
        assert_eq!(judged.valid.unwrap().listeners, ["mesh"]);
        assert_eq!((judged.accepted.holds, judged.accepted.reason), (true, "ListenersNotValid"));
        let reasons: Vec<_> =
            gateway.spec.listeners.iter().map(|l| listener_problem(l).map(|found| found.reason)).collect();
        assert_eq!(reasons, [Some("UnsupportedProtocol"), None, Some("PortUnavailable")]);
    }
}
