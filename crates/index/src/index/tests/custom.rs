//! Policies with action CUSTOM: which provider is used, and what is refused while it is not
//! available.

use ambit_api::conditions::reason;
use ambit_model::{BoundService, bound::PODS};

use super::{waypoints::*, *};
use crate::policies::Holds;

fn opa(port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "opa", "namespace": "auth"},
           "spec": {"clusterIP": "10.96.7.7", "ports": [{"name": "grpc", "port": port}]}})
}

fn settings(providers: Value) -> Settings {
    let extension_providers = serde_json::from_value(providers).unwrap();
    Settings { presence: Presence::Present, extension_providers, ..Settings::default() }
}

fn providers() -> Value {
    json!([{"name": "opa", "envoyExtAuthzGrpc": {"service": "opa.auth.svc.cluster.local", "port": 9191}}])
}

fn custom(with: Value) -> Value {
    let mut spec = json!({"targetRefs": [{"kind": "Service", "name": "cart"}], "action": "CUSTOM",
                          "provider": {"name": "opa"}, "rules": [{"to": [{"operation": {"paths": ["/private"]}}]}]});
    merge(&mut spec, with);
    policy("shop", "custom", spec)
}

fn seen(index: &Index) -> &BoundService {
    index.bound_service(&name("w"), &key("cart")).unwrap()
}

/// The status of the policy.
fn said(index: &Index) -> (Holds, &'static str, String) {
    let patches = index.status_patches();
    let patch = patches.iter().find(|p| p.kind == Kind::AuthorizationPolicy && p.name == name("custom"));
    let judgement = &patch.unwrap().judgements[0];
    (judgement.holds, judgement.reason, judgement.message.clone())
}

#[test]
fn everything_is_refused_until_the_provider_and_its_service_are_known_and_again_without_them() {
    let mut index = settled(Some("w"));
    index.apply(object(custom(json!({}))));
    let is_closed = |index: &Index| {
        let (holds, why, message) = said(index);
        assert_eq!((holds, why), (Holds::False, reason::INVALID));
        assert!(message.contains("\"opa\"") && message.contains("refuse everything"), "{message}");
        assert_eq!((seen(index).unenforceable[0].0.clone(), seen(index).checks.len()), (name("custom"), 0));
    };
    is_closed(&index);
    index.configure(settings(providers()));
    is_closed(&index);
    let changes = index.apply(object(opa(9191)));
    assert!(changes.bound.contains(&(name("w"), key("cart"))));
    let bound = seen(&index);
    assert!(bound.unenforceable.is_empty() && bound.authorization.is_empty());
    let check = &bound.checks[0];
    assert_eq!((&check.policy.key, check.policy.action), (&name("custom"), ambit_model::Action::Deny));
    assert_eq!(&*check.provider.to.service.name, "opa.auth.svc.cluster.local");
    assert!(bound.destinations.contains_key(&check.provider.to), "or nobody knows the way");
    let (holds, why, message) = said(&index);
    assert_eq!((holds, why), (Holds::True, reason::ACCEPTED));
    for part in ["provider opa", "TCP and TLS connections cannot be sent to a provider and are refused"] {
        assert!(message.contains(part), "{message}");
    }
    index.apply(object(opa(1)));
    is_closed(&index);
    index.apply(object(opa(9191)));
    assert_eq!(seen(&index).checks.len(), 1);
    index.configure(settings(json!([])));
    is_closed(&index);
}

#[test]
fn what_is_asked_before_tokens_are_and_of_whom_must_be_said() {
    let source = |field: &str| json!([{"from": [{"source": {field: ["a/b"]}}]}]);
    let claim = json!([{"when": [{"key": "request.auth.claims[a]", "values": ["b"]}]}]);
    for (with, named) in [
        (json!({"provider": null}), "provider.name"),
        (json!({"provider": {"name": ""}}), "provider.name"),
        (json!({"rules": source("requestPrincipals")}), "requestPrincipals"),
        (json!({"rules": source("notRequestPrincipals")}), "requestPrincipals"),
        (json!({"rules": claim}), "request.auth"),
        (json!({"selector": {"matchLabels": {"app": "cart"}}}), "selector"),
    ] {
        let mut index = settled(Some("w"));
        index.configure(settings(providers()));
        index.apply(object(opa(9191)));
        index.apply(object(custom(with)));
        let (holds, why, message) = said(&index);
        assert_eq!((holds, why), (Holds::False, reason::INVALID), "{message}");
        assert!(message.contains(named), "{message}");
        assert_eq!((seen(&index).unenforceable.len(), seen(&index).checks.len()), (1, 0));
    }
}

#[test]
fn on_trial_nobody_is_asked_and_nothing_refused() {
    let mut index = settled(Some("w"));
    let mut trial = custom(json!({}));
    merge(&mut trial, json!({"metadata": {"annotations": {"istio.io/dry-run": "true"}}}));
    index.apply(object(trial));
    assert!(seen(&index).unenforceable.is_empty() && seen(&index).checks.is_empty());
    let (holds, why, _) = said(&index);
    assert_eq!((holds, why), (Holds::False, reason::UNSUPPORTED_VALUE));
}

#[test]
fn pods_behind_a_waypoint_are_put_to_the_same_provider() {
    let for_pods = json!({"metadata": {"labels": {"istio.io/waypoint-for": "workload"}}});
    let mut index = settled(Some("w"));
    index.apply(object(gateway("w", for_pods)));
    index.configure(settings(providers()));
    index.apply(object(opa(9191)));
    let gateway = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "w"}]);
    index.apply(object(custom(json!({"targetRefs": gateway}))));
    let pods = index.bound_service(&name("w"), &NamespacedName::new("shop", PODS)).unwrap();
    assert_eq!(pods.checks.len(), 1);
    assert!(pods.destinations.contains_key(&pods.checks[0].provider.to));
}
