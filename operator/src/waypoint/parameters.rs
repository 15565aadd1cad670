//! Parameters from a Gateway's `infrastructure.parametersRef`: one typed document in a ConfigMap of
//! the Gateway's namespace.
//!
//! Invariant: an unknown key is an error at any depth, so that no setting is silently ignored.

use std::collections::BTreeMap;

use ambit_api::mesh::{FailurePolicy, Replicas, Resources};
use k8s_openapi::api::core::v1::{Affinity, ConfigMap, Toleration};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{apply::says, spec::validate};

/// The only key of the ConfigMap.
pub(crate) const KEY: &str = "waypoint";

/// Settings of a waypoint in addition to its listeners; omitted ones come from the Mesh.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parameters {
    /// Number of pods.
    pub replicas: Option<Replicas>,
    /// Resource requests and limits of the container.
    pub resources: Option<Resources>,
    /// Scheduling of the pods.
    pub scheduling: Scheduling,
    /// What happens while no pod is ready.
    pub failure_policy: Option<FailurePolicy>,
}

/// Scheduling of the pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scheduling {
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerated taints.
    pub tolerations: Vec<Toleration>,
    /// Affinity to nodes and pods.
    pub affinity: Option<Affinity>,
}

/// The document as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Document {
    replicas: Option<WrittenReplicas>,
    resources: Option<WrittenResources>,
    node_selector: BTreeMap<String, String>,
    tolerations: Vec<Value>,
    affinity: Option<Value>,
    failure_policy: Option<FailurePolicy>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReplicas {
    min: i32,
    max: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenResources {
    requests: Option<BTreeMap<String, Written>>,
    limits: Option<BTreeMap<String, Written>>,
}

/// A quantity, as a number or a string: `cpu: 1` and `cpu: 500m` are both common.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(serde_json::Number),
}

/// Parses the parameters in a ConfigMap.
///
/// # Errors
/// What is wrong, for users.
pub(crate) fn read(config_map: &ConfigMap) -> Result<Parameters, String> {
    let data = config_map.data.as_ref().into_iter().flatten();
    let binary = config_map.binary_data.as_ref().into_iter().flatten();
    let keys = data.map(|(key, _)| key).chain(binary.map(|(key, _)| key));
    let unknown: Vec<&str> = keys.map(String::as_str).filter(|key| *key != KEY).collect();
    if !unknown.is_empty() {
        return Err(format!("unknown key {}; write everything below {KEY}", unknown.join(", ")));
    }
    let text = config_map.data.as_ref().and_then(|data| data.get(KEY));
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(Parameters::default()) };
    parse(text)
}

fn parse(text: &str) -> Result<Parameters, String> {
    let document: Document = serde_norway::from_str(text).map_err(|error| format!("{KEY}: {error}"))?;
    let replicas = document.replicas.map(|written| Replicas { min: written.min, max: written.max });
    if let Some(wrong) = replicas.and_then(validate::wrong_replicas) {
        return Err(format!("replicas: {wrong}"));
    }
    let resources = document.resources.map(|written| Resources {
        requests: written.requests.map(quantities),
        limits: written.limits.map(quantities),
    });
    if let Some(wrong) = resources.as_ref().and_then(|given| validate::wrong_quantities(given).next()) {
        return Err(format!("resources: {wrong}"));
    }
    let tolerations = document.tolerations.into_iter().map(|value| strict("tolerations", value));
    Ok(Parameters {
        replicas,
        resources,
        scheduling: Scheduling {
            node_selector: document.node_selector,
            tolerations: tolerations.collect::<Result<_, _>>()?,
            affinity: document.affinity.map(|value| strict("affinity", value)).transpose()?,
        },
        failure_policy: document.failure_policy,
    })
}

fn quantities(written: BTreeMap<String, Written>) -> BTreeMap<String, String> {
    let text = |quantity| match quantity {
        Written::Text(text) => text,
        Written::Number(number) => number.to_string(),
    };
    written.into_iter().map(|(name, quantity)| (name, text(quantity))).collect()
}

/// Kubernetes types ignore unknown fields; here, everything written must be preserved by a round
/// trip.
fn strict<T: DeserializeOwned + Serialize>(field: &str, written: Value) -> Result<T, String> {
    let wrong = |error: serde_json::Error| format!("{field}: {error}");
    let read: T = serde_json::from_value(written.clone()).map_err(wrong)?;
    let understood = serde_json::to_value(&read).map_err(wrong)?;
    if says(&understood, &written) {
        return Ok(read);
    }
    Err(format!("{field}: {written} contains an unknown key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn every_field_is_read() {
        let read = read(&config_map(&[(
            KEY,
            "replicas: {min: 1, max: 3}\n\
             resources: {requests: {cpu: 1, memory: 1Gi}}\n\
             nodeSelector: {pool: edge}\n\
             tolerations: [{key: edge, operator: Exists}]\n\
             affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: []}}\n\
             failurePolicy: Open\n",
        )]))
        .unwrap();
        assert_eq!(read.replicas, Some(Replicas { min: 1, max: 3 }));
        let requests = read.resources.unwrap().requests.unwrap();
        assert_eq!((requests["cpu"].as_str(), requests["memory"].as_str()), ("1", "1Gi"));
        assert_eq!(read.scheduling.node_selector["pool"], "edge");
        assert_eq!(read.scheduling.tolerations[0].key.as_deref(), Some("edge"));
        assert!(read.scheduling.affinity.unwrap().node_affinity.is_some());
        assert_eq!(read.failure_policy, Some(FailurePolicy::Open));
    }

    #[test]
    fn nothing_written_is_as_the_mesh_says() {
        for empty in
            [config_map(&[]), config_map(&[(KEY, "")]), config_map(&[(KEY, "{}")]), ConfigMap::default()]
        {
            assert_eq!(read(&empty), Ok(Parameters::default()));
        }
    }

    #[test]
    fn what_is_not_known_or_cannot_be_is_named() {
        for (key, text, named) in [
            ("deployment", "spec: {}", "deployment"),
            (KEY, "replica: 3", "replica"),
            (KEY, "replicas: {min: 1, max: 3, count: 2}", "count"),
            (KEY, "replicas: {min: 4, max: 3}", "min 4"),
            (KEY, "replicas: {min: 0, max: 3}", "min 0"),
            (KEY, "resources: {requests: {cpu: a lot}}", "a lot"),
            (KEY, "resources: {request: {cpu: 1m}}", "request"),
            (KEY, "tolerations: [{kee: edge}]", "kee"),
            (KEY, "affinity: {nodeAffinity: {preferred: []}}", "preferred"),
            (KEY, "failurePolicy: Sometimes", "Sometimes"),
            (KEY, "replicas: [", "waypoint"),
        ] {
            let error = read(&config_map(&[(key, text)])).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
