//! Ports at which the owner of a pod lets plaintext bypass its waypoint.

use ambit_api::conditions::{WAYPOINT_BOUND, WAYPOINT_ENFORCED};
use ambit_model::{Connection, Spiffe};

use super::{around::*, waypoints::*, *};
use crate::policies::Holds;

/// A PeerAuthentication in a namespace with this spec.
fn peer(namespace: &str, spec: Value) -> Object {
    object(json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                  "metadata": {"name": "hook", "namespace": namespace}, "spec": spec}))
}

fn of_cart(modes: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "cart"}}});
    merge(&mut spec, modes);
    spec
}

fn open(port: &str) -> Object {
    peer(
        "shop",
        of_cart(json!({"mtls": {"mode": "STRICT"}, "portLevelMtls": {port: {"mode": "PERMISSIVE"}}})),
    )
}

/// Whether the policies of a pod admit a caller at port 8080.
fn reaches(index: &Index, pod: &str, caller: Option<&str>) -> bool {
    let connection = Connection {
        source: caller.map(|name| Spiffe {
            trust_domain: "cluster.local".into(),
            namespace: "shop".into(),
            service_account: name.into(),
        }),
        source_ip: "10.0.0.7".parse().unwrap(),
        destination_ip: "10.0.0.1".parse().unwrap(),
        destination_port: 8080,
    };
    let workload = index.workload(&format!("Kubernetes//Pod/shop/{pod}")).unwrap();
    workload.authorization_policies.iter().all(|name| {
        let policy = index.policy(name);
        let Some(policy) = policy.as_ref() else { panic!("{name} is named and not published") };
        !policy.matches(&connection)
    })
}

/// Names of the published closing policies.
fn guards(index: &Index) -> Vec<String> {
    let named = index.policies.keys().filter_map(|key| key.name.strip_prefix("ambit-waypoint-"));
    named.map(str::to_owned).collect()
}

/// The namespace and spec of a PeerAuthentication, and whether plaintext bypasses the waypoint.
#[test]
fn only_the_owner_of_the_pod_opens_a_port_and_only_by_naming_it() {
    let port = |mode: &str| json!({"portLevelMtls": {"8080": {"mode": mode}}});
    let table = [
        ("shop", of_cart(port("PERMISSIVE")), true),
        ("shop", of_cart(port("DISABLE")), true),
        ("shop", of_cart(port("STRICT")), false),
        ("shop", of_cart(port("UNSET")), false),
        ("shop", of_cart(json!({"mtls": {"mode": "PERMISSIVE"}})), false),
        ("shop", of_cart(json!({"portLevelMtls": {"9090": {"mode": "PERMISSIVE"}}})), false),
        ("shop", of_cart(json!({"portLevelMtls": {"8080": {"mode": "PERMISSIVE", "until": "noon"}}})), false),
        ("shop", json!({"mtls": {"mode": "PERMISSIVE"}}), false),
        // Port settings without a selector do not apply.
        ("shop", port("PERMISSIVE"), false),
        ("other", of_cart(port("PERMISSIVE")), false),
        ("istio-system", of_cart(port("PERMISSIVE")), false),
        ("istio-system", json!({"mtls": {"mode": "PERMISSIVE"}}), false),
        ("ambit-system", port("PERMISSIVE"), false),
    ];
    for (label, pods) in [("service", 0), ("all", 1)] {
        for (namespace, spec, is_open) in &table {
            let mut index = settled(Some("w"));
            index.apply(object(gateway(
                "w",
                json!({"metadata": {"labels": {"istio.io/waypoint-for": label}}}),
            )));
            (0..4).for_each(|_| drop(settle(&mut index)));
            assert_eq!(guards(&index).len(), 1 + pods, "{:?}", guards(&index));
            index.apply(peer(namespace, spec.clone()));
            let what = format!("{label}: {spec} in {namespace}");
            assert_eq!(reaches(&index, "cart", None), *is_open, "{what}");
            assert!(
                !reaches(&index, "cart", Some("front")),
                "{what}: who is in the mesh goes through the waypoint"
            );
            assert!(reaches(&index, "cart", Some("w")), "{what}");
            let is_said = |index: &Index| said(index, WAYPOINT_BOUND).2.contains("bypasses it");
            assert_eq!(is_said(&index), *is_open, "{what}: {:?}", said(&index, WAYPOINT_BOUND));
            index.delete(&Key {
                kind: Kind::PeerAuthentication,
                name: NamespacedName::new(*namespace, "hook"),
            });
            assert!(!reaches(&index, "cart", None) && !is_said(&index), "{what}, and gone");
            assert_eq!(guards(&index).len(), 1 + pods, "{:?}", guards(&index));
        }
    }
}

#[test]
fn the_service_says_which_port_is_open_and_which_object_opens_it() {
    let mut index = settled(Some("w"));
    index.apply(open("8080"));
    let (holds, _, message) = said(&index, WAYPOINT_BOUND);
    assert_eq!(holds, Holds::True);
    assert_eq!(
        message,
        "Successfully attached to waypoint shop/w; plaintext from outside the mesh bypasses it, subject only to policies of node proxies, at port 8080 (PeerAuthentication shop/hook)"
    );
    let (_, _, enforced) = said(&index, WAYPOINT_ENFORCED);
    assert_eq!(
        enforced,
        "Only waypoint shop/w reaches its endpoints, and so does plaintext from outside the mesh at port 8080 \
         (PeerAuthentication shop/hook)"
    );
    // An operator that restarts while the Gateway is gone remembers the waypoint.
    let condition = json!([{"type": WAYPOINT_ENFORCED, "status": "True", "reason": "Enforced", "message": enforced,
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let mut anew = present();
    for value in [
        shop(Some("w")),
        redirected("cart", json!({})),
        service("cart", json!({"status": {"conditions": condition}})),
    ] {
        anew.apply(object(value));
    }
    anew.serve();
    assert!(!reaches(&anew, "cart", None));
    anew.apply(open("8080"));
    assert!(reaches(&anew, "cart", None) && !reaches(&anew, "cart", Some("front")));
    assert!(said(&anew, WAYPOINT_BOUND).2.contains("at port 8080 (PeerAuthentication shop/hook)"));
}

/// A pod that a PeerAuthentication selects, one that it does not select, and labels that change.
#[test]
fn an_opening_is_of_the_pods_that_it_names_however_their_labels_change() {
    let hooked = |name: &str, is_hooked: bool| {
        let labels = json!({"metadata": {"labels": {"app": "cart", "hook": is_hooked.to_string()}}});
        object(redirected(name, labels))
    };
    let about_hooked = |port: &str| {
        peer(
            "shop",
            json!({"selector": {"matchLabels": {"hook": "true"}},
                            "portLevelMtls": {port: {"mode": "PERMISSIVE"}}}),
        )
    };
    let mut index = settled(Some("w"));
    index.apply(about_hooked("8080"));
    for (first, second) in [(false, false), (true, false), (true, true), (false, true), (false, false)] {
        index.apply(hooked("cart", first));
        index.apply(hooked("second", second));
        let what = format!("{first} {second}");
        assert_eq!(
            (reaches(&index, "cart", None), reaches(&index, "second", None)),
            (first, second),
            "{what}"
        );
        let expected = if first || second { strings(&["cart", "cart@hook"]) } else { strings(&["cart"]) };
        assert_eq!(guards(&index), expected, "{what}");
        assert_eq!(said(&index, WAYPOINT_BOUND).2.contains("8080"), first || second, "{what}");
    }
    index.apply(hooked("cart", true));
    for port in ["9090", "8080", "7070"] {
        index.apply(about_hooked(port));
        assert_eq!(reaches(&index, "cart", None), port == "8080", "{port}");
    }
    index.apply(object(shop(None)));
    (0..4).for_each(|_| drop(settle(&mut index)));
    assert_eq!(guards(&index), strings(&[]));
}

/// The webhook's port, whether the pods behind it are open, and whether a namespace's label binds
/// the Service.
#[test]
fn a_webhook_at_an_open_port_is_not_cut_off() {
    for (called, opened, is_taken) in
        [(Some(80), "8080", true), (Some(81), "8080", true), (Some(80), "9090", false), (None, "8080", false)]
    {
        let mut index = settled(None);
        index.apply(open(opened));
        index.apply(caller_at("ValidatingWebhookConfiguration", called));
        index.apply(object(shop(Some("w"))));
        (0..4).for_each(|_| drop(settle(&mut index)));
        let what = format!("{called:?} {opened}");
        assert_eq!(!admitted_to_any(&index).is_empty(), is_taken, "{what}");
        let (holds, _, message) = said(&index, WAYPOINT_BOUND);
        assert_eq!(
            (holds == Holds::True, message.contains("API server")),
            (is_taken, !is_taken),
            "{what}: {message}"
        );
        if is_taken {
            index.apply(open("9090"));
            let (_, _, message) = said(&index, WAYPOINT_BOUND);
            assert!(message.contains("ValidatingWebhookConfiguration hook, is refused"), "{what}: {message}");
            assert!(!reaches(&index, "cart", None), "{what}");
        }
    }
}

/// Service accounts that any closing policy of the Service admits.
fn admitted_to_any(index: &Index) -> Vec<String> {
    guards(index).into_iter().filter(|guard| guard.starts_with("cart")).collect()
}
