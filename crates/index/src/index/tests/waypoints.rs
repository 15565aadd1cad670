//! Services, waypoints and the steps from one to the other.

use std::time::Duration;

use ambit_api::{conditions::reason, mesh::FailurePolicy};
use ambit_model::{GatewayDestination, Policy, StringMatch};

use super::*;
use crate::policies::{
    Holds,
    request_authentication::{TIMEOUT, WantedKeySet},
};

pub(super) fn shop(label: Option<&str>) -> Value {
    let mut namespace = namespace("shop", "ambient");
    if let Some(waypoint) = label {
        namespace["metadata"]["labels"]["istio.io/use-waypoint"] = json!(waypoint);
    }
    namespace
}

pub(super) fn redirected(name: &str, with: Value) -> Value {
    let mut pod =
        pod(name, json!({"metadata": {"annotations": {"ambient.istio.io/redirection": "enabled"}}}));
    merge(&mut pod, with);
    pod
}

pub(super) fn gateway(name: &str, with: Value) -> Value {
    let mut gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        "status": {"addresses": [{"type": "IPAddress", "value": "10.96.1.1"}]}
    });
    merge(&mut gateway, with);
    gateway
}

pub(super) fn waypoint_pod(name: &str, gateway: &str, ready: &str) -> Value {
    pod(
        name,
        json!({
            "metadata": {"labels": {"gateway.istio.io/managed": "ambit.dev-mesh-controller", "pod-template-hash": "5d4",
                                    "gateway.networking.k8s.io/gateway-name": gateway, "istio.io/dataplane-mode": "none"},
                         "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                                              "name": format!("{gateway}-5d4"), "uid": "rs"}]},
            "spec": {"serviceAccountName": gateway},
            "status": {"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}], "conditions": [{"type": "Ready", "status": ready}]}
        }),
    )
}

pub(super) fn service(name: &str, with: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "cart"},
                 "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "http-named", "port": 81, "targetPort": "http"}]}
    });
    merge(&mut service, with);
    service
}

/// An enrolled namespace with a pod, its service and a ready waypoint, with all steps settled.
pub(super) fn settled(label: Option<&str>) -> Index {
    let mut index = present();
    for value in
        [shop(label), redirected("cart", json!({})), service("cart", json!({})), gateway("w", json!({}))]
    {
        index.apply(object(value));
    }
    index.serve();
    index
}

pub(super) fn settle(index: &mut Index) -> Changes {
    index.settle(u64::MAX)
}

pub(super) fn key(name: &str) -> NamespacedName {
    NamespacedName::new("shop", format!("{name}.shop.svc.cluster.local"))
}

pub(super) fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

/// What is published about a service: the waypoints that have it, the one that clients use, and the
/// accounts that its endpoints admit.
pub(super) fn seen(index: &Index, service: &str) -> (Vec<String>, Option<String>, Vec<String>) {
    let known = index.waypoints().map(|waypoint| waypoint.name);
    let known = known.filter(|waypoint| index.bound_service(waypoint, &key(service)).is_some());
    let told = index.service(&key(service)).and_then(|s| s.waypoint.clone()).map(|waypoint| {
        match waypoint.destination {
            GatewayDestination::Hostname(name) => name.name.split('.').next().unwrap().to_owned(),
            GatewayDestination::Address(address) => panic!("{address:?}"),
        }
    });
    (known.map(|waypoint| waypoint.name.to_string()).collect(), told, admitted(index, service))
}

/// Accounts that the closing policy admits, if the pod references it.
pub(super) fn admitted(index: &Index, service: &str) -> Vec<String> {
    let policy = name(&format!("ambit-waypoint-{service}"));
    let is_named = index.workload(CART).is_some_and(|w| w.authorization_policies.contains(&policy));
    let policy = index.policy(&policy);
    assert_eq!(policy.is_some(), is_named, "a policy is named exactly while it exists");
    let Some(policy) = policy else { return Vec::new() };
    let Policy { rules, .. } = policy.as_ref();
    let principals = &rules[0].clauses[0].matches[0].not_principals;
    principals
        .iter()
        .map(|principal| {
            let StringMatch::Exact(id) = principal else { panic!("{principal:?}") };
            id.rsplit('/').next().unwrap().to_owned()
        })
        .collect()
}

pub(super) fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_goes_to_its_waypoint_step_by_step_and_comes_back_the_same_way() {
    let mut index = settled(None);
    assert_eq!(seen(&index, "cart"), (vec![], None, vec![]));
    let changes = index.apply(object(shop(Some("w"))));
    assert!(changes.settling.is_some() && changes.bound == BTreeSet::from([(name("w"), key("cart"))]));
    assert!(!changes.services.contains(&key("cart")));
    assert_eq!(seen(&index, "cart"), (strings(&["w"]), None, vec![]), "the waypoint knows it first");
    let changes = settle(&mut index);
    assert_eq!(changes.services, BTreeSet::from([key("cart")]));
    assert_eq!(seen(&index, "cart"), (strings(&["w"]), Some("w".into()), vec![]), "then clients are told");
    let changes = settle(&mut index);
    assert_eq!((changes.policies.len(), changes.workloads.len()), (1, 1));
    assert_eq!(seen(&index, "cart"), (strings(&["w"]), Some("w".into()), strings(&["w"])));
    let last = settle(&mut index);
    assert_eq!(last, Changes::default());
    index.apply(object(shop(None)));
    assert_eq!(seen(&index, "cart"), (strings(&["w"]), Some("w".into()), vec![]), "others are let in first");
    settle(&mut index);
    assert_eq!(seen(&index, "cart"), (strings(&["w"]), None, vec![]));
    let changes = settle(&mut index);
    assert_eq!(changes.bound, BTreeSet::from([(name("w"), key("cart"))]));
    assert_eq!(seen(&index, "cart"), (vec![], None, vec![]));
    assert_eq!(settle(&mut index), Changes::default());
}

#[test]
fn a_step_waits_for_its_own_pause_and_not_for_another_services() {
    let mut index = settled(None);
    let first =
        index.apply(object(service("cart", json!({"metadata": {"labels": {"istio.io/use-waypoint": "w"}}}))));
    let other = json!({"metadata": {"labels": {"istio.io/use-waypoint": "w"}}, "spec": {"selector": {"app": "else"}}});
    let second = index.apply(object(service("other", other)));
    assert!(second.settling > first.settling);
    index.settle(first.settling.unwrap());
    assert_eq!(seen(&index, "cart").1.as_deref(), Some("w"));
    assert_eq!(seen(&index, "other").1, None, "it was known for a shorter time");
    index.settle(second.settling.unwrap());
    assert_eq!(seen(&index, "other").1.as_deref(), Some("w"));
}

#[test]
fn before_anybody_hears_of_it_everything_is_where_it_should_be_whatever_the_order() {
    let objects = [
        shop(Some("w")),
        redirected("cart", json!({})),
        service("cart", json!({})),
        gateway("w", json!({})),
        waypoint_pod("w-1", "w", "True"),
    ];
    for first in 0..objects.len() {
        let mut index = present();
        for at in 0..objects.len() {
            index.apply(object(objects[(first + at) % objects.len()].clone()));
        }
        index.serve();
        assert_eq!(seen(&index, "cart"), (strings(&["w"]), Some("w".into()), strings(&["w"])), "{first}");
    }
}

#[test]
fn the_endpoints_are_closed_on_numbered_and_named_target_ports_to_all_but_the_waypoint() {
    let mut index = settled(Some("w"));
    let with_two =
        json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 9090}]}]}});
    index.apply(object(redirected("cart", with_two)));
    let policy = index.policy(&name("ambit-waypoint-cart")).unwrap();
    let matched = &policy.rules[0].clauses[0].matches[0];
    assert_eq!(matched.destination_ports, [8080, 9090]);
    let waypoint = StringMatch::Exact("cluster.local/ns/shop/sa/w".into());
    assert_eq!(matched.not_principals, [waypoint]);
    let waypoint = index.service(&key("cart")).unwrap().waypoint.clone().unwrap();
    assert_eq!(waypoint.hbone_mtls_port, 15008);
    assert_eq!(waypoint.destination, GatewayDestination::Hostname(key("w")));
}

#[test]
fn a_waypoint_that_lost_its_pods_keeps_its_services_unless_it_may_be_left_out() {
    for (of_mesh, of_gateway, stays) in [
        (FailurePolicy::Closed, None, true),
        (FailurePolicy::Open, None, false),
        (FailurePolicy::Open, Some(FailurePolicy::Closed), true),
        (FailurePolicy::Closed, Some(FailurePolicy::Open), false),
    ] {
        let mut index = settled(Some("w"));
        index.configure(Settings { failure_policy: of_mesh, ..index.settings().clone() });
        index.set_failure_policy(&name("w"), of_gateway);
        index.apply(object(waypoint_pod("w-1", "w", "True")));
        (0..4).for_each(|_| drop(settle(&mut index)));
        let closed = if stays { strings(&["w"]) } else { vec![] };
        assert_eq!(seen(&index, "cart"), (strings(&["w"]), Some("w".into()), closed));
        let changes = index.apply(object(waypoint_pod("w-1", "w", "False")));
        assert!(changes.waypoints.contains(&name("w")));
        assert_eq!(index.waypoint(&name("w")).unwrap().ready_pods, 0);
        assert_eq!(seen(&index, "cart").1.is_some(), stays, "{of_mesh:?} {of_gateway:?}");
        settle(&mut index);
        index.apply(object(waypoint_pod("w-1", "w", "True")));
        assert_eq!(seen(&index, "cart").1.as_deref(), Some("w"), "and it comes back");
    }
}

#[test]
fn l7_waits_for_l4_whatever_is_listed_first() {
    let objects =
        [shop(Some("w")), pod("cart", json!({})), service("cart", json!({})), gateway("w", json!({}))];
    for first in 0..objects.len() {
        let mut index = present();
        for at in 0..objects.len() {
            index.apply(object(objects[(first + at) % objects.len()].clone()));
        }
        index.serve();
        assert_eq!(seen(&index, "cart"), (strings(&["w"]), None, vec![]), "{first}");
        assert_eq!(bound_condition(&index), Some((Holds::False, reason::WAITING_FOR_ENROLLMENT)));
    }
}

#[test]
fn nobody_can_put_a_policy_in_the_place_of_the_one_that_closes_endpoints() {
    let mut index = settled(Some("w"));
    let changes = index.apply(object(policy("shop", "ambit-waypoint-cart", json!({"rules": [{}]}))));
    assert_eq!(changes.policies, BTreeSet::new());
    assert_eq!(admitted(&index, "cart"), strings(&["w"]));
    let patches = index.status_patches();
    let patch = patches.iter().find(|patch| patch.kind == Kind::AuthorizationPolicy).unwrap();
    assert_eq!((patch.judgements[0].holds, patch.judgements[0].reason), (Holds::False, reason::INVALID));
    index.delete(&Key { kind: Kind::AuthorizationPolicy, name: name("ambit-waypoint-cart") });
    assert_eq!(admitted(&index, "cart"), strings(&["w"]));
}

#[test]
fn l7_waits_for_l4_once_and_the_status_remembers_it() {
    let mut index = present();
    for value in
        [shop(Some("w")), pod("cart", json!({})), service("cart", json!({})), gateway("w", json!({}))]
    {
        index.apply(object(value));
    }
    index.serve();
    let why = |index: &Index| bound_condition(index).map(|(_, why)| why);
    assert_eq!((seen(&index, "cart").1, why(&index)), (None, Some(reason::WAITING_FOR_ENROLLMENT)));
    index.apply(object(redirected("cart", json!({}))));
    (0..3).for_each(|_| drop(settle(&mut index)));
    assert_eq!(
        (seen(&index, "cart").1.as_deref(), why(&index)),
        (Some("w"), Some(reason::WAYPOINT_ACCEPTED))
    );
    index.apply(object(pod("cart-2", json!({"metadata": {"labels": {"app": "cart"}}}))));
    assert_eq!(seen(&index, "cart").1.as_deref(), Some("w"), "a pod that is added takes nothing back");
    let said = json!({"status": {"conditions": [{"type": "istio.io/WaypointBound", "status": "True", "reason": "WaypointAccepted",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let mut anew = present();
    for value in [shop(Some("w")), pod("cart", json!({})), service("cart", said), gateway("w", json!({}))] {
        anew.apply(object(value));
    }
    anew.serve();
    assert_eq!(seen(&anew, "cart").1.as_deref(), Some("w"), "nor does a control plane that starts anew");
}

/// The status and reason that a patch would write to the Service.
pub(super) fn bound_condition(index: &Index) -> Option<(Holds, &'static str)> {
    let patches = index.status_patches();
    let patch = patches.iter().find(|patch| patch.kind == Kind::Service && patch.name == name("cart"))?;
    patch.judgements.first().map(|judgement| (judgement.holds, judgement.reason))
}

#[test]
fn the_status_of_a_service_is_written_once_and_taken_back_with_the_label() {
    let mut index = settled(Some("w"));
    assert_eq!(bound_condition(&index), Some((Holds::True, reason::WAYPOINT_ACCEPTED)));
    let message = "Successfully attached to waypoint shop/w";
    let said = json!({"status": {"conditions": [
        {"type": "Other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "istio.io/WaypointBound", "status": "True", "reason": "WaypointAccepted", "message": message,
         "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "ambit.dev/WaypointEnforced", "status": "True", "reason": "Enforced",
         "message": "Only waypoint shop/w reaches its endpoints", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    index.apply(object(service("cart", said)));
    assert_eq!(index.status_patches(), []);
    let changes = index.apply(object(shop(None)));
    assert!(changes.policy_status);
    (0..3).for_each(|_| drop(settle(&mut index)));
    let patches = index.status_patches();
    assert_eq!((patches.len(), patches[0].judgements.len()), (1, 0));
    assert_eq!(patches[0].current.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(), ["Other"]);
    let changes = index.apply(object(service("cart", json!({}))));
    assert_eq!((changes.services.len(), index.status_patches()), (0, vec![]));
}

#[test]
fn a_status_that_somebody_wiped_is_written_again() {
    let mut index = settled(Some("w"));
    let changes = index.apply(object(service("cart", json!({"metadata": {"resourceVersion": "2"}}))));
    assert!(changes.policy_status && changes.services.is_empty());
    assert_eq!(bound_condition(&index), Some((Holds::True, reason::WAYPOINT_ACCEPTED)));
}

#[test]
fn services_with_common_endpoints_let_each_others_waypoints_through() {
    let mut index = settled(Some("w"));
    let of_v = |label: &str| json!({"metadata": {"labels": {"istio.io/use-waypoint": label}}});
    index.apply(object(gateway("v", json!({}))));
    index.apply(object(service("cart-v1", of_v("none"))));
    assert_eq!(admitted(&index, "cart"), strings(&["w"]));
    index.apply(object(service("cart-v1", of_v("v"))));
    assert_eq!(admitted(&index, "cart"), strings(&["v", "w"]), "before a client is sent there");
    (0..3).for_each(|_| drop(settle(&mut index)));
    assert_eq!(seen(&index, "cart-v1").1.as_deref(), Some("v"));
    assert_eq!(
        (admitted(&index, "cart"), admitted(&index, "cart-v1")),
        (strings(&["v", "w"]), strings(&["v", "w"]))
    );
    index.delete(&Key { kind: Kind::Service, name: name("cart-v1") });
    assert_eq!(admitted(&index, "cart"), strings(&["w"]));
    assert!(index.policy(&name("ambit-waypoint-cart-v1")).is_none());
}

#[test]
fn a_service_that_moves_is_served_and_admitted_by_both() {
    let mut index = settled(Some("w"));
    index.apply(object(gateway("v", json!({"status": {"addresses": []}}))));
    // `merge` cannot shorten an array; a Gateway without status has no address.
    let mut unready = gateway("v", json!({}));
    unready["status"] = json!({});
    index.apply(object(unready));
    index.apply(object(shop(Some("v"))));
    (0..4).for_each(|_| drop(settle(&mut index)));
    assert_eq!(seen(&index, "cart"), (strings(&["w"]), Some("w".into()), strings(&["w"])), "v is not ready");
    assert_eq!(bound_condition(&index), Some((Holds::False, reason::WAYPOINT_IS_NOT_READY)));
    index.apply(object(gateway("v", json!({}))));
    let both = || strings(&["v", "w"]);
    assert_eq!(seen(&index, "cart"), (both(), Some("w".into()), both()));
    settle(&mut index);
    assert_eq!(seen(&index, "cart"), (both(), Some("v".into()), both()));
    settle(&mut index);
    assert_eq!(seen(&index, "cart"), (strings(&["v"]), Some("v".into()), strings(&["v"])));
}

#[test]
fn what_a_waypoint_cannot_serve_is_refused_with_the_reason() {
    let of = |label: &str| json!({"metadata": {"labels": {"istio.io/use-waypoint": label}}});
    let headless = json!({"spec": {"clusterIP": "None"}});
    let managed = json!({"metadata": {"labels": {"gateway.istio.io/managed": "ambit.dev-mesh-controller"}}});
    let workloads = json!({"metadata": {"labels": {"istio.io/waypoint-for": "workload"}}});
    for (what, of_service, of_gateway, expected) in [
        ("opted out", of("none"), json!({}), None),
        ("of a waypoint", managed, json!({}), None),
        ("headless", headless, json!({}), Some(reason::UNSUPPORTED_TRAFFIC_TYPE)),
        ("for pods", json!({}), workloads, Some(reason::UNSUPPORTED_TRAFFIC_TYPE)),
        ("unknown", of("missing"), json!({}), Some(reason::WAYPOINT_IS_NOT_READY)),
        (
            "other class",
            json!({}),
            json!({"spec": {"gatewayClassName": "istio"}}),
            Some(reason::WAYPOINT_IS_NOT_READY),
        ),
    ] {
        let mut index = present();
        for value in [
            shop(Some("w")),
            redirected("cart", json!({})),
            service("cart", of_service),
            gateway("w", of_gateway),
        ] {
            index.apply(object(value));
        }
        assert_eq!(seen(&index, "cart"), (vec![], None, vec![]), "{what}");
        assert_eq!(bound_condition(&index), expected.map(|why| (Holds::False, why)), "{what}");
    }
}

#[test]
fn a_class_that_somebody_else_runs_makes_no_waypoint_of_ours_and_says_what_its_gateways_are_for() {
    let class = |controller: &str, labels: Value| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
               "metadata": {"name": "istio-waypoint", "labels": labels}, "spec": {"controllerName": controller}})
    };
    let mut index = settled(Some("w"));
    index.apply(object(class("istio.io/mesh-controller", json!({}))));
    (0..3).for_each(|_| drop(settle(&mut index)));
    assert_eq!((index.waypoints().count(), admitted(&index, "cart")), (0, strings(&["w"])), "and opens none");
    assert_eq!(index.waypoint_of_account("shop", "w"), None);
    index.apply(object(class("ambit.dev/mesh-controller", json!({"istio.io/waypoint-for": "workload"}))));
    assert_eq!(bound_condition(&index), Some((Holds::False, reason::UNSUPPORTED_TRAFFIC_TYPE)));
    index.apply(object(class("ambit.dev/mesh-controller", json!({}))));
    (0..3).for_each(|_| drop(settle(&mut index)));
    assert_eq!(seen(&index, "cart").1.as_deref(), Some("w"));
    assert_eq!(index.waypoint_of_account("shop", "w"), Some(name("w")));
}

#[test]
fn a_waypoint_of_another_namespace_serves_whom_its_listener_allows() {
    let mut index = settled(None);
    let there = json!({"metadata": {"namespace": "infra"}});
    index.apply(object(gateway("w", there.clone())));
    let asks = json!({"metadata": {"labels": {"istio.io/use-waypoint": "w", "istio.io/use-waypoint-namespace": "infra"}}});
    index.apply(object(service("cart", asks)));
    assert_eq!(bound_condition(&index), Some((Holds::False, reason::ATTACHMENT_DENIED)));
    let mut open = gateway("w", there);
    open["spec"]["listeners"][0]["allowedRoutes"] =
        json!({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}});
    index.apply(object(open));
    assert_eq!(bound_condition(&index), Some((Holds::False, reason::ATTACHMENT_DENIED)));
    let mut labelled = shop(None);
    labelled["metadata"]["labels"]["team"] = json!("a");
    index.apply(object(labelled));
    (0..3).for_each(|_| drop(settle(&mut index)));
    let policy = index.policy(&name("ambit-waypoint-cart")).unwrap();
    let waypoint = StringMatch::Exact("cluster.local/ns/infra/sa/w".into());
    assert_eq!(policy.rules[0].clauses[0].matches[0].not_principals, [waypoint]);
}

#[test]
fn a_pod_is_a_waypoints_by_its_labels_its_account_and_its_deployment() {
    let nobody = json!({"kubernetes.io/config.mirror": "x"});
    for (what, with, expected) in [
        ("as the operator makes it", json!({}), Some(name("w"))),
        ("another account", json!({"spec": {"serviceAccountName": "dev"}}), None),
        (
            "a label of nobody of ours",
            json!({"metadata": {"labels": {"gateway.istio.io/managed": "dev"}}}),
            None,
        ),
        (
            "another Gateway's label",
            json!({"metadata": {"labels": {"gateway.networking.k8s.io/gateway-name": "v"}}}),
            None,
        ),
        ("nobody controls it", json!({"metadata": {"ownerReferences": []}}), None),
        ("another template", json!({"metadata": {"labels": {"pod-template-hash": "other"}}}), None),
        ("a mirror pod", json!({"metadata": {"annotations": nobody}}), None),
    ] {
        let mut index = settled(Some("w"));
        let mut value = waypoint_pod("w-1", "w", "True");
        merge(&mut value, with);
        index.apply(object(value));
        assert_eq!(index.waypoint_of_pod(&name("w-1")).cloned(), expected, "{what}");
        let ready = usize::from(expected.is_some());
        assert_eq!(index.waypoint(&name("w")).unwrap().ready_pods, ready, "{what}");
    }
}

#[test]
fn a_pod_of_a_waypoint_ends_tunnels_itself() {
    let mut index = settled(Some("w"));
    index.apply(object(waypoint_pod("w-1", "w", "True")));
    let workload = index.workload("Kubernetes//Pod/shop/w-1").unwrap();
    assert_eq!((workload.tunnel_protocol, workload.native_tunnel), (TunnelProtocol::Hbone, true));
    let waypoint = index.waypoint(&name("w")).unwrap();
    assert_eq!((waypoint.ready_pods, waypoint.bound, waypoint.has_been_ready), (1, 1, true));
    index.delete(&Key { kind: Kind::Pod, name: name("w-1") });
    assert_eq!(index.waypoint(&name("w")).unwrap().ready_pods, 0);
}

#[test]
fn without_a_mesh_there_is_no_waypoint_for_anybody() {
    let mut index = settled(Some("w"));
    index.configure(Settings { presence: Presence::Leaving, ..Settings::default() });
    assert_eq!(
        admitted(&index, "cart"),
        Vec::<String>::new(),
        "the agents leave, so nothing may stay closed"
    );
    (0..3).for_each(|_| drop(settle(&mut index)));
    assert_eq!(seen(&index, "cart"), (vec![], None, vec![]));
    assert!(index.status_patches().iter().all(|patch| patch.judgements.is_empty()));
}

#[test]
fn a_waypoint_enforces_what_is_attached_to_it_its_class_or_its_service() {
    let attach = |namespace: &str, kind: &str, target: &str| {
        let group = if kind == "Service" { "" } else { "gateway.networking.k8s.io" };
        let mut spec = json!({"targetRefs": [{"group": group, "kind": kind, "name": target}], "rules": [{}]});
        if kind == "GatewayClass" {
            spec["action"] = json!("DENY");
        }
        policy(namespace, &kind.to_lowercase(), spec)
    };
    let mut index = settled(Some("w"));
    index.apply(object(attach("shop", "Service", "cart")));
    index.apply(object(attach("shop", "Gateway", "w")));
    index.apply(object(attach("ambit-system", "GatewayClass", "istio-waypoint")));
    index.apply(object(policy(
        "shop",
        "elsewhere",
        json!({"targetRefs": [{"kind": "Service", "name": "other"}]}),
    )));
    let names = |index: &Index| -> Vec<String> {
        let bound = index.bound_service(&name("w"), &key("cart")).unwrap();
        bound.authorization.iter().map(|policy| policy.key.to_string()).collect()
    };
    assert_eq!(names(&index), ["ambit-system/gatewayclass", "shop/gateway", "shop/service"]);
    let custom =
        json!({"targetRefs": [{"kind": "Service", "name": "cart"}], "action": "CUSTOM", "rules": [{}]});
    let changes = index.apply(object(policy("shop", "custom", custom)));
    assert_eq!(changes.bound, BTreeSet::from([(name("w"), key("cart"))]));
    let bound = index.bound_service(&name("w"), &key("cart")).unwrap();
    assert_eq!(bound.unenforceable[0].0, name("custom"));
    index.delete(&Key { kind: Kind::AuthorizationPolicy, name: name("custom") });
    index.delete(&Key { kind: Kind::AuthorizationPolicy, name: name("gateway") });
    assert_eq!(names(&index), ["ambit-system/gatewayclass", "shop/service"]);
    assert!(index.bound_service(&name("w"), &key("cart")).unwrap().unenforceable.is_empty());
}

#[test]
fn attached_policies_say_whether_a_waypoint_enforces_them() {
    let mut index = settled(Some("w"));
    let on = |target: &str| json!({"targetRefs": [{"kind": "Service", "name": target}], "rules": [{}]});
    index.apply(object(service("plain", json!({"metadata": {"labels": {"istio.io/use-waypoint": "none"}}}))));
    for target in ["cart", "plain", "missing"] {
        index.apply(object(policy("shop", target, on(target))));
    }
    let patches = index.status_patches();
    let why = |of: &str| {
        let patch =
            patches.iter().find(|p| p.kind == Kind::AuthorizationPolicy && p.name == name(of)).unwrap();
        patch.judgements[0].reason
    };
    assert_eq!(why("cart"), reason::ACCEPTED);
    assert_eq!((why("plain"), why("missing")), (reason::ANCESTOR_NOT_BOUND, reason::TARGET_NOT_FOUND));
}

#[test]
fn a_key_set_is_asked_for_and_put_where_it_is_wanted() {
    let mut index = settled(Some("w"));
    let uri: Arc<str> = "https://issuer.example/keys".into();
    let changes = index.apply(object(json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "jwt", "namespace": "shop"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "cart"}],
                 "jwtRules": [{"issuer": "https://issuer.example", "jwksUri": &*uri}]}
    })));
    let wanted = |namespaces: &[&str], timeout: Duration| {
        let namespaces = namespaces.iter().map(|namespace| Arc::from(*namespace)).collect();
        BTreeMap::from([(uri.clone(), WantedKeySet { namespaces, timeout })])
    };
    assert!(changes.key_set_uris && index.key_set_uris() == wanted(&["shop"], TIMEOUT));
    let other = |timeout: &str| {
        json!({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "jwt", "namespace": "other"},
            "spec": {"targetRefs": [{"kind": "Service", "name": "cart"}],
                     "jwtRules": [{"issuer": "i", "jwksUri": &*uri, "timeout": timeout}]}})
    };
    index.apply(object(other("1ms")));
    assert_eq!(
        index.key_set_uris(),
        wanted(&["other", "shop"], TIMEOUT),
        "nobody cuts another's fetch short"
    );
    assert!(index.apply(object(other("20s"))).key_set_uris);
    assert_eq!(index.key_set_uris(), wanted(&["other", "shop"], Duration::from_secs(20)));
    let keys =
        |index: &Index| index.bound_service(&name("w"), &key("cart")).unwrap().authentication[0].jwks.clone();
    assert_eq!(keys(&index), None, "nobody's token is valid before");
    let changes = index.set_key_set(&uri, Some(Ok("{\"keys\":[]}".into())));
    assert_eq!(changes.bound.len(), 1);
    assert_eq!(keys(&index).as_deref(), Some("{\"keys\":[]}"));
    assert!(index.set_key_set(&uri, Some(Ok("{\"keys\":[]}".into()))).is_empty());
    index.set_key_set(&uri, Some(Err("it is not there".into())));
    assert_eq!(keys(&index), None);
}
