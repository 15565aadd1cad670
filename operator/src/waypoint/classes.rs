//! GatewayClasses that the operator creates, and their status.
//!
//! Invariant: pure; a class of another controller is left alone, whatever its name.

use ambit_api::{
    conditions::{ACCEPTED, reason},
    gateway::{GatewayClass, GatewayClassSpec, GatewayClassStatus},
    labels,
};
use jiff::Timestamp;
use kube::ResourceExt;

use super::WaypointWorld;
use crate::conditions::{Finding, dated};

/// Names of the classes.
const CLASSES: [&str; 2] = [labels::WAYPOINT_CLASS, labels::ISTIO_WAYPOINT_CLASS];

/// Classes to create: those whose name is free.
pub(crate) fn missing(world: &WaypointWorld) -> Vec<GatewayClass> {
    let is_there = |name: &str| world.classes.iter().any(|class| class.name_any() == name);
    CLASSES.into_iter().filter(|name| !is_there(name)).map(class).collect()
}

/// Whether the operator created it.
pub(crate) fn is_made_here(class: &GatewayClass) -> bool {
    is_ours(class) && class.labels().contains_key(labels::MESH)
}

/// Whether it belongs to this controller.
pub(crate) fn is_ours(class: &GatewayClass) -> bool {
    class.spec.controller_name == labels::WAYPOINT_CONTROLLER
}

/// The status of a class of this controller.
pub(crate) fn status(class: &GatewayClass, now: Timestamp) -> GatewayClassStatus {
    let previous = class.status.clone().unwrap_or_default();
    let accepted = Finding::holds(ACCEPTED, reason::ACCEPTED, "Gateways of this class become waypoints");
    GatewayClassStatus {
        conditions: dated(&[accepted], &previous.conditions, class.metadata.generation, now),
    }
}

fn class(name: &str) -> GatewayClass {
    let spec = GatewayClassSpec {
        controller_name: labels::WAYPOINT_CONTROLLER.into(),
        description: Some("The L7 proxies of the mesh, one for each Gateway".into()),
    };
    let mut class = GatewayClass::new(name, spec);
    class.metadata.labels = Some(
        [
            (labels::MANAGED_BY.to_owned(), labels::FIELD_MANAGER.to_owned()),
            (labels::MESH.to_owned(), labels::MESH_NAME.to_owned()),
        ]
        .into(),
    );
    class
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_name_that_another_controller_has_taken_is_left_alone() {
        let mut theirs = class(labels::ISTIO_WAYPOINT_CLASS);
        theirs.spec.controller_name = "istio.io/mesh-controller".into();
        let world = WaypointWorld { classes: vec![Arc::new(theirs.clone())], ..WaypointWorld::default() };
        let made: Vec<String> = missing(&world).iter().map(ResourceExt::name_any).collect();
        assert_eq!(made, [labels::WAYPOINT_CLASS]);
        assert!(!is_ours(&theirs) && !is_made_here(&theirs));
        assert_eq!(missing(&WaypointWorld::default()).len(), 2);
    }

    #[test]
    fn a_class_that_was_accepted_needs_no_write() {
        let mut ours = class(labels::WAYPOINT_CLASS);
        let first = status(&ours, Timestamp::UNIX_EPOCH);
        assert_eq!((first.conditions.len(), first.conditions[0].status.as_str()), (1, "True"));
        ours.status = Some(first.clone());
        assert_eq!(status(&ours, Timestamp::MAX), first);
    }
}
