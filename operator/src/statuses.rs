//! Writes the status of users' objects, which describes what is enforced or served; the leader
//! writes it if it has changed. A pod's status cannot hold the waypoint behind which the pod is
//! closed, so it gets an annotation.

use std::{sync::Arc, time::Duration};

use ambit_api::{
    AuthorizationPolicy, PeerAuthentication, RequestAuthentication, TrafficPolicy,
    gateway::{GrpcRoute, HttpRoute, TcpRoute, TlsRoute},
};
use ambit_index::{Holds, Index, Judgement, Kind, PodIdentity, RouteKind, RoutePatch, StatusPatch};
use ambit_model::NamespacedName;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::{Client, api::ApiResource};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::{
    conditions::{Finding, dated},
    events::Events,
    object_status::{self, Judged},
    pods,
    state::SharedIndex,
};

mod refused;

use refused::Announced;

/// Changes within this time are written together.
const GATHER: Duration = Duration::from_millis(100);
/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(2);

/// Writes until dropped, while this replica leads.
pub(crate) async fn run(
    client: Client,
    events: Events,
    index: SharedIndex,
    mut leads: watch::Receiver<bool>,
    wake: Arc<Notify>,
) {
    let mut announced = Announced::default();
    loop {
        tokio::select! {
            () = wake.notified() => tokio::time::sleep(GATHER).await,
            changed = leads.changed() => if changed.is_err() { return },
        }
        if !*leads.borrow() {
            continue;
        }
        let refused = announced.news(index.read().refused_pods());
        for refused in refused {
            refused.write_event(&events).await;
        }
        let (patches, outdated) = {
            let index = index.read();
            let owned = |(pod, waypoint): (PodIdentity, Option<&NamespacedName>)| (pod, waypoint.cloned());
            (patches(&index, Timestamp::now()), index.pods_to_annotate().map(owned).collect::<Vec<_>>())
        };
        let mut is_failed = false;
        for (pod, waypoint) in outdated {
            if let Err(error) = pods::remember(&client, &pod, waypoint.as_ref()).await {
                tracing::warn!(%error, "The waypoint annotation of a pod cannot be written, trying again");
                is_failed = true;
            }
        }
        for (judged, status) in patches {
            if let Err(error) = object_status::write(&client, &judged, &status).await {
                tracing::warn!(%error, "A status cannot be written, trying again");
                is_failed = true;
            }
        }
        if is_failed {
            tokio::time::sleep(RETRY).await;
            wake.notify_one();
        }
    }
}

/// All statuses that must be written.
fn patches(index: &Index, now: Timestamp) -> Vec<(Judged, Value)> {
    let policies = index.status_patches().into_iter().filter_map(|patch| of_policy(&patch, now));
    policies.chain(index.route_patches().iter().map(|patch| of_route(patch, now))).collect()
}

fn of_policy(patch: &StatusPatch, now: Timestamp) -> Option<(Judged, Value)> {
    let judged = Judged {
        resource: resource(patch.kind)?,
        namespace: Some(patch.name.namespace.to_string()),
        name: patch.name.name.to_string(),
        version: patch.resource_version.clone(),
    };
    let conditions = dated(&findings(patch), &patch.current, patch.generation, now);
    Some((judged, json!({"conditions": conditions})))
}

fn of_route(patch: &RoutePatch, now: Timestamp) -> (Judged, Value) {
    let resource = match patch.key.kind {
        RouteKind::Http => ApiResource::erase::<HttpRoute>(&()),
        RouteKind::Grpc => ApiResource::erase::<GrpcRoute>(&()),
        RouteKind::Tcp => ApiResource::erase::<TcpRoute>(&()),
        RouteKind::Tls => ApiResource::erase::<TlsRoute>(&()),
    };
    let judged = Judged {
        resource,
        namespace: Some(patch.key.name.namespace.to_string()),
        name: patch.key.name.name.to_string(),
        version: patch.resource_version.clone(),
    };
    (judged, json!({"parents": patch.status(&now.to_string())}))
}

/// Resource of the kinds whose conditions the index computes.
fn resource(kind: Kind) -> Option<ApiResource> {
    match kind {
        Kind::AuthorizationPolicy => Some(ApiResource::erase::<AuthorizationPolicy>(&())),
        Kind::PeerAuthentication => Some(ApiResource::erase::<PeerAuthentication>(&())),
        Kind::RequestAuthentication => Some(ApiResource::erase::<RequestAuthentication>(&())),
        Kind::TrafficPolicy => Some(ApiResource::erase::<TrafficPolicy>(&())),
        Kind::Service => Some(ApiResource::erase::<Service>(&())),
        Kind::Pod
        | Kind::EndpointSlice
        | Kind::Node
        | Kind::Namespace
        | Kind::Gateway
        | Kind::GatewayClass
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::ReferenceGrant
        | Kind::ValidatingWebhook
        | Kind::MutatingWebhook
        | Kind::ApiService
        | Kind::CustomResource => None,
    }
}

fn findings(patch: &StatusPatch) -> Vec<Finding> {
    let finding = |judgement: &Judgement| Finding {
        kind: judgement.condition,
        holds: judgement.holds == Holds::True,
        reason: judgement.reason,
        message: judgement.message.clone(),
    };
    patch.judgements.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use ambit_index::{Object, Presence, Settings};
    use serde_json::from_value;

    use super::*;

    fn index() -> Index {
        Index::new(Settings { presence: Presence::Present, ..Settings::default() })
    }

    fn route(parents: Value) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "split", "namespace": "shop", "resourceVersion": "7", "generation": 1},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": [{}]},
            "status": {"parents": parents}
        })
    }

    fn service() -> Object {
        Object::Service(Box::new(
            from_value(json!({
                "metadata": {"name": "cart", "namespace": "shop", "resourceVersion": "3"},
                "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "selector": {"app": "cart"},
                         "ports": [{"port": 80, "protocol": "TCP"}]}
            }))
            .unwrap(),
        ))
    }

    #[test]
    fn a_route_keeps_what_other_controllers_say_and_needs_no_second_write() {
        let theirs =
            json!({"parentRef": {"name": "edge"}, "controllerName": "example.com/x", "conditions": []});
        let mut index = index();
        let _ = index.apply(service());
        let _ = index.apply(Object::HttpRoute(Box::new(from_value(route(json!([theirs]))).unwrap())));
        let written = patches(&index, Timestamp::UNIX_EPOCH);
        assert_eq!(written.len(), 1);
        let (judged, status) = &written[0];
        assert_eq!((judged.resource.plural.as_str(), judged.version.as_str()), ("httproutes", "7"));
        let parents = status["parents"].as_array().unwrap();
        assert_eq!((&parents[0]["controllerName"], parents.len()), (&json!("example.com/x"), 2));
        assert_eq!(parents[1]["controllerName"], "ambit.dev/mesh-controller");
        let _ =
            index.apply(Object::HttpRoute(Box::new(from_value(route(status["parents"].clone())).unwrap())));
        assert_eq!(patches(&index, Timestamp::MAX).len(), 0);
    }

    #[test]
    fn a_service_that_asks_for_a_waypoint_is_told_whether_it_has_one() {
        let mut index = index();
        let Object::Service(mut asking) = service() else { panic!("a service") };
        let label = ("istio.io/use-waypoint".to_owned(), "waypoint".to_owned());
        asking.metadata.labels = Some([label].into());
        let _ = index.apply(Object::Service(asking));
        let written = patches(&index, Timestamp::UNIX_EPOCH);
        let (judged, status) = &written[0];
        assert_eq!((judged.resource.plural.as_str(), judged.name.as_str()), ("services", "cart"));
        assert_eq!(status["conditions"][0]["type"], "istio.io/WaypointBound");
        assert_eq!(status["conditions"][0]["status"], "False");
    }
}
