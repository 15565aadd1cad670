//! The pod of a waypoint: no privileges, no Kubernetes credentials, spread over nodes, and time to
//! drain.

use ambit_model::HBONE_PORT;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, Lifecycle, LifecycleHandler, PodSecurityContext, PodSpec,
    SeccompProfile, SecurityContext, SleepAction, TopologySpreadConstraint,
};

use super::metadata::{WaypointInputs, pods};
use crate::{
    container::{
        common_env, credential_mounts, credentials, field, operator_address, readiness, resources, value,
    },
    names,
    waypoint::validate::ValidWaypoint,
};

/// Time for requests and connections to end, in seconds.
pub(crate) const TERMINATION_SECONDS: i64 = 45;
/// The part of it in which the pod still accepts everything, until clients have received its
/// removal.
const FAREWELL_SECONDS: i64 = 5;
const REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "64Mi")];
/// An arbitrary unprivileged user.
const USER: i64 = 1337;
/// Largest difference in the number of pods between two nodes.
const SKEW_MAX: i32 = 1;

pub(super) fn spec(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> PodSpec {
    let scheduling = &valid.scheduling;
    let non_empty = |list: &Vec<_>| (!list.is_empty()).then(|| list.clone());
    PodSpec {
        affinity: scheduling.affinity.clone(),
        automount_service_account_token: Some(false),
        containers: vec![container(valid, given)],
        node_selector: (!scheduling.node_selector.is_empty()).then(|| scheduling.node_selector.clone()),
        security_context: Some(PodSecurityContext {
            fs_group: Some(USER),
            run_as_group: Some(USER),
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        service_account_name: Some(valid.name.name.to_string()),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        tolerations: non_empty(&scheduling.tolerations),
        topology_spread_constraints: Some(vec![spread(valid)]),
        volumes: Some(credentials()),
        ..PodSpec::default()
    }
}

/// Prefers several nodes, but accepts a single one.
fn spread(valid: &ValidWaypoint) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        label_selector: Some(pods(valid)),
        match_label_keys: Some(vec!["pod-template-hash".into()]),
        max_skew: SKEW_MAX,
        topology_key: "kubernetes.io/hostname".into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        ..TopologySpreadConstraint::default()
    }
}

fn container(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> Container {
    let port = |name: &str, number: u16| ContainerPort {
        container_port: number.into(),
        name: Some(name.into()),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let farewell = LifecycleHandler {
        sleep: Some(SleepAction { seconds: FAREWELL_SECONDS }),
        ..LifecycleHandler::default()
    };
    Container {
        name: names::WAYPOINT.into(),
        image: Some(given.image.to_owned()),
        image_pull_policy: Some("IfNotPresent".into()),
        env: Some(env(valid, given)),
        lifecycle: Some(Lifecycle { pre_stop: Some(farewell), ..Lifecycle::default() }),
        ports: Some(vec![
            port("hbone", HBONE_PORT),
            port("metrics", names::METRICS_PORT),
            port("health", names::HEALTH_PORT),
        ]),
        readiness_probe: Some(readiness(names::HEALTH_PORT)),
        resources: Some(resources(&valid.resources, REQUESTS)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".into()]) }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(credential_mounts()),
        ..Container::default()
    }
}

/// The variables listed in the waypoint's `--help`.
fn env(valid: &ValidWaypoint, given: &WaypointInputs<'_>) -> Vec<EnvVar> {
    let observability = &given.mesh.observability;
    let mut env = common_env(&operator_address(given.operator_ip), "info", observability.log_format);
    env.extend([
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        value("GATEWAY_NAME", valid.name.name.to_string()),
        value("TRUST_DOMAIN", given.trust_domain),
        value("CLUSTER_ID", "Kubernetes"),
        value("SECRET_TTL", format!("{}s", given.certificate_seconds)),
        value("TERMINATION_GRACE_PERIOD_SECONDS", (TERMINATION_SECONDS - FAREWELL_SECONDS).to_string()),
        value("AMBIT_ACCESS_LOG", observability.access_log.as_str()),
    ]);
    if let Some(tracing) = &observability.tracing {
        env.push(value("OTEL_EXPORTER_OTLP_ENDPOINT", &tracing.endpoint));
        env.push(value("OTEL_TRACES_SAMPLER_ARG", share(tracing.sampling)));
    }
    env
}

/// Converts percent to a fraction of one.
fn share(percent: i32) -> String {
    format!("{}.{:02}", percent / 100, percent % 100)
}
