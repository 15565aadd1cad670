//! Does a crash of ztunnel or of the node agent under load ever let a plaintext byte out, and does it heal by itself?

use std::time::Duration;

use ambit_kind_tests::{
    Result, capture, inspector, kubectl, mesh,
    mesh::Enrolled,
    shop::{MARKER, Shop},
    wait,
};

const MODE: &str = "istio.io/dataplane-mode";
const LIMIT: Duration = Duration::from_secs(90);
/// Requests answered after the crash that show it has healed.
const HEALED: u64 = 60;

/// Crashes a part on both nodes while a capture listens on the wire; then waits until requests flow again.
fn crash(shop: &Shop, app: &'static str) -> Result<()> {
    let node = shop.node_a.clone();
    let watcher = std::thread::spawn(move || capture::on(&node, MARKER));
    for node in [&shop.node_a, &shop.node_b] {
        inspector::crash(app, node)?;
    }
    let seen = watcher.join().map_err(|_| anyhow::anyhow!("the capture died"))??;
    assert_eq!(seen.marker, 0, "plaintext on the wire while {app} was gone: {seen:?}");
    wait::until("requests without a failure again", LIMIT, || {
        let before = shop.load().totals()?;
        Ok((shop.load().since(before, HEALED, LIMIT)?.failed == 0).then_some(()))
    })?;
    let seen = capture::on(&shop.node_a, MARKER)?;
    assert!(seen.marker == 0 && seen.hbone > 0, "after {app} came back: {seen:?}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_crash_never_lets_plaintext_out_and_heals() {
    mesh::require_ready().unwrap();
    inspector::start().unwrap();
    let shop = Shop::start("crash-test").unwrap();
    mesh::label(shop.namespace, MODE, "ambient").unwrap();
    mesh::until_enrolled(shop.namespace, Enrolled::All).unwrap();
    let lives = shop.lives().unwrap();

    crash(&shop, "ztunnel").unwrap();
    crash(&shop, "ambit-node-agent").unwrap();
    assert_eq!(lives, shop.lives().unwrap(), "no pod of the shop was restarted");
    mesh::until_condition("Ready", "True").unwrap();
    shop.stop().unwrap();
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn pods_outside_the_mesh_start_at_once_while_the_agent_is_down_and_enrolled_ones_say_why_they_wait() {
    mesh::require_ready().unwrap();
    let node = mesh::nodes().unwrap().remove(0);
    let set = |value: &str| {
        let patch = format!(
            "{{\"spec\":{{\"template\":{{\"spec\":{{\"nodeSelector\":{{\"ambit.dev/test-nowhere\":{value}}}}}}}}}}}"
        );
        patch
    };
    let (inside, outside) = ("agent-down-inside", "agent-down-outside");
    kubectl::apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {inside}, labels: {{{MODE}: ambient}}}}}}"
    ))
    .unwrap();
    kubectl::apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {outside}}}}}")).unwrap();
    // Enrolled once while all is well, so that the node knows the namespace.
    kubectl::apply(&pod(inside, "before", &node)).unwrap();
    mesh::until_enrolled(inside, Enrolled::All).unwrap();

    // The operator puts a drifted field back, so it must rest while the agent is away.
    let scale = |replicas: &str| {
        kubectl::run(&["scale", "-n", mesh::SYSTEM, "deploy/ambit-operator", replicas]).unwrap()
    };
    scale("--replicas=0");
    kubectl::run(&[
        "wait",
        "-n",
        mesh::SYSTEM,
        "pod",
        "-l",
        "app=ambit-operator",
        "--for=delete",
        "--timeout=60s",
    ])
    .unwrap();
    kubectl::run(&[
        "patch",
        "-n",
        mesh::SYSTEM,
        "daemonset/ambit-node-agent",
        "--type=merge",
        "-p",
        &set("\"yes\""),
    ])
    .unwrap();
    kubectl::run(&[
        "wait",
        "-n",
        mesh::SYSTEM,
        "pod",
        "-l",
        "app=ambit-node-agent",
        "--for=delete",
        "--timeout=60s",
    ])
    .unwrap();

    kubectl::apply(&pod(outside, "free", &node)).unwrap();
    let free = kubectl::run(&["wait", "-n", outside, "pod/free", "--for=condition=Ready", "--timeout=30s"]);
    kubectl::apply(&pod(inside, "waits", &node)).unwrap();
    let why = wait::until("an Event that names the agent", LIMIT, || {
        let events = kubectl::run(&[
            "get",
            "events",
            "-n",
            inside,
            "--field-selector=involvedObject.name=waits",
            "-o",
            "jsonpath={.items[*].message}",
        ])?;
        Ok(events.contains("node agent").then_some(events))
    });

    kubectl::run(&[
        "patch",
        "-n",
        mesh::SYSTEM,
        "daemonset/ambit-node-agent",
        "--type=merge",
        "-p",
        &set("null"),
    ])
    .unwrap();
    scale("--replicas=2");
    free.unwrap();
    why.unwrap();
    kubectl::run(&["wait", "-n", inside, "pod/waits", "--for=condition=Ready", "--timeout=120s"]).unwrap();
    mesh::until_enrolled(inside, Enrolled::All).unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    for namespace in [inside, outside] {
        kubectl::run(&["delete", "namespace", namespace, "--timeout=90s"]).unwrap();
    }
}

fn pod(namespace: &str, name: &str, node: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, \
         containers: [{{name: c, image: 'localhost/ambit-box:dev', imagePullPolicy: IfNotPresent, command: [/bin/sleep, '1000000']}}]}}}}"
    )
}
