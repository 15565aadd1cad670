use std::{collections::BTreeMap, net::IpAddr};

use ambit_api::{conditions::reason, gateway::Gateway, mesh::FailurePolicy};
use ambit_model::{Applied, Connection, PolicySet, Spiffe};
use serde_json::json;

use super::{
    binding::{Asking, Binding, Candidate, Endpoints, Wish, bind},
    stage::Goal,
    *,
};
use crate::gateways::GatewayFacts;

fn waypoint(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

fn gateway(is_ready: bool) -> GatewayFacts {
    let addresses = if is_ready { json!([{"value": "10.0.0.9"}]) } else { json!([]) };
    let gateway: Gateway = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "w", "namespace": "shop"},
        "spec": {"gatewayClassName": "ambit-waypoint",
                 "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        "status": {"addresses": addresses}
    }))
    .unwrap();
    GatewayFacts::read(&gateway).unwrap()
}

/// One decision, as far as a table varies it.
struct Case {
    own: Wish,
    inherited: Wish,
    namespace: &'static str,
    endpoints: (usize, usize, usize),
    was_bound: bool,
    is_ready: bool,
    serves: Serves,
    policy: FailurePolicy,
    has_ready_pod: bool,
}

fn case() -> Case {
    Case {
        own: Wish::Unset,
        inherited: Wish::Waypoint(waypoint("w")),
        namespace: "shop",
        endpoints: (2, 2, 2),
        was_bound: false,
        is_ready: true,
        serves: Serves::Services,
        policy: FailurePolicy::Closed,
        has_ready_pod: true,
    }
}

fn decide(case: &Case) -> Binding {
    let (all, wanted, enrolled) = case.endpoints;
    let asking = Asking {
        own: &case.own,
        inherited: &case.inherited,
        is_waypoint: false,
        is_headless: false,
        namespace: &case.namespace.into(),
        namespace_labels: &BTreeMap::new(),
        endpoints: Endpoints { all, wanted, enrolled },
        was_bound: case.was_bound,
    };
    let gateway = gateway(case.is_ready);
    let found = Candidate {
        gateway: &gateway,
        serves: case.serves,
        has_ready_pod: case.has_ready_pod,
        failure_policy: case.policy,
    };
    let exists = asking.waypoint() == Some(&waypoint("w"));
    bind(&asking, exists.then_some(&found))
}

#[test]
fn a_service_goes_where_its_labels_lead_once_both_sides_are_ready() {
    let to = || waypoint("w");
    let other = || Wish::Waypoint(waypoint("other"));
    let not_ready = reason::WAYPOINT_IS_NOT_READY;
    let waits = reason::WAITING_FOR_ENROLLMENT;
    let table: Vec<(&str, Case, Goal, Option<&str>)> = vec![
        ("namespace", case(), Goal::Enforce(to()), Some(reason::WAYPOINT_ACCEPTED)),
        ("own none", Case { own: Wish::None, ..case() }, Goal::Out, None),
        ("no label", Case { inherited: Wish::Unset, ..case() }, Goal::Out, None),
        ("own, no fallback", Case { own: other(), ..case() }, Goal::Out, Some(not_ready)),
        ("not ready", Case { is_ready: false, ..case() }, Goal::Serve(to()), Some(not_ready)),
        ("denied", Case { namespace: "pay", ..case() }, Goal::Out, Some(reason::ATTACHMENT_DENIED)),
        (
            "for pods",
            Case { serves: Serves::Workloads, ..case() },
            Goal::Out,
            Some(reason::UNSUPPORTED_TRAFFIC_TYPE),
        ),
        ("not in the mesh", Case { endpoints: (2, 0, 0), ..case() }, Goal::Serve(to()), Some(waits)),
        ("on its way", Case { endpoints: (2, 2, 1), ..case() }, Goal::Serve(to()), Some(waits)),
        (
            "no endpoint",
            Case { endpoints: (0, 0, 0), ..case() },
            Goal::Enforce(to()),
            Some(reason::WAYPOINT_ACCEPTED),
        ),
        (
            "scaled up later",
            Case { endpoints: (2, 2, 1), was_bound: true, ..case() },
            Goal::Enforce(to()),
            Some(reason::WAYPOINT_ACCEPTED),
        ),
        (
            "pods gone, closed",
            Case { has_ready_pod: false, ..case() },
            Goal::Enforce(to()),
            Some(reason::WAYPOINT_ACCEPTED),
        ),
        (
            "open",
            Case { policy: FailurePolicy::Open, ..case() },
            Goal::Announce(to()),
            Some(reason::WAYPOINT_ACCEPTED),
        ),
        (
            "pods gone, open",
            Case { policy: FailurePolicy::Open, has_ready_pod: false, ..case() },
            Goal::Serve(to()),
            Some(not_ready),
        ),
    ];
    for (name, given, goal, why) in table {
        let found = decide(&given);
        assert_eq!(found.goal, goal, "{name}");
        assert_eq!(found.judgement.map(|judgement| judgement.reason), why, "{name}");
    }
}

#[test]
fn the_derived_policy_lets_only_the_waypoint_through_and_only_closes_the_services_ports() {
    let service = NamespacedName::new("shop", "cart");
    let policy = Arc::new(deny(&service, [&waypoint("w")], vec![8080], "cluster.local").unwrap());
    assert_eq!(policy.key.to_string(), "shop/ambit-waypoint-cart");
    let set = PolicySet::new([Applied::Known(policy.clone())]);
    let judge = |account: Option<&str>, port: u16| {
        let ip: IpAddr = [10, 0, 0, 1].into();
        let source = account.map(|account| Spiffe {
            trust_domain: "cluster.local".into(),
            namespace: "shop".into(),
            service_account: account.into(),
        });
        let connection = Connection { source, source_ip: ip, destination_ip: ip, destination_port: port };
        set.evaluate(&connection).is_allowed()
    };
    assert!(judge(Some("w"), 8080));
    assert!(!judge(Some("other"), 8080) && !judge(None, 8080));
    assert!(judge(Some("other"), 9090) && judge(None, 9090));
    assert_eq!(deny(&service, [], vec![8080], "cluster.local"), None);
    assert_eq!(deny(&service, [&waypoint("w")], vec![], "cluster.local"), None);
}
