//! Does a route split traffic between two versions by weight, and by a header?

use ambit_kind_tests::{
    Result,
    ask::{Ask, Reply},
    kubectl,
    shop::Shop,
    wait, waypoint,
};
use anyhow::ensure;

const REQUESTS: usize = 300;
/// Accepted number for version 2: 20 percent, within five standard deviations.
const SHARE: std::ops::RangeInclusive<usize> = 25..=95;

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: split-test}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  rules:
  - matches: [{headers: [{name: x-version, value: v2}]}]
    backendRefs: [{name: cart-v2, port: 80}]
  - backendRefs: [{name: cart, port: 80, weight: 80}, {name: cart-v2, port: 80, weight: 20}]
";

fn of_version(replies: &[Reply], version: &str) -> Result<usize> {
    ensure!(replies.iter().all(|reply| reply.is(200)), "{replies:?}");
    Ok(replies.iter().filter(|reply| reply.text("/version") == version).count())
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_route_splits_by_weight_and_by_header() {
    let shop = Shop::start_with_waypoint("split-test").unwrap();
    shop.start_v2().unwrap();
    let many = Ask { url: "http://cart/", times: REQUESTS, ..Ask::default() };
    assert_eq!(of_version(&shop.ask(&many).unwrap(), "v1").unwrap(), REQUESTS, "no route yet");

    kubectl::apply(ROUTE).unwrap();
    let named = Ask { times: 20, headers: &[("x-version", "v2")], ..many };
    wait::until("the header to choose version 2", waypoint::APPLIED, || {
        Ok((of_version(&shop.ask(&named)?, "v2")? == named.times).then_some(()))
    })
    .unwrap();
    let v2 = of_version(&shop.ask(&many).unwrap(), "v2").unwrap();
    assert!(SHARE.contains(&v2), "{v2} of {REQUESTS} went to version 2");
    shop.stop().unwrap();
}
