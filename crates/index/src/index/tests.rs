use ambit_model::{Health, Mode, NetworkMode, PortMapping, TunnelProtocol};
use serde_json::{Value, json};

use super::*;
use crate::{Presence, Wanted, reason};

fn object(value: Value) -> Object {
    let kind = value["kind"].as_str().unwrap().to_owned();
    match kind.as_str() {
        "Pod" => Object::Pod(serde_json::from_value(value).unwrap()),
        "Service" => Object::Service(serde_json::from_value(value).unwrap()),
        "EndpointSlice" => Object::EndpointSlice(serde_json::from_value(value).unwrap()),
        "Node" => Object::Node(serde_json::from_value(value["metadata"].clone()).unwrap()),
        "Namespace" => Object::Namespace(serde_json::from_value(value["metadata"].clone()).unwrap()),
        "AuthorizationPolicy" => Object::AuthorizationPolicy(serde_json::from_value(value).unwrap()),
        "PeerAuthentication" => Object::PeerAuthentication(serde_json::from_value(value).unwrap()),
        "Gateway" => Object::Gateway(serde_json::from_value(value).unwrap()),
        "GatewayClass" => Object::GatewayClass(serde_json::from_value(value).unwrap()),
        "HTTPRoute" => Object::HttpRoute(serde_json::from_value(value).unwrap()),
        "GRPCRoute" => Object::GrpcRoute(serde_json::from_value(value).unwrap()),
        "TCPRoute" => Object::TcpRoute(serde_json::from_value(value).unwrap()),
        "TLSRoute" => Object::TlsRoute(serde_json::from_value(value).unwrap()),
        "ReferenceGrant" => Object::ReferenceGrant(serde_json::from_value(value).unwrap()),
        "TrafficPolicy" => Object::TrafficPolicy(serde_json::from_value(value).unwrap()),
        "RequestAuthentication" => Object::RequestAuthentication(serde_json::from_value(value).unwrap()),
        other => panic!("{other}"),
    }
}

fn pod(name: &str, with: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": "n1", "serviceAccountName": name,
                 "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                   "conditions": [{"type": "Ready", "status": "True"}]}
    });
    merge(&mut pod, with);
    pod
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn namespace(name: &str, mode: &str) -> Value {
    json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"istio.io/dataplane-mode": mode}}})
}

fn present() -> Index {
    Index::new(Settings { presence: Presence::Present, ..Settings::default() })
}

const CART: &str = "Kubernetes//Pod/shop/cart";

#[test]
fn a_pod_becomes_a_workload_with_the_ports_of_its_services() {
    let mut index = present();
    index.apply(object(
        json!({"kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}}),
    ));
    index.apply(object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "selector": {"app": "cart"},
                 "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": "none"}, {"name": "u", "port": 53, "protocol": "UDP"}]}})));
    let changes = index.apply(object(pod("cart", json!({}))));
    assert_eq!(changes.workloads, BTreeSet::from([CART.into()]));
    assert_eq!(changes.enrollments, BTreeSet::from([("n1".into(), "uid-cart".into())]));
    let workload = index.workload(CART).unwrap();
    assert_eq!(workload.addresses.len(), 2);
    assert_eq!(&*workload.locality.zone, "z");
    assert_eq!((&*workload.canonical_name, &*workload.canonical_revision), ("cart", "latest"));
    let key = NamespacedName::new("shop", "cart.shop.svc.cluster.local");
    assert_eq!(workload.services[&key], [PortMapping { service_port: 80, target_port: 8080 }]);
    let service = index.service(&key).unwrap();
    assert_eq!(service.ports.iter().map(|p| (p.port, p.target_port)).collect::<Vec<_>>(), [(80, 0), (81, 0)]);
    assert!(index.apply(object(pod("cart", json!({})))).is_empty(), "the same object changes nothing");
}

#[test]
fn a_workload_is_hbone_only_while_it_is_wanted_and_redirected() {
    let redirected = json!({"metadata": {"annotations": {"ambient.istio.io/redirection": "enabled"}}});
    let mut index = present();
    index.apply(object(pod("cart", json!({}))));
    index.apply(object(namespace("shop", "ambient")));
    let tunnel = |index: &Index| index.workload(CART).unwrap().tunnel_protocol;
    assert_eq!(
        (index.enrollment("uid-cart").unwrap().wanted, tunnel(&index)),
        (Wanted::L4, TunnelProtocol::None)
    );
    index.apply(object(pod("cart", redirected.clone())));
    assert_eq!(tunnel(&index), TunnelProtocol::Hbone);
    assert_eq!(index.enrolled_and_pending(), (1, 0));
    let changes = index.apply(object(namespace("shop", "none")));
    assert_eq!(tunnel(&index), TunnelProtocol::None, "peers stop before the agent acts");
    assert_eq!(
        (changes.workloads.len(), changes.enrollments.len(), index.enrolled_and_pending()),
        (1, 1, (0, 1))
    );
}

#[test]
fn a_reason_is_given_for_every_pod_and_exclusion_wins_over_labels() {
    let ambient = json!({"metadata": {"labels": {"istio.io/dataplane-mode": "ambient"}}});
    let with = |extra: Value| {
        let mut value = ambient.clone();
        merge(&mut value, extra);
        value
    };
    for (name, given, expected) in [
        ("label", ambient.clone(), (Wanted::L4, reason::POD_LABEL)),
        ("host", with(json!({"spec": {"hostNetwork": true}})), (Wanted::Out, reason::HOST_NETWORK)),
        (
            "side",
            with(json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}})),
            (Wanted::Out, reason::SIDECAR),
        ),
        ("mirror", with(mirror()), (Wanted::Out, reason::NO_IDENTITY)),
        ("nobody", with(json!({"spec": {"serviceAccountName": null}})), (Wanted::Out, reason::NO_IDENTITY)),
        ("done", with(json!({"status": {"phase": "Succeeded"}})), (Wanted::Out, reason::TERMINATED)),
        ("excl", with(json!({"metadata": {"namespace": "kube-system"}})), (Wanted::Out, reason::EXCLUDED)),
        (
            "ours",
            with(json!({"metadata": {"namespace": "ambit-system"}})),
            (Wanted::Out, reason::SYSTEM_NAMESPACE),
        ),
        (
            "none",
            json!({"metadata": {"labels": {"istio.io/dataplane-mode": "none"}}}),
            (Wanted::Out, reason::POD_LABEL),
        ),
        ("ns", json!({}), (Wanted::L4, reason::NAMESPACE_LABEL)),
        ("plain", json!({"metadata": {"namespace": "other"}}), (Wanted::Out, reason::NOT_LABELLED)),
    ] {
        let mut index = present();
        index.apply(object(namespace("shop", "ambient")));
        index.apply(object(pod(name, given)));
        let found = index.enrollment(&format!("uid-{name}")).unwrap();
        assert_eq!((found.wanted, found.reason), expected, "{name}");
    }
}

/// As a kubelet creates it for a static pod.
fn mirror() -> Value {
    json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"},
                        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n", "controller": true}]}})
}

#[test]
fn a_pod_without_an_identity_is_nobody_and_no_endpoint() {
    let no_account = |with: Value| {
        let mut value = with;
        merge(&mut value, json!({"spec": {"serviceAccountName": null}}));
        value
    };
    for (what, given, expected) in [
        ("a pod", json!({}), Some("cart")),
        ("the mirror of a static pod", no_account(mirror()), None),
        ("a mirror that names an account all the same", mirror(), None),
        ("no account", no_account(json!({})), None),
        ("an empty account", json!({"spec": {"serviceAccountName": ""}}), None),
    ] {
        let mut index = present();
        index.apply(object(pod("cart", given)));
        let account = index.pod(&NamespacedName::new("shop", "cart")).unwrap().service_account;
        assert_eq!(Some(&*account).filter(|account| !account.is_empty()), expected, "{what}");
        assert_eq!(index.workload(CART).map(|workload| &*workload.service_account), expected, "{what}");
    }
}

#[test]
fn without_a_mesh_nothing_is_wanted_and_a_leaving_mesh_decommissions_every_node() {
    let mut index = Index::new(Settings::default());
    index.apply(object(json!({"kind": "Node", "metadata": {"name": "n1"}})));
    index.apply(object(namespace("shop", "ambient")));
    index.apply(object(pod("cart", json!({}))));
    assert_eq!(index.enrollment("uid-cart").unwrap().reason, reason::NO_MESH);
    index.configure(Settings { presence: Presence::Present, ..Settings::default() });
    assert_eq!(index.enrollment("uid-cart").unwrap().wanted, Wanted::L4);
    assert_eq!(index.node_enrollment().enrolled_namespaces, BTreeSet::from(["shop".into()]));
    let changes = index.configure(Settings { presence: Presence::Leaving, ..Settings::default() });
    assert_eq!(changes.nodes, BTreeSet::from(["n1".into()]));
    assert!(index.node_enrollment().decommission && index.node_enrollment().enrolled_namespaces.is_empty());
    assert_eq!(index.enrollment("uid-cart").unwrap().reason, reason::MESH_LEAVING);
}

#[test]
fn a_namespace_is_partly_enrolled_as_long_as_a_pod_of_it_enrolls_itself() {
    let mut index = present();
    let partly = |index: &Index| index.node_enrollment().partly_enrolled_namespaces.clone();
    let own = |mode: &str| json!({"metadata": {"labels": {"istio.io/dataplane-mode": mode}}});
    index.apply(object(json!({"kind": "Node", "metadata": {"name": "n1"}})));
    index.apply(object(pod("plain", json!({}))));
    index.apply(object(pod("none", own("none"))));
    index.apply(object(pod("host", {
        let mut pod = own("ambient");
        merge(&mut pod, json!({"spec": {"hostNetwork": true}}));
        pod
    })));
    assert_eq!(partly(&index), BTreeSet::new());
    let changes = index.apply(object(pod("cart", own("ambient"))));
    assert_eq!((partly(&index), changes.nodes), (BTreeSet::from(["shop".into()]), ["n1".into()].into()));
    // A pod without a node counts too, because nodes must know the namespace before the pod is
    // scheduled.
    index.apply(object(pod("next", {
        let mut pod = own("ambient");
        merge(&mut pod, json!({"spec": {"nodeName": null}, "status": {"podIP": null, "podIPs": null}}));
        pod
    })));
    index.apply(object(pod("cart", own("none"))));
    assert_eq!(partly(&index), BTreeSet::from(["shop".into()]));
    // A namespace that is enrolled as a whole is listed as such.
    index.apply(object(namespace("shop", "ambient")));
    assert_eq!(partly(&index), BTreeSet::new());
    index.apply(object(namespace("shop", "none")));
    assert_eq!(partly(&index), BTreeSet::from(["shop".into()]));
    index.delete(&Key { kind: Kind::Pod, name: NamespacedName::new("shop", "next") });
    assert_eq!(partly(&index), BTreeSet::new());
    // Where the mesh enrolls no pods, no pod has to wait.
    let given =
        json!({"metadata": {"namespace": "kube-system", "labels": {"istio.io/dataplane-mode": "ambient"}}});
    index.apply(object(pod("dns", given)));
    assert_eq!(partly(&index), BTreeSet::new());
}

#[test]
fn a_pod_is_wanted_from_its_start_only_if_it_was_wanted_before_it_had_a_network() {
    let started = json!({});
    let starting = || json!({"status": {"phase": "Pending", "podIP": null, "podIPs": null}});
    let early = |index: &Index| index.enrollment("uid-cart").unwrap().wanted_from_start;
    let mut index = present();
    index.apply(object(namespace("shop", "ambient")));
    index.apply(object(pod("cart", starting())));
    assert!(early(&index));
    index.apply(object(pod("cart", started.clone())));
    assert!(early(&index), "it stays so");
    index.apply(object(namespace("shop", "none")));
    index.apply(object(namespace("shop", "ambient")));
    assert!(!early(&index), "it was outside by right");

    let mut index = present();
    index.apply(object(namespace("shop", "none")));
    index.apply(object(pod("cart", starting())));
    index.apply(object(pod("cart", started)));
    index.apply(object(namespace("shop", "ambient")));
    assert!(!early(&index), "its label came when it ran");
}

#[test]
fn health_and_existence_follow_the_pod() {
    let mut index = present();
    index.apply(object(pod("cart", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))));
    assert_eq!(index.workload(CART).unwrap().health, Health::Unhealthy);
    index.apply(object(pod("cart", json!({"status": {"phase": "Failed"}}))));
    assert!(index.workload(CART).is_none());
    assert!(index.pod(&NamespacedName::new("shop", "cart")).unwrap().terminated);
    let changes = index.delete(&Key { kind: Kind::Pod, name: NamespacedName::new("shop", "cart") });
    assert_eq!(changes.enrollments.len(), 1);
    assert_eq!((index.pods_on("n1").count(), index.enrollment("uid-cart")), (0, None));
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let mut index = present();
    index.apply(object(pod("cart", json!({}))));
    let changes =
        index.apply(object(pod("cart", json!({"metadata": {"uid": "second"}, "spec": {"nodeName": "n2"}}))));
    let expected = [("n1".into(), "uid-cart".into()), ("n2".into(), "second".into())];
    assert_eq!(changes.enrollments, BTreeSet::from(expected));
    assert_eq!((index.pods_on("n1").count(), index.pods_on("n2").count()), (0, 1));
    assert!(index.pod_by_uid("uid-cart").is_none());
}

#[test]
fn a_service_without_selector_has_the_endpoints_of_its_slices_also_those_that_are_no_pods() {
    let mut index = present();
    index.apply(object(pod("cart", json!({}))));
    index.apply(object(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "api-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "api"}},
        "ports": [{"name": "https", "port": 6443}],
        "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "namespace": "shop", "name": "cart"}},
                      {"addresses": ["172.18.0.2"], "conditions": {"ready": false}}]})));
    let changes = index.apply(object(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "https", "port": 443}]}}),
    ));
    let key = NamespacedName::new("shop", "api.shop.svc.cluster.local");
    let ports = vec![PortMapping { service_port: 443, target_port: 6443 }];
    assert_eq!(index.workload(CART).unwrap().services[&key], ports);
    let uid = "Kubernetes/discovery.k8s.io/EndpointSlice/shop/api-1/172.18.0.2";
    let other = index.workload(uid).unwrap();
    assert_eq!((other.network_mode, other.health), (NetworkMode::HostNetwork, Health::Unhealthy));
    assert_eq!(other.services[&key], ports);
    assert_eq!(changes.workloads, BTreeSet::from([CART.into(), uid.into()]));
    let changes = index.delete(&Key { kind: Kind::Service, name: NamespacedName::new("shop", "api") });
    assert_eq!(changes.workloads.len(), 2);
    assert!(index.workload(uid).is_none() && index.workload(CART).unwrap().services.is_empty());
}

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
           "metadata": {"name": name, "namespace": namespace, "generation": 2, "resourceVersion": "7"}, "spec": spec})
}

#[test]
fn selector_policies_of_the_own_and_the_system_namespace_are_named_by_the_workloads_they_select() {
    let selects = json!({"selector": {"matchLabels": {"app": "cart"}}, "rules": [{}]});
    let mut index = present();
    index.apply(object(pod("cart", json!({}))));
    index.apply(object(policy("shop", "own", selects.clone())));
    index.apply(object(policy("ambit-system", "mesh", selects.clone())));
    index.apply(object(policy("other", "not", selects.clone())));
    index.apply(object(policy("shop", "all", json!({"rules": [{}]}))));
    index.apply(object(policy(
        "shop",
        "void",
        json!({"selector": {"matchLabels": {"app": "cart"}}, "action": "DENY"}),
    )));
    let named = |index: &Index| -> Vec<String> {
        index.workload(CART).unwrap().authorization_policies.iter().map(|p| p.to_string()).collect()
    };
    assert_eq!(named(&index), ["ambit-system/mesh", "shop/own"]);
    let changes =
        index.delete(&Key { kind: Kind::AuthorizationPolicy, name: NamespacedName::new("shop", "own") });
    assert_eq!((changes.policies.len(), changes.workloads.len()), (1, 1));
    assert_eq!(named(&index), ["ambit-system/mesh"]);
}

#[test]
fn a_status_is_patched_once_it_differs() {
    let mut index = present();
    index.apply(object(policy("shop", "p", json!({"rules": [{}]}))));
    let patches = index.status_patches();
    assert_eq!(patches.len(), 1);
    assert_eq!((patches[0].generation, patches[0].judgements[0].reason), (Some(2), "Accepted"));
    let mut said = policy("shop", "p", json!({"rules": [{}]}));
    said["status"] = json!({"conditions": [{"type": "ZtunnelAccepted", "status": "True", "reason": "Accepted",
        "message": "attached to ztunnel", "observedGeneration": 2}]});
    index.apply(object(said));
    assert_eq!(index.status_patches(), []);
}

fn peer(namespace: &str, name: &str, created: &str, spec: Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
           "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created}, "spec": spec})
}

#[test]
fn peer_authentication_levels_become_policies_the_workload_names() {
    let strict = "ambit-system/istio_converted_static_strict";
    let named = |index: &Index| -> Vec<String> {
        index.workload(CART).unwrap().authorization_policies.iter().map(|p| p.to_string()).collect()
    };
    let mut index = present();
    index.apply(object(pod("cart", json!({}))));
    assert_eq!(named(&index), Vec::<String>::new());
    assert!(index.policy(&NamespacedName::new("ambit-system", "istio_converted_static_strict")).is_some());
    index.configure(Settings { presence: Presence::Present, mtls: Mode::Strict, ..Settings::default() });
    assert_eq!(named(&index), [strict]);
    index.apply(object(peer(
        "ambit-system",
        "mesh",
        "2026-01-01T00:00:00Z",
        json!({"mtls": {"mode": "PERMISSIVE"}}),
    )));
    assert_eq!(named(&index), Vec::<String>::new(), "the system namespace overrides the Mesh");
    index.apply(object(peer(
        "shop",
        "young",
        "2026-01-02T00:00:00Z",
        json!({"mtls": {"mode": "PERMISSIVE"}}),
    )));
    index.apply(object(peer("shop", "old", "2026-01-01T00:00:00Z", json!({"mtls": {"mode": "STRICT"}}))));
    assert_eq!(named(&index), [strict], "the oldest of a level wins");
    let ports =
        json!({"selector": {"matchLabels": {"app": "cart"}}, "portLevelMtls": {"8080": {"mode": "DISABLE"}}});
    index.apply(object(peer("shop", "ports", "2026-01-03T00:00:00Z", ports)));
    let own = NamespacedName::new("shop", "converted_peer_authentication_ports");
    assert_eq!(named(&index), [own.to_string()]);
    assert!(index.policy(&own).is_some());
    let changes =
        index.delete(&Key { kind: Kind::PeerAuthentication, name: NamespacedName::new("shop", "ports") });
    assert!(changes.policies.contains(&own) && index.policy(&own).is_none());
    assert_eq!(named(&index), [strict]);
}

#[test]
fn a_complete_list_takes_out_what_it_does_not_name() {
    let mut index = present();
    index.apply(object(pod("cart", json!({}))));
    index.apply(object(pod("front", json!({}))));
    let changes = index.retain(Kind::Pod, &BTreeSet::from([NamespacedName::new("shop", "front")]));
    assert_eq!(changes.workloads, BTreeSet::from([CART.into()]));
    assert_eq!(index.workloads().count(), 1);
}

#[test]
fn the_order_of_objects_does_not_matter() {
    let objects = [
        namespace("shop", "ambient"),
        pod("cart", json!({"metadata": {"annotations": {"ambient.istio.io/redirection": "enabled"}}})),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
               "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "cart"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        policy("shop", "own", json!({"selector": {"matchLabels": {"app": "cart"}}, "rules": [{}]})),
        peer("shop", "strict", "2026-01-01T00:00:00Z", json!({"mtls": {"mode": "STRICT"}})),
    ];
    let mut seen = Vec::new();
    for first in 0..objects.len() {
        let mut index = present();
        for at in 0..objects.len() {
            index.apply(object(objects[(first + at) % objects.len()].clone()));
        }
        seen.push(index.workload(CART).unwrap().clone());
    }
    assert!(seen.iter().all(|workload| *workload == seen[0]), "{seen:#?}");
    assert_eq!(seen[0].authorization_policies.len(), 2);
}

mod around;
mod bad_input;
mod balancing;
mod closed;
mod custom;
mod endpoints;
mod past;
mod peer_levels;
mod policy_settings;
mod propagation;
mod roots;
mod routes;
mod waypoint_pods;
mod waypoints;
