//! What readers see after updates, in any order.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ambit_model::{
    Action, Clause, Connection, Match, NetworkAddress, NetworkMode, Rule, TunnelProtocol, Verdict,
    WorkloadKind,
};
use proptest::prelude::*;

use super::*;

fn pod(name: &str, ip: &str) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/shop/{name}").into(),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![ip.parse().unwrap()],
        kind: WorkloadKind::Pod,
        capacity: 1,
        ..Workload::default()
    }
}

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

fn deny_port(key: NamespacedName, scope: Scope, port: u16) -> Policy {
    let matches = vec![Match { destination_ports: vec![port], ..Match::default() }];
    let rules = vec![Rule { clauses: vec![Clause { matches }] }];
    Policy { key, scope, action: Action::Deny, rules, dry_run: false }
}

fn policies(store: &Store, policies: Vec<Policy>) {
    store.apply_policies(policies.into_iter().map(PolicyUpdate::Readable).collect(), &[]);
}

fn add(store: &Store, workload: Workload) {
    store.apply_addresses(vec![AddressUpdate::Workload(workload)], &[]);
}

fn verdict(store: &Store, workload: &Workload, port: u16) -> Verdict {
    let ip = IpAddr::from([10, 0, 0, 1]);
    let connection = Connection { source: None, source_ip: ip, destination_ip: ip, destination_port: port };
    store.snapshot().policies_for(workload).evaluate(&connection)
}

#[test]
fn admits_nothing_before_policies_are_received() {
    let store = Store::new();
    let workload = pod("a", "10.0.0.1");
    add(&store, workload.clone());
    assert!(!store.synced());
    assert_eq!(verdict(&store, &workload, 80), Verdict::PoliciesNotReceived);
    policies(&store, vec![]);
    assert!(store.synced());
    assert_eq!(verdict(&store, &workload, 80), Verdict::AllowedByDefault);
}

#[test]
fn a_policy_applies_where_its_scope_says() {
    let store = Store::new();
    policies(
        &store,
        vec![
            deny_port(NamespacedName::new("root", "global"), Scope::Global, 1),
            deny_port(name("of-shop"), Scope::Namespace, 2),
            deny_port(NamespacedName::new("bank", "of-bank"), Scope::Namespace, 3),
            deny_port(NamespacedName::new("root", "selected"), Scope::WorkloadSelector, 4),
            deny_port(name("not-selected"), Scope::WorkloadSelector, 5),
        ],
    );
    let listed = vec![NamespacedName::new("root", "selected"), name("of-shop")];
    let workload = Workload { authorization_policies: listed, ..pod("a", "10.0.0.1") };
    let denied: Vec<bool> = (1..=5).map(|port| !verdict(&store, &workload, port).is_allowed()).collect();
    assert_eq!(denied, [true, true, false, true, false]);
}

#[test]
fn a_policy_that_is_not_known_denies_until_it_arrives() {
    let store = Store::new();
    policies(&store, vec![]);
    let workload = Workload { authorization_policies: vec![name("p")], ..pod("a", "10.0.0.1") };
    assert_eq!(verdict(&store, &workload, 80), Verdict::UnknownPolicy(name("p")));
    policies(&store, vec![deny_port(name("p"), Scope::WorkloadSelector, 1)]);
    assert_eq!(verdict(&store, &workload, 80), Verdict::AllowedByDefault);
    store.apply_policies(vec![], &[name("p")]);
    assert_eq!(verdict(&store, &workload, 80), Verdict::UnknownPolicy(name("p")));
}

#[test]
fn an_unreadable_policy_denies_in_its_scope_until_it_is_repaired_or_removed() {
    let unreadable = |scope| vec![PolicyUpdate::Unreadable(NamespacedName::new("bank", "p"), scope)];
    let selected = Workload {
        authorization_policies: vec![NamespacedName::new("bank", "p")],
        ..pod("selected", "10.0.0.1")
    };
    let bank = Workload { namespace: "bank".into(), ..pod("bank", "10.0.0.2") };
    let other = pod("other", "10.0.0.3");
    let table = [
        (Scope::Global, [true, true, true]),
        (Scope::Namespace, [true, true, false]),
        (Scope::WorkloadSelector, [true, false, false]),
    ];
    for (scope, expected) in table {
        let store = Store::new();
        store.apply_policies(unreadable(scope), &[]);
        let denied = [&selected, &bank, &other].map(|workload| !verdict(&store, workload, 80).is_allowed());
        assert_eq!(denied, expected, "{scope:?}");
        let repaired = deny_port(NamespacedName::new("bank", "p"), Scope::WorkloadSelector, 1);
        policies(&store, vec![repaired]);
        assert!(verdict(&store, &selected, 80).is_allowed());
        store.apply_policies(unreadable(scope), &[]);
        store.apply_policies(vec![], &[NamespacedName::new("bank", "p")]);
        assert!(verdict(&store, &other, 80).is_allowed());
    }
}

#[test]
fn a_set_stays_the_same_object_exactly_as_long_as_its_policies_do() {
    let store = Store::new();
    policies(&store, vec![deny_port(name("mine"), Scope::Namespace, 1)]);
    let workload = pod("a", "10.0.0.1");
    let judged_by = || store.snapshot().policies_for(&workload);
    let first = judged_by();
    add(&store, pod("b", "10.0.0.2"));
    assert!(Arc::ptr_eq(&first, &judged_by()), "addresses changed");
    policies(&store, vec![deny_port(NamespacedName::new("bank", "p"), Scope::Namespace, 1)]);
    assert!(Arc::ptr_eq(&first, &judged_by()), "a policy of another namespace changed");
    policies(&store, vec![deny_port(name("mine"), Scope::Namespace, 1)]);
    assert!(Arc::ptr_eq(&first, &judged_by()), "the same policy came again");
    policies(&store, vec![deny_port(name("mine"), Scope::Namespace, 2)]);
    assert!(!Arc::ptr_eq(&first, &judged_by()), "the policy changed");
}

#[test]
fn live_connections_are_judged_again_when_policies_or_a_workloads_list_change() {
    let store = Store::new();
    let mut judgements = store.judgements();
    let mut bumped = || {
        let changed = judgements.has_changed().unwrap();
        judgements.mark_unchanged();
        changed
    };
    policies(&store, vec![]);
    assert!(bumped(), "policies are known");
    policies(&store, vec![]);
    assert!(!bumped(), "nothing changed");
    policies(&store, vec![deny_port(name("p"), Scope::WorkloadSelector, 80)]);
    assert!(bumped(), "a policy");
    add(&store, pod("a", "10.0.0.1"));
    assert!(!bumped(), "a new workload without policies");
    let workload = Workload { authorization_policies: vec![name("p")], ..pod("a", "10.0.0.1") };
    add(&store, workload.clone());
    assert!(bumped(), "its list");
    assert_eq!(verdict(&store, &workload, 80), Verdict::DeniedBy(name("p")));
    add(&store, Workload { tunnel_protocol: TunnelProtocol::Hbone, ..workload });
    assert!(!bumped(), "something else about it");
    store.apply_policies(vec![], &[name("p")]);
    assert!(bumped(), "a removal");
}

#[test]
fn an_address_of_several_workloads_means_the_tunnelled_pod_in_whatever_order_they_come() {
    let hbone = |workload: Workload| Workload { tunnel_protocol: TunnelProtocol::Hbone, ..workload };
    let by_hand =
        |uid: &str| Workload { uid: uid.into(), kind: WorkloadKind::Deployment, ..pod(uid, "10.0.0.1") };
    let mut workloads = [
        hbone(pod("best", "10.0.0.1")),
        pod("second", "10.0.0.1"),
        hbone(by_hand("third")),
        by_hand("fourth"),
    ];
    let address = NetworkAddress { network: "".into(), address: IpAddr::from([10, 0, 0, 1]) };
    for _ in 0..2 {
        let store = Store::new();
        let updates = workloads.iter().cloned().map(AddressUpdate::Workload).collect();
        store.apply_addresses(updates, &[]);
        for expected in ["best", "second", "third", "fourth"] {
            let owner = store.snapshot().workload_by_address(&address).cloned().unwrap();
            assert_eq!(&*owner.name, expected);
            store.apply_addresses(vec![], std::slice::from_ref(&owner.uid));
        }
        assert_eq!(store.snapshot().workload_by_address(&address), None);
        workloads.reverse();
    }
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_workload_that_is_not_known_yet() {
    let store = Arc::new(Store::new());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.workload_named(&name("late")).await }
    });
    tokio::task::yield_now().await;
    add(&store, pod("other", "10.0.0.2"));
    add(&store, pod("late", "10.0.0.1"));
    let found = tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
    assert_eq!(&*found.name, "late");
    let never = tokio::time::timeout(Duration::from_secs(60), store.workload_named(&name("never"))).await;
    assert!(never.is_err());
}

#[test]
fn a_slice_that_is_named_like_a_pod_does_not_describe_it() {
    let store = Store::new();
    let by_hand = |uid: &str| Workload { uid: uid.into(), ..pod("late", "10.0.0.6") };
    for uid in ["Kubernetes/discovery.k8s.io/EndpointSlice/shop/late/10.0.0.6", "Kubernetes//Pod/shop/other"]
    {
        add(&store, by_hand(uid));
        assert_eq!(store.snapshot().workload_by_name(&name("late")), None, "{uid}");
    }
    add(&store, pod("late", "10.0.0.1"));
    assert_eq!(
        store.snapshot().workload_by_name(&name("late")).unwrap().addresses,
        pod("late", "10.0.0.1").addresses
    );
}

#[derive(Clone, Debug)]
enum Step {
    Workload(Workload),
    Service(Service),
    Remove(Arc<str>),
}

fn hostname() -> impl Strategy<Value = NamespacedName> {
    proptest::sample::select(vec!["h1", "h2"]).prop_map(name)
}

prop_compose! {
    fn workload()(
        uid in proptest::sample::select(vec!["a", "b", "c"]),
        ips in proptest::sample::subsequence(vec!["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1"], 0..3),
        services in proptest::collection::btree_map(hostname(), Just(vec![]), 0..3),
        host in proptest::bool::weighted(0.2),
        tunnel in any::<bool>(),
    ) -> Workload {
        Workload {
            addresses: ips.into_iter().map(|ip| ip.parse().unwrap()).collect(),
            services,
            network_mode: if host { NetworkMode::HostNetwork } else { NetworkMode::Standard },
            tunnel_protocol: if tunnel { TunnelProtocol::Hbone } else { TunnelProtocol::None },
            ..pod(uid, "10.0.0.1")
        }
    }
}

prop_compose! {
    fn service()(
        key in hostname(),
        vips in proptest::sample::subsequence(vec!["10.96.0.1", "10.96.0.2"], 0..3),
        canonical in any::<bool>(),
    ) -> Service {
        let address = |ip: &str| NetworkAddress { network: "".into(), address: ip.parse().unwrap() };
        Service {
            namespace: key.namespace,
            hostname: key.name,
            addresses: vips.into_iter().map(address).collect(),
            canonical,
            ..Service::default()
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let removed = vec!["Kubernetes//Pod/shop/a", "Kubernetes//Pod/shop/b", "shop/h1", "shop/h2", "gone"];
    prop_oneof![
        3 => workload().prop_map(Step::Workload),
        2 => service().prop_map(Step::Service),
        2 => proptest::sample::select(removed).prop_map(|name| Step::Remove(name.into())),
    ]
}

/// Everything that a reader can observe.
fn seen(snapshot: &Snapshot) -> impl PartialEq + std::fmt::Debug + use<> {
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    let uids = |list: &[Arc<Workload>]| list.iter().map(|w| w.uid.to_string()).collect::<Vec<_>>();
    (
        sorted(snapshot.workloads().map(|w| format!("{w:?}")).collect()),
        sorted(snapshot.by_address.iter().map(|(k, v)| format!("{k:?} {:?}", uids(v))).collect()),
        sorted(snapshot.by_name.iter().map(|(k, v)| format!("{k} {:?}", uids(v))).collect()),
        sorted(snapshot.by_vip.iter().map(|(k, v)| format!("{k:?} {v:?}")).collect()),
        sorted(
            snapshot
                .services
                .iter()
                .map(|(k, v)| format!("{k} {:?} {:?}", v.service, v.endpoints.keys().collect::<Vec<_>>()))
                .collect(),
        ),
    )
}

proptest! {
    #[test]
    fn any_order_of_updates_leaves_what_the_last_ones_say(steps in proptest::collection::vec(step(), 0..30)) {
        let store = Store::new();
        let mut last: BTreeMap<Arc<str>, Step> = BTreeMap::new();
        for step in steps {
            match &step {
                Step::Workload(workload) => last.insert(workload.uid.clone(), step.clone()),
                Step::Service(service) => last.insert(service.key().to_string().into(), step.clone()),
                Step::Remove(name) => last.remove(name),
            };
            apply(&store, vec![step]);
        }
        let fresh = Store::new();
        apply(&fresh, last.into_values().collect());
        prop_assert_eq!(seen(&store.snapshot()), seen(&fresh.snapshot()));
    }
}

fn apply(store: &Store, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Workload(workload) => add(store, workload),
            Step::Service(service) => store.apply_addresses(vec![AddressUpdate::Service(service)], &[]),
            Step::Remove(name) => store.apply_addresses(vec![], &[name]),
        }
    }
}
