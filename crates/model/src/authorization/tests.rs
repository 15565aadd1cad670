//! Tables for nesting, string patterns and order, and a naive evaluator as a reference.

use std::{net::IpAddr, sync::Arc};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

mod fields;
mod remote;
mod requests;

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

fn id(text: &str) -> Option<Spiffe> {
    Some(text.parse().unwrap())
}

/// A client of namespace `shop`, account `web`, that connects to port 80.
fn connection() -> Connection {
    Connection {
        source: id("spiffe://td/ns/shop/sa/web"),
        source_ip: "10.0.1.2".parse().unwrap(),
        destination_ip: "10.0.2.3".parse().unwrap(),
        destination_port: 80,
    }
}

fn plaintext() -> Connection {
    Connection { source: None, ..connection() }
}

fn policy(action: Action, name: &str, rules: Vec<Rule>) -> Policy {
    Policy { key: NamespacedName::new("ns", name), scope: Scope::Namespace, action, rules, dry_run: false }
}

/// Builds rules from clauses of matches.
fn rules(rules: Vec<Vec<Vec<Match>>>) -> Vec<Rule> {
    let clause = |matches| Clause { matches };
    rules.into_iter().map(|clauses| Rule { clauses: clauses.into_iter().map(clause).collect() }).collect()
}

fn one(m: Match) -> Policy {
    policy(Action::Allow, "p", rules(vec![vec![vec![m]]]))
}

fn port(port: u16) -> Match {
    Match { destination_ports: vec![port], ..Match::default() }
}

fn namespace(name: &str) -> Match {
    Match { namespaces: vec![exact(name)], ..Match::default() }
}

#[test]
fn rules_are_alternatives_clauses_add_up_and_matches_are_alternatives() {
    let table = [
        ("no rule", vec![], false),
        ("a rule without clauses", vec![vec![]], true),
        ("a clause without matches", vec![vec![vec![]]], true),
        ("a clause of an empty match", vec![vec![vec![Match::default()]]], false),
        ("an empty match beside one that holds", vec![vec![vec![Match::default(), port(80)]]], true),
        ("an empty match in one clause of two", vec![vec![vec![Match::default()], vec![port(80)]]], false),
        ("one rule of two", vec![vec![vec![port(1)]], vec![vec![port(80)]]], true),
        ("one clause of two", vec![vec![vec![port(80)], vec![namespace("other")]]], false),
        ("both clauses", vec![vec![vec![port(80)], vec![namespace("shop")]]], true),
        ("one match of two", vec![vec![vec![port(1), port(80)]]], true),
        ("no match of two", vec![vec![vec![port(1), namespace("other")]]], false),
    ];
    for (name, given, expected) in table {
        assert_eq!(policy(Action::Allow, "p", rules(given)).matches(&connection()), expected, "{name}");
    }
}

#[test]
fn a_principal_is_compared_as_the_whole_identity_without_its_scheme() {
    let table = [
        (exact("td/ns/shop/sa/web"), true),
        (exact("td/ns/shop/sa/we"), false),
        (exact("td/ns/shop/sa/webb"), false),
        (exact("spiffe://td/ns/shop/sa/web"), false),
        (prefix("td/ns/shop/"), true),
        (prefix("td/ns/shop/sa/web"), true),
        (prefix("td/ns/shop/sa/web2"), false),
        (prefix("td/ns/shopp"), false),
        (suffix("/sa/web"), true),
        (suffix("shop/sa/web"), true),
        (suffix("td/ns/shop/sa/web"), true),
        (suffix("xtd/ns/shop/sa/web"), false),
        (suffix("/sa/we"), false),
        (StringMatch::Presence, true),
    ];
    for (given, expected) in table {
        let positive = one(Match { principals: vec![given.clone()], ..Match::default() });
        let negative = one(Match { not_principals: vec![given.clone()], ..Match::default() });
        assert_eq!(positive.matches(&connection()), expected, "{given:?}");
        assert_eq!(negative.matches(&connection()), !expected, "not {given:?}");
        assert!(!positive.matches(&plaintext()), "plaintext {given:?}");
        assert!(negative.matches(&plaintext()), "plaintext, not {given:?}");
    }
}

#[test]
fn types_of_a_match_add_up_and_negated_values_exclude() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let account = |namespace: &str, name: &str| NamespacedName::new(namespace, name);
    let m = Match::default;
    let table = [
        ("namespace", namespace("shop"), true),
        ("other namespace", namespace("sho"), false),
        ("not namespace", Match { not_namespaces: vec![exact("shop")], ..m() }, false),
        ("account", Match { service_accounts: vec![account("shop", "web")], ..m() }, true),
        ("account of another namespace", Match { service_accounts: vec![account("x", "web")], ..m() }, false),
        ("not account", Match { not_service_accounts: vec![account("shop", "web")], ..m() }, false),
        ("source", Match { source_ips: vec![net("10.0.1.0/24")], ..m() }, true),
        ("other source", Match { source_ips: vec![net("10.0.2.0/24")], ..m() }, false),
        ("not source", Match { not_source_ips: vec![net("10.0.1.2/32")], ..m() }, false),
        ("destination", Match { destination_ips: vec![net("10.0.2.3/32")], ..m() }, true),
        ("not destination", Match { not_destination_ips: vec![net("0.0.0.0/0")], ..m() }, false),
        ("ipv6 network", Match { source_ips: vec![net("::/0")], ..m() }, false),
        ("port", port(80), true),
        ("hbone port", port(15_008), false),
        ("not port", Match { not_destination_ports: vec![80], ..m() }, false),
        ("positive but excluded", Match { not_destination_ports: vec![80], ..namespace("shop") }, false),
        ("one type of two", Match { destination_ports: vec![1], ..namespace("shop") }, false),
        ("both types", Match { destination_ports: vec![80], ..namespace("shop") }, true),
    ];
    for (name, given, expected) in table {
        assert_eq!(one(given).matches(&connection()), expected, "{name}");
    }
    let mapped = Connection { source_ip: "::ffff:10.0.1.2".parse().unwrap(), ..connection() };
    assert!(one(Match { source_ips: vec![net("10.0.1.0/24")], ..m() }).matches(&mapped));
}

#[test]
fn strict_refuses_plaintext_but_for_the_ports_it_excepts() {
    let strict = Match { not_principals: vec![StringMatch::Presence], ..Match::default() };
    let static_strict = policy(Action::Deny, "strict", rules(vec![vec![vec![strict.clone()]]]));
    let not_81 = Match { not_destination_ports: vec![81], ..Match::default() };
    let but_81 = policy(Action::Deny, "but-81", rules(vec![vec![vec![not_81], vec![strict]]]));
    assert!(static_strict.matches(&plaintext()) && !static_strict.matches(&connection()));
    assert!(but_81.matches(&plaintext()));
    assert!(!but_81.matches(&Connection { destination_port: 81, ..plaintext() }));
}

fn known(policy: Policy) -> Applied {
    Applied::Known(Arc::new(policy))
}

fn hit(action: Action, name: &str) -> Applied {
    known(policy(action, name, rules(vec![vec![]])))
}

fn miss(action: Action, name: &str) -> Applied {
    known(policy(action, name, vec![]))
}

fn key(name: &str) -> NamespacedName {
    NamespacedName::new("ns", name)
}

#[test]
fn deny_comes_before_allow_and_what_is_not_known_allows_nothing() {
    use Action::{Allow, Deny};
    let table = [
        ("nothing", vec![], Verdict::AllowedByDefault),
        ("deny misses", vec![miss(Deny, "d")], Verdict::AllowedByDefault),
        ("deny hits", vec![hit(Allow, "a"), hit(Deny, "d")], Verdict::DeniedBy(key("d"))),
        ("allow hits", vec![miss(Allow, "a"), hit(Allow, "b")], Verdict::AllowedBy(key("b"))),
        ("allow misses", vec![miss(Allow, "a"), miss(Deny, "d")], Verdict::NotAllowed),
        ("unknown", vec![hit(Allow, "a"), Applied::Unknown(key("u"))], Verdict::UnknownPolicy(key("u"))),
        ("unreadable", vec![Applied::Unreadable(key("u"))], Verdict::UnreadablePolicy(key("u"))),
        (
            "deny names itself before unknown",
            vec![Applied::Unknown(key("u")), hit(Deny, "d")],
            Verdict::DeniedBy(key("d")),
        ),
    ];
    for (name, applied, expected) in table {
        let set = PolicySet::new(applied);
        let verdict = set.evaluate(&connection());
        assert_eq!(verdict, expected, "{name}");
        assert_eq!(
            verdict.is_allowed(),
            matches!(expected, Verdict::AllowedByDefault | Verdict::AllowedBy(_)),
            "{name}"
        );
        assert_eq!(set.rehearse(&connection()), None, "{name}");
    }
    assert_eq!(PolicySet::not_received().evaluate(&connection()), Verdict::PoliciesNotReceived);
}

#[test]
fn a_dry_run_policy_is_judged_and_not_enforced() {
    let dry = |action, name, rules| known(Policy { dry_run: true, ..policy(action, name, rules) });
    let all = || rules(vec![vec![]]);
    let deny = PolicySet::new([dry(Action::Deny, "d", all()), hit(Action::Allow, "a")]);
    assert_eq!(deny.evaluate(&connection()), Verdict::AllowedBy(key("a")));
    assert_eq!(deny.rehearse(&connection()), Some(Verdict::DeniedBy(key("d"))));
    let allow = PolicySet::new([dry(Action::Allow, "a", vec![])]);
    assert_eq!(allow.evaluate(&connection()), Verdict::AllowedByDefault);
    assert_eq!(allow.rehearse(&connection()), Some(Verdict::NotAllowed));
}

#[test]
fn sets_are_the_same_only_when_they_hold_the_same_policies() {
    let (a, b) = (
        Arc::new(policy(Action::Deny, "p", vec![])),
        Arc::new(policy(Action::Deny, "p", rules(vec![vec![]]))),
    );
    let of = |policy: &Arc<Policy>| PolicySet::new([Applied::Known(policy.clone())]);
    assert!(of(&a).is_same(&of(&a)));
    assert!(!of(&a).is_same(&of(&b)));
    assert!(!of(&a).is_same(&PolicySet::new([Applied::Known(a.clone()), Applied::Unknown(key("u"))])));
    let dry = Arc::new(Policy { dry_run: true, ..Policy::clone(&a) });
    assert!(!PolicySet::new([Applied::Known(dry)]).is_same(&PolicySet::default()));
}

/// The rules as documented, with strings built and no shortcuts.
mod naive {
    use super::*;

    fn string(m: &StringMatch, text: &str) -> bool {
        match m {
            StringMatch::Exact(want) => text == &**want,
            StringMatch::Prefix(want) => text.starts_with(&**want),
            StringMatch::Suffix(want) => text.ends_with(&**want),
            StringMatch::Presence => !text.is_empty(),
        }
    }

    fn both(positive: Vec<bool>, negated: Vec<bool>) -> Option<bool> {
        let said = !positive.is_empty() || !negated.is_empty();
        said.then(|| (positive.is_empty() || positive.contains(&true)) && !negated.contains(&true))
    }

    fn a_match(m: &Match, c: &Connection) -> bool {
        let namespace = c.source.as_ref().map(|id| id.namespace.to_string());
        let principal = c.source.as_ref().map(|id| id.to_string()["spiffe://".len()..].to_owned());
        let domain = c.source.as_ref().map(|id| id.trust_domain.to_string());
        let strings = |list: &[StringMatch], text: &Option<String>| -> Vec<bool> {
            list.iter().map(|m| text.as_deref().is_some_and(|text| string(m, text))).collect()
        };
        let nets =
            |list: &[IpNet], ip: IpAddr| -> Vec<bool> { list.iter().map(|n| n.contains(&ip)).collect() };
        let ports = |list: &[u16]| -> Vec<bool> { list.iter().map(|p| *p == c.destination_port).collect() };
        let accounts = |list: &[NamespacedName]| -> Vec<bool> {
            let own = c.source.as_ref().map(|id| format!("{}/{}", id.namespace, id.service_account));
            list.iter().map(|name| own == Some(name.to_string())).collect()
        };
        let types = [
            both(strings(&m.namespaces, &namespace), strings(&m.not_namespaces, &namespace)),
            both(strings(&m.principals, &principal), strings(&m.not_principals, &principal)),
            both(strings(&m.trust_domains, &domain), strings(&m.not_trust_domains, &domain)),
            both(nets(&m.source_ips, c.source_ip), nets(&m.not_source_ips, c.source_ip)),
            both(nets(&m.destination_ips, c.destination_ip), nets(&m.not_destination_ips, c.destination_ip)),
            both(ports(&m.destination_ports), ports(&m.not_destination_ports)),
            both(accounts(&m.service_accounts), accounts(&m.not_service_accounts)),
        ];
        let said: Vec<bool> = types.into_iter().flatten().collect();
        !said.is_empty() && !said.contains(&false)
    }

    fn policy(policy: &Policy, c: &Connection) -> bool {
        let mut result = false;
        for rule in &policy.rules {
            let mut all = true;
            for clause in &rule.clauses {
                let any = clause.matches.iter().map(|m| a_match(m, c)).max();
                all &= any.unwrap_or(true);
            }
            result |= all;
        }
        result
    }

    pub(super) fn allowed(policies: &[Policy], c: &Connection) -> bool {
        let of = |action| policies.iter().filter(move |p| p.action == action && !p.dry_run);
        let denied = of(Action::Deny).any(|p| policy(p, c));
        let allows = of(Action::Allow).count();
        !denied && (allows == 0 || of(Action::Allow).any(|p| policy(p, c)))
    }
}

fn word() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "ab", "a-b"])
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    let pattern =
        select(vec!["a", "b", "ab", "a/ns/b/sa/ab", "a/ns/b/", "/sa/a", "b/sa/a", "a/ns/a", "-b", "ns"]);
    prop_oneof![
        pattern.clone().prop_map(exact),
        pattern.clone().prop_map(prefix),
        pattern.prop_map(suffix),
        Just(StringMatch::Presence),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    select(vec!["10.0.0.0/8", "10.0.0.1/32", "10.0.0.2/31", "0.0.0.0/0", "fd00::/8", "::/0"])
        .prop_map(|text| text.parse().unwrap())
}

fn ip() -> impl Strategy<Value = IpAddr> {
    select(vec!["10.0.0.1", "10.0.0.2", "11.0.0.1", "fd00::1", "fe80::1"])
        .prop_map(|text| text.parse().unwrap())
}

prop_compose! {
    fn a_match()(
        strings in proptest::array::uniform6(vec(string_match(), 0..2)),
        nets in proptest::array::uniform4(vec(net(), 0..2)),
        ports in proptest::array::uniform2(vec(80..82_u16, 0..2)),
        accounts in proptest::array::uniform2(vec(
            (word(), word()).prop_map(|(namespace, name)| NamespacedName::new(namespace, name)), 0..2)),
        // Most fields are empty, or nothing would ever match.
        kept in proptest::array::uniform14(proptest::bool::weighted(0.2)),
    ) -> Match {
        let keep = |list: &Vec<StringMatch>, i: usize| if kept[i] { list.clone() } else { vec![] };
        let keep_nets = |list: &Vec<IpNet>, i: usize| if kept[i] { list.clone() } else { vec![] };
        let keep_ports = |list: &Vec<u16>, i: usize| if kept[i] { list.clone() } else { vec![] };
        let keep_accounts = |list: &Vec<NamespacedName>, i: usize| if kept[i] { list.clone() } else { vec![] };
        Match {
            namespaces: keep(&strings[0], 0),
            not_namespaces: keep(&strings[1], 1),
            principals: keep(&strings[2], 2),
            not_principals: keep(&strings[3], 3),
            trust_domains: keep(&strings[4], 12),
            not_trust_domains: keep(&strings[5], 13),
            source_ips: keep_nets(&nets[0], 4),
            not_source_ips: keep_nets(&nets[1], 5),
            destination_ips: keep_nets(&nets[2], 6),
            not_destination_ips: keep_nets(&nets[3], 7),
            destination_ports: keep_ports(&ports[0], 8),
            not_destination_ports: keep_ports(&ports[1], 9),
            service_accounts: keep_accounts(&accounts[0], 10),
            not_service_accounts: keep_accounts(&accounts[1], 11),
            request: None,
        }
    }
}

prop_compose! {
    fn a_policy()(
        action in select(vec![Action::Allow, Action::Deny]),
        nested in vec(vec(vec(a_match(), 0..3), 0..3), 0..3),
        dry_run in proptest::bool::weighted(0.2),
    ) -> Policy {
        Policy { dry_run, ..policy(action, "p", rules(nested)) }
    }
}

prop_compose! {
    fn a_connection()(
        source in option::of((word(), word(), word())),
        source_ip in ip(),
        destination_ip in ip(),
        destination_port in 80..82_u16,
    ) -> Connection {
        let source = source.map(|(td, ns, sa)| Spiffe {
            trust_domain: td.into(), namespace: ns.into(), service_account: sa.into(),
        });
        Connection { source, source_ip, destination_ip, destination_port }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn agrees_with_a_naive_evaluator(policies in vec(a_policy(), 0..4), connection in a_connection()) {
        let set = PolicySet::new(policies.iter().cloned().map(known));
        prop_assert_eq!(set.evaluate(&connection).is_allowed(), naive::allowed(&policies, &connection));
        let enforced: Vec<Policy> =
            policies.iter().map(|policy| Policy { dry_run: false, ..policy.clone() }).collect();
        if let Some(verdict) = set.rehearse(&connection) {
            prop_assert_eq!(verdict.is_allowed(), naive::allowed(&enforced, &connection));
        }
    }

    #[test]
    fn an_unknown_policy_never_allows(policies in vec(a_policy(), 0..4), connection in a_connection()) {
        let applied = policies.into_iter().map(known).chain([Applied::Unknown(key("u"))]);
        prop_assert!(!PolicySet::new(applied).evaluate(&connection).is_allowed());
    }
}
