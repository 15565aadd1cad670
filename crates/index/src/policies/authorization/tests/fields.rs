//! Every field of an AuthorizationPolicy from its text to the verdict: field, kind of match,
//! present or absent value, negation, action and dry run, at a node and at a waypoint.

use ambit_model::{
    Connection,
    authorization::{Applied, Headers, PolicySet, Request, Token},
};
use serde_json::{Value, json};

use super::*;

/// A client `one.example/ns/shop/sa/web` at 10.1.2.3 that connects to 10.9.9.9:8080 with this
/// request.
const HEADERS: [(&str, &str); 4] = [("x-one", "a"), ("x-two", "a"), ("x-two", "b"), ("x-list", "a, b")];

struct Fields;

impl Headers for Fields {
    fn each(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        HEADERS.iter().filter(|(own, _)| *own == name).for_each(|(_, value)| visit(value.as_bytes()));
    }
}

fn connection() -> Connection {
    Connection {
        source: "spiffe://one.example/ns/shop/sa/web".parse().ok(),
        source_ip: "10.1.2.3".parse().unwrap(),
        destination_ip: "10.9.9.9".parse().unwrap(),
        destination_port: 8080,
    }
}

fn token() -> Token {
    let texts = |values: &[&str]| -> Vec<Arc<str>> { values.iter().map(|value| (*value).into()).collect() };
    Token {
        issuer: "https://idp.example/eu".into(),
        subject: "ann".into(),
        presenters: texts(&["app"]),
        audiences: texts(&["cart", "shop"]),
        claims: [(texts(&["groups"]), texts(&["dev", "ops"])), (texts(&["empty"]), texts(&[""]))].into(),
    }
}

/// At which layer a field is enforced.
#[derive(Clone, Copy, PartialEq)]
enum Layer {
    L4,
    L7,
}
use Layer::{L4, L7};

fn from(field: &str, value: &str) -> Value {
    json!({"from": [{"source": {field: [value]}}]})
}

fn to(field: &str, value: &str) -> Value {
    json!({"to": [{"operation": {field: [value]}}]})
}

fn when(key: &str, values: &str, value: &str) -> Value {
    json!({"when": [{"key": key, values: [value]}]})
}

/// Layer, field, and its values with whether each matches the client.
type Row = (Layer, &'static str, &'static [(&'static str, bool)]);

const SOURCES: &[Row] = &[
    (
        L4,
        "principals",
        &[
            ("one.example/ns/shop/sa/web", true),
            ("spiffe://one.example/ns/shop/sa/web", true),
            ("one.example/ns/shop/sa/we", false),
            ("one.example/ns/shop/*", true),
            ("one.example/ns/sho*", true),
            ("two.example/*", false),
            ("*/ns/shop/sa/web", true),
            ("*/sa/api", false),
            ("*", true),
        ],
    ),
    (
        L4,
        "namespaces",
        &[
            ("shop", true),
            ("sho", false),
            ("sh*", true),
            ("x*", false),
            ("*op", true),
            ("*x", false),
            ("*", true),
        ],
    ),
    (
        L4,
        "trustDomains",
        &[
            ("one.example", true),
            ("one", false),
            ("one*", true),
            ("two*", false),
            ("*.example", true),
            ("*.test", false),
            ("*", true),
        ],
    ),
    (L4, "serviceAccounts", &[("web", true), ("we", false), ("shop/web", true), ("other/web", false)]),
    (L4, "ipBlocks", &[("10.1.2.3", true), ("10.1.0.0/16", true), ("10.9.9.9", false), ("::/0", false)]),
    (L7, "remoteIpBlocks", &[("192.0.2.7", true), ("192.0.2.0/24", true), ("10.0.0.0/8", false)]),
    (
        L7,
        "requestPrincipals",
        &[
            ("https://idp.example/eu/ann", true),
            ("https://idp.example/eu/*", true),
            ("https://idp.example/*", false),
            ("https://idp.example/eu/an*", true),
            ("*/ann", true),
            ("*/eve", false),
            ("https:*", true),
            ("*", true),
        ],
    ),
];

const OPERATIONS: &[Row] = &[
    (L4, "ports", &[("8080", true), ("80", false)]),
    (
        L7,
        "hosts",
        &[
            ("shop.example", true),
            ("SHOP.example", true),
            ("shop.example:8080", true),
            ("shop.example:80", false),
            ("*.example", true),
            ("*.test", false),
            ("shop*", true),
            ("*", true),
        ],
    ),
    (
        L7,
        "methods",
        &[("GET", true), ("get", true), ("POST", false), ("G*", true), ("*t", true), ("*", true)],
    ),
    (
        L7,
        "paths",
        &[
            ("/cart/7", true),
            ("/cart", false),
            ("/cart/*", true),
            ("*/7", true),
            ("*/8", false),
            ("/cart/{*}", true),
            ("/{**}", true),
            ("/{*}", false),
            ("*", true),
        ],
    ),
];

const CONDITIONS: &[Row] = &[
    (L4, "source.ip", &[("10.1.2.3", true), ("10.2.0.0/16", false)]),
    (L4, "source.namespace", &[("shop", true), ("s*", true), ("*x", false), ("*", true)]),
    (L4, "source.principal", &[("one.example/ns/shop/sa/web", true), ("*/sa/api", false), ("*", true)]),
    (L4, "source.serviceAccount", &[("shop/web", true), ("web", true), ("shop/api", false)]),
    (L4, "source.trustDomain", &[("one.example", true), ("two.example", false), ("*.example", true)]),
    (L4, "destination.ip", &[("10.9.9.9", true), ("10.1.2.3", false)]),
    (L4, "destination.port", &[("8080", true), ("80", false)]),
    (L7, "remote.ip", &[("192.0.2.7", true), ("10.1.2.3", false)]),
    (
        L7,
        "request.headers[x-one]",
        &[("a", true), ("A", false), ("b", false), ("a*", true), ("*a", true), ("*", true)],
    ),
    (L7, "request.headers[x-none]", &[("a", false), ("*", false)]),
    (L7, "request.headers[:authority]", &[("shop.example:8080", true), ("other", false), ("shop.*", true)]),
    (L7, "request.headers[Host]", &[("shop.example:8080", true), ("*", true)]),
    (
        L7,
        "request.experimental.inline.headers[x-list]",
        &[("a", true), ("b", true), ("a, b", false), ("*", true)],
    ),
    (L7, "request.experimental.inline.headers[x-two]", &[("b", true), ("c", false)]),
    (
        L7,
        "request.auth.principal",
        &[("https://idp.example/eu/ann", true), ("https://idp.example/*", false), ("*", true)],
    ),
    (L7, "request.auth.audiences", &[("shop", true), ("sho", false), ("c*", true), ("*", true)]),
    (L7, "request.auth.presenter", &[("app", true), ("web", false), ("*", true)]),
    (
        L7,
        "request.auth.claims[groups]",
        &[("ops", true), ("op", false), ("d*", true), ("*s", true), ("*", true)],
    ),
    (L7, "request.auth.claims[empty]", &[("a", false), ("*", false)]),
    (L7, "request.auth.claims[none]", &[("a", false), ("*", false)]),
    (L7, "connection.sni", &[("shop.example", true), ("other", false), ("*.example", true), ("*", true)]),
];

/// Every rule with its layer, and whether it matches.
fn table() -> Vec<(Layer, Value, bool)> {
    let not = |field: &str| format!("not{}{}", field[..1].to_uppercase(), &field[1..]);
    let mut all = Vec::new();
    for (layer, field, values) in SOURCES {
        for (value, hits) in *values {
            all.push((*layer, from(field, value), *hits));
            all.push((*layer, from(&not(field), value), !hits));
        }
    }
    for (layer, field, values) in OPERATIONS {
        for (value, hits) in *values {
            all.push((*layer, to(field, value), *hits));
            all.push((*layer, to(&not(field), value), !hits));
        }
    }
    for (layer, key, values) in CONDITIONS {
        for (value, hits) in *values {
            all.push((*layer, when(key, "values", value), *hits));
            all.push((*layer, when(key, "notValues", value), !hits));
        }
    }
    all
}

fn policy_of(spec: Value, is_dry: bool) -> AuthorizationFacts {
    let annotations = if is_dry { json!({"istio.io/dry-run": "T"}) } else { json!({}) };
    read(&object(annotations, spec), &roots())
}

fn allowed_at_node(action: &str, rule: &Value, is_dry: bool) -> bool {
    let facts = policy_of(json!({"action": action, "rules": [rule]}), is_dry);
    let known = facts.content.ztunnel().map(|policy| Applied::Known(policy.clone()));
    PolicySet::new(known).evaluate(&connection()).is_allowed()
}

fn allowed_at_waypoint(action: &str, rule: &Value, is_dry: bool) -> bool {
    let target = json!([{"kind": "Service", "name": "a"}]);
    let facts = policy_of(json!({"targetRefs": target, "action": action, "rules": [rule]}), is_dry);
    let attachment = facts.content.attachment().unwrap();
    let set = PolicySet::new([Applied::Known(attachment.content.clone().unwrap())]);
    let token = token();
    let request = Request {
        host: "shop.example:8080",
        method: "GET",
        path: "/cart/7",
        headers: &Fields,
        token: Some(&token),
        remote_ip: "192.0.2.7".parse().unwrap(),
        sni: Some("shop.example"),
    };
    set.judge(&connection(), &request).is_allowed()
}

#[test]
fn a_waypoint_enforces_every_field_of_every_action() {
    for (_, rule, hits) in table() {
        for is_dry in [false, true] {
            assert_eq!(allowed_at_waypoint("ALLOW", &rule, is_dry), hits || is_dry, "ALLOW {rule}");
            assert_eq!(allowed_at_waypoint("DENY", &rule, is_dry), !hits || is_dry, "DENY {rule}");
            assert!(allowed_at_waypoint("AUDIT", &rule, is_dry), "AUDIT {rule}");
        }
    }
}

#[test]
fn a_node_enforces_every_field_of_l4_and_no_allow_of_l7() {
    for (layer, rule, hits) in table() {
        for is_dry in [false, true] {
            let allows = match layer {
                L4 => hits,
                L7 => false,
            };
            assert_eq!(allowed_at_node("ALLOW", &rule, is_dry), allows || is_dry, "ALLOW {rule}");
            // A DENY with only L7 conditions denies nothing at a node, and its status says so.
            let denies = layer == L4 && hits;
            assert_eq!(allowed_at_node("DENY", &rule, is_dry), !denies || is_dry, "DENY {rule}");
            assert!(allowed_at_node("AUDIT", &rule, is_dry), "AUDIT {rule}");
        }
        let facts = policy_of(json!({"action": "DENY", "rules": [rule]}), false);
        assert_eq!(facts.judgements[0].holds == Holds::True, layer == L4, "{rule}");
    }
}

/// Several lines of a header are evaluated both one by one and joined, whichever is worse for the
/// client.
#[test]
fn several_lines_of_a_header_are_judged_each_and_joined() {
    for (value, allows, denies) in
        [("a", false, true), ("b", false, true), ("a,b", false, true), ("c", false, false)]
    {
        let rule = when("request.headers[x-two]", "values", value);
        assert_eq!(allowed_at_waypoint("ALLOW", &rule, false), allows, "{value}");
        assert_eq!(allowed_at_waypoint("DENY", &rule, false), !denies, "{value}");
    }
    let any = when("request.headers[x-two]", "values", "*");
    assert!(allowed_at_waypoint("ALLOW", &any, false));
}

#[test]
fn a_deny_keeps_what_it_says_of_connections_beside_what_is_l7_alone() {
    let principal = json!({"source": {"principals": ["one.example/ns/shop/sa/web"]}});
    let other = json!({"source": {"principals": ["one.example/ns/shop/sa/api"]}});
    let token = json!({"source": {"requestPrincipals": ["x/*"]}});
    let port = json!({"operation": {"ports": ["8080"]}});
    let other_port = json!({"operation": {"ports": ["80"]}});
    let method = json!({"operation": {"methods": ["POST"]}});
    let table = [
        (json!({"from": [token, principal]}), true),
        (json!({"from": [token, other]}), false),
        (json!({"to": [method, port]}), true),
        (json!({"to": [method, other_port]}), false),
        (json!({"from": [token, other], "to": [method, port]}), true),
        (json!({"from": [token, principal], "to": [method, other_port]}), true),
        (json!({"from": [token, other], "to": [method, other_port]}), false),
        (json!({"from": [token], "to": [method, port]}), true),
        (json!({"from": [token], "to": [method]}), false),
    ];
    for (rule, denies) in table {
        let facts = policy_of(json!({"action": "DENY", "rules": [rule]}), false);
        assert_eq!(allowed_at_node("DENY", &rule, false), !denies, "{rule}");
        let judgement = &facts.judgements[0];
        assert_eq!(judgement.holds, Holds::False, "{rule} {judgement:?}");
        let says = if denies { "1 rule(s) deny only by their other fields" } else { "requestPrincipals" };
        assert!(judgement.message.contains(says) || rule.get("from").is_none(), "{rule} {judgement:?}");
    }
}
