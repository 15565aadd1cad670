//! When ztunnel or the node agent crashes under load, does any plaintext leave the node, and does
//! the mesh recover by itself?

use std::time::Duration;

use ambit_kind_tests::{Result, capture, inspector, mesh, mesh::Enrolled, shop::Shop, wait};

const MODE: &str = "istio.io/dataplane-mode";
const LIMIT: Duration = Duration::from_secs(90);
/// Successful requests after the crash that show recovery.
const HEALED: u64 = 60;

/// Crashes a component on both nodes during a packet capture, then waits until requests succeed
/// again.
fn crash(shop: &Shop, app: &'static str) -> Result<()> {
    let (node, marker) = (shop.node_a.clone(), shop.marker());
    let watcher = std::thread::spawn(move || capture::on(&node, &marker));
    for node in [&shop.node_a, &shop.node_b] {
        inspector::crash(app, node)?;
    }
    let seen = watcher.join().map_err(|_| anyhow::anyhow!("the capture died"))??;
    assert_eq!(seen.marker, 0, "plaintext on the wire while {app} was gone: {seen:?}");
    wait::until("requests without a failure again", LIMIT, || {
        let before = shop.load().totals()?;
        Ok((shop.load().since(before, HEALED, LIMIT)?.failed == 0).then_some(()))
    })?;
    let seen = capture::on(&shop.node_a, &shop.marker())?;
    assert!(seen.marker == 0 && seen.hbone > 0, "after {app} came back: {seen:?}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_crash_never_lets_plaintext_out_and_heals() {
    mesh::require_ready().unwrap();
    inspector::start().unwrap();
    let shop = Shop::start("crash-test").unwrap();
    mesh::label(shop.namespace, MODE, "ambient").unwrap();
    mesh::until_enrolled(shop.namespace, Enrolled::All).unwrap();
    capture::until_hidden(&shop.node_a, &shop.marker(), LIMIT).unwrap();
    let lives = shop.lives().unwrap();

    crash(&shop, "ztunnel").unwrap();
    crash(&shop, "ambit-node-agent").unwrap();
    assert_eq!(lives, shop.lives().unwrap(), "no pod of the shop was restarted");
    mesh::until_condition("Ready", "True").unwrap();
    shop.stop().unwrap();
}
