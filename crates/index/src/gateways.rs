//! Gateways and GatewayClasses: which Gateways are waypoints, for which traffic, and which
//! namespaces may attach.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::{
    gateway::{Gateway, GatewayClass, LabelSelector, LabelSelectorRequirement, Listener, trusted_proxies},
    labels,
};
use ambit_model::{HBONE_PORT, NamespacedName};

use crate::object::{label, name_of};

/// Which traffic a waypoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Serves {
    /// Traffic addressed to services (`service`).
    Services,
    /// Traffic addressed to pods (`workload`).
    Workloads,
    /// Both (`all`).
    All,
    /// None (`none`, and unknown values).
    Nothing,
}

impl Serves {
    /// Parses the label value; `None` without a label.
    fn read(value: Option<&str>) -> Option<Self> {
        Some(match value? {
            labels::FOR_SERVICE => Self::Services,
            labels::FOR_WORKLOAD => Self::Workloads,
            labels::FOR_ALL => Self::All,
            _ => Self::Nothing,
        })
    }
}

/// Which namespaces may attach.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Same,
    All,
    Selector(LabelSelector),
    Nobody,
}

/// The parts of a waypoint's Gateway that the model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayFacts {
    pub(crate) name: NamespacedName,
    pub(crate) class: Arc<str>,
    /// Value of the Gateway's own label.
    pub(crate) serves: Option<Serves>,
    /// One of its pods has been ready: the Gateway has an address.
    pub(crate) has_been_ready: bool,
    /// Number of trusted proxies in front of the waypoint's peers, from the Gateway's annotation.
    pub(crate) trusted_proxies: Option<u32>,
    allowed: Allowed,
}

impl GatewayFacts {
    /// Parses a Gateway; `None` if its class is not a waypoint class.
    pub(crate) fn read(gateway: &Gateway) -> Option<Self> {
        let class = gateway.spec.gateway_class_name.as_str();
        if class != labels::WAYPOINT_CLASS && class != labels::ISTIO_WAYPOINT_CLASS {
            return None;
        }
        let name = name_of(&gateway.metadata);
        let is_tunnel = |l: &&Listener| l.protocol == labels::HBONE && l.port == i32::from(HBONE_PORT);
        Some(Self {
            class: class.into(),
            serves: Serves::read(label(&gateway.metadata, labels::WAYPOINT_FOR)),
            has_been_ready: gateway.status.as_ref().is_some_and(|status| !status.addresses.is_empty()),
            trusted_proxies: gateway.proxy_config().and_then(|config| trusted_proxies(config)),
            // By default, only the Gateway's own namespace may attach, as in Istio.
            allowed: gateway.spec.listeners.iter().find(is_tunnel).map_or(Allowed::Same, allowed),
            name,
        })
    }

    /// Whether objects of a namespace may attach.
    pub(crate) fn admits(&self, namespace: &Arc<str>, labels: &BTreeMap<String, String>) -> bool {
        match &self.allowed {
            Allowed::Same => *namespace == self.name.namespace,
            Allowed::All => true,
            Allowed::Selector(selector) => selects(selector, labels),
            Allowed::Nobody => false,
        }
    }
}

/// The parts of a GatewayClass that the model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassFacts {
    /// Default for Gateways that do not set it.
    pub(crate) serves: Option<Serves>,
    /// The class belongs to this mesh's controller.
    pub(crate) is_ours: bool,
}

impl ClassFacts {
    /// Parses a class.
    pub(crate) fn read(class: &GatewayClass) -> Self {
        Self {
            serves: Serves::read(label(&class.metadata, labels::WAYPOINT_FOR)),
            is_ours: class.spec.controller_name == labels::WAYPOINT_CONTROLLER,
        }
    }
}

fn allowed(listener: &Listener) -> Allowed {
    let namespaces = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    match namespaces.and_then(|namespaces| namespaces.from.as_deref()) {
        None | Some("Same") => Allowed::Same,
        Some("All") => Allowed::All,
        Some("Selector") => match namespaces.and_then(|namespaces| namespaces.selector.clone()) {
            Some(selector) => Allowed::Selector(selector),
            None => Allowed::Nobody,
        },
        Some(_) => Allowed::Nobody,
    }
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let holds = |requirement: &LabelSelectorRequirement| {
        let value = labels.get(&requirement.key);
        let is_among = value.is_some_and(|value| requirement.values.contains(value));
        match requirement.operator.as_str() {
            "In" => is_among,
            "NotIn" => !is_among,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    crate::selector::matches(&selector.match_labels, labels) && selector.match_expressions.iter().all(holds)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn gateway(allowed: Value) -> GatewayFacts {
        let gateway = serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "waypoint", "namespace": "shop"},
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": [
                {"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": allowed}}]}
        }));
        GatewayFacts::read(&gateway.unwrap()).unwrap()
    }

    #[test]
    fn namespaces_attach_as_the_listener_allows() {
        let selects = |expressions: Value| json!({"from": "Selector", "selector": expressions});
        let of = |operator: &str| json!({"matchExpressions": [{"key": "team", "operator": operator, "values": ["a"]}]});
        for (allowed, same, team, other) in [
            (json!({}), true, false, false),
            (json!({"from": "Same"}), true, false, false),
            (json!({"from": "All"}), true, true, true),
            (json!({"from": "None"}), false, false, false),
            (json!({"from": "Elsewhere"}), false, false, false),
            (json!({"from": "Selector"}), false, false, false),
            (selects(json!({})), true, true, true),
            (selects(json!({"matchLabels": {"team": "a"}})), false, true, false),
            (selects(of("In")), false, true, false),
            (selects(of("NotIn")), true, false, true),
            (selects(of("Exists")), false, true, false),
            (selects(of("DoesNotExist")), true, false, true),
            (selects(of("Resembles")), false, false, false),
        ] {
            let gateway = gateway(allowed.clone());
            let labelled = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
            let found = (
                gateway.admits(&"shop".into(), &BTreeMap::new()),
                gateway.admits(&"pay".into(), &labelled),
                gateway.admits(&"other".into(), &BTreeMap::new()),
            );
            assert_eq!(found, (same, team, other), "{allowed}");
        }
    }

    #[test]
    fn only_the_tunnels_own_listener_lets_other_namespaces_attach() {
        let gateway = |listener: Value| {
            let gateway = serde_json::from_value(json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": "waypoint", "namespace": "shop"},
                "spec": {"gatewayClassName": "ambit-waypoint", "listeners": [listener]}
            }));
            let gateway = GatewayFacts::read(&gateway.unwrap()).unwrap();
            ["shop", "other"].map(|namespace| gateway.admits(&namespace.into(), &BTreeMap::new()))
        };
        let to_all = |port: u16, protocol: &str| {
            let allowed = json!({"namespaces": {"from": "All"}});
            json!({"name": "mesh", "port": port, "protocol": protocol, "allowedRoutes": allowed})
        };
        assert_eq!(gateway(to_all(15008, "HBONE")), [true, true]);
        assert_eq!(gateway(to_all(15009, "HBONE")), [true, false]);
        assert_eq!(gateway(to_all(15008, "HTTP")), [true, false]);
    }
}
