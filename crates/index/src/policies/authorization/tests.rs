use ambit_model::{
    RequestMatch,
    authorization::{Attribute, AttributeMatch},
};

use super::*;
use crate::policies::roots;
use crate::policies::{Reach, Target};

mod fields;
mod refused;

fn translated(action: &str, rules: serde_json::Value) -> Translation {
    let spec: AuthorizationPolicySpec =
        serde_json::from_value(serde_json::json!({"action": action, "rules": rules})).unwrap();
    translate(&NamespacedName::new("shop", "p"), &spec, &roots())
}

fn judged(found: &Translation) -> &Judgement {
    found.judgement.as_ref().unwrap()
}

fn status(found: &Translation) -> (Holds, &'static str) {
    (judged(found).holds, judged(found).reason)
}

/// The policy for node proxies.
fn at_nodes(found: &Translation) -> Option<Policy> {
    assert!(found.content.attachment().is_none());
    found.content.ztunnel().map(|policy| Policy::clone(policy))
}

#[test]
fn l4_fields_become_clauses() {
    let found = translated(
        "ALLOW",
        serde_json::json!([{
            "from": [{"source": {"principals": ["cluster.local/ns/a/sa/b", "spiffe://td/ns/c/*"], "ipBlocks": ["10.1.2.3/8", "::1"]}},
                     {"source": {"serviceAccounts": ["cart", "other/api"], "notNamespaces": ["*-dev"]}}],
            "to": [{"operation": {"ports": ["80", "443"], "notPorts": ["81"]}}],
            "when": [{"key": "destination.port", "values": ["8080"]}, {"key": "source.namespace", "notValues": ["*"]}]
        }]),
    );
    assert_eq!(status(&found), (Holds::True, reason::ACCEPTED));
    let policy = at_nodes(&found).unwrap();
    assert_eq!((policy.scope, policy.action, policy.rules.len()), (Scope::Namespace, Action::Allow, 1));
    let clauses = &policy.rules[0].clauses;
    assert_eq!(clauses.len(), 4);
    assert_eq!(
        clauses[0].matches[0],
        Match {
            principals: vec![
                StringMatch::Exact("cluster.local/ns/a/sa/b".into()),
                StringMatch::Prefix("td/ns/c/".into())
            ],
            source_ips: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            ..Match::default()
        }
    );
    assert_eq!(
        clauses[0].matches[1],
        Match {
            service_accounts: vec![NamespacedName::new("shop", "cart"), NamespacedName::new("other", "api")],
            not_namespaces: vec![StringMatch::Suffix("-dev".into())],
            ..Match::default()
        }
    );
    assert_eq!(clauses[1].matches[0].destination_ports, [80, 443]);
    assert_eq!(clauses[3].matches[0].not_namespaces, [StringMatch::Presence]);
}

#[test]
fn what_l4_cannot_enforce_makes_an_allow_narrower_and_a_deny_wider() {
    let l7_and_l4 = serde_json::json!([
        {"from": [{"source": {"namespaces": ["a"]}}], "to": [{"operation": {"methods": ["GET"]}}]},
        {"to": [{"operation": {"ports": ["80"]}}]}
    ]);
    let allow = translated("ALLOW", l7_and_l4.clone());
    assert_eq!(status(&allow), (Holds::True, reason::UNSUPPORTED_VALUE));
    assert!(judged(&allow).message.contains("methods"), "{}", judged(&allow).message);
    let rules = at_nodes(&allow).unwrap().rules;
    assert_eq!(rules.len(), 1, "the rule with a method allows nothing");
    assert_eq!(rules[0].clauses[0].matches[0].destination_ports, [80]);

    let deny = translated("DENY", l7_and_l4);
    assert_eq!(status(&deny), (Holds::True, reason::UNSUPPORTED_VALUE));
    let rules = at_nodes(&deny).unwrap().rules;
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0].clauses.len(), 1, "namespace a is denied whatever its method");
}

#[test]
fn an_alternative_that_is_all_l7_makes_its_whole_clause_of_a_deny_true() {
    let found = translated(
        "DENY",
        serde_json::json!([{
            "from": [{"source": {"namespaces": ["a"]}}],
            "to": [{"operation": {"methods": ["GET"]}}, {"operation": {"ports": ["80"]}}]
        }]),
    );
    let rules = at_nodes(&found).unwrap().rules;
    assert_eq!(rules[0].clauses.len(), 1, "GET on any port was denied, so every port is");
}

#[test]
fn a_deny_of_l7_alone_denies_nothing_and_says_so() {
    let found = translated("DENY", serde_json::json!([{"to": [{"operation": {"paths": ["/admin"]}}]}]));
    assert_eq!((status(&found), at_nodes(&found)), ((Holds::False, reason::INEFFECTIVE), None));
    let found = translated("DENY", serde_json::json!([]));
    assert_eq!((status(&found), at_nodes(&found)), ((Holds::False, reason::INEFFECTIVE), None));
    let found = translated(
        "DENY",
        serde_json::json!([{"when": [{"key": "request.headers[x]", "values": ["1"]}]}, {"to": [{"operation": {"ports": ["80"]}}]}]),
    );
    assert_eq!(status(&found), (Holds::False, reason::UNSUPPORTED_VALUE));
    assert_eq!(at_nodes(&found).unwrap().rules.len(), 1);
}

#[test]
fn an_unparsable_value_is_named_and_fails_closed() {
    let bad = serde_json::json!([
        {"from": [{"source": {"ipBlocks": ["10.0.0.0/8", "10.0.0.0/33"]}}], "to": [{"operation": {"ports": ["80"]}}]},
        {"from": [{"source": {"namespaces": ["a"]}}]}
    ]);
    let allow = translated("ALLOW", bad.clone());
    assert_eq!(status(&allow), (Holds::False, reason::INVALID));
    let message = &judged(&allow).message;
    assert!(message.contains("spec.rules[0].from[0].source.ipBlocks[1] \"10.0.0.0/33\""), "{message}");
    assert_eq!(at_nodes(&allow).unwrap().rules.len(), 1, "only the good rule allows");

    let deny = translated("DENY", bad);
    assert_eq!(status(&deny), (Holds::False, reason::INVALID));
    let rules = at_nodes(&deny).unwrap().rules;
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0].clauses.len(), 1, "port 80 is denied to every address");

    let only = translated("DENY", serde_json::json!([{"from": [{"source": {"ipBlocks": ["x"]}}]}]));
    assert_eq!(at_nodes(&only).unwrap().rules, [Rule::default()], "nobody knows whom, so everyone is denied");
    for (field, value) in [("ports", "http"), ("ports", "0"), ("ports", "70000")] {
        let found = translated("ALLOW", serde_json::json!([{"to": [{"operation": {field: [value]}}]}]));
        assert_eq!(
            (status(&found), at_nodes(&found).unwrap().rules.len()),
            ((Holds::False, reason::INVALID), 0),
            "{value}"
        );
    }
}

#[test]
fn an_empty_source_is_invalid_and_fails_closed() {
    let empty = serde_json::json!([{"from": [{"source": {}}]}]);
    assert_eq!(at_nodes(&translated("ALLOW", empty.clone())).unwrap().rules, []);
    assert_eq!(at_nodes(&translated("DENY", empty)).unwrap().rules, [Rule::default()]);
}

#[test]
fn rules_without_clauses_match_everything_and_no_rules_match_nothing() {
    assert_eq!(at_nodes(&translated("ALLOW", serde_json::json!([{}]))).unwrap().rules, [Rule::default()]);
    assert_eq!(at_nodes(&translated("DENY", serde_json::json!([{}]))).unwrap().rules, [Rule::default()]);
    assert_eq!(at_nodes(&translated("ALLOW", serde_json::json!([]))).unwrap().rules, []);
}

#[test]
fn actions_that_a_node_cannot_enforce_are_refused() {
    let found = translated("AUDIT", serde_json::json!([{}]));
    assert_eq!((status(&found), at_nodes(&found)), ((Holds::False, reason::UNSUPPORTED_VALUE), None));
}

#[test]
fn a_node_denies_what_it_would_have_to_put_to_a_provider() {
    let everything = translated("CUSTOM", serde_json::json!([{}]));
    assert_eq!(status(&everything), (Holds::False, reason::UNSUPPORTED_VALUE));
    assert!(judged(&everything).message.contains("targetRefs"), "{}", judged(&everything).message);
    let policy = at_nodes(&everything).unwrap();
    assert_eq!((policy.action, policy.rules), (Action::Deny, vec![Rule::default()]));
    let mixed = serde_json::json!([{"to": [{"operation": {"ports": ["80"], "paths": ["/private/*"]}}]}]);
    let policy = at_nodes(&translated("CUSTOM", mixed)).unwrap();
    assert_eq!(policy.rules[0].clauses[0].matches[0].destination_ports, [80]);
}

#[test]
fn the_scope_follows_selector_and_namespace() {
    let scope = |namespace: &str, selector: serde_json::Value| {
        let spec = serde_json::from_value(serde_json::json!({"selector": selector})).unwrap();
        at_nodes(&translate(&NamespacedName::new(namespace, "p"), &spec, &roots())).unwrap().scope
    };
    let labels = serde_json::json!({"matchLabels": {"app": "a"}});
    assert_eq!(scope("shop", labels.clone()), Scope::WorkloadSelector);
    assert_eq!(scope("ambit-system", labels), Scope::WorkloadSelector);
    assert_eq!(scope("shop", serde_json::json!({})), Scope::Namespace);
    assert_eq!(scope("ambit-system", serde_json::Value::Null), Scope::Global);
}

fn attached(action: &str, rules: serde_json::Value) -> Attachment<Arc<Policy>> {
    let spec: AuthorizationPolicySpec = serde_json::from_value(
        serde_json::json!({"targetRefs": [{"kind": "Service", "name": "a"}], "action": action, "rules": rules}),
    )
    .unwrap();
    let found = translate(&NamespacedName::new("shop", "p"), &spec, &roots());
    assert_eq!((found.content.ztunnel(), &found.judgement), (None, &None), "nodes get nothing of it");
    found.content.attachment().unwrap().clone()
}

#[test]
fn an_attached_policy_is_translated_whole() {
    let found = attached(
        "ALLOW",
        serde_json::json!([{
            "from": [{"source": {
                "namespaces": ["a"], "requestPrincipals": ["iss/*"], "notRequestPrincipals": ["iss/eve"],
                "remoteIpBlocks": ["192.0.2.0/24"], "notRemoteIpBlocks": ["192.0.2.1"]
            }}],
            "to": [{"operation": {
                "hosts": ["*.example"], "notHosts": ["b.example"], "methods": ["GET"], "notMethods": ["HEAD"],
                "paths": ["/a/{*}", "/b*"], "notPaths": ["/b/c"], "ports": ["80"]
            }}],
            "when": [
                {"key": "request.headers[X-User]", "values": ["ann"], "notValues": ["bob"]},
                {"key": "request.auth.claims[realm][role]", "values": ["admin"]},
                {"key": "request.auth.principal", "values": ["*"]},
                {"key": "remote.ip", "notValues": ["192.0.2.2"]},
                {"key": "source.namespace", "values": ["a"]},
                {"key": "connection.sni", "values": ["a.example"]}
            ]
        }]),
    );
    assert_eq!(found.targets, [Target::Service(NamespacedName::new("shop", "a"))]);
    let policy = found.content.unwrap();
    assert_eq!((policy.action, policy.dry_run), (Action::Allow, false));
    let exact = |text: &str| StringMatch::Exact(text.into());
    let request = |request| Some(Box::new(request));
    let attribute = |attribute, values, not_values| RequestMatch {
        attributes: vec![AttributeMatch { attribute, values, not_values }],
        ..RequestMatch::default()
    };
    let only = |asked| Match { request: request(asked), ..Match::default() };
    let expected = [
        Match {
            namespaces: vec![exact("a")],
            request: request(RequestMatch {
                principals: vec![StringMatch::Prefix("iss/".into())],
                not_principals: vec![exact("iss/eve")],
                remote_ips: vec!["192.0.2.0/24".parse().unwrap()],
                not_remote_ips: vec!["192.0.2.1/32".parse().unwrap()],
                ..RequestMatch::default()
            }),
            ..Match::default()
        },
        Match {
            destination_ports: vec![80],
            request: request(RequestMatch {
                hosts: vec![StringMatch::Suffix(".example".into())],
                not_hosts: vec![exact("b.example")],
                methods: vec![exact("GET")],
                not_methods: vec![exact("HEAD")],
                paths: vec!["/a/{*}".parse().unwrap(), "/b*".parse().unwrap()],
                not_paths: vec!["/b/c".parse().unwrap()],
                ..RequestMatch::default()
            }),
            ..Match::default()
        },
        only(attribute(Attribute::Header("x-user".into()), vec![exact("ann")], vec![exact("bob")])),
        only(attribute(Attribute::Claim(vec!["realm".into(), "role".into()]), vec![exact("admin")], vec![])),
        only(RequestMatch { principals: vec![StringMatch::Presence], ..RequestMatch::default() }),
        only(RequestMatch {
            not_remote_ips: vec!["192.0.2.2/32".parse().unwrap()],
            ..RequestMatch::default()
        }),
        Match { namespaces: vec![exact("a")], ..Match::default() },
        only(attribute(Attribute::Sni, vec![exact("a.example")], vec![])),
    ];
    let clauses: Vec<Clause> = expected.into_iter().map(|m| Clause { matches: vec![m] }).collect();
    assert_eq!(policy.rules, [Rule { clauses }]);
}

#[test]
fn an_attached_policy_may_audit_and_may_refuse_everything() {
    assert_eq!(attached("AUDIT", serde_json::json!([{}])).content.unwrap().action, Action::Audit);
    assert_eq!(attached("ALLOW", serde_json::json!([])).content.unwrap().rules, []);
    assert_eq!(attached("DENY", serde_json::json!([])).content.unwrap().rules, []);
}

#[test]
fn an_attached_policy_with_anything_that_cannot_be_enforced_is_refused_as_a_whole() {
    let to = |field: &str, value: &str| serde_json::json!([{"to": [{"operation": {field: [value]}}]}, {}]);
    let from = |field: &str, value: &str| serde_json::json!([{"from": [{"source": {field: [value]}}]}, {}]);
    let when =
        |key: &str, values: &[&str]| serde_json::json!([{"when": [{"key": key, "values": values}]}, {}]);
    let table = [
        ("CUSTOM", serde_json::json!([{}]), "CUSTOM"),
        ("ALLOW", to("paths", "/a/{*}.txt"), "spec.rules[0].to[0].operation.paths[0] \"/a/{*}.txt\""),
        ("DENY", to("notPaths", "/a/*/b"), "spec.rules[0].to[0].operation.notPaths[0]"),
        ("DENY", to("ports", "http"), "spec.rules[0].to[0].operation.ports[0] \"http\""),
        ("DENY", to("hosts", ""), "spec.rules[0].to[0].operation.hosts[0]"),
        ("AUDIT", from("ipBlocks", "10.0.0.0/33"), "spec.rules[0].from[0].source.ipBlocks[0]"),
        ("AUDIT", from("remoteIpBlocks", "x"), "spec.rules[0].from[0].source.remoteIpBlocks[0]"),
        ("ALLOW", serde_json::json!([{"from": [{"source": {}}]}]), "spec.rules[0].from[0].source is empty"),
        ("ALLOW", when("request.headers", &["a"]), "spec.rules[0].when[0].key \"request.headers\""),
        ("DENY", when("request.time", &["a"]), "spec.rules[0].when[0].key \"request.time\""),
        ("DENY", when("remote.ip", &["a"]), "spec.rules[0].when[0].values[0] \"a\""),
        ("DENY", when("request.headers[x]", &[]), "neither values nor notValues"),
    ];
    for (action, rules, says) in table {
        let found = attached(action, rules);
        let why = found.content.as_ref().unwrap_err();
        assert!(why.contains(says), "{why}");
        let judgement = found.judge(|_| Reach::Bound(NamespacedName::new("shop", "waypoint")));
        assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::INVALID));
    }
    let spec: AuthorizationPolicySpec = serde_json::from_value(serde_json::json!({
        "targetRef": {"kind": "Service", "name": "a"}, "selector": {"matchLabels": {"app": "a"}}, "rules": [{}]
    }))
    .unwrap();
    let found = translate(&NamespacedName::new("shop", "p"), &spec, &roots());
    assert!(found.content.attachment().unwrap().content.is_err(), "nobody knows which of the two was meant");
}

fn object(annotations: serde_json::Value, spec: serde_json::Value) -> ambit_api::AuthorizationPolicy {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop", "annotations": annotations}, "spec": spec
    }))
    .unwrap()
}

#[test]
fn a_dry_run_enforces_nothing_wherever_it_is_attached() {
    let dry_run = || serde_json::json!({"istio.io/dry-run": "true"});
    let target = serde_json::json!([{"kind": "Service", "name": "a"}]);
    let at_node = read(&object(dry_run(), serde_json::json!({"rules": [{}]})), &roots());
    assert!(at_node.content.ztunnel().unwrap().dry_run);
    assert!(at_node.judgements[0].message.starts_with("dry run"));
    let spec = serde_json::json!({"targetRefs": target, "rules": [{}]});
    let attached = read(&object(dry_run(), spec), &roots());
    assert!(attached.content.attachment().unwrap().content.as_ref().unwrap().dry_run);
    let spec = serde_json::json!({"targetRefs": target, "action": "CUSTOM", "rules": [{}]});
    let refused = read(&object(dry_run(), spec), &roots());
    assert!(refused.content.custom().unwrap().dry_run, "on trial nothing closes");
}

#[test]
fn a_status_that_no_longer_holds_is_taken_back_and_others_stay() {
    let condition =
        |kind: &str| serde_json::json!({"type": kind, "status": "True", "reason": "Accepted", "message": ""});
    let mut object = object(
        serde_json::json!({}),
        serde_json::json!({"targetRefs": [{"kind": "Service", "name": "a"}], "rules": [{}]}),
    );
    object.status = serde_json::from_value(serde_json::json!({
        "conditions": [condition(ZTUNNEL_ACCEPTED), condition("Theirs")]
    }))
    .unwrap();
    let facts = read(&object, &roots());
    let judgement = facts.content.attachment().unwrap().judge(|_| Reach::NotFound);
    let patch = facts.status_patch(crate::Kind::AuthorizationPolicy, Some(judgement.clone())).unwrap();
    assert_eq!(patch.judgements, [judgement]);
    assert_eq!(patch.current.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(), ["Theirs"]);
}

/// The status about nodes does not depend on whether waypoints support the field.
#[test]
fn at_a_node_l7_is_unsupported_whether_or_not_a_waypoint_could_read_it() {
    for path in ["/a/{*}", "/a/{*}.txt"] {
        let rules = serde_json::json!([{"to": [{"operation": {"paths": [path], "ports": ["80"]}}]}]);
        let allow = translated("ALLOW", rules.clone());
        assert_eq!(status(&allow), (Holds::True, reason::UNSUPPORTED_VALUE));
        assert_eq!(at_nodes(&allow).unwrap().rules, []);
        let deny = translated("DENY", rules);
        assert_eq!(status(&deny), (Holds::True, reason::UNSUPPORTED_VALUE));
        let policy = at_nodes(&deny).unwrap();
        assert!(!policy.is_l7());
        assert_eq!(policy.rules[0].clauses[0].matches[0].destination_ports, [80]);
        let only = translated("DENY", serde_json::json!([{"to": [{"operation": {"paths": [path]}}]}]));
        assert_eq!((status(&only), at_nodes(&only)), ((Holds::False, reason::INEFFECTIVE), None));
    }
}
