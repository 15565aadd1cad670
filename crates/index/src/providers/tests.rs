use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::settings::Settings;

fn services() -> BTreeMap<NamespacedName, ServiceFacts> {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "opa", "namespace": "auth"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 9191}, {"port": 53, "protocol": "UDP"}]}
    }))
    .unwrap();
    let facts = ServiceFacts::read(&service, &Settings::default()).unwrap();
    BTreeMap::from([(facts.name.clone(), facts)])
}

fn found(providers: Value, name: &str) -> Result<CheckProvider, String> {
    let (providers, services): (Vec<_>, _) = (serde_json::from_value(providers).unwrap(), services());
    let directory = Directory { providers: &providers, services: &services, cluster_domain: "cluster.local" };
    directory.provider(name)
}

fn grpc(field: &str, value: Value) -> Result<CheckProvider, String> {
    let mut provider = json!({"service": "auth/opa", "port": 9191});
    provider[field] = value;
    found(json!([{"name": "p", "envoyExtAuthzGrpc": provider}]), "p")
}

fn http(field: &str, value: Value) -> Result<CheckProvider, String> {
    let mut provider = json!({"service": "auth/opa", "port": 9191});
    provider[field] = value;
    found(json!([{"name": "p", "envoyExtAuthzHttp": provider}]), "p")
}

#[test]
fn a_service_is_named_as_istio_has_it() {
    for (service, expected) in [
        ("auth/opa", true),
        ("auth/opa.auth.svc.cluster.local", true),
        ("opa.auth.svc.cluster.local", true),
        ("opa.auth.svc", true),
        ("opa.auth", true),
        ("opa", false),
        ("other/opa.auth.svc.cluster.local", false),
        ("auth/", false),
        ("auth/opa/x", false),
        ("opa.auth.svc.other.domain", false),
        ("auth/missing", false),
    ] {
        let found = grpc("service", json!(service));
        assert_eq!(found.is_ok(), expected, "{service}: {found:?}");
        if let Ok(found) = found {
            assert_eq!(found.to.service.to_string(), "auth/opa.auth.svc.cluster.local");
        }
    }
}

#[test]
fn every_field_reaches_the_waypoint_and_the_defaults_fail_closed() {
    let plain = grpc("failOpen", json!(false)).unwrap();
    assert_eq!((plain.fail_open, plain.status_on_error, plain.body), (false, 403, None));
    assert_eq!((plain.timeout, plain.protocol), (Duration::from_secs(10), CheckProtocol::Grpc));
    let whole = json!([{"name": "p", "envoyExtAuthzHttp": {
        "service": "auth/opa", "port": 9191, "timeout": "250ms", "pathPrefix": "/check", "failOpen": true, "statusOnError": "503",
        "includeRequestHeadersInCheck": ["Cookie", "x-a-*", "*-id", "*"],
        "includeAdditionalHeadersInCheck": {"X-More": "1"},
        "includeRequestBodyInCheck": {"maxRequestBytes": 9, "allowPartialMessage": true, "packAsBytes": true},
        "headersToUpstreamOnAllow": ["X-User"], "headersToDownstreamOnDeny": ["x-why"], "headersToDownstreamOnAllow": ["x-ok"]
    }}]);
    let provider = found(whole, "p").unwrap();
    assert_eq!((provider.timeout, provider.fail_open), (Duration::from_millis(250), true));
    assert_eq!(provider.status_on_error, 503);
    let body = CheckBody { max_bytes: 9, allow_partial: true, pack_as_bytes: true };
    assert_eq!(provider.body, Some(body));
    let exact = |name: &str| vec![StringMatch::Exact(name.into())];
    let CheckProtocol::Http(http) = provider.protocol else { panic!() };
    assert_eq!(
        *http,
        HttpCheck {
            path_prefix: "/check".into(),
            request_headers: vec![
                StringMatch::Exact("cookie".into()),
                StringMatch::Prefix("x-a-".into()),
                StringMatch::Suffix("-id".into()),
                StringMatch::Presence
            ],
            additional_headers: vec![("x-more".into(), "1".into())],
            upstream_on_allow: exact("x-user"),
            downstream_on_deny: exact("x-why"),
            downstream_on_allow: exact("x-ok"),
        }
    );
}

#[test]
fn what_cannot_be_read_makes_no_provider_and_is_named() {
    for (provider, named) in [
        (grpc("port", json!(53)), "TCP port 53"),
        (grpc("timeout", json!("0s")), "timeout"),
        (grpc("timeout", json!("11m")), "timeout"),
        (grpc("timeout", json!("soon")), "timeout"),
        (grpc("statusOnError", json!("200")), "statusOnError"),
        (grpc("statusOnError", json!("nobody")), "statusOnError"),
        (grpc("includeRequestBodyInCheck", json!({"maxRequestBytes": 0})), "maxRequestBytes"),
        (grpc("includeRequestBodyInCheck", json!({"maxRequestBytes": 1_048_577})), "maxRequestBytes"),
        (http("pathPrefix", json!("check")), "pathPrefix"),
        (http("pathPrefix", json!("/a?b")), "pathPrefix"),
        (http("headersToUpstreamOnAllow", json!(["x-*-y"])), "headersToUpstreamOnAllow"),
        (http("headersToUpstreamOnAllow", json!([""])), "headersToUpstreamOnAllow"),
        (http("includeRequestHeadersInCheck", json!(["a b"])), "includeRequestHeadersInCheck"),
        (http("includeAdditionalHeadersInCheck", json!({"x": "a\nb"})), "includeAdditionalHeadersInCheck"),
        (found(json!([]), "p"), "extensionProviders"),
        (found(json!([{"name": "p"}]), "p"), "exactly one"),
        (found(json!([{"name": "p"}, {"name": "p"}]), "p"), "twice"),
    ] {
        let why = provider.unwrap_err();
        assert!(why.contains(named) && why.contains("\"p\""), "{why}");
    }
}
