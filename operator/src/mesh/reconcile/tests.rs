use ambit_index::{Index, Settings};
use kube::runtime::reflector;
use serde_json::{Value, json};

use super::*;
use crate::testing::{self, Script};

fn context(script: &Script, mesh: Value, is_leading: bool) -> MeshContext {
    let mesh: Mesh = serde_json::from_value(mesh).unwrap();
    let caches = MeshCaches {
        daemon_sets: reflector::store().0,
        service_accounts: reflector::store().0,
        config_maps: reflector::store().0,
        secrets: reflector::store().0,
        services: reflector::store().0,
        pods: reflector::store().0,
    };
    MeshContext {
        client: script.client(),
        caches,
        index: SharedIndex::new(Index::new(Settings::default())),
        mesh: watch::channel(MeshState::Present(Arc::new(mesh))).1,
        leads: watch::channel(is_leading).1,
        trust: watch::Sender::new(None),
        images: Images::default(),
        events: Events::new(script.client(), "test".into()),
        wake: watch::channel(()).1,
        waypoints: waypoint::cache::empty(),
        metrics: Metrics::default(),
    }
}

fn requests(script: &Script) -> Vec<String> {
    script.requests().into_iter().filter(|request| !request.contains("/events")).collect()
}

#[tokio::test]
async fn the_first_reconcile_makes_an_authority_takes_the_mesh_and_says_all_conditions() {
    let script = Script::default();
    reconcile(&context(&script, testing::mesh(), true)).await.unwrap();
    let accounts = "/api/v1/namespaces/ambit-system/serviceaccounts";
    assert_eq!(
        requests(&script),
        [
            "POST /api/v1/namespaces/ambit-system/secrets".to_owned(),
            "PATCH /apis/ambit.dev/v1alpha1/meshes/default".to_owned(),
            format!("PATCH {accounts}/ambit-node-agent"),
            format!("PATCH {accounts}/ztunnel"),
            "PATCH /apis/ambit.dev/v1alpha1/meshes/default/status".to_owned(),
        ]
    );
    let seen = script.seen();
    assert_eq!(seen[1].body["metadata"]["finalizers"], json!([labels::FINALIZER]));
    assert_eq!(seen[4].body["status"]["conditions"].as_array().unwrap().len(), 5);
    let events = script.seen().into_iter().filter(|seen| seen.path.contains("/events")).count();
    assert_eq!(events, 4, "one for every condition but Ready, which repeats them");
}

#[tokio::test]
async fn a_replica_that_does_not_lead_writes_nothing() {
    let script = Script::default();
    reconcile(&context(&script, testing::mesh(), false)).await.unwrap();
    assert_eq!(requests(&script), Vec::<String>::new());
}

#[tokio::test]
async fn a_secret_that_was_asked_for_and_is_missing_is_said_and_never_made() {
    let script = Script::default();
    let mut mesh = testing::mesh();
    mesh["spec"] = json!({"trust": {"ca": {"secret": {"name": "cacerts"}}}});
    reconcile(&context(&script, mesh, true)).await.unwrap();
    assert!(requests(&script).iter().all(|request| !request.contains("secrets")));
    let status = script.seen().into_iter().find(|seen| seen.path.ends_with("/status")).unwrap();
    let conditions = status.body["status"]["conditions"].as_array().unwrap().clone();
    let trust = conditions.iter().find(|condition| condition["type"] == "TrustReady").unwrap();
    assert_eq!((&trust["status"], &trust["reason"]), (&json!("False"), &json!("CANotFound")));
}

#[tokio::test]
async fn a_deleted_mesh_of_which_nothing_is_left_loses_our_finalizer_alone() {
    let script = Script::default();
    let mut mesh = testing::mesh();
    mesh["metadata"]["finalizers"] = json!(["other.example/x", labels::FINALIZER]);
    mesh["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    reconcile(&context(&script, mesh, true)).await.unwrap();
    assert_eq!(requests(&script), ["PATCH /apis/ambit.dev/v1alpha1/meshes/default"]);
    assert_eq!(script.seen()[0].body["metadata"]["finalizers"], json!(["other.example/x"]));
}

#[tokio::test]
async fn a_changed_trust_domain_is_refused_and_what_runs_stays() {
    let script = Script::default();
    let mut mesh = testing::mesh();
    mesh["spec"] = json!({"trust": {"domain": "new.example"}});
    mesh["metadata"]["finalizers"] = json!([labels::FINALIZER]);
    mesh["status"] = json!({"trust": {"phase": "Stable", "domain": "cluster.local"}, "conditions": []});
    reconcile(&context(&script, mesh, true)).await.unwrap();
    let status = script.seen().into_iter().find(|seen| seen.path.ends_with("/status")).unwrap();
    let conditions = status.body["status"]["conditions"].as_array().unwrap().clone();
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted").unwrap();
    assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("TrustDomainImmutable")));
    assert_eq!(status.body["status"]["trust"]["domain"], "cluster.local");
    assert!(requests(&script).iter().all(|request| !request.contains("serviceaccounts")));
}
