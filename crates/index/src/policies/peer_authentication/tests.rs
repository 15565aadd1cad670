use ambit_model::{Connection, Spiffe};
use proptest::prelude::*;

use super::*;

fn a_mode() -> impl Strategy<Value = Option<Mode>> {
    prop_oneof![Just(None), Just(Some(Mode::Strict)), Just(Some(Mode::Permissive))]
}

fn is_denied(derived: &Derived, connection: &Connection) -> bool {
    let policy = match derived {
        Derived::Nothing => return false,
        Derived::Strict => strict(&"ambit-system".into()),
        Derived::Own(rules) => own(&NamespacedName::new("shop", "p"), rules.clone()),
    };
    policy.action == Action::Deny && policy.matches(connection)
}

proptest! {
    /// All levels, port exceptions on up to three ports, plaintext and mTLS.
    #[test]
    fn plaintext_is_denied_exactly_where_the_effective_mode_is_strict(
        mesh in a_mode(), namespace in a_mode(), all in a_mode(),
        ports in proptest::collection::btree_map(1u16..4, a_mode(), 0..4),
        port in 1u16..5, is_tunnelled: bool,
    ) {
        let workload = Modes { all, ports };
        let derived = derive(mesh, namespace, &workload);
        let source = is_tunnelled.then(|| Spiffe {
            trust_domain: "cluster.local".into(),
            namespace: "a".into(),
            service_account: "b".into(),
        });
        let connection = Connection {
            source,
            source_ip: "10.0.0.1".parse().unwrap(),
            destination_ip: "10.0.0.2".parse().unwrap(),
            destination_port: port,
        };
        let own = workload.ports.get(&port).copied().flatten();
        let mode = effective_mode(mesh, namespace, workload.all, own);
        prop_assert_eq!(is_denied(&derived, &connection), !is_tunnelled && mode == Mode::Strict);
    }
}

#[test]
fn a_permissive_port_under_a_strict_mesh_is_an_exception_even_when_namespace_and_workload_say_nothing() {
    let workload = Modes { all: None, ports: BTreeMap::from([(8080, Some(Mode::Permissive))]) };
    assert!(matches!(derive(Some(Mode::Strict), None, &workload), Derived::Own(_)));
}

#[test]
fn a_port_that_is_no_port_is_named() {
    let object: ambit_api::PeerAuthentication = serde_json::from_value(serde_json::json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "portLevelMtls": {"http": {"mode": "STRICT"}, "80": {"mode": "DISABLE"}}}
    }))
    .unwrap();
    let facts = read(&object);
    let judgement = &facts.judgements[0];
    assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::INVALID));
    assert!(judgement.message.contains("\"http\""));
    assert_eq!(facts.content.ports, BTreeMap::from([(80, Some(Mode::Permissive))]));
}

/// Field, mode, selector and the expected status.
#[test]
fn what_is_not_known_is_strict_and_a_wildcard_selects_nobody() {
    let read = |spec: serde_json::Value| {
        let object = serde_json::json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "p", "namespace": "shop"}, "spec": spec
        });
        read(&serde_json::from_value(object).unwrap())
    };
    let permissive = || serde_json::json!({"mode": "PERMISSIVE"});
    let odd = || serde_json::json!({"mode": "PERMISSIVE", "except": ["a"]});
    let labels = || serde_json::json!({"matchLabels": {"app": "a"}});
    let table = [
        (serde_json::json!({"mtls": odd()}), "spec.mtls.except is not known"),
        (serde_json::json!({"mtls": permissive(), "schedule": 1}), "spec.schedule is not known"),
        (
            serde_json::json!({"selector": labels(), "portLevelMtls": {"80": odd()}}),
            "spec.portLevelMtls[80].except is not known",
        ),
    ];
    for (spec, says) in table {
        let facts = read(spec);
        let judgement = &facts.judgements[0];
        assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::INVALID));
        assert!(judgement.message.starts_with(says), "{judgement:?}");
        assert_eq!(facts.content, Modes { all: Some(Mode::Strict), ports: BTreeMap::new() });
    }
    let wild = serde_json::json!({"matchLabels": {"app": "a*"}});
    let facts = read(serde_json::json!({"selector": wild, "mtls": permissive()}));
    assert_eq!(facts.judgements[0].holds, Holds::False);
    assert_eq!(read(serde_json::json!({"mtls": permissive()})).judgements[0].holds, Holds::True);
}
