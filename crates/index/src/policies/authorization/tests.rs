use super::*;

fn translated(action: &str, rules: serde_json::Value) -> Translation {
    let spec: AuthorizationPolicySpec =
        serde_json::from_value(serde_json::json!({"action": action, "rules": rules})).unwrap();
    translate(&NamespacedName::new("shop", "p"), &spec, "ambit-system")
}

fn judged(found: &Translation) -> &Judgement {
    found.judgement.as_ref().unwrap()
}

fn status(found: &Translation) -> (Holds, &'static str) {
    (judged(found).holds, judged(found).reason)
}

/// What node proxies get.
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
    for action in ["AUDIT", "CUSTOM"] {
        let found = translated(action, serde_json::json!([{}]));
        assert_eq!((status(&found), at_nodes(&found)), ((Holds::False, reason::UNSUPPORTED_VALUE), None));
    }
}

#[test]
fn the_scope_follows_selector_and_namespace() {
    let scope = |namespace: &str, selector: serde_json::Value| {
        let spec = serde_json::from_value(serde_json::json!({"selector": selector})).unwrap();
        at_nodes(&translate(&NamespacedName::new(namespace, "p"), &spec, "ambit-system")).unwrap().scope
    };
    let labels = serde_json::json!({"matchLabels": {"app": "a"}});
    assert_eq!(scope("shop", labels.clone()), Scope::WorkloadSelector);
    assert_eq!(scope("ambit-system", labels), Scope::WorkloadSelector);
    assert_eq!(scope("shop", serde_json::json!({})), Scope::Namespace);
    assert_eq!(scope("ambit-system", serde_json::Value::Null), Scope::Global);
}
