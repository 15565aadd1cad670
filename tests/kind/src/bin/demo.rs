//! `make demo`: from an installed operator to proof, as a table. Rerunnable: it cleans up what an earlier run left.

#![expect(clippy::print_stdout, reason = "a demo speaks to a person")]

use std::{process::ExitCode, time::Duration};

use ambit_kind_tests::{
    Result, capture,
    checks::Checks,
    kubectl,
    load::Totals,
    mesh::{self, Enrolled},
    shop::Shop,
    wait,
};
use anyhow::{Context as _, bail, ensure};

const SHOP: &str = "shop";
const OUTSIDE: &str = "shop-outside";
const MODE: &str = "istio.io/dataplane-mode";
/// Requests that must be answered before and after a change for "no request failed" to mean something.
const REQUESTS: u64 = 60;
/// How soon a policy must bite.
const POLICY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut checks = Checks::default();
    if let Err(error) = act(&mut checks) {
        checks.check("the demo ran to its end", Err(error));
    }
    if checks.finish("demo") { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn act(checks: &mut Checks) -> Result<()> {
    checks.step("applying config/samples/mesh.yaml");
    kubectl::run(&["apply", "-f", "config/samples/mesh.yaml"])?;
    mesh::until_condition("Ready", "True")?;

    checks
        .step("starting the shop (client, front, cart, redis over two nodes) and a client outside the mesh");
    mesh::label(SHOP, MODE, "").ok();
    let shop = Shop::start(SHOP)?;
    mesh::label(SHOP, MODE, "")?;
    mesh::until_enrolled(SHOP, Enrolled::None)?;
    outside(&shop)?;
    checks.check("before: the marker is readable on the wire", readable(&shop));

    enroll(checks, &shop)?;
    policies(checks, &shop)?;
    leave(checks, &shop)?;

    checks.step("kubectl get mesh.ambit.dev");
    let table = kubectl::run(&["get", "meshes.ambit.dev"])?;
    table.lines().for_each(|line| println!("          {line}"));
    checks.check("kubectl get mesh.ambit.dev reads Ready", ready(&table));
    Ok(())
}

/// Labels the namespace under load.
fn enroll(checks: &mut Checks, shop: &Shop) -> Result<()> {
    let (before, lives) = (shop.load().totals()?, shop.lives()?);
    checks.step("kubectl label namespace shop istio.io/dataplane-mode=ambient, while requests keep running");
    mesh::label(SHOP, MODE, "ambient")?;
    let enrolled = mesh::until_enrolled(SHOP, Enrolled::All);
    checks.check(
        "every running pod is enrolled",
        enrolled.map(|(n, took)| format!("{n} pods in {:.1}s", took.as_secs_f64())),
    );
    checks.check("no pod was restarted or replaced", same(&lives, &shop.lives()?));
    checks.check("no request failed", none_failed(shop, before));
    checks.check("traffic between the nodes is TLS on 15008, the marker is not readable", hidden(shop));
    let id = "spiffe://cluster.local/ns/shop/sa/cart";
    checks.check("the access log of redis's node names cart by its SPIFFE id", logged(shop, id));
    Ok(())
}

/// L4 policy: a DENY by principal, then STRICT.
fn policies(checks: &mut Checks, shop: &Shop) -> Result<()> {
    checks.step("AuthorizationPolicy: DENY principal client at front");
    kubectl::apply(DENY)?;
    let denied = wait::until("the DENY to bite", LIMIT, || Ok(shop.get().is_err().then_some(())));
    checks.check("a principal-based DENY bites within a second", within(denied, POLICY));
    kubectl::delete(DENY)?;
    let back = wait::until("requests to pass again", LIMIT, || Ok(shop.get().ok()));
    checks.check("without it requests pass again", within(back, POLICY * 2));

    checks.check("PERMISSIVE: a client outside the mesh is served", outside_is(Answer::Served));
    checks.step("PeerAuthentication: STRICT for the shop");
    kubectl::apply(STRICT)?;
    checks.check("STRICT refuses a client outside the mesh", outside_is(Answer::Refused));
    checks.check("STRICT serves a client inside the mesh", shop.get().map(|_| "served".into()));
    kubectl::delete(STRICT)?;
    checks.check("without it the client outside is served again", outside_is(Answer::Served));
    Ok(())
}

/// Takes the label away under load.
fn leave(checks: &mut Checks, shop: &Shop) -> Result<()> {
    let (before, lives) = (shop.load().settled(LIMIT)?, shop.lives()?);
    checks.step("kubectl label namespace shop istio.io/dataplane-mode-");
    mesh::label(SHOP, MODE, "")?;
    let left = mesh::until_enrolled(SHOP, Enrolled::None);
    checks.check(
        "every pod has left the mesh",
        left.map(|(n, took)| format!("{n} pods in {:.1}s", took.as_secs_f64())),
    );
    checks.check("no request failed", none_failed(shop, before));
    checks.check("no pod was restarted or replaced", same(&lives, &shop.lives()?));
    checks.check("un-labelling brings plaintext back", readable(shop));
    Ok(())
}

fn none_failed(shop: &Shop, before: Totals) -> Result<String> {
    let since = shop.load().since(before, REQUESTS, LIMIT)?;
    if since.failed > 0 {
        let why = shop.load().failures()?;
        bail!("{} of {} failed: {}", since.failed, since.sent, why.last().map_or("", String::as_str));
    }
    Ok(format!("{} answered, 0 failed", since.ok))
}

fn same(before: &[String], after: &[String]) -> Result<String> {
    ensure!(before == after, "before {before:?}, after {after:?}");
    Ok(format!("{} pods, same uid, same restart count", after.len()))
}

/// Encryption is only shown by packets: requests made now cross the nodes while we listen on both.
fn readable(shop: &Shop) -> Result<String> {
    let seen = capture::on(&shop.node_a, &shop.marker())?;
    ensure!(seen.marker > 0, "the marker was not seen: {seen:?}");
    Ok(format!("marker in {} packets, {} packets on 15008", seen.marker, seen.hbone))
}

fn hidden(shop: &Shop) -> Result<String> {
    let seen = capture::until_hidden(&shop.node_a, &shop.marker(), LIMIT)?;
    Ok(format!("marker in 0 packets, {} packets on 15008, {} TLS records", seen.hbone, seen.tls))
}

fn logged(shop: &Shop, id: &str) -> Result<String> {
    let pod = mesh::part_on("ztunnel", &shop.node_a)?;
    let log = kubectl::run(&["logs", "-n", mesh::SYSTEM, &pod, "--tail=2000"])?;
    let wanted = |line: &&str| line.contains("inbound") && line.contains(id) && line.contains("redis");
    let line =
        log.lines().rev().find(wanted).with_context(|| format!("{pod} logged no inbound line with {id}"))?;
    ensure!(line.contains("src.identity"), "{line}");
    Ok(format!("src.identity={id}"))
}

fn within<T>(took: Result<(T, Duration)>, limit: Duration) -> Result<String> {
    let (_, took) = took?;
    ensure!(took <= limit, "took {:.1}s", took.as_secs_f64());
    Ok(format!("after {:.1}s", took.as_secs_f64()))
}

/// What a client outside the mesh gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Served,
    Refused,
}

fn outside_is(wanted: Answer) -> Result<String> {
    let ((), took) = wait::until(&format!("the outside client to be {wanted:?}"), LIMIT, || {
        let url = format!("http://front.{SHOP}:8080/");
        let (ok, text) = kubectl::exec(OUTSIDE, "deploy/outside", &["/bin/shop", "get", "-t", "2", &url])?;
        let is = if ok { Answer::Served } else { Answer::Refused };
        if is == wanted { Ok(Some(())) } else { bail!("{}", text.trim()) }
    })?;
    Ok(format!("{wanted:?} after {:.1}s", took.as_secs_f64()).to_lowercase())
}

fn outside(shop: &Shop) -> Result<()> {
    kubectl::apply(&OUTSIDE_CLIENT.replace("@B@", &shop.node_b))?;
    kubectl::run(&["rollout", "status", "-n", OUTSIDE, "deploy/outside", "--timeout=60s"]).map(|_| ())
}

fn ready(table: &str) -> Result<String> {
    let row = table.lines().nth(1).context("no Mesh")?;
    ensure!(row.split_whitespace().nth(1) == Some("True"), "{row}");
    Ok("True".into())
}

const DENY: &str = r"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-client, namespace: shop}
spec:
  selector: {matchLabels: {app: front}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]
";

const STRICT: &str = r"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

const OUTSIDE_CLIENT: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop-outside}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: outside, namespace: shop-outside}
spec:
  selector: {matchLabels: {app: outside}}
  template:
    metadata: {labels: {app: outside}}
    spec:
      nodeSelector: {kubernetes.io/hostname: @B@}
      terminationGracePeriodSeconds: 1
      containers:
      - {name: outside, image: 'localhost/ambit-box:dev', imagePullPolicy: IfNotPresent, command: [/bin/sleep, '1000000']}
";
