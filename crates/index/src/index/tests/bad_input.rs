//! User errors that involve several objects: missing targets, and keys that cannot be fetched.

use ambit_api::conditions::reason;

use super::*;
use crate::policies::{Holds, Judgement};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// A namespace that requests a waypoint for all its services, which does not exist.
fn bound_namespace() -> Index {
    let mut index = present();
    let mut shop = namespace("shop", "ambient");
    shop["metadata"]["labels"]["istio.io/use-waypoint"] = json!("w");
    index.apply(object(shop));
    index.apply(object(gateway("w")));
    index.serve();
    index
}

fn gateway(name: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
           "metadata": {"name": name, "namespace": "shop"},
           "spec": {"gatewayClassName": "ambit-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
           "status": {"addresses": [{"value": "10.96.1.1"}]}})
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
           "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "cart"}, "ports": [{"name": "http", "port": 80}]}})
}

fn route() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
           "metadata": {"name": "r", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
           "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": []}})
}

fn policy(version: &str, kind: &str, name: &str, target: (&str, &str, &str), more: Value) -> Value {
    let (group, of, target) = target;
    let mut spec = json!({"targetRefs": [{"group": group, "kind": of, "name": target}]});
    merge(&mut spec, more);
    json!({"apiVersion": version, "kind": kind,
           "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec})
}

fn said(index: &Index, name: &str) -> Judgement {
    let patches = index.status_patches();
    let patch = patches.iter().find(|patch| &*patch.name.name == name).expect("a patch");
    patch.judgements[0].clone()
}

#[test]
fn a_policy_of_any_kind_on_a_target_that_is_missing_says_so_until_the_target_is_there() {
    const ISTIO: &str = "security.istio.io/v1";
    const AMBIT: &str = "ambit.dev/v1alpha1";
    let keys = r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#;
    let (cart, other) = (("", "Service", "cart"), (GATEWAY_API, "Gateway", "other"));
    let limit = || json!({"rateLimit": [{"requests": 1}]});
    let issuer = || json!({"jwtRules": [{"issuer": "i", "jwks": keys}]});
    let mut index = bound_namespace();
    let names = ["allow", "allow-gateway", "tokens", "tokens-gateway", "limit", "limit-route"];
    for value in [
        policy(ISTIO, "AuthorizationPolicy", "allow", cart, json!({"rules": [{}]})),
        policy(ISTIO, "AuthorizationPolicy", "allow-gateway", other, json!({"rules": [{}]})),
        policy(ISTIO, "RequestAuthentication", "tokens", cart, issuer()),
        policy(ISTIO, "RequestAuthentication", "tokens-gateway", other, issuer()),
        policy(AMBIT, "TrafficPolicy", "limit", cart, limit()),
        policy(AMBIT, "TrafficPolicy", "limit-route", (GATEWAY_API, "HTTPRoute", "r"), limit()),
    ] {
        index.apply(object(value));
    }
    for name in names {
        let said = said(&index, name);
        assert_eq!((said.holds, said.reason), (Holds::False, reason::TARGET_NOT_FOUND), "{name}: {said:?}");
        assert!(said.message.contains("does not exist"), "{name}: {}", said.message);
    }
    for value in [service(), route(), gateway("other")] {
        index.apply(object(value));
    }
    for name in names {
        let said = said(&index, name);
        assert_eq!((said.holds, said.reason), (Holds::True, reason::ACCEPTED), "{name}: {said:?}");
    }
}

#[test]
fn the_status_says_why_the_keys_of_an_issuer_cannot_be_had() {
    let uri: Arc<str> = "https://issuer.example/keys".into();
    let rules = json!({"jwtRules": [{"issuer": "i", "jwksUri": &*uri}]});
    let cart = ("", "Service", "cart");
    let mut index = bound_namespace();
    index.apply(object(service()));
    index.apply(object(policy("security.istio.io/v1", "RequestAuthentication", "tokens", cart, rules)));
    for (fetched, expected) in [
        (None, "has not been fetched yet"),
        (Some(Err("no answer within 10s".to_owned())), "no answer within 10s"),
        (Some(Err("its keys are not a JWK set".to_owned())), "its keys are not a JWK set"),
    ] {
        index.set_key_set(&uri, fetched);
        let said = said(&index, "tokens");
        assert_eq!((said.holds, said.reason), (Holds::False, reason::INVALID));
        assert!(said.message.contains(expected) && said.message.contains(&*uri), "{}", said.message);
    }
    let changes = index.set_key_set(&uri, Some(Ok("{}".into())));
    assert!(changes.policy_status);
    assert_eq!(said(&index, "tokens").holds, Holds::True);
}
