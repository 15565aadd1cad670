use std::{collections::BTreeMap, net::IpAddr};

use ambit_api::{conditions::reason, gateway::Gateway, mesh::FailurePolicy};
use ambit_model::{Applied, Connection, PolicySet, Spiffe};
use serde_json::json;

use super::{
    around::Around,
    binding::{Binding, BindingInput, Candidate, Endpoints, TrafficTarget, WaypointLabel, bind},
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

/// The inputs of one decision that the table varies.
struct Case {
    own: WaypointLabel,
    inherited: WaypointLabel,
    traffic: TrafficTarget,
    namespace: &'static str,
    endpoints: (usize, usize, usize),
    was_bound: bool,
    enforced: Option<NamespacedName>,
    around: Around,
    is_ready: bool,
    serves: Serves,
    policy: FailurePolicy,
    has_ready_pod: bool,
}

fn case() -> Case {
    Case {
        own: WaypointLabel::Unset,
        inherited: WaypointLabel::Waypoint(waypoint("w")),
        traffic: TrafficTarget::Service,
        namespace: "shop",
        endpoints: (2, 2, 2),
        was_bound: false,
        enforced: None,
        around: Around::default(),
        is_ready: true,
        serves: Serves::Services,
        policy: FailurePolicy::Closed,
        has_ready_pod: true,
    }
}

fn decide(case: &Case) -> Binding {
    let (all, wanted, enrolled) = case.endpoints;
    let input = BindingInput {
        own: &case.own,
        inherited: &case.inherited,
        is_waypoint: false,
        traffic: case.traffic,
        namespace: &case.namespace.into(),
        namespace_labels: &BTreeMap::new(),
        endpoints: Endpoints { all, wanted, enrolled },
        was_bound: case.was_bound,
        enforced: case.enforced.as_ref(),
        around: case.around.clone(),
    };
    let gateway = gateway(case.is_ready);
    let found = Candidate {
        gateway: &gateway,
        serves: case.serves,
        has_ready_pod: case.has_ready_pod,
        failure_policy: case.policy,
    };
    let exists = input.waypoint() == Some(&waypoint("w"));
    bind(&input, exists.then_some(&found))
}

#[test]
fn a_service_goes_where_its_labels_lead_once_both_sides_are_ready() {
    let to = || waypoint("w");
    let other = || WaypointLabel::Waypoint(waypoint("other"));
    let not_ready = reason::WAYPOINT_IS_NOT_READY;
    let waits = reason::WAITING_FOR_ENROLLMENT;
    let table: Vec<(&str, Case, Goal, Option<&str>)> = vec![
        ("namespace", case(), Goal::Enforce(to()), Some(reason::WAYPOINT_ACCEPTED)),
        ("own none", Case { own: WaypointLabel::None, ..case() }, Goal::Out, None),
        ("no label", Case { inherited: WaypointLabel::Unset, ..case() }, Goal::Out, None),
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
            "closed before, and an endpoint on its way",
            Case { endpoints: (2, 2, 1), enforced: Some(to()), ..case() },
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
    let (service, w) = (NamespacedName::new("shop", "cart"), waypoint("w"));
    let policy = Arc::new(
        deny(&service, &BTreeSet::from([&w]), &BTreeSet::from([8080]), None, "cluster.local").unwrap(),
    );
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
    assert_eq!(deny(&service, &BTreeSet::new(), &BTreeSet::from([8080]), None, "cluster.local"), None);
    assert_eq!(deny(&service, &BTreeSet::from([&w]), &BTreeSet::new(), None, "cluster.local"), None);
}

#[test]
fn each_kind_of_traffic_goes_to_waypoints_that_are_for_it_and_a_pod_is_told_only_what_it_asked_itself() {
    use Serves::{All, Nothing, Services, Workloads};
    let (accepted, unsupported) = (Some(reason::WAYPOINT_ACCEPTED), Some(reason::UNSUPPORTED_TRAFFIC_TYPE));
    let (own, inherited) = (WaypointLabel::Waypoint(waypoint("w")), WaypointLabel::Unset);
    for (traffic, waypoint_label, serves, is_bound, why) in [
        (TrafficTarget::Service, &inherited, Services, true, accepted),
        (TrafficTarget::Service, &inherited, All, true, accepted),
        (TrafficTarget::Service, &inherited, Workloads, false, unsupported),
        (TrafficTarget::Service, &inherited, Nothing, false, unsupported),
        (TrafficTarget::Headless, &inherited, All, false, unsupported),
        (TrafficTarget::Headless, &inherited, Workloads, false, unsupported),
        (TrafficTarget::Pod, &inherited, Workloads, true, None),
        (TrafficTarget::Pod, &inherited, All, true, None),
        (TrafficTarget::Pod, &inherited, Services, false, None),
        (TrafficTarget::Pod, &inherited, Nothing, false, None),
        (TrafficTarget::Pod, &own, All, true, accepted),
        (TrafficTarget::Pod, &own, Services, false, unsupported),
        (TrafficTarget::Pod, &own, Nothing, false, unsupported),
        (TrafficTarget::Pod, &WaypointLabel::None, All, false, None),
    ] {
        let found = decide(&Case { own: waypoint_label.clone(), traffic, serves, ..case() });
        let goal = if is_bound { Goal::Enforce(waypoint("w")) } else { Goal::Out };
        let what = format!("{traffic:?} {waypoint_label:?} {serves:?}");
        assert_eq!(found.goal, goal, "{what}");
        assert_eq!(found.judgement.map(|judgement| judgement.reason), why, "{what}");
    }
}

#[test]
fn pods_are_closed_on_every_port_by_one_policy_for_all_who_have_the_same_waypoints() {
    let (w, v) = (waypoint("w"), NamespacedName::new("edge", "v"));
    let deny = |waypoints: &[&NamespacedName]| {
        deny_pods(&"shop".into(), &waypoints.iter().copied().collect(), None, "cluster.local")
    };
    let policy = deny(&[&w]);
    assert_eq!(policy.key.to_string(), "shop/ambit-waypoint-pods.shop.w");
    assert!(is_deny_name(&policy.key) && deny(&[&w, &v]) == deny(&[&v, &w]));
    assert_eq!(&*deny(&[&w, &v]).key.name, "ambit-waypoint-pods.edge.v+shop.w");
    let matched = &policy.rules[0].clauses[0].matches[0];
    assert_eq!((policy.action, &matched.destination_ports), (Action::Deny, &vec![]));
    assert_eq!(matched.not_principals, [StringMatch::Exact("cluster.local/ns/shop/sa/w".into())]);
}

/// Callers of a pod whose owner leaves 8080 open: caller, port, and whether the closing policy
/// admits it.
#[test]
fn an_opening_lets_in_plaintext_at_its_port_and_nobody_else() {
    let identity = |name: &str| {
        let service_account = name.into();
        Spiffe { trust_domain: "cluster.local".into(), namespace: "shop".into(), service_account }
    };
    let w = waypoint("w");
    let waypoints = BTreeSet::from([&w]);
    let at = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<u16>>();
    let opening = |ports: &[u16]| Opening { peer: waypoint("hook"), ports: at(ports) };
    let guards = |opening: &Opening, closed: &[u16]| {
        let of_service = deny(&waypoint("cart"), &waypoints, &at(closed), Some(opening), "cluster.local");
        [of_service.unwrap(), deny_pods(&"shop".into(), &waypoints, Some(opening), "cluster.local")]
    };
    let names = guards(&opening(&[8080]), &[8080]).map(|guard| guard.key.name.to_string());
    assert_eq!(names, ["ambit-waypoint-cart@hook", "ambit-waypoint-pods.shop.w@hook"]);
    for (open, closed, caller, port, passes) in [
        (&[8080][..], &[8080, 9090][..], None, 8080, true),
        (&[8080], &[8080, 9090], None, 9090, false),
        (&[8080], &[8080, 9090], Some("w"), 8080, true),
        (&[8080], &[8080, 9090], Some("w"), 9090, true),
        (&[8080], &[8080, 9090], Some("front"), 8080, false),
        (&[8080], &[8080, 9090], Some("front"), 9090, false),
        // All ports are open, and none is closed.
        (&[8080], &[8080], None, 8080, true),
        (&[8080], &[8080], Some("front"), 8080, false),
        (&[7070], &[8080], None, 8080, false),
        (&[8080, 9090], &[8080, 9090], None, 9090, true),
        (&[8080, 9090], &[8080, 9090], Some("front"), 9090, false),
    ] {
        for guard in guards(&opening(open), closed) {
            let connection = Connection {
                source: caller.map(identity),
                source_ip: "10.0.0.7".parse().unwrap(),
                destination_ip: "10.0.0.1".parse().unwrap(),
                destination_port: port,
            };
            let what = format!("{}: {caller:?} at {port} of {open:?}", guard.key);
            let guard = std::sync::Arc::new(guard);
            let alone = PolicySet::new([Applied::Known(guard.clone())]);
            assert_eq!(alone.evaluate(&connection).is_allowed(), passes, "{what}");
            // What the owner's own policies at nodes refuse stays refused.
            let all = Match { destination_ports: vec![port], ..Match::default() };
            let refusing = std::sync::Arc::new(policy(waypoint("refuse"), vec![all]));
            let both = PolicySet::new([guard, refusing].map(Applied::Known));
            assert!(!both.evaluate(&connection).is_allowed(), "{what}");
        }
    }
}
