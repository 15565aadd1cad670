use std::{cell::RefCell, collections::HashMap};

use ambit_model::bound::{
    Backend, Cors, Fraction, HeaderChange, HeaderMatch, QueryMatch, Redirect, Rewrite, ValueMatch,
    WeightedBackend,
};
use proptest::prelude::*;

use super::*;

fn exact(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Exact(path.into()), ..HttpMatch::default() }
}

fn prefix(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Prefix(path.into()), ..HttpMatch::default() }
}

fn regex(path: &str) -> HttpMatch {
    HttpMatch { path: PathMatch::Regex(path.into()), ..HttpMatch::default() }
}

fn with_header(matched: HttpMatch, name: &str, value: ValueMatch) -> HttpMatch {
    HttpMatch { headers: vec![HeaderMatch { name: name.into(), value }], ..matched }
}

/// A table whose n-th match leads to the n-th rule.
fn table(matches: Vec<HttpMatch>) -> HttpTable {
    let rules = matches.iter().map(|_| HttpRule::default()).collect();
    HttpTable { matches: matches.into_iter().zip(0..).collect(), rules }
}

fn request(uri: &str, headers: &[(&str, &str)]) -> http::request::Parts {
    let mut request = http::Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn found(table: &Table, uri: &str, headers: &[(&str, &str)]) -> Option<usize> {
    table.find(&RequestHead::from(&request(uri, headers))).map(|found| found.index)
}

#[test]
fn the_first_match_in_order_wins_whatever_its_kind() {
    let matches = vec![
        regex("/a/.*"),
        prefix("/a/b"),
        exact("/a/b/c"),
        prefix("/a"),
        exact("/x"),
        regex("/x|/y"),
        prefix(""),
    ];
    let forward = Table::compile(Arc::new(table(matches.clone())));
    let backward = Table::compile(Arc::new(table(matches.into_iter().rev().collect())));
    for (uri, first, last) in [
        ("/a/b/c", 0, 0),
        ("/a/", 0, 0),
        ("/a", 3, 0),
        ("/x", 4, 0),
        ("/y", 5, 0),
        ("/z", 6, 0),
        ("/ab", 6, 0),
    ] {
        assert_eq!(found(&forward, uri, &[]), Some(first), "{uri}");
        assert_eq!(found(&backward, uri, &[]), Some(last), "{uri}");
    }
}

#[test]
fn a_prefix_holds_by_whole_elements_and_a_pattern_is_normalized_too() {
    let table = Table::compile(Arc::new(table(vec![prefix("/v2/"), prefix("/a//b"), exact("/%77")])));
    for (uri, expected) in [
        ("/v2", Some(0)),
        ("/v2/", Some(0)),
        ("/v2/x?y=/v3", Some(0)),
        ("/v2example", None),
        ("/V2", None),
        ("/v", None),
        ("/a//b/c", Some(1)),
        ("/a/b", None),
        ("/a//", None),
        ("/v%32", Some(0)),
        ("/v%32/", Some(0)),
        ("/w", Some(2)),
        ("/%77", Some(2)),
        ("/", None),
        ("http://host", None),
    ] {
        assert_eq!(found(&table, uri, &[]), expected, "{uri}");
    }
}

#[test]
fn a_match_whose_path_holds_and_whose_headers_do_not_gives_way() {
    let canary = ValueMatch::Exact("canary".into());
    let table = Table::compile(Arc::new(table(vec![
        with_header(exact("/a"), "env", canary.clone()),
        with_header(prefix("/a"), "env", canary),
        with_header(regex("/a"), "env", ValueMatch::Regex("prod.*".into())),
        HttpMatch { method: Some("PUT".into()), ..prefix("") },
        prefix("/a"),
    ])));
    assert_eq!(found(&table, "/a", &[("Env", "canary")]), Some(0));
    assert_eq!(found(&table, "/a/b", &[("env", "canary")]), Some(1));
    assert_eq!(found(&table, "/a", &[("env", "production")]), Some(2));
    assert_eq!(found(&table, "/a", &[]), Some(4));
    assert_eq!(found(&table, "/b", &[]), None);
    assert_eq!(found(&Table::compile(Arc::default()), "/", &[]), None);
}

#[test]
fn the_target_of_options_for_the_whole_server_is_taken_by_the_match_of_every_path() {
    let table = Table::compile(Arc::new(table(vec![prefix("/a"), prefix("")])));
    assert_eq!(found(&table, "*", &[]), Some(1));
}

#[test]
fn a_rule_that_is_invalid_answers_where_it_would_have_matched_and_others_go_on() {
    let bad = |matched| with_header(matched, "env", ValueMatch::Regex("(".into()));
    let mut source = table(vec![exact("/first"), bad(prefix("/a")), regex("["), exact("/late")]);
    source.matches.push((exact("/other"), 1));
    let table = Table::compile(Arc::new(source));
    let outcome = |uri: &str| {
        let request = request(uri, &[]);
        let found = table.find(&RequestHead::from(&request)).unwrap();
        (found.index, found.actions.err().cloned())
    };
    let blamed = |uri: &str| match outcome(uri) {
        (rule, Some(Invalid::Expression { expression, .. })) => (rule, expression.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome("/first"), (0, None));
    assert_eq!(blamed("/a/b"), (1, "(".to_owned()));
    // It is unknown what a broken expression should match, so it matches everything that nothing
    // before it does.
    assert_eq!(blamed("/late"), (2, "[".to_owned()));
    assert_eq!(table.invalid().count(), 2);
}

#[test]
fn a_filter_that_cannot_be_executed_makes_its_rule_invalid_of_a_backend_too() {
    let bad = Filter::RequestHeaders(HeaderChange { remove: vec!["a b".into()], ..HeaderChange::default() });
    let replace = |to: &str| Some(PathChange::Prefix(to.into()));
    let rewrite = Filter::Rewrite(Rewrite { hostname: None, path: replace("/x") });
    let redirect = Filter::Redirect(Redirect {
        scheme: None,
        hostname: None,
        path: replace("/x"),
        port: None,
        status: 302,
        trusts_forwarded_proto: false,
    });
    let backend = |filters| WeightedBackend { weight: 1, backend: Backend::Invalid("none".into()), filters };
    let rule = |filters, backends| HttpRule { filters, backends, ..HttpRule::default() };
    let cases = [
        (exact("/a"), rule(vec![bad.clone()], vec![]), Some(Invalid::HeaderName("a b".into()))),
        (exact("/a"), rule(vec![], vec![backend(vec![bad])]), Some(Invalid::HeaderName("a b".into()))),
        (exact("/a"), rule(vec![rewrite.clone()], vec![]), Some(Invalid::PrefixNotMatched)),
        (exact("/a"), rule(vec![], vec![backend(vec![redirect])]), Some(Invalid::PrefixNotMatched)),
        (prefix("/a"), rule(vec![rewrite], vec![]), None),
    ];
    for (matched, rule, expected) in cases {
        let table = Table::compile(Arc::new(HttpTable { matches: vec![(matched, 0)], rules: vec![rule] }));
        let request = request("/a", &[]);
        let found = table.find(&RequestHead::from(&request)).unwrap();
        assert_eq!(found.actions.err(), expected.as_ref());
    }
}

#[test]
fn a_match_that_leads_to_no_rule_is_a_404_and_never_another_rule() {
    let source =
        HttpTable { matches: vec![(exact("/a"), 7), (prefix(""), 0)], rules: vec![HttpRule::default()] };
    let table = Table::compile(Arc::new(source));
    assert_eq!(found(&table, "/a", &[]), None);
    assert_eq!(found(&table, "/b", &[]), Some(0));
}

/// A rule matches every spelling of its path that policies treat as equal, and `%2F` is not
/// decoded.
#[test]
fn a_path_is_compared_as_policies_normalize_it() {
    let source = HttpTable {
        matches: vec![(exact("/admin"), 0), (prefix("/admin/keys"), 1), (prefix(""), 2)],
        rules: vec![HttpRule::default(), HttpRule::default(), HttpRule::default()],
    };
    let table = Table::compile(Arc::new(source));
    let cases = [
        ("/admin", 0),
        ("/%61dmin", 0),
        ("/x/../admin", 0),
        ("/%2e/admin", 0),
        ("/admin/%6Beys/1", 1),
        ("/admin/x/%2E%2e/keys", 1),
        ("/admin%2Fkeys", 2),
        ("/100%", 2),
    ];
    for (path, rule) in cases {
        assert_eq!(found(&table, path, &[]), Some(rule), "{path}");
    }
}

/// Whether a match holds, in the simplest implementation.
fn holds(matched: &HttpMatch, head: &RequestHead<'_>) -> bool {
    let path = &*head.normalized_path();
    let by_path = || match &matched.path {
        PathMatch::Exact(exact) => *crate::head::normalized(exact) == *path,
        PathMatch::Prefix(prefix) => {
            let prefix = &*crate::head::normalized(prefix);
            prefix.is_empty() || path == prefix || path.starts_with(&format!("{prefix}/"))
        }
        PathMatch::Regex(text) => is_match(text, path),
    };
    let value = |matched: &ValueMatch, given: &str| match matched {
        ValueMatch::Exact(value) => **value == *given,
        ValueMatch::Regex(text) => is_match(text, given),
    };
    let by_header = || {
        matched.headers.iter().all(|header| {
            let lines = head.headers.get_all(&*header.name);
            lines.iter().any(|given| value(&header.value, given.to_str().unwrap()))
        })
    };
    let by_query = || {
        matched.query.iter().all(|query| {
            let pairs = head.uri.query().unwrap_or_default().split('&');
            let mut given =
                pairs.filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name == &*query.name);
            given.next().is_some_and(|(_, given)| value(&query.value, given))
        })
    };
    let by_method = || matched.method.as_ref().is_none_or(|method| **method == *head.method.as_str());
    by_method() && by_path() && by_header() && by_query()
}

thread_local! {
    /// There are few expressions, and compiling them takes most of the test's time.
    static COMPILED: RefCell<HashMap<String, regex::Regex>> = RefCell::default();
}

fn is_match(text: &str, given: &str) -> bool {
    COMPILED.with_borrow_mut(|compiled| {
        let compile = || regex::Regex::new(&format!("^(?:{text})$")).unwrap();
        compiled.entry(text.to_owned()).or_insert_with(compile).is_match(given)
    })
}

fn any_value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        "[ab]{1,2}".prop_map(|text| ValueMatch::Exact(text.into())),
        "[ab]\\|?[ab.]\\*?".prop_map(|text| ValueMatch::Regex(text.into())),
    ]
}

fn any_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        3 => "(/[ab]{0,2}){1,3}".prop_map(|text| PathMatch::Exact(text.into())),
        3 => "((/[ab]{0,2}){0,2}/[ab]{1,2})?".prop_map(|text| PathMatch::Prefix(text.into())),
        1 => "/[ab.]\\*?(/[ab])?".prop_map(|text| PathMatch::Regex(text.into())),
    ];
    let name = "[xy]";
    let headers = proptest::collection::btree_map(name, any_value(), 0..2);
    let query = proptest::collection::btree_map(name, any_value(), 0..2);
    let method = proptest::option::weighted(0.2, prop_oneof![Just("GET"), Just("PUT")]);
    (path, method, headers, query).prop_map(|(path, method, headers, query)| HttpMatch {
        path,
        method: method.map(Into::into),
        headers: headers.into_iter().map(|(name, value)| HeaderMatch { name: name.into(), value }).collect(),
        query: query.into_iter().map(|(name, value)| QueryMatch { name: name.into(), value }).collect(),
    })
}

fn any_request() -> impl Strategy<Value = http::request::Parts> {
    let headers = proptest::collection::vec(("[xy]", "[ab]{1,2}"), 0..3);
    let method = prop_oneof![Just("GET"), Just("PUT")];
    let query = proptest::option::of("([xy]=[ab]{1,2}&?){0,3}");
    ("(/[ab]{0,2}){1,4}", query, method, headers).prop_map(|(path, query, method, headers)| {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let mut request = http::Request::builder().method(method).uri(format!("{path}{query}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_answer_is_that_of_trying_every_match_in_order(
        matches in proptest::collection::vec(any_match(), 0..30),
        requests in proptest::collection::vec(any_request(), 1..20),
    ) {
        let source = Arc::new(table(matches));
        let compiled = Table::compile(source.clone());
        for request in &requests {
            let head = RequestHead::from(request);
            prop_assert_eq!(
                compiled.find(&head).map(|found| found.index),
                source.matches.iter().find(|(matched, _)| holds(matched, &head)).map(|(_, rule)| *rule),
                "{:?}",
                request.uri
            );
        }
    }

    #[test]
    fn no_path_and_no_expression_breaks_a_table(
        paths in proptest::collection::vec(".{0,12}", 0..6),
        uri in "[!-~]{0,30}",
    ) {
        let matches = paths.iter().flat_map(|path| [exact(path), prefix(path), regex(path)]).collect();
        let table = Table::compile(Arc::new(table(matches)));
        if let Ok(uri) = uri.parse::<http::Uri>() {
            let request = http::Request::builder().uri(uri).body(()).unwrap().into_parts().0;
            let _ = table.find(&RequestHead::from(&request)).map(|found| found.index);
        }
    }
}

#[test]
fn a_share_of_a_rule_is_kept_with_it() {
    let mirror = ambit_model::bound::Mirror {
        to: ambit_model::Destination { service: ambit_model::NamespacedName::new("ns", "copy"), port: 80 },
        fraction: Some(Fraction { numerator: 1, denominator: 2 }),
    };
    let rule = HttpRule { filters: vec![Filter::Mirror(mirror.clone())], ..HttpRule::default() };
    let table = Table::compile(Arc::new(HttpTable { matches: vec![(prefix(""), 0)], rules: vec![rule] }));
    let request = request("/", &[]);
    let found = table.find(&RequestHead::from(&request)).unwrap();
    assert_eq!(found.actions.unwrap().rule.mirrors(|| 0).collect::<Vec<_>>(), [&mirror]);
}

#[test]
fn a_preflight_comes_under_the_rules_of_the_request_that_it_announces() {
    let cors = |filters: Vec<Filter>| HttpRule { filters, ..HttpRule::default() };
    let anyone = || Cors {
        allow_origins: vec!["*".into()],
        allow_credentials: false,
        allow_methods: vec!["PUT".into()],
        allow_headers: Vec::new(),
        expose_headers: Vec::new(),
        max_age: std::time::Duration::from_secs(5),
    };
    let of = |path: &str, method: &str| HttpMatch {
        path: PathMatch::Prefix(path.into()),
        method: Some(method.into()),
        ..HttpMatch::default()
    };
    let matches = vec![
        (of("/put", "PUT"), 0),
        (of("/own", "OPTIONS"), 1),
        (of("/own", "PUT"), 0),
        (of("/none", "PUT"), 1),
    ];
    let rules = vec![cors(vec![Filter::Cors(anyone())]), cors(Vec::new())];
    let table = Table::compile(Arc::new(HttpTable { matches, rules }));
    for (path, announced, expected) in [
        ("/put", "PUT", true),
        ("/put", "GET", false),
        // The service handles this itself.
        ("/own", "PUT", false),
        ("/none", "PUT", false),
        ("/other", "PUT", false),
    ] {
        let request = http::Request::options(path)
            .header("origin", "https://app.example")
            .header("access-control-request-method", announced);
        let parts = request.body(()).unwrap().into_parts().0;
        let head = RequestHead::from(&parts);
        let asked = CrossOriginRequest::of(&head).unwrap();
        let found = table.cross_origin(&head, &asked);
        assert_eq!(found.is_some_and(|cors| cors.answer(&asked).is_some()), expected, "{path} {announced}");
    }
}
