//! Every field that a node and a waypoint evaluate, by kind of match, for a present value, an
//! absent value and several values. The table follows Istio's reference (AuthorizationPolicy,
//! "Authorization Policy Conditions").

use super::*;

/// A field with a pattern, and whether it holds.
type Field = (&'static str, fn(StringMatch, bool) -> Match);

/// Sets these values in a token.
type Fill = fn(&mut Token, Vec<Arc<str>>);

fn asked(positive: bool, value: StringMatch) -> (Vec<StringMatch>, Vec<StringMatch>) {
    if positive { (vec![value], vec![]) } else { (vec![], vec![value]) }
}

fn namespaces(value: StringMatch, positive: bool) -> Match {
    let (namespaces, not_namespaces) = asked(positive, value);
    Match { namespaces, not_namespaces, ..Match::default() }
}

fn trust_domains(value: StringMatch, positive: bool) -> Match {
    let (trust_domains, not_trust_domains) = asked(positive, value);
    Match { trust_domains, not_trust_domains, ..Match::default() }
}

fn principals(value: StringMatch, positive: bool) -> Match {
    let (principals, not_principals) = asked(positive, value);
    Match { principals, not_principals, ..Match::default() }
}

fn client(id: &str) -> Connection {
    Connection { source: id.parse().ok(), ..connection() }
}

const L4: [Field; 3] =
    [("namespaces", namespaces), ("trustDomains", trust_domains), ("principals", principals)];

#[test]
fn identity_is_compared_by_every_kind_of_match_and_its_absence_meets_only_negations() {
    let here = client("spiffe://one.example/ns/shop/sa/web");
    let nobody = plaintext();
    // Field, match, and whether it holds for the client.
    let table = [
        ("namespaces", exact("shop"), true),
        ("namespaces", exact("sho"), false),
        ("namespaces", prefix("sh"), true),
        ("namespaces", prefix("op"), false),
        ("namespaces", suffix("op"), true),
        ("namespaces", suffix("sh"), false),
        ("namespaces", StringMatch::Presence, true),
        ("trustDomains", exact("one.example"), true),
        ("trustDomains", exact("one"), false),
        ("trustDomains", exact("one.example/ns/shop"), false),
        ("trustDomains", prefix("one."), true),
        ("trustDomains", prefix("one.example/"), false),
        ("trustDomains", suffix(".example"), true),
        ("trustDomains", suffix("web"), false),
        ("trustDomains", StringMatch::Presence, true),
        ("principals", exact("one.example/ns/shop/sa/web"), true),
        ("principals", prefix("one.example/ns/"), true),
        ("principals", suffix("/sa/web"), true),
        ("principals", suffix("/sa/eb"), false),
        ("principals", StringMatch::Presence, true),
    ];
    for (field, value, holds) in table {
        let of = L4.iter().find(|(name, _)| *name == field).unwrap().1;
        for action in [Action::Allow, Action::Deny, Action::Audit] {
            let is_met = |positive, connection: &Connection| {
                let found = of(value.clone(), positive);
                policy(action, "p", rules(vec![vec![vec![found]]])).matches(connection)
            };
            assert_eq!(is_met(true, &here), holds, "{field} {value:?}");
            assert_eq!(is_met(false, &here), !holds, "not {field} {value:?}");
            assert!(!is_met(true, &nobody) && is_met(false, &nobody), "{field} {value:?} of nobody");
        }
    }
}

/// `<issuer>/<subject>` is split at the last `/`.
#[test]
fn a_request_principal_is_compared_part_by_part() {
    let idp = || Token { issuer: "https://idp".into(), subject: "ann".into(), ..Token::default() };
    let nested = || Token { issuer: "https://idp/eu".into(), ..idp() };
    let mail = || Token { subject: "ann@idp/x".into(), ..idp() };
    // Match, and whether it holds for each token.
    let table = [
        (exact("https://idp/ann"), [true, false, false]),
        (exact("https://idp/eu/ann"), [false, true, false]),
        (exact("https://idp"), [false, false, false]),
        (prefix("https://idp/"), [true, false, true]),
        (prefix("https://idp/an"), [true, false, true]),
        (prefix("https://idp/eu/"), [false, true, false]),
        (prefix("https:"), [true, true, true]),
        (prefix("http/"), [false, false, false]),
        (suffix("/ann"), [true, true, false]),
        (suffix("idp/ann"), [true, false, false]),
        (suffix("/eu/ann"), [false, true, false]),
        (suffix("nn"), [true, true, false]),
        (suffix("/nn"), [false, false, false]),
        (StringMatch::Presence, [true, true, true]),
    ];
    for (value, expected) in table {
        for (token, expected) in [idp(), nested(), mail()].into_iter().zip(expected) {
            let request = RequestMatch { principals: vec![value.clone()], ..RequestMatch::default() };
            let asks = Match { request: Some(Box::new(request)), ..Match::default() };
            assert_eq!(of_token(&asks, Some(&token)), expected, "{value:?} {token:?}");
            assert!(!of_token(&asks, None), "{value:?} without token");
            let unnamed = Token { subject: "".into(), ..token };
            assert!(!of_token(&asks, Some(&unnamed)), "{value:?} without subject");
        }
    }
}

#[test]
fn lists_of_a_token_are_sets_and_presence_wants_a_text_that_is_not_empty() {
    let set = |values: &[&str]| -> Vec<Arc<str>> { values.iter().map(|value| (*value).into()).collect() };
    let fill: [(Attribute, Fill); 3] = [
        (Attribute::Presenter, |token, values| token.presenters = values),
        (Attribute::Audiences, |token, values| token.audiences = values),
        (Attribute::Claim(vec!["g".into()]), |token, values| {
            drop(token.claims.insert(vec!["g".into()], values))
        }),
    ];
    let table = [
        (exact("a"), set(&["a"]), true),
        (exact("a"), set(&["b", "a"]), true),
        (exact("a"), set(&["b"]), false),
        (prefix("a"), set(&["b", "ab"]), true),
        (suffix("a"), set(&["b", "ba"]), true),
        (StringMatch::Presence, set(&["a"]), true),
        (StringMatch::Presence, set(&[""]), false),
        (StringMatch::Presence, set(&["", "a"]), true),
        (StringMatch::Presence, set(&[]), false),
        (exact("a"), set(&[]), false),
    ];
    for (attribute, put) in fill {
        for (value, values, expected) in table.clone() {
            let mut token = Token::default();
            put(&mut token, values.clone());
            let asks = |values, not_values| {
                let attributes = vec![AttributeMatch { attribute: attribute.clone(), values, not_values }];
                let request = RequestMatch { attributes, ..RequestMatch::default() };
                Match { request: Some(Box::new(request)), ..Match::default() }
            };
            let (is, is_not) = (asks(vec![value.clone()], vec![]), asks(vec![], vec![value.clone()]));
            assert_eq!(of_token(&is, Some(&token)), expected, "{attribute:?} {value:?} {values:?}");
            assert_eq!(of_token(&is_not, Some(&token)), !expected, "not {attribute:?} {value:?} {values:?}");
        }
    }
}

fn of_token(asks: &Match, token: Option<&Token>) -> bool {
    of_request(asks, Action::Allow, "shop.example", &[], token)
}

fn of_request(
    asks: &Match,
    action: Action,
    host: &str,
    headers: &[&'static str],
    token: Option<&Token>,
) -> bool {
    let headers = requests::Fields(headers.iter().map(|value| ("x", *value)).collect());
    let remote_ip = connection().source_ip;
    let request = Request { host, method: "GET", path: "/", headers: &headers, token, remote_ip, sni: None };
    policy(action, "p", rules(vec![vec![vec![asks.clone()]]])).matches_request(&connection(), &request)
}

#[test]
fn one_member_of_a_list_header_is_enough_and_the_authority_is_a_host() {
    let asks = |attribute: Attribute, positive, value| {
        let (values, not_values) = asked(positive, value);
        let attributes = vec![AttributeMatch { attribute, values, not_values }];
        Match {
            request: Some(Box::new(RequestMatch { attributes, ..RequestMatch::default() })),
            ..Match::default()
        }
    };
    let members: [(StringMatch, &[&'static str], bool); 7] = [
        (exact("b"), &["a,b"], true),
        (exact("b"), &["a, b"], true),
        (exact("b"), &["a", "c ,b"], true),
        (exact("b"), &["a,bc"], false),
        (exact("b"), &[], false),
        (prefix("b"), &["a,bc"], true),
        (StringMatch::Presence, &["a"], true),
    ];
    for (value, headers, expected) in members {
        let of = |positive| asks(Attribute::HeaderMembers("x".into()), positive, value.clone());
        for action in [Action::Allow, Action::Deny] {
            assert_eq!(of_request(&of(true), action, "h", headers, None), expected, "{value:?} {headers:?}");
            assert_eq!(
                of_request(&of(false), action, "h", headers, None),
                !expected,
                "{value:?} {headers:?}"
            );
        }
    }
    // The results for ALLOW and DENY: the literal text decides, and a host that is merely
    // equivalent is in doubt.
    let authorities = [
        ("server", "server", true, true),
        ("server", "server:80", false, true),
        ("server:80", "server:80", true, true),
        ("server", "SERVER", false, true),
        ("server", "other", false, false),
        ("server", "", false, true),
        ("server", "a@server", false, true),
    ];
    for (value, host, allows, denies) in authorities {
        let asks = asks(Attribute::Authority, true, exact(value));
        assert_eq!(of_request(&asks, Action::Allow, host, &[], None), allows, "{value} {host}");
        assert_eq!(of_request(&asks, Action::Deny, host, &[], None), denies, "{value} {host}");
    }
}

prop_compose! {
    /// A rule whose alternatives have L4 conditions, L7 conditions, or both.
    fn a_mixed_rule()(
        clauses in vec(vec((a_match(), any::<bool>()), 0..3), 0..4),
    ) -> Rule {
        let get = || RequestMatch { methods: vec![exact("GET")], ..RequestMatch::default() };
        let with = |(m, asks): (Match, bool)| Match { request: asks.then(|| Box::new(get())), ..m };
        let clause = |matches: Vec<_>| Clause { matches: matches.into_iter().map(with).collect() };
        Rule { clauses: clauses.into_iter().map(clause).collect() }
    }
}

/// Every choice of one alternative for each clause.
fn combinations(rule: &Rule) -> Vec<Vec<Match>> {
    let clauses = rule.clauses.iter().filter(|clause| !clause.matches.is_empty());
    clauses.fold(vec![vec![]], |all, clause| {
        let one_more = |chosen: Vec<Match>| {
            clause.matches.iter().map(move |m| chosen.iter().cloned().chain([m.clone()]).collect())
        };
        all.into_iter().flat_map(one_more).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A node denies every combination that matches the connection, whatever its L7 conditions.
    #[test]
    fn a_node_denies_by_every_combination_that_is_not_l7_alone(
        rule in a_mixed_rule(), connection in a_connection(),
    ) {
        let l4 = |m: &Match| Match { request: None, ..m.clone() };
        let denies = combinations(&rule).iter().any(|chosen| {
            let says: Vec<Match> = chosen.iter().filter(|m| !m.is_l7() || !l4(m).is_empty()).map(l4).collect();
            let is_l7_alone = says.is_empty() && !chosen.is_empty();
            let clauses = says.into_iter().map(|m| Clause { matches: vec![m] }).collect();
            !is_l7_alone && policy(Action::Deny, "p", vec![Rule { clauses }]).matches(&connection)
        });
        let left = rule.deny_at_node();
        prop_assert!(!left.iter().any(Rule::is_l7));
        prop_assert_eq!(policy(Action::Deny, "p", left).matches(&connection), denies);
    }
}
