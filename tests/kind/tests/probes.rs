//! Can a probe of another namespace reach a pod that only its waypoint may reach, and do the pod's
//! own probes pass?

use std::time::Duration;

use ambit_kind_tests::{Result, kubectl, shop::Shop, wait};
use anyhow::{Context as _, ensure};

const LIMIT: Duration = Duration::from_secs(90);
const OUTSIDE: &str = "probes-outside";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: probes}
spec: {mtls: {mode: STRICT}}
";

const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: probes-outside}
";

/// A pod on the node of cart whose readiness probe requests a path of cart.
fn prober(name: &str, node: &str, ip: &str, path: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {OUTSIDE}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: box
    image: localhost/ambit-box:dev
    imagePullPolicy: IfNotPresent
    command: [/bin/sleep, '1000000']
    readinessProbe: {{httpGet: {{host: {ip}, port: 8080, path: {path}}}, periodSeconds: 1}}
"
    )
}

fn is_ready(pod: &serde_json::Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(serde_json::Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        kubectl::text(condition, "/type") == "Ready" && kubectl::text(condition, "/status") == "True"
    })
}

fn pod(namespace: &str, name: &str) -> Result<serde_json::Value> {
    kubectl::json(&["get", "pod", "-n", namespace, name])
}

/// How often the kubelet reported that the probe of a pod failed.
fn failures(name: &str) -> Result<u64> {
    let of = format!("involvedObject.name={name},reason=Unhealthy");
    let events = kubectl::items(&["get", "events", "-n", OUTSIDE, "--field-selector", &of])?;
    let count = |event: &serde_json::Value| event.pointer("/count").and_then(serde_json::Value::as_u64);
    Ok(events.iter().map(|event| count(event).unwrap_or(1)).sum())
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_foreign_probe_reaches_no_path_that_the_pods_own_probes_do_not_ask_for() {
    let shop = Shop::start_with_waypoint("probes").unwrap();
    kubectl::apply(STRICT).unwrap();
    let carts = kubectl::items(&["get", "pods", "-n", shop.namespace, "-l", "app=cart"]).unwrap();
    let cart = carts.first().context("no pod of cart").unwrap();
    let (name, ip) = (kubectl::text(cart, "/metadata/name"), kubectl::text(cart, "/status/podIP"));
    kubectl::apply(NAMESPACE).unwrap();
    kubectl::apply(&prober("asks-admin", &shop.node_b, ip, "/admin/keys")).unwrap();
    // cart's own probe path is admitted for anyone; this shows that such probes are sent at all.
    kubectl::apply(&prober("asks-health", &shop.node_b, ip, "/healthz")).unwrap();
    wait::until("the probe of cart's own path to pass", LIMIT, || {
        ensure!(is_ready(&pod(OUTSIDE, "asks-health")?), "not ready");
        Ok(Some(()))
    })
    .unwrap();
    wait::until("the probe of another path to fail again and again", LIMIT, || {
        let failures = failures("asks-admin")?;
        ensure!(failures >= 5, "{failures} times");
        Ok(Some(()))
    })
    .unwrap();
    assert!(!is_ready(&pod(OUTSIDE, "asks-admin").unwrap()), "a foreign probe was answered");
    assert!(is_ready(&pod(shop.namespace, name).unwrap()), "cart's own probe failed");
    kubectl::run(&["delete", "namespace", OUTSIDE, "--ignore-not-found", "--timeout=120s"]).unwrap();
    shop.stop().unwrap();
}
