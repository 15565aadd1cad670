//! Gateways that namespaces request by their label, and that users did not create.
//!
//! Invariant: pure; a Gateway that a user created, or that is in use, is never deleted.

use std::collections::BTreeSet;

use ambit_api::{
    gateway::{AllowedRoutes, Gateway, GatewaySpec, Listener, RouteNamespaces},
    labels,
};
use ambit_index::name_of;
use ambit_model::{HBONE_PORT, NamespacedName};
use kube::ResourceExt;

use super::WaypointWorld;

/// Gateways to create and to delete.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Gateways to make.
    pub create: Vec<Gateway>,
    /// Gateways to delete.
    pub delete: Vec<NamespacedName>,
}

/// Computes the plan. `auto_create` is the Mesh's setting.
pub(crate) fn plan(world: &WaypointWorld, auto_create: bool) -> Plan {
    let existing: BTreeSet<NamespacedName> =
        world.gateways.iter().map(|gateway| name_of(&gateway.metadata)).collect();
    let missing =
        world.requests.iter().filter(|request| request.is_enrolled && !existing.contains(&request.gateway));
    let stale = world.gateways.iter().filter(|gateway| {
        let name = name_of(&gateway.metadata);
        is_auto_created(gateway)
            && gateway.metadata.deletion_timestamp.is_none()
            && !world.requests.iter().any(|request| request.gateway == name)
            && !world.in_use.contains(&name)
    });
    Plan {
        create: missing.filter(|_| auto_create).map(|request| gateway(&request.gateway)).collect(),
        delete: stale.map(|gateway| name_of(&gateway.metadata)).collect(),
    }
}

/// Whether this Gateway was created because of a namespace's label.
pub(crate) fn is_auto_created(gateway: &Gateway) -> bool {
    gateway.labels().get(labels::AUTO_CREATED).is_some_and(|value| value == "true")
}

fn gateway(name: &NamespacedName) -> Gateway {
    let same = RouteNamespaces { from: Some("Same".into()), ..RouteNamespaces::default() };
    let listener = Listener {
        name: "mesh".into(),
        port: HBONE_PORT.into(),
        protocol: labels::HBONE.into(),
        allowed_routes: Some(AllowedRoutes { namespaces: Some(same), ..AllowedRoutes::default() }),
    };
    let spec = GatewaySpec {
        gateway_class_name: labels::WAYPOINT_CLASS.into(),
        listeners: vec![listener],
        ..GatewaySpec::default()
    };
    let mut gateway = Gateway::new(&name.name, spec);
    gateway.metadata.namespace = Some(name.namespace.to_string());
    gateway.metadata.labels = Some(
        [
            (labels::AUTO_CREATED.to_owned(), "true".to_owned()),
            (labels::MANAGED_BY.to_owned(), labels::FIELD_MANAGER.to_owned()),
        ]
        .into(),
    );
    gateway
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::waypoint::waypoint_request::WaypointRequest;

    fn namespace(labels: &[(&str, &str)]) -> ObjectMeta {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ObjectMeta { name: Some("shop".into()), labels: Some(labels), ..ObjectMeta::default() }
    }

    fn request(is_enrolled: bool) -> WaypointRequest {
        WaypointRequest { gateway: NamespacedName::new("shop", "waypoint"), is_enrolled }
    }

    fn existing(is_auto_created: bool) -> Vec<Arc<Gateway>> {
        let mut gateway = gateway(&NamespacedName::new("shop", "waypoint"));
        if !is_auto_created {
            gateway.metadata.labels = None;
        }
        vec![Arc::new(gateway)]
    }

    #[test]
    fn a_namespace_asks_for_a_waypoint_of_its_own_only_by_a_name() {
        let read = |labels: &[(&str, &str)]| WaypointRequest::read(&namespace(labels), true).is_some();
        assert!(read(&[("istio.io/use-waypoint", "waypoint")]));
        assert!(read(&[("istio.io/use-waypoint", "waypoint"), ("istio.io/use-waypoint-namespace", "shop")]));
        assert!(!read(&[]));
        assert!(!read(&[("istio.io/use-waypoint", "none")]));
        assert!(!read(&[("istio.io/use-waypoint", "")]));
        assert!(!read(&[("istio.io/use-waypoint", "waypoint"), ("istio.io/use-waypoint-namespace", "edge")]));
        let mut ending = namespace(&[("istio.io/use-waypoint", "waypoint")]);
        ending.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(WaypointRequest::read(&ending, true), None);
    }

    #[test]
    fn a_gateway_is_made_once_the_namespace_is_in_the_mesh_and_only_when_nobody_made_it() {
        let creates = |requests: Vec<WaypointRequest>, gateways, auto_create| {
            let world = WaypointWorld { requests, gateways, ..WaypointWorld::default() };
            plan(&world, auto_create).create.len()
        };
        assert_eq!(creates(vec![request(true)], Vec::new(), true), 1);
        assert_eq!(creates(vec![request(false)], Vec::new(), true), 0, "L7 waits for L4");
        assert_eq!(creates(vec![request(true)], existing(false), true), 0);
        assert_eq!(creates(vec![request(true)], Vec::new(), false), 0);
    }

    #[test]
    fn only_a_gateway_that_we_made_and_nothing_uses_is_taken_away() {
        let deletes = |requests: Vec<WaypointRequest>, gateways, in_use: bool| {
            let in_use = in_use.then(|| NamespacedName::new("shop", "waypoint")).into_iter().collect();
            let world = WaypointWorld { requests, gateways, in_use, ..WaypointWorld::default() };
            plan(&world, true).delete.len()
        };
        assert_eq!(deletes(Vec::new(), existing(true), false), 1);
        assert_eq!(deletes(vec![request(false)], existing(true), false), 0, "the label is still there");
        assert_eq!(deletes(Vec::new(), existing(true), true), 0, "a service is still bound to it");
        assert_eq!(deletes(Vec::new(), existing(false), false), 0, "a user made it");
    }

    #[test]
    fn what_is_made_is_a_waypoint_as_the_guides_show_it() {
        let world = WaypointWorld { requests: vec![request(true)], ..WaypointWorld::default() };
        let made = plan(&world, true).create.remove(0);
        let found = super::super::validate::Found::Parameters(Box::default());
        let judged = super::super::validate::judge(&made, &found, &ambit_api::mesh::Waypoints::default());
        assert!(judged.valid.is_some() && is_auto_created(&made));
    }
}
