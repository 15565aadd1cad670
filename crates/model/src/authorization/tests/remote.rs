//! Which source of the client address a rule uses.

use super::*;

fn hits(action: Action, found: Match, forwarded: Option<&'static str>) -> bool {
    let headers = requests::Fields(forwarded.into_iter().map(|text| ("x-forwarded-for", text)).collect());
    let request = Request {
        host: "shop",
        method: "GET",
        path: "/",
        headers: &headers,
        token: None,
        remote_ip: connection().source_ip,
        sni: None,
    };
    policy(action, "p", rules(vec![vec![vec![found]]])).matches_request(&connection(), &request)
}

fn asks(net: &str, trusted_proxies: Option<u32>) -> Match {
    let remote_ips = vec![net.parse().unwrap()];
    let request = RequestMatch { remote_ips, trusted_proxies, ..RequestMatch::default() };
    Match { request: Some(Box::new(request)), ..Match::default() }
}

/// The peer is 10.0.1.2, of account shop/web.
#[test]
fn what_is_forwarded_counts_where_it_is_trusted_and_is_doubt_elsewhere() {
    let named = |found| Match { service_accounts: vec![NamespacedName::new("shop", "web")], ..found };
    let principal = |found| Match { principals: vec![exact("td/ns/shop/sa/web")], ..found };
    let anyone = |found| Match { principals: vec![StringMatch::Presence], ..found };
    let (office, pods) = ("198.51.100.0/24", "10.0.0.0/8");
    let (inside, outside) = (Some("198.51.100.7"), Some("203.0.113.9"));
    let chain = Some("198.51.100.7, 203.0.113.9");
    // Name, match, header, and whether ALLOW and DENY match.
    let table = [
        ("set: inside", asks(office, Some(0)), inside, true, true),
        ("set: outside", asks(office, Some(0)), outside, false, false),
        ("set: the last of a chain", asks(office, Some(0)), chain, false, false),
        ("set: one proxy more", asks(office, Some(1)), chain, true, true),
        ("set: too short", asks(office, Some(1)), inside, false, true),
        ("set: nothing forwarded", asks(pods, Some(0)), None, true, true),
        ("a named account: inside", named(asks(office, None)), inside, true, true),
        ("a named account: outside", named(asks(office, None)), outside, false, false),
        ("a named account: the last of a chain", named(asks(office, None)), chain, false, false),
        ("a named principal", principal(asks(office, None)), inside, true, true),
        ("anyone: inside", anyone(asks(office, None)), inside, false, true),
        ("not set: inside", asks(office, None), inside, false, true),
        ("not set: outside", asks(office, None), outside, false, false),
        ("not set: the peer", asks(pods, None), None, true, true),
        ("not set: the peer, and another", asks(pods, None), inside, false, true),
        ("not set: no address", asks(pods, None), Some("unknown"), false, true),
    ];
    for (name, found, forwarded, allows, denies) in table {
        assert_eq!(hits(Action::Allow, found.clone(), forwarded), allows, "ALLOW {name}");
        assert_eq!(hits(Action::Deny, found, forwarded), denies, "DENY {name}");
    }
}
