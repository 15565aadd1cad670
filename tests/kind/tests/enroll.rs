//! Does a running namespace enter and leave the mesh without a single failed request?

use std::time::Duration;

use ambit_kind_tests::{capture, kubectl, mesh, mesh::Enrolled, shop::Shop};

const REQUESTS: u64 = 60;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_running_namespace_goes_in_and_out_without_a_failed_request_or_a_restart() {
    mesh::require_ready().unwrap();
    let shop = Shop::start("enroll-test").unwrap();
    let (before, lives) = (shop.load().totals().unwrap(), shop.lives().unwrap());

    mesh::label(shop.namespace, mesh::MODE, "ambient").unwrap();
    mesh::until_enrolled(shop.namespace, Enrolled::All).unwrap();
    let inside = shop.load().since(before, REQUESTS, LIMIT).unwrap();
    assert_eq!(inside.failed, 0, "going in: {:?}", shop.load().failures());
    capture::until_hidden(&shop.node_a, &shop.marker(), LIMIT).unwrap();

    let before = shop.load().totals().unwrap();
    mesh::label(shop.namespace, mesh::MODE, "").unwrap();
    mesh::until_enrolled(shop.namespace, Enrolled::None).unwrap();
    let outside = shop.load().since(before, REQUESTS, LIMIT).unwrap();
    assert_eq!(outside.failed, 0, "going out: {:?}", shop.load().failures());
    assert_eq!(lives, shop.lives().unwrap());
    shop.stop().unwrap();
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_new_pod_of_an_enrolled_namespace_is_enrolled_before_its_first_process_runs() {
    mesh::require_ready().unwrap();
    let node = mesh::nodes().unwrap().remove(0);
    let namespace = "enroll-new-test";
    mesh::namespace(namespace, "ambient").unwrap();
    // The process first prints the rules of its own network namespace.
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: first, namespace: {namespace}}}, spec: {{nodeName: {node}, restartPolicy: Never, \
         containers: [{{name: c, image: 'localhost/ambit-box:dev', imagePullPolicy: IfNotPresent, command: [/bin/sh, -c, 'ip rule; sleep 1000']}}], \
         terminationGracePeriodSeconds: 0}}}}"
    );
    kubectl::apply(&pod).unwrap();
    kubectl::run(&["wait", "-n", namespace, "pod/first", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    mesh::until_enrolled(namespace, Enrolled::All).unwrap();
    let rules = kubectl::run(&["logs", "-n", namespace, "first"]).unwrap();
    assert!(rules.contains("0x111"), "{rules}");
    kubectl::run(&["delete", "namespace", namespace, "--timeout=90s"]).unwrap();
}
