//! `make demo`: demonstrates the mesh from an installed operator on, with a table of checks.
//! Rerunnable: it removes what an earlier run left.

#![expect(clippy::print_stdout, reason = "a demo speaks to a person")]

mod layer4;
mod layer7;
mod seen;
mod stage;

use std::process::ExitCode;

use ambit_kind_tests::{
    Result,
    checks::Checks,
    kubectl,
    mesh::{self, Enrolled},
    outside::Outside,
    shop::Shop,
    waypoint,
};
use anyhow::{Context as _, ensure};

use stage::{MODE, SHOP, Stage};

fn main() -> ExitCode {
    let mut checks = Checks::default();
    if let Err(error) = play(&mut checks) {
        checks.check("the demo ran to its end", Err(error));
    }
    if checks.finish("demo") { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play(checks: &mut Checks) -> Result<()> {
    checks.step("applying config/samples/mesh.yaml, unless there is a Mesh");
    mesh::require_ready()?;

    checks
        .step("starting the shop (client, front, cart, redis over two nodes) and a client outside the mesh");
    clean_up()?;
    let shop = Shop::start(SHOP)?;
    mesh::until_enrolled(SHOP, Enrolled::None)?;
    let outside = Outside::start("shop-outside", &shop.node_b)?;
    let stage = Stage { shop, outside };

    layer4::act(checks, &stage)?;
    layer7::act(checks, &stage)?;

    checks.step("kubectl get mesh.ambit.dev");
    let table = kubectl::run(&["get", "meshes.ambit.dev"])?;
    table.lines().for_each(|line| println!("          {line}"));
    checks.check("kubectl get mesh.ambit.dev reads Ready", ready(&table));
    Ok(())
}

/// Removes what an earlier run left in the shop's namespace.
fn clean_up() -> Result<()> {
    for label in [waypoint::LABEL, MODE] {
        mesh::label(SHOP, label, "").ok();
    }
    let kinds = "httproutes,gateways.gateway.networking.k8s.io,trafficpolicies,authorizationpolicies,peerauthentications";
    kubectl::run(&["delete", "-n", SHOP, kinds, "--all", "--timeout=60s"])?;
    kubectl::run(&["wait", "-n", SHOP, "pod", "-l", waypoint::PODS, "--for=delete", "--timeout=60s"])
        .map(|_| ())
}

fn ready(table: &str) -> Result<String> {
    let row = table.lines().nth(1).context("no Mesh")?;
    ensure!(row.split_whitespace().nth(1) == Some("True"), "{row}");
    Ok("True".into())
}
