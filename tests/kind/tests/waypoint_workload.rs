//! Can pods also be reached only through a waypoint that serves pods?

use std::time::Duration;

use ambit_kind_tests::{
    Result,
    ask::{Ask, expect, tally},
    kubectl, mesh,
    mesh::Enrolled,
    outside::Outside,
    shop::Shop,
    wait, waypoint,
};
use anyhow::{Context as _, ensure};

const LIMIT: Duration = Duration::from_secs(60);
const REQUESTS: u64 = 60;

/// A waypoint that serves only pods, and a policy that only it can enforce. The port is restricted
/// because the pod of Redis is behind the same waypoint, and traffic without a path would match any
/// path.
const WAYPOINT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: for-pods-test, labels: {istio.io/waypoint-for: workload}}
spec:
  gatewayClassName: ambit-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: for-pods-test}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]
  action: DENY
  rules: [{to: [{operation: {paths: ['/admin/*'], ports: ['8080']}}]}]
";

/// Name and address of the pod of `cart`.
fn cart(namespace: &str) -> Result<(String, String)> {
    let pods = kubectl::items(&["get", "pods", "-n", namespace, "-l", "app=cart"])?;
    let pod = pods.first().context("no pod of cart")?;
    let text = |path: &str| kubectl::text(pod, path).to_owned();
    Ok((text("/metadata/name"), text("/status/podIP")))
}

/// Sets or removes the pod's own label.
fn label_pod(namespace: &str, pod: &str, value: Option<&str>) -> Result<()> {
    let label = match value {
        Some(value) => format!("{}={value}", waypoint::LABEL),
        None => format!("{}-", waypoint::LABEL),
    };
    kubectl::run(&["label", "pod", "-n", namespace, pod, &label, "--overwrite"]).map(drop)
}

/// Waits until a request gets this status.
fn until(shop: &Shop, status: u16, url: &str) -> Result<()> {
    let question = Ask { url, ..Ask::default() };
    let what = format!("{url} to be answered {status}");
    wait::until(&what, LIMIT, || {
        expect(&shop.ask(&question)?, status)?;
        Ok(Some(()))
    })
    .map(drop)
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn pods_are_reached_through_a_waypoint_that_is_for_them_whoever_asks() {
    mesh::require_ready().unwrap();
    let shop = Shop::start("for-pods-test").unwrap();
    let outside = Outside::start("for-pods-outside", &shop.node_b).unwrap();
    mesh::label(shop.namespace, "istio.io/dataplane-mode", "ambient").unwrap();
    mesh::until_enrolled(shop.namespace, Enrolled::All).unwrap();
    let (pod, ip) = cart(shop.namespace).unwrap();
    let (root, admin) = (format!("http://{ip}:8080/"), format!("http://{ip}:8080/admin/keys"));
    until(&shop, 200, &admin).unwrap();

    let before = shop.load().settled(LIMIT).unwrap();
    kubectl::apply(WAYPOINT).unwrap();
    mesh::label(shop.namespace, waypoint::LABEL, waypoint::NAME).unwrap();
    waypoint::until_programmed(shop.namespace).unwrap();
    until(&shop, 403, &admin).unwrap();
    until(&shop, 200, &root).unwrap();
    // The pod admits only its waypoint, so a service that is not bound reaches it through the
    // waypoint too.
    until(&shop, 403, "http://cart/admin/keys").unwrap();
    let direct = Ask { url: &root, times: 5, ..Ask::default() };
    wait::until("nobody outside the mesh to be served by pod IP", LIMIT, || {
        let replies = outside.ask(&direct)?;
        ensure!(!replies.iter().any(|reply| reply.is(200)), "{:?}", tally(&replies));
        Ok(Some(()))
    })
    .unwrap();
    let inside = shop.load().since(before, REQUESTS, LIMIT).unwrap();
    assert_eq!(inside.failed, 0, "opting in: {:?}", shop.load().failures());
    let service = kubectl::json(&["get", "service", "-n", shop.namespace, "cart"]).unwrap();
    let said = waypoint::condition(&service, "/status/conditions", "istio.io/WaypointBound").unwrap();
    assert_eq!((said.status.as_str(), said.reason.as_str()), ("False", "UnsupportedTrafficType"));

    label_pod(shop.namespace, &pod, Some("none")).unwrap();
    until(&shop, 200, &admin).unwrap();
    label_pod(shop.namespace, &pod, None).unwrap();
    until(&shop, 403, &admin).unwrap();

    let before = shop.load().settled(LIMIT).unwrap();
    waypoint::opt_out(shop.namespace).unwrap();
    until(&shop, 200, &admin).unwrap();
    let after = shop.load().since(before, REQUESTS, LIMIT).unwrap();
    assert_eq!(after.failed, 0, "opting out: {:?}", shop.load().failures());
    outside.stop().unwrap();
    shop.stop().unwrap();
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_pod_that_names_a_waypoint_for_services_is_told_and_stays_reachable() {
    let shop = Shop::start_with_waypoint("for-services-test").unwrap();
    let (pod, _) = cart(shop.namespace).unwrap();
    label_pod(shop.namespace, &pod, Some(waypoint::NAME)).unwrap();
    let selector = format!("involvedObject.name={pod},reason=UnsupportedTrafficType");
    wait::until("an Event on the pod", LIMIT, || {
        let events = kubectl::items(&["get", "events", "-n", shop.namespace, "--field-selector", &selector])?;
        let event = events.first().context("there is none")?;
        ensure!(kubectl::text(event, "/message").contains("is not for pods"), "{event}");
        Ok(Some(()))
    })
    .unwrap();
    until(&shop, 200, "http://cart/").unwrap();
    shop.stop().unwrap();
}
