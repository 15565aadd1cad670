//! Route features that the conformance suite does not check: the Location of a redirect, path and
//! host of a rewrite, status.

use ambit_kind_tests::{
    Result,
    ask::{Ask, Reply, expect},
    kubectl,
    shop::Shop,
    wait, waypoint,
};
use anyhow::ensure;

/// The only result, once it has this status.
fn until(shop: &Shop, status: u16, question: &Ask<'_>) -> Result<Reply> {
    let what = format!("{} to be answered {status}", question.url);
    let (reply, _) =
        wait::until(&what, waypoint::APPLIED, || Ok(Some(expect(&shop.ask(question)?, status)?.clone())))?;
    Ok(reply)
}

fn route(namespace: &str, name: &str, rules: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: cart}}]
  rules:
{rules}"
    )
}

const ADDRESSES: &str = "
  - matches: [{path: {type: PathPrefix, value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 308}}]
  - matches: [{path: {type: Exact, value: /elsewhere}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: example.org, port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /there}, statusCode: 303}}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: other.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /api}}}]
    backendRefs: [{name: cart, port: 80}]
  - backendRefs: [{name: cart, port: 80}]
";

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn redirects_name_the_new_address_and_rewrites_change_what_the_service_sees() {
    let shop = Shop::start_with_waypoint("addresses-test").unwrap();
    kubectl::apply(&route(shop.namespace, "addresses", ADDRESSES)).unwrap();
    for kind in ["Accepted", "ResolvedRefs"] {
        waypoint::until_route(shop.namespace, "addresses", kind, "True").unwrap();
    }
    let moved = until(&shop, 308, &Ask { url: "http://cart/moved/a?b=c", ..Ask::default() }).unwrap();
    assert_eq!(moved.headers.get("location").map(String::as_str), Some("http://cart/new/a?b=c"));
    let elsewhere = until(&shop, 303, &Ask { url: "http://cart/elsewhere", ..Ask::default() }).unwrap();
    let location = elsewhere.headers.get("location").map(String::as_str);
    assert_eq!(location, Some("https://example.org:8443/there"));
    let rewritten = until(&shop, 200, &Ask { url: "http://cart/old/a?b=c", ..Ask::default() }).unwrap();
    assert_eq!(
        (rewritten.text("/path"), rewritten.text("/host")),
        ("/api/a?b=c".into(), "other.example".into())
    );
    let other = until(&shop, 200, &Ask { url: "http://cart/older", ..Ask::default() }).unwrap();
    assert_eq!((other.text("/path"), other.text("/host")), ("/older".into(), "cart".into()));
    shop.stop().unwrap();
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn an_invalid_backend_is_answered_500_on_its_rule_only_and_the_route_says_so() {
    let shop = Shop::start_with_waypoint("invalid-backend-test").unwrap();
    let rules = "
  - matches: [{path: {type: PathPrefix, value: /broken}}]
    backendRefs: [{name: no-such-service, port: 80}]
  - backendRefs: [{name: cart, port: 80}]
";
    kubectl::apply(&route(shop.namespace, "half", rules)).unwrap();
    let said = waypoint::until_route(shop.namespace, "half", "ResolvedRefs", "False").unwrap();
    assert_eq!(said.reason, "BackendNotFound", "{said:?}");
    assert!(said.message.contains("no-such-service"), "{said:?}");
    until(&shop, 500, &Ask { url: "http://cart/broken/x", ..Ask::default() }).unwrap();
    until(&shop, 200, &Ask { url: "http://cart/", ..Ask::default() }).unwrap();
    shop.stop().unwrap();
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn of_two_routes_that_conflict_the_oldest_wins_and_the_other_says_so() {
    let shop = Shop::start_with_waypoint("conflict-test").unwrap();
    let answering = |value: &str| {
        format!(
            "
  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-route, value: {value}}}]}}}}]
    backendRefs: [{{name: cart, port: 80}}]
"
        )
    };
    kubectl::apply(&route(shop.namespace, "oldest", &answering("oldest"))).unwrap();
    waypoint::until_route(shop.namespace, "oldest", "Accepted", "True").unwrap();
    // Creation times have a resolution of one second.
    wait::pause(std::time::Duration::from_millis(1100));
    kubectl::apply(&route(shop.namespace, "a-newer", &answering("newer"))).unwrap();
    let (said, _) = wait::until("the newer route to name the older", waypoint::APPLIED, || {
        let route = kubectl::json(&["get", "-n", shop.namespace, "httproute/a-newer"])?;
        let conditions = route.pointer("/status/parents/0/conditions").map(ToString::to_string);
        let said = conditions.unwrap_or_default();
        ensure!(said.contains("oldest"), "{said}");
        Ok(Some(said))
    })
    .unwrap();
    let replies = shop.ask(&Ask { url: "http://cart/", times: 20, ..Ask::default() }).unwrap();
    let oldest = |reply: &Reply| reply.headers.get("x-route").map(String::as_str) == Some("oldest");
    assert!(replies.iter().all(oldest), "{said}: {replies:?}");
    shop.stop().unwrap();
}
