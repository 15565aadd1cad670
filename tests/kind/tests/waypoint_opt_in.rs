//! Does a running namespace opt in to a waypoint and out again without a single failed request?

use std::time::Duration;

use ambit_kind_tests::{
    Result,
    ask::{Ask, expect},
    kubectl, mesh,
    mesh::Enrolled,
    shop::Shop,
    wait, waypoint,
};

const LIMIT: Duration = Duration::from_secs(60);
const REQUESTS: u64 = 60;

/// Marks responses that passed a waypoint.
const MARK: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mark, namespace: opt-in-test}
spec:
  parentRefs: [{group: '', kind: Service, name: front}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-waypoint, value: passed}]}}]
    backendRefs: [{name: front, port: 8080}]
";

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_running_namespace_opts_in_and_out_without_a_failed_request_or_a_restart() {
    mesh::require_ready().unwrap();
    let shop = Shop::start("opt-in-test").unwrap();
    let marked = || -> Result<bool> {
        let replies = shop.ask(&Ask { url: "http://front:8080/", ..Ask::default() })?;
        Ok(expect(&replies, 200)?.headers.contains_key("x-waypoint"))
    };
    mesh::label(shop.namespace, "istio.io/dataplane-mode", "ambient").unwrap();
    mesh::until_enrolled(shop.namespace, Enrolled::All).unwrap();
    kubectl::apply(MARK).unwrap();
    let (before, lives) = (shop.load().settled(LIMIT).unwrap(), shop.lives().unwrap());
    assert!(!marked().unwrap(), "without a waypoint a route has no effect");

    waypoint::opt_in(shop.namespace).unwrap();
    wait::until("answers to come through the waypoint", LIMIT, || Ok(marked()?.then_some(()))).unwrap();
    let inside = shop.load().since(before, REQUESTS, LIMIT).unwrap();
    assert_eq!(inside.failed, 0, "opting in: {:?}", shop.load().failures());

    let before = shop.load().totals().unwrap();
    waypoint::opt_out(shop.namespace).unwrap();
    wait::until("answers to come directly again", LIMIT, || Ok((!marked()?).then_some(()))).unwrap();
    let outside = shop.load().since(before, REQUESTS, LIMIT).unwrap();
    assert_eq!(outside.failed, 0, "opting out: {:?}", shop.load().failures());
    assert_eq!(lives, shop.lives().unwrap(), "no pod of the shop was restarted");
    shop.stop().unwrap();
}
