//! Random events: what is kept is what a look at everything finds, and changes name exactly what differs.

use ambit_model::{BoundService, Policy, Service};
use proptest::prelude::*;

use super::{waypoints::*, *};

/// Everything that is published, by name.
#[derive(Clone, Debug, Default, PartialEq)]
struct Published {
    workloads: BTreeMap<Arc<str>, Arc<Workload>>,
    services: BTreeMap<NamespacedName, Arc<Service>>,
    policies: BTreeMap<NamespacedName, Arc<Policy>>,
    enrollments: BTreeMap<(Arc<str>, Arc<str>), Arc<Enrollment>>,
    nodes: BTreeMap<Arc<str>, Arc<NodeEnrollment>>,
    bound: BTreeMap<(NamespacedName, NamespacedName), Arc<BoundService>>,
}

impl Published {
    fn by(index: &Index) -> Self {
        let enrollments = index.enrollments().map(|e| ((e.node.clone(), e.uid.clone()), e.clone()));
        Self {
            workloads: index.workloads().map(|workload| (workload.uid.clone(), workload.clone())).collect(),
            services: index.services().map(|service| (service.key(), service.clone())).collect(),
            policies: index.policies().map(|policy| (policy.key.clone(), policy.clone())).collect(),
            enrollments: enrollments.collect(),
            nodes: index.nodes().map(|node| (node.clone(), index.node_enrollment().clone())).collect(),
            bound: index.layer7.compiled.clone(),
        }
    }

    /// The names of what differs, as changes would say it.
    fn changes_to(&self, now: &Self) -> Changes {
        Changes {
            workloads: differing(&self.workloads, &now.workloads),
            services: differing(&self.services, &now.services),
            policies: differing(&self.policies, &now.policies),
            enrollments: differing(&self.enrollments, &now.enrollments),
            nodes: differing(&self.nodes, &now.nodes),
            bound: differing(&self.bound, &now.bound),
            ..Changes::default()
        }
    }
}

fn differing<K: Ord + Clone, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeSet<K> {
    old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
}

/// Only the names that are published.
fn names(changes: Changes) -> Changes {
    let Changes { workloads, services, policies, enrollments, nodes, bound, .. } = changes;
    Changes { workloads, services, policies, enrollments, nodes, bound, ..Changes::default() }
}

#[derive(Clone, Debug)]
enum Event {
    Apply(Value),
    Delete(Kind, &'static str, String),
    Configure(Box<Settings>),
    /// Everybody has heard of every step.
    Settle,
}

fn kind(value: &Value) -> Kind {
    object(value.clone()).key().kind
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => object_of_any_kind().prop_map(Event::Apply),
        4 => object_of_any_kind().prop_map(|value| {
            let namespace = ["shop", "bank", "istio-system"].into_iter().find(|name| value["metadata"]["namespace"] == *name);
            let name = value["metadata"]["name"].as_str().unwrap().to_owned();
            Event::Delete(kind(&value), namespace.unwrap_or_default(), name)
        }),
        1 => settings().prop_map(|settings| Event::Configure(Box::new(settings))),
        2 => Just(Event::Settle),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 0..8).prop_map(
        |(is_strict, is_other_root, is_renamed, presence)| {
            let mut settings = Settings { presence: Presence::Present, ..Settings::default() };
            if presence == 0 {
                settings.presence = Presence::Absent;
            }
            if is_strict {
                settings.mtls = Mode::Strict;
            }
            if is_other_root {
                settings.root_namespaces = ["bank", "ambit-system"].map(Into::into).into();
            }
            if is_renamed {
                settings.cluster_domain = "mesh.example".into();
            }
            settings
        },
    )
}

fn object_of_any_kind() -> impl Strategy<Value = Value> {
    prop_oneof![2 => a_namespace(), 1 => a_node(), 6 => a_pod(), 4 => a_service(), 2 => a_slice(), 3 => a_policy(),
                3 => a_peer(), 3 => a_gateway(), 1 => a_waypoint_pod()]
}

fn place() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["shop", "shop", "bank"])
}

fn wish() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, None, Some("w"), Some("v"), Some("none")])
}

fn asking(mut value: Value, wish: Option<&str>) -> Value {
    if let Some(wish) = wish {
        merge(&mut value, json!({"metadata": {"labels": {"istio.io/use-waypoint": wish}}}));
    }
    value
}

fn a_namespace() -> impl Strategy<Value = Value> {
    let mode = prop::sample::select(vec!["ambient", "ambient", "none"]);
    (place(), mode, wish()).prop_map(|(name, mode, wish)| asking(namespace(name, mode), wish))
}

fn a_node() -> impl Strategy<Value = Value> {
    (0..2, 0..2).prop_map(|(node, zone)| {
        json!({"kind": "Node", "metadata": {"name": format!("n{node}"),
               "labels": {"topology.kubernetes.io/zone": format!("z{zone}")}}})
    })
}

/// Two pods of one namespace have the same address, one has the labels of another.
fn a_pod() -> impl Strategy<Value = Value> {
    let state = (any::<bool>(), any::<bool>(), 0..6, 0..2);
    (place(), 0_usize..4, prop::sample::select(vec!["a", "b"]), any::<bool>(), state, wish()).prop_map(
        |(place, number, app, has_tier, (is_redirected, is_ready, rare, node), wish)| {
            let ip = format!("10.0.{}.{}", place.len(), number.max(1));
            let redirection = if is_redirected { "enabled" } else { "" };
            let mut with = json!({
                "metadata": {"namespace": place, "uid": format!("{place}-{number}"), "labels": {"app": app},
                             "annotations": {"ambient.istio.io/redirection": redirection}},
                "spec": {"nodeName": format!("n{node}")},
                "status": {"podIP": ip, "podIPs": [{"ip": ip}],
                           "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]}
            });
            if has_tier {
                merge(&mut with, json!({"metadata": {"labels": {"tier": "x"}}}));
            }
            match rare {
                0 => merge(&mut with, json!({"status": {"phase": "Succeeded"}})),
                1 => merge(&mut with, json!({"metadata": {"labels": {"istio.io/dataplane-mode": "none"}}})),
                _ => {}
            }
            asking(pod(&format!("p{number}"), with), wish)
        },
    )
}

fn a_service() -> impl Strategy<Value = Value> {
    let selector = prop::sample::select(vec![
        json!({"app": "a"}),
        json!({"app": "b", "tier": "x"}),
        json!({"tier": "x"}),
        json!(null),
    ]);
    let port = (prop::sample::select(vec![80, 81]), prop::sample::select(vec![json!("http"), json!(9090)]));
    (place(), 0..3, selector, port, wish()).prop_map(|(place, number, selector, (port, target), wish)| {
        let address = format!("10.96.{}.{number}", place.len());
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("s{number}"), "namespace": place},
            "spec": {"clusterIP": address, "selector": selector, "ports": [{"name": "http", "port": port, "targetPort": target}]}});
        asking(service, wish)
    })
}

fn a_slice() -> impl Strategy<Value = Value> {
    let addresses = prop::sample::subsequence(vec!["10.0.4.1", "10.0.4.2", "10.0.4.3", "172.18.0.9"], 1..3);
    (place(), 0..3, addresses, any::<bool>()).prop_map(|(place, number, addresses, is_named)| {
        let target = if is_named { json!({"kind": "Pod", "name": "p2"}) } else { json!({}) };
        let endpoints: Vec<_> =
            addresses.into_iter().map(|address| json!({"addresses": [address], "targetRef": target})).collect();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
               "metadata": {"name": "e", "namespace": place, "labels": {"kubernetes.io/service-name": format!("s{number}")}},
               "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints})
    })
}

fn a_selector() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!({"matchLabels": {"app": "a"}}),
        json!({"matchLabels": {"app": "b", "tier": "x"}}),
    ])
}

fn of_a_policy() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["shop", "bank", "istio-system"])
}

fn a_policy() -> impl Strategy<Value = Value> {
    (of_a_policy(), 0..2, a_selector(), any::<bool>()).prop_map(|(place, number, selector, denies)| {
        let action = if denies { "DENY" } else { "ALLOW" };
        policy(place, &format!("z{number}"), json!({"selector": selector, "action": action, "rules": [{}]}))
    })
}

fn a_peer() -> impl Strategy<Value = Value> {
    let mode = || prop::sample::select(vec!["STRICT", "PERMISSIVE", "UNSET"]);
    (of_a_policy(), 0..2, a_selector(), mode(), mode()).prop_map(|(place, number, selector, mode, of_port)| {
        let spec = json!({"selector": selector, "mtls": {"mode": mode}, "portLevelMtls": {"8080": {"mode": of_port}}});
        peer(place, &format!("q{number}"), &format!("2026-01-0{}T00:00:00Z", number + 1), spec)
    })
}

fn a_gateway() -> impl Strategy<Value = Value> {
    let serves = prop::sample::select(vec!["service", "workload", "all"]);
    (prop::sample::select(vec!["w", "v"]), serves, any::<bool>()).prop_map(|(name, serves, is_ready)| {
        let addresses = if is_ready { json!([{"type": "IPAddress", "value": "10.96.1.1"}]) } else { json!([]) };
        gateway(name, json!({"metadata": {"labels": {"istio.io/waypoint-for": serves}}, "status": {"addresses": addresses}}))
    })
}

fn a_waypoint_pod() -> impl Strategy<Value = Value> {
    any::<bool>().prop_map(|is_ready| waypoint_pod("w-0", "w", if is_ready { "True" } else { "False" }))
}

/// Stores and marks; what follows is looked at later.
fn store(index: &mut Index, event: Event, changes: &mut Changes) {
    match event {
        Event::Apply(value) => index.set(object(value), changes),
        Event::Delete(kind, namespace, name) => {
            index.unset(&Key { kind, name: NamespacedName::new(namespace, name) }, changes);
        }
        Event::Configure(settings) => changes.merge(index.configure(*settings)),
        Event::Settle => changes.merge(index.settle(u64::MAX)),
    }
}

/// Nothing that is kept differs from what a look at everything finds, and no mark was forgotten.
fn assert_is_settled(index: &mut Index) {
    assert!(index.is_tallied(), "{:#?}", index.layer7.tallies);
    assert!(index.is_known(), "{:#?}", index.layer7.known_pods);
    let names = index.pods.keys().filter(|name| index.is_annotation_outdated(name));
    assert!(names.eq(index.layer7.annotate.iter()));
    for workload in index.workloads() {
        let unknown = workload.authorization_policies.iter().find(|name| index.policy(name).is_none());
        assert_eq!(unknown, None, "{} names a policy that is not published", workload.uid);
    }
    let before = Published::by(index);
    let mut changes = Changes::default();
    index.mark_all();
    index.follow(&mut changes);
    assert_eq!(before.changes_to(&Published::by(index)), Changes::default(), "something was not marked");
    assert_eq!(self::names(changes), Changes::default(), "nothing differs");
}

/// Where things are while nobody hears of it is where they are after a cold start with the objects that are left.
fn assert_is_as_after_a_cold_start(events: &[Event], index: &mut Index) {
    let (mut left, mut settings) = (BTreeMap::new(), present().settings);
    for event in events {
        match event {
            Event::Apply(value) => drop(left.insert(object(value.clone()).key(), value.clone())),
            Event::Delete(kind, namespace, name) => {
                left.remove(&Key { kind: *kind, name: NamespacedName::new(*namespace, name.as_str()) });
            }
            Event::Configure(new) => settings = (**new).clone(),
            Event::Settle => {}
        }
    }
    for values in [left.values().collect::<Vec<_>>(), left.values().rev().collect()] {
        let mut cold = Index::new(settings.clone());
        values.into_iter().for_each(|value| drop(cold.apply(object(value.clone()))));
        assert_eq!(Published::by(index), Published::by(&cold));
        cold.serve();
        let mut changes = Changes::default();
        cold.mark_all();
        cold.follow(&mut changes);
        assert_eq!(self::names(changes), Changes::default());
    }
}

#[test]
fn a_changed_server_name_of_a_route_reaches_the_waypoint() {
    let route = |names: Value| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "TLSRoute",
               "metadata": {"name": "r", "namespace": "shop"},
               "spec": {"hostnames": names, "parentRefs": [{"group": "", "kind": "Service", "name": "cart"}],
                        "rules": [{"backendRefs": [{"name": "cart", "port": 443}]}]}})
    };
    let mut index = settled(Some("w"));
    let tls = json!({"spec": {"ports": [{"name": "tls", "port": 443, "targetPort": 8443}]}});
    index.apply(object(service("cart", tls)));
    index.apply(object(route(json!(["a.example"]))));
    let changes = index.apply(object(route(json!(["b.example"]))));
    assert!(!changes.bound.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_batching_ends_where_a_cold_start_does(
        events in proptest::collection::vec(event(), 1..50),
        batch in 1_usize..8,
    ) {
        let mut index = present();
        for batch in events.chunks(batch) {
            let (before, mut changes) = (Published::by(&index), Changes::default());
            batch.iter().for_each(|event| store(&mut index, event.clone(), &mut changes));
            index.follow(&mut changes);
            let (named, mut all) = (names(changes), before.changes_to(&Published::by(&index)));
            all.merge(named.clone());
            prop_assert_eq!(all, named, "all that differs is named");
        }
        assert_is_as_after_a_cold_start(&events, &mut index);
    }

    #[test]
    fn changes_name_exactly_what_differs_and_nothing_is_forgotten(events in proptest::collection::vec(event(), 1..50)) {
        let mut index = present();
        index.serve();
        for event in events {
            let (before, mut changes) = (Published::by(&index), Changes::default());
            store(&mut index, event, &mut changes);
            index.follow(&mut changes);
            prop_assert_eq!(names(changes), before.changes_to(&Published::by(&index)));
            assert_is_settled(&mut index);
        }
    }
}
