//! Does a retry hide an injected fault?

use ambit_kind_tests::{
    Result,
    ask::{Ask, tally},
    kubectl,
    shop::Shop,
    wait, waypoint,
};
use anyhow::ensure;

const REQUESTS: usize = 100;

/// A fifth of the requests from `front` to `cart` get 503, which `front` turns into 502.
const FAULT: &str = "
apiVersion: ambit.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: cart-fault, namespace: retry-test}
spec:
  targetRefs: [{kind: Service, name: cart}]
  fault: [{abort: {httpStatus: 503, percentage: 20}}]
";

/// Enough tries that all of them fail only once in ten million requests.
const RETRY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: front, namespace: retry-test}
spec:
  parentRefs: [{group: '', kind: Service, name: front}]
  rules:
  - retry: {codes: [502], attempts: 9, backoff: 20ms}
    backendRefs: [{name: front, port: 8080}]
";

fn answered(shop: &Shop) -> Result<usize> {
    let replies = shop.ask(&Ask { url: "http://front:8080/", times: REQUESTS, ..Ask::default() })?;
    let counts = tally(&replies);
    let known = counts.keys().all(|status| status == "200" || status == "502");
    ensure!(known, "{counts:?}");
    Ok(counts.get("200").copied().unwrap_or_default())
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_retry_hides_an_injected_fault() {
    let shop = Shop::start_with_waypoint("retry-test").unwrap();
    assert_eq!(answered(&shop).unwrap(), REQUESTS);

    kubectl::apply(FAULT).unwrap();
    let policy = "trafficpolicy/cart-fault";
    waypoint::until_policy(shop.namespace, policy, "WaypointAccepted", "True").unwrap();
    wait::until("the fault to bite", waypoint::APPLIED, || Ok((answered(&shop)? < REQUESTS).then_some(())))
        .unwrap();

    kubectl::apply(RETRY).unwrap();
    waypoint::until_route(shop.namespace, "front", "Accepted", "True").unwrap();
    wait::until("the retry to hide it", waypoint::APPLIED, || {
        Ok((answered(&shop)? == REQUESTS).then_some(()))
    })
    .unwrap();
    assert_eq!(answered(&shop).unwrap(), REQUESTS, "and again");
    shop.stop().unwrap();
}
