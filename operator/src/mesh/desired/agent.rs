//! The node agent: it enrolls pods, so it shares the node's network and process namespaces.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
        core::v1::{
            AppArmorProfile, Capabilities, Container, ContainerPort, PodSpec, PodTemplateSpec,
            SeccompProfile, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::metadata::{MeshInputs, metadata, pod_metadata, selector, tolerations};
use crate::{
    container::{
        common_env, credential_mounts, credentials, host_path, mount, read_only, readiness, resources, value,
    },
    names,
    spec::validate::ValidMesh,
};

/// Time to finish running operations; redirection stays in place.
const TERMINATION_SECONDS: i64 = 30;
const REQUESTS: [(&str, &str); 2] = [("cpu", "50m"), ("memory", "64Mi")];
/// The reasons, in order: setns and pins; rules, routes and transparent sockets; eBPF programs and
/// maps; other processes' namespaces; sockets and files of any owner.
const CAPABILITIES: [&str; 7] =
    ["SYS_ADMIN", "NET_ADMIN", "BPF", "PERFMON", "SYS_PTRACE", "DAC_OVERRIDE", "DAC_READ_SEARCH"];

pub(super) fn daemon_set(valid: &ValidMesh, given: &MeshInputs<'_>, address: &str) -> DaemonSet {
    let pod = PodSpec {
        automount_service_account_token: Some(false),
        containers: vec![container(valid, given, address)],
        dns_policy: Some("ClusterFirstWithHostNet".into()),
        host_network: Some(true),
        host_pid: Some(true),
        priority_class_name: Some("system-node-critical".into()),
        service_account_name: Some(names::NODE_AGENT.into()),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        tolerations: Some(tolerations()),
        volumes: Some(volumes()),
        ..PodSpec::default()
    };
    let one_by_one = RollingUpdateDaemonSet {
        max_unavailable: Some(IntOrString::Int(1)),
        ..RollingUpdateDaemonSet::default()
    };
    DaemonSet {
        metadata: metadata(names::NODE_AGENT, given),
        spec: DaemonSetSpec {
            selector: selector(names::NODE_AGENT),
            template: PodTemplateSpec { metadata: Some(pod_metadata(names::NODE_AGENT)), spec: Some(pod) },
            update_strategy: Some(DaemonSetUpdateStrategy {
                rolling_update: Some(one_by_one),
                type_: Some("RollingUpdate".into()),
            }),
            ..DaemonSetSpec::default()
        },
        ..DaemonSet::default()
    }
}

fn container(valid: &ValidMesh, given: &MeshInputs<'_>, address: &str) -> Container {
    let agent = &valid.spec.data_plane.node_agent;
    let mut env = common_env(address, &agent.log_level, valid.spec.observability.log_format);
    env.push(value("AMBIT_HEALTH_PORT", names::NODE_AGENT_HEALTH_PORT.to_string()));
    env.push(value("AMBIT_METRICS_PORT", names::NODE_AGENT_METRICS_PORT.to_string()));
    let port = ContainerPort {
        container_port: names::NODE_AGENT_METRICS_PORT.into(),
        name: Some("metrics".into()),
        ..ContainerPort::default()
    };
    Container {
        name: names::NODE_AGENT.into(),
        image: Some(given.images.node_agent.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        env: Some(env),
        ports: Some(vec![port]),
        readiness_probe: Some(readiness(names::NODE_AGENT_HEALTH_PORT)),
        resources: Some(resources(&agent.resources, REQUESTS)),
        security_context: Some(security()),
        volume_mounts: Some(mounts()),
        ..Container::default()
    }
}

fn security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        app_armor_profile: Some(AppArmorProfile { type_: "Unconfined".into(), ..AppArmorProfile::default() }),
        capabilities: Some(Capabilities {
            add: Some(CAPABILITIES.map(str::to_owned).into()),
            drop: Some(vec!["ALL".into()]),
        }),
        read_only_root_filesystem: Some(true),
        run_as_user: Some(0),
        seccomp_profile: Some(SeccompProfile { type_: "Unconfined".into(), ..SeccompProfile::default() }),
        ..SecurityContext::default()
    }
}

/// Paths are the same inside and outside the container, so that the agent can pass them to the
/// plugin.
fn volumes() -> Vec<Volume> {
    let directories = [
        ("run", "/run/ambit", "DirectoryOrCreate"),
        ("state", "/var/lib/ambit", "DirectoryOrCreate"),
        ("cni-conf", "/etc/cni/net.d", "DirectoryOrCreate"),
        ("cni-bin", "/opt/cni/bin", "DirectoryOrCreate"),
        ("netns", "/run/netns", "DirectoryOrCreate"),
        ("bpffs", "/sys/fs/bpf", "Directory"),
        ("cgroup", "/sys/fs/cgroup", "Directory"),
    ];
    directories
        .into_iter()
        .map(|(name, path, kind)| host_path(name, path, kind))
        .chain(credentials())
        .collect()
}

fn mounts() -> Vec<VolumeMount> {
    let from_host =
        |name, path| VolumeMount { mount_propagation: Some("HostToContainer".into()), ..mount(name, path) };
    let mut mounts = vec![
        mount("run", "/run/ambit"),
        mount("state", "/var/lib/ambit"),
        mount("cni-conf", "/etc/cni/net.d"),
        mount("cni-bin", "/opt/cni/bin"),
        from_host("netns", "/run/netns"),
        from_host("netns", "/var/run/netns"),
        from_host("bpffs", "/sys/fs/bpf"),
        read_only("cgroup", "/sys/fs/cgroup"),
    ];
    mounts.extend(credential_mounts());
    mounts
}
