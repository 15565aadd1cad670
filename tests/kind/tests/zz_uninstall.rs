//! Does deleting the Mesh restore the nodes? Runs last, because its file name sorts after the
//! others.

use std::time::Duration;

use ambit_kind_tests::{inspector, kubectl, mesh, mesh::Enrolled, shop::Shop, wait};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn deleting_the_mesh_leaves_nothing_on_the_nodes_and_applying_it_again_works() {
    mesh::require_ready().unwrap();
    inspector::start().unwrap();
    let shop = Shop::start("uninstall-test").unwrap();
    mesh::label(shop.namespace, "istio.io/dataplane-mode", "ambient").unwrap();
    mesh::until_enrolled(shop.namespace, Enrolled::All).unwrap();
    let labels = |node: &serde_json::Value| {
        node.pointer("/metadata/labels").map(ToString::to_string).unwrap_or_default()
    };
    for node in mesh::nodes().unwrap() {
        assert!(!inspector::traces(&node).unwrap().is_empty(), "the look at the nodes finds what is there");
    }

    kubectl::run(&["delete", "meshes.ambit.dev", "default", "--timeout=150s"]).unwrap();
    for node in mesh::nodes().unwrap() {
        wait::until(&format!("{node} to be clean"), LIMIT, || {
            let traces = inspector::traces(&node)?;
            if traces.is_empty() { Ok(Some(())) } else { anyhow::bail!("{traces:?}") }
        })
        .unwrap();
    }
    mesh::until_enrolled(shop.namespace, Enrolled::None).unwrap();
    assert!(shop.get().unwrap().is_some(), "the shop still answers, without the mesh");
    let nodes = kubectl::items(&["get", "nodes"]).unwrap();
    assert!(nodes.iter().all(|node| !labels(node).contains("ambit")), "no label is left on a node");
    let left = kubectl::run(&["get", "daemonsets", "-n", mesh::SYSTEM, "-o", "name"]).unwrap();
    assert_eq!(left.trim(), "");

    kubectl::run(&["apply", "-f", "../../config/samples/mesh.yaml"]).unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    mesh::until_enrolled(shop.namespace, Enrolled::All).unwrap();
    shop.stop().unwrap();
}
