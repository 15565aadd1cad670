//! Tables of what a request can be asked, and the properties that keep the two layers and all readings in step.

use super::*;

struct Fields(Vec<(&'static str, &'static str)>);

impl Headers for Fields {
    fn each(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        self.0.iter().filter(|(own, _)| *own == name).for_each(|(_, value)| visit(value.as_bytes()));
    }
}

/// What a request is made of, owned.
#[derive(Clone, Debug)]
struct Sent {
    host: &'static str,
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    token: Option<Token>,
    remote_ip: IpAddr,
    sni: Option<&'static str>,
}

impl Sent {
    fn with<T>(&self, judge: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers = Fields(self.headers.clone());
        judge(&Request {
            host: self.host,
            method: self.method,
            path: self.path,
            headers: &headers,
            token: self.token.as_ref(),
            remote_ip: self.remote_ip,
            sni: self.sni,
        })
    }

    fn is_matched_by(&self, policy: &Policy) -> bool {
        self.with(|request| policy.matches_request(&connection(), request))
    }

    fn is_allowed_by(&self, set: &PolicySet, connection: &Connection) -> bool {
        self.with(|request| set.judge(connection, request)).is_allowed()
    }
}

fn sent() -> Sent {
    Sent {
        host: "shop.example:8080",
        method: "GET",
        path: "/cart/7",
        headers: vec![("x-user", "ann")],
        token: Some(token()),
        remote_ip: "192.0.2.7".parse().unwrap(),
        sni: Some("shop.example"),
    }
}

fn token() -> Token {
    let claim = |path: &[&str], values: &[&str]| -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        (
            path.iter().map(|name| (*name).into()).collect(),
            values.iter().map(|value| (*value).into()).collect(),
        )
    };
    Token {
        issuer: "https://issuer.example".into(),
        subject: "ann".into(),
        presenter: Some("app".into()),
        audiences: vec!["shop".into(), "bank".into()],
        claims: [claim(&["group"], &["dev", "ops"]), claim(&["realm", "role"], &["admin"])].into(),
    }
}

fn asking(request: RequestMatch) -> Match {
    Match { request: Some(Box::new(request)), ..Match::default() }
}

fn allow(request: RequestMatch) -> Policy {
    one(asking(request))
}

fn deny(request: RequestMatch) -> Policy {
    Policy { action: Action::Deny, ..allow(request) }
}

fn path(text: &str) -> PathPattern {
    text.parse().unwrap()
}

fn attribute(attribute: Attribute, values: Vec<StringMatch>, not_values: Vec<StringMatch>) -> RequestMatch {
    RequestMatch {
        attributes: vec![AttributeMatch { attribute, values, not_values }],
        ..RequestMatch::default()
    }
}

fn header(values: &[&str], not_values: &[&str]) -> RequestMatch {
    let strings = |list: &[&str]| list.iter().map(|text| exact(text)).collect();
    attribute(Attribute::Header("x-user".into()), strings(values), strings(not_values))
}

#[test]
fn every_condition_has_an_answer_and_its_negation_the_other() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let m = RequestMatch::default;
    let claim = |names: &[&str]| Attribute::Claim(names.iter().map(|name| (*name).into()).collect());
    let named = |name: Attribute, value: StringMatch| {
        (attribute(name.clone(), vec![value.clone()], vec![]), attribute(name, vec![], vec![value]))
    };
    let both = |set: fn(&mut RequestMatch) -> (&mut Vec<StringMatch>, &mut Vec<StringMatch>),
                value: StringMatch| {
        let (mut yes, mut no) = (RequestMatch::default(), RequestMatch::default());
        set(&mut yes).0.push(value.clone());
        set(&mut no).1.push(value);
        (yes, no)
    };
    let host = |value| both(|m| (&mut m.hosts, &mut m.not_hosts), value);
    let method = |value| both(|m| (&mut m.methods, &mut m.not_methods), value);
    let principal = |value| both(|m| (&mut m.principals, &mut m.not_principals), value);
    let at = |text: &str| {
        (RequestMatch { paths: vec![path(text)], ..m() }, RequestMatch { not_paths: vec![path(text)], ..m() })
    };
    let remote = |text: &str| {
        let nets = vec![net(text)];
        (RequestMatch { remote_ips: nets.clone(), ..m() }, RequestMatch { not_remote_ips: nets, ..m() })
    };
    let table = [
        (host(exact("shop.example")), true),
        (host(exact("SHOP.Example:8080")), true),
        (host(exact("shop.example:80")), false),
        (host(suffix(".example")), true),
        (host(prefix("shop.example:")), true),
        (host(exact("hop.example")), false),
        (method(exact("GET")), true),
        (method(exact("get")), false),
        (method(StringMatch::Presence), true),
        (at("/cart/{*}"), true),
        (at("/cart"), false),
        (principal(exact("https://issuer.example/ann")), true),
        (principal(prefix("https://issuer.example/")), true),
        (principal(exact("ann")), false),
        (principal(StringMatch::Presence), true),
        (remote("192.0.2.0/24"), true),
        (remote("10.0.0.0/8"), false),
        (named(Attribute::Header("x-user".into()), exact("ann")), true),
        (named(Attribute::Header("x-user".into()), exact("Ann")), false),
        (named(Attribute::Header("x-other".into()), StringMatch::Presence), false),
        (named(Attribute::Presenter, exact("app")), true),
        (named(Attribute::Audiences, exact("bank")), true),
        (named(Attribute::Audiences, exact("ban")), false),
        (named(claim(&["group"]), exact("ops")), true),
        (named(claim(&["realm", "role"]), exact("admin")), true),
        (named(claim(&["realm"]), StringMatch::Presence), false),
        (named(claim(&["realm.role"]), exact("admin")), false),
        (named(Attribute::Sni, exact("Shop.Example")), true),
        (named(Attribute::Sni, exact("example")), false),
    ];
    for ((positive, negated), expected) in table {
        assert_eq!(sent().is_matched_by(&allow(positive.clone())), expected, "{positive:?}");
        assert_eq!(sent().is_matched_by(&allow(negated.clone())), !expected, "{negated:?}");
        let nobody = Sent { token: None, headers: vec![], sni: None, ..sent() };
        if !(positive.attributes.is_empty() && positive.principals.is_empty()) {
            assert!(!nobody.is_matched_by(&allow(positive.clone())), "{positive:?}");
            assert!(nobody.is_matched_by(&allow(negated.clone())), "{negated:?}");
        }
    }
}

#[test]
fn conditions_of_one_match_add_up_with_those_on_the_connection() {
    let get = RequestMatch { methods: vec![exact("GET")], ..RequestMatch::default() };
    let get_cart = RequestMatch { paths: vec![path("/cart/*")], ..get.clone() };
    let get_other = RequestMatch { paths: vec![path("/other")], ..get.clone() };
    let table = [
        (asking(get_cart), true),
        (asking(get_other), false),
        (Match { request: Some(Box::new(get.clone())), ..namespace("shop") }, true),
        (Match { request: Some(Box::new(get)), ..namespace("other") }, false),
        (Match { request: Some(Box::default()), ..namespace("shop") }, true),
        (asking(RequestMatch::default()), false),
    ];
    for (given, expected) in table {
        assert_eq!(sent().is_matched_by(&one(given.clone())), expected, "{given:?}");
    }
}

#[test]
fn values_of_a_header_that_differ_never_suit_the_client() {
    let ann_and_bob = Sent { headers: vec![("x-user", "ann"), ("x-user", "bob")], ..sent() };
    let twice_ann = Sent { headers: vec![("x-user", "ann"), ("x-user", "ann")], ..sent() };
    let none = Sent { headers: vec![], ..sent() };
    let empty = Sent { headers: vec![("x-user", "")], ..sent() };
    let any = attribute(Attribute::Header("x-user".into()), vec![StringMatch::Presence], vec![]);
    // Condition, request, whether an ALLOW and a DENY match.
    let table = [
        ("ann", header(&["ann"], &[]), &ann_and_bob, false, true),
        ("bob", header(&["bob"], &[]), &ann_and_bob, false, true),
        ("either", header(&["ann", "bob"], &[]), &ann_and_bob, true, true),
        ("eve", header(&["eve"], &[]), &ann_and_bob, false, false),
        ("not ann", header(&[], &["ann"]), &ann_and_bob, false, true),
        ("not eve", header(&[], &["eve"]), &ann_and_bob, true, true),
        ("neither", header(&[], &["ann", "bob"]), &ann_and_bob, false, false),
        ("ann twice", header(&["ann"], &[]), &twice_ann, true, true),
        ("none", header(&["ann"], &[]), &none, false, false),
        ("none is not ann", header(&[], &["ann"]), &none, true, true),
        ("there, be it empty", any.clone(), &empty, true, true),
        ("not there", any, &none, false, false),
    ];
    for (name, asked, sent, allows, denies) in table {
        assert_eq!(sent.is_matched_by(&allow(asked.clone())), allows, "allow {name}");
        assert_eq!(sent.is_matched_by(&deny(asked)), denies, "deny {name}");
    }
}

#[test]
fn a_path_or_host_that_is_read_in_two_ways_or_in_none_never_suits_the_client() {
    let admin = || RequestMatch { paths: vec![path("/admin")], ..RequestMatch::default() };
    let not_admin = || RequestMatch { not_paths: vec![path("/admin")], ..RequestMatch::default() };
    let to = |path| Sent { path, ..sent() };
    let paths = [
        ("/admin", true, true),
        ("/%61dmin", true, true),
        ("/a/../admin", false, true),
        ("\\admin", false, true),
        ("//admin", false, true),
        ("/x%2f..%2fadmin", false, true),
        ("admin", false, true),
        ("/%zz", false, true),
        ("*", false, true),
        ("/other", false, false),
        ("//other", false, false),
    ];
    for (text, allows, denies) in paths {
        assert_eq!(to(text).is_matched_by(&allow(admin())), allows, "allow {text}");
        assert_eq!(to(text).is_matched_by(&deny(admin())), denies, "deny {text}");
        assert_eq!(to(text).is_matched_by(&allow(not_admin())), !denies, "allow but {text}");
        assert_eq!(to(text).is_matched_by(&deny(not_admin())), !allows, "deny but {text}");
    }
    let shop = || RequestMatch { hosts: vec![exact("shop.example")], ..RequestMatch::default() };
    let hosts = [
        ("shop.example", true, true),
        ("Shop.Example.", true, true),
        ("shop.example.:80", true, true),
        ("other.example", false, false),
        ("[2001:db8::1]:80", false, false),
        ("[2001:db8::1]", false, false),
        ("", false, true),
        (":80", false, true),
        (".", false, true),
        ("me@shop.example", false, true),
        ("shop.example/", false, true),
        ("shop.example:x", false, true),
        ("shop.example:80:80", false, true),
        ("2001:db8::1", false, true),
    ];
    for (host, allows, denies) in hosts {
        let sent = Sent { host, ..sent() };
        assert_eq!(sent.is_matched_by(&allow(shop())), allows, "allow {host:?}");
        assert_eq!(sent.is_matched_by(&deny(shop())), denies, "deny {host:?}");
    }
}

#[test]
fn a_token_without_subject_proves_nobody() {
    let token = Some(Token { subject: "".into(), ..token() });
    let anybody = RequestMatch { principals: vec![StringMatch::Presence], ..RequestMatch::default() };
    assert!(!Sent { token, ..sent() }.is_matched_by(&allow(anybody)));
}

#[test]
fn an_audit_policy_is_told_and_decides_nothing() {
    let audit = |name, given| known(Policy { action: Action::Audit, ..policy(Action::Audit, name, given) });
    let set = PolicySet::new([
        audit("every", rules(vec![vec![]])),
        audit("none", vec![]),
        audit(
            "get",
            rules(vec![vec![vec![asking(RequestMatch {
                methods: vec![exact("GET")],
                ..RequestMatch::default()
            })]]]),
        ),
    ]);
    assert_eq!(set.evaluate(&connection()), Verdict::AllowedByDefault);
    sent().with(|request| {
        assert_eq!(set.judge(&connection(), request), Verdict::AllowedByDefault);
        assert_eq!(set.audited_by(&connection(), Some(request)), [&key("every"), &key("get")]);
    });
    let post = Sent { method: "POST", ..sent() };
    post.with(|request| assert_eq!(set.audited_by(&connection(), Some(request)), [&key("every")]));
    assert_eq!(set.audited_by(&connection(), None), [&key("every"), &key("get")], "noted rather than missed");
    assert!(!set.is_empty() && PolicySet::default().is_empty());
    assert!(!set.is_same(&PolicySet::default()));
}

#[test]
fn a_request_is_judged_in_the_order_of_connections_and_dry_runs_are_rehearsed() {
    let get = || RequestMatch { methods: vec![exact("GET")], ..RequestMatch::default() };
    let named = |name: &str, policy: Policy| known(Policy { key: key(name), ..policy });
    let trial = |policy| Policy { dry_run: true, ..policy };
    let set = PolicySet::new([named("a", allow(get())), named("d", trial(deny(get())))]);
    sent().with(|request| {
        assert_eq!(set.judge(&connection(), request), Verdict::AllowedBy(key("a")));
        assert_eq!(set.rehearse_request(&connection(), request), Some(Verdict::DeniedBy(key("d"))));
        let set = PolicySet::new([named("a", allow(get())), named("d", deny(get()))]);
        assert_eq!(set.judge(&connection(), request), Verdict::DeniedBy(key("d")));
        let set = PolicySet::new([named("a", allow(get())), Applied::Unreadable(key("u"))]);
        assert_eq!(set.judge(&connection(), request), Verdict::UnreadablePolicy(key("u")));
    });
    let post = Sent { method: "POST", ..sent() };
    assert!(!post.is_allowed_by(&set, &connection()));
}

#[test]
fn what_is_left_of_a_policy_for_connections_is_stricter() {
    let get = || asking(RequestMatch { methods: vec![exact("GET")], ..RequestMatch::default() });
    let get_80 = || Match { request: get().request, ..port(80) };
    let table = [
        (
            "allow",
            Action::Allow,
            vec![vec![vec![get_80()]], vec![vec![port(80)]]],
            Some(vec![vec![vec![port(80)]]]),
        ),
        ("allow of L7 alone refuses everything", Action::Allow, vec![vec![vec![get()]]], Some(vec![])),
        ("allow of nothing too", Action::Allow, vec![], Some(vec![])),
        ("deny", Action::Deny, vec![vec![vec![get_80()]]], Some(vec![vec![vec![port(80)]]])),
        ("deny of L7 alone denies everything", Action::Deny, vec![vec![vec![get()]]], Some(vec![vec![]])),
        (
            "one alternative of L7",
            Action::Deny,
            vec![vec![vec![port(1), get()], vec![port(2)]]],
            Some(vec![vec![vec![port(2)]]]),
        ),
        (
            "an empty match stays one that never holds",
            Action::Deny,
            vec![vec![vec![Match::default()], vec![get()]]],
            Some(vec![vec![vec![Match::default()]]]),
        ),
        ("deny of nothing", Action::Deny, vec![], None),
        ("audit", Action::Audit, vec![vec![]], None),
    ];
    for (name, action, given, expected) in table {
        let whole = policy(action, "p", rules(given));
        let expected = expected.map(|expected| policy(action, "p", rules(expected)));
        assert_eq!(whole.l4(), expected, "{name}");
        assert!(whole.l4().is_none_or(|l4| !l4.is_l7()), "{name}");
    }
}

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
            presenter: Some("a".into()),
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

    /// Design promise: L4 enforcement is never weaker than the policy as written.
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

    /// A client gains nothing by sending a header twice.
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

    /// Nor by a path that a server may read in another way.
    #[test]
    fn what_is_allowed_under_an_odd_path_is_allowed_under_the_plain_one(
        policies in vec(a_whole_policy(), 0..4), connection in a_connection(), sent in a_sent(),
        (odd, plain) in select(vec![
            ("//a", "/a"), ("/a//b", "/a/b"), ("/a%2Fb", "/a/b"), ("/a%5cb", "/a/b"), ("/x%2F..%2Fa", "/a"),
            ("/b/../a", "/a"), ("/%61", "/a"), ("/a\\b", "/a/b"),
        ]),
    ) {
        let whole = set(&policies);
        if (Sent { path: odd, ..sent.clone() }).is_allowed_by(&whole, &connection) {
            let sent = Sent { path: plain, ..sent };
            prop_assert!(sent.is_allowed_by(&whole, &connection));
        }
    }
}
