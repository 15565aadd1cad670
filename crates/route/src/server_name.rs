//! Selects the route of a TLS connection by the client's server name.
//!
//! Invariant: the most specific name wins (an exact one, then the longest suffix after `*.`); the
//! first of equal ones wins.

/// The index of the list with the most specific match for `name`. All names are in lower case.
pub fn by_server_name<'a, N>(lists: impl IntoIterator<Item = &'a [N]>, name: &str) -> Option<usize>
where
    N: AsRef<str> + 'a,
{
    let closest = |names: &[N]| names.iter().filter_map(|pattern| closeness(pattern.as_ref(), name)).max();
    let lists = lists.into_iter().enumerate().filter_map(|(at, names)| Some((closest(names)?, at)));
    lists.min_by_key(|(closest, at)| (std::cmp::Reverse(*closest), *at)).map(|(_, at)| at)
}

/// How specifically a pattern matches; `None` if it does not. `*.` matches one or more labels, as
/// in the Gateway API.
fn closeness(pattern: &str, name: &str) -> Option<usize> {
    match pattern.strip_prefix('*') {
        None => (pattern == name).then_some(usize::MAX),
        Some(parent) => (name.len() > parent.len() && name.ends_with(parent)).then_some(parent.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_wins_and_of_equals_the_first() {
        let lists: [&[&str]; 5] =
            [&["*.example"], &["a.example", "c.example"], &["*.b.example"], &["a.example"], &["example"]];
        for (name, expected) in [
            ("a.example", Some(1)),
            ("c.example", Some(1)),
            ("x.example", Some(0)),
            ("x.y.example", Some(0)),
            ("b.example", Some(0)),
            ("x.b.example", Some(2)),
            ("example", Some(4)),
            (".example", None),
            ("xexample", None),
            ("other", None),
            ("", None),
        ] {
            assert_eq!(by_server_name(lists, name), expected, "{name}");
        }
    }
}
