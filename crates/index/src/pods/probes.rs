//! The kubelet's own requests to a pod: its probes and lifecycle hooks.
//!
//! Invariant: only requests to the pod itself count. A probe with a `host` may go to any address of
//! the cluster and is ignored.

mod target;

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{
        Container, GRPCAction, HTTPGetAction, LifecycleHandler, PodSpec, Probe, TCPSocketAction,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::containers::running;

/// One kind of request that the kubelet sends to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeCall {
    /// Destination port of the pod.
    pub port: u16,
    /// What the kubelet sends.
    pub sends: Sends,
}

/// The data that the kubelet sends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sends {
    /// Nothing: it only connects.
    Nothing,
    /// An HTTP/1.1 GET request.
    Get {
        /// The request target.
        target: String,
        /// The Host header, if the probe sets one; otherwise empty.
        host: String,
    },
    /// A TLS handshake.
    Tls,
    /// HTTP/2 without TLS.
    Http2,
}

/// Probes and lifecycle hooks of the containers that keep running.
pub(super) fn calls(spec: &PodSpec) -> BTreeSet<ProbeCall> {
    running(spec).flat_map(of_container).collect()
}

fn of_container(container: &Container) -> Vec<ProbeCall> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probes = probes.into_iter().flatten().flat_map(|probe| of_probe(container, probe));
    let hooks = container.lifecycle.iter().flat_map(|hooks| [&hooks.post_start, &hooks.pre_stop]);
    probes.chain(hooks.flatten().flat_map(|hook| of_hook(container, hook))).collect()
}

fn of_probe(container: &Container, probe: &Probe) -> Vec<ProbeCall> {
    let http = probe.http_get.as_ref().and_then(|action| of_http(container, action));
    let tcp = probe.tcp_socket.as_ref().and_then(|action| of_tcp(container, action));
    let grpc = probe.grpc.as_ref().and_then(of_grpc);
    [http, tcp, grpc].into_iter().flatten().collect()
}

fn of_hook(container: &Container, hook: &LifecycleHandler) -> Vec<ProbeCall> {
    let http = hook.http_get.as_ref().and_then(|action| of_http(container, action));
    // The kubelet repeats an HTTPS hook without TLS if the server does not speak it.
    let without_tls =
        hook.http_get.as_ref().filter(|_| http.as_ref().is_some_and(|call| call.sends == Sends::Tls));
    let again = without_tls
        .and_then(|action| Some(ProbeCall { port: number(container, &action.port)?, sends: get(action)? }));
    let tcp = hook.tcp_socket.as_ref().and_then(|action| of_tcp(container, action));
    [http, again, tcp].into_iter().flatten().collect()
}

fn of_http(container: &Container, action: &HTTPGetAction) -> Option<ProbeCall> {
    if !is_itself(action.host.as_deref()) {
        return None;
    }
    let sends = match (action.scheme.as_deref(), action.protocol.as_deref()) {
        (Some("HTTPS"), _) => Sends::Tls,
        (_, Some("HTTP2")) => Sends::Http2,
        _ => get(action)?,
    };
    Some(ProbeCall { port: number(container, &action.port)?, sends })
}

fn get(action: &HTTPGetAction) -> Option<Sends> {
    let mut headers = action.http_headers.iter().flatten();
    let host = headers.find(|header| header.name.eq_ignore_ascii_case("host"));
    Some(Sends::Get {
        target: target::request_target(action.path.as_deref().unwrap_or_default())?,
        host: host.map(|header| header.value.clone()).unwrap_or_default(),
    })
}

fn of_tcp(container: &Container, action: &TCPSocketAction) -> Option<ProbeCall> {
    let port = is_itself(action.host.as_deref()).then(|| number(container, &action.port)).flatten()?;
    Some(ProbeCall { port, sends: Sends::Nothing })
}

fn of_grpc(action: &GRPCAction) -> Option<ProbeCall> {
    let sends = if action.mode.as_deref() == Some("TLS") { Sends::Tls } else { Sends::Http2 };
    Some(ProbeCall { port: u16::try_from(action.port).ok()?, sends })
}

fn is_itself(host: Option<&str>) -> bool {
    host.is_none_or(str::is_empty)
}

/// Resolves a port like the kubelet: the name of one of the container's ports, or a number.
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

    fn of(container: Value) -> Vec<(u16, Sends)> {
        let mut container = container;
        container["name"] = json!("a");
        let spec: PodSpec = serde_json::from_value(json!({"containers": [container]})).unwrap();
        calls(&spec).into_iter().map(|call| (call.port, call.sends)).collect()
    }

    fn get(target: &str, host: &str) -> Sends {
        Sends::Get { target: target.into(), host: host.into() }
    }

    #[test]
    fn probes_and_hooks_of_the_pod_itself_count_by_number_and_by_name() {
        let named = json!([{"name": "web", "containerPort": 8080}]);
        let root = || get("/", "");
        let cases = [
            (json!({"readinessProbe": {"httpGet": {"port": 80}}}), vec![(80, root())]),
            (json!({"livenessProbe": {"tcpSocket": {"port": 81}}}), vec![(81, Sends::Nothing)]),
            (json!({"startupProbe": {"grpc": {"port": 82}}}), vec![(82, Sends::Http2)]),
            (json!({"ports": named, "readinessProbe": {"httpGet": {"port": "web"}}}), vec![(8080, root())]),
            (json!({"readinessProbe": {"httpGet": {"port": "8081"}}}), vec![(8081, root())]),
            (json!({"readinessProbe": {"httpGet": {"port": "nowhere"}}}), vec![]),
            (json!({"readinessProbe": {"httpGet": {"port": 80, "host": ""}}}), vec![(80, root())]),
            (json!({"readinessProbe": {"httpGet": {"port": 80, "host": "10.0.0.1"}}}), vec![]),
            (json!({"readinessProbe": {"tcpSocket": {"port": 80, "host": "10.0.0.1"}}}), vec![]),
            (json!({"readinessProbe": {"exec": {"command": ["true"]}}}), vec![]),
            (json!({"lifecycle": {"preStop": {"httpGet": {"port": 83}}}}), vec![(83, root())]),
            (json!({"lifecycle": {"postStart": {"httpGet": {"port": 84, "host": "10.0.0.1"}}}}), vec![]),
            (json!({"readinessProbe": {"httpGet": {"port": 70000}}}), vec![]),
        ];
        for (container, want) in cases {
            assert_eq!(of(container.clone()), want, "{container}");
        }
    }

    #[test]
    fn what_a_call_sends_follows_its_scheme_protocol_path_and_host() {
        let probe = |action: Value| of(json!({"readinessProbe": {"httpGet": action}}));
        let cases = [
            (json!({"port": 80, "path": "/live?full=1"}), get("/live?full=1", "")),
            (json!({"port": 80, "scheme": "HTTP", "path": "ready"}), get("/ready", "")),
            (json!({"port": 80, "scheme": "HTTPS", "path": "/live"}), Sends::Tls),
            (json!({"port": 80, "protocol": "HTTP2", "path": "/live"}), Sends::Http2),
            (
                json!({"port": 80, "httpHeaders": [{"name": "hOsT", "value": "a.example"}]}),
                get("/", "a.example"),
            ),
            (json!({"port": 80, "httpHeaders": [{"name": "x", "value": "y"}]}), get("/", "")),
        ];
        for (action, want) in cases {
            assert_eq!(probe(action.clone()), [(80, want)], "{action}");
        }
        assert_eq!(probe(json!({"port": 80, "path": "mailto:a"})), [], "the kubelet sends nothing");
        assert_eq!(of(json!({"startupProbe": {"grpc": {"port": 82, "mode": "TLS"}}})), [(82, Sends::Tls)]);
        let hook = of(
            json!({"lifecycle": {"preStop": {"httpGet": {"port": 83, "scheme": "HTTPS", "path": "/end"}}}}),
        );
        assert_eq!(hook, [(83, get("/end", "")), (83, Sends::Tls)], "tried again without TLS");
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
        assert_eq!(calls(&spec).into_iter().map(|call| call.port).collect::<Vec<_>>(), [80, 82]);
    }
}
