//! Everything that must exist for a valid spec. Pure and total.

use std::collections::BTreeMap;

use ambit_api::labels;
use ambit_api::mesh::Resources;
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{
            ConfigMap, ConfigMapVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, HostPathVolumeSource,
            ObjectFieldSelector, Probe, ProjectedVolumeSource, ResourceRequirements, ServiceAccount,
            ServiceAccountTokenProjection, Toleration, Volume, VolumeMount, VolumeProjection,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};

use super::validate::Valid;
use crate::{config::Images, names};

mod agent;
mod proxy;

/// How long an agent's token lives; the kubelet renews it at 80 %.
const TOKEN_SECONDS: i64 = 43_200;
/// Pause between readiness checks of an agent.
const PROBE_SECONDS: i32 = 2;
/// Where agents read their token.
const TOKEN_PATH: &str = "/var/run/secrets/tokens";
/// Where agents read the trusted roots.
const ROOTS_PATH: &str = "/var/run/secrets/ambit";

/// What is desired depends on, beside the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Given<'a> {
    /// Images of the parts.
    pub images: &'a Images,
    /// ClusterIP of the operator's Service; without it no agent can be started.
    pub operator_ip: Option<&'a str>,
    /// Trusted roots as PEM; without them no agent can be started.
    pub roots: Option<&'a str>,
    /// The Mesh, as owner of everything.
    pub owner: Option<OwnerReference>,
}

/// Everything that must exist, by kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// Accounts of the agents; they may do nothing in the API.
    pub service_accounts: Vec<ServiceAccount>,
    /// The trusted roots.
    pub config_maps: Vec<ConfigMap>,
    /// The agents.
    pub daemon_sets: Vec<DaemonSet>,
}

/// Everything that must exist. Agents follow once there is an authority and an address to dial.
pub fn desired(valid: &Valid, given: &Given<'_>) -> Objects {
    let service_accounts = [names::NODE_AGENT, names::ZTUNNEL].map(|name| ServiceAccount {
        metadata: metadata(name, given),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    });
    let config_maps = given.roots.map(|roots| ConfigMap {
        metadata: metadata(names::ROOTS, given),
        data: Some(BTreeMap::from([(names::ROOTS_KEY.to_owned(), roots.to_owned())])),
        ..ConfigMap::default()
    });
    let daemon_sets = match (given.operator_ip, given.roots) {
        (Some(ip), Some(_)) => {
            let address = operator_address(ip);
            vec![agent::daemon_set(valid, given, &address), proxy::daemon_set(valid, given, &address)]
        }
        (_, _) => Vec::new(),
    };
    Objects {
        service_accounts: service_accounts.into(),
        config_maps: config_maps.into_iter().collect(),
        daemon_sets,
    }
}

fn operator_address(ip: &str) -> String {
    let port = names::DISCOVERY_PORT;
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn metadata(name: &str, given: &Given<'_>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(names::NAMESPACE.to_owned()),
        labels: Some(object_labels(name)),
        owner_references: given.owner.clone().map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn object_labels(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::APP.to_owned(), app.to_owned()),
        (labels::MANAGED_BY.to_owned(), labels::FIELD_MANAGER.to_owned()),
        (labels::MESH.to_owned(), labels::MESH_NAME.to_owned()),
    ])
}

/// Our own pods are never enrolled.
fn pod_metadata(app: &str) -> ObjectMeta {
    let labels = BTreeMap::from([
        (labels::APP.to_owned(), app.to_owned()),
        (labels::MESH.to_owned(), labels::MESH_NAME.to_owned()),
        (labels::DATAPLANE_MODE.to_owned(), labels::NONE.to_owned()),
    ]);
    ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
}

fn selector(app: &str) -> LabelSelector {
    let labels = BTreeMap::from([(labels::APP.to_owned(), app.to_owned())]);
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// On every node, whatever its taints.
fn tolerations() -> Vec<Toleration> {
    vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }]
}

fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

fn field(name: &str, path: &str) -> EnvVar {
    let selector = ObjectFieldSelector { api_version: Some("v1".into()), field_path: path.into() };
    let source = EnvVarSource { field_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.into(), value_from: Some(source), ..EnvVar::default() }
}

/// Who the pod is, and whom it dials.
fn common_env(address: &str, log_level: &str) -> Vec<EnvVar> {
    vec![
        field("NODE_NAME", "spec.nodeName"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        value("AMBIT_OPERATOR_ADDRESS", address),
        value("RUST_LOG", log_level),
    ]
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() }
}

fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(name, path) }
}

fn host_path(name: &str, path: &str, kind: &str) -> Volume {
    let source = HostPathVolumeSource { path: path.into(), type_: Some(kind.into()) };
    Volume { name: name.into(), host_path: Some(source), ..Volume::default() }
}

/// The only credential of an agent: a token bound to its pod, for the operator alone.
fn credentials() -> Vec<Volume> {
    let token = ServiceAccountTokenProjection {
        audience: Some(names::TOKEN_AUDIENCE.into()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "istio-token".into(),
        ..ServiceAccountTokenProjection::default()
    };
    let source = VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    let projected = ProjectedVolumeSource {
        sources: Some(vec![source]),
        default_mode: Some(0o440),
        ..ProjectedVolumeSource::default()
    };
    let roots = ConfigMapVolumeSource { name: names::ROOTS.into(), ..ConfigMapVolumeSource::default() };
    vec![
        Volume { name: "token".into(), projected: Some(projected), ..Volume::default() },
        Volume { name: "roots".into(), config_map: Some(roots), ..Volume::default() },
    ]
}

fn credential_mounts() -> Vec<VolumeMount> {
    vec![read_only("token", TOKEN_PATH), read_only("roots", ROOTS_PATH)]
}

fn readiness(port: u16) -> Probe {
    let get = HTTPGetAction {
        path: Some("/healthz/ready".into()),
        port: IntOrString::Int(port.into()),
        ..HTTPGetAction::default()
    };
    Probe { http_get: Some(get), period_seconds: Some(PROBE_SECONDS), ..Probe::default() }
}

fn resources(given: &Resources, requests: [(&str, &str); 2]) -> ResourceRequirements {
    let quantities = |map: &BTreeMap<String, String>| -> BTreeMap<String, Quantity> {
        map.iter().map(|(name, quantity)| (name.clone(), Quantity(quantity.clone()))).collect()
    };
    let own = || requests.map(|(name, quantity)| (name.to_owned(), Quantity(quantity.to_owned()))).into();
    ResourceRequirements {
        requests: Some(given.requests.as_ref().map_or_else(own, quantities)),
        limits: given.limits.as_ref().map(quantities),
        ..ResourceRequirements::default()
    }
}

#[cfg(test)]
mod tests;
