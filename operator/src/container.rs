//! Settings common to the containers of all components: environment, credentials, probes,
//! resources. Pure.
//!
//! Invariant: a component's only credential is a token bound to its pod, with the operator as its
//! audience.

use std::{collections::BTreeMap, sync::Arc};

use ambit_api::mesh::{LogFormat, Resources};
use k8s_openapi::{
    api::core::v1::{
        ConfigMapVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, HostPathVolumeSource,
        ObjectFieldSelector, Probe, ProjectedVolumeSource, ResourceRequirements, Service,
        ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use crate::names;

/// Lifetime of an agent's token; the kubelet renews it at 80 %.
const TOKEN_SECONDS: i64 = 43_200;
/// Interval of an agent's readiness probe.
const PROBE_SECONDS: i32 = 2;
/// Mount path of the agents' token.
const TOKEN_PATH: &str = "/var/run/secrets/tokens";
/// Mount path of the trusted roots.
const ROOTS_PATH: &str = "/var/run/secrets/ambit";

/// ClusterIP of the operator's Service.
pub(crate) fn operator_ip(services: &[Arc<Service>]) -> Option<String> {
    let service =
        services.iter().find(|service| service.metadata.name.as_deref() == Some(names::OPERATOR))?;
    service.spec.as_ref()?.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")
}

pub(crate) fn operator_address(ip: &str) -> String {
    let port = names::DISCOVERY_PORT;
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(crate) fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

pub(crate) fn field(name: &str, path: &str) -> EnvVar {
    let selector = ObjectFieldSelector { api_version: Some("v1".into()), field_path: path.into() };
    let source = EnvVarSource { field_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.into(), value_from: Some(source), ..EnvVar::default() }
}

/// Identity of the pod, address of the operator, and logging.
pub(crate) fn common_env(address: &str, log_level: &str, log_format: LogFormat) -> Vec<EnvVar> {
    vec![
        field("NODE_NAME", "spec.nodeName"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        value("AMBIT_OPERATOR_ADDRESS", address),
        value("RUST_LOG", log_level),
        value("LOG_FORMAT", log_format.as_str()),
    ]
}

pub(crate) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() }
}

pub(crate) fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(name, path) }
}

pub(crate) fn host_path(name: &str, path: &str, kind: &str) -> Volume {
    let source = HostPathVolumeSource { path: path.into(), type_: Some(kind.into()) };
    Volume { name: name.into(), host_path: Some(source), ..Volume::default() }
}

/// The only credential of an agent: a token bound to its pod, with the operator as its audience.
pub(crate) fn credentials() -> Vec<Volume> {
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

pub(crate) fn credential_mounts() -> Vec<VolumeMount> {
    vec![read_only("token", TOKEN_PATH), read_only("roots", ROOTS_PATH)]
}

pub(crate) fn readiness(port: u16) -> Probe {
    let get = HTTPGetAction {
        path: Some("/healthz/ready".into()),
        port: IntOrString::Int(port.into()),
        ..HTTPGetAction::default()
    };
    Probe { http_get: Some(get), period_seconds: Some(PROBE_SECONDS), ..Probe::default() }
}

pub(crate) fn resources(given: &Resources, requests: [(&str, &str); 2]) -> ResourceRequirements {
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
