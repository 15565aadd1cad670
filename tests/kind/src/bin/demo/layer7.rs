//! Second act: the namespace opts in to a waypoint, gets routing, resilience and L7 policy, and
//! opts out again.

use std::{thread, time::Duration};

use ambit_kind_tests::{
    Result,
    ask::{Ask, Reply, expect, tally},
    checks::Checks,
    kubectl,
    mesh::{self, Enrolled},
    shop::Shop,
    wait, waypoint,
};
use anyhow::{Context as _, anyhow, ensure};

use crate::{
    seen::{none_failed, same, within},
    stage::{LIMIT, MODE, POLICY, SHOP, Stage},
};

/// Number of requests for measuring a traffic split.
const MANY: usize = 300;
/// Accepted number for version 2: a fifth, within five standard deviations.
const FIFTH: std::ops::RangeInclusive<usize> = 25..=95;
/// Requests while the waypoint restarts, and the pause between them.
const WATCHED: (usize, Duration) = (200, Duration::from_millis(50));

const CART: Ask<'_> =
    Ask { url: "http://cart/", times: 1, every: Duration::ZERO, method: "GET", headers: &[] };
const ADMIN: Ask<'_> = Ask { url: "http://cart/admin/keys", ..CART };
const FRONT: Ask<'_> = Ask { url: "http://front:8080/", times: 100, ..CART };

/// Runs the act.
pub(crate) fn act(checks: &mut Checks, stage: &Stage) -> Result<()> {
    let shop = &stage.shop;
    shop.start_v2()?;
    opt_in(checks, shop)?;
    split(checks, shop)?;
    retry(checks, shop)?;
    deny(checks, shop)?;
    kill(checks, stage)?;
    opt_out(checks, shop)
}

/// Labels the namespace under load, for L4 and L7 at once.
fn opt_in(checks: &mut Checks, shop: &Shop) -> Result<()> {
    let (before, lives) = (shop.load().settled(LIMIT)?, shop.lives()?);
    checks
        .step("kubectl label namespace shop istio.io/dataplane-mode=ambient istio.io/use-waypoint=waypoint");
    mesh::label(SHOP, MODE, "ambient")?;
    mesh::label(SHOP, waypoint::LABEL, waypoint::NAME)?;
    mesh::until_enrolled(SHOP, Enrolled::All)?;
    let took = waypoint::until_programmed(SHOP).map(|took| format!("after {:.1}s", took.as_secs_f64()));
    checks.check("a waypoint was created and is ready", took);
    let took = waypoint::until_bound(SHOP, waypoint::Bound::All);
    checks
        .check("every service is bound to it", took.map(|took| format!("after {:.1}s", took.as_secs_f64())));
    checks.check("no request failed", none_failed(shop, before));
    checks.check("no pod was restarted or replaced", same(&lives, &shop.lives()?));
    Ok(())
}

/// Routing by header and by weight.
fn split(checks: &mut Checks, shop: &Shop) -> Result<()> {
    checks.step("HTTPRoute at cart: 20 % to version 2, and requests with x-version: v2");
    kubectl::apply(SPLIT)?;
    let named = Ask { times: 20, headers: &[("x-version", "v2")], ..CART };
    let chosen = wait::until("the header to choose version 2", LIMIT, || {
        let v2 = of_version(&shop.ask(&named)?, "v2")?;
        ensure!(v2 == named.times, "{v2} of {} went to version 2", named.times);
        Ok(Some(()))
    });
    checks
        .check("the header chooses version 2", chosen.map(|_| format!("{} of {}", named.times, named.times)));
    let shared = shop.ask(&Ask { times: MANY, ..CART }).and_then(|replies| of_version(&replies, "v2"));
    let shared = shared.and_then(|v2| {
        ensure!(FIFTH.contains(&v2), "{v2} of {MANY} went to version 2");
        Ok(format!("{v2} of {MANY}"))
    });
    checks.check("by weight about a fifth goes to version 2", shared);
    Ok(())
}

/// An injected fault, and a retry that hides it.
fn retry(checks: &mut Checks, shop: &Shop) -> Result<()> {
    checks.step("TrafficPolicy: a fifth of the requests to cart is answered 503");
    kubectl::apply(FAULT)?;
    let effect = wait::until("the fault to take effect", LIMIT, || {
        let answered = answered(&shop.ask(&FRONT)?);
        Ok((answered < FRONT.times).then_some(FRONT.times - answered))
    });
    checks.check(
        "the fault takes effect",
        effect.map(|(failed, _)| format!("{failed} of {} failed", FRONT.times)),
    );
    checks.step("HTTPRoute at front: try again");
    kubectl::apply(RETRY)?;
    let hidden = wait::until("the retry to hide the fault", LIMIT, || {
        let answered = answered(&shop.ask(&FRONT)?);
        ensure!(answered == FRONT.times, "{answered} of {} answered", FRONT.times);
        Ok(Some(()))
    });
    checks.check("a retry hides it", hidden.map(|_| format!("{} of {} answered", FRONT.times, FRONT.times)));
    kubectl::delete(FAULT).map(|_| ())
}

/// A path that is denied to everyone.
fn deny(checks: &mut Checks, shop: &Shop) -> Result<()> {
    let served = wait::until("the path to be served", LIMIT, || is(shop, &ADMIN, 200));
    checks.check("before: the path /admin/keys is served", served.map(|_| "200".into()));
    checks.step("AuthorizationPolicy at cart: DENY path /admin/*");
    kubectl::apply(DENY)?;
    let denied = wait::until("the path to be denied", LIMIT, || is(shop, &ADMIN, 403));
    checks.check("a DENY by path takes effect in a second", within(denied, POLICY));
    checks.check("other paths are served", is(shop, &CART, 200).map(|_| "200".into()));
    Ok(())
}

/// Kills all waypoint pods at once; no client reaches the service by any path until the waypoint is
/// back.
fn kill(checks: &mut Checks, stage: &Stage) -> Result<()> {
    let Stage { shop, outside } = stage;
    let before = shop.load().settled(LIMIT)?;
    let pods = kubectl::items(&["get", "pods", "-n", SHOP, "-l", "app=cart"])?;
    let pod_ip = pods.first().map(|pod| kubectl::text(pod, "/status/podIP")).context("no pod of cart")?;
    let pod_url = format!("http://{pod_ip}:8080/");
    let inside = {
        let (shop, (times, every)) = (shop.clone(), WATCHED);
        thread::spawn(move || shop.ask(&Ask { times, every, ..ADMIN }))
    };
    let past = {
        let (outside, url, (times, every)) = (*outside, pod_url, WATCHED);
        thread::spawn(move || outside.ask(&Ask { url: &url, times, every, ..CART }))
    };
    checks.step("every pod of the waypoint is killed, while requests keep running");
    let killed = waypoint::kill(SHOP)?;
    let inside = inside.join().map_err(|_| anyhow!("the client died"))?;
    checks.check("closed: no request reaches the denied path", inside.and_then(|replies| never(&replies)));
    let past = past.join().map_err(|_| anyhow!("the client died"))?;
    checks.check("closed: no client outside reaches cart's pod IP", past.and_then(|replies| never(&replies)));
    let back = shop.load().settled(LIMIT).map(|after| {
        format!("{killed} pods killed, {} requests refused meanwhile", after.failed - before.failed)
    });
    checks.check("back: requests are answered again", back);
    checks.check("back: the path is denied still", is(shop, &ADMIN, 403).map(|_| "403".into()));
    Ok(())
}

/// Removes the labels under load, L7 first.
fn opt_out(checks: &mut Checks, shop: &Shop) -> Result<()> {
    let (before, lives) = (shop.load().settled(LIMIT)?, shop.lives()?);
    checks.step("kubectl label namespace shop istio.io/use-waypoint- istio.io/dataplane-mode-");
    waypoint::opt_out(SHOP)?;
    let direct = wait::until("requests to go past the waypoint", LIMIT, || is(shop, &ADMIN, 200));
    checks
        .check("requests go directly again", direct.map(|_| "the route and the DENY have no effect".into()));
    mesh::label(SHOP, MODE, "")?;
    mesh::until_enrolled(SHOP, Enrolled::None)?;
    checks.check("no request failed", none_failed(shop, before));
    checks.check("no pod was restarted or replaced", same(&lives, &shop.lives()?));
    Ok(())
}

fn is(shop: &Shop, question: &Ask<'_>, status: u16) -> Result<Option<()>> {
    expect(&shop.ask(question)?, status)?;
    Ok(Some(()))
}

fn answered(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| reply.is(200)).count()
}

fn never(replies: &[Reply]) -> Result<String> {
    ensure!(answered(replies) == 0, "{} of {} were served", answered(replies), replies.len());
    let counts: Vec<String> = tally(replies).iter().map(|(status, n)| format!("{n} x {status}")).collect();
    Ok(counts.join(", "))
}

fn of_version(replies: &[Reply], version: &str) -> Result<usize> {
    ensure!(answered(replies) == replies.len(), "{:?}", tally(replies));
    Ok(replies.iter().filter(|reply| reply.text("/version") == version).count())
}

const SPLIT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  rules:
  - matches: [{headers: [{name: x-version, value: v2}]}]
    backendRefs: [{name: cart-v2, port: 80}]
  - backendRefs: [{name: cart, port: 80, weight: 80}, {name: cart-v2, port: 80, weight: 20}]
";

const FAULT: &str = "
apiVersion: ambit.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: cart-fault, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: cart}]
  fault: [{abort: {httpStatus: 503, percentage: 20}}]
";

/// front answers 502 when a request to cart fails.
const RETRY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: front, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: front}]
  rules:
  - retry: {codes: [502], attempts: 9, backoff: 20ms}
    backendRefs: [{name: front, port: 8080}]
";

const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: cart}]
  action: DENY
  rules: [{to: [{operation: {paths: ['/admin/*']}}]}]
";
