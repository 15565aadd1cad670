use std::collections::HashMap;

use ambit_api::{MeshSpec, labels, mesh::Replicas};
use k8s_openapi::api::core::v1::Capabilities;
use serde_json::json;

use super::*;
use crate::waypoint::{
    parameters::Parameters,
    validate::{Found, judge},
};

fn owner() -> OwnerReference {
    OwnerReference {
        api_version: "gateway.networking.k8s.io/v1".into(),
        kind: "Gateway".into(),
        name: "waypoint".into(),
        uid: "u1".into(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

fn given<'a>(mesh: &'a MeshSpec, owner: &'a OwnerReference) -> WaypointInputs<'a> {
    WaypointInputs {
        image: "localhost/ambit-waypoint:dev",
        operator_ip: "10.96.0.7",
        mesh,
        trust_domain: "cluster.local",
        certificate_seconds: 86_400,
        owner,
        scaled: None,
    }
}

fn valid(parameters: Parameters) -> ValidWaypoint {
    let gateway = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": "shop"},
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            "infrastructure": {
                "labels": {"team": "shop", "istio.io/dataplane-mode": "ambient"},
                "annotations": {"example.com/note": "n"}
            }
        }
    }))
    .unwrap();
    let found = Found::Parameters(Box::new(parameters));
    judge(&gateway, &found, &MeshSpec::default().waypoints).valid.unwrap()
}

fn env(objects: &WaypointObjects) -> HashMap<String, Option<String>> {
    let pod = objects.deployment.spec.clone().template.spec.unwrap();
    pod.containers[0].env.iter().flatten().map(|v| (v.name.clone(), v.value.clone())).collect()
}

/// `UPDATE=1` rewrites the golden file.
#[test]
fn a_gateway_becomes_the_golden_objects() {
    let (mesh, owner) = (MeshSpec::default(), owner());
    let objects = desired(&valid(Parameters::default()), &given(&mesh, &owner));
    let parts = [
        serde_norway::to_string(&roots("shop", "ROOT", vec![owner.clone()])),
        serde_norway::to_string(&objects.service_account),
        serde_norway::to_string(&objects.service),
        serde_norway::to_string(&objects.deployment),
        serde_norway::to_string(&objects.autoscaler.unwrap()),
        serde_norway::to_string(&objects.disruption_budget.unwrap()),
    ];
    let text: String = parts.into_iter().map(|yaml| format!("---\n{}", yaml.unwrap())).collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/waypoint.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "testdata/waypoint.yaml differs: UPDATE=1 cargo test, then read the diff");
}

#[test]
fn nothing_that_makes_a_waypoint_ours_can_be_overwritten_by_its_labels() {
    let (mesh, owner) = (MeshSpec::default(), owner());
    let objects = desired(&valid(Parameters::default()), &given(&mesh, &owner));
    let template = objects.deployment.spec.template;
    let labels = template.metadata.unwrap().labels.unwrap();
    assert_eq!((labels["team"].as_str(), labels["istio.io/dataplane-mode"].as_str()), ("shop", "none"));
    assert_eq!(labels[labels::GATEWAY_MANAGED], labels::WAYPOINT_MANAGED);
}

#[test]
fn a_waypoint_has_no_privilege_and_no_kubernetes_credentials() {
    let (mesh, owner) = (MeshSpec::default(), owner());
    let objects = desired(&valid(Parameters::default()), &given(&mesh, &owner));
    assert_eq!(objects.service_account.automount_service_account_token, Some(false));
    let pod = objects.deployment.spec.template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.security_context.unwrap().run_as_non_root, Some(true));
    let security = pod.containers[0].security_context.clone().unwrap();
    assert_eq!(security.capabilities.unwrap(), Capabilities { add: None, drop: Some(vec!["ALL".into()]) });
    assert_eq!(security.read_only_root_filesystem, Some(true));
}

#[test]
fn one_pod_has_no_autoscaler_and_no_budget_and_a_fixed_number_no_autoscaler() {
    let (mesh, owner) = (MeshSpec::default(), owner());
    let with = |min, max, scaled| {
        let parameters = Parameters { replicas: Some(Replicas { min, max }), ..Parameters::default() };
        let objects = desired(&valid(parameters), &WaypointInputs { scaled, ..given(&mesh, &owner) });
        let replicas = objects.deployment.spec.replicas.unwrap();
        (replicas, objects.autoscaler.is_some(), objects.disruption_budget.is_some())
    };
    assert_eq!(with(1, 1, None), (1, false, false));
    assert_eq!(with(3, 3, Some(7)), (3, false, true));
    assert_eq!(with(2, 5, None), (2, true, true));
    assert_eq!(with(2, 5, Some(4)), (4, true, true), "what the autoscaler decided stays");
    assert_eq!(with(2, 5, Some(9)), (5, true, true));
}

#[test]
fn what_the_mesh_and_the_parameters_say_reaches_the_pod() {
    let mesh: MeshSpec = serde_json::from_value(json!({"observability": {
        "accessLog": "Errors", "logFormat": "Json", "tracing": {"endpoint": "http://otel:4317", "sampling": 5}
    }}))
    .unwrap();
    let owner = owner();
    let mut parameters = Parameters::default();
    parameters.scheduling.node_selector.insert("pool".into(), "edge".into());
    let objects =
        desired(&valid(parameters), &WaypointInputs { operator_ip: "fd00::7", ..given(&mesh, &owner) });
    let env = env(&objects);
    let says = |name: &str| env[name].clone().unwrap();
    assert_eq!(says("AMBIT_ACCESS_LOG"), "Errors");
    assert_eq!(says("LOG_FORMAT"), "json");
    assert_eq!(says("AMBIT_OPERATOR_ADDRESS"), "[fd00::7]:15012");
    assert_eq!(says("OTEL_EXPORTER_OTLP_ENDPOINT"), "http://otel:4317");
    assert_eq!(says("OTEL_TRACES_SAMPLER_ARG"), "0.05");
    assert_eq!(says("GATEWAY_NAME"), "waypoint");
    let pod = objects.deployment.spec.template.spec.unwrap();
    assert_eq!(pod.node_selector.unwrap()["pool"], "edge");
}

#[test]
fn the_farewell_leaves_time_to_drain() {
    let (mesh, owner) = (MeshSpec::default(), owner());
    let objects = desired(&valid(Parameters::default()), &given(&mesh, &owner));
    let said: i64 = env(&objects)["TERMINATION_GRACE_PERIOD_SECONDS"].clone().unwrap().parse().unwrap();
    let pod = objects.deployment.spec.template.spec.unwrap();
    let farewell = pod.containers[0].lifecycle.clone().unwrap().pre_stop.unwrap().sleep.unwrap().seconds;
    assert_eq!(said + farewell, pod.termination_grace_period_seconds.unwrap());
    assert!(said >= 30);
}
