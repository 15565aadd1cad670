//! The node proxy: a network namespace of its own, and a socket to the node agent.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
        core::v1::{
            Capabilities, Container, ContainerPort, PodSpec, PodTemplateSpec, SecurityContext, VolumeMount,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::metadata::{MeshInputs, metadata, pod_metadata, selector, tolerations};
use crate::{
    container::{
        common_env, credential_mounts, credentials, field, host_path, mount, readiness, resources, value,
    },
    names,
    spec::validate::ValidMesh,
};

/// Time for open connections to end.
const TERMINATION_SECONDS: i64 = 30;
const REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "128Mi")];
/// The reasons, in order: entering a pod's network namespace; transparent sockets and marks;
/// binding to a device.
const CAPABILITIES: [&str; 3] = ["SYS_ADMIN", "NET_ADMIN", "NET_RAW"];
const SOCKET_PATH: &str = "/run/ambit/zds";

/// The new proxy of a node is ready before the old one ends.
pub(super) fn daemon_set(valid: &ValidMesh, given: &MeshInputs<'_>, address: &str) -> DaemonSet {
    let mut volumes = vec![host_path("zds", SOCKET_PATH, "DirectoryOrCreate")];
    volumes.extend(credentials());
    let pod = PodSpec {
        automount_service_account_token: Some(false),
        containers: vec![container(valid, given, address)],
        priority_class_name: Some("system-node-critical".into()),
        service_account_name: Some(names::ZTUNNEL.into()),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        tolerations: Some(tolerations()),
        volumes: Some(volumes),
        ..PodSpec::default()
    };
    let surge = RollingUpdateDaemonSet {
        max_surge: Some(IntOrString::Int(1)),
        max_unavailable: Some(IntOrString::Int(0)),
    };
    DaemonSet {
        metadata: metadata(names::ZTUNNEL, given),
        spec: DaemonSetSpec {
            selector: selector(names::ZTUNNEL),
            template: PodTemplateSpec { metadata: Some(pod_metadata(names::ZTUNNEL)), spec: Some(pod) },
            update_strategy: Some(DaemonSetUpdateStrategy {
                rolling_update: Some(surge),
                type_: Some("RollingUpdate".into()),
            }),
            ..DaemonSetSpec::default()
        },
        ..DaemonSet::default()
    }
}

fn container(valid: &ValidMesh, given: &MeshInputs<'_>, address: &str) -> Container {
    let proxy = &valid.spec.data_plane.ztunnel;
    let mut env = common_env(address, &proxy.log_level, valid.spec.observability.log_format);
    env.extend([
        field("INSTANCE_IP", "status.podIP"),
        value("CLUSTER_ID", "Kubernetes"),
        value("AMBIT_ACCESS_LOG", valid.spec.observability.access_log.as_str()),
        value("SECRET_TTL", format!("{}s", valid.certificate_ttl.as_secs())),
        value("TERMINATION_GRACE_PERIOD_SECONDS", TERMINATION_SECONDS.to_string()),
    ]);
    let port = ContainerPort {
        container_port: names::METRICS_PORT.into(),
        name: Some("metrics".into()),
        ..ContainerPort::default()
    };
    let mut mounts: Vec<VolumeMount> = vec![mount("zds", SOCKET_PATH)];
    mounts.extend(credential_mounts());
    Container {
        name: names::ZTUNNEL.into(),
        image: Some(given.images.ztunnel.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        env: Some(env),
        ports: Some(vec![port]),
        readiness_probe: Some(readiness(names::HEALTH_PORT)),
        resources: Some(resources(&proxy.resources, REQUESTS)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: Some(CAPABILITIES.map(str::to_owned).into()),
                drop: Some(vec!["ALL".into()]),
            }),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}
