//! Mesh-wide policies from either of the root namespaces.

use ambit_api::conditions::reason;
use ambit_model::{Policy, Scope};

use super::{waypoints::*, *};
use crate::StatusPatch;

const ROOTS: [&str; 2] = ["ambit-system", "istio-system"];
const STRICT: &str = "ambit-system/istio_converted_static_strict";

fn named(index: &Index, uid: &str) -> Vec<String> {
    index.workload(uid).unwrap().authorization_policies.iter().map(ToString::to_string).collect()
}

/// A pod in the shop, in the other root namespace, and in neither.
fn three_pods() -> Index {
    let mut index = present();
    for namespace in ["shop", "istio-system", "other"] {
        index.apply(object(pod("cart", json!({"metadata": {"namespace": namespace, "uid": namespace}}))));
    }
    index
}

fn uid(namespace: &str) -> String {
    format!("Kubernetes//Pod/{namespace}/cart")
}

#[test]
fn a_peer_authentication_of_a_root_namespace_governs_every_namespace() {
    for root in ROOTS {
        let mut index = three_pods();
        let strict = json!({"mtls": {"mode": "STRICT"}});
        let changes = index.apply(object(peer(root, "default", "2026-01-01T00:00:00Z", strict)));
        assert_eq!(changes.workloads.len(), 3, "{root}");
        for namespace in ["shop", "istio-system", "other"] {
            assert_eq!(named(&index, &uid(namespace)), [STRICT], "{root}: {namespace}");
        }
        let own = json!({"mtls": {"mode": "PERMISSIVE"}});
        index.apply(object(peer("shop", "default", "2026-01-02T00:00:00Z", own)));
        assert_eq!(named(&index, CART), Vec::<String>::new(), "{root}: a namespace has a say of its own");
        assert_eq!(named(&index, &uid("other")), [STRICT], "{root}");
        index.delete(&Key { kind: Kind::PeerAuthentication, name: NamespacedName::new(root, "default") });
        assert_eq!(named(&index, &uid("other")), Vec::<String>::new(), "{root}");
    }
}

#[test]
fn of_two_root_namespaces_the_oldest_peer_authentication_governs() {
    for (mine, theirs, expected) in [("2026-01-01", "2026-01-02", true), ("2026-01-02", "2026-01-01", false)]
    {
        let mut index = three_pods();
        let of = |root: &str, day: &str, mode: &str| {
            peer(root, "default", &format!("{day}T00:00:00Z"), json!({"mtls": {"mode": mode}}))
        };
        index.apply(object(of("istio-system", mine, "STRICT")));
        index.apply(object(of("ambit-system", theirs, "PERMISSIVE")));
        assert_eq!(!named(&index, CART).is_empty(), expected);
    }
}

#[test]
fn an_authorization_policy_of_a_root_namespace_reaches_every_pod_it_selects_or_all() {
    for root in ROOTS {
        let mut index = three_pods();
        let selecting =
            json!({"selector": {"matchLabels": {"app": "cart"}}, "action": "DENY", "rules": [{}]});
        index.apply(object(policy(root, "selecting", selecting)));
        index.apply(object(policy(root, "all", json!({"action": "DENY", "rules": [{}]}))));
        let all = index.policy(&NamespacedName::new(root, "all")).unwrap();
        assert_eq!(all.scope, Scope::Global, "{root}");
        for namespace in ["shop", "istio-system", "other"] {
            assert_eq!(named(&index, &uid(namespace)), [format!("{root}/selecting")], "{root}: {namespace}");
        }
        index.delete(&Key { kind: Kind::AuthorizationPolicy, name: NamespacedName::new(root, "selecting") });
        assert_eq!(named(&index, CART), Vec::<String>::new(), "{root}");
    }
}

#[test]
fn policies_of_a_root_namespace_are_attached_to_classes_of_waypoints_and_those_of_others_are_not() {
    let class =
        json!([{"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio-waypoint"}]);
    let keys = r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#;
    let own = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "istio-waypoint"}, "spec": {"controllerName": "ambit.dev/mesh-controller"}});
    for (root, is_one) in ROOTS.map(|root| (root, true)).into_iter().chain([("other", false)]) {
        let mut index = settled(Some("w"));
        index.apply(object(policy(
            root,
            "deny",
            json!({"targetRefs": class, "action": "DENY", "rules": [{}]}),
        )));
        index.apply(object(json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "tokens", "namespace": root},
            "spec": {"targetRefs": class, "jwtRules": [{"issuer": "i", "jwks": keys}]}})));
        let bound = index.bound_service(&name("w"), &key("cart")).unwrap();
        let found = (bound.authorization.len(), bound.authentication.len());
        assert_eq!(found, if is_one { (1, 1) } else { (0, 0) }, "{root}");
        let why = |index: &Index| {
            let patches = index.status_patches();
            let patch = patches.iter().find(|patch| &*patch.name.name == "deny").unwrap();
            patch.judgements[0].reason
        };
        let expected = if is_one { reason::TARGET_NOT_FOUND } else { reason::INVALID };
        assert_eq!(why(&index), expected, "{root}: there is no such class");
        index.apply(object(own.clone()));
        assert_eq!(why(&index), if is_one { reason::ACCEPTED } else { reason::INVALID }, "{root}");
    }
}

fn mesh(root: &str) -> Settings {
    let root_namespaces = ["ambit-system", root].map(Into::into).into();
    Settings { presence: Presence::Present, root_namespaces, ..Settings::default() }
}

/// Policies in two potential root namespaces: for nodes, for a class of waypoints, and for mTLS.
fn policies() -> Vec<Value> {
    let class =
        json!([{"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio-waypoint"}]);
    let keys = r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#;
    let deny = json!({"action": "DENY", "rules": [{}]});
    let strict = json!({"mtls": {"mode": "STRICT"}});
    let selecting = json!({"selector": {"matchLabels": {"app": "cart"}}, "action": "DENY", "rules": [{}]});
    let of = |root: &str| {
        vec![
            policy(root, "all", deny.clone()),
            policy(root, "selecting", selecting.clone()),
            policy(root, "of-class", json!({"targetRefs": class, "action": "DENY", "rules": [{}]})),
            peer(root, "default", "2026-01-01T00:00:00Z", strict.clone()),
            json!({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
                   "metadata": {"name": "tokens", "namespace": root},
                   "spec": {"targetRefs": class, "jwtRules": [{"issuer": "i", "jwks": keys}]}}),
        ]
    };
    ["istio-system", "policies"].into_iter().flat_map(of).collect()
}

/// Everything published to nodes, waypoints and users.
fn said(index: &Index) -> (Vec<Policy>, Vec<String>, [usize; 2], Vec<StatusPatch>) {
    let bound = index.bound_service(&name("w"), &key("cart")).unwrap();
    let counts = [bound.authorization.len(), bound.authentication.len()];
    let mut patches = index.status_patches();
    patches.sort_by_key(|patch| (patch.kind, patch.name.clone()));
    (index.policies().map(|policy| Policy::clone(policy)).collect(), named(index, CART), counts, patches)
}

#[test]
fn another_root_namespace_takes_over_from_the_old_one_while_running() {
    let started = |root: &str| {
        let mut index = settled(Some("w"));
        index.configure(mesh(root));
        policies().into_iter().for_each(|policy| drop(index.apply(object(policy))));
        (0..6).for_each(|_| drop(settle(&mut index)));
        index
    };
    let (mut index, other) = (started("istio-system"), started("policies"));
    let before = said(&index);
    assert!(before.1.contains(&"istio-system/selecting".to_owned()), "{:?}", before.1);
    assert_ne!(before, said(&other));
    let changes = index.configure(mesh("policies"));
    assert!(changes.policy_status && changes.policies.contains(&NamespacedName::new("policies", "all")));
    assert_eq!(said(&index), said(&other), "as if it had always been so");
    assert_eq!(said(&index).2, [1, 1]);
    let refused =
        said(&index).3.into_iter().find(|p| p.name == NamespacedName::new("istio-system", "of-class"));
    let message = refused.unwrap().judgements.remove(0).message;
    assert!(message.contains("in namespace ambit-system and policies only"), "{message}");
    index.configure(mesh("istio-system"));
    assert_eq!(said(&index), before, "and back");
}
