use std::time::SystemTime;

use ambit_index::{Index, Settings};
use kube::runtime::{reflector, watcher::Event};
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};

use super::*;
use crate::{
    spec::trust::wanted,
    testing::{self, Script, failure},
    waypoint::cache,
};

fn filled<K>(objects: impl IntoIterator<Item = Value>) -> Store<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    for object in objects {
        writer.apply_watcher_event(&Event::Apply(from_value(object).unwrap()));
    }
    store
}

fn class(controller: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "ambit-waypoint", "generation": 1, "resourceVersion": "1"},
        "spec": {"controllerName": controller}
    })
}

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": "shop", "uid": "g1", "generation": 1, "resourceVersion": "1"},
        "spec": {"gatewayClassName": "ambit-waypoint", "listeners": [
            {"name": "mesh", "port": 15008, "protocol": "HBONE"}]}
    })
}

fn trust() -> Trust {
    let mesh: Mesh = from_value(testing::mesh()).unwrap();
    let (wanted, now) = (wanted(&mesh).unwrap(), SystemTime::now());
    let secret = wanted.new_secret(None, now).unwrap().unwrap();
    wanted.load(&[Arc::new(secret)], now).unwrap()
}

fn caches() -> WaypointCaches {
    let mut caches = cache::empty();
    caches.classes = filled([class("ambit.dev/mesh-controller")]);
    caches.gateways = filled([gateway()]);
    caches
}

fn context(script: &Script, caches: WaypointCaches) -> (WaypointContext, mpsc::Receiver<Seen>) {
    let mesh: Mesh = from_value(testing::mesh()).unwrap();
    let operator = json!({
        "metadata": {"name": "ambit-operator", "namespace": "ambit-system"}, "spec": {"clusterIP": "10.96.0.7"}
    });
    let (seen, sent) = mpsc::channel(8);
    let context = WaypointContext {
        client: script.client(),
        caches,
        own_services: filled([operator]),
        index: SharedIndex::new(Index::new(Settings::default())),
        mesh: watch::channel(MeshState::Present(Arc::new(mesh))).1,
        leads: watch::channel(true).1,
        trust: watch::channel(Some(Arc::new(trust()))).1,
        image: "localhost/ambit-waypoint:dev".into(),
        events: Events::new(script.client(), "test".into()),
        wake: watch::channel(()).1,
        seen,
    };
    (context, sent)
}

async fn pass(context: &WaypointContext) -> Duration {
    reconcile(context, &mut Reader::default(), &mut None).await.unwrap()
}

fn writes(script: &Script) -> Vec<String> {
    let all = script.seen().into_iter().filter(|seen| seen.method != "GET" && !seen.path.contains("/events"));
    all.map(|seen| format!("{} {}", seen.method, seen.path)).collect()
}

fn status(script: &Script) -> Value {
    let written =
        script.seen().into_iter().rev().find(|seen| seen.path.ends_with("/gateways/waypoint/status"));
    written.unwrap().body["status"].clone()
}

fn condition(status: &Value, kind: &str) -> (String, String) {
    let all = status["conditions"].as_array().unwrap();
    let found = all.iter().find(|condition| condition["type"] == kind).unwrap();
    (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_gateway_gets_roots_account_address_pods_and_a_status() {
    let script = Script::default();
    let (context, mut sent) = context(&script, caches());
    assert_eq!(pass(&context).await, RESYNC);
    let core = "PATCH /api/v1/namespaces/shop";
    assert_eq!(
        writes(&script),
        [
            format!("{core}/configmaps/istio-ca-root-cert"),
            format!("{core}/serviceaccounts/waypoint"),
            format!("{core}/services/waypoint"),
            "PATCH /apis/apps/v1/namespaces/shop/deployments/waypoint".to_owned(),
            "PATCH /apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/waypoint".to_owned(),
            "PATCH /apis/policy/v1/namespaces/shop/poddisruptionbudgets/waypoint".to_owned(),
            "PATCH /apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/waypoint/status".to_owned(),
        ]
    );
    let status = status(&script);
    assert_eq!(condition(&status, "Accepted"), ("True".into(), "Accepted".into()));
    assert_eq!(condition(&status, "Programmed"), ("False".into(), "AddressNotAssigned".into()));
    let Some(Seen::FailurePolicy(of, policy)) = sent.recv().await else { panic!("nothing is sent") };
    assert_eq!((of, policy), (NamespacedName::new("shop", "waypoint"), Some(FailurePolicy::Closed)));
}

#[tokio::test]
async fn what_is_there_already_is_not_written_again_and_a_ready_pod_gives_addresses() {
    let first = Script::default();
    let (context_of_first, _told) = context(&first, caches());
    pass(&context_of_first).await;
    let written = |kind: &str| -> Vec<Value> {
        let all = first.seen().into_iter().filter(|seen| seen.method == "PATCH" && seen.path.contains(kind));
        all.map(|seen| seen.body).collect()
    };
    let mut caches = caches();
    caches.config_maps = filled(written("/configmaps/"));
    caches.service_accounts = filled(written("/serviceaccounts/"));
    let mut service = written("/services/").remove(0);
    service["spec"]["clusterIP"] = json!("10.96.1.1");
    caches.services = filled([service]);
    let mut deployment = written("/deployments/").remove(0);
    deployment["status"] = json!({"readyReplicas": 1});
    caches.deployments = filled([deployment]);
    caches.autoscalers = filled(written("/horizontalpodautoscalers/"));
    caches.disruption_budgets = filled(written("/poddisruptionbudgets/"));
    let script = Script::default();
    let (mut context, _told) = context(&script, caches);
    // The roots are those of the first run.
    context.trust = context_of_first.trust.clone();
    pass(&context).await;
    assert_eq!(
        writes(&script),
        ["PATCH /apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/waypoint/status"]
    );
    let status = status(&script);
    assert_eq!(condition(&status, "Programmed"), ("True".into(), "Programmed".into()));
    assert_eq!(status["addresses"][1], json!({"type": "IPAddress", "value": "10.96.1.1"}));
    let counted = observe(&context.caches, &context.index.read(), Timestamp::UNIX_EPOCH).counted();
    assert_eq!((counted.total, counted.ready), (1, 1));
}

#[tokio::test]
async fn somebody_elses_object_of_the_same_name_stops_the_rollout_with_a_condition() {
    let foreign = json!({"metadata": {"name": "waypoint", "namespace": "shop"}, "spec": {}});
    let script = Script::new([(200, foreign)]);
    let (context, _told) = context(&script, caches());
    assert_eq!(pass(&context).await, RESYNC);
    assert!(writes(&script).iter().all(|write| write.ends_with("/status")), "{:?}", writes(&script));
    assert_eq!(condition(&status(&script), "Programmed"), ("False".into(), "NameTaken".into()));
}

#[tokio::test]
async fn a_refused_write_is_told_and_tried_again_soon() {
    let script = Script::new([failure(403, "Forbidden")]);
    let (mut context, _told) = context(&script, caches());
    context.trust = watch::channel(Some(Arc::new(trust()))).1;
    assert!(reconcile(&context, &mut Reader::default(), &mut None).await.is_err());
    assert_eq!(condition(&status(&script), "Programmed"), ("False".into(), "ApplyFailed".into()));
}

#[tokio::test]
async fn a_gateway_of_another_controller_is_nobody_of_ours() {
    let script = Script::default();
    let mut caches = caches();
    caches.classes = filled([class("istio.io/mesh-controller")]);
    let (context, _told) = context(&script, caches);
    pass(&context).await;
    assert_eq!(writes(&script), Vec::<String>::new());
}

#[tokio::test]
async fn a_replica_that_does_not_lead_tells_its_index_and_writes_nothing() {
    let script = Script::default();
    let (mut context, mut sent) = context(&script, caches());
    context.leads = watch::channel(false).1;
    pass(&context).await;
    assert_eq!(writes(&script), Vec::<String>::new());
    assert!(matches!(sent.recv().await, Some(Seen::FailurePolicy(..))));
    assert!(matches!(sent.recv().await, Some(Seen::FailurePoliciesSaid)), "that was all");
}

#[tokio::test]
async fn a_mesh_that_goes_is_left_to_its_own_reconcile() {
    let script = Script::default();
    let (mut context, _told) = context(&script, caches());
    let mut mesh = testing::mesh();
    mesh["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    context.mesh = watch::channel(MeshState::Present(Arc::new(from_value(mesh).unwrap()))).1;
    pass(&context).await;
    assert_eq!(writes(&script), Vec::<String>::new());
}

#[tokio::test]
async fn a_waypoint_waits_for_an_authority_and_says_so() {
    let script = Script::default();
    let (mut context, _told) = context(&script, caches());
    context.trust = watch::channel(None).1;
    pass(&context).await;
    assert_eq!(writes(&script).len(), 1, "only the status");
    assert_eq!(condition(&status(&script), "Programmed"), ("False".into(), "Pending".into()));
}
