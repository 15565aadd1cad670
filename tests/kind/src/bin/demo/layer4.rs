//! First act: a running namespace enters and leaves the mesh, and L4 policy takes effect.

use ambit_kind_tests::{
    Result,
    ask::Ask,
    capture,
    checks::Checks,
    kubectl,
    mesh::{self, Enrolled},
    outside::Outside,
    shop::Shop,
    wait,
};
use anyhow::{Context as _, bail, ensure};

use crate::{
    seen::{none_failed, same, within},
    stage::{LIMIT, MODE, POLICY, SHOP, Stage},
};

/// Runs the act.
pub(crate) fn act(checks: &mut Checks, stage: &Stage) -> Result<()> {
    let shop = &stage.shop;
    checks.check("before: the marker is readable on the wire", readable(shop));
    enroll(checks, shop)?;
    policies(checks, stage)?;
    leave(checks, shop)
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
    let id = format!("spiffe://{}/ns/shop/sa/cart", mesh::trust_domain()?);
    checks.check("the access log of redis's node names cart by its SPIFFE id", logged(shop, &id));
    Ok(())
}

/// L4 policy: a DENY by principal, then STRICT.
fn policies(checks: &mut Checks, stage: &Stage) -> Result<()> {
    let Stage { shop, outside } = stage;
    checks.step("AuthorizationPolicy: DENY principal client at front");
    kubectl::apply(DENY)?;
    let denied = wait::until("the DENY to bite", LIMIT, || Ok(shop.get().is_err().then_some(())));
    checks.check("a principal-based DENY takes effect in a second", within(denied, POLICY));
    kubectl::delete(DENY)?;
    let back = wait::until("requests to pass again", LIMIT, || Ok(shop.get().ok()));
    checks.check("without it requests pass again", within(back, POLICY * 2));

    checks.check("PERMISSIVE: a client outside the mesh is served", outside_is(outside, Answer::Served));
    checks.step("PeerAuthentication: STRICT for the shop");
    kubectl::apply(STRICT)?;
    checks.check("STRICT refuses a client outside the mesh", outside_is(outside, Answer::Refused));
    checks.check("STRICT serves a client inside the mesh", shop.get().map(|_| "served".into()));
    kubectl::delete(STRICT)?;
    checks.check("without it the client outside is served again", outside_is(outside, Answer::Served));
    Ok(())
}

/// Removes the label under load.
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

/// Encryption is visible only in packets, so traffic between the nodes is captured on both.
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

/// What a client outside the mesh gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Served,
    Refused,
}

fn outside_is(outside: &Outside, wanted: Answer) -> Result<String> {
    let ((), took) = wait::until(&format!("the outside client to be {wanted:?}"), LIMIT, || {
        let url = format!("http://front.{SHOP}:8080/");
        let replies = outside.ask(&Ask { url: &url, ..Ask::default() })?;
        let served = replies.iter().all(|reply| reply.is(200));
        let is = if served { Answer::Served } else { Answer::Refused };
        if is == wanted {
            Ok(Some(()))
        } else {
            bail!("{}", replies.first().map_or_else(String::new, ToString::to_string))
        }
    })?;
    Ok(format!("{wanted:?} after {:.1}s", took.as_secs_f64()).to_lowercase())
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
