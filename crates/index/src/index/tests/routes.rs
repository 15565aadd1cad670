//! Routes: the compiled result for a waypoint, and their status.

use ambit_api::{
    conditions::{ACCEPTED, RESOLVED_REFS, RESOLVED_WAYPOINTS, ROUTE_PARTIALLY_INVALID, reason},
    gateway::RouteParentStatus,
};
use ambit_model::{
    AppProtocol, BoundService, Destination,
    bound::{
        Backend, Balancer, Filter, Fraction, HashKey, HttpTable, PathChange, PathMatch, SessionLifetime,
        ValueMatch,
    },
};
use std::time::Duration;

use super::*;
use crate::{policies::Holds, routes::RouteParent};

const GROUP: &str = "gateway.networking.k8s.io/v1";

fn service(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
           "spec": {"clusterIP": "10.96.0.1", "selector": {"app": name}, "ports": [
               {"name": "http", "port": 80}, {"name": "grpc", "port": 7070, "appProtocol": "kubernetes.io/h2c"},
               {"name": "tcp", "port": 9090}, {"name": "admin", "port": 8080}]}})
}

fn bound_index() -> Index {
    let mut index = present();
    let mut shop = namespace("shop", "ambient");
    shop["metadata"]["labels"]["istio.io/use-waypoint"] = json!("w");
    for value in [
        shop,
        json!({"apiVersion": GROUP, "kind": "Gateway", "metadata": {"name": "w", "namespace": "shop"},
               "spec": {"gatewayClassName": "ambit-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
               "status": {"addresses": [{"value": "10.96.1.1"}]}}),
        service("shop", "cart"),
        service("shop", "cart-v2"),
        service("pay", "bank"),
    ] {
        index.apply(object(value));
    }
    index.serve();
    index
}

/// A route on Service shop/cart.
fn route(kind: &str, name: &str, rules: Value) -> Value {
    route_on(kind, ("shop", name), json!({"group": "", "kind": "Service", "name": "cart"}), rules)
}

fn route_on(kind: &str, name: (&str, &str), parent: Value, rules: Value) -> Value {
    json!({"apiVersion": GROUP, "kind": kind,
           "metadata": {"name": name.1, "namespace": name.0, "generation": 3, "resourceVersion": "9",
                        "creationTimestamp": "2026-01-01T00:00:00Z"},
           "spec": {"parentRefs": [parent], "rules": rules}})
}

fn born(mut route: Value, when: &str) -> Value {
    route["metadata"]["creationTimestamp"] = json!(when);
    route
}

fn to(name: &str) -> Value {
    json!([{"name": name, "port": 80}])
}

fn bound(index: &Index) -> &Arc<BoundService> {
    index.bound_service(&NamespacedName::new("shop", "w"), &key("shop", "cart")).unwrap()
}

fn key(namespace: &str, name: &str) -> NamespacedName {
    NamespacedName::new(namespace, format!("{name}.{namespace}.svc.cluster.local"))
}

fn table(index: &Index, port: u16) -> Option<&HttpTable> {
    bound(index).ports.iter().find(|p| p.port == port).unwrap().routes.http.as_deref()
}

fn rules(index: &Index, port: u16) -> Vec<String> {
    table(index, port)
        .map(|table| table.rules.iter().map(|rule| rule.name.to_string()).collect())
        .unwrap_or_default()
}

fn backend(index: &Index) -> &Backend {
    &table(index, 80).unwrap().rules[0].backends[0].backend
}

fn applied(values: impl IntoIterator<Item = Value>) -> Index {
    let mut index = bound_index();
    for value in values {
        index.apply(object(value));
    }
    index
}

/// The status of a route with one parent, by condition type.
fn says(index: &Index, name: &str) -> BTreeMap<&'static str, (Holds, &'static str, String)> {
    let patches = index.route_patches();
    let patch = patches.iter().find(|patch| &*patch.key.name.name == name).expect("a patch");
    let RouteParent { judgements, .. } = &patch.parents[0];
    judgements.iter().map(|j| (j.condition, (j.holds, j.reason, j.message.clone()))).collect()
}

fn is_said(index: &Index, name: &str, condition: &str) -> (Holds, &'static str) {
    let said = &says(index, name)[condition];
    (said.0, said.1)
}

#[test]
fn matches_are_tried_in_the_order_of_the_gateway_api() {
    let rule =
        |name: &str, matched: Value| json!({"name": name, "matches": [matched], "backendRefs": to("cart")});
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    let with = |mut matched: Value, key: &str, value: Value| {
        matched[key] = value;
        matched
    };
    let header =
        |n: usize| json!((0..n).map(|i| json!({"name": format!("h{i}"), "value": "v"})).collect::<Vec<_>>());
    let mut ordered = vec![
        rule("exact", path("Exact", "/a")),
        rule("longest", path("PathPrefix", "/a/b/c")),
        rule("method", with(path("PathPrefix", "/a/b"), "method", json!("GET"))),
        rule("two-headers", with(path("PathPrefix", "/a/b"), "headers", header(2))),
        rule("one-header", with(path("PathPrefix", "/a/b"), "headers", header(1))),
        rule("query", with(path("PathPrefix", "/a/b"), "queryParams", header(1))),
        rule("prefix", path("PathPrefix", "/a/b")),
        rule("short", path("PathPrefix", "/a/")),
        rule("expression", path("RegularExpression", "/a.*")),
        rule("every", json!({})),
    ];
    let expected: Vec<String> =
        ordered.iter().map(|rule| format!("HTTPRoute/shop/r/{}", rule["name"].as_str().unwrap())).collect();
    for turn in 0..ordered.len() {
        ordered.rotate_left(turn);
        let index = applied([route("HTTPRoute", "r", json!(ordered))]);
        let table = table(&index, 80).unwrap();
        let found: Vec<String> =
            table.matches.iter().map(|(_, rule)| table.rules[*rule].name.to_string()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn of_equal_matches_the_oldest_route_comes_first_then_its_name_then_the_order_of_rules() {
    let two = || json!([{"backendRefs": to("cart")}, {"backendRefs": to("cart-v2")}]);
    let index = applied([
        born(route("HTTPRoute", "young", two()), "2026-02-01T00:00:00Z"),
        route("HTTPRoute", "b", two()),
        route("HTTPRoute", "a", two()),
    ]);
    let table = table(&index, 80).unwrap();
    let found: Vec<&str> = table.matches.iter().map(|(_, rule)| &*table.rules[*rule].name).collect();
    let expected = ["a/0", "a/1", "b/0", "b/1", "young/0", "young/1"].map(|n| format!("HTTPRoute/shop/{n}"));
    assert_eq!(found, expected);
}

#[test]
fn every_match_of_a_rule_is_translated() {
    let matches = json!([{
        "path": {"value": "/a/"}, "method": "POST",
        "headers": [{"name": "X-User", "value": "a"}, {"name": "x-user", "value": "b"}, {"name": "r", "type": "RegularExpression", "value": "v.*"}],
        "queryParams": [{"name": "Q", "value": "1"}]
    }]);
    let index = applied([route("HTTPRoute", "r", json!([{"matches": matches, "backendRefs": to("cart")}]))]);
    let (found, _) = &table(&index, 80).unwrap().matches[0];
    assert_eq!((&found.path, found.method.as_deref()), (&PathMatch::Prefix("/a".into()), Some("POST")));
    let headers: Vec<_> = found.headers.iter().map(|header| (&*header.name, header.value.clone())).collect();
    assert_eq!(headers, [("x-user", ValueMatch::Exact("a".into())), ("r", ValueMatch::Regex("v.*".into()))]);
    assert_eq!(&*found.query[0].name, "Q");
}

#[test]
fn a_route_reaches_the_ports_that_its_parent_names_and_that_speak_what_it_routes() {
    let on = |extra: Value| {
        let mut parent = json!({"group": "", "kind": "Service", "name": "cart"});
        merge(&mut parent, extra);
        applied([route_on("HTTPRoute", ("shop", "r"), parent, json!([{"backendRefs": to("cart")}]))])
    };
    for (extra, expected, accepted) in [
        (json!({}), vec![80, 7070, 8080], (Holds::True, reason::ACCEPTED)),
        (json!({"port": 80}), vec![80], (Holds::True, reason::ACCEPTED)),
        (json!({"sectionName": "admin"}), vec![8080], (Holds::True, reason::ACCEPTED)),
        (json!({"port": 80, "sectionName": "admin"}), vec![], (Holds::False, reason::NO_MATCHING_PARENT)),
        (json!({"port": 81}), vec![], (Holds::False, reason::NO_MATCHING_PARENT)),
        (json!({"port": 9090}), vec![], (Holds::False, reason::NO_MATCHING_PARENT)),
        (json!({"name": "missing"}), vec![], (Holds::False, reason::NO_MATCHING_PARENT)),
    ] {
        let index = on(extra.clone());
        let ports: Vec<u16> =
            bound(&index).ports.iter().filter(|p| p.routes.http.is_some()).map(|p| p.port).collect();
        assert_eq!(ports, expected, "{extra}");
        assert_eq!(is_said(&index, "r", ACCEPTED), accepted, "{extra}");
    }
    let protocols: Vec<AppProtocol> = bound(&on(json!({}))).ports.iter().map(|port| port.protocol).collect();
    assert_eq!(protocols, [AppProtocol::Http, AppProtocol::Http2, AppProtocol::Tcp, AppProtocol::Detect]);
}

#[test]
fn a_port_that_says_nothing_speaks_what_its_number_is_known_for() {
    use AppProtocol::{Detect, Http, Tcp};
    let mut index = bound_index();
    let mut cart = service("shop", "cart");
    cart["spec"]["ports"] = json!([
        {"name": "a", "port": 25}, {"name": "b", "port": 53}, {"name": "c", "port": 3306},
        {"name": "d", "port": 27017}, {"name": "e", "port": 5432}, {"name": "http-f", "port": 3307},
    ]);
    index.apply(object(cart.clone()));
    let spoken =
        |index: &Index| -> Vec<AppProtocol> { bound(index).ports.iter().map(|port| port.protocol).collect() };
    assert_eq!(spoken(&index), [Tcp, Tcp, Tcp, Tcp, Detect, Http]);
    cart["spec"]["ports"] = json!([{"name": "http", "port": 3306}, {"port": 25, "appProtocol": "http"}]);
    index.apply(object(cart));
    assert_eq!(spoken(&index), [Http, Http], "what is said comes before the number");
}

#[test]
fn parents_of_other_kinds_are_others_business() {
    let gateway = json!({"name": "ingress"});
    let index =
        applied([route_on("HTTPRoute", ("shop", "r"), gateway, json!([{"backendRefs": to("cart")}]))]);
    assert_eq!((table(&index, 80), index.route_patches()), (None, vec![]));
}

#[test]
fn a_reference_leads_somewhere_or_its_rule_alone_is_refused() {
    let good = || Destination { service: key("shop", "cart-v2"), port: 80 };
    for (reference, expected) in [
        (json!({"name": "cart-v2", "port": 80}), Ok(good())),
        (json!({"name": "cart-v2", "port": 80, "group": "", "kind": "Service"}), Ok(good())),
        (json!({"name": "cart-v2"}), Err(reason::BACKEND_NOT_FOUND)),
        (json!({"name": "cart-v2", "port": 81}), Err(reason::BACKEND_NOT_FOUND)),
        (json!({"name": "missing", "port": 80}), Err(reason::BACKEND_NOT_FOUND)),
        (json!({"name": "x", "port": 80, "group": "g", "kind": "Thing"}), Err(reason::INVALID_KIND)),
        (json!({"name": "bank", "namespace": "pay", "port": 80}), Err(reason::REF_NOT_PERMITTED)),
    ] {
        let rules = json!([{"backendRefs": [reference]}, {"backendRefs": to("cart")}]);
        let index = applied([route("HTTPRoute", "r", rules)]);
        let resolved = is_said(&index, "r", RESOLVED_REFS);
        match expected {
            Ok(destination) => {
                assert_eq!(backend(&index), &Backend::Service(destination.clone()));
                assert_eq!(resolved, (Holds::True, reason::RESOLVED_REFS));
                assert!(bound(&index).destinations.contains_key(&destination));
            }
            Err(why) => {
                assert!(matches!(backend(&index), Backend::Invalid(_)), "{reference}");
                assert_eq!(resolved, (Holds::False, why), "{reference}");
            }
        }
        let neighbour = &table(&index, 80).unwrap().rules[1].backends[0].backend;
        assert!(matches!(neighbour, Backend::Service(_)), "{reference}");
        assert_eq!(is_said(&index, "r", ACCEPTED), (Holds::True, reason::ACCEPTED));
    }
}

#[test]
fn a_backend_that_comes_and_goes_is_noticed_and_weights_are_kept() {
    let backends = json!([{"name": "cart", "port": 80}, {"name": "late", "port": 80, "weight": 0}, {"name": "cart-v2", "port": 80, "weight": 9}]);
    let mut index = applied([route("HTTPRoute", "r", json!([{"backendRefs": backends}]))]);
    let found = |index: &Index| {
        let backends = &table(index, 80).unwrap().rules[0].backends;
        backends.iter().map(|b| (b.weight, matches!(b.backend, Backend::Service(_)))).collect::<Vec<_>>()
    };
    assert_eq!(found(&index), [(1, true), (0, false), (9, true)]);
    let changes = index.apply(object(service("shop", "late")));
    assert!(changes.route_status && changes.bound.iter().any(|(_, of)| *of == key("shop", "cart")));
    assert_eq!(found(&index), [(1, true), (0, true), (9, true)]);
    index.delete(&Key { kind: Kind::Service, name: NamespacedName::new("shop", "late") });
    assert_eq!(found(&index), [(1, true), (0, false), (9, true)]);
}

#[test]
fn a_grant_opens_a_namespace_to_the_kind_and_namespace_that_it_names() {
    let grant = |from: Value, to: Value| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
               "metadata": {"name": "g", "namespace": "pay"}, "spec": {"from": [from], "to": [to]}})
    };
    let from = |kind: &str, namespace: &str| json!({"group": "gateway.networking.k8s.io", "kind": kind, "namespace": namespace});
    let anything = || json!({"group": "", "kind": "Service"});
    let backends = json!([{"name": "bank", "namespace": "pay", "port": 80}]);
    for (grant, expected) in [
        (grant(from("HTTPRoute", "shop"), anything()), true),
        (grant(from("HTTPRoute", "shop"), json!({"group": "", "kind": "Service", "name": "bank"})), true),
        (grant(from("HTTPRoute", "shop"), json!({"group": "", "kind": "Service", "name": "other"})), false),
        (grant(from("HTTPRoute", "shop"), json!({"group": "", "kind": "Secret"})), false),
        (grant(from("GRPCRoute", "shop"), anything()), false),
        (grant(from("HTTPRoute", "other"), anything()), false),
    ] {
        let mut index = applied([route("HTTPRoute", "r", json!([{"backendRefs": backends}]))]);
        let changes = index.apply(object(grant.clone()));
        assert_eq!(matches!(backend(&index), Backend::Service(_)), expected, "{grant}");
        assert_eq!(changes.bound.len(), usize::from(expected));
        index.delete(&Key { kind: Kind::ReferenceGrant, name: NamespacedName::new("pay", "g") });
        assert!(matches!(backend(&index), Backend::Invalid(_)), "{grant}");
    }
}

#[test]
fn a_consumers_routes_hold_for_clients_of_its_namespace_and_may_lead_back_to_the_parent() {
    let parent = json!({"group": "", "kind": "Service", "namespace": "shop", "name": "cart", "port": 80});
    let back = json!([{"name": "cart", "namespace": "shop", "port": 80}]);
    let index = applied([
        route("HTTPRoute", "own", json!([{"backendRefs": to("cart-v2")}])),
        route("TCPRoute", "own-tcp", json!([{"backendRefs": to("cart-v2")}])),
        route_on("HTTPRoute", ("pay", "theirs"), parent, json!([{"backendRefs": back}])),
    ]);
    let port = &bound(&index).ports[0];
    assert_eq!(rules(&index, 80), ["HTTPRoute/shop/own/0"]);
    let theirs = &port.consumers["pay"];
    let rule = &theirs.http.as_ref().unwrap().rules[0];
    assert_eq!(&*rule.name, "HTTPRoute/pay/theirs/0");
    let cart = Destination { service: key("shop", "cart"), port: 80 };
    assert_eq!(rule.backends[0].backend, Backend::Service(cart));
    assert_eq!(is_said(&index, "theirs", RESOLVED_REFS), (Holds::True, reason::RESOLVED_REFS));
    let other = &bound(&index).ports[3];
    assert_eq!(other.port, 8080);
    assert!(
        other.consumers.is_empty() && other.routes.stream.is_some(),
        "what a consumer leaves open is the producer's"
    );
}

#[test]
fn filters_of_rules_and_backends_are_translated() {
    let filters = json!([
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Set", "value": "1"}], "remove": ["X-Gone"]}},
        {"type": "URLRewrite", "urlRewrite": {"hostname": "h", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/z"}}},
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "cart-v2", "port": 80}, "percent": 5}},
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "missing", "port": 80}}},
        {"type": "CORS", "cors": {"allowOrigins": ["*"], "maxAge": 7}}
    ]);
    let of_backend = json!([{"name": "cart", "port": 80, "filters": [
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "X-Add", "value": "2"}]}}]}]);
    let index = applied([route("HTTPRoute", "r", json!([{"filters": filters, "backendRefs": of_backend}]))]);
    let rule = &table(&index, 80).unwrap().rules[0];
    let [
        Filter::RequestHeaders(headers),
        Filter::Rewrite(rewrite),
        Filter::Mirror(mirror),
        Filter::Cors(cors),
    ] = rule.filters.as_slice()
    else {
        panic!("{:?}", rule.filters)
    };
    assert_eq!((&*headers.set[0].0, &*headers.remove[0]), ("x-set", "x-gone"));
    assert_eq!(rewrite.path, Some(PathChange::Prefix("/z".into())));
    assert_eq!(mirror.fraction, Some(Fraction { numerator: 5, denominator: 100 }));
    assert!(bound(&index).destinations.contains_key(&mirror.to));
    assert_eq!(cors.max_age, Duration::from_secs(7));
    let [Filter::ResponseHeaders(headers)] = rule.backends[0].filters.as_slice() else { panic!("{rule:?}") };
    assert_eq!(&*headers.add[0].0, "x-add");
    assert_eq!(is_said(&index, "r", RESOLVED_REFS), (Holds::False, reason::BACKEND_NOT_FOUND));
}

#[test]
fn a_redirect_is_found_unless_it_says_otherwise() {
    for (code, expected) in
        [(json!(null), 302), (json!(301), 301), (json!(303), 303), (json!(307), 307), (json!(308), 308)]
    {
        let filter = json!([{"type": "RequestRedirect", "requestRedirect": {"hostname": "h", "port": 8443, "statusCode": code}}]);
        let index = applied([route("HTTPRoute", "r", json!([{"filters": filter}]))]);
        let [Filter::Redirect(redirect)] = table(&index, 80).unwrap().rules[0].filters.as_slice() else {
            panic!("no redirect")
        };
        assert_eq!((redirect.status, redirect.port), (expected, Some(8443)));
    }
}

#[test]
fn times_retries_and_sessions_are_translated() {
    let rule = json!([{"backendRefs": to("cart"),
        "timeouts": {"request": "10s", "backendRequest": "0s"},
        "retry": {"codes": [503], "attempts": 3, "backoff": "20ms"},
        "sessionPersistence": {"sessionName": "S", "absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}}]);
    let index = applied([route("HTTPRoute", "r", rule)]);
    let rule = &table(&index, 80).unwrap().rules[0];
    assert_eq!((rule.timeouts.request, rule.timeouts.backend), (Some(Duration::from_secs(10)), None));
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.codes.as_slice(), retry.attempts), ([503].as_slice(), 3));
    assert_eq!(retry.backoff, Some(Duration::from_millis(20)));
    let session = rule.session.as_ref().unwrap();
    assert_eq!((&*session.name, session.cookie.unwrap().lifetime), ("S", SessionLifetime::Permanent));
    assert_eq!(session.route, NamespacedName::new("shop", "r"));
}

#[test]
fn a_rule_that_cannot_be_carried_out_is_answered_500_and_named_and_its_neighbours_are_not() {
    let path = |kind: &str, value: &str| json!([{"path": {"type": kind, "value": value}}]);
    let filter = |filter: Value| json!({"filters": [filter], "backendRefs": to("cart")});
    for rule in [
        json!({"matches": path("RegularExpression", "/("), "backendRefs": to("cart")}),
        json!({"matches": path("Glob", "/*"), "backendRefs": to("cart")}),
        json!({"matches": [{"headers": [{"name": "a", "type": "RegularExpression", "value": "["}]}], "backendRefs": to("cart")}),
        json!({"matches": [{"queryParams": [{"name": "a", "type": "Fuzzy", "value": "b"}]}], "backendRefs": to("cart")}),
        filter(json!({"type": "ExtensionRef"})),
        filter(json!({"type": "ExternalAuth"})),
        filter(json!({"type": "URLRewrite"})),
        filter(json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}})),
        filter(json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "Reverse"}}})),
        json!({"timeouts": {"request": "soon"}, "backendRefs": to("cart")}),
        json!({"retry": {"attempts": 1000}, "backendRefs": to("cart")}),
        json!({"sessionPersistence": {"cookieConfig": {"lifetimeType": "Permanent"}}, "backendRefs": to("cart")}),
    ] {
        let index = applied([route("HTTPRoute", "r", json!([rule, {"backendRefs": to("cart")}]))]);
        let found = &table(&index, 80).unwrap().rules;
        assert!(
            matches!(found[0].backends.as_slice(), [one] if matches!(one.backend, Backend::Invalid(_))),
            "{rule}"
        );
        assert!(found[0].filters.is_empty(), "nothing else answers: {rule}");
        assert!(matches!(found[1].backends[0].backend, Backend::Service(_)));
        let said = says(&index, "r");
        let (holds, why, message) = &said[ROUTE_PARTIALLY_INVALID];
        assert_eq!((*holds, *why), (Holds::True, reason::UNSUPPORTED_VALUE), "{rule}");
        assert!(message.starts_with("Dropped Rule") && message.contains("spec.rules[0]"), "{message}");
        assert_eq!(said[ACCEPTED].0, Holds::True);
        let index = applied([route("HTTPRoute", "r", json!([rule]))]);
        assert_eq!(is_said(&index, "r", ACCEPTED), (Holds::False, reason::UNSUPPORTED_VALUE), "{rule}");
    }
}

#[test]
fn calls_are_requests_for_their_service_and_method() {
    let rule = |name: &str, method: Value| json!({"name": name, "matches": [{"method": method}], "backendRefs": to("cart")});
    let rules = json!([
        rule("every", json!({})),
        rule("method", json!({"method": "Get"})),
        rule("service", json!({"service": "shop.Cart"})),
        rule("call", json!({"service": "shop.Cart", "method": "Get"})),
        rule(
            "expression",
            json!({"type": "RegularExpression", "service": "shop\\..*|pay", "method": "Get|Put"})
        ),
    ]);
    let index = applied([route("GRPCRoute", "r", rules)]);
    let table = table(&index, 7070).unwrap();
    let found: Vec<(String, &PathMatch)> = table
        .matches
        .iter()
        .map(|(found, rule)| (table.rules[*rule].name.rsplit('/').next().unwrap().to_owned(), &found.path))
        .collect();
    let expected = [
        ("expression", PathMatch::Regex("/(?:shop\\..*|pay)/(?:Get|Put)".into())),
        ("call", PathMatch::Exact("/shop.Cart/Get".into())),
        ("service", PathMatch::Prefix("/shop.Cart".into())),
        ("method", PathMatch::Regex("/[^/]+/Get".into())),
        ("every", PathMatch::Prefix("".into())),
    ];
    assert_eq!(found, expected.each_ref().map(|(name, path)| ((*name).to_owned(), path)));
    let unbalanced = json!([{"matches": [{"method": {"type": "RegularExpression", "service": "a)|(b"}}], "backendRefs": to("cart")}]);
    let index = applied([route("GRPCRoute", "r", unbalanced)]);
    assert_eq!(is_said(&index, "r", ACCEPTED), (Holds::False, reason::UNSUPPORTED_VALUE));
}

#[test]
fn of_two_kinds_of_routes_on_a_port_the_oldest_has_it_and_the_other_says_so() {
    let call = || json!([{"backendRefs": to("cart")}]);
    let on_port = json!({"group": "", "kind": "Service", "name": "cart", "port": 7070});
    let young = born(route_on("GRPCRoute", ("shop", "young"), on_port, call()), "2026-02-01T00:00:00Z");
    let mut index = applied([young, route("HTTPRoute", "old", call())]);
    assert_eq!(rules(&index, 7070), ["HTTPRoute/shop/old/0"]);
    let said = says(&index, "young");
    assert_eq!((said[ACCEPTED].0, said[ACCEPTED].1), (Holds::False, reason::CONFLICTED));
    assert!(said[ACCEPTED].2.contains("HTTPRoute shop/old"), "{}", said[ACCEPTED].2);
    index.delete(&Key { kind: Kind::HttpRoute, name: NamespacedName::new("shop", "old") });
    assert_eq!(rules(&index, 7070), ["GRPCRoute/shop/young/0"]);
    assert_eq!(is_said(&index, "young", ACCEPTED), (Holds::True, reason::ACCEPTED));
    index.apply(object(born(route("HTTPRoute", "late", call()), "2026-03-01T00:00:00Z")));
    let said = says(&index, "late");
    assert_eq!(said[ACCEPTED].0, Holds::True, "it has the other ports");
    assert!(said[ACCEPTED].2.contains("port 7070 is taken by the older GRPCRoute shop/young"));
}

#[test]
fn of_two_routes_with_the_same_match_the_newer_says_who_is_older() {
    let rules = || json!([{"backendRefs": to("cart")}]);
    let young = born(route("HTTPRoute", "young", rules()), "2026-02-01T00:00:00Z");
    let mut index = applied([young, route("HTTPRoute", "old", rules())]);
    let said = |index: &Index, name: &str| says(index, name)[ACCEPTED].clone();
    assert_eq!(said(&index, "old").2, "attached");
    let of_young = said(&index, "young");
    assert_eq!(of_young.0, Holds::True);
    assert!(
        of_young.2.contains("spec.rules[0] has a match of the older HTTPRoute shop/old"),
        "{}",
        of_young.2
    );
    index.delete(&Key { kind: Kind::HttpRoute, name: NamespacedName::new("shop", "old") });
    assert_eq!(said(&index, "young").2, "attached");
}

#[test]
fn connections_go_by_weight_and_the_oldest_route_has_the_port() {
    let rules = |weight: u32| json!([{"backendRefs": [{"name": "cart", "port": 9090, "weight": weight}, {"name": "missing", "port": 1}]}]);
    let mut index = applied([
        route("TCPRoute", "old", rules(3)),
        born(route("TLSRoute", "young", rules(5)), "2026-02-01T00:00:00Z"),
    ]);
    let weights = |index: &Index, port: usize| {
        let stream = bound(index).ports[port].routes.stream.clone();
        stream.map(|all| {
            all.iter().map(|b| (b.weight, matches!(b.backend, Backend::Service(_)))).collect::<Vec<_>>()
        })
    };
    assert_eq!(weights(&index, 2), Some(vec![(3, true), (1, false)]));
    assert_eq!(weights(&index, 0), None, "port 80 speaks HTTP");
    assert_eq!(is_said(&index, "young", ACCEPTED), (Holds::False, reason::CONFLICTED));
    index.delete(&Key { kind: Kind::TcpRoute, name: NamespacedName::new("shop", "old") });
    assert_eq!(weights(&index, 2), Some(vec![(5, true), (1, false)]));
}

#[test]
fn connections_of_tls_go_by_name_and_the_oldest_route_has_a_name() {
    let named = |name: &str, names: Value, born_at: &str| {
        let mut route = born(route("TLSRoute", name, json!([{"backendRefs": to("cart-v2")}])), born_at);
        route["spec"]["hostnames"] = names;
        route
    };
    let index = applied([
        named("a", json!(["A.example", "b.example"]), "2026-01-01T00:00:00Z"),
        named("b", json!(["*.example", "b.example"]), "2026-01-02T00:00:00Z"),
        named("late", json!(["b.example"]), "2026-01-03T00:00:00Z"),
        named("any", json!([]), "2026-01-04T00:00:00Z"),
        route("TCPRoute", "tcp", json!([{"backendRefs": to("cart")}])),
    ]);
    let routes = &bound(&index).ports[2].routes;
    let names: Vec<Vec<&str>> =
        routes.named.iter().map(|stream| stream.names.iter().map(AsRef::as_ref).collect()).collect();
    assert_eq!(names, [vec!["a.example", "b.example"], vec!["*.example", "b.example"]]);
    let whole = routes.stream.as_ref().unwrap();
    let cart = Backend::Service(Destination { service: key("shop", "cart"), port: 80 });
    assert_eq!(whole[0].backend, cart, "the oldest that takes every name");
    for (name, expected) in [
        ("a", (Holds::True, reason::ACCEPTED)),
        ("b", (Holds::True, reason::ACCEPTED)),
        ("late", (Holds::False, reason::CONFLICTED)),
        ("any", (Holds::False, reason::CONFLICTED)),
        ("tcp", (Holds::True, reason::ACCEPTED)),
    ] {
        assert_eq!(is_said(&index, name, ACCEPTED), expected, "{name}");
    }
}

#[test]
fn a_route_on_a_service_without_waypoint_is_accepted_and_says_that_it_has_no_effect() {
    let parent = json!({"group": "", "kind": "Service", "name": "bank"});
    let mut index =
        applied([route_on("HTTPRoute", ("pay", "r"), parent, json!([{"backendRefs": to("bank")}]))]);
    assert_eq!(is_said(&index, "r", ACCEPTED), (Holds::True, reason::ACCEPTED));
    let missing = (Holds::False, reason::MISSING_USE_WAYPOINT_LABEL);
    assert_eq!(is_said(&index, "r", RESOLVED_WAYPOINTS), missing);
    index.apply(object(route("HTTPRoute", "bound", json!([{"backendRefs": to("cart")}]))));
    assert_eq!(is_said(&index, "bound", RESOLVED_WAYPOINTS), (Holds::True, reason::RESOLVED_WAYPOINTS));
}

#[test]
fn a_route_is_patched_until_it_says_what_it_should_and_others_entries_stay() {
    let mut value = route("HTTPRoute", "r", json!([{"backendRefs": to("cart")}]));
    value["status"] = json!({"parents": [{"controllerName": "other.example/c", "parentRef": {"name": "ingress"}, "conditions": []}]});
    let mut index = applied([value.clone()]);
    let patches = index.route_patches();
    assert_eq!((patches[0].generation, patches[0].resource_version.as_str()), (Some(3), "9"));
    let status: Vec<RouteParentStatus> = patches[0].status("2026-01-02T00:00:00Z");
    assert_eq!((status.len(), status[0].controller_name.as_str()), (2, "other.example/c"));
    assert_eq!(status[1].controller_name, "ambit.dev/mesh-controller");
    assert_eq!(status[1].conditions[0].last_transition_time.as_deref(), Some("2026-01-02T00:00:00Z"));
    value["status"] = json!({"parents": status});
    index.apply(object(value.clone()));
    assert_eq!(index.route_patches(), []);
    index.delete(&Key { kind: Kind::Service, name: NamespacedName::new("shop", "cart") });
    let status = index.route_patches()[0].status("2026-01-03T00:00:00Z");
    let time = |kind: &str| {
        let found = status[1].conditions.iter().find(|condition| condition.kind == kind).unwrap();
        (found.status.clone(), found.last_transition_time.clone().unwrap())
    };
    assert_eq!(time(ACCEPTED), ("False".to_owned(), "2026-01-03T00:00:00Z".to_owned()));
    value["metadata"]["generation"] = json!(4);
    index.apply(object(service("shop", "cart")));
    index.apply(object(value));
    let status = index.route_patches()[0].status("2026-01-04T00:00:00Z");
    assert_eq!(status[1].conditions[0].observed_generation, Some(4));
    assert_eq!(status[1].conditions[0].last_transition_time.as_deref(), Some("2026-01-02T00:00:00Z"));
}

#[test]
fn a_route_that_changes_changes_only_the_services_that_it_names() {
    let other = json!({"group": "", "kind": "Service", "name": "cart-v2"});
    let mut index = applied([
        route("HTTPRoute", "r", json!([{"backendRefs": to("cart")}])),
        route_on("HTTPRoute", ("shop", "other"), other.clone(), json!([{"backendRefs": to("cart")}])),
    ]);
    let of = |service: &str| BTreeSet::from([(NamespacedName::new("shop", "w"), key("shop", service))]);
    let changes = index.apply(object(route("HTTPRoute", "r", json!([{"backendRefs": to("cart-v2")}]))));
    assert_eq!(changes.bound, of("cart"));
    let again = index.apply(object(route("HTTPRoute", "r", json!([{"backendRefs": to("cart-v2")}]))));
    assert_eq!(again.bound, BTreeSet::new());
    let moved = route_on("HTTPRoute", ("shop", "r"), other, json!([{"backendRefs": to("cart-v2")}]));
    let changes = index.apply(object(moved));
    assert_eq!(changes.bound.len(), 2, "the parent that it left, and the one it came to");
    assert_eq!(rules(&index, 80), Vec::<String>::new());
    let changes = index.retain(Kind::HttpRoute, &BTreeSet::new());
    assert_eq!(changes.bound, of("cart-v2"));
}

fn traffic(name: &str, when: &str, spec: Value) -> Value {
    json!({"apiVersion": "ambit.dev/v1alpha1", "kind": "TrafficPolicy",
           "metadata": {"name": name, "namespace": "shop", "creationTimestamp": when}, "spec": spec})
}

#[test]
fn the_oldest_traffic_policy_of_a_service_or_route_is_in_force_wherever_it_matters() {
    let on = |kind: &str, name: &str, requests: u32| json!({"targetRefs": [{"kind": kind, "name": name}], "rateLimit": [{"requests": requests}]});
    let mut robin = on("Service", "cart-v2", 9);
    robin["loadBalancing"] = json!({"roundRobin": {}});
    let mut index = applied([
        route("HTTPRoute", "r", json!([{"backendRefs": to("cart-v2")}])),
        traffic("young", "2026-02-01T00:00:00Z", on("Service", "cart", 1)),
        traffic("old", "2026-01-01T00:00:00Z", on("Service", "cart", 2)),
        traffic("route", "2026-01-01T00:00:00Z", on("HTTPRoute", "r", 3)),
        traffic("backend", "2026-01-01T00:00:00Z", robin),
    ]);
    assert_eq!(bound(&index).requests.rate_limits[0].requests, 2);
    let rule = &table(&index, 80).unwrap().rules[0];
    assert_eq!(rule.requests.as_ref().unwrap().rate_limits[0].requests, 3);
    let backend = Destination { service: key("shop", "cart-v2"), port: 80 };
    assert_eq!(bound(&index).destinations[&backend].policy.balancer, Balancer::RoundRobin);
    let patches = index.status_patches();
    let why = |name: &str| {
        let patch = patches.iter().find(|p| p.kind == Kind::TrafficPolicy && &*p.name.name == name).unwrap();
        (patch.judgements[0].holds, patch.judgements[0].reason)
    };
    assert_eq!(why("young"), (Holds::False, reason::CONFLICTED));
    for accepted in ["old", "route", "backend"] {
        assert_eq!(why(accepted), (Holds::True, reason::ACCEPTED), "{accepted}");
    }
    let changes = index.delete(&Key { kind: Kind::TrafficPolicy, name: NamespacedName::new("shop", "old") });
    assert_eq!(changes.bound.len(), 1);
    assert_eq!(bound(&index).requests.rate_limits[0].requests, 1);
    index.delete(&Key { kind: Kind::TrafficPolicy, name: NamespacedName::new("shop", "backend") });
    assert_eq!(bound(&index).destinations[&backend].policy.balancer, Balancer::LeastLoaded);
}

/// A route of namespace `pay` for Service shop/cart that leads back to it.
fn consumer(name: &str) -> Value {
    let parent = json!({"group": "", "kind": "Service", "namespace": "shop", "name": "cart", "port": 80});
    let back = json!([{"name": "cart", "namespace": "shop", "port": 80}]);
    route_on("HTTPRoute", ("pay", name), parent, json!([{"backendRefs": back}]))
}

#[test]
fn a_consumers_policy_is_marked_as_one_that_replaces_nothing_of_the_services() {
    let limit = |kind: &str, name: &str, requests: u32| json!({"targetRefs": [{"kind": kind, "name": name}], "rateLimit": [{"requests": requests}]});
    let mut theirs = traffic("wide", "2026-01-01T00:00:00Z", limit("HTTPRoute", "theirs", 1_000_000));
    theirs["metadata"]["namespace"] = json!("pay");
    let index = applied([
        route("HTTPRoute", "own", json!([{"backendRefs": to("cart")}])),
        consumer("theirs"),
        traffic("limit", "2026-01-01T00:00:00Z", limit("Service", "cart", 5)),
        theirs,
    ]);
    assert_eq!(bound(&index).requests.rate_limits[0].requests, 5);
    assert!(!table(&index, 80).unwrap().rules[0].is_consumer);
    let rule = &bound(&index).ports[0].consumers["pay"].http.as_ref().unwrap().rules[0];
    assert!(rule.is_consumer);
    assert_eq!(rule.requests.as_ref().unwrap().rate_limits[0].requests, 1_000_000);
}

#[test]
fn an_owner_that_denies_consumer_routes_has_none_and_their_status_says_so() {
    let denies = json!({"targetRefs": [{"kind": "Service", "name": "cart"}], "consumerRoutes": "Deny"});
    let mut theirs = traffic(
        "theirs",
        "2026-01-01T00:00:00Z",
        json!({"targetRefs": [{"kind": "HTTPRoute", "name": "theirs"}], "rateLimit": [{"requests": 1}]}),
    );
    theirs["metadata"]["namespace"] = json!("pay");
    // A policy in the consumer's namespace does not speak for the owner.
    let mut foreign = traffic("foreign", "2026-01-01T00:00:00Z", denies.clone());
    foreign["metadata"]["namespace"] = json!("pay");
    let older = json!({"targetRefs": [{"kind": "Service", "name": "cart"}]});
    let mut index = applied([
        consumer("theirs"),
        route("HTTPRoute", "own", json!([{"backendRefs": to("cart")}])),
        traffic("older", "2025-01-01T00:00:00Z", older),
        foreign,
        theirs,
    ]);
    assert!(bound(&index).ports[0].consumers.contains_key("pay"));
    assert_eq!(is_said(&index, "theirs", ACCEPTED), (Holds::True, reason::ACCEPTED));
    let changes = index.apply(object(traffic("deny", "2026-03-01T00:00:00Z", denies.clone())));
    assert!(changes.route_status);
    assert!(bound(&index).ports[0].consumers.is_empty());
    let said = says(&index, "theirs");
    assert_eq!((said[ACCEPTED].0, said[ACCEPTED].1), (Holds::False, reason::NOT_ALLOWED_BY_LISTENERS));
    assert!(said[ACCEPTED].2.contains("Service shop/cart"), "{}", said[ACCEPTED].2);
    assert_eq!(is_said(&index, "own", ACCEPTED), (Holds::True, reason::ACCEPTED));
    let patches = index.status_patches();
    let policy = patches
        .iter()
        .find(|p| p.kind == Kind::TrafficPolicy && &*p.name.namespace == "pay" && &*p.name.name == "theirs");
    let judgement = &policy.unwrap().judgements[0];
    assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::REF_NOT_PERMITTED));
    // A policy that cannot be parsed loses its limits, but not the refusal of consumer routes.
    let mut broken = denies;
    broken["rateLimit"] = json!([{"requests": 0}]);
    index.apply(object(traffic("deny", "2026-03-01T00:00:00Z", broken)));
    assert!(bound(&index).ports[0].consumers.is_empty());
    index.delete(&Key { kind: Kind::TrafficPolicy, name: NamespacedName::new("shop", "deny") });
    assert!(bound(&index).ports[0].consumers.contains_key("pay"));
}

#[test]
fn clients_stay_with_an_endpoint_of_a_service_that_wants_it_unless_a_policy_says_how_to_choose() {
    let own = Destination { service: key("shop", "cart-v2"), port: 80 };
    let mut index = applied([route("HTTPRoute", "r", json!([{"backendRefs": to("cart-v2")}]))]);
    let mut sticky = service("shop", "cart-v2");
    sticky["spec"]["sessionAffinity"] = json!("ClientIP");
    index.apply(object(sticky));
    let balancer = |index: &Index| bound(index).destinations[&own].policy.balancer.clone();
    assert_eq!(balancer(&index), Balancer::ConsistentHash(HashKey::SourceIp));
    for (says, expected) in [
        (json!({"loadBalancing": {"roundRobin": {}}}), Balancer::RoundRobin),
        (json!({"loadBalancing": {"leastLoaded": {}}}), Balancer::LeastLoaded),
        (
            json!({"loadBalancing": {"consistentHash": {"cookie": "id"}}}),
            Balancer::ConsistentHash(HashKey::Cookie("id".into())),
        ),
        (json!({"circuitBreaker": {"maxRequests": 1}}), Balancer::ConsistentHash(HashKey::SourceIp)),
        (json!({}), Balancer::ConsistentHash(HashKey::SourceIp)),
    ] {
        let mut spec = json!({"targetRefs": [{"kind": "Service", "name": "cart-v2"}]});
        merge(&mut spec, says.clone());
        index.apply(object(traffic("balance", "2026-01-01T00:00:00Z", spec)));
        assert_eq!(balancer(&index), expected, "{says}");
    }
}
