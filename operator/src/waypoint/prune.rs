//! Removal of objects that are not needed any more: of changed waypoints, and of all when the Mesh
//! is deleted.
//!
//! Invariant: only objects with our label are deleted (the caches hold no others), and none because
//! a Gateway or a class is not visible. Objects of a deleted Gateway are garbage-collected by their
//! owner reference.

use std::collections::BTreeSet;

use ambit_api::{
    conditions::{PROGRAMMED, reason},
    gateway::Gateway,
    labels,
    mesh::Replicas,
};
use ambit_index::name_of;
use ambit_model::NamespacedName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt, api::DeleteParams};
use serde_json::json;

use super::{WaypointWorld, classes, create::is_auto_created};
use crate::{
    apply,
    conditions::{Finding, dated},
    error::{Error, is_not_found},
    object_status::{self, Judged},
};

/// Deletes what no waypoint needs any more. `replicas` returns the number of pods of an accepted
/// waypoint.
///
/// # Errors
/// The first deletion that failed; the others were attempted too.
pub(crate) async fn prune(
    client: &Client,
    world: &WaypointWorld,
    replicas: impl Fn(&NamespacedName) -> Option<Replicas>,
) -> Result<(), Error> {
    let (foreign, others): (Vec<_>, Vec<_>) = world.gateways.iter().partition(|g| is_foreign(world, g));
    let foreign: BTreeSet<NamespacedName> =
        foreign.iter().map(|gateway| name_of(&gateway.metadata)).collect();
    let is_kept = |metadata: &ObjectMeta| !foreign.contains(&gateway_of(metadata));
    let is_scaled = |metadata: &ObjectMeta| replicas(&gateway_of(metadata)).is_none_or(|r| r.max > r.min);
    let is_budgeted = |metadata: &ObjectMeta| replicas(&gateway_of(metadata)).is_none_or(|r| r.min > 1);
    // Roots belong to all waypoints of their namespace.
    let is_needed = |metadata: &ObjectMeta| {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let is_left = foreign.iter().any(|gateway| &*gateway.namespace == namespace);
        !is_left || others.iter().any(|gateway| gateway.namespace().as_deref() == Some(namespace))
    };
    let results = [
        apply::prune(client, &world.disruption_budgets, |object| {
            is_kept(&object.metadata) && is_budgeted(&object.metadata)
        })
        .await,
        apply::prune(client, &world.autoscalers, |object| {
            is_kept(&object.metadata) && is_scaled(&object.metadata)
        })
        .await,
        apply::prune(client, &world.deployments, |object| is_kept(&object.metadata)).await,
        apply::prune(client, &world.services, |object| is_kept(&object.metadata)).await,
        apply::prune(client, &world.service_accounts, |object| is_kept(&object.metadata)).await,
        apply::prune(client, &world.config_maps, |object| is_needed(&object.metadata)).await,
    ];
    results.into_iter().collect()
}

/// Whether a Gateway's class belongs to another controller. If the class does not exist, it may be
/// ours.
fn is_foreign(world: &WaypointWorld, gateway: &Gateway) -> bool {
    let class = world.classes.iter().find(|class| class.name_any() == gateway.spec.gateway_class_name);
    class.is_some_and(|class| !classes::is_ours(class))
}

/// The Gateway for which an object was created.
fn gateway_of(metadata: &ObjectMeta) -> NamespacedName {
    let label = metadata.labels.as_ref().and_then(|all| all.get(labels::GATEWAY_NAME));
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    NamespacedName::new(namespace, label.map(String::as_str).unwrap_or_default())
}

/// Whether [`remove`] would find anything.
pub(crate) fn is_anything_left(world: &WaypointWorld) -> bool {
    !world.deployments.is_empty()
        || !world.services.is_empty()
        || !world.service_accounts.is_empty()
        || !world.config_maps.is_empty()
        || !world.autoscalers.is_empty()
        || !world.disruption_budgets.is_empty()
        || world.gateways.iter().any(|gateway| is_auto_created(gateway))
        || world.waypoints().any(has_addresses)
        || world.classes.iter().any(|class| classes::is_made_here(class))
}

/// Removes all objects of waypoints. Users' Gateways stay, with a status that nothing serves them.
/// Classes are removed last, because without its class a Gateway belongs to no controller.
///
/// # Errors
/// The first write that failed; the others were attempted too.
pub(crate) async fn remove(client: &Client, world: &WaypointWorld) -> Result<(), Error> {
    let results = [
        apply::prune(client, &world.disruption_budgets, |_| false).await,
        apply::prune(client, &world.autoscalers, |_| false).await,
        apply::prune(client, &world.deployments, |_| false).await,
        apply::prune(client, &world.services, |_| false).await,
        apply::prune(client, &world.service_accounts, |_| false).await,
        apply::prune(client, &world.config_maps, |_| false).await,
        apply::prune(client, &world.gateways, |gateway| !is_auto_created(gateway)).await,
        withdraw(client, world).await,
    ];
    results.into_iter().collect::<Result<(), Error>>()?;
    for class in world.classes.iter().filter(|class| classes::is_made_here(class)) {
        let api: Api<ambit_api::gateway::GatewayClass> = Api::all(client.clone());
        match api.delete(&class.name_any(), &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => {
                return Err(Error::api(format!("deleting GatewayClass {}", class.name_any()), error));
            }
        }
    }
    Ok(())
}

fn has_addresses(gateway: &Gateway) -> bool {
    !is_auto_created(gateway) && gateway.status.as_ref().is_some_and(|status| !status.addresses.is_empty())
}

/// Removes the addresses of Gateways, which mean that a waypoint exists; the next Mesh must not
/// rely on old ones.
async fn withdraw(client: &Client, world: &WaypointWorld) -> Result<(), Error> {
    let gone = Finding::fails(PROGRAMMED, reason::PENDING, "the Mesh was deleted");
    let mut result = Ok(());
    for gateway in world.waypoints().filter(|gateway| has_addresses(gateway)) {
        let previous = gateway.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let conditions = dated(std::slice::from_ref(&gone), previous, gateway.metadata.generation, world.now);
        let status = json!({"addresses": null, "listeners": null, "conditions": conditions});
        result = result.and(object_status::write(client, &Judged::of(gateway), &status).await);
    }
    result
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::{apps::v1::Deployment, policy::v1::PodDisruptionBudget};
    use serde_json::{Value, from_value};

    use super::*;
    use crate::testing::Script;

    fn metadata(name: &str, namespace: &str) -> Value {
        json!({"name": name, "namespace": namespace, "resourceVersion": "1", "labels": {
            labels::GATEWAY_MANAGED: labels::WAYPOINT_MANAGED, labels::GATEWAY_NAME: name
        }})
    }

    fn gateway(name: &str, class: &str) -> Arc<Gateway> {
        Arc::new(
            from_value(json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
                "spec": {"gatewayClassName": class, "listeners": []},
                "status": {"addresses": [{"value": "10.0.0.1"}]}
            }))
            .unwrap(),
        )
    }

    fn world(gateways: Vec<Arc<Gateway>>) -> WaypointWorld {
        let class = |name: &str, controller: &str| {
            Arc::new(
                from_value(json!({
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
                    "metadata": {"name": name, "labels": {"ambit.dev/mesh": "default"}},
                    "spec": {"controllerName": controller}
                }))
                .unwrap(),
            )
        };
        let deployment = |name: &str| {
            Arc::new(from_value::<Deployment>(json!({"metadata": metadata(name, "shop")})).unwrap())
        };
        WaypointWorld {
            gateways,
            classes: vec![class("ambit-waypoint", labels::WAYPOINT_CONTROLLER), class("theirs", "x/y")],
            deployments: vec![deployment("ours"), deployment("theirs"), deployment("unseen")],
            disruption_budgets: vec![Arc::new(
                from_value::<PodDisruptionBudget>(json!({"metadata": metadata("ours", "shop")})).unwrap(),
            )],
            ..WaypointWorld::default()
        }
    }

    #[tokio::test]
    async fn a_waypoint_that_changed_its_class_is_taken_away_and_one_that_cannot_be_seen_is_not() {
        let script = Script::default();
        let world = world(vec![gateway("ours", "ambit-waypoint"), gateway("theirs", "theirs")]);
        let replicas = |name: &NamespacedName| (&*name.name == "ours").then_some(Replicas { min: 1, max: 1 });
        prune(&script.client(), &world, replicas).await.unwrap();
        assert_eq!(
            script.requests(),
            [
                "DELETE /apis/policy/v1/namespaces/shop/poddisruptionbudgets/ours",
                "DELETE /apis/apps/v1/namespaces/shop/deployments/theirs"
            ]
        );
    }

    #[tokio::test]
    async fn a_class_that_is_missing_for_a_moment_takes_nothing_away() {
        let script = Script::default();
        let world = WaypointWorld { classes: Vec::new(), ..world(vec![gateway("ours", "ambit-waypoint")]) };
        prune(&script.client(), &world, |_| None).await.unwrap();
        assert_eq!(script.requests(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn nothing_is_left_after_the_mesh_but_gateways_that_say_so() {
        let script = Script::default();
        let world = world(vec![gateway("ours", "ambit-waypoint")]);
        assert!(is_anything_left(&world));
        remove(&script.client(), &world).await.unwrap();
        let seen = script.requests();
        assert_eq!(seen.iter().filter(|request| request.starts_with("DELETE")).count(), 5, "{seen:?}");
        let status =
            script.seen().into_iter().find(|seen| seen.path.ends_with("/gateways/ours/status")).unwrap();
        assert_eq!(status.body["status"]["addresses"], Value::Null);
        assert_eq!(status.body["status"]["conditions"][0]["status"], "False");
        assert!(seen.last().unwrap().ends_with("gatewayclasses/ambit-waypoint"));
        assert!(!is_anything_left(&WaypointWorld::default()));
    }
}
