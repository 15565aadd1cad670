use super::*;

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
        ("/caf\u{e9}", "/caf\u{e9}"),
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
    for raw in [
        "", "a", "*", "%2Fa", "/%", "/%2", "/%zz", "/%+1", "/%00", "/a\0", "/a\n", "/a?b", "/a#b", "/%\u{e9}",
    ] {
        assert_eq!(normalize_path(raw), Err(UnreadablePath), "{raw:?}");
    }
}

#[test]
fn a_path_that_servers_treat_differently_has_several_readings() {
    let table: [(&str, &[&str]); 16] = [
        ("/a/b", &[]),
        ("/%61/b%20", &[]),
        ("//a", &["/a"]),
        ("/a//b", &["/a/b"]),
        ("/a//", &["/a/"]),
        ("//", &["/"]),
        ("/a%2Fb", &["/a/b"]),
        ("/a%2fb", &["/a/b"]),
        ("/a%5Cb", &["/a/b"]),
        ("/a%2F..%2Fb", &["/b"]),
        ("/a/x%2f%2e%2e/b", &["/a/b"]),
        ("/a/./b", &["/a/./b"]),
        ("/a/../b", &["/a/../b"]),
        ("/a/%2e%2e/b", &["/a/../b"]),
        ("/a//../b", &["/b", "/a//../b"]),
        ("/a\\b", &["/a\\b"]),
    ];
    for (raw, expected) in table {
        let readings = Readings::new(raw).unwrap();
        assert_eq!(readings.others, expected, "{raw}");
        assert_eq!(Some(&*readings.strict), normalize_path(raw).ok().as_deref());
    }
    let readings = Readings::new("//admin").unwrap();
    assert_eq!(readings.agree(|path| path == "/admin"), None);
    assert_eq!(readings.agree(|path| path.ends_with("admin")), Some(true));
    assert_eq!(readings.agree(|path| path == "/other"), Some(false));
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
        assert_eq!(parsed.matches(path), expected, "{pattern} {path}");
        if let PathPattern::Template(template) = parsed {
            assert_eq!(template.to_string(), pattern);
        }
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
    ];
    for (pattern, expected) in table {
        assert_eq!(pattern.parse::<PathPattern>(), Err(expected), "{pattern}");
    }
}
