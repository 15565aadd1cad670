//! Properties that keep both layers and all readings consistent.

use super::*;

fn l7_string() -> impl Strategy<Value = StringMatch> {
    let text = select(vec!["a", "A", "b", "a.b", "a/b", "b:80", "GET"]);
    prop_oneof![
        text.clone().prop_map(exact),
        text.clone().prop_map(prefix),
        text.prop_map(suffix),
        Just(StringMatch::Presence),
    ]
}

fn l7_path() -> impl Strategy<Value = PathPattern> {
    select(vec!["/a", "/a*", "*b", "/a/{*}", "/a/{**}", "/{*}/b", "*", "/a/b"]).prop_map(path)
}

fn an_attribute() -> impl Strategy<Value = AttributeMatch> {
    let name = prop_oneof![
        Just(Attribute::Header("x".into())),
        Just(Attribute::Header("y".into())),
        Just(Attribute::Presenter),
        Just(Attribute::Audiences),
        Just(Attribute::Claim(vec!["a".into()])),
        Just(Attribute::Sni),
    ];
    (name, vec(l7_string(), 0..2), vec(l7_string(), 0..2))
        .prop_map(|(attribute, values, not_values)| AttributeMatch { attribute, values, not_values })
}

prop_compose! {
    fn a_request_match()(
        strings in proptest::array::uniform6(vec(l7_string(), 0..2)),
        paths in proptest::array::uniform2(vec(l7_path(), 0..2)),
        nets in proptest::array::uniform2(vec(net(), 0..2)),
        attributes in vec(an_attribute(), 0..2),
        kept in proptest::array::uniform11(proptest::bool::weighted(0.25)),
    ) -> RequestMatch {
        let keep = |i: usize| if kept[i] { strings[i].clone() } else { vec![] };
        let keep_paths = |i: usize| if kept[6 + i] { paths[i].clone() } else { vec![] };
        let keep_nets = |i: usize| if kept[8 + i] { nets[i].clone() } else { vec![] };
        RequestMatch {
            hosts: keep(0),
            not_hosts: keep(1),
            methods: keep(2),
            not_methods: keep(3),
            principals: keep(4),
            not_principals: keep(5),
            paths: keep_paths(0),
            not_paths: keep_paths(1),
            remote_ips: keep_nets(0),
            not_remote_ips: keep_nets(1),
            trusted_proxies: None,
            attributes: if kept[10] { attributes } else { vec![] },
        }
    }
}

prop_compose! {
    fn a_whole_policy()(
        action in select(vec![Action::Allow, Action::Deny, Action::Audit]),
        nested in vec(vec(vec((a_match(), option::of(a_request_match())), 0..3), 0..3), 0..3),
    ) -> Policy {
        let with = |(m, request): (Match, Option<RequestMatch>)| Match { request: request.map(Box::new), ..m };
        let clause = |matches: Vec<_>| matches.into_iter().map(with).collect();
        let clauses = |clauses: Vec<Vec<_>>| clauses.into_iter().map(clause).collect();
        policy(action, "p", rules(nested.into_iter().map(clauses).collect()))
    }
}

prop_compose! {
    fn a_sent()(
        host in select(vec!["a", "A.b:80", "b:80", "", "a@b", "[::1]:80"]),
        method in select(vec!["GET", "a"]),
        path in select(vec!["/a", "/a/b", "//a", "/a//b", "/a%2Fb", "/b/../a", "/%", "*", "/a\\b"]),
        headers in vec((select(vec!["x", "y"]), select(vec!["a", "b", ""])), 0..4),
        has_token: bool,
        remote_ip in ip(),
        sni in option::of(select(vec!["a", "a.b"])),
    ) -> Sent {
        let token = has_token.then(|| Token {
            issuer: "a".into(),
            subject: "b".into(),
            presenters: vec!["a".into()],
            audiences: vec!["a".into(), "b".into()],
            claims: [(vec!["a".into()], vec!["a".into(), "a.b".into()])].into(),
        });
        Sent { host, method, path, headers, token, remote_ip, sni }
    }
}

fn set(policies: &[Policy]) -> PolicySet {
    PolicySet::new(policies.iter().cloned().map(known))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Design guarantee: L4 enforcement is never weaker than the policy as written.
    #[test]
    fn what_the_projection_allows_the_whole_allows(
        policies in vec(a_whole_policy(), 0..4), connection in a_connection(), sent in a_sent(),
    ) {
        let l4: Vec<Policy> = policies.iter().filter_map(Policy::l4).collect();
        prop_assert!(!l4.iter().any(Policy::is_l7));
        let whole = set(&policies);
        if set(&l4).evaluate(&connection).is_allowed() {
            prop_assert!(sent.is_allowed_by(&whole, &connection));
        }
    }

    #[test]
    fn a_connection_is_judged_by_the_whole_as_by_the_projection(
        policies in vec(a_whole_policy(), 0..4), connection in a_connection(),
    ) {
        let l4: Vec<Policy> = policies.iter().filter_map(Policy::l4).collect();
        prop_assert_eq!(set(&policies).evaluate(&connection), set(&l4).evaluate(&connection));
    }

    /// Sending a header twice gains a client nothing.
    #[test]
    fn what_is_allowed_with_several_values_is_allowed_with_each(
        policies in vec(a_whole_policy(), 0..4), connection in a_connection(), sent in a_sent(),
    ) {
        let whole = set(&policies);
        if sent.is_allowed_by(&whole, &connection) {
            for kept in sent.headers.iter().filter(|(name, _)| *name == "x") {
                let others = sent.headers.iter().filter(|(name, _)| *name != "x");
                let headers = others.chain([kept]).copied().collect();
                let single = Sent { headers, ..sent.clone() };
                prop_assert!(single.is_allowed_by(&whole, &connection));
            }
        }
    }

    /// Neither does a path that servers may interpret differently.
    #[test]
    fn what_is_allowed_under_an_odd_path_is_allowed_under_the_plain_one(
        policies in vec(a_whole_policy(), 0..4), connection in a_connection(), sent in a_sent(),
        (odd, plain) in select(vec![
            ("//a", "/a"), ("/a//b", "/a/b"), ("/a%2Fb", "/a/b"), ("/a%5cb", "/a/b"), ("/x%2F..%2Fa", "/a"),
            ("/b/../a", "/a"), ("/%61", "/a"), ("/a\\b", "/a/b"), ("/a;x=1/b", "/a/b"), ("/x/..;/a", "/a"),
            ("/x//..%2F..%2Fa", "/a"), ("/x%5C..%2Fa", "/a"), ("/a%3Bx/b", "/a/b"),
        ]),
    ) {
        let whole = set(&policies);
        if (Sent { path: odd, ..sent.clone() }).is_allowed_by(&whole, &connection) {
            let sent = Sent { path: plain, ..sent };
            prop_assert!(sent.is_allowed_by(&whole, &connection));
        }
    }
}
