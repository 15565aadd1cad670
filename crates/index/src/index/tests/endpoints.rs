//! Hand-written EndpointSlices: whose endpoints they may describe, and how their addresses are
//! resolved.

use ambit_model::{GatewayDestination, StringMatch};

use super::{waypoints::*, *};

/// A Service of `namespace` without selector, and its one slice.
fn manual(namespace: &str, labels: Value, endpoint: Value) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"name": "manual", "namespace": namespace, "labels": labels},
               "spec": {"clusterIP": "10.96.0.66", "ports": [{"name": "http", "port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
               "metadata": {"name": "manual-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": "manual"}},
               "ports": [{"name": "http", "port": 8080}], "endpoints": [endpoint]}),
    ]
}

fn other_uid(namespace: &str, address: &str) -> String {
    format!("Kubernetes/discovery.k8s.io/EndpointSlice/{namespace}/manual-1/{address}")
}

fn named(namespace: &str, pod: &str, address: &str) -> Value {
    json!({"addresses": [address], "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod}})
}

/// Applies the objects in every rotation, and then starts serving.
fn in_any_order(objects: &[Value]) -> Vec<Index> {
    let folded = (0..objects.len()).map(|first| {
        let mut index = present();
        for at in 0..objects.len() {
            index.apply(object(objects[(first + at) % objects.len()].clone()));
        }
        index.serve();
        index
    });
    folded.collect()
}

fn services_of(index: &Index, uid: &str) -> Vec<String> {
    index.workload(uid).unwrap().services.keys().map(ToString::to_string).collect()
}

#[test]
fn what_another_namespace_writes_of_a_pod_changes_nothing_about_it() {
    let theirs = json!({"istio.io/use-waypoint": "evil"});
    let evil = gateway("evil", json!({"metadata": {"namespace": "b"}}));
    let here =
        [shop(Some("w")), redirected("cart", json!({})), service("cart", json!({})), gateway("w", json!({}))];
    let before = in_any_order(&here).remove(0);
    let guard = name("ambit-waypoint-cart");
    for endpoint in [named("shop", "cart", "10.0.0.1"), json!({"addresses": ["10.0.0.1"]})] {
        let all: Vec<_> =
            here.iter().cloned().chain([evil.clone()]).chain(manual("b", theirs.clone(), endpoint)).collect();
        for mut index in in_any_order(&all) {
            (0..4).for_each(|_| drop(settle(&mut index)));
            assert_eq!(index.workload(CART), before.workload(CART));
            assert_eq!(index.policy(&guard), before.policy(&guard));
            let admitted = &index.policy(&guard).unwrap().rules[0].clauses[0].matches[0].not_principals;
            assert_eq!(*admitted, [StringMatch::Exact("cluster.local/ns/shop/sa/w".into())]);
            let other = index.workload(&other_uid("b", "10.0.0.1")).unwrap();
            assert_eq!(
                other.identity(),
                before.workload(CART).unwrap().identity(),
                "it is the pod, to clients"
            );
            assert_eq!(other.tunnel_protocol, TunnelProtocol::Hbone);
            let waypoint = other.waypoint.clone().unwrap().destination;
            assert_eq!(waypoint, GatewayDestination::Hostname(key("w")), "and is reached as the pod is");
            assert_eq!(other.network_mode, NetworkMode::HostNetwork, "but nobody is found by it");
            assert_eq!(services_of(&index, &other_uid("b", "10.0.0.1")), ["b/manual.b.svc.cluster.local"]);
        }
    }
}

#[test]
fn an_address_is_the_pod_of_the_own_namespace_that_has_it_whoever_the_slice_names() {
    let other = redirected("front", json!({"status": {"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}]}}));
    let table = [
        (json!({"addresses": ["10.0.0.1"]}), Some(CART), None),
        (named("shop", "cart", "10.0.0.1"), Some(CART), None),
        (named("shop", "cart", "10.0.0.7"), Some("Kubernetes//Pod/shop/front"), None),
        (named("elsewhere", "cart", "10.0.0.1"), Some(CART), None),
        // A pod that does not exist yet has no address that could be confused with it.
        (named("shop", "late", "10.0.0.8"), None, None),
        (named("elsewhere", "late", "10.0.0.8"), None, Some("10.0.0.8")),
        (json!({"addresses": ["10.0.0.8"]}), None, Some("10.0.0.8")),
    ];
    for (endpoint, pod, plain) in table {
        let [service, slice] = manual("shop", json!({}), endpoint.clone());
        let objects = [shop(None), redirected("cart", json!({})), other.clone(), service, slice];
        for index in in_any_order(&objects) {
            let serving: Vec<_> = index.workloads().filter(|w| !w.services.is_empty()).collect();
            assert_eq!(
                serving.len(),
                usize::from(pod.is_some() || plain.is_some()),
                "{endpoint}: {serving:?}"
            );
            if let Some(pod) = pod {
                assert_eq!(services_of(&index, pod), ["shop/manual.shop.svc.cluster.local"], "{endpoint}");
            }
            if let Some(address) = plain {
                let workload = index.workload(&other_uid("shop", address)).unwrap();
                assert_eq!(workload.tunnel_protocol, TunnelProtocol::None, "{endpoint}");
            }
        }
    }
}

#[test]
fn a_slice_follows_the_pods_that_come_to_its_addresses_and_go() {
    let mut index = present();
    for value in manual("b", json!({}), json!({"addresses": ["10.0.0.1"]})).into_iter().chain([shop(None)]) {
        index.apply(object(value));
    }
    let uid = other_uid("b", "10.0.0.1");
    let tunnel = |index: &Index| index.workload(&uid).unwrap().tunnel_protocol;
    assert_eq!(tunnel(&index), TunnelProtocol::None);
    index.apply(object(pod("cart", json!({}))));
    assert_eq!(tunnel(&index), TunnelProtocol::None);
    let changes = index.apply(object(redirected("cart", json!({}))));
    assert!(changes.workloads.contains(&*uid), "peers hear that it takes tunnels now");
    assert_eq!(tunnel(&index), TunnelProtocol::Hbone);
    let gone = Key { kind: Kind::Pod, name: name("cart") };
    assert!(index.delete(&gone).workloads.contains(&*uid));
    assert_eq!(tunnel(&index), TunnelProtocol::None);
    let late = json!({"status": {"podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}]}});
    let [service, slice] = manual("shop", json!({}), named("shop", "cart", "10.0.0.1"));
    for value in [service, slice, pod("cart", late)] {
        index.apply(object(value));
    }
    assert!(index.workload(CART).unwrap().services.is_empty(), "it has another address");
    index.apply(object(pod("cart", json!({}))));
    assert_eq!(services_of(&index, CART), ["shop/manual.shop.svc.cluster.local"]);
}

#[test]
fn what_shares_the_address_of_its_node_must_be_named() {
    let on_host = |name: &str| pod(name, json!({"spec": {"hostNetwork": true}}));
    for (endpoint, serving) in [
        (named("shop", "second", "10.0.0.1"), "Kubernetes//Pod/shop/second".to_owned()),
        (json!({"addresses": ["10.0.0.1"]}), other_uid("shop", "10.0.0.1")),
    ] {
        let [service, slice] = manual("shop", json!({}), endpoint);
        for index in in_any_order(&[on_host("first"), on_host("second"), service, slice]) {
            let found: Vec<_> = index.workloads().filter(|w| !w.services.is_empty()).collect();
            assert_eq!(
                found.iter().map(|w| w.uid.to_string()).collect::<Vec<_>>(),
                std::slice::from_ref(&serving)
            );
        }
    }
}
