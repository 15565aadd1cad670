//! Tables for request conditions.

use super::*;

mod properties;

pub(super) struct Fields(pub(super) Vec<(&'static str, &'static str)>);

impl Headers for Fields {
    fn each(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        self.0.iter().filter(|(own, _)| *own == name).for_each(|(_, value)| visit(value.as_bytes()));
    }
}

/// The parts of a request, owned.
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
        presenters: vec!["app".into()],
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
        (method(exact("get")), true),
        (method(prefix("g")), true),
        (method(exact("ge")), false),
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
    // Condition, request, and whether ALLOW and DENY match.
    let table = [
        ("ann", header(&["ann"], &[]), &ann_and_bob, false, true),
        ("bob", header(&["bob"], &[]), &ann_and_bob, false, true),
        ("either", header(&["ann", "bob"], &[]), &ann_and_bob, false, true),
        ("all of them", header(&["ann", "bob", "ann,bob"], &[]), &ann_and_bob, true, true),
        ("joined", header(&["ann,bob"], &[]), &ann_and_bob, false, true),
        ("not joined", header(&[], &["ann,bob"]), &ann_and_bob, false, true),
        ("eve", header(&["eve"], &[]), &ann_and_bob, false, false),
        ("not ann", header(&[], &["ann"]), &ann_and_bob, false, true),
        ("not eve", header(&[], &["eve"]), &ann_and_bob, true, true),
        ("neither", header(&[], &["ann", "bob"]), &ann_and_bob, false, true),
        ("ann twice", header(&["ann"], &[]), &twice_ann, false, true),
        ("ann, and more of her", header(&["ann", "ann,ann"], &[]), &twice_ann, true, true),
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
        ("/%00", false, true),
        ("/100%", false, false),
        ("/;x/admin", false, true),
        ("/admin;x=1", false, true),
        ("/public/..;/admin", false, true),
        ("/x/%2E%2E%2Fadmin", false, true),
        ("/a/..%5Cadmin", false, true),
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
