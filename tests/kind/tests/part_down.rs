//! While the node agent or ztunnel is not running: do pods outside the mesh start at once, and do
//! enrolled ones wait with a clear reason?

use std::time::Duration;

use ambit_kind_tests::{Result, kubectl, mesh, mesh::Enrolled, wait};
use anyhow::ensure;

const LIMIT: Duration = Duration::from_secs(90);

/// Removes a component (and the operator, which would restore it), runs `work`, and restores both.
fn without<T>(part: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let daemon_set = format!("daemonset/{part}");
    let gone = |app: &str| {
        let selector = format!("app={app}");
        kubectl::run(&["wait", "-n", mesh::SYSTEM, "pod", "-l", &selector, "--for=delete", "--timeout=60s"])
    };
    let scale = |replicas| kubectl::run(&["scale", "-n", mesh::SYSTEM, "deploy/ambit-operator", replicas]);
    let nowhere = |value: &str| {
        let patch = format!(
            r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"ambit.dev/nowhere":{value}}}}}}}}}}}"#
        );
        kubectl::run(&["patch", "-n", mesh::SYSTEM, &daemon_set, "--type=merge", "-p", &patch])
    };
    let taken = || {
        scale("--replicas=0")?;
        gone("ambit-operator")?;
        nowhere("\"yes\"")?;
        gone(part)
    };
    let done = taken().and_then(|_| work());
    nowhere("null")?;
    scale("--replicas=2")?;
    done
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn pods_outside_the_mesh_start_at_once_and_enrolled_ones_wait_and_say_why() {
    mesh::require_ready().unwrap();
    let node = mesh::nodes().unwrap().remove(0);
    let (inside, outside) = ("agent-down-test", "agent-down-outside");
    mesh::namespace(inside, "ambient").unwrap();
    mesh::namespace(outside, "").unwrap();
    // Enrolled once while everything works, so that the node knows the namespace.
    kubectl::apply(&pod(inside, "before", &node)).unwrap();
    mesh::until_enrolled(inside, Enrolled::All).unwrap();

    without("ambit-node-agent", || {
        kubectl::apply(&pod(outside, "free", &node))?;
        kubectl::run(&["wait", "-n", outside, "pod/free", "--for=condition=Ready", "--timeout=30s"])?;
        kubectl::apply(&pod(inside, "waits", &node))?;
        let of = "--field-selector=involvedObject.name=waits";
        wait::until("an Event that names the agent", LIMIT, || {
            let events =
                kubectl::run(&["get", "events", "-n", inside, of, "-o", "jsonpath={.items[*].message}"])?;
            Ok(events.contains("node agent").then_some(()))
        })
    })
    .unwrap();

    kubectl::run(&["wait", "-n", inside, "pod/waits", "--for=condition=Ready", "--timeout=120s"]).unwrap();
    mesh::until_enrolled(inside, Enrolled::All).unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    for namespace in [inside, outside] {
        kubectl::run(&["delete", "namespace", namespace, "--timeout=90s"]).unwrap();
    }
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_pod_of_an_enrolled_namespace_waits_for_ztunnel_and_says_why() {
    mesh::require_ready().unwrap();
    let node = mesh::nodes().unwrap().remove(0);
    let namespace = "ztunnel-down-test";
    mesh::namespace(namespace, "ambient").unwrap();
    without("ztunnel", || {
        kubectl::apply(&pod(namespace, "waits", &node))?;
        let of = "--field-selector=involvedObject.name=waits";
        wait::until("an Event that names ztunnel", LIMIT, || {
            let events =
                kubectl::run(&["get", "events", "-n", namespace, of, "-o", "jsonpath={.items[*].message}"])?;
            Ok(events.contains("ztunnel").then_some(()))
        })?;
        let pod = kubectl::json(&["get", "pod", "-n", namespace, "waits"])?;
        let phase = kubectl::text(&pod, "/status/phase");
        ensure!(phase == "Pending", "it has started outside the mesh: {phase}");
        Ok(())
    })
    .unwrap();
    kubectl::run(&["wait", "-n", namespace, "pod/waits", "--for=condition=Ready", "--timeout=120s"]).unwrap();
    mesh::until_enrolled(namespace, Enrolled::All).unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    kubectl::run(&["delete", "namespace", namespace, "--timeout=90s"]).unwrap();
}

fn pod(namespace: &str, name: &str, node: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{nodeName: {node}, \
         terminationGracePeriodSeconds: 0, containers: [{{name: c, image: 'localhost/ambit-box:dev', \
         imagePullPolicy: IfNotPresent, command: [/bin/sleep, '1000000']}}]}}}}"
    )
}
