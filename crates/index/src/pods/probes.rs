//! The ports of a pod at which its node's kubelet calls.
//!
//! Invariant: only what the kubelet calls at the pod itself counts. A probe that names a host may mean any address of
//! the cluster, and says nothing about the ports of its own pod.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, LifecycleHandler, PodSpec, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// Ports of the probes and lifecycle hooks of the containers that keep running.
pub(super) fn ports(spec: &PodSpec) -> BTreeSet<u16> {
    super::running(spec).flat_map(of_container).collect()
}

fn of_container(container: &Container) -> Vec<u16> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probes = probes.into_iter().flatten().flat_map(|probe| of_probe(container, probe));
    let hooks = container.lifecycle.iter().flat_map(|hooks| [&hooks.post_start, &hooks.pre_stop]);
    probes.chain(hooks.flatten().filter_map(|hook| of_hook(container, hook))).collect()
}

fn of_probe(container: &Container, probe: &Probe) -> Vec<u16> {
    let http = probe.http_get.as_ref().and_then(|action| of_http(container, action));
    let tcp = probe.tcp_socket.as_ref().and_then(|action| of_tcp(container, action));
    let grpc = probe.grpc.as_ref().and_then(|action| u16::try_from(action.port).ok());
    [http, tcp, grpc].into_iter().flatten().collect()
}

fn of_hook(container: &Container, hook: &LifecycleHandler) -> Option<u16> {
    let tcp = || hook.tcp_socket.as_ref().and_then(|action| of_tcp(container, action));
    hook.http_get.as_ref().and_then(|action| of_http(container, action)).or_else(tcp)
}

fn of_http(container: &Container, action: &HTTPGetAction) -> Option<u16> {
    is_itself(action.host.as_deref()).then(|| number(container, &action.port)).flatten()
}

fn of_tcp(container: &Container, action: &TCPSocketAction) -> Option<u16> {
    is_itself(action.host.as_deref()).then(|| number(container, &action.port)).flatten()
}

fn is_itself(host: Option<&str>) -> bool {
    host.is_none_or(str::is_empty)
}

/// As the kubelet reads it: a name is one of the container's own ports, or a number.
fn number(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
            named.and_then(|port| u16::try_from(port).ok()).or_else(|| name.parse().ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(container: Value) -> Vec<u16> {
        let mut container = container;
        container["name"] = json!("a");
        let spec: PodSpec = serde_json::from_value(json!({"containers": [container]})).unwrap();
        ports(&spec).into_iter().collect()
    }

    #[test]
    fn probes_and_hooks_of_the_pod_itself_count_by_number_and_by_name() {
        let named = json!([{"name": "web", "containerPort": 8080}]);
        let cases = [
            (json!({"readinessProbe": {"httpGet": {"port": 80}}}), vec![80]),
            (json!({"livenessProbe": {"tcpSocket": {"port": 81}}}), vec![81]),
            (json!({"startupProbe": {"grpc": {"port": 82}}}), vec![82]),
            (json!({"ports": named, "readinessProbe": {"httpGet": {"port": "web"}}}), vec![8080]),
            (json!({"readinessProbe": {"httpGet": {"port": "8081"}}}), vec![8081]),
            (json!({"readinessProbe": {"httpGet": {"port": "nowhere"}}}), vec![]),
            (json!({"readinessProbe": {"httpGet": {"port": 80, "host": ""}}}), vec![80]),
            (json!({"readinessProbe": {"httpGet": {"port": 80, "host": "10.0.0.1"}}}), vec![]),
            (json!({"readinessProbe": {"tcpSocket": {"port": 80, "host": "10.0.0.1"}}}), vec![]),
            (json!({"readinessProbe": {"exec": {"command": ["true"]}}}), vec![]),
            (json!({"lifecycle": {"preStop": {"httpGet": {"port": 83}}}}), vec![83]),
            (json!({"lifecycle": {"postStart": {"httpGet": {"port": 84, "host": "10.0.0.1"}}}}), vec![]),
            (json!({"readinessProbe": {"httpGet": {"port": 70000}}}), vec![]),
        ];
        for (container, want) in cases {
            assert_eq!(of(container.clone()), want, "{container}");
        }
    }

    #[test]
    fn init_containers_count_if_they_keep_running() {
        let probe = |port: u16| json!({"httpGet": {"port": port}});
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "a", "readinessProbe": probe(80)}],
            "initContainers": [
                {"name": "once", "readinessProbe": probe(81)},
                {"name": "stays", "restartPolicy": "Always", "startupProbe": probe(82)},
            ],
        }))
        .unwrap();
        assert_eq!(ports(&spec).into_iter().collect::<Vec<_>>(), [80, 82]);
    }
}
