//! Authorization, rate limits and fault injection.

use std::{sync::Arc, time::Duration};

use ambit_model::{
    Action, AppProtocol, Clause, Match, NamespacedName, Policy, Rule, Scope,
    authorization::{PathPattern, RequestMatch},
    bound::{Fault, FaultAbort, FaultDelay, Fraction, JwtProvider, RateLimit, RateLimitScope, RequestPolicy},
};
use http::Request;
use http_body_util::Full;

use super::{
    endpoint::{echo, http1},
    fixture::{Mesh, bound, identity, routed, rule, text},
};

pub(super) fn deny(matched: Match) -> Arc<Policy> {
    Arc::new(Policy {
        key: NamespacedName::new("shop", "no"),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![matched] }] }],
        dry_run: false,
    })
}

pub(super) fn path(prefix: &str) -> Match {
    let paths = vec![PathPattern::Text(ambit_model::StringMatch::Prefix(prefix.into()))];
    let request = RequestMatch { paths, ..RequestMatch::default() };
    Match { request: Some(Box::new(request)), ..Match::default() }
}

#[tokio::test]
async fn a_denied_path_is_403_and_the_others_pass() {
    let mut denied = bound(AppProtocol::Http);
    denied.authorization = vec![deny(path("/admin"))];
    let mesh = Mesh::with_cart(denied, http1(echo("cart"))).await;
    assert_eq!(mesh.get("/admin/keys").await, (403, "RBAC: access denied".to_owned()));
    assert_eq!(mesh.get("/items").await.0, 200);
}

#[tokio::test]
async fn a_pod_that_is_asked_for_by_its_address_is_judged_as_its_service_and_not_routed() {
    let mut cart = routed(vec![rule(vec![])], &[]);
    cart.authorization = vec![deny(path("/admin"))];
    let mut mesh = Mesh::with_cart(cart, http1(echo("first"))).await;
    assert_eq!(mesh.get("/items").await.0, 500);
    mesh.endpoint("cart", http1(echo("second"))).await;
    let pod = mesh.last_pod().to_string();
    let mut client = mesh.http1_to(&identity("shop", "web"), &pod).await;
    for _ in 0..8 {
        let request = Request::get("/items").header("host", &pod).body(Full::default()).unwrap();
        assert!(text(client.send_request(request).await.unwrap()).await.starts_with("second "));
    }
    let request = Request::get("/admin/keys").header("host", &pod).body(Full::default()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 403);
    let other = format!("{}:81", mesh.last_pod().ip());
    assert_eq!(mesh.tunnel(&other).await.unwrap_err().to_string(), "http status: 404");
}

#[tokio::test]
async fn a_change_of_policy_holds_for_the_next_request_of_an_open_connection() {
    let mesh = Mesh::with_cart(bound(AppProtocol::Http), http1(echo("cart"))).await;
    let mut client = mesh.http1().await;
    let ask = || Request::get("/admin").header("host", "cart").body(Full::default()).unwrap();
    let answer = client.send_request(ask()).await.unwrap();
    assert_eq!(answer.status(), 200);
    text(answer).await;
    let mut denied = bound(AppProtocol::Http);
    denied.authorization = vec![deny(path("/admin"))];
    mesh.bind(denied).await;
    assert_eq!(client.send_request(ask()).await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_policy_that_cannot_be_enforced_refuses_everything() {
    let mut closed = bound(AppProtocol::Http);
    closed.unenforceable = vec![(NamespacedName::new("shop", "custom"), "action CUSTOM".into())];
    let mesh = Mesh::with_cart(closed, http1(echo("cart"))).await;
    assert_eq!(mesh.get("/").await.0, 403);
}

#[tokio::test]
async fn a_token_nobody_vouches_for_is_401_and_none_at_all_passes() {
    let mut checked = bound(AppProtocol::Http);
    checked.authentication = vec![JwtProvider {
        issuer: "https://issuer.example".into(),
        audiences: Vec::new(),
        jwks: None,
        locations: Vec::new(),
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }];
    let mesh = Mesh::with_cart(checked, http1(echo("cart"))).await;
    assert_eq!(mesh.get("/").await.0, 200);
    let request = Request::get("/").header("host", "cart").header("authorization", "Bearer a.b.c");
    let answer = mesh.http1().await.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
}

fn limited(scope: RateLimitScope) -> RequestPolicy {
    let limit = RateLimit { scope, requests: 1, interval: Duration::from_secs(3600), burst: 1 };
    RequestPolicy { faults: Vec::new(), rate_limits: vec![limit] }
}

#[tokio::test]
async fn beyond_the_rate_limit_of_a_client_is_429_for_that_client_only() {
    let mut slow = bound(AppProtocol::Http);
    slow.requests = Arc::new(limited(RateLimitScope::Client));
    let mesh = Mesh::with_cart(slow.clone(), http1(echo("cart"))).await;
    assert_eq!(mesh.get("/").await.0, 200);
    assert_eq!(mesh.get("/").await, (429, "local_rate_limited".to_owned()));
    assert_eq!(mesh.shared.sinks.metrics.rate_limited.get(), 1);
    let mut other = mesh.http1_of(&identity("bank", "till")).await;
    let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
    assert_eq!(other.send_request(request).await.unwrap().status(), 200);
    // An unrelated change does not refill the buckets.
    slow.ports[0].protocol = AppProtocol::Detect;
    mesh.bind(slow).await;
    assert_eq!(mesh.get("/").await.0, 429);
}

#[tokio::test]
async fn a_fault_delays_and_answers_instead_of_the_service() {
    let all = Fraction { numerator: 1, denominator: 1 };
    let fault = Fault {
        headers: Vec::new(),
        delay: Some(FaultDelay { duration: Duration::from_millis(20), fraction: all }),
        abort: Some(FaultAbort { status: 418, fraction: all }),
    };
    let mut faulty = bound(AppProtocol::Http);
    faulty.requests = Arc::new(RequestPolicy { faults: vec![fault], rate_limits: Vec::new() });
    let mesh = Mesh::with_cart(faulty, http1(echo("cart"))).await;
    let begun = std::time::Instant::now();
    assert_eq!(mesh.get("/").await, (418, "fault filter abort".to_owned()));
    assert!(begun.elapsed() >= Duration::from_millis(20));
}
