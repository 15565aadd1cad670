//! The condition of a service about callers that bypass its waypoint, and callers that are cut off.

use ambit_api::conditions::{WAYPOINT_BOUND, reason};

use super::{waypoints::*, *};
use crate::{Caller, policies::Holds};

/// The value of one condition of the Service.
pub(super) fn said(index: &Index, condition: &str) -> (Holds, &'static str, String) {
    let patches = index.status_patches();
    let patch = patches.iter().find(|patch| patch.kind == Kind::Service && patch.name == name("cart"));
    let mut judgements = patch.expect("a status to write").judgements.iter();
    let said = judgements.find(|said| said.condition == condition).expect("what is said");
    (said.holds, said.reason, said.message.clone())
}

fn cart(name: &str, with: Value) -> Value {
    let mut cart = redirected(name, json!({"metadata": {"labels": {"app": "cart"}}}));
    merge(&mut cart, with);
    cart
}

#[test]
fn a_service_with_an_endpoint_that_is_reached_without_its_waypoint_is_not_said_to_be_bound() {
    let label = |value: &str| json!({"metadata": {"labels": {"istio.io/dataplane-mode": value}}});
    let annotation = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let bypass = "ambient.istio.io/bypass-inbound-capture";
    for (with, why) in [
        (json!({"spec": {"hostNetwork": true}}), Some("HostNetwork")),
        (label("none"), Some("PodLabel")),
        (annotation("sidecar.istio.io/status", "{}"), Some("Sidecar")),
        (annotation(bypass, "true"), Some(bypass)),
        (annotation(bypass, "false"), None),
        (annotation("ambient.istio.io/redirection", "disabled"), Some("not enrolled yet")),
        (json!({}), None),
    ] {
        let mut index = settled(Some("w"));
        assert_eq!(said(&index, WAYPOINT_BOUND).0, Holds::True);
        index.apply(object(cart("second", with.clone())));
        let (holds, reason, message) = said(&index, WAYPOINT_BOUND);
        match why {
            Some(why) => {
                assert_eq!((holds, reason), (Holds::False, reason::ENDPOINTS_OPEN), "{with}: {message}");
                assert!(message.contains(&format!("second ({why})")), "{with}: {message}");
            }
            None => assert_eq!(holds, Holds::True, "{with}: {message}"),
        }
        assert_eq!(admitted(&index, "cart"), strings(&["w"]), "{with}: the others stay closed");
        index.delete(&Key { kind: Kind::Pod, name: name("second") });
        assert_eq!(said(&index, WAYPOINT_BOUND).0, Holds::True, "{with}");
    }
}

#[test]
fn a_pod_that_starts_is_no_news_until_it_is_ready() {
    let starting = |ready: &str| {
        let mut pod = cart("second", json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}}));
        pod["metadata"]["annotations"] = json!({});
        pod
    };
    let mut index = settled(Some("w"));
    index.apply(object(starting("False")));
    assert_eq!(said(&index, WAYPOINT_BOUND).0, Holds::True);
    index.apply(object(starting("True")));
    assert_eq!(said(&index, WAYPOINT_BOUND).1, reason::ENDPOINTS_OPEN);
}

#[test]
fn a_few_endpoints_are_named_and_the_rest_is_counted_and_an_operator_that_starts_anew_goes_on() {
    let mut index = settled(Some("w"));
    let plain = json!({"metadata": {"labels": {"istio.io/dataplane-mode": "none"}}});
    (0..8).for_each(|n| drop(index.apply(object(cart(&format!("p{n}"), plain.clone())))));
    let (_, reason, message) = said(&index, WAYPOINT_BOUND);
    assert!(message.contains("p4 (PodLabel) and 3 more"), "{message}");
    // Remembered as bound although its status is False, also while an endpoint is still enrolling.
    let condition = json!([{"type": "istio.io/WaypointBound", "status": "False", "reason": reason, "message": message,
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let mut anew = present();
    for value in [
        shop(Some("w")),
        pod("cart", json!({})),
        service("cart", json!({"status": {"conditions": condition}})),
        gateway("w", json!({})),
    ] {
        anew.apply(object(value));
    }
    anew.serve();
    assert_eq!(seen(&anew, "cart").1.as_deref(), Some("w"));
}

#[test]
fn ports_that_no_proxy_sees_and_scrapers_are_spoken_of() {
    let with = json!({"metadata": {"annotations": {"prometheus.io/scrape": "true"}},
                      "spec": {"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}});
    let mut index = settled(Some("w"));
    index.apply(object(service("cart", with)));
    let (holds, _, message) = said(&index, WAYPOINT_BOUND);
    assert_eq!(holds, Holds::True, "{message}");
    assert!(message.contains("53/UDP bypass it") && message.contains("scrapers"), "{message}");
}

fn caller(kind: &str) -> Object {
    caller_at(kind, None)
}

pub(super) fn caller_at(kind: &str, port: Option<u16>) -> Object {
    let config =
        json!({"service": {"namespace": "shop", "name": "cart", "path": "/x", "port": port}, "caBundle": ""});
    let webhooks = json!([{"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": config},
                          {"name": "b.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                           "clientConfig": {"url": "https://elsewhere.example"}}]);
    let metadata = json!({"name": "hook"});
    let caller = match kind {
        "ValidatingWebhookConfiguration" => Caller::validating(
            &serde_json::from_value(json!({"metadata": metadata, "webhooks": webhooks})).unwrap(),
        ),
        "MutatingWebhookConfiguration" => {
            Caller::mutating(&serde_json::from_value(json!({"metadata": metadata, "webhooks": webhooks})).unwrap())
        }
        "APIService" => Caller::aggregated(
            &serde_json::from_value(json!({"metadata": metadata, "spec": {"groupPriorityMinimum": 1, "versionPriority": 1,
                "service": {"namespace": "shop", "name": "cart", "port": port}}}))
            .unwrap(),
        ),
        _ => Caller::converting(
            &serde_json::from_value(json!({"metadata": metadata, "spec": {
                "group": "example.com", "scope": "Namespaced", "versions": [], "names": {"kind": "X", "plural": "xs"},
                "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": config}}}}))
            .unwrap(),
        ),
    };
    Object::Caller(Box::new(caller))
}

#[test]
fn what_the_api_server_calls_is_not_cut_off_by_a_label_of_its_namespace() {
    for kind in [
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "APIService",
        "CustomResourceDefinition",
    ] {
        let mut index = settled(None);
        let object_of = caller(kind);
        let key = object_of.key();
        index.apply(object_of);
        index.apply(object(shop(Some("w"))));
        (0..4).for_each(|_| drop(settle(&mut index)));
        assert_eq!(seen(&index, "cart"), (strings(&["w"]), None, vec![]), "{kind}");
        let (holds, reason, message) = said(&index, WAYPOINT_BOUND);
        assert_eq!((holds, reason), (Holds::False, reason::CALLED_FROM_OUTSIDE), "{kind}");
        assert!(message.contains(&format!("{kind} hook")), "{message}");
        // A label on the Service itself is an explicit decision.
        index.apply(object(service("cart", json!({"metadata": {"labels": {"istio.io/use-waypoint": "w"}}}))));
        (0..4).for_each(|_| drop(settle(&mut index)));
        assert_eq!(admitted(&index, "cart"), strings(&["w"]), "{kind}");
        let (holds, _, message) = said(&index, WAYPOINT_BOUND);
        assert!(holds == Holds::True && message.contains(&format!("{kind} hook, is refused")), "{message}");
        let changes = index.delete(&key);
        assert!(changes.policy_status, "{kind}");
        assert_eq!(said(&index, WAYPOINT_BOUND).2, "Successfully attached to waypoint shop/w", "{kind}");
    }
}

#[test]
fn a_webhook_that_comes_later_opens_nothing_and_is_named() {
    let mut index = settled(Some("w"));
    index.apply(caller("ValidatingWebhookConfiguration"));
    (0..4).for_each(|_| drop(settle(&mut index)));
    assert_eq!(admitted(&index, "cart"), strings(&["w"]));
    let (holds, _, message) = said(&index, WAYPOINT_BOUND);
    assert!(
        holds == Holds::True && message.contains("ValidatingWebhookConfiguration hook, is refused"),
        "{message}"
    );
    index.retain(Kind::ValidatingWebhook, &BTreeSet::new());
    assert_eq!(said(&index, WAYPOINT_BOUND).2, "Successfully attached to waypoint shop/w");
}
