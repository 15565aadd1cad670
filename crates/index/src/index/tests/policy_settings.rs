//! Settings of the Mesh and of a Gateway, in the policies of nodes and waypoints.

use ambit_model::{Match, StringMatch, bound::Filter};

use super::{
    waypoints::{gateway, key, name, settle, settled},
    *,
};

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

/// The first alternative of a policy that the waypoint `w` enforces for `cart`.
fn at_waypoint(index: &Index) -> Match {
    let bound = index.bound_service(&name("w"), &key("cart")).unwrap();
    bound.authorization[0].rules[0].clauses[0].matches[0].clone()
}

fn attached(rule: Value) -> Value {
    policy("shop", "p", json!({"targetRefs": [{"kind": "Service", "name": "cart"}], "rules": [rule]}))
}

#[test]
fn another_trust_domain_or_alias_is_spelled_out_in_policies_that_are_there() {
    let mut index = settled(Some("w"));
    settle(&mut index);
    let rule = json!({"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/api"]}}]});
    index.apply(object(attached(rule.clone())));
    index.apply(object(policy("shop", "node", json!({"rules": [rule]}))));
    settle(&mut index);
    let at_node = |index: &Index| index.policy(&name("node")).unwrap().rules[0].clauses[0].matches[0].clone();
    assert_eq!(at_node(&index).principals, [exact("cluster.local/ns/shop/sa/api")]);
    assert_eq!(at_waypoint(&index).principals, [exact("cluster.local/ns/shop/sa/api")]);

    let settings = Settings {
        presence: Presence::Present,
        trust_domain: "new.example".into(),
        trust_aliases: vec!["old.example".into()],
        ..Settings::default()
    };
    let changes = index.configure(settings);
    assert!(changes.policies.contains(&name("node")));
    let both = [exact("new.example/ns/shop/sa/api"), exact("old.example/ns/shop/sa/api")];
    assert_eq!(at_node(&index).principals, both);
    assert_eq!(at_waypoint(&index).principals, both);
}

#[test]
fn trusted_proxies_are_the_gateways_or_the_meshs_and_without_either_the_status_says_so() {
    let mut index = settled(Some("w"));
    settle(&mut index);
    index.apply(object(attached(json!({"from": [{"source": {"remoteIpBlocks": ["192.0.2.0/24"]}}]}))));
    settle(&mut index);
    let seen = |index: &Index| {
        let patches = index.status_patches();
        let patch = patches.iter().find(|patch| patch.name == name("p")).unwrap();
        let is_said = patch.judgements[0].message.contains("same meaning as ipBlocks");
        (at_waypoint(index).request.unwrap().trusted_proxies, is_said)
    };
    assert_eq!(seen(&index), (None, true));
    let mesh =
        |trusted_proxies| Settings { presence: Presence::Present, trusted_proxies, ..Settings::default() };
    index.configure(mesh(Some(0)));
    assert_eq!(seen(&index), (Some(0), false));
    let config = json!({"metadata": {"annotations": {"proxy.istio.io/config": "gatewayTopology: {numTrustedProxies: 2}"}}});
    index.apply(object(gateway("w", config)));
    settle(&mut index);
    assert_eq!(seen(&index), (Some(2), false));
    index.configure(mesh(None));
    assert_eq!(seen(&index), (Some(2), false));
    index.apply(object(gateway("w", json!({}))));
    settle(&mut index);
    assert_eq!(seen(&index), (None, true));
}

#[test]
fn a_redirect_takes_the_clients_scheme_only_where_proxies_are_trusted() {
    let mut index = settled(Some("w"));
    let spec = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}],
        "rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}}]}]});
    index.apply(object(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "shop", "generation": 1}, "spec": spec})));
    settle(&mut index);
    let trusts = |index: &Index| {
        let bound = index.bound_service(&name("w"), &key("cart")).unwrap();
        let filters = &bound.ports[0].routes.http.as_ref().unwrap().rules[0].filters;
        let [Filter::Redirect(redirect)] = filters.as_slice() else { panic!("{filters:?}") };
        redirect.trusts_forwarded_proto
    };
    assert!(!trusts(&index));
    index.configure(Settings {
        presence: Presence::Present,
        trusted_proxies: Some(0),
        ..Settings::default()
    });
    assert!(trusts(&index));
    index.configure(Settings { presence: Presence::Present, ..Settings::default() });
    assert!(!trusts(&index));
    let config = json!({"metadata": {"annotations": {"proxy.istio.io/config": "gatewayTopology: {numTrustedProxies: 1}"}}});
    index.apply(object(gateway("w", config)));
    settle(&mut index);
    assert!(trusts(&index));
}
