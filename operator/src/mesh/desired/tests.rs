use super::*;
use crate::{config::Images, spec::validate::validate};

fn given(images: &Images) -> MeshInputs<'_> {
    MeshInputs { images, operator_ip: Some("10.96.0.7"), roots: Some("ROOT"), owner: None }
}

/// `UPDATE=1` rewrites the golden file.
#[test]
fn an_empty_spec_becomes_the_golden_objects() {
    let (valid, images) = (validate(&ambit_api::MeshSpec::default(), None).unwrap(), Images::default());
    let objects = desired(&valid, &given(&images));
    let mut text = String::new();
    for yaml in objects
        .service_accounts
        .iter()
        .map(serde_norway::to_string)
        .chain(objects.config_maps.iter().map(serde_norway::to_string))
        .chain(objects.daemon_sets.iter().map(serde_norway::to_string))
    {
        text.push_str("---\n");
        text.push_str(&yaml.unwrap());
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/desired.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "testdata/desired.yaml differs: UPDATE=1 cargo test, then read the diff");
}

#[test]
fn agents_wait_for_roots_and_for_an_address_to_dial() {
    let (valid, images) = (validate(&ambit_api::MeshSpec::default(), None).unwrap(), Images::default());
    let no_roots = desired(&valid, &MeshInputs { roots: None, ..given(&images) });
    assert!(no_roots.daemon_sets.is_empty() && no_roots.config_maps.is_empty());
    assert!(desired(&valid, &MeshInputs { operator_ip: None, ..given(&images) }).daemon_sets.is_empty());
}

#[test]
fn no_agent_holds_kubernetes_credentials() {
    let (valid, images) = (validate(&ambit_api::MeshSpec::default(), None).unwrap(), Images::default());
    let objects = desired(&valid, &given(&images));
    assert!(objects.service_accounts.iter().all(|a| a.automount_service_account_token == Some(false)));
    for set in objects.daemon_sets {
        let pod = set.spec.template.spec.unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert!(pod.containers.iter().all(|c| c.security_context.as_ref().unwrap().privileged.is_none()));
    }
}

#[test]
fn what_the_spec_says_reaches_the_containers() {
    let spec = serde_json::json!({
        "dataPlane": {"ztunnel": {"logLevel": "debug", "resources": {"limits": {"memory": "1Gi"}}}},
        "observability": {"accessLog": "Errors", "logFormat": "Json"}, "trust": {"certificateTTL": "1h"}
    });
    let valid = validate(&serde_json::from_value(spec).unwrap(), None).unwrap();
    let images = Images::default();
    let objects = desired(&valid, &MeshInputs { operator_ip: Some("fd00::7"), ..given(&images) });
    let pod = objects.daemon_sets[1].spec.clone().template.spec.unwrap();
    let env = |name: &str| {
        pod.containers[0].env.iter().flatten().find(|v| v.name == name).and_then(|v| v.value.clone()).unwrap()
    };
    assert_eq!(env("RUST_LOG"), "debug");
    assert_eq!(env("AMBIT_ACCESS_LOG"), "Errors");
    assert_eq!(env("LOG_FORMAT"), "json");
    assert_eq!(env("SECRET_TTL"), "3600s");
    assert_eq!(env("AMBIT_OPERATOR_ADDRESS"), "[fd00::7]:15012");
    let resources = pod.containers[0].resources.clone().unwrap();
    assert_eq!(resources.limits.unwrap()["memory"].0, "1Gi");
    assert_eq!(resources.requests.unwrap()["cpu"].0, "100m");
}
