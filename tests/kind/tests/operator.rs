//! Does the operator correct drift, and write nothing when nothing changes?

use std::time::Duration;

use ambit_kind_tests::{kubectl, mesh, wait};
use anyhow::{Context as _, bail};

/// How soon drift in a managed field must be corrected.
const DRIFT: Duration = Duration::from_secs(10);
/// How long an idle operator is observed.
const QUIET: Duration = Duration::from_secs(20);

fn versions() -> ambit_kind_tests::Result<Vec<String>> {
    let kinds = "daemonsets,configmaps,serviceaccounts,secrets,services,deployments";
    let mut objects = kubectl::items(&["get", kinds, "-n", mesh::SYSTEM])?;
    objects.extend(kubectl::items(&["get", "meshes.ambit.dev"])?);
    let name = |object: &serde_json::Value| {
        let field = |path| kubectl::text(object, path).to_owned();
        format!("{} {} {}", field("/kind"), field("/metadata/name"), field("/metadata/resourceVersion"))
    };
    Ok(objects.iter().map(name).collect())
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn drift_in_a_managed_field_is_put_back() {
    mesh::require_ready().unwrap();
    let env = |object: &serde_json::Value| {
        object.pointer("/spec/template/spec/containers/0/env").map(ToString::to_string).unwrap_or_default()
    };
    let get = || kubectl::json(&["get", "daemonset", "-n", mesh::SYSTEM, "ztunnel"]);
    let before = env(&get().unwrap());
    let patch = r#"[{"op": "remove", "path": "/spec/template/spec/containers/0/env/0"}]"#;
    kubectl::run(&["patch", "-n", mesh::SYSTEM, "daemonset/ztunnel", "--type=json", "-p", patch]).unwrap();
    wait::until("the environment of ztunnel to be put back", DRIFT, || {
        let now = env(&get()?);
        if now == before { Ok(Some(())) } else { bail!("it is {now}") }
    })
    .unwrap();
    let roots = ["delete", "configmap", "-n", mesh::SYSTEM, "istio-ca-root-cert"];
    kubectl::run(&roots).unwrap();
    wait::until("the deleted ConfigMap to be back", DRIFT, || {
        kubectl::json(&["get", "configmap", "-n", mesh::SYSTEM, "istio-ca-root-cert"]).map(Some)
    })
    .unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    kubectl::run(&["rollout", "status", "-n", mesh::SYSTEM, "daemonset/ztunnel", "--timeout=120s"]).unwrap();
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_quiet_operator_writes_nothing() {
    mesh::require_ready().unwrap();
    let (before, _) = wait::until("the rollouts before to end", QUIET * 3, || {
        let before = versions()?;
        wait::pause(QUIET / 4);
        Ok((before == versions()?).then_some(before))
    })
    .unwrap();
    wait::pause(QUIET);
    assert_eq!(versions().unwrap(), before);
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn status_speaks_of_the_generation_it_saw_and_every_field_explains_itself() {
    mesh::require_ready().unwrap();
    let mesh = kubectl::json(&["get", "meshes.ambit.dev", "default"]).unwrap();
    let generation = mesh.pointer("/metadata/generation");
    assert_eq!(mesh.pointer("/status/observedGeneration"), generation);
    let conditions =
        mesh.pointer("/status/conditions").and_then(serde_json::Value::as_array).context("none").unwrap();
    for condition in conditions {
        assert_eq!(condition.pointer("/observedGeneration"), generation, "{condition}");
        assert!(!kubectl::text(condition, "/reason").is_empty(), "{condition}");
    }
    let text = kubectl::run(&["explain", "meshes.ambit.dev.spec", "--recursive"]).unwrap();
    for field in ["mtls", "trust", "enrollment", "dataPlane", "observability"] {
        assert!(text.contains(field), "{field} in {text}");
        let path = format!("meshes.ambit.dev.spec.{field}");
        let explained = kubectl::run(&["explain", &path]).unwrap();
        assert!(!explained.contains("<empty>"), "{explained}");
    }
}
