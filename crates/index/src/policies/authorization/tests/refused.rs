//! Unknown or invalid parts never widen a policy, and only refuse what the policy could have
//! decided.

use serde_json::{Value, json};

use super::*;

/// Rules with an unknown field, and the prefix of its path in messages.
fn unknown() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({"from": [{"source": {"namespaces": ["a"], "clusters": ["b"]}}]}),
            "spec.rules[0].from[0].source.clusters",
        ),
        (json!({"from": [{"source": {"namespaces": ["a"]}, "unless": {}}]}), "spec.rules[0].from[0].unless"),
        (
            json!({"to": [{"operation": {"ports": ["80"], "queries": ["b"]}}]}),
            "spec.rules[0].to[0].operation.queries",
        ),
        (json!({"to": [{"operation": {"ports": ["80"]}, "unless": {}}]}), "spec.rules[0].to[0].unless"),
        (
            json!({"when": [{"key": "source.ip", "values": ["10.0.0.1"], "op": "x"}]}),
            "spec.rules[0].when[0].op",
        ),
        (json!({"unless": []}), "spec.rules[0].unless"),
        (
            json!({"when": [{"key": "source.cluster", "values": ["b"]}]}),
            "spec.rules[0].when[0].key \"source.cluster\"",
        ),
        (
            json!({"when": [{"key": "experimental.envoy.filters.a[b]", "values": ["c"]}]}),
            "spec.rules[0].when[0].key \"experimental.envoy.filters.a[b]\"",
        ),
    ]
}

#[test]
fn an_unknown_field_refuses_the_policy_and_everything_it_selects() {
    for (rule, path) in unknown() {
        for action in ["ALLOW", "DENY"] {
            let found = translated(action, json!([rule, {"to": [{"operation": {"ports": ["80"]}}]}]));
            assert_eq!(status(&found), (Holds::False, reason::INVALID), "{rule}");
            assert!(judged(&found).message.starts_with(path), "{}", judged(&found).message);
            let policy = at_nodes(&found).unwrap();
            assert_eq!((policy.action, policy.rules), (Action::Deny, vec![Rule::default()]), "{rule}");

            let found = attached(action, json!([rule]));
            assert!(found.content.as_ref().is_err_and(|why| why.starts_with(path)), "{rule}");
            assert_eq!(found.targets.len(), 1, "its target refuses everything");
        }
        let found = attached("AUDIT", json!([rule]));
        assert_eq!((found.content.is_err(), found.targets.len()), (true, 0), "an AUDIT closes nothing");
        let judgement = found.judge(|_| Reach::NotFound);
        assert!(judgement.message.ends_with("it is not enforced"), "{judgement:?}");
        assert_eq!(at_nodes(&translated("AUDIT", json!([rule]))), None);

        let target = json!([{"kind": "Service", "name": "a"}]);
        let trial = |spec: Value| read(&object(json!({"istio.io/dry-run": "1"}), spec), &roots());
        let at_node = trial(json!({"action": "DENY", "rules": [rule]}));
        assert!(at_node.content.ztunnel().unwrap().dry_run, "a dry run closes nothing");
        let at_waypoint = trial(json!({"action": "DENY", "rules": [rule], "targetRefs": target}));
        assert_eq!(at_waypoint.content.attachment().unwrap().targets, []);
    }
}

#[test]
fn unknown_fields_beside_the_rules_refuse_too() {
    for (spec, path) in [
        (json!({"rules": [{}], "schedule": "nightly"}), "spec.schedule"),
        (
            json!({"rules": [{}], "selector": {"matchLabels": {"a": "b"}, "matchExpressions": []}}),
            "spec.selector.matchE",
        ),
    ] {
        let facts = read(&object(json!({}), spec), &roots());
        assert!(facts.judgements[0].message.starts_with(path), "{:?}", facts.judgements);
        assert_eq!(facts.content.ztunnel().unwrap().action, Action::Deny);
    }
}

#[test]
fn a_reference_that_says_more_than_is_known_closes_its_target() {
    let target = json!([{"kind": "Service", "name": "a", "sectionName": "http"}]);
    let facts = read(&object(json!({}), json!({"rules": [{}], "targetRefs": target})), &roots());
    let attachment = facts.content.attachment().unwrap();
    assert_eq!(attachment.targets.len(), 1);
    let why = attachment.content.as_ref().unwrap_err();
    assert!(why.contains("Service a.sectionName is not known"), "{why}");
}

#[test]
fn a_dry_run_is_what_go_reads_as_true() {
    let table = [("1", true), ("t", true), ("T", true), ("TRUE", true), ("true", true), ("True", true)];
    let others = ["0", "f", "false", "", "yes", "tRUE", " true"].map(|text| (text, false));
    for (text, expected) in table.into_iter().chain(others) {
        let facts = read(&object(json!({"istio.io/dry-run": text}), json!({"rules": [{}]})), &roots());
        assert_eq!(facts.content.ztunnel().unwrap().dry_run, expected, "{text:?}");
    }
}

#[test]
fn a_wildcard_where_none_is_read_is_refused_and_never_ignored() {
    for (field, value) in [
        ("namespaces", "a*b"),
        ("namespaces", "*a*"),
        ("principals", "*/ns/a/sa/*"),
        ("principals", "td/*/sa/b"),
        ("trustDomains", "a*b"),
        ("trustDomains", "a/b"),
        ("serviceAccounts", "shop/*"),
    ] {
        let rules = json!([{"from": [{"source": {field: [value]}}]}]);
        let allow = translated("ALLOW", rules.clone());
        assert_eq!(
            (status(&allow), at_nodes(&allow).unwrap().rules.len()),
            ((Holds::False, reason::INVALID), 0)
        );
        let deny = translated("DENY", rules.clone());
        assert_eq!(at_nodes(&deny).unwrap().rules, [Rule::default()], "{field} {value}");
        assert!(attached("DENY", rules).content.is_err());
    }
    let spec = json!({"selector": {"matchLabels": {"app": "a*"}}, "rules": [{}]});
    let judgement = read(&object(json!({}), spec), &roots()).judgements.remove(0);
    assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::INVALID));
    assert!(judgement.message.contains("app=a* contains a *"), "{judgement:?}");
}
