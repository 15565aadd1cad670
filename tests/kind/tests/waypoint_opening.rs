//! Does a port that its owner sets to PERMISSIVE accept plaintext that bypasses the waypoint, and
//! no other port?

use ambit_kind_tests::{
    Result,
    ask::{Ask, expect},
    kubectl,
    outside::Outside,
    shop::Shop,
    wait, waypoint,
};

const NAMESPACE: &str = "l7-opening-test";

/// A policy for the pods of `cart`: STRICT except for one port.
fn but_for(port: u16) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: hook, namespace: {NAMESPACE}}}
spec: {{selector: {{matchLabels: {{app: cart}}}}, mtls: {{mode: STRICT}}, portLevelMtls: {{{port}: {{mode: PERMISSIVE}}}}}}
"
    )
}

/// The waypoint condition of the Service.
fn said() -> Result<String> {
    let service = kubectl::json(&["get", "service", "-n", NAMESPACE, "cart"])?;
    let bound = waypoint::condition(&service, "/status/conditions", "istio.io/WaypointBound");
    Ok(bound.map(|bound| bound.message).unwrap_or_default())
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_port_that_is_left_permissive_is_reached_in_plaintext_past_the_waypoint_and_its_service_says_so() {
    let shop = Shop::start_with_waypoint(NAMESPACE).unwrap();
    let outside = Outside::start("l7-opening-outside", &shop.node_a).unwrap();
    let url = format!("http://cart.{NAMESPACE}.svc.cluster.local/");
    let question = Ask { url: &url, ..Ask::default() };
    let until = |port: u16, is_open: bool| {
        kubectl::apply(&but_for(port)).unwrap();
        let what = format!("plaintext to get in: {is_open}");
        wait::until(&what, waypoint::APPLIED, || {
            let replies = outside.ask(&question)?;
            let is_answered = replies.iter().all(|reply| reply.is(200));
            let is_refused = replies.iter().all(|reply| reply.status.is_none());
            let is_said = said()?.contains("PeerAuthentication l7-opening-test/hook");
            let is_so = if is_open { is_answered && is_said } else { is_refused && !is_said };
            Ok(is_so.then_some(()))
        })
        .unwrap();
        expect(&shop.ask(&Ask { url: "http://cart/", ..Ask::default() }).unwrap(), 200).unwrap();
    };
    until(9999, false);
    until(8080, true);
    until(9999, false);
    outside.stop().unwrap();
    shop.stop().unwrap();
}
