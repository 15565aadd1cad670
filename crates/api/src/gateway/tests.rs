use kube::Resource;
use serde_json::json;

use super::*;

#[test]
fn unknown_fields_and_unknown_words_leave_an_object_readable() {
    let route: HttpRoute = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "cart", "port": 80, "later": 1}],
            "hostnames": ["cart"], "useDefaultGateways": "All",
            "rules": [{
                "matches": [{"path": {"type": "Glob", "value": "/*"}, "method": "PURGE"}],
                "filters": [{"type": "Teleport", "teleport": {}}],
                "backendRefs": [{"name": "cart", "port": 80, "weight": 2, "filters": [{"type": "URLRewrite"}]}]
            }]
        },
        "status": {"parents": [{"controllerName": "c", "parentRef": {"name": "cart"}, "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 3,
             "lastTransitionTime": "2026-01-01T00:00:00Z"}]}]}
    }))
    .unwrap();
    let rule = &route.spec.rules[0];
    assert_eq!(rule.matches[0].path.as_ref().unwrap().kind.as_deref(), Some("Glob"));
    assert_eq!((rule.filters[0].kind.as_str(), rule.backend_refs[0].backend.weight), ("Teleport", Some(2)));
    assert_eq!(rule.backend_refs[0].filters[0].kind, "URLRewrite");
    assert_eq!(route.status.unwrap().parents[0].conditions[0].observed_generation, Some(3));
}

#[test]
fn kinds_carry_the_names_of_the_gateway_api() {
    for (found, expected) in [
        ((HttpRoute::kind(&()), HttpRoute::plural(&())), ("HTTPRoute", "httproutes")),
        ((GrpcRoute::kind(&()), GrpcRoute::plural(&())), ("GRPCRoute", "grpcroutes")),
        ((TcpRoute::kind(&()), TcpRoute::plural(&())), ("TCPRoute", "tcproutes")),
        ((TlsRoute::kind(&()), TlsRoute::plural(&())), ("TLSRoute", "tlsroutes")),
        ((Gateway::kind(&()), Gateway::plural(&())), ("Gateway", "gateways")),
        ((GatewayClass::kind(&()), GatewayClass::plural(&())), ("GatewayClass", "gatewayclasses")),
        ((ReferenceGrant::kind(&()), ReferenceGrant::plural(&())), ("ReferenceGrant", "referencegrants")),
    ] {
        assert_eq!((&*found.0, &*found.1), expected);
    }
    assert_eq!(&*TcpRoute::api_version(&()), "gateway.networking.k8s.io/v1");
    assert_eq!(&*ReferenceGrant::api_version(&()), "gateway.networking.k8s.io/v1beta1");
}

#[test]
fn a_parent_reference_is_written_back_as_the_route_wrote_it() {
    for value in [
        json!({"name": "cart"}),
        json!({"group": "", "kind": "Service", "namespace": "shop", "name": "cart", "port": 80}),
        json!({"name": "gw", "sectionName": "mesh"}),
    ] {
        let parent: ParentReference = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(parent).unwrap(), value);
    }
}
