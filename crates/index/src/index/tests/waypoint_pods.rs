//! Pods, waypoints for pods, and the steps from one to the other.

use ambit_api::{conditions::reason, mesh::FailurePolicy};
use ambit_model::{Addressed, GatewayDestination, bound::PODS};

use super::{waypoints::*, *};

/// A waypoint that serves `serves`.
fn waypoint(gateway_name: &str, serves: &str) -> Value {
    gateway(gateway_name, json!({"metadata": {"labels": {"istio.io/waypoint-for": serves}}}))
}

fn labelled(key: &str, value: &str) -> Value {
    json!({"metadata": {"labels": {key: value}}})
}

/// An enrolled namespace with one pod, its service and a ready waypoint, with all steps settled.
fn settled(label: Option<&str>, serves: &str) -> Index {
    let mut index = present();
    for value in
        [shop(label), redirected("cart", json!({})), service("cart", json!({})), waypoint("w", serves)]
    {
        index.apply(object(value));
    }
    index.serve();
    index
}

/// What is published about a pod: whether its waypoint has its namespace and the pod by name, the
/// waypoint that clients use, and the account that the pod admits.
fn seen(index: &Index, uid: &str) -> (Option<bool>, Option<String>, Option<String>) {
    let bound = index.bound_service(&name("w"), &NamespacedName::new("shop", PODS));
    let named = bound.map(|bound| match &bound.addressed {
        Addressed::Pods(uids) => uids.contains(uid),
        Addressed::Service => panic!("{bound:?}"),
    });
    let workload = index.workload(uid).unwrap();
    let told = workload.waypoint.clone().map(|waypoint| match waypoint.destination {
        GatewayDestination::Hostname(name) => name.name.split('.').next().unwrap().to_owned(),
        GatewayDestination::Address(address) => panic!("{address:?}"),
    });
    let policies = workload.authorization_policies.iter();
    let closed: Vec<_> = policies.filter_map(|key| key.name.strip_prefix("ambit-waypoint-pods.")).collect();
    assert!(closed.len() < 2, "{closed:?}");
    let closed = closed.first().map(|by| by.to_string());
    if let Some(by) = &closed {
        assert!(index.policy(&name(&format!("ambit-waypoint-pods.{by}"))).is_some(), "{by} is published");
    }
    (named, told, closed)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_pod_goes_to_its_waypoint_step_by_step_and_comes_back_the_same_way() {
    let mut index = settled(None, "workload");
    assert_eq!(seen(&index, CART), (None, None, None));
    let pods = NamespacedName::new("shop", PODS);
    let changes = index.apply(object(shop(Some("w"))));
    assert_eq!(changes.bound, BTreeSet::from([(name("w"), pods.clone())]));
    assert_eq!(seen(&index, CART), (Some(true), None, None), "the waypoint knows it first");
    let changes = settle(&mut index);
    assert_eq!((changes.workloads.len(), changes.policies.len()), (1, 0));
    assert_eq!(seen(&index, CART), (Some(true), some("w"), None), "then clients are told");
    let changes = settle(&mut index);
    assert_eq!((changes.workloads.len(), changes.policies.len()), (1, 1));
    assert_eq!(seen(&index, CART), (Some(false), some("w"), some("shop.w")));
    assert_eq!(settle(&mut index), Changes::default());
    index.apply(object(shop(None)));
    assert_eq!(seen(&index, CART), (Some(true), some("w"), None), "others are let in first");
    assert_eq!(index.policies().count(), 1, "the policy went with the last pod that names it");
    settle(&mut index);
    assert_eq!(seen(&index, CART), (Some(true), None, None));
    let changes = settle(&mut index);
    assert_eq!(changes.bound, BTreeSet::from([(name("w"), pods)]));
    assert_eq!(seen(&index, CART), (None, None, None));
    assert_eq!(settle(&mut index), Changes::default());
}

#[test]
fn what_a_waypoint_is_for_decides_who_is_bound() {
    let bound = Some(reason::WAYPOINT_ACCEPTED);
    let refused = Some(reason::UNSUPPORTED_TRAFFIC_TYPE);
    for (serves, is_pod_bound, of_service) in [
        ("service", false, bound),
        ("workload", true, refused),
        ("all", true, bound),
        ("none", false, refused),
    ] {
        let index = settled(Some("w"), serves);
        let (_, told, closed) = seen(&index, CART);
        assert_eq!((told.is_some(), closed.is_some()), (is_pod_bound, is_pod_bound), "{serves}");
        let patches = index.status_patches();
        assert_eq!(patches[0].judgements.first().map(|judgement| judgement.reason), of_service, "{serves}");
        assert_eq!(index.refused_pods().count(), 0, "{serves}: a pod that inherits is told nothing");
    }
}

#[test]
fn the_pods_own_label_comes_before_its_namespaces_and_a_refusal_of_it_is_told() {
    let own = |value: &str| redirected("cart", labelled("istio.io/use-waypoint", value));
    for (namespace, pod, serves, told, refused) in [
        (Some("w"), own("none"), "workload", None, None),
        (None, own("w"), "workload", some("w"), None),
        (Some("other"), own("w"), "all", some("w"), None),
        (None, own("other"), "all", None, Some(reason::WAYPOINT_IS_NOT_READY)),
        // It stays where it is until the other waypoint exists.
        (Some("w"), own("other"), "all", some("w"), Some(reason::WAYPOINT_IS_NOT_READY)),
        (None, own("w"), "service", None, Some(reason::UNSUPPORTED_TRAFFIC_TYPE)),
        (None, own("w"), "none", None, Some(reason::UNSUPPORTED_TRAFFIC_TYPE)),
    ] {
        let mut index = settled(namespace, serves);
        index.apply(object(pod));
        (0..4).for_each(|_| drop(settle(&mut index)));
        assert_eq!(seen(&index, CART).1, told, "{namespace:?} {serves}");
        let why: Vec<_> = index.refused_pods().map(|(pod, why)| (pod.name, why.reason)).collect();
        assert_eq!(why, refused.map(|why| (name("cart"), why)).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn neither_the_waypoints_pods_nor_pods_outside_the_mesh_are_bound() {
    let mut index = settled(Some("w"), "workload");
    index.apply(object(waypoint_pod("w-1", "w", "True")));
    index.apply(object(pod("out", labelled("istio.io/dataplane-mode", "none"))));
    let host = json!({"spec": {"hostNetwork": true}});
    index.apply(object(pod("host", host)));
    for pod in ["w-1", "out", "host"] {
        let (_, told, closed) = seen(&index, &format!("Kubernetes//Pod/shop/{pod}"));
        assert_eq!((told, closed), (None, None), "{pod}");
    }
}

#[test]
fn a_new_pod_is_born_behind_its_waypoint_and_costs_the_waypoint_nothing() {
    let mut index = settled(Some("w"), "all");
    let plain = pod("new", json!({"metadata": {"labels": {"app": "else"}}}));
    let changes = index.apply(object(plain));
    let uid = "Kubernetes//Pod/shop/new";
    assert_eq!(seen(&index, uid), (Some(false), some("w"), some("shop.w")), "before it is redirected");
    assert_eq!((changes.bound.len(), changes.policies.len(), changes.settling), (0, 0, None));
    index.delete(&Key { kind: Kind::Pod, name: name("new") });
    assert_eq!(seen(&index, CART).2, some("shop.w"), "others still name the policy");
}

#[test]
fn a_running_pod_waits_until_it_is_in_the_mesh() {
    let mut index = settled(None, "workload");
    index.apply(object(pod("late", json!({"metadata": {"labels": {"istio.io/dataplane-mode": "ambient"}}}))));
    index.apply(object(shop(Some("w"))));
    (0..4).for_each(|_| drop(settle(&mut index)));
    let uid = "Kubernetes//Pod/shop/late";
    assert_eq!(seen(&index, uid), (Some(true), None, None));
    index.apply(object(redirected("late", json!({}))));
    (0..4).for_each(|_| drop(settle(&mut index)));
    assert_eq!(seen(&index, uid), (Some(false), some("w"), some("shop.w")));
}

#[test]
fn a_pod_that_moves_is_served_and_admitted_by_both() {
    let mut index = settled(Some("w"), "workload");
    index.apply(object(waypoint("v", "workload")));
    index.apply(object(redirected("cart", labelled("istio.io/use-waypoint", "v"))));
    assert_eq!(seen(&index, CART), (Some(true), some("w"), some("shop.v+shop.w")));
    settle(&mut index);
    assert_eq!(seen(&index, CART), (Some(true), some("v"), some("shop.v+shop.w")));
    settle(&mut index);
    assert_eq!(seen(&index, CART), (None, some("v"), some("shop.v")));
}

#[test]
fn a_pod_lets_the_waypoints_of_its_services_through_before_clients_are_sent_there() {
    let mut index = settled(Some("w"), "workload");
    assert_eq!(seen(&index, CART).2, some("shop.w"));
    index.apply(object(gateway("v", json!({}))));
    index.apply(object(service("cart", labelled("istio.io/use-waypoint", "v"))));
    assert_eq!(index.service(&key("cart")).unwrap().waypoint, None);
    assert_eq!(seen(&index, CART).2, some("shop.v+shop.w"));
    index.delete(&Key { kind: Kind::Service, name: name("cart") });
    assert_eq!(seen(&index, CART).2, some("shop.w"));
}

#[test]
fn pods_are_judged_by_what_is_attached_to_their_waypoint_or_its_class_once_for_all() {
    let mut index = settled(Some("w"), "all");
    let attach = |namespace: &str, kind: &str, target: &str| {
        let group = if kind == "Service" { "" } else { "gateway.networking.k8s.io" };
        let refs = json!([{"group": group, "kind": kind, "name": target}]);
        policy(namespace, &kind.to_lowercase(), json!({"targetRefs": refs, "rules": [{}]}))
    };
    index.apply(object(attach("shop", "Service", "cart")));
    let changes = index.apply(object(attach("shop", "Gateway", "w")));
    assert_eq!(changes.bound.len(), 2, "one for the service, one for all pods");
    index.apply(object(attach("ambit-system", "GatewayClass", "istio-waypoint")));
    let bound = index.bound_service(&name("w"), &NamespacedName::new("shop", PODS)).unwrap();
    let names: Vec<_> = bound.authorization.iter().map(|policy| policy.key.to_string()).collect();
    assert_eq!(names, ["ambit-system/gatewayclass", "shop/gateway"]);
    assert!(bound.ports.is_empty() && bound.destinations.is_empty());
}

#[test]
fn a_waypoint_that_lost_its_pods_keeps_its_own_unless_it_may_be_left_out() {
    for (policy, told, closed) in
        [(FailurePolicy::Closed, some("w"), some("shop.w")), (FailurePolicy::Open, None, None)]
    {
        let mut index = settled(Some("w"), "workload");
        index.set_failure_policy(&name("w"), Some(policy));
        index.apply(object(waypoint_pod("w-1", "w", "True")));
        (0..4).for_each(|_| drop(settle(&mut index)));
        assert_eq!(seen(&index, CART).1, some("w"));
        index.apply(object(waypoint_pod("w-1", "w", "False")));
        settle(&mut index);
        assert_eq!((seen(&index, CART).1, seen(&index, CART).2), (told, closed), "{policy:?}");
    }
}

#[test]
fn before_anybody_hears_of_it_every_pod_is_where_it_should_be_whatever_the_order() {
    let objects = [shop(Some("w")), pod("cart", json!({})), service("cart", json!({})), waypoint("w", "all")];
    for first in 0..objects.len() {
        let mut index = present();
        for at in 0..objects.len() {
            index.apply(object(objects[(first + at) % objects.len()].clone()));
        }
        index.serve();
        assert_eq!(seen(&index, CART), (Some(false), some("w"), some("shop.w")), "{first}");
    }
}

#[test]
fn a_pod_whose_waypoint_is_lost_stays_closed_while_a_label_asks_for_it() {
    let mut index = settled(Some("w"), "all");
    assert_eq!(seen(&index, CART).2, some("shop.w"));
    index.delete(&Key { kind: Kind::Gateway, name: name("w") });
    for _ in 0..4 {
        assert_eq!(seen(&index, CART).2, some("shop.w"), "nobody is let in");
        settle(&mut index);
    }
    assert_eq!(seen(&index, CART), (None, some("w"), some("shop.w")), "no waypoint knows it any more");
    index.apply(object(waypoint("w", "all")));
    assert_eq!(seen(&index, CART), (Some(false), some("w"), some("shop.w")));
    index.delete(&Key { kind: Kind::Gateway, name: name("w") });
    index.apply(object(shop(None)));
    (0..4).for_each(|_| drop(settle(&mut index)));
    assert_eq!(seen(&index, CART), (None, None, None));
}
