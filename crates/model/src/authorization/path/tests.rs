use super::{
    readings::{Readings, UnreadablePath, normalize_path},
    *,
};

#[test]
fn a_path_is_normalized_as_rfc_3986_says_and_slashes_stay() {
    let table = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a//b/", "/a//b/"),
        ("/a/./b/../c", "/a/c"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/../../a", "/a"),
        ("/..", "/"),
        ("/a/..b/.c/...", "/a/..b/.c/..."),
        ("/%61%2D%2e%7E", "/a-.~"),
        ("/a/%2e%2E/b", "/b"),
        ("/a%2fb%20c", "/a%2Fb%20c"),
        ("\\a\\..\\b", "/b"),
        ("/a%5c..", "/a%5C.."),
        ("/caf\u{e9}", "/caf%C3%A9"),
        ("/100%", "/100%25"),
        ("/%zz", "/%25zz"),
        ("/%+1", "/%25+1"),
        ("/a;x=1/b", "/a;x=1/b"),
        ("/%252e%252e/a", "/%252e%252e/a"),
    ];
    for (raw, expected) in table {
        assert_eq!(normalize_path(raw).as_deref(), Ok(expected), "{raw}");
        assert_eq!(normalize_path(expected).as_deref(), Ok(expected), "{raw} twice");
    }
    assert!(
        matches!(normalize_path("/plain/path.html"), Ok(Cow::Borrowed(_))),
        "the usual path costs nothing"
    );
}

#[test]
fn a_path_that_nobody_can_read_is_an_error() {
    for raw in ["", "a", "*", "%2Fa", "/%00", "/a\0", "/a\n", "/a?b", "/a#b"] {
        assert_eq!(normalize_path(raw), Err(UnreadablePath), "{raw:?}");
        assert!(Readings::new(raw).is_err(), "{raw:?}");
    }
    let many = "/%5C;//./%3B%2e%2f/..;%5c../%2F;x//".repeat(4);
    assert!(Readings::new(&many).is_err(), "more readings than are tried have no answer");
}

fn texts(raw: &str) -> std::collections::BTreeSet<String> {
    let found = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let readings = Readings::new(raw).unwrap();
    readings.agree(|reading| found.borrow_mut().insert(reading.text.to_string()) | true);
    found.into_inner()
}

#[test]
fn a_path_that_servers_treat_differently_has_several_readings() {
    let table: [(&str, &[&str]); 22] = [
        ("/a/b", &["/a/b"]),
        ("/%61/b%20", &["/a/b ", "/a/b%20"]),
        ("//a", &["//a", "/a"]),
        ("/a//b", &["/a//b", "/a/b"]),
        ("/a//", &["/a/", "/a//"]),
        ("//", &["/", "//"]),
        ("/a%2Fb", &["/a%2Fb", "/a/b"]),
        ("/a%5Cb", &["/a%5Cb", "/a/b", "/a\\b"]),
        ("/a%2F..%2Fb", &["/a%2F..%2Fb", "/a/../b", "/b"]),
        ("/a/x%2f%2e%2e/b", &["/a/b", "/a/x%2F../b", "/a/x/../b"]),
        ("/a/./b", &["/a/./b", "/a/b"]),
        ("/a/%2e%2e/b", &["/a/../b", "/b"]),
        ("/a//../b", &["/a//../b", "/a/../b", "/a/b", "/b"]),
        ("/a\\b", &["/a/b", "/a\\b"]),
        ("/v1/users%3Adelete", &["/v1/users%3Adelete", "/v1/users:delete"]),
        ("/a;x=1/b", &["/a/b", "/a;x=1/b"]),
        ("/p/..;/a", &["/a", "/p/../a", "/p/..;/a"]),
        ("/a%3Bx", &["/a", "/a%3Bx", "/a;x"]),
        ("/100%", &["/100%", "/100%25"]),
        ("/%2%46", &["/%252F", "/%2F"]),
        ("/%252e", &["/%252e", "/%2e"]),
        ("/caf\u{e9}", &["/caf%C3%A9"]),
    ];
    for (raw, expected) in table {
        let expected: std::collections::BTreeSet<String> =
            expected.iter().map(|text| (*text).into()).collect();
        assert_eq!(texts(raw), expected, "{raw}");
        assert!(texts(raw).contains(&*normalize_path(raw).unwrap()), "{raw}");
    }
}

/// What each kind of server makes of a path, computed without the steps above.
#[test]
fn whatever_order_a_server_takes_its_reading_is_among_them() {
    let paths = ["/a%2F..;x/b//c", "/;/..;a/%2Fy", "/x//..%5C./z", "/a%3B/..\\b", "/a/..%2F%2e/c;"];
    let decode = |text: &str| text.replace("%2F", "/").replace("%5C", "\\").replace("%3B", ";");
    let slash = |text: &str| text.replace('\\', "/");
    let cut = |text: &str| {
        text.split('/').map(|part| part.split(';').next().unwrap()).collect::<Vec<_>>().join("/")
    };
    let squeeze = |text: &str| {
        let mut text = text.to_owned();
        while text.contains("//") {
            text = text.replace("//", "/");
        }
        text
    };
    let dots = |text: &str| normalize_path(text).unwrap().into_owned();
    let steps: [&dyn Fn(&str) -> String; 5] = [&decode, &slash, &cut, &squeeze, &dots];
    for raw in paths {
        let known = texts(raw);
        let start = raw.replace("%2e", ".").replace("%2E", ".").replace("%5c", "%5C");
        for order in 0..3125_usize {
            let mut text = start.clone();
            for place in 0..5 {
                text = steps[order / 5_usize.pow(place) % 5](&text);
            }
            // Nothing is decoded twice.
            assert!(known.contains(&text), "{raw} {order}: {text}");
        }
    }
}

#[test]
fn patterns_compare_the_whole_path() {
    let table = [
        ("/a", "/a", true),
        ("/a", "/a/", false),
        ("/a", "/ab", false),
        ("/a", "/A", false),
        ("/a*", "/ab/c", true),
        ("/a/*", "/a", false),
        ("*/c", "/a/c", true),
        ("*.txt", "/a/b.txt", true),
        ("*", "/", true),
        ("/%7euser", "/~user", true),
        ("/a%2fb", "/a%2Fb", true),
        ("/foo/{*}", "/foo/bar", true),
        ("/foo/{*}", "/foo/", false),
        ("/foo/{*}", "/foo", false),
        ("/foo/{*}", "/foo/bar/", false),
        ("/foo/{*}", "/foo/bar/baz", false),
        ("/foo/{*}/bar", "/foo/x/bar", true),
        ("/foo/{**}", "/foo", false),
        ("/foo/{**}", "/foo/", true),
        ("/foo/{**}", "/foo/a/b/c", true),
        ("/foo/{**}", "/food/a", false),
        ("/foo/{**}/", "/foo/bar/", true),
        ("/foo/{**}/", "/foo//", true),
        ("/foo/{**}/", "/foo/bar", false),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", true),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", true),
        ("/foo/{*}/bar/{**}", "/foo/bar/baz", false),
        ("/{**}", "/", true),
        ("/{**}/x", "/a/b/x", true),
        ("/{**}/x", "/a/b/xx", false),
        ("/{*}", "/a", true),
        ("/{*}", "/", false),
    ];
    for (pattern, path, expected) in table {
        let parsed: PathPattern = pattern.parse().unwrap();
        let found = Readings::new(path).unwrap().agree(|reading| parsed.matches(reading));
        let is_odd = texts(path).len() > 1;
        assert!(found == Some(expected) || (is_odd && found.is_none()), "{pattern} {path}: {found:?}");
        if let PathPattern::Template(template) = parsed {
            assert_eq!(template.to_string(), pattern);
        }
    }
}

/// `None`: the readings disagree, so ALLOW does not match and DENY does.
#[test]
fn a_pattern_is_compared_in_the_spelling_of_each_reading() {
    let table = [
        ("/v1/users:delete", "/v1/users%3Adelete", None),
        ("/v1/users%3Adelete", "/v1/users:delete", None),
        ("/v1/users:delete", "/v1/users:delete", Some(true)),
        ("/my%20files/*", "/my%20files/x", Some(true)),
        ("/my%20files/*", "/my%20file/x", Some(false)),
        ("/a%2Fb", "/a%2fb", Some(true)),
        ("/a/b", "/a%2Fb", None),
        ("/a%2Fb", "/a/b", None),
        ("/api/*", "/api/x%2Fy", Some(true)),
        ("/a;v=1", "/a;v=1", Some(true)),
        ("/a;v=1", "/a;v=2", None),
        ("/a;v=1", "/a", Some(false)),
        ("/a", "/a;v=1", None),
        ("/u/{*}/x", "/u/a%3Ab/x", Some(true)),
        ("/u/{*}/x", "/u/a%2Fb/x", None),
        ("/u/a%3Ab/{**}", "/u/a%3Ab/x", Some(true)),
        ("/100%25", "/100%", Some(true)),
        ("/caf%C3%A9", "/caf\u{e9}", Some(true)),
        ("*.txt", "/a%20b.txt", Some(true)),
        ("*", "/a%2F..;", Some(true)),
    ];
    for (pattern, path, expected) in table {
        let parsed: PathPattern = pattern.parse().unwrap();
        let found = Readings::new(path).unwrap().agree(|reading| parsed.matches(reading));
        assert_eq!(found, expected, "{pattern} {path}");
    }
}

#[test]
fn a_pattern_that_could_mean_something_else_is_refused() {
    use InvalidPathPattern::{NotAbsolute, Operator, Unreadable, Wildcard};
    let table = [
        ("", NotAbsolute),
        ("a", NotAbsolute),
        ("a*", NotAbsolute),
        ("{*}", NotAbsolute),
        ("/a/*/b", Wildcard),
        ("*a*", Wildcard),
        ("**", Wildcard),
        ("/*/baz/{*}", Operator),
        ("/**/baz/{*}", Operator),
        ("/{**}/foo/{*}", Operator),
        ("/{**}/{**}", Operator),
        ("/foo/{*}.txt", Operator),
        ("/foo/x{**}", Operator),
        ("/foo/{**}x", Operator),
        ("/users/{id}", Operator),
        ("/a}", Operator),
        ("/%", Unreadable),
        ("/a%2*", Unreadable),
        ("/{*}/%zz", Unreadable),
        ("/a?b", Unreadable),
        ("/caf\u{e9}/*", Unreadable),
        ("/my files", Unreadable),
        ("/a<b>", Unreadable),
        ("/a\"", Unreadable),
        ("*\u{7f}", Unreadable),
        ("/%00", Unreadable),
    ];
    for (pattern, expected) in table {
        assert_eq!(pattern.parse::<PathPattern>(), Err(expected), "{pattern}");
    }
}
